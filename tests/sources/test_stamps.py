"""Forms of dates and times: each is read to the microsecond, and digits are dates only by proof."""

from __future__ import annotations

import datetime as dt
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.sources.columns import infer_epoch_unit, is_date
from rnnforecast.sources.stamps import _MONTHS, choose_form, infer_forms, month_of, weak_form
from tests.data.tables import failure, few, read, start_of, write

START = dt.datetime(2024, 1, 13)
HOUR_US = 3_600_000_000
FORMS = [
    "%d-%b-%y %H:%M:%S",
    "%b %d %Y %H:%M",
    "%b %d, %Y %I:%M %p",
    "%d %B %Y %H:%M",
    "%B %d, %Y, %H:%M:%S",
    "%a %b %d %H:%M:%S %Y",
    "%A, %d %b %Y %H:%M:%S",
    "%d/%b/%Y:%H:%M:%S",
    "%d%b%Y %H:%M",
    "%Y %b %d %H:%M",
    "%d.%m.%Y %H.%M",
    "%d.%m.%Y, %H:%M",
    "%d.%m.%Y %H",
    "%d.%m.%Y %Hh%M",
    "%d.%m.%y %H:%M",
    "%d/%m/%YT%H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%y, %I:%M:%S\u202f%p",
    "%Y/%m/%d %H:%M",
    "%Y-%m-%d-%H.%M.%S",
    "%Y-%m-%d-%H:%M:%S",
    "%Y-%m-%d_%H-%M-%S",
    "%Y-%m-%d-%H-%M",
    "%y-%m-%d %H:%M",
    "%Y%m%dT%H%M%S",
    "%Y%m%d %H:%M",
    "%d%m%Y %H%M",
    "%Y%m%d%H",
    "%Y%m%d%H%M",
    "%Y%m%d%H%M%S",
    "%Y-%j %H:%M",
]
"""Date and time of day, to the hour at least."""
DATES = [
    *("%d %b %Y", "%b %d, %Y", "%d.%m.%Y", "%y-%m-%d"),
    *("%Y%m%d", "%d%m%Y", "%y%m%d", "%Y%j", "%Y-%j"),
]
"""Dates alone."""


def stamped(tmp_path, stamps, header="timestamp;v"):
    rows = [f"{stamp};{i}" for i, stamp in enumerate(stamps)]
    return write(tmp_path / "x.csv", header, *rows)


def hours(n=100, start=START, step_s=3600):
    return [start + dt.timedelta(seconds=step_s * i) for i in range(n)]


@pytest.mark.parametrize("form", FORMS)
def test_a_column_of_any_form_is_read_without_a_question(tmp_path, form):
    path = stamped(tmp_path, [moment.strftime(form) for moment in hours()])
    result = read(path)
    assert (start_of(result), result.panel.step_us) == (START, HOUR_US)
    assert result.panel.target.tolist() == list(range(100))


@pytest.mark.parametrize("form", DATES)
def test_a_column_of_dates_is_read_without_a_question(tmp_path, form):
    path = stamped(tmp_path, [moment.strftime(form) for moment in hours(step_s=86_400)])
    result = read(path)
    assert (start_of(result), result.panel.step_us) == (START, 24 * HOUR_US)


@few
@given(
    st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(2049, 1, 1)),
    st.sampled_from([3600, 7200, 86_400]),
    st.sampled_from(FORMS),
)
def test_any_stamps_of_a_form_are_read_back_or_doubted(start, step_s, form):
    start = start.replace(minute=0, second=0, microsecond=0)
    moments = hours(40, start, step_s)
    texts = pa.array([moment.strftime(form) for moment in moments])

    forms = choose_form(infer_forms(texts.to_pylist()), texts)

    readings = [pd.to_datetime(f.to_iso(texts).to_pandas(), format="ISO8601") for f in forms]
    assert any(reading.tolist() == moments for reading in readings)
    if max(moment.day for moment in moments) > 12 and step_s < 86_400 and "%y" not in form:
        assert len(readings) == 1


@few
@given(
    st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(2049, 1, 1)),
    st.sampled_from(["%Y-%m-%d %H:%M:%S,%f", "%d.%m.%Y %H:%M:%S.%f", "%d %b %Y %H:%M:%S.%f"]),
)
def test_a_fraction_is_read_to_the_microsecond(moment, form):
    texts = pa.array([moment.strftime(form)])
    readings = [pd.Timestamp(f.to_iso(texts)[0].as_py()) for f in infer_forms(texts.to_pylist())]
    assert pd.Timestamp(moment) in readings


