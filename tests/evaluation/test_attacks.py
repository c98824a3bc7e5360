"""Attacks: exact where the answer is known, believed nowhere, monotone by construction, and leaving no trace."""

import sys

import pytest
import torch
from torch import nn

from engine.adversarial.balls import project, size
from engine.evaluation.attacks import Scores, attack, robust, rounds, verified
from engine.experiment.mistakes import RequestError

BOTH = ("apgd-ce", "apgd-t")
ALL = ("pgd", "apgd-ce", "apgd-t", "fab-t", "square", "autoattack")


def in_ball(adversarial, x, norm, eps):
    assert adversarial.dtype == torch.float32
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    return bool((size(adversarial.double() - x.double(), norm) <= eps + 1e-6).all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_robust_accuracy_is_right_for_every_image(linear, norm):
    exact = linear.exact(norm)
    epsilons = [float(exact.median()) * factor for factor in (0.8, 1, 1.25)]
    found = robust(linear, linear.x, linear.y, BOTH, norm, epsilons)
    for eps, stands, adversarial in zip(epsilons, found.stands[:, -1], found.adversarial, strict=True):
        sure = (exact / eps - 1).abs() > 1e-3
        assert torch.equal(stands[sure], (exact > eps)[sure])
        assert 0 < stands.sum() < len(stands)
        assert in_ball(adversarial, linear.x, norm, eps)
        assert torch.equal(linear(adversarial).argmax(1) == linear.y, stands)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("method", ALL[:-1])
def test_every_image_is_in_its_ball_and_the_same_seed_gives_the_same_bits(linear, norm, method):
    x, y, eps = linear.x[:8], linear.y[:8].clone(), float(linear.exact(norm)[:8].median())
    y[0] = (y[0] + 1) % 10  # misclassified
    before = torch.get_rng_state()
    found = attack(linear, x, y, method, norm, eps, 20, seed=3, places=range(5, 13))
    assert torch.equal(torch.get_rng_state(), before)
    assert in_ball(found, x, norm, eps)
    assert torch.equal(found[0], x[0])
    assert torch.equal(found, attack(linear, x, y, method, norm, eps, 20, seed=3, places=range(5, 13)))
    if method == "pgd":
        assert not torch.equal(found, attack(linear, x, y, method, norm, eps, 20, seed=3))


def test_autoattack_says_what_the_library_says(linear):
    from pyautoattack import AutoAttack

    eps = 1.05 * float(linear.exact("linf").median())
    x, y = linear.x[:12], linear.y[:12]
    ours = robust(linear, x, y, ["autoattack"], "linf", [eps])
    assert 0 < ours.accuracy < 1
    trace = sys.gettrace()
    with torch.random.fork_rng(devices=()):
        theirs = AutoAttack(linear, norm="Linf", eps=eps, seed=0)
        adversarial, _ = theirs.run_standard_evaluation(x, y)
    sys.settrace(trace)
    assert torch.equal(ours.stands[0, 0], linear(adversarial).argmax(1) == y)


def test_what_an_attack_claims_is_verified(linear):
    x, y, exact = linear.x[:4], linear.y[:4], linear.exact("l2")[:4]
    eps = float(exact.min()) / 2
    outside = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    assert (linear(outside).argmax(1) != y).any()  # a thief who ignores eps
    images, stands = verified(Scores(linear, x), x, y, outside, "l2", eps)
    assert stands.all()
    assert in_ball(images, x, "l2", eps)
    images, stands = verified(Scores(linear, x), x, y, torch.full_like(x, torch.nan), "linf", 0.1)
    assert stands.all()
    assert torch.equal(images, x)


@pytest.mark.parametrize("eps", [3.0, 5.0, 10.0])
def test_rounding_on_large_images_does_not_make_an_attack_fail(eps):
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(3 * 224 * 224, generator=draw)
    x = 0.5 + 0.1 * torch.randn(6, 3, 224, 224, generator=draw).clamp(-3, 3)
    y = torch.zeros(6, dtype=torch.long)

    def model(images):
        score = (images.flatten(1) - 0.5) @ w / 1e3 + 0.001 * eps * float(w.norm()) / 2
        return torch.stack([score, -score], 1)

    x = x - (((x.flatten(1) - 0.5) @ w) / w.square().sum())[:, None].mul(w).view_as(x)  # all at the same distance
    x = x.clamp(0, 1)
    images, stands = verified(Scores(model, x), x, y, x - 2 * eps * (w / w.norm()).view(1, 3, 224, 224), "l2", eps)
    assert in_ball(images, x, "l2", eps)
    assert not stands.any()


def test_scores_that_are_no_numbers_classify_nothing(linear):
    def model(images):
        return linear(images) * torch.nan

    found = robust(model, linear.x[:4], torch.zeros(4, dtype=torch.long), ["pgd"], "linf", [0.1], 2)
    assert not found.clean.any()
    assert found.accuracy.item() == 0


def test_accuracy_never_rises_with_eps_attacks_or_restarts(trained):
    network, x, y = trained
    x, y = x[:40], y[:40]
    once = robust(network, x, y, ["pgd", "apgd-ce"], "linf", [0.03, 0.015, 0.025], 10)
    thrice = robust(network, x, y, ["pgd", "apgd-ce"], "linf", [0.03, 0.015, 0.025], 10, restarts=3)
    assert thrice.epsilons == [0.015, 0.025, 0.03]
    assert thrice.stages == ["pgd", "apgd-ce", "pgd 2", "apgd-ce 2", "pgd 3", "apgd-ce 3"]
    assert thrice.stands.shape == (3, 6, 40)
    assert torch.equal(thrice.stands[:, :2], once.stands)
    for found in (once, thrice):
        stands = found.stands.int()
        assert (stands.diff(dim=0) <= 0).all()  # eps
        assert (stands.diff(dim=1) <= 0).all()  # every further attack: the union is at most each
        assert (stands <= found.clean.int()).all()
        assert found.accuracy[0, 0] > found.accuracy[-1, -1]
        for eps, adversarial, left in zip(found.epsilons, found.adversarial, found.stands[:, -1], strict=True):
            assert in_ball(adversarial, x, "linf", eps)
            with torch.no_grad():
                assert (network(adversarial[~left]).argmax(1) != y[~left]).all()


def test_no_image_stands_again_after_more_iterations(trained):
    """Over all sizes and attacks; how many fewer stand is measured by benchmarks/attacks.py."""
    network, x, y = trained
    sizes = [0.015, 0.02, 0.025]
    some, more = (robust(network, x, y, ["pgd", "apgd-ce"], "linf", sizes, steps) for steps in (100, 200))
    assert torch.equal(more.stands[:, :2], some.stands)
    assert more.stages == ["pgd", "apgd-ce", "pgd 2", "apgd-ce 2"]
    assert int(more.stands[:, -1].sum()) < int(some.stands[:, -1].sum())


def test_square_and_autoattack_are_not_divided(linear):
    x, y = linear.x[:6], linear.y[:6]
    found = robust(linear, x, y, ["square", "pgd", "autoattack"], "linf", [0.005], 150, restarts=2)
    assert found.stages == ["square", "pgd", "autoattack", "pgd 2", "square 3", "pgd 3", "autoattack 3", "pgd 4"]
    queries = []

    def counted(images):
        queries.append(len(images))
        return linear(images)

    robust(counted, x, y, ["square"], "linf", [1e-6], 150)
    assert sum(queries) > 140 * 6


def test_what_is_kept_is_not_measured_again(linear):
    """Interrupted after any attack, the rest gives the same verdicts."""
    x, y, kept, measured = linear.x, linear.y, {}, []

    def keep(name, measure):
        if name not in kept:
            measured.append(name)
            kept[name] = measure()
        return kept[name]

    arguments = (linear, x, y, ["pgd", "pgd"], "linf", [0.01, 0.02, 0.03], 3)
    whole = robust(*arguments, restarts=2)
    assert torch.equal(robust(*arguments, restarts=2, kept=keep).stands, whole.stands)
    assert len(kept) == len(measured) == 12
    assert any(kept.values())
    for name in measured[5:]:
        del kept[name]
    assert torch.equal(robust(*arguments, restarts=2, kept=keep).stands, whole.stands)
    assert measured[12:] == measured[5:12]


def test_rounds():
    assert rounds(250) == [(0, 100), (100, 100), (200, 50)]
    assert rounds(100) == [(0, 100)]
    assert rounds(7) == [(0, 7)]


def test_a_module_is_left_as_it_was():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5)).train()
    network[2].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, y = torch.rand(6, 3, 8, 8), torch.randint(0, 5, (6,))
    for method in ALL[:-1]:
        attack(network, x, y, method, "linf", 0.001, 4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [part.training for part in network] == [True, True, False, True]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes(linear, classes):
    def model(images):
        return linear(images)[:, :classes]

    x = linear.x[:10]
    y = model(x).argmax(1)
    found = robust(model, x, y, ["autoattack"], "l2", [3.0], 10)
    assert found.accuracy.item() == 0
    assert attack(model, x, y, "apgd-t", "linf", 0.05, 10).shape == x.shape


def test_scores_are_fp32_even_under_autocast(linear):
    layer = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(linear.x).dtype == torch.bfloat16
        scores = Scores(layer, linear.x)
        inside = scores(linear.x)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, layer(linear.x))
    assert scores(linear.x[:0]).shape == (0, 10)


