"""One step: Eq. 5, precision, noise, attacks, what is measured and what is refused."""

import inspect
import math
from functools import partial

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException
from torch.nn import functional as F

from engine.data import archives
from engine.data.batches import Split, to_images
from engine.data.draws import Draw, generator
from engine.nn import VGG
from engine.training.step import DivergedError, Step, learning_rate, precision

CPU = torch.device("cpu")


@pytest.fixture
def batch():
    digits = archives.load("digits")
    split = Split.of(digits.x_train, digits.y_train, CPU)
    return split.pixels[:32], split.labels[:32]


def make(experiment):
    torch.manual_seed(experiment.seed)
    network = VGG.from_experiment(experiment)
    network.train()
    return network, Step(network, experiment, CPU)


def test_a_step_is_adam_on_eq_5(tiny, batch):
    experiment = tiny()
    ours, step = make(experiment)
    plain, _ = make(experiment)
    optimizer = torch.optim.Adam(plain.parameters(), experiment.train.lr)
    # The optimizers agree after one step; after more, rounding at a threshold may have moved a location.
    logits, costs = plain(to_images(batch[0]), costs=True)
    cross_entropy = F.cross_entropy(logits, batch[1])
    loss = cross_entropy - sum(alpha * cost for alpha, cost in zip(experiment.alphas, costs, strict=True))
    loss.backward()
    optimizer.step()
    step(*batch, 1, experiment.train.lr)
    measured = step.drain()
    assert measured.columns["train/loss"][0] == pytest.approx(loss.item(), rel=1e-6)
    assert measured.columns["train/cross_entropy"][0] == pytest.approx(cross_entropy.item(), rel=1e-6)
    assert measured.columns["train/accuracy"][0] == (logits.argmax(1) == batch[1]).float().mean()
    means = measured.means()
    assert means["train/loss"] == pytest.approx(means["train/cross_entropy"] - means["train/hah_cost"])
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_without_alpha_the_loss_is_the_cross_entropy(tiny, batch):
    _, step = make(tiny("hah.alpha=0"))
    step(*batch, 1, 1e-3)
    measured = step.drain()
    assert measured.columns["train/loss"] == measured.columns["train/cross_entropy"]
    assert measured.columns["train/hah_cost"] == [0.0]


def test_measurements_wait_on_the_device_and_are_means_over_images(tiny, batch):
    _, step = make(tiny("observe.log_every=3"))
    pixels, labels = batch
    step(pixels, labels, 1, 1e-3)
    step(pixels[:8], labels[:8], 2, 1e-3)
    assert not step.full
    step(pixels, labels, 3, 1e-3)
    assert step.full
    measured = step.drain()
    assert (measured.first, measured.counts, measured.images) == (1, [32, 8, 32], 72)
    losses = measured.columns["train/loss"]
    assert measured.means()["train/loss"] == pytest.approx((32 * losses[0] + 8 * losses[1] + 32 * losses[2]) / 72)
    assert step.drain() is None


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimizers_are_torchs_to_the_bit(tiny, name):
    """Without what imports the compiler: the same steps, and states that either takes over from the other."""
    network, step = make(tiny(f"train.optimizer={name}", "train.weight_decay=0.01"))
    ours, theirs = step.optimizer, type(step.optimizer).__mro__[1]
    assert theirs in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
    values = {key: value for key, value in ours.param_groups[0].items() if key != "params"}
    copies = [parameter.detach().clone().requires_grad_() for parameter in network.parameters()]
    reference = theirs(copies, **{key: values[key] for key in inspect.signature(theirs).parameters if key in values})
    for number in range(6):
        for parameter, copy in zip(network.parameters(), copies, strict=True):
            parameter.grad = torch.randn_like(parameter)
            copy.grad = parameter.grad.clone()
        ours.step()
        reference.step()
        assert all(map(torch.equal, network.parameters(), copies))
        assert repr(ours.state_dict()) == repr(reference.state_dict())
        if number == 3:  # as after a stop
            before = ours.state_dict()
            ours.load_state_dict(reference.state_dict())
            reference.load_state_dict(before)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_every_optimizer_lowers_the_loss(tiny, batch, name):
    _, step = make(tiny(f"train.optimizer={name}", "train.weight_decay=1e-4", "hah.alpha=0"))
    for number in range(1, 3):
        step(*batch, number, 0.01)
    first, second = step.drain().columns["train/loss"]
    assert second < first


@pytest.mark.parametrize("number", [1, 2])
def test_training_noise_is_clamped_and_drawn_anew_each_step(tiny, batch, number):
    _, step = make(tiny("train.noise_std=0.3"))
    images = to_images(batch[0])
    noisy = step._perturbed(images, batch[1], number)
    noise = torch.empty_like(images).normal_(std=0.3, generator=generator(CPU, 2022, Draw.TRAINING_NOISE, number))
    assert torch.equal(noisy, (images + noise).clamp(0, 1))
    assert not torch.equal(noisy, step._perturbed(images, batch[1], number + 1))


def test_adversarial_training_attacks_every_batch(tiny, batch):
    network, step = make(tiny("train.adversarial={norm: linf, eps: 0.1, steps: 3, step_size: 0.05}"))
    images = to_images(batch[0])
    attacked = step._perturbed(images, batch[1], 1)
    assert (attacked - images).abs().max() <= 0.1 + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    step(*batch, 1, 1e-3)
    assert math.isfinite(step.drain().columns["train/loss"][0])


