"""The page of ``hpa-kit budget``: the job's stages, what each takes for one field, hours and bytes of all.

The page is its own memory: rows that a machine cannot measure, as those of networks without a GPU, stay as
another machine wrote them.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from hpa_kit.errors import InputError

TITLE = "# What the whole job takes\n\n"
UNKNOWN = "unknown"

# The real job: fields of the competition, external ones, of the test sets that everybody sees and that nobody
# does, and the cells of the training fields.
TRAINING, EXTERNAL, PUBLIC, HIDDEN, CELLS = 21_806, 77_668, 559, 1_776, 480_000
FIELDS, TEST = TRAINING + EXTERNAL, PUBLIC + HIDDEN
EPOCHS = 25  # as train has it by default
# Where pixels count a field counts as so many of 2048²: 17,955 of the competition's have that size, 3,842
# have 3072² and 9 have 4096²; the test's are taken to be as large, and external ones to have 2048².
LARGER = (17_955 + 3_842 * 2.25 + 9 * 4) / TRAINING
LARGE_TRAINING, LARGE_TEST = round(TRAINING * LARGER), round(TEST * LARGER)
LARGE_ALL = LARGE_TRAINING + EXTERNAL


class Measured(NamedTuple):
    """Seconds of one core, or of the GPU, for one; bytes of one on the disk; on which machine."""

    seconds: float
    bytes: float = 0.0
    where: str = ""

    def rounded(self, where: str) -> "Measured":
        """The numbers as the page shows them, measured on a machine: read again, they are the same."""
        return Measured(float(f"{self.seconds:.3g}"), float(f"{self.bytes:.3g}"), where)


class Stage(NamedTuple):
    """A part of the job.

    Attributes:
        name: of its row.
        command: that does it.
        times: how often it is done.
        unit: to what.
        measure: by which name it is measured; several stages may share one.
        kept: how many pieces of the measured bytes lie on the disk in all; 0 where none does.
        note: what the number of times is of.
    """

    name: str
    command: str
    times: int
    unit: str
    measure: str
    kept: int = 0
    note: str = ""


_LARGE, _RUN = "fields of 2048²", f", {EPOCHS} epochs"
ON_PROCESSORS = (
    Stage("images decoded, fields kept small", "hpa-kit store", LARGE_ALL, _LARGE, "store", FIELDS),
    Stage("images decoded", "hpa-kit segment", LARGE_ALL, _LARGE, "decode", LARGE_ALL),
    Stage("cells found without weights", "hpa-kit segment", LARGE_ALL, _LARGE, "cells"),
    Stage("label maps written", "hpa-kit segment", LARGE_ALL, _LARGE, "maps written", LARGE_ALL),
    Stage("label maps kept small", "hpa-kit train", LARGE_ALL, _LARGE, "maps small", FIELDS),
    Stage("crops cut and changed", "hpa-kit train", CELLS, "cells", "crops", note=", an epoch"),
    Stage("images decoded", "hpa-kit features", LARGE_TRAINING, _LARGE, "decode"),
    Stage("images decoded", "hpa-kit pseudo-labels", LARGE_TRAINING, _LARGE, "decode"),
    Stage("label maps read, cells scored", "hpa-kit pseudo-labels", LARGE_TRAINING, _LARGE, "scores"),
    Stage("pseudo labels written", "hpa-kit pseudo-labels", CELLS, "cells", "rows", CELLS),
    Stage("images decoded", "hpa-kit infer", LARGE_TEST, _LARGE, "decode"),
    Stage("cells found without weights", "hpa-kit infer", LARGE_TEST, _LARGE, "cells"),
    Stage("label maps read, cells scored", "hpa-kit infer", LARGE_TEST, _LARGE, "scores"),
    Stage("mask strings, of one class", "hpa-kit infer", LARGE_TEST, _LARGE, "strings", LARGE_TEST),
)
BY_NETWORKS = (
    Stage("a classifier learns", "hpa-kit train", TRAINING * EPOCHS, "fields", "cam", note=_RUN),
    Stage("a U-Net learns", "hpa-kit train", TRAINING * EPOCHS, "fields", "unet", note=_RUN),
    Stage("a network learns crops", "hpa-kit train", CELLS * EPOCHS, "cells", "crop net", note=_RUN),
    Stage("features", "hpa-kit features", TRAINING, "fields", "features", TRAINING),
    Stage("a member predicts, flips", "hpa-kit pseudo-labels", TRAINING, "fields", "predict"),
    Stage("a member predicts, flips", "hpa-kit infer", TEST, "fields", "predict"),
    Stage("cells by published networks", "hpa-kit segment", LARGE_ALL, _LARGE, "published"),
)
POLICIES = tuple(map(str, range(7)))

_STAGES = ("stage", "command", "done to", "seconds each", "hours", "on disk, each", "GB", "measured on")
_LOADER = ("policy", "ms", "ms with label maps", "a second", "a second with label maps", "measured on")
_FIRST = "## Processors"


def with_label_maps(policy: str, maps: bool = True) -> str:
    """Name the measurement of a policy, with label maps beside the fields or without."""
    return f"policy {policy}{' and label maps' if maps else ''}"


def tables(found: Mapping[str, Measured], cores: int) -> str:
    """Write what was measured as three tables: what processors do, the loader by policy, networks.

    Args:
        found: by the name of the measurement; what is missing is unknown.
        cores: how many share what processors do.

    Returns:
        Markdown.
    """
    parts = [
        f"{_FIRST}\n\nHours are those of {cores} processors.",
        _table(_STAGES, (_row(stage, found, cores) for stage in ON_PROCESSORS)),
        f"## Loader\n\nMilliseconds of a field are of one processor, fields a second of {cores}.",
        _table(_LOADER, (_loader_row(policy, found, cores) for policy in POLICIES)),
        "## Networks\n\nHours are those of one GPU.",
        _table(_STAGES, (_row(stage, found, 1) for stage in BY_NETWORKS)),
    ]
    return "\n\n".join(parts) + "\n"


def read_page(path: Path) -> tuple[str, dict[str, Measured]]:
    """Read what stands above the tables of a page, and what was measured before.

    Args:
        path: the page; where there is none, it is to have a title and no number.

    Raises:
        InputError: it cannot be read, or is a page of something else.
    """
    if not path.exists():
        return TITLE, {}
    try:
        above, first, rest = path.read_text(encoding="utf-8").partition(_FIRST)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"out: {path} cannot be read: {error}") from None
    if not first:
        raise InputError(
            f"out: {path} has no part '{_FIRST}', so budget did not write it; give another --out"
        )
    stages = {(stage.name, stage.command): stage.measure for stage in (*ON_PROCESSORS, *BY_NETWORKS)}
    found: dict[str, Measured] = {}
    for line in rest.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        measure = stages.get((row[0], row[1].strip("`"))) if len(row) == len(_STAGES) else None
        if measure is not None:
            _take(found, measure, row[3], row[5], row[-1])
        elif len(row) == len(_LOADER) and row[0] in POLICIES:
            for maps in (False, True):
                _take(found, with_label_maps(row[0], maps), row[1 + maps], "", row[-1], 1e-3)
    return above, found


def _take(
    found: dict[str, Measured], name: str, seconds: str, kept: str, where: str, unit: float = 1.0
) -> None:
    """Take a measurement from the cells of a table, where it holds one."""
    numbers = [re.match(r"[0-9][0-9.]*(e-?[0-9]+)?", cell) for cell in (seconds, kept)]
    if numbers[0] is not None:
        size = 0.0 if numbers[1] is None else 1e3 * float(numbers[1][0])
        known = found[name].bytes if name in found else 0.0  # of another stage of the same measurement
        found[name] = Measured(unit * float(numbers[0][0]), size or known, where)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(stage: Stage, found: Mapping[str, Measured], shared: int) -> list[str]:
    """A stage's row, its hours shared by so many processors or GPUs."""
    begin = [stage.name, f"`{stage.command}`", f"{stage.times:,} {stage.unit}{stage.note}"]
    measured = found.get(stage.measure)
    if measured is None:
        return [*begin, UNKNOWN, UNKNOWN, *([UNKNOWN] * 2 if stage.kept else ["", ""]), ""]
    hours = measured.seconds * stage.times / shared / 3600
    kept = [f"{_short(measured.bytes / 1e3)} kB", _short(measured.bytes * stage.kept / 1e9)]
    return [
        *begin,
        _short(measured.seconds),
        _short(hours),
        *(kept if stage.kept else ["", ""]),
        measured.where,
    ]


def _loader_row(policy: str, found: Mapping[str, Measured], cores: int) -> list[str]:
    both = [found.get(with_label_maps(policy, maps)) for maps in (False, True)]
    times = [UNKNOWN if one is None else _short(1e3 * one.seconds) for one in both]
    speeds = [UNKNOWN if one is None else _short(cores / one.seconds) for one in both]
    return [policy, *times, *speeds, next((one.where for one in both if one is not None), "")]


def _short(value: float) -> str:
    """A number by three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
