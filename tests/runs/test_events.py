"""The event log: what a crash leaves costs at most one record, and the next writer mends it."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runs import events
from engine.runs.events import EventLog, Tail


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def written(path, count=20):
    log = EventLog(path)
    for n in range(count):
        log.append("train", step=n, values={"train/loss": n / 3})
    log.close()
    return path.read_bytes()


def steps(path):
    return [event["step"] for event in Tail(path) if event["kind"] == "train"]


def test_records_come_back_in_order_after_a_line_that_names_the_version(path):
    written(path)
    first, *rest = Tail(path)
    assert (first["kind"], first["version"]) == ("log", 1)
    assert [event["values"]["train/loss"] for event in rest] == [n / 3 for n in range(20)]
    assert all(isinstance(event["time"], float) for event in rest)


def test_cut_at_each_of_its_last_400_bytes_one_record_is_lost_at_most(path):
    whole = written(path)
    for cut in range(1, 401):
        path.write_bytes(whole[:-cut])
        complete = whole[:-cut].count(b"\n") - 1
        assert steps(path) == list(range(complete))
        log = EventLog(path)
        log.append("train", step=99)
        log.close()
        assert steps(path) == [*range(complete), 99]
        for line in path.read_bytes().splitlines():
            json.loads(line)


@pytest.mark.parametrize(
    "tail", [b"\0" * 100, b'{"time": 1, "ki', b"\0\0\n", b"foreign text\n", b"[1, 2]\n", b'{"no": "kind"}\n',
             b'{"kind": 3}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"\r\n", b"{}\n"],
)  # fmt: skip
def test_what_is_no_record_is_passed_over(path, tail):
    whole = written(path, 3)
    path.write_bytes(whole + tail)
    assert steps(path) == [0, 1, 2]
    log = EventLog(path)
    log.append("train", step=3)
    log.close()
    assert steps(path) == [0, 1, 2, 3]


def test_nul_bytes_before_a_record_do_not_hide_it(path):
    whole = written(path, 2)
    path.write_bytes(whole + b"\0" * 50 + b'{"kind": "train", "step": 2}\n')
    assert steps(path) == [0, 1, 2]


def test_a_reader_follows_and_never_sees_half_a_line(path):
    log = EventLog(path)
    tail = Tail(path)
    assert [event["kind"] for event in tail.read()] == ["log"]
    log.append("train", step=1)
    with path.open("ab") as file:
        file.write(b'{"kind": "train", "st')
    assert [event["step"] for event in tail.read()] == [1]
    assert tail.read() == []
    with path.open("ab") as file:
        file.write(b'ep": 2}\n')
    assert [event["step"] for event in tail.read()] == [2]
    log.close()


def test_a_reader_survives_a_writer_that_mends_and_a_log_that_is_replaced(path):
    written(path, 2)
    with path.open("ab") as file:
        file.write(b'{"kind": "torn')
    tail = Tail(path)
    assert len(tail.read()) == 3
    log = EventLog(path)
    log.append("train", step=7)
    log.close()
    assert [event["step"] for event in tail.read()] == [7]
    path.unlink()
    assert tail.read() == []
    written(path, 1)
    assert [event["kind"] for event in tail.read()] == ["log", "train"]


def test_a_reader_that_starts_at_the_end(path):
    written(path, 5)
    tail = Tail(path, from_end=True)
    log = EventLog(path)
    log.append("train", step=5)
    log.close()
    assert [event["step"] for event in tail.read()] == [5]


def test_one_poll_reads_a_bounded_part(path):
    written(path, 2000)
    tail = Tail(path)
    first = tail.read(limit=4096)
    assert 0 < len(first) < 100
    assert len(first) + len(list(tail)) == 2001


def test_a_line_without_end_does_not_stop_the_reader(path, monkeypatch):
    monkeypatch.setattr(events, "_LONGEST_LINE", 10_000)
    path.write_bytes(b"x" * 50_000)
    tail = Tail(path)
    assert tail.read(limit=20_000) == []
    with path.open("ab") as file:
        file.write(b'\n{"kind": "train", "step": 1}\n')
    assert [event["step"] for event in tail] == [1]


def test_a_disk_that_fills_in_the_middle_of_a_line(path, monkeypatch):
    """A short write tears one line; the log says so, and the next record that fits comes after a whole line."""
    log = EventLog(path)
    log.append("train", step=1)
    original = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: original(descriptor, data[: len(data) // 2]))
    with pytest.raises(OSError, match="No space left"):
        log.append("train", step=2)
    monkeypatch.setattr(os, "write", original)
    assert steps(path) == [1]
    log.append("train", step=3)
    assert steps(path) == [1, 3]
    log.close()


def test_a_link_in_the_place_of_the_log_is_not_followed(path, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(OSError, match=r"symbolic link|Too many levels"):
        EventLog(path)
    assert victim.read_text() == "precious"


def test_what_is_no_number_is_refused_rather_than_written(path):
    log = EventLog(path)
    with pytest.raises(ValueError, match="JSON"):
        log.append("train", value=float("nan"))
    log.append("train", step=1)
    log.close()
    assert steps(path) == [1]


@settings(max_examples=60, deadline=None)
@given(junk=st.lists(st.binary(max_size=40), max_size=5), cut=st.integers(0, 200))
def test_whatever_stands_in_the_file_good_records_are_read_and_appended(tmp_path_factory, junk, cut):
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    whole = written(path, 4)
    path.write_bytes(whole[: len(whole) - cut] + b"\n" + b"\n".join(junk))
    log = EventLog(path)
    log.append("train", step=1000)
    log.close()
    kept = max(0, whole[: len(whole) - cut].count(b"\n") - 1)
    found = [step for step in steps(path) if isinstance(step, int)]
    assert found[:kept] == list(range(kept))
    assert found[-1] == 1000
