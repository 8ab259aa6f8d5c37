"""An ensemble's YAML."""

from pathlib import Path

import pytest

from hpa_kit.config import EnsembleSettings, make_settings, read_ensemble, write_ensemble
from hpa_kit.config.scoring import FuseStep, NegativeStep
from hpa_kit.errors import InputError

EXAMPLE = Path(__file__).parents[1] / "examples" / "fifteenth.yaml"


def make(**values) -> EnsembleSettings:
    return make_settings(EnsembleSettings, values, source="e.yaml")


def test_a_member_is_a_checkpoint_with_options_or_alone():
    settings = make(members=["runs/a", {"checkpoint": "runs/b", "mode": "cam", "weight": 0.3}])
    assert [member.checkpoint for member in settings.members] == [Path("runs/a"), Path("runs/b")]
    assert [member.mode for member in settings.members] == ["both", "cam"]
    assert [member.views for member in settings.members] == ["auto", "auto"]


def test_steps_are_names_or_names_with_options():
    settings = make(members=["a"], steps=["negative", {"step": "fuse", "cell": 0.5}])
    assert settings.steps == (NegativeStep(), FuseStep(cell=0.5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"members": [{"checkpoint": "a", "wieght": 1}]},
         "e.yaml: member 1: unknown setting 'wieght'; did you mean 'weight'"),
        ({"members": ["a", {"checkpoint": "a", "mode": "map"}]},
         "e.yaml: member 2: mode: .*'both', 'cam' or 'pred'.*found 'map'"),
        ({"members": ["a", {"weight": 1}]}, "member 2: checkpoint: .*found nothing"),
        ({"members": ["a"], "steps": ["negativ"]}, "step 1: unknown step 'negativ'; did you mean 'negative'"),
        ({"members": ["a"], "stepps": []}, "unknown setting 'stepps'; did you mean 'steps'"),
        ({"members": [{"checkpoint": "a", "weight": 0}]}, "member 1: weight: .*greater than 0, found 0"),
        ({"members": [{"checkpoint": "a", "views": "scale"}]}, "member 1: views: "),
        ({"members": [{"checkpoint": "a", "mode": "cam"}]}, "no member gives image scores"),
        ({"members": [{"checkpoint": "a", "mode": "pred"}]}, "no member gives maps"),
        ({"members": []}, "members: "),
        ({"members": "a"}, "members: "),
        ({"members": [3]}, "member 1: expected checkpoint, mode and weight, found 3"),
        ({"members": ["a"], "rule": "cam"}, "rule: .*found 'cam'"),
        ({}, "members: .*found nothing"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_ensemble_is_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        make(**values)
    assert "\n" not in str(caught.value)


def test_paths_start_at_the_folder_of_the_yaml(tmp_path):
    (tmp_path / "e.yaml").write_text("members: [{checkpoint: runs/a}, /data/b]\nmasks: label_maps\n")
    settings = read_ensemble(tmp_path / "e.yaml")
    assert [member.checkpoint for member in settings.members] == [tmp_path / "runs/a", Path("/data/b")]
    assert settings.masks == tmp_path / "label_maps"
    assert settings.weights is None


def test_a_yaml_and_its_runs_can_move_together(tmp_path):
    runs, out = tmp_path / "here" / "runs", tmp_path / "here" / "tuned" / "e.yaml"
    settings = make(members=[runs / "a"], steps=[{"step": "fuse", "cell": 0.5}], rule="cell_logit")
    write_ensemble(settings, out)
    assert read_ensemble(out).members[0].checkpoint.resolve() == runs / "a"
    assert read_ensemble(out).steps == settings.steps
    (tmp_path / "here").rename(tmp_path / "there")
    moved = read_ensemble(tmp_path / "there" / "tuned" / "e.yaml")
    assert moved.members[0].checkpoint.resolve() == tmp_path / "there" / "runs" / "a"


def test_a_yaml_behind_a_link_to_another_folder_is_good_under_both_names(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link.yaml").symlink_to("far/real.yaml")
    settings = make_settings(EnsembleSettings, {"members": [tmp_path / "run"], "masks": tmp_path / "masks"})
    write_ensemble(settings, tmp_path / "link.yaml")
    assert (tmp_path / "link.yaml").is_symlink()
    assert read_ensemble(tmp_path / "link.yaml") == settings
    assert read_ensemble(tmp_path / "far" / "real.yaml") == settings


def test_the_example_is_the_15th_places_best_submission():
    settings = read_ensemble(EXAMPLE)
    weights = {
        mode: [member.weight for member in settings.members if member.mode == mode]
        for mode in ("both", "cam")
    }
    assert (len(weights["both"]), len(weights["cam"])) == (8, 5)
    assert sum(weights["both"]) == pytest.approx(0.5)
    assert sum(weights["cam"]) == pytest.approx(0.5)
    assert (settings.rule, settings.form, settings.steps) == ("cam_share", "mean_share", ())
