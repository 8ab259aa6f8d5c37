"""What the parts of the job take that processors do, measured on a few fields."""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hpa_kit.budget.page import POLICIES, Measured, with_label_maps
from hpa_kit.cells import FieldCells, LabelMaps, MaskFolder, segmenter, write_label_maps
from hpa_kit.cells.crops import centres
from hpa_kit.classes import N_CLASSES
from hpa_kit.config import BudgetSettings
from hpa_kit.config.kinds import DEFAULT_MAP_SIZE, DEFAULT_RULE
from hpa_kit.data import CLASS_COLUMNS, FieldStore, Images, read_field, resize_field
from hpa_kit.data.cell_scores import cell_rows
from hpa_kit.data.fields import channel_paths
from hpa_kit.inference.prediction import FieldMaps, prepare
from hpa_kit.scoring import SCORING_FUNCTIONS, score_field
from hpa_kit.submission import encode_label_map
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.cell_maps import CellMaps
from hpa_kit.training.data import Draw, EpochBatches, FieldDataset, Loader
from hpa_kit.training.objectives.crops import CellTable, CropDataset

log = logging.getLogger(__name__)

T = TypeVar("T")
Field = NDArray[np.uint8]
Part = tuple[str, Measured]

LARGE = 2048**2  # pixels of the field that seconds are told of
CROP_SIDE = 128
STORE, MASKS = "store", "masks"  # in the folder of scratch files, from one function to the other
# Of the loader: fields of a batch, batches of a measurement, and measurements, of which the fastest counts.
BATCH, BATCHES, REPEATS = 16, 2, 3
_FULL = 0.5  # of that pixels, from which on seconds grow with pixels alone
_COMPILING = 256  # side of the field on which functions are compiled
_SHOWN = (0, 16)  # classes that a field of written pseudo labels shows


def measure_fields(
    settings: BudgetSettings, images: Images, ids: Sequence[str], scratch: Path
) -> Iterator[Part]:
    """Measure what is done to fields at full size: read, made small, segmented, scored, made strings.

    Args:
        settings: of the command.
        images: folder of the fields.
        ids: the fields.
        scratch: gets their label maps and the small fields.

    Raises:
        InputError: a field cannot be read.
    """
    finder, rule, says = segmenter("classical", workers=1), SCORING_FUNCTIONS[DEFAULT_RULE], _made_up_maps()
    masks, kept = scratch / MASKS, scratch / STORE
    masks.mkdir()

    def scored(id: str, field: Field) -> pd.DataFrame:
        found = FieldCells(field, MaskFolder(masks).read(id, field), False)
        return score_field(id, prepare(id, found, DEFAULT_MAP_SIZE).evidence(says), rule)

    # Compile first, which is done once.
    small = resize_field(read_field(images, ids[0]), _COMPILING)
    maps = LabelMaps(*finder(small))
    write_label_maps(masks / f"{ids[0]}.npz", maps)
    encode_label_map(maps.cells)
    scored(ids[0], small)

    meter, large, n_cells = _Meter(), 0.0, 0
    shown = np.isin(np.arange(N_CLASSES), _SHOWN).astype(np.float64)
    for id in ids:
        field = meter("decode", partial(read_field, images, id, threads=1))
        meter.bytes["decode"] += sum(path.stat().st_size for path in channel_paths(images, id))
        maps, path = LabelMaps(*meter("cells", partial(finder, field))), masks / f"{id}.npz"
        meter("maps written", partial(write_label_maps, path, maps))
        meter.bytes["maps written"] += path.stat().st_size
        strings = meter("strings", partial(encode_label_map, maps.cells))
        meter.bytes["strings"] += sum(map(len, strings.values()))
        scores = meter("scores", partial(scored, id, field))[list(CLASS_COLUMNS)].to_numpy()
        rows = meter("rows", partial(cell_rows, id, scores * shown))
        meter.bytes["rows"] += len(rows)
        large += field.shape[1] * field.shape[2] / LARGE
        n_cells += len(scores)
    if large < _FULL * len(ids):
        side = round(math.sqrt(large * LARGE / len(ids)))
        log.warning(
            f"budget: fields in {images} have {side}² pixels on average; what one of 2048² takes is told "
            "better by fields of that size"
        )
    for name in meter.seconds:
        if name != "rows" or n_cells:
            yield name, meter.each(name, n_cells if name == "rows" else large)
    meter("store", partial(FieldStore, images, ids, settings.size, cache=False, kept=kept), 1)
    yield "store", Measured(meter.seconds["store"] / large, _bytes_in(kept) / len(ids))


