"""What a field's results depend on among its files, in a few letters."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

LETTERS = 32


def field_stamps(
    ids: Sequence[str], images: Path, masks: Path | None, extra: Mapping[str, object]
) -> dict[str, str]:
    """Per field what its result depends on: names, sizes and times of its files, and more.

    Args:
        ids: the fields.
        images: folder of their images.
        masks: folder of their label maps, or None.
        extra: {ID: what else}, as JSON holds it.
    """
    files: dict[str, list[object]] = {id: [] for id in ids}
    for folder, is_image in ((images, True), (masks, False)):
        if folder is None or not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                stem = entry.name.rpartition(".")[0]
                found = files.get(stem.rpartition("_")[0] if is_image else stem)
                if found is not None and entry.is_file():
                    stat = entry.stat()
                    found.append([is_image, entry.name, stat.st_size, stat.st_mtime_ns])
    return {
        id: short(json.dumps([sorted(found, key=str), extra.get(id)]).encode()) for id, found in files.items()
    }


def stamps_of_folders(folders: Mapping[str, Path], masks: Path | None = None) -> dict[str, str]:
    """As :func:`field_stamps`, of fields whose images lie in several folders: {ID: folder}."""
    stamps: dict[str, str] = {}
    for images in set(folders.values()):
        stamps |= field_stamps([id for id in folders if folders[id] == images], images, masks, {})
    return {id: stamps[id] for id in folders}


def short(data: bytes) -> str:
    """A fingerprint of bytes."""
    return hashlib.sha256(data).hexdigest()[:LETTERS]
