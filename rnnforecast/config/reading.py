"""Options of how readings are read: columns, text, cleaning, resampling, covariates."""

from __future__ import annotations

import io
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from rnnforecast.config.fields import check_choices, option, resolved
from rnnforecast.errors import UsageError
from rnnforecast.units import (
    EPOCH_UNITS_US,
    EXCEL,
    TICKS,
    YEAR,
    check_range,
    parse_duration_us,
    parse_ranges,
    parse_step_count,
    parse_steps,
)

_MAX_GAP = 10**9
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]+)?"
AGG_RULES = ("mean", "sum", "last", "min", "max")
ANGLE = "angle"
"""The rule of directions in degrees: they are averaged as unit vectors."""
_MIN_SHARE, _MIN_SHARE_OF_SUMS = 0.5, 0.9
_UTC_OFFSET = r"[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]"
"""Less than a day."""


WHITESPACE = "whitespace"
"""What stands for a separator where runs of blanks and tabs divide the columns."""
BLANKS_BETWEEN = (WHITESPACE, r"\s+")
"""What `--sep` may be for that."""
COLUMN = "COLUMN"
"""The metavar of options that name a column: the command line completes their values."""
_data = partial(option, group="Data")
_text = partial(option, group="Reading text")
_cleaning = partial(option, group="Cleaning")
_covariates = partial(option, group="Covariates")


