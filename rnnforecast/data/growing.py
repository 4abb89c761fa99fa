"""An array that grows at its end, for columns whose length is known only when they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIRST_ROWS = 1 << 6
_CHUNK_ROWS = 1 << 20


class Growing:
    """An array that grows at its end; its chunks are views of it, and it goes with the last."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._array = np.empty(_FIRST_ROWS, dtype)
        self._n = 0

    def widen(self, dtype: type[np.generic]) -> None:
        """Hold values of another type from here on."""
        if self._array.dtype != dtype:
            wide = np.empty(len(self._array), dtype)
            wide[: self._n] = self._array[: self._n]
            self._array = wide

    def append(self, values: NDArray[np.generic]) -> None:
        """Copy values to the end, cast to the array's type."""
        end = self._n + len(values)
        if end > len(self._array):
            self._array.resize(max(end, 2 * len(self._array)), refcheck=False)
        self._array[self._n : end] = values
        self._n = end

    def chunks(self) -> list[NDArray[Any]]:
        """Return all that was appended, in chunks of the same lengths for every column."""
        self._array.resize(self._n, refcheck=False)
        return [self._array[i : i + _CHUNK_ROWS] for i in range(0, self._n, _CHUNK_ROWS)]
