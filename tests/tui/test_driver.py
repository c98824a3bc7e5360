"""What is typed in a terminal becomes keys: an escape alone at once, the first letter of a sequence not."""

import os
import threading
import time
from types import SimpleNamespace

import pytest
from textual import constants

from hah_tui import driver
from hah_tui.driver import Driver


@pytest.fixture
def typed(monkeypatch):
    """typed(b"a", 0.5, b"b") types with pauses -> (keys, how long its reader was ready to wait each time)."""

    def type_(*what):
        reads, writes = os.pipe()
        found, waits, real = [], [], driver.select.select
        ended = threading.Event()
        fake = SimpleNamespace(
            fileno=reads, exit_event=ended, _debug=False, process_message=lambda event: found.append(event)
        )

        def select(*asked):
            waits.append(asked[3])
            return real(*asked)

        monkeypatch.setattr(driver, "select", SimpleNamespace(select=select))
        thread = threading.Thread(target=Driver.run_input_thread, args=(fake,), daemon=True)
        thread.start()
        for one in what:
            if isinstance(one, bytes):
                os.write(writes, one)
            else:
                time.sleep(one)
        time.sleep(0.5)
        ended.set()
        thread.join(5)
        os.close(writes)
        os.close(reads)
        return [event.key for event in found], waits

    return type_


def test_an_escape_alone_is_waited_for_no_longer_than_asked(typed):
    keys, waits = typed(b"\x1b", 0.3, b"a")
    assert keys == ["escape", "a"]
    assert constants.ESCAPE_DELAY == 0.025
    assert waits[1] == constants.ESCAPE_DELAY
    assert waits.count(constants.ESCAPE_DELAY) == 1  # otherwise it looks ten times a second
    assert set(waits) == {constants.ESCAPE_DELAY, driver.ROUND_SECONDS}


@pytest.mark.parametrize(
    ("what", "keys"),
    [
        ([b"\x1b[A"], ["up"]),
        ([b"\x1b", b"[B"], ["down"]),
        ([b"\x1b\x1b"], ["escape", "escape"]),
        ([b"\xc3", 0.2, b"\xb6"], ["ö"]),
    ],
)
def test_what_belongs_together_is_one_key_however_it_comes(typed, what, keys):
    assert typed(*what)[0] == keys
