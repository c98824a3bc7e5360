"""Reading the results of a run: everything of good files, nothing of bad ones, and a word about those."""

import json
import os
from dataclasses import replace

import pytest

from engine.experiment import presets
from engine.experiment.fingerprint import fingerprint
from engine.report import networks
from engine.results import measured as results
from engine.results.measured import measured
from engine.results.numbers import CLEAN, FROM_TRAINING, attack_name, noise_name
from engine.runs.state import read_state
from tests.report.conftest import (
    attacks,
    corruptions,
    envelope,
    everything,
    masking,
    minimum_norm,
    noise,
    sparsity,
    write,
)

LINF = attack_name("linf", 2 / 255)


def test_every_suite_is_read(made):
    run = made("paper-hah", results=everything())
    found = measured(run)
    value = {name: number.value for name, number in found.numbers.items()}
    assert value[CLEAN] == 0.87
    assert value[noise_name(0.1)] == 0.87 - 2.5 * 0.1
    assert value[noise_name(0.1, "snr_db/3")] == 30 - 3 * 0.8
    assert value["eval/sparsity/13/hoyer"] == 0.7 + 0.01 * 13
    assert value["eval/sparsity/1/active_fraction"] == pytest.approx(0.105)
    assert value["eval/corruptions/fog/5"] == pytest.approx(0.65)
    assert value["eval/corruptions/fog/1"] == pytest.approx(0.85)
    assert value["eval/attacks/linf-0.00784/robust_accuracy"] == pytest.approx(0.2)
    assert value["eval/attacks/l2-0.25/robust_accuracy"] == 0.3
    assert value["eval/minimum_norm/linf/mean"] == 0.006
    assert value["eval/minimum_norm/linf/success_rate"] == 1
    assert value["eval/minimum_norm/linf/misclassified"] == 0.1  # 1,000 of 10,000
    assert len(found.numbers["eval/minimum_norm/l2/success_rate"].curve) == 51
    assert found.masking.verdict == "clear"
    assert not any(number.labels for number in found.numbers.values())
    assert found.remarks == ()


def test_what_a_reader_has_to_know_is_said(made):
    run = made("paper-hah")
    write(run, "noise", noise({0.1: 0.6}), images=1000)
    write(run, "attacks", attacks(("linf", 2 / 255, 0.3), methods=("pgd",)), settings={"steps": 10})
    write(run, "corruptions", corruptions({"fog": 0.5}, source="generated+official"))
    write(run, "minimum_norm", minimum_norm({"l2": 0.2}), settings={"steps": 100})
    write(run, "masking", masking(), settings={"steps": 5, "queries": 5}, checkpoint={"name": "best", "epoch": 90})
    found = measured(run)
    assert found.numbers[noise_name(0.1)].labels == ("first 1,000 images",)
    assert found.numbers[LINF].labels == ("pgd only", "10 steps")
    assert found.numbers["eval/corruptions/fog/5"].labels == ("generated",)
    assert found.numbers["eval/minimum_norm/l2/mean"].labels == ("100 steps",)
    assert found.masking.labels == ("checkpoint best", "epoch 90 of 100", "5 steps", "5 queries")
    assert found.masking.title == "Linf 2/255"


def test_corruptions_are_labelled_one_by_one_where_the_result_says(made):
    at_5, sources = dict.fromkeys(("fog", "snow", "contrast"), 0.5), {"fog": "official", "snow": "generated"}
    run = made("paper-hah")
    write(run, "corruptions", corruptions(at_5, source="generated+official", sources=sources))
    found = measured(run).numbers
    labels = {name: found[f"eval/corruptions/{name}/5"].labels for name in at_5}
    assert labels == {"fog": (), "snow": ("generated",), "contrast": ("generated",)}  # contrast: as the whole


