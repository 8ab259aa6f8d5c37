"""``hpa-kit <command>``: parse, call one function, print."""

from hpa_kit.cli.commands import COMMANDS, Command
from hpa_kit.cli.main import main

__all__ = ["COMMANDS", "Command", "main"]
