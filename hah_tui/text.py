"""Text that came from a disk or a person, made safe to show, and numbers made short to read."""

from __future__ import annotations

import os
import re
import time

from engine.runs.watcher import Look

# C0 and C1 controls, DEL, and the marks that reorder or hide text (bidirectional, zero-width, line separators).
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def shown(text: object, limit: int = 2000) -> str:
    """``text`` on its way to a terminal: control characters replaced, cut to ``limit`` characters; newlines stay."""
    clean = _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(text))
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def shown_line(text: object, limit: int = 200) -> str:
    """`shown` on one line."""
    return shown(str(text).replace("\n", " ").replace("\t", " "), limit)


def home(path: object) -> str:
    """A path as text, the home folder as ~."""
    text, start = shown_line(path, 300), os.path.expanduser("~")  # noqa: PTH111 (Path.home raises where there is none)
    return "~" + text[len(start) :] if start != "/" and text.startswith(f"{start}/") else text


def slurm_line(look: Look) -> str:
    """What Slurm says of a run, in a table: why it waits, or the time left where it runs."""
    job = look.slurm
    if job is None:
        return ""
    if look.status == "queued" and job.waits:
        return f"{job.why} (job {job.job.id})"
    if look.status == "queued" or not look.live:
        return look.why
    return job.said + (f", {duration(job.seconds_left)} left" if job.seconds_left is not None else "")


def percent(fraction: float | None) -> str:
    """0.913 as '91.3%'."""
    return "-" if fraction is None else f"{100 * fraction:.1f}%"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, '-' for none."""
    return "-" if value is None else f"{value:.{digits}g}"


def duration(seconds: float | None) -> str:
    """Seconds as '0:42', '12:05' or '3:07:00', days as '2d 3h'."""
    if seconds is None or seconds < 0:
        return "-"
    whole = int(seconds + 0.5)
    if whole >= 86400:
        return f"{whole // 86400}d {whole % 86400 // 3600}h"
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def age(moment: float) -> str:
    """How long ago a Unix time was: '5 s', '12 min', '3 h', '4 d'."""
    seconds = max(0.0, time.time() - moment)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
