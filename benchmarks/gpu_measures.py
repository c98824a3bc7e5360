"""What `gpu.py` measures of a machine in a few minutes: ceilings, the step in every precision, kernels, a profile.

Everything runs on a CPU too (the Triton kernels in their interpreter), so that it can be rehearsed; the keys are the
same.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any
from unittest import mock

import torch
from agreement import compare
from step import batch, ours, plain, published
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from engine.experiment import presets
from engine.experiment.architecture import strongest, suppressed
from engine.nn import VGG
from engine.nn.equations import BlockNumbers
from engine.nn.kernels import TWINS
from engine.training.step import Step


@dataclass(frozen=True)
class Size:
    """How large everything is: as in the paper, or for a rehearsal."""

    width: float = 1.0
    batches: tuple[int, ...] = (128, 512)
    rounds: int = 9
    steps: int = 10  # in a row, between two readings of the clock
    copied: int = 1 << 30  # bytes
    product: int = 8192
    choices: int = 9  # at most, of each constant of TILES


REHEARSAL = Size(width=0.0625, batches=(1,), rounds=1, steps=1, copied=1 << 16, product=64, choices=1)


def wait(where: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def seconds(work: Callable[[], object], where: torch.device, repeats: int) -> float:
    """Of one call, of several in a row."""
    wait(where)
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    wait(where)
    return (time.perf_counter() - began) / repeats


def ceilings(where: torch.device, size: Size) -> dict[str, Any]:
    """Bytes a second of a copy (read and written), FLOP a second of a product of random matrices, memory."""
    source = torch.randint(0, 255, (size.copied,), dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    a, b = (torch.randn(size.product, size.product, device=where).bfloat16() for _ in range(2))
    found: dict[str, Any] = {}
    for name, work, amount in (
        ("copy_bytes_per_second", lambda: target.copy_(source), 2 * size.copied),
        ("bf16_flop_per_second", lambda: a @ b, 2 * size.product**3),
    ):
        work()
        found[name] = amount / min(seconds(work, where, size.steps) for _ in range(max(3, size.rounds)))
    if where.type == "cuda":
        facts = torch.cuda.get_device_properties(where)
        found |= {
            "name": facts.name, "multiprocessors": facts.multi_processor_count,
            "memory_gib": facts.total_memory / 2**30,
            "capability": list(torch.cuda.get_device_capability(where)), "cudnn": torch.backends.cudnn.version(),
        }  # fmt: skip
    return found


def agreement(where: torch.device, size: Size) -> list[dict[str, Any]]:
    """Fused against reference block by block, in float32 (`agreement.py`)."""
    images = torch.rand(size.batches[0], 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(where)
    with arithmetic("fp32"):
        return compare(size.width, images)


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """TF32 allowed or not, as an engine has it in this precision."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def steps(where: torch.device, size: Size, precisions: Sequence[str]) -> list[dict[str, Any]]:
    """Median seconds of a training step of each kind, interleaved, in each precision and batch size; "ours" and "plain"
    with the passes captured as a CUDA graph, and one operation after another ("eager")."""
    return [_steps(where, size, *point) for point in itertools.product(precisions, size.batches)]


