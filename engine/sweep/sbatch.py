"""What Slurm is told: a script that a person can read, the list of its tasks beside it, and sbatch's answer."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.runs.layout import RunDirectory

if TYPE_CHECKING:
    from engine.sweep.profiles import Profile

GOES_ON = 75  # the exit code of a task that is to be requeued, as BSD's "try again" (EX_TEMPFAIL)
_PLAIN = re.compile(r"[A-Za-z0-9@%+=:,./_-]+")
_PATIENCE = 60.0  # seconds for Slurm to answer
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Tasks:
    """What the tasks of one job do: task N the run ``runs[N]`` of ``folder``, all that is left of it or only its
    evaluation; again up to ``retries`` times where it fails. ``submitted``: Unix seconds, which tells submissions
    apart."""

    folder: Path
    only_evaluation: bool
    runs: tuple[str, ...]
    retries: int
    submitted: float
    cluster: str
    script: str

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
            return cls(
                Path(stored["folder"]), stored["only_evaluation"] is True, runs, int(stored["retries"]),
                float(stored["submitted"]), str(stored["cluster"]), str(stored["script"]),
            )  # fmt: skip
        except OSError as error:
            raise RequestError(
                f"{path} cannot be read here: {error.strerror}; the runs folder must be one that every node sees"
            ) from None
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{path} is no list of tasks: {error}") from None


@dataclass(frozen=True)
class Site:
    """What a cluster says of itself: its name, and how many tasks an array has at most."""

    cluster: str = ""
    most: int = 1001


@dataclass(frozen=True)
class Script:
    """An sbatch script with its tasks; ``path`` is its own, ``jobs`` the directories whose work it is to do."""

    path: Path
    text: str
    tasks: Tasks
    jobs: tuple[RunDirectory, ...]

    def write(self) -> None:
        """Keep it and its tasks, so that both can be read later; raises OSError."""
        self.tasks.write(self.path.with_suffix(".json"))
        disk.replace_text(self.path, self.text)

    def forget(self) -> None:
        for path in (self.path, self.path.with_suffix(".json")):
            path.unlink(missing_ok=True)


def place(folder: Path) -> Path:
    """Where the scripts of a runs folder are kept."""
    return folder / ".slurm"


def scripts(
    folder: Path, name: str, jobs: Sequence[tuple[str, RunDirectory]], profile: Profile, site: Site,
    *, only_evaluation: bool = False, limit: int | None = None, retries: int = 0,
) -> list[Script]:  # fmt: skip
    """The scripts for ``jobs`` (id of a run, the directory that is worked on): arrays of at most so many tasks as the
    site takes, ``limit`` of them at once. Raises RequestError."""
    if any(ord(letter) < 32 or letter == "\\" for letter in str(folder)):
        raise RequestError(f"{str(folder)!r}: Slurm can write no log below a folder of this name")
    most, now, stamp = profile.max_array or site.most, time.time(), time.strftime("%Y%m%d-%H%M%S")
    found = []
    for first in range(0, len(jobs), most):
        some = jobs[first : first + most]
        path = place(folder) / f"{name}-{stamp}-{secrets.token_hex(2)}.sh"
        tasks = Tasks(folder, only_evaluation, tuple(run for run, _ in some), retries, now, site.cluster, str(path))
        text = _text(name, path, tasks, some[0][1], profile, limit)
        found.append(Script(path, text, tasks, tuple(job for _, job in some)))
    return found


def _text(name: str, path: Path, tasks: Tasks, first: RunDirectory, profile: Profile, limit: int | None) -> str:
    count = len(tasks.runs)
    at_once = f"%{limit}" if limit is not None and limit < count else ""
    alone, here = count == 1, str(path.parent).replace("%", "%%")
    log = str(first.path / "slurm.log").replace("%", "%%") if alone else f"{here}/{path.stem}-%A_%a.log"
    given = {
        "job-name": f"hah-{name}",
        "array": "" if alone else f"0-{count - 1}{at_once}",
        "partition": profile.partition, "account": profile.account, "gres": profile.gres,
        "nodes": "1", "ntasks": "1", "cpus-per-task": profile.cpus, "mem": profile.memory, "time": profile.time,
        "output": log, "open-mode": "append", "chdir": str(path.parent),
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


def site() -> Site:
    """What the cluster says of itself; raises RequestError where it does not answer."""
    facts = {}
    for line in _asked("scontrol", "show", "config").splitlines():
        name, equals, value = line.partition("=")
        if equals:
            facts[name.strip()] = value.strip()
    most = facts.get("MaxArraySize", "")
    return Site(facts.get("ClusterName", ""), max(1, int(most)) if most.isdigit() else Site.most)


def jobs_there() -> set[str]:
    """The ids of this person's jobs that wait or run, each task of an array by its own; raises RequestError."""
    return set(_asked("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i").split())


def submit(script: Script, after: str = "") -> str:
    """Hand a script that has been written to Slurm, to begin when job ``after`` has ended; returns the job's number.

    Raises RequestError with sbatch's own words.
    """
    more = [f"--dependency=afterany:{after}"] if after else []
    answer = _asked("sbatch", "--parsable", *more, str(script.path)).strip()
    number = answer.partition(";")[0]
    if not number.isdigit():
        raise RequestError(f"sbatch answered {answer!r:.200}, which is no job")
    return number


def _asked(program: str, *arguments: str) -> str:
    """What a program of Slurm prints; raises RequestError."""
    # Of the job that this may run in, if any, nothing is for the new one.
    bare = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SBATCH_", "SQUEUE_"))
    }
    try:
        done = subprocess.run(
            [program, *arguments], env=bare, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise RequestError(f"{program} is not on this machine; submit where the programs of Slurm are") from None
    except subprocess.TimeoutExpired:
        raise RequestError(f"Slurm does not answer: {program} has waited for {_PATIENCE:.0f} s") from None
    if done.returncode != 0:
        words = [re.sub(rf"^{program}: (error|fatal): ", "", line.strip()) for line in done.stderr.splitlines()]
        said = "; ".join(dict.fromkeys(filter(None, words)))
        raise RequestError(f"{program} refused: {said or f'it ended with {done.returncode}'}")
    return done.stdout
