"""The experiment: one model tree, the one source of every hyperparameter.

Each field carries its type, bounds, unit and help text; YAML validation, ``--set``, the form in the terminal, the
reference page and a run's ``config.yaml`` all come from here. A new hyperparameter is one new field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import InitErrorDetails, PydanticCustomError

from engine.experiment import architecture
from engine.experiment.datasets import DATASETS, PAPER_CORRUPTIONS, Attack, Corruption, Suite
from engine.experiment.names import NAME_FORMAT, NAME_PATTERN


def option(default: Any, help: str, *, unit: str = "", live: bool = False, format: str = "", **bounds: Any) -> Any:
    """A field: its default, help text, unit, bounds, and whether a running engine accepts a change of it.

    ``format`` says in words what a text may be.
    """
    extra: JsonDict = {"unit": unit, "live": live, "format": format}
    if isinstance(default, list):
        return Field(default_factory=lambda: list(default), description=help, json_schema_extra=extra, **bounds)
    return Field(default, description=help, json_schema_extra=extra, **bounds)


def _one_or_list(value: Any) -> Any:
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _fraction(value: Any) -> Any:
    """Accept '8/255', the way perturbation sizes are written in the field."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*", value) if isinstance(value, str) else None
    return float(match[1]) / float(match[2]) if match and float(match[2]) else value


# Bounds of what has none by nature: far beyond any use, and far from what no float32 or no memory holds.
MOST = 1_000_000
Weight = Annotated[float, Field(ge=0, le=MOST)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]
PER_BLOCK = BeforeValidator(_one_or_list)
Perturbation = Annotated[float, BeforeValidator(_fraction), Field(gt=0, le=100)]
Epoch = Annotated[int, Field(ge=1, le=MOST)]
NoiseLevel = Annotated[float, Field(gt=0, le=10)]
Severity = Annotated[int, Field(ge=1, le=5)]
Tag = Annotated[str, Field(pattern=NAME_PATTERN)]


class Section(BaseModel):
    """A group of settings; unknown names, non-finite numbers and silent conversions are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True, populate_by_name=False
    )


class Data(Section):
    """Which images the network sees."""

    dataset: Literal["cifar10", "cifar100", "digits"] = option(
        "cifar10", "images to learn; digits needs no download (1,797 handwritten digits, 8x8 enlarged to 32x32)"
    )
    augment: Literal["crop-flip", "none"] = option(
        "crop-flip", "random crop after padding by 4 pixels and random horizontal flip, or none"
    )
    train_limit: int | None = option(None, "use only the first so many training images", unit="images", ge=1, le=MOST)
    test_limit: int | None = option(None, "use only the first so many test images", unit="images", ge=1, le=MOST)
    validation: int = option(
        0,
        "training images set aside, drawn with the seed; the best checkpoint is then chosen on them",
        unit="images",
        ge=0,
        le=MOST,
    )


class DivisiveNormSection(Section):
    """Eq. 2: activations divided by their mean over filters, mixed with its maximum over the image."""

    enabled: bool = option(True, "divisive normalization in the HaH blocks; off: affine BatchNorm takes its place")
    sigma: Annotated[list[UnitInterval], PER_BLOCK] = option(
        [0.1],
        "weight of the image's maximum against the location's own mean in the divisor (Eq. 2)",
        unit="one, or one per HaH block",
        min_length=1,
    )
    pool: Literal[1, 3] = option(
        3, "window of the max-pool over activations before their mean: 1 is Eq. 2 as printed, 3 the authors' code"
    )


class ThresholdSection(Section):
    """Eq. 3: each filter's weak locations are set to zero, per image."""

    kind: Literal["fraction", "mean", "none"] = option(
        "fraction", "keep a fraction of each filter's locations, or those above a multiple of its mean, or all"
    )
    keep: float = option(0.2, "fraction of a filter's locations kept (kind fraction)", gt=0, le=1)
    scale: float = option(
        1.0, "the threshold is scale times the filter's mean over the image (kind mean)", gt=0, le=MOST
    )


