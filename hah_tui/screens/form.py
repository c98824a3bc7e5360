"""The form of a new run: its tabs, and the rows of fields that are mounted at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static, Switch

from hah_tui.screens.summary import Colour
from hah_tui.text import shown_line
from hah_tui.widgets.choice import Choice
from hah_tui.widgets.line import Line

if TYPE_CHECKING:
    from engine.experiment.fields import Field
    from engine.runs.devices import Gpu
    from hah_tui.draft import Draft

MOUNTED = 14  # fields at a time: each costs at every layout
MOST_BLOCKS = 16
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
            yield Choice([(Text(told), value) for value, told in choices], text, name)
        elif field.kind in ("flag", "section"):
            yield Switch(text == "true", animate=False, name=name)
        elif field.kind == "choice":
            values = [str(choice) for choice in field.choices]
            yield Choice([(value, value) for value in values], text, name)
        else:
            yield Line(text, placeholder="null" if field.optional else "", compact=True, name=name,
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
        if self.field.kind in ("flag", "section") and not off:
            said = wrong or ("on" if self._draft.text(name) == "true" else "off")  # a switch tells it by colour only
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
            yield Line(text, compact=True, name=f"{name}[{self.number}]", select_on_focus=False)
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


def rows(sheet: Sheet, draft: Draft, devices: Sequence[tuple[str, str]]) -> list[Widget]:
    """What is mounted for a tab."""
    from hah_tui.draft import PER_BLOCK

    title = sheet.title.split(" ")[0]
    if title != "blocks":
        prefix = "" if title == "run" else f"{title}."
        return [FieldRow(field, draft, prefix, devices) for field in sheet.fields]
    if not sheet.blocks:
        return [Static(Text("No HaH blocks: model.hah_blocks is 0. This is a standard network."))]
    heads = [Static(name.rpartition(".")[2], classes="title") for name in PER_BLOCK]
    found: list[Widget] = [Horizontal(Static("block", classes="name"), *heads, classes="field block titles")]
    plan = draft.blocks()
    for number in sheet.blocks:
        block = plan[number - 1] if number <= len(plan) else None
        about = f"{number:>2}  {f'{block.filters} x {block.size}x{block.size}' if block else ''}"
        found.append(BlockRow(number, about, draft))
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
        return text.append("tab, arrows: fields   ctrl+n, ctrl+o: sections   ctrl+r: launch", colour("quiet"))
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
