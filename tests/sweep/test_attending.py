"""Which hosts start what waits in a folder: all that see each other's locks, else one."""

import json
import os

import pytest

from engine.experiment.mistakes import RequestError
from engine.runs import devices
from engine.runs.devices import Gpu
from engine.runs.mounts import Mount
from engine.runs.process import Lock
from engine.sweep import desk, queue
from engine.sweep.dispatcher import Dispatcher
from engine.sweep.queue import Queue
from tests.sweep.test_dispatcher import engines  # noqa: F401 (a fixture)

KINDS = {"disk": "ext4", "shared": "nfs4", "local": "nfs", "unknown": "fuse.x"}


@pytest.fixture
def on(monkeypatch):
    """on("node-a", "shared"): what follows is done on that host, which sees the folder so."""

    def be(name, locks):
        monkeypatch.setattr(desk, "this_host", lambda: name)
        monkeypatch.setattr(desk, "mount_of", lambda folder: Mount(KINDS[locks], "box:/x", locks, f"{locks} locks"))

    return be


@pytest.fixture
def attend(on, runs):
    """attend("node-a", "shared") -> what its dispatcher is refused for; its lock is held until the end."""
    held = {}

    def tell(name, locks, seen=True):
        on(name, locks)
        why = desk.register(runs, 0, 2, "abc")
        if seen and not why and name not in held:
            held[name] = Lock.take(desk.dispatcher_lock(runs))
        return why

    yield tell
    for lock in held.values():
        lock.release()


@pytest.mark.parametrize("locks", ["disk", "shared"])
def test_where_locks_are_everybodys_so_is_the_queue(attend, locks):
    assert [attend(name, locks, seen=False) for name in ("node-a", "node-b", "node-c")] == ["", "", ""]


@pytest.mark.parametrize("locks", ["local", "unknown"])
def test_where_they_are_not_the_first_has_it_until_a_person_says_another(attend, on, runs, locks):
    assert attend("node-a", locks, seen=False) == ""
    why = attend("node-b", locks, seen=False)
    assert why == (
        f"{runs} is on {KINDS[locks]} of box:/x, {locks} locks; node-a starts what waits there, and only one host may. "
        "'hah queue resume --here' makes it this one"
    )
    with pytest.raises(RequestError, match="only one host may"):
        desk.ensure_dispatcher(runs)
    assert attend("node-a", locks, seen=False) == ""  # still
    on("node-b", locks)
    desk.set_home(runs)
    assert attend("node-b", locks, seen=False) == ""
    assert "node-b starts what waits there" in attend("node-a", locks, seen=False)


def test_what_the_table_does_not_know_is_settled_by_a_lock_that_is_seen(attend, runs):
    assert attend("node-a", "unknown") == ""  # and holds its lock
    assert attend("node-b", "unknown") == ""
    assert {host.name: host.locks for host in desk.hosts(runs)} == {"node-a": "unknown", "node-b": "shared"}
    assert attend("node-a", "unknown") == ""
    assert {host.locks for host in desk.hosts(runs)} == {"shared"}


def test_a_server_and_its_clients_do_not_see_each_others_locks(attend):
    """What flock locks on a client of NFS is locked on the server by another kind of lock than flock there."""
    assert attend("box", "disk", seen=False) == ""
    why = attend("node-a", "shared", seen=False)
    assert "box sees it as ext4, and neither the other's locks; box starts what waits there" in why
    assert attend("box", "disk", seen=False) == ""


def test_two_machines_of_one_name_are_told(attend, runs, monkeypatch):
    attend("node-a", "shared")
    path = desk.folder_of(runs) / "hosts" / "node-a.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
    monkeypatch.setattr(desk, "_TELLING", 0.1)
    with pytest.raises(RequestError, match="another machine that is called node-a, too"):
        desk.ensure_dispatcher(runs)


@pytest.mark.parametrize("text", ["", "{}", "nonsense", '{"host": 3, "gpus": "x"}'])
def test_damage_is_not_somebody(attend, on, runs, text):
    attend("node-a", "local", seen=False)
    for path in (desk.folder_of(runs) / "home.json", desk.folder_of(runs) / "hosts" / "node-a.json"):
        path.write_text(text)
    attend("node-b", "local", seen=False)
    on("node-b", "local")
    desk.set_home(runs)
    assert desk.refusal(runs) == ""


def test_what_a_person_wants_of_a_host(on, runs, here, monkeypatch):
    started = []
    monkeypatch.setattr(desk.launch, "background", lambda *command: started.append(command))
    on("login", "shared")
    assert "login: never" in here("queue", "attend", "never").stdout
    assert not desk.ensure_dispatcher(runs)
    assert started == []
    on("node-a", "shared")  # it is said of one host
    here("queue", "attend", "always")
    assert len(started) == 1
    refused = here("queue", "attend", "sometimes", check=False)
    assert (refused.returncode, "must be one of needed, always, never" in refused.stderr) == (2, True)