class Model(Section):
    """The network: a VGG whose first blocks are HaH blocks."""

    architecture: Literal["vgg11", "vgg13", "vgg16", "vgg19"] = option("vgg16", "8, 10, 13 or 16 convolution blocks")
    width: float = option(1.0, "every number of filters is multiplied by this", gt=0, le=4)
    hah_blocks: int = option(6, "how many of the first blocks are HaH blocks", unit="blocks", ge=0, le=1000)
    weight_norm: Literal["all", "hah-blocks", "none"] = option(
        "all",
        "where convolutions divide by their filters' l2 norm (Eq. 1): the paper and its experiments in all "
        "blocks, the hahtorch package in the HaH blocks",
    )
    batch_norm_momentum: float = option(
        0.1,
        "weight of a batch in BatchNorm's running statistics; 0.19 equals the authors' two passes a step at 0.1",
        gt=0,
        le=1,
    )
    divisive_norm: DivisiveNormSection = Field(default_factory=DivisiveNormSection, description="Eq. 2")
    threshold: ThresholdSection = Field(default_factory=ThresholdSection, description="Eq. 3")


class HaH(Section):
    """The layer-wise Hebbian/anti-Hebbian costs (Eqs. 4 and 5)."""

    alpha: Annotated[list[Weight], PER_BLOCK] = option(
        [4.5e-3, 2.5e-3, 1.3e-3, 1e-3, 8e-4, 5e-4],
        "weight of each HaH block's cost in the loss (Eq. 5)",
        unit="one, or one per HaH block",
        live=True,
    )
    lambda_: float = option(
        0.1,
        "weight of the anti-Hebbian part, the mean of all but the top K filters (Eq. 4)",
        alias="lambda",
        live=True,
        ge=0,
        le=MOST,
    )
    top_k: float = option(
        0.1,
        "fraction of a block's filters that are strengthened at each location; K = ceil(top_k * N) (Eq. 4)",
        live=True,
        gt=0,
        lt=1,
    )
    gradient: Literal["local", "full"] = option(
        "local",
        "local: a block's cost moves that block's own weights only, as the authors' code does; "
        "full: it also moves the blocks before it, as Eq. 5 says",
    )
    images: Literal["seen", "clean"] = option(
        "seen",
        "whose activations the costs are of, where training images are noisy or adversarial: seen, those it trains on; "
        "clean, as the authors' code, the same images without the perturbation, by a second forward pass",
    )


class Adversarial(Section):
    """Adversarial training: PGD on every batch (Madry et al. 2018)."""

    norm: Literal["linf", "l2"] = option("linf", "norm of the perturbation")
    eps: Perturbation = option(8 / 255, "largest perturbation of an image in [0, 1]", live=True)
    steps: int = option(10, "PGD steps, after a random start", unit="steps", ge=1, le=1000)
    step_size: Perturbation = option(2 / 255, "length of one PGD step", live=True)
    network: Literal["eval", "train"] = option(
        "eval",
        "mode of the attacked network: eval uses BatchNorm's running statistics; train, as the authors' code, those of "
        "the batch, and every PGD step moves the running ones",
    )


class Train(Section):
    """How the network is trained."""

    epochs: int = option(100, "passes over the training images", unit="epochs", ge=1, le=MOST, live=True)
    batch_size: int = option(128, "images in a step; the last partial batch is kept", unit="images", ge=1, le=65536)
    optimizer: Literal["adam", "adamw", "sgd"] = option("adam", "sgd has momentum 0.9")
    lr: float = option(1e-3, "initial learning rate", gt=0, le=MOST, live=True)
    weight_decay: float = option(0.0, "weight decay of the optimizer", ge=0, le=MOST, live=True)
    milestones: list[Epoch] = option([60, 80], "the learning rate is multiplied by gamma after these epochs")
    gamma: float = option(0.1, "factor of the learning rate at each milestone", gt=0, le=1, live=True)
    precision: Literal["auto", "fp32", "tf32", "bf16"] = option(
        "auto",
        "arithmetic of the convolutions; normalization, selection and costs are always float32; "
        "auto: bf16 on a GPU that has it, else fp32",
    )
    compile: bool = option(False, "compile the network with torch.compile (needs a C++ compiler on the CPU)")
    noise_std: float = option(
        0.0, "standard deviation of Gaussian noise added to training images in [0, 1]", ge=0, le=10, live=True
    )
    adversarial: Adversarial | None = Field(None, description="adversarial training; null for none")


