"""`hah run` from end to end: what a newcomer does first, and what the record holds afterwards."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from engine.experiment import presets
from engine.runs import store
from engine.runs.events import Tail
from tests.end_to_end.conftest import TINY, settings


def test_quickstart_learns_digits_and_writes_everything(hah, runs, terminal, program):
    """The README's first command, in a terminal."""
    screen = terminal(program, "run", "quickstart", columns=80, lines=24)
    assert screen.wait(seconds=300) == 0, screen.output[-3000:]
    assert b"finished: clean 9" in screen.output
    for words in (b"sparsity", b"SNR dB", b"images/s", b"ETA", b"noisy"):
        assert words in screen.output
    (run,) = store.all_runs(runs)
    facts = json.loads(hah("show", "@last", "--json").stdout)
    assert facts["id"] == run.id
    assert (facts["name"], facts["preset"], facts["status"], facts["verified"]) == (
        "quickstart",
        "quickstart",
        "finished",
        True,
    )
    assert (facts["epoch"], facts["epochs"]) == (12, 12)
    assert facts["step"] == facts["steps"] == 12 * 23
    assert facts["path"] == str(run.path)
    assert facts["metrics"]["test/accuracy"] > 0.9
    assert 0.5 < facts["metrics"]["test/noisy_accuracy"] <= 1
    assert facts["metrics"]["block/1/sparsity"] < 0.5 < facts["metrics"]["block/8/sparsity"]
    manifest = json.loads(run.manifest.read_text())
    assert manifest["dataset"]["name"] == "digits"
    assert len(manifest["dataset"]["sha256"]) == 64
    assert manifest["arithmetic"] == {"precision": "fp32", "kernels": "fused-cpu"}
    assert manifest["command"][1:] == ["run", "quickstart"]
    assert {"torch", "numpy", "hah-tui"} <= set(manifest["versions"])
    assert {"host", "cpu", "seed", "schema_version", "layout_version", "device", "source"} <= set(manifest)
    assert yaml.safe_load(run.config.read_text()) == presets.stored(presets.load("quickstart"))
    assert {path.name for path in run.checkpoints.iterdir()} == {"last.pt", "previous.pt", "best.pt"}
    assert any("tfevents" in path.name for path in run.tensorboard.iterdir())
    assert [event["kind"] for event in Tail(run.events)][-1] == "finished"
    assert list(run.control.iterdir()) == []
    assert hah("ls").stdout.splitlines()[1].startswith(run.id)
    listed = json.loads(hah("ls", "--json").stdout)
    assert [one["id"] for one in listed["runs"]] == [run.id]
    replay = hah("watch", run.id)
    assert replay.stdout.count("epoch ") >= 12
    assert "finished: clean" in replay.stdout


@pytest.mark.skipif(
    not os.path.isfile(os.path.join(os.environ.get("HAH_DATA", ""), "cifar10.npz")),
    reason="HAH_DATA has no cifar10.npz",
)
def test_cifar10_smoke_learns_more_than_chance(hah, runs):
    """Real CIFAR-10 from a prepared archive: two of the preset's epochs suffice to leave chance (10%) behind."""
    done = hah(
        "run",
        "cifar10-smoke",
        *settings(["train.epochs=2", "train.milestones=[]", "data.train_limit=6400", "data.test_limit=1000"]),
        timeout=300,
    )
    assert "\x1b" not in done.stdout  # plain lines where there is no terminal
    facts = json.loads(hah("show", "@last", "--json").stdout)
    assert facts["status"] == "finished"
    assert facts["metrics"]["test/accuracy"] > 0.2
    manifest = json.loads(store.all_runs(runs)[0].manifest.read_text())
    assert manifest["dataset"]["name"] == "cifar10"


