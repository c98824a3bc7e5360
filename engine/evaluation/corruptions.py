"""Corrupted test sets: the official CIFAR-10-C files where they lie, else made and kept; and what is there of them.

Official files: one array for each corruption, uint8 [50000, 32, 32, 3], the 10,000 test images at severity 1, then 2 to
5; labels.npy [50000]. Made sets lie in DATASET-c-generated/NAME-SEVERITY.npy, each followed by a SHA-256 of the test
images, what made them of these, and the result: a file that is damaged or of something else is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engine import disk
from engine.data.archives import archive_path
from engine.disk import replacing
from engine.evaluation import photographs
from engine.evaluation.distortions import SEED, VERSION, corrupt
from engine.evaluation.filters import Bytes
from engine.experiment.architecture import IMAGE_SIZE
from engine.experiment.datasets import CORRUPTIONS, DATASETS, data_folder
from engine.experiment.mistakes import RequestError

__all__ = ["SEED", "VERSION", "corrupt", "corrupted", "missing", "prepare", "sources", "status"]

SEVERITIES = range(1, 6)
OFFICIAL = "CIFAR-10-C.tar of Zenodo record 2535967, doi:10.5281/zenodo.2535967"

Source = Literal["auto", "official", "generated"]


def corrupted(
    name: str,
    severity: int,
    images: Bytes,
    labels: npt.NDArray[Any],
    dataset: str = "cifar10",
    source: Source = "auto",
    count: int | None = None,
    seed: int = SEED,
) -> tuple[Bytes, str]:
    """The first ``count`` of all test ``images`` [n, 32, 32, 3] corrupted, and "official" or "generated".

    "auto" takes the official file where it is there; one that is there but not right is refused, not passed over. Made
    sets are kept for the next time if they are whole and of the usual seed.
    """
    count = len(images) if count is None else min(count, len(images))
    if source != "generated" and dataset == "cifar10" and official_path(name).exists():
        return _official(name, severity, labels)[:count], "official"
    if source == "official":
        raise _no_official(name, dataset)
    if seed != SEED:
        return corrupt(images[:count], name, severity, seed), "generated"
    path = generated_path(dataset, name, severity)
    kept = _kept(path, images, name, severity)
    if kept is None and count < len(images):
        return corrupt(images[:count], name, severity), "generated"
    if kept is None:
        kept = corrupt(images, name, severity)
        with contextlib.suppress(OSError):  # a full or read-only disk costs the next evaluation time, not this one
            keep(path, kept, images, name, severity)
    return kept[:count], "generated"


def sources(names: Sequence[str], dataset: str = "cifar10", source: Source = "auto") -> dict[str, str]:
    """Of each corruption "official", "generated" or "missing" (frost without its photographs); raises RequestError
    where official ones are asked for and not there."""
    gone = missing(dataset, source)
    found = {}
    for name in names:
        official = source != "generated" and dataset == "cifar10" and official_path(name).exists()
        if source == "official" and not official:
            raise _no_official(name, dataset)
        found[name] = "official" if official else "missing" if name in gone else "generated"
    return found


def _no_official(name: str, dataset: str) -> RequestError:
    known = f"{official_path(name)} is not there; it is in {OFFICIAL}"
    why = known if dataset == "cifar10" else f"official corruptions are of cifar10, not of {dataset}"
    return RequestError(f"evaluate.corruptions.source: there is no official {name} of {dataset}: {why}")


def missing(dataset: str = "cifar10", source: Source = "auto") -> tuple[str, ...]:
    """The corruptions that cannot be had here: frost without its photographs, or official ones without their files."""
    official = [name for name in CORRUPTIONS if dataset == "cifar10" and official_path(name).exists()]
    if source == "official":
        return tuple(name for name in CORRUPTIONS if name not in official)
    have_frost = set(photographs.checked().values()) == {"there"} or (source == "auto" and "frost" in official)
    return () if have_frost else ("frost",)


def status() -> dict[str, Any]:
    """What is there of CIFAR-10-C, as facts for a list."""
    labels = official_folder() / "labels.npy"
    return {
        "name": "cifar10-c",
        "official": {
            "folder": str(official_folder()),
            "source": OFFICIAL,
            "files": {name: _said(partial(_official_array, name), official_path(name)) for name in CORRUPTIONS},
            "labels": _said(lambda: _official_labels(_test_labels()), labels),
        },
        "frost": {
            "folder": str(photographs.frost_folder()),
            "source": photographs.SOURCE,
            "files": photographs.checked(),
        },
        "generated": {
            "folder": str(generated_path("cifar10", "", 0).parent),
            "files": sum(generated_path("cifar10", n, s).is_file() for n in CORRUPTIONS for s in SEVERITIES),
        },
        "missing": list(missing()),
    }


def prepare(images: Bytes, labels: npt.NDArray[Any], progress: Callable[[str], None]) -> None:
    """Check the official files that are there; make and keep the sets of cifar10 that they do not have.

    ``images`` and ``labels`` are all test images; ``progress`` is called with one line for each step. Raises
    RequestError where a file is not what it should be or the disk has no room.
    """
    there = [name for name in CORRUPTIONS if official_path(name).exists()]
    for name in there:
        for severity in SEVERITIES:
            _official(name, severity, labels)
    progress(
        f"{len(there)} of {len(CORRUPTIONS)} official files are in {official_folder()}" + ", checked" * bool(there)
    )
    if len(there) < len(CORRUPTIONS):
        progress(f"all are in {OFFICIAL}, to be unpacked into that folder; what is missing is generated now")
    lacking = [name for name in CORRUPTIONS if name not in there and name not in missing()]
    if "frost" in missing():
        progress(
            f"frost is left out: its five photographs are not all in {photographs.frost_folder()}; they are in "
            f"{photographs.SOURCE}"
        )
    wanted = [(name, severity) for name in lacking for severity in SEVERITIES]
    wanted = [one for one in wanted if _kept(generated_path("cifar10", *one), images, *one) is None]
    try:
        folder = generated_path("cifar10", "", 0).parent
        folder.mkdir(parents=True, exist_ok=True)
        if wanted and shutil.disk_usage(folder).free < (needed := len(wanted) * images.nbytes + (1 << 28)):
            raise RequestError(f"{folder}: {needed / 2**30:.1f} GiB must be free for {len(wanted)} corrupted test sets")
        for number, (name, severity) in enumerate(wanted, 1):
            progress(f"{number} of {len(wanted)}: {name}, severity {severity}")
            made = corrupt(images, name, severity)
            keep(generated_path("cifar10", name, severity), made, images, name, severity)
    except OSError as error:
        raise RequestError(f"{folder}: corrupted test sets cannot be kept there: {error.strerror}") from None


def official_folder() -> Path:
    """Where the official files lie or would lie."""
    return data_folder() / "CIFAR-10-C"


def official_path(name: str) -> Path:
    """Where the official file of a corruption lies or would lie."""
    return official_folder() / f"{name}.npy"


def generated_path(dataset: str, name: str, severity: int) -> Path:
    """Where the made set of a corruption lies or would lie."""
    return data_folder() / f"{dataset}-c-generated" / f"{name}-{severity}.npy"


def keep(path: Path, made: Bytes, images: Bytes, name: str, severity: int) -> None:
    """Write a made set of all test ``images``, with what tells that it is whole and of these."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.save(file, made)
        file.write(_digest(made, images, name, severity))


