"""Everything that can be wrong with a request: what, where, what is allowed; all at once; nothing created."""

import os
import time

import pytest

from engine.experiment import RequestError, presets


def mistakes(reference, sets=(), name=None):
    with pytest.raises(RequestError) as caught:
        presets.load(str(reference), sets, name)
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_every_mistake_at_once_each_with_its_line(write):
    path = write(
        "extends: paper-hah\n"
        "hah:\n"
        "  alhpa: 0.1\n"
        "  lambda: -1\n"
        "  alpha: [1, 2, .nan]\n"
        "model:\n"
        "  hah_blocks: 3\n"
        "  width: x\n"
        "  divisive_norm: {sigma: [0.1, 1.2]}\n"
        "train: {milestones: [60, 200], epochs: 1e2}\n"
        "data: 5\n"
        "observe: {images: 0, noise_std: -.inf}\n"
    )
    assert sorted(mistakes(path, ["hah.lamda=3", "seed=-1", "x", "checkpoints.keep=[7, 0]"])) == sorted(
        [
            "--set x: must be KEY=VALUE, such as hah.lambda=0.1",
            "--set seed=-1: seed: must be a whole number from 0 to 4294967295, got -1",
            "--set hah.lamda=3: hah.lamda: unknown; did you mean hah.lambda?",
            "--set checkpoints.keep=[7, 0]: checkpoints.keep: must be a list of whole numbers, "
            "each from 1 to 1000000, got 0 (item 2)",
            f"{path}:3: hah.alhpa: unknown; did you mean hah.alpha?",
            f"{path}:4: hah.lambda: must be a number from 0 to 1000000, got -1",
            f"{path}:5: hah.alpha: must be a number or a list of numbers, each from 0 to 1000000, got nan (item 3)",
            f"{path}:8: model.width: must be a number above 0 and at most 4, got 'x'",
            f"{path}:9: model.divisive_norm.sigma: must be a number or a list of numbers, each from 0 to 1, "
            "got 1.2 (item 2)",
            f"{path}:10: train.epochs: must be a whole number from 1 to 1000000, got 100.0",
            f"{path}:11: data: must be a group of settings, got 5",
            f"{path}:12: observe.images: must be a whole number from 1 to 1000000, got 0",
            f"{path}:12: observe.noise_std: must be a number above 0 and at most 10, got -inf",
        ]
    )


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["hah.alpha=[1, 2]"], "hah.alpha: must have 1 value or 6 (model.hah_blocks is 6), got 2"),
        (["hah.alpha=[]"], "hah.alpha: must have 1 value or 6 (model.hah_blocks is 6), got 0"),
        (["model.divisive_norm.sigma=[0.1, 0.2]"], "model.divisive_norm.sigma: must have 1 value or 6"),
        (["hah.lambda=-0.1"], "hah.lambda: must be a number from 0 to 1000000, got -0.1"),
        (["hah.lambda=true"], "hah.lambda: must be a number from 0 to 1000000, got True"),
        (["model.divisive_norm.sigma=1.5"], "each from 0 to 1, got 1.5"),
        (["hah.top_k=0"], "hah.top_k: must be a number above 0 and below 1, got 0"),
        (["hah.top_k=1"], "hah.top_k: must be a number above 0 and below 1, got 1"),
        (["hah.top_k=0.99"], "hah.top_k: must leave a filter over, but takes 64 of the 64 filters of block 1"),
        (
            ["model.hah_blocks=14", "hah.alpha=0"],
            "model.hah_blocks: must be at most 13, the convolutions of vgg16, got 14",
        ),
        (
            ["model.architecture=vgg11", "model.hah_blocks=9", "hah.alpha=0"],
            "must be at most 8, the convolutions of vgg11",
        ),
        (["model.architecture=vgg17"], "model.architecture: must be one of vgg11, vgg13, vgg16, vgg19, got 'vgg17'"),
        (["train.milestones=[80, 60]"], "train.milestones: must rise, got [80, 60]"),
        (["data.validation=50000"], "data.validation: must leave training images over (there are 50000), got 50000"),
        (["data.train_limit=100", "data.validation=100"], "(there are 100), got 100"),
        (["train.lr=.nan"], "train.lr: must be a number above 0 and at most 1000000, got nan"),
        (["train.lr=.inf"], "train.lr: must be a number above 0 and at most 1000000, got inf"),
        (["train.lr=1" + "0" * 400], "train.lr: must be a number above 0 and at most 1000000, got"),
        (["train.batch_size=12.5"], "train.batch_size: must be a whole number from 1 to 65536, got 12.5"),
        (["train.batch_size='128'"], "got '128'"),
        (
            ["train.adversarial={eps: 8/0}"],
            "train.adversarial.eps: must be a number above 0 and at most 100, got '8/0'",
        ),
        (["train.adversarial=[1]"], "train.adversarial: must be a group of settings, or null, got [1]"),
        (["compute.device=gpu"], "compute.device: must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (["compute.device=cuda:-1"], "got 'cuda:-1'"),
        (["compute.num_gpus=2"], "compute.num_gpus: must be a whole number from 1 to 1, got 2"),
        (["tags=[a b]"], "tags: must be a list of words, got 'a b' (item 1)"),
        (["name=../../etc/passwd"], "name: must be 1 to 80 letters"),
        (["name=.hidden"], "name: must be 1 to 80 letters"),
        (["name=2022"], "name: must be 1 to 80 letters"),
        (['name="a\\e[31mb"'], "name: must be 1 to 80 letters"),
        (["data=null"], "data: must be a group of settings, got None"),
        (["hah=3"], "hah: must be a group of settings, got 3"),
        (["hah.alpha.0=3"], "hah.alpha"),
        (["=3"], "must be KEY=VALUE"),
        (["a..b=3"], "must be KEY=VALUE"),
        (["hah.alpha=[1, 2"], "is not YAML"),
        (["hah.alpha=!!python/object/apply:os.system [ls]"], "tags are not allowed"),
        (["hah.alpha=&a [*a]"], "anchors and aliases"),
        (["train.optimiser=adam"], "train.optimiser: unknown; did you mean train.optimizer?"),
        (["lambda=0.1"], "lambda: unknown; did you mean hah.lambda?"),
        (["hah.lambda_=0.1"], "hah.lambda_: unknown; did you mean hah.lambda?"),
        (["zzz=1"], "zzz: unknown; there is name, description"),
    ],
)
def test_settings_that_cannot_be(sets, words):
    said = mistakes("paper-hah", sets)
    assert any(words in line for line in said)
    assert all(line.startswith(("--set ", str(presets.shipped_folder()))) for line in said)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("# nothing but a comment\n", "is empty"),
        ("- a\n- b\n", "must be a mapping of settings"),
        ("just text", "must be a mapping of settings"),
        ("hah: {lambda: 1}\ntrain: {}\nhah: {top_k: 0.5}\n", ":3: hah: written twice; first at"),
        ("hah:\n  lambda: 1\n  lambda: 2\n", ":3: hah.lambda: written twice"),
        ("hah: {lambda: 1\n", "is not YAML"),
        ("a: b: c\n", ":1: is not YAML"),
        ("hah: !!python/object/apply:os.system ['touch /tmp/pwned']\n", ":1: tags are not allowed"),
        ("hah: !custom {}\n", "tags are not allowed"),
        ("a: &a [1]\nb: *a\n", ":1: anchors and aliases (& and *) are not allowed; use 'extends'"),
        ("<<: {hah: {lambda: 1}}\n", "must be plain text"),
        ("? [a, b]\n: 1\n", "must be plain text"),
        ("hah: " + "[" * 5000, "nested deeper than 20 levels"),
        ("hah: " + "{a: " * 200 + "}" * 200, "nested deeper than 20 levels"),
        (b"hah: \xff\xfe\n", "is not text in UTF-8"),
        (b"hah: \x1b[31m\n", "is not YAML"),
        (b"hah: a\x00b\n", "is not YAML"),
        ("seed: 2022-13-45\n", "seed: must be a whole number"),
        ("seed: " + "9" * 5000 + "\n", "seed"),
        ("train: {lr: 2022-11-22}\n", "train.lr: must be a number"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        ("extends: nobody\n", ":1: extends: no preset is called 'nobody'"),
        ("extends: paper-ha\n", "did you mean paper-hah?"),
        ("extends: [a]\n", "extends: must be the name of a preset or a path"),
        ("extends: missing.yaml\n", "missing.yaml: cannot be read"),
        ("extends: ../../../../../../etc/passwd.yaml\n", "cannot be read"),
    ],
)
def test_files_that_cannot_be(write, text, words):
    path = write(text)
    assert words in "\n".join(mistakes(path))
    assert not os.path.exists("/tmp/pwned")


