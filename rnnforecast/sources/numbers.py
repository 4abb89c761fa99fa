"""How numbers are written in a column of text: marks, signs, units; and texts to numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, Location, Proposal
from rnnforecast.events import Listener, Notice, WarningEvent
from rnnforecast.sources.stamps import MOSTLY, is_stamp, spread

MISSING = ("", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "null", "NULL", "None", "-", "--")
"""Text that means a missing reading, in addition to what `--na-values` names."""
_BLANKS = " \t\u00a0\u2007\u2009\u202f"
"""Blanks of any width, within a number or beside it."""
_APOSTROPHES = "'\u2019"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"
"""Hyphens, dashes and the minus sign, which word processors write for a minus."""
OTHER_MARK = {".": ",", ",": "."}
"""The other decimal mark."""
_MARKS = ".,"
_B = f"[{_BLANKS}]*"
_EMPTY = ('=""', *_DASHES)
"""Cells without a number, where others have quotes of Excel, or dashes for a minus."""
_CELL = re.compile(
    rf'{_B}(?P<excel>=")?{_B}(?P<bracket>\()?(?P<sign>[-+{_DASHES}]?){_B}'
    rf"(?P<currency>[$\u20ac\u00a3\u00a5\u20b9]|[A-Z]{{3}}(?=[{_BLANKS}]))?{_B}"
    rf"(?P<inner>[-+{_DASHES}]?)(?P<number>(?:\d[\d.,{_APOSTROPHES}{_BLANKS}]*|[.,]\d+)"
    rf"(?:[eE][-+]?\d+)?)(?P<trailing>[-{_DASHES}]?)"
    rf"(?P<unit>[^-+\d\s{_BLANKS}{_DASHES}.,:;()\"'=/][^\s{_BLANKS}\"()]{{0,11}})?"
    rf'(?P<close>\))?{_B}"?{_B}',
    re.ASCII,
)
"""A number with what may stand around it. The blanks before a unit belong to `number`."""
_UNIT = re.compile(
    r"[cdhkmMGnu]?(s|m|g|a|v|w|wh|j|n|pa|bar|hz|l|va|var|ohm)|[kmgt](i?b|bps|bit)"
    "|min|h|t|psi|c|degc|f|degf|k|rpm|ppm|ppb|ph|lux|lx|db",
    re.IGNORECASE,
)
_SCALED = re.compile(r"[cdhkmgtnu\u03bc](?=[a-z]{1,4}$)(?!in$|ol$)i?")
_RATE = re.compile(
    r"[mkcu\u03bc]?(g|l|mol|m|wh?|j|mi|ft|gal)[²³23]?/(s|h|d|min|day|[dcm]?l|[ckm]?m|k?g)[²³23]?"
)
_TEMPERATURES = frozenset({"c", "f", "°c", "°f", "degc", "degf", "celsius", "fahrenheit"})
_TYPE = re.compile(
    r"(u?int(eger)?|float|double|decimal|long|short|numeric|string|text|varchar|bool(ean)?)"
    r"\d*(\(.*\))?",
    re.IGNORECASE,
)
"""Types of columns, which stand below the names as units do."""
_MIN_VALUES_OF_A_UNIT = 10
"""A letter right behind whole numbers is a unit only if there are more different ones than these:
1A, 2A, 3A are names."""
NUMERIC_SHARE = 0.5
"""A column with this share of numbers counts as numbers: cells that are none are errors then."""
_MIN_MEASURED = 10
"""With this many different decimals, a text column of a table contains measurements."""
_TEXT_AROUND = re.compile(
    rf"(?P<before>\D*?)(?P<number>[-+]?\d(?:[\d.,{_APOSTROPHES}{_BLANKS}]*\d)?)(?P<after>\D.*|)"
)
_GROUPINGS = (".", ",", " ", "'")
_N_PROBE = 20
"""Cells that tell whether a column may hold numbers at all."""
_MIN_CODED = 50
"""Cells of which some would end in 0 if their last digits were decimals, but for one in 200."""
_MAX_CELLS = 400
"""Cells at the beginning of a column, and as many below, that tell how its numbers are written."""


@dataclass(frozen=True)
class NumberForm:
    """How the numbers of one column are written."""

    decimal: str = "."
    thousands: str | None = None
    unit: str = ""
    """What stands behind each number, or before it: a unit, a currency, a percent sign."""
    has_signs: bool = False
    """Whether a minus may be a dash, and a number text of Excel, such as ="5"."""
    is_accounting: bool = False
    """Whether a number in brackets, or with a minus behind it, is negative."""

    @property
    def is_plain(self) -> bool:
        """Whether these are digits, a sign and a decimal mark alone."""
        return self == NumberForm(self.decimal)

    def is_number(self, text: str) -> bool:
        """Tell whether a cell is a number in this form, or stands for a missing one in it."""
        if not (self.unit or self.has_signs or self.is_accounting):
            return is_number(text, self.decimal, self.thousands)
        if self.has_signs and text in _EMPTY:
            return True
        if self.unit and self._unit_or_zero.search(text) is None:
            return False
        return self._pattern.fullmatch(self._bare(text)) is not None

    def to_plain(self, text: str) -> str:
        """Return a number as digits with a decimal point; any other text as it is."""
        if not self.is_number(text):
            return text
        bare = self._bare(text)
        if self.thousands is not None:
            bare = re.sub(_mark_class(self.thousands), "", bare)
        return bare.replace(self.decimal, ".")

    def convert(self, texts: pa.Array, type_: pa.DataType) -> pa.Array:
        """Convert texts to numbers. Raises `ArrowInvalid` for any other text."""
        bare = texts
        if self.has_signs:
            bare = pc.if_else(
                pc.is_in(texts, pa.array(_EMPTY)), pa.scalar(None, pa.string()), texts
            )
        for pattern, replacement in self._substitutions:
            bare = pc.replace_substring_regex(bare, pattern, replacement)

        is_good = pc.match_substring_regex(bare, f"^({self._pattern.pattern})$", ignore_case=True)
        if self.unit:
            has_unit = pc.match_substring_regex(texts, self._unit_or_zero.pattern)
            is_good = pc.and_(is_good, has_unit)
        if pc.all(is_good).as_py() is False:
            raise pa.ArrowInvalid("a numeric column contains other text")

        if self.thousands is not None:
            bare = pc.replace_substring_regex(bare, _mark_class(self.thousands), "")
        return pc.replace_substring(bare, self.decimal, ".").cast(type_)

    def _bare(self, text: str) -> str:
        """Return a cell without what stands around its number."""
        for pattern, replacement in self._substitutions:
            text = re.sub(pattern, replacement, text, flags=re.ASCII)
        return text

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return number_pattern(self.decimal, self.thousands)

    @cached_property
    def _unit_or_zero(self) -> re.Pattern[str]:
        """What a cell must hold where numbers have a unit: it, unless the number is 0."""
        return re.compile(rf"{re.escape(self.unit)}|^[-+]?0*[.,]?0*$")

    @cached_property
    def _substitutions(self) -> tuple[tuple[str, str], ...]:
        """Patterns and replacements that leave the number; `re` and Arrow read them alike."""
        if not (self.unit or self.has_signs or self.is_accounting):
            return ((r"^[ \t]+|[ \t]+$", ""),)

        steps = [(rf"^[{_BLANKS}]+|[{_BLANKS}]+$", "")]
        if self.has_signs:
            steps.append((rf'^="{_B}(.*?){_B}"$', r"\1"))
        if self.unit:
            unit = re.escape(self.unit)
            steps += [
                (rf"^(.*?){_B}{unit}(\)?)$", r"\1\2"),
                (rf"^(\(?[-+{_DASHES}]?){unit}{_B}(.*)$", r"\1\2"),
            ]
        if self.is_accounting:
            steps += [(r"^\((.*)\)$", r"-\1"), (rf"^([^-{_DASHES}].*)[-{_DASHES}]$", r"-\1")]
        return (*steps, (rf"^[-{_DASHES}]{_B}(.*)$", r"-\1"))


@cache
def number_pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    """Return the regular expression of a number."""
    mark, digits = re.escape(decimal), r"\d+"
    if thousands is not None:
        group = _mark_class(thousands)
        lakhs = rf"\d{{1,2}}(?:{group}\d{{2}})+{group}\d{{3}}"  # 1,23,456 in India
        digits = rf"(?:\d{{1,3}}(?:{group}\d{{3}})+|{lakhs}|\d+)"
    pattern = rf"[+-]?(?:{digits}(?:{mark}\d*)?|{mark}\d+)(?:e[+-]?\d+)?|[+-]?(?:inf|infinity)"
    return re.compile(pattern, re.IGNORECASE | re.ASCII)


def is_number(text: str, decimal: str, thousands: str | None = None) -> bool:
    """Tell whether a cell is a number with this decimal mark and this thousands separator."""
    return number_pattern(decimal, thousands).fullmatch(text.strip(" \t")) is not None


def is_unit(text: str) -> bool:
    """Tell whether a cell looks like a unit: in brackets, with a sign such as °, or a known one.

    So does the type of a column.
    """
    bare = text.strip()
    in_brackets = bare[:1] in tuple("[(") and bare[-1:] in tuple(")]")
    has_sign = any(sign in bare for sign in "°%µ²³/")
    return in_brackets or has_sign or any(p.fullmatch(bare) for p in (_UNIT, _TYPE))


def quantity_of(unit: str) -> str | None:
    """Return what a unit measures: the same text for units that can be converted, if possible.

    None for other text.
    """
    bare = unit.strip().strip("[]()").casefold()
    if bare in _TEMPERATURES:
        return "temperature"
    if _RATE.fullmatch(bare):
        return "rate"
    return _SCALED.sub("", bare) if _UNIT.fullmatch(bare) or bare in ("°", "%") else None


@cache
def _mark_class(mark: str) -> str:
    """Return the regular expression of a mark between thousands; all blanks are alike."""
    for marks in (_BLANKS, _APOSTROPHES):
        if mark in marks:
            return f"[{marks}]"
    return re.escape(mark)


class Numbers(NamedTuple):
    """What the cells of a column tell about the form of its numbers."""

    form: NumberForm
    """The form that most cells fit; its marks may be doubtful."""
    n_fit: int
    """How many cells it fits."""
    decimal: str | None
    """The decimal mark that the cells prove."""
    doubtful: str | None = None
    """A mark with three digits behind it in all cells that have it: of decimals or thousands."""
    has_small: bool = False
    """Whether there are whole numbers below a thousand; a decimal number of three places would be
    written as 987.000."""
    has_long: bool = False
    """Whether whole numbers of four digits or more have no mark: then none stands between thousands
    of others."""
    example: str = ""
    """A cell with the doubtful mark, or with marks between thousands."""
    units: tuple[str, ...] = ()
    """Units, the commonest first, where the numbers of one column have several."""
    in_brackets: bool = False
    """Whether all numbers are in brackets: in accounts these are negative, and others are not."""


def infer_numbers(cells: Sequence[str], decimal: str | None, thousands: str | None) -> Numbers:
    """Infer the form of a column's numbers; the marks are the user's where they are not None."""
    bare = _infer_marks(cells) if decimal is None and thousands is None else None
    if bare is not None:
        return bare

    plain = NumberForm(decimal or ".", thousands)
    probe = spread(cells, _N_PROBE)
    with_text = _with_constant_text(cells, probe)
    if with_text is not None:
        return with_text
    if 4 * sum(_CELL.fullmatch(cell) is not None for cell in probe) < len(probe):
        return Numbers(plain, 0, None)
    n_plain = sum(map(plain.is_number, cells))
    if n_plain == len(cells):
        return Numbers(plain, n_plain, plain.decimal if decimal or thousands else None)

    forms = [
        NumberForm(mark, grouping)
        for mark in ((decimal,) if decimal else _MARKS)
        for grouping in ((thousands,) if thousands else (None, *_GROUPINGS))
        if grouping != mark
    ]
    best = max(forms, key=lambda form: sum(map(form.is_number, cells)))
    n_best = sum(map(best.is_number, cells))
    decorated = _decorated(cells, forms)
    if decorated is not None and decorated.n_fit > n_best:
        return decorated
    if n_best < NUMERIC_SHARE * len(cells):
        other_mark = _infer_marks(cells)  # the user's marks are those of other columns
        return other_mark or Numbers(best, n_best, None)

    if decimal is not None or thousands is not None:
        if 2 * n_plain >= len(cells):
            return Numbers(plain, n_plain, plain.decimal)
        grouped = next((cell for cell in cells if not plain.is_number(cell)), "")
        return Numbers(best, n_best, best.decimal, example=grouped)
    fitting = [cell for cell in cells if best.is_number(cell)]
    return _infer_marks(fitting) or Numbers(best, n_best, None)


def _infer_marks(cells: Sequence[str]) -> Numbers | None:
    """Infer the marks of numbers that have no signs or units around them; None for other cells."""
    kinds = set()
    for cell in cells:
        kind = _marks_of(cell)
        if kind is None:
            return None
        kinds.add(kind)
    has_long = "long" in kinds
    has_small = "small" in kinds
    kinds -= {"long", "small", "other"}

    if not kinds:
        return Numbers(NumberForm(), len(cells), None, has_small=has_small, has_long=has_long)
    for mark in _MARKS:
        if kinds == {f"thousand {mark}"} and not has_long:
            example = next(cell for cell in cells if mark in cell)
            return Numbers(NumberForm(mark), len(cells), None, mark, has_small, example=example)
        if kinds <= {f"decimal {mark}", f"thousand {mark}"}:
            return Numbers(NumberForm(mark), len(cells), mark)

    for decimal in _MARKS:
        for grouping in _GROUPINGS:
            form = NumberForm(decimal, grouping)
            if grouping != decimal and all(map(form.is_number, cells)):
                example = next(cell for cell in cells if _marks_of(cell) not in _UNGROUPED)
                proven = decimal if any(decimal in cell for cell in cells) else None
                if grouping in OTHER_MARK:
                    proven = OTHER_MARK[grouping]
                return Numbers(form, len(cells), proven, example=example)
    return None


_UNGROUPED = ("long", "small", "other", "decimal .", "decimal ,")
_ONE_MARK = re.compile(r"[-+]?(\d*)([.,])(\d*)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_WITHOUT_MARK = re.compile(r"[-+]?(\d+)(e[-+]?\d+)?|[-+]?inf(inity)?", re.ASCII | re.IGNORECASE)
_GROUPED = re.compile(
    rf"[-+]?\d{{1,3}}(?:[.,{_APOSTROPHES}{_BLANKS}]\d{{2,3}})*[.,{_APOSTROPHES}{_BLANKS}]\d{{3}}"
    r"([.,]\d*)?",
    re.ASCII,
)


def _marks_of(text: str) -> str | None:
    """Return what the marks of one cell prove; None for a cell that is no bare number.

    `small` and `long` are whole numbers of up to three digits, and of more; `decimal .` has a mark
    that cannot stand between thousands; `thousand .` one that may be either.
    """
    bare = text.strip(" \t")
    match = _ONE_MARK.fullmatch(bare)
    if match is not None:
        integers, mark, places, exponent = match.groups()
        if not integers + places:
            return None
        is_group = (
            len(places) == 3 and 1 <= len(integers) <= 3 and integers[0] != "0" and not exponent
        )
        return f"{'thousand' if is_group else 'decimal'} {mark}"

    match = _WITHOUT_MARK.fullmatch(bare)
    if match is not None:
        integers = match[1]
        if integers is None or match[2]:
            return "other"
        return "long" if len(integers) > 3 else "small"
    return "grouped" if _GROUPED.fullmatch(bare) is not None else None


def _decorated(cells: Sequence[str], forms: Sequence[NumberForm]) -> Numbers | None:
    """Infer the form of numbers with units, signs or quotes; None where most cells are none."""
    matches = [match for cell in cells if (match := _CELL.fullmatch(cell)) is not None]
    matches = [m for m in matches if bool(m["bracket"]) == bool(m["close"])]
    if len(matches) < NUMERIC_SHARE * len(cells):
        return None
    units = Counter(m["unit"] or m["currency"] or "" for m in matches)
    bare = [m for m in matches if not (m["unit"] or m["currency"])]
    are_zeros = all(not m["number"].strip(" 0.,") for m in bare)
    if len(units) > 1 and are_zeros and 2 * len(bare) <= len(matches):
        units.pop("", None)
    if not _are_units(units, matches):
        return None
    if any(units) and sum(map(is_stamp, cells)) > len(cells) // 2:
        return None  # dates of one month, such as 05-Oct-2026

    has_signs = any(m["excel"] or (m["sign"] + m["inner"]).strip("+-") for m in matches)
    is_accounting = any(m["bracket"] or m["trailing"] for m in matches)
    if is_accounting and any(m["sign"] or m["inner"] for m in matches):
        return None  # where numbers have a minus, those in brackets are not negative
    if not (has_signs or is_accounting or any(units)):
        return None

    unit = next(iter(units)) if len(units) == 1 else ""
    numbers = _infer_marks([m["number"].strip(_BLANKS) for m in matches])
    if numbers is not None and numbers.form not in forms:
        numbers = None  # the user says what the marks are
    decorated = [
        replace(form, unit=unit, has_signs=has_signs, is_accounting=is_accounting)
        for form in (forms if numbers is None else [numbers.form])
    ]
    if len(units) > 1:
        names = tuple(name for name, _ in units.most_common() if name)
        return Numbers(decorated[0], len(matches), None, units=names)
    best = max(decorated, key=lambda form: sum(map(form.is_number, cells)))
    n_fit = sum(map(best.is_number, cells))
    in_brackets = len(matches) >= _MIN_MEASURED and all(m["bracket"] for m in matches)
    numbers = numbers or Numbers(best, n_fit, None)
    return numbers._replace(form=best, n_fit=n_fit, in_brackets=in_brackets)


def _with_constant_text(cells: Sequence[str], probe: Sequence[str]) -> Numbers | None:
    """Infer the form of numbers with the same text of several words behind each, or before it.

    They have decimals, or the text begins with a unit: `Pump 3` is a name. None for other cells.
    """

    def text_of(match: re.Match[str]) -> tuple[str, str]:
        return match["before"].strip(), match["after"].strip()

    if not probe or sum(_CELL.fullmatch(cell) is not None for cell in probe) > len(probe) // 2:
        return None
    matches = [m for cell in cells if (m := _TEXT_AROUND.fullmatch(cell.strip())) is not None]
    texts = Counter(map(text_of, matches))
    (before, after), n = texts.most_common(1)[0] if texts else (("", ""), 0)
    if n < MOSTLY * len(cells) or bool(before) == bool(after) or all(map(is_stamp, probe)):
        return None
    digits = [m["number"] for m in matches if text_of(m) == (before, after)]
    n_decimals = len({text for text in digits if any(mark in text for mark in _MARKS)})
    is_quantity = any(text[0].isdigit() for text in after.split())  # 2h 30min
    if is_quantity or (n_decimals < _MIN_MEASURED and not (after and is_unit(after.split()[0]))):
        return None
    numbers = _infer_marks(digits)
    if numbers is None:
        return None
    form = replace(numbers.form, unit=before or after)
    return numbers._replace(form=form, n_fit=sum(map(form.is_number, cells)))


def _are_units(units: Counter[str], matches: Sequence[re.Match[str]]) -> bool:
    """Tell whether what stands behind numbers are units, and not the second half of names."""
    if not any(units):
        return True
    if len(units) > 1:
        return "" not in units and all(map(is_unit, units))

    (unit,) = units
    values = {m["number"] for m in matches}
    if unit in ("UTC", "GMT") or (len(values) == 1 and not is_unit(unit)):
        return False
    has_blank = all(m["number"][-1:] in _BLANKS or m["currency"] for m in matches if m["unit"])
    if has_blank or not unit.isalpha():
        return True
    has_marks = any(mark in value for value in values for mark in _MARKS)
    is_name = any(value.startswith("0") and value.isdigit() and len(value) > 1 for value in values)
    return has_marks or (is_unit(unit) and not is_name and len(values) > _MIN_VALUES_OF_A_UNIT)


@dataclass(frozen=True)
class Marks:
    """How the numbers of all columns of a table are written."""

    columns: Mapping[str, Numbers]
    """What each column of numbers tells."""
    decimal: str
    """The decimal mark of columns that prove none."""
    thousands: str | None
    """The mark between thousands that the user names."""
    is_explicit: bool
    """Whether the user says what the marks are."""

    @classmethod
    def of(
        cls, cells: Mapping[str, Sequence[str]], sep: str, config: DataConfig, source: str
    ) -> Marks:
        """Infer them from the cells of each column, without missing ones.

        Raises `DataError` where a mark may stand between thousands, unless the user says what the
        marks are, and where the numbers of a column have several units.
        """
        columns = {}
        for name, values in cells.items():
            sample = [*values[:_MAX_CELLS], *spread(values[_MAX_CELLS:], _MAX_CELLS)]
            numbers = infer_numbers(sample, config.decimal, config.thousands)
            if sample and numbers.n_fit >= NUMERIC_SHARE * len(sample):
                columns[name] = numbers

        decimals = Counter(n.decimal for n in columns.values() if n.decimal is not None)
        decimal = config.decimal or max(".,", key=lambda mark: decimals[mark])
        is_explicit = config.decimal is not None or config.thousands is not None
        marks = cls(columns, decimal, config.thousands, is_explicit)
        used = (config.series, *config.target, *config.known, *config.past, *config.static)
        for name, numbers in columns.items():
            if not config.target or name in used:
                try:
                    marks._check(name, numbers, frozenset(decimals), sep, source)
                except DataError as error:
                    if error.code == "thousands" and _have_one_code(cells[name], numbers):
                        raise _codes_error(name, numbers.example, source, []) from None
                    raise
                if numbers.decimal == sep and not is_explicit and _have_codes(cells[name]):
                    proposal = Proposal(("--decimal", ","), "if the comma is the decimal mark")
                    raise _codes_error(name, cells[name][0], source, [proposal])
        return marks

    def _check(
        self, name: str, numbers: Numbers, proven: frozenset[str], sep: str, source: str
    ) -> None:
        """Raise `DataError` for a column whose numbers cannot be read without being asked for."""
        if numbers.units:
            raise DataError(
                f"column {name!r} has numbers with several units: {', '.join(numbers.units)}",
                code="several-units",
                location=Location(source, column=name),
                hint="use one unit for the whole column",
            )
        if numbers.in_brackets:
            raise DataError(
                f"all numbers of column {name!r} are in brackets, which may make them negative",
                code="brackets",
                location=Location(source, column=name),
                hint="write negative numbers with a minus, and others without brackets",
            )
        form = numbers.form
        if form.thousands is not None and form.thousands != self.thousands:
            decimal = form.decimal if numbers.decimal else self.decimal
            raise grouped_error(name, numbers, [decimal], source)

        mark = numbers.doubtful
        if mark is None or (self.is_explicit and mark == self.decimal):
            return
        if proven == {OTHER_MARK[mark]} or self.is_explicit:
            raise grouped_error(name, numbers, [OTHER_MARK[mark]], source)
        # Who writes fields with semicolons between them may write decimals with a comma.
        is_doubtful = numbers.has_small or mark == "," or sep == ";" or len(proven) > 1
        if is_doubtful and proven != {mark}:
            raise grouped_error(name, numbers, [OTHER_MARK[mark], mark], source)

    @cached_property
    def forms(self) -> dict[str, NumberForm]:
        """How the numbers of each column are written."""
        return {
            name: numbers.form
            if numbers.decimal or numbers.doubtful
            else replace(numbers.form, decimal=self.decimal, thousands=self.thousands)
            for name, numbers in self.columns.items()
        }

    def form_of(self, column: str) -> NumberForm:
        """Return how the numbers of a column are written; those of others as most are."""
        return self.forms.get(column) or NumberForm(self.decimal, self.thousands)

    @cached_property
    def uncommon_forms(self) -> dict[str, NumberForm]:
        """The forms of columns that are written unlike the others, or with more than digits."""
        default = NumberForm(self.decimal, self.thousands)
        return {name: form for name, form in self.forms.items() if form != default}

    @cached_property
    def doubtful(self) -> dict[str, bool]:
        """Columns that prove no mark, where none does, and whether they have no mark at all."""
        if self.is_explicit or any(numbers.decimal for numbers in self.columns.values()):
            return {}
        return {
            name: numbers.doubtful is None
            for name, numbers in self.columns.items()
            if numbers.form.is_plain and not numbers.has_long
        }

    def report(self, source: str, listener: Listener) -> None:
        """Report which decimal marks, signs and units were read."""
        forms = self.forms
        if not self.is_explicit and any(form.decimal == "," for form in forms.values()):
            listener(WarningEvent("decimal-comma", f"{source}: the decimal mark is a comma"))
        differing = [name for name, form in forms.items() if form.decimal != self.decimal]
        if differing:
            names = ", ".join(map(repr, differing))
            mark = "comma" if self.decimal == "." else "point"
            message = f"the decimal mark of {names} is {mark}, unlike in other columns"
            listener(WarningEvent("decimal-mark", f"{source}: {message}", len(differing)))

        units = [f"{form.unit} of {name!r}" for name, form in forms.items() if form.unit]
        if units:
            listener(Notice(f"{source}: removed units after numbers: {', '.join(units)}"))
        dashes = [name for name, form in forms.items() if form.has_signs or form.is_accounting]
        if dashes:
            names = ", ".join(map(repr, dashes))
            listener(Notice(f"{source}: numbers in {names} have dashes, quotes or brackets"))


def _have_codes(cells: Sequence[str]) -> bool:
    """Tell whether a digit after the comma is a code: of many decimals, some would be 0."""
    parts = [cell.partition(",") for cell in cells]
    codes = {code for _, _, code in parts}
    is_digit = all(len(code) == 1 for code in codes) and "0" not in codes
    return is_digit and len(cells) >= _MIN_CODED and 10 * len(set(parts)) >= len(cells)


def _have_one_code(cells: Sequence[str], numbers: Numbers) -> bool:
    """Tell whether the same three digits stand behind a mark in many different cells.

    Digits of readings differ, unless their last is 0: these are a code, such as 192, the good
    quality of OPC.
    """
    mark = numbers.doubtful or numbers.form.thousands
    if mark is None:
        return False
    texts = {cell.strip() for cell in cells}
    parts = {tuple(re.split(_mark_class(mark), text, maxsplit=1)) for text in texts}
    grouped = [part for part in parts if len(part) == 2]
    codes = {part[1] for part in grouped}
    return len(codes) == 1 and not codes.pop().endswith("0") and len(grouped) >= _MIN_MEASURED


def _codes_error(
    column: str, example: str, source: str, proposals: Sequence[Proposal]
) -> DataError:
    return DataError(
        f"cells of column {column!r} may be numbers with codes: {example!r}",
        code="number-and-code",
        location=Location(source, column=column),
        proposals=proposals,
        hint=f"{'if not, ' if proposals else ''}write the codes into a column of their own",
    )


def grouped_error(column: str, numbers: Numbers, decimals: Sequence[str], source: str) -> DataError:
    """Return the error for numbers with marks between thousands, or that may have such marks.

    `decimals` are the decimal marks with which they can be read.
    """
    example = numbers.example
    mark = numbers.doubtful or numbers.form.thousands or ""
    proposals = []
    for decimal in decimals:
        options: tuple[str, ...] = ("--decimal", decimal)
        value = example
        if decimal != mark:
            options = ("--thousands", mark, *options)
            value = re.sub(_mark_class(mark), "", example)
        meaning = value.strip(_BLANKS).replace(decimal, ".")
        proposals.append(Proposal(options, f"if {example.strip()} means {meaning}"))

    problem = "numbers with thousands separators"
    if len(decimals) > 1:
        problem = f"{mark!r} may be the thousands separator or the decimal mark"
    return DataError(
        f"column {column!r} contains {example!r}: {problem}",
        code="thousands",
        location=Location(source, column=column),
        proposals=proposals,
    )


@dataclass(frozen=True)
class TextNumbers:
    """The columns of texts in a typed table that hold numbers."""

    forms: Mapping[str, NumberForm]
    """How the numbers of each column are written."""
    missing: tuple[str, ...]

    @classmethod
    def of(cls, cells: Mapping[str, Sequence[str]], config: DataConfig, source: str) -> TextNumbers:
        """Infer them from the first cells of each column of texts.

        Whole numbers are names, as the table calls them texts, and so are a few that come again;
        measurements have decimals. Raises `DataError` as `Marks.of` does.
        """
        missing = (*MISSING, *config.na_values)
        measured = {}
        for name, texts in cells.items():
            present = [text for text in texts if text.strip() not in missing]
            numbers = [text for text in present if _CELL.fullmatch(text) is not None]
            decimals = {text for text in numbers if re.search(r"\d[.,]\d", text)}
            is_mostly = len(numbers) >= NUMERIC_SHARE * len(present)
            if is_mostly and len(decimals) >= _MIN_MEASURED:
                measured[name] = present
        return cls(Marks.of(measured, ",", config, source).forms, missing)

    def convert(self, name: str, texts: pa.Array, type_: pa.DataType, source: str) -> pa.Array:
        """Convert the texts of a column to numbers. Raises `DataError` for one that is none."""
        is_missing = pc.is_in(pc.utf8_trim_whitespace(texts), pa.array(self.missing, texts.type))
        present = pc.if_else(is_missing, pa.scalar(None, texts.type), texts)
        form = self.forms[name]
        try:
            return form.convert(present, type_)
        except pa.ArrowInvalid as error:
            others = Counter(
                t for t in present.to_pylist() if t is not None and not form.is_number(t)
            )
            token, count = others.most_common(1)[0]
            raise DataError(
                f"column {name!r} contains numbers as text, but also {token!r} ({count} times)",
                code="not-a-number",
                location=Location(source, column=name, token=token),
                proposals=[Proposal(("--na-values", token), "if it means a missing reading")],
            ) from error
