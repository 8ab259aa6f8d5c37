"""Where Kaggle puts what is attached to a notebook, found by what it holds, not by its path.

The same dataset appears as ``/kaggle/input/<slug>``, ``/kaggle/input/datasets/<owner>/<slug>`` or one level
deeper, and a competition as ``/kaggle/input/<slug>`` or ``/kaggle/input/competitions/<slug>``.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from hpa_kit.errors import InputError

COMPETITION = "hpa-single-cell-image-classification"
INPUTS = (Path("/kaggle/input"),)
WORKING = Path("/kaggle/working")
MEMBER, LAST = "best.safetensors", "last.safetensors"
ENSEMBLE = "ensemble.yaml"

DEPTH = 8  # a model's mount: models/owner/model/framework/variation/version, and a run folder in it
ENTRIES = 2000  # a folder of more entries holds images; nothing is looked for inside it


def find_mounts(sentinel: str, roots: Iterable[str | Path] = INPUTS) -> list[Path]:
    """Find all folders under ``roots`` that hold a file, the shallowest first, then by name.

    Args:
        sentinel: relative path of the file that gives a folder away, such as ``train.csv``.
        roots: folders to look in; one that is missing holds nothing.

    A folder inside one that holds the file is not looked at.
    """
    found: list[Path] = []
    level = [Path(root) for root in roots if Path(root).is_dir()]
    for _ in range(DEPTH):
        holding = [folder for folder in level if (folder / sentinel).is_file()]
        found += holding
        level = [child for folder in level if folder not in holding for child in _subfolders(folder)]
    return found


def find_competition(override: str | Path | None = None, roots: Sequence[str | Path] = INPUTS) -> Path:
    """Find the competition's folder: a table (``sample_submission.csv`` or ``train.csv``) beside images.

    Args:
        override: the folder, where it is known; nothing is looked for then.
        roots: folders to look in.

    Raises:
        InputError: ``override`` is no folder; nothing is found; several are, and none is the competition's.
    """
    if override:
        return _existing(Path(override), "data")
    tables = {*find_mounts("sample_submission.csv", roots), *find_mounts("train.csv", roots)}
    found = sorted(
        folder for folder in tables if any((folder / split).is_dir() for split in ("train", "test"))
    )
    found = [folder for folder in found if COMPETITION in folder.parts] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"data: several folders look like the competition: {_listed(found)}; set data to the one to use"
        )
    raise InputError(
        f"data: no folder under {_listed(roots)} holds sample_submission.csv or train.csv beside train/ or "
        f"test/; attach the competition {COMPETITION}, or set data to its folder"
    )


def find_members(
    override: str | Path | Iterable[str | Path] | None = None, roots: Sequence[str | Path] = INPUTS
) -> tuple[Path, ...]:
    """Find the run folders of an ensemble's members: all folders that hold ``best.safetensors``.

    Runs whose networks find cells are no members, see :func:`find_cell_weights`.

    Args:
        override: run folders or checkpoints, or one of them; nothing is looked for then.
        roots: folders to look in.

    Raises:
        InputError: a path of ``override`` is missing; nothing is found.
    """
    if override:
        given = [override] if isinstance(override, str | Path) else override
        return tuple(_existing(Path(path), "members", folder=False) for path in given)
    from hpa_kit.training.checkpoint import finds_cells

    found = [folder for folder in find_mounts(MEMBER, roots) if not finds_cells(folder)]
    if not found:
        raise InputError(
            f"members: no folder under {_listed(roots)} holds {ENSEMBLE} or {MEMBER}; attach the dataset of "
            "your members (hpa-kit kaggle weights) or the training notebook's output, or set members to them"
        )
    return tuple(found)


def find_ensemble(override: str | Path | None = None, roots: Sequence[str | Path] = INPUTS) -> Path | None:
    """Find the ensemble's YAML: the one given, else the one attached, or None.

    Raises:
        InputError: ``override`` is missing; several are attached.
    """
    if override:
        return _existing(Path(override), "ensemble", folder=False)
    return _only([folder / ENSEMBLE for folder in find_mounts(ENSEMBLE, roots)], "ensemble")


def find_run(
    override: str | Path | None = None, roots: Sequence[str | Path] = INPUTS, used: Iterable[Any] = ()
) -> Path | None:
    """Find the run folder of an earlier session to go on from: the one given, else the one attached, or None.

    It is known by ``last.safetensors``, which members as they are uploaded do not have.

    Args:
        override: the folder, where it is known; nothing is looked for then.
        roots: folders to look in.
        used: values of other settings; a run that one of them names, or a file of it, such as the one whose
            folds are taken over (``folds_of``), is attached for that.

    Raises:
        InputError: ``override`` is missing; several are attached.
    """
    if override:
        return _existing(Path(override), "resume_from")
    named = [Path(value).resolve() for value in used if isinstance(value, str | Path)]
    found = [
        run
        for run in find_mounts(LAST, roots)
        if not any(path.is_relative_to(run.resolve()) for path in named)
    ]
    return _only(found, "resume_from")


def find_cell_weights(
    override: str | Path | None = None,
    roots: Sequence[str | Path] = INPUTS,
    ensemble: str | Path | None = None,
) -> Path | None:
    """Find the networks that find cells, published or a run: the ones given, else attached, or None.

    Args:
        override: the folder, where it is known; nothing is looked for then.
        roots: folders to look in.
        ensemble: YAML of the members; nothing is looked for where it names a folder of its own.

    Raises:
        InputError: ``override`` is no folder; several such are attached; the YAML cannot be read.
    """
    # Here, so that the bootstrap can import this room before torch and pydantic are known to be there.
    from hpa_kit.cells.weights import PUBLISHED_NAMES, SUFFIXES, find_weights
    from hpa_kit.config import read_ensemble
    from hpa_kit.training.checkpoint import finds_cells

    if override:
        return _existing(Path(override), "weights")
    if ensemble and read_ensemble(ensemble).weights is not None:
        return None
    names = [f"{name}{suffix}" for name in PUBLISHED_NAMES["nuclei"] for suffix in SUFFIXES]
    found = []
    for folder in dict.fromkeys(folder for name in names for folder in find_mounts(name, roots)):
        with suppress(InputError):  # one of the two networks alone is of no use
            find_weights(folder)
            found.append(folder)
    found += [folder for folder in find_mounts(MEMBER, roots) if folder not in found and finds_cells(folder)]
    return _only(found, "weights")


def output_path(name: str, override: str | Path | None = None, working: str | Path = WORKING) -> Path:
    """Say where a result goes: ``override``, else ``name`` in Kaggle's working folder.

    Raises:
        InputError: there is neither.
    """
    if override:
        return Path(override)
    if not Path(working).is_dir():
        raise InputError(
            f"out: {working} is missing, so this is not Kaggle; set out to where {name} shall go"
        )
    return Path(working) / name


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        first = list(islice(entries, ENTRIES + 1))
    if len(first) > ENTRIES:
        return []
    return sorted(Path(entry.path) for entry in first if entry.is_dir())


def _only(found: Sequence[Path], setting: str) -> Path | None:
    if len(found) > 1:
        raise InputError(
            f"{setting}: several are attached: {_listed(found)}; set {setting} to the one to use"
        )
    return found[0] if found else None


def _existing(path: Path, setting: str, folder: bool = True) -> Path:
    if folder and not path.is_dir():
        raise InputError(f"{setting}: {path} is no folder; set {setting} to one, or to None to look for it")
    if not path.exists():
        raise InputError(
            f"{setting}: {path} is missing; set {setting} to what is there, or to None to look for it"
        )
    return path


def _listed(paths: Iterable[str | Path]) -> str:
    return ", ".join(str(path) for path in paths)
