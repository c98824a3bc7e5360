"""What is typed and clicked, taken in turn: each key when all is done that the one before has led to.

Textual hands a key to what has the cursor at that moment, asks for bindings once that has passed it on, and moves the
cursor, mounts, tells and paints later still. So of keys that come at once, as they do over a line that stood still, a
word to filter by would be eight commands, and the run to be stopped the one that the cursor has left.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any, TypeVar

from textual.app import App
from textual.dom import DOMNode
from textual.driver import Driver
from textual.events import AppBlur, AppFocus, Event, Key, MouseDown, MouseEvent, MouseMove, MouseUp, Paste
from textual.message import Message
from textual.screen import Screen

Answer = TypeVar("Answer")
WAYS = 2  # to the app, until all is done that a key has led to: its action, then the messages of that
FOREIGN_WAYS = 6  # the same on a screen of Textual's own, such as the palette, which chooses, closes, then acts
SOON = 0.01  # seconds until it is looked again whether what is waited for is there
LOOKS = 20  # after which another way is tried; not a time, in which a loop that stood still would have done nothing
AWAITED_SECONDS = 2.0  # for which what is typed waits at most for what a key before it has asked for
PICTURE_SECONDS = 0.15  # between two pictures while keys come faster than these
LEAVING = ("escape", "ctrl+q")
OPENING, READING = "opening", "reading"


class Done(Message):
    """Goes the way of a key, behind it."""

    def __init__(self, event: Event, ways: int) -> None:
        super().__init__()
        self.event, self.ways = event, ways


class Awaited(Screen[Answer]):
    """A screen of which it is known what keys are to wait for, `AWAITED_SECONDS` at most."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.awaited: set[object] = {OPENING}  # what is on its way

    def on_screen_resume(self) -> None:
        self.there(OPENING)

    def there(self, what: object) -> None:
        """Something has come; what has asked for the cursor by now has it first, in the app's own loop."""
        self.app.call_later(lambda: self.awaited.discard(what))


class InTurn(App[None]):
    """The app, as far as it takes what is typed and clicked."""

    def __init__(self, driver: type[Driver]) -> None:
        super().__init__(driver)
        self._typed: list[Event] = []  # the first of which is being answered
        self._ways = 0  # that are left until it is
        self._refused = False  # what it waits for has failed
        self._look_again: asyncio.TimerHandle | None = None
        self._pictures: asyncio.TimerHandle | None = None  # until the next, while keys come faster
        self._unpainted = ExitStack()

    async def on_event(self, event: Event) -> None:
        """Take what is typed, and what comes behind it, one after the other."""
        behind = bool(self._typed) and isinstance(event, MouseEvent | AppBlur | AppFocus)
        alone = isinstance(event, Key | Paste | MouseDown | MouseUp)
        if event.is_forwarded or isinstance(event, MouseMove) or not (behind or alone):
            await super().on_event(event)
            return
        self._typed.append(event)
        if len(self._typed) == 1:
            await self._take(self._patience())
        self._save_pictures()

    def simulate_key(self, key: str) -> None:
        """A click on a key comes where the click came."""
        if self._typed:
            self._typed.insert(1, Key(key, None))
        else:
            super().simulate_key(key)

    def refuse_typed(self) -> None:
        """What keys were to wait for has failed: those behind the one that has asked for it are for nothing."""
        if self._ways:
            self._drop_typed(1)
        else:
            self._refused = bool(self._typed)

    @staticmethod
    def _patience() -> int:
        return round(AWAITED_SECONDS / SOON)

    async def _take(self, looks: int) -> None:
        """Take the first of what is typed as soon as what it is for is there, or has not come for so many looks."""
        screen = self.screen_stack[-1] if self.screen_stack else None
        waits = self._waits_for(screen.awaited) if isinstance(screen, Awaited) else set()
        if waits and looks and not self._refused:
            asyncio.get_running_loop().call_later(SOON, self.call_later, self._take, looks - 1)
            return
        if self._refused or waits - {READING}:
            self._drop_typed(0)
        if waits and isinstance(screen, Awaited):
            screen.awaited.clear()
        self._refused = False
        if self._typed:
            await super().on_event(self._typed[0])
            self._send_behind(WAYS if screen is None or isinstance(screen, Awaited) else FOREIGN_WAYS)

    def _waits_for(self, awaited: set[object]) -> set[object]:
        """What the first of what is typed is to wait for; who leaves waits for no disk."""
        key = self._typed[0].key if isinstance(self._typed[0], Key) else ""
        return set() if key == "ctrl+q" else awaited - {READING} if key in ("escape", "q") else awaited

    def _drop_typed(self, first: int) -> None:
        """Take nothing from the ``first`` on, as it was for what is not there, but a way out and what tells no wish."""
        ways_out = [one for one in self._typed[first:] if isinstance(one, Key) and one.key in LEAVING][-1:]
        kept = [one for one in self._typed[first:] if one in ways_out or isinstance(one, AppBlur | AppFocus | MouseUp)]
        if any(isinstance(one, Key | Paste) and one not in kept for one in self._typed[first:]):
            self.notify("what was typed is not taken: what it was for has not come", severity="warning")
        self._typed[first:] = kept

    def _send_behind(self, ways: int, by_screen: bool = False) -> None:
        if not self.screen_stack:  # the app has ended
            return
        self._ways, screen = ways, self.screen
        way = screen if by_screen or screen.focused is None else screen.focused
        way.post_message(Done(self._typed[0], ways))
        self._follow_way(way, LOOKS)

    def _follow_way(self, way: DOMNode, looks: int) -> None:
        """The widget that leads to the app may be taken away."""
        if (way.is_attached or isinstance(way, Screen)) and looks:
            self._look_again = asyncio.get_running_loop().call_later(SOON, self._follow_way, way, looks - 1)
        else:
            self._send_behind(self._ways, by_screen=True)

    async def on_done(self, done: Done) -> None:
        """All before it is done."""
        if not self._typed or (done.event, done.ways) != (self._typed[0], self._ways):  # found another way before
            return
        if self._look_again is not None:
            self._look_again.cancel()
        if done.ways > 1:
            self._send_behind(done.ways - 1)
            return
        self._ways = 0
        del self._typed[0]
        if self._typed:
            self._save_pictures()
            await self._take(self._patience())
        elif self._pictures is not None:
            self._pictures.cancel()
            self._paint()

    def _save_pictures(self) -> None:
        """Not each of many keys is worth one."""
        if len(self._typed) > 1 and self._pictures is None:
            self._unpainted.enter_context(self.batch_update())
            self._pictures = asyncio.get_running_loop().call_later(PICTURE_SECONDS, self._paint)

    def _paint(self) -> None:
        self._pictures = None
        self._unpainted.close()
        if self.screen_stack:
            self.screen.refresh()
            self.screen._on_timer_update()  # else the next key opens a batch before there is a picture
