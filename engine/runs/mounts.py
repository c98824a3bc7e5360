"""Which file system a folder is on, and which hosts see a lock (flock) that is taken there.

What can be known is in the kernel's words on the mount: `/proc/self/mountinfo` (proc(5)), nfs(5), flock(2),
mount.cifs(8), the Lustre manual. What is not in the table below is said to be unknown, and not guessed.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from engine import disk

Locks = Literal["disk", "shared", "local", "unknown"]  # who sees them: see `Mount`

_DISKS = frozenset(
    ("bcachefs btrfs exfat ext2 ext3 ext4 f2fs fuseblk hfsplus jfs msdos nilfs2 ntfs ntfs3 overlay ramfs reiserfs "
     "rootfs tmpfs ubifs udf vfat xfs zfs").split()
)  # fmt: skip

# By kind: whose locks every host sees, unless it is mounted with one of these; "" for never.
_SHARED: dict[str, tuple[str, ...]] = {
    "ceph": (),
    "gfs2": ("localflocks",),
    "ocfs2": ("localflocks",),
    "lustre": ("localflock",),
    "nfs": ("nolock", "local_lock=all", "local_lock=flock"),
    "nfs4": ("nolock", "local_lock=all", "local_lock=flock"),
    "cifs": ("nobrl",),
    "smb3": ("nobrl",),
    "fuse.sshfs": ("",),
}
# What has to stand among the options, too, before that is believed.
_SAID: dict[str, tuple[str, ...]] = {
    "lustre": ("flock",),
    "nfs": ("local_lock=none", "local_lock=posix"),
    "nfs4": ("local_lock=none", "local_lock=posix"),
}
_CIFS_SINCE = (5, 5)  # the Linux that sends flock to the server


@dataclass(frozen=True)
class Mount:
    """A mounted file system. ``locks``: *disk*, of this host, whose locks all of its processes see; *shared*: every
    host that mounts it sees them; *local*: others see the files and not the locks; *unknown*. ``why``: in words."""

    kind: str = ""
    source: str = ""
    locks: Locks = "unknown"
    why: str = ""

    @property
    def believed(self) -> bool:
        """Whether a lock that is free says that nobody has it, on whatever host."""
        return self.locks in ("disk", "shared")

    @property
    def words(self) -> str:
        """What it is, in a sentence without an end."""
        of = f" of {self.source}" if self.source not in ("", self.kind, "none") and self.locks != "disk" else ""
        return f"{self.kind or 'an unknown file system'}{of}, {self.why}"


def mount_of(folder: Path) -> Mount:
    """What a folder, or the nearest one above it that is there, is on."""
    path = folder.absolute()
    while True:
        try:
            return _mount_of(str(path), os.stat(path).st_dev)  # noqa: PTH116 (asked for each run of other hosts)
        except OSError:
            if path == path.parent:
                return parsed("", -1)
            path = path.parent


@lru_cache(maxsize=256)
def _mount_of(path: str, _device: int) -> Mount:
    # By the number of the mount that it is opened on: the longest path would be wrong where one lies over another.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        facts = disk.read_text(Path(f"/proc/self/fdinfo/{descriptor}"))
        number = re.search(r"^mnt_id:\s*(\d+)$", facts, re.MULTILINE)
        return parsed(disk.read_text(Path("/proc/self/mountinfo"), 16 << 20), int(number[1]) if number else -1)
    except OSError:
        return parsed("", -1)
    finally:
        os.close(descriptor)


def parsed(mountinfo: str, number: int, kernel: tuple[int, ...] | None = None) -> Mount:
    """The mount of a number among the lines of mountinfo; one that is not there is unknown. ``kernel``: its version."""
    for line in mountinfo.splitlines():
        # 36 35 98:0 /root /point rw,noatime master:1 - nfs4 server:/export rw,vers=4.2,local_lock=none
        before, _, after = line.partition(" - ")
        fields, facts = before.split(), after.split()
        if len(fields) < 6 or len(facts) < 2 or fields[0] != str(number):
            continue
        options = {*fields[5].split(","), *(facts[2].split(",") if len(facts) > 2 else ())}
        locks, why = _judged(facts[0], options, _kernel() if kernel is None else kernel)
        return Mount(facts[0], re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), facts[1]), locks, why)
    return Mount(why="of which the system says nothing: which hosts see its locks is not known")


def _judged(kind: str, options: set[str], kernel: tuple[int, ...]) -> tuple[Locks, str]:
    if kind in _DISKS:
        return "disk", "a disk of this host"
    against = _SHARED.get(kind)
    if against is None:
        return "unknown", "of which it is not known which hosts see its locks"
    local = "whose locks are seen only on the host that took them"
    found = sorted(options & set(against))
    if found or "" in against:
        return "local", f"{f'mounted with {found[0]}, ' if found else ''}{local}"
    if kind in ("cifs", "smb3") and kernel < _CIFS_SINCE:
        return "local", f"{local} before Linux 5.5"
    said = _SAID.get(kind, ())
    if said and not options & set(said):
        return "unknown", f"mounted without {' or '.join(said)}: which hosts see its locks is not known"
    return "shared", "whose locks every host sees"


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
