import numpy as np
import pytest

from hpa_kit.classes import CLASSES, N_CLASSES, NEGATIVE, format_label, multi_hot, parse_label
from hpa_kit.errors import InputError


def test_there_are_19_classes_and_the_last_is_negative():
    assert N_CLASSES == 19
    assert [location.index for location in CLASSES] == list(range(19))
    assert CLASSES[NEGATIVE].name == "Negative"
    assert len({location.name for location in CLASSES}) == 19
    assert len({location.colour for location in CLASSES}) == 19


@pytest.mark.parametrize(
    ("text", "classes"),
    [("8|5|0", (0, 5, 8)), ("17|17", (17,)), ("0|16|", (0, 16)), (" 5 ", (5,)), ("|3", (3,)), ("05", (5,))],
)
def test_labels_are_read_as_people_write_them(text, classes):
    assert parse_label(text) == classes


@pytest.mark.parametrize("text", ["19", "x", "", " ", "|", "-1", "1.0", "nan", "0,5", "٣"])
def test_a_label_that_names_no_class_is_refused_with_its_place(text):
    with pytest.raises(InputError, match=r"train\.csv, ID 0a1b"):
        parse_label(text, "train.csv, ID 0a1b")


def test_a_label_written_is_a_label_read():
    assert format_label((8, 5, 0, 5)) == "0|5|8"
    assert parse_label(format_label((8, 5, 0))) == (0, 5, 8)


def test_multi_hot_has_a_row_per_image():
    hot = multi_hot([(0, 18), (), (7,)])
    assert hot.dtype == np.float32
    assert hot.shape == (3, 19)
    assert hot.sum(axis=1).tolist() == [2, 0, 1]
    assert hot[0, 18] == hot[2, 7] == 1
    assert multi_hot([]).shape == (0, 19)
