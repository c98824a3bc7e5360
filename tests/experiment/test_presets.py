"""Presets: found, merged, validated, dumped."""

import subprocess
import sys

import pytest
import yaml

from engine.experiment import Experiment, RequestError, presets

STUDY = {  # case of the study: the preset whose recipe it is, and what is changed beside the width
    "standard": ("paper-standard", []),
    "lambda-1": ("paper-hah-lambda-1", []),
    "lambda-0.1": ("paper-hah", []),
    "alpha-3": ("paper-hah-lambda-1", ["hah.alpha=[1.35e-2,7.5e-3,3.9e-3,3.0e-3,2.4e-3,1.5e-3]"]),
    "no-hah-loss": ("no-hah-loss", []),
    "batch-norm": ("batch-norm", ["hah.lambda=1.0"]),
    "no-threshold": ("no-threshold", ["hah.lambda=1.0"]),
}
SHIPPED = [
    "quickstart",
    "cifar10-smoke",
    "paper-hah",
    "paper-hah-lambda-1",
    "batch-norm-lambda-1",
    "no-threshold-lambda-1",
    "paper-standard",
    "paper-adversarial",
    "paper-hah-equations",
    "no-hah-loss",
    "batch-norm",
    "no-threshold",
    *(f"blocks-{n}" for n in range(7)),
    *(f"study-{case}" for case in STUDY),
]


def test_every_shipped_preset_is_there_and_good():
    assert sorted(SHIPPED) == sorted(preset.name for preset in presets.listed())
    for name in SHIPPED:
        experiment = presets.load(name)
        assert experiment.name == name
        assert experiment.description
        assert experiment.tags


def test_the_papers_hyperparameters():
    """Section 3 of the paper; the schema's defaults are the same."""
    paper = presets.load("paper-hah")
    assert paper.alphas == [4.5e-3, 2.5e-3, 1.3e-3, 1e-3, 8e-4, 5e-4]
    assert paper.sigmas == [0.1] * 6
    assert (paper.hah.lambda_, paper.hah.top_k, paper.model.threshold.keep) == (0.1, 0.1, 0.2)
    train = paper.train
    assert (train.epochs, train.batch_size, train.lr, train.milestones, train.gamma) == (100, 128, 1e-3, [60, 80], 0.1)
    assert (paper.seed, paper.model.hah_blocks, paper.hah.gradient, paper.model.divisive_norm.pool) == (
        2022,
        6,
        "local",
        3,
    )
    ours = paper.dump() | {"name": "x", "description": "", "tags": []}
    ours["model"]["batch_norm_momentum"] = 0.1
    assert presets.parse(ours) == Experiment(name="x")


@pytest.mark.parametrize("case", STUDY)
def test_the_study_is_the_papers_recipe_at_a_quarter_of_the_width(case):
    base, changes = STUDY[case]
    wanted = presets.load(base, ["model.width=0.25", "observe.every=5", *changes]).dump()
    found = presets.load(f"study-{case}").dump()
    assert found.pop("tags") == ["study"]
    assert [found[name] == wanted[name] for name in found] == [name not in ("name", "description") for name in found]
    assert (found["train"]["epochs"], found["train"]["milestones"], found["seed"]) == (100, [60, 80], 2022)
    three = [3 * alpha for alpha in presets.load("study-lambda-1").alphas]
    assert presets.load("study-alpha-3").alphas == pytest.approx(three)


def test_figure_6_varies_only_the_number_of_hah_blocks():
    six = presets.load("blocks-6")
    for n in range(1, 7):
        experiment = presets.load(f"blocks-{n}")
        assert experiment.model.hah_blocks == n
        assert experiment.alphas == six.alphas[:n]
        assert experiment.train == six.train
    assert presets.load("blocks-0").model.hah_blocks == 0


def test_equations_preset_differs_where_the_authors_code_does():
    printed = presets.load("paper-hah-equations")
    assert (printed.hah.gradient, printed.model.divisive_norm.pool) == ("full", 1)


def test_adversarial_baseline_is_linf_8_over_255():
    attack = presets.load("paper-adversarial").train.adversarial
    assert (attack.norm, attack.eps, attack.step_size) == ("linf", 8 / 255, 2 / 255)
    assert (attack.steps, attack.network) == (7, "train")  # of the repository that made the tables
    assert presets.load("paper-adversarial").model.hah_blocks == 0


def test_a_resolved_config_reads_back_as_itself(tmp_path):
    for name in SHIPPED:
        experiment = presets.load(name, ["train.lr=1e-5", "compute.threads=3"])
        path = tmp_path / f"{name}.yaml"
        path.write_text(presets.dumped(experiment))
        assert presets.load(str(path)) == experiment
        assert yaml.safe_load(path.read_text())["train"]["lr"] in (1e-5, "1e-05", "1.0e-05")


