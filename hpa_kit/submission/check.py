"""Every way in which Kaggle would reject a submission, found before it does."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hpa_kit.errors import InputError
from hpa_kit.submission.rle import mask_runs
from hpa_kit.submission.table import COLUMNS, parse_prediction, parse_size, read_submission
from hpa_kit.tables import SEPARATORS, read_separated

# Of one kind of fault, this many IDs are named one by one.
MAX_NAMED = 50


def check_submission(csv: str | Path, sample_csv: str | Path) -> list[str]:
    """Compare a submission with the sample it has to follow.

    Args:
        csv: the submission.
        sample_csv: ``sample_submission.csv``; its IDs and sizes are the rows that Kaggle expects.

    Returns:
        One line per fault, naming the ID; empty where Kaggle should accept the file. An empty prediction and
        an empty mask are legal; the order of rows is free.

    Raises:
        InputError: one of the files is missing, or the sample is no table with the columns of a submission.
    """
    sample = read_submission(sample_csv)
    try:
        table, separator = read_separated(csv, COLUMNS)
    except InputError as error:
        if not Path(csv).is_file():
            raise
        return [str(error)]
    faults = []
    if separator != ",":
        faults.append(f"{SEPARATORS[separator]} stand between the columns; expected commas")
    if tuple(table.columns) != COLUMNS:
        faults.append(f"columns are {','.join(table.columns)}; expected {','.join(COLUMNS)}")
    expected, found = sample["ID"].tolist(), table["ID"].tolist()
    in_sample, in_table = set(expected), set(found)
    twice = dict.fromkeys(table["ID"][table["ID"].duplicated()])
    faults += _named([id for id in expected if id not in in_table], "has no row")
    faults += _named([id for id in dict.fromkeys(found) if id not in in_sample], "is not in the sample")
    faults += _named(list(twice), "has more than one row")
    wanted = {row[0]: _Wanted(*row[1:]) for row in sample[list(COLUMNS)].itertuples(index=False, name=None)}
    for id, width, height, text in table[list(COLUMNS)].itertuples(index=False, name=None):
        if id in wanted:
            faults += [f"ID {id}: {fault}" for fault in _row_faults(wanted[id], width, height, text)]
    return faults


def _named(ids: list[str], what: str) -> list[str]:
    lines = [f"ID {id or '(empty)'} {what}" for id in ids[:MAX_NAMED]]
    return lines + ([f"{len(ids) - MAX_NAMED} more IDs: each {what}"] if len(ids) > MAX_NAMED else [])


class _Wanted(NamedTuple):
    """What the sample says of one field."""

    width: int
    height: int
    text: str


def _row_faults(wanted: _Wanted, width: str, height: str, text: str) -> Iterator[str]:
    if (parse_size(width), parse_size(height)) != (wanted.width, wanted.height):
        yield f"size is {width[:20]} x {height[:20]}; the sample says {wanted.width} x {wanted.height}"
    try:
        detections = parse_prediction(text)
    except InputError as error:
        yield str(error)
        return
    for confidence in detections.confidences:
        if not 0 <= confidence <= 1:
            yield f"confidence {confidence!r} is not between 0 and 1"
            break
    # What the sample itself holds for the field is accepted, whatever size of mask it is.
    own = set(wanted.text.split())
    masks = [mask for mask in dict.fromkeys(detections.masks) if mask not in own]
    for mask, fault in zip(masks, mask_runs(masks, wanted.height, wanted.width)[1], strict=True):
        if fault:
            yield f"mask {mask[:24]} cannot be used: {fault}"
