"""The forward and backward pass over a batch as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class CapturedPasses:
    """``passes`` over batches of the shapes and layouts of ``batch``, captured as a CUDA graph.

    ``passes`` takes the tensors of a batch, leaves a gradient in each of ``weights`` and returns what it measured. It
    must have run on such a batch before, so that nothing is compiled in here; capturing runs none of it. Raises
    RuntimeError where something in it cannot be captured, and where the memory that a graph keeps for itself would
    leave too little for passes that are not captured.
    """

    def __init__(self, passes: Callable[..., Tensor], batch: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
        self._batch = [tensor.clone() for tensor in batch]
        self._graph = torch.cuda.CUDAGraph()
        needed = _memory_of_passes(batch[0].device)
        try:
            with torch.cuda.graph(self._graph):
                self._measured = passes(*self._batch)
        except BaseException:
            if batch[0].is_cuda:  # torch leaves the stream of the capture current where ending that fails
                torch.cuda.set_stream(torch.cuda.default_stream(batch[0].device))
            raise
        if batch[0].is_cuda and torch.cuda.mem_get_info(batch[0].device)[0] < needed:
            raise RuntimeError("its memory would leave too little for other passes")
        self._gradients = [(weight, weight.grad) for weight in weights]

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """What the passes measured of a batch, until the next call; its gradients are in the weights."""
        for place, tensor in zip(self._batch, batch, strict=True):
            place.copy_(tensor)
        self._graph.replay()
        for weight, gradient in self._gradients:  # passes over a batch of another size left others there
            weight.grad = gradient
        return self._measured


def _memory_of_passes(device: torch.device) -> int:
    """Bytes that passes have needed so far beyond what stays."""
    if device.type != "cuda":
        return 0
    return torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device)
