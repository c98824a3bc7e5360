"""Handing runs to Slurm: profiles, scripts, what is said, and what is left where it does not work out."""

import json
import os
import re
import subprocess

import pytest

from engine.disk import read_json
from engine.experiment.mistakes import RequestError
from engine.runs import store
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory
from engine.runs.slurm import job_of
from engine.runs.squeue import Cluster
from engine.runs.state import read_state
from engine.sweep import profiles
from engine.sweep.sbatch import Tasks, scripts
from tests.end_to_end.conftest import TINY, settings, status
from tests.slurm.conftest import until

ONE = [*TINY, "train.epochs=1", "train.milestones=[]"]


@pytest.fixture
def program(tmp_path, monkeypatch):
    """program("sbatch", "exit 1") puts a program before the real one."""

    def put(name, *lines):
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
        (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return put


# Profiles


def test_the_example_is_a_profile_and_names_every_setting(profile, tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text(profiles.EXAMPLE)
    assert profiles.load(path).gres == "gpu:1"
    path.write_text(re.sub(r"^# (?=[a-z_]+: )", "", profiles.EXAMPLE, flags=re.MULTILINE))
    whole = profiles.load(path)
    assert whole.model_fields_set == set(profiles.Profile.model_fields)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partition: 3", "1: partition: must be the name of one, such as gpu, got 3"),
        ("cpu: 4", "1: cpu: unknown; did you mean cpus?"),
        ("grace: 1.5", "1: grace: must be whole seconds from 1 to 65535, got 1.5"),
        ("time: 1-2-3", "1: time: must be minutes, or"),
        ("time: 0", "1: time: must be minutes, or"),
        ("partition: a\ntime: 2", "2: grace: must be shorter than time (2), got 120 s"),
        ("modules: cuda", "1: modules: must be a list of names"),
        ("options: ['--array=0-3']", "1: options: must be a list such as"),
        ("options: [qos]", "1: options: must be a list such as"),
        ("container: apptainer \"exec", "1: container: must be a command in one line"),
        ("python: python3", "1: python: must be an absolute path"),
        ('shell: ["a\\nb"]', "1: shell: must be a list of lines for bash"),
        ('shell: ["a\\x9bb"]', "1: shell: must be a list of lines for bash"),
        ('container: "a\\u202eb"', "1: container: must be a command in one line"),
        ('data: "/a\\x7fb"', "1: data: must be an absolute path"),
    ],
)  # fmt: skip
def test_a_wrong_profile_is_refused_with_a_sentence_and_its_line(profile, here, text, said):
    path = profile()
    path.write_text(text)
    done = here("run", "quickstart", "--on", "slurm", check=False)
    assert done.returncode == 2
    assert f"{path}:{said}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_which_profile_is_meant(profile, here):
    none = here("run", "quickstart", "--on", "slurm", check=False)
    assert none.returncode == 2
    assert "'hah slurm-profile --write' puts an example at" in none.stderr
    assert "wrote" in here("slurm-profile", "--write").stdout
    assert here("slurm-profile", "--write", check=False).returncode == 2
    assert "gres: gpu:1" in here("slurm-profile").stdout
    profile("slurm/a.yaml", gres="gpu:a100:1")
    profile("slurm.yaml").unlink()
    assert "gpu:a100:1" in here("run", "quickstart", "--on", "slurm", "--dry-run").stdout
    profile("slurm/b.yaml", gres="gpu:h100:1")
    several = here("run", "quickstart", "--on", "slurm", "--dry-run", check=False)
    assert several.stderr == "hah: --profile: say which; there is a, b\n"
    assert "gpu:h100:1" in here("run", "quickstart", "--on", "slurm", "--profile", "b", "--dry-run").stdout
    unknown = here("run", "quickstart", "--on", "slurm", "--profile", "c", check=False)
    assert "no profile is called 'c'" in unknown.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--profile", "a"], ["--dry-run"], ["--on", "slurm", "--queue"], ["--on", "elsewhere"]],
)
def test_options_of_another_place_are_refused(here, runs, arguments):
    assert here("run", "quickstart", *arguments, check=False).returncode == 2
    assert not runs.exists()


# Scripts


