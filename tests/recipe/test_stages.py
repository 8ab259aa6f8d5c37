"""A recipe is checked as a whole before anything of it begins."""

from pathlib import Path
from textwrap import dedent

import pytest
from fake_children import ALL, RECIPE

from hpa_kit.config import RecipeSettings
from hpa_kit.errors import InputError
from hpa_kit.recipe import plan_recipe, read_recipe
from hpa_kit.recipe.forecast import plan_text
from hpa_kit.recipe.stages import shipped


def planned(settings):
    return plan_recipe(read_recipe(settings.recipe), settings)


def words_of(plan, name):
    return next(list(step.command) for step in plan.steps.values() if step.out.stem == name)


def test_a_stage_is_a_command_and_what_others_write_stands_in_its_place(settings, data, tmp_path):
    plan = planned(settings())
    assert [step.out.stem for step in plan.steps.values()] == ALL
    out = tmp_path / "out"
    assert words_of(plan, "cam_fold1") == [
        "train", str(data), "--fold", "1", "--folds", "2", "--masks", str(out / "label_maps"),
        "--backbone", "test_resnet", "--size", "64", "--epochs", "3", "--out", str(out / "cam_fold1"),
    ]  # fmt: skip
    members = [str(out / "cam_fold0"), str(out / "cam_fold1")]
    assert words_of(plan, "soft")[:5] == ["pseudo-labels", str(data), "--members", *members]
    crops = words_of(plan, "crops_fold1")
    assert crops[crops.index("--folds-of") + 1] == members[1]
    assert words_of(plan, "members") == [
        "kaggle", "weights", str(out / "ensemble.yaml"), "--owner", "your-name", str(out / "members"),
    ]  # fmt: skip


def test_folds_of_a_member_share_its_weight(settings, tmp_path):
    (ensemble,) = planned(settings()).ensembles.values()
    assert [member.weight for member in ensemble.members] == [1.5, 1.5, 0.5, 0.5]
    assert [member.checkpoint.name for member in ensemble.members[:2]] == ["cam_fold0", "cam_fold1"]


def test_every_step_needs_what_its_words_and_its_ensemble_name(settings):
    plan = planned(settings())
    steps = {step.out.stem: step for step in plan.steps.values()}
    needs = {name: {other.out.stem for other in plan.needs(step)} for name, step in steps.items()}
    assert needs["cam_fold0"] == {"label_maps"}
    assert needs["crops_fold0"] == {"soft", "cam_fold0"}
    assert needs["ensemble"] == {"label_maps", "cam_fold0", "cam_fold1", "crops_fold0", "crops_fold1"}


def test_an_input_that_is_not_given_leaves_its_option_out(settings, tmp_path):
    text = RECIPE.replace("{split: train}", "{split: train, weights: $weights}")
    assert "--weights" not in words_of(planned(settings(text)), "label_maps")
    (tmp_path / "cells").mkdir()
    given = words_of(planned(settings(text, inputs=f"weights={tmp_path / 'cells'}")), "label_maps")
    assert given[given.index("--weights") + 1] == str(tmp_path / "cells")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("size: 64, epochs: 3", "sice: 64", r"stage cam: .*unknown setting 'sice'; did you mean 'size'\?"),
        ("size: 64, epochs: 3", "size: small", "stage cam: .*size: .*found 'small'"),
        ("members: $cam, masks", "members: $came, masks", r"\$came is neither .* did you mean 'cam'\?"),
        ("members: $cam, masks", "members: $crops, masks", r"stage soft: \$crops is neither"),
        ("segment:", "sagment:", r"stage label_maps: expected one command; 'sagment' .*'segment'\?"),
        ("segment: {split: train}", "folds: all", "stage label_maps: expected one command; found 0"),
        ("folds: all\n  soft", "folds: [0, 2]\n  soft", "stage cam: folds are all, or some of 0 to 1"),
        ("folds: 2", "folds: two", "folds: expected a whole number from 2 on, found 'two'"),
        ("size: 64, epochs: 3", "size: 64, out: here", "stage cam: out is the recipe's to say"),
        ("about:", "abuot:", r"unknown key 'abuot'; did you mean 'about'\?"),
        (
            "  label_maps:\n    segment",
            "  weights:\n    segment",
            "stage weights: an input has the same name",
        ),
        (
            "masks: $label_maps, backbone",
            "masks: $label_maps.0, backbone",
            r"\$label_maps.0: .* has no folds",
        ),
        ("members: $cam, masks", "members: $cam.7, masks", r"\$cam.7: the stage cam has the folds 0, 1"),
        (
            "{checkpoint: $crops}]",
            "{checkpoint: $crops, weight: heavy}]",
            "stage untuned: members: weight: .*'heavy'",
        ),
        ("{checkpoint: $crops}]", "[a]]", "stage untuned: members: expected checkpoint"),
        ("stages:", "stages: []\nold:", "has no stages|unknown key"),
        ("sources: $ensemble", "source: $ensemble", "stage members: unknown option 'source'"),
    ],
)
def test_a_fault_is_told_in_one_line_that_names_its_stage(settings, old, new, words):
    assert old in RECIPE
    with pytest.raises(InputError, match=words) as caught:
        planned(settings(RECIPE.replace(old, new, 1)))
    assert "\n" not in str(caught.value) and "recipe: " in str(caught.value)


