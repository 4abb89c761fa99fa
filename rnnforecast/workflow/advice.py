"""Advice that was tried: each proposal is run on the readings before a user sees it.

An option is offered only where the table can be read and trained on with it, and with what it
costs: how many readings it drops or changes. Nothing is tried within a trial.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rnnforecast.config.fields import add_arguments
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import Config
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.panel import Panel
from rnnforecast.data.setup import set_up_training
from rnnforecast.errors import (
    DataError,
    Location,
    NotEnoughDataError,
    Proposal,
    RnnForecastError,
    TimeLimitError,
    UsageError,
)
from rnnforecast.events import Event, Listener, Recorder, WarningEvent, ignore
from rnnforecast.sources.shards import ShardFolder
from rnnforecast.sources.source import (
    STANDARD_INPUT,
    Source,
    join_key,
    open_source,
    open_table,
    take_head,
)
from rnnforecast.tables.match import read_inferred
from rnnforecast.tables.profile import SPIKE, warnings_of_spikes
from rnnforecast.tables.rows import MAX_READING, ReadContext, Rows, read_rows
from rnnforecast.tables.schema import Schema

_MAX_CELLS = 200_000
"""Tables up to this are tried whole, others on their beginning; it takes about 0.2 s."""
_MAX_CELLS_WHOLE = 1_000_000
"""Up to this a table is tried whole where its beginning does not show the problem."""
_CELLS_OF_A_TRIAL = 40_000
"""What a trial costs beside its cells, in cells."""
_MAX_CELLS_OF_ALL = 2_400_000
"""All trials of one error, or of all warnings together, take about two seconds at most."""
_MAX_ROUNDS = 3
"""An option may lead to another question, and that to a third one."""
MAX_SHARE = 0.1
"""What costs more of a column is offered only where nothing else helps, and never in a warning."""
_MAX_SHARE_OF_ALL = 0.5
"""What costs more of a column is never offered."""
_FEW_READINGS = 20
"""The share of readings that a series loses is taken of at least this many."""
_Problem = tuple[str, str, Location | None]
Read = Callable[[Source, DataConfig, Listener], tuple[Panel, Schema]]


@dataclass(frozen=True)
class Task:
    """What a command reads, and how: all that is needed to try other options on it."""

    data: object
    config: Config
    """The options so far; a trained model's own windows do not matter."""
    read: Read = read_inferred
    schema: Schema | None = None
    """That of a trained model."""
    is_training: bool = True
    """Whether a network is to be fitted to the readings, so that they must suffice for it."""
    can_read_again: bool = True
    """False where several processes read a part each."""

    def open(self, data: object, options: DataConfig, listener: Listener) -> Source:
        """Open the table, with the columns joined that a trained model had joined."""
        if self.schema is None:
            return open_table(data, options, listener)
        time, series, tz = self.schema.time, self.schema.series, self.schema.tz
        return open_table(data, options, listener, time_column=time, series_column=series, tz=tz)


@contextmanager
def trying_proposals(task: Task, listener: Listener) -> Iterator[Listener]:
    """Try all proposals of the errors and warnings that the block raises and reports.

    The block reports to the listener that it is given. Warnings with proposals are passed on when
    it ends. What is not read again (standard input, buckets) keeps its proposals as they are.
    """
    pending: list[WarningEvent] = []

    def hear(event: Event) -> None:
        if isinstance(event, WarningEvent) and event.proposals:
            pending.append(event)
        else:
            listener(event)

    try:
        yield hear
    except RnnForecastError as error:
        for warning in pending:
            listener(replace(warning, proposals=()))
        if error.proposals and not isinstance(error, TimeLimitError):
            error.proposals = _Trials(task).choose_for_error(error)
        raise
    trials = _Trials(task, looks_for_spikes=any(warning.code == SPIKE for warning in pending))
    for warning in pending:
        listener(replace(warning, proposals=trials.choose_for_warning(warning)))


def with_harmless(task: Task, proposals: Sequence[Proposal]) -> Config:
    """Return a task's config with the proposals about sentinels that do no harm.

    Each of them is tried beside those before it.
    """
    for proposal in proposals:
        warning = WarningEvent("sentinel", "", proposals=(proposal,))
        if _Trials(task).choose_for_warning(warning):
            task = replace(task, config=_with_options(task.config, proposal.options))
    return task.config