def test_a_script_is_what_bash_reads_and_hands_over_everything(profile, here, runs, monkeypatch):
    monkeypatch.setenv("HAH_DATA", "/a place")
    profile(
        partition="gpu", account="us", gres="gpu:1", cpus=8, memory="16G", time="12:00:00", grace=90,
        modules=["cuda/12.4"], container="apptainer exec --nv '/shared/my image.sif'", python="/opt/py/bin/python",
        data="/shared/data", options=["--qos=long"],
    )  # fmt: skip
    (script,) = json.loads(here("run", "quickstart", "--on", "slurm", "--dry-run", "--json").stdout)["scripts"]
    assert not runs.exists()
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    options = re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)
    for option in ("--partition=gpu", "--account=us", "--gres=gpu:1", "--cpus-per-task=8", "--mem=16G", "--requeue",
                   "--time=12:00:00", "--signal=TERM@90", "--open-mode=append", "--export=NIL",
                   "--chdir=/", "--qos=long"):  # fmt: skip
        assert option in options
    assert "export HAH_DATA=/shared/data\n" in script
    assert f"export HAH_RUNS={runs}\n" in script
    assert "module load cuda/12.4 || exit 1\n" in script
    assert (
        "srun --ntasks=1 --cpus-per-task=8 --export=ALL apptainer exec --nv '/shared/my image.sif' "
        "/opt/py/bin/python -m engine.sweep.task " in script
    )


def test_arrays_are_cut_where_the_site_or_the_profile_says(tmp_path):
    jobs = [(f"r{number}", RunDirectory(tmp_path / f"r{number}")) for number in range(25)]
    found = scripts(tmp_path, "s", jobs, profiles.Profile(), Cluster("", "ci", 10), limit=4)
    assert [re.search(r"--array=(\S+)", one.text)[1] for one in found] == ["0-9%4", "0-9%4", "0-4%4"]
    assert [one for script in found for one in script.tasks.runs] == [run for run, _ in jobs]
    (first, last) = scripts(tmp_path, "s", jobs, profiles.Profile(max_array=24), Cluster("", "ci", 1000))
    assert "--array=0-23\n" in first.text
    assert "--array" not in last.text


def test_an_evaluation_has_as_many_tasks_as_an_array_can_have(tmp_path):
    jobs = [("r", RunDirectory(tmp_path / "r").evaluation)]
    (script,) = scripts(tmp_path, "r", jobs, profiles.Profile(), Cluster("", "ci", 8), only_evaluation=True, parts=8)
    assert "--array=0-7\n" in script.text
    script.path.parent.mkdir()
    script.write()
    assert Tasks.read(script.path.with_suffix(".json")) == script.tasks
    assert script.tasks.count == 8
    with pytest.raises(RequestError, match="evaluators: must be at most 7, the tasks of an array here, got 8"):
        scripts(tmp_path, "r", jobs, profiles.Profile(max_array=7), Cluster("", "ci", 8), only_evaluation=True, parts=8)


