"""What is started, where, and what is told of it; engines are stood in for by a word that says what becomes of them."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from engine.disk import read_json
from engine.runs import devices, launch
from engine.runs.devices import Gpu
from engine.runs.layout import RunDirectory
from engine.runs.process import Lock, is_locked
from engine.runs.state import read_state
from engine.sweep import desk, dispatcher, notices, queue
from engine.sweep.dispatcher import Dispatcher
from engine.sweep.places import Place, Places
from engine.sweep.queue import Entry, Queue, Start


class Engines:
    """In the place of `launch.start`: what ``becomes`` of a run says how its engine ends, "runs" that it does not."""

    def __init__(self):
        self.started, self.given, self.becomes, self.locks = [], {}, {}, {}

    def __call__(self, run, lock, state, arguments=(), given=launch.NOTHING):
        self.started.append(run.id)
        self.given[run.id] = given
        ends = self.becomes.get(run.id, "runs")
        status, _, error = ends.partition(" ")
        now = replace(state, status="running" if status in ("runs", "lost") else status, error=error, began=1.0)
        replace(now, updated=time.time(), stopped_by="person" if status == "stopped" else "").write(run)
        if status == "runs":
            kept = Lock(os.dup(lock.descriptor))  # the lock is the open file's, and so goes on
            self.locks[run.id] = [kept, *(Lock(os.dup(number)) for number in given.descriptors())]
        return subprocess.Popen(["true"] if status != "runs" else ["sleep", "100"])

    def end(self, name, run, status="finished"):
        replace(read_state(run), status=status, updated=time.time()).write(run)
        for lock in self.locks.pop(name):
            lock.release()


@pytest.fixture
def engines(monkeypatch):
    found = Engines()
    children = []

    def start(*arguments):
        children.append(found(*arguments))
        return children[-1]

    monkeypatch.setattr(launch, "start", start)
    monkeypatch.setattr(devices, "gpus", list)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    yield found
    for child in children:
        child.kill()
        child.wait()


def looks(folder, times=1):
    """One dispatcher's looks; children that have ended are let go between them, as its loop does."""
    work = Dispatcher(folder)
    for _ in range(times):
        work.look()
        time.sleep(0.05)
        work._let_go()
    return work


def test_one_at_a_time_with_all_threads_where_no_group_asks_for_more(queued, runs, engines):
    a, _ = queued("a"), queued("b")
    work = looks(runs, 3)
    assert engines.started == ["a"]
    assert engines.given["a"].threads == 4
    engines.end("a", a)
    assert work._let_go() == ["a"]  # though its process still folds up
    work.look()
    assert engines.started == ["a", "b"]


def test_a_group_shares_the_threads_and_keeps_its_limit(queued, runs, engines):
    desk.set_group(runs, "g", limit=2)
    for name in "abc":
        queued(name, group="g")
    looks(runs, 3)
    assert engines.started == ["a", "b"]
    assert [engines.given[name].threads for name in "ab"] == [2, 2]


def test_threads_that_an_experiment_names_are_what_it_takes(queued, runs, engines):
    queued("a", threads=3)
    queued("b", threads=2)
    queued("c", threads=1)
    looks(runs, 2)
    assert engines.started == ["a", "c"]  # b does not fit beside a, what is smaller does


def test_after_a_restart_threads_of_what_runs_are_still_taken(queued, runs, engines):
    queued("a", threads=3)
    looks(runs)
    queued("b", threads=2)
    looks(runs)
    assert engines.started == ["a"]


def test_niceness_and_the_data_folder_are_handed_over(queued, runs, engines):
    queued("a", niceness=7, data="/somewhere")
    looks(runs)
    assert engines.given["a"].niceness == 7
    assert engines.given["a"].environment == {"HAH_DATA": "/somewhere"}
    assert Place().given(Entry()).environment == {"HAH_DATA": None}  # not the dispatcher's own


def test_paused_starts_nothing(queued, runs, engines):
    queued("a")
    queued("b", group="g")
    desk.pause(runs, True)
    looks(runs)
    assert engines.started == []
    desk.pause(runs, False)
    desk.set_group(runs, "default", paused=True)
    looks(runs)
    assert engines.started == ["b"]


def test_after_a_run(queued, runs, engines):
    queued("second", after=("first",), threads=1)
    first = queued("first", threads=1)
    work = looks(runs, 2)
    assert engines.started == ["first"]
    engines.end("first", first)
    work.look()
    assert engines.started == ["first", "second"]


