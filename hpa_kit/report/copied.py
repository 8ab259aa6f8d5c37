"""How far copying goes: what is true of a field as a whole, given to each of its cells."""

from pathlib import Path

import numpy as np

from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.submission import prediction_string, read_submission, write_submission
from hpa_kit.submission.table import parse_truth


def copy_truth(truth: Path, out: Path, *, shares: bool) -> Path:
    """Write a submission whose masks are all true, and whose cells get what is true of their field.

    Args:
        truth: pairs of class and mask per field.
        out: the CSV to write.
        shares: True gives every cell the share of its field's cells that show a class: more than an image
            label says, and the most that can be copied. False gives it the label: 1 for a class that some
            cell shows, Negative only where nothing else is shown.

    Raises:
        InputError: the truth cannot be read.
    """
    rows = []
    for id, width, height, text in read_submission(truth).itertuples(index=False, name=None):
        cells = parse_truth(text)
        masks = list(dict.fromkeys(cells.masks))
        number = {mask: row for row, mask in enumerate(masks)}
        shown = np.zeros((len(masks), N_CLASSES))
        shown[[number[mask] for mask in cells.masks], cells.classes] = 1
        copied = shown.mean(axis=0) if shares else shown.max(axis=0, initial=0)
        if not shares:
            copied[NEGATIVE] *= not np.delete(copied, NEGATIVE).any()
        every = np.tile(copied, (len(masks), 1))
        rows.append((id, width, height, prediction_string(every, dict(enumerate(masks, 1)))))
    write_submission(out, rows)
    return out
