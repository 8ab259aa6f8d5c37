"""A folder of fields as a lab has it: images of several channels, in plates of folders, at any scale.

    images = DataFolder("plates").images("test")  # a LabFolder, where no ID_red.png and so on lies there
    field = read_field(images, "plate1/A01/f3")

What takes a folder of images takes this in its place. Fields of the competition's layout may lie deeper in
it.
"""

import logging
import math
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpa_kit.config.kinds import COLOURS, FIELD_SIDE, PIXEL_SIZE, channel_places
from hpa_kit.data.fields import CHANNELS, channel_paths, field_size, find_channels, read_field
from hpa_kit.data.kept_fields import Origin, origins
from hpa_kit.data.lab_images import LabImage, LabInfo, open_lab_image, plane_of
from hpa_kit.data.lab_tree import LabField, checksum_of, files_of, lab_fields
from hpa_kit.errors import InputError, nearest

log = logging.getLogger(__name__)

Field = NDArray[np.uint8]

# How many times larger or smaller than those a field may be; beyond, its cells are no longer seen.
MAX_ZOOM = 8.0
SAME = 0.02  # scales that differ by less are one
_NONE = -1  # the place of a channel that was not imaged
# Words by which images name the channels of a field.
_WORDS = {
    "red": {"red", "microtubule", "microtubules", "tubulin", "mt"},
    "green": {"green", "protein", "antibody", "target", "gfp", "egfp"},
    "blue": {"blue", "nucleus", "nuclei", "nuclear", "dna", "dapi", "hoechst"},
    "yellow": {"yellow", "er", "endoplasmic", "calreticulin", "calnexin", "concanavalin"},
}