def test_an_official_corruption_of_a_mixed_result_comes_before_a_generated_one(made):
    run, sources = made("paper-hah"), {"fog": "official", "snow": "generated"}
    mixed = corruptions({"fog": 0.5, "snow": 0.5}, source="generated+official", sources=sources)
    write(run, "corruptions", mixed, number=1, written=100)
    write(run, "corruptions", corruptions({"fog": 0.6, "snow": 0.6}, source="generated"), number=2, written=200)
    found = measured(run).numbers
    assert [found[f"eval/corruptions/{name}/5"].value for name in ("fog", "snow")] == [0.5, 0.6]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {"steps": 299, "trials": 6}}, ("299 steps",)),
        ({"settings": {"steps": 300, "trials": 0}}, ("no local search",)),
        ({"settings": {"steps": 300, "targets": 0}}, ("no local search",)),
        ({"settings": {"steps": 300, "targets": 3}, "method": None}, ("older FMN",)),
        ({"settings": {"steps": 100, "targets": 0}, "method": 1}, ("older FMN", "100 steps", "no local search")),
        ({"settings": {"steps": 300}, "method": True}, ("older FMN",)),
        ({"settings": {"steps": 300, "trials": 1}, "method": 3}, ()),
    ],
)
def test_weak_searches_for_minimum_norms_say_so(made, changes, said):
    run = made("paper-hah")
    write(run, "minimum_norm", minimum_norm({"l2": 0.2}), **changes)
    assert measured(run).numbers["eval/minimum_norm/l2/mean"].labels == said


def test_an_older_search_counts_less_than_a_weak_one(made):
    run = made("paper-hah")
    strong, weak = {"steps": 300, "trials": 6}, {"steps": 3, "trials": 0}
    for number, (mean, options) in enumerate([
        (0.4, {"settings": {"steps": 300, "targets": 3}, "method": 1}), (0.3, {"settings": weak, "images": 10}),
    ]):  # fmt: skip
        write(run, "minimum_norm", minimum_norm({"l2": mean}, misclassified=1), number, written=300 - number, **options)
    assert measured(run).numbers["eval/minimum_norm/l2/mean"].value == 0.3
    write(run, "minimum_norm", minimum_norm({"l2": 0.2}), 2, settings=strong, written=100)
    found = measured(run).numbers
    assert found["eval/minimum_norm/l2/mean"].value == 0.2
    assert found["eval/minimum_norm/l2/success_rate"].curve[-1][0] == 0.4  # of the same result


def verdicts(**stands):
    """Results of the suite attacks in Linf at these sizes: verdicts(e1="110") is at .1."""
    of = [{"norm": "linf", "eps": int(name[1:]) / 10, "robust_accuracy": one.count("1") / len(one), "stands": one,
           "methods": [{"name": "apgd-ce", "accuracy": 0.5}, {"name": "apgd-t", "accuracy": 0.5}]}
          for name, one in stands.items()]  # fmt: skip
    return {"attacks": of}


def test_the_worst_case_is_the_union_of_all_results_of_a_checkpoint(made):
    run = made("paper-hah")
    write(run, "attacks", verdicts(e2="110000", e1="111110"), number=1, images=6)
    found = measured(run).numbers
    assert not any("worst_case" in name for name in found)  # one result is no union
    autoattack = verdicts(e2="101000")
    autoattack["attacks"][0]["methods"] = [{"name": "autoattack", "accuracy": 0.3}]
    write(run, "attacks", autoattack, number=2, images=6, settings={"restarts": 3})
    norms = minimum_norm({"linf": 0.1}, misclassified=1)
    norms["norms"]["linf"]["values"] = [None, 0.3, 0.15, 0.2, 0.05, 0.0]
    write(run, "minimum_norm", norms, images=6, settings={"steps": 10})
    # Of other images, of another checkpoint, of another network, and without a verdict of each image: no part of it.
    write(run, "attacks", verdicts(e2="0000000"), number=3, images=7)
    write(run, "attacks", verdicts(e2="000000"), number=4, images=6, checkpoint={"name": "best", "epoch": 90})
    write(run, "attacks", verdicts(e2="000000"), number=5, images=6, checkpoint={"name": "best", "epoch": 90})
    write(run, "attacks", verdicts(e2="000000"), number=6, images=6, weights="another")
    write(run, "attacks", verdicts(e2="000000"), number=7, images=6, dataset="another")
    write(run, "attacks", verdicts(e2="00000"), number=8, images=6)
    found = measured(run).numbers
    worst = {eps: found[attack_name("linf", eps, "worst_case")] for eps in (0.1, 0.2)}
    assert {eps: one.value for eps, one in worst.items()} == {0.1: 4 / 6, 0.2: 1 / 6}
    assert worst[0.1].labels == (
        "first 6 images",
        "apgd-ce + apgd-t + autoattack (3 restarts) + minimum norm (10 steps)",
    )


