"""Classifiers that learn from cells: what they are given, what it costs them, and what they leave alone."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hpa_kit.cells import LabelMaps, pack_label_maps, write_label_maps
from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.config import PuzzleCamSettings, TrainSettings, make_settings
from hpa_kit.data import FieldStore
from hpa_kit.errors import InputError
from hpa_kit.models import CamClassifier, focal_loss
from hpa_kit.models.cell_pooling import pooled_logits
from hpa_kit.training import load_member, run_folds, train
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.cell_maps import CellMaps
from hpa_kit.training.checkpoint import BEST, read_checkpoint, settings_of
from hpa_kit.training.data import Batch, Draw, FieldDataset, load_training_data
from hpa_kit.training.objectives import CamObjective, Puzzle, Subcategories
from hpa_kit.training.objectives.cam import ForwardOutputs, ImageLoss
from hpa_kit.training.objectives.consistency import Consistency
from hpa_kit.training.trainer import Trainer

TINY = "test_resnet"
CPU = torch.device("cpu")
IDS = [f"00{number}e1" for number in range(13)]


@pytest.fixture(scope="session")
def masks(tmp_path_factory):
    """Label maps of the competition's fields: a cell on the left and one on the right; the last has none."""
    folder = tmp_path_factory.mktemp("masks")
    for id in IDS:
        cells = np.zeros((40, 48), np.int32)
        if id != IDS[-1]:
            cells[4:30, 3:20], cells[10:36, 25:45] = 1, 2
        write_label_maps(folder / f"{id}.npz", LabelMaps(np.where(cells, cells, 0), cells))
    return folder


def batch(n=3, side=64):
    draw = torch.Generator().manual_seed(0)
    fields = torch.randint(0, 256, (n, 4, side, side), dtype=torch.uint8, generator=draw)
    targets = (torch.rand(n, N_CLASSES, generator=draw) < 0.2).float()
    targets[:, 3] = 1
    cells = torch.zeros(n, side, side, dtype=torch.uint8)
    cells[:, 2:30, 4:28], cells[:, 34:60, 30:62] = 1, 2
    return Batch(fields, targets, torch.arange(n), cells)


def classifier(**options):
    torch.manual_seed(0)
    # In evaluation mode, so that two passes of the same fields are the same.
    return CamClassifier(TINY, stride=8, **options).eval()


def test_a_network_learns_from_cells_where_label_maps_are_given(settings, masks):
    assert not settings().pools_cells
    assert settings(masks=masks).pools_cells
    assert not settings(masks=masks, pooling="field").pools_cells
    with pytest.raises(InputError, match="pooling cells needs masks, a folder of label maps"):
        make_settings(TrainSettings, {**settings().model_dump(), "pooling": "cells"})


def test_a_classifier_of_before_there_was_pooling_has_learnt_from_whole_fields_whatever_masks_it_was_given(
    settings, masks
):
    run = train(settings(epochs=1))
    without(run / BEST, "pooling", "cell_pooling", "cell_bag", "consistency", "label_round", masks=masks)
    assert not load_member(run).settings.pools_cells
    assert not settings_of(run).pools_cells


def test_in_runs_of_before_there_was_a_choice_all_cells_count(settings, masks):
    run = train(settings(epochs=1, masks=masks))
    assert settings_of(run).cells.bag == "protein"
    without(run / BEST, "cell_bag")
    assert settings_of(run).cells.bag == "all"


def without(file, *young, **more):
    """Write a checkpoint as a version did that had not these settings."""
    settings = read_checkpoint(file).settings
    old = {name: value for name, value in settings.items() if name not in young}
    tensors = load_file(file)
    with safe_open(file, "pt") as content:
        metadata = content.metadata()
    metadata["settings"] = json.dumps(old | {name: str(value) for name, value in more.items()})
    save_file(tensors, file, metadata)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": "arcface", "consistency": 1}, "network arcface has no CAM"),
        ({"network": "crops", "pooling": "cells", "masks": "some"}, "network crops has no CAM"),
    ],
)
def test_what_a_network_would_pass_over_is_refused(settings, changes, said):
    with pytest.raises(InputError, match=said):
        make_settings(TrainSettings, {**settings().model_dump(), **changes})


def test_that_label_maps_are_passed_over_is_said(settings, masks, caplog):
    Trainer(settings(network="arcface", masks=masks)).try_network()
    assert f"network arcface looks at whole fields; masks {masks} are not looked at" in caplog.text