def test_below_the_margin_of_free_disk_nothing_starts(queued, runs, engines, monkeypatch, capsys):
    queued("a")
    monkeypatch.setenv("HAH_DISK_MARGIN", "1e9")
    work = looks(runs, 3)
    assert engines.started == []
    assert capsys.readouterr().out.count("nothing starts") == 1
    monkeypatch.setenv("HAH_DISK_MARGIN", "0")
    work.look()
    assert engines.started == ["a"]


def test_a_failure_is_tried_again_as_often_as_asked(queued, runs, engines):
    queued("a", retries=2)
    engines.becomes["a"] = "failed out of memory"
    desk.set_group(runs, "default", limit=1)
    looks(runs, 6)
    assert engines.started == ["a"] * 3
    (item,) = Queue(runs).items()
    assert (item.standing, item.why) == ("over", "failed: out of memory")


def test_what_is_lost_is_gone_on_with_at_most_three_times_where_it_is(queued, runs, engines):
    queued("a")
    engines.becomes["a"] = "lost"
    looks(runs, 8)
    assert engines.started == ["a"] * 3
    (item,) = Queue(runs).items()
    assert item.standing == "over"
    assert item.why.startswith("lost 3 times without getting further")


def test_the_same_failure_three_times_pauses_the_group(queued, runs, engines, capsys):
    for number in range(6):
        queued(f"run-{number}", group="g", threads=1)
        engines.becomes[f"run-{number}"] = f"failed block {number} is missing"
    desk.set_group(runs, "g", limit=1)
    looks(runs, 8)
    assert len(engines.started) == 3
    group = desk.group_of(runs, "g")
    assert (group.paused, group.reason) == (True, "the same failure 3 times: block # is missing")
    desk.set_group(runs, "g", paused=False, since=time.time())
    looks(runs, 2)
    assert len(engines.started) > 3  # old failures no longer count


def test_different_failures_pause_nothing(queued, runs, engines):
    for name in ("one", "two", "three", "four"):
        queued(name)
        engines.becomes[name] = f"failed {name}"
    looks(runs, 8)
    assert len(engines.started) == 4
    assert not desk.group_of(runs, "default").paused


def test_what_a_person_stopped_is_left_alone(queued, runs, engines):
    queued("a")
    engines.becomes["a"] = "stopped"
    looks(runs, 4)
    assert engines.started == ["a"]


def test_a_run_that_is_gone_is_passed_over(queued, runs, engines, monkeypatch):
    """Deleted between the look and the start."""
    a = queued("a", threads=1)
    queued("b", threads=1)
    items = Queue(runs).items()
    a.path.rename(runs / ".a.removed")
    monkeypatch.setattr(Queue, "items", lambda self: items)
    looks(runs)
    assert engines.started == ["b"]


def test_what_somebody_else_has_taken_up_is_not_started(queued, runs, engines):
    run = queued("a")
    items = Queue(runs).items()
    replace(read_state(run), status="finished", updated=time.time()).write(run)
    work = Dispatcher(runs)
    work._queue.items = lambda: items
    work.look()
    assert engines.started == []


def test_a_start_is_noted_before_it_happens(queued, runs, monkeypatch, engines):
    run = queued("a")

    def refuse(*arguments):
        raise OSError(11, "no more processes")

    monkeypatch.setattr(launch, "start", refuse)
    looks(runs)
    (start,) = queue.starts_of(run, queue.entry_of(run))
    assert (start.before, start.kind, start.done) == ("queued", "training", 0)
    assert Queue(runs).items()[0].standing == "ready"


def test_a_folder_that_cannot_be_written_for_a_while_is_waited_for(queued, runs, engines, monkeypatch, capsys):
    run = queued("a")
    whole = queue.add_start

    def full(*_):
        raise OSError(28, "No space left on device", str(run.starts))

    monkeypatch.setattr(queue, "add_start", full)
    monkeypatch.setattr(desk, "groups", full)
    work = Dispatcher(runs)
    assert work._looked()
    monkeypatch.undo()
    assert queue.add_start is whole
    assert capsys.readouterr().out.count("No space left on device") == 1


def test_a_damaged_run_keeps_no_other_from_starting(queued, runs, engines):
    """Whatever goes wrong with one, the next is looked at; why it waits is there to be read."""
    bad = queued("bad", threads=1)
    (bad.path / "link").symlink_to("/etc/passwd")
    queued("good", threads=1)
    for number in range(3):
        queued(f"failed-{number}", "failed", group="g", state={"error": "x"})
    looks(runs, 2)
    assert "good" in engines.started
    said = read_json(desk.waits_file(runs))
    assert "is a symbolic link" in said["bad"]


