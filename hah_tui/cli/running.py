"""Commands that start, watch and command engines."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Annotated

import typer

from engine.experiment.mistakes import RequestError
from engine.runs import layout, store
from engine.runs.layout import RunDirectory
from engine.runs.making import Origin
from engine.runs.state import read_state
from engine.runs.watcher import Look
from hah_tui import engines
from hah_tui.cli import output, queueing, submitting
from hah_tui.cli.output import Json, RunArgument, RunsDir, note, print_json
from hah_tui.cli.submitting import DryRun, On, ProfileName

if TYPE_CHECKING:
    from engine.experiment import Experiment

Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Change one setting, for example hah.lambda=0.2.",
        autocompletion=output.complete_setting,
    ),
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as the engine has begun.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    for command in (run, resume, watch, stop, pause):
        app.command()(command)
    app.command("set")(set_)


def run(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|FILE", help="A preset's name or a .yaml file.", autocompletion=output.complete_preset
        ),
    ],
    set_: Sets = None,
    name: Annotated[str | None, typer.Option("--name", help="Call the run so (default: as the preset).")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = None,
    detach: Detach = False,
    queued: Annotated[bool, typer.Option("--queue", "-q", help="Start it when a device is free, and return.")] = False,
    on: On = "local",
    profile: ProfileName = None,
    dry_run: DryRun = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Train an experiment. In the foreground, Ctrl-C saves and stops it; a hang-up does not touch it."""
    from engine.experiment import presets

    submitting.check(on, profile, dry_run, queued)
    sets = [*(set_ or []), *([f"compute.device={device}"] if device is not None else [])]
    found = presets.find(preset)
    if found.shadows is not None:
        note(f"using your own preset {found.path}, which hides the shipped one of the same name")
    experiment = presets.load(preset, sets, name)
    _say_idle(experiment)
    folder, origin = layout.runs_folder(runs_dir), Origin(found.name, found.path, sets)
    if queued:
        queueing.say_queued([engines.enqueue(experiment, origin, folder)], json)
        return
    if dry_run:
        submitting.print_scripts(engines.scripts(folder, experiment.name, f"{experiment.name}-xxxx", profile), json)
        return
    if on == "slurm":
        submitting.say_handed(engines.hand_over(experiment, origin, folder, profile), json)
        return
    directory, process = engines.begin(experiment, origin, folder)
    _stay(directory, process, detach, json)


def resume(
    reference: RunArgument,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Train to this epoch instead.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="KEY=VALUE",
            help="Change a setting first, as 'hah set' does.",
            autocompletion=output.complete_setting,
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without-set",
            metavar="KEY",
            help="Do not take up again how a setting was changed after the last checkpoint.",
        ),
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over", help="Also where it cannot be known from here that its engine is gone; it will go."
        ),
    ] = False,
    detach: Detach = False,
    on: On = "local",
    profile: ProfileName = None,
    dry_run: DryRun = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Continue a run exactly where it was: paused, stopped, failed, lost, or finished with --epochs."""
    from engine.experiment.document import assigned

    submitting.check(on, profile, dry_run)
    directory = output.resolve(reference, runs_dir)
    sets = dict(map(assigned, set_ or []))
    if epochs is not None:
        sets["train.epochs"] = epochs
    directory = directory if sets or without else engines.meant(directory)
    if on == "slurm":
        if sets or without:
            raise RequestError("--on slurm: goes on with a run as it is; no setting can be changed on the way")
        _resume_at_slurm(directory, profile, dry_run, json)
        return
    before = store.look(directory)
    if not before.verified:
        note(f"{directory.id} is {before.status}, {before.reason}: waiting for a sign of life")
    process = engines.resume(directory, sets, without or [], take_over)
    if process is None:
        print(f"{directory.id}: resume done")
    else:
        _stay(directory, process, detach, json)


def _resume_at_slurm(directory: RunDirectory, profile: str | None, dry_run: bool, json: bool) -> None:
    if not dry_run:
        handed, refused = engines.hand_over_again([directory], profile)
        if refused:
            raise RequestError(*refused)
        submitting.say_handed(handed, json)
        return
    state = read_state(directory)
    evaluation = store.experiment_of(directory, state) if state.kind == "evaluation" else None
    run = directory if evaluation is None else RunDirectory(directory.path.parents[1])
    submitting.print_scripts(engines.scripts(run.path.parent, run.id, run.id, profile, evaluation), json)


def watch(reference: RunArgument, runs_dir: RunsDir = None) -> None:
    """Follow a run live, or replay one that has ended; Ctrl-C leaves it alone. Ends with the run's exit code."""
    from hah_tui.cli import watching

    look = watching.follow(output.resolve(reference, runs_dir))
    print(watching.outcome(look))
    raise typer.Exit(watching.EXIT_CODES[look.status])


def stop(
    reference: RunArgument,
    now: Annotated[bool, typer.Option("--now", help="Do not save: the last checkpoint is what stays.")] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Save a run and stop it."""
    from hah_tui.cli import watching

    directory = engines.meant(output.resolve(reference, runs_dir))
    print(watching.outcome(engines.stop(directory, now, _not_yet)))


def pause(reference: RunArgument, runs_dir: RunsDir = None) -> None:
    """Hold a run between two steps; 'hah resume' lets it go on exactly there. It keeps its GPU memory."""
    directory = engines.meant(output.resolve(reference, runs_dir))
    engines.ask(directory, "pause", waiting=_not_yet)
    print(f"{directory.id}: pause done")


def set_(
    reference: RunArgument,
    assignment: Annotated[str, typer.Argument(metavar="KEY=VALUE", autocompletion=output.complete_live)],
    runs_dir: RunsDir = None,
) -> None:
    """Change a hyperparameter of a running engine between two steps; the record keeps old and new value."""
    directory = output.resolve(reference, runs_dir)
    name, value, experiment = engines.change(directory, assignment, _not_yet)
    _say_idle(experiment)
    print(f"{directory.id}: {name} is {value}")


def _stay(directory: RunDirectory, process: subprocess.Popen[bytes], detach: bool, json: bool) -> None:
    """Wait until an engine has begun and, unless detached, stay with it to its end."""
    from hah_tui.cli import watching

    look = watching.stay(directory, process, detach, json)
    if look is None:
        return
    code = watching.EXIT_CODES[look.status]
    if code == 0 and read_state(directory).kind == "training" and store.look(directory.evaluation).live:
        code = watching.EXIT_CODES[watching.accompany(directory.evaluation, json).status]
    if json:
        from hah_tui.cli.inspecting import document

        print_json(document(look))
    raise typer.Exit(code)


def _say_idle(experiment: Experiment) -> None:
    for text in experiment.idle():
        note(text)


def _not_yet(look: Look) -> None:
    note(f"{look.run.id} is {look.status} and has not answered yet {look.reason}".rstrip())
