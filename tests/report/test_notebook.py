"""Pictures for the notebooks."""

import base64
import html
import io
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from copied_kit import link_kit
from PIL import Image

import hpa_kit
from hpa_kit.cells import LabelMaps, write_label_maps
from hpa_kit.config import InferSettings, TrainSettings
from hpa_kit.report.notebook import (
    GrowingCams,
    augmented_batch,
    first_look,
    over_protein,
    run_report,
    submission_report,
    top_cells,
    train_on_all,
)
from hpa_kit.report.records import CROP_SIDE
from hpa_kit.submission import read_submission, write_submission
from hpa_kit.training import read_checkpoint, train
from hpa_kit.training.checkpoint import BEST, LAST, write_checkpoint
from hpa_kit.training.member import build_network

FIELD = np.full((4, 40, 60), 7, np.uint8)


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    from hpa_kit.config import SimulateSettings
    from hpa_kit.data.simulate import simulate

    data = tmp_path_factory.mktemp("training") / "data"
    simulate(SimulateSettings(out=data, train=4, test=2, size=64, classes=(0, 7), seed=1, workers=1))
    return TrainSettings(
        data=data, out=data.parent / "run", backbone="test_resnet", stride=16, size=64, epochs=2, folds=2,
        workers=0, device="cpu",
    )  # fmt: skip


def test_a_batch_is_shown_as_it_is_and_as_the_network_gets_it(training):
    sheet = augmented_batch(training, fields=3, side=64)
    above, below = sheet[-128:-64], sheet[-64:]
    assert sheet.shape[1] == 3 * 64
    assert (above != below).any()
    same = augmented_batch(training.model_copy(update={"augmentation": 0}), fields=3, side=64)
    assert (same[-128:-64] == same[-64:]).all()


def test_a_batch_is_shown_of_fields_whose_images_lie_among_the_external_ones(training, tmp_path):
    data = shutil.copytree(training.data, tmp_path / "data")
    (data / "train").rename(tmp_path / "extra")
    (data / "train").mkdir()
    elsewhere = training.model_copy(update={"data": data, "external_images": tmp_path / "extra"})
    assert np.array_equal(augmented_batch(elsewhere, 3, 64), augmented_batch(training, 3, 64))


def test_cams_are_drawn_after_every_epoch_without_a_change_to_the_run(training, tmp_path):
    cams = GrowingCams(training, fields=2, side=400)
    empty = cams.picture()
    watched = train(training.model_copy(update={"out": tmp_path / "watched"}), after_epoch=cams)
    alone = train(training.model_copy(update={"out": tmp_path / "alone"}))
    assert cams.picture().shape[0] - empty.shape[0] == 2 * 400
    assert (watched / "metrics.csv").read_text() == (alone / "metrics.csv").read_text()


