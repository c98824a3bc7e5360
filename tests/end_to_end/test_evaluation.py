"""`hah eval` on a trained run: results, jobs, kills, estimates."""

import json
import os
import random
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.evaluation.work import Evaluation
from engine.experiment import presets
from engine.job.record import Record
from engine.job.work import Job, Place
from engine.runs import store
from engine.runs.devices import Choice
from engine.runs.events import Tail
from engine.runs.layout import RunDirectory, create
from engine.runs.state import State, read_state
from tests.end_to_end.conftest import TINY, eventually, settings

SHORT = ["evaluate.noise.levels=[0.05, 0.1]", "evaluate.attacks.methods=[pgd]", "evaluate.attacks.steps=40"]
SHORT += ["evaluate.attacks.linf=[8/255]", "evaluate.attacks.l2=[0.5]"]


@pytest.fixture
def run(copied):
    """A small run that has finished, trained once, copied for one test."""
    return copied("finished")


def measured_here(run):
    """What `python -m engine eval` does with the job of a run, in this process; the kinds of events that it wrote."""
    experiment = presets.load(str(run.evaluation.config), [])
    record = Record(run.evaluation, State(device="cpu"))
    job = Job(record, Place(torch.device("cpu"), Choice("cpu", "asked for")))
    evaluation = Evaluation(job, experiment, run)
    evaluation.prepare()
    tail = Tail(run.evaluation.events, from_end=True)
    try:
        evaluation()
    finally:
        record.close()
    return [event["kind"] for event in tail]


def results(run):
    return {path.name: path.read_bytes() for path in run.results.glob("[!.]*.json")}


def test_suites_leave_one_result_each_and_are_not_measured_twice(hah, here, run):
    answer = hah("eval", run.id, "--suite", "noise", "--suite", "sparsity", "--images", "30", *settings(SHORT))
    assert "noise: 30 images, at most about" in answer.stdout
    assert f"{run.id}-evaluation finished" in answer.stdout
    found = {json.loads(text)["suite"]: json.loads(text) for text in results(run).values()}
    assert sorted(found) == ["noise", "sparsity"]
    noise = found["noise"]
    assert noise["images"] == 30
    assert noise["test_images"] == 355
    assert noise["checkpoint"] == {"name": "last", "epoch": 3, "step": 15}
    assert [level["std"] for level in noise["result"]["levels"]] == [0.05, 0.1]
    assert len(noise["result"]["levels"][0]["accuracy"]) == 3
    assert sorted(noise["result"]["levels"][0]["snr_db"]) == [str(block) for block in range(1, 9)]
    assert (run.results / noise["result"]["examples"]).read_bytes().startswith(b"\x89PNG")
    written = EventAccumulator(str(run.evaluation.tensorboard)).Reload()
    (point,) = written.Scalars("eval/noise/0.1/accuracy")
    assert (point.step, point.value) == (15, pytest.approx(noise["result"]["levels"][1]["mean"]))
    assert "eval/sparsity/1/hoyer" in written.Tags()["scalars"]
    before = results(run)
    again = hah("eval", run.id, "--suite", "noise", "--images", "30", *settings(SHORT))
    assert "noise: measured already" in again.stdout
    assert results(run) == before
    (damaged,) = run.results.glob("noise-*.json")
    for was, now in (('"suite"', '"site"'), ('"std": 0.1', '"std": "a"'), ('"images": 30', '"images": 31')):
        text = damaged.read_text()
        assert was in text
        damaged.write_text(text.replace(was, now))
        assert "already" not in measured_here(run)
        assert results(run) == before
        assert "already" in measured_here(run)
    document = json.loads(hah("eval", run.id, "-S", "sparsity", "--images", "30", "--json").stdout)
    assert document["status"] == "finished"
    assert document["results"][0]["suite"] == "sparsity"
    assert json.loads(here("show", run.id, "--json").stdout)["status"] == "finished"


