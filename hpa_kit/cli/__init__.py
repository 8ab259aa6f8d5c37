"""``hpa-kit <command>``: parse, call one function, print."""

import sys

try:
    from hpa_kit.cli.main import main
except KeyboardInterrupt:  # before there is a main to say so
    print("hpa-kit: interrupted", file=sys.stderr)
    raise SystemExit(130) from None
from hpa_kit.cli.commands import COMMANDS, Command

__all__ = ["COMMANDS", "Command", "main"]
