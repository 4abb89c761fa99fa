"""`plot` and `predict --plot`: what is drawn, where it is written, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

from tests.builders import wave, write_wide
from tests.conftest import SMALL, Command


@pytest.fixture
def forecast(command: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The trained model with a forecast from before the last day, in the working directory."""
    monkeypatch.chdir(workplace)
    assert command("predict", "-q", "--as-of", "2024-01-16T12:00", "-o", "forecast.csv").code == 0
    return workplace


def plotted(command: Command, *arguments: object) -> dict:
    outcome = command("plot", "--json", *arguments)
    assert outcome.code == 0
    return {one["series"]: one for one in outcome.document["series"]}


@pytest.mark.usefixtures("forecast")
def test_readings_before_the_forecast_and_those_since_stand_beside_it(command: Command) -> None:
    found = plotted(command, "--data", "data.csv", "--history", "30")

    assert found["flow"] == {"series": "flow", "readings": 30, "steps": 6, "actuals": 6}
    assert list(found) == ["flow", "level"]


def test_a_forecast_alone_is_drawn_without_any_model(command: Command, forecast: Path) -> None:
    (forecast / "model").rename(forecast / "elsewhere")
    outcome = command("plot")

    assert outcome.code == 0
    assert "flow: readings, then forecast" in outcome.out
    assert plotted(command)["flow"]["readings"] == 0


@pytest.mark.usefixtures("forecast")
def test_lines_are_no_wider_than_the_screen(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in ("40", "60", "132"):
        monkeypatch.setenv("COLUMNS", width)
        outcome = command("plot", "--data", "data.csv")
        assert max(map(len, outcome.out.splitlines())) <= int(width)
        assert "\x1b" not in outcome.out


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_pictures_are_what_their_name_says(command: Command, forecast: Path, ending: str) -> None:
    outcome = command("plot", "--data", "data.csv", "--output", f"picture.{ending}")

    assert outcome.out == f"written: picture.{ending} (2 series)\n"
    content = (forecast / f"picture.{ending}").read_bytes()
    if ending == "png":
        assert content.startswith(b"\x89PNG")
    elif ending == "svg":
        assert b"level" in content
        ET.fromstring(content)
    else:
        assert content.count(b"<svg") == 2


@pytest.mark.usefixtures("forecast")
def test_series_are_chosen_by_name(command: Command) -> None:
    assert list(plotted(command, "--series", "level")) == ["level"]

    outcome = command("plot", "--series", "levle")
    assert outcome.code == 2
    assert "did you mean 'level'?" in outcome.err


@pytest.mark.usefixtures("forecast")
def test_formats_of_predict_are_read_again(command: Command) -> None:
    expected = plotted(command)
    for name in ("forecast.parquet", "forecast.jsonl"):
        command("predict", "-q", "--as-of", "2024-01-16T12:00", "-o", name)
        assert plotted(command, "--forecast", name) == expected


@pytest.mark.usefixtures("forecast")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--forecast", "nix.csv"], 4, "forecast file nix.csv does not exist"),
        (["--forecast", "data.csv"], 4, "column 'series' is missing"),
        (["--output", "picture.jpg"], 2, "use a name that ends in one of .png, .svg, .html"),
        (["--output", "forecast.png", "--forecast", "forecast.txt"], 2, "cannot tell the format"),
        (["--data", "nix.csv"], 4, "nix.csv"),
        (["--data", "data.csv", "--history", "0"], 2, "--history"),
        (["--model", "nix", "--data", "data.csv"], 6, "nix"),
        (["--data", "other.csv", "--model", "model"], 4, "has no column 'flow'"),
        (["--data", "aware.csv"], 4, "zone"),
    ],
)
def test_mistakes_are_named(command: Command, arguments: list[str], code: int, said: str) -> None:
    table = pd.read_csv("data.csv")
    table.rename(columns={"flow": "a", "level": "b"}).to_csv("other.csv", index=False)
    table.assign(timestamp=table.timestamp + "+01:00").to_csv("aware.csv", index=False)

    outcome = command("plot", *arguments)

    assert outcome.code == code
    assert said in outcome.err


@pytest.mark.usefixtures("forecast")
def test_a_picture_never_overwrites_what_it_shows(command: Command) -> None:
    Path("data.html").write_bytes(Path("data.csv").read_bytes())
    outcome = command("plot", "--data", "data.html", "-o", "data.html")
    assert outcome.code == 2


@pytest.mark.usefixtures("forecast")
def test_other_readings_than_the_forecasts_are_refused(command: Command) -> None:
    table = pd.read_csv("forecast.csv")
    table.assign(series="x" + table.series).to_csv("strange.csv", index=False)
    outcome = command("plot", "--forecast", "strange.csv", "--data", "data.csv")
    assert outcome.code == 4
    assert "series 'xflow' of the forecast is not in the data" in outcome.err


@pytest.mark.usefixtures("forecast")
def test_predict_shows_its_forecast_with_the_readings_before(command: Command) -> None:
    outcome = command("predict", "--plot")
    assert outcome.code == 0
    assert "flow: readings, then forecast, 80 % band" in outcome.out
    assert "forecast from 2024-01-17 16:00:00" in outcome.out
    for other in (["--json"], ["-o", "-"]):
        assert command("predict", "--plot", *other).code == 2


