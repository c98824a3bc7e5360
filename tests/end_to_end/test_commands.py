"""Commands that print facts: what they say to a person, to a program, and to hostile data."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from importlib import metadata

import pytest
import typer

from engine.disk import replace_json
from engine.runs import store
from engine.runs.layout import create
from engine.runs.process import identity
from engine.runs.state import State
from engine.sweep import sweeps
from engine.sweep.sweeps import Sweep
from hah_tui import cli
from tests.tui.made import ablation


def cpu_seconds(command):
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\nprint(used.ru_utime + used.ru_stime)"
    )
    return float(
        subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True).stdout
    )


def test_help_names_every_command(hah):
    said = hah("--help").stdout
    for (
        command
    ) in "run resume watch stop pause set ls show log tag note rm export tensorboard doctor presets data".split():
        assert f" {command} " in said


def test_presets_ls_show_check_and_new(here, own_presets, tmp_path):
    listed = json.loads(here("presets", "ls", "--json").stdout)["presets"]
    assert {"quickstart", "paper-hah", "blocks-6"} <= {preset["name"] for preset in listed}
    assert "paper-hah" in here("presets").stdout
    assert here("presets", "show", "paper-hah").stdout.startswith(
        "# 14,722,250 parameters, 313.2 M multiply-accumulates"
    )
    shown = json.loads(here("presets", "show", "paper-hah", "-s", "hah.lambda=0.4", "--json").stdout)
    assert shown["config"]["hah"]["lambda"] == 0.4
    bad = tmp_path / "bad.yaml"
    bad.write_text("hah: {lambda: -1}\ntrain: {epoch: 3}\n")
    done = here("presets", "check", "paper-hah", bad, check=False)
    assert done.returncode == 2
    assert "paper-hah: good" in done.stdout
    assert f"{bad}:1: hah.lambda: must be a number from 0 to 1000000, got -1" in done.stderr
    assert f"{bad}:2: train.epoch: unknown; did you mean train.epochs?" in done.stderr
    written = here("presets", "new", "mine", "--from", "paper-hah", "-s", "hah.lambda=0.5").stdout.strip()
    assert written == str(own_presets / "mine.yaml")
    (own_presets / "paper-hah.yaml").write_text("extends: paper-hah\nhah: {lambda: nonsense}\n")
    assert "broken: " in here("presets", "ls").stdout
    said = here("run", "paper-hah", check=False)
    assert "hides the shipped one" in said.stderr
    assert said.returncode == 2


def test_data_status(here, tmp_path, monkeypatch):
    monkeypatch.setenv("HAH_DATA", str(tmp_path))
    facts = json.loads(here("data", "status", "--json").stdout)
    there = {one["name"]: one["there"] for one in facts["datasets"]}
    assert there == {"cifar10": False, "cifar100": False, "digits": True}
    assert facts["folder"] == str(tmp_path)
    assert "not there" in here("data").stdout
    assert here("data", "prepare", "imagenet", check=False).returncode == 2


def test_which_version_it_is(here):
    assert here("--version").stdout == f"hah-tui {metadata.version('hah-tui')}\n"


def test_doctor(hah, here, tmp_path):
    facts = json.loads(here("doctor", "--json").stdout)
    assert {"versions", "torch", "gpus", "driver", "terminal", "folders", "data", "free_gib", "problems"} <= set(facts)
    assert facts["torch"]["torch"] == facts["versions"]["torch"].partition("+")[0] or facts["torch"]["torch"]
    locked = tmp_path / "file"
    locked.write_text("")
    said = hah("doctor", env={"HAH_RUNS": str(locked / "runs"), "PYTHONIOENCODING": "latin-1"}).stdout
    assert "versions" in said
    assert "torchvision" in said
    assert "problem" in said


@pytest.fixture
def hostile(runs):
    """A run whose every text is an attack on the terminal that shows it."""
    run = create(runs, "hostile", 'name: hostile\ndescription: "\\e]0;owned\\a [red]x[/red]"\n')
    evil = "\x1b[2J\x1b]0;owned\x07[bold red]{}[/] \u202e\x9b31m " + "x" * 10_000
    state = State(
        name=evil,
        preset=evil,
        tags=[evil],
        status="failed",
        phase=evil,
        device=evil,
        error=evil,
        metrics={evil: 1.0},
        engine={**identity().dump(), "host": evil},
    )
    state.write(run)
    replace_json(run.labels, {"tags": [evil], "note": evil})
    replace_json(run.manifest, {"arithmetic": {evil: evil}})
    events = [
        {"kind": "log", "version": 1},
        {"kind": "warning", "text": evil},
        {"kind": evil},
        {"kind": "set", "name": evil, "old": evil, "new": {"a": evil}, "step": 3},
        {"kind": "epoch", "epoch": 1, "step": evil, "values": {"train/loss": evil, "test/accuracy": None}},
        {"kind": "checkpoint", "name": evil, "step": evil},
    ]
    run.events.write_text("".join(json.dumps(event) + "\n" for event in events))
    run.log.write_text(evil)
    return run


@pytest.mark.parametrize("command", [["ls"], ["show"], ["watch"], ["log"], ["log", "--events"], ["rm"]])
def test_nothing_read_back_from_disk_reaches_the_terminal_raw(hostile, terminal, program, command):
    argument = [] if command == ["ls"] else [hostile.id]
    screen = terminal(program, *command[:1], *argument, *command[1:], columns=100)
    screen.read(0.1)
    if command == ["rm"]:
        screen.expect("Delete")
        screen.send("n\n")
    screen.wait()
    # What rich itself writes: colours, and cursor movements of its live display.
    assert b"\x1b]0" not in screen.output
    assert b"\x1b[2J" not in screen.output
    assert b"\x07" not in screen.output
    assert "\x9b".encode() not in screen.output
    assert "\u202e".encode() not in screen.output


def test_hostile_runs_as_json_are_json(here, hostile):
    facts = json.loads(here("show", hostile.id, "--json").stdout)
    assert facts["status"] == "failed"
    assert json.loads(here("ls", "--json").stdout)["total"] == 1


def test_wrong_references_end_with_2(here, hostile):
    for reference in ("nobody", "../x", "", "@first", "\x1b[31m"):
        done = here("show", reference, check=False)
        assert done.returncode == 2
        assert "\x1b" not in done.stderr
    assert here("tag", hostile.id, "a b", check=False).returncode == 2
    assert here("set", hostile.id, "hah.lambda", check=False).returncode == 2


def test_ls_takes_the_filters_and_orders_of_the_terminal(here, runs):
    ablation(runs)
    done = here("ls", "--filter", "lambda>=0.5 clean>93% -status:failed", "--sort", "clean", "--json")
    found = json.loads(done.stdout)
    assert [run["id"][-4:] for run in found["runs"]] == ["nk2m", "hk2m", "dk2m", "mk2m"]
    assert found["total"] == 4
    lines = here("ls", "--filter", "seed=1", "--sort", "hah.lambda").stdout.splitlines()
    assert lines[0].split()[-2:] == ["hah.lambda", "seed"]
    assert [line.split()[-2] for line in lines[1:]] == ["0.0", "0.1", "0.5", "1.0"]
    for wrong, said in {"foo>1": "no metric or setting is called 'foo'", "clean>90": "write 90% or 0.9"}.items():
        done = here("ls", "--filter", wrong, check=False)
        assert done.returncode == 2
        assert f"--filter: {wrong}" in done.stderr
        assert said in done.stderr
    assert here("ls", "--sort", "lamda", check=False).returncode == 2


def test_without_runs_commands_say_so(here, runs):
    assert "no runs in" in here("ls").stderr
    assert "there are no runs in" in here("show", "@last", check=False).stderr
    assert not runs.exists()


def test_pages_of_5000_runs(here, runs, program):
    """The first page reads only its own runs; the whole list reads them all. Times are not tested, work is."""
    runs.mkdir()
    (runs / "seed-aaaa").mkdir()
    (runs / "seed-aaaa" / "config.yaml").write_text("name: seed\n")
    state = State(name="many", status="finished", epoch=3, epochs=3, created=time.time())
    for n in range(5000):
        folder = runs / f"many-{n:04}"
        folder.mkdir()
        (folder / "config.yaml").write_text("")
        replace(state, id=folder.name).write(store.RunDirectory(folder), durable=False)
    done = here("ls", "-n", "5")
    assert len(done.stdout.splitlines()) == 6
    assert "4,996 more" in done.stderr
    everything = json.loads(here("ls", "--all", "--sort", "name", "--json").stdout)
    assert everything["total"] == 5001
    assert everything["runs"][0]["id"] == "many-0000"
    code = (
        "import sys; from pathlib import Path; from engine import disk; from engine.runs import store\n"
        "reads = []; original = disk.read_bytes\n"
        "disk.read_bytes = lambda path, *a: reads.append(path) or original(path, *a)\n"
        "list(store.looks(store.all_runs(Path(sys.argv[1]))[:20])); print(len(reads))"
    )
    assert int(subprocess.run([sys.executable, "-c", code, str(runs)], capture_output=True, text=True).stdout) <= 40


def test_a_pipe_that_closes_early_is_no_error(hah, runs, program):
    for n in range(300):
        create(runs, f"run{n}", "")
    done = subprocess.run(["bash", "-c", f"{program} ls --all | head -1"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("run")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_no_colour_and_dumb_terminals_get_plain_lines(terminal, program, runs):
    create(runs, "x", "")
    for env in ({"TERM": "dumb"}, {"NO_COLOR": "1"}):
        screen = terminal(program, "ls", env=env)
        screen.wait()
        assert b"x-" in screen.output
        colours = [part for part in screen.output.split(b"\x1b[")[1:] if part[:1] == b"3"]
        assert not colours
        if env.get("TERM") == "dumb":
            assert b"\x1b" not in screen.output


def test_shell_completion_completes_runs_presets_and_settings(program, runs):
    create(runs, "trained", "")
    sweeps.write(runs, Sweep("lambdas", "", "", (), ()))

    def complete(words):
        env = {
            **os.environ,
            "_HAH_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split())),
        }
        return subprocess.run([program], env=env, capture_output=True, text=True, check=False).stdout

    assert "trained-" in complete("hah show ")
    assert "paper-hah" in complete("hah run ")
    compared = complete("hah compare ")
    assert "trained-" in compared
    assert "lambdas" in compared
    env = {
        **os.environ,
        "_HAH_COMPLETE": "complete_bash",
        "COMP_WORDS": "hah run quickstart --set hah.l",
        "COMP_CWORD": "4",
    }
    done = subprocess.run([program], env=env, capture_output=True, text=True, check=False)
    assert "hah.lambda=" in done.stdout


def test_tensorboard_serves_a_run_and_its_evaluation_on_loopback_only(copied, program):
    run = copied("evaluated")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [program, "tensorboard", run.id, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/plugin/scalars/tags", timeout=5) as answer:
                    tags = json.load(answer)
                every = {name for found in tags.values() for name in found}
                if {"block/1/sparsity", "eval/sparsity/1/hoyer"} <= every:
                    break
            except OSError:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.3)
        assert sorted(name.partition("/")[0] for name in tags) == [run.id, run.evaluation.id]
        listening = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True, check=True).stdout
        addresses = [line.split()[1] for line in listening.splitlines()[1:] if line.split()[1].endswith(f":{port:04X}")]
        assert set(addresses) <= {f"0100007F:{port:04X}"}
    finally:
        server.kill()
        server.communicate()


def test_every_command_is_there_when_it_alone_is(monkeypatch):
    """`hah ls` makes the parser of ls and of no other."""
    every = typer.main.get_command(cli.app).commands
    for name in every:
        with monkeypatch.context() as patch:
            for kind in ("registered_commands", "registered_groups"):
                patch.setattr(cli.app, kind, getattr(cli.app, kind))
            cli._drop_all_but([name])
            assert list(typer.main.get_command(cli.app).commands) == [name]
    cli._drop_all_but(["unheard-of"])
    cli._drop_all_but(["--help"])
    assert typer.main.get_command(cli.app).commands.keys() == every.keys()


def test_an_option_of_a_group_is_none_of_its_command(here):
    for group in ("presets", "data"):
        said = here(group, "--json", "prepare" if group == "data" else "ls", "x", check=False)
        assert said.returncode == 2
        assert "--json belongs behind" in " ".join(said.stderr.split())
