"""What only Slurm knows of runs: why a job waits, on which node it is, how long it may go on. One squeue tells all.

Slurm may be missing, away, hang, or have forgotten a job: each is an answer, and the status of a run is never made of
it, but of its directory.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from engine.runs.slurm import Job
from engine.runs.state import State

PATIENCE = 5.0  # seconds for an answer
EVERY = 5.0  # seconds between two questions of a `Poll`, more where an answer takes long
MANY = 500  # job numbers in one command line; beyond that all jobs are asked for
GONE, UNKNOWN = "gone", "unknown"
_LARGEST = 16 << 20  # bytes of an answer
# Columns of fixed width: a reason is text of the site's, with whatever separator somebody thinks of.
_COLUMNS = {
    "JobArrayID": 64,
    "Cluster": 64,
    "State": 32,
    "NodeList": 128,
    "TimeLeft": 32,
    "Reason": 256,
    "Command": 1024,
}
_ID, _STATE = re.compile(r"[1-9]\d{0,9}(?:_\d{1,7})?"), re.compile(r"[A-Z][A-Z_]{1,30}")
_OTHER = re.compile(r"[1-9]\d{0,9}[_+][][\d%,:.+-]*")  # jobs of several parts, which none of ours is
_ENDLESS = 180 * 86400  # seconds left of a job without a limit: Slurm takes it for a year
_LEFT = re.compile(r"(?:(\d{1,6})-)?(?:(\d{1,2}):)?(\d{1,2}):(\d{2})")
FORGOTTEN = "Invalid job id specified"
_NOT_SET_UP = "Could not establish a configuration source"  # the programs without a cluster
_WAITING = ("pending", "requeued", "requeue_fed", "requeue_hold", "resv_del_hold", "special_exit")
_OVER = {
    "completed": "has ended", "cancelled": "was cancelled", "failed": "failed", "timeout": "reached its time limit",
    "node_fail": "ended with its node", "preempted": "was preempted", "out_of_memory": "ran out of memory",
    "boot_fail": "ended, since its node did not boot", "deadline": "missed its deadline", "revoked": "was revoked",
}  # fmt: skip
_REASONS = {  # https://slurm.schedmd.com/job_reason_codes.html
    "None": "not scheduled yet",
    "Priority": "jobs of higher priority go first",
    "Resources": "nodes or GPUs are taken",
    "Dependency": "another job has to end first",
    "DependencyNeverSatisfied": "the job that it waits for has failed",
    "BeginTime": "may not begin yet; after a requeue for two minutes",
    "JobHeldUser": "held: scontrol release {id}",
    "JobHeldAdmin": "held by an administrator",
    "job_requeued_in_held_state": "requeued and held: scontrol release {id}",
    "launch_failed_requeued_held": "could not be launched, held: scontrol release {id}",
    "JobArrayTaskLimit": "enough tasks of its array run",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs",
    "PartitionNodeLimit": "asks for more than its partition has",
    "PartitionTimeLimit": "asks for more time than its partition gives",
    "ReqNodeNotAvail": "nodes are down, drained or reserved",
    "NodeDown": "its node is down",
    "BadConstraints": "no node has what it asks for",
    "Reservation": "waits for its reservation",
    "Licenses": "waits for a licence",
    "Cleaning": "what it ran before is cleaned up",
}
_LIMITS = re.compile(r"(Assoc|QOS|Max|AccountNotAllowed|InvalidAccount|InvalidQOS)")


@dataclass(frozen=True)
class JobNow:
    """A job as Slurm tells of it. ``state``: its word in small letters; *gone* where it no longer knows the job,
    *unknown* where it could not be asked, for the reason in ``problem``. ``reason``: its word for why a job is pending;
    ``until``: Unix seconds at which the time limit ends it, None without one."""

    job: Job
    state: str
    reason: str = ""
    node: str = ""
    until: float | None = None
    problem: str = ""
    missing: bool = False  # there is no Slurm here that could be asked

    @property
    def waits(self) -> bool:
        """Whether it has not begun, or not begun again, and will."""
        return self.state in _WAITING

    @property
    def over(self) -> bool:
        """Whether nothing will come of it any more."""
        return self.state in _OVER or self.state == GONE

    @property
    def known(self) -> bool:
        return self.state != UNKNOWN

    @property
    def why(self) -> str:
        """Why it waits, in plain words."""
        word = self.reason.split(",")[0].strip(" ()")
        if word in _REASONS:
            return _REASONS[word].format(id=self.job.id)
        if _LIMITS.match(word):
            return f"a limit of its account ({self.reason})"
        return f"Slurm says {self.reason}" if self.reason else "Slurm gives no reason"

    @property
    def said(self) -> str:
        """The job in a few words, without what a clock changes."""
        name = f"job {self.job.id}"
        if not self.known:
            return f"{name}: {self.problem}"
        if self.state == GONE:
            return f"Slurm no longer knows {name}"
        if self.over:
            return f"{name} {_OVER[self.state]}"
        if self.waits:
            return f"{name} is pending: {self.why}"
        where = f" on {self.node}" if self.node else ""
        return f"{name}{where}" if self.state == "running" else f"{name} is {self.state.replace('_', ' ')}{where}"

    @property
    def seconds_left(self) -> float | None:
        """Until its time limit; None without one, or before it has begun."""
        return None if self.until is None else max(0.0, self.until - time.time())

    def facts(self) -> dict[str, Any]:
        """As a program reads it."""
        return {
            "job": self.job.id, "cluster": self.job.cluster, "state": self.state, "reason": self.reason,
            "why": self.why if self.waits else "", "node": self.node, "seconds_left": self.seconds_left,
            "problem": self.problem,
        }  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What squeue has said of jobs of these ``numbers``. ``problem``: why that is not all; ``missing``: there is no
    squeue; ``cluster``: that of this host, where one of the numbers is unknown."""

    numbers: frozenset[str] = frozenset()
    rows: Mapping[str, JobNow] = field(default_factory=dict)  # by id
    problem: str = ""
    missing: bool = False
    cluster: str = ""

    def of(self, job: Job) -> JobNow:
        """A job now. What was cancelled of an array before it began is one job without a task."""
        if job.job not in self.numbers:
            return JobNow(job, UNKNOWN, problem="Slurm is being asked")
        found = self.rows.get(job.id) or self.rows.get(job.job)
        if found is not None and "" != found.job.cluster != job.cluster != "":
            said = f"it is of the cluster {job.cluster}, and this one is {found.job.cluster}"
            return JobNow(job, UNKNOWN, problem=said)
        if found is not None and found.job.script.startswith(job.script):
            return replace(found, job=job)
        if found is not None:  # the numbers of a cluster that was set up anew begin anew
            return JobNow(job, GONE)
        if self.problem:
            return JobNow(job, UNKNOWN, problem=self.problem, missing=self.missing)
        if "" != self.cluster != job.cluster != "":
            return JobNow(job, UNKNOWN, problem=f"it is of the cluster {job.cluster}, and this one is {self.cluster}")
        return JobNow(job, GONE)


