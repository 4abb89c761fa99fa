"""The forms in which dates and times are written, and texts in one of them to ISO 8601."""

from __future__ import annotations

import datetime as dt
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from rnnforecast.units import format_utc_offset

_B = "[ \t\u00a0\u2009\u202f]"
"""A blank: browsers write a narrow one before AM and PM."""
_LETTERS = "[A-Za-z\u00c0-\u024f\u0400-\u04ff]"
_MONTHS = (
    # English, German, French, Spanish, Italian, Portuguese, Dutch, Scandinavian, Polish, Hungarian,
    # Romanian, Slovene, Finnish, Estonian, Latvian, Turkish, Indonesian, Russian, Ukrainian and
    # Bulgarian; a name is known by its beginning, by four letters where three are of two months.
    "jan jän ene gen sty oca ian tam jaa янв яну січ",
    "feb fév fev lut şub hel vee фев лют",
    "mar mär mrz már mrt maa мар бер",
    "apr abr avr kwi nis ápr huh апр кві",
    "may mai mag mei maj máj tou мая май тра",
    "jun juin giu cze haz jún jūn iun kes juun июн юни чер",
    "jul juil lug lip tem júl jūl iul hei juul июл юли лип",
    "aug ago aoû aou août sie ağu agu avg elo авг сер",
    "sep set wrz eyl sze syy сен сеп вер",
    "oct okt out ott paź eki lok окт жов",
    "nov lis kas noi marr ноя ное лис",
    "dec dez déc dic des gru ara det jou дек гру",
)
_MONTH_OF = {name: i for i, names in enumerate(_MONTHS, 1) for name in names.split()}
_FIRST_YEAR, _PAST_YEAR = 1900, 2100
"""Digits alone are a date only in these years."""
_PIVOT = 50
"""Years of two digits lie from 1950 to 2049."""
_ZONES = {
    "Z": 0, "UTC": 0, "GMT": 0, "UT": 0, "WET": 0, "WEST": 60, "CET": 60, "CEST": 120, "MEZ": 60,
    "MESZ": 120, "EET": 120, "EEST": 180, "MSK": 180, "JST": 540, "KST": 540, "EST": -300,
    "EDT": -240, "CDT": -300, "MST": -420, "MDT": -360, "PST": -480, "PDT": -420, "AKST": -540,
    "AKDT": -480, "HST": -600, "AEST": 600, "AEDT": 660, "ACST": 570, "AWST": 480, "NZST": 720,
    "NZDT": 780, "SAST": 120,
    "W": 60, "S": 120,  # winter and summer, as Dutch and Belgian meters have them
}  # fmt: skip
"""Offsets from UTC in minutes by the name of a zone, where only one zone is called so."""
ZONES_CALLED = {
    "CST": ("America/Chicago", "Asia/Shanghai"),
    "IST": ("Asia/Kolkata", "Europe/Dublin", "Asia/Jerusalem"),
    "BST": ("Europe/London", "Asia/Dhaka"),
    "AST": ("America/Halifax", "Asia/Riyadh"),
    "GST": ("Asia/Dubai",),
    "SGT": ("Asia/Singapore",),
    "HKT": ("Asia/Hong_Kong",),
    "PKT": ("Asia/Karachi",),
    "BRT": ("America/Sao_Paulo",),
    "ART": ("America/Argentina/Buenos_Aires",),
}
"""Zones by a name that several have, or that says little."""
_HALVES = {
    "AM": "上午 午前 오전 πμ π.μ. fm f.m. ap a.p. öö ص पूर्वाह्न vorm sa|sá|sáng paradite|paradites"
    " midnight",
    "PM": "下午 午後 午后 오후 μμ μ.μ. em e.m. ip i.p. ös م अपराह्न nachm ch pasdite|pasdites noon",
}
"""How languages besides English call the halves of a day."""
_HALVES_BEFORE = {"AM": " de d.e.", "PM": " du d.u."}
"""Such marks as mean something else behind a time of day."""
_CLOCK_MARKS = (
    *("t", "at", "um", "on", "om", "à", "a", "las", "le", "les", "alle", "o", "kl", "klo", "ob"),
    *("uhr", "h", "hr", "hrs", "hs", "hours", "ore", "ora", "heures", "г", "ч", "z"),
    *("日", "时", "時", "点", "點", "分", "秒", "일", "시", "분", "초"),
)
"""Texts beside a time of day that say nothing of the half of the day."""
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
_MAX_SAMPLE = 100
"""Texts by which forms are told apart."""
_MIN_DISTINCT = 3
"""A column of fewer different dates, written as digits, may as well hold numbers."""
_MIN_CERTAIN = 10
"""As many different numbers of eight digits are not dates by chance."""
_MAX_STAMP = 80
"""No stamp has more characters."""
MOSTLY = 0.9
"""Share of cells that are of a kind, or of steps that are equal or in order, but for errors."""

