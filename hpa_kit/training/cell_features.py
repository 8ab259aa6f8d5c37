"""Features of cells: what an encoder makes of the crop of each, kept for heads that learn in minutes."""

import logging
import shutil
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hpa_kit import __version__
from hpa_kit.cells import MaskFolder, label_map_ids, resized
from hpa_kit.cells.crops import Crops, crops_of, scaled_crops
from hpa_kit.cluster import connected, with_whole_paths
from hpa_kit.config import FeaturesSettings, TrainSettings, make_settings
from hpa_kit.data import DataFolder, Images, lab_pixel, labelled_fields, read_field, resize_field
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text, make_folder
from hpa_kit.flow import Failure, attempt, batches, run_ahead
from hpa_kit.models.subcell import SIDE
from hpa_kit.progress import progress_bar
from hpa_kit.resume import stamps_of_folders
from hpa_kit.scoring.inputs import cell_places
from hpa_kit.timing import Forecast
from hpa_kit.training.cards import sha256
from hpa_kit.training.cell_features_file import CellFeatures, read_cell_features, write_cell_features
from hpa_kit.training.checkpoint import BEST, checkpoint_file, write_checkpoint
from hpa_kit.training.member import build_network, load_member
from hpa_kit.training.objectives.crops import CropObjective
from hpa_kit.training.run_folder import FOLDS

if TYPE_CHECKING:
    from hpa_kit.cluster.batches import Workers
    from hpa_kit.cluster.worker import Item, Work

log = logging.getLogger(__name__)

FIELDS_PER_TASK = 8  # of a cluster's worker
_CELLS_PER_PART = 10_000
_LARGEST = np.finfo(np.float16).max


class Encoder(NamedTuple):
    """What makes vectors of cells.

    Attributes:
        model: a network of crops: its ``cell_features`` gives float32 (B, d).
        settings: of the run that it is of: sides of fields and crops, channels.
        path: its checkpoint; ``sha256`` of that.
    """

    model: Any
    settings: TrainSettings
    path: Path
    sha256: str


def make_cell_features(settings: FeaturesSettings) -> None:
    """Write one vector per cell of a folder's fields; a run that was cut off does what it lacks.

    :func:`~hpa_kit.training.features.make_features` calls it, which keeps other processes away. What it
    writes :func:`~hpa_kit.training.cell_features_file.read_cell_features` reads.

    Raises:
        InputError: encoder, label maps or data cannot be used; or a field that cannot be read is named.
    """
    assert settings.masks is not None
    masks = MaskFolder(settings.masks)
    masks.check()
    if settings.cluster is not None:
        settings = with_whole_paths(settings)
    encoder = load_encoder(_checkpoint(settings), settings.device if settings.cluster is None else "cpu")
    folders = _folders(settings, encoder.settings)
    lacking = [id for id in folders if not masks.has(id)]
    if lacking:
        raise InputError(
            f"masks: {settings.masks} lacks label maps of {len(lacking)} of {len(folders)} fields, such as "
            f"ID {lacking[0]}; make them with hpa-kit segment"
        )
    flips = settings.views == "several"
    source = f"{encoder.sha256} flips {flips} amp {settings.amp} by {__version__}"
    where = {"path": str(encoder.path.absolute()), "sha256": encoder.sha256}
    stamps = stamps_of_folders(folders, [(settings.masks, label_map_ids)])
    parts = _Parts(settings.out, source, where, stamps)
    missing = {id: folder for id, folder in folders.items() if id not in parts.done}
    done, failed = len(folders) - len(missing), dict[str, str]()
    with connected(settings.cluster if missing else None, "features", settings.device) as workers:
        if workers is None:
            encoded = _here(encoder, missing, masks, settings, flips, done)
        else:
            encoded = _by_workers(encoder, missing, settings, flips, done, workers)
        try:
            with closing(encoded):
                for id, values in encoded:
                    if isinstance(values, Failure):
                        failed[id] = values.reason
                    else:
                        parts.add(id, values)
        finally:
            parts.keep()
    if failed:
        raise InputError(
            f"features: {len(failed)} of {len(folders)} fields could not be used, the others are kept: "
            f"{', '.join(sorted(failed)[:10])}; first: {failed[min(failed)]}"
        )
    parts.finish(list(folders))


def _here(
    encoder: Encoder,
    folders: dict[str, Images],
    masks: MaskFolder,
    settings: FeaturesSettings,
    flips: bool,
    done: int,
) -> Generator[tuple[str, NDArray[np.float16]], None, None]:
    forecast = Forecast("features", len(folders), 1)
    with progress_bar("features", done + len(folders), initial=done) as bar:
        for id, values in _encoded(encoder, folders, masks, settings, flips):
            yield id, values
            forecast.add(1)
            bar.update(1)


