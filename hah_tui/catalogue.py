"""What a new run can start from: presets by group and the draft that was kept; and how fast runs were here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.experiment.mistakes import RequestError
from hah_tui.settings import stored_draft

if TYPE_CHECKING:
    from engine.experiment import Experiment
    from hah_tui.draft import Draft

GROUPS = (  # by tag
    ("quick", "Quick"), ("paper", "The paper's"), ("ablation", "Ablations"), ("study", "Study"), ("", "Others"),
)  # fmt: skip
OWN = "Your own"


@dataclass(frozen=True)
class Offer:
    """A preset: its experiment, or why it cannot be read; ``shadows``: a shipped one of that name."""

    name: str
    experiment: Experiment | str
    shadows: bool


@dataclass(frozen=True)
class Catalogue:
    """Presets by group, and the draft that was kept with the time it was written."""

    groups: dict[str, list[Offer]]
    draft: Draft | None = None
    written: float = 0.0


def catalogue() -> Catalogue:
    """Read all of it."""
    from engine.experiment import presets
    from hah_tui.draft import Draft

    groups: dict[str, list[Offer]] = {title: [] for title in (*(title for _, title in GROUPS), OWN)}
    for preset in presets.listed():
        experiment: Experiment | str
        try:
            experiment = presets.load(preset.name)
            tags: Sequence[str] = experiment.tags
        except RequestError as error:
            experiment, tags = str(error), ()
        title = next(title for tag, title in GROUPS if tag in tags or not tag) if preset.shipped else OWN
        groups[title].append(Offer(preset.name, experiment, preset.shadows is not None))
    for offers in groups.values():
        offers.sort(key=lambda offer: (offer.name != "quickstart", offer.name))
    stored = stored_draft()
    when = stored.get("written", 0.0)
    try:
        draft = Draft.of_stored(stored) if stored else None
    except RequestError:
        draft = None
    return Catalogue(groups, draft, when if isinstance(when, int | float) else time.time())
