"""Commands that start, watch and command engines."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.process import Lock
from engine.runs.state import State, read_state
from hah_tui.cli import output
from hah_tui.cli.output import Json, RunArgument, RunsDir, note, print_json

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
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Train an experiment. In the foreground, Ctrl-C saves and stops it; a hang-up does not touch it."""
    from engine.experiment import presets
    from engine.runs import launch, layout, manifest

    sets = [*(set_ or []), *([f"compute.device={device}"] if device is not None else [])]
    found = presets.find(preset)
    if found.shadows is not None:
        note(f"using your own preset {found.path}, which hides the shipped one of the same name")
    experiment = presets.load(preset, sets, name)
    launch.ask("probe", "--device", experiment.compute.device, "--dataset", experiment.data.dataset)
    directory = layout.create(layout.runs_folder(runs_dir), experiment.name, presets.dumped(experiment))
    layout.replace_json(
        directory.manifest,
        {
            "id": directory.id,
            "name": experiment.name,
            "preset": found.name,
            "preset_path": str(found.path),
            "sets": sets,
            "command": sys.argv,
            "created": time.time(),
            **manifest.machine(),
        },
    )
    state = State(
        name=experiment.name,
        preset=found.name,
        tags=list(experiment.tags),
        created=time.time(),
        epochs=experiment.train.epochs,
    )
    _start(directory, launch.take(directory), state, [], detach, json)


def resume(
    reference: RunArgument,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Train to this epoch instead.")] = None,
    detach: Detach = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Continue a run exactly where it was: paused, stopped, failed, lost, or finished with --epochs."""
    from engine.experiment import RequestError, presets
    from engine.runs import control, launch

    directory = output.resolve(reference, runs_dir)
    if store.look(directory).status == "paused":
        if epochs is not None:
            raise RequestError(f"{directory.id} is paused, not ended: hah set {directory.id} train.epochs={epochs}")
        _command(directory, "resume")
        return
    lock = launch.take(directory)
    state = read_state(directory)
    if state.status == "finished" and epochs is None:
        raise RequestError(f"{directory.id} is finished; give --epochs N to train it further")
    if epochs is not None and epochs < state.epoch:
        raise RequestError(f"--epochs: {directory.id} has trained {state.epoch} epochs already, got {epochs}")
    experiment = store.experiment_of(directory, state)
    if epochs is not None:
        presets.check("train.epochs", epochs, experiment)
    launch.ask("probe", "--device", experiment.compute.device, "--dataset", experiment.data.dataset)
    control.Inbox(directory).clear()
    _start(directory, lock, state, [] if epochs is None else ["--epochs", str(epochs)], detach, json)


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

    directory = output.resolve(reference, runs_dir)
    _command(directory, "stop-now" if now else "stop")
    look = store.look(directory)
    while look.live:
        time.sleep(0.05)
        look = store.look(directory)
    print(watching.outcome(look))


def pause(reference: RunArgument, runs_dir: RunsDir = None) -> None:
    """Hold a run between two steps; 'hah resume' lets it go on exactly there. It keeps its GPU memory."""
    _command(output.resolve(reference, runs_dir), "pause")


def set_(
    reference: RunArgument,
    assignment: Annotated[str, typer.Argument(metavar="KEY=VALUE", autocompletion=output.complete_setting)],
    runs_dir: RunsDir = None,
) -> None:
    """Change a hyperparameter of a running engine between two steps; the record keeps old and new value."""
    from engine.experiment import presets
    from engine.experiment.document import assigned

    directory = output.resolve(reference, runs_dir)
    name, value = assigned(assignment)
    presets.check(name, value, store.experiment_of(directory, read_state(directory)))
    _command(directory, "set", name, value)


def _start(directory: RunDirectory, lock: Lock, state: State, arguments: list[str], detach: bool, json: bool) -> None:
    """Start an engine on a run directory and, unless detached, stay with it to its end."""
    from engine.runs import control, launch
    from hah_tui.cli import watching

    process = launch.start(directory, lock, state, arguments)
    launch.await_start(directory, process)
    if detach:
        if json:
            print_json({"id": directory.id, "path": str(directory.path)})
        else:
            print(f"{directory.id} runs in the background; follow it with: hah watch {directory.id}")
        return

    def ask_to_stop() -> None:
        note("saving and stopping (Ctrl-C again leaves it to itself)")
        control.send(directory, "stop")

    look = watching.follow(directory, interrupt=ask_to_stop, quiet=json)
    if json:
        from hah_tui.cli.inspecting import document

        print_json(document(look))
    else:
        print(watching.outcome(look))
    raise typer.Exit(watching.EXIT_CODES[look.status])


def _command(directory: RunDirectory, verb: Any, name: str = "", value: Any = None) -> None:
    """Send a command and wait for its answer; raises RequestError if it is refused or nobody is there to answer."""
    from engine.experiment import RequestError
    from engine.runs import control
    from engine.runs.events import Tail

    look = store.look(directory)
    if not look.live:
        raise RequestError(f"{directory.id} is {look.status}: no engine to {verb}; {look.reason or 'nothing was sent'}")
    tail = Tail(directory.events, from_end=True)
    command = control.send(directory, verb, name, value)
    told = time.monotonic()
    while (answer := control.acknowledgement(tail, command)) is None:
        look = store.look(directory)
        if not look.live:
            if verb.startswith("stop"):
                return
            raise RequestError(f"{directory.id} is {look.status} now and did not answer")
        if time.monotonic() - told > 10:
            told = time.monotonic()
            note(f"{directory.id} is {look.status} and has not answered yet {look.reason}".rstrip())
        time.sleep(0.05)
    if not answer["ok"]:
        raise RequestError(str(answer["text"]))
    if not verb.startswith("stop"):
        print(f"{directory.id}: {verb} done" if verb != "set" else f"{directory.id}: {name} is {value}")
