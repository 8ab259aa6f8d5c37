"""Outlines and packed pictures of a report."""

import base64
import io
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from hpa_kit.errors import InputError
from hpa_kit.report.records import MAP_COLUMNS, MAP_SIDE, UNITS, channels_picture, maps_picture, outlines
from hpa_kit.submission import encode_mask


def drawn(path, height, width):
    """What a browser fills of a path, on a grid of units."""
    scale = UNITS / max(height, width)
    out = np.zeros((round(height * scale), round(width * scale)), np.uint8)
    for polygon in re.findall(r"M(\d+) (\d+)l([-\d ]+)z", path):
        steps = np.array(polygon[2].split(), int).reshape(-1, 2)
        points = np.cumsum(np.concatenate([[[int(polygon[0]), int(polygon[1])]], steps]), axis=0)
        cv2.fillPoly(out, [points.astype(np.int32)], 1)
    return out.astype(bool)


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (256, 256)])
def test_an_outline_runs_around_its_mask(shape):
    mask = np.zeros(shape, np.uint8)
    cv2.ellipse(mask, (120, 90), (70, 40), 30, 0, 360, 1, -1)
    cv2.circle(mask, (260 if shape[1] > 300 else 30, 200), 20, 1, -1)
    (found,) = outlines([encode_mask(mask)], *shape)
    filled = drawn(found.path, *shape)
    whole = cv2.resize(mask, filled.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    assert (filled & whole).sum() / (filled | whole).sum() > 0.93
    assert found.area == mask.sum()
    assert not found.cut
    ys, xs = np.nonzero(mask)
    scale = UNITS / max(shape)
    expected = np.array([xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]) * scale
    assert np.abs(np.array(found.box) - expected).max() <= 1


def test_an_empty_mask_has_no_outline_and_a_pixel_has_one():
    pixel = np.zeros((50, 40), bool)
    pixel[0, 39] = True
    empty, point = outlines([encode_mask(np.zeros((50, 40), bool)), encode_mask(pixel)], 50, 40)
    assert empty is None
    assert point.area == 1
    assert point.cut
    assert point.path.startswith("M")
    with pytest.raises(InputError, match="cannot be used"):
        outlines(["nonsense"], 50, 40)


def unpacked(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L")).astype(int)


def test_a_picture_holds_each_channel_in_its_corner():
    field = np.zeros((4, 60, 100), np.uint8)
    for channel in range(4):
        field[channel, 10 * channel : 10 * channel + 20, 20:60] = 200
    sheet = unpacked(channels_picture(field, 50, 90))
    assert sheet.shape == (60, 100)
    corners = [sheet[:30, :50], sheet[:30, 50:], sheet[30:, :50], sheet[30:, 50:]]
    for channel, corner in enumerate(corners):
        inside = corner[5 * channel + 2 : 5 * channel + 8, 12:28]
        assert inside.min() > 230
        assert corner[:, 35:].max() < 25
    assert unpacked(channels_picture(field, 5000, 90)).shape == (120, 200)


def test_class_maps_lie_in_rows_of_five_each_by_its_own_maximum():
    maps = np.zeros((19, 32, 32), np.float32)
    maps[7] = 1
    maps[3, :16], maps[3, 16:] = 0.02, 0.01
    packed = maps_picture(maps, 90)
    assert packed.highest == [0, 0, 0, 0.02, 0, 0, 0, 1, *[0] * 11]
    sheet = unpacked(packed.picture)
    top, left = (MAP_SIDE * part for part in divmod(7, MAP_COLUMNS))
    assert sheet[top + 4 : top + MAP_SIDE - 4, left + 4 : left + MAP_SIDE - 4].min() > 240
    sheet[top : top + MAP_SIDE, left : left + MAP_SIDE] = 0
    faint = sheet[:MAP_SIDE, 3 * MAP_SIDE : 4 * MAP_SIDE]  # by its own maximum, or it could not be seen
    assert faint[4:28].min() > 240
    assert 110 < faint[36:-4].min() <= faint[36:-4].max() < 145
    faint[:] = 0
    assert sheet.max() < 40