def test_a_yaml_bomb_is_refused_before_it_expands(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.process_time()
    assert "anchors and aliases" in mistakes(write("\n".join(lines)))[0]
    assert time.process_time() - began < 1


def test_a_cyclic_extends_names_the_way_round(write):
    write("extends: b.yaml\n", "a.yaml")
    write("extends: c.yaml\n", "b.yaml")
    path = write("extends: a.yaml\n", "c.yaml")
    assert "extends itself: c.yaml -> a.yaml -> b.yaml -> c.yaml" in mistakes(path)[0]
    alone = write("extends: alone.yaml\n", "alone.yaml")
    assert "extends itself" in mistakes(alone)[0]


def test_a_preset_of_ones_own_that_extends_itself_by_name(own_presets):
    (own_presets / "loop.yaml").write_text("extends: loop\n")
    assert "extends itself: loop.yaml -> loop.yaml" in mistakes("loop")[0]


def test_a_file_of_100_mb_is_refused_by_its_size(tmp_path):
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    began = time.process_time()
    assert mistakes(path) == [f"{path}: is 100 MiB, an experiment is at most 1 MiB"]
    assert time.process_time() - began < 0.5


def test_things_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    assert "is not a file" in mistakes(tmp_path / "fifo.yaml")[0]
    (tmp_path / "folder.yaml").mkdir()
    assert "is not a file" in mistakes(tmp_path / "folder.yaml")[0]
    assert "No such file" in mistakes(tmp_path / "nothing.yaml")[0]
    assert "cannot be read" in mistakes(tmp_path / ("x" * 300 + ".yaml"))[0]


@pytest.mark.parametrize("name", ["paper hah", "", "..", "-x", "a\nb", "x" * 81, "\x1b[31m", "@last"])
def test_names_that_are_none(name):
    said = mistakes(name)[0]
    assert "is not a preset" in said
    assert "\x1b" not in said
    assert "\n" not in said


def test_a_mistake_in_a_base_is_said_with_the_bases_line(write):
    base = write("hah:\n  lambda: -3\n", "base.yaml")
    path = write("extends: base.yaml\nhah:\n  top_k: 7\n")
    assert sorted(mistakes(path)) == sorted(
        [
            f"{base}:2: hah.lambda: must be a number from 0 to 1000000, got -3",
            f"{path}:3: hah.top_k: must be a number above 0 and below 1, got 7",
        ]
    )


def test_a_check_over_fields_is_not_guessed_from_a_wrong_field(write):
    """alpha's length is right or wrong only for a number of blocks that is known."""
    path = write("extends: paper-hah\nmodel: {hah_blocks: many}\nhah: {alpha: [1, 2, 3]}\n")
    assert [line.partition(": ")[2] for line in mistakes(path)] == [
        "model.hah_blocks: must be a whole number from 0 to 1000, got 'many'"
    ]


def test_a_character_that_is_no_yaml_is_named(write):
    """libyaml, which reads, does not say which it is."""
    (said,) = mistakes(write("hah:\n\tlambda: 1\n"))
    assert ":2: is not YAML: found character '\\t'" in said


def test_presets_are_listed_by_name(own_presets):
    for name in ("mine-too", "mine"):
        (own_presets / f"{name}.yaml").write_text("seed: 1\n")
    names = [preset.name for preset in presets.listed()]
    assert names[:2] == ["mine", "mine-too"]
    assert names[2:] == sorted(names[2:])