def test_what_waits_for_a_run_outside_the_queue_is_waited_for(queued, runs, engines):
    outside = queued("outside", "running")
    outside.queue.unlink()
    lock = Lock.take(outside.lock)
    queued("after", after=("outside",))
    work = Dispatcher(runs)
    assert work.look()
    assert engines.started == []
    lock.release()
    replace(read_state(outside), status="finished").write(outside)
    assert work.look()
    assert engines.started == ["after"]


def test_what_was_taken_out_since_the_last_look_is_not_started(queued, runs, engines, monkeypatch):
    run = queued("a")
    items = Queue(runs).items()
    queue.leave(run)
    monkeypatch.setattr(Queue, "items", lambda self: items)
    looks(runs)
    assert engines.started == []


def test_what_is_taken_out_right_before_its_lock_is_taken_is_not_started(queued, runs, engines, monkeypatch):
    run, take = queued("a", "stopped", {"stopped_by": "signal"}), queue.take

    def late(item):
        queue.leave(item.run)
        return take(item)

    monkeypatch.setattr(queue, "take", late)
    looks(runs)
    assert engines.started == []
    assert not is_locked(run.lock)


# GPUs, the driver's answers stood in for


@pytest.fixture
def four(monkeypatch):
    cards = [Gpu(index, f"GPU-{index}", "Fake", 80.0, 70.0 + index, 0.0, False) for index in range(4)]
    monkeypatch.setattr(devices, "gpus", lambda: cards)
    return cards


def test_never_two_on_one_gpu_and_none_idle_while_something_waits(queued, runs, engines, four):
    for number in range(7):
        queued(f"run-{number}", device="auto")
    work = looks(runs, 3)
    assert engines.started == [f"run-{number}" for number in range(4)]
    assert sorted(engines.given[name].gpu for name in engines.started) == [card.uuid for card in four]
    freed = engines.given["run-2"].gpu
    engines.end("run-2", RunDirectory(runs / "run-2"))
    work.look()
    assert engines.started[4:] == ["run-4"]
    assert engines.given["run-4"].gpu == freed


def test_a_gpu_that_another_engine_holds_is_not_given_away(queued, runs, engines, four):
    stranger = devices.reserve(four[3])
    for number in range(5):
        queued(f"run-{number}", device="cuda")
    looks(runs, 2)
    assert len(engines.started) == 3
    assert four[3].uuid not in [engines.given[name].gpu for name in engines.started]
    stranger.release()


def test_what_is_no_child_of_it_tells_of_its_end_by_its_lock(queued, runs, engines, four):
    """Engines of a dispatcher that was killed, GPUs of people: looked for at once and not at the next look at all."""
    first = queued("first", device="cuda:1")
    looks(runs)
    stranger = devices.reserve(four[0])
    queued("second", device="cuda:0")
    work = Dispatcher(runs)
    work.look()
    assert work._held == [first.lock, devices._lock_path("GPU-0"), devices._lock_path("GPU-1")]
    stranger.release()
    assert not all(map(is_locked, work._held))
    work.look()
    assert engines.started == ["first", "second"]
    assert work._held == [first.lock]  # nothing waits for a GPU any more


def test_several_on_one_gpu_where_asked(queued, runs, engines, four):
    desk.set_group(runs, "g", per_gpu=2)
    for number in range(10):
        queued(f"run-{number}", device="auto", group="g")
    looks(runs, 2)
    assert len(engines.started) == 8


def test_who_shares_a_gpu_and_who_wants_it_alone_keep_apart(four):
    shared = [devices.reserve(four[0], 2) for _ in range(3)]
    assert [lock is not None for lock in shared] == [True, True, False]
    shared[0].release()
    assert devices.reserve(four[0]) is None
    alone = devices.reserve(four[1])
    assert devices.reserve(four[1], 3) is None
    for lock in (shared[1], alone):
        lock.release()


def test_one_gpu_by_its_number(queued, runs, engines, four):
    queued("a", device="cuda:2")
    queued("b", device="cuda:2")
    looks(runs, 2)
    assert [engines.given[name].gpu for name in engines.started] == ["GPU-2"]


def test_a_run_on_the_cpu_of_a_gpu_box(queued, runs, engines, four):
    queued("a", device="cpu")
    looks(runs)
    assert (engines.given["a"].gpu, engines.given["a"].threads) == ("", 4)


def test_several_gpus_are_taken_all_or_none_and_waited_for(queued, runs, engines, four):
    first = queued("first", device="auto")
    queued("wide", device="auto", gpus=4)
    queued("later", device="auto")
    work = looks(runs, 2)
    assert engines.started == ["first"]  # later would take from wide, one by one, for ever
    assert all(devices.reserve(card) is not None for card in four if card.uuid != engines.given["first"].gpu)
    engines.end("first", first)
    work.look()
    assert engines.started[1:2] in (["wide"], [])


