"""The evaluation of a run as a job of its own: suites in order, results saved piece by piece, commands answered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.data import archives
from engine.data.batches import Split
from engine.disk import clear_temporary, read_json, replace_json
from engine.evaluation import suites
from engine.evaluation.masking import SMOOTHING_DRAWS
from engine.evaluation.pieces import Pieces
from engine.evaluation.subject import BATCH, Subject, weights_digest
from engine.experiment import Experiment, RequestError, presets
from engine.experiment.datasets import Suite
from engine.experiment.schema import Evaluate
from engine.job import checkpoints
from engine.job.work import Job, Work
from engine.nn import VGG
from engine.results.measured import parsed
from engine.results.numbers import CLEAN
from engine.results.suites import SUITES
from engine.runs import manifest, store
from engine.runs.layout import RunDirectory
from engine.runs.state import State

RESULT_VERSION = 1
MOST_AT_ONCE = 4000
PACKAGES = ("torch", "numpy", "numba", "triton", "scipy", "pillow", "pyautoattack")  # that results may depend on


class Attended(nn.Module):
    """A network that shows life at every forward pass, so that a long attack can be stopped in the middle."""

    def __init__(self, network: nn.Module, attend: Callable[[], None]) -> None:
        super().__init__()
        self.network, self._attend = network, attend

    def forward(self, images: Tensor) -> Tensor:
        self._attend()
        logits: Tensor = self.network(images)
        return logits


class Evaluation(Work):
    """One evaluation of one checkpoint of ``run``, which the job's manifest names."""

    def __init__(self, job: Job, experiment: Experiment, run: RunDirectory) -> None:
        super().__init__(job, experiment)
        self.run, self.settings = run, experiment.evaluate
        self._expected = time.monotonic()  # when the present suite ends, by its forecast
        self._before = 0  # pieces of the suites that are done

    def prepare(self) -> None:
        """Read checkpoint and images."""
        checkpoint = str(read_json(self.job.directory.manifest).get("checkpoint", "last"))
        device = self.job.place.device
        self.subject, self._checkpoint = subject_of(self.run, checkpoint, self.settings, device, self._attend)
        for suite in self.settings.suites:
            suites.MEASURES[suite].made_of(self.subject, getattr(self.settings, suite))

    def __call__(self) -> None:
        """Every suite in order."""
        clear_temporary(self.run.results)
        self.record.open_tensorboard(None)
        self.record.update(status="running", began=time.time(), suites=len(self.settings.suites))
        expected = forecasts(self.subject, self.settings)
        self.record.update(pieces=sum(one["pieces"] for one in expected.values()))
        for done, suite in enumerate(self.settings.suites):
            self.record.update(suite=done, piece=self._before, phase=suite)
            self._measure(suite, expected[suite])
            self._before += expected[suite]["pieces"]
        self.record.update(suite=len(self.settings.suites), piece=self._before)

    def _measure(self, suite: Suite, expected: dict[str, Any]) -> None:
        settings = getattr(self.settings, suite)
        facts = {
            "schema_version": RESULT_VERSION,
            "suite": suite,
            "run": self.run.id,
            "dataset": self.subject.dataset,
            "checkpoint": self._checkpoint,
            "images": len(self.subject),
            "test_images": len(self.subject.archive.y_test),
            "seed": self.subject.seed,
            "settings": settings.model_dump(mode="json", by_alias=True),
            "method": SUITES[suite].method,
            "made_of": suites.MEASURES[suite].made_of(self.subject, settings),
            "versions": {name: version for name, version in manifest.versions().items() if name in PACKAGES},
            "device": self.record.state.device,
        }
        of = {"weights": weights_digest(self.subject.network), "test_set": self.subject.archive.fingerprint}
        key = json.dumps([facts, *of.values()], sort_keys=True)
        name = f"{suite}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        final, partial = self.run.results / f"{name}.json", self.run.results / f".{name}.pieces"
        if (values := self._kept(suite, final, facts)) is not None:
            self.record.event("already", suite=suite, file=final.name)
            self.record.results(self._checkpoint["step"], values)
            partial.unlink(missing_ok=True)
            return
        seconds = expected["seconds"]
        self.record.event("suite", suite=suite, images=len(self.subject), seconds=round(seconds, 1))
        print(f"{suite}: {len(self.subject)} images, at most about {seconds:.0f} s", flush=True)
        began = time.monotonic()
        self._expected = began + seconds

        def done(count: int) -> None:
            self.record.update(piece=self._before + min(count, expected["pieces"]))
            self._attend()

        with Pieces(partial, done) as pieces, torch.random.fork_rng(devices=[]):
            facts["clean_accuracy"] = suites.clean(self.subject, pieces)
            picture = final.with_suffix(".png")
            facts["result"] = suites.MEASURES[suite].measure(self.subject, settings, pieces, picture)
        replace_json(final, facts | of)
        partial.unlink(missing_ok=True)
        values = self._shown(suite, json.loads(json.dumps(facts)))  # as it will be read
        self.record.event(
            "result", suite=suite, file=final.name, values=values, said=said_of(facts["result"]),
            seconds=time.monotonic() - began,
        )  # fmt: skip
        self.record.results(self._checkpoint["step"], values)
        said = said_of(facts["result"])
        print(f"{suite}: {final.name}{said}", *(f"{name} {value:.4g}" for name, value in values.items()), flush=True)

    def _shown(self, suite: Suite, document: dict[str, Any]) -> dict[str, float]:
        """The numbers of a result that panels and TensorBoard have room for; raises ValueError where it is none."""
        numbers = parsed(document, suite, State(), 0.0).numbers
        clean = numbers.pop(CLEAN)
        return {CLEAN: clean.value, **SUITES[suite].shown(numbers)}

    def _kept(self, suite: Suite, path: Path, facts: dict[str, Any]) -> dict[str, float] | None:
        """The numbers of the result of these facts; None where there is none or it is not whole: it is measured."""
        with contextlib.suppress(ValueError):
            before = read_json(path, 1 << 28)
            values = self._shown(suite, before)
            if all(before.get(name) == fact for name, fact in json.loads(json.dumps(facts)).items()):
                return values
        return None

    def position(self) -> dict[str, Any]:
        return {"suite": self.record.state.suite, "piece": self.record.state.piece}

    def _attend(self) -> None:
        self._expected += self.job.attend(lambda command: "an evaluation's settings are fixed")
        self.record.update(eta_seconds=max(0.0, self._expected - time.monotonic()))


