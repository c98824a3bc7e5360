"""Sweeps as they are written: what they come to, and everything that is wrong with one at once."""

import pytest

from engine.experiment import RequestError, presets
from engine.experiment.fingerprint import fingerprint
from engine.runs.making import Origin
from engine.runs.process import is_locked
from engine.sweep import desk, plan, queue, submit, sweeps
from engine.sweep.plan import Slots


@pytest.fixture
def written(tmp_path):
    """written(text) -> the path of a sweep with that text."""

    def write(text, name="study.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def mistakes(path, sets=()):
    with pytest.raises(RequestError) as caught:
        plan.load(path, sets)
    return [str(mistake).replace(str(path), path.name) for mistake in caught.value.mistakes]


def test_cases_axes_and_seeds_over_a_base(written):
    found = plan.load(
        written(
            "name: narrow\n"
            "base: quickstart\n"
            "set: {train.epochs: 3, train: {milestones: [2]}}\n"
            "cases:\n"
            "  all: {}\n"
            "  standard: {model: {hah_blocks: 0}, hah.alpha: [0]}\n"
            "axes: {hah.lambda: [0.1, 1.0]}\n"
            "seeds: 3\n"
            "queue: {slots: 2, priority: -3, retries: 1}\n"
        )
    )
    assert found.name == "narrow"
    assert [point.label for point in found.points] == [
        "all lambda=0.1", "all lambda=1", "standard lambda=0.1", "standard lambda=1"
    ]  # fmt: skip
    assert found.seeds == [2022, 2023, 2024]
    assert found.slots == Slots(limit=2, priority=-3, retries=1)
    for point in found.points:
        assert (point.experiment.train.epochs, point.experiment.train.milestones) == (3, [2])
        assert point.experiment.model.hah_blocks == (0 if point.case == "standard" else 3)
        assert point.experiment.hah.lambda_ == point.differs["hah.lambda"]
        assert point.group == fingerprint(point.experiment, seed=False)


def test_a_trial_is_the_experiment_that_hah_run_would_make(written):
    """The one that a person ran by hand has the same fingerprint, whatever it is called."""
    found = plan.load(written("base: quickstart\naxes: {hah.lambda: [0.25]}\n"))
    by_hand = presets.load("quickstart", ["hah.lambda=0.25"])
    assert found.points[0].group == fingerprint(by_hand, seed=False)


def test_equal_experiments_are_one(written):
    found = plan.load(written("base: quickstart\ncases: {a: {}, b: {hah.lambda: 0.1}, c: {hah: {lambda: 0.1}}}\n"))
    assert [point.case for point in found.points] == ["a"]
    assert presets.load("quickstart").hah.lambda_ == 0.1


def test_a_case_extends_another_preset_and_set_lies_over_it(written):
    found = plan.load(
        written("set: {train.epochs: 90, train.milestones: [50]}\ncases: {standard: {extends: paper-standard}}\n")
    )
    assert found.points[0].experiment.model.hah_blocks == 0
    assert found.points[0].experiment.train.epochs == 90


def test_set_on_the_command_line_lies_over_the_common_settings_and_under_the_case(written):
    path = written("base: quickstart\nset: {train.lr: 0.1}\ncases: {a: {}, b: {train.lr: 0.5}}\n")
    assert [point.experiment.train.lr for point in plan.load(path, ["train.lr=0.2"]).points] == [0.2, 0.5]


@pytest.mark.parametrize(
    ("written_as", "values"),
    [
        ("[1, 2, 3]", [1, 2, 3]),
        ("{from: 1, to: 4, step: 1}", [1, 2, 3, 4]),
        ("{from: 0.1, to: 0.4, step: 0.1}", [0.1, 0.2, 0.3, 0.4]),
        ("{from: 4, to: 1, step: -1}", [4, 3, 2, 1]),
        ("{from: 100001.5, to: 100003.5, step: 1}", [100001.5, 100002.5, 100003.5]),
        ("{from: 0.1000001, to: 0.1000003, step: 0.0000001}", [0.1000001, 0.1000002, 0.1000003]),
        ("{from: 0, to: 1, count: 5}", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("{from: 0, to: 1, count: 2, scale: linear}", [0, 1]),
        ("{from: 0.01, to: 1, count: 3, scale: log}", [0.01, 0.1, 1.0]),
        ("{from: 1, to: 0.01, count: 3, scale: log}", [1.0, 0.1, 0.01]),
    ],
)
def test_axes(written, written_as, values):
    found = plan.load(written(f"base: quickstart\naxes: {{hah.lambda: {written_as}}}\n"))
    assert [point.differs["hah.lambda"] for point in found.points] == values


@pytest.mark.parametrize(
    ("written_as", "said"),
    [
        ("[]", "must name a value"),
        ("3", "must be a list, {from, to, step} or {from, to, count, scale: linear or log}, got 3"),
        ("{from: 1}", "must be a list"),
        ("{from: 1, to: 2}", "must be a list"),
        ("{from: 1, to: 2, step: 0}", "never comes from 1 to 2 in steps of 0"),
        ("{from: 1, to: 2, step: -1}", "never comes from 1 to 2"),
        ("{from: 0, to: 1, step: 1.0e-9}", "more than 10,000 values"),
        ("{from: 0, to: 1, count: 1}", "count must be a whole number from 2 to 10,000, got 1"),
        ("{from: 0, to: 1, count: 2, scale: log}", "from and to must be above 0"),
        ("{from: 0, to: 1, count: 2, scale: cubic}", "must be a list"),
        ("{from: a, to: 1, count: 2}", "must be numbers"),
        ("{from: .nan, to: 1, count: 2}", "must be numbers"),
        ("{from: true, to: 1, count: 2}", "must be numbers"),
        ("{from: 0, to: 1, step: 5.0e-324}", "beyond a float"),
        ("{from: 0, to: 1" + "0" * 400 + ", step: 1}", "beyond a float"),
        ("{from: 1, to: 1.0000001, count: 5, scale: log}", "do not tell apart"),
    ],
)
def test_axes_that_are_none(written, written_as, said):
    (mistake,) = mistakes(written(f"base: quickstart\naxes:\n  hah.lambda: {written_as}\n"))
    assert mistake.startswith("study.yaml:3: axes.hah.lambda: ")
    assert said in mistake


def test_zip(written):
    text = "base: quickstart\ncombine: zip\naxes:\n  hah.lambda: [0.1, 1]\n  train.lr: [0.01, 0.001]\n"
    found = plan.load(written(text))
    assert [dict(point.differs) for point in found.points] == [
        {"hah.lambda": 0.1, "train.lr": 0.01},
        {"hah.lambda": 1, "train.lr": 0.001},
    ]
    (mistake,) = mistakes(written(text.replace("[0.1, 1]", "[0.1, 1, 2]")))
    assert mistake == "study.yaml:2: combine: zip needs axes of one length; hah.lambda has 3, train.lr has 2"


def test_everything_wrong_is_told_at_once_with_its_line(written):
    said = mistakes(
        written(
            "name: 'a b'\n"
            "base: quikstart\n"
            "seed: 3\n"
            "set:\n"
            "  train.epoch: 3\n"
            "  name: x\n"
            "cases:\n"
            "  a: {extends: no-such}\n"
            "  b: {extends: quickstart, hah.lambda: -1}\n"
            "  'c d': {extends: quickstart}\n"
            "axes:\n"
            "  seed: [1]\n"
            "  train.lr: [0.1, wrong]\n"
            "combine: sum\n"
            "seeds: 0\n"
            "queue: {slots: 0, speed: 3}\n"
        )
    )
    expected = {
        1: "name: must be 1 to 80 letters",
        2: "base: no preset is called 'quikstart'; did you mean quickstart?",
        3: "seed: unknown; a sweep has name,",
        5: "train.epoch: unknown; did you mean train.epochs?",
        6: "set.name: a sweep sets that itself",
        8: "cases.a.extends: no preset is called 'no-such'",
        9: "hah.lambda: must be",
        10: "cases.c d: must be 1 to 80",
        12: "axes.seed: a sweep sets that itself; seeds: N",
        13: "train.lr: must be",
        14: "combine: must be product or zip, got 'sum'",
        15: "seeds: must be a number of seeds from 1 to 1,000, or a list of different whole numbers, got 0",
    }
    for line, text in expected.items():
        assert any(one.startswith(f"study.yaml:{line}: {text}") for one in said), (line, text, said)
    assert any("queue.slots: must be a whole number from 1 to 1000, got 0" in one for one in said)
    assert any("queue.speed: unknown; there is slots, per_gpu, priority, retries" in one for one in said)
    assert len(said) == len(expected) + 2, said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: 2\n", "study.yaml:1: base: is missing; name a preset or a file, or let every case extend one"),
        ("base: quickstart\ncases: [a]\n", "study.yaml:2: cases: must be a mapping, got ['a']"),
        ("base: quickstart\ncases: {a: 3}\n", "study.yaml:2: cases.a: must be a mapping, got 3"),
        ("base: quickstart\naxes: {hah.lambda: {from: 0, to: 1, count: 200}, train.lr: {from: 1, to: 2, count: 200}}\n",
         "study.yaml:2: axes: come to more than 10,000 combinations"),
        ("base: quickstart\naxes: {hah.lambda: {from: 0, to: 1, count: 20}}\nseeds: 1000\n",
         "study.yaml:3: seeds: come to 20,000 runs; at most 10,000"),
        ("base: quickstart\nseeds: [99999999999]\n", "study.yaml:2: seeds: must be whole numbers from 0 to 4294967295"),
        ("name: default\nbase: quickstart\n", "study.yaml:1: name: must be"),
        ("base: quickstart\ncases: []\n", "study.yaml:2: cases: must be a mapping, got []"),
        ("base: quickstart\nqueue: false\n", "study.yaml:2: queue: must be a mapping, got False"),
        ("base: quickstart\naxes: {hah: [1], hah.lambda: [1]}\n", "study.yaml:2: axes.hah.lambda: is a part of hah"),
        ("base: quickstart\nseeds: [1, 1]\n", "study.yaml:2: seeds: must be a number of seeds"),
        ("base: [a]\n", "study.yaml:1: base: must be text, got ['a']"),
    ],
)  # fmt: skip
def test_wrong_as_a_whole(written, text, said):
    assert any(one.startswith(said) for one in mistakes(written(text))), mistakes(written(text))


