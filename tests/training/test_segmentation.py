"""Stage 2: learning maps from the pseudo labels of cells."""

import zlib

import numpy as np
import pandas as pd
import pytest
import torch

from hpa_kit.cells import LabelMaps, write_label_maps
from hpa_kit.config import TrainSettings
from hpa_kit.data import write_cell_scores
from hpa_kit.errors import InputError
from hpa_kit.models import SegmentationNet, focal_loss
from hpa_kit.training import load_member, train
from hpa_kit.training.data import Batch, fingerprint_of
from hpa_kit.training.objectives.segmentation import (
    FULL,
    CellMaps,
    SegmentationObjective,
    load_segmentation_data,
    segmentation_fields,
)
from hpa_kit.training.run_folder import refuse_other_data

CPU = torch.device("cpu")
IDS = [f"00{number}e1" for number in range(13)]
GREEN_CLASS, DARK_CLASS, NO_CELL = 0, 7, 19


def cells_of(number):
    """Two cells side by side, 40 x 48; field 12 has none."""
    cells = np.zeros((40, 48), np.int32)
    if number != 12:
        cells[4:36, 2:23], cells[4:36, 25:46] = 1, 2
    return cells


@pytest.fixture(scope="session")
def make_pseudo(tmp_path_factory):
    """Writes pseudo labels of the tiny competition: class 0 in fields of odd number, else class 7."""

    def make(labels="hard", confidence=0.9, ids=IDS):
        folder = tmp_path_factory.mktemp("pseudo")
        rows = []
        for number, id in enumerate(IDS):
            cells = cells_of(number)
            write_label_maps(folder / "masks" / f"{id}.npz", LabelMaps(cells, cells))
            scores = np.zeros((cells.max(), 19))
            scores[:, GREEN_CLASS if number % 2 else DARK_CLASS] = confidence
            if id in ids:
                rows.append((id, scores))
        write_cell_scores(folder / "cell_scores.csv", rows)
        listed = [f"{id},{len(scores)}" for id, scores in rows]
        (folder / "fields.csv").write_text("\n".join(["ID,cells", *listed]) + "\n")
        (folder / "settings.yaml").write_text(f"labels: {labels}\nmasks: null\n")
        return folder

    return make


@pytest.fixture
def stage2(settings, make_pseudo):
    """Settings of a run of stage 2."""

    def make(pseudo=None, **changes):
        return settings(network="unet", pseudo_labels=pseudo or make_pseudo(), **changes)

    return make


def batches(data, epoch=0):
    return list(data.validation.epoch(epoch))


def test_a_batch_holds_fields_and_the_maps_of_their_cells(stage2):
    data = load_segmentation_data(stage2(augmentation=0), CPU)
    for batch in batches(data):
        assert batch.fields.shape[1:] == (4, 32, 32)
        assert batch.targets.dtype == torch.uint8
        assert batch.targets.shape[1:] == (20, 32, 32)
        assert set(batch.targets.unique().tolist()) <= {0, FULL}
        for number, target in zip(batch.numbers.tolist(), batch.targets, strict=True):
            shown = set(target.flatten(1).any(dim=1).nonzero().flatten().tolist())
            label = GREEN_CLASS if number % 2 else DARK_CLASS
            assert shown == ({NO_CELL} if number == 12 else {label, NO_CELL})


def test_field_and_target_are_augmented_alike(stage2):
    data = load_segmentation_data(stage2(augmentation=1, batch=12), CPU)
    dataset = data.train._loader.dataset
    left = np.zeros((32, 32), np.int32)
    left[:, :8] = 1
    dataset.store._memory[:, :, :8] = 255
    dataset.cells._packed = [zlib.compress(left.tobytes())] * len(IDS)
    for id in IDS:
        dataset.pseudo.scores[id] = np.eye(19, dtype=np.float32)[[3]]
    for batch in data.train.epoch(1):
        drawn = batch.targets[:, 3] == FULL
        assert drawn.any()
        assert torch.equal(drawn, (batch.fields == 255).all(dim=1))


@pytest.mark.parametrize("n", [0, 2, 255, 256, 70_000])
def test_label_maps_come_back_from_memory_with_any_number_of_cells(tmp_path, n):
    cells = np.zeros((300, 300), np.int32)
    cells.flat[:n] = np.arange(1, n + 1)
    write_label_maps(tmp_path / "a.npz", LabelMaps(cells, cells))
    found = CellMaps(["a", "unknown"], 300, [tmp_path], {"a": n})[0]
    assert found.dtype == (np.uint8 if n < 256 else np.int32)
    assert np.array_equal(found, cells)


def test_soft_pseudo_labels_are_learnt_as_probabilities(stage2, make_pseudo):
    data = load_segmentation_data(stage2(make_pseudo("soft", confidence=0.2), augmentation=0), CPU)
    values = {value for batch in batches(data) for value in batch.targets.unique().tolist()}
    assert values == {0, 51, 204, 255}  # 0.2, 1 - 0.2 in Negative, and 1 in no cell


def test_a_cell_below_the_threshold_is_negative(stage2, make_pseudo):
    data = load_segmentation_data(stage2(make_pseudo(confidence=0.2), augmentation=0), CPU)
    assert all(batch.targets[:, :18].sum() == 0 for batch in batches(data))
    data = load_segmentation_data(stage2(make_pseudo(confidence=0.2), threshold=0.1), CPU)
    assert any(batch.targets[:, :18].any() for batch in batches(data))


