"""What commands say, and how they end, where not one field was scored, or not one cell was found."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from hpa_kit.cells import LabelMaps, write_label_maps
from hpa_kit.cli import main
from hpa_kit.config import InferSettings
from hpa_kit.data import read_cell_scores
from hpa_kit.errors import InputError
from hpa_kit.inference import infer
from hpa_kit.inference.views import LoadedMember
from hpa_kit.submission import check_submission

IDS = [f"f{k:02d}" for k in range(12)]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def fields(competition, cells):
    """Twelve fields with a sample, and the same as training fields with labels."""
    for k, id in enumerate(IDS):
        competition.add(id, cells(64, 64, 32), seed=k)
    competition.write_sample()
    shutil.copytree(competition.test, competition.root / "train")
    pd.DataFrame({"ID": IDS, "Label": "0"}).to_csv(competition.root / "train.csv", index=False)
    return competition


@pytest.fixture
def run(fields, make_member, tmp_path):
    """A command on the fields: its exit status and what it wrote."""
    member = shutil.copytree(make_member(32), tmp_path / "member")
    folds = pd.DataFrame({"ID": IDS, "Label": "0", "fold": 0})
    folds.to_csv(member / "folds.csv", index=False)

    def command(name: str, *options: object):
        out = tmp_path / {"pseudo-labels": "pseudo", "tune": "tuned.yaml"}.get(name, f"{name}.csv")
        words = [name, fields.root, "--members", member, "--masks", fields.masks, "--out", out, "--views",
                 "none", "--map-size", 32, "--batch", 2, "--device", "cpu", *options]  # fmt: skip
        return main([str(word) for word in words]), out

    return command


@pytest.fixture
def broken(monkeypatch):
    """A device that fails on everything."""

    def look(self, *arguments, **options):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_DSA")

    monkeypatch.setattr(LoadedMember, "predict", look)


def errors(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("hpa-kit: ")]


BROKEN = [
    ("infer", "infer: not one of the 12 fields of .*: 5 could not be used and 7 were not reached"),
    ("predict", "predict: not one of the 12 fields of .*: 5 could not be used and 7 were not reached"),
    ("pseudo-labels", "pseudo-labels: not one of the 12 fields"),
    ("tune", "tune: 0 of 12 fields could be used"),
]


@pytest.mark.parametrize(("name", "message"), BROKEN)
def test_a_device_that_is_broken_from_the_start_ends_in_one_line(run, broken, capsys, name, message) -> None:
    status, _ = run(name)
    said = errors(capsys)
    assert status == 2
    assert len(said) == 1
    assert re.search(message, said[0])
    if name != "tune":  # which says of each field above why it was left out
        assert "CUDA error" in said[0]


@pytest.mark.parametrize("name", ["infer", "predict", "pseudo-labels"])
def test_the_same_command_does_what_was_not_scored(run, monkeypatch, name) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LoadedMember, "predict", lambda *_, **__: 1 / 0)
        assert run(name)[0] == 2
    status, out = run(name)
    assert status == 0
    table = out / "cell_scores.csv" if name == "pseudo-labels" else out
    assert set(pd.read_csv(table)["ID"]) == set(IDS)


def test_the_csv_of_nothing_is_one_that_kaggle_takes(run, broken, fields) -> None:
    out = run("infer")[1]
    assert check_submission(out, fields.root / "sample_submission.csv") == []


def test_time_that_is_over_before_the_first_field_is_an_error_and_leaves_the_csv(
    fields, member, clock, tmp_path
) -> None:
    out = tmp_path / "s.csv"
    settings = InferSettings(
        data=fields.root, members=(member,), out=out, masks=fields.masks, budget=1, spent=1
    )
    with pytest.raises(
        InputError, match="not one of the 12 fields .* 12 were not reached; there was no time"
    ):
        infer(settings, now=clock)
    assert check_submission(out, fields.root / "sample_submission.csv") == []


@pytest.mark.parametrize("name", ["infer", "predict", "pseudo-labels", "tune"])
def test_fields_without_a_single_cell_are_a_result_and_are_counted_last(run, fields, caplog, name) -> None:
    nothing = np.zeros((64, 64), np.int32)
    for id in IDS:
        write_label_maps(fields.masks / f"{id}.npz", LabelMaps(nothing, nothing))
    status, out = run(name)
    assert status == 0
    assert any(f"{name}: 12 of 12 fields have no cell" in line for line in caplog.messages[-3:])
    if name == "infer":
        assert check_submission(out, fields.root / "sample_submission.csv") == []
    if name == "pseudo-labels":
        assert len(read_cell_scores(out / "cell_scores.csv")) == 0


def test_some_fields_without_cells_are_counted_too(run, fields, caplog) -> None:
    nothing = np.zeros((64, 64), np.int32)
    write_label_maps(fields.masks / "f03.npz", LabelMaps(nothing, nothing))
    assert run("infer")[0] == 0
    assert caplog.messages[-1] == "infer: 1 of 12 fields have no cell"
