"""What the paper publishes, each number with its place: Tables 1 to 3, and what the text states of the figures.

Cekic, Bakiskan, Madhow: Layerwise Hebbian/anti-Hebbian (HaH) Learning in Deep Networks (2022). Accuracies are fractions
0..1. The figures were published as pictures only, so there are no curves here, only statements about them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from statistics import fmean

from engine.experiment.datasets import PAPER_CORRUPTIONS
from engine.results.corruptions import WITHOUT_FROST


@dataclass(frozen=True)
class Published:
    """A number of the paper as printed, where it is printed, and what has to be said of it."""

    value: float
    place: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Statement:
    """What the text says of a figure, in our words; ``numbers``: accuracies by preset where it gives them."""

    text: str
    place: str
    numbers: tuple[tuple[str, float], ...] = ()


CLEAN, NOISY, LINF, L2 = "clean", "noise-0.1", "linf-2/255", "l2-0.25"
MEAN, MCE = "mean", "mce"
_HEADS = {
    CLEAN: "Clean",
    NOISY: "Noisy (sigma = 0.1)",
    LINF: "Adv (Linf) (eps = 2/255)",
    L2: "Adv (L2) (eps = 0.25)",
}

CORRUPTION_TITLES = {
    "gaussian_noise": "Gauss.",
    "shot_noise": "Shot",
    "speckle_noise": "Speckle",
    "impulse_noise": "Impulse",
    "snow": "Snow",
    "fog": "Fog",
    "frost": "Frost",
    "brightness": "Bright.",
    "defocus_blur": "Defocus",
    "gaussian_blur": "Gauss.",
    "motion_blur": "Motion",
    "zoom_blur": "Zoom",
    "contrast": "Contrast",
    "elastic_transform": "Elastic",
    "pixelate": "Pixelate",
    "spatter": "Spatter",
}


def _table(
    place: str, heads: dict[str, str], rows: dict[str, tuple[str, list[float]]]
) -> dict[str, dict[str, Published]]:
    """{preset: {column: number}}, each with its row and column as the paper heads them."""
    return {
        preset: {
            column: Published(value, f"{place}, row {row}, column {heads[column]}")
            for column, value in zip(heads, values, strict=True)
        }
        for preset, (row, values) in rows.items()
    }


TABLE_1 = _table(
    "Table 1",
    _HEADS,
    {
        "paper-standard": ("Standard", [0.925, 0.266, 0.104, 0.139]),
        "paper-hah": ("Ours", [0.873, 0.640, 0.215, 0.276]),
    },
)

# The paper does not say which severity; the numbers fit severity 5.
TABLE_2 = _table(
    "Table 2",
    {CLEAN: "Clean", **{name: CORRUPTION_TITLES[name] for name in PAPER_CORRUPTIONS}, MEAN: "Mean of all"},
    {
        "paper-standard": (
            "Standard",
            [0.925, 0.324, 0.400, 0.455, 0.275, 0.729, 0.645, 0.616, 0.874,
             0.455, 0.348, 0.597, 0.589, 0.230, 0.748, 0.510, 0.686, 0.530],
        ),
        "paper-adversarial": (
            "Adv(8/255)",
            [0.787, 0.742, 0.744, 0.734, 0.629, 0.623, 0.297, 0.590, 0.604,
             0.698, 0.675, 0.672, 0.720, 0.180, 0.725, 0.754, 0.715, 0.631],
        ),
        "paper-hah": (
            "HaH (Ours)",
            [0.873, 0.647, 0.639, 0.612, 0.502, 0.744, 0.633, 0.733, 0.833,
             0.659, 0.599, 0.658, 0.695, 0.763, 0.738, 0.621, 0.763, 0.677],
        ),
    },
)  # fmt: skip

TABLE_3 = _table(
    "Table 3",
    _HEADS,
    {
        "paper-hah": ("All included", [0.873, 0.640, 0.215, 0.276]),
        "no-hah-loss": ("No HaH loss", [0.897, 0.504, 0.088, 0.117]),
        "batch-norm": ("Batch norm instead of divisive norm", [0.904, 0.467, 0.123, 0.174]),
        "no-threshold": ("No thresholding", [0.899, 0.375, 0.037, 0.025]),
    },
)


def mean_beside(printed: dict[str, Published], labels: Collection[str]) -> Published | None:
    """The published mean over the corruptions that ours goes over, by what has to be said of ours."""
    if WITHOUT_FROST not in labels or MEAN not in printed:
        return printed.get(MEAN)
    mean = fmean(printed[name].value for name in PAPER_CORRUPTIONS if name != "frost")
    return Published(mean, f"{printed[MEAN].place}, without Frost: of the other 15 columns", (WITHOUT_FROST,))


STATEMENTS = {
    "figure-2": Statement(
        "activations of the first 6 blocks are sparser than the standard network's",
        "Section 3, Sparser activations, and the caption of Figure 2",
    ),
    "figure-3b": Statement(
        "the SNR exceeds the standard network's, above all in the first 6 blocks",
        "Section 3, Enhanced robustness to noise",
    ),
    "figure-4": Statement(
        "64% against 26% for the standard network at a noise standard deviation of 0.1",
        "Section 3, Enhanced robustness to noise",
        (("paper-hah", 0.64), ("paper-standard", 0.26)),
    ),
    "figure-5": Statement(
        "the average minimum norm is higher than the standard network's for p = 0, 1, 2 and infinity",
        "Section 3, Enhanced robustness to adversarial attacks, and the caption of Figure 5",
    ),
    "figure-6": Statement(
        "every further HaH block adds robustness and costs a little clean accuracy; 6 were the most that trained",
        "Section 3, Ablation, and the caption of Figure 6",
    ),
}
