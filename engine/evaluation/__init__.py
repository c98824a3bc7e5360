"""What a trained network withstands: noise, corruptions, attacks, and whether its gradients can be trusted.

Everything here takes any PyTorch classifier over images in [0, 1] (normalization inside the model); `suites` and `job`
put it together for `hah eval`.
"""

from engine.evaluation.attacks import attack, robust
from engine.evaluation.corruptions import corrupt, corrupted, mean_corruption_error
from engine.evaluation.looking import noisy, sparsity, under_noise
from engine.evaluation.masking import judge, probe
from engine.evaluation.minimum_norm import minimum_norm

__all__ = [
    "attack",
    "corrupt",
    "corrupted",
    "judge",
    "mean_corruption_error",
    "minimum_norm",
    "noisy",
    "probe",
    "robust",
    "sparsity",
    "under_noise",
]
