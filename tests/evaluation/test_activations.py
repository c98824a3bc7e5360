"""Noise, SNR and sparsity of any classifier, against closed forms and slow loops."""

import math

import pytest
import torch
from torch import nn

from engine.data.draws import Draw, ImageDraws
from engine.evaluation import activations
from engine.experiment import presets
from engine.nn import VGG


class Linear(nn.Module):
    """x -> A x -> B A x, as two modules whose inputs are looked at."""

    def __init__(self, size, classes):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(size, 12, bias=False), nn.Linear(12, classes, bias=False)
        with torch.no_grad():
            for layer in (self.first, self.second):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw))
        self.double()

    def forward(self, images):
        return self.second(self.first(images.flatten(1)))


@pytest.mark.parametrize("distribution", ["gaussian", "uniform"])
def test_snr_of_a_linear_network_is_its_closed_form(distribution):
    model = Linear(3 * 8 * 8, 5)
    images = torch.rand(7, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(7, dtype=torch.long)
    blocks = [model.first, model.second]
    found = activations.under_noise(
        model, blocks, images, labels, [0.1, 0.3], 2, distribution=distribution, seed=5, places=range(2, 9)
    )
    A = model.first.weight.detach()
    for level, draws in zip((0.1, 0.3), found, strict=True):
        for number, seen in enumerate(draws):
            noise = ImageDraws(images, range(2, 9), 5, Draw.EVALUATION_NOISE, round(level * 1e9), number)
            w = activations.noisy(images, level, distribution, noise).flatten(1) - images.flatten(1)
            expected = [0.0, 0.0]
            for x, error in zip(images.flatten(1), w, strict=True):  # |x|^2 / |w|^2 and |A x|^2 / |A w|^2
                expected[0] += sum(v * v for v in x.tolist()) / sum(v * v for v in error.tolist())
                expected[1] += float((A @ x).square().sum() / (A @ error).square().sum())
            for ratio, wanted, counted in zip(seen.ratios, expected, seen.counted, strict=True):
                assert ratio == pytest.approx(wanted, rel=1e-10)
                assert counted == 7


def test_noise_has_its_standard_deviation_and_stays_in_range():
    grey = torch.full((50, 3, 32, 32), 0.5)
    for distribution in ("gaussian", "uniform"):
        noisy = activations.noisy(grey, 0.1, distribution, activations.noise_of(grey, 0, 0.1, 0))
        assert float((noisy - grey).std()) == pytest.approx(0.1, rel=0.01)
        assert float(activations.noisy(grey, 0.5, distribution, activations.noise_of(grey, 0, 0.5, 0)).max()) <= 1


def test_the_same_seed_gives_the_same_noise_whatever_was_measured_before():
    model = Linear(3 * 4 * 4, 3)
    images, labels = torch.rand(4, 3, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    both = activations.under_noise(model, [model.first], images, labels, [0.1, 0.2], 2, seed=1, places=[3, 4, 5, 6])
    second = activations.under_noise(model, [model.first], images, labels, [0.2], 2, seed=1, places=[3, 4, 5, 6])
    assert both[1] == second[0]
    assert both[1] != activations.under_noise(model, [model.first], images, labels, [0.2], 2, seed=1)[0]


def test_sparsity_of_a_network_against_a_slow_loop():
    network = VGG.from_experiment(presets.load("quickstart"))
    blocks = list(network.blocks)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    outputs = []
    handles = [block.register_forward_hook(lambda _m, _i, o: outputs.append(o.detach())) for block in blocks]
    with torch.no_grad():
        network.eval()(images)
    network.train()
    for handle in handles:
        handle.remove()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = activations.sparsity(network, blocks, images, bins=10)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    for seen, output in list(zip(found, outputs, strict=True))[2:4]:
        total, silent, counts = 0.0, 0, [0] * 10
        N = output.shape[1]
        for vector in output.permute(0, 2, 3, 1).reshape(-1, N).tolist():
            l2 = math.sqrt(sum(v * v for v in vector))
            if l2 == 0:
                silent += 1
                continue
            value = (sum(map(abs, vector)) / l2 - 1) / (math.sqrt(N) - 1)
            total += value
            counts[min(9, int(value * 10))] += 1
        assert seen.hoyer == pytest.approx(total, rel=1e-9)
        assert seen.silent == silent
        assert seen.locations == sum(counts)
        assert seen.histogram == counts
        assert seen.active == int((output != 0).sum())
        assert seen.activations == output.numel()
