"""The five photographs of frost: where they lie, whether they are the right ones, and their pixels.

They are part of github.com/hendrycks/robustness (Apache-2.0), ImageNet-C/create_c, and not of this project.
"""

from __future__ import annotations

import hashlib
import io
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.experiment.datasets import data_folder
from engine.experiment.mistakes import RequestError

SOURCE = "https://github.com/hendrycks/robustness, ImageNet-C/create_c"
SHA256 = {  # in the order of the original's draw
    "frost1.png": "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755",
    "frost2.png": "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137",
    "frost3.png": "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504",
    "frost4.jpg": "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e",
    "frost5.jpg": "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2",
}


def frost_folder() -> Path:
    """Where the photographs lie or would lie."""
    return data_folder() / "frost"


def checked() -> dict[str, str]:
    """Of each photograph: "there", "missing", or what is wrong with it."""
    found = {}
    for name, expected in SHA256.items():
        try:
            actual = hashlib.sha256((frost_folder() / name).read_bytes()).hexdigest()
            found[name] = "there" if actual == expected else "another file: its SHA-256 is not the photograph's"
        except FileNotFoundError:
            found[name] = "missing"
        except OSError as error:
            found[name] = f"cannot be read: {error.strerror}"
    return found


@cache
def photographs(folder: Path) -> tuple[npt.NDArray[np.uint8], ...]:
    """Every fifth pixel of each, [height / 5, width / 5, 3]: what OpenCV's resize by 0.2 comes to, from the third on.

    Raises RequestError where one is missing or another.
    """
    pictures = []
    for name, expected in SHA256.items():
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise RequestError(f"frost needs five photographs: {folder / name}: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != expected:
            raise RequestError(f"frost needs five photographs: {folder / name} is another file than that of {SOURCE}")
        pictures.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))[2::5, 2::5])
    return tuple(pictures)