@pytest.mark.parametrize(("variable", "said"), [("HAH_RUNS", "no log below"), ("HAH_DATA", "HAH_DATA: '/a\\udcffb'")])
def test_a_path_that_no_script_can_hold_is_refused_with_a_sentence(profile, here, monkeypatch, variable, said):
    profile()
    monkeypatch.setenv(variable, "/a\udcffb")
    done = here("run", "quickstart", "--on", "slurm", "--dry-run", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


# What is left where it does not work out


def test_what_sbatch_refuses_is_said_and_leaves_nothing(slurm, profile, here, runs):
    profile(partition="nowhere")
    done = here("run", "quickstart", "--on", "slurm", *settings(ONE), check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("hah: sbatch refused: invalid partition specified: nowhere")
    assert done.stderr.count("\n") == 1
    assert store.all_runs(runs) == []
    assert [path.name for path in (runs / ".slurm").iterdir()] == ["lock"]


def test_without_slurm_or_without_its_controller_it_is_said(profile, here, runs, program, monkeypatch):
    profile()
    program("squeue", "echo slurm 24.11.5")
    program("scontrol", "echo 'scontrol: error: Unable to contact slurm controller (connect failure)' >&2", "exit 1")
    away = here("run", "quickstart", "--on", "slurm", *settings(ONE), check=False)
    assert (away.returncode, away.stderr) == (
        2, "hah: Slurm's controller does not answer: Unable to contact slurm controller (connect failure)\n",
    )  # fmt: skip
    monkeypatch.setenv("PATH", "/nowhere")
    none = here("run", "quickstart", "--on", "slurm", *settings(ONE), check=False)
    assert none.stderr == "hah: there is no Slurm on this machine; submit where its programs are\n"
    assert not runs.exists()


def test_who_is_killed_before_sbatch_answers_leaves_a_run_that_says_so(slurm, profile, hah, runs, program, monkeypatch):
    profile()
    before = os.environ["PATH"]
    program("sbatch", "kill -9 $PPID")
    hah("run", "quickstart", "--on", "slurm", *settings(ONE), check=False)
    (run,) = store.all_runs(runs)
    assert status(run) == "queued"
    assert job_of(run) is None
    assert f"'hah resume {run.id}' starts it, with --on slurm there" in hah("show", run.id).stdout
    monkeypatch.setenv("PATH", before)
    done = hah("resume", run.id, "--on", "slurm")
    assert f"{run.id} is job {job_of(run).id} of Slurm" in done.stdout
    twice = hah("resume", run.id, "--on", "slurm", check=False)
    assert twice.returncode == 2
    assert "is Slurm's" in twice.stderr or "nothing to go on with" in twice.stderr  # it may have begun
    until(run, "finished")


def test_a_run_that_was_there_is_as_it_was_where_sbatch_refuses(slurm, profile, hah, runs, program):
    profile()
    (made,) = json.loads(hah("run", "quickstart", "--on", "slurm", "--json", *settings(ONE)).stdout)["submitted"]
    run = store.resolve(made["id"], runs)
    until(run, "finished")
    note, files = job_of(run), {path.name for path in (runs / ".slurm").iterdir()}
    program("sbatch", "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2", "exit 1")
    refused = hah("eval", run.id, "--suite", "sparsity", "--on", "slurm", check=False)
    assert (refused.returncode, refused.stderr) == (2, "hah: sbatch refused: QOSMaxSubmitJobPerUserLimit\n")
    assert job_of(run) == note
    assert not run.evaluation.path.exists()
    assert {path.name for path in (runs / ".slurm").iterdir()} == files


# Sweeps


def test_a_sweep_is_arrays_in_which_no_two_share_a_gpu_and_remembers_where_it_runs(slurm, profile, hah, runs, tmp_path):
    profile(gres="gpu:1", max_array=4)
    plan = tmp_path / "s.yaml"
    values = dict(one.split("=", 1) for one in ONE if not one.startswith("hah.alpha"))
    lines = ", ".join(f"{name}: {value}" for name, value in values.items())
    plan.write_text(
        f"name: s\nbase: quickstart\nset: {{{lines}}}\naxes: {{hah.alpha: [[0.1, 0.1], [0.2, 0.1]]}}\nseeds: 3\n"
    )
    assert hah("sweep", "run", plan, "--on", "slurm", "--dry-run").stdout.count("#!/bin/bash") == 2
    first = json.loads(hah("sweep", "run", plan, "--on", "slurm", "--json").stdout)["submitted"]
    assert len(first) == 6
    assert len({one["job"].partition("_")[0] for one in first}) == 2
    # What Slurm has is not handed to it again.
    assert len(json.loads(hah("sweep", "resume", "s", "--json").stdout)["submitted"]) == 6
    more = json.loads(hah("sweep", "extend", "s", "--seeds", "4", "--json").stdout)["submitted"]
    found = {one["job"]: store.resolve(one["id"], runs) for one in [*first, *more]}
    assert len(found) == 8
    for run in found.values():
        until(run, "finished")
    spans = []
    for job, run in found.items():
        assert job_of(run).id == job
        (start,) = read_json(run.starts)["starts"]
        end = max(event["time"] for event in Tail(run.events))
        spans.append(((start["host"], start["gpu"]), start["time"], end))
        assert len([event for event in Tail(run.events) if event["kind"] == "finished"]) == 1
        assert read_state(run).status == "finished"
    assert {gpu for gpu, _, _ in spans} <= {(host, gpu) for host in ("ci0", "ci1") for gpu in ("0", "1")}
    for index, (gpu, begun, end) in enumerate(spans):
        for other, other_begun, other_end in spans[:index]:
            assert gpu != other or begun >= other_end or end <= other_begun
    assert "8 finished" in hah("sweep", "status", "s").stdout


def test_of_two_arrays_the_second_of_which_is_refused_the_first_stays(slurm, profile, hah, runs, tmp_path, program):
    profile(max_array=3, options=["--hold"])
    plan = tmp_path / "s.yaml"
    plan.write_text(
        "name: s\nbase: quickstart\nset: {train.epochs: 1, train.milestones: []}\nseeds: 5\nqueue: {slots: 2}\n"
    )
    refusing = f"test -e {tmp_path}/once && echo 'sbatch: error: Job violates accounting/QOS policy' >&2 && exit 1"
    program("sbatch", refusing, f"touch {tmp_path}/once", 'exec /usr/bin/sbatch "$@"')
    done = hah("sweep", "run", plan, "--on", "slurm", check=False)
    assert done.returncode == 2
    assert "Job violates accounting/QOS policy; 3 runs were submitted before, the others were not" in done.stderr
    made = store.all_runs(runs)
    assert sorted(job_of(run).task for run in made) == [0, 1, 2]
    assert slurm.ask("squeue", "--array", "-h", "-o", "%T").split() == ["PENDING"] * 3
    (tmp_path / "programs" / "sbatch").unlink()
    hah("sweep", "resume", "s")
    assert len(store.all_runs(runs)) == 5
    # The limit of runs at once is one over all arrays of a submission.
    hah("sweep", "extend", "s", "--seeds", "11")
    waits = dict(line.split() for line in slurm.ask("squeue", "-h", "-o", "%A %E").splitlines())
    one, two = sorted(waits, key=int)[-2:]
    assert (waits[one], waits[two].partition("_")[0]) == ("(null)", f"afterany:{one}")
