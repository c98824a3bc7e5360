"""Commands of the queue: runs that wait for a device of this host, in order and in groups."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.experiment.mistakes import RequestError
from engine.experiment.names import NAME_FORMAT, is_name
from engine.runs import layout, store, submitted
from engine.runs.layout import RunDirectory
from engine.runs.squeue import Poll
from engine.sweep import at_slurm, desk, notices, queue, sweeps
from engine.sweep.queue import Item
from hah_tui.cli import output
from hah_tui.cli.output import Json, RunArgument, RunsDir, note, note_allocation, print_json, print_table
from hah_tui.text import age, shown_line, slurm_line

if TYPE_CHECKING:
    from engine.sweep.submit import Asked

GroupOption = Annotated[str | None, typer.Option("--group", help="The group whose limit it shares.")]
Priority = Annotated[int | None, typer.Option("--priority", min=-1000, max=1000, help="Higher goes first.")]
After = Annotated[
    list[str] | None,
    typer.Option("--after", metavar="RUN", help="Only when this run has finished.", autocompletion=output.complete_run),
]
Retries = Annotated[int | None, typer.Option("--retries", min=0, max=1000, help="Try again so often where it fails.")]
Nice = Annotated[int | None, typer.Option("--nice", min=0, max=19, help="Niceness of its engine.")]
Notify = Annotated[
    str | None,
    typer.Option("--notify", metavar="COMMAND", help="Call this when it has ended, HAH_RUN and HAH_STATUS set."),
]
POLL, ATTENDING = 0.5, 5.0  # seconds


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    commands = typer.Typer(no_args_is_help=True, help="Runs that wait for a device, started as devices come free.")
    for name, command in (("ls", ls), ("add", add), ("group", group), ("pause", pause), ("resume", resume),
                          ("attend", attend), ("move", move), ("rm", rm), ("wait", wait)):  # fmt: skip
        commands.command(name)(command)
    app.add_typer(commands, name="queue")


def resolved(reference: str, folder: Path) -> RunDirectory:
    """The run of the queue that a RUN means, also by the id of its evaluation; raises RequestError."""
    found = store.resolve(reference, folder)
    return found if found.path.parent == folder else RunDirectory(found.path.parents[1])


def asked(
    group: str | None,
    priority: int | None,
    after: list[str] | None,
    retries: int | None,
    nice: int | None,
    folder: Path,
) -> Asked:
    """What these options ask for; raises RequestError."""
    from engine.sweep.submit import Asked

    if group is not None and not is_name(group):
        raise RequestError(f"--group: must be {NAME_FORMAT}, got {group!r:.60}")
    before = tuple(resolved(reference, folder).id for reference in after) if after else None
    return Asked(group, priority, before, retries, nice)


def ensure(folder: Path) -> None:
    """Have somebody start what waits."""
    desk.ensure_dispatcher(folder)
    say_held(folder)


def say_held(folder: Path) -> None:
    """Say it where nothing is to be started."""
    if desk.paused(folder):
        note("the queue is paused: 'hah queue resume' goes on")


def ls(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also what has ended.")] = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """List what runs and what waits, in order, and why."""
    folder = layout.runs_folder(runs_dir)
    items = queue.Queue(folder).items()
    rows = queue.explained(folder, items, at_slurm.told(at_slurm.reader(folder).items()))
    rows = [(item, text) for item, text in rows if everything or item.standing in ("live", "ready")]
    groups = desk.groups(folder)
    hosts = desk.hosts(folder)
    there = desk.has_dispatcher(folder)
    if json:
        print_json({
            "runs_dir": str(folder), "paused": desk.paused(folder), "dispatcher": there,
            "hosts": [{**vars(one), "here": one.name == desk.this_host()} for one in hosts],
            "groups": [vars(one) for one in groups.values()],
            "runs": [{**document(item), "why": text} for item, text in rows],
        })  # fmt: skip
        return
    if rows:
        lines = [
            [item.job.id, item.status + ("?" if item.standing == "live" and not item.look.verified else ""),
             item.entry.group, item.entry.priority or "", _progress(item), item.look.device, age(item.entry.queued),
             slurm_line(item.look) or text]
            for item, text in rows
        ]  # fmt: skip
        print_table(["run", "status", "group", "priority", "done", "device", "queued", "why"], lines, (3, 4, 6))
    else:
        note(f"nothing runs or waits in the queue of {folder}; 'hah queue add quickstart' adds a run")
    for one in groups.values():
        if one.paused:
            reason = f" ({shown_line(one.reason)})" if one.reason else ""
            note(f"group {one.name} is paused{reason}: 'hah queue resume {one.name}' goes on")
    attending = [one for one in hosts if one.attends]
    if any(one.name != desk.this_host() for one in attending):
        note("hosts that start what waits: " + ", ".join(map(_host, attending)))
        commits = {one.commit for one in attending}
        if len(commits) > 1:
            note("they run different commits: 'hah show' says which one trained a run")
    if desk.paused(folder):
        note("the queue is paused: 'hah queue resume' goes on")
    elif not there and any(item.standing == "ready" for item in items):
        others = " (others do, for their own devices)" if attending else ""
        why = desk.refusal(folder)
        note(why or f"nobody on this host starts what waits{others}: 'hah queue resume' does")


def _host(host: desk.Host) -> str:
    devices = f"{host.gpus} GPUs" if host.gpus else f"{host.threads} CPU threads"
    commit = f", commit {host.commit[:12]}" if host.commit else ""
    return shown_line(f"{host.name} ({'this one, ' if host.name == desk.this_host() else ''}{devices}{commit})")


def document(item: Item) -> dict[str, Any]:
    """A run of the queue as a program reads it."""
    entry = item.entry
    return {
        "id": item.run.id, "job": item.job.id, "standing": item.standing, "status": item.look.status,
        "group": entry.group, "priority": entry.priority, "position": entry.position, "after": list(entry.after),
        "retries": entry.retries, "starts": len(item.starts), "queued": entry.queued, "commit": entry.commit,
        "error": item.look.state.error, "slurm": item.look.slurm and item.look.slurm.facts(),
    }  # fmt: skip


def _progress(item: Item) -> str:
    return f"{100 * item.look.state.progress:.0f}%"


def add(
    references: Annotated[
        list[str], typer.Argument(metavar="PRESET|FILE|RUN...", autocompletion=output.complete_preset)
    ],
    group: GroupOption = None,
    priority: Priority = None,
    after: After = None,
    retries: Retries = None,
    nice: Nice = None,
    notify: Notify = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one setting of new runs.")
    ] = None,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Queue new runs of presets, or runs that have ended, to be gone on with."""
    from engine.experiment import presets
    from engine.runs.making import Origin
    from engine.runs.state import read_state
    from engine.sweep import submit
    from hah_tui import engines

    folder = layout.runs_folder(runs_dir)
    wanted = asked(group, priority, after, retries, nice, folder)
    command = notices.words_of(notify) if notify is not None else []
    runs: list[tuple[RunDirectory, Any]] = []
    new: list[tuple[Any, Origin]] = []
    names = {preset.name for preset in presets.listed()}
    for reference in references:
        if reference in names or "/" in reference or reference.endswith((".yaml", ".yml")):
            found = presets.find(reference)
            new.append((presets.load(reference, set_ or []), Origin(found.name, found.path, set_ or [])))
            continue
        run = resolved(reference, folder)
        look = store.look(run)
        queue.check_after(run, wanted.after or ())
        if look.live and look.status != "queued":
            raise RequestError(f"{run.id} is {look.status}; nothing was queued")
        submitted.check_free(run)
        if look.status == "finished":
            raise RequestError(f"{run.id} has finished; 'hah resume --epochs N' trains it further. Nothing was queued")
        runs.append((run, store.experiment_of(run, read_state(run))))
    if runs and set_:
        raise RequestError(f"--set: changes new runs, and {runs[0][0].id} is there already; nothing was queued")
    engines.check_place(*(experiment for experiment, _ in new), *(experiment for _, experiment in runs))
    queued = [submit.add(experiment, origin, folder, wanted) for experiment, origin in new]
    for run, experiment in runs:
        submit.again(run, experiment, wanted)
        queued.append(run)
    for run in queued:
        if command:
            notices.ask(run.path, command)
    ensure(folder)
    say_queued(queued, json)


