"""Engines and terminals that are really killed, hung up, stopped and raced."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from engine.job import checkpoints
from engine.runs import store
from engine.runs.events import Tail
from engine.runs.state import read_state
from tests.end_to_end.conftest import LONG, TINY, eventually, kill, settings, status
from tests.terminal import Terminal


def step(run):
    return read_state(run).step


def weights(run):
    return checkpoints.read(run.checkpoints / "last.pt")["network"]


def assert_losses_have_no_gap_and_no_contradiction(run):
    losses = {}
    for event in Tail(run.events):
        if event["kind"] == "train":
            for offset, loss in enumerate(event["losses"]):
                number = event["step"] - len(event["losses"]) + 1 + offset
                assert losses.setdefault(number, loss) == loss, number
    assert sorted(losses) == list(range(1, max(losses) + 1))
    return losses


def test_detach_returns_when_the_run_has_begun_and_later_commands_find_it(hah, detached, program):
    run = detached(*LONG)
    assert status(run) == "running"
    assert json.loads(hah("ls", "--json").stdout)["runs"][0]["status"] == "running"
    eventually(lambda: step(run) > 3)
    answer = hah("set", run.id, "hah.lambda=0.7")
    assert "hah.lambda is 0.7" in answer.stdout
    assert json.loads(hah("show", run.id, "--json").stdout)["config"]["hah"]["lambda"] == 0.7
    refused = hah("set", run.id, "model.width=2", check=False)
    assert refused.returncode == 2
    assert "fixed while a run lives" in refused.stderr
    invalid = hah("set", run.id, "hah.lambda=-1", check=False)
    assert invalid.returncode == 2
    assert "must be a number from 0 to 1000000" in invalid.stderr
    hah("pause", run.id)
    assert status(run) == "paused"
    at = step(run)
    used = _cpu_seconds(run)
    time.sleep(1)
    assert step(run) == at
    assert _cpu_seconds(run) - used < 0.3  # it burns no time
    hah("resume", run.id)
    eventually(lambda: step(run) > at)
    assert status(run) == "running"
    stopped = hah("stop", run.id)
    assert f"continue with: hah resume {run.id}" in stopped.stdout
    assert status(run) == "stopped"
    assert checkpoints.newest(run).checkpoint["step"] == step(run)
    late = hah("stop", run.id, check=False)
    assert late.returncode == 2
    assert f"{run.id} is stopped: no engine to stop" in late.stderr
    watched = hah("watch", run.id, check=False)
    assert watched.returncode == 130
    assert "hah.lambda changed from 0.1 to 0.7" in watched.stdout


def _cpu_seconds(run):
    fields = Path(f"/proc/{read_state(run).engine['pid']}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_saves_stops_and_says_how_to_resume(hah, terminal, program, runs):
    screen = terminal(program, "run", "quickstart", *settings(LONG))
    screen.expect("images/s")
    (run,) = store.all_runs(runs)
    eventually(lambda: step(run) > 5)
    screen.interrupt()
    assert screen.wait() == 130
    assert b"saving and stopping" in screen.output
    assert f"continue with: hah resume {run.id}".encode() in screen.output
    assert status(run) == "stopped"
    done = hah("resume", run.id, "--epochs", str(read_state(run).epoch + 1))
    assert "finished" in done.stdout
    assert_losses_have_no_gap_and_no_contradiction(run)


def test_a_hang_up_during_run_does_not_touch_the_engine(terminal, program, runs):
    screen = terminal(program, "run", "quickstart", *settings(LONG))
    screen.expect("images/s")
    screen.hang_up()
    screen.wait()
    (run,) = store.all_runs(runs)
    at = step(run)
    eventually(lambda: step(run) > at + 10)
    assert status(run) == "running"


def test_sigterm_to_hah_run_leaves_the_engine_and_the_terminal_as_they_were(terminal, program, runs):
    screen = terminal(program, "run", "quickstart", *settings(LONG))
    screen.expect("images/s")
    os.kill(screen.process.pid, signal.SIGTERM)
    assert screen.wait() == 128 + signal.SIGTERM
    assert screen.output.rfind(b"\x1b[?25h") > screen.output.rfind(b"\x1b[?25l") >= 0
    (run,) = store.all_runs(runs)
    assert status(run) == "running"


def test_leaving_watch_does_not_touch_the_engine(detached, terminal, program):
    """By Ctrl-C, a hang-up and a kill: one engine for all of them, which shows that it lived on."""
    run = detached(*LONG)
    for leave in (Terminal.interrupt, Terminal.hang_up, lambda screen: screen.process.kill()):
        screen = terminal(program, "watch", run.id)
        screen.expect("images/s")
        leave(screen)
        screen.wait()
        at = step(run)
        eventually(lambda at=at: step(run) > at + 10)
        assert status(run) == "running"


def test_kill_9_of_the_launcher_does_not_touch_the_engine(terminal, program, runs):
    screen = terminal(program, "run", "quickstart", *settings(LONG))
    screen.expect("images/s")
    os.killpg(screen.process.pid, signal.SIGKILL)
    screen.wait()
    (run,) = store.all_runs(runs)
    at = step(run)
    eventually(lambda: step(run) > at + 10)
    assert status(run) == "running"


def test_a_killed_engine_is_lost_within_5_seconds_and_commands_to_it_say_so(hah, here, detached, terminal, program):
    run = detached(*LONG)
    refused = here("rm", run.id, "--yes", check=False)
    assert refused.returncode == 2
    assert "is running" in refused.stderr
    kill(run)
    killed = time.monotonic()
    eventually(lambda: status(run) == "lost", seconds=5)
    assert time.monotonic() - killed < 5
    for verb in ("stop", "pause"):
        done = here(verb, run.id, check=False)
        assert done.returncode == 2
        assert f"{run.id} is lost: no engine to {verb}" in done.stderr
    watched = here("watch", run.id, check=False)
    assert watched.returncode == 1
    assert f"hah resume {run.id}" in watched.stdout
    # And it can be deleted now: rm asks, and takes all that failed.
    screen = terminal(program, "rm", run.id)
    screen.expect("Delete this run")
    screen.send("n\n")
    assert screen.wait() != 0
    assert run.path.exists()
    assert hah("rm", run.id, check=False).returncode != 0  # nobody there to answer
    assert run.path.exists()
    here("rm", "--all-failed", "--yes")
    assert not run.path.exists()
    assert here("rm", "--all-failed", "--yes", check=False).returncode == 2


def test_signals(hah, detached):
    run = detached(*LONG)
    pid = read_state(run).engine["pid"]
    eventually(lambda: step(run) > 3)
    os.kill(pid, signal.SIGHUP)
    at = step(run)
    eventually(lambda: step(run) > at + 5)
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: status(run) == "stalled")
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: status(run) == "running")
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGTERM)  # a second one is harmless
    eventually(lambda: status(run) == "stopped")
    assert checkpoints.newest(run).checkpoint["step"] == step(run)


def test_of_12_simultaneous_resumes_one_wins(hah, copied, program):
    run = copied("stopped")
    command = [program, "resume", run.id, "--detach"]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(12)]
    answers = [(*racer.communicate(timeout=120), racer.returncode) for racer in racers]
    codes = sorted(code for *_, code in answers)
    assert codes == [0] + [2] * 11, answers
    for _, said, code in answers:
        if code == 2:
            assert f"'hah stop {run.id}' stops it" in said  # it is being run, or starting, by then
    assert status(run) == "running"
    holder = read_state(run).engine
    again = hah("resume", run.id, check=False)
    assert again.returncode == 2
    assert f"process {holder['pid']} on {holder['host']}" in again.stderr


def test_random_kills_and_resumes_end_with_the_same_weights_to_the_bit(hah, detached):
    """A few here; benchmarks/faults.py does a hundred."""
    values = [*TINY, "train.epochs=25", "train.milestones=[20]", "train.noise_std=0.05", "checkpoints.minutes=0.001"]
    whole = detached(*values)
    eventually(lambda: status(whole) == "finished", seconds=120)
    run = detached(*values)
    rng = random.Random(1)
    for _ in range(3):
        time.sleep(rng.uniform(0, 1.2))
        kill(run)
        eventually(lambda: not store.look(run).live)
        if status(run) == "finished":
            break
        hah("resume", run.id, "--detach", check=False)
    eventually(lambda: status(run) == "finished", seconds=120)
    a, b = weights(whole), weights(run)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert assert_losses_have_no_gap_and_no_contradiction(run) == assert_losses_have_no_gap_and_no_contradiction(whole)
    left = [path for path in run.path.rglob("*") if path.name.endswith(".tmp")]
    assert left == []


def test_extending_a_finished_run(hah, here, copied):
    run = copied("finished")
    refused = here("resume", run.id, check=False)
    assert refused.returncode == 2
    assert "is finished; give --epochs N" in refused.stderr
    less = here("resume", run.id, "--epochs", "2", check=False)
    assert less.returncode == 2
    done = hah("resume", run.id, "--epochs", "5")
    assert "epoch 5/5" in done.stdout
    assert json.loads(here("show", run.id, "--json").stdout)["config"]["train"]["epochs"] == 5
    assert_losses_have_no_gap_and_no_contradiction(run)


@pytest.mark.parametrize("site", ["log", "checkpoint"])
def test_a_full_disk_never_finishes_a_run_without_its_checkpoint(hah, tmp_path, site):
    """A real file system of 5 MiB, filled while the engine runs; after space returns the run is resumed."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        where = {"HAH_RUNS": str(small / "runs")}
        values = [
            *TINY,
            "train.epochs=400",
            "train.milestones=[]",
            f"checkpoints.every={5 if site == 'checkpoint' else 400}",
        ]
        hah("run", "quickstart", "--detach", *settings(values), env=where)
        run = store.all_runs(small / "runs")[0]
        eventually(lambda: step(run) > 30)
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        eventually(lambda: not store.look(run).live, seconds=60)
        assert status(run) in ("failed", "lost")
        lines = run.events.read_bytes().split(b"\n")
        torn = [line for line in lines if line and not _is_json(line)]
        assert len(torn) <= 1
        filler.unlink()
        values = ["--epochs", str(read_state(run).epoch + 8)]
        done = hah("resume", run.id, *values, env=where)
        assert "finished" in done.stdout
        assert_losses_have_no_gap_and_no_contradiction(run)
        assert weights(run)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def _is_json(line):
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_export_tag_note_and_log(here, copied, tmp_path):
    from safetensors.torch import load_file

    run = copied("finished")
    answer = json.loads(here("export", run.id, "--to", tmp_path / "out", "--json").stdout)
    exported = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in weights(run).items())
    assert answer["step"] == 15
    assert (tmp_path / "out" / "config.yaml").exists()
    assert here("export", run.id, "--to", tmp_path / "out", check=False).returncode == 2
    assert "there is best, last, previous" in here("export", run.id, "--checkpoint", "epoch-7", check=False).stderr
    kept = json.loads(here("export", run.id, "--results", "--weights", "--to", tmp_path / "kept", "--json").stdout)
    assert tmp_path / "kept" / run.id / "model.safetensors" in map(Path, kept["files"])
    assert "--weights belongs to --results" in here("export", run.id, "--weights", check=False).stderr
    compared = here("compare", run.id, run.id, "--results", tmp_path / "kept", check=False)
    assert "at least two different runs" in compared.stderr
    here("tag", run.id, "good", "figure-2")
    here("note", run.id, "keep\x1b[31m this")
    shown = here("show", run.id).stdout
    assert "good figure-2" in shown
    assert "\x1b" not in shown
    assert [one["id"] for one in json.loads(here("ls", "--tag", "good", "--json").stdout)["runs"]] == [run.id]
    assert json.loads(here("ls", "--tag", "bad", "--json").stdout)["runs"] == []
    assert json.loads(here("ls", "--status", "running", "--json").stdout)["runs"] == []
    assert '"kind": "finished"' in here("log", run.id, "--events").stdout
    assert here("ls", "--sort", "colour", check=False).returncode == 2


@pytest.mark.parametrize("detach", [True, False])
def test_that_the_cpu_is_taken_because_others_hold_the_gpu_is_said_at_once(hah, driver, detach):
    """A driver with one GPU, whose lock another engine has (it is made up: there is no GPU here)."""
    from engine.runs import devices
    from engine.runs.process import Lock

    driver(1)
    path = devices._lock_path("GPU-0")
    path.parent.mkdir(parents=True)
    held = Lock.take(path)
    done = hah("run", "quickstart", *(["--detach"] if detach else []), *settings(TINY))
    held.release()
    said = "every GPU (1) has an engine: on the CPU; compute.device=cuda shares one, or wait and resume"
    assert said in (done.stderr if detach else done.stdout)