def test_fields_without_pseudo_labels_are_left_out_and_said(stage2, make_pseudo):
    with pytest.warns(UserWarning, match="1 of 13 fields have no pseudo labels"):
        data = load_segmentation_data(stage2(make_pseudo(ids=IDS[1:])), CPU)
    numbers = [
        number for loader in (data.train, data.validation) for b in loader.epoch(0) for number in b.numbers
    ]
    assert sorted(map(int, numbers)) == list(range(1, 13))
    with pytest.raises(InputError, match="expected 2 and 1 at least"):
        load_segmentation_data(stage2(make_pseudo(ids=IDS[:1])), CPU)


def test_label_maps_that_the_pseudo_labels_were_not_made_with_are_refused(stage2, make_pseudo):
    pseudo = make_pseudo()
    cells = np.ones((40, 48), np.int32)
    write_label_maps(pseudo / "masks" / f"{IDS[3]}.npz", LabelMaps(cells, cells))
    with pytest.raises(InputError, match=f"ID {IDS[3]}: 1 cells, the pseudo labels have 2"):
        load_segmentation_data(stage2(pseudo), CPU)
    (pseudo / "masks" / f"{IDS[3]}.npz").unlink()
    with pytest.raises(InputError, match="is missing"):
        load_segmentation_data(stage2(pseudo), CPU)


def test_the_fingerprint_changes_where_a_pseudo_label_does(stage2, make_pseudo):
    one, other = (load_segmentation_data(stage2(make_pseudo(confidence=c)), CPU) for c in (0.9, 0.8))
    again = load_segmentation_data(stage2(make_pseudo(confidence=0.9)), CPU)
    assert fingerprint_of(one.folds) == fingerprint_of(again.folds) != fingerprint_of(other.folds)


def test_the_fingerprint_is_known_without_reading_a_field(stage2, make_pseudo):
    for chosen in (stage2(make_pseudo()), stage2(make_pseudo(ids=IDS[1:]))):
        assert fingerprint_of(load_segmentation_data(chosen, CPU).folds) == fingerprint_of(
            segmentation_fields(chosen)
        )


def pixel_loss(logits, targets):
    return focal_loss(logits, targets, reduction="mean", soft=True)


def test_a_run_does_not_go_on_with_other_label_maps_of_as_many_cells(stage2, make_pseudo):
    pseudo = make_pseudo()
    chosen = stage2(pseudo)
    before = load_segmentation_data(chosen, CPU)
    cells = np.roll(cells_of(0), 3, axis=0)
    write_label_maps(pseudo / "masks" / f"{IDS[0]}.npz", LabelMaps(cells, cells))
    after = load_segmentation_data(chosen, CPU)
    assert fingerprint_of(before.folds) == fingerprint_of(
        after.folds
    )  # which older runs have without label maps
    kept = {"fields": fingerprint_of(before.folds), "contents": before.contents}
    with pytest.raises(InputError, match="was started with another content of pseudo_labels"):
        refuse_other_data(chosen, kept, fingerprint_of(after.folds), after.contents)


def test_the_loss_of_pixels_is_the_focal_loss_averaged_over_everything():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 20, 5, 5, generator=generator) * 5
    targets = (torch.rand(2, 20, 5, 5, generator=generator) > 0.5).float()
    torch.testing.assert_close(pixel_loss(logits, targets), focal_loss(logits, targets, reduction="mean"))
    p, t = torch.tensor([[0.3]]), torch.tensor([[0.6]])
    expected = -(t * p.log() + (1 - t) * (1 - p).log()) * (t - p) ** 2
    torch.testing.assert_close(pixel_loss(p.logit(), t), expected[0, 0])


def test_the_loss_of_pixels_is_finite_in_half_precision():
    logits = torch.tensor([[100.0, -100.0, 0.0]], dtype=torch.float16, requires_grad=True)
    loss = pixel_loss(logits, torch.tensor([[0.0, 1.0, 0.5]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


class _Drawn(torch.nn.Module):
    """Stands for a network: its logits are what it is given."""

    def forward(self, fields):
        return fields


def test_an_evaluation_says_how_well_each_class_that_is_shown_is_drawn(stage2):
    targets = torch.zeros(1, 20, 4, 4, dtype=torch.uint8)
    targets[:, 0, :2], targets[:, 5, 2:], targets[:, 19, 0] = FULL, FULL, FULL
    logits = torch.full((1, 20, 4, 4), -9.0)
    logits[:, 0, :2], logits[:, 5, 3:], logits[:, 8] = 9.0, 9.0, 9.0  # all, half, and one that is not there
    metrics = SegmentationObjective(_Drawn()).evaluate(_Drawn(), [Batch(logits, targets, torch.zeros(1))])
    assert metrics["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics["val_loss"] == pytest.approx(float(pixel_loss(logits, targets / 255)))


def test_a_run_of_stage_2_learns_and_comes_back_as_a_member(stage2):
    run = train(stage2(epochs=3, lr=1e-2, augmentation=0, ema=0))
    losses = pd.read_csv(run / "metrics.csv")["train_loss"]
    assert losses.iloc[-1] < 0.7 * losses.iloc[0]
    model, trained, info = load_member(run)
    assert isinstance(model, SegmentationNet)
    assert isinstance(trained, TrainSettings)
    assert trained.network == "unet"
    assert info["epoch"] >= 1
    with torch.no_grad():
        assert model(torch.zeros(1, 4, 40, 48, dtype=torch.uint8)).shape == (1, 20, 40, 48)


def test_folds_of_stage_1_are_shared_where_asked(stage2, settings):
    first = train(settings(epochs=1, seed=1, folds=4))
    second = train(stage2(epochs=1, folds=4, folds_of=first, out=first.parent / "stage2"))
    folds = [pd.read_csv(run / "folds.csv")[["ID", "fold"]] for run in (first, second)]
    assert folds[0].equals(folds[1])
    with pytest.raises(InputError, match="holds 4 folds; expected 3"):
        train(stage2(epochs=1, folds=3, folds_of=first, out=first.parent / "third"))
