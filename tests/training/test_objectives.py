"""What a classifier is trained for: loss terms over one forward pass, sub-categories, puzzles, angles."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from hpa_kit.config import PuzzleCamSettings, TrainSettings, make_settings
from hpa_kit.errors import InputError
from hpa_kit.models import ArcFaceNet, CamClassifier, focal_loss
from hpa_kit.training.data import Batch
from hpa_kit.training.member import build_network
from hpa_kit.training.objectives import (
    CamObjective,
    Objective,
    Puzzle,
    Subcategories,
    objective_of,
)
from hpa_kit.training.objectives.base import class_counts, macro_f1
from hpa_kit.training.objectives.puzzle import cut_tiles, merge_tiles
from hpa_kit.training.subcategories import write_subcategories

TINY = "test_resnet"
NO_FIELDS = pd.DataFrame({"ID": [], "Label": []})


def batch(n=3, side=64):
    draw = torch.Generator().manual_seed(0)
    fields = torch.randint(0, 256, (n, 4, side, side), dtype=torch.uint8, generator=draw)
    targets = (torch.rand(n, 19, generator=draw) < 0.2).float()
    targets[:, 3] = 1
    return Batch(fields, targets, torch.arange(n))


def classifier(n_subcategories=0, stride=8):
    torch.manual_seed(0)
    # In evaluation mode, so that two passes of the same fields are the same.
    return CamClassifier(TINY, stride=stride, n_subcategories=n_subcategories).eval()


def test_one_hot_sub_categories_stand_at_class_times_k_plus_cluster():
    table = torch.full((4, 19), -1)
    table[2, 0], table[2, 18], table[0, 5] = 3, 0, 9
    targets = Subcategories(table, k=10, weight=5).targets(torch.tensor([2, 0, 1]))
    assert targets.shape == (3, 190)
    assert targets.nonzero().tolist() == [[0, 3], [0, 180], [1, 59]]


def test_round_one_adds_the_weighted_focal_loss_of_the_sub_categories():
    model, data = classifier(190), batch()
    table = torch.where(data.targets > 0, 4, -1)
    losses = CamObjective(model, [Subcategories(table, 10, 5.0)])(data, 0.0)
    sub_logits = model.forward_heads(model.input(data.fields)).subcategory_maps.mean((2, 3))
    expected = torch.zeros(3, 190)
    for row, index in data.targets.nonzero().tolist():
        expected[row, index * 10 + 4] = 1
    torch.testing.assert_close(losses["subcategories"], 5 * focal_loss(sub_logits, expected))
    torch.testing.assert_close(losses["focal"], focal_loss(model(data.fields), data.targets))
    torch.testing.assert_close(losses["focal"], Objective(model)(data, 0.0)["focal"])


def test_validation_fields_are_evaluated_by_their_classes_and_the_sub_categories_told_beside():
    model, data = classifier(190), batch()
    table = torch.where(data.targets > 0, 4, -1)
    objective = CamObjective(model, [Subcategories(table, 10, 5.0)])
    parts = [Batch(*(part[rows] for part in data[:3])) for rows in (slice(0, 2), slice(2, 3))]
    with torch.inference_mode():
        metrics = objective.evaluate(model, parts)
        expected = Objective(model).evaluate(model, parts)
        losses = objective(data, 0.0)
    assert metrics.pop("val_subcategories") == pytest.approx(losses["subcategories"].item() / 5, rel=1e-5)
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_all_loss_terms_share_one_forward_pass_of_the_whole_fields():
    model, data = classifier(19), batch()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    table = torch.where(data.targets > 0, 0, -1)
    sub = Subcategories(table, 1, 5.0)
    losses = CamObjective(model, [sub, Puzzle(PuzzleCamSettings(source="cam"), sub)])(data, 1.0)
    assert seen == [(3, 4, 64, 64), (12, 4, 32, 32)]
    assert set(losses) == {
        "focal", "subcategories", "tiles", "puzzle", "subcategory_tiles", "subcategory_puzzle"
    }  # fmt: skip


@pytest.mark.parametrize("per_side", [2, 3, 4])
def test_tiles_put_together_are_the_whole(per_side):
    fields = torch.arange(2 * 3 * 24 * 12).reshape(2, 3, 24, 12).float()
    tiles = cut_tiles(fields, per_side)
    assert torch.equal(merge_tiles(tiles, per_side), fields)
    height, width = 24 // per_side, 12 // per_side
    # The tiles of a field stand together, row by row.
    assert torch.equal(tiles[per_side**2 + 1], fields[1, :, :height, width : 2 * width])


def slow_puzzle(model, data, per_side, source, masked):
    """Losses of a puzzle, tile by tile and map by map."""
    x = model.input(data.fields)
    side = x.shape[-1] // per_side
    whole = model.backbone(x) if source == "features" else model.head(model.backbone(x))
    merged, classified = torch.zeros_like(whole), 0
    step = whole.shape[-1] // per_side
    for row in range(per_side):
        for column in range(per_side):
            tile = x[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
            features = model.backbone(tile)
            maps = model.head(features)
            classified = classified + focal_loss(maps.mean((2, 3)), data.targets) / per_side**2
            part = features if source == "features" else maps
            merged[:, :, row * step : (row + 1) * step, column * step : (column + 1) * step] = part
    total = 0
    for field in range(len(whole)):
        for index in range(whole.shape[1]):
            if masked and not data.targets[field, index]:
                continue
            one, other = merged[field, index].relu(), whole[field, index].relu()
            total = total + (one / (one.max() + 1e-5) - other / (other.max() + 1e-5)).abs().sum()
    return classified, total / whole.numel()


@pytest.mark.parametrize(
    ("tiles", "side", "source", "masked"),
    [(4, 64, "cam", False), (4, 64, "cam", True), (9, 96, "cam", False), (16, 64, "features", False)],
)
def test_a_puzzle_is_what_its_tiles_say_and_how_far_they_differ_from_the_whole(tiles, side, source, masked):
    model, data = classifier(), batch(2, side)
    puzzle = Puzzle(PuzzleCamSettings(tiles=tiles, source=source, weight=4.0, tile_weight=1.5, masked=masked))
    losses = CamObjective(model, [puzzle])(data, 0.25)
    classified, difference = slow_puzzle(model, data, int(tiles**0.5), source, masked)
    torch.testing.assert_close(losses["tiles"], 1.5 * classified)
    torch.testing.assert_close(losses["puzzle"], 2.0 * difference)


def test_the_difference_weighs_more_over_the_first_half_of_training():
    puzzle = Puzzle(PuzzleCamSettings(weight=4.0))
    assert [puzzle.ramp(progress) for progress in (0, 0.125, 0.25, 0.5, 0.75, 1)] == [0, 1, 2, 4, 4, 4]


def test_tiles_that_a_network_cannot_take_are_looked_at_at_the_nearest_side(caplog):
    made = TrainSettings(data="d", out="o", backbone="levit_128s", size=128, puzzle="cam")
    model, data = build_network(made).eval(), batch(2, 128)
    with caplog.at_level("INFO"):
        losses = CamObjective.of(made, model, NO_FIELDS)(data, 1.0)
    assert "levit_128s takes no tiles of 64 px; they are looked at at 128 px" in caplog.text
    larger = torch.nn.functional.interpolate(
        cut_tiles(model.input(data.fields), 2), size=(128, 128), mode="bilinear"
    )
    maps = torch.nn.functional.interpolate(model.forward_heads(larger).maps, size=(2, 2), mode="bilinear")
    expected = focal_loss(maps.mean((2, 3)), data.targets.repeat_interleave(4, dim=0))
    torch.testing.assert_close(losses["tiles"], expected)


def test_the_gradient_of_a_puzzle_flows_through_tiles_and_whole():
    gradients = []
    for stopped in (None, "tiles", "whole"):
        model, data = classifier(), batch(2)
        passes = model.forward_heads

        def forward_heads(x, passes=passes, stopped=stopped):
            heads = passes(x)
            is_tiles = len(x) > 2
            if stopped is None or is_tiles != (stopped == "tiles"):
                return heads
            return type(heads)(*(None if part is None else part.detach() for part in heads))

        model.forward_heads = forward_heads
        losses = CamObjective(model, [Puzzle(PuzzleCamSettings(source="cam"))])(data, 1.0)
        losses["puzzle"].backward()
        gradients.append(model.head.weight.grad.clone())
    both, without_tiles, without_whole = gradients
    torch.testing.assert_close(both, without_tiles + without_whole, atol=1e-6, rtol=1e-3)
    assert without_tiles.abs().max() > 1e-4 and without_whole.abs().max() > 1e-4


def test_tiles_are_normalised_as_the_whole_field():
    model, data = classifier(), batch(1)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    CamObjective(model, [Puzzle(PuzzleCamSettings(source="cam"))])(data, 0.0)
    assert torch.equal(seen[1], cut_tiles(seen[0], 2))


def test_fields_that_do_not_make_equal_tiles_are_refused_with_what_to_take():
    with pytest.raises(InputError, match="64 x 64 cannot be cut into 3 x 3 equal tiles; .* multiple of 3"):
        CamObjective(classifier(), [Puzzle(PuzzleCamSettings(source="cam", tiles=9))])(batch(), 0.0)
    with pytest.raises(InputError, match=r"multiple of 2 times the stride"):
        CamObjective(classifier(stride=32), [Puzzle(PuzzleCamSettings(source="cam", tiles=4))])(
            batch(2, 96), 0.0
        )
    with pytest.raises(InputError, match=r"puzzle_tiles: .*4, 9 or 16, found 5"):
        make_settings(TrainSettings, {"data": "d", "out": "o", "puzzle_tiles": 5})


def test_settings_say_which_puzzles_there_are(tmp_path):
    base = {"data": tmp_path, "out": tmp_path / "run"}
    for changes, message in (
        ({"puzzle": "cam", "puzzle_tiles": 9}, "size 512 does not give 9 tiles .* take 480 or 576"),
        ({"puzzle": "features", "puzzle_masked": True}, "puzzle_masked needs puzzle cam"),
        ({"puzzle": "cam", "puzzle_subcategories": True}, "needs a puzzle and a round from 1 on"),
        ({"round": 1}, "round 1 needs subcategories"),
        ({"network": "arcface", "puzzle": "cam"}, "network arcface has no CAM"),
    ):
        with pytest.raises(InputError, match=message):
            make_settings(TrainSettings, base, changes)
    assert make_settings(TrainSettings, base, {"puzzle": "cam", "puzzle_tiles": "9", "size": 480}).size == 480


@pytest.mark.parametrize("loss", ["bce", "ce", "focal"])
def test_arcface_is_a_loss_of_cosines_after_a_margin_and_perhaps_without(loss):
    torch.manual_seed(0)
    model, data = ArcFaceNet(TINY, stride=8, scale=10).eval(), batch()
    settings = TrainSettings(
        data="d", out="o", network="arcface", arcface_loss=loss, arcface_margin=0.3, arcface_plain_weight=0.5
    )
    losses = objective_of(settings.network).of(settings, model, NO_FIELDS)(data, 0.0)
    angles = model.forward_cosines(data.fields).double().acos()
    moved = 10 * (angles + 0.3 * data.targets).cos()
    plain = 10 * angles.cos()

    def expected(logits):
        p = logits.sigmoid()
        p_true = torch.where(data.targets > 0, p, 1 - p)
        if loss == "ce":
            shares = data.targets / data.targets.sum(1, keepdim=True)
            return -(shares * logits.log_softmax(1)).sum(1).mean()
        return (-p_true.log() * ((1 - p_true) ** 2 if loss == "focal" else 1)).sum(1).mean()

    assert losses["arcface"].item() == pytest.approx(expected(moved).item(), rel=1e-4)
    assert losses["plain"].item() == pytest.approx(0.5 * expected(plain).item(), rel=1e-4)


def test_settings_and_table_make_the_objective_and_the_table_is_checked(tmp_path):
    numbers = np.full((2, 19), -1)
    numbers[0, 3], numbers[1, [3, 7]] = 1, [0, 2]
    write_subcategories(tmp_path / "sub.csv", ["a", "b"], numbers)
    settings = TrainSettings(
        data="d", out="o", backbone=TINY, stride=8, size=64, round=1, subcategories=tmp_path / "sub.csv",
        puzzle="cam", puzzle_subcategories=True,
    )  # fmt: skip
    model = build_network(settings)
    assert model.subcategory_head.out_channels == 19 * 3
    objective = CamObjective.of(settings, model, pd.DataFrame({"ID": ["b", "a"], "Label": ["3|7", "3"]}))
    targets = torch.zeros(2, 19)
    targets[0, [3, 7]] = targets[1, 3] = 1
    data = Batch(batch(2).fields, targets, torch.tensor([0, 1]))
    losses = objective(data, 0.5)
    assert set(losses) == {
        "focal", "subcategories", "tiles", "puzzle", "subcategory_tiles", "subcategory_puzzle"
    }  # fmt: skip
    with pytest.raises(InputError, match=r"sub.csv, ID a: gives no sub-category for class 4"):
        CamObjective.of(settings, model, pd.DataFrame({"ID": ["a"], "Label": ["3|4"]}))


def test_every_weight_learns_with_all_loss_terms_in_half_precision():
    model, data = CamClassifier(TINY, stride=8, n_subcategories=19), batch()
    sub = Subcategories(torch.where(data.targets > 0, 0, -1), 1, 5.0)
    objective = CamObjective(model, [sub, Puzzle(PuzzleCamSettings(source="cam"), sub)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = objective(data, 0.5)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    bad = [n for n, w in model.named_parameters() if w.grad is None or not torch.isfinite(w.grad).all()]
    assert bad == []


def test_classes_that_no_field_shows_are_left_out_of_macro_f1():
    targets = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0]]) > 0
    given = torch.tensor([[1, 0, 1], [0, 1, 1], [0, 1, 1]]) > 0
    # Class 0: one of two found, nothing wrong: 2/3. Class 1: all right. Class 2 is in no field.
    assert macro_f1(class_counts(given, targets)) == pytest.approx((2 / 3 + 1) / 2)


def test_nothing_right_is_0_and_no_class_at_all_is_no_number():
    nothing, everything = torch.zeros(2, 3) > 0, torch.ones(2, 3) > 0
    assert macro_f1(class_counts(nothing, everything)) == 0
    assert math.isnan(macro_f1(class_counts(nothing, nothing)))
