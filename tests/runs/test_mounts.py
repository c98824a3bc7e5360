"""What the kernel's words on a mount say of its locks, as they stand in /proc/self/mountinfo."""

import fcntl
import os
import shutil
import subprocess
import time

import pytest

from engine.runs import mounts, process, store
from engine.runs.layout import create
from engine.runs.mounts import mount_of, parsed
from engine.runs.state import State

DISK = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard"
NFS = "40 27 0:{0} / /net{0} rw,relatime shared:7 - {1} box:/export rw,vers=4.2,sec=sys,{2}addr=10.0.0.2"


@pytest.mark.parametrize(
    ("line", "locks", "said"),
    [
        (DISK, "disk", "ext4, a disk of this host"),
        ("28 27 0:25 / /tmp rw - tmpfs tmpfs rw,size=4k", "disk", "tmpfs, a disk of this host"),
        ("29 27 0:9 / / rw - overlay overlay rw,lowerdir=/a,upperdir=/b", "disk", "overlay, a disk of this host"),
        (NFS.format(41, "nfs4", "local_lock=none,"), "shared", "nfs4 of box:/export, whose locks every host sees"),
        (NFS.format(41, "nfs", "local_lock=none,"), "shared", "whose locks every host sees"),
        (NFS.format(41, "nfs", "local_lock=posix,"), "shared", "whose locks every host sees"),  # those are of fcntl
        (NFS.format(41, "nfs", "local_lock=flock,"), "local", "nfs of box:/export, mounted with local_lock=flock, "
         "whose locks are seen only on the host that took them"),
        (NFS.format(41, "nfs", "nolock,local_lock=all,"), "local", "mounted with local_lock=all"),
        (NFS.format(41, "nfs", "nolock,"), "local", "mounted with nolock"),
        (NFS.format(41, "nfs4", ""), "unknown", "mounted without local_lock=none or local_lock=posix"),
        ("42 27 0:50 / /l rw - lustre m@tcp:/s rw,flock,lazystatfs", "shared", "whose locks every host sees"),
        ("42 27 0:50 / /l rw - lustre m@tcp:/s rw,localflock", "local", "mounted with localflock"),
        ("42 27 0:50 / /l rw - lustre m@tcp:/s rw,lazystatfs", "unknown", "mounted without flock"),
        ("43 27 0:51 / /c rw - cifs //box/share rw,vers=3.1.1", "shared", "whose locks every host sees"),
        ("43 27 0:51 / /c rw - cifs //box/share rw,vers=3.1.1,nobrl", "local", "mounted with nobrl"),
        ("44 27 0:52 / /c rw - ceph 10.0.0.1:/ rw,acl", "shared", "whose locks every host sees"),
        ("45 27 0:53 / /s rw - fuse.sshfs me@box:/home rw", "local", "seen only on the host that took them"),
        ("46 27 0:54 / /f rw - fuse.something src rw", "unknown", "not known which hosts see its locks"),
        ("47 27 0:55 / /9 rw - 9p host rw,trans=virtio", "unknown", "9p of host, of which it is not known"),
        ("48 27 0:56 / /b rw - beegfs beegfs_nodev rw,cfgFile=/etc/beegfs/client.conf", "unknown", "not known"),
        ("49 27 0:57 / /w rw master:3 propagate_from:2 - gfs2 /dev/sdb rw,localflocks", "local", "localflocks"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else value,
)  # fmt: skip
def test_table(line, locks, said):
    found = parsed(f"1 0 0:1 / /other rw - proc proc rw\n{line}\n", int(line.split()[0]), (6, 1))
    assert found.locks == locks
    assert said in found.words
    assert found.believed == (locks in ("disk", "shared"))


def test_cifs_of_an_older_kernel_keeps_locks_to_itself():
    line = "43 27 0:51 / /c rw - cifs //box/share rw,vers=3.1.1"
    assert [parsed(line, 43, kernel).locks for kernel in ((4, 19), (5, 4), (5, 5))] == ["local", "local", "shared"]


def test_of_two_mounts_at_one_place_the_number_decides():
    text = f"{DISK}\n50 27 0:60 / /net rw - nfs4 box:/x rw,local_lock=none\n51 50 0:61 / /net rw - 9p host rw\n"
    assert [parsed(text, number).kind for number in (50, 51)] == ["nfs4", "9p"]


@pytest.mark.parametrize("text", ["", "nonsense", "27", "27 1 254:0 / / rw", "27 1 254:0 / / rw - ext4", "\0\n- - -"])
def test_what_cannot_be_read_is_unknown(text):
    found = parsed(text, 27)
    assert (found.locks, found.believed) == ("unknown", False)
    assert "an unknown file system" in found.words


def test_names_are_as_they_were_before_the_kernel_wrote_them():
    assert parsed("43 1 0:5 / /c rw - cifs //box/my\\040share rw", 43, (6, 1)).source == "//box/my share"


def test_of_a_folder_that_is_not_there_yet(tmp_path):
    assert mount_of(tmp_path / "not" / "there") == mount_of(tmp_path) != mounts.Mount()
    assert mount_of(tmp_path).kind


@pytest.fixture
def windows(tmp_path):
    """Two mounts of one folder by FUSE: as two hosts whose file system keeps locks to each."""
    if shutil.which("bindfs") is None or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("no bindfs, or no FUSE")
    made = []
    (tmp_path / "disk").mkdir()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        done = subprocess.run(["bindfs", str(tmp_path / "disk"), str(tmp_path / name)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no FUSE: {done.stderr.strip()}")
        made.append(tmp_path / name)
    yield made
    for folder in made:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        time.sleep(0.05)


def test_nothing_open_keeps_a_folder_from_being_deleted(windows):
    """On FUSE and NFS a file that is open and deleted stays under another name."""
    assert process.unlockable(windows[0]) == ""
    run = create(windows[0], "test", "train: {epochs: 3}\n")
    State(status="stopped").write(run)
    store.remove(run)
    assert list(windows[1].iterdir()) == []


def test_where_locks_are_not_shared_that_is_not_believed(windows):
    """The table's unknown is needed: both get the lock."""
    held = []
    for window in windows:
        assert mount_of(window).locks == "unknown"
        held.append((window / "lock").open("a+"))
        fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    for file in held:
        file.close()
