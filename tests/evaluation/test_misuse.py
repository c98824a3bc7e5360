"""Every public function of `engine.nn` and `engine.evaluation` with what it is not made for: a right result or one
clear error, and the model as it was."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from engine import evaluation
from engine import nn as hah_nn
from engine.data.draws import Draw, ImageDraws

SHAPE = (2, 3, 8, 8)


def classifier(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)).to(dtype).train()


def images(shape=SHAPE, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


LABELS = torch.tensor([1, 2])
ATTACKS = {
    "attack": lambda model, x, y, **more: evaluation.attack(model, x, y, **{"method": "pgd", "norm": "linf", "eps": 0.1,
                                                                          "steps": 2, **more}),
    "robust": lambda model, x, y, **more: evaluation.robust(model, x, y, **{"methods": ["pgd"], "norm": "l2",
                                                                           "epsilons": [0.1], "steps": 2, **more}),
    "minimum_norm": lambda model, x, y, **more: evaluation.minimum_norm(model, x, y, **{"norm": "l2", "steps": 2,
                                                                                       "trials": 1, **more}),
    "probe": lambda model, x, y, **more: evaluation.probe("one-step", model, x, y, **{"norm": "linf", "eps": 0.1,
                                                                                     "steps": 2, **more}),
    "under_noise": lambda model, x, y, **more: evaluation.under_noise(model, [model[0]], x, y,
                                                                     **{"levels": [0.1], "draws": 1, **more}),
}  # fmt: skip
WRONG_IMAGES = {
    "no batch": images()[0], "no images": images((0, 3, 8, 8)), "whole numbers": torch.ones(SHAPE, dtype=torch.int64),
    "bytes": torch.zeros(SHAPE, dtype=torch.uint8), "beyond 1": 255 * images(), "below 0": -images(),
    "NaN": images() * torch.nan, "five dimensions": images((2, 3, 8, 8, 1)), "complex": images(dtype=torch.complex64),
    "elsewhere": images().to("meta"),
}  # fmt: skip
WRONG_LABELS = {
    "too few": LABELS[:1], "one for each class": torch.eye(10)[:2], "numbers": LABELS.float(), "yes and no": LABELS > 1,
    "beyond the classes": LABELS + 9, "negative": -LABELS,
}  # fmt: skip
WRONG_MORE = {
    "attack": [{"steps": 0}, {"restarts": 0}, {"eps": -1}, {"eps": float("nan")}, {"norm": "l1"}, {"method": "fgsm"}],
    "robust": [{"steps": 0}, {"restarts": 0}, {"epsilons": []}, {"methods": []}, {"norm": "l0"}, {"methods": ["x"]},
               {"epsilons": [0.1, float("inf")]}],
    "minimum_norm": [{"steps": 0}, {"trials": -1}, {"norm": "l3"}],
    "probe": [{"steps": 0}, {"eps": float("nan")}, {"norm": "l1"}, {"queries": 0}],
    "under_noise": [{"draws": 0}, {"levels": [-1.0]}, {"levels": [float("nan")]}, {"distribution": "x"}],
}  # fmt: skip


def refused(call):
    """The one error of a call: a ValueError that says something, in a sentence."""
    with pytest.raises(ValueError) as caught:
        call()
    said = str(caught.value)
    assert 10 < len(said) < 300
    assert "\n" not in said


@pytest.fixture
def model():
    """A model in training mode that is left exactly as it was."""
    model = classifier()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    yield model
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert not any(part._forward_hooks for part in model.modules())
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("name", ATTACKS)
def test_wrong_images_labels_and_numbers_are_one_clear_error(model, name):
    for x in WRONG_IMAGES.values():
        refused(lambda x=x: ATTACKS[name](model, x, LABELS))
    for y in WRONG_LABELS.values():
        if name != "under_noise" or y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool or len(y) < 2:
            refused(lambda y=y: ATTACKS[name](model, images(), y))
    for more in WRONG_MORE[name]:
        refused(lambda more=more: ATTACKS[name](model, images(), LABELS, **more))


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "under_noise"])
def test_what_is_no_classifier_is_one_clear_error(name):
    for wrong in (nn.Identity(), nn.Flatten(0), lambda x: x.mean((1, 2, 3)), lambda x: x.flatten(1)[:, :1]):
        refused(lambda wrong=wrong: ATTACKS[name](wrong, images(), LABELS))


def outcome(name, result):
    return {"attack": lambda: result, "robust": lambda: result.stands, "minimum_norm": lambda: result.norms,
            "probe": lambda: result, "under_noise": lambda: torch.tensor(result[0][0].ratios)}[name]()  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_modes_of_the_caller_and_kinds_of_whole_numbers_change_nothing(model, name):
    expected = outcome(name, ATTACKS[name](model, images(), LABELS))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            x = images()
            assert torch.equal(outcome(name, ATTACKS[name](model, x, LABELS)), expected)
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(outcome(name, ATTACKS[name](model, images(), LABELS.to(dtype))), expected)
    x = images().to(memory_format=torch.channels_last).requires_grad_()
    assert torch.equal(outcome(name, ATTACKS[name](model, x, LABELS)), expected)
    assert x.grad is None


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "under_noise"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_models_of_any_precision_are_attacked(name, dtype):
    found = outcome(name, ATTACKS[name](classifier(dtype).eval(), images(), LABELS))
    assert found.dtype in (torch.float32, torch.float64, torch.bool)
    assert len(found.flatten())


MAPS = {
    "divisive_norm": hah_nn.divisive_norm, "hah_cost": hah_nn.hah_cost, "threshold_fraction": hah_nn.threshold_fraction,
    "threshold_mean": hah_nn.threshold_mean, "DivisiveNorm": hah_nn.DivisiveNorm(), "Threshold": hah_nn.Threshold(),
    "HaHBlock": hah_nn.HaHBlock(16, 16), "with_cost": partial(hah_nn.HaHBlock(16, 16), cost=True),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_activations_of_a_wrong_kind_are_one_clear_error(name):
    good = images((2, 16, 4, 4))
    MAPS[name](good)
    MAPS[name](good.double()) if name in ("divisive_norm", "hah_cost", "threshold_fraction", "threshold_mean") else None
    for y in (good[0], good.flatten(1), good.long(), good[:, :0], good[..., :0], good.to(torch.complex64)):
        refused(lambda y=y: MAPS[name](y))


@pytest.mark.parametrize("call", [
    lambda y: hah_nn.divisive_norm(y, sigma=2), lambda y: hah_nn.divisive_norm(y, pool=2),
    lambda y: hah_nn.divisive_norm(y, eps=-1), lambda y: hah_nn.divisive_norm(y, sigma=float("nan")),
    lambda y: hah_nn.hah_cost(y, top_k=0), lambda y: hah_nn.hah_cost(y, top_k=1), lambda y: hah_nn.hah_cost(y[:0]),
    lambda y: hah_nn.hah_cost(y, lambda_=float("nan")), lambda y: hah_nn.hah_cost(y[:, :1]),
    lambda y: hah_nn.threshold_fraction(y, keep=0), lambda y: hah_nn.threshold_fraction(y, keep=float("nan")),
    lambda y: hah_nn.threshold_mean(y, scale=-1), lambda y: hah_nn.Threshold("x"),
    lambda y: hah_nn.DivisiveNorm(pool=0),
])  # fmt: skip
def test_numbers_that_cannot_be_are_one_clear_error(call):
    refused(lambda: call(images((2, 16, 4, 4))))


def test_images_that_a_vgg_is_not_made_for():
    from engine.experiment import presets

    network = hah_nn.VGG.from_experiment(presets.load("quickstart", ["model.width=0.0625"]))
    network(images((1, 3, 32, 32)))
    for x in (images((3, 32, 32)), images((1, 1, 32, 32)), images((1, 3, 28, 28)), images((1, 3, 32, 32)).byte(),
              images((1, 3, 224, 224))):  # fmt: skip
        refused(lambda x=x: network(x))


def test_corruptions_and_sparsity():
    good = np.zeros((2, 32, 32, 3), np.uint8)
    for call in (
        lambda: evaluation.corrupt(good, "fog", 6), lambda: evaluation.corrupt(good, "rain", 1),
        lambda: evaluation.corrupt(good.astype(float), "fog", 1), lambda: evaluation.corrupt(good[0], "fog", 1),
        lambda: evaluation.sparsity(classifier(), [], images()[0]),
        lambda: evaluation.sparsity(classifier(), [], images().long()),
        lambda: evaluation.sparsity(classifier(), [], images(), bins=0),
    ):  # fmt: skip
        refused(call)
    draws = ImageDraws(images(), range(2), 0, Draw.EVALUATION_NOISE)
    assert evaluation.noisy(images(), 0.0, "gaussian", draws).equal(images())
