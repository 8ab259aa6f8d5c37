"""Fields of the competition and of the public atlas: which are taken and where their images are found."""

import cv2
import numpy as np
import pytest

from hpa_kit.config import StoreSettings, TrainSettings
from hpa_kit.data import CHANNELS, labelled_fields, read_field, store_fields
from hpa_kit.errors import InputError

HEADER = "ID,Label_idx,Cellline,isin_dataset,is_non_rare,file_ext,dir"


def write_images(folder, id, ending=".png", channels=CHANNELS):
    folder.mkdir(parents=True, exist_ok=True)
    for channel in channels:
        cv2.imwrite(str(folder / f"{id}_{channel}{ending}"), np.full((8, 8), 9, np.uint8))


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    for id in ("c1", "c2", "c3"):
        write_images(root / "train", id)
    (root / "train.csv").write_text("ID,Label\nc1,8|5|0\nc2,16\nc3,4\n")
    return root


def write_table(root, *rows):
    (root / "external.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return root / "external.csv"


def settings(data, kind=TrainSettings, **changes):
    out = data.parent / "out"
    return kind(data=data, out=out, **{"external_images": data.parent / "extra", **changes})


def test_external_fields_follow_the_competitions(data):
    extra = data.parent / "extra"
    write_images(extra, "1e5", ".jpg")
    write_images(extra / "more", "00123", ".tif")
    write_images(extra / "deep" / "deeper", "7_A1_1")
    rows = ["1e5,5,MCF7,True,Rare,jpg,x", "00123,0|16,HeLa,False,Multi,tif,more", "7_A1_1,3,U2OS,0,Rare,png,"]
    table = write_table(data.parent, *rows)
    fields = labelled_fields(settings(data, external=table, external_mode=-1))
    assert fields.table["ID"].tolist() == ["c1", "c2", "c3", "1e5", "00123", "7_A1_1"]
    assert fields.table["Label"].tolist() == ["0|5|8", "16", "4", "5", "0|16", "3"]
    assert fields.table["Cellline"].tolist() == ["A-431"] * 3 + ["MCF7", "HeLa", "U2OS"]
    assert fields.table["External"].tolist() == [False] * 3 + [True] * 3
    assert [fields.folders[id] for id in ("c1", "1e5", "00123", "7_A1_1")] == [
        data / "train", extra, extra / "more", extra / "deep" / "deeper"
    ]  # fmt: skip
    for id, folder in fields.folders.items():
        assert read_field(folder, id).shape == (4, 8, 8)


def test_the_mode_chooses_among_fields_with_images(data):
    write_images(data.parent / "extra", "e1")
    write_images(data.parent / "extra", "e2")
    table = write_table(data.parent, "e1,5,HeLa,True,Rare,png,x", "e2,0|16,HeLa,False,Multi,png,x")
    for mode, taken in ((0, ["e1"]), (4, ["e1", "e2"]), (2, ["e1"])):
        made = labelled_fields(settings(data, external=table, external_mode=mode)).table
        assert made["ID"].tolist()[3:] == taken


@pytest.mark.filterwarnings("ignore:external. 1 of 1 rows .* lack images")
@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "of its 0 rows none is of a field that the competition's table lacks"),
        (["c1,5,HeLa,True,Rare,png,d"], "of its 1 rows none is of a field that the comp"),
        (["gone,5,HeLa,True,Rare,png,d"], "none of its 1 new IDs, such as gone, has its images in .*extra"),
        (["e1,0|16,HeLa,False,Multi,png,d"], "external_mode 6 takes none of the 1 with images"),
    ],
)
@pytest.mark.parametrize("kind", [TrainSettings, StoreSettings])
def test_a_table_of_which_no_field_is_taken_is_an_error_that_says_why(data, rows, why, kind):
    write_images(data.parent / "extra", "e1")
    table = write_table(data.parent, *rows)
    extra = {"size": 32} if kind is StoreSettings else {}
    with pytest.raises(InputError, match=rf"no field of {table} is taken: {why}.*; put that right"):
        labelled_fields(settings(data, kind, external=table, external_mode=6, **extra))


