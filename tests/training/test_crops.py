"""Training on single cells."""

import shutil

import numpy as np
import pytest
import torch
from runs_alike import assert_same_run

from hpa_kit.cells import LabelMaps, write_label_maps
from hpa_kit.classes import NEGATIVE
from hpa_kit.config import TrainSettings, make_settings
from hpa_kit.data import read_field, resize_field, write_cell_scores
from hpa_kit.errors import InputError
from hpa_kit.models import CropNet, focal_loss
from hpa_kit.training import load_member, read_checkpoint, settings_of, train
from hpa_kit.training.data import balanced_weights
from hpa_kit.training.member import build_network
from hpa_kit.training.objectives import CropObjective
from hpa_kit.training.objectives.crops import load_crop_data, mixed

CPU = torch.device("cpu")
IDS = [f"00{number}e1" for number in range(13)]


def cells_of(number: int) -> np.ndarray:
    """Two cells of 40 x 48 pixels; the last field has none, the one before a cell of a single pixel too."""
    cells = np.zeros((40, 48), np.int32)
    if number < 12:
        cells[4:20, 6:20] = 1
        cells[22:38, 24 + number : 40] = 2
    if number == 11:
        cells[0, 1] = 3
    return cells


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    for number, id in enumerate(IDS):
        write_label_maps(folder / f"{id}.npz", LabelMaps(cells_of(number), cells_of(number)))
    return folder


@pytest.fixture(scope="module")
def soft(tmp_path_factory, masks):
    """Soft labels: cell 1 shows class 0 by 0.9, cell 2 class 7 by 0.6."""
    folder = tmp_path_factory.mktemp("soft")
    rows = []
    for number, id in enumerate(IDS):
        scores = np.zeros((int(cells_of(number).max()), 19))
        scores[:1, 0], scores[1:2, 7] = 0.9, 0.6
        rows.append((id, scores))
    write_cell_scores(folder / "cell_scores.csv", rows)
    listed = [f"{id},{len(scores)}" for id, scores in rows]
    (folder / "fields.csv").write_text("\n".join(["ID,cells", *listed]) + "\n")
    (folder / "settings.yaml").write_text(f"labels: soft\nmasks: {masks}\n")
    return folder


@pytest.fixture
def crops(settings, masks):
    """Settings of a run of crops that takes a second."""
    quick = {"network": "crops", "masks": masks, "crop_size": 32, "stride": 8, "batch": 5, "epochs": 2}
    return lambda **changes: settings(**{**quick, **changes})


def test_an_epoch_shows_every_cell_that_has_a_pixel_once(crops) -> None:
    data = load_crop_data(crops(augmentation=0), CPU)
    found = [batch.numbers for loader in (data.train, data.validation) for batch in loader.epoch(0)]
    # Twelve fields of two cells; that of a single pixel is lost at 32 x 32.
    assert sorted(torch.cat(found).tolist()) == list(range(24))


def test_a_batch_holds_crops_masks_and_what_the_whole_field_has_on_average(crops) -> None:
    made = crops(augmentation=0)
    data = load_crop_data(made, CPU)
    table = data.train._loader.dataset.table
    for batch in data.validation.epoch(0):
        assert batch.fields.shape[1:] == (4, 32, 32) and batch.cells.shape[1:] == (32, 32)
        for row, crop, mask, statistics in zip(
            batch.numbers.tolist(), batch.fields, batch.cells, batch.statistics, strict=True
        ):
            field = resize_field(read_field(made.data / "train", IDS[table.field[row]]), 32)
            np.testing.assert_allclose(statistics[0], field.mean((1, 2)), rtol=1e-5)
            y, x = table.at[row]
            assert crop[:, 16, 16].tolist() == field[:, y, x].tolist() and mask[16, 16] == 1


def test_folds_are_of_fields(crops) -> None:
    data = load_crop_data(crops(), CPU)
    table = data.train._loader.dataset.table
    learnt, validated = (
        {int(table.field[draw]) for draw in loader.batches.numbers}
        for loader in (data.train, data.validation)
    )
    assert learnt.isdisjoint(validated)


