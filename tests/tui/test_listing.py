"""The list without a screen: pieces, filters, orders, samples; and what settings and bars are made of."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.experiment.names import is_path
from engine.runs import store
from hah_tui import themes
from hah_tui.listing import FIRST, Listing, sampled_losses
from hah_tui.settings import Settings, settings_path
from tests.tui.made import alive, broken, made


def test_the_first_piece_is_a_screenful_and_the_rest_follows(runs):
    for index in range(FIRST + 20):
        made(runs, id=f"r{index:03}", age=index + 1, points=0)
    listing = Listing(runs)
    pieces = listing.update()
    next(pieces)
    assert list(listing.rows) == [f"r{index:03}" for index in range(FIRST)]  # the newest
    for _ in pieces:
        pass
    assert len(listing.rows) == FIRST + 20


def round_of(listing, visible=()):
    for _ in listing.update(visible):
        pass
    return listing.rows


def test_it_follows_the_folder(runs):
    listing = Listing(runs)
    assert round_of(listing) == {}
    assert listing.problem == ""  # before the first run there is no folder
    made(runs, id="a")
    assert set(round_of(listing)) == {"a"}
    run, lock = alive(runs, id="b", epoch=3)
    assert round_of(listing)["b"].look.status == "running"
    lock.release()
    assert round_of(listing)["b"].look.status == "lost"
    store.label(run, add=["x"])
    assert round_of(listing)["b"].tags == ("quick", "x")
    before = listing.version
    round_of(listing, ["a", "b"])
    assert listing.version == before  # nothing has changed
    store.remove(run)
    assert set(round_of(listing)) == {"a"}
    shutil.rmtree(runs)
    assert round_of(listing) == {}
    assert "disappeared" in listing.problem
    runs.write_text("a file")
    round_of(listing)
    assert "cannot be read" in listing.problem


def test_a_run_whose_configuration_comes_later_is_found(runs):
    listing = Listing(runs)
    made(runs, id="a")
    round_of(listing)
    run = made(runs, id="late")
    config = run.config.read_text()
    run.config.unlink()
    round_of(listing)
    run.config.write_text(config)  # the folder's own time does not change
    assert "late" in round_of(listing)


def test_broken_runs_are_listed(runs):
    broken(runs)
    assert len(round_of(Listing(runs))) == 5


def test_losses_are_sampled_in_bounded_time_and_memory(tmp_path):
    path = tmp_path / "events.jsonl"
    line = '{"time": 1.0, "kind": "train", "step": %d, "values": {"train/loss": %r, "train/accuracy": 0.5}}\n'
    with path.open("w") as file:
        for step in range(20_000):
            file.write(line % (step, 2.0 - step / 10_000))
    losses = sampled_losses(path)
    assert len(losses) == 16
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 1.9
    assert losses[-1] < 0.1
    assert sampled_losses(tmp_path / "none") == []
    path.write_text('"train/loss": 1e9e9, "train/loss": -2.5')
    assert sampled_losses(path) == [-2.5]


@given(st.floats(-1, 2), st.integers(1, 40), st.booleans())
def test_bars_are_as_wide_as_they_should(fraction, width, plain):
    drawn = themes.bar(fraction, width, plain)
    assert len(drawn) == width
    assert not plain or drawn.isascii()


@given(st.lists(st.floats(-1e6, 1e6), max_size=60), st.integers(1, 20), st.booleans())
def test_loss_lines_fit_and_show_the_extremes(values, width, plain):
    drawn = themes.line_of(values, width, plain)
    assert len(drawn) == min(width, len(values))
    if values and len(values) <= width and max(values) > min(values):
        assert drawn[values.index(max(values))] == ("#" if plain else "█")


@pytest.mark.parametrize("theme", themes.THEMES, ids=lambda theme: theme.name)
def test_every_theme_has_every_colour(theme):
    assert theme.name in themes.SERIES
    assert len(set(themes.SERIES[theme.name])) == 8
    for _, plain, name in themes.MARKS.values():
        assert name in theme.variables
        assert plain.isascii()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from([*Settings.__dataclass_fields__, "other"]), json_values, max_size=5))
def test_any_settings_file_is_survived(document):
    settings_path().parent.mkdir(parents=True, exist_ok=True)
    settings_path().write_text(json.dumps(document))
    loaded, _ = Settings.load()
    assert loaded.theme in themes.SERIES
    assert is_path(loaded.sort)
    assert 0.25 <= loaded.frames_per_second <= 20
    loaded.save()
    assert Settings.load() == (loaded, "")


def test_a_broken_settings_file_is_said():
    settings_path().parent.mkdir(parents=True)
    settings_path().write_bytes(b"\xff{")
    loaded, said = Settings.load()
    assert loaded == Settings()
    assert "cannot be read" in said
    settings_path().write_text('{"theme": "pink", "ascii": true}')
    loaded, said = Settings.load()
    assert loaded.ascii
    assert "theme" in said
