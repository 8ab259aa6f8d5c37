"""A Python that starts at once: what takes long to import is there already, and each process is a fork of it.

``python -P warm_server.py FOLDER PID`` serves until the process of that number is gone. It has levels, each a
fork of the one before with more imported, made when first asked for; each listens at ``FOLDER/LEVEL``. One
line of JSON asks for a process, with the files of its stdin, stdout and stderr; answers are its number, and
at its end how it ended.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

# What each level has beside those before it. Of the kit itself none has anything.
LEVELS = {
    "bare": (),
    "tables": ("numpy", "pandas", "scipy.ndimage", "numba"),
    "images": ("cv2", "PIL.Image", "pydantic"),
    "networks": ("torch", "timm"),
    "training": ("albumentations", "skimage.segmentation", "sklearn.cluster", "torch.utils.tensorboard"),
}  # fmt: skip
LOOK = 0.5  # seconds after which it is looked whether anybody is left to serve


def serve(folder: Path, level: str, patron: int) -> Callable[[], object]:
    """Serve; returns in each process that is asked for, with what it is to do."""
    for name in LEVELS[level]:
        import_module(name)
    gc.collect()
    gc.freeze()  # else each process collects all this at its end, and so copies what it shares: 1.3 s
    listening, (heard, told) = socket.socket(socket.AF_UNIX), socket.socketpair()
    listening.bind(str(folder / f".{level}"))
    listening.listen(64)
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    (folder / f".{level}").rename(folder / level)  # now there is somebody who answers
    waiting: dict[int, socket.socket] = {}
    while is_there(patron):
        ready, _, _ = select.select([listening, heard], [], [], LOOK)
        if heard in ready:
            heard.recv(4096)
        tell_who_has_ended(waiting)
        if listening not in ready:
            continue
        client, _ = listening.accept()
        asked, files = receive(client)
        if pid := os.fork():
            for file in files:
                os.close(file)
            waiting[pid] = client
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if asked.get("session"):
            os.setsid()
        answer(client, os.getpid())  # from now on one may send its group signals
        for one in (listening, heard, told, client, *waiting.values()):
            one.close()
        return serve(folder, asked["level"], patron) if "level" in asked else become(asked, files)
    os._exit(0)


def tell_who_has_ended(waiting: dict[int, socket.socket]) -> None:
    """Tell those who wait for a process how it ended."""
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        if (client := waiting.pop(pid, None)) is not None:
            answer(client, os.waitstatus_to_exitcode(status))
            client.close()


def receive(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What is asked for, and the files that come with it."""
    text, files = b"", []
    while not text.endswith(b"\n"):
        data, more, _, _ = socket.recv_fds(client, 65536, 3)
        assert data, "who asks is gone"
        text, files = text + data, [*files, *more]
    return json.loads(text), files


def answer(client: socket.socket, number: int) -> None:
    """Tell a number; whoever asked may be gone."""
    with suppress(OSError):
        client.sendall(b"%d\n" % number)


def is_there(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def become(asked: dict[str, Any], files: list[int]) -> Callable[[], object]:
    """Be another process: its files, folder, variables; what it is to do is returned."""
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    sys.stdin = os.fdopen(0, "r", encoding="utf-8", closefd=False)
    buffering = 1 if asked["unbuffered"] else -1
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", buffering, encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(
        2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path[:0] = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    if not asked["safe_path"]:
        sys.path.insert(0, "")
    sys.argv = ["-c", *asked["args"]]
    if "module" in asked:
        return lambda: runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    main = sys.modules["__main__"] = ModuleType("__main__")
    return lambda: exec(compile(asked["code"], "<string>", "exec"), vars(main))


if __name__ == "__main__":
    serve(Path(sys.argv[1]), "bare", int(sys.argv[2]))()
