"""Every metric that a training records, once: its name, what it is called, its unit, and the panel it is drawn in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["number", "fraction", "dB", "images/s", "GiB"]


@dataclass(frozen=True)
class Panel:
    """Metrics that are drawn together; ``blocks``: one value a block. ``live``: the monitor has it."""

    key: str
    title: str
    unit: Unit = "number"
    blocks: bool = False
    live: bool = True


@dataclass(frozen=True)
class Metric:
    """``name`` is the record's, with * for the number of a block; ``title`` stands alone, ``label`` beside a curve of
    its ``panel``, ``word`` in a line of text (the label where it has none of its own).

    ``better``: which of two values is, '' for neither.
    """

    name: str
    title: str
    label: str
    unit: Unit = "number"
    panel: str = ""
    better: Literal["higher", "lower", ""] = ""
    word: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "word", self.word or self.label)

    @property
    def of_blocks(self) -> bool:
        return "*" in self.name

    @property
    def every_step(self) -> bool:
        """Whether it is a mean over a few steps of training, else measured on test images now and then."""
        return self.name.startswith("train/")

    def of(self, block: int) -> str:
        """Its name in the record for a block (from 1)."""
        return self.name.replace("*", str(block))

    def said(self, value: float | None) -> str:
        """A value in a line of text, '-' for none."""
        if value is None:
            return "-"
        match self.unit:
            case "fraction":
                return f"{100 * value:.1f}%"
            case "dB":
                return f"{value:.3g}"
            case _:
                return f"{value:.4g}"


CLEAN, NOISY = "test/accuracy", "test/noisy_accuracy"
LOSS, HAH_COST, TRAIN_ACCURACY, RATE = "train/loss", "train/hah_cost", "train/accuracy", "train/images_per_second"
CROSS_ENTROPY, TEST_LOSS = "train/cross_entropy", "test/loss"
SPARSITY, SNR = "block/*/sparsity", "block/*/snr_db"

PANELS = (
    Panel("loss", "Loss"),
    Panel("accuracy", "Accuracy", "fraction"),
    Panel("sparsity", "Sparsity per block", blocks=True),
    Panel("snr", "SNR per block, dB", "dB", blocks=True),
    Panel("cost", "HaH cost per block", blocks=True),
    Panel("throughput", "Throughput", "images/s"),
    Panel("active", "Active fraction per block", "fraction", blocks=True, live=False),
)

METRICS = {  # in the order they are drawn and listed
    metric.name: metric
    for metric in (
        Metric(CROSS_ENTROPY, "train cross-entropy", "CE", panel="loss", word="cross-entropy"),
        Metric(HAH_COST, "HaH cost", "HaH", panel="loss"),
        Metric(LOSS, "loss", "loss", panel="loss"),
        Metric(TEST_LOSS, "test cross-entropy", "test CE", panel="loss", better="lower"),
        Metric(CLEAN, "clean accuracy", "clean", "fraction", "accuracy", "higher"),
        Metric(NOISY, "noisy accuracy", "noisy", "fraction", "accuracy", "higher"),
        Metric(TRAIN_ACCURACY, "train accuracy", "train", "fraction", "accuracy"),
        Metric("validation/accuracy", "validation accuracy", "validation", "fraction", "accuracy", "higher"),
        Metric(RATE, "images/s", "images/s", "images/s", "throughput", "higher"),
        Metric("train/lr", "learning rate", "lr"),
        Metric(SPARSITY, "Hoyer sparsity", "sparsity", panel="sparsity", better="lower"),
        Metric(SNR, "SNR in dB", "SNR dB", "dB", "snr", "higher", word="snr_db"),
        Metric("block/*/active_fraction", "active fraction", "active", "fraction", "active", word="active_fraction"),
        Metric("block/*/hah_cost", "HaH cost", "HaH cost", panel="cost", word="hah_cost"),
        Metric("gpu/memory_gib", "GPU memory", "memory", "GiB"),
        Metric("gpu/utilisation", "GPU utilisation", "busy", "fraction"),
    )
}


def drawn_in(panel: str) -> list[Metric]:
    """The metrics of a panel, by its key."""
    return [metric for metric in METRICS.values() if metric.panel == panel]
