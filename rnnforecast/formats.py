"""Formats of what is written, told by a file's name. Standard library only."""

from __future__ import annotations

from rnnforecast.config import STANDARD_OUTPUT
from rnnforecast.errors import UsageError
from rnnforecast.urls import without_query

OUTPUT_FORMATS = (".csv", ".parquet", ".jsonl")
PICTURE_FORMATS = (".png", ".svg", ".html")
PAGE_FORMATS = (".html", ".htm")


def check_format(path: str, *, allows_stream: bool = True) -> None:
    """Raise `UsageError` for a file that could not be written in any known format."""
    if allows_stream and path == STANDARD_OUTPUT:
        return
    if not without_query(path).lower().endswith(OUTPUT_FORMATS):
        raise UsageError(
            f"cannot tell the format of {path!r}",
            hint=f"end its name with one of {', '.join(OUTPUT_FORMATS)}",
        )


def check_picture(path: str) -> None:
    """Raise `UsageError` for a picture that could not be drawn in any known format."""
    if not path.lower().endswith(PICTURE_FORMATS):
        raise UsageError(
            f"cannot tell the format of {path!r}",
            hint=f"end its name with one of {', '.join(PICTURE_FORMATS)}",
        )


def check_page(path: str) -> None:
    """Raise `UsageError` for a report whose name does not say that it is a page."""
    if not path.lower().endswith(PAGE_FORMATS):
        raise UsageError(f"a report is a page, but {path!r} is not", hint="end its name with .html")
