"""`rnnforecast run`, `score` and `status`: the commands and their output."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import (
    CommonOptions,
    Explicit,
    ModelPath,
    TrustSource,
    configure_screen,
    output_option,
    with_options,
)
from rnnforecast.cli.console import Screen
from rnnforecast.config.commands import DEFAULT_LEDGER, RunConfig, ScoreConfig
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import DEFAULT_MODEL
from rnnforecast.events import CatchUpEvent
from rnnforecast.units import describe_duration, format_number

if TYPE_CHECKING:
    from rnnforecast.jobs.ledger import ScoreResult
    from rnnforecast.jobs.log import RunResult, Status

JobPath = Annotated[Path, typer.Argument(metavar="JOB.toml", help="Job file")]
_scoring = partial(typer.Option, rich_help_panel="Scoring")
_MAX_ROWS = 20
"""Groups of scores in the table; JSON has all of them."""


@with_options
def init(
    context: typer.Context,
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="Data that the job reads, as for check")
    ] = None,
    *,
    reading: DataConfig,
    common: CommonOptions,
    output: Annotated[
        Path, output_option("Job file to write (must not exist)", metavar="JOB.toml")
    ] = Path("job.toml"),
) -> None:
    """Write a commented job file for a data set."""
    from rnnforecast.jobs.template import write_job

    screen = configure_screen(context, common)
    path = write_job(data, output, config=reading, listener=screen)
    screen.has_published = True
    screen.close()

    run_it = f"rnnforecast run {shlex.quote(str(path))}"
    if common.json:
        screen.document({"output": str(path), "next": run_it})
    else:
        screen.result(f"written: {path}")
        first = "" if data else f"write where the readings are into {path}, then  "
        screen.note(f"next: {first}{run_it}")


@with_options
def run(context: typer.Context, job: JobPath, *, config: RunConfig, common: CommonOptions) -> None:
    """Run one scheduled cycle of a job file.

    Exit code: 0 published, 2 wrong option or job file, 3 partial, or a catch-up that ended early,
    4 the data cannot be used, 5 the data are too old or too short, 6 the model is missing or
    damaged, 7 cannot write, 11 another run is going on, 124 out of time.
    """
    from rnnforecast.jobs import log

    screen = configure_screen(context, common)
    cycles = rnnforecast.run(job, config=config, arguments=sys.argv[1:], listener=screen)
    screen.close()
    if common.json:
        screen.document(run_document(cycles))
    else:
        print_run(cycles, screen)

    error = next((cycle.error for cycle in cycles if cycle.error is not None), None)
    if error is not None and len(cycles) == 1:
        raise error
    raise typer.Exit(log.exit_code_of(cycles))


@with_options
def score(
    context: typer.Context,
    *,
    config: ScoreConfig,
    reading: DataConfig,
    common: CommonOptions,
    explicit: Explicit,
    ledger: Annotated[
        Path | None, _scoring(metavar="DIR", help="Ledger of earlier forecasts (default: ledger)")
    ] = None,
    data: Annotated[
        str | None,
        _scoring(metavar="DATA", help="Newer readings (default: re-read the training file)"),
    ] = None,
    model: ModelPath = DEFAULT_MODEL,
    trust_source: TrustSource = False,
    job: Annotated[
        Path | None,
        _scoring(metavar="JOB.toml", help="Take ledger, data and model from this job file"),
    ] = None,
) -> None:
    """Compare earlier forecasts with what actually happened."""
    screen = configure_screen(context, common)
    if job is None:
        scored = rnnforecast.score(
            ledger or DEFAULT_LEDGER,
            data,
            model=model,
            config=config,
            reading=reading,
            explicit=explicit,
            trust_source=trust_source,
            listener=screen,
        )
    else:
        scored = rnnforecast.score_job(job, config=config, listener=screen)

    screen.close()
    if common.json:
        screen.document(score_document(scored))
    else:
        print_scores(scored, screen)


@with_options
def status(context: typer.Context, job: JobPath, *, common: CommonOptions) -> None:
    """Show when a job last succeeded and how old its data and forecast are.

    Exit code: 0 all is well, 3 the last run failed or was partial, 5 something is older than the
    job allows, 6 the job never ran or its model is missing.
    """
    screen = configure_screen(context, common)
    result = rnnforecast.status(job)
    if common.json:
        screen.document(result.to_json())
    else:
        print_status(result, screen)
    raise typer.Exit(result.exit_code)


def run_document(cycles: Sequence[RunResult]) -> dict[str, Any]:
    """Return the document of `run --json`: one object for a run, a list of them for a catch-up."""
    documents = [
        {
            "status": cycle.status,
            "exit": cycle.exit_code,
            "key": cycle.key,
            "output": cycle.output and str(cycle.output),
            "version": cycle.version,
            "as_of": cycle.as_of,
            "series": cycle.series,
            "degraded": cycle.degraded,
            "warnings": [warning.to_json() for warning in cycle.warnings],
            "error": cycle.error and cycle.error.message,
            "scores": [asdict(score) for score in cycle.post_publish.scores],
            "retired": list(cycle.post_publish.retired),
            "retrain": cycle.post_publish.retrain,
            "timing": cycle.timing,
        }
        for cycle in cycles
    ]

    if len(documents) == 1:
        return documents[0]
    n_published = sum(cycle.is_published for cycle in cycles)
    return {"runs": documents, "published": n_published, "total": len(cycles)}


def print_run(cycles: Sequence[RunResult], screen: Screen) -> None:
    """Print a line for each run, and lines for its retraining and retention."""
    if screen.is_quiet:
        return
    from rnnforecast.jobs import log

    for cycle in cycles:
        as_of = "" if cycle.as_of is None else f" (as of {cycle.as_of})"
        if cycle.status == log.PLANNED:
            screen.result(f"would write {cycle.output}{as_of}")
        else:
            output = "" if cycle.output is None else f": {cycle.output}"
            screen.result(f"{cycle.status}{output}{as_of}")
        if cycle.error is not None and len(cycles) > 1:
            screen.note(f"  {cycle.error.message}")
        if cycle.post_publish.retrain is not None:
            screen.result(str(cycle.post_publish.retrain["reason"]))
        if cycle.post_publish.retired:
            n_removed = len(cycle.post_publish.retired)
            screen.result(f"removed {n_removed} old output{'s' if n_removed > 1 else ''}")
    if len(cycles) > 1:
        n_published = sum(cycle.is_published for cycle in cycles)
        screen.result(CatchUpEvent(n_published, len(cycles)).summary)


def score_document(scored: ScoreResult) -> dict[str, Any]:
    """Return the document of `score --json`."""
    return {
        "since": scored.since,
        "until": scored.until,
        "scores": [asdict(score) for score in scored.scores],
        "flagged": [score.series for score in scored.scores if score.flag and score.series],
        "warnings": [warning.to_json() for warning in scored.warnings],
    }


def print_scores(scored: ScoreResult, screen: Screen) -> None:
    """Print a row for each of the first groups, flagged ones first."""
    scores = sorted(scored.scores, key=lambda score: score.flag is None)
    keys = [name for name in ("series", "lead", "day") if getattr(scores[0], name) is not None]
    rows = [
        (
            *([str(getattr(score, name)) for name in keys] or [""]),
            str(score.n),
            format_number(score.mae),
            format_number(score.skill),
            format_number(score.coverage_80),
            format_number(score.drift),
            score.flag or "",
        )
        for score in scores[:_MAX_ROWS]
    ]

    title = f"Forecasts scored up to {scored.until}" + (
        "" if scored.since is None else f", since {scored.since}"
    )
    header = (*keys, "readings", "MAE", "skill %", "in q10..q90", "drift", "flag")
    screen.table(header if keys else ("all", *header), rows, title=title)
    if len(scores) > _MAX_ROWS:
        screen.result(f"and {len(scores) - _MAX_ROWS} more; use --json for all of them")


def print_status(status: Status, screen: Screen) -> None:
    """Print the status of a job, a line for each fact."""
    document = status.to_json()
    if document["last_exit"] is None:
        last_exit = "unknown: the job has no [log] file and no [metrics], or no run in them yet"
    else:
        message = status.last_message
        last_exit = f"{document['last_exit']}" + (f": {message}" if message else "")

    facts = {
        "last exit": last_exit,
        "last run": _ago(document["last_run_age_s"]),
        "last success": _ago(document["last_success_age_s"]),
        "newest reading": _ago(document["data_age_s"]),
        "model": _with_age(document["version"], "trained", document["model_age_s"]),
        "forecast": _with_age(document["output"], "published", document["forecast_age_s"]),
    }
    success = "" if document["last_exit"] is None else "the last run succeeded and "
    facts["state"] = document["problem"] or f"OK: {success}nothing is too old"
    for name, fact in facts.items():
        screen.result(f"{name:<15}{fact}")


def _with_age(name: str | None, verb: str, age_s: int | None) -> str:
    """Return a name and how long ago it was made; `none published yet` without one."""
    if name is None:
        return f"none {verb} yet"
    return name if age_s is None else f"{name}, {verb} {_ago(age_s)}"


def _ago(age_s: int | None) -> str:
    if age_s is None:
        return "unknown"
    return f"{describe_duration(max(age_s, 1) * 1_000_000)} ago"
