"""Cells so small that no pixel of the maps shows them are scored like all others."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from hpa_kit.cells import FieldCells, LabelMaps
from hpa_kit.config import InferSettings, PredictSettings
from hpa_kit.config.scoring import make_step
from hpa_kit.inference import FieldMaps, infer, predict
from hpa_kit.inference.prediction import prepare
from hpa_kit.scoring import (
    SCORING_FUNCTIONS,
    FieldEvidence,
    score_cells_mean_logit,
    score_cells_quantile,
    scoring_function,
)
from hpa_kit.scoring.functions import CLASS_COLUMNS
from hpa_kit.scoring.mean_logit import sigmoid
from hpa_kit.submission import read_submission

MAP_RULES = sorted(set(SCORING_FUNCTIONS) - {"cam_share"})


def tiny_cells(side: int = 128, step: int = 11, width: int = 5) -> np.ndarray:
    """Squares of a few pixels: 144 of 5 x 5 in 128 x 128."""
    y, x = np.mgrid[:side, :side]
    number = y // step * -(-side // step) + x // step + 1
    return np.where((y % step < width) & (x % step < width), number, 0).astype(np.int32)


def random_maps(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(19, side, side)).astype(np.float32)


def evidence(cells: np.ndarray, side: int, map_side: int | None = None) -> FieldEvidence:
    """A field of these cells whose label map was brought to ``side``, with maps of that size or another."""
    maps = random_maps(map_side or side)
    field = np.full((4, *cells.shape), 90, np.uint8)
    small = prepare("f", FieldCells(field, LabelMaps(cells, cells), made=False), side)
    scores = np.linspace(0.2, 0.9, 19).astype(np.float32)
    return small.evidence(FieldMaps(scores, np.minimum(1, np.abs(maps)), maps))


def lost(seen: FieldEvidence) -> list[int]:
    """Cells, from 0, of which the label map that the rule gets has no pixel."""
    there = np.isin(np.arange(seen.n_cells) + 1, seen.cells)
    return np.flatnonzero(~there & (seen.places.area > 0)).tolist()


def settings_of(competition, member, kind, **changes):
    values = {
        "data": competition.root, "members": (member,), "out": competition.root / "out" / "table.csv",
        "masks": competition.masks, "views": "none", "device": "cpu",
    }  # fmt: skip
    return kind(**(values | changes))


@pytest.mark.parametrize("rule", MAP_RULES)
def test_a_row_has_every_cell_however_small_at_the_smallest_map(competition, member, rule) -> None:
    competition.add("a", tiny_cells())
    out = infer(settings_of(competition, member, InferSettings, rule=rule, map_size=16))
    text = read_submission(out)["PredictionString"].iloc[0]
    assert len(set(text.split()[2::3])) == 144


@pytest.mark.parametrize("map_size", [16, 50, 128, 512])
def test_the_144_cells_of_a_label_map_are_in_the_table_at_any_map_size(
    competition, member, shared: Path, map_size
) -> None:
    path = shared / "inputs" / "masks" / "tiny_144_cells.png"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    competition.add("a", cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.int32))
    table = pd.read_csv(predict(settings_of(competition, member, PredictSettings, map_size=map_size)))
    assert len(table) == 144
    assert (table[list(CLASS_COLUMNS)] > 0).any(axis=1).all()


def test_a_cell_that_no_pixel_shows_has_the_value_at_its_centre_of_mass() -> None:
    cells = np.zeros((80, 80), np.int32)
    cells[:40], cells[56:59, 72:75] = 1, 2  # between the centres of pixels, in pixel (5, 7) of 8 x 8
    logits, scores = random_maps(8), np.linspace(0.1, 1, 19)
    by_mean = score_cells_mean_logit(logits, cells, scores)
    np.testing.assert_allclose(by_mean[1], scores * sigmoid(logits[:, 5, 7]))
    np.testing.assert_allclose(by_mean[0], scores * sigmoid(logits[:, :4].mean((1, 2))), rtol=1e-6)
    maps = np.abs(logits)
    share = maps[:, 5, 7] / np.quantile(maps.reshape(19, -1), 0.99, axis=1)
    np.testing.assert_allclose(score_cells_quantile(maps, cells, scores)[1], scores * np.minimum(1, share))


@pytest.mark.parametrize("rule", sorted(SCORING_FUNCTIONS))
@pytest.mark.parametrize("shape", [(128, 128), (120, 200)])
def test_it_is_the_same_wherever_the_label_map_was_made_smaller(rule, shape) -> None:
    """Before the rule sees it, or by the rule itself."""
    cells = np.ascontiguousarray(tiny_cells(200)[: shape[0], : shape[1]])
    cells[:60, :60] = 1  # one that every scale shows
    before = evidence(cells, 20)
    by_rule = FieldEvidence(
        before.image_scores, before.class_maps, before.logit_maps, cells, cells,
        np.full(cells.shape, 90, np.uint8), before.n_cells,
    )  # fmt: skip
    assert len(lost(before)) > 10
    np.testing.assert_allclose(SCORING_FUNCTIONS[rule](before), SCORING_FUNCTIONS[rule](by_rule), rtol=1e-6)


def test_cells_get_lost_later_too_where_maps_get_smaller_in_a_run() -> None:
    seen = evidence(tiny_cells(), side=20, map_side=8)
    assert 0 < len(lost(seen)) < 144
    for rule in MAP_RULES:
        assert SCORING_FUNCTIONS[rule](seen).any(axis=1).all()


def test_the_15th_places_rule_skips_them_as_its_formula_does() -> None:
    seen = evidence(tiny_cells(), 16)
    rows = SCORING_FUNCTIONS["cam_share"](seen)
    assert len(lost(seen)) == 80
    assert np.flatnonzero(~rows.any(axis=1)).tolist() == lost(seen)


def test_areas_and_borders_are_those_of_the_whole_field() -> None:
    cells = tiny_cells()
    seen = evidence(cells, 16)
    small = make_step({"step": "small", "border": 40_000, "inside": 20_000})
    weighed, plain = (
        scoring_function("mean_logit", steps=[small])(seen),
        SCORING_FUNCTIONS["mean_logit"](seen),
    )
    at_border = np.add.outer(np.arange(12) == 0, np.arange(12) == 0).ravel()
    expected = 25 * 256 / np.where(at_border, 40_000, 20_000)
    np.testing.assert_allclose(weighed, plain * expected[:, None])


def test_numbers_without_a_pixel_anywhere_stay_without_a_score() -> None:
    cells = np.zeros((40, 40), np.int32)
    cells[:20], cells[30, 30] = 1, 4
    rows = score_cells_mean_logit(random_maps(4), cells, np.ones(19), n_cells=6)
    assert rows.any(axis=1).tolist() == [True, False, False, True, False, False]
