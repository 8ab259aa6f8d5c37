"""Any folder of fields in, a table with a row per cell out."""

import logging

import cv2
import numpy as np
import pandas as pd
import pytest

from hpa_kit.cells import read_label_maps
from hpa_kit.cells.regions import cell_geometry
from hpa_kit.classes import CLASSES
from hpa_kit.cli import main
from hpa_kit.config import PredictSettings, make_settings, write_ensemble
from hpa_kit.data import CHANNELS, read_field
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble, predict
from hpa_kit.inference.predict_cells import COLUMNS

NAMES = [location.name for location in CLASSES]


@pytest.fixture
def folder(tmp_path):
    """A folder of fields as a microscope may leave it: formats, depths and sizes as they come."""
    images = tmp_path / "my fields"
    images.mkdir()
    y, x = np.mgrid[:160, :200]
    disc = np.hypot(y - 80, x - 70) < 25
    at_edge = np.hypot(y - 80, x - 190) < 25
    plane = np.where(disc | at_edge, 200, 5).astype(np.uint8)
    for id, ending, scale in (("00123", "png", 1), ("b", "tif", 256), ("c", "jpg", 1), ("d é", "png", 256)):
        for channel in CHANNELS:
            image = plane.astype(np.uint16) * scale if scale > 1 else plane
            cv2.imwrite(str(images / f"{id}_{channel}.{ending}"), image)
    return images


def settings(folder, member, **changes) -> PredictSettings:
    values = {
        "data": folder,
        "members": (member,),
        "out": folder.parent / "out" / "cells.csv",
        "views": "none",
        "map_size": 64,
        "rule": "mean_logit",
        "batch": 2,
        "device": "cpu",
    } | changes
    return make_settings(PredictSettings, values)


def read(path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"ID": str})


def test_every_cell_of_any_folder_gets_a_row(folder, member) -> None:
    out = predict(settings(folder, member))
    table = read(out)
    assert tuple(table.columns) == COLUMNS
    assert list(table.columns[-19:]) == NAMES
    assert sorted(set(table["ID"])) == ["00123", "b", "c", "d é"]
    label_maps = out.parent / "cells_label_maps"
    for id, rows in table.groupby("ID"):
        cells = read_label_maps(label_maps, id, read_field(folder, id)).cells
        assert cells.shape == (160, 200)
        assert rows["cell"].tolist() == list(range(1, cells.max() + 1))
        for row in rows.itertuples():
            ys, xs = np.nonzero(cells == row.cell)
            assert row.area == len(ys)
            assert row.centroid_y == pytest.approx(ys.mean(), abs=0.01)
            assert row.centroid_x == pytest.approx(xs.mean(), abs=0.01)
            box = (row.box_top, row.box_left, row.box_bottom, row.box_right)
            assert box == (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1)
    scores = table[NAMES].to_numpy()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.any(axis=1).all()


def test_a_cell_at_the_border_is_said_to_be_cut(folder, member) -> None:
    table = read(predict(settings(folder, member)))
    one = table[table["ID"] == "00123"]
    assert one["cut_by_border"].tolist() == (one["box_right"] == 200).tolist()
    assert set(one["cut_by_border"]) == {True, False}


def test_a_field_that_cannot_be_read_has_no_rows_and_is_said(folder, member, caplog) -> None:
    (folder / "b_red.tif").write_bytes(b"II*\0")
    (folder / "notes.txt").write_text("not a field")
    with caplog.at_level(logging.WARNING):
        table = read(predict(settings(folder, member)))
    assert set(table["ID"]) == {"00123", "c", "d é"}
    assert "1 of 4 fields could not be used" in caplog.text


def test_a_field_without_cells_has_no_rows(folder, member) -> None:
    for channel in CHANNELS:
        cv2.imwrite(str(folder / f"dark_{channel}.png"), np.zeros((70, 90), np.uint8))
    out = predict(settings(folder, member))
    assert "dark" not in set(read(out)["ID"])
    assert (out.parent / "cells_label_maps" / "dark.npz").exists()


