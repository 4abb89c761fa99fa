"""Names that are numbers, whatever way each tool writes them."""

from __future__ import annotations

import re


def canonical(name: str) -> str:
    """Write a whole number without zeros before and after it."""
    match = re.fullmatch(r"0*(\d+)(?:\.0*)?", name.strip())
    return match[1] if match else name.strip()
