"""Follow a run from its directory: live panels on a terminal, plain lines in a pipe."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Protocol

from engine.runs import control, launch
from engine.runs.events import Event, Tail
from engine.runs.layout import RunDirectory
from engine.runs.metrics import CLEAN, CROSS_ENTROPY, HAH_COST, LOSS, METRICS, NOISY, SNR, SPARSITY, TRAIN_ACCURACY
from engine.runs.squeue import Poll
from engine.runs.state import State, read_state
from engine.runs.submitted import told
from engine.runs.watcher import Look, Watcher
from hah_tui.cli.output import discard, is_terminal, note, note_allocation, print_json
from hah_tui.event_line import event_line, named, per_block
from hah_tui.text import duration, shown_line

if TYPE_CHECKING:
    from rich.console import RenderableType

FRAME_SECONDS = 0.25
EXIT_CODES = {"finished": 0, "failed": 1, "lost": 1, "stopped": 130, "queued": 1}  # queued: for a job that is gone


def follow(
    run: RunDirectory,
    interrupt: Callable[[], None] | None = None,
    quiet: bool = False,
    tail: Tail | None = None,
) -> Look:
    """Show a run, from what it has recorded so far (or from ``tail`` on), until it or the job of Slurm that it waits
    for has ended; the last look at it.

    ``interrupt`` is called for the first Ctrl-C, which is raised where there is none. ``quiet``: show nothing.
    """
    watcher, tail, slurm = Watcher(run), tail or Tail(run.events), Poll()
    display = _Nothing() if quiet else _Panels(run) if is_terminal() else _Lines(run)
    with ExitStack() as stack:
        stack.enter_context(display)
        abandoned = False
        while True:
            try:
                look = told([watcher.look()], slurm.now)[0]
                # Once more: its directory was read before Slurm was asked, and the job may have begun it since.
                ended = (abandoned and look.abandoned) or (not look.live and not look.taken)
                abandoned = look.abandoned
                for event in tail if ended else tail.read():
                    display.event(event)
                display.look(look)
                if ended:
                    sys.stdout.flush()
                    return look
                time.sleep(FRAME_SECONDS)
            except KeyboardInterrupt:
                if interrupt is None:
                    raise
                interrupt()
                interrupt = None
            except BrokenPipeError:  # nobody reads on, but how the run ends is still this command's answer
                discard()
                display = _Nothing()


def stay(
    run: RunDirectory, process: subprocess.Popen[bytes], detach: bool, json: bool, tail: Tail | None = None
) -> Look | None:
    """Wait until an engine has begun and stay with it to its end, as `accompany`; ``detach``: leave it to itself then,
    None. Ctrl-C while it starts asks it to stop too: what nobody waits for shall not train unseen."""
    asked = False
    warned: list[str] = []
    try:
        warned = launch.await_start(run, process)
    except KeyboardInterrupt:
        asked = True
        _ask_to_stop(run)
    if asked or not detach:
        return accompany(run, json, tail, asked)
    note_allocation()
    for text in warned:  # in the foreground they are followed with everything else
        note(shown_line(text))
    if json:
        print_json({"id": run.id, "path": str(run.path)})
    else:
        print(f"{run.id} runs in the background; follow it with: hah watch {run.id}")
    return None


def accompany(run: RunDirectory, json: bool, tail: Tail | None = None, asked: bool = False) -> Look:
    """Follow a run of this command to its end; the first Ctrl-C asks it to stop, unless it was ``asked`` already."""
    look = follow(run, None if asked else partial(_ask_to_stop, run), json, tail)
    if not json:
        print(outcome(look))
    return look


def _ask_to_stop(run: RunDirectory) -> None:
    note("saving and stopping (Ctrl-C again leaves it to itself)")
    try:
        control.send(run, "stop")
    except OSError as full:
        note(f"{shown_line(run.control)}: {full.strerror}; end process {read_state(run).engine.get('pid')} by a signal")


def outcome(look: Look) -> str:
    """How a run ended, in one line, and how it goes on."""
    state = look.state
    if look.abandoned:
        return f"{look.run.id} waits in vain: {shown_line(look.why)}"
    if state.kind != "training":
        suites = f"{state.suite} of {state.suites} suites done" if state.suites else f"{state.piece:,} pieces done"
        again = (
            "the same 'hah eval' continues" if state.kind == "evaluation" else f"'hah resume {look.run.id}' continues"
        )
        return {
            "finished": f"{look.run.id} finished: {look.run.path.parent}",
            "failed": f"{look.run.id} failed: {shown_line(state.error, 500)}; {suites}, {again}",
        }.get(look.status, f"{look.run.id} is {look.status}: {suites}, {again}")
    where = f"after epoch {state.epoch} of {state.epochs}, step {state.step}"
    resume = f"continue with: hah resume {look.run.id}"
    match look.status:
        case "finished":
            clean, noisy = (METRICS[name].said(state.metrics.get(name)) for name in (CLEAN, NOISY))
            return f"{look.run.id} finished: clean {clean}, noisy {noisy}; {look.run.path}"
        case "stopped":
            by = f" by a {state.stopped_by}" if state.stopped_by in ("signal", "limit") else ""
            return f"{look.run.id} stopped{by} {where}; {resume}"
        case "failed":
            return f"{look.run.id} failed {where}: {shown_line(state.error, 500)}; {resume}"
        case _:
            return f"{look.run.id} is {look.status} {where}: {shown_line(look.why)}; {resume}"


class _Display(Protocol):
    def __enter__(self) -> _Display: ...
    def __exit__(self, *error: object) -> None: ...
    def event(self, event: Event) -> None: ...
    def look(self, look: Look) -> None: ...


class _Nothing:
    """Shows nothing."""

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def event(self, event: Event) -> None:
        pass

    def look(self, look: Look) -> None:
        pass


class _Lines(_Nothing):
    """One plain line for everything worth a line."""

    def __init__(self, run: RunDirectory) -> None:
        self._run, self._said, self._epochs = run, ("", ""), 0

    def event(self, event: Event) -> None:
        text = event_line(event, self._epochs)
        if text:
            print(text, flush=True)

    def look(self, look: Look) -> None:
        self._epochs = look.state.epochs
        said = look.status, "" if look.live and look.status != "queued" else shown_line(look.why)
        if said != self._said and (look.live or look.awaited):
            reason = f" ({shown_line(look.why)})" if look.why else ""
            print(f"{self._run.id} {look.status}{reason}", flush=True)
        self._said = said


class _Panels:
    """A panel that is redrawn in place, and lines above it for what should stay readable."""

    def __init__(self, run: RunDirectory) -> None:
        from rich.console import Console
        from rich.live import Live

        self._run = run
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False)

    def __enter__(self) -> _Display:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def event(self, event: Event) -> None:
        if event["kind"] in ("engine", "warning", "set", "position", "failed", "suite", "result", "already"):
            self._console.print(event_line(event, 0), markup=False)

    def look(self, look: Look) -> None:
        self._live.update(panel(look), refresh=True)


def panel(look: Look) -> RenderableType:
    """The present state of a run as a rich renderable of seven lines."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    state, metrics = look.state, look.state.metrics
    colour = {"running": "green", "finished": "green", "failed": "red", "lost": "red"}.get(look.status, "yellow")
    head = Text.assemble(
        (look.run.id, "bold"),
        "  ",
        (look.status, colour),
        f"  {shown_line(state.phase, 20)}",
        f"  {shown_line(state.device, 40)}",
        f"  {_position(state)}",
        f"  {shown_line(look.why)}",
        overflow="ellipsis",
        no_wrap=True,
    )
    rate = f"{state.images_per_second:,.0f} images/s" if state.images_per_second else ""
    bar = Table.grid(padding=(0, 2))
    done = state.progress
    bar.add_row(
        ProgressBar(total=1, completed=done, width=40),
        f"{100 * done:3.0f}%",
        rate,
        f"ETA {duration(state.eta_seconds)}",
    )
    if state.kind != "training":
        return Group(head, bar)
    loss = "   ".join(named((LOSS, CROSS_ENTROPY, HAH_COST), metrics))
    accuracy = "   ".join(("accuracy", *named((TRAIN_ACCURACY, CLEAN, NOISY), metrics)))
    sparsity, snr = per_block(metrics, SPARSITY), per_block(metrics, SNR)
    blocks = Table.grid(padding=(0, 1))
    blocks.add_column(justify="left")
    for _ in sparsity:
        blocks.add_column(justify="right", min_width=4)
    if sparsity:
        blocks.add_row("block", *map(str, range(1, len(sparsity) + 1)), style="dim")
        blocks.add_row(METRICS[SPARSITY].label, *(f"{value:.2f}" for value in sparsity))
        blocks.add_row(METRICS[SNR].label, *(f"{value:.1f}"[:4] for value in snr))
    return Group(head, bar, Text(loss), Text(accuracy), blocks)


def _position(state: State) -> str:
    if state.kind != "training":
        suites = f"suite {min(state.suite + 1, state.suites)}/{state.suites}  " if state.suites else ""
        processes = f"  {state.processes} processes" if state.processes > 1 else ""
        return f"{suites}piece {state.piece:,}/{state.pieces:,}{processes}"
    return f"epoch {min(state.epoch + 1, state.epochs)}/{state.epochs}  step {state.step:,}/{state.steps:,}"
