"""The drafts that the form keeps on the disk."""

from __future__ import annotations

import time
from typing import Any

from hah_tui.base import BaseApp, Follower
from hah_tui.settings import save_draft


class Keeper:
    """Keeps drafts on the disk without a key press waiting for it, even if the form is left meanwhile."""

    def __init__(self, app: BaseApp) -> None:
        self._waiting: dict[str, dict[str, Any] | None] = {}  # by their names
        self.written: dict[str, float | None] = {}  # when, of those that were kept here; None: forgotten
        self._follower = Follower(app, self._write, self._wrote)
        self.problem = ""

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._follower.busy

    def keep(self, name: str, draft: dict[str, Any] | None) -> None:
        """Write a draft (None: forget it) as soon as what is being written is."""
        self._waiting[name] = draft
        self.written[name] = None if draft is None else time.time()
        self._follower.wake()

    def _write(self) -> str:
        problem = ""
        while self._waiting:
            try:
                save_draft(*self._waiting.popitem())
            except OSError as error:
                problem = f"the draft cannot be kept: {error.strerror}"
        return problem

    def _wrote(self, problem: str) -> None:
        self.problem = problem
