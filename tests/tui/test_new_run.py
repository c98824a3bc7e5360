"""The form: presets, fields with their mistakes beside them, rows of blocks, launch, drafts."""

import time

import pytest
from textual.widgets import Input, OptionList, Select, Static, Switch

from engine.experiment import presets
from engine.experiment.mistakes import RequestError
from engine.runs import devices, launch
from hah_tui import engines
from hah_tui.catalogue import catalogue
from hah_tui.screens import keeper
from hah_tui.screens.dialogs import Confirm, Message
from hah_tui.screens.form import SheetBar
from hah_tui.screens.new_run import Keeper
from hah_tui.screens.pick_preset import PickPreset
from hah_tui.settings import drafts_folder, save_draft, stored_drafts
from hah_tui.widgets import canvas
from hah_tui.widgets.key_bar import KeyBar
from tests.tui.driving import answer, burst, drive, form, retype, to, until, words
from tests.tui.made import made


@pytest.fixture
def launched(monkeypatch, runs):
    """What would have been started; nothing is."""
    asked = []

    class Process:
        returncode = None

        def poll(self):
            return 0

    def begin(experiment, origin, folder):
        asked.append((experiment, origin.preset, origin.sets, folder))
        return made(runs, id="launched", status="running"), Process()

    monkeypatch.setattr(engines, "begin", begin)
    monkeypatch.setattr(launch, "await_start", lambda run, process: [])
    return asked


def control(app, name):
    """The mounted control of a setting, if it is."""
    found = [one for one in app.screen.query("#fields Input, #fields Select, #fields Switch") if one.name == name]
    return found[0] if found else None


def beside(app, name):
    """What stands beside a field."""
    row = control(app, name).parent
    return row.said, row.wrong


def test_presets_stand_in_groups_with_what_they_are(runs):
    async def body(pilot, app):
        await pilot.press("n")
        box = app.screen.query_one(OptionList)
        await until(pilot, lambda: box.option_count)
        lines = [str(box.get_option_at_index(index).prompt) for index in range(box.option_count)]
        assert [line for line in lines if not line.startswith(" ")] == ["Quick", "The paper's", "Ablations", "Study"]
        assert {line.strip() for line in lines if line.startswith(" ")} == {p.name for p in presets.listed()}
        said = words(app, "#description")
        assert "handwritten digits" in said
        assert "[ 3]" in said  # the diagram
        assert "MACs per image" in said
        box.highlighted = box.get_option_index("p:paper-hah")
        await pilot.pause()
        assert "[ 6]   7" in words(app, "#description")
        await pilot.press("escape")
        assert app.screen.PLACE == "runs"

    drive(runs, body)


def test_every_field_of_the_schema_is_in_the_form_and_few_are_mounted(runs):
    from engine.experiment.fields import fields

    async def body(pilot, app):
        await form(pilot, app)
        seen = set()
        for _ in [sheet for sheet in app.screen._sheets if sheet.there]:
            mounted = [one.name for one in app.screen.query("#fields Input, #fields Select, #fields Switch")]
            assert len(mounted) <= 15
            seen |= {name.partition("[")[0] for name in mounted}
            before = app.screen._sheet
            await pilot.press("ctrl+n")
            await until(pilot, lambda before=before: app.screen._sheet != before and app.screen.query("#fields Row"))
            await pilot.pause()
        assert seen == set(fields())
        await pilot.press("pageup")
        await until(pilot, lambda: app.screen._sheet == len(app.screen._sheets) - 1)

    drive(runs, body)


def test_a_mistake_is_said_beside_its_field_and_never_launches(runs, launched):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "hah.lambda")
        await retype(pilot, app, "-1")
        assert beside(app, "hah.lambda") == ("must be a number from 0 to 1000000, got -1", True)
        assert "1 mistake" in words(app, "#head")
        assert "must be a number from 0 to" in words(app, "#explain")
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert not launched
        assert "hah.lambda" in list(app._notifications)[-1].message
        await pilot.press("ctrl+s")  # nor is it saved
        assert app.screen.PLACE == "new"
        await pilot.press("ctrl+t")
        assert beside(app, "hah.lambda")[1] is False
        assert app.screen.draft.experiment is not None

    drive(runs, body)


