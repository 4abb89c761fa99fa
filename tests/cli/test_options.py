"""From configuration to the command line: one option a field, and where its value comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from rnnforecast.cli.app import CommonOptions, Explicit, with_options
from rnnforecast.cli.main import app
from rnnforecast.config.fields import option, option_fields
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import NetworkConfig, PredictConfig, TrainConfig, WindowConfig
from rnnforecast.errors import UsageError
from tests.conftest import Command


@dataclass(frozen=True)
class Colours:
    """One field of each kind."""

    horizon: str = option("auto", "How far.", "-H")
    batch_size: int = option(256, "How many.")
    rate: float = option(0.5, "How fast.")
    paint: str | None = option(None, "Which.", choices=("red", "green"))
    levels: tuple[float, ...] = option((0.1, 0.9), "Where.", listed=True)
    methods: tuple[str, ...] = option((), "By what.", listed=True)
    target: tuple[str, ...] = option((), "Of what; repeatable.")
    is_loud: bool = option(False, "Whether to shout.")

    def __post_init__(self) -> None:
        if self.batch_size > 1000:
            raise UsageError("--batch-size is over 1000")


Parse = Callable[..., Colours]


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parse:
    """Run a small command in an empty folder, and return the group that it was called with."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(context_settings={"auto_envvar_prefix": "RNNFORECAST"})
    seen: dict[str, Any] = {}

    @app.command()
    @with_options
    def paint(
        context: typer.Context,
        name: str = "",
        *,
        colours: Colours,
        common: CommonOptions,
        explicit: Explicit,
        model: Annotated[Path, typer.Option("--model", "-m")] = Path("model"),
    ) -> None:
        assert context.params
        seen.update(name=name, colours=colours, common=common, explicit=explicit, model=model)

    @app.command()
    @with_options
    def other(*, common: CommonOptions) -> None:
        seen.update(common=common)

    def call(*arguments: str, key: str = "colours") -> Any:
        seen.clear()
        typer.main.get_command(app).main(
            ["paint", *arguments], "rnnforecast", standalone_mode=False
        )
        return seen[key]

    return call


def write_toml(text: str, name: str = "rnnforecast.toml") -> None:
    Path(name).write_text(text, encoding="utf-8")


# One option a field


def test_without_anything_given_the_defaults_of_the_fields_hold(parse: Parse) -> None:
    assert parse() == Colours()
    assert parse(key="common") == CommonOptions()


def test_each_field_is_an_option_with_hyphens(parse: Parse) -> None:
    found = parse(
        *("--horizon", "24h", "--batch-size", "8", "--rate", "2", "--paint", "red", "--is-loud"),
        *("--levels", "0.2,0.8", "--methods", "a,b", "--target", "flow"),
    )

    assert found == Colours("24h", 8, 2.0, "red", (0.2, 0.8), ("a", "b"), ("flow",), True)


def test_a_short_name_is_the_same_option(parse: Parse) -> None:
    assert parse("-H", "5") == parse("--horizon", "5") == Colours(horizon="5")


def test_what_is_no_group_is_passed_on(parse: Parse) -> None:
    assert parse("-m", "elsewhere", key="model") == Path("elsewhere")
    assert parse("--horizon", "5", key="model") == Path("model")


def test_what_a_group_refuses_is_refused(parse: Parse) -> None:
    with pytest.raises(UsageError, match="over 1000"):
        parse("--batch-size", "1001")


@pytest.mark.parametrize(
    "arguments", [("--batch-size", "many"), ("--rate", "x"), ("--colour", "1")]
)
def test_what_no_option_can_be_is_a_usage_error(parse: Parse, arguments: tuple[str, str]) -> None:
    with pytest.raises(typer.TyperException) as caught:
        parse(*arguments)

    assert arguments[0] in caught.value.format_message()


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("0.5", (0.5,)),
        ("0.1,0.5,0.9", (0.1, 0.5, 0.9)),
        (" 0.1 , 0.5 ", (0.1, 0.5)),
        ("0.1,", (0.1,)),
        (".1,1e-2", (0.1, 0.01)),
        ("", ()),
    ],
)
def test_a_list_option_takes_one_text_with_commas(
    parse: Parse, text: str, levels: tuple[float, ...]
) -> None:
    assert parse("--levels", text).levels == levels


def test_a_list_of_numbers_refuses_what_is_none(parse: Parse) -> None:
    with pytest.raises(
        UsageError, match=r"--levels takes comma-separated numbers, not '0\.1;0\.9'"
    ):
        parse("--levels", "0.1;0.9")


def test_a_list_option_that_is_given_twice_takes_the_last(parse: Parse) -> None:
    assert parse("--methods", "a,b", "--methods", "c").methods == ("c",)


