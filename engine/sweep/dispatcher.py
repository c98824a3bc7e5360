"""Starts what waits in the queue of a runs folder, one process for each host and folder, until nothing waits any more.

It may be killed at any moment and started again: engines go on without it, and what it knows it reads from the run
directories. A start is noted in the run before it happens, and happens under the run's lock, which the engine keeps.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from engine.disk import replace_json
from engine.runs import devices, launch
from engine.runs.control import Inbox
from engine.runs.devices import Gpu
from engine.runs.layout import RunDirectory
from engine.runs.process import Lock, is_locked
from engine.sweep import desk, notices, queue
from engine.sweep.desk import Group
from engine.sweep.places import Place, Places
from engine.sweep.queue import MOST_ALIKE, Item, Queue, Start
from engine.sweep.submit import commit

POLL = 0.2  # seconds between two looks at what costs nothing: ended processes, whether anything was asked
LOOK = 2.0  # between two looks for what nobody says; longer where they would take over a third of a percent of a core
WHOLE = 30.0  # between two looks, at the most
IDLE = 10.0  # without anything that is or could be running, after which it goes
MARGIN_GIB = 2.0  # of free disk, below which nothing is started


def margin() -> float:
    """GiB that must be free on the disk of the runs folder (HAH_DISK_MARGIN)."""
    try:
        return max(0.0, float(os.environ.get("HAH_DISK_MARGIN", "")))
    except ValueError:
        return MARGIN_GIB


def run(folder: Path) -> None:
    """Be the dispatcher of a folder, if there is none; returns when there is nothing left to start."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while True:
        lock = Lock.take(desk.dispatcher_lock(folder))
        if lock is None:
            return
        try:
            worker = Dispatcher(folder)
            stamp = worker.work()
        finally:
            lock.release()
        # What was asked between the last look and the release was asked of this process.
        if worker.refused or stamp == desk.changed_stamp(folder):
            return


