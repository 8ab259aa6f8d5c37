"""A simulated competition as a folder: its layout, its truth, going on after a kill."""

import hashlib
import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hpa_kit.classes import NEGATIVE, parse_label
from hpa_kit.config import SimulateSettings
from hpa_kit.data import CHANNELS, DataFolder, field_size, find_fields, read_field, read_labels, read_sample
from hpa_kit.data.simulate import folder as writing
from hpa_kit.data.simulate import simulate
from hpa_kit.data.simulate.plan import FieldPlan, plan_fields
from hpa_kit.errors import InputError
from hpa_kit.submission import check_submission, decode_mask, evaluate


def settings(out="unused", **changed):
    return SimulateSettings(**{"out": out, "train": 4, "test": 3, "size": 64, "workers": 1, **changed})


def digests(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def truth_pairs(csv):
    """ID -> list of (class, mask string)."""
    table = pd.read_csv(csv, dtype=str, keep_default_na=False)
    words = {row.ID: row.PredictionString.split() for row in table.itertuples()}
    return {id: list(zip(map(int, w[::2]), w[1::2], strict=True)) for id, w in words.items()}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    root = tmp_path_factory.mktemp("simulated") / "data"
    assert simulate(settings(root, train=10, test=6, seed=2)) == root
    return root


def test_the_folder_is_laid_out_as_the_competitions(simulated):
    data = DataFolder(simulated)
    labels, sample = read_labels(data.labels()), read_sample(data.sample())
    assert sorted(labels.ID) == find_fields(data.images("train"))
    assert sorted(sample.ID) == find_fields(data.images("test"))
    assert len(labels) == 10
    assert len(sample) == 6
    for id in labels.ID:
        assert read_field(data.images("train"), id).shape == (4, 64, 64)
    for row in sample.itertuples():
        assert field_size(data.images("test"), row.ID) == (row.ImageHeight, row.ImageWidth) == (64, 64)


def test_the_channels_are_grey_8_bit_png(simulated):
    id = find_fields(simulated / "train")[0]
    for channel in CHANNELS:
        with Image.open(simulated / "train" / f"{id}_{channel}.png") as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (64, 64))


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path, simulated, monkeypatch):
    monkeypatch.setattr(writing, "_SMALL_WORK", 0)
    two = simulate(settings(tmp_path / "two", train=10, test=6, seed=2, workers=2))
    assert digests(two) == digests(simulated)


@pytest.mark.parametrize(("split", "name"), [("train", "truth_train.csv"), ("test", "truth.csv")])
def test_the_truth_holds_every_cell_of_the_label_maps(simulated, split, name):
    truth = truth_pairs(simulated / name)
    assert sorted(truth) == find_fields(simulated / split)
    for id, pairs in truth.items():
        with np.load(simulated / "masks" / f"{id}.npz") as maps:
            cells, nuclei = maps["cells"], maps["nuclei"]
        assert cells.dtype == nuclei.dtype == np.int32
        masks = list(dict.fromkeys(mask for _, mask in pairs))
        assert len(masks) == cells.max()
        for number, mask in enumerate(masks, start=1):
            assert (decode_mask(mask, *cells.shape) == (cells == number)).all()


def test_an_image_label_is_the_union_of_its_cells_and_negative_only_alone(simulated):
    truth = truth_pairs(simulated / "truth_train.csv")
    for row in read_labels(simulated / "train.csv").itertuples():
        shown = {index for index, _ in truth[row.ID]}
        assert set(parse_label(row.Label)) == (shown - {NEGATIVE} or {NEGATIVE})


def test_fields_are_not_square_on_request(tmp_path):
    root = simulate(settings(tmp_path / "data", train=2, test=2, size=80, square=False))
    for row in read_sample(root / "sample_submission.csv").itertuples():
        assert row.ImageHeight != row.ImageWidth
        assert field_size(root / "test", row.ID) == (row.ImageHeight, row.ImageWidth)
        with np.load(root / "masks" / f"{row.ID}.npz") as maps:
            assert maps["cells"].shape == (row.ImageHeight, row.ImageWidth)
    assert {plan.height > plan.width for plan in plan_fields(settings(train=20, square=False), "train")} == {
        True,
        False,
    }


def test_the_truth_as_a_submission_scores_one(tmp_path, simulated):
    table = pd.read_csv(simulated / "truth.csv", dtype=str, keep_default_na=False)
    pairs = truth_pairs(simulated / "truth.csv")
    table.PredictionString = [" ".join(f"{index} 1 {mask}" for index, mask in pairs[id]) for id in table.ID]
    table.to_csv(tmp_path / "perfect.csv", index=False)
    check_submission(tmp_path / "perfect.csv", simulated / "sample_submission.csv")
    assert evaluate(simulated / "truth.csv", tmp_path / "perfect.csv").mean_ap == pytest.approx(1)


