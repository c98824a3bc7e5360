"""Run directories without an engine: made by the package's own writers, in every state a list can meet."""

import json
import math
import os

from engine.disk import replace_json
from engine.runs.events import EventLog
from engine.runs.layout import RunDirectory, create
from engine.runs.process import Heartbeat, Lock, identity
from engine.runs.state import State

NOW = 1_790_000_000.0


def config(preset="quickstart", sets=()):
    from engine.experiment import presets

    return presets.dumped(presets.load(preset, list(sets)))


_QUICKSTART = []


def made(
    folder, name="quickstart", status="finished", epoch=12, epochs=12, clean=0.9, noisy=0.8, points=40, id=None,
    age=3600.0, **state,
):  # fmt: skip
    """A run with a state, a record of ``points`` training records and a configuration; returns its directory."""
    if not _QUICKSTART:
        _QUICKSTART.append(config())
    run = create(folder, name, _QUICKSTART[0])
    if id is not None:
        run = RunDirectory(run.path.rename(folder / id))
    os.utime(run.config, (NOW - age, NOW - age))
    steps = epochs * 23
    step = round(steps * epoch / epochs)
    metrics = {"train/loss": 0.5, "test/accuracy": clean, "test/noisy_accuracy": noisy} if epoch else {}
    facts = {
        "name": name, "preset": "quickstart", "tags": ["quick"], "device": "cpu", "created": NOW - age,
        "updated": NOW, "began": NOW - 3500, "trained_seconds": 55.0, **state,
    }  # fmt: skip
    State(
        status=status, epoch=epoch, epochs=epochs, step=step, steps=steps,
        metrics={k: v for k, v in metrics.items() if v is not None}, **facts,
    ).write(run, durable=False)  # fmt: skip
    if points:
        log = EventLog(run.events)
        for index in range(points):
            values = {"train/loss": round(2.3 * math.exp(-index / 9) + 0.05 * (index % 3), 5)}
            log.append("train", step=(index + 1) * 5, epoch=1 + index // 5, losses=[], values=values)
        log.close()
    return run


def ablation(folder):
    """Thirteen runs: four values of lambda, three seeds and once a fourth; one failed, one with a live change."""
    for place in range(13):
        number, seed = place % 4, 1 + place // 4
        how = {"status": "failed", "epoch": 4} if place == 6 else {"changed": {"hah.lambda": 9.0}} if place == 9 else {}
        run = made(
            folder, id=f"quickstart-{'abcdefghjkmnp'[place]}k2m", clean=0.9 + 0.01 * number + 0.004 * seed, points=0,
            noisy=0.5 + 0.02 * number * seed, age=100.0 * (place + 1), created=NOW - 100.0 * (place + 1), **how,
        )  # fmt: skip
        run.config.write_text(config(sets=[f"hah.lambda={(0.0, 0.1, 0.5, 1.0)[number]}", f"seed={seed}"]))


def alive(folder, name="running", status="running", **facts):
    """A run whose lock this process holds, so that it counts as live; returns (directory, lock)."""
    run = made(folder, name, status=status, engine=identity().dump(), **facts)
    lock = Lock.take(run.lock)
    Heartbeat(run.heartbeat).beat(1000.0)
    return run, lock


def broken(folder, name="broken"):
    """Run directories that something has eaten at."""
    runs = []
    for index, (state, events) in enumerate((("{", "\0\0\0"), ("[1, 2]", "{}\n[]\nx"), (None, None))):
        run = create(folder, f"{name}-{index}", "name: [unclosed")
        if state is not None:
            run.state.write_text(state)
            run.events.write_text(events)
        runs.append(run)
    run = create(folder, f"{name}-odd", "name: odd")
    replace_json(run.state, {"status": 7, "epoch": "x", "metrics": {"test/accuracy": "high"}, "tags": [1, "ok"]})
    runs.append(run)
    hostile = {"status": "failed", "error": "[red]x[/] \x1b[2J\x07 [loss=0.5]", "name": "a", "tags": ["[bold]t"]}
    run = create(folder, f"{name}-hostile", "name: hostile")
    run.state.write_text(json.dumps(hostile))
    runs.append(run)
    os.mkdir(run.path.parent / "no-run-at-all")
    return runs


def evaluated(runs):
    """A run of paper-hah with results of noise and attacks."""
    run = made(runs, id="paper-hah-q7xy", preset="paper-hah", epoch=100, epochs=100, clean=0.871, noisy=0.633)
    run.config.write_text(config("paper-hah"))
    base = {
        "schema_version": 1, "run": run.id, "dataset": "cifar10", "images": 10000, "test_images": 10000, "seed": 2022,
        "checkpoint": {"name": "last", "epoch": 100, "step": 39100}, "settings": {}, "clean_accuracy": 0.871,
        "versions": {}, "device": "cpu",
    }  # fmt: skip
    levels = [
        {"std": std, "accuracy": [mean], "mean": mean, "spread": 0.0, "snr_db": {str(n): 22.0 - n for n in range(1, 4)}}
        for std, mean in ((0.05, 0.8), (0.1, 0.633), (0.2, 0.3))
    ]
    noise = {"distribution": "gaussian", "levels": levels, "examples": None}
    methods = [{"name": "apgd-ce", "accuracy": 0.23}, {"name": "apgd-t", "accuracy": 0.211}]
    attack = {"norm": "linf", "eps": 2 / 255, "methods": methods, "robust_accuracy": 0.211, "stands": "01"}
    (run.results / "noise-0123abcd.json").write_text(json.dumps({**base, "suite": "noise", "result": noise}))
    document = {**base, "suite": "attacks", "images": 1000, "settings": {"steps": 20}, "result": {"attacks": [attack]}}
    (run.results / "attacks-0123abcd.json").write_text(json.dumps(document))
    return run


def sweep(runs, text, name="study"):
    """A plan, written and kept as `hah sweep run` would; returns it as stored."""
    from engine.sweep import plan, sweeps

    runs.mkdir(exist_ok=True)
    path = runs.parent / f"{name}.yaml"
    path.write_text(text)
    sweeps.write(runs, sweeps.of_plan(plan.load(path)))
    return sweeps.read(runs, name)


def trial(runs, sweep, place, seed, status="finished", **facts):
    """A run of the sweep's point of that place with a seed."""
    point = sweep.points[place]
    return made(runs, status=status, id=f"{point.case or 'run'}-{place}-s{seed}-ab12", group=point.group, seed=seed,
                points=0, **facts)  # fmt: skip
