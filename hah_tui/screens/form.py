"""The form of a new run: its tabs, and the rows of fields that are mounted at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.events import Click, Resize
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static, Switch

from hah_tui.screens.summary import Colour
from hah_tui.text import shown_line
from hah_tui.widgets import canvas
from hah_tui.widgets.canvas import Canvas
from hah_tui.widgets.choice import Choice
from hah_tui.widgets.line import Line

if TYPE_CHECKING:
    from engine.experiment.fields import Field
    from engine.runs.devices import Gpu
    from hah_tui.draft import Draft

MOUNTED = 14  # fields at a time: each costs at every layout
MOST_BLOCKS = 16
WIDE = ("text", "texts", "numbers", "integers", "choices")  # kinds of fields that may need the whole row
ROWS = 7  # HaH blocks at a time, with two fields each


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

    def has(self, name: str) -> bool:
        """Whether a setting is on it; those of blocks are on the first of the blocks."""
        from hah_tui.draft import PER_BLOCK

        return any(field.name == name for field in self.fields) or (name in PER_BLOCK and self.title == "blocks")


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


@dataclass(frozen=True)
class Widths:
    """Cells of a row's columns: its name, its control, and what is left for what is said beside it (maybe none)."""

    name: int
    control: int
    says: int

    @classmethod
    def of(cls, width: int, wide: bool) -> Widths:
        """For so many cells; a ``wide`` control (of a text or a list) takes them all."""
        name = 15 if width < 60 else 22 if width < 90 else 28
        says = 0 if wide or width < 60 else max(width - name - 60, min(40, width - name - 22))
        return cls(name, width - name - says, says)


class Row(Canvas):
    """A row of the form: drawn around its controls, which are all that is mounted of it."""

    DEFAULT_CSS = "Row { height: 1; layout: horizontal; }"

    def __init__(self, draft: Draft, width: int) -> None:
        super().__init__()
        self._draft, self._width = draft, width

    def on_mount(self) -> None:
        self.fit(self._width)

    def fit(self, width: int) -> None:
        """Lay the controls out for so many cells."""
        self._width = width
        self.look()

    def look(self) -> None:
        """Say what there is to say of what is typed."""
        raise NotImplementedError


class FieldRow(Row):
    """One setting: its name, its control, and beside it what it may be or why it is wrong."""

    def __init__(self, field: Field, draft: Draft, prefix: str, devices: Sequence[tuple[str, str]], width: int) -> None:
        super().__init__(draft, width)
        self.field, self._prefix = field, prefix
        self.control = self._control(devices)
        self._widths = Widths(0, 0, 0)
        self.said = ""

    @property
    def wrong(self) -> bool:
        """Whether what is said is a mistake."""
        return self.field.name in self._draft.mistakes and not self._draft.off(self.field.name)

    def compose(self) -> ComposeResult:
        yield self.control

    def _control(self, devices: Sequence[tuple[str, str]]) -> Line | Choice | Switch:
        field, name, text = self.field, self.field.name, self._draft.text(self.field.name)
        if name == "compute.device":
            known = [value for value, _ in devices]
            choices = [*devices, *([(text, text)] if text not in known else [])]
            return Choice([(Text(told), value) for value, told in choices], text, name)
        if field.kind in ("flag", "section"):
            return Switch(text == "true", animate=False, name=name)
        if field.kind == "choice":
            values = [str(choice) for choice in field.choices]
            return Choice([(value, value) for value in values], text, name)
        hint = "null" if field.optional else ""
        return Line(text, placeholder=hint, compact=True, name=name)

    def look(self) -> None:
        """Say what is wrong with the field, else what it may be."""
        name, width = self.field.name, self._width
        off, wrong, on = self._draft.off(name), self.wrong, self._draft.text(name) == "true"
        self.said = "adversarial training is off" if off else self._draft.mistakes.get(name) or limits(self.field)
        if self.field.kind in ("flag", "section") and not off and not wrong:
            self.said = "on" if on else "off"  # a switch tells it by colour only
        widths = Widths.of(width, wide=isinstance(self.control, Line) and self.field.kind in WIDE and not wrong)
        if widths != self._widths:
            self._widths = widths
            self.control.styles.margin, self.control.styles.width = (0, 0, 0, widths.name), widths.control
        if self.control.disabled != off:
            self.control.disabled = off
        changed = name in self._draft.texts and not off
        ink = canvas.BAD if wrong else canvas.QUIET if off else canvas.MARK if changed else canvas.TEXT
        told = name.removeprefix(self._prefix)
        told = told if len(told) < widths.name else f"{told[: widths.name - 2]}…"
        self.show([
            canvas.row(
                (told.ljust(widths.name + widths.control + 1), ink),
                (canvas.narrow(shown_line(self.said)) if widths.says else "", canvas.BAD if wrong else canvas.QUIET),
                width=width,
            )
        ])  # fmt: skip


