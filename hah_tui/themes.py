"""Colours: four themes, what each status looks like in them, and the colours of curves.

The colour-blind-safe themes use the palette of Okabe and Ito (2008); a status is never told by its colour alone.
"""

from __future__ import annotations

import itertools

from textual.theme import Theme

_OKABE_ITO = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2", "#999999")

# Curves and blocks, the first ones the most different from each other.
SERIES: dict[str, tuple[str, ...]] = {
    "hah-dark": ("#5ec8d8", "#f2b35e", "#9ece6a", "#e07a9b", "#a78bfa", "#e8e27a", "#6f9ff0", "#c58f6b"),
    "hah-light": ("#0b7285", "#c05d00", "#3b7d1e", "#b0305c", "#6741d9", "#8a7a00", "#1c5fc4", "#7d4f2d"),
    "hah-colour-blind": _OKABE_ITO,
    "hah-colour-blind-light": ("#0072b2", "#b87400", "#00765a", "#a8487f", "#8a7f00", "#b84a00", "#2b8cc4", "#666666"),
}

THEMES = (
    Theme(
        "hah-dark", primary="#5ec8d8", secondary="#7aa2c9", accent="#f2b35e", warning="#e5b567", error="#ef6b73",
        success="#8fce7a", foreground="#d8dee9", background="#0f141b", surface="#141a23", panel="#1c2430",
        variables={"footer-key-foreground": "#f2b35e", "border-blurred": "#2c3746", "good": "#8fce7a",
                   "bad": "#ef6b73", "waiting": "#e5b567", "quiet": "#7f8b9b", "live": "#5ec8d8"},
    ),
    Theme(
        "hah-light", primary="#0b7285", secondary="#47637f", accent="#a85200", warning="#8f6200", error="#b3261e",
        success="#2f7413", foreground="#1e2530", background="#fbfaf7", surface="#f4f2ec", panel="#e8e5dc", dark=False,
        variables={"footer-key-foreground": "#a85200", "border-blurred": "#c9c4b6", "good": "#2f7413",
                   "bad": "#b3261e", "waiting": "#8f6200", "quiet": "#646c78", "live": "#0b7285"},
    ),
    Theme(
        "hah-colour-blind", primary="#56b4e9", secondary="#8fb8d6", accent="#e69f00", warning="#f0e442",
        error="#e8743b", success="#56b4e9", foreground="#e4e4e4", background="#101214", surface="#16191c",
        panel="#20252a",
        variables={"footer-key-foreground": "#e69f00", "border-blurred": "#343c44", "good": "#56b4e9",
                   "bad": "#e8743b", "waiting": "#f0e442", "quiet": "#8a9299", "live": "#2fc79b"},
    ),
    Theme(
        "hah-colour-blind-light", primary="#0072b2", secondary="#3f6a8a", accent="#9a5b00", warning="#7a6a00",
        error="#b84a00", success="#0072b2", foreground="#1b1f24", background="#fcfcfa", surface="#f3f3ef",
        panel="#e5e6e1", dark=False,
        variables={"footer-key-foreground": "#9a5b00", "border-blurred": "#c2c6c4", "good": "#0072b2",
                   "bad": "#b84a00", "waiting": "#7a6a00", "quiet": "#626a70", "live": "#00765a"},
    ),
)  # fmt: skip

# A status's mark (and the plain one), and the theme variable that colours it.
MARKS: dict[str, tuple[str, str, str]] = {
    "queued": ("○", "o", "quiet"),
    "starting": ("◔", "o", "waiting"),
    "running": ("●", "*", "live"),
    "paused": ("‖", "=", "waiting"),
    "stalled": ("~", "~", "waiting"),
    "stopping": ("◑", "-", "waiting"),
    "stopped": ("■", "#", "waiting"),
    "finished": ("✓", "+", "good"),
    "failed": ("✗", "x", "bad"),
    "lost": ("!", "!", "bad"),
    "unevaluated": ("◇", "e", "waiting"),  # of a sweep's trials
    "missing": ("·", ".", "quiet"),
}

_RAMP, _PLAIN_RAMP = " ▁▂▃▄▅▆▇█", " _.,-=+*#"


def mark(status: str, plain: bool) -> str:
    """The one-character mark of a status."""
    fancy, simple, _ = MARKS.get(status, ("?", "?", ""))
    return simple if plain else fancy


def bar(fraction: float, width: int, plain: bool) -> str:
    """A progress bar of ``width`` cells, to half a cell where the font has them."""
    halves = round(min(max(fraction, 0.0), 1.0) * width * 2)
    if plain:
        return ("#" * (halves // 2)).ljust(width, ".")
    return ("━" * (halves // 2) + "╸" * (halves % 2)).ljust(width, "┈")


def line_of(values: list[float], width: int, plain: bool) -> str:
    """Values as a line of blocks of different height, one cell a value or the mean of several; '' for none."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [index * len(values) // count for index in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    ramp = _PLAIN_RAMP if plain else _RAMP
    return "".join(ramp[1 + round((len(ramp) - 2) * (mean - low) / (high - low))] if high > low else ramp[4]
                   for mean in means)  # fmt: skip
