"""``python -m engine``: the engine processes, the only door into the torch wing.

run DIR      train the run in DIR, to the end or until it is stopped; then evaluate it where its experiment says so
eval DIR     evaluate the run in DIR, as the job among its results says
probe        say whether a device and a data set are there
data         what images are there; download them
export DIR   weights of a run in a form that other programs read

Facts go to standard output as one JSON document. Exit codes: 0 done, 1 failed, 2 the request was wrong, 130 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from engine import disk
from engine.disk import read_json, replace_json
from engine.experiment import Experiment, RequestError, presets
from engine.experiment.datasets import DATASETS
from engine.experiment.document import assigned
from engine.experiment.schema import SCHEMA_VERSION
from engine.runs import devices, jobs, launch, manifest
from engine.runs.layout import LAYOUT_VERSION, RunDirectory
from engine.runs.process import STOPPING, Heartbeat, Lock, identity
from engine.runs.state import State, read_state

START_PATIENCE = 300.0  # seconds until torch is imported and the images are read, on a slow file system


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("path", type=Path)
    run.add_argument("--lock", type=int, help="descriptor of the run's lock, taken by whoever starts this")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting to change first")
    run.add_argument("--without-set", action="append", default=[], metavar="KEY", help="a change not to take up again")
    evaluate = commands.add_parser("eval")
    evaluate.add_argument("path", type=Path)
    evaluate.add_argument("--lock", type=int, help="descriptor of the job's lock, taken by whoever starts this")
    evaluate.add_argument(
        "--estimate", metavar="JSON", help="only say how long the evaluation of this experiment takes"
    )
    evaluate.add_argument("--checkpoint", default="last", help="of the estimate")
    probe = commands.add_parser("probe")
    probe.add_argument("--device", default="auto")
    probe.add_argument("--dataset")
    probe.add_argument("--torch", action="store_true", help="what torch itself says")
    export = commands.add_parser("export")
    export.add_argument("path", type=Path)
    export.add_argument("--checkpoint", default="last")
    export.add_argument("--to", type=Path, required=True)
    data = commands.add_parser("data")
    data.add_argument("verb", choices=("status", "prepare"))
    data.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    devices.calm_threads()
    _be_nice()
    try:
        if arguments.command == "run":
            return _run(arguments, _Signals())
        if arguments.command == "eval" and not arguments.estimate:
            return _eval(arguments.path.absolute(), arguments.lock, _Signals())
        answer = {"probe": _probe, "data": _data, "export": _export, "eval": _estimate}[arguments.command](arguments)
        print(json.dumps(answer))
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(arguments: argparse.Namespace, stop: _Signals) -> int:
    run = RunDirectory(arguments.path.absolute())
    run.check()
    lock = Lock(arguments.lock) if arguments.lock is not None else Lock.take(run.lock)
    if lock is None:
        raise RequestError(f"{run.id} is being run by process {read_state(run).engine.get('pid', '?')}")
    state = replace(read_state(run), status="starting", error="", engine=identity().dump(), started=time.time())
    Heartbeat(run.heartbeat).beat(START_PATIENCE)
    state.write(run)
    try:
        sets = dict(map(assigned, arguments.set))
        code, job = _train(run, state, stop, sets, arguments.without_set)
    except BaseException as error:  # before it began
        if isinstance(error, RequestError) and state.before not in ("", "starting", "queued"):
            print(error, flush=True)
            replace(state, status=state.before).write(run)
            return launch.REFUSED
        replace(state, status="failed", error=_told(error)).write(run)
        return 1
    lock.release()  # all is written: whoever resumes need not wait for this process to fold up
    return code if job is None else _eval(run.path, job.descriptor, stop)


def _train(
    run: RunDirectory, state: State, stop: _Signals, sets: Mapping[str, Any], without: Sequence[str]
) -> tuple[int, Lock | None]:
    """Train; returns the exit code and the lock of the evaluation that is to follow, if one is."""
    experiment = presets.load(str(run.config))
    device, choice = _chosen(experiment)

    import torch

    from engine.training.loop import Stopped, Training
    from engine.training.record import Record

    record = Record(run, replace(state, device=choice.gpu.name if choice.gpu else device.type))
    record.event("engine", **identity().dump(), device=str(device), gpu=choice.gpu and choice.gpu.name, why=choice.why)
    if choice.warning:
        record.warning(choice.warning)
    training = Training(run, experiment, record, device, choice.gpu, lambda: stop.asked)
    warnings.showwarning = lambda message, *_: record.warning(str(message))
    try:
        images = training.prepare(sets, without)
        record.open_tensorboard(training.experiment, training.step)
        replace_json(
            run.manifest,
            {
                **read_json(run.manifest),
                "schema_version": SCHEMA_VERSION,
                "layout_version": LAYOUT_VERSION,
                "seed": experiment.seed,
                "versions": manifest.versions(),
                "source": manifest.source(),
                **manifest.machine(),
                "device": {
                    "type": device.type,
                    "gpu": choice.gpu and choice.gpu.name,
                    "driver": devices.driver(),
                    "cuda": torch.version.cuda,
                    "threads": torch.get_num_threads(),
                },
                "dataset": {"name": experiment.data.dataset, "sha256": images.fingerprint, "source": images.source},
                "network": {"parameters": experiment.parameters(), "macs": experiment.macs()},
            },
        )
        training.train()
        # The job is there before the run says that it is finished: whoever waits for that finds it.
        job = _job_after(run, training.experiment, record)
        record.end("finished", step=training.step, epoch=training.epoch)
        return 0, job
    except Stopped as stopped:
        record.end(
            "stopped", by=stopped.by, signal=stopped.signal, saved=stopped.save, step=training.step,
            epoch=training.epoch,
        )  # fmt: skip
        return 130, None
    except BaseException as error:
        if isinstance(error, RequestError) and not record.state.began:
            record.event("refused", text=str(error))
            record.close()
            raise
        _told(error)
        text = _explained(error, training)
        record.end("failed", error=text, text=text)
        return 1, None


def _job_after(run: RunDirectory, experiment: Experiment, record: Any) -> Lock | None:
    """The evaluation that an experiment asks for when its training ends."""
    if not experiment.evaluate.suites:
        return None
    try:
        lock = jobs.take(run)
        jobs.prepare(run, experiment, "last")
    except (RequestError, OSError) as error:
        record.warning(f"the evaluation that should follow cannot begin: {error}")
        return None
    return lock


def _eval(path: Path, descriptor: int | None, stop: _Signals) -> int:
    """Do the evaluation that the run's job describes; what is measured already is not measured again."""
    run = RunDirectory(path)
    directory = run.evaluation
    lock = Lock(descriptor) if descriptor is not None else jobs.take(run)
    state = replace(read_state(directory), status="starting", error="", engine=identity().dump(), started=time.time())
    Heartbeat(directory.heartbeat).beat(START_PATIENCE)
    state.write(directory)
    record = None
    try:
        experiment = presets.load(str(directory.config))
        device, choice = _chosen(experiment, exact=True)

        from engine.evaluation.job import Evaluation
        from engine.training.loop import Stopped
        from engine.training.record import Record

        record = Record(directory, replace(state, device=choice.gpu.name if choice.gpu else device.type))
        record.event(
            "engine", **identity().dump(), device=str(device), gpu=choice.gpu and choice.gpu.name, why=choice.why
        )
        if choice.warning:
            record.warning(choice.warning)
        warnings.showwarning = lambda message, *_: record.warning(str(message))
        try:
            checkpoint = str(read_json(directory.manifest).get("checkpoint", "last"))
            evaluation = Evaluation(run, experiment, checkpoint, record, device, lambda: stop.asked)
            evaluation.prepare()
            evaluation()
            record.end("finished")
            return 0
        except Stopped as stopped:
            record.end("stopped", by=stopped.by, signal=stopped.signal)
            return 130
    except BaseException as error:
        text = _told(error)
        if record is None:
            replace(state, status="failed", error=text).write(directory)
        else:
            record.end("failed", error=text, text=text)
        return 1
    finally:
        lock.release()


