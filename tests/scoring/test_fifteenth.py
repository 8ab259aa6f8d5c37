"""Whole ensembles against the 15th place's way from fields to maps, written out slowly in numpy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hpa_kit.config import MemberSettings
from hpa_kit.inference import Ensemble
from hpa_kit.scoring import score_cells
from hpa_kit.training import load_member

SIDE = 48  # of the maps
FLIPS = ((), (2,), (1,))


def bilinear(maps: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Maps (C, h, w) of another size: pixel centres at halves, the border repeated."""

    def weights(n_in: int, n_out: int) -> NDArray[np.float64]:
        place = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, None)
        low = np.minimum(place.astype(int), n_in - 1)
        high = np.minimum(low + 1, n_in - 1)
        found = np.zeros((n_out, n_in))
        np.add.at(found, (np.arange(n_out), low), 1 - (place - low))
        np.add.at(found, (np.arange(n_out), high), place - low)
        return found

    return weights(maps.shape[1], height) @ maps @ weights(maps.shape[2], width).T


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def one_view(model, image: NDArray[np.float64], flip: tuple[int, ...]) -> NDArray[np.float64]:
    """Raw maps of one flipped view, flipped back."""
    flipped = np.flip(image, flip).copy()
    with torch.inference_mode():
        maps = model.forward_maps(torch.from_numpy(flipped).float()[None])[0].double().numpy()
    return np.flip(maps, flip)


def classifier(run, image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and map of a classifier: scales and flips below 1024 px, else flips."""
    model = load_member(run).model
    size = image.shape[1]
    scores, by_scale = [], []
    for scale in (1.0, 1.2, 1.4) if size < 1024 else (1.0,):
        view = bilinear(image.astype(np.float64), int(size * scale), int(size * scale))
        maps = [one_view(model, view, flip) for flip in FLIPS]
        scores += [sigmoid(one.mean((1, 2))) for one in maps]
        by_scale.append(np.mean([np.maximum(one, 0) for one in maps], axis=0))
    score = np.mean(scores, axis=0)
    cam = np.mean([bilinear(one, *by_scale[-1].shape[1:]) for one in by_scale], axis=0)
    for index in range(19):
        if score[index] < 0.01:
            cam[index] = 0
        cam[index] /= cam[index].max() + 1e-5
    return score, bilinear(cam, SIDE, SIDE)


def segmenter(run, image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and map of a segmentation network: three flips."""
    model = load_member(run).model
    maps = np.mean([sigmoid(one_view(model, image.astype(np.float64), flip)) for flip in FLIPS], axis=0)
    return (maps > 0.01).any((1, 2)).astype(float), bilinear(maps, SIDE, SIDE)


def fifteenth(members, images):
    """Weighted sums: scores and maps each divided by the weight that gave them."""
    scores, maps, score_weight, map_weight = np.zeros(19), np.zeros((19, SIDE, SIDE)), 0.0, 0.0
    for (look, run, mode, weight), image in zip(members, images, strict=True):
        score, found = look(run, image)
        if mode in ("both", "pred"):
            scores, score_weight = scores + weight * score, score_weight + weight
        if mode in ("both", "cam"):
            maps, map_weight = maps + weight * found, map_weight + weight
    return scores / score_weight, maps / map_weight


def smooth_field(seed: int, side: int = 96) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.random((4, 6, 6)) * 255
    return np.clip(
        np.kron(coarse, np.ones((side // 6, side // 6))) + rng.random((4, side, side)), 0, 255
    ).astype(np.uint8)


@pytest.fixture(scope="module")
def runs(make_member, make_segmenter):
    return {
        "small": make_member(32, seed=1),
        "large": make_member(48, seed=2, in_channels=3),
        "rare": make_member(32, seed=3, spread=8.0),
        "unet": make_segmenter(32, seed=4),
    }


MIXES = {
    "classifiers": [(classifier, "small", "both", 0.05), (classifier, "large", "both", 0.12)],
    "one class hardly there": [(classifier, "rare", "both", 1.0)],
    "modes": [
        (classifier, "small", "both", 0.2),
        (classifier, "large", "pred", 0.3),
        (classifier, "rare", "cam", 0.1),
    ],
    "segmentation for maps": [(classifier, "large", "both", 0.4), (segmenter, "unet", "cam", 0.13)],
    "segmentation for both": [(classifier, "small", "both", 0.4), (segmenter, "unet", "both", 0.6)],
    "segmentation alone": [(segmenter, "unet", "both", 0.5)],
}


@pytest.mark.parametrize("mix", list(MIXES))
def test_an_ensemble_is_the_15th_places(runs, mix) -> None:
    members = [(look, runs[name], mode, weight) for look, name, mode, weight in MIXES[mix]]
    ensemble = Ensemble(
        [
            MemberSettings(checkpoint=run, mode=mode, weight=weight, views="auto")
            for _, run, mode, weight in members
        ],
        map_size=SIDE,
        logit_maps=False,
    )
    field = smooth_field(seed=len(mix))
    inputs = ensemble.inputs(field)
    seen = ensemble.predict([inputs])[0]
    reads = [inputs.fields[load_member(run).settings.size] for _, run, _, _ in members]
    scores, maps = fifteenth(members, reads)
    np.testing.assert_allclose(seen.image_scores, scores, atol=1e-5)
    np.testing.assert_allclose(seen.class_maps, maps, atol=1e-5)
    cells = np.kron(np.arange(1, 10).reshape(3, 3), np.ones((16, 16), int))
    green = np.full(cells.shape, 90, np.uint8)
    ours = score_cells(seen.class_maps, cells, cells * 0, seen.image_scores, green)
    theirs = score_cells(maps, cells, cells * 0, scores, green)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert ours.any()


def test_the_mixes_hold_classes_that_are_hardly_there(runs) -> None:
    """Otherwise the rule that zeroes their maps would not be tested."""
    scores, maps = classifier(runs["rare"], smooth_field(seed=22, side=36)[:, :32, :32].copy())
    assert (scores < 0.01).any()
    assert (scores > 0.01).any()
    assert not maps[scores < 0.01].any()