@pytest.mark.parametrize(
    ("end", "zone", "start"),
    [
        (" UTC", "UTC", 0),
        (" GMT", "UTC", 0),
        ("Z", "UTC", 0),
        (" CET", "+01:00", -1),
        (" (CEST)", "+02:00", -2),
        (" EST", "-05:00", 5),
        (" +0530", "+05:30", -5.5),
        (" UTC+02:00", "+02:00", -2),
    ],
)
@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M", "%d %b %Y %H:%M"])
def test_a_zone_behind_the_time_is_kept(tmp_path, form, end, zone, start):
    path = stamped(tmp_path, [moment.strftime(form) + end for moment in hours()])
    result = read(path)
    assert result.schema.tz == zone
    assert start_of(result) == START + dt.timedelta(hours=start)


def test_summer_and_winter_time_of_a_dutch_meter_are_the_right_moments(tmp_path):
    utc = pd.date_range("2023-03-25", periods=72, freq="h", tz="UTC")
    local = utc.tz_convert("Europe/Amsterdam")
    stamps = [f"{t:%y%m%d%H%M%S}{'S' if t.dst() else 'W'}" for t in local]
    result = read(stamped(tmp_path, stamps))
    assert start_of(result) == dt.datetime(2023, 3, 25)
    assert result.panel.n_rows == 72

    rows = [f"2024-01-{i // 24 + 1:02}T{i % 24:02}:00,{2301 + i}0000W" for i in range(72)]
    path = write(tmp_path / "watts.csv", "time,v", *rows)
    panel = read(path).panel
    assert panel.of(0)[0] + panel.base[0] == 23_010_000


def test_summer_and_winter_time_by_name_are_the_right_moments(tmp_path):
    utc = pd.date_range("2024-11-02", periods=72, freq="h", tz="UTC")
    stamps = [f"{t:%Y-%m-%d %H:%M %Z}" for t in utc.tz_convert("America/New_York")]
    result = read(stamped(tmp_path, stamps))
    assert (result.panel.lengths[0], result.schema.tz) == (72, "UTC")


@pytest.mark.parametrize(("name", "n_zones"), [("CST", 2), ("IST", 3), ("XYZ", 0)])
def test_a_zone_that_says_no_offset_is_asked_for(tmp_path, name, n_zones):
    path = stamped(tmp_path, [f"{moment} {name}" for moment in hours()])
    error = failure(path)
    assert (error.code, len(error.proposals)) == ("zone-name", n_zones)
    result = read(path, tz="America/Chicago")
    assert start_of(result) == START + dt.timedelta(hours=6)


@pytest.mark.parametrize("to", [" - ", " \u2013 ", "/", " to "])
@pytest.mark.parametrize("form", ["%d.%m.%Y %H:%M", "%Y-%m-%d %H:%M"])
@pytest.mark.parametrize("short", [False, True])
def test_of_an_interval_the_begin_is_the_time_and_it_is_said(tmp_path, form, to, short):
    texts = [moment.strftime(form) for moment in hours(101)]
    ends = [text[-5:] if short else text for text in texts[1:]]
    stamps = [f"{begin}{to}{end}" for begin, end in zip(texts[:-1], ends, strict=True)]
    path = stamped(tmp_path, stamps)
    result = read(path)
    assert (start_of(result), result.panel.step_us) == (START, HOUR_US)
    assert result.warnings["interval"].count == 100


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%m/%d/%Y", "%d-%b-%Y", "%Y-%m-%d", "%Y/%m/%d"])
def test_midnight_may_be_written_as_a_date_alone(tmp_path, form):
    texts = [f"{m:{form}}" if m.hour == 0 else f"{m:{form} %H:%M:%S}" for m in hours()]
    assert read(stamped(tmp_path, texts)).panel.target.tolist() == list(range(100))


