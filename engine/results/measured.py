"""What was measured of a run: its result files and, where they are silent, the last test of its training."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from engine.disk import read_json
from engine.experiment.datasets import DATASETS, Suite
from engine.experiment.mistakes import RequestError
from engine.results import checked
from engine.results.numbers import CLEAN, FROM_TRAINING, PAPER_EPS, Masking, Number, attack_name, noise_name, plain
from engine.results.parsers import Broken, Parsed
from engine.results.suites import SUITES
from engine.runs import store
from engine.runs.kept import CURVES
from engine.runs.layout import RunDirectory
from engine.runs.state import State, read_state

LARGEST = 64 << 20  # bytes of a result file: verdicts and norms of 10,000 images take about one million
MOST_FILES = 500  # of one run, the newest
_FILE = re.compile(rf"({'|'.join(SUITES)})-[0-9a-f]{{8}}\.json")
_COUNTED = re.compile(r"accuracy$|^eval/corruptions/\w+/[1-5]$")  # of images, each right or wrong
_CHECKPOINT = re.compile(r"last|previous|best|epoch-\d{1,9}")


@dataclass(frozen=True)
class Measured:
    """Everything known of one run; ``experiment`` is plain data, empty where it cannot be read; ``maskings``: by norm,
    Linf first."""

    run: RunDirectory
    state: State
    experiment: dict[str, Any]
    numbers: dict[str, Number]
    maskings: dict[str, Masking]
    remarks: tuple[str, ...] = ()

    @property
    def masking(self) -> Masking | None:
        """The checks in Linf, else in the norm that was measured."""
        return next(iter(self.maskings.values()), None)

    @property
    def changed(self) -> list[str]:
        """The settings that the network depends on and that were changed while it trained."""
        return store.changed_on_the_way(self.state)

    @property
    def seed(self) -> int | None:
        seed = self.experiment.get("seed")
        return seed if isinstance(seed, int) else None


def measured(run: RunDirectory, experiment: dict[str, Any] | None = None) -> Measured:
    """Read a run: of each number the preferred evaluation's, that is in this order no weaker attacks than the paper's,
    official corruptions before generated, the last checkpoint, more images, exactly the paper's attacks, the later one;
    of masking checks, before the checkpoint, those at the paper's eps and those that all ran.

    ``experiment``: its settings as they are now, where they are known already.
    """
    state, remarks = read_state(run), []
    try:
        experiment = experiment or store.experiment_of(run, state).dump()
    except RequestError as error:
        experiment = {}
        remarks.append(f"{run.id}: its config.yaml cannot be read: {plain(error.mistakes[0])}")
    numbers = dict(_of_training(state, experiment))
    found: list[Masking] = []
    broken: list[Broken] = []
    for file in _files(run, remarks):
        try:
            path = run.results / file
            document = read_json(path, LARGEST)
            suite = cast("Suite", file.rpartition("-")[0])
            # Of what is kept in a repository nobody knows when it was written: there its name decides.
            written = 0.0 if _is_kept(run) else path.stat().st_mtime
            new, masking, fell = parsed(document, suite, state, written)
        except ValueError as error:
            remarks.append(f"{run.id}: results/{file} is no result and was left out: {plain(error)}")
            continue
        for name, one in new.items():
            if name not in numbers or one.rank >= numbers[name].rank:
                numbers[name] = replace(one, file=file)
        found += [replace(masking, file=file)] if masking else []
        broken += fell
    numbers |= worst_cases(broken)
    by_norm = {one.norm: one for one in sorted(found, key=lambda one: one.rank)}
    maskings = {norm: by_norm[norm] for norm in PAPER_EPS if norm in by_norm}
    return Measured(run, state, experiment, numbers, maskings, tuple(remarks))


def _files(run: RunDirectory, remarks: list[str]) -> list[str]:
    """Names of the run's result files, the newest last; links and what is not called like one are passed over."""
    found, kept = [], _is_kept(run)
    try:
        if not stat.S_ISDIR(os.lstat(run.results).st_mode):
            raise ValueError("results is no folder of its own and was not read")
        with os.scandir(run.results) as entries:
            for entry in entries:
                if _FILE.fullmatch(entry.name):
                    facts = entry.stat(follow_symlinks=False)
                    if not stat.S_ISREG(facts.st_mode):
                        remarks.append(f"{run.id}: results/{entry.name} is no file and was left out")
                    elif facts.st_size > LARGEST:
                        remarks.append(f"{run.id}: results/{entry.name} is over {LARGEST >> 20} MiB and was left out")
                    else:
                        found.append((0 if kept else facts.st_mtime_ns, entry.name))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        remarks.append(f"{run.id}: {getattr(error, 'strerror', None) or error}")
        return []
    if len(found) > MOST_FILES:
        remarks.append(f"{run.id}: only the newest {MOST_FILES} of {len(found):,} result files were read")
    return [name for _, name in sorted(found)[-MOST_FILES:]]


def _is_kept(run: RunDirectory) -> bool:
    """Whether it is what a repository keeps of a run."""
    return (run.path / CURVES).exists()


