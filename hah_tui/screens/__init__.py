"""The screens of hah-tui. A screen's keys come from hah_tui.keys; what touches a disk runs in a thread."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import ActiveBinding
from textual.keys import key_to_character
from textual.screen import Screen
from textual.widgets import Input

from hah_tui.text import shown_line

if TYPE_CHECKING:
    from hah_tui.app import HahApp


class Page(Screen[None]):
    """A screen that fills the terminal; its classes tell how much room there is."""

    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (64, "-small"), (116, "-middle"), (150, "-large")]  # noqa: RUF012 (Textual's)
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (20, "-tall")]  # noqa: RUF012
    PLACE: ClassVar[str] = ""  # its name in keys.ACTIONS
    AUTO_FOCUS = ""  # each takes it itself: the first that could is not always to be seen

    @property
    def seen(self) -> bool:
        """Whether nothing but dialogs lies over it (`is_current` also counts the screen under a whole one, whose
        repainting repaints that one)."""
        stack = self.app.screen_stack
        return self in stack and all(screen.is_modal for screen in stack[stack.index(self) + 1 :])

    def idle(self) -> set[str]:
        """The actions that would do nothing now: the footer leaves them out, their keys say why."""
        return set()

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        idle, types = self.idle(), isinstance(self.focused, Input)  # what a text field takes is no key of the screen
        return {
            key: one
            for key, one in super().active_bindings.items()
            if one.binding.action not in idle and not (types and (key_to_character(key) or "\0").isprintable())
        }

    @property
    def hah(self) -> HahApp:
        """The app, by its own type."""
        return cast("HahApp", self.app)


def home(path: object) -> str:
    """A path as text, the home folder as ~."""
    text, start = shown_line(path, 300), os.path.expanduser("~")  # noqa: PTH111 (Path.home raises where there is none)
    return "~" + text[len(start) :] if start != "/" and text.startswith(f"{start}/") else text
