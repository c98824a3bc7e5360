"""The evaluation of a run as a job of its own: suites in order, results saved piece by piece, commands answered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.data import archives
from engine.data.batches import Split
from engine.disk import read_json, replace_json, sweep
from engine.evaluation import suites
from engine.evaluation.pieces import Pieces
from engine.evaluation.suites import Subject
from engine.experiment import Experiment, RequestError, presets
from engine.experiment.datasets import Suite
from engine.experiment.schema import Evaluate
from engine.nn import VGG
from engine.runs import manifest, store
from engine.runs.control import Inbox
from engine.runs.layout import RunDirectory
from engine.runs.process import PATIENCE
from engine.training import checkpoints
from engine.training.loop import Stopped
from engine.training.record import Record

RESULT_VERSION = 1
_PAUSE_POLL = 0.05


class Attended(nn.Module):
    """A network that shows life at every forward pass, so that a long attack can be stopped in the middle."""

    def __init__(self, network: nn.Module, attend: Callable[[], None]) -> None:
        super().__init__()
        self.network, self._attend = network, attend

    def forward(self, images: Tensor) -> Tensor:
        self._attend()
        logits: Tensor = self.network(images)
        return logits


class Evaluation:
    """One evaluation of one checkpoint of ``run``; ``record`` is the job's own."""

    def __init__(
        self,
        run: RunDirectory,
        experiment: Experiment,
        checkpoint: str,
        record: Record,
        device: torch.device,
        asked_to_stop: Callable[[], str] = lambda: "",
    ) -> None:
        self.run, self.settings, self.record, self.device = run, experiment.evaluate, record, device
        self._checkpoint, self._asked_to_stop, self._inbox = checkpoint, asked_to_stop, Inbox(record.run)
        self._paused, self._beat_at, self._patience = False, time.monotonic(), 60.0
        self._expected = self._beat_at  # when the present suite ends, by its estimate

    def prepare(self) -> None:
        """Read checkpoint and images; raises RequestError where one is missing or damaged."""
        self.subject, self._position = subject_of(self.run, self._checkpoint, self.settings, self.device, self._attend)
        for suite in self.settings.suites:
            suites.made_of(suite, self.subject, getattr(self.settings, suite))

    def __call__(self) -> None:
        """Every suite in order; raises Stopped."""
        sweep(self.run.results)
        self.record.open_tensorboard(None)
        self.record.update(status="running", began=time.time(), epochs=len(self.settings.suites))
        estimate = estimates(self.subject, self.settings)
        for done, suite in enumerate(self.settings.suites):
            self.record.update(epoch=done, phase=suite)
            self._measure(suite, estimate[suite])
        self.record.update(epoch=len(self.settings.suites))

    def _measure(self, suite: Suite, estimate: dict[str, Any]) -> None:
        settings = getattr(self.settings, suite)
        facts = {
            "schema_version": RESULT_VERSION,
            "suite": suite,
            "run": self.run.id,
            "dataset": self.subject.dataset,
            "checkpoint": self._position,
            "images": len(self.subject),
            "test_images": len(self.subject.archive.y_test),
            "seed": self.subject.seed,
            "settings": settings.model_dump(mode="json", by_alias=True),
            "method": suites.METHOD[suite],
            "made_of": suites.made_of(suite, self.subject, settings),
            "versions": {name: version for name, version in manifest.versions().items() if name in suites.PACKAGES},
            "device": self.record.state.device,
        }
        of = {"weights": suites.fingerprint(self.subject.network), "test_set": self.subject.archive.fingerprint}
        key = json.dumps([facts, *of.values()], sort_keys=True)
        name = f"{suite}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        final, partial = self.run.results / f"{name}.json", self.run.results / f".{name}.pieces"
        if (values := _kept(final, facts)) is not None:
            self.record.event("already", suite=suite, file=final.name)
            self.record.results(self._position["step"], values)
            partial.unlink(missing_ok=True)
            return
        seconds = estimate["seconds"]
        self.record.event("suite", suite=suite, images=len(self.subject), seconds=round(seconds, 1))
        print(f"{suite}: {len(self.subject)} images, at most about {seconds:.0f} s", flush=True)
        began = time.monotonic()
        self._expected = began + seconds

        def done(count: int) -> None:
            self.record.update(step=count, steps=max(count, estimate["pieces"]))
            self._attend()

        with Pieces(partial, done) as pieces, torch.random.fork_rng(devices=[]):
            facts["clean_accuracy"] = suites.clean(self.subject, pieces)
            facts["result"] = suites.measure(suite, self.subject, settings, pieces, final.with_suffix(".png"))
        replace_json(final, facts | of)
        partial.unlink(missing_ok=True)
        values = metrics(suite, facts)
        self.record.event(
            "result", suite=suite, file=final.name, values=values, said=said_of(facts["result"]),
            seconds=time.monotonic() - began,
        )  # fmt: skip
        self.record.results(self._position["step"], values)
        said = said_of(facts["result"])
        print(f"{suite}: {final.name}{said}", *(f"{name} {value:.4g}" for name, value in values.items()), flush=True)

    # Commands

    def _attend(self) -> None:
        """Show life, and answer what has arrived."""
        now = time.monotonic()
        gap, self._beat_at = now - self._beat_at, now
        self._patience = max(PATIENCE, min(600.0, 4 * gap), 0.9 * self._patience)
        self.record.beat(self._patience)
        self.record.update(eta_seconds=max(0.0, self._expected - now))
        if self._answer():
            phase = self.record.state.phase
            self.record.update(status="paused")
            while self._answer():
                time.sleep(_PAUSE_POLL)
                self.record.beat()
            self.record.update(status="running", phase=phase)
            self._beat_at = time.monotonic()
            self._expected += self._beat_at - now

    def _answer(self) -> bool:
        """Answer every command that waits; returns whether the evaluation is paused now."""
        if name := self._asked_to_stop():
            self.record.update(status="stopping")
            raise Stopped(save=True, signal=name)
        for command in self._inbox.read():
            refused = "an evaluation's settings are fixed" if command.verb == "set" else command.problem
            self.record.event("command", id=command.id, verb=command.verb, ok=not refused, text=refused)
            self._inbox.done(command)
            if command.verb in ("pause", "resume"):
                self._paused = command.verb == "pause"
            elif command.verb.startswith("stop"):
                self.record.update(status="stopping")
                raise Stopped(save=True)
        return self._paused


