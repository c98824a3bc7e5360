"""Panels of lines: what happened (the record's events, or the end of engine.log)."""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from textual.events import MouseScrollDown, MouseScrollUp, Resize

from engine.runs.events import Event
from hah_tui.event_line import event_line
from hah_tui.text import shown, shown_line
from hah_tui.widgets import canvas
from hah_tui.widgets.canvas import QUIET, TEXT, TITLE, Canvas, InkedRow

BROAD = 100  # cells from which on an event has room for all it says
_INKS = {
    "warning": canvas.WAITING, "failed": canvas.BAD, "set": canvas.MARK, "finished": canvas.GOOD,
    "stopped": canvas.WAITING, "checkpoint": QUIET, "engine": QUIET, "position": QUIET, "command": QUIET,
}  # fmt: skip


class Lines(Canvas, can_focus=True):
    """A panel of lines under a title, which can be scrolled; `at_end`: unless scrolled back it shows the last ones."""

    at_end = True

    def __init__(self, title: str, digit: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heading, self.digit = title, digit
        self.back = 0  # lines scrolled away from where it begins

    def fresh(self) -> None:
        """Draw what is there now."""
        if self.size.width and self.display:
            self.show(self.frame(self.size.width, self.size.height))

    def listed(self, width: int, most: int) -> list[list[tuple[str, int]]]:
        """The lines, each as pieces of (text, ink); of those that are shown from the end ``most`` are enough."""
        raise NotImplementedError

    def on_resize(self, event: Resize) -> None:
        self.fresh()

    def on_focus(self) -> None:
        self.fresh()

    def on_blur(self) -> None:
        self.fresh()

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.scroll_lines(3)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.scroll_lines(-3)

    def scroll_lines(self, back: int) -> None:
        """Scroll back by so many lines, on where negative."""
        self.back = max(0, self.back + (back if self.at_end else -back))
        self.fresh()

    def frame(self, width: int, height: int) -> list[InkedRow]:
        """Title and lines."""
        name = (f" {self.digit} {self.heading} ".replace("  ", " "), canvas.FOCUSED if self.has_focus else TITLE)
        room = max(0, height - 1)
        lines = self.listed(width, room + self.back)
        self.back = min(self.back, max(0, len(lines) - room))
        first = max(0, len(lines) - room) - self.back if self.at_end else self.back
        hidden = self.back if self.at_end else len(lines) - room - first
        flags = [(f"{hidden} more below ", canvas.MARK)] if hidden > 0 else []
        rows = [canvas.row(name, width=width, right=flags)]
        rows += [_fitting(pieces, width) for pieces in lines[first : first + room]]
        return (rows + [canvas.row(width=width)] * height)[:height]


class Feed(Lines):
    """The newest at the bottom."""

    def __init__(self, title: str, digit: str = "", **kwargs: Any) -> None:
        super().__init__(title, digit, **kwargs)
        self._title = title
        self.engine_log = False
        self._events: Sequence[Event] = ()
        self._log, self._epochs = "", 0
        self.wrap = False  # long lines go on below
        self._words: dict[tuple[int, int, bool, int], tuple[str, str, int]] = {}  # by the events' identities

    def draw(self, events: Sequence[Event], log: str, epochs: int) -> None:
        """Show the end of ``events``, or of ``log``."""
        self._events, self._log, self._epochs = events, log, epochs
        self.fresh()

    def listed(self, width: int, most: int) -> list[list[tuple[str, int]]]:
        self.heading = "engine.log" if self.engine_log else self._title
        if not self.engine_log:
            return self._told(width, most)
        texts = (f" {shown_line(text, 500)}" for text in shown(self._log, 100_000).splitlines())
        return [[(part, TEXT)] for text in texts for part in (_wrapped(text, width) if self.wrap else [text])]

    def _told(self, width: int, most: int) -> list[list[tuple[str, int]]]:
        """The events' lines, the last ``most`` of them; each event is put into words once, as long as it is shown.

        Of the checkpoints of a name the last one has a line, with how many there were: they come with every epoch.
        """
        known, self._words = self._words, {}
        saved = Counter(str(event.get("name")) for event in self._events if event["kind"] == "checkpoint")
        lines: list[list[tuple[str, int]]] = []
        for event in reversed(self._events):
            if len(lines) >= most:
                break
            again = 0
            if event["kind"] == "checkpoint":
                again = saved.pop(str(event.get("name")), 0)
                if not again:
                    continue
            key = id(event), self._epochs, self.wrap or width >= BROAD, again
            clock, text, ink = self._words[key] = known[key] if key in known else self._worded(event, key[2], again)
            if text:
                parts = _wrapped(text, width - len(clock)) if self.wrap else [text]
                gaps = [clock, *[" " * len(clock)] * (len(parts) - 1)]
                lines += [[(gap, QUIET), (part, ink)] for gap, part in zip(gaps, parts, strict=True)][::-1]
        return lines[::-1]

    def _worded(self, event: Event, whole: bool, times: int) -> tuple[str, str, int]:
        text = event_line(event, self._epochs, brief=not whole) or _short(event)
        text += f" ({times} so far)" if times > 1 and text else ""
        moment = event.get("time")
        clock = time.strftime(" %H:%M:%S ", time.localtime(moment)) if _is_time(moment) else " " * 10
        return clock, text, _INKS.get(event["kind"], TEXT)


def _short(event: Event) -> str:
    """What `event_line` has no words for."""
    match event:
        case {"kind": "finished" | "stopped" as kind, "step": step}:
            return shown_line(f"{kind} at step {step}")
        case {"kind": "command", "verb": "set", "ok": False, "text": text}:
            return shown_line(f"set refused: {text}", 500)
        case {"kind": "command", "verb": verb, "ok": True} if verb != "set":
            return shown_line(f"{verb} done")
    return ""


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < 1 << 40


def _wrapped(text: str, width: int) -> list[str]:
    """A line as several of at most ``width`` characters."""
    return textwrap.wrap(text, max(10, width), drop_whitespace=True) or [text]


def _fitting(pieces: list[tuple[str, int]], width: int) -> InkedRow:
    return canvas.row(*((canvas.narrow(text), ink) for text, ink in pieces), width=width)