_Y, _y, _m, _d = r"(?P<Y>\d{4})", r"(?P<y>\d{2})", r"(?P<m>\d{1,2})", r"(?P<d>\d{1,2})"
_mm, _dd, _j = r"(?P<m>\d{2})", r"(?P<d>\d{2})", r"(?P<j>\d{3})"
_NAME = rf"(?P<b>{_LETTERS}{{3,12}})\.?"
_GAP = rf"(?:\.?{_B}*[-/.,]{_B}*|\.?{_B}+(?:de{_B}+)?)"
"""What stands between a day, the name of a month, and a year."""
_ORDINAL = "(?:st|nd|rd|th|er)?"
_WEEKDAY = rf"(?:{_LETTERS}{{2,12}}\.?,?{_B}+)?"
_FRACTION = r"(?:[.,](?P<f>\d{1,9})|:(?P<g>\d{3}))?"
_CLOCK = rf"(?P<H>\d{{1,2}})(?:[:.h]?(?P<M>\d{{2}})(?:[:.m]?(?P<S>\d{{2}}){_FRACTION}s?)?|h)?"
_DASH_CLOCK = r"(?P<H>\d{2})-(?P<M>\d{2})(?:-(?P<S>\d{2}))?"
_DIGIT_CLOCK = r"(?P<H>\d{2})(?:(?P<M>\d{2})(?:(?P<S>\d{2})(?:[.,]?(?P<f>\d{1,9}))?)?)?"
_HH, _MM = r"(?P<H>[01]\d|2[0-3])", r"(?P<M>[0-5]\d)"
DECIMAL_MONTHS = "%Y.%m"
"""Years and months as decimals, without a last zero: 1990.1 is October."""
MINUTE_DIGITS = "%y%m%d%H%M"
"""Ten digits, as those of the seconds since 1970."""
_POINT_0 = r"(?:\.0)?"
"""What whole numbers have at their end where a column had to hold decimals."""
_HALF = rf"(?:{_B}*(?P<p>[AaPp])(?:\b|\.?{_B}?[Mm]\.?))?"
_OFFSET = r"(?:\+\d{2}|-0[1-9]|-1\d):?(?:\d{2})?|-00:?00"
_ZONE = rf"(?:{_B}*(?P<z>[Zz]|(?:UTC|GMT)?(?:{_OFFSET})|(?:UTC|GMT)[-+]\d|\(?[A-Z]{{2,5}}\)?))?"
_BETWEEN = rf"(?:{_B}*[Tt]{_B}*|{_B}*[,;_:]{_B}*|{_B}+-{_B}+|-|{_B}+(?:at{_B}+|um{_B}+)?)"
"""What stands between a date and a time of day."""
_CLOCK_FORMAT = re.compile(
    r"(?:[ T,_-]+%[HI](?:[:.h]?%M)?(?:[:.m]?%S)?(?:[.,]?%f)?(?: ?%p)?(?: ?%[zZ])?)?"
)
"""A time of day in a user's format, below its date."""
_TO = f"{_B}*(?:{_B}-|[\u2013\u2014/]|{_B}to|{_B}bis){_B}*"
"""What stands between the begin and the end of an interval."""


_compiled = cache(partial(re.compile, flags=re.ASCII))


@dataclass(frozen=True)
class StampForm:
    """One way to write a date, with or without a time of day."""

    format: str
    """The date, as `--time-format` has it."""
    date: str
    """The regular expression of the date."""
    time: str = _CLOCK
    """That of the time of day; empty where the date has none, or stands around it."""
    between: str = _BETWEEN
    is_weak: bool = False
    """Whether numbers or names may look like this form."""
    clock_mark: str = ""
    """An unknown text beside the time of day, which may mean the morning or the afternoon."""

    @cached_property
    def pattern(self) -> str:
        """The regular expression of a stamp; `re` and Arrow read it alike."""
        return self._with_end("?")

    @property
    def year_place(self) -> int:
        """Where the year stands in the date."""
        return self.format.lower().find("y")

    @cached_property
    def interval_pattern(self) -> str:
        """That of a stamp that names the begin and the end of an interval."""
        return self._with_end("{1}") if self.time else "^[^\\s\\S]$"

    def _with_end(self, times: str) -> str:
        if not self.time:
            return f"^{_B}*{self.date}{_B}*$"
        clock = self.time + _HALF + _ZONE
        date, time = _unnamed(self.date), _unnamed(clock)
        end = rf"(?P<end>{_TO}(?:{date}(?:{self.between}{time})?|{time})){times}"
        return f"^{_B}*{_WEEKDAY}{self.date}(?:{self.between}{clock})?{end}{_B}*$"

    def parts(self, text: str) -> dict[str, str] | None:
        """Return the parts of a text by their letters; None for another form, or no date."""
        match = _compiled(self.pattern).fullmatch(text)
        parts = None if match is None else match.groupdict("")
        return parts if parts is not None and _iso_date(parts) and _iso_clock(parts) else None

    def date_in_words(self, text: str) -> str:
        """Return a date of this form as 1 February 2024, which nobody can misread."""
        date = dt.date.fromisoformat(str(_iso_date(self.parts(text) or {"Y": "1"})))
        return f"{date.day} {date:%B %Y}"

    def moment_in_words(self, text: str) -> str:
        """Return a time of this form as 1 February 2024 at 05:00."""
        clock = str(_iso_clock(self.parts(text) or {}))[1:6]
        return f"{self.date_in_words(text)} at {clock}"

    def to_iso(self, texts: pa.Array) -> pa.Array:
        """Turn texts into ISO 8601, null where they have another form, or are no date.

        Of an interval it is the begin. The hour may be 24 and the second 60, as in the text.
        """
        groups = pc.extract_regex(texts.cast(pa.string()), self.pattern)
        names = [field.name for field in groups.type]
        parts = dict(zip(names, groups.flatten(), strict=True))

        dates = _map_parts(parts, "YymdbjqWth", _iso_date)
        if parts.keys().isdisjoint("HMSp"):
            return dates
        clocks = _map_parts(parts, "HMSp", _iso_clock)
        fractions: pa.Array | str = ""
        if "f" in parts:
            digits = pc.binary_join_element_wise(*(parts[n] for n in "fg" if n in parts), "")
            fractions = pc.replace_substring_regex(digits, r"^(\d)", r".\1")
        zones = _map_parts(parts, "z", _iso_zone) if "z" in parts else ""
        return pc.binary_join_element_wise(dates, clocks, fractions, zones, "")

    def format_of(self, text: str) -> str:
        """Return the format of a text of this form, as `--time-format` has it."""
        parts = self.parts(text)
        if parts is None or not parts.get("H") or "%H" in self.format:
            return self.format
        half = parts.get("p", "")
        clock = "%I" if half else "%H"
        clock += ":%M" * bool(parts["M"]) + ":%S" * bool(parts["S"])
        return f"{self.format} {clock}{' %p' * bool(half)}"


