"""Commands that look at runs: lists, facts, logs, comparison, TensorBoard."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from engine import disk
from engine.runs import layout, shares, store, submitted
from engine.runs import manifest as manifests
from engine.runs.layout import RunDirectory
from engine.runs.metrics import CLEAN, METRICS, NOISY
from engine.runs.state import State
from engine.runs.watcher import Look, Watcher
from engine.sweep import queue
from hah_tui import attributes
from hah_tui.cli import output
from hah_tui.cli.output import Json, RunArgument, RunsDir, note, print_json, print_table
from hah_tui.filters import Filter
from hah_tui.listing import read
from hah_tui.text import age, duration, percent, shown, shown_line, slurm_line

_LISTED = ("name", "status", "epoch", "eta", CLEAN, NOISY, "device", "created", "tags")  # in every list
_OF_BLOCK = re.compile(r"block/([1-9]\d{0,2})/")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    for command in (ls, show, log, tensorboard):
        app.command()(command)


def ls(
    filter: Annotated[
        str, typer.Option("--filter", help="Only runs that fit, as in hah-tui: 'clean>0.9 lambda=1 -tag:old words'.")
    ] = "",
    status: Annotated[list[str] | None, typer.Option("--status", help="Only runs of this status.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only runs with this tag.")] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Only runs of this preset.")] = None,
    sort: Annotated[
        str, typer.Option("--sort", help="By created, name, status, updated, any metric or setting; the best first.")
    ] = "created",
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many runs.")] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All runs, not the first page.")] = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """List runs, the newest first."""
    from engine.experiment import RequestError

    try:
        order = attributes.found(sort)
    except RequestError as error:
        raise RequestError(f"--sort: {error}") from None
    try:
        narrowed = Filter.parse(filter)
    except RequestError as error:
        raise RequestError(f"--filter: {error}") from None
    folder = layout.runs_folder(runs_dir)
    runs = store.all_runs(folder)
    if limit is None and not everything:
        limit = max(10, shutil.get_terminal_size().lines - 4) if output.is_terminal() else 50
    asked = [order, *narrowed.attributes]
    plain = not (status or tag or preset or narrowed.terms) and order.name == "created"
    total = len(runs)
    if plain and not everything:
        runs = runs[:limit]  # only these are read
    known = _known([look for look in store.looks(runs) if _wanted(look, status, tag, preset)])
    looks, evaluations = [look for look, _ in known], {look.run: evaluation for look, evaluation in known}
    if not plain:
        wants = attributes.wanted(asked)
        fit = [row for row in (read(look, wants) for look in looks) if narrowed.fits(row)]
        total, found = len(fit), attributes.ordered(fit, order)
    else:
        found = [read(look, ()) for look in looks]
    if not everything:
        found = found[:limit]
    looks = [row.look for row in found]
    if json:
        print_json(
            {"runs_dir": str(folder), "total": total, "runs": [summary(look, evaluations[look.run]) for look in looks]}
        )
        return
    if not looks:
        note(f"no runs{' like that' if not plain else ''} in {folder}; 'hah run quickstart' makes one")
        _say_links(folder)
        return
    more = [one for one in dict.fromkeys(asked) if one.name not in _LISTED]
    rows = []
    slurm = any(one is not None and one.slurm is not None for look in looks for one in (look, evaluations[look.run]))
    for row in found:
        look, state = row.look, row.look.state
        unsure = "" if look.verified else "?"
        evaluation = evaluations[look.run]
        said = slurm_line(evaluation if evaluation and evaluation.live else look)
        rows.append(
            [
                look.run.id,
                look.status + unsure + (f", evaluation {evaluation.status}" if evaluation and evaluation.live else ""),
                f"{state.epoch}/{state.epochs}",
                duration(state.eta_seconds) if look.status == "running" else "",
                percent(state.metrics.get(CLEAN)),
                percent(state.metrics.get(NOISY)),
                look.device,
                age(state.created),
                " ".join(row.tags),
                *[said] * slurm,
                *(one.said(one.of(row)) for one in more),
            ]
        )
    titles = ["run", "status", "epoch", "eta", "clean", "noisy", "device", "age", "tags", *["slurm"] * slurm]
    titles += [one.name for one in more]
    numbers = [9 + slurm + place for place, one in enumerate(more) if one.kind != "words"]
    print_table(titles, rows, (2, 3, 4, 5, 7, *numbers))
    if total > len(looks):
        note(f"{total - len(looks):,} more; --all lists them")
    _say_links(folder)


def _say_links(folder: Path) -> None:
    if links := store.links(folder):
        some = ", ".join(shown_line(link) for link in links[:5]) + (", ..." if len(links) > 5 else "")
        note(f"not listed, since they are symbolic links: {some}; --runs-dir shows the folder that one leads to")


def show(reference: RunArgument, runs_dir: RunsDir = None, json: Json = False) -> None:
    """Show what is known of a run."""
    look, evaluation = _known([store.look(output.resolve(reference, runs_dir))])[0]
    facts, state = _document(look, evaluation), look.state
    if json:
        print_json(facts)
        return
    manifest = facts["manifest"]
    rows = [
        ("run", look.run.id),
        (
            "status",
            f"{look.status}{'' if look.verified else ' (unverified)'}{f': {look.why}' if look.why else ''}",
        ),
        ("slurm", slurm_line(look) if look.live and look.status != "queued" else ""),
        ("stopped by", state.stopped_by),
        ("error", state.error),
        ("preset", state.preset),
        ("progress", _progress(state)),
        ("trained", duration(state.trained_seconds)),
        ("engine", f"process {facts['pid']} on {facts['host']}" if facts["pid"] else ""),
        ("device", state.device),
        ("commit", _commits(facts)),
        ("arithmetic", " ".join(f"{name} {value}" for name, value in manifest.get("arithmetic", {}).items())),
        ("created", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.created))),
        ("evaluation", _said(evaluation) if evaluation else ""),
        *(("beside", _words(share)) for share in facts["shares"]),
        ("results", " ".join(facts["results"])),
        ("tags", " ".join(facts["tags"])),
        ("note", facts["note"]),
        ("path", str(look.run.path)),
    ]
    for name, value in rows:
        if value:
            print(f"{name:<11} {shown_line(value, 500)}")
    metrics = {name: value for name, value in state.metrics.items() if not name.startswith("block/")}
    if metrics:
        print()
        for name, value in metrics.items():
            print(f"{shown_line(name):<28} {value:.6g}")
    numbers = sorted({int(match[1]) for name in state.metrics if (match := _OF_BLOCK.match(name))})
    if numbers:
        print()
        listed = [metric for metric in METRICS.values() if metric.of_blocks]
        table = [[n, *(f"{state.metrics.get(one.of(n), float('nan')):.4g}" for one in listed)] for n in numbers]
        print_table(["block", *(one.word for one in listed)], table, range(1 + len(listed)))
    with suppress(OSError):
        print("\n" + shown(disk.read_text(look.run.config), 20000).rstrip())
    if state.changed:
        print("\nchanged since: " + ", ".join(f"{shown_line(k)}={shown_line(v)}" for k, v in state.changed.items()))


def log(
    reference: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    events: Annotated[
        bool, typer.Option("--events", help="The record's events instead of the engine's words.")
    ] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Print what the engine of a run said."""
    directory = output.resolve(reference, runs_dir)
    path = directory.events if events else directory.log
    try:
        with disk.opened(path) as file, io.TextIOWrapper(file, errors="replace") as text:
            watcher = Watcher(directory)
            while True:
                ended = not (follow and watcher.look().live)
                while part := text.read(1 << 16):
                    print(shown(part, 1 << 20), end="", flush=True)
                if ended:
                    return
                time.sleep(0.25)
    except FileNotFoundError:
        note(f"{directory.id} has no {path.name} yet")