def test_a_recipe_that_is_not_there_is_told_with_those_that_are(data):
    with pytest.raises(InputError, match=r"no recipe 'quik'; did you mean 'quick'\?, or a YAML file"):
        read_recipe("quik")
    with pytest.raises(InputError, match=r"settings: .*gone.yaml is missing"):
        read_recipe("gone.yaml")


@pytest.mark.parametrize(
    ("inputs", "words"), [("wieghts=.", "takes no input 'wieghts'"), ("weights=gone", "is missing")]
)
def test_inputs_are_those_of_the_recipe_and_are_there(settings, inputs, words):
    with pytest.raises(InputError, match=words):
        planned(settings(inputs=inputs))


def test_a_pair_of_an_input_is_a_name_and_a_path(settings):
    with pytest.raises(ValueError, match="expected NAME=VALUE"):
        settings(inputs="weights")


def test_all_networks_get_the_options_that_are_given_for_them(settings):
    plan = planned(settings(networks="epochs=2,backbone=test_convnext,stride=32"))
    for name in ("cam_fold0", "crops_fold1"):
        words = words_of(plan, name)
        assert words[words.index("--epochs") + 1] == "2" and words.count("--epochs") == 1
        assert words[words.index("--stride") + 1] == "32"
    assert "--epochs" not in words_of(plan, "soft")
    with pytest.raises(InputError, match="stage cam: .*unknown setting 'epoch'; did you mean 'epochs'"):
        planned(settings(networks="epoch=2"))


@pytest.mark.parametrize("name", shipped())
def test_every_recipe_of_the_kit_can_be_planned_and_ends_with_packed_members(name, data, tmp_path):
    recipe = read_recipe(name)
    plan = plan_recipe(recipe, RecipeSettings(recipe=name, data=data, out=tmp_path / "out"))
    assert list(plan.steps.values())[-1].out == tmp_path / "out" / "members"
    assert recipe.stages["ensemble"].command in ("tune", "ensemble")
    text = plan_text(recipe, RecipeSettings(recipe=name))
    assert all(stage in text for stage in recipe.stages) and "in all: unknown" in text


def test_without_a_stage_ensembles_lose_its_members_and_what_needs_it_goes(settings):
    text = RECIPE.replace(
        "  untuned:", "  again:\n    train: {pseudo_labels: $soft, warm_start: $crops.0}\n  untuned:"
    )
    recipe = read_recipe(settings(text).recipe).without(["crops"])
    assert "crops" not in recipe.stages and "again" not in recipe.stages
    (ensemble,) = plan_recipe(recipe, settings(text)).ensembles.values()
    assert [member.checkpoint.name for member in ensemble.members] == ["cam_fold0", "cam_fold1"]


def test_the_recipe_of_the_page_can_be_planned(settings):
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    text = dedent(page[page.index("    about:") : page.index("* A stage has a name")])
    names = [step.out.name for step in planned(settings(text)).steps.values()]
    assert names == ["label_maps", "cam_fold0", "cam_fold1", "ensemble.yaml", "members"]


def test_an_ensemble_keeps_its_steps_with_their_options_and_takes_members_by_name(settings):
    text = RECIPE.replace(
        "members: [{checkpoint: $cam, weight: 3}, {checkpoint: $crops}]",
        "members: $cam\n      steps: [{step: fuse, cell: 0.5}, negative]",
    )
    (ensemble,) = planned(settings(text)).ensembles.values()
    assert [member.checkpoint.name for member in ensemble.members] == ["cam_fold0", "cam_fold1"]
    assert [step.step for step in ensemble.steps] == ["fuse", "negative"]


def test_what_is_read_of_a_part_of_an_output_or_by_an_ensemble_is_a_need(settings):
    text = RECIPE.replace("{network: crops,", "{network: crops, warm_start: $cam.1/best.safetensors,")
    text = text.replace("{checkpoint: $crops}]", "{checkpoint: $crops}]\n      masks: $label_maps")
    text = text.replace("tune: {ensemble: $untuned, masks: $label_maps}", "tune: {ensemble: $untuned}")
    plan = planned(settings(text))
    steps = {step.out.stem: step for step in plan.steps.values()}
    assert "cam_fold1" in {other.out.stem for other in plan.needs(steps["crops_fold0"])}
    assert "label_maps" in {other.out.stem for other in plan.needs(steps["ensemble"])}


def test_stages_that_only_dropped_ones_needed_are_dropped_too():
    recipe = read_recipe("best").without(["crops", "cam_soft"])
    assert list(recipe.stages) == ["label_maps", "cam", "untuned", "ensemble", "members"]


def test_a_network_that_is_trained_once_has_the_recipes_folds_too(settings):
    words = words_of(planned(settings(RECIPE.replace("    folds: all\n  soft", "  soft"))), "cam")
    assert words[words.index("--folds") + 1] == "2" and "--fold" not in words