@dataclass(frozen=True)
class DataConfig:
    """How readings are read. What is not set is inferred, reported, and stored with the model."""

    time: str | None = _data(None, "Time column", metavar=COLUMN)
    series: str | None = _data(None, "Key columns of a long table, comma-separated", metavar=COLUMN)
    target: tuple[str, ...] = _data(
        (), "Column to forecast; repeatable (default: all numeric columns)", metavar=COLUMN
    )
    known: tuple[str, ...] = _covariates(
        (), "Column known in advance, such as a setpoint; repeatable", metavar=COLUMN
    )
    past: tuple[str, ...] = _covariates(
        (), "Extra input known only up to the present; repeatable", metavar=COLUMN
    )
    static: tuple[str, ...] = _covariates(
        (), "Column that is constant within each series; repeatable", metavar=COLUMN
    )
    categorical: tuple[str, ...] = _covariates(
        (),
        "Treat this --known, --past or --static column as categories; repeatable",
        metavar=COLUMN,
        rare=True,
    )
    calendar: tuple[str, ...] = _covariates(
        (),
        "Calendar features: hour, weekday, month",
        choices=("hour", "weekday", "month"),
        listed=True,
    )
    holidays: str | None = _covariates(
        None, "Add public holidays of a country or region (DE, DE-BY)", metavar="REGION", rare=True
    )
    freq: str | None = _data(None, "Step between readings, e.g. 15min", metavar="DURATION")
    agg: tuple[str, ...] = _data(
        (),
        "How to combine readings within one --freq step: mean, sum, last, min, max, or "
        "COLUMN=RULE (also angle); repeatable",
        metavar="RULE",
    )
    min_share: float | None = _data(
        None,
        "Share of its readings below which a --freq step is missing (default: 0.9 for sums, "
        "0.5 otherwise)",
        metavar="FRACTION",
        rare=True,
    )
    hold: str | None = _data(
        None,
        "Keep the last value this long, for sensors that send only changes, e.g. 2h",
        metavar="DURATION",
        rare=True,
    )
    tz: str | None = _data(None, "Time zone of the readings, e.g. Europe/Berlin", metavar="ZONE")
    closed: str = _cleaning(
        "auto",
        "Exclude hours of the week without any readings (auto), or count them as gaps (none)",
        choices=("auto", "none"),
        rare=True,
    )
    sep: str | None = _text(
        None, "Column separator; whitespace means runs of blanks", metavar="CHAR"
    )
    decimal: str | None = _text(None, "Decimal mark: . or ,", metavar="CHAR")
    thousands: str | None = _text(None, "Thousands separator", metavar="CHAR", rare=True)
    encoding: str | None = _text(None, "Text encoding, e.g. cp1252", metavar="NAME")
    sheet: str | None = _text(
        None, "Sheet of an Excel file (default: the first with a table)", metavar="NAME", rare=True
    )
    query: str | None = _text(None, "SQL query to read from a database", metavar="SQL", rare=True)
    skip_rows: int = _text(0, "Lines to skip before the header", metavar="N")
    comment: str | None = _text(
        None, "Prefix of comment lines, such as #", metavar="TEXT", rare=True
    )
    no_header: bool = _text(
        False, "The file has no header; name the columns with --columns", rare=True
    )
    id_from_columns: bool = _text(False, "Wide table: every column is its own series", rare=True)
    columns: tuple[str, ...] = _text((), "Comma-separated column names", listed=True, rare=True)
    na_values: tuple[str, ...] = _text((), "Text to treat as missing; repeatable", metavar="TEXT")
    on_bad_rows: str = _cleaning(
        "error",
        "What to do with rows that have too few or too many fields",
        choices=("error", "skip"),
        rare=True,
    )
    rejects: str | None = _cleaning(
        None, "Write skipped rows to this file", metavar="FILE", rare=True
    )
    max_bad_rows: str = _cleaning(
        "0.1%", "Maximum rows to skip, as a number or a percentage", metavar="N|PERCENT", rare=True
    )
    inf_as_na: bool = _cleaning(False, "Treat infinite values as missing", rare=True)
    time_format: str | None = _text(
        None, "Format of the timestamps, e.g. '%d/%m/%Y %H:%M'", metavar="FORMAT"
    )
    time_unit: str | None = _text(
        None,
        "Unit of numeric timestamps (Unix time, spreadsheet days, years as 1949.25, .NET ticks)",
        choices=(*EPOCH_UNITS_US, EXCEL, YEAR, TICKS),
        rare=True,
    )
    leap_second: str = _text(
        "clamp",
        "How to read hh:mm:60: clamp to :59.999999, or fail",
        choices=("clamp", "error"),
        rare=True,
    )
    midnight: str | None = _text(
        None,
        "Whether 00:00 starts its date, or ends it as 24:00 does: start, end; or the time at "
        "which dates change, such as 06:00 (default: ask where rows say so)",
        metavar="start|end|TIME",
        rare=True,
    )
    time_range: str = _text(
        "1900:2200", "Accepted years, from:to (end excluded)", metavar="YEARS", rare=True
    )
    counter: tuple[str, ...] = _data(
        (), "Cumulative meter column; forecast increments; repeatable", metavar=COLUMN
    )
    exclude: str | None = _cleaning(
        None, "CSV of periods to ignore: series, from, to", metavar="FILE"
    )
    valid_range: tuple[str, ...] = _cleaning(
        (), "Treat readings outside column=low:high as missing; repeatable", metavar="RANGE"
    )
    stuck_as_na: str | None = _cleaning(
        None,
        "Treat readings unchanged for this long as missing, e.g. 6h",
        metavar="DURATION",
        rare=True,
    )
    max_gap: str | None = _cleaning(
        None,
        "Do not forecast from a history with a gap longer than this",
        metavar="N|DURATION",
        rare=True,
    )
    allow_future: bool = _cleaning(False, "Accept timestamps in the future", rare=True)
    map: tuple[str, ...] = _data(
        (), "Rename a column: new=old; repeatable", metavar="NEW=OLD", rare=True
    )
    max_memory: str | None = _data(
        None,
        "Memory limit, e.g. 4G (default: most of the available memory)",
        metavar="SIZE",
        rare=True,
    )
    max_input_bytes: str = _data(
        "64G", "Limit on the decompressed input size", metavar="SIZE", rare=True
    )
    on_duplicate: str = _cleaning(
        "error",
        "What to do with conflicting readings for the same timestamp",
        choices=("error", "last", "mean"),
    )
    excluded_times: str | None = resolved(None)
    """The rows of `exclude` as CSV, once they were read. A saved version has them, too."""

    def facts(self) -> dict[str, Any]:
        """Return all that decides the readings, for the key of a forecast: contents, not paths."""
        values = {**asdict(self), "exclude": None, "rejects": None}
        return {k: v for k, v in values.items() if k != "excluded_times" or v is not None}

    @property
    def named_columns(self) -> tuple[str, ...]:
        """The columns that the user names for any role."""
        named = (self.time, self.series, *self.target, *self.known, *self.past, *self.static)
        return tuple(name for name in named if name is not None)

    @property
    def named_targets(self) -> tuple[str, ...]:
        """The columns that the user names as readings."""
        return (*self.target, *self.counter, *self.valid_ranges, *self.agg_by_column)

    @property
    def valid_ranges(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest valid reading by column."""
        return parse_ranges("valid-range", self.valid_range)

    @property
    def is_resampled(self) -> bool:
        """Whether readings are put together to steps of `--freq`."""
        return bool(self.freq and self.agg)

    @property
    def agg_by_column(self) -> dict[str, str]:
        """The rules of `--agg` that name a column."""
        rules = (text.rpartition("=") for text in self.agg if "=" in text)
        return {column: rule for column, _, rule in rules}

    def agg_of(self, column: str) -> str:
        """Return the rule by which readings of a column that fall into one step become one."""
        default = next((rule for rule in self.agg if "=" not in rule), "mean")
        return self.agg_by_column.get(column, default)

    def min_share_of(self, rule: str) -> float:
        """Return the share of its readings below which a step is missing, by the rule of `--agg`.

        A sum of few readings is too small; a mean of half of them is nearly right.
        """
        if self.min_share is not None:
            return self.min_share
        return _MIN_SHARE_OF_SUMS if rule == "sum" else _MIN_SHARE

    @property
    def hold_us(self) -> int | None:
        """For how long a value counts, in microseconds; None where it counts at its own time."""
        return None if self.hold is None else parse_duration_us(self.hold)

    @property
    def numeric_na_values(self) -> tuple[float, ...]:
        """Those texts of `na_values` that are numbers."""
        numbers = []
        for text in self.na_values:
            with suppress(ValueError):
                numbers.append(float(text))
        return tuple(numbers)

    def max_gap_steps(self, step_us: int) -> int | None:
        """Return how many steps in a row may be missing; None for any number."""
        if self.max_gap is None:
            return None
        return parse_steps(self.max_gap, step_us=step_us, name="max-gap", limit=_MAX_GAP)

    @property
    def years(self) -> tuple[int, int]:
        """The accepted years of timestamps, as a half-open range."""
        match = re.fullmatch(r"(\d{4}):(\d{4})", self.time_range)
        if match is None or not 1 <= int(match[1]) < int(match[2]):
            raise UsageError(
                f"--time-range is {self.time_range!r}, but must be two years, such as 1900:2200"
            )
        return int(match[1]), int(match[2])

    @property
    def date_change_us(self) -> int | None:
        """The time of day at which dates change, in microseconds; just after 00:00 for `end`."""
        if self.midnight is None or self.midnight in ("start", "end"):
            return 1 if self.midnight == "end" else None
        match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", self.midnight)
        if match is None:
            raise UsageError(
                f"--midnight is {self.midnight!r}, but must be start, end, or a time such as 06:00"
            )
        return (60 * int(match[1]) + int(match[2])) * 60_000_000 or None

    @property
    def memory_limit(self) -> int | None:
        """Bytes that reading and training may need; None for most of the machine's memory."""
        return None if self.max_memory is None else parse_bytes("--max-memory", self.max_memory)

    @property
    def input_limit(self) -> int:
        """Bytes that a compressed file may unpack to."""
        return parse_bytes("--max-input-bytes", self.max_input_bytes)

    def bad_row_limit(self, n_rows: int) -> int:
        """Return how many of `n_rows` rows may be skipped; for a share above 0, at least one."""
        match = re.fullmatch(rf"({_NUMBER})(%?)", self.max_bad_rows)
        if match is None or (match[2] and float(match[1]) > 100):
            raise UsageError(
                f"--max-bad-rows is {self.max_bad_rows!r}, but must be a number such as 20 or "
                "a percentage such as 0.1%"
            )
        most = float(match[1])
        return max(1, int(most / 100 * n_rows)) if match[2] and most else int(most)

    def __post_init__(self) -> None:
        """Raise `UsageError` for invalid values, and for options that contradict each other."""
        agg: object = self.agg
        if not isinstance(agg, tuple):  # in Python, one rule for all columns may be a text
            object.__setattr__(self, "agg", (agg,) if agg else ())
        check_choices(self)
        columns = self.named_columns
        for name in columns:
            if columns.count(name) > 1:
                raise UsageError(f"column {name!r} is given two roles")
        if self.id_from_columns and (self.series or self.static):
            raise UsageError("--id-from-columns cannot be combined with --series or --static")

        _ = self.memory_limit, self.input_limit
        for pair in self.map:
            if not all(pair.partition("=")[::2]):
                raise UsageError(f"--map is {pair!r}, but must be two names, such as new=old")
        if self.stuck_as_na is not None:
            parse_duration_us(self.stuck_as_na)
        if self.max_gap is not None:
            parse_step_count(self.max_gap, name="max-gap", limit=_MAX_GAP)
        _ = self.valid_ranges, self.years, self.bad_row_limit(0), self.date_change_us

        if self.rejects is not None and self.on_bad_rows != "skip":
            raise UsageError("--rejects needs --on-bad-rows skip")
        _check_text_format(self)
        check_range("skip-rows", self.skip_rows, 0, 10**9)
        _check_agg(self)


def _check_agg(config: DataConfig) -> None:
    """Raise `UsageError` for an unknown rule of `--agg`, and for rules that contradict others."""
    defaults = [text for text in config.agg if "=" not in text]
    rules = [*defaults, *config.agg_by_column.values()]
    for text, rule in zip([*defaults, *config.agg_by_column], rules, strict=True):
        if rule not in (*AGG_RULES, ANGLE) or text == ANGLE:
            raise UsageError(
                f"--agg is {text if rule == text else f'{text}={rule}'!r}, but must be one of "
                f"{', '.join(AGG_RULES)}, or COLUMN=RULE, such as wind=angle"
            )
    if len(defaults) > 1 or len(rules) < len(config.agg):
        raise UsageError(f"--agg has conflicting rules: {', '.join(config.agg)}")

    # an angle is one at every step; all else says how steps become longer ones
    if not config.freq and any(rule != ANGLE for rule in rules):
        raise UsageError("--agg needs --freq", hint="add the step, e.g.  --freq 15min")
    for name in config.counter:
        rule = config.agg_by_column.get(name, "sum")
        if rule != "sum":
            raise UsageError(
                f"--agg is {name}={rule}, but {name!r} is a counter",
                hint="the increments of a counter are always summed",
            )

    check_range("min-share", config.min_share, 0, 1)
    if config.min_share is not None and not config.is_resampled:
        raise UsageError("--min-share needs --freq and --agg")
    if config.hold is not None:
        parse_duration_us(config.hold)
        summed = [text for text, rule in zip(config.agg, rules, strict=False) if rule == "sum"]
        if summed:
            raise UsageError(
                "--hold cannot be combined with sums", hint="choose another rule, e.g.  --agg mean"
            )


def _zones_like(text: str) -> str:
    """Return the zones whose city has this name, for a hint, or examples of zones."""
    city = "/" + text.strip().replace(" ", "_").casefold()
    zones = sorted(zone for zone in available_timezones() if zone.casefold().endswith(city))
    return f"use {' or '.join(zones or ['e.g. UTC, Europe/Vienna', '+01:00'])}"


def parse_bytes(name: str, text: str) -> int:
    """Parse a size such as 4G or 500M, or plain bytes."""
    match = re.fullmatch(rf"({_NUMBER}) *([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or not float(match[1]):
        raise UsageError(f"{name} is {text!r}, but must be a size, such as 4G or 500M")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _check_time_format(text: str) -> None:
    """Raise `UsageError` for what is no format of `strptime`."""
    reason = "it is empty" if not text.strip() else ""
    try:
        time.strptime(time.strftime(text, time.gmtime(0)), text)
    except re.error:
        reason = "it contains a part twice"
    except ValueError as error:  # as it does for each text that does not match
        if "directive" in str(error) or "stray" in str(error):
            reason = str(error)
    if reason:
        raise UsageError(
            f"--time-format is {text!r}, which is not a valid format: {reason}",
            hint="e.g. '%d/%m/%Y %H:%M'; write a literal percent sign as %%",
        )


def _check_text_format(config: DataConfig) -> None:
    """Raise `UsageError` for an invalid header, mark, time zone or encoding."""
    if config.no_header != bool(config.columns):
        raise UsageError(
            "--no-header and --columns must be given together",
            hint="e.g.  --no-header --columns time,flow,level",
        )

    marks = {"sep": config.sep, "decimal": config.decimal, "thousands": config.thousands}
    for name, value in marks.items():
        if name == "sep" and value in BLANKS_BETWEEN:
            continue
        if value is not None and len(value) != 1:
            hint = "for a tab, type  --sep $'\\t'" if value == "\\t" else None
            raise UsageError(f"--{name} is {value!r}, but must be one character", hint=hint)
    if config.decimal not in (None, ".", ","):
        raise UsageError(f"--decimal is {config.decimal!r}, but must be . or ,")
    if config.thousands is not None and config.thousands == (config.decimal or "."):
        raise UsageError(
            f"--thousands and --decimal are both {config.thousands!r}",
            hint="give the decimal mark too, e.g.  --thousands . --decimal ,",
        )

    if config.tz is not None and not re.fullmatch(_UTC_OFFSET, config.tz):
        try:
            ZoneInfo(config.tz)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise UsageError(
                f"unknown time zone --tz {config.tz}", hint=_zones_like(config.tz)
            ) from error
    if config.time_format is not None:
        _check_time_format(config.time_format)
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=config.encoding or "utf-8")
    except (LookupError, ValueError) as error:
        raise UsageError(
            f"unknown encoding --encoding {config.encoding}",
            hint="use e.g. utf-8, cp1252 or utf-16",
        ) from error
