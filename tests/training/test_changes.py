"""Settings changed while a run lives: recorded, replayed at their step, superseded, withdrawn, refused."""

import pytest

from engine.experiment import RequestError
from engine.job import checkpoints
from engine.runs import control
from engine.runs.state import read_state
from tests.training.conftest import at, command, die, events, same


def changed_at(tiny, new_run, session, *changes):
    """The weights of a run in which settings are changed, each (step, name, value), and nothing else happens."""
    run = new_run(tiny())
    one = session(run)
    training = one.prepare()
    for step, name, value in changes:
        command(run, training, step, "set", name, value)
    training.train()
    one.record.close()
    return one.weights()


def killed(run, session, at_step, *changes, sets=None):
    """An engine of ``run`` that dies between two steps, after changes at (step, name, value)."""
    one = session(run)
    training = one.prepare(sets)
    for step, name, value in changes:
        command(run, training, step, "set", name, value)
    die(training, at_step)
    with pytest.raises(KeyboardInterrupt):
        training.train()


def test_a_changed_setting_is_recorded_and_replayed_at_its_step(tiny, new_run, session, plain):
    run = new_run(tiny())
    one = session(run)
    command(run, one.prepare(), 8, "set", "hah.lambda", 2.0)
    one.training.train()
    one.record.close()
    (event,) = events(run, "set")
    assert (event["step"], event["name"], event["old"], event["new"]) == (8, "hah.lambda", 0.1, 2.0)
    (answer,) = events(run, "command")
    assert answer["ok"]
    assert list(run.control.iterdir()) == []
    assert not same(one.weights(), plain)

    # A second run is killed after the change, at step 9, before any checkpoint has seen it.
    other = new_run(tiny())
    killed(other, session, 9, (8, "hah.lambda", 2.0))
    assert same(session(other).train(), one.weights())
    assert [(e["step"], e["replayed"]) for e in events(other, "set")] == [(8, False), (8, True)]
    assert read_state(other).changed == {"hah.lambda": 2.0}


def test_a_newer_change_counts_for_more_than_an_older_one_further_on(tiny, new_run, session):
    """Changed at step 8, killed, resumed from 5, changed again at 6: at 8 the old value does not come back, in that
    engine or in any later one, whether or not its checkpoint has seen the newer change."""
    wanted = changed_at(tiny, new_run, session, (6, "hah.lambda", 3.0))
    once = new_run(tiny())
    killed(once, session, 9, (8, "hah.lambda", 2.0))
    twice = new_run(tiny())
    killed(twice, session, 9, (8, "hah.lambda", 2.0))
    killed(twice, session, 8, (6, "hah.lambda", 3.0))  # no checkpoint has seen it
    late = new_run(tiny())
    killed(late, session, 9, (8, "hah.lambda", 2.0))
    killed(late, session, 12, (6, "hah.lambda", 3.0))  # the checkpoint of step 10 has
    again = session(once)
    command(once, again.prepare(), 6, "set", "hah.lambda", 3.0)
    again.training.train()
    again.record.close()
    assert same(again.weights(), wanted)
    for run in (twice, late):
        assert same(session(run).train(), wanted)
        assert read_state(run).changed == {"hah.lambda": 3.0}


def test_a_change_of_another_setting_supersedes_nothing(tiny, new_run, session):
    wanted = changed_at(tiny, new_run, session, (6, "hah.lambda", 3.0), (8, "train.lr", 0.01))
    run = new_run(tiny())
    killed(run, session, 9, (8, "train.lr", 0.01))
    killed(run, session, 7, (6, "hah.lambda", 3.0))
    assert same(session(run).train(), wanted)


def test_a_bad_change_is_left_behind_by_a_newer_one_or_withdrawn(tiny, new_run, session, plain):
    for sets, without, wanted in (
        ({"train.lr": 0.01}, (), changed_at(tiny, new_run, session, (5, "train.lr", 0.01))),
        (None, ("train.lr",), plain),
    ):
        run = new_run(tiny())
        killed(run, session, 9, (8, "train.lr", 1e6))
        assert same(session(run).train(sets, without), wanted)
        assert same(session(run).train(), wanted)  # and it stays so
    withdrawn = events(run, "set")[-1]
    assert (withdrawn["name"], withdrawn["step"], withdrawn["withdrawn"]) == ("train.lr", 5, True)
    assert read_state(run).changed == {}