@lru_cache(1)
def _cluster_name() -> str:
    """What Slurm's programs here are set up for, asked until they say it; raises OSError where they do not."""
    code, out, _ = run(["scontrol", "show", "config"], PATIENCE)
    name = _facts(out).get("ClusterName")
    if code or not name:
        raise OSError("scontrol names no cluster")
    return name


def _facts(config: str) -> dict[str, str]:
    """What ``scontrol show config`` says, by name."""
    return {line(name): line(value) for name, _, value in (row.partition("=") for row in config.splitlines())}


def concerns(state: State, status: str) -> bool:
    """Whether Slurm may still have to do with a run of this status: neither is it done, nor did a person stop it."""
    if status == "stopped":
        return state.stopped_by in ("signal", "limit")
    return status not in ("finished", "failed")


def ask(numbers: Collection[str]) -> Answer:
    """Ask Slurm of jobs, or arrays of them, by their numbers, once for all. Never raises, takes `PATIENCE` at most."""
    numbers = frozenset(numbers)
    if not numbers:
        return Answer()
    columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    only = [f"--jobs={','.join(sorted(numbers))}"] if len(numbers) <= MANY else []
    command = ["squeue", "--noheader", "--array", "--states=all", *only, f"--Format={columns}"]
    try:
        code, out, err = run(command, PATIENCE)
    except FileNotFoundError:
        return Answer(numbers, problem="there is no squeue here", missing=True)
    except OSError as error:
        return Answer(numbers, problem=f"squeue {error.strerror}")
    rows, odd = _parsed(out)
    if code and _NOT_SET_UP in err:
        return Answer(numbers, problem="squeue knows of no cluster here", missing=True)
    if code and not (FORGOTTEN in err and len(numbers) == 1):
        return Answer(numbers, rows, f"squeue: {complaint(err) or f'ended with {code}'}")
    here = ""
    if numbers - {name.partition("_")[0] for name in rows}:  # forgotten, or another cluster's
        with suppress(OSError):
            here = _cluster_name()
    return Answer(numbers, rows, f"squeue answers what is no job: {odd}" if odd else "", cluster=here)


