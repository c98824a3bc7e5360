"""The device an engine works on, with the arithmetic its experiment asks for."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from engine.experiment.mistakes import RequestError
from engine.runs import devices

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
    device, choice = _held(experiment.compute.device, reserved)

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


@cache
def _held(asked: str, reserved: devices.Reserved | None) -> tuple[torch.device, devices.Choice]:
    """The device of compute.device; chosen once, so that an evaluation stays where its training was."""
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
    return torch.device("cuda" if choice.device != "cpu" else "cpu"), choice
