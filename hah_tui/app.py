"""``hah-tui``: the terminal in which runs are started, watched, compared and kept.

It reads run directories and writes control files; engines know nothing of it and outlive it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from textual import events
from textual.app import SystemCommand
from textual.await_remove import AwaitRemove
from textual.binding import BindingType
from textual.css.query import NoMatches
from textual.dom import DOMNode
from textual.geometry import Offset
from textual.screen import Screen
from textual.theme import Theme
from textual.widget import Widget

from engine import disk
from engine.runs.layout import RunDirectory, runs_folder
from engine.runs.submitted import allocation
from hah_tui import keys
from hah_tui.base import BaseApp, Page
from hah_tui.keys import Place
from hah_tui.text import shown_line
from hah_tui.themes import SERIES, THEMES
from hah_tui.widgets.changed_cells import Picture

ENDINGS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
WARM_UP = 2.0  # seconds after the start
PATIENCE = 3.0  # seconds in which a program that is ended leaves by itself


class HahApp(BaseApp):
    """The app with its screens, from the first to the last."""

    TITLE = "hah-tui"
    CSS_PATH = "hah.tcss"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("all")
    COMMAND_PALETTE_BINDING = "ctrl+p"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._picture = Picture()
        self._cursor_at: Offset | None = None  # as it was last told the terminal
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self.settings.theme

    def open(self, place: Place, *runs: RunDirectory) -> None:
        self.push_screen(screen_of(place, *runs))

    def tell(self, title: str, text: str) -> None:
        from hah_tui.screens.dialogs import Message

        self.push_screen(Message(title, text))

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        update = self._picture.without(renderable)
        if update is not renderable and not (self._batch_count or self.is_headless):
            cursor, self._cursor_at = self._cursor_at, self.cursor_position
            if cursor == self._cursor_at and not update.render_segments(self.console):
                update = None  # not even where the cursor is: what is written is a packet on its way somewhere
        super()._display(screen, update)

    def _prune(self, *nodes: Widget, parent: DOMNode | None = None) -> AwaitRemove:
        """Where a screen has gone Textual lays the one below out again and paints all of it a second time."""
        return super()._prune(*nodes, parent=None if parent is self else parent)

    def _handle_exception(self, error: Exception) -> None:
        """A screen that is still being mounted as the app ends is taken apart under its own hands."""
        if not (self._exit and isinstance(error, NoMatches)):
            super()._handle_exception(error)

    # Life

    def on_mount(self) -> None:
        self.set_class(self.plain, "-ascii")
        self.theme_changed_signal.subscribe(self, self._keep_theme)
        self.open("runs")
        self.set_interval(5.0, self._look_after)
        if not self.is_headless:
            self._answer_signals()
            self.set_timer(WARM_UP, partial(self.in_background, self, _get_ready, failed=lambda _: None))
        if said := allocation():
            self.say(said, "warning")
        if self.settings_problem:
            self.say(self.settings_problem, "warning")

    def _answer_signals(self) -> None:
        """Somebody ends this program: the terminal is left as it was, unless it takes nothing any more: then the app
        waits in the middle of a picture (asyncio's own handlers would wait with it), and is not waited for. What is to
        be done whole is, in either case."""
        loop = asyncio.get_running_loop()

        def end(number: int) -> None:
            self.release()
            self.exit(None, return_code=128 + number)

        def give_up(number: int) -> None:
            self.finish()
            os._exit(128 + number)

        def answer(number: int, _: object) -> None:
            with suppress(RuntimeError):  # the app has ended
                loop.call_soon_threadsafe(end, number)
            patience = threading.Timer(PATIENCE, give_up, (number,))
            patience.daemon = True
            patience.start()

        for number in ENDINGS:
            signal.signal(number, answer)

    def _look_after(self) -> None:
        if not self.is_headless:
            try:
                termios.tcgetattr(0)
            except termios.error:  # the terminal is gone and no SIGHUP came; reading its end would keep a core busy
                self.finish()
                os._exit(128 + signal.SIGHUP)
        self.reap()

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Resize):
            self._picture.forget()
        if isinstance(event, events.Paste) and not event.is_forwarded:  # a paste may carry what a terminal would obey
            event = events.Paste(shown_line(event.text, 10_000))
        await super().on_event(event)

    def _keep_theme(self, theme: Theme) -> None:
        if theme.name in SERIES and theme.name != self.settings.theme:
            self.change(theme=theme.name)
        self.call_later(self._redraw)

    def _redraw(self) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, Page):
                screen.redraw()

    # Actions of keys.ACTIONS that are everywhere

    async def action_quit(self) -> None:
        self.leave()

    def action_help_quit(self) -> None:
        self.say("q leaves (ctrl+q from a text field); engines go on")

    def action_help(self) -> None:
        from hah_tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.place))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There is nowhere to go back to from the runs."""
        return not (action == "back" and len(self.screen_stack) <= 2)

    async def action_back(self) -> None:
        if len(self.screen_stack) > 2:  # the first is Textual's own, the second the runs
            self.pop_screen()

    def action_next_theme(self) -> None:
        names = list(SERIES)
        self.theme = names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0]

    def action_ascii(self) -> None:
        self.change(ascii=not self.plain)
        self.set_class(self.plain, "-ascii")
        self._redraw()

    def action_repaint(self) -> None:
        self._picture.forget()
        self.screen.refresh(layout=True)

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        from hah_tui.widgets.picture import placed

        name = filename or time.strftime("hah-tui-%Y%m%d-%H%M%S.svg")
        target, picture = Path(path or Path.cwd()) / name, placed(self.export_screenshot())
        said = partial(self.say, f"saved {target}")
        self.in_background(self, lambda: target.write_text(picture, encoding="utf-8"), lambda _: said())

    def action_slower_frames(self) -> None:
        self._frames(0.5)

    def action_faster_frames(self) -> None:
        self._frames(2.0)

    def _frames(self, factor: float) -> None:
        self.change(frames_per_second=min(max(self.settings.frames_per_second * factor, 0.25), 20.0))
        self.say(f"{self.settings.frames_per_second:g} frames a second, from the next screen on")

    @property
    def place(self) -> str:
        """The name of the present screen in the table of keys."""
        return next((screen.PLACE for screen in reversed(self.screen_stack) if isinstance(screen, Page)), "all")

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette: every action of the screen it was called from, and those that are everywhere."""
        for place, node in ((self.place, screen), ("all", self)):
            for action in keys.of(place):
                if action.each or action.id == "command_palette":
                    continue
                title = f"{action.label[0].upper()}{action.label[1:]}: {action.help}"
                said = f"key {action.shown_keys}" if action.keys else "from here only"
                yield SystemCommand(title, said, partial(self.run_action, action.id, node))
        for theme in THEMES:
            title = f"Theme {theme.name.removeprefix('hah-')}"
            yield SystemCommand(title, "take this theme", partial(setattr, self, "theme", theme.name))


def screen_of(place: Place, *runs: RunDirectory) -> Page:
    """The screen of a place; each is imported when somebody goes there first, so that the first is painted at once."""
    match place:
        case "runs":
            from hah_tui.screens.runs import RunsScreen

            return RunsScreen()
        case "new":
            from hah_tui.screens.new_run import NewRunScreen

            return NewRunScreen(*runs)
        case "monitor":
            from hah_tui.screens.monitor import MonitorScreen

            return MonitorScreen(*runs)
        case "compare":
            from hah_tui.screens.comparison import CompareScreen

            return CompareScreen(runs)
        case "results":
            from hah_tui.screens.results import ResultsScreen

            return ResultsScreen(*runs)
        case "queue":
            from hah_tui.screens.queue import QueueScreen

            return QueueScreen()
        case "sweep":
            from hah_tui.screens.sweep import SweepScreen

            return SweepScreen()


def _get_ready() -> None:
    """Import and read what a new run and results start from while nobody waits for it; for a thread."""
    import hah_tui.screens.results  # noqa: F401
    from engine.report import networks
    from hah_tui.catalogue import catalogue

    catalogue()
    networks.targets()
    gc.freeze()  # all of this stays: looking at it again held the screen up for a tenth of a second now and then


def _thread_failed(app: BaseApp, failure: threading.ExceptHookArgs) -> None:
    """Where Textual's writer has failed nothing arrives any more, and the app would wait for it for ever."""
    if failure.thread is not None and failure.thread.name == "textual-output":
        app.finish()
        os._exit(128 + signal.SIGHUP)
    threading.__excepthook__(failure)


def main() -> None:
    """The entry point of ``hah-tui``."""
    parser = argparse.ArgumentParser(
        prog="hah-tui", description="Start, watch, compare and keep experiments with layer-wise HaH learning."
    )
    parser.add_argument("--runs-dir", type=Path, help="where runs live (else HAH_RUNS, else the data folder)")
    parser.add_argument("--version", action="version", version=f"hah-tui {metadata.version('hah-tui')}")
    chosen = parser.parse_args()
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb":
        print("hah-tui: needs a terminal that can do more than plain lines; 'hah' works everywhere", file=sys.stderr)
        sys.exit(2)
    disk.find_home()
    try:
        app = HahApp(runs_folder(chosen.runs_dir))
    except OSError as error:
        print(f"hah-tui: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    threading.excepthook = partial(_thread_failed, app)
    gc.freeze()
    gc.set_threshold(10_000, 5, 5)  # a screen that opens makes thousands of objects, and hardly one is garbage
    app.run()
    if app.return_code:  # by a signal: who presses q has been told what is waited for
        for number in (*ENDINGS, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        app.finish()
    # Other threads that wait for a disk are daemons, and no exit handler has work to do: leave at once.
    sys.stdout.flush()
    sys.exit(app.return_code or 0)