def _estimate(arguments: argparse.Namespace) -> dict[str, Any]:
    """How long an evaluation would take."""
    experiment = presets.parse(json.loads(arguments.estimate))
    device, choice = _chosen(experiment, exact=True)

    from engine.evaluation.job import estimate

    found = estimate(RunDirectory(arguments.path.absolute()), experiment, arguments.checkpoint, device)
    return {"device": choice.gpu.name if choice.gpu else device.type, "suites": found}


def _be_nice() -> None:
    """Take on the niceness this was started with also where Linux schedules sessions as groups: an engine has a session
    of its own, and niceness alone would count only within it."""
    if niceness := os.nice(0):
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness))


class _Signals:
    """Signals that ask the run to save and stop; ``asked`` is the name of the last one. A hang-up is nothing to an
    engine. Those that came since it was launched have waited for this."""

    def __init__(self) -> None:
        self.asked = ""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in STOPPING:
            signal.signal(number, self._ask)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = signal.Signals(number).name


def _chosen(experiment: Experiment, exact: bool = False) -> tuple[Any, devices.Choice]:
    """The torch device that the experiment asks for, with its arithmetic (``exact``: float32), and why that one."""
    device, choice = _device(experiment.compute.device)

    import torch

    if experiment.compute.threads is not None:
        torch.set_num_threads(experiment.compute.threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # By the older names: what asks for them (torch.compile) raises where the newer ones were set.
    fast = experiment.train.precision in ("tf32", "bf16", "auto") and not exact
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = fast
    return device, choice


@cache
def _device(asked: str) -> tuple[Any, devices.Choice]:
    """The torch device of compute.device; chosen once, so that an evaluation stays where its training was."""
    choice = devices.choose(asked)
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


def _told(error: BaseException) -> str:
    """What went wrong, in words; engine.log has where, but for what a person can mend without knowing that."""
    if isinstance(error, RequestError):
        return str(error)
    traceback.print_exc()
    return f"{type(error).__name__}: {error}"


def _explained(error: BaseException, training: Any) -> str:
    """What went wrong, where, and what can be done about it."""
    from engine.training.step import DivergedError

    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, DivergedError):
        return f"diverged at {text}; {training.last_good()}"
    if "out of memory" in text.lower() or "can't allocate memory" in text or isinstance(error, MemoryError):
        batch = training.experiment.train.batch_size
        size = re.search(r"tried to allocate [\d.]+ \w+", text, re.IGNORECASE)
        said = f" ({size[0].lower()})" if size else ""
        return f"out of memory{said}; lower train.batch_size ({batch}) or model.width, or choose another compute.device"
    if isinstance(error, OSError):
        return f"{error.strerror or text}: {error.filename or 'a file of the run'}; {training.last_good()}"
    return text if isinstance(error, RequestError) else f"{type(error).__name__}: {text}"


