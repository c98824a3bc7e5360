"""How far the attacks are from the end of what they can find: FMN against AutoAttack, and both with twice the steps.

    python benchmarks/attacks.py RUN... [--images 64] [--norms linf,l2,l1,l0] [--threads 1]

RUN is the directory of a trained run; its last checkpoint and the first so many test images are used. The sizes at
which AutoAttack is asked are quartiles of FMN's norms, so they are not picked by hand. Accuracies are fractions of the
images, a change of FMN is that of its median and of its mean norm.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from machine import device, report

from engine.evaluation import minimum_norm, robust
from engine.evaluation.fmn import curve, summary
from engine.evaluation.job import subject_of
from engine.experiment.schema import Evaluate
from engine.runs.layout import RunDirectory

STEPS, TRIALS, SEED = 300, 4, 0


def measured(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, norm: Any) -> dict[str, Any]:
    """FMN with so many steps and twice as many; in Linf and L2 the attacks of a given size at three sizes."""
    began = time.perf_counter()
    norms = minimum_norm(network, x, y, norm, STEPS, TRIALS).norms
    seconds = time.perf_counter() - began
    longer = minimum_norm(network, x, y, norm, 2 * STEPS, TRIALS).norms
    found, then = summary(norms), summary(longer)
    fell = norms[(norms > 0) & norms.isfinite()]
    sizes = [float(fell.quantile(part)) for part in (0.25, 0.5, 0.75)]
    result: dict[str, Any] = {
        "seconds": seconds,
        "fmn": found,
        "fmn_twice": then,
        "change": {name: then[name] / found[name] - 1 for name in ("median", "mean")},
        "sizes": sizes,
        "accuracy_by_fmn": [accuracy for _, accuracy in curve(norms, sizes)],
        "accuracy_by_fmn_twice": [accuracy for _, accuracy in curve(longer, sizes)],
    }
    if norm in ("linf", "l2"):
        for name, methods, steps in (
            ("apgd", ["apgd-ce", "apgd-t"], 100),
            ("apgd_twice", ["apgd-ce", "apgd-t"], 200),
            ("autoattack", ["autoattack"], 100),
        ):
            left = robust(network, x, y, methods, norm, sizes, steps, seed=SEED)
            result[f"accuracy_by_{name}"] = left.accuracy[:, -1].tolist()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--norms", default="linf,l2,l1,l0")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {}
    for path in arguments.runs:
        settings = Evaluate(images=arguments.images)
        subject, _ = subject_of(RunDirectory(path), "last", settings, device(), lambda: None)
        _, images, labels = zip(*subject.batches(), strict=True)
        x, y = torch.cat(images), torch.cat(labels)
        results[path.name] = {}
        for norm in arguments.norms.split(","):
            found = results[path.name][norm] = measured(subject.network, x, y, norm)
            print(path.name, norm, found, flush=True)
    report("attacks", {"images": arguments.images, "steps": STEPS, "trials": TRIALS, "results": results})


if __name__ == "__main__":
    main()