NAMES = {
    "de": "Jan. Feb. März Apr. Mai Juni Juli Aug. Sept. Okt. Nov. Dez.",
    "de in spreadsheets": "Jan Feb Mrz Apr Mai Jun Jul Aug Sep Okt Nov Dez",
    "de at": "Jänner Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janv. févr. mars avr. mai juin juil. août sept. oct. nov. déc.",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre "
    "diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre "
    "dicembre",
    "pt": "jan fev mar abr mai jun jul ago set out nov dez",
    "nl": "jan feb mrt apr mei jun jul aug sep okt nov dec",
    "pl": "sty lut mar kwi maj cze lip sie wrz paź lis gru",
    "sv": "januari februari mars april maj juni juli augusti september oktober november december",
    "tr": "Oca Şub Mar Nis May Haz Tem Ağu Eyl Eki Kas Ara",
    "fi": "tammi helmi maalis huhti touko kesä heinä elo syys loka marras joulu",
    "hu": "jan. febr. márc. ápr. máj. jún. júl. aug. szept. okt. nov. dec.",
    "ro": "ian. feb. mar. apr. mai iun. iul. aug. sept. oct. nov. dec.",
    "sl": "jan. feb. mar. apr. maj jun. jul. avg. sep. okt. nov. dec.",
    "et": "jaan veebr märts apr mai juuni juuli aug sept okt nov dets",
    "lv": "janv. febr. marts apr. maijs jūn. jūl. aug. sept. okt. nov. dec.",
    "id": "Jan Feb Mar Apr Mei Jun Jul Agu Sep Okt Nov Des",
    "uk": "січ. лют. бер. квіт. трав. черв. лип. серп. вер. жовт. лист. груд.",
    "bg": "яну фев март апр май юни юли авг сеп окт ное дек",
}


@pytest.mark.parametrize("language", NAMES)
@pytest.mark.parametrize("case", [str, str.upper])
def test_months_are_known_in_many_languages(language, case):
    assert [month_of(case(name)) for name in NAMES[language].split()] == list(range(1, 13))


@pytest.mark.parametrize("text", ["{d} {b} {y} {t}", "{d}-{b}-{y} {t}", "{d} de {b} de {y} {t}"])
def test_stamps_with_foreign_months_are_read(tmp_path, text):
    names = NAMES["es"].split()
    moments = hours(400, step_s=86_400)
    stamps = [text.format(d=m.day, b=names[m.month - 1], y=m.year, t="13:05") for m in moments]
    assert read(stamped(tmp_path, stamps)).panel.target.tolist() == list(range(400))


def test_each_beginning_of_a_name_is_of_one_month():
    names = " ".join(_MONTHS).split()
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("text", ["P7", "sensor 12", "1.2.3", "12:30", "2024-013", "7 bar"])
def test_names_and_numbers_are_no_dates(text):
    assert not is_date(text)


@pytest.mark.parametrize(
    "end",
    ["+01:00+00:00", "+0100+0100", "-02:00 +01:00+00:00", "+01:00Z", "Z+01:00", "-0530 Z"],
)
def test_a_time_has_one_offset(tmp_path, end):
    failure(stamped(tmp_path, [f"{moment}{end}" for moment in hours()]))


@pytest.mark.parametrize("end", ["+00:00Z", "Z+00:00", "+0000 UTC"])
def test_an_offset_of_nothing_may_stand_beside_utc(tmp_path, end):
    result = read(stamped(tmp_path, [f"{moment}{end}" for moment in hours()]))
    assert start_of(result) == START
    assert result.panel.axis.tz == "UTC"


@pytest.mark.parametrize(
    ("form", "step"), [("%Y%m%d", 86_400), ("%Y%m%d%H", 3600), ("%Y%m%d%H%M", 600)]
)
def test_dates_as_numbers_of_a_table_are_dates_too(tmp_path, form, step):
    moments = hours(step_s=step)
    table = pa.table({"day": [int(m.strftime(form)) for m in moments], "v": np.arange(100.0)})
    pq.write_table(table, tmp_path / "x.parquet")
    for data in (table, tmp_path / "x.parquet"):
        result = read(data)
        assert (start_of(result), result.panel.step_us) == (START, step * 1_000_000)
        assert result.panel.names == ("v",)


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
def test_texts_of_a_table_may_have_any_form(type_):
    stamps = pa.array([moment.strftime("%d-%b-%y %H:%M") for moment in hours()], type_)
    assert start_of(read(pa.table({"t": stamps, "v": np.arange(100.0)}))) == START


