"""Commands of sweeps: plans of many runs, queued, watched, stopped, extended."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.experiment.mistakes import RequestError
from engine.runs import layout, store
from engine.runs.metrics import CLEAN, NOISY
from engine.runs.slurm import job_of
from engine.runs.squeue import Poll
from engine.sweep import desk, notices, queue, sweeps
from engine.sweep.sweeps import Sweep, Trial
from hah_tui.cli import queueing, reporting, submitting
from hah_tui.cli.output import Json, RunsDir, note, note_allocation, print_json, print_table
from hah_tui.cli.queueing import Nice, Notify
from hah_tui.cli.submitting import On, ProfileName, Where
from hah_tui.text import duration, percent, shown_line, slurm_line

if TYPE_CHECKING:
    from engine.experiment import Experiment

POLL = 1.0
MOST_ROWS = 2_000
_ENDED = ("finished", "failed", "stopped", "lost", "missing", "unevaluated")


def _complete_plan(incomplete: str) -> list[str]:
    from engine.sweep import plan

    return [one.name for one in plan.shipped() if one.name.startswith(incomplete)]


def _complete_sweep(incomplete: str) -> list[str]:
    return [name for name in sweeps.names(layout.runs_folder()) if name.startswith(incomplete)]


SweepArgument = Annotated[
    str, typer.Argument(metavar="SWEEP", help="A name, the beginning of one, or @last.", autocompletion=_complete_sweep)
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as everything is queued.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    commands = typer.Typer(no_args_is_help=True, help="Many runs at once: cases, axes and seeds over a base.")
    for name, command in (("run", run), ("ls", ls), ("status", status), ("stop", stop), ("resume", resume),
                          ("extend", extend), ("rm", rm)):  # fmt: skip
        commands.command(name)(command)
    app.add_typer(commands, name="sweep")


def run(
    plan: Annotated[
        str, typer.Argument(metavar="FILE|NAME", help="A .yaml file or a shipped sweep.", autocompletion=_complete_plan)
    ],
    slots: Annotated[int | None, typer.Option("--slots", min=1, help="Runs of it at once.")] = None,
    per_gpu: Annotated[int | None, typer.Option("--per-gpu", min=1, help="Engines on one GPU.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change one setting of every run.")
    ] = None,
    nice: Nice = None,
    notify: Notify = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would run.")] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="DIR", help="When all has ended, write the report of these runs there."),
    ] = None,
    detach: Detach = False,
    on: On = "local",
    profile: ProfileName = None,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Queue the runs of a sweep that are not there yet, and follow them.

    Equal experiments are one run: what is there already, made by whomever, counts; what was stopped or lost goes on.
    Ctrl-C leaves it to the queue. With --on slurm they are handed to Slurm, which is all that is waited for. Exit codes
    as of 'hah sweep status'.
    """
    from engine.sweep import plan as plans
    from engine.sweep import submit

    submitting.check(on, profile)
    folder = layout.runs_folder(runs_dir)
    found = plans.load(plans.find(plan), set_ or [])
    asked = {name: value for name, value in (("limit", slots), ("per_gpu", per_gpu)) if value is not None}
    sweep = sweeps.of_plan(found)
    sweep = replace(sweep, slots={**sweep.slots, **asked}, on=on, profile=profile)
    experiments = [point.experiment for point in found.points]
    if dry_run and on == "slurm":
        submitting.print_scripts(submit.scripts(folder, sweep), json)
        return
    if dry_run:
        _print_plan(folder, sweep, experiments, json)
        return
    if report is not None and (detach or on == "slurm"):
        without = "--detach" if detach else "--on slurm"
        raise RequestError(
            f"--report is written when all has ended, which {without} does not wait for; later: "
            f"'hah report paper {sweep.name} --to {report}', or 'hah report runs' of networks that are not the paper's"
        )
    from hah_tui import engines

    command = notices.words_of(notify) if notify is not None else []
    if on == "slurm":
        if command or nice is not None:
            raise RequestError(f"{'--notify' if command else '--nice'}: is for the queue of this host, not for Slurm")
        engines.check_site(profile, *experiments)
    else:
        submit.check_group(folder, sweep)
        engines.check_place(*experiments)
    if sweep.name in sweeps.names(folder):
        sweep = _over(folder, sweep)
    sweeps.write(folder, sweep)
    if command:
        notices.ask(desk.folder_of(folder) / "groups" / sweep.name, command)
    if not json:
        for line in _forecast(folder, sweep, experiments).said():
            note(line)
    try:
        _go(folder, sweep, nice, False, detach, json)
    finally:
        if report is not None and not _under_way(folder, sweeps.trials(sweep, [folder])):
            for path in reporting.write_of_sweep(sweep.name, folder, report)[:1]:
                note(f"the report: {shown_line(path, 4096)}")


