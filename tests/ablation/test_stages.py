"""The variants of the whole job: what they share, what they are made of, what the table says of them."""

import pandas as pd
import pytest

from hpa_kit.ablation import ablation
from hpa_kit.ablation.classifiers import AblationPlan
from hpa_kit.ablation.scores import COLUMNS
from hpa_kit.ablation.stages import plan_stages
from hpa_kit.ablation.table import markdown
from hpa_kit.config import read_ensemble
from hpa_kit.errors import InputError


@pytest.fixture
def stages(settings):
    def make(**changes):
        return settings(**{"variants": "stages", "folds": 2, "rules": "mean_logit", **changes})

    return make


def planned(settings):
    plan = AblationPlan(settings)
    plan_stages(plan)
    return plan


def names(steps, command):
    return [step.title for step in steps if step.command[0] == command]


def test_networks_are_trained_once_for_both_kinds_of_cells(stages):
    steps = list(planned(stages(stage2_networks=2)).steps.values())
    trained = names(steps, "train")
    assert len(trained) == len(set(trained)) == 2 + 2 + 2
    assert sum("stage2" in name for name in trained) == 2
    assert len(names(steps, "pseudo-labels")) == 1
    assert len(names(steps, "tune")) == len(names(steps, "segment")) == 2
    assert len(names(steps, "infer")) == 2 * 6


def test_stage_2_starts_with_the_classifier_of_its_fold_and_is_validated_on_few_fields(stages, tmp_path):
    chosen = stages(stage2_networks=3, stage2_folds=5)
    trained = [step.command for step in planned(chosen).steps.values() if "--network" in step.command]

    def last(command, option):  # an option that stands twice counts as it stands last
        return command[len(command) - command[::-1].index(option)]

    assert [last(command, "--fold") for command in trained] == ["0", "1", "2"]
    assert {last(command, "--folds") for command in trained} == {"5"}
    seed = tmp_path / "ablation" / "seed0"
    wanted = [str(seed / f"fold{fold}" / "round1") for fold in (0, 1, 0)]
    assert [last(command, "--warm-start") for command in trained] == wanted


def test_every_stage_comes_after_what_it_is_made_of(stages):
    plan = planned(stages(seeds="0,1"))
    steps = list(plan.steps.values())
    for number, step in enumerate(steps):
        before = {other.out for other in steps[:number]}
        assert {other.out for other in plan.needs(step)} <= before, step.title
    assert sum(len(plan.needs(step)) for step in steps) > len(steps)


def test_each_kind_of_cells_is_scored_by_its_own_label_maps_and_stage_2_learns_from_found_ones(
    stages, data, tmp_path
):
    plan = planned(stages())
    for step in plan.steps.values():
        if step.out in plan.scores or step.command[0] in ("pseudo-labels", "tune"):
            folder = step.command[step.command.index("--masks") + 1]
            true = "true cells" in step.title
            assert not (true and step.command[0] == "pseudo-labels")
            assert folder == str(data / "masks" if true else tmp_path / "ablation" / "label_maps"), step.title


def test_stage_2_gives_maps_only_and_half_the_weight_of_the_ensemble(stages, commands):
    chosen = stages(stage2_networks=2, tune_by="images")
    ablation(chosen, commands)
    stage2 = read_ensemble(chosen.out / "seed0" / "true" / "stage2.yaml").members
    assert [member.mode for member in stage2] == ["pred", "pred", "cam", "cam"]
    whole = read_ensemble(chosen.out / "seed0" / "classical" / "ensemble.yaml").members
    assert [member.mode for member in whole] == ["both"] * 4 + ["cam"] * 2
    assert [member.weight for member in whole] == [0.125] * 4 + [0.25] * 2
    assert [member.checkpoint.name for member in whole[4:]] == ["stage2_fold0", "stage2_fold1"]
    assert (chosen.out / "seed0" / "fold1" / "round1").samefile(whole[3].checkpoint)


def test_choices_are_tuned_by_cells_or_by_image_labels_as_asked(stages, commands, data):
    with pytest.raises(
        InputError, match=r"truth_train.csv is missing, by which tune chooses.*--tune-by images"
    ):
        ablation(stages(), commands)
    assert commands.commands == []
    ablation(stages(tune_by="images"), commands)
    assert all("--truth" not in words for words in commands.named("tune"))
    tuned = [words for words in commands.named("infer") if "tuned_true" in words[-1]]
    assert len(tuned) == 1 and "--rule" not in tuned[0]


def test_the_table_tells_the_gain_from_variant_to_variant(settings):
    rows = [
        *(("copied", seed, "true", "copied", value) for seed, value in enumerate((0.5, 0.6))),
        *(("cams", seed, "true", "mean_logit", value) for seed, value in enumerate((0.7, 0.7))),
        ("cams", 0, "true", "cam_share", 0.4),
        ("tuned", 0, "classical", "mean_logit", 0.9),
        ("cams", 7, "true", "mean_logit", 0.1),
    ]
    chosen = settings(variants="copied,cams,tuned", seeds="0,1", rules="cam_share,mean_logit")
    lines = markdown(pd.DataFrame(rows, columns=list(COLUMNS)), chosen).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:3] == ["variant", "true cells, mean logit", "true cells, gain"]
    assert cells[2][:3] == ["image scores copied", "0.550 ± 0.071 (0.500, 0.600)", "–"]
    assert cells[3][:4] == ["class maps, round 0", "0.700 ± 0.000 (0.700, 0.700)", "+0.150", "0.400"]
    assert cells[4] == ["ensemble, tuned", "–", "–", "–", "0.900", "–", "–"]


def test_no_more_networks_of_stage_2_than_folds(stages):
    with pytest.raises(ValueError, match="stage2_networks 3 is more than folds 2"):
        stages(stage2_networks=3, stage2_folds=2)