def subject_of(
    run: RunDirectory, checkpoint: str, settings: Evaluate, device: torch.device, attend: Callable[[], None]
) -> tuple[Subject, dict[str, Any]]:
    """What a run's checkpoint gives to measure, and where that checkpoint is from; raises RequestError."""
    network, position, trained = load(run, checkpoint)
    name = trained.data.dataset
    archive = archives.load(name)
    test = Split.of(archive.x_test, archive.y_test, device).first(settings.images)
    standard, standard_run = None, ""
    if settings.masking.standard and "masking" in settings.suites:
        other = store.another(settings.masking.standard, run, "evaluate.masking.standard")
        standard, standard_run = load(other, "last")[0].to(device), other.id
    watched, blocks = Attended(network.to(device), attend), list[nn.Module](network.blocks)
    subject = Subject(
        watched, blocks, test, archive, name, trained.seed, trained.classes, standard, standard_run,
        suites.at_once(watched, test),
    )  # fmt: skip
    return subject, position


def estimate(run: RunDirectory, experiment: Experiment, checkpoint: str, device: torch.device) -> dict[str, Any]:
    """For every suite of an experiment: how long the evaluation of a checkpoint takes at most."""
    subject, _ = subject_of(run, checkpoint, experiment.evaluate, device, lambda: None)
    return estimates(subject, experiment.evaluate)