def test_the_terminal_needs_neither_torch_nor_matplotlib(forecast: Path) -> None:
    program = (
        "import sys\nfrom rnnforecast.cli.main import run\n"
        "code = run(['plot', '--data', 'data.csv'])\n"
        "print(code, [m for m in ('torch', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=forecast
    )
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.usefixtures("forecast")
def test_limits_stand_in_the_file_the_summary_and_the_document(command: Command) -> None:
    limits = ["--bounds", "flow=18:", "--exceed", "flow=21"]
    shown = command("predict", *limits)
    rows = pd.read_csv("forecast.csv")

    flow, level = (rows[rows.series == name] for name in ("flow", "level"))
    assert flow[["forecast", "q10", "q90"]].min().min() >= 18
    assert flow.p_exceed.between(0, 1).all()
    assert level.p_exceed.isna().all()
    document = command("predict", "--json", *limits).document
    (one,) = document["exceed"]
    assert one["highest"] == pytest.approx(flow.p_exceed.max(), abs=1e-6)
    assert f"highest {100 * one['highest']:.0f} % at {one['at']}" in shown.out
    likely = flow[flow.p_exceed > 0.5]
    assert one["first"] == (None if likely.empty else likely.timestamp.iloc[0])


@pytest.mark.usefixtures("forecast")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--bounds", "flow"],
        ["--bounds", "flow=5"],
        ["--bounds", "flow=5:4"],
        ["--bounds", "flwo=0:"],
        ["--exceed", "flow=abc"],
        ["--exceed", "flow=nan"],
        ["--exceed", "90"],
        ["--exceed", "flwo=90"],
    ],
)
def test_limits_that_cannot_be_meant_are_usage_errors(
    command: Command, arguments: list[str]
) -> None:
    before = Path("forecast.csv").read_bytes()
    assert command("predict", *arguments).code == 2
    assert Path("forecast.csv").read_bytes() == before


@pytest.mark.usefixtures("forecast")
def test_anomalies_are_listed_in_the_file_and_in_short(command: Command) -> None:
    table = pd.read_csv("data.csv")
    table.loc[390, "flow"] += 60
    table.to_csv("new.csv", index=False)

    shown = command("anomalies", "new.csv", "-o", "rows.csv")
    rows = pd.read_csv("rows.csv")

    assert shown.code == 0
    assert "written: rows.csv" in shown.out
    assert "was trained on data until 2024-01-17 15:00:00" in shown.err
    assert rows.columns.tolist() == ["series", "timestamp", "actual", "q10", "q90", "surprise"]
    most = rows.loc[rows.surprise.idxmax()]
    assert (most.series, most.timestamp) == ("flow", table.timestamp[390])
    document = command("anomalies", "new.csv", "--json", "--since", "2024-01-17").document
    assert document["judged"] == 2 * 16
    assert document["episodes"][0]["series"] == "flow"
    streamed = command("anomalies", "new.csv", "-o", "-")
    assert streamed.out == Path("rows.csv").read_text()


@pytest.mark.usefixtures("forecast")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nix.csv"], 4),
        (["data.csv", "-m", "nix"], 6),
        (["data.csv", "--stride", "7"], 2),
        (["data.csv", "--at-least", "-1"], 2),
        (["data.csv", "--since", "2030-01-01"], 5),
        (["data.csv", "-o", "rows.txt"], 2),
        (["data.csv", "-o", "data.csv"], 2),
        (["data.csv", "--json", "-o", "-"], 2),
    ],
)
def test_a_search_that_cannot_be_is_refused(
    command: Command, arguments: list[str], code: int
) -> None:
    assert command("anomalies", *arguments).code == code


@pytest.mark.usefixtures("forecast")
def test_a_version_holds_a_report_and_a_backtest_writes_one(command: Command) -> None:
    version = Path("model/CURRENT").read_text().strip()
    page = (Path("model/versions") / version / "report.html").read_text()
    assert "Forecasts of flow, level" in page
    assert "Forecasts of held-out data" in page

    outcome = command("backtest", "data.csv", "--report", "page.html", *SMALL)
    assert "written: page.html" in outcome.out
    assert Path("page.html").read_text().count("<svg") == 5
    assert command("backtest", "data.csv", "--report", "page.txt", *SMALL).code == 2
    assert command("backtest", "data.csv", "--report", "data.csv", *SMALL).code == 2


@pytest.mark.usefixtures("forecast")
def test_a_version_can_do_without_a_report(command: Command) -> None:
    assert command("train", "data.csv", "-m", "bare", "--no-report", "-q", *SMALL).code == 0
    version = Path("bare/CURRENT").read_text().strip()
    assert not (Path("bare/versions") / version / "report.html").exists()


def test_names_like_formulas_are_said_and_can_be_made_text(command: Command) -> None:
    readings = wave(400)
    readings[350] += 60
    write_wide(Path("data.csv"), **{"=cmd()": readings, "flow": wave(400, seed=2)})
    assert command("train", "data.csv", "-q", *SMALL).code == 0
    line = ["anomalies", "data.csv", "-q", "-o", "a.csv"]

    assert "--excel-safe" in command(*line).err
    assert "=cmd()" in set(pd.read_csv("a.csv")["series"])
    assert "formula" not in command(*line, "--excel-safe").err
    assert "'=cmd()" in set(pd.read_csv("a.csv")["series"])
