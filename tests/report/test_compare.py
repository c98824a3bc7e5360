"""`hah compare`: quantities, blocks, settings that differ."""

import json

import pytest

from engine.experiment import RequestError
from engine.experiment.datasets import CORRUPTION_GROUPS
from engine.report import compare
from tests.report.conftest import corruptions, everything, masking, minimum_norm, write


def test_compare(made):
    one = made("paper-hah", results=everything())
    other = made("paper-standard", results=everything(hah=False), seed=7)
    found = compare.compare([one, other])
    quantities = {quantity.title: quantity for quantity in found.quantities}
    assert [n.mean for n in quantities["noise 0.1"].numbers] == pytest.approx([0.62, 0.32])
    assert quantities["noise 0.1"].best == {0}
    assert quantities["clean"].best == {0, 1}  # the same
    assert [n.mean for n in quantities["corruptions, severity 5"].numbers] == pytest.approx([0.675, 0.375])
    assert quantities["mean minimum norm Linf"].best == {0}
    assert [n.mean for n in quantities["weather corruptions, severity 1-5"].numbers] == pytest.approx([0.755, 0.455])
    assert "other corruptions, severity 1-5" not in quantities  # none of them was measured
    errors = quantities["mCE relative to the first"]
    assert [n.mean for n in errors.numbers] == pytest.approx([1, sum((60 - n) / (30 - n) for n in range(16)) / 16])
    assert errors.best == {0}
    assert [n.mean for n in found.blocks["hoyer"][3]] == pytest.approx([0.23, 0.73])
    assert [n.mean for n in found.blocks["snr_db"][13]] == pytest.approx([19.6, 11.6])
    assert found.differences == {
        "seed": [2022, 7],
        "model.hah_blocks": [6, 0],
        "model.batch_norm_momentum": [0.19, 0.1],
        "hah.alpha": [[4.5e-3, 2.5e-3, 1.3e-3, 1e-3, 8e-4, 5e-4], [0.0]],
    }
    document = json.loads(json.dumps(compare.document(found)))
    assert [run["id"] for run in document["runs"]] == [one.id, other.id]
    assert document["blocks"]["hoyer"]["3"][1]["value"] == pytest.approx(0.73)


@pytest.mark.parametrize("group", CORRUPTION_GROUPS)
def test_a_group_has_a_mean_where_only_it_was_measured(made, group):
    at_5 = {name: 0.1 * n for n, name in enumerate(CORRUPTION_GROUPS[group])}
    one, other = (made("paper-hah", results={"corruptions": corruptions(at_5, step=0.02)}) for _ in range(2))
    found = {quantity.title: quantity for quantity in compare.compare([one, other]).quantities}
    means = [title for title in found if title.endswith("corruptions, severity 1-5")]
    assert means == [f"{group} corruptions, severity 1-5"]
    expected = sum(at_5.values()) / len(at_5) + 0.04
    assert [(n.mean, n.labels) for n in found[means[0]].numbers] == [(pytest.approx(expected), ())] * 2
    assert "corruptions, severity 1-5" not in found


def test_compare_says_how_many_images_a_mean_norm_is_of(made):
    results = [{"minimum_norm": minimum_norm({"l2": 0.2}, success)} for success in (0.9, 1.0, 0.9996, 0.12345)]
    found = compare.compare([made("paper-hah", results=one) for one in results])
    [quantity] = [one for one in found.quantities if one.title == "mean minimum norm L2"]
    assert [number.labels for number in quantity.numbers] == [
        ("found for 90% of images",), (), ("found for 99.9% of images",), ("found for 12.3% of images",)
    ]  # fmt: skip


def test_compare_shows_masking_in_each_norm(made):
    one, other = made("paper-hah", results={"masking": masking("suspect")}), made("paper-hah")
    write(other, "masking", masking(norm="l2", eps=0.5), settings={"steps": 5})
    document = compare.document(compare.compare([one, other]))
    assert document["masking"] == {
        "linf": [{"eps": 2 / 255, "verdict": "suspect", "labels": []}, None],
        "l2": [None, {"eps": 0.5, "verdict": "clear", "labels": ["5 steps"]}],
    }


def test_compare_of_runs_without_anything(made):
    found = compare.compare([made("paper-hah"), made("paper-hah"), made("quickstart")])
    assert found.quantities == ()
    assert found.blocks == {}
    assert found.differences["data.dataset"] == ["cifar10", "cifar10", "digits"]


def test_a_run_is_not_compared_with_itself(made):
    run = made("paper-hah")
    with pytest.raises(RequestError, match="at least two different runs"):
        compare.compare([run, run])


def test_three_runs_differ_where_any_two_do(made):
    found = compare.compare([made("paper-hah"), made("paper-hah"), made("paper-hah", sets=["hah.lambda=0.5"])])
    assert found.differences == {"hah.lambda": [0.1, 0.1, 0.5]}


def test_compare_says_which_settings_changed_while_a_run_trained(made):
    one, other = made("paper-hah", changed={"train.lr": 1e-3, "observe.every": 2}), made("paper-hah")
    found = compare.compare([one, other])
    assert found.differences == {"observe.every": [2, 1]}
    assert found.remarks == [f"{one.id}: train.lr changed while it trained"]