def test_seconds_since_1970_are_never_taken_for_dates(tmp_path):
    for start in (1_704_067_200, 1_900_000_000):
        seconds = [start + 600 * i for i in range(50)]
        assert weak_form(list(map(str, seconds))) is None
        path = stamped(tmp_path, seconds)
        assert read(path, allow_future=True).panel.start[0] == start * 1_000_000


def test_numbers_that_may_be_dates_or_seconds_are_asked_for(tmp_path):
    path = stamped(tmp_path, [f"20240113{hour:02d}" for hour in range(20)])
    error = failure(path)
    assert error.code == "time-unit"
    formats = [proposal.options[-1] for proposal in error.proposals]
    assert formats == ["%Y%m%d%H", "s"]
    assert read(path, time_format="%Y%m%d%H").panel.step_us == HOUR_US
    assert read(path, time_unit="s", allow_future=True).panel.step_us == 1_000_000


@pytest.mark.parametrize(
    "cells",
    [
        [f"2023-{i:03d}" for i in (1, 2, 3, 1, 9, 2)],  # names of assets
        ["20240101"] * 50,  # a date of installation
        [str(20_240_101 + i) for i in range(60)],  # a counter: there is no 32 January
        [str(202_401 + 7 * i) for i in range(10)],
        [f"{5 + i % 3}" for i in range(20)],
    ],
)
def test_numbers_and_names_are_dates_only_where_all_are_and_lie_in_equal_steps(cells):
    assert weak_form(cells) is None


@pytest.mark.parametrize("step_s", [300, 3600])
def test_dates_as_scripts_print_them_are_read_beyond_their_first_weekday(tmp_path, step_s):
    name = "GMT+0100 (Central European Standard Time)"
    moments = hours(3000, step_s=step_s)
    result = read(stamped(tmp_path, [f"{m:%a %b %d %Y %H:%M:%S} {name}" for m in moments]))
    assert result.panel.n_readings == 3000
    assert result.panel.step_us == step_s * 10**6


def test_an_afternoon_is_not_read_as_the_morning_that_begins_a_file(tmp_path):
    moments = hours(200, step_s=300)
    path = stamped(tmp_path, [f"{m:%p %I:%M:%S} [{m:%Y %m %d}]" for m in moments])
    result = read(path)
    assert (start_of(result), len(result.panel.target)) == (START, 200)


def test_a_date_beside_a_time_stays_a_number(tmp_path):
    rows = [f"{m};{m:%Y%m%d};{i}" for i, m in enumerate(hours())]
    result = read(write(tmp_path / "x.csv", "time;key;v", *rows))
    assert result.schema.time == "time"


@pytest.mark.parametrize("n_decimals", [4, 5, 6, 8, 10])
@pytest.mark.parametrize("step_s", [3600, 900])
def test_days_of_a_spreadsheet_are_read_to_the_second_and_said(tmp_path, n_decimals, step_s):
    days = [f"{45_304 + step_s * i / 86_400:.{n_decimals}f}" for i in range(200)]
    result = read(stamped(tmp_path, days))
    assert (start_of(result), result.panel.step_us) == (START, step_s * 1_000_000)
    assert "Excel" in result.warnings["epoch"].message
    named = stamped(tmp_path, days, "Zeit;v")
    assert start_of(read(named, time="Zeit", time_unit="excel")) == START


YEARS = {"YS": 1, "QS": 4, "MS": 12, "D": 365, "h": 8760}


@pytest.mark.parametrize("freq", YEARS)
@pytest.mark.parametrize("place", [0.0, 0.5])
@pytest.mark.parametrize("n_decimals", [3, 6, 12])
def test_years_with_decimals_are_asked_for_and_read_as_periods(tmp_path, freq, place, n_decimals):
    """They are those of the start of each period, or of its middle."""
    n_decimals = max(n_decimals, 6 if freq == "h" else 3)
    times = pd.date_range("1963-01-01", periods=1500 if freq in "Dh" else 50, freq=freq)
    middles = times + place * (times + times.freq - times)
    if freq == "h":
        middles = times
    begin = pd.to_datetime(middles.year.astype(str))
    length = pd.to_datetime((middles.year + 1).astype(str)) - begin
    years = [f"{y:.{n_decimals}f}" for y in middles.year + (middles - begin) / length]
    path = stamped(tmp_path, years, "when;v")

    if freq != "YS" or place:
        error = failure(path)
        assert error.proposals[0].options == ("--time", "when", "--time-unit", "year")
    result = read(path, time="when", time_unit="year")
    assert start_of(result) == times[0].to_pydatetime()
    assert result.panel.of(0).tolist() == list(range(len(times)))


