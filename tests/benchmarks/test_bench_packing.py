"""Label maps in archives: how many files those of all training fields are, what packing and reading take.

``python -m pytest tests/benchmarks/test_bench_packing.py -s --override-ini addopts=``
"""

import time

import numpy as np
import pytest

from hpa_kit.cells import LabelMaps, MaskFolder, Packer, pack_label_maps, write_label_maps
from hpa_kit.cells.packing import PER_ARCHIVE
from hpa_kit.config import SimulateSettings
from hpa_kit.data.simulate import simulate

TRAINING_FIELDS = 21_806
LOOKS, ROUNDS = 100, 6


@pytest.mark.timeout(3600)
def test_files_of_all_training_fields(tmp_path):
    one, most, packing = np.ones((4, 4), np.int32), 0, 0.0
    begun = time.process_time()
    packer = Packer(tmp_path, packs=True)
    packer.begin()
    for number in range(TRAINING_FIELDS):
        write_label_maps(tmp_path / f"{number:08x}-bb99-11e8-b2b9-ac1f6b6435d0.npz", LabelMaps(one, one))
        if number % LOOKS == 0:
            most = max(most, sum(1 for _ in tmp_path.iterdir()))
        since = time.process_time()
        packer.add()
        packing += time.process_time() - since
    packer.end()
    files = sum(1 for _ in tmp_path.iterdir())
    print(
        f"\n{TRAINING_FIELDS} label maps: {files} files, {most} at most meanwhile; {packing:.0f} of "
        f"{time.process_time() - begun:.0f} processor seconds packing"
    )
    begun = time.process_time()
    MaskFolder(tmp_path).check()
    print(f"looking through all archives takes {time.process_time() - begun:.2f} processor seconds")
    assert files <= 20
    assert most <= PER_ARCHIVE + 20 + LOOKS


@pytest.mark.parametrize("side", [2048, 512])
def test_reading_from_archives_takes_no_longer(tmp_path, side):
    settings = SimulateSettings(out=tmp_path / "data", train=4, test=0, size=side, workers=1)
    simulate(settings)
    sources = [np.load(path) for path in sorted((tmp_path / "data" / "masks").iterdir())]
    ids = [f"{copy}{number}" for copy in range(2048 // side) for number in range(len(sources))]
    for name in ("loose", "packed"):
        for id in ids:
            source = sources[int(id[-1])]
            maps = LabelMaps(source["nuclei"], source["cells"])
            write_label_maps(tmp_path / name / f"{id}.npz", maps)
    pack_label_maps(tmp_path / "packed")
    (archive,) = (tmp_path / "packed").iterdir()
    took = {"loose": [], "packed": []}
    for turn in range(ROUNDS):
        for name in sorted(took, reverse=turn % 2 > 0):
            folder = MaskFolder(tmp_path / name)
            folder.check()
            begun = time.process_time()
            for id in ids:
                folder.read_cells(id)
            took[name].append((time.process_time() - begun) / len(ids))
    loose, packed = (1000 * min(took[name]) for name in ("loose", "packed"))
    print(
        f"\n{side}²: {archive.stat().st_size / len(ids) / 1000:.0f} kB a field; {loose:.2f} ms loose, "
        f"{packed:.2f} ms packed, {packed / loose:.3f} of it"
    )
    assert packed < 1.1 * loose
