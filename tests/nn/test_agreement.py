"""The fused block against the reference in float32: what `benchmarks/agreement.py` measures, in small."""

import pytest
import torch
from agreement import compare, drift

from engine.data import archives
from engine.data.batches import Split
from engine.experiment import RequestError


@pytest.mark.parametrize("width", [0.25, 1.0])
def test_blocks_agree_wherever_the_kept_masks_do(width):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = compare(width, images)
    assert len(found) == 6
    for block in found:
        assert block["implementation"] == "fused-cpu"
        for what in ("output", "cost", "input_gradient", "weight_gradient"):
            assert block[what] <= 1e-5
        assert block["different"] <= 1e-4 * block["positions"]
        assert block["furthest_from_threshold"] <= 1e-5


def test_losses_differ_no_more_than_those_of_two_references_do():
    try:
        archive = archives.load("cifar10")
    except RequestError:
        pytest.skip("no CIFAR-10 archive (HAH_DATA)")
    train = Split.of(archive.x_train, archive.y_train, torch.device("cpu"))
    found = drift(30, 0.125, 32, train)
    references = max(entry["mean"] for entry in found["references_apart"])
    fused = max(entry["mean"] for entry in found["fused_apart"])
    assert 0 < references < 0.5
    assert fused < 2 * references  # of so few steps; 200 of a wider network are in benchmarks/results