class Observe(Section):
    """What the live probes look at, and how often."""

    every: int = option(
        1, "test and probe after every so many epochs, and after the last", unit="epochs", ge=1, le=MOST, live=True
    )
    images: int = option(
        512,
        "the first so many test images are what sparsity, SNR and active fraction are measured on",
        unit="images",
        ge=1,
        le=MOST,
    )
    noise_std: float = option(
        0.1, "standard deviation of the noise for SNR and noisy accuracy, clamped to [0, 1]", gt=0, le=10
    )
    log_every: int = option(10, "training metrics are recorded every so many steps", unit="steps", ge=1, le=100_000)


class Checkpoints(Section):
    """When the training state is saved; last, previous and best are always kept."""

    every: int = option(
        1, "save after every so many epochs, and after the last", unit="epochs", ge=1, le=MOST, live=True
    )
    minutes: float = option(
        10.0, "and within an epoch when this long has passed", unit="minutes", gt=0, le=MOST, live=True
    )
    keep: list[Epoch] = option([], "epochs whose checkpoint is kept for good, as epoch-N")


class NoiseSuite(Section):
    """Accuracy and per-block SNR under noise (Figures 3b and 4)."""

    distribution: Literal["gaussian", "uniform"] = option("gaussian", "what is added to images; both by their std")
    levels: list[NoiseLevel] = option(
        [0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2], "standard deviations of the noise, clamped to [0, 1]", min_length=1
    )
    draws: int = option(3, "independent draws of the noise at each level", unit="draws", ge=1, le=100)
    examples: int = option(4, "example images kept at each level", unit="images", ge=0, le=16)


class SparsitySuite(Section):
    """Hoyer sparsity and active fraction of every block (Figure 2)."""

    bins: int = option(40, "bins of the histogram of normalized Hoyer values, from 0 to 1", unit="bins", ge=2, le=1000)


class CorruptionSuite(Section):
    """CIFAR-10-C (Table 2): the official files where they are there, else generated from the test images."""

    names: list[Corruption] = option(
        list(PAPER_CORRUPTIONS), "which corruptions; the default 16 are the paper's", min_length=1
    )
    severities: list[Severity] = option([1, 2, 3, 4, 5], "which severities", min_length=1)
    source: Literal["auto", "official", "generated"] = option(
        "auto", "the official .npy files, or images generated with their parameters; auto: official where they are"
    )


class AttackSuite(Section):
    """Robust accuracy: attacks in order, each on the images that still stand (Table 1)."""

    methods: list[Attack] = option(
        ["apgd-ce", "apgd-t"], "attacks in order; the default two are the authors'; all but pgd need pyautoattack",
        min_length=1,
    )  # fmt: skip
    linf: list[Perturbation] = option([2 / 255], "sizes of the perturbation in Linf, images in [0, 1]")
    l2: list[Perturbation] = option([0.25], "sizes of the perturbation in L2")
    steps: int = option(
        100, "iterations of pgd, apgd-ce and apgd-t; more than 100 are rounds of 100", unit="steps", ge=1, le=10_000
    )
    restarts: int = option(1, "random starts of each attack", unit="starts", ge=1, le=100)


class MinimumNormSuite(Section):
    """The smallest perturbation that changes each prediction, by a search that began as FMN (Figure 5)."""

    norms: list[Literal["l0", "l1", "l2", "linf"]] = option(["l0", "l1", "l2", "linf"], "which norms", min_length=1)
    steps: int = option(300, "iterations; fewer than 300 overstate the norms", unit="steps", ge=1, le=100_000)
    trials: int = option(
        4, "small changes tried for each step, a forward pass each; 0 overstates the norms", unit="trials", ge=0, le=99
    )