def _unnamed(pattern: str) -> str:
    """Return a pattern whose groups have no names, as one may not be used twice."""
    return re.sub(r"\(\?P<\w+>", "(?:", pattern)


def _map_parts(
    parts: Mapping[str, pa.Array], letters: str, function: Callable[[dict[str, str]], str | None]
) -> pa.Array:
    """Apply a function to the parts of these letters: few days, and few clocks, are different."""
    names = [letter for letter in letters if letter in parts]
    texts = pc.binary_join_element_wise(*(parts[name] for name in names), "\t").dictionary_encode()
    rows = (text.split("\t") for text in texts.dictionary.to_pylist())
    values = pa.array([function(dict(zip(names, row, strict=True))) for row in rows], pa.string())
    return values.take(texts.indices)


def _iso_date(parts: dict[str, str]) -> str | None:
    """Return a date of the calendar in ISO 8601, by the names of its parts; None for no date."""
    year = int(parts.get("Y") or parts["y"])
    if not parts.get("Y"):
        year += 1900 if year >= _PIVOT else 2000
    month, day = int(parts.get("m") or 1), int(parts.get("d") or 1)
    if parts.get("b"):
        month = month_of(parts["b"]) or 0  # of no date
    elif parts.get("q"):
        month = 3 * int(parts["q"]) - 2
    elif parts.get("h"):
        month = 6 * int(parts["h"]) - 5
    elif parts.get("t"):
        month = int(parts["t"].ljust(2, "0"))

    try:
        if parts.get("W"):
            return dt.date.fromisocalendar(year, int(parts["W"]), 1).isoformat()
        if parts.get("j"):
            date = dt.date(year, 1, 1) + dt.timedelta(int(parts["j"]) - 1)
            return date.isoformat() if date.year == year and int(parts["j"]) else None
        return dt.date(year, month, day).isoformat()
    except (ValueError, OverflowError):
        return None


def month_of(name: str) -> int | None:
    """Return the number of a month by its name or the beginning of it, in one of many languages."""
    folded = name.strip(".").casefold()
    for length in (4, 3):  # juin and juil begin alike
        if folded[:length] in _MONTH_OF:
            return _MONTH_OF[folded[:length]]
    return None


def _iso_clock(parts: dict[str, str]) -> str | None:
    """Return a time of day with what stands before it in ISO 8601; nothing for midnight alone."""
    if not parts.get("H"):
        return "T00:00:00"
    hour, half = int(parts["H"]), parts.get("p", "").casefold()
    if half and hour > 12:
        if hour > 23 or half != "p":
            return None  # 13:00 PM can only be 13:00
    elif half:
        hour = hour % 12 + 12 * (half == "p")  # 0 is what Japan writes for 12
    return f"T{hour:02d}:{parts.get('M') or '00'}:{parts.get('S') or '00'}"