def _official(name: str, severity: int, labels: npt.NDArray[Any]) -> Bytes:
    count = DATASETS["cifar10"].test_images
    _official_labels(labels)
    return np.array(_official_array(name)[(severity - 1) * count : severity * count])


def _official_array(name: str) -> npt.NDArray[Any]:
    shape = (len(SEVERITIES) * DATASETS["cifar10"].test_images, IMAGE_SIZE, IMAGE_SIZE, 3)
    array = _mapped(official_path(name))
    if array.dtype != np.uint8 or array.shape != shape:
        raise RequestError(
            f"{official_path(name)} must be uint8 {list(shape)}, is {array.dtype} {list(array.shape)}; {_WAYS_OUT}"
        )
    return array


def _official_labels(labels: npt.NDArray[Any]) -> None:
    """Raise RequestError unless labels.npy says five times what the test labels are: the same images, in order."""
    path = official_folder() / "labels.npy"
    if not np.array_equal(_mapped(path), np.tile(labels, len(SEVERITIES))):
        raise RequestError(f"{path}: must hold the labels of the test images, five times over; {_WAYS_OUT}")


_WAYS_OUT = f"take it from {OFFICIAL}, or move the folder away and the images are generated"


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise RequestError(f"{path} is not an array of NumPy's: {error}; {_WAYS_OUT}") from None


def _said(check: Callable[[], object], path: Path) -> str:
    if not path.exists():
        return "missing"
    try:
        check()
    except RequestError as error:
        return str(error)
    return "there"


def _test_labels() -> npt.NDArray[Any]:
    path = archive_path("cifar10")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive["y_test"])
    except (OSError, ValueError, KeyError, EOFError):
        raise RequestError(f"not checked: there are no test labels in {path} to compare with") from None


def _kept(path: Path, images: Bytes, name: str, severity: int) -> Bytes | None:
    """What was made before of these images, if it is whole."""
    try:
        with disk.opened(path) as file:
            made = np.lib.format.read_array(file, allow_pickle=False)
            digest = file.read()
    except (OSError, ValueError, EOFError, MemoryError):
        return None
    right = made.shape == images.shape and made.dtype == np.uint8 and digest == _digest(made, images, name, severity)
    return made if right else None


def _digest(made: Bytes, images: Bytes, name: str, severity: int) -> bytes:
    key = f"{VERSION} {SEED} {name} {severity} {images.shape}"
    content = hashlib.sha256(key.encode())
    content.update(np.ascontiguousarray(images).data)
    content.update(np.ascontiguousarray(made).data)
    return content.digest()
