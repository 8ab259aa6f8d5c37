"""The one error that bad input raises, and words for it. Standard library only."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the file or the setting, what was expected, what was found and what
    to do. The command line prints it without a traceback; everything else is a fault of the kit.
    """


def shown(value: object, most: int = 60) -> str:
    """Show a value as an error does: its ``repr``, cut after so many letters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def one_line(error: BaseException) -> str:
    """Write what an error says in one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def nearest(key: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the known name nearest to ``key``, or the list of all known ones."""
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(names))}"
