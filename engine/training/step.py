"""One optimization step: the loss of Eq. 5 in one forward and one backward pass."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.adversarial.balls import random_start
from engine.adversarial.pgd import pgd
from engine.data.batches import to_images
from engine.data.draws import Draw, generator
from engine.experiment import Experiment
from engine.nn import VGG, HaHBlock, NormalizedConv2d, kernels
from engine.training.captured import CapturedPasses


class DivergedError(Exception):
    """Loss, weights or scores are no longer numbers; the message says what of them and at which step."""


_WARM = 3  # steps before a graph is captured: kernels are compiled and workspaces made in them
_COLUMNS = ("train/loss", "train/cross_entropy", "train/accuracy")


@dataclass(frozen=True)
class Drained:
    """What consecutive steps measured: means over each step's batch by metric name, and the size of each batch."""

    first: int  # number of the first step
    counts: list[int]
    columns: dict[str, list[float]]

    @property
    def images(self) -> int:
        return sum(self.counts)

    def means(self) -> dict[str, float]:
        """The means over all images of these steps."""
        return {
            name: sum(x * count for x, count in zip(column, self.counts, strict=True)) / self.images
            for name, column in self.columns.items()
        }


class Step:
    """Trains ``network`` on one batch a call.

    What a step measures stays on the device until `drain`, so that no step waits for the device. On a GPU the passes
    over a full batch become one CUDA graph after a few steps: a step is some 330 small operations, which the host
    launches more slowly than the device runs them. ``warn`` is told when torch.compile cannot compile, or a graph
    cannot be captured, and the network runs as it is.
    """

    def __init__(
        self, network: VGG, experiment: Experiment, device: torch.device, warn: Callable[[str], None] = print
    ) -> None:
        self.network, self.device, self._warn = network, device, warn
        self.autocast = autocast(experiment, device)
        self.optimizer = _optimizer(network, experiment)
        self._compiled: Callable[..., tuple[Tensor, Tensor]] | None = None
        if experiment.train.compile:
            for part in network.modules():  # fused twins are compiled already, and torch cannot look into them
                if isinstance(part, HaHBlock):
                    part.run_fused = torch.compiler.disable(part.run_fused)  # type: ignore[method-assign]
                elif isinstance(part, NormalizedConv2d) and device.type in kernels.UNIT_NORMS:
                    part.used_weight = torch.compiler.disable(part.used_weight)  # type: ignore[method-assign]
            self._compiled = torch.compile(network)
        self._capture = experiment.compute.cuda_graph and device.type == "cuda" and not experiment.train.compile
        self.configure(experiment)
        hah_blocks = experiment.model.hah_blocks
        self._rows = torch.zeros(experiment.observe.log_every, len(_COLUMNS) + hah_blocks, device=device)
        self._counts: list[int] = []

    def configure(self, experiment: Experiment) -> None:
        """Take over every setting that may change between steps."""
        self._experiment = experiment
        self._alpha = torch.tensor(experiment.alphas, device=self.device)
        self._with_costs = any(experiment.alphas)
        for block in self.network.blocks:
            if isinstance(block, HaHBlock):
                block.lambda_, block.top_k = experiment.hah.lambda_, experiment.hah.top_k
        for group in self.optimizer.param_groups:
            group["weight_decay"] = experiment.train.weight_decay
        self._graph: CapturedPasses | None = None
        self._warm = 0  # full batches since anything changed

    def __call__(self, pixels: Tensor, labels: Tensor, number: int, lr: float) -> None:
        """Step ``number`` (from 1) on pixels uint8 [B, 3, H, W] and labels [B]."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        clean = to_images(pixels)
        images = self._perturbed(clean, labels, number)
        apart = self._with_costs and self._experiment.hah.images == "clean" and images is not clean
        batch = (images, labels, clean) if apart else (images, labels)
        graph = self._graph_for(batch)
        row = graph(batch) if graph else self._passes(*batch)
        self.optimizer.step()
        self._rows[len(self._counts)] = row
        self._counts.append(len(labels))
        self._last = number

    @property
    def captured(self) -> bool:
        """Whether a CUDA graph holds memory of its own."""
        return self._graph is not None

    @property
    def full(self) -> bool:
        """Whether the measurements must be drained before the next step."""
        return len(self._counts) == len(self._rows)

    def drain(self) -> Drained | None:
        """Read what the steps since the last call measured; raises DivergedError if a loss is not finite."""
        if not self._counts:
            return None
        counts, self._counts = self._counts, []
        rows: list[list[float]] = self._rows[: len(counts)].tolist()
        first = self._last - len(counts) + 1
        for offset, row in enumerate(rows):
            if not math.isfinite(row[0]):
                raise DivergedError(f"step {first + offset}: {self._culprit(row)} is {_word(row)}")
        columns = {name: [row[index] for row in rows] for index, name in enumerate(_COLUMNS)}
        columns["train/hah_cost"] = [row[1] - row[0] for row in rows]  # the sum of alpha * cost, what Eq. 5 subtracts
        return Drained(first, counts, columns)

    def _passes(self, images: Tensor, labels: Tensor, clean: Tensor | None = None) -> Tensor:
        """Leave the gradient of Eq. 5 in the weights; costs are of ``clean`` where that is given. What was measured:
        loss, cross-entropy, fraction correct, and the cost of each HaH block."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            logits, costs = self._run(images)
            if clean is not None:
                _, costs = self._run(clean)
        cross_entropy = F.cross_entropy(logits.float(), labels)
        loss = cross_entropy - (self._alpha * costs).sum() if self._with_costs else cross_entropy  # Eq. 5
        loss.backward()
        with torch.no_grad():
            correct = (logits.argmax(1) == labels).float().mean()  # of scores that are no numbers, neither is the loss
            return torch.cat([torch.stack([loss, cross_entropy, correct]), costs.float()])

    def _graph_for(self, batch: Sequence[Tensor]) -> CapturedPasses | None:
        """The graph of the passes over such a batch; None while they run one operation after another."""
        if not self._capture or len(batch[0]) != self._experiment.train.batch_size:
            return None
        if self._graph is None:
            self._warm += 1
            if self._warm <= _WARM:
                return None
            try:
                self._graph = CapturedPasses(self._passes, batch, list(self.network.parameters()))
            except RuntimeError as error:
                reason = (str(error.__context__ or error).strip() or type(error).__name__).splitlines()[0]
                self._warn(f"the step cannot be captured as a CUDA graph, it runs as it is: {reason}")
                self._capture = False
        return self._graph

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if not self._with_costs:
            return self.network(images), images.new_zeros(self._rows.shape[1] - len(_COLUMNS))
        if self._compiled is not None:
            try:
                return self._compiled(images, costs=True)
            except Exception as error:
                from torch._dynamo.exc import TorchDynamoException  # torch.compile has loaded it

                if not isinstance(error, TorchDynamoException):  # no compiler, or something it cannot compile
                    raise
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                self._warn(f"torch.compile failed, the network runs as it is: {reason}")
                self._compiled = None
        return self.network(images, costs=True)

    def _perturbed(self, images: Tensor, labels: Tensor, number: int) -> Tensor:
        train, seed = self._experiment.train, self._experiment.seed
        if train.noise_std:
            draw = generator(self.device, seed, Draw.TRAINING_NOISE, number)
            noise = torch.empty_like(images).normal_(std=train.noise_std, generator=draw)
            images = (images + noise).clamp_(0, 1)
        if train.adversarial is not None:
            draw = generator(self.device, seed, Draw.ATTACK_START, number)
            attack = train.adversarial
            with self.autocast():
                images = pgd(
                    self.network,
                    images,
                    labels,
                    norm=attack.norm,
                    eps=attack.eps,
                    steps=attack.steps,
                    step_size=attack.step_size,
                    mode=attack.network,
                    start=random_start(images, attack.norm, attack.eps, draw),
                )
        return images

    def _culprit(self, row: list[float]) -> str:
        if not math.isfinite(row[1]):
            return "the cross-entropy"
        bad = [number for number, cost in enumerate(row[len(_COLUMNS) :], 1) if not math.isfinite(cost)]
        return f"the HaH cost of block {bad[0]}" if bad else "the loss"