def test_a_wrong_set_is_told(written):
    (said,) = mistakes(written("base: quickstart\n"), ["train.epochs=many"])
    assert said.startswith("--set train.epochs=many: train.epochs: must be")


def test_names_of_runs_say_what_differs():
    assert plan.run_name("s", "", {"hah.lambda": 0.1}, None) == "lambda-0.1"
    assert plan.run_name("s", "no-loss", {"hah.lambda": 0.1, "model.width": 0.25}, 2023) == (
        "no-loss-lambda-0.1-width-0.25-s2023"
    )
    assert plan.run_name("s", "", {}, None) == "s"
    assert plan.run_name("s", "", {"hah.alpha": [0.1, 0.2]}, 1) == "alpha-0.1-0.2-s1"
    assert len(plan.run_name("s", "x" * 80, {}, 2022)) == 80


@pytest.mark.parametrize("name", ["figure-6", "lambda", "paper", "quick", "study", "table-3"])
def test_shipped_sweeps(name):
    found = plan.load(plan.find(name))
    assert found.name == name
    assert found.description
    assert len(found.points) == len({point.group for point in found.points}) > 1


def test_the_study_is_what_the_presets_of_the_study_say():
    found = {point.case: point.group for point in plan.load(plan.find("study")).points}
    for case, group in found.items():
        assert group == fingerprint(presets.load(f"study-{case}"), seed=False)


