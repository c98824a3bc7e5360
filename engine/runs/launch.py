"""Start an engine in the background, so that it outlives whoever started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import engine
from engine import disk
from engine.experiment.mistakes import RequestError
from engine.runs import claims
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory
from engine.runs.process import STOPPING, Lock, identity
from engine.runs.slurm import Job
from engine.runs.state import ENDED, State, read_state

_BEGINS = "---- an engine starts, "  # begins the line in engine.log from which on the words are that engine's
TAKEN = 3  # the exit code of an engine whose run another one has now
REFUSED = 2  # the exit code of an engine that found its request wrong before it did anything
LOG_LINES = 15  # of engine.log in the report of a launch that died
PROGRESS = "progress: "  # begins a line on the standard error of an engine that says how far it is


@dataclass(frozen=True)
class Given:
    """What an engine is given by whoever starts it: a GPU by its UUID with the lock that reserves it (``more`` of them,
    for the processes beside it), CPU threads for all its processes where the experiment names none, its niceness, more
    environment, the end of a pipe that it closes when all its work is done, or that is closed when it dies, and the job
    of Slurm in which all this happens."""

    gpu: str = ""
    gpu_lock: Lock | None = None
    more: tuple[tuple[str, Lock], ...] = ()
    threads: int | None = None
    niceness: int = 0
    environment: Mapping[str, str | None] = field(default_factory=dict)  # None: without it
    done: int | None = None
    job: Job | None = None

    def arguments(self) -> list[str]:
        found = ["--nice", str(self.niceness)] if self.niceness else []
        found += ["--threads", str(self.threads)] if self.threads is not None else []
        for gpu, lock in self._gpus():
            found += ["--gpu", gpu, "--gpu-lock", str(lock.descriptor)]
        return [*found, *(["--done", str(self.done)] if self.done is not None else [])]

    def descriptors(self) -> tuple[int, ...]:
        locks = (lock.descriptor for _, lock in self._gpus())
        return (*locks, *([self.done] if self.done is not None else []))

    def release(self) -> None:
        """Let go of the locks here; an engine that was started with them has them still."""
        for _, lock in self._gpus():
            lock.release()

    def _gpus(self) -> list[tuple[str, Lock]]:
        return [*([(self.gpu, self.gpu_lock)] if self.gpu_lock is not None else []), *self.more]


NOTHING = Given()


class LaunchError(Exception):
    """The engine died before it began; the message ends with the last lines of its log. Exit code 1."""


def take(run: RunDirectory) -> Lock:
    """The right to run ``run``; raises RequestError naming the process that has it."""
    run.check()
    lock = Lock.take(run.lock)
    if lock is None:
        who = read_state(run).engine
        holder = f"process {who.get('pid', '?')} on {who.get('host', 'an unknown host')}"
        raise RequestError(f"{run.id} is being run by {holder}; 'hah stop {run.id}' stops it")
    return lock


def start(
    run: RunDirectory, lock: Lock, state: State, arguments: Sequence[str] = (), given: Given = NOTHING
) -> subprocess.Popen[bytes]:
    """Start ``python -m engine run`` on ``run``, a job of any kind, which is visible as *starting* from here on.

    The engine gets a session of its own, nothing to read from, engine.log to write to and the lock, so neither a
    hang-up nor Ctrl-C nor the death of this process reaches it; but for one in a job of Slurm, which is noted, and must
    find all that it has to end. ``state`` is the snapshot to start from, which stays where none can be started;
    ``given`` what is handed over with it. Raises OSError, and RequestError where somebody else has taken the run up
    since ``state`` was read.

    Signals such as Ctrl-C's wait in this thread until `await_start` (or `answer_signals`), so that nobody is
    interrupted who does not know of the engine yet; and in the engine until it is ready for them.
    """
    claim, mine, now = claims.following(run), True, read_state(run)  # in this order: who claims later, says so before
    if (now.status, now.updated, now.engine) != (state.status, state.updated, state.engine):
        lock.release()
        raise RequestError(f"{run.id} {_taken_up(now)}")
    starting = replace(
        state, status="starting", before=state.status, error="", began=0.0, engine=identity().dump(), claim=claim.number
    )
    held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        replace(starting, updated=time.time()).write(run)
        mine = claim.make()
        if not mine:
            raise RequestError(f"{run.id} {_taken_up(read_state(run))}")
        if given.job is None:
            run.slurm.unlink(missing_ok=True)
        else:
            given.job.write(run)
        # An earlier engine's: of another host or boot, whose clock says nothing here.
        run.heartbeat.unlink(missing_ok=True)
        with disk.appending(run.log) as log:
            log.write(f"{_BEGINS}{time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            log.flush()
            command = engine_command("run", str(run.path), "--lock", str(lock.descriptor), "--claim", str(claim.number))
            return _detached(
                [*command, *given.arguments(), *arguments],
                log,
                (lock.descriptor, *given.descriptors()),
                given.environment,
                session=given.job is None,
            )
    except BaseException:
        with suppress(OSError):
            if mine:
                state.write(run)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        raise
    finally:
        lock.release()


def _taken_up(state: State) -> str:
    who = state.engine
    return f"was taken up meanwhile by process {who.get('pid', '?')} on {who.get('host', 'an unknown host')}"


def beside(arguments: Sequence[str], given: Given, leash: int) -> subprocess.Popen[bytes]:
    """Start ``python -m engine ARGUMENTS`` as part of this engine: in its session, with its log, on the ``leash`` (a
    descriptor whose other end is closed with this process); raises OSError."""
    return subprocess.Popen(
        [*engine_command(*arguments), *given.arguments()],
        stdin=subprocess.DEVNULL,
        pass_fds=(leash, *given.descriptors()),
        cwd=_home(),
        env={**_environment(), **{name: value for name, value in given.environment.items() if value is not None}},
    )


def background(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start another program of ours so that nothing that ends this one reaches it; raises OSError."""
    with disk.appending(log) as file:
        return _detached(command, file)


