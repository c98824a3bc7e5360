"""How far the fused block is from the reference: block by block, and over training steps on CIFAR-10.

    python benchmarks/agreement.py [--steps 200] [--width 0.25] [--batch-size 64]

Blocks: every HaH block of VGG-16 (paper-hah) gets the same input in both; outputs and gradients are compared where both
keep the same locations, relative to the largest value of the tensor, and where they differ it is said how far the
activation is from the threshold (relative).

Steps: the same run with the fused block and with references whose sums run in another order (channels-last or
contiguous convolutions, one thread or all). The threshold amplifies rounding, so these drift apart: what is asked is
whether the fused run is further from the references than they are from each other.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import torch
from machine import device, report
from torch import Tensor
from torch.nn import functional as F

from engine.data import archives
from engine.data.batches import Epoch, Split, to_images
from engine.experiment import presets
from engine.experiment.architecture import suppressed
from engine.nn import VGG, HaHBlock
from engine.training.step import Step


def compare(width: float, images: Tensor) -> list[dict[str, Any]]:
    """One entry for each HaH block."""
    network = VGG.from_experiment(presets.load("paper-hah", [f"model.width={width}"])).to(images.device)
    x, found = images.contiguous(memory_format=torch.channels_last), []
    for block, pooled in zip(network.blocks, network.pooled, strict=True):
        if not isinstance(block, HaHBlock):
            break
        found.append(compare_block(block, x))
        with torch.no_grad():
            x = block(x)
            x = F.max_pool2d(x, 2) if pooled else x
    return found


def compare_block(block: HaHBlock, x: Tensor) -> dict[str, Any]:
    """Outputs and both gradients of ``block`` on x [B, C, H, W], fused against reference."""
    draw = torch.Generator(x.device).manual_seed(1)
    outputs, costs, inputs, weights = {}, {}, {}, {}
    g: Tensor | None = None
    kept: Tensor | None = None
    for kernels in ("reference", "auto"):
        block.kernels = kernels
        with torch.no_grad():
            outputs[kernels], costs[kernels] = block(x, cost=True)
    kept = (outputs["reference"] > 0) == (outputs["auto"] > 0)
    # An output gradient that is zero at every location and image where a mask differs: the rest must agree.
    same = kept.flatten(1).all(1)[:, None, None, None]
    g = torch.randn(kept.shape, generator=draw, device=x.device) * same
    for kernels in ("reference", "auto"):
        block.kernels = kernels
        block.zero_grad()
        leaf = x.clone().requires_grad_()
        o, cost = block(leaf, cost=True)
        (o * g).sum().sub(100 * cost).backward()
        assert leaf.grad is not None
        assert block.conv.weight.grad is not None
        inputs[kernels], weights[kernels] = leaf.grad, block.conv.weight.grad.clone()
    block.kernels = "auto"
    with torch.no_grad():
        z = block.norm(block.activations(x))
        k = suppressed(block.threshold.keep, *z.shape[2:])
        tau = z.flatten(2).kthvalue(k).values[:, :, None, None]
        from_threshold = ((z - tau).abs() / tau.clamp_min(1e-30))[~kept]

    def apart(a: Tensor, b: Tensor) -> float:
        return float((a - b).abs().max() / b.abs().max())

    return {
        "implementation": block.ran,
        "output": apart(outputs["auto"] * kept, outputs["reference"] * kept),
        "cost": apart(costs["auto"], costs["reference"]),
        "input_gradient": apart(inputs["auto"], inputs["reference"]),
        "weight_gradient": apart(weights["auto"], weights["reference"]),
        "positions": kept.numel(),
        "different": int((~kept).sum()),
        "images_with_different": int((~same).sum()),
        "furthest_from_threshold": float(from_threshold.max()) if len(from_threshold) else 0.0,
    }


def losses(kind: tuple[str, str, int], steps: int, width: float, size: int, train: Split) -> list[float]:
    """The losses of ``steps`` steps; kind: kernels, layout, threads."""
    kernels, layout, threads = kind
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    settings = [f"model.width={width}", f"compute.kernels={kernels}", "train.precision=fp32"]
    experiment = presets.load("paper-hah", [*settings, f"train.batch_size={size}"])
    network = VGG.from_experiment(experiment).to(train.labels.device)
    network.to(memory_format=torch.channels_last if layout == "channels-last" else torch.contiguous_format)
    network.train()
    step, found = Step(network, experiment, train.labels.device), []
    epoch = Epoch(train, size, "crop-flip", 0, 1)
    for number in range(1, steps + 1):
        pixels, labels = epoch.batch((number - 1) % len(epoch))
        if layout != "channels-last":
            pixels = pixels.contiguous()
        step(pixels, labels, number, experiment.train.lr)
        measured = step.drain()
        assert measured is not None
        found += measured.columns["train/loss"]
    torch.set_num_threads(before)
    return found


def drift(steps: int, width: float, size: int, train: Split) -> dict[str, Any]:
    """Mean absolute differences of the losses, of the fused run and of the references among themselves."""
    threads = torch.get_num_threads()
    kinds = [("reference", "channels-last", threads), ("reference", "contiguous", threads)]
    kinds += [("reference", "channels-last", 1), ("auto", "channels-last", threads)]
    runs = [losses(kind, steps, width, size, train) for kind in kinds]

    def apart(a: list[float], b: list[float]) -> dict[str, float]:
        differences = [abs(x - y) for x, y in zip(a, b, strict=True)]
        return {"mean": sum(differences) / steps, "largest": max(differences)}

    *references, fused = runs
    return {
        "steps": steps,
        "width": width,
        "batch_size": size,
        "kinds": [list(kind) for kind in kinds],
        "references_apart": [apart(a, b) for a, b in itertools.combinations(references, 2)],
        "fused_apart": [apart(fused, reference) for reference in references],
        "losses": {"/".join(map(str, kind)): run for kind, run in zip(kinds, runs, strict=True)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    where = device()
    archive = archives.load("cifar10")
    train = Split.of(archive.x_train, archive.y_train, where)
    images = to_images(train.pixels[:16])
    found = {
        "blocks": compare(1.0, images),
        "steps": drift(arguments.steps, arguments.width, arguments.batch_size, train),
    }
    for number, entry in enumerate(found["blocks"], 1):
        print(f"block {number}", {name: value for name, value in entry.items() if name != "implementation"})
    print("references apart", [f"{entry['mean']:.2g}" for entry in found["steps"]["references_apart"]])
    print("fused apart     ", [f"{entry['mean']:.2g}" for entry in found["steps"]["fused_apart"]])
    report("agreement", {"device": where.type, **found})


if __name__ == "__main__":
    main()
