"""What every engine answers, whatever it works on, and the patience that it asks its readers for."""

import os
import signal
import threading
import time

import pytest
import torch

from engine.job.life import Signals
from engine.job.record import Record
from engine.job.work import FIRST_PATIENCE, MOST_PATIENCE, Job, Place, Stopped
from engine.runs import control
from engine.runs.devices import Choice
from engine.runs.events import Tail
from engine.runs.layout import create
from engine.runs.process import PATIENCE, STOPPING, heartbeat_of
from engine.runs.state import State, read_state


@pytest.fixture
def run(runs):
    return create(runs, "x", "name: x\n")


@pytest.fixture
def job(run):
    record = Record(run, State(status="running", phase="training"))
    yield Job(record, Place(torch.device("cpu"), Choice("cpu", "asked for")))
    record.close()


@pytest.mark.parametrize("number", STOPPING)
def test_whatever_signal_asks_for_it_work_is_stopped_and_who_did_is_known(run, number):
    signals, record = Signals(), Record(run, State(status="running", phase="training"))
    try:
        job = Job(record, Place(torch.device("cpu"), Choice("cpu", "asked for")), lambda: signals.asked)
        os.kill(os.getpid(), signal.SIGHUP)  # is nothing to it
        assert job.attend(refuse) == 0
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped) as stopped:
            job.attend(refuse)
    finally:
        record.close()
    said = signal.Signals(number).name
    assert (stopped.value.by, stopped.value.signal) == ("limit" if said == "SIGXCPU" else "signal", said)


def answers(run):
    return [(e["verb"], e["ok"], e["text"]) for e in Tail(run.events) if e["kind"] == "command"]


def refuse(command):
    return "not now"


def test_a_folder_of_commands_that_somebody_took_away_is_an_empty_one(run, job):
    run.control.rmdir()
    assert job.attend(refuse) == 0
    control.send(run, "resume")
    job.attend(refuse)
    assert answers(run) == [("resume", True, "")]


def test_commands_are_answered_in_the_order_they_came_and_taken_away(run, job):
    for verb in ("pause", "set", "resume"):
        control.send(run, verb)
    assert job.attend(refuse) == 0
    assert answers(run) == [("pause", True, ""), ("set", False, "not now"), ("resume", True, "")]
    assert list(run.control.iterdir()) == []


def test_what_was_asked_is_so_when_it_is_answered(run, job, monkeypatch):
    said, event = [], job.record.event
    monkeypatch.setattr(
        job.record, "event", lambda kind, **fields: (said.append(read_state(run).status), event(kind, **fields))
    )
    for verb in ("pause", "pause", "resume", "resume"):
        control.send(run, verb)
    job.attend(refuse)
    assert said == ["paused", "paused", "running", "running"]


def test_a_setting_that_has_to_wait_stays_until_it_can_be_changed(run, job):
    control.send(run, "set", "hah.lambda", 0.5)
    job.attend(lambda command: None)
    assert answers(run) == []
    changed = []
    job.attend(lambda command: changed.append((command.name, command.value)) or "")
    assert changed == [("hah.lambda", 0.5)]
    assert answers(run) == [("set", True, "")]


def test_nonsense_is_answered_with_what_is_wrong_and_changes_nothing(run, job):
    (run.control / "1.json").write_text('{"verb": "explode"}')
    (run.control / "2.json").write_text("{")
    job.attend(refuse)
    assert [(verb, ok) for verb, ok, _ in answers(run)] == [("", False)] * 2
    assert not job.paused


@pytest.mark.parametrize(("verb", "save"), [("stop", True), ("stop-now", False)])
def test_stop_is_answered_before_it_is_done(run, job, verb, save):
    control.send(run, verb)
    with pytest.raises(Stopped) as stopped:
        job.attend(refuse)
    assert (stopped.value.save, stopped.value.by) == (save, "person")
    assert answers(run) == [(verb, True, "")]
    assert read_state(run).status == "stopping"


@pytest.mark.parametrize(("signal", "by"), [("SIGTERM", "signal"), ("SIGXCPU", "limit")])
def test_a_signal_stops_it_and_saves(run, signal, by):
    record = Record(run, State(status="running"))
    with pytest.raises(Stopped) as stopped:
        Job(record, Place(torch.device("cpu"), Choice("cpu", "")), lambda: signal).attend(refuse)
    assert (stopped.value.save, stopped.value.by, stopped.value.signal) == (True, by, signal)
    record.close()


def test_while_it_is_paused_it_shows_life_and_says_how_long_that_was(run, job):
    control.send(run, "pause")

    def go_on():
        while read_state(run).status != "paused":
            time.sleep(0.01)
        first = heartbeat_of(run.heartbeat)
        while heartbeat_of(run.heartbeat).clock == first.clock:
            time.sleep(0.01)
        control.send(run, "resume")

    helper = threading.Thread(target=go_on)
    helper.start()
    held = job.attend(refuse)
    helper.join()
    assert held > 0
    assert (read_state(run).status, read_state(run).phase) == ("running", "training")


def test_patience_is_long_at_first_follows_the_pace_and_has_an_end(run, job):
    job.attend(refuse)
    assert 0.9 * FIRST_PATIENCE < heartbeat_of(run.heartbeat).patience < FIRST_PATIENCE
    for _ in range(300):
        job.attend(refuse)
    assert heartbeat_of(run.heartbeat).patience == PATIENCE
    job._at -= 20  # as long as the step before took
    job.attend(refuse)
    assert 80 <= heartbeat_of(run.heartbeat).patience < 90
    job._at -= 3600  # the machine was suspended
    job.attend(refuse)
    assert heartbeat_of(run.heartbeat).patience == MOST_PATIENCE
