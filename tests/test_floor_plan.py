"""The two wings stay apart, and importing does nothing."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "tensorboard", "sklearn")


def python(code, cwd="/"):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cwd).stdout


@pytest.mark.parametrize(
    "module",
    ["hah_tui.cli", "engine.experiment", "engine.runs.store", "engine.experiment.presets", "engine.sweep.dispatcher"],
)
def test_the_light_wing_brings_no_torch(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code) == "[]\n"


def test_help_brings_nothing_heavy_at_all():
    code = (
        "import sys; sys.argv = ['hah', '--help']\n"
        "import hah_tui.cli\n"
        "hah_tui.cli._exit_code()\n"
        f"heavy = {(*HEAVY, 'pydantic', 'numpy', 'yaml', 'textual')}\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert python(code).splitlines()[-1] == "[]"


def test_importing_the_engine_starts_no_thread_opens_no_file_touches_no_gpu():
    code = (
        "import os, threading\n"
        "import torch\n"
        "before = set(os.listdir('/proc/self/fd')), threading.active_count()\n"
        "import engine.training.loop, engine.nn, engine.data.batches, engine.probes, engine.__main__\n"
        "assert (set(os.listdir('/proc/self/fd')), threading.active_count()) == before\n"
        "assert not torch.cuda.is_initialized()"
    )
    python(code)


def test_import_contracts():
    checkout = Path(__file__).parents[1]
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_terminal_uses_a_name_once_starts_threads_in_one_place_and_mounts_once():
    sources = {path: path.read_text() for path in Path(__file__).parents[1].joinpath("hah_tui").rglob("*.py")}
    names = Counter(name for text in sources.values() for name in re.findall(r"^class (\w+)", text, re.MULTILINE))
    assert [name for name, times in names.items() if times > 1] == []
    assert [path.name for path, text in sources.items() if "Thread(" in text] == ["base.py"]
    assert not [path for path, text in sources.items() if "super().on_mount" in text]  # Textual calls every class's


def test_no_file_has_grown_a_second_reason_to_exist():
    for path in Path(__file__).parents[1].joinpath("engine").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 500, path
        assert path.name not in ("utils.py", "helpers.py", "common.py", "manager.py")
        assert path.read_text().startswith('"""'), f"{path} does not say what it is for"
