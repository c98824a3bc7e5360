"""Pieces of results: stored once, found again, whatever end a kill left."""

import json

import pytest

from engine.evaluation.pieces import Pieces


def test_a_stored_piece_is_not_measured_again(tmp_path):
    path, calls = tmp_path / "pieces", []

    def measure():
        calls.append(1)
        return {"value": (1, 0.1)}

    counts = []
    with Pieces(path, counts.append) as first:
        assert first.get("a", measure) == {"value": [1, 0.1]}  # as it will be read again
        assert first.get("a", measure) == {"value": [1, 0.1]}
    with Pieces(path) as again:
        assert again.get("a", measure) == {"value": [1, 0.1]}
    assert len(calls) == 1
    assert counts == [1, 1]  # pieces that are known


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_end_is_cut_off_and_measured_again(tmp_path, cut):
    path = tmp_path / "pieces"
    with Pieces(path) as pieces:
        for name in "abc":
            pieces.get(name, lambda name=name: {"of": name})
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    measured = []
    with Pieces(path) as again:
        for name in "abc":
            again.get(name, lambda name=name: measured.append(name) or {"of": name})
    assert path.read_bytes() == whole
    assert measured == list("abc")[3 - len(measured) :]
    assert 1 <= len(measured) <= 2


def test_foreign_bytes_end_what_is_believed(tmp_path):
    path = tmp_path / "pieces"
    path.write_bytes(json.dumps(["a", 1]).encode() + b"\n\0\0\0garbage\n" + json.dumps(["b", 2]).encode() + b"\n")
    with Pieces(path) as pieces:
        assert pieces.get("a", lambda: 9) == 1
        assert pieces.get("b", lambda: 9) == 9


def test_what_is_no_number_is_refused_rather_than_stored(tmp_path):
    with Pieces(tmp_path / "pieces") as pieces, pytest.raises(ValueError, match="not JSON compliant"):
        pieces.get("a", lambda: float("nan"))
