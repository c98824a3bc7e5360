"""What is done with a draft: launch it, queue it, hand it to Slurm, save it as a preset."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from engine.runs import launch
from engine.runs.layout import RunDirectory
from hah_tui import engines
from hah_tui.base import Page
from hah_tui.screens import summary
from hah_tui.screens.dialogs import Ask
from hah_tui.screens.keeper import Keeper
from hah_tui.screens.site import ask_site

if TYPE_CHECKING:
    from pathlib import Path

    from engine.experiment import Experiment
    from engine.runs.making import Origin
    from engine.sweep.plan import Plan
    from hah_tui.draft import Draft
    from hah_tui.speeds import Speed


class DraftActions(Page):
    """A screen with a draft, kept under a name; ``busy`` says what a launch waits for."""

    draft: Draft | None
    kept: str
    keeper: Keeper
    speeds: list[Speed]
    busy: str

    # For the subclass

    def show_field(self, name: str) -> None:
        """Put the cursor on a setting."""
        raise NotImplementedError

    def mark(self, error: Exception) -> None:
        """Say what only the engine's side could know beside the fields too."""
        raise NotImplementedError

    def now(self, what: str) -> None:
        """Say what is being waited for."""
        raise NotImplementedError

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
        if self.draft is None or self.busy:
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
        self.now("asking for device and data...")
        app = self.hah

        def work() -> RunDirectory:
            run, process = engines.begin(experiment, draft.made_from, app.folder)
            app.adopt(process)
            app.call_in_app(self, partial(self.now, f"{run.id} is starting..."))
            for text in launch.await_start(run, process):
                app.call_in_app(app, partial(app.say, f"{run.id}: {text}", "warning"))
            return run

        app.in_background(app, work, partial(self._begun, self.kept), self._not_begun)

    def action_queue(self) -> None:
        """Ask for how many seeds, then queue."""
        self._many("Queue", engines.enqueue, engines.enqueue_sweep, "waits in the queue")

    def action_hand_over(self) -> None:
        """The same in jobs of Slurm, after asking for the site where there are several."""

        def at(site: str) -> None:
            one, several = partial(_hand_over, site=site), partial(engines.hand_over_sweep, site=site)
            self._many(f"Hand to Slurm ({site})", one, several, "is Slurm's")

        if self._whole() is not None:
            ask_site(self, at)

    def _many(
        self,
        title: str,
        one: Callable[[Experiment, Origin, Path], RunDirectory],
        several: Callable[[Plan, Path], str],
        then: str,
    ) -> None:
        """Ask for how many seeds; then begin ``one`` run, or ``several`` by a plan, neither here nor now."""
        if (whole := self._whole()) is None:
            return
        draft, experiment = whole
        runs = draft.several
        seeds = "" if "seed" in draft.axes else "How many seeds?"
        what = [f"{name}: {draft.text(name)}" for name in draft.axes]
        takes = summary.cost(experiment, self.speeds)
        many = f"{runs} runs a seed" if runs > 1 and seeds else f"{runs} runs" if runs > 1 else "One run a seed"
        what.append(f"{many}, each: {takes}. {seeds}")

        def check(text: str) -> str:
            fits = text.strip().isdecimal() and 1 <= int(text) <= 1000 and runs * int(text) <= 10_000
            return "" if fits else "a whole number from 1 to 1000, at most 10,000 runs in all"

        def put(text: str | None) -> None:
            if text is None:
                return
            self.now("asking for device and data...")
            app, count = self.hah, int(text)

            def work() -> str:
                if draft.several * count == 1:
                    return f"{one(experiment, draft.made_from, app.folder).id} {then}"
                return several(draft.plan(count), app.folder)

            app.in_background(app, work, partial(self._queued, self.kept), self._not_begun, whole=True)

        self.hah.push_screen(Ask(title, "\n".join(what), "1", check, over=True), put)

    def _queued(self, kept: str, said: str) -> None:
        self.keeper.keep(kept, None)
        self.hah.say(said)
        if not self.hah.holds(self):
            return
        self.now("")
        if self.hah.screen is self:
            self.hah.pop_screen()
            self.hah.open("queue")

    def _begun(self, kept: str, run: RunDirectory) -> None:
        self.keeper.keep(kept, None)
        self.hah.say(f"{run.id} runs in the background")
        if not self.hah.holds(self):
            return
        self.now("")
        if self.hah.screen is self:
            self.hah.pop_screen()
            self.hah.open("monitor", run)

    def _not_begun(self, error: Exception) -> None:
        """What only the engine's side could know stands beside its field too."""
        if self.hah.holds(self):
            self.mark(error)
        self.hah.complain(error)


def _hand_over(experiment: Experiment, origin: Origin, folder: Path, site: str) -> RunDirectory:
    (handed,) = engines.hand_over(experiment, origin, folder, site)
    return handed.directory


def _preset_name(text: str) -> str:
    from engine.experiment.names import NAME_FORMAT, is_name

    return "" if is_name(text.strip()) else NAME_FORMAT
