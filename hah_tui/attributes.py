"""What runs can be listed, sorted, filtered and grouped by: facts of a snapshot, metrics, settings, results.

An attribute has a name that is kept (`test/accuracy`, `hah.lambda`, `eval/noise/0.1/accuracy`) and is found by that or
by what a person would write for it (`clean`, `lambda`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, TypeVar

from engine.experiment.mistakes import RequestError
from engine.experiment.names import is_path
from engine.runs.metrics import CLEAN, LOSS, METRICS, Metric
from hah_tui.listing import ListedRun, Wants
from hah_tui.run_facts import evaluated
from hah_tui.text import age, duration, percent, shown_line

Kind = Literal["number", "fraction", "seconds", "moment", "words", "setting"]
_BLOCK = re.compile(r"block/([1-9]\d{0,2})/")
_OF_NAMES = ("name", "description", "tags", "seed")  # settings that runs are called by: facts of the snapshot
_RESULTS = ("clean_accuracy", "noise", "sparsity", "corruptions", "attacks", "minimum_norm")
_FRACTIONS = ("accuracy", "success_rate", "misclassified", "worst_case", "active_fraction")


class Dated(Protocol):
    """What has a day on which it was made: a run, a group."""

    @property
    def created(self) -> float: ...


T = TypeVar("T", bound=Dated)


@dataclass(frozen=True)
class Attribute:
    """``title`` is short, ``about`` says more; ``of`` takes it from a run, None where there is none; ``wants`` is what
    has to be read for that beside the snapshot; ``downwards``: the largest values come first."""

    name: str
    title: str
    of: Callable[[ListedRun], Any]
    kind: Kind = "number"
    wants: Wants | None = None
    downwards: bool = False
    about: str = ""

    @property
    def is_number(self) -> bool:
        """Whether all its values are."""
        return self.kind not in ("words", "setting")

    @property
    def is_mean(self) -> bool:
        """Whether its values over a group have a mean that says something."""
        return self.kind in ("fraction", "seconds", "number") and self.name not in ("seed", "epoch")

    def said(self, value: Any) -> str:
        """A value in a table, '-' for none."""
        if value is None:
            return "-"
        match self.kind:
            case "fraction":
                return percent(value)
            case "seconds":
                return duration(value)
            case "moment":
                return age(value)
            case "words":
                return shown_line(value)
            case "setting":
                from engine.experiment.naming import text

                parts = value if isinstance(value, list) else [value]
                said = [str(one).lower() if isinstance(one, bool) else text(one) for one in parts]
                return shown_line(",".join(said if len(said) <= 2 else [said[0], "..", said[-1]]))
        return f"{value:.4g}" if isinstance(value, float) else f"{value}"

    def spread(self, value: float) -> str:
        """A standard deviation in a table, to two digits."""
        if self.kind == "seconds":
            return f"±{duration(value)}"
        part = self.kind == "fraction"
        return "±" + f"{100 * value if part else value:#.2g}".rstrip(".") + "%" * part

    def place(self, value: Any) -> tuple[int, float, str]:
        """Where a value comes in an order: numbers first, then words."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return 0, value, ""
        return 1, 0.0, self.said(value).lower()


FACTS = {
    one.name: one
    for one in (
        Attribute("name", "run", lambda run: run.id, "words", about="the id of the run"),
        Attribute("status", "status", lambda run: run.look.status, "words", about="how it is"),
        Attribute("progress", "%", lambda run: run.look.state.progress, "fraction", about="how far it is"),
        Attribute("bar", "progress", lambda run: run.look.state.progress, "fraction", about="how far it is, as a bar"),
        Attribute("eta", "ETA", lambda run: run.look.state.eta_seconds if run.look.status == "running" else None,
                  "seconds", about="seconds to its end"),
        Attribute("curve", "loss", lambda run: run.look.state.metrics.get(LOSS),
                  about="the training loss so far, as a line"),
        Attribute("epoch", "epoch", lambda run: run.look.state.epoch, about="epochs trained"),
        Attribute("seed", "seed", lambda run: run.seed, wants="group", about="the seed"),
        Attribute("created", "age", lambda run: run.look.state.created or None, "moment", downwards=True,
                  about="when it was made"),
        Attribute("updated", "updated", lambda run: run.look.state.updated or None, "moment", downwards=True,
                  about="when its engine wrote last"),
        Attribute("trained", "trained", lambda run: run.look.state.trained_seconds or None, "seconds",
                  about="seconds of training, pauses left out"),
        Attribute("preset", "preset", lambda run: run.look.state.preset, "words", about="the preset it was made from"),
        Attribute("device", "device", lambda run: run.look.device, "words", about="what it runs on"),
        Attribute("job", "job", lambda run: run.look.slurm and run.look.slurm.job.id, "words",
                  about="its job in Slurm"),
        Attribute("node", "node", lambda run: run.look.slurm and run.look.slurm.node, "words",
                  about="the node of Slurm's that it is on"),
        Attribute("left", "left", lambda run: run.look.slurm and run.look.slurm.seconds_left, "seconds",
                  about="seconds until Slurm's time limit"),
        Attribute("why", "why", lambda run: run.look.why, "words", about="why it is as it is, or waits in Slurm"),
        Attribute("tags", "tags", lambda run: " ".join(run.tags), "words", about="its tags"),
        Attribute("note", "note", lambda run: run.labels.note, "words", about="the note on it"),
    )
}  # fmt: skip
_ALIASES = {
    "run": "name", "id": "name", "tag": "tags", "age": "created", "accuracy": CLEAN,
    **{one.label.lower().replace(" ", "_"): name for name, one in METRICS.items() if one.panel and not one.of_blocks},
}  # fmt: skip


