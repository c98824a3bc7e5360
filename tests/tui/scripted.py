"""A run that no network trains: real records of curves from a formula, and an engine that answers commands."""

import json
import math
from dataclasses import replace

from engine.disk import replace_json
from engine.runs.control import Inbox
from engine.runs.events import EventLog
from engine.runs.layout import RunDirectory, create
from engine.runs.process import Heartbeat, Lock, identity
from engine.runs.state import State
from tests.tui.made import config

BEGAN = 1_790_000_000
PER_EPOCH, LOG_EVERY, BLOCKS = 20, 5, 8


class Scripted:
    """Writes a run by the package's own writers; ``live``: it holds the lock, as an engine does."""

    def __init__(self, folder, id="scripted-aaaa", epochs=12, live=False, shift=0.0, sets=()):
        made = create(
            folder, "scripted", config("quickstart", [f"train.epochs={epochs}", "train.milestones=[]", *sets])
        )
        self.run = RunDirectory(made.path.rename(folder / id))
        self.lock = Lock.take(self.run.lock)
        self.beat = Heartbeat(self.run.heartbeat)
        self.beat.beat(1000.0)
        self.log, self.inbox = EventLog(self.run.events), Inbox(self.run)
        self.shift, self.step, self.values, self.clock = shift, 0, {}, float(BEGAN)
        self.state = State(
            name="scripted", preset="quickstart", status="running", phase="training", epochs=epochs,
            steps=epochs * PER_EPOCH, device="cpu", created=BEGAN, began=BEGAN, engine=identity().dump(),
        )  # fmt: skip
        self.event("engine", pid=1, host="box", device="cpu", gpu=None, why="no GPU here")
        self.event("position", step=0, epoch=0, batch=0)
        replace_json(self.run.manifest, {"id": id, "host": "box", "versions": {"torch": "2.15.0"}, "seed": 2022})
        self.snapshot()
        if not live:
            self.train(epochs)
            self.end("finished")

    def event(self, kind, **fields):
        """A record with the script's own clock."""
        self.clock += 0.25
        with self.run.events.open("a") as file:
            file.write(json.dumps({"time": self.clock, "kind": kind, **fields}) + "\n")

    def train(self, epochs=1):
        """So many epochs: records of training, and what is observed after each."""
        for _ in range(epochs):
            for _ in range(PER_EPOCH // LOG_EVERY):
                self.records(1)
            epoch, shift = self.step // PER_EPOCH, self.shift
            observed = {
                "test/loss": 0.4 * math.exp(-epoch / 4) + 0.05,
                "test/accuracy": 0.95 - 0.5 * math.exp(-epoch / 3) - shift,
                "test/noisy_accuracy": 0.85 - 0.4 * math.exp(-epoch / 3) - 2 * shift,
            }  # fmt: skip
            for n in range(1, BLOCKS + 1):
                observed[f"block/{n}/sparsity"] = (
                    (0.2 if n <= 3 else 0.7) + 0.01 * n - 0.1 * math.exp(-epoch / 4) + shift
                )
                observed[f"block/{n}/snr_db"] = 15 - 1.5 * n + 3 * (1 - math.exp(-epoch / 5)) - 10 * shift
                observed[f"block/{n}/hah_cost"] = 0.5 + 0.2 * n * (1 - math.exp(-epoch / 6))
            observed = {name: round(value, 6) for name, value in observed.items()}
            self.values |= observed
            self.event("epoch", step=self.step, epoch=epoch, values={**self.last, **observed})
            self.state = replace(self.state, epoch=epoch, metrics=dict(self.values), trained_seconds=self.clock - BEGAN)
        self.snapshot()

    def records(self, count):
        """So many training records."""
        for _ in range(count):
            first, self.step = self.step + 1, self.step + LOG_EVERY
            losses = [
                round(2 * math.exp(-s / 40) + 0.1 * math.sin(s) + self.shift, 6) for s in range(first, self.step + 1)
            ]
            mean = sum(losses) / LOG_EVERY
            self.last = {
                "train/loss": mean, "train/cross_entropy": mean + 0.1, "train/hah_cost": 0.1 + self.step / 1000,
                "train/accuracy": 1 - math.exp(-self.step / 50), "train/lr": 0.001,
                "train/images_per_second": 1500 + 100 * math.sin(self.step / 20),
            }  # fmt: skip
            self.last = {name: round(value, 6) for name, value in self.last.items()}
            self.values |= self.last
            epoch = 1 + (self.step - 1) // PER_EPOCH
            self.event("train", step=self.step, epoch=epoch, losses=losses, values=self.last)
        self.state = replace(self.state, step=self.step, metrics=dict(self.values), eta_seconds=61.0,
                             images_per_second=1500.0)  # fmt: skip

    def snapshot(self, **changes):
        """state.json as it is now."""
        self.state = replace(self.state, step=self.step, **changes)
        self.state.write(self.run, durable=False)

    def answer(self):
        """Do what was asked; returns the verbs."""
        verbs = []
        for command in self.inbox.read():
            refused = ""
            if command.verb == "set":
                self.event("set", id=command.id, step=self.step, name=command.name, old=0.1, new=command.value,
                           replayed=False)  # fmt: skip
            elif command.verb in ("pause", "resume"):
                self.snapshot(status="paused" if command.verb == "pause" else "running")
            self.event("command", id=command.id, verb=command.verb, ok=not refused, text=refused)
            self.inbox.done(command)
            verbs.append(command.verb)
            if command.verb == "stop":
                self.end("stopped")
        return verbs

    def end(self, status, error=""):
        """The engine's last word."""
        self.event(status, step=self.step, epoch=self.state.epoch, **({"text": error} if error else {}))
        self.snapshot(status=status, phase="", eta_seconds=None, error=error)
        self.die()

    def die(self):
        """Gone without a word."""
        self.log.close()
        self.lock.release()
