"""What the members say of a field."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble
from hpa_kit.inference.views import LoadedMember, scaled_cams
from hpa_kit.training import load_member


def random_field(height: int = 90, width: int = 70, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (4, height, width), dtype=np.uint8)


def test_one_view_of_one_member_is_its_scores_and_its_scaled_cam(member: Path) -> None:
    field = random_field(64, 64)
    seen = Ensemble([member], views="none", map_size=48)([field])[0]
    model = load_member(member).model
    with torch.inference_mode():
        maps = model.forward_maps(torch.from_numpy(field)[None])
    scores = maps.mean((-2, -1)).sigmoid()
    cam = maps.relu() * (scores >= 0.01)[:, :, None, None]
    cam = cam / (cam.amax((-2, -1), keepdim=True) + 1e-5)
    for found, small in zip(seen[1:3], (cam, maps), strict=True):
        expected = functional.interpolate(small, size=(48, 48), mode="bilinear", align_corners=False)
        np.testing.assert_allclose(found, expected[0].numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(seen.image_scores, scores[0].numpy(), atol=1e-6)


def test_maps_have_their_form(member: Path) -> None:
    seen = Ensemble([member], map_size=40)([random_field(90, 70), random_field(33, 47)])
    for maps in seen:
        assert maps.image_scores.shape == (19,)
        assert maps.class_maps.shape == maps.logit_maps.shape == (19, 40, 40)
        assert {array.dtype for array in maps[:3]} == {np.dtype("float32")}
        assert maps.class_maps.min() >= 0
        assert maps.class_maps.max() <= 1


@pytest.mark.parametrize("views", ["flips", "scales"])
def test_views_are_put_back_before_they_are_averaged(member: Path, views) -> None:
    """A mirrored field gives mirrored maps: with the flips, which are put back, nearly the same ones."""
    field = random_field(64, 64)
    ensemble = Ensemble([member], views=views, map_size=32)
    plain, mirrored = ensemble([field, field[:, :, ::-1].copy()])
    apart = np.abs(plain.logit_maps - mirrored.logit_maps[:, :, ::-1]).mean()
    unmirrored = np.abs(plain.logit_maps - mirrored.logit_maps).mean()
    assert apart < unmirrored


def test_flips_are_the_mean_of_three_views(member: Path) -> None:
    field = random_field(64, 64)
    single = Ensemble([member], views="none", map_size=4)
    looks = single([field, field[:, :, ::-1].copy(), field[:, ::-1].copy()])
    expected = np.mean(
        [looks[0].logit_maps, looks[1].logit_maps[:, :, ::-1], looks[2].logit_maps[:, ::-1]], axis=0
    )
    seen = Ensemble([member], views="flips", map_size=4)([field])[0]
    np.testing.assert_allclose(seen.logit_maps, expected, atol=1e-5)
    scores = np.mean([look.image_scores for look in looks], axis=0)
    np.testing.assert_allclose(seen.image_scores, scores, atol=1e-6)


def test_a_class_the_image_hardly_has_shows_no_map() -> None:
    cams = torch.rand(2, 19, 5, 5) + 0.1
    scores = torch.full((2, 19), 0.5)
    scores[0, 3], scores[1, 4] = 0.009, 0.01
    maps = scaled_cams(scores, cams)
    assert not maps[0, 3].any()
    np.testing.assert_allclose(maps[1, 4].max(), 1, atol=1e-4)


def test_members_of_several_sizes_weigh_the_same(make_member) -> None:
    runs = [make_member(64, seed=1), make_member(96, seed=2)]
    fields = [random_field()]
    both = Ensemble(runs, map_size=24)(fields)[0]
    singles = [Ensemble([run], map_size=24)(fields)[0] for run in runs]
    for name in ("image_scores", "class_maps", "logit_maps"):
        expected = np.mean([getattr(single, name) for single in singles], axis=0)
        np.testing.assert_allclose(getattr(both, name), expected, atol=1e-5)


def test_a_member_of_three_channels_does_not_look_at_yellow(make_member) -> None:
    ensemble = Ensemble([make_member(in_channels=3)], map_size=16)
    field = random_field()
    dark = field.copy()
    dark[3] = 0
    first, second = ensemble([field, dark])
    np.testing.assert_allclose(first.image_scores, second.image_scores, atol=1e-6)


def test_maps_that_nobody_wants_have_no_pixels(member: Path) -> None:
    seen = Ensemble([member], map_size=16, class_maps=False, logit_maps=False)([random_field()])[0]
    assert seen.image_scores.shape == (19,)
    assert seen.class_maps.shape == seen.logit_maps.shape == (19, 0, 0)


def test_the_size_of_the_batch_does_not_matter(member: Path) -> None:
    fields = [random_field(seed=seed) for seed in range(5)]
    for one, many in zip(
        Ensemble([member], map_size=16, batch=1)(fields),
        Ensemble([member], map_size=16, batch=4)(fields),
        strict=True,
    ):
        for left, right in zip(one[:3], many[:3], strict=True):
            np.testing.assert_allclose(left, right, atol=1e-4)


def test_sums_begin_with_what_the_first_member_says_not_with_zeros_from_elsewhere(
    member, monkeypatch
) -> None:
    """Zeros of all maps would be made on the CPU and copied to the GPU for every batch."""
    ensemble, without = (Ensemble([member], map_size=16, class_maps=wanted) for wanted in (True, False))
    made, zeros = [], torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, **kind: made.append(shape) or zeros(*shape, **kind))
    ensemble([random_field()])
    assert not made
    assert without([random_field()])[0].class_maps.shape == (19, 0, 0)


def test_memory_that_runs_out_halves_the_batch(member: Path, monkeypatch) -> None:
    ensemble = Ensemble([member], map_size=16, batch=4)
    fields = [random_field(seed=seed) for seed in range(6)]
    expected = ensemble(fields)
    look = LoadedMember.predict

    def greedy(self, batch, cells, **options):
        if len(batch) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return look(self, batch, cells, **options)

    monkeypatch.setattr(LoadedMember, "predict", greedy)
    found = ensemble(fields)
    assert ensemble.batch == 1
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left.image_scores, right.image_scores, atol=1e-5)


def test_memory_too_small_for_one_field_is_said(member: Path, monkeypatch) -> None:
    def greedy(self, batch, cells, **options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(LoadedMember, "predict", greedy)
    with pytest.raises(InputError, match="^members: cpu has too little memory for one field at 64 px"):
        Ensemble([member], map_size=16, batch=2)([random_field()] * 2)


def test_other_errors_of_a_member_are_not_taken_for_memory(member: Path, monkeypatch) -> None:
    def broken(self, batch, cells, **options):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(LoadedMember, "predict", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Ensemble([member], map_size=16)([random_field()])


def test_a_member_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone"):
        Ensemble([tmp_path / "gone"])
