"""Filters over runs, orders, and what a person may call a metric or a setting."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.experiment import RequestError
from engine.runs import store
from engine.runs.layout import RunDirectory
from engine.runs.metrics import METRICS
from engine.runs.state import State
from engine.runs.store import Labels
from engine.runs.watcher import Look
from hah_tui import attributes
from hah_tui.filters import Filter
from hah_tui.listing import ListedRun, read
from tests.report.conftest import noise, write
from tests.tui.made import config, made


def row(id="r", status="finished", preset="p", tags=(), note="", **state):
    run = RunDirectory(Path("/runs") / id)
    return ListedRun(
        Look(run, State(id=id, name=id, status=status, preset=preset, **state), status), Labels(tags, note)
    )


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True), ("status:fin", True), ("status:lost", False), ("status:lost status:finished", True),
        ("tag:fig", True), ("tag:other", False), ("preset:paper", True), ("preset:quick", False), ("RUN-", True),
        ("second try", True), ("second nothing", False), ("tag:fig status:finished preset:paper run", True),
        ("status:", True), ("x:y", False), ("-tag:old", True), ("-tag:fig", False), ("-second", False),
        ("-nothing -status:running", True), ("-", True), ("status:finished -preset:paper", False),
    ],
)  # fmt: skip
def test_words(text, fits):
    assert Filter.parse(text).fits(row("run-1", preset="paper-hah", tags=("fig6",), note="Second Try")) is fits


METRIC_VALUES = {"test/accuracy": 0.913, "train/loss": 0.25, "block/3/snr_db": -2.5}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("clean>0.9", True), ("clean>90%", True), ("clean>0.92", False), ("-clean>0.92", True), ("CLEAN>=0.913", True),
        ("accuracy<1", True), ("test/accuracy>90%", True), ("loss<=0.25", True), ("block/3/snr_db<-2", True),
        ("block/4/snr_db<9", False), ("-block/4/snr_db<9", True), ("noisy>0", False), ("noisy!=0.5", False),
        ("clean=91.3%", True), ("clean=91%", True), ("clean=92%", False), ("clean!=92%", True), ("clean=0.91", True),
        ("clean=0.910", False), ("epoch=3", True), ("epoch>3", False), ("age>1h", True), ("age<90min", False),
        ("age<3d", True), ("trained>1min", True), ("device=cpu", True), ("device!=cpu", False), ("progress>=50%", True),
    ],
)  # fmt: skip
def test_comparisons_of_what_a_snapshot_has(text, fits):
    one = row(
        metrics=METRIC_VALUES, epoch=3, epochs=6, device="cpu", created=time.time() - 2 * 3600, trained_seconds=70
    )
    assert Filter.parse(text).fits(one) is fits


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("hah.lambda=1", True), ("lambda=1.0", True), ("lambda=0.1", False), ("lambda<=1", True), ("lambda=0.6", False),
        ("hah_blocks=3", True), ("batch_norm_momentum>0.05", True), ("kind=fraction", True), ("kind!=none", True),
        ("divisive_norm.enabled=true", True), ("compile=true", False), ("milestones=8,10", True), ("sigma=0.1", True),
        ("milestones=8", False),
        ("alpha=0.045,0.025,0.013", True), ("train_limit=null", True), ("train_limit>5", False),
        ("adversarial=null", True), ("seed=7", True), ("seed>7", False), ("adversarial.eps=0.1", False),
        ("adversarial.eps!=0.1", False),
    ],
)  # fmt: skip
def test_comparisons_of_settings(runs, text, fits):
    run = made(runs)
    run.config.write_text(config(sets=["hah.lambda=1", "seed=7"]))
    narrowed = Filter.parse(text)
    assert narrowed.fits(read(store.look(run), attributes.wanted(narrowed.attributes))) is fits


def test_comparisons_of_results(runs):
    run = made(runs)
    write(run, "noise", noise({0.1: 0.72}))
    narrowed = Filter.parse("eval/noise/0.1/accuracy>70%")
    assert attributes.wanted(narrowed.attributes) == {"results"}
    assert narrowed.fits(read(store.look(run), {"results"}))
    assert not narrowed.fits(read(store.look(run), ()))
    assert not Filter.parse("eval/clean_accuracy>1%").fits(read(store.look(made(runs)), {"results"}))  # only tested


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clean>x", "clean>x: 'x' is not a number: write, for example, 0.9 or 90%"), ("clean>90", "write 90% or 0.9"),
        ("clean>", "a value must follow"), ("foo=1", "no metric or setting is called 'foo'"),
        ("lamda=1", "did you mean hah.lambda?"), ("noise_std=1", "train.noise_std or observe.noise_std; write which"),
        ("snr_db>1", "write block/3/snr_db"), ("test/x>1", "no metric is called 'test/x'"),
        ("status:nope", "No status begins with 'nope': queued"), ("kind<1", "= and != compare it"),
        ("kind=x", "model.threshold.kind is one of fraction, mean, none"), ("compile=2", "one of true, false"),
        ("train.lr=fast", "'fast' is not a number"), ("age<2x", "is not a time"), ("device>cpu", "is no number"),
        ("eval/nosie/1>0", "no metric is called 'eval/nosie/1'"), ("-clean>nan", "is not a number"),
        ("clean>\x1b[31m", "is not a number"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(text, said):
    with pytest.raises(RequestError) as caught:
        Filter.parse(f"good status:finished {text}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@given(st.text("abcst:ag<>=!-. /%19", max_size=14))
def test_any_text_is_a_filter_or_a_mistake(text):
    try:
        Filter.parse(text).fits(row())
    except RequestError:
        return


names = st.text("abc-", min_size=1, max_size=4)
rows = st.builds(row, names, st.sampled_from(["finished", "lost", "running"]), names, st.tuples(names), names)


@given(st.lists(rows, max_size=8), st.text("abcst: ", max_size=12), names)
def test_more_words_fit_fewer_runs(found, text, word):
    try:
        wide, narrow = Filter.parse(text), Filter.parse(f"{text} {word}")
    except RequestError:
        return
    assert all(wide.fits(one) for one in found if narrow.fits(one))


measured = st.builds(
    lambda id, clean, created: row(id, metrics={} if clean is None else {"test/accuracy": clean}, created=created),
    names, st.none() | st.sampled_from([0.1, 0.5, 0.9]), st.integers(0, 3).map(float),
)  # fmt: skip


@given(st.lists(rows | measured, max_size=8), st.sampled_from([*attributes.FACTS, "test/accuracy"]), st.booleans())
def test_orders_keep_every_run_and_put_those_without_last(found, name, reverse):
    by = attributes.kept(name)
    kept = attributes.ordered(found, by, reverse)
    assert sorted(map(id, kept)) == sorted(map(id, found))
    assert attributes.ordered(kept, by, reverse) == kept
    has = [by.of(one) not in (None, "") for one in kept]
    assert has == sorted(has, reverse=True)


def test_the_best_come_first_and_turned_round_last():
    three = [row(f"r{value}", metrics={"test/accuracy": value, "test/loss": value}) for value in (0.1, 0.9, 0.5)]
    for name, first in (("clean", "r0.9"), ("test_ce", "r0.1"), ("name", "r0.1")):
        by = attributes.found(name)
        assert attributes.ordered(three, by)[0].id == first
        assert attributes.ordered(three, by, True)[-1].id == first


def test_every_name_that_is_offered_is_found_again():
    for name in (*attributes.FACTS, *attributes.metric_names(2), *attributes.settings()):
        assert attributes.found(name) == attributes.kept(name)
        assert attributes.found(name).name == name
    assert attributes.found("train.lr").kind == "setting"
    assert {re.sub(r"/\d/", "/*/", name) for name in attributes.metric_names(2)} == set(METRICS)


def test_runs_that_are_alike_share_what_was_read_of_them(runs):
    one, other, odd = (made(runs, name) for name in ("a", "b", "c"))
    text = config()
    other.config.write_text(text.replace("seed: 2022", "seed: 5").replace("name: quickstart", "name: b"))
    odd.config.write_text("name: [unclosed")
    first, second, third = (read(store.look(run), {"settings"}).configured for run in (one, other, odd))
    assert first.shared is second.shared
    assert (first.seed, second.seed) == (2022, 5)
    assert first.group == second.group != ""
    assert third is None
    other.state.write_text(other.state.read_text().replace('"changed": {}', '"changed": {"hah.lambda": 9.0}'))
    changed = read(store.look(other), {"settings"}).configured
    assert changed.shared.settings["hah.lambda"] == 9.0
    assert changed.group == ""