@dataclass(frozen=True)
class Loss:
    """How many readings each series loses to options, `(series,)` each."""

    names: tuple[str, ...]
    n_readings: Integers
    """Different ones, in the whole table."""
    n_lost: Integers
    """Those that are missing on the grid, or another number there."""
    n_dropped: int
    """By how many the readings of all series become fewer."""
    n_texts: int = 0
    """Cells that are no numbers, and become missing."""
    text_share: float = 0.0
    """The largest share of such cells of a column."""
    n_rows: int = 0
    n_skipped: int = 0
    """Rows of the table, and those of them that have too few or too many fields."""

    @property
    def share(self) -> float:
        """The largest share that a series or a column loses."""
        shares = self.n_lost / np.maximum(self.n_readings, _FEW_READINGS)
        skipped_share = self.n_skipped / max(self.n_rows, 1)
        return float(shares.max(initial=max(self.text_share, skipped_share)))

    def describe(self, *, is_sampled: bool) -> str:
        """Return the loss in words; nothing where there is none."""
        total, lost = int(self.n_readings.sum()), int(self.n_lost.sum())
        first = "the first " * is_sampled
        if self.n_skipped:
            return f"skips {self.n_skipped:,} of {first}{self.n_rows:,} rows"
        if not lost:
            n_cells = total + self.n_texts
            missing = f"treats {self.n_texts:,} of {first}{n_cells:,} cells as missing"
            return missing if self.n_texts else ""
        verb = "drops" if self.n_dropped >= lost else "changes"
        text = f"{verb} {lost:,} of {first}{total:,} readings"

        worst = int(np.argmax(self.n_lost / np.maximum(self.n_readings, 1)))
        if self.share > MAX_SHARE >= lost / total:
            text += f", {self.n_lost[worst]:,} of {self.n_readings[worst]:,} of {self.names[worst]}"
        return text


@dataclass(frozen=True)
class _Trial:
    """How the readings are read with some options."""

    error: RnnForecastError | None = None
    """What reading, or preparing the training, raises."""
    warnings: tuple[WarningEvent, ...] = ()
    loss: Loss | None = None
    effect: str = ""
    n_readings: Mapping[str, int] = field(default_factory=dict)
    """Readings on the grid of each series that is read."""
    n_skipped: int = 0
    """Rows that are left out, with too few or too many fields."""

    @property
    def is_read(self) -> bool:
        """Whether the readings are read, be it that they cannot be trained on."""
        return bool(self.n_readings)

    @property
    def is_short(self) -> bool:
        """Whether readings are read, but are too few to train on."""
        is_refused = isinstance(self.error, NotEnoughDataError) and self.error.code == "too-short"
        return is_refused and self.is_read


@dataclass(frozen=True)
class _End:
    """Where a proposal leads, by itself or with what is asked next."""

    n_rounds: int
    """How many more options it needs."""
    share: float
    """The largest share of a series that is lost."""
    effect: str
    is_short: bool = False
    """Whether the table can be read then, but has too few rows to train on."""


