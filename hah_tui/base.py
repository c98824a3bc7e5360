"""What screens and widgets may ask of the app that they are part of, whichever screens it has.

Whatever may wait for a disk or an engine goes through here: `BaseApp.in_background` does it once, `Page.follow` again
and again. The app's own thread alone touches what is shown.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from textual.binding import ActiveBinding
from textual.dom import DOMNode
from textual.keys import key_to_character
from textual.notifications import SeverityLevel
from textual.reactive import Reactive
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from engine.experiment.mistakes import RequestError
from engine.runs.launch import LaunchError
from engine.runs.layout import RunDirectory
from engine.runs.squeue import Poll
from engine.sweep import sites
from hah_tui.driver import Driver
from hah_tui.in_turn import READING, Awaited, InTurn
from hah_tui.keys import Place
from hah_tui.settings import Settings
from hah_tui.text import shown
from hah_tui.themes import SERIES

T = TypeVar("T")
LONGEST = 90.0  # seconds for work that is not to be cut: Slurm's programs may take a minute to answer
FIRST_SECONDS = 0.3  # in which what a screen shows should have been read
UNSEEN = 4  # times as rarely does a screen follow something while another one hides it


def _has_sites() -> bool:
    """Whether a person has described a Slurm site; not where there is no home to have done so."""
    with suppress(RequestError, OSError):
        return bool(sites.known())
    return False


class BaseApp(InTurn):
    """The app without its screens: the runs folder, the settings, and what every screen shares."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Driver)
        self.folder = folder
        self.animation_level = "none"  # what moves by itself is behind the keys, and costs a thin line
        self.settings, self.settings_problem = Settings.load()
        self.slurm = Poll()  # one for all screens
        self.has_site = _has_sites()  # whether footers have the key that hands work to Slurm
        self.handing: set[Path] = set()  # runs that are being handed to Slurm
        self._whole: list[threading.Thread] = []  # work that is not to be cut
        self._leaving = False
        self._engines: list[subprocess.Popen[bytes]] = []

    # What the app on top knows

    def open(self, place: Place, *runs: RunDirectory) -> None:
        """Go to a place: runs, new (from a run's settings, or none), monitor or results of a run, compare runs, the
        queue, or a sweep."""
        raise NotImplementedError

    def tell(self, title: str, text: str) -> None:
        """Show something longer until a key is pressed."""
        raise NotImplementedError

    # What is shown, and how

    @property
    def plain(self) -> bool:
        """ASCII mode: no braille, no blocks, no box drawing."""
        return self.settings.ascii

    @property
    def curve_colours(self) -> tuple[str, ...]:
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

    def say(self, text: object, severity: SeverityLevel = "information") -> None:
        """A remark in the corner; what came from a disk or a person is made safe."""
        long = 4 if severity == "information" else 10
        self.notify(shown(text, 600), markup=False, severity=severity, timeout=long)

    def ask(self, owner: Screen[Any], dialog: Screen[T], then: Callable[[T | None], None]) -> None:
        """Put a question over the screen whose it is, unless another is there by now, whose keys would answer it."""
        if self.screen is owner:
            self.push_screen(dialog, then)
        else:
            self.say("what was asked for came too late: ask again", "warning")

    def complain(self, error: Exception) -> None:
        """Say what went wrong; who is leaving stays to read it."""
        self._leaving = False
        if isinstance(error, LaunchError):
            self.tell("The engine did not start", str(error))
        elif isinstance(error, OSError):
            self.say(f"{error.filename or self.folder}: {error.strerror or error}", "error")
        else:
            self.say(error, "error")

    # Work in the background

    def in_background(
        self,
        owner: DOMNode,
        work: Callable[[], T],
        then: Callable[[T], object] = lambda _: None,
        failed: Callable[[Exception], object] | None = None,
        whole: bool = False,
        awaited: bool = False,
    ) -> None:
        """Do something that may wait for a disk or an engine; ``then`` or ``failed`` gets the outcome, in the app.

        ``owner`` is the screen or widget that the outcome is for: what comes after that has gone is dropped. It is the
        app itself where the outcome counts wherever the person is by then; failures without a ``failed`` do always.
        The thread is a daemon: nothing that hangs keeps ctrl+q from leaving at once, but what is to be done ``whole``.
        Keys wait for the outcome where it is ``awaited``, two seconds at most: those behind the one that has asked for
        it are for that, and not taken where it fails.
        """
        screen = self.screen if awaited else None

        def body() -> None:
            try:
                answer = work()
            except (RequestError, LaunchError, OSError) as error:
                if screen is not None:
                    self.call_in_app(self, self.refuse_typed)
                self.call_in_app(self if failed is None else owner, partial(failed or self.complain, error))
            else:
                self.call_in_app(owner, partial(then, answer))
            finally:
                if whole:
                    self.call_in_app(self, partial(self._one_is_whole, thread))
                if isinstance(screen, Awaited):
                    self.call_in_app(screen, partial(screen.there, thread))

        thread = threading.Thread(target=body, daemon=True)
        if whole:
            self._whole.append(thread)
        if isinstance(screen, Awaited):
            screen.awaited.add(thread)
        thread.start()

    def _one_is_whole(self, thread: threading.Thread) -> None:
        self._whole.remove(thread)
        if self._leaving and not self._whole:
            self.leave()

    def finish(self) -> None:
        """Wait for what is to be done whole, as long as that may take; from any thread, and after the app."""
        deadline = time.monotonic() + LONGEST
        for thread in [*self._whole]:
            thread.join(max(0.0, deadline - time.monotonic()))

    def leave(self) -> None:
        """End the app; engines go on. What is to be done whole is waited for, unless this is asked for again."""
        if self._whole and not self._leaving:
            self._leaving = True
            self.say("what is being queued or handed over is done first; q again leaves at once", "warning")
            return
        self.release()
        self.exit(None)

    def call_in_app(self, owner: DOMNode, callback: Callable[[], object]) -> None:
        """Call something in the app's own thread, from any other, if its ``owner`` is still there then."""
        with suppress(RuntimeError):  # the event loop is closed
            self.call_later(lambda: callback() if self.holds(owner) else None)

    def holds(self, node: DOMNode) -> bool:
        """Whether a screen or a widget is still part of the app (`is_mounted` stays true when a screen has gone)."""
        screen = next((one for one in node.ancestors_with_self if isinstance(one, Screen)), None)
        # An app that ends takes its screens apart before they leave the stack.
        return node is self or (self.is_running and screen in self.screen_stack and node.is_attached)

    # Engines that were started here

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """Keep the handle of an engine started here, so that it is no zombie when it has ended."""
        self.reap()
        self._engines = [*self._engines, process]

    def reap(self) -> None:
        """Let the handles of engines that have ended go."""
        self._engines = [engine for engine in self._engines if engine.poll() is None]

    def release(self) -> None:
        """Let go of engines: they go on, nobody waits for them."""
        for engine in self._engines:
            if engine.poll() is None:
                engine.returncode = 0  # Popen would warn that it is still running, which is the point
        self._engines = []