def test_what_is_withdrawn_must_have_been_changed_after_the_checkpoint(tiny, new_run, session):
    run = new_run(tiny())
    killed(run, session, 12, (8, "hah.lambda", 2.0))  # the checkpoint is of step 10
    for name in ("hah.lambda", "train.lr", "nonsense"):
        with pytest.raises(
            RequestError, match=rf"{name} has not been changed since step 10 \(2 epochs and 0 batches\)"
        ):
            session(run).prepare(without=[name])


def test_a_setting_that_was_changed_back_is_still_a_changed_one(tiny, new_run, session):
    run = new_run(tiny())
    killed(run, session, 12, (6, "hah.lambda", 2.0), (8, "hah.lambda", 0.1))
    assert read_state(run).changed == {"hah.lambda": 0.1}
    session(run).train()
    assert read_state(run).changed == {"hah.lambda": 0.1}


def test_a_changed_number_of_epochs_ends_with_a_test(tiny, new_run, session):
    """Extended by another engine after it had ended untested: lowered to the epochs that it has."""
    run = new_run(tiny("observe.every=10", "train.epochs=6"))
    one = session(run)
    training = one.prepare()
    at(training, 11, lambda: training.change("train.epochs", 3, "less"))
    training.train()
    one.record.close()
    assert [event["epoch"] for event in events(run, "epoch") if "test/accuracy" in event["values"]] == [3]

    run = new_run(tiny("observe.every=10", "train.epochs=6"))
    killed(run, session, 11)
    one = session(run)
    one.train({"train.epochs": 2})  # two were trained and saved, none was tested
    assert [event["epoch"] for event in events(run, "epoch") if "test/accuracy" in event["values"]] == [2]
    assert "test/accuracy" in read_state(run).metrics
    assert checkpoints.read(run.checkpoints / "best.pt")["epoch"] == 2


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("hah.lambda", -1, "must be a number from 0 to"),
        ("hah.lamda", 1, "did you mean hah.lambda"),
        ("model.width", 0.5, "model.width is fixed while a run lives; what can change: hah.alpha"),
        ("data.dataset", "cifar10", "is fixed while a run lives"),
        ("hah", {"lambda": 1}, "is fixed while a run lives"),
        ("train.epochs", 1, "must be at least 2, the epoch the run is in"),
        ("train.adversarial.eps", 0.1, "train.adversarial.eps is fixed while a run lives"),  # it has no such training
    ],
)
def test_what_cannot_change_is_refused_with_a_reason(tiny, new_run, session, name, value, words):
    run = new_run(tiny("train.milestones=[]"))
    one = session(run)
    command(run, one.prepare(), 7, "set", name, value)
    one.training.train()
    (answer,) = events(run, "command")
    assert not answer["ok"]
    assert words in answer["text"]
    assert events(run, "set") == []


def test_what_lies_beyond_the_end_is_said_and_does_nothing(tiny, new_run, session, plain):
    experiment = tiny("train.milestones=[2, 3, 7]", "checkpoints.keep=[1, 3, 9]")
    assert experiment.idle() == [
        "train.milestones: 3, 7 does nothing, training ends with epoch 3",
        "checkpoints.keep: 9 does nothing, training ends with epoch 3",
    ]
    assert same(session(new_run(experiment)).train(), plain)


def test_a_change_of_a_run_that_is_paused_in_its_test_is_refused_at_once(tiny, new_run, session):
    """There is no step that it could wait for; before, it was answered when somebody resumed the run."""
    run = new_run(tiny())
    training = session(run).prepare()
    for verb, more in (("pause", ()), ("set", ("hah.lambda", 2.0))):
        control.send(run, verb, *more)
    assert training.job._answer(training._put_off)  # it is paused
    pause, change = events(run, "command")
    assert pause["ok"]
    assert not change["ok"]
    assert "paused while it is tested" in change["text"]
    assert list(run.control.iterdir()) == []
    assert training.experiment.hah.lambda_ == 0.1