class Dispatcher:
    """The one of a folder, its lock held."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refused = ""  # why this host may start nothing, as of the last look
        self._queue = Queue(folder)
        self._children: dict[str, subprocess.Popen[bytes]] = {}  # by the id of the run
        self._done: dict[int, str] = {}  # whose end it is of a pipe that an engine closes when it has done its work
        self._folding: list[subprocess.Popen[bytes]] = []  # engines that have done their work
        self._held: list[Path] = []  # locks of others, as of the last look
        self._called: list[subprocess.Popen[bytes]] = []  # commands of people
        self._said: dict[str, str] = {}
        self._waits: dict[str, str] = {}  # as written for others
        self._ended: set[str] | None = None  # runs that stand at an end, as of the last look

    def work(self) -> tuple[int, int]:
        """Start what waits until nothing does; returns what the folder looked like at the last look."""
        say("begins", f"process {os.getpid()}")
        stamp, looked, idle_since = (-1, -1), 0.0, None
        busy, took = True, 0.0
        while True:
            now, used = time.monotonic(), time.process_time()
            ended = self._let_go() or not all(map(is_locked, self._held))
            due = now - looked >= (min(max(LOOK, 300 * took), WHOLE) if busy else WHOLE)
            if ended or due or stamp != desk.changed_stamp(self.folder):
                stamp = desk.changed_stamp(self.folder)
                busy = self._looked()
                looked = time.monotonic()
                took = time.process_time() - used
                idle_since = None if busy else idle_since or looked
            if self.refused and not self._children:
                say("ends", self.refused)
                return stamp
            idle = idle_since is not None and now - idle_since >= IDLE and not self._children and not self._folding
            if idle and desk.wish(self.folder) != "always":
                say("ends", "nothing is left to start")
                return stamp
            select.select([*self._done], [], [], POLL)  # the next engine starts at once where one has done its work

    def _looked(self) -> bool:
        """`look`, where a disk that is full, read-only or away for a while is said and waited for."""
        try:
            found = self.look()
            self._said.pop("folder", None)
        except Exception as error:
            self._say_once("folder", f"the last look failed: {type(error).__name__}: {error}")
            return self.folder.is_dir()
        return found

    def _let_go(self) -> list[str]:
        """The runs whose engines have ended since the last call; a process that only folds up is not waited for."""
        self._folding = [child for child in self._folding if child.poll() is None]
        done, ended = set(), []
        for end in select.select([*self._done], [], [], 0)[0]:
            os.close(end)
            done.add(self._done.pop(end))
        for name, child in list(self._children.items()):
            whole = name in done and queue.item_of(RunDirectory(self.folder / name)).standing in ("done", "over")
            if child.poll() is not None or whole:
                ended.append(name)
                self._folding.append(self._children.pop(name))
        return ended

    def look(self) -> bool:
        """Look at everything once and start what can be; returns whether anything runs or waits for a device."""
        found = devices.gpus()
        self.refused = desk.register(self.folder, len(found), len(os.sched_getaffinity(0)), commit())
        if not self.refused and desk.wish(self.folder) == "never":
            self.refused = f"{desk.this_host()} is never to start anything; 'hah queue attend needed' changes that"
        if self.refused:
            return False
        with desk.starting(self.folder) as alone:  # else two hosts would both count a group below its limit
            if not alone:
                self._say_once("alone", "another host has been starting something for a second")
                return True
            self._said.pop("alone", None)
            return self._look(found)

    def _look(self, found: Sequence[Gpu]) -> bool:
        items = self._queue.items()
        self._tell_ends(items)
        groups = self._pause_failing(items)
        live = [item for item in items if item.standing == "live"]
        ready = [item for item in items if item.standing == "ready"]
        held = queue.dependences(items) if any(item.entry.after for item in ready) else {}
        everything = desk.paused(self.folder)
        able = [
            item
            for item in ready
            if not (everything or _group(groups, item).paused or (item.run.id in held and held[item.run.id].hopeless))
        ]
        now = Places.now(live, found)
        started = self._start([item for item in able if item.run.id not in held], now, live, groups) if able else False
        # An engine that somebody else has started tells of its end by its lock, a GPU that it comes free by its own.
        waiting = [item for item in able if item.run.id not in self._children]
        others = [item.job.lock for item in live if item.run.id not in self._children]
        self._held = [path for path in [*others, *(devices.locks() if waiting else [])] if is_locked(path)]
        return bool(live or started or able or self._children)

    def _start(self, ready: list[Item], places: Places, live: list[Item], groups: dict[str, Group]) -> bool:
        """Start what there is a place for; what waits, and for what, is kept for whoever asks."""
        waits: dict[str, str] = {}
        started = False
        free = shutil.disk_usage(self.folder).free / 2**30
        if free < margin():
            why = f"{free:.1f} GiB of the disk are free, less than {margin():g}"
            self._say_once("disk", f"{why}: nothing starts")
            waits = dict.fromkeys((item.run.id for item in ready), why)
        else:
            self._said.pop("disk", None)
            running = Counter(item.entry.group for item in live)
            places.elsewhere = tuple(host.name for host in desk.others(self.folder) if host.attends and host.gpus)
            for item in ready:
                group = _group(groups, item)
                if item.run.id in self._children or (group.limit is not None and running[group.name] >= group.limit):
                    continue
                try:
                    why = self._try(item, group, places)
                except Exception as error:
                    why = f"it cannot be started: {error}"
                if not why:
                    running[group.name] += 1
                    started = True
                    continue
                waits[item.run.id] = why
                self._say_once(item.run.id, f"{item.run.id} waits {why}")
                several = item.entry.gpus > 1 or (item.evaluates and item.entry.evaluators > 1)
                if several:  # what comes after it would take its devices one by one
                    break
        if waits != self._waits:
            self._waits = waits
            desk.made(self.folder)
            replace_json(desk.waits_file(self.folder), waits, durable=False)
        return started

    def _try(self, item: Item, group: Group, places: Places) -> str:
        """Start a run; '' or what it waits for."""
        place, why = places.place(item.entry, group, item.evaluates)
        if place is None:
            return why
        child = None
        try:
            child = self._launch(item, place)
        finally:
            place.release()
            if child is None:
                places.used -= place.threads
        if child is None:
            return "for another look: it has just changed"
        self._children[item.run.id] = child
        return ""

    def _launch(self, item: Item, place: Place) -> subprocess.Popen[bytes] | None:
        """Start the engine of a run, unless somebody else was faster; raises OSError, RequestError."""
        item.run.check()
        if desk.paused(self.folder) or queue.entry_of(item.run) != item.entry:
            return None
        lock, state = queue.take(item)
        if lock is None:
            return None
        try:
            # Taken out before the lock was taken; what comes after sees the lock. What was just prepared begins.
            if queue.entry_of(item.run) != item.entry and state.kind == item.look.state.kind:
                return None
            job = item.job if state.kind == "training" else item.run.evaluation
            Inbox(job).clear()
            start = Start(
                time=time.time(), queued=item.entry.queued, kind=state.kind, done=queue.done(state),
                before=item.look.status, error=state.error, ended=state.updated, host=socket.gethostname(),
                gpu=place.gpus[0].uuid if place.gpus else "", threads=place.threads,
            )  # fmt: skip
            queue.add_start(item.run, start)
            where = f"on {place.gpus[0].name}" if place.gpus else f"with {place.threads} CPU threads"
            say("starts", f"{job.id} {where}" + (f", {item.why}" if item.why else ""))
            end, given = os.pipe()
            self._done[end] = item.run.id
            try:
                child = launch.start(job, lock, state, (), replace(place.given(item.entry), done=given))
            finally:
                os.close(given)
            launch.answer_signals()
            return child
        finally:
            lock.release()

    # What is told

    def _pause_failing(self, items: Sequence[Item]) -> dict[str, Group]:
        """The groups; one in which the same failure was seen three times since it was set going is paused."""
        groups = desk.groups(self.folder)
        failures = Counter[tuple[str, str]]()
        for item in items:
            group = _group(groups, item)
            for when, error in item.failures:
                if when > group.since:
                    failures[group.name, queue.normalized(error)] += 1
        for (name, error), count in failures.items():
            if count >= MOST_ALIKE and not groups.get(name, Group()).paused:
                reason = f"the same failure {count} times: {error}"
                groups[name] = desk.set_group(self.folder, name, paused=True, reason=reason)
                say("pauses", f"{name}: {reason}")
        return groups

    def _tell_ends(self, items: Sequence[Item]) -> None:
        """Call what was to be called for runs and groups that have ended since the last look."""
        ended = {item.run.id for item in items if item.standing in ("done", "over")}
        before, self._ended = self._ended, ended
        if ended == before or not notices.any_of(self.folder):
            return
        for item in items:
            if item.run.id in ended:
                self._call(notices.take(item.run.path), notices.facts(item))
        for name in {item.entry.group for item in items}:
            members = [item for item in items if item.entry.group == name]
            if all(item.run.id in ended for item in members):
                self._call(notices.take(desk.folder_of(self.folder) / "groups" / name), notices.sums(name, members))

    def _call(self, command: list[str], facts: dict[str, str]) -> None:
        if not command:
            return
        say("calls", shlex.join(command))
        self._called = [called for called in self._called if called.poll() is None]
        try:
            self._called.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env={**os.environ, **facts})
            )
        except (OSError, ValueError) as error:
            say("calls", f"which cannot be done: {error}")

    def _say_once(self, about: str, text: str) -> None:
        if self._said.get(about) != text:
            self._said[about] = text
            say("waits", text)


def say(verb: str, text: str) -> None:
    """A line in the dispatcher's log."""
    with suppress(OSError, ValueError):  # a full disk is no reason to stop
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {verb}: {text}", file=sys.stdout, flush=True)


def _group(groups: dict[str, Group], item: Item) -> Group:
    return groups.get(item.entry.group, Group(item.entry.group))
