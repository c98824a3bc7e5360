"""Archives of images: read, checked, downloaded by torchvision's own code, refused with the ways out."""

import functools
import hashlib
import http.server
import io
import json
import pickle
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest

from engine.data import archives
from engine.experiment import RequestError
from engine.experiment.datasets import DATASETS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HAH_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def arrays(name="cifar10", **changes):
    dataset = DATASETS[name]
    made = {
        "x_train": np.zeros((dataset.train_images, 32, 32, 3), np.uint8),
        "y_train": np.arange(dataset.train_images, dtype=np.uint8) % dataset.num_classes,
        "x_test": np.zeros((dataset.test_images, 32, 32, 3), np.uint8),
        "y_test": np.arange(dataset.test_images, dtype=np.uint8) % dataset.num_classes,
    }
    return {**made, **changes}


def test_digits_are_scikit_learns_split_by_class():
    digits = archives.load("digits")
    dataset = DATASETS["digits"]
    assert digits.x_train.shape == (dataset.train_images, 32, 32, 3)
    assert digits.x_test.shape == (dataset.test_images, 32, 32, 3)
    assert dataset.train_images + dataset.test_images == 1797
    assert np.bincount(digits.y_test).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    assert digits.x_train.max() == 255
    assert (digits.x_train[..., 0] == digits.x_train[..., 2]).all()
    assert (digits.x_train[:, ::4, ::4] == digits.x_train[:, 3::4, 3::4]).all()
    scaled = digits.x_train / 255
    assert scaled.mean() == pytest.approx(dataset.mean[0], abs=5e-5)
    assert scaled.std() == pytest.approx(dataset.std[0], abs=5e-5)


def test_digits_are_to_the_bit_what_scikit_learn_has():
    """The 8x8 images in the package, and what is made of them, against the library that they were taken from."""
    from sklearn.datasets import load_digits

    digits, ours = load_digits(), archives.load("digits")
    with np.load(archives._DIGITS) as kept:
        assert np.array_equal(kept["images"], digits.images)
        assert np.array_equal(kept["labels"], digits.target)
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # as it was made before there was a copy
    for test, images, labels in ((False, ours.x_train, ours.y_train), (True, ours.x_test, ours.y_test)):
        seen, places = [0] * 10, []
        for place, label in enumerate(digits.target):
            seen[label] += 1
            if (seen[label] % 5 == 0) == test:
                places.append(place)
        assert np.array_equal(labels, digits.target[places])
        assert np.array_equal(images[:, ::4, ::4, 1], grey[places])
    assert ours.source == "scikit-learn"


def test_digits_are_the_same_every_time():
    assert archives.load("digits").fingerprint == archives.load("digits").fingerprint
    assert archives.load("digits").fingerprint.startswith("6df1632b03b0a567")


def test_an_archive_put_there_by_hand_is_used_with_its_checksum(folder):
    np.savez(folder / "cifar10.npz", **arrays())
    images = archives.load("cifar10")
    assert images.fingerprint == hashlib.sha256((folder / "cifar10.npz").read_bytes()).hexdigest()
    assert images.source == str(folder / "cifar10.npz")


def test_without_an_archive_the_three_ways_out_are_said(folder):
    for function in (archives.load, archives.require):
        with pytest.raises(RequestError) as caught:
            function("cifar100")
        said = str(caught.value)
        assert "hah data prepare cifar100" in said
        assert str(folder) in said
        assert "HAH_DATA" in said
        assert "quickstart" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"x_test": np.zeros((10, 32, 32, 3), np.uint8)},
            "x_test must be uint8 [10000, 32, 32, 3], is uint8 [10, 32, 32, 3]",
        ),
        ({"x_train": np.zeros((50000, 32, 32, 3), np.float16)}, "x_train must be uint8"),
        ({"y_test": np.full(10000, 10)}, "y_test must be 10000 whole numbers below 10"),
        ({"y_test": np.full(10000, -1)}, "y_test must be 10000 whole numbers below 10"),
        ({"y_test": np.zeros(10000)}, "y_test must be"),
        (
            {"y_train": np.zeros((50000, 1), np.uint8)},
            "below 10, is uint8 [50000, 1]",
        ),
        (
            {"x_test": np.zeros((10000, 3, 32, 32), np.uint8)},
            "is uint8 [10000, 3, 32, 32]",
        ),
    ],
)
def test_an_archive_of_something_else_is_refused(folder, changes, words):
    np.savez(folder / "cifar10.npz", **arrays(**changes))
    for function in (archives.load, archives.require):
        with pytest.raises(RequestError) as caught:
            function("cifar10")
        assert words in str(caught.value)


