"""The experiment log lists what was trained, whatever else lies there."""

import math

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from hpa_kit.cli import main
from hpa_kit.config import PseudoLabelSettings, TrainSettings, make_settings, read_yaml, write_yaml
from hpa_kit.errors import InputError
from hpa_kit.report.experiment_log import list_runs, runs_text, settings_yaml
from hpa_kit.training.checkpoint import write_checkpoint


def keep(folder, name="best.safetensors", epoch=2, loss=0.5, f1=0.25, **changes):
    """A checkpoint without weights."""
    settings = TrainSettings(data="data", out=folder, **changes)
    metrics = {"epoch": epoch, "val_loss": loss, "macro_f1": f1}
    write_checkpoint(folder / name, settings, {"epoch": epoch, "metrics": metrics, "model": {}})
    write_yaml(settings, folder / "settings.yaml")
    return settings


@pytest.fixture
def book(tmp_path):
    keep(tmp_path / "round0", epochs=10, lr=0.1)
    keep(tmp_path / "round0", "last.safetensors", epoch=10, loss=0.7, f1=0.2, epochs=10, lr=0.1)
    keep(tmp_path / "deep" / "er" / "puzzle", puzzle="cam", epochs=10, loss=math.nan)
    started = TrainSettings(data="data", out=tmp_path / "started", epochs=3)
    write_yaml(started, tmp_path / "started" / "settings.yaml")
    return tmp_path


def test_every_checkpoint_has_a_row_with_its_own_scores(book):
    table, left_out = list_runs(book)
    assert left_out == []
    rows = table[["run", "checkpoint", "epoch", "val_loss"]].values.tolist()
    assert rows[1:] == [
        ["round0", "best.safetensors", 2, 0.5],
        ["round0", "last.safetensors", 10, 0.7],
        ["started", "", None, None],
    ]
    assert rows[0][:3] == ["deep/er/puzzle", "best.safetensors", 2] and math.isnan(rows[0][3])
    assert table["lr"].tolist() == [2e-3, 0.1, 0.1, 2e-3]


def test_the_text_shows_the_settings_in_which_runs_differ_and_all_when_asked(book):
    text = runs_text(list_runs(book).table)
    header, _, puzzle, best, _, started = text.splitlines()
    assert header.split() == ["run", "checkpoint", "epoch", "val_loss", "macro_f1", "epochs", "lr", "puzzle"]
    assert puzzle.split() == [
        "deep/er/puzzle",
        "best.safetensors",
        "2/10",
        "nan",
        "0.2500",
        "10",
        "0.002",
        "cam",
    ]
    assert best.split()[2:5] == ["2/10", "0.5000", "0.2500"]
    assert started.split() == ["started", "-", "-", "-", "-", "3", "0.002", "off"]
    whole = runs_text(list_runs(book).table, everything=True).splitlines()[0].split()
    assert whole[5:] == list(TrainSettings.model_fields)


def test_a_single_run_shows_where_it_leaves_the_defaults(tmp_path):
    keep(tmp_path / "run", backbone="resnet18", ema=0)
    header = runs_text(list_runs(tmp_path).table).splitlines()[0].split()
    assert header == ["run", "checkpoint", "epoch", "val_loss", "macro_f1", "data", "backbone", "ema"]
    assert list_runs(tmp_path / "run").table["run"].tolist() == ["run"]


def test_damaged_and_foreign_files_are_named_and_the_rest_is_listed(book, capsys):
    (book / "a").mkdir()
    (book / "a" / "cut.safetensors").write_bytes((book / "round0" / "best.safetensors").read_bytes()[:50])
    (book / "a" / ".best.x.safetensors").write_bytes(b"")
    save_file({"w": torch.ones(1)}, book / "a" / "weights.safetensors")
    for name, text in {"labels": "ensemble: x\n", "broken": "[", "list": "- 1\n"}.items():
        (book / name).mkdir()
        (book / name / "settings.yaml").write_text(text)
    (book / "table.csv").write_text("ID\n")
    (book / "loop").symlink_to(book)
    table, left_out = list_runs(book)
    assert len(table) == 4
    assert len(left_out) == 5
    for name in ("cut.safetensors", "weights.safetensors", "labels", "broken", "list"):
        assert sum(name in line for line in left_out) == 1, name
    assert main(["runs", str(book)]) == 0
    assert "round0" in capsys.readouterr().out


def test_the_csv_holds_every_setting(book, tmp_path, capsys):
    out = tmp_path / "new" / "runs.csv"
    assert main(["runs", str(book), "--csv", str(out)]) == 0
    table = pd.read_csv(out)
    assert list(table.columns[:5]) == ["run", "checkpoint", "epoch", "val_loss", "macro_f1"]
    assert set(TrainSettings.model_fields) <= set(table.columns) and len(table) == 4
    assert str(out) in capsys.readouterr().out


def test_settings_printed_from_a_checkpoint_are_taken_by_train_again(book, capsys):
    expected = keep(
        book / "x", epochs=7, lr=0.25, augmentation="mine.yaml", warm_start="runs/r0", pretrained=None
    )
    for place in (book / "x" / "best.safetensors", book / "x"):
        assert main(["runs", str(place), "--yaml"]) == 0
        (book / "again.yaml").write_text(capsys.readouterr().out)
        assert make_settings(TrainSettings, read_yaml(book / "again.yaml")) == expected
    assert main(["train", "--config", str(book / "again.yaml"), "--out", str(book / "new")]) == 2
    assert "data is missing" in capsys.readouterr().err


def test_a_folder_without_runs_says_so_and_a_missing_one_is_an_error(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    assert f"no run below {tmp_path}" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"gone is missing; expected a folder"):
        list_runs(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        list_runs(tmp_path / "file")
    with pytest.raises(InputError, match=r"gone\.safetensors is missing"):
        settings_yaml(tmp_path / "gone.safetensors")


def test_pseudo_labels_beside_runs_are_no_runs_and_other_settings_are_told_in_a_line(book):
    (book / "labels").mkdir()
    pseudo = PseudoLabelSettings(data="data", members="run", out=book / "labels")
    write_yaml(pseudo, book / "labels" / "settings.yaml")
    (book / "other").mkdir()
    (book / "other" / "settings.yaml").write_text("zzz: 1\n")
    table, left_out = list_runs(book)
    assert len(table) == 4
    (line,) = left_out
    assert line == f"runs: {book}/other/settings.yaml is of no training run, which has no setting 'zzz'"
