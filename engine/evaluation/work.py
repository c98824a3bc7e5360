"""The evaluation of a run as a job of its own: suites in order, results saved piece by piece, commands answered.

Other processes may share the pieces: those that the job starts beside it, and any that `python -m engine share` is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.data import archives
from engine.data.batches import Split
from engine.disk import clear_temporary, read_json, replace_json
from engine.evaluation import suites
from engine.evaluation.beside import LOOK, Beside
from engine.evaluation.masking import SMOOTHING_DRAWS
from engine.evaluation.pieces import Claims, Pieces, agreed
from engine.evaluation.subject import BATCH, Subject, weights_digest
from engine.experiment import Experiment, RequestError, presets
from engine.experiment.datasets import Suite
from engine.experiment.schema import Evaluate
from engine.job import checkpoints
from engine.job.work import Job, Place, Stopped, Work
from engine.nn import VGG
from engine.results.measured import parsed
from engine.results.numbers import CLEAN
from engine.results.suites import SUITES
from engine.runs import manifest, shares, store
from engine.runs.control import Inbox
from engine.runs.launch import Given
from engine.runs.layout import RunDirectory
from engine.runs.state import State

RESULT_VERSION = 1
MOST_AT_ONCE = 4000
WAIT = 0.05  # seconds between two looks at what another process still measures
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


@dataclass(frozen=True)
class Measurement:
    """One suite of an evaluation. ``facts`` and ``of`` are what its result depends on, so its file is named by them."""

    suite: Suite
    settings: Any
    facts: dict[str, Any]
    of: dict[str, str]
    folder: Path

    @cached_property
    def name(self) -> str:
        key = json.dumps([self.facts, *self.of.values()], sort_keys=True)
        return f"{self.suite}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"

    @property
    def final(self) -> Path:
        return self.folder / f"{self.name}.json"

    def beside(self, ending: str) -> Path:
        """A file that is there while it is measured."""
        return self.folder / f".{self.name}.{ending}"

    def clear(self) -> None:
        """Take away what was there while it was measured."""
        for ending in ("pieces", "*.pieces", "claims"):
            for path in self.folder.glob(f".{self.name}.{ending}"):
                path.unlink(missing_ok=True)

    def kept(self) -> dict[str, float] | None:
        """The numbers of the result of these facts; None where there is none or it is not whole: it is measured."""
        with contextlib.suppress(ValueError):
            before = read_json(self.final, 1 << 28)
            values = self.shown(before)
            if all(before.get(name) == fact for name, fact in json.loads(json.dumps(self.facts)).items()):
                return values
        return None

    def shown(self, document: dict[str, Any]) -> dict[str, float]:
        """The numbers of a result that panels and TensorBoard have room for; raises ValueError where it is none."""
        numbers = parsed(document, self.suite, State(), 0.0).numbers
        clean = numbers.pop(CLEAN)
        return {CLEAN: clean.value, **SUITES[self.suite].shown(numbers)}


class Measuring(Work):
    """What every process of an evaluation has to do with: one checkpoint of ``run``, which the manifest of the job
    ``whole`` names. ``number``: of this process, from 1."""

    def __init__(
        self, job: Job, experiment: Experiment, run: RunDirectory, whole: RunDirectory, number: int, processes: int
    ) -> None:
        super().__init__(job, experiment)
        self.run, self.whole, self.settings = run, whole, experiment.evaluate
        self.number, self.processes = number, processes

    def prepare(self) -> None:
        """Read checkpoint and images."""
        checkpoint = str(read_json(self.whole.manifest).get("checkpoint", "last"))
        device = self.job.place.device
        self.subject, self._checkpoint = subject_of(
            self.run, checkpoint, self.settings, device, self._attend, self._at_once
        )
        for suite in self.settings.suites:
            suites.MEASURES[suite].made_of(self.subject, getattr(self.settings, suite))

    def measurement(self, suite: Suite) -> Measurement:
        """A suite of this evaluation."""
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
        return Measurement(suite, settings, facts, of, self.run.results)

    def parts(self, measurement: Measurement) -> Sequence[Callable[[Pieces], Any]]:
        """What processes share: the clean accuracy of every batch, then the parts of the suite."""
        measure = suites.MEASURES[measurement.suite]
        return [*suites.clean(self.subject), *measure.parts(self.subject, measurement.settings)]

    def walk(
        self, parts: Sequence[Callable[[Pieces], Any]], pieces: Pieces, claims: Claims
    ) -> Iterator[tuple[int, Any]]:
        """Measure every part that no other process measures, and give its number and what it found.

        Each process begins at a place of its own, so that they seldom meet.
        """
        first = len(parts) * (self.number - 1) // self.processes
        for number in (*range(first, len(parts)), *range(first)):
            if claims.take(number):
                pieces.look()
                yield number, parts[number](pieces)

    def position(self) -> dict[str, Any]:
        return {"suite": self.record.state.suite, "piece": self.record.state.piece}

    @abstractmethod
    def _attend(self) -> None:
        """Show life; called before every forward pass."""

    def _at_once(self, network: nn.Module, test: Split) -> int:
        """How many images to take at once: the same in every process, also in those that go on after a kill."""
        if test.labels.device.type != "cuda":
            return BATCH
        of = json.dumps([weights_digest(network), len(test), self.record.state.device])
        path = self.run.results / f".{hashlib.sha256(of.encode()).hexdigest()[:8]}.batch"
        return agreed(path, lambda: at_once(network, test, self.processes))


class Evaluation(Measuring):
    """One evaluation, alone or with processes ``beside`` that each get something (`Given`), or with so many that
    somebody starts ``elsewhere``: they measure what it would, it writes the results."""

    def __init__(
        self, job: Job, experiment: Experiment, run: RunDirectory, beside: Sequence[Given] = (), elsewhere: int = 0
    ) -> None:
        super().__init__(job, experiment, run, job.directory, 1, 1 + len(beside) + elsewhere)
        self._sure = 1 + len(beside)  # processes: those elsewhere may never come
        self._beside = Beside(job.directory, beside, self.record.warning)
        self._expected = time.monotonic()  # when the present suite ends, by its forecast
        self._before = 0  # pieces of the suites that are done
        self._count: Callable[[], object] = lambda: None  # looks how many pieces are known
        job.glance, job.passes_on = self._glance, self._beside.pass_on

    def __call__(self) -> None:
        """Every suite in order."""
        self.record.check()  # the next engine's files are not those that a killed one left
        clear_temporary(self.run.results)
        self.record.open_tensorboard(None)
        self.record.update(status="running", began=time.time(), suites=len(self.settings.suites))
        expected = forecasts(self.subject, self.settings, speed(self.job.place, self._sure))
        self.record.update(pieces=sum(one["pieces"] for one in expected.values()))
        with self._beside:
            for done, suite in enumerate(self.settings.suites):
                self.record.update(suite=done, piece=self._before, phase=suite)
                self._measure(self.measurement(suite), expected[suite])
                self._before += expected[suite]["pieces"]
        self.record.update(suite=len(self.settings.suites), piece=self._before, processes=1)
        for path in self.run.results.glob(".*.batch"):
            path.unlink(missing_ok=True)
        shares.clear(self.whole)

    def _measure(self, measurement: Measurement, expected: dict[str, Any]) -> None:
        suite, final, facts = measurement.suite, measurement.final, measurement.facts
        if (values := measurement.kept()) is not None:
            self.record.event("already", suite=suite, file=final.name)
            self.record.results(self._checkpoint["step"], values)
            measurement.clear()
            return
        self._beside.start()
        seconds = expected["seconds"]
        self.record.event("suite", suite=suite, images=len(self.subject), seconds=round(seconds, 1))
        print(f"{suite}: {len(self.subject)} images, at most about {seconds:.0f} s", flush=True)
        began = time.monotonic()
        self._expected = began + seconds

        def done(count: int) -> None:
            self.record.update(piece=self._before + min(count, expected["pieces"]))
            self._attend()

        with (
            Pieces(measurement.beside("pieces"), done) as pieces,
            Claims(measurement.beside("claims")) as claims,
            torch.random.fork_rng(devices=[]),
        ):
            self._count = lambda: self.record.update(piece=self._before + min(pieces.look(), expected["pieces"]))
            found = self._found(self.parts(measurement), pieces, claims)
            self._count = lambda: None
            clean = len(self.subject.batches())
            facts["clean_accuracy"] = sum(found[:clean]) / len(self.subject)
            picture = final.with_suffix(".png")
            facts["result"] = suites.MEASURES[suite].whole(self.subject, measurement.settings, found[clean:], picture)
        self.record.check()
        replace_json(final, facts | measurement.of)
        measurement.clear()
        values = measurement.shown(json.loads(json.dumps(facts)))  # as it will be read
        self.record.event(
            "result", suite=suite, file=final.name, values=values, said=said_of(facts["result"]),
            seconds=time.monotonic() - began,
        )  # fmt: skip
        self.record.results(self._checkpoint["step"], values)
        said = said_of(facts["result"])
        print(f"{suite}: {final.name}{said}", *(f"{name} {value:.4g}" for name, value in values.items()), flush=True)

    def _found(self, parts: Sequence[Callable[[Pieces], Any]], pieces: Pieces, claims: Claims) -> list[Any]:
        """What every part found, in order, whoever measured it: what is still measured elsewhere is waited for, what a
        process that is gone has left is measured here."""
        found = dict(self.walk(parts, pieces, claims))
        for number, part in enumerate(parts):
            if number not in found:
                while not claims.take(number) and self._beside.works():
                    self._attend()
                    time.sleep(WAIT)
                pieces.look()
                found[number] = part(pieces)
        return [found[number] for number in range(len(parts))]

    def _attend(self) -> None:
        self._expected += self.job.attend(lambda command: "an evaluation's settings are fixed")
        self.record.update(eta_seconds=max(0.0, self._expected - time.monotonic()))

    def _glance(self) -> None:
        if self._beside.look():
            self.record.update(processes=1 + self._beside.count)
            self._count()


class Share(Measuring):
    """What one further process measures of the evaluation ``whole``, into files of its own, ahead of whoever writes the
    results; it may be on another machine that sees the folder, and nobody need wait for it.

    Process ``number`` of about ``processes``.
    """

    def __init__(self, job: Job, experiment: Experiment, whole: RunDirectory, number: int, processes: int) -> None:
        super().__init__(job, experiment, RunDirectory(whole.path.parents[1]), whole, number, processes)
        self._inbox, self._looked = Inbox(whole), 0.0
        job.glance = self._glance

    def __call__(self) -> None:
        """Every suite in order, what of it is left."""
        self.record.update(status="running", began=time.time(), suites=len(self.settings.suites))
        measured = 0
        for done, suite in enumerate(self.settings.suites):
            self.record.update(suite=done, phase=suite)
            measurement = self.measurement(suite)
            if measurement.kept() is not None:
                continue

            def count(_known: int, before: int = measured) -> None:
                self.record.update(piece=before + pieces.measured)
                self._attend()

            with (
                Pieces(measurement.beside(f"{self.number}.pieces"), count) as pieces,
                Claims(measurement.beside("claims")) as claims,
                torch.random.fork_rng(devices=[]),
            ):
                for _ in self.walk(self.parts(measurement), pieces, claims):
                    pass
            measured += pieces.measured
            if measurement.kept() is not None:  # written meanwhile, by a process that did not know of these files
                measurement.clear()
        self.record.update(suite=len(self.settings.suites))

    def _attend(self) -> None:
        self.job.attend(lambda command: "an evaluation's settings are fixed")

    def _glance(self) -> None:
        """Stop where the whole evaluation is asked to, also while nobody is there to pass it on."""
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            stops = [command for command in self._inbox.read() if command.verb.startswith("stop")]
            if stops:
                raise Stopped(save=stops[0].verb == "stop")


def at_once(network: nn.Module, test: Split, processes: int = 1) -> int:
    """How many images to take at once: 100 on a CPU, on a GPU what fits half of its free memory where each is copied
    eight times (`masking`) and a gradient is taken, by what 100 of ``test`` take; and no more than leaves two batches
    for each of several ``processes``."""
    device = test.labels.device
    if device.type != "cuda":
        return BATCH
    images, _ = next(test.batches(BATCH))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    torch.autograd.grad(network(images.requires_grad_()).sum(), images)
    each = (torch.cuda.max_memory_allocated(device) - before) / len(images)
    fits = int(torch.cuda.mem_get_info(device)[0] / 2 / SMOOTHING_DRAWS / max(each, 1))
    most = MOST_AT_ONCE if processes == 1 else len(test) // (2 * processes)
    return max(BATCH, min(MOST_AT_ONCE, most // BATCH * BATCH, fits // BATCH * BATCH))


def speed(place: Place, processes: int) -> float:
    """How many times as fast as one process several are: on a CPU no more of them than it has cores for."""
    if place.choice.device != "cpu":
        return processes
    return min(processes, max(1.0, len(os.sched_getaffinity(0)) / torch.get_num_threads()))


def subject_of(
    run: RunDirectory,
    checkpoint: str,
    settings: Evaluate,
    device: torch.device,
    attend: Callable[[], None],
    choose: Callable[[nn.Module, Split], int] = at_once,
) -> tuple[Subject, dict[str, Any]]:
    """What a run's checkpoint gives to measure, so many images at once as ``choose`` says, and where that checkpoint is
    from; raises RequestError."""
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
        choose(watched, test),
    )  # fmt: skip
    return subject, position


def forecast(
    run: RunDirectory, experiment: Experiment, checkpoint: str, place: Place, processes: int
) -> dict[str, Any]:
    """For every suite of an experiment: how long the evaluation of a checkpoint takes at most, in several processes."""
    subject, _ = subject_of(run, checkpoint, experiment.evaluate, place.device, lambda: None)
    return forecasts(subject, experiment.evaluate, speed(place, processes))


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


def forecasts(subject: Subject, settings: Evaluate, times: float = 1.0) -> dict[str, dict[str, Any]]:
    """For every suite: pieces, and seconds it takes at most, from passes that are timed here, so many ``times`` as fast
    as one process."""
    forward, gradient = _pace(subject)
    found: dict[str, dict[str, Any]] = {}
    for suite in settings.suites:
        cost = suites.MEASURES[suite].cost(getattr(settings, suite), subject)
        seconds = (len(subject) * (cost.passes * forward + cost.gradients * gradient) + cost.seconds) / times
        found[suite] = {
            "images": len(subject),
            "pieces": cost.pieces,
            "seconds": seconds,
            "seconds_per_image": seconds / len(subject),
        }
    return found


def _pace(subject: Subject) -> tuple[float, float]:
    """Seconds of a forward pass, and of one with the gradient of the images, for one image: the longer of two."""
    images, _ = subject.at(subject.batches()[0])
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