@dataclass(frozen=True)
class LabFolder:
    """A folder of fields in other layouts than the competition's; fields have paths for IDs.

    An ID is the path below the folder, without the image's ending: ``plate1/A01/f3`` of
    ``plate1/A01/f3.ome.tif``, ``plate1/A/1/0`` of a field of ``plate1.zarr``, ``plate1/f3`` of
    ``plate1/f3_red.png`` and so on.

    Args:
        root: the folder.
        channels: where images have the channels, see :func:`~hpa_kit.config.kinds.channel_places`; None goes
            by their names.
        pixel_size: micrometres of a pixel; None goes by what images say, 0 leaves scale alone.
        stack: ``max`` takes the maximum over depth; ``refuse`` takes no image of several planes in depth.

    Folders are looked through when :attr:`ids` is first asked for. Threads may share it.
    """

    root: Path
    channels: str | None = None
    pixel_size: float | None = None
    stack: str = "refuse"
    _said: set[str] = field(default_factory=set, compare=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # Another process looks through the folders for itself.
        return {name: getattr(self, name) for name in ("root", "channels", "pixel_size", "stack")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _said=set(), _lock=threading.Lock())

    def __str__(self) -> str:
        return str(self.root)

    def __lt__(self, other: object) -> bool:
        return str(self) < str(other)

    @property
    def ids(self) -> list[str]:
        """The fields, sorted."""
        return list(self._fields)

    @cached_property
    def _fields(self) -> dict[str, LabField]:
        found: dict[str, LabField] = {}
        for id, one in lab_fields(self.root):
            if id in found:
                log.warning(f"fields: ID {id} is there twice: {found[id].path} counts, {one.path} does not")
            found.setdefault(id, one)
        return dict(sorted(found.items()))

    def _find(self, id: str) -> LabField:
        try:
            return self._fields[id]
        except KeyError:
            raise InputError(
                f"fields: {self} has no image of ID {id}{nearest(id, list(self._fields)[:1000])}"
            ) from None

    def read(self, id: str, n_channels: int, needed: Sequence[str]) -> Field:
        """Read a field; see :func:`~hpa_kit.data.read_field`.

        Raises:
            InputError: it is not there, cannot be read, or lacks a channel.
        """
        found = self._find(id)
        if found.id:
            return read_field(found.path, found.id, n_channels, threads=1, needed=needed)
        with self._open(id) as (image, where):
            places = self._places(image.info, where, needed)[:n_channels]
            self._say(id, image.info, places)
            planes = np.zeros((len(CHANNELS), image.info.height, image.info.width), np.uint8)
            for plane, (place, channel) in zip(planes, zip(places, CHANNELS, strict=False), strict=False):
                if place is not None and place != _NONE:
                    plane[:] = plane_of(image, place, f"fields: {found.path} ({channel} of ID {id})")
            return planes

    def held(self) -> dict[str, set[str]]:
        """Tell which of the four channels each field has; of one whose image cannot be read none."""
        inside = {one.path: find_channels(one.path) for one in self._fields.values() if one.id}
        return {
            id: {*inside[one.path].get(one.id, ())} if one.id else self._held(id)
            for id, one in self._fields.items()
        }

    def _held(self, id: str) -> set[str]:
        try:
            with self._open(id) as (image, where):
                places = self._places(image.info, where, ())
        except InputError as error:  # which reading it will say
            log.debug(str(error))
            return set()
        return {colour for colour, place in zip(COLOURS, places, strict=True) if place not in (None, _NONE)}

    def size(self, id: str) -> tuple[int, int]:
        """Read height and width of a field, from what its image says.

        Raises:
            InputError: it is not there, or cannot be read.
        """
        found = self._find(id)
        if found.id:
            return field_size(found.path, found.id)
        with self._open(id) as (image, _):
            return image.info.height, image.info.width

    def pixel(self, id: str) -> float | None:
        """Tell the micrometres of a field's pixel, or None where neither its image nor the user says it.

        Raises:
            InputError: its image is not there, or cannot be read.
        """
        if self.pixel_size is not None:
            return self.pixel_size or None
        if self._find(id).id:
            return None
        with self._open(id) as (image, _):
            return image.info.pixel_size

    def scale(self, id: str) -> float:
        """Tell how many pixels of 0.08 µm a field's pixel is wide; 1 where that is not known.

        Raises:
            InputError: as :meth:`pixel`.
        """
        pixel = self.pixel(id)
        return 1.0 if pixel is None or abs(pixel / PIXEL_SIZE - 1) < SAME else pixel / PIXEL_SIZE

    def zoom(self, id: str) -> float:
        """Tell how many times wider a field is than those that networks know; 1 where that is not known.

        Of a field that is no square it is the square root of how many times its area is theirs.

        Raises:
            InputError: as :meth:`pixel`; or it is far larger or smaller than any that networks could see.
        """
        pixel = self.pixel(id)
        if pixel is None:
            return 1.0
        found = math.sqrt(math.prod(self.size(id))) * pixel / (PIXEL_SIZE * FIELD_SIDE)
        if not 1 / MAX_ZOOM <= found <= MAX_ZOOM:
            known = PIXEL_SIZE * FIELD_SIDE
            raise InputError(
                f"fields: ID {id} in {self} covers {found * known:.0f} µm, {pixel:g} µm a pixel; "
                f"networks know {known:.0f} µm and take {1 / MAX_ZOOM:g} to {MAX_ZOOM:g} times "
                "that; give its pixel_size, 0 to take it as it is, or other images"
            )
        return 1.0 if abs(found - 1) < SAME else found

    def paths(self, id: str) -> list[Path]:
        """List what a field is read from.

        Raises:
            InputError: it is not there.
        """
        found = self._find(id)
        return channel_paths(found.path, found.id, CHANNELS[:1]) if found.id else [found.path]

    def origins(self, id: str, n_channels: int, checksums: bool = True) -> list[Origin]:
        """Tell what a field's first channels were made from, as it is now: a place in its image for each.

        Raises:
            InputError: an image is not there, cannot be read, or lacks a channel.
        """
        found = self._find(id)
        if found.id:
            return origins(found.path, found.id, n_channels)
        with self._open(id) as (image, where):
            places = self._places(image.info, where, CHANNELS[:n_channels])[:n_channels]
            scale = "" if self.pixel_size is None else f" of {self.pixel_size:g} µm"
        files = list(files_of(found.path))
        checksum = checksum_of(found.path, files) if checksums else 0
        size, modified = sum(file.bytes for file in files), max(file.modified for file in files)
        return [Origin(f"{id}:{place}{scale}", size, modified, checksum) for place in places]

    def differing(self, before: Sequence[Origin], id: str, n_channels: int) -> str | None:
        """Name the first channel that is another than a kept field was made from, or None.

        Raises:
            InputError: as :meth:`origins`.
        """
        now = self.origins(id, n_channels, checksums=False)
        for old, new in zip(before, now, strict=False):
            if (old.name, old.bytes) != (new.name, new.bytes):
                return old.name
            if old.modified != new.modified:
                return next(
                    (
                        old.name
                        for old, new in zip(before, self.origins(id, n_channels), strict=False)
                        if old.checksum != new.checksum
                    ),
                    None,
                )
        return None

    def stamps(self, ids: Iterable[str]) -> Iterator[tuple[str, list[object]]]:
        """Give of each field that is there its files by name, size and time, and how they are read."""
        how = [self.channels, self.pixel_size, self.stack]
        for id in ids:
            if (found := self._fields.get(id)) is None:
                continue
            own = sorted(found.path.glob(f"{escape(found.id)}_*.*")) if found.id else [found.path]
            yield id, [*(file for path in own for file in files_of(path)), how]

    @contextmanager
    def _open(self, id: str) -> Iterator[tuple[LabImage, str]]:
        path = self._find(id).path
        where = f"fields: {path} (ID {id})"
        with open_lab_image(path, where) as image:
            if image.info.times > 1:
                raise InputError(
                    f"{where} holds {image.info.times} points of time; expected one; each is a field "
                    "of its own"
                )
            if image.info.depth > 1 and self.stack != "max":
                raise InputError(
                    f"{where} holds {image.info.depth} planes in depth; expected one; --stack max takes the "
                    "maximum over them"
                )
            yield image, where

    def _places(self, info: LabInfo, where: str, needed: Sequence[str]) -> list[int | None]:
        """Where an image has red, green, blue and yellow; None for what it has not.

        Raises:
            InputError: one that is needed is not there, or it is not said which is which.
        """
        given = None if self.channels is None else channel_places(self.channels)
        if given is None:
            found = {colour: self._by_words(info, colour, where) for colour in COLOURS}
        else:
            found = {colour: _by_name(info, colour, place, where) for colour, place in given.items()}
        lacking = [colour for colour in needed if found.get(colour) is None]
        if lacking:
            advice = "expected all of red, green, blue and yellow in --channels" if given else (
                "say which is which: --channels red=…,green=…,blue=…,yellow=…, by place from 0 on or by name"
            )  # fmt: skip
            if lacking == ["yellow"]:
                advice += ", or yellow=none where it was not imaged"
            raise InputError(f"{where} has no {', '.join(lacking)}; found {_listed(info)}; {advice}")
        return [found.get(colour) for colour in COLOURS]

    @staticmethod
    def _by_words(info: LabInfo, colour: str, where: str) -> int | None:
        words = [set(re.split(r"[^a-z0-9]+", name.lower())) for name in info.names]
        found = [place for place, of in enumerate(words) if of & _WORDS[colour]]
        if len(found) > 1:
            raise InputError(
                f"{where} has several that may be {colour}; found {_listed(info)}; say which with --channels"
            )
        return found[0] if found else None

    def _say(self, id: str, info: LabInfo, places: Sequence[int | None]) -> None:
        """Tell once what is read of images of one kind, and at which scale."""
        shown = ", ".join(
            f"{colour} is {_named(info, place)}" if place is not None else f"no {colour}"
            for colour, place in zip(COLOURS, places, strict=False)
        )
        others = [k for k in range(info.channels) if k not in places]
        left = f"; left out: {', '.join(_named(info, k) for k in others)}" if others else ""
        depth = f"; the maximum of {info.depth} planes in depth" if info.depth > 1 else ""
        pixel = self.pixel_size or (None if self.pixel_size == 0 else info.pixel_size)
        size = "no pixel size, so that it is taken as it is" if pixel is None else f"{pixel:g} µm a pixel"
        line = f"{shown}{left}{depth}; {size}"
        with self._lock:
            if line in self._said:
                return
            self._said.add(line)
        log.info(f"fields: {self}, such as ID {id}: {line}")


def _named(info: LabInfo, place: int) -> str:
    if place == _NONE:
        return "none, black"
    return f"{place} {info.names[place]!r}" if info.names else f"{place}"


def _listed(info: LabInfo) -> str:
    if not info.names:
        return f"{info.channels} without names" if info.channels > 1 else "one without a name"
    return ", ".join(_named(info, place) for place in range(info.channels))


def _by_name(info: LabInfo, colour: str, place: str, where: str) -> int:
    """The number of a channel that was given by its place or its name."""
    if place.lower() == "none":
        return _NONE
    lower = [name.lower() for name in info.names]
    if place.lower() in lower:
        return lower.index(place.lower())
    if place.isascii() and place.isdigit() and int(place) < info.channels:
        return int(place)
    raise InputError(f"{where} has no channel {place}, which is to be {colour}; found {_listed(info)}")