def _over(folder: Path, sweep: Sweep) -> Sweep:
    """A plan in place of the one of its name; what is no more in it is said."""
    try:
        old = sweeps.read(folder, sweep.name)
    except RequestError:
        return sweep
    gone = {(point.group, seed) for point, seed in old.trials} - {(point.group, seed) for point, seed in sweep.trials}
    if gone:
        note(f"{len(gone)} runs of {sweep.name} as it was are not in this plan: they stay, and no longer belong to it")
    return sweep


def _go(folder: Path, sweep: Sweep, nice: int | None, failed: bool, detach: bool, json: bool) -> None:
    """Queue what is to be done of a sweep, and follow it."""
    from engine.sweep import submit

    told = time.monotonic()
    done = 0

    def progress() -> None:
        nonlocal told, done
        done += 1
        if time.monotonic() - told > 2 and not json:
            told = time.monotonic()
            note(f"queued {done:,} of {len(sweep.trials):,}")

    at_slurm = sweep.on == "slurm"
    try:
        counts = submit.go(folder, sweep, nice, failed, progress)
    finally:
        if not at_slurm:
            queueing.say_held(folder)
            note_allocation()
    if not json:
        said = {"make": "new", "go on": "to go on with", "evaluate": "to be evaluated", "": "there already"}
        print(f"{sweep.name}: " + ", ".join(f"{counts[act]:,} {said[act]}" for act in said if act in counts))
    if at_slurm:
        _say_jobs(folder, sweep, json)
        return
    _stay(folder, sweep, detach, json)


def _say_jobs(folder: Path, sweep: Sweep, json: bool) -> None:
    """Which jobs of Slurm the runs of a sweep are."""
    found = [trial.job for trial in sweeps.trials(sweep, [folder]) if trial.job is not None]
    noted = [(look.run, job) for look in found if look.live and (job := job_of(look.run)) is not None]
    if json:
        rows = [submitting.document(run, job.id, job.cluster, job.script) for run, job in noted]
        print_json({"name": sweep.name, "trials": len(sweep.trials), "submitted": rows})
        return
    counts = Counter(job.job for _, job in noted)
    for number, count in counts.items():
        print(f"job {number} of Slurm: {count} run{'s' if count > 1 else ''}; 'scancel {number}' cancels it")
    print(f"Slurm goes on by itself; 'hah sweep status {sweep.name}' says how far it is")


def _print_plan(folder: Path, sweep: Sweep, experiments: Sequence[Experiment], json: bool) -> None:
    """What would run: each trial, whether it is there, how long it takes; the whole, and the disk it needs."""
    from engine.sweep import submit

    told = {"make": "new", "go on": "goes on", "evaluate": "to be evaluated", "": ""}
    forecast = _forecast(folder, sweep, experiments)
    rows, counts = forecast.rows, Counter(act for _, act, _ in forecast.rows)
    sizes = {point.group: submit.disk_bytes(one) for point, one in zip(sweep.points, experiments, strict=True)}
    space = sum(sizes[trial.point.group] for trial, act, _ in rows if act == "make")
    free = shutil.disk_usage(_existing(folder)).free
    if json:
        print_json({
            "name": sweep.name, "description": sweep.description, "runs_dir": str(folder),
            "trials": [{**submit.facts(trial), "act": act or None, "seconds": needs} for trial, act, needs in rows],
            "seconds": forecast.seconds if not forecast.unknown else None, "disk_bytes": space,
            "disk_free_bytes": free,
        })  # fmt: skip
        return
    lines = [
        [trial.point.label, trial.seed, told[act] or trial.status, trial.look.run.id if trial.look else "",
         duration(needs) if act else ""]
        for trial, act, needs in rows[:MOST_ROWS]
    ]  # fmt: skip
    print_table(["case", "seed", "", "run", "training"], lines, (1, 4))
    if len(rows) > MOST_ROWS:
        note(f"{len(rows) - MOST_ROWS:,} more")
    parts = [f"{counts[act]:,} {told[act] or 'there already'}" for act in told if counts[act]]
    print(f"\n{sweep.name}: {len(rows):,} runs, {', '.join(parts)}")
    for line in forecast.said():
        print(line)
    print(f"disk: {space / 1e9:.1f} GB needed at most, {free / 1e9:.1f} GB free in {_existing(folder)}")
    if space > free:
        note("that is more than there is: the queue waits where less than 2 GiB are free (HAH_DISK_MARGIN)")