class BlockRow(Row):
    """One HaH block: its number, filters and map size, and its value of every per-block setting."""

    def __init__(self, number: int, about: str, draft: Draft, width: int) -> None:
        super().__init__(draft, width)
        from hah_tui.draft import PER_BLOCK

        self.number, self._about = number, about
        self._lines = [Line(draft.row(name)[number - 1], compact=True, name=f"{name}[{number}]") for name in PER_BLOCK]

    def compose(self) -> ComposeResult:
        yield from self._lines

    def fit(self, width: int) -> None:
        first, each = block_columns(width)
        for index, line in enumerate(self._lines):
            line.styles.margin, line.styles.width = (0, 2, 0, 0 if index else first), each - 2
        super().fit(width)

    def look(self) -> None:
        """Say what is wrong with the block's values."""
        from hah_tui.draft import PER_BLOCK

        found = [
            f"{name.rpartition('.')[2]} {self._draft.mistakes[key]}"
            for name in PER_BLOCK
            if (key := f"{name}[{self.number}]") in self._draft.mistakes
        ]
        first, each = block_columns(self._width)
        pieces = [(self._about[: first - 1].ljust(first + each * len(PER_BLOCK)), canvas.BAD if found else canvas.TEXT)]
        if self._width >= 60:
            pieces.append((canvas.narrow(shown_line("; ".join(found))), canvas.BAD))
        self.show([canvas.row(*pieces, width=self._width)])


class BlockTitles(Row):
    """What stands above the columns of the blocks."""

    def look(self) -> None:
        """The names of the settings."""
        from hah_tui.draft import PER_BLOCK

        first, each = block_columns(self._width)
        names = "".join(name.rpartition(".")[2].ljust(each) for name in PER_BLOCK)
        self.show([canvas.row(("block".ljust(first) + names, canvas.QUIET), width=self._width)])


def block_columns(width: int) -> tuple[int, int]:
    """Cells of what a block is, and of each of its settings."""
    return (15, 10) if width < 60 else (18, min(24, max(14, (width - 18) // 4)))


class Fields(VerticalScroll, inherit_bindings=False):
    """The mounted fields; arrows move between them instead of scrolling."""

    def on_resize(self, event: Resize) -> None:
        for row in self.query(Row):
            row.fit(self.scrollable_content_region.width)


class SheetBar(Canvas):
    """The titles of the sheets, the present one marked, those with mistakes in the colour of mistakes."""

    DEFAULT_CSS = "SheetBar { height: 1; background: $surface; }"

    class Chosen(Message):
        """A click on a sheet."""

        def __init__(self, sheet: int) -> None:
            super().__init__()
            self.sheet = sheet

    def __init__(self) -> None:
        super().__init__()
        self._sheets: list[Sheet] = []
        self._now, self._bad = 0, set[int]()
        self._placed: list[tuple[int, int, int]] = []  # (first cell, one after the last, sheet)

    def put(self, sheets: list[Sheet], now: int, bad: set[int]) -> None:
        """Show these, ``now`` the present one."""
        self._sheets, self._now, self._bad = sheets, now, bad
        self.fresh()

    def on_resize(self, event: Resize) -> None:
        self.fresh()

    def fresh(self) -> None:
        """Draw as many as there is room for around the present one; at the ends it is said that there are more."""
        width = self.size.width
        there = [index for index, sheet in enumerate(self._sheets) if sheet.there]
        if not width or self._now not in there:
            return
        words = {index: f" {self._sheets[index].title} " for index in there}
        lengths, now = [len(words[index]) for index in there], there.index(self._now)
        first = next(n for n in range(now + 1) if n == now or sum(lengths[n : now + 2]) <= width - 4)
        last = max(n for n in range(now, len(there)) if n == now or sum(lengths[first : n + 1]) <= width - 4)
        pieces = [("< " if first else "", canvas.MARK)]
        at, self._placed = len(pieces[0][0]), []
        for index in there[first : last + 1]:
            ink = canvas.FOCUSED if index == self._now else canvas.BAD if index in self._bad else canvas.TEXT
            pieces.append((words[index], ink))
            self._placed.append((at, at + len(words[index]), index))
            at += len(words[index])
        self.show([canvas.row(*pieces, (" >" if last < len(there) - 1 else "", canvas.MARK), width=width)])

    def on_click(self, event: Click) -> None:
        for first, end, index in self._placed:
            if first <= event.x < end:
                self.post_message(self.Chosen(index))


def rows(sheet: Sheet, draft: Draft, devices: Sequence[tuple[str, str]], width: int) -> list[Widget]:
    """What is mounted for a tab of so many cells."""
    title = sheet.title.split(" ")[0]
    if title != "blocks":
        prefix = "" if title == "run" else f"{title}."
        return [FieldRow(field, draft, prefix, devices, width) for field in sheet.fields]
    if not sheet.blocks:
        return [Static(Text("No HaH blocks: model.hah_blocks is 0. This is a standard network."))]
    found: list[Widget] = [BlockTitles(draft, width)]
    plan = draft.blocks()
    for number in sheet.blocks:
        block = plan[number - 1] if number <= len(plan) else None
        about = f"{number:>2}  {f'{block.filters} x {block.size}x{block.size}' if block else ''}"
        found.append(BlockRow(number, about, draft, width))
    return found


def device_choices(gpus: Sequence[Gpu] = ()) -> list[tuple[str, str]]:
    """(value, what is said of it) of compute.device."""
    found = [("auto", "auto"), ("cpu", "cpu")]
    for index, gpu in enumerate(gpus):
        room = f"{gpu.free_gib:.0f} of {gpu.memory_gib:.0f} GiB free{', has an engine' if gpu.taken else ''}"
        found.append((f"cuda:{index}", f"cuda:{index}  {shown_line(gpu.name, 40)}, {room}"))
    return found


def explained(name: str, draft: Draft, colour: Colour) -> Text:
    """What the setting in focus is for, or why it is wrong; the keys where none is."""
    from engine.experiment.fields import fields

    field, text = fields().get(name.partition("[")[0]), Text()
    if field is None:
        return text.append(
            "tab, arrows: fields   ctrl+n, ctrl+o: sections   f2: network   ctrl+r: launch", colour("quiet")
        )
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
    return text


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
