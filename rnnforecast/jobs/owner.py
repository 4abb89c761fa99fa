"""To which job a file belongs, also after a job has been moved, or mounted elsewhere.

A job's name is no identity: `job.toml` lies in many folders. Its path is none either, because a
folder that is moved, copied or mounted elsewhere takes manifest, ledger and log with it. So each of
these records the job's path twice: absolute, and from the folder of the record.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnforecast.config.job import Job

JOB, FROM_HERE, OUTPUT, LABEL = "job", "job_from_here", "output_from_here", "job_name"
"""Keys of a record: the job file, absolute and from the record's folder; the output, from there;
and the name that the job file gives the job."""


def describe_owner(job: Job, folder: Path) -> dict[str, Any]:
    """Return what a record in this folder says about the job that it belongs to."""
    return {
        JOB: str(job.path.resolve()),
        FROM_HERE: path_from(folder, job.path),
        OUTPUT: path_from(folder, Path(job.output)),
        LABEL: job.label,
    }


def path_from(folder: Path, path: Path) -> str:
    """Return a path relative to a folder; links in both are resolved."""
    return os.path.relpath(path.resolve(), folder.resolve())


def belongs_to(job: Job, record: Mapping[str, Any], folder: Path) -> bool:
    """Tell whether a record in this folder is that of the job.

    It is where the names that the job files give differ in nothing, and the job file lies at the
    recorded path, or as far from the folder as it did. Elsewhere it is the job's only if no file
    lies at the recorded path any more, and the job has the recorded name, file name or output: it
    was moved. A record that names no job belongs to everybody.
    """
    path, name = record.get(JOB), record.get(LABEL)
    if not isinstance(path, str):
        return True
    if None not in (name, job.label) and name != job.label:
        return False

    from_here = record.get(FROM_HERE)
    if path == str(job.path.resolve()) or from_here == path_from(folder, job.path):
        return True
    recorded = [Path(path)] + ([folder / from_here] if isinstance(from_here, str) else [])
    are_same = [is_same for place in recorded if (is_same := _is_file_of(job, place)) is not None]
    if are_same:
        return any(are_same)

    has_output = record.get(OUTPUT) == path_from(folder, Path(job.output))
    has_name = job.label is not None and name == job.label
    return has_name or has_output or Path(path).name == job.path.name


def _is_file_of(job: Job, place: Path) -> bool | None:
    """Tell whether a place is that of the job's file, by another name; None where no file is there.

    A folder that is mounted twice shows one file under two names. What may not be looked at is
    another's.
    """
    try:
        return place.samefile(job.path)
    except OSError as error:
        is_gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        return None if is_gone and not os.path.lexists(place) else False
