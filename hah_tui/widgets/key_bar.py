"""The last row: the keys that do something now, as many as there is room for."""

from __future__ import annotations

from textual.events import Click, Resize
from textual.screen import Screen

from hah_tui import keys
from hah_tui.widgets import canvas
from hah_tui.widgets.canvas import MARK, TEXT, Canvas

ALSO = {"back": "leave", "open": "select_cursor"}  # what screens and tables call these
LAST = ("back", "help", "quit")  # at the right end; the first two have room at any width


class KeyBar(Canvas):
    """The keys of the screen's table in its order, those that would do nothing left out; the first ones have room
    first, then those that are not worth it on a narrow screen. Textual's own footer mounts a widget a key, again at
    every move of the cursor."""

    DEFAULT_CSS = "KeyBar { dock: bottom; height: 1; background: $panel; }"

    def __init__(self, place: str) -> None:
        super().__init__()
        self._order = [action for where in (place, "all") for action in keys.of(where) if not action.each]
        self._placed: list[tuple[int, int, str]] = []  # (first cell, one after the last, key)

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def on_unmount(self) -> None:
        self.screen.bindings_updated_signal.unsubscribe(self)

    def on_resize(self, event: Resize) -> None:
        self.fresh()

    def _changed(self, screen: Screen[object]) -> None:
        if self.is_attached and screen is self.screen:
            self.fresh()

    def fresh(self) -> None:
        """Draw what can be done now."""
        if not self.size.width:
            return
        active = {key: one.binding.action for key, one in self.screen.active_bindings.items() if one.enabled}
        bound: dict[str, str] = {}  # the first key of each action that does something now
        for action in self._order:
            ways = {action.id, ALSO.get(action.id, "")}
            key = next((key for key in action.keys.split(",") if active.get(key) in ways), "")
            bound |= {action.id: key} if key else {}
        words = {
            action.id: (keys.shown_key(bound[action.id]), f" {action.label} ")
            for action in self._order
            if action.id in bound
        }
        taken, room = [name for name in LAST[:2] if name in words], self.size.width
        room -= sum(len("".join(words[name])) for name in taken)
        ranked = [action.id for action in sorted(self._order, key=lambda action: not action.footer)]
        for name in ranked:
            if name in words and name not in taken and len("".join(words[name])) <= room:
                taken.append(name)
                room -= len("".join(words[name]))
            elif name in words and name not in taken and name not in LAST:
                room = min(room, len("".join(words.get("quit", ""))))  # nothing overtakes what has no room
        shown = [name for name in ranked if name in taken and name not in LAST]
        shown += [name for name in LAST if name in taken]
        self._placed, at = [], 0
        for name in shown:
            end = at + len("".join(words[name]))
            self._placed.append((at, end, bound[name]))
            at = end
        self.show([
            canvas.row(*(piece for name in shown for piece in zip(words[name], (MARK, TEXT), strict=True)),
                       width=self.size.width)
        ])  # fmt: skip

    def on_click(self, event: Click) -> None:
        for first, end, key in self._placed:
            if first <= event.x < end:
                self.app.simulate_key(key)
