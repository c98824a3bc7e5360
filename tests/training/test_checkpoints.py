"""Checkpoints: whole or not at all; every damage is noticed; nothing in them is executed."""

import random

import pytest
import torch

from engine.experiment import RequestError
from engine.job import checkpoints
from engine.runs.layout import RunDirectory


@pytest.fixture
def run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return RunDirectory(tmp_path)


def content(step=1):
    return {"step": step, "network": {"w": torch.arange(300.0) + step}, "sums": {"train/loss": 0.5}}


def test_what_is_written_is_read_and_torch_reads_it_too(run):
    path = run.checkpoints / "last.pt"
    checkpoints.write(path, content())
    for read in (checkpoints.read(path), torch.load(path, weights_only=True)):
        assert torch.equal(read["network"]["w"], content()["network"]["w"])
        assert (read["step"], read["sums"], read["format"]) == (1, {"train/loss": 0.5}, 1)
    assert [entry.name for entry in run.checkpoints.iterdir()] == ["last.pt"]


def test_last_and_previous_are_kept_and_there_is_always_a_last(run, monkeypatch):
    for step in (1, 2, 3):
        checkpoints.rotate(run, content(step))
    assert checkpoints.read(run.checkpoints / "last.pt")["step"] == 3
    assert checkpoints.read(run.checkpoints / "previous.pt")["step"] == 2
    monkeypatch.setattr(checkpoints, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        checkpoints.rotate(run, content(4))
    assert checkpoints.newest(run).checkpoint["step"] == 3


def test_without_hard_links_too(run, monkeypatch):
    def refuse(self, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    for step in (1, 2):
        checkpoints.rotate(run, content(step))
    assert checkpoints.read(run.checkpoints / "previous.pt")["step"] == 1


def test_every_truncation_and_every_flipped_bit_is_noticed(run):
    """At random places, and at every byte of the end, where the checksum is."""
    path = run.checkpoints / "last.pt"
    checkpoints.write(path, content())
    whole = path.read_bytes()
    rng = random.Random(0)
    damaged = [whole[:cut] for cut in [0, 1, *(rng.randrange(len(whole)) for _ in range(60))]]
    for place in [rng.randrange(len(whole)) for _ in range(300)] + list(range(len(whole) - 100, len(whole))):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(checkpoints.DamagedError):
            checkpoints.read(path)


def test_a_damaged_last_one_is_put_aside_and_the_previous_used(run):
    for step in (1, 2):
        checkpoints.rotate(run, content(step))
    last = run.checkpoints / "last.pt"
    last.write_bytes(last.read_bytes()[:-10])
    found = checkpoints.newest(run)
    assert found.checkpoint["step"] == 1
    assert "last.pt is damaged" in found.warnings[0]
    checkpoints.rotate(run, content(3))  # must not overwrite the good previous one with the damaged one
    assert checkpoints.read(run.checkpoints / "previous.pt")["step"] == 1
    assert checkpoints.newest(run).checkpoint["step"] == 3


def test_no_checkpoint_and_none_that_is_whole(run):
    assert checkpoints.newest(run) is None
    (run.checkpoints / "last.pt").write_bytes(b"x")
    (run.checkpoints / "previous.pt").write_bytes(b"y")
    with pytest.raises(RequestError, match=r"no whole checkpoint: last.pt is damaged.*previous.pt is damaged"):
        checkpoints.newest(run)


def test_a_checkpoint_from_elsewhere_is_data_never_code(run):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the checkpoint was executed",))

    path = run.checkpoints / "last.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT", Bomb())
        checkpoints.write(path, content())  # with a good checksum
    with pytest.raises(checkpoints.DamagedError, match="is not a checkpoint"):
        checkpoints.read(path)


def test_checkpoints_by_name(run):
    checkpoints.write(run.checkpoints / "epoch-2.pt", content())
    checkpoints.write(run.checkpoints / "last.pt", content())
    (run.checkpoints / "damaged.pt").write_bytes(b"")
    (run.checkpoints / ".last.pt.1.abc.tmp").write_bytes(b"")
    assert checkpoints.named(run, "epoch-2").name == "epoch-2.pt"
    for name in ("best", "../last", "damaged"):
        with pytest.raises(RequestError, match="there is epoch-2, last"):
            checkpoints.named(run, name)