def _detached(
    command: Sequence[str],
    log: BinaryIO,
    descriptors: Sequence[int] = (),
    environment: Mapping[str, str | None] | None = None,
    session: bool = True,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=session,
        pass_fds=descriptors,
        cwd=_home(),
        env={
            name: value
            for name, value in {**_environment(), "PYTHONUNBUFFERED": "1", **(environment or {})}.items()
            if value is not None
        },
    )


def answer_signals() -> None:
    """Let signals that have waited since `start` come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def await_start(run: RunDirectory, process: subprocess.Popen[bytes]) -> list[str]:
    """Wait until the engine has begun (or is done already); raises LaunchError if it died before.

    Raises RequestError if it refused to go on, which leaves the run as it was. Signals that waited since `start` come
    now.

    Returns what it has warned of until then, such as that it runs on the CPU because others hold every GPU.
    """
    answer_signals()
    while True:
        ended = process.poll() is not None
        state = read_state(run)
        if ended and process.returncode == REFUSED:
            raise RequestError(f"{run.id}: {log_end(run)}")
        if ended and state.status == "starting" and process.returncode != TAKEN:
            state = replace(state, status="failed", error=f"its process {ending(process.wait())} while it started")
            with suppress(OSError):
                state.write(run)
        if state.status == "failed" and not state.began:
            process.wait()
            raise LaunchError(f"{run.id} did not start: {state.error}\n{log_end(run)}".rstrip())
        refusing = state.status in ENDED and not state.began  # and about to say so by its exit code
        if ended or (state.status not in ("starting", "queued") and not refusing):
            return _warned(run)
        time.sleep(0.05)


def ending(code: int) -> str:
    """How a process ended, in words, by its return code."""
    if code >= 0:
        return f"ended with {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _warned(run: RunDirectory) -> list[str]:
    """The warnings of the run's last engine."""
    said: list[str] = []
    for event in Tail(run.events):
        if event["kind"] == "engine":
            said = []
        elif event["kind"] == "warning" and isinstance(event.get("text"), str):
            said.append(event["text"])
    return said


def log_end(run: RunDirectory, lines: int = LOG_LINES) -> str:
    """The last lines of engine.log, of the last engine."""
    try:
        with disk.opened(run.log) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    begun = text.rpartition(_BEGINS)[2].partition("\n")[2] if _BEGINS in text else text
    return "\n".join(begun.splitlines()[-lines:])


def ask(*arguments: str, tell: Callable[[str], None] | None = None) -> Any:
    """What ``python -m engine ARGUMENTS`` prints as JSON; raises RequestError with its words when it exits with 2.

    The light wing's questions to the torch wing: is that device there, is that data set. What takes long says how far
    it is, a line at a time, to ``tell``.
    """
    said: list[str] = []

    def listen(lines: Iterable[str]) -> None:
        for line in lines:
            if tell is not None and line.startswith(PROGRESS):
                tell(line[len(PROGRESS) :].rstrip())
            else:
                said.append(line.rstrip("\n"))

    with subprocess.Popen(
        engine_command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=_home(),
        env=_environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        listener = threading.Thread(target=listen, args=(process.stderr,), daemon=True)
        listener.start()
        document = process.stdout.read()
        listener.join()
    if process.returncode == 2:
        raise RequestError(*filter(None, said))
    if process.returncode != 0:
        raise LaunchError(f"'engine {' '.join(arguments)}' failed:\n" + "\n".join(said).strip())
    return json.loads(document)


def engine_command(*arguments: str) -> list[str]:
    """The command line of an engine process."""
    return [*module("engine"), *arguments]


def module(name: str) -> list[str]:
    """The command line of a module of ours, for `background`."""
    return [sys.executable, "-m", name]


def _home() -> Path:
    # "python -m" looks for modules in the current folder first, so engines stand where the package is: a file
    # called torch.py in a person's folder is never run.
    return Path(engine.__file__).parents[1]


def _environment() -> dict[str, str]:
    # That the current folder comes first is wanted here; so a package called engine on PYTHONPATH does not either.
    return {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
