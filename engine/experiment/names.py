"""What names of experiments, presets, runs and tags look like."""

from __future__ import annotations

import re

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$"
NAME_FORMAT = "1 to 80 letters, digits, '.', '_' or '-', not starting with '.' or '-'"


def is_name(text: object) -> bool:
    """Whether this can be a name."""
    return isinstance(text, str) and re.fullmatch(NAME_PATTERN, text) is not None


def is_path(text: str) -> bool:
    """Whether ``text`` can be the name of a setting or a metric: hah.lambda, eval/noise/0.1/accuracy."""
    return len(text) <= 100 and re.fullmatch(r"[a-z][a-z0-9_]*(?:[./][A-Za-z0-9_.+-]+)*", text) is not None
