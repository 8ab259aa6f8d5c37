"""SubCell as a member: what it says of cells, alone and beside others, with no training."""

import logging
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from hpa_kit.classes import NEGATIVE, location_to_class
from hpa_kit.cli import main
from hpa_kit.config import InferSettings, MemberSettings, PredictSettings, PseudoLabelSettings
from hpa_kit.data import CLASS_COLUMNS
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble, infer, predict
from hpa_kit.inference.ensemble import channels_needed
from hpa_kit.models import load_subcell
from hpa_kit.models.subcell import SUBCELL_CLASSES
from hpa_kit.pseudo_labels import make_pseudo_labels
from hpa_kit.submission import read_submission
from hpa_kit.training.cell_features import _crops
from hpa_kit.training.checkpoint import checkpoint_file, settings_of

ORDER = {"rybg": [0, 3, 2, 1], "rbg": [0, 2, 1], "ybg": [3, 2, 1], "bg": [2, 1]}
# By class of the competition, as the atlas's names merge.
MERGED = {
    0: [26], 1: [21], 2: [23], 3: [24], 4: [22], 5: [20], 6: [8], 7: [11], 8: [12], 9: [0, 10], 10: [15],
    11: [19], 12: [4, 3], 13: [28, 2], 14: [17], 15: [1], 16: [7], 17: [29, 27, 9, 14, 13, 6], 18: [30],
}  # fmt: skip


@pytest.fixture(scope="module")
def one():
    """A field and its three cells, one at the border, one of a single pixel."""
    cells = np.zeros((60, 80), np.int32)
    cells[10:30, 15:50], cells[35:60, 60:80], cells[50, 5] = 1, 2, 3
    return np.random.default_rng(0).integers(0, 256, (4, 60, 80), dtype=np.uint8), cells


def by_hand(run, field, cells, side, radius, zeroed=True, flips=((),)) -> torch.Tensor:
    """Probabilities of every cell, (n, 31), by crops of a side in pixels of the field."""
    model, found = load_subcell(run), []
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    wide = np.pad(field, ((0, 0), (side, side), (side, side)))
    wide_cells = np.pad(cells, side)
    for number in range(1, cells.max() + 1):
        at_y, at_x = np.nonzero(cells == number)
        top = (at_y.min() + at_y.max() + 1) // 2 - side // 2 + side
        left = (at_x.min() + at_x.max() + 1) // 2 - side // 2 + side
        window = np.s_[top : top + side, left : left + side]
        mask = cv2.dilate((wide_cells[window] == number).astype(np.uint8), disc)
        crop = wide[:, *window] * (mask if zeroed else 1)
        how = cv2.INTER_AREA if side > 448 else cv2.INTER_LINEAR
        large = np.stack([cv2.resize(plane, (448, 448), interpolation=how) for plane in crop])
        pixels = torch.from_numpy(large[ORDER[model.channels]]).float()[None]
        with torch.inference_mode():
            views = [model(pixels.flip(flip) if flip else pixels).probabilities for flip in flips]
        found.append(torch.stack(views).mean(0))
    return torch.cat(found)


def merged(probabilities: np.ndarray) -> np.ndarray:
    return np.stack([probabilities[:, places].max(axis=1) for places in MERGED.values()], axis=1)


def test_a_class_of_the_competition_is_the_largest_of_what_it_merges() -> None:
    for index, places in MERGED.items():
        assert {location_to_class(SUBCELL_CLASSES[place]) for place in places} == {index}
    lost = set(range(31)) - {place for places in MERGED.values() for place in places}
    assert {SUBCELL_CLASSES[place] for place in lost} == {
        "Cytokinetic bridge", "Midbody", "Mitotic chromosome", "Nucleoli rim",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("crop", "pixel_size", "side", "radius"), [(None, None, 25, 0), (896, 0.16, 448, 4), (500, 0.32, 125, 2)]
)
def test_it_says_of_each_cell_what_the_network_says_of_its_crop(
    subcell, one, crop, pixel_size, side, radius
) -> None:
    field, cells = one
    ensemble = Ensemble([MemberSettings(checkpoint=subcell, views="none", crop=crop)], map_size=32)
    (said,) = ensemble.predict([ensemble.inputs(field, cells, pixel=pixel_size)])
    expected = merged(by_hand(subcell, field, cells, side, radius).numpy())
    np.testing.assert_allclose(1 / (1 + np.exp(-said.cell_logits)), expected, atol=1e-5)
    assert said.cell_weight == 1 and said.class_maps.shape == (19, 0, 0)
    assert ((said.image_scores >= 0) & (said.image_scores <= 1)).all()


def test_neighbours_may_be_kept_and_views_are_averaged(make_subcell, one) -> None:
    field, cells = one
    run = make_subcell("bg", neighbours="kept", crop=512)
    (said,) = Ensemble([run], "flips", map_size=32)([field], [cells])
    flips = ((), (-1,), (-2,))
    expected = merged(by_hand(run, field, cells, 20, 0, zeroed=False, flips=flips).numpy())
    np.testing.assert_allclose(1 / (1 + np.exp(-said.cell_logits)), expected, atol=1e-5)


