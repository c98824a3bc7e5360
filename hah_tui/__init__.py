"""The terminal side of hah-tui: the command line and the screens. Nothing here imports torch."""

import importlib.util
import os
import sys
from pathlib import Path


def _own_engine() -> None:
    """Another package called engine may come first on PYTHONPATH: the one beside this package is meant."""
    if "engine" in sys.modules:
        return
    folder = Path(__file__).resolve().parents[1] / "engine"
    spec = importlib.util.spec_from_file_location(
        "engine", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["engine"] = module
    spec.loader.exec_module(module)


_own_engine()

# Milliseconds to wait after an escape for the rest of a key's sequence; Textual's 100 are felt at every way back.
os.environ.setdefault("ESCDELAY", "25")
