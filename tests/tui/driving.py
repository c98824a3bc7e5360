"""Press keys in the app and look at what it has become."""

import asyncio
import time

from textual.events import Key
from textual.widgets import Input, OptionList, Static

from hah_tui.app import HahApp
from hah_tui.screens.monitor import MonitorScreen


async def until(pilot, condition, seconds=15.0):
    """Wait until a condition holds: threads and engines take the time they take."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        await pilot.pause(0.02)
    await pilot.pause()
    return value


def drive(folder, body, size=(100, 30)):
    """Run ``body(pilot, app)`` in the app on a runs folder, once the folder is read."""

    async def go():
        app = HahApp(folder)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: getattr(app.screen, "_loaded", False))
            await body(pilot, app)

    asyncio.run(go())


def show(make, folder, body, size=(160, 48), reference="", ready=lambda screen: True):
    """``body(pilot, app, screen)`` with the panels of ``make()`` alone in the app, once its runs are read and drawn."""

    async def go():
        app = HahApp(folder)
        app.settings = type(app.settings)(reference=reference)
        async with app.run_test(size=size) as pilot:
            screen = make()
            await app.push_screen(screen)
            await until(pilot, lambda: all(source.loaded for source in screen.sources()) and ready(screen))
            await drawn(pilot, screen)
            await body(pilot, app, screen)

    asyncio.run(go())


def monitor(run, body, **how):
    """``body(pilot, app, screen)`` in a monitor that has read its run."""
    show(lambda: MonitorScreen(run), run.path.parent, body, **how)


async def drawn(pilot, screen):
    """Wait until what was asked for is on the screen."""
    await until(pilot, lambda: not screen.dirty and not screen.stale)


def burst(app, *keys):
    """Keys that come at once, as over a line that stood still."""
    for key in keys:
        app.post_message(Key(key, " " if key == "space" else key if len(key) == 1 else None))


async def still(pilot, app):
    """No cursor blinks, nothing is on its way."""
    for box in app.screen.query(Input):
        box.cursor_blink = False
        box._cursor_visible = False
    await pilot.pause(0.1)


async def form(pilot, app, preset="quickstart"):
    """Open the form of a preset."""
    await pilot.press("n")
    await until(pilot, lambda: type(app.screen).__name__ == "NewRunScreen")
    box = app.screen.query_one(OptionList)
    await until(pilot, lambda: box.option_count)
    box.highlighted = box.get_option_index(f"p:{preset}")
    await pilot.press("enter")
    await until(pilot, lambda: app.screen.draft is not None and app.screen.query("#fields Input"))


async def to(pilot, app, name):
    """Bring the cursor to a setting."""
    app.screen.show_field(name)
    await until(pilot, lambda: (app.screen.focused.name or "").partition("[")[0] == name if app.screen.focused else 0)


async def retype(pilot, app, text):
    """Type over what stands in the field in focus."""
    app.screen.focused.value = ""
    await pilot.press(*["full_stop" if letter == "." else "minus" if letter == "-" else letter for letter in text])
    await pilot.pause()


def ids(app):
    """The ids of the runs shown, in order."""
    return [row.id for row in app.screen._order]


def words(app, query):
    """The text of a Static."""
    return str(app.screen.query_one(query, Static).render())


async def answer(pilot, text):
    """Type into the dialog and confirm it."""
    box = pilot.app.screen.query_one(Input)
    box.value = ""
    await pilot.press(*["space" if letter == " " else "full_stop" if letter == "." else letter for letter in text])
    await pilot.press("enter")
    await pilot.pause()