def test_two_processes_train_as_the_notebook_starts_them_and_the_first_leaves_the_maps(
    training, tmp_path, monkeypatch, capsys, warm_python
):
    """From a kit that is on no path but this process's own."""
    copy = link_kit(tmp_path / "kit" / "hpa_kit")
    with (copy / "__init__.py").open("a") as file:
        file.write("\nprint('from', __file__)\n")
    monkeypatch.setattr(hpa_kit, "__file__", str(copy / "__init__.py"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("hpa_kit.together.subprocess.Popen", warm_python.start)
    quick = training.model_copy(update={"size": 32, "epochs": 1, "out": tmp_path / "two"})
    two = train_on_all(quick, processes=2)
    heard = capsys.readouterr().out
    assert heard.count(f"from {copy / '__init__.py'}\n") == 2
    assert "epoch 1/1: 1 of 1 step" in heard
    assert len(read_checkpoint(two / LAST).state["processes"]) == 2
    assert (two / "metrics.csv").read_text().count("\n") == 2
    one = train_on_all(quick.model_copy(update={"out": tmp_path / "one"}))
    assert len(read_checkpoint(one / LAST).state["processes"]) == 1
    pictures = [cv2.imread(str(run / "growing.png")) for run in (one, two)]
    fields, maps = -2 * 160, -160  # rows from below
    assert np.array_equal(pictures[0][fields:maps], pictures[1][fields:maps])
    assert pictures[0].shape == pictures[1].shape
    assert all((picture[maps:] != picture[fields:maps]).any() for picture in pictures)


def test_maps_that_have_grown_come_along_where_a_run_goes_on_elsewhere(training, tmp_path):
    one = train_on_all(training.model_copy(update={"size": 32, "epochs": 1, "out": tmp_path / "one"}))
    further = {"size": 32, "epochs": 1, "out": tmp_path / "two", "resume_from": one}
    two = train_on_all(training.model_copy(update=further))
    assert (two / "growing.png").read_bytes() == (one / "growing.png").read_bytes()


def test_a_map_is_amber_where_it_is_strong_and_the_protein_where_it_is_not():
    class_map = np.zeros((4, 6), np.float32)
    class_map[:, :2] = 3
    shown = over_protein(FIELD, class_map)
    assert shown.shape == (40, 60, 3)
    assert shown[20, 5].tolist() == [153, 105, 0]
    assert shown[20, 55].tolist() == [0, 0, 0]


def test_top_cells_are_cut_out_highest_first_and_negative_ones_last():
    field, cells = np.zeros((4, 40, 60), np.uint8), np.zeros((40, 60), np.int32)
    cells[5:15, 5:15], cells[20:30, 40:50] = 1, 2
    field[2][cells == 1], field[0][cells == 2] = 250, 250
    scores = np.zeros((2, 19))
    scores[0, 7], scores[1, 14] = 0.4, 0.9
    scores[:, 18] = 0.99
    assert top_cells([field], [cells], [scores], 5, 50).shape[1] == 200
    strip = top_cells([field], [cells], [scores], 2, 50)
    assert strip.shape[1] == 100
    red, blue = strip[-25, 25], strip[-25, 75]
    assert red[0] > 100 > red[2]
    assert blue[2] > 100 > blue[0]


def test_a_run_is_shown_in_a_frame_whether_it_has_maps_a_checkpoint_or_neither(training, tmp_path):
    run = training.model_copy(update={"out": tmp_path / "run"})
    run.out.mkdir()
    (run.out / "metrics.csv").write_text("epoch,train_loss\n1,2.0\n")
    bare = run_report(run)
    assert bare.path == run.out / "report.html"
    assert '"fields":[]' in bare.path.read_text()
    write_checkpoint(run.out / BEST, run, {"model": build_network(run).state_dict(), "epoch": 1})
    assert '"fields":[]' in run_report(run.model_copy(update={"network": "arcface"})).path.read_text()
    shown = run_report(run, fields=1)
    assert shown.path.read_text().count('"id":') == 1
    frame = shown._repr_html_()
    assert frame.count("'") == 6  # a page with one of its own would end the frame
    assert html.unescape(frame.split("srcdoc='")[1].split("'")[0]) == shown.path.read_text()


def test_a_run_that_was_stopped_before_its_first_epoch_shows_that_nothing_is_there_yet(training, tmp_path):
    run = training.model_copy(update={"out": tmp_path / "stopped", "time_limit": 1e-9})
    train(run)
    assert (run.out / LAST).is_file() and not (run.out / BEST).is_file()
    assert '"fields":[]' in run_report(run).path.read_text()


def test_a_submission_is_shown_with_the_maps_of_its_members(training, tmp_path):
    write_checkpoint(
        tmp_path / "run" / BEST, training, {"model": build_network(training).state_dict(), "epoch": 1}
    )
    settings = InferSettings(
        data=training.data, members=(tmp_path / "run",), out=tmp_path / "s.csv", workers=0, device="cpu"
    )
    id = read_submission(training.data / "sample_submission.csv")["ID"][0]
    write_submission(tmp_path / "s.csv", [(id, 64, 64, "")])
    page = submission_report(settings, tmp_path / "s.csv").path.read_text()
    assert (tmp_path / "report.html").read_text() == page
    assert '"maps":true' in page


def test_crops_beside_a_submission_are_of_the_cells_that_it_has(training, crop_member, tmp_path):
    settings = InferSettings(
        data=training.data, members=(crop_member,), masks=tmp_path / "masks", out=tmp_path / "s.csv",
        workers=1, device="cpu",
    )  # fmt: skip
    id = read_submission(training.data / "sample_submission.csv")["ID"][0]
    write_submission(settings.out, [(id, 64, 64, "")])
    cells = np.zeros((64, 64), np.int32)
    cells[8:30, 8:30], cells[40:60, 40:60] = 1, 2
    write_label_maps(settings.masks / f"{id}.npz", LabelMaps(cells, cells))
    page = submission_report(settings, settings.out).path.read_text()
    picture = re.search(r'"crops":"(.+?)"', page)[1]
    assert Image.open(io.BytesIO(base64.b64decode(picture))).width == 2 * CROP_SIDE


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
