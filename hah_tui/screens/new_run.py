"""A new run: pick a preset, change what is to be different, see what that comes to, launch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import DescendantFocus
from textual.widget import Widget
from textual.widgets import Footer, Input, Select, Static, Switch, Tab, Tabs

from engine.experiment.mistakes import RequestError
from engine.runs import launch
from engine.runs.layout import RunDirectory
from hah_tui import engines, keys
from hah_tui.base import Page
from hah_tui.screens import summary
from hah_tui.screens.dialogs import Ask
from hah_tui.screens.form import BlockRow, FieldRow, Fields, Sheet, device_choices, explained, rows, sheets
from hah_tui.screens.keeper import Keeper
from hah_tui.screens.pick_preset import PickPreset
from hah_tui.text import shown_line

if TYPE_CHECKING:
    from engine.experiment import Experiment
    from engine.runs.devices import Gpu
    from hah_tui.draft import Draft
    from hah_tui.speeds import Speed


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
        self._speeds: list[Speed] = []
        self._devices = device_choices()
        self._summed = WeakKeyDictionary[Static, Text]()  # what stands in the two summaries
        self._into = True  # whether the cursor goes into the fields of a tab that opens
        self._wanted = ""  # the setting to put the cursor on when its tab is there
        self._busy = ""  # what a launch waits for
        self._newest: list[Widget] = []  # the rows to be shown

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="bar")
        yield PickPreset()
        with Vertical(id="form"):
            yield Tabs(id="tabs")
            with Horizontal(id="middle"):
                yield Fields(id="fields", can_focus=False)
                with VerticalScroll(id="side", can_focus=False):
                    yield Static(id="summary")
            yield Static(id="explain")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        app = self.hah
        self._keeper = Keeper(app)
        self.add_class("choosing")
        self._head()
        if self._run is not None:
            self.query_one(PickPreset).say(Text("reading the run..."))
            app.in_background(self, partial(_draft_of, self._run), self.begin, self._cannot_begin)
        else:
            self.query_one(PickPreset).read()
        app.in_background(self, _gpus, self._devices_known)
        app.in_background(self, partial(_speeds, app.folder), self._speeds_known)

    def redraw(self) -> None:
        """Draw everything again: another theme, ASCII mode."""
        self._head()
        self.query_one(PickPreset).redraw()
        self._summary()

    @on(PickPreset.Taken)
    def _taken(self, event: PickPreset.Taken) -> None:
        from hah_tui.draft import Draft

        if isinstance(event.start, str):
            self.hah.in_background(self, partial(Draft.of_preset, event.start), self.begin)
        else:
            self.begin(event.start)

    def _cannot_begin(self, error: Exception) -> None:
        self.hah.complain(error)
        if self.is_current:
            self.hah.pop_screen()

    # The form

    def begin(self, draft: Draft) -> None:
        """Show the form of a draft."""
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
        if self.draft is not None and index != self._sheet and index < len(self._sheets):
            self._sheet = index
            self._mount_sheet()

    def _mount_sheet(self) -> None:
        """Mount the fields of the present tab, and only those.

        One after the other, in the screen's own message loop: Textual breaks when rows are taken away that are still
        being mounted, and cancelling who waits for them ends the whole app.
        """
        draft, sheet = self.draft, self._sheets[self._sheet]
        assert draft is not None
        self._newest = mounted = [*rows(sheet, draft, self._devices), Static(id="overview")]  # that for a narrow side
        self.call_next(self._put, mounted)

    async def _put(self, mounted: list[Widget]) -> None:
        if mounted is not self._newest:  # another tab was opened meanwhile
            return
        box = self.query_one("#fields", Fields)
        async with self.batch():
            await box.remove_children()
            await box.mount_all(mounted)
        box.scroll_home(animate=False)
        first = next((widget for widget in box.query("Input, Select, Switch") if not widget.disabled), None)
        if self._wanted:
            self._focus_on(self._wanted)
        elif first is not None and (self._into or not isinstance(self.focused, Tabs)):
            first.focus()
            self._into = False
        self._look()

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
        if self._busy:  # first, so that it is to be read at any width
            head.append(f"  {self._busy}", f"bold {colour('waiting')}")
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
                head.append(f"  {summary.cost(draft.experiment, self._speeds)}", colour("quiet"))
        if self._keeper.problem:
            head.append(f"  {self._keeper.problem}", colour("bad"))
        self.query_one("#head", Static).update(head, layout=False)

    def _summary(self) -> None:
        """The diagram, the facts, the mistakes and the differences."""
        draft = self.draft
        if draft is None:
            return
        text = summary.of_draft(draft, self._speeds, self.hah.colour, self.hah.plain)
        for place in self.query("#summary, #overview").results(Static):
            if text != self._summed.get(place):
                self._summed[place] = text
                place.update(text)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        self._explain()

    def _explain(self) -> None:
        """The lines below the form: what the field in focus is for, or why it is wrong."""
        draft, name = self.draft, (self.focused.name or "") if self.focused is not None else ""
        if draft is not None:
            self.query_one("#explain", Static).update(explained(name, draft, self.hah.colour), layout=False)

    # What arrives from threads

    def _devices_known(self, found: list[Gpu]) -> None:
        self._devices = device_choices(found)
        if found and self.draft is not None and self._sheets[self._sheet].title == "run":
            self._mount_sheet()

    def _speeds_known(self, found: list[Speed]) -> None:
        self._speeds = self.query_one(PickPreset).speeds = found
        self.redraw()

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The form's actions are there when the form is."""
        names = ("launch", "save_preset", "next_mistake", "restore", "discard", "next_section", "previous_section",
                 "queue")  # fmt: skip
        return not (action in names and self.draft is None)

    def action_leave(self) -> None:
        """From the form to the presets, from there to the runs."""
        if self.draft is not None and self._run is None:
            self.draft = None
            self.add_class("choosing")
            self.query_one(PickPreset).read()
            self._head()
            self.refresh_bindings()
        elif self.is_current:
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
                if isinstance(row, Switch):
                    row.value = text == "true"
                elif isinstance(row, Input | Select):
                    row.value = text
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
                    self.hah,
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

    def _whole(self) -> tuple[Draft, Experiment] | None:
        """The draft and what it comes to, if nothing is wrong or being done with it; what is wrong is said."""
        if self.draft is None or self._busy:
            return None
        if self.draft.experiment is None:
            self._refuse()
            return None
        return self.draft, self.draft.experiment

    def action_launch(self) -> None:
        if (whole := self._whole()) is None:
            return
        draft, experiment = whole
        if draft.axes:
            self.hah.say(f"several values make {draft.several} runs: ctrl+l queues them", "warning")
            return
        self._now("asking for device and data...")
        app = self.hah

        def work() -> RunDirectory:
            run, process = engines.begin(experiment, draft.made_from, app.folder)
            app.adopt(process)
            app.hand_over(self, partial(self._now, f"{run.id} is starting..."))
            for text in launch.await_start(run, process):
                app.hand_over(app, partial(app.say, f"{run.id}: {text}", "warning"))
            return run

        app.in_background(app, work, self._begun, self._not_begun)

    def action_queue(self) -> None:
        """Ask for how many seeds, then queue."""
        if (whole := self._whole()) is None:
            return
        draft, experiment = whole
        runs = draft.several
        seeds = "" if "seed" in draft.axes else "How many seeds?"
        what = [f"{name}: {draft.text(name)}" for name in draft.axes]
        takes = summary.cost(experiment, self._speeds)
        many = f"{runs} runs a seed" if runs > 1 and seeds else f"{runs} runs" if runs > 1 else "One run a seed"
        what.append(f"{many}, each: {takes}. {seeds}")

        def check(text: str) -> str:
            fits = text.strip().isdecimal() and 1 <= int(text) <= 1000 and runs * int(text) <= 10_000
            return "" if fits else "a whole number from 1 to 1000, at most 10,000 runs in all"

        def put(text: str | None) -> None:
            if text is not None:
                self._queue(draft, experiment, int(text))

        self.hah.push_screen(Ask("Queue", "\n".join(what), "1", check, over=True), put)

    def _queue(self, draft: Draft, experiment: Experiment, seeds: int) -> None:
        self._now("asking for device and data...")
        app = self.hah

        def work() -> str:
            if draft.several * seeds == 1:
                return f"{engines.enqueue(experiment, draft.made_from, app.folder).id} waits in the queue"
            return engines.enqueue_sweep(draft.plan(seeds), app.folder)

        app.in_background(app, work, self._queued, self._not_begun)

    def _queued(self, said: str) -> None:
        self._keeper.keep(None)
        self.hah.say(said)
        if not self.hah.holds(self):
            return
        self._now("")
        if self.is_current:
            self.hah.pop_screen()
            self.hah.open("queue")

    def _now(self, what: str) -> None:
        self._busy = what
        self._head()

    def _begun(self, run: RunDirectory) -> None:
        self._keeper.keep(None)
        self.hah.say(f"{run.id} runs in the background")
        if not self.hah.holds(self):
            return
        self._now("")
        if self.is_current:
            self.hah.pop_screen()
            self.hah.open("monitor", run)

    def _not_begun(self, error: Exception) -> None:
        """What only the engine's side could know stands beside its field too."""
        if self.hah.holds(self):
            self._mark(error)
        self.hah.complain(error)

    def _mark(self, error: Exception) -> None:
        self._now("")
        draft = self.draft
        if isinstance(error, RequestError) and draft is not None:
            from engine.experiment.fields import fields

            for mistake in error.mistakes:
                name, _, what = mistake.what.removeprefix("hah: ").partition(": ")
                if name in fields():
                    draft.mistakes[name] = what
                    self.show_field(name)
            self._look()


def _preset_name(text: str) -> str:

    from engine.experiment.names import NAME_FORMAT, is_name

    return "" if is_name(text.strip()) else NAME_FORMAT


def _draft_of(run: RunDirectory) -> Draft:
    from hah_tui.draft import Draft

    return Draft.of_run(run)


def _speeds(folder: Path) -> list[Speed]:
    from hah_tui.speeds import speeds

    return speeds(folder)


def _gpus() -> list[Gpu]:
    from engine.runs import devices

    return devices.gpus()
