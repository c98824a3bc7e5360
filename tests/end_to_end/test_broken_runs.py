"""Every command on a folder of broken runs beside a good one: the good one is always shown, in time, and nothing is
answered with a traceback. Commands run in this process, which is what makes so many possible."""

import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.runs.layout import RunDirectory
from tests.end_to_end.conftest import status
from tests.inside import call

IN_TIME = 60  # seconds; nothing hangs, and an engine may start on a machine that does much else

FILES = ["state.json", "heartbeat", "lock", "manifest.json", "config.yaml", "events.jsonl", "labels.json", "engine.log",
         "control", "checkpoints", "results", "tensorboard", "checkpoints/last.pt", "RESULT"]  # fmt: skip


def nothing(path):
    _away(path)


def a_folder(path):
    _away(path)
    path.mkdir()
    (path / "x").write_text("x")


def a_pipe(path):
    _away(path)
    os.mkfifo(path)


def a_link(path):
    kept = path.with_name(f"{path.name}.elsewhere")
    path.rename(kept)
    path.symlink_to(kept)


def a_dangling_link(path):
    _away(path)
    path.symlink_to("/nowhere/at/all")


def empty(path):
    _away(path)
    path.write_bytes(b"")


def half(path):
    data = path.read_bytes() if path.is_file() else b""
    _away(path)
    path.write_bytes(data[: len(data) // 2])


def junk(path):
    _away(path)
    path.write_bytes(bytes(range(256)) * 50)


def nested(path):
    _away(path)
    path.write_bytes(b'{"values": ' + b"[" * 50_000)


def wrong_types(path):
    _away(path)
    values = '{"name": 3, "status": [], "epoch": "x", "step": 1e999, "created": NaN, "tags": 5, "note": [], "engine": 1'
    path.write_text(f'{values}, "metrics": {{"a": {{}}}}, "kind": 7, "result": 8, "suite": null, "hah": -1}}\n' * 3)


DAMAGE = [nothing, a_folder, a_pipe, a_link, a_dangling_link, empty, half, junk, nested, wrong_types]


def _away(path):
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


@contextmanager
def in_time(what):
    def late(*_):
        raise TimeoutError(f"{what} takes more than {IN_TIME} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(IN_TIME)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def timely(*arguments):
    with in_time(arguments):
        return call(*arguments)


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} in what should be JSON")

    return json.loads(text, parse_constant=refuse)


def damaged(whole, folder):
    """(the good one, as many broken copies as there are files and ways to damage one) in a folder."""

    def copy(source, target):
        # What nobody writes to again, but in its place, is not copied but linked.
        (os.link if Path(source).parent.name in ("checkpoints", "tensorboard") else shutil.copyfile)(source, target)

    good, made = RunDirectory(folder / "good-aaaa"), []
    shutil.copytree(whole.path, good.path)
    for file in FILES:
        for damage in DAMAGE:
            name = f"{file.replace('/', '-').replace('.', '-')}-{damage.__name__.replace('_', '-')}"
            run = RunDirectory(folder / name)
            shutil.copytree(whole.path, run.path, copy_function=copy)
            if file == "RESULT":
                (path,) = run.results.glob("sparsity-*.json")
            else:
                path = run.path / file
            if not os.path.lexists(path):
                path.write_bytes(b"x")
            damage(path)
            made.append(run)
    return good, made


@pytest.fixture
def folder(kept, runs):
    """The good one and the broken ones, for a test that writes to them."""
    runs.mkdir()
    return damaged(kept("evaluated"), runs)


@pytest.fixture(scope="module")
def made_once(kept, tmp_path_factory):
    return damaged(kept("evaluated"), tmp_path_factory.mktemp("broken"))


@pytest.fixture
def read_only(made_once, monkeypatch):
    """The same for all that only read: after each test they are as they were."""
    good, _ = made_once
    monkeypatch.setenv("HAH_RUNS", str(good.path.parent))
    before = everything(good.path.parent)
    yield made_once
    assert everything(good.path.parent) == before


def everything(folder):
    """Every file of a folder, its size and when it was changed."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            facts = os.lstat(os.path.join(parent, name))
            found[os.path.join(parent, name)] = facts.st_ino, facts.st_mode, facts.st_size, facts.st_mtime_ns
    return found


def _shown(*arguments):
    code, out, err = timely(*arguments)
    assert code == 0, (arguments, err)
    return out


def test_what_shows_many_runs_shows_the_good_one(read_only):
    good, broken = read_only
    assert len(broken) >= 40
    listed = {run["id"]: run for run in strict(_shown("ls", "--all", "--json"))["runs"]}
    assert listed[good.id]["status"] == "finished"
    assert listed[good.id]["tags"] == ["quick", "good"]
    assert good.id in _shown("ls", "--all")
    # All that are runs still: a folder without an experiment is none.
    assert good.id in _shown("compare", *listed)
    assert good.id in json.dumps(strict(_shown("compare", *listed, "--json")))
    assert "Table 1" in _shown("report", "paper")
    assert good.id in json.dumps(strict(_shown("report", "runs", *listed, "--json")))
    for form in ("markdown", "latex", "csv"):  # they write what was read above: some are enough
        assert _shown("report", "runs", *[*listed][::5], "--format", form)
    code, out, err = timely("compare", *listed, "--by", "hah.lambda")
    assert code == 0, err
    assert good.id in out + err  # it, or what is said of a copy that stands for its seed
    assert good.id in _shown("ls", "--all", "--sort", "hah.lambda", "--filter", "hah.lambda>0 clean>0")
    # What is whole in a broken one is still told: only what was damaged is not known.
    for damage in DAMAGE:
        name = f"state-json-{damage.__name__.replace('_', '-')}"
        if name in listed:
            assert (listed[name]["status"], listed[name]["epoch"]) == ("finished", 3), name
            assert listed[name]["metrics"]["test/accuracy"] == listed[good.id]["metrics"]["test/accuracy"], name


READING = [
    "show", "show --json", "log", "log --events", "watch", "compare", "eval --estimate --suite noise",
    "export --results",
]  # fmt: skip
WRITING = ["set hah.lambda=0.3", "stop", "pause", "tag x", "note x", "rm --yes"]


def answers(command, good, broken, tmp_path):
    """Ask every broken run, and see that the good one stays as it is."""
    verb, *options = command.split()
    if "--estimate" in options:  # each asks an engine of its own: a few are enough
        broken = [run for run in broken if run.id.startswith(("checkpoints-last", "config"))][::3]
    before = {path: path.read_bytes() for path in good.path.rglob("*") if path.is_file()}
    for run in broken:
        began = time.monotonic()
        more = [good.id] if verb == "compare" else ["--to", str(tmp_path / run.id)] if verb == "export" else []
        code, out, err = timely(verb, run.id, *options, *more)
        assert code in (0, 1, 2, 130), (run.id, code)
        assert "Traceback" not in out + err, (run.id, out, err)
        if code == 2:
            assert 0 < len(err.splitlines()) <= 5, (run.id, err)
        if "--json" in options and code == 0:
            strict(out)
        assert time.monotonic() - began < IN_TIME
    assert {path: path.read_bytes() for path in good.path.rglob("*") if path.is_file()} == before
    assert status(good) == "finished"


@pytest.mark.parametrize("command", READING)
def test_every_command_that_reads_answers_on_every_broken_run(read_only, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    answers(command, *read_only, tmp_path)


@pytest.mark.parametrize("command", WRITING)
def test_every_command_that_writes_answers_on_every_broken_run(folder, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    answers(command, *folder, tmp_path)


def test_what_cannot_be_read_is_not_trained_further(hah, folder):
    """`hah resume` with real engines: it refuses, or goes on from what is whole; it never starts anew."""
    not_read = ("heartbeat", "tensorboard", "labels", "RESULT", "engine")  # by a resume
    broken = [run for run in folder[1] if run.id.endswith("junk") and not run.id.startswith(not_read)]
    with ThreadPoolExecutor(3) as several:
        answers = list(several.map(lambda run: hah("resume", run.id, "--epochs", "4", check=False), broken))
    for run, done in zip(broken, answers, strict=True):
        assert "Traceback" not in done.stderr, (run.id, done.stderr)
        assert (done.stdout + done.stderr).strip(), run.id
        assert ("epoch 4/4" in done.stdout) == (done.returncode == 0), (run.id, done.stdout)
        assert "epoch 1/4" not in done.stdout.partition(" running")[2], (run.id, done.stdout)
