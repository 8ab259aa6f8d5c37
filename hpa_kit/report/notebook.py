"""What the notebooks show and do: a batch, growing CAMs, first cells, and reports in a frame."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hpa_kit.classes import CLASSES, NEGATIVE, parse_label
from hpa_kit.config import InferSettings, ReportSettings, TrainSettings, make_settings
from hpa_kit.data import DataFolder, labelled_fields, read_field, resize_field
from hpa_kit.report.page import write_report
from hpa_kit.report.pictures import (
    Field,
    LabelMap,
    Picture,
    cells_of,
    composite,
    contact_sheet,
    protein,
    tiled,
    write_picture,
)
from hpa_kit.report.sources import predict_for_report
from hpa_kit.submission.table import parse_prediction
from hpa_kit.together import run_together
from hpa_kit.training import Processes, processes_for, train
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.checkpoint import BEST
from hpa_kit.training.run_folder import GROWING

log = logging.getLogger(__name__)

AMBER = np.array([255, 176, 0], np.float32)  # seen by everybody, on black and on grey
MAX_ROWS = 6


def augmented_batch(settings: TrainSettings, fields: int = 6, side: int = 192) -> Picture:
    """Draw the first labelled fields, and below them what training makes of them.

    Args:
        settings: of the run: data, size, augmentation and seed.
        fields: how many.
        side: of each panel in pixels.

    Raises:
        InputError: the data cannot be read.
    """
    change = Augmentation(settings.augmentation)
    plain, changed = [], []
    for number, (field, _) in enumerate(_labelled(settings, fields)):
        image = np.ascontiguousarray(field.transpose(1, 2, 0))
        plain.append(composite(field))
        changed.append(composite(change(image, (settings.seed, 1, number)).transpose(2, 0, 1)))
    return tiled(
        [plain, changed], side, ["above: fields as they are stored   below: as the network gets them"]
    )


def train_on_all(settings: TrainSettings, processes: int | None = None) -> Path:
    """Train on all GPUs of this machine, by one process each, and keep class maps that grow.

    With one GPU, or none, it trains in this process. Several processes share every batch, as under torchrun;
    what they say appears here as they say it, an error in one ends all, and the first makes the maps.

    Args:
        settings: of the run; a ``device`` other than ``auto`` is one device.
        processes: how many; None is one per GPU, where :func:`~hpa_kit.training.processes_for` finds several.

    Returns:
        The run folder; ``growing.png`` in it shows the maps, once an epoch is done.

    Raises:
        InputError: as :func:`~hpa_kit.training.train` raises it.
        RuntimeError: one of several processes failed in another way.
    """
    processes = processes_for(settings) if processes is None else processes
    if processes == 1:
        return train_watched(settings)
    print(f"train: {processes} processes, one per GPU, share every batch", flush=True)
    run_together(train_watched, settings, processes)
    return settings.out


def train_watched(settings: TrainSettings) -> Path:
    """Train in this process, and keep class maps that grow in the run folder; return that."""
    watcher = GrowingCams(settings, keep=settings.out / GROWING) if Processes.here().first else None
    return train(settings, after_epoch=watcher)


class GrowingCams:
    """Class maps of a few fields after each epoch: what :func:`hpa_kit.training.train` takes as its watcher.

    Each column is a field of another location class, where there are so many; its map is that of the class.

    Args:
        settings: of the run.
        fields: how many columns.
        side: of each panel in pixels.
        keep: PNG to write the picture to after each epoch; None keeps none.

    Raises:
        InputError: the data cannot be read.
    """

    def __init__(
        self, settings: TrainSettings, fields: int = 6, side: int = 160, keep: Path | None = None
    ) -> None:
        self.side, self.keep = side, keep
        self._fields, self._classes = zip(*_labelled(settings, fields), strict=True)
        self._rows: dict[int, list[Picture]] = {}

    @torch.inference_mode()
    def __call__(self, epoch: int, model: nn.Module) -> None:
        """Draw the maps of a network that has some; another is passed over."""
        if not hasattr(model, "forward_maps"):
            return
        device = next(model.parameters()).device
        batch = torch.from_numpy(np.stack(self._fields)).float().to(device)
        maps = model.forward_maps(batch).float().relu().cpu().numpy()  # type: ignore[operator]
        self._rows[epoch] = [
            over_protein(field, maps[place, index])
            for place, (field, index) in enumerate(zip(self._fields, self._classes, strict=True))
        ]
        if self.keep is not None:
            write_picture(self.keep, self.picture())

    def picture(self) -> Picture:
        """Draw the fields, and below them their maps after the first epoch, some between, and the last."""
        epochs = list(self._rows)
        some = (
            [epochs[k] for k in np.unique(np.linspace(0, len(epochs) - 1, MAX_ROWS).astype(int))]
            if epochs
            else []
        )
        names = [CLASSES[index].name for index in self._classes]
        lines = [
            "columns: " + ", ".join(names),
            "rows: the fields; their class maps after epoch "
            + (", ".join(map(str, some)) or "- (none was trained)"),
        ]
        return tiled(
            [list(map(composite, self._fields)), *(self._rows[epoch] for epoch in some)], self.side, lines
        )


def first_look(settings: InferSettings, fields: int = 3, cells: int = 8, side: int = 320) -> Picture | None:
    """Draw cells and scores of the first fields, to be seen before hours of inference begin.

    Args:
        settings: of the inference; nothing is written.
        fields: how many.
        cells: how many of the highest scores are shown as crops.
        side: of each panel in pixels.

    Returns:
        A sheet, or None where no cell of these fields could be scored, which is said.

    Raises:
        InputError: data or members cannot be used.
    """
    folder = DataFolder(settings.data, settings)
    images = folder.images(settings.split)
    ids = folder.fields(settings.split).ids[:fields]
    predicted = predict_for_report(settings, images, ids, cells=True)
    for id, reason in predicted.failed.items():
        log.warning(f"first look: ID {id} could not be used: {reason}")
    found = [
        (read_field(images, row[0], needed=3), *cells_of(parse_prediction(row[3]), row[2], row[1]))
        for row in predicted.rows
    ]
    found = [one for one in found if len(one[2])]
    if not found:
        log.warning("first look: no cell of the first fields was scored")
        return None
    drawn, label_maps, scores = map(list, zip(*found, strict=True))
    sheet = contact_sheet(drawn, label_maps, scores, side)
    strip = top_cells(drawn, label_maps, scores, cells, sheet.shape[1] // cells)
    width = max(sheet.shape[1], strip.shape[1])
    return np.concatenate([_widened(sheet, width), _widened(strip, width)])


def top_cells(
    fields: Sequence[Field],
    label_maps: Sequence[LabelMap],
    scores: Sequence[NDArray[np.floating]],
    n: int,
    side: int,
) -> Picture:
    """Cut out the cells of highest score, with class and score in a line above them all.

    Cells as Negative stand last: they show nothing, and by some rules most cells score highest as that.

    Args:
        fields, label_maps, scores: as for :func:`hpa_kit.report.plots.contact_sheet`.
        n: how many.
        side: of each crop in pixels.
    """
    ranked = sorted(
        (index == NEGATIVE, -score, place, cell + 1, index)
        for place, own in enumerate(scores)
        for (cell, index), score in np.ndenumerate(own)
        if score > 0
    )[:n]
    crops = [composite(_crop(fields[place], label_maps[place], cell)) for _, _, place, cell, _ in ranked]
    words = ", ".join(f"{CLASSES[index].name} {-score:.2f}" for _, score, _, _, index in ranked)
    return tiled([crops], side, [f"top cells: {words}"])


def over_protein(field: Field, class_map: NDArray[np.floating]) -> Picture:
    """Draw a class map in amber, by its own maximum, over the protein in grey: uint8 (H, W, 3)."""
    height, width = field.shape[1:]
    scaled = class_map / max(float(class_map.max()), 1e-5)
    part = cv2.resize(scaled.astype(np.float32), (width, height))[..., None]
    return (protein(field) * (1 - 0.6 * part) + 0.6 * part * AMBER).astype(np.uint8)


def _labelled(settings: TrainSettings, most: int) -> list[tuple[Field, int]]:
    """Fields of the competition at the run's size, each with one of its classes.

    Classes are as different as can be had.
    """
    labels, folders = labelled_fields(settings.model_copy(update={"external": None}))
    firsts: dict[int, str] = {}
    rest: list[tuple[str, int]] = []
    for id, text in zip(labels["ID"], labels["Label"], strict=True):
        classes = parse_label(text)
        new = [index for index in classes if index not in firsts]
        if new:
            firsts[new[0]] = id
        else:
            rest.append((id, classes[0]))
    chosen = [*((id, index) for index, id in firsts.items()), *rest][:most]
    return [
        (resize_field(read_field(folders[id], id, settings.in_channels), settings.size), index)
        for id, index in sorted(chosen, key=lambda pair: pair[1])
    ]


def _crop(field: Field, cells: LabelMap, cell: int) -> Field:
    """The square around a cell, what lies beyond the field being black."""
    ys, xs = np.nonzero(cells == cell)
    half = int(0.6 * max(np.ptp(ys), np.ptp(xs))) + 2
    y, x = (int(ys.min()) + int(ys.max())) // 2, (int(xs.min()) + int(xs.max())) // 2
    padded = np.pad(field, ((0, 0), (half, half), (half, half)))
    return padded[:, y : y + 2 * half, x : x + 2 * half]


def _widened(picture: Picture, width: int) -> Picture:
    return np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255)


class Frame:
    """A written page, which a notebook shows in a frame of its own when this is a cell's last value.

    The page is inside the notebook then, and is seen wherever that is: on Kaggle, or without its files.

    Args:
        path: of the page.
        height: of the frame in pixels.
    """

    def __init__(self, path: Path, height: int = 860) -> None:
        self.path, self.height = path, height

    def __repr__(self) -> str:
        return f"report: {self.path}"

    def _repr_html_(self) -> str:
        page = self.path.read_text(encoding="utf-8").replace("&", "&amp;").replace("'", "&#39;")
        style = f"width:100%;height:{self.height}px;border:1px solid #ccc"
        return f"<iframe title='report' style='{style}' srcdoc='{page}'></iframe>"


def submission_report(settings: InferSettings, submission: Path, fields: int = 24) -> Frame:
    """Write the report of a submission, ``report.html`` beside it, with class maps of its members.

    Args:
        settings: of the inference.
        submission: the CSV.
        fields: most that are shown; each makes the notebook about 80 KB larger.

    Raises:
        InputError: as :func:`hpa_kit.report.write_report`.
    """
    return _frame(
        source=submission,
        out=submission.with_name("report.html"),
        data=settings.data,
        split=settings.split,
        members=settings.members,
        ensemble=settings.ensemble,
        masks=settings.masks,
        segmenter=settings.segmenter,
        weights=settings.weights,
        views=settings.views,
        map_size=settings.map_size,
        fields=fields,
        batch=settings.batch,
        workers=max(1, settings.workers),
        device=settings.device.split(",")[0],
    )


def run_report(settings: TrainSettings, fields: int = 12) -> Frame:
    """Write the report of a run, ``report.html`` in its folder: training, and fields it has not learnt from.

    A network without class maps, or a run without a whole epoch yet, shows its training only.

    Args:
        settings: of the run.
        fields: most that are shown; their cells are found without weights.

    Raises:
        InputError: as :func:`hpa_kit.report.write_report`.
    """
    looks = settings.network not in ("arcface", "cells") and (settings.out / BEST).is_file()
    return _frame(
        source=settings.out,
        out=settings.out / "report.html",
        data=settings.data if looks else None,
        split="train",
        fields=fields,
        workers=max(1, settings.workers),
        device=settings.device,
    )


def _frame(**values: Any) -> Frame:
    return Frame(write_report(make_settings(ReportSettings, values, source="report")).path)
