"""Whole trainings: the record, resuming to the bit, commands, and what stays untouched."""

import json
import math

import pytest
import torch

from engine.experiment import RequestError, presets
from engine.job import checkpoints
from engine.job.work import Stopped
from engine.nn import VGG
from engine.runs import control
from engine.runs.layout import RunDirectory
from engine.runs.state import read_state
from engine.training import loop
from engine.training.step import DivergedError
from tests.training.conftest import command, die, events, same

TRAIN_METRICS = {"train/loss", "train/cross_entropy", "train/hah_cost", "train/accuracy"}


def losses(run):
    """The loss of each step, later words superseding earlier ones, and a check that they never contradict."""
    found = {}
    for event in events(run, "train"):
        for offset, loss in enumerate(event["losses"]):
            step = event["step"] - len(event["losses"]) + 1 + offset
            assert found.setdefault(step, loss) == loss, step
    return found


def test_a_run_leaves_a_whole_record(tiny, new_run, session):
    run = new_run(tiny())
    session(run).train()
    state = read_state(run)
    assert (state.epoch, state.epochs, state.step, state.steps) == (3, 3, 15, 15)
    assert sorted(losses(run)) == list(range(1, 16))
    assert [event["epoch"] for event in events(run, "epoch")] == [1, 2, 3]
    last = events(run, "epoch")[-1]["values"]
    blocks = {
        f"block/{n}/{name}" for n in range(1, 9) for name in ("sparsity", "snr_db", "active_fraction", "hah_cost")
    }
    wanted = TRAIN_METRICS | {"test/accuracy", "test/noisy_accuracy", "test/loss"} | blocks
    assert wanted <= set(last)
    assert wanted | {"train/lr", "train/images_per_second"} <= set(state.metrics)
    assert {path.name for path in run.checkpoints.iterdir()} == {"last.pt", "previous.pt", "best.pt"}
    assert events(run, "log")[0]["version"] == 1
    for line in run.events.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # no NaN


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny, new_run, session, plain):
    again, other = (session(new_run(tiny(*sets))).train() for sets in ([], ["seed=7"]))
    assert same(again, plain)
    assert not same(other, plain)


def test_probes_and_logging_do_not_touch_the_weights(tiny, new_run, session):
    plain = session(new_run(tiny("observe.every=3", "observe.log_every=7"))).train()
    watched = session(new_run(tiny("observe.every=1", "observe.log_every=1", "observe.images=60"))).train()
    assert same(plain, watched)


_NOISY = ["train.noise_std=0.1", "data.augment=crop-flip"]
_WHOLE = []


@pytest.fixture
def whole(tiny, new_run, session):
    """(weights, losses, epochs) of an uninterrupted run with noise and crops, trained once."""
    if not _WHOLE:
        run = new_run(tiny(*_NOISY))
        _WHOLE.extend([session(run).train(), losses(run), timeless(events(run, "epoch"))])
    return _WHOLE


def timeless(found):
    return [{k: v for k, v in event.items() if k != "time"} for event in found]


@pytest.mark.parametrize("stop_after", [1, 4, 5, 7, 10, 12])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tiny, new_run, session, whole, stop_after):
    """Stopped within an epoch, at its end, and while observing; noise and crops included."""
    weights, whole_losses, epochs = whole
    run = new_run(tiny(*_NOISY))
    first = session(run, asked_to_stop=lambda: first.training.step >= stop_after)
    with pytest.raises(Stopped):
        first.train()
    assert first.training.step == stop_after
    second = session(run)
    assert same(second.train(), weights)
    assert losses(run) == whole_losses
    assert timeless(events(run, "epoch")) == epochs


