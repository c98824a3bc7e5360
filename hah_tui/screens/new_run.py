"""A new run: pick a preset, change what is to be different, see what that comes to, launch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import DescendantFocus
from textual.widget import Widget
from textual.widgets import Footer, Input, OptionList, Select, Static, Switch, Tab, Tabs
from textual.widgets.option_list import Option

from engine.experiment.mistakes import RequestError
from engine.runs import launch, store
from engine.runs.layout import RunDirectory
from hah_tui import keys, orders
from hah_tui.screens import Page
from hah_tui.screens.dialogs import Ask
from hah_tui.settings import Keeper, stored_draft
from hah_tui.text import age, duration, shown, shown_line

if TYPE_CHECKING:
    from engine.experiment.fields import Field
    from engine.runs.devices import Gpu
    from hah_tui.draft import Draft, Speed

MOUNTED = 14  # fields at a time: each costs at every layout
MOST_BLOCKS = 16
ROWS = 7  # HaH blocks at a time, with two fields each
SPEEDS = 30  # earlier runs that are asked how fast they were

GROUPS = (("quick", "Quick"), ("paper", "The paper's"), ("ablation", "Ablations"), ("", "Others"))


@dataclass(frozen=True)
class Sheet:
    """What is mounted at a time: a tab with some fields, or with rows of HaH blocks."""

    title: str
    fields: tuple[Field, ...] = ()
    blocks: tuple[int, ...] = ()  # numbers of HaH blocks

    @property
    def there(self) -> bool:
        """Whether there is something on it; the first of the blocks says so if there are none."""
        return bool(self.fields or self.blocks) or self.title == "blocks"


def sheets(hah_blocks: int) -> list[Sheet]:
    """The form as tabs: the sections of the schema, cut where they are long, and the HaH blocks there could be."""
    from engine.experiment.fields import fields

    sections: dict[str, list[Field]] = {"run": []}
    for field in fields().values():
        if field.name == "compute.device":
            sections["run"].append(field)
        elif not field.per_block:
            sections.setdefault(field.section or "run", []).append(field)
    found = []
    for title, members in sections.items():
        count = -(-len(members) // MOUNTED)
        for part in range(count):
            chunk = members[part * len(members) // count : (part + 1) * len(members) // count]
            found.append(Sheet(title if count == 1 else f"{title} {part + 1}", tuple(chunk)))
        if title == "model":
            for start in range(1, MOST_BLOCKS + 1, ROWS):
                numbers = tuple(range(start, min(start + ROWS, hah_blocks + 1)))
                found.append(Sheet("blocks" if start == 1 else f"blocks {start}+", (), numbers))
    return found


class FieldRow(Horizontal):
    """One setting: its name, its control, and beside it what it may be or why it is wrong."""

    def __init__(self, field: Field, draft: Draft, prefix: str, devices: Sequence[tuple[str, str]]) -> None:
        super().__init__(classes="field")
        self.field, self._draft, self._prefix, self._devices = field, draft, prefix, devices
        self._said = ("", False)

    def compose(self) -> ComposeResult:
        field, text = self.field, self._draft.text(self.field.name)
        yield Static(Text(field.name.removeprefix(self._prefix), no_wrap=True, overflow="ellipsis"), classes="name")
        name = field.name
        if field.name == "compute.device":
            known = [value for value, _ in self._devices]
            choices = [*self._devices, *([(text, text)] if text not in known else [])]
            yield Select(
                [(Text(told), value) for value, told in choices], value=text, allow_blank=False, compact=True, name=name
            )
        elif field.kind in ("flag", "section"):
            yield Switch(text == "true", animate=False, name=name)
        elif field.kind == "choice":
            values = [str(choice) for choice in field.choices]
            yield Select([(value, value) for value in values], value=text, allow_blank=False, compact=True, name=name)
        else:
            yield Input(text, placeholder="null" if field.optional else "", compact=True, name=name,
                        select_on_focus=False)  # fmt: skip
        yield Static(classes="says")

    def on_mount(self) -> None:
        self.look()

    def look(self) -> None:
        """Say what is wrong with the field, else what it may be."""
        name = self.field.name
        wrong = self._draft.mistakes.get(name, "")
        off = self._draft.off(name)
        said = "adversarial training is off" if off else wrong or limits(self.field)
        self.set_class(off, "off")
        self.set_class(name in self._draft.texts and not off, "changed")
        control = self.query("Input, Select, Switch").first()
        control.disabled = off
        if (said, bool(wrong)) != self._said:
            self._said = (said, bool(wrong))
            says = self.query_one(".says", Static)
            says.update(Text(shown_line(said), no_wrap=not wrong, overflow="ellipsis"))
            says.set_class(bool(wrong) and not off, "wrong")
            self.set_class(bool(wrong) and not off, "bad")


class BlockRow(Horizontal):
    """One HaH block: its number, filters and map size, and its value of every per-block setting."""

    def __init__(self, number: int, about: str, draft: Draft) -> None:
        super().__init__(classes="field block")
        self.number, self._about, self._draft = number, about, draft

    def compose(self) -> ComposeResult:
        from hah_tui.draft import PER_BLOCK

        yield Static(Text(self._about, no_wrap=True), classes="name")
        for name in PER_BLOCK:
            text = self._draft.row(name)[self.number - 1]
            yield Input(text, compact=True, name=f"{name}[{self.number}]", select_on_focus=False)
        yield Static(classes="says")

    def on_mount(self) -> None:
        self.look()

    def look(self) -> None:
        """Say what is wrong with the block's values."""
        from hah_tui.draft import PER_BLOCK

        found = [
            f"{name.rpartition('.')[2]} {self._draft.mistakes[key]}"
            for name in PER_BLOCK
            if (key := f"{name}[{self.number}]") in self._draft.mistakes
        ]
        says = self.query_one(".says", Static)
        says.update(Text(shown_line("; ".join(found))))
        says.set_class(bool(found), "wrong")
        self.set_class(bool(found), "bad")


