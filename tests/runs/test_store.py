"""The runs folder: found, named, labelled, deleted; nothing outside it is ever touched."""

import os

import pytest

from engine.disk import clear_temporary, read_json, replace_json, replacing
from engine.experiment import RequestError, presets
from engine.experiment.fingerprint import fingerprint
from engine.runs import control, layout, store
from engine.runs.events import EventLog, Tail
from engine.runs.layout import RunDirectory, create, runs_folder
from engine.runs.process import Lock
from engine.runs.state import State


@pytest.fixture
def three(runs):
    made = [create(runs, name, "train: {epochs: 3}\n") for name in ("alpha", "beta", "beta")]
    for place, run in enumerate(made):
        os.utime(run.config, (1000 + place, 1000 + place))
    return made


def test_ids_are_the_name_and_four_characters_nobody_else_has(runs, monkeypatch):
    picks = iter("aaaa" + "aaaa" + "bbbb")
    monkeypatch.setattr(layout.secrets, "choice", lambda alphabet: next(picks))
    first, second = create(runs, "x", ""), create(runs, "x", "")
    assert (first.id, second.id) == ("x-aaaa", "x-bbbb")
    for part in (first.control, first.checkpoints, first.results, first.tensorboard):
        assert part.is_dir()


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="a run cannot be made there"):
        create(tmp_path / "file" / "runs", "x", "")


def test_where_runs_live(tmp_path, monkeypatch):
    assert runs_folder(tmp_path / "a") == tmp_path / "a"
    monkeypatch.setenv("HAH_RUNS", str(tmp_path / "b"))
    assert runs_folder() == tmp_path / "b"
    monkeypatch.delenv("HAH_RUNS")
    assert runs_folder() == tmp_path / "xdg_data_home" / "hah-tui" / "runs"


def test_newest_first_and_by_every_kind_of_reference(runs, three):
    assert [run.id for run in store.all_runs(runs)] == [run.id for run in reversed(three)]
    assert store.resolve("@last", runs).id == three[2].id
    assert store.resolve(three[0].id, runs).id == three[0].id
    assert store.resolve("alpha", runs).id == three[0].id
    assert store.resolve("al", runs).id == three[0].id
    with pytest.raises(RequestError, match="'beta' begins the ids of 2 runs"):
        store.resolve("beta", runs)
    with pytest.raises(RequestError, match="did you mean alpha-"):
        store.resolve("alhpa-x", runs)
    with pytest.raises(RequestError, match="no run is called ''"):
        store.resolve("", runs)
    with pytest.raises(RequestError, match="there are no runs in"):
        store.resolve("x", runs / "nowhere")


def test_what_is_no_run_is_not_listed(runs, three, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.yaml").write_text("x")
    (runs / "link").symlink_to(outside)
    (runs / "empty").mkdir()
    (runs / ".hidden").mkdir()
    (runs / "a file").write_text("")
    (runs / "bad\x1b[31mname").mkdir()
    (runs / "bad\x1b[31mname" / "config.yaml").write_text("")
    (runs / "linked-config").mkdir()
    (runs / "linked-config" / "config.yaml").symlink_to("/etc/passwd")
    assert {run.id for run in store.all_runs(runs)} == {run.id for run in three}
    with pytest.raises(RequestError):
        store.resolve("link", runs / "nothing")


@pytest.mark.parametrize("reference", ["../outside", "/etc", "..", ".", "a/../../b", "x" * 10_000, "\x1b[2J", "\0"])
def test_references_that_lead_out_are_no_runs(runs, three, reference):
    with pytest.raises(RequestError):
        store.resolve(reference, runs)


def test_labels(runs, three):
    run = three[0]
    assert store.labels(run) == store.Labels()
    assert store.label(run, add=["good", "figure-2"], note="keep").tags == ("good", "figure-2")
    assert store.label(run, add=["good"], remove=["figure-2"]) == store.Labels(("good",), "keep")
    assert store.labels(run) == store.Labels(("good",), "keep")
    for bad in ("a b", "", "\x1b[31m", "x" * 81, "../x"):
        with pytest.raises(RequestError, match="cannot be a tag"):
            store.label(run, add=[bad])
    run.labels.write_text('{"tags": "x", "note": 3}')
    assert store.labels(run) == store.Labels()


def test_removal_takes_the_run_and_nothing_else(runs, three, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (three[0].results / "link").symlink_to(victim)
    store.remove(three[0])
    assert not three[0].path.exists()
    assert victim.exists()
    assert [run.id for run in store.all_runs(runs)] == [three[2].id, three[1].id]
    assert sorted(os.listdir(runs)) == sorted(run.id for run in three[1:])


def test_a_live_run_is_not_removed(runs, three):
    lock = Lock.take(three[0].lock)
    with pytest.raises(RequestError, match="is starting; 'hah stop"):
        store.remove(three[0])
    lock.release()
    assert three[0].config.exists()


@pytest.mark.parametrize("part", ["checkpoints", "control", "state.json", "engine.log", "events.jsonl"])
def test_a_run_directory_with_a_link_in_it_is_not_written(three, tmp_path, part):
    run = three[0]
    path = run.path / part
    if path.is_dir():
        path.rmdir()
    path.symlink_to(tmp_path)
    with pytest.raises(RequestError, match="is a symbolic link"):
        run.check()
    with pytest.raises(RequestError, match="is a symbolic link"):
        store.remove(run)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    replace_json(path, {"a": 1})
    with pytest.raises(TypeError), replacing(path) as file:
        file.write([b"half", None])
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]
    with pytest.raises(ValueError, match="JSON"):
        replace_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}