def _half_patterns() -> tuple[tuple[str, str], ...]:
    """Return patterns of marks of a half of the day beside a time of day, and replacements."""

    def any_of(half: str, *, is_before: bool) -> str:
        marks = _HALVES[half] + _HALVES_BEFORE[half] * is_before
        return "|".join(re.escape(mark) for mark in re.split(r"[ |]", marks))

    start, end = rf"(^|{_B}|[-\d.,:;/_(日일])", rf"($|{_B}|[-.,;/)\]])"
    patterns = []
    for half in _HALVES:
        before, behind = any_of(half, is_before=True), any_of(half, is_before=False)
        clock = rf"({_B}*\d{{1,2}}[:.时時点點시])"
        patterns.append((rf"(?i){start}(?:{before})\.?{clock}", rf"\1{half}\2"))
        patterns.append((rf"(?i)(\d{{2}}{_B}*)(?:e )?(?:{behind})\.?{end}", rf"\1{half}\2"))
    return tuple(patterns)


_HALF_PATTERNS = _half_patterns()
_LETTER = re.compile(r"[^\W\d_]")


def with_english_halves(texts: pa.Array) -> pa.Array:
    """Write AM and PM for what other languages call them, beside a time of day."""
    if not pc.any(pc.match_substring_regex(texts, r"\pL")).as_py():
        return texts
    for pattern, replacement in _HALF_PATTERNS:
        texts = pc.replace_substring_regex(texts, pattern, replacement)
    return texts


def with_english_half(text: str) -> str:
    """Write AM or PM in a text as `with_english_halves` does."""
    if _LETTER.search(text) is None:
        return text
    for pattern, replacement in _HALF_PATTERNS:
        text = re.sub(pattern, replacement, text)
    return text


def _iso_zone(parts: dict[str, str]) -> str:
    """Return an offset from UTC in ISO 8601; nothing for no zone, and for a name of several."""
    minutes = offset_minutes(parts["z"])
    return "" if minutes is None else format_utc_offset(minutes)


def offset_minutes(zone: str) -> int | None:
    """Return the offset from UTC of a zone's name or of an offset; None for one that is unknown."""
    name = zone.strip("()").upper()
    if name in _ZONES:
        return _ZONES[name]
    match = re.fullmatch(r"(?:UTC|GMT)?([-+])(\d{1,2}):?(\d{2})?", name)
    if match is None:
        return None
    minutes = 60 * int(match[2]) + int(match[3] or 0)
    return -minutes if match[1] == "-" else minutes


def _forms() -> tuple[StampForm, ...]:
    """Return all forms."""
    forms = []
    for mark, sep in (("-", "-"), ("/", "/"), (".", r"\.")):
        forms += [
            StampForm(f"%Y{mark}%m{mark}%d", f"{_Y}{sep}{_m}{sep}{_d}"),
            StampForm(f"%d{mark}%m{mark}%Y", f"{_d}{sep}{_m}{sep}{_Y}"),
            StampForm(f"%m{mark}%d{mark}%Y", f"{_m}{sep}{_d}{sep}{_Y}"),
            StampForm(f"%d{mark}%m{mark}%y", f"{_d}{sep}{_m}{sep}{_y}"),
            StampForm(f"%m{mark}%d{mark}%y", f"{_m}{sep}{_d}{sep}{_y}"),
            StampForm(f"%y{mark}%m{mark}%d", f"{_y}{sep}{_mm}{sep}{_dd}"),
        ]

    around = rf"{_WEEKDAY}{_NAME}{_B}+{_d}{_B}+{_CLOCK}{_HALF}{_ZONE}{_B}+{_Y}"
    parted = rf"(?:{_B}*[Tt]{_B}*|[-_]|{_B}+)"
    dashes = rf"(?:-|_|T|{_B}+)"
    forms += [
        StampForm("%d %b %Y", f"{_d}{_ORDINAL}{_GAP}{_NAME}{_GAP}{_Y}"),
        StampForm("%b %d %Y", f"{_NAME}{_GAP}{_d}{_ORDINAL}{_GAP}{_Y}"),
        StampForm("%Y %b %d", f"{_Y}{_GAP}{_NAME}{_GAP}{_d}"),
        StampForm("%d %b %y", f"{_d}{_ORDINAL}{_GAP}{_NAME}{_GAP}{_y}"),
        StampForm("%d%b%Y", f"{_dd}{_NAME}{_Y}"),
        StampForm("%a %b %d %H:%M:%S %Y", around, ""),
        StampForm("%Y-%m-%d-%H-%M-%S", rf"{_Y}-{_mm}-{_dd}", _DASH_CLOCK, dashes),
        StampForm("%Y%m%d", f"{_Y}{_mm}{_dd}{_POINT_0}", _CLOCK, parted, is_weak=True),
        StampForm("%d%m%Y", f"{_dd}{_mm}{_Y}{_POINT_0}", _CLOCK, parted, is_weak=True),
        StampForm("%Y%m%d%H", f"{_Y}{_mm}{_dd}{_DIGIT_CLOCK}{_POINT_0}", "", is_weak=True),
        StampForm("%d%m%Y%H", f"{_dd}{_mm}{_Y}{_DIGIT_CLOCK}{_POINT_0}", "", is_weak=True),
        StampForm(MINUTE_DIGITS, f"{_y}{_mm}{_dd}{_HH}{_MM}{_POINT_0}", "", is_weak=True),
        StampForm("%y%m%d%H%M%S", rf"{_y}{_mm}{_dd}{_HH}{_MM}(?P<S>[0-5]\d)(?P<z>[WS])", ""),
        StampForm("%Y-%j", f"{_Y}[-/]{_j}", is_weak=True),
        StampForm("%y%m%d", f"{_y}{_mm}{_dd}{_POINT_0}", _CLOCK, parted, is_weak=True),
        StampForm("%d%m%y", f"{_dd}{_mm}{_y}{_POINT_0}", _CLOCK, parted, is_weak=True),
        StampForm("%Y%j", f"{_Y}{_j}{_POINT_0}", _CLOCK, parted, is_weak=True),
        StampForm("%Y%m", f"{_Y}{_mm}{_POINT_0}", "", is_weak=True),
        StampForm("%Y-%m", f"{_Y}[-/.M]{_mm}", "", is_weak=True),
        StampForm("%Y-M%m", f"{_Y}-?[Mm]{_m}", "", is_weak=True),
        StampForm(DECIMAL_MONTHS, rf"{_Y}\.(?P<t>0[1-9]|1[0-2]?)", "", is_weak=True),
        StampForm("%m/%Y", f"{_m}[-/.]{_Y}", "", is_weak=True),
        StampForm("%b %Y", f"{_NAME}{_GAP}{_Y}", "", is_weak=True),
        StampForm("%b %y", f"{_NAME}{_GAP}{_y}", "", is_weak=True),
        StampForm("%b%Y", f"{_NAME}{_Y}", "", is_weak=True),
        StampForm("%Y-Q", rf"{_Y}[-/ ]?[Qq]0?(?P<q>[1-4])", "", is_weak=True),
        StampForm("Q-%Y", rf"Q(?P<q>[1-4])[-/ ]?{_Y}", "", is_weak=True),
        StampForm("-Q%Y", rf"(?P<q>[1-4])[Qq][-/ ]?{_Y}", "", is_weak=True),
        StampForm("%Y-S", rf"{_Y}-?[SsHh](?P<h>[12])", "", is_weak=True),
        StampForm("%G-W%V", rf"{_Y}-?W(?P<W>\d{{2}})", "", is_weak=True),
    ]
    return tuple(forms)