def _parsed(text: str) -> tuple[dict[str, JobNow], str]:
    """The jobs of an answer by their ids, and the first line in it that is none."""
    rows, odd, now = dict[str, JobNow](), "", time.time()
    for row in text.encode(errors="surrogateescape").splitlines():  # a column is as wide in bytes
        fields, at = list[str](), 0
        for width in _COLUMNS.values():
            fields.append(row[at : at + width].decode(errors="replace").strip())
            at += width
        name, cluster, state, node, left, reason = map(line, fields[:-1])
        if not (_ID.fullmatch(name) and _STATE.fullmatch(state)):
            other = _OTHER.fullmatch(name) or not row.strip()
            odd = odd or ("" if other else line(row.decode(errors="replace"))[:60])
            continue
        job, _, task = name.partition("_")
        state = state.lower()
        at_work = state not in _WAITING and state not in _OVER
        match = _LEFT.fullmatch(left) if at_work else None  # before it begins that is all of its time
        until = None
        if match is not None:
            days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
            seconds += 86400 * days + 3600 * hours + 60 * minutes
            until = float(round(now + seconds)) if seconds < _ENDLESS else None
        found = Job(job, int(task) if task else None, cluster, 0.0, fields[-1])
        rows[name] = JobNow(found, state, reason if state in _WAITING else "", node, until)
    return rows, odd


def line(text: str) -> str:
    """The first line of what a program said, with nothing in it that a terminal would obey."""
    first = text.strip().partition("\n")[0]
    return re.sub(r"[^ -~]", "?", first)[:300].strip()


def complaint(errors: str) -> str:
    """What a program of Slurm's said at last of why it could not do what was asked."""
    lines = [text for text in errors.splitlines() if text.strip()]
    return re.sub(r"^\w+: (error|fatal): ", "", line(lines[-1])) if lines else ""


