"""A field of view: find it, read its four channels, resize it."""

import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.data.images import decode_plane, read_header, read_image, to_8_bits
from hpa_kit.devices import cpus
from hpa_kit.errors import InputError

if TYPE_CHECKING:
    from hpa_kit.data.lab_folder import LabFolder

CHANNELS = ("red", "green", "blue", "yellow")
# In the order of preference where a channel is there twice: what lost nothing first.
ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg")

Field = NDArray[np.uint8]
# A folder of fields: of the competition's layout its path, of another one that knows how to read them.
Images: TypeAlias = "Path | LabFolder"


def find_fields(folder: "str | Images") -> list[str]:
    """Find the IDs of all fields of which a folder holds at least one channel, sorted.

    A channel's file is ``ID_red``, ``_green``, ``_blue`` or ``_yellow`` and an ending of :data:`ENDINGS` in
    any letter case. Hidden files (``._ID_red.png``) and folders are passed over, and so are the pictures of
    several channels that the Atlas offers beside them, such as ``ID_blue_red_green.jpg``.

    Raises:
        InputError: the folder is missing, or is a file.
    """
    return sorted(find_channels(folder)) if isinstance(folder, str | Path) else folder.ids


def find_channels(folder: "str | Images") -> Mapping[str, Set[str]]:
    """Find the channels that a folder holds of each field, by ID; see :func:`find_fields`.

    Raises:
        InputError: the folder is missing, or is a file.
    """
    if not isinstance(folder, str | Path):
        return folder.held()
    found: dict[str, set[str]] = {}
    for _, id, channel in _channel_files(Path(folder)):
        found.setdefault(id, set()).add(channel)
    return {id: channels for id, channels in found.items() if not _is_merged(id, channels, found)}


def holds_fields(folder: Path) -> bool:
    """Whether a folder itself holds files of channels, as the competition has them; it is not read further.

    Raises:
        InputError: as :func:`find_fields`.
    """
    return next(_channel_files(folder), None) is not None


def read_field(
    folder: "str | Images",
    id: str,
    n_channels: int = len(CHANNELS),
    threads: int | None = None,
    needed: int | Collection[str] | None = None,
) -> Field:
    """Read the channels of a field, in parallel.

    Where a channel is there in two formats the first of :data:`ENDINGS` counts. Of colour files the maximum
    over the colour planes is taken; 16 bits are scaled as :func:`hpa_kit.data.images.to_8_bits` says, and a
    ``UserWarning`` says so where a 16-bit file holds fewer.

    Args:
        folder: holds the images, such as ``train/`` of the competition; or of another layout, see
            :class:`~hpa_kit.data.lab_folder.LabFolder`.
        id: the field's ID; the files are ``ID_red.png`` and so on.
        n_channels: 3 reads red, green and blue alone: yellow need not be there and is 0.
        threads: that read one channel each; by default as many as there are processors. Where several fields
            are read at a time, one each is fastest.
        needed: how many must be there, by default all that are read, or which, by :data:`CHANNELS`; 3 of 4
            takes a field without yellow. What is not there is 0.

    Returns:
        uint8 (4, H, W), C-contiguous: red, green, blue, yellow.

    Raises:
        InputError: a channel is missing or cannot be read, or the channels differ in size.
    """
    wanted = CHANNELS[:n_channels]
    if needed is None or isinstance(needed, int):
        needed = CHANNELS[: n_channels if needed is None else needed]
    required = tuple(channel for channel in wanted if channel in needed)
    if not isinstance(folder, str | Path):
        return folder.read(id, n_channels, required)
    files = dict(zip(required, channel_paths(Path(folder), id, required), strict=True))
    first = next(iter(files.values()))
    for channel in set(wanted).difference(required):
        if (path := _beside(first, id, channel)) is not None:
            files[channel] = path
    channels = tuple(channel for channel in wanted if channel in files)
    paths, ids = [files[channel] for channel in channels], [id] * len(channels)
    threads = min(len(channels), threads or cpus())
    if threads == 1:
        planes = list(map(_read_channel, paths, channels, ids))
    else:
        with ThreadPoolExecutor(threads) as pool:
            planes = list(pool.map(_read_channel, paths, channels, ids))
    sizes = {plane.shape for plane, _ in planes}
    if len(sizes) > 1:
        found = ", ".join(
            f"{channel} {p.shape[1]} x {p.shape[0]}" for channel, (p, _) in zip(channels, planes, strict=True)
        )
        raise InputError(
            f"fields: the channels of ID {id} in {folder} differ in size: {found}; expected one size"
        )
    for bits in sorted({bits for _, bits in planes if bits not in (8, 16)}):
        # The same text for every field of a folder, so Python shows it once.
        warnings.warn(
            f"fields: 16-bit files in {folder} hold {bits} bits; scaled by what each holds", stacklevel=2
        )
    found_planes = {channel: plane for channel, (plane, _) in zip(channels, planes, strict=True)}
    return np.stack([found_planes.get(channel, np.zeros_like(planes[0][0])) for channel in CHANNELS])