@dataclass(frozen=True)
class _Forecast:
    """``rows``: each trial, what is to be done for it and the seconds of training, None where nobody knows; of those
    there are ``unknown``. ``evaluated``: evaluations come on top."""

    rows: list[tuple[Trial, str, float | None]]
    evaluated: bool

    @property
    def seconds(self) -> float:
        return sum(needs or 0.0 for _, _, needs in self.rows)

    @property
    def unknown(self) -> int:
        return sum(needs is None for _, _, needs in self.rows)

    def said(self) -> list[str]:
        """How long it takes, and how that is known."""
        trained = [act for _, act, _ in self.rows if act in ("make", "go on")]
        lines = []
        if len(trained) > self.unknown:
            more = f", and {self.unknown:,} runs of networks not yet trained on this machine" if self.unknown else ""
            known = f"training takes {duration(self.seconds)} in all, one after the other"
            lines.append(f"{known}, by earlier runs on this machine{more}")
        elif self.unknown:
            lines.append("how long it takes is not known: no such network was trained on this machine")
        if self.unknown:
            lines.append("one epoch of one of them tells ('hah run PRESET --set train.epochs=1'), then --dry-run again")
        if self.evaluated and any(act for _, act, _ in self.rows):
            lines.append("evaluations come on top; 'hah eval RUN --estimate' says how long one takes")
        return lines


def _forecast(folder: Path, sweep: Sweep, experiments: Sequence[Experiment]) -> _Forecast:
    """What is to be done of a sweep, and how long its trainings take by the speed of earlier ones."""
    from engine.sweep import submit
    from hah_tui.speeds import expected_seconds, speeds

    known = speeds(folder) if folder.is_dir() else []
    expected = {
        point.group: expected_seconds(experiment, known)
        for point, experiment in zip(sweep.points, experiments, strict=True)
    }
    rows: list[tuple[Trial, str, float | None]] = []
    for trial in sweeps.told(sweeps.trials(sweep, [folder])):
        act = submit.act_for(trial, failed=False)
        whole = expected[trial.point.group] if act in ("make", "go on") else (0.0, 0)
        left = 1 - trial.look.state.progress if trial.look is not None else 1.0
        rows.append((trial, act, whole[0] * left if whole else None))
    return _Forecast(rows, any(point.evaluation.get("suites") for point in sweep.points))


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def ls(runs_dir: RunsDir = None, json: Json = False) -> None:
    """List the sweeps of the runs folder, and those that come with this program."""
    from engine.sweep import plan

    folder = layout.runs_folder(runs_dir)
    found, reader = [], sweeps.Reader([folder])
    for name in sweeps.names(folder):
        try:
            sweep = sweeps.read(folder, name)
        except RequestError as error:
            note(str(error))
            continue
        counts = Counter(trial.status for trial in reader.trials(sweep))
        found.append((sweep, counts))
    shipped = [one.name for one in plan.shipped()]
    if json:
        print_json({
            "sweeps": [{"name": sweep.name, "description": sweep.description, "trials": len(sweep.trials),
                        "status": dict(counts)} for sweep, counts in found],
            "shipped": shipped,
        })  # fmt: skip
        return
    if found:
        rows = [[sweep.name, len(sweep.trials), _said(counts), sweep.description] for sweep, counts in found]
        print_table(["sweep", "runs", "status", ""], rows, (1,))
    note(f"'hah sweep run NAME' starts one of: {', '.join(shipped)}")


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _resolve(reference: str, folder: Path) -> Sweep:
    """A sweep of the folder, or a plan that has a name or a file; raises RequestError."""
    try:
        return sweeps.resolve(reference, folder)
    except RequestError:
        from engine.sweep import plan  # brings the schema

        if reference not in [one.name for one in plan.shipped()] and not reference.endswith((".yaml", ".yml")):
            raise
    return sweeps.of_plan(plan.load(plan.find(reference)))


