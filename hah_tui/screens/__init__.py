"""The screens of hah-tui. A screen's keys come from hah_tui.keys; what touches a disk runs in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.screen import Screen

if TYPE_CHECKING:
    from hah_tui.app import HahApp


class Page(Screen[None]):
    """A screen that fills the terminal; its classes tell how much room there is."""

    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (64, "-small"), (116, "-middle"), (150, "-large")]  # noqa: RUF012 (Textual's)
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (20, "-tall")]  # noqa: RUF012
    PLACE: ClassVar[str] = ""  # its name in keys.ACTIONS

    @property
    def seen(self) -> bool:
        """Whether nothing but dialogs lies over it (`is_current` also counts the screen under a whole one, whose
        repainting repaints that one)."""
        stack = self.app.screen_stack
        return self in stack and all(screen.is_modal for screen in stack[stack.index(self) + 1 :])

    @property
    def hah(self) -> HahApp:
        """The app, by its own type."""
        return cast("HahApp", self.app)