class _Trials:
    """Runs options on the readings of a task, each once."""

    def __init__(self, task: Task, *, looks_for_spikes: bool = False) -> None:
        self._task = task
        self._looks_for_spikes = looks_for_spikes
        self._data = task.data
        self._results: dict[Config, _Trial] = {}
        self._limit: int | None = _MAX_CELLS
        self._is_sampled = False
        self._n_cells_of_table = 0
        self._n_cells = 0
        """What all trials have cost so far."""
        is_buckets = isinstance(task.data, ShardFolder)
        is_stream = isinstance(task.data, str) and task.data == STANDARD_INPUT
        self._can_read_again = task.can_read_again and not (is_buckets or is_stream)

    def choose_for_error(self, error: RnnForecastError) -> tuple[Proposal, ...]:
        """Return the proposals of an error that solve it, the best first, with their effects."""
        start = self._start(
            lambda trial: trial.error is not None and trial.error.code == error.code
        )
        if start is None or start.error is None:
            return error.proposals
        return self._choose(error.proposals, start.error)

    def _choose(
        self, proposals: Sequence[Proposal], error: RnnForecastError
    ) -> tuple[Proposal, ...]:
        """Return those of the proposals that solve an error of the table as it is."""
        problems = frozenset({_problem_of(error)})
        ends: list[tuple[Proposal, _End]] = []
        untried: list[Proposal] = []
        foreign: list[Proposal] = []
        for proposal in proposals:
            try:
                config = _with_options(self._task.config, proposal.options)
                end = self._follow(config, problems, _MAX_ROUNDS)
            except _NotTriedError:
                untried.append(proposal)
            except _ForeignError:
                foreign.append(proposal)
            except UsageError:
                continue  # it contradicts the other options
            else:
                ends += [(proposal, end)] if end is not None else []

        if any(not end.is_short for _, end in ends):
            ends = [(proposal, end) for proposal, end in ends if not end.is_short]
        harmless = [(proposal, end) for proposal, end in ends if end.share <= MAX_SHARE]
        if (
            not harmless
            and len(ends) == 1
            and not untried
            and ends[0][1].share <= _MAX_SHARE_OF_ALL
        ):
            harmless = ends  # its effect says what is lost
        harmless.sort(key=lambda pair: (pair[1].n_rounds, pair[1].share))
        tried = [
            replace(proposal, effect=end.effect or proposal.effect) for proposal, end in harmless
        ]
        return (*(tried or untried), *foreign)

    def choose_for_warning(self, warning: WarningEvent) -> tuple[Proposal, ...]:
        """Return the proposals of a warning that help and do no harm, with their effects.

        The table can be used as it is: an option that raises an error, or after which it can no
        longer be trained on, or that leaves the warning as it was, is left out.
        """
        start = self._start(lambda trial: warning.code in {w.code for w in trial.warnings})
        if start is None or not start.is_read:
            return warning.proposals
        if start.error is not None and start.error.code == warning.code:
            return self._choose(warning.proposals, start.error)

        chosen = []
        for proposal in warning.proposals:
            try:
                trial = self._run(_with_options(self._task.config, proposal.options))
            except _ForeignError:
                trial = None
            except UsageError:
                continue  # it contradicts the other options
            if trial is None:
                chosen.append(proposal)
                continue

            is_usable = trial.error is None or (
                start.error is not None and trial.error.code == start.error.code
            )
            again = {(w.code, w.message) for w in trial.warnings}
            share = trial.loss.share if trial.loss else 0.0
            if is_usable and share <= MAX_SHARE and (warning.code, warning.message) not in again:
                chosen.append(replace(proposal, effect=trial.effect or proposal.effect))
        return tuple(chosen)

    def _start(self, shows: Callable[[_Trial], bool]) -> _Trial | None:
        """Return how the table is read as it is; None where what is tried does not show a problem.

        A table whose beginning does not show it is tried whole, unless that would take too long.
        Warnings about a whole table need not come from reading it.
        """
        trial = self._run(self._task.config)
        if trial is None or shows(trial):
            return trial

        if self._limit is None or not self._is_sampled:
            return trial if trial.is_read else None
        if self._n_cells_of_table > _MAX_CELLS_WHOLE:
            return None
        self._limit = None
        self._results.clear()
        return self._start(shows)

    def _follow(self, config: Config, problems: frozenset[_Problem], n_rounds: int) -> _End | None:
        """Return where options lead, if need be with the proposals of the error that follows.

        None where they lead nowhere, or back to one of the problems.
        """
        trial = self._run(config)
        if trial is None:
            raise _NotTriedError
        share = trial.loss.share if trial.loss else 0.0
        if trial.error is None:
            return _End(0, share, trial.effect)
        if trial.is_short:
            effect = "too few rows are then left for training"
            effect = f"{trial.effect}; {effect}" if trial.effect else effect
            return _End(0, share, effect, is_short=True)

        problem = _problem_of(trial.error)
        if n_rounds == 1 or problem in problems:
            return None
        ends = []
        for proposal in trial.error.proposals:
            next_config = _with_options(config, proposal.options)
            end = self._follow(next_config, problems | {problem}, n_rounds - 1)
            ends += [end] if end is not None else []
        if not ends:
            return None
        best = min(ends, key=lambda end: (end.is_short, end.share > MAX_SHARE, end.n_rounds))
        # What is lost in the end is shown when the next question comes up.
        return replace(best, n_rounds=best.n_rounds + 1, effect="")

    def _run(self, config: Config) -> _Trial | None:
        """Return how the readings are read with these options; None where that is not tried."""
        if not self._can_read_again:
            return None
        if config not in self._results:
            if self._n_cells >= _MAX_CELLS_OF_ALL:
                return None
            self._results[config] = self._try(config)
        return self._results[config]

    def _try(self, config: Config) -> _Trial:
        events = Recorder(ignore)
        warnings = events.warnings
        # Rows that are rejected are written by the command itself, not by a trial.
        config = replace(config, data=replace(config.data, rejects=None))
        loss, effect, n_skipped = None, "", 0
        n_readings: dict[str, int] = {}
        start = self._results.get(self._task.config, _Trial())
        try:
            self._n_cells += _CELLS_OF_A_TRIAL
            source = self._open(config.data)
            self._n_cells += source.n_rows_estimate * len(source.columns)
            panel, schema = self._task.read(source, config.data, events)
            n_readings = dict(zip(panel.names, panel.count_readings().tolist(), strict=True))
            n_skipped = len(source.rejected())
            rows = self._read_rows(config.data, panel, schema)
            if self._is_on_same_grid(config.data) and start.is_read:
                loss = _loss_on_grid(start.n_readings, n_readings)
                effect = loss.describe(is_sampled=self._is_sampled)
            elif config.data.is_resampled:
                effect = _describe_bins(rows, panel)
            else:
                loss = loss_of(
                    rows,
                    panel,
                    config.data.counter,
                    is_wide=schema.series is None,
                    included={*panel.names, *start.n_readings},
                )
                loss = self._with_texts(loss, config.data, schema)
                n_more = n_skipped - start.n_skipped
                loss = replace(loss, n_rows=rows.n_rows + n_skipped, n_skipped=max(n_more, 0))
                effect = loss.describe(is_sampled=self._is_sampled)
            if self._looks_for_spikes:
                warnings += warnings_of_spikes(panel)
            if self._task.is_training:
                set_up_training(panel, config, ignore)
        except TimeLimitError:
            raise
        except RnnForecastError as error:
            return _Trial(error, tuple(warnings), loss, effect, n_readings, n_skipped)
        except Exception as error:  # a trial must not hide what the user has to know
            return _Trial(RnnForecastError(str(error)), tuple(warnings))
        return _Trial(None, tuple(warnings), loss, effect, n_readings, n_skipped)

    def _is_on_same_grid(self, options: DataConfig) -> bool:
        """Tell whether bins, or differences of counters, are those of the options so far."""
        grid_of = attrgetter("freq", "agg", "counter")
        is_same = grid_of(options) == grid_of(self._task.config.data)
        return is_same and (options.is_resampled or bool(options.counter))

    def _open(self, options: DataConfig) -> Source:
        """Open the table, or its beginning."""
        if not isinstance(self._data, str | Path):
            self._data = getattr(open_source(self._data, options), "table", self._data)
        source = self._task.open(self._data, options, ignore)
        self._n_cells_of_table = source.n_rows_estimate * len(source.columns)
        head = source if self._limit is None else take_head(source, self._limit)
        self._is_sampled = head is not source
        return head

    def _read_rows(self, options: DataConfig, panel: Panel, schema: Schema) -> Rows:
        """Read the rows of the table before any reading is taken out by options that are tried."""
        typed = self._task.config.data
        added = set(options.na_values) - set(typed.na_values)
        options = replace(
            options,
            na_values=tuple(t for t in options.na_values if t not in added or not _is_reading(t)),
            valid_range=typed.valid_range,
            exclude=typed.exclude,
            excluded_times=typed.excluded_times,
            inf_as_na=True,
        )
        base = dict(zip(panel.names, panel.base.tolist(), strict=True))
        source = join_key(self._open(options), schema.series)
        context = ReadContext(source, schema, options, ignore)
        return read_rows(context, known_offsets=base)[0]

    def _with_texts(self, loss: Loss, options: DataConfig, schema: Schema) -> Loss:
        """Add the cells whose texts only the options that are tried take for missing."""
        typed = self._task.config.data.na_values
        texts = [t for t in options.na_values if t not in typed and not _is_reading(t)]
        if not texts:
            return loss

        types = dict.fromkeys(schema.targets, pa.string())
        n_texts, n_cells = np.zeros(len(types), np.int64), np.zeros(len(types), np.int64)
        before = tuple(text for text in options.na_values if text not in texts)
        try:
            source = self._open(replace(options, na_values=before))
        except DataError:  # a file whose texts are errors as soon as it is opened
            return loss
        for batch in source.batches(types):
            is_text = [pc.is_in(column, pa.array(texts)) for column in batch.columns]
            n_texts += [pc.sum(flags).as_py() or 0 for flags in is_text]
            n_cells += [len(column) - column.null_count for column in batch.columns]
        share = float((n_texts / np.maximum(n_cells, 1)).max())
        return replace(loss, n_texts=int(n_texts.sum()), text_share=share)


