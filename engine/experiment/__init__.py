"""What to run: the experiment schema, presets, and every mistake in them said at once."""

from engine.experiment.mistakes import Mistake, RequestError
from engine.experiment.schema import Experiment

__all__ = ["Experiment", "Mistake", "RequestError"]