class MaskingSuite(Section):
    """The checks that tell real robustness from masked gradients."""

    norm: Literal["linf", "l2"] = option("linf", "norm of the perturbation")
    eps: Perturbation = option(2 / 255, "size of the perturbation")
    steps: int = option(100, "iterations of the iterative attacks", unit="steps", ge=1, le=10_000)
    queries: int = option(1000, "queries of the black-box Square attack", unit="queries", ge=1, le=100_000)
    standard: str = option(
        "", "run that the transfer attack starts from: an id, or nothing for no transfer check",
        format="an id of at most 100 characters", max_length=100,
    )  # fmt: skip


class Evaluate(Section):
    """What is measured of the trained network, by `hah eval` or right after training."""

    suites: list[Suite] = option([], "suites that run when training ends")
    images: int | None = option(None, "the first so many test images; null: all of them", unit="images", ge=1, le=MOST)
    noise: NoiseSuite = Field(default_factory=NoiseSuite, description="accuracy and SNR under noise")
    sparsity: SparsitySuite = Field(default_factory=SparsitySuite, description="Hoyer sparsity per block")
    corruptions: CorruptionSuite = Field(default_factory=CorruptionSuite, description="CIFAR-10-C")
    attacks: AttackSuite = Field(default_factory=AttackSuite, description="robust accuracy")
    minimum_norm: MinimumNormSuite = Field(default_factory=MinimumNormSuite, description="minimum-norm attacks")
    masking: MaskingSuite = Field(default_factory=MaskingSuite, description="checks for masked gradients")


class Compute(Section):
    """Where it runs; no result depends on it beyond rounding."""

    device: str = option(
        "auto",
        "where the network lives; auto: a GPU that nobody holds, else the CPU",
        format="auto, cpu, cuda or cuda:N",
        pattern=r"^(auto|cpu|cuda|cuda:\d{1,3})$",
    )
    kernels: Literal["auto", "reference", "fused"] = option(
        "auto",
        "HaH operations and weight norm: plain PyTorch (reference), their fused twins, or the twins where they run",
    )
    cuda_graph: bool = option(True, "on a GPU, replay the passes over a batch as one CUDA graph where they allow it")
    num_gpus: int = option(1, "processes of a data-parallel run; this version trains on one device", ge=1, le=1)
    threads: int | None = option(
        None, "CPU threads of each process; null: PyTorch's choice, shared by several processes", unit="threads", ge=1,
        le=1024,
    )  # fmt: skip
    evaluators: int = option(
        1, "processes that share an evaluation, on a box with GPUs each with one of its own; its results are the same",
        unit="processes", ge=1, le=64,
    )  # fmt: skip


