"""What Slurm is told: a script that a person can read, the list of its tasks beside it, and sbatch's answer."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.runs import squeue
from engine.runs.layout import RunDirectory
from engine.runs.squeue import Cluster

if TYPE_CHECKING:
    from engine.sweep.profiles import Profile

GOES_ON = 75  # the exit code of a task that is to be requeued, as BSD's "try again" (EX_TEMPFAIL)
_PLAIN = re.compile(r"[A-Za-z0-9@%+=:,./_-]+")
_PATIENCE = 60.0  # seconds for Slurm to answer
_LARGEST = 16 << 20
_MOST = 1001  # tasks of an array, where the cluster does not say


@dataclass(frozen=True)
class Tasks:
    """What the tasks of one job do: task N the run ``runs[N]`` of ``folder``, all that is left of it or only its
    evaluation; again up to ``retries`` times where it fails. Or all ``parts`` of them the evaluation of the only run.
    ``submitted``: Unix seconds, which tells submissions apart."""

    folder: Path
    only_evaluation: bool
    runs: tuple[str, ...]
    retries: int
    submitted: float
    cluster: str
    script: str
    parts: int = 1

    @property
    def count(self) -> int:
        return max(self.parts, len(self.runs))

    def write(self, path: Path) -> None:
        document = {**vars(self), "folder": str(self.folder), "runs": list(self.runs)}
        disk.replace_json(path, document)

    @classmethod
    def read(cls, path: Path) -> Tasks:
        """The tasks in a file; raises RequestError where it is no such list."""
        try:
            stored = disk.parse_json(disk.read_bytes(path, _LARGEST))
            runs = tuple(stored["runs"])
            if not all(
                isinstance(one, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", one) for one in runs
            ):
                raise ValueError("a run in it has no name")
            parts = int(stored.get("parts", 1))
            if parts > 1 and (len(runs) > 1 or stored["only_evaluation"] is not True):
                raise ValueError("only the evaluation of one run has parts")
            return cls(
                Path(stored["folder"]), stored["only_evaluation"] is True, runs, int(stored["retries"]),
                float(stored["submitted"]), str(stored["cluster"]), str(stored["script"]), parts,
            )  # fmt: skip
        except OSError as error:
            raise RequestError(
                f"{path} cannot be read here: {error.strerror}; the runs folder must be one that every node sees"
            ) from None
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{path} is no list of tasks: {error}") from None


@dataclass(frozen=True)
class Script:
    """An sbatch script with its tasks; ``path`` is its own, ``jobs`` the directories whose work it is to do."""

    path: Path
    text: str
    tasks: Tasks
    jobs: tuple[RunDirectory, ...]

    def write(self) -> None:
        """Keep it and its tasks, so that both can be read later, or neither; raises OSError."""
        try:
            self.tasks.write(self.path.with_suffix(".json"))
            disk.replace_text(self.path, self.text)
        except OSError:
            with suppress(OSError):
                self.forget()
            raise

    def forget(self) -> None:
        for path in (self.path, self.path.with_suffix(".json")):
            path.unlink(missing_ok=True)


def place(folder: Path) -> Path:
    """Where the scripts of a runs folder are kept."""
    return folder / ".slurm"


def made(folder: Path) -> Path:
    """That place, made; raises RequestError where it cannot be, or is a link."""
    there = place(folder)
    if there.is_symlink():
        raise RequestError(f"{there} is a symbolic link; nothing is written through one")
    try:
        there.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{there} cannot be made: {error.strerror}") from None
    return there


def scripts(
    folder: Path, name: str, jobs: Sequence[tuple[str, RunDirectory]], profile: Profile, site: Cluster,
    *, only_evaluation: bool = False, limit: int | None = None, retries: int = 0, parts: int = 1,
) -> list[Script]:  # fmt: skip
    """The scripts for ``jobs`` (id of a run, the directory that is worked on): arrays of at most so many tasks as the
    site takes, ``limit`` of them at once; for the evaluation of one run, ``parts`` tasks. Raises RequestError."""
    if not str(folder).isprintable() or "\\" in str(folder):
        raise RequestError(f"{str(folder)!r}: Slurm can write no log below a folder of this name")
    if not (data := profile.data or os.environ.get("HAH_DATA", "")).isprintable():
        raise RequestError(f"HAH_DATA: {data!r} is no path that a script can hold")
    most, now, stamp = max(1, profile.max_array or site.most or _MOST), time.time(), time.strftime("%Y%m%d-%H%M%S")
    if parts > most:
        raise RequestError(f"compute.evaluators: must be at most {most}, the tasks of an array here, got {parts}")
    found = []
    for first in range(0, len(jobs), most):
        some = jobs[first : first + most]
        path = place(folder) / f"{name}-{stamp}-{secrets.token_hex(2)}.sh"
        tasks = Tasks(folder, only_evaluation, tuple(run for run, _ in some), retries, now, site.name, str(path), parts)
        text = _text(name, path, tasks, some[0][1], profile, limit)
        found.append(Script(path, text, tasks, tuple(job for _, job in some)))
    return found


def _text(name: str, path: Path, tasks: Tasks, first: RunDirectory, profile: Profile, limit: int | None) -> str:
    count = tasks.count
    at_once = f"%{limit}" if limit is not None and limit < count else ""
    alone, here = count == 1, str(path.parent).replace("%", "%%")
    log = str(first.path / "slurm.log").replace("%", "%%") if alone else f"{here}/{path.stem}-%A_%a.log"
    given = {
        "job-name": f"hah-{name}",
        "array": "" if alone else f"0-{count - 1}{at_once}",
        "partition": profile.partition, "account": profile.account, "gres": profile.gres,
        "nodes": "1", "ntasks": "1", "cpus-per-task": profile.cpus, "mem": profile.memory, "time": profile.time,
        "output": log, "open-mode": "append", "chdir": "/",  # "python -m" looks for modules there first
    }  # fmt: skip
    options = [f"--{option}={_quoted(str(value))}" for option, value in given.items() if value]
    # TERM reaches what srun has started, not this script.
    options += ["--requeue", f"--signal=TERM@{profile.grace}", "--export=NIL", *profile.options]
    data = profile.data or os.environ.get("HAH_DATA")
    environment = {"HAH_RUNS": str(tasks.folder), **({"HAH_DATA": str(Path(data).absolute())} if data else {})}
    python = [profile.python or sys.executable, "-m", "engine.sweep.task", str(path.with_suffix(".json"))]
    threads = [f"--cpus-per-task={profile.cpus}"] if profile.cpus else []  # which srun does not inherit
    words = ["srun", "--ntasks=1", *threads, "--export=ALL", *shlex.split(profile.container or ""), *python]
    what = tasks.runs[0] if alone else f"{count} runs, one a task; {path.with_suffix('.json').name} says which is whose"
    if tasks.parts > 1:
        what = f"{tasks.runs[0]}, evaluated by {count} tasks, the first of which brings together what all have measured"
    lines = [
        "#!/bin/bash -l",
        f"# Written by hah on {time.strftime('%Y-%m-%d %H:%M:%S')}: {what}",
        *(f"#SBATCH {option}" for option in options),
        "",
        "export HOME",
        *(f"export {variable}={shlex.quote(value)}" for variable, value in environment.items()),
        *(f"module load {shlex.quote(module)} || exit 1" for module in profile.modules),
        *profile.shell,
        "",
        f'{shlex.join(words)} "${{SLURM_ARRAY_TASK_ID:-0}}"',
        "code=$?",
        f'if [ "$code" -eq {GOES_ON} ]; then',
        "    # Saved, and to go on: near the time limit, or others need the node. An exit would count as done.",
        '    if [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" != COMPLETING ] && scontrol requeue "$SLURM_JOB_ID"; then',
        "        sleep 3600  # until Slurm ends this",
        "    fi",
        "    code=1",
        "fi",
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    """A value in a #SBATCH line."""
    return value if _PLAIN.fullmatch(value) else '"' + value.replace('"', '\\"') + '"'


