"""The training of one run: epochs, observations, checkpoints, and the commands that arrive in between."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.data import archives
from engine.data.batches import Epoch, Split, split_off
from engine.disk import clear_temporary, read_json, replace_json
from engine.experiment import Experiment, RequestError, presets
from engine.experiment.fields import differences, flatten
from engine.experiment.fingerprint import fingerprint
from engine.experiment.migrations import present
from engine.experiment.version import SCHEMA_VERSION
from engine.job import checkpoints
from engine.job.work import Job, Stopped, Work
from engine.nn import VGG, HaHBlock, NormalizedConv2d
from engine.probes import observe
from engine.probes.measures import right
from engine.probes.observation import BATCH, evaluating
from engine.runs import devices, evaluations, manifest
from engine.runs.control import Command
from engine.runs.events import Event, Tail
from engine.runs.layout import LAYOUT_VERSION, RunDirectory
from engine.runs.metrics import CLEAN, LOSS
from engine.runs.process import Lock
from engine.training.step import DivergedError, Step, learning_rate, precision

GPU_SECONDS = 5.0  # between two looks at the GPU's memory and utilisation
SAVE_PATIENCE = 120.0  # seconds a checkpoint may take


@dataclass(frozen=True)
class _Change:
    """A change of a setting as the record has it; ``moved``: to another value than it had; ``withdrawn``: what was
    changed of the setting after that step does not count any more."""

    id: str
    step: int
    name: str
    value: Any
    moved: bool
    withdrawn: bool

    @classmethod
    def of(cls, event: Event) -> _Change | None:
        """The change that an event tells of for the first time, if it is one."""
        match event:
            case {"kind": "set", "id": str(id), "step": int(step), "name": str(name), "old": old, "new": new}:
                now = None if event.get("replayed") else present(name, new)
                return now and cls(id, step, *now, old != new, "withdrawn" in event)
        return None


class Training(Work):
    """The training of one run on one device.

    ``sets``: settings to change as it goes on; ``without``: settings whose changes after the checkpoint, by engines
    that were interrupted, are not taken up.

    Everything random is a function of the seed and of the position (epoch, step), so a run that is interrupted
    anywhere and resumed from a checkpoint ends with the same weights to the bit.
    """

    def __init__(
        self, job: Job, experiment: Experiment, sets: Mapping[str, Any] | None = None, without: Sequence[str] = ()
    ) -> None:
        super().__init__(job, experiment)
        self.run, self.device = job.directory, job.place.device
        self._written = experiment.dump()  # as config.yaml has it
        self.sets, self.without = sets or {}, without
        self.epoch = self.batch = self.step = 0  # done: epochs, batches of the present one, steps
        self._sums: dict[str, float] = {}  # of the present epoch, over images
        self._best: dict[str, Any] = {}  # metric, value, epoch
        self._best_weights: dict[str, Any] | None = None  # not yet written
        self._applied: list[str] = []  # ids of the changes of settings that the weights have seen
        self._changed: set[str] = set()  # the settings that those changed, even where they are back where they were
        self._later: list[_Change] = []  # what interrupted engines changed after the checkpoint, by step
        self._tested = 0  # the epoch after which the network was observed last
        self._saved: tuple[int, int, int] | None = None  # position of the last checkpoint
        self._earlier_seconds = 0.0  # of training, by engines before this one
        self._saved_at = self._gpu_at = self._clock = self._began = time.monotonic()
        self._images_done = 0  # by this engine
        self._ran: list[str] = []  # what ran the HaH blocks

    # Preparation

    def prepare(self) -> None:
        """Images, network and optimizer, continued from the newest checkpoint where there is one.

        Raises RequestError where there are none, where no checkpoint is whole, or where a setting cannot be so.
        """
        data, seed = self.experiment.data, self.experiment.seed
        images = archives.load(data.dataset)
        train = Split.of(images.x_train, images.y_train, self.device).first(data.train_limit)
        self._test = Split.of(images.x_test, images.y_test, self.device).first(data.test_limit)
        self._train, self._validation = split_off(train, data.validation, seed)
        self._per_epoch = -(-len(self._train) // self.experiment.train.batch_size)
        torch.manual_seed(seed)
        self.network = VGG.from_experiment(self.experiment).to(self.device)
        self.network.to(memory_format=torch.channels_last)
        self._step = Step(self.network, self.experiment, self.device, self.record.warning)
        self.record.check()  # the next engine's files are not those that a killed one left
        for folder in (self.run.path, self.run.checkpoints, self.run.results):
            clear_temporary(folder)
        found = checkpoints.newest(self.run)
        if found is not None:
            for warning in found.warnings:
                self.record.warning(f"{warning}; continuing from the checkpoint before it")
            self._restore(found.checkpoint)
        self._recall()
        for name in self.without:
            self._withdraw(name)
        for name, value in self.sets.items():
            self.change(name, value, uuid.uuid4().hex)
        self._replay()
        self._facts = {
            "seed": seed,
            "dataset": {"name": data.dataset, "sha256": images.fingerprint, "source": images.source},
            "network": {"parameters": self.experiment.parameters(), "macs": self.experiment.macs()},
        }

    def _note(self, **facts: Any) -> None:
        """Write facts into the manifest, over what it says of them."""
        self.record.check()
        replace_json(self.run.manifest, {**read_json(self.run.manifest), **facts})

    def _restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        try:
            self.experiment = presets.parse(checkpoint["experiment"])
            self.network.load_state_dict(checkpoint["network"])
            self._step.optimizer.load_state_dict(checkpoint["optimizer"])
            self.epoch, self.batch, self.step = (int(checkpoint[key]) for key in ("epoch", "batch", "step"))
            self._sums, self._best = dict(checkpoint["sums"]), dict(checkpoint["best"])
            self._applied = list(checkpoint["settings"])
            self._earlier_seconds = float(checkpoint["trained_seconds"])
            self._tested = int(checkpoint.get("tested", self.epoch))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RequestError(f"{self.run.id}: its checkpoint does not fit its experiment: {error}") from None
        self._step.configure(self.experiment)
        self._saved = self._position

    def _recall(self) -> None:
        """Say from where the record goes on, and find the settings that were changed after the checkpoint."""
        for event in Tail(self.run.events):
            if (made := _Change.of(event)) is None:
                continue
            self._supersede(made.name, made.step)
            if made.id in self._applied:
                self._changed.update([made.name] if made.moved else [])
            elif not made.withdrawn:
                self._later.append(made)
        self._later.sort(key=lambda made: made.step)
        self.record.event("position", step=self.step, epoch=self.epoch, batch=self.batch)

    def _supersede(self, name: str, step: int) -> None:
        """A change that is made later in time, at ``step``, counts for more than those that were made further on."""
        self._later = [made for made in self._later if made.name != name or made.step < step]

    def _replay(self) -> None:
        while self._later and self._later[0].step <= self.step:
            made = self._later.pop(0)
            self._change(made.name, made.value, made.id, replayed=True)

    def _withdraw(self, name: str) -> None:
        """Leave out what was changed of a setting after the checkpoint, and say so in the record."""
        if all(made.name != name for made in self._later):
            raise RequestError(f"{name} has not been changed since {self._from()}; --set changes it now")
        self._supersede(name, self.step)
        value = flatten(self.experiment.dump()).get(name)
        self.record.event("set", id="", step=self.step, name=name, old=value, new=value, withdrawn=True)

    def _note_arithmetic(self) -> None:
        """Say in the manifest in which precision the network runs, and what has run its HaH blocks and divided its
        weights in this engine."""
        parts = list(self.network.modules())
        ran = {part.ran for part in parts if isinstance(part, HaHBlock)} or {"no HaH block"}
        divided = {part.ran for part in parts if isinstance(part, NormalizedConv2d)} - {"", "reference"}
        said = ", ".join(sorted(ran | divided))
        if said not in self._ran:
            self._ran.append(said)
            used = precision(self.experiment, self.device)
            self._note(arithmetic={"precision": used, "kernels": ", then ".join(self._ran)})

    def goes_on(self) -> str:
        return f"the last good checkpoint is of {self._from()}" if self._saved else "there is no checkpoint yet"

    def _from(self) -> str:
        epoch, batch, step = self._saved or (0, 0, 0)
        return f"step {step} ({epoch} epochs and {batch} batches)"

    # The run

    def __call__(self) -> None:
        """Say what it depends on, train, and take up the evaluation that is to follow."""
        self.record.open_tensorboard(self.experiment, self.step)
        self._note(
            schema_version=SCHEMA_VERSION,
            layout_version=LAYOUT_VERSION,
            versions=manifest.versions(),
            source=manifest.source(),
            **manifest.machine(),
            device=self.job.place.facts(),
            **self._facts,
        )
        self.train()
        # The job is there before the run says that it is finished: whoever waits for that finds it.
        self.following = self._take_evaluation()

    def train(self) -> None:
        """Train to the end and commit the final checkpoint; raises Stopped, DivergedError, or what went wrong."""
        self._began = self._clock = self._saved_at = time.monotonic()
        self._show()
        self.record.update(status="running", phase="training", stopped_by="", began=time.time())
        try:
            self._attend(stepping=True)
            while self.epoch < self.experiment.train.epochs:
                self._train_epoch()
                self._end_epoch()
            if self._tested < self.epoch:  # the number of epochs was lowered to where it is
                observed = self._observe(self.epoch)
                self.record.epoch(self.epoch, self.step, {}, observed)
                self._choose_best(observed)
        except Stopped as stopped:
            if stopped.save:
                self.save("stop")
            raise
        self.save("end")

    def _take_evaluation(self) -> tuple[RunDirectory, Lock] | None:
        """The evaluation that the experiment asks for, described, with the right to do it; None for none."""
        if not self.experiment.evaluate.suites:
            return None
        self.record.check()
        try:
            lock = evaluations.take(self.run)
            evaluations.prepare(self.run, self.experiment, "last")
        except (RequestError, OSError) as error:
            self.record.warning(f"the evaluation that should follow cannot begin: {error}")
            return None
        return self.run.evaluation, lock

    def position(self) -> dict[str, Any]:
        return {"step": self.step, "epoch": self.epoch}

    def relief(self) -> str:
        batch = self.experiment.train.batch_size
        graph = " or set compute.cuda_graph=false," if self._step.captured else ""
        return f"lower train.batch_size ({batch}) or model.width,{graph} or choose another compute.device"

    def explained(self, error: BaseException) -> str:
        return (
            f"diverged at {error}; {self.goes_on()}" if isinstance(error, DivergedError) else super().explained(error)
        )

    def _train_epoch(self) -> None:
        data, train = self.experiment.data, self.experiment.train
        epoch = Epoch(self._train, train.batch_size, data.augment, self.experiment.seed, self.epoch + 1)
        self.network.train()
        while self.batch < self._per_epoch:
            pixels, labels = epoch.batch(self.batch)
            self._step(pixels, labels, self.step + 1, learning_rate(self.experiment, self.epoch + 1))
            if not self._ran:
                self._note_arithmetic()
            self.batch += 1
            self.step += 1
            if self._step.full:
                self._drain()
            self._replay()
            self._attend(stepping=True)
            if time.monotonic() - self._saved_at > self.experiment.checkpoints.minutes * 60:
                self.save("minutes")

    def _end_epoch(self) -> None:
        """Observe where it is due, say how the epoch went, and save.

        An engine that is stopped in here has done every batch of the epoch, so the next one comes straight back.
        """
        self._drain()
        self._note_arithmetic()
        epoch, every = self.epoch + 1, self.experiment.observe.every
        last = epoch == self.experiment.train.epochs
        means = {name: total / self._sums["images"] for name, total in self._sums.items() if name != "images"}
        observed = self._observe(epoch) if last or epoch % every == 0 else {}
        if observed and (last or (epoch // every) % 10 == 1):
            weights, blocks = self.network.state_dict(), range(len(self.network.blocks))
            self.record.pictures(self.step, [weights[f"blocks.{place}.conv.weight"] for place in blocks])
        self.record.epoch(epoch, self.step, means, observed)
        self.epoch, self.batch, self._sums = epoch, 0, {}
        self._choose_best(observed)
        if epoch in self.experiment.checkpoints.keep:
            self._write(f"epoch-{epoch}", self._weights())
        if epoch % self.experiment.checkpoints.every == 0:
            self.save("epoch")
        self._show()

    def _observe(self, epoch: int) -> dict[str, float]:
        """What the network of now shows on test images, after so many epochs; raises DivergedError."""
        self.record.update(phase="testing")
        look, hah = self.experiment.observe, self.experiment.hah
        with self._step.autocast():
            observed = observe(
                self.network,
                self._test,
                probed=look.images,
                noise_std=look.noise_std,
                seed=self.experiment.seed,
                top_k=hah.top_k,
                lambda_=hah.lambda_,
                progress=self._attend,
            )
            if "test/loss" not in observed:
                raise DivergedError(f"step {self.step}: the loss on test images is no number")
            if len(self._validation):
                observed["validation/accuracy"] = accuracy(self.network, self._validation, self._attend)
        self.record.update(phase="training")
        self._tested = epoch
        self._clock = time.monotonic()  # what was not training does not count as throughput
        return observed

    # The record

    def _drain(self) -> None:
        measured = self._step.drain()
        if measured is None:
            return
        # Step by step, so that the sums do not depend on where the steps were drained.
        for name, column in measured.columns.items():
            for value, count in zip(column, measured.counts, strict=True):
                self._sums[name] = self._sums.get(name, 0.0) + value * count
        self._sums["images"] = self._sums.get("images", 0.0) + measured.images
        self._images_done += measured.images
        now = time.monotonic()
        rate, self._clock = measured.images / max(now - self._clock, 1e-9), now
        lr = learning_rate(self.experiment, self.epoch + 1)
        values = {**measured.means(), "train/lr": lr, "train/images_per_second": rate, **self._gpu_metrics(now)}
        self.record.train(self.epoch + 1, measured.first, measured.columns[LOSS], values)
        left = len(self._train) * self.experiment.train.epochs - self._images_total
        eta = max(0.0, left * (now - self._began) / self._images_done)
        self.record.update(images_per_second=rate, trained_seconds=self._seconds, eta_seconds=eta)

    @property
    def _images_total(self) -> int:
        batch = min(self.batch * self.experiment.train.batch_size, len(self._train))
        return len(self._train) * self.epoch + batch

    @property
    def _seconds(self) -> float:
        """Seconds of training by this and earlier engines, pauses left out."""
        return self._earlier_seconds + time.monotonic() - self._began

    @property
    def _position(self) -> tuple[int, int, int]:
        return self.epoch, self.batch, self.step

    def _show(self) -> None:
        epochs = self.experiment.train.epochs
        now = self.experiment.dump()
        names, values = self._changed.union(differences(self._written, now)), flatten(now)
        changed = {name: values.get(name) for name in sorted(names)}
        self.record.update(
            epoch=self.epoch, epochs=epochs, step=self.step, steps=self._per_epoch * epochs, changed=changed,
            group=fingerprint(self.experiment, seed=False), seed=self.experiment.seed,
        )  # fmt: skip

    def _gpu_metrics(self, now: float) -> dict[str, float]:
        gpu = self.job.place.choice.gpu
        if gpu is None or now - self._gpu_at < GPU_SECONDS:
            return {}
        self._gpu_at = now
        seen = next((one for one in devices.gpus() if one.uuid == gpu.uuid), None)
        if seen is None:
            return {}
        used = {"gpu/memory_gib": seen.memory_gib - seen.free_gib}
        return used if seen.utilisation is None else {**used, "gpu/utilisation": seen.utilisation}

    # Checkpoints

    def save(self, why: str) -> None:
        """Commit a checkpoint of the present position, and the best weights where they are new."""
        self._drain()  # raises where the loss is no number: such weights are not kept
        if self._saved == self._position and why in ("stop", "end") and self._best_weights is None:
            return
        self.record.check()
        if self._best_weights is not None:
            self._write("best", self._best_weights)
            self._best_weights = None
        self.record.update(phase="saving")
        self.record.beat(SAVE_PATIENCE)
        checkpoints.rotate(
            self.run,
            {
                **self._weights(copy=False),
                "optimizer": self._step.optimizer.state_dict(),
                "batch": self.batch,
                "sums": self._sums,
                "best": self._best,
                "settings": self._applied,
                "trained_seconds": self._seconds,
                "tested": self._tested,
            },
            self.record.check,
        )
        self.record.event("checkpoint", name="last", why=why, step=self.step, epoch=self.epoch, batch=self.batch)
        self.record.update(phase="training")
        self._saved, self._saved_at = self._position, time.monotonic()
        self._clock = time.monotonic()

    def _weights(self, copy: bool = True) -> dict[str, Any]:
        """The network of now and where it is from; raises DivergedError where a weight is no number."""
        state = {name: tensor.clone() if copy else tensor for name, tensor in self.network.state_dict().items()}
        finite = torch.stack([tensor.isfinite().all() for tensor in state.values()]).tolist()
        if not all(finite):
            raise DivergedError(f"step {self.step}: {list(state)[finite.index(False)]} is not finite")
        return {"network": state, "experiment": presets.stored(self.experiment), "epoch": self.epoch, "step": self.step}

    def _write(self, name: str, checkpoint: dict[str, Any]) -> None:
        self.record.beat(SAVE_PATIENCE)
        checkpoints.write(self.run.checkpoints / f"{name}.pt", checkpoint, self.record.check)
        facts = {key: value for key, value in checkpoint.items() if key in ("epoch", "step", "metric", "value")}
        self.record.event("checkpoint", name=name, **facts)

    def _choose_best(self, observed: dict[str, float]) -> None:
        """Remember the best weights by validation accuracy, else by test accuracy (the metric's name says which)."""
        metric = "validation/accuracy" if len(self._validation) else CLEAN
        value = observed.get(metric)
        if value is not None and value > self._best.get("value", -math.inf):
            self._best = {"metric": metric, "value": value, "epoch": self.epoch}
            self._best_weights = {**self._weights(), "metric": metric, "value": value}

    # Commands

    def _attend(self, stepping: bool = False) -> None:
        """Answer what has arrived; ``stepping``: between steps, where settings may change."""
        held = self.job.attend(self._answer if stepping else self._put_off)
        self._began += held
        self._clock += held
        self._saved_at += held

    def _answer(self, command: Command) -> str:
        try:
            self.change(command.name, command.value, command.id)
        except RequestError as error:
            return str(error)
        return ""

    def _put_off(self, command: Command) -> str | None:
        # Nobody shall wait for a step that may never come.
        return "the run is paused while it is tested; resume it first" if self.job.paused else None

    def change(self, name: str, value: Any, id: str) -> None:
        """Change a setting between two steps; raises RequestError for a value or a setting that cannot be."""
        self._change(name, value, id)

    def _change(self, name: str, value: Any, id: str, replayed: bool = False) -> None:
        changed = presets.change(name, value, self.experiment)
        begun = self.epoch + (self.batch > 0)
        if changed.train.epochs < begun:
            raise RequestError(f"train.epochs: must be at least {begun}, the epoch the run is in, got {value}")
        if not replayed:
            self._supersede(name, self.step)
        old, new = (flatten(experiment.dump()).get(name) for experiment in (self.experiment, changed))
        self.record.event("set", id=id, step=self.step, name=name, old=old, new=new, replayed=replayed)
        self.experiment = changed
        self._applied.append(id)
        if old != new:
            self._changed.add(name)
        self._step.configure(changed)
        self._show()


@torch.no_grad()
def accuracy(network: torch.nn.Module, split: Split, progress: Callable[[], None] = lambda: None) -> float:
    """The fraction of a split's images that the network classifies correctly."""
    correct = 0
    with evaluating(network):
        for images, labels in split.batches(BATCH):
            correct += int(right(network(images), labels).sum())
            progress()
    return correct / len(split)
