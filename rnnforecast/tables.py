"""Tables that fit the screen: long names are shortened, and what still does not fit is left out."""

from __future__ import annotations

from collections.abc import Sequence

_BETWEEN = 2
"""Blanks between columns."""
_SHORTEST = 8
_FEWEST = 2
"""Columns that stay, however narrow the screen is."""

Row = Sequence[str]


def fit_table(header: Row, rows: Sequence[Row], width: int) -> tuple[Row, list[Row], Row]:
    """Return a table at most so many cells wide, and the headings of columns that are left out.

    The first column holds names: they give way first, from their middle. Then columns go from the
    right, where the least important ones stand.
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]
    n = len(header)
    while n > _FEWEST and _total([min(widths[0], _SHORTEST), *widths[1:n]]) > width:
        n -= 1
    room = max(_SHORTEST, width - _total([0, *widths[1:n]]))
    kept = [[_shorten(row[0], room), *row[1:n]] for row in (header, *rows)]
    return kept[0], [*kept[1:]], header[n:]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _BETWEEN * (len(widths) - 1)


def _shorten(text: str, room: int) -> str:
    """Leave out the middle of a text that is wider than its room; some characters are two cells."""
    from rich.cells import cell_len

    if cell_len(text) <= room:
        return text
    begin, end = "", ""
    for left, right in zip(text, reversed(text), strict=True):
        if cell_len(begin + left + "…" + end) > room:
            break
        begin += left
        if cell_len(begin + "…" + right + end) > room:
            break
        end = right + end
    return f"{begin}…{end}"
