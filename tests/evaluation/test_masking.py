"""Masked gradients made on purpose are found; an ordinary network is not accused."""

import pytest
import torch

from engine.evaluation.masking import MULTIPLES, PROBES, judge, probe
from engine.experiment.mistakes import RequestError

SMALL = {"norm": "linf", "steps": 20, "queries": 100}


def examined(model, x, y, eps, standard=None, **settings):
    """The verdict, from two batches."""
    half, settings = len(x) // 2, {**SMALL, **settings}
    found = {}
    for name in PROBES:
        parts = [
            probe(name, model, part, labels, eps=eps, places=places, standard=standard, **settings)
            for places, part, labels in ((range(half), x[:half], y[:half]), (range(half, len(x)), x[half:], y[half:]))
        ]
        assert all(len(part) == half for part in parts)
        found[name] = torch.cat(parts)
    return judge(found, settings["norm"], eps)


def verdicts(judged):
    return {check["name"]: check["verdict"] for check in judged["checks"]}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_model_is_clear(linear, norm):
    eps = float(linear.exact(norm).median())
    judged = examined(linear, linear.x, linear.y, eps, standard=linear, norm=norm)
    assert judged["verdict"] == "clear", judged
    found = verdicts(judged)
    assert set(found.values()) == {"clear"}
    values = {check["name"]: check["values"] for check in judged["checks"]}
    assert values["noise"]["accuracy"] >= values["square"]["accuracy"] >= values["one-step"]["accuracy"] > 0
    assert values["noise"]["accuracy"] > values["one-step"]["accuracy"]
    assert values["noise"]["accuracy"] > values["transfer"]["accuracy"] >= values["transfer"]["iterative"] > 0
    assert values["unbounded"]["accuracy"] == 0
    assert list(values["loss"].values()) == sorted(values["loss"].values())
    assert len(values["loss"]) == len(MULTIPLES)


def test_an_ordinary_hah_network_is_clear(trained):
    network, x, y = trained
    judged = examined(network, x[:40], y[:40], 0.03)
    assert judged["verdict"] == "incomplete", judged  # no standard network to transfer from
    assert {check["verdict"] for check in judged["checks"]} == {"clear", "not run"}, judged
    assert verdicts(judged)["transfer"] == "not run"
    for check in judged["checks"]:
        assert check["words"].endswith(".")
        assert all(isinstance(value, int | float) for value in check["values"].values())


def test_saturated_scores_are_found(linear):
    judged = examined(lambda images: 1e5 * linear(images), linear.x, linear.y, float(linear.exact("linf").median()))
    found = verdicts(judged)
    assert judged["verdict"] == "suspect"
    assert found["zero-gradient"] == found["unbounded"] == "suspect"


def test_rounded_images_are_found(linear):
    def rounded(images):
        return linear((images * 64).round() / 64) + 0 * images.sum((1, 2, 3))[:, None]

    eps = 4 * float(linear.exact("linf").median())
    judged = examined(rounded, linear.x, linear.y, eps, standard=linear, queries=300)
    found = verdicts(judged)
    assert found["zero-gradient"] == found["unbounded"] == found["loss"] == "suspect"
    assert found["transfer"] == found["square"] == "suspect"
    words = {check["name"]: check["words"] for check in judged["checks"]}
    assert words["transfer"].endswith("so APGD misses what a weaker attack finds.")


def test_gradients_that_point_elsewhere_are_found(linear):
    class Misleading(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return -gradient

    judged = examined(
        lambda images: linear(Misleading.apply(images)), linear.x, linear.y, 4 * float(linear.exact("linf").median())
    )  # fmt: skip
    found = verdicts(judged)
    assert found["zero-gradient"] == "clear"
    assert found["unbounded"] == found["loss"] == "suspect"


def test_the_same_seed_gives_the_same_bits_and_nothing_is_disturbed(trained):
    network, x, y = trained
    x, y = x[:6], y[:6]
    before, weights = torch.get_rng_state(), {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    for name in PROBES:
        once, again = (probe(name, network, x, y, eps=0.02, seed=1, places=range(6, 12), **SMALL) for _ in range(2))
        assert torch.equal(once, again), name
    assert network.training
    network.eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_a_probe_that_is_none(linear):
    with pytest.raises(RequestError, match="none of outputs"):
        probe("thorough", linear, linear.x, linear.y, norm="linf", eps=0.1)
