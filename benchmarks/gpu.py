"""Everything there is to measure on a GPU, by value, as far as the minutes go; the next call goes on from there.

    python benchmarks/gpu.py --minutes 10 [--to build/gpu] [--commit SHA]
    python benchmarks/gpu.py --rehearse          all of it at a tiny size, on the CPU, in under a minute
    python benchmarks/gpu.py --unpack gpu.json --to results/2026-11-26-h200      the runs that a document holds
    python benchmarks/gpu.py --floors            what a step cannot be faster than, on an H100 and an H200

In this order: facts of the machine and its ceilings; tests/gpu; agreement, step, kernels against the memory floor, a
profile; paper-standard and paper-hah-lambda-1, 100 epochs with test and noisy accuracy after each, and their
evaluations; lambda 0.1, the ablations, more seeds. TO/gpu.json holds what is done, TO/runs the runs; a training that
the time does not suffice for is stopped and saved.

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
SEEDS = (2022, 2023, 2024)
TRAININGS = (  # (preset, seed) by value
    ("paper-standard", 2022), ("paper-hah-lambda-1", 2022), ("paper-hah", 2022), ("no-hah-loss", 2022),
    ("no-threshold-lambda-1", 2022), ("batch-norm-lambda-1", 2022),
    *((preset, seed) for seed in SEEDS[1:] for preset in ("paper-standard", "paper-hah-lambda-1")),
)  # fmt: skip
SUITES = {  # of every training, by value: what is set beside the suite
    "noise": [], "attacks": ["evaluate.images=1000"], "sparsity": [],
    "corruptions": ["evaluate.images=2000", "evaluate.corruptions.source=generated"],
    "minimum_norm": ["evaluate.images=200"], "masking": ["evaluate.images=500"],
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

    def __init__(self, folder: Path, minutes: float, rehearse: bool, commit: str) -> None:
        import machine
        from gpu_measures import REHEARSAL, Size

        self.folder, self.rehearse, self.end = folder, rehearse, time.monotonic() + 60 * minutes
        self.where = machine.torch.device("cpu") if rehearse else machine.device()
        self.size = REHEARSAL if rehearse else Size()
        self.path = folder / "gpu.json"
        self.document: dict[str, Any] = {"benchmark": "gpu", "parts": {}}
        if self.path.exists():
            self.document = json.loads(self.path.read_text())
        self.document |= machine.facts()
        if commit:
            self.document["source"] = {"commit": commit, "dirty": None}

    @property
    def left(self) -> float:
        """Seconds until nothing more is begun."""
        return self.end - LAST - time.monotonic()

    def part(self, name: str, work: Callable[[], Any], least: float = 5.0) -> None:
        """Do what is not done yet, unless less than ``least`` seconds are left; what fails is said and passed over."""
        before = self.document["parts"].get(name, {})
        if before.get("status") == "done":
            print(f"{name}: done before", flush=True)
            return
        if self.left < least:
            self.document["parts"].setdefault(name, {"status": "no time"})
            self.save()
            print(f"{name}: no time left", flush=True)
            return
        began, status, result = time.monotonic(), "done", None
        try:
            result = work()
            if isinstance(result, dict) and result.get("status") in ("stopped", "failed"):
                status = "partial" if result["status"] == "stopped" else "failed"
        except Exception as error:
            traceback.print_exc()
            status, result = "failed", f"{type(error).__name__}: {error}"
        spent = before.get("seconds", 0.0) + time.monotonic() - began
        self.document["parts"][name] = {"status": status, "seconds": spent, "result": result}
        self.save()
        print(f"{name}: {status}, {time.monotonic() - began:.1f} s", flush=True)

    def result(self, name: str) -> Any:
        return self.document["parts"].get(name, {}).get("result")

    def save(self) -> None:
        from engine.disk import replace_text

        self.folder.mkdir(parents=True, exist_ok=True)
        replace_text(self.path, json.dumps(self.document, indent=1, allow_nan=False) + "\n")


def tests(session: Session) -> dict[str, Any]:
    """tests/gpu: how many passed, and the end of what was said."""
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-o", "addopts=", "-o", "filterwarnings="]
    command += ["-p", "no:cacheprovider", "--tb=short", "-ra"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""} if session.rehearse else dict(os.environ)
    environment.pop("TRITON_INTERPRET", None)
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=max(5, min(240, session.left))
        )
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        code, said = -1, (late.stdout or b"").decode(errors="replace")
    return {"exit_code": code, "summary": said.strip().splitlines()[-1:], "said": said[-6000:]}


def experiment_of(session: Session, preset: str, seed: int) -> tuple[Any, list[str]]:
    from engine.experiment import presets

    sets = [f"seed={seed}", *(TINY if session.rehearse else ["observe.every=1"])]
    return presets.load(preset, sets), sets


def training(session: Session, preset: str, seed: int) -> dict[str, Any]:
    """Train a preset, or go on with it, until it is finished or the time is up; what its record says."""
    from engine.experiment import presets
    from engine.runs import store
    from engine.runs.making import Origin
    from hah_tui import engines

    experiment, sets = experiment_of(session, preset, seed)
    run = found(session, preset, seed)
    if run is None:
        preset_ = presets.find(preset)
        run, process = engines.begin(experiment, Origin(preset, preset_.path, sets), session.folder / "runs")
    elif store.look(run).status == "finished":
        return told(run)
    else:
        process = engines.resume(run)
    wait(session, run, process)
    return told(run)


def wait(session: Session, run: Any, process: subprocess.Popen[bytes]) -> None:
    """Until an engine has ended; once the time is up it is asked to save and stop."""
    from engine.runs import control, launch

    launch.answer_signals()
    while process.poll() is None and session.left > 0:
        time.sleep(0.1)
    if process.poll() is None:
        control.send(run, "stop")
        process.wait(LAST - 5)


def found(session: Session, preset: str, seed: int) -> Any:
    """The run of a preset and seed in this session's folder, or None."""
    from engine.disk import read_json
    from engine.runs import store
    from engine.runs.state import read_state

    for run in store.all_runs(session.folder / "runs"):
        if read_state(run).preset == preset and f"seed={seed}" in read_json(run.manifest).get("sets", []):
            return run
    return None


