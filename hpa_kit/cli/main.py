"""``hpa-kit <command>``: parse, call one function, print.

Every setting of a command is an option of the same name; the option's text goes to the settings object, which
converts and checks it, so that the command line, YAML and notebooks accept and refuse the same values.
"""

import argparse
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpa_kit import __version__
from hpa_kit.cli.commands import COMMANDS, Command
from hpa_kit.cli.others import OTHERS
from hpa_kit.cli.streams import all_printed, dropped_output, plain_output, silence_stdout
from hpa_kit.errors import InputError
from hpa_kit.files import ReaderGone, disk_full, is_full
from hpa_kit.progress import say

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from hpa_kit.config import Settings

RENAMED = {"ladder": "ablation"}  # commands of earlier versions, and what they are called now


def _add_settings(parser: argparse.ArgumentParser, command: Command) -> None:
    parser.add_argument("--config", type=Path, metavar="YAML", help="settings file; options override it")
    for name, field in command.settings.options().items():
        text = f"{field.description or ''}{_default_text(field)}".replace("%", "%%")
        options: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
        if field.annotation is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif name == "members":
            options |= {"nargs": "+", "metavar": "RUN"}
        else:
            options["metavar"] = name.upper()
        if name in command.positional:
            parser.add_argument(name, nargs="?", **options)
        else:
            names = [name, *(alias for alias, one in command.settings.aliases.items() if one == name)]
            parser.add_argument(*(f"--{one.replace('_', '-')}" for one in names), dest=name, **options)

    for old in command.settings.renamed:
        parser.add_argument(f"--{old.replace('_', '-')}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _default_text(field: "FieldInfo") -> str:
    """The default as one would give it; without one the description says what happens."""
    default = None if field.is_required() else field.get_default()
    if default is None:
        return ""
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f" (default: {shown})" if shown else ""


def _facts() -> str:
    """Tell what an issue should: versions, as installed and without importing anything, and the machine."""
    from importlib.metadata import PackageNotFoundError, distributions, requires

    versions = {one.metadata["Name"].lower().replace("_", "-"): one.version for one in distributions()}
    try:
        needed = [text for text in requires("hpa-kit") or () if "extra ==" not in text]
    except PackageNotFoundError:  # on Kaggle the kit is a folder on the path
        needed = ["torch", "timm", "albumentations", "numpy", "pandas", "numba", "opencv-python-headless"]
    names = sorted(re.split(r"[^\w-]", text, maxsplit=1)[0].lower() for text in needed)
    return "\n".join(
        [
            f"hpa-kit {__version__} in {Path(__file__).parents[1]}",
            f"Python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} processors",
            *(f"{name} {versions.get(name, 'is missing')}" for name in names),
        ]
    )


class _Parser(argparse.ArgumentParser):
    """Refuses an empty text for a path, which would be the current folder, in all commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("type", Path, _path)


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("an empty text is no path")
    return Path(text)


def make_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Make the parser, with the options of the command that is asked for; the others are names and texts."""
    parser = _Parser(
        prog="hpa-kit",
        description="Where in each single cell a protein sits.",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the lines of the facts
    )
    version = _facts() if "--verbose" in words else f"hpa-kit {__version__}"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument("--verbose", action="store_true", help="with --version: what an issue should tell")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((word for word in words if not word.startswith("-")), None)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name, help=command.help, description=command.help, allow_abbrev=False
        )
        sub.set_defaults(settings_command=command)
        if command.name == asked:
            _add_settings(sub, command)
    for other in OTHERS:
        sub = commands.add_parser(other.name, help=other.help, description=other.help)
        if other.name == asked:
            other.add(sub)
    return parser


def settings_of(command: Command, arguments: argparse.Namespace) -> "Settings":
    """Make a command's settings, from its YAML and its options, which win.

    Raises:
        InputError: one of them cannot be used.
    """
    from hpa_kit.config import make_settings, read_yaml

    names = {*command.settings.options(), *command.settings.renamed}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if arguments.config is None:
        return make_settings(command.settings, given, source=f"hpa-kit {command.name}")
    return make_settings(command.settings, read_yaml(arguments.config), given, source=str(arguments.config))


def _not_installed(error: ModuleNotFoundError) -> InputError:
    """What to do about a package that is missing, or a part of the kit that its dataset on Kaggle lacks."""
    name = error.name or "hpa_kit"
    if name.startswith("hpa_kit.kaggle.publish."):
        return InputError("kaggle: this runs in a checkout of hpa-kit; its dataset has only what Kaggle runs")
    if name.partition(".")[0] == "hpa_kit":
        raise error
    return InputError(
        f"{name} is missing; `make .venv` installs it, then .venv/bin/hpa-kit finds it; only "
        "`kaggle metadata` and `kaggle status` need nothing but Python"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command as a program does: plain lines, whatever reads them, and no traceback at Ctrl-C.

    Returns:
        As :func:`run` has it; 130 when it was interrupted, 141 when nobody read what it was to print.
    """
    # Read when torch is first imported: its threads then sleep while they wait for each other. Spinning makes
    # training several times slower on cores that anything else uses too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with plain_output():
        try:
            return run(argv)
        except KeyboardInterrupt:
            say("hpa-kit: interrupted; the same command goes on where it was")
            return 130
        except ReaderGone:
            silence_stdout()
            return 141


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it went well, 1 when ``check`` or ``metadata`` found faults, 2 for input that cannot be used.

    Raises:
        KeyboardInterrupt: it was interrupted.
        ReaderGone: nobody reads what it was to print, and that is all that it does.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        if words and words[0] in RENAMED:
            raise InputError(f"the command {words[0]} is called {RENAMED[words[0]]} now")
        with all_printed():
            arguments = make_parser(words).parse_args(words)
        if hasattr(arguments, "function"):
            with all_printed() if arguments.prints else dropped_output():
                return int(arguments.function(arguments))
        command = arguments.settings_command
        with dropped_output():
            command.run(settings_of(command, arguments))
        return 0
    except InputError as error:
        return _refuse(error)
    except ModuleNotFoundError as error:
        return _refuse(_not_installed(error))
    except OSError as error:  # of a file that something else writes, such as a journal or TensorBoard's
        if is_full(error):
            return _refuse(disk_full(error.filename or "a file", error))
        raise


def _refuse(error: InputError) -> int:
    # One line, though an ID or a file's name may hold line breaks.
    say("hpa-kit: " + " ".join(str(error).splitlines()))
    return 2
