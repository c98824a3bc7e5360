"""What of a runs folder Slurm has: the other queue beside this one, read in the same way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.runs import submitted
from engine.runs.layout import EVALUATION, RunDirectory
from engine.runs.slurm import job_of
from engine.runs.submitted import AskSlurm
from engine.sweep.queue import Entry, Item, Queue, Standing, Watch, is_queued

GROUP = "slurm"  # what stands for a group of what another queue has


def reader(folder: Path) -> Queue:
    """Reads what Slurm has of a folder, as far as the runs' directories tell."""
    return Queue(folder, is_submitted, _item_of)


def is_submitted(run: RunDirectory) -> bool:
    """Whether a run, or its evaluation, is Slurm's, and not this queue's."""
    notes = (f"{run.path}/slurm.json", f"{run.path}/results/{run.id}{EVALUATION}/slurm.json")
    return any(map(os.path.exists, notes)) and not is_queued(run)


def _item_of(run: RunDirectory, watch: Watch) -> Item:
    """How one run of Slurm's stands, as far as its directory tells."""
    job, look = run, watch(run)
    if look.status == "finished" and run.evaluation.slurm.exists():
        job, look = run.evaluation, watch(run.evaluation)
    note = job_of(job)
    entry = Entry(group=GROUP, queued=note.submitted, position=note.submitted) if note else Entry(group=GROUP)
    found: Standing = "live" if look.live else "done" if look.status == "finished" else "over"
    return Item(run, entry, (), job, look, "ready" if look.status == "queued" else found, look.reason)


def told(items: Sequence[Item], now: AskSlurm | None = None) -> list[tuple[Item, str]]:
    """What Slurm has, each with why it is where it is, asked once; ``now``: as `submitted.told` has it."""
    found = []
    for item, look in zip(items, submitted.told([item.look for item in items], now), strict=True):
        standing: Standing = "ready" if look.awaited else item.standing
        found.append((replace(item, look=look, standing=standing), look.why))
    return found