def test_set_values_are_yaml_and_the_last_wins():
    experiment = presets.load(
        "paper-hah",
        [
            "train.lr=1e-3",
            "train.lr=5e-4",
            "hah.alpha=0.1",
            "data.train_limit=null",
            "train.compile=true",
            "train.adversarial={norm: l2, eps: 128/255}",
            "tags=[a, b]",
            "description='one: two'",
        ],
    )
    assert experiment.train.lr == 5e-4
    assert experiment.alphas == [0.1] * 6
    assert experiment.train.compile is True
    assert experiment.train.adversarial.eps == 128 / 255
    assert experiment.tags == ["a", "b"]
    assert experiment.description == "one: two"


def test_extends_by_name_and_by_relative_path(tmp_path):
    (tmp_path / "base.yaml").write_text("extends: paper-hah\nhah: {lambda: 0.3}\ndescription: base\ntags: [x]\n")
    inner = tmp_path / "deep"
    inner.mkdir()
    (inner / "mine.yaml").write_text("extends: ../base.yaml\nmodel: {threshold: {keep: 0.4}}\n")
    mine = presets.load(str(inner / "mine.yaml"))
    assert (mine.name, mine.hah.lambda_, mine.model.threshold.keep, mine.model.threshold.kind) == (
        "mine",
        0.3,
        0.4,
        "fraction",
    )
    assert (mine.description, mine.tags) == ("", [])  # what a base says of itself is not inherited


def test_a_preset_of_ones_own_shadows_and_may_extend_the_shipped_one(own_presets):
    (own_presets / "paper-hah.yaml").write_text("extends: paper-hah\nhah: {lambda: 1.0}\n")
    found = presets.find("paper-hah")
    assert not found.shipped
    assert found.shadows is not None
    mine = presets.load("paper-hah")
    assert mine.hah.lambda_ == 1.0
    assert mine.hah.top_k == 0.1
    assert presets.load("blocks-6").hah.lambda_ == 1.0  # a name means the same wherever it is written


def test_a_file_name_that_is_no_name_becomes_one(tmp_path):
    path = tmp_path / "my first experiment!.yaml"
    path.write_text("train: {epochs: 80}\n")
    assert presets.load(str(path)).name == "my-first-experiment-"


def test_presets_are_found_from_any_folder(tmp_path):
    code = "from engine.experiment import presets; print(presets.load('blocks-3').name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "blocks-3\n"


def test_writing_a_preset_of_ones_own(own_presets):
    path = presets.write_own("strong", "paper-hah", ["hah.lambda=0.5", "hah.top_k=0.2"])
    assert path.parent == own_presets
    written = yaml.safe_load(path.read_text())
    assert {name: written[name] for name in ("extends", "hah")} == {
        "extends": "paper-hah", "hah": {"lambda": 0.5, "top_k": 0.2},
    }  # fmt: skip
    assert presets.load("strong").hah.lambda_ == 0.5
    with pytest.raises(RequestError, match="exists"):
        presets.write_own("strong", "paper-hah", [])
    with pytest.raises(RequestError, match="must be a number"):
        presets.write_own("weak", "paper-hah", ["hah.lambda=-1"])
    with pytest.raises(RequestError, match="cannot name a preset"):
        presets.write_own("../x", "paper-hah", [])
    assert [p.name for p in own_presets.iterdir()] == ["strong.yaml"]


def test_own_folder_that_cannot_be_written_is_said(own_presets, monkeypatch):
    own_presets.rmdir()
    own_presets.write_text("a file in the way")
    with pytest.raises(RequestError, match="cannot be written"):
        presets.write_own("x", "paper-hah", [])


def test_check_changes_one_setting_and_says_what_is_wrong():
    paper = presets.load("paper-hah")
    assert presets.check("hah.lambda", 0.7, paper).hah.lambda_ == 0.7
    for name, value, words in [
        ("hah.lambda", -1, "hah.lambda: must be a number from 0 to 1000000, got -1"),
        ("hah.lamda", 1, "did you mean hah.lambda?"),
        ("train.epochs", 0, "train.epochs: must be a whole number from 1 to 1000000, got 0"),
        ("train.adversarial.eps", 0, "above 0"),
    ]:
        with pytest.raises(RequestError, match=words.replace("?", r"\?")):
            presets.check(name, value, paper)


def test_ones_own_preset_keeps_what_the_other_says_and_hides_no_shipped_one(own_presets):
    path = presets.write_own("mine", "paper-hah", ["hah.lambda=0.3"])
    ours, theirs = presets.load("mine"), presets.load("paper-hah")
    assert path.parent == own_presets
    assert (ours.description, ours.tags, ours.hah.lambda_) == (theirs.description, theirs.tags, 0.3)
    with pytest.raises(RequestError, match="paper-hah is a shipped preset, which this would hide"):
        presets.write_own("paper-hah", "paper-hah", [])
    assert [path.name for path in own_presets.iterdir()] == ["mine.yaml"]
