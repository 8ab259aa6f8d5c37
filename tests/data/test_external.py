"""The table of external fields, the sampling modes, HPA's names."""

import warnings

import numpy as np
import pandas as pd
import pytest

from hpa_kit.classes import CLASSES
from hpa_kit.data import (
    CELL_LINES,
    location_to_class,
    locations_to_labels,
    make_folds,
    read_external,
    read_labels,
    sample_external,
)
from hpa_kit.data.external import is_competition_line, kind_of_label
from hpa_kit.errors import InputError

COLUMNS = "ID,Label_idx,Cellline,isin_dataset,is_non_rare,file_ext,dir"


def written(path, *rows, header=COLUMNS):
    file = path / "external.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def table_of(labels, lines=None, there=None):
    n = len(labels)
    return pd.DataFrame(
        {
            "ID": [f"{number:05}" for number in range(n)],
            "Label": labels,
            "Cellline": lines or ["U-2 OS"] * n,
            "isin_dataset": there or [False] * n,
            "is_non_rare": [kind_of_label(label) for label in labels],
        }
    )


def taken(table, mode, **options):
    return set(sample_external(table, mode, **options)["ID"])


def test_messy_values_are_read_and_ids_stay_text(tmp_path):
    file = written(
        tmp_path,
        "7,1e5,17|17, U-2 OS ,TRUE,,jpg,/kaggle/input/extra/",
        "8,00123,0|16|,hTCEpi,0,multi,png,..\\input\\more",
        "9,0123e45, 5 ,,false,Rare,png,",
        header=f"Unnamed: 0,{COLUMNS}",
    )
    table = read_external(file)
    assert table["ID"].tolist() == ["1e5", "00123", "0123e45"]
    assert table["Label"].tolist() == ["17", "0|16", "5"]
    assert table["Cellline"].tolist() == ["U-2 OS", "hTCEpi", ""]
    assert table["isin_dataset"].tolist() == [True, False, False]
    assert table["is_non_rare"].tolist() == ["Rare", "Multi", "Rare"]
    assert table["dir"].tolist() == ["extra", "more", ""]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,19,HeLa,True,Rare,png,d", "ID a: '19' is no location class"),
        ("a,x,HeLa,True,Rare,png,d", "ID a: 'x'"),
        ("a,,HeLa,True,Rare,png,d", "ID a: the label is empty"),
        ("a,5,HeLa,perhaps,Rare,png,d", "ID a: isin_dataset is 'perhaps'"),
        ("a,5,HeLa,True,Seldom,png,d", "ID a: is_non_rare is 'Seldom'"),
        (",5,HeLa,True,Rare,png,d", "no ID in row 1"),
    ],
)
def test_values_that_mean_nothing_name_their_id(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read_external(written(tmp_path, row))


def test_a_table_without_what_sampling_needs_is_refused(tmp_path):
    with pytest.raises(InputError, match="isin_dataset"):
        read_external(written(tmp_path, "a,5,HeLa", header="ID,Label_idx,Cellline"))
    with pytest.raises(InputError, match="Label_idx"):
        read_external(written(tmp_path, "a,HeLa,1", header="ID,Cellline,isin_dataset"))


def test_a_repeated_id_counts_once_and_it_is_said(tmp_path):
    rows = [f"{id},{label},HeLa,True,Rare,png,d" for id, label in (("a", 5), ("a", 6), ("b", 7))]
    with pytest.warns(UserWarning, match="1 rows have an ID that stood before, such as a"):
        table = read_external(written(tmp_path, *rows))
    assert table["Label"].tolist() == ["5", "7"]


def test_hpa_names_merge_into_the_classes(tmp_path):
    for place in CLASSES:
        assert location_to_class(place.name) == place.index
    merged = {
        "Focal adhesion sites": 9, "Centriolar satellite": 12, "Cell Junctions": 13, "Vesicles": 17,
        "Peroxisomes": 17, "Endosomes": 17, "Lysosomes": 17, "Lipid droplets": 17,
        "Cytoplasmic bodies": 17, "No staining": 18, "cytosol ": 16, "Centriolar  satellites": 12,
    }  # fmt: skip
    for name, index in merged.items():
        assert location_to_class(name) == index
    assert location_to_class("Midbody") is None and location_to_class("") is None
    labels, unknown = locations_to_labels(
        ["Cytosol,Nucleoplasm;Midbody", "Vesicles|Endosomes", "Midbody", ""]
    )
    assert labels == ["0|16", "17", "", ""]
    assert unknown == {"Midbody": 2}


def test_a_table_of_names_is_read_and_rows_without_a_class_are_counted(tmp_path):
    rows = ['a,"Vesicles,Cytosol",HeLa,True', "b,Midbody,HeLa,True", "c,No staining,HeLa,False"]
    file = written(tmp_path, *rows, header="ID,Label,Cellline,isin_dataset")
    with pytest.warns(UserWarning) as said:
        table = read_external(file)
    assert table["ID"].tolist() == ["a", "c"]
    assert table["Label"].tolist() == ["16|17", "18"]
    assert table["is_non_rare"].tolist() == ["Multi", "Rare"]
    texts = [str(warning.message) for warning in said]
    assert any("Midbody 1" in text for text in texts) and any("1 of 3 rows" in text for text in texts)


# Rows: 0 in the data set and Only, 1 Only, 2 Multi, 3 the label 0|16, 4 Rare, 5 in the data set and 0|16.
SIX = table_of(["0", "16", "0|5", "0|16", "5|7", "0|16"], there=[True, False, False, False, False, True])


@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        (-1, [0, 1, 2, 3, 4, 5]),
        (0, [0, 5]),
        (1, [0, 4, 5]),
        (2, [0, 2, 4]),
        (3, [0, 4, 5]),
        (4, [0, 2, 3, 4, 5]),
        (5, [0, 4, 5]),
        (6, [4]),
    ],
)
def test_each_mode_takes_its_kinds(mode, rows):
    assert sample_external(SIX, mode)["ID"].tolist() == [f"{row:05}" for row in rows]


