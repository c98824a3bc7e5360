"""The device an engine works on, with the arithmetic its experiment asks for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from engine.experiment.mistakes import RequestError
from engine.runs import devices
from engine.runs.launch import Given
from engine.runs.process import Lock

if TYPE_CHECKING:
    import torch

    from engine.experiment import Experiment


def hold(
    experiment: Experiment, exact: bool = False, reserved: devices.Reserved | None = None, threads: int | None = None
) -> tuple[torch.device, devices.Choice]:
    """The torch device of what `devices.choose` gives an experiment, with its arithmetic (``exact``: float32).

    ``threads``: of the CPU, where the experiment names none. Imports torch, once the GPU is known. Raises RequestError
    where torch cannot use what was asked for.
    """
    device, choice, _ = _held(experiment.compute.device, reserved)

    import torch

    threads = experiment.compute.threads or threads
    if threads is not None:
        torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # By the older names: what asks for them (torch.compile) raises where the newer ones were set.
    fast = experiment.train.precision in ("tf32", "bf16", "auto") and not exact
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = fast
    return device, choice


def beside(
    experiment: Experiment, reserved: Sequence[devices.Reserved], threads: int | None
) -> tuple[list[Given], str]:
    """What the processes beside an evaluation get, compute.evaluators less one, once its own device is held; and why
    there are fewer of them, '' where there are not.

    Each has a GPU of its own where the job has one: those that are ``reserved`` already (the first is the job's), then
    those that no engine holds.
    """
    asked, wanted = experiment.compute.device, experiment.compute.evaluators - 1
    _, choice, visible = _held(asked, reserved[0] if reserved else None)
    if not wanted or (choice.device == "cpu" and choice.gpu is None):
        return [Given(threads=threads)] * wanted, ""
    locks = [(one.uuid, Lock(one.lock)) for one in reserved[1:]]
    if asked in ("auto", "cuda"):
        # In a job of Slurm no lock keeps its own from being taken once more.
        others = [gpu for gpu in devices.gpus(visible) if choice.gpu is None or gpu.uuid != choice.gpu.uuid]
        for gpu in sorted(others, key=lambda gpu: -gpu.free_gib):
            if len(locks) < wanted and (lock := devices.reserve(gpu)) is not None:
                locks.append((gpu.uuid, lock))
    given = [
        Given(uuid, lock, threads=threads, environment={"CUDA_VISIBLE_DEVICES": uuid}) for uuid, lock in locks[:wanted]
    ]
    if len(given) == wanted:
        return given, ""
    why = "no more GPUs are free" if asked in ("auto", "cuda") else f"{asked} is one GPU"
    return given, f"{1 + len(given)} of {1 + wanted} processes: each has a GPU of its own, and {why}"


def most(experiment: Experiment) -> int:
    """How many processes an evaluation has here if nobody else needs a GPU, once its own device is held."""
    asked, wanted = experiment.compute.device, experiment.compute.evaluators
    _, choice, visible = _held(asked, None)
    if wanted == 1 or (choice.device == "cpu" and choice.gpu is None):
        return wanted
    return min(wanted, len(devices.gpus(visible))) if asked in ("auto", "cuda") else 1


@cache
def _held(asked: str, reserved: devices.Reserved | None) -> tuple[torch.device, devices.Choice, str | None]:
    """The device of compute.device; chosen once, so that an evaluation stays where its training was. And what
    CUDA_VISIBLE_DEVICES was before."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    choice = devices.choose(asked, reserved)
    if choice.gpu is not None:  # by UUID: what it means does not depend on the order of enumeration
        os.environ["CUDA_VISIBLE_DEVICES"] = choice.gpu.uuid

    import torch  # only now: it takes seconds

    usable = choice.device == "cpu" or torch.cuda.is_available()
    if not usable and asked != "auto":
        raise RequestError(f"compute.device: torch {torch.__version__} cannot use {asked} here")
    if not usable:
        unusable = "torch cannot use the GPU that the driver shows (its build or the driver): on the CPU"
        choice = replace(choice, device="cpu", warning=unusable)
    return torch.device("cuda" if choice.device != "cpu" else "cpu"), choice, visible