FORMS = _forms()
_DATES_OF_FORMS = "|".join(_unnamed(form.date) for form in FORMS)
_BEGIN = re.compile(rf"{_B}*{_WEEKDAY}(?:{_DATES_OF_FORMS})", re.ASCII)
"""How stamps of all forms begin: whole ones take long to compile, and few tables need them."""


@cache
def form_of_format(format_: str) -> StampForm | None:
    """Return the form whose date a user's format names, if only a time of day follows it."""
    for form in sorted(FORMS, key=lambda form: -len(form.format)):
        clock = format_.removeprefix(form.format)
        if clock != format_ and _CLOCK_FORMAT.fullmatch(clock):
            return form
    return None


def is_stamp(text: str) -> bool:
    """Tell whether a text is a date with year, month and day, with or without a time of day.

    Digits alone are no stamp, nor is a month or a day of a year: numbers and names look like these.
    """
    if not 6 <= len(text) <= _MAX_STAMP or text.isdigit() or _BEGIN.match(text) is None:
        return False
    english = with_english_half(text)
    for form in FORMS:
        parts = form.parts(english)
        if parts is not None and (not form.is_weak or parts.get("H")):
            return True
    return False


def infer_forms(texts: Sequence[str]) -> list[StampForm]:
    """Return the forms that most texts of a column have, one of those that read all texts alike."""
    sample = spread(texts, _MAX_SAMPLE)
    counts = {form: sum(form.parts(text) is not None for text in sample) for form in FORMS}
    n_best = max(counts.values(), default=0)
    if 2 * n_best <= len(sample):
        return forms_of_places(texts[:_MAX_SAMPLE])
    array = pa.array(sample, pa.string())
    readings: dict[tuple[bool, tuple[str, ...]], StampForm] = {}
    for form in FORMS:
        if counts[form] == n_best:
            is_month_first = form.format.startswith("%m")  # 01/01 now may be 01/02 in a moment
            readings.setdefault((is_month_first, tuple(form.to_iso(array).to_pylist())), form)
    return list(readings.values())


def choose_form(forms: Sequence[StampForm], texts: pa.Array) -> list[StampForm]:
    """Return the forms that fit all texts of a batch: more than one is ambiguous.

    Of forms with the year in different places, those count whose stamps lie close together. Day and
    month are never told apart by that.
    """
    if len(forms) < 2:
        return list(forms)

    readings = {form: form.to_iso(texts) for form in forms}
    n_best = max(len(iso) - iso.null_count for iso in readings.values())
    possible = [form for form, iso in readings.items() if len(iso) - iso.null_count == n_best]
    if len({form.year_place for form in possible}) > 1:
        # the share of the time from the first stamp to the last that has stamps in it: days of
        # one month, read as years, lie far apart
        steps = {form: _steps_between(readings[form].to_pylist()) or [1.0] for form in possible}
        coverage = {form: statistics.median(s) * len(s) / sum(s) for form, s in steps.items()}
        dense = [form for form in possible if coverage[form] >= max(coverage.values()) / 2]
        possible = dense if len({form.year_place for form in dense}) == 1 else possible
    return possible


