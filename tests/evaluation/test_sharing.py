"""Pieces that processes share: who claims what, what a dead one leaves, and results that do not tell who measured."""

import json
import os
import subprocess
import sys

import pytest
import torch

from engine.data import archives
from engine.data.batches import Split
from engine.evaluation import suites
from engine.evaluation.pieces import Claims, Pieces, agreed
from engine.evaluation.subject import Subject
from engine.experiment.schema import Evaluate
from tests.end_to_end.conftest import eventually

FEW = {
    "noise": {"levels": [0.1], "draws": 1, "examples": 0}, "attacks": {"methods": ["pgd"], "steps": 2},
    "minimum_norm": {"norms": ["l2", "linf"], "steps": 2, "trials": 1},
    "masking": {"steps": 2, "queries": 2}, "corruptions": {"names": ["contrast"], "severities": [1, 5]},
}  # fmt: skip


@pytest.mark.parametrize("suite", suites.MEASURES)
def test_parts_may_be_measured_in_any_order_by_anybody(trained, tmp_path, suite):
    network, archive = trained[0], archives.load("digits")
    test = Split.of(archive.x_test, archive.y_test, torch.device("cpu")).first(14)
    subject = Subject(network, list(network.blocks), test, archive, "digits", seed=3, batch=5)
    settings, measure = getattr(Evaluate.model_validate({suite: FEW.get(suite, {})}), suite), suites.MEASURES[suite]
    whole = measure.measure(subject, settings, Pieces())
    parts = measure.parts(subject, settings)
    assert len(parts) > 1
    with Pieces(tmp_path / ".a-1.pieces") as one, Pieces(tmp_path / ".a-1.2.pieces") as two:
        for number in reversed(range(len(parts))):
            parts[number]((one, two)[number % 2])
        assert one.look() == two.look() == one.measured + two.measured
        assert min(one.measured, two.measured) > 0
    with Pieces(tmp_path / ".a-1.3.pieces") as third:
        assert json.dumps(measure.measure(subject, settings, third)) == json.dumps(whole)
        assert third.measured == 0


def test_the_end_that_a_living_process_has_not_finished_writing_is_read_later(tmp_path):
    with Pieces(tmp_path / ".a-1.pieces") as mine, (tmp_path / ".a-1.2.pieces").open("ab", 0) as other:
        other.write(b'["a", 1]\n["b", ')
        assert mine.look() == 1
        other.write(b"2]\n")
        assert mine.look() == 2
        assert mine.get("b", lambda: 9) == 2
        (tmp_path / ".a-12.pieces").write_bytes(b'["c", 3]\n')  # of another result
        assert mine.look() == 2
        assert (tmp_path / ".a-1.pieces").read_bytes() == b""


def test_a_part_is_one_process_s_until_it_is_gone(tmp_path):
    claim = "import sys; from engine.evaluation.pieces import Claims; from pathlib import Path; "
    claim += "claims = Claims(Path(sys.argv[1])); print(claims.take(3), claims.take(4), flush=True); input()"
    path = tmp_path / "claims"
    with Claims(path) as mine:
        assert mine.take(4)
        other = subprocess.Popen(
            [sys.executable, "-c", claim, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with other:
            assert other.stdout.readline() == "True False\n"
            assert [mine.take(2), mine.take(3), mine.take(4)] == [True, False, True]
            other.kill()
        eventually(lambda: mine.take(3))


def test_where_there_are_no_such_locks_everybody_measures_everything(tmp_path, monkeypatch):
    def none(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.lockf", none)
    with Claims(tmp_path / "claims") as one, Claims(tmp_path / "claims") as two:
        assert one.take(1)
        assert two.take(1)


def test_the_first_to_ask_decides_how_many_images_are_taken_at_once(tmp_path):
    path = tmp_path / ".x.batch"
    assert agreed(path, lambda: 400) == 400
    assert agreed(path, lambda: 900) == 400
    path.write_text("-")  # torn
    assert agreed(path, lambda: 900) == 900
    assert os.listdir(tmp_path) == [".x.batch"]
