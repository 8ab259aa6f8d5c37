"""What a wheel asks for, and whether Kaggle's image has it. Standard library only."""

import io
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from hpa_kit.errors import InputError
from hpa_kit.kaggle.publish.markers import marker_holds
from hpa_kit.kaggle.publish.versions import admits, normalised

_MOST_METADATA = 2**24  # bytes


def requirement_fault(path: Path, python: tuple[int, int], versions: Mapping[str, str]) -> str | None:
    """Whether a wheel asks for another Python, or another version of what the image has; one line or None.

    Args:
        path: the wheel.
        python: the image's Python.
        versions: the image's packages by normalised name; what is not among them is not judged.

    Raises:
        InputError: the file is no wheel, or asks for something that cannot be read.
    """
    have = ".".join(map(str, python))
    metadata = _metadata(path, path.read_bytes())
    try:
        for key, value in metadata:
            if key == "Requires-Python" and not admits(value, f"{have}.0"):
                return f"{path.name} needs Python {value}; Kaggle has {have}"
        for name, specifier in _requirements(metadata, python):
            found = versions.get(name)
            if found and not admits(specifier, found):
                return f"{path.name} needs {name}{specifier}; Kaggle's image has {found}"
    except InputError as error:
        raise InputError(f"{error} (in {path}); take another wheel") from None
    return None


def unmet_requirements(
    path: Path, content: bytes, python: tuple[int, int], there: Collection[str]
) -> list[str]:
    """The projects that a wheel, given by name and bytes, asks for and that are not there.

    Args:
        path: to name it by.
        content: the wheel.
        python: the image's Python.
        there: normalised names.

    Raises:
        InputError: the content is no wheel.
    """
    return sorted({name for name, _ in _requirements(_metadata(path, content), python)} - set(there))


def _requirements(metadata: Iterable[tuple[str, str]], python: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Name and version specifier of each requirement; not of extras, nor those meant for other machines."""
    for key, value in metadata:
        what, _, marker = (part.strip() for part in value.partition(";"))
        found = re.fullmatch(r"([\w.-]+)\s*(?:\[.*\])?\s*(@.*|\(?[^;()@]*\)?)", what)
        if key == "Requires-Dist" and found and (not marker or marker_holds(marker, python)):
            specifier = "" if found[2].startswith("@") else found[2].strip("() ")
            yield normalised(found[1]), specifier


def _metadata(path: Path, content: bytes) -> list[tuple[str, str]]:
    """The header fields of a wheel's METADATA."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            with archive.open(name) as member:
                header = member.read(_MOST_METADATA).decode("utf-8").partition("\n\n")[0]
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        StopIteration,
    ):
        raise InputError(f"wheels: {path} is no wheel, or a damaged one; remove it and fetch again") from None
    fields = (line.partition(":") for line in header.splitlines())
    return [(key, value.strip()) for key, _, value in fields]
