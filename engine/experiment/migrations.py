"""Experiments that were written by earlier versions of the schema, brought up to date.

A setting that is renamed or removed gets an entry here, so that no run becomes unreadable. Its name is not given to
anything else later: a file that a person wrote says no version, and is read as the first. So a migration may meet what
is up to date already, and leaves that as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.experiment.document import Document, nested
from engine.experiment.fields import flatten
from engine.experiment.mistakes import Mistake, RequestError
from engine.experiment.version import SCHEMA_VERSION, VERSION

Migration = Callable[[Document], Document]


def renamed(old: str, new: str) -> Migration:
    """A setting that has another name now, by dotted names; where both are written the new one holds."""

    def migrate(document: Document) -> Document:
        found = document.at(old)
        if found is None:
            return document
        value, place = found
        return document.less(old).over(nested(new, value, place))

    return migrate


def removed(name: str) -> Migration:
    """A setting that there is no more."""
    return lambda document: document.less(name)


MIGRATIONS: dict[int, tuple[Migration, ...]] = {  # from each version to the next
    1: (removed("evaluate.minimum_norm.targets"),),  # walks take their targets in turns now
}


def migrated(document: Document) -> Document:
    """A document as this version would have written it, without its version; raises RequestError for a later one's."""
    version = document.values.get(VERSION, 1)
    if type(version) is not int or version < 1:
        raise RequestError(Mistake(f"{VERSION}: must be a whole number above 0", document.origin((VERSION,))))
    if version > SCHEMA_VERSION:
        what = f"was written by a later version of hah-tui ({VERSION} {version}; this one reads up to {SCHEMA_VERSION})"
        raise RequestError(Mistake(what, document.origin((VERSION,))))
    document = document.without(VERSION)
    for step in range(version, SCHEMA_VERSION):
        for migrate in MIGRATIONS[step]:
            document = migrate(document)
    return document


def present(name: str, value: Any) -> tuple[str, Any] | None:
    """The present name and value of one setting of any version; None where there is no such setting any more."""
    written = nested(name, value)
    values = migrated(written).values
    return (name, value) if values == written.values else next(iter(flatten(values).items()), None)