def field_size(folder: "str | Images", id: str) -> tuple[int, int]:
    """Read height and width of a field, from the header of one channel, any that has a readable one.

    Raises:
        InputError: no channel is there, or none has a readable header.
    """
    if not isinstance(folder, str | Path):
        return folder.size(id)
    folder = Path(folder)
    check_id(id)
    failure = InputError(_missing(folder, id, [None] * len(CHANNELS)))
    for channel in CHANNELS:
        path = _find_channel(folder, id, channel)
        if path is None:
            continue
        try:
            with path.open("rb") as stream:
                header = read_header(stream, _where(path, channel, id))
            return header.height, header.width
        except OSError as error:
            failure = InputError(f"{_where(path, channel, id)} cannot be read: {error.strerror}")
        except InputError as error:
            failure = error
    raise failure


def lab_scale(folder: "Images", id: str) -> tuple[float, float]:
    """Tell at which scale a lab's field is; of the competition's layout all are taken as they are.

    Returns:
        How many pixels of 0.08 µm one of its pixels is wide, and how many times wider the field is than the
        fields of 2048² such pixels that networks know; 1 where that is not known.

    Raises:
        InputError: its image cannot be read, or is far larger or smaller than those fields.
    """
    return (1.0, 1.0) if isinstance(folder, Path) else (folder.scale(id), folder.zoom(id))


def lab_pixel(folder: "Images", id: str) -> float | None:
    """Tell the micrometres of a pixel of a lab's field, or None where it is not known.

    Raises:
        InputError: its image cannot be read.
    """
    return None if isinstance(folder, Path) else folder.pixel(id)


def resize_field(field: Field, size: int) -> Field:
    """Resize a field to a square of ``size`` pixels: bilinear, the aspect ratio is lost.

    Args:
        field: uint8 (4, H, W).
        size: side of the result in pixels.

    Returns:
        uint8 (4, size, size), C-contiguous.

    Raises:
        InputError: the field has another dtype or shape, or the size is below 1.
    """
    if field.dtype != np.uint8 or field.ndim != 3 or 0 in field.shape:
        raise InputError(f"field: expected uint8 (4, H, W), found {field.dtype} {field.shape}")
    if size < 1:
        raise InputError(f"field: cannot be resized to {size} pixels; expected 1 or more")
    if field.shape[1:] == (size, size):
        return field.copy()
    resized = [cv2.resize(plane, (size, size), interpolation=cv2.INTER_LINEAR) for plane in field]
    return np.stack(resized)


def check_id(id: object) -> None:
    """Refuse what cannot name a field's files.

    Raises:
        InputError: the ID is no text, is empty, or would lead out of its folder.
    """
    if not isinstance(id, str):
        raise InputError(
            f"fields: an ID is text, found {type(id).__name__} {id!r}; read tables with read_labels"
        )
    if not id or "/" in id or "\\" in id or "\0" in id:
        raise InputError(f"fields: {id!r} is no ID; expected text without / and \\")