def test_an_unknown_sweep():
    with pytest.raises(RequestError, match="no sweep is called 'nothing'; there is figure-6, lambda, paper"):
        plan.find("nothing")


def test_a_plan_is_kept_whole_and_extended(written, runs):
    sweep = sweeps.of_plan(plan.load(written("base: quickstart\naxes: {hah.lambda: [0.1, 1.0]}\nseeds: [5, 7]\n")))
    sweeps.write(runs, sweep)
    assert sweeps.read(runs, "study") == sweep
    assert sweeps.extended(sweep, 4).seeds == (5, 7, 8, 9)
    point = sweep.points[1]
    experiment = sweeps.experiment_of(sweep, point, 7)
    assert (experiment.seed, experiment.name, experiment.tags) == (7, "lambda-1-s7", ["study"])
    assert fingerprint(experiment, seed=False) == point.group


def test_two_submit_one_after_the_other(runs):
    with sweeps.alone(runs):
        assert is_locked(runs / ".sweeps" / "lock")
    assert not is_locked(runs / ".sweeps" / "lock")


def test_a_plan_keeps_how_it_is_queued(written, runs):
    plan_ = plan.load(written("base: quickstart\nqueue: {slots: 3, priority: 7, retries: 2}\n"))
    sweeps.write(runs, sweeps.of_plan(plan_))
    assert sweeps.read(runs, "study").slots == {"limit": 3, "per_gpu": 1, "priority": 7, "retries": 2}


