"""Rooms whose names are imported when they are first asked for: torch takes seconds, and most need none."""

import ast
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(room: str, earlier: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """Make a room's ``__getattr__`` from what its ``__init__`` imports under ``if TYPE_CHECKING:``.

    So each name is listed once, as an import that editors and type checkers read too. The room's ``__all__``
    is set to these names.

    Args:
        room: ``__name__`` of the room.
        earlier: {name: where it is now, ``module.name``} of names that code written before takes from here.

    Returns:
        the function to call ``__getattr__`` there.
    """
    found = sys.modules[room]
    loader = getattr(found.__spec__, "loader", None)
    source = getattr(loader, "get_source")(room)  # noqa: B009 - of whatever loader there is
    home = {name: tuple(place.rsplit(".", 1)) for name, place in (earlier or {}).items()}
    for block in ast.parse(source).body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
            home |= {
                alias.asname or alias.name: (str(node.module), alias.name)
                for node in imports
                for alias in node.names
            }
    found.__all__ = sorted(home)  # type: ignore[attr-defined]

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        module, original = home[name]
        return getattr(import_module(module), original)

    return get
