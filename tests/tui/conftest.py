"""What a screen that is shown alone stands on."""

import time

import pytest

from hah_tui.app import HahApp


@pytest.fixture
def folder(runs):
    """The runs folder, made."""
    runs.mkdir()
    return runs


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """Clocks in UTC, exported files in the test's folder, no list of runs behind the screen."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HahApp, "on_mount", lambda self: self.set_class(self.plain, "-ascii"))
