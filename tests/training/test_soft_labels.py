"""Soft labels of cells: which row a cell learns from, and what costs nothing."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs_alike import CutOffError
from torch.nn import functional

from hpa_kit.cells import LabelMaps, write_label_maps
from hpa_kit.data import write_cell_scores
from hpa_kit.errors import InputError
from hpa_kit.training import Trainer, read_checkpoint, train
from hpa_kit.training.data import Batch, load_training_data
from hpa_kit.training.objectives.soft_labels import SoftLabels

IDS = [f"00{number}e1" for number in range(13)]
CPU = torch.device("cpu")
NEGATIVE = 18


def cells_of(number):
    """Two cells side by side, 40 x 48; field 3 has three, field 12 none."""
    cells = np.zeros((40, 48), np.int32)
    if number != 12:
        cells[4:36, 2:23], cells[4:36, 25:46] = 1, 2
    if number == 3:
        cells[20:36, 25:46] = 3
    return cells


def value_of(number, cell):
    """A probability by which every cell is known."""
    return (number * 4 + cell) / 64


@pytest.fixture(scope="session")
def make_labels(tmp_path_factory):
    """Writes labels of the tiny competition's cells: of class 0 in fields of odd number, else of class 7."""

    def make(labels="soft", ids=IDS, factor=1.0, seen=(), label_round=None):
        folder = tmp_path_factory.mktemp("pseudo") / "labels"
        rows = []
        for number, id in enumerate(IDS):
            cells = cells_of(number)
            write_label_maps(folder / "masks" / f"{id}.npz", LabelMaps(cells, cells))
            scores = np.zeros((cells.max(), 19))
            for cell in range(len(scores)):
                scores[cell, 0 if number % 2 else 7] = factor * value_of(number, cell + 1)
            scores[:, NEGATIVE] = 0.7
            if id in ids:
                rows.append((id, scores))
        write_cell_scores(folder / "cell_scores.csv", rows)
        listed = [f"{id},{len(scores)},{int(id not in seen)}" for id, scores in rows]
        (folder / "fields.csv").write_text("\n".join(["ID,cells,unseen", *listed]) + "\n")
        (folder / "settings.yaml").write_text(f"labels: {labels}\nmasks: null\n")
        if label_round is not None:
            (folder / "label_round.txt").write_text(f"{label_round}\n")
        return folder

    return make


@pytest.fixture
def of_labels(settings, make_labels):
    """Settings of a run that learns from cells' labels."""
    return lambda folder=None, **changes: settings(pseudo_labels=folder or make_labels(), **changes)


def soft_loss(soft, maps, cells, numbers):
    batch = Batch(torch.empty(0), torch.empty(0), torch.tensor(numbers), cells)
    return soft(SimpleNamespace(batch=batch, heads=SimpleNamespace(maps=maps)))["soft"]


def logit(p):
    return float(torch.tensor(p).logit())


def drawn(cells, rows):
    """Maps (1, 19, H, W) in which every cell has these logits (n, 19), and what is in none has 0."""
    table = torch.cat([torch.zeros(1, 19), torch.as_tensor(rows, dtype=torch.float32)])
    return table[cells].permute(0, 3, 1, 2).contiguous()


def test_a_cell_learns_the_row_of_its_own_field_and_number(of_labels):
    soft = SoftLabels.of(of_labels(), IDS, CPU)
    targets = soft.targets(torch.tensor([3, 0]), 3)
    assert targets[0, :, 0].tolist() == pytest.approx([value_of(3, cell) for cell in (1, 2, 3)])
    assert targets[1, :2, 7].tolist() == pytest.approx([value_of(0, cell) for cell in (1, 2)])


def test_fields_are_counted_as_the_batches_count_them(of_labels):
    made = of_labels(batch=4)
    soft = SoftLabels.of(made, load_training_data(made, CPU).folds["ID"].tolist(), CPU)
    for batch in load_training_data(made, CPU).train.epoch(1):
        for place, number in enumerate(batch.numbers.tolist()):
            n = len(np.unique(cells_of(number))) - 1
            found = soft.targets(batch.numbers, 3)[place, :n, 0 if number % 2 else 7]
            assert found.tolist() == pytest.approx([value_of(number, cell + 1) for cell in range(n)])