def test_mistakes_of_other_fields_are_found_by_a_key(runs):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "data.train_limit")
        await retype(pilot, app, "300")
        await to(pilot, app, "data.validation")
        await retype(pilot, app, "300")
        assert app.screen.draft.wrong == ["data.validation"]
        await to(pilot, app, "seed")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: app.screen.focused is control(app, "data.validation"))
        assert "must leave training images over" in beside(app, "data.validation")[0]

    drive(runs, body)


def test_blocks_have_a_row_each_and_follow_their_number(runs):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "model.hah_blocks")
        await retype(pilot, app, "8")
        assert [sheet.title for sheet in app.screen._sheets if sheet.blocks] == ["blocks", "blocks 8+"]
        await to(pilot, app, "hah.alpha")
        assert len(app.screen.query("BlockRow")) == 7
        await retype(pilot, app, "0.5")
        assert app.screen.draft.experiment.alphas == [0.5, 0.025, *[0.013] * 6]
        assert "0.045, 0.025, 0.013" in words(app, "#summary")
        await retype(pilot, app, "x")
        row = app.screen.query("BlockRow").first()
        assert "alpha must be" in row.text()
        await pilot.press("ctrl+t")
        assert app.screen.focused.value == "0.045"
        await to(pilot, app, "model.hah_blocks")
        await retype(pilot, app, "0")
        index = next(i for i, sheet in enumerate(app.screen._sheets) if sheet.title == "blocks")
        app.screen._go(index)
        await until(pilot, lambda: app.screen._sheet == index and not app.screen.query("#fields Input"))
        await until(pilot, lambda: "No HaH blocks" in str(app.screen.query("#fields Static").first(Static).render()))

    drive(runs, body, (160, 48))


def test_choices_switches_and_sections(runs):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "train.adversarial")
        assert control(app, "train.adversarial.eps") is None or control(app, "train.adversarial.eps").disabled
        await pilot.press("space")
        assert isinstance(app.screen.focused, Switch)
        assert app.screen.draft.experiment.train.adversarial is not None
        await to(pilot, app, "model.divisive_norm.pool")
        assert isinstance(app.screen.focused, Select)
        app.screen.focused.value = "1"
        await pilot.pause()
        assert app.screen.draft.experiment.model.divisive_norm.pool == 1
        app.screen._go(0)
        await pilot.press("f2")
        assert app.screen.query_one("#side").display
        assert "model.divisive_norm.pool" in words(app, "#summary")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen.focused is control(app, "name"))

    drive(runs, body)


def test_launch_goes_through_the_one_way_and_opens_the_monitor(runs, launched):
    async def body(pilot, app):
        await form(pilot, app)
        await retype(pilot, app, "mine")
        await to(pilot, app, "train.lr")
        await retype(pilot, app, "0.01")
        assert stored_drafts() or app.screen.keeper.busy
        await pilot.press("ctrl+r")
        await until(pilot, lambda: type(app.screen).__name__ == "MonitorScreen")
        experiment, preset, sets, folder = launched[0]
        assert (experiment.name, experiment.train.lr, preset, folder) == ("mine", 0.01, "quickstart", runs)
        assert presets.load(preset, sets) == experiment
        await until(pilot, lambda: not stored_drafts())  # it became a run
        await pilot.press("escape")
        await until(pilot, lambda: app.screen.PLACE == "runs")

    drive(runs, body)


def test_the_screen_lives_while_the_engine_starts(runs, launched, monkeypatch):
    go_on = []

    def slowly(run, process):
        while not go_on:
            time.sleep(0.01)
        return []

    monkeypatch.setattr(launch, "await_start", slowly)

    async def body(pilot, app):
        await form(pilot, app)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "is starting" in words(app, "#head"))
        await pilot.press("ctrl+r")  # once is enough
        await pilot.press("ctrl+n")
        await until(pilot, lambda: app.screen._sheet == 1)
        go_on.append(True)
        await until(pilot, lambda: type(app.screen).__name__ == "MonitorScreen")
        assert len(launched) == 1

    drive(runs, body)


