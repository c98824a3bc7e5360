"""``python -m engine``: the engine processes, the only door into the torch wing.

run DIR        do the job of DIR (train, evaluate), to its end or until it is stopped, and the one that is to follow
share DIR      measure a part of the evaluation that is the job of DIR, beside it or before it, on any machine
forecast DIR   say how long an evaluation of the run in DIR takes
probe          say whether a device and a data set are there
data           what images are there; download them
export DIR     weights of a run in a form that other programs read

Facts go to standard output as one JSON document. Exit codes: 0 done, 1 failed, 2 the request was wrong, 3 another
engine has the run now, 130 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from engine import disk
from engine.experiment import Experiment, RequestError, presets
from engine.experiment.datasets import DATASETS, data_folder
from engine.experiment.document import assigned
from engine.job.life import Signals, live
from engine.runs import devices, launch, shares
from engine.runs.claims import Claim, TakenError, following
from engine.runs.layout import RunDirectory
from engine.runs.process import Lock, end
from engine.runs.state import Kind, read_state

if TYPE_CHECKING:
    import torch

    from engine.job.work import Job, Work


@dataclass(frozen=True)
class Verb:
    """``act`` returns an exit code, ``answer`` facts; ``options`` adds what the verb takes to its parser."""

    options: Callable[[argparse.ArgumentParser], object]
    act: Callable[[argparse.Namespace], int] | None = None
    answer: Callable[[argparse.Namespace], Any] = lambda arguments: None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine", description=__doc__)
    commands = parser.add_subparsers(dest="verb", required=True)
    for name, verb in VERBS.items():
        verb.options(commands.add_parser(name))
    arguments = parser.parse_args()
    devices.calm_threads()
    _be_nice(vars(arguments).get("nice", 0))
    verb = VERBS[arguments.verb]
    try:
        if verb.act is not None:
            return verb.act(arguments)
        print(json.dumps(verb.answer(arguments)))
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _be_nice(more: int) -> None:
    """Take on the niceness this was started with, and ``more``, also where Linux schedules sessions as groups: an
    engine has a session of its own, and niceness alone would count only within it. The session of whoever asks an
    engine something is a person's, with all else that they do there."""
    if (niceness := os.nice(more)) and os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness))


def _run(arguments: argparse.Namespace) -> int:
    """Do the job of a directory, whatever its kind, and then the one that is to follow it."""
    signals, directory = Signals(), RunDirectory(arguments.path.absolute())
    directory.check()
    lock = Lock(arguments.lock) if arguments.lock is not None else Lock.take(directory.lock)
    if lock is None:
        raise RequestError(f"{directory.id} is being run by process {read_state(directory).engine.get('pid', '?')}")
    if arguments.done is not None:
        os.set_inheritable(arguments.done, False)
    given = Claim(directory, arguments.claim) if arguments.claim is not None else None
    code, next_ = _do(directory, lock, signals, arguments, given)
    if next_ is not None and code == 0:
        code, _ = _do(*next_, signals, arguments)
    if arguments.done is not None:
        os.close(arguments.done)
    return code


def _do(
    directory: RunDirectory,
    lock: Lock,
    signals: Signals,
    arguments: argparse.Namespace,
    given: Claim | None = None,
) -> tuple[int, tuple[RunDirectory, Lock] | None]:
    """Do one job; returns the exit code, and the job that is to follow with its lock."""
    claim = given if given is not None else following(directory)
    if given is None and not claim.make():
        raise RequestError(f"{directory.id} was taken up meanwhile by another process")
    kind = WORKS[cast("Kind", read_state(directory).kind)]
    work: Work | None = None

    def make(job: Job, experiment: Experiment) -> Work:
        nonlocal work
        work = kind.make(job, experiment, arguments)
        gc.freeze()  # what was imported stays, and need not be looked at again
        gc.enable()
        return work

    def hold(experiment: Experiment) -> tuple[torch.device, devices.Choice]:
        from engine.job.device import hold

        return hold(experiment, kind.exact, next(iter(_reserved(arguments)), None), kind.threads(experiment, arguments))

    try:
        code = live(directory, signals, make, hold, claim)
    except TakenError as taken:
        print(f"{taken}: this engine ends and writes nothing more", flush=True)
        code = launch.TAKEN
    lock.release()  # all is written: whoever resumes need not wait for this process to fold up
    return code, work.following if work is not None else None


