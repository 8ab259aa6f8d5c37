"""How well cells of one folder of label maps meet those of another: compare_label_maps.py TRUE FOUND [RUN].

Of the fields that both folders have, as ID.npz or ID.png, or, with a run of hpa-kit train, of those among
them that it was validated on: how many true cells there are, the share of them that a found cell meets at an
IoU of 0.5 or more, the share of found cells that meet a true one, and the mean IoU of true cells.
"""

import sys
from pathlib import Path

import pandas as pd

from hpa_kit.cells import MaskFolder
from hpa_kit.cells.matching import match_cells
from hpa_kit.training.checkpoint import settings_of

true, found = MaskFolder(sys.argv[1]), MaskFolder(sys.argv[2])
ids = sorted({path.stem for path in found.folder.iterdir() if path.suffix in (".npz", ".png")})
if len(sys.argv) > 3:
    run = Path(sys.argv[3])
    folds = pd.read_csv(run / "folds.csv", dtype={"ID": str})
    ids = sorted({*ids} & {*folds["ID"][folds["fold"] == settings_of(run).fold]})
matched = [match_cells(true.read_cells(id), found.read_cells(id)) for id in ids if true.has(id)]
total = sum(matched[1:], matched[0])
print(f"{len(total.true_iou)} cells, met {total.met:.3f}, right {total.right:.3f}, IoU {total.iou:.3f}")