def parsed(document: dict[str, Any], suite: Suite, state: State, written: float) -> Parsed:
    """What a result file of this suite holds, ``written`` at this time; raises ValueError with what is wrong."""
    if not document:
        raise ValueError("it is not a JSON object")
    if document.get("suite") != suite or type(document.get("schema_version")) is not int:
        raise ValueError(f"it does not say that it is a result of the suite {suite}")
    checkpoint, content = checked.part(document, "checkpoint", dict), checked.part(document, "result", dict)
    chosen, epoch = checkpoint.get("name"), checked.count(checkpoint, "epoch")
    if not isinstance(chosen, str) or not _CHECKPOINT.fullmatch(chosen):
        raise ValueError("checkpoint: its name is none")
    images, there = int(checked.number(document, "images", 1, 1e9)), checked.count(document, "test_images")
    labels: tuple[str, ...] = ()
    if images < there:
        labels += (f"first {images:,} images",)
    if chosen != "last":
        labels += (f"checkpoint {chosen}",)
    if epoch < state.epochs:
        labels += (f"epoch {epoch} of {state.epochs}",)
    clean = Number(checked.fraction(document, "clean_accuracy"), labels)
    numbers, masking, broken = SUITES[suite].parse(content, document, labels)
    # The last checkpoint, and rather one that has trained to the end.
    position = float(chosen == "last" and epoch >= state.epoch) + float(epoch >= state.epochs)
    place = (position, float(images), float(epoch), written)
    placed = {
        name: replace(
            one,
            rank=(one.rank[0], *place[:-1], *one.rank[1:], place[-1]),
            images=images if _COUNTED.search(name) else None,
            over=images,
        )
        for name, one in {CLEAN: clean, **numbers}.items()
    }
    same = (document.get(name) for name in ("run", "dataset", "weights", "test_set"))
    of = (chosen, epoch, images, there, *(str(one) for one in (checkpoint.get("step"), *same)))
    fell = [replace(one, of=of, labels=labels, rank=place[:-1]) for one in broken]
    return Parsed(placed, replace(masking, rank=(*masking.rank, *place)) if masking else None, fell)


def worst_cases(found: Collection[Broken]) -> dict[str, Number]:
    """Accuracy after everything that two or more results tried, at each size that one of them attacked with; only of
    checkpoints that no other comes before."""
    first = max((one.rank[0] for one in found), default=0.0)
    groups: dict[tuple[Any, ...], list[Broken]] = {}
    for one in found:
        if one.rank[0] == first:
            groups.setdefault((one.norm, *one.of), []).append(one)
    numbers: dict[str, Number] = {}
    for (norm, *_), group in sorted(groups.items(), key=lambda item: item[1][0].rank):
        if len(group) > 1:
            smallest = [min(each) for each in zip(*(one.smallest for one in group), strict=True)]
            labels = (*group[0].labels, " + ".join(sorted({one.what for one in group})))
            for eps in sorted({eps for one in group for eps in one.sizes}):
                left = sum(least > eps for least in smallest) / len(smallest)
                numbers[attack_name(norm, eps, "worst_case")] = Number(
                    left, labels, group[0].rank, images=len(smallest)
                )
    return numbers


def _of_training(state: State, experiment: dict[str, Any]) -> Iterator[tuple[str, Number]]:
    """What training tested last, under the names of evaluations; its noise is observe.noise_std, clamped."""
    if not experiment:
        return
    labels: tuple[str, ...] = (FROM_TRAINING,)
    if state.status != "finished" and state.epochs:
        labels = (*labels, f"epoch {state.epoch} of {state.epochs}")
    rank = (-1.0, float(state.status == "finished"), float(state.epoch))
    std, probed = experiment["observe"]["noise_std"], experiment["observe"]["images"]
    data = experiment["data"]
    tested = min(DATASETS[data["dataset"]].test_images, data["test_limit"] or 10**9)
    of_blocks = (*labels, f"first {probed:,} images") if probed < tested else labels
    for name, value in state.metrics.items():
        match name.split("/"):
            case ["test", "accuracy"]:
                ours, low, high, said = CLEAN, 0.0, 1.0, labels
            case ["test", "noisy_accuracy"]:
                ours, low, high, said = noise_name(std), 0.0, 1.0, labels
            case ["block", n, "sparsity"] if checked.is_block(n):
                ours, low, high, said = f"eval/sparsity/{n}/hoyer", 0.0, 1.0, of_blocks
            case ["block", n, "active_fraction"] if checked.is_block(n):
                ours, low, high, said = f"eval/sparsity/{n}/active_fraction", 0.0, 1.0, of_blocks
            case ["block", n, "snr_db"] if checked.is_block(n):
                ours, low, high, said = noise_name(std, f"snr_db/{n}"), -1e4, 1e4, of_blocks
            case _:
                continue
        with contextlib.suppress(ValueError):
            counted = tested if _COUNTED.search(ours) else None
            yield ours, Number(checked.finite(value, name, low, high), said, rank, images=counted)