def test_of_sizes_with_one_name_the_worst_case_is_of_the_largest(made):
    run = made("paper-hah")
    for number, eps in enumerate((0.007842, 2 / 255, 0.007838)):
        content = verdicts(e1="1000" if eps == 2 / 255 else "1110")
        content["attacks"][0]["eps"] = eps
        write(run, "attacks", content, number=number, images=4)
    assert measured(run).numbers[attack_name("linf", 2 / 255, "worst_case")].value == 1 / 4


@pytest.mark.parametrize(
    ("methods", "settings", "said"),
    [
        (("apgd-ce", "apgd-t"), {"steps": 100, "restarts": 1}, ()),
        (("apgd-ce", "apgd-t"), {"steps": 200, "restarts": 5}, ("200 steps", "5 restarts")),
        (("autoattack",), {"steps": 10, "restarts": 1}, ("autoattack",)),
        (("pgd", "apgd-ce", "apgd-t"), {}, ("pgd + apgd-ce + apgd-t",)),
        (("apgd-ce", "apgd-t"), {"steps": 50, "restarts": 2}, ("50 steps", "2 restarts")),
        (("pgd",), {"steps": 1000, "restarts": 20}, ("pgd only", "1000 steps", "20 restarts")),
    ],
)
def test_attacks_that_are_not_the_papers_say_what_they_are(made, methods, settings, said):
    run = made("paper-hah")
    write(run, "attacks", attacks(("linf", 2 / 255, 0.3), methods=methods), settings=settings, method=3, written=200)
    assert measured(run).numbers[LINF].labels == said
    write(run, "attacks", attacks(("linf", 2 / 255, 0.4)), number=1, settings={"steps": 100}, written=100)
    assert measured(run).numbers[LINF].value == (0.3 if not said else 0.4)  # the paper's first, the later one else


def test_many_steps_were_one_round_before(made):
    run = made("paper-hah")
    write(run, "attacks", attacks(("linf", 2 / 255, 0.3)), settings={"steps": 200}, method=2)
    assert measured(run).numbers[LINF].labels == ("200 steps", "in one round")


def test_a_stronger_attack_on_all_images_comes_before_the_papers_on_some(made):
    run = made("paper-hah")
    write(run, "attacks", attacks(("linf", 2 / 255, 0.1), methods=("autoattack",)), number=1, written=100)
    write(run, "attacks", attacks(("linf", 2 / 255, 0.8)), number=2, images=24, written=200)
    assert measured(run).numbers[LINF].labels == ("autoattack",)
    write(run, "attacks", attacks(("linf", 2 / 255, 0.2)), number=3, written=50)
    assert measured(run).numbers[LINF].labels == ()
    write(run, "attacks", attacks(("linf", 2 / 255, 0.9), methods=("pgd",)), number=4, written=300)
    assert measured(run).numbers[LINF].value == 0.2


def test_masking_is_kept_by_norm_and_the_property_is_linf(made):
    run = made("paper-hah")
    write(run, "masking", masking(norm="l2", eps=0.25), number=1)
    assert measured(run).masking.title == "L2 0.25"
    write(run, "masking", masking("suspect"), number=2)
    found = measured(run)
    assert [(one.title, one.verdict) for one in found.maskings.values()] == [
        ("Linf 2/255", "suspect"), ("L2 0.25", "clear")
    ]  # fmt: skip
    assert found.masking is found.maskings["linf"]