def test_the_folder_that_dir_names_is_looked_into_first(data):
    for name in ("first", "second"):
        write_images(data.parent / "extra" / name, "e")
    for name in ("first", "second"):
        table = write_table(data.parent, f"e,5,HeLa,True,Rare,png,/somewhere/else/{name}/")
        assert labelled_fields(settings(data, external=table)).folders["e"].name == name


def test_external_rows_without_images_are_counted_said_and_left_out(data):
    write_images(data.parent / "extra", "whole")
    write_images(data.parent / "extra", "part", channels=CHANNELS[:3])
    table = write_table(data.parent, *(f"{id},5,HeLa,True,Rare,png,d" for id in ("gone", "whole", "part")))
    made = settings(data, external=table)
    with pytest.warns(UserWarning, match=r"2 of 3 rows .* lack images .*such as ID gone"):
        assert labelled_fields(made).table["ID"].tolist()[3:] == ["whole"]
    with pytest.warns(UserWarning, match="1 of 3 rows"):
        three = labelled_fields(settings(data, external=table, in_channels=3))
    assert three.table["ID"].tolist()[3:] == ["whole", "part"]


def test_a_field_of_the_competition_is_not_taken_twice(data):
    for id in ("c1", "e1"):
        write_images(data.parent / "extra", id)
    table = write_table(data.parent, "c1,5,HeLa,True,Rare,png,d", "e1,5,HeLa,True,Rare,png,d")
    fields = labelled_fields(settings(data, external=table))
    assert fields.table["ID"].tolist() == ["c1", "c2", "c3", "e1"]
    assert fields.table["Label"][0] == "0|5|8" and fields.folders["c1"] == data / "train"


def test_a_competition_field_absent_from_train_is_looked_for_among_the_external(data):
    for path in (data / "train").glob("c2_*"):
        path.unlink()
    (data.parent / "extra").mkdir()
    with pytest.raises(
        InputError, match=r"^fields: 1 of 3 labelled fields lack images .*ID c2 \(red, green, blue"
    ):
        labelled_fields(settings(data))
    write_images(data.parent / "extra" / "more", "c2")
    assert labelled_fields(settings(data)).folders["c2"] == data.parent / "extra" / "more"


def test_three_channels_ask_for_no_yellow(data):
    for path in (data / "train").glob("*_yellow.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"3 of 3 .*ID c1 \(yellow\)"):
        labelled_fields(settings(data, external_images=None))
    assert len(labelled_fields(settings(data, external_images=None, in_channels=3)).folders) == 3


def test_a_folder_of_external_images_that_is_not_there_is_an_error(data):
    with pytest.raises(InputError, match="extra cannot be read"):
        labelled_fields(settings(data))


def test_the_command_keeps_external_fields_too(data):
    write_images(data.parent / "extra", "e1")
    table = write_table(data.parent, "e1,5,HeLa,True,Rare,png,x")
    out = store_fields(settings(data, StoreSettings, external=table, size=32))
    assert sorted(path.stem for path in (out / "32").iterdir()) == ["c1", "c2", "c3", "e1"]


def test_real_external_images_are_found_and_the_incomplete_one_is_left_out(real, data):
    ids = ("1610_C1_1", "1756_B1_1", "50_A1_1", "51_A1_1")
    table = write_table(data.parent, *(f"{id},5,U-2 OS,True,Rare,jpg,external" for id in ids))
    with pytest.warns(UserWarning, match="1 of 4 rows .*ID 51_A1_1"):
        fields = labelled_fields(settings(data, external=table, external_images=real / "external"))
    assert fields.table["ID"].tolist()[3:] == list(ids[:3])
