"""TensorBoard event files beside the record, written by a thread of their own so that training never waits for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from engine.experiment import Experiment
from engine.experiment.fields import flatten
from engine.runs.metrics import CLEAN, LOSS, NOISY, PANELS, drawn_in

LAYOUT = {
    "Blocks" if blocks else "Training": {
        panel.title: ["Multiline", [metric.name.replace("*", r"\d+") for metric in drawn_in(panel.key)]]
        for panel in PANELS
        if panel.blocks == blocks
    }
    for blocks in (False, True)
}


class TensorBoard:
    """What the record says, as event files. A file system that stalls holds up this thread only.

    With the ``experiment`` of a training its settings become hyperparameters, and its charts are laid out.
    """

    def __init__(self, folder: Path, experiment: Experiment | None, first_step: int) -> None:
        self._queue: queue.SimpleQueue[Callable[[SummaryWriter], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, args=(folder, first_step), daemon=True)
        self._thread.start()
        if experiment is not None:
            self._queue.put(lambda writer: writer.add_custom_scalars(LAYOUT))
            self._queue.put(lambda writer: _add_hparams(writer, experiment))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point of each metric."""
        copied = dict(values)

        def write(writer: SummaryWriter) -> None:
            for name, value in copied.items():
                writer.add_scalar(name, value, step)

        self._queue.put(write)

    def pictures(self, step: int, weights: Sequence[torch.Tensor]) -> None:
        """A histogram of every block's weights, and the first block's filters as one image."""
        copied = [weight.detach().float().cpu().clone() for weight in weights]
        filters = filter_image(copied[0])

        def write(writer: SummaryWriter) -> None:
            for number, weight in enumerate(copied, 1):
                writer.add_histogram(f"block/{number}/weight", weight, step)
            writer.add_image("block/1/filters", filters, step)

        self._queue.put(write)

    def close(self, patience: float = 20) -> None:
        """Write what is left, for at most ``patience`` seconds."""
        self._queue.put(None)
        self._thread.join(patience)

    def _write(self, folder: Path, first_step: int) -> None:
        writer: SummaryWriter | None = None
        while (job := self._queue.get()) is not None:
            try:
                if writer is None:
                    writer = SummaryWriter(str(folder), purge_step=first_step or None, flush_secs=10)
                job(writer)
            except OSError:
                continue  # a full disk: the record itself says so
        if writer is not None:
            writer.close()


def filter_image(weight: torch.Tensor) -> torch.Tensor:
    """Filters [N, 3, h, w] as one picture [3, H, W] in [0, 1]: a grid, each in its own range, enlarged 8 times."""
    low, high = weight.amin((1, 2, 3), keepdim=True), weight.amax((1, 2, 3), keepdim=True)
    tiles = (weight - low) / (high - low).clamp_min(1e-12)
    tiles = torch.nn.functional.pad(tiles.repeat_interleave(8, 2).repeat_interleave(8, 3), (1, 1, 1, 1), value=1.0)
    columns = max(1, round(len(tiles) ** 0.5))
    rows = -(-len(tiles) // columns)
    grid = torch.ones(rows * columns, *tiles.shape[1:])
    grid[: len(tiles)] = tiles
    _, channels, height, width = grid.shape
    return (
        grid.view(rows, columns, channels, height, width)
        .permute(2, 0, 3, 1, 4)
        .reshape(channels, rows * height, columns * width)
    )


def _add_hparams(writer: SummaryWriter, experiment: Experiment) -> None:
    """The settings as hyperparameters of this very run (SummaryWriter.add_hparams would open another beside it)."""
    flat: dict[str, Any] = {}
    for name, value in flatten(experiment.dump()).items():
        if name != "description":
            flat[name] = value if isinstance(value, bool | int | float | str) else str(value)
    metrics = dict.fromkeys((CLEAN, NOISY, LOSS), 0.0)
    file_writer: Any = writer._get_file_writer()
    for summary in hparams(flat, metrics):
        file_writer.add_summary(summary)
