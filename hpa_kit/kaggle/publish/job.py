"""A job on Kaggle that takes days, and how far it is: one small file, by which the same command goes on.

The file says what was about to be done before it is done, and what came of it after. Where an end is missing
Kaggle is asked. Standard library only.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text
from hpa_kit.locks import locked

FILE = "job.json"
JOBS = Path("on-kaggle")  # in the checkout; a folder per job


class Job:
    """What a job has done so far; every change is on the disk at once.

    Args:
        folder: of the job, whose file is read where there is one.

    Raises:
        InputError: the file is none of a job.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / FILE
        self.kept: dict[str, Any] = {}
        try:
            self.kept = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path}: no JSON: {error}; --anew begins again") from None
        if not isinstance(self.kept, dict):
            raise InputError(f"{self.path}: no state of a job; --anew begins again")

    def keep(self, **changes: Any) -> None:
        """Change some of it."""
        self.kept |= changes
        self.write()

    def write(self) -> None:
        """Write it, after a change of something inside."""
        atomic_text(self.path, json.dumps(self.kept, indent=1) + "\n")

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """What is known of each notebook's version that was pushed, the latest last."""
        found: list[dict[str, Any]] = self.kept.setdefault("sessions", [])
        return found

    def versions(self) -> dict[str, int]:
        """The last version of each notebook that is known, also of jobs that were given up."""
        known: dict[str, int] = dict(self.kept.get("versions", {}))
        for session in self.sessions:
            known[session["slug"]] = max(known.get(session["slug"], 0), session.get("version") or 0)
        return known

    def unfinished(self) -> dict[str, Any] | None:
        """The version that an earlier call was about to push, or was following."""
        return self.sessions[-1] if self.sessions and "ended" not in self.sessions[-1] else None

    def add_session(self, slug: str, **more: Any) -> dict[str, Any]:
        """Add a version that is about to be pushed, with a mark by which it is known again."""
        session = {"slug": slug, "mark": secrets.token_hex(6), **more}
        self.sessions.append(session)
        self.write()
        return session


@contextmanager
def open_job(folder: Path, command: str, anew: bool = False) -> Iterator[Job]:
    """Give a job to one process at a time.

    Args:
        folder: of the job.
        command: what goes on with it.
        anew: what was done before does not count.

    Raises:
        InputError: another process has it, or its file is damaged.
    """
    with locked(folder / ".lock"):
        known: dict[str, int] = {}
        if anew:
            with suppress(InputError):
                known = Job(folder).versions()
            (folder / FILE).unlink(missing_ok=True)
        job = Job(folder)
        job.keep(command=command, **({"versions": known} if known else {}))
        yield job


def find_unfinished(source: Path) -> Iterator[tuple[Path, str]]:
    """Find the jobs of a checkout that were begun and not ended: their files, and what goes on with each.

    Raises:
        InputError: a file is none of a job.
    """
    for path in sorted((source / JOBS).glob(f"*/{FILE}")):
        job = Job(path.parent)
        if not job.kept.get("done") and "command" in job.kept:
            yield path, str(job.kept["command"])