def _channel_files(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Name, ID and channel of every channel file, in one pass over the folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, ending = os.path.splitext(entry.name)  # noqa: PTH122 - a Path for each of 87,000 files is slow
                id, _, channel = stem.rpartition("_")
                if (
                    not id
                    or channel not in CHANNELS
                    or ending.lower() not in ENDINGS
                    or entry.name.startswith(".")
                ):
                    continue
                if not entry.is_dir():
                    yield entry.name, id, channel
    except FileNotFoundError:
        raise InputError(
            f"fields: {folder} is missing; expected a folder with ID_red.png and so on"
        ) from None
    except NotADirectoryError:
        raise InputError(f"fields: {folder} is a file; expected a folder with ID_red.png and so on") from None
    except OSError as error:
        raise InputError(f"fields: {folder} cannot be read: {error.strerror}") from None


def _is_merged(id: str, channels: Set[str], fields: Collection[str]) -> bool:
    """Whether an ID is none: its files are pictures of several channels, whose names list these.

    ``k_blue_red_green.jpg`` looks like channel green of ``k_blue_red``. An ID may end in colours of its own,
    so a field that could be read stays one; and a merged picture lists no channel twice.

    Args:
        id: what the files would be the channels of.
        channels: which of its channels are there.
        fields: all such IDs of the folder.
    """
    if channels >= {"red", "green", "blue"}:
        return False
    base, _, last = id.rpartition("_")
    listed: list[str] = []
    while base and last in CHANNELS and last not in {*listed, *channels}:
        listed.append(last)
        if base in fields or len(listed) > 1:
            return True
        base, _, last = base.rpartition("_")
    return False


def channel_paths(folder: "Images", id: str, channels: Sequence[str] = CHANNELS) -> list[Path]:
    """Find the files of a field's channels, which may be one that holds all of them.

    Raises:
        InputError: one is missing.
    """
    if not isinstance(folder, Path):
        return folder.paths(id)
    check_id(id)
    paths = [_find_channel(folder, id, channel) for channel in channels]
    found = [path for path in paths if path is not None]
    if len(found) < len(channels):
        raise InputError(_missing(folder, id, paths, channels))
    return found


def _beside(path: Path, id: str, channel: str) -> Path | None:
    """A channel's file by its likely names, or ending as another channel's does; no folder is listed."""
    stem = f"{id}_{channel}"
    same = path.with_name(stem + path.suffix)
    return _likely(path.parent, stem) or (same if same.is_file() else None)


def _likely(folder: Path, stem: str) -> Path | None:
    for ending in ENDINGS:
        for name in (stem + ending, stem + ending.upper()):
            path = folder / name
            if os.path.isfile(path):  # noqa: PTH113 - False, not an error, where the name is too long
                return path
    return None


def _find_channel(folder: Path, id: str, channel: str) -> Path | None:
    """A channel's file by asking for its likely names; the folder is only listed when none is there."""
    found = _likely(folder, f"{id}_{channel}")
    if found is not None:
        return found
    names = [name for name, *parts in _channel_files(folder) if parts == [id, channel]]
    order = {os.path.splitext(name)[1].lower(): name for name in sorted(names)}  # noqa: PTH122
    return next((folder / order[ending] for ending in ENDINGS if ending in order), None)


def _missing(folder: Path, id: str, paths: list[Path | None], channels: Sequence[str] = CHANNELS) -> str:
    """One line that names every channel file that is not there."""
    ending = next((path.suffix for path in paths if path), ".png")
    names = [f"{id}_{channel}{ending}" for channel, path in zip(channels, paths, strict=True) if path is None]
    *others, last = channels
    if len(names) == len(channels):
        expected = ", _".join([f"{id}_{others[0]}.png", *others[1:]]) + f" and _{last}"
        return f"fields: {folder} has no image of ID {id}; expected {expected}"
    listed = " and ".join(str(folder / name) for name in names)
    verb = "is" if len(names) == 1 else "are"
    return f"fields: {listed} {verb} missing; ID {id} needs {', '.join(others)} and {last}"


def _read_channel(path: Path, channel: str, id: str) -> tuple[Field, int]:
    where = _where(path, channel, id)
    return to_8_bits(decode_plane(read_image(path, where), where))


def _where(path: Path, channel: str, id: str) -> str:
    return f"fields: {path} ({channel} of ID {id})"
