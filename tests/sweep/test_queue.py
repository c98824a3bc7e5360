"""How runs stand in the queue, in what order, and what a person may change of that."""

import json
import os
import time
from dataclasses import replace
from threading import Thread
from types import SimpleNamespace

import pytest

from engine.experiment import RequestError
from engine.runs.layout import RunDirectory
from engine.runs.process import Lock, identity
from engine.runs.state import State, read_state
from engine.runs.watcher import Look, Watcher
from engine.sweep import desk, queue, submit
from engine.sweep.queue import Entry, Queue, Start
from hah_tui import engines

ENTRY = Entry(queued=100.0, retries=1, updated=50.0)


def looked(status, step=5, updated=200.0, **facts):
    state = State(status=status, step=step, updated=updated, **facts)
    return Look(RunDirectory(None), state, status)


def starts(*befores, done=5):
    dones = done if isinstance(done, list) else [done] * len(befores)
    return tuple(
        Start(time=150.0 + index, queued=100.0, done=one, before=before)
        for index, (before, one) in enumerate(zip(befores, dones, strict=True))
    )


@pytest.mark.parametrize(
    ("look", "began", "expected"),
    [
        (looked("queued"), (), ("ready", "")),
        (looked("starting"), starts("queued"), ("live", "")),
        (looked("running"), starts("queued"), ("live", "")),
        (looked("paused"), starts("queued"), ("live", "")),
        (looked("stalled"), starts("queued"), ("live", "")),
        (looked("finished"), starts("queued"), ("done", "")),
        (looked("stopped", stopped_by="person"), starts("queued"), ("over", "stopped by a person")),
        (looked("stopped", stopped_by="pruned"), starts("queued"), ("over", "stopped by a person")),
        (looked("stopped", stopped_by="signal"), starts("queued", done=0), ("ready", "stopped, goes on")),
        (looked("stopped", stopped_by="limit"), starts("queued", done=0), ("ready", "stopped, goes on")),
        # Stopped before it was queued: it was queued to go on. Stopped while it waited: it was taken out.
        (looked("stopped", stopped_by="person", updated=50.0), (), ("ready", "stopped before it was queued")),
        (looked("stopped", stopped_by="person"), (), ("over", "stopped by a person")),
        (looked("lost"), starts("queued", done=0), ("ready", "lost, goes on")),
        (looked("lost"), starts("queued", "lost"), ("ready", "lost, goes on")),
        (looked("lost"), starts("queued", "lost", "lost"),
         ("over", "lost 3 times without getting further; see its engine.log")),
        (looked("lost", step=6), starts("queued", "lost", "lost"), ("ready", "lost, goes on")),
        # It falls back to its checkpoint and dies at another step each time, and never gets further.
        (looked("lost", step=111), starts("queued", *["lost"] * 4, done=[130, 112, 105, 120, 107]),
         ("over", "lost 5 times without getting further; see its engine.log")),
        (looked("lost", step=131), starts("queued", *["lost"] * 4, done=[130, 112, 105, 120, 107]),
         ("ready", "lost, goes on")),
        (looked("failed", error="nan"), starts("queued"), ("ready", "failed, 1 of 2 tries")),
        (looked("failed", error="nan"), starts("queued", "failed"), ("over", "failed: nan")),
        (looked("failed", updated=50.0), (), ("ready", "failed before it was queued")),
        # Somebody started it by hand while it waited.
        (looked("failed", error="nan"), (), ("over", "failed: nan")),
        # The first start after it was queued began from a failure of before, which is no try.
        (looked("failed", error="nan"), starts("failed"), ("ready", "failed, 1 of 2 tries")),
    ],
)  # fmt: skip
def test_standing(look, began, expected):
    assert queue.standing(ENTRY, began, look, whole=True) == expected


def test_nothing_is_tried_again_unless_asked():
    assert queue.standing(Entry(queued=100.0), starts("queued"), looked("failed", error="x"), True)[0] == "over"


def test_what_cannot_be_known_from_here_is_left_alone():
    """Another host's run whose sign of life has not been waited for yet."""
    look = replace(looked("lost"), verified=False)
    assert queue.standing(ENTRY, starts("queued", done=0), look, True)[0] == "live"


