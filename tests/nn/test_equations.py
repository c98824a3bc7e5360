"""Every stage, the cost and the HaH part of the gradient alone, against the slow transcription, to 1e-10."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from engine.nn import DivisiveNorm, HaHBlock, Threshold, divisive_norm, hah_cost, threshold_fraction, threshold_mean
from tests.nn import transcription as slow

TIGHT = {"rtol": 1e-10, "atol": 1e-12}
KERNELS = ["reference", "fused"]
torch.set_default_dtype(torch.float32)


def draws(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def inputs(kind, B=2, C=3, N=8, H=6, W=5, seed=0):
    """(x, w, weight_norm) of one kind of difficulty.

    Ties are made of whole numbers and without weight norm, so that they are ties in every order of summation.
    """
    x, w = draws(seed, B, C, H, W), draws(seed + 1, N, C, 3, 3)
    if kind == "zero image":
        x[0] = 0
    elif kind == "dead filters":  # positive images and mostly negative filters: most are silent everywhere
        x = np.abs(x)
        w[: 3 * N // 4] = -np.abs(w[: 3 * N // 4])
    if kind in TIES:
        x, w = np.round(2 * x), np.round(2 * w)
    if kind == "equal filters":
        w[1::2] = w[::2][: len(w[1::2])]
    elif kind == "flat":
        x[:] = np.round(3 * draws(seed, B, C, 1, 1))
    return x, w, kind not in TIES


TIES = ("equal filters", "flat", "few values")
KINDS = ["random", "zero image", "dead filters", *TIES]
SHAPES = [(1, 1, 2, 3, 3), (2, 3, 8, 6, 5), (2, 3, 10, 1, 1), (1, 4, 21, 2, 7), (1, 2, 64, 4, 4), (1, 1, 128, 3, 3)]


def tensor(array):
    return torch.tensor(array, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", [1, 3])
@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.0])
def test_divisive_norm_is_eq_2(kind, pool, sigma):
    y = np.maximum(slow.convolution(*inputs(kind)[:2]), 0)
    ours = divisive_norm(tensor(y), sigma, pool)
    np.testing.assert_allclose(ours.numpy(), slow.divisive(y, sigma, pool, 1e-7), **TIGHT)


@pytest.mark.parametrize("pool", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_divisive_norm_gradient(kind, pool):
    y = np.maximum(slow.convolution(*inputs(kind)[:2]), 0)
    g = draws(9, *y.shape)
    leaf = tensor(y).requires_grad_()
    (gradient,) = torch.autograd.grad(divisive_norm(leaf, 0.1, pool), leaf, tensor(g))
    expected = slow.divisive_backward(y, g, 0.1, pool, 1e-7)
    # Where every activation around is zero the choice of the first maximum has no meaning: ReLU stops it.
    active = y > 0
    np.testing.assert_allclose(gradient.numpy()[active], expected[active], **TIGHT)


@pytest.mark.parametrize("keep", [0.05, 0.2, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (1, 2, 1, 1), (1, 4, 2, 2), (2, 2, 7, 9), (1, 2, 32, 32)])
def test_threshold_keeps_what_the_authors_keep(keep, shape):
    z = np.abs(draws(3, *shape))
    z[z < 0.6] = 0  # more zeros than the threshold removes, in some filters
    z = np.round(z, 1) if keep == 0.5 else z  # ties
    ours = threshold_fraction(tensor(z), keep)
    np.testing.assert_array_equal(ours.numpy(), z * slow.kept(z, keep))


def test_threshold_is_exactly_kthvalue():
    torch.manual_seed(0)
    z = torch.rand(3, 5, 16, 16)
    tau = z.flatten(2).kthvalue(int(0.8 * 256), dim=2).values
    kept = threshold_fraction(z, 0.2) != 0
    assert torch.equal(kept, z > tau[:, :, None, None])
    assert (kept.flatten(2).sum(2) == 256 - int(0.8 * 256)).all()


def test_mean_threshold():
    z = np.abs(draws(4, 2, 3, 5, 5))
    tau = 1.3 * z.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(threshold_mean(tensor(z), 1.3).numpy(), z * (z > tau), **TIGHT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lam", [0.0, 0.1, 1.0])
def test_cost_is_eq_4(kind, lam):
    y = np.maximum(slow.convolution(*inputs(kind)[:2]), 0)
    np.testing.assert_allclose(float(hah_cost(tensor(y), 0.3, lam)), slow.cost(y, 0.3, lam), **TIGHT)


@pytest.mark.parametrize(("N", "K"), [(64, 7), (128, 13), (256, 26), (512, 52), (7, 1), (11, 2)])
def test_K_is_the_authors_and_exact_at_every_width(N, K):
    assert slow.strongest(0.1, N) == K
    y = np.maximum(draws(N, 1, N, 3, 2), 0)
    np.testing.assert_allclose(float(hah_cost(tensor(y), 0.1, 0.1)), slow.cost(y, 0.1, 0.1), **TIGHT)
    leaf = tensor(y).requires_grad_()
    (gradient,) = torch.autograd.grad(hah_cost(leaf, 0.1, 0.1), leaf)
    active = y > 0
    np.testing.assert_allclose(gradient.numpy()[active], slow.cost_backward(y, 0.1, 0.1)[active], **TIGHT)


def make_block(
    x, w, kernels, gradient="local", weight_norm=True, sigma=0.1, pool=3, keep=0.2, top_k=0.1, lam=0.1, eps=1e-7
):
    block = HaHBlock(
        x.shape[1],
        len(w),
        norm=DivisiveNorm(sigma, pool, eps),
        threshold=Threshold("fraction", keep),
        top_k=top_k,
        lambda_=lam,
        gradient=gradient,
        kernels=kernels,
        weight_norm=weight_norm,
    ).double()
    with torch.no_grad():
        block.conv.weight.copy_(tensor(w))
    return block


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_block_and_its_gradient(kind, shape, kernels):
    """The output, and the gradient of what follows the block, without any HaH cost."""
    x, w, weight_norm = inputs(kind, *shape)
    o, saved = slow.block(x, w, weight_norm=weight_norm)
    g = draws(5, *o.shape)
    leaf = tensor(x).requires_grad_()
    block = make_block(x, w, kernels, weight_norm=weight_norm)
    ours = block(leaf)
    np.testing.assert_allclose(ours.detach().numpy(), o, **TIGHT)
    dx, dw = torch.autograd.grad(ours, (leaf, block.conv.weight), tensor(g))
    expected_dx, expected_dw = slow.block_backward(saved, g)
    np.testing.assert_allclose(dx.numpy(), expected_dx, rtol=1e-10, atol=1e-12 + 1e-10 * np.abs(expected_dx).max())
    np.testing.assert_allclose(dw.numpy(), expected_dw, rtol=1e-10, atol=1e-12 + 1e-10 * np.abs(expected_dw).max())


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("gradient", ["local", "full"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in TIES])
def test_the_hah_part_of_the_gradient_alone(kind, shape, gradient, kernels):
    x, w, _ = inputs(kind, *shape)
    top_k, lam = 0.15, 0.4
    _, saved = slow.block(x, w)
    leaf = tensor(x).requires_grad_()
    block = make_block(x, w, kernels, gradient, top_k=top_k, lam=lam)
    output, cost = block(leaf, cost=True)
    np.testing.assert_allclose(float(cost.detach()), slow.cost(saved[2], top_k, lam), **TIGHT)
    np.testing.assert_allclose(output.detach().numpy(), slow.block(x, w)[0], **TIGHT)
    dx, dw = torch.autograd.grad(cost, (leaf, block.conv.weight), allow_unused=True)
    expected_dx, expected_dw = slow.cost_of_block_backward(saved, top_k, lam)
    np.testing.assert_allclose(dw.numpy(), expected_dw, rtol=1e-10, atol=1e-12 + 1e-10 * np.abs(expected_dw).max())
    assert expected_dw.any() == saved[2].any()  # nothing to strengthen only where every filter is silent
    if gradient == "local":
        assert dx is None or not dx.any()  # it stays at home
    else:
        np.testing.assert_allclose(dx.numpy(), expected_dx, rtol=1e-10, atol=1e-12 + 1e-10 * np.abs(expected_dx).max())


@pytest.mark.parametrize("kernels", KERNELS)
def test_ties_strengthen_exactly_K_of_the_strongest(kernels):
    """Which of several equal filters counts as stronger is free; how many do, and all others, is not."""
    x, w, _ = inputs("equal filters", 2, 3, 20, 4, 4)
    block = make_block(x, w, kernels, top_k=0.13, lam=0.7, weight_norm=False)
    y = F.relu(block.conv(tensor(x))).detach()
    K = slow.strongest(0.13, 20)
    mask = hah_mask(block, tensor(x))
    strong, weak = 1 / K / (2 * 16), -0.7 / (20 - K) / (2 * 16)
    for b in range(2):
        for i in range(4):
            for j in range(4):
                values, got = y[b, :, i, j], mask[b, :, i, j]
                kth = values.sort(descending=True).values[K - 1]
                assert torch.allclose(got[values > kth], torch.tensor(strong, dtype=torch.float64), rtol=1e-12)
                rest = got[(values < kth) & (values > 0)]
                assert torch.allclose(rest, torch.tensor(weak, dtype=torch.float64), rtol=1e-12)
                if kth > 0:
                    assert int((got > 0).sum()) == K


def hah_mask(block, x):
    """The gradient of the cost with respect to the convolution's output, read off through identity filters."""
    u = block.conv(x).detach()
    N = u.shape[1]
    identity = torch.zeros(N, N, 3, 3, dtype=torch.float64)
    identity[range(N), range(N), 1, 1] = 1
    twin = HaHBlock(
        N, N, top_k=block.top_k, lambda_=block.lambda_, gradient="full", weight_norm=False, kernels=block.kernels
    ).double()
    with torch.no_grad():
        twin.conv.weight.copy_(identity)
    u.requires_grad_()
    return torch.autograd.grad(twin(u, cost=True)[1], u)[0]