def test_every_suite_measures_64_images(hah, run):
    few = ["evaluate.suites=[noise, sparsity, corruptions, attacks, minimum_norm, masking]"]
    # Every attack and probe on every image, each of fewer steps: what they find is for tests/evaluation to judge.
    few += ["evaluate.attacks.steps=10", "evaluate.minimum_norm.steps=20", "evaluate.masking.steps=10"]
    few += ["evaluate.masking.queries=50"]
    other = shutil.copytree(run.path, run.path.with_name("other-2222"))  # any network to transfer attacks from
    few += [f"evaluate.masking.standard={other.name}"]
    hah("eval", run.id, "--images", "64", *settings(few), timeout=500)
    found = {json.loads(text)["suite"]: json.loads(text)["result"] for text in results(run).values()}
    assert sorted(found) == sorted(["noise", "sparsity", "corruptions", "attacks", "minimum_norm", "masking"])
    assert found["corruptions"]["source"] == "generated"
    assert all(sorted(severities) == list("12345") for severities in found["corruptions"]["accuracy"].values())
    for attack in found["attacks"]["attacks"]:
        assert len(attack["stands"]) == 64
        assert attack["robust_accuracy"] == attack["stands"].count("1") / 64 == attack["methods"][-1]["accuracy"]
    for norm in found["minimum_norm"]["norms"].values():
        assert len(norm["values"]) == 64
        accuracies = [accuracy for _, accuracy in norm["curve"]]
        assert accuracies == sorted(accuracies, reverse=True)
    assert {check["verdict"] for check in found["masking"]["checks"]} <= {"clear", "suspect"}


def test_an_experiment_is_evaluated_when_its_training_has_ended(hah, runs):
    hah("run", "quickstart", *settings([*TINY, "evaluate.suites=[sparsity]", "evaluate.images=20"]))
    run = store.all_runs(runs)[0]
    eventually(lambda: store.look(run.evaluation).status == "finished")
    assert [json.loads(text)["images"] for text in results(run).values()] == [20]
    assert store.look(run).status == "finished"


def test_transfer_is_from_a_network_of_the_same_data(here, runs, run):
    other = create(runs, "other", presets.dumped(presets.load("paper-standard")))
    asked = ["--suite", "masking", "--set", f"evaluate.masking.standard={other.id}"]
    done = here("eval", run.id, *asked, check=False)
    assert done.returncode == 2
    assert f"{other.id} has learned cifar10, not digits" in done.stderr


def test_wrong_requests_are_refused_before_anything_is_made(here, run):
    for arguments, words in (
        (["--suite", "sparsty"], "evaluate.suites"),
        ([], "names no evaluate.suites; give --suite"),
        (["--suite", "noise", "--images", "0"], "or equal to 1"),
        (["--suite", "noise", "--checkpoint", "epoch-7"], "no checkpoint 'epoch-7'; there is best, last, previous"),
        (["--suite", "noise", "--set", "train.lr=1"], "an evaluation has the settings evaluate.*"),
        (["--suite", "noise", "--set", "evaluate.noise.draws=0"], "evaluate.noise.draws: must be"),
        (["--suite", "noise", "--device", "cuda:7"], "cuda:7 is not there"),
        (["--suite", "masking", "--set", f"evaluate.masking.standard={run.id}"], "is the run itself; name another"),
    ):
        refused = here("eval", run.id, *arguments, check=False)
        assert refused.returncode == 2, arguments
        assert words in " ".join(refused.stderr.split()), arguments
        assert "Traceback" not in refused.stderr
    assert not run.evaluation.path.exists()


def test_the_cost_is_told_before_it_is_paid(here, run):
    found = json.loads(here("eval", run.id, "-S", "noise", "-S", "attacks", "--estimate", "--json").stdout)
    noise, attacks = found["suites"]["noise"], found["suites"]["attacks"]
    assert noise["images"] == 355
    assert 0 < noise["seconds"] < attacks["seconds"]
    assert attacks["seconds_per_image"] == pytest.approx(attacks["seconds"] / 355)
    assert not results(run)


def test_a_detached_evaluation_is_watched_paused_stopped_and_resumed(hah, here, run):
    slow = [*SHORT, "evaluate.attacks.steps=3000", "evaluate.attacks.linf=[1e-4]"]  # too small to break any soon
    arguments = ["--suite", "attacks", "--images", "40", *settings(slow)]
    job = RunDirectory(run.evaluation.path)
    assert json.loads(hah("eval", run.id, *arguments, "--detach", "--json").stdout)["id"] == job.id
    eventually(lambda: store.look(job).status == "running")
    busy = here("eval", run.id, "--suite", "noise", check=False)
    assert busy.returncode == 2
    assert f"{job.id} is being run by process {read_state(job).engine['pid']}" in busy.stderr
    assert f"{run.id}  finished, evaluation running" in here("ls").stdout
    refused = here("rm", run.id, "--yes", check=False)
    assert refused.returncode == 2
    assert "is being evaluated" in refused.stderr
    hah("pause", run.id)
    assert store.look(job).status == "paused"
    hah("resume", run.id)
    eventually(lambda: store.look(job).status == "running")
    stopped = hah("stop", run.id)
    assert stopped.stdout.startswith(f"{job.id} is stopped: 0 of ")
    assert stopped.stdout.endswith(" suites done, the same 'hah eval' continues\n")
    assert hah("watch", job.id, check=False).returncode == 130
    assert hah("resume", run.id, "--detach").returncode == 0
    eventually(lambda: store.look(job).status == "running")
    hah("stop", job.id)
    assert not results(run)