@dataclass(frozen=True)
class FeaturesJob:
    """Fields whose cells workers of a cluster encode; what they are told of a field is its folder's place."""

    settings: FeaturesSettings
    encoder: Path
    folders: tuple[Images, ...]
    flips: bool

    @property
    def paths(self) -> list[Path]:
        """What each worker has to see."""
        assert self.settings.masks is not None
        return [self.settings.data, self.settings.masks, self.encoder]

    def load(self, threads: int) -> "Work":
        """Load the encoder in a worker, for all batches to come."""
        assert self.settings.masks is not None
        masks = MaskFolder(self.settings.masks)
        settings = self.settings.model_copy(update={"workers": min(self.settings.workers, threads)})
        encoder = load_encoder(self.encoder, settings.device)

        def work(items: "Sequence[Item]") -> Iterator[tuple[str, NDArray[np.float16] | Failure]]:
            """Encode fields together; where one of them fails, each by itself."""
            folders = {id: self.folders[place] for id, place in items}
            found = attempt(lambda: list(_encoded(encoder, folders, masks, settings, self.flips)))
            if not isinstance(found, Failure):
                yield from found
            elif len(items) == 1:
                yield items[0].id, found
            else:
                for item in items:
                    yield from work([item])

        return work


def _by_workers(
    encoder: Encoder,
    folders: dict[str, Images],
    settings: FeaturesSettings,
    flips: bool,
    done: int,
    workers: "Workers",
) -> Generator[tuple[str, Any], None, None]:
    from hpa_kit.cluster import Item, done_by_workers

    places = {images: place for place, images in enumerate(dict.fromkeys(folders.values()))}
    job = FeaturesJob(settings, encoder.path.absolute(), tuple(places), flips)
    items = [Item(id, places[images]) for id, images in folders.items()]
    return done_by_workers("features", workers, job, list(batches(items, FIELDS_PER_TASK)), done)


def load_encoder(path: Path, device: str | torch.device = "cpu") -> Encoder:
    """Read the network of crops that encodes cells, in evaluation mode.

    Args:
        path: run folder or checkpoint of a network of crops, or a folder of SubCell.
        device: where it goes.

    Raises:
        InputError: as :func:`~hpa_kit.training.member.load_member`.
    """
    member = load_member(path, device, networks=("crops",))
    file = checkpoint_file(path)
    return Encoder(member.model, member.settings, file, sha256(file))


def _checkpoint(settings: FeaturesSettings) -> Path:
    """The checkpoint to encode with: as given, or made of a timm network's weights file and kept beside.

    What is made is a network of crops without a mask channel, whose head has not learnt.

    Raises:
        InputError: the weights do not fit, or the sides of the crops cannot be chosen.
    """
    if settings.backbone is None:
        return settings.member
    out = settings.out.with_name(f"{settings.out.stem}_encoder")
    given = {
        "data": settings.data, "out": out, "network": "crops", "masks": settings.masks,
        "backbone": settings.backbone, "pretrained": settings.member, "size": settings.size,
        "crop_size": settings.crop_size, "mask_channel": False, "in_channels": 4,
    }  # fmt: skip
    made = CropObjective.completed(make_settings(TrainSettings, given, source="features"))
    torch.manual_seed(0)  # the head's weights decide the checkpoint's fingerprint too
    model = build_network(made)
    make_folder(out)
    write_checkpoint(out / BEST, made, {"model": model.state_dict()})
    atomic_text(out / FOLDS, "ID,fold\n")  # it has learnt from none of the fields
    return out


def _folders(settings: FeaturesSettings, encoder: TrainSettings) -> dict[str, Images]:
    """Where the images of each field lie: the labelled ones in training, else all that are there."""
    folder = DataFolder(settings.data, settings)
    if settings.split == "train" and (folder.root / "train.csv").is_file():
        names = ("data", "channels", "pixel_size", "stack", "external", "external_images", "external_mode")
        return labelled_fields(
            encoder.model_copy(update={name: getattr(settings, name) for name in names})
        ).folders
    return dict.fromkeys(folder.fields(settings.split).ids, folder.images(settings.split))


def _encoded(
    encoder: Encoder, folders: dict[str, Images], masks: MaskFolder, settings: FeaturesSettings, flips: bool
) -> Iterator[tuple[str, NDArray[np.float16]]]:
    """IDs and vectors of fields; threads read, and cut crops, ahead of the network."""

    def read(id: str) -> tuple[str, Crops]:
        field = read_field(folders[id], id, encoder.settings.in_channels, threads=1)
        return id, _crops(field, masks.read_cells(id), encoder.settings, lab_pixel(folders[id], id))

    device = next(encoder.model.parameters()).device
    with ThreadPoolExecutor(settings.workers) as pool:
        for id, crops in run_ahead(pool, read, folders, 2 * settings.workers):
            yield id, _vectors(encoder, crops, device, settings, flips, id)


