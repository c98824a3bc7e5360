"""Sparsity, SNR, activity and cost: right to 1e-10, and without a trace in the network."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from engine.data.batches import Split
from engine.data.draws import Draw, generator
from engine.experiment import presets
from engine.nn import VGG, hah_cost
from engine.probes import hoyer, observation, observe, snr_ratio
from engine.probes.measures import decibel


def test_hoyer_by_a_slow_loop():
    o = np.random.default_rng(0).normal(size=(3, 7, 4, 5))
    o[0, :, 1, 1] = 0
    ours = hoyer(torch.tensor(o)).numpy()
    for b in range(3):
        for i in range(4):
            for j in range(5):
                column = o[b, :, i, j]
                if not column.any():
                    assert math.isnan(ours[b, i, j])
                    continue
                ratio = sum(abs(column)) / math.sqrt(sum(column**2))
                assert ours[b, i, j] == pytest.approx((ratio - 1) / (math.sqrt(7) - 1), rel=1e-10)


def test_hoyer_at_its_ends():
    assert hoyer(torch.tensor([[0.0, 3.0, 0.0]], dtype=torch.double)).item() == 0
    assert hoyer(torch.tensor([[2.0, -2.0, 2.0]], dtype=torch.double)).item() == pytest.approx(1, rel=1e-12)
    with pytest.raises(ValueError, match="at least two"):
        hoyer(torch.ones(1, 1, 2))


def test_snr_is_eq_6():
    """The ratio of squared norms of each image, its mean over images, then decibels."""
    rng = np.random.default_rng(1)
    clean, noisy = rng.normal(size=(2, 5, 3, 4, 4))
    ratios = [(clean[b] ** 2).sum() / ((noisy[b] - clean[b]) ** 2).sum() for b in range(5)]
    ours = snr_ratio(torch.tensor(clean), torch.tensor(noisy))
    np.testing.assert_allclose(ours.numpy(), ratios, rtol=1e-10)
    assert decibel(float(ours.mean())) == pytest.approx(10 * math.log10(sum(ratios) / 5), rel=1e-10)


def test_snr_of_a_linear_map_in_closed_form():
    """Through an orthogonal map the ratio is that of the input: |x|^2 / |w|^2."""
    q, _ = torch.linalg.qr(torch.randn(30, 30, dtype=torch.double, generator=torch.Generator().manual_seed(0)))
    x, w = torch.randn(2, 8, 30, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    expected = (x**2).sum(1) / (w**2).sum(1)
    torch.testing.assert_close(snr_ratio(x @ q, (x + w) @ q), expected, rtol=1e-10, atol=0)


@pytest.fixture(scope="module")
def small():
    experiment = presets.load("paper-hah", ["model.width=0.125"])
    torch.manual_seed(0)
    network = VGG.from_experiment(experiment)
    pixels = np.random.default_rng(2).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    return network, Split.of(pixels, np.arange(300) % 10, torch.device("cpu"))


def look(network, split, probed=20, **changes):
    settings = {"probed": probed, "noise_std": 0.1, "seed": 3, "top_k": 0.1, "lambda_": 0.1, **changes}
    return observe(network, split, **settings)


def test_observation_by_a_slow_pass_over_every_block(small):
    """Each metric recomputed image by image from activations captured one by one."""
    network, split = small
    found = look(network, split.first(24), probed=10)
    network.eval()
    noise = torch.randn(24, 3, 32, 32, generator=generator("cpu", 3, Draw.PROBE_NOISE))
    images = split.pixels[:24].float() / 255
    noisy = (images + 0.1 * noise).clamp(0, 1)
    with torch.no_grad():
        logits = [network(x) for x in (images, noisy)]
        labels = split.labels[:24]
        assert found["test/accuracy"] == pytest.approx((logits[0].argmax(1) == labels).double().mean().item())
        assert found["test/noisy_accuracy"] == pytest.approx((logits[1].argmax(1) == labels).double().mean().item())
        assert found["test/loss"] == pytest.approx(nn.functional.cross_entropy(logits[0], labels).item(), rel=1e-5)
        x = [(images[:10] - network.mean) / network.std, (noisy[:10] - network.mean) / network.std]
        for number, (block, pooled) in enumerate(zip(network.blocks, network.pooled, strict=True), 1):
            ratio = np.mean([float((a**2).sum() / ((b - a) ** 2).sum()) for a, b in zip(*x, strict=True)])
            cost = float(hah_cost(block.activations(x[0]), 0.1, 0.1))
            o = [block(part) for part in x]
            sparsity = float(hoyer(o[0].double()).nanmean())
            expected = {
                "snr_db": 10 * math.log10(ratio),
                "hah_cost": cost,
                "sparsity": sparsity,
                "active_fraction": float((o[0] != 0).float().mean()),
            }
            for name, value in expected.items():
                assert found[f"block/{number}/{name}"] == pytest.approx(value, rel=1e-4), (number, name)
            x = [nn.functional.max_pool2d(part, 2) if pooled else part for part in o]


def test_the_subset_is_the_first_images_whatever_the_batches(small, monkeypatch):
    network, split = small
    whole = look(network, split, probed=200)
    monkeypatch.setattr(observation, "BATCH", 300)
    monkeypatch.setattr(torch, "randn", lambda shape, generator, device: torch.zeros(shape))
    # Without noise only what does not depend on it is left, and that does not depend on the batches.
    again = look(network, split, probed=200)
    for name in whole:
        if name.endswith(("sparsity", "active_fraction", "hah_cost")):
            assert again[name] == pytest.approx(whole[name], rel=1e-5), name
    assert not any(name.endswith("snr_db") for name in again)  # nothing changed by noise: no ratio


def test_observing_leaves_no_trace(small):
    network, split = small
    network.train()
    network.blocks[3].eval()  # somebody froze it
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    first = look(network, split)
    assert look(network, split) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not network.blocks[3].training
    assert all(not block._forward_hooks and not block._forward_pre_hooks for block in network.blocks)
    assert all(parameter.grad is None for parameter in network.parameters())
    network.blocks[3].train()


def test_a_silent_block_has_no_sparsity_and_no_snr_but_says_it_is_silent(small):
    network, split = small
    saved = network.blocks[1].conv.weight.detach().clone()
    with torch.no_grad():
        network.blocks[1].conv.weight.fill_(-1)
    found = look(network, split.first(8))
    assert found["block/2/active_fraction"] == 0
    assert "block/2/sparsity" not in found
    assert "block/3/snr_db" not in found
    with torch.no_grad():
        network.blocks[1].conv.weight.copy_(saved)