def test_a_repeatable_option_collects_and_keeps_commas(parse: Parse) -> None:
    assert parse("--target", "a,b", "--target", "c d").target == ("a,b", "c d")


# Where a value comes from

SOURCES = [
    ("batch_size", ["--batch-size", "1"], "2", "3", (1, 2, 3, 256)),
    ("horizon", ["-H", "1h"], "2h", '"3h"', ("1h", "2h", "3h", "auto")),
    ("horizon", ["-H", "1"], "2", "3", ("1", "2", "3", "auto")),
    ("rate", ["--rate", "1"], "2", "3", (1.0, 2.0, 3.0, 0.5)),
    ("paint", ["--paint", "red"], "green", '"blue"', ("red", "green", "blue", None)),
    ("levels", ["--levels", "0.1"], "0.2", "[0.3, 0.4]", ((0.1,), (0.2,), (0.3, 0.4), (0.1, 0.9))),
    ("levels", ["--levels", "1"], "2,3", '"4,5"', ((1.0,), (2.0, 3.0), (4.0, 5.0), (0.1, 0.9))),
    ("levels", ["--levels", "0.1"], "0.2", "0.3", ((0.1,), (0.2,), (0.3,), (0.1, 0.9))),
    ("methods", ["--methods", "a"], "b,c", '["d", "e"]', (("a",), ("b", "c"), ("d", "e"), ())),
    ("target", ["--target", "a"], "b", '["c", "d e"]', (("a",), ("b",), ("c", "d e"), ())),
    ("target", ["--target", "a"], "b", '"flow"', (("a",), ("b",), ("flow",), ())),
]  # fmt: skip


@pytest.mark.parametrize(("field", "arguments", "environment", "toml", "expected"), SOURCES)
def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(
    parse: Parse,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    arguments: list[str],
    environment: str,
    toml: str,
    expected: tuple,
) -> None:
    def found(*given: str) -> object:
        return getattr(parse(*given), field)

    variable = f"RNNFORECAST_PAINT_{field.upper()}"
    from_line, from_environment, from_file, default = expected
    assert found() == default
    write_toml(f"[paint]\n{field} = {toml}\n")
    assert found() == from_file
    monkeypatch.setenv(variable, environment)
    assert found() == from_environment
    assert found(*arguments) == from_line
    monkeypatch.delenv(variable)
    assert found(*arguments) == from_line


