"""No result depends on how many images a device takes at once."""

import pytest
import torch

from engine.data import archives
from engine.data.batches import Split
from engine.evaluation import attacks, suites
from engine.evaluation.pieces import Pieces
from engine.evaluation.suites import Subject
from engine.experiment.schema import AttackSuite, MaskingSuite, MinimumNormSuite, NoiseSuite

COUNT = 22  # in batches of 13 and 9, 20 and 2, and one


@pytest.fixture(scope="module")
def measured(trained):
    """measured(suite, settings) -> its results with 13, 20 and 1,000 images at once."""
    network, archive = trained[0].double(), archives.load("digits")
    every = Split.of(archive.x_test, archive.y_test, torch.device("cpu"))

    def measure(suite, settings, sizes=(13, 20, 1000), count=COUNT):
        found, test = [], every.first(count)
        for size in sizes:
            subject = Subject(Doubled(network), list(network.blocks), test, archive, "digits", seed=3, batch=size)
            found.append(suites.MEASURES[suite].measure(subject, settings, Pieces(), None))
        return found

    yield measure
    network.float()


class Doubled(torch.nn.Module):
    """The network in float64: rounding differs from batch to batch, and thresholds would amplify it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images.double())


def test_noise(measured):
    first, *others = measured("noise", NoiseSuite(levels=[0.1, 0.3], draws=2, examples=0), count=66)
    for other in others:
        for one, two in zip(first["levels"], other["levels"], strict=True):
            assert one["accuracy"] == two["accuracy"]
            assert two["snr_db"] == pytest.approx(one["snr_db"], abs=1e-6)
    assert len(set(first["levels"][1]["accuracy"])) == 2  # and the draws differ


def test_attacks(measured):
    settings = AttackSuite(methods=["pgd", "apgd-ce", "apgd-t"], linf=[0.02], l2=[0.4], steps=3)
    first, *others = measured("attacks", settings)
    assert all(other == first for other in others)
    assert all(0 < one["robust_accuracy"] < 1 for one in first["attacks"])


def test_minimum_norms(measured):
    first, *others = measured("minimum_norm", MinimumNormSuite(norms=["l2", "linf"], steps=4, trials=2))
    for other in others:
        for norm in ("l2", "linf"):
            values = [value or -1 for value in first["norms"][norm]["values"]]  # None: nothing found
            assert [value or -1 for value in other["norms"][norm]["values"]] == pytest.approx(values, rel=1e-6)


def test_masking_and_square(measured, monkeypatch):
    """Square draws for so many places together, here ten of them, so batches are multiples of that."""
    monkeypatch.setattr(attacks, "SQUARE_BATCH", 10)
    first, second = measured("masking", MaskingSuite(steps=3, queries=30, eps=0.05), sizes=(10, 1000))
    for one, two in zip(first["checks"], second["checks"], strict=True):
        assert one["name"] == two["name"]
        assert one["verdict"] == two["verdict"]
        assert {k: v for k, v in one["values"].items() if k != "difference"} == pytest.approx(
            {k: v for k, v in two["values"].items() if k != "difference"}, rel=1e-9
        )
