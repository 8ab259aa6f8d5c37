"""Submissions and truth tables that cannot be used."""

import base64
import zlib

from bad_input_table.case import Case, nothing
from bad_input_table.world import World

GROUP = "Submissions"
EVALUATE = "evaluate {truth} {submission}"
CHECK = "check {submission} --sample {sample}"
PICTURE = "picture {submission} {data} --out {out}"
COLUMNS = "expected a CSV with the columns ID, ImageWidth, ImageHeight, PredictionString"
WHERE = "submission: …submission.csv, ID t0: "
MASK = WHERE + "mask … cannot be used: "


def _edit(name: str, old: str, new: str):
    return lambda world: world.edit(name, old, new)


def _mask(runs: bytes):
    """Put another mask into the submission's first row."""
    return _text(f"0 0.5 {base64.b64encode(runs).decode()}")


def _text(text: str):
    return lambda world: world.write(
        "submission", f"ID,ImageWidth,ImageHeight,PredictionString\nt0,48,48,{text}\n"
    )


def _bomb(world: World) -> None:
    _mask(zlib.compress(b"0" * 100_000_000, 9))(world)


CASES = (
    Case(
        GROUP,
        "a submission that is missing",
        lambda w: w["submission"].unlink(),
        EVALUATE,
        "tables: …submission.csv is missing; " + COLUMNS,
    ),
    Case(
        GROUP,
        "a size of a million digits",
        _edit("submission", "t0,48", "t0," + "9" * 100_000),
        EVALUATE,
        WHERE + "ImageWidth is '99999…; expected a number of pixels above 0",
    ),
    Case(
        GROUP,
        "another size than the truth's",
        _edit("submission", "t0,48", "t0,47"),
        EVALUATE,
        WHERE + "size is 47 x 48, the truth's is 48 x 48",
    ),
    Case(
        GROUP,
        "a prediction that is not in threes",
        _text("0 0.5"),
        EVALUATE,
        WHERE + "2 words; expected class, confidence and mask in threes",
    ),
    Case(
        GROUP,
        "a confidence that is no number",
        _text("0 nan eJw="),
        EVALUATE,
        WHERE + "confidence 'nan' is no finite number",
    ),
    Case(
        GROUP,
        "a class that is none, in a prediction",
        _text("19 0.5 eJw="),
        EVALUATE,
        WHERE + "'19' is no location class; expected 0 to 18",
    ),
    Case(
        GROUP,
        "a mask that is not base64",
        _text("0 0.5 ???"),
        EVALUATE,
        WHERE + "mask ??? cannot be used: it is not base64",
    ),
    Case(
        GROUP,
        "a mask that is not zlib",
        _mask(b"nothing packed"),
        EVALUATE,
        MASK + "it is not zlib data",
    ),
    Case(
        GROUP,
        "a mask that breaks off",
        _mask(zlib.compress(b"0" * 1000)[:-6]),
        EVALUATE,
        MASK + "its zlib data break off",
    ),
    Case(
        GROUP,
        "a mask of another size",
        _mask(zlib.compress(b"55")),
        EVALUATE,
        MASK + "its runs are shorter than the field has pixels",
    ),
    Case(
        GROUP,
        "a mask that unpacks to 100 MB",
        _bomb,
        EVALUATE,
        MASK + "its runs are longer than the field has pixels",
    ),
    Case(
        GROUP,
        "a sample for a check that is missing",
        lambda w: w["sample"].unlink(),
        CHECK,
        "tables: …sample_submission.csv is missing; " + COLUMNS,
    ),
    Case(
        GROUP,
        "a submission without any cell",
        _text(""),
        PICTURE,
        "picture: no row of …submission.csv holds a cell",
    ),
    Case(
        GROUP,
        "a submission of other sizes than the fields",
        lambda w: w.write("submission", w["submission"].read_text().replace("48,48", "24,96")),
        PICTURE,
        "picture: …submission.csv, ID t0: size is 24 x 96, its field's is 48 x 48",
    ),
    Case(
        GROUP,
        "a submission of fields that are not there",
        lambda w: w.edit("submission", "t0,", "t9,"),
        PICTURE,
        "fields: …test has no image of ID t9; expected t9_red.png, _green and _blue",
    ),
    Case(
        GROUP,
        "a submission of other fields than the truth's",
        lambda w: w.write("submission", w["submission"].read_text().replace("\nt", "\nz")),
        EVALUATE,
        "evaluate: …submission.csv has no field of the truth: its IDs are such as z0, z1, those of "
        "…truth.csv such as t0, t1; give the truth of these fields",
    ),
    Case(
        GROUP,
        "a confidence above 1, in a check",
        _text("0 1.5 eJw="),
        CHECK,
        "ID t0: confidence 1.5 is not between 0 and 1",
        status=1,
    ),
    Case(
        GROUP,
        "semicolons in place of commas, in a check",
        lambda w: w.write("submission", w["submission"].read_text().replace(",", ";")),
        CHECK,
        "semicolons stand between the columns; expected commas",
        status=1,
    ),
    Case(
        GROUP,
        "more than one truth",
        nothing,
        "evaluate {truth} {submission} --iou 1.5",
        "evaluate: iou is 1.5; expected a number above 0, up to 1",
    ),
)
