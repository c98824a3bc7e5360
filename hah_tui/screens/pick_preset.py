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


AGES_SECONDS = 5.0  # between two looks at how old drafts are


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

    def __init__(self, listed: bool) -> None:
        super().__init__(id="choose")
        self._listed = listed  # from the beginning
        self.speeds: Sequence[Speed] = ()
        self._catalogue = Catalogue({})
        self._left: dict[str, Kept | None] = {}  # drafts that the form was left with, which the disk may not have yet

    @property
    def hah(self) -> BaseApp:
        """The app, by its own type."""
        return app_of(self)

    def compose(self) -> ComposeResult:
        with Vertical(id="offers"):
            yield Line(placeholder="type to search", id="words", compact=True)
            box = Options(id="presets", markup=False)
            box.can_focus = False
            yield box
        with VerticalScroll(id="about", can_focus=False):
            yield Static(id="description")

    def on_mount(self) -> None:
        if self._listed:
            self.read()
        self.set_interval(AGES_SECONDS, lambda: self.redraw() if self.display and self._catalogue.drafts else None)

    def say(self, text: Text) -> None:
        """Put this beside the list."""
        description = self.query_one("#description", Static)
        if text != description.content:  # which compares spans, not the style of a whole text
            description.update(text)

    def read(self) -> None:
        """List what there is now."""
        self.query_one(Line).focus()
        self.hah.in_background(self, catalogue, self._arrived, awaited=True)

    def left(self, name: str, kept: Kept | None) -> None:
        """List a draft as the form was left with it, or no more (None), whatever the disk has by now."""
        self._left[name] = kept
        self._arrived(self._catalogue)

    def _arrived(self, found: Catalogue) -> None:
        drafts = {kept.name: kept for kept in found.drafts}
        for name, kept in self._left.items():
            if kept is None:
                drafts.pop(name, None)
            elif name not in drafts or drafts[name].written < kept.written:
                drafts[name] = kept
        newest = sorted(drafts.values(), key=lambda kept: kept.written, reverse=True)
        self._catalogue = replace(found, drafts=tuple(newest))
        self.redraw()

    @on(Input.Changed)
    @on(OptionList.OptionHighlighted)
    def redraw(self) -> None:
        """List the drafts and presets that have all the words in their names, tags or descriptions."""
        box, words = self.query_one(OptionList), self.query_one(Line).value.lower().split()
        quiet, accent = self.hah.colour("quiet"), self.hah.colour("accent")
        options: list[Option] = []

        def put(title: str, members: list[Option]) -> None:
            if members:
                options.extend([Option(Text.assemble((title, f"bold {accent}")), disabled=True), *members])

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
        if [one.id for one in options] == [one.id for one in box.options]:  # the cursor stays where it is
            for index, (new, old) in enumerate(zip(options, box.options, strict=True)):
                if new.prompt != old.prompt:
                    box.replace_option_prompt_at_index(index, new.prompt)
        else:
            box.clear_options()
            box.add_options(options)
            box.action_first()
        if options:
            self._describe()
        elif self._catalogue.groups:
            self.say(Text.assemble(("nothing has all these words", self.hah.colour("quiet"))))

    def move(self, by: int) -> None:
        """Move the cursor of the list."""
        box = self.query_one(OptionList)
        (box.action_cursor_down if by > 0 else box.action_cursor_up)()

    def on_key(self, event: Key) -> None:
        box = self.query_one(Options)
        moves = {"pageup": box.action_page_up, "pagedown": box.action_page_down, "delete": self._forget}
        if event.key in moves and not (event.key == "delete" and not self.query_one(Line).at_end):
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

    def _describe(self) -> None:
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
            text.append_text(summary.changes(found.draft, colour, self.hah.plain))
            text.append(f"\nwritten {age(found.written)} ago; delete throws it away", colour("quiet"))
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
