"""Results that outlive the process."""

import json
import struct
import zlib
from pathlib import Path

import pytest

from hpa_kit.errors import InputError
from hpa_kit.inference.results import Journal

STAMPS = {f"f{k}": f"s{k}" for k in range(5)}


def write(path: Path, ids: list[str], depends: str = "all") -> None:
    with Journal(path) as journal:
        journal.resume(depends, STAMPS)
        for id in ids:
            journal.add(id, id.encode() * 1000, stamp=STAMPS[id], size=(3, 4))


def test_results_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, ["f0", "f2"])
    with Journal(path) as journal:
        assert journal.resume("all", STAMPS) == 2
        assert journal.read("f2") == b"f2" * 1000
        assert journal.facts("f2")["size"] == [3, 4]
        assert "f1" not in journal
        journal.add("f1", b"more", stamp="s1")
    with Journal(path) as journal:
        assert journal.resume("all", STAMPS) == 3
        assert journal.read("f1") == b"more"


def test_of_a_file_cut_anywhere_the_whole_records_count(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, ["f0", "f1", "f2"])
    data = path.read_bytes()
    sizes = []
    for cut in range(0, len(data) + 1, 97):
        path.write_bytes(data[:cut])
        with Journal(path) as journal:
            sizes.append(journal.resume("all", STAMPS))
            assert all(journal.read(id) == id.encode() * 1000 for id in STAMPS if id in journal)
            journal.add("f4", b"after", stamp="s4")
        with Journal(path) as journal:
            assert journal.resume("all", STAMPS) == sizes[-1] + 1
            assert journal.read("f4") == b"after"
    assert sizes == sorted(sizes)
    assert set(sizes) == {0, 1, 2, 3} - ({3} if sizes[-1] < 3 else set())


def test_a_flipped_bit_drops_what_comes_after(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, ["f0", "f1", "f2"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with Journal(path) as journal:
        assert journal.resume("all", STAMPS) == 1
        assert journal.read("f0") == b"f0" * 1000


def test_results_of_other_settings_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, ["f0", "f1"])
    with Journal(path) as journal:
        assert journal.resume("others", STAMPS) == 0
        assert journal.read("f0") == b""
        journal.add("f2", b"another", stamp=STAMPS["f2"])
    with Journal(path) as journal:
        assert journal.resume("all", STAMPS) == 0


def test_a_run_that_comes_to_nothing_leaves_the_results_of_another(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, ["f0", "f1"])
    before = path.read_bytes()
    with Journal(path) as journal:
        assert journal.resume("others", STAMPS) == 0
    assert path.read_bytes() == before


def test_a_journal_of_nothing_leaves_no_file(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.resume("all", STAMPS)
        assert (tmp_path / "j").is_file()
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize("facts", [b"[1]", b"{}", b'{"id": "f0"}', b"[" * 100_000])
def test_a_record_of_somebody_else_ends_the_journal(tmp_path: Path, facts) -> None:
    path = tmp_path / "j"
    write(path, ["f1"])
    record = struct.pack("<III", len(facts), 0, zlib.crc32(facts)) + facts
    path.write_bytes(path.read_bytes() + record)
    with Journal(path) as journal:
        assert journal.resume("all", STAMPS) == 1


def test_a_field_that_changed_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, ["f0", "f1"])
    with Journal(path) as journal:
        assert journal.resume("all", {**STAMPS, "f1": "new"}) == 1
        assert "f1" not in journal


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"ID,x\n1,2\n", json.dumps({"a": 1}).encode()])
def test_a_foreign_file_is_taken_for_an_empty_journal(tmp_path: Path, content) -> None:
    path = tmp_path / "j"
    path.write_bytes(content)
    with Journal(path) as journal:
        assert journal.resume("all", STAMPS) == 0
        journal.add("f0", b"x", stamp="s0")
    with Journal(path) as journal:
        assert journal.resume("all", STAMPS) == 1


def test_the_last_result_of_a_field_counts(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.resume("all", STAMPS)
        journal.add("f0", b"old", stamp="s0", failed="why")
        journal.add("f0", b"new", stamp="s0")
    with Journal(path) as journal:
        journal.resume("all", STAMPS)
        assert journal.read("f0") == b"new"
        assert "failed" not in journal.facts("f0")


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "j"),
        pytest.raises(InputError, match="in use: another process"),
        Journal(tmp_path / "j"),
    ):
        pass
    with Journal(tmp_path / "j") as again:
        again.finish()
    assert list(tmp_path.iterdir()) == []
