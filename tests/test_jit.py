"""Where compiled code is kept, and where not."""

import os
import subprocess
import sys

import pytest

from hpa_kit.jit import own_folder


def usual(place):
    return place / f"hpa_kit_numba_{os.getuid()}"


def test_a_folder_of_ones_own_is_used_again(tmp_path):
    folder = own_folder(tmp_path)
    assert folder == usual(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "kept").touch()
    assert own_folder(tmp_path) == folder


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_may_write_to_is_left_alone(tmp_path, mode):
    usual(tmp_path).mkdir()
    usual(tmp_path).chmod(mode)
    folder = own_folder(tmp_path)
    assert folder != usual(tmp_path)
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(usual(tmp_path).iterdir())


def test_a_folder_of_another_user_is_left_alone(tmp_path, monkeypatch):
    theirs = own_folder(tmp_path)
    another = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: another)
    theirs.rename(usual(tmp_path))
    assert own_folder(tmp_path) != usual(tmp_path)


def test_a_link_or_a_file_in_its_place_is_left_alone(tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    usual(tmp_path).symlink_to(tmp_path / "elsewhere")
    assert own_folder(tmp_path) not in (usual(tmp_path), tmp_path / "elsewhere")
    usual(tmp_path).unlink()
    usual(tmp_path).touch()
    assert own_folder(tmp_path).is_dir()


def test_a_fresh_folder_goes_when_the_process_ends(tmp_path):
    usual(tmp_path).touch()
    code = "import sys; from pathlib import Path; from hpa_kit.jit import own_folder\n"
    code += "print(own_folder(Path(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=True, capture_output=True, text=True)
    assert done.stdout.strip().startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == [usual(tmp_path)]