def test_crop_and_mask_are_augmented_alike(crops) -> None:
    data = load_crop_data(crops(augmentation=6), CPU)
    dataset = data.train._loader.dataset
    for number in range(len(IDS)):
        dataset.store._memory[number] = (dataset.maps[number] > 0)[..., None] * np.uint8(255)
    for batch in data.train.epoch(1):
        bright = batch.fields[:, 0] > 127
        alike = (bright & (batch.cells > 0)).flatten(1).sum(1) / (batch.cells > 0).flatten(1).sum(1)
        assert (alike > 0.85).all()


def test_cells_have_their_soft_labels_and_negative_is_the_rest(crops, soft) -> None:
    data = load_crop_data(crops(pseudo_labels=soft, masks=None), CPU)
    table = data.train._loader.dataset.table
    np.testing.assert_allclose(table.targets[table.number == 1, 0], 0.9, rtol=1e-5)
    np.testing.assert_allclose(table.targets[table.number == 2, 7], 0.6, rtol=1e-5)
    np.testing.assert_allclose(table.targets[table.number == 2, NEGATIVE], 0.4, rtol=1e-5)


def test_without_soft_labels_cells_have_those_of_their_images(crops) -> None:
    table = load_crop_data(crops(), CPU).train._loader.dataset.table
    shown = [set(np.flatnonzero(row)) for row in table.targets]
    assert shown == [{0} if field % 2 else {7, 16} for field in table.field]


def test_balanced_sampling_goes_by_the_classes_that_cells_show_by_half_or_more(crops, soft) -> None:
    assert load_crop_data(crops(pseudo_labels=soft), CPU).train.batches.weights is None
    made = crops(pseudo_labels=soft, sampling="balanced", sampling_clip=1)
    batches = load_crop_data(made, CPU).train.batches
    # As many cells show class 0 as class 7, so each is drawn as often.
    np.testing.assert_allclose(batches.weights, 1 / len(batches.numbers))
    likely = np.array([[0.9, 0], [0.9, 0.4], [0.9, 0], [0.2, 0.6]], np.float32)
    np.testing.assert_allclose(balanced_weights(likely >= 0.5, 1), [1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_positives_of_image_labels_count_less(crops) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 19), torch.randint(0, 2, (6, 19)).float()
    light = CropObjective(torch.nn.Identity(), gamma=0, positives=0.1).cell_loss(logits, targets)
    yes, no = (-torch.nn.functional.logsigmoid(sign * logits[:, :18]) for sign in (1, -1))
    expected = (0.1 * targets[:, :18] * yes + (1 - targets[:, :18]) * no).sum(1).mean()
    torch.testing.assert_close(light, expected)
    whole = CropObjective(torch.nn.Identity(), gamma=2.0).cell_loss(logits, targets)
    torch.testing.assert_close(whole, focal_loss(logits[:, :18], targets[:, :18]))


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_crops_are_mixed_by_the_share_of_their_targets(how) -> None:
    torch.manual_seed(3)
    # Crop k is k everywhere, so its mean tells what it was mixed of.
    crops = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 5, 16, 16).contiguous()
    targets = torch.nn.functional.one_hot(torch.arange(8), 19).float()
    seen, wanted = mixed(crops, targets, how)
    means = (wanted[:, :8] * torch.arange(8.0)).sum(1)
    torch.testing.assert_close(seen.mean((1, 2, 3)), means)
    torch.testing.assert_close(wanted.sum(1), torch.ones(8))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.whole_table),
        {"crop_mix": "cutmix", "loss": "bce"},
        pytest.param({"mask_channel": False}, marks=pytest.mark.whole_table),
    ],
)
def test_a_run_that_was_cut_off_ends_with_the_same_weights(crops, soft, tmp_path, changes) -> None:
    changes = {"pseudo_labels": soft, "augmentation": 6, "crop_size": None, **changes}
    whole = train(crops(out=tmp_path / "whole", **changes))

    class CutOffError(Exception):
        pass

    def cut_off(epoch: int, _: object) -> None:
        raise CutOffError

    cut = crops(out=tmp_path / "cut", **changes)
    with pytest.raises(CutOffError):
        train(cut, cut_off)
    assert_same_run(whole, train(cut))