def _training(job: Job, experiment: Experiment, arguments: argparse.Namespace) -> Work:
    from engine.training.loop import Training

    return Training(job, experiment, dict(map(assigned, arguments.set)), arguments.without_set)


def _reserved(arguments: argparse.Namespace) -> list[devices.Reserved]:
    """The GPUs that whoever started this has chosen."""
    return [devices.Reserved(*one) for one in zip(arguments.gpu, arguments.gpu_lock, strict=True)]


def _evaluation(job: Job, experiment: Experiment, arguments: argparse.Namespace) -> Work:
    from engine.evaluation.work import Evaluation
    from engine.job.device import beside

    run, elsewhere = RunDirectory(job.directory.path.parents[1]), arguments.elsewhere
    if elsewhere:
        return Evaluation(job, experiment, run, elsewhere=elsewhere)
    given, fewer = beside(experiment, _reserved(arguments), _shared_threads(experiment, arguments))
    if fewer:
        job.record.warning(fewer)
    return Evaluation(job, experiment, run, given)


def _shared_threads(experiment: Experiment, arguments: argparse.Namespace) -> int | None:
    """CPU threads of each process of an evaluation, where the experiment names none: several share them."""
    processes, given = experiment.compute.evaluators, vars(arguments).get("threads")
    if processes == 1 or vars(arguments).get("elsewhere"):
        return given
    return max(1, (given or len(os.sched_getaffinity(0))) // processes)


def _part(job: Job, experiment: Experiment, arguments: argparse.Namespace) -> Work:
    from engine.evaluation.work import Share

    return Share(job, experiment, RunDirectory(job.directory.path.parents[1]), *arguments.part)


@dataclass(frozen=True)
class WorkOfKind:
    """How the work of a kind of job is made; ``exact``: in float32 whatever train.precision says."""

    make: Callable[[Job, Experiment, argparse.Namespace], Work]
    exact: bool = False
    threads: Callable[[Experiment, argparse.Namespace], int | None] = lambda experiment, arguments: arguments.threads


WORKS: dict[Kind, WorkOfKind] = {
    "training": WorkOfKind(_training),
    "evaluation": WorkOfKind(_evaluation, exact=True, threads=_shared_threads),
    "share": WorkOfKind(_part, exact=True),
}


def _share(arguments: argparse.Namespace) -> int:
    """Measure a part of an evaluation: process K of about N, each of which has a number K of its own.

    DIR is the job's directory, RUN/results/RUN-evaluation. The processes may be tasks of an array, on any machines that
    see the folder, and the job itself may run meanwhile (it is process 1 and starts 2 to compute.evaluators) or later:
    `run DIR` measures what is left and writes the results. What a process finds lies in RUN/results until then, so a
    killed one goes on where it was; how it stands, in DIR/shares/RUN-evaluation-K. It stops, with exit code 130, by a
    signal, or by a stop in its own inbox or in the job's; it ends with 0 when nothing is left that no other process
    measures. All, and the job, must see the same kind of device: a result is of one.
    """
    signals, (number, processes) = Signals(), arguments.part
    if arguments.leash is not None:
        os.set_inheritable(arguments.leash, False)
        threading.Thread(target=_die_with, args=(arguments.leash,), daemon=True).start()
    whole = RunDirectory(arguments.path.absolute())
    directory, lock = shares.take(whole, number, processes, patience=10.0)
    return _do(directory, lock, signals, arguments)[0]


def _die_with(leash: int) -> None:
    """End this process when the other end of a pipe is closed, as it is when the process that has it dies."""
    while os.read(leash, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def _forecast(arguments: argparse.Namespace) -> dict[str, Any]:
    """How long an evaluation would take."""
    from engine.job.device import hold, most

    experiment = presets.parse(json.loads(arguments.experiment))
    device, choice = hold(experiment, exact=True, threads=_shared_threads(experiment, arguments))

    from engine.evaluation.work import forecast
    from engine.job.work import Place

    processes, place = most(experiment), Place(device, choice)
    suites = forecast(RunDirectory(arguments.path.absolute()), experiment, arguments.checkpoint, place, processes)
    return {"device": place.name, "processes": processes, "suites": suites}


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

    from engine.job import checkpoints

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
    names = arguments.names or list(known if arguments.what == "status" else DATASETS)
    for name in names:
        if name not in known:
            raise RequestError(f"there is no data set {name!r}; there is {', '.join(known)}")
    datasets = [name for name in names if name in DATASETS]
    if arguments.what == "prepare":
        for name in datasets:
            if not archives.is_there(name):
                archives.prepare(name)
            archives.require(name)
    answer: dict[str, Any] = {
        "folder": str(data_folder()),
        "datasets": [archives.status(name) for name in datasets],
    }
    if "cifar10-c" in names:
        from engine.evaluation import corruptions

        if arguments.what == "prepare":
            images = archives.load("cifar10")
            corruptions.prepare(
                images.x_test, images.y_test, lambda line: print(launch.PROGRESS + line, file=sys.stderr, flush=True)
            )
        answer["corruptions"] = corruptions.status()
    return answer


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path)
    parser.add_argument("--lock", type=int, help="descriptor of the job's lock, taken by whoever starts this")
    parser.add_argument("--claim", type=int, help="the number that whoever starts this has claimed for it")
    _device_options(parser)
    parser.add_argument("--done", type=int, help="descriptor to close when all is done, before this process folds up")
    parser.add_argument(
        "--elsewhere", type=int, default=0, metavar="N",
        help="processes that share the evaluation, and that somebody else starts: here none is beside it",
    )  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting to change first")
    parser.add_argument("--without-set", action="append", default=[], metavar="KEY", help="a change not to take up")


def _device_options(parser: argparse.ArgumentParser) -> None:
    again: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--gpu", metavar="UUID", help="a GPU to use, chosen by whoever starts this", **again)
    parser.add_argument("--gpu-lock", type=int, help="descriptor of its lock", **again)
    parser.add_argument("--threads", type=int, help="CPU threads, where the experiment names none")
    parser.add_argument("--nice", type=int, default=0, help="niceness to add")


def _share_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path)
    parser.add_argument("--part", type=_part_of, required=True, metavar="K/N", help="which process of how many this is")
    parser.add_argument("--leash", type=int, help="descriptor of a pipe at whose end this process dies")
    _device_options(parser)


def _part_of(text: str) -> tuple[int, int]:
    number, _, processes = text.partition("/")
    if not (number.isdecimal() and processes.isdecimal() and 1 <= int(number) <= int(processes)):
        raise argparse.ArgumentTypeError(f"must be K/N, such as 2/8, got {text!r}")
    return int(number), int(processes)


def _forecast_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path)
    parser.add_argument("--experiment", metavar="JSON", required=True)
    parser.add_argument("--checkpoint", default="last")


def _probe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dataset")
    parser.add_argument("--torch", action="store_true", help="what torch itself says")


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("status", "prepare"))
    parser.add_argument("names", nargs="*")


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path)
    parser.add_argument("--checkpoint", default="last")
    parser.add_argument("--to", type=Path, required=True)


VERBS = {
    "run": Verb(_run_options, act=_run),
    "share": Verb(_share_options, act=_share),
    "forecast": Verb(_forecast_options, answer=_forecast),
    "probe": Verb(_probe_options, answer=_probe),
    "data": Verb(_data_options, answer=_data),
    "export": Verb(_export_options, answer=_export),
}


if __name__ == "__main__":
    gc.disable()  # a fifth of the time in which torch is imported
    end(main())
