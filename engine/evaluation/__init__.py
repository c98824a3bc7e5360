"""What a trained network withstands: noise, corruptions, attacks, and whether its gradients can be trusted.

Everything here takes any PyTorch classifier over images in [0, 1] (normalization inside the model); `suites` and `job`
put it together for `hah eval`. Names are loaded when they are used: corruptions need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.evaluation.activations import noisy, sparsity, under_noise
    from engine.evaluation.attacks import attack, robust
    from engine.evaluation.corruptions import corrupt, corrupted
    from engine.evaluation.masking import judge, probe
    from engine.evaluation.search import minimum_norm

__all__ = [
    "attack",
    "corrupt",
    "corrupted",
    "judge",
    "minimum_norm",
    "noisy",
    "probe",
    "robust",
    "sparsity",
    "under_noise",
]

_HOMES = {
    "attacks": ("attack", "robust"),
    "corruptions": ("corrupt", "corrupted"),
    "activations": ("noisy", "sparsity", "under_noise"),
    "masking": ("judge", "probe"),
    "search": ("minimum_norm",),
}

if not TYPE_CHECKING:  # to a type checker a name that is not above is a mistake

    def __getattr__(name):
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"engine.evaluation.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
