"""PGD: inside its ball and inside [0, 1], stronger than its start, exact where the answer is known."""

import pytest
import torch
from torch import nn

from engine.training.adversarial import pgd, project


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def problem():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    return network, torch.rand(16, 3, 4, 4), torch.randint(0, 5, (16,))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [0.01, 0.5, 3.0])
def test_inside_the_ball_and_inside_0_to_1(problem, norm, eps):
    network, images, labels = problem
    attacked = pgd(network, images, labels, norm=norm, eps=eps, steps=5, step_size=eps, draw=draw())
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
    attacked = pgd(network, images, labels, norm="linf", eps=0.1, steps=20, step_size=0.05, draw=draw())
    weight = network[1].weight.view(2, 3, 4, 4)
    for image, label in zip(attacked, labels, strict=True):
        worst = 0.5 + 0.1 * (weight[1 - label] - weight[label]).sign()
        torch.testing.assert_close(image, worst)


def test_it_raises_the_loss_and_the_same_draw_gives_the_same_images(problem):
    network, images, labels = problem
    settings = {"norm": "linf", "eps": 0.1, "steps": 10, "step_size": 0.02}
    attacked = pgd(network, images, labels, **settings, draw=draw(3))
    assert torch.equal(attacked, pgd(network, images, labels, **settings, draw=draw(3)))
    assert not torch.equal(attacked, pgd(network, images, labels, **{**settings, "steps": 1}, draw=draw(4)))
    loss = nn.functional.cross_entropy
    assert loss(network(attacked), labels) > loss(network(images), labels)


def test_batch_norm_is_attacked_in_evaluation_mode_and_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).train()
    before = network[1].running_mean.clone()
    pgd(network, torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), norm="l2", eps=1, steps=2, step_size=1, draw=draw())
    assert torch.equal(network[1].running_mean, before)
    assert network[1].training


def test_projection():
    delta = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(project(delta, "l2", 1.0), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    torch.testing.assert_close(project(delta, "linf", 0.35), torch.tensor([[0.35, 0.35], [0.3, 0.35], [0.0, 0.0]]))
