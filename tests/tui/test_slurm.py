"""Runs of Slurm on the screens: what squeue says of them, and that nobody waits for a squeue that hangs."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
from textual.widgets import OptionList

from engine.experiment import presets
from engine.experiment.mistakes import RequestError
from engine.runs import evaluations, squeue, store
from engine.runs.slurm import Job, job_of
from engine.runs.squeue import Cluster
from engine.runs.state import read_state
from engine.sweep import sbatch, sweeps
from engine.sweep.handover import Handover
from hah_tui import engines, text
from hah_tui.screens import run_detail
from hah_tui.screens import runs as runs_screen
from tests.tui.driving import drive, form, still, until, words
from tests.tui.made import NOW, alive, made
from tests.tui.snapshot import SIZES, check


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """programs("squeue", "echo x") puts a program in the place of one of Slurm's."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name, script):
        (folder / name).write_text(f'#!/bin/bash\necho "$*" >> {folder}/{name}.calls\n{script}\n')
        (folder / name).chmod(0o755)
        return folder / f"{name}.calls"

    return make


def rows(*jobs):
    every = (zip(job, squeue._COLUMNS.values(), strict=True) for job in jobs)
    return "\n".join("".join(f"{cell:<{width}}" for cell, width in cells) for cells in every)


WAITS = ("17_3", "ci", "PENDING", "", "10:00", "Priority", "")
RUNS = ("18", "ci", "RUNNING", "ci0", "1:00:00", "None", "")


@pytest.fixture
def two(runs):
    """A run that waits in Slurm and one at work there."""
    runs.mkdir()
    at_work, lock = alive(runs, created=1_790_000_000.0)
    waits = made(runs, id="waits", status="queued", epoch=0, points=0)
    Job("17", 3, "ci", 1.0, "").write(waits)
    Job("18", None, "ci", 1.0, "").write(at_work)
    yield waits, at_work
    lock.release()


def test_the_list_the_queue_and_the_monitor_say_what_slurm_says(runs, two, programs):
    programs("squeue", f"cat <<'EOF'\n{rows(WAITS, RUNS)}\nEOF")
    waits, _ = two

    async def body(pilot, app):
        said = set()

        async def find(words_, where="#detail"):
            for _ in range(2):
                await until(pilot, lambda: "being asked" not in words(app, where))
                said.add(words(app, where))
                await pilot.press("down")
                await pilot.pause(0.2)
            assert any(words_ in one for one in said), said

        await find("job 17_3 is pending: jobs of higher priority go first")
        assert any("job 18 on ci0, " in one for one in said)
        await pilot.press("Q")
        await until(pilot, lambda: type(app.screen).__name__ == "QueueScreen" and len(app.screen.rows) == 2)
        await until(pilot, lambda: "1 run, 1 wait" in words(app, "#head"))
        assert "nobody starts" not in words(app, "#head")  # it is not this host's to start
        why = [cells[-1][0] for cells in app.screen._filled]
        assert why[0].startswith("job 18 on ci0, ")
        assert why[1] == "jobs of higher priority go first (job 17_3)"
        await pilot.press("down", "J")
        await until(pilot, lambda: app.screen._current == waits.id)
        await pilot.press("enter")
        await until(pilot, lambda: type(app.screen).__name__ == "MonitorScreen" and app.screen.source.look)
        await until(pilot, lambda: app.screen.source.look.slurm.waits)
        assert app.screen.source.look.why == "job 17_3 is pending: jobs of higher priority go first"

    drive(runs, body, (120, 30))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_pictures_of_runs_that_slurm_has(runs, two, programs, monkeypatch, size):
    monkeypatch.setattr(text, "time", SimpleNamespace(time=lambda: NOW))
    for module in (runs_screen, run_detail):
        monkeypatch.setattr(module, "home", lambda path: f"~/runs/{path.name}")
    unlimited = (*RUNS[:4], "UNLIMITED", *RUNS[5:])  # no seconds that count down
    programs("squeue", f"cat <<'EOF'\n{rows(WAITS, unlimited)}\nEOF")
    at_work = two[1].path.rename(runs / "at-work")
    two[0].path.rename(runs / "waits-for-its-turn")
    assert at_work.is_dir()

    async def body(pilot, app):
        await until(pilot, lambda: app.screen._order and "Slurm" not in words(app, "#detail"))
        for key in ("down", "up"):
            await pilot.press(key)
            await until(pilot, lambda: "being asked" not in words(app, "#detail"))
        await until(pilot, lambda: "job 1" in words(app, "#detail"))
        await still(pilot, app)
        check(app, "runs-slurm")
        await pilot.press("Q")
        await until(pilot, lambda: type(app.screen).__name__ == "QueueScreen" and len(app.screen.rows) == 2)
        await until(pilot, lambda: "1 run, 1 wait" in words(app, "#head"))
        await until(pilot, lambda: "job 17_3" in app.screen.rows[1][1])
        await still(pilot, app)
        check(app, "queue-slurm")

    drive(runs, body, size)


