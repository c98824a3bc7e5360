"""How a step uses captured passes, with a stand-in for CUDA graphs that runs them again: what a replay reads and writes
are the same tensors every time, and capturing runs nothing. tests/gpu has the real ones."""

import contextlib

import pytest
import torch

from engine.experiment import presets
from engine.nn import VGG
from engine.training import step as training_step
from engine.training.captured import CapturedPasses
from engine.training.step import Step


class StandIn(CapturedPasses):
    """Captured passes whose graph is Python's: replaying computes anew, into the tensors of the capture."""

    def __init__(self, passes, batch, weights):
        self._passes, self._weights, module = passes, weights, passes.__self__.network
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        super().__init__(passes, batch, weights)
        module.load_state_dict(before)
        for weight, gradient in self._gradients:
            gradient.fill_(float("nan"))
            weight.grad = None

    def replay(self):
        measured = self._passes(*self._batch)
        self._measured.copy_(measured)
        for weight, gradient in self._gradients:
            gradient.copy_(weight.grad)


@pytest.fixture
def captured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: contextlib.nullcontext())
    made = []

    def make(*arguments):
        made.append(StandIn(*arguments))
        made[-1]._graph = made[-1]
        return made[-1]

    monkeypatch.setattr(training_step, "CapturedPasses", make)
    return made


def trained(capture, *sets, steps=9, between=lambda number, step: None):
    experiment = presets.load("paper-hah", ["model.width=0.0625", "train.batch_size=6", "observe.log_every=100", *sets])
    torch.manual_seed(0)
    network = VGG.from_experiment(experiment).train()
    step = Step(network, experiment, torch.device("cpu"), warn=pytest.fail)
    step._capture = capture
    draw = torch.Generator().manual_seed(1)
    for number in range(1, steps + 1):
        count = 4 if number % 5 == 0 else 6
        pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draw)
        step(pixels, torch.randint(0, 10, (count,), generator=draw), number, 1e-3)
        between(number, step)
    return {**network.state_dict(), "measured": torch.tensor(list(step.drain().columns.values()))}


def equal(ours, theirs):
    return all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


@pytest.mark.parametrize(
    "sets", [[], ["train.noise_std=0.1", "hah.images=clean"], ["model.hah_blocks=0", "hah.alpha=0"]]
)
def test_the_same_weights_and_numbers_with_smaller_batches_in_between(captured, sets):
    assert equal(trained(True, *sets), trained(False, *sets))
    assert len(captured) == 1


def test_a_change_of_settings_captures_anew(captured):
    def turn(number, step):
        if number == 5:
            step.configure(presets.change("hah.lambda", 1.0, step._experiment))

    ours = trained(True, between=turn, steps=12)
    assert len(captured) == 2
    assert equal(ours, trained(False, between=turn, steps=12))
    assert not equal(ours, trained(False, steps=12))


def test_what_cannot_be_captured_runs_as_it_is_and_is_said(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(training_step, "CapturedPasses", fail)
    said = []
    monkeypatch.setattr(pytest, "fail", said.append)
    assert equal(trained(True), trained(False))
    assert said == [
        "the step cannot be captured as a CUDA graph, it runs as it is: "
        "operation not permitted when stream is capturing"
    ]  # fmt: skip