def _probe(arguments: argparse.Namespace) -> dict[str, Any]:
    """Whether device and data are there; raises RequestError where they are not."""
    if arguments.dataset:
        from engine.data import archives

        archives.require(arguments.dataset)
    found = devices.gpus()
    devices.check(arguments.device, found)
    answer: dict[str, Any] = {"gpus": len(found)}
    if arguments.torch or arguments.device.startswith("cuda"):
        import torch

        there = torch.cuda.is_available()
        if not there and arguments.device.startswith("cuda"):
            raise RequestError(
                f"compute.device: {arguments.device} is not there: torch {torch.__version__} sees no GPU; allowed "
                "here: cpu, auto"
            )
        answer |= {"torch": torch.__version__, "cuda_available": there, "threads": torch.get_num_threads()}
    if arguments.torch:
        try:
            import torchvision

            answer["torchvision"] = torchvision.__version__
        except (ImportError, RuntimeError) as error:
            answer["torchvision_error"] = str(error)
    return answer


def _export(arguments: argparse.Namespace) -> dict[str, Any]:
    """Weights of a checkpoint as safetensors, the experiment that made them beside them."""
    from safetensors.torch import save

    from engine.training import checkpoints

    run = RunDirectory(arguments.path)
    path = checkpoints.named(run, arguments.checkpoint)
    try:
        checkpoint = checkpoints.read(path)
    except checkpoints.DamagedError as error:
        raise RequestError(f"{run.id}: {error}") from None
    experiment = presets.parse(checkpoint["experiment"])
    facts = {
        "run": run.id,
        "checkpoint": arguments.checkpoint,
        "epoch": checkpoint["epoch"],
        "step": checkpoint["step"],
    }
    weights, config = arguments.to / "model.safetensors", arguments.to / "config.yaml"
    try:
        arguments.to.mkdir(parents=True, exist_ok=True)
        for file in (weights, config):
            if os.path.lexists(file):
                raise RequestError(f"{file} exists; choose another --to")
        tensors = {name: tensor.contiguous() for name, tensor in checkpoint["network"].items()}
        disk.write_new(weights, save(tensors, {name: str(value) for name, value in facts.items()}))
        try:
            disk.write_new(config, presets.dumped(experiment).encode())
        except OSError:
            weights.unlink()
            raise
    except FileExistsError as error:
        raise RequestError(f"{error.filename or arguments.to} exists; choose another --to") from None
    except OSError as error:
        raise RequestError(f"{arguments.to} cannot be written: {error.strerror}") from None
    return {**facts, "files": [str(weights), str(config)]}


def _data(arguments: argparse.Namespace) -> Any:
    from engine.data import archives

    known = (*DATASETS, "cifar10-c")
    names = arguments.names or list(known if arguments.verb == "status" else DATASETS)
    for name in names:
        if name not in known:
            raise RequestError(f"there is no data set {name!r}; there is {', '.join(known)}")
    datasets = [name for name in names if name in DATASETS]
    if arguments.verb == "prepare":
        for name in datasets:
            if not archives.is_there(name):
                archives.prepare(name)
            archives.require(name)
    answer: dict[str, Any] = {
        "folder": str(archives.data_folder()),
        "datasets": [archives.status(name) for name in datasets],
    }
    if "cifar10-c" in names:
        from engine.evaluation import corruptions

        if arguments.verb == "prepare":
            images = archives.load("cifar10")
            corruptions.prepare(
                images.x_test, images.y_test, lambda line: print(launch.PROGRESS + line, file=sys.stderr, flush=True)
            )
        answer["corruptions"] = corruptions.status()
    return answer


if __name__ == "__main__":
    sys.exit(main())
