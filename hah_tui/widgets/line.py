"""A line to type into, with every key taken in the order it was pressed."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding
from textual.events import Key
from textual.reactive import Reactive
from textual.widgets import Input

from hah_tui.base import app_of


class Line(Input, inherit_bindings=False):
    """Textual's `Input`, whose letters overtake the other keys on a busy machine.

    It takes a letter at once, and passes any other key up to the app, which then asks for its binding: of ctrl+u and a
    letter typed before the next picture, the letter goes in first and is deleted; of tab and a letter, the letter goes
    into the field that was to be left; of letters and ctrl+r, what they were typed for begins without them. Here every
    key acts at once.
    """

    BINDINGS = Input.BINDINGS  # and none of those by which other widgets scroll
    cursor_blink = Reactive(False, init=False)  # a picture twice a second, over a thin line too
    EDITS: ClassVar[dict[str, str]] = {made.key: made.action for made in Binding.make_bindings(Input.BINDINGS)}

    async def _on_key(self, event: Key) -> None:
        app, at = app_of(self), self.screen.focused
        again = Key(event.key, event.character)
        if app.holds_back(again):
            pass
        elif app.screen is not self.screen:  # a key before this one opened another screen
            app.post_message(again)
        elif at is not None and at is not self:  # a key before this one went to another field
            at._forward_event(again)
        elif event.key in self.EDITS and not (event.key == "delete" and self._nothing_to_delete()):
            await self.run_action(self.EDITS[event.key])
        elif (bound := self.screen.active_bindings.get(event.key)) and bound.node is not self:
            await app.run_action(bound.binding.action, bound.node)
        else:
            return  # to Input's own method, which Textual calls next
        event.stop()
        event.prevent_default()

    def _nothing_to_delete(self) -> bool:
        """Whether `delete` is the parent's key here: it has nothing behind the cursor to take away."""
        return self.cursor_position >= len(self.value) and self.selection.is_empty
