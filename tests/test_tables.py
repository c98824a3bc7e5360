"""Tables that name things once: whatever else speaks of those things has the same names."""

import inspect

import pytest
import torch

from engine.data.batches import Split
from engine.evaluation.suites import MEASURES
from engine.experiment import presets
from engine.experiment.datasets import SUITE_NAMES
from engine.experiment.schema import Evaluate, Section
from engine.nn import VGG
from engine.probes import observe
from engine.results.suites import SUITES
from engine.runs.metrics import METRICS, PANELS, drawn_in
from engine.training.step import Step

EXPERIMENT = ["model.width=0.0625", "model.hah_blocks=2", "hah.alpha=[0.1]", "hah.top_k=0.3", "observe.log_every=1"]


def test_every_suite_has_a_section_facts_and_a_way_to_measure_it():
    sections = [
        name for name, info in Evaluate.model_fields.items()
        if inspect.isclass(info.annotation) and issubclass(info.annotation, Section)
    ]  # fmt: skip
    assert list(SUITE_NAMES) == list(SUITES) == list(MEASURES) == sections


def test_every_metric_of_a_training_is_in_the_table():
    experiment, device = presets.load("quickstart", EXPERIMENT), torch.device("cpu")
    network = VGG.from_experiment(experiment)
    images, labels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
    images[:, :, ::3] = 200
    step = Step(network, experiment, device)
    step(images, labels, 1, 0.1)
    found = set(step.drain().columns)
    look = {"probed": 4, "noise_std": 0.1, "seed": 0, "top_k": 0.3, "lambda_": 0.1}
    found |= set(observe(network, Split(images, labels), **look))
    numbers = {part for name in found for part in name.split("/") if part.isdecimal()}
    for number in numbers:
        found = {name.replace(f"block/{number}/", "block/*/") for name in found}
    assert len(found) > 8
    assert found <= set(METRICS)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.key)
def test_a_panel_has_metrics_of_one_kind(panel):
    drawn = drawn_in(panel.key)
    assert drawn
    assert {metric.of_blocks for metric in drawn} == {panel.blocks}
    assert {metric.panel for metric in METRICS.values()} <= {panel.key for panel in PANELS} | {""}
