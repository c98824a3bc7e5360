"""Hosts that are none: Linux namespaces with a name, a boot id, process ids and a monotonic clock of their own, on one
file system. Nothing of ours knows of it. They need root; where they are not allowed, `missing` says why."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from functools import cache
from pathlib import Path

from engine.runs.layout import RunDirectory
from engine.runs.state import read_state
from engine.sweep import desk, queue

_UNSHARE = ["unshare", "--uts", "--mount", "--pid", "--time", "--fork", "--kill-child", "--mount-proc"]
_BOOT = 'hostname "$1" && mount --bind "$2" /proc/sys/kernel/random/boot_id && echo up && sleep infinity & wait'


@cache
def missing():
    """Why there can be no such hosts here; '' where there can."""
    try:
        tried = subprocess.run([*_UNSHARE, "hostname", "elsewhere"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return f"no namespaces: {error}"
    return "" if tried.returncode == 0 else f"no namespaces: {tried.stderr.strip()}"


class Host:
    """One of them, up from the start. All that runs on it dies with it (``die``), and it may ``boot`` again."""

    def __init__(self, name, folder, environment):
        self.name, self.folder, self.environment = name, folder, environment
        self.boots = 0
        self.boot()

    def boot(self):
        self.boots += 1
        boot_id = self.folder / f"{self.name}-{self.boots}.boot"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        ahead = str(1000 * self.boots + 100_000 * (len(self.name) % 7))  # seconds it has been up
        self._outer = subprocess.Popen(
            [*_UNSHARE, "--monotonic", ahead, "bash", "-c", _BOOT, "bash", self.name, str(boot_id)],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._outer.stdout.readline() == b"up\n"
        (self._init,) = map(int, Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split())

    def die(self):
        """As when its plug is pulled."""
        with contextlib.suppress(OSError):
            os.kill(self._init, signal.SIGKILL)
        self._outer.wait()
        self._outer.stdout.close()

    @property
    def up(self):
        return self._outer.poll() is None

    def command(self, *words):
        return ["nsenter", "--target", str(self._init), "--uts", "--mount", "--pid", "--time", *map(str, words)]

    def hah(self, *arguments, check=True, timeout=120, **environment):
        """`hah`, as somebody on that host would call it."""
        program = Path(sys.executable).with_name("hah")
        done = subprocess.run(
            self.command(program, *arguments), capture_output=True, text=True, timeout=timeout, cwd="/", check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, **self.environment, **environment},
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, (self.name, arguments, done.returncode, done.stdout, done.stderr)
        return done

    def python(self, text, *arguments):
        """What a few lines of Python print there."""
        return subprocess.run(
            self.command(sys.executable, "-c", text, *arguments), capture_output=True, text=True, check=True,
            timeout=60, cwd=Path(__file__).parents[1], env={**os.environ, **self.environment},
        ).stdout  # fmt: skip

    def kill(self, pid, number=signal.SIGKILL):
        """Send a signal to one of its processes, by the pid it has there."""
        subprocess.run(self.command("kill", f"-{int(number)}", pid), check=False, capture_output=True)


def engines(folder):
    """The pids of the engine processes of each run of a folder, on whatever host, as this one numbers them."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "cmdline").read_text().split("\0")
            if "run" in words and "--claim" in words and "Z" not in (entry / "stat").read_text().rpartition(")")[2][:3]:
                path = Path(words[words.index("run") + 1])
                # Unlike a worker that it has forked, and what it has just forked to become another program.
                if path.parent == folder and os.getsid(int(entry.name)) == int(entry.name):
                    found.setdefault(path.name, []).append(int(entry.name))
    return found


def until(condition, seconds=60.0):
    """The value of a condition, once it is one."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return value


class Disturbed:
    """Kills what works on a folder until all of it is done, and watches that no run ever has two engines."""

    def __init__(self, two, runs, chance):
        self.hosts, self.runs, self.chance, self.killed = two, runs, chance, Counter()

    def until_done(self, most_engines, most_dispatchers, seconds):
        reader, deadline, due = queue.Queue(self.runs), time.monotonic() + seconds, 0.0
        plugs = [(2, self.hosts[0]), (6, self.hosts[1])]  # pulled when so many are done
        while True:
            self._look()
            items = reader.items()
            done = sum(item.standing == "done" for item in items)
            if all(item.standing in ("done", "over") for item in items):
                return
            assert time.monotonic() < deadline, [(item.run.id, item.standing, item.why) for item in items]
            # Three losses without any progress are the end of a run, so none is hit by everything.
            if plugs and done >= plugs[0][0] and all(len(item.starts) < 3 for item in items if item.standing == "live"):
                host = plugs.pop(0)[1]
                host.die()
                self.killed["host"] += 1
                time.sleep(self.chance.uniform(0.0, 1.0))
                host.boot()
                host.hah("queue", "resume")
            elif time.monotonic() > due:
                due = time.monotonic() + self.chance.uniform(0.5, 2.0)
                self._kill(items, most_engines, most_dispatchers)
            time.sleep(0.05)

    def _look(self):
        # A process that folds up after its last word is not at work any more.
        for run, pids in engines(self.runs).items():
            if len(pids) > 1:
                time.sleep(0.2)
                again = set(engines(self.runs).get(run, ())) & set(pids)
                assert len(again) < 2 or read_state(RunDirectory(self.runs / run)).status == "finished", (run, pids)

    def _kill(self, items, most_engines, most_dispatchers):
        working = [item for item in items if item.standing == "live" and len(item.starts) == 1]
        pids = engines(self.runs)
        working = [item for item in working if item.run.id in pids]
        if working and self.killed["engine"] < most_engines and self.chance.random() < 0.6:
            victim = self.chance.choice(working)
            for pid in pids[victim.run.id]:
                os.kill(pid, signal.SIGKILL)
            self.killed["engine"] += 1
        elif self.killed["dispatcher"] < most_dispatchers:
            host = self.chance.choice(self.hosts)
            told = next((one for one in desk.hosts(self.runs) if one.name == host.name and one.attends), None)
            if told is not None:
                host.kill(told.pid)
                self.killed["dispatcher"] += 1
                host.hah("queue", "resume")