def status(
    reference: Annotated[
        str, typer.Argument(metavar="SWEEP", help="A sweep, or a plan, whose runs are looked for by what they are.",
                            autocompletion=_complete_sweep)
    ],
    results: Annotated[
        Path | None, typer.Option("--results", help="Also runs that were kept there by 'hah export --results'.")
    ] = None,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Say how far a sweep is, run by run.

    Exit code 0: all finished; 1: something failed; 130: something is still to be done.
    """
    from engine.sweep import submit

    folder = layout.runs_folder(runs_dir)
    sweep = _resolve(reference, folder)
    trials = sweeps.told(sweeps.trials(sweep, [folder, *([results.absolute()] if results is not None else [])]))
    if json:
        print_json({"name": sweep.name, "trials": [submit.facts(trial) for trial in trials]})
    else:
        _print_trials(folder, sweep, trials)
    raise typer.Exit(exit_code(trials))


def _print_trials(folder: Path, sweep: Sweep, trials: Sequence[Trial]) -> None:
    rows = []
    for trial in trials:
        look = trial.look
        state = look.state if look else None
        metrics = state.metrics if state else {}
        rows.append([
            trial.point.label, trial.seed, trial.status, look.run.id if look else "",
            f"{state.epoch}/{state.epochs}" if state else "", percent(metrics.get(CLEAN)) if look else "",
            percent(metrics.get(NOISY)) if look else "",
            "" if not trial.job else shown_line(trial.job.state.error, 60) if trial.status == "failed"
            else slurm_line(trial.job),
        ])  # fmt: skip
    print_table(["case", "seed", "status", "run", "epoch", "clean", "noisy", ""], rows, (1, 4, 5, 6))
    print(f"\n{sweep.name}: {len(trials):,} runs, {_said(Counter(trial.status for trial in trials))}")
    one = desk.group_of(folder, sweep.name)
    if one.paused:
        reason = f" ({shown_line(one.reason)})" if one.reason else ""
        note(f"{sweep.name} is paused{reason}: 'hah queue resume {sweep.name}' goes on")


def exit_code(trials: Sequence[Trial]) -> int:
    """0 where all have finished, 1 where something failed, or waits for a job of Slurm that is gone, else 130."""
    if any(trial.abandoned or (trial.status in ("failed", "lost") and not trial.taken) for trial in trials):
        return 1
    return 0 if all(trial.status == "finished" for trial in trials) else 130


def stop(reference: SweepArgument, runs_dir: RunsDir = None) -> None:
    """Save and stop what runs of a sweep, and start nothing more of it; 'hah sweep resume' goes on."""
    from hah_tui import engines

    folder = layout.runs_folder(runs_dir)
    sweep = sweeps.resolve(reference, folder)
    waiting, stopped, refused = engines.stop_sweep(folder, sweep)
    print(f"{sweep.name}: {waiting} no longer wait, {stopped} stopped")
    if refused:
        raise RequestError(*refused)


def resume(
    reference: SweepArgument,
    failed: Annotated[bool, typer.Option("--failed", help="Also what failed.")] = False,
    nice: Nice = None,
    detach: Detach = False,
    on: Annotated[Where | None, typer.Option("--on", help="Where it runs from now on (else as before).")] = None,
    profile: ProfileName = None,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Go on with what was stopped or lost of a sweep, and with what was never made, where it was; follow it."""
    folder = layout.runs_folder(runs_dir)
    sweep = sweeps.resolve(reference, folder)
    submitting.check(on or sweep.on, profile)
    if (on or sweep.on, profile or sweep.profile) != (sweep.on, sweep.profile):
        sweep = replace(sweep, on=on or sweep.on, profile=profile or sweep.profile)
        sweeps.write(folder, sweep)
    _go(folder, sweep, nice, failed, detach, json)


def extend(
    reference: SweepArgument,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=1000, help="So many seeds in all.")],
    detach: Detach = False,
    runs_dir: RunsDir = None,
    json: Json = False,
) -> None:
    """Give a sweep more seeds; only what is new runs."""
    from engine.sweep import submit

    folder = layout.runs_folder(runs_dir)
    sweep = submit.extend(folder, sweeps.resolve(reference, folder), seeds)
    _go(folder, sweep, None, False, detach, json)