def test_json_is_of_what_was_asked_for_not_of_the_newest_files(hah, run):
    def measured(*arguments):
        answer = json.loads(hah("eval", run.id, *arguments, "--json").stdout)
        return [(document["suite"], document["images"]) for document in answer["results"]]

    both = ["--suite", "sparsity", "--suite", "noise", "--images", "30", *settings(SHORT)]
    assert measured(*both) == [("sparsity", 30), ("noise", 30)]  # in the order they ran
    assert measured("--suite", "sparsity", "--images", "60") == [("sparsity", 60)]
    assert measured("--suite", "sparsity", "--images", "30") == [("sparsity", 30)]  # measured already, others are newer


def test_a_result_is_of_the_network_it_transferred_from_and_of_the_sources_it_had(hah, run):
    """What lies outside the settings but changes the numbers is measured anew when it has changed."""
    other = RunDirectory(Path(shutil.copytree(run.path, run.path.with_name("other-2222"))))
    few = ["--suite", "masking", "--images", "4", *settings(["evaluate.masking.steps=2", "evaluate.masking.queries=2"])]
    hah("eval", run.id, *few, "--set", f"evaluate.masking.standard={other.id}")
    assert "already" in measured_here(run)
    shutil.copyfile(other.checkpoints / "previous.pt", other.checkpoints / "last.pt")  # as if trained differently
    assert "already" not in measured_here(run)
    assert len(results(run)) == 2
    assert "already" in measured_here(run)
    official = ["--suite", "corruptions", "--images", "4", "--set", "evaluate.corruptions.source=official"]
    refused = hah("eval", run.id, *official, check=False)
    assert refused.returncode == 1
    assert "there is no official gaussian_noise of digits" in " ".join(refused.stderr.split())
    made = hah("eval", run.id, "--suite", "corruptions", "--images", "4").stdout
    assert "(generated" in made


def test_killed_at_random_points_and_continued_the_results_are_those_of_an_undisturbed_one(hah, run):
    """Killed when a random number of pieces more are kept, of 32 in two batches: those are not measured again."""
    arguments = ["--suite", "noise", "--suite", "attacks", "--suite", "masking", "--images", "130", *settings(SHORT)]
    arguments += settings(["evaluate.masking.steps=3", "evaluate.masking.queries=3"])
    hah("eval", run.id, *arguments)
    undisturbed = results(run)
    assert len(undisturbed) == 3
    for path in run.results.glob("[!.]*.json"):
        path.unlink()

    def kept():
        found = {}
        for path in sorted(run.results.glob(".*.pieces")):
            with suppress(FileNotFoundError):  # its result has been written meanwhile
                found[path.name] = path.read_bytes().splitlines()
        return found

    def count():
        return sum(map(len, kept().values()))

    job, draw, kills = run.evaluation, random.Random(0), 0
    while kills < 3:
        finished, before = len(results(run)), kept()
        wanted = count() + draw.randint(1, 4)
        hah("eval", run.id, *arguments, "--detach")
        eventually(lambda f=finished, w=wanted: count() >= w or len(results(run)) > f or not store.look(job).live)
        if not store.look(job).live:
            break
        os.kill(read_state(job).engine["pid"], signal.SIGKILL)
        eventually(lambda: store.look(job).status in ("lost", "finished"))
        if len(results(run)) == finished:
            for name, lines in kept().items():
                assert lines[: len(before.get(name, []))] == before.get(name, [])
                assert len({json.loads(line)[0] for line in lines}) == len(lines)  # nothing was measured twice
        kills += 1
    assert kills >= 2
    hah("eval", run.id, *arguments)
    assert results(run) == undisturbed
    assert not list(run.results.glob(".*"))