def test_there_is_no_mode_7():
    with pytest.raises(InputError, match="no mode 7"):
        sample_external(SIX, 7)


def test_mode_3_adds_three_tenths_of_the_remaining_0_16_and_mode_5_of_only_too():
    table = table_of(["0|16"] * 100 + ["0"] * 50 + ["5"] * 7, there=[True] * 10 + [False] * 147)
    labels = table.set_index("ID")["Label"]
    third, fifth = taken(table, 3), taken(table, 5)
    assert labels[list(third)].value_counts().to_dict() == {"0|16": 10 + 27, "5": 7}
    assert labels[list(fifth)].value_counts().to_dict() == {"0|16": 10 + 27, "0": 15, "5": 7}
    assert third < fifth


@pytest.mark.parametrize("n_rare", [5, 30, 60])
def test_rare_cell_lines_are_taken_first(n_rare):
    table = table_of(["0|16"] * 100, lines=(["HeLa"] * n_rare + ["A-431", "U-251 MG"] * 50)[:100])
    lines = sample_external(table, 3)["Cellline"]
    assert len(lines) == 30
    assert (lines == "HeLa").sum() == min(n_rare, 30)


def test_the_seed_decides_the_draw_and_the_order_of_rows_does_not():
    table = table_of(["0|16"] * 200)
    assert taken(table, 3, seed=1) == taken(table, 3, seed=1)
    assert taken(table, 3, seed=1) != taken(table, 3, seed=2)
    assert taken(table.sample(frac=1, random_state=0), 3, seed=1) == taken(table, 3, seed=1)


def test_the_seventeen_lines_are_known_however_they_are_written():
    assert len(CELL_LINES) == 17 and is_competition_line(pd.Series(CELL_LINES)).all()
    lines = pd.Series(["U2OS", "Rh30", "HUVEC/TERT2", "MCF7", "", "A-431 "])
    assert is_competition_line(lines).tolist() == [True, True, True, False, False, True]


def test_fields_of_other_lines_never_validate_and_the_competitions_folds_stay():
    rng = np.random.default_rng(0)
    own = pd.DataFrame({"ID": [f"c{n}" for n in range(60)], "Label": rng.integers(0, 4, 60).astype(str)})
    new = pd.DataFrame({"ID": [f"e{n}" for n in range(40)], "Label": rng.integers(0, 4, 40).astype(str)})
    own = own.assign(Cellline="A-431", External=False)
    new = new.assign(Cellline=["HeLa", "MCF7"] * 20, External=True)
    folds = make_folds(pd.concat([new, own], ignore_index=True), 5, seed=0)
    assert (folds["fold"][1:40:2] == -1).all()
    assert folds["fold"][0:40:2].value_counts().to_dict() == dict.fromkeys(range(5), 4)
    alone = make_folds(own[["ID", "Label"]], 5, seed=0)
    assert folds["fold"][40:].tolist() == alone["fold"].tolist()


def test_nothing_to_validate_on_is_an_error():
    labels = pd.DataFrame({"ID": ["a"], "Label": ["0"], "Cellline": ["MCF7"]})
    with pytest.raises(InputError, match="no field to divide"):
        make_folds(labels, 5, seed=0)


@pytest.mark.filterwarnings("ignore:folds")
def test_the_whole_table_and_the_competition_are_read_and_sampled(real, tmp_path):
    """The table is made of real labels and lines."""
    lines = pd.read_csv(real / "tables" / "external.csv", dtype=str)["Cellline"]
    labels = pd.read_csv(real / "tables" / "train.csv", dtype=str)["Label"]
    rng, n = np.random.default_rng(0), 80_000
    whole = pd.DataFrame(
        {
            "ID": [f"{number}_A1_1" for number in range(n)],
            "Label_idx": rng.choice(labels, n),
            "Cellline": rng.choice(lines, n),
            "isin_dataset": rng.random(n) < 0.3,
            "is_non_rare": "",
            "file_ext": "jpg",
            "dir": "/kaggle/input/extra",
        }
    )
    whole.to_csv(tmp_path / "external.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = read_external(tmp_path / "external.csv")
        labels = read_labels(real / "tables" / "train.csv")
    sizes = [len(sample_external(table, mode)) for mode in range(-1, 7)]
    assert len(table) == n and len(labels) == 21_806
    assert sizes[0] == len(table) and sizes[1] < sizes[2] < sizes[5] and sizes[2] <= sizes[4] < sizes[6]
