"""Batches: an order, crops and flips that are functions of the seed, and exactly the images they should be."""

import numpy as np
import pytest
import torch

from engine.data.batches import Epoch, Split, crop_flip, split_off, to_images

CPU = torch.device("cpu")


def split(count=20, size=8):
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Split.of(pixels, np.arange(count), CPU), pixels


def test_an_epoch_shows_every_image_once_and_keeps_the_last_partial_batch():
    data, _ = split()
    epoch = Epoch(data, 8, "none", seed=1, epoch=1)
    batches = [epoch.batch(i) for i in range(len(epoch))]
    assert [len(labels) for _, labels in batches] == [8, 8, 4]
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(20))
    for pixels, labels in batches:
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels, data.pixels[labels])


def test_order_and_crops_follow_from_seed_and_epoch_alone():
    data, _ = split()

    def shown(seed, epoch):
        torch.rand(3)  # whatever the global generator does
        made = Epoch(data, 8, "crop-flip", seed, epoch)
        return torch.cat([made.batch(i)[0] for i in range(len(made))])

    assert torch.equal(shown(1, 1), shown(1, 1))
    assert not torch.equal(shown(1, 1), shown(1, 2))
    assert not torch.equal(shown(1, 1), shown(2, 1))
    late = Epoch(data, 8, "crop-flip", 1, 1).batch(2)[0]  # a resumed engine asks for batch 2 first
    assert torch.equal(late, shown(1, 1)[16:])


def test_crop_flip_is_the_padded_crop_of_each_image():
    data, pixels = split(count=50)
    draw = torch.Generator().manual_seed(0)
    down, right = torch.randint(0, 9, (2, 50), generator=draw)
    flip = torch.randint(0, 2, (50,), generator=draw).bool()
    made = crop_flip(data.pixels, down, right, flip).permute(0, 2, 3, 1).numpy()
    for i in range(50):
        padded = np.pad(pixels[i], ((4, 4), (4, 4), (0, 0)))
        cropped = padded[down[i] : down[i] + 8, right[i] : right[i] + 8]
        np.testing.assert_array_equal(made[i], cropped[:, ::-1] if flip[i] else cropped)


def test_crops_and_flips_are_uniform():
    data = Split(torch.zeros(9000, 3, 2, 2, dtype=torch.uint8), torch.zeros(9000, dtype=torch.long))
    epoch = Epoch(data, 128, "crop-flip", 3, 1)
    counts = torch.bincount(epoch._shifts.flatten(), minlength=9)
    assert len(counts) == 9
    assert (counts - 2000).abs().max() < 6 * 2000**0.5
    assert abs(int(epoch._flips.sum()) - 4500) < 6 * 2250**0.5


def test_images_are_in_0_to_1():
    assert torch.equal(to_images(torch.tensor([0, 51, 255], dtype=torch.uint8)), torch.tensor([0.0, 0.2, 1.0]))


def test_the_validation_split_takes_images_away_by_the_seed():
    data, _ = split()
    rest, off = split_off(data, 5, seed=7)
    assert (len(rest), len(off)) == (15, 5)
    assert sorted(rest.labels.tolist() + off.labels.tolist()) == list(range(20))
    assert torch.equal(split_off(data, 5, seed=7)[1].labels, off.labels)
    assert not torch.equal(split_off(data, 5, seed=8)[1].labels, off.labels)
    assert len(split_off(data, 0, seed=7)[0]) == 20


@pytest.mark.parametrize("count", [None, 3, 100])
def test_the_first_images(count):
    data, _ = split()
    assert data.first(count).labels.tolist() == list(range(20))[:count]
    assert sum(len(labels) for _, labels in data.first(count).batches(7)) == len(data.first(count))
