"""Which Slurm site work is handed to."""

from __future__ import annotations

from collections.abc import Callable

from engine.experiment.mistakes import RequestError
from engine.sweep import sites
from hah_tui.base import BaseApp
from hah_tui.screens.dialogs import PickRun


def ask_site(app: BaseApp, then: Callable[[str], object]) -> None:
    """Give ``then`` the only profile there is, or the one that is picked; where there is none, say how one is made."""
    try:
        names = [*sites.known()] or [sites.find(None).stem]
    except RequestError as error:
        app.complain(error)
        return
    if len(names) == 1:
        then(names[0])
        return

    def picked(name: str | None) -> None:
        if name:
            then(name)

    app.push_screen(PickRun("Hand it to which Slurm site?", names, "", "words of its name"), picked)