def tensorboard(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", autocompletion=output.complete_run)
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="On this port of the loopback interface; 0: any free one.")
    ] = 6006,
    runs_dir: RunsDir = None,
) -> None:
    """Open TensorBoard on runs (all of them by default); it listens on this machine only."""
    folder = layout.runs_folder(runs_dir)
    if references:
        chosen = [store.resolve(reference, folder) for reference in references]
        evaluations = [run.evaluation for run in chosen if run.evaluation.tensorboard.exists()]
        source = ["--logdir_spec", ",".join(f"{run.id}:{run.tensorboard}" for run in [*chosen, *evaluations])]
    else:
        source = ["--logdir", str(folder)]
    sys.stdout.flush()
    os.execv(  # noqa: S606
        sys.executable,
        [
            sys.executable,
            "-m",
            "tensorboard.main",
            *source,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ],
    )


def _said(evaluation: Look) -> str:
    words = [evaluation.status, evaluation.state.phase, f"({slurm_line(evaluation)})" * bool(evaluation.slurm)]
    return " ".join(filter(None, words))


def summary(look: Look, evaluation: Look | None) -> dict[str, Any]:
    """The facts of a run that a list has room for, with those of the job that evaluates it."""
    state, labels = look.state, store.labels(look.run)
    return {
        "id": look.run.id,
        "kind": state.kind,
        "name": state.name,
        "preset": state.preset,
        "status": look.status,
        "verified": look.verified,
        "reason": look.why,
        "stopped_by": state.stopped_by,
        "phase": state.phase,
        "error": state.error,
        "epoch": state.epoch,
        "epochs": state.epochs,
        "step": state.step,
        "steps": state.steps,
        "suite": state.suite,
        "suites": state.suites,
        "piece": state.piece,
        "pieces": state.pieces,
        "processes": state.processes,
        "eta_seconds": state.eta_seconds,
        "images_per_second": state.images_per_second,
        "trained_seconds": state.trained_seconds,
        "device": state.device,
        "created": state.created,
        "updated": state.updated,
        "host": state.engine.get("host"),
        "pid": state.engine.get("pid"),
        "tags": _tags(look),
        "note": labels.note,
        "path": str(look.run.path),
        "metrics": state.metrics,
        "slurm": look.slurm and look.slurm.facts(),
        "evaluation": evaluation and {
            "status": evaluation.status, "phase": evaluation.state.phase,
            "slurm": evaluation.slurm and evaluation.slurm.facts(),
        },
    }  # fmt: skip


