"""Where a new run starts: the presets and the drafts that were kept, found by typing, and what each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Key
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from hah_tui.base import BaseApp, app_of
from hah_tui.catalogue import Catalogue, Kept, Offer, catalogue
from hah_tui.screens import summary
from hah_tui.text import age, shown, shown_line
from hah_tui.widgets.choice import Options
from hah_tui.widgets.line import Line

if TYPE_CHECKING:
    from hah_tui.speeds import Speed


class PickPreset(Horizontal):
    """The list, and beside it what is under its cursor. The cursor of typing stays in the line above the list."""

    class Taken(Message):
        """Somebody wants to start from this: a draft that was kept, or the preset of a name."""

        def __init__(self, start: Kept | str) -> None:
            super().__init__()
            self.start = start

    class Forgotten(Message):
        """Somebody wants a draft to be thrown away."""

        def __init__(self, kept: Kept) -> None:
            super().__init__()
            self.kept = kept

    def __init__(self) -> None:
        super().__init__(id="choose")
        self.speeds: Sequence[Speed] = ()
        self._catalogue = Catalogue({})

    @property
    def hah(self) -> BaseApp:
        """The app, by its own type."""
        return app_of(self)

    def compose(self) -> ComposeResult:
        with Vertical(id="offers"):
            yield Line(placeholder="type to search", id="words", compact=True, select_on_focus=False)
            box = Options(id="presets", markup=False)
            box.can_focus = False
            yield box
        with VerticalScroll(id="about", can_focus=False):
            yield Static(id="description")

    def say(self, text: Text) -> None:
        """Put this beside the list."""
        description = self.query_one("#description", Static)
        if text != description.content:
            description.update(text)

    def read(self, left: Kept | None = None) -> None:
        """List what there is now, with a draft that was just ``left``: it need not be read first."""
        self.query_one(Line).focus()
        if left is not None:
            others = (kept for kept in self._catalogue.drafts if kept.name != left.name)
            self._arrived(replace(self._catalogue, drafts=(left, *others)))
        self.hah.in_background(self, catalogue, self._arrived)

    def _arrived(self, found: Catalogue) -> None:
        self._catalogue = found
        self._list()

    @on(Input.Changed)
    def _list(self) -> None:
        """The drafts and presets that have all the words in their names, tags or descriptions."""
        box, words = self.query_one(OptionList), self.query_one(Line).value.lower().split()
        quiet, accent = self.hah.colour("quiet"), self.hah.colour("accent")
        options: list[Option] = []

        def put(title: str, members: list[Option]) -> None:
            options.extend(
                [Option(Text.assemble((title, f"bold {accent}")), disabled=True), *members] if members else []
            )

        drafts = [
            Option(Text(f"  {shown_line(kept.draft.origin, 40)}, {age(kept.written)} ago", no_wrap=True,
                        overflow="ellipsis"), id=f"d:{kept.name}")
            for kept in self._catalogue.drafts
            if _has(words, f"draft {kept.draft.origin} {' '.join(kept.draft.texts)}")
        ]  # fmt: skip
        put("Your drafts" if len(drafts) > 1 else "Your draft", drafts)
        for title, offers in self._catalogue.groups.items():
            members = []
            for offer in offers:
                experiment = offer.experiment
                about = "" if isinstance(experiment, str) else f"{' '.join(experiment.tags)} {experiment.description}"
                if _has(words, f"{offer.name} {title} {about}"):
                    label = Text(f"  {shown_line(offer.name, 60)}", no_wrap=True, overflow="ellipsis")
                    label.append(" (yours)" if offer.shadows else "", quiet)
                    members.append(Option(label, id=f"p:{offer.name}"))
            put(title, members)
        if [(one.id, one.prompt) for one in options] == [(one.id, one.prompt) for one in box.options]:
            self.redraw()  # all is as it was, with its cursor
            return
        box.clear_options()
        box.add_options(options)
        if options:
            box.action_first()
            self.redraw()
        elif self._catalogue.groups:
            self.say(Text("nothing has all these words", self.hah.colour("quiet")))

    def without(self, kept: Kept) -> None:
        """List a draft no more."""
        self._catalogue = replace(self._catalogue, drafts=tuple(k for k in self._catalogue.drafts if k is not kept))
        self._list()

    def move(self, by: int) -> None:
        """Move the cursor of the list."""
        box = self.query_one(OptionList)
        (box.action_cursor_down if by > 0 else box.action_cursor_up)()

    def on_key(self, event: Key) -> None:
        box = self.query_one(Options)
        moves = {"pageup": box.action_page_up, "pagedown": box.action_page_down, "delete": self._forget}
        if event.key in moves:
            event.stop()
            moves[event.key]()

    def clear(self) -> bool:
        """Empty the line; whether there was anything."""
        line = self.query_one(Line)
        had, line.value = bool(line.value), ""
        return had

    def _found(self, option: Option | None) -> Kept | Offer | None:
        """The draft or the preset of an option."""
        if option is None:
            return None
        offers = (offer for offers in self._catalogue.groups.values() for offer in offers)
        kept = next((kept for kept in self._catalogue.drafts if option.id == f"d:{kept.name}"), None)
        return kept or next((offer for offer in offers if option.id == f"p:{offer.name}"), None)

    @on(OptionList.OptionHighlighted)
    def redraw(self) -> None:
        """Say what is under the cursor."""
        text, colour = Text(), self.hah.colour
        found = self._found(self.query_one(OptionList).highlighted_option)
        if isinstance(found, Offer):
            text.append(f"{shown_line(found.name)}\n", "bold")
            experiment = found.experiment
            if isinstance(experiment, str):
                text.append(f"\n\n{shown(experiment)}", colour("bad"))
            else:
                text.append(f"{shown(experiment.description, 1200)}\n\n")
                text.append_text(summary.network(experiment.blocks(), experiment.model.hah_blocks, colour))
                text.append("\n")
                text.append_text(summary.facts(experiment, self.speeds, colour))
        elif found is not None:
            text.append(f"{shown_line(found.draft.origin)}\n", "bold")
            text.append(f"written {age(found.written)} ago; ", colour("quiet"))
            text.append("delete throws it away\n\n", colour("quiet"))
            text.append_text(summary.changes(found.draft, colour, self.hah.plain))
        if found is not None:
            self.say(text)

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        found = self._found(self.query_one(OptionList).highlighted_option)
        if isinstance(found, Offer) and isinstance(found.experiment, str):
            self.hah.say(found.experiment, "error")
        elif found is not None:
            self.post_message(self.Taken(found.name if isinstance(found, Offer) else found))

    def _forget(self) -> None:
        found = self._found(self.query_one(OptionList).highlighted_option)
        if isinstance(found, Kept):
            self.post_message(self.Forgotten(found))


def _has(words: Sequence[str], text: str) -> bool:
    return all(word in text.lower() for word in words)