def learning_rate(experiment: Experiment, epoch: int) -> float:
    """The learning rate in ``epoch`` (from 1): multiplied by gamma after each milestone epoch."""
    train = experiment.train
    passed = sum(epoch > milestone for milestone in train.milestones)
    return float(train.lr * train.gamma**passed)


def precision(experiment: Experiment, device: torch.device) -> str:
    """fp32, tf32 or bf16: what "auto" means on this device."""
    asked = experiment.train.precision
    if asked != "auto":
        return asked
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if fast else "fp32"


def autocast(experiment: Experiment, device: torch.device) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """A maker of contexts in which convolutions run in the experiment's precision."""
    if precision(experiment, device) == "bf16":
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext


def _optimizer(network: VGG, experiment: Experiment) -> torch.optim.Optimizer:
    train = experiment.train
    parameters = network.parameters()
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[train.optimizer]
    momentum = {"momentum": 0.9} if train.optimizer == "sgd" else {}
    made: torch.optim.Optimizer = (kind if train.compile else _uncompiled(kind))(
        parameters, train.lr, weight_decay=train.weight_decay, fused=True, **momentum
    )
    return made


def _uncompiled(kind: type[torch.optim.Optimizer]) -> type[Any]:
    """An optimizer of torch without what keeps torch.compile out of its methods: for that they import torch._dynamo, a
    third of the time that an engine takes to start. The arithmetic is that of ``kind``."""

    class Uncompiled(kind):  # type: ignore[misc, valid-type]
        step = torch.no_grad()(inspect.unwrap(kind.step))
        add_param_group = inspect.unwrap(kind.add_param_group)
        zero_grad = inspect.unwrap(kind.zero_grad)
        state_dict = inspect.unwrap(kind.state_dict)
        load_state_dict = inspect.unwrap(kind.load_state_dict)

    return Uncompiled


def _word(row: list[float]) -> str:
    return "NaN" if any(math.isnan(x) for x in row) else "infinite"