def test_without_the_library_the_message_says_how_to_get_it(linear, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(RequestError, match=r"apgd-t needs pyautoattack.*pip install 'hah-tui\[attacks\]'"):
        attack(linear, linear.x, linear.y, "apgd-t", "linf", 0.01)
    assert in_ball(attack(linear, linear.x, linear.y, "pgd", "linf", 0.01, 5), linear.x, "linf", 0.01)


def test_wrong_requests(linear):
    x, y = linear.x, linear.y
    for arguments, sentence in [
        ((x * 255, y, "pgd", "linf", 0.1), "in \\[0, 1\\]"),
        ((x[0], y, "pgd", "linf", 0.1), "images \\[B, C, H, W\\]"),
        ((x, y, "fgsm", "linf", 0.1), "none of pgd"),
        ((x, y, "pgd", "l1", 0.1), "linf or l2"),
        ((x, y, "pgd", "linf", float("nan")), "eps must be"),
    ]:
        with pytest.raises(RequestError, match=sentence):
            attack(linear, *arguments)
    for methods, epsilons in (([], [0.1]), (["pgd"], [])):
        with pytest.raises(RequestError, match="at least one attack and one size"):
            robust(linear, x, y, methods, "linf", epsilons)


def test_projections():
    draw = torch.Generator().manual_seed(2)
    delta = torch.randn(5, 3, 4, 4, generator=draw, dtype=torch.float64)
    eps = torch.tensor([0.5, 3.0, 7.0, 20.0, 1e9])
    for norm in ("l0", "l1", "l2", "linf"):
        nearest = project(delta, norm, eps)
        assert (size(nearest, norm) <= eps + 1e-5 if norm != "l0" else size(nearest, norm) <= eps.ceil()).all()
        assert torch.equal(nearest[4], delta[4])
    shrunk = project(delta, "l1", eps)[1].flatten()
    low, high = 0.0, 10.0  # the threshold by bisection
    for _ in range(100):
        threshold = (low + high) / 2
        length = (delta[1].abs() - threshold).clamp_min(0).sum()
        low, high = (threshold, high) if length > 3 else (low, threshold)
    flat = delta[1].flatten()
    torch.testing.assert_close(shrunk, flat.sign() * (flat.abs() - low).clamp_min(0))
    kept = project(delta, "l0", eps)[2].flatten()
    assert set(kept.nonzero().flatten().tolist()) == set(delta[2].flatten().abs().topk(7).indices.tolist())
