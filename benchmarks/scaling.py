"""What a HaH step costs against batch size, width and the number of HaH blocks, as ratios to the plain step.

    python benchmarks/scaling.py [--rounds 5]

Every point is `step.py`'s measurement (ours, plain and the reference composition, interleaved) of VGG-16 in this
process. Around batch 64 and width 0.5, one of the three changes at a time.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import machine
import torch
from step import batch, ours, plain, seconds

BATCH_SIZES, WIDTHS, BLOCKS = (1, 8, 32, 64, 256), (0.125, 0.25, 0.5, 1.0, 2.0), (0, 1, 2, 4, 6, 8, 13)


def measure(size: int, width: float, blocks: int, rounds: int, where: torch.device) -> dict[str, Any]:
    """Medians of one point."""
    torch.manual_seed(0)
    changes = [f"model.hah_blocks={blocks}", f"hah.alpha={[0.1] * blocks}"]
    steps = {
        "plain": plain(width, where),
        "ours": ours(width, where, changes=changes),
        "reference": ours(width, where, "reference", changes),
    }
    data = batch(size, where)
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for step in steps.values():
        step(*data)
    for _ in range(rounds):
        for kind, step in steps.items():
            times[kind].append(seconds(step, data))
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    ratio = medians["ours"] / medians["plain"]
    print(f"batch {size:4d}  width {width:5.3f}  {blocks:2d} HaH blocks: {ratio:.2f} x plain", flush=True)
    return {
        "batch_size": size,
        "width": width,
        "hah_blocks": blocks,
        "median_seconds": medians,
        "ratio_to_plain": ratio,
        "ratio_to_reference": medians["ours"] / medians["reference"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    where, rounds = machine.device(), max(5, arguments.rounds)
    points = [(size, 0.5, 6) for size in BATCH_SIZES]
    points += [(64, width, 6) for width in WIDTHS if width != 0.5]
    points += [(64, 0.5, blocks) for blocks in BLOCKS if blocks != 6]
    machine.report(
        "scaling", {"device": where.type, "rounds": rounds, "points": [measure(*p, rounds, where) for p in points]}
    )


if __name__ == "__main__":
    main()
