"""What an experiment comes to, as text: the network's blocks, its size, its expected time, what a draft changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from hah_tui.text import duration, shown_line

if TYPE_CHECKING:
    from engine.experiment import Experiment
    from engine.experiment.architecture import BlockPlan
    from hah_tui.draft import Draft
    from hah_tui.speeds import Speed

Colour = Callable[[str], str]  # a colour of the theme, by its name


def of_draft(draft: Draft, speeds: Sequence[Speed], colour: Colour, plain: bool) -> Text:
    """The mistakes, the network, the facts and the differences."""
    heading, text = f"bold {colour('accent')}", Text()
    if draft.wrong:
        text.append("Wrong\n", f"bold {colour('bad')}")
        for name in draft.wrong[:8]:
            text.append(f"{name}{': ' if name else ''}{shown_line(draft.mistakes[name])}\n", colour("bad"))
        text.append("\n")
    text.append("Network\n", heading)
    text.append_text(network(draft.blocks(), draft.hah_blocks, colour))
    if draft.experiment is not None:
        text.append("\n")
        text.append_text(facts(draft.experiment, speeds, colour))
    text.append(f"\nDifferences from {shown_line(draft.origin, 40)}\n", heading)
    return text.append_text(changes(draft, colour, plain))


def cost(experiment: Experiment, speeds: Sequence[Speed]) -> str:
    """Parameters, multiply-accumulates and expected time in a few words."""
    from hah_tui.speeds import expected_seconds

    expected = expected_seconds(experiment, speeds)
    known = [f"about {duration(expected[0])}"] if expected else []
    return ", ".join([f"{counted(experiment.parameters())} parameters", f"{counted(experiment.macs())} MACs", *known])


def facts(experiment: Experiment, speeds: Sequence[Speed], colour: Colour) -> Text:
    """The same and what it is trained on, a line each."""
    from hah_tui.speeds import expected_seconds

    expected = expected_seconds(experiment, speeds)
    here = "this machine has not trained this network yet"
    if expected:
        here = f"about {duration(expected[0])}, from {expected[1]} earlier run{'' if expected[1] == 1 else 's'}"
    lines = {
        "parameters": counted(experiment.parameters()),
        "MACs per image": counted(experiment.macs()),
        "data": experiment.data.dataset,
        "epochs": str(experiment.train.epochs),
        "training here": here,
    }
    text = Text()
    for name, told in lines.items():
        text.append(f"{name:<15}", colour("quiet"))
        text.append(f"{told}\n")
    for told in experiment.idle():
        text.append(f"{told}\n", colour("waiting"))
    return text


def network(blocks: Sequence[BlockPlan], hah_blocks: int, colour: Colour) -> Text:
    """A line for each map size: the blocks there, HaH blocks in brackets and colour."""
    text = Text()
    stages: dict[int, list[BlockPlan]] = {}
    for block in blocks:
        stages.setdefault(block.size, []).append(block)
    most = max((len(members) for members in stages.values()), default=0)
    for size, members in stages.items():
        text.append(f"{f'{size}x{size}':>6}  ", colour("quiet"))
        for block in members:
            if block.number <= hah_blocks:
                text.append(f"[{block.number:>2}]", f"bold {colour('background')} on {colour('live')}")
            else:
                text.append(f" {block.number:>2} ", f"{colour('foreground')} on {colour('panel')}")
            text.append(" ")
        text.append(" " * (5 * (most - len(members))))
        text.append(f" {members[0].filters} filters\n", colour("quiet"))
    if blocks:
        text.append("        [n]", f"bold {colour('live')}")
        text.append(" HaH block   ")
        text.append(" n ", f"on {colour('panel')}")
        text.append(" standard block\n")
    return text


def changes(draft: Draft, colour: Colour, plain: bool) -> Text:
    """What a draft changes of its preset, two lines each."""
    from hah_tui.draft import text_of

    text = Text()
    for name, (old, new) in draft.differences().items():
        text.append(f"{shown_line(name)}\n", "bold")
        text.append(f"  {shown_line(text_of(old) or 'null', 60)} {'->' if plain else '→'} ", colour("quiet"))
        text.append(f"{shown_line(text_of(new) or 'null', 60)}\n", colour("accent"))
    return text or Text("nothing is changed yet\n", colour("quiet"))


def counted(number: float) -> str:
    """14714688 as '14.7 M'."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"
