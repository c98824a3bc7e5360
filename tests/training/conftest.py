"""Small real trainings on digits, in this process."""

from dataclasses import replace

import pytest
import torch

from engine.experiment import presets
from engine.job.record import Record
from engine.job.work import Job, Place
from engine.runs import control, layout
from engine.runs.devices import Choice
from engine.runs.events import Tail
from engine.runs.state import State
from engine.training.loop import Training

TINY = [
    "model.width=0.0625",
    "model.hah_blocks=2",
    "hah.alpha=[0.09, 0.05]",
    "hah.top_k=0.3",
    "data.train_limit=150",
    "data.test_limit=60",
    "train.batch_size=32",
    "train.epochs=3",
    "train.milestones=[2]",
    "observe.images=40",
    "observe.log_every=2",
    "compute.threads=2",
]


@pytest.fixture
def tiny():
    """The experiment of a training of 15 steps: tiny("train.lr=0.1")."""
    return lambda *sets: presets.load("quickstart", [*TINY, *sets])


@pytest.fixture
def new_run(tmp_path):
    """A run directory for an experiment."""
    return lambda experiment: layout.create(tmp_path / "runs", experiment.name, presets.dumped(experiment))


class Session:
    """One engine's worth of training on a run, without the process."""

    def __init__(self, run, asked_to_stop=lambda: ""):
        self.run = run
        experiment = presets.load(str(run.config))
        self.record = Record(run, replace(State(), name=experiment.name))
        place = Place(torch.device("cpu"), Choice("cpu", "asked for"))
        self.training = Training(Job(self.record, place, asked_to_stop), experiment)

    def prepare(self, sets=None, without=()):
        self.training.sets, self.training.without = sets or {}, without
        self.training.prepare()
        return self.training

    def train(self, sets=None, without=()):
        self.prepare(sets, without)
        try:
            self.training.train()
        finally:
            self.record.close()
        return self.weights()

    def weights(self):
        return {name: value.clone() for name, value in self.training.network.state_dict().items()}


@pytest.fixture
def session():
    """session(run).train() -> the final weights."""
    return Session


_PLAIN = {}


@pytest.fixture
def plain(tiny, new_run, session):
    """The weights of an undisturbed training of ``tiny()``, trained once."""
    if not _PLAIN:
        _PLAIN.update(session(new_run(tiny())).train())
    return _PLAIN


def events(run, kind):
    return [event for event in Tail(run.events) if event["kind"] == kind]


def same(a, b):
    """Whether two sets of weights are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def command(run, training, step, verb, name="", value=None):
    """Send a command when the training has done ``step`` steps."""
    at(training, step, lambda: control.send(run, verb, name, value))


def die(training, step):
    """Die without a word when the training has done ``step`` steps."""

    def now():
        raise KeyboardInterrupt

    at(training, step, now)


def at(training, step, do):
    """Do something between two steps, before commands are answered there."""
    original, still_to_do = training._attend, [do]

    def attend(stepping=False):
        if training.step == step and stepping and still_to_do:
            still_to_do.pop()()
        original(stepping)

    training._attend = attend