def load(run: RunDirectory, name: str) -> tuple[VGG, dict[str, Any], Experiment]:
    """The network of a checkpoint, in evaluation mode on the CPU, where it is from, and the experiment it is of."""
    path = checkpoints.named(run, name)
    try:
        checkpoint = checkpoints.read(path)
        experiment = presets.parse(checkpoint["experiment"])
        network = VGG.from_experiment(experiment)
        network.load_state_dict(checkpoint["network"])
    except (checkpoints.DamagedError, OSError, KeyError, RuntimeError) as error:
        raise RequestError(f"{run.id}: {error}") from None
    network.to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval(), {"name": name, "epoch": checkpoint["epoch"], "step": checkpoint["step"]}, experiment


def estimates(subject: Subject, settings: Evaluate) -> dict[str, dict[str, Any]]:
    """For every suite: pieces, and seconds it takes at most, from passes that are timed here."""
    forward, gradient = _pace(subject)
    found: dict[str, dict[str, Any]] = {}
    for suite in settings.suites:
        passes, gradients, pieces = suites.cost(suite, getattr(settings, suite), subject)
        seconds = len(subject) * (passes * forward + gradients * gradient)
        if suite == "corruptions":
            seconds += suites.making(settings.corruptions, subject)
        found[suite] = {
            "images": len(subject),
            "pieces": pieces,
            "seconds": seconds,
            "seconds_per_image": seconds / len(subject),
        }
    return found


def _pace(subject: Subject) -> tuple[float, float]:
    """Seconds of a forward pass, and of one with the gradient of the images, for one image: the longer of two."""
    images = next(subject.batches())[1]
    seconds = []
    for with_gradient in (False, False, False, True, True, True):  # the first of each warms up
        began = time.perf_counter()
        with torch.set_grad_enabled(with_gradient):
            x = images.clone().requires_grad_(with_gradient)
            logits = subject.network(x)
            if with_gradient:
                torch.autograd.grad(logits.sum(), x)
        if images.is_cuda:
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - began) / len(images))
    return max(seconds[1:3]), max(seconds[4:])


def said_of(result: dict[str, Any]) -> str:
    """What has to be said beside the numbers of a result: made corruptions, missing ones."""
    said = ["generated"] if "generated" in result.get("source", "") else []
    said += [f"without {', '.join(result['missing'])}"] if result.get("missing") else []
    return f" ({', '.join(said)})" if said else ""


def _kept(path: Path, facts: dict[str, Any]) -> dict[str, float] | None:
    """The numbers of the result of these facts; None where there is none or it is not whole, so that it is measured."""
    with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError, OverflowError):
        before = read_json(path, 1 << 28)
        values = metrics(facts["suite"], before)
        same = all(before[name] == fact for name, fact in json.loads(json.dumps(facts)).items())
        if same and before["result"] and all(math.isfinite(value) for value in values.values()):
            return values
    return None


def metrics(suite: str, document: dict[str, Any]) -> dict[str, float]:
    """The numbers of a result that panels and TensorBoard show, by the names of `engine.report.numbers`, and the
    mean over all corruptions and severities."""
    result, found = document["result"], {"eval/clean_accuracy": document["clean_accuracy"]}
    match suite:
        case "noise":
            kind = "" if result["distribution"] == "gaussian" else f"{result['distribution']}-"
            found |= {f"eval/noise/{kind}{level['std']:g}/accuracy": level["mean"] for level in result["levels"]}
        case "sparsity":
            found |= {f"eval/sparsity/{n}/hoyer": block["hoyer"] for n, block in result["blocks"].items()}
        case "corruptions":
            every = [value for severities in result["accuracy"].values() for value in severities.values()]
            found["eval/corruptions/mean_accuracy"] = sum(every) / len(every) if every else None
        case "attacks":
            for attack in result["attacks"]:
                found[f"eval/attacks/{attack['norm']}-{attack['eps']:.3g}/robust_accuracy"] = attack["robust_accuracy"]
        case "minimum_norm":
            found |= {f"eval/minimum_norm/{norm}/median": value["median"] for norm, value in result["norms"].items()}
    return {name: value for name, value in found.items() if value is not None}
