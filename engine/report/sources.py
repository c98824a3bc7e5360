"""Where each number is from: the run and result file, how it was measured in words, and the command that repeats it."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.disk import read_json
from engine.experiment import naming
from engine.report.tables import Report
from engine.results.measured import LARGEST, Measured
from engine.results.numbers import GENERATED, PAPER_EPS, Number, ball, plain
from engine.results.suites import suite_title


@dataclass(frozen=True)
class Source:
    """One result file of a run; ``how``: images, settings and what was attacked or generated, in words."""

    title: str
    how: str
    command: str


def runs_of(report: Report) -> list[Measured]:
    """Every run of a report, each once: the paper's networks, then the studies'."""
    own = {run.run: run for network in report.networks.values() for run in network.runs}
    return list((own | {run.run: run for study in report.studies for run in study.study.runs}).values())


def width(run: Measured) -> float:
    """The width of its network as a multiple of the paper's."""
    return float(run.experiment["model"]["width"]) if run.experiment else 1.0


def files_of(run: Measured) -> list[str]:
    """The result files that numbers or checks of a run are from, '' for its training."""
    found = {number.file for number in run.numbers.values()} | {one.file for one in run.maskings.values()}
    return sorted(found)


def document(report: Report) -> list[dict[str, Any]]:
    """Every run with how it was trained and measured, and the commands that do it again."""
    return [
        {
            "run": run.run.id,
            "width": width(run),
            "trained": trained(run),
            "command": training(run),
            "results": [
                {"file": file, "suite": one.title, "how": one.how, "command": one.command}
                for file in files_of(run)
                for one in [source(run, file)]
            ],
        }
        for run in runs_of(report)
    ]


@dataclass
class Sources:
    """The sources of a page in the order in which its numbers need them."""

    found: dict[tuple[str, str], Source] = field(default_factory=dict)
    runs: dict[str, Measured] = field(default_factory=dict)

    def places(self, pairs: Sequence[tuple[Measured, Number]]) -> list[int]:
        """The numbers, from 1, of the sources of these numbers."""
        keys = dict.fromkeys(self.key(run, number.file) for run, number in pairs)
        return [1 + list(self.found).index(key) for key in keys]

    def place(self, run: Measured, file: str) -> int:
        """The number of one source."""
        key = self.key(run, file)
        return 1 + list(self.found).index(key)

    def key(self, run: Measured, file: str) -> tuple[str, str]:
        key = run.run.id, file
        if key not in self.found:
            self.runs[run.run.id] = run
            self.found[key] = source(run, file)
        return key

    def of(self, run: str) -> Iterator[tuple[int, Source]]:
        """The sources of a run with their numbers."""
        for place, ((id, _), one) in enumerate(self.found.items(), 1):
            if id == run:
                yield place, one


def source(run: Measured, file: str) -> Source:
    """How the numbers of a result file were measured; '' is the last test of the training."""
    if not file:
        return Source("last test of the training", "the test images, at the end of the last epoch", training(run))
    document = read_json(run.run.results / file, LARGEST)
    suite = file.rpartition("-")[0]
    settings, checkpoint = _group(document, "settings"), _group(document, "checkpoint")
    images, there = document.get("images"), document.get("test_images")
    of = f"{images:,}" if images == there else f"the first {images:,} of {there:,}"
    said = [f"{of} test images", *_settings(settings), *_generated(document)]
    said.append(f"checkpoint {checkpoint.get('name')}, epoch {checkpoint.get('epoch')}")
    said.append(f"on {document.get('device')}, torch {_group(document, 'versions').get('torch')}")
    changes = _changes(run, suite, settings)
    command = f"hah eval {run.run.id} --suite {suite}" + (f" --images {images}" if images != there else "")
    if checkpoint.get("name") != "last":
        command += f" --checkpoint {shlex.quote(str(checkpoint.get('name')))}"
    command += "".join(f" --set {shlex.quote(one)}" for one in changes)
    return Source(suite_title(suite), plain("; ".join(map(str, said)), 1000), plain(command, 1000))


def training(run: Measured) -> str:
    """The command that trains the same network again."""
    words = read_json(run.run.manifest).get("command")
    if isinstance(words, list) and words[:1] == ["hah"] and all(isinstance(word, str) for word in words):
        return plain(shlex.join(words), 1000)
    return plain(f"hah run {shlex.quote(run.state.preset)} --set seed={run.seed}", 1000)


def trained(run: Measured) -> str:
    """What a run was trained on, in words."""
    manifest = read_json(run.run.manifest)
    device, versions = _group(manifest, "device"), _group(manifest, "versions")
    where = device.get("gpu") or f"{device.get('threads')} threads of {manifest.get('cpu')}"
    network = _group(manifest, "network").get("parameters")
    said = [
        f"{network:,} parameters" if type(network) is int else "",
        f"seed {run.seed}",
        f"epoch {run.state.epoch} of {run.state.epochs}, {run.state.status}{_time(run.state.trained_seconds)}",
        f"{where}, torch {versions.get('torch')}" if device else "",
        f"commit {str(_group(manifest, 'source').get('commit'))[:10]}" if _group(manifest, "source") else "",
        "with changes that are in no commit" if _group(manifest, "source").get("dirty") else "",
    ]
    return plain("; ".join(one for one in said if one), 600)


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f" after {minutes // 60}:{minutes % 60:02} hours" if minutes else ""


def _settings(settings: dict[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        if name == "names" and isinstance(value, list):
            yield f"{len(value)} corruptions"
        elif name != "examples":
            every = value if isinstance(value, list) else [value]
            shown = ", ".join(_entry(name, one) for one in every) or "none"
            yield f"{name.replace('_', ' ')} {shown}"


def _entry(name: str, value: Any) -> str:
    """One of the values of a setting, an eps as a ball."""
    eps = name in PAPER_EPS and isinstance(value, (int, float)) and math.isfinite(value)
    return ball(name, value) if eps else naming.text(value)


def _generated(document: dict[str, Any]) -> Iterator[str]:
    sources = _group(_group(document, "made_of"), "sources")
    of = {name: str(kind) for name, kind in sources.items()}
    kinds = {kind: [name for name, one in of.items() if one == kind] for kind in dict.fromkeys(of.values())}
    for kind, names in kinds.items():
        if kind == GENERATED:
            yield f"{len(names)} generated from the test images"
        else:
            yield f"{', '.join(names).replace('_', ' ')} {kind}"


def _changes(run: Measured, suite: str, settings: dict[str, Any]) -> Iterator[str]:
    """The settings of an evaluation that are not the run's own."""
    own = run.experiment.get("evaluate", {}).get(suite, {}) if run.experiment else {}
    for name, value in settings.items():
        if own.get(name) != value:
            yield f"evaluate.{suite}.{name}={json.dumps(value)}"


def _group(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
