"""PGD: inside its ball and inside [0, 1], stronger than its start, exact where the answer is known."""

import pytest
import torch
from torch import nn

from engine.adversarial.balls import drawn_start, project, random_start, size
from engine.adversarial.pgd import pgd
from engine.data.draws import ImageDraws


def start(images, norm, eps, seed=0):
    return random_start(images, norm, eps, torch.Generator().manual_seed(seed))


@pytest.fixture
def problem():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    return network, torch.rand(16, 3, 4, 4), torch.randint(0, 5, (16,))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [0.01, 0.5, 3.0])
def test_inside_the_ball_and_inside_0_to_1(problem, norm, eps):
    network, images, labels = problem
    attacked = pgd(network, images, labels, norm=norm, eps=eps, steps=5, step_size=eps, start=start(images, norm, eps))
    delta = (attacked - images).flatten(1)
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert (length <= eps + 1e-5).all()
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert not attacked.requires_grad


def test_on_a_linear_two_class_model_linf_pgd_is_the_known_optimum():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    images, labels = torch.full((4, 3, 4, 4), 0.5), torch.tensor([0, 1, 0, 1])
    begin = start(images, "linf", 0.1)
    attacked = pgd(network, images, labels, norm="linf", eps=0.1, steps=20, step_size=0.05, start=begin)
    weight = network[1].weight.view(2, 3, 4, 4)
    for image, label in zip(attacked, labels, strict=True):
        worst = 0.5 + 0.1 * (weight[1 - label] - weight[label]).sign()
        torch.testing.assert_close(image, worst)


def test_it_raises_the_loss_and_the_same_draw_gives_the_same_images(problem):
    network, images, labels = problem
    settings = {"norm": "linf", "eps": 0.1, "steps": 10, "step_size": 0.02}
    attacked = pgd(network, images, labels, **settings, start=start(images, "linf", 0.1, 3))
    assert torch.equal(attacked, pgd(network, images, labels, **settings, start=start(images, "linf", 0.1, 3)))
    other = start(images, "linf", 0.1, 4)
    assert not torch.equal(attacked, pgd(network, images, labels, **{**settings, "steps": 1}, start=other))
    loss = nn.functional.cross_entropy
    assert loss(network(attacked), labels) > loss(network(images), labels)


def test_batch_norm_is_attacked_in_evaluation_mode_and_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).train()
    before = network[1].running_mean.clone()
    images = torch.rand(2, 3, 4, 4)
    begin = start(images, "l2", 1)
    pgd(network, images, torch.tensor([0, 1]), norm="l2", eps=1, steps=2, step_size=1, start=begin)
    assert torch.equal(network[1].running_mean, before)
    assert network[1].training


def test_the_weights_of_the_attacked_network_get_no_gradient_not_even_a_wasted_one(problem):
    """A block of our own cannot know that only the images' gradient is wanted, unless its weights want none."""
    _, images, labels = problem
    wanted = []

    class Watching(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(weight)
            return x.flatten(1) @ weight.T

        @staticmethod
        def backward(ctx, g):
            wanted.append(ctx.needs_input_grad)
            return (g @ ctx.saved_tensors[0]).view(-1, 3, 4, 4), None

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 48))

        def forward(self, x):
            return Watching.apply(x, self.weight)

    network = Network()
    pgd(network, images, labels, norm="l2", eps=1, steps=2, step_size=1, start=start(images, "l2", 1))
    assert wanted == [(True, False)] * 2
    assert network.weight.requires_grad


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_are_uniform_in_the_ball(norm):
    images, eps = torch.zeros(4000, 1, 1, 3), 0.5
    for begin in (start(images, norm, eps), drawn_start(norm, eps, ImageDraws(images, range(4000), 1))):
        length = size(begin, norm) / eps
        assert float(length.max()) <= 1 + 1e-6
        # Of three dimensions, r^3 of the volume lies within r.
        for r in (0.5, 0.8):
            assert float((length < r).float().mean()) == pytest.approx(r**3, abs=0.03)
        assert begin.mean(0).abs().max() < 0.03


def test_projection():
    delta = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(project(delta, "l2", 1.0), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    torch.testing.assert_close(project(delta, "linf", 0.35), torch.tensor([[0.35, 0.35], [0.3, 0.35], [0.0, 0.0]]))
