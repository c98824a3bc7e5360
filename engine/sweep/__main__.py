"""``python -m engine.sweep FOLDER``: the dispatcher of a runs folder on this host."""

import sys
from pathlib import Path

from engine.sweep import dispatcher

if __name__ == "__main__":
    dispatcher.run(Path(sys.argv[1]).absolute())
