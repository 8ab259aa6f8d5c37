"""Data folders: the competition's layout, or just images."""

import pytest

from hpa_kit.data import DataFolder
from hpa_kit.errors import InputError


def touch(folder, *ids):
    folder.mkdir(parents=True, exist_ok=True)
    for id in ids:
        (folder / f"{id}_red.png").write_bytes(b"")


def sample_of(root, *ids):
    rows = [f"{id},64,64,\n" for id in ids]
    (root / "sample_submission.csv").write_text(
        "ID,ImageWidth,ImageHeight,PredictionString\n" + "".join(rows)
    )


def test_a_competition_folder_has_its_splits_and_tables(tmp_path):
    touch(tmp_path / "train", "b", "a")
    touch(tmp_path / "test", "c")
    (tmp_path / "train.csv").write_text("ID,Label\nb,0\na,5\n")
    (tmp_path / "truth.csv").write_text("")
    data = DataFolder(str(tmp_path))
    assert data.images("train") == tmp_path / "train"
    assert data.images("test") == tmp_path / "test"
    assert data.labels() == tmp_path / "train.csv"
    assert data.sample() is None
    assert data.truth("test") == tmp_path / "truth.csv"
    assert data.truth("train") is None
    assert data.fields("train") == (["a", "b"], [], [])


def test_the_rows_of_a_test_split_are_the_samples_in_its_order(tmp_path):
    touch(tmp_path / "test", "a", "b", "extra")
    sample_of(tmp_path, "b", "gone", "a")
    fields = DataFolder(tmp_path).fields("test")
    assert fields.ids == ["b", "gone", "a"]
    assert fields.missing == ["gone"]
    assert fields.extra == ["extra"]


def test_without_a_sample_the_rows_are_the_fields_found(tmp_path):
    touch(tmp_path / "test", "b", "a")
    assert DataFolder(tmp_path).fields("test") == (["a", "b"], [], [])


def test_training_fields_are_those_found_and_differences_to_the_labels_are_listed(tmp_path):
    touch(tmp_path / "train", "a", "unlabelled")
    (tmp_path / "train.csv").write_text("ID,Label\ngone,0\na,5\n")
    assert DataFolder(tmp_path).fields("train") == (["a", "unlabelled"], ["gone"], ["unlabelled"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_plain_folder_of_images_is_its_own_split(tmp_path, split):
    touch(tmp_path, "a")
    data = DataFolder(tmp_path)
    assert data.images(split) == tmp_path
    assert data.fields(split).ids == ["a"]


def test_a_split_that_is_not_there_is_not_taken_from_elsewhere(tmp_path):
    touch(tmp_path / "train", "a")
    touch(tmp_path, "stray")
    with pytest.raises(InputError, match=r"test is missing; .* has train/ only"):
        DataFolder(tmp_path).images("test")


def test_what_is_no_data_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="none is missing"):
        DataFolder(tmp_path / "none")
    with pytest.raises(InputError, match="file is a file"):
        DataFolder(tmp_path / "file")
    with pytest.raises(InputError, match="no field to work on"):
        DataFolder(tmp_path).fields("test")
    with pytest.raises(InputError, match=r"train\.csv is missing"):
        DataFolder(tmp_path).labels()
    with pytest.raises(InputError, match="unknown split 'valid'"):
        DataFolder(tmp_path).images("valid")


def test_real_folders_agree_with_their_tables(real):
    for name in ("competition", "fields512"):
        fields = DataFolder(real / name).fields("train")
        assert fields.ids
        assert not fields.missing
        assert not fields.extra