def test_a_file_of_ones_own_by_relative_path_beside_a_torch_py_that_is_never_executed(hah, tmp_path):
    """In the foreground, with --json: the whole output is one document."""
    (tmp_path / "torch.py").write_text(f"open({str(tmp_path / 'fooled')!r}, 'w')")
    (tmp_path / "mine.yaml").write_text("extends: quickstart\ntags: [mine]\n")
    own = ["--name", "renamed", "--json", *settings(TINY)]
    facts = json.loads(hah("run", "mine.yaml", *own, cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"}).stdout)
    assert facts["id"].startswith("renamed-")
    assert (facts["name"], facts["preset"], facts["tags"]) == ("renamed", "mine", ["mine"])
    assert (facts["status"], facts["config"]["model"]["width"]) == ("finished", 0.0625)
    assert not (tmp_path / "fooled").exists()
    # The engine's imports are in its log: the compiler, a third of the time it takes to start, is not among them.
    imported = {line.rpartition("|")[2].strip() for line in Path(facts["path"], "engine.log").read_text().splitlines()}
    assert "torch" in imported
    assert not [name for name in imported if name.startswith("torch._dynamo")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "no preset is called 'nobody'"),
        (["quickstrat"], "did you mean quickstart?"),
        (["quickstart", "--set", "hah.alhpa=1"], "hah.alhpa: unknown; did you mean hah.alpha?"),
        (
            ["quickstart", "--set", "hah.lambda=-1", "--set", "train.lr=.nan"],
            "hah.lambda: must be a number from 0 to 1000000",
        ),
        (["quickstart", "--name", "../evil"], "--name: name: must be 1 to 80 letters"),
        (["quickstart", "--device", "cuda"], "compute.device: cuda is not there"),
        (["quickstart", "--device", "cuda:3"], "compute.device: cuda:3 is not there"),
        (["quickstart", "--device", "tpu"], "must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        (["/etc/passwd"], "/etc/passwd:"),
        (["missing.yaml"], "missing.yaml: cannot be read: No such file"),
        (["paper-hah", "--set", "data.dataset=cifar100"], "hah data prepare cifar100"),
    ],
)
def test_wrong_requests_end_with_2_one_message_and_nothing_created(here, runs, tmp_path, monkeypatch, arguments, words):
    monkeypatch.setenv("HAH_DATA", str(tmp_path / "none"))
    done = here("run", *arguments, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert all(line.startswith("hah: ") for line in done.stderr.splitlines())
    assert done.stdout == ""
    assert not runs.exists()


def test_an_engine_that_cannot_start_is_reported_with_its_last_words(hah, runs, tmp_path, monkeypatch):
    """The launcher sees it, not somebody who looks tomorrow: here torch does not import."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "torch.py").write_text("raise ImportError('libtorch.so.7: cannot open shared object file')")
    done = hah("run", "quickstart", "--detach", check=False, env={"PYTHONPATH": str(broken)})
    assert done.returncode == 1
    assert "did not start" in done.stderr
    assert "libtorch.so.7: cannot open shared object file" in done.stderr
    (run,) = store.all_runs(runs)
    assert store.look(run).status == "failed"


def test_a_run_that_diverges_says_what_where_and_what_is_left(hah, runs):
    done = hah(
        "run",
        "quickstart",
        *settings([*TINY, "train.lr=1e6", "train.weight_decay=1e6", "train.optimizer=adamw"]),
        check=False,
    )
    assert done.returncode == 1
    assert "diverged at step" in done.stdout
    assert "there is no checkpoint yet" in done.stdout
    assert json.loads(hah("show", "@last", "--json").stdout)["status"] == "failed"


def test_out_of_memory_says_what_to_lower(program, runs, tmp_path):
    """A real allocation that fails: the engine may use 6 GiB of address space and the batch needs more."""
    values = ["model.width=2", "train.batch_size=1400", "train.epochs=1", "train.milestones=[]"]
    command = f"ulimit -v {6 << 20}; exec {program} run quickstart {' '.join(settings(values))}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert re.search(
        r"out of memory \(tried to allocate \d+ bytes\); lower train.batch_size \(1400\) or model.width", said
    )