def _steps(where: torch.device, size: Size, precision: str, count: int) -> dict[str, Any]:
    changes, (pixels, labels) = [f"train.precision={precision}"], batch(count, where)
    with arithmetic(precision):
        torch.manual_seed(0)
        kinds = {
            "plain": plain(size.width, where, changes, captured=where.type == "cuda"),
            "plain eager": plain(size.width, where, changes),
            "ours": ours(size.width, where, changes=[*changes, f"train.batch_size={count}"]),
            "ours eager": ours(size.width, where, changes=[*changes, "compute.cuda_graph=false"]),
            "reference": ours(size.width, where, "reference", [*changes, "compute.cuda_graph=false"]),
            "published": published(size.width, where) if precision == "tf32" else None,
        }
        work = {kind: partial(step, pixels, labels) for kind, step in kinds.items() if step is not None}
        times = {kind: list[float]() for kind in work}
        for step in work.values():
            seconds(step, where, 1 + size.rounds // 2)  # more than a graph is captured after
        for _ in range(size.rounds):
            for kind, step in work.items():
                times[kind].append(seconds(step, where, size.steps))
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    ratios = {kind: value / medians["plain"] for kind, value in medians.items()}
    return {"precision": precision, "batch_size": count, "seconds": medians, "ratio_to_plain": ratios}


def kernels(where: torch.device, size: Size, bytes_per_second: float) -> list[dict[str, Any]]:
    """Each kernel of the Triton twin at each HaH block's shape: seconds, the bytes it must move, and their time at the
    copy's bandwidth."""
    experiment = presets.load("paper-hah", [f"model.width={size.width}"])
    shapes = dict.fromkeys((block.size, block.filters) for block in experiment.blocks()[:6])
    found = []
    for precision, count, shape in itertools.product((torch.bfloat16, torch.float32), size.batches, shapes):
        for kernel, (call, moved) in _kernels(where, precision, count, *shape).items():
            seconds(call, where, 1)
            taken, floor = min(seconds(call, where, size.steps) for _ in range(size.rounds)), moved / bytes_per_second
            found.append({
                "kernel": kernel, "precision": str(precision).removeprefix("torch."), "batch_size": count,
                "size": shape[0], "filters": shape[1], "seconds": taken, "bytes": moved, "floor_seconds": floor,
                "times_floor": taken / floor,
            })  # fmt: skip
    return found


def _kernels(
    where: torch.device, precision: torch.dtype, count: int, size: int, filters: int
) -> dict[str, tuple[Callable[[], object], int]]:
    """Each kernel on activations [count, size, size, filters], and the bytes that it must read and write."""
    code = TWINS["cuda"].code
    numbers = BlockNumbers(0.1, 3, 1e-7, suppressed(0.2, size, size), None, strongest(0.1, filters), 0.1, True)
    u, g = (torch.randn(count, size, size, filters, device=where).to(precision) for _ in range(2))
    o, _, field, source = code.forward(u, numbers)
    g_cost, split, product = torch.ones((), device=where), u.element_size() == 2, code.project(g, o)
    divisor, g_field = code.share(product, field, filters, numbers)
    every, places, wide = u.numel(), field.numel(), u.element_size()
    return {
        "select": (lambda: code.select(u, numbers), every * (wide + 1) + 12 * places),
        "normalize": (lambda: code.normalize(u, field, numbers), every * 2 * wide + 4 * places),
        "project": (lambda: code.project(g, o), every * 2 * wide + 4 * places),
        "share": (lambda: code.share(product, field, filters, numbers), places * 16),
        "backward": (
            lambda: code.spread(u, o, g, divisor, g_field, source, g_cost, numbers, split),
            every * (5 * wide + 1) + 8 * places,
        ),
    }


_TILES = {"_TILE_ELEMENTS": (512, 1024, 2048, 4096), "_TILE_WARPS": (1, 2, 4)}
TILES = {  # what else a program of a kernel could hold: constants of the Triton twin, each with every other's
    "select": _TILES, "project": _TILES, "backward": _TILES,
    "normalize": {"_MAP_ELEMENTS": (2048, 4096, 8192, 16384), "_WARP_ELEMENTS": (512, 1024, 2048)},
}  # fmt: skip


def tiles(where: torch.device, size: Size) -> list[dict[str, Any]]:
    """Seconds of the kernels, in bf16, for every size of a program in TILES; many processes compile, then one
    measures."""
    experiment = presets.load("paper-hah", [f"model.width={size.width}"])
    shapes = [*dict.fromkeys((block.size, block.filters) for block in experiment.blocks()[:6])][-size.choices :]
    points = [
        (kernel, shape, dict(zip(choices, values, strict=True)))
        for kernel, choices in TILES.items()
        for shape in shapes
        for values in itertools.product(*(some[: size.choices] for some in choices.values()))
    ]
    if where.type == "cuda":
        with ProcessPoolExecutor(12, get_context("spawn")) as compilers:
            list(compilers.map(partial(_tile, where, size, 0), points, chunksize=-(-len(points) // 12)))
    found = []
    for kernel, shape, values in points:
        facts = {name.strip("_").lower(): value for name, value in values.items()}
        taken = _tile(where, size, min(3, size.rounds), (kernel, shape, values))
        found.append({"kernel": kernel, "size": shape[0], "filters": shape[1], **facts, "seconds": taken})
    return found


def _tile(where: torch.device, size: Size, rounds: int, point: tuple[str, tuple[int, int], dict[str, int]]) -> float:
    """Seconds of a kernel with other constants; without rounds it is compiled only."""
    kernel, shape, values = point
    code = TWINS["cuda"].code
    call, _ = _kernels(where, torch.bfloat16, size.batches[0], *shape)[kernel]
    with mock.patch.multiple(code, **values):
        seconds(call, where, 1)
        return min((seconds(call, where, size.steps) for _ in range(rounds)), default=0.0)


PARTS = {  # of a step, by what is in the name of a kernel; the first that fits
    "weight norm": ("unit_norm",),
    "hah blocks": ("_select_k", "_normalize_k", "_project_k", "_share_k", "_backward_k", "hahblock"),
    "batch norm": ("batch_norm", "bn_",),
    "pooling": ("pool",),
    "convolutions": ("conv", "cudnn", "wgrad", "dgrad", "fprop", "gemm", "cutlass", "xmma", "nchw", "nhwc"),
    "optimizer": ("adam", "multi_tensor"),
    "copies": ("memcpy", "memset", "copy", "cat"),
}  # fmt: skip


def profile(where: torch.device, size: Size) -> dict[str, Any]:
    """One step by part: milliseconds and launches of each, and how long the device had nothing to do."""
    experiment = presets.load("paper-hah", [f"model.width={size.width}", "train.precision=bf16"])
    torch.manual_seed(0)
    network = VGG.from_experiment(experiment).to(where, memory_format=torch.channels_last).train()
    step, data, count = Step(network, experiment, where), batch(size.batches[0], where), 5
    for number in range(4):  # a graph is captured in the fourth
        step(*data, number + 1, 1e-3)
    step.drain()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if where.type == "cuda" else [])]
    wait(where)
    with torch.profiler.profile(activities=activities) as record:
        began = time.perf_counter()
        for number in range(count):
            step(*data, number + 5, 1e-3)
        wait(where)
        wall = time.perf_counter() - began
    kind = DeviceType.CUDA if where.type == "cuda" else DeviceType.CPU
    events = [event for event in record.events() or () if event.device_type == kind and not event.is_user_annotation]
    if kind == DeviceType.CPU:
        events = [event for event in events if event.self_cpu_time_total > 0]
    parts: dict[str, dict[str, float]] = {}
    for event in events:
        name = event.name.lower()
        part = next((part for part, words in PARTS.items() if any(word in name for word in words)), "element-wise")
        entry = parts.setdefault(part, {"milliseconds": 0.0, "launches": 0.0})
        spent = event.self_cpu_time_total if kind == DeviceType.CPU else event.time_range.elapsed_us()
        entry["milliseconds"] += spent / 1e3 / count
        entry["launches"] += 1 / count
    busy = sum(entry["milliseconds"] for entry in parts.values())
    return {
        "batch_size": size.batches[0], "wall_milliseconds": 1e3 * wall / count, "busy_milliseconds": busy,
        "idle_milliseconds": max(0.0, 1e3 * wall / count - busy), "launches": len(events) / count, "parts": parts,
    }  # fmt: skip


def floors(bytes_per_second: float, flop_per_second: float, count: int = 128) -> list[dict[str, Any]]:
    """Of each part of the paper's step in bf16: FLOP, bytes that it must move, launches, and the milliseconds that the
    larger of both takes at these ceilings.

    Activations are bf16; the HaH kernels' bytes are those of `kernels`; BatchNorm, ReLU and pooling are counted
    unfused, as they run; Adam reads and writes weight, two moments and gradient in float32. Launches are the operations
    of a step as PyTorch dispatches them; the loss and what is measured are 20 more.
    """
    experiment = presets.load("paper-hah")
    blocks, hah = experiment.blocks(), experiment.model.hah_blocks
    macs = [block.size**2 * block.filters * block.in_channels * 9 for block in blocks]
    sizes = [count * block.size**2 * block.filters for block in blocks]
    inputs = [count * block.size**2 * block.in_channels for block in blocks]
    parameters = experiment.parameters()
    # Forward and both gradients; the first block has no input gradient, the mask of a HaH block a product of its own.
    flop = 2 * count * (3 * sum(macs) - macs[0] + sum(macs[:hah]))
    passed = 3 * (sum(inputs) + sum(sizes)) + sum(inputs[:hah]) + sum(sizes[:hah])
    pooled = sum(size for block, size in zip(blocks, sizes, strict=True) if block.pooled)
    rows: list[tuple[str, float, float, int]] = [
        ("convolutions", flop, 2 * passed, 2 * len(blocks) - 1 + 2 * hah),
        ("HaH blocks", 0, sum(sizes[:hah]) * (3 + 4 + 4 + 11), (5 + 16) * hah),
        ("ReLU and BatchNorm", 0, 2 * sum(sizes[hah:]) * (2 + 3 + 5 + 3), 4 * (len(blocks) - hah)),
        ("pooling", 0, pooled * (2 + 0.5 + 2 + 0.5 + 2 + 2), 2 * sum(block.pooled for block in blocks)),
        ("weight norm", 0, 4 * parameters * (2 + 3), 2 * len(blocks)),
        ("casts", 0, 6 * parameters * 2, 64),
        ("Adam", 0, 4 * parameters * 7, 2),
    ]
    return [
        {"part": part, "flop": flops, "bytes": moved, "launches": launches,
         "floor_milliseconds": 1e3 * max(flops / flop_per_second, moved / bytes_per_second)}
        for part, flops, moved, launches in rows
    ]  # fmt: skip