@pytest.mark.parametrize(
    ("content", "clean", "verdict"),
    [
        (masking(transfer="clear"), 0.87, "clear"),
        (masking(transfer="not run"), 0.87, "incomplete"),  # as older results are
        (masking("suspect", transfer="not run"), 0.87, "suspect"),
        ({**masking(), "verdict": "incomplete"}, 0.87, "incomplete"),
        (masking(), 0.0, "incomplete"),  # nothing was there to attack
    ],
)
def test_a_verdict_that_checks_are_missing_from_is_incomplete(made, content, clean, verdict):
    run = made("paper-hah")
    write(run, "masking", content, clean_accuracy=clean)
    assert measured(run).masking.verdict == verdict


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ((masking(), {"settings": {"steps": 5}}), (masking("suspect"), {"images": 100})),
        ((masking(), {"settings": {"queries": 999}}), (masking("suspect"), {"images": 100})),
        ((masking(eps=8 / 255), {}), (masking("suspect"), {"images": 100})),
        ((masking(transfer="not run"), {}), (masking("suspect", transfer="clear"), {"images": 100})),
        ((masking(), {"images": 100}), (masking("suspect"), {"settings": {"steps": 100, "queries": 1000}})),
    ],
)
def test_which_masking_counts(made, worse, better):
    run = made("paper-hah")
    for written, (content, options) in zip((200, 100), (worse, better), strict=True):
        write(run, "masking", content, number=written, written=written, **options)
    assert measured(run).masking.verdict == "suspect"


def test_the_spread_over_draws_and_the_density_over_locations_are_read(made):
    run = made("paper-hah")
    write(run, "noise", noise({0.1: 0.6}, spread=0.004))
    write(run, "sparsity", sparsity([0.2], histogram=[3, 1, 0, 0]))
    found = measured(run).numbers
    assert found[noise_name(0.1)].draws == 0.004
    # Three of four in the first quarter: 3/4 over a width of 1/4.
    assert found["eval/sparsity/1/hoyer"].curve == ((0.0, 3.0), (0.25, 1.0), (0.5, 0.0), (0.75, 0.0), (1.0, 0.0))


def test_one_draw_has_no_spread_and_an_empty_histogram_no_density(made):
    run, content = made("paper-hah"), noise({0.1: 0.6})
    content["levels"][0]["accuracy"] = [0.6]
    write(run, "noise", content)
    write(run, "sparsity", sparsity([0.2], histogram=[0, 0]))
    found = measured(run)
    assert found.numbers[noise_name(0.1)].draws is None
    assert found.numbers["eval/sparsity/1/hoyer"].curve == ()
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"images": 1000, "written": 200}, {"written": 100}),
        ({"checkpoint": {"name": "best", "epoch": 100, "step": 1}, "written": 200}, {"images": 1000, "written": 100}),
        ({"checkpoint": {"name": "last", "epoch": 50, "step": 1}, "written": 200}, {"images": 1000, "written": 100}),
        ({"written": 100}, {"written": 200}),
        ({"methods": ("pgd",), "written": 200}, {"images": 1000, "written": 100}),
        ({"settings": {"steps": 10}, "written": 200}, {"images": 1000, "written": 100}),
    ],
)
def test_which_evaluation_counts(made, worse, better):
    for order in (0, 1):
        run = made("paper-hah")
        for number, (robust, options) in enumerate(((0.5, dict(worse)), (0.2, dict(better)))):
            document = attacks(("linf", 2 / 255, robust), methods=options.pop("methods", ("apgd-ce", "apgd-t")))
            write(run, "attacks", document, number=number ^ order, **options)
        assert measured(run).numbers[LINF].value == 0.2