def rm(
    reference: SweepArgument,
    runs: Annotated[bool, typer.Option("--runs", help="And its runs, but for those of another sweep.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Forget the plan of a sweep; its runs stay unless asked."""
    folder = layout.runs_folder(runs_dir)
    try:
        sweep = sweeps.resolve(reference, folder)
    except RequestError:
        if runs or reference not in sweeps.names(folder):
            raise
        sweep = Sweep(reference, "", "", (), ())  # its plan cannot be read; it can be forgotten
    gone = []
    if runs:
        others = sweeps.others_with(folder, sweep)
        known = sweeps.Reader([folder]).looks(sweep)
        gone = [
            look.run
            for point, seed in sweep.trials
            if (point.group, seed) not in others
            for look in known.get((point.group, seed), [])
        ]
        for one in gone:
            look = store.look(one)
            if look.live and look.status != "queued":
                raise RequestError(f"{one.id} is {look.status}; 'hah sweep stop {sweep.name}' first")
    if not yes:
        for one in gone:
            print(f"{one.id}  {store.look(one).status}")
        and_runs = f" and these {len(gone)} runs" if gone else ""
        typer.confirm(f"Delete the plan of {sweep.name}{and_runs} for good?", abort=True)
    for one in gone:
        store.remove(one)
    sweeps.remove(folder, sweep.name)
    queue.forget(folder, sweep.name)
    desk.touch(folder)
    print(f"deleted the plan of {sweep.name}" + (f" and {len(gone)} runs" if runs else ""))


def _stay(folder: Path, sweep: Sweep, detach: bool, json: bool) -> None:
    """Follow a sweep until nothing of it runs or waits any more."""
    from engine.sweep import submit

    if detach:
        if json:
            print_json({"name": sweep.name, "trials": len(sweep.trials)})
        else:
            print(f"the queue goes on by itself; 'hah sweep status {sweep.name}' says how far it is")
        return
    before: dict[tuple[str, int], str] = {}
    reader, slurm = sweeps.Reader([folder]), Poll()
    attended = time.monotonic()
    try:
        while True:
            began = time.monotonic()
            trials = sweeps.told(reader.trials(sweep), slurm.now)
            for trial in trials:
                key = (trial.point.group, trial.seed)
                if before.get(key, "queued") != trial.status and not json and trial.look is not None:
                    print(_line(trial), flush=True)
                before[key] = trial.status
            group = desk.group_of(folder, sweep.name)
            if group.paused:
                note(f"{sweep.name} is paused ({shown_line(group.reason) or 'by a person'})")
                break
            if not _under_way(folder, trials):
                break
            if time.monotonic() - attended > queueing.ATTENDING:
                queueing.keep_attended(folder)
                attended = time.monotonic()
            time.sleep(max(POLL, 20 * (time.monotonic() - began)))
    except KeyboardInterrupt:
        note(f"the queue goes on; 'hah sweep stop {sweep.name}' stops it")
        raise
    trials = sweeps.told(reader.trials(sweep))
    if json:
        print_json({"name": sweep.name, "trials": [submit.facts(trial) for trial in trials]})
    else:
        _print_trials(folder, sweep, trials)
    raise typer.Exit(exit_code(trials))


def _under_way(folder: Path, trials: Sequence[Trial]) -> bool:
    """Whether anything of these runs, waits, or is to be started again by the queue."""
    if any(trial.taken or (trial.status not in _ENDED and not trial.abandoned) for trial in trials):
        return True
    mine = {trial.look.run.id for trial in trials if trial.look is not None}
    return any(item.run.id in mine and item.standing in ("live", "ready") for item in queue.Queue(folder).items())


def _line(trial: Trial) -> str:
    state = trial.look.state if trial.look else None
    assert state is not None
    clean = f"  clean {percent(state.metrics.get(CLEAN))}" if trial.status == "finished" else ""
    error = f"  {shown_line(state.error, 200)}" if trial.status == "failed" else ""
    return f"{shown_line(trial.point.label)} seed {trial.seed}: {trial.status}{clean}{error}"