def test_the_side_is_chosen_by_the_cells_and_kept_with_the_run(crops) -> None:
    run = train(crops(crop_size=None, size=128, epochs=1))
    # Boxes of 16 x 14 and 16 x up to 16 of 40 x 48 pixels are 51 and less of 128.
    assert settings_of(run).crops.side == 64
    assert read_checkpoint(run / "best.safetensors").settings["crop_size"] == 64
    assert "crop_size: 64" in (run / "settings.yaml").read_text()
    assert load_member(run).model.sides.takes(64)


def test_a_finished_run_needs_no_label_maps_to_say_its_side(crops, masks, tmp_path) -> None:
    shutil.copytree(masks, tmp_path / "masks")
    made = crops(crop_size=None, epochs=1, masks=tmp_path / "masks")
    run = train(made)
    shutil.rmtree(tmp_path / "masks")
    assert train(made) == run and settings_of(run).crops.side == 32


def test_a_side_that_the_network_does_not_take_is_refused_before_anything_is_written(crops) -> None:
    made = crops(backbone="test_vit", stride=16, crop_size=100)
    with pytest.raises(InputError, match="96 and 112") as caught:
        train(made)
    assert "\n" not in str(caught.value) and not made.out.exists()


@pytest.mark.parametrize("changes", [{}, {"network": "cam"}, {"crop_size": None}])
def test_hard_labels_are_refused_before_anything_is_written(crops, soft, tmp_path, changes) -> None:
    hard = shutil.copytree(soft, tmp_path / "hard")
    (hard / "settings.yaml").write_text((soft / "settings.yaml").read_text().replace("soft", "hard"))
    made = crops(pseudo_labels=hard, **changes)
    with pytest.raises(InputError, match="holds hard labels"):
        train(made)
    assert not made.out.exists()


@pytest.mark.parametrize(
    ("network", "changes", "said"),
    [
        ("crops", {"consistency": 1}, "network crops has no CAM, so no pooling cells and no consistency"),
        ("cam", {"crop_mix": "mixup"}, "crop_mix is for network crops, not for cam"),
    ],
)
def test_what_another_network_learns_by_is_refused(crops, network, changes, said) -> None:
    with pytest.raises(InputError, match=said):
        make_settings(TrainSettings, {**crops().model_dump(), "network": network, **changes})


def test_missing_label_maps_are_said_before_anything_is_written(crops, tmp_path) -> None:
    made = crops(crop_size=None, masks=tmp_path / "nothing")
    with pytest.raises(InputError, match="nothing"):
        train(made)
    assert not made.out.exists()


def test_too_few_cells_are_said(crops, tmp_path) -> None:
    for id in IDS:
        write_label_maps(tmp_path / f"{id}.npz", LabelMaps(*[np.zeros((40, 48), np.int32)] * 2))
    with pytest.warns(UserWarning, match="no cell"), pytest.raises(InputError, match="0 cells to learn from"):
        load_crop_data(crops(masks=tmp_path), CPU)


@pytest.mark.parametrize("mask_channel", [True, False])
def test_it_starts_with_a_classifiers_backbone_to_which_the_mask_is_nothing(
    crops, settings, mask_channel
) -> None:
    cam = train(settings(out=crops().out.with_name("cam"), epochs=1))
    network = build_network(crops(warm_start=cam, mask_channel=mask_channel)).eval()
    fields = torch.randint(0, 256, (2, 4, 32, 32), dtype=torch.uint8)
    expected = load_member(cam).model.forward_features(fields)
    torch.testing.assert_close(network.backbone(network.prepare(fields)), expected)


@pytest.mark.parametrize("changes", [{"swa": 0.5}, {"crop_mix": "mixup"}])
def test_a_network_never_sees_a_crop_without_its_mask_and_its_field(crops, monkeypatch, changes) -> None:
    """Batch norm of averaged weights is measured on crops as they are learnt, too."""
    seen, prepare = [], CropNet.prepare

    def noted(self, pixels, masks=None, statistics=None):
        if pixels.device.type != "meta":
            seen.append(masks is not None and statistics is not None)
        return prepare(self, pixels, masks, statistics)

    monkeypatch.setattr(CropNet, "prepare", noted)
    train(crops(**changes))
    assert seen and all(seen)
