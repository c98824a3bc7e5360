"""What is left out because the terminal shows it already, or writes in that style: in the end it shows what it was to
show."""

import re

from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import InlineUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from hah_tui.widgets.changed_cells import Picture, _Spans, lean

WIDTH, HEIGHT, CUT = 8, 3, 5  # a row is two chops
CONSOLE = Console(force_terminal=True, color_system="truecolor")
rows = st.lists(st.text("ab ", min_size=WIDTH, max_size=WIDTH), min_size=HEIGHT, max_size=HEIGHT)
cells_of_a_row = st.tuples(st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), st.integers(1, WIDTH))
spans = st.lists(cells_of_a_row.filter(lambda one: one[1] < one[2]), max_size=2, unique_by=lambda one: one[0])


class Emulator:
    """A terminal that knows where to write, and in what style."""

    def __init__(self):
        self.rows = [["?"] * WIDTH for _ in range(HEIGHT)]
        self.styles = [[()] * WIDTH for _ in range(HEIGHT)]
        self.style = {}

    def write(self, text):
        x = y = 0
        for match in re.finditer(r"\x1b\[(\d+;\d+)H|\x1b\[([\d;]*)m|([^\x1b]+)", text):
            move, codes, letters = match.groups()
            if move is not None:
                y, x = (int(part) - 1 for part in move.split(";"))
            if codes is not None:
                self._read(codes or "0")
            for letter in letters or "":
                self.rows[y][x], self.styles[y][x] = letter, tuple(sorted(self.style.items()))
                x = min(x + 1, WIDTH - 1)

    def _read(self, codes):
        rest = [int(code) for code in codes.split(";") if code]
        while rest:
            code = rest.pop(0)
            if code == 0:
                self.style = {}
            elif code in (38, 48):
                count = 4 if rest[0] == 2 else 2
                self.style[code], rest = tuple(rest[:count]), rest[count:]
            elif code in (39, 49):
                self.style.pop(code - 1, None)
            elif code in (21, 22, 24):
                for other in {21: [4], 22: [1, 2], 24: [4]}[code]:
                    self.style.pop(other, None)
                self.style |= {21: True} if code == 21 else {}
            elif 30 <= code <= 37 or 90 <= code <= 97:
                self.style[38] = code
            elif 40 <= code <= 47 or 100 <= code <= 107:
                self.style[48] = code
            else:
                self.style[code] = True


def strip(text):
    return Strip([Segment(text)])


def whole(lines, cut=CUT):
    return LayoutUpdate([[strip(line[:cut]), strip(line[cut:])] for line in lines], Region(0, 0, WIDTH, HEIGHT))


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
    # However it is divided, now or before.
    assert sent(whole(["aaaaaaaa", "bbbbbbbb", "aaaaaaaa"], cut=2)) == ""
    assert sent(parts(["aaaaaaaa", "bbbbbbbb", "aaaaaaaa"], [(1, 3, 4), (2, 1, 7)])) == ""
    assert sent(parts(["aaaaaaaa", "bbbbbbbc", "aaaaaaaa"], [(1, 6, 8)])).count("b") == 1
    assert sent(whole(["aaaaaaaa", "bbbbbbbc", "aaaaaaaa"], cut=8)) == ""
    assert sent(whole(["aaaaaaaa", "bbbbbbbb", "aaaaaaaa"], cut=7)).count("b") == 1
    picture.forget()  # the terminal has another size
    assert sent(whole(["aaaaaaaa", "bbbbbbbb", "aaaaaaaa"])).count("a") == 16
    sent(InlineUpdate([strip("cccccccc")]))  # whatever else is written leaves nothing that is known
    assert sent(whole(["aaaaaaaa", "bbbbbbbb", "aaaaaaaa"])).count("a") == 16
    assert picture.without("text") == "text"


def test_a_letter_of_two_cells_that_is_cut_through_is_known_to_nobody():
    picture = Picture()

    def sent(*pieces):
        line = [strip(text) for text in pieces]
        return picture.without(LayoutUpdate([line], Region(0, 0, WIDTH, 1))).render_segments(CONSOLE)

    assert "宽" in sent("abc宽   ")
    assert sent("abc ", "    ").endswith("abc     ")
    assert "宽" in sent("abc宽   ")
    assert sent("ab", "c宽   ") == ""


def test_what_looks_the_same_is_not_sent_again():
    picture = Picture()

    def sent(*styled):
        line = Strip([Segment(text, Style.parse(style)) for text, style in styled])
        return picture.without(LayoutUpdate([[line]], Region(0, 0, WIDTH, 1))).render_segments(CONSOLE)

    assert sent(("aa", "red on blue"), ("      ", "red on blue"))
    assert not sent(("a", "red on blue"), ("a", "red on blue"), ("      ", "green on blue"))
    assert sent(("aa", "red on blue"), ("      ", "green on black"))
    assert sent(("aa", "red on blue"), ("      ", "underline green on black"))
    assert sent(("aa", "red on blue"), ("      ", "overline green on black"))
    assert sent(("aa", "red on blue"), ("      ", "reverse green on black"))
    assert sent(("aa", "green on blue"), ("      ", "reverse green on black"))


codes = st.sampled_from(
    ["1", "2", "3", "4", "7", "9", "21", "22", "24", "31", "97", "42", "107", "39", "49", "38;5;9", "48;5;200",
     "38;2;1;2;3", "38;2;4;5;6", "48;2;1;2;3", "48;2;0;0;0"]
)  # fmt: skip
styled = st.tuples(st.lists(codes, max_size=3), st.text("ab ", max_size=3), st.sampled_from(["\x1b[0m", "\x1b[m", ""]))
moves = st.tuples(st.integers(1, HEIGHT), st.integers(1, WIDTH)).map(lambda place: "\x1b[{};{}H".format(*place))
piece = st.one_of(moves, styled.map(lambda one: f"\x1b[{';'.join(one[0])}m{one[1]}{one[2]}" if one[0] else one[1]))


@given(st.lists(piece, max_size=12))
@example(["\x1b[1;31ma\x1b[0m", "\x1b[31;1mb\x1b[0m"])  # the same, told in another order
def test_every_letter_has_its_style(pieces):
    sequences = "".join(pieces) + "\x1b[0m"
    ours, wanted = Emulator(), Emulator()
    ours.write(lean(sequences))
    wanted.write(sequences)
    assert (ours.rows, ours.styles, ours.style) == (wanted.rows, wanted.styles, {})


def test_a_style_is_told_once_and_then_what_differs():
    green, bold = "\x1b[38;2;1;2;3;48;2;9;9;9m", "\x1b[1;38;2;4;5;6;48;2;9;9;9m"
    assert lean(f"{green}a\x1b[0m{green}b\x1b[0m{bold}c\x1b[0m{green}d\x1b[0m") == (
        f"{green}ab\x1b[1;38;2;4;5;6mc\x1b[0;38;2;1;2;3;48;2;9;9;9md\x1b[0m"
    )
    assert lean(f"{green}a\x1b[0m\x1b[2;1H{green}b\x1b[0m") == f"{green}a\x1b[2;1Hb\x1b[0m"
    assert lean(f"{green}\x1b[0mplain") == "plain"
