"""What to run: the experiment schema, presets, and every mistake in them said at once."""

from typing import TYPE_CHECKING, Any

from engine.experiment.mistakes import Mistake, RequestError

if TYPE_CHECKING:
    from engine.experiment.schema import Experiment

__all__ = ["Experiment", "Mistake", "RequestError"]


def __getattr__(name: str) -> Any:
    # Building the schema takes a tenth of a second, which a command that lists runs need not wait for.
    if name != "Experiment":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from engine.experiment.schema import Experiment

    return Experiment
