"""A linear classifier whose answers are known, and a small HaH network trained on digits."""

import math
from dataclasses import dataclass

import pytest
import torch

from engine.data import archives
from engine.data.batches import Epoch, Split, to_images
from engine.experiment import presets
from engine.nn import VGG
from engine.training.step import Step, learning_rate

CPU = torch.device("cpu")


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
    """(a HaH network in evaluation mode, 64 test images in [0, 1], labels), after 184 steps."""
    sets = ["model.width=0.0625", "model.hah_blocks=2", "hah.alpha=[0.045, 0.025]", "model.threshold.keep=0.5"]
    sets += ["train.noise_std=0.1", "train.epochs=8", "train.milestones=[7]"]
    experiment, images = presets.load("quickstart", sets), archives.load("digits")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = VGG.from_experiment(experiment).to(memory_format=torch.channels_last).train()
    step, train = Step(network, experiment, CPU), Split.of(images.x_train, images.y_train, CPU)
    number = 0
    for epoch in range(1, experiment.train.epochs + 1):
        batches = Epoch(train, experiment.train.batch_size, "none", 0, epoch)
        for index in range(len(batches)):
            number += 1
            step(*batches.batch(index), number, learning_rate(experiment, epoch))
            if step.full:
                step.drain()
    test = Split.of(images.x_test, images.y_test, CPU).first(64)
    return network.eval(), to_images(test.pixels), test.labels
