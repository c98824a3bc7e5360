"""Corruptions: against the slow reference, frozen, alike in any batch; official files, the cache, what is missing."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.evaluation import corruptions, distortions, photographs
from engine.experiment import RequestError
from engine.experiment.datasets import CORRUPTIONS
from tests.evaluation import slow_corruptions

PHOTOGRAPHS = Path(__file__).parents[3] / "shared/data/frost"
FROZEN = Path(__file__).with_name("frozen_corruptions.json")
EVERY = [(name, severity) for name in CORRUPTIONS for severity in range(1, 6)]
LABELS = np.arange(10_000, dtype=np.uint8) % 10


def test_images(count):
    """Pictures made of whole numbers only, so they are the same everywhere: black, white, then shapes on slopes."""
    y, x = np.mgrid[:32, :32]
    made = np.zeros((count, 32, 32, 3), np.uint8)
    for index, image in enumerate(made):
        slope = (x * (index % 7) + y * (index % 5) + 13 * index)[..., None] * [1, 2, 1]
        inside = (x - 8 - index % 13) ** 2 + (y - 12 - index % 7) ** 2 < 30 + 9 * index
        image[:] = np.where(inside[..., None], [255 - 9 * index, 12 * index, 128], slope % 256)
        image[:4, :4] = 255
    made[:1] = 0
    made[1:2] = 255
    return made


test_images.__test__ = False


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder of this test, with the photographs of frost where there are any."""
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("HAH_DATA", str(data))
    if PHOTOGRAPHS.is_dir():
        shutil.copytree(PHOTOGRAPHS, data / "frost")
    return data


def need_frost(name):
    if name == "frost" and not PHOTOGRAPHS.is_dir():
        pytest.skip("the photographs of frost are not beside the checkout")


def slow(images, name, severity, first):
    draws = distortions.uniform(
        f"{distortions.SEED} {name} {severity}", first, len(images), distortions._METHODS[name][1]
    )
    more = ()
    if name == "frost":
        more = ([np.asarray(Image.open(PHOTOGRAPHS / file).convert("RGB")) for file in photographs.SHA256],)
    method = getattr(slow_corruptions, name)
    return np.stack([method(image, severity, u, *more) for image, u in zip(images, draws, strict=True)])