def test_a_single_field_has_nothing_to_be_mixed_with(settings):
    with pytest.raises(InputError, match="fields of a step are mixed; take batch 2 or more"):
        train(settings(consistency=1, batch=1))
    assert not settings().out.exists()


def test_the_loss_is_of_the_pooled_logits_of_all_classes_but_negative():
    model, data = classifier(), batch()
    losses = CamObjective(model, image_loss=ImageLoss("noisy-or"))(data, 0.0)
    logits = pooled_logits(model.forward_maps(data.fields), data.cells, "noisy-or")
    expected = focal_loss(logits[:, :NEGATIVE], data.targets[:, :NEGATIVE])
    torch.testing.assert_close(losses["focal"], expected)


def test_of_what_an_image_shows_the_cells_that_hold_the_protein_tell():
    model, data = classifier(), batch()
    data.fields[:, 1] = 10
    data.fields[:, 1][data.cells == 2] = 200
    maps = model.forward_maps(data.fields)
    found = CamObjective(model, image_loss=ImageLoss("linear", bag="protein"))(data, 0.0)["focal"]
    alone = torch.where(data.cells == 2, 1, 0)
    logits = torch.where(data.targets > 0, pooled_logits(maps, alone), pooled_logits(maps, data.cells))
    expected = focal_loss(logits[:, :NEGATIVE], data.targets[:, :NEGATIVE])
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    even = CamObjective(model, image_loss=ImageLoss("linear"))(data, 0.0)["focal"]
    assert (found - expected).abs() < (found - even).abs() / 5


def test_a_field_without_a_cell_gives_no_gradient():
    model, data = classifier(), batch()
    data.cells[1] = 0
    data.fields.requires_grad_(False)
    fields = data.fields.float().requires_grad_()
    losses = CamObjective(model, image_loss=ImageLoss("linear"))(data._replace(fields=fields), 0.0)
    losses["focal"].backward()
    assert (fields.grad[1] == 0).all()
    assert (fields.grad[0] != 0).any()
    assert model.head.weight.grad[NEGATIVE].abs().max() == 0


def test_a_batch_without_any_cell_costs_nothing_and_can_be_learnt_from():
    model, data = classifier(), batch()
    data.cells[:] = 0
    terms = [Puzzle(make_settings(PuzzleCamSettings, {"puzzle": "cam"}), None, ImageLoss("linear"))]
    losses = CamObjective(model, [*terms, Consistency()], ImageLoss("linear"))(data, 0.0)
    assert losses["focal"] == losses["tiles"] == losses["consistency"] == 0
    sum(losses.values()).backward()
    assert torch.isfinite(model.head.weight.grad).all()


@pytest.mark.parametrize("pooling", ["linear", "noisy-or", "max", "attention", "lse"])
def test_every_pooling_goes_on_after_a_batch_without_any_cell(pooling):
    model, data = classifier(), batch()
    data.cells[:] = 0
    losses = CamObjective(model, image_loss=ImageLoss(pooling))(data, 0.0)
    assert losses["focal"] == 0
    losses["focal"].backward()
    assert (model.head.weight.grad == 0).all()


@pytest.mark.parametrize(
    ("empty", "said"),
    [(0, "none of the 3 fields to validate on"), (1, "none of the 10 fields to learn from")],
)
def test_folds_without_any_cell_are_refused(settings, masks, tmp_path, empty, said):
    some = shutil.copytree(masks, tmp_path / "some")
    folds = run_folds(settings())
    for id in folds["ID"][(folds["fold"] == 0) == (empty == 0)]:
        write_label_maps(some / f"{id}.npz", LabelMaps(*np.zeros((2, 40, 48), np.int32)))
    with pytest.warns(UserWarning, match="have no cell"), pytest.raises(InputError, match=said):
        train(settings(masks=some))


def test_sub_categories_are_pooled_over_the_same_cells():
    model, data = classifier(n_subcategories=190), batch()
    table = torch.where(data.targets > 0, 4, -1)
    term = Subcategories(table, 10, 1.0, ImageLoss("max"))
    found = term.loss(model.forward_heads(model.input(data.fields)), data)
    maps = model.forward_heads(model.input(data.fields)).subcategory_maps
    logits = pooled_logits(maps, data.cells, "max")[:, : NEGATIVE * 10]
    torch.testing.assert_close(found, focal_loss(logits, term.targets(data.numbers)[:, : NEGATIVE * 10]))