def told(run: Any) -> dict[str, Any]:
    """What the record of a run says: seconds (of training, and from the start to the end), accuracies."""
    from engine.disk import read_json
    from engine.runs import kept
    from engine.runs.state import read_state

    state = read_state(run)
    status = {"finished": "finished", "stopped": "stopped"}.get(state.status, "failed")
    return {
        "run": run.id, "status": status, "error": state.error, "device": state.device, "epochs": state.epoch,
        "arithmetic": read_json(run.manifest).get("arithmetic"), "trained_seconds": state.trained_seconds,
        "wall_seconds": state.updated - state.began, "metrics": state.metrics, "curves": kept.curves(run),
    }  # fmt: skip


def evaluation(session: Session, preset: str, seed: int, suite: str) -> dict[str, Any]:
    """One suite of a finished run, or as many of its pieces as the time allows; its result's numbers."""
    from engine.disk import read_json
    from engine.experiment import presets
    from engine.runs.state import read_state
    from hah_tui import engines

    run = found(session, preset, seed)
    if run is None or read_state(run).status != "finished":
        return {"status": "failed", "error": "its training has not finished"}
    suites, sets = [suite], SUITES[suite]
    if session.rehearse:  # all suites in one process
        suites = list(SUITES)
        sets = [*TINY[-1:], "evaluate.images=8", *(one for each in TINY_SUITES.values() for one in each)]
    standard = found(session, "paper-standard", seed)
    if "masking" in suites and standard is not None and standard != run:
        sets = [*sets, f"evaluate.masking.standard={standard.id}"]
    if not (session.rehearse and list(run.results.glob(f"{suite}-*.json"))):
        experiment = engines.evaluation(presets.load(str(run.config)), suites, None, sets)
        wait(session, run.evaluation, engines.evaluate(run, experiment, "last"))
    state = read_state(run.evaluation)
    status = {"finished": "finished", "stopped": "stopped"}.get(state.status, "failed")
    results = {path.name: read_json(path, 1 << 28)["result"] for path in run.results.glob(f"{suite}-*.json")}
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
    """Every part, by value."""
    import gpu_measures as measures

    where, size = session.where, session.size
    session.part("machine", lambda: measures.ceilings(where, size))
    ceilings = session.result("machine") or {}
    session.part("tests", lambda: tests(session), 30 * (not session.rehearse))
    session.part("agreement", lambda: measures.agreement(where, size))
    session.part("steps", lambda: measures.steps(where, size))
    session.part("kernels", lambda: measures.kernels(where, size, ceilings["copy_bytes_per_second"]))
    session.part("profile", lambda: measures.profile(where, size))
    session.part(
        "floors",
        lambda: measures.floors(ceilings["copy_bytes_per_second"], ceilings["bf16_flop_per_second"], size.batches[0]),
    )
    chosen: Sequence[tuple[str, int]] = TRAININGS[:2] if session.rehearse else TRAININGS
    for preset, seed in chosen[:2]:
        session.part(f"train {preset} {seed}", lambda p=preset, s=seed: training(session, p, s))
    for suite in SUITES:
        for preset, seed in chosen[:2]:
            run = lambda p=preset, s=seed, suite=suite: evaluation(session, p, s, suite)  # noqa: E731
            session.part(f"evaluate {preset} {seed} {suite}", run)
    for preset, seed in chosen[2:]:
        session.part(f"train {preset} {seed}", lambda p=preset, s=seed: training(session, p, s))
        for suite in ("noise", "attacks", "sparsity"):
            run = lambda p=preset, s=seed, suite=suite: evaluation(session, p, s, suite)  # noqa: E731
            session.part(f"evaluate {preset} {seed} {suite}", run)
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
        session = Session(arguments.to.absolute(), arguments.minutes, arguments.rehearse, arguments.commit)
        if session.where.type != "cuda" and not arguments.rehearse:
            sys.exit("torch sees no GPU here; --rehearse does everything at a tiny size on the CPU")
        measure(session)
        print(json.dumps({name: part["status"] for name, part in session.document["parts"].items()}))


if __name__ == "__main__":
    main()
