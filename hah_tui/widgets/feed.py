"""What happened, the newest at the bottom: the record's events, or the end of engine.log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from textual.events import MouseScrollDown, MouseScrollUp, Resize

from engine.runs.events import Event
from hah_tui.cli.watching import line
from hah_tui.text import shown, shown_line
from hah_tui.widgets import canvas
from hah_tui.widgets.canvas import QUIET, TEXT, TITLE, Canvas, Row

_INKS = {"warning": canvas.WAITING, "failed": canvas.BAD, "set": canvas.MARK, "finished": canvas.GOOD,
         "stopped": canvas.WAITING, "checkpoint": QUIET, "engine": QUIET, "position": QUIET, "command": QUIET}  # fmt: skip


class Feed(Canvas, can_focus=True):
    """A panel of lines; it follows the newest unless it was scrolled back."""

    def __init__(self, title: str, digit: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heading, self.digit = title, digit
        self.engine_log = False
        self.back = 0  # lines scrolled back
        self._events: Sequence[Event] = ()
        self._log, self._epochs, self._state = "", 0, (0, 0.0)

    def draw(self, events: Sequence[Event], log: str, epochs: int) -> None:
        """Show the end of ``events``, or of ``log``."""
        self._events, self._log, self._epochs = events, log, epochs
        if self.size.width and self.display:
            self.show(self.frame(self.size.width, self.size.height))

    def on_resize(self, event: Resize) -> None:
        self.draw(self._events, self._log, self._epochs)

    def on_focus(self) -> None:
        self.draw(self._events, self._log, self._epochs)

    def on_blur(self) -> None:
        self.draw(self._events, self._log, self._epochs)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.scroll_lines(3)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.scroll_lines(-3)

    def scroll_lines(self, back: int) -> None:
        """Scroll back by so many lines, on where negative."""
        self.back = max(0, self.back + back)
        self.draw(self._events, self._log, self._epochs)

    def frame(self, width: int, height: int) -> list[Row]:
        """Title and lines."""
        name = (f" {self.digit} {'engine.log' if self.engine_log else self.heading} ".replace("  ", " "),
                canvas.FOCUSED if self.has_focus else TITLE)  # fmt: skip
        lines = self._said() if self.engine_log else self._told()
        room = max(0, height - 1)
        self.back = min(self.back, max(0, len(lines) - room))
        end = len(lines) - self.back
        flags = [(f"{self.back} later ", canvas.MARK)] if self.back else []
        rows = [canvas.row(name, width=width, right=flags)]
        rows += [_fitting(pieces, width) for pieces in lines[max(0, end - room) : end]]
        return (rows + [canvas.row(width=width)] * height)[:height]

    def _said(self) -> list[list[tuple[str, int]]]:
        return [[(f" {shown_line(text, 500)}", TEXT)] for text in shown(self._log, 100_000).splitlines()]

    def _told(self) -> list[list[tuple[str, int]]]:
        lines = []
        for event in self._events:
            text = line(event, self._epochs) or _short(event)
            if text:
                moment = event.get("time")
                clock = time.strftime(" %H:%M:%S ", time.localtime(moment)) if _is_time(moment) else " " * 10
                lines.append([(clock, QUIET), (text, _INKS.get(event["kind"], TEXT))])
        return lines


def _short(event: Event) -> str:
    """What `line` has no words for."""
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


def _fitting(pieces: list[tuple[str, int]], width: int) -> Row:
    """Pieces as a row; characters of two cells, which rows cannot hold, become question marks."""
    narrow = [("".join(c if cell_len(c) == 1 else "?" for c in text) if cell_len(text) != len(text) else text, ink)
              for text, ink in pieces]  # fmt: skip
    return canvas.row(*narrow, width=width)
