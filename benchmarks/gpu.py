"""Everything there is to measure on a GPU, by value, as far as the minutes go; the next call goes on from there.

    python benchmarks/gpu.py --minutes 10 [--to build/gpu] [--commit SHA] [--only measures|runs] [--at-once 4]
    python benchmarks/gpu.py --only runs --trainings no-hah-loss:2022 paper-hah:2023      these, each then evaluated
    python benchmarks/gpu.py --rehearse          all of it at a tiny size, on the CPU, in under a minute
    python benchmarks/gpu.py --unpack gpu.json --to results/2026-11-26-h200      the runs that a document holds
    python benchmarks/gpu.py --floors            what a step cannot be faster than, on an H100 and an H200

First the measures: facts of the machine and its ceilings; tests/gpu; step, profile, agreement, kernels against the
memory floor. Then the runs, by value and several at once on the one GPU: paper-hah-lambda-1 and paper-standard, 100
epochs with test and noisy accuracy after each, and their evaluations; lambda 0.1, the ablations, more seeds. The first
training has the GPU for itself in its first epochs, which tells what an epoch takes alone. TO/gpu.json holds what is
done, TO/runs the runs; what the time does not suffice for is stopped and saved.

It needs a checkout and what `needed` says, not the terminal; what is missing is named. Images: HAH_DATA.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a machine that has only the checkout
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

NEEDED = {  # package: what is imported of it; beside PyTorch, Triton and NumPy
    "pydantic": "pydantic", "pydantic-core": "pydantic_core", "annotated-types": "annotated_types",
    "typing-inspection": "typing_inspection", "pyyaml": "yaml", "platformdirs": "platformdirs",
    "tensorboard": "tensorboard", "nvidia-ml-py": "pynvml", "pyautoattack": "pyautoattack", "scipy": "scipy",
    "pillow": "PIL", "safetensors": "safetensors", "torchvision": "torchvision",
    "pytest": "pytest",
}  # fmt: skip
LAST = 20.0  # seconds before the end in which nothing is begun
MAIN = (("paper-hah-lambda-1", 2022), ("paper-standard", 2022))
ABLATIONS = tuple(
    (preset, 2022) for preset in ("paper-hah", "no-hah-loss", "no-threshold-lambda-1", "batch-norm-lambda-1")
)
MORE = tuple((preset, seed) for seed in (2023, 2024) for preset, _ in MAIN)
ALONE = 4  # epochs of the first training before another engine begins
SUITES = {  # by value: what is set beside the suite
    "noise": [], "sparsity": [], "attacks": ["evaluate.images=1000"], "minimum_norm": ["evaluate.images=200"],
    "masking": ["evaluate.images=500"],
    "corruptions": ["evaluate.images=2000", "evaluate.corruptions.source=generated"],
}  # fmt: skip
CHOSEN = {  # of trainings that were asked for by name: what Tables 1 and 3 need of each
    "noise": ["evaluate.noise.levels=[0.1]"], "attacks": ["evaluate.images=500"],
}  # fmt: skip
TINY = [
    "model.width=0.0625", "data.dataset=digits", "data.augment=none", "data.train_limit=64", "data.test_limit=16",
    "train.epochs=1", "train.milestones=[]", "train.batch_size=32", "observe.images=8", "compute.device=cpu",
]  # fmt: skip
TINY_SUITES = {
    "noise": ["evaluate.noise.levels=[0.1]", "evaluate.noise.draws=1"],
    "attacks": ["evaluate.attacks.steps=1", "evaluate.attacks.methods=[pgd]"], "sparsity": [],
    "corruptions": ["evaluate.corruptions.names=[fog]", "evaluate.corruptions.severities=[5]"],
    "minimum_norm": [f"evaluate.minimum_norm.{one}" for one in ("steps=1", "trials=0", "norms=[l2]")],
    "masking": ["evaluate.masking.steps=1", "evaluate.masking.queries=1"],
}  # fmt: skip


class Session:
    """One call: the document, where it lies, and how much time is left."""

    def __init__(
        self, folder: Path, minutes: float, rehearse: bool, commit: str, at_once: int, trainings: Sequence[str] = ()
    ) -> None:
        import machine
        from gpu_measures import REHEARSAL, Size

        self.folder, self.rehearse, self.end = folder, rehearse, time.monotonic() + 60 * minutes
        self.where = machine.torch.device("cpu") if rehearse else machine.device()
        self.size = REHEARSAL if rehearse else Size()
        self.at_once, self.path = at_once, folder / "gpu.json"
        self.trainings = [Job(preset, int(seed)) for preset, seed in (one.split(":") for one in trainings)]
        self.suites = CHOSEN if trainings else SUITES
        self.document: dict[str, Any] = {"benchmark": "gpu", "parts": {}}
        if self.path.exists():
            self.document = json.loads(self.path.read_text())
        facts = machine.facts()
        before = self.document.get("machine", facts["machine"])["gpu"]
        if before != facts["machine"]["gpu"]:
            sys.exit(f"{self.path} is of a {before}, this is a {facts['machine']['gpu']}; choose another --to")
        self.document |= facts
        if commit:
            self.document["source"] = {"commit": commit, "dirty": None}

    @property
    def left(self) -> float:
        """Seconds until nothing more is begun."""
        return self.end - LAST - time.monotonic()

    def due(self, name: str, least: float = 5.0) -> bool:
        """Whether a part is to be done now: it is not done yet, and ``least`` seconds are left."""
        if self.status(name) == "done":
            print(f"{name}: done before", flush=True)
            return False
        if self.left < least:
            self.document["parts"].setdefault(name, {"status": "no time"})
            self.save()
            print(f"{name}: no time left", flush=True)
            return False
        return True

    def note(self, name: str, began: float, status: str, result: Any) -> None:
        """What has come of a part that began at ``began``."""
        spent = time.monotonic() - began
        before = self.document["parts"].get(name, {}).get("seconds", 0.0)
        self.document["parts"][name] = {"status": status, "seconds": before + spent, "result": result}
        self.save()
        print(f"{name}: {status}, {spent:.1f} s", flush=True)

    def part(self, name: str, work: Callable[[], Any], least: float = 5.0) -> None:
        """Do what is not done yet, if ``least`` seconds are left; what fails is said and passed over."""
        if not self.due(name, least):
            return
        began = time.monotonic()
        try:
            self.note(name, began, "done", work())
        except Exception as error:
            traceback.print_exc()
            self.note(name, began, "failed", f"{type(error).__name__}: {error}")

    def status(self, name: str) -> Any:
        return self.document["parts"].get(name, {}).get("status")

    def result(self, name: str) -> Any:
        return self.document["parts"].get(name, {}).get("result")

    def save(self) -> None:
        from engine.disk import replace_text

        self.folder.mkdir(parents=True, exist_ok=True)
        replace_text(self.path, json.dumps(self.document, indent=1, allow_nan=False) + "\n")


def tests(session: Session, chosen: Sequence[str], most: float) -> dict[str, Any]:
    """Some of tests/gpu, for ``most`` seconds: how many passed, and the end of what was said."""
    command = [sys.executable, "-m", "pytest", *chosen, "-q", "-o", "addopts=", "-o", "filterwarnings="]
    command += ["-p", "no:cacheprovider", "--tb=short", "-ra"]
    if importlib.util.find_spec("xdist") and not session.rehearse:
        command += ["-n", "6"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""} if session.rehearse else dict(os.environ)
    environment.pop("TRITON_INTERPRET", None)
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=max(5, min(most, session.left))
        )
        code, said = done.returncode, done.stderr + done.stdout  # the last line of which is pytest's
    except subprocess.TimeoutExpired as late:
        code, said = -1, (late.stdout or b"").decode(errors="replace")
    result = {"exit_code": code, "summary": said.strip().splitlines()[-1:], "said": said[-6000:]}
    if code:
        raise RuntimeError(json.dumps(result))
    return result


@dataclass(frozen=True)
class Job:
    """The training of a preset with a seed, or one suite of its evaluation, in an engine of its own."""

    preset: str
    seed: int
    suite: str = ""

    @property
    def training(self) -> Job:
        return replace(self, suite="")

    @property
    def name(self) -> str:
        return f"evaluate {self.preset} {self.seed} {self.suite}" if self.suite else f"train {self.preset} {self.seed}"

    def needs(self) -> set[Job]:
        """The trainings that must have ended before."""
        return {self.training, *([Job("paper-standard", self.seed)] if self.suite == "masking" else [])} - {self}


def train(session: Session, job: Job) -> tuple[Any, subprocess.Popen[bytes] | None]:
    """Begin a training, or go on with it: the run, and its engine unless it has finished before."""
    from engine.experiment import presets
    from engine.runs import store
    from engine.runs.making import Origin
    from hah_tui import engines

    run = found(session, job)
    if run is not None:
        return run, None if store.look(run).status == "finished" else engines.resume(run)
    sets = [f"seed={job.seed}", *(TINY if session.rehearse else ["compute.device=cuda", "checkpoints.every=10"])]
    if job in session.trainings:
        sets.append("observe.every=5")  # more of them in the time there is
    preset = presets.find(job.preset)
    return engines.begin(presets.load(job.preset, sets), Origin(job.preset, preset.path, sets), session.folder / "runs")


def evaluate(session: Session, job: Job) -> tuple[Any, subprocess.Popen[bytes] | None]:
    """Begin one suite of a finished run: its evaluation, and the engine unless everything has been measured."""
    from engine.experiment import presets
    from engine.runs.state import read_state
    from hah_tui import engines

    run = found(session, job)
    if run is None or read_state(run).status != "finished":
        raise RuntimeError("its training has not finished")
    suites, sets = [job.suite], ["compute.device=cuda", *session.suites[job.suite]]
    if session.rehearse:  # all suites in one process
        suites = list(SUITES)
        sets = [*TINY[-1:], "evaluate.images=8", *(one for each in TINY_SUITES.values() for one in each)]
    standard = found(session, Job("paper-standard", job.seed))
    if "masking" in suites and standard is not None and standard != run:
        sets = [*sets, f"evaluate.masking.standard={standard.id}"]
    if session.rehearse and list(run.results.glob(f"{job.suite}-*.json")):
        return run, None
    return run, engines.evaluate(run, engines.evaluation(presets.load(str(run.config)), suites, None, sets), "last")


def side_by_side(session: Session, jobs: Sequence[Job]) -> None:
    """Do jobs in their order, as many at once as the session allows, each once what it needs is done; once the time is
    up they are asked to save and stop."""
    from engine.runs import control, launch
    from engine.runs.state import read_state

    waiting = [job for job in jobs if session.due(job.name)]
    running: dict[Job, tuple[Any, subprocess.Popen[bytes] | None, float]] = {}
    lone = None  # the first training, while it is to have the GPU for itself
    while waiting or running:
        for job, (run, process, began) in list(running.items()):
            if process is None or process.poll() is not None:
                del running[job]
                told_ = told(run) if not job.suite else measured(run, job.suite)
                status = {"finished": "done", "stopped": "partial"}.get(told_["status"], "failed")
                session.document["runs"] = packed(session)  # at once: a call that is cut off must not lose a result
                session.note(job.name, began, status, told_)
        if session.left <= 0:
            break
        taken = {job.training for job in running}
        ready = (
            job for job in waiting
            if job.training not in taken and not job.needs() & {*waiting, *running}
        )  # fmt: skip
        if lone is not None and (read_state(lone).epoch >= ALONE or not running):
            session.document["alone"], lone = alone(lone), None
        job = next(ready, None) if len(running) < session.at_once and lone is None else None
        if job is None:
            time.sleep(0.05)
            continue
        waiting.remove(job)
        began = time.monotonic()
        fresh = not (running or job.suite or session.document.get("alone") or found(session, job))
        try:
            running[job] = (*(evaluate if job.suite else train)(session, job), began)
            lone = running[job][0] if fresh else lone
        except Exception as error:
            traceback.print_exc()
            session.note(job.name, began, "failed", f"{type(error).__name__}: {error}")
        launch.answer_signals()
    for job, (run, process, _) in running.items():
        if process is not None and process.poll() is None:
            control.send(run.evaluation if job.suite else run, "stop")
    for job, (run, process, began) in running.items():
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(1.0, session.end - 5 - time.monotonic()))
        session.note(job.name, began, "partial", measured(run, job.suite) if job.suite else told(run))
    for job in waiting:
        session.due(job.name)


def alone(run: Any) -> dict[str, Any] | None:
    """Seconds of an epoch of a training that had the GPU for itself, of its epochs 2 to ALONE, never saved, tested
    after each unless trainings were asked for by name. None where it did not get that far."""
    from engine.runs.events import Tail

    when = {event["epoch"]: event["time"] for event in Tail(run.events) if event["kind"] == "epoch"}
    if not {1, ALONE} <= when.keys():
        return None
    return {"epochs": ALONE - 1, "seconds_per_epoch": (when[ALONE] - when[1]) / (ALONE - 1)}


def found(session: Session, job: Job) -> Any:
    """The run of a job in this session's folder, or None."""
    from engine.disk import read_json
    from engine.runs import store
    from engine.runs.state import read_state

    for run in store.all_runs(session.folder / "runs"):
        if read_state(run).preset == job.preset and f"seed={job.seed}" in read_json(run.manifest).get("sets", []):
            return run
    return None


