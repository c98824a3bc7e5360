"""Groups of the list: means and spreads by a slow transcription, what never enters them, missing seeds, names."""

import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runs.layout import RunDirectory
from engine.runs.state import State
from engine.runs.store import Labels
from engine.runs.watcher import Look
from hah_tui import attributes, groups
from hah_tui.groups import SEED, Group
from hah_tui.listing import ListedRun
from hah_tui.run_facts import Configured, Shared

CLEAN = attributes.found("clean")
WIDE, NARROW, LINEAR = (
    Shared(settings, {name: value for name, value in settings.items() if name != "observe.every"})
    for settings in (
        {"hah.lambda": 1.0, "model.width": 1.0, "data.dataset": "digits", "observe.every": 1},
        {"hah.lambda": 1.0, "model.width": 0.5, "data.dataset": "digits", "observe.every": 1},
        {"hah.lambda": 0.0, "model.width": 1.0, "data.dataset": "cifar10", "observe.every": 1},
    )
)


def run(id, seed=1, shared=WIDE, status="finished", clean=0.9, created=0.0, changed=None, name="quickstart"):
    metrics = {} if clean is None else {"test/accuracy": clean}
    state = State(id=id, name=name, status=status, created=created, metrics=metrics, changed=changed or {})
    group = "" if changed else f"of-{id_of(shared)}"
    return ListedRun(Look(RunDirectory(Path("/runs") / id), state, status), Labels(), Configured(shared, seed, group))


def id_of(shared):
    return [WIDE, NARROW, LINEAR].index(shared)


def one(entries):
    (group,) = (entry for entry in entries if isinstance(entry, Group))
    return group


values = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(values)
def test_means_and_spreads_are_those_of_a_slow_transcription(found):
    group = Group("k", "n", tuple(run(f"r{seed}", seed, clean=value) for seed, value in enumerate(found)))
    mean = sum(map(Fraction, found)) / len(found)
    assert math.isclose(group.mean(CLEAN), mean, abs_tol=1e-12)
    if len(found) == 1:
        assert group.spread(CLEAN) is None
    else:
        variance = sum((Fraction(value) - mean) ** 2 for value in found) / (len(found) - 1)
        assert math.isclose(group.spread(CLEAN), math.sqrt(variance), abs_tol=1e-9)


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (run("odd", 3, status="running", clean=0.1), "running"), (run("odd", 3, status="failed", clean=0.1), "failed"),
        (run("odd", 3, status="stopped", clean=0.1), "stopped"), (run("odd", 3, status="lost", clean=0.1), "lost"),
        (run("odd", 2, clean=0.1, created=-5), "of a seed that is there"),
    ],
)  # fmt: skip
def test_what_is_not_finished_never_enters_a_mean_silently(odd, why):
    group = one(groups.grouped([run("a", 1, clean=0.8), run("b", 2, clean=0.9), odd], SEED))
    assert group.mean(CLEAN) == pytest.approx(0.85)
    counted, others = group.sorted_out
    assert {one.id for one in counted} == {"a", "b"}
    assert others == {why: 1}


def test_what_was_changed_on_the_way_is_alone_and_in_no_mean():
    changed = run("c", 3, clean=0.1, changed={"hah.lambda": 2.0})
    entries = groups.grouped([run("a", 1), run("b", 2), changed], SEED)
    assert len(one(entries).runs) == 2
    assert changed in entries
    by_width = one(groups.grouped([run("a", 1), changed], "model.width"))
    assert by_width.sorted_out[1] == {"changed on the way": 1}
    assert by_width.mean(CLEAN) == 0.9
    longer = run("d", 3, changed={"train.epochs": 20, "observe.every": 2})
    assert not Group("k", "n", (longer,)).sorted_out[1].get("changed on the way")


def test_other_data_are_another_group_whatever_the_setting():
    entries = groups.grouped([run("a"), run("b", 2, NARROW), run("c", 3, LINEAR)], "observe.every")
    assert {entry.name: len(entry.runs) for entry in entries} == {"every=1 digits": 2, "every=1 cifar10": 1}


def test_groups_by_a_setting_have_its_values_for_names():
    entries = groups.grouped([run("a"), run("b", 2, NARROW), run("c", 2)], "model.width")
    assert {entry.name: len(entry.runs) for entry in entries} == {"width=1.0": 2, "width=0.5": 1}


def test_missing_seeds_are_those_of_groups_with_a_seed_in_common():
    entries = groups.grouped(
        [
            *(run(f"a{seed}", seed) for seed in (1, 2, 3)),
            *(run(f"b{seed}", seed, NARROW, "failed" if seed == 2 else "finished") for seed in (1, 2)),
            *(run(f"c{seed}", seed, LINEAR) for seed in (7, 8)),
        ],
        SEED,
    )
    assert {entry.key: entry.missing for entry in entries} == {"of-0": (), "of-1": (2, 3), "of-2": ()}


def test_what_differs_names_groups():
    entries = groups.grouped([run(f"{id_of(x)}-{s}", s, x) for x in (WIDE, NARROW) for s in (1, 2)], SEED)
    assert {entry.name for entry in entries} == {"width=1.0", "width=0.5"}


def test_a_run_that_is_alone_stays_a_run():
    alone = run("b", 1, NARROW)
    entries = groups.grouped([run("a", 1), run("c", 2), alone], SEED)
    assert alone in entries
    assert len(entries) == 2


def test_a_group_in_which_nothing_has_changed_is_not_made_again():
    first, second, new = run("a", 1), run("b", 2), run("c", 3)
    before = groups.grouped([first, second], SEED)
    assert groups.grouped([first, second], SEED, before)[0] is before[0]
    assert len(groups.grouped([first, second, new], SEED, before)[0].runs) == 3


listed = st.builds(
    run, st.uuids().map(lambda one: f"r-{one}"), st.integers(1, 4), st.sampled_from([WIDE, NARROW, LINEAR]),
    st.sampled_from(["finished", "failed", "running"]), st.none() | st.floats(0, 1), st.floats(0, 9),
    st.sampled_from([None, {"hah.lambda": 3.0}]),
)  # fmt: skip


@given(
    st.lists(listed, max_size=12), st.sampled_from([SEED, "model.width", "hah.lambda", "nothing.there"]), st.booleans()
)
def test_every_run_is_in_one_entry_and_every_group_can_be_sorted(found, by, reverse):
    entries = groups.grouped(found, by)
    inside = [run for entry in entries for run in (entry.runs if isinstance(entry, Group) else (entry,))]
    assert sorted(run.id for run in inside) == sorted(run.id for run in found)
    for name in ("clean", "status", "seed", "name", "created", "progress", "hah.lambda", "tags"):
        assert len(groups.ordered(entries, attributes.found(name), reverse)) == len(entries)
    for group in entries:
        if isinstance(group, Group):
            counted, others = group.sorted_out
            assert len(counted) + sum(others.values()) == len(group.runs)
            assert all(one.look.status == "finished" and not one.look.state.changed for one in counted)
