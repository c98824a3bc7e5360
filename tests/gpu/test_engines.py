"""Engines on a GPU: resumed to the bit, evaluated where they were trained, short of memory, side by side."""

import json

import torch

from engine.disk import read_json
from engine.job import checkpoints
from engine.runs import launch, store
from engine.runs.state import read_state

SMALL = ("compute.device=cuda", "train.epochs=4", "train.milestones=[3]", "observe.images=40", "observe.log_every=2")


def weights(run):
    return checkpoints.read(run.checkpoints / "last.pt")["network"]


def warnings(run):
    return [json.loads(line)["text"] for line in run.events.read_text().splitlines() if '"kind": "warning"' in line]


def test_a_training_in_bfloat16_says_what_ran(engines):
    run = engines.run(*SMALL)
    assert read_state(run).status == "finished"
    assert read_json(run.manifest)["arithmetic"] == {"precision": "bf16", "kernels": "triton, triton weight norm"}
    assert warnings(run) == []


def test_a_stopped_training_ends_with_the_same_bits(engines):
    whole = engines.run(*SMALL)
    stopped, process = engines.begin(*SMALL)
    engines.stop_after(stopped, process, 30)
    assert read_state(stopped).status == "stopped"
    engines.resume(stopped)
    assert read_state(stopped).status == "finished"
    ours, expected = weights(stopped), weights(whole)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_an_evaluation_after_training_stays_on_its_gpu(engines):
    run = engines.run(*SMALL, "evaluate.suites=[noise]", "evaluate.images=100", "evaluate.noise.examples=0")
    job = read_state(run.evaluation)
    assert job.status == "finished"
    assert job.device == read_state(run).device != "cpu"
    assert warnings(run.evaluation) == []
    assert len(list(run.results.glob("noise-*.json"))) == 1


def test_short_memory_is_said_with_what_can_be_done(engines, hog):
    hog(1.0)
    run = engines.run(*SMALL, "model.width=2", "train.batch_size=1024")
    state = read_state(run)
    assert state.status == "failed"
    assert state.error.startswith("out of memory")
    assert "lower train.batch_size (1024)" in state.error


def test_two_engines_share_one_gpu(engines):
    begun = [engines.begin(*SMALL, name=name) for name in ("first", "second")]
    for _, process in begun:
        process.wait(300)
    assert [read_state(run).status for run, _ in begun] == ["finished"] * 2


def test_auto_with_every_gpu_held_takes_the_cpu_and_says_so(engines):
    holding = [engines.begin("train.epochs=10000", "train.milestones=[]") for _ in range(torch.cuda.device_count())]
    for run, process in holding:
        launch.await_start(run, process)
        assert read_state(run).device != "cpu"
    run = engines.run(*SMALL[1:])
    assert (store.look(run).status, read_state(run).device) == ("finished", "cpu")
    assert warnings(run)[0].startswith("every GPU")
