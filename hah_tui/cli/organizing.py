"""Commands that keep the runs folder in order: labels, export, removal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.runs import layout, store
from engine.runs.watcher import Watcher
from hah_tui.cli import output
from hah_tui.cli.output import Json, RunArgument, RunsDir, print_json
from hah_tui.text import shown_line


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    for command in (tag, note, rm, export):
        app.command()(command)


def tag(
    reference: RunArgument,
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="Words; -WORD takes one away.")],
    runs_dir: RunsDir = None,
) -> None:
    """Put tags on a run."""
    labels = store.label(
        output.resolve(reference, runs_dir),
        add=[word for word in tags if not word.startswith("-")],
        remove=[word[1:] for word in tags if word.startswith("-")],
    )
    print(" ".join(map(shown_line, labels.tags)))


def note(reference: RunArgument, text: str, runs_dir: RunsDir = None) -> None:
    """Put a note on a run ("" takes it away)."""
    store.label(output.resolve(reference, runs_dir), note=text)


def rm(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", autocompletion=output.complete_run)
    ] = None,
    all_failed: Annotated[bool, typer.Option("--all-failed", help="Every run that failed or is lost.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Delete runs with everything in them."""
    from engine.experiment import RequestError

    folder = layout.runs_folder(runs_dir)
    runs = [store.resolve(reference, folder) for reference in references or []]
    if all_failed:
        looks = store.looks(store.all_runs(folder))
        runs += [look.run for look in looks if look.status in ("failed", "lost") and look.verified]
    runs = list(dict.fromkeys(runs))
    if not runs:
        raise RequestError("nothing to delete: name runs, or --all-failed" if not all_failed else "no run has failed")
    for run in runs:
        look = Watcher(run).settled()
        if look.live and look.status != "queued":
            reason = f" ({look.reason})" if look.reason else ""
            raise RequestError(f"{run.id} is {look.status}{reason}; 'hah stop {run.id}' first. Nothing was deleted")
    if not yes:
        for run in runs:
            print(f"{run.id}  {store.look(run).status}  {run.path}")
        typer.confirm(f"Delete {'this run' if len(runs) == 1 else f'these {len(runs)} runs'} for good?", abort=True)
    for run in runs:
        store.remove(run)
        print(f"deleted {run.id}")


def export(
    reference: RunArgument,
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="last, best or epoch-N.")] = "last",
    results: Annotated[
        bool, typer.Option("--results", help="Keep what was measured instead: a small run directory, for a repository.")
    ] = False,
    weights: Annotated[bool, typer.Option("--weights", help="With --results: the weights too.")] = False,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to write into (default: ./<run id>; with --results: ./results).")
    ] = None,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Write a run's weights as safetensors with its experiment beside them, or (--results) what was measured of it.

    --results writes TO/<run id>/ with experiment, manifest, result files and learning curves; 'hah report' and
    'hah compare' read it with --results TO. What was kept of the run before is replaced.
    """
    from engine.experiment import RequestError
    from engine.runs import kept, launch

    run = output.resolve(reference, runs_dir)

    def write_weights(folder: Path) -> dict[str, Any]:
        answer = launch.ask("export", str(run.path), "--checkpoint", checkpoint, "--to", str(folder))
        return dict(answer)

    if weights and not results:
        raise RequestError("--weights belongs to --results; without it weights are what is exported")
    if results:
        target = (to or Path("results")).absolute()
        path = kept.keep(run, target, write_weights) if weights else kept.keep(run, target)
        answer = {"run": run.id, "files": sorted(str(file) for file in path.rglob("*") if file.is_file())}
    else:
        answer = write_weights((to or Path(run.id)).absolute())
    if json:
        print_json(answer)
    else:
        print("\n".join(answer["files"]))