def test_what_only_the_engine_knows_stands_beside_the_field_too(runs, monkeypatch):
    def refuse(*_):
        raise RequestError("compute.device: cuda:1 is not there; this machine shows cuda:0")

    monkeypatch.setattr(engines, "begin", refuse)

    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "train.lr")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: control(app, "compute.device") is not None and beside(app, "compute.device")[1])
        assert "this machine shows cuda:0" in beside(app, "compute.device")[0]
        assert app.screen.PLACE == "new"

    drive(runs, body)


def test_an_engine_that_dies_at_the_start_is_shown(runs, launched, monkeypatch):
    def die(run, process):
        raise launch.LaunchError("x did not start\nTraceback: [bold]no[/]")

    monkeypatch.setattr(launch, "await_start", die)

    async def body(pilot, app):
        await form(pilot, app)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: isinstance(app.screen, Message))
        await pilot.press("enter")
        assert app.screen.PLACE == "new"

    drive(runs, body)


def test_drafts_are_kept_at_every_change_and_offered(runs):
    async def write(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "train.lr")
        await retype(pilot, app, "0.0")
        await until(pilot, lambda: [one["texts"] for one in stored_drafts().values()] == [{"train.lr": "0.0"}])

    async def find(pilot, app):
        await pilot.press("n")
        box = app.screen.query_one(OptionList)
        await until(pilot, lambda: box.option_count)
        assert "train.lr" in words(app, "#description")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.draft is not None and app.screen.query("#fields Input"))
        assert app.screen.draft.text("train.lr") == "0.0"
        assert "must be" in app.screen.draft.mistakes["train.lr"]
        app.screen.action_discard()
        await pilot.pause()
        assert app.screen.draft.mistakes == {}
        await until(pilot, lambda: not stored_drafts())
        await pilot.press("escape")
        assert app.screen.draft is None

    drive(runs, write)  # gone without a word
    drive(runs, find)


def test_a_broken_draft_is_survived(runs):
    save_draft("a", {"base": 3})
    (drafts_folder() / "b.json").write_text("{")
    (drafts_folder() / "c.json").write_text('{"base": 3, "written": "x"}')

    async def body(pilot, app):
        await form(pilot, app)

    drive(runs, body)


def test_save_as_a_preset_of_ones_own(runs, own_presets):
    async def body(pilot, app):
        await form(pilot, app, "paper-hah")
        await to(pilot, app, "hah.lambda")
        await retype(pilot, app, "0.3")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: type(app.screen).__name__ == "Ask")
        await pilot.press("slash")
        assert "1 to 80 letters" in words(app, "#said")
        await answer(pilot, "mine")
        await until(pilot, lambda: (own_presets / "mine.yaml").exists())
        assert presets.load("mine").hah.lambda_ == 0.3

    drive(runs, body)


def test_clone_a_run_and_edit_it(runs, launched):
    made(runs, id="a-run", changed={"hah.lambda": 0.7})

    async def body(pilot, app):
        await pilot.press("c")
        await until(pilot, lambda: getattr(app.screen, "draft", None) is not None and app.screen.query("#fields Input"))
        assert "a-run" in words(app, "#head")
        assert app.screen.draft.text("hah.lambda") == "0.7"
        await pilot.press("ctrl+r")
        await until(pilot, lambda: launched)
        assert launched[0][2] == ["hah.lambda=0.7"]

    drive(runs, body)


def test_devices_are_offered_with_their_free_memory(runs, monkeypatch):
    gpu = devices.Gpu(0, "GPU-1", "NVIDIA [H200]", 139.0, 120.5, 0.0, True)
    monkeypatch.setattr(devices, "gpus", lambda: [gpu])

    async def body(pilot, app):
        await form(pilot, app)
        await until(pilot, lambda: len(control(app, "compute.device")._options) == 3)
        offered = [str(prompt) for prompt, _ in control(app, "compute.device")._options]
        assert offered[2] == "cuda:0  NVIDIA [H200], 120 of 139 GiB free, has an engine"
        control(app, "compute.device").value = "cuda:0"
        await pilot.pause()
        assert app.screen.draft.experiment.compute.device == "cuda:0"

    drive(runs, body)


def test_time_is_expected_from_earlier_runs(runs):
    import socket

    made(runs, images_per_second=1442.0, engine={"host": socket.gethostname()})

    async def body(pilot, app):
        await form(pilot, app)
        await until(pilot, lambda: "about 0:12" in words(app, "#head"))

    drive(runs, body)


