"""Where a run's fields come from, how often each is drawn, and what happens when one cannot be read."""

import multiprocessing
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from hpa_kit.classes import multi_hot, parse_label
from hpa_kit.data import FieldStore, read_labels
from hpa_kit.errors import InputError
from hpa_kit.training import run_folds, train
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.data import EpochBatches, FieldDataset, Loader, balanced_weights, load_training_data
from hpa_kit.training.run_folder import open_run

CPU = torch.device("cpu")


def drawn(batches, epoch=1):
    batches.epoch = epoch
    return [draw for draws in batches for draw in draws]


@pytest.fixture
def own_competition(competition, tmp_path):
    return shutil.copytree(competition, tmp_path / "own")


@pytest.fixture
def external(tmp_path):
    """Six external fields, two of them of a cell line that the competition has not."""
    folder = tmp_path / "extra"
    folder.mkdir()
    rows = ["ID,Label_idx,Cellline,isin_dataset,is_non_rare,file_ext,dir"]
    for number in range(6):
        rows.append(f"e{number},7,{'MCF7' if number < 2 else 'HeLa'},True,Rare,png,extra")
        for channel in ("red", "green", "blue", "yellow"):
            cv2.imwrite(str(folder / f"e{number}_{channel}.png"), np.full((40, 40), 50 + number, np.uint8))
    (tmp_path / "external.csv").write_text("\n".join(rows) + "\n")
    return {"external": tmp_path / "external.csv", "external_images": folder}


def test_other_cell_lines_are_learnt_in_every_fold_and_never_validated(settings, external, tmp_path):
    seen = []
    for fold in range(4):
        data = load_training_data(settings(out=tmp_path / f"run{fold}", fold=fold, **external), CPU)
        learnt = {data.folds["ID"][draw.number] for draw in drawn(data.train.batches)}
        held_out = {data.folds["ID"][draw.number] for draw in drawn(data.validation.batches)}
        assert {"e0", "e1"} <= learnt and not learnt & held_out and len(learnt | held_out) == 19
        seen += sorted(held_out)
    assert len(seen) == 17 and {"e2", "e3", "e4", "e5"} <= set(seen)
    folds = pd.read_csv(tmp_path / "run0" / "folds.csv", index_col="ID")["fold"]
    assert folds["e0"] == folds["e1"] == -1 and folds.drop(["e0", "e1"]).min() == 0


def test_the_folds_that_are_told_are_those_that_a_run_then_has_and_telling_writes_nothing(
    settings, external, tmp_path
):
    def told_and_had(**changes):
        made = settings(**changes)
        before = {path: path.read_bytes() for path in made.out.glob("*")}
        told = run_folds(made)
        assert {path: path.read_bytes() for path in made.out.glob("*")} == before
        assert open_run(made) is None
        had = load_training_data(made, CPU).folds
        assert told.equals(had)
        assert pd.read_csv(made.out / "folds.csv", dtype={"ID": str, "Label": str}).equals(had)
        return had.set_index("ID")["fold"]

    new = told_and_had(out=tmp_path / "new")
    other = told_and_had(out=tmp_path / "other", seed=7)
    assert not other.equals(new)
    assert told_and_had(out=tmp_path / "shared", folds_of=tmp_path / "other").equals(other)
    more = told_and_had(out=tmp_path / "more", **external)
    assert more["e0"] == more["e1"] == -1 and more[new.index].equals(new)
    both = told_and_had(out=tmp_path / "both", folds_of=tmp_path / "more", seed=7, **external)
    assert both.equals(more)
    # The run's own stay, unless a start that came to nothing made them for other settings.
    assert told_and_had(out=tmp_path / "other", seed=7).equals(other)
    assert told_and_had(out=tmp_path / "other").equals(new)
    assert told_and_had(out=tmp_path / "other", **external).equals(more)
    (tmp_path / "own").mkdir()
    shutil.copy(tmp_path / "new" / "folds.csv", tmp_path / "own")
    assert told_and_had(out=tmp_path / "own", folds_of=tmp_path / "other", seed=7).equals(new)


def test_folds_that_a_run_cannot_have_are_refused_when_it_is_asked_and_none_are_stored(settings, tmp_path):
    load_training_data(settings(out=tmp_path / "one"), CPU)
    made = settings(folds_of=tmp_path / "one", folds=3)
    for act in (run_folds, train):
        with pytest.raises(InputError, match=r"one/folds\.csv holds 4 folds; expected 3"):
            act(made)
    assert not (made.out / "folds.csv").exists()


def test_a_run_with_external_fields_and_a_store_learns_as_one_without_a_store(settings, external, tmp_path):
    plain = train(settings(out=tmp_path / "plain", epochs=1, **external))
    kept = settings(out=tmp_path / "kept", epochs=1, store=tmp_path / "store", cache=False, **external)
    assert (train(kept) / "metrics.csv").read_text() == (plain / "metrics.csv").read_text()
    assert len(list((tmp_path / "store" / "32").iterdir())) == 19


def test_three_channels_are_trained_without_yellow(settings, own_competition):
    for path in (own_competition / "train").glob("*_yellow.png"):
        path.unlink()
    train(settings(data=own_competition, in_channels=3, epochs=1))


