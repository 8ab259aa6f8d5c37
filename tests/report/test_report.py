import logging

import cv2
import numpy as np
import pytest

from hpa_kit.cells import resized
from hpa_kit.classes import CLASSES
from hpa_kit.errors import InputError
from hpa_kit.report.pictures import (
    cells_of,
    composite,
    contact_sheet,
    draw_submission,
    outlined,
    protein,
    write_picture,
)
from hpa_kit.submission import encode_label_map, encode_mask, prediction_string, write_submission
from hpa_kit.submission.table import parse_prediction


@pytest.fixture
def field():
    return np.random.default_rng(0).integers(0, 200, (4, 60, 90), dtype=np.uint8)


@pytest.fixture
def cells():
    cells = np.zeros((60, 90), np.int32)
    cells[10:30, 10:40], cells[10:30, 40:80] = 1, 2
    return cells


def test_pictures_have_the_size_of_their_field(field, cells):
    assert composite(field).shape == protein(field).shape == (60, 90, 3)
    assert composite(np.zeros((4, 5, 7), np.uint8)).max() == 0


def test_outlines_lie_inside_their_cells_in_the_colour_of_their_class(cells):
    black = np.zeros((60, 90, 3), np.uint8)
    drawn = outlined(black, cells, np.array([7, 13]))
    colours = [tuple(int(CLASSES[k].colour[i : i + 2], 16) for i in (1, 3, 5)) for k in (7, 13)]
    assert tuple(drawn[10, 20]) == colours[0]
    assert tuple(drawn[29, 60]) == colours[1]
    assert not drawn[cells == 0].any()
    assert not drawn[20, 25].any()
    assert not black.any()


def test_a_contact_sheet_holds_fields_of_any_size_and_no_cells(tmp_path, field, cells):
    empty = np.zeros((4, 33, 47), np.uint8)
    scores = np.eye(19)[[7, 18]]
    sheet = contact_sheet(
        [field, empty], [cells, np.zeros((33, 47), np.int32)], [scores, np.zeros((0, 19))], side=96
    )
    write_picture(tmp_path / "sheet.png", sheet)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == sheet.shape
    assert sheet.shape[1] == 2 * 96 + 8


def test_a_submission_is_drawn_from_its_masks_alone(tmp_path, field, cells):
    (tmp_path / "images").mkdir()
    for name, channel in zip(("red", "green", "blue", "yellow"), field, strict=True):
        cv2.imwrite(str(tmp_path / "images" / f"a_{name}.png"), channel)
    prediction = prediction_string(np.eye(19)[[7, 18]], encode_label_map(cells))
    write_submission(tmp_path / "s.csv", [("z", 90, 60, ""), ("a", 90, 60, prediction)])
    draw_submission(tmp_path / "s.csv", tmp_path / "images", tmp_path / "p.png", side=100)
    assert cv2.imread(str(tmp_path / "p.png")).shape[1] == 100
    found, scores = cells_of(parse_prediction(prediction), 60, 90)
    assert (found == cells).all()
    assert (scores == np.eye(19)[[7, 18]]).all()
    write_submission(tmp_path / "s.csv", [("z", 90, 60, "")])
    with pytest.raises(InputError, match="no row of .* holds a cell"):
        draw_submission(tmp_path / "s.csv", tmp_path / "images", tmp_path / "p.png")


@pytest.fixture
def submitted(tmp_path, field, cells):
    """Two fields of 60 x 90, and a function that draws a submission of rows as inference writes them."""
    (tmp_path / "images").mkdir()
    for id in "ab":
        for name, channel in zip(("red", "green", "blue", "yellow"), field, strict=True):
            cv2.imwrite(str(tmp_path / "images" / f"{id}_{name}.png"), channel)
    out = tmp_path / "p.png"

    def draw(*rows: tuple[str, int, int]):
        written = []
        for id, width, height in rows:
            masks = encode_label_map(resized(cells, (height, width)))
            written.append((id, width, height, prediction_string(np.eye(19)[[7, 18]], masks)))
        write_submission(tmp_path / "s.csv", written)
        return cv2.imread(str(draw_submission(tmp_path / "s.csv", tmp_path / "images", out, side=100)))

    return draw


def test_a_row_that_finds_nothing_needs_no_image(submitted, tmp_path):
    """Which is what inference writes of a field that is not there."""
    submitted(("a", 90, 60))
    nothing = f"0 0.000001 {encode_mask(np.zeros((60, 90), bool))}"
    write_submission(tmp_path / "t.csv", [("gone", 90, 60, nothing)])
    csv = (tmp_path / "t.csv").read_text() + (tmp_path / "s.csv").read_text().partition("\n")[2]
    (tmp_path / "t.csv").write_text(csv)
    draw_submission(tmp_path / "t.csv", tmp_path / "images", tmp_path / "t.png", side=100)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "t.png")), cv2.imread(str(tmp_path / "p.png")))


def test_a_row_of_another_size_is_drawn_over_its_field_resized(submitted):
    """As inference writes it where the sample demands another size."""
    whole, twice = submitted(("a", 90, 60)), submitted(("a", 180, 120))
    assert whole.shape == twice.shape
    assert np.abs(whole.astype(int) - twice).mean() < 12


def test_a_row_of_other_proportions_is_said_and_left_out(submitted, caplog):
    with caplog.at_level(logging.WARNING):
        assert submitted(("a", 60, 90), ("b", 90, 60)).shape[1] == 100
    assert "ID a: size is 60 x 90, its field's is 90 x 60; left out" in caplog.text
    with pytest.raises(InputError, match="ID a: size is 60 x 90"):
        submitted(("a", 60, 90))