def test_stopped_in_the_middle_of_an_observation(tiny, new_run, session, plain, monkeypatch):
    run = new_run(tiny())
    first = session(run)
    training = first.prepare()
    original = loop.observe

    def interrupted(*args, **kwargs):
        training.job._asked_to_stop = lambda: True
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "observe", interrupted)
    with pytest.raises(Stopped):
        training.train()
    first.record.close()
    monkeypatch.setattr(loop, "observe", original)
    assert (training.epoch, training.batch) == (0, 5)
    assert events(run, "epoch") == []
    assert same(session(run).train(), plain)
    assert [event["epoch"] for event in events(run, "epoch")] == [1, 2, 3]


def test_a_run_killed_after_its_checkpoint_repeats_the_same_steps(tiny, new_run, session, plain):
    run = new_run(tiny())
    first = session(run)
    training = first.prepare()
    die(training, 8)
    with pytest.raises(KeyboardInterrupt):
        training.train()
    assert sorted(losses(run)) == [1, 2, 3, 4, 5, 6, 7]  # step 8 was not drained; the checkpoint is of step 5
    second = session(run)
    assert same(second.train(), plain)
    assert [event["step"] for event in events(run, "position")] == [0, 5]
    assert sorted(losses(run)) == list(range(1, 16))


def test_extending_a_finished_run_equals_a_longer_one(tiny, new_run, session):
    longer = session(new_run(tiny("train.epochs=4"))).train()
    run = new_run(tiny())
    session(run).train()
    again = session(run)
    again.prepare().change("train.epochs", 4, "more")
    again.training.train()
    assert same(again.weights(), longer)
    assert read_state(run).changed == {"train.epochs": 4}


def test_pause_and_resume_change_nothing_but_the_clock(tiny, new_run, session, plain):
    run = new_run(tiny())
    first = session(run)
    training = first.prepare()
    command(run, training, 6, "pause")
    seen = []

    def sleep(seconds):
        seen.append(read_state(run).status)
        if len(seen) == 3:
            control.send(run, "resume")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.time, "sleep", sleep)
        training.train()
    assert seen == ["paused"] * 3
    assert same(first.weights(), plain)


@pytest.mark.parametrize(("verb", "saved"), [("stop", 7), ("stop-now", 5)])
def test_stop_saves_and_stop_now_does_not(tiny, new_run, session, plain, verb, saved):
    run = new_run(tiny())
    first = session(run)
    command(run, first.prepare(), 7, verb)
    with pytest.raises(Stopped):
        first.training.train()
    first.record.close()
    assert checkpoints.newest(run).checkpoint["step"] == saved
    assert same(session(run).train(), plain)


def test_divergence_fails_with_the_last_good_checkpoint(tiny, new_run, session):
    explosive = ("train.optimizer=adamw", "train.weight_decay=1e6")
    run = new_run(tiny(*explosive, "train.lr=1e6"))
    first = session(run)
    with pytest.raises(DivergedError, match="step"):
        first.train()
    assert first.training.goes_on() == "there is no checkpoint yet"
    assert list(run.checkpoints.iterdir()) == []

    run = new_run(tiny(*explosive, "train.lr=1e-8"))
    first = session(run)
    command(run, first.prepare(), 8, "set", "train.lr", 1e6)
    with pytest.raises(DivergedError):
        first.training.train()
    assert first.training.goes_on() == "the last good checkpoint is of step 5 (1 epochs and 0 batches)"
    assert all(value.isfinite().all() for value in checkpoints.newest(run).checkpoint["network"].values())


def test_the_best_is_by_validation_where_there_is_one_else_by_test_and_says_so(tiny, new_run, session):
    run = new_run(tiny())
    session(run).train()
    best = checkpoints.read(run.checkpoints / "best.pt")
    accuracies = [event["values"]["test/accuracy"] for event in events(run, "epoch")]
    assert best["metric"] == "test/accuracy"
    assert best["value"] == pytest.approx(max(accuracies))
    assert best["epoch"] == accuracies.index(max(accuracies)) + 1

    run = new_run(tiny("data.validation=30"))
    first = session(run)
    first.train()
    best = checkpoints.read(run.checkpoints / "best.pt")
    assert best["metric"] == "validation/accuracy"
    assert "validation/accuracy" in read_state(run).metrics
    assert len(first.training._train) == 120


