"""A YAML means what the command line means by the same text, and comes back as it was written."""

from functools import cache

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from hpa_kit.cli.commands import COMMANDS, Command
from hpa_kit.cli.main import make_parser, settings_of
from hpa_kit.config import (
    AblationSettings,
    EnsembleSettings,
    FeaturesSettings,
    InferSettings,
    Settings,
    TrainSettings,
    load_yaml,
    make_settings,
    read_ensemble,
    read_yaml,
    write_ensemble,
    write_yaml,
)
from hpa_kit.config.scoring import CalibrateStep
from hpa_kit.errors import InputError
from hpa_kit.training.augmentation import build, read_policy

NEEDED = {
    "recipe": "quick",
    "data": "d",
    "out": "o",
    "member": "m",
    "features": "f",
    "labels": "hard",
    "source": "s",
}
NULL = ("null", "Null", "NULL", "~", "")  # of YAML alone: a command line leaves the option out
SETTINGS = [
    pytest.param(command, name, id=f"{command.name}-{name}")
    for command in COMMANDS
    for name, field in command.settings.options().items()
    if field.annotation is not bool
]
# What YAML 1.1 takes for something else than it looks like, and what settings may be.
WORDS = [
    "8:30", "1:30", "1:30:15", "064", "010", "0o17", "0x1F", "0b11", "1_000", "-0", "+3", "off", "on", "no",
    "yes", "y", "n", "true", "False", "NO", ".inf", "-.INF", ".nan", "inf", "nan", "1e3", "1.e+3", "1e-05",
    ".5", "5.", "64.0", "2001-01-01", "2001-01-01 10:00:00", "<<", "=", "download", "none", "None", "0", "1",
    "2", "8", "32", "64", "0.5", "0,1", "0, 2", "1,2,1", "hard", "flips", "best", "cpu", "auto", "cam",
    "", " ", " 8", "8 ", "~/runs", "a b", "a: b", "# a", "[1, 2]", "{a: 1}", "'064'", '"no"', "!!int 3", "&a",
    "*a", "ü", "\t", "é/…", "- 1", "-1", "|", ">", "%", "@",
]  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.from_regex(r"[-+]?[0-9_]{0,4}[.:,]?[0-9_]{0,4}(e[-+]?[0-9]{1,2})?", fullmatch=True),
)


@cache
def parser(command: str):
    return make_parser([command])


def value_of(make) -> object:
    """Settings, or that they are refused."""
    try:
        return make()
    except InputError:
        return "refused"


def on_the_command_line(command: Command, name: str, text: str) -> Settings:
    needed = [f"--{other}={value}" for other, value in _needed(command.settings, name).items()
              if other not in command.positional]  # fmt: skip
    options = command.settings.options()
    positional = [text if other == name else NEEDED[other] for other in command.positional
                  if other == name or options[other].is_required()]  # fmt: skip
    option = [] if name in command.positional else [f"--{name.replace('_', '-')}={text}"]
    words = [command.name, *needed, *option, *(["--", *positional] if positional else [])]
    return settings_of(command, parser(command.name).parse_args(words))


def in_yaml(command: Command, name: str, content: str, folder) -> Settings:
    path = folder / "settings.yaml"
    path.write_text(content, encoding="utf-8", newline="")
    return make_settings(command.settings, _needed(command.settings, name), read_yaml(path))


def _needed(kind: type[Settings], name: str) -> dict[str, str]:
    given = {other: value for other, value in NEEDED.items() if other in kind.options() and other != name}
    if "members" in kind.options() and name not in ("members", "ensemble"):
        given["members"] = "m"
    return {other: value for other, value in given.items() if kind.options()[other].is_required()
            or other == "members"}  # fmt: skip


def is_plain(name: str, text: str) -> bool:
    """Whether a YAML may hold a text without quotes."""
    try:
        node = yaml.compose(f"{name}: {text}\n", yaml.SafeLoader).value[0][1]
    except yaml.YAMLError:
        return False
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value == text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("yaml")


@given(where=st.sampled_from(SETTINGS), text=TEXTS)
def check(folder, where, text):
    command, name = where.values
    expected = value_of(lambda: on_the_command_line(command, name, text))
    for style in ("'", '"'):
        quoted = yaml.safe_dump({name: text}, default_style=style, allow_unicode=True)
        assert value_of(lambda quoted=quoted: in_yaml(command, name, quoted, folder)) == expected
    if text not in NULL and is_plain(name, text):
        assert value_of(lambda: in_yaml(command, name, f"{name}: {text}\n", folder)) == expected


def test_any_text_means_in_a_yaml_what_it_means_on_the_command_line(folder):
    check(folder)


@pytest.mark.parametrize(("command", "name"), SETTINGS)
def test_words_of_yaml_mean_in_every_setting_what_they_mean_on_the_command_line(command, name, folder):
    for text in ("8:30", "064", "off", "no", "1e3", "2001-01-01", "download", "1_000", "0"):
        expected = value_of(lambda text=text: on_the_command_line(command, name, text))
        found = value_of(lambda text=text: in_yaml(command, name, f"{name}: {text}\n", folder))
        assert found == expected, text


SWITCHES = [
    (command, name)
    for command in COMMANDS
    for name, field in command.settings.options().items()
    if field.annotation is bool
]


