"""The mathematics of HaH networks, usable in any PyTorch program: ``from engine.nn import HaHBlock, hah_cost``."""

from engine.nn.blocks import DivisiveNorm, HaHBlock, NormalizedConv2d, StandardBlock, Threshold
from engine.nn.equations import divisive_norm, hah_cost, threshold_fraction, threshold_mean
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