def test_files_have_the_users_umask(runs):
    before = os.umask(0o027)
    try:
        run = create(runs, "x", "")
        State().write(run)
        EventLog(run.events).close()
        for path, mode in ((run.path, 0o750), (run.state, 0o640), (run.config, 0o640), (run.events, 0o640)):
            assert path.stat().st_mode & 0o777 == mode, path
    finally:
        os.umask(before)


def test_temporary_files_of_killed_writers_are_swept(tmp_path):
    (tmp_path / ".last.pt.12.ab.tmp").write_text("")
    (tmp_path / "kept.tmp").write_text("")
    (tmp_path / ".folder.tmp").mkdir()
    assert clear_temporary(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == [".folder.tmp", "kept.tmp"]


def test_commands_arrive_in_order_and_stay_until_they_are_done(three):
    run = three[0]
    first = control.send(run, "set", "hah.lambda", 0.3)
    second = control.send(run, "stop")
    (run.control / "nonsense.json").write_text("{")
    (run.control / "foreign.txt").write_text("")
    inbox = control.Inbox(run)
    commands = inbox.read()
    assert [(c.id, c.verb, c.name, c.value) for c in commands] == [
        (first, "set", "hah.lambda", 0.3), (second, "stop", "", None), ("nonsense", "", "", None),
    ]  # fmt: skip
    assert [bool(command.problem) for command in commands] == [False, False, True]
    inbox.done(commands[0])
    assert [command.id for command in inbox.read()] == [second, "nonsense"]
    inbox.clear()
    assert inbox.read() == []


def test_an_acknowledgement_is_found_by_the_commands_id(three):
    log = EventLog(three[0].events)
    tail = Tail(three[0].events, from_end=True)
    assert control.acknowledgement(tail, "b") is None
    log.append("command", id="a", ok=True)
    log.append("command", id="b", ok=False, text="no")
    assert control.acknowledgement(tail, "b")["text"] == "no"
    log.close()


def test_a_run_directory_is_its_path():
    run = RunDirectory(layout.Path("/x/y-abcd"))
    assert run.id == "y-abcd"
    assert {run.config.name, run.manifest.name, run.events.name, run.state.name, run.log.name} == {
        "config.yaml", "manifest.json", "events.jsonl", "state.json", "engine.log",
    }  # fmt: skip


def test_the_group_of_a_run_is_its_experiments_and_of_one_that_was_changed_nobodys(runs):
    experiment = presets.load("quickstart", ["seed=7"])
    run = create(runs, "x", presets.dumped(experiment))
    group = fingerprint(presets.load("quickstart"), seed=False)
    assert store.group_of(run, State()) == group
    assert store.group_of(run, State(group=group[:-4] + "0123")) == group[:-4] + "0123"  # as it is stored
    assert store.group_of(run, State(group="1-0123")) == group  # of other settings: made again
    assert store.group_of(run, State(group=group, changed={"observe.every": 2})) == group
    longer = fingerprint(presets.load("quickstart", ["train.epochs=99"]), seed=False)
    assert store.group_of(run, State(changed={"train.epochs": 99})) == longer
    assert store.group_of(run, State(group=group, changed={"hah.lambda": 0.1})) == ""
    run.config.write_text("train: [")
    assert store.group_of(run, State()) == ""
