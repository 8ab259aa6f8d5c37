import threading

import pytest

from hpa_kit.errors import InputError
from hpa_kit.locks import locked, open_locked


def test_a_second_one_is_refused_and_the_first_not_harmed(tmp_path):
    path = tmp_path / "deep" / ".lock"
    with locked(path):
        with pytest.raises(InputError, match=r"\.lock is in use: another process"), locked(path):
            pass
        assert path.exists()
    assert list(path.parent.iterdir()) == []
    with locked(path):
        pass


def test_who_waits_comes_in_when_the_other_has_left(tmp_path, patience):
    path, order = tmp_path / ".lock", []

    def second():
        with locked(path, wait=True):
            order.append("second")

    with locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join(patience)
    assert order == ["first", "second"]
    assert not path.exists()


def test_many_who_wait_are_in_it_one_at_a_time(tmp_path, patience):
    path, inside, most = tmp_path / ".lock", [], []

    def work():
        for _ in range(20):
            with locked(path, wait=True):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience)
    assert len(most) == 80
    assert max(most) == 1


def test_a_lock_that_a_killed_process_left_is_none(tmp_path):
    (tmp_path / ".lock").touch()
    with locked(tmp_path / ".lock"):
        pass
    assert not (tmp_path / ".lock").exists()


def test_what_was_in_an_opened_file_stays(tmp_path):
    (tmp_path / "journal").write_bytes(b"before")
    with open_locked(tmp_path / "journal") as file:
        file.write(b", after")
    assert (tmp_path / "journal").read_bytes() == b"before, after"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "file" / ".lock"):
        pass
    with pytest.raises(InputError, match="cannot be written"):
        open_locked(tmp_path)
