"""An event of a run's record in words: what `hah watch` prints and the monitor's feed shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.runs.events import Event
from engine.runs.metrics import CLEAN, LOSS, METRICS, NOISY, SNR, SPARSITY, TRAIN_ACCURACY
from hah_tui.text import duration, number, shown_line


def event_line(event: Event, epochs: int, brief: bool = False) -> str:
    """An event as one plain line, safe to show; '' where it is not worth one. ``brief``: what counts most comes first,
    for where the rest may be cut off."""
    return shown_line(_worded(event, epochs, brief), 700)


def _worded(event: Event, epochs: int, brief: bool) -> str:
    match event:
        case {"kind": "epoch", "epoch": int(epoch), "values": dict(values)}:
            metrics = {name: value for name, value in values.items() if isinstance(value, int | float)}
            trained = [f"step {event.get('step')}", *named((LOSS, TRAIN_ACCURACY), metrics)]
            tested = named((CLEAN, NOISY), metrics) if CLEAN in metrics else []
            first = f"epoch {epoch}/{epochs}" if epochs else f"epoch {epoch}"
            parts = [first, *tested, *trained[1:], trained[0]] if brief else [first, *trained, *tested]
            for name, digits in ((SPARSITY, 2), (SNR, 3)):
                found = per_block(metrics, name)
                if found:
                    parts.append(f"{METRICS[name].word} " + " ".join(number(value, digits) for value in found))
            return "  ".join(parts)
        case {"kind": "stopped", "signal": str(name)} if name:
            return f"stopped by {name}"
        case {"kind": "warning" | "failed" as kind, "text": text}:
            return f"{kind}: {text}"
        case {"kind": "set", "name": name, "new": value, "step": step, "withdrawn": _}:
            return f"step {step}: {name} stays {value}; what was changed of it after this step is left out"
        case {"kind": "set", "name": name, "old": old, "new": new, "step": step}:
            return f"step {step}: {name} changed from {old} to {new}"
        case {"kind": "engine", "pid": pid, "host": host, "device": device, "why": why}:
            return f"engine: process {pid} on {host}, {event.get('gpu') or device} ({why})"
        case {"kind": "position", "step": int(step)} if step > 0:
            return f"continues from step {step}"
        case {"kind": "suite", "suite": suite, "images": images, "seconds": int() | float() as seconds}:
            return f"{suite}: {images} images, at most about {duration(seconds)}"
        case {"kind": "result", "suite": suite, "file": file, "values": dict(values)}:
            numbers = "  ".join(
                f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, int | float)
            )
            return f"{suite}: {file}{event.get('said', '')}  {numbers}"
        case {"kind": "already", "suite": suite, "file": file}:
            return f"{suite}: measured already, {file}"
        case {"kind": "checkpoint", "name": name, "step": step}:
            return f"checkpoint {name} at step {step}"
        case _:
            return ""


def named(names: Sequence[str], values: Mapping[str, float]) -> list[str]:
    """Metrics with their values, '-' for what there is not."""
    return [f"{METRICS[name].word} {METRICS[name].said(values.get(name))}" for name in names]


def per_block(values: Mapping[str, float], name: str) -> list[float]:
    """A metric of block 1, 2, ... as far as they have it."""
    found: list[float] = []
    while isinstance(value := values.get(METRICS[name].of(len(found) + 1)), int | float):
        found.append(float(value))
    return found
