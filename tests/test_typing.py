"""What a program of one's own sees of `engine.nn` and `engine.evaluation`: types, under mypy's --strict."""

import subprocess
import sys

from engine import evaluation, nn

PROGRAM = '''
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import assert_type

from engine.data.draws import Draw, ImageDraws
from engine.evaluation import (
    attack, corrupt, corrupted, judge, minimum_norm, noisy, probe, robust, sparsity, under_noise,
)
from engine.nn import (
    VGG, DivisiveNorm, HaHBlock, NormalizedConv2d, StandardBlock, Threshold, divisive_norm, hah_cost,
    threshold_fraction, threshold_mean,
)


class Mine(torch.nn.Module):
    """A network of one's own, whose blocks give costs when they are asked."""

    def __init__(self) -> None:
        super().__init__()
        self.first = HaHBlock(3, 64, norm=DivisiveNorm(0.2), threshold=Threshold("mean"), gradient="full")
        self.second = StandardBlock(64, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        output, cost = self.first(images, cost=True)
        return self.second(output).mean((2, 3)), cost


def of_a_network(network: VGG, images: Tensor, costs: bool) -> Tensor:
    assert_type(network(images), Tensor)
    assert_type(network(images, costs=False), Tensor)
    assert_type(network(images, costs=True), tuple[Tensor, Tensor])
    assert_type(network(images, costs=costs), Tensor | tuple[Tensor, Tensor])
    assert_type(network.forward(images), Tensor)
    assert_type(network.forward(images, costs=True), tuple[Tensor, Tensor])
    assert_type(VGG([StandardBlock(3, 64)], [True], 10, [0.5] * 3, [0.25] * 3), VGG)
    return network(images)


def of_a_block(block: HaHBlock, x: Tensor, cost: bool) -> Tensor:
    assert_type(block(x), Tensor)
    assert_type(block(x, cost=True), tuple[Tensor, Tensor])
    assert_type(block(x, cost=cost), Tensor | tuple[Tensor, Tensor])
    assert_type(block.forward(x), Tensor)
    assert_type(block.forward(x, cost=True), tuple[Tensor, Tensor])
    assert_type(block.activations(x), Tensor)
    return block(x)


def of_stages(x: Tensor) -> Tensor:
    y = F.relu(assert_type(NormalizedConv2d(3, 64)(x), Tensor))
    assert_type(hah_cost(y), Tensor)
    assert_type(Threshold()(DivisiveNorm()(y)), Tensor)
    z = divisive_norm(y)
    return threshold_fraction(z) + threshold_mean(z)


def of_attacks(network: VGG, x: Tensor, y: Tensor) -> None:
    plain: Callable[[Tensor], Tensor] = network  # a classifier is whatever gives logits
    for model in (network, torch.nn.Flatten(), plain, lambda images: images.flatten(1)):
        assert_type(attack(model, x, y, "pgd", "linf", 0.1), Tensor)
    assert_type(robust(network, x, y, ["pgd"], "l2", [0.1]).accuracy, Tensor)
    assert_type(minimum_norm(network, x, y, "l0").norms, Tensor)
    found = {"gradient": assert_type(probe("gradient", network, x, y, norm="linf", eps=0.1), Tensor)}
    assert_type(judge(found, "linf", 0.1), dict[str, Any])


def of_looking(network: VGG, x: Tensor, y: Tensor) -> None:
    assert_type(under_noise(network, [*network.blocks], x, y, [0.1], 1)[0][0].ratios, list[float])
    assert_type(sparsity(network, [*network.blocks], x)[0].hoyer, float)
    assert_type(noisy(x, 0.1, "gaussian", ImageDraws(x, range(len(x)), 0, Draw.EVALUATION_NOISE)), Tensor)


def of_corruptions(images: npt.NDArray[np.uint8], labels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    assert_type(corrupted("fog", 3, images, labels), tuple[npt.NDArray[np.uint8], str])
    return corrupt(images, "fog", 3)
'''
MISTAKES = """
from torch import Tensor

from engine.evaluation import atack
from engine.nn import VGG


def logits(network: VGG, images: Tensor) -> Tensor:
    return network(images, costs=True)
"""


def mypy(folder, cache, program):
    """What mypy says of a program away from the checkout."""
    path = folder / "program.py"
    path.write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", cache, path]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def test_a_program_of_ones_own_is_typed_whatever_it_uses(tmp_path, pytestconfig):
    for name in (*nn.__all__, *evaluation.__all__):
        assert f"{name}(" in PROGRAM, name
    cache = pytestconfig.cache.mkdir("mypy")
    assert mypy(tmp_path, cache, PROGRAM)[-1] == "Success: no issues found in 1 source file"
    unknown, wrong, last = mypy(tmp_path, cache, MISTAKES)
    assert 'no attribute "atack"' in unknown
    assert 'got "tuple[Tensor, Tensor]", expected "Tensor"' in wrong
    assert last.startswith("Found 2 errors")