def test_a_tile_of_the_puzzle_shows_what_the_parts_of_cells_in_it_show():
    model, data = classifier(), batch()
    data.cells[:, :32, :32] = 0  # the first tile of four has no cell any more
    normalised = model.input(data.fields)
    outputs = ForwardOutputs(model, data, 0.5, normalised, model.forward_heads(normalised))
    puzzle = make_settings(PuzzleCamSettings, {"puzzle": "cam"})
    found = Puzzle(puzzle, None, ImageLoss("linear"))(outputs)["tiles"]
    tiles = [normalised[:, :, y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
    cells = [data.cells[:, y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
    losses = [ImageLoss("linear")(model.forward_heads(tile).maps, data.targets, of)
              for tile, of in zip(tiles, cells, strict=True)]  # fmt: skip
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
    assert losses[0] == 0


@pytest.mark.parametrize("policy", [1, 2, 3, 5])
def test_cells_stay_where_their_pixels_go(policy):
    """Whatever the policy does: green says in every pixel which cell it is."""
    cells = np.zeros((64, 64), np.uint8)
    cells[5:30, 8:50], cells[35:60, 20:60] = 100, 200
    image = np.repeat(cells[..., None], 4, axis=2)

    class Memory:
        """A store, and label maps, of one field."""

        def __init__(self, value):
            self.value = value

        def __getitem__(self, _):
            return self.value

    dataset = FieldDataset(Memory(image), np.zeros((1, 19), np.float32), Augmentation(policy), Memory(cells))
    for seed in range(5):
        field, _, _, moved = dataset[Draw(0, (seed,))]
        assert moved.dtype == np.uint8
        inside = cv2_eroded(moved)
        assert np.array_equal(field[..., 1][inside > 0], moved[inside > 0])


def cv2_eroded(cells):
    """Without the pixels beside another value, where a field that is enlarged is blurred."""
    import cv2

    same = cv2.erode(cells, np.ones((5, 5))) == cv2.dilate(cells, np.ones((5, 5)))
    return np.where(same, cells, 0)


def test_batches_bring_label_maps_at_the_fields_size(settings, masks):
    with pytest.warns(UserWarning, match="1 of 13 fields have no cell in .*; nothing is learnt from them"):
        data = load_training_data(settings(masks=masks, augmentation=0), CPU)
    found = next(iter(data.validation.epoch(0)))
    assert found.cells.shape == (len(found.fields), 32, 32)
    assert found.cells.dtype == torch.uint8
    assert set(found.cells.unique().tolist()) <= {0, 1, 2}


def test_a_run_learns_from_cells_and_its_member_pools_them(settings, masks):
    run = train(settings(masks=masks, cell_pooling="lse", consistency=1, loss="bce", epochs=1))
    trained = load_member(run).settings
    assert trained.pools_cells and trained.cells.how == "lse"
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "train_consistency" in header


def test_other_label_maps_are_another_run(settings, masks, tmp_path):
    def stop(epoch, _):
        if epoch == 2:
            raise KeyboardInterrupt

    run = settings(masks=masks)
    with pytest.raises(KeyboardInterrupt):
        train(run, after_epoch=stop)
    other = shutil.copytree(masks, tmp_path / masks.name)
    cells = np.ones((40, 48), np.int32)
    write_label_maps(other / f"{IDS[0]}.npz", LabelMaps(cells, cells))
    with pytest.raises(InputError, match="masks"):
        train(run.model_copy(update={"masks": other}))


def test_label_maps_are_read_once_where_a_store_keeps_them(masks, tmp_path, monkeypatch):
    first = CellMaps(IDS, 32, [masks], store=tmp_path)
    monkeypatch.setattr("hpa_kit.cells.mask_folder.read_mask_file", lambda *_: pytest.fail("read again"))
    again = CellMaps(IDS, 32, [masks], store=tmp_path)
    assert again.checksum == first.checksum and (~again.has_cell).sum() == 1
    assert all(np.array_equal(again[number], first[number]) for number in range(13))


def test_packed_label_maps_teach_the_same_and_are_those_that_a_store_keeps(masks, tmp_path, monkeypatch):
    own = shutil.copytree(masks, tmp_path / "masks")
    first = CellMaps(IDS, 32, [own], store=tmp_path / "store")
    pack_label_maps(own, 5)
    packed = CellMaps(IDS, 32, [own])
    assert packed.checksum == first.checksum and (packed.has_cell == first.has_cell).all()
    assert all(np.array_equal(packed[number], first[number]) for number in range(13))
    monkeypatch.setattr("hpa_kit.cells.mask_folder.read_mask_file", lambda *_: pytest.fail("read again"))
    assert CellMaps(IDS, 32, [own], store=tmp_path / "store").checksum == first.checksum


def test_a_run_goes_on_with_the_label_maps_that_it_began_with_once_these_are_packed(
    settings, masks, tmp_path
):
    own = shutil.copytree(masks, tmp_path / masks.name)
    run = settings(masks=own, loss="bce", epochs=2)
    whole = train(run.model_copy(update={"out": tmp_path / "whole"}))

    def stop(epoch, _):
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, after_epoch=stop)
    pack_label_maps(own, 5)
    losses = [(path / "metrics.csv").read_text() for path in (train(run), whole)]
    figures = [[line.split(",")[1:4] for line in text.splitlines()] for text in losses]
    assert figures[0] == figures[1] and len(figures[0]) == 3


def test_a_damaged_or_outdated_small_label_map_is_made_again(masks, tmp_path):
    own = shutil.copytree(masks, tmp_path / "masks")
    first = CellMaps(IDS, 32, [own], store=tmp_path / "store")
    kept = tmp_path / "store" / "32" / f"{IDS[3]}.cells"
    kept.write_bytes(kept.read_bytes()[:-3])
    cells = np.ones((40, 48), np.int32)
    write_label_maps(own / f"{IDS[4]}.npz", LabelMaps(cells, cells))
    again = CellMaps(IDS, 32, [own], store=tmp_path / "store")
    assert np.array_equal(again[3], first[3])
    assert (again[4] == 1).all() and again.checksum != first.checksum


def test_label_maps_that_are_missing_are_named_before_anything_is_written(settings, masks, tmp_path):
    some = shutil.copytree(masks, tmp_path / "some")
    (some / f"{IDS[2]}.npz").unlink()
    with pytest.raises(
        InputError, match=f"masks: .*lacks label maps of 1 of 13 fields: ID {IDS[2]}; hpa-kit"
    ):
        train(settings(masks=some))
    assert not settings().out.exists()


def test_a_field_without_a_label_map_is_named(masks):
    with pytest.raises(InputError, match=r"label maps of 1 of 2 fields: .*nowhere.*missing"):
        CellMaps([IDS[0], "nowhere"], 32, [masks])


def test_a_field_store_beside_the_label_maps_stays_what_it_is(competition, masks, tmp_path):
    CellMaps(IDS, 32, [masks], store=tmp_path)
    store = FieldStore(competition / "train", IDS, 32, kept=tmp_path)
    assert len(store) == 13 and (tmp_path / "32" / f"{IDS[0]}.field").is_file()


class SaysBrightness(CamClassifier):
    """A network whose maps are the green channel: what it says of a pixel depends on nothing else."""

    def forward_heads(self, normalised):
        heads = super().forward_heads(normalised)
        green = torch.nn.functional.avg_pool2d(normalised[:, 1:2], 8)
        return heads._replace(maps=green.expand(-1, N_CLASSES, -1, -1))


@pytest.mark.parametrize("with_cells", [True, False])
def test_what_does_not_change_in_a_mixed_field_costs_no_more_than_its_own_uncertainty(with_cells):
    """A network that looks at nothing but the pixel itself is consistent: it loses what it is unsure of."""
    torch.manual_seed(0)
    model, data = SaysBrightness(TINY, stride=8).eval(), batch()
    data = data if with_cells else data._replace(cells=None)
    normalised = model.input(data.fields)
    outputs = ForwardOutputs(model, data, 0.0, normalised, model.forward_heads(normalised))
    for seed in range(3):
        torch.manual_seed(seed)
        found = Consistency(2.0)(outputs)["consistency"]
        p = outputs.heads.maps.sigmoid()
        entropy = -(p * p.log() + (1 - p) * (1 - p).log())[:, :NEGATIVE].sum(dim=1)
        assert 0 <= float(found) / 2 <= float(entropy.max()) + 1e-4


def test_a_run_that_learns_from_all_fields_learns_from_those_it_is_validated_on_too(settings, caplog):
    data = load_training_data(settings(all_fields=True), CPU)
    learnt = torch.cat([batch.numbers for batch in data.train.epoch(1)])
    assert sorted(learnt.tolist()) == list(range(13))
    assert sum(data.validation.sizes) > 0
