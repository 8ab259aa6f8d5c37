import os

import pytest

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, atomic_text


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "table.csv"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.suffix == ".csv"
    assert target.read_text() == "half"


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "table.csv"
    atomic_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("name", ["folder", "file/table.csv"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"{name}.* cannot be written"):
        atomic_text(tmp_path / name, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_others_may_read_what_was_written(tmp_path):
    old = os.umask(0o022)
    try:
        atomic_text(tmp_path / "x", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644
