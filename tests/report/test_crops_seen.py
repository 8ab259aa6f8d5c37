"""Crops of cells in a report, as the network saw them."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from hpa_kit.config import ReportSettings
from hpa_kit.report import write_report
from hpa_kit.report.records import CROP_COLUMNS, CROP_SIDE, crops_picture


def index_of(path) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="index">(.*?)</script>', path.read_text())
    return json.loads(text)


def test_a_report_of_a_network_of_crops_shows_some(simulated, crop_member, tmp_path) -> None:
    settings = ReportSettings(
        source=crop_member, data=simulated.data, masks=simulated.data / "masks", out=tmp_path / "report.html",
        split="test", fields=3, device="cpu",
    )  # fmt: skip
    report = write_report(settings)
    index = index_of(report.path)
    picture = Image.open(io.BytesIO(base64.b64decode(index["crops"])))
    assert picture.width % CROP_SIDE == 0 and picture.height % CROP_SIDE == 0
    assert not index["maps"] and report.fields == 3


def test_other_members_have_no_crops(simulated, member, tmp_path) -> None:
    settings = ReportSettings(
        source=simulated.submission, data=simulated.data, members=(member,), out=tmp_path / "report.html",
        split="test", fields=1, device="cpu",
    )  # fmt: skip
    index = index_of(write_report(settings).path)
    assert index["crops"] == "" and index["maps"]


def test_beside_a_submission_members_show_crops_too_but_no_maps(simulated, crop_member, tmp_path) -> None:
    settings = ReportSettings(
        source=simulated.submission, data=simulated.data, members=(crop_member,),
        masks=simulated.data / "masks", out=tmp_path / "report.html", split="test", fields=1, device="cpu",
    )  # fmt: skip
    index = index_of(write_report(settings).path)
    assert index["crops"] and not index["maps"]


@pytest.mark.whole_table  # what is shown of other networks of crops is the same way
def test_subcell_shows_what_it_sees_too(simulated, subcell, tmp_path) -> None:
    settings = ReportSettings(
        source=subcell, data=simulated.data, masks=simulated.data / "masks", out=tmp_path / "report.html",
        split="test", fields=1, device="cpu",
    )  # fmt: skip
    index = index_of(write_report(settings).path)
    assert index["crops"] and not index["maps"]


def test_crops_stand_in_rows() -> None:
    crops = [np.full((40, 40, 3), 250, np.uint8)] * (CROP_COLUMNS + 1)
    picture = Image.open(io.BytesIO(base64.b64decode(crops_picture(crops, 90))))
    assert picture.size == (CROP_COLUMNS * CROP_SIDE, 2 * CROP_SIDE)
    assert crops_picture([], 90) == ""
