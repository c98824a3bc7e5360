"""The first moments of an engine, the signals that reach one, and the system around both: real processes, all of it."""

import json
import os
import resource
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from engine.job import checkpoints
from engine.runs import store
from engine.runs.events import Tail
from engine.runs.state import read_state
from tests.end_to_end.conftest import LONG, TINY, eventually, settings, status


def last(run, kind):
    return [event for event in Tail(run.events) if event["kind"] == kind][-1]


def starting(runs):
    """The run in a folder, or the evaluation of one, whose engine is started just now."""

    def found():
        every = [one for run in store.all_runs(runs) for one in (run, run.evaluation)]
        return [run for run in every if run.log.exists() and status(run) == "starting"]

    return eventually(found)[0]


@pytest.mark.parametrize("moment", [0.0, 0.5])
@pytest.mark.parametrize("how", ["run", "run --detach", "resume", "eval"])
def test_ctrl_c_while_an_engine_starts_leaves_none_that_trains_unseen(hah, copied, program, runs, how, moment):
    """At once, when it may not even be started yet, or while it imports torch."""
    if how.startswith("run"):
        arguments = [*how.split()[:1], "quickstart", *how.split()[1:], *settings(LONG)]
    else:
        run = copied("stopped")
        arguments = [how, run.id, *(["--suite", "minimum-norm"] if how == "eval" else [])]
    command = subprocess.Popen([program, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True)
    run = starting(runs)
    time.sleep(moment)
    os.killpg(command.pid, signal.SIGINT)
    said = command.communicate(timeout=60)[1]
    assert command.returncode == 130
    assert "Traceback" not in said
    if run.config.exists():
        assert status(run) in ("stopped", "finished")
    if moment:
        assert "saving and stopping" in said
        assert read_state(run).stopped_by == "person"
    if moment and how != "eval":
        assert hah("resume", run.id, "--epochs", str(read_state(run).epoch + 1)).stdout.count("finished") == 1


def test_a_signal_in_an_engines_first_moments_waits_until_it_can_be_answered(hah, program, runs):
    command = [program, "run", "quickstart", "--json", *settings(LONG)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        run = starting(runs)
        os.kill(eventually(lambda: (pid := read_state(run).engine["pid"]) != process.pid and pid), signal.SIGTERM)
        process.wait(60)
    assert status(run) == "stopped"
    assert read_state(run).stopped_by == "signal"
    assert read_state(run).error == ""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGXCPU"])  # the others: tests/job
def test_what_clusters_send_before_they_take_a_machine_saves_and_stops(here, detached, name):
    run = detached(*LONG)
    eventually(lambda: read_state(run).step > 3)
    os.kill(read_state(run).engine["pid"], getattr(signal, name))
    eventually(lambda: status(run) == "stopped")
    state, said = read_state(run), last(run, "stopped")
    assert checkpoints.newest(run).checkpoint["step"] == state.step
    assert (state.stopped_by, said["by"]) == (2 * ("limit" if name == "SIGXCPU" else "signal",))
    assert said["signal"] == name
    watched = here("watch", run.id, check=False)
    assert watched.returncode == 130
    assert f"stopped by {name}" in watched.stdout
    assert json.loads(here("show", run.id, "--json").stdout)["stopped_by"] == state.stopped_by


def test_what_a_person_stopped_says_so(hah, copied):
    run = copied("stopped")
    assert read_state(run).stopped_by == last(run, "stopped")["by"] == "person"
    hah("resume", run.id, "--detach")
    assert read_state(run).stopped_by == ""


def test_the_last_words_are_those_of_the_last_engine(hah, copied, tmp_path):
    run = copied("stopped")
    with run.log.open("a") as log:
        log.write("words of the first engine\n")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif '--lock' in sys.orig_argv:\n    os.write(2, b'words of the second\\n')\n    os._exit(5)\n"
    )
    done = hah("resume", run.id, check=False, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "its process ended with 5 while it started" in done.stderr
    assert "words of the second" in done.stderr
    assert "words of the first" not in done.stderr


@pytest.fixture
def full(program, runs, tmp_path):
    """Run `hah` where no file can grow, as on a full disk: full("tag", ...) -> CompletedProcess."""

    def call(*arguments):
        return subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
            cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        )  # fmt: skip

    return call


def contents(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_on_a_full_disk_every_command_says_so_and_changes_nothing(copied, full, runs, own_presets):
    run = copied("evaluated")
    before = contents(run)
    writing = [
        ["run", "quickstart", *settings(TINY)], ["run", "quickstart", "--detach"], ["resume", run.id, "--epochs", "9"],
        ["tag", run.id, "x"], ["note", run.id, "x"], ["eval", run.id, "--suite", "noise"],
        ["export", run.id, "--to", "there"], ["export", run.id, "--results", "--to", "there"],
        ["report", "paper", "--to", "there"], ["presets", "new", "mine", "--from", "quickstart"],
        ["run", "quickstart", "--queue"], ["queue", "add", "quickstart"], ["queue", "pause"],
        ["queue", "group", "g", "--limit", "1"], ["eval", run.id, "--suite", "noise", "--queue"],
        ["sweep", "run", "quick", "--detach"],
    ]  # fmt: skip
    for arguments in writing:
        done = full(*arguments)
        assert done.returncode in (1, 2), (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, (arguments, done.stderr)
        assert "File too large" in done.stderr, (arguments, done.stderr)
        assert len(done.stderr.splitlines()) <= 2, (arguments, done.stderr)
        assert contents(run) == before, arguments
        assert [one.path for one in store.all_runs(runs)] == [run.path], arguments
        assert [path.name for path in runs.iterdir() if path.name not in (".queue", ".sweeps")] == [run.id], arguments
        assert not list(runs.glob(".*/**/*.json")), arguments
    assert list(own_presets.iterdir()) == []
    reading = (["ls"], ["show", run.id], ["log", run.id], ["presets"], ["doctor"], ["watch", run.id], ["queue", "ls"],
               ["sweep", "ls"], ["sweep", "run", "quick", "--dry-run"])  # fmt: skip
    for arguments in reading:
        assert full(*arguments).returncode == 0, arguments
    assert full("rm", run.id, "--yes").returncode == 0
    assert [path.name for path in runs.iterdir() if path.name not in (".queue", ".sweeps")] == []


def test_an_engine_that_cannot_write_its_snapshot_any_more_says_why(hah, detached):
    run = detached(*LONG)
    eventually(lambda: read_state(run).step > 3)
    run.state.unlink()
    run.state.mkdir()
    (run.state / "in the way").touch()
    look = eventually(lambda: (one := store.look(run)).reason and one)
    assert look.reason.startswith("state.json cannot be written: ")
    assert look.live
    assert "state.json cannot be written" in hah("show", run.id).stdout
    (run.state / "in the way").unlink()
    run.state.rmdir()
    eventually(lambda: not store.look(run).reason)
    assert status(run) == "running"


def test_another_package_called_engine_is_not_taken_for_ours(hah, tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("raise RuntimeError('another engine')\n")
    for more in ({}, {"PYTHONSAFEPATH": "1"}):
        done = hah("run", "quickstart", *settings(TINY), env={"PYTHONPATH": str(tmp_path), **more})
        assert "finished" in done.stdout


def test_where_there_is_no_home_hah_runs_is_enough(hah, runs, tmp_path, monkeypatch):
    for name in ("HOME", "LOGNAME", "USER", *[name for name in os.environ if name.startswith("XDG_")]):
        monkeypatch.delenv(name, raising=False)
    nobody = tmp_path / "nobody"
    nobody.mkdir()
    (nobody / "sitecustomize.py").write_text(
        "import pwd\n\ndef unknown(uid):\n    raise KeyError(f'getpwuid(): uid not found: {uid}')\n\n"
        "pwd.getpwuid = unknown\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(nobody))
    assert "fused-cpu" not in hah("run", "quickstart", *settings(TINY)).stderr
    hah("eval", "@last", "--suite", "sparsity", "--images", "20")
    hah("report", "paper", "--to", tmp_path / "report")
    hah("presets", "new", "mine", "--from", "quickstart")
    assert "mine" in hah("presets").stdout
    assert "no problem" not in hah("doctor").stdout.partition("disk")[0]
    assert {path.name for path in runs.iterdir()} == {".hah-tui", store.all_runs(runs)[0].id}
    monkeypatch.delenv("HAH_RUNS")
    done = hah("ls", check=False)
    assert done.returncode == 2
    assert done.stderr == "hah: there is no home folder here: set HOME, or HAH_RUNS to a folder for everything\n"


@pytest.mark.parametrize("closed", ["stdin", "stdout", "stderr", "all"])
def test_what_is_closed_is_not_missed(program, runs, closed):
    shut = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all": "<&- >&- 2>&-"}[closed]
    command = f"exec {shlex.join([program, 'run', 'quickstart', *settings(TINY)])} {shut}"
    assert subprocess.run(["bash", "-c", command], timeout=120, check=False).returncode == 0
    assert [status(run) for run in store.all_runs(runs)] == ["finished"]


def test_a_pipe_whose_reader_is_gone_does_not_touch_the_run(program, runs):
    command = f"{shlex.join([program, 'run', 'quickstart', *settings(TINY)])} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = store.all_runs(runs)
    eventually(lambda: status(run) == "finished")


def test_the_checkouts_index_is_not_locked_by_who_looks_at_it():
    source = Path(__file__).parents[2] / "engine" / "runs" / "manifest.py"
    assert "--no-optional-locks" in source.read_text()


def test_a_refused_resume_leaves_the_run_as_it_was(hah, copied):
    """Refused by the engine, which alone knows what the record says."""
    run = copied("finished")
    done = hah("resume", run.id, "--epochs", "5", "--without-set", "hah.lambda", check=False)
    assert done.returncode == 2
    assert "hah.lambda has not been changed" in done.stderr
    assert (status(run), read_state(run).epoch, read_state(run).error) == ("finished", 3, "")
    run.state.unlink()  # and the record says so too
    assert (status(run), read_state(run).epoch) == ("finished", 3)
    assert "epoch 5/5" in hah("resume", run.id, "--epochs", "5").stdout


def test_commands_and_checkpoints_go_through_no_link(hah, detached, tmp_path):
    run = detached(*LONG)
    eventually(lambda: read_state(run).step > 3)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.json").write_text("{}")
    run.control.rename(run.path / "control.before")
    run.control.symlink_to(elsewhere)
    for arguments in (["set", run.id, "hah.lambda=0.3"], ["stop", run.id]):
        done = hah(*arguments, check=False)
        assert done.returncode == 2
        assert "is a symbolic link" in done.stderr
    at = read_state(run).step
    eventually(lambda: read_state(run).step > at + 20)
    assert [path.name for path in elsewhere.iterdir()] == ["mine.json"]
    run.control.unlink()
    (run.path / "control.before").rename(run.control)
    hah("pause", run.id)  # no epoch ends between the two
    run.checkpoints.rename(run.path / "checkpoints.before")
    run.checkpoints.symlink_to(elsewhere)
    hah("stop", run.id, check=False)
    assert status(run) == "failed"
    assert "symbolic link" in read_state(run).error
    assert [path.name for path in elsewhere.iterdir()] == ["mine.json"]


def test_what_cannot_be_deleted_is_still_there(copied, monkeypatch):
    from engine.experiment import RequestError

    run = copied("finished")

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", denied)
    with pytest.raises(RequestError, match="cannot be deleted: Permission denied"):
        store.remove(run)
    assert status(run) == "finished"


@pytest.mark.parametrize("arguments", ["ls", "ls --json", "presets", "doctor"])
def test_a_reader_who_has_seen_enough_is_no_failure(program, runs, arguments):
    done = subprocess.run(
        ["bash", "-c", f"{program} {arguments} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.replace("hah: ", "")[:12]) in ((0, ""), (0, "no runs in /"))
    done = subprocess.run(["bash", "-c", f"{program} show nobody 2>/dev/full"], check=False)
    assert done.returncode == 2


def test_half_an_export_does_not_stay(hah, copied, tmp_path, program):
    run = copied("finished")
    for bytes_ in (0, 100):
        subprocess.run(
            [program, "export", run.id, "--to", "there"], cwd=tmp_path, capture_output=True,
            preexec_fn=lambda most=bytes_: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        )  # fmt: skip
    hah("export", run.id, "--to", "there", cwd=tmp_path)
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["config.yaml", "model.safetensors"]


def test_a_preset_that_is_a_circle_of_links(hah, tmp_path):
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for arguments in (["presets", "check"], ["run"]):
        done = hah(*arguments, tmp_path / "loop.yaml", check=False)
        assert done.returncode == 2
        assert "its symbolic links lead in a circle" in done.stderr


def test_an_engine_that_is_to_be_nice_leaves_the_session_it_was_started_from_as_it_is(program, runs):
    """Linux may schedule sessions as groups: all that a person does in theirs would be nice with it."""
    group = Path("/proc/self/autogroup")
    if not group.exists():
        pytest.skip("no autogroups here")
    command = shlex.join([program, "run", "quickstart", "--detach", *settings(LONG)])
    done = subprocess.run(
        ["bash", "-c", f"cat {group}; nice -n 7 {command}; cat {group}"],
        capture_output=True, text=True, check=True, start_new_session=True, cwd="/",
    )  # fmt: skip
    before, *_, after = done.stdout.splitlines()
    (run,) = store.all_runs(runs)
    assert (before.split()[1:], after) == (["nice", "0"], before)
    assert Path(f"/proc/{read_state(run).engine['pid']}/autogroup").read_text().split()[1:] == ["nice", "7"]
