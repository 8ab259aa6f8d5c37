import importlib.metadata
import json
import subprocess
import sys

import numpy as np
import pytest

import hpa_kit
from hpa_kit.cli import COMMANDS, main
from hpa_kit.cli.main import make_parser, settings_of
from hpa_kit.submission import encode_mask, write_submission

MASK = encode_mask(np.eye(6, 8, dtype=bool))


@pytest.fixture
def csvs(tmp_path):
    write_submission(tmp_path / "truth.csv", [("a", 8, 6, f"0 {MASK}")])
    write_submission(tmp_path / "good.csv", [("a", 8, 6, f"0 0.5 {MASK}")])
    write_submission(tmp_path / "bad.csv", [("b", 8, 6, "")])
    return tmp_path


def test_evaluate_prints_each_class_and_the_mean(csvs, capsys):
    assert main(["evaluate", str(csvs / "truth.csv"), str(csvs / "good.csv")]) == 0
    out = capsys.readouterr().out
    assert "Nucleoplasm" in out
    assert out.splitlines()[-1].split() == ["mean", "1.0000"]


def test_evaluate_prints_json_for_programs(csvs, capsys):
    assert main(["evaluate", str(csvs / "truth.csv"), str(csvs / "good.csv"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["mean_ap"] == 1
    assert result["ap"] == {str(index): None for index in range(19)} | {"0": 1}


def test_check_exits_with_1_and_a_line_per_fault(csvs, capsys):
    assert main(["check", str(csvs / "good.csv"), "--sample", str(csvs / "good.csv")]) == 0
    capsys.readouterr()
    assert main(["check", str(csvs / "bad.csv"), "--sample", str(csvs / "good.csv")]) == 1
    assert capsys.readouterr().out.splitlines() == ["ID a has no row", "ID b is not in the sample"]


def test_bad_input_is_one_line_and_exit_status_2(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "no.csv"), str(tmp_path / "no.csv")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hpa-kit: ")
    assert error.count("\n") == 1


def test_options_override_the_settings_file(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text("train: 0\ntest: 1\nsize: 64\nseed: 7\nworkers: 1\n")
    assert main(["simulate", str(tmp_path / "d"), "--config", str(tmp_path / "s.yaml"), "--test", "2"]) == 0
    assert len(list((tmp_path / "d" / "test").glob("*_green.png"))) == 2


@pytest.mark.parametrize("command", COMMANDS, ids=[command.name for command in COMMANDS])
def test_a_misspelt_setting_in_a_file_is_named_with_its_file(tmp_path, capsys, command):
    known = next(name for name in command.settings.options() if len(name) > 3)
    (tmp_path / "s.yaml").write_text(f"{known}x: 1\n")
    assert main([command.name, "--config", str(tmp_path / "s.yaml")]) == 2
    assert f"s.yaml: unknown setting '{known}x'; did you mean '{known}'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=[command.name for command in COMMANDS])
def test_help_tells_every_setting(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command.name, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for name in command.settings.options():
        assert name in command.positional or f"--{name.replace('_', '-')}" in out


def test_help_shows_defaults_as_they_are_given_and_none_where_there_is_none(capsys):
    for name in ("features", "train"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
    out = capsys.readouterr().out
    assert "(default: 1.0,1.2)" in " ".join(out.split())
    assert "None" not in out and "(default: )" not in out


def test_an_option_with_two_names_is_had_by_either():
    (command,) = [command for command in COMMANDS if command.name == "train"]
    for name in ("--contrast", "--normalisation"):
        arguments = make_parser(["train"]).parse_args(["train", "d", "--out", "o", name, "fixed"])
        assert settings_of(command, arguments).normalisation == "fixed"


def test_light_commands_do_not_load_torch():
    code = "import sys, hpa_kit.cli, hpa_kit.submission; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_command_reads_the_settings_of_no_other():
    code = """
import contextlib, sys
from hpa_kit.cli import main
with contextlib.suppress(SystemExit):
    main(["train", "--help"])
read = {f"hpa_kit.config.{name}" for name in ("train", "infer", "data", "report")} & sys.modules.keys()
sys.exit(read != {"hpa_kit.config.train"})
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL)
    assert done.returncode == 0


def test_published_weights_are_converted_or_refused(tmp_path, capsys):
    assert main(["weights", "convert", str(tmp_path / "no.pth"), str(tmp_path / "no.safetensors")]) == 2
    assert "is missing" in capsys.readouterr().err


def test_the_verbose_version_tells_what_an_issue_asks_for(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version", "--verbose"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"hpa-kit {hpa_kit.__version__} in ")
    assert lines[1].startswith(f"Python {sys.version.split()[0]} on ")
    assert f"torch {importlib.metadata.version('torch')}" in lines
    assert not any("missing" in line for line in lines)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"hpa-kit {hpa_kit.__version__}\n"
