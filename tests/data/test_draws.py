"""Random numbers: of a purpose, and of images whatever batch they are in."""

import pytest
import torch

from engine.data.draws import Draw, ImageDraws, generator

CPU = torch.device("cpu")
IMAGES = torch.zeros(6, 3, 8, 8)


def test_generators_of_different_purposes_share_nothing():
    draws = {tuple(torch.rand(4, generator=generator(CPU, 1, purpose, 1)).tolist()) for purpose in Draw}
    assert len(draws) == len(Draw)
    assert torch.rand(1, generator=generator(CPU, 5, 1)) == torch.rand(1, generator=generator(CPU, 5, 1))


@pytest.mark.parametrize("what", ["normal", "uniform"])
def test_what_is_drawn_for_an_image_does_not_depend_on_its_batch(what):
    whole = ImageDraws(IMAGES, range(10, 16), 1, Draw.MASKING)
    first, second = getattr(whole, what)(), getattr(whole, what)()
    assert not torch.equal(first, second)
    for places in ([12], [15, 10, 13], [10, 11, 12, 13, 14, 15]):
        part = ImageDraws(IMAGES[: len(places)], places, 1, Draw.MASKING)
        rows = [place - 10 for place in places]
        assert torch.equal(getattr(part, what)(), first[rows])
        assert torch.equal(getattr(part, what)(), second[rows])
    assert len({tuple(image.flatten().tolist()) for image in first}) == 6
    assert not torch.equal(getattr(ImageDraws(IMAGES, range(10, 16), 2, Draw.MASKING), what)(), first)


def test_their_distributions():
    images = torch.zeros(2000, 3, 8, 8)
    normal, uniform = (getattr(ImageDraws(images, range(2000), 3), what)() for what in ("normal", "uniform"))
    count = images.numel()
    for values, std in ((normal, 1.0), (uniform, 3**-0.5)):
        assert abs(float(values.mean())) < 5 * std / count**0.5
        assert float(values.std()) == pytest.approx(std, rel=0.01)
        neighbours = torch.corrcoef(torch.stack([values[:-1].flatten(), values[1:].flatten()]))[0, 1]
        assert abs(float(neighbours)) < 5 / count**0.5
    assert -1 <= float(uniform.min()) < -0.99
    assert 0.99 < float(uniform.max()) < 1
    assert ImageDraws(images, range(2000), 3).uniform(1, 1, 1).shape == (2000, 1, 1, 1)


def test_groups_of_places():
    draws = ImageDraws(IMAGES, [99, 100, 5, 250, 101, 0], 1)
    assert draws.groups(100) == [(0, [0, 2, 5]), (1, [1, 4]), (2, [3])]
    assert draws.seed(0) == ImageDraws(IMAGES[:1], [7], 1).seed(0) != draws.seed(1)
