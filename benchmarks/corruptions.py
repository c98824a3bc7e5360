"""Corrupted CIFAR-10 test sets: seconds to make each at five severities, and to read it back from the cache.

    OMP_NUM_THREADS=1 python benchmarks/corruptions.py [--images 10000]

One process on one core (one thread, whatever OMP_NUM_THREADS says). Processor seconds beside wall seconds, as others
may use the machine. Frost needs its photographs in HAH_DATA/frost and is left out, and named, where they are missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from machine import report

from engine.data import archives
from engine.evaluation import corruptions, photographs
from engine.experiment.datasets import CORRUPTIONS, PAPER_CORRUPTIONS, data_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    arguments = parser.parse_args()
    archive = archives.load("cifar10")
    images, labels = archive.x_test[: arguments.images], archive.y_test[: arguments.images]
    missing = corruptions.missing(source="generated")
    names = [name for name in CORRUPTIONS if name not in missing]
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=data_folder()) as folder:
        if not missing:
            shutil.copytree(photographs.frost_folder(), Path(folder) / "frost")
        os.environ["HAH_DATA"] = folder  # what is made and read back here is not the person's
        for name in names:
            seconds = {"wall": 0.0, "processor": 0.0, "cached_wall": 0.0, "cached_processor": 0.0}
            for severity in corruptions.SEVERITIES:
                began = time.perf_counter(), time.process_time()
                made = corruptions.corrupt(images, name, severity)
                seconds["wall"] += time.perf_counter() - began[0]
                seconds["processor"] += time.process_time() - began[1]
                path = corruptions.generated_path("cifar10", name, severity)
                corruptions.keep(path, made, images, name, severity)
                began = time.perf_counter(), time.process_time()
                corruptions.corrupted(name, severity, images, labels, source="generated")
                seconds["cached_wall"] += time.perf_counter() - began[0]
                seconds["cached_processor"] += time.process_time() - began[1]
                path.unlink()
            found[name] = seconds
            print(
                f"{name:<18} {seconds['processor']:7.1f} s of processor, {seconds['wall']:7.1f} s of wall time; "
                f"from the cache {seconds['cached_wall']:5.1f} s",
                flush=True,
            )
    kinds = ("wall", "processor", "cached_wall", "cached_processor")
    totals = {
        title: {kind: sum(found[name][kind] for name in group if name in found) for kind in kinds}
        for title, group in (("paper's 16", PAPER_CORRUPTIONS), ("all 19", CORRUPTIONS))
    }
    report(
        "corruptions",
        {
            "images": len(images),
            "severities": len(corruptions.SEVERITIES),
            "left_out": list(missing),
            "seconds": found,
            "seconds_in_all": totals,
        },
    )


if __name__ == "__main__":
    main()