def test_the_stop_key_takes_out_what_waits(runs, two, programs):
    programs("squeue", f"cat <<'EOF'\n{rows(WAITS, RUNS)}\nEOF")
    calls = programs("scancel", "true")
    waits, _ = two

    async def body(pilot, app):
        await pilot.press("Q")
        await until(pilot, lambda: type(app.screen).__name__ == "QueueScreen" and len(app.screen.rows) == 2)
        await pilot.press("down")
        await until(pilot, lambda: app.screen._current == waits.id)
        await pilot.press("s")
        await until(pilot, lambda: read_state(waits).status == "stopped")
        await until(pilot, calls.exists)
        assert calls.read_text() == "17_3\n"

    drive(runs, body)


def test_a_squeue_that_hangs_holds_no_picture_up(runs, two, programs):
    calls = programs("squeue", "sleep 1000")

    async def body(pilot, app):
        await until(pilot, lambda: calls.exists())
        assert len(app.screen._order) == 2  # while it hangs
        await pilot.press("Q")
        await until(pilot, lambda: type(app.screen).__name__ == "QueueScreen" and len(app.screen.rows) == 2)
        assert "Slurm is being asked" in app.screen.rows[1][1]
        await until(pilot, lambda: "has not answered for" in app.screen.rows[1][1])
        assert calls.read_text().count("--noheader") == 1

    drive(runs, body)


@pytest.fixture
def cluster(programs, monkeypatch, tmp_path):
    """cluster("slurm.yaml", ...) -> the calls of an sbatch whose jobs are 70, 71, ..., at sites of these profiles."""
    monkeypatch.setattr(sbatch, "site", lambda: Cluster("24.11.5", "ci", 10))

    def make(*profiles):
        for name in profiles:
            path = tmp_path / "xdg_config_home" / "hah-tui" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("cpus: 1\n")
        programs("squeue", "true")  # Slurm forgets at once
        return programs("sbatch", "echo $((69 + $(wc -l < $0.calls)))")

    return make


def test_the_form_hands_a_run_and_a_run_for_each_seed_to_slurm(runs, cluster):
    made(runs, id="a", seed=1)
    calls, submitted = cluster("slurm/small.yaml", "slurm/large.yaml"), []

    async def body(pilot, app):
        for place, seeds in enumerate(("1", "3")):
            await form(pilot, app)
            await pilot.press("f3")
            await until(pilot, lambda: type(app.screen).__name__ == "PickRun")
            assert app.screen.query_one(OptionList).option_count == 2
            await pilot.press(*"small", "enter")
            await until(pilot, lambda: type(app.screen).__name__ == "Ask")
            assert str(app.screen.query_one(".dialog").border_title) == "Hand to Slurm (small)"
            await pilot.press(seeds, "enter")
            await until(pilot, lambda: type(app.screen).__name__ == "QueueScreen", 60)
            await until(pilot, lambda n=1 + 2 * place: len(app.screen.rows) == n)
            submitted[:] = [run for run in store.all_runs(runs) if run.id != "a"]
            # Once more with the others, as Slurm has forgotten the first.
            assert sorted(job_of(run).id for run in submitted) == [["70"], ["71_0", "71_1", "71_2"]][place]
            await pilot.press("escape")

    drive(runs, body)
    assert sorted(read_state(run).seed for run in submitted) == [2022, 2023, 2024]
    assert len(calls.read_text().splitlines()) == 2
    (sweep,) = sweeps.names(runs)
    assert (sweeps.read(runs, sweep).on, sweeps.read(runs, sweep).profile) == ("slurm", "small")


def test_a_sweep_that_sbatch_refuses_leaves_nothing(runs, cluster, programs):
    made(runs, id="a", seed=1)
    cluster("slurm.yaml")
    programs("sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")

    async def body(pilot, app):
        await form(pilot, app)
        await pilot.press("f3")
        await until(pilot, lambda: type(app.screen).__name__ == "Ask")
        await pilot.press("2", "enter")
        await until(pilot, lambda: "Invalid account" in said(app), 60)

    drive(runs, body)
    assert [run.id for run in store.all_runs(runs)] == ["a"]
    assert sweeps.names(runs) == []


def said(app):
    return "\n".join(one.message for one in app._notifications)


def stopped(runs, id):
    run = made(runs, id=id, status="stopped", epoch=1)
    (run.checkpoints / "last.pt").write_bytes(b"x")
    return run


def test_what_was_stopped_goes_on_in_slurm_where_somebody_said_how(runs, cluster, programs):
    """Several in one array, however often the key is pressed; what cannot go on is named."""
    a, b = stopped(runs, "a"), stopped(runs, "b")
    made(runs, id="c")

    async def body(pilot, app):
        assert not app.has_site
        await pilot.press("asterisk", "f3")
        await until(pilot, lambda: "'hah slurm-profile --write' puts an example at" in said(app))
        cluster("slurm.yaml")
        calls = programs("sbatch", "sleep 1; echo 70")  # while the key is pressed again
        await pilot.press("f3", "f3", "f3")
        await until(pilot, lambda: "c is finished; nothing to go on with" in said(app), 60)
        assert app.has_site
        assert sorted(job_of(run).id for run in (a, b)) == ["70_0", "70_1"]
        assert len(calls.read_text().splitlines()) == 1
        assert not app.handing

    drive(runs, body)
    assert [read_state(run).status for run in (a, b)] == ["queued", "queued"]


