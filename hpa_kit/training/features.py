"""Features of fields: what a trained network's pooled feature maps are, over several views."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hpa_kit import __version__
from hpa_kit.config import FeaturesSettings
from hpa_kit.data import DataFolder, Images, labelled_fields, read_field, resize_field
from hpa_kit.errors import InputError
from hpa_kit.files import regular_path, remove_stale, written_file
from hpa_kit.flow import batches, run_ahead
from hpa_kit.locks import locked
from hpa_kit.models import ArcFaceNet, CamClassifier, mean_logits
from hpa_kit.progress import progress_bar
from hpa_kit.resume import stamps_of_folders
from hpa_kit.timing import Forecast
from hpa_kit.training.cards import sha256
from hpa_kit.training.features_file import Features, read_features, write_features
from hpa_kit.training.member import Member, load_member

log = logging.getLogger(__name__)

_FIELDS_PER_PART = 512

Inputs = dict[int, NDArray[np.uint8]]


class FeatureViews(NamedTuple):
    """Sides in pixels at which a field is looked at, and whether each is also looked at flipped."""

    sides: tuple[int, ...]
    flips: bool


def make_features(settings: FeaturesSettings) -> Path:
    """Write one feature vector per field, or per cell; a run that was cut off does what it lacks, as does one
    whose images change.

    Per view, the mean over positions of the network's last feature maps is divided by its length; a view and
    its mirror image are averaged and divided by the length again; the scales are joined and divided by the
    length. This is how the competition's 15th place made what it clustered.

    Returns:
        Path of the npz file; its rows are in the order of the fields.

    Raises:
        InputError: member or data cannot be used; a field that cannot be read is named; or another process
            makes the same file.
    """
    make = _make_features
    if settings.cells:
        from hpa_kit.training.cell_features import make_cell_features as make
    with regular_path(settings.out) as path:
        out = written_file(path)
        remove_stale(out.parent)
        with locked(out.with_name(f".{out.name}.lock")):
            make(settings.model_copy(update={"out": out}))
    return settings.out


def _make_features(settings: FeaturesSettings) -> None:
    member = load_member(settings.member, settings.device, networks=("cam", "arcface"))
    folders = _folders(settings, member)
    views = views_of(settings, member)
    parts = _Parts(settings.out, _source(member, views, settings.amp), stamps_of_folders(folders))
    missing = [id for id in folders if id not in parts.done]
    forecast = Forecast("features", len(missing), settings.batch)
    with progress_bar("features", len(folders), initial=len(folders) - len(missing)) as bar:
        for ids, values in _made(member, {id: folders[id] for id in missing}, views, settings):
            parts.add(ids, values)
            forecast.add(len(ids))
            bar.update(len(ids))
    parts.finish(list(folders))


def views_of(settings: FeaturesSettings, member: Member) -> FeatureViews:
    """The views that settings ask for; sides are multiples of the stride, or the nearest that are taken.

    Scales at which it would look at a side again are left out.
    """
    size, stride = member.settings.size, member.settings.stride
    one = settings.views == "one" or (settings.views == "auto" and member.settings.sc_cam.round > 0)
    if one:
        return FeatureViews((size,), flips=False)
    wanted = [
        size if scale == 1 else max(1, round(size * scale / stride)) * stride for scale in settings.scales
    ]
    sides = [member.model.sides.nearest(side) for side in wanted]
    if sides != wanted:
        sides = list(dict.fromkeys(sides))
        log.info(
            f"features: {member.settings.backbone} does not take fields of all of {_listed(wanted)} px; "
            f"views of {_listed(sides)} px instead"
        )
    return FeatureViews(tuple(sides), flips=True)


def _listed(sides: Sequence[int]) -> str:
    return ", ".join(map(str, sides))


@torch.inference_mode()
def pooled_features(model: CamClassifier | ArcFaceNet, inputs: Sequence[Tensor], flips: bool) -> Tensor:
    """One feature vector per field, over all views.

    Args:
        model: whose feature maps are pooled.
        inputs: the same fields at each scale, uint8 (B, 4, side, side).
        flips: average each scale with its mirror image.

    Returns:
        float32 (B, n_features × scales), each row of length 1, or 0 where all features are 0.
    """
    scales = []
    for fields in inputs:
        mirrored = [fields, fields.flip(-1)] if flips else [fields]
        each = [functional.normalize(mean_logits(model.forward_features(view)), dim=1) for view in mirrored]
        scales.append(functional.normalize(torch.stack(each).mean(dim=0), dim=1))
    return functional.normalize(torch.cat(scales, dim=1), dim=1)


def _made(
    member: Member, folders: dict[str, Images], views: FeatureViews, settings: FeaturesSettings
) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """IDs and features of batches of fields; threads read ahead of the network."""
    device = next(member.model.parameters()).device
    amp = settings.amp and device.type == "cuda"

    def read(id: str) -> tuple[str, Inputs]:
        field = read_field(folders[id], id, member.settings.in_channels, threads=1)
        return id, {side: resize_field(field, side) for side in views.sides}

    with ThreadPoolExecutor(settings.workers) as pool:
        fields = run_ahead(pool, read, folders, settings.batch + settings.workers)
        for some in batches(fields, settings.batch):
            ids = [id for id, _ in some]
            inputs = [
                torch.from_numpy(np.stack([one[side] for _, one in some])).to(device) for side in views.sides
            ]
            with torch.autocast(device.type, dtype=torch.float16, enabled=amp):
                values = pooled_features(member.model, inputs, views.flips).cpu().numpy()
            _refuse_infinite(values, ids)
            yield ids, values


def _refuse_infinite(values: NDArray[np.float32], ids: list[str]) -> None:
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        id = ids[int(np.flatnonzero(bad)[0])]
        raise InputError(
            f"features: the network gives values that are not finite for ID {id}; try --no-amp, or another "
            "member"
        )


def _folders(settings: FeaturesSettings, member: Member) -> dict[str, Images]:
    """Where the images of each field lie: the labelled ones in training, else all that are there."""
    folder = DataFolder(settings.data, settings)
    if settings.split == "train" and (folder.root / "train.csv").is_file():
        names = ("data", "channels", "pixel_size", "stack", "external", "external_images", "external_mode")
        asked = {name: getattr(settings, name) for name in names}
        return labelled_fields(member.settings.model_copy(update=asked)).folders
    return dict.fromkeys(folder.fields(settings.split).ids, folder.images(settings.split))


def _source(member: Member, views: FeatureViews, amp: bool) -> str:
    """A text that changes where the checkpoint's content, the views, the precision or the kit do."""
    digest = sha256(Path(member.info["path"]))
    return f"{digest} sides {views.sides} flips {views.flips} amp {amp} by {__version__}"


