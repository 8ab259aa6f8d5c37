"""On Kaggle the package lies in a folder that nobody may write, and there may be no home."""

import ctypes
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

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # linux/prctl.h, linux/capability.h
CAN_WRITE = 77

# Every room, then a compiled kernel, as somebody who may write nothing here.
CODE = """
import importlib, pkgutil, sys
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


def obey_permissions() -> None:
    """Let root, too, write only where permissions allow: without CAP_DAC_OVERRIDE from the next exec on."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="users and permissions as on Linux")
def test_every_room_imports_from_a_read_only_tree_without_a_writable_home(read_only_copy):
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment["HOME"] = str(read_only_copy)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(read_only_copy)],
        preexec_fn=obey_permissions, cwd="/", env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == CAN_WRITE:
        pytest.skip("root may write anywhere here, and that cannot be taken from it")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[1]"
    assert not list(read_only_copy.rglob("__pycache__"))