def told(run: Any) -> dict[str, Any]:
    """What the record of a run says: seconds of training, accuracies."""
    from engine.disk import read_json
    from engine.runs import kept
    from engine.runs.state import read_state

    state = read_state(run)
    status = {"finished": "finished", "stopped": "stopped"}.get(state.status, "failed")
    return {
        "run": run.id, "status": status, "error": state.error, "device": state.device, "epochs": state.epoch,
        "arithmetic": read_json(run.manifest).get("arithmetic"), "trained_seconds": state.trained_seconds,
        "metrics": state.metrics, "curves": kept.curves(run),
    }  # fmt: skip


def measured(run: Any, suite: str) -> dict[str, Any]:
    """How the evaluation of a run ended, and the files of a suite's results, which are packed with the run."""
    from engine.runs.state import read_state

    state = read_state(run.evaluation)
    status = {"finished": "finished", "stopped": "stopped"}.get(state.status, "failed")
    results = sorted(path.name for path in run.results.glob(f"{suite}-*.json"))
    return {"status": status, "error": state.error, "device": state.device, "results": results}


def packed(session: Session) -> dict[str, dict[str, str]]:
    """The files that are kept of every run that has ended: {run: {name: text}}."""
    from engine.runs import kept, store
    from engine.runs.state import ENDED

    runs = {}
    with tempfile.TemporaryDirectory() as temporary:
        for run in store.all_runs(session.folder / "runs"):
            if store.look(run).status in ENDED:
                path = kept.keep(run, Path(temporary))
                files = [file for file in path.rglob("*") if file.is_file()]
                runs[run.id] = {str(file.relative_to(path)): file.read_text() for file in files}
    return runs