class _Parts:
    """Features that are kept while others are made, in a folder beside the file that they end in.

    Those of other networks, views or images are not taken.

    Args:
        out: the file.
        source: of network and views.
        stamps: {ID: of its images}.

    Attributes:
        done: the features that there are, by ID.
    """

    def __init__(self, out: Path, source: str, stamps: dict[str, str]) -> None:
        self.out, self.source, self._stamps = out, source, stamps
        self.folder = out.with_name(f"{out.name}.parts")
        there = sorted(self.folder.glob("[0-9]*.npz"))  # hidden ones are stale
        self._next = 1 + max((int(path.stem) for path in there), default=-1)
        self._waiting: list[str] = []
        self.done: dict[str, NDArray[np.float32]] = {}
        for path in [*there, *([out] if out.is_file() else [])]:
            kept = read_features(path)
            if kept.source == source and len(kept.stamps) == len(kept.ids):
                made = zip(kept.ids, kept.values, kept.stamps, strict=True)
                self.done |= {id: values for id, values, stamp in made if stamp == stamps.get(id)}

    def add(self, ids: list[str], values: NDArray[np.float32]) -> None:
        """Take features in; from time to time they are written."""
        self.done |= dict(zip(ids, values, strict=True))
        self._waiting += ids
        if len(self._waiting) >= _FIELDS_PER_PART:
            write_features(self.folder / f"{self._next:05d}.npz", self._of(self._waiting))
            self._next += 1
            self._waiting = []

    def finish(self, ids: list[str]) -> None:
        """Write the file, rows in the order of ``ids``, and remove the parts."""
        write_features(self.out, self._of(ids))
        if self.folder.is_dir():
            shutil.rmtree(self.folder)

    def _of(self, ids: list[str]) -> Features:
        values = np.stack([self.done[id] for id in ids])
        return Features(ids, values, self.source, tuple(self._stamps[id] for id in ids))
