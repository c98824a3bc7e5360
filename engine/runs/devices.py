"""The GPUs of this machine, told by the driver (NVML) without torch, the lock that reserves one, and CPU threads."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.disk import folder_of
from engine.experiment.mistakes import RequestError
from engine.runs import slurm
from engine.runs.process import Lock, is_locked


def calm_threads() -> None:
    """Let OpenMP's idle threads sleep after microseconds; called before torch is imported.

    They spin for milliseconds otherwise, on the cores that the threads of a fused HaH block want meanwhile: a step of
    a narrow network takes an eighth longer with them (`benchmarks/step.py`).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


CONTROL = Path("/dev/nvidiactl")  # there where the NVIDIA driver is


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in GiB, utilisation a fraction of 1 or None where the driver does not tell (MIG)."""

    index: int  # in PCI bus order
    uuid: str
    name: str
    memory_gib: float
    free_gib: float
    utilisation: float | None
    taken: bool  # an engine of ours holds it


def gpus(visible: str | None = "") -> list[Gpu]:
    """The GPUs this process may use: those of CUDA_VISIBLE_DEVICES, or of what it was before, else all. [] without a
    driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible == "" else visible
    if visible is None:
        return found
    wanted = [entry.strip() for entry in visible.split(",")]
    chosen = []
    for entry in wanted:
        match = [gpu for gpu in found if entry == str(gpu.index) or (len(entry) > 4 and gpu.uuid.startswith(entry))]
        if not match:
            break  # CUDA ignores everything from the first unknown entry on
        chosen += match[:1]
    return chosen


def _silent() -> str:
    """What is wrong where there is an NVIDIA driver that tells of no GPU; '' where there is none."""
    import pynvml

    if not CONTROL.exists():
        return ""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"the NVIDIA driver does not answer ({error})"
    pynvml.nvmlShutdown()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if hidden is not None else "the NVIDIA driver shows no GPU"


def driver() -> str | None:
    """The NVIDIA driver's version, or None without one."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def _gpu(pynvml: Any, index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    uuid = str(pynvml.nvmlDeviceGetUUID(handle))
    try:
        utilisation = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except pynvml.NVMLError:
        utilisation = None
    name, taken = str(pynvml.nvmlDeviceGetName(handle)), any(map(is_locked, _locks(uuid)))
    return Gpu(index, uuid, name, memory.total / 2**30, memory.free / 2**30, utilisation, taken)


def _lock_path(uuid: str, number: int = 1) -> Path:
    more = f".{number}" if number > 1 else ""
    return folder_of("state") / "gpus" / (re.sub(r"[^A-Za-z0-9-]", "", uuid) + f"{more}.lock")


@dataclass(frozen=True)
class Choice:
    """A device for an engine: the torch name, the GPU behind it, its lock, and why it was chosen.

    ``warning``: what a person should know at once, that the CPU was taken though there are GPUs.
    """

    device: str
    why: str
    gpu: Gpu | None = None
    lock: Lock | None = None
    warning: str = ""


@dataclass(frozen=True)
class Reserved:
    """A GPU that whoever started this engine has chosen for it, by UUID, and the descriptor of its lock."""

    uuid: str
    lock: int


def choose(asked: str, reserved: Reserved | None = None) -> Choice:
    """The device of an experiment's ``compute.device``, reserved while the returned lock lives.

    ``auto`` takes the GPU with the most free memory that no engine holds, else the CPU; what is ``reserved`` already is
    taken before that. In a job of Slurm the one GPU that it has is taken, which Slurm keeps from others; where the job
    has none, ``auto`` leaves the node's alone. Raises RequestError for a GPU that is not there.
    """
    if asked == "cpu":
        return Choice("cpu", "asked for")
    found = gpus()
    if (job := slurm.inside()) and reserved is None:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        if given is None and found and asked == "auto":
            none = f"job {job} of Slurm has no GPU"
            return Choice("cpu", none, warning=f"{none}: on the CPU; 'gres' in the profile asks for one")
        if given is not None and len(found) == 1 and asked in ("auto", "cuda", "cuda:0"):
            return Choice("cuda", "given by Slurm", found[0])
    if reserved is not None:
        kept = Lock(reserved.lock)
        for gpu in found:
            if gpu.uuid == reserved.uuid:
                return Choice("cuda", "chosen by the queue", gpu, kept)
        raise RequestError(f"compute.device: the GPU that the queue chose, {reserved.uuid}, is gone")
    if asked == "auto" and not found:
        silent = _silent()
        return Choice("cpu", silent or "no GPU here", warning=f"{silent}: on the CPU" if silent else "")
    if not found:
        return Choice(asked, "asked for; the driver tells of no GPU")
    check(asked, found)
    if asked not in ("auto", "cuda"):
        gpu = found[int(asked.removeprefix("cuda:"))]
        return Choice("cuda", "asked for", gpu, reserve(gpu))
    for gpu in sorted(found, key=lambda gpu: -gpu.free_gib):
        lock = reserve(gpu)
        if lock is not None:
            return Choice("cuda", "free", gpu, lock)
    if asked == "cuda":
        roomiest = max(found, key=lambda gpu: gpu.free_gib)
        return Choice("cuda", "every GPU has an engine; the one with most free memory", roomiest)
    held = f"every GPU ({len(found)}) has an engine"
    return Choice("cpu", held, warning=f"{held}: on the CPU; compute.device=cuda shares one, or wait and resume")


def check(asked: str, found: list[Gpu]) -> None:
    """Raise RequestError if ``asked`` is a GPU beyond those ``found``; where none is told of, torch decides."""
    if found and asked.startswith("cuda:") and int(asked.removeprefix("cuda:")) >= len(found):
        there = "cuda:0" if len(found) == 1 else f"cuda:0 to cuda:{len(found) - 1}"
        raise RequestError(f"compute.device: {asked} is not there; this machine shows {there}")


def reserve(gpu: Gpu, engines: int = 1) -> Lock | None:
    """The lock of a GPU for one of at most ``engines`` on it, or None where each is taken.

    Who wants it alone takes the first lock; who shares it takes one of the others: neither beside the other kind.
    """
    alone = _lock_path(gpu.uuid)
    alone.parent.mkdir(parents=True, exist_ok=True)
    shared = [_lock_path(gpu.uuid, number) for number in range(2, engines + 2)] if engines > 1 else []
    if any(map(is_locked, [alone] if shared else _locks(gpu.uuid)[1:])):
        return None
    taken = (Lock.take(path, patience=0.05) for path in shared or [alone])
    return next((lock for lock in taken if lock is not None), None)


def locks() -> list[Path]:
    """The locks of all GPUs, whoever has them."""
    return sorted((folder_of("state") / "gpus").glob("*.lock"))


def _locks(uuid: str) -> list[Path]:
    """Every lock of a GPU that there is, the first of them for who wants it alone."""
    alone = _lock_path(uuid)
    return [alone, *alone.parent.glob(f"{alone.stem}.*.lock")]
