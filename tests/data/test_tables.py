"""Tables: IDs and labels are text whatever they look like."""

import csv
import gzip
import os
import threading
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpa_kit.data import CLASS_COLUMNS, read_cell_scores, read_external, read_labels, read_sample
from hpa_kit.errors import InputError
from hpa_kit.tables import text_table

ODD_IDS = [
    "1e5",
    "00123",
    "0123e45",
    "1e400",
    "NA",
    "None",
    "nan",
    "null",
    "True",
    "inf",
    "-",
    "1.0",
    "2021-01-01",
]


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ids_that_look_like_numbers_or_nothing_stay_text(tmp_path, end):
    table = read_labels(written(tmp_path, end.join(["ID,Label", *(f"{id},5" for id in ODD_IDS), ""])))
    assert list(table.columns) == ["ID", "Label"]
    assert table["ID"].tolist() == ODD_IDS
    assert set(table["Label"]) == {"5"}


def test_a_table_of_numbers_only_is_still_text(tmp_path):
    table = read_labels(written(tmp_path, "ID,Label\n1,0\n02,1\n"))
    assert table["ID"].tolist() == ["1", "02"]
    assert table["Label"].tolist() == ["0", "1"]


@pytest.mark.parametrize(
    ("label", "read"),
    [("8|5|0", "0|5|8"), ("17|17", "17"), ("0|16|", "0|16"), (" 5 ", "5"), ("05", "5"), ("10|9", "9|10")],
)
def test_labels_are_read_with_their_classes_rising_each_once(tmp_path, label, read):
    assert read_labels(written(tmp_path, f"ID,Label\na,{label}\n"))["Label"].tolist() == [read]