# Slurm's programs


def site() -> Cluster:
    """The cluster of this machine; raises RequestError where there is none, or it does not answer."""
    found = squeue.cluster(_PATIENCE)
    if found is None:
        raise RequestError("there is no Slurm on this machine; submit where its programs are")
    if not found.name:
        raise RequestError(found.problem or "Slurm's programs know of no cluster here (SLURM_CONF)")
    return found


def submit(script: Script, after: str = "") -> str:
    """Hand a script that has been written to Slurm, to begin when job ``after`` has ended; returns the job's number.

    Raises RequestError with sbatch's own words.
    """
    more = [f"--dependency=afterany:{after}"] if after else []
    try:
        code, out, errors = squeue.run(["sbatch", "--parsable", *more, str(script.path)], _PATIENCE)
    except FileNotFoundError:
        raise RequestError("there is no sbatch on this machine; submit where it is") from None
    except OSError as error:
        raise RequestError(f"sbatch {error.strerror}; 'squeue' says whether it has the job nevertheless") from None
    if code:
        words = [re.sub("^sbatch: (error|fatal): ", "", squeue.line(line)) for line in errors.splitlines()]
        said = "; ".join(dict.fromkeys(filter(None, words)))
        raise RequestError(f"sbatch refused: {said or f'it ended with {code}'}")
    number = out.strip().partition(";")[0]
    if not number.isdigit():
        raise RequestError(f"sbatch answered {squeue.line(out)!r}, which is no job")
    return number
