"""Whole networks: the plan, one convolution a step, and the authors' training rule step by step."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.experiment import presets
from engine.nn import VGG, HaHBlock, StandardBlock, hah_cost


def network(*sets, base="paper-hah"):
    experiment = presets.load(base, ["model.width=0.125", *sets])
    torch.manual_seed(0)
    return VGG.from_experiment(experiment), experiment


@pytest.mark.parametrize("architecture", ["vgg11", "vgg13", "vgg16", "vgg19"])
@pytest.mark.parametrize("enabled", ["true", "false"])
def test_parameters_and_macs_are_those_of_the_built_network(architecture, enabled):
    net, experiment = network(
        f"model.architecture={architecture}", f"model.divisive_norm.enabled={enabled}", "model.width=0.3"
    )
    assert sum(p.numel() for p in net.parameters()) == experiment.parameters()
    counted = 0

    def count(module, inputs, output):
        nonlocal counted
        per_output = module.weight[0].numel()
        counted += output[0].numel() * per_output

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    for block in net.blocks:
        if isinstance(block, HaHBlock):
            block.kernels = "reference"
    net.eval()(torch.rand(1, 3, 32, 32))
    assert counted == experiment.macs()


def test_the_papers_network():
    experiment = presets.load("paper-hah")
    assert experiment.parameters() == 14_722_250
    assert [block.filters for block in experiment.blocks()] == [64, 64, 128, 128, 256, 256, 256] + [512] * 6
    assert experiment.macs() == pytest.approx(313e6, rel=1e-3)
    net, _ = network("model.width=1")
    kinds = [type(block) for block in net.blocks]
    assert kinds == [HaHBlock] * 6 + [StandardBlock] * 7
    assert net.pooled == (False, True, False, True, False, False, True, False, False, True, False, False, True)
    assert net.classifier.in_features == 512
    assert net.classifier.out_features == 10


@pytest.mark.parametrize(
    ("weight_norm", "normalized"),
    [("all", [True] * 13), ("hah-blocks", [True] * 6 + [False] * 7), ("none", [False] * 13)],
)
def test_weight_norm_is_where_it_is_asked_for(weight_norm, normalized):
    net, _ = network(f"model.weight_norm={weight_norm}")
    for block, expected in zip(net.blocks, normalized, strict=True):
        norms = block.conv.used_weight().flatten(1).norm(dim=1)
        assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5) == expected


def test_batch_norm_takes_the_place_of_divisive_norm():
    net, experiment = network("model.divisive_norm.enabled=false")
    assert all(isinstance(block.norm, nn.BatchNorm2d) and block.norm.affine for block in net.blocks)
    assert {block.norm.momentum for block in net.blocks} == {experiment.model.batch_norm_momentum}
    logits, costs = net(torch.rand(4, 3, 32, 32), costs=True)
    assert logits.isfinite().all()
    assert costs.shape == (6,)


def test_what_hooks_forward_sees_the_costs_where_they_are_asked_for():
    net, _ = network()
    seen = {}
    for module in (net, *net.blocks):
        module.register_forward_hook(lambda module, inputs, output: seen.update({module: output}))
    logits, costs = net(torch.rand(2, 3, 32, 32), costs=True)
    assert seen.pop(net) == (logits, costs)
    assert torch.equal(torch.stack([seen.pop(block)[1] for block in net.blocks[:6]]), costs)
    assert all(isinstance(output, torch.Tensor) for output in seen.values())
    net(torch.rand(2, 3, 32, 32))
    assert all(isinstance(output, torch.Tensor) for output in seen.values())
    assert len(seen) == 14


@pytest.mark.parametrize("kernels", ["reference", "fused"])
@pytest.mark.parametrize("gradient", ["local", "full"])
def test_a_step_calls_each_convolution_once(monkeypatch, gradient, kernels):
    """One forward of 13 convolutions, and no second one in the backward pass."""
    net, _ = network(f"hah.gradient={gradient}", f"compute.kernels={kernels}")
    net(torch.rand(1, 3, 32, 32), costs=True)  # a fused block is compared with the plain one on its first use
    calls = 0
    original = F.conv2d

    def counting(*args, **kwargs):
        nonlocal calls
        calls += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(F, "conv2d", counting)
    logits, costs = net(torch.rand(4, 3, 32, 32), costs=True)
    (F.cross_entropy(logits, torch.arange(4)) - costs.sum()).backward()
    assert calls == 13


@pytest.mark.parametrize("kernels", ["reference", "fused"])
def test_the_local_gradient_is_what_the_authors_procedure_leaves(kernels):
    """The authors' step: a pass for the HaH costs, block by block from the last, each clearing its own weight's
    gradient before its own backward; then a second pass for the cross-entropy."""
    net, experiment = network("compute.kernels=reference", "hah.gradient=full")
    net.double()
    x, labels = torch.rand(6, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 5])
    seen = []
    handles = [block.conv.register_forward_hook(lambda conv, inputs, u: seen.append(u)) for block in net.blocks[:6]]
    net(x)
    for handle in handles:
        handle.remove()
    hah_only = []
    for block, u, alpha in list(zip(net.blocks, seen, experiment.alphas, strict=False))[::-1]:
        if block.conv.weight.grad is not None:
            block.conv.weight.grad.zero_()
        ordered = F.relu(u).sort(dim=1, descending=True).values
        K = -(-u.shape[1] // 10)
        cost = (ordered[:, :K].mean(1) - experiment.hah.lambda_ * ordered[:, K:].mean(1)).mean()
        (-alpha * cost).backward(retain_graph=True)
    hah_only = [block.conv.weight.grad.clone() for block in net.blocks[:6]]
    F.cross_entropy(net(x), labels).backward()
    expected = [block.conv.weight.grad.clone() for block in net.blocks]

    ours, _ = network(f"compute.kernels={kernels}")
    ours.double().load_state_dict(net.state_dict())
    alphas = torch.tensor(experiment.alphas, dtype=torch.float64)
    logits, costs = ours(x, costs=True)
    alone = torch.autograd.grad((-alphas * costs).sum(), [b.conv.weight for b in ours.blocks[:6]], retain_graph=True)
    for got, wanted in zip(alone, hah_only, strict=True):
        assert wanted.any()
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))
    (F.cross_entropy(logits, labels) - (alphas * costs).sum()).backward()
    for block, wanted in zip(ours.blocks, expected, strict=True):
        torch.testing.assert_close(block.conv.weight.grad, wanted, rtol=1e-9, atol=1e-10 * float(wanted.abs().max()))


def test_one_pass_with_momentum_019_is_two_passes_with_01():
    x = torch.rand(8, 4, 3, 3)
    twice, once = nn.BatchNorm2d(4, momentum=0.1), nn.BatchNorm2d(4, momentum=0.19)
    twice(x), twice(x), once(x)
    torch.testing.assert_close(twice.running_mean, once.running_mean)
    torch.testing.assert_close(twice.running_var, once.running_var)


def test_the_mean_and_deviation_of_the_data_are_inside():
    net, _ = network()
    assert net.mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    assert net.std.flatten().tolist() == pytest.approx([0.2471, 0.2435, 0.2616])
    seen = []
    net.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net.eval()(net.mean.expand(1, 3, 32, 32))
    assert not seen[0].any()


def test_a_block_in_somebody_elses_network():
    """The README's example: two blocks in a Sequential-like model of one's own, full and local costs in the loss."""

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = HaHBlock(1, 16), HaHBlock(16, 32, gradient="full")
            self.head = nn.Linear(32, 2)

        def forward(self, x):
            x, first = self.first(x, cost=True)
            x, second = self.second(x, cost=True)
            return self.head(x.mean((2, 3))), first, second

    torch.manual_seed(0)
    model, x = Mine(), torch.rand(4, 1, 12, 12)
    logits, first, second = model(x)
    loss = F.cross_entropy(logits, torch.tensor([0, 1, 0, 1])) - 0.01 * first - 0.005 * second
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.first.conv.weight.grad.any()
    y = model.first.activations(x)
    torch.testing.assert_close(hah_cost(y), first)


@pytest.mark.parametrize("kernels", ["reference", "fused"])
def test_bfloat16_convolutions_leave_costs_and_selection_in_float32(kernels):
    """Under autocast the outputs, costs and weight gradients are float32, and the HaH part of the gradient survives."""
    torch.manual_seed(0)
    block = HaHBlock(8, 32, kernels=kernels)
    weight = block.conv.weight
    x = torch.rand(4, 8, 8, 8).bfloat16()

    def gradient(of_output, of_cost):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output, cost = block(x, cost=True)
        assert output.dtype == cost.dtype == torch.float32
        generator = torch.Generator().manual_seed(1)
        direction = torch.randn(output.shape, generator=generator)
        return torch.autograd.grad(of_output * (output * direction).sum() + of_cost * cost, weight)[0]

    alone = gradient(0.0, 1.0)
    scale = 1e4 * alone.norm() / gradient(1.0, 0.0).norm()  # as in block 6: ten thousand times the HaH gradient
    beside = gradient(scale, 1.0) - gradient(scale, 0.0)
    assert (beside - alone).norm() / alone.norm() < 0.02
