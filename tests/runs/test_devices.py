"""Choosing a device: by the driver's word, reserved by a lock, refused when it is not there."""

import os
import sys
import types

import pytest

from engine.experiment import RequestError, presets
from engine.job import device
from engine.runs import devices, launch
from engine.runs.devices import Gpu
from engine.runs.process import Lock, is_locked


class Memory:
    def __init__(self, free):
        self.total, self.free = 80 << 30, free << 30


class FakeNvml(types.ModuleType):
    """What NVML says of a box with GPUs (this machine has none): the calls that devices.py makes, no others."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, free, working=True):
        super().__init__("pynvml")
        self.free, self.working = free, working

    def nvmlInit(self):
        if not self.working:
            raise self.NVMLError("LibraryNotFound")

    def nvmlShutdown(self):
        pass

    def nvmlSystemGetDriverVersion(self):
        return "570.1"

    def nvmlDeviceGetCount(self):
        return len(self.free)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetMemoryInfo(self, index):
        return Memory(self.free[index])

    def nvmlDeviceGetUUID(self, index):
        return f"GPU-{index}{index}{index}"

    def nvmlDeviceGetName(self, index):
        return "Fake H200"

    def nvmlDeviceGetUtilizationRates(self, index):
        raise self.NVMLError("NotSupported: MIG")


@pytest.fixture
def box(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def box(*free, working=True):
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(list(free), working))

    return box


def test_without_a_driver_there_is_the_cpu(box):
    box(working=False)
    assert devices.gpus() == []
    assert devices.driver() is None
    assert devices.choose("auto").device == "cpu"
    assert devices.choose("auto").why == "no GPU here"
    assert devices.choose("cpu").why == "asked for"
    assert devices.choose("auto").warning == devices.choose("cpu").warning == ""
    assert devices.choose("cuda").gpu is None  # torch decides


def test_a_driver_that_is_silent_is_said(box, monkeypatch, tmp_path):
    control = tmp_path / "nvidiactl"
    control.touch()
    monkeypatch.setattr(devices, "CONTROL", control)
    box(working=False)
    choice = devices.choose("auto")
    assert choice.device == "cpu"
    assert choice.warning == "the NVIDIA driver does not answer (LibraryNotFound): on the CPU"
    box()
    assert devices.choose("auto").warning == "the NVIDIA driver shows no GPU: on the CPU"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a person's own choice
    assert devices.choose("auto").warning == ""


def test_auto_takes_the_roomiest_gpu_that_nobody_holds_then_the_next_then_the_cpu(box):
    box(10, 70, 40)
    choices = [devices.choose("auto") for _ in range(4)]
    assert [choice.gpu and choice.gpu.index for choice in choices] == [1, 2, 0, None]
    assert choices[3].device == "cpu"
    assert "every GPU (3) has an engine" in choices[3].why
    assert choices[3].warning == f"{choices[3].why}: on the CPU; compute.device=cuda shares one, or wait and resume"
    assert not any(choice.warning for choice in choices[:3])
    assert [gpu.taken for gpu in devices.gpus()] == [True] * 3
    choices[1].lock.release()
    again = devices.choose("auto")
    assert again.gpu.index == 2
    assert is_locked(devices._lock_path("GPU-222"))


def test_a_named_gpu_is_that_one_and_one_that_is_not_there_is_refused(box):
    box(10, 70)
    assert devices.choose("cuda:0").gpu.uuid == "GPU-000"
    for asked in ("cuda:2", "cuda:17"):
        with pytest.raises(RequestError, match="this machine shows cuda:0 to cuda:1"):
            devices.choose(asked)


def test_only_visible_gpus_count(box, monkeypatch):
    box(10, 70, 40)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-222,0")
    assert [gpu.index for gpu in devices.gpus()] == [2, 0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,9,1")
    assert [gpu.index for gpu in devices.gpus()] == [0]


def test_utilisation_that_the_driver_does_not_tell_is_unknown(box):
    box(10)
    (gpu,) = devices.gpus()
    assert gpu.utilisation is None
    assert (gpu.memory_gib, gpu.free_gib, gpu.name) == (80, 10, "Fake H200")


def test_an_engine_chooses_its_device_once_so_that_an_evaluation_stays_where_its_training_was(monkeypatch):
    import torch

    from engine.experiment import presets
    from engine.job import device as holding

    asked = []

    def choose(device, reserved):
        asked.append(device)
        return devices.Choice("cpu", "asked for")

    monkeypatch.setattr(devices, "choose", choose)
    holding._held.cache_clear()
    experiment = presets.load("quickstart", ["train.precision=tf32"])
    try:
        for exact in (False, True):
            device, choice = holding.hold(experiment, exact)
            assert (device.type, choice.why) == ("cpu", "asked for")
            # What asks for the arithmetic by the older names is answered.
            assert torch.backends.cuda.matmul.allow_tf32 is not exact
            assert torch.backends.cudnn.allow_tf32 is not exact
            assert torch.get_float32_matmul_precision() == ("highest" if exact else "high")
    finally:
        holding._held.cache_clear()
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
    assert asked == ["auto"]


def test_a_gpu_that_the_queue_has_chosen_is_taken_before_any_other(monkeypatch, tmp_path):
    cards = [Gpu(index, f"GPU-{index}", "Fake", 80.0, 80.0 - index, 0.0, False) for index in range(2)]
    monkeypatch.setattr(devices, "gpus", lambda: cards)
    lock = devices.reserve(cards[1])
    choice = devices.choose("auto", devices.Reserved("GPU-1", os.dup(lock.descriptor)))
    assert (choice.device, choice.gpu, choice.why) == ("cuda", cards[1], "chosen by the queue")
    lock.release()
    assert devices.reserve(cards[1]) is None  # the engine has it now
    choice.lock.release()
    with pytest.raises(RequestError, match="the GPU that the queue chose, GPU-7, is gone"):
        devices.choose("auto", devices.Reserved("GPU-7", os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)))


def test_in_a_job_of_slurm_its_gpu_is_taken_without_a_lock_and_no_other(box, monkeypatch):
    box(10, 70, 40)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    without = devices.choose("auto")
    assert (without.device, without.lock) == ("cpu", None)
    assert without.warning.startswith("job 17 of Slurm has no GPU: on the CPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    held = devices.reserve(devices.gpus()[0])  # whoever thinks that it is this host's to give
    for asked in ("auto", "cuda", "cuda:0"):
        given = devices.choose(asked)
        assert (given.device, given.gpu.uuid, given.lock, given.why) == ("cuda", "GPU-222", None, "given by Slurm")
    held.release()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # an allocation by hand: each of its engines gets one
    first, second = devices.choose("auto"), devices.choose("auto")
    assert (first.gpu.uuid, second.gpu.uuid) == ("GPU-111", "GPU-000")
    first.lock.release()
    second.lock.release()


def test_what_is_handed_over_with_an_engine(tmp_path):
    assert launch.Given().arguments() == []
    assert launch.Given(threads=2, niceness=7).arguments() == ["--nice", "7", "--threads", "2"]
    lock = Lock.take(tmp_path / "lock")
    given = launch.Given("GPU-1", lock)
    assert given.arguments() == ["--gpu", "GPU-1", "--gpu-lock", str(lock.descriptor)]
    assert given.descriptors() == (lock.descriptor,)
    lock.release()


def test_the_one_gpu_of_a_job_of_slurm_is_not_given_to_a_second_process_of_an_evaluation(box, monkeypatch):
    box(10, 70)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(device, "_held", lambda asked, reserved: (None, devices.choose(asked, reserved), "0"))
    given, why = device.beside(presets.load("quickstart", ["compute.evaluators=2"]), (), None)
    assert given == []
    assert "no more GPUs are free" in why
