"""The page of the paper's report: complete, escaped, alone; as browsers show it; and what the repository says of its
results, held to the files."""

import html
import importlib.util
import json
import re
from pathlib import Path

import pytest

from engine.report import figures, files, tables
from engine.report.page import page
from engine.runs import kept
from tests.browser import CHROMIUM, browser
from tests.report.conftest import everything, masking, noise, write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def kept_report():
    """What `hah report paper --results results/` sees of the repository's results."""
    return tables.paper(kept.folders(RESULTS))


def words(text):
    """What a reader sees of a page: no style, no drawings, no tags."""
    bare = re.sub(r"<(style|svg)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", bare)).replace("\N{MINUS SIGN}", "-")


def numbers_of(value):
    """Every number of a JSON document, as it may be written, and those in its texts."""
    if isinstance(value, dict):
        return {one for key, each in value.items() for one in (*numbers_of(key), *numbers_of(each))}
    if isinstance(value, list):
        return {one for each in value for one in numbers_of(each)}
    if isinstance(value, str):
        return set(re.findall(r"[-+]?\d+\.\d+", value))
    if isinstance(value, bool) or value is None:
        return set()
    forms = ("{:.1f}", "{:+.1f}", "{:.2f}", "{:+.2f}", "{:.3f}", "{:+.3f}", "{:.3g}", "{:+.3g}")
    return {form.format(number) for form in forms for number in (value, 100 * value)}


def test_json_has_every_number_of_the_page_and_of_the_document(kept_report):
    drawn = figures.every(kept_report)
    document = json.loads(json.dumps(files.document(kept_report, drawn)))
    known = numbers_of(document)
    for text in (words(page(kept_report, drawn)), (ROOT / "docs" / "reproduction.md").read_text()):
        shown = re.findall(r"(?<![\w.])[-+]?\d+\.\d+(?![\w.]*\d)", text)
        assert len(shown) > 200
        assert {one for one in shown if one not in known and one.lstrip("+-") not in known} == set()


def test_the_repositorys_page_is_that_of_its_results():
    path = ROOT / "docs" / "make_reproduction.py"
    spec = importlib.util.spec_from_file_location("make_reproduction", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    text = made.PAGE.read_text()
    assert made.filled(text, RESULTS) == text, "run: python docs/make_reproduction.py"
    assert made.filled(made.filled(text, RESULTS), RESULTS) == text
    assert text.count("<!-- generated: ") == text.count("<!-- end -->") == 10


def test_the_order_of_files_on_the_disk_changes_nothing(tmp_path, kept_report):
    """A checkout has every file's time from when it was checked out."""
    import os
    import shutil

    copy = tmp_path / "results"
    shutil.copytree(RESULTS, copy)
    for number, path in enumerate(sorted(copy.rglob("*.json"), reverse=True)):
        os.utime(path, (number, number))
    again = tables.paper(kept.folders(copy))
    assert page(again, figures.every(again)) == page(kept_report, figures.every(kept_report))


def test_the_page_says_whose_network_it_is(kept_report):
    text = words(page(kept_report, figures.every(kept_report)))
    own = any(network.runs for network in kept_report.networks.values())
    assert ("No network of the paper's own size was trained here" in text) is not own
    assert "Width 1/4: not the paper's network" in text


def test_every_number_leads_to_how_it_was_measured(kept_report):
    text = page(kept_report, figures.every(kept_report))
    wanted, there = set(re.findall(r'href="#(m\d+)"', text)), re.findall(r'id="(m\d+)"', text)
    assert wanted
    assert wanted <= set(there)
    assert len(there) == len(set(there))
    for run in kept_report.studies[0].study.runs:
        for file in run.run.results.glob("*.json"):
            document = json.loads(file.read_text())
            assert f"hah eval {run.run.id} --suite {document['suite']}" in words(text)


EVIL = "<script>alert('x')</script><img src=http://127.0.0.1:9/x.png onerror=alert(1)>\x1b[31m\u202e"


@pytest.fixture
def evil(runs, made):
    """Runs of the paper's and of a study whose files say what a page must not do."""
    for preset, sets in (
        ("paper-standard", []),
        ("paper-hah-lambda-1", []),
        ("study-standard", []),
        ("study-lambda-1", []),
    ):
        run = made(preset, sets=sets, results=everything(hah="hah" in preset))
        write(run, "masking", masking(words=EVIL))
        write(run, "noise", noise({0.1: 0.5}), number=9, device=EVIL, versions={"torch": EVIL})
        run.manifest.write_text(json.dumps({"command": ["hah", "run", EVIL], "cpu": EVIL, "device": {"gpu": EVIL},
                                            "versions": {"torch": EVIL}, "source": {"commit": EVIL}}))  # fmt: skip
    (made("paper-hah").config).write_text(f"train: [{EVIL}")
    return tables.paper([runs])


def test_what_comes_from_disk_is_escaped(evil):
    text = page(evil, figures.every(evil))
    assert "&lt;script&gt;alert" in text
    assert "<script" not in text
    assert "<img" not in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)