def app_of(node: DOMNode) -> BaseApp:
    """The app that a screen or widget is part of, by its own type."""
    app = node.app
    assert isinstance(app, BaseApp)
    return app


class Follower(Generic[T]):
    """The same work in the background again and again: when it is woken, and ``seconds`` (if any) after it was done.

    ``then`` gets every outcome; what has failed is tried again; ``after`` comes behind either. The next round waits for
    the last one's outcome, which comes to the ``owner``: so there is one thread at most, all but the work happens in
    the app's own, and when the owner has gone and the outcome is dropped, there is no next round.
    """

    def __init__(
        self,
        owner: DOMNode,
        work: Callable[[], T],
        then: Callable[[T], object],
        seconds: float | None = None,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        self._owner, self._work, self._then, self._seconds, self._after = owner, work, then, seconds, after
        self.busy = self.again = False  # at work; to be done once more as soon as that is done
        self._later: asyncio.TimerHandle | None = None  # a tenth of what a timer of Textual's costs

    def wake(self) -> None:
        """Do it now, or again as soon as it is done."""
        if self.busy:
            self.again = True
            return
        if self._later is not None:
            self._later.cancel()
        app = app_of(self._owner)
        if app.holds(self._owner):
            self.busy = True
            app.in_background(self._owner, self._work, self._came, lambda _: self._next())

    def _came(self, outcome: T) -> None:
        self._then(outcome)
        self._next()

    def _next(self) -> None:
        self.busy = False
        if self.again:
            self.again = False
            self.wake()
        elif self._seconds is not None:
            unseen = isinstance(self._owner, Page) and not self._owner.seen
            self._later = asyncio.get_running_loop().call_later(self._seconds * (UNSEEN if unseen else 1), self.wake)
        self._after()


class Page(Awaited[None]):
    """A screen that fills the terminal; its classes tell how much room there is."""

    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (64, "-small"), (116, "-middle"), (150, "-large")]  # noqa: RUF012 (Textual's)
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (20, "-tall")]  # noqa: RUF012
    PLACE: ClassVar[Place]
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)  # Textual's paints it all when the cursor moves
    AUTO_FOCUS = ""  # each takes it itself: the first that could is not always to be seen

    def __init__(self) -> None:
        super().__init__()
        self._followers: list[Follower[Any]] = []
        self.late = False  # nothing is painted yet
        self._unpainted = ExitStack()  # while it is open nothing is painted

    def paint_late(self) -> None:
        """Paint nothing of this screen, which opens, until `paint`: a picture without what is being read costs as much
        as one with it. That is not waited for long."""
        self.late = True
        self._unpainted.enter_context(self.app.batch_update())
        self.set_timer(FIRST_SECONDS, self.paint)

    def paint(self) -> None:
        """From now on paint everything."""
        self.late = False
        self.before_paint()
        self._unpainted.close()
        self.check_idle()

    def before_paint(self) -> None:
        """Draw what has waited for that."""

    def on_unmount(self) -> None:
        self._unpainted.close()

    @property
    def hah(self) -> BaseApp:
        """The app, by its own type."""
        return app_of(self)

    def follow(self, work: Callable[[], T], then: Callable[[T], object], seconds: float) -> None:
        """Do some work every so many seconds from when this screen is shown until it is left; more rarely while another
        hides it. Keys wait for the first outcome: before that they would find nothing under the cursor."""

        def there() -> None:
            if not follower.busy:
                self.awaited.discard(READING)

        def read() -> None:
            self.app.call_later(there)

        self.awaited.add(READING)
        follower = Follower(self, work, then, seconds, read)
        self._followers.append(follower)

    def wake(self) -> None:
        """Do now what is done every so many seconds."""
        for follower in self._followers:
            follower.wake()

    def on_screen_resume(self) -> None:
        self.wake()

    def redraw(self) -> None:
        """Draw everything again: another theme, ASCII mode."""
        raise NotImplementedError

    @property
    def seen(self) -> bool:
        """Whether nothing but dialogs lies over it (`is_current` also counts the screen under a whole one, whose
        repainting repaints that one)."""
        stack = self.app.screen_stack
        return self in stack and all(screen.is_modal for screen in stack[stack.index(self) + 1 :])

    def _compositor_refresh(self) -> None:
        """Textual's paints all of the screen on top again when one that is hidden by it has changed, and throws away
        what it has painted while nothing is to be."""
        if self.late:
            return
        if self.seen:
            super()._compositor_refresh()
        else:
            self._compositor._dirty_regions.clear()
            self._dirty_widgets.clear()

    def idle(self) -> set[str]:
        """The actions that would do nothing now: the footer leaves them out, their keys say why."""
        return set()

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        idle = self.idle() if self.hah.has_site else {*self.idle(), "hand_over"}
        types = isinstance(self.focused, Input)  # what a text field takes is no key of the screen
        return {
            key: one
            for key, one in super().active_bindings.items()
            if one.binding.action not in idle and not (types and (key_to_character(key) or "\0").isprintable())
        }
