"""``hah-tui``: the terminal in which runs are started, watched, compared and kept.

It reads run directories and writes control files; engines know nothing of it and outlive it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from textual import events
from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.dom import DOMNode
from textual.screen import Screen
from textual.theme import Theme

from engine import disk
from engine.experiment.mistakes import RequestError
from engine.runs.launch import LaunchError
from engine.runs.layout import RunDirectory, runs_folder
from hah_tui import keys
from hah_tui.settings import Settings
from hah_tui.text import shown, shown_line
from hah_tui.themes import SERIES, THEMES

T = TypeVar("T")
ENDINGS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


class HahApp(App[None]):
    """The app: the runs folder, the settings, and what every screen shares."""

    TITLE = "hah-tui"
    CSS_PATH = "hah.tcss"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("all")
    COMMAND_PALETTE_BINDING = "ctrl+p"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.settings, self._said = Settings.load()
        self._engines: list[subprocess.Popen[bytes]] = []
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self.settings.theme

    # What screens ask of it

    @property
    def plain(self) -> bool:
        """ASCII mode: no braille, no blocks, no box drawing."""
        return self.settings.ascii

    @property
    def series(self) -> tuple[str, ...]:
        """The colours of curves in the present theme."""
        return SERIES.get(self.theme, SERIES["hah-dark"])

    def colour(self, name: str) -> str:
        """A colour of the present theme: good, bad, waiting, quiet, live, or one of Textual's."""
        return self.theme_variables.get(name, "")

    def change(self, **settings: Any) -> None:
        """Change settings and keep them; where they cannot be kept that is said and they hold until the end."""
        self.settings = replace(self.settings, **settings)
        try:
            self.settings.save()
        except OSError as error:
            self.say(f"settings cannot be kept: {error.strerror}", "warning")

    def say(self, text: object, severity: str = "information") -> None:
        """A remark in the corner; what came from a disk or a person is made safe."""
        long = 4 if severity == "information" else 10
        self.notify(shown(text, 600), markup=False, severity=severity, timeout=long)  # type: ignore[arg-type]

    def in_background(
        self,
        owner: DOMNode,
        work: Callable[[], T],
        then: Callable[[T], object] = lambda _: None,
        failed: Callable[[Exception], object] | None = None,
    ) -> None:
        """Do something that may wait for a disk or an engine; ``then`` or ``failed`` gets the outcome, in the app.

        ``owner`` is the screen or widget that the outcome is for: what comes after that has gone is dropped. It is the
        app itself where the outcome counts wherever the person is by then; failures without a ``failed`` do always.
        The thread is a daemon: nothing that hangs keeps `q` from leaving at once.
        """

        def body() -> None:
            try:
                answer = work()
            except (RequestError, LaunchError, OSError) as error:
                self.hand_over(self if failed is None else owner, partial(failed or self.complain, error))
            else:
                self.hand_over(owner, partial(then, answer))

        threading.Thread(target=body, daemon=True).start()

    def hand_over(self, owner: DOMNode, callback: Callable[[], object]) -> None:
        """Call something in the app's own thread, from any other, if its ``owner`` is still there then."""
        with suppress(RuntimeError):  # the event loop is closed
            self.call_later(lambda: callback() if self.holds(owner) else None)

    def holds(self, node: DOMNode) -> bool:
        """Whether a screen or a widget is still part of the app (`is_mounted` stays true when a screen has gone)."""
        screen = next((one for one in node.ancestors_with_self if isinstance(one, Screen)), None)
        return node is self or (screen in self.screen_stack and node.is_attached)

    def complain(self, error: Exception) -> None:
        """Say what went wrong."""
        if isinstance(error, LaunchError):
            from hah_tui.screens.dialogs import Message

            self.push_screen(Message("The engine did not start", str(error)))
        elif isinstance(error, OSError):
            self.say(f"{error.filename or self.folder}: {error.strerror or error}", "error")
        else:
            self.say(error, "error")

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """Keep the handle of an engine started here, so that it is no zombie when it has ended."""
        self._engines = [engine for engine in self._engines if engine.poll() is None] + [process]

    def release(self) -> None:
        """Let go of engines: they go on, nobody waits for them."""
        for engine in self._engines:
            if engine.poll() is None:
                engine.returncode = 0  # Popen would warn that it is still running, which is the point
        self._engines = []

    def open_run(self, run: RunDirectory) -> None:
        """Watch a run."""
        from hah_tui.screens.monitor import MonitorScreen

        self.push_screen(MonitorScreen(run))

    # Life

    def on_mount(self) -> None:
        from hah_tui.screens.runs import RunsScreen

        self.set_class(self.plain, "-ascii")
        self.theme_changed_signal.subscribe(self, self._keep_theme)
        self.push_screen(RunsScreen())
        self.set_interval(5.0, self._reap)
        for number in ENDINGS:
            asyncio.get_running_loop().add_signal_handler(number, partial(self._end, number))
        if self._said:
            self.say(self._said, "warning")

    def _end(self, number: int) -> None:
        """Somebody ends this program: the terminal is left as it was."""
        self.release()
        self.exit(None, return_code=128 + number)

    def _reap(self) -> None:
        if not self.is_headless:
            try:
                termios.tcgetattr(sys.__stdin__)  # type: ignore[arg-type]
            except (OSError, ValueError, termios.error):
                os._exit(129)  # the terminal is gone and no SIGHUP came; reading its end would keep a core busy
        self._engines = [engine for engine in self._engines if engine.poll() is None]

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Paste):  # a paste may carry what a terminal would obey
            event = events.Paste(shown_line(event.text, 10_000))
        await super().on_event(event)

    def _keep_theme(self, theme: Theme) -> None:
        if theme.name in SERIES and theme.name != self.settings.theme:
            self.change(theme=theme.name)
        self.call_later(self._redraw)

    def _redraw(self) -> None:
        for screen in self.screen_stack:
            if hasattr(screen, "redraw"):
                screen.redraw()

    # Actions of keys.ACTIONS that are everywhere

    async def action_quit(self) -> None:
        self.release()
        self.exit(None)

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
        return next((name for screen in reversed(self.screen_stack) if (name := getattr(screen, "PLACE", ""))), "all")

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
    app.run()
    # Threads that wait for a disk are daemons, and no exit handler has work to do: leave at once.
    sys.stdout.flush()
    sys.exit(app.return_code or 0)
