"""A linear classifier whose answers are known, and a small HaH network trained on digits."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.data import archives
from engine.data.batches import Split, to_images
from engine.experiment import presets
from engine.nn import VGG

NETWORK = Path(__file__).with_name("digits_network")


@dataclass(frozen=True)
class Linear:
    """Scores W x + b over images x [n, 3, 8, 8], far from black and white, each classified as its label y [n]."""

    W: torch.Tensor
    b: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor

    def __call__(self, images):
        return images.flatten(1) @ self.W.T + self.b

    def exact(self, norm):
        """Each image's distance to the nearest other class, [n] float64: over all classes, one image at a time."""
        x, W = self.x.flatten(1).double(), self.W.double()
        scores = x @ W.T + self.b.double()
        return torch.tensor(
            [
                min(_distance(norm, W[k] - W[y], scores[i, y] - scores[i, k], x[i]) for k in range(len(W)) if k != y)
                for i, y in enumerate(self.y.tolist())
            ],
            dtype=torch.float64,
        )


def _distance(norm, w, margin, x):
    if norm in ("linf", "l2"):  # no border is near
        return float(margin / (w.abs().sum() if norm == "linf" else w.norm()))
    room = torch.where(w > 0, 1 - x, x)
    order = (w.abs() if norm == "l1" else w.abs() * room).argsort(descending=True)
    spent = 0.0
    for index in order.tolist():  # greedy: the element that gives most, as far as it goes
        gain = float(w[index].abs() * room[index])
        if norm == "l0":
            spent += 1
        else:
            spent += min(float(room[index]), float(margin / w[index].abs()))
        margin = margin - gain
        if margin < 0:
            return spent
    return math.inf


@pytest.fixture(scope="session")
def linear():
    draw = torch.Generator().manual_seed(0)
    d, n = 3 * 8 * 8, 40
    W = torch.randn(10, d, generator=draw) / math.sqrt(d)
    meant = torch.randint(0, 10, (n,), generator=draw)
    noise = 0.1 * (2 * torch.rand(n, d, generator=draw) - 1)
    x = (0.5 + noise + 0.02 * W[meant] * math.sqrt(d)).clamp(0.2, 0.8).view(n, 3, 8, 8)
    b = -W @ torch.full((d,), 0.5)
    return Linear(W, b, x, (x.flatten(1) @ W.T + b).argmax(1))


@pytest.fixture(scope="session")
def trained():
    """(a HaH network in evaluation mode, 64 test images in [0, 1], labels).

    Its weights are kept, so that no verdict hangs on how a machine rounds while it trains. They were made by
    hah run quickstart --set model.width=0.0625 --set model.hah_blocks=2 --set 'hah.alpha=[0.045, 0.025]'
        --set model.threshold.keep=0.5 --set train.noise_std=0.1 --set train.epochs=8 --set 'train.milestones=[7]'
    hah export @last --to tests/evaluation/digits_network
    """
    network = VGG.from_experiment(presets.load(str(NETWORK / "config.yaml"), [])).to(memory_format=torch.channels_last)
    network.load_state_dict(load_file(NETWORK / "model.safetensors"))
    images = archives.load("digits")
    test = Split.of(images.x_test, images.y_test, torch.device("cpu")).first(64)
    return network.eval(), to_images(test.pixels), test.labels


@pytest.fixture(scope="session")
def saturated():
    """Another linear model, of whose images a third of the elements are 0 or 1 and so can move one way only."""
    draw = torch.Generator().manual_seed(0)
    d, n = 3 * 16 * 16, 24
    W = torch.randn(10, d, generator=draw) / math.sqrt(d)
    meant = torch.randint(0, 10, (n,), generator=draw)
    x = 0.2 + 0.6 * torch.rand(n, d, generator=draw) + 0.15 * W[meant].sign()
    full = torch.rand(n, d, generator=draw) < 1 / 3
    x = torch.where(full, (x > 0.5).float(), x.clamp(0.05, 0.95)).view(n, 3, 16, 16)
    b = -W @ torch.full((d,), 0.5)
    return Linear(W, b, x, (x.flatten(1) @ W.T + b).argmax(1))