class Fields(VerticalScroll, inherit_bindings=False):
    """The mounted fields; arrows move between them instead of scrolling."""


class NewRunScreen(Page):
    """First the presets, then the form; a draft is kept at every change."""

    PLACE = "new"
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("new"),
        Binding("escape", "leave", "back"),
        Binding("down", "app.focus_next", "next field", show=False),
        Binding("up", "app.focus_previous", "previous field", show=False),
    ]

    def __init__(self, run: RunDirectory | None = None) -> None:
        super().__init__()
        self._run = run
        self.draft: Draft | None = None
        self._sheets: list[Sheet] = []
        self._sheet = 0
        self._told: dict[str, tuple[str, Any]] = {}  # preset: description, experiment or error
        self._kept: Draft | None = None
        self._kept_when = 0.0
        self._speeds: list[Speed] = []
        self._devices: list[tuple[str, str]] = [("auto", "auto"), ("cpu", "cpu")]
        self._summed = WeakKeyDictionary[Static, Text]()  # what stands in the two summaries
        self._into = True  # whether the cursor goes into the fields of a tab that opens
        self._wanted = ""  # the setting to put the cursor on when its tab is there
        self._busy = ""  # what a launch waits for
        self._keeper = Keeper()

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="bar")
        with Horizontal(id="choose"):
            yield OptionList(id="presets", markup=False)
            with VerticalScroll(id="about", can_focus=False):
                yield Static(id="description")
        with Vertical(id="form"):
            yield Tabs(id="tabs")
            with Horizontal(id="middle"):
                yield Fields(id="fields", can_focus=False)
                with VerticalScroll(id="side", can_focus=False):
                    yield Static(id="summary")
            yield Static(id="explain")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.add_class("choosing")
        self._head()
        app = self.hah
        if self._run is not None:
            self.query_one("#description", Static).update(Text("reading the run..."))
            app.in_background(partial(_draft_of_run, self._run), self.begin, self._cannot_begin)
        else:
            self.query_one("#presets").focus()
            app.in_background(_catalogue, self._arrived)
        app.in_background(_devices, self._devices_known)
        app.in_background(partial(_speeds, app), self._speeds_known)

    def redraw(self) -> None:
        """Draw everything again: another theme, ASCII mode."""
        self._head()
        self._about(self.query_one("#presets", OptionList).highlighted)
        self._summary()

    # The presets

    def _arrived(self, found: tuple[list[Any], dict[str, tuple[str, Any]], Draft | None, float]) -> None:
        if not self.is_mounted:
            return
        entries, self._told, self._kept, self._kept_when = found
        box = self.query_one("#presets", OptionList)
        quiet = self.hah.colour("quiet")
        if self._kept is not None:
            box.add_option(Option(Text("Your draft", f"bold {self.hah.colour('accent')}"), disabled=True))
            box.add_option(Option(Text(f"  {shown_line(self._kept.origin, 40)}"), id="draft"))
        for title, members in entries:
            box.add_option(Option(Text(title, f"bold {self.hah.colour('accent')}"), disabled=True))
            for name, shadows in members:
                label = Text(f"  {shown_line(name, 60)}", no_wrap=True, overflow="ellipsis")
                if shadows:
                    label.append(" (yours)", quiet)
                box.add_option(Option(label, id=f"p:{name}"))
        box.action_first()

    @on(OptionList.OptionHighlighted, "#presets")
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self._about(event.option_index)

    def _about(self, index: int | None) -> None:
        box = self.query_one("#presets", OptionList)
        if index is None or not box.option_count:
            return
        chosen = str(box.get_option_at_index(index).id or "")
        text = Text()
        if chosen == "draft" and self._kept is not None:
            text.append(f"{shown_line(self._kept.origin)}\n", "bold")
            text.append(f"written {age(self._kept_when)} ago\n\n")
            text.append_text(self._changes(self._kept))
        elif chosen.startswith("p:"):
            description, experiment = self._told[chosen[2:]]
            text.append(f"{shown_line(chosen[2:])}\n", "bold")
            text.append(f"{shown(description, 1200)}\n\n")
            if isinstance(experiment, str):
                text.append(shown(experiment), self.hah.colour("bad"))
            else:
                text.append_text(self._network(experiment.blocks(), experiment.model.hah_blocks))
                text.append("\n")
                text.append_text(self._facts(experiment))
        self.query_one("#description", Static).update(text)

    @on(OptionList.OptionSelected, "#presets")
    def _selected(self, event: OptionList.OptionSelected) -> None:
        from hah_tui.draft import Draft

        chosen = str(event.option.id or "")
        if chosen == "draft" and self._kept is not None:
            self.begin(self._kept)
            return
        known = self._told[chosen[2:]][1]
        if isinstance(known, str):
            self.hah.say(known, "error")
        else:
            self.hah.in_background(partial(Draft.of_preset, chosen[2:]), self.begin)

    def _cannot_begin(self, error: Exception) -> None:
        self.hah.complain(error)
        if self.is_mounted and self.is_current:
            self.hah.pop_screen()

    # The form

    def begin(self, draft: Draft) -> None:
        """Show the form of a draft."""
        if not self.is_mounted:
            return
        self.draft, self._sheet = draft, 0
        self.remove_class("choosing")
        self._lay_tabs()
        self.refresh_bindings()

    def _lay_tabs(self) -> None:
        """Tabs for the sections; the HaH blocks may need more of them than before."""
        assert self.draft is not None
        tabs = self.query_one(Tabs)
        if not self._sheets:
            for index, sheet in enumerate(sheets(0)):
                tabs.add_tab(Tab(sheet.title, id=f"sheet-{index}"))
        self._follow_blocks()
        tabs.active = f"sheet-{self._sheet}"
        self._mount_sheet()

    def _follow_blocks(self) -> None:
        """There are as many tabs of blocks as the HaH blocks need."""
        assert self.draft is not None
        self._sheets = sheets(self.draft.hah_blocks)
        for index, sheet in enumerate(self._sheets):
            self.query_one(f"#sheet-{index}", Tab).display = sheet.there

    @on(Tabs.TabActivated)
    def _activated(self, event: Tabs.TabActivated) -> None:
        index = int(str(event.tab.id).removeprefix("sheet-"))
        if index != self._sheet and index < len(self._sheets):
            self._sheet = index
            self._mount_sheet()

    def _mount_sheet(self) -> None:
        """Mount the fields of the present tab, and only those."""
        from hah_tui.draft import PER_BLOCK

        draft, sheet = self.draft, self._sheets[self._sheet]
        assert draft is not None
        box = self.query_one("#fields", Fields)
        title = sheet.title.split(" ")[0]
        rows: list[Widget] = [
            FieldRow(field, draft, "" if title == "run" else f"{title}.", self._devices) for field in sheet.fields
        ]
        if title == "blocks":
            heads = [Static(name.rpartition(".")[2], classes="title") for name in PER_BLOCK]
            rows = [Horizontal(Static("block", classes="name"), *heads, classes="field block titles")]
            plan = draft.blocks()
            for number in sheet.blocks:
                block = plan[number - 1] if number <= len(plan) else None
                about = f"{number:>2}  {f'{block.filters} x {block.size}x{block.size}' if block else ''}"
                rows.append(BlockRow(number, about, draft))
            if not sheet.blocks:
                rows = [Static(Text("No HaH blocks: model.hah_blocks is 0. This is a standard network."))]
        rows.append(Static(id="overview"))  # where there is no room beside the fields

        async def put() -> None:
            async with self.batch():
                await box.remove_children()
                await box.mount_all(rows)
            box.scroll_home(animate=False)
            first = next((widget for widget in box.query("Input, Select, Switch") if not widget.disabled), None)
            if self._wanted:
                self._focus_on(self._wanted)
            elif first is not None and (self._into or not isinstance(self.focused, Tabs)):
                first.focus()
                self._into = False
            self._look()

        self.run_worker(put(), exclusive=True, group="sheet")

    @on(Input.Changed)
    @on(Select.Changed)
    @on(Switch.Changed)
    def _changed(self, event: Input.Changed | Select.Changed | Switch.Changed) -> None:
        control = event.control
        name = control.name or ""
        found = event.value
        text = ("true" if found else "false") if isinstance(found, bool) else str(found)
        if self.draft is None or not name:
            return
        bare, bracket, number = name.partition("[")
        if bracket:
            if self.draft.row(bare)[int(number[:-1]) - 1] == text:
                return
            self.draft.type_block(bare, int(number[:-1]), text)
        else:
            if self.draft.text(name) == text:
                return
            self.draft.type(name, text)
        self._keeper.keep(self.draft.dump())
        if name == "model.hah_blocks":
            self._follow_blocks()
        self._look()

    def _look(self) -> None:
        """Everything that follows from what is typed."""
        for row in self.query(FieldRow):
            row.look()
        for block in self.query(BlockRow):
            block.look()
        self._head()
        self._summary()
        self._explain()

    def _head(self) -> None:
        colour, draft = self.hah.colour, self.draft
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append("hah-tui", f"bold {colour('primary')}")
        head.append("  New run", "bold")
        if draft is None:
            head.append("  pick where to start; enter takes it", colour("quiet"))
        else:
            head.append(f"  {shown_line(draft.origin, 40)}")
            wrong, changed = len(draft.wrong), len(draft.differences())
            if wrong:
                some = "1 mistake" if wrong == 1 else f"{wrong} mistakes"
                head.append(f"  {'x' if self.hah.plain else '✗'} {some}", f"bold {colour('bad')}")
            if changed:
                head.append(f"  {changed} change{'' if changed == 1 else 's'}", colour("accent"))
            if draft.experiment is not None:
                head.append("  " + ", ".join(self._cost(draft.experiment)), colour("quiet"))
        if self._busy:
            head.append(f"  {self._busy}", f"bold {colour('waiting')}")
        if self._keeper.problem:
            head.append(f"  {self._keeper.problem}", colour("bad"))
        self.query_one("#head", Static).update(head, layout=False)

    def _cost(self, experiment: Any) -> list[str]:
        from hah_tui.draft import expected_seconds

        expected = expected_seconds(experiment, self._speeds)
        return [
            f"{counted(experiment.parameters())} parameters",
            f"{counted(experiment.macs())} MACs",
            *([f"about {duration(expected[0])}"] if expected else []),
        ]

    def _facts(self, experiment: Any) -> Text:
        """Parameters, multiply-accumulates, expected time."""
        from hah_tui.draft import expected_seconds

        expected = expected_seconds(experiment, self._speeds)
        quiet = self.hah.colour("quiet")
        text = Text()
        for name, told in (
            ("parameters", counted(experiment.parameters())),
            ("MACs per image", counted(experiment.macs())),
            ("data", experiment.data.dataset),
            ("epochs", str(experiment.train.epochs)),
            (
                "training here",
                f"about {duration(expected[0])}, from {expected[1]} earlier run{'' if expected[1] == 1 else 's'}"
                if expected
                else "this machine has not trained this network yet",
            ),
        ):
            text.append(f"{name:<15}", quiet)
            text.append(f"{told}\n")
        return text

    def _network(self, blocks: Sequence[Any], hah_blocks: int) -> Text:
        """A line for each map size: the blocks there, HaH blocks in brackets and colour."""
        colour = self.hah.colour
        text = Text()
        stages: dict[int, list[Any]] = {}
        for block in blocks:
            stages.setdefault(block.size, []).append(block)
        for size, members in stages.items():
            text.append(f"{f'{size}x{size}':>6}  ", colour("quiet"))
            for block in members:
                if block.number <= hah_blocks:
                    text.append(f"[{block.number:>2}]", f"bold {colour('background')} on {colour('live')}")
                else:
                    text.append(f" {block.number:>2} ", f"{colour('foreground')} on {colour('panel')}")
                text.append(" ")
            text.append(" " * (5 * (4 - len(members))))
            text.append(f" {members[0].filters} filters\n", colour("quiet"))
        if blocks:
            text.append("        [n]", f"bold {colour('live')}")
            text.append(" HaH block   ")
            text.append(" n ", f"on {colour('panel')}")
            text.append(" standard block\n")
        return text

    def _changes(self, draft: Draft) -> Text:
        from hah_tui.draft import text_of

        colour = self.hah.colour
        text = Text()
        arrow = "->" if self.hah.plain else "→"
        for name, (old, new) in draft.differences().items():
            text.append(f"{shown_line(name)}\n", "bold")
            text.append(f"  {shown_line(text_of(old) or 'null', 60)} {arrow} ", colour("quiet"))
            text.append(f"{shown_line(text_of(new) or 'null', 60)}\n", colour("accent"))
        return text or Text("nothing is changed yet\n", colour("quiet"))

    def _summary(self) -> None:
        """The diagram, the facts, the mistakes and the differences."""
        draft = self.draft
        if draft is None:
            return
        colour = self.hah.colour
        text = Text()
        if draft.wrong:
            text.append("Wrong\n", f"bold {colour('bad')}")
            for name in draft.wrong[:8]:
                text.append(f"{name}{': ' if name else ''}{shown_line(draft.mistakes[name])}\n", colour("bad"))
            text.append("\n")
        text.append("Network\n", f"bold {colour('accent')}")
        text.append_text(self._network(draft.blocks(), draft.hah_blocks))
        if draft.experiment is not None:
            text.append("\n")
            text.append_text(self._facts(draft.experiment))
        text.append(f"\nDifferences from {shown_line(draft.origin, 40)}\n", f"bold {colour('accent')}")
        text.append_text(self._changes(draft))
        for place in self.query("#summary, #overview").results(Static):
            if text != self._summed.get(place):
                self._summed[place] = text
                place.update(text)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        self._explain()

    def _explain(self) -> None:
        """The lines below the form: what the field in focus is for, or why it is wrong."""
        from engine.experiment.fields import fields

        draft, name = self.draft, (self.focused.name or "") if self.focused is not None else ""
        field = fields().get(name.partition("[")[0])
        if draft is None:
            return
        colour, text = self.hah.colour, Text()
        if field is None:
            text.append("tab, arrows: fields   ctrl+n, ctrl+o: sections   ctrl+r: launch", colour("quiet"))
        else:
            wrong = draft.mistakes.get(name)
            text.append(name, f"bold {colour('bad' if wrong else 'primary')}")
            if wrong:
                text.append(f"  {shown_line(wrong)}\n", colour("bad"))
            else:
                text.append(f"  {limits(field)}", colour("quiet"))
                text.append("  may change while it runs\n" if field.live else "\n", colour("quiet"))
            text.append(f"{field.help}. ")
            if name in draft.texts:
                text.append(f"ctrl+t: back to {draft.base_text(name) or 'null'}", colour("accent"))
        self.query_one("#explain", Static).update(text, layout=False)

    # What arrives from threads

    def _devices_known(self, found: list[Gpu]) -> None:
        self._devices = [("auto", "auto"), ("cpu", "cpu")] + [
            (
                f"cuda:{index}",
                f"cuda:{index}  {shown_line(gpu.name, 40)}, {gpu.free_gib:.0f} of {gpu.memory_gib:.0f} GiB free"
                + (", has an engine" if gpu.taken else ""),
            )
            for index, gpu in enumerate(found)
        ]
        if self.is_mounted and found and self.draft is not None and self._sheets[self._sheet].title == "run":
            self._mount_sheet()

    def _speeds_known(self, found: list[Speed]) -> None:
        self._speeds = found
        if self.is_mounted:
            self.redraw()

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The form's actions are there when the form is."""
        names = ("launch", "save_preset", "next_mistake", "restore", "discard", "next_section", "previous_section")
        return not (action in names and self.draft is None)

    def action_leave(self) -> None:
        """From the form to the presets, from there to the runs."""
        if self.draft is not None and self._run is None:
            self.draft = None
            self.add_class("choosing")
            self.query_one("#presets", OptionList).clear_options()
            self.query_one("#presets").focus()
            self._head()
            self.refresh_bindings()
            self.hah.in_background(_catalogue, self._arrived)
        else:
            self.hah.pop_screen()

    def action_next_section(self) -> None:
        self._go(self._sheet + 1, 1)

    def action_previous_section(self) -> None:
        self._go(self._sheet - 1, -1)

    def _go(self, sheet: int, way: int = 1) -> None:
        """Open a tab, or the next one that way which is there."""
        sheet %= len(self._sheets)
        while not self._sheets[sheet].there:
            sheet = (sheet + way) % len(self._sheets)
        self._into = True
        self.query_one(Tabs).active = f"sheet-{sheet}"

    def action_next_mistake(self) -> None:
        draft = self.draft
        assert draft is not None
        here = (self.focused.name or "") if self.focused is not None else ""
        wrong = [name for name in draft.wrong if name] or [""]
        self.show_field(wrong[(wrong.index(here) + 1) % len(wrong)] if here in wrong else wrong[0])

    def show_field(self, name: str) -> None:
        """Open the tab of a setting and put the cursor on it."""
        for index, sheet in enumerate(self._sheets):
            first = name in ("hah.alpha", "model.divisive_norm.sigma") and sheet.title.startswith("blocks")
            if first or any(field.name == name for field in sheet.fields):
                self._wanted = name
                if index == self._sheet:
                    self._focus_on(name)
                else:
                    self._go(index)
                return

    def _focus_on(self, name: str) -> None:
        controls = self.query("#fields Input, #fields Select, #fields Switch")
        found = [control for control in controls if (control.name or "").partition("[")[0] == name]
        if found and self.draft is not None:
            found[0].focus()
            self._wanted = ""

    def action_restore(self) -> None:
        draft, control = self.draft, self.focused
        if draft is None or control is None or not control.name:
            return
        bare = control.name.partition("[")[0]
        draft.restore(bare)
        self._keeper.keep(draft.dump())
        for row in self.query("Input, Select, Switch"):
            name, found, at = (row.name or "").partition("[")
            if name == bare:
                text = draft.row(name)[int(at[:-1]) - 1] if found else draft.text(name)
                row.value = text == "true" if isinstance(row, Switch) else text  # type: ignore[attr-defined]
        self._look()

    def action_discard(self) -> None:
        self._keeper.keep(None)
        if self.draft is not None:
            self.draft = replace(self.draft, texts={}, lists={})
            self._lay_tabs()

    def action_save_preset(self) -> None:
        draft = self.draft
        assert draft is not None
        if draft.experiment is None:
            self._refuse()
            return

        from engine.experiment import presets

        def save(name: str | None) -> None:
            if name is not None:
                self.hah.in_background(
                    lambda: presets.write_own(name.strip(), draft.preset, draft.sets()),
                    lambda path: self.hah.say(f"saved {path}"),
                )

        what = f"It extends {draft.preset} with what is different."
        self.hah.push_screen(Ask("Save as a preset of your own", what, "", _preset_name, "name"), save)

    def _refuse(self) -> None:
        draft = self.draft
        assert draft is not None
        name = draft.wrong[0]
        self.hah.say(f"{name or 'the settings'}: {draft.mistakes[name]}", "error")
        self.show_field(name)

    def action_launch(self) -> None:
        draft = self.draft
        if draft is None or self._busy:
            return
        if draft.experiment is None:
            self._refuse()
            return
        self._busy = "asking for device and data..."
        self._head()
        experiment, app = draft.experiment, self.hah

        def work() -> RunDirectory:
            run, process = orders.begin(experiment, draft.preset, draft.preset_path, draft.sets(), app.folder)
            app.adopt(process)
            app.hand_over(partial(self._now, f"{run.id} is starting..."))
            launch.await_start(run, process)
            return run

        app.in_background(work, self._begun, self._not_begun)

    def _now(self, what: str) -> None:
        self._busy = what
        if self.is_mounted:
            self._head()

    def _begun(self, run: RunDirectory) -> None:
        self._now("")
        self._keeper.keep(None)
        self.hah.say(f"{run.id} runs in the background")
        if self.is_mounted and self.is_current:
            self.hah.pop_screen()
            self.hah.open_run(run)

    def _not_begun(self, error: Exception) -> None:
        """What only the engine's side could know stands beside its field too."""
        self._now("")
        draft = self.draft
        if isinstance(error, RequestError) and draft is not None and self.is_mounted:
            from engine.experiment.fields import fields

            for mistake in error.mistakes:
                name, _, what = mistake.what.removeprefix("hah: ").partition(": ")
                if name in fields():
                    draft.mistakes[name] = what
                    self.show_field(name)
            self._look()
        self.hah.complain(error)