def spread(texts: Sequence[str], n: int) -> list[str]:
    """Return at most `n` texts from all places, in their order, with no period in common."""
    if len(texts) <= n:
        return list(texts)
    places = {int(i * _GOLDEN_RATIO % 1 * len(texts)) for i in range(n)}
    return [texts[place] for place in sorted(places)]


def is_regular(iso: Sequence[str | None]) -> bool:
    """Tell whether most steps between stamps are equal, as those of months and of years are."""
    return regularity(iso) >= MOSTLY


def regularity(iso: Sequence[str | None]) -> float:
    """Return the share of the steps between stamps that are equal; 0 without any."""
    steps = _steps_between(iso)
    if not steps:
        return 0.0
    kinds = Counter(
        next((name for name, (low, high) in _MONTH_STEPS.items() if low <= step <= high), step)
        for step in steps
    )
    return max(kinds.values()) / len(steps)


_MONTH_STEPS = {
    "month": (28 * 86_400, 31 * 86_400),
    "quarter": (90 * 86_400, 92 * 86_400),
    "half": (181 * 86_400, 184 * 86_400),
    "year": (365 * 86_400, 366 * 86_400),
}


def _steps_between(iso: Sequence[str | None]) -> list[float]:
    """Return the seconds between different stamps in ISO 8601, in order of time; zones are ignored.

    The hour may be 24.
    """

    def moment(text: str) -> dt.datetime:
        date, _, clock = text.partition("T")
        numbers = map(int, re.findall(r"\d+", clock[:8]))
        time = dict(zip(("hours", "minutes", "seconds"), numbers, strict=False))
        return dt.datetime.fromisoformat(date) + dt.timedelta(**time)

    times = sorted({moment(text) for text in iso if text is not None})
    return [(b - a).total_seconds() for a, b in pairwise(times)]


def weak_form(cells: Sequence[str]) -> StampForm | None:
    """Return the form of a column whose cells are all dates, in a form that numbers may have, too.

    Every cell must be a date between 1900 and 2100. Where numbers or names could be dates by
    chance, the steps between them must be equal.
    """
    texts = [cell.strip() for cell in cells]
    distinct = list(dict.fromkeys(texts))
    if len(distinct) < _MIN_DISTINCT:
        return None

    possible = []
    for form in FORMS:
        if not form.is_weak or any(form.parts(text) is None for text in distinct[:3]):
            continue
        if form.format == MINUTE_DIGITS and len(distinct) < _MIN_CERTAIN:
            continue
        if form.format == DECIMAL_MONTHS and len(set(map(len, distinct))) == 1:
            continue
        years = [(form.parts(text) or {"Y": "0"}).get("Y") or "2000" for text in distinct]
        if not all(_FIRST_YEAR <= int(year) < _PAST_YEAR for year in years):
            continue

        iso = form.to_iso(pa.array(distinct, pa.string())).to_pylist()
        is_certain = len(distinct[0]) >= 8 and len(distinct) >= _MIN_CERTAIN
        has_equal_steps = is_regular(iso)
        if has_equal_steps or (is_certain and distinct[0].isdigit()):
            possible.append((not has_equal_steps, form))

    if possible:
        return min(possible, key=lambda pair: pair[0])[1]
    return next(iter(forms_of_places(distinct[:_MAX_SAMPLE])), None)


def forms_of_places(texts: Sequence[str]) -> list[StampForm]:
    """Return forms of texts that hold dates and times of day in the same places, between any marks.

    Such are 13:00 [2024/1/31] or 20240131:1300 UTC. Steps must be equal, and no two forms read all
    texts alike; day and month may be either way round.
    """
    texts = list(map(with_english_half, texts))
    rows = [_PIECE.findall(text.strip()) for text in texts]
    if not rows or len(rows[0]) > _MAX_PIECES or len(set(map(len, rows))) > 1:
        return []
    places = [_Place(tuple(pieces)) for pieces in zip(*rows, strict=True)]
    if any(place.is_other for place in places):
        return []

    array = pa.array(texts, pa.string())
    readings: dict[tuple[str, ...], StampForm] = {}
    n_most = 0
    for parts in _assignments(places):
        n_parts = len("".join(parts.values()))
        if n_parts < n_most:
            continue
        signs = {places[i - 1].pieces[0] + part for i, part in parts.items() if i}
        if not signs.isdisjoint(("+H", "+M", "+S", "+f", "-M", "-S", "-f")):
            continue  # these are of an offset
        form = _form_of(places, parts)
        if form is None:
            continue
        iso = form.to_iso(array).to_pylist()
        if not all(text and _FIRST_YEAR <= int(text[:4]) < _PAST_YEAR for text in iso):
            continue
        if len(set(iso)) >= _MIN_DISTINCT and not is_regular(iso):
            continue
        if len(set(iso)) < len(set(texts)):
            continue  # words that are skipped tell morning and afternoon apart
        if n_parts > n_most:
            readings.clear()
            n_most = n_parts
        readings.setdefault(tuple(iso), form)
    return list(readings.values())


