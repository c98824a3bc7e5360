"""A real Slurm for the tests here, one for the session; skipped where its programs are not installed."""

import json
import shutil
import tempfile

import pytest

from engine.experiment import presets
from engine.runs import store
from engine.runs.making import Origin
from engine.sweep import profiles, sites
from engine.sweep.handover import Handover
from tests.end_to_end.conftest import TINY, eventually
from tests.slurm.cluster import Cluster, missing

PATIENCE = 400  # seconds for something that takes a few on an idle machine


@pytest.fixture(scope="session")
def cluster():
    """A Slurm of two nodes with four CPUs and two fake GPUs each; a requeued job waits for 10 s, not for 120."""
    absent = missing()
    if absent:
        pytest.skip(f"no Slurm here: {', '.join(absent)} of slurmctld, slurmd, slurm-client, munge are not installed")
    folder = tempfile.mkdtemp(prefix="slurm-", dir="/tmp")  # sockets take no long path
    found = Cluster(folder, wait=10)
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


@pytest.fixture
def profile(tmp_path):
    """profile(gres="gpu:1") writes the profile of the person of this test."""

    def write(name="slurm.yaml", shell=(), **said):
        path = tmp_path / "xdg_config_home" / "hah-tui" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # What engines write beside their runs is this test's too.
        own = [f"export XDG_{kind}_HOME='{tmp_path / kind.lower()}'" for kind in ("CACHE", "STATE", "CONFIG", "DATA")]
        path.write_text(json.dumps({"cpus": 1, "shell": [*own, "export OMP_NUM_THREADS=1", *shell], **said}))
        return path

    return write


@pytest.fixture
def handed(runs):
    """Hand a tiny run to Slurm: handed("train.epochs=5") -> (RunDirectory, job id); as `hah run` does it, without a
    look at packages and data before."""

    def hand(*values):
        with Handover(runs, "quickstart", profiles.load(sites.find(None))) as handover:
            handover.make(presets.load("quickstart", [*TINY, *values]), Origin("quickstart"))
            (one,) = handover.submit()
        return one.directory, one.job.id

    return hand


def until(run, *statuses):
    """Wait until a run has one of these statuses; it fails with what the job and the engine said."""
    try:
        eventually(lambda: store.look(run).status in statuses, PATIENCE)
    except AssertionError:
        logs = [run.path / "slurm.log", run.log, *run.path.parent.glob(".slurm/*.log")]
        said = "\n".join(f"{path}:\n{path.read_text()}" for path in logs if path.exists())
        raise AssertionError(f"{run.id} is {store.look(run)}\n{said}") from None
