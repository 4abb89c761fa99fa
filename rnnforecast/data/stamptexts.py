"""Stamps as text: ISO 8601, or one other format that all of them share.

Below `stamps`, which knows columns, zones and lines: here are only texts and microseconds.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rnnforecast.data.panel import Integers

OFFSET = re.compile(r"[T ]\d{1,2}:?\d{2}.*?(Z|[+-]\d{2}(:?\d{2})?)$")
_MIDNIGHT = re.compile(r"(?<=[T ])24(?=:?00(?::?00(?:[.,]0+)?)?(?:\D|$))")
_LEAP_SECOND = re.compile(r"(?<=:\d\d):60(?:[.,]\d+)?")
_DAY_US = 86_400_000_000
_END_OF_SECOND_US = 999_000

REPAIRS = {
    "hour-24": "24:00 is read as midnight of the next day",
    "leap-second": "a leap second is read as the end of the second before",
}
"""What is said of stamps that are read as something near."""


class AmbiguousDateError(ValueError):
    """Day and month could be either way round in every stamp."""


class Parsed(NamedTuple):
    """What became of some stamps, `(row,)` each."""

    times: Integers
    bad: NDArray[np.bool_]
    """No time; what stands in `times` means nothing."""
    differs: NDArray[np.bool_]
    """With an offset where the others have none, or without one."""
    repairs: Counter[str]
    """How many were read as something near, by the code of the warning."""


@dataclass(frozen=True)
class StampTexts:
    """Reads one column's texts."""

    is_aware: bool
    format: str | None = None
    """What the user said; else an early batch decides for all that follow."""
    _decided: list[str] = field(default_factory=list)

    def parse(self, array: pa.Array) -> Parsed:
        """Turn texts without nulls into microseconds. Raises `AmbiguousDateError`."""
        nowhere = np.zeros(len(array), np.bool_)
        if self.format is None:
            try:  # nearly every file has ISO 8601, and Arrow reads it without making objects
                stamps = pc.cast(array, pa.timestamp("us", tz="UTC" if self.is_aware else None))
            except pa.ArrowInvalid:
                pass
            else:
                fast: Integers = np.array(stamps.cast(pa.int64()).to_numpy())
                return Parsed(fast, nowhere, nowhere, Counter())
        texts = array.to_pandas()
        repaired, more_us, repairs = _repair(texts)
        parsed = self._parse(repaired)
        bad = parsed.isna().to_numpy()
        differs = np.array([(OFFSET.search(t.strip()) is None) == self.is_aware for t in texts])
        if self.format is not None:
            differs = nowhere
        naive = parsed.dt.tz_localize(None).to_numpy("datetime64[us]")
        return Parsed(naive.astype(np.int64) + more_us, bad, differs, repairs)

    def _parse(self, texts: pd.Series[str]) -> pd.Series[pd.Timestamp]:
        if self.format is not None:
            return pd.to_datetime(texts, utc=True, errors="coerce", format=self.format)
        parsed = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601")
        if parsed.isna().all():
            parsed = pd.to_datetime(texts, utc=True, errors="coerce", format=self._found(texts))
        return parsed

    def _found(self, texts: pd.Series[str]) -> str:
        """Find the one format of stamps that are not ISO 8601; day and month are never guessed."""
        if self._decided:
            return self._decided[0]
        guesses = Counter(filter(None, map(guess_format, texts.iloc[:100])))
        guessed = max(guesses, key=guesses.__getitem__, default="ISO8601")
        if re.match(r"%[dm][-/.]%[dm]", guessed):
            mark = guessed[2]
            pattern = re.compile(r"\s*(\d{1,2})M(\d{1,2})M".replace("M", re.escape(mark)))
            parts = [match for text in texts if (match := pattern.match(text))]
            first, second = (max(int(match[i]) for match in parts) for i in (1, 2))
            if first <= 12 and second <= 12:
                raise AmbiguousDateError
            order = f"%d{mark}%m" if first > 12 else f"%m{mark}%d"
            guessed = order + guessed[5:]
        self._decided.append(guessed)
        return guessed


def guess_format(text: str) -> str | None:
    """Return the format of one stamp; where day and month could be either, some order of them."""
    with warnings.catch_warnings():  # pandas warns of a day that stands first; it is checked here
        warnings.simplefilter("ignore", UserWarning)
        return pd.tseries.api.guess_datetime_format(text)


def has_leap_second(text: str) -> bool:
    """Tell whether a stamp names the sixtieth second of a minute."""
    return _LEAP_SECOND.search(text) is not None


def _repair(texts: pd.Series[str]) -> tuple[pd.Series[str], Integers, Counter[str]]:
    """Write 24:00 as the midnight before, and a leap second as the second before.

    With the texts comes what is to be added to their times, `(row,)`, in microseconds.
    """
    is_midnight = texts.str.contains(_MIDNIGHT).to_numpy(np.bool_)
    is_leap = texts.str.contains(_LEAP_SECOND).to_numpy(np.bool_)
    repairs: Counter[str] = Counter()
    if is_midnight.any():
        texts = texts.str.replace(_MIDNIGHT, "00", regex=True)
        repairs["hour-24"] += int(is_midnight.sum())
    if is_leap.any():
        texts = texts.str.replace(_LEAP_SECOND, ":59", regex=True)
        repairs["leap-second"] += int(is_leap.sum())
    return texts, is_midnight * _DAY_US + is_leap * _END_OF_SECOND_US, repairs
