"""How an ensemble does with less when time is short."""

from itertools import pairwise

import numpy as np
import pytest

from hpa_kit.config import MemberSettings
from hpa_kit.inference import Ensemble
from hpa_kit.inference.ensemble import MAP_PIXEL, QualityLevel


def field(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def runs(make_member):
    return [make_member(32, seed=seed) for seed in range(3)]


def members(runs, modes=("both", "both", "both"), weights=(0.2, 0.5, 0.3), views="auto"):
    return [
        MemberSettings(checkpoint=run, mode=mode, weight=weight, views=views)
        for run, mode, weight in zip(runs, modes, weights, strict=True)
    ]


def test_quality_levels_go_from_all_to_least(runs) -> None:
    ensemble = Ensemble(members(runs), map_size=512)
    assert ensemble.level == QualityLevel(0, 3, 512)
    assert ensemble.levels() == [
        QualityLevel(0, 3, 512), QualityLevel(1, 3, 512), QualityLevel(2, 3, 512), QualityLevel(2, 2, 512),
        QualityLevel(2, 1, 512), QualityLevel(2, 1, 256), QualityLevel(2, 1, 128),
    ]  # fmt: skip


def test_what_goes_first_can_be_said(runs) -> None:
    found = Ensemble(members(runs), map_size=256).levels(("map_size", "views"))
    assert found == [
        QualityLevel(0, 3, 256),
        QualityLevel(0, 3, 128),
        QualityLevel(1, 3, 128),
        QualityLevel(2, 3, 128),
    ]


def test_members_without_scales_or_views_have_fewer_levels(runs) -> None:
    assert Ensemble(members(runs, views="flips"), map_size=64).levels(("views",))[1:] == [
        QualityLevel(2, 3, 64)
    ]
    assert len(Ensemble(members(runs, views="none"), map_size=64).levels()) == 3


@pytest.mark.parametrize(
    "order", [("views", "members", "map_size"), ("map_size", "members", "views"), ("map_size",)]
)
@pytest.mark.parametrize("maps", [(True, True), (True, False), (False, True)])
def test_every_level_costs_less_than_the_one_before(runs, order, maps) -> None:
    ensemble = Ensemble(members(runs), map_size=512, class_maps=maps[0], logit_maps=maps[1])
    for more, less in pairwise(ensemble.levels(order)):
        assert ensemble.cost(less) < ensemble.cost(more)
        smaller = less.map_size < more.map_size
        assert (less.scoring_cost < more.scoring_cost) == smaller


def test_maps_cost_for_each_member_that_gives_them_and_each_kind(runs) -> None:
    read = 3 * 3 * 32**2  # pixels of three members in three views
    for modes, maps, kinds in (
        (("both", "both", "both"), (True, True), 6),
        (("both", "both", "both"), (True, False), 3),
        (("both", "pred", "pred"), (False, True), 1),
        (("both", "cam", "pred"), (False, False), 0),
    ):
        ensemble = Ensemble(
            members(runs, modes, views="flips"), map_size=256, class_maps=maps[0], logit_maps=maps[1]
        )
        assert ensemble.cost(ensemble.level) == read + MAP_PIXEL * kinds * 256**2


def test_fewer_views_are_those_of_an_ensemble_without_them(runs) -> None:
    ensemble, one = Ensemble(members(runs), map_size=32), field()
    for given_up, views in ((1, "flips"), (2, "none")):
        ensemble.level = QualityLevel(given_up, 3, 32)
        expected = Ensemble(members(runs, views=views), map_size=32)([one])[0]
        for found, wanted in zip(ensemble([one])[0][:3], expected[:3], strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_members_go_by_weight(runs) -> None:
    ensemble, one = Ensemble(members(runs, views="none"), map_size=32), field()
    ensemble.level = QualityLevel(0, 1, 32)
    expected = Ensemble([runs[1]], "none", map_size=32)([one])[0]
    np.testing.assert_allclose(ensemble([one])[0].class_maps, expected.class_maps, atol=1e-5)


def test_somebody_stays_for_scores_and_somebody_for_maps(runs) -> None:
    """However little the only one that gives scores weighs."""
    parts = members(runs, modes=("pred", "cam", "cam"), weights=(0.01, 0.5, 0.3), views="none")
    ensemble, one = Ensemble(parts, map_size=32), field()
    assert ensemble.levels(("members",)) == [QualityLevel(0, 3, 32), QualityLevel(0, 2, 32)]
    ensemble.level = ensemble.levels(("members",))[-1]
    seen = ensemble([one])[0]
    scores, maps = (Ensemble([runs[place]], "none", map_size=32)([one])[0] for place in (0, 1))
    np.testing.assert_allclose(seen.image_scores, scores.image_scores, atol=1e-6)
    np.testing.assert_allclose(seen.class_maps, maps.class_maps, atol=1e-5)


def test_inputs_made_before_serve_any_level(runs, make_member) -> None:
    ensemble = Ensemble(
        [*members(runs), MemberSettings(checkpoint=make_member(48), weight=0.1)], map_size=256
    )
    inputs = ensemble.inputs(field())
    for level in reversed(ensemble.levels()):
        ensemble.level = level
        assert ensemble.predict([inputs])[0].class_maps.shape == (19, level.map_size, level.map_size)


def test_a_member_reads_another_size_than_it_was_trained_at(runs) -> None:
    ensemble = Ensemble([MemberSettings(checkpoint=runs[0], size=48, views="none")], map_size=3)
    inputs = ensemble.inputs(field())
    assert list(inputs.fields) == [48]
    trained = Ensemble([runs[0]], "none", map_size=3)([field()])[0]
    assert np.abs(ensemble.predict([inputs])[0].logit_maps - trained.logit_maps).max() > 1e-3


def test_logit_maps_of_a_segmentation_network_are_those_of_its_class_maps(make_segmenter) -> None:
    seen = Ensemble([MemberSettings(checkpoint=make_segmenter(32))], map_size=32)([field()])[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-seen.logit_maps.astype(float))), seen.class_maps, atol=2e-6)
    assert set(np.unique(seen.image_scores)) <= {0, 1}