@pytest.mark.parametrize(("command", "name"), SWITCHES)
def test_a_switch_takes_true_yes_on_and_their_opposites(command, name, folder):
    if name in ("puzzle_subcategories", "puzzle_masked", "cells"):
        pytest.skip("goes with a puzzle, or with masks, only")
    for words, expected in ((("true", "yes", "on", "True"), True), (("false", "no", "off", "No"), False)):
        for word in (*words, *(f"'{word}'" for word in words)):
            assert in_yaml(command, name, f"{name}: {word}\n", folder).model_dump()[name] is expected
    for word in ("", "~", "2", "8:30", "nope", '""'):
        assert value_of(lambda word=word: in_yaml(command, name, f"{name}: {word}\n", folder)) == "refused"


@pytest.mark.parametrize("word", ["", "~", "null"])
def test_nothing_and_null_leave_a_setting_out(folder, word):
    train = next(command for command in COMMANDS if command.name == "train")
    settings = in_yaml(train, "warm_start", f"warm_start: {word}\nbatch: {word}\n", folder)
    assert settings.warm_start is None and settings.batch is None


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [("octal", "size", 64), ("octal_batch", "batch", 10), ("off", "puzzle", "off")],
)
def test_numbers_and_words_are_as_they_look(shared, content, name, expected):
    needed = {"data": "d", "out": "o"}
    settings = make_settings(TrainSettings, needed, read_yaml(shared / "inputs" / "yaml" / f"{content}.yaml"))
    assert settings.model_dump()[name] == expected


FINITE = st.floats(1e-300, 1e300)
PARTS = st.floats(0, 1, exclude_max=True)
PATHS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12
) | st.sampled_from([word for word in (*WORDS, *NULL) if word])


@given(
    st.fixed_dictionaries(
        {"data": PATHS, "out": PATHS, "lr": FINITE, "weight_decay": FINITE, "ema": PARTS, "warmup": PARTS},
        optional={"masks": PATHS, "backbone": PATHS, "time_limit": FINITE, "batch": st.integers(1),
                  "seed": st.integers(0), "amp": st.booleans(), "augmentation": st.integers(0, 5) | PATHS},
    )
)  # fmt: skip
@example({"data": "no", "out": "064", "lr": 1e-05, "weight_decay": 5e-324, "ema": 0.0, "warmup": 0.1})
def check_written(folder, values):
    settings = make_settings(TrainSettings, values)
    write_yaml(settings, folder / "written.yaml")
    assert make_settings(TrainSettings, read_yaml(folder / "written.yaml")) == settings


def test_settings_come_back_as_they_were_written(folder):
    check_written(folder)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (InferSettings, {"members": ["064", "no", "~"], "give_up": ["map_size", "views"], "budget": 1e-05}),
        (FeaturesSettings, {"member": "1e3", "scales": (1, 1.1, 7.999999999)}),
        (AblationSettings, {"seeds": (0, 17), "variants": "round0,longer", "rules": ("best", "quantile")}),
    ],
)
def test_lists_come_back_as_they_were_written(kind, values, tmp_path):
    settings = make_settings(kind, {"data": "d", "out": "o"}, values)
    write_yaml(settings, tmp_path / "settings.yaml")
    assert make_settings(kind, read_yaml(tmp_path / "settings.yaml")) == settings


@given(numbers=st.lists(st.floats(-1e300, 1e300), min_size=19, max_size=19), weight=FINITE)
def check_ensemble(folder, numbers, weight):
    member = {"checkpoint": folder / "no", "weight": weight, "size": 64, "views": "none"}
    calibrate = CalibrateStep(slope=numbers, image=numbers[::-1], intercept=numbers)
    steps = [calibrate, "negative", {"step": "fuse", "cell": 0.1}]
    settings = make_settings(EnsembleSettings, {"members": [member, folder / "064"], "steps": steps})
    write_ensemble(settings, folder / "ensemble.yaml")
    assert read_ensemble(folder / "ensemble.yaml") == settings


def test_an_ensemble_comes_back_as_it_was_written(folder):
    check_ensemble(folder)


def test_an_ensembles_members_and_steps_take_texts_as_a_command_line_would(tmp_path):
    path = tmp_path / "ensemble.yaml"
    path.write_text(
        "members: [064, {checkpoint: no, size: 064, mode: both}]\nsteps: [{step: fuse, cell: '.5'}]\n"
    )
    found = read_ensemble(path)
    assert [member.checkpoint.name for member in found.members] == ["064", "no"]
    assert found.members[1].size == 64
    assert found.steps[0].cell == 0.5
    path.write_text("members: [{checkpoint: a, weight: 1:30}]\n")
    with pytest.raises(InputError, match=r"member 1: weight: .* found '1:30'"):
        read_ensemble(path)
    path.write_text('members: [{checkpoint: ""}]\n')
    with pytest.raises(InputError, match=r"member 1: checkpoint: an empty text is no path"):
        read_ensemble(path)


def test_a_policy_has_decimal_numbers_and_switches(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(
        "- GridDropout: {ratio: .4, random_offset: on, p: 1e-1, unit_size_range: [08, size]}\n- policy: 1\n"
    )
    content = read_policy(path)
    assert content[0]["GridDropout"] == {
        "ratio": 0.4,
        "random_offset": True,
        "p": 0.1,
        "unit_size_range": [8, "size"],
    }
    assert content[1] == {"policy": 1}
    assert len(build(content, 64, 64, str(path)).transforms) > 1
    path.write_text("- HorizontalFlip: {p: 0:30}\n")
    with pytest.raises(InputError, match=r"HorizontalFlip"):
        build(read_policy(path), 64, 64, str(path))


def test_keys_are_merged_as_before(tmp_path):
    path = tmp_path / "merged.yaml"
    path.write_text("one: &one {mode: cam, weight: 1}\ntwo: {<<: *one, weight: 2}\n")
    assert load_yaml(path, texts=False)["two"] == {"mode": "cam", "weight": 2}
