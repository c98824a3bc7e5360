"""A training step replayed as a CUDA graph: the bits of the step that runs one operation after another."""

import warnings

import pytest
import torch

from engine.experiment import presets
from engine.nn import VGG
from engine.training.step import Step

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def deterministic():
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = before


def trained(*sets, steps=12, between=lambda number, step: None):
    """Weights, statistics and measurements after some steps, every fifth on a smaller batch."""
    experiment = presets.load("paper-hah", ["model.width=0.25", "train.batch_size=32", "observe.log_every=100", *sets])
    torch.manual_seed(0)
    network = VGG.from_experiment(experiment).to(CUDA, memory_format=torch.channels_last).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step = Step(network, experiment, CUDA, warn=pytest.fail)
    draw = torch.Generator().manual_seed(1)
    for number in range(1, steps + 1):
        count = 20 if number % 5 == 0 else 32
        pixels = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=draw).permute(0, 3, 1, 2)
        step(pixels.to(CUDA), torch.randint(0, 10, (count,), generator=draw).to(CUDA), number, 1e-3)
        between(number, step)
    return {**network.state_dict(), "measured": torch.tensor(list(step.drain().columns.values()))}


@pytest.mark.parametrize(
    "sets",
    [
        [], ["train.precision=fp32"], ["train.precision=tf32"], ["hah.gradient=full"],
        ["model.hah_blocks=0", "hah.alpha=0"],
        ["train.noise_std=0.1"], ["train.noise_std=0.1", "hah.images=clean"],
    ],
)  # fmt: skip
def test_a_captured_step_has_the_bits_of_an_eager_one(sets):
    ours, expected = trained(*sets), trained(*sets, "compute.cuda_graph=false")
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name


def test_a_setting_changed_between_steps_is_taken_up():
    def turn(number, step):
        if number == 6:
            step.configure(presets.change("hah.lambda", 1.0, step._experiment))

    ours = trained(between=turn, steps=14)
    expected = trained("compute.cuda_graph=false", between=turn, steps=14)
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name
    assert not torch.equal(ours["measured"], trained(steps=14)["measured"])


def test_the_passes_are_captured_at_all():
    seen = []
    trained(between=lambda number, step: seen.append(step._graph is not None))
    assert seen == [False, False, False, *[True] * 9]