def test_a_finished_training_whose_evaluation_is_still_to_come_is_not_done():
    assert queue.standing(ENTRY, starts("queued"), looked("finished"), whole=False)[0] == "ready"


def ids(folder, standing="ready"):
    return [item.run.id for item in Queue(folder).items() if item.standing == standing]


def test_order_is_priority_then_position(queued, runs):
    queued("a")
    queued("b", priority=1)
    queued("c", position=-5.0)
    assert ids(runs) == ["b", "c", "a"]


def test_runs_of_no_queue_are_left_alone(queued, runs):
    run = queued("a")
    run.queue.unlink()
    assert ids(runs) == []


def test_moving(queued, runs):
    a, b, c, d = (queued(name) for name in "abcd")
    queue.move(runs, c, first=True)
    assert ids(runs) == ["c", "a", "b", "d"]
    queue.move(runs, c)
    assert ids(runs) == ["a", "b", "d", "c"]
    queue.move(runs, c, before=b)
    assert ids(runs) == ["a", "c", "b", "d"]
    queue.move(runs, d, before=a)
    assert ids(runs) == ["d", "a", "c", "b"]
    queue.move(runs, a, before=c)  # where it is already
    assert ids(runs) == ["d", "a", "c", "b"]


def test_before_a_run_of_another_priority_takes_that(queued, runs):
    queued("a", priority=5)
    b = queued("b", priority=5)
    c = queued("c")
    queue.move(runs, c, before=b)
    assert ids(runs) == ["a", "c", "b"]


def test_only_what_waits_can_be_moved(queued, runs):
    a, done = queued("a"), queued("done", "finished")
    for moved, before in ((done, None), (a, done)):
        with pytest.raises(RequestError, match="done does not wait in the queue"):
            queue.move(runs, moved, before=before)


def test_leaving_stops_what_waits_and_leaves_what_runs(queued, runs):
    a, b = queued("a"), queued("b", "running")
    lock = Lock.take(b.lock)
    queue.leave(a)
    queue.leave(b)
    assert (read_state(a).status, read_state(a).stopped_by) == ("stopped", "person")
    assert read_state(b).status == "running"
    assert Queue(runs).items() == []
    lock.release()


def test_a_run_that_is_being_started_is_not_withdrawn(queued):
    run = queued("a")
    lock = Lock.take(run.lock)
    assert not queue.withdraw(run)
    lock.release()
    assert queue.withdraw(run)
    assert not queue.withdraw(run)


def test_after(queued, runs):
    queued("first", "running")
    lock = Lock.take(RunDirectory(runs / "first").lock)
    queued("second", after=("first",))
    queued("third", after=("gone",))
    queued("bad", "failed", state={"error": "x"})
    queued("fourth", after=("bad",))
    bad = RunDirectory(runs / "bad")
    queue.add_start(bad, Start(time=time.time(), queued=queue.entry_of(bad).queued, before="queued"))
    queued("done", "finished")
    queued("fifth", after=("done",))
    found = queue.dependences(Queue(runs).items())
    assert {name: (one.why, one.hopeless) for name, one in found.items()} == {
        "second": ("after first, which is running", False),
        "third": ("after gone, which is gone", True),
        "fourth": ("after bad, which has failed", True),
    }
    lock.release()


def test_what_has_not_changed_is_not_read_again_and_what_has_is(queued, runs):
    for number in range(5):
        queued(f"run-{number}")
    read = []
    reader = Queue(runs, read=lambda run, watch: read.append(run.id) or queue.item_of(run, watch))
    reader.items()
    read.clear()
    reader.items()
    assert read == []
    run = RunDirectory(runs / "run-3")
    queue.put(run, replace(queue.entry_of(run), priority=9))
    assert reader.items()[0].run.id == "run-3"
    replace(read_state(run), status="finished").write(run)
    assert reader.items()[0].standing == "done"
    assert read == ["run-3", "run-3"]


