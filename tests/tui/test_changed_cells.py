"""What is left out because the terminal shows it already: in the end it shows what it was to show."""

import re

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from textual._compositor import InlineUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from hah_tui.widgets.changed_cells import Picture, _Spans

WIDTH, HEIGHT, CUT = 8, 3, 5  # a row is two chops
CONSOLE = Console(force_terminal=True, color_system="truecolor")
rows = st.lists(st.text("ab ", min_size=WIDTH, max_size=WIDTH), min_size=HEIGHT, max_size=HEIGHT)
cells_of_a_row = st.tuples(st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), st.integers(1, WIDTH))
spans = st.lists(cells_of_a_row.filter(lambda one: one[1] < one[2]), max_size=2, unique_by=lambda one: one[0])


class Emulator:
    """A terminal that knows where to write."""

    def __init__(self):
        self.rows = [["?"] * WIDTH for _ in range(HEIGHT)]

    def write(self, text):
        x = y = 0
        for move, letters in re.findall(r"\x1b\[(\d+;\d+)H|([^\x1b]+)", text):
            if move:
                y, x = (int(part) - 1 for part in move.split(";"))
            for letter in letters:
                self.rows[y][x] = letter
                x += 1


def strip(text):
    return Strip([Segment(text)])


def whole(lines):
    return LayoutUpdate([[strip(line)] for line in lines], Region(0, 0, WIDTH, HEIGHT))


def parts(lines, cells):
    chops = [{0: strip(line[:CUT]), CUT: strip(line[CUT:])} for line in lines]
    return _Spans(chops, cells, [[CUT, WIDTH]] * HEIGHT)


@given(st.lists(st.tuples(rows, st.none() | spans), max_size=8))
def test_the_terminal_shows_what_it_was_to_show(updates):
    picture, terminal, wanted = Picture(), Emulator(), [["?"] * WIDTH for _ in range(HEIGHT)]
    for lines, cells in updates:
        update = whole(lines) if cells is None else parts(lines, cells)
        terminal.write(picture.without(update).render_segments(CONSOLE))
        for y, x1, x2 in [(y, 0, WIDTH) for y in range(HEIGHT)] if cells is None else cells:
            wanted[y][x1:x2] = lines[y][x1:x2]
        assert terminal.rows == wanted


def test_what_is_there_is_not_sent_again():
    picture = Picture()

    def sent(update):
        return picture.without(update).render_segments(CONSOLE)

    assert "aaaaaaaa" in sent(whole(["aaaaaaaa"] * 3))
    assert sent(whole(["aaaaaaaa"] * 3)) == sent(parts(["aaaaaaaa"] * 3, [(1, 0, WIDTH)])) == ""
    assert sent(whole(["aaaaaaaa", "bbbbbbbb", "aaaaaaaa"])).count("a") == 0
    picture.forget()  # the terminal has another size
    assert sent(whole(["aaaaaaaa", "bbbbbbbb", "aaaaaaaa"])).count("a") == 16
    sent(InlineUpdate([strip("cccccccc")]))  # whatever else is written leaves nothing that is known
    assert sent(whole(["aaaaaaaa", "bbbbbbbb", "aaaaaaaa"])).count("a") == 16
    assert picture.without("text") == "text"
