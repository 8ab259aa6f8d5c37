"""The one error that bad input raises."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the file or the setting, what was expected, what was found and what
    to do. The command line prints it without a traceback; everything else is a fault of the kit.
    """


def shown(value: object, most: int = 60) -> str:
    """A value as an error shows it: its ``repr``, cut after so many letters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
