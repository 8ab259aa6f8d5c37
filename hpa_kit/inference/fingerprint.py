"""What results depend on, in a few letters: results of something else are not taken for one's own."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpa_kit import __version__
from hpa_kit.cells import label_map_ids
from hpa_kit.training.checkpoint import BEST

WEIGHT_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
LETTERS = 32


def depends_on(*values: Any) -> str:
    """A fingerprint of values, of the contents of files where they are paths, and of the kit's version.

    Args:
        values: what JSON holds, mappings, sequences, and paths: files, run folders (their best checkpoint)
            and folders of weights. One that is missing has a fingerprint too; its reader will say so.
    """
    return _short(json.dumps([__version__, _plain(values)], sort_keys=True).encode())


def field_stamps(
    ids: Sequence[str], images: Path, masks: Path | None, extra: Mapping[str, object]
) -> dict[str, str]:
    """Per field what its result depends on: names, sizes and times of its files, and more.

    Args:
        ids: the fields.
        images: folder of their images.
        masks: folder of their label maps, or None.
        extra: {ID: what else}.
    """
    files: dict[str, list[object]] = {id: [] for id in ids}
    for folder, is_image in ((images, True), (masks, False)):
        if folder is None or not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                mine = [name.rpartition("_")[0]] if is_image else label_map_ids(name)
                for found in (files[id] for id in mine if id in files):
                    if entry.is_file():
                        stat = entry.stat()
                        found.append([is_image, name, stat.st_size, stat.st_mtime_ns])
    return {
        id: _short(json.dumps([sorted(found, key=str), extra.get(id)]).encode())
        for id, found in files.items()
    }


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
