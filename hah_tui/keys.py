"""Every action of the terminal, once: bindings, the help screen and the command palette are made from this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding, BindingType

Place = Literal["runs", "new", "monitor", "compare", "results", "queue", "sweep"]  # where one can be; each is a screen


@dataclass(frozen=True)
class Action:
    """One thing a key does: ``id`` names the method ``action_<id>`` of the screen (of the app where screen is all)."""

    id: str
    keys: str  # in Textual's names, separated by commas; '' for the palette only
    label: str  # for the footer, one or two words
    screen: str  # a place, or all; several are separated by |
    help: str
    footer: bool = False  # whether the footer has room for it
    each: bool = False  # the key pressed is the method's argument

    def on(self, screen: str) -> bool:
        """Whether ``screen`` has this action."""
        return screen in self.screen.split("|")

    @property
    def shown_keys(self) -> str:
        """The keys as a person reads them: '/', 'ctrl+p', '1 to 9'."""
        names = [shown_key(key) for key in self.keys.split(",")] if self.keys else []
        return f"{names[0]} to {names[-1]}" if self.each else " ".join(names)


_SHOWN = {
    "question_mark": "?", "slash": "/", "escape": "esc", "plus": "+", "minus": "-", "equals_sign": "=",
    "less_than_sign": "<", "greater_than_sign": ">", "comma": ",", "full_stop": ".", "pageup": "pgup",
    "pagedown": "pgdn", "left": "←", "right": "→", "up": "↑", "down": "↓", "left_square_bracket": "[",
    "right_square_bracket": "]", "left_curly_bracket": "{", "right_curly_bracket": "}", "asterisk": "*",
}  # fmt: skip


def shown_key(key: str) -> str:
    """A key as a person reads it."""
    return _SHOWN.get(key, key)


ACTIONS: tuple[Action, ...] = (
    # Everywhere
    Action("help", "question_mark,f1", "help", "all", "this page: what every key does", footer=True),
    Action("quit", "q,ctrl+q", "quit", "all", "leave, in text fields by ctrl+q; engines go on", footer=True),
    Action("back", "escape", "back", "all", "back to where you came from", footer=True),
    Action("command_palette", "ctrl+p", "palette", "all", "find an action by its name"),
    Action("next_theme", "T", "theme", "all", "next theme: dark, light, colour-blind-safe"),
    Action("ascii", "", "ASCII", "all", "plain characters for fonts without braille and blocks, on or off"),
    Action("repaint", "", "repaint", "all", "draw the whole screen again, where something else wrote over it"),
    Action("screenshot", "P", "picture", "all", "save the screen as an SVG picture"),
    Action("slower_frames", "", "fewer frames", "all", "draw half as often, for thin connections"),
    Action("faster_frames", "", "more frames", "all", "draw twice as often"),
    # Runs
    Action("open", "enter", "open", "runs|queue|sweep", "open the run: live, or as it was", footer=True),
    Action("new", "n", "new", "runs", "pick a preset, change it, launch", footer=True),
    Action("filter", "slash", "filter", "runs", "clean>0.9 lambda=1 status:running -tag:x words", footer=True),
    Action("select", "space", "select", "runs", "select or unselect the run for an action on several"),
    Action("select_all", "asterisk", "all", "runs", "select every run shown, or none"),
    Action("sort", "o", "sort", "runs", "by any metric, setting or result; a click on a heading too"),
    Action("reverse", "O", "reverse", "runs", "turn the order round"),
    Action("group", "b", "group by", "runs", "runs equal but for their seed, or in a setting, as one line"),
    Action("unfold", "right,l", "unfold", "runs", "show the runs of a group"),
    Action("fold", "left,h", "fold", "runs", "hide them"),
    Action("columns", "m", "columns", "runs", "show metrics, settings, results, tags, notes, or hide them"),
    Action("more_columns", "greater_than_sign", "columns >", "runs", "columns for which there was no room"),
    Action("first_columns", "less_than_sign", "< columns", "runs", "and back"),
    Action("compare", "v", "compare", "runs", "selected runs side by side", footer=True),
    Action("clone", "c", "clone", "runs", "a new run from this one's settings", footer=True),
    Action("extend", "e", "extend", "runs", "train a run to a later epoch"),
    Action("tag", "t", "tag", "runs", "put words on it; -word takes one away"),
    Action("note", "a", "note", "runs", "write a note on it"),
    Action("delete", "d,delete", "delete", "runs", "delete for good, after a question that names what goes"),
    Action("pin", "p", "pin", "runs", "pin as the reference that other runs are drawn over"),
    Action("refresh", "f5", "look again", "runs|queue|sweep", "read the runs folder again now"),
    Action("queue", "Q", "queue", "runs", "what waits for a device, in which order, and why", footer=True),
    Action("sweeps", "S", "sweeps", "runs|queue|sweep", "a sweep as a grid of cases and seeds; of several, which"),
    # What is asked of engines, from the list and from a run
    Action("stop", "s", "stop", "runs|monitor|queue", "save and stop the engine; what waits is taken out", footer=True),
    Action("pause", "z", "pause", "runs|monitor|sweep", "hold the engine between two steps"),
    Action("resume", "r", "resume", "runs|monitor", "go on exactly where it was", footer=True),
    Action("hand_over", "f3", "Slurm", "runs|monitor|queue", "go on with it in a job of a Slurm cluster"),
    Action("results", "R", "results", "runs|monitor|compare|sweep", "evaluation results"),
    Action("copy", "C", "copy", "runs|monitor|compare|results|sweep", "copy the id to the clipboard (OSC 52)"),
    Action("copy_path", "", "copy path", "runs|monitor|results|sweep", "copy the path of the run directory"),
    # New run
    Action("next_mistake", "ctrl+g", "mistake", "new", "go to the next wrong value", footer=True),
    Action("launch", "ctrl+r", "run", "new", "launch in the background and watch", footer=True),
    Action("queue", "ctrl+l", "queue", "new", "queue it, or a run for each of several values and seeds", footer=True),
    Action("hand_over", "f3", "Slurm", "new", "the same in jobs of a Slurm cluster"),
    Action("save_preset", "ctrl+s", "save", "new", "save the settings as a preset of your own", footer=True),
    Action("next_section", "ctrl+n,pagedown", "next", "new", "next section of settings", footer=True),
    Action("previous_section", "ctrl+o,pageup", "previous", "new", "previous section of settings"),
    Action("overview", "f2,ctrl+y", "network", "new", "the network, what it costs and what is changed, or the fields",
           footer=True),
    Action("restore", "ctrl+t", "undo", "new", "give the field its preset's value again"),
    Action("discard", "", "discard", "new", "throw this draft away and start from the preset"),
    # Monitor and compare
    Action("full_screen", "f,enter", "full", "monitor|compare|results", "this panel alone, or all again", footer=True),
    Action("next_panel", "tab,j,down", "next", "monitor|compare|results", "go to the next panel"),
    Action("previous_panel", "shift+tab,k,up", "previous", "monitor|compare|results", "go to the panel before"),
    Action("toggle_panel", "1,2,3,4,5,6,7,8,9", "panels", "monitor|compare", "show or hide a panel", each=True),
    Action("smooth_more", "plus", "smooth", "monitor|compare", "smooth curves more (debiased running mean)"),
    Action("smooth_less", "minus", "rough", "monitor|compare", "smooth curves less"),
    Action("log_y", "y", "log y", "monitor|compare", "logarithmic or linear scale of this panel", footer=True),
    Action("all_log_y", "Y", "all log y", "monitor|compare", "the same for every panel"),
    Action("x_axis", "x", "x axis", "monitor|compare", "step, epoch or time along the axis"),
    Action("cursor_left", "left,h", "cursor", "monitor|compare|results", "move the cursor to earlier values"),
    Action("cursor_right", "right,l", "cursor", "monitor|compare|results", "move the cursor to later values"),
    Action("zoom_in", "right_square_bracket", "zoom in", "monitor|compare", "half as much around the cursor"),
    Action("zoom_out", "left_square_bracket", "zoom out", "monitor|compare", "twice as much"),
    Action("zoom_y_in", "right_curly_bracket", "zoom y in", "monitor|compare", "half the values of this panel"),
    Action("zoom_y_out", "left_curly_bracket", "zoom y out", "monitor|compare", "twice the values"),
    Action("block_curves", "b", "bars", "monitor", "this panel's blocks as bars or as curves"),
    Action("all_block_curves", "B", "all bars", "monitor", "the same for every panel of blocks"),
    Action("add_panel", "slash", "metric", "monitor", "a panel for any metric of the record, found by typing",
           footer=True),
    Action("remove_panel", "delete", "remove", "monitor", "take this panel of a metric away again"),
    Action("earlier", "pageup", "earlier", "monitor|compare|results", "scroll a panel of lines back"),
    Action("later", "pagedown", "later", "monitor|compare|results", "scroll a panel of lines on"),
    Action("engine_log", "L", "engine log", "monitor", "the words of the engine instead of the record's events"),
    Action("reference", "p", "reference", "monitor|compare", "a run to draw behind this one", footer=True),
    Action("set", "equals_sign", "set", "monitor", "change a hyperparameter, also as a run is resumed", footer=True),
    Action("manifest", "m", "manifest", "monitor", "what the result depends on: versions, host, data, settings"),
    Action("replay", "space", "replay", "monitor", "play a run that has ended, or hold it", footer=True),
    Action("replay_faster", "greater_than_sign,full_stop", "faster", "monitor", "replay faster"),
    Action("replay_slower", "less_than_sign,comma", "slower", "monitor", "replay slower"),
    Action("export_csv", "w", "CSV", "monitor|compare|results", "write the numbers to a CSV file"),
    Action("export_svg", "W", "SVG", "monitor|compare", "write this panel's picture to an SVG file"),
    # Compare
    Action("next_run", "n", "next run", "compare", "bring the next run to the front, after the last none", footer=True),
    Action("previous_run", "N", "previous", "compare", "bring the run before to the front"),
    Action("hide_run", "H", "hide", "compare", "hide the run in front; without one show all again"),
    Action("solo_run", "o", "solo", "compare", "the run in front alone, or all again"),
    Action("group_seeds", "g", "seeds", "compare", "runs equal but for their seed as one mean, or each", footer=True),
    # Queue
    Action("sooner", "K,shift+up", "sooner", "queue", "let the run wait one place less", footer=True),
    Action("later_in_line", "J,shift+down", "later", "queue", "let the run wait one place more", footer=True),
    Action("first", "less_than_sign", "first", "queue", "the run is the next of its priority"),
    Action("last", "greater_than_sign", "last", "queue", "the run is the last of its priority"),
    Action("hold", "space", "hold", "queue", "start nothing new, or go on", footer=True),
    Action("hold_group", "g", "hold group", "queue", "the same for the group of this run"),
    Action("limit_group", "l", "limit", "queue", "how many runs of this run's group may run at once"),
    Action("requeue", "r", "again", "queue", "let the queue go on with a run that failed or was stopped", footer=True),
    Action("ended", "e", "ended", "queue", "show or hide what has ended"),
    # Sweep
    Action("stop_some", "s", "stop", "sweep", "save and stop the run of this cell, or all of the sweep", footer=True),
    Action("retry", "r", "retry", "sweep", "go on with what failed, was stopped or lost, or is missing", footer=True),
    Action("more_seeds", "e", "seeds", "sweep", "give every case more seeds; only what is new runs", footer=True),
    Action("metric", "m", "metric", "sweep", "the metric whose means are shown, found by typing", footer=True),
    Action("order", "o", "order", "sweep", "cases as planned, or the best first", footer=True),
    Action("reverse_order", "O", "reverse", "sweep", "turn the order round"),
    Action("axis", "a", "chart", "sweep", "accuracies against a number in which the cases differ", footer=True),
    Action("next_axis", "tab", "next chart", "sweep", "the chart of another number or accuracy"),
    # Results
    Action("evaluate", "e", "evaluate", "results", "measure the trained network: choose suites", footer=True),
    Action("stop_evaluation", "s", "stop", "results", "stop the evaluation; what is measured stays", footer=True),
    Action("plots", "g", "plot", "results", "curves and checks over the pinned run, or the table again", footer=True),
    Action("reload", "f5", "look again", "results", "read the results again now"),
)  # fmt: skip


def of(screen: str) -> list[Action]:
    """The actions of a screen itself, without those that are everywhere."""
    return [action for action in ACTIONS if action.on(screen)]


def bindings(screen: str) -> list[BindingType]:
    """Textual's bindings for a screen ('all': for the app)."""
    made: list[BindingType] = []
    for action in of(screen):
        made += [
            Binding(
                key,
                f"{action.id}({key!r})" if action.each else action.id,
                action.label,
                show=action.footer,
                key_display=action.shown_keys.split(" ")[0],
                priority=screen == "all" and key.startswith("ctrl+"),  # over dialogs too
                tooltip=action.help,
            )
            for key in action.keys.split(",")
            if key
        ]
    return made