class _NotTriedError(Exception):
    """There were too many trials already."""


class _ForeignError(Exception):
    """An option is not about reading or windows, so that reading cannot try it."""


def _problem_of(error: RnnForecastError) -> _Problem:
    """Return what tells an error from others: too few readings are so with other numbers, too."""
    if isinstance(error, NotEnoughDataError):
        return error.code, "", None
    return error.code, error.message, error.location


def _is_reading(text: str) -> bool:
    """Tell whether a text is a number that a sensor may read."""
    try:
        return text == text.strip() and abs(float(text)) <= MAX_READING
    except ValueError:
        return False


def _with_options(config: Config, options: Sequence[str]) -> Config:
    """Return a config with options as a user types them. Raises `UsageError` for invalid ones."""
    data, unknown = add_arguments(config.data, options)
    window, unknown = add_arguments(config.window, unknown)
    if unknown:
        raise _ForeignError
    return replace(config, data=data, window=window)


def loss_of(
    rows: Rows, panel: Panel, counters: Sequence[str], *, is_wide: bool, included: Collection[str]
) -> Loss:
    """Compare the readings of rows with those on the grid, without regard to their times.

    The rows hold all readings, with the value offsets of the panel. A reading that is repeated with
    the same time and value counts once. Counters are left out, as the grid holds their differences,
    and so are series that are not `included`.
    """
    is_alone = len(rows.value_offsets) == 1
    long_names = {
        t: rows.names if is_alone else [f"{n}/{t}" for n in rows.names] for t in rows.value_offsets
    }
    names: list[str] = []
    series, values = [np.zeros(0, np.int64)], [np.zeros(0)]
    for target in rows.value_offsets:
        if target not in counters:
            code, reading = _distinct_readings(rows, target)
            series.append(code + len(names))
            values.append(reading)
            names += [target] if is_wide else long_names[target]

    position = {name: index for index, name in enumerate(names)}
    panel_series = np.array([position.get(name, -1) for name in panel.names], np.int64)
    row_series = np.repeat(panel_series, panel.lengths)
    grid_values = panel.target.astype(np.float64) + np.repeat(panel.base, panel.lengths)
    is_placed = np.isfinite(grid_values) & (row_series >= 0)

    before = np.concatenate(series), np.concatenate(values)
    after = row_series[is_placed], grid_values[is_placed]
    n_readings = np.bincount(before[0], minlength=len(names))
    n_lost = np.zeros(len(names), np.int64)
    if len(before[0]) > len(after[0]):  # else nothing is merged either
        n_lost = _missing_counts(before, after, n_series=len(names))
    n_dropped = n_readings - np.bincount(after[0], minlength=len(names))

    selected = [index for index, name in enumerate(names) if name in included]
    total = int(n_dropped[selected].sum())
    return Loss(tuple(names[i] for i in selected), n_readings[selected], n_lost[selected], total)


