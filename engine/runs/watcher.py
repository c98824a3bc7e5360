"""What a reader may conclude of a run: its snapshot, whether its engine lives, and whether that is certain."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path

from engine.runs import claims
from engine.runs.layout import RunDirectory
from engine.runs.mounts import mount_of
from engine.runs.process import (
    PATIENCE,
    Beat,
    boot_id,
    heartbeat_of,
    holder_of,
    is_here,
    is_locked,
    process_state,
)
from engine.runs.squeue import JobNow
from engine.runs.state import ENDED, LIVE, State, read_state, recovered

GONE_AFTER = 5.0  # seconds without a sign of life after which a free lock is believed from another host


@dataclass(frozen=True)
class Look:
    """A run as a reader sees it now: its snapshot, what its status really is, and whether that is certain."""

    run: RunDirectory
    state: State
    status: str
    verified: bool = True
    reason: str = ""
    deaf: bool = False  # nobody is there to answer, though its lock is held
    slurm: JobNow | None = None  # its job, where somebody asked Slurm of it

    @property
    def live(self) -> bool:
        """Whether an engine works on it, as far as can be known."""
        return self.status in LIVE

    @property
    def elsewhere(self) -> str:
        """The host that its engine is or was on, where that is another one than this; else ''."""
        host = str(self.state.engine.get("host", ""))
        return "" if host == socket.gethostname() else host

    @property
    def device(self) -> str:
        """What it runs on, with its host where it is at work on another one."""
        return f"{self.state.device} on {self.elsewhere}".strip() if self.live and self.elsewhere else self.state.device

    @property
    def awaited(self) -> bool:
        """Whether nobody runs it, and Slurm will."""
        if self.slurm is None or self.status not in ("queued", "lost", "stopped"):
            return False
        return self.slurm.waits or (self.status == "queued" and self.slurm.known and not self.slurm.over)

    @property
    def taken(self) -> bool:
        """Whether a job of Slurm has it, or may have."""
        resting = self.status in ("queued", "lost", "stopped")
        return resting and self.slurm is not None and not self.slurm.over and not self.slurm.missing

    @property
    def abandoned(self) -> bool:
        """Whether it waits for a job of Slurm that has ended or been forgotten."""
        return self.status == "queued" and self.slurm is not None and self.slurm.over

    @property
    def why(self) -> str:
        """Why it is as it is, in a sentence: also what Slurm says, where that tells more than its directory."""
        if self.slurm is None:
            return self.reason
        said = self.slurm.said
        if self.awaited:
            return f"{said}, and will go on with it" if self.status != "queued" else said
        if self.abandoned:
            return f"{said}, and never began it; 'hah resume {self.run.id} --on slurm' submits it again"
        if self.status in ("lost", "stopped") and self.slurm.known and not self.slurm.over:
            said = f"Slurm still has {said}"  # it may not know yet that the node is gone
        elif self.live and self.verified and self.status not in ("queued", "stalled"):
            said = ""
        return "; ".join(filter(None, [self.reason, said]))


class Watcher:
    """Looks at one run, once or again and again; the second look may know more, by this reader's own clock."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._sign: tuple[object, ...] = ()  # of life: the heartbeat, and what changes with the snapshot
        self._since = -1.0  # when this reader first saw that
        self._moved = False  # whether it changed while this reader watched

    def look(self) -> Look:
        """The run now."""
        state = self._state()
        if state.status in ENDED:
            return Look(self.run, state, state.status)
        beat, now = heartbeat_of(self.run.heartbeat), time.monotonic()
        sign = (beat, state.updated, state.engine)
        if self._since < 0 or sign != self._sign:
            self._moved = self._since >= 0
            self._sign, self._since = sign, now
        quiet = now - self._since
        host = str(state.engine.get("host", ""))
        here = not host or state.engine.get("boot") == boot_id()
        elsewhere = f"last known, from {host}"
        if not is_locked(self.run.lock):
            if state.status == "queued":
                return Look(self.run, state, "queued", reason=_forgotten(self.run, state))
            return self._lost(beat) if here else self._unlocked(state, host, beat, quiet)
        if not here:
            if quiet > (beat.patience if beat else PATIENCE):
                return Look(self.run, state, "stalled", False, f"no sign of progress from {host} for {quiet:.0f} s")
            return Look(self.run, state, state.status, self._moved, "" if self._moved else elsewhere)
        letter = process_state(state.engine) if is_here(state.engine) else "R"
        if not letter and state.status != "starting":
            holder = holder_of(self.run.lock)
            keeps = (
                f"process {holder}" if holder is not None and Path(f"/proc/{holder}").exists() else "another process"
            )
            return Look(
                self.run, state, "stalled", True, f"its engine is gone, but {keeps} keeps its lock: end that one"
            )
        if letter in "Tt" and letter:
            return Look(self.run, state, "stalled", True, "stopped by a signal; SIGCONT continues it")
        if beat and now - beat.clock > beat.patience:
            return Look(self.run, state, "stalled", True, f"no progress for {now - beat.clock:.0f} s")
        return Look(self.run, state, state.status, True, beat.words if beat else "")

    def _state(self) -> State:
        """The snapshot. Where it came late from an engine that another has followed (who was held up in the middle of
        writing it cannot know), what the record says, which is the follower's, and who claimed the run last."""
        state = read_state(self.run)
        if not state.claim or not claims.followed(self.run, state.claim):
            return state
        state, who = recovered(self.run), claims.latest(self.run)
        return state if who.get("boot") == state.engine.get("boot") else replace(state, engine=who)

    def settled(self) -> Look:
        """The run, watched for as long as it takes to be sure, or until its engine had time enough to show life."""
        look = self.look()
        while not look.verified and look.live and time.monotonic() - self._since <= 2 * GONE_AFTER:
            time.sleep(0.1)
            look = self.look()
        return look

    def _unlocked(self, state: State, host: str, beat: Beat | None, quiet: float) -> Look:
        """The run of an engine of another host, or of another boot of this one, whose lock is free here."""
        same, mount = host == socket.gethostname(), mount_of(self.run.path)
        patience = beat.patience if beat else PATIENCE
        if (mount.believed and (same or quiet > GONE_AFTER)) or (same and quiet > max(GONE_AFTER, patience)):
            return self._lost(beat, "" if same else f" on {host}")
        if self._moved and quiet <= patience:
            return Look(self.run, state, state.status, True, f"its lock is not seen here, but life on {host}")
        if not mount.believed and quiet > patience:
            said = f"no sign of life from {host} for {quiet:.0f} s, and whether its engine lives cannot be known here: "
            return Look(self.run, state, "stalled", False, f"{said}{mount.words}")
        return Look(self.run, state, state.status, False, f"last known, from {host}")

    def _lost(self, beat: Beat | None, where: str = "") -> Look:
        state = self._state()  # an engine that ended between the two readings has said so
        if state.status in ENDED:
            return Look(self.run, state, state.status)
        said = beat.words if beat and beat.words else f"its engine{where} is gone without a word"
        return Look(self.run, state, "lost", True, f"{said}; 'hah resume' continues it")


def _forgotten(run: RunDirectory, state: State) -> str:
    """Why nobody will start what is queued: whoever made it was killed before it was asked for. '' where it was."""
    owner = RunDirectory(run.path.parents[1]) if state.kind == "evaluation" else run
    if owner.queue.exists() or run.slurm.exists():
        return ""
    return f"it was made, and submitted to nobody; 'hah resume {run.id}' starts it, with --on slurm there"
