"""What results depend on: the one contract of everything that goes on after a kill.

Results of an earlier call are taken for one's own where three things have stayed:

* what all of them depend on: settings, the contents of files, the kit's version (:func:`depends_on`);
* what a single field's result depends on: its files, by name, size and time (:func:`field_stamps`);
* in a folder, or a file, that says of which settings it is: all settings but those that only say where
  things lie and what computes (:func:`differences`; :func:`refuse_other_settings` says what differs).

Where the results lie, and in which format, is their owner's to say.
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hpa_kit import __version__
from hpa_kit.config.base import Settings
from hpa_kit.errors import InputError

BEST = "best.safetensors"  # in a run folder: the member, and all of it that results depend on
WEIGHT_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
LETTERS = 32
# A variable: where it is set, images are known by names and sizes. Mounted anew, as in each session of a
# recipe, they have other times.
TIMELESS = "HPA_KIT_TIMELESS_IMAGES"

# A folder, or None, and which fields a file of a name may belong to.
FieldFolder = tuple[Path | None, Callable[[str], Iterable[str]]]


if TYPE_CHECKING:

    class Stamped(Protocol):
        """A folder of fields that tells itself what a field's results depend on, such as a lab's."""

        def stamps(self, ids: Iterable[str]) -> Iterator[tuple[str, list[object]]]:
            """Give of each field that is there its files by name, size and time, and how they are read."""


def depends_on(*values: Any) -> str:
    """Fingerprint values, the contents of files where they are paths, and the kit's version.

    Args:
        values: what JSON holds, mappings, sequences, and paths: files, run folders (their best checkpoint)
            and folders of weights. One that is missing has a fingerprint too; its reader will say so.

    Returns:
        a few letters, of which other values give others.
    """
    return _short(json.dumps([__version__, _plain(values)], sort_keys=True).encode())


def field_stamps(
    ids: Iterable[str], images: "Path | Stamped", others: Sequence[FieldFolder], extra: Mapping[str, object]
) -> dict[str, str]:
    """Fingerprint each field's files by name, size and time, without reading them; with :data:`TIMELESS`
    images by name and size.

    IDs with folders in them have their files there, in all of the folders.

    Args:
        ids: the fields.
        images: folder of their images, ``ID_red.png`` and the like.
        others: further folders, such as that of their label maps. Files in archives there count as if they
            lay loose, and have the same fingerprint once they are packed by this kit.
        extra: {ID: what else the field's result depends on}.

    Returns:
        {ID: a few letters}.

    Raises:
        InputError: an archive is damaged.
    """
    files: dict[str, list[object]] = {id: [] for id in ids}
    own = images if isinstance(images, Path) else None
    if not isinstance(images, Path):
        for id, made_from in images.stamps(files):
            files[id] += made_from
    folders: list[FieldFolder] = [(own, lambda name: [name.rpartition("_")[0]]), *others]
    inside, timeless = {id.rpartition("/")[0] for id in files}, bool(os.environ.get(TIMELESS))
    for place, (folder, ids_of) in enumerate(folders):
        if folder is None:
            continue
        for below in inside:
            start = f"{below}/" if below else ""
            for name, size_and_time in _files(folder / below, place > 0 and not below):
                for found in (files[start + id] for id in ids_of(name) if start + id in files):
                    size, time = size_and_time()
                    found.append([place == 0, name, size, *([] if timeless and place == 0 else [time])])
    return {
        id: _short(json.dumps([sorted(found, key=str), extra.get(id)]).encode())
        for id, found in files.items()
    }


def _files(folder: Path, archives: bool) -> Iterator[tuple[str, Callable[[], tuple[int, int | str]]]]:
    """The files of a folder by name, and what gives size and time of each; then those in its archives.

    Of a name in both the loose file counts, so that nothing changes where a kill has left both.
    """
    loose = set()
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file() and not (archives and entry.name.lower().endswith(".zip")):
                    loose.add(entry.name)
                    yield entry.name, partial(_size_and_time, entry)
    if archives:
        from hpa_kit.archives import packed_files, size_and_stamp

        for name, place in packed_files(folder).items():
            if name not in loose:
                yield name, partial(size_and_stamp, place)


def _size_and_time(entry: "os.DirEntry[str]") -> tuple[int, int]:
    stat = entry.stat()
    return stat.st_size, stat.st_mtime_ns


def stamps_of_folders(
    folders: "Mapping[str, Path | Stamped]", others: Sequence[FieldFolder] = ()
) -> dict[str, str]:
    """Fingerprint the files of fields whose images lie in several folders, as :func:`field_stamps`.

    Args:
        folders: {ID: folder of its images}.
        others: as for :func:`field_stamps`.
    """
    stamps: dict[str, str] = {}
    for images in set(folders.values()):
        stamps |= field_stamps([id for id in folders if folders[id] == images], images, others, {})
    return {id: stamps[id] for id in folders}


def differences(
    before: Settings | Mapping[str, Any],
    now: Settings | Mapping[str, Any],
    free: Collection[str] = (),
    movable: Collection[str] = (),
) -> str:
    """List the settings that differ, each with its value before and now; empty where none does.

    Args:
        before: what earlier results were made with.
        now: what one is to go on with: settings of the same class, or what a file says of itself by name.
        free: settings that may differ: where things lie and what computes, not what is computed.
        movable: settings that are files which may lie elsewhere another time, but must have the same name.
    """
    old, new = (one.model_dump(mode="json") if isinstance(one, Settings) else one for one in (before, now))
    differing = [
        name
        for name in {**new, **old}
        if name not in free and _kept(name, old, movable) != _kept(name, new, movable)
    ]
    return ", ".join(f"{name} {old.get(name)} (now {new.get(name)})" for name in differing)


def refuse_other_settings(
    what: str,
    folder: Path,
    before: Settings,
    now: Settings,
    free: Collection[str],
    movable: Collection[str] = (),
    instead: str = "another --out",
    others: Iterable[str] = (),
) -> None:
    """Refuse to go on in a folder with other settings than it was started with, in one line that names all.

    Args:
        what: the command.
        folder: where the earlier results lie.
        before, now, free, movable: as for :func:`differences`.
        instead: what else the user may give.
        others: what beside settings differs from how it was started.

    Raises:
        InputError: naming what differs.
    """
    listed = [differences(before, now, free, movable), *others]
    if any(listed):
        differing = ", ".join(filter(None, listed))
        raise InputError(
            f"{what}: the run in {folder} was started with {differing}; give these again to go on, "
            f"or {instead}"
        )


def _kept(name: str, values: Mapping[str, Any], movable: Collection[str]) -> Any:
    """What of a setting must stay: of a path, or each of several, its name."""
    value = values.get(name)
    if name not in movable:
        return value
    if isinstance(value, list):
        return [Path(one).name for one in value]
    return Path(value).name if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return _contents(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _contents(path: Path) -> Any:
    if path.is_dir():
        best = path / BEST
        files = [best] if best.is_file() else sorted(path.iterdir())
        return {file.name: _contents(file) for file in files if file.suffix in WEIGHT_ENDINGS}
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:LETTERS]
