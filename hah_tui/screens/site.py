"""Which Slurm site work is handed to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.sweep import sites
from hah_tui.base import Page, app_of
from hah_tui.screens.dialogs import Dialog, PickRun


def ask_site(owner: Page | Dialog[Any], then: Callable[[str], object]) -> None:
    """Give ``then`` the only profile there is, or the one that is picked over the screen that asks; where there is
    none, say how one is made."""
    app = app_of(owner)

    def picked(name: str | None) -> None:
        if name:
            then(name)

    def known(names: list[str]) -> None:
        app.has_site = True
        if len(names) == 1 and app.screen is owner:
            then(names[0])
        else:
            app.ask(owner, PickRun("Hand it to which Slurm site?", names, "", "words of its name"), picked)

    app.in_background(owner, lambda: [*sites.known()] or [sites.find(None).stem], known, awaited=True)
