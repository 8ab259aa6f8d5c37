"""The rows of a submission while it grows."""

from pathlib import Path

import pytest

from hpa_kit.errors import InputError
from hpa_kit.inference.growing_table import SubmissionTable
from hpa_kit.submission import decode_mask, read_submission

SIZES = {"a": (30, 50), "b": (40, 40)}


def predictions(path: Path) -> dict[str, str]:
    table = read_submission(path)
    return dict(zip(table["ID"], table["PredictionString"], strict=True))


def test_every_row_finds_nothing_until_its_field_is_done(tmp_path: Path) -> None:
    with SubmissionTable(tmp_path / "s.csv", ["a", "b"], SIZES) as rows:
        rows.write()
        for id, text in predictions(tmp_path / "s.csv").items():
            _, confidence, mask = text.split()
            assert 0 < float(confidence) <= 1e-6
            assert not decode_mask(mask, *SIZES[id]).any()


def test_rows_stand_in_their_order_whatever_is_done_first(tmp_path: Path) -> None:
    ids = [f"f{k}" for k in range(20)]
    with SubmissionTable(tmp_path / "s.csv", ids, {}) as rows:
        for id in reversed(ids):
            rows.journal.add(id, f"1 0.5 {id}".encode(), size=(8, 9))
            rows.write()
        found = predictions(tmp_path / "s.csv")
    assert list(found) == ids
    assert all(text == f"1 0.5 {id}" for id, text in found.items())


def test_a_field_without_predictions_keeps_a_row_that_is_not_empty(tmp_path: Path) -> None:
    with SubmissionTable(tmp_path / "s.csv", ["a"], SIZES) as rows:
        rows.journal.add("a", b"", size=(30, 50))
        rows.write()
    assert predictions(tmp_path / "s.csv")["a"]


def test_a_row_of_unknown_size_gets_the_most_common_one(tmp_path: Path) -> None:
    sizes = {"a": (30, 50), "b": (30, 50), "c": (9, 9)}
    with SubmissionTable(tmp_path / "s.csv", ["a", "x", "b", "c"], sizes) as rows:
        rows.write()
    table = read_submission(tmp_path / "s.csv")
    assert table["ImageWidth"].tolist() == [50, 50, 50, 9]
    assert table["ImageHeight"].tolist() == [30, 30, 30, 9]


def test_writing_is_not_repeated_before_its_time(tmp_path: Path, monkeypatch) -> None:
    clock = 0.0
    monkeypatch.setattr("hpa_kit.inference.growing_table.time.monotonic", lambda: clock)
    with SubmissionTable(tmp_path / "s.csv", ["a"], SIZES) as rows:
        rows.write()
        rows.journal.add("a", b"1 0.5 m", size=(30, 50))
        clock = 59.0
        rows.write_if_due()
        rows.wait()
        assert predictions(tmp_path / "s.csv")["a"] != "1 0.5 m"
        clock = 61.0
        rows.write_if_due()
        rows.wait()
        assert predictions(tmp_path / "s.csv")["a"] == "1 0.5 m"


def test_nothing_but_the_csv_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), SubmissionTable(tmp_path / "s.csv", ["a"], SIZES) as rows:
        rows.write()
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]


def test_what_goes_wrong_in_writing_is_not_lost(tmp_path: Path, monkeypatch) -> None:
    """It is written by a thread while others work."""

    def full(*_):
        raise InputError("the disk is full")

    with SubmissionTable(tmp_path / "s.csv", ["a"], SIZES) as rows:
        monkeypatch.setattr("hpa_kit.inference.growing_table.write_submission", full)
        rows.write_if_due()
        with pytest.raises(InputError, match="disk is full"):
            rows.wait()