def test_the_sample_is_a_submission_that_finds_nothing(tmp_path, simulated):
    sample = simulated / "sample_submission.csv"
    assert check_submission(sample, sample) == []
    assert evaluate(simulated / "truth.csv", sample).mean_ap == 0


def test_the_sample_says_of_a_large_field_what_the_competitions_says(tmp_path):
    row = writing.Row(FieldPlan("x", "test", 2048, 2048, (6, 9), (1, 0, 0)), "0", "")
    writing._write_tables(tmp_path, [row])
    assert read_sample(tmp_path / "sample_submission.csv").PredictionString[0] == "0 1 eNoLCAgIMAEABJkBdQ=="


def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    whole = digests(simulate(settings(tmp_path / "whole")))
    write, done = writing._write_field, []

    def stop_after_two(job):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        return write(job)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "_write_field", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            simulate(settings(tmp_path / "cut"))
    first = tmp_path / "cut" / "train" / f"{done[0].plan.id}_red.png"
    before = first.stat().st_mtime_ns
    assert digests(simulate(settings(tmp_path / "cut"))) == whole
    assert first.stat().st_mtime_ns == before


def test_a_lost_file_is_written_again(tmp_path):
    root = simulate(settings(tmp_path / "data"))
    before = digests(root)
    next((root / "test").glob("*_blue.png")).unlink()
    (root / "truth.csv").unlink()
    assert digests(simulate(settings(root))) == before


def test_fields_of_an_older_simulator_are_not_kept(tmp_path):
    root = simulate(settings(tmp_path / "data"))
    before = digests(root)
    marker = root / "simulation.yaml"
    marker.write_text(marker.read_text().replace("drawn_by: ", "drawn_by: older"))
    next((root / "test").glob("*_blue.png")).write_bytes(b"of an older simulator")
    assert digests(simulate(settings(root))) == before


def test_fields_drawn_with_another_opencv_or_numpy_are_drawn_again(tmp_path, monkeypatch):
    root = simulate(settings(tmp_path / "data"))
    before = {path: path.stat().st_mtime_ns for path in (root / "test").iterdir()}
    simulate(settings(root))
    assert {path: path.stat().st_mtime_ns for path in (root / "test").iterdir()} == before
    monkeypatch.setattr("cv2.__version__", "another")
    simulate(settings(root))
    after = {path: path.stat().st_mtime_ns for path in (root / "test").iterdir()}
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in before)


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path):
    root = simulate(settings(tmp_path / "data"))
    before = digests(root)
    with pytest.raises(InputError, match=r"was started with seed 0 \(now 1\); give .* or another folder"):
        simulate(settings(root, seed=1))
    assert digests(root) == before


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("ID,Label\nreal,0\n")
    with pytest.raises(InputError, match="holds files but no simulation.yaml"):
        simulate(settings(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]


def test_two_that_begin_at_once_do_not_take_each_other_for_strangers(tmp_path, monkeypatch):
    """Between the two looks of one, at the folder and for the marker in it, the other one does everything."""
    root, exists = tmp_path / "data", Path.exists

    def other_is_quick(path):
        found = exists(path)
        if path.name == "simulation.yaml" and not found:
            with monkeypatch.context() as patch:
                patch.setattr(Path, "exists", exists)
                simulate(settings(root))
        return found

    monkeypatch.setattr(Path, "exists", other_is_quick)
    simulate(settings(root))
    monkeypatch.undo()
    assert digests(root) == digests(simulate(settings(tmp_path / "alone")))


def test_a_stranger_among_the_fields_is_refused(tmp_path):
    root = simulate(settings(tmp_path / "data"))
    (root / "train" / "mine_red.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"mine_red\.png was not written by the simulation"):
        simulate(settings(root))


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    path = Path(tmp_path / "data")
    path.write_text("")
    with pytest.raises(InputError, match="is a file"):
        simulate(settings(path))


def test_a_competition_without_fields_is_tables_with_headers(tmp_path):
    root = simulate(settings(tmp_path / "data", train=0, test=0))
    assert (root / "train.csv").read_text() == "ID,Label\n"
    assert find_fields(root / "test") == []


@pytest.mark.whole_table  # what it prevents shows in tests/cli/test_streams.py, which interrupts two
def test_processes_that_draw_leave_ctrl_c_to_the_one_that_started_them():
    """Each would print where it was, whenever it has started."""
    # As the system has it of the shell's parent, which has so long to do that others start meanwhile.
    ignored = "sed -n 's/^SigIgn:\\s*//p' /proc/$PPID/status; sleep 0.1"
    with writing._mapper(2) as run:
        masks = set(run(subprocess.getoutput, [ignored] * 8))
    assert all(int(mask, 16) >> (signal.SIGINT - 1) & 1 for mask in masks)
