"""Every fused kernel on the GPU itself: against float64, at every shape that VGGs meet, in both precisions."""

import pytest
import torch

from engine.nn import HaHBlock, hah_cost, kernels, threshold_fraction, threshold_mean
from engine.nn.convolution import unit_norm
from tests.nn.fused import KINDS, MET, composition, draw, numbers, reference, run_block

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def exact():
    """Convolutions in float32 where the test says float32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def fused_triton():
    from engine.nn import fused_triton

    return fused_triton


def test_the_twin_works_here():
    for dtype in (torch.float32, torch.bfloat16):
        assert kernels.fused("cuda", dtype).name == "triton"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 5, 7, 19), (1, 8, 8, 64), (3, 2, 2, 8), (2, 32, 32, 64)])
def test_thresholds_are_kthvalues_to_the_bit(fused_triton, shape, dtype, kind):
    B, H, W, N = shape
    u, s = draw(kind, *shape).to(CUDA, dtype), numbers(N, H, W)
    o, _, field, _ = fused_triton.forward(u, s)
    z = torch.relu(u.float()) / fused_triton.divisor_of(field, s).view(B, H, W, 1)
    tau = z.flatten(1, 2).kthvalue(s.k, 1).values[:, None, None]
    assert torch.equal(o, (z * (z > tau)).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "N"), MET)
def test_every_shape_that_vggs_meet(fused_triton, size, N, dtype):
    u = draw("random", 4, size, size, N, seed=size + N).to(dtype)
    s = numbers(N, size, size)
    o, cost, _, _ = fused_triton.forward(u.to(CUDA), s)
    y, z = reference(u, s)
    torch.testing.assert_close(cost.double().cpu(), hah_cost(y, 0.1, 0.1), rtol=1e-5, atol=1e-6)
    expected, ours = threshold_fraction(z, 0.2), o.double().cpu().permute(0, 3, 1, 2)
    agree = (ours > 0) == (expected > 0)
    assert (~agree).sum() <= 1e-3 * agree.numel()  # rounding at the threshold
    rounding = 1e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(ours[agree], expected[agree], rtol=rounding, atol=1e-6)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("pool", [1, 3])
@pytest.mark.parametrize("threshold", ["fraction", "mean", "none"])
def test_gradients_against_the_float64_reference(fused_triton, threshold, pool, local):
    """Whole numbers, so that both make the same decisions; the HaH part on its own."""
    draw_ = torch.Generator().manual_seed(1)
    x = torch.randint(-4, 5, (2, 3, 6, 5), generator=draw_).double()
    w = torch.randint(-3, 4, (20, 3, 3, 3), generator=draw_).double() + 0.01 * torch.arange(20).view(-1, 1, 1, 1)
    g = torch.randn(2, 20, 6, 5, generator=draw_).double()
    changes = {"fraction": {}, "mean": {"k": 0, "scale": 1.1}, "none": {"k": 0}}[threshold]
    s = numbers(20, 6, 5, pool=pool, local=local, lambda_=0.7, **changes)
    on_gpu = [tensor.float().to(CUDA) for tensor in (x, w, g)]
    wanted, ours = run_block(composition, x, w, g, s), run_block(fused_triton.hah_block, *on_gpu, s)
    for name, a, b in zip(("o", "cost", "dx", "dw"), ours, wanted, strict=True):
        torch.testing.assert_close(a.double().cpu(), b, rtol=2e-5, atol=2e-5 * float(b.abs().max()), msg=name)
    without = run_block(fused_triton.hah_block, *on_gpu, s, g_cost=0.0)
    base = run_block(composition, x, w, g, s, g_cost=0.0)
    for place in (2, 3):
        part, expected = (ours[place] - without[place]).double().cpu(), wanted[place] - base[place]
        torch.testing.assert_close(part, expected, rtol=1e-3, atol=2e-4 * float(wanted[place].abs().max()))


@pytest.mark.parametrize("with_cost", [True, False])
@pytest.mark.parametrize("first", ["inside", "outside"])
def test_autocast_inside_and_out(monkeypatch, first, with_cost):
    monkeypatch.setattr(kernels, "_works", {})
    block = HaHBlock(3, 64).to(CUDA)
    x = torch.rand(8, 3, 32, 32, device=CUDA)
    for where in (first, "inside", "outside"):
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=where == "inside"):
            output, cost = block(x, cost=True) if with_cost else (block(x), torch.zeros((), device=CUDA))
        assert block.ran == "triton"
        assert output.dtype == (torch.bfloat16 if where == "inside" else torch.float32)
        (output.float().sum() - cost).backward()
        assert block.conv.weight.grad.isfinite().all()


def test_bfloat16_selects_as_the_reference_in_bfloat16_does():
    torch.manual_seed(0)
    blocks = [HaHBlock(64, 64, kernels=kind).to(CUDA) for kind in ("auto", "reference")]
    blocks[1].load_state_dict(blocks[0].state_dict())
    x = torch.rand(16, 64, 32, 32, device=CUDA)
    results = []
    for block in blocks:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            output, cost = block(x, cost=True)
        cost.backward()
        results.append((output.float(), cost, block.conv.weight.grad))
    (ours, cost, gradient), (theirs, expected, wanted) = results
    assert ((ours > 0) != (theirs > 0)).float().mean() < 1e-3
    torch.testing.assert_close(cost, expected, rtol=1e-4, atol=1e-6)
    assert (gradient - wanted).norm() / wanted.norm() < 0.01


def test_a_second_gpu_is_launched_on_itself():
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    x = torch.rand(4, 3, 8, 8)
    outputs = []
    for number in (0, 1):
        torch.manual_seed(0)
        outputs.append(HaHBlock(3, 16).to(f"cuda:{number}")(x.to(f"cuda:{number}")).cpu())
    torch.testing.assert_close(*outputs)


def test_mean_and_no_threshold(fused_triton):
    u = draw("random", 2, 8, 8, 64).to(CUDA)
    for s, cut in ((numbers(64, 8, 8, k=0, scale=1.1), lambda z: threshold_mean(z, 1.1)),
                   (numbers(64, 8, 8, k=0), lambda z: z)):  # fmt: skip
        o = fused_triton.forward(u, s)[0].double().cpu().permute(0, 3, 1, 2)
        torch.testing.assert_close(o, cut(reference(u.cpu(), s)[1]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(512, 512, 3, 3), (64, 3, 3, 3), (7, 6, 1, 1)])
def test_the_weight_norm_against_float64(fused_triton, shape, layout):
    draw_ = torch.Generator().manual_seed(3)
    weight, g = (torch.randn(shape, generator=draw_).to(CUDA) for _ in range(2))
    weight = weight.contiguous(memory_format=layout).requires_grad_()
    exact = weight.detach().double().requires_grad_()
    ours, wanted = fused_triton.unit_norm(weight), unit_norm(exact)
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-5, atol=1e-7)
    [gradient], [expected] = (torch.autograd.grad((y * g).sum(), w) for y, w in ((ours, weight), (wanted, exact)))
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-6)
