"""docs/architecture.md: the floors are the code's, and what it names is there."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FLOORS = {
    room: int(number)
    for number, rooms in re.findall(r"^\| (\d+) \| (.*?) \|", TEXT, re.MULTILINE)
    for room in re.findall(r"`(\w+)`", rooms)
}
FILES = sorted(path for path in (ROOT / "hpa_kit").rglob("*.py") if len(path.relative_to(ROOT).parts) > 1)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "hpa_kit").parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """The rooms that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "hpa_kit" and rest not in ("", "__version__"):
                yield rest.partition(".")[0]


def test_every_room_has_its_floor():
    assert {room_of(path) for path in FILES} - {"__init__"} <= FLOORS.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "hpa_kit")))
def test_imports_only_go_to_lower_floors(path):
    room = room_of(path)
    if room == "__init__":
        return
    above = {other for other in imports(path) if other != room and FLOORS[other] >= FLOORS[room]}
    assert not above, f"{path} on floor {FLOORS[room]} imports from {sorted(above)}"


def test_files_that_are_named_are_there():
    named = set(re.findall(r"`((?:hpa_kit|tests|notebooks)/[\w/.]*)`", TEXT))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_pages_that_are_named_are_there():
    for page in sorted((ROOT / "docs").glob("*.md")):
        links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == [], page.name


@pytest.mark.parametrize(
    ("name", "file"),
    re.findall(r"`(\w+(?:\.\w+)?)` \(`hpa_kit/([\w/]+)\.py`\)", TEXT),
)
def test_functions_that_are_named_are_in_their_files(name, file):
    found = importlib.import_module(f"hpa_kit.{file.replace('/', '.')}")
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
