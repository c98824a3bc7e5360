"""The mathematics of HaH networks, usable in any PyTorch program: ``from engine.nn import HaHBlock, hah_cost``."""

from engine.nn.cost import hah_cost
from engine.nn.layers import (
    DivisiveNorm,
    HaHBlock,
    NormalizedConv2d,
    StandardBlock,
    Threshold,
    divisive_norm,
    threshold_fraction,
    threshold_mean,
)
from engine.nn.vgg import VGG

__all__ = [
    "VGG",
    "DivisiveNorm",
    "HaHBlock",
    "NormalizedConv2d",
    "StandardBlock",
    "Threshold",
    "divisive_norm",
    "hah_cost",
    "threshold_fraction",
    "threshold_mean",
]
