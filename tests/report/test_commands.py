"""`hah report paper` and `hah compare` as a person calls them."""

import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.results.numbers import wilson
from hah_tui.cli import app
from tests.report.conftest import everything, masking, noise
from tests.terminal import Terminal

PROGRAM = str(Path(sys.executable).with_name("hah"))


@pytest.fixture
def two(made):
    return made("paper-hah", results=everything()), made("paper-standard", results=everything(hah=False))


def test_json_is_one_document_and_nothing_else(hah, two):
    done = hah("report", "paper", "--json")
    document = json.loads(done.stdout)
    assert set(document) == {
        "tables",
        "studies",
        "effects",
        "explanations",
        "rule",
        "sources",
        "means_without_frost",
        "published_means_without_frost",
        "masking",
        "figures",
        "remarks",
    }
    [row] = [row for row in document["tables"][0]["rows"] if row["preset"] == "paper-hah"]
    assert row["runs"] == [two[0].id]
    assert row["cells"]["noise-0.1"]["ours"]["mean"] == 0.87 - 2.5 * 0.1
    compared = json.loads(hah("compare", two[0].id, two[1].id, "--json").stdout)
    assert [run["id"] for run in compared["runs"]] == [run.id for run in two]


def here(*arguments):
    """The standard output of `hah` called in this process."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_every_format(two, tmp_path):
    assert here("report", "paper", "--format", "markdown").startswith("# The paper's tables")
    assert here("report", "paper", "--format", "latex").count("\\begin{table}") == 3
    rows = list(csv.DictReader(io.StringIO(here("report", "paper", "--format", "csv"))))
    assert len(rows) == 3 * 4 + 4 * 19 + 7 * 4
    assert here("report", "paper", "--format", "json") == here("report", "paper", "--json")
    plain = here("report", "paper")
    intervals = [rf"{ours:.1f} \[{100 * low:.1f}, {100 * high:.1f}\]" for ours in (87, 62, 20, 30)
                 for low, high in [wilson(ours / 100, 10_000)]]  # fmt: skip
    assert re.search(rf"ours +{' +'.join(intervals)}\n", plain)
    assert "hah run no-hah-loss\n" in plain
    assert "\x1b" not in plain


def test_files(two, tmp_path):
    document = json.loads(here("report", "paper", "--to", str(tmp_path / "out"), "--json"))
    assert document["files"] == [str(path) for path in map((tmp_path / "out").joinpath, [
        "index.html", "report.md", "report.json", "tables.csv", "table-1.tex", "table-2.tex", "table-3.tex",
        *(f"figure-{name}.{kind}" for name in ("2", "3b", "4", "5", "6") for kind in ("svg", "png")),
    ])]  # fmt: skip
    assert all(Path(path).stat().st_size for path in document["files"])


def test_a_wrong_request_is_one_message_and_makes_nothing(hah, two, tmp_path):
    for arguments, what in (
        (("report", "paper", "nothing-like-it", "--to", tmp_path / "out"), "no run or sweep is called"),
        (("compare", two[0].id, two[0].id), "at least two different runs"),
        (("report", "paper", "--to", two[0].config), "cannot be written there"),
    ):
        done = hah(*arguments, check=False)
        assert done.returncode == 2
        assert what in done.stderr
        assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_with_to_the_files_are_listed_unless_a_format_is_named(made, tmp_path):
    made("paper-hah", results={"noise": noise({0.1: 0.5}, {})})
    listed = here("report", "paper", "--to", str(tmp_path / "out")).splitlines()
    assert [Path(path).name for path in listed if "table" in path] == [
        "tables.csv", "table-1.tex", "table-2.tex", "table-3.tex"
    ]  # fmt: skip
    assert here("report", "paper", "--to", str(tmp_path / "out"), "--format", "csv").startswith("table,network")


def test_hostile_files_reach_no_terminal(hah, made):
    words = "\x1b[2J\x1b]0;owned\x07 [bold red]x[/bold red] \u202egnp"
    run = made("paper-hah", results={"masking": masking("suspect", words), "noise": noise({0.1: 0.5})})
    (run.results / "noise-00000009.json").write_text('{"suite": "\x1b[2J"}')
    for form in ("markdown", "latex", "csv", "json"):
        assert not re.search("[\x1b\x07\u202e]", here("report", "paper", "--format", form))
    done = hah("report", "paper")
    assert not re.search("[\x1b\x07\u202e]", done.stdout + done.stderr)
    assert "[bold red]x[/bold red]" in done.stdout  # as it is, not as markup
    assert "is no result" in done.stderr


@pytest.mark.parametrize("columns", [60, 80])
def test_on_a_terminal(two, columns):
    terminal = Terminal([PROGRAM, "report", "paper"], columns=columns)
    assert terminal.wait() == 0
    text = re.sub(r"\x1b\[[\d;]*m", "", terminal.output.decode()).replace("\r", "")
    assert max(map(len, text.split("\n"))) <= columns
    assert "\x1b[1m" in terminal.output.decode()  # the best is bold
    assert re.search(r"ours +87\.0 +62\.0 +20\.0 +30\.0", text)
    terminal.close()


def test_bars_on_a_terminal_and_in_ascii(two, hah):
    terminal = Terminal([PROGRAM, "compare", two[0].id, two[1].id], columns=80)
    assert terminal.wait() == 0
    text = re.sub(r"\x1b\[[\d;]*m", "", terminal.output.decode())
    row = next(line for line in text.splitlines() if re.match(r" +13 .*0\.83", line))
    assert row.count("█" * 12) == 2  # the largest value of all: full
    terminal.close()
    plain = hah("compare", two[0].id, two[1].id, env={"PYTHONIOENCODING": "ascii:replace"}).stdout
    assert "#" * 12 in plain
    assert re.search(r"62\.0% \[61\.0, 62\.9\]\*", plain)
    assert re.search(r"model\.hah_blocks +6 +0\n", plain)


def test_many_runs_get_letters(made):
    made_ones = [made("paper-hah", seed=seed, results={"noise": noise({0.1: 0.5})}) for seed in range(6)]
    terminal = Terminal([PROGRAM, "compare", *(run.id for run in made_ones)], columns=80)
    assert terminal.wait() == 0
    text = re.sub(r"\x1b\[[\d;]*m", "", terminal.output.decode())
    for letter, run in zip("ABCDEF", made_ones, strict=True):
        assert re.search(rf"^{letter} seed=\d: {run.id}\r?$", text, re.MULTILINE)
    terminal.close()


def test_report_of_ones_own_runs_and_of_a_sweep(made, runs, hah, tmp_path):
    made_ones = [
        made(
            "quickstart", seed=seed, sets=[f"hah.lambda={value}"], results={"noise": noise({0.1: value / 2, 0.2: 0.1})}
        )
        for value in (0.5, 1.0)
        for seed in (1, 2)
    ]
    (tmp_path / "plan.yaml").write_text(
        "name: lambdas\nbase: quickstart\nseeds: [1, 2]\naxes: {hah.lambda: [0.5, 1.0]}\n"
    )
    hah("sweep", "run", tmp_path / "plan.yaml", "--detach")
    by_sweep = json.loads(hah("compare", "lambdas", "--json").stdout)
    assert [group["name"] for group in by_sweep["groups"]] == ["lambda=0.5", "lambda=1"]
    assert [sorted(group["runs"]) for group in by_sweep["groups"]] == [
        sorted(run.id for run in made_ones[:2]),
        sorted(run.id for run in made_ones[2:]),
    ]
    text = hah("report", "runs", *(run.id for run in made_ones)).stdout
    assert re.search(r"noise 0\.1 +25\.0% ± 0\.0% +50\.0% ± 0\.0%\*", text)
    assert "Accuracy against hah.lambda" in text
    csv = hah("report", "runs", "lambdas", "--format", "csv").stdout
    assert "lambda=1,eval/noise/0.1/accuracy,0.5,0.0,2,,,10000," in csv
    assert "| lambda=1 (2 seeds) |" in hah("report", "runs", "lambdas", "--format", "markdown").stdout
    assert r"\caption{Accuracy}" in hah("report", "runs", "lambdas", "--format", "latex").stdout
    written = hah("report", "runs", "lambdas", "--to", tmp_path / "out").stdout.split()
    assert {"lambda.svg", "noise.png", "report.json", "tables.tex"} <= {line.rpartition("/")[2] for line in written}
    document = json.loads(hah("report", "runs", "lambdas", "--json").stdout)
    assert [figure["key"] for figure in document["figures"]] == ["noise", "lambda"]
    none = "no run or sweep is called 'nobody'"
    for wrong, said in ((["lambdas", "--by", "nothing"], "is no setting"), (["nobody", "lambdas"], none)):
        done = hah("compare", *wrong, check=False)
        assert done.returncode == 2
        assert said in done.stderr