def test_what_was_handed_over_is_told_where_the_next_is_refused(runs, cluster, monkeypatch):
    run, other = stopped(runs, "a"), made(runs, id="b")
    lock = evaluations.take(other)
    state = evaluations.prepare(other, presets.load("quickstart", ["evaluate.suites=[noise]"]), "last")
    replace(state, status="stopped").write(other.evaluation)
    lock.release()
    cluster("slurm.yaml")
    enter = Handover.__enter__

    def refused(over):
        if over._only_evaluation:
            raise RequestError("something else is being handed to Slurm for long")
        return enter(over)

    monkeypatch.setattr(Handover, "__enter__", refused)
    handed, mistakes = engines.hand_over_again([run, other.evaluation], None)
    assert [one.directory.id for one in handed] == ["a"]
    assert [str(one) for one in mistakes] == ["something else is being handed to Slurm for long"]


def test_two_who_hand_over_one_run_at_once_submit_it_once(runs, cluster, programs):
    run = stopped(runs, "a")
    cluster("slurm.yaml")
    row = rows(("70", *WAITS[1:-1], "SCRIPT"))
    programs("squeue", f"row='{row}'; script=$(ls {runs}/.slurm/*.sh) && echo \"${{row/SCRIPT/$script}}\"")
    calls = programs("sbatch", "sleep 1; echo 70")
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: engines.hand_over_again([run], None), range(2)))
    assert sorted(len(handed) for handed, _ in done) == [0, 1]
    [refused] = [mistake for _, refused in done for mistake in refused]
    assert str(refused).startswith("a is Slurm's: job 70 is pending")
    assert len(calls.read_text().splitlines()) == 1
    assert job_of(run).id == "70"


def test_who_leaves_while_something_is_handed_over_leaves_when_it_is(runs, cluster, programs):
    run = stopped(runs, "a")
    cluster("slurm.yaml")
    calls = programs("sbatch", "sleep 1; echo 70")

    async def body(pilot, app):
        await pilot.press("f3")
        await until(pilot, calls.exists, 60)
        await pilot.press("q")
        assert app.is_running
        assert "is done first; q again leaves at once" in said(app)
        await until(pilot, lambda: app._exit)
        assert job_of(run).id == "70"

    drive(runs, body)


def test_a_run_whose_job_is_gone_is_submitted_again_from_the_queue(runs, cluster):
    run = made(runs, id="waits", status="queued", epoch=0, points=0)
    Job("17", None, "ci", 1.0, "").write(run)
    cluster("slurm.yaml")

    async def body(pilot, app):
        await pilot.press("Q")
        await until(pilot, lambda: type(app.screen).__name__ == "QueueScreen" and app.screen.rows)
        await until(pilot, lambda: app.screen._current == run.id)
        await pilot.press("f3")
        await until(pilot, lambda: (note := job_of(run)) is not None and note.id == "70", 60)

    drive(runs, body)


def test_an_evaluation_is_handed_to_slurm(runs, cluster, monkeypatch):
    run = made(runs, id="a")
    (run.checkpoints / "last.pt").write_bytes(b"x")
    monkeypatch.setattr(engines, "forecast", lambda *asked: "")

    async def body(pilot, app):
        await pilot.press("R")
        await until(pilot, lambda: type(app.screen).__name__ == "ResultsScreen")
        await pilot.press("e")
        await until(pilot, lambda: type(app.screen).__name__ == "EvaluateDialog")
        await pilot.press("f3")  # there is no profile
        await until(pilot, lambda: app._notifications)
        assert type(app.screen).__name__ == "EvaluateDialog"  # what was chosen is not lost
        cluster("slurm/one.yaml", "slurm/two.yaml")
        await pilot.press("f3")
        await until(pilot, lambda: type(app.screen).__name__ == "PickRun")
        await pilot.press("escape")
        await until(pilot, lambda: type(app.screen).__name__ == "EvaluateDialog")
        await pilot.press("f3")
        await until(pilot, lambda: type(app.screen).__name__ == "PickRun")
        await pilot.press(*"two", "enter")
        await until(pilot, lambda: job_of(run.evaluation) is not None, 60)

    drive(runs, body)
    assert read_state(run.evaluation).status == "queued"


def test_who_leaves_stays_to_read_that_it_was_refused(runs, cluster, programs):
    stopped(runs, "a")
    cluster("slurm.yaml")
    calls = programs("sbatch", "sleep 1; echo 'sbatch: error: Invalid account' >&2; exit 1")

    async def body(pilot, app):
        await pilot.press("f3")
        await until(pilot, calls.exists, 60)
        await pilot.press("q")
        await until(pilot, lambda: "Invalid account" in said(app), 60)
        await pilot.pause(0.3)
        assert not app._exit
        await pilot.press("q")
        assert app._exit

    drive(runs, body)
    assert read_state(store.resolve("a", runs)).status == "stopped"
