"""The variants that learn from cells: what they share, what they learn from, what the table says of them."""

import pandas as pd
import pytest

from hpa_kit.ablation.cells import plan_cells
from hpa_kit.ablation.classifiers import AblationPlan
from hpa_kit.ablation.scores import COLUMNS
from hpa_kit.ablation.table import markdown
from hpa_kit.cli.main import make_parser, settings_of


@pytest.fixture
def chosen(settings):
    return settings(variants="from_cells", folds=2, rules="best")


@pytest.fixture
def plan(chosen):
    plan = AblationPlan(chosen)
    plan_cells(plan)
    return plan


def commands(plan, name):
    return [list(step.command) for step in plan.steps.values() if step.command[0] == name]


def value(command, option):
    return command[command.index(option) + 1]


def test_each_kind_of_cells_is_learnt_from_and_scored_with_its_own_label_maps(plan, chosen):
    for command in commands(plan, "infer"):
        masks = "classical" if "_classical_" in value(command, "--out") else "true"
        assert ("label_maps" in value(command, "--masks")) == (masks == "classical")
    with_masks = [command for command in commands(plan, "train") if "--masks" in command]
    assert all(
        ("classical" in value(command, "--out")) == ("label_maps" in value(command, "--masks"))
        for command in with_masks
    )


def test_soft_labels_are_those_of_every_fold_and_come_before_what_learns_from_them(plan, chosen):
    for command in commands(plan, "pseudo-labels"):
        teachers = command[command.index("--members") + 1 : command.index("--masks")]
        assert len(teachers) == chosen.folds and value(command, "--labels") == "soft"
    done = set()
    for step in plan.steps.values():
        command = list(step.command)
        needed = [value(command, "--pseudo-labels")] if "--pseudo-labels" in command else []
        if command[0] == "pseudo-labels":
            needed = command[command.index("--members") + 1 : command.index("--masks")]
        assert set(needed) <= done
        done.add(value(command, "--out"))


def test_field_pooling_is_trained_once_for_both_kinds_of_cells(plan, chosen):
    plain = [command for command in commands(plan, "train") if "round0" in value(command, "--out")]
    assert len(plain) == len(chosen.seeds)


def test_both_kinds_of_members_have_learnt_from_all_fields(plan, chosen):
    assert len(plan.ensembles) == 2 * len(chosen.seeds)
    trained = {value(command, "--out"): command for command in commands(plan, "train")}
    for ensemble in plan.ensembles.values():
        both = [trained[str(member.checkpoint)] for member in ensemble.members]
        assert all("--all-fields" in command for command in both)
        assert ["crops" in command for command in both] == [False, True]


def test_every_command_is_one_that_the_command_line_takes(plan):
    kinds = set()
    for step in plan.steps.values():
        arguments = make_parser(step.command).parse_args(step.command)
        settings = settings_of(arguments.settings_command, arguments)
        kinds.add(getattr(settings, "network", step.command[0]))
    assert kinds == {"cam", "crops", "segment", "pseudo-labels", "infer"}


def test_the_table_tells_the_gain_over_field_pooling(settings):
    values = {("field", 0): 0.9, ("field", 1): 0.8, ("cells", 0): 0.95, ("cells", 1): 0.87}
    rows = [(variant, seed, "true", "best", of) for (variant, seed), of in values.items()]
    text = markdown(
        pd.DataFrame(rows, columns=list(COLUMNS)), settings(variants="field,cells", rules="best", seeds="0,1")
    )
    line = next(line for line in text.splitlines() if line.startswith("| image logits pooled"))
    assert "0.910 ± 0.057 (0.950, 0.870) | +0.060" in line
