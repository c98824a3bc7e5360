"""What the monitor and the comparison share: panels of charts, arranged for the room there is, and their keys."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar
from weakref import WeakKeyDictionary

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize

from engine.runs import store
from engine.runs.layout import RunDirectory
from hah_tui.base import Page
from hah_tui.curves import Curves, Reading, Source
from hah_tui.screens.dialogs import PickRun
from hah_tui.widgets import picture
from hah_tui.widgets.bars import Bars
from hah_tui.widgets.canvas import Canvas
from hah_tui.widgets.changed_cells import send_changed_cells
from hah_tui.widgets.chart import AXES, SMOOTHING, Axis, Chart, ChartLine, View, position, window
from hah_tui.widgets.feed import Lines
from hah_tui.widgets.key_bar import KeyBar

LOADING_SECONDS = 1.0  # between two pictures while what was there is read: they would take the time from reading
SECONDS_PER_RUN = 0.085  # that each further run adds between two pictures
REFERENCE_SECONDS = 5.0  # between two looks at a reference run
LEAST = (36, 6)  # cells a panel needs
ASPECT = 3.6  # columns over rows of the best panel


def arrange(width: int, height: int, count: int) -> tuple[int, int]:
    """(columns, rows) of panels for so many cells; where not all of ``count`` have room, for as many as have."""
    most_columns = max(1, min(3, (width + 1) // LEAST[0]))
    most_rows = max(1, height // LEAST[1])
    shapes = [(columns, -(-count // columns)) for columns in range(1, min(most_columns, count) + 1)]
    fitting = [(columns, rows) for columns, rows in shapes if rows <= most_rows]

    def odd(shape: tuple[int, int]) -> float:  # how far a panel is from the shape curves look best in
        return abs(math.log((width / shape[0]) / (height / shape[1]) / ASPECT))

    return min(fitting, key=odd) if fitting else (most_columns, most_rows)


class PanelScreen(Page):
    """Panels by number, one of them current; the cursor, the axis and the running mean are common to all charts."""

    DEFAULT_CSS = """
    PanelScreen { layout: vertical; background: $background; }
    PanelScreen #head { height: 2; background: $panel; }
    PanelScreen #head.three { height: 3; }
    PanelScreen #panels { layout: grid; height: 1fr; grid-gutter: 0 1; }
    PanelScreen #panels.roomy { grid-gutter: 1 2; padding: 0 1; }
    PanelScreen .panel { background: $surface; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", show=False)]  # ours, before the app's
    IDLE_SECONDS = 1.0  # between two looks at a run that has ended
    PRIORITY: tuple[str, ...] = ()  # ids of panels, the most important first, where not all have room
    LOW: tuple[str, ...] = ()  # ids of panels that need less height, where they have a row to themselves

    def __init__(self) -> None:
        super().__init__()
        send_changed_cells(self)
        self.view = View()
        self.axis: Axis = "step"  # that is wanted; there are no epochs before the first has ended
        self.wanted: dict[str, bool] = {}  # by id: whether a panel is wanted
        self.current = ""
        self.full = False
        self.stale = True  # something that all charts share has changed
        self.dirty = True  # there is something new to draw
        self.reference: Source | None = None
        self._reading: set[Source] = set()
        self._read_at = WeakKeyDictionary[Source, float]()
        self._drawn_at = -math.inf
        self._arranged: object = None

    # For the subclasses

    def panels(self) -> Sequence[Canvas]:
        """The panels, in the order of their digits."""
        raise NotImplementedError

    def first(self) -> Sequence[str]:
        """Ids of panels that have room before any other."""
        return ()

    def sources(self) -> list[Source]:
        """The runs in front."""
        raise NotImplementedError

    def refill(self) -> None:
        """Give every chart its lines, and draw the panels that are no charts."""
        raise NotImplementedError

    def subject(self) -> str:
        """What files that are written from here are called after."""
        raise NotImplementedError

    def prepare(self) -> None:
        """What else is to be done as it opens (Textual calls every class's `on_mount`, without `super`)."""

    # What is on the screen

    def all_sources(self) -> list[Source]:
        """The runs in front, and the reference behind them."""
        return self.sources() if self.reference is None else [*self.sources(), self.reference]

    def all_curves(self) -> list[Curves]:
        """The curves of all of them."""
        return [source.curves for source in self.all_sources()]

    @property
    def loaded(self) -> bool:
        """Whether all that there was of the runs in front has been read once."""
        return all(source.loaded or source.gone for source in self.sources())

    def metrics(self, chart: Chart) -> list[tuple[str, str, ChartLine]]:
        """(run, metric, line) of a chart."""
        found = []
        for line in chart.lines:
            behind = line.reference and self.reference is not None
            owners = [self.reference] if behind else self.sources()
            run = next((one.run.id for one in owners if one is not None and one.curves is line.curves), self.subject())
            found += [(run, name, line) for name, series in line.curves.series.items() if series is line.series]
        return found

    def changed(self) -> None:
        """Something is to be drawn with the next frame; charts whose series are as they were draw nothing."""
        self.dirty = True

    # Reading

    @property
    def pace(self) -> float:
        """Seconds between two looks at a run that lives and two pictures of it: one run at the full rate, thirteen once
        a second; what a key asks for is drawn at once."""
        return SECONDS_PER_RUN * (len(self.sources()) - 1)

    def read_when_due(self) -> None:
        """Ask for what is new: of a run in front always, now and then once it has ended; of the reference now and then,
        until it has ended."""
        now = time.monotonic()
        for source in self.all_sources():
            waited = now - self._read_at.get(source, 0.0)
            if source is not self.reference:
                due = waited >= (self.IDLE_SECONDS if source.ended else self.pace)
            else:
                due = not source.ended and (not source.loaded or waited >= REFERENCE_SECONDS)
            if due:
                self.read(source)

    def read(self, source: Source, log: bool = False) -> None:
        """Ask for what is new of a run, unless that is on its way; ``log``: and for its engine's words."""
        if source not in self._reading:
            self._reading.add(source)
            self._read_at[source] = time.monotonic()
            work, done = partial(source.read, log), partial(self._took, source)
            self.hah.in_background(self, work, done, lambda _: self._reading.discard(source))

    def _took(self, source: Source, reading: Reading) -> None:
        self._reading.discard(source)
        if source not in self.all_sources():
            return
        loaded = source.loaded
        if source.take(reading):
            self.changed()
        if source.loaded and not loaded and self.loaded:
            self.stale = True
            self.paint()  # at once: this is what was waited for
        if source is not self.reference:
            if reading.more:
                self.read(source)
        elif source.gone:
            self.reference = None
            self.hah.say(f"the reference run {source.run.id} is gone", "warning")

    # The reference

    def take_reference(self, name: str) -> None:
        """Draw another run of the folder behind these, or none ('')."""
        runs = [source.run for source in self.sources()]
        known = bool(name) and name not in [run.id for run in runs]
        self.reference = Source(RunDirectory(runs[0].path.with_name(name))) if known else None
        self.redraw()

    def action_reference(self) -> None:
        runs = [source.run for source in self.sources()]

        def list_runs() -> list[str]:
            here = {run.id for run in runs}
            return [run.id for run in store.all_runs(runs[0].path.parent) if run.id not in here]

        def picked(name: str | None) -> None:
            if name is not None:
                self.take_reference(name)

        def ask(names: list[str]) -> None:
            now = self.reference.run.id if self.reference is not None else ""
            title = "A run to draw behind this one" if len(runs) == 1 else "A run to draw behind these"
            self.hah.ask(self, PickRun(title, names, now), picked)

        self.hah.in_background(self, list_runs, ask, awaited=True)

    # Layout

    def compose(self) -> ComposeResult:
        self._recall()
        yield Canvas(id="head")
        with Container(id="panels"):
            for panel in self.panels():
                panel.add_class("panel")
                yield panel
        yield KeyBar(self.PLACE)

    def _recall(self) -> None:
        """What was chosen the last time: the axis, the running mean, which panels there are and how they are drawn."""
        kept = self.hah.settings
        self.axis = next(axis for axis in AXES if axis == kept.axis)
        self.view.smooth = kept.smoothing
        for panel in self.panels():
            words = kept.panels.get(f"{self.PLACE}/{panel.id}", "").split()
            self.wanted[str(panel.id)] = "hidden" not in words
            if isinstance(panel, Chart):
                panel.log_y = "log" in words
            if isinstance(panel, Bars):
                panel.as_curves = "curves" in words
        if not any(self.wanted.values()):
            self.wanted = dict.fromkeys(self.wanted, True)
        self.current = next(name for name, wanted in self.wanted.items() if wanted)

    def keep(self) -> None:
        """Keep it for the next time."""
        chosen = dict(self.hah.settings.panels)
        for panel in self.panels():
            words = ["hidden"] * (not self.wanted[str(panel.id)])
            words += ["log"] * (isinstance(panel, Chart) and panel.log_y)
            words += ["curves"] * (isinstance(panel, Bars) and panel.as_curves)
            chosen[f"{self.PLACE}/{panel.id}"] = " ".join(words)
        chosen = {name: words for name, words in chosen.items() if words}
        self.hah.change(axis=self.axis, smoothing=self.view.smooth, panels=chosen)

    def on_mount(self) -> None:
        self.set_interval(1 / self.hah.settings.frames_per_second, self.frame)
        self.paint_late()
        self.lay_out()
        self.prepare()
        self.frame()

    def frame(self) -> None:
        """Ask for what is new, and draw it; called at a fixed rate."""
        self.read_when_due()
        due = time.monotonic() - self._drawn_at >= (self.pace if self.loaded else LOADING_SECONDS)
        if (self.dirty or self.stale) and self.seen and due:
            self.draw()

    def on_resize(self, event: Resize) -> None:
        self.lay_out()

    def lay_out(self) -> None:
        """Show the panels that have room, the current one among them."""
        if not self.hah.holds(self) or not self.size.width:
            return
        box = self.query_one("#panels")
        head = self.query_one("#head").styles.height
        assert head is not None
        height = self.size.height - 1 - head.value
        wanted = [str(panel.id) for panel in self.panels() if self.wanted[str(panel.id)]]
        if self.current not in wanted:
            self.current = wanted[0]
        columns, rows = (1, 1) if self.full else arrange(self.size.width, int(height), len(wanted))
        if self.full:
            chosen = [self.current]
        else:
            ranked = sorted(wanted, key=[*self.first(), *self.PRIORITY, *wanted].index)
            chosen = ranked[: columns * rows]
            if self.current not in chosen:
                chosen[-1] = self.current
            chosen = [name for name in wanted if name in chosen]
        roomy = height / rows >= 10 and self.size.width >= 100
        low = roomy and rows > 1 and chosen[-1] in self.LOW and len(chosen) % columns == 1 % columns
        arranged = columns, rows, roomy, low, tuple(chosen), len(self.panels())
        if arranged != self._arranged:  # styles that are set again are laid out and painted again
            self._arranged = arranged
            box.set_class(roomy, "roomy")
            box.styles.grid_size_columns, box.styles.grid_size_rows = columns, rows
            box.styles.grid_rows = " ".join(["2fr"] * (rows - 1) + ["1fr" if low else "2fr"])
            rest = columns * rows - len(chosen) if len(chosen) > columns * (rows - 1) else 0
            for panel in self.panels():
                panel.display = str(panel.id) in chosen
                panel.styles.column_span = 1 + rest * (panel.id == chosen[-1])
        self.query_one(f"#{self.current}").focus(scroll_visible=False)
        self.redraw()

    def redraw(self) -> None:
        """Draw everything again."""
        self.stale = True
        if self.hah.holds(self):
            self.call_after_refresh(self.draw)

    def before_paint(self) -> None:
        if self.stale or self.dirty:
            self.draw()

    def draw(self) -> None:
        """Bring every panel up to date, unless nothing is to be painted yet."""
        if self.late or not self.hah.holds(self):
            return
        self._drawn_at = time.monotonic()
        epochs = self.axis != "epoch" or any(curves.steps_per_epoch for curves in self.all_curves())
        self.view.axis = self.axis if epochs else "step"
        self.refill()
        front = [source.curves for source in self.sources()]
        x = window(self.view, front if any(curves.step for curves in front) else self.all_curves())
        for panel in self.panels():
            if isinstance(panel, Chart) and panel.display:
                panel.draw(self.view, x, force=self.stale)
        self.stale = self.dirty = False

    def charts(self) -> list[Chart]:
        """The panels that are charts."""
        return [panel for panel in self.panels() if isinstance(panel, Chart)]

    @property
    def chart(self) -> Chart | None:
        """The current panel, if it is a chart."""
        panel = self.query_one(f"#{self.current}")
        return panel if isinstance(panel, Chart) else None

    def on_descendant_focus(self) -> None:
        if self.focused is not None and self.focused.id in self.wanted:
            self.current = self.focused.id

    # Keys

    def action_next_panel(self) -> None:
        self._step(1)

    def action_previous_panel(self) -> None:
        self._step(-1)

    def _step(self, by: int) -> None:
        names = [name for name, on in self.wanted.items() if on]
        self.current = names[(names.index(self.current) + by) % len(names)]
        if self.full or not self.query_one(f"#{self.current}").display:
            self.lay_out()
        else:
            self.query_one(f"#{self.current}").focus(scroll_visible=False)

    def action_toggle_panel(self, digit: str) -> None:
        names = list(self.wanted)
        if int(digit) > len(names):
            return
        name = names[int(digit) - 1]
        alone = self.full or sum(panel.display for panel in self.panels()) == 1 < sum(self.wanted.values())
        if alone:  # one at a time: the digit goes there
            self.wanted[name], self.current = True, name
        elif sum(self.wanted.values()) > 1 or not self.wanted[name]:
            shown = self.query_one(f"#{name}").display
            self.wanted[name] = not (self.wanted[name] and shown)
            self.current = name if self.wanted[name] else self.current
        self.keep()
        self.lay_out()

    def action_full_screen(self) -> None:
        self.full = not self.full
        self.lay_out()

    def action_back(self) -> None:
        """Out of what was opened last: a panel alone, the cursor, the zoom; then out of the screen."""
        if self.full:
            self.action_full_screen()
        elif self.view.cursor is not None or self.view.zoom or any(chart.zoom_y for chart in self.charts()):
            self.view.cursor, self.view.zoom = None, 0
            for chart in self.charts():
                chart.zoom_y, chart.y = 0, chart.y if not chart.zoom_y else None
            self.redraw()
        else:
            self.hah.pop_screen()

    def action_smooth_more(self) -> None:
        self._smooth(1)

    def action_smooth_less(self) -> None:
        self._smooth(-1)

    def _smooth(self, by: int) -> None:
        self.view.smooth = min(max(self.view.smooth + by, 0), len(SMOOTHING) - 1)
        self.keep()
        self.redraw()

    def action_log_y(self) -> None:
        chart = self.chart
        if chart is None or (isinstance(chart, Bars) and not chart.as_curves):
            self.hah.say(f"{self._heading} has no curves: tab goes to another panel, Y changes all", "warning")
            return
        self._log([chart], not chart.log_y, chart.heading)

    def action_all_log_y(self) -> None:
        charts = self.charts()
        self._log(charts, not all(chart.log_y for chart in charts), "all panels")

    def _log(self, charts: Sequence[Chart], log: bool, what: str) -> None:
        for chart in charts:
            chart.log_y, chart.y = log, None
        more = "" if len(charts) > 1 else "; Y changes all"
        self.hah.say(f"{what}: {'logarithmic' if log else 'linear'} scale{more}")
        self.keep()
        self.redraw()

    def action_x_axis(self) -> None:
        self.axis = AXES[(AXES.index(self.view.axis) + 1) % len(AXES)]
        if self.axis == "epoch" and not any(curves.steps_per_epoch for curves in self.all_curves()):
            self.axis = "time"  # nobody has come to the end of an epoch
        self.keep()
        self.redraw()

    def action_block_curves(self) -> None:
        chart = self.chart
        if isinstance(chart, Bars):
            self._curves([chart], not chart.as_curves, chart.heading)
        else:
            self.hah.say(f"{self._heading} has no blocks: tab goes to another panel, B changes all", "warning")

    def action_all_block_curves(self) -> None:
        bars = [panel for panel in self.panels() if isinstance(panel, Bars)]
        self._curves(bars, not all(panel.as_curves for panel in bars), "all panels of blocks")

    def _curves(self, panels: Sequence[Bars], curves: bool, what: str) -> None:
        for panel in panels:
            panel.as_curves, panel.y = curves, None
        self.hah.say(f"{what}: {'curves' if curves else 'bars'}{'' if len(panels) > 1 else '; B changes all'}")
        self.keep()
        self.redraw()

    @property
    def _heading(self) -> str:
        """What the current panel is called."""
        return str(getattr(self.query_one(f"#{self.current}"), "heading", self.current))

    def action_zoom_y_in(self) -> None:
        self._zoom_y(1)

    def action_zoom_y_out(self) -> None:
        self._zoom_y(-1)

    def _zoom_y(self, by: int) -> None:
        chart = self.chart
        if chart is not None:
            chart.zoom_y, chart.y = min(max(chart.zoom_y + by, 0), 8), None
            self.redraw()

    def action_cursor_left(self) -> None:
        self._move(-1)

    def action_cursor_right(self) -> None:
        self._move(1)

    def _move(self, cells: int) -> None:
        charts = [panel for panel in self.panels() if isinstance(panel, Chart) and panel.display]
        first = [self.chart] if self.chart is not None else []
        for chart in [*first, *charts]:  # bars have no axis to move along
            cursor = chart.moved(self.view.cursor, cells)
            if cursor is not None:
                self.view.cursor = cursor
                break
        else:
            step = max(1, max((curves.step for curves in self.all_curves()), default=1) // 100)
            last = float(self.all_curves()[0].step)
            self.view.cursor = min(
                max((last if self.view.cursor is None else self.view.cursor) + cells * step, 0), last
            )
        self.redraw()

    def action_earlier(self) -> None:
        self._scroll(5)

    def action_later(self) -> None:
        self._scroll(-5)

    def _scroll(self, back: int) -> None:
        """Scroll the current panel, else the last one that has lines."""
        listed = [panel for panel in self.panels() if isinstance(panel, Lines) and panel.display]
        chosen = [panel for panel in listed if panel.id == self.current] or listed[-1:]
        for panel in chosen:
            panel.scroll_lines(back)

    def action_zoom_in(self) -> None:
        self._zoom(1)

    def action_zoom_out(self) -> None:
        self._zoom(-1)

    def _zoom(self, by: int) -> None:
        whole = window(View(self.view.axis, ends=self.view.ends, total=self.view.total), self.all_curves())
        if self.view.cursor is not None and self.all_curves():
            curves = self.all_curves()[0]
            self.view.centre = min(max(whole.fraction(position(self.view.axis, curves, self.view.cursor)), 0.0), 1.0)
        elif not self.view.zoom:
            self.view.centre = 1.0
        self.view.zoom = min(max(self.view.zoom + by, 0), 8)
        self.redraw()

    @on(Chart.Pointed)
    def _pointed(self, event: Chart.Pointed) -> None:
        self.view.cursor = event.step
        self.redraw()

    @on(Chart.Opened)
    def _opened(self, event: Chart.Opened) -> None:
        self.current = str(event.chart.id)
        self.action_full_screen()

    def action_export_csv(self) -> None:
        if self.chart is not None:
            self._write(self.chart, ".csv", picture.as_csv(self.metrics(self.chart), self.view))

    def action_export_svg(self) -> None:
        chart = self.chart
        if chart is not None:
            x = window(self.view, self.all_curves())
            title = f"{chart.heading}: {self.subject()}"
            picture_ = picture.as_svg(chart, self.view, x, title, self.hah.curve_colours, self.app.current_theme.dark)
            self._write(chart, ".svg", picture_)

    def _write(self, chart: Chart, suffix: str, text: str) -> None:
        name = f"{self.subject()}-{chart.id}"

        def write() -> Path:
            path = picture.free_path(Path.cwd(), name, suffix)
            path.write_text(text, encoding="utf-8")
            return path

        self.hah.in_background(self.hah, write, lambda path: self.hah.say(f"saved {path}"))
