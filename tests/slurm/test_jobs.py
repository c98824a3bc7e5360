"""Runs as jobs of a real Slurm: what a task does with its run, whatever happens to the job."""

from tests.slurm.conftest import until


def test_a_run_is_done_as_a_job(slurm, profile, handed):
    profile(gres="gpu:1")
    run, job = handed()
    until(run, "finished")