def measure_loader(
    settings: BudgetSettings, images: Images, ids: Sequence[str], scratch: Path
) -> Iterator[Part]:
    """Measure what training does to fields at its size: label maps, augmentation by policy, crops.

    Args:
        settings: of the command.
        images: folder of the fields.
        ids: the fields.
        scratch: where :func:`measure_fields` left label maps and small fields.
    """
    kept, meter = scratch / "small maps", _Meter()
    fields = FieldStore(images, ids, settings.size, cache=False, kept=scratch / STORE)
    maps = meter("maps small", partial(CellMaps, ids, settings.size, [scratch / MASKS], store=kept), 1)
    large = sum(MaskFolder(scratch / MASKS).read_cells(id).size for id in ids) / LARGE
    yield "maps small", Measured(meter.seconds["maps small"] / large, _bytes_in(kept) / len(ids))

    targets = np.zeros((len(ids), N_CLASSES), np.float32)
    numbers = np.arange(BATCH * BATCHES) % len(ids)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # as in a worker
    try:
        for policy in POLICIES:
            for cells in (None, maps):
                dataset = FieldDataset(fields, targets, Augmentation(int(policy)), cells)
                loader = Loader(dataset, EpochBatches(numbers, BATCH, seed=0), 0, torch.device("cpu"))
                name = with_label_maps(policy, cells is not None)
                meter(name, partial(_share_all, loader), REPEATS)
                yield name, meter.each(name, len(numbers))
        places = [centres(maps[number]) for number in range(len(ids))]
        field = np.repeat(np.arange(len(ids)), list(map(len, places)))
        number = np.concatenate([np.arange(1, len(one) + 1) for one in places])
        at = np.concatenate(places)
        table = CellTable(field, number, at, targets[field])
        crops = CropDataset(fields, maps, table, CROP_SIDE, Augmentation(1))
        # In any order, as cells are learnt: hardly two of a field follow one another.
        rows = np.random.default_rng(0).permutation(np.flatnonzero(at[:, 0] >= 0)).tolist()
        if rows:
            draws = [Draw(row, (0, row)) for row in rows[: BATCH * BATCHES]]
            meter("crops", lambda: [crops[draw] for draw in draws], REPEATS)
            yield "crops", meter.each("crops", len(draws))
    finally:
        cv2.setNumThreads(threads)


class _Meter:
    """Adds up, by name, the processor's seconds of all threads, and bytes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.bytes: dict[str, float] = defaultdict(float)

    def __call__(self, name: str, work: Callable[[], T], times: int = 2) -> T:
        """Do some work so many times, and count the seconds of the fastest."""
        least = math.inf
        for _ in range(times):
            begun = time.process_time()
            result = work()
            least = min(least, time.process_time() - begun)
        self.seconds[name] += least
        return result

    def each(self, name: str, times: float) -> Measured:
        """What was counted, for one of so many."""
        return Measured(self.seconds[name] / times, self.bytes[name] / times)


def _share_all(loader: Loader) -> None:
    """Make all batches and put them where another process can read them, as workers do."""
    for batch in loader.epoch(1):
        for tensor in filter(torch.is_tensor, batch):
            tensor.share_memory_()


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _made_up_maps() -> FieldMaps:
    """Maps such as members give: every class is seen somewhere."""
    rng = np.random.default_rng(0)
    side = DEFAULT_MAP_SIZE
    logits = np.stack([
        cv2.resize(rng.normal(-1, 2, (16, 16)).astype(np.float32), (side, side)) for _ in range(N_CLASSES)
    ])  # fmt: skip
    scores = rng.uniform(0.05, 1, N_CLASSES).astype(np.float32)
    return FieldMaps(scores, 1 / (1 + np.exp(-logits)), logits)
