"""A real Slurm for the tests here, one for the session; skipped where its programs are not installed."""

import shutil
import tempfile

import pytest

from tests.slurm.cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster():
    """A Slurm of two nodes with four CPUs and two fake GPUs each."""
    absent = missing()
    if absent:
        pytest.skip(f"no Slurm here: {', '.join(absent)} of slurmctld, slurmd, slurm-client, munge are not installed")
    folder = tempfile.mkdtemp(prefix="slurm-", dir="/tmp")  # sockets take no long path
    found = Cluster(folder)
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm(cluster, monkeypatch):
    """That Slurm, as the shell of a test has it; its jobs end with the test."""
    for name in [name for name in cluster.environment if name.startswith("SLURM_")]:
        monkeypatch.setenv(name, cluster.environment[name])
    yield cluster
    cluster.cancel_all()
