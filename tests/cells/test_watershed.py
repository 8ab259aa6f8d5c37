import heapq

import numpy as np
import pytest
import skimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from hpa_kit.cells.watershed import flood, otsu, spread


def a_case(rng, shape=(16, 16), n_seeds=5):
    """Levels of which no two are equal, so that nothing is left to the order of ties."""
    levels = rng.permutation(shape[0] * shape[1]).astype(np.uint8).reshape(shape)
    seeds = np.zeros(shape, np.int32)
    seeds.flat[rng.choice(seeds.size, n_seeds, replace=False)] = np.arange(1, n_seeds + 1)
    return levels, seeds, rng.random(shape) < 0.85


def cheapest(cost, seeds, mask, reach):
    """Dijkstra's distances with a plain heap."""
    distance = np.full(cost.shape, -1)
    queue = [(0, y, x) for y, x in zip(*np.nonzero((seeds > 0) & mask), strict=True)]
    while queue:
        now, y, x = heapq.heappop(queue)
        if distance[y, x] >= 0:
            continue
        distance[y, x] = now
        for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            v, u = y + dy, x + dx
            inside = 0 <= v < cost.shape[0] and 0 <= u < cost.shape[1]
            if inside and mask[v, u] and distance[v, u] < 0:
                there = now + (7 if dy and dx else 5) * max(1, int(cost[v, u]))
                if there <= reach:
                    heapq.heappush(queue, (there, v, u))
    return distance


@pytest.mark.skipif(
    tuple(map(int, skimage.__version__.split(".")[:2])) > (0, 26),
    reason="later ones never let the water fall",
)
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("line", [False, True])
def test_the_watershed_is_scikit_images_where_nothing_ties(line, connectivity):
    rng = np.random.default_rng(connectivity + line)
    for _ in range(20):
        levels, seeds, mask = a_case(rng)
        expected = watershed(levels, seeds, connectivity=connectivity // 4, mask=mask, watershed_line=line)
        np.testing.assert_array_equal(flood(levels, seeds, mask, line, connectivity), expected)


def test_a_plateau_is_shared_by_distance_and_its_middle_goes_to_the_first_seed():
    seeds = np.zeros((1, 7), np.int32)
    seeds[0, 0], seeds[0, 6] = 2, 1
    levels = np.zeros((1, 7), np.uint8)
    assert flood(levels, seeds).tolist() == [[2, 2, 2, 2, 1, 1, 1]]
    assert flood(levels, seeds, line=True).tolist() == [[2, 2, 2, 0, 1, 1, 1]]


def test_two_runs_agree():
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 4, (60, 70)).astype(np.uint8)
    seeds = np.where(rng.random(levels.shape) < 0.01, rng.integers(1, 9, levels.shape), 0).astype(np.int32)
    np.testing.assert_array_equal(flood(levels, seeds), flood(levels.copy(), seeds.copy()))
    np.testing.assert_array_equal(spread(levels, seeds)[0], spread(levels.copy(), seeds.copy())[0])


def test_what_no_seed_reaches_stays_background():
    seeds = np.zeros((5, 9), np.int32)
    seeds[2, 1] = seeds[2, 4] = 3
    mask = np.ones((5, 9), bool)
    mask[:, 4] = False  # the wall, with a seed on it
    result = flood(np.zeros((5, 9), np.uint8), seeds, mask)
    assert (result[:, :4] == 3).all()
    assert not result[:, 4:].any()


def test_distances_are_the_cheapest():
    rng = np.random.default_rng(2)
    for _ in range(5):
        cost, seeds, mask = a_case(rng, (17, 15))
        labels, distance = spread(cost, seeds, mask, reach=3000)
        np.testing.assert_array_equal(distance, cheapest(cost, seeds, mask, 3000))
        np.testing.assert_array_equal(labels > 0, distance >= 0)


def test_a_dear_ridge_is_where_fronts_meet():
    cost = np.full((9, 21), 1, np.uint8)
    cost[:, 14] = 200
    seeds = np.zeros((9, 21), np.int32)
    seeds[4, 2], seeds[4, 18] = 1, 2
    labels, _ = spread(cost, seeds)
    assert (labels[:, :14] == 1).all()
    assert (labels[:, 15:] == 2).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (1, 1), (300, 5)])
def test_nothing_grows_from_no_seed(shape):
    levels, seeds = np.zeros(shape, np.uint8), np.zeros(shape, np.int32)
    assert flood(levels, seeds).shape == shape
    assert not flood(levels, seeds).any()
    labels, distance = spread(levels, seeds)
    assert not labels.any()
    assert (distance == -1).all()


def test_wrong_input_is_named():
    levels, seeds = np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.int32)
    with pytest.raises(ValueError, match="differ in size"):
        flood(levels, seeds.T)
    with pytest.raises(ValueError, match="uint8"):
        flood(levels.astype(float), seeds)
    with pytest.raises(ValueError, match="0 or above"):
        spread(levels, seeds - 1)


def test_otsu_is_scikit_images():
    rng = np.random.default_rng(3)
    for _ in range(20):
        image = np.concatenate([rng.normal(60, 12, 500), rng.normal(rng.integers(90, 200), 20, 200)])
        image = np.clip(image, 0, 255).astype(np.uint8)
        histogram = np.bincount(image, minlength=256)
        assert otsu(histogram) == threshold_otsu(hist=(histogram, np.arange(256)))


def test_otsu_of_one_value_or_none_is_that_value_or_zero():
    assert otsu(np.bincount([7, 7, 7], minlength=256)) == 7
    assert otsu(np.zeros(256, int)) == 0
