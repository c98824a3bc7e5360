"""The program in real terminals: it refuses poor ones, leaves at once, and dies without hurting anybody."""

import os
import subprocess
import sys
from pathlib import Path

from hah_tui.settings import Settings
from tests.tui.driving import drive, until
from tests.tui.made import alive, made

PROGRAM = str(Path(sys.executable).with_name("hah-tui"))


def test_q_leaves_with_0(runs, terminal):
    made(runs, id="a-run")
    screen = terminal(PROGRAM, "--runs-dir", str(runs), columns=80, lines=24)
    screen.expect("a-run")
    screen.send("q")
    assert screen.wait(20) == 0
    assert b"\x1b[?1049l" in screen.output  # the terminal is as it was
    assert b"Traceback" not in screen.output


def test_a_dumb_terminal_is_refused_in_one_sentence(runs, terminal):
    screen = terminal(PROGRAM, env={"TERM": "dumb"})
    assert screen.wait(20) == 2
    said = screen.output.decode()
    assert "\x1b" not in said
    assert said.count("\n") == 1
    assert "terminal" in said


def test_no_terminal_is_refused_too():
    done = subprocess.run([PROGRAM], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_option_is_refused():
    done = subprocess.run([PROGRAM, "--nonsense"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_hang_up_touches_no_engine_and_keeps_the_draft(runs, terminal):
    from hah_tui.settings import stored_drafts

    _, lock = alive(runs, id="a-run", epoch=3)
    screen = terminal(PROGRAM, "--runs-dir", str(runs), columns=80, lines=24)
    screen.expect("a-run")
    screen.send("n")
    screen.expect("handwritten")
    screen.send("\r")
    screen.expect("compute.device")
    screen.expect("seed")
    screen.send("z")
    screen.expect("1 change")
    screen.hang_up()
    screen.wait(20)
    assert [one["texts"] for one in stored_drafts().values()] == [{"name": "quickstartz"}]
    assert lock.descriptor >= 0
    assert screen.process.returncode != 0
    os.kill(os.getpid(), 0)
    lock.release()


def test_no_colour_is_honoured(runs, terminal):
    made(runs, id="a-run")
    screen = terminal(PROGRAM, "--runs-dir", str(runs), columns=80, lines=24, env={"NO_COLOR": "1"})
    screen.expect("a-run")
    screen.send("q")
    screen.wait(20)
    shades = {
        tuple(part.split(b";")[2:5])
        for sequence in screen.output.split(b"\x1b[")
        if (part := sequence.split(b"m")[0]).startswith((b"38;2", b"48;2"))
    }
    assert all(len(set(shade)) == 1 for shade in shades)  # greys only


def brought(modules, unwanted):
    """Which unwanted modules an import brings, in a process of its own."""
    code = f"import sys, {', '.join(modules)}; print([name for name in {unwanted} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_it_brings_no_torch():
    screens = [f"hah_tui.screens.{name}" for name in ("runs", "new_run", "results", "monitor", "comparison")]
    heavy = ("torch", "torchvision", "tensorboard", "sklearn", "matplotlib")
    assert brought(["hah_tui.app", "hah_tui.draft", *screens], heavy) == "[]"


def test_starting_reads_no_schema():
    """The first picture needs no pydantic: the form alone does."""
    assert brought(["hah_tui.app", "hah_tui.screens.runs"], ("pydantic", "numpy", "scipy", "yaml")) == "[]"


def test_screenshots_and_frames_and_quitting_help(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made(runs, id="a-run")

    async def body(pilot, app):
        await pilot.press("P")
        await until(pilot, lambda: [note for note in app._notifications if note.message.startswith("saved")])
        assert "a-run" in next(tmp_path.glob("*.svg")).read_text()
        app.action_slower_frames()
        assert Settings.load()[0].frames_per_second == 2.0
        app.action_faster_frames()
        app.action_faster_frames()
        assert app.settings.frames_per_second == 8.0
        await pilot.press("ctrl+c")
        assert "q leaves" in list(app._notifications)[-1].message
        await pilot.press("escape")
        assert app.screen.PLACE == "runs"
        await pilot.press("q")
        assert app._exit
        assert app.return_code in (0, None)

    drive(runs, body)


def test_settings_that_cannot_be_kept_are_said(runs, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Settings, "save", refuse)

    async def body(pilot, app):
        await pilot.press("O")
        assert app.settings.reverse
        assert "No space left" in list(app._notifications)[-1].message

    drive(runs, body)


def test_texts_of_a_screenshot_begin_and_end_with_a_letter():
    """A program that draws SVG without stretching texts, or drops their blanks, still puts each in its place."""
    from hah_tui.widgets.picture import placed

    text = '<text class="a" x="12.2" y="20" textLength="61" clip-path="url(#c)">&#160;&#160;a&#160;&lt;</text>'
    blank = '<text class="a" x="0" y="20" textLength="24.4" clip-path="url(#c)">&#160;&#160;</text>'
    kept = '<text class="a" x="36.6" y="20" textLength="36.6" clip-path="url(#c)">a\u00a0&lt;</text>'
    assert placed(f"<svg>{text}{blank}</svg>") == f"<svg>{kept}</svg>"
