"""How long a head learns from kept vectors of cells: ``pytest tests/benchmarks/test_bench_heads.py -s``."""

import time

import numpy as np

from hpa_kit.config import TrainSettings
from hpa_kit.training import train
from hpa_kit.training.cell_features_file import CellFeatures, write_cell_features

FIELDS, CELLS, WIDTH = 2000, 22, 1536  # as wide as SubCell's, a tenth of the competition's fields


def test_an_epoch_of_a_tenth_of_the_competition_takes_seconds(tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"f{number:05d}" for number in range(FIELDS)]
    labels = rng.integers(0, 18, FIELDS)
    (tmp_path / "train.csv").write_text(
        "ID,Label\n" + "".join(f"{i},{c}\n" for i, c in zip(ids, labels, strict=True))
    )
    values = rng.standard_normal((FIELDS * CELLS, WIDTH), dtype=np.float32).astype(np.float16)
    counts = np.full(FIELDS, CELLS, np.int64)
    encoder = {"path": "nowhere", "sha256": "none"}
    write_cell_features(tmp_path / "c.npz", CellFeatures(ids, counts, values, "none", encoder, tuple(ids)))
    made = TrainSettings(
        data=tmp_path,
        out=tmp_path / "run",
        network="head",
        features=tmp_path / "c.npz",
        epochs=2,
        device="cpu",
    )
    before, clock = time.process_time(), time.perf_counter()
    train(made)
    took, waited = time.process_time() - before, time.perf_counter() - clock
    size = (tmp_path / "c.npz").stat().st_size
    print(
        f"\n{FIELDS} fields of {CELLS} cells, {size / 1e6:.0f} MB: 2 epochs and reading took {took:.1f} s of "
        f"processor, {waited:.1f} s in all"
    )
    assert took < 600
