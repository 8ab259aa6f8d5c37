"""One row of the table."""

import re
from collections.abc import Callable
from typing import NamedTuple

from bad_input_table.world import World

INFER = "infer {data} --members {member} --masks {masks} --out {out} --views none --map-size 32 --device cpu"
STORE = "store {data} --out {out} --size 32"
SEGMENT = "segment {data} --out {out} --split train --segmenter classical --device cpu"
TRAIN = (
    "train {data} --out {out} --backbone test_resnet --size 32 --stride 8 --epochs 1 --batch 3 --folds 2 "
    "--workers 0 --device cpu"
)


class Case(NamedTuple):
    """A kind of bad input.

    Attributes:
        group: heading under which it stands.
        kind: what is wrong, in words.
        make: makes it in a world that is whole.
        command: of ``hpa-kit``; names in braces are paths of the world.
        message: what stderr says, ``…`` standing for anything.
        status: exit status; 0 is for input that costs a field only, or is made again.
        room: bytes that a file may come to, as on a disk that is full; 0 is any number.
    """

    group: str
    kind: str
    make: Callable[[World], object]
    command: str
    message: str
    status: int = 2
    room: int = 0


def matches(message: str, text: str) -> bool:
    """Whether a line of text is a message in which ``…`` stands for anything."""
    pattern = ".*".join(map(re.escape, message.split("…")))
    return any(re.fullmatch(rf"(hpa-kit: )?{pattern}", line) for line in text.splitlines())


def nothing(_: World) -> None:
    """The command itself is what is wrong."""