PROGRESS = ("progress", "bar")


def found(word: str) -> Attribute:
    """The attribute that a person means; raises RequestError with what there is instead."""
    word = word.lower()
    name = _ALIASES.get(word, word)
    if name in FACTS:
        return FACTS[name]
    if "/" in name:
        if _metric(name) is not None or _is_result(name):
            return kept(name)
        raise RequestError(f"no metric is called {word!r}; {_near(word, metric_names(3))}")
    from engine.experiment.fields import fields

    fits = [one for one in fields() if one.lower() == word or one.lower().endswith(f".{word}")]
    exact = [one for one in fits if one.lower() == word]
    if len(exact or fits) == 1:
        return kept((exact or fits)[0])
    if fits:
        raise RequestError(f"{word!r} may be {' or '.join(fits)}; write which")
    if of_blocks := [one for one in METRICS.values() if one.of_blocks and word in (one.word, one.label.lower())]:
        raise RequestError(f"{word!r} is there for each block: write {of_blocks[0].of(3)} for the third")
    raise RequestError(f"no metric or setting is called {word!r}; {_near(word, (*_ALIASES, *FACTS, *fields()))}")


def kept(name: str) -> Attribute:
    """The attribute of a name as `Attribute.name` is; what has no such name is an attribute that no run has."""
    name = _ALIASES.get(name, name)
    return FACTS[name] if name in FACTS else _made(name)


@cache
def _made(name: str) -> Attribute:
    if "/" not in name:
        title = name.rpartition(".")[2]
        return Attribute(name, title, lambda run: run.setting(name), "setting", "settings", about="setting")
    if name.startswith("eval/"):
        last = name.rpartition("/")[2]
        part = name.startswith(("eval/corruptions/", "eval/attacks/")) or last.endswith(_FRACTIONS)
        kind: Kind = "fraction" if part and not name.endswith("/mce") else "number"
        title = "/".join(name.split("/")[1:])
        return Attribute(name, title, lambda run: run.results.get(name), kind, "results", True, "evaluation result")
    metric = _metric(name)
    title = name if metric is None else metric.label if not metric.of_blocks else f"{name.split('/')[1]}/{metric.label}"
    fraction = metric is not None and metric.unit == "fraction"
    best = metric is not None and metric.better == "higher"
    about = "" if metric is None else metric.title
    return Attribute(name, title, lambda run: run.look.state.metrics.get(name), "fraction" if fraction else "number",
                     downwards=best, about=about)  # fmt: skip


def settings() -> list[str]:
    """The names of all settings that have a value; the first call takes a tenth of a second."""
    from engine.experiment.fields import fields

    return [name for name, field in fields().items() if field.kind != "section" and name not in _OF_NAMES]


def metric_names(blocks: int) -> list[str]:
    """The names of all metrics of a network of so many blocks."""
    return [
        name
        for metric in METRICS.values()
        for name in ([metric.of(n) for n in range(1, blocks + 1)] if metric.of_blocks else [metric.name])
    ]


def offered(runs: Sequence[ListedRun]) -> list[Attribute]:
    """What there is to choose of some runs: facts, metrics, settings, what was evaluated of any of them."""
    blocks = (int(match[1]) for run in runs for name in run.look.state.metrics if (match := _BLOCK.match(name)))
    results = dict.fromkeys(name for run in runs for name in (run.results or evaluated(run.look.run)))
    return list(map(kept, [*FACTS, *metric_names(max(blocks, default=0)), *filter(is_path, results), *settings()]))


def ordered(
    entries: Iterable[T], by: Attribute, reverse: bool = False, value: Callable[[T], Any] | None = None
) -> list[T]:
    """Runs, or what else has a ``value`` and a day, by an attribute, the newest first of those that are alike; those
    that have none come last, either way."""
    of: Callable[[Any], Any] = value or by.of
    have, lack = [], []
    for entry in sorted(entries, key=lambda entry: -entry.created):
        found = of(entry)
        if found is None or found == "":
            lack.append(entry)
        else:
            have.append((by.place(found), entry))
    have.sort(key=lambda pair: pair[0], reverse=by.downwards != reverse)
    return [entry for _, entry in have] + lack


def wanted(attributes: Iterable[Attribute]) -> frozenset[Wants]:
    """What has to be read for some attributes."""
    return frozenset(one.wants for one in attributes if one.wants)


def _metric(name: str) -> Metric | None:
    return METRICS.get(_BLOCK.sub("block/*/", name))


def _is_result(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "eval" and len(parts) > 1 and parts[1] in _RESULTS and is_path(name)


def _near(word: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, names, 2, 0.6)
    examples = "clean, noisy, loss, block/3/snr_db, eval/noise/0.1/accuracy, hah.lambda"
    return f"did you mean {' or '.join(close)}?" if close else f"there are, for example, {examples}"
