"""Run directories again from runs that a repository keeps with their weights, so that more can be measured of them.

    python benchmarks/restore.py results/STUDY/RUN... --to RUNS

The weights become the last checkpoint, without an optimizer's state: such a run can be evaluated, and not trained
further. What was measured comes along; `hah export RUN --results --to results/STUDY` brings back what is new.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors import safe_open

from engine import disk
from engine.experiment.document import read
from engine.job import checkpoints
from engine.runs.layout import RunDirectory

FIRST = '{"time": 1, "kind": "log", "version": 1}\n'  # of a record, whose rest was not kept


def restore(kept: Path, folder: Path) -> RunDirectory:
    """A run directory in ``folder`` of what was kept of a run; raises FileExistsError, or OSError."""
    run = RunDirectory(folder / kept.name)
    run.path.mkdir(parents=True)
    for place in (run.control, run.checkpoints):
        place.mkdir()
    shutil.copytree(kept / "results", run.results)
    for name in ("manifest.json", "state.json"):
        shutil.copyfile(kept / name, run.path / name)
    with safe_open(kept / "model.safetensors", "pt") as file:
        facts = file.metadata()
        network = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    position = {name: int(facts[name]) for name in ("epoch", "step")}
    experiment = read(kept / "config.yaml").values
    checkpoints.write(run.checkpoints / "last.pt", {"network": network, **position, "experiment": experiment})
    disk.replace_text(run.events, FIRST)
    disk.replace_text(run.config, (kept / "config.yaml").read_text())  # last: with it there is a run
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kept", type=Path, nargs="+")
    parser.add_argument("--to", type=Path, required=True)
    arguments = parser.parse_args()
    for kept in arguments.kept:
        print(restore(kept, arguments.to).path)


if __name__ == "__main__":
    main()