def test_keys_of_the_form_are_not_there_before_it(runs):
    async def body(pilot, app):
        await pilot.press("n", "ctrl+r", "ctrl+n", "ctrl+s", "ctrl+t")
        assert app.screen.PLACE == "new"
        assert app.screen.draft is None

    drive(runs, body)


def test_letters_are_text_and_arrows_move(runs):
    async def body(pilot, app):
        await form(pilot, app)
        await pilot.press("q", "question_mark", "T")
        assert app.screen.focused.value.endswith("q?T")
        first = app.screen.focused
        await pilot.press("down")
        assert isinstance(app.screen.focused, Input)
        assert app.screen.focused is not first
        await pilot.press("up")
        assert app.screen.focused is first

    drive(runs, body)


def test_keys_that_come_faster_than_pictures_act_in_their_order(runs):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "train.epochs")
        burst(app, "ctrl+u", *"67", "backspace", "4", "down", "ctrl+u", "3", "left", "2", "up", "end", "0")
        await until(pilot, lambda: app.screen.draft.text("train.epochs") == "640")
        assert app.screen.draft.text("train.batch_size") == "23"

    drive(runs, body)


def test_the_last_of_each_draft_wins(runs):
    async def body(pilot, app):
        keeper = Keeper(app)
        for number in range(50):
            keeper.keep("a", {"number": number})
            keeper.keep("b", {"number": -number})
        await until(pilot, lambda: not keeper.busy)
        assert {name: one["number"] for name, one in stored_drafts().items()} == {"a": 49, "b": -49}
        keeper.keep("a", None)
        await until(pilot, lambda: not keeper.busy)
        assert list(stored_drafts()) == ["b"]
        (drafts_folder() / "c.json").mkdir()
        keeper.keep("c", {"number": 1})
        await until(pilot, lambda: not keeper.busy)
        assert "cannot be kept" in keeper.problem
        assert list(stored_drafts()) == ["b"]

    drive(runs, body)


def test_a_second_draft_overwrites_no_first_and_each_can_be_thrown_away(runs):
    async def write(pilot, app):
        for preset, lr in (("quickstart", "0.5"), ("paper-hah", "0.25")):
            if app.screen.PLACE == "new":
                await pilot.press("escape", "escape")
                await until(pilot, lambda: app.screen.PLACE == "runs")
            await form(pilot, app, preset)
            await to(pilot, app, "train.lr")
            await retype(pilot, app, lr)
            await until(pilot, lambda lr=lr: lr in [one["texts"].get("train.lr") for one in stored_drafts().values()])
        await pilot.press("escape")
        box = app.screen.query_one(OptionList)
        await until(pilot, lambda: str(box.get_option_at_index(0).prompt) == "Your drafts")
        assert "paper-hah" in str(box.get_option_at_index(1).prompt)
        assert "quickstart" in str(box.get_option_at_index(2).prompt)
        await pilot.press("down", "delete")
        await until(pilot, lambda: type(app.screen).__name__ == "Confirm")
        await pilot.press("y")
        await until(pilot, lambda: [one["texts"]["train.lr"] for one in stored_drafts().values()] == ["0.25"])
        assert str(box.get_option_at_index(0).prompt) == "Your draft"
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.draft is not None)
        assert app.screen.draft.text("train.lr") == "0.25"

    drive(runs, write)


def test_the_one_draft_of_earlier_versions_is_found(runs):
    save_draft("x", {"number": 1})
    (drafts_folder() / "x.json").rename(drafts_folder().with_name("draft.json"))
    assert [one["number"] for one in stored_drafts().values()] == [1]
    assert len(stored_drafts()) == 1


def test_presets_are_searched_as_one_types(runs):
    async def body(pilot, app):
        await pilot.press("n")
        box = app.screen.query_one(OptionList)
        await until(pilot, lambda: box.option_count)
        every = box.option_count
        await pilot.press(*"ADV")
        await until(pilot, lambda: box.option_count == 2)
        assert box.highlighted_option.id == "p:paper-adversarial"
        await pilot.press("x", "x")
        await until(pilot, lambda: not box.option_count)
        assert "nothing has all these words" in words(app, "#description")
        await pilot.press("enter")  # nothing to take
        assert app.screen.draft is None
        await pilot.press("escape")
        await until(pilot, lambda: box.option_count == every)
        await pilot.press(*"4", "down", "enter")
        await until(pilot, lambda: app.screen.draft is not None)

    drive(runs, body)


