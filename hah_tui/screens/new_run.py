"""A new run: pick a preset, change what is to be different, see what that comes to, launch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import DescendantFocus
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Input, Select, Static, Switch

from engine.experiment.mistakes import RequestError
from engine.runs.layout import RunDirectory
from hah_tui import keys
from hah_tui.catalogue import Kept
from hah_tui.screens import summary
from hah_tui.screens.dialogs import Confirm
from hah_tui.screens.draft_actions import DraftActions
from hah_tui.screens.form import Fields, Row, Sheet, SheetBar, device_choices, explained, rows, sheets
from hah_tui.screens.keeper import Keeper
from hah_tui.screens.pick_preset import PickPreset
from hah_tui.settings import new_draft_name
from hah_tui.text import shown_line
from hah_tui.widgets.changed_cells import send_changed_cells
from hah_tui.widgets.key_bar import KeyBar
from hah_tui.widgets.line import Line

if TYPE_CHECKING:
    from engine.runs.devices import Gpu
    from hah_tui.draft import Draft
    from hah_tui.speeds import Speed


class NewRunScreen(DraftActions):
    """First the presets, then the form; a draft is kept at every change."""

    PLACE = "new"
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("new"),
        Binding("escape", "leave", "back"),
        Binding("down", "next_row", "next field", show=False),
        Binding("up", "previous_row", "previous field", show=False),
    ]

    def __init__(self, run: RunDirectory | None = None) -> None:
        super().__init__()
        send_changed_cells(self)
        self._run = run
        self.draft: Draft | None = None
        self._taking: PickPreset.Taken | None = None
        self.kept = ""  # the name the draft is kept under
        self._sheets: list[Sheet] = []
        self._sheet = 0
        self.speeds: list[Speed] = []
        self._devices = device_choices()
        self._summed = Text()  # what stands in the summary
        self._wanted = ""  # the setting to put the cursor on when its sheet is there
        self.busy = ""
        self._newest: list[Widget] = []  # the rows to be shown
        self._idle = self.idle()

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="bar")
        with ContentSwitcher(initial="choose"):
            yield PickPreset(listed=self._run is None)
            with Vertical(id="form"):
                yield SheetBar()
                with Horizontal(id="middle"):
                    yield Fields(id="fields", can_focus=False)
                    with VerticalScroll(id="side"):
                        yield Static(id="summary")
                yield Static(id="explain")
        yield KeyBar(self.PLACE)

    def on_mount(self) -> None:
        app = self.hah
        self.keeper = Keeper(app)
        self._head()
        if self._run is not None:
            self.query_one(PickPreset).say(Text("reading the run..."))
            app.in_background(self, partial(_draft_of, self._run), self.begin, self._cannot_begin, awaited=True)
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

        self._taking = event
        if isinstance(event.start, str):
            begin = partial(self._read, event)
            self.hah.in_background(self, partial(Draft.of_preset, event.start), begin, awaited=True)
        else:
            self.begin(event.start.draft, event.start.name)

    def _read(self, event: PickPreset.Taken, draft: Draft) -> None:
        if event is self._taking:
            self.begin(draft)

    @on(PickPreset.Forgotten)
    def _forgotten(self, event: PickPreset.Forgotten) -> None:
        def forget(yes: bool | None) -> None:
            if yes:
                self.keeper.keep(event.kept.name, None)
                self.query_one(PickPreset).left(event.kept.name, None)

        changed = summary.changes(event.kept.draft, self.hah.colour, self.hah.plain).plain.splitlines()
        lines = [event.kept.draft.origin, *changed]
        self.hah.push_screen(Confirm("Throw the draft away?", lines[:12], "throw it away"), forget)

    def _cannot_begin(self, error: Exception) -> None:
        self.hah.complain(error)
        if self.hah.screen is self:
            self.hah.pop_screen()

    # The form

    def begin(self, draft: Draft, kept: str = "") -> None:
        """Show the form of a draft, kept under a name from its first change on."""
        self.draft, self._sheet, self.kept = draft, 0, kept or new_draft_name()
        self.query_one(ContentSwitcher).current = "form"
        self._follow_blocks()
        self._mount_sheet()
        self.refresh_bindings()

    def _follow_blocks(self) -> None:
        """There are as many sheets of blocks as the HaH blocks need."""
        assert self.draft is not None
        self._sheets = sheets(self.draft.hah_blocks)

    @on(SheetBar.Chosen)
    def _chosen(self, event: SheetBar.Chosen) -> None:
        self._go(event.sheet)

    def _mount_sheet(self) -> None:
        """Mount the fields of the present sheet, and only those.

        One after the other, in the screen's own message loop: Textual breaks when rows are taken away that are still
        being mounted, and cancelling who waits for them ends the whole app.
        """
        draft, sheet = self.draft, self._sheets[self._sheet]
        assert draft is not None
        token = object()
        self.awaited.add(token)
        width = self.query_one("#fields").scrollable_content_region.width or self.size.width - 2
        self._newest = mounted = rows(sheet, draft, self._devices, width)
        self.call_next(self._put, mounted, token)

    async def _put(self, mounted: list[Widget], token: object) -> None:
        if mounted is not self._newest:  # another sheet was opened meanwhile
            self.there(token)
            return
        box = self.query_one("#fields", Fields)
        async with self.batch():
            await box.remove_children()
            await box.mount_all(mounted)
        box.scroll_home(animate=False)
        first = next((widget for widget in box.query("Input, Select, Switch") if not widget.disabled), None)
        if self._wanted:
            self._focus_on(self._wanted)
        elif first is not None:
            first.focus()
        self.there(token)
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
        self._keep(self.draft)
        if name == "model.hah_blocks":
            self._follow_blocks()
        self._look()

    def _keep(self, draft: Draft) -> None:
        """Keep a draft as it is now; one in which nothing is typed any more is none."""
        self.keeper.keep(self.kept, draft.dump() if draft.texts or draft.lists else None)

    def _look(self) -> None:
        """Everything that follows from what is typed."""
        for row in self.query(Row):
            row.look()
        self._bar()
        self._head()
        self._summary()
        self._explain()
        if (idle := self.idle()) != self._idle:
            self._idle = idle
            self.refresh_bindings()

    def _bar(self) -> None:
        if self.draft is not None:
            wrong = {name.partition("[")[0] for name in self.draft.wrong}
            bad = {index for index, sheet in enumerate(self._sheets) if any(sheet.has(name) for name in wrong)}
            self.query_one(SheetBar).put(self._sheets, self._sheet, bad)

    def _head(self) -> None:
        colour, draft = self.hah.colour, self.draft
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append("hah-tui", f"bold {colour('primary')}")
        if self.busy:  # first, so that it is to be read at any width
            head.append(f"  {self.busy}", f"bold {colour('waiting')}")
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
                head.append(f"  {summary.cost(draft.experiment, self.speeds)}", colour("quiet"))
        if self.keeper.problem:
            head.append(f"  {self.keeper.problem}", colour("bad"))
        self.query_one("#head", Static).update(head, layout=False)

    def _summary(self) -> None:
        """The diagram, the facts, the mistakes and the differences."""
        draft = self.draft
        if draft is None:
            return
        text = summary.of_draft(draft, self.speeds, self.hah.colour, self.hah.plain)
        if text != self._summed:
            self._summed = text
            self.query_one("#summary", Static).update(text)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        self._explain()
        if (idle := self.idle()) != self._idle:
            self._idle = idle
            self.refresh_bindings()

    def _explain(self) -> None:
        """The lines below the form: what the field in focus is for, or why it is wrong."""
        draft, name = self.draft, (self.focused.name or "") if self.focused is not None else ""
        if draft is not None:
            self.query_one("#explain", Static).update(explained(name, draft, self.hah.colour), layout=False)

    # What arrives from threads

    def _devices_known(self, found: list[Gpu]) -> None:
        self._devices = device_choices(found)
        if found and self.draft is not None and self._sheets[self._sheet].title == "run":
            self._wanted = self._wanted or (self.focused.name or "" if self.focused is not None else "")
            self._mount_sheet()

    def _speeds_known(self, found: list[Speed]) -> None:
        self.speeds = self.query_one(PickPreset).speeds = found
        self.redraw()

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The form's actions are there when the form is."""
        names = ("launch", "save_preset", "next_mistake", "restore", "discard", "next_section", "previous_section",
                 "queue", "hand_over", "overview")  # fmt: skip
        return not (action in names and self.draft is None)

    def idle(self) -> set[str]:
        draft, name = self.draft, ((self.focused.name or "") if self.focused is not None else "").partition("[")[0]
        if draft is None:
            return set()
        found = set() if draft.mistakes else {"next_mistake"}
        begins = {"launch", "queue", "hand_over"}
        found |= begins | {"save_preset"} if draft.mistakes else begins if self.busy else set()
        return found if name in draft.texts or name in draft.lists else found | {"restore"}

    def action_leave(self) -> None:
        """From the overview to the form, from there to the presets, from there to the runs."""
        if self.has_class("overview"):
            self.action_overview()
        elif self.draft is not None and self._run is None:
            left, self.draft = self.draft, None
            self.query_one(ContentSwitcher).current = "choose"
            picks = self.query_one(PickPreset)
            if self.kept in self.keeper.written:
                written = self.keeper.written[self.kept]
                picks.left(self.kept, None if written is None else Kept(self.kept, left, written))
            picks.read()
            self._head()
            self.refresh_bindings()
        else:
            self._taking = None  # nothing more is taken
            if self.is_current and not (self.draft is None and self.query_one(PickPreset).clear()):
                self.hah.pop_screen()

    def action_overview(self) -> None:
        """The network and what is changed in the place of the fields, or the fields again."""
        self.toggle_class("overview")
        if self.has_class("overview"):
            self.query_one("#side").focus()
        else:
            self._mount_sheet()

    def action_next_row(self) -> None:
        self._row(1)

    def action_previous_row(self) -> None:
        self._row(-1)

    def _row(self, by: int) -> None:
        """To the next field; among the blocks to the same setting of the next one."""
        if self.draft is None:
            self.query_one(PickPreset).move(by)
            return
        name, bracket, number = ((self.focused.name or "") if self.focused is not None else "").partition("[")
        shown = self._sheets[self._sheet].blocks
        if bracket:
            at = shown[(shown.index(int(number[:-1])) + by) % len(shown)]
            next(line for line in self.query(Line) if line.name == f"{name}[{at}]").focus()
        elif by > 0:
            self.focus_next()
        else:
            self.focus_previous()

    def action_next_section(self) -> None:
        self._go(self._sheet + 1, 1)

    def action_previous_section(self) -> None:
        self._go(self._sheet - 1, -1)

    def _go(self, sheet: int, way: int = 1) -> None:
        """Open a sheet, or the next one that way which is there."""
        sheet %= len(self._sheets)
        while not self._sheets[sheet].there:
            sheet = (sheet + way) % len(self._sheets)
        self.remove_class("overview")
        if sheet != self._sheet:
            self._sheet = sheet
            self._bar()
            self._mount_sheet()

    def action_next_mistake(self) -> None:
        draft = self.draft
        assert draft is not None
        here = (self.focused.name or "") if self.focused is not None else ""
        wrong = [name for name in draft.wrong if name] or [""]
        self.show_field(wrong[(wrong.index(here) + 1) % len(wrong)] if here in wrong else wrong[0])

    def show_field(self, name: str) -> None:
        """Open the tab of a setting and put the cursor on it."""
        for index, sheet in enumerate(self._sheets):
            if sheet.has(name):
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
        self._keep(draft)
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
        self.keeper.keep(self.kept, None)
        if self.draft is not None:
            self.draft = replace(self.draft, texts={}, lists={})
            self._follow_blocks()
            self._go(0)
            self._mount_sheet()

    def now(self, what: str) -> None:
        self.busy = what
        self._head()

    def mark(self, error: Exception) -> None:
        self.now("")
        draft = self.draft
        if isinstance(error, RequestError) and draft is not None:
            from engine.experiment.fields import fields

            for mistake in error.mistakes:
                name, _, what = mistake.what.removeprefix("hah: ").partition(": ")
                if name in fields():
                    draft.mistakes[name] = what
                    self.show_field(name)
            self._look()


def _draft_of(run: RunDirectory) -> Draft:
    from hah_tui.draft import Draft

    return Draft.of_run(run)


def _speeds(folder: Path) -> list[Speed]:
    from hah_tui.speeds import speeds

    return speeds(folder)


def _gpus() -> list[Gpu]:
    from engine.runs import devices

    return devices.gpus()
