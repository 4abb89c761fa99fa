"""Options of how readings are read: columns, text, cleaning, resampling, covariates."""

from __future__ import annotations

import io
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rnnforecast.config.fields import check_choices, option, resolved
from rnnforecast.errors import UsageError
from rnnforecast.units import (
    EPOCH_UNITS_US,
    EXCEL,
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


@dataclass(frozen=True)
class DataConfig:
    """How readings are read. What is not set is inferred, reported, and stored with the model."""

    time: str | None = option(None, "Time column.")
    series: str | None = option(
        None, "Column that names the series (long tables); several with commas: site,sensor."
    )
    target: tuple[str, ...] = option((), "Column to forecast; repeatable. Default: every numeric.")
    known: tuple[str, ...] = option(
        (), "Column whose future values are known: setpoints, tariffs, plans; repeatable."
    )
    past: tuple[str, ...] = option((), "Column that helps but is known only up to now; repeatable.")
    static: tuple[str, ...] = option(
        (), "Column that stays the same for each series (long tables); repeatable."
    )
    categorical: tuple[str, ...] = option(
        (), "Column of --known, --past or --static whose values are names; repeatable."
    )
    calendar: tuple[str, ...] = option(
        (),
        "What the calendar says, where it helps: hour, weekday, month.",
        choices=("hour", "weekday", "month"),
        listed=True,
    )
    holidays: str | None = option(
        None, "Country whose public holidays are known, or a part of one, such as DE-BY."
    )
    freq: str | None = option(None, "Step between readings, such as 15min.")
    agg: tuple[str, ...] = option(
        (),
        "How readings that fall into one step of --freq become one: mean, sum, last, min or max; "
        "of one column: column=rule, where angle is a rule, too, for directions; repeatable.",
    )
    min_share: float | None = option(
        None,
        "A step of --freq with a smaller share of its readings is missing. Default: 0.9 for sums, "
        "0.5 otherwise.",
    )
    hold: str | None = option(
        None,
        "A sensor that does not change sends nothing: its last value counts for so long, such as "
        "2h.",
    )
    tz: str | None = option(None, "Time zone of stamps that carry none, such as Europe/Vienna.")
    closed: str = option(
        "auto",
        "Hours of the week in which there are never readings: no gaps, but left out, or none.",
        choices=("auto", "none"),
    )
    sep: str | None = option(None, "Separator of the columns; whitespace: runs of blanks.")
    decimal: str | None = option(None, "Decimal mark: . or ,")
    thousands: str | None = option(None, "Mark between thousands, such as . in 1.234,5")
    encoding: str | None = option(None, "Text encoding, such as cp1252.")
    sheet: str | None = option(None, "Sheet of an Excel file. Default: the first with a table.")
    query: str | None = option(None, "What to read from a database, in SQL.")
    skip_rows: int = option(0, "Lines to skip: above the header, or of units below it.")
    comment: str | None = option(None, "Mark with which lines begin that are no rows, such as #.")
    no_header: bool = option(False, "The first line is a row; --columns names the columns.")
    id_from_columns: bool = option(
        False, "Every column is a series that its header names; none names the series of a row."
    )
    columns: tuple[str, ...] = option((), "Names of all columns, with commas.", listed=True)
    na_values: tuple[str, ...] = option((), "Text that means a missing reading; repeatable.")
    on_bad_rows: str = option(
        "error", "Rows with too few or too many fields.", choices=("error", "skip")
    )
    rejects: str | None = option(None, "Write the rows that are skipped to this file.")
    max_bad_rows: str = option("0.1%", "Largest share, or number, of rows to skip.")
    inf_as_na: bool = option(False, "Take infinite values for missing readings.")
    time_format: str | None = option(None, "Format of the stamps, such as '%d/%m/%Y %H:%M'.")
    time_unit: str | None = option(
        None,
        "What numeric stamps count since 1970; excel: days as spreadsheets count them.",
        choices=(*EPOCH_UNITS_US, EXCEL),
    )
    leap_second: str = option(
        "clamp",
        "A sixtieth second: the end of the second before, or an error.",
        choices=("clamp", "error"),
    )
    time_range: str = option("1900:2200", "Years that stamps may lie in, the last one apart.")
    counter: tuple[str, ...] = option(
        (), "A column that counts up, as meters do: its differences are forecast; repeatable."
    )
    exclude: str | None = option(
        None, "CSV file of bad times, with columns series (empty: all), from, to; to is apart."
    )
    valid_range: tuple[str, ...] = option(
        (), "Readings outside are missing: column=low:high, either may be left out; repeatable."
    )
    stuck_as_na: str | None = option(
        None,
        "Readings that stay the same for so long, such as 6h, are missing.",
    )
    max_gap: str | None = option(
        None, "Longest gap that a forecast may rest on, in steps or as a duration."
    )
    allow_future: bool = option(False, "Take readings whose time has not come yet.")
    map: tuple[str, ...] = option((), "A column's new name and the model's: new=old; repeatable.")
    max_memory: str | None = option(
        None, "Refuse a table that needs more, such as 4G. Default: most of what there is."
    )
    max_input_bytes: str = option("64G", "Refuse a file that unpacks to more.")
    on_duplicate: str = option(
        "error",
        "Two different readings of one series at one time.",
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
        """The years that time stamps may lie in, as a half-open range."""
        match = re.fullmatch(r"(\d{4}):(\d{4})", self.time_range)
        if match is None or not 1 <= int(match[1]) < int(match[2]):
            raise UsageError(
                f"--time-range is {self.time_range!r}, but must be two years, such as 1900:2200"
            )
        return int(match[1]), int(match[2])

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
                f"--max-bad-rows is {self.max_bad_rows!r}, but must be a number such as 20, or a "
                "share such as 0.1%"
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
                raise UsageError(f"column {name!r} is named for two things")
        if self.id_from_columns and (self.series or self.static):
            raise UsageError("--id-from-columns needs a table without --series and --static")

        _ = self.memory_limit, self.input_limit
        for pair in self.map:
            if not all(pair.partition("=")[::2]):
                raise UsageError(f"--map is {pair!r}, but must be two names, such as new=old")
        if self.stuck_as_na is not None:
            parse_duration_us(self.stuck_as_na)
        if self.max_gap is not None:
            parse_step_count(self.max_gap, name="max-gap", limit=_MAX_GAP)
        _ = self.valid_ranges, self.years, self.bad_row_limit(0)

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
                f"{', '.join(AGG_RULES)}, or a rule of one column, such as wind=angle"
            )
    if len(defaults) > 1 or len(rules) < len(config.agg):
        raise UsageError(f"--agg has two rules for the same readings: {', '.join(config.agg)}")

    # an angle is one at every step; all else says how steps become longer ones
    if not config.freq and any(rule != ANGLE for rule in rules):
        raise UsageError("--agg needs --freq", hint="say the step, such as  --freq 15min")
    for name in config.counter:
        rule = config.agg_by_column.get(name, "sum")
        if rule != "sum":
            raise UsageError(
                f"--agg is {name}={rule}, but {name!r} is a counter",
                hint="what a counter counted in a step is a sum, whatever the other rules are",
            )

    if config.min_share is not None:
        check_range("min-share", config.min_share, 0, 1)
        if not config.is_resampled:
            raise UsageError("--min-share needs --freq and --agg")
    if config.hold is not None:
        parse_duration_us(config.hold)
        summed = [text for text, rule in zip(config.agg, rules, strict=False) if rule == "sum"]
        if summed:
            raise UsageError(
                "--hold is for readings that stay, not for sums",
                hint="choose another rule, such as  --agg mean",
            )


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
        time.strptime("", text)
    except re.error:
        reason = "it names a part twice"
    except ValueError as error:  # as it does for each format that a text does not match
        if "directive" in str(error) or "stray" in str(error):
            reason = str(error)
    if reason:
        raise UsageError(
            f"--time-format is {text!r}, which is no format: {reason}",
            hint="such as '%d/%m/%Y %H:%M'; a percent sign itself is %%",
        )


def _check_text_format(config: DataConfig) -> None:
    """Raise `UsageError` for an invalid header, mark, time zone or encoding."""
    if config.no_header != bool(config.columns):
        raise UsageError(
            "--no-header and --columns need each other",
            hint="such as  --no-header --columns time,flow,level",
        )

    marks = {"sep": config.sep, "decimal": config.decimal, "thousands": config.thousands}
    for name, value in marks.items():
        if name == "sep" and value in BLANKS_BETWEEN:
            continue
        if value is not None and len(value) != 1:
            hint = "for a tab in a shell, write  --sep $'\\t'" if value == "\\t" else None
            raise UsageError(f"--{name} is {value!r}, but must be one character", hint=hint)
    if config.decimal not in (None, ".", ","):
        raise UsageError(f"--decimal is {config.decimal!r}, but must be . or ,")
    if config.thousands is not None and config.thousands == (config.decimal or "."):
        raise UsageError(
            f"--thousands and --decimal are both {config.thousands!r}",
            hint="say the decimal mark, too, such as  --thousands . --decimal ,",
        )

    if config.tz is not None and not re.fullmatch(_UTC_OFFSET, config.tz):
        try:
            ZoneInfo(config.tz)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise UsageError(
                f"--tz {config.tz} is not known", hint="such as UTC, Europe/Vienna, +01:00"
            ) from error
    if config.time_format is not None:
        _check_time_format(config.time_format)
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=config.encoding or "utf-8")
    except (LookupError, ValueError) as error:
        raise UsageError(
            f"--encoding {config.encoding} is not known", hint="such as utf-8, cp1252, utf-16"
        ) from error