def test_all_damaged_fields_are_named_before_the_first_step(settings, own_competition):
    for id in ("001e1", "005e1"):
        (own_competition / "train" / f"{id}_blue.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    made = settings(data=own_competition)
    with pytest.raises(InputError, match="2 of 13 fields cannot be read: ID 001e1, 005e1;"):
        train(made)
    with pytest.raises(InputError, match="2 of 13 fields cannot be read: ID 001e1, 005e1;"):
        train(settings(data=own_competition, store=own_competition / "store", cache=False))
    assert not (made.out / "metrics.csv").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_field_that_becomes_unreadable_is_one_line_with_its_name(own_competition, workers):
    fields = FieldStore(own_competition / "train", ["000e1"], 32, cache=False)
    dataset = FieldDataset(fields, np.zeros((1, 19), np.float32), Augmentation(0))
    loader = Loader(dataset, EpochBatches(np.arange(1), 1, None), workers, CPU)
    (own_competition / "train" / "000e1_green.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        list(loader.epoch(1))
    assert str(caught.value).startswith("fields: ") and "green of ID 000e1" in str(caught.value)
    assert "\n" not in str(caught.value)
    for reader in multiprocessing.active_children():
        reader.terminate()  # for which torch would wait five seconds


def real_targets(real):
    return multi_hot(parse_label(label) for label in read_labels(real / "tables" / "train.csv")["Label"])


def test_on_the_real_labels_rare_classes_come_more_often_down_to_the_clip(real):
    targets = real_targets(real)
    counts = targets.sum(axis=0)
    assert (counts[0], counts[8], counts[11], counts[18]) == (8797, 964, 78, 34)
    weights = balanced_weights(targets, 964)
    assert weights.min() > 0 and weights.sum() == pytest.approx(1)
    times = len(targets) * weights @ targets / counts  # how often a field of each class comes per epoch
    assert times[0] < 1 and times[[11, 15, 18]].min() > 1.5
    lone = {label: weights[(targets == multi_hot([[label]])).all(axis=1)] for label in (0, 8, 11, 18)}
    assert len(np.unique(lone[0])) == 1
    assert lone[8][0] / lone[0][0] == pytest.approx(8797 / 964)
    assert lone[11][0] == lone[18][0] == lone[8][0]
    unclipped = balanced_weights(targets, 1)
    assert unclipped[targets[:, 18] > 0].max() / unclipped[targets[:, 0] > 0].min() == pytest.approx(
        8797 / 34
    )


def test_a_field_weighs_as_its_rarest_class():
    targets = multi_hot([[0], [0], [0], [0], [0, 5], [5, 7]])
    assert balanced_weights(targets, 1) == pytest.approx(np.array([2, 2, 2, 2, 5, 10]) / 23)
    assert balanced_weights(targets, 2) == pytest.approx(np.array([2, 2, 2, 2, 5, 5]) / 18)
    assert balanced_weights(targets, 100) == pytest.approx(np.full(6, 1 / 6))


def test_draws_follow_the_weights_with_replacement():
    weights = np.array([1, 1, 2, 4.0])
    batches = EpochBatches(np.arange(4).repeat(1000), 8, 0, weights=weights.repeat(1000))
    counts = np.bincount([draw.number for draw in drawn(batches)])
    assert counts.sum() == 4000
    assert counts == pytest.approx(weights * 500, rel=0.15)


def test_balanced_draws_hang_on_seed_and_epoch_and_a_repeated_field_is_changed_anew():
    def epoch(seed, number, **share):
        return drawn(EpochBatches(np.arange(30), 4, seed, weights=np.full(30, 1 / 30), **share), number)

    assert epoch(1, 5) == epoch(1, 5)
    assert epoch(1, 5) != epoch(1, 6) and epoch(1, 5) != epoch(2, 5)
    draws = epoch(1, 5)
    assert len({draw.number for draw in draws}) < 30 == len({draw.seed for draw in draws})
    shares = [epoch(1, 5, rank=rank, world=2) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == sorted(draws)


@pytest.mark.parametrize("sampling", ["plain", "balanced"])
def test_any_number_of_workers_gives_the_same_epochs(settings, tmp_path, sampling):
    def read(workers):
        made = settings(
            out=tmp_path / f"{workers}", workers=workers, cache=False, sampling=sampling, sampling_clip=1
        )
        data = load_training_data(made, CPU)
        return [batch for epoch in (1, 2) for batch in data.train.epoch(epoch)]

    here, there = read(0), read(2)
    assert len(here) == len(there) > 2
    for one, other in zip(here, there, strict=True):
        assert all(map(torch.equal, one[:3], other[:3]))


def test_balanced_sampling_shows_the_rare_class_more_often(settings, own_competition, tmp_path):
    table = pd.read_csv(own_competition / "train.csv", dtype=str)
    table["Label"] = ["0"] * 10 + ["5"] * 3
    table.to_csv(own_competition / "train.csv", index=False)

    def share(**changes):
        made = settings(data=own_competition, out=tmp_path / f"{len(changes)}", fold=0, folds=3, **changes)
        data = load_training_data(made, CPU)
        targets = [data.folds["Label"][d.number] for e in range(200) for d in drawn(data.train.batches, e)]
        return targets.count("5") / len(targets)

    assert share(sampling="balanced", sampling_clip=1) == pytest.approx(0.47, abs=0.05)
    assert share() == pytest.approx(0.22, abs=0.05)


def test_workers_use_one_thread_each():
    class Threads(torch.utils.data.Dataset):
        def __getitem__(self, _):
            threads = np.full(19, 100 * torch.get_num_threads() + cv2.getNumThreads(), np.float32)
            return np.zeros((2, 2, 4), np.uint8), threads, 0

    batch = next(iter(Loader(Threads(), EpochBatches(np.arange(1), 1, None), 1, CPU).epoch(0)))
    assert batch.targets[0, 0] == 101
