"""The lines below the list of runs: what is known of the run or the group under the cursor, or why there is none."""

from __future__ import annotations

from rich.text import Text

from engine.runs import store
from hah_tui.base import BaseApp
from hah_tui.groups import Group
from hah_tui.listing import ListedRun
from hah_tui.text import home, shown_line, slurm_line
from hah_tui.themes import MARKS


def of_run(row: ListedRun, app: BaseApp) -> Text:
    """How a run goes, why it does not, and what it is."""
    state, colour = row.look.state, app.colour
    detail = Text(no_wrap=True, overflow="ellipsis")
    detail.append(row.id, "bold")
    detail.append(f"  {row.look.status}", colour(MARKS.get(row.look.status, ("", "", "quiet"))[2]))
    if (job := row.evaluation) is not None:
        said = f", evaluation {job.status}  {shown_line(job.state.phase, 30)} {100 * job.state.progress:.0f}%"
        detail.append(said, colour(MARKS.get(job.status, ("", "", "quiet"))[2]))
    detail.append(f"  epoch {state.epoch} of {state.epochs}  step {state.step:,}")
    if state.phase:
        detail.append(f"  {shown_line(state.phase, 20)}", colour("quiet"))
    if state.images_per_second and row.look.live:
        detail.append(f"  {state.images_per_second:,.0f} images/s", colour("quiet"))
    why = state.error if row.look.status == "failed" else row.look.why
    if why and row.look.status in ("failed", "lost", "stopped") and not row.look.awaited:
        why += "" if "resume" in why else "; r: resume"
    if why:
        detail.append(f"\n{shown_line(why, 500)}", colour("bad" if not row.look.live else "waiting"))
    else:
        changed = store.changed_on_the_way(state)
        facts = [slurm_line(row.look), f"preset {state.preset}" if state.preset else "", " ".join(row.tags)]
        facts.append(state.device)
        facts += [f"changed while it trained: {', '.join(changed)}"] * bool(changed)
        detail.append("\n" + shown_line("  ".join(filter(None, facts)), 300), colour("quiet"))
    detail.append(f"\n{shown_line(row.labels.note, 300) or home(row.look.run.path)}", colour("quiet"))
    return detail


def of_group(group: Group, app: BaseApp) -> Text:
    """Which runs of a group are in its means, and which are not."""
    colour, (counted, others) = app.colour, group.sorted_out
    detail = Text(no_wrap=True, overflow="ellipsis")
    detail.append(shown_line(group.name), "bold")
    detail.append(f"  {len(counted)} of {group.size} in the means, {'+-' if app.plain else '±'} sample sd")
    if others:
        told = ", ".join(f"{count} {why}" for why, count in others.items())
        detail.append(f"\nnot in the means: {told}", colour("waiting"))
    else:
        shared = [tag for tag in group.runs[0].tags if all(tag in run.tags for run in group.runs)]
        detail.append(f"\n{shown_line(' '.join(shared), 300)}", colour("quiet"))
    detail.append(f"\nseeds {' '.join(map(str, sorted(group.seeds)[:30]))}", colour("quiet"))
    if group.missing:
        told = " ".join(map(str, group.missing[:30]))
        detail.append(f"; not finished, though other groups' are: {told}", colour("waiting"))
    return detail


def nothing(app: BaseApp, problem: str, runs: int, asked: str) -> Text:
    """Why the list is empty: the folder has a ``problem``, none of so many ``runs`` fits what was ``asked``, or there
    are none."""
    if problem:
        return Text(shown_line(problem) + "\nIt is looked for again every half a second.")
    if asked:
        return Text(f"None of {runs:,} runs fits '{shown_line(asked)}'.\nesc clears the filter.")
    return Text.assemble(
        ("No runs yet\n\n", "bold"),
        "Press ",
        ("n", f"bold {app.colour('accent')}"),
        " and pick quickstart:\na small HaH network on digits,\nunder a minute on two CPU cores.\n\n",
        (home(app.folder), app.colour("quiet")),
    )