def test_its_priority_changes_with_its_group(written, runs, here):
    sweeps.write(runs, sweeps.of_plan(plan.load(written("base: quickstart\nqueue: {slots: 3, priority: 7}\n"))))
    here("queue", "group", "study", "--priority", 9)
    assert sweeps.read(runs, "study").slots == {"limit": 3, "per_gpu": 1, "priority": 9, "retries": 0}


def test_no_group_of_other_runs_is_taken_over(written, runs, here):
    """Only a sweep that is not there yet is asked: what its own runs are is known by what they are."""
    path = written("base: quickstart\nseeds: 2\n")
    sweep = sweeps.of_plan(plan.load(path))
    other = submit.add(presets.load("blocks-0"), Origin("blocks-0"), runs, submit.Asked("study"))
    desk.set_group(runs, "study", limit=5)
    refused = here("sweep", "run", path, check=False)
    assert refused.returncode == 2
    assert (
        f"study is the group of 1 runs in the queue that are none of this sweep, such as {other.id}" in refused.stderr
    )
    assert (sweeps.names(runs), desk.group_of(runs, "study").limit) == ([], 5)
    queue.leave(other)
    submit.add(sweeps.experiment_of(sweep, sweep.points[0], 2022), Origin("quickstart"), runs, submit.Asked("study"))
    submit.check_group(runs, sweep)


def test_a_plan_that_cannot_be_read_can_be_forgotten(here, runs):
    path = runs / ".sweeps" / "broken" / "plan.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert here("sweep", "rm", "broken", "--runs", "--yes", check=False).returncode == 2
    assert path.exists()
    here("sweep", "rm", "broken", "--yes")
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"points": [{}], "seeds": []}', '{"points": 3, "seeds": [1]}'])
def test_a_damaged_plan_is_said(runs, text):
    path = runs / ".sweeps" / "broken" / "plan.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(RequestError, match="is no plan of a sweep"):
        sweeps.read(runs, "broken")


def test_references(written, runs):
    for name in ("alpha", "alpine"):
        sweeps.write(runs, sweeps.of_plan(plan.load(written(f"name: {name}\nbase: quickstart\n"))))
    assert sweeps.resolve("alpine", runs).name == "alpine"
    assert sweeps.resolve("alpi", runs).name == "alpine"
    assert sweeps.resolve("@last", runs).name == "alpine"
    with pytest.raises(RequestError, match="begins the names of 2 sweeps"):
        sweeps.resolve("alp", runs)
    with pytest.raises(RequestError, match=r"no sweep is called 'alpina'.*did you mean alpine"):
        sweeps.resolve("alpina", runs)
