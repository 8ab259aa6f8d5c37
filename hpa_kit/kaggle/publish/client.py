"""What the installed Kaggle client says of our folders and commands, without account, network or upload."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.errors import InputError

SCRIPT = Path(__file__).with_name("offline_client.py")
OWN = ".venv-client"  # environment of `make client`
# What the client prints of things that it lets pass although they go wrong later.
DOUBTS = ("error", "not valid", "Skipping", "does not resolve")


class Outcome(NamedTuple):
    """What the client did with a command."""

    command: str
    version: str  # of the client
    fault: str | None  # why it refused, or what it warned of
    files: list[str]  # it would upload
    requests: list[dict[str, Any]]  # it would send


def find_client(source: Path) -> Path | None:
    """Find the Python that has the Kaggle client: the checkout's own for it, this one, or ``kaggle``'s."""
    own = source / OWN / "bin" / "python"
    if own.is_file():
        return own
    if importlib.util.find_spec("kaggle") is not None and importlib.util.find_spec("kaggle.api") is not None:
        return Path(sys.executable)
    script = shutil.which("kaggle")
    if script is None:
        return None
    with Path(script).open("rb") as file:
        first = re.match(rb"#!\s*(\S+)", file.readline())
    python = Path(os.fsdecode(first[1])) if first else None
    return python if python is not None and python.is_file() and "python" in python.name else None


def dry_run(python: Path, commands: Sequence[str], folder: Path) -> list[Outcome]:
    """Let the client do all of some commands that needs no server: parse them, check files, form requests.

    It sees neither a home nor any setting of the user's, so no account either.

    Args:
        python: see :func:`find_client`.
        commands: such as ``kaggle kernels push -p .``.
        folder: where they are run.

    Raises:
        InputError: the client cannot be run.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
    words = [shlex.split(command) for command in commands]
    with tempfile.TemporaryDirectory(prefix="hpa-kit-client-") as home:
        done = subprocess.run(
            [str(python), "-P", str(SCRIPT)],
            input=json.dumps(words),
            env={**kept, "HOME": home, "KAGGLE_CONFIG_DIR": home, "PYTHONUSERBASE": site.getuserbase()},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(
            f"kaggle client: {python} cannot run it ({reason}); {python} -m pip install --upgrade kaggle six"
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return [
        Outcome(command, one["version"], _fault(one), one["files"], one["requests"])
        for command, one in zip(commands, found, strict=True)
    ]


def _fault(outcome: dict[str, Any]) -> str | None:
    lines = [*outcome["errors"].strip().splitlines(), *outcome["printed"].strip().splitlines()]
    if outcome["status"]:
        return lines[-1] if lines else f"status {outcome['status']}"
    doubtful = [line for line in lines if any(doubt in line for doubt in DOUBTS)]
    return doubtful[0] if doubtful else None