def test_a_dispatcher_that_may_not_goes(queued, attend, on, runs, engines, capsys):  # noqa: F811
    queued("a")
    attend("node-a", "local", seen=False)
    on("node-b", "local")
    work = Dispatcher(runs)
    work.work()
    assert engines.started == []
    assert "ends: " in capsys.readouterr().out
    on("login", "disk")
    desk.set_wish(runs, "never")
    desk.set_home(runs)
    Dispatcher(runs).work()
    assert engines.started == []


def test_one_that_is_to_stay_stays(queued, on, runs, engines, monkeypatch):  # noqa: F811
    queued("a", "finished")
    on("node-a", "disk")
    desk.set_wish(runs, "always")
    monkeypatch.setattr("engine.sweep.dispatcher.IDLE", 0.0)
    asked = []

    def wish(folder):
        asked.append(folder)
        return "always" if len(asked) < 8 else "needed"

    monkeypatch.setattr(desk, "wish", wish)
    Dispatcher(runs).work()
    assert len(asked) >= 8


def test_a_groups_limit_is_that_of_the_folder(queued, on, runs, engines):  # noqa: F811
    """Whoever starts something counts, alone, what runs on all hosts."""
    desk.set_group(runs, "g", limit=1)
    queued("a", group="g")
    queued("b", group="g")
    on("node-a", "shared")
    Dispatcher(runs).look()
    on("node-b", "shared")
    other = Dispatcher(runs)
    other.look()
    assert engines.started == ["a"]
    lock = Lock.take(desk.folder_of(runs) / "starting.lock")
    engines.end("a", queue.Queue(runs).items()[0].run)
    assert other.look()  # and waits for its turn
    assert engines.started == ["a"]
    lock.release()
    other.look()
    assert engines.started == ["a", "b"]


def test_what_may_have_a_gpu_waits_for_that_of_another_host(queued, attend, on, runs, engines, monkeypatch):  # noqa: F811
    for name, device in (("a", "auto"), ("b", "cpu")):
        queued(name, device=device, threads=1)
    card = Gpu(0, "GPU-0", "Fake", 80.0, 80.0, 0.0, False)
    attend("gpu-box", "shared")
    desk.register(runs, 1, 2, "")
    on("node-a", "shared")
    Dispatcher(runs).look()
    assert engines.started == ["b"]
    Lock.take(desk.dispatcher_lock(runs)).release()
    assert json.loads(desk.waits_file(runs).read_text()) == {"a": "for a GPU of gpu-box"}
    on("gpu-box", "shared")
    monkeypatch.setattr(devices, "gpus", lambda: [card])
    Dispatcher(runs).look()
    assert engines.started == ["b", "a"]
    assert engines.given["a"].gpu == "GPU-0"


def test_a_host_without_the_data_leaves_a_run_to_one_that_has_it(queued, runs, engines, tmp_path):  # noqa: F811
    queued("a", dataset="cifar10", data=str(tmp_path / "data"))
    queued("b", dataset="cifar10")  # in the cache folder of whoever runs it, which has none
    queued("c", dataset="digits", threads=1)
    Dispatcher(runs).look()
    assert engines.started == ["c"]
    said = json.loads(desk.waits_file(runs).read_text())
    assert said["a"] == f"for cifar10, which is not in {tmp_path / 'data'} on this host"
    assert "xdg_cache_home" in said["b"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10.npz").touch()
    Dispatcher(runs).look()
    assert said.keys() == {"a", "b"}
    engines.end("c", next(item.run for item in Queue(runs).items() if item.run.id == "c"))
    Dispatcher(runs).look()
    assert engines.started == ["c", "a"]


def test_why_runs_wait_is_said_by_host(queued, attend, on, runs, here):
    queued("a")
    for name, why in (("node-a", "for a GPU"), ("node-b", "for 2 of 2 CPU threads")):
        attend(name, "shared")
        desk.waits_file(runs).write_text(json.dumps({"a": why}))
    listed = here("queue", "ls", "--json").stdout
    (run,) = json.loads(listed)["runs"]
    assert run["why"] == "node-b: for 2 of 2 CPU threads; node-a: for a GPU"
    assert [(host["name"], host["attends"], host["here"]) for host in json.loads(listed)["hosts"]] == [
        ("node-a", True, False), ("node-b", True, True),
    ]  # fmt: skip
    said = here("queue", "ls").stderr
    assert "hosts that start what waits: node-a (2 CPU threads, commit abc), node-b (this one, 2 CPU threads" in said
    on("node-c", "shared")
    assert "nobody on this host starts what waits (others do, for their own devices)" in here("queue", "ls").stderr


def test_different_commits_are_said(attend, on, runs, here):
    attend("node-a", "shared")
    attend("node-b", "shared")
    desk.register(runs, 0, 2, "def")
    assert "they run different commits" in here("queue", "ls").stderr


def test_hosts_files_through_a_link_are_not_written(on, runs, tmp_path):
    on("node-a", "disk")
    desk.folder_of(runs).mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", desk.folder_of(runs) / "hosts")
    with pytest.raises(RequestError, match="symbolic link"):
        desk.register(runs, 0, 2, "")
    assert list((tmp_path / "outside").iterdir()) == []
