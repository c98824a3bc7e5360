"""What to measure of a trained network: suites with the time each takes, how many images, which checkpoint."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.events import Resize
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static

from engine.experiment.datasets import SUITE_NAMES, Suite
from engine.experiment.mistakes import RequestError
from engine.results.suites import check_packages
from engine.runs.layout import RunDirectory
from hah_tui import engines
from hah_tui.base import app_of
from hah_tui.screens.dialogs import Dialog
from hah_tui.screens.site import ask_site
from hah_tui.text import duration, shown_line
from hah_tui.widgets.choice import Choice, Options
from hah_tui.widgets.line import Line

if TYPE_CHECKING:
    from engine.experiment import Experiment

TYPING_SECONDS = 0.7  # without a key before another estimate is asked for
_KEY = r"[\w.-]+\s*="  # what a setting begins with


Where = Literal["here", "queue", "slurm"]  # an evaluation is done


class EvaluateDialog(Dialog["tuple[Experiment, str, Where, str] | None"]):
    """Asks what to measure of a run; gives the experiment with its suites, the checkpoint's name, and where, at
    which site of Slurm."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave"),
        Binding("ctrl+r", "begin"),
        Binding("ctrl+l", "begin('queue')"),
        Binding("f3", "begin('slurm')"),
        Binding("space", "choose"),
    ]
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (20, "-tall")]  # noqa: RUF012 (Textual's)

    def __init__(self, run: RunDirectory, experiment: Experiment, checkpoints: list[str]) -> None:
        super().__init__()
        self._run, self._experiment = run, experiment
        self._chosen = set(experiment.evaluate.suites or ("noise", "sparsity"))
        self._checkpoints = checkpoints or ["last"]
        self._forecast: dict[str, Any] | str = ""  # by suite, or why there is none
        self._asked: tuple[Experiment, str] | None = None  # settings and checkpoint that the estimate is of
        self._later: Timer | None = None

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as box:
            box.can_focus = False
            box.border_title = Text(f"Evaluate {shown_line(self._run.id)}")
            yield Options(*([""] * len(SUITE_NAMES)), id="suites", markup=False)
            for name, control in self._fields().items():
                yield Horizontal(Static(name, classes="name"), control, classes="field")
            yield Static(id="said")

    def _fields(self) -> dict[str, Widget]:
        images = self._experiment.evaluate.images
        return {
            "images": Line("" if images is None else str(images), placeholder="all test images", id="images",
                            compact=True),
            "checkpoint": Choice([(name, name) for name in self._checkpoints],
                                 "last" if "last" in self._checkpoints else self._checkpoints[0], "checkpoint"),
            "settings": Line(placeholder="evaluate.attacks.restarts=5", id="settings", compact=True),
        }  # fmt: skip

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        self._look()

    def on_resize(self, event: Resize) -> None:
        self._look()

    # What is asked for

    def _images(self) -> int | None:
        """How many images; raises RequestError."""
        text = self.query_one("#images", Input).value.strip()
        if text and not (text.isdecimal() and 0 < int(text) < 10**9):
            raise RequestError(f"images: a whole number above 0, or nothing for all of them, got {text!r}")
        return int(text) if text else None

    def _sets(self) -> list[str]:
        """Every KEY=VALUE, its value up to the blank before the next key or to the end; raises RequestError."""
        text = self.query_one("#settings", Input).value.strip()
        sets = re.split(rf"\s+(?={_KEY}|evaluate\.|compute\.)", text) if text else []
        for one in sets:
            if not re.match(_KEY, one):
                raise RequestError(f"settings: KEY=VALUE, such as evaluate.noise.levels=[0.05, 0.1], got {one!r}")
        return sets

    def _checkpoint(self) -> str:
        return str(self.query_one(Choice).value)

    def _meant(self, where: Where = "here") -> Experiment:
        """The experiment as it is asked for; raises RequestError."""
        chosen = [suite for suite in SUITE_NAMES if suite in self._chosen]
        if not chosen:
            raise RequestError("choose one suite or more with space")
        experiment = engines.evaluation(self._experiment, chosen, self._images(), self._sets())
        if where != "slurm":  # a site may have another Python
            check_packages(experiment)
        return experiment

    def _look(self) -> None:
        """Say what is wrong, else how long it takes; ask for that where it is not known."""
        if not self.size.width:
            return
        try:
            self._ask_for_forecast(engines.evaluation(self._experiment, SUITE_NAMES, None, self._sets()))
            self._list(self._images())
            self._say(self._total(self._meant()), False)
        except RequestError as error:
            self._say(str(error).splitlines()[0].removeprefix("--set "), True)

    def _ask_for_forecast(self, everything: Experiment) -> None:
        """Ask for an estimate of these settings and the checkpoint, unless that is done; at once the first time."""
        wanted = (everything, self._checkpoint())
        if wanted == self._asked:
            return
        if self._later is not None:
            self._later.stop()
        delay = 0.01 if self._asked is None else TYPING_SECONDS
        self._asked, self._forecast = wanted, ""
        self._later = self.set_timer(delay, partial(self._ask, *wanted))

    def _ask(self, experiment: Experiment, checkpoint: str) -> None:
        def came(found: dict[str, Any] | str) -> None:
            if self._asked == (experiment, checkpoint):
                self._forecast = found
                self._look()

        app_of(self).in_background(
            self, lambda: engines.forecast(self._run, experiment, checkpoint), came,
            lambda error: came(f"no estimate: {shown_line(str(error), 200)}"),
        )  # fmt: skip

    def _seconds(self, suite: Suite, images: int | None) -> float | None:
        """How long a suite takes at most, if that is known."""
        if isinstance(self._forecast, str):
            return None
        found = self._forecast["suites"][suite]
        count = int(found["images"])
        return float(found["seconds_per_image"]) * min(images or count, count)

    # What is shown

    def _list(self, images: int | None) -> None:
        from engine.experiment.schema import Evaluate

        listed = self.query_one(OptionList)
        room = max(26, min(78, int(self.size.width * 0.96)) - 8)  # as wide as the dialog lets it be
        for index, suite in enumerate(SUITE_NAMES):
            seconds = self._seconds(suite, images)
            time = duration(seconds) if seconds is not None else "" if self._forecast else "..."
            name = f"[{'x' if suite in self._chosen else ' '}] {suite.replace('_', '-'):<13}"
            about = Evaluate.model_fields[suite].description or ""
            about = about if len(name) + len(about) + 10 <= room else ""
            line = f"{name} {about}".ljust(room - 9) + time.rjust(9)
            listed.replace_option_prompt_at_index(index, Text(line, no_wrap=True))

    def _total(self, experiment: Experiment) -> str:
        if isinstance(self._forecast, str):
            return self._forecast or "timing a few passes..."
        seconds = sum(self._seconds(suite, experiment.evaluate.images) or 0 for suite in experiment.evaluate.suites)
        device, processes = self._forecast["device"], self._forecast["processes"]
        where = f"{device} in {processes} processes" if processes > 1 else device
        return f"at most {duration(seconds)} on {where}; what is measured already stays"

    def _say(self, what: str, wrong: bool) -> None:
        said = Text(shown_line(what, 300) + "\n", "" if not wrong else "bold")
        more = "f3: Slurm" if app_of(self).has_site else "tab: on"
        said.append(f"space: choose  enter: begin  ctrl+l: queue  {more}  esc: leave it", "" if wrong else "dim")
        place = self.query_one("#said", Static)
        place.update(said)
        place.set_class(wrong, "wrong")

    # Keys

    def action_choose(self) -> None:
        at = self.query_one(OptionList).highlighted
        if at is not None and self.focused is self.query_one(OptionList):
            self._chosen ^= {SUITE_NAMES[at]}
            self._look()

    def action_begin(self, where: Where = "here") -> None:
        """Begin, unless something is wrong; that is said."""
        with suppress(RequestError):
            experiment, checkpoint = self._meant(where), self._checkpoint()
            if where == "slurm":
                ask_site(self, lambda site: self.dismiss((experiment, checkpoint, where, site)))
            else:
                self.dismiss((experiment, checkpoint, where, ""))

    def on_option_list_option_selected(self) -> None:
        self.action_begin()

    def on_input_submitted(self) -> None:
        self.action_begin()

    def on_input_changed(self) -> None:
        self._look()

    def on_select_changed(self) -> None:
        self._look()

    def action_leave(self) -> None:
        self.dismiss(None)
