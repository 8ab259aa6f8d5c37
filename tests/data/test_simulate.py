"""Simulated fields: which there are, what their cells show, how they look."""

import numpy as np
import pytest

from hpa_kit.classes import NEGATIVE
from hpa_kit.config import SimulateSettings
from hpa_kit.data.simulate.field import draw, prepare
from hpa_kit.data.simulate.plan import FieldPlan, plan_fields


def settings(out="unused", **changed):
    return SimulateSettings(**{"out": out, "train": 4, "test": 3, "size": 64, "workers": 1, **changed})


def prepared(classes, *, size=64, number=0, height=None):
    return prepare(FieldPlan("x", "train", height or size, size, classes, (7, 0, number)))


def test_another_seed_gives_other_fields():
    ids = [{plan.id for plan in plan_fields(settings(seed=seed), "train")} for seed in (0, 1)]
    assert not ids[0] & ids[1]
    plan = plan_fields(settings(seed=0), "train")[0]
    other = plan._replace(seed=(1, 0, 0))
    assert (draw(prepare(plan)) != draw(prepare(other))).any()


def test_no_id_is_in_both_splits():
    both = settings(train=50, test=50)
    ids = [plan.id for split in ("train", "test") for plan in plan_fields(both, split)]
    assert len(set(ids)) == 100
    assert {len(id) for id in ids} == {36}


def test_a_cell_lies_around_its_nucleus():
    for number in range(6):
        cells, nuclei, _ = prepared((0, 13), number=number).truth
        assert set(np.unique(cells)) == set(np.unique(nuclei)) == set(range(cells.max() + 1))
        assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()
        assert (np.bincount(cells.ravel())[1:] > np.bincount(nuclei.ravel())[1:]).all()


def test_cells_touch_and_are_cut_by_the_border():
    touching = cut = 0
    for number in range(10):
        cells = prepared((16,), number=number).truth.cells
        left, right = cells[:, :-1], cells[:, 1:]
        touching += bool(((left != right) & (left > 0) & (right > 0)).any())
        cut += bool(np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]]).any())
    assert touching >= 5
    assert cut >= 9


def test_a_negative_cell_shows_no_other_class():
    for number, classes in enumerate([(0, 7), (18,), (11,), (3, 14, 17)]):
        shows = prepared(classes, number=number).truth.shows
        assert (shows[:, NEGATIVE] == ~shows[:, :NEGATIVE].any(axis=1)).all()


def test_classes_restricts_what_is_shown_but_not_negative_cells():
    chosen = settings(classes=(0, 7, 16), train=60)
    plans = plan_fields(chosen, "train")
    assert {index for plan in plans for index in plan.classes} == {0, 7, 16}
    shows = np.concatenate([prepare(plan).truth.shows for plan in plans])
    assert set(np.flatnonzero(shows.any(axis=0))) == {0, 7, 16, NEGATIVE}


@pytest.mark.parametrize("count", [9, 19, 60])
def test_a_small_set_still_shows_every_class_that_fits(count):
    for seed in range(4):
        plans = plan_fields(settings(train=count, seed=seed), "train")
        shown = {index for plan in plans for index in plan.classes}
        assert shown >= set(range(NEGATIVE))
        assert all(1 <= len(plan.classes) <= 4 for plan in plans)


def test_frequent_classes_label_more_fields_than_rare_ones():
    plans = plan_fields(settings(train=500), "train")
    count = np.bincount([index for plan in plans for index in plan.classes], minlength=19)
    assert count[0] > count[2] > count[6] > count[15] > count[NEGATIVE] > 0


def test_the_cells_of_a_field_differ_as_much_as_real_ones():
    differ, shown, negative = [], [], []
    for plan in plan_fields(settings(train=160, size=96, seed=5), "train"):
        if plan.classes == (NEGATIVE,):
            continue
        shows = prepare(plan).truth.shows
        differ.append((shows != shows[0]).any())
        shown += list(shows[:, list(plan.classes)].mean(axis=0))
        negative += list(shows[:, NEGATIVE])
    assert 0.72 < np.mean(differ) < 0.9
    assert 0.62 < np.mean(shown) < 0.75
    assert 0.06 < np.mean(negative) < 0.15


def test_the_spindle_is_shown_by_dividing_cells_alone():
    for number in range(5):
        field = prepared((0, 11), number=number)
        mitotic = field.layout.outlines.mitotic
        assert mitotic.any()
        assert (field.truth.shows[:, 11] == mitotic).all()


@pytest.mark.parametrize("number", range(NEGATIVE))
def test_a_cell_that_shows_a_class_is_brighter_in_green_than_a_negative_one(number):
    on, off = [], []
    for seed in range(6):
        field = prepared((number,), number=100 * number + seed, size=128)
        green = draw(field)[1]
        for cell, row in enumerate(field.truth.shows, start=1):
            (off if row[NEGATIVE] else on).append(np.sort(green[field.truth.cells == cell])[-9:].mean())
    assert np.median(on) > 2 * np.median(off)


@pytest.mark.parametrize(
    ("name", "index", "inside"),
    [("nucleus", 0, True), ("nucleus", 2, True), ("nucleus", 14, False), ("nucleus", 16, False)],
)
def test_the_protein_lies_where_its_class_says(name, index, inside):
    within, outside = [], []
    for seed in range(4):
        field = prepared((index,), number=seed, size=128)
        green = draw(field)[1].astype(float)
        on = np.concatenate([[False], field.truth.shows[:, index]])[field.truth.cells]
        within.append(green[on & (field.truth.nuclei > 0)].mean())
        outside.append(green[on & (field.truth.nuclei == 0)].mean())
    assert (np.mean(within) > 1.5 * np.mean(outside)) == inside
    assert (np.mean(outside) > 1.2 * np.mean(within)) != inside


def test_nuclei_are_blue_and_cells_red_and_yellow():
    field = prepared((18,), size=128)
    red, _, blue, yellow = draw(field).astype(float)
    cells, nuclei, _ = field.truth
    body, empty = (cells > 0) & (nuclei == 0), cells == 0
    assert blue[nuclei > 0].mean() > 5 * blue[nuclei == 0].mean()
    assert red[body].mean() > 4 * red[empty].mean()
    assert yellow[body].mean() > 4 * yellow[empty].mean()


def test_fields_of_64_pixels_hold_nuclei_that_can_be_seen():
    counts, diameters = [], []
    for plan in plan_fields(settings(train=30), "train"):
        nuclei = prepare(plan).truth.nuclei
        counts.append(nuclei.max())
        diameters.append(2 * np.sqrt(np.median(np.bincount(nuclei.ravel())[1:]) / np.pi))
    assert 3 <= np.median(counts) <= 12
    assert np.median(diameters) >= 9.5


def test_sizes_are_mixed_on_request():
    plans = plan_fields(settings(train=40, size=64, max_size=200), "train")
    assert {plan.height == plan.width for plan in plans} == {True}
    sides = {plan.height for plan in plans}
    assert len(sides) > 20
    assert min(sides) >= 64
    assert max(sides) <= 200


@pytest.mark.parametrize(("height", "width"), [(64, 3072), (1000, 70), (301, 517)])
def test_any_shape_can_be_drawn(height, width):
    field = prepare(FieldPlan("x", "train", height, width, (6, 9), (1, 0, 0)))
    assert draw(field).shape == (4, height, width)
    assert field.truth.cells.max() == len(field.truth.shows) > 0