def test_a_run_that_is_lost_is_seen_though_no_file_changes(queued, runs):
    """Its lock alone tells."""
    run = queued("a", "running")
    queue.add_start(run, Start(time=time.time(), queued=queue.entry_of(run).queued, before="queued"))
    lock = Lock.take(run.lock)
    reader = Queue(runs)
    assert [item.standing for item in reader.items()] == ["live"]
    lock.release()
    assert [(item.standing, item.why) for item in reader.items()] == [("ready", "lost, goes on")]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "nonsense", '{"priority": "high", "position": true, "after": "x", "group": 3, "queued": null}', "\0\0"],
)
def test_a_damaged_request_has_defaults_or_is_none(queued, runs, text):
    run = queued("a")
    run.queue.write_text(text)
    found = queue.entry_of(run)
    assert found is None or found == Entry()
    run.starts.write_text(text)
    assert queue.starts_of(run, Entry()) == ()
    Queue(runs).items()


def test_starts_of_before_it_was_queued_again_do_not_count(queued):
    run = queued("a")
    queue.add_start(run, Start(time=time.time() - 50, queued=queue.entry_of(run).queued, before="queued"))
    assert len(queue.starts_of(run, queue.entry_of(run))) == 1
    queue.requeue(run, queue.entry_of(run))
    assert queue.starts_of(run, queue.entry_of(run)) == ()
    assert len(json.loads(run.starts.read_text())["starts"]) == 1


def test_groups(runs):
    runs.mkdir()
    assert desk.group_of(runs, "a").limit is None
    desk.set_group(runs, "a", limit=3)
    desk.set_group(runs, "a", paused=True, reason="why")
    assert desk.groups(runs)["a"] == replace(desk.group_of(runs, "a"), limit=3, paused=True, reason="why")
    with pytest.raises(RequestError, match="cannot name a group"):
        desk.set_group(runs, "../a", limit=1)


def test_the_priority_of_a_group(queued, runs, here):
    queued("a", priority=2)
    for name in "bc":
        queued(name, group="g")
    ended = queued("ended", "finished", group="g")
    assert "priority 3 of 2 runs that run or wait" in here("queue", "group", "g", "--priority", 3).stdout
    assert ids(runs) == ["b", "c", "a"]
    assert queue.entry_of(ended).priority == 0
    assert "g: as many at once" in here("queue", "group", "g", "--priority", -1).stdout
    assert ids(runs) == ["a", "b", "c"]


def test_asking_touches_what_the_dispatcher_looks_at(queued, runs):
    run = queued("a")
    stamps = [desk.changed_stamp(runs)]
    for ask in (
        lambda: queue.put(run, Entry()),
        lambda: desk.set_group(runs, "a", limit=1),
        lambda: desk.pause(runs, True),
        lambda: desk.pause(runs, False),
        lambda: queue.leave(run),
        lambda: queued("b"),
    ):
        time.sleep(0.01)
        ask()
        stamps.append(desk.changed_stamp(runs))
    assert len(set(stamps)) == len(stamps)


def test_a_folder_that_cannot_be_written_is_said(queued, runs, monkeypatch):
    run = queued("a")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(desk, "replace_json", full)
    monkeypatch.setattr(queue, "replace_json", full)
    for ask in (
        lambda: queue.put(run, Entry()),
        lambda: desk.set_group(runs, "a", limit=1),
        lambda: desk.pause(runs, True),
    ):
        with pytest.raises(RequestError, match="No space left on device"):
            ask()


def test_a_link_is_no_run_of_the_queue(queued, runs, tmp_path):
    run = queued("a")
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    run.queue.unlink()
    os.symlink(outside, run.queue)
    with pytest.raises(RequestError, match="is a symbolic link"):
        queue.put(run, Entry())
    assert outside.read_text() == "{}"


def test_clocks_that_were_set_back_change_nothing(queued, runs):
    """Starts are of a request, not of a time: it was queued in the future, and still has its one try."""
    run = queued("a", "failed", queued=time.time() + 3600, state={"error": "x"})
    queue.add_start(run, Start(time=time.time(), queued=queue.entry_of(run).queued, before="queued"))
    assert [item.standing for item in Queue(runs).items()] == ["over"]


