"""A sweep says how long it takes before it starts, and writes its report when all has ended."""

import json
import socket

import pytest

from engine.sweep import plan, sweeps
from hah_tui.cli import reporting
from tests.report.conftest import attacks, noise

QUICK = """
base: quickstart
cases: {hah: {}, no-threshold: {model.threshold.kind: none}}
"""


@pytest.fixture
def planned(tmp_path):
    """planned("name", text) -> the path of a plan."""

    def write(name, text):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return path

    return write


def test_a_sweep_of_ones_own_runs_writes_their_report(runs, made, hah, planned, tmp_path):
    made("quickstart", results={"noise": noise({0.1: 0.6})})
    made("quickstart", sets=["model.threshold.kind=none"], results={"noise": noise({0.1: 0.5})})
    out = tmp_path / "out"
    done = hah("sweep", "run", planned("quick-two", QUICK), "--report", out)
    assert f"the report: {out / 'report.md'}" in done.stderr
    assert "60.0" in (out / "report.md").read_text()
    assert "2 there already" in done.stdout
    assert "how long it takes" not in done.stderr  # there is nothing to be done


def test_a_sweep_of_the_papers_networks_writes_the_papers_report(runs, made, planned, tmp_path):
    for preset in ("paper-standard", "paper-hah-lambda-1", "paper-hah"):  # the last is not of the sweep
        made(preset, results={"attacks": attacks(("linf", 2 / 255, 0.2))})
    cases = "cases: {standard: {extends: paper-standard}, hah: {extends: paper-hah-lambda-1}}\n"
    sweeps.write(runs, sweeps.of_plan(plan.load(plan.find(str(planned("two-of-it", cases))))))
    first, *_ = reporting.write_of_sweep("two-of-it", runs, tmp_path / "out")
    assert first == tmp_path / "out" / "index.html"
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = {row["preset"]: len(row["runs"]) for row in document["tables"][0]["rows"]}
    assert rows == {"paper-standard": 1, "paper-hah-lambda-1": 1, "paper-hah": 0}


def test_the_papers_report_takes_a_sweep(runs, made, here, planned):
    made("paper-standard")
    made("paper-hah")
    cases = "cases: {standard: {extends: paper-standard}}\n"
    sweeps.write(runs, sweeps.of_plan(plan.load(plan.find(str(planned("one-of-it", cases))))))
    document = json.loads(here("report", "paper", "one-of-it", "--json").stdout)
    assert {row["preset"]: len(row["runs"]) for row in document["tables"][0]["rows"]}["paper-hah"] == 0


def test_what_cannot_be_waited_for_is_refused_before_anything_is_made(runs, here, planned, tmp_path):
    done = here("sweep", "run", planned("quick-two", QUICK), "--report", tmp_path / "out", "--detach", check=False)
    assert done.returncode == 2
    assert "which --detach does not wait for" in done.stderr
    assert not runs.exists()
    assert not (tmp_path / "out").exists()


def test_what_nobody_knows_is_said(here, planned):
    said = here("sweep", "run", "paper", "--dry-run").stdout
    assert "how long it takes is not known: no such network was trained on this machine" in said
    assert "one epoch of one of them tells ('hah run PRESET --set train.epochs=1')" in said


def test_one_epoch_tells(made, here):
    """The speed of a run of one epoch is that of a hundred."""
    made("paper-standard", sets=["train.epochs=1"], images_per_second=5000.0, engine={"host": socket.gethostname()})
    document = json.loads(here("sweep", "run", "paper", "--dry-run", "--json").stdout)
    seconds = {trial["case"]: trial["seconds"] for trial in document["trials"]}
    assert seconds["standard"] == pytest.approx(100 * 50_000 / 5000)
    assert document["seconds"] is not None
