"""``hpa-kit infer``: class maps x label maps -> submission.csv."""

import logging
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from hpa_kit.cells import FieldCells, resized
from hpa_kit.config import InferSettings
from hpa_kit.data import DataFolder, Images, field_size, read_sample
from hpa_kit.errors import InputError
from hpa_kit.files import regular_path
from hpa_kit.inference.deadline import Budget, Now
from hpa_kit.inference.growing_table import SubmissionTable
from hpa_kit.inference.prediction import Prediction, Size
from hpa_kit.inference.results import MAX_NAMED, Journal, Outcome, Results, journal_of, named
from hpa_kit.inference.stream import predict_fields
from hpa_kit.scoring import ScoringFunction, score_field, scores_to_prediction, scoring_of
from hpa_kit.submission import check_submission, encode_label_map

log = logging.getLogger(__name__)


def infer(settings: InferSettings, now: Now = monotonic) -> Path:
    """Score every cell of every field and write the submission.

    A valid CSV stands before the first field is read, each row finding nothing until its field is done, and
    is replaced from time to time. A field that cannot be read or scored keeps that row, is counted and said.
    Fields are read, and cells found, by threads while the members predict earlier ones; of a field only its
    maps' scale is kept, so memory does not grow with the number of fields. Several devices share the fields.

    All is done within ``settings.budget``, counted from this call on and with ``settings.spent`` gone before:
    where what was measured says that there is no time for everything, the ensemble does less, in the order of
    ``settings.give_up``; where even the least takes too long, the last fields find nothing.

    Killed at any moment, the same call goes on and ends with the same CSV: results are kept in a hidden file
    beside it until all are there. A second call that writes the same CSV meanwhile is refused.

    Beside the CSV, ``NAME_seconds.yaml`` says what a field took by part, all starts of the run together.

    A pipe or a device gets the CSV once, when all is done; nothing is kept then to go on from.

    Args:
        settings: see :class:`~hpa_kit.config.InferSettings`.
        now: the clock, in seconds from any zero on.

    Returns:
        Path of the CSV. Its rows are the sample's, in its order, where the split has one, else the fields
        found.

    Raises:
        InputError: data, members or settings cannot be used, or not one field was scored, as where the time
            was over before or the device is broken; the CSV with rows that find nothing stands nevertheless.
            That every field is without cells is a result.
    """
    budget = Budget(settings.budget * 3600, settings.spent * 3600, now)
    ensemble = settings.of_ensemble()
    scoring = scoring_of(ensemble)
    rows = submission_rows(DataFolder(settings.data, settings), settings.split)

    def masks(id: str, found: FieldCells) -> dict[int, str]:
        cells = found.maps.cells
        return encode_label_map(resized(cells, rows.demanded.get(id, cells.shape)))

    with (
        regular_path(settings.out) as out,
        SubmissionTable(out, rows.ids, rows.sizes, Journal(journal_of(out))) as table,
    ):
        if not out.exists():
            table.write()
        results = Results("infer", rows.ids, rows.images, table.journal, settings, ensemble, rows.demanded)
        predictions = predict_fields(
            "infer",
            results.still_to_do(settings.batch),
            rows.images,
            settings,
            ensemble,
            details=masks,
            scoring=scoring,
            budget=budget,
            give_up=settings.give_up,
            done=len(results.done),
        )
        # Only now: a table of another run stays where these members, or this segmenter, cannot be loaded.
        with table.growing(), closing(predictions):
            for prediction in predictions:
                begun = now()
                text = prediction.result(_prediction_string, scoring)
                results.add(prediction.made(text, now() - begun))
                table.write_if_due()
                budget.reserve = 2 * table.seconds
        outcome = results.outcome()
        if not outcome.late:
            table.journal.finish()
        _report(out, ensemble.masks, rows, outcome)
    return settings.out


def _prediction_string(prediction: Prediction, scoring: ScoringFunction) -> str:
    scores = score_field(prediction.id, prediction.evidence, scoring)
    return scores_to_prediction(scores, prediction.prepared.details)


class SubmissionRows(NamedTuple):
    """Rows to write, in order.

    Attributes:
        ids: the rows.
        images: folder of the fields.
        sample: the sample submission, or None.
        demanded: {ID: (height, width)} by the sample, which the masks get.
        sizes: the same for all rows whose size is known before any image is decoded.
    """

    ids: list[str]
    images: Images
    sample: Path | None
    demanded: dict[str, Size]
    sizes: dict[str, Size]


def submission_rows(folder: DataFolder, split: str) -> SubmissionRows:
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
    return SubmissionRows(fields.ids, images, sample, demanded, sizes)


def _report(out: Path, masks: Path | None, rows: SubmissionRows, outcome: Outcome) -> None:
    """Say of which fields nothing came, which masks are of another size, and what Kaggle would reject."""
    outcome.report("infer", masks, "finds nothing")
    others = [id for id, size in outcome.sizes.items() if rows.demanded.get(id, size) != size]
    if others:
        log.warning(
            f"infer: {len(others)} fields differ in size from {rows.sample}, whose sizes the masks got: "
            f"{named(others)}"
        )
    for fault in check_submission(out, rows.sample)[:MAX_NAMED] if rows.sample is not None else []:
        log.error(f"infer: Kaggle would reject {out}: {fault}")
    outcome.refuse_if_nothing_done("infer", rows.images)
