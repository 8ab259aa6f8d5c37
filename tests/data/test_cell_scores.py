"""Cell scores as a file, and the folder of a run of pseudo labels."""

import numpy as np
import pytest

from hpa_kit.data import CLASS_COLUMNS, read_cell_scores, read_pseudo_labels, write_cell_scores
from hpa_kit.errors import InputError


def scores(n, seed=0):
    return np.random.default_rng(seed).random((n, 19)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Three fields, one of them without cells, whose label maps lie in the run's own folder."""
    write_cell_scores(tmp_path / "cell_scores.csv", [("1e5", scores(2)), ("00123", scores(300, 1))])
    (tmp_path / "fields.csv").write_text("ID,cells\n1e5,2\nempty,0\n00123,300\n")
    (tmp_path / "settings.yaml").write_text("labels: hard\nmasks: null\n")
    (tmp_path / "masks").mkdir()
    return tmp_path


def test_cell_scores_come_back_with_their_ids_as_text(folder):
    table = read_cell_scores(folder / "cell_scores.csv")
    assert table.columns.tolist() == ["ID", "cell", *CLASS_COLUMNS]
    assert table["ID"].unique().tolist() == ["1e5", "00123"]
    assert table["cell"].tolist() == [1, 2, *range(1, 301)]
    np.testing.assert_allclose(table[list(CLASS_COLUMNS)][:2], scores(2), rtol=1e-5)


def test_no_cell_at_all_is_a_table_without_rows(tmp_path):
    write_cell_scores(tmp_path / "a.csv", [("a", scores(0))])
    assert len(read_cell_scores(tmp_path / "a.csv")) == 0


def test_pseudo_labels_hold_every_field_those_without_cells_too(folder):
    pseudo = read_pseudo_labels(folder)
    assert {id: rows.shape for id, rows in pseudo.scores.items()} == {
        "1e5": (2, 19), "00123": (300, 19), "empty": (0, 19),
    }  # fmt: skip
    np.testing.assert_allclose(pseudo.scores["00123"], scores(300, 1), rtol=1e-5)
    assert pseudo.masks == (folder / "masks",)
    assert not pseudo.soft


def test_cells_that_had_to_be_found_count_before_those_of_the_folder_that_was_given(folder, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (folder / "settings.yaml").write_text(f"labels: soft\nmasks: {kept}\n")
    pseudo = read_pseudo_labels(folder)
    assert pseudo.masks == (folder / "masks", kept)
    assert pseudo.soft
    other = tmp_path / "moved"
    other.mkdir()
    assert read_pseudo_labels(folder, masks=other).masks == (folder / "masks", other)
    kept.rmdir()
    with pytest.raises(InputError, match="give masks"):
        read_pseudo_labels(folder)


def test_a_run_that_has_not_ended_is_told_from_no_run(folder, tmp_path):
    (folder / "cell_scores.csv").unlink()
    with pytest.raises(InputError, match="has not ended"):
        read_pseudo_labels(folder)
    with pytest.raises(InputError, match="is no folder"):
        read_pseudo_labels(tmp_path / "nothing")


def line(id, cell, *values):
    return ",".join([id, str(cell), *map(str, values), *["0"] * (19 - len(values))])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([line("a", 1, 1.5)], "ID a: a score is outside"),
        ([line("a", 1, "inf")], "ID a: a score is outside"),
        ([line("a", 1, "nan")], "cannot be read"),
        ([line("a", 1, -0.1)], "ID a: a score is outside"),
        ([line("a", 1, "x")], "cannot be read"),
        ([line("a", 1, "")], "cannot be read"),
        ([line("a", 1), line("a", 3)], "ID a: cell 3 is out of order"),
        ([line("a", 2), line("a", 1)], "ID a: cell 2 is out of order"),
    ],
)
def test_a_table_that_is_no_cell_scores_names_what_is_wrong(tmp_path, rows, said):
    header = ",".join(["ID", "cell", *CLASS_COLUMNS])
    (tmp_path / "a.csv").write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(InputError, match=said):
        read_cell_scores(tmp_path / "a.csv")


def test_a_missing_column_and_a_count_that_does_not_fit_are_named(folder):
    (folder / "fields.csv").write_text("ID,cells\n1e5,2\n00123,299\n")
    with pytest.raises(InputError, match="ID 00123 has 299 cells"):
        read_pseudo_labels(folder)
    (folder / "cell_scores.csv").write_text("ID,cell,Nucleoplasm\na,1,0\n")
    with pytest.raises(InputError, match="lacks the column Nuclear membrane"):
        read_pseudo_labels(folder)
