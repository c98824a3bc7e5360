"""`benchmarks/gpu.py`, rehearsed: every part is there, the next call goes on, and what it brings back can be read."""

import json
import subprocess
import sys
from pathlib import Path

import gpu
import pytest

from engine.report import tables
from engine.results.measured import measured
from engine.runs import store

PROGRAM = Path(gpu.__file__)
MEASURES = [
    "machine", "steps bf16", "tests of kernels", "profile", "agreement", "kernels", "floors", "tiles",
    "tests of engines", "tests of memory", "steps",
]  # fmt: skip


def call(*arguments):
    done = subprocess.run(
        [sys.executable, PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_everything_is_rehearsed_and_comes_back(tmp_path):
    folder = tmp_path / "gpu"
    call("--rehearse", "--minutes", 10, "--to", folder, "--commit", "abc")
    document = json.loads((folder / "gpu.json").read_text())
    runs = [gpu.Job(*one) for one in gpu.MAIN]
    evaluations = {gpu.replace(job, suite=suite).name for job in runs for suite in gpu.SUITES}
    assert list(document["parts"])[: len(MEASURES)] == MEASURES
    assert set(document["parts"]) == {*MEASURES, *(job.name for job in runs), *evaluations}
    assert {part["status"] for part in document["parts"].values()} == {"done"}
    assert document["source"] == {"commit": "abc", "dirty": None}
    results = {name: part["result"] for name, part in document["parts"].items()}
    assert all("skipped" in results[f"tests of {what}"]["summary"][0] for what in ("kernels", "engines", "memory"))
    kinds = ["ours", "ours eager", "plain", "plain eager", "reference"]
    steps = [*results["steps bf16"], *results["steps"]]
    assert [(one["precision"], sorted(one["ratio_to_plain"])) for one in steps] == [
        (precision, kinds) for precision in ("bf16", "tf32", "fp32")
    ]  # fmt: skip
    assert {one["kernel"] for one in results["kernels"]} == {"select", "normalize", "project", "share", "backward"}
    assert all(one["seconds"] > 0 < one["floor_seconds"] for one in results["kernels"])
    assert {(one["kernel"], one.get("map_elements")) for one in results["tiles"]} >= {
        ("select", None),
        ("normalize", 2048),
    }
    assert results["profile"]["launches"] > 0
    assert results["train paper-standard 2022"]["curves"].startswith("epoch,step,train/loss")
    assert results["evaluate paper-hah-lambda-1 2022 noise"]["results"]

    again = call("--rehearse", "--minutes", 10, "--to", folder)
    assert again.count("done before") == len(document["parts"])

    call("--unpack", folder / "gpu.json", "--to", tmp_path / "results")
    runs = store.all_runs(tmp_path / "results")
    assert sorted(run.id for run in runs) == sorted(document["runs"])
    assert {suite for run in runs for suite in gpu.SUITES if list(run.results.glob(f"{suite}-*"))} == set(gpu.SUITES)
    assert all(measured(run).numbers["eval/noise/0.1/accuracy"] for run in runs)
    [remark, _] = tables.paper([tmp_path / "results"]).remarks
    assert "model.width 0.0625 instead of 1.0" in remark or "data.dataset digits" in remark


def test_without_time_nothing_is_begun(tmp_path):
    call("--rehearse", "--minutes", 0.01, "--to", tmp_path)
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert {part["status"] for part in parts.values()} == {"no time"}


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(gpu.NEEDED, "pydantic-core", "pydantic_core_that_is_not_there")
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="bring wheels of pydantic-core "):
        gpu.main()