@pytest.mark.parametrize("label", ["19", "x", "", " ", "|", "-1", "1.0", "5;6"])
def test_a_label_that_cannot_be_read_names_its_id_and_file(tmp_path, label):
    path = written(tmp_path, f"ID,Label\ngood,1\n0a1b,{label}\n")
    with pytest.raises(InputError, match=r"ID 0a1b") as caught:
        read_labels(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_byte_order_mark_quotes_blanks_and_other_columns_do_no_harm(tmp_path):
    path = written(tmp_path, 'Cells, Label ,ID\n3,8|5,"a,b"\n4,1,"é"\n', "utf-8-sig")
    table = read_labels(path)
    assert table["ID"].tolist() == ["a,b", "é"]
    assert table["Label"].tolist() == ["5|8", "1"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_commas_semicolons_and_tabs_are_read_alike(tmp_path, separator, encoding, end):
    rows = [["Cells", " Label ", "ID"], *(["a,b;c", "8|5", f'"{id}"'] for id in ODD_IDS)]
    rows[1][2] = '"a,b;c\td"'
    quoted = [['"a,b;c"' if cell == "a,b;c" else cell for cell in row] for row in rows]
    text = end.join([separator.join(row) for row in quoted] + [""])
    table = read_labels(written(tmp_path, "\n" + text, encoding))
    assert table["ID"].tolist() == ["a,b;c\td", *ODD_IDS[1:]]
    assert set(table["Label"]) == {"5|8"}


@pytest.mark.parametrize("separator", [";", "\t"])
def test_every_table_is_read_by_its_own_separator(tmp_path, separator):
    def table(name, *rows):
        (tmp_path / name).write_text("\n".join(separator.join(map(str, row)) for row in rows) + "\n")
        return tmp_path / name

    sizes = ("ID", "ImageWidth", "ImageHeight", "PredictionString")
    sample = read_sample(table("sample.csv", sizes, ("1e5", 3072, 2048, ""), ("2", 8, 8, "0 1 eNoL")))
    assert sample.values.tolist() == [["1e5", 3072, 2048, ""], ["2", 8, 8, "0 1 eNoL"]]
    names = ("ID", "Label", "Cellline", "isin_dataset")
    external = read_external(table("external.csv", names, ("00123", "Cytosol,Nucleoplasm", "HeLa", True)))
    assert external[["ID", "Label"]].values.tolist() == [["00123", "0|16"]]
    scores = table("s.csv", ("ID", " cell", *CLASS_COLUMNS), ("1e5", 1, *[0.5] * 19), ("1e5", 2, *[1] * 19))
    assert read_cell_scores(scores).iloc[:, :3].values.tolist() == [["1e5", 1, 0.5], ["1e5", 2, 1.0]]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_pipe_is_read_once_and_a_packed_table_by_its_name(tmp_path, separator):
    text = "ID,Label\n1e5,7\n".replace(",", separator).encode()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(text,))
    writer.start()
    assert read_labels(tmp_path / "pipe").values.tolist() == [["1e5", "7"]]
    writer.join()
    if separator == ",":
        (tmp_path / "table.csv.gz").write_bytes(gzip.compress(text))
        assert read_labels(tmp_path / "table.csv.gz").values.tolist() == [["1e5", "7"]]


def test_tables_as_spreadsheets_save_them_are_read(shared):
    for name in ("tabs.csv", "semicolons.csv"):
        table = read_labels(shared / "inputs" / "tables" / name)
        assert table.values.tolist() == [["k1", "0|16"], ["k2", "7"]]


def test_a_table_without_rows_has_its_columns(tmp_path):
    assert list(read_labels(written(tmp_path, "ID,Label\n")).columns) == ["ID", "Label"]
    sample = read_sample(written(tmp_path, "ID,ImageWidth,ImageHeight,PredictionString\n"))
    assert sample.shape == (0, 4)
    assert sample["ImageWidth"].dtype == "int64"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("ID;Labels\na;1\n", "lacks the column Label; .*found ID, Labels .with semicolons between them"),
        ("ID\tlabel\na\t1\n", "lacks the column Label; .*found ID, label .with tabs between them"),
        ("ID|Label\na|1\n", "lacks the column ID, Label; .*found ID.Label, with '.' between them"),
        ("ID Label\na 1\n", "lacks the column ID, Label; .*found ID Label, with blanks between them"),
        ("ID:Label\na:1\n", "with colons between them"),
        ("id,Label\na,1\n", "lacks the column ID"),
        ("ID,Label\na,1\nb,2\na,3\n", "ID a more than once"),
        ("ID,Label\na,1\n,2\n", "no ID in row 2"),
        ("ID,Label\na,0,5\n", "more values"),
        ("ID,Label\na,1\nb,1,2,3\n", "cannot be read as a CSV"),
        ('ID,Label\n"a,1\n', "cannot be read as a CSV"),
    ],
)
def test_what_is_no_table_of_labels_is_refused(tmp_path, text, why):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=why) as caught:
        read_labels(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_another_encoding_are_refused(tmp_path):
    with pytest.raises(InputError, match="is missing"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(written(tmp_path, "ID,Label\né,1\n", "utf-16"))


def test_a_sample_keeps_its_order_its_sizes_and_empty_predictions(tmp_path):
    path = written(
        tmp_path,
        "ID,ImageWidth,ImageHeight,PredictionString\n1e5,3072,2048,\n00123,40, 24 ,0 1 eNoLCAgIMAEABJkBdQ\n",
    )
    sample = read_sample(path)
    assert list(sample.columns) == ["ID", "ImageWidth", "ImageHeight", "PredictionString"]
    assert sample["ID"].tolist() == ["1e5", "00123"]
    assert sample["ImageWidth"].tolist() == [3072, 40]
    assert sample["ImageHeight"].tolist() == [2048, 24]
    assert sample["PredictionString"].tolist() == ["", "0 1 eNoLCAgIMAEABJkBdQ"]
    assert sample["ImageWidth"].dtype == sample["ImageHeight"].dtype == "int64"


@pytest.mark.parametrize("size", ["", "0", "-5", "x", "2048.5", "1e3", "9999999"])
def test_a_size_that_is_none_names_its_id(tmp_path, size):
    path = written(tmp_path, f"ID,ImageWidth,ImageHeight,PredictionString\n0a1b,2048,{size},\n")
    with pytest.raises(InputError, match="ID 0a1b: ImageHeight"):
        read_sample(path)


def test_the_competitions_own_tables_are_read(real):
    labels = read_labels(real / "tables" / "train.csv")
    assert len(labels) == 21_806
    assert labels["Label"][0] == "0|5|8"
    sample = read_sample(real / "tables" / "sample_submission.csv")
    assert len(sample) == 559
    assert sample["ImageWidth"].min() >= 1728


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text("0123456789eE+-.naNAul,\"' ü", min_size=1).filter(str.strip),
        st.sets(st.integers(0, 18), min_size=1),
        max_size=6,
    )
)
def test_any_ids_and_labels_come_back_as_they_were_written(tmp_path, labels):
    path = tmp_path / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["ID", "Label"], *([id, "|".join(map(str, one))] for id, one in labels.items())]
        )
    table = read_labels(path)
    assert dict(zip(table["ID"], table["Label"], strict=True)) == {
        id: "|".join(map(str, sorted(one))) for id, one in labels.items()
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80))
def test_a_file_of_any_bytes_is_a_table_or_refused(tmp_path, content):
    path = tmp_path / "labels.csv"
    path.write_bytes(b"ID,Label\n" + content)
    with suppress(InputError):
        assert list(read_labels(path).columns) == ["ID", "Label"]


def test_a_table_is_aligned():
    assert text_table(["a", "bb"], [["ccc", "1"], ["d", "22"]]) == "a    bb\n---  --\nccc   1\nd    22"