def test_every_command_says_what_is_wrong_with_an_archive_before_there_is_a_run(folder, runs, here):
    words = "y_train must be 50000 whole numbers below 10, is uint8 [50000, 1]"
    np.savez(folder / "cifar10.npz", **arrays(y_train=np.zeros((50000, 1), np.uint8)))
    for command in (["run", "paper-hah"], ["data", "prepare", "cifar10"]):
        done = here(*command, check=False)
        assert done.returncode == 2
        assert words in done.stderr
    assert not runs.exists()
    assert words in json.loads(here("doctor", "--json").stdout)["problems"][0]
    assert words in here("data", "status").stderr


def test_an_archive_is_never_unpickled(folder):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the archive was executed",))

    bomb = np.empty(10000, object)
    bomb[0] = Bomb()
    np.savez(folder / "cifar10.npz", **{**arrays(), "y_test": bomb})
    with pytest.raises(RequestError, match="y_test must be 10000 whole numbers below 10, is object"):
        archives.load("cifar10")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"no archive at all"])
def test_a_broken_archive_is_said(folder, content):
    (folder / "cifar10.npz").write_bytes(content)
    with pytest.raises(RequestError, match="is not an archive of images"):
        archives.load("cifar10")


def test_prepare_downloads_checks_and_keeps_one_archive(folder, tmp_path, monkeypatch):
    """torchvision's downloader against a server of this test: a tiny CIFAR-10 with checksums of its own."""
    datasets = pytest.importorskip("torchvision.datasets")
    kind = datasets.CIFAR10
    names = [name for name, _ in (*kind.train_list, *kind.test_list)]
    rows = np.random.default_rng(0).integers(0, 256, (len(names), 4, 3072), dtype=np.uint8)
    parts = {name: pickle.dumps({"data": rows[i], "labels": [i % 10] * 4}) for i, name in enumerate(names)}
    parts["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    served = tmp_path / "served"
    served.mkdir()
    with tarfile.open(served / kind.filename, "w:gz") as archive:
        for name, data in parts.items():
            info = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    def md5(data):
        return hashlib.md5(data).hexdigest()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setattr(kind, "url", f"http://127.0.0.1:{server.server_port}/{kind.filename}")
        monkeypatch.setattr(kind, "tgz_md5", md5((served / kind.filename).read_bytes()))
        monkeypatch.setattr(kind, "train_list", [[name, md5(parts[name])] for name in names[:-1]])
        monkeypatch.setattr(kind, "test_list", [[names[-1], md5(parts[names[-1]])]])
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(parts["batches.meta"])})
        path = archives.prepare("cifar10")
        with np.load(path) as made:
            assert made["x_train"].shape == (20, 32, 32, 3)
            assert made["y_train"].dtype == np.uint8
            expected = rows[0, 0].reshape(3, 32, 32).transpose(1, 2, 0)
            assert (made["x_train"][0] == expected).all()
        assert [entry.name for entry in folder.iterdir()] == ["cifar10.npz"]
        path.unlink()
        monkeypatch.setattr(kind, "tgz_md5", "0" * 32)
        with pytest.raises(RequestError, match="could not be downloaded"):
            archives.prepare("cifar10")
    finally:
        server.shutdown()
        server.server_close()
    monkeypatch.setattr(kind, "url", "http://127.0.0.1:9/nothing")
    with pytest.raises(RequestError) as caught:
        archives.prepare("cifar10")
    assert "HAH_DATA" in str(caught.value)
    assert "quickstart" in str(caught.value)
    assert list(folder.iterdir()) == []


def test_archives_are_read_without_torch_or_torchvision(folder):
    np.savez(folder / "cifar10.npz", **arrays())
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from engine.data import archives; archives.load('cifar10'); archives.status('cifar10')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_torchvision_that_does_not_import_is_said_only_by_a_download(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(RequestError, match="torchvision, which downloads cifar10, does not import"):
        archives.prepare("cifar10")
    assert archives.load("digits").y_train.size == 1442
