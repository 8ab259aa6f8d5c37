"""What the training notebook's parameters say of a recipe."""

import shutil
from pathlib import Path

import pytest
from fake_children import ALL

from hpa_kit.errors import InputError
from hpa_kit.kaggle.recipes import first_network, notebook_recipe, train_by_recipe
from hpa_kit.recipe import STATE


@pytest.fixture
def session(settings, data, tmp_path):
    """Makes the settings of one session, which has a working folder of its own."""

    def make(number, hours=None, **variables):
        working = tmp_path / f"working{number}"
        working.mkdir(exist_ok=True)
        parameters = {"recipe": settings().recipe, "working": working, "settings": {}}
        return notebook_recipe(parameters | variables, data, [tmp_path / "input"], hours, "cpu")

    return make


def attach(tmp_path, number, *place):
    """Mount a session's output among the inputs of the next."""
    shutil.copytree(tmp_path / f"working{number}", tmp_path.joinpath("input", *place), dirs_exist_ok=True)


@pytest.mark.parametrize(
    "place", [("mine",), ("notebooks", "me", "mine"), ("datasets", "me", "mine", "deeper")]
)
def test_the_next_session_goes_on_wherever_the_earlier_one_is_mounted(session, children, tmp_path, place):
    children.how = {"soft": "fails"}
    train_by_recipe(session(1))
    attach(tmp_path, 1, *place)
    children.how, children.started = {}, []
    second = session(2, goes_on=True)
    assert second.resume_from == tmp_path.joinpath("input", *place, "recipe")
    trained = train_by_recipe(second)
    assert children.names == ALL[3:] and trained.out.parent == tmp_path / "working2" / "recipe"


def test_of_several_earlier_sessions_the_furthest_counts_and_other_recipes_do_not(
    session, children, tmp_path
):
    children.how = {"soft": "fails"}
    train_by_recipe(session(1))
    attach(tmp_path, 1, "first")
    children.how = {}
    clock = iter(range(0, 10**6, 60))
    from hpa_kit.recipe import carry_out

    carry_out(session(2), lambda: next(clock))
    attach(tmp_path, 2, "second")
    other = tmp_path / "input" / "other"
    shutil.copytree(tmp_path / "input" / "second", other)
    path = other / "recipe" / STATE
    path.write_text(
        path.read_text().replace('"two"', '"three"').replace('"hours_spent": ', '"hours_spent": 9')
    )
    assert session(3).resume_from == tmp_path / "input" / "second" / "recipe"
    assert session(3, goes_on=False).resume_from is None


def test_where_a_past_is_expected_and_missing_nothing_is_trained(session, children):
    with pytest.raises(InputError, match="attach that session's output, or begin anew"):
        train_by_recipe(session(1, goes_on=True))
    assert not children.started


def test_inputs_are_found_or_given_and_other_settings_are_of_every_network(session, tmp_path):
    (tmp_path / "cells").mkdir()
    made = session(1, hours=3.0, settings={"weights": tmp_path / "cells", "epochs": 2})
    assert made.inputs == {"weights": tmp_path / "cells"} and made.networks == {"epochs": 2}
    assert made.time_limit == 3.0 and not made.scratch_folder.is_relative_to(made.out)
    shown = first_network(made)
    assert shown.epochs == 2 and shown.masks is None and shown.out.name == "cam_fold0"


def test_a_session_that_trains_no_network_shows_the_first_that_will_be(session, children):
    children.how = {"label_maps": "stays"}
    clock = iter(range(0, 10**6, 60))
    from hpa_kit.recipe import carry_out

    made = session(1, hours=0.1)
    assert not carry_out(made, lambda: next(clock)).finished
    children.how, children.started = {"label_maps": "fails"}, []
    assert train_by_recipe(made) == first_network(made)
    assert first_network(made).out.name == "cam_fold0" and not Path(first_network(made).out).exists()
