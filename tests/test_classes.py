import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.sets(st.integers(0, 18), min_size=1), st.randoms())
def test_classes_in_any_order_with_blanks_and_repeats_are_the_same_label(classes, random):
    parts = [*map(str, classes), *(f" 0{index} " for index in classes), ""]
    random.shuffle(parts)
    assert parse_label("|".join(parts)) == tuple(sorted(classes)) == parse_label(format_label(classes))


@given(st.text("0123456789|- x²٣", max_size=12))
def test_any_text_is_a_label_or_refused(text):
    parts = [part.strip() for part in text.split("|") if part.strip()]
    numbers = {str(index): index for index in range(19)}
    plain = [numbers.get(part.lstrip("0") or "0") if part != "" else None for part in parts]
    if parts and None not in plain:
        assert parse_label(text) == tuple(sorted(set(plain)))
    else:
        with pytest.raises(InputError):
            parse_label(text)
