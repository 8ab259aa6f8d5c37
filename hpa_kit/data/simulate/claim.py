"""Taking a folder for a simulation without touching what somebody else put there."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from hpa_kit.config import SimulateSettings, Split, make_settings, read_yaml
from hpa_kit.data.simulate.plan import SPLITS, field_id
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text

MARKER = "simulation.yaml"
CHANNEL_FILES = ("red", "green", "blue", "yellow")
TABLES = ("train.csv", "sample_submission.csv", "truth.csv", "truth_train.csv")


def field_files(folder: Path, split: Split, field: str) -> list[Path]:
    """The files of one field; its label maps come last, they are written last."""
    images = [folder / split / f"{field}_{channel}.png" for channel in CHANNEL_FILES]
    return [*images, folder / "masks" / f"{field}.npz"]


def claim(settings: SimulateSettings) -> bool:
    """Make the folder ready and mark it as a simulation with these settings.

    Fields that another version of the simulator drew from the same settings are removed, nothing else
    ever is. Hidden files do not count.

    Returns:
        Whether the folder holds fields of these very settings, to be kept.

    Raises:
        InputError: the folder is a file, or holds something other than a simulation with these settings.
    """
    folder, marker = settings.out, settings.out / MARKER
    if folder.exists() and not folder.is_dir():
        raise InputError(f"simulate: {folder} is a file; expected a folder to write")
    ours = _content(settings)
    # Before the marker is looked for: what another process that begins now puts here comes after its marker.
    strangers = folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir())
    if not marker.exists():
        if strangers:
            raise InputError(
                f"simulate: {folder} holds files but no {MARKER}, so it is no earlier simulation; "
                "name a new or an empty folder"
            )
        atomic_text(marker, _text(ours))
        return False
    earlier = _earlier(marker)
    _refuse_other_settings(marker, earlier, ours)
    _refuse_strangers(settings)
    if earlier == ours:
        return True
    _remove(settings)
    atomic_text(marker, _text(ours))
    return False


def _content(settings: SimulateSettings) -> dict[str, Any]:
    """All that decides the bytes: the settings without place and processes, and the code that draws."""
    return {"drawn_by": _code()} | _chosen(settings)


def _chosen(settings: SimulateSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude={"out", "workers"})


def _earlier(marker: Path) -> dict[str, Any]:
    """What a marker says, in the form of :func:`_content`."""
    values = read_yaml(marker)
    drawn_by = values.pop("drawn_by", None)
    said = make_settings(SimulateSettings, values, {"out": marker.parent}, source=str(marker))
    return {"drawn_by": drawn_by} | _chosen(said)


def _code() -> str:
    """A mark that changes with the simulator and what it draws with, so that no older field is kept."""
    digest = hashlib.sha256(f"numpy {np.__version__} opencv {cv2.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _text(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False)


def _refuse_other_settings(marker: Path, earlier: dict[str, Any], ours: dict[str, Any]) -> None:
    for key in ours.keys() - {"drawn_by"}:
        if earlier[key] != ours[key]:
            raise InputError(
                f"simulate: {marker} says {key} {earlier[key]}, asked for is {ours[key]}; "
                "name another folder, or delete this one to simulate anew"
            )


def _files(settings: SimulateSettings) -> Iterator[Path]:
    for number, split in enumerate(SPLITS):
        for index in range(settings.train if split == "train" else settings.test):
            yield from field_files(settings.out, split, field_id((settings.seed, number, index)))


def _refuse_strangers(settings: SimulateSettings) -> None:
    known = set(_files(settings))
    for part in (*SPLITS, "masks"):
        for path in sorted((settings.out / part).glob("*")):
            if path not in known and not path.name.startswith("."):
                raise InputError(
                    f"simulate: {path} was not written by the simulation in this folder; "
                    "move it away or name another folder"
                )


def _remove(settings: SimulateSettings) -> None:
    for path in (*_files(settings), *(settings.out / name for name in TABLES)):
        path.unlink(missing_ok=True)