def test_down_goes_to_the_next_block(runs):
    async def body(pilot, app):
        await form(pilot, app, "paper-hah")
        await to(pilot, app, "hah.alpha")
        await pilot.press("down", "down")
        assert app.screen.focused.name == "hah.alpha[3]"
        await pilot.press("tab", "up")
        assert app.screen.focused.name == "model.divisive_norm.sigma[2]"
        await pilot.press("up", "up")
        assert app.screen.focused.name == "model.divisive_norm.sigma[6]"

    drive(runs, body)


def test_the_keys_that_do_something_now_come_first_and_help_is_never_cut(runs):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "train.lr")
        bar = app.screen.query_one(KeyBar)
        assert "ctrl+g" not in bar.text()
        await retype(pilot, app, "-1")
        await until(pilot, lambda: "ctrl+g mistake" in bar.text())
        assert "ctrl+r" not in bar.text()  # it would only be refused
        assert bar.text().endswith("esc back f1 help")
        assert len(bar.text()) <= 40

    drive(runs, body, (40, 12))


def test_sheets_and_keys_are_clicked(runs):
    async def body(pilot, app):
        await form(pilot, app)
        bar, keys = app.screen.query_one(SheetBar), app.screen.query_one(KeyBar)
        await pilot.click(SheetBar, offset=(bar.text().index("data") + 1, 0))
        await until(pilot, lambda: control(app, "data.dataset") is not None)
        assert app.screen._sheets[app.screen._sheet].title == "data"
        await pilot.click(KeyBar, offset=(keys.text().index("network"), 0))
        await until(pilot, lambda: app.screen.has_class("overview"))
        app.screen._go(len(app.screen._sheets) - 1)  # the last sheet is to be seen too
        await until(pilot, lambda: bar.text().rstrip().endswith("compute"))
        assert bar.text().startswith("<")

    drive(runs, body, (80, 24))


def test_sheets_with_mistakes_are_told(runs):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "hah.lambda")
        await retype(pilot, app, "x")
        app.screen._go(0)
        bar = app.screen.query_one(SheetBar)
        await until(pilot, lambda: control(app, "seed") is not None)
        at = bar.text().index(" hah ") + 1
        assert set(bar.rows[0][1][at : at + 3]) == {canvas.BAD}

    drive(runs, body, (100, 30))


def test_the_control_takes_the_room_there_is(runs):
    async def body(pilot, app):
        await form(pilot, app)
        narrow = control(app, "description").size.width
        await pilot.resize_terminal(160, 48)
        await until(pilot, lambda: control(app, "description").size.width > narrow + 10)
        assert control(app, "seed").parent.text().rstrip().endswith("to 4294967295")
        await pilot.resize_terminal(40, 12)
        await until(pilot, lambda: control(app, "description").size.width < 30)
        assert control(app, "seed").size.width == control(app, "description").size.width

    drive(runs, body, (80, 24))


def test_on_the_way_back_the_presets_keep_their_cursor_and_have_the_present_colours(runs):
    async def body(pilot, app):
        await form(pilot, app, "paper-hah")
        app.action_next_theme()
        await pilot.press("escape")
        box = app.screen.query_one(OptionList)
        await until(pilot, lambda: app.colour("accent") in str(box.get_option_at_index(0).prompt.spans))
        box.highlighted = box.get_option_index("p:paper-hah")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.draft is not None and app.screen.query("#fields Input"))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen.draft is None)
        await pilot.pause(0.3)
        assert box.highlighted_option.id == "p:paper-hah"

    drive(runs, body)


async def drafted(pilot, app):
    """Open the form and change one setting, which is kept as a draft."""
    await form(pilot, app)
    await to(pilot, app, "train.lr")
    await pilot.press("end", "5")
    await until(pilot, stored_drafts)


