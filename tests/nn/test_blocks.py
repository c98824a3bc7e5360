"""What a block is given: refused in words where it cannot be, and no reason to give the fused twin up."""

import re

import pytest
import torch
from torch import nn

from engine.nn import DivisiveNorm, HaHBlock, Threshold, kernels
from engine.nn import fused_cpu as twin


def test_the_fused_twin_runs_and_the_block_says_so():
    for kind, expected in (("auto", "fused-cpu"), ("fused", "fused-cpu"), ("reference", "reference")):
        block = HaHBlock(3, 16, kernels=kind)
        assert block.ran == ""
        block(torch.rand(2, 3, 8, 8), cost=True)
        assert block.ran == expected
    block = HaHBlock(3, 16, norm=nn.BatchNorm2d(16))
    block(torch.rand(2, 3, 8, 8))
    assert block.ran == "reference"


@pytest.mark.parametrize("kind", ["auto", "reference"])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(2, 4, 8, 8), "takes floating-point numbers [B, 3, H, W], got torch.float32 [2, 4, 8, 8]"),
        (torch.rand(3, 8, 8), "takes floating-point numbers [B, 3, H, W], got torch.float32 [3, 8, 8]"),
        (torch.ones(2, 3, 8, 8, dtype=torch.int64), "floating-point numbers [B, 3, H, W], got torch.int64"),
        (torch.rand(0, 3, 8, 8), "a batch without images has no HaH cost"),
    ],
)
def test_bad_input_is_said_and_the_next_batch_runs_fused(x, message, kind):
    block = HaHBlock(3, 16, kernels=kind)
    with pytest.raises(ValueError, match=re.escape(message)):
        block(x, cost=True)
    block(torch.rand(2, 3, 8, 8), cost=True)
    assert block.ran == ("fused-cpu" if kind == "auto" else "reference")


def test_input_of_another_precision_than_the_weights_is_no_reason_to_give_up():
    block = HaHBlock(3, 16)
    with pytest.raises(RuntimeError, match=r"dtype|type"):
        block(torch.rand(2, 3, 8, 8).double())
    block(torch.rand(2, 3, 8, 8))
    assert block.ran == "fused-cpu"


def test_a_batch_without_images_has_an_output_without_images():
    assert HaHBlock(3, 16)(torch.rand(0, 3, 8, 8)).shape == (0, 16, 8, 8)


@pytest.mark.parametrize("bad", [
    {"gradient": "x"}, {"top_k": 2.0}, {"top_k": 0.0}, {"top_k": float("nan")}, {"lambda_": -1.0},
    {"lambda_": float("nan")}, {"lambda_": float("inf")}, {"kernels": "cuda"},
])  # fmt: skip
def test_settings_that_cannot_be_are_refused_where_they_are_given(bad):
    with pytest.raises(ValueError, match=f"got '?{next(iter(bad.values()))}"):
        HaHBlock(3, 16, **bad)


@pytest.mark.parametrize("make", [
    lambda nan: DivisiveNorm(sigma=nan), lambda nan: DivisiveNorm(eps=nan), lambda nan: DivisiveNorm(pool=2),
    lambda nan: Threshold(keep=nan), lambda nan: Threshold("mean", scale=nan), lambda nan: Threshold("median"),
])  # fmt: skip
def test_stages_refuse_what_cannot_be(make):
    with pytest.raises(ValueError, match=r"got (nan|2|'median')"):
        make(float("nan"))


def test_a_cost_of_every_filter_is_refused_by_both():
    for kind in ("auto", "reference"):
        with pytest.raises(ValueError, match="takes 1 of 1 filters"):
            HaHBlock(3, 1, kernels=kind)(torch.rand(2, 3, 8, 8), cost=True)


def test_a_stride_is_what_the_reference_makes_of_it():
    block = HaHBlock(3, 16)
    block.conv.stride = (2, 2)
    output, cost = block(torch.rand(2, 3, 8, 8), cost=True)
    assert (output.shape, block.ran) == ((2, 16, 4, 4), "reference")
    assert cost.isfinite()
    block.conv.dilation = (2, 2)
    with pytest.raises(ValueError, match="neither dilation"):
        block(torch.rand(2, 3, 8, 8))


def test_a_second_derivative_is_refused_not_wrong():
    block, x = HaHBlock(3, 16), torch.rand(2, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("said", ["compiler", "input"])
def test_only_what_a_compiler_says_gives_a_twin_up(monkeypatch, said):
    from numba.core.errors import LoweringError

    def broken(x, weight, numbers):
        raise LoweringError("no vector registers here\nmore") if said == "compiler" else RuntimeError("wrong sizes")

    monkeypatch.setattr(kernels, "_works", {"fused-cpu": True})
    monkeypatch.setattr(twin, "hah_block", broken)
    block, x = HaHBlock(3, 16), torch.rand(2, 3, 8, 8)
    if said == "input":
        with pytest.raises(RuntimeError, match="wrong sizes"):
            block(x)
        assert kernels._works == {"fused-cpu": True}
        return
    with pytest.warns(RuntimeWarning, match="cannot run, the reference does: .*no vector registers"):
        output, cost = block(x, cost=True)
    again = HaHBlock(3, 16, kernels="reference")
    again.load_state_dict(block.state_dict())
    expected, expected_cost = again(x, cost=True)
    assert torch.equal(output, expected)
    assert torch.equal(cost, expected_cost)
    assert block.ran == "reference"
    block(x)  # and nothing is said twice


def test_memory_that_is_short_at_the_first_use_is_no_verdict(monkeypatch):
    def short(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(kernels, "_works", {})
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "check", short)
        with pytest.raises(torch.OutOfMemoryError):
            kernels.fused("cpu", torch.float32)
    assert kernels.fused("cpu", torch.float32).name == "fused-cpu"
