"""The version, alone in a module so that reading it imports nothing else."""

from __future__ import annotations

__version__ = "0.2.0"