def test_official_corruptions_come_before_generated(made):
    run = made("paper-hah")
    write(run, "corruptions", corruptions({"fog": 0.5}), number=1, written=100)
    write(run, "corruptions", corruptions({"fog": 0.6}, source="generated"), number=2, written=200)
    assert measured(run).numbers["eval/corruptions/fog/5"].value == 0.5


def test_evaluations_of_different_sizes_complete_each_other(made):
    run = made("paper-hah")
    write(run, "attacks", attacks(("linf", 2 / 255, 0.2)), number=1)
    write(run, "attacks", attacks(("l2", 0.25, 0.3), ("linf", 8 / 255, 0.01)), number=2)
    found = measured(run).numbers
    assert [found[n].value for n in (LINF, attack_name("l2", 0.25), attack_name("linf", 8 / 255))] == [0.2, 0.3, 0.01]


def test_clean_accuracy_is_the_one_over_the_most_images(made):
    run = made("paper-hah")
    write(run, "attacks", attacks(("linf", 2 / 255, 0.2)), images=100, clean_accuracy=0.5, written=200)
    write(run, "noise", noise({0.1: 0.6}), clean_accuracy=0.875, written=100)
    assert measured(run).numbers[CLEAN].value == 0.875


def test_eps_rounded_to_three_digits_is_the_same_eps():
    assert attack_name("linf", 0.00784) == LINF
    assert attack_name("linf", 0.0079) != LINF


def test_uniform_noise_is_not_gaussian(made):
    run = made("paper-hah", results={"noise": noise({0.1: 0.6}, distribution="uniform")})
    assert noise_name(0.1) not in measured(run).numbers


def test_training_stands_in_and_says_so(made):
    metrics = {
        "test/accuracy": 0.9, "test/noisy_accuracy": 0.5, "block/2/sparsity": 0.3, "block/2/snr_db": 12.0,
        "block/2/active_fraction": 0.2, "block/x/sparsity": 0.1, "block/3/other": 0.1, "train/loss": 1.0,
    }  # fmt: skip
    run = made("paper-hah")
    state = json.loads(run.state.read_text())
    run.state.write_text(json.dumps({**state, "metrics": metrics, "status": "stopped", "epoch": 20}))
    found = measured(run).numbers
    said = (FROM_TRAINING, "epoch 20 of 100")
    assert {name: (number.value, number.labels) for name, number in found.items()} == {
        CLEAN: (0.9, said),
        noise_name(0.1): (0.5, said),
        "eval/sparsity/2/hoyer": (0.3, (*said, "first 512 images")),
        "eval/sparsity/2/active_fraction": (0.2, (*said, "first 512 images")),
        noise_name(0.1, "snr_db/2"): (12.0, (*said, "first 512 images")),
    }
    write(run, "noise", noise({0.1: 0.6}), checkpoint={"name": "last", "epoch": 20, "step": 1})
    assert measured(run).numbers[noise_name(0.1)].value == 0.6
    assert measured(run).numbers["eval/sparsity/2/hoyer"].value == 0.3


def test_noise_of_training_has_its_own_standard_deviation(made):
    run = made("paper-hah", sets=["observe.noise_std=0.2"], metrics={"test/noisy_accuracy": 0.4})
    assert list(measured(run).numbers) == [noise_name(0.2)]


