"""Results as plain text."""

from collections.abc import Sequence

from hpa_kit.classes import CLASSES
from hpa_kit.submission import Evaluation


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns wide enough for their content, the first one left, the others right aligned."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [lines[0], rule, *lines[1:]]
    )


def ap_table(result: Evaluation) -> str:
    """The mean AP and each class's AP; a class without truth shows a dash."""
    rows = [
        [f"{index:2d} {CLASSES[index].name}", "-" if ap is None else f"{ap:.4f}"]
        for index, ap in result.ap.items()
    ]
    mean = "no truth" if result.mean_ap is None else f"{result.mean_ap:.4f}"
    return text_table(["class", "AP"], [*rows, ["mean", mean]])
