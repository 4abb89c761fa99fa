"""Faults: what happens to a forecast that is left to cron, and what must hold afterwards.

After each fault CURRENT leads to a version that loads, a forecast is the old or the new, what a
manifest counts is there, nothing else has changed, and the same command again comes to the same
bytes (`scene.Scene.check`, `check_done`). Commands run in processes of their own (`warm`), on a
disk that fails or is cut off (`disk`, `powercut`). Every loop prints its counts (`pytest -s`), and
adds them to the file that RNNFORECAST_FAULT_COUNTS names.

1   killed at every labelled place and at random moments: `test_kills`
2   the N-th open, write, sync, rename, link, unlink, mkdir fails: `test_errors`, and of the writer
    alone `tests/storage/test_durable.py`
3   what was not synced is lost: `test_power_cuts`
4   eight at once, with readers: `test_many`; the lock alone: `tests/storage/test_lock.py`
5   killed while a child lives: `test_many`; with workers: `test_workers`; the lock alone:
    `tests/storage/test_lock.py`
6   signals in a training, one and two, and going on: `tests/cli/test_resume.py`,
    `tests/process/test_signals.py`
7   a full disk, then room again: `test_errors`; `/dev/full`: `tests/storage/test_durable.py`
8   the same command twice: `test_again`; what is missing is made again: `tests/cli/test_run.py`
9   a clock that jumps: `test_again`; the ages of versions: `tests/storage/test_versions.py`
10  stale, future, frozen, truncated, replaced input: `test_inputs`
11  damaged artifacts: `tests/model/test_artifact.py`, `tests/test_damage.py`
12  retention races with readers, killed inside: `test_many`, `test_kills`
13  read-only places, no home, locales, closed streams, odd paths: `test_surroundings`; modes that
    follow the umask: `tests/storage/test_durable.py`
14  a thousand cycles of cron: `soak`, in short `test_soak`
15  bad input within bounds of time and memory: `tests/test_limits.py`, `tests/test_cases.py`

The test of the tests: `tests/storage/test_durable.py` removes each sync and each rename of the
writer in turn; `test_power_cuts` does the same, and looks what a power cut leaves.
"""