def at_once(network: nn.Module, test: Split) -> int:
    """How many images to take at once: 100 on a CPU, on a GPU what fits half of its free memory where each is copied
    eight times (`masking`) and a gradient is taken, by what 100 of ``test`` take."""
    device = test.labels.device
    if device.type != "cuda":
        return BATCH
    images, _ = next(test.batches(BATCH))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    torch.autograd.grad(network(images.requires_grad_()).sum(), images)
    each = (torch.cuda.max_memory_allocated(device) - before) / len(images)
    fits = int(torch.cuda.mem_get_info(device)[0] / 2 / SMOOTHING_DRAWS / max(each, 1))
    return max(BATCH, min(MOST_AT_ONCE, fits // BATCH * BATCH))


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
        at_once(watched, test),
    )  # fmt: skip
    return subject, position


def forecast(run: RunDirectory, experiment: Experiment, checkpoint: str, device: torch.device) -> dict[str, Any]:
    """For every suite of an experiment: how long the evaluation of a checkpoint takes at most."""
    subject, _ = subject_of(run, checkpoint, experiment.evaluate, device, lambda: None)
    return forecasts(subject, experiment.evaluate)


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


def forecasts(subject: Subject, settings: Evaluate) -> dict[str, dict[str, Any]]:
    """For every suite: pieces, and seconds it takes at most, from passes that are timed here."""
    forward, gradient = _pace(subject)
    found: dict[str, dict[str, Any]] = {}
    for suite in settings.suites:
        cost = suites.MEASURES[suite].cost(getattr(settings, suite), subject)
        seconds = len(subject) * (cost.passes * forward + cost.gradients * gradient) + cost.seconds
        found[suite] = {
            "images": len(subject),
            "pieces": cost.pieces,
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
