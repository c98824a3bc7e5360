"""Who is alive: the lock of a run directory, the identity of a process, and the engine's heartbeat.

The lock decides: it is held from the launch on (the launcher hands its descriptor to the engine) and the kernel
releases it with the process, whatever killed it. Identity says which process that is and whether it is stopped;
the heartbeat whether it gets anywhere.
"""

from __future__ import annotations

import fcntl
import math
import os
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from engine import disk
from engine.runs.mounts import mount_of

# What asks an engine to save and stop: people, and clusters before they take a machine away or a limit is reached.
STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGPWR")
    if hasattr(signal, name)
)
PATIENCE = 10.0  # seconds between two signs of progress, where the engine has not asked for more


@dataclass(frozen=True)
class Identity:
    """A process that no reuse of its pid, no reboot and no change of the clock can be mistaken for."""

    host: str
    boot: str
    pid_space: str  # of a container
    pid: int
    start_ticks: int

    def dump(self) -> dict[str, Any]:
        return asdict(self)


def identity(pid: int | None = None) -> Identity:
    """The identity of a process of this host (this one by default)."""
    pid = os.getpid() if pid is None else pid
    return Identity(socket.gethostname(), boot_id(), _pid_space(), pid, _stat(pid)[1])


@cache
def boot_id() -> str:
    """The id of this boot of this machine ('' where the system does not tell)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@cache
def _pid_space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def process_state(who: dict[str, Any]) -> str:
    """The state letter of the process of a stored identity of this boot and pid space; '' when it is gone."""
    try:
        letter, start_ticks = _stat(int(who["pid"]))
    except (KeyError, TypeError, ValueError):
        return ""
    return letter if start_ticks == who.get("start_ticks") and letter not in "ZX" else ""


def is_here(who: dict[str, Any]) -> bool:
    """Whether a stored identity was written under this boot and in this pid space, so that its pid means something."""
    return who.get("boot") == boot_id() != "" and who.get("pid_space") == _pid_space()


def _stat(pid: int) -> tuple[str, int]:
    """State letter and start time in clock ticks since boot; ('', 0) for no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return "", 0
    after_name = text.rpartition(")")[2].split()
    return after_name[0], int(after_name[19])


class Lock:
    """An exclusive lock on a file, kept until this process and those it handed the descriptor to are gone."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.register_at_fork(after_in_child=self._forget)

    @classmethod
    def take(cls, path: Path, patience: float = 0.3) -> Lock | None:
        """Take the lock, or None if another process keeps it (a reader that looks holds it for microseconds).

        Raises OSError where there can be none: a folder that cannot be written, a file system without locks.
        """
        with disk.appending(path) as file:
            descriptor = os.dup(file.fileno())
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return cls(descriptor)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return None
                time.sleep(0.01)
            except OSError as error:
                os.close(descriptor)
                what = f"its file system has no locks ({error.strerror}); runs need one that has"
                raise OSError(error.errno, what, str(path)) from None

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _forget(self) -> None:
        # A forked worker must not keep the lock of an engine that died.
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def unlockable(folder: Path) -> str:
    """Why no run can live in a folder that can be written: its file system has no locks. '' where it has."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".hah-") as place:
        try:
            lock = Lock.take(Path(place) / "lock")
        except OSError as error:
            return f"{folder}: {error.strerror}"
        if lock is not None:  # before its file goes: what is open stays for a while on NFS, and so would the folder
            lock.release()
    return ""


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock, asked without keeping it."""
    try:
        with disk.opened(path) as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none
        return False
    return False


def holder_of(path: Path) -> int | None:
    """The pid of the process that took the lock, where this system tells; it may be gone and have handed it on."""
    try:
        inode = path.stat().st_ino
        for line in disk.read_text(Path("/proc/locks"), 1 << 22).splitlines():
            fields = line.split()
            if "FLOCK" in fields and any(field.endswith(f":{inode}") for field in fields):
                return int(fields[4])
    except (OSError, ValueError, IndexError):
        pass
    return None


def end(code: int) -> NoReturn:
    """End this process without taking apart what it has imported: for torch that takes half a second, for a short
    command a quarter of its time."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


@dataclass(frozen=True)
class Beat:
    """An engine's last sign of progress: the monotonic clock of its host then, the seconds to the next at the latest,
    and its last words, if it could say them nowhere else."""

    clock: float
    patience: float
    words: str = ""


class Heartbeat:
    """The engine's side: one small write at each sign of progress, into a file that has its whole size from the start,
    so that a full disk can be told of in it."""

    def __init__(self, path: Path) -> None:
        with disk.appending(path) as file:
            file.truncate(0)
        self._file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        os.pwrite(self._file, b" " * _BEAT + b"\n" + b" " * _WORDS, 0)
        self._far, self._sent = mount_of(path.parent).locks != "disk", -math.inf

    def beat(self, patience: float = PATIENCE) -> None:
        """Progress now; the next within ``patience`` seconds, or something is wrong."""
        # The monotonic clock is the machine's, so a reader under the same boot can compare it with its own.
        now = time.monotonic()
        os.pwrite(self._file, f"{now:16.3f} {patience:12.1f}".encode(), 0)
        if self._far and now - self._sent >= _SENT_EACH:  # else other hosts see it when this one's cache is written
            self._sent = now
            with suppress(OSError):
                os.fdatasync(self._file)

    def say(self, words: str) -> None:
        """Last words, where nothing else can be written; cut to what the file has room for."""
        with suppress(OSError):
            os.pwrite(self._file, " ".join(words.split()).encode()[:_WORDS].ljust(_WORDS), _BEAT + 1)


_BEAT, _WORDS = 29, 400  # bytes
_SENT_EACH = 5.0  # seconds


def heartbeat_of(path: Path) -> Beat | None:
    """The last beat, if readable."""
    try:
        line, _, words = disk.read_text(path, 4096).partition("\n")
        clock, patience = (float(text) for text in line.split())
    except (OSError, ValueError):
        return None
    return Beat(clock, patience, words.strip()) if math.isfinite(clock) and math.isfinite(patience) else None
