"""The folder that all of this is about: a checkout of the kit, with notebooks, wheels and metadata."""

from pathlib import Path

from hpa_kit.errors import InputError

MARKS = ("hpa_kit/__init__.py", "notebooks", "wheels/requirements.txt")


def find_checkout(source: str | Path | None = None) -> Path:
    """The checkout: the one given, else the working folder where it is one, else where this file lies.

    Raises:
        InputError: it is none; a part that is missing is named.
    """
    own = Path(__file__).resolve().parents[3]
    candidates = [Path(source)] if source is not None else [Path(), own]
    for folder in candidates:
        if all((folder / mark).exists() for mark in MARKS):
            return folder
    missing = next(mark for mark in MARKS if not (candidates[0] / mark).exists())
    here = candidates[0].resolve()
    raise InputError(f"kaggle: {here} is no checkout of hpa-kit: {missing} is missing; run this in one")