def test_epochs_to_keep_and_the_cadence_of_saving(tiny, new_run, session):
    run = new_run(tiny("checkpoints.keep=[2]", "checkpoints.every=2"))
    session(run).train()
    assert checkpoints.read(run.checkpoints / "epoch-2.pt")["epoch"] == 2
    saved = [(e["why"], e["epoch"]) for e in events(run, "checkpoint") if e["name"] == "last"]
    assert saved == [("epoch", 2), ("end", 3)]
    run = new_run(tiny("checkpoints.every=3", "checkpoints.minutes=1e-9"))
    session(run).train()
    assert sum(e["name"] == "last" for e in events(run, "checkpoint")) == 16


def test_a_checkpoint_of_another_network_is_refused(tiny, new_run, session):
    a, b = new_run(tiny()), new_run(tiny("model.width=0.125"))
    session(a).train()
    checkpoint = checkpoints.read(a.checkpoints / "last.pt")
    other = presets.load(str(b.config))
    checkpoints.write(b.checkpoints / "last.pt", {**checkpoint, "experiment": other.dump()})
    with pytest.raises(RequestError, match="does not fit its experiment"):
        session(b).prepare()


def test_a_damaged_checkpoint_is_warned_of_in_the_record(tiny, new_run, session, plain):
    run = new_run(tiny())
    first = session(run, asked_to_stop=lambda: first.training.step >= 12)
    with pytest.raises(Stopped):
        first.train()
    last = run.checkpoints / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    assert same(session(run).train(), plain)
    assert "last.pt is damaged" in events(run, "warning")[0]["text"]


def test_tensorboard_has_the_metrics_the_settings_and_the_layout(tiny, new_run, session):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = new_run(tiny())
    first = session(run)
    training = first.prepare()
    first.record.open_tensorboard(training.experiment, 0)
    training.train()
    first.record.close()
    written = EventAccumulator(str(run.tensorboard), size_guidance={"scalars": 0})
    written.Reload()
    tags = written.Tags()
    blocks = {
        f"block/{n}/{name}" for n in range(1, 9) for name in ("sparsity", "snr_db", "active_fraction", "hah_cost")
    }
    assert TRAIN_METRICS | {"test/accuracy", "test/noisy_accuracy", "train/lr"} | blocks <= set(tags["scalars"])
    epochs = events(run, "epoch")
    sparsity = written.Scalars("block/1/sparsity")
    assert [point.step for point in sparsity] == [5, 10, 15]
    assert [point.value for point in sparsity] == pytest.approx([e["values"]["block/1/sparsity"] for e in epochs])
    assert "block/1/weight" in tags["histograms"]
    assert "block/1/filters" in tags["images"]
    assert {"custom_scalars__config__", "_hparams_/session_start_info", "_hparams_/experiment"} <= set(
        tags["tensors"]
    ) | set(written.summary_metadata)


def test_a_run_needs_no_gradient_of_metrics_that_are_not_numbers(tiny, new_run, session):
    """A silent block has no sparsity: the metric is left out rather than written as NaN."""
    run = new_run(tiny("train.epochs=1", "train.milestones=[]"))
    first = session(run)
    training = first.prepare()
    with torch.no_grad():
        training.network.blocks[1].conv.weight.fill_(-1)
        training._step.optimizer.param_groups[0]["params"].clear()
    training.train()
    values = events(run, "epoch")[0]["values"]
    assert "block/2/sparsity" not in values
    assert all(math.isfinite(value) for value in values.values())


def test_a_network_runs_from_an_exported_state(tiny, new_run, session):
    run = new_run(tiny())
    final = session(run).train()
    checkpoint = checkpoints.read(RunDirectory(run.path).checkpoints / "last.pt")
    network = VGG.from_experiment(presets.parse(checkpoint["experiment"]))
    network.load_state_dict(checkpoint["network"])
    assert same(dict(network.state_dict()), final)