def unpack(document: Path, folder: Path) -> list[Path]:
    """Write the runs that a document holds into a folder, each as `hah export --results` would."""
    from engine.disk import replace_text

    written = []
    for run, files in json.loads(document.read_text())["runs"].items():
        for name, text in files.items():
            path = folder / run / name
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text)
            written.append(path)
    return written


def measure(session: Session) -> None:
    """What is measured of the machine and the step, by value."""
    import gpu_measures as measures

    where, size = session.where, session.size
    session.part("machine", lambda: measures.ceilings(where, size))
    ceilings = session.result("machine") or {}
    session.part("steps bf16", lambda: measures.steps(where, size, ["bf16"]))
    kernels = ["tests/gpu/test_captured.py", "tests/gpu/test_kernels.py"]
    session.part("tests of kernels", lambda: tests(session, kernels, 120), 30 * (not session.rehearse))
    session.part("profile", lambda: measures.profile(where, size))
    session.part("agreement", lambda: measures.agreement(where, size))
    session.part("kernels", lambda: measures.kernels(where, size, ceilings["copy_bytes_per_second"]))
    session.part(
        "floors",
        lambda: measures.floors(ceilings["copy_bytes_per_second"], ceilings["bf16_flop_per_second"], size.batches[0]),
    )
    session.part("tiles", lambda: measures.tiles(where, size))
    engines = ["tests/gpu/test_engines.py", "-k"]
    session.part("tests of engines", lambda: tests(session, [*engines, "not memory"], 120), 30 * (not session.rehearse))
    # Another process takes all memory in this one, so nothing else may run.
    session.part("tests of memory", lambda: tests(session, [*engines, "memory"], 60), 20 * (not session.rehearse))
    session.part("steps", lambda: measures.steps(where, size, ["tf32", "fp32"]))