@dataclass(frozen=True)
class _Place:
    """The pieces that all texts have in one place: digits, letters, or a mark."""

    pieces: tuple[str, ...]

    @property
    def is_number(self) -> bool:
        """Whether all are digits."""
        return all(piece.isdecimal() and piece.isascii() for piece in self.pieces)

    @cached_property
    def is_constant(self) -> bool:
        """Whether all are equal."""
        return len(set(self.pieces)) == 1

    @property
    def is_half(self) -> bool:
        """Whether all are AM and PM."""
        return {piece.upper() for piece in self.pieces} <= {"AM", "PM", "A", "P"}

    @property
    def is_month(self) -> bool:
        """Whether all are names of months."""
        return all(len(piece) > 2 and month_of(piece) is not None for piece in set(self.pieces))

    @property
    def is_other(self) -> bool:
        """Whether they differ, and are no numbers, months, or names of days and zones."""
        are_words = all(piece.isalpha() for piece in set(self.pieces))
        is_word = are_words and (len(set(self.pieces)) <= _DAYS_OF_WEEK or self.is_month)
        return not (self.is_constant or self.is_number or is_word)

    def may_be(self, part: str) -> bool:
        """Tell whether all may be this part of a time, or these parts in a row."""
        if part == "b":
            return self.is_month
        widths = [_WIDTHS[letter] for letter in part]
        lengths = set(map(len, self.pieces))
        if len(part) > 1:
            return lengths == {sum(width for _, width in widths)}
        (low, high), limit = widths[0], _LARGEST.get(part)
        is_short = all(low <= length <= high for length in lengths)
        return is_short and (limit is None or all(int(piece) <= limit for piece in self.pieces))


_ZONE_PATH = r"[A-Z][A-Za-z]+(?:/[A-Z][A-Za-z_]+)+"
"""A zone such as Europe/Vienna."""
_PIECE = re.compile(rf"{_ZONE_PATH}|\d+|[^\W\d_]+|[\W_]")
_MAX_PIECES = 40
"""No stamp has more words, numbers and marks between them."""
_DAYS_OF_WEEK = 7
_WIDTHS = {"Y": (4, 4), "j": (3, 3), "M": (2, 2), "S": (2, 2), "f": (1, 9), "b": (3, 12)}
_WIDTHS |= dict.fromkeys("mdH", (1, 2))
"""How many digits a part has."""
_LARGEST = {"m": 12, "d": 31, "j": 366, "H": 24, "M": 59, "S": 60}
_DATES = ("Y m d", "d m Y", "m d Y", "Y j", "Ymd", "dmY", "d b Y", "b d Y", "Y b d", "YjHM")
_CLOCKS = ("H M S f", "H M S", "H M", "HMS", "HM", "")
"""Dates and times of day, as parts in neighbouring places; letters side by side are one place."""


def _assignments(places: Sequence[_Place]) -> Iterator[dict[int, str]]:
    """Yield what places may hold: a date, and a time of day behind it or before it."""
    numbers = [i for i, place in enumerate(places) if place.is_number]
    months = [i for i, place in enumerate(places) if not place.is_number and place.is_month]

    def may_hold(held: Sequence[int], parts: Sequence[str]) -> bool:
        return len(held) == len(parts) and all(map(_Place.may_be, (places[i] for i in held), parts))

    for month in (None, *months):
        named = sorted(numbers + ([] if month is None else [month]))
        for date in _DATES:
            parts = date.split()
            if ("b" in parts) != (month is not None):
                continue
            for first in range(len(named) - len(parts) + 1):
                held = named[first : first + len(parts)]
                if not may_hold(held, parts):
                    continue
                before, after = named[:first], named[first + len(parts) :]
                for clock in _CLOCKS:
                    units = clock.split()
                    for around in (after[: len(units)], before[len(before) - len(units) :]):
                        if may_hold(around, units):
                            yield dict(zip((*held, *around), (*parts, *units), strict=True))


def _is_contradicted(behind: Sequence[_Place]) -> bool:
    """Tell whether places behind a time hold a second offset, or Z beside one that is not zero.

    `+00:00Z` is what many programs write, and `UTC` beside an offset says what it is counted from.
    """
    texts = [place.pieces[0] for place in behind]
    n_signs = sum(text in ("+", "-") for text in texts)
    is_zero = not any(set(piece) - {"0"} for p in behind if p.is_number for piece in p.pieces)
    return n_signs > 1 or ("Z" in texts and not is_zero)


