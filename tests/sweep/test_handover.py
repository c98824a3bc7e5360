"""What is handed to Slurm, and is as it was where that does not work out; sbatch's answers are made up."""

import shutil
from dataclasses import replace

import pytest

from engine import disk
from engine.disk import replace_text
from engine.experiment import presets
from engine.experiment.mistakes import RequestError
from engine.runs import evaluations, store
from engine.runs.making import Origin
from engine.runs.process import Lock
from engine.runs.slurm import Job, job_of
from engine.runs.squeue import Cluster
from engine.runs.state import read_state
from engine.sweep import sbatch
from engine.sweep.handover import Handover
from engine.sweep.profiles import Profile
from engine.sweep.queue import Entry
from tests.tui.made import made

NOISE, SPARSITY = (presets.load("quickstart", [f"evaluate.suites=[{suite}]"]) for suite in ("noise", "sparsity"))


@pytest.fixture
def refused(runs, monkeypatch):
    """refused(lambda over: over.again(run), meanwhile) hands something over; ``meanwhile`` is done before sbatch
    refuses."""
    monkeypatch.setattr(sbatch, "site", lambda: Cluster("24.11.5", "ci", 10))

    def hand(what, meanwhile=lambda: None):
        def submit(script, after=""):
            meanwhile()
            raise RequestError("sbatch refused: no")

        monkeypatch.setattr(sbatch, "submit", submit)

        def attempt():
            with Handover(runs, "s", Profile()) as over:
                what(over)
                over.submit()

        with pytest.raises((RequestError, OSError)):
            attempt()
        assert [path.name for path in runs.glob(".slurm/*")] in ([], ["lock"])

    return hand


@pytest.fixture
def evaluated(runs):
    """A run, trained as job 17, whose noise is measured, as job 18."""
    runs.mkdir()
    run = made(runs, points=0)
    Job("17", None, "ci", 1.0, "").write(run)
    lock = evaluations.take(run)
    replace(evaluations.prepare(run, NOISE, "best"), status="finished").write(run.evaluation)
    Job("18", None, "ci", 2.0, "").write(run.evaluation)
    Entry(queued=3.0).write(run)
    lock.release()
    return run


def files(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != "lock"}


def test_an_evaluation_that_was_there_is_as_it_was_where_sbatch_refuses_another(evaluated, refused):
    before = files(evaluated)
    refused(lambda over: over.evaluate(evaluated, SPARSITY))
    assert files(evaluated) == before


@pytest.mark.parametrize("full", ["manifest.json", "config.yaml"])
def test_an_evaluation_is_as_it_was_where_the_disk_is_full_on_the_way(evaluated, refused, monkeypatch, full):
    before = files(evaluated)

    def write(path, *content):
        if path.name == full:
            raise OSError(28, "No space left on device")
        replace_text(path, *content)

    monkeypatch.setattr(evaluations, "replace_text", write)
    if full == "manifest.json":
        monkeypatch.setattr(evaluations, "replace_json", write)
    refused(lambda over: over.evaluate(evaluated, SPARSITY))
    assert files(evaluated) == before


def test_of_a_new_evaluation_nothing_is_left_and_the_queue_has_its_run(evaluated, refused):
    shutil.rmtree(evaluated.evaluation.path)
    before = files(evaluated)
    refused(lambda over: over.evaluate(evaluated, NOISE))
    assert files(evaluated) == before
    assert not evaluated.evaluation.path.exists()


def test_a_new_run_is_gone_unless_somebody_has_taken_it_up(runs, refused):
    refused(lambda over: over.make(NOISE, Origin("quickstart")))
    assert store.all_runs(runs) == []
    refused(
        lambda over: over.make(NOISE, Origin("quickstart")),
        lambda: [replace(read_state(run), status="stopped").write(run) for run in store.all_runs(runs)],
    )
    (trained,) = store.all_runs(runs)
    assert read_state(trained).status == "stopped"
    held = []
    refused(
        lambda over: over.make(NOISE, Origin("quickstart")),
        lambda: held.extend(Lock.take(run.lock) for run in store.all_runs(runs) if run != trained),
    )
    assert len(store.all_runs(runs)) == 2
    held[0].release()


def test_a_run_that_somebody_takes_up_meanwhile_is_left_to_them_and_no_lock_is_kept(evaluated, refused):
    refused(
        lambda over: over.again(evaluated), lambda: replace(read_state(evaluated), status="running").write(evaluated)
    )
    assert read_state(evaluated).status == "running"
    assert job_of(evaluated) is None
    lock = Lock.take(evaluated.lock)
    assert lock is not None
    lock.release()


def test_no_script_is_written_through_a_link_nor_half(runs, tmp_path, refused, monkeypatch):
    runs.mkdir()
    (runs / ".slurm").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    refused(lambda over: over.make(NOISE, Origin("quickstart")))
    assert not list((tmp_path / "elsewhere").iterdir())
    (runs / ".slurm").unlink()

    def write(path, text):
        if path.suffix == ".sh":
            raise OSError(28, "No space left on device")
        replace_text(path, text)

    monkeypatch.setattr(disk, "replace_text", write)
    refused(lambda over: over.make(NOISE, Origin("quickstart")))
    assert store.all_runs(runs) == []


@pytest.mark.parametrize("state", [{"status": "stopped", "stopped_by": "signal"}, {"status": "running"}])
def test_a_run_that_the_queue_has_still_to_train_is_not_taken_out_of_it_to_be_evaluated(evaluated, refused, state):
    replace(read_state(evaluated), **state).write(evaluated)
    before = files(evaluated)
    for what in (lambda over: over.evaluate(evaluated, SPARSITY), lambda over: over.again(evaluated.evaluation)):
        refused(what, lambda: pytest.fail("it was submitted"))
        assert files(evaluated) == before
