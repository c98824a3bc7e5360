"""Reading a sweep again and again: what has not changed is not read again, and whatever has is seen."""

from dataclasses import replace

from engine.runs import store
from engine.runs.process import Heartbeat, Lock, identity
from engine.runs.state import read_state
from engine.sweep import sweeps
from engine.sweep.sweeps import Reader
from tests.tui import made as making
from tests.tui.made import made

PLAN = "base: quickstart\naxes: {hah.lambda: [0.1, 1.0]}\nseeds: [5, 7]\n"


def found(trials):
    return [trial.status for trial in trials]


def changed(run, **facts):
    replace(read_state(run), **facts).write(run)


def test_what_has_not_changed_is_the_same_object_and_is_not_read_again(runs, monkeypatch):
    sweep = making.sweep(runs, PLAN)
    making.trial(runs, sweep, 0, 5)
    making.trial(runs, sweep, 1, 7, "queued")
    made(runs, id="another")
    reader, read = Reader([runs]), []
    first = reader.trials(sweep)
    reader.trials(sweep)  # the folder has just been written: it is listed once more
    look = store.look
    monkeypatch.setattr(store, "look", lambda run: read.append(run) or look(run))
    again = reader.trials(sweep)
    assert found(again) == ["finished", "missing", "missing", "queued"]
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert read == []


def test_whatever_changes_is_seen(runs):
    sweep = making.sweep(runs, PLAN)
    one = making.trial(runs, sweep, 0, 5, "queued")
    reader = Reader([runs])
    assert found(reader.trials(sweep)) == ["queued", "missing", "missing", "missing"]
    lock = Lock.take(one.lock)
    Heartbeat(one.heartbeat).beat(1000.0)
    changed(one, status="running", engine=identity().dump(), step=1)
    assert found(reader.trials(sweep))[0] == "running"
    changed(one, step=100)
    assert reader.trials(sweep)[0].look.state.step == 100
    lock.release()  # its engine dies: no file changes
    assert found(reader.trials(sweep))[0] == "lost"
    changed(one, status="finished")
    other = making.trial(runs, sweep, 1, 7, "failed")
    assert found(reader.trials(sweep)) == ["finished", "missing", "missing", "failed"]
    changed(one, changed={"hah.lambda": 0.3})  # it equals no experiment any more
    store.remove(other)
    assert found(reader.trials(sweep)) == ["missing"] * 4


def test_a_sweep_that_was_extended_or_edited(runs):
    sweep = making.sweep(runs, PLAN)
    making.trial(runs, sweep, 1, 8)
    reader = Reader([runs])
    assert found(reader.trials(sweep)) == ["missing"] * 4
    assert found(reader.trials(sweeps.extended(sweep, 3))) == ["missing"] * 5 + ["finished"]
    other = making.sweep(runs, PLAN + "set: {evaluate.suites: [noise]}\n")
    assert found(reader.trials(sweeps.extended(other, 3))) == ["missing"] * 5 + ["unevaluated"]
    assert found(reader.trials(sweep)) == ["missing"] * 4


def test_of_several_runs_of_a_trial_the_furthest(runs):
    sweep = making.sweep(runs, PLAN)
    making.trial(runs, sweep, 0, 5, "stopped", epoch=3)
    group = sweep.points[0].group
    reader = Reader([runs])
    assert found(reader.trials(sweep))[0] == "stopped"
    made(runs, id="by-hand", group=group, seed=5)
    (trial, *_) = reader.trials(sweep)
    assert (trial.status, trial.look.run.id) == ("finished", "by-hand")
    assert sorted(look.run.id for look in reader.looks(sweep)[group, 5]) == ["by-hand", "run-0-s5-ab12"]
    assert sweeps.trials(sweep, [runs]) == reader.trials(sweep)