class Experiment(Section):
    """Everything that can be varied in one run. The defaults are the paper's."""

    name: str = option("experiment", "what runs of it are called", format=NAME_FORMAT, pattern=NAME_PATTERN)
    description: str = option("", "one or two sentences for lists", format="at most 1000 characters", max_length=1000)
    tags: list[Tag] = option([], "words to find the run by")
    seed: int = option(2022, "every random number of the run follows from it", ge=0, le=2**32 - 1)
    data: Data = Field(default_factory=Data, description="which images the network sees")
    model: Model = Field(default_factory=Model, description="the network")
    hah: HaH = Field(default_factory=HaH, description="the Hebbian/anti-Hebbian costs")
    train: Train = Field(default_factory=Train, description="how it is trained")
    observe: Observe = Field(default_factory=Observe, description="what is looked at while it trains")
    checkpoints: Checkpoints = Field(default_factory=Checkpoints, description="when the training state is saved")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="what is measured of the trained network")
    compute: Compute = Field(default_factory=Compute, description="where it runs")

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        found = [
            InitErrorDetails(
                type=PydanticCustomError("together", "{what}", {"what": what, "reads": [name, *reads]}),
                loc=tuple(name.split(".")),
                input=None,
            )
            for name, reads, what in _clashes(self)
        ]
        if found:
            raise ValidationError.from_exception_data("Experiment", found)
        return self

    @property
    def classes(self) -> int:
        """Number of classes of the data set."""
        return DATASETS[self.data.dataset].num_classes

    @property
    def alphas(self) -> list[float]:
        """Eq. 5's alpha of each HaH block."""
        return _per_block(self.hah.alpha, self.model.hah_blocks)

    @property
    def sigmas(self) -> list[float]:
        """Eq. 2's sigma of each HaH block."""
        return _per_block(self.model.divisive_norm.sigma, self.model.hah_blocks)

    def blocks(self) -> list[architecture.BlockPlan]:
        """The convolution blocks of the network."""
        return architecture.blocks(self.model.architecture, self.model.width)

    def parameters(self) -> int:
        """Trainable parameters of the network."""
        model = self.model
        affine = len(self.blocks()) - (model.hah_blocks if model.divisive_norm.enabled else 0)
        return architecture.parameters(model.architecture, model.width, self.classes, affine)

    def macs(self) -> int:
        """Multiply-accumulates of one image's forward pass."""
        return architecture.macs(self.model.architecture, self.model.width, self.classes)

    def idle(self) -> list[str]:
        """Settings that do nothing because training ends before, a sentence each."""
        epochs = self.train.epochs
        late = {
            "train.milestones": [epoch for epoch in self.train.milestones if epoch >= epochs],
            "checkpoints.keep": [epoch for epoch in self.checkpoints.keep if epoch > epochs],
        }
        return [
            f"{name}: {', '.join(map(str, values[:5]))}{', ...' if values[5:] else ''} does nothing, training ends "
            f"with epoch {epochs}"
            for name, values in late.items()
            if values
        ]

    def dump(self) -> dict[str, Any]:
        """The experiment as plain data under the names it is written with."""
        return self.model_dump(mode="json", by_alias=True)


def _per_block(values: list[float], blocks: int) -> list[float]:
    return values * blocks if len(values) == 1 else list(values)


def _clashes(experiment: Experiment) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """What single fields cannot know: (the setting to point at, what else the check reads, one sentence)."""
    model, hah, train, data = experiment.model, experiment.hah, experiment.train, experiment.data
    network = ("model.architecture", "model.width", "model.hah_blocks")
    plan = experiment.blocks()
    if model.hah_blocks > len(plan):
        limit = f"{len(plan)}, the convolutions of {model.architecture}"
        yield "model.hah_blocks", network, f"must be at most {limit}, got {model.hah_blocks}"
    for name, values in (("hah.alpha", hah.alpha), ("model.divisive_norm.sigma", model.divisive_norm.sigma)):
        if len(values) not in (1, model.hah_blocks):
            count = "1 value" if model.hah_blocks == 1 else f"1 value or {model.hah_blocks}"
            yield name, network, f"must have {count} (model.hah_blocks is {model.hah_blocks}), got {len(values)}"
    for block in plan:  # all of them: probes measure the cost of standard blocks too
        strongest = architecture.strongest(hah.top_k, block.filters)
        if strongest >= block.filters:
            what = f"takes {strongest} of the {block.filters} filters of block {block.number}"
            yield "hah.top_k", network, f"must leave a filter over, but {what}; lower it or raise model.width"
            break
    if sorted(set(train.milestones)) != train.milestones:
        yield "train.milestones", (), f"must rise, got {train.milestones}"
    attacks, read = experiment.evaluate.attacks, ("evaluate.attacks.l2",)
    if not attacks.linf and not attacks.l2:
        yield "evaluate.attacks.linf", read, "must name a size, or evaluate.attacks.l2 must; both are empty"
    images = DATASETS[data.dataset].train_images
    images = min(images, data.train_limit or images)
    if data.validation >= images:
        reads = ("data.dataset", "data.train_limit")
        yield "data.validation", reads, f"must leave training images over (there are {images}), got {data.validation}"
