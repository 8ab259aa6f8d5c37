"""``hpa-kit segment``: the label maps of all fields of a split, kept as files."""

import logging
import warnings
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpa_kit.archives import Place
from hpa_kit.cells.lab_files import lab_file, outlines_of, write_geojson, write_ome_labels
from hpa_kit.cells.label_maps import VERSION, LabelMaps, label_map_info, refuse_foreign, write_label_maps
from hpa_kit.cells.mask_files import read_mask_file
from hpa_kit.cells.mask_folder import MaskFolder
from hpa_kit.cells.own_segmenters import OwnSegmenter, own_segmenters, take_segmenters
from hpa_kit.cells.packing import Packer, refuse_to_pack
from hpa_kit.cells.segmenters import FieldCells, Segmenter, load_or_segment, segmenter, segmenter_for
from hpa_kit.cluster import connected, with_whole_paths
from hpa_kit.config import SegmentSettings
from hpa_kit.data import CHANNELS, DataFolder, Images, field_size, lab_pixel
from hpa_kit.data.kept_fields import origins
from hpa_kit.errors import InputError
from hpa_kit.files import make_folder, remove_stale
from hpa_kit.flow import Failure, attempt, batches, run_ahead, share
from hpa_kit.progress import progress_bar, track
from hpa_kit.resume import differences
from hpa_kit.timing import Forecast

if TYPE_CHECKING:
    from hpa_kit.cluster.batches import Workers
    from hpa_kit.cluster.worker import Work

log = logging.getLogger(__name__)


def segment(settings: SegmentSettings) -> Path:
    """Find the cells of every field of a split, or of a shard of it, and keep the label maps.

    Args:
        settings: see :class:`~hpa_kit.config.SegmentSettings`. Shards are contiguous shares of the sorted
            IDs; several processes, each with its own shard, may write to one folder.

    Returns:
        The folder, with ``ID.npz`` for each field, see :func:`~hpa_kit.cells.write_label_maps`; with
        ``settings.pack`` in archives, which are made while fields are segmented, see
        :func:`~hpa_kit.cells.pack_label_maps`; with ``settings.also`` further files, see
        :mod:`hpa_kit.cells.lab_files`.

    Goes on where it was stopped: whole files made by the same segmenter with the same weights from the same
    images stay, packed or not; damaged and outdated ones are made again, with a warning; npz files that
    others wrote are refused. What is begun and not written yet, of the classical segmenter three fields per
    worker at most, is lost with a kill. A field that cannot be read or segmented stops no other.

    Raises:
        InputError: data or settings cannot be used, the folder holds npz files of others or a damaged
            archive, or some fields cannot be used; the others are written then.
    """
    if settings.cluster is not None:
        settings = with_whole_paths(settings)
    folder = DataFolder(settings.data, settings)
    images = folder.images(settings.split)
    ids = share(sorted(folder.fields(settings.split).ids), settings.shard, settings.shards)
    if settings.out.exists() and not settings.out.is_dir():
        raise InputError(f"segment: {settings.out} is a file; expected a folder for label maps")
    # Where workers segment, it only tells here what they make.
    device = settings.device if settings.cluster is None else "cpu"
    segment_fields = segmenter(settings.segmenter, settings.weights, device, settings.batch, settings.workers)
    _make_folders(settings.out, ids, settings.pack)
    kept = _kept(ids, images, settings, segment_fields.settings)
    todo = [id for id, found in kept.items() if found.fault is not None]
    log.info("segment: %d fields to do, %d kept from before", len(todo), len(ids) - len(todo))
    packer = Packer(settings.out, settings.pack)
    packer.begin()
    cells, failed = _make(todo, images, settings, segment_fields, packer)
    packer.end()
    cells |= {id: found.n_cells for id, found in kept.items() if found.fault is None}
    if 0 in cells.values():
        log.warning("segment: %d of %d fields have no cell", list(cells.values()).count(0), len(ids))
    if failed:
        for id in sorted(failed):
            log.error("segment: %s: %s", id, failed[id])
        raise InputError(
            f"segment: {len(failed)} of {len(ids)} fields could not be segmented, the others are in "
            f"{settings.out}: {', '.join(sorted(failed))}; first: {failed[min(failed)]}"
        )
    return settings.out


def _make_folders(out: Path, ids: list[str], pack: bool) -> None:
    """Make the folder, and remove what was left half-written in it and in those that IDs name."""
    remove_stale(make_folder(out))
    inside = {id.rpartition("/")[0] for id in ids} - {""}
    refuse_to_pack("segment", inside, pack)
    for below in inside:
        remove_stale(out / below)


class _Kept(NamedTuple):
    """What lies in a field's place: what is wrong with it, empty where nothing is there; or its cells."""

    fault: str | None
    n_cells: int = 0


def _kept(
    ids: list[str], images: Images, settings: SegmentSettings, made_with: dict[str, Any]
) -> dict[str, _Kept]:
    """What is there of each field; warns where it is not good."""
    found, folder = {}, MaskFolder(settings.out)
    folder.look()
    with ThreadPoolExecutor(settings.workers, "check") as pool:
        check = partial(_check, images, settings, made_with, folder)
        checked = run_ahead(pool, check, ids, 4 * settings.workers)
        for id, kept in track(zip(ids, checked, strict=True), "check", len(ids), leave=False):
            found[id] = kept
            if kept.fault:
                warnings.warn(f"{kept.fault}; made again", stacklevel=3)
    return found