def test_more_gpus_than_there_are(four):
    place, why = Places(four).place(Entry(device="auto", gpus=5), desk.Group())
    assert place is None
    assert why == "for auto, and this host shows 4 GPUs"


def test_an_evaluation_in_several_processes_has_threads_and_gpus_for_all_of_them(four):
    entry = Entry(device="cpu", threads=2, evaluators=3)
    assert Places([], cores=8).place(entry, desk.Group(), True)[0].threads == 6
    assert Places([], cores=8).place(entry, desk.Group())[0].threads == 2  # it trains, and is not evaluated
    assert Places([], cores=8).place(replace(entry, evaluates=True), desk.Group())[0].threads == 6
    assert Places([], used=3, cores=8).place(entry, desk.Group(), True) == (None, "for 6 of 8 CPU threads")
    shared = replace(entry, threads=None)
    assert Places([], cores=8).place(shared, desk.Group(limit=1), True)[0].threads == 6  # two for each
    assert Places([], cores=2).place(shared, desk.Group(limit=1), True)[0].threads == 3
    wants = Entry(device="auto", evaluators=3)
    assert len(Places(four).place(wants, desk.Group())[0].gpus) == 1
    place, _ = Places(four[:3]).place(wants, desk.Group(), True)
    assert len(place.gpus) == 3
    given = place.given(wants)
    assert given.arguments().count("--gpu") == 3
    assert len(given.descriptors()) == 3
    assert Places(four[:3]).place(wants, desk.Group(), True)[1] == "for 3 GPUs at once"
    place.release()
    assert len(Places(four[:2]).place(wants, desk.Group(), True)[0].gpus) == 2  # all there are


# What is called


def test_a_command_is_called_once_with_facts_in_its_environment(queued, runs, engines, tmp_path):
    run = queued("a", group="g")
    said = tmp_path / "said"
    script = "import os, sys; open(sys.argv[1], 'a').write(' '.join(map(os.environ.get, sys.argv[2:])) + '\\n')"
    notices.ask(run.path, [sys.executable, "-c", script, str(said), "HAH_RUN", "HAH_STATUS"])
    of_group = [sys.executable, "-c", script, str(said), "HAH_GROUP", "HAH_FAILED"]
    notices.ask(desk.folder_of(runs) / "groups" / "g", of_group)
    engines.becomes["a"] = "failed why"
    work = looks(runs, 4)
    deadline = time.monotonic() + 20
    while not said.exists() or said.read_text().count("\n") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sorted(said.read_text().splitlines()) == ["a failed", "g 1"]
    for called in work._called:
        called.wait()
    looks(runs, 2)
    assert said.read_text().count("\n") == 2


def test_no_shell_reads_a_command(queued, runs):
    run = queued("a")
    notices.ask(run.path, notices.words_of("echo $(touch /tmp/x) ; rm -rf /"))
    assert notices.take(run.path) == ["echo", "$(touch", "/tmp/x)", ";", "rm", "-rf", "/"]
    assert notices.take(run.path) == []


def test_commands_do_not_lie_in_the_runs_folder(queued, runs):
    run = queued("a")
    notices.ask(run.path, ["a-command"])
    assert not [path for path in runs.rglob("*") if path.is_file() and b"a-command" in path.read_bytes()]


# One of them


def test_the_second_dispatcher_goes_at_once(runs):
    desk.folder_of(runs).mkdir(parents=True)
    lock = Lock.take(desk.dispatcher_lock(runs))
    began = time.monotonic()
    dispatcher.run(runs)
    assert time.monotonic() - began < 5
    lock.release()


def test_it_goes_when_nothing_is_left_and_stays_for_what_was_asked_meanwhile(
    queued, runs, engines, monkeypatch, capsys
):
    monkeypatch.setattr(dispatcher, "IDLE", 0.0)
    queued("done", "finished")
    desk.touch(runs)
    release = Lock.release
    asked = []

    def ask_then_release(self):
        whose = os.readlink(f"/proc/self/fd/{self.descriptor}") if self.descriptor >= 0 else ""
        if not asked and whose == str(desk.dispatcher_lock(runs)):
            asked.append(queued("late"))
            engines.becomes["late"] = "finished"
        release(self)

    monkeypatch.setattr(Lock, "release", ask_then_release)
    dispatcher.run(runs)
    assert engines.started == ["late"]
    assert capsys.readouterr().out.count("begins") == 2


def test_starts_are_kept_in_bounds(queued):
    run = queued("a")
    for _ in range(250):
        queue.add_start(run, Start(time=time.time(), queued=queue.entry_of(run).queued))
    assert len(queue.starts_of(run, queue.entry_of(run))) == queue._KEPT_STARTS + 1
