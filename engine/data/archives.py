"""Image archives: where they lie, what is in them, how they are made. NumPy only, no torch.

An archive is NAME.npz in the data folder with x_train, y_train, x_test, y_test: uint8, images [n, height, width, 3].
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from engine import disk
from engine.experiment import datasets
from engine.experiment.architecture import IMAGE_SIZE
from engine.experiment.datasets import DATASETS, data_folder
from engine.experiment.mistakes import RequestError

Array = npt.NDArray[np.uint8]
# What zip and NumPy raise where a file is none.
_NO_ARCHIVE = (
    OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error
)  # fmt: skip
_DIGITS = Path(__file__).with_name("digits.npz")
PARTS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Images:
    """A data set in memory: images uint8 [n, 32, 32, 3] and labels uint8 [n]; ``fingerprint`` is its SHA-256."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    fingerprint: str
    source: str


def archive_path(name: str) -> Path:
    """Where the archive of a data set lies or would lie."""
    return data_folder() / f"{name}.npz"


def is_there(name: str) -> bool:
    """Whether a run could read the data set now without a download."""
    return datasets.is_there(name, data_folder())


def require(name: str) -> None:
    """Raise RequestError with the ways out if the data set is not there, or if its archive is not one that a run can
    read: looks at what the archive says of its images, and at its labels, in milliseconds."""
    if not is_there(name):
        raise RequestError(
            f"data.dataset: {name} is not there. Three ways out: 'hah data prepare {name}' downloads it; put an "
            f"archive {name}.npz into {data_folder()} (or set HAH_DATA to the folder that has it); or use a preset "
            "that needs no download, such as quickstart"
        )
    if DATASETS[name].download:
        _examine(archive_path(name), name)


def load(name: str) -> Images:
    """The images of a data set; raises RequestError where there are none or the archive is not one."""
    if name == "digits":
        return _digits()
    require(name)
    path = archive_path(name)
    with _told(path), disk.opened(path) as file, np.load(file, allow_pickle=False) as archive:
        arrays = {part: archive[part] for part in PARTS}
    for part, array in arrays.items():
        _check_kind(path, name, part, array.dtype, array.shape)
        if part.startswith("y"):
            _check_labels(path, name, part, array)
    return Images(**arrays, fingerprint=_sha256(path), source=str(path))


def prepare(name: str) -> Path:
    """Download a data set through torchvision (which checks its checksums) and keep it as one archive.

    Raises RequestError where the download fails or the folder cannot be written.
    """
    path = archive_path(name)
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise RequestError(f"torchvision, which downloads {name}, does not import: {error}") from None
    kind: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{name}-") as folder:
            splits = {part: kind(folder, train=part == "train", download=True) for part in ("train", "test")}
            partial = Path(folder) / "archive.npz"
            np.savez(
                partial,
                x_train=splits["train"].data,
                y_train=np.asarray(splits["train"].targets, np.uint8),
                x_test=splits["test"].data,
                y_test=np.asarray(splits["test"].targets, np.uint8),
            )
            partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise RequestError(
            f"{name} could not be downloaded ({error}). Put an archive {name}.npz into {data_folder()}, set HAH_DATA "
            "to the folder that has one, or use a preset that needs no download, such as quickstart"
        ) from None
    return path


def status(name: str) -> dict[str, Any]:
    """What is there of a data set, as facts for a list."""
    dataset, path = DATASETS[name], archive_path(name)
    there, problem, size = is_there(name), "", None
    if dataset.download and there:
        size = path.stat().st_size
        try:
            require(name)
        except RequestError as error:
            problem = str(error)
    source = str(path) if dataset.download else "scikit-learn"
    return {
        "name": name,
        "there": there,
        "problem": problem,
        "path": source,
        "bytes": size,
        "classes": dataset.num_classes,
        "train_images": dataset.train_images,
        "test_images": dataset.test_images,
    }


def _digits() -> Images:
    """scikit-learn's 1,797 handwritten digits: every fifth image of a class is for testing.

    8x8 grey values from 0 to 16 are scaled to 0 to 255, each pixel repeated 4x4, the same in all three channels.
    digits.npz has what sklearn.datasets.load_digits() gives, whose import alone takes as long as reading this
    thousands of times; it was made from ``images`` and ``target`` by
    np.savez_compressed("digits.npz", images=images.astype(np.uint8), labels=target.astype(np.uint8)).
    """
    with np.load(_DIGITS, allow_pickle=False) as kept:
        digits, labels = kept["images"], kept["labels"]
    grey = np.round(digits * (255 / 16)).astype(np.uint8)
    factor = IMAGE_SIZE // grey.shape[1]
    images = np.repeat(grey.repeat(factor, 1).repeat(factor, 2)[..., None], 3, axis=3)
    place_in_class = np.empty(len(labels), int)
    for label in range(10):
        place_in_class[labels == label] = np.arange((labels == label).sum())
    test = place_in_class % 5 == 4
    content = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    return Images(images[~test], labels[~test], images[test], labels[test], content, "scikit-learn")


def _examine(path: Path, name: str) -> None:
    """Raise RequestError unless the archive is one of this data set, without reading its images."""
    with _told(path), disk.opened(path) as file, zipfile.ZipFile(file) as archive:
        for part in PARTS:
            with archive.open(f"{part}.npy") as member:
                old = npy.read_magic(member) == (1, 0)
                shape, _, dtype = (npy.read_array_header_1_0 if old else npy.read_array_header_2_0)(member)
            _check_kind(path, name, part, dtype, shape)
            if part.startswith("y"):
                with archive.open(f"{part}.npy") as member:
                    _check_labels(path, name, part, npy.read_array(member, allow_pickle=False))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What a file that is no archive makes zip and NumPy raise, as one sentence."""
    try:
        yield
    except _NO_ARCHIVE as error:
        raise RequestError(f"{path} is not an archive of images: {error}") from None


def _check_kind(path: Path, name: str, part: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    dataset = DATASETS[name]
    count = dataset.train_images if part.endswith("train") else dataset.test_images
    size = (count, IMAGE_SIZE, IMAGE_SIZE, 3) if part.startswith("x") else (count,)
    if shape != size or not (dtype == np.uint8 if part.startswith("x") else dtype.kind in "iu"):
        wanted = f"uint8 {list(size)}" if part.startswith("x") else f"{count} whole numbers below {dataset.num_classes}"
        raise RequestError(f"{path}: {part} must be {wanted}, is {dtype} {list(shape)}")


def _check_labels(path: Path, name: str, part: str, labels: npt.NDArray[Any]) -> None:
    count, classes = len(labels), DATASETS[name].num_classes
    if not 0 <= labels.min() <= labels.max() < classes:
        found = f"goes from {labels.min()} to {labels.max()}"
        raise RequestError(f"{path}: {part} must be {count} whole numbers below {classes}, {found}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with disk.opened(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
