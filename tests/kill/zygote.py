"""Starts commands of the kit quickly, each in a process of its own: all is imported once, then forked.

Reads a JSON object per line, answers with one. ``start`` runs a command line in a folder and answers with the
process's number; ``wait`` answers with how it ended. A command may be told to kill itself, as kill -9 does,
some time after it has touched its folder so many times; and what work it does is counted in a file, which
outlives it.
"""

import json
import os
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path

TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
PRELOADED = (
    "hpa_kit.cli.main hpa_kit.training.loop hpa_kit.training.features hpa_kit.inference.pipeline "
    "hpa_kit.inference.tuning hpa_kit.inference.cell_table hpa_kit.inference.pseudo_labels "
    "hpa_kit.cells.segment hpa_kit.data.simulate hpa_kit.ablation hpa_kit.report timm torch.utils.tensorboard"
)


def main() -> None:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in PRELOADED.split():
        import_module(name)
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
        count_calls(asked["unit"], asked["units"])
        touches = watch(str(folder), *asked["kill"])
        code = import_module("hpa_kit.cli.main").main(asked["start"])
        Path(asked["touches"]).write_text(str(touches[0]))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def find(name: str) -> tuple[object, str]:
    """``module:Class.name`` -> what has the name, and the name."""
    module, _, path = name.partition(":")
    home: object = import_module(module)
    *parts, last = path.split(".")
    for part in parts:
        home = getattr(home, part)
    return home, last


def count_calls(name: str, path: str) -> None:
    """Have a byte written per call that has begun, or per entry of the first list that it is called with."""
    entries = name.endswith("[]")
    home, attribute = find(name.removesuffix("[]"))
    function = getattr(home, attribute)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def counted(*args, **kwargs):
        lists = [len(value) for value in args if entries and isinstance(value, list)]
        os.write(file, b"." * (lists[0] if lists else 1))
        return function(*args, **kwargs)

    setattr(home, attribute, counted)


def watch(folder: str, at: int, seconds: float) -> list[int]:
    """Count how often files below a folder are made, written, renamed, removed; die after the ``at``-th."""
    touches = [0]

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple) -> None:
        if event not in TOUCHES or not isinstance(args[0], str | os.PathLike):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if not str(Path.cwd() / args[0]).startswith(folder):
            return
        touches[0] += 1
        if touches[0] == at:
            if seconds == 0:
                die()
            threading.Timer(seconds, die).start()

    if at == 0:
        threading.Timer(seconds, die).start()
    sys.addaudithook(hook)
    return touches


if __name__ == "__main__":
    main()
