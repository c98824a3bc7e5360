"""What is kept of a run for good: a small run directory without its record, that reports read like any other."""

from __future__ import annotations

import csv
import io
import json
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine import disk
from engine.disk import read_json, replace_text
from engine.experiment.mistakes import RequestError
from engine.runs import store
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory
from engine.runs.state import ENDED

CURVES = "curves.csv"  # metrics of every epoch
_LARGEST = 64 << 20  # bytes of a result file
_FOLDERS = re.compile(r"(^|=)[~/][^=]*/")  # of a path in a command line, also behind --option=


def keep(run: RunDirectory, folder: Path, add: Callable[[Path], object] = lambda path: None) -> Path:
    """Write FOLDER/<run id>/: experiment, manifest, state, labels, result files and learning curves, not the record,
    checkpoints or anything that names this machine. ``add`` may put more into it before it appears.

    What was kept of the run before is replaced. Raises RequestError for a run that has not ended, or a place that
    cannot be written or that holds something else.
    """
    look = store.look(run)
    if look.status not in ENDED:
        raise RequestError(f"{run.id} is {look.status}; its results are kept when it has ended")
    target, token = folder / run.id, secrets.token_hex(4)
    if target.exists() and not _is_kept(target):
        raise RequestError(f"{target} is something else than what was kept of a run; choose another --to")
    made, old = folder / f".{run.id}.{token}.tmp", folder / f".{run.id}.{token}.old"
    try:
        made.mkdir(parents=True)
        add(made)
        for name, text in _texts(run).items():
            (made / name).parent.mkdir(exist_ok=True)
            replace_text(made / name, text)
        replace_text(made / "state.json", _json(asdict(replace(look.state, engine={}))))
        if target.exists():
            target.rename(old)
        made.rename(target)
    except OSError as error:
        raise RequestError(f"{folder}: results cannot be kept there: {error.strerror}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return target


def folders(folder: Path) -> list[Path]:
    """``folder`` where runs lie in it, else those of its folders that hold runs; raises RequestError for none."""
    try:
        found = [folder] if store.all_runs(folder) else [one for one in sorted(folder.iterdir()) if store.all_runs(one)]
    except OSError as error:
        raise RequestError(f"--results {folder}: {error.strerror}") from None
    if not found:
        raise RequestError(f"--results {folder}: no results are kept there ('hah export RUN --results' does it)")
    return found


def _is_kept(path: Path) -> bool:
    """Whether a directory is what `keep` has written: a run directory with neither a record nor checkpoints."""
    there = {entry.name for entry in path.iterdir()} if path.is_dir() and not path.is_symlink() else set()
    return {"config.yaml", CURVES} <= there and there.isdisjoint({"events.jsonl", "checkpoints", "lock", ".git"})


def _texts(run: RunDirectory) -> dict[str, str]:
    """The files that are text, by their place in the directory."""
    texts = {"config.yaml": disk.read_text(run.config), CURVES: curves(run)}
    if manifest := read_json(run.manifest):
        texts["manifest.json"] = _json(_anywhere(manifest))
    if labels := read_json(run.labels):
        texts["labels.json"] = _json(labels)
    for path in sorted(run.results.glob("[!.]*.json")):
        if path.is_file() and not path.is_symlink():
            texts[f"results/{path.name}"] = disk.read_text(path, _LARGEST)
    return texts


def _anywhere(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without the names of this machine and of its folders."""
    shown = {name: value for name, value in manifest.items() if name not in ("host", "preset_path")}
    for name in ("command", "sets"):
        if isinstance(words := shown.get(name), list):
            shown[name] = [_FOLDERS.sub(r"\1", word) if isinstance(word, str) else word for word in words]
    dataset = shown.get("dataset")
    if isinstance(dataset, dict) and isinstance(dataset.get("source"), str):
        shown["dataset"] = {**dataset, "source": Path(dataset["source"]).name}
    return shown


def curves(run: RunDirectory) -> str:
    """The metrics of every epoch as CSV, one line each; those of an epoch that was done again are the later ones."""
    rows: dict[int, dict[str, Any]] = {}
    for event in Tail(run.events):
        epoch, values = event.get("epoch"), event.get("values")
        if event["kind"] == "position" and isinstance(epoch, int):
            rows = {done: row for done, row in rows.items() if done <= epoch}
        elif event["kind"] == "epoch" and isinstance(epoch, int) and isinstance(values, dict):
            rows[epoch] = {"step": event.get("step"), **values}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["epoch", *names])
    writer.writerows([epoch, *(row.get(name, "") for name in names)] for epoch, row in sorted(rows.items()))
    return file.getvalue()


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
