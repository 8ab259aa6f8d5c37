"""Prints the files of hpa_kit of which anything but the module itself is called while a command runs.

Arguments: the command line. What is imported to start one, and numba, is imported before.
"""

import json
import sys
import threading
from pathlib import Path
from types import FrameType

import numba  # noqa: F401 - which calls much of its own

from hpa_kit.cli.main import main

ROOT = Path(sys.modules["hpa_kit"].__file__ or "").parent


def walked(words: list[str]) -> tuple[int, list[str]]:
    """How a command ended, and the files that it went through."""
    files = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            files.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        status = main(words)
    finally:
        sys.setprofile(None)
    inside = (Path(file) for file in files)
    return status, sorted(str(file.relative_to(ROOT)) for file in inside if file.is_relative_to(ROOT))


if __name__ == "__main__":
    print(json.dumps(walked(sys.argv[1:])))
