"""The record of a run as curves: read in parts, resumed, odd, long, and played again."""

import json

import pytest

from engine.runs.metrics import METRICS, SPARSITY
from hah_tui.curves import Curves, Replay, Source
from tests.tui.scripted import PER_EPOCH, Scripted


def test_the_record_becomes_curves(folder):
    curves = Source(Scripted(folder).run)
    curves.take(curves.read())
    curves = curves.curves
    assert (curves.step, curves.epoch, curves.steps_per_epoch) == (240, 12, PER_EPOCH)
    assert sum(curves["train/loss"].count) == 240
    assert sum(curves["train/accuracy"].count) == 48
    assert curves.blocks(METRICS[SPARSITY]) == list(range(1, 9))
    assert sum(curves["block/3/snr_db"].count) == 12
    assert curves.epoch_of(120) == 6
    times = [curves.seconds_of(step) for step in range(0, 241, 10)]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(curves.seconds.last, abs=0.2)
    assert 14 < times[-1] < 15


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(folder):
    made = Scripted(folder, live=True)
    made.train(3)
    made.event("position", step=40, epoch=2, batch=0)
    made.step = 40
    made.train(1)
    source = Source(made.run)
    source.take(source.read())
    curves = source.curves
    assert curves.step == 60
    assert sum(curves["train/loss"].count) == 60
    assert sum(curves["test/accuracy"].count) == 3
    assert [mark.kind for mark in curves.marks] == ["resume"]
    assert curves.seconds.last < made.clock - 1_790_000_000
    made.die()


def test_what_is_no_event_of_an_engine_is_passed_over(folder):
    made = Scripted(folder)
    with made.run.events.open("a") as file:
        for bad in (
            {"kind": "train", "step": "x", "values": {}}, {"kind": "train", "step": -5, "values": {"a": 1}},
            {"kind": "train", "step": 10**30, "values": {"a": 1}}, {"kind": "epoch", "step": 260, "values": []},
            {"kind": "train", "step": 250, "losses": [None, "x", 2.0],
             "values": {"a": "[red]", "b": True, "c": None, "d": {}}},
            {"kind": "set", "step": None}, {"kind": "position"},
            {"kind": "epoch", "step": 260, "epoch": 0, "values": {}},
            {"kind": "set", "step": 250, "name": "\x1b[31m[b]x", "old": None, "new": [1]}, {"kind": "unheard of"},
        ):  # fmt: skip
            file.write(json.dumps({"time": "never", **bad}) + "\n")
    source = Source(made.run)
    source.take(source.read())
    assert source.curves.step == 260
    assert sum(source.curves["train/loss"].count) == 241
    assert "a" not in source.curves.series or not len(source.curves["a"])


def test_curves_of_a_million_steps_stay_small():
    curves = Curves()
    values = {"train/loss": 1.0, "train/accuracy": 0.5}
    for step in range(100, 1_000_001, 100):
        curves.take(
            [{"kind": "train", "time": step / 100, "step": step, "epoch": 1, "losses": [0.5] * 100, "values": values}]
        )
        if step % 10_000 == 0:
            curves.take([{"kind": "warning", "time": step / 100, "text": "x" * 100}])
    assert len(curves["train/loss"]) <= 512
    assert sum(curves["train/loss"].count) == 1_000_000
    assert len(curves.events) <= 500
    many = Curves()
    many.take([{"kind": "train", "step": n, "values": {f"m{n}": 1.0}} for n in range(5000)])
    assert len(many.series) <= 600


def test_one_poll_reads_a_bounded_part_of_the_record(folder):
    made = Scripted(folder, live=True)
    made.records(3000)
    source = Source(made.run)
    reading = source.read()
    assert reading.more
    assert 100 < len(reading.events) < 2000
    source.take(reading)
    assert not source.loaded
    while not source.loaded:
        source.take(source.read())
    assert sum(source.curves["train/loss"].count) == 15_000
    made.die()


def test_a_replay_plays_everything_in_the_order_of_time(folder):
    source = Source(Scripted(folder).run)
    source.take(source.read())
    replay = Replay(source.run, source.curves)
    while replay.hungry:
        replay.feed(replay.read())
    replay.play(0)
    seen = []
    for _ in range(400):
        replay.play(0.25)
        seen.append(replay.curves.step)
    assert replay.over
    assert seen == sorted(seen)
    assert len(set(seen)) > 20
    assert replay.curves.step == 240
    assert list(replay.curves["train/loss"].total) == list(source.curves["train/loss"].total)


def test_values_of_a_name_stay_in_their_order_whatever_records_they_are_in():
    """Records of two kinds in one batch, some with more names than others, losses of every step or one of many."""
    curves = Curves()
    records = []
    for step in range(1, 41):
        extra = {"gpu/memory_gib": 1.0} if step % 2 else {}
        records.append({"kind": "train", "step": 2 * step - 1, "values": {"m": float(step), **extra}})
        records.append({"kind": "epoch", "step": 2 * step, "values": {"m": float(step), "n": None if step % 3 else 1}})
        losses = {"losses": [0.5]} if step % 2 else {}
        records.append({"kind": "train", "step": 2 * step, "values": {"train/loss": 0.25}, **losses})
    curves.take(records)
    assert list(curves["m"].number) == list(range(1, 81))
    assert list(curves["m"].total) == [float((step + 1) // 2) for step in range(1, 81)]
    assert list(curves["train/loss"].total) == [0.5, 0.25] * 20
    assert sum(curves["gpu/memory_gib"].count) == 20
    assert list(curves["n"].count) == [int(step % 3 == 0) for step in range(1, 41)]