def test_augmentation_keeps_the_cells_numbers(of_labels):
    """A field is turned and flipped with its label map, so that its right cell stays cell 2."""
    data = load_training_data(of_labels(augmentation=1, batch=12), CPU)
    dataset = data.train._loader.dataset
    marked = np.zeros((32, 32), bool)
    marked[:, 16:] = True
    dataset.store._memory[:, :, 16:] = 255
    dataset.store._memory[:, :, :16] = 0
    turned = 0
    for epoch in (1, 2):
        for batch in data.train.epoch(epoch):
            bright = (batch.fields == 255).all(dim=1)
            assert batch.cells is not None
            assert not (batch.cells[bright] == 1).any()
            assert not (batch.cells[~bright] == 2).any()
            turned += int((bright != torch.from_numpy(marked)).flatten(1).any(dim=1).sum())
    assert turned


def test_the_loss_is_the_cross_entropy_of_cell_logits_averaged_over_cells():
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(5, 19, generator=generator)
    logits = torch.randn(5, 19, generator=generator)
    soft = SoftLabels(rows, torch.tensor([0, 2, 5]))
    cells = torch.stack([torch.from_numpy(cells_of(number)).long() for number in (0, 3)])
    maps = torch.cat([drawn(cells[:1], logits[:2]), drawn(cells[1:], logits[2:])])
    expected = functional.binary_cross_entropy_with_logits(
        logits[:, :NEGATIVE], rows[:, :NEGATIVE], reduction="none"
    )
    torch.testing.assert_close(soft_loss(soft, maps, cells, [0, 1]), expected.sum(dim=1).mean())


def test_cells_that_a_crop_left_out_cost_nothing():
    rows = torch.full((2, 19), 0.5)
    soft = SoftLabels(rows, torch.tensor([0, 2]))
    cells = torch.from_numpy(cells_of(0)).long()[None]
    without = torch.where(cells == 2, 0, cells)
    alone = SoftLabels(rows[:1], torch.tensor([0, 1]))
    logits = torch.randn(2, 19, generator=torch.Generator().manual_seed(1))
    maps = drawn(cells, logits).requires_grad_()
    loss = soft_loss(soft, maps, without, [0])
    torch.testing.assert_close(loss, soft_loss(alone, maps, without, [0]))
    (gradient,) = torch.autograd.grad(loss, maps)
    assert gradient[0][:, cells[0] == 1].any()
    assert not gradient[0][:, cells[0] != 1].any()
    none = soft_loss(soft, maps, torch.zeros_like(cells), [0])
    assert none == 0
    assert not torch.autograd.grad(none, maps)[0].any()


def test_negative_is_what_the_others_leave_and_is_not_learnt():
    soft = SoftLabels(torch.rand(2, 19, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 2]))
    cells = torch.from_numpy(cells_of(0)).long()[None]
    maps = torch.zeros(1, 19, 40, 48, requires_grad=True)
    (gradient,) = torch.autograd.grad(soft_loss(soft, maps, cells, [0]), maps)
    assert gradient[:, :NEGATIVE].any()
    assert not gradient[:, NEGATIVE].any()


def test_a_classifier_does_not_learn_from_hard_labels(of_labels, make_labels):
    with pytest.raises(InputError, match=r"holds hard labels, from which network cam cannot learn; expected"):
        train(of_labels(make_labels("hard")))
    assert not of_labels().out.exists()


def test_fields_without_labels_are_said_and_labels_of_other_fields_are_refused(of_labels, make_labels):
    with pytest.warns(UserWarning, match=f"1 of 13 fields have no pseudo labels in .*, such as ID {IDS[4]}"):
        SoftLabels.of(of_labels(make_labels(ids=[*IDS[:4], *IDS[5:]])), IDS, CPU)
    with pytest.raises(InputError, match="labels of none of the 2 fields"):
        SoftLabels.of(of_labels(), ["other", "another"], CPU)


def test_fields_that_their_labellers_had_learnt_from_are_said(of_labels, make_labels, caplog):
    SoftLabels.of(of_labels(), IDS, CPU)
    assert not caplog.text
    SoftLabels.of(of_labels(make_labels(seen=IDS[:4])), IDS, CPU)
    assert "4 of 13 fields were labelled by members that had seen them" in caplog.text


