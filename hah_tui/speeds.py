"""How fast networks were trained on this machine, and how long another training will take."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from engine.experiment import Experiment, RequestError, presets
from engine.experiment.datasets import DATASETS
from engine.experiment.document import read
from engine.runs import store
from engine.runs.metrics import RATE
from engine.runs.watcher import Look

SPEEDS = 30  # earlier runs that are asked how fast they were


@dataclass(frozen=True)
class Speed:
    """How fast a network was trained on this machine."""

    network: tuple[Any, ...]  # architecture, width
    exact: tuple[Any, ...]  # and what else decides
    images_per_second: float


def _network(experiment: Experiment) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    model, train = experiment.model, experiment.train
    attack = train.adversarial.steps if train.adversarial else 0
    return (model.architecture, model.width), (model.hah_blocks, attack, train.batch_size, train.precision)


def speed_of(look: Look) -> Speed | None:
    """The speed of one run, if it was trained here and says so."""
    rate = look.state.images_per_second or look.state.metrics.get(RATE)
    if not rate or rate <= 0 or look.state.engine.get("host") != socket.gethostname():
        return None
    try:
        return Speed(*_network(presets.validated(read(look.run.config))), rate)
    except RequestError:
        return None


def expected_seconds(experiment: Experiment, speeds: Iterable[Speed]) -> tuple[float, int] | None:
    """(seconds of training, from so many earlier runs of the same network), or None where none was trained here."""
    network, exact = _network(experiment)
    same = [speed for speed in speeds if speed.network == network]
    same = [speed for speed in same if speed.exact == exact] or same
    if not same:
        return None
    images = DATASETS[experiment.data.dataset].train_images
    images = min(images, experiment.data.train_limit or images) - experiment.data.validation
    rate = median(speed.images_per_second for speed in same)
    return experiment.train.epochs * images / rate, len(same)


def speeds(folder: Path) -> list[Speed]:
    """How fast the latest runs of this machine were."""
    return list(_speeds(folder))


def _speeds(folder: Path) -> Iterator[Speed]:
    for run in store.all_runs(folder)[:SPEEDS]:
        speed = speed_of(store.look(run))
        if speed is not None:
            yield speed
        time.sleep(0.005)  # the screen has a turn
