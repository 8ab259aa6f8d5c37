"""What results depend on, in a few letters: results of something else are not taken for one's own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpa_kit import __version__
from hpa_kit.data.stamps import field_stamps as field_stamps  # noqa: PLC0414 - the other half of a fingerprint
from hpa_kit.data.stamps import short
from hpa_kit.training.checkpoint import BEST

WEIGHT_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")


def depends_on(*values: Any) -> str:
    """A fingerprint of values, of the contents of files where they are paths, and of the kit's version.

    Args:
        values: what JSON holds, mappings, sequences, and paths: files, run folders (their best checkpoint)
            and folders of weights. One that is missing has a fingerprint too; its reader will say so.
    """
    return short(json.dumps([__version__, _plain(values)], sort_keys=True).encode())


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