def test_nothing_in_the_page_points_elsewhere(evil):
    text = page(evil, figures.every(evil))
    assert set(re.findall(r'\b(?:href|src|action)="([^"]*)"', text)) <= {
        f"#{one}" for one in re.findall(r'id="([^"]+)"', text)
    }
    assert not re.search(r"@import|url\(|<(?:link|iframe|object|embed|base|form)\b", text)
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text


LOOK = """
(() => {
  const wide = document.documentElement.scrollWidth - innerWidth;
  const held = node => node.closest('.scroll, svg');
  const out = [...document.body.querySelectorAll('*')].filter(node => !held(node))
    .filter(node => node.getBoundingClientRect().right > innerWidth + 1).map(node => node.outerHTML.slice(0, 80));
  const boxes = [...document.querySelectorAll('.scroll')].map(box => {
    const first = box.querySelector('tbody th'), before = first.getBoundingClientRect().left;
    box.scrollLeft = 60;
    const moved = first.getBoundingClientRect().left - before;
    const found = [box.scrollLeft, moved];
    box.scrollLeft = 0;
    return found;
  });
  const paint = node => getComputedStyle(node).color + getComputedStyle(document.body).backgroundColor;
  const tiny = [...document.querySelectorAll('svg.chart text')].filter(node => {
    const box = node.getBoundingClientRect();
    return box.height > 0 && box.height < 8;
  }).length;
  return {wide, out, boxes, paint: paint(document.body), charts: document.querySelectorAll('svg.chart').length, tiny};
})()
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


def brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3]))


@needs_browser
@pytest.mark.parametrize("which", ["kept", "evil"])
def test_a_browser_shows_it_whole_at_every_size_and_in_both_schemes(tab, tmp_path, which, kept_report, evil):
    report = kept_report if which == "kept" else evil
    path = tmp_path / "index.html"
    path.write_text(page(report, figures.every(report)))
    for width in (390, 1280):
        for dark in (False, True):
            tab.requests.clear()
            tab.open(path.as_uri(), width, dark=dark)
            found = tab.ask(LOOK)
            assert (found["wide"], found["out"]) == (0, []), (width, dark)
            assert found["charts"] > 5
            assert found["tiny"] == 0, f"text in figures is too small at {width}"
            ink, ground = re.findall(r"rgb\([^)]*\)", found["paint"])
            assert (brightness(ink) > brightness(ground)) is dark
            assert all(abs(moved) < 1 for scrolled, moved in found["boxes"] if scrolled), "the first column stays"
            assert any(scrolled for scrolled, _ in found["boxes"]) or width == 1280
            assert tab.requests == [path.as_uri()]
            assert tab.picture().startswith(b"\x89PNG")
    assert tab.complaints == []


@needs_browser
def test_the_browser_would_notice(tab, tmp_path, kept_report):
    """What the test above looks for is found where it is wrong."""
    path = tmp_path / "index.html"
    text = page(kept_report, figures.every(kept_report))
    wide = '<p style="width: 2000px">wide</p><script>alert(1)</script><img src="http://127.0.0.1:9/x.png">'
    path.write_text(text.replace("</main>", f"{wide}</main>"))
    tab.requests.clear()
    tab.open(path.as_uri(), 390)
    found = tab.ask(LOOK)
    assert found["wide"] > 0
    assert found["out"]
    assert any("Content Security Policy" in one or "script" in one for one in tab.complaints)
    tab.complaints.clear()


def test_results_of_several_folders_are_read_as_one(here):
    document = json.loads(here("report", "paper", "--results", RESULTS, "--json").stdout)
    [narrow] = [one for one in document["studies"] if one["width"] == 0.25]
    folders = {path.parent.name for path in RESULTS.glob("*/*/config.yaml")}
    assert len(folders) > 1
    assert set(narrow["runs"]) <= {path.parent.name for path in RESULTS.glob("*/*/config.yaml")}
    assert len(narrow["runs"]) > 1
