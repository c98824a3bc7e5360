"""What is made of squeue's answers, whatever they are: programs stand in for Slurm's on PATH."""

import os
import tempfile
import threading
import time
from dataclasses import replace

import pytest

from engine.runs import slurm, squeue, store, submitted
from engine.runs.process import Lock
from engine.runs.slurm import Job
from engine.runs.squeue import Answer, JobNow, Poll
from engine.runs.state import read_state
from engine.sweep import sweeps
from hah_tui.cli import sweeping
from tests.tui import made as making
from tests.tui.made import alive, made


def row(id="17", cluster="ci", state="RUNNING", node="ci0", left="1-02:03:04", reason="None", command=""):
    cells = zip((id, cluster, state, node, left, reason, command), squeue._COLUMNS.values(), strict=True)
    return "".join(f"{cell:<{width}}"[:width] for cell, width in cells)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """stand_in("squeue", "echo x") -> a function that lists with what it was called."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def make(name, script):
        calls, path = programs / f"{name}.calls", programs / name
        path.write_text(f'#!/bin/bash\necho "$*" >> {calls}\n{script}\n')
        path.chmod(0o755)
        return lambda: calls.read_text().splitlines() if calls.exists() else []

    return make


def answers(stand_in, *rows, more=""):
    lines = "\n".join(rows)
    return stand_in("squeue", f"cat <<'EOF'\n{lines}\nEOF\n{more}")


def job(id="17", cluster="ci", script=""):
    number, _, task = id.partition("_")
    return Job(number, int(task) if task else None, cluster, 1.0, script)


def waits(runs, id="waits", number="17", **facts):
    runs.mkdir(exist_ok=True)
    run = made(runs, id=id, status=facts.pop("status", "queued"), epoch=0, points=0, **facts)
    job(number).write(run)
    return run


def test_a_job_that_runs_and_one_that_waits(stand_in):
    answers(stand_in, row("17_3"), row("18", state="PENDING", node="", left="5:00", reason="Resources"))
    answer = squeue.ask(["17", "18"])
    runs, waits = answer.of(job("17_3")), answer.of(job("18"))
    assert (runs.state, runs.node, runs.said) == ("running", "ci0", "job 17_3 on ci0")
    assert 93_000 < runs.seconds_left < 93_785
    assert waits.waits
    assert waits.said == "job 18 is pending: nodes or GPUs are taken"
    assert waits.seconds_left is None  # what it may run is not what is left of it
    assert not answer.problem


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("JobHeldUser", "held: scontrol release 17"),
        ("QOSMaxJobsPerUserLimit", "a limit of its account (QOSMaxJobsPerUserLimit)"),
        ("ReqNodeNotAvail, UnavailableNodes:ci[0-1]", "nodes are down, drained or reserved"),
        ("SomethingNew", "Slurm says SomethingNew"),
        ("None", "not scheduled yet"),
        ("", "Slurm gives no reason"),
    ],
)
def test_why_it_waits_in_plain_words(stand_in, reason, said):
    answers(stand_in, row(state="PENDING", node="", reason=reason))
    assert squeue.ask(["17"]).of(job()).why == said


@pytest.mark.parametrize("left", ["UNLIMITED", "NOT_SET", "INVALID", "364-23:59:59", "x"])
def test_a_job_without_a_limit_has_no_time_left(stand_in, left):
    answers(stand_in, row(left=left))
    assert squeue.ask(["17"]).of(job()).seconds_left is None


def test_of_an_array_each_task_and_what_was_cancelled_of_it(stand_in):
    answers(stand_in, row("17_0"), row("17", state="CANCELLED", node=""))
    answer = squeue.ask(["17"])
    assert answer.of(job("17_0")).state == "running"
    assert answer.of(job("17_5")).state == "cancelled"


def test_a_job_that_slurm_has_forgotten_alone_and_beside_others(stand_in):
    stand_in("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    alone = squeue.ask(["17"])
    assert (alone.of(job()).state, alone.problem) == ("gone", "")
    answers(stand_in, row("18"))
    assert squeue.ask(["17", "18"]).of(job()).state == "gone"


def test_what_slurm_knows_of_another_job_of_that_number_is_not_of_this_one(stand_in):
    answers(stand_in, row(command="/home/other/job.sh"))
    assert squeue.ask(["17"]).of(job(script="/runs/.slurm/a.sh")).state == "gone"
    assert squeue.ask(["17"]).of(job(script="/home/other/job.sh")).state == "running"
    elsewhere = squeue.ask(["17"]).of(job(cluster="north"))
    assert (elsewhere.known, elsewhere.over) == (False, False)
    assert "of the cluster north, and this one is ci" in elsewhere.said


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'welcome to the cluster'", "what is no job: welcome to the cluster"),
        ("head -c 3000 /dev/urandom", "what is no job"),
        ("printf '\\033]0;owned\\007\\033[2Jboo\\n'", "what is no job: ?]0;owned??[2Jboo"),
        ("yes " + "x" * 1000, "squeue answers without an end"),
        ("echo 'squeue: error: Invalid user' >&2; exit 1", "squeue: Invalid user"),
        ("exit 3", "ended with 3"),
        ("kill -9 $$", "ended with -9"),
        ("printf '%s' '17      RUNNING' | head -c 12", "what is no job"),
    ],
)
def test_nonsense_is_said_and_nothing_is_concluded(stand_in, monkeypatch, script, said):
    monkeypatch.setattr(squeue, "_LARGEST", 1 << 20)
    stand_in("squeue", script)
    now = squeue.ask(["17"]).of(job())
    assert (now.state, now.over, now.waits) == ("unknown", False, False)
    assert said in now.problem
    assert now.problem.isprintable()


def test_a_line_of_nonsense_takes_nothing_from_the_others(stand_in):
    answers(stand_in, "slurm will be down on Friday", row("17"), row("18+0"), row("19_[3-7%2]", state="PENDING"))
    answer = squeue.ask(["17", "20"])
    assert answer.of(job("17")).state == "running"
    assert answer.of(job("20")).state == "unknown"  # it may have been that line
    assert "slurm will be down" in answer.problem


def test_what_slurm_says_cannot_move_a_terminal(stand_in):
    answers(stand_in, row(state="PENDING", node="", reason="\033[2Jx\u202e\u0007y"))
    said = squeue.ask(["17"]).of(job()).said
    assert said.isascii()
    assert said.isprintable()


def test_a_squeue_that_hangs_with_a_child_that_keeps_its_output(stand_in, monkeypatch, tmp_path):
    monkeypatch.setattr(squeue, "PATIENCE", 0.5)
    stand_in("squeue", f"sleep 1000 & echo $! > {tmp_path}/pid; wait")
    now = squeue.ask(["17"]).of(job())
    assert (now.state, now.problem) == ("unknown", "squeue has not answered for 0.5 s")
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{pid}")


def test_without_slurm_that_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    now = squeue.ask(["17"]).of(job())
    assert (now.state, now.missing, now.problem) == ("unknown", True, "there is no squeue here")


def test_programs_without_a_cluster_are_as_none(stand_in):
    stand_in("squeue", "echo 'squeue: fatal: Could not establish a configuration source' >&2; exit 1")
    assert squeue.ask(["17"]).missing
    assert squeue.cluster() == squeue.Cluster("")


def test_how_a_person_likes_tables_changes_nothing(stand_in, monkeypatch):
    for name in ("SQUEUE_FORMAT", "SQUEUE_STATES", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/other.conf")
    stand_in("squeue", "env >&2; exit 1")
    assert "x" not in squeue.ask(["17"]).problem.split("=")
    code, _, said = squeue.run(["squeue"], 5.0)
    told = [line for line in said.splitlines() if line.startswith(("SLURM_", "SQUEUE_"))]
    assert (code, told) == (1, ["SLURM_CONF=/etc/slurm/other.conf"])


def test_one_question_for_all_runs_and_none_where_nothing_is_slurms(stand_in, runs):
    calls = answers(stand_in, row("17_0"), row("17_1", state="PENDING", reason="Priority"))
    ended = [waits(runs, f"ended-{n}", "17", status="finished") for n in range(3)]
    assert [look.slurm for look in submitted.told([*store.looks(ended)])] == [None] * 3
    person = waits(runs, "person", status="stopped", stopped_by="person")
    here = waits(runs, "queue-here")
    here.queue.write_text("{}")
    assert [look.slurm for look in submitted.told([*store.looks([person, here])])] == [None] * 2
    assert calls() == []
    waiting = [waits(runs, f"run-{n}", f"{17 + n // 10}_{n % 10}") for n in range(20)]
    told = submitted.told([*store.looks(waiting)])
    assert len(calls()) == 1
    assert "--jobs=17,18" in calls()[0]
    assert [look.slurm.state for look in told[:3]] == ["running", "pending", "gone"]
    assert told[1].why == "job 17_1 is pending: jobs of higher priority go first"
    assert "hah resume run-2 --on slurm' submits it again" in told[2].why


def now(state, **facts):
    return JobNow(job(), state, **facts)


@pytest.mark.parametrize(
    ("status", "facts", "slurm", "awaited", "words"),
    [
        ("queued", {}, now("pending", reason="Priority"), True, "higher priority"),
        ("queued", {}, now("running", node="ci0"), True, "job 17 on ci0"),
        ("queued", {}, now("cancelled"), False, "was cancelled, and never began it"),
        ("queued", {}, now("unknown", problem="silence"), False, "job 17: silence"),
        ("stopped", {"stopped_by": "signal"}, now("pending", reason="BeginTime"), True, "and will go on with it"),
        ("stopped", {"stopped_by": "signal"}, now("timeout"), False, "reached its time limit"),
        ("running", {}, now("pending", reason="BeginTime"), True, "and will go on with it"),  # and has no engine: lost
        ("running", {}, now("running", node="ci0"), False, "Slurm still has job 17 on ci0"),
        ("running", {}, now("gone"), False, "its engine is gone without a word"),
    ],
)
def test_what_is_said_of_a_run_by_its_directory_and_by_slurm(runs, status, facts, slurm, awaited, words):
    look = replace(store.look(waits(runs, status=status, **facts)), slurm=slurm)
    assert look.status == ("lost" if status == "running" else status)  # whatever Slurm says
    assert look.awaited == awaited
    assert words in look.why


def test_who_watches_a_run_whose_job_is_gone_is_told_so(stand_in, runs, here):
    run = waits(runs)
    calls = stand_in("squeue", f"[ -f {runs / 'gone'} ] || echo '{row('17', state='PENDING')}'")
    threading.Timer(1.0, (runs / "gone").touch).start()
    done = here("watch", run.id, check=False)
    assert done.returncode == 1
    assert f"{run.id} waits in vain: Slurm no longer knows job 17, and never began it; 'hah resume" in done.stdout
    assert len(calls()) >= 2


def test_a_running_engine_is_believed_more_than_slurm(runs):
    runs.mkdir()
    run, lock = alive(runs)
    look = replace(store.look(run), slurm=now("gone"))
    assert (look.status, look.why) == ("running", "")
    lock.release()


def test_a_poll_answers_at_once_while_squeue_hangs(stand_in, monkeypatch):
    monkeypatch.setattr(squeue, "PATIENCE", 1.0)
    calls = stand_in("squeue", "sleep 1000")
    poll = Poll()
    first = poll.now([job()])
    assert first.of(job()).problem == "Slurm is being asked"
    answer = until(lambda: poll.now([job()]), first)
    assert answer.of(job()).problem == "squeue has not answered for 1 s"
    assert poll.now([job()]) is answer
    assert len(calls()) == 1
    other = until(lambda: poll.now([job("18")]), answer)  # a new job is asked of at once
    assert other.numbers == {"17", "18"}


def until(call, before):
    deadline = time.monotonic() + 20
    while (answer := call()) is before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


def test_what_waits_is_stopped_and_its_job_cancelled(stand_in, runs):
    answers(stand_in, row("17_0", state="PENDING"), row("17_1", state="PENDING"))
    calls = stand_in("scancel", "true")
    some = [waits(runs, f"run-{n}", f"17_{n}") for n in range(3)]
    out, problem = submitted.withdraw([*store.looks(some)])
    assert ([run.id for run in out], problem) == (["run-0", "run-1", "run-2"], "")
    assert calls() == ["17_0 17_1"]  # of the third Slurm has no job
    assert {(read_state(run).status, read_state(run).stopped_by) for run in some} == {("stopped", "person")}


def test_what_slurm_is_to_go_on_with_is_taken_out_and_nothing_else(stand_in, runs):
    answers(stand_in, row("17", state="PENDING"), row("18", state="COMPLETED"))
    calls = stand_in("scancel", "true")
    goes_on = waits(runs, "goes-on", "17", status="stopped", stopped_by="signal")
    over = waits(runs, "over", "18", status="stopped", stopped_by="signal")
    done = waits(runs, "done", "17", status="finished")
    out, _ = submitted.withdraw([*store.looks([goes_on, over, done])])
    assert [run.id for run in out] == ["goes-on"]
    assert read_state(goes_on).stopped_by == "person"
    assert read_state(over).stopped_by == "signal"
    assert read_state(done).status == "finished"
    assert calls() == ["17"]


def test_an_engine_that_starts_meanwhile_is_not_touched(stand_in, runs):
    asked = answers(stand_in, row())
    calls = stand_in("scancel", "true")
    run = waits(runs)
    look, lock = store.look(run), Lock.take(run.lock)
    assert submitted.withdraw([look]) == ([], "")
    assert asked() == []
    lock.release()
    replace(read_state(run), status="running", updated=2e9).write(run)  # since it was looked at
    assert submitted.withdraw([look]) == ([], "")
    assert read_state(run).status == "running"
    assert calls() == []


@pytest.mark.parametrize(
    ("queue", "cancel", "said"),
    [
        (row(state="PENDING"), "echo 'scancel: error: Access/permission denied' >&2; exit 1", "permission denied"),
        ("nonsense", "exit 9", "what is no job: nonsense"),
        (row(state="PENDING"), "sleep 1000", "scancel has not answered for 0.3 s"),
    ],
)
def test_a_job_that_cannot_be_cancelled_is_said_and_its_run_is_stopped(
    stand_in, runs, here, monkeypatch, queue, cancel, said
):
    monkeypatch.setattr(submitted, "PATIENCE", 0.3)
    answers(stand_in, queue)
    stand_in("scancel", cancel)
    run = waits(runs)
    done = here("stop", run.id, check=False)
    assert done.returncode == 2
    assert "waits: stopped, but job 17 could not be cancelled" in done.stderr
    assert said in done.stderr
    assert read_state(run).stopped_by == "person"


def test_a_run_that_slurm_has_is_not_taken_up_here(stand_in, runs, here):
    run = waits(runs)
    answers(stand_in, row(state="PENDING", reason="Priority"))
    for command in (("resume", run.id), ("queue", "add", run.id)):
        done = here(*command, check=False)
        assert done.returncode == 2
        assert "waits is Slurm's: job 17 is pending: jobs of higher priority go first; 'hah stop waits'" in done.stderr
    stand_in("squeue", "exit 1")  # what is not known may be
    assert "squeue: ended with 1" in here("resume", run.id, check=False).stderr
    assert read_state(run).status == "queued"


def test_a_task_of_that_job_is_not_refused_its_own_run(stand_in, runs, monkeypatch):
    answers(stand_in, row("17_3"))
    run = waits(runs, number="17_3")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    submitted.check_free(run)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID")
    with pytest.raises(ValueError, match="is Slurm's: job 17_3 on ci0"):
        submitted.check_free(run)


@pytest.mark.parametrize(("node", "said"), [("ci0", "end with it"), (None, "does not run there")])
def test_who_queues_inside_a_job_is_told_what_ends_with_it(here, runs, monkeypatch, node, said):
    from engine.sweep import desk
    from hah_tui import engines

    monkeypatch.setattr(desk, "ensure_dispatcher", lambda folder: False)
    monkeypatch.setattr(engines, "check_place", lambda *experiments: None)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    if node:
        monkeypatch.setenv("SLURMD_NODENAME", node)
    assert said in here("queue", "add", "quickstart").stderr
    monkeypatch.delenv("SLURM_JOB_ID")
    assert "Slurm" not in here("queue", "add", "quickstart").stderr


def test_lists_show_what_slurm_says(stand_in, runs, here):
    answers(stand_in, row(state="PENDING", node="", reason="Priority"), row("18", left="59:00"))
    waits(runs)
    runs_there, lock = alive(runs)
    job("18").write(runs_there)
    listed = here("ls").stdout
    assert "jobs of higher priority go first (job 17)" in listed
    assert "job 18 on ci0, 5" in listed  # 58:59 or 59:00 left
    queue = here("queue", "ls").stdout
    assert "jobs of higher priority go first (job 17)" in queue
    assert "job 18 on ci0" in queue
    assert "job 17 is pending: jobs of higher priority go first" in here("show", "waits").stdout
    lock.release()


def test_no_answer_holds_for_a_job_that_was_not_asked_of():
    assert Answer().of(job()).problem == "Slurm is being asked"


@pytest.mark.parametrize("reason", ["Wartung für alle".encode(), "Wartung für alle".encode("latin-1"), b"a\xc2\x85b"])
def test_a_reason_that_is_not_ascii_moves_nothing(stand_in, tmp_path, reason):
    cells = zip((b"17", b"ci", b"PENDING", b"", b"5:00", reason, b"/s.sh"), squeue._COLUMNS.values(), strict=True)
    (tmp_path / "said").write_bytes(b"".join(cell.ljust(width) for cell, width in cells) + b"\n")
    stand_in("squeue", f"cat {tmp_path / 'said'}")
    answer = squeue.ask(["17"])
    assert answer.of(job(script="/s.sh")).waits
    assert not answer.problem


def test_a_job_whose_facts_are_not_all_text_is_cancelled_all_the_same(stand_in, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    stand_in("scontrol", r"printf 'JobId=17 JobState=CANCELLED Reason=None Restarts=0 Comment=f\xfcr'")
    assert slurm.cancelled()


def test_slurm_is_asked_also_where_no_temporary_file_can_be_made(stand_in, monkeypatch):
    answers(stand_in, row(state="PENDING", node=""))
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert squeue.ask(["17"]).of(job()).waits


def test_a_run_whose_job_is_gone_has_failed_for_every_command_that_waits(stand_in, runs, here):
    plan = making.sweep(runs, "base: quickstart\nseeds: 1\n")
    run = making.trial(runs, plan, 0, 2022, "queued")
    job().write(run)
    answers(stand_in, row("17", state="CANCELLED"))
    for command in (["watch", run.id], ["queue", "wait", run.id], ["sweep", "status", plan.name]):
        assert here(*command, check=False).returncode == 1, command


def test_an_evaluation_whose_job_is_gone_says_how_it_is_submitted_again(stand_in, runs, here):
    run = made(runs, id="a")
    run.evaluation.path.mkdir(parents=True)
    run.evaluation.config.write_bytes(run.config.read_bytes())
    replace(read_state(run), kind="evaluation", status="queued").write(run.evaluation)
    job().write(run.evaluation)
    answers(stand_in, row("17", state="CANCELLED"))
    done = here("watch", run.evaluation.id, check=False)
    assert done.returncode == 1
    assert f"was cancelled, and never began it; 'hah resume {run.evaluation.id} --on slurm'" in done.stdout


def test_a_job_of_another_cluster_is_not_called_forgotten(stand_in, runs):
    run = waits(runs)
    stand_in("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    squeue._cluster_name.cache_clear()
    try:
        stand_in("scontrol", "echo 'ClusterName             = other'")
        look = submitted.told([store.look(run)])[0]
        assert look.why == "job 17: it is of the cluster ci, and this one is other"
        assert not look.abandoned
    finally:
        squeue._cluster_name.cache_clear()


@pytest.mark.parametrize(("state", "code"), [("PENDING", 130), ("COMPLETED", 1)])
def test_a_sweep_whose_lost_run_slurm_goes_on_with_is_still_to_be_done(stand_in, runs, here, state, code):
    plan = making.sweep(runs, "base: quickstart\nseeds: 1\n")
    run = making.trial(runs, plan, 0, 2022, "running")  # and has no engine: lost
    job().write(run)
    answers(stand_in, row("17", state=state))
    assert here("sweep", "status", plan.name, check=False).returncode == code


@pytest.mark.parametrize(
    ("status", "state", "waits"),
    [("queued", "PENDING", True), ("queued", "CANCELLED", False), ("running", "PENDING", True),
     ("running", "COMPLETED", False)],
)  # fmt: skip
def test_who_follows_a_sweep_waits_for_what_slurm_does_and_no_longer(stand_in, runs, status, state, waits):
    plan = making.sweep(runs, "base: quickstart\nseeds: 1\n")
    job().write(making.trial(runs, plan, 0, 2022, status))  # running, and has no engine: lost
    answers(stand_in, row("17", state=state))
    assert sweeping._under_way(runs, sweeps.told(sweeps.trials(plan, [runs]))) == waits
