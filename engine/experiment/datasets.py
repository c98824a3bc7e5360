"""Facts about each data set that an experiment can name: what is known before a single image is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from engine.disk import folder_of


@dataclass(frozen=True)
class Dataset:
    """``mean`` and ``std`` are per channel, of training images in [0, 1]; the network subtracts and divides."""

    name: str
    classes: tuple[str, ...] | int
    train_images: int
    test_images: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    download: bool

    @property
    def num_classes(self) -> int:
        return self.classes if isinstance(self.classes, int) else len(self.classes)


_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

DATASETS = {
    dataset.name: dataset
    for dataset in (
        # Mean and standard deviation as in the authors' code.
        Dataset("cifar10", _CIFAR10_CLASSES, 50_000, 10_000, (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616), True),
        Dataset("cifar100", 100, 50_000, 10_000, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), True),
        # Of the training split that engine.data.archives makes (measured there by a test).
        Dataset("digits", tuple("0123456789"), 1_442, 355, (0.3052,) * 3, (0.3760,) * 3, False),
    )
}


def data_folder(named: str | None = None) -> Path:
    """Where archives lie: ``named`` as HAH_DATA (by default that of this process), else the platform's cache folder."""
    named = os.environ.get("HAH_DATA") if named is None else named
    return Path(named) if named else folder_of("cache")


def is_there(name: str, folder: Path) -> bool:
    """Whether a run could read a data set from a folder now, without a download."""
    return name not in DATASETS or not DATASETS[name].download or (folder / f"{name}.npz").is_file()


Suite = Literal["noise", "sparsity", "corruptions", "attacks", "minimum_norm", "masking"]
SUITE_NAMES: tuple[Suite, ...] = get_args(Suite)  # in the order they run

Attack = Literal["pgd", "apgd-ce", "apgd-t", "autoattack"]
WITHOUT_PACKAGE: tuple[Attack, ...] = ("pgd",)  # attacks of our own; all others are pyautoattack's
UNDIVIDED: tuple[Attack, ...] = ("autoattack",)  # which has iterations of its own

Corruption = Literal[
    "gaussian_noise", "shot_noise", "speckle_noise", "impulse_noise", "snow", "fog", "frost", "brightness",
    "defocus_blur", "gaussian_blur", "motion_blur", "zoom_blur", "contrast", "elastic_transform", "pixelate", "spatter",
    "glass_blur", "saturate", "jpeg_compression",
]  # fmt: skip
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)  # of CIFAR-10-C, in the order of Table 2
PAPER_CORRUPTIONS = CORRUPTIONS[:16]
CORRUPTION_GROUPS = {
    "noise": CORRUPTIONS[:4],
    "weather": CORRUPTIONS[4:8],
    "blur": CORRUPTIONS[8:12],
    "digital": CORRUPTIONS[12:16],
    "other": CORRUPTIONS[16:],
}
