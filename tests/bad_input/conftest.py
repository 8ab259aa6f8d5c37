"""Puts the table beside the tests where they can import it, and makes what they damage."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bad_input_table import World, make_world

_PROCESS = Path("/proc/self")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world that nobody damages."""
    return make_world(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def world(whole: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of the whole world, to damage; the test runs in it."""
    copy = whole.copy(tmp_path / "world")
    monkeypatch.chdir(copy.root)
    return copy


class Memory:
    """How much more of it this process held at some moment since the start, in bytes; Linux says so."""

    def start(self) -> None:
        try:
            (_PROCESS / "clear_refs").write_text("5")
            self._begun = self._peak()
        except OSError:  # another system: files that claim everything still fail there
            self._begun = None

    def grown(self) -> int:
        return 0 if self._begun is None else self._peak() - self._begun

    @staticmethod
    def _peak() -> int:
        lines = (_PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.fixture
def memory() -> Memory:
    return Memory()
