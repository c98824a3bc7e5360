"""What is missing from the tables, and the command that would fill each gap."""

from engine.experiment.schema import MinimumNormSuite
from engine.report import figures, formats, tables
from engine.report.published import L2, LINF, NOISY
from tests.report.conftest import all_formats, attacks, cell, noise, table, write


def test_an_empty_folder_names_the_runs_to_make(runs):
    report = tables.paper([runs])
    hah = ["hah run paper-hah-lambda-1", "hah run paper-hah"]
    assert table(report, "table-1").commands == ["hah run paper-standard", *hah]
    assert "hah run paper-adversarial" in table(report, "table-2").commands
    assert table(report, "table-3").commands == [
        *hah, "hah run no-hah-loss", "hah run batch-norm-lambda-1", "hah run batch-norm",
        "hah run no-threshold-lambda-1", "hah run no-threshold",
    ]  # fmt: skip
    figure_6 = figures.figures(report.networks)[-1]
    assert list(figure_6.missing) == [f"hah run blocks-{n}" for n in range(7)]
    for text in all_formats(report):
        assert "92.5" in text or "0.925" in text
    assert "hah run no-threshold" in all_formats(report)[0]


def test_what_is_missing_of_a_run_names_its_evaluation(runs, made):
    run = made("paper-hah", results={"noise": noise({0.1: 0.6})})
    report = tables.paper([runs])
    assert cell(report, "table-1", "paper-hah", NOISY).missing == ()
    assert cell(report, "table-1", "paper-hah", LINF).missing == (f"hah eval {run.id} --suite attacks",)
    assert cell(report, "table-2", "paper-hah", "fog").missing == (f"hah eval {run.id} --suite corruptions",)
    by_key = {figure.key: figure.missing for figure in figures.figures(report.networks)}
    assert f"hah eval {run.id} --suite sparsity" in by_key["figure-2"]
    assert by_key["figure-4"] == ("hah run paper-standard", "hah run paper-hah-lambda-1")
    assert f"hah eval {run.id} --suite minimum_norm" in by_key["figure-5"]
    masked = {one.title: one.missing for one in report.suspicions}
    assert masked["HaH"] == (
        f"hah eval {run.id} --suite masking",
        f"hah eval {run.id} --suite masking --set evaluate.masking.norm=l2 --set evaluate.masking.eps=0.25",
    )
    assert masked["Adversarial 8/255"] == ("hah run paper-adversarial",)


def test_settings_that_would_not_measure_it_are_changed_in_the_command(runs, made):
    sets = ["evaluate.attacks.linf=[8/255]", "evaluate.noise.levels=[0.05]"]
    run = made("paper-hah", sets=sets, results={"attacks": attacks(("linf", 8 / 255, 0.01))})
    report = tables.paper([runs])
    assert cell(report, "table-1", "paper-hah", LINF).missing == (
        f"hah eval {run.id} --suite attacks --set 'evaluate.attacks.linf=[2/255]'",
    )
    assert cell(report, "table-1", "paper-hah", L2).missing == (f"hah eval {run.id} --suite attacks",)
    assert cell(report, "table-1", "paper-hah", NOISY).missing == (
        f"hah eval {run.id} --suite noise --set 'evaluate.noise.levels=[0.1]'",
    )


def test_attacks_that_are_not_the_papers_are_changed_in_the_command(runs, made):
    """A seed that was measured with other attacks than another is not averaged; its command must not repeat them."""
    made("paper-hah", seed=1, results={"attacks": attacks(("linf", 2 / 255, 0.2))})
    sets = ["evaluate.attacks.steps=300", "evaluate.attacks.restarts=5", "evaluate.attacks.methods=[autoattack]"]
    second = made("paper-hah", seed=2, sets=sets)
    options = {"settings": {"steps": 300, "restarts": 5}, "method": 3}
    write(second, "attacks", attacks(("linf", 2 / 255, 0.1), methods=("autoattack",)), **options)
    found = cell(tables.paper([runs]), "table-1", "paper-hah", LINF)
    assert found.ours.values == (0.2,)
    assert found.missing == (
        f"hah eval {second.id} --suite attacks --set evaluate.attacks.steps=100 --set evaluate.attacks.restarts=1"
        " --set 'evaluate.attacks.methods=[apgd-ce,apgd-t]'",
    )


def test_a_seed_that_lacks_a_suite_is_named_and_counted(runs, made):
    made("paper-hah", seed=1, results={"noise": noise({0.1: 0.6}), "attacks": attacks(("linf", 2 / 255, 0.2))})
    second = made("paper-hah", seed=2, results={"noise": noise({0.1: 0.7})})
    report = tables.paper([runs])
    found = cell(report, "table-1", "paper-hah", LINF)
    assert found.ours.values == (0.2,)
    assert found.missing == (f"hah eval {second.id} --suite attacks",)
    assert "1 of 2 seeds" in formats.markdown_table(table(report, "table-1"))


def test_commands_for_masking_undo_a_runs_own_weak_settings(runs, made):
    sets = [f"evaluate.masking.{one}" for one in ("norm=l2", "eps=0.5", "steps=5", "queries=5")]
    run = made("paper-hah", sets=sets)
    [found] = [one for one in tables.paper([runs]).suspicions if one.title == "HaH"]
    strong = " --set evaluate.masking.steps=100 --set evaluate.masking.queries=1000"
    assert found.missing == (
        f"hah eval {run.id} --suite masking --set evaluate.masking.norm=linf --set evaluate.masking.eps=2/255{strong}",
        f"hah eval {run.id} --suite masking --set evaluate.masking.eps=0.25{strong}",
    )


def test_commands_for_minimum_norms_undo_a_runs_own_weak_settings(runs, made):
    run = made("paper-hah", sets=["evaluate.minimum_norm.steps=5", "evaluate.minimum_norm.trials=0"])
    missing = figures.figures(tables.paper([runs]).networks)[3].missing
    trials = MinimumNormSuite().trials
    assert (
        f"hah eval {run.id} --suite minimum_norm --set evaluate.minimum_norm.steps=300"
        f" --set evaluate.minimum_norm.trials={trials}"
    ) in missing
