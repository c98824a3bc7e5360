"""Where a new run starts: the presets and the draft that was kept, and what each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from hah_tui.base import BaseApp, app_of
from hah_tui.catalogue import Catalogue, Offer, catalogue
from hah_tui.screens import summary
from hah_tui.text import age, shown, shown_line
from hah_tui.widgets.choice import Options

if TYPE_CHECKING:
    from hah_tui.draft import Draft
    from hah_tui.speeds import Speed


class PickPreset(Horizontal):
    """The list, and beside it what is under its cursor."""

    class Taken(Message):
        """Somebody wants to start from this: a draft, or the preset of a name."""

        def __init__(self, start: Draft | str) -> None:
            super().__init__()
            self.start = start

    def __init__(self) -> None:
        super().__init__(id="choose")
        self.speeds: Sequence[Speed] = ()
        self._catalogue = Catalogue({})

    @property
    def hah(self) -> BaseApp:
        """The app, by its own type."""
        return app_of(self)

    def compose(self) -> ComposeResult:
        yield Options(id="presets", markup=False)
        with VerticalScroll(id="about", can_focus=False):
            yield Static(id="description")

    def say(self, text: Text) -> None:
        """Put this beside the list."""
        self.query_one("#description", Static).update(text)

    def read(self) -> None:
        """List what there is now."""
        box = self.query_one(OptionList)
        box.clear_options()
        box.focus()
        self.hah.in_background(self, catalogue, self._arrived)

    def _arrived(self, found: Catalogue) -> None:
        self._catalogue = found
        box = self.query_one(OptionList)
        quiet, bold = self.hah.colour("quiet"), f"bold {self.hah.colour('accent')}"
        if found.draft is not None:
            box.add_option(Option(Text("Your draft", bold), disabled=True))
            box.add_option(Option(Text(f"  {shown_line(found.draft.origin, 40)}"), id="draft"))
        for title, offers in found.groups.items():
            if offers:
                box.add_option(Option(Text(title, bold), disabled=True))
            for offer in offers:
                label = Text(f"  {shown_line(offer.name, 60)}", no_wrap=True, overflow="ellipsis")
                if offer.shadows:
                    label.append(" (yours)", quiet)
                box.add_option(Option(label, id=f"p:{offer.name}"))
        box.action_first()

    def _found(self, option: Option) -> Draft | Offer | None:
        """The draft or the preset of an option."""
        if option.id == "draft":
            return self._catalogue.draft
        offers = (offer for offers in self._catalogue.groups.values() for offer in offers)
        return next((offer for offer in offers if option.id == f"p:{offer.name}"), None)

    @on(OptionList.OptionHighlighted)
    def redraw(self) -> None:
        """Say what is under the cursor."""
        option, text, colour = self.query_one(OptionList).highlighted_option, Text(), self.hah.colour
        if option is None:
            return
        found = self._found(option)
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
            text.append(f"{shown_line(found.origin)}\n", "bold")
            text.append(f"written {age(self._catalogue.written)} ago\n\n")
            text.append_text(summary.changes(found, colour, self.hah.plain))
        self.say(text)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        found = self._found(event.option)
        if not isinstance(found, Offer):
            if found is not None:
                self.post_message(self.Taken(found))
        elif isinstance(found.experiment, str):
            self.hah.say(found.experiment, "error")
        else:
            self.post_message(self.Taken(found.name))
