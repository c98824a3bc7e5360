"""The form without a screen: what is typed becomes what `--set` would have made of it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.experiment import RequestError, presets
from engine.experiment.fields import fields
from engine.runs.layout import create
from hah_tui.draft import Draft, text_of, value
from hah_tui.speeds import Speed, expected_seconds, speed_of
from tests.tui.made import config, made

ALL = [preset.name for preset in presets.listed() if preset.shipped]


@pytest.mark.parametrize("name", ALL)
def test_an_untouched_draft_is_its_preset(name):
    draft = Draft.of_preset(name)
    assert draft.mistakes == {}
    assert draft.experiment == presets.load(name)
    assert draft.differences() == {}
    assert draft.sets() == []


@pytest.mark.parametrize("name", ["paper-hah", "paper-adversarial", "quickstart"])
def test_every_field_reads_back_what_it_shows(name):
    draft, dump = Draft.of_preset(name), presets.load(name)
    for field in fields().values():
        if field.per_block or field.kind == "section" or draft.off(field.name):
            continue
        found = dump.dump()
        for part in field.name.split("."):
            found = found[part]
        shown = value(field, draft.text(field.name))
        numbers = field.kind in ("number", "numbers") and found is not None
        assert shown == (pytest.approx(found, rel=1e-9) if numbers else found), field.name


def test_impossible_values_say_why():
    draft = Draft.of_preset("paper-hah")
    for name, text, why in (
        ("hah.lambda", "-1", "from 0 to"), ("train.epochs", "1.5", "whole number"), ("train.lr", "fast", "number"),
        ("train.epochs", "", "whole number"), ("name", "a b", "letters"), ("train.milestones", "80, 60", "must rise"),
        ("data.train_limit", "0", "from 1 to"), ("train.lr", "[", "YAML"), ("seed", "1e99", "whole number"),
    ):  # fmt: skip
        draft.type(name, text)
        assert why in draft.mistakes[name], (name, draft.mistakes)
        assert draft.experiment is None
        draft.restore(name)
        assert draft.experiment is not None


def test_a_mistake_elsewhere_is_seen_at_its_own_field():
    draft = Draft.of_preset("paper-hah")
    draft.type("hah.top_k", "0.9")
    draft.type("model.width", "0.0625")  # four filters in the first block, and all of them are the strongest
    assert list(draft.mistakes) == ["hah.top_k"]
    draft.type("model.width", "0.5")
    assert draft.sets() == ["model.width=0.5", "hah.top_k=0.9"]


def test_rows_follow_the_number_of_hah_blocks():
    draft = Draft.of_preset("paper-hah")
    draft.type("model.hah_blocks", "3")
    assert draft.experiment.alphas == [4.5e-3, 2.5e-3, 1.3e-3]
    draft.type("model.hah_blocks", "8")
    assert draft.experiment.alphas == [4.5e-3, 2.5e-3, 1.3e-3, 1e-3, 8e-4, 5e-4, 5e-4, 5e-4]
    draft.type_block("hah.alpha", 8, "1e-4")
    draft.type_block("model.divisive_norm.sigma", 2, "0.3")
    assert draft.experiment.alphas[7] == 1e-4
    assert draft.experiment.sigmas == [0.1, 0.3, *[0.1] * 6]
    draft.type("model.hah_blocks", "6")
    assert draft.experiment.alphas == presets.load("paper-hah").alphas
    draft.type("model.hah_blocks", "8")
    assert draft.experiment.alphas[7] == 1e-4  # it was only out of sight
    draft.type("model.hah_blocks", "0")
    assert draft.experiment is not None
    draft.type("model.hah_blocks", "17")
    assert list(draft.mistakes) == ["model.hah_blocks"]
    draft.type("model.hah_blocks", "2")
    draft.type_block("hah.alpha", 2, "x")
    assert "got 'x'" in draft.mistakes["hah.alpha[2]"]
    draft.restore("hah.alpha")
    assert draft.experiment is not None


def test_adversarial_training_on_and_off():
    draft = Draft.of_preset("paper-hah")
    assert draft.off("train.adversarial.eps")
    draft.type("train.adversarial", "true")
    draft.type("train.adversarial.eps", "4/255")
    assert draft.experiment.train.adversarial.eps == 4 / 255
    draft.type("train.adversarial", "false")
    assert draft.experiment.train.adversarial is None
    draft = Draft.of_preset("paper-adversarial")
    draft.type("train.adversarial", "false")
    assert draft.sets() == ["train.adversarial=null"]


TEXTS = {
    "integer": ["1", "2", "7"], "number": ["0.5", "1e-3", "0.25"], "flag": ["true", "false"], "text": ["abc"],
    "numbers": ["0.1", "0.1, 0.2"], "integers": ["1", "1 2"], "texts": ["a b", ""],
}  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["paper-hah", "quickstart", "paper-adversarial"]), st.integers(0, 10**6))
def test_what_is_launched_is_what_the_command_line_would_launch(name, seed):
    """The draft's sets, given to `hah run PRESET --set ...`, make the same experiment; so does a stored draft."""
    choose, draft = random.Random(seed), Draft.of_preset(name)
    for field in choose.sample(list(fields().values()), 6):
        if not field.per_block and field.kind not in ("section", "choices") and field.name != "compute.device":
            texts = [str(choice) for choice in field.choices] or TEXTS[field.kind]
            draft.type(field.name, choose.choice(texts))
    draft.type_block("hah.alpha", 1, choose.choice(["0.5", "1e-2"]))
    again = Draft.of_stored(draft.dump())
    assert again.mistakes == draft.mistakes
    assert again.experiment == draft.experiment
    if draft.experiment is not None:
        assert presets.load(name, draft.sets()) == draft.experiment
    else:
        assert draft.mistakes


leaves = st.text(max_size=3) | st.integers() | st.none()
names = st.sampled_from(["hah", "lambda", "hah.lambda", "hah.alpha", "name"]) | st.text(max_size=3)


@settings(deadline=None)
@given(st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=5))
def test_any_stored_draft_is_a_draft_or_refused(stored):
    document = {"base": stored, "texts": stored, "lists": stored, "origin": stored}
    try:
        Draft.of_stored(document)
    except RequestError:
        return


def test_a_run_can_be_cloned_with_what_was_changed_while_it_ran(runs):
    run = made(runs, status="stopped", changed={"hah.lambda": 0.7})
    draft = Draft.of_run(run)
    assert draft.experiment.hah.lambda_ == 0.7
    assert draft.differences() == {}
    assert draft.sets() == ["hah.lambda=0.7"]  # of its preset
    broken = create(runs, "broken", "name: [")
    with pytest.raises(RequestError):
        Draft.of_run(broken)


def test_time_is_expected_from_runs_of_the_same_network(runs):
    import socket

    host = {"host": socket.gethostname()}
    from engine.runs.store import look

    speed = speed_of(look(made(runs, images_per_second=1442.0, engine=host)))
    assert speed is not None
    experiment = presets.load("quickstart")
    assert expected_seconds(experiment, [speed]) == (12.0, 1)  # 12 epochs of 1,442 images
    assert expected_seconds(presets.load("paper-hah"), [speed]) is None
    assert speed_of(look(made(runs, images_per_second=10.0, engine={"host": "elsewhere"}))) is None
    other = Speed(speed.network, ("other",), 1.0)
    assert expected_seconds(experiment, [speed, other]) == (12.0, 1)  # the more alike one decides
    assert "\nname: quickstart\n" in config()
    assert text_of([0.1, 2.0]) == "0.1, 2"
