from pathlib import Path

import pytest

from hpa_kit.config import (
    InferSettings,
    SimulateSettings,
    TrainSettings,
    make_settings,
    read_yaml,
    write_yaml,
)
from hpa_kit.errors import InputError


def test_an_unknown_setting_names_the_nearest_known_one():
    with pytest.raises(InputError, match=r"run\.yaml: unknown setting 'backbon'; did you mean 'backbone'\?"):
        make_settings(TrainSettings, {"data": "d", "out": "o", "backbon": "resnet18"}, source="run.yaml")


def test_a_setting_unlike_any_other_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown setting 'zzz'; known are .*backbone.*epochs"):
        make_settings(TrainSettings, {"zzz": 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, r"epochs: .*greater than or equal to 1.*found 0"),
        ({"epochs": "many"}, r"epochs: .*integer.*found 'many'"),
        ({"stride": 7}, r"stride: .*8, 14, 16 or 32.*found 7"),
        ({"lr": "inf"}, r"lr: .*finite.*found"),
        ({"fold": 5, "folds": 5}, r"fold 5 is not one of 5 folds"),
    ],
)
def test_a_bad_value_is_one_line_with_its_name_and_what_was_found(values, message):
    with pytest.raises(InputError, match=message) as caught:
        make_settings(TrainSettings, {"data": "d", "out": "o"} | values)
    assert "\n" not in str(caught.value)


def test_a_missing_setting_is_named():
    with pytest.raises(InputError, match="out: .*required.*found nothing"):
        make_settings(TrainSettings, {"data": "d"})


def test_settings_come_back_from_yaml_as_they_went(tmp_path):
    settings = make_settings(
        InferSettings, {"data": "d", "members": ["a", "b"], "out": "s.csv", "rule": "mean_logit"}
    )
    write_yaml(settings, tmp_path / "infer.yaml")
    assert make_settings(InferSettings, read_yaml(tmp_path / "infer.yaml")) == settings


def test_later_layers_win():
    settings = make_settings(TrainSettings, {"data": "d", "out": "o", "epochs": 3}, {"epochs": "5"})
    assert settings.epochs == 5


def test_text_from_a_command_line_is_converted():
    settings = make_settings(
        SimulateSettings, {"out": "o", "classes": "0,2,7", "size": "64", "square": False}
    )
    assert settings.classes == (0, 2, 7)
    assert make_settings(TrainSettings, {"data": "d", "out": "o", "stride": "8"}).stride == 8


@pytest.mark.parametrize("classes", ["", "0,19", "x", "0,,2"])
def test_classes_that_do_not_exist_are_refused(classes):
    with pytest.raises(InputError, match="classes"):
        make_settings(SimulateSettings, {"out": "o", "classes": classes})


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"- 1\n- 2\n", "holds a list"), (b"a: [", "is no YAML"), (b"\xff\xfe\x00", "is no YAML"),
     (b"a: !!python/object/apply:os.system ['true']", "is no YAML")],
)  # fmt: skip
def test_a_file_that_holds_no_settings_is_refused(tmp_path, content, message):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_yaml(tmp_path / "bad.yaml")


def test_a_single_member_needs_no_list():
    settings = make_settings(InferSettings, {"data": "d", "out": "o.csv", "members": "run"})
    assert settings.members == (Path("run"),)


def test_a_missing_settings_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml is missing"):
        read_yaml(tmp_path / "none.yaml")


def test_a_folder_given_as_settings_file_is_named(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} cannot be read: Is a directory"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("text", "twice"),
    [("epochs: 3\nseed: 1\nepochs: 4\n", "epochs"), ("members:\n- {mode: cam, mode: both}\n", "mode")],
)
def test_a_key_that_stands_twice_is_refused_at_any_depth(text, twice, tmp_path):
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"settings\.yaml is no YAML: '{twice}' stands twice"):
        read_yaml(tmp_path / "settings.yaml")


def test_values_that_stand_once_and_are_merged_into_others_are_no_doubles(tmp_path):
    text = "one: &one {mode: cam, weight: 1}\ntwo: {<<: *one, weight: 2}\nthree: *one\n"
    (tmp_path / "settings.yaml").write_text(text)
    assert read_yaml(tmp_path / "settings.yaml")["two"] == {"mode": "cam", "weight": "2"}


def test_settings_in_groups_have_flat_names_everywhere_but_in_the_code(tmp_path):
    given = {"data": "d", "out": "o", "size": 480, "puzzle": "cam", "puzzle_tiles": 9, "arcface_margin": 0.3}
    settings = TrainSettings(**given, time_limit=2)
    assert (settings.puzzle_cam.source, settings.puzzle_cam.tiles, settings.puzzle_cam.masked) == (
        "cam",
        9,
        False,
    )
    assert (settings.arcface.margin, settings.limits.hours) == (0.3, 2)
    assert settings.model_dump().keys() == TrainSettings.options().keys()
    assert given.items() <= settings.model_dump(mode="json").items()
    write_yaml(settings, tmp_path / "train.yaml")
    assert "puzzle_tiles: 9\n" in (tmp_path / "train.yaml").read_text()
    assert make_settings(TrainSettings, read_yaml(tmp_path / "train.yaml")) == settings
    changed = settings.model_copy(update={"time_limit": 3.0, "puzzle_tiles": 4, "epochs": 1})
    assert (changed.limits.hours, changed.puzzle_cam.tiles, changed.epochs) == (3, 4, 1)
    assert (settings.limits.hours, changed.puzzle_cam.source) == (2, "cam")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"puzzle_cam": {}}, r"unknown setting 'puzzle_cam'; did you mean 'puzzle'\?"),
        ({"arcface_centres": 0}, r"settings: arcface_centres: .*greater than or equal to 1, found 0"),
        ({"contrast": "fixed", "normalisation": "field"}, "normalisation and contrast are one setting"),
    ],
)
def test_a_bad_setting_of_a_group_or_with_two_names_is_told_by_the_name_that_users_have(values, message):
    with pytest.raises(InputError, match=message):
        make_settings(TrainSettings, {"data": "d", "out": "o"}, values)


def test_contrast_is_called_normalisation_too_and_a_later_layer_wins_by_either_name():
    assert TrainSettings(data="d", out="o", normalisation="fixed").normalisation == "fixed"
    settings = make_settings(
        TrainSettings, {"data": "d", "out": "o", "contrast": "field"}, {"normalisation": "fixed"}
    )
    assert settings.normalisation == "fixed" and settings.model_dump()["contrast"] == "fixed"
