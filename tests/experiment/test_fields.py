"""The schema as data: every setting has what a form, a message and a reference page need."""

from itertools import pairwise

import pytest

from engine.experiment import Experiment, architecture
from engine.experiment.fields import differences, fields, flatten


def test_every_setting_of_the_contract_is_there():
    contract = """
        name description seed tags
        data.dataset data.augment data.train_limit data.test_limit data.validation
        model.architecture model.width model.hah_blocks model.weight_norm
        model.divisive_norm.enabled model.divisive_norm.sigma model.divisive_norm.pool
        model.threshold.kind model.threshold.keep model.threshold.scale
        hah.alpha hah.lambda hah.top_k hah.gradient
        train.epochs train.batch_size train.optimizer train.lr train.weight_decay train.milestones train.gamma
        train.precision train.compile train.noise_std
        train.adversarial.norm train.adversarial.eps train.adversarial.steps train.adversarial.step_size
        train.adversarial.network hah.images
        observe.every observe.noise_std observe.images
        compute.device compute.kernels compute.num_gpus
    """.split()
    assert set(contract) <= set(fields())


def test_every_field_has_help_and_says_what_is_allowed():
    for field in fields().values():
        assert len(field.help) > 8, field.name
        assert field.allowed(), field.name


def test_fields_and_a_dumped_experiment_name_the_same_settings():
    dumped = set(flatten(Experiment().dump()))
    in_optional_sections = {name for name in fields() if name.startswith("train.adversarial.")}
    assert dumped == set(fields()) - in_optional_sections


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("hah.lambda", "a number from 0 to 1000000"),
        ("hah.top_k", "a number above 0 and below 1"),
        ("hah.alpha", "a number or a list of numbers, each from 0 to 1000000"),
        ("model.divisive_norm.sigma", "a number or a list of numbers, each from 0 to 1"),
        ("train.batch_size", "a whole number from 1 to 65536"),
        ("train.milestones", "a list of whole numbers, each from 1 to 1000000"),
        ("data.train_limit", "a whole number from 1 to 1000000, or null"),
        ("train.compile", "true or false"),
        ("hah.gradient", "one of local, full"),
    ],
)
def test_what_is_allowed_in_words(name, allowed):
    assert fields()[name].allowed() == allowed


def test_differences_are_the_differing_settings_only():
    a, b = Experiment(), Experiment.model_validate({"hah": {"lambda": 0.3}, "train": {"adversarial": {"steps": 3}}})
    assert differences(a.dump(), a.dump()) == {}
    found = differences(a.dump(), b.dump())
    assert found["hah.lambda"] == (0.1, 0.3)
    assert found["train.adversarial.steps"] == (None, 3)
    assert all(name.startswith(("hah.lambda", "train.adversarial")) for name in found)


def test_blocks_of_every_architecture():
    for name, count in (("vgg11", 8), ("vgg13", 10), ("vgg16", 13), ("vgg19", 16)):
        blocks = architecture.blocks(name, 1.0)
        assert [block.number for block in blocks] == list(range(1, count + 1))
        assert sum(block.pooled for block in blocks) == 5
        assert blocks[-1].size == 2
        assert all(a.filters == b.in_channels for a, b in pairwise(blocks))
    assert [block.filters for block in architecture.blocks("vgg11", 0.01)] == [2, 2, 3, 3, 5, 5, 5, 5]
