"""The dialect and the header of a CSV file, inferred from its first lines."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, islice, pairwise, takewhile

from rnnforecast.config.reading import BLANKS_BETWEEN, WHITESPACE, DataConfig
from rnnforecast.errors import DataError, Location, Proposal
from rnnforecast.events import Event, Listener, Notice, WarningEvent
from rnnforecast.sources.columns import (
    Column,
    are_readings,
    check_n_columns,
    count_decimals,
    has_value,
    infer_text_column,
    is_date,
    is_index,
    is_integer,
    is_period,
    is_time_of_day,
    is_value,
    shape_of,
    with_weak_dates,
)
from rnnforecast.sources.inputs import InputFile
from rnnforecast.sources.numbers import MISSING, Marks, is_number, is_unit
from rnnforecast.sources.text import (
    BOM,
    MIN_ROWS,
    SEPARATORS,
    Lines,
    align,
    are_blank_separated,
    count_fields,
    field_too_long,
    find_encoding,
    infer_separator,
    lines_of,
    read_head,
    read_tail,
    split_row,
    split_rows,
    tail_lines,
)

NOT_SNIFFED = (
    *("agg", "allow_future", "closed", "counter", "exclude", "excluded_times", "freq", "hold"),
    *("inf_as_na", "max_gap", "max_input_bytes", "max_memory", "midnight", "min_share"),
    *("on_duplicate", "rejects", "stuck_as_na", "valid_range"),
)
"""Options that change nothing about how a file is written."""
_MAX_SNIFFED = 100
"""Lines below the first from which the separator is inferred."""
_MAX_PREAMBLE = 100
_MAX_UNITS_ROWS = 5
"""Lines between the names and the readings: of units, of formats, of how readings were averaged."""
_MAX_ROWS_OF_TABLES = 2000
"""Lines in which a second table is looked for."""
_MAX_TOTALS = 20
"""Lines of sums and means at the end of a file."""
_WIDE = ("utf-16", "utf-32")
"""Encodings whose texts hold zeros."""
_FEWEST_SUMMED, _SUM_ERROR = 20, 1e-4
"""Readings above 0 of which the last row is the sum."""
_MAX_TOTALS_SHARE = 0.1
"""Share of lines of sums and means among rows, as after each day."""
_TIME_WORD = re.compile(r"(?i)time|date|zeit|datum|stamp|fecha|hora|heure|jour|data|dag|tag|day")
"""What names of times hold, in several languages."""
_ANNOTATION = re.compile(r'"?#"?(group|datatype|default)\b')
"""How the lines begin that describe the columns of InfluxDB's annotated CSV."""
Row = list[str]