def test_a_draft_is_listed_as_it_was_left_however_slow_the_disk_is(runs, monkeypatch):
    def slowly(*draft):
        time.sleep(0.6)
        save_draft(*draft)

    async def body(pilot, app):
        await drafted(pilot, app)
        monkeypatch.setattr(keeper, "save_draft", slowly)
        await pilot.press("7", "escape")
        box = app.screen.query_one(OptionList)
        await pilot.pause(0.3)  # the disk has been read, and has the draft as it was
        assert box.highlighted_option.id.startswith("d:")
        assert "0.00157" in words(app, "#description")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.draft is not None)
        assert app.screen.draft.text("train.lr") == "0.00157"
        await until(pilot, lambda: not app.screen.keeper.busy)

        # Thrown away it is gone, whatever the disk answers while that is asked.
        await pilot.press("escape")
        await until(pilot, lambda: box.highlighted_option and box.highlighted_option.id.startswith("d:"))
        await pilot.press("delete")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "  0.001 → 0.00157" in app.screen._lines
        screen = app.screen_stack[-2]
        screen.query_one(PickPreset)._arrived(catalogue())
        await pilot.press("y")
        await until(pilot, lambda: app.screen is screen)
        await pilot.pause(0.2)
        assert not any((one.id or "").startswith("d:") for one in box.options)

    drive(runs, body)


def test_what_is_typed_and_taken_back_is_no_draft(runs):
    async def body(pilot, app):
        await drafted(pilot, app)
        await pilot.press("backspace")
        await until(pilot, lambda: not stored_drafts())
        await pilot.press("escape")
        assert not any((one.id or "").startswith("d:") for one in app.screen.query_one(OptionList).options)

    drive(runs, body)


def test_words_typed_before_there_is_a_line_are_in_it(runs):
    async def body(pilot, app):
        burst(app, *"nquick")  # q is a letter then, and leaves nothing
        await until(pilot, lambda: [line.value for line in app.screen.query("#words")] == ["quick"])

    drive(runs, body)


def test_delete_throws_a_draft_away_behind_the_words_too(runs):
    async def body(pilot, app):
        await drafted(pilot, app)
        await pilot.press("escape", *"qui")
        await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 5)  # with two headings
        await pilot.press("home", "delete")  # a letter, as long as there is one
        assert app.screen.query_one("#words").value == "ui"
        await pilot.press("end", "delete")
        await until(pilot, lambda: isinstance(app.screen, Confirm))

    drive(runs, body)


def test_what_is_typed_counts_for_the_key_behind_it(runs, launched):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "train.epochs")
        burst(app, "ctrl+u", "7", "ctrl+r")
        await until(pilot, lambda: launched)
        assert launched[0][0].train.epochs == 7

    drive(runs, body)


def test_letters_behind_the_next_section_go_into_its_first_field(runs, launched):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "train.epochs")
        burst(app, "ctrl+u", "7", "ctrl+o", "ctrl+n", "down", "ctrl+u", "9", "ctrl+r")
        await until(pilot, lambda: launched)
        assert (launched[0][0].train.epochs, launched[0][0].train.batch_size) == (7, 9)
        assert launched[0][2] == ["train.epochs=7", "train.batch_size=9"]

    drive(runs, body)


def test_letters_behind_the_way_back_are_words_to_search(runs):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "train.epochs")
        burst(app, "ctrl+u", "7", "escape", "s", "m", "o", "k", "e")
        line = app.screen.query_one("#words")
        await until(pilot, lambda: line.value == "smoke")
        await until(pilot, lambda: len(stored_drafts()) == 1)
        (draft,) = stored_drafts().values()
        assert draft["texts"] == {"train.epochs": "7"}

    drive(runs, body)


def test_what_is_typed_into_a_dialog_before_it_is_there_is_in_it(runs, monkeypatch):
    asked = []
    monkeypatch.setattr(engines, "enqueue_sweep", lambda plan, folder: asked.append(plan) or "s waits")

    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "train.epochs")
        burst(app, "ctrl+u", "7", "ctrl+l", "3", "enter")
        await until(pilot, lambda: asked)
        assert len(asked[0].seeds) == 3

    drive(runs, body)


def test_what_is_typed_before_leaving_is_kept(runs):
    async def body(pilot, app):
        await form(pilot, app)
        await to(pilot, app, "train.epochs")
        burst(app, "ctrl+u", "7", "ctrl+q")
        await until(pilot, lambda: not app.is_running)

    drive(runs, body)
    (draft,) = stored_drafts().values()
    assert draft["texts"] == {"train.epochs": "7"}