BAD = {
    "no JSON": "{",
    "a list": "[]",
    "an empty object": "{}",
    "deep": "[" * 100_000,
    "of another suite": json.dumps(envelope("sparsity", noise({0.1: 0.5}))),
    "no version": json.dumps({**envelope("noise", noise({0.1: 0.5})), "schema_version": "1"}),
    "a checkpoint of the wrong type": json.dumps(envelope("noise", noise({0.1: 0.5}), checkpoint="last")),
    "a checkpoint that is markup": json.dumps(
        envelope("noise", noise({0.1: 0.5}), checkpoint={"name": "[red]\x1b[31m", "epoch": 1})
    ),
    "accuracy above 1": json.dumps(envelope("noise", noise({0.1: 1.5}))),
    "accuracy that is text": json.dumps(envelope("noise", noise({0.1: "0.5"}))),
    "accuracy true": json.dumps(envelope("noise", noise({0.1: True}))),
    "accuracy NaN": json.dumps(envelope("noise", noise({0.1: float("nan")}))),
    "accuracy infinite": json.dumps(envelope("noise", noise({0.1: float("inf")}))),
    "an integer of a thousand digits": json.dumps(envelope("noise", noise({0.1: 10**1000}))),
    "clean accuracy missing": json.dumps(envelope("noise", noise({0.1: 0.5}), clean_accuracy=None)),
    "a result that is null": json.dumps(envelope("noise", None)),
    "levels of the wrong type": json.dumps(envelope("noise", {"distribution": "gaussian", "levels": {"0.1": 1}})),
    "a level that is a number": json.dumps(envelope("noise", {"distribution": "gaussian", "levels": [0.1]})),
    "no images": json.dumps(envelope("noise", noise({0.1: 0.5}), images=0)),
    "a block that is a path": json.dumps(envelope("noise", noise({0.1: 0.5}, {"../../x": 3.0}))),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_left_out_and_said(made, text):
    run = made("paper-hah", results={"sparsity": {"edges": [], "blocks": {"1": {"hoyer": 0.2}}}})
    (run.results / "noise-00000001.json").write_text(text)
    found = measured(run)
    assert noise_name(0.1) not in found.numbers
    assert found.numbers["eval/sparsity/1/hoyer"].value == 0.2
    [remark] = found.remarks
    assert remark.startswith(f"{run.id}: results/noise-00000001.json is no result and was left out: ")
    assert "\x1b" not in remark


@pytest.mark.parametrize(
    ("suite", "result"),
    [
        ("corruptions", corruptions({"fog\x1b[2J": 0.5})),
        ("corruptions", {"source": "official", "accuracy": {"fog": {"6": 0.5}}}),
        ("attacks", verdicts(e1="01" * 4999 + "0x")),
        ("corruptions", corruptions({"fog": 0.5}, source="invented")),
        ("attacks", attacks(("l7", 0.1, 0.5))),
        ("attacks", attacks(("l2", 0.1, 0.5), methods=("[bold]",))),
        ("attacks", {"attacks": "none"}),
        ("minimum_norm", minimum_norm({"l3": 0.1})),
        ("minimum_norm", {"norms": {"l2": {"success_rate": 1.0, "curve": [[0.1]]}}}),
        ("sparsity", {"blocks": {"0": {}}}),
        ("sparsity", {"blocks": {"1": 3}}),
        ("sparsity", {**sparsity([0.2]), "edges": [0.0, 1.0]}),
        ("sparsity", {**sparsity([0.2], histogram=[1, 1]), "edges": [0.0, 0.5, 0.5]}),
        ("sparsity", sparsity([0.2], histogram=[-1, 1])),
        ("corruptions", corruptions({"fog": 0.5}, sources={"fog": "invented"})),
        ("corruptions", corruptions({"fog": 0.5}, sources=["official"])),
        ("minimum_norm", minimum_norm({"l2": 0.1}, misclassified=10_001)),
        ("masking", masking(norm="l1")),
        ("masking", masking(norm=["linf"])),
        ("attacks", attacks((["linf"], 0.1, 0.5))),
        ("masking", masking(eps="2/255")),
        ("masking", masking("excellent")),
    ],
)
def test_wrong_contents_of_every_suite_are_left_out(made, suite, result):
    found = measured(made("paper-hah", results={suite: result}))
    assert not found.numbers
    assert found.masking is None
    assert len(found.remarks) == 1


def test_what_does_not_exist_is_null_and_left_out(made):
    norms = {"norms": {"l2": {"median": None, "mean": None, "success_rate": 0.0, "curve": [[0.0, 0.9]], "values": []}}}
    blocks = {"blocks": {"4": {"hoyer": None, "active_fraction": 0.0, "silent_fraction": 1.0}}}
    found = measured(made("paper-hah", results={"minimum_norm": norms, "sparsity": blocks}))
    assert found.remarks == ()
    assert "eval/minimum_norm/l2/mean" not in found.numbers
    assert "eval/sparsity/4/hoyer" not in found.numbers
    assert found.numbers["eval/sparsity/4/silent_fraction"].value == 1.0


def test_foreign_files_are_passed_over_and_links_are_not_followed(made, tmp_path):
    run = made("paper-hah")
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(envelope("noise", noise({0.1: 0.5}))))
    (run.results / "noise-00000001.json").symlink_to(outside)
    (run.results / "noise-00000002.json").mkdir()
    os.mkfifo(run.results / "noise-00000003.json")  # would block whoever opens it
    for name in ("noise-1.json", "noise-00000001.png", ".noise-00000001.pieces", "notes.txt", "x\x1b[2J-00000001.json"):
        (run.results / name).write_text(outside.read_text())
    found = measured(run)
    assert not found.numbers
    assert len(found.remarks) == 3


