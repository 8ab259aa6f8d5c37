"""Pictures for the notebooks."""

import numpy as np
import pytest
import torch

from hpa_kit.config import InferSettings, TrainSettings
from hpa_kit.report.notebook import GrowingCams, augmented_batch, first_look, over_protein, top_cells
from hpa_kit.training import train
from hpa_kit.training.checkpoint import BEST, write_checkpoint
from hpa_kit.training.member import build_network

FIELD = np.full((4, 40, 60), 7, np.uint8)


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    from hpa_kit.config import SimulateSettings
    from hpa_kit.data.simulate import simulate

    data = tmp_path_factory.mktemp("training") / "data"
    simulate(SimulateSettings(out=data, train=4, test=2, size=64, classes=(0, 7), seed=1, workers=1))
    return TrainSettings(
        data=data, out=data.parent / "run", backbone="resnet10t", stride=16, size=64, epochs=2, folds=2,
        workers=0, device="cpu",
    )  # fmt: skip


def test_a_batch_is_shown_as_it_is_and_as_the_network_gets_it(training):
    sheet = augmented_batch(training, fields=3, side=64)
    above, below = sheet[-128:-64], sheet[-64:]
    assert sheet.shape[1] == 3 * 64
    assert (above != below).any()
    same = augmented_batch(training.model_copy(update={"augmentation": 0}), fields=3, side=64)
    assert (same[-128:-64] == same[-64:]).all()


def test_cams_are_drawn_after_every_epoch_without_a_change_to_the_run(training, tmp_path):
    cams = GrowingCams(training, fields=2, side=400)
    empty = cams.picture()
    watched = train(training.model_copy(update={"out": tmp_path / "watched"}), after_epoch=cams)
    alone = train(training.model_copy(update={"out": tmp_path / "alone"}))
    assert cams.picture().shape[0] - empty.shape[0] == 2 * 400
    assert (watched / "metrics.csv").read_text() == (alone / "metrics.csv").read_text()


def test_a_map_is_amber_where_it_is_strong_and_the_protein_where_it_is_not():
    class_map = np.zeros((4, 6), np.float32)
    class_map[:, :2] = 3
    shown = over_protein(FIELD, class_map)
    assert shown.shape == (40, 60, 3)
    assert shown[20, 5].tolist() == [153, 105, 0]
    assert shown[20, 55].tolist() == [0, 0, 0]


def test_top_cells_are_cut_out_highest_first():
    field, cells = np.zeros((4, 40, 60), np.uint8), np.zeros((40, 60), np.int32)
    cells[5:15, 5:15], cells[20:30, 40:50] = 1, 2
    field[2][cells == 1], field[0][cells == 2] = 250, 250
    scores = np.zeros((2, 19))
    scores[0, 7], scores[1, 14] = 0.4, 0.9
    strip = top_cells([field], [cells], [scores], 5, 50)
    assert strip.shape[1] == 100
    red, blue = strip[-25, 25], strip[-25, 75]
    assert red[0] > 100 > red[2]
    assert blue[2] > 100 > blue[0]


def test_a_first_look_shows_cells_before_anything_is_written(training, tmp_path):
    torch.manual_seed(0)
    run, out = tmp_path / "run", tmp_path / "s.csv"
    write_checkpoint(run / BEST, training, {"model": build_network(training).state_dict(), "epoch": 1})
    settings = InferSettings(
        data=training.data, members=(run,), out=out, masks=training.data / "masks", rule="copied", workers=1,
        device="cpu", map_size=64,
    )  # fmt: skip
    sheet = first_look(settings, fields=2, cells=4, side=96)
    assert sheet is not None
    assert sheet.shape[0] > 2 * 96
    assert not out.exists()
    for path in (training.data / "test").glob("*_red.png"):
        path.unlink()
    assert first_look(settings, fields=2) is None