def test_a_classifier_comes_to_say_what_its_cells_labels_say(of_labels, make_labels):
    run = train(of_labels(make_labels(), epochs=2))
    metrics = (run / "metrics.csv").read_text().splitlines()
    columns = metrics[0].split(",")
    first, last = (float(row.split(",")[columns.index("train_soft")]) for row in metrics[1:3])
    assert last < first


def test_a_run_does_not_go_on_with_other_labels_of_the_same_cells(of_labels, make_labels):
    labels = make_labels()
    made = of_labels(labels, epochs=2, time_limit=1e-9)
    train(made)
    rows = (labels / "cell_scores.csv").read_text()
    (labels / "cell_scores.csv").write_text(rows.replace("0.7", "0.6"))
    with pytest.raises(InputError, match="another content of pseudo_labels"):
        train(made)
    (labels / "cell_scores.csv").write_text(rows)
    train(made)


# Label rounds.


def label_round(run):
    return read_checkpoint(run / "best.safetensors", only=()).settings["label_round"]


def test_a_run_keeps_the_round_of_its_labels(settings, of_labels, make_labels, tmp_path):
    image = train(settings(epochs=1, out=tmp_path / "image"))
    assert label_round(image) == 0
    assert "label_round: 0" in (image / "settings.yaml").read_text()
    assert label_round(train(of_labels(make_labels(label_round=3), epochs=1, out=tmp_path / "third"))) == 3
    assert label_round(train(of_labels(epochs=1, out=tmp_path / "of an older folder"))) == 1


def test_a_round_that_is_another_than_the_labels_is_refused(settings, of_labels, make_labels):
    with pytest.raises(InputError, match=r"label_round is 1, but without pseudo_labels a run is of round 0"):
        train(settings(label_round=1))
    labels = make_labels(label_round=2)
    with pytest.raises(InputError, match=rf"label_round is 1, but {labels} is of round 2; leave it out"):
        train(of_labels(labels, label_round=1))
    train(of_labels(labels, label_round=2, epochs=1))
    (labels / "label_round.txt").write_text("two\n")
    with pytest.raises(InputError, match=r"label_round.txt holds 'two'; expected a number from 1 on"):
        train(of_labels(labels))


def test_runs_of_versions_that_kept_no_round_go_on(settings, monkeypatch, tmp_path):
    made = settings(epochs=2, time_limit=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr("hpa_kit.training.trainer.with_label_round", lambda settings: settings)
        run = train(made)
        assert read_checkpoint(run / "last.safetensors", only=()).settings["label_round"] is None
    train(made)
    assert read_checkpoint(run / "last.safetensors", only=()).settings["label_round"] == 0


def test_a_finished_run_needs_no_labels_any_more(of_labels, make_labels, tmp_path):
    labels = make_labels(label_round=2)
    made = of_labels(labels, epochs=1)
    run = train(made)
    labels.rename(tmp_path / "labels")
    assert train(made) == run
    assert label_round(run) == 2


def cut_off_in_the_second_epoch(trainer):
    if trainer.state.epoch == 1:
        raise CutOffError
    return True


def test_a_run_that_is_killed_goes_on_to_the_same_round(of_labels, make_labels, monkeypatch):
    made = of_labels(make_labels(label_round=2), epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "after_update", cut_off_in_the_second_epoch)
        with pytest.raises(CutOffError):
            train(made)
    run = made.out
    assert read_checkpoint(run / "last.safetensors", only=("epoch",)).state["epoch"] == 1
    train(made)
    assert label_round(run) == 2


def test_the_fields_behind_labels_are_not_counted_as_learnt_from_and_that_is_said(
    settings, of_labels, make_labels, caplog, tmp_path
):
    from hpa_kit.training.learnt_fields import out_of_fold_members

    first = train(settings(epochs=1, out=tmp_path / "first", fold=0))
    second = train(of_labels(epochs=1, out=tmp_path / "second", fold=1))
    with caplog.at_level(logging.INFO):
        found = out_of_fold_members(IDS, [first], "tune")
    assert "is not counted" not in caplog.text
    with caplog.at_level(logging.INFO):
        found = out_of_fold_members(IDS, [first, second], "tune")
    assert (
        "tune: 1 of 2 members learnt labels that earlier members gave; what those had learnt" in caplog.text
    )
    assert {(0,), (1,), ()} == set(found.values())