def test_a_run_without_its_snapshot_is_still_the_queues(queued, runs):
    run = queued("a")
    run.state.unlink()
    assert [item.run.id for item in Queue(runs).items()] == ["a"]


@pytest.mark.parametrize(
    "damage",
    [
        {"device": "cuda:x"},
        {"data": "a\0b"},
        {"group": "../a"},
        {"niceness": -50},
        {"priority": 10**400},
        {"after": [3]},
    ],
    ids=str,
)
def test_what_cannot_be_in_a_request_is_the_default(queued, runs, damage):
    run = queued("a")
    stored = json.loads(run.queue.read_text())
    run.queue.write_text(json.dumps({**stored, **damage}))
    entry = queue.entry_of(run)
    if entry is not None:
        assert entry.device in ("cpu", "auto")
        assert "\0" not in entry.data
        assert entry.group == "default"
        assert 0 <= entry.niceness <= 19
    Queue(runs).items()


def test_waiting_for_oneself_is_refused(queued, runs):
    a = queued("a", after=("b",))
    b = queued("b", after=("c",))
    c = queued("c")
    for run, after in ((a, ["a"]), (c, ["a"]), (c, ["b"])):
        with pytest.raises(RequestError, match="would wait for itself"):
            queue.check_after(run, after)
    queue.check_after(b, ["c"])


def test_moving_again_and_again(queued, runs):
    """Half-way between two numbers there is always another, until there is none."""
    queued("a", position=1.7e9)
    b, c = queued("b", position=1.7e9 + 1e-6), queued("c", position=1.7e9 + 2e-6)
    for _ in range(40):
        queue.move(runs, c, before=b)
        assert ids(runs) == ["a", "c", "b"]
        queue.move(runs, b, before=c)
        assert ids(runs) == ["a", "b", "c"]


def test_nothing_is_written_through_a_link(queued, runs, tmp_path):
    run = queued("a")
    outside = tmp_path / "outside"
    outside.mkdir()
    desk.folder_of(runs).symlink_to(outside)
    for ask in (
        lambda: desk.pause(runs, True),
        lambda: desk.set_group(runs, "g", limit=1),
        lambda: queue.put(run, Entry()),
        lambda: desk.ensure_dispatcher(runs),
    ):
        with pytest.raises(RequestError, match="symbolic link"):
            ask()
    assert list(outside.iterdir()) == []


def test_leaving_takes_a_waiting_evaluation_out_too(queued, runs):
    run = queued("a", "finished", evaluates=True)
    run.evaluation.path.mkdir(parents=True)
    run.evaluation.config.write_text(run.config.read_text())
    State(kind="evaluation", status="queued").write(run.evaluation)
    assert ids(runs) == ["a"]
    queue.leave(run)
    assert read_state(run.evaluation).status == "stopped"
    assert read_state(run).status == "finished"


def test_a_stop_that_comes_while_a_run_is_being_started_is_not_said_to_be_done(queued, monkeypatch):
    run = queued("a")
    look = Watcher(run).look()
    lock = Lock.take(run.lock)
    assert submit.stop([SimpleNamespace(look=look, job=look)])[:2] == (0, [run])
    Entry(queued=1.0).write(run)
    monkeypatch.setattr(engines, "PATIENCE", 0.1)
    with pytest.raises(RequestError, match="no engine to stop yet"):
        engines.ask(run, "stop")
    # Its engine shows itself, and has the command.
    Entry(queued=1.0).write(run)
    replace(read_state(run), status="stopped", stopped_by="signal").write(run)
    monkeypatch.setattr(engines, "PATIENCE", 20.0)

    def engine():
        time.sleep(0.3)
        replace(read_state(run), status="running", engine=identity().dump()).write(run)
        while not list(run.control.glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.01)
        replace(read_state(run), status="finished").write(run)

    deadline = time.monotonic() + 20
    thread = Thread(target=engine)
    thread.start()
    engines.ask(run, "stop")
    assert read_state(run).status == "finished"
    assert len(list(run.control.glob("*.json"))) == 1
    thread.join()
    lock.release()