def run(session: Session) -> None:
    """The trainings and evaluations, by value."""
    first = [Job(*one) for one in MAIN]
    soon = [replace(job, suite=suite) for suite in list(SUITES)[:3] for job in first]
    late = [replace(job, suite=suite) for suite in list(SUITES)[3:] for job in first]
    jobs = [*first, *soon, *late]
    if session.trainings:  # in their order, the evaluations of one before a training that finds no room yet
        begun, later = session.trainings[: session.at_once], session.trainings[session.at_once :]
        jobs = [*begun, *(replace(job, suite=suite) for job in begun for suite in CHOSEN)]
        jobs += [one for job in later for one in (job, *(replace(job, suite=suite) for suite in CHOSEN))]
    elif not session.rehearse:
        more = [[Job(*one) for one in some] for some in (ABLATIONS, MORE)]
        quick = [[replace(job, suite=suite) for job in some for suite in list(SUITES)[:3]] for some in more]
        jobs = [*first, *more[0][:2], *soon, *more[0][2:], *quick[0], *late, *more[1], *quick[1]]
    side_by_side(session, jobs)
    session.document["runs"] = packed(session)
    session.save()


def floors_table() -> None:
    """The floors of a step on an H100 and an H200, batch 128, bf16, at ceilings that were measured on such machines."""
    from gpu_measures import floors

    for name, bytes_per_second, flop_per_second in (("H100", 3.0e12, 798e12), ("H200", 4.3e12, 790e12)):
        print(f"{name}: {bytes_per_second / 1e12:.1f} TB/s, {flop_per_second / 1e12:.0f} TFLOP/s in bf16")
        rows = floors(bytes_per_second, flop_per_second)
        for row in rows:
            print(f"  {row['part']:<20} {row['flop'] / 1e9:6.0f} GFLOP {row['bytes'] / 1e9:6.2f} GB "
                  f"{row['launches']:4d} launches  {row['floor_milliseconds']:.3f} ms")  # fmt: skip
        total = sum(row["floor_milliseconds"] for row in rows)
        print(f"  {'all':<20} {sum(row['launches'] for row in rows):32d} launches  {total:.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--to", type=Path, default=Path("build/gpu"))
    parser.add_argument("--commit", default="", help="of the checkout, where it travels without its history")
    parser.add_argument("--only", choices=("measures", "runs"))
    parser.add_argument("--at-once", type=int, default=4, help="engines that share the GPU")
    parser.add_argument("--trainings", nargs="+", default=[], metavar="PRESET:SEED", help="instead of all by value")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--unpack", type=Path, metavar="JSON")
    parser.add_argument("--floors", action="store_true")
    arguments = parser.parse_args()
    missing = [package for package, module in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(f"bring wheels of {', '.join(missing)} (pip download --no-deps ...), and put them on PYTHONPATH")
    if arguments.floors:
        floors_table()
    elif arguments.unpack:
        print("\n".join(map(str, unpack(arguments.unpack, arguments.to))))
    else:
        if arguments.rehearse:
            os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is defined
        session = Session(
            arguments.to.absolute(),
            arguments.minutes,
            arguments.rehearse,
            arguments.commit,
            arguments.at_once,
            arguments.trainings,
        )
        if session.where.type != "cuda" and not arguments.rehearse:
            sys.exit("torch sees no GPU here; --rehearse does everything at a tiny size on the CPU")
        if arguments.only != "runs":
            measure(session)
        if arguments.only != "measures":
            run(session)
        print(json.dumps({name: part["status"] for name, part in session.document["parts"].items()}))


if __name__ == "__main__":
    main()
