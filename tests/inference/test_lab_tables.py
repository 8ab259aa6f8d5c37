"""What predict writes for labs, read by the libraries that labs read it with."""

import json

import numpy as np
import pandas as pd
import pytest
from lab_images import write_ome

from hpa_kit.classes import CLASSES
from hpa_kit.config import PredictSettings, make_settings
from hpa_kit.data import CLASS_COLUMNS
from hpa_kit.errors import InputError
from hpa_kit.inference import lab_tables, predict
from hpa_kit.inference.predict_cells import COLUMNS
from hpa_kit.inference.results import Journal

HEADER = ",".join(COLUMNS) + "\n"
MISSING = "is not installed: pip install 'hpa-kit[lab]'"


def lines(id: str, n_cells: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    rows = [
        [id, cell, 1.5, 2.25, 0, 1, 5, 6, 20, cell == 1, *rng.random(19).round(6)]
        for cell in range(1, n_cells + 1)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(header=False, index=False)


@pytest.fixture
def results(monkeypatch):
    """Fields in a journal, as predict keeps them: two with cells, one without, one that is not done."""
    monkeypatch.setattr(lab_tables, "FIELDS_AT_ONCE", 2)  # so that a table is made in parts

    def make(embed: bool):
        journal = Journal()
        embeddings = {}
        for seed, (id, n_cells) in enumerate((("p/007", 2), ("p/a", 0), ("q,x", 3))):
            text = lines(id, n_cells, seed)
            embeddings[id] = np.random.default_rng(seed).random((n_cells, 256), np.float32)
            both = [embeddings[id], 2 * embeddings[id]]
            journal.add(id, lab_tables.with_embeddings(text, both) if embed else text.encode())
        return ["p/007", "p/a", "not done", "q,x"], journal, np.concatenate(list(embeddings.values()))

    return make


def expected() -> pd.DataFrame:
    import io

    text = HEADER + lines("p/007", 2, 0) + lines("q,x", 3, 2)
    return pd.read_csv(io.StringIO(text), dtype={"ID": str})


def test_parquet_holds_the_csv_s_rows_by_pyarrow(tmp_path, results):
    parquet = pytest.importorskip("pyarrow.parquet", reason=f"pyarrow {MISSING}")
    ids, journal, _ = results(embed=True)
    with lab_tables.ParquetTable(tmp_path / "c.parquet", ids, HEADER, journal) as table:
        table.write()
    found = parquet.read_table(tmp_path / "c.parquet")
    assert {"ID": "string", "area": "int64", "cut_by_border": "bool", "Golgi apparatus": "float"}.items() <= {
        field.name: str(field.type) for field in found.schema
    }.items()
    pd.testing.assert_frame_equal(found.to_pandas()[list(COLUMNS)], expected(), check_dtype=False, rtol=1e-6)


def test_anndata_holds_scores_places_and_embeddings_by_anndata(tmp_path, results):
    anndata = pytest.importorskip("anndata", reason=f"anndata {MISSING}")
    ids, journal, embeddings = results(embed=True)
    with lab_tables.AnnDataTable(tmp_path / "c.h5ad", ids, HEADER, journal) as table:
        table.write()
    found, rows = anndata.read_h5ad(tmp_path / "c.h5ad"), expected()
    assert found.shape == (5, 19)
    assert list(found.var_names) == list(CLASS_COLUMNS)
    assert np.allclose(found.X, rows[list(CLASS_COLUMNS)])
    assert list(found.obs_names) == ["p/007:1", "p/007:2", "q,x:1", "q,x:2", "q,x:3"]
    assert found.obs["ID"].tolist() == rows["ID"].tolist()
    for name in COLUMNS[1:10]:
        assert found.obs[name].tolist() == rows[name].tolist()
    assert (found.obsm["spatial"] == (2.25, 1.5)).all()
    assert (found.obsm["X_crops_1"] == embeddings).all()
    assert (found.obsm["X_crops_2"] == 2 * embeddings).all()
    found[found.obs["area"] > 10].copy().write_h5ad(tmp_path / "again.h5ad")  # and may be worked on


def test_a_table_of_nothing_yet_can_be_read(tmp_path):
    anndata = pytest.importorskip("anndata", reason=f"anndata {MISSING}")
    with lab_tables.AnnDataTable(tmp_path / "c.h5ad", ["a"], HEADER, Journal()) as table:
        table.write()
    assert anndata.read_h5ad(tmp_path / "c.h5ad").shape == (0, 19)


@pytest.mark.parametrize(("kind", "name"), [("ParquetTable", "pyarrow"), ("AnnDataTable", "h5py")])
def test_what_is_not_installed_is_told_in_one_line(tmp_path, monkeypatch, kind, name):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(InputError, match=rf"c\.x is written by {name}; .*pip install 'hpa-kit\[lab\]'"):
        getattr(lab_tables, kind)(tmp_path / "c.x", [], HEADER, Journal())


@pytest.fixture
def plate(tmp_path, make_crop_member, member, cells):
    """Settings of a prediction of two fields of half the size that members know, by maps and by crops."""
    for well, seed in (("A01", 0), ("A02", 1)):
        labels = cells(96, 96, 32)
        planes = np.random.default_rng(seed).integers(5, 200, (4, 96, 96), np.uint8)
        planes[:, labels == 0] = 2
        write_ome(tmp_path / "plates" / "p" / well / "f.ome.tif", planes, pixel_size=0.08 * 2048 / 192)
        from hpa_kit.cells import LabelMaps, write_label_maps

        write_label_maps(tmp_path / "maps" / "p" / well / "f.npz", LabelMaps(labels, labels))
    return {
        "data": tmp_path / "plates", "members": (member, make_crop_member()), "masks": tmp_path / "maps",
        "out": tmp_path / "o" / "c.csv", "views": "none", "map_size": 64, "device": "cpu", "batch": 2,
        "also": "ome-tiff,geojson",
    }  # fmt: skip


def test_a_plate_of_folders_is_predicted_at_its_scale_with_all_that_labs_take(tmp_path, plate, monkeypatch):
    sides = []
    inputs = lab_inputs(monkeypatch, sides)
    table = pd.read_csv(predict(make_settings(PredictSettings, plate)))
    assert inputs
    assert sides == [32, 32]  # half of the members' 64 pixels: the fields cover half of what they know
    assert table["ID"].unique().tolist() == ["p/A01/f", "p/A02/f"]
    folder = tmp_path / "o" / "c_label_maps" / "p" / "A01"
    assert {path.name for path in folder.iterdir()} == {"f.npz", "f.labels.ome.tif", "f.outlines.geojson"}
    features = json.loads((folder / "f.outlines.geojson").read_text())["features"]
    rows = table[table["ID"] == "p/A01/f"]
    assert [int(one["properties"]["name"]) for one in features] == rows["cell"].tolist()
    best = rows[[one.name for one in CLASSES]].idxmax(axis=1).tolist()
    assert [one["properties"]["classification"]["name"] for one in features] == best
    assert [one["properties"]["measurements"]["area"] for one in features] == rows["area"].tolist()


def lab_inputs(monkeypatch, sides: list[int]) -> bool:
    """Note the sides of what members look at."""
    from hpa_kit.inference.ensemble import Ensemble

    real = Ensemble.inputs

    def noted(self, *arguments):
        found = real(self, *arguments)
        sides.extend({field.shape[1] for field in found.fields.values()})
        return found

    monkeypatch.setattr(Ensemble, "inputs", noted)
    return True


def test_embeddings_of_crops_go_to_anndata(plate):
    anndata = pytest.importorskip("anndata", reason=f"anndata {MISSING}")
    out = plate["out"].with_name("c.h5ad")
    found = anndata.read_h5ad(predict(make_settings(PredictSettings, plate | {"out": out, "also": ()})))
    assert found.shape == (18, 19)
    assert found.obsm["X_crops_1"].shape == (18, 256)
    assert len(np.unique(found.obsm["X_crops_1"], axis=0)) > 1


def test_an_ending_of_another_kind_of_table_is_refused(plate):
    settings = make_settings(PredictSettings, plate | {"out": "c.xlsx"})
    with pytest.raises(InputError, match=r"expected .csv, .parquet or .h5ad, found .xlsx"):
        predict(settings)
