"""The GPU kernels in Triton's interpreter: selection to the bit, outputs and gradients against float64."""

import os

import numpy as np
import pytest
import torch
from torch.nn import functional as F

if torch.cuda.is_available():
    pytest.skip("with a GPU the kernels themselves are tested (tests/gpu)", allow_module_level=True)
os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are defined
fused_triton = pytest.importorskip("engine.nn.fused_triton")

from engine.experiment.architecture import strongest  # noqa: E402
from engine.nn import HaHBlock, StandardBlock, convolution, hah_cost, kernels, threshold_fraction, threshold_mean  # noqa: E402
from tests.nn.fused import KINDS, MET, composition, draw, numbers, reference, run_block  # noqa: E402


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 5, 7, 19), (1, 8, 8, 64), (3, 2, 2, 8)])
def test_thresholds_are_kthvalues_to_the_bit(shape, dtype, kind):
    """What is kept of z is exactly what torch.kthvalue keeps of the same z."""
    u = draw(kind, *shape).to(dtype)
    B, H, W, N = shape
    s = numbers(N, H, W)
    o, _, field, _ = fused_triton.forward(u, s)
    divisor = fused_triton.divisor_of(field, s).view(B, H, W, 1)
    z = F.relu(u.float()) / divisor
    tau = z.flatten(1, 2).kthvalue(s.k, 1).values[:, None, None]
    expected = z * (z > tau)
    if dtype == torch.float32:
        assert torch.equal(o, expected)
    else:  # the interpreter cuts where a GPU rounds
        assert torch.equal(o != 0, expected != 0)
        torch.testing.assert_close(o.float(), expected, rtol=2**-7, atol=0)