def _form_of(places: Sequence[_Place], parts: Mapping[int, str]) -> StampForm | None:
    """Return the form of texts whose places hold these parts of a time; None for other numbers.

    Numbers behind a sign are the offset from UTC, and a word that says no more than a zone is one;
    other places stay as they are, and words that differ are those of weekdays. None, too, where
    an offset is contradicted.
    """
    format_ = pattern = ""
    has_offset = any(place.pieces[0] in ("+", "-") for place in places[max(parts) :])
    if has_offset and _is_contradicted(places[max(parts) + 1 :]):
        return None
    for i, place in enumerate(places):
        text, part = place.pieces[0], parts.get(i)
        is_first, is_behind = i == 0 and len(text) > 2, i > max(parts) and text.isascii()
        if part is not None:
            for letter in part:
                low, high = _WIDTHS[letter]
                low = low if len(part) == 1 else high
                piece = _LETTERS if letter == "b" else r"\d"
                pattern += rf"(?P<{letter}>{piece}{{{low},{high}}})"
                format_ += f"%{letter}"
        elif is_behind and place.is_number and places[i - 1].pieces[0] in ("+", "-"):
            sign = re.escape(places[i - 1].pieces[0])
            pattern = pattern.removesuffix(sign) + r"(?P<z>[-+]\d{2}:?(?:\d{2})?)"
            format_ = format_[:-1] + "%z"
        elif (
            is_behind
            and not has_offset
            and "P<z>" not in pattern
            and (text in ("Z", "UTC", "GMT") or "/" in text[1:])
        ):
            pattern += f"(?P<z>{text})"
            format_ += text
        elif place.is_half and (is_behind or len(text) > 1) and "P<p>" not in pattern:
            pattern += "(?P<p>[AaPp])[Mm]?"
            format_ += "%p"
        elif place.is_constant and not (text.isalpha() and (is_first or is_behind)):
            pattern += re.escape(text)
            format_ += text.replace("%", "%%")
        elif place.is_number:
            return None
        else:  # a weekday, which may change later, or words for summer and winter time
            pattern += rf"{_LETTERS}+"
            format_ += text if place.is_constant and is_behind else "%a"
    if "%p" in format_:
        return StampForm(format_.replace("%H", "%I"), pattern, "", is_weak=True)
    mark = _unknown_clock_mark(places, parts)
    return StampForm(format_, pattern, "", is_weak=True, clock_mark=mark)


def _unknown_clock_mark(places: Sequence[_Place], parts: Mapping[int, str]) -> str:
    """Return the text of the first place beside the time of day that may mean a half of the day.

    It is no part of the time, and no weekday, which changes with the date.
    """
    clock = [i for i, part in parts.items() if part[-1] in "HMSf"]
    if not clock:
        return ""
    dates = list(zip(*(places[i].pieces for i in parts if i not in clock), strict=True))
    first = max((i + 1 for i in parts if i < min(clock)), default=0)
    end = min((i for i in parts if i > max(clock)), default=len(places))
    for i in range(first, end):
        text, pieces = places[i].pieces[0], places[i].pieces
        if i > max(clock) and text in ("+", "-"):
            break  # what follows an offset is the name of a zone
        is_known = text.casefold() in _CLOCK_MARKS or offset_minutes(text) is not None
        if not text.isalpha() or is_known:
            continue
        by_date = set(zip(dates, pieces, strict=False))
        is_weekday = len(set(pieces)) > 1 and len(by_date) == len(set(dates))
        if not is_weekday:
            return text
    return ""


def clock_since_midnight(texts: pa.Array, unit_s: float) -> pa.Array:
    """Return the time of day of numbers that count the time since midnight in a unit."""
    texts = pc.replace_substring(texts, ",", ".")
    numbers = pc.if_else(pc.match_substring_regex(texts, r"^\d*\.?\d+$"), texts, None)
    return _clock(pc.round(pc.multiply(numbers.cast(pa.float64()), unit_s)).cast(pa.int64()))


def number_texts(texts: pa.Array, function: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return the texts of whole numbers computed from those of others; null for another text."""
    is_count = pc.match_substring_regex(texts, r"^\d{1,3}$")
    numbers = pc.if_else(is_count, texts, pa.scalar(None, texts.type)).cast(pa.int64())
    return function(numbers).cast(pa.string())


def begin_of_period(texts: pa.Array, n_periods: int) -> pa.Array:
    """Return the time of day at which the parts of a day begin that texts count."""
    seconds = 86_400 // n_periods
    return number_texts(texts, lambda n: _clock(pc.multiply(pc.subtract(n, 1), seconds)))


def _clock(seconds: pa.Array) -> pa.Array:
    """Return the time of day of whole seconds since midnight."""
    minutes = pc.divide(seconds, 60)
    hours = pc.divide(minutes, 60)
    minute = pc.subtract(minutes, pc.multiply(hours, 60))
    second = pc.subtract(seconds, pc.multiply(minutes, 60))
    digits = [pc.utf8_lpad(part.cast(pa.string()), 2, "0") for part in (hours, minute, second)]
    return pc.binary_join_element_wise(*digits, ":")
