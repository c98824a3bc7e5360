"""The runs folder as a list: which runs there are, in which order, and which one somebody means."""

from __future__ import annotations

import difflib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine import disk
from engine.disk import read_json, replace_json
from engine.experiment.fingerprint import SECTIONS, fingerprint, is_current
from engine.experiment.mistakes import RequestError
from engine.experiment.names import NAME_FORMAT, is_name
from engine.experiment.version import VERSION
from engine.runs import submitted
from engine.runs.layout import EVALUATION, RunDirectory
from engine.runs.process import Lock, is_locked
from engine.runs.state import State
from engine.runs.watcher import Look, Watcher

if TYPE_CHECKING:
    from engine.experiment import Experiment

_ID_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Labels:
    """What a person wrote on a run."""

    tags: tuple[str, ...] = ()
    note: str = ""


def all_runs(folder: Path) -> list[RunDirectory]:
    """Every run of ``folder``, the most recently created first; [] where there is no such folder.

    A run is a real directory (no link) with a config.yaml, which is written once, when the run is made.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _ID_PATTERN.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    try:
                        config = os.stat(f"{entry.path}/config.yaml", follow_symlinks=False)  # noqa: PTH116 (5,000 of them)
                    except OSError:
                        continue
                    if stat.S_ISREG(config.st_mode):
                        found.append((config.st_mtime_ns, entry.name))
    except OSError:
        return []
    return [RunDirectory(folder / name) for _, name in sorted(found, reverse=True)]


def links(folder: Path) -> list[str]:
    """Names in ``folder`` of links to folders: they are no runs, since nothing is written through a link."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name for entry in entries
                if _ID_PATTERN.fullmatch(entry.name) and entry.is_symlink() and entry.is_dir()
            )  # fmt: skip
    except OSError:
        return []


def runs_of(folders: Sequence[Path]) -> list[RunDirectory]:
    """Every run of several folders; one that is in two of them counts in the first."""
    found: dict[str, RunDirectory] = {}
    for folder in folders:
        for run in all_runs(folder):
            found.setdefault(run.id, run)
    return list(found.values())


def resolve(reference: str, folder: Path, *more: Path, sweeps: Sequence[str] | None = None) -> RunDirectory:
    """The run of an id, a unique beginning of one, a name, or @last, in one or more folders; raises RequestError.

    With "-evaluation" behind it, the job that evaluates that run. ``sweeps``: their names, where one of them would
    have been right too, for the message.
    """
    if (
        reference.endswith(EVALUATION)
        and (job := resolve(reference[: -len(EVALUATION)], folder, *more).evaluation).config.exists()
    ):
        return job
    runs = runs_of([folder, *more])
    if not runs and not links(folder):
        raise RequestError(f"there are no runs in {' or '.join(map(str, (folder, *more)))}")
    if reference == "@last" and runs:
        return runs[0]
    exact = [run for run in runs if run.id == reference]
    if exact:
        return exact[0]
    begun = [run for run in runs if run.id.startswith(reference)] if reference else []
    if len(begun) == 1:
        return begun[0]
    if begun:
        some = ", ".join(run.id for run in begun[:5]) + (", ..." if len(begun) > 5 else "")
        raise RequestError(f"{reference!r} begins the ids of {len(begun)} runs: {some}; give more of one, or @last")
    for one in (folder, *more):
        if reference in links(one):
            raise RequestError(
                f"{reference} in {one} is a symbolic link, and no run: give --runs-dir where it leads to"
            )
    close = difflib.get_close_matches(reference, [*(run.id for run in runs), *(sweeps or ())], n=1, cutoff=0.5)
    lists = "'hah ls' lists them" if sweeps is None else "'hah ls' and 'hah sweep ls' list them"
    hint = f"did you mean {close[0]}?" if close else lists
    raise RequestError(f"no run {'' if sweeps is None else 'or sweep '}is called {reference!r} in {folder}; {hint}")


def another(reference: str, run: RunDirectory, setting: str) -> RunDirectory:
    """The run beside ``run`` that a setting names; raises RequestError where there is none, it is ``run`` itself, or it
    has learned another data set."""
    found = resolve(reference, run.path.parent)
    if found.id == run.id:
        raise RequestError(f"{setting}: {run.id} is the run itself; name another one")
    ours, theirs = (experiment_of(one, State()).data.dataset for one in (run, found))
    if theirs != ours:
        raise RequestError(f"{setting}: {found.id} has learned {theirs}, not {ours}; name another one")
    return found


def look(run: RunDirectory) -> Look:
    """One look at a run."""
    return Watcher(run).look()