@pytest.mark.parametrize(("size", "N"), MET)
def test_every_shape_that_vggs_meet(size, N):
    wide = size if size * N <= 512 else min(size, 3)  # a strip of the larger: an interpreter takes minutes for them
    u = draw("random", 1, size, wide, N, seed=size + N)
    s = numbers(N, size, wide)
    o, cost, _, _ = fused_triton.forward(u, s)
    y, z = reference(u, s)
    torch.testing.assert_close(cost.double(), hah_cost(y, 0.1, 0.1), rtol=1e-6, atol=1e-7)
    expected = threshold_fraction(z, 0.2)
    ours = o.double().permute(0, 3, 1, 2)
    agree = (ours > 0) == (expected > 0)
    assert (~agree).sum() <= 1e-3 * agree.numel()  # rounding at the threshold
    torch.testing.assert_close(ours[agree], expected[agree], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("B", [1, 2, 37])
def test_batch_sizes(B):
    u = draw("random", B, 2, 2, 16, seed=B)
    s = numbers(16, 2, 2, k=2)
    o, cost, _, _ = fused_triton.forward(u, s)
    y, z = reference(u, s)
    torch.testing.assert_close(cost.double(), hah_cost(y, 0.1, 0.1), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(o.double().permute(0, 3, 1, 2), threshold_fraction(z, 0.5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("N", [7, 64, 130])
def test_the_sum_of_the_strongest_is_exact(N):
    u = draw("random", 2, 3, 3, N)
    K = strongest(0.1, N)
    kth = F.relu(u).topk(K, 3).values[..., -1]
    found = np.empty(kth.shape, np.float32)
    for index in np.ndindex(*kth.shape):
        bits, value = F.relu(u[index]).numpy().view(np.int32), 0
        for step in range(31):
            candidate = value | (1 << (30 - step))
            value = candidate if (bits >= candidate).sum() >= K else value
        found[index] = np.int32(value).view(np.float32)
    assert (found == kth.numpy()).all()  # the scheme of `_kth_largest`, to the bit
    _, cost, _, _ = fused_triton.forward(u, numbers(N, 3, 3))
    torch.testing.assert_close(cost.double(), hah_cost(F.relu(u.double()).permute(0, 3, 1, 2)), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("pool", [1, 3])
@pytest.mark.parametrize("threshold", ["fraction", "mean", "none"])
def test_gradients_against_the_float64_reference(threshold, pool, local):
    """Whole numbers, so that both make the same decisions at every threshold and tie-free selections."""
    draw_ = torch.Generator().manual_seed(1)
    x = torch.randint(-4, 5, (2, 3, 6, 5), generator=draw_).double()
    w = torch.randint(-3, 4, (20, 3, 3, 3), generator=draw_).double() + 0.01 * torch.arange(20).view(-1, 1, 1, 1)
    g = torch.randn(2, 20, 6, 5, generator=draw_).double()
    changes = {"fraction": {}, "mean": {"k": 0, "scale": 1.1}, "none": {"k": 0}}[threshold]
    s = numbers(20, 6, 5, pool=pool, local=local, lambda_=0.7, **changes)
    wanted = run_block(composition, x, w, g, s)
    ours = run_block(fused_triton.hah_block, x.float(), w.float(), g.float(), s)
    for name, a, b in zip(("o", "cost", "dx", "dw"), ours, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-5 * float(b.abs().max()), msg=name)
    without = run_block(fused_triton.hah_block, x.float(), w.float(), g.float(), s, g_cost=0.0)
    for place in (2, 3):  # the HaH part alone
        base = run_block(composition, x, w, g, s, g_cost=0.0)
        part, expected = ours[place] - without[place], wanted[place] - base[place]
        torch.testing.assert_close(part.double(), expected, rtol=1e-3, atol=2e-4 * float(wanted[place].abs().max()))
        assert bool(expected.any()) == (place == 3 or not local)


@pytest.mark.parametrize("local", [True, False])
def test_in_bfloat16_the_hah_part_survives_beside_a_gradient_ten_thousand_times_as_large(local):
    draw_ = torch.Generator().manual_seed(2)
    x, w = torch.rand(2, 8, 6, 6, generator=draw_).bfloat16(), torch.randn(32, 8, 3, 3, generator=draw_)
    g = torch.randn(2, 32, 6, 6, generator=draw_)
    s = numbers(32, 6, 6, local=local)
    _, _, _, alone = run_block(fused_triton.hah_block, x, w, 0 * g, s, g_cost=1.0)
    _, _, _, beside = run_block(fused_triton.hah_block, x, w, g, s, g_cost=0.0)
    scale = 1e4 * float(alone.norm() / beside.norm())
    both = run_block(fused_triton.hah_block, x, w, scale * g, s, g_cost=1.0)[3]
    without = run_block(fused_triton.hah_block, x, w, scale * g, s, g_cost=0.0)[3]
    assert (both - without - alone).norm() / alone.norm() < 0.005
    assert alone.dtype == torch.float32


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (4, 130, 3, 3), (7, 6, 1, 1)])
def test_the_weight_norm_against_float64(shape, layout):
    draw_ = torch.Generator().manual_seed(3)
    weight, g = (torch.randn(shape, generator=draw_) for _ in range(2))
    weight[1] = 0
    weight = weight.contiguous(memory_format=layout).requires_grad_()
    exact = weight.detach().double().requires_grad_()
    ours = fused_triton.unit_norm(weight)
    wanted = exact / (exact.flatten(1).norm(dim=1).view(-1, 1, 1, 1) + 1e-6)
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-6, atol=1e-7)
    [gradient] = torch.autograd.grad((ours * g).sum(), weight)
    [expected] = torch.autograd.grad((wanted * g).sum(), exact)
    torch.testing.assert_close(gradient[1].double(), g[1].double() * 1e6, rtol=1e-5, atol=0)  # autograd's is NaN there
    others = [0, *range(2, shape[0])]
    torch.testing.assert_close(gradient[others].double(), expected[others], rtol=1e-4, atol=1e-6)


def test_blocks_of_both_kinds_normalize_their_weights_in_one_kernel(on_triton, monkeypatch):
    seen, original = [], fused_triton.unit_norm
    monkeypatch.setattr(fused_triton, "unit_norm", lambda weight: seen.append(len(weight)) or original(weight))
    x = torch.rand(2, 3, 8, 8)
    for block in (HaHBlock(3, 16), StandardBlock(3, 24)):
        seen.clear()
        plain = type(block)(3, block.conv.out_channels, kernels="reference")
        plain.load_state_dict(block.state_dict())
        ours, wanted = block(x), plain(x)
        assert len(block.conv.weight) in seen
        torch.testing.assert_close(ours.float(), wanted, rtol=1e-4, atol=1e-5)


def test_a_weight_norm_that_is_wrong_or_does_not_launch_is_noticed(on_triton, monkeypatch):
    original, conv = fused_triton.unit_norm, StandardBlock(3, 8).conv

    class Forward(torch.autograd.Function):  # right, with a gradient that is not
        @staticmethod
        def forward(ctx, weight):
            return convolution.unit_norm(weight)

        @staticmethod
        def backward(ctx, gradient):
            return 50 * gradient

    def broken(weight):
        raise RuntimeError("Triton Error [CUDA]: out of shared memory")

    for wrong in (lambda weight: 1.001 * original(weight), Forward.apply):
        kernels._works.clear()
        monkeypatch.setattr(fused_triton, "unit_norm", wrong)
        with pytest.warns(RuntimeWarning, match="triton weight norm: .* its weight norm is not the reference's"):
            weight = conv.used_weight()
        torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.ones(8))
        assert conv.ran == "reference"
    kernels._works.clear()
    monkeypatch.setattr(fused_triton, "unit_norm", original)
    conv.used_weight()
    assert conv.ran == "triton weight norm"
    monkeypatch.setattr(fused_triton, "unit_norm", broken)
    with pytest.warns(RuntimeWarning, match="out of shared memory"):
        weight = conv.used_weight()
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.ones(8))
    assert kernels.fused("cpu", torch.float32) is not None  # the block is another matter


