"""What an unfinished step keeps in a folder of many small files, taken along to the next session as one."""

import zipfile
from pathlib import Path

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path
from hpa_kit.plan import Step
from hpa_kit.progress import say

_OPTION = "--cache"


def pack_kept(step: Step) -> None:
    """Put the files of a step's ``--cache`` folder, if it has any, into an archive beside what it writes."""
    folder = _folder(step)
    files = sorted(folder.glob("[!.]*")) if folder is not None and folder.is_dir() else []
    if not files:
        return
    try:
        with atomic_path(archive_of(step)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for path in files:  # which are compressed already
                archive.write(path, path.name)
    except (OSError, InputError) as error:
        say(f"recipe: what {step.title} has worked out so far cannot be kept ({error})")


def unpack_kept(step: Step) -> None:
    """Put back what :func:`pack_kept` has kept and the folder lacks; each file says what it was made of."""
    folder, path = _folder(step), archive_of(step)
    if folder is None or not path.is_file():
        return
    try:
        with zipfile.ZipFile(path) as archive:
            lacking = [name for name in archive.namelist() if not (folder / Path(name).name).exists()]
            for name in lacking:
                with atomic_path(folder / Path(name).name) as temporary:
                    temporary.write_bytes(archive.read(name))
    except (zipfile.BadZipFile, OSError, InputError) as error:
        say(f"recipe: {path} cannot be used ({error}); {step.title} begins anew")
        return
    if lacking:
        say(f"recipe: {step.title} goes on with {len(lacking)} files of an earlier session")


def archive_of(step: Step) -> Path:
    """Where the archive lies."""
    return step.out.with_name(f"{step.out.stem}_kept.zip")


def _folder(step: Step) -> Path | None:
    return Path(step.command[step.command.index(_OPTION) + 1]) if _OPTION in step.command else None
