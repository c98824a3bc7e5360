"""Crop and flip of CIFAR-10: ours, one operation on a batch, against torchvision's transforms, image by image.

    python benchmarks/data.py [--batch-size 128] [--batches 40] [--rounds 5]

Images per second of what turns stored images into float batches on the device, interleaved in one process. torchvision
does what most training scripts do: a PIL image, RandomCrop(32, 4), RandomHorizontalFlip, ToTensor, in this process and
in DataLoader workers (as many as there are CPU cores).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from machine import device, report
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from engine.data import archives
from engine.data.batches import Epoch, Split, to_images


class Images(Dataset[tuple[torch.Tensor, int]]):
    """What torchvision.datasets.CIFAR10 gives, from the same archive."""

    def __init__(self, archive: archives.Images, count: int) -> None:
        self.pixels, self.labels = archive.x_train[:count], archive.y_train[:count]
        self.transform = transforms.Compose(
            [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    where, size, count = device(), arguments.batch_size, arguments.batches * arguments.batch_size
    archive = archives.load("cifar10")
    split = Split.of(archive.x_train, archive.y_train, where).first(count)
    images, workers = Images(archive, count), os.cpu_count() or 1

    def ours() -> None:
        epoch = Epoch(split, size, "crop-flip", 0, 1)
        for index in range(len(epoch)):
            to_images(epoch.batch(index)[0])

    def torchvision(workers: int) -> Callable[[], None]:
        def load() -> None:
            for batch, _ in DataLoader(images, size, shuffle=True, num_workers=workers):
                batch.to(where)

        return load

    kinds = {"ours": ours, "torchvision": torchvision(0), f"torchvision, {workers} workers": torchvision(workers)}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    ours()
    for _ in range(max(5, arguments.rounds)):
        for kind, load in kinds.items():
            began = time.perf_counter()
            load()
            if where.type == "cuda":
                torch.cuda.synchronize()
            times[kind].append(time.perf_counter() - began)
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    for kind, value in medians.items():
        print(f"{kind:<24} {count / value:10.0f} images/s  {value / medians['ours']:6.1f} x ours")
    report(
        "data",
        {
            "device": where.type,
            "batch_size": size,
            "images": count,
            "images_per_second": {kind: count / value for kind, value in medians.items()},
            "ratio_to_ours": {kind: value / medians["ours"] for kind, value in medians.items()},
        },
    )


if __name__ == "__main__":
    main()