@pytest.mark.parametrize(("name", "severity"), EVERY)
def test_every_corruption_is_what_the_slow_reference_makes(folder, name, severity):
    """To one grey level, where truncation meets a tie that two orders of adding round apart; most to the bit."""
    need_frost(name)
    images = test_images(7)[[0, 1, 3, 6]]
    made = corruptions.corrupt(images, name, severity, first=40)
    expected = slow(images, name, severity, 40)
    apart = abs(made.astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() < (0.03 if name in ("brightness", "saturate") else 0.001)
    change, wanted = (abs(x / 255 - images / 255).mean() for x in (made, expected))
    assert change == pytest.approx(wanted, rel=0.02)
    assert change > 0


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_frozen_and_the_same_in_any_batch(folder, name):
    """Bytes do not depend on the batch or on the versions at hand.

    Whole numbers throughout: impulse_noise, pixelate, jpeg_compression (libjpeg-turbo's integer DCT), the rims, relief
    and glass of the others. Draws are Philox words over 2**53. What is float64 goes through IEEE arithmetic, exp and
    the inverse distribution functions, then is truncated with a margin for rounding, so a last bit does not matter.
    """
    need_frost(name)
    images, frozen = test_images(20), json.loads(FROZEN.read_text())
    assert frozen["version"] == distortions.VERSION, "the bytes have changed: freeze them again (see freeze)"
    for severity in range(1, 6):
        whole = corruptions.corrupt(images, name, severity)
        for size in (1, 7):
            parts = [
                corruptions.corrupt(images[start : start + size], name, severity, first=start)
                for start in range(0, 20, size)
            ]
            assert np.array_equal(np.concatenate(parts), whole), (severity, size)
        assert hashlib.sha256(whole.tobytes()).hexdigest() == frozen["sha256"][f"{name}-{severity}"], severity


def freeze():
    """Write what is frozen: HAH_DATA=... python -m tests.evaluation.test_corruptions."""
    images = test_images(20)
    sha256 = {
        f"{name}-{severity}": hashlib.sha256(corruptions.corrupt(images, name, severity).tobytes()).hexdigest()
        for name, severity in EVERY
    }
    FROZEN.write_text(json.dumps({"version": distortions.VERSION, "sha256": sha256}, indent=1) + "\n")


def test_chunks_of_a_large_batch_are_no_batches(monkeypatch):
    images = test_images(20)
    whole = corruptions.corrupt(images, "elastic_transform", 3)
    monkeypatch.setattr(distortions, "CHUNK", 3)
    assert np.array_equal(corruptions.corrupt(images, "elastic_transform", 3), whole)


@pytest.mark.parametrize("name", [n for n in CORRUPTIONS if distortions._METHODS[n][1] and n != "frost"])
def test_another_seed_image_or_severity_draws_otherwise(name):
    image = test_images(6)[5:]
    made = corruptions.corrupt(image, name, 2)
    assert not np.array_equal(corruptions.corrupt(image, name, 2, seed=1), made)
    assert not np.array_equal(corruptions.corrupt(image, name, 2, first=1), made)
    draws = [distortions.uniform(f"0 {name} {severity}", 0, 1, 8) for severity in (1, 2)]
    assert not np.array_equal(*draws)


def test_noise_has_the_published_moments():
    grey = np.full((100, 32, 32, 3), 128, np.uint8)
    level = 128 / 255
    for name, severity, std in (
        ("gaussian_noise", 5, 0.1), ("speckle_noise", 3, 0.12 * level), ("shot_noise", 1, (level / 500) ** 0.5),
    ):  # fmt: skip
        made = (corruptions.corrupt(grey, name, severity).astype(float) + 0.5) / 255  # truncation takes half a level
        assert made.mean() == pytest.approx(level, abs=3e-3)
        assert made.std() == pytest.approx(std, rel=0.02)
    made = corruptions.corrupt(grey, "impulse_noise", 5)
    assert (made == 0).mean() == pytest.approx(0.035, abs=0.002)
    assert (made == 255).mean() == pytest.approx(0.035, abs=0.002)


@pytest.mark.parametrize(
    ("images", "name", "severity", "words"),
    [
        (np.zeros((1, 32, 32, 3), np.uint8), "rain", 1, "no corruption 'rain'"),
        (np.zeros((1, 32, 32, 3), np.uint8), "fog", 6, "severity 6 of fog"),
        (np.zeros((1, 32, 32, 3)), "fog", 1, "are float64"),
        (np.zeros((1, 3, 32, 32), np.uint8), "fog", 1, r"\[1, 3, 32, 32\]"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(images, name, severity, words):
    with pytest.raises(RequestError, match=words):
        corruptions.corrupt(images, name, severity)


def test_frost_without_its_photographs(folder):
    if PHOTOGRAPHS.is_dir():
        assert corruptions.missing() == ()
        (folder / "frost/frost4.jpg").unlink()
        (folder / "frost/frost5.jpg").write_bytes(b"another picture")
        facts = corruptions.status()["frost"]["files"]
        assert facts["frost1.png"] == "there"
        assert facts["frost4.jpg"] == "missing"
        assert "another file" in facts["frost5.jpg"]
    assert corruptions.missing() == ("frost",)
    with pytest.raises(RequestError, match="frost needs five photographs"):
        corruptions.corrupt(test_images(1), "frost", 1)


def official(folder, name="fog", shape=(50_000, 32, 32, 3), dtype=np.uint8, labels=None):
    """An official file that takes no room: a hole on the disk, with the severity at the start of each part."""
    (folder / "CIFAR-10-C").mkdir(exist_ok=True)
    array = np.lib.format.open_memmap(folder / f"CIFAR-10-C/{name}.npy", "w+", dtype, shape)
    for severity in range(1, 6):
        array[(severity - 1) * 10_000 :][:1] = severity
    array.flush()
    np.save(folder / "CIFAR-10-C/labels.npy", np.tile(LABELS, 5) if labels is None else labels)


def test_official_files_are_read_by_severity(folder):
    official(folder)
    images = np.zeros((10_000, 32, 32, 3), np.uint8)
    for severity in (1, 5):
        read, source = corruptions.corrupted("fog", severity, images, LABELS)
        assert source == "official"
        assert read.shape == images.shape
        assert read.dtype == np.uint8
        assert (read[0] == severity).all()
        assert not read[1:].any()
    assert len(corruptions.corrupted("fog", 2, images, LABELS, count=7)[0]) == 7
    made, source = corruptions.corrupted("fog", 5, images, LABELS, source="generated", count=3)
    assert source == "generated"
    assert np.array_equal(made, corruptions.corrupt(images[:3], "fog", 5))
    with pytest.raises(RequestError, match=r"no official snow of cifar10: .*Zenodo record 2535967"):
        corruptions.corrupted("snow", 1, images, LABELS, source="official")
    with pytest.raises(RequestError, match="not of digits"):
        corruptions.corrupted("fog", 1, images, LABELS, "digits", source="official")
    assert set(corruptions.missing(source="official")) == set(CORRUPTIONS) - {"fog"}
    official(folder, "frost")
    shutil.rmtree(folder / "frost", ignore_errors=True)
    assert corruptions.missing() == ()
    assert corruptions.missing("digits") == ("frost",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": (10_000, 32, 32, 3)}, r"must be uint8 \[50000, 32, 32, 3\], is uint8 \[10000, 32, 32, 3\]"),
        ({"dtype": np.int8}, "is int8"),
        ({"labels": np.tile(LABELS[::-1], 5)}, "must hold the labels of the test images"),
        ({"labels": np.array([{}], object)}, "is not an array of NumPy's"),
    ],
)
def test_official_files_of_something_else_are_refused(folder, changes, words):
    official(folder, **changes)
    with pytest.raises(RequestError, match=words) as caught:
        corruptions.corrupted("fog", 1, np.zeros((10_000, 32, 32, 3), np.uint8), LABELS)
    assert "10.5281/zenodo.2535967" in str(caught.value)


def test_a_truncated_official_file_is_refused_and_said(folder):
    official(folder)
    with (folder / "CIFAR-10-C/fog.npy").open("r+b") as file:
        file.truncate(1 << 20)
    with pytest.raises(RequestError, match=r"fog\.npy is not an array"):
        corruptions.corrupted("fog", 1, np.zeros((10_000, 32, 32, 3), np.uint8), LABELS)
    facts = corruptions.status()
    assert "is not an array" in facts["official"]["files"]["fog"]
    assert facts["official"]["files"]["snow"] == "missing"
    assert "not checked" in facts["official"]["labels"]  # there is no cifar10.npz here
    assert "2535967" in facts["official"]["source"]


def spoil(path, how):
    data = bytearray(path.read_bytes())
    if how == "truncated":
        del data[-1000:]
    elif how == "emptied":
        data.clear()
    elif how == "one bit":
        data[500] ^= 1
    elif how == "without its hash":
        del data[-32:]
    path.write_bytes(data)
    if how == "an archive":
        with path.open("wb") as file:
            np.savez(file, made=np.zeros(3))


def test_a_made_set_is_kept_and_made_anew_when_it_is_not_right(folder, monkeypatch):
    images = test_images(12)
    arguments = ("fog", 2, images, LABELS[:12], "digits")
    expected = corruptions.corrupt(images, "fog", 2)
    assert len(corruptions.corrupted(*arguments, count=5)[0]) == 5
    path = folder / "digits-c-generated/fog-2.npy"
    assert not path.exists(), "a part is not kept"
    made, source = corruptions.corrupted(*arguments)
    assert source == "generated"
    assert np.array_equal(made, expected)
    assert [file.name for file in path.parent.iterdir()] == ["fog-2.npy"]
    calls = []

    def counted(*more, **named):
        calls.append(more)
        return distortions.corrupt(*more, **named)

    monkeypatch.setattr(corruptions, "corrupt", counted)
    assert np.array_equal(corruptions.corrupted(*arguments)[0], expected)
    assert np.array_equal(corruptions.corrupted(*arguments, count=5)[0], expected[:5])
    assert not calls
    for how in ("truncated", "emptied", "one bit", "without its hash", "an archive"):
        spoil(path, how)
        assert np.array_equal(corruptions.corrupted(*arguments)[0], expected), how
        assert len(calls) == 1, how
        corruptions.corrupted(*arguments)
        assert len(calls) == 1, "and is right again"
        calls.clear()
    other = images.copy()
    other[3, 0, 0, 0] ^= 1
    corruptions.corrupted("fog", 2, other, LABELS[:12], "digits")
    assert len(calls) == 1, "of other images"
    corruptions.corrupted(*arguments)
    monkeypatch.setattr(corruptions, "VERSION", distortions.VERSION + 1)
    corruptions.corrupted(*arguments)
    assert len(calls) == 3, "of an older generator"
    before = path.read_bytes()
    assert not np.array_equal(corruptions.corrupted(*arguments, seed=5)[0], expected)
    assert path.read_bytes() == before


def test_a_disk_that_cannot_be_written_costs_nothing_but_time(folder):
    (folder / "digits-c-generated").write_text("no folder")
    images = test_images(3)
    made, _ = corruptions.corrupted("fog", 1, images, LABELS[:3], "digits")
    assert np.array_equal(made, corruptions.corrupt(images, "fog", 1))
    (folder / "cifar10-c-generated").write_text("no folder")
    with pytest.raises(RequestError, match="cannot be kept there"):
        corruptions.prepare(images, LABELS[:3], lambda line: None)


def test_prepare_makes_what_is_missing_and_says_where_the_rest_is(folder):
    shutil.rmtree(folder / "frost", ignore_errors=True)
    official(folder)
    images, said = test_images(4), []
    with pytest.raises(RequestError, match="must hold the labels"):
        corruptions.prepare(images, LABELS[:4], said.append)
    shutil.rmtree(folder / "CIFAR-10-C")
    corruptions.prepare(images, LABELS[:4], said.append)
    assert sum("severity" in line for line in said) == 18 * 5
    assert any("10.5281/zenodo.2535967" in line for line in said)
    assert any("frost is left out" in line and "hendrycks" in line for line in said)
    assert corruptions.status()["generated"]["files"] == 18 * 5
    assert corruptions.status()["missing"] == ["frost"]
    said.clear()
    corruptions.prepare(images, LABELS[:4], said.append)
    assert not any("severity" in line for line in said)


def test_corruptions_bring_no_torch():
    """The modules themselves; the package beside them offers what needs torch too."""
    code = (
        "import sys, types, engine\n"
        "package = sys.modules['engine.evaluation'] = types.ModuleType('engine.evaluation')\n"
        "package.__path__ = [engine.__path__[0] + '/evaluation']\n"
        "import engine.evaluation.corruptions\n"
        "print([name for name in ('torch', 'sklearn', 'engine.evaluation.attacks') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_data_status_and_prepare_say_what_is_there(hah, folder):
    facts = json.loads(hah("data", "status", "--json").stdout)["corruptions"]
    assert facts["official"]["files"] == dict.fromkeys(CORRUPTIONS, "missing")
    said = hah("data", "status").stdout
    assert "cifar10-c" in said
    assert "10.5281/zenodo.2535967" in said
    refused = hah("data", "prepare", "cifar10-c", check=False)
    assert refused.returncode == 2
    assert "hah data prepare cifar10" in refused.stderr


if __name__ == "__main__":
    freeze()