@dataclass(frozen=True)
class Dialect:
    """The format of one CSV file."""

    sep: str
    marks: Marks
    """How its numbers are written."""
    encoding: str
    comment: str | None
    names: tuple[str, ...]
    n_above: int
    """Number of lines above the first row: a preamble, the header, a line of units."""
    missing: tuple[str, ...]
    header: tuple[str, ...] = ()
    """The lines of the header: they are left out where they come again."""
    totals: tuple[str, ...] = ()
    """Lines at the end of the file that hold sums or means, which are left out."""
    rules: tuple[str, ...] = ()
    """Lines that are drawn between the names and the rows, which are left out."""
    is_damaged: bool = False
    """Whether lines with bytes of 0 are left out."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """All lines that are no rows wherever they stand."""
        return (*self.header, *self.totals, *self.rules)

    @property
    def delimiter(self) -> str:
        """What stands between fields once blanks have become tabs."""
        return "\t" if self.sep == WHITESPACE else self.sep


def sniff(
    file: InputFile, config: DataConfig, listener: Listener, *, name: str
) -> tuple[Dialect, tuple[Column, ...]]:
    """Infer the dialect of a CSV file and the kinds of its columns, from its first lines.

    `name` is what messages call the file. Raises `DataError` for a file that is empty, has no rows,
    or is no table.
    """
    head, is_complete = read_head(file, name)
    tail = None if is_complete else read_tail(file)
    default = DataConfig()
    config = replace(config, **{field: getattr(default, field) for field in NOT_SNIFFED})
    dialect, columns, events = _sniff(head, tail, config, name)
    for event in events:
        listener(event)
    return dialect, columns


@lru_cache(maxsize=4)  # a table is opened again for each option that is tried on it
def _sniff(
    head: bytes, tail: bytes | None, config: DataConfig, name: str
) -> tuple[Dialect, tuple[Column, ...], tuple[Event, ...]]:
    """Infer dialect and columns from the first and the last bytes; None where the first are all.

    With them come the events that tell of it.
    """
    events: list[Event] = []
    listener, is_complete = events.append, tail is None
    encoding = config.encoding or find_encoding(head, name, listener)
    lines = Lines.of(lines_of(head, encoding, is_complete=is_complete, name=name), config)
    if not lines.nonempty.texts:
        raise _empty(name)

    sep = WHITESPACE if config.sep in BLANKS_BETWEEN else config.sep
    sep = sep or lines.sep or infer_separator(lines.nonempty.texts[: _MAX_SNIFFED + 1])
    missing = (*MISSING, *config.na_values)
    try:
        header = find_header(lines, sep, config, name)
        body = [row for row in split_rows(header.rows, sep) if row]
    except csv.Error as error:
        raise field_too_long(name) from error
    check_n_columns(len(header.names), name)
    header = header.with_blank_names(body)
    header.check(body)
    if sep == WHITESPACE and config.sep is None:
        listener(Notice(f"{name}: columns are separated by blanks"))

    names = header.names_for(body)
    fitting = [r for r in (align(row, names) for row in body) if len(r) == len(names)] or body
    cells = {
        column: [row[i] for row in fitting if i < len(row) and row[i] not in missing]
        for i, column in enumerate(names)
    }
    marks = Marks.of(cells, sep, config, name)
    inferred = (infer_text_column(c, values, marks.forms.get(c)) for c, values in cells.items())
    columns = with_weak_dates(tuple(inferred), name, config)
    header.check_unnamed(columns)
    marks.report(name, listener)
    last = lines.texts if tail is None else tail_lines(tail, encoding)
    totals = find_totals(last, sep, columns, missing)
    if tail is None and not totals and fitting and _is_sum(fitting[-1], columns, cells, marks):
        totals = (lines.nonempty.texts[-1].rstrip("\r\n"),)
    dialect = Dialect(
        sep,
        marks,
        encoding,
        config.comment,
        names,
        header.n_above,
        missing,
        header.texts,
        totals,
        tuple(dict.fromkeys(rule.rstrip("\r\n") for rule in lines.rules)),
        is_damaged=0 in head and not (config.encoding or encoding.startswith(_WIDE)),
    )
    if dialect.totals:
        message = f"{name}: skipped lines with totals, such as {dialect.totals[0]!r}"
        listener(WarningEvent("totals", message, len(dialect.totals)))
    return dialect, columns, tuple(events)


def _empty(name: str) -> DataError:
    return DataError(
        f"{name} is empty", code="empty", location=Location(name), hint="use a file with rows"
    )


def shell_quote(text: str) -> str:
    """Quote a word for a shell where it needs it."""
    is_plain = re.fullmatch(r"[\w.,:/+@%=-]+", text) is not None
    return text if is_plain else "'" + text.replace("'", "'\\''") + "'"


@dataclass(frozen=True)
class Header:
    """The names of the columns, and where they stand."""

    source: str
    """What messages call the file."""
    names: tuple[str, ...]
    n_above: int
    """Lines above the first row."""
    lines: Lines
    """The first lines that are not empty."""
    sep: str
    is_explicit: bool = False
    """Whether the user names the columns, because the file has no header."""
    texts: tuple[str, ...] = ()
    """The lines that hold the names, and units above or below them."""

    rows: Sequence[str] = ()
    """The lines below, without those of the header where they come again."""

    def check(self, body: Sequence[Row]) -> None:
        """Raise `DataError` where this is no header, or where the rows below do not fit it."""
        if _ANNOTATION.match(self.lines.texts[0]):
            raise self._error(
                f"{self.source} is annotated CSV of InfluxDB, which describes columns in lines "
                "with # and may contain several tables",
                "annotated-csv",
                proposals=[Proposal(("--comment", "#"), "if all of them have the same columns")],
            )
        n_preamble = 0 if self.is_explicit else self._count_preamble()
        separators = self._separators() if len(self.names) == 1 else []
        if separators or (len(self.names) == 1 and body and not n_preamble):
            raise self._error(
                f"only one column was found, {self.names[0]!r}",
                "one-column",
                proposals=separators,
                hint=None if n_preamble else "give the column separator, if there is one",
            )
        if not body:
            raise self._error(
                f"{self.source} has a header but no rows",
                "header-only",
                hint="use a file with rows below the header",
            )

        if n_preamble:
            self._reject_second_table()
            lines = f"{n_preamble} lines do" if n_preamble > 1 else "line does"
            raise self._error(
                f"the first {lines} not have the fields of the other lines",
                "preamble" if len(self.names) > 1 else "one-column",
                proposals=self._for_preamble(n_preamble),
            )
        if not self.is_explicit:
            self._reject_readings(body)
        duplicate = next((name for name, n in Counter(self.names).items() if n > 1), None)
        if duplicate is not None:
            raise self._error(
                f"two columns are named {duplicate!r}",
                "duplicate-column",
                proposals=self._below_titles(body),
                hint="use unique column names",
            )

        if self.is_explicit:
            if len(body[0]) != len(self.names):
                raise self._error(
                    f"--columns has {len(self.names)} names, but the first row has {len(body[0])} "
                    "fields",
                    "no-header",
                    hint="name every column, in the order of the file",
                )
            return

        self._reject_second_table()
        self._reject_units(body)

    def with_blank_names(self, body: Sequence[Row]) -> Header:
        """Tell columns without a name apart by blanks, where they hold no texts."""
        unnamed = [i for i, name in enumerate(self.names) if not name.strip()]
        cells = {i: {"".join(row[i : i + 1]).strip() for row in body} - {""} for i in unnamed}
        numeric = [i for i in unnamed if all(map(is_value, cells[i]))]
        if self.is_explicit or len(unnamed) < 2:
            return self
        first = int(len(numeric) < len(unnamed))
        blanks = {i: " " * n for n, i in enumerate(numeric, first)}
        return replace(self, names=tuple(blanks.get(i, name) for i, name in enumerate(self.names)))

    def check_unnamed(self, columns: Sequence[Column]) -> None:
        """Raise `DataError` for a column of readings without a name.

        Columns that count the rows, or repeat another one, are not used, and need no name.
        """
        for i, column in enumerate(columns):
            if column.name.strip() or column.kind != "number" or is_index(column):
                continue
            if any(c.sample == column.sample for c in columns if c is not column):
                continue
            before = columns[i - 1] if i else column
            is_decimal = self.sep == "," and len(set(map(len, column.sample))) == 1
            is_decimal &= all(map(is_integer, (*before.sample, *column.sample)))
            raise self._error(
                f"column {i + 1} has no name, but readings such as {column.sample[0]}",
                "unnamed-column",
                proposals=[] if is_decimal else self._with_names(columns),
                hint="if a comma is the decimal mark, write another separator between columns"
                if is_decimal
                else "give it a name in the header",
            )

    def _with_names(self, columns: Sequence[Column]) -> list[Proposal]:
        """Return the options that name all columns, where a name is missing."""
        names = [name.strip() or f"column{i}" for i, name in enumerate(self.names, 1)]
        condition = "if it is a sensor"
        is_shifted = columns[0].kind == "time" and not _TIME_WORD.search(self.names[0])
        if is_shifted and not self.names[-1].strip():
            names, condition = ["time", *self.names[:-1]], "if the first column has no name instead"
        if len(names) != len(columns) or any("," in name for name in names):
            return []
        skipped = ("--skip-rows", str(self.n_above))
        return [Proposal((*skipped, "--no-header", "--columns", ",".join(names)), condition)]

    def names_for(self, body: Sequence[Row]) -> tuple[str, ...]:
        """Return the names, with an empty one added where every row has one more, empty field.

        That is so where every line but the header ends with a separator, or begins with its number.
        Where blanks divide the columns, one name may stand above a date and a time of day: these
        are two columns.
        """
        n = len(self.names)
        if body and all(len(row) == n + 1 and not row[n].strip() for row in body):
            return (*self.names, "")
        if body and all(len(row) == n + 1 for row in body) and _count_by_one(body):
            return ("", *self.names)  # as R writes the names of rows

        if self.sep == WHITESPACE and body and len(body[0]) == n + 1:
            clocks = [i for i in range(1, n + 1) if is_time_of_day(body[0][i])]
            if clocks and is_date(body[0][clocks[0] - 1]):
                at = clocks[0] - 1
                return (*self.names[:at], "date", "time", *self.names[at + 1 :])
        return self.names

    def _reject_second_table(self) -> None:
        """Raise `DataError` where other names, with rows below them, follow rows of a first table.

        Units under the names do not, and neither do the names where they come again. A row has two
        values, a time and a number: one is the value of a setting above the header.
        """
        numbered = self.lines.numbered[:_MAX_ROWS_OF_TABLES]
        rows = list(split_rows([text for _, text in numbered], self.sep))
        if len(rows) != len(numbered):
            return  # a cell holds a line end

        n_rows = 0
        for (number, text), row, below in zip(numbered, rows, rows[1:], strict=False):
            n_values = len(tuple(islice(filter(is_value, row), 2)))
            if n_values:
                n_rows += n_values == 2 and len(row) == len(self.names)
                continue
            begins_table = len(below) == len(row) > 1 and are_names(row) and has_value(below)
            if n_rows >= MIN_ROWS and tuple(row) != self.names and begins_table:
                raise second_table(self.source, number, text)

    def _reject_readings(self, body: Sequence[Row]) -> None:
        """Raise `DataError` for a header that is a row."""
        cells = [name for name in self.names if name not in MISSING]
        is_row = all(map(is_value, cells))
        if is_row or (body and are_readings(self.names, body[:MIN_ROWS])):
            has_clock = any(map(is_time_of_day, self.names))
            names = ["time"] if not any(map(is_period, self.names)) else []
            for i, cell in enumerate(self.names[len(names) :], start=len(names)):
                if is_period(cell) or is_time_of_day(cell):
                    names.append("date" if is_period(cell) and has_clock else "time")
                else:
                    is_reading = is_value(cell) or cell in MISSING or shape_of(cell)[:1] == "0"
                    names.append(f"{'sensor' if is_reading else 'series'}{i}")
            raise self._error(
                "the first line contains readings, not column names",
                "no-header",
                proposals=[
                    Proposal(
                        ("--no-header", "--columns", ",".join(names)), "if the file has no header"
                    )
                ],
            )

    def _reject_units(self, body: Sequence[Row]) -> None:
        """Raise `DataError` for first rows that hold units or formats."""
        n_units = _count_units_rows(body)
        if n_units:
            n_skipped = self.n_above + n_units - 1
            raise self._error(
                "the line below the header contains neither a timestamp nor a number"
                if n_units == 1
                else f"the {n_units} lines below the header contain neither timestamps nor numbers",
                "units-row",
                line=next(line for line in self.lines.numbered if line[0] > self.n_above),
                proposals=[
                    Proposal(("--skip-rows", str(n_skipped)), "if it contains units or formats")
                ],
            )

    def _count_preamble(self) -> int:
        """Return the number of lines above the header; 0 where there are none."""
        texts = self.lines.texts
        if self.sep == WHITESPACE:
            return 0
        if not _are_aligned(texts, self.sep) or self.sep not in texts[0]:
            n_comments = len(texts) - len(self._without_comments())
            preambles = [(infer_preamble(texts, sep), sep) for sep in SEPARATORS]
            widths = [(count_fields(texts[n : n + 1], sep), n) for n, sep in preambles if n]
            n_lines = max(widths)[1] if widths else self._count_above_blanks()
            return n_comments or n_lines

        # Lines above the names that have as many fields, or as many separators
        rows = list(split_rows(texts[:_MAX_PREAMBLE], self.sep))
        n_lone = len(tuple(takewhile(lambda row: sum(map(bool, row)) < 2, rows)))
        rows = rows[: n_lone + _MAX_UNITS_ROWS + 2]
        named = next((i for i, row in enumerate(rows) if are_names(row) and row != rows[0]), 0)
        n_values = sum(map(has_value, rows[1:named]))
        if are_names(rows[0]):  # a table of one row or two describes the one below it
            is_description = 0 < n_values == named - 1 < MIN_ROWS and has_value(rows[-1])
            return named if is_description else 0
        is_row = [has_value(row) and all(row) for row in rows[1:named]]
        return 0 if any(is_row) else named

    def _count_above_blanks(self) -> int:
        """Return the number of lines above a table with blanks between its columns; 0 for none."""
        texts = self.lines.texts[: _MAX_PREAMBLE + _MAX_SNIFFED]
        if len(self.names) > 1:
            return 0
        below = (texts[n : n + _MAX_SNIFFED + 1] for n in range(1, _MAX_PREAMBLE))
        return next((n for n, rows in enumerate(below, 1) if are_blank_separated(rows)), 0)

    def _without_comments(self) -> Sequence[str]:
        """Drop lines that begin like the first, where all others make a table."""
        texts = self.lines.texts
        mark = texts[0][0]
        rows = [text for text in texts if not text.startswith(mark)]
        if mark.isalnum() or mark in "\"'" or len(rows) < MIN_ROWS:
            return texts
        is_table = any(sep in rows[0] and _are_aligned(rows, sep) for sep in SEPARATORS)
        is_table = is_table or are_blank_separated(rows)
        return rows if is_table else texts

    def _below_titles(self, body: Sequence[Row]) -> list[Proposal]:
        """Return the options that skip lines above names that all differ, with readings below."""
        for number, (row, below) in enumerate(pairwise(body[:_MAX_UNITS_ROWS]), start=1):
            if not has_value(row) and len(set(row)) == len(row) and has_value(below):
                skipped = str(self.n_above - 1 + number)
                return [Proposal(("--skip-rows", skipped), "if the names are below these lines")]
        return []

    def _for_preamble(self, n_lines: int) -> list[Proposal]:
        """Return the options that skip these lines, as comments where they begin with a mark.

        Units or formats below the header are skipped with them.
        """
        texts, rows = self.lines.texts, self._without_comments()
        has_comments = len(rows) < len(texts)
        rows = rows if has_comments else texts[n_lines:]
        below = rows[1 : 2 + _MAX_UNITS_ROWS]
        n_units = max(_count_units_rows(list(split_rows(below, sep))) for sep in SEPARATORS)
        header = next(number for number, text in self.lines.numbered if text == rows[0])
        skip = ("--skip-rows", str(header - 1 + n_units))
        units = ", and units below it" if n_units else ""

        if not has_comments:
            return [Proposal(skip, f"to skip the lines above the header{units}")]
        mark = texts[0][0]
        options = ("--comment", mark, *(skip if n_units else ()))
        if n_units:
            units = ", and those below the header are units or formats"
        return [Proposal(options, f"if lines that start with {mark} are comments{units}")]

    def _separators(self) -> list[Proposal]:
        """Return the characters that divide the first lines into as many fields as the header."""
        texts = self.lines.texts[: _MAX_SNIFFED + 1]
        marks = [mark for mark in dict.fromkeys(texts[0]) if re.fullmatch(r"[^\w\s\"']", mark)]
        counts = {mark: set(count_fields(texts, mark)) for mark in marks}
        fitting = [mark for mark in marks if len(counts[mark]) == 1 and counts[mark] != {1}]
        return [Proposal(("--sep", mark), f"if {mark} separates the columns") for mark in fitting]

    def _error(
        self,
        message: str,
        code: str,
        *,
        line: tuple[int, str] | None = None,
        proposals: Sequence[Proposal] = (),
        hint: str | None = None,
    ) -> DataError:
        number, text = line or self.lines.numbered[0]
        location = Location(self.source, number, text=text.rstrip("\r\n"))
        return DataError(message, code=code, location=location, proposals=proposals, hint=hint)


def find_header(lines: Lines, sep: str, config: DataConfig, name: str) -> Header:
    """Find the names of the columns: those of the user, or those of the first line.

    Where the first line holds units, formats or readings, and one above it, which is skipped or a
    comment, has as many names, the names are there.
    """
    if config.no_header:
        n_above = lines.nonempty.numbered[0][0] - 1
        rows = lines.after(n_above)
        return Header(name, config.columns, n_above, lines.nonempty, sep, True, rows=rows)

    joined = _joined_names(lines, sep, name)
    if joined is not None:
        return joined
    first, n_lines = _first_row(lines.texts, sep)
    n_above, text = lines.numbered[n_lines - 1]
    texts = [text.rstrip("\r\n")] if n_lines == 1 or not lines.texts[n_lines - 2].strip() else []
    if sep == WHITESPACE and first[0].startswith("#"):
        first = [cell for cell in (first[0].strip("#"), *first[1:]) if cell]

    # Units, formats such as 10s, nothing, or the same word twice could hardly be names.
    n_units = sum(is_unit(cell) or cell[:1].isdigit() for cell in first)
    is_row = all(map(is_value, filter(None, first)))
    if is_row or not are_names(first) or 2 * n_units >= len(first):
        above = []
        for line in reversed([*lines.above, *(lines.comments if is_row else ())]):
            row = split_row(line, sep)
            if len(row) != len(first) or has_value(row):
                break
            above.append((row, line.rstrip("\r\n")))
        named = [row for row, _ in above if are_names(row) or _are_names_but_one(row, first)]
        if named:
            if is_row:
                n_above, texts = n_above - 1, []
            texts += [line for _, line in above]
            first = [cell.strip() for cell in named[-1]]
    for line in filter(str.strip, lines.above[-_MAX_PREAMBLE:]):
        if not has_value(split_row(line, sep)):  # a title may come again, too
            texts.append(line.rstrip("\r\n"))
    folded = set(map(_folded, texts))
    texts += [text.rstrip("\r\n") for _, text in lines.numbered if _folded(text) in folded]
    numbered = [
        (number, text)
        for number, text in lines.numbered
        if number <= n_above or text.rstrip("\r\n").removeprefix(BOM) not in texts
    ]
    lines = replace(lines, numbered=numbered)
    return Header(
        name,
        tuple(first),
        n_above,
        lines.nonempty,
        sep,
        texts=tuple(dict.fromkeys(texts)),
        rows=lines.after(n_above),
    )


def _joined_names(lines: Lines, sep: str, name: str) -> Header | None:
    """Return the header of tables whose names stand in two rows or three; None for others.

    The upper rows name groups of columns, in the first of them or in each, and none of the rows
    tells all columns apart. A row with a first cell alone is a title, or names that column.
    """
    nonempty = lines.nonempty
    rows = list(split_rows(nonempty.texts[: _MAX_UNITS_ROWS + 1], sep))
    n_levels = next((i for i, row in enumerate(rows) if has_value(row)), 0)
    levels = rows[:n_levels]
    if n_levels < 2 or len(set(map(len, rows))) > 1 or any(map(are_names, levels)):
        return None
    if not all(any(level[1:]) for level in levels[:-1]):
        return None

    names = [""] * len(levels[0])
    for number, level in enumerate(levels):
        is_last = not any(any(row[1:]) for row in levels[number + 1 :])
        group = ""
        for i, cell in enumerate(level):
            group = cell.strip() or ("" if is_last else group)
            names[i] = f"{names[i]} {group}".strip()
    if len(set(names)) < len(names) or sum(map(bool, names)) < len(names) - 1:
        return None
    texts = [text.rstrip("\r\n") for text in nonempty.texts[:n_levels]]
    n_above = nonempty.numbered[n_levels - 1][0]
    below = replace(lines, numbered=[line for line in lines.numbered if line[0] > n_above])
    numbered = [*nonempty.numbered[:1], *below.nonempty.numbered]
    return Header(
        name,
        tuple(names),
        n_above,
        replace(lines, numbered=numbered),
        sep,
        texts=tuple(texts),
        rows=below.texts,
    )


def _folded(line: str) -> str:
    """Return a line of names as it would be without blanks and capitals."""
    return "".join(line.removeprefix(BOM).split()).casefold()


def _first_row(lines: Sequence[str], sep: str) -> tuple[Row, int]:
    """Return the first row that is not empty, and the number of lines up to its end."""
    if sep == WHITESPACE:
        return next((row, i) for i, row in enumerate(split_rows(lines, sep), 1) if row)
    reader = csv.reader(lines, delimiter=sep)
    row = next(row for row in reader if row)
    return row, reader.line_num


def infer_preamble(lines: Sequence[str], sep: str) -> int:
    """Return the number of lines above the first that is a header of all that follow; else 0.

    At least two rows follow, with as many fields as the header, two or more; no name is a number.
    Where all rows end with a separator, the header need not. Lines of one field may stand below.
    """
    counts = count_fields(lines, sep)
    if len(counts) != len(lines):
        return 0
    n_below = len(tuple(takewhile(lambda n: n == 1, reversed(counts[-_MAX_TOTALS:]))))
    lines, counts = lines[: len(lines) - n_below], counts[: len(counts) - n_below]
    if not counts or counts[-1] < 2:
        return 0

    first = max((i + 1 for i, n in enumerate(counts) if n != counts[-1]), default=0)
    first -= first > 0 and _are_aligned(lines[first - 1 :], sep)
    for above in range(first, min(len(lines) - MIN_ROWS, _MAX_PREAMBLE) + 1):
        if not any(is_number(name, ".") for name in split_row(lines[above], sep)):
            return above
    return 0


def _are_aligned(lines: Sequence[str], sep: str) -> bool:
    """Tell whether lines have as many fields as the first, or one more, which is empty."""
    try:
        header, *rows = split_rows(lines, sep)
    except csv.Error:
        return False
    return all(len(align(row, header)) == len(header) for row in rows)


def find_totals(
    lines: Sequence[str], sep: str, columns: Sequence[Column], missing: Sequence[str]
) -> tuple[str, ...]:
    """Return the lines that have a word for a time, as sums and means have.

    They stand at the end of a file, or now and then among its first rows. Digits in brackets may
    be there, as in "Sums (of 720 values)". Lines of a cell that has several are none.
    """

    def has_digits(cell: str) -> bool:
        return any(map(str.isdigit, re.sub(r"\([^)]*\)", "", cell)))

    times = [i for i, column in enumerate(columns) if column.kind == "time"]

    def is_total(line: str) -> bool:
        row = split_row(line, sep)
        return (
            bool(times)
            and len(row) == len(columns)
            and not any(row[i] in missing or has_digits(row[i]) for i in times)
            and any(is_number(cell, ".") or is_number(cell, ",") for cell in row)
        )

    # Quotes are counted from the end, as the first line may stand inside of quotes
    n_below = accumulate((line.count('"') for line in reversed(lines)), initial=0)
    is_inside = [n % 2 > 0 or m % 2 > 0 for n, m in pairwise(n_below)][::-1]
    rows = [
        line for line, inside in zip(lines, is_inside, strict=True) if line.strip() and not inside
    ]
    totals = list(takewhile(is_total, reversed(rows[-_MAX_TOTALS:])))
    has_words = any(not any(map(str.isdigit, cell)) for i in times for cell in columns[i].sample)
    if has_words:
        among = [line for line in rows if is_total(line)]
        totals = among[::-1] if len(among) <= _MAX_TOTALS_SHARE * len(rows) else totals
    return tuple(dict.fromkeys(line.rstrip("\r\n") for line in reversed(totals)))


def _is_sum(
    row: Row, columns: Sequence[Column], cells: Mapping[str, Sequence[str]], marks: Marks
) -> bool:
    """Tell whether the last row has the sum of all above, in each column of numbers that vary.

    None of these is negative, and some are above 0, so that no reading is equal by chance.
    """
    is_sum = False
    for cell, column in zip(row, columns, strict=False):
        texts, form = cells[column.name], marks.forms.get(column.name)
        if column.kind != "number" or form is None or len(set(texts)) < 2:
            continue
        if texts[-1] != cell or not all(map(form.is_number, texts)):
            return False
        plain = list(map(form.to_plain, texts))
        *readings, total = map(float, plain)
        half_unit = 0.5 * 10.0 ** -count_decimals(plain)
        n_positive = sum(reading > 0 for reading in readings)
        expected = math.fsum(readings)
        is_sum = abs(total - expected) <= min(1.01 * half_unit, _SUM_ERROR * abs(expected))
        if not is_sum or min(readings) < 0 or n_positive < _FEWEST_SUMMED:
            return False
    return is_sum


def second_table(source: str, line: int, text: str) -> DataError:
    """Return the error for a file in which another table begins below the first."""
    return DataError(
        f"{source} contains more than one table: line {line} has other column names",
        code="several-tables",
        location=Location(source, line=line, text=text.rstrip("\r\n")),
        hint="split it into one file per table",
    )


def are_names(cells: Row) -> bool:
    """Tell whether cells may be names of columns: texts that all differ, and no numbers."""
    return len(set(cells)) == len(cells) and all(
        cell.strip() and not is_value(cell) for cell in cells
    )


def _are_names_but_one(cells: Row, units: Row) -> bool:
    """Tell whether all columns but one are named, that one has no unit, and some others have."""
    unnamed = [unit.strip() for cell, unit in zip(cells, units, strict=True) if not cell.strip()]
    return unnamed == [""] and any(units) and are_names(list(filter(str.strip, cells)))


def _count_by_one(rows: Sequence[Row]) -> bool:
    """Tell whether the first cells number the rows."""
    if len(rows) < MIN_ROWS or not all(row[0].isdecimal() for row in rows):
        return False
    first = int(rows[0][0])
    return first in (0, 1) and all(int(row[0]) == first + i for i, row in enumerate(rows))


def _count_units_rows(rows: Sequence[Row]) -> int:
    """Return how many rows without a time or number stand above the first that has one."""
    first = next((i for i, row in enumerate(rows) if has_value(row)), 0)
    return first if first <= _MAX_UNITS_ROWS else 0