@pytest.mark.parametrize("first", [1700, 1871, 1950])
def test_a_row_for_each_year_is_read(tmp_path, first):
    result = read(stamped(tmp_path, [str(first + i) for i in range(310)][: 2010 - first]))
    assert (start_of(result), result.panel.n_rows) == (dt.datetime(first, 1, 1), 2010 - first)


NO_YEARS = {
    "not in order": [str(1900.5 + 37 * i % 100) for i in range(100)],
    "uneven": [str(1900.5 + i * i % 190) for i in range(14)],
    "too early": [str(1600 + i) for i in range(100)],
    "before 1900": [str(1700 + i) for i in range(100)],
    "too late": [str(2050 + i) for i in range(100)],
    "few": [str(2000.5 + i) for i in range(9)],
    "long steps": [str(1700.5 + 20 * i) for i in range(20)],
}


@pytest.mark.parametrize("form", NO_YEARS)
def test_readings_of_the_size_of_years_are_no_years(tmp_path, form):
    error = failure(stamped(tmp_path, NO_YEARS[form], "year;v"))
    offered = ("--time", "year", "--time-unit", "year") in [p.options for p in error.proposals]
    assert (error.code, offered) == ("no-time-column", form == "before 1900")


def test_readings_of_the_size_of_days_are_no_days():
    rng = np.random.default_rng(0)
    assert infer_epoch_unit(list(45_000 + 100 * rng.random(100))) is None
    assert infer_epoch_unit([45_000.0] * 9) is None


@pytest.mark.parametrize(("mark", "n"), [("/", 2), (".", 2), ("-", 2)])
def test_day_and_month_are_asked_for_and_each_answer_works(tmp_path, mark, n):
    moments = hours(48, dt.datetime(2024, 2, 1))
    path = stamped(tmp_path, [m.strftime(f"%d{mark}%m{mark}%Y %H:%M") for m in moments])
    error = failure(path)
    assert (error.code, len(error.proposals)) == ("ambiguous-date", n)
    formats = [proposal.options[1] for proposal in error.proposals]
    assert start_of(read(path, time_format=formats[0])) == dt.datetime(2024, 2, 1)
    assert "1 February 2024" in error.advice and "2 January 2024" in error.advice
    assert start_of(read(path, time_format=formats[1])) == dt.datetime(2024, 1, 2)


def test_years_of_two_digits_lie_around_2000(tmp_path):
    days = [dt.datetime(1958, 3, 29) + dt.timedelta(days=7 * i) for i in range(60)]
    result = read(stamped(tmp_path, [day.strftime("%y-%m-%d") for day in days]))
    assert start_of(result) == days[0]


@pytest.mark.parametrize("place", [0, 30, 99])
def test_another_form_in_one_row_is_an_error_with_its_line(tmp_path, place):
    texts = [moment.strftime("%d-%b-%y %H:%M") for moment in hours()]
    texts[place] = "2024-01-15 07:00"
    error = failure(stamped(tmp_path, texts))
    assert (error.code, error.location.line) == ("several-formats", place + 2)


PLACES = [
    "[%Y-%m-%d %H:%M:%S]",
    "'%d.%m.%Y %H:%M'",
    "%H:%M:%S %d/%m/%Y",
    "%Y年%m月%d日 %H:%M",
    "%d.%m.%Y %H:%M Uhr",
    "%d:%m:%Y %H:%M:%S",
    "%Y%m%d:%H%M",
    "%Y%j%H%M",
    "DT#%Y-%m-%d-%H:%M:%S",
    "at %H:%M on %B %d, %Y",
    "%a %b %d %Y %H:%M:%S (local)",
    "%Y%m%d.0",
    "[%d.%m.%Y %I:%M %p]",
]
"""Stamps that no form names, with a date and a time of day in the same places."""