def test_what_is_given_is_told_from_what_is_left_to_the_default(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parse(key="explicit") == frozenset()

    write_toml("[paint]\nlevels = [0.1, 0.9]\n")
    monkeypatch.setenv("RNNFORECAST_PAINT_IS_LOUD", "0")

    assert parse("--batch-size", "256", "-H", "auto") == Colours()
    found = parse("--batch-size", "256", "-H", "auto", key="explicit")
    assert found == {"batch_size", "horizon", "levels", "is_loud"}


def test_a_flag_can_stand_in_the_file_and_in_the_environment(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toml("[paint]\nis-loud = true\nquiet = true\n")
    assert parse().is_loud
    assert parse(key="common").quiet

    monkeypatch.setenv("RNNFORECAST_PAINT_IS_LOUD", "0")
    assert not parse().is_loud


def test_the_environment_of_another_command_says_nothing(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNFORECAST_OTHER_HORIZON", "1")
    monkeypatch.setenv("RNNFORECAST_HORIZON", "1")

    assert parse() == Colours()


@pytest.mark.parametrize("value", ["1", "0.1.0"])
def test_a_variable_that_happens_to_name_a_version_changes_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("RNNFORECAST_VERSION", value)

    assert "no model found" in command("show").err


def test_keys_of_a_file_are_written_with_hyphens_or_underscores(parse: Parse) -> None:
    write_toml("[paint]\nbatch-size = 3\n")
    assert parse().batch_size == 3

    write_toml("[paint]\nbatch_size = 4\n")
    assert parse().batch_size == 4


def test_a_file_that_is_named_stands_in_for_the_one_in_the_folder(parse: Parse) -> None:
    write_toml("[paint]\nbatch_size = 3\nrate = 9.0\n")
    write_toml("[paint]\nbatch_size = 4\n", "mine.toml")

    assert parse("--config", "mine.toml") == Colours(batch_size=4)
    assert parse("--config", "mine.toml", "--batch-size", "5").batch_size == 5
    assert parse("--batch-size", "5", "--config", "mine.toml").batch_size == 5


def test_a_file_is_named_by_the_environment_too(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toml("[paint]\nbatch_size = 4\n", "mine.toml")
    monkeypatch.setenv("RNNFORECAST_PAINT_CONFIG", "mine.toml")

    assert parse().batch_size == 4


def test_a_file_without_a_table_for_the_command_changes_nothing(parse: Parse) -> None:
    write_toml("[other]\nquiet = true\n")

    assert parse() == Colours()
    assert not parse(key="common").quiet


def test_a_value_of_a_file_is_checked_like_one_of_the_command_line(parse: Parse) -> None:
    write_toml("[paint]\nbatch_size = 1001\n")
    with pytest.raises(UsageError, match="over 1000"):
        parse()

    write_toml('[paint]\nbatch_size = "many"\n')
    with pytest.raises(typer.TyperException) as caught:
        parse()
    assert "--batch-size" in caught.value.format_message()


@pytest.mark.parametrize(
    ("toml", "unknown", "nearest"),
    [
        ("[paint]\nhorizn = 5\n", "horizn", "horizon"),
        ("[paint]\nbatch-sise = 5\n", "batch_sise", "batch_size"),
        ("[paint]\nModel = 'x'\n", "Model", "model"),
        ("[pant]\nhorizon = 5\n", "pant", "paint"),
        ("paintt = 5\n", "paintt", "paint"),
    ],
)
def test_an_unknown_key_or_table_names_the_nearest_known_one(
    parse: Parse, toml: str, unknown: str, nearest: str
) -> None:
    write_toml(toml)

    with pytest.raises(UsageError) as caught:
        parse()

    assert repr(unknown) in caught.value.message
    assert "rnnforecast.toml" in caught.value.message
    assert caught.value.hint == f"did you mean {nearest!r}?"


def test_an_unknown_key_like_no_other_lists_those_that_are_known(parse: Parse) -> None:
    write_toml("[paint]\nzzz = 5\n")

    with pytest.raises(UsageError) as caught:
        parse()

    assert "batch_size, " in caught.value.hint
    assert "config" not in caught.value.hint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[paint\n", "cannot read"),
        (b"[paint]\na = 1\na = 2\n", "cannot read"),
        (b"[paint]\nhorizon = '\xff'\n", "cannot read"),
        (b"paint = 3\n", "must be a table"),
        (b"[[paint]]\nhorizon = 3\n", "must be a table"),
        (b"[paint]\nconfig = 'x.toml'\n", "unknown key"),
    ],
)
def test_a_file_that_cannot_be_meant_is_a_usage_error_that_names_it(
    parse: Parse, content: bytes, said: str
) -> None:
    Path("rnnforecast.toml").write_bytes(content)

    with pytest.raises(UsageError, match=said) as caught:
        parse()

    assert "rnnforecast.toml" in caught.value.message


def test_a_file_that_is_named_must_be_there(parse: Parse) -> None:
    with pytest.raises(UsageError, match=r"cannot read missing\.toml"):
        parse("--config", "missing.toml")


def test_a_folder_that_one_may_not_look_into_has_no_file(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    parse()


# The commands themselves

GROUPS = {
    "train": (DataConfig, WindowConfig, NetworkConfig, TrainConfig, CommonOptions),
    "predict": (DataConfig, PredictConfig, CommonOptions),
    "show": (CommonOptions,),
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_command_has_every_option_of_its_groups_with_help_and_default(name: str) -> None:
    known = {p.name: p for p in typer.main.get_command(app).commands[name].params}  # type: ignore[attr-defined]

    for item in (item for group in GROUPS[name] for item in option_fields(group)):
        found = known[item.name]
        assert f"--{item.name.replace('_', '-')}" in found.opts
        assert set(item.metadata["names"]) <= set(found.opts)
        assert found.help.startswith(item.metadata["help"])
        listed = ",".join(map(str, item.default)) if item.metadata["listed"] else None
        expected = list(item.default) if isinstance(item.default, tuple) else item.default
        assert found.default == (expected if listed is None else listed)


@pytest.mark.parametrize(
    ("toml", "code"),
    [
        ("[show]\nmodel = 'elsewhere'\n", 6),
        ("[train]\nhidden = 8\n", 6),
        ("[show]\nmodle = 'x'\n", 2),
        ("[show]\nversions = 'perhaps'\n", 2),
        ("show = 1\n", 2),
        ("[show\n", 2),
        ("[trian]\n", 2),
    ],
)
def test_a_bad_file_is_exit_2_whatever_it_holds(command: Command, toml: str, code: int) -> None:
    write_toml(toml)

    outcome = command("show", "--json")

    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.error["exit"] == code
    assert "elsewhere" in outcome.err or "elsewhere" not in toml


def test_help_is_shown_beside_a_broken_file(command: Command) -> None:
    write_toml("[show\n")

    assert command("show", "--help").code == 0


def test_every_option_can_come_from_the_environment_and_help_names_the_variable(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNFORECAST_SHOW_MODEL", "from the environment")

    assert "from the environment" in command("show").err
    assert "RNNFORECAST_TRAIN_BATCH_SIZE" in command("train", "--help-all").out