def test_weights_in_bfloat16_are_normalized_by_the_reference(on_triton):
    conv = StandardBlock(3, 8).bfloat16().conv
    conv(torch.rand(2, 3, 4, 4).bfloat16())
    assert conv.ran == "reference"
    assert kernels._works == {}


def test_ties_strengthen_exactly_K():
    u = draw("tied", 2, 4, 4, 24)
    s = numbers(24, 4, 4, K=5, local=False, lambda_=0.5)
    o, _, field, source = fused_triton.forward(u, s)
    g = torch.zeros_like(u)
    _, mask = fused_triton.backward(u, o, g, torch.tensor(1.0), field, source, s, True)
    positive = (u > 0).sum(3)
    assert torch.equal((mask == 1).sum(3), positive.clamp_max(5))
    weak = mask[(mask != 1) & (u > 0)]
    torch.testing.assert_close(weak, torch.full_like(weak, -0.5 * 5 / 19))
    assert not mask[u <= 0].any()


def test_zero_images_and_nan():
    u = torch.full((2, 4, 4, 16), -1.0)
    s = numbers(16, 4, 4)
    o, cost, field, source = fused_triton.forward(u, s)
    assert not o.any()
    assert cost == 0
    to_input, to_weight = fused_triton.backward(u, o, torch.ones_like(u), torch.tensor(1.0), field, source, s, False)
    assert not to_input.any()
    assert not to_weight.any()
    u = draw("random", 2, 4, 4, 16)
    u[1, 2, 2, 3] = float("nan")
    o, cost, _, _ = fused_triton.forward(u, s)
    assert cost.isnan()
    assert o[1].isnan().all()
    assert o[0].isfinite().all()


def test_a_map_too_large_for_one_program_is_selected_all_the_same(monkeypatch):
    u = draw("random", 1, 9, 9, 8)
    s = numbers(8, 9, 9)
    small = fused_triton.forward(u, s)[0]
    monkeypatch.setattr(fused_triton, "LARGEST_MAP", 16)
    torch.testing.assert_close(fused_triton.forward(u, s)[0], small)
    product, field = torch.randn(2, 81), torch.rand(2, 81)
    apart = fused_triton.share(product, field, 8, s)
    monkeypatch.undo()
    for whole, wanted in zip(fused_triton.share(product, field, 8, s), apart, strict=True):
        torch.testing.assert_close(whole, wanted)
    monkeypatch.setattr(fused_triton, "LARGEST_MAP", 16)
    mean = numbers(8, 9, 9, k=0, scale=1.0)
    _, z = reference(u, mean)
    torch.testing.assert_close(
        fused_triton.forward(u, mean)[0].double().permute(0, 3, 1, 2), threshold_mean(z), rtol=1e-5, atol=1e-6
    )