@pytest.mark.parametrize("form", PLACES)
@pytest.mark.parametrize("start", [START, dt.datetime(1999, 12, 20, 5)])
def test_a_date_and_a_time_between_any_marks_are_read(tmp_path, form, start):
    step_s = 86_400 if form == "%Y%m%d.0" else 3600
    start = start if step_s == 3600 else start.replace(hour=0)
    path = stamped(tmp_path, [moment.strftime(form) for moment in hours(300, start, step_s)])
    result = read(path)
    assert (start_of(result), result.panel.step_us) == (start, step_s * 1_000_000)
    assert result.panel.target.tolist() == list(range(300))


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S %z UTC",
        "%a %b %d %Y %H:%M:%S GMT%z (Central European Standard Time)",
        "<%Y-%m-%d %H:%M %z>",
        "%Y-%m-%dT%H:%M%z[Europe/Paris]",
    ],
)
def test_an_offset_between_any_marks_is_kept_over_a_change_of_the_clock(tmp_path, form):
    local = pd.date_range("2024-10-20", periods=400, freq="h", tz="Europe/Paris")
    stamps = [t.strftime(form) for t in local]
    stamps = [s.replace("Standard", "Summer") if "+0200" in s else s for s in stamps]
    result = read(stamped(tmp_path, stamps))
    assert (result.schema.tz, len(result.panel.target)) == ("UTC", 400)
    assert start_of(result) == local[0].tz_convert("UTC").tz_localize(None).to_pydatetime()


def test_a_zone_that_stamps_name_is_offered(tmp_path):
    stamps = [f"{moment:%Y-%m-%d %H:%M} Europe/Vienna" for moment in hours()]
    error = failure(path := stamped(tmp_path, stamps))
    assert (error.code, error.proposals[0].options) == ("zone-name", ("--tz", "Europe/Vienna"))
    assert start_of(read(path, tz="Europe/Vienna")) == START - dt.timedelta(hours=1)


def test_words_for_morning_and_afternoon_that_are_not_known_are_not_skipped(tmp_path):
    words = ("de", "du")
    stamps = [f"[{m:%Y-%m-%d %I:%M} {words[m.hour // 12]}]" for m in hours(60)]
    assert failure(stamped(tmp_path, stamps)).code == "no-time-column"


HALVES = [
    *(
        "%Y/%m/%d {上午,下午} %I:%M:%S",
        "%Y/%m/%d {午前,午後}%I:%M",
        "%Y. %m. %d. {오전,오후} %I:%M:%S",
    ),
    *("%d/%m/%Y %I:%M:%S {πμ,μμ}", "%d/%m/%Y %I:%M:%S {π.μ.,μ.μ.}", "%Y.%m.%d. {de.,du.} %I:%M:%S"),
    *("%Y-%m-%d %I:%M:%S {fm,em}", "%d.%m.%Y %I.%M.%S {ap.,ip.}", "%d.%m.%Y %I:%M:%S {ÖÖ,ÖS}"),
    *("%d/%m/%Y %I:%M:%S {ص,م}", "%d/%m/%Y %I:%M:%S {पूर्वाह्न,अपराह्न}", "%d/%m/%Y %I:%M:%S {SA,CH}"),
    *("%d.%m.%Y %I:%M:%S {vorm.,nachm.}", "%d.%m.%Y %I:%M:%S {e paradites,e pasdites}"),
    *("%Y-%m-%d {AM,PM} %I:%M", "%I:%M {AM,PM} %d.%m.%Y", "%b %d %Y %I:%M {fm,em}"),
]
"""Marks of the morning and the afternoon beside times of day."""