def _distinct_readings(rows: Rows, target: str) -> tuple[Integers, Doubles]:
    """Return the series and the values of the different readings of a target, `(reading,)` each."""
    times, codes = np.concatenate(rows.times), np.concatenate(rows.codes)
    readings = np.concatenate(rows.readings(target)).astype(np.float64)
    readings += rows.value_offsets[target][codes]
    table = pd.DataFrame({"series": codes, "time": times, "reading": readings})
    distinct = table[np.isfinite(readings)].drop_duplicates()
    return distinct["series"].to_numpy(np.int64), distinct["reading"].to_numpy()


def _missing_counts(
    before: tuple[Integers, Doubles], after: tuple[Integers, Doubles], *, n_series: int
) -> Integers:
    """`(series,)`: how many pairs of series and value are missing afterwards.

    A pair that occurs several times has to occur as often afterwards.
    """
    series, values = (np.concatenate(pair) for pair in zip(before, after, strict=True))
    change = np.repeat([1, -1], [len(before[0]), len(after[0])])
    order = np.lexsort((values, series))
    series, values, change = series[order], values[order], change[order]
    starts = np.flatnonzero(np.append(True, (np.diff(series) != 0) | (np.diff(values) != 0)))
    surplus = np.maximum(np.add.reduceat(change, starts), 0)
    counts: Integers = np.bincount(series[starts], surplus, minlength=n_series).astype(np.int64)
    return counts


def _loss_on_grid(before: Mapping[str, int], after: Mapping[str, int]) -> Loss:
    """Compare the readings of each series on a grid with those on the same grid before."""
    n_before = np.array(list(before.values()), np.int64)
    n_lost = n_before - np.array([after.get(name, 0) for name in before], np.int64)
    return Loss(tuple(before), n_before, np.maximum(n_lost, 0), n_dropped=int(n_lost.sum()))


def _describe_bins(rows: Rows, panel: Panel) -> str:
    """Return how many readings an aggregate turns into how many, in words."""
    n_readings = sum(
        int(np.isfinite(chunk).sum())
        for name in rows.value_offsets
        for chunk in rows.readings(name)
    )
    n_empty = panel.n_rows - panel.n_readings
    text = f"{n_readings:,} readings become {panel.n_readings:,}"
    return f"{text}; {n_empty:,} steps are empty" if n_empty else text
