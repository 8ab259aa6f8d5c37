"""Members that learnt from cells: how they score images, and what scoring makes of logits of cells."""

import numpy as np
import pytest
import torch

from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.cli import main
from hpa_kit.config import MemberSettings
from hpa_kit.inference import Ensemble, score_cells_mean_logit
from hpa_kit.models.cell_pooling import pooled_logits
from hpa_kit.scoring import scoring_function
from hpa_kit.scoring.functions import FieldEvidence
from hpa_kit.scoring.mean_logit import sigmoid
from hpa_kit.training import load_member


def field(side=96, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (4, side, side), dtype=np.uint8)


def label_map(side=96):
    cells = np.zeros((side, side), np.int32)
    cells[5:40, 8:50], cells[50:90, 20:60], cells[10:60, 70:90] = 1, 2, 3
    return cells


@pytest.fixture(scope="module")
def pooling_member(make_member):
    return make_member(masks="masks", cell_pooling="noisy-or")


@torch.no_grad()
def raw_maps(run, image):
    maps = load_member(run).model.forward_maps(torch.from_numpy(image)[None])
    maps[:, NEGATIVE] = 0
    return maps


def test_an_image_score_is_pooled_over_the_cells_and_negative_is_what_is_left(pooling_member):
    image, cells = field(64), label_map(64)
    seen = Ensemble([pooling_member], views="none", map_size=64)([image], [cells])[0]
    maps = raw_maps(pooling_member, image)
    expected = pooled_logits(maps, torch.from_numpy(cells)[None], "noisy-or").sigmoid()[0].numpy()
    np.testing.assert_allclose(seen.image_scores, expected, atol=1e-5)
    assert seen.image_scores[NEGATIVE] == pytest.approx(1 - seen.image_scores[:NEGATIVE].max(), abs=1e-6)
    assert (seen.class_maps[NEGATIVE] == 0).all() and (seen.logit_maps[NEGATIVE] == 0).all()


def test_other_cells_give_other_image_scores_and_the_same_maps(pooling_member):
    image, ensemble = field(), Ensemble([pooling_member], map_size=64)
    some, whole = (ensemble([image], [cells])[0] for cells in (label_map(), np.ones((96, 96), np.int32)))
    assert np.abs(some.image_scores - whole.image_scores).max() > 1e-3
    np.testing.assert_array_equal(some.logit_maps, whole.logit_maps)
    np.testing.assert_allclose(ensemble([image])[0].image_scores, whole.image_scores, atol=1e-5)


def test_a_mirrored_field_with_mirrored_cells_is_scored_alike(pooling_member):
    ensemble = Ensemble([pooling_member], views="flips", map_size=64)
    image, cells = field(64), label_map(64)
    plain = ensemble([image], [cells])[0]
    mirrored = ensemble([image[..., ::-1].copy()], [cells[:, ::-1].copy()])[0]
    # As it is and flipped horizontally change places; the vertical flip sees the mirrored field.
    np.testing.assert_allclose(plain.image_scores, mirrored.image_scores, atol=0.02)


def test_a_field_without_a_cell_shows_nothing_but_negative(pooling_member):
    seen = Ensemble([pooling_member], map_size=64)([field()], [np.zeros((96, 96), np.int32)])[0]
    assert seen.image_scores[:NEGATIVE].max() == 0 and seen.image_scores[NEGATIVE] == 1


def test_members_of_both_kinds_are_averaged(pooling_member, member):
    image, cells = [field()], [label_map()]
    members = [MemberSettings(checkpoint=run, weight=w) for run, w in ((pooling_member, 3.0), (member, 1.0))]
    both = Ensemble(members, map_size=64)(image, cells)[0]
    first, second = (Ensemble([one], map_size=64)(image, cells)[0] for one in members)
    mean = 0.75 * first.image_scores + 0.25 * second.image_scores
    np.testing.assert_allclose(both.image_scores, mean, atol=1e-5)


def evidence(cell_logits, cell_weight, maps=True):
    rng = np.random.default_rng(0)
    side = 96 if maps else 0
    return FieldEvidence(
        image_scores=rng.random(N_CLASSES).astype(np.float32),
        class_maps=np.zeros((N_CLASSES, 0, 0), np.float32),
        logit_maps=rng.normal(0, 2, (N_CLASSES, side, side)).astype(np.float32),
        cells=label_map(),
        nuclei=np.zeros((96, 96), np.int32),
        green=np.zeros((96, 96), np.float32),
        n_cells=3,
        cell_logits=cell_logits,
        cell_weight=cell_weight,
    )


def test_a_cells_logit_is_the_weighted_mean_of_what_maps_and_members_of_cells_say():
    logits = np.random.default_rng(1).normal(0, 2, (3, N_CLASSES)).astype(np.float32)
    rule = scoring_function("cell_logit")
    of_maps = rule(evidence(None, 0.0))
    mixed = 0.4 * logits + 0.6 * np.log(of_maps / (1 - of_maps))
    np.testing.assert_allclose(rule(evidence(logits, 0.4)), sigmoid(mixed), atol=1e-6)
    np.testing.assert_allclose(rule(evidence(logits, 1.0, maps=False)), sigmoid(logits), atol=1e-6)


def test_the_mean_logit_is_as_before_where_no_member_speaks_of_cells():
    seen = evidence(None, 0.0)
    expected = score_cells_mean_logit(seen.logit_maps, seen.cells, seen.image_scores, 3)
    np.testing.assert_array_equal(scoring_function("mean_logit")(seen), expected)


def test_infer_pools_over_the_cells_that_it_scores(pooling_member, competition, tmp_path):
    competition.add("a1", label_map())
    competition.write_sample()
    out = tmp_path / "submission.csv"
    words = ["infer", competition.root, "--members", pooling_member, "--masks", competition.masks]
    words += ["--out", out]
    assert main([*map(str, words), "--rule", "copied", "--device", "cpu"]) == 0
    assert out.read_text().count(" ") == 3 * N_CLASSES * 3 - 1
