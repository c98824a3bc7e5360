"""What makes two experiments the same."""

import pytest

from engine.experiment import fields, presets
from engine.experiment import fingerprint as fingerprints
from engine.experiment.fingerprint import fingerprint, is_current


def made(*sets, preset="paper-hah"):
    return presets.load(preset, list(sets))


@pytest.mark.parametrize(
    "same",
    ["name=other", "tags=[a]", "description=x", "observe.every=3", "checkpoints.minutes=1", "evaluate.images=5",
     "compute.device=cpu", "train.compile=true", "train.precision=fp32", "model.divisive_norm.sigma=0.1",
     "model.divisive_norm.sigma=[0.1, 0.1, 0.1, 0.1, 0.1, 0.1]"],
)  # fmt: skip
def test_what_no_result_depends_on_changes_nothing(same):
    assert fingerprint(made(same)) == fingerprint(made())


@pytest.mark.parametrize(
    "other",
    ["data.augment=none", "model.width=0.5", "hah.lambda=0.2", "hah.alpha=0.1", "train.epochs=99", "train.lr=0.1",
     "model.divisive_norm.sigma=[0.1, 0.1, 0.1, 0.1, 0.1, 0.2]", "train.noise_std=0.1"],
)  # fmt: skip
def test_everything_else_does(other):
    assert fingerprint(made(other), seed=False) != fingerprint(made(), seed=False)


def test_the_seed_tells_runs_apart_and_groups_hold_them_together():
    assert fingerprint(made("seed=1")) != fingerprint(made())
    assert fingerprint(made("seed=1"), seed=False) == fingerprint(made(), seed=False)


def test_a_stored_fingerprint_is_made_again_when_there_is_another_setting(monkeypatch):
    stored = fingerprint(made())
    assert is_current(stored)
    assert not is_current("")
    every = {**fields.fields(), "train.label_smoothing": None}
    monkeypatch.setattr(fields, "fields", lambda: every)
    fingerprints._names.cache_clear()
    try:
        assert not is_current(stored)
    finally:
        fingerprints._names.cache_clear()


def test_a_number_is_the_same_however_it_is_written():
    assert fingerprint(made("train.lr=1e-3")) == fingerprint(made("train.lr=0.001"))
    assert fingerprint(made("model.width=1")) == fingerprint(made("model.width=1.0"))
