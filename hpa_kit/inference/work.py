"""What there is to do with which fields, and what there is to say when they are done."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from hpa_kit.cells import FieldCells
from hpa_kit.config import EnsembleSettings, LookSettings
from hpa_kit.data import DataFolder, field_size, read_sample
from hpa_kit.errors import InputError
from hpa_kit.inference.budget import Budget
from hpa_kit.inference.ensemble import FieldMaps
from hpa_kit.inference.journal import Journal
from hpa_kit.inference.prepare import PreparedField, Size
from hpa_kit.scoring.functions import ScoringRule
from hpa_kit.submission import check_submission
from hpa_kit.timing import Forecast

log = logging.getLogger(__name__)

D = TypeVar("D")

MOST_NAMED = 10  # faults of one kind that are named one by one


@dataclass(frozen=True)
class Filling(Generic[D]):
    """How a table is filled from fields.

    Attributes:
        what: the command, for the log.
        settings: who looks, at which speed.
        ensemble: members, rule, and who finds the cells.
        ids: the fields, in order.
        images: their folder.
        sizes: {ID: (height, width)} that results get in place of the field's own.
        details: ID and field with label maps -> what is needed of its full size; in a thread.
        finish: a field, what the members say of it, and the rule -> its part of the table; in a thread.
        budget: the time to end by.
        still_there: whether what was written beside the table for a field is; else it is done again.
        measured: is told how many fields were done and the seconds that each took by part.
        forecast: of more fields than these, where these are a part of a run.
    """

    what: str
    settings: LookSettings
    ensemble: EnsembleSettings
    ids: list[str]
    images: Path
    sizes: dict[str, Size]
    details: Callable[[str, FieldCells], D]
    finish: Callable[[PreparedField[D], FieldMaps, ScoringRule], str]
    budget: Budget
    still_there: Callable[[str], bool] = lambda id: True
    measured: Callable[[int, Mapping[str, float]], None] = lambda fields, parts: None
    forecast: Forecast | None = None


class Work(NamedTuple):
    """Rows to write, in order.

    Attributes:
        ids: the rows.
        images: folder of the fields.
        sample: the sample submission, or None.
        demanded: {ID: (height, width)} by the sample, which the masks get.
        sizes: the same for all rows whose size is known before any image is decoded.
    """

    ids: list[str]
    images: Path
    sample: Path | None
    demanded: dict[str, Size]
    sizes: dict[str, Size]


class Outcome(NamedTuple):
    """What came of the fields.

    Attributes:
        failed: {ID: reason} of those that could not be used.
        late: IDs for which there was no time.
        made: number of fields whose cells the segmenter had to find.
        sizes: {ID: (height, width)} of the images that were read.
    """

    failed: dict[str, str]
    late: list[str]
    made: int
    sizes: dict[str, Size]


def submission_work(folder: DataFolder, split: str) -> Work:
    """The rows of a submission: the sample's, in its order, where the split has one, else the fields found.

    Images are opened only where no sample tells their size: it must not take long until a first CSV stands.
    """
    fields, images = folder.fields(split), folder.images(split)
    for ids, what in ((fields.missing, "rows have no image"), (fields.extra, "images have no row")):
        if ids:
            log.warning(f"infer: {len(ids)} {what} in {images}: {named(ids)}")
    sample = folder.sample() if split == "test" else None
    demanded: dict[str, Size] = {}
    if sample is not None:
        table = read_sample(sample)
        found = zip(table["ImageHeight"].tolist(), table["ImageWidth"].tolist(), strict=True)
        demanded = dict(zip(table["ID"], found, strict=True))
    sizes = dict(demanded)
    for id in fields.ids:
        if id not in sizes:
            with suppress(InputError):  # said when the field is read
                sizes[id] = field_size(images, id)
    return Work(fields.ids, images, sample, demanded, sizes)


def outcome_of(ids: list[str], journal: Journal) -> Outcome:
    """What came of fields, as the journal of their results has it."""
    known = {id: journal.facts(id) for id in ids if id in journal}
    failed = {id: str(facts["failed"]) for id, facts in known.items() if "failed" in facts}
    return Outcome(
        failed=failed,
        late=[id for id in ids if id not in known],
        made=sum(bool(facts.get("made")) for facts in known.values()),
        sizes={
            id: (facts["actual"][0], facts["actual"][1]) for id, facts in known.items() if "actual" in facts
        },
    )


def report_fields(what: str, masks: Path | None, ids: list[str], outcome: Outcome, loss: str) -> None:
    """Say of which fields nothing came, and why.

    Args:
        what: the command.
        masks: the folder of label maps, or None.
        ids: all fields.
        outcome: what came of them.
        loss: what becomes of a field of which nothing came, such as ``finds nothing``.
    """
    total, failed = len(ids), outcome.failed
    if outcome.made and masks is not None:
        log.warning(
            f"{what}: {masks} lacks usable label maps of {outcome.made} of {total} fields; "
            "their cells were found now"
        )
    for id, reason in list(failed.items())[:MOST_NAMED]:
        log.warning(f"{what}: ID {id} {loss}: {reason}")
    if failed:
        log.warning(f"{what}: {len(failed)} of {total} fields could not be used; each {loss}")
    if outcome.late:
        log.warning(
            f"{what}: {len(outcome.late)} of {total} fields were not reached; each {loss}; the same command "
            f"goes on with them: {named(outcome.late)}"
        )


def report_submission(out: Path, work: Work, outcome: Outcome) -> None:
    """Say which masks got another size than their image, and what Kaggle would reject."""
    others = [id for id, size in outcome.sizes.items() if work.demanded.get(id, size) != size]
    if others:
        log.warning(
            f"infer: {len(others)} fields differ in size from {work.sample}, whose sizes the masks got: "
            f"{named(others)}"
        )
    for fault in check_submission(out, work.sample)[:MOST_NAMED] if work.sample is not None else []:
        log.error(f"infer: Kaggle would reject {out}: {fault}")


def refuse_if_all_failed(what: str, images: Path, ids: list[str], outcome: Outcome) -> None:
    """Raise where not one field could be used.

    Raises:
        InputError: naming the first one's reason.
    """
    if len(outcome.failed) == len(ids):
        raise InputError(
            f"{what}: no field of {images} could be used; the first: {next(iter(outcome.failed.values()))}"
        )


def named(ids: list[str]) -> str:
    """The first IDs of a list, as text."""
    return ", ".join(ids[:MOST_NAMED]) + (", …" if len(ids) > MOST_NAMED else "")
