"""The Slurm of these tests itself, and what a run remembers of its job."""

import json

import pytest

from engine.runs.layout import RunDirectory
from engine.runs.slurm import Job, job_of


def test_its_nodes_wait_for_work_and_have_the_fake_gpus(slurm):
    assert slurm.idle() == ["ci0", "ci1"]
    assert slurm.ask("sinfo", "-h", "-N", "-p", "low", "-o", "%G").split() == ["gpu:2", "gpu:2"]


def test_a_run_remembers_its_job(tmp_path):
    run = RunDirectory(tmp_path)
    assert job_of(run) is None
    Job("17", 3, "ci", 1000.5, "/runs/.slurm/a.sh").write(run)
    assert job_of(run) == Job("17", 3, "ci", 1000.5, "/runs/.slurm/a.sh")
    assert job_of(run).id == "17_3"
    Job("18", None, "ci", 1000.5, "a.sh").write(run)
    assert job_of(run).id == "18"


@pytest.mark.parametrize(
    "changed",
    [{"job": 17}, {"job": "17; rm"}, {"job": "0"}, {"task": "3"}, {"task": True}, {"task": -1}, {"submitted": None}],
)
def test_a_damaged_note_is_no_job(tmp_path, changed):
    run = RunDirectory(tmp_path)
    stored = {"job": "17", "task": None, "cluster": "ci", "submitted": 1.0, "script": "a"}
    run.slurm.write_text(json.dumps({**stored, **changed}))
    assert job_of(run) is None
    run.slurm.write_text("{")
    assert job_of(run) is None