def looks(runs: Iterable[RunDirectory]) -> Iterator[Look]:
    """One look at each run."""
    return map(look, runs)


def experiment_of(run: RunDirectory, state: State) -> Experiment:
    """The experiment as it is now: config.yaml with what was changed since; raises RequestError."""
    from engine.experiment import presets
    from engine.experiment.document import nested, read

    document = read(run.config)
    for name, value in state.changed.items():
        document = nested(name, value).over(document)
    return presets.validated(document)


def group_of(run: RunDirectory, state: State) -> str:
    """The fingerprint of a run's experiment without its seed, which its group shares, as stored, else of its
    config.yaml; '' where that cannot be read, or settings that its network depends on were changed while it trained."""
    if changed_on_the_way(state):
        return ""
    if is_current(state.group):
        return state.group
    try:
        # Thousands of runs of before this was stored share few texts.
        key = f"{_network_text(disk.read_text(run.config))}{state.changed}"
        if key not in _groups:
            _groups[key] = fingerprint(experiment_of(run, state), seed=False)
    except (OSError, RequestError):
        return ""
    return _groups[key]


_groups: dict[str, str] = {}  # by what of config.yaml decides, and what was changed since


def _network_text(config: str) -> str:
    """The sections of a written experiment that its network depends on, with its version; all of any other text."""
    start, end = config.find("\ndata:\n"), config.find("\nobserve:\n")
    version = config.partition("\n")[0] if config.startswith(VERSION) else ""
    return version + config[start:end] if config.startswith(("name:", VERSION)) and 0 <= start < end else config


def changed_on_the_way(state: State) -> list[str]:
    """The settings that a network depends on and that were changed while it trained, even where they are back where
    they were; how long it trained is seen by its epochs."""
    names = (name for name in state.changed if name.partition(".")[0] in SECTIONS)
    return sorted(name for name in names if name != "train.epochs")


def labels(run: RunDirectory) -> Labels:
    """The tags and the note of a run; what cannot be a tag is none."""
    stored = read_json(run.labels)
    tags, note = stored.get("tags"), stored.get("note")
    return Labels(tuple(filter(is_name, tags)) if isinstance(tags, list) else (), note if isinstance(note, str) else "")


def label(run: RunDirectory, *, add: Iterable[str] = (), remove: Iterable[str] = (), note: str | None = None) -> Labels:
    """Change the tags or the note of a run; raises RequestError for a tag that cannot be one."""
    run.check()
    add = list(add)
    for tag in add:
        if not is_name(tag):
            raise RequestError(f"{tag[:80]!r} cannot be a tag; allowed: {NAME_FORMAT}")
    old = labels(run)
    kept = [tag for tag in dict.fromkeys([*old.tags, *add]) if tag not in set(remove)]
    new = Labels(tuple(kept), old.note if note is None else note)
    try:
        replace_json(run.labels, {"tags": list(new.tags), "note": new.note})
    except OSError as error:
        raise RequestError(f"{run.labels} cannot be written: {error.strerror}") from None
    return new


def remove(run: RunDirectory) -> None:
    """Delete a run; raises RequestError while something runs it, or where it cannot be deleted."""
    run.check()
    look = Watcher(run).settled()
    if look.live and look.status != "queued":
        reason = f" ({look.reason})" if look.reason else ""
        raise RequestError(f"{run.id} is {look.status}{reason}; 'hah stop {run.id}' first")
    evaluation = Watcher(run.evaluation).settled() if run.evaluation.config.exists() else None
    if is_locked(run.evaluation.lock) or (evaluation is not None and evaluation.live and not evaluation.verified):
        raise RequestError(f"{run.id} is being evaluated; 'hah stop {run.id}' first")
    jobs = [look, *([Watcher(run.evaluation).look()] if run.evaluation.config.exists() else [])]
    if problem := submitted.withdraw(jobs)[1]:
        raise RequestError(f"{problem}; {run.id} was not deleted")
    # Out of the list in one step, so that a removal that is cut short leaves no half a run behind.
    grave, lock = run.path.with_name(f".{run.id}.{secrets.token_hex(4)}.removed"), None
    try:
        lock = Lock.take(run.lock)
        if lock is None:
            raise RequestError(f"{run.id} has been taken up meanwhile; nothing was deleted")
        run.path.rename(grave)
        lock.release()  # what is open stays for a while on NFS, and so would the folder
        shutil.rmtree(grave)
    except OSError as error:
        with suppress(OSError):  # what is left of it stays to be seen
            grave.rename(run.path)
        raise RequestError(f"{error.filename or run.path} cannot be deleted: {error.strerror}") from None
    finally:
        if lock is not None:
            lock.release()
