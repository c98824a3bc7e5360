"""Who is alive: the lock of a run directory, the identity of a process, and the engine's heartbeat.

The lock decides: it is held from the launch on (the launcher hands its descriptor to the engine) and the kernel
releases it with the process, whatever killed it. Identity says which process that is and whether it is stopped;
the heartbeat whether it gets anywhere.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

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
        """Take the lock, or None if another process keeps it (a reader that looks holds it for microseconds)."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
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

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _forget(self) -> None:
        # A forked worker must not keep the lock of an engine that died.
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock, asked without keeping it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class Heartbeat:
    """The engine's side: one small write at each sign of progress."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    def beat(self, patience: float = PATIENCE) -> None:
        """Progress now; the next within ``patience`` seconds, or something is wrong."""
        # The monotonic clock is the machine's, so a reader under the same boot can compare it with its own.
        os.pwrite(self._file, f"{time.monotonic():16.3f} {patience:12.1f}\n".encode(), 0)


def heartbeat_of(path: Path) -> tuple[float, float] | None:
    """(monotonic clock of the engine's host at the last beat, seconds to the next at the latest), if readable."""
    try:
        beat, patience = path.read_text()[:40].split()
        return float(beat), float(patience)
    except (OSError, ValueError):
        return None
