"""``python -m engine.sweep.task LIST NUMBER``: a task of a Slurm job: the run of that number, to its end.

It starts the engine of whatever comes next, the training, then the evaluation, and stays with it. Of an evaluation that
several tasks share, the first is its job, and the others measure beside it, before it, or while it waits to go on. A
requeued task finds its run where the last one left it. Exit codes: 0 done, or nothing to do; 1 failed; 75 stopped by a
signal, to go on.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.disk import find_home
from engine.experiment.mistakes import RequestError
from engine.runs import launch, shares, slurm, store
from engine.runs.control import Inbox
from engine.runs.layout import RunDirectory
from engine.runs.process import STOPPING
from engine.runs.slurm import Job
from engine.runs.state import State, read_state
from engine.runs.watcher import Watcher
from engine.sweep import queue
from engine.sweep.queue import Entry, Item, Start
from engine.sweep.sbatch import GOES_ON, Tasks

PATIENCE = 300.0  # seconds for an earlier task of the same job to let go of its run: a node that was lost may take long
POLL = 1.0
STOPPED = 130  # the exit code of an engine that was asked to stop


class Task:
    """One task and its run."""

    def __init__(self, tasks: Tasks, number: int) -> None:
        self._tasks = tasks
        self._run = RunDirectory(tasks.folder / tasks.runs[number if tasks.parts == 1 else 0])
        job, _, task = slurm.inside().partition("_")
        known = (tasks.cluster, tasks.submitted, tasks.script, tasks.parts)
        self._job = Job(job, int(task) if task else None, *known) if job else None  # None: tried by hand
        self._entry = Entry(queued=tasks.submitted, retries=tasks.retries, evaluates=not tasks.only_evaluation)
        self._asked = ""  # the name of a signal
        self._engine: subprocess.Popen[bytes] | None = None
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for one in STOPPING:
            signal.signal(one, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self._asked = signal.Signals(number).name
        if self._engine is not None:
            with suppress(OSError):  # Slurm tells every process of a step; where it does not, this does
                self._engine.send_signal(number)

    def work(self) -> int:
        """Do what is left of the run; returns the exit code."""
        if not self._run.config.exists():
            raise RequestError(f"{self._run.path} is not there, or no longer a run")
        if not self._tasks.only_evaluation:
            suites = store.experiment_of(self._run, State()).evaluate.suites
            self._entry = replace(self._entry, evaluates=bool(suites))
        deadline = time.monotonic() + PATIENCE
        while True:
            item = self._item()
            if item.standing == "live":
                if self._is_mine(item.job) and time.monotonic() < deadline and not self._asked:
                    time.sleep(POLL)
                    continue
                say(f"{item.job.id} is {item.look.status}: another process runs it; nothing to do")
                return 0
            if item.standing == "done":
                say(f"{item.job.id} is {item.look.status}")
                return 0
            if item.standing == "over":
                say(f"{item.job.id}: {item.why}")
                return 0 if item.look.status == "stopped" and item.look.state.stopped_by == "person" else 1
            if self._asked:
                say(f"{item.job.id} is {item.look.status} and goes on later: {self._asked} came")
                return GOES_ON
            code = self._do(item)
            if code == launch.REFUSED:
                say(launch.log_end(item.job))
                return 1
            deadline = time.monotonic() + PATIENCE

    def _item(self) -> Item:
        """How the run stands, watched for as long as it takes to be sure."""
        run, entry = self._run, self._entry
        if self._is_mine(run.evaluation):  # handed over with it, whatever the run's own experiment says
            entry = replace(entry, evaluates=True)
        if self._tasks.only_evaluation:
            starts, look = queue.starts_of(run, entry), Watcher(run.evaluation).settled()
            return Item(run, entry, starts, run.evaluation, look, *queue.standing(entry, starts, look, True))
        item = queue.item_of(run, entry=entry)
        if item.standing != "live":
            return item
        look, whole = Watcher(item.job).settled(), item.job is not run or not entry.evaluates
        found, why = queue.standing(entry, item.starts, look, whole)
        return replace(item, look=look, standing=found, why=why)

    def _is_mine(self, directory: RunDirectory) -> bool:
        """Whether a run, or an evaluation, is this job's: what lives of it an earlier task of it has started, which has
        been requeued since."""
        note = slurm.job_of(directory)
        return note is not None and self._job is not None and note.id == self._job.id

    def _do(self, item: Item) -> int:
        """Be there while an engine does the next job of the run; returns its exit code."""
        lock, state = queue.take(item)
        if lock is None:
            time.sleep(POLL)
            return 0
        try:
            job = item.job if state.kind == "training" else item.run.evaluation
            Inbox(job).clear()
            gpu, threads, host = os.environ.get("CUDA_VISIBLE_DEVICES", ""), _threads(), _host()
            start = Start(
                time=time.time(), queued=self._entry.queued, kind=state.kind, done=queue.done(state),
                before=item.look.status, error=state.error, ended=state.updated, host=host,
                gpu=gpu, threads=threads,
            )  # fmt: skip
            queue.add_start(item.run, start)
            self._say_start(f"starts {job.id}{f', {item.why}' if item.why else ''}")
            elsewhere = ["--elsewhere", str(self._tasks.parts - 1)] if self._tasks.parts > 1 else []
            given = launch.Given(threads=threads or None, job=self._job)
            self._engine = launch.start(job, lock, state, elsewhere, given)
        finally:
            lock.release()
        self._listen(self._engine)
        code = self._engine.wait()
        self._engine = None
        return code

    def _listen(self, engine: subprocess.Popen[bytes]) -> None:
        """Let signals come that have waited while an engine was started; it hears of one that came before that, too."""
        before = self._asked
        launch.answer_signals()
        if before:
            engine.terminate()

    def _say_start(self, what: str) -> None:
        gpu, name = os.environ.get("CUDA_VISIBLE_DEVICES", ""), f"job {self._job.id}" if self._job else "no job"
        on = f"GPU {gpu}" if gpu else f"{_threads() or 'its'} CPU threads"
        say(f"{name} on {_host()}, {on}, {what}")


class Part(Task):
    """A task that measures what it can of the evaluation that its array's first task is. Nobody waits for it."""

    def __init__(self, tasks: Tasks, number: int) -> None:
        super().__init__(tasks, number)
        self._whole, self._number = self._run.evaluation, number + 1

    def work(self) -> int:
        """Measure until nothing is left, or the evaluation is over; returns the exit code."""
        if why := self._over():
            say(f"{why}; nothing to do")
            return 0
        part = f"{self._number}/{self._tasks.parts}"
        self._say_start(f"measures part {part} of {self._whole.id}")
        code = self._measured(part)
        why, share = self._over(), read_state(shares.directory(self._whole, self._number))
        if read_state(self._whole).status == "finished":
            shares.clear(self._whole)  # what the job could not while it was in use
        if why or code == 0:
            say(why or f"nothing is left of {self._whole.id} that nobody measures")
            return 0
        if code == STOPPED and share.stopped_by == "person":
            say(f"{share.id} is stopped by a person")
            return 0
        if self._asked:
            say(f"{share.id} goes on later: {self._asked} came")
            return GOES_ON
        say(f"{share.id} measures no more: its process {launch.ending(code)}; what it has measured stays")
        return 1

    def _measured(self, part: str) -> int:
        """Be there while an engine measures, and end it when the evaluation is over; returns its exit code."""
        end, _leash = os.pipe()  # closed with this process
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # until the engine is known; in it, until it is ready
        command = ["share", str(self._whole.path), "--part", part, "--leash", str(end)]
        engine = self._engine = launch.beside(command, launch.Given(threads=_threads() or None), end)
        os.close(end)
        self._listen(engine)
        ended = False
        while True:
            with suppress(subprocess.TimeoutExpired):
                return engine.wait(POLL)
            if not ended and self._over():
                ended = True
                engine.terminate()

    def _over(self) -> str:
        """Why there is nothing to do for the evaluation as it was submitted; '' where there is."""
        if not self._whole.config.exists():
            return f"{self._whole.path} is not there"
        note, state = slurm.job_of(self._whole), read_state(self._whole)
        # The note comes after sbatch's answer, so a part may be faster.
        mine = self._job is None or (note.job == self._job.job if note is not None else state.status == "queued")
        if not mine:
            return f"{self._whole.id} is {f'job {note.id}' if note is not None else 'no job of Slurm'} meanwhile"
        if state.status in ("finished", "failed"):
            return f"{self._whole.id} is {state.status}"
        stopped = state.status == "stopped" and state.stopped_by == "person"
        return f"{self._whole.id} is stopped by a person" if stopped else ""


def _threads() -> int:
    """CPU threads of this task, 0 where Slurm does not say."""
    threads = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE") or ""
    return int(threads) if threads.isdigit() else 0


def _host() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def say(text: str) -> None:
    """A line in the job's log."""
    with suppress(OSError, ValueError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)


def main() -> int:
    find_home()
    try:
        tasks, number = Tasks.read(Path(sys.argv[1])), int(sys.argv[2])
        if not 0 <= number < tasks.count:
            raise RequestError(f"{sys.argv[1]} has no task {number}")
        return (Part if tasks.parts > 1 and number else Task)(tasks, number).work()
    except (RequestError, OSError) as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
