"""What is kept of a run: small, whole, the same to every report, and never in the place of something else."""

import csv
import io
import json

import pytest

from engine.experiment import RequestError
from engine.report import compare, tables
from engine.runs import kept, store
from engine.runs.events import EventLog
from tests.report.conftest import everything, made, noise, write  # noqa: F401 (made is a fixture)

COMMAND = "evaluate.attacks.linf=[2/255]"


@pytest.fixture
def run(made):  # noqa: F811
    run = made("paper-hah", results=everything(), metrics={"test/accuracy": 0.87})
    run.manifest.write_text(json.dumps(
        {"host": "box", "preset_path": "/home/me/x.yaml", "seed": 2022,
         "command": ["/home/me/.venv/bin/hah", "run", "~/me/x.yaml", "--runs-dir=/home/me/runs", "--set", COMMAND],
         "sets": [COMMAND],
         "dataset": {"name": "cifar10", "source": "/home/me/cifar10.npz"}}
    ))  # fmt: skip
    log = EventLog(run.events)
    log.append("epoch", epoch=1, step=10, values={"train/loss": 2.0})
    log.append("epoch", epoch=2, step=20, values={"train/loss": 1.5})
    log.append("position", epoch=1, step=10, batch=0)  # an engine died, the next did epoch 2 again
    log.append("epoch", epoch=2, step=20, values={"train/loss": 1.0, "test/accuracy": 0.5})
    log.close()
    (run.checkpoints / "last.pt").write_bytes(b"weights")
    return run


def rows(path):
    return list(csv.DictReader(io.StringIO((path / kept.CURVES).read_text())))


def test_reports_read_it_like_the_run(run, runs, tmp_path):
    path = kept.keep(run, tmp_path / "results" / "2026-11-26-study")
    assert path == tmp_path / "results" / "2026-11-26-study" / run.id
    there = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert there == {
        "config.yaml", "manifest.json", "state.json", "curves.csv",
        *(f"results/{file.name}" for file in run.results.glob("*.json")),
    }  # fmt: skip
    assert not [text for file in there for text in ("/home/me", "box") if text in (path / file).read_text()]
    assert [(row["epoch"], row["train/loss"], row["test/accuracy"]) for row in rows(path)] == [
        ("1", "2.0", ""), ("2", "1.0", "0.5"),
    ]  # fmt: skip
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["command"] == ["hah", "run", "x.yaml", "--runs-dir=runs", "--set", COMMAND]
    assert manifest["sets"] == [COMMAND]
    [folder] = kept.folders(tmp_path / "results")
    [again] = kept.folders(folder)
    assert folder == again == path.parent
    before, after = tables.paper([runs]), tables.paper([tmp_path / "none", folder])
    assert [row.cells for row in before.tables[1].rows] == [row.cells for row in after.tables[1].rows]
    assert store.look(store.resolve(run.id, folder)).status == "finished"


def test_a_run_that_is_in_both_places_counts_once(run, runs, tmp_path):
    path = kept.keep(run, tmp_path)
    write(run, "noise", noise({0.1: 0.99}), number=9)
    report = tables.paper([runs, tmp_path])
    assert [row.runs for row in report.tables[0].rows if row.runs] == [[run.id]]
    assert store.resolve(run.id, runs, tmp_path) == run  # what lives comes before what was kept
    assert compare.compare([run, store.resolve(run.id, path.parent)]).quantities


def test_it_is_replaced_as_a_whole(run, tmp_path):
    path = kept.keep(run, tmp_path)
    for file in run.results.glob("*.json"):
        file.unlink()
    write(run, "noise", noise({0.1: 0.5}))
    assert kept.keep(run, tmp_path, lambda path: (path / "model.safetensors").write_bytes(b"w")) == path
    assert len(list((path / "results").iterdir())) == 1
    assert (path / "model.safetensors").read_bytes() == b"w"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "runs"] == [run.id]


def test_what_else_is_there_is_left_alone(run, runs, tmp_path):
    with pytest.raises(RequestError, match="something else than what was kept"):
        kept.keep(run, runs)  # the run itself
    assert (run.checkpoints / "last.pt").read_bytes() == b"weights"
    (tmp_path / run.id).write_text("mine")
    with pytest.raises(RequestError, match="something else"):
        kept.keep(run, tmp_path)
    assert (tmp_path / run.id).read_text() == "mine"
    with pytest.raises(RequestError, match="cannot be kept there"):
        kept.keep(run, tmp_path / run.id)


def test_a_failure_leaves_nothing_and_what_was_there_before(run, tmp_path):
    path = kept.keep(run, tmp_path / "out")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}

    def fails(path):
        raise RequestError("no such checkpoint")

    with pytest.raises(RequestError, match="no such checkpoint"):
        kept.keep(run, tmp_path / "out", fails)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [run.id]


def test_a_run_that_goes_on_and_a_folder_without_any_are_refused(made, tmp_path):  # noqa: F811
    with pytest.raises(RequestError, match="is lost; its results are kept when it has ended"):
        kept.keep(made("paper-hah", status="running"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="no results are kept there"):
        kept.folders(tmp_path / "empty")
    with pytest.raises(RequestError, match="No such file"):
        kept.folders(tmp_path / "none")