def run(command: Sequence[str], patience: float) -> tuple[int, str, str]:
    """Exit code, output (what is no text in it as surrogates) and errors of a program of Slurm's. Raises OSError,
    FileNotFoundError where it is not here and TimeoutError after ``patience`` seconds: then it is ended, and nobody
    waits for it or for what it has started."""
    # What a person set to have tables another way would change these.
    kept = {"SLURM_CONF", "SLURM_CONF_SERVER"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in kept or not re.match("SLURM_|SQUEUE_|SCANCEL_|SINFO_|SBATCH_|SCONTROL_", name)
    }
    with os.fdopen(os.memfd_create("errors"), "w+b") as errors:  # a folder for a file may be missing, as the program
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
            env={**environment, "LC_ALL": "C"},
        )  # fmt: skip
        assert process.stdout is not None
        deadline, said = time.monotonic() + patience, bytearray()
        try:
            with process.stdout as stream:
                while True:
                    ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
                    part = os.read(stream.fileno(), 1 << 16) if ready else b""
                    said += part
                    if len(said) > _LARGEST:
                        raise TimeoutError(110, "answers without an end")
                    if not ready or time.monotonic() > deadline:
                        raise TimeoutError(110, f"has not answered for {patience:g} s")
                    if not part:
                        break
            code = process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TimeoutError(110, f"has not ended for {patience:g} s") from None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
        errors.seek(0)
        return code, said.decode(errors="surrogateescape"), errors.read(1 << 16).decode(errors="replace")


class Poll:
    """Asks in a thread of its own, now and then; whoever wants to know gets what is known, at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[str, float] = {}  # numbers of jobs, with when somebody wanted to know of them last
        self._answer = Answer()
        self._busy, self._next = False, 0.0

    def now(self, jobs: Iterable[Job]) -> Answer:
        """The last answer, the same object until there is another."""
        with self._lock:
            now = time.monotonic()
            self._wanted.update((job.job, now) for job in jobs)
            self._wanted = {number: wanted for number, wanted in self._wanted.items() if now - wanted < 10 * EVERY}
            new = not self._wanted.keys() <= self._answer.numbers
            if self._wanted and not self._busy and (now >= self._next or new):
                self._busy = True
                threading.Thread(target=self._ask, args=(frozenset(self._wanted),), daemon=True).start()
            return self._answer

    def _ask(self, numbers: frozenset[str]) -> None:
        began = time.monotonic()
        answer = ask(numbers)
        with self._lock:
            took = time.monotonic() - began
            self._answer, self._busy = answer, False
            self._next = began + took + max(EVERY, 20 * took)


@dataclass(frozen=True)
class Partition:
    """A part of a cluster, as sinfo names it. ``time``: its limit of a job, as Slurm writes it; ``gres``: such as
    gpu:a100:4, of a node."""

    name: str
    default: bool
    up: bool
    time: str
    nodes: int
    gres: str


@dataclass(frozen=True)
class Cluster:
    """The Slurm of this machine; ``version`` is '' where its programs know of no cluster. ``most``: tasks of one array;
    ``problem``: why the controller does not say more."""

    version: str
    name: str = ""
    most: int | None = None
    partitions: tuple[Partition, ...] = ()
    problem: str = ""


def cluster(patience: float = PATIENCE) -> Cluster | None:
    """What Slurm there is here; None where its programs are not. ``patience``: seconds for each of three answers."""
    version, away = "", "Slurm's controller does not answer"
    try:
        code, out, err = run(["squeue", "--version"], patience)
        if code and _NOT_SET_UP in err:
            return Cluster("")
        version = line(out)
        code, out, err = run(["scontrol", "show", "config"], patience)
        if code:
            return Cluster(version, problem=f"{away}: {complaint(err)}")
        facts = _facts(out)
        most = facts.get("MaxArraySize", "")
        code, out, err = run(["sinfo", "--noheader", "--format=%P|%a|%l|%D|%G"], patience)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Cluster(version, problem=f"{away}: {error.strerror}")
    parts = [list(map(line, row.split("|"))) for row in out.splitlines() if row.count("|") == 4]
    partitions = tuple(
        Partition(name.rstrip("*"), name.endswith("*"), up == "up", time_, int(nodes), "" if gres == "(null)" else gres)
        for name, up, time_, nodes, gres in parts
        if nodes.isdecimal()
    )
    problem = f"sinfo: {complaint(err)}" if code else ""
    return Cluster(version, facts.get("ClusterName", ""), int(most) if most.isdecimal() else None, partitions, problem)
