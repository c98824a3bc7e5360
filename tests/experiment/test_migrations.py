"""Runs of earlier versions stay readable: configurations, checkpoints, changes on the way."""

import pytest

from engine.experiment import RequestError, migrations, presets
from engine.experiment.document import Document, nested
from engine.experiment.fields import flatten
from engine.experiment.migrations import migrated, present, removed, renamed
from engine.experiment.version import SCHEMA_VERSION

OLD = """
name: last-year
evaluate:
  minimum_norm: {steps: 20, targets: 3}
"""


@pytest.fixture
def later(monkeypatch):
    """A version in which two settings of today are renamed and removed: what an old file names, nobody knows."""
    names = {SCHEMA_VERSION: (renamed("train.speed", "train.lr"), removed("train.patience"))}
    monkeypatch.setattr(migrations, "MIGRATIONS", {**migrations.MIGRATIONS, **names})
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", SCHEMA_VERSION + 1)


def test_a_configuration_without_a_version_is_of_the_first(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(OLD)
    assert presets.load(str(path)).evaluate.minimum_norm.steps == 20


def test_what_is_written_says_its_version_and_is_read_again(tmp_path):
    experiment = presets.load("quickstart")
    path = tmp_path / "config.yaml"
    path.write_text(presets.dumped(experiment))
    assert path.read_text().startswith(f"schema_version: {SCHEMA_VERSION}\n")
    assert presets.load(str(path)) == experiment
    assert presets.parse(presets.stored(experiment)) == experiment


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (SCHEMA_VERSION + 1, f"was written by a later version of hah-tui (schema_version {SCHEMA_VERSION + 1}"),
        ("two", "schema_version: must be a whole number above 0"),
        (0, "schema_version: must be a whole number above 0"),
        (True, "schema_version: must be a whole number above 0"),
    ],
)
def test_a_version_that_cannot_be_is_refused_with_its_place(tmp_path, version, said):
    path = tmp_path / "config.yaml"
    path.write_text(f"name: x\nschema_version: {str(version).lower()}\n")
    with pytest.raises(RequestError) as refused:
        presets.load(str(path))
    assert str(refused.value).startswith(f"{path}:2: {said}")


def test_a_renamed_and_a_removed_setting(later, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"schema_version: {SCHEMA_VERSION}\nname: x\ntrain:\n  speed: 0.25\n  patience: 3\n")
    experiment = presets.load(str(path))
    assert experiment.train.lr == 0.25
    assert present("train.speed", 0.5) == ("train.lr", 0.5)
    assert present("train.patience", 5) is None
    assert present("train.epochs", 5) == ("train.epochs", 5)


def test_what_was_changed_under_the_new_name_holds(later):
    document = nested("train.lr", 0.5).over(Document({"train": {"speed": 0.25, "epochs": 3}}))
    assert flatten(migrated(document).values) == {"train.epochs": 3, "train.lr": 0.5}


def test_a_mistake_in_a_renamed_setting_is_told_where_it_was_written(later, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("name: x\ntrain:\n  speed: fast\n")
    with pytest.raises(RequestError, match=r"config.yaml:3: train.lr: must be a number"):
        presets.load(str(path))


def test_migrating_changes_nothing_of_what_it_is_given():
    values = {"evaluate": {"minimum_norm": {"targets": 3, "steps": 2}}}
    assert flatten(migrated(Document(values)).values) == {"evaluate.minimum_norm.steps": 2}
    assert values == {"evaluate": {"minimum_norm": {"targets": 3, "steps": 2}}}


def test_a_setting_may_be_given_under_its_old_name(later):
    experiment = presets.load("quickstart", ["train.speed=0.25"])
    assert experiment.train.lr == 0.25
    assert presets.check("train.speed", 0.5, experiment).train.lr == 0.5
    assert presets.change("train.speed", 0.5, experiment).train.lr == 0.5


def test_what_is_up_to_date_is_left_as_it_is(later):
    for preset in presets.listed():
        document = presets.assembled(preset)
        assert migrated(migrated(document)).values == migrated(document).values == document.values
