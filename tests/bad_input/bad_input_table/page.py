"""The table as a page of the documentation."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from bad_input_table.case import Case

PAGE = Path(__file__).resolve().parents[3] / "docs" / "bad_input.md"
HEAD = """# Bad input

What goes wrong with what people give, and what `hpa-kit` says then: one line on stderr that names the
file, what was expected, what was found and, where it is not plain, what to do.

* Status 2: nothing that was there before has changed, and no half-written file stays.
* Status 0: it costs one field, or is made again, and that is said.
* Status 1: `kaggle metadata` and `check` print the faults that they find.

Nothing in a file is run, nothing is written outside of the folder that was named, and no file makes the
process hold more than some hundred MB, whatever it claims.

`…` stands for anything; names in braces are paths. Written by `python tests/bad_input/write_page.py` from
the table that `tests/bad_input` runs, row by row.
"""


def page(cases: Iterable[Case]) -> str:
    """Markdown of all cases, a table per group."""
    parts = [HEAD]
    for group, members in groupby(cases, key=lambda case: case.group):
        rows = [_row(case) for case in members]
        parts.append(f"\n## {group}\n\n| what is wrong | command | status | message |\n|---|---|---|---|\n")
        parts.extend(rows)
    return "".join(parts)


def _row(case: Case) -> str:
    command, message = (text.replace("|", "\\|") for text in (_shown(case.command), case.message))
    return f"| {case.kind} | `{command}` | {case.status} | `{message}` |\n"


def _shown(command: str) -> str:
    """The words up to the second option: the rest only makes a test quick."""
    words = command.split(" --")
    return f"hpa-kit {words[0]}" if len(words) > 3 else f"hpa-kit {command}"