def _check(
    images: Images, settings: SegmentSettings, made_with: dict[str, Any], folder: MaskFolder, id: str
) -> _Kept:
    def read(path: Place) -> _Kept:
        info = label_map_info(path)
        before, now = {"version": info.version, **info.settings}, {"version": VERSION, **made_with}
        if differing := differences(before, now):
            return _Kept(f"label maps: {path} was made with {differing}")
        if info.images not in (None, _made_from(images, id, settings.in_channels)):
            return _Kept(f"label maps: {path} was made from other images of ID {id}")
        # A damaged array shows only when it is read; the size is all of the field that reading needs here.
        found = read_mask_file(path, field_size(images, id))
        if settings.also and found.nuclei is not None:
            nuclei = np.where(found.nuclei != 0, found.cells, np.int32(0))
            _write_also(settings, images, id, LabelMaps(nuclei, found.cells))
        return _Kept(None, info.n_cells)

    try:
        return folder.reading(lambda: folder.named(f"{id}.npz"), read) or _Kept("")
    except InputError as error:
        refuse_foreign("segment", settings.out, [id])
        return _Kept(str(error))


def _write_also(settings: SegmentSettings, images: Images, id: str, maps: LabelMaps) -> None:
    """Write those of the further files of a field that are not there."""
    for kind in settings.also:
        path = lab_file(settings.out, id, kind)
        if path.is_file():
            continue
        if kind == "ome-tiff":
            write_ome_labels(path, maps, lab_pixel(images, id))
        else:
            write_geojson(path, id, outlines_of(maps))


def _made_from(images: Images, id: str, needed: int) -> list[list[Any]]:
    """Name, bytes and checksum of a field's images; yellow is used where it is, though 3 are needed.

    Raises:
        InputError: one that is needed is missing or cannot be read.
    """
    try:
        found = origins(images, id, len(CHANNELS))
    except InputError:
        found = origins(images, id, needed)
    return [[image.name, image.bytes, image.checksum] for image in found]


def _make(
    ids: list[str], images: Images, settings: SegmentSettings, segment_fields: Segmenter, packer: Packer
) -> tuple[dict[str, int], dict[str, str]]:
    """Segment fields and write their files; {ID: number of cells}, and {ID: reason} of those that failed."""
    results: dict[str, int | Failure] = {}
    with connected(
        settings.cluster if ids else None, "segment", _device_of(segment_fields, settings)
    ) as workers:
        if workers is None:
            made = _here(ids, images, settings, segment_fields)
        else:
            made = _by_workers(ids, images, settings, workers)
        with closing(made):
            for id, result in made:
                results[id] = result
                packer.add()
    cells = {id: result for id, result in results.items() if isinstance(result, int)}
    return cells, {id: result.reason for id, result in results.items() if isinstance(result, Failure)}


def _here(
    ids: list[str], images: Images, settings: SegmentSettings, segment_fields: Segmenter
) -> Generator[tuple[str, int | Failure], None, None]:
    forecast = Forecast("segment", len(ids), 2 * settings.batch)
    with (
        progress_bar("segment", len(ids)) as bar,
        closing(_written(ids, images, settings, segment_fields, settings.workers)) as written,
    ):
        for id, result in written:
            yield id, result
            forecast.add(1)
            bar.update()


def _written(
    ids: Iterable[str], images: Images, settings: SegmentSettings, segment_fields: Segmenter, workers: int
) -> Generator[tuple[str, int | Failure], None, None]:
    """Segment fields and write their files; ID and number of cells, or why there are none."""
    out = settings.out

    def write(item: tuple[str, FieldCells | Failure]) -> tuple[str, int | Failure]:
        id, result = item
        if isinstance(result, Failure):
            return id, result
        made_from = attempt(_made_from, images, id, settings.in_channels)
        if isinstance(made_from, Failure):  # an image is there no longer
            return id, made_from
        try:
            for kind in settings.also:  # those of other label maps go first
                lab_file(out, id, kind).unlink(missing_ok=True)
            write_label_maps(out / f"{id}.npz", result.maps, segment_fields.settings, made_from)
            _write_also(settings, images, id, result.maps)
        except OSError as error:
            raise InputError(
                f"segment: {out / id}.npz cannot be written: {error.strerror or error}; the same command "
                "goes on once it can"
            ) from error
        return id, int(result.maps.cells.max(initial=0))

    with (
        ThreadPoolExecutor(workers, "write") as writing,
        closing(
            load_or_segment(ids, images, segment_fields, workers=workers, needed=settings.in_channels)
        ) as found,
    ):
        yield from run_ahead(writing, write, found, workers)


@dataclass(frozen=True)
class SegmentJob:
    """Fields that workers of a cluster segment, and whose files they write."""

    settings: SegmentSettings
    images: Images
    segmenters: Mapping[str, OwnSegmenter]

    @property
    def paths(self) -> list[Path]:
        """What each worker has to see."""
        named = (self.settings.data, self.settings.out, self.settings.weights)
        return [path for path in named if path is not None]

    def load(self, threads: int) -> "Work":
        """Make the segmenter in a worker, for all batches to come."""
        take_segmenters(self.segmenters)
        settings, workers = self.settings, min(self.settings.workers, threads)
        name = segmenter_for(settings.segmenter, settings.weights)
        finds = segmenter(name, settings.weights, settings.device, settings.batch, workers)
        return lambda items: _written([item.id for item in items], self.images, settings, finds, workers)


def _by_workers(
    ids: list[str], images: Images, settings: SegmentSettings, workers: "Workers"
) -> Generator[tuple[str, int | Failure], None, None]:
    from hpa_kit.cluster import Item, done_by_workers

    job = SegmentJob(settings, images, own_segmenters(settings.segmenter))
    return done_by_workers("segment", workers, job, list(batches(map(Item, ids), settings.batch)))


def _device_of(segment_fields: Segmenter, settings: SegmentSettings) -> str | None:
    """The device of a segmenter's networks; None where the kit knows of none."""
    return settings.device if segment_fields.name in ("published", "hpacellseg") else None