def test_a_results_folder_that_leads_elsewhere_is_not_read(made, tmp_path):
    run = made("paper-hah")
    other = made("paper-hah", results=everything())
    run.results.rmdir()
    run.results.symlink_to(other.results)
    found = measured(run)
    assert not found.numbers
    assert found.remarks
    run.results.unlink()
    assert measured(run).remarks == ()


def test_a_file_beyond_the_limit_is_not_read(made, monkeypatch):
    run = made("paper-hah", results={"noise": noise({0.1: 0.5})})
    monkeypatch.setattr(results, "LARGEST", 100)
    assert not measured(run).numbers
    assert "over" in measured(run).remarks[0]


def test_only_the_newest_of_very_many_files_are_read(made, monkeypatch):
    run = made("paper-hah")
    for number in range(5):
        write(run, "noise", noise({0.1: 0.1 * number}), number=number, written=100 + number)
    monkeypatch.setattr(results, "MOST_FILES", 2)
    found = measured(run)
    assert found.numbers[noise_name(0.1)].value == 0.4
    assert "newest 2 of 5" in found.remarks[0]


def test_real_sizes_are_read(made):
    values = [n / 10_000 for n in range(10_000)]
    content = minimum_norm({"l2": 0.5})
    content["norms"]["l2"]["values"] = values * 40  # beyond read_json's own limit
    content["norms"]["l2"]["curve"] = [[eps, 1 - eps] for eps in values]
    path = write(made("paper-hah"), "minimum_norm", content)
    assert path.stat().st_size > 2 << 20
    found = measured(results.RunDirectory(path.parents[1]))
    assert len(found.numbers["eval/minimum_norm/l2/success_rate"].curve) == 10_000


def test_a_run_without_a_readable_config_has_its_results(made):
    run = made("paper-hah", results={"noise": noise({0.1: 0.5})}, metrics={"test/accuracy": 0.9})
    run.config.write_text("model: {hah_blocks: 99}\n\x1b[31m")
    found = measured(run)
    assert found.numbers[noise_name(0.1)].value == 0.5
    assert found.experiment == {}
    assert "config.yaml cannot be read" in found.remarks[0]
    assert "\x1b" not in found.remarks[0]


def test_a_run_whose_settings_cannot_be_read_is_none_of_the_papers_whatever_its_snapshot_says(made):
    run = made("paper-adversarial")
    state = read_state(run)
    group = fingerprint(presets.load("paper-adversarial"), seed=False)
    replace(state, group=group).write(run)
    assert networks.presets_of(measured(run)) == ["paper-adversarial"]
    run.config.write_text("train: [")
    assert networks.presets_of(measured(run)) == []
    found, _, remarks = networks.find([run.path.parent])
    assert not found["paper-adversarial"].runs
    assert any("its config.yaml cannot be read" in remark for remark in remarks)