def halved(moment, form):
    marks = form[form.index("{") + 1 : form.index("}")].split(",")
    return moment.strftime(re.sub("{.*}", marks[moment.hour // 12], form))


@pytest.mark.parametrize("form", HALVES)
@pytest.mark.parametrize(("hour", "step_s", "n"), [(0, 3600, 60), (13, 60, 600), (1, 60, 600)])
def test_halves_of_the_day_are_read_in_many_languages(tmp_path, form, hour, step_s, n):
    moments = hours(n, START.replace(hour=hour), step_s)
    result = read(stamped(tmp_path, [halved(moment, form) for moment in moments]))
    assert (start_of(result), result.panel.step_us) == (moments[0], step_s * 1_000_000)
    assert result.panel.target.tolist() == list(range(n))


@pytest.mark.parametrize(
    "form", ["%d.%m.%Y %I:%M Xy", "%Y/%m/%d 晚上 %I:%M", "%I:%M (xy) %Y-%m-%d"]
)
def test_an_unknown_text_beside_hours_to_12_is_asked_about_and_the_answer_works(tmp_path, form):
    moments = hours(300, START.replace(hour=5), 60)
    error = failure(path := stamped(tmp_path, [moment.strftime(form) for moment in moments]))
    assert (error.code, len(error.proposals)) == ("half-of-day", 1)
    assert error.proposals[0].condition.endswith("is 13 January 2024 at 05:00")
    assert start_of(read(path, time_format=error.proposals[0].options[1])) == moments[0]


@pytest.mark.parametrize(
    ("form", "hour"),
    [
        *(("%d.%m.%Y %H:%M Xy", 9), ("%d.%m.%Y %H:%M Uhr", 5), ("%d.%m.%Y klo %H.%M", 5)),
        *(("%Y年%m月%d日 %H时%M分", 5), ("%d.%m.%Y г., %H:%M:%S", 5), ("[%Y-%m-%d %H:%M] CET", 5)),
        ("%a %b %d %Y %H:%M:%S GMT+0200 (local)", 5),
    ],
)
def test_a_text_that_says_nothing_of_the_half_of_the_day_is_skipped(tmp_path, form, hour):
    moments = hours(300, START.replace(hour=hour), 60)
    read(stamped(tmp_path, [moment.strftime(form) for moment in moments]))


def test_weekdays_beside_a_time_of_day_are_skipped(tmp_path):
    moments = hours(60, START.replace(hour=6), 86_400)
    result = read(stamped(tmp_path, [moment.strftime("<%Y-%m-%d %a %H:%M>") for moment in moments]))
    assert start_of(result) == moments[0]


def test_day_and_month_between_any_marks_are_asked_for(tmp_path):
    stamps = [
        f"[{moment:%d/%m/%Y} {moment:%H:%M}]" for moment in hours(12 * 24, dt.datetime(2024, 2, 1))
    ]
    error = failure(path := stamped(tmp_path, stamps))
    assert (error.code, len(error.proposals)) == ("ambiguous-date", 2)
    starts = {start_of(read(path, time_format=p.options[1])) for p in error.proposals}
    assert starts == {dt.datetime(2024, 2, 1), dt.datetime(2024, 1, 2)}


@pytest.mark.parametrize(
    "text",
    [
        *("192.168.{i}.7", "1.{i}.2024", "v2.0.{i}", "{i:02d}-4711-2024", "P{i}/2024/7/3"),
        *("{i:04d}-12-03 bis", "AB{i:05d}2024", "rev {i} of 12/2023", "{i}:30:00", "Q{i}"),
    ],
)
def test_other_texts_with_numbers_are_no_times(text):
    texts = [text.format(i=i) for i in range(1, 60)]
    assert weak_form(texts) is None


@pytest.mark.parametrize("form", ["%y%m%d", "%Y%m%d", "%Y%m%d%H"])
def test_an_option_for_dates_as_digits_finds_their_column(tmp_path, form):
    moments = hours(60, step_s=86_400)
    path = stamped(tmp_path, [moment.strftime(form) for moment in moments], header="day;v")
    assert start_of(read(path, time_format=form)) == START


@pytest.mark.parametrize("form", ["{t.year}M{t.month:02d}", "Q{t.quarter} {t.year}"])
def test_months_and_quarters_as_offices_of_statistics_write_them(tmp_path, form):
    times = pd.date_range("2012-01-01", periods=40, freq="QS" if "quarter" in form else "MS")
    result = read(stamped(tmp_path, [form.format(t=t) for t in times]))
    assert (start_of(result), len(result.panel.target)) == (dt.datetime(2012, 1, 1), 40)


@pytest.mark.parametrize(
    ("form", "freq"),
    [
        *(("{y}-M{m:02d}", "MS"), ("{y}M{m}", "MS"), ("{y}m{m}", "MS"), ("{b}{y}", "MS")),
        *(("{y}q{q}", "QS"), ("{q}Q{y}", "QS"), ("{y}-S{h}", "6MS"), ("{y}h{h}", "6MS")),
    ],
)
def test_periods_as_programs_of_statistics_write_them(tmp_path, form, freq):
    times = pd.date_range("1962-01-01", periods=60, freq=freq)
    stamps = [
        form.format(y=t.year, m=t.month, q=t.quarter, h=1 + t.month // 7, b=f"{t:%b}".upper())
        for t in times
    ]
    result = read(stamped(tmp_path, stamps))
    assert (start_of(result), len(result.panel.target)) == (dt.datetime(1962, 1, 1), 60)


def test_weeks_without_a_second_digit_are_not_read():
    assert weak_form([f"{1990 + i // 52}w{1 + i % 52}" for i in range(300)]) is None


@pytest.mark.parametrize("n", [40, 300])
def test_months_as_decimals_without_a_last_zero_are_read(tmp_path, n):
    times = pd.date_range("1990-01-01", periods=n, freq="MS")
    result = read(stamped(tmp_path, [float(f"{t:%Y.%m}") for t in times]))
    assert (start_of(result), len(result.panel.target)) == (dt.datetime(1990, 1, 1), n)


@pytest.mark.parametrize("step", [0.05, 0.1, 1.0])
def test_other_decimals_of_years_are_no_months(step):
    assert weak_form([f"{1990.1 + step * i:g}" for i in range(60)]) is None


@pytest.mark.parametrize("start", [START, dt.datetime(2012, 5, 16), dt.datetime(2019, 12, 30)])
@pytest.mark.parametrize("step_s", [60, 900, 3600])
def test_ten_digits_to_the_minute_are_dates(tmp_path, start, step_s):
    stamps = [moment.strftime("%y%m%d%H%M") for moment in hours(300, start, step_s)]
    result = read(stamped(tmp_path, stamps))
    assert (start_of(result), result.panel.step_us) == (start, step_s * 1_000_000)


@pytest.mark.parametrize(
    ("step_s", "n"), [(100, 60), (300, 8), (300, 60), (3600, 60), (86_400, 60)]
)
def test_ten_digits_that_count_seconds_are_no_dates(step_s, n):
    assert weak_form([str(1_205_160_000 + step_s * i) for i in range(n)]) is None


@pytest.mark.parametrize("step_s", [60, 300, 3600, 86_400])
def test_ticks_are_told_from_nanoseconds_by_their_steps(tmp_path, step_s):
    moments = hours(200, START, step_s)
    ticks = [
        (moment - dt.datetime(1, 1, 1)) // dt.timedelta(seconds=1) * 10**7 for moment in moments
    ]
    result = read(stamped(tmp_path, ticks))
    assert (start_of(result), result.panel.step_us) == (START, step_s * 1_000_000)
    assert ".NET" in result.warnings["epoch"].message
    start = dt.datetime(1990, 3, 1)
    seconds = [
        (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(seconds=1)
        for moment in hours(99, start, step_s)
    ]
    assert start_of(read(stamped(tmp_path, [10**9 * second for second in seconds]))) == start


@pytest.mark.parametrize(("end", "zone"), [(" UTC+2", "+02:00"), (" GMT-5", "-05:00")])
def test_an_offset_of_one_digit_is_read(tmp_path, end, zone):
    assert read(stamped(tmp_path, [f"{moment}{end}" for moment in hours()])).schema.tz == zone


def test_hours_of_24_beside_am_and_pm_are_read_but_not_in_the_morning(tmp_path):
    stamps = [f"2024-05-13 {h:02d}:00 {'PM' if h > 11 else 'AM'}" for h in range(24)]
    panel = read(write(tmp_path / "x.csv", "time,v", *(f"{t},1{i}" for i, t in enumerate(stamps))))
    assert (panel.panel.lengths[0], panel.panel.step_us) == (24, HOUR_US)
    stamps[20] = "2024-05-13 20:00 AM"
    path = write(tmp_path / "y.csv", "time,v", *(f"{t},1{i}" for i, t in enumerate(stamps)))
    assert failure(path).code == "not-a-time"


def test_noon_and_midnight_are_halves_of_the_day(tmp_path):
    marks = ["midnight", *["am"] * 11, "noon", *["pm"] * 11]
    rows = [f"2024-05-13 {h % 12 or 12} {mark},1{h}" for h, mark in enumerate(marks)]
    panel = read(write(tmp_path / "x.csv", "time,v", *rows)).panel
    assert (panel.lengths[0], panel.of(0)[[0, 12]].tolist()) == (24, [10, 112])
