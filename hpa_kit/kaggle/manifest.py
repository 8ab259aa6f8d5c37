"""What a bundle holds, by sha256, so that a damaged or rearranged upload is noticed on Kaggle."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from hpa_kit import __version__
from hpa_kit.kaggle.wheels import TARGET_PYTHON, find_unpacked, parse_wheel

MANIFEST = "manifest.json"


def make_manifest(files: Mapping[str, bytes]) -> str:
    """The manifest of a bundle as JSON text: versions, target Python and the sha256 of each file.

    Args:
        files: relative paths and contents.
    """
    wheels = sorted(Path(name).name for name in files if name.endswith(".whl"))
    content = {
        "name": "hpa-kit",
        "version": __version__,
        "target_python": ".".join(map(str, TARGET_PYTHON)),
        "wheels": {wheel.project: wheel.version for wheel in map(parse_wheel, wheels)},
        "files": {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)},
    }
    return json.dumps(content, indent=1) + "\n"


def check_manifest(root: str | Path) -> list[str] | None:
    """What of a mounted bundle is not as it was built, one line each; None where there is no manifest.

    A wheel that Kaggle has unpacked is as good as the file. Files that the manifest does not list are
    nobody's business.

    Args:
        root: the folder that holds ``hpa_kit/`` and ``manifest.json``.
    """
    root = Path(root)
    if not (root / MANIFEST).is_file():
        return None
    try:
        files: dict[str, str] = json.loads((root / MANIFEST).read_text(encoding="utf-8"))["files"]
        unpacked = {(wheel.project, wheel.version) for wheel in find_unpacked(root / "wheels")}
        return list(_faults(root, files, unpacked))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        return [f"{MANIFEST}: cannot be read ({' '.join(str(error).split())})"]


def _faults(root: Path, files: Mapping[str, str], unpacked: set[tuple[str, str]]) -> Iterable[str]:
    for name, expected in files.items():
        path = root / name
        if path.is_file():
            if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                yield f"{name}: not as it was built"
        elif not (name.endswith(".whl") and parse_wheel(path.name)[:2] in unpacked):
            yield f"{name}: missing"