@pytest.fixture
def on_triton(monkeypatch):
    """Blocks on the CPU run the Triton twin, as those on a GPU do."""
    monkeypatch.setitem(kernels.TWINS, "cpu", kernels.TWINS["cuda"])
    monkeypatch.setitem(kernels.UNIT_NORMS, "cpu", kernels.UNIT_NORMS["cuda"])
    monkeypatch.setattr(kernels, "_works", {})


@pytest.mark.parametrize("asked_first", ["inside", "outside"])
@pytest.mark.parametrize("with_cost", [True, False])
def test_a_bfloat16_training_runs_on_triton_wherever_it_is_asked_first(on_triton, asked_first, with_cost):
    block, x = HaHBlock(3, 16), torch.rand(2, 3, 8, 8)
    if asked_first == "outside":
        assert kernels.fused("cpu", torch.bfloat16).name == "triton"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, cost = block(x, cost=True) if with_cost else (block(x), torch.zeros(()))
    assert block.ran == "triton"
    assert output.dtype == torch.bfloat16
    assert cost.dtype == torch.float32
    (output.float().sum() - cost).backward()
    assert block.conv.weight.grad.isfinite().all()
    block(x)
    assert block.ran == "triton"  # and in float32


def test_a_training_step_in_bfloat16_is_made_of_triton_blocks(on_triton):
    from engine.experiment import presets
    from engine.nn import VGG
    from engine.training.step import Step

    experiment = presets.load("quickstart", ["model.width=0.0625", "train.precision=bf16"])
    network = VGG.from_experiment(experiment).train()
    step = Step(network, experiment, torch.device("cpu"))
    step(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1, 2, 3]), 1, 1e-3)
    assert {block.ran for block in network.blocks if isinstance(block, HaHBlock)} == {"triton"}
    assert np.isfinite(step.drain().columns["train/loss"][0])


def test_without_a_cost_the_output_is_the_same_and_frozen_weights_get_no_product(on_triton, monkeypatch):
    products = []
    original = fused_triton.convolution_backward

    def counting(g, x, weight, to_input):
        products.append("input" if to_input else "weight")
        return original(g, x, weight, to_input)

    monkeypatch.setattr(fused_triton, "convolution_backward", counting)
    block, x = HaHBlock(3, 16), torch.rand(2, 3, 8, 8, requires_grad=True)
    block(x.detach())  # the check at first use makes products of its own
    products.clear()
    assert torch.equal(block(x), block(x, cost=True)[0])
    block.conv.weight.requires_grad_(False)
    torch.autograd.grad(block(x).square().sum(), x)
    assert products == ["input"]
    block.conv.weight.requires_grad_(True)
    block(x.detach()).square().sum().backward()
    assert products == ["input", "weight"]


def test_a_batch_whose_places_do_not_fit_32_bits_is_refused(on_triton, monkeypatch):
    block = HaHBlock(3, 16)
    block(torch.rand(1, 3, 8, 8))
    monkeypatch.setattr(fused_triton, "LARGEST_BATCH", 16 * 64 * 3)
    block(torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match="fewer than 2\\^31 activations at once, got 3 images of 8x8; lower the batch"):
        block(torch.rand(3, 3, 8, 8))
    assert kernels.fused("cpu", torch.float32) is not None


def test_the_check_at_first_use_passes_and_notices_a_wrong_kernel(monkeypatch):
    cpu = torch.device("cpu")
    for dtype in (torch.float32, torch.bfloat16):
        for K in (3, 0):
            kernels.check(fused_triton.hah_block, cpu, dtype, K)
    original = fused_triton.backward

    def wrong(*arguments):
        to_input, to_weight = original(*arguments)
        return to_input, 0.9 * to_weight

    monkeypatch.setattr(fused_triton, "backward", wrong)
    with pytest.raises(RuntimeError, match="not the reference's"):
        kernels.check(fused_triton.hah_block, cpu, torch.float32, 3)


@pytest.mark.parametrize("said", ["Triton Error [CUDA]: out of shared memory", "the sizes do not match"])
def test_what_a_launch_says_is_told_from_what_is_wrong_with_the_input(said):
    from triton.runtime.errors import OutOfResources

    assert fused_triton.failed(RuntimeError(said)) == said.startswith("Triton")
    assert fused_triton.failed(OutOfResources(1, 2, "registers"))
    assert not fused_triton.failed(torch.OutOfMemoryError("CUDA out of memory"))
