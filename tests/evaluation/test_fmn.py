"""FMN: exact on a linear model, in agreement with attacks of a given size on a trained one, honest about failures."""

import math

import pytest
import torch

from engine.adversarial.balls import size
from engine.evaluation.attacks import robust
from engine.evaluation.search import NORMS, curve, minimum_norm, summary
from engine.experiment.mistakes import RequestError

EIGHTHS = [n / 8 for n in range(1, 8)]


def checked(model, x, y, norm, found):
    """Every finite norm belongs to an image of that norm in [0, 1] that is misclassified."""
    some = found.norms.isfinite()
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 1
    torch.testing.assert_close(size(found.adversarial.double() - x.double(), norm)[some], found.norms[some])
    with torch.no_grad():
        assert (model(found.adversarial[some]).argmax(1) != y[some]).all()
    return some


@pytest.mark.parametrize(("norm", "median", "mean"), [("linf", 0.005, 0.02), ("l2", 0.005, 0.02), ("l1", 0.15, 0.15)])
def test_on_a_linear_model_norms_are_the_known_ones(linear, norm, median, mean):
    found = minimum_norm(linear, linear.x, linear.y, norm)
    assert checked(linear, linear.x, linear.y, norm, found).all()
    ratio = found.norms / linear.exact(norm)
    assert ratio.min() > 1 - 1e-4
    assert float(ratio.median()) == pytest.approx(1, abs=median)
    assert ratio.mean() < 1 + mean


def test_on_a_linear_model_l0_is_the_known_number_of_elements(linear):
    found = minimum_norm(linear, linear.x, linear.y, "l0")
    assert checked(linear, linear.x, linear.y, "l0", found).all()
    exact = linear.exact("l0")
    assert set(exact.tolist()) == {1, 2}
    assert (found.norms >= exact).all()
    assert float((found.norms / exact).median()) == 1


def test_l0_spends_nothing_on_elements_that_cannot_move(saturated):
    """Median 1.05 and worst 1.11 times the exact number without this; 30 to 41 elements are needed."""
    found = minimum_norm(saturated, saturated.x, saturated.y, "l0")
    assert checked(saturated, saturated.x, saturated.y, "l0", found).all()
    ratio = found.norms / saturated.exact("l0")
    assert ratio.min() >= 1
    assert float(ratio.median()) < 1.03
    assert ratio.max() < 1.11


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_trained_network_agrees_with_attacks_of_a_given_size(trained, norm):
    """At sizes that nobody picked, eighths of the norms: not weaker than APGD, but for two points (each finds images
    that the other does not, so at one size either may be a few ahead)."""
    network, x, y = trained
    x, y = x[:40], y[:40]
    found = minimum_norm(network, x, y, norm)
    assert checked(network, x, y, norm, found).all()
    fell = found.norms[found.norms > 0]
    implied = curve(found.norms, [float(fell.quantile(part)) for part in EIGHTHS])
    attacked = robust(network, x, y, ["apgd-ce", "apgd-t"], norm, [eps for eps, _ in implied])
    behind = torch.tensor([accuracy for _, accuracy in implied]) - attacked.accuracy[:, -1]
    assert behind.mean() <= 0.02
    assert behind.max() <= 0.08


@pytest.mark.parametrize("norm", NORMS)
def test_more_steps_never_find_more(trained, norm):
    network, x, y = trained
    x, y = x[:8], y[:8]
    norms = [minimum_norm(network, x, y, norm, steps, trials=2).norms for steps in (50, 100, 200)]
    assert (norms[1] <= norms[0]).all()
    assert (norms[2] <= norms[1]).all()
    assert norms[2].sum() < norms[0].sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_twice_the_steps_find_norms_at_most_3_percent_smaller(trained, norm):
    network, x, y = trained
    some, more = (minimum_norm(network, x[:24], y[:24], norm, steps).norms for steps in (300, 600))
    assert (more <= some).all()
    assert float(more.mean()) > 0.97 * float(some.mean())
    assert float(more.median()) > 0.97 * float(some.median())


@pytest.mark.parametrize("norm", NORMS)
def test_trials_find_smaller_ones_than_walks_alone(trained, norm):
    network, x, y = trained
    walks, tried = (minimum_norm(network, x, y, norm, 50, trials).norms for trials in (0, 16))
    assert (tried <= walks).all()
    assert tried.sum() < walks.sum()


@pytest.mark.parametrize("norm", ["l0", "l1", "l2"])
def test_a_trained_network_in_the_other_norms(trained, norm):
    network, x, y = trained
    x, y = x[:12], y[:12].clone()
    y[0] = (y[0] + 1) % 10
    found = minimum_norm(network, x, y, norm)
    assert checked(network, x, y, norm, found).all()
    with torch.no_grad():
        right = network(x).argmax(1) == y
    assert not right[0]
    assert torch.equal(found.norms > 0, right)
    assert torch.equal(found.norms, minimum_norm(network, x, y, norm).norms)


def test_failures_are_infinite():
    def constant(images):
        return torch.tensor([[1.0, 0.0]]).expand(len(images), 2) + 0 * images.sum((1, 2, 3))[:, None]

    x, y = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1])
    for norm in NORMS:
        found = minimum_norm(constant, x, y, norm, 20)
        assert found.norms.tolist() == [math.inf, math.inf, 0]
        assert torch.equal(found.adversarial, x)


def test_summary_and_curve():
    norms = torch.tensor([0.0, 0.1, 0.3, math.inf, 0.2])
    assert summary(norms) == {
        "median": pytest.approx(0.2),
        "mean": pytest.approx(0.2),
        "success_rate": 0.8,
        "misclassified": 1,
    }
    assert curve(norms, [0, 0.15, 0.25, 1]) == [(0, 0.8), (0.15, 0.6), (0.25, 0.4), (1, 0.2)]
    assert summary(torch.tensor([0.1, math.inf, math.inf]))["median"] is None
    assert summary(torch.tensor([math.inf]))["mean"] is None


def test_wrong_requests(linear):
    with pytest.raises(RequestError, match="none of l0, l1, l2, linf"):
        minimum_norm(linear, linear.x, linear.y, "l3")
    with pytest.raises(RequestError, match="steps must be at least 1"):
        minimum_norm(linear, linear.x, linear.y, "l2", 0)
