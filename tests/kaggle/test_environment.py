"""A notebook knows which of Kaggle's runs it is in, from the variables that Kaggle sets."""

import pytest

from hpa_kit.kaggle import run_kind, session_hours

RUN, RERUN = "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_IS_COMPETITION_RERUN"


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, "not on Kaggle"),
        ({RUN: ""}, "not on Kaggle"),
        ({RUN: "Interactive"}, "interactive session, public rows only"),
        ({RUN: "Batch"}, "saved run, public rows only"),
        ({RUN: "Batch", RERUN: "1"}, "scoring run, hidden test set"),
        ({RERUN: "True"}, "scoring run, hidden test set"),
    ],
)
def test_the_run_is_named_for_what_it_is(monkeypatch, variables, kind):
    for name in (RUN, RERUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run_kind() == kind
    assert (session_hours(0) is not None) == bool(variables.get(RUN))
