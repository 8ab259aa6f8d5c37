"""On Kaggle the package lies in a folder that nobody may write, and there may be no home."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from copied_kit import copy_kit

CAN_WRITE = 77

# Every room, then a compiled kernel, as somebody who may write nothing here, which root gives away.
CODE = """
import ctypes, importlib, os, pkgutil, sys
if os.geteuid() == 0:
    CAP_DAC_OVERRIDE, libc = 1, ctypes.CDLL(None)  # linux/capability.h
    version_3_of_this_process, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(version_3_of_this_process, sets)
    for effective_permitted_inheritable in range(3):
        sets[effective_permitted_inheritable] &= ~(1 << CAP_DAC_OVERRIDE)
    libc.capset(version_3_of_this_process, sets)
try:
    open(sys.argv[1] + "/written", "w")
    sys.exit(77)
except PermissionError:
    sys.path.insert(0, sys.argv[1])
import numpy as np
import hpa_kit
assert hpa_kit.__file__.startswith(sys.argv[1]), hpa_kit.__file__
for module in pkgutil.walk_packages(hpa_kit.__path__, "hpa_kit."):
    importlib.import_module(module.name)
from hpa_kit.submission import encode_label_map
print(sorted(encode_label_map(np.eye(4, dtype=np.int32))))
"""


@pytest.fixture
def read_only_copy() -> Iterator[Path]:
    """The package in a folder that can be read by all and written by none."""
    folder = Path(tempfile.mkdtemp())
    copy_kit(folder / "hpa_kit")
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in paths:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="users and permissions as on Linux")
@pytest.mark.parametrize("others", ["imported before", pytest.param("too", marks=pytest.mark.whole_table)])
def test_every_room_imports_from_a_read_only_tree_without_a_writable_home(
    read_only_copy, warm_python, others
):
    """In a process that has imported other packages before, or imports them then too."""
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment["HOME"] = str(read_only_copy)
    run = subprocess.run if others == "too" else warm_python.run
    words = [sys.executable, "-c", CODE, str(read_only_copy)]
    done = run(words, cwd="/", env=environment, capture_output=True, text=True)
    if done.returncode == CAN_WRITE:
        pytest.skip("root may write anywhere here, and that cannot be taken from it")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[1]"
    assert not list(read_only_copy.rglob("__pycache__"))