def _progress(state: State) -> str:
    if state.kind != "training":
        suites = f"suite {state.suite} of {state.suites}, " if state.suites else ""
        processes = f", {state.processes} processes" if state.processes > 1 else ""
        return f"{suites}piece {state.piece:,} of {state.pieces:,}{processes}"
    return f"epoch {state.epoch} of {state.epochs}, step {state.step:,} of {state.steps:,}"


def _words(share: dict[str, Any]) -> str:
    """One line of a process that shares an evaluation."""
    why = share["error"] or share["reason"]
    at = f", suite {share['suite']} of {share['suites']}" if share["suites"] else ""
    where = f"process {share['pid']} on {share['host']}" if share["pid"] else "a process"
    return f"{where}, {share['status']}{f' ({why})' if why else ''}{at}, {share['piece']:,} pieces by it"


def _known(looks: Sequence[Look]) -> list[tuple[Look, Look | None]]:
    """Runs, each with the job that evaluates it, if it had one; Slurm is asked once of all that it may have."""
    jobs = [look.run.evaluation for look in looks]
    evaluations = [store.look(job) if job.config.exists() else None for job in jobs]
    told = {look.run: look for look in submitted.told([*looks, *filter(None, evaluations)])}
    return [(told[look.run], one and told[one.run]) for look, one in zip(looks, evaluations, strict=True)]


def document(look: Look) -> dict[str, Any]:
    """Everything `hah show --json` prints."""
    return _document(*_known([look])[0])


def _document(look: Look, evaluation: Look | None) -> dict[str, Any]:
    from engine.experiment import RequestError

    try:
        config: Any = store.experiment_of(look.run, look.state).dump()
    except RequestError as error:
        config = {"error": str(error)}
    return {
        **summary(look, evaluation),
        "config": config,
        "manifest": manifests.read(look.run),
        "shares": [_share(share) for share in shares.every(look.run)],
        "queued_commit": queued.commit if (queued := queue.entry_of(look.run)) is not None else None,
        "results": sorted(path.name for path in look.run.results.glob("[!.]*.json")),
    }


def _share(run: RunDirectory) -> dict[str, Any]:
    """What another process measures of an evaluation."""
    look = store.look(run)
    wanted = ("id", "status", "reason", "error", "suite", "suites", "piece", "device", "updated", "host", "pid")
    return {name: value for name, value in summary(look, None).items() if name in wanted}


def _commits(facts: dict[str, Any]) -> str:
    """Which commit trained a run, and which one queued it where that is another."""
    source, queued = facts["manifest"].get("source"), facts["queued_commit"]
    ran = f"{source.get('commit', '?')}{'-dirty' if source.get('dirty') else ''}" if source else ""
    return f"{ran}, queued with {queued}" if queued and ran and queued != ran else ran


def _tags(look: Look) -> list[str]:
    return list(dict.fromkeys([*look.state.tags, *store.labels(look.run).tags]))


def _wanted(look: Look, status: list[str] | None, tag: list[str] | None, preset: str | None) -> bool:
    return (
        (not status or look.status in status)
        and (not tag or set(tag) <= set(_tags(look)))
        and (preset is None or look.state.preset == preset)
    )