def say_queued(runs: list[RunDirectory], json: bool) -> None:
    """Say which runs were queued."""
    note_allocation()
    if json:
        print_json({"queued": [{"id": run.id, "path": str(run.path)} for run in runs]})
    else:
        for run in runs:
            print(f"{run.id} waits in the queue; 'hah queue ls' shows it")


def group(
    name: Annotated[str, typer.Argument(metavar="GROUP")],
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="Runs of it at once (0: no limit).")] = None,
    per_gpu: Annotated[int | None, typer.Option("--per-gpu", min=1, help="Engines on one GPU.")] = None,
    priority: Priority = None,
    notify: Notify = None,
    runs_dir: RunsDir = None,
) -> None:
    """Set the limit of a group (a sweep is one), the priority of what runs and waits of it, or say what it is."""
    folder = layout.runs_folder(runs_dir)
    settings: dict[str, Any] = {"limit": limit or None} if limit is not None else {}
    if per_gpu is not None:
        settings["per_gpu"] = per_gpu
    command = notices.words_of(notify) if notify is not None else []
    found = desk.set_group(folder, name, **settings) if settings or command else desk.group_of(folder, name)
    if command:
        notices.ask(desk.folder_of(folder) / "groups" / name, command)
    at_once = "as many at once as there are devices" if found.limit is None else f"{found.limit} at once"
    print(f"{found.name}: {at_once}, {found.per_gpu} on one GPU{', paused' if found.paused else ''}")
    if priority is not None:
        if name in sweeps.names(folder):  # what it will queue has it too
            sweep = sweeps.read(folder, name)
            sweeps.write(folder, replace(sweep, slots={**sweep.slots, "priority": priority}))
        count = queue.prioritize(folder, name, priority)
        print(f"{found.name}: priority {priority} of {count} runs that run or wait")


