"""Where the runs of a queue may run on this host: GPUs, one engine each unless more are asked for, and CPU threads."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.experiment import datasets
from engine.runs import devices
from engine.runs.devices import Gpu
from engine.runs.launch import Given
from engine.runs.process import Lock
from engine.sweep.desk import Group
from engine.sweep.queue import Entry, Item


@dataclass(frozen=True)
class Place:
    """What one run gets: GPUs by UUID with their locks, or CPU threads."""

    gpus: tuple[Gpu, ...] = ()
    locks: tuple[Lock, ...] = ()
    threads: int = 0

    def given(self, entry: Entry) -> Given:
        """As it is handed over to an engine."""
        environment = {"HAH_DATA": entry.data or None}  # of who queued it, not of who started the dispatcher
        if self.gpus:
            (first, lock), *more = [(gpu.uuid, lock) for gpu, lock in zip(self.gpus, self.locks, strict=True)]
            return Given(first, lock, tuple(more), None, entry.niceness, environment)
        return Given(threads=self.threads, niceness=entry.niceness, environment=environment)

    def release(self) -> None:
        for lock in self.locks:
            lock.release()


@dataclass
class Places:
    """The devices of this host while several runs are placed; ``used``: CPU threads that the queue's engines have."""

    gpus: Sequence[Gpu]
    used: int = 0
    elsewhere: tuple[str, ...] = ()  # hosts with GPUs that attend to the same queue
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    @classmethod
    def now(cls, live: Sequence[Item], gpus: Sequence[Gpu] | None = None) -> Places:
        """As they are now, with these runs of the queue at work."""
        host = socket.gethostname()
        here = [item.starts[-1] for item in live if item.starts and item.starts[-1].host == host]
        return cls(devices.gpus() if gpus is None else gpus, sum(start.threads for start in here))

    def place(self, entry: Entry, group: Group, evaluates: bool = False) -> tuple[Place | None, str]:
        """A place for a run, or None and what it waits for. `auto` waits for a GPU where there is any, here or on
        another host that attends.

        ``evaluates``: it is to be evaluated now, in several processes where it asks for them: each has CPU threads, or
        one of the GPUs, of its own. One that trains first has the CPU threads from the beginning, and takes the GPUs
        that are free when its evaluation begins.
        """
        data = datasets.data_folder(entry.data)
        if not datasets.is_there(entry.dataset, data):
            return None, f"for {entry.dataset}, which is not in {data} on this host"
        if entry.device == "auto" and not self.gpus and self.elsewhere:
            return None, f"for a GPU of {' or '.join(self.elsewhere)}"
        if entry.device == "cpu" or (entry.device == "auto" and not self.gpus):
            processes = entry.evaluators if evaluates or entry.evaluates else 1
            threads = processes * (entry.threads or max(1, self.cores // (group.limit or 1) // processes))
            if self.used and self.used + threads > self.cores:
                return None, f"for {threads} of {self.cores} CPU threads"
            self.used += threads
            return Place(threads=threads), ""
        wanted = sorted(self.gpus, key=lambda gpu: -gpu.free_gib)
        if entry.device.startswith("cuda:"):
            index = int(entry.device.removeprefix("cuda:"))  # among those that are visible, as torch counts
            wanted = list(self.gpus[index : index + 1])
        count = max(1, entry.gpus, min(entry.evaluators, len(wanted)) if evaluates else 1)
        if len(wanted) < count:
            return None, f"for {entry.device}, and this host shows {len(self.gpus)} GPUs"
        found: list[tuple[Gpu, Lock]] = []
        for gpu in wanted:
            lock = devices.reserve(gpu, group.per_gpu)
            if lock is not None:
                found.append((gpu, lock))
            if len(found) == count:
                return Place(tuple(gpu for gpu, _ in found), tuple(lock for _, lock in found)), ""
        for _, lock in found:  # all or nothing
            lock.release()
        return None, "for a GPU" if count == 1 else f"for {count} GPUs at once"
