"""Rules of one's own beside the kit's."""

import sys
from types import ModuleType

import numpy as np
import pytest

from hpa_kit.config import EnsembleSettings, TuneSettings, make_settings
from hpa_kit.config.kinds import RULE_NAMES
from hpa_kit.config.scoring import NegativeStep
from hpa_kit.errors import InputError
from hpa_kit.scoring import SCORING_FUNCTIONS, FieldEvidence, add_rule, scoring_function
from hpa_kit.scoring.functions import code_of
from hpa_kit.tuning import tune


@pytest.fixture(autouse=True)
def no_rule_stays():
    rules, names = dict(SCORING_FUNCTIONS), list(RULE_NAMES)
    yield
    SCORING_FUNCTIONS.clear()
    SCORING_FUNCTIONS.update(rules)
    RULE_NAMES[:] = names


@pytest.fixture
def seen():
    maps = np.zeros((19, 4, 4), np.float32)
    cells = np.repeat(np.array([1, 1, 2, 2], np.int32), 4).reshape(4, 4)
    return FieldEvidence(np.full(19, 0.5, np.float32), maps, maps, cells, cells, np.zeros((4, 4)), 2)


def flat(seen):
    return np.full((seen.n_cells, 19), 0.25)


def test_an_added_rule_scores_with_its_steps_and_those_that_follow(seen):
    add_rule("flat", flat, steps=[NegativeStep()])
    rows = scoring_function("flat")(seen)
    assert (rows[:, :18] == 0.25).all()
    assert (rows[:, 18] == 0.75).all()


def test_settings_take_its_name_once_it_is_added():
    values = {"members": ["a"], "rule": "flat"}
    with pytest.raises(InputError, match="e.yaml: rule: there is no such rule.*add_rule.*found 'flat'"):
        make_settings(EnsembleSettings, values, source="e.yaml")
    add_rule("flat", flat)
    assert make_settings(EnsembleSettings, values).rule == "flat"
    with pytest.raises(InputError, match="did you mean 'flat'.*found 'flatt'"):
        make_settings(EnsembleSettings, values | {"rule": "flatt"})


@pytest.mark.parametrize("name", sorted(SCORING_FUNCTIONS))
def test_the_kits_rules_cannot_be_replaced(name):
    with pytest.raises(InputError, match=f"{name}.*one of the kit's own"):
        add_rule(name, flat)


def test_one_of_ones_own_can_be_replaced(seen):
    add_rule("flat", lambda seen: np.zeros((seen.n_cells, 19)))
    add_rule("flat", flat)
    assert RULE_NAMES.count("flat") == 1
    assert scoring_function("flat")(seen).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((3, 19)), r"gives \(3, 19\); expected \(2, 19\)"),
        (np.zeros((2, 18)), r"gives \(2, 18\)"),
        (np.zeros(19), r"gives \(19,\)"),
        (np.full((2, 19), -0.1), "from -0.1 to -0.1; expected confidences from 0 to 1"),
        (np.full((2, 19), 1.5), "from 1.5 to 1.5"),
        (np.full((2, 19), np.nan), "from nan to nan"),
    ],
)
def test_what_is_no_table_of_confidences_is_said(seen, rows, message):
    add_rule("wrong", lambda seen: rows)
    with pytest.raises(InputError, match=f"rule: it gives.*{message}|{message}"):
        scoring_function("wrong")(seen)


def test_results_depend_on_the_file_that_a_rule_stands_in(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    module = ModuleType("mine")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "mine", module)
    exec("def mine(seen):\n    return seen", vars(module))
    add_rule("mine", module.mine)
    assert code_of("mine") == path
    assert code_of("best") == code_of("copied") == ""


def test_one_without_a_file_is_never_taken_for_that_of_another_process():
    space = {"__name__": "typed"}
    exec("def typed(seen):\n    return seen", space)
    add_rule("typed", space["typed"])
    assert code_of("typed") != code_of("typed")


def test_tune_says_that_it_tries_the_kits_rules_only(tmp_path):
    add_rule("flat", flat)
    (tmp_path / "e.yaml").write_text("members: [runs/a]\nrule: flat\n")
    with pytest.raises(InputError, match="tune: rule 'flat' is none of the kit's"):
        tune(TuneSettings(data=tmp_path, ensemble=tmp_path / "e.yaml", out=tmp_path / "t.yaml"))