def pause(name: Annotated[str | None, typer.Argument(metavar="[GROUP]")] = None, runs_dir: RunsDir = None) -> None:
    """Start nothing new, of everything or of one group; what runs goes on."""
    folder = layout.runs_folder(runs_dir)
    if name is None:
        desk.pause(folder, True)
    else:
        desk.set_group(folder, name, paused=True, reason="")
    print(f"{name or 'the queue'}: paused")


def resume(
    name: Annotated[str | None, typer.Argument(metavar="[GROUP]")] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Where only one host may start what waits, make it this one.")
    ] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Go on starting what waits, of everything or of one group."""
    folder = layout.runs_folder(runs_dir)
    if here:
        desk.set_home(folder)
    if name is None:
        desk.pause(folder, False)
    else:
        desk.set_group(folder, name, paused=False, reason="", since=time.time())
    desk.ensure_dispatcher(folder)
    print(f"{name or 'the queue'}: goes on")


def attend(
    wanted: Annotated[str, typer.Argument(metavar="|".join(desk.WISHES))],
    runs_dir: RunsDir = None,
) -> None:
    """Say when this host starts what waits in a folder: while it is needed (the default: from a command until nothing
    is left), always (also what other hosts will queue), or never (a login node)."""
    wish = next((one for one in desk.WISHES if one == wanted), None)
    if wish is None:
        raise RequestError(f"must be one of {', '.join(desk.WISHES)}, got {wanted!r:.60}")
    folder = layout.runs_folder(runs_dir)
    if wish == "always":
        desk.check_host(folder)
    desk.set_wish(folder, wish)
    if wish == "always":
        desk.ensure_dispatcher(folder)
    print(f"{desk.this_host()}: {wish}")


def move(
    reference: RunArgument,
    first: Annotated[bool, typer.Option("--first", help="Before all others of its priority.")] = False,
    last: Annotated[bool, typer.Option("--last", help="After all others of its priority.")] = False,
    before: Annotated[str | None, typer.Option("--before", metavar="RUN", help="Right before this one.")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Change the order in which runs wait."""
    if first + last + (before is not None) != 1:
        raise RequestError("say where to: one of --first, --last and --before RUN")
    folder = layout.runs_folder(runs_dir)
    run = resolved(reference, folder)
    queue.move(folder, run, first, resolved(before, folder) if before is not None else None)
    print(f"{run.id}: moved")


def rm(
    references: Annotated[list[str], typer.Argument(metavar="RUN...", autocompletion=output.complete_run)],
    runs_dir: RunsDir = None,
) -> None:
    """Take runs out of the queue: what waits is stopped, what runs goes on and is not started again."""
    folder = layout.runs_folder(runs_dir)
    for run in [resolved(reference, folder) for reference in references]:
        if problem := submitted.withdraw([store.look(job) for job in (run, run.evaluation) if job.config.exists()])[1]:
            raise RequestError(problem)
        queue.leave(run)
        print(f"{run.id}: out of the queue")


def wait(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", autocompletion=output.complete_run)
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Wait until runs of the queue (all of it, if none is named) have ended.

    Exit code 0: all finished; 1: something failed; 130: something was stopped, or Ctrl-C.
    """
    folder = layout.runs_folder(runs_dir)
    named = [resolved(reference, folder) for reference in references or []]
    reader = queue.Queue(folder)
    mine = {run.id for run in named}
    if not mine:
        items = [*reader.items(), *(item for item, _ in at_slurm.told(at_slurm.reader(folder).items()))]
        mine = {item.run.id for item in items if item.standing in ("live", "ready")}
    attended, slurm = 0.0, Poll()
    while True:
        found = {item.run.id: item for item in reader.items() if item.run.id in mine}
        outside = {name: standing_of(RunDirectory(folder / name), slurm) for name in mine - set(found)}
        waiting = [item for item in found.values() if item.standing in ("live", "ready")]
        if not waiting and "live" not in outside.values():
            raise typer.Exit(outcome(list(found.values()), list(outside.values())))
        if waiting and time.monotonic() - attended > ATTENDING:
            keep_attended(folder)
            attended = time.monotonic()
        time.sleep(POLL)


def keep_attended(folder: Path) -> None:
    """Have somebody start what waits, as whoever did may have been killed; where others do, this host need not."""
    if not any(host.attends for host in desk.others(folder)):
        desk.ensure_dispatcher(folder)


def standing_of(run: RunDirectory, slurm: Poll | None = None) -> str:
    """How a run stands that is not, or no longer, the queue's."""
    if not run.config.exists():
        return "stopped"  # it was deleted
    look = store.look(run)
    if slurm is not None:
        look = submitted.told([look], slurm.now)[0]
    if look.taken:
        return "live"
    if look.abandoned:
        return "lost"
    if look.status == "queued":
        return "stopped"  # nobody will start it
    return "live" if look.live else look.status


def outcome(items: list[Item], outside: Sequence[str] = ()) -> int:
    """The exit code for runs that have ended."""
    over = [item.look.status for item in items if item.standing == "over"]
    over += [status for status in outside if status != "finished"]
    return 1 if [status for status in over if status != "stopped"] else 130 if over else 0
