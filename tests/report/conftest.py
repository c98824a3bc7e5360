"""Run directories with result files in the contract's format, numbers made up but known."""

import json
import os

import pytest

from engine.experiment import presets
from engine.experiment.datasets import PAPER_CORRUPTIONS
from engine.report import figures, formats
from engine.runs.layout import create
from engine.runs.state import State

CLEAN = {"paper-standard": 0.92, "paper-adversarial": 0.79, "paper-hah": 0.87}


def envelope(suite, result, run="", **changes):
    """A result file's document; that of minimum norms is of the present method."""
    method = {"method": 2} if suite == "minimum_norm" else {}
    return {
        "schema_version": 1, "suite": suite, "run": run, "dataset": "cifar10",
        "checkpoint": {"name": "last", "epoch": 100, "step": 39100}, "images": 10000, "test_images": 10000,
        "seed": 2022, "settings": {}, "clean_accuracy": 0.87, "versions": {}, "device": "cpu",
        "result": result, **method, **changes,
    }  # fmt: skip


def noise(levels, snr=None, distribution="gaussian", spread=0.0):
    """{std: accuracy}, {block: SNR in dB} at every level; ``spread``: over three draws."""
    return {
        "distribution": distribution,
        "levels": [
            {"std": std, "accuracy": [mean] * 3, "mean": mean, "spread": spread, "snr_db": snr or {"1": 20.0}}
            for std, mean in levels.items()
        ],
        "examples": None,
    }


def sparsity(hoyer, histogram=(1,) * 40):
    """[Hoyer of block 1, 2, ...]; the same histogram for all."""
    blocks = {
        str(n): {"hoyer": value, "active_fraction": value / 2, "silent_fraction": 0.01, "histogram": list(histogram)}
        for n, value in enumerate(hoyer, 1)
    }
    return {"edges": [n / len(histogram) for n in range(len(histogram) + 1)], "blocks": blocks}


def corruptions(at_5, step=0.05, source="official", missing=(), **more):
    """{name: accuracy at severity 5}; each milder severity is ``step`` better."""
    accuracy = {
        name: {str(severity): value + step * (5 - severity) for severity in range(1, 6)}
        for name, value in at_5.items()
        if name not in missing
    }
    return {"source": source, "missing": list(missing), "accuracy": accuracy, **more}


def attacks(*found, methods=("apgd-ce", "apgd-t")):
    """(norm, eps, robust accuracy)..."""
    return {
        "attacks": [
            {
                "norm": norm, "eps": eps, "robust_accuracy": robust, "stands": "01" * 5000,
                "methods": [{"name": name, "accuracy": robust} for name in methods],
            }
            for norm, eps, robust in found
        ]
    }  # fmt: skip


def minimum_norm(means, success=1.0, misclassified=1000):
    """{norm: mean}; accuracy falls from 0.9 to 0 at twice the mean."""
    return {
        "norms": {
            norm: {
                "median": mean * 0.9, "mean": mean, "success_rate": success, "misclassified": misclassified,
                "curve": [[2 * mean * n / 50, 0.9 * (1 - n / 50)] for n in range(51)],
                "values": [0.0, mean, None] * 3333,
            }
            for norm, mean in means.items()
        }
    }  # fmt: skip


def masking(verdict="clear", words="No image has a zero gradient.", norm="linf", eps=2 / 255, transfer=""):
    """One check, and that of transfer where its verdict is given."""
    checks = [{"name": "zero-gradient", "values": {"share": 0.0}, "verdict": verdict, "words": words}]
    if transfer:
        checks.append({"name": "transfer", "values": {}, "verdict": transfer, "words": "About transfer."})
    return {"norm": norm, "eps": eps, "checks": checks, "verdict": verdict}


@pytest.fixture(autouse=True, scope="session")
def matplotlib_folder(tmp_path_factory):
    """Matplotlib's list of fonts is made once, not by every process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        yield


@pytest.fixture
def made(runs):
    """made("paper-hah", seed=1, sets=[...], results={...}) -> RunDirectory: a finished run with result files."""

    def make(preset, *, seed=2022, sets=(), results=None, metrics=None, created=1000.0, **state):
        experiment = presets.load(preset, [f"seed={seed}", *sets])
        run = create(runs, preset, presets.dumped(experiment))
        epochs = experiment.train.epochs
        start = State(
            id=run.id, name=preset, preset=preset, status="finished", epoch=epochs, epochs=epochs, step=39100,
            steps=39100, device="cpu", created=created, metrics=metrics or {},
        )  # fmt: skip
        State(**{**start.__dict__, **state}).write(run)
        for suite, result in (results or {}).items():
            write(run, suite, result)
        return run

    return make


def write(run, suite, result, number=0, written=None, **changes):
    """Write a result file, and return its path."""
    path = run.results / f"{suite}-{number:08x}.json"
    path.write_text(json.dumps(envelope(suite, result, run.id, **changes)))
    if written is not None:
        os.utime(path, (written, written))
    return path


def everything(offset=0.0, hah=True):
    """All suites' results of one run; ``offset`` moves every accuracy."""
    base = 0.6 if hah else 0.3
    clean = 0.87 if hah else 0.92
    return {
        "noise": noise(
            {std: max(0.1, clean - (2.5 if hah else 6) * std) + offset for std in (0.02, 0.04, 0.06, 0.08, 0.1)},
            {str(n): (30 if hah else 22) - n * 0.8 for n in range(1, 14)},
        ),
        "sparsity": sparsity([(0.2 if hah and n <= 6 else 0.7) + 0.01 * n for n in range(1, 14)]),
        "corruptions": corruptions({name: base + 0.01 * n + offset for n, name in enumerate(PAPER_CORRUPTIONS)}),
        "attacks": attacks(("linf", 2 / 255, base / 3 + offset), ("l2", 0.25, base / 2 + offset)),
        "minimum_norm": minimum_norm({"l0": 20 * base, "l1": 4 * base, "l2": 0.3 * base, "linf": 0.01 * base}),
        "masking": masking(),
    }


def table(report, key):
    return next(one for one in report.tables if one.key == key)


def cell(report, key, preset, column):
    return next(row for row in table(report, key).rows if row.network.preset == preset).cells[column]


def all_formats(report):
    drawn = figures.figures(report.networks)
    return (
        formats.markdown(report, drawn),
        "\n".join(map(formats.latex, report.tables)),
        formats.csv_table(report.tables),
        json.dumps(formats.document(report, drawn)),
    )
