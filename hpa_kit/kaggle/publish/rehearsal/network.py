"""Running one notebook apart: no network, no settings of the user's, no home but an empty one."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.errors import InputError
from hpa_kit.progress import Bar, progress_bar

STAGE = Path(__file__).with_name("stage.py")
NAMESPACES = (["unshare", "--map-root-user", "--net"], ["unshare", "--net"])


class Offline(NamedTuple):
    """How the network is off: words before a command, variables for it, and what to call it."""

    words: list[str]
    variables: dict[str, str]
    name: str


class Played(NamedTuple):
    """What came of a notebook: all it printed, and what ended it early, if anything did."""

    printed: str
    fault: str | None


def offline() -> Offline:
    """Find how to be offline: a network namespace where the user may have one, else blocked sockets."""
    for words in NAMESPACES:
        if shutil.which(words[0]) is None:
            break
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            return Offline(list(words), {}, f"a network namespace ({' '.join(words)})")
    blocked = "blocked sockets, as this user may have no network namespace"
    return Offline([], {"HPA_KIT_NO_NETWORK": "1"}, blocked)


def play(python: Path, how: Offline, task: Mapping[str, Any], variables: Mapping[str, str]) -> Played:
    """Execute a notebook.

    Args:
        python: of the rehearsal's environment.
        how: the network is off.
        task: what ``stage.py`` reads.
        variables: of the environment, beside the few that any process needs.

    Raises:
        InputError: it could not even begin, the network was on, or inputs could be written to.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="hpa-kit-home-") as home, tempfile.TemporaryFile("w+") as output:
        own = {"HOME": home, "TMPDIR": home, "OMP_WAIT_POLICY": "PASSIVE"}
        with subprocess.Popen(
            [*how.words, str(python), "-P", str(STAGE)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.PIPE,
            env={**kept, **how.variables, **own, **variables},
            text=True,
        ) as process:
            assert process.stdin is not None and process.stderr is not None
            with suppress(BrokenPipeError), process.stdin:  # it ended before it read: its error says why
                process.stdin.write(json.dumps(task))
            last = _watched(process.stderr, Path(task["notebook"]).stem)
        output.seek(0)
        printed = output.read()
    if process.returncode:
        reason = last or "it said nothing"
        raise InputError(f"rehearsal: {python} cannot execute notebooks: {reason}; delete its environment")
    found = json.loads(printed.splitlines()[-1])
    if found["network"]:
        raise InputError(f"rehearsal: the network is not off by {how.name}; nothing here is as on Kaggle")
    if found["writable"]:
        raise InputError(f"rehearsal: {task['inputs']} can be written to; on Kaggle inputs cannot")
    return Played(found["printed"], found["fault"])


def _watched(lines: Iterable[str], name: str) -> str:
    """Show each cell as the stage says that it begins; the last line that says anything else."""
    last, cells = "", ExitStack()
    with cells:
        bar: Bar | None = None
        for line in lines:
            begun = re.fullmatch(r"cell \d+ of (\d+)", line.strip())
            if begun is None:
                last = line.strip() or last
            elif bar is None:  # the first cell begins, none is done
                bar = progress_bar(f"rehearsal: {name}", int(begun[1]), "cell")
                cells.callback(bar.__exit__, None, None, None)
            else:
                bar.update()
    return last
