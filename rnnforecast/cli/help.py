"""The pages of `--help` and `--help-all`: options under headings, examples, commands in groups.

Separate from the application: it defines the layout and the examples of each command's page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

COMMON = "Common options"
GENERAL = "General"
_HEADINGS = (
    *("Model", "Data", "Reading text", "Cleaning", "Covariates", "Network", "Training"),
    *("Forecast", "Evaluation", "Anomalies", "Plot", "Run", "Catch-up", "Scoring"),
    *("Several processes", "Output", GENERAL),
)
"""Headings of options, in the order of the page."""
_NAME_WIDTH = 28
"""Columns for the names of options; a longer one stands on a line of its own."""
_IS_WHOLE = "rnnforecast.is_whole"
"""The key, in the context, of whether the page lists rare options and environment variables."""
_WITHOUT_VARIABLE = ("help", "help_all", "install_completion", "show_completion")
_FOOTER = "Run 'rnnforecast COMMAND --help' for the options and examples of a command."


@dataclass(frozen=True)
class Page:
    """What the help of a command names first and last."""

    section: str
    """The heading of the command in the list of commands."""
    common: tuple[str, ...]
    """The parameters that most users need, in this order."""
    examples: tuple[str, str, str]
    hides_rare: bool = True
    """Whether options that few users need are left to `--help-all`."""


PAGES = {
    "check": Page(
        "Forecast",
        ("time", "series", "target", "freq", "tz", "model"),
        (
            "rnnforecast check readings.csv",
            "rnnforecast check plant.csv --target flow --freq 5min --agg mean",
            "rnnforecast check new.csv --model model --json",
        ),
        hides_rare=False,  # whatever a file needs, check is where it is looked up
    ),
    "train": Page(
        "Forecast",
        (
            *("horizon", "target", "series", "time", "known", "freq", "tz"),
            *("model", "max_time", "require_skill", "lookback"),
        ),
        (
            "rnnforecast train readings.csv",
            "rnnforecast train plant.csv --target flow --known setpoint --horizon 24h",
            "rnnforecast train 'meters/*.parquet' --series site,sensor --max-time 2m",
        ),
    ),
    "predict": Page(
        "Forecast",
        (
            *("model", "output", "horizon", "quantiles", "as_of", "future", "fallback"),
            *("max_age", "plot", "version"),
        ),
        (
            "rnnforecast predict",
            "rnnforecast predict new.csv --output forecast.parquet --quantiles 0.05,0.95",
            "rnnforecast predict readings.csv --model builtin --horizon 24h --plot",
        ),
    ),
    "backtest": Page(
        "Forecast",
        (
            *("horizon", "target", "series", "train_end", "validation_end", "windows"),
            *("stride", "refit", "model", "version", "output", "report"),
        ),
        (
            "rnnforecast backtest readings.csv --horizon 24h",
            "rnnforecast backtest readings.csv --validation-end 2024-06-01 --refit 7",
            "rnnforecast backtest newer.csv --model model --output forecasts.csv",
        ),
    ),
    "show": Page(
        "Inspect",
        ("model", "version", "versions"),
        (
            "rnnforecast show",
            "rnnforecast show --versions",
            "rnnforecast show --model pumps --json",
        ),
    ),
    "plot": Page(
        "Inspect",
        ("forecast", "data", "series", "history", "output", "model"),
        (
            "rnnforecast plot",
            "rnnforecast plot --data readings.csv --series flow",
            "rnnforecast plot --forecast forecast.csv --output forecast.png",
        ),
    ),
    "anomalies": Page(
        "Inspect",
        ("model", "at_least", "since", "output", "version"),
        (
            "rnnforecast anomalies readings.csv",
            "rnnforecast anomalies readings.csv --since 2024-05-01 --at-least 6",
            "rnnforecast anomalies readings.csv --model builtin --output anomalies.csv",
        ),
    ),
    "memory": Page(
        "Inspect",
        ("model", "version", "units"),
        (
            "rnnforecast memory",
            "rnnforecast memory newer.csv --units",
            "rnnforecast memory --model pumps --json",
        ),
    ),
    "init": Page(
        "Operate",
        ("output", "time", "series", "target"),
        (
            "rnnforecast init readings.csv",
            "rnnforecast init plant.csv --target flow --output jobs/flow.toml",
            "rnnforecast init",
        ),
    ),
    "run": Page(
        "Operate",
        ("as_of", "dry_run", "force", "lock_wait", "max_time", "fail_on"),
        (
            "rnnforecast run job.toml",
            "rnnforecast run job.toml --dry-run",
            "rnnforecast run job.toml --from 2024-05-01 --to 2024-05-07 --every 1d",
        ),
    ),
    "score": Page(
        "Operate",
        ("ledger", "data", "model", "job", "since", "by"),
        (
            "rnnforecast score",
            "rnnforecast score --job job.toml --since 30d",
            "rnnforecast score --ledger ledger --data readings.csv --by series,day",
        ),
    ),
    "status": Page(
        "Operate",
        (),
        (
            "rnnforecast status job.toml",
            "rnnforecast status job.toml --json",
            "rnnforecast status job.toml --quiet || echo 'the forecast needs attention'",
        ),
    ),
    "use": Page(
        "Operate",
        ("model",),
        (
            "rnnforecast use previous",
            "rnnforecast use latest --model pumps",
            "rnnforecast use 20261122T084500Z-3f9c2a",
        ),
    ),
    "shard": Page(
        "Scale",
        ("output", "buckets", "series", "time", "target"),
        (
            "rnnforecast shard meters.csv --output buckets --buckets 64",
            "rnnforecast shard 'in/*.parquet' -o buckets --buckets 256 --series site,sensor",
            "rnnforecast shard meters.csv -o buckets --buckets 8 --json",
        ),
    ),
}


class Command(TyperCommand):
    """A command whose help lists options under headings, and ends in examples."""

    def parse_args(self, ctx: Any, arguments: list[str]) -> list[str]:
        """Parse the words after the command's name.

        While a value is completed, its option has none yet: it would end the parsing before DATA
        is known.
        """
        if ctx.resilient_parsing and arguments and arguments[-1].startswith("-"):
            arguments = arguments[:-1]
        return super().parse_args(ctx, arguments)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the command's name in the line of its usage."""
        arguments = (p for p in self.get_params(ctx) if p.param_type_name == "argument")
        return ["[OPTIONS]", *(p.metavar or str(p.name).upper() for p in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options; rare options only where all are asked for."""
        is_whole = ctx.meta.get(_IS_WHOLE, False)
        page, params = PAGES.get(str(self.name)), self.get_params(ctx)
        arguments = [
            (p.metavar or str(p.name).upper(), _sentence(p.help or ""))
            for p in params
            if isinstance(p, TyperArgument)
        ]
        lists_all = is_whole or (page is not None and not page.hides_rare)
        options = [p for p in params if isinstance(p, TyperOption) and (lists_all or not p.hidden)]
        common = [p for name in (page.common if page else ()) for p in options if p.name == name]

        _write_list(formatter, "Arguments", arguments)
        _write_list(formatter, COMMON, [_record(p, ctx, is_whole=is_whole) for p in common])
        for heading in _HEADINGS:
            group = [p for p in options if p not in common and _heading(p) == heading]
            _write_list(formatter, heading, [_record(p, ctx, is_whole=is_whole) for p in group])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write three examples."""
        page = PAGES.get(str(self.name))
        if page is not None:
            with formatter.section("Examples"):
                for example in page.examples:
                    formatter.write(f"  {example}\n")

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return what completes a word; rare options are completed as well."""
        for param in self.params:
            if isinstance(param, TyperOption):
                param.hidden = False  # this process prints completions and ends
        return super().shell_complete(ctx, incomplete)


class Group(TyperGroup):
    """The application: its help lists the commands in groups; without a command it is shown."""

    def parse_args(self, ctx: Any, arguments: list[str]) -> list[str]:
        """Parse the words before the command; none at all ask for help."""
        is_bare = not arguments and not ctx.resilient_parsing
        return super().parse_args(ctx, ["--help"] if is_bare else arguments)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands in groups, then the options."""
        for section in dict.fromkeys(page.section for page in PAGES.values()):
            rows = [
                (name, _sentence((command.help or "").splitlines()[0]))
                for name, command in self.commands.items()
                if PAGES[name].section == section
            ]
            _write_list(formatter, section, rows)

        is_whole = ctx.meta.get(_IS_WHOLE, False)
        options = [p for p in self.get_params(ctx) if isinstance(p, TyperOption)]
        shown = [_record(p, ctx, is_whole=is_whole) for p in options if is_whole or not p.hidden]
        _write_list(formatter, "Options", shown)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write how to go on."""
        formatter.write(f"\n{_FOOTER}\n")


def show_all(context: typer.Context, is_set: bool) -> bool:  # noqa: FBT001
    """Print the whole help of a command, and end: the callback of `--help-all`."""
    if is_set and not context.resilient_parsing:
        context.meta[_IS_WHOLE] = True
        typer.echo(context.get_help())
        raise typer.Exit
    return is_set


def metavar_of(hint: Any, choices: Sequence[str], *, is_listed: bool) -> str:
    """Return what the help calls the value of an option of this type."""
    if is_listed:
        return "A,B"
    if choices:
        return "|".join(choices)
    text = str(hint)
    return (
        "N" if "int" in text else "X" if "float" in text else "FILE" if "Path" in text else "TEXT"
    )


def _heading(option: TyperOption) -> str:
    return option.rich_help_panel or GENERAL


def _write_list(formatter: Any, heading: str, rows: Iterable[tuple[str, str]]) -> None:
    if rows := list(rows):
        with formatter.section(heading):
            formatter.write_dl(rows, col_max=_NAME_WIDTH)


def _record(option: TyperOption, context: Any, *, is_whole: bool) -> tuple[str, str]:
    """Return the names of an option with its metavar, and its help with default and variable."""
    names = ", ".join(sorted(option.opts, key=len))
    if option.secondary_opts:
        names += f" / {option.secondary_opts[0]}"
    if not option.is_flag:
        names += f" {value_name(option)}"

    notes = []
    text, default = _sentence(option.help or ""), _default(option)
    if option.multiple:  # which the brackets say
        text = text.replace("; repeatable", "")
    if option.required:
        notes.append("required")
    elif default and "(default:" not in text:
        notes.append(f"default: {default}")
    prefix = context.auto_envvar_prefix
    if is_whole and prefix and option.allow_from_autoenv and option.name not in _WITHOUT_VARIABLE:
        notes.append(f"env: {prefix}_{str(option.name).upper()}")
    return names, f"{text} [{'; '.join(notes)}]" if notes else text


def value_name(option: TyperOption) -> str:
    """Return what the value of an option is called: as Typer does, in angle brackets."""
    name = (option.metavar or option.name or "").lower()
    return f"<list[{name}]>" if option.multiple else f"<{name}>"


def _default(option: TyperOption) -> str:
    """Return the default of an option as it is typed; nothing for what is unset or switched off."""
    default = option.default
    if default is None or isinstance(default, bool) or default in (0, "", [], ()):
        return ""
    if isinstance(default, list | tuple):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _sentence(text: str) -> str:
    """Return a text without the full stop that ends a docstring."""
    return text.strip().removesuffix(".")
