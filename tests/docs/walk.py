"""Prints the files of hpa_kit of which anything but the module itself is called while commands run.

Argument: command lines, as a JSON list of lists. Each runs in a process of its own, forked from this one, in
which all is imported that is not the kit's, as well as what starts a command.
"""

import json
import os
import sys
import threading
from pathlib import Path
from types import FrameType

import albumentations  # noqa: F401
import numba  # noqa: F401 - which calls much of its own
import timm  # noqa: F401
import torch.utils.tensorboard  # noqa: F401

from hpa_kit.cli.main import main

ROOT = Path(sys.modules["hpa_kit"].__file__ or "").parent


def walked(words: list[str]) -> tuple[int, list[str]]:
    """How a command ended, and the files that it went through."""
    files = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        """Of what is called; as this returns nothing, the lines of it are not told."""
        if frame.f_code.co_name != "<module>":
            files.add(frame.f_code.co_filename)

    threading.settrace(note)
    sys.settrace(note)
    try:
        status = main(words)
    finally:
        sys.settrace(None)
    inside = (Path(file) for file in files)
    return status, sorted(str(file.relative_to(ROOT)) for file in inside if file.is_relative_to(ROOT))


if __name__ == "__main__":
    for words in json.loads(sys.argv[1]):
        if (child := os.fork()) == 0:
            print(json.dumps(walked(words)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
