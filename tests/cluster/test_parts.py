"""A table in parts: whole files of sorted rows, written again only where something has come since."""

import pandas as pd
import pytest

from hpa_kit.errors import InputError
from hpa_kit.inference import lab_tables
from hpa_kit.inference.lab_tables import ParquetParts
from hpa_kit.inference.results import Journal

HEADER = "ID,cell,area,Nucleoplasm\n"
IDS = [f"f{k}" for k in range(7)]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of seven fields, three in a part."""
    monkeypatch.setattr(lab_tables, "FIELDS_AT_ONCE", 3)
    with ParquetParts(tmp_path / "t.parquet", IDS, HEADER, Journal(folder=tmp_path)) as made:
        yield made


def add(table, *numbers, cells=2) -> None:
    for k in numbers:
        table.journal.add(f"f{k}", "".join(f"f{k},{cell},10,0.5\n" for cell in range(1, cells + 1)))


def names(table) -> list[str]:
    return sorted(path.name for path in table.out.iterdir())


def test_parts_hold_the_rows_of_their_fields_in_order(table) -> None:
    add(table, 5, 0, 2, 1)
    table.write()
    assert names(table) == ["part-00000.parquet", "part-00001.parquet"]
    whole = pd.read_parquet(table.out)
    assert whole["ID"].tolist() == ["f0", "f0", "f1", "f1", "f2", "f2", "f5", "f5"]
    assert whole["cell"].tolist() == [1, 2] * 4
    assert str(whole["Nucleoplasm"].dtype) == "float32"


def test_a_table_without_a_row_has_its_columns(table) -> None:
    table.write()
    assert list(pd.read_parquet(table.out).columns) == HEADER.strip().split(",")


def test_only_parts_are_written_again_of_which_something_came(table) -> None:
    add(table, 0, 1, 2, 3)
    table.write()
    before = {path.name: path.stat().st_ino for path in table.out.iterdir()}
    add(table, 4)
    add(table, 3, cells=1)  # which was tried again
    table.write()
    after = {path.name: path.stat().st_ino for path in table.out.iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["part-00001.parquet"]
    assert pd.read_parquet(table.out)["ID"].tolist().count("f3") == 1


def test_parts_of_a_longer_table_before_go(table) -> None:
    (table.out / "part-00007.parquet").write_bytes(b"of before")
    add(table, 0)
    table.write()
    assert names(table) == ["part-00000.parquet"]


def test_a_folder_of_other_files_and_a_file_are_refused(tmp_path) -> None:
    (tmp_path / "t.parquet").mkdir()
    (tmp_path / "t.parquet" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match=r"holds thesis.txt, which is no part of a table"):
        ParquetParts(tmp_path / "t.parquet", IDS, HEADER)
    (tmp_path / "u.parquet").write_text("")
    with pytest.raises(InputError, match="u.parquet is no folder; a cluster's table"):
        ParquetParts(tmp_path / "u.parquet", IDS, HEADER)
