"""What a new run can start from: presets by group, and the drafts that were kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from engine.experiment.mistakes import RequestError
from hah_tui.settings import stored_drafts, written_at

if TYPE_CHECKING:
    from engine.experiment import Experiment
    from engine.experiment.presets import Preset
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
class Kept:
    """A draft that was kept under a name, and the Unix time it was written."""

    name: str
    draft: Draft
    written: float


@dataclass(frozen=True)
class Catalogue:
    """Presets by group, and the drafts that were kept, the one written last first."""

    groups: dict[str, list[Offer]]
    drafts: tuple[Kept, ...] = ()


def catalogue() -> Catalogue:
    """Read all of it; the presets only where one of their files is another than the last time."""
    from engine.experiment import presets

    return Catalogue(_groups(tuple((preset, _stamp(preset.path)) for preset in presets.listed())), tuple(_drafts()))


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _groups(found: tuple[tuple[Preset, int], ...]) -> dict[str, list[Offer]]:
    from engine.experiment import presets

    groups: dict[str, list[Offer]] = {title: [] for title in (*(title for _, title in GROUPS), OWN)}
    for preset, _ in found:
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
    return groups


def _drafts() -> Iterator[Kept]:
    from hah_tui.draft import Draft

    for name, stored in stored_drafts().items():
        with suppress(RequestError):
            yield Kept(name, Draft.of_stored(stored), written_at(stored))
