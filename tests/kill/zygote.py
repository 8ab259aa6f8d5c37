"""Starts commands of the kit quickly, each in a process of its own: the kit is imported once, then forked.

Reads a JSON object per line, answers with one. ``start`` runs a command line in a folder and answers with
the process's number; ``wait`` answers with how it ended. A command counts what it does, and may be told to
kill itself, as kill -9 does, when a count reaches a number, or to say at its end how far it has counted.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path

TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
PRELOADED = (
    "hpa_kit.cli.main hpa_kit.training.trainer hpa_kit.training.objectives.cam hpa_kit.models.cam "
    "hpa_kit.training.features hpa_kit.inference.infer_submission "
    "hpa_kit.tuning.tuning hpa_kit.inference.predict_cells hpa_kit.pseudo_labels.make "
    "hpa_kit.cells.segment hpa_kit.data.simulate hpa_kit.ablation hpa_kit.report timm torch.utils.tensorboard"
)


def main() -> None:
    for name in PRELOADED.split():
        import_module(name)
    assert all(command.settings for command in import_module("hpa_kit.cli").COMMANDS)
    answer({"ready": os.getpid()})
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            pid = os.fork()
            if pid == 0:
                run(asked)
            answer({"pid": pid})
        else:
            _, status = os.waitpid(asked["wait"], 0)
            answer({"status": os.waitstatus_to_exitcode(status)})


def answer(content: dict) -> None:
    sys.__stdout__.write(json.dumps(content) + "\n")
    sys.__stdout__.flush()


def run(asked: dict) -> None:
    """Be the command; never returns."""
    code = 99
    try:
        folder = Path(asked["folder"])
        os.chdir(folder)
        stream = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        os.close(0)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        for name, value in asked["set"].items():
            home, attribute = find(name)
            setattr(home, attribute, value)
        killed_by, at = asked["kill"] or (None, 0)
        counters = {name: Counter(at if name == killed_by else None) for name in ("file", "work", "call")}
        watch_work(asked["unit"], asked["units"], counters["work"].add, asked["meet"])
        watch_files(str(folder), counters["file"].add)
        if killed_by == "call" or asked["counts"]:
            watch_calls(counters["call"].add)
        code = import_module("hpa_kit.cli.main").main(asked["start"])
        if asked["counts"]:
            counts = {name: one.so_far() for name, one in counters.items()}
            Path(asked["counts"]).write_text(json.dumps(counts))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        arrive(asked["meet"])
        os._exit(code)


class Counter:
    """Counts, and kills its process at a number."""

    def __init__(self, at: int | None) -> None:
        self._next = count(1).__next__  # whichever thread calls it, each number comes once
        self._at = at

    def add(self) -> None:
        if self._next() == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def so_far(self) -> int:
        """How many were counted; this ends the counting."""
        return self._next() - 1


def find(name: str) -> tuple[object, str]:
    """``module:Class.name`` -> what has the name, and the name."""
    module, _, path = name.partition(":")
    home: object = import_module(module)
    *parts, last = path.split(".")
    for part in parts:
        home = getattr(home, part)
    return home, last


def watch_work(name: str, path: str, begun: Callable[[], None], meet: str | None) -> None:
    """Have every piece of work told when it begins, after a byte of it was written, which outlives a kill.

    A piece is a call, or with ``[]`` an entry of the first list that it is called with. Where processes are
    to meet, nobody's first piece begins before each of them is at it, or has ended.
    """
    entries = name.endswith("[]")
    home, attribute = find(name.removesuffix("[]"))
    function = getattr(home, attribute)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def watched(*args, **kwargs):
        lists = [len(value) for value in args if entries and isinstance(value, list)]
        os.write(file, b"." * (lists[0] if lists else 1))
        begun()
        arrive(meet)
        while meet and len(list(Path(meet).iterdir())) < 2:
            time.sleep(0.002)
        return function(*args, **kwargs)

    setattr(home, attribute, watched)


def arrive(meet: str | None) -> None:
    """Leave a mark of this process where processes meet."""
    if meet:
        Path(meet, str(os.getpid())).touch()


def watch_files(folder: str, touched: Callable[[], None]) -> None:
    """Have every time told that a file below a folder is about to be made, written, renamed or removed."""

    def hook(event: str, args: tuple) -> None:
        if event not in TOUCHES or not isinstance(args[0], str | os.PathLike):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if str(Path.cwd() / args[0]).startswith(folder):
            touched()

    sys.addaudithook(hook)


def watch_calls(called: Callable[[], None]) -> None:
    """Have every call of a function told, and every return from one, in this thread and those that begin."""

    def profile(frame: object, event: str, arg: object) -> None:
        called()

    threading.setprofile(profile)
    sys.setprofile(profile)


if __name__ == "__main__":
    main()
