"""One run: how it goes, live, or as it went; what it may be asked for; and its replay."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from engine import disk
from engine.experiment import Experiment
from engine.runs import manifest, store
from engine.runs.events import Event
from engine.runs.layout import RunDirectory
from engine.runs.metrics import HAH_COST, LOSS, METRICS, PANELS, Metric, drawn_in
from engine.runs.state import read_state
from engine.runs.watcher import Look
from hah_tui import engines, keys
from hah_tui.curves import Curves, Replay, Source
from hah_tui.screens.dialogs import PickRun
from hah_tui.screens.panels import PanelScreen
from hah_tui.screens.run_actions import RunActions, go_on
from hah_tui.screens.set_dialog import SetDialog
from hah_tui.settings import nameable
from hah_tui.text import duration, shown, shown_line, slurm_line
from hah_tui.themes import MARKS, bar, mark
from hah_tui.widgets import canvas
from hah_tui.widgets.bars import Bars, block_lines
from hah_tui.widgets.canvas import QUIET, STRONG, TEXT, Canvas
from hah_tui.widgets.chart import Chart, ChartLine
from hah_tui.widgets.feed import Feed

_LIVE = [panel for panel in PANELS if panel.live]
MOST_METRICS = 20  # with panels of their own, as many as settings keep
_CURVE_INKS = (1, 2, 3, 5)  # of the metrics of a panel


class MonitorScreen(PanelScreen, RunActions):
    """The monitor of one run."""

    PLACE = "monitor"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("monitor")
    PRIORITY = ("loss", "accuracy", "sparsity", "snr", "cost", "feed")  # and then what else there is
    LOW = ("feed",)

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self.run = run
        self.source = Source(run, self.hah.slurm.now)
        self.playback: Replay | None = None
        self.experiment: Experiment | None = None
        self.unknown = "is not read yet"  # why there is no experiment
        self.hah_blocks = 0
        charts = [
            (Bars if panel.blocks else Chart)(panel.title, panel.unit, digit=str(digit), id=panel.key)
            for digit, panel in enumerate(_LIVE, 1)
        ]
        self._panels: list[Canvas] = [*charts, Feed("Events", digit=str(len(charts) + 1), id="feed")]
        self._of: dict[str, str] = {}  # by the id of a panel that somebody added: its metric
        self._reading_replay, self._framed_at = False, 0.0
        self._idle = self.idle()

    @property
    def standard(self) -> bool:
        """Whether it is known to be a network without HaH blocks: its loss is the cross-entropy."""
        return self.experiment is not None and not self.hah_blocks

    # What PanelScreen asks for

    def panels(self) -> Sequence[Canvas]:
        return self._panels

    def first(self) -> Sequence[str]:
        return list(self._of)

    @property
    def curves(self) -> Curves:
        """What is shown: the run, or as much of it as the replay has played."""
        return self.playback.curves if self.playback is not None else self.source.curves

    def sources(self) -> list[Source]:
        return [self.source]

    def subject(self) -> str:
        return self.run.id

    def refill(self) -> None:
        curves, reference = self.curves, self.reference.curves if self.reference is not None else None
        look = self.source.look
        self.view.total = look.state.steps or float("inf") if look is not None else float("inf")
        for panel in self._panels:
            if not panel.display:
                continue
            if isinstance(panel, Bars):
                panel.hah_blocks = self.hah_blocks
                panel.reference_name = self.reference.run.id if self.reference is not None else ""
                panel.lines = block_lines(curves, self._drawn_in(panel)[0], reference)
                panel.marks = curves.marks
            elif isinstance(panel, Chart):
                panel.lines = self._lines(panel, curves, reference)
                panel.marks = curves.marks
            elif isinstance(panel, Feed):
                panel.wrap = self.full
                panel.draw(list(curves.events), self.source.log, look.state.epochs if look is not None else 0)
            if isinstance(panel, Chart) and self.source.loaded:
                ended = look is not None and not look.live
                panel.empty = "nothing was recorded" if ended else "no values yet"
                if panel.id == "cost" and self.standard:
                    panel.empty = "a standard network has none"
        self._draw_head()

    def _drawn_in(self, panel: Chart) -> list[Metric]:
        """The metrics of a panel: those of the table, or the one that somebody added it for."""
        name = self._of.get(str(panel.id))
        if name is None:
            return drawn_in(str(panel.id))
        return [METRICS.get(name) or Metric(name, name, shown_line(name.rpartition("/")[2], 20))]

    def _lines(self, panel: Chart, curves: Curves, reference: Curves | None) -> list[ChartLine]:
        lines, metrics = [], self._drawn_in(panel)
        for metric, ink in zip(metrics, _CURVE_INKS, strict=False):
            name, often = metric.name, metric.every_step
            if self.standard and name in (HAH_COST, LOSS) and panel.id == "loss":
                continue
            if len(curves[name]) or often:
                lines.append(ChartLine(metric.label, curves[name], curves, ink, band=often))
        if reference is not None and self.reference is not None:
            names = [metric.name for metric in metrics if len(reference[metric.name])]
            for name in names:
                lines.append(ChartLine("", reference[name], reference, canvas.REFERENCE, True, False))
            if names:
                lines[-1].label = self.reference.run.id
        return lines

    def compose(self) -> ComposeResult:
        for name in self.hah.settings.metrics:
            self._panels.append(self._of_metric(name))
        yield from super().compose()

    def _of_metric(self, name: str) -> Chart:
        """A panel of a metric, with * for the number of a block."""
        known = METRICS.get(name)
        title, unit = (known.title, known.unit) if known is not None else (shown_line(name, 40), "number")
        key, digit = f"metric-{name.encode().hex()}", len(self._panels) + 1
        self._of[key] = name
        title = f"{title[0].upper()}{title[1:]}{' per block' if '*' in name else ''}"
        return (Bars if "*" in name else Chart)(title, unit, digit=str(digit) if digit < 10 else "", id=key)

    def action_add_panel(self) -> None:
        recorded = [name for name, one in self.source.curves.series.items() if len(one) and nameable(name)]
        names = {re.sub(r"^block/\d+/", "block/*/", name) for name in recorded}
        what = "A panel for a metric of the record"
        self.app.push_screen(PickRun(what, sorted(names), "", "words of its name, such as lr"), self._add_panel)

    def _add_panel(self, name: str | None) -> None:
        if not name:
            return
        key = next((key for key, of in self._of.items() if of == name), "")
        if not key and len(self._of) >= MOST_METRICS:
            self.hah.say(f"{MOST_METRICS} panels of metrics at most; delete takes one away", "warning")
            return
        if not key:
            panel = self._of_metric(name)
            key = str(panel.id)
            panel.add_class("panel")
            self._panels.append(panel)
            self.query_one("#panels").mount(panel)
        self.wanted[key], self.current = True, key
        self._added()

    def action_remove_panel(self) -> None:
        if self.current not in self._of:
            self.hah.say("only panels that were added with / are taken away; digits hide the others", "warning")
            return
        panel = self.query_one(f"#{self.current}", Chart)
        del self._of[self.current], self.wanted[self.current]
        self._panels.remove(panel)
        self.current = next((name for name, wanted in self.wanted.items() if wanted), "loss")
        self.wanted[self.current] = True
        for number, one in enumerate(self._panels, 1):  # digits without a gap
            if isinstance(one, Chart):
                one.digit = str(number) if number < 10 else ""
        self.full = False
        panel.remove()
        self._added()

    def _added(self) -> None:
        self.hah.change(metrics=list(self._of.values()))
        self.keep()
        self.lay_out()

    # Reading and drawing

    def prepare(self) -> None:
        self.take_reference(self.hah.settings.reference)
        self._learn()

    def _learn(self) -> None:
        """Ask for the experiment as it is now; what cannot be read stays unknown."""

        def read() -> Experiment:
            return store.experiment_of(self.run, read_state(self.run))

        self.hah.in_background(self, read, self._know, lambda error: setattr(self, "unknown", str(error)))

    def _know(self, experiment: Experiment) -> None:
        self.experiment, self.hah_blocks = experiment, experiment.model.hah_blocks
        self.redraw()

    def read(self, source: Source, log: bool = False) -> None:
        super().read(source, log or (source is self.source and self.query_one(Feed).engine_log))

    def frame(self) -> None:
        now = time.monotonic()
        passed, self._framed_at = now - self._framed_at if self._framed_at else 0.0, now
        if self.playback is not None:
            self._play(self.playback, passed)
        super().frame()

    def idle(self) -> set[str]:
        look = self.source.look
        found = {"replay_faster", "replay_slower"} if self.playback is None else set[str]()
        found |= {"remove_panel"} if self.current not in self._of else set()
        if look is None or self.source.gone:
            gone = {"set", "resume", "stop", "pause", "hand_over"} if self.source.gone else set[str]()
            return found | {"replay"} | gone
        if look.live:
            found |= {"replay"} if look.status == "queued" else {"replay", "hand_over"}
            return found | ({"pause"} if look.status == "paused" else {"resume"})
        ended = {"set", "resume", "hand_over"} if look.status == "finished" else set[str]()
        return found | {"stop", "pause"} | ended

    def _draw_head(self) -> None:
        if (idle := self.idle()) != self._idle:
            self._idle = idle
            self.refresh_bindings()
        width = self.size.width
        rows = self._head_rows(width)
        head = self.query_one("#head", Canvas)
        if (len(rows) == 3) != head.has_class("three"):
            head.set_class(len(rows) == 3, "three")
            self.call_after_refresh(self.lay_out)
        head.show(rows)

    def _head_rows(self, width: int) -> list[canvas.InkedRow]:
        look, plain = self.source.look, self.hah.plain
        if look is None or self.source.gone:
            said = "its directory is gone; what was read stays" if self.source.gone else "reading"
            return [
                canvas.row((f" {self.run.id}  ", STRONG), (said, canvas.WAITING), width=width),
                canvas.row(width=width),
            ]
        state, status = look.state, look.status
        ink = canvas.INKS[MARKS.get(status, ("", "", "quiet"))[2]]
        metrics = state.metrics
        right: list[tuple[str, int]] = []
        if self.playback is None:
            gpu = metrics.get("gpu/memory_gib")
            facts = [
                shown_line(look.device, 32),
                f"{state.images_per_second:,.0f} images/s" if state.images_per_second else "",
                f"{gpu:.1f} GiB" if gpu is not None else "",
                f"{100 * metrics['gpu/utilisation']:.0f}% busy" if "gpu/utilisation" in metrics else "",
            ]
            said = "  ".join(fact for fact in facts if fact)
            right = [(said + " ", TEXT)] if width - len(said) > len(self.run.id) + 24 else []
        left = [(f" {mark(status, plain)} ", ink), (self.run.id, STRONG), (f"  {status}", ink)]
        if not look.verified:
            left.append(("?", ink))
        if look.live and state.phase and width >= 70:
            left.append((f" {shown_line(state.phase, 12)}", QUIET))
        if self.source.curves.step and not self.source.loaded:
            left.append(("  reading", canvas.WAITING))
        rows = [canvas.row(*left, width=width, right=right), self._progress_row(width, ink)]
        why = state.error if status == "failed" else look.why
        if status == "queued":
            why = slurm_line(look) or why
        if self.playback is not None:
            word = "over" if self.playback.over else "playing" if self.playback.playing else "held"
            said = f" replay {word}, {self.playback.speed:g} times as fast; space holds, > < change the speed, esc ends"
            rows.append(canvas.row((said, canvas.MARK), width=width))
        elif status == "lost" and not look.awaited:
            said = "its engine is gone without a word; r resumes" if width >= 48 else "its engine is gone; r resumes"
            rows.append(canvas.row((f" {said}", ink), width=width))
        elif why:
            again = "" if "resume" in why or look.live or look.awaited or status == "finished" else "; r resumes"
            text = shown_line(why.replace("'hah resume'", "r"), 400) + again
            rows.append(canvas.row((f" {text}", ink), width=width))
        elif status == "stopped":
            rows.append(canvas.row((" saved and stopped; r goes on exactly there", QUIET), width=width))
        elif look.slurm is not None and self.size.height >= 20:
            rows.append(canvas.row((f" {shown_line(slurm_line(look), 400)}", QUIET), width=width))
        return rows

    def _progress_row(self, width: int, ink: int) -> canvas.InkedRow:
        look, curves = self.source.look, self.curves
        assert look is not None
        state, plain = look.state, self.hah.plain
        replayed = self.playback is not None
        step = curves.step if replayed else state.step
        epoch = curves.epoch if replayed else state.epoch
        done = min(1.0, step / state.steps) if state.steps else 0.0
        said = f" {100 * done:3.0f}%  epoch {epoch}/{state.epochs}"
        if width >= 64:
            said += f"  step {step:,}/{state.steps:,}"
        if not replayed and look.live and state.eta_seconds is not None:
            said += f"  ETA {duration(state.eta_seconds)}"
        trained = curves.seconds.last if replayed and len(curves.seconds) else state.trained_seconds
        if width >= 56 and trained:
            said += f"  trained {duration(trained)}"
        room = max(4, min(48, width - len(said) - 2))
        return canvas.row((" ", 0), (bar(done, room, plain), ink), (said, TEXT), width=width)

    # Replay

    def action_replay(self) -> None:
        if self.playback is not None and not self.playback.over:
            self.playback.playing = not self.playback.playing
        elif not self.source.ended:
            self.hah.say("a replay needs a run that has ended and been read", "warning")
            return
        else:
            self.playback = Replay(self.run, self.source.curves)
            self.view.cursor = None
        self.changed()

    def _play(self, playback: Replay, seconds: float) -> None:
        if playback.hungry and not self._reading_replay:
            self._reading_replay = True

            def fed(events: list[Event]) -> None:
                self._reading_replay = False
                playback.feed(events)

            self.hah.in_background(self, playback.read, fed)
        if playback.play(seconds):
            self.changed()

    def action_replay_faster(self) -> None:
        self._replay_speed(2.0)

    def action_replay_slower(self) -> None:
        self._replay_speed(0.5)

    def _replay_speed(self, factor: float) -> None:
        if self.playback is not None:
            self.playback.speed = min(max(self.playback.speed * factor, 1 / 16), 2.0**20)
            self.changed()

    def action_back(self) -> None:
        if self.playback is not None and not self.full:
            self.playback = None
            self.redraw()
        else:
            super().action_back()

    # The feed

    def action_engine_log(self) -> None:
        feed = self.query_one(Feed)
        feed.engine_log, feed.back = not feed.engine_log, 0
        if feed.engine_log:
            self.read(self.source)
        self.changed()

    # What is asked of the engine

    def target(self) -> Look | None:
        if self.source.look is None:
            self.hah.say(f"{self.run.id} is not read yet", "warning")
        return self.source.look

    def action_resume(self) -> None:
        look = self.source.look
        if look is not None and look.status == "finished":
            self.action_extend()
        else:
            super().action_resume()

    def acted(self) -> None:
        self.playback = None  # a run that goes on is watched
        self.redraw()

    def action_set(self) -> None:
        look, experiment = self.source.look, self.experiment
        if look is None or look.status == "finished":
            self.hah.say(f"no engine runs {self.run.id}: nothing to set", "warning")
            return
        if experiment is None:
            self.hah.say(f"its experiment: {self.unknown}", "warning")
            return
        self.app.push_screen(SetDialog(self.run, experiment, look.live), self._set if look.live else self._resume_with)

    def _resume_with(self, assignment: str | None) -> None:
        look = self.source.look
        if assignment is not None and look is not None:
            from engine.experiment.document import assigned

            with_it = partial(go_on, self.hah, sets=dict([assigned(assignment)]))
            self._each("resume", with_it, "goes on", [look])

    def _set(self, assignment: str | None) -> None:
        if assignment is None:
            return

        def done(answer: tuple[str, object, Experiment]) -> None:
            self.hah.say("; ".join([f"{answer[0]} is {answer[1]}", *answer[2].idle()]))
            if self.hah.holds(self):
                self._learn()

        self.hah.in_background(self.hah, lambda: engines.change(self.run, assignment), done)

    # Other things to look at

    def action_manifest(self) -> None:
        def read() -> str:
            state = read_state(self.run)
            facts = manifest.read(self.run)
            if isinstance(created := facts.get("created"), int | float):
                facts["created"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created))
            parts = [_listed(facts), ""]
            if state.changed:
                parts += ["changed since: " + ", ".join(f"{k}={v}" for k, v in state.changed.items()), ""]
            try:
                parts.append(disk.read_text(self.run.config))
            except OSError as error:
                parts.append(f"config.yaml cannot be read: {error.strerror}")
            return "\n".join(parts)

        def show(text: str) -> None:
            self.hah.tell(f"Manifest of {self.run.id}", text)

        self.hah.in_background(self, read, show, awaited=True)


def _listed(document: dict[str, object], indent: str = "") -> str:
    """Nested plain data, a line each."""
    lines = []
    for name, value in document.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", _listed(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name:<14} {value if isinstance(value, str) else json.dumps(value)}")
    return shown("\n".join(lines), 20_000)
