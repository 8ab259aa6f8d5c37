"""``hpa-kit <command>``: parse, call one function, print."""

import sys
from typing import TYPE_CHECKING, Any

try:
    from hpa_kit.cli.main import main
except KeyboardInterrupt:  # before there is a main to say so
    print("hpa-kit: interrupted", file=sys.stderr)
    raise SystemExit(130) from None

if TYPE_CHECKING:
    from hpa_kit.cli.commands import COMMANDS, Command

__all__ = ["COMMANDS", "Command", "main"]


def __getattr__(name: str) -> Any:
    """Import the commands with settings when they are asked for: `kaggle` does without pydantic."""
    if name not in ("COMMANDS", "Command"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hpa_kit.cli import commands

    return getattr(commands, name)
