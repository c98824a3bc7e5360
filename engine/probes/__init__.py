"""Looking into the blocks of a network without disturbing it: sparsity, SNR, activity, HaH cost."""

from engine.probes.measures import hoyer, snr_ratio
from engine.probes.observation import observe

__all__ = ["hoyer", "observe", "snr_ratio"]
