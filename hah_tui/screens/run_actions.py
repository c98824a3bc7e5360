"""What is done with runs: what the list and the monitor ask of engines, and what the list changes on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.experiment.mistakes import Mistake, RequestError
from engine.runs import launch, store
from engine.runs.layout import RunDirectory
from engine.runs.store import Labels
from engine.runs.watcher import Look
from hah_tui import engines
from hah_tui.base import BaseApp, Page
from hah_tui.screens.dialogs import Ask, Confirm
from hah_tui.screens.site import ask_site
from hah_tui.text import home

if TYPE_CHECKING:
    from engine.sweep.handover import Handed


class RunActions(Page):
    """The actions of keys.ACTIONS that have runs as their object."""

    def target(self) -> Look | None:
        """The run that an action on one run is for."""
        raise NotImplementedError

    def targets(self) -> list[Look]:
        """The runs that an action on several is for."""
        look = self.target()
        return [] if look is None else [look]

    def acted(self) -> None:
        """Something was done with runs: look at them again."""

    def _acted(self) -> None:
        if self.hah.holds(self):
            self.acted()

    def action_stop(self) -> None:
        self._each("stop", lambda run: engines.ask(engines.meant(run), "stop"), "stopped")

    def action_pause(self) -> None:
        self._each("pause", lambda run: engines.ask(engines.meant(run), "pause"), "paused")

    def action_resume(self) -> None:
        self._each("resume", partial(go_on, self.hah), "goes on")

    def action_hand_over(self) -> None:
        """Go on with them in jobs of Slurm, but for those with which that is being done."""
        app, asked = self.hah, [look.run for look in self.targets()]

        def told(outcome: tuple[list[Handed], list[Mistake]]) -> None:
            handed, refused = outcome
            if handed:
                app.say(f"{named([one.directory for one in handed])}: handed to Slurm")
            if refused:
                app.complain(RequestError(*refused))
            self._acted()

        def at(site: str) -> None:
            runs = [run for run in asked if run.path not in app.handing]
            paths = {run.path for run in runs}

            def work() -> tuple[list[Handed], list[Mistake]]:
                try:
                    return engines.hand_over_again([engines.meant(run) for run in runs], site)
                finally:
                    app.handing -= paths

            if runs:
                app.handing |= paths
                app.say(f"{named(runs)}: being handed to Slurm")
                app.in_background(app, work, told, whole=True)

        if asked:
            ask_site(self, at)

    def action_extend(self) -> None:
        look = self.target()
        if look is None:
            return
        run, epoch, epochs, lives = look.run, look.state.epoch, look.state.epochs, look.live

        def check(text: str) -> str:
            right = text.strip().isdecimal() and len(text) < 9 and int(text) > epoch
            return "" if right else f"a whole number above {epoch}, the epochs trained"

        def change(run: RunDirectory, to: int) -> None:
            engines.change(run, f"train.epochs={to}")

        def extend(text: str | None) -> None:
            if text is not None:
                to = int(text)
                act = partial(change, to=to) if lives else partial(go_on, self.hah, sets={"train.epochs": to})
                self._each("extend", act, f"trains to epoch {to}", [look])

        what = f"{epoch} of {epochs} epochs are trained. Train to which epoch?"
        self.hah.push_screen(Ask(f"Extend {run.id}", what, str(2 * max(epochs, 1)), check, over=True), extend)

    def _each(
        self, verb: str, act: Callable[[RunDirectory], object], then: str, looks: Sequence[Look] | None = None
    ) -> None:
        """Do something with every run, each in a thread; say what came of it, and what they refuse."""
        runs = [look.run for look in (self.targets() if looks is None else looks)]
        if runs:
            self.hah.say(f"{named(runs)}: {verb} asked for")

        def told(run: RunDirectory, _: object) -> None:
            self.hah.say(f"{run.id} {then}")
            self._acted()

        for run in runs:
            self.hah.in_background(self.hah, partial(act, run), partial(told, run))

    def action_results(self) -> None:
        look = self.target()
        if look is not None:
            self.hah.open("results", look.run)

    def action_copy(self) -> None:
        names = " ".join(look.run.id for look in self.targets())
        if names:
            self.hah.copy_to_clipboard(names)
            self.hah.say(f"copied {names}")

    def action_copy_path(self) -> None:
        look = self.target()
        if look is not None:
            self.hah.copy_to_clipboard(str(look.run.path))
            self.hah.say(f"copied {look.run.path}")


class ListActions(RunActions):
    """And those that only a list offers."""

    def labels(self, look: Look) -> Labels:
        """The tags and the note of a run, as far as the list knows them."""
        raise NotImplementedError

    def action_tag(self) -> None:
        looks = self.targets()
        if not looks:
            return

        def check(text: str) -> str:
            return "" if text.split() else "one or more words; -word takes one away"

        def put(text: str | None) -> None:
            if text is not None:
                words = text.split()
                add = [word for word in words if not word.startswith("-")]
                remove = [word[1:] for word in words if word.startswith("-")]
                self._label(looks, add=add, remove=remove)

        have = " ".join(dict.fromkeys(tag for look in looks for tag in self.labels(look).tags))
        what = f"Tags now: {have}" if have else "Words to find it by; -word takes one away."
        self.hah.push_screen(Ask(f"Tag {named([look.run for look in looks])}", what, "", check, "words"), put)

    def action_note(self) -> None:
        look = self.target()
        if look is None:
            return

        def put(text: str | None) -> None:
            if text is not None:
                self._label([look], note=text)

        self.hah.push_screen(Ask(f"Note on {look.run.id}", "", self.labels(look).note), put)

    def _label(self, looks: Sequence[Look], **labels: Any) -> None:
        def write() -> None:
            for look in looks:
                store.label(look.run, **labels)

        self.hah.in_background(self, write, lambda _: self.acted(), awaited=True)

    def action_delete(self) -> None:
        looks = self.targets()
        live = [look for look in looks if look.live]
        if live:
            self.hah.say(f"{live[0].run.id} is {live[0].status}: stop it first. Nothing was deleted", "warning")
        elif looks:
            confirm = partial(self._confirm_delete, looks)
            self.hah.in_background(self, partial(_all_contents, looks), confirm, awaited=True)

    def _confirm_delete(self, looks: list[Look], lines: list[str]) -> None:
        runs = [look.run for look in looks]
        more = [f"and {len(runs) - len(lines):,} more"] if len(runs) > len(lines) else []

        def gone(_: object) -> None:
            self.hah.say(f"deleted {named(runs)}")
            self._acted()

        def not_all_gone(error: Exception) -> None:
            self.hah.complain(error)
            self._acted()

        def delete(yes: bool | None) -> None:
            if yes:
                self.hah.in_background(self.hah, partial(_remove, runs), gone, not_all_gone)

        title = f"Delete {'this run' if len(runs) == 1 else f'these {len(runs)} runs'} for good?"
        lines = [*lines, *more, f"from {home(self.hah.folder)}"]
        self.hah.ask(self, Confirm(title, lines, f"delete {named(runs)}"), delete)


def go_on(app: BaseApp, run: RunDirectory, sets: Mapping[str, Any] | None = None) -> None:
    """Resume a run, its engine a child of this program, with settings changed; for a thread."""
    run = run if sets else engines.meant(run)
    process = engines.resume(run, sets)
    if process is not None:
        app.adopt(process)
        for text in launch.await_start(run, process):
            app.call_in_app(app, partial(app.say, f"{run.id}: {text}", "warning"))


def named(runs: Sequence[RunDirectory]) -> str:
    """Runs in a title: the id of one, the number of several."""
    return runs[0].id if len(runs) == 1 else f"{len(runs)} runs"


def _remove(runs: Sequence[RunDirectory]) -> None:
    for run in runs:
        store.remove(run)


def _all_contents(looks: Sequence[Look]) -> list[str]:
    return [contents(look) for look in looks[:50]]


def contents(look: Look) -> str:
    """What goes with a run that is deleted: its size, its checkpoints and results."""
    run, size = look.run, 0
    for folder, _, files in os.walk(run.path):
        for name in files:
            with suppress(OSError):
                size += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 (many)
    kept = [
        f"{count} {what}{'' if count == 1 else 's'}"
        for what, folder in (("checkpoint", run.checkpoints), ("result", run.results))
        if (count := sum(not path.name.startswith(".") for path in folder.glob("*")))
    ]
    return "  ".join([run.id, look.status, f"epoch {look.state.epoch}", f"{size / 2**20:.1f} MiB", *kept])