@pytest.mark.parametrize("kernels", KERNELS)
def test_an_all_zero_image_gives_zero_and_no_gradient(kernels):
    x, w = np.zeros((1, 3, 6, 6)), draws(1, 8, 3, 3, 3)
    for eps in (1e-7, 0.0):
        leaf = tensor(x).requires_grad_()
        block = make_block(x, w, kernels, "full", eps=eps)
        output, cost = block(leaf, cost=True)
        dx, dw = torch.autograd.grad(output.sum() - cost, (leaf, block.conv.weight))
        for result in (output, cost, dx, dw):
            assert not result.any()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("pool", [1, 3])
@pytest.mark.parametrize("scale", [1e-6, 0.5, 3.0, 1e6])
def test_a_block_does_not_change_when_its_input_is_scaled(scale, pool, kernels):
    x, w, _ = inputs("random")
    block = make_block(x, w, kernels, pool=pool, eps=0.0)
    np.testing.assert_allclose(block(tensor(scale * x)).detach(), block(tensor(x)).detach(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("pool", [1, 3])
def test_gradcheck_where_the_function_is_smooth(pool, kernels):
    """Distinct activations, far from every kink: autograd's own finite differences agree."""
    x, w, _ = inputs("random", 1, 2, 5, 4, 4, seed=11)
    block = make_block(x, w, kernels, "full", pool=pool, keep=0.5, top_k=0.3)
    weights = torch.arange(1.0, 81.0, dtype=torch.float64).view(1, 5, 4, 4)

    def loss(images):
        output, cost = block(images, cost=True)
        return (output * weights).sum() / 80 + cost

    assert torch.autograd.gradcheck(loss, tensor(x).requires_grad_(), eps=1e-8, atol=1e-6)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("pool", [1, 3])
@pytest.mark.parametrize("threshold", ["fraction", "mean", "none"])
def test_nan_stays_in_its_image_and_the_cost_says_it(kernels, pool, threshold):
    x, w, _ = inputs("random", B=3)
    block = make_block(x, w, kernels, pool=pool)
    block.threshold = Threshold(threshold)
    without = block(tensor(x)).detach()
    x[1, 0, 2, 2] = np.nan
    output, cost = block(tensor(x), cost=True)
    assert cost.isnan()
    assert output[1].isnan().all()
    assert torch.equal(output[[0, 2]], without[[0, 2]])


@pytest.mark.parametrize("bad", [0.0, 1.0, 0.99])
def test_a_top_k_that_takes_no_or_every_filter_is_refused(bad):
    with pytest.raises(ValueError, match="at least one and leave at least one"):
        hah_cost(torch.rand(1, 8, 2, 2), bad)