def test_live_settings_take_effect_with_the_next_step(tiny, batch):
    experiment = tiny()
    network, step = make(experiment)
    changed = tiny("hah.lambda=0.5", "hah.top_k=0.5", "hah.alpha=[1, 0]", "train.weight_decay=0.01")
    step.configure(changed)
    assert {(block.lambda_, block.top_k) for block in network.blocks[:2]} == {(0.5, 0.5)}
    logits, costs = network(to_images(batch[0]), costs=True)
    expected = F.cross_entropy(logits, batch[1]) - costs[0]
    step(*batch, 1, 0.02)
    assert step.drain().columns["train/loss"][0] == pytest.approx(expected.item(), rel=1e-5)
    assert step.optimizer.param_groups[0]["lr"] == 0.02
    assert step.optimizer.param_groups[0]["weight_decay"] == 0.01


def test_divergence_says_what_and_where(tiny, batch):
    network, step = make(tiny())
    step(*batch, 7, 1e-3)
    with torch.no_grad():
        network.classifier.weight.fill_(float("nan"))
    step(*batch, 8, 1e-3)
    with pytest.raises(DivergedError, match="step 8: the cross-entropy is NaN"):
        step.drain()


def test_the_learning_rate_falls_after_its_milestones(tiny):
    experiment = tiny("train.epochs=10", "train.milestones=[3, 6]", "train.lr=0.1", "train.gamma=0.5")
    rates = [learning_rate(experiment, epoch) for epoch in range(1, 11)]
    assert rates == [0.1] * 3 + [0.05] * 3 + [0.025] * 4
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(reference, [3, 6], 0.5)
    for rate in rates:
        assert rate == pytest.approx(reference.param_groups[0]["lr"])
        reference.step()
        schedule.step()


def test_precision_by_device(tiny):
    assert precision(tiny(), CPU) == "fp32"
    assert precision(tiny("train.precision=bf16"), CPU) == "bf16"
    assert precision(tiny("train.precision=tf32"), CPU) == "tf32"


def test_bfloat16_training_runs_and_learns(tiny, batch):
    network, step = make(tiny("train.precision=bf16", "hah.alpha=0"))
    for number in range(1, 3):
        step(*batch, number, 0.01)
    first, second = step.drain().columns["train/loss"]
    assert second < first
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize("kernels", ["reference", "fused"])
def test_what_is_compiled_trains_with_the_same_numbers(tiny, batch, monkeypatch, kernels):
    """Everything but the code generator, which needs a compiler and minutes; what hooks forward sees the costs."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    measured, weights, seen = [], [], []
    for compiled in ("false", "true"):
        network, step = make(tiny(f"compute.kernels={kernels}", f"train.compile={compiled}"))
        network.register_forward_hook(lambda network, images, output: seen.append(len(output)))
        for number in (1, 2):
            step(*batch, number, 1e-3)
        measured.append(step.drain())
        weights.append(network.state_dict())
    assert measured[0] == measured[1]
    assert all(torch.equal(one, other) for one, other in zip(*(each.values() for each in weights), strict=True))
    assert seen == [2] * 4


@pytest.mark.parametrize("error", [TorchDynamoException, RuntimeError])
def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(tiny, batch, monkeypatch, error):
    """What a compiler says is no reason to stop; what is wrong with the images is no reason to give the compiler up."""

    def broken(network):
        def call(images, costs):
            raise error("no C++ compiler\nand more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    experiment = tiny("train.compile=true")
    torch.manual_seed(experiment.seed)
    network = VGG.from_experiment(experiment).train()
    warnings = []
    step = Step(network, experiment, CPU, warnings.append)
    if error is RuntimeError:
        with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
            step(*batch, 1, 1e-3)
        assert warnings == []
        return
    step(*batch, 1, 1e-3)
    step(*batch, 2, 1e-3)
    assert warnings == ["torch.compile failed, the network runs as it is: no C++ compiler"]
    assert len(step.drain().counts) == 2


@pytest.mark.parametrize("perturbed", ["train.noise_std=0.2", "train.adversarial={eps: 0.1, steps: 2, step_size: 0.1}"])
def test_the_hah_cost_may_be_that_of_the_clean_images(tiny, batch, perturbed):
    """As the authors: the cross-entropy of the images seen, the cost of a second pass of the same ones, clean."""
    measured = {}
    for images in ("seen", "clean"):
        network, step = make(tiny(perturbed, f"hah.images={images}"))
        before, clean = network.state_dict(), to_images(batch[0])
        costs = make(tiny())[0].train()(clean, costs=True)[1].detach()
        step(*batch, 1, 1e-3)
        measured[images] = step.drain().columns
        assert network.state_dict().keys() == before.keys()
    alphas = torch.tensor(tiny().alphas)
    assert measured["clean"]["train/hah_cost"][0] == pytest.approx(float((alphas * costs).sum()), rel=1e-5)
    assert measured["seen"]["train/hah_cost"] != measured["clean"]["train/hah_cost"]
    assert measured["seen"]["train/cross_entropy"] == pytest.approx(measured["clean"]["train/cross_entropy"], rel=1e-6)


def test_without_a_perturbation_the_images_seen_are_the_clean_ones(tiny, batch):
    (one, step), (other, same) = make(tiny()), make(tiny("hah.images=clean"))
    for made in (step, same):
        made(*batch, 1, 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_attacked_network_may_be_in_training_mode(tiny, batch):
    """Then every PGD step moves the running statistics, as in the authors' code: after 3 of them and the step, 4."""
    moved = {}
    for mode in ("eval", "train"):
        network, step = make(tiny(f"train.adversarial={{eps: 0.1, steps: 3, step_size: 0.05, network: {mode}}}"))
        step(*batch, 1, 1e-3)
        norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        moved[mode] = {int(norm.num_batches_tracked) for norm in norms}
        assert all(part.training for part in network.modules())
    assert moved == {"eval": {1}, "train": {4}}
