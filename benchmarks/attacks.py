"""How far the attacks are from the end of what they can find: FMN against AutoAttack, and both with twice the steps.

    python benchmarks/attacks.py RUN... [--images 60] [--norms linf,l2,l1,l0] [--parts jumps,fmn,apgd,autoattack]
        [--sizes linf=0.01,0.02]...

RUN is the directory of a trained run; its last checkpoint and the first so many test images are used. Accuracies are
fractions of the images at the sizes of SIZES, in Linf and L2 up to the paper's, or at those of --sizes; a change of FMN
is that of its median and of its mean norm. The parts fmn and apgd are measured with twice the steps too. AutoAttack
takes 20 minutes and more for 60 images of a narrow network and one norm on one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from machine import device, report

from engine.evaluation import minimum_norm, robust
from engine.evaluation.search import curve, summary
from engine.evaluation.work import subject_of
from engine.experiment.schema import Evaluate
from engine.runs.layout import RunDirectory

STEPS, TRIALS, SEED = 300, 4, 0
SIZES = {
    "linf": [0.001, 0.002, 0.004, 2 / 255],
    "l2": [0.03, 0.06, 0.12, 0.25],
    "l1": [0.25, 0.5, 1.0, 2.0],
    "l0": [1.0, 2.0, 4.0, 8.0],
}
PARTS = ("jumps", "fmn", "apgd", "autoattack")


def jumps(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """How far random sign noise of each size moves the margin of the correct images: standard deviation over 16 draws,
    median over images."""

    def margin(at: torch.Tensor) -> torch.Tensor:
        logits, own = network(at), y[:, None]
        return logits.gather(1, own)[:, 0] - logits.scatter(1, own, -torch.inf).amax(1)

    draw, moved = torch.Generator().manual_seed(SEED), {}
    with torch.no_grad():
        clean = margin(x)
        for size in (1e-5, 1e-4, 1e-3, 8e-3):
            noise = [size * torch.randn(x.shape, generator=draw).sign() for _ in range(16)]
            margins = torch.stack([margin((x + one).clamp(0, 1)) for one in noise])
            moved[f"{size:g}"] = float(margins.std(0)[clean > 0].median())
    return {"correct": int((clean > 0).sum()), "margin": float(clean[clean > 0].median()), "moved": moved}


def measured(
    network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, norm: Any, sizes: list[float], part: str
) -> dict[str, Any]:
    """One part at the sizes of a norm: accuracies, with so many steps and, but for AutoAttack, with twice as many."""
    began = time.perf_counter()
    if part == "jumps":
        return jumps(network, x, y)
    if part == "fmn":
        norms = [minimum_norm(network, x, y, norm, steps, TRIALS).norms for steps in (STEPS, 2 * STEPS)]
        found, then = (summary(one) for one in norms)
        return {
            "norms": [found, then],
            "change": {name: then[name] / found[name] - 1 for name in ("median", "mean") if found[name]},
            "accuracy": [[accuracy for _, accuracy in curve(one, sizes)] for one in norms],
            "seconds": time.perf_counter() - began,
        }
    methods: list[Any] = ["autoattack"] if part == "autoattack" else ["apgd-ce", "apgd-t"]
    left = [
        robust(network, x, y, methods, norm, sizes, n, seed=SEED) for n in ([100] if part == PARTS[-1] else [100, 200])
    ]
    return {"accuracy": [one.accuracy[:, -1].tolist() for one in left], "seconds": time.perf_counter() - began}


def sizes_of(text: str) -> tuple[str, list[float]]:
    """(norm, sizes) of NORM=SIZE,..."""
    norm, _, listed = text.partition("=")
    try:
        if norm in SIZES:
            return norm, [float(size) for size in listed.split(",")]
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not like linf=0.01,0.02, with one of {', '.join(SIZES)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--norms", default="linf,l2,l1,l0")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--sizes", action="append", default=[], type=sizes_of, metavar="NORM=SIZE,...")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = SIZES | dict(arguments.sizes)
    results: dict[str, Any] = {}
    for path in arguments.runs:
        settings = Evaluate(images=arguments.images)
        subject, _ = subject_of(RunDirectory(path), "last", settings, device(), lambda: None)
        x, y = subject.at(range(len(subject)))
        for norm in arguments.norms.split(","):
            of_norm = results.setdefault(path.name, {})[norm] = {"sizes": sizes[norm]}
            for part in arguments.parts.split(","):
                if part == "fmn" or norm == "linf" or (norm == "l2" and part != "jumps"):
                    of_norm[part] = measured(subject.network, x, y, norm, sizes[norm], part)
                    print(path.name, norm, part, of_norm[part], flush=True)
    report("attacks", {"images": arguments.images, "steps": STEPS, "trials": TRIALS, "results": results})


if __name__ == "__main__":
    main()
