"""One pass over test images that measures accuracy, clean and noisy, and every block's sparsity, SNR and HaH cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.data.batches import Split
from engine.data.draws import Draw, generator
from engine.nn import VGG, hah_cost
from engine.probes.measures import decibel, hoyer, right, snr_ratio

BATCH = 256  # clean images in a pass; as many noisy ones go with them


@dataclass
class _Mean:
    """A mean over what is finite; the sums stay on the device until the end."""

    sums: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)

    def add(self, values: Tensor) -> None:
        finite = values.isfinite()
        self.sums.append(values.masked_fill(~finite, 0).sum(dtype=torch.float64))
        self.counts.append(finite.sum())

    def value(self) -> float | None:
        count = int(torch.stack(self.counts).sum())
        return float(torch.stack(self.sums).sum()) / count if count else None


@torch.no_grad()
def observe(
    network: VGG,
    split: Split,
    *,
    probed: int,
    noise_std: float,
    seed: int,
    top_k: float,
    lambda_: float,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Metrics by name: test/loss, test/accuracy, test/noisy_accuracy over ``split`` and, over its first ``probed``
    images, block/<n>/sparsity, snr_db, active_fraction and hah_cost of every convolution block.

    Clean and noisy images go through the network together, in evaluation mode and with noise of the observation's
    own generator: weights, BatchNorm statistics and random state are as before. A metric that does not exist (no
    location of a block active, no image changed by noise, a loss that is no number) is left out.
    """
    noise = generator(split.labels.device, seed, Draw.PROBE_NOISE)
    blocks = [{name: _Mean() for name in ("sparsity", "snr_db", "active_fraction", "hah_cost")} for _ in network.blocks]
    correct, noisy_correct = _Mean(), _Mean()
    losses, seen = [], 0
    with evaluating(network):
        for images, labels in split.batches(BATCH):
            clean = len(images)
            noisy = (images + noise_std * torch.randn(images.shape, generator=noise, device=images.device)).clamp_(0, 1)
            with _looking(network, blocks, clean, max(0, min(clean, probed - seen)), top_k, lambda_):
                logits = network(torch.cat([images, noisy])).float()
            losses.append(F.cross_entropy(logits[:clean], labels, reduction="none").sum(dtype=torch.float64))
            correct.add(right(logits[:clean], labels).float())
            noisy_correct.add(right(logits[clean:], labels).float())
            seen += clean
            progress()
    loss = float(torch.stack(losses).sum()) / seen
    found = {"test/accuracy": correct.value(), "test/noisy_accuracy": noisy_correct.value()}
    found = {"test/loss": loss if math.isfinite(loss) else None, **found}
    for number, means in enumerate(blocks, 1):
        found.update({f"block/{number}/{name}": mean.value() for name, mean in means.items()})
        ratio = found[f"block/{number}/snr_db"]
        found[f"block/{number}/snr_db"] = decibel(ratio) if ratio else None
    return {name: value for name, value in found.items() if value is not None}


@contextmanager
def evaluating(network: torch.nn.Module) -> Iterator[None]:
    """The network in evaluation mode and its weights without gradients, and then every part of it as it was."""
    modes = [(module, module.training) for module in network.modules()]
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def _looking(
    network: VGG, blocks: list[dict[str, _Mean]], clean: int, looked_at: int, top_k: float, lambda_: float
) -> Iterator[None]:
    """Measure every block during one pass over [clean images, noisy images], on the first ``looked_at`` of each."""

    def before(means: dict[str, _Mean]) -> Callable[..., None]:
        def hook(block: Any, inputs: tuple[Tensor]) -> None:
            x, noisy = inputs[0][:looked_at], inputs[0][clean : clean + looked_at]
            means["snr_db"].add(snr_ratio(x.float(), noisy.float()))
            cost = hah_cost(block.activations(x), top_k, lambda_)
            means["hah_cost"].add(cost.expand(looked_at))

        return hook

    def after(means: dict[str, _Mean]) -> Callable[..., None]:
        def hook(_block: Any, _inputs: tuple[Tensor], output: Tensor) -> None:
            o = output[:looked_at].float()
            means["sparsity"].add(hoyer(o))
            means["active_fraction"].add((o != 0).float())

        return hook

    handles = []
    if looked_at:
        for block, means in zip(network.blocks, blocks, strict=True):
            handles.append(block.register_forward_pre_hook(before(means)))
            handles.append(block.register_forward_hook(after(means)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