def stop_at_the_second_batch(monkeypatch):
    """Interrupt the members once; gives the sizes of the batches that they are asked for from now on."""
    look, calls = Ensemble.predict, []

    def stopped(self, inputs):
        calls.append(len(inputs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return look(self, inputs)

    monkeypatch.setattr(Ensemble, "predict", stopped)
    return calls


def test_predict_goes_on_where_it_was(folder, member, monkeypatch) -> None:
    expected = predict(settings(folder, member)).read_bytes()
    calls = stop_at_the_second_batch(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        predict(settings(folder, member))
    assert set(read(settings(folder, member).out)["ID"]) == {"00123"}
    assert predict(settings(folder, member)).read_bytes() == expected
    assert calls == [1, 2, 2, 1]


def test_label_maps_that_are_gone_are_made_again(folder, member, monkeypatch) -> None:
    chosen = settings(folder, member, label_maps=folder.parent / "maps")
    calls = stop_at_the_second_batch(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        predict(chosen)
    (folder.parent / "maps" / "00123.npz").unlink()
    predict(chosen)
    assert (folder.parent / "maps" / "00123.npz").exists()
    assert calls == [1, 2, 1, 2, 1]


def test_kept_label_maps_are_used_and_left_as_they_are(folder, member) -> None:
    first = predict(settings(folder, member))
    maps = first.parent / "cells_label_maps"
    before = {path.name: path.read_bytes() for path in maps.iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in maps.iterdir()}
    again = predict(settings(folder, member, masks=maps))
    assert again.read_bytes() == first.read_bytes()
    assert {path.name: path.read_bytes() for path in maps.iterdir()} == before
    assert {path.name: path.stat().st_mtime_ns for path in maps.iterdir()} == times


def test_cells_of_other_tools_are_numbered_in_the_table_as_in_the_label_maps_beside_it(
    folder, member, caplog
) -> None:
    maps = folder.parent / "maps"
    maps.mkdir()
    mask = np.zeros((160, 200), np.uint8)
    mask[20:60, 20:60] = mask[100:140, 20:60] = mask[60:100, 120:180] = 255
    cv2.imwrite(str(maps / "00123_mask.png"), mask)
    np.save(maps / "b.npy", np.where(np.arange(200) < 100, mask, mask // 51).astype(np.int64))
    with caplog.at_level(logging.WARNING):
        table = pd.read_csv(predict(settings(folder, member, masks=maps, label_maps=maps)), dtype={"ID": str})
    assert len([line for line in caplog.messages if "in 3 pieces: each piece became a cell" in line]) == 1
    assert table.groupby("ID").size()[["00123", "b"]].tolist() == [3, 2]
    for id in ("00123", "b"):
        cells = read_label_maps(maps, id, read_field(folder, id)).cells
        assert (maps / f"{id}.npz").is_file()
        for row in table[table["ID"] == id].itertuples():
            assert (cells == row.cell).sum() == row.area


def test_npz_files_of_others_are_not_overwritten_by_label_maps(folder, member, caplog) -> None:
    maps, elsewhere = folder.parent / "maps", folder.parent / "elsewhere"
    for place in (maps, elsewhere):
        place.mkdir()
        np.savez(place / "b.npz", logits=np.ones((2, 19)))
    before = (maps / "b.npz").read_bytes()
    with pytest.raises(InputError, match=r"^predict: .*b\.npz holds logits, and hpa-kit did not write it"):
        predict(settings(folder, member, label_maps=elsewhere))
    assert [path.name for path in elsewhere.iterdir()] == ["b.npz"]
    # Where they lie among the label maps that are read, the fields that have some are done.
    table = read(predict(settings(folder, member, masks=maps, label_maps=maps)))
    assert set(table["ID"]) == {"00123", "c", "d é"}
    assert "b.npz holds logits, and hpa-kit did not write it" in caplog.text
    for place in (maps, elsewhere):
        assert (place / "b.npz").read_bytes() == before


def test_the_command_takes_an_ensemble_and_names_the_table(folder, member, tmp_path, capsys) -> None:
    write_ensemble(settings(folder, member).of_ensemble(), tmp_path / "e.yaml")
    out = tmp_path / "table.csv"
    command = [
        "predict",
        folder,
        "--ensemble",
        tmp_path / "e.yaml",
        "--out",
        out,
        "--device",
        "cpu",
        "--batch",
        2,
    ]
    assert main([str(word) for word in command]) == 0
    assert capsys.readouterr().out == f"cells: {out}\n"
    assert out.read_bytes() == predict(settings(folder, member)).read_bytes()


def test_an_empty_folder_is_refused(tmp_path, member) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no field"):
        predict(settings(tmp_path / "empty", member))


def test_label_maps_are_packed_where_that_is_asked_for_and_count_as_kept(folder, member, monkeypatch) -> None:
    monkeypatch.setattr("hpa_kit.cells.packing.PER_ARCHIVE", 1)
    maps = folder.parent / "maps"
    chosen = settings(folder, member, label_maps=maps, pack=True)
    with monkeypatch.context() as patch:
        calls = stop_at_the_second_batch(patch)
        with pytest.raises(KeyboardInterrupt):
            predict(chosen)
        whole = predict(chosen).read_bytes()
        assert calls == [1, 2, 2, 1]
    before = {path.name: path.stat().st_mtime_ns for path in maps.iterdir()}
    assert [name.endswith(".zip") for name in before] == [True] * 4
    again = settings(folder, member, label_maps=maps, masks=maps, out=folder.parent / "again.csv")
    assert predict(again).read_bytes() == whole
    assert {path.name: path.stat().st_mtime_ns for path in maps.iterdir()} == before


def test_a_label_map_folder_that_is_a_file_is_refused(folder, member) -> None:
    (folder.parent / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        predict(settings(folder, member, label_maps=folder.parent / "file"))


def test_no_field_at_all_that_can_be_used_is_an_error(tmp_path, member) -> None:
    (tmp_path / "x_red.png").write_bytes(b"")
    with pytest.raises(InputError, match="no field of .* could be used"):
        predict(settings(tmp_path, member, out=tmp_path / "out.csv"))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64])
def test_geometry_of_cells(dtype) -> None:
    cells = np.zeros((6, 9), dtype)
    cells[1:3, 2:5] = 1
    cells[5, 8] = 3
    cells[0, 0] = 4
    found = cell_geometry(cells.T.copy().T)
    assert found.area.tolist() == [6, 0, 1, 1]
    assert found.centroid[0].tolist() == [1.5, 3.0]
    assert np.isnan(found.centroid[1]).all()
    assert found.box.tolist() == [[1, 2, 3, 5], [0, 0, 0, 0], [5, 8, 6, 9], [0, 0, 1, 1]]
    assert found.cut.tolist() == [False, False, True, True]


def test_geometry_without_cells_is_empty() -> None:
    found = cell_geometry(np.zeros((4, 4), np.int32))
    assert [len(part) for part in found] == [0, 0, 0, 0]
