"""Taking a folder for a simulation without touching what somebody else put there."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hpa_kit import __version__
from hpa_kit.config import SimulateSettings, Split, read_yaml
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

    What an earlier simulation with other settings wrote is removed, nothing else ever is.

    Returns:
        Whether the folder holds fields of these very settings, to be kept.

    Raises:
        InputError: the folder is a file or holds something other than a simulation.
    """
    folder, marker = settings.out, settings.out / MARKER
    if folder.exists() and not folder.is_dir():
        raise InputError(f"simulate: {folder} is a file; expected a folder to write")
    ours = _content(settings)
    if not marker.exists():
        if folder.exists() and any(folder.iterdir()):
            raise InputError(
                f"simulate: {folder} holds files but no {MARKER}, so it is no earlier simulation; "
                "name a new or an empty folder"
            )
        atomic_text(marker, _text(ours))
        return False
    earlier = read_yaml(marker)
    _refuse_strangers(folder, earlier)
    if earlier == ours:
        return True
    _remove(folder, earlier)
    atomic_text(marker, _text(ours))
    return False


def _content(settings: SimulateSettings) -> dict[str, Any]:
    """All that decides the bytes: the settings without place and processes, and the version of the kit."""
    chosen = settings.model_dump(mode="json", exclude={"out", "workers"})
    return {"hpa_kit": __version__, **chosen}


def _text(content: dict[str, Any]) -> str:
    return "".join(f"{key}: {_scalar(value)}\n" for key, value in content.items())


def _scalar(value: Any) -> str:
    return (
        {None: "null", True: "true", False: "false"}.get(value, str(value))
        if not isinstance(value, list)
        else str(value)
    )


def _fields(content: dict[str, Any]) -> Iterator[tuple[Split, str]]:
    for number, split in enumerate(SPLITS):
        for index in range(int(content.get(split, 0))):
            yield split, field_id((int(content.get("seed", 0)), number, index))


def _refuse_strangers(folder: Path, content: dict[str, Any]) -> None:
    known = {path for split, field in _fields(content) for path in field_files(folder, split, field)}
    for part in (*SPLITS, "masks"):
        for path in sorted((folder / part).glob("*")):
            if path not in known and not path.name.startswith("."):
                raise InputError(
                    f"simulate: {path} was not written by the simulation in this folder; "
                    "move it away or name another folder"
                )


def _remove(folder: Path, content: dict[str, Any]) -> None:
    written: Iterable[Path] = (
        path for split, field in _fields(content) for path in field_files(folder, split, field)
    )
    for path in (*written, *(folder / name for name in TABLES)):
        path.unlink(missing_ok=True)
