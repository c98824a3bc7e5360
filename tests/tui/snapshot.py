"""Text pictures of screens, compared with what is in snapshots/; HAH_SNAPSHOTS=1 writes them anew."""

import os
from pathlib import Path

FOLDER = Path(__file__).with_name("snapshots")
SIZES = ((40, 12), (80, 24), (160, 48))


def picture(app):
    """What is on the screen, line by line, without colours."""
    strips = app.screen._compositor.render_strips()
    return "".join("".join(segment.text for segment in strip).rstrip() + "\n" for strip in strips)


def check(app, name):
    """Compare the screen with snapshots/NAME-WxH.txt."""
    path = FOLDER / f"{name}-{app.size.width}x{app.size.height}.txt"
    seen = picture(app)
    if os.environ.get("HAH_SNAPSHOTS"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(seen, encoding="utf-8")
        return
    assert path.exists(), f"no {path.name}; HAH_SNAPSHOTS=1 writes it"
    assert seen == path.read_text(encoding="utf-8"), f"{path.name} differs; HAH_SNAPSHOTS=1 writes it anew"
