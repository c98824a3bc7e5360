"""Commands that measure what a trained network withstands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.disk import read_json
from engine.experiment.datasets import SUITE_NAMES
from hah_tui import engines
from hah_tui.cli import output, queueing, submitting
from hah_tui.cli.output import Json, RunArgument, RunsDir, print_json, print_table
from hah_tui.cli.submitting import DryRun, On, ProfileName
from hah_tui.text import duration


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command("eval")(eval_)


def eval_(
    reference: RunArgument,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            "-S",
            help="What to measure: " + ", ".join(SUITE_NAMES) + ".",
            autocompletion=lambda: list(SUITE_NAMES),
        ),
    ] = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="Only the first so many test images.")] = None,
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="last, best or epoch-N.")] = "last",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", metavar="KEY=VALUE", help="Change one setting, for example evaluate.noise.draws=5."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = None,
    evaluators: Annotated[
        int | None,
        typer.Option("--evaluators", min=1, help="Processes that share it, each on a GPU, if any; at Slurm, tasks."),
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say how long it would take.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as it has begun.")] = False,
    queued: Annotated[bool, typer.Option("--queue", "-q", help="Start it when a device is free, and return.")] = False,
    on: On = "local",
    profile: ProfileName = None,
    dry_run: DryRun = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Evaluate a run: noise, sparsity, corruptions, attacks, minimum-norm attacks, checks for masked gradients.

    Results are saved piece by piece: after a stop or a kill, the same command continues. Ctrl-C stops it.
    """
    from engine.runs import store
    from engine.runs.events import Tail
    from engine.runs.state import read_state
    from hah_tui.cli import watching

    submitting.check(on, profile, dry_run, queued)
    run = output.resolve(reference, runs_dir)
    sets = [*(set_ or []), *([f"compute.device={device}"] if device is not None else [])]
    sets += [f"compute.evaluators={evaluators}"] if evaluators is not None else []
    trained = store.experiment_of(run, read_state(run))
    experiment = engines.evaluation(trained, suite or [], images, sets)
    if estimate:
        _print_forecast(engines.forecast(run, experiment, checkpoint), json)
        return
    job = run.evaluation
    if queued:
        engines.enqueue_evaluation(run, experiment, checkpoint)
        queueing.say_queued([job], json)
        return
    if dry_run:
        submitting.print_scripts(engines.scripts(run.path.parent, run.id, run.id, profile, experiment), json)
        return
    if on == "slurm":
        submitting.say_handed(engines.hand_over_evaluation(run, experiment, checkpoint, profile), json)
        return
    tail, events = Tail(job.events, from_end=True), Tail(job.events, from_end=True)
    look = watching.stay(job, engines.evaluate(run, experiment, checkpoint), detach, json, tail)
    if look is None:
        return
    if json:
        files = [event["file"] for event in events if event["kind"] in ("result", "already")]
        results = [read_json(run.results / file, 1 << 28) for file in files]
        print_json({"id": job.id, "status": look.status, "error": look.state.error, "results": results})
    raise typer.Exit(watching.EXIT_CODES[look.status])


def _print_forecast(found: dict[str, Any], json: bool) -> None:
    if json:
        print_json(found)
        return
    rows = [
        (suite, f"{one['images']:,}", duration(one["seconds"]), duration(1000 * one["seconds_per_image"]))
        for suite, one in found["suites"].items()
    ]
    where = found["device"] + (f" in {found['processes']} processes" if found["processes"] > 1 else "")
    print_table(["suite", "images", f"at most, on {where}", "for 1,000 images"], rows, (1, 2, 3))
