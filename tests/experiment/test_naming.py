"""What tells experiments apart, in a few words."""

import pytest

from engine.experiment import naming, presets
from engine.experiment.fingerprint import settings


def of(*sets, preset="study-lambda-1"):
    """The settings of a preset with something changed, once for each of ``sets``."""
    return [settings(presets.load(preset, [*changes]).dump()) for changes in sets]


def test_what_differs_names_experiments():
    many = of(
        [], ["hah.lambda=0.1"], ["model.threshold.kind=none"], ["model.divisive_norm.enabled=false"],
        ["hah.alpha=[0.009,0.005,0.0026,0.002,0.0016,0.001]"], ["hah.alpha=0"], ["train.lr=0.01"],
    )  # fmt: skip
    called = ["quickstart"] * len(many)
    assert naming.names(many, called, "abcdefg") == [
        "quickstart", "lambda=0.1", "no threshold", "no divisive norm", "alpha x2", "alpha=0.0", "lr=0.01",
    ]  # fmt: skip


def test_of_two_both_speak_and_of_three_the_exceptions():
    one, other, third = of(["hah.lambda=1"], ["hah.lambda=0.1"], ["train.lr=0.01"])
    assert naming.names([one, other], ["q", "q"], "ab") == ["lambda=1.0", "lambda=0.1"]
    assert naming.names([one, one | {"train.lr": 0.5}, third], ["q"] * 3, "abc") == ["lr=0.001", "lr=0.5", "lr=0.01"]
    assert naming.names([other, third, third | {"hah.top_k": 0.2}], ["q"] * 3, "abc") == [
        "lambda=0.1 lr=0.001",
        "q",
        "top_k=0.2",
    ]


def test_what_cannot_act_says_nothing():
    standard, few = of(*(["hah.alpha=0.004", f"model.hah_blocks={count}"] for count in (0, 2)), preset="paper-hah")
    assert naming.what_differs([standard, few]) == [["hah_blocks=0"], ["hah_blocks=2"]]
    silent = of(["hah.lambda=0", "hah.top_k=0.3"], ["hah.lambda=0"])
    assert naming.what_differs(silent) == [[], []]
    keep = of(["model.threshold.kind=none", "model.threshold.keep=0.3"], ["model.threshold.kind=none"])
    assert naming.what_differs(keep) == [[], []]
    blocks = of(["model.hah_blocks=2", "hah.alpha=[0.0045,0.0025]"], [])
    assert naming.what_differs(blocks) == [["hah_blocks=2"], ["hah_blocks=6"]]


def test_where_much_differs_people_s_names_do_it():
    far = of([], ["train.lr=0.01", "hah.lambda=0.1", "train.batch_size=64"], ["train.epochs=7"])
    assert naming.names(far, ["study-a", "study-b", "study-c"], "xyz") == ["a", "b", "c"]
    assert naming.names(far, ["", "", ""], "xyz") == [
        "base",
        "lambda=0.1 batch_size=64 lr=0.01",
        "epochs=7",
    ]


def test_equal_experiments_have_their_ids():
    same = of([], [])
    assert naming.names(same, ["q", "q"], ["q-1", "q-2"]) == ["q-1", "q-2"]


@pytest.mark.parametrize(
    ("called", "short"),
    [
        (["study-lambda-1", "study-lambda-0.1"], ["lambda-1", "lambda-0.1"]),
        (["a", "a-b"], ["a", "a-b"]),
        (["one"], ["one"]),
        (["x-1", "y-1"], ["x-1", "y-1"]),
    ],
)
def test_names_lose_what_all_begin_with(called, short):
    assert naming.trimmed(called) == short