def _crops(
    field: NDArray[np.uint8], cells: NDArray[np.int32], settings: TrainSettings, pixel: float | None
) -> Crops:
    """Crops of all cells of a field as it is, by their numbers, as the encoder learnt from such.

    One that the small label map has lost lies where it was.
    """
    size, side = settings.size, settings.crops.side
    assert side is not None
    if settings.subcell is not None:
        cells = cells if cells.shape == field.shape[1:] else resized(cells, field.shape[1:])
        return scaled_crops(field, cells, side, SIDE, settings.crops.neighbours != "kept", pixel, size)
    field = resize_field(field, size)
    small, n_cells = resized(cells, (size, size)), int(cells.max(initial=0))
    shown = np.count_nonzero(np.bincount(small.ravel(), minlength=n_cells + 1)[1:])
    known = cell_places(cells).centre if shown < n_cells else None
    return crops_of(field, small, side, n_cells, known)


@torch.inference_mode()
def _vectors(
    encoder: Encoder, crops: Crops, device: torch.device, settings: FeaturesSettings, flips: bool, id: str
) -> NDArray[np.float16]:
    """The vectors of a field's cells, float16 (n, d).

    Raises:
        InputError: they are not finite, or too large for half precision.
    """
    amp = settings.amp and device.type == "cuda"
    statistics = torch.from_numpy(crops.statistics)[None].to(device)
    # A field without a cell shows how wide a vector is all the same.
    n = len(crops.pixels)
    pixels = crops.pixels if n else np.zeros((1, *crops.pixels.shape[1:]), np.uint8)
    masks = crops.masks if n else np.zeros((1, *crops.masks.shape[1:]), np.uint8)
    found = []
    for first in range(0, len(pixels), settings.batch):
        some = torch.from_numpy(pixels[first : first + settings.batch]).to(device)
        inside = torch.from_numpy(masks[first : first + settings.batch]).to(device)
        views = [(some, inside), (some.flip(-1), inside.flip(-1))][: 1 + flips]
        with torch.autocast(device.type, dtype=torch.float16, enabled=amp):
            said = [
                encoder.model.cell_features(*view, statistics.expand(len(some), -1, -1)).float()
                for view in views
            ]
        found.append(torch.stack(said).mean(dim=0))
    values = torch.cat(found).cpu().numpy()[:n] if n else np.zeros((0, found[0].shape[1]), np.float32)
    values[~masks[:n].any(axis=(1, 2))] = 0
    if not (np.abs(values) <= _LARGEST).all():
        raise InputError(
            f"features: the network gives values that are not finite, or above {_LARGEST:g}, for ID {id}; "
            "try --no-amp, or another encoder"
        )
    return values.astype(np.float16)


class _Parts:
    """Vectors that are kept while others are made, in a folder beside the file that they end in.

    Those of other encoders, images or label maps are not taken. Of what is kept only places are in memory.

    Args:
        out: the file.
        source: of encoder and views.
        encoder: path and sha256 of it.
        stamps: {ID: of its images and label map}.

    Attributes:
        done: {ID: the file that has its vectors}.
    """

    def __init__(self, out: Path, source: str, encoder: dict[str, str], stamps: dict[str, str]) -> None:
        self.out, self.source, self.encoder, self._stamps = out, source, encoder, stamps
        self.folder = out.with_name(f"{out.name}.parts")
        there = sorted(self.folder.glob("[0-9]*.npz"))  # hidden ones are stale
        self._next = 1 + max((int(path.stem) for path in there), default=-1)
        self._waiting: dict[str, NDArray[np.float16]] = {}
        self.done: dict[str, Path] = {}
        for path in [*there, *([out] if out.is_file() else [])]:
            kept = read_cell_features(path, values=False)
            if kept.source == source:
                same = zip(kept.ids, kept.stamps, strict=True)
                self.done |= {id: path for id, stamp in same if stamp == stamps.get(id)}

    def add(self, id: str, values: NDArray[np.float16]) -> None:
        """Take a field's vectors in; from time to time they are written."""
        self._waiting[id] = values
        if sum(map(len, self._waiting.values())) >= _CELLS_PER_PART:
            self._write()

    def keep(self) -> None:
        """Write what has not been written yet."""
        if self._waiting:
            self._write()

    def finish(self, ids: list[str]) -> None:
        """Write the file, fields in the order of ``ids``, and remove the parts."""
        self.keep()
        whole: dict[str, NDArray[np.float16]] = {}
        for path in sorted(set(self.done.values())):
            kept = read_cell_features(path)
            of_fields = np.split(kept.values, kept.starts[1:-1])
            whole |= {id: v for id, v in zip(kept.ids, of_fields, strict=True) if self.done.get(id) == path}
        write_cell_features(self.out, self._of({id: whole[id] for id in ids}))
        if self.folder.is_dir():
            shutil.rmtree(self.folder)

    def _write(self) -> None:
        path = self.folder / f"{self._next:05d}.npz"
        write_cell_features(path, self._of(self._waiting))
        self.done |= dict.fromkeys(self._waiting, path)
        self._next += 1
        self._waiting = {}

    def _of(self, values: dict[str, NDArray[np.float16]]) -> CellFeatures:
        counts = np.array([len(one) for one in values.values()], np.int64)
        joined = np.concatenate(list(values.values())) if values else np.zeros((0, 0), np.float16)
        stamps = tuple(self._stamps[id] for id in values)
        return CellFeatures(list(values), counts, joined, self.source, self.encoder, stamps)
