"""Press keys in the app and look at what it has become."""

import asyncio
import time

from textual.widgets import Input, Static

from hah_tui.app import HahApp


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
