"""What takes long is made once in a session, by the process that needs it first, and lies in files for all of them."""

import fcntl
import os
import shutil


def once(tmp_path_factory, name, make):
    """The folder ``name``; ``make(folder)`` fills it at the first call in all processes of this session."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each of them has a folder of its own there
    folder, made = base / name, base / f"{name}.made"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a process that dies lets go of it
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # half of it, where making it failed
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
