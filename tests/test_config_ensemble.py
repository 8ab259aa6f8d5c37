"""An ensemble's YAML."""

from importlib import import_module
from pathlib import Path

import pytest
import yaml

from hpa_kit.cli.commands import COMMANDS
from hpa_kit.config import (
    EnsembleSettings,
    InferSettings,
    PredictSettings,
    PseudoLabelSettings,
    ReportSettings,
    TuneSettings,
    make_settings,
    read_ensemble,
    write_ensemble,
)
from hpa_kit.config.scoring import FuseStep, NegativeStep
from hpa_kit.errors import InputError
from hpa_kit.kaggle import notebook_settings
from hpa_kit.report.sources import predict_settings

EXAMPLE = Path(__file__).parents[1] / "examples" / "fifteenth.yaml"


def make(**values) -> EnsembleSettings:
    return make_settings(EnsembleSettings, values, source="e.yaml")


def test_a_member_is_a_checkpoint_with_options_or_alone():
    settings = make(members=["runs/a", {"checkpoint": "runs/b", "mode": "cam", "weight": 0.3}])
    assert [member.checkpoint for member in settings.members] == [Path("runs/a"), Path("runs/b")]
    assert [member.mode for member in settings.members] == ["both", "cam"]
    assert [member.views for member in settings.members] == ["flips", "flips"]


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
    assert {member.views for member in settings.members} == {"auto"}
    said = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert {"rule", "form", "steps", "map_size"} <= said.keys()
    assert all("views" in member for member in said["members"])


# What an ensemble's YAML can say, as one says it and as it is given beside: the default, or another folder.
SAID = {
    "rule": ("cam_share", "best"),
    "views": ("auto", "flips"),
    "map_size": (256, 512),
    "segmenter": ("classical", "auto"),
    "masks": ("/in/the/yaml", "/given"),
    "weights": ("/in/the/yaml", "/given"),
}


IN_THE_YAML = {name: first for name, (first, _) in SAID.items()}


def said_by(ensemble: EnsembleSettings) -> dict[str, object]:
    """What an ensemble says of all that a YAML can say; its members have the same views."""
    (views,) = {member.views for member in ensemble.members}
    return {name: views if name == "views" else ensemble.model_dump(mode="json")[name] for name in SAID}


@pytest.fixture
def said(tmp_path) -> Path:
    """An ensemble's YAML that says all it can, otherwise than the defaults."""
    rest = dict(IN_THE_YAML)
    members = [{"checkpoint": name, "views": rest["views"]} for name in ("a", "b")]
    del rest["views"]
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({"members": members} | rest))
    return tmp_path / "e.yaml"


def by_settings(kind, given: dict[str, object], said: Path, monkeypatch) -> EnsembleSettings:
    return make_settings(kind, {"data": "d", "out": "o", "ensemble": said}, given).of_ensemble()


def by_notebook(kind, given: dict[str, object], said: Path, monkeypatch) -> EnsembleSettings:
    variables = dict.fromkeys(SAID) | given | {"settings": {}}
    return notebook_settings(kind, variables, data="d", out="o", ensemble=said).of_ensemble()


def by_dict_of_notebook(kind, given: dict[str, object], said: Path, monkeypatch) -> EnsembleSettings:
    variables = dict.fromkeys(SAID) | {"settings": given}
    return notebook_settings(kind, variables, data="d", out="o", ensemble=said).of_ensemble()


def by_command_line(kind, given: dict[str, object], said: Path, monkeypatch) -> EnsembleSettings:
    seen = []
    (command,) = [one for one in COMMANDS if one.settings is kind]
    command_line = import_module("hpa_kit.cli.main")
    monkeypatch.setattr(command_line, "COMMANDS", (command._replace(run=seen.append),))
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert command_line.main([command.name, "d", "--out", "o", "--ensemble", str(said), *words]) == 0
    return seen[0].of_ensemble()


def by_config_file(kind, given: dict[str, object], said: Path, monkeypatch) -> EnsembleSettings:
    (said.parent / "config.yaml").write_text(yaml.safe_dump(given))
    config = {"config": said.parent / "config.yaml"}
    return by_command_line(kind, config, said, monkeypatch)


WAYS = [by_settings, by_notebook, by_dict_of_notebook, by_command_line, by_config_file]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [InferSettings, PredictSettings, TuneSettings, PseudoLabelSettings])
def test_a_given_value_wins_over_the_yaml_also_where_it_is_the_default(kind, way, said, monkeypatch):
    for name, (_, value) in SAID.items():
        if name not in kind.model_fields:
            continue
        found = way(kind, {name: value}, said, monkeypatch)
        assert said_by(found) == IN_THE_YAML | {name: value}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_given_is_the_yamls(way, said, monkeypatch):
    found = way(InferSettings, {}, said, monkeypatch)
    assert said_by(found) == IN_THE_YAML


@pytest.mark.parametrize("way", [by_settings, by_notebook, by_dict_of_notebook, by_config_file])
def test_none_says_nothing(way, said, monkeypatch):
    found = way(InferSettings, dict.fromkeys(SAID), said, monkeypatch)
    assert said_by(found) == IN_THE_YAML


def test_members_alone_and_a_yaml_that_names_members_alone_are_scored_alike(tmp_path):
    (tmp_path / "e.yaml").write_text("members: [a, b]\n")
    members = [tmp_path / "a", tmp_path / "b"]
    for kind in (InferSettings, PredictSettings, TuneSettings):
        alone, named = (
            make_settings(kind, {"data": "d", "out": "o"}, of).of_ensemble()
            for of in ({"members": members}, {"ensemble": tmp_path / "e.yaml"})
        )
        assert alone == named == EnsembleSettings(members=members)
        assert (alone.rule, alone.form, alone.steps, alone.map_size) == ("best", "mean_share", (), 512)
        assert {member.views for member in alone.members} == {"flips"}


def test_a_yaml_that_was_written_with_the_15th_places_values_keeps_them(tmp_path):
    members = [{"checkpoint": tmp_path / "a", "views": "auto"}]
    write_ensemble(make(members=members, rule="cam_share"), tmp_path / "e.yaml")
    (found,) = {read_ensemble(tmp_path / "e.yaml")}
    assert (found.rule, found.form, found.members[0].views) == ("cam_share", "mean_share", "auto")


def test_scales_is_another_name_of_the_views_auto():
    settings = make_settings(InferSettings, {"data": "d", "out": "o", "members": "a", "views": "scales"})
    assert settings.of_ensemble() == make(members=[{"checkpoint": "a", "views": "auto"}])


def test_a_report_leaves_to_the_yaml_what_it_is_not_asked_for(said):
    def predicting(**given):
        values = {"source": "s.csv", "data": "d", "ensemble": said} | given
        return predict_settings(make_settings(ReportSettings, values), []).of_ensemble()

    assert said_by(predicting()) == IN_THE_YAML
    for name in SAID:
        value = SAID[name][1]
        assert said_by(predicting(**{name: value})) == IN_THE_YAML | {name: value}