def limits(field: Field) -> str:
    """What a field may be, short enough to stand beside it."""
    if field.per_block:
        return field.allowed().replace("a number or a list of numbers, each", "a number")
    match field.kind:
        case "flag" | "section":
            told = "on or off"
        case "choice":
            told = "one of " + ", ".join(map(str, field.choices))
        case "text":
            told = field.format
        case _:
            told = field.allowed()
    return "; ".join(filter(None, (told, field.unit)))


def counted(number: float) -> str:
    """14714688 as '14.7 M'."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def _preset_name(text: str) -> str:
    import re

    from engine.experiment.schema import NAME_FORMAT, NAME_PATTERN

    return "" if re.fullmatch(NAME_PATTERN, text.strip()) else NAME_FORMAT


def _draft_of_run(run: RunDirectory) -> Draft:
    from hah_tui.draft import Draft

    return Draft.of_run(run)


def _catalogue() -> tuple[list[Any], dict[str, tuple[str, Any]], Draft | None, float]:
    """Presets by group, what is told of each, and the draft that was kept."""
    from engine.experiment import presets
    from hah_tui.draft import Draft

    told: dict[str, tuple[str, Any]] = {}
    groups: dict[str, list[tuple[str, bool]]] = {}
    for preset in presets.listed():
        try:
            experiment = presets.load(preset.name)
            told[preset.name] = (experiment.description, experiment)
            tags: Sequence[str] = experiment.tags
        except RequestError as error:
            told[preset.name] = ("", str(error))
            tags = ()
        title = "Your own" if not preset.shipped else next(name for tag, name in GROUPS if tag in tags or not tag)
        groups.setdefault(title, []).append((preset.name, preset.shadows is not None))
    order = [*(name for _, name in GROUPS), "Your own"]
    entries = [
        (title, sorted(groups[title], key=lambda one: (one[0] != "quickstart", one[0])))
        for title in order
        if title in groups
    ]
    stored = stored_draft()
    kept = None
    if stored:
        try:
            kept = Draft.of_stored(stored)
        except RequestError:
            kept = None
    when = stored.get("written", 0.0)
    return entries, told, kept, when if isinstance(when, int | float) else time.time()


def _devices() -> list[Gpu]:
    from engine.runs import devices

    return devices.gpus()


def _speeds(app: Any) -> list[Speed]:
    """How fast the latest runs of this machine were."""
    return list(_latest_speeds(app.folder))


def _latest_speeds(folder: Any) -> Iterator[Speed]:
    from hah_tui.draft import speed_of

    for run in store.all_runs(folder)[:SPEEDS]:
        speed = speed_of(store.look(run))
        if speed is not None:
            yield speed
        time.sleep(0.005)  # the screen has a turn
