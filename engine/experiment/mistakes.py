"""How a request can be wrong: what, where it was written, what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One thing wrong with a request.

    ``where`` is the place it was written ("my.yaml:7", "--set hah.alpha=1"), empty where there is none;
    ``what`` is one sentence that names the field and says what is allowed.
    """

    what: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class RequestError(ValueError):
    """The request was wrong and nothing was done: exit code 2, one line for each mistake, no traceback."""

    def __init__(self, *mistakes: Mistake | str) -> None:
        self.mistakes: Sequence[Mistake] = [Mistake(m) if isinstance(m, str) else m for m in mistakes]
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))
