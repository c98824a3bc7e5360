"""One training step of VGG-16: ours against the plain network, the reference composition and the published rule.

    python benchmarks/step.py [--batch-size 128] [--width 1.0] [--rounds 7]

Every kind of step takes the same images through forward, backward and Adam. The kinds are interleaved in one process,
so a machine whose speed drifts gives the same ratios; medians and ratios of medians are printed. Peak memory is that
of a process of its own for each kind, minus what it needed before its first step.

plain      VGG16-BN of torch.nn modules (convolution, ReLU, BatchNorm), channels-last
ours       the paper's HaH network as the engine trains it
reference  the same with compute.kernels=reference
published  the layers of the package hahtorch trained by the published rule (two forward passes, one backward pass for
           each HaH block); measured where the package is installed and --width is 1
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import machine
import torch
from torch import nn
from torch.nn import functional as F

from engine.experiment import presets
from engine.nn import VGG
from engine.training.captured import CapturedPasses
from engine.training.step import Step, autocast

KINDS = ("plain", "ours", "reference", "published")


def plain(
    width: float, where: torch.device, changes: Sequence[str] = (), captured: bool = False
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    experiment = presets.load("paper-hah", [f"model.width={width}", *changes])
    layers: list[nn.Module] = []
    for block in experiment.blocks():
        layers += [nn.Conv2d(block.in_channels, block.filters, 3, padding=1, bias=False), nn.ReLU()]
        layers += [nn.BatchNorm2d(block.filters)]
        layers += [nn.MaxPool2d(2)] if block.pooled else []
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(block.filters, 10)).to(where)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    cast = autocast(experiment, where)

    def passes(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with cast():
            logits = network(pixels.float().div_(255))
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        return loss.detach()

    graph: CapturedPasses | None = None

    def step(pixels: torch.Tensor, labels: torch.Tensor) -> None:
        nonlocal graph
        if graph is not None:
            graph((pixels, labels))
        else:
            passes(pixels, labels)
            if captured:
                graph = CapturedPasses(passes, (pixels, labels), list(network.parameters()))
                graph((pixels, labels))  # capturing runs nothing
        optimizer.step()

    return step


def ours(
    width: float, where: torch.device, kernels: str = "auto", changes: Sequence[str] = ()
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    experiment = presets.load("paper-hah", [f"model.width={width}", f"compute.kernels={kernels}", *changes])
    network = VGG.from_experiment(experiment).to(where)
    network.to(memory_format=torch.channels_last)
    network.train()
    trained = Step(network, experiment, where)

    def step(pixels: torch.Tensor, labels: torch.Tensor) -> None:
        if trained.full:
            trained.drain()
        trained(pixels, labels, 1, 1e-3)

    return step


def published(width: float, where: torch.device) -> Callable[[torch.Tensor, torch.Tensor], None] | None:
    try:
        from hahtorch import HaHCost, HaHVGG16, ImplicitNormalizationConv
    except ImportError:
        return None
    if width != 1:
        return None
    network = HaHVGG16().to(where)
    layers = [module for module in network.modules() if isinstance(module, ImplicitNormalizationConv)]
    outputs: dict[nn.Module, torch.Tensor] = {}
    for layer in layers:  # the package's own extractor does not survive a torch of today
        layer.register_forward_hook(lambda module, _, output: outputs.__setitem__(module, output))
    optimizer = torch.optim.Adam(network.parameters())
    cost = HaHCost(ratio=0.1, demote=0.1)
    alphas = presets.load("paper-hah").alphas

    def step(pixels: torch.Tensor, labels: torch.Tensor) -> None:
        images = pixels.float().div_(255)
        optimizer.zero_grad()
        network(images)
        costs = [cost(outputs[layer]) for layer in layers]
        for layer, hah, alpha in reversed(list(zip(layers, costs, alphas, strict=True))):
            if layer.weight.grad is not None:
                layer.weight.grad.zero_()
            (-alpha * hah).backward(retain_graph=True)
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def build(kind: str, width: float, where: torch.device) -> Callable[[torch.Tensor, torch.Tensor], None] | None:
    torch.manual_seed(0)
    match kind:
        case "plain":
            return plain(width, where)
        case "ours":
            return ours(width, where)
        case "reference":
            return ours(width, where, "reference")
        case _:
            return published(width, where)


def batch(size: int, where: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (size, 32, 32, 3), dtype=torch.uint8, generator=draw).permute(0, 3, 1, 2)
    return pixels.to(where), torch.randint(0, 10, (size,), generator=draw).to(where)


def seconds(step: Callable[[torch.Tensor, torch.Tensor], None], data: tuple[torch.Tensor, torch.Tensor]) -> float:
    if data[0].is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    step(*data)
    if data[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak_mib(kind: str, arguments: argparse.Namespace) -> float:
    """Peak memory of three steps beyond what the process had before them: the median of three processes."""
    command = [sys.executable, __file__, "--only", kind, "--batch-size", str(arguments.batch_size)]
    command += ["--width", str(arguments.width)]
    said = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
    return statistics.median(float(text.split()[-1]) for text in said)  # the allocator's luck differs


def measure_memory(kind: str, arguments: argparse.Namespace) -> float:
    where = machine.device()
    step = build(kind, arguments.width, where)
    assert step is not None
    warm, data = batch(2, where), batch(arguments.batch_size, where)
    step(*warm)  # optimizer state and code are not what is asked
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(3):
            step(*data)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status_kib("VmRSS")
    for _ in range(3):
        step(*data)
    return (_status_kib("VmHWM") - before) / 1024


def _status_kib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(measure_memory(arguments.only, arguments))
        return
    where = machine.device()
    data = batch(arguments.batch_size, where)
    steps = {kind: step for kind in KINDS if (step := build(kind, arguments.width, where)) is not None}
    for step in steps.values():
        step(*data)
        step(*data)
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(max(5, arguments.rounds)):
        for kind, step in steps.items():
            times[kind].append(seconds(step, data))
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    memory = {kind: peak_mib(kind, arguments) for kind in steps}
    for kind, value in medians.items():
        print(f"{kind:<10} {1e3 * value:9.1f} ms  {value / medians['plain']:5.2f} x plain  {memory[kind]:8.0f} MiB")
    machine.report(
        "step",
        {
            "device": where.type,
            "batch_size": arguments.batch_size,
            "width": arguments.width,
            "rounds": max(5, arguments.rounds),
            "median_seconds": medians,
            "ratio_to_plain": medians["ours"] / medians["plain"],
            "ratio_to_reference": medians["ours"] / medians["reference"],
            "ratio_to_published": medians["ours"] / medians["published"] if "published" in medians else None,
            "speedup_over_published": medians["published"] / medians["ours"] if "published" in medians else None,
            "peak_mib": memory,
            "memory_ratio_to_plain": memory["ours"] / memory["plain"],
        },
    )


if __name__ == "__main__":
    main()