def test_it_stands_beside_other_members_and_tells_of_19_classes_there(subcell, member, one) -> None:
    field, cells = one
    alone, beside = (
        Ensemble(runs, "none", map_size=32)([field], [cells])[0] for runs in ([subcell], [subcell, member])
    )
    np.testing.assert_allclose(beside.cell_logits, alone.cell_logits, atol=1e-5)
    assert beside.cell_weight == 0.5 and beside.logit_maps.shape == (19, 32, 32)
    with pytest.raises(InputError, match="31 are SubCell's; member .* tells of the competition's 19"):
        Ensemble([subcell, member], merged=False)


def test_a_variant_needs_the_channels_that_it_looks_at(make_subcell, member) -> None:
    needed = {"rbg": {"red", "blue", "green"}, "bg": {"blue", "green"}}
    for variant, channels in needed.items():
        assert channels_needed([MemberSettings(checkpoint=make_subcell(variant))]) == channels
    both = [MemberSettings(checkpoint=run) for run in (make_subcell("bg"), member)]
    assert channels_needed(both) == {"red", "green", "blue", "yellow"}


@pytest.fixture
def folder(competition, cells, make_subcell, tmp_path):
    """A folder of one field of four cells without yellow, and two variants in a folder."""
    competition.add("one", cells(60, 60, 30))
    (competition.test / "one_yellow.png").unlink()
    for variant in ("rybg", "bg"):
        make_subcell(variant, tmp_path / "subcell" / variant)
    return competition


def test_predict_scores_cells_with_no_training_by_the_variant_whose_channels_are_there(
    folder, tmp_path, caplog
) -> None:
    given = {"data": folder.test, "masks": folder.masks, "views": "none", "device": "cpu"}
    tables = {}
    for classes in (19, 31):
        with caplog.at_level(logging.INFO):
            out = predict(
                PredictSettings(
                    members=tmp_path / "subcell", out=tmp_path / f"{classes}.csv", classes=classes, **given
                )
            )
        tables[classes] = pd.read_csv(out)
        assert "variant bg, as" in caplog.text and "no yellow" in caplog.text
    assert "rule cell_logit" in caplog.text
    assert list(tables[19].columns[-19:]) == list(CLASS_COLUMNS) and len(tables[19]) == 4
    assert list(tables[31].columns[-31:]) == list(SUBCELL_CLASSES)
    assert list(tables[31].columns[:-31]) == list(tables[19].columns[:-19])
    all_classes = tables[31][list(SUBCELL_CLASSES)].to_numpy()
    np.testing.assert_allclose(tables[19][list(CLASS_COLUMNS)], merged(all_classes), atol=1e-5)
    assert tables[19].iloc[:, -19 + NEGATIVE].std() > 0  # SubCell's own, which no other class decides


def test_infer_and_soft_labels_take_it_as_any_member(folder, tmp_path) -> None:
    folder.write_sample()
    run, given = tmp_path / "subcell" / "bg", {"masks": folder.masks, "views": "none", "device": "cpu"}
    infer(InferSettings(data=folder.root, members=run, out=tmp_path / "submission.csv", **given))
    (row,) = read_submission(tmp_path / "submission.csv")["PredictionString"]
    assert len(row.split()) > 3 * 4
    shutil.copy(folder.test / "one_red.png", folder.test / "one_yellow.png")  # labelled fields are whole
    (folder.root / "train").symlink_to(folder.test)
    (folder.root / "train.csv").write_text("ID,Label\none,0|16\n", encoding="utf-8")
    settings = PseudoLabelSettings(
        data=folder.root, members=run, out=tmp_path / "soft", labels="soft", seen="take", **given
    )
    scores = pd.read_csv(make_pseudo_labels(settings) / "cell_scores.csv")
    assert len(scores) == 4 and scores.iloc[:, 2:].to_numpy().max() > 0


def test_channels_that_lack_and_classes_that_nobody_tells_are_said(folder, tmp_path, member, capsys) -> None:
    words = ["predict", str(folder.test), "--masks", str(folder.masks), "--out", str(tmp_path / "out.csv")]
    assert main([*words, "--members", str(tmp_path / "subcell" / "rybg")]) == 2
    assert "has no yellow, which rybg of" in capsys.readouterr().err
    assert main([*words, "--members", str(member), "--classes", "31"]) == 2
    assert "31 are SubCell's" in capsys.readouterr().err


@pytest.mark.parametrize("pixel", [None, 0.32])
def test_vectors_are_made_of_the_crops_that_the_member_looks_at(subcell, one, pixel) -> None:
    field, cells = one
    (member,) = Ensemble([subcell], "none", map_size=32).members
    kept = _crops(field, cells, settings_of(checkpoint_file(subcell)), pixel)
    np.testing.assert_array_equal(kept.pixels, member.cut(field, {}, cells, pixel).pixels)
