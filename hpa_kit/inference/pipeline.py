"""Class maps x label maps -> ``submission.csv``, field by field."""

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from hpa_kit.cells import FieldCells, kept_or_made, segmenter
from hpa_kit.config import InferSettings
from hpa_kit.data import DataFolder, field_size, read_sample
from hpa_kit.devices import pick_device
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure, attempt, batches, run_ahead
from hpa_kit.inference.ensemble import Ensemble, FieldMaps
from hpa_kit.inference.prepare import PreparedField, Preparer, Size
from hpa_kit.inference.rows import SubmissionRows
from hpa_kit.inference.rules import RULES, FieldEvidence, ScoringRule, score_field, scores_to_prediction
from hpa_kit.submission import check_submission

log = logging.getLogger(__name__)

MOST_NAMED = 10  # faults of one kind that are named one by one


class _Job(NamedTuple):
    """What there is to do: rows in order, and the sizes that are known of them."""

    ids: list[str]
    images: Path
    sample: Path | None
    demanded: dict[str, Size]  # by the sample
    actual: dict[str, Size]  # of the images


class _Outcome(NamedTuple):
    """What came of the fields."""

    failed: dict[str, str]  # {ID: reason}
    made: int  # fields whose cells the segmenter had to find


def infer(settings: InferSettings) -> Path:
    """Score every cell of every field and write the submission.

    A valid CSV stands before the first field is read, each row finding nothing until its field is done, and
    is replaced from time to time. A field that cannot be read or scored keeps that row, is counted and said.
    Fields are read, and cells found, by threads while the members look at earlier ones; of a field only its
    maps' scale is kept, so memory does not grow with the number of fields.

    Args:
        settings: see :class:`~hpa_kit.config.InferSettings`.

    Returns:
        Path of the CSV. Its rows are the sample's, in its order, where the split has one, else the fields
        found.

    Raises:
        InputError: data, members or settings cannot be used, or not one field could be scored; the CSV with
            rows that find nothing is there nevertheless.
    """
    job = _job(DataFolder(settings.data), settings.split)
    with SubmissionRows(settings.out, job.ids, job.actual | job.demanded) as rows:
        rows.write()
        rule = RULES[settings.rule]
        ensemble = Ensemble(
            settings.members,
            settings.views,
            settings.map_size,
            settings.batch,
            pick_device(settings.device),
            amp=settings.amp,
            class_maps=rule.class_maps,
            logit_maps=rule.logit_maps,
        )
        finder = segmenter(
            settings.segmenter, settings.weights, settings.device, settings.batch, max(1, settings.workers)
        )
        cells = kept_or_made(job.ids, job.images, finder, settings.masks, settings.workers)
        prepare = Preparer(ensemble.inputs, settings.map_size, job.demanded)
        try:
            outcome = _fill(rows, cells, prepare, ensemble, rule, settings)
        finally:
            rows.write()
    _report(settings, job, outcome)
    return settings.out


def _job(folder: DataFolder, split: str) -> _Job:
    """Which rows to write, and what is known of their sizes before any image is decoded."""
    fields, images = folder.fields(split), folder.images(split)
    for ids, what in ((fields.missing, "rows have no image"), (fields.extra, "images have no row")):
        if ids:
            log.warning(f"infer: {len(ids)} {what} in {images}: {_named(ids)}")
    sample = folder.sample() if split == "test" else None
    demanded: dict[str, Size] = {}
    if sample is not None:
        table = read_sample(sample)
        sizes = zip(table["ImageHeight"].tolist(), table["ImageWidth"].tolist(), strict=True)
        demanded = dict(zip(table["ID"], sizes, strict=True))
    actual: dict[str, Size] = {}
    for id in fields.ids:
        with suppress(InputError):  # said when the field is read
            actual[id] = field_size(images, id)
    return _Job(fields.ids, images, sample, demanded, actual)


def _fill(
    rows: SubmissionRows,
    cells: Iterator[tuple[str, FieldCells | Failure]],
    prepare: Preparer,
    ensemble: Ensemble,
    rule: ScoringRule,
    settings: InferSettings,
) -> _Outcome:
    """Predict all rows from their fields with label maps."""
    failed: dict[str, str] = {}
    made = 0

    def ready(item: tuple[str, FieldCells | Failure]) -> tuple[str, PreparedField | Failure]:
        id, found = item
        return id, found if isinstance(found, Failure) else attempt(prepare, id, found)

    threads = max(1, settings.workers)
    with (
        ThreadPoolExecutor(threads, "prepare") as preparing,
        ThreadPoolExecutor(1, "score") as scoring,
        tqdm(total=len(rows.ids), unit="field", desc="infer") as bar,
    ):
        fields = run_ahead(preparing, ready, cells, settings.batch + threads)
        waiting: deque[tuple[PreparedField, Future[str | Failure]]] = deque()
        try:
            for batch in batches(fields, settings.batch):
                good = [field for _, field in batch if not isinstance(field, Failure)]
                for id, field in batch:
                    if isinstance(field, Failure):
                        failed[id] = field.reason
                made += sum(field.made for field in good)
                bar.update(len(batch) - len(good))
                # One batch is scored while the members look at the next.
                maps = ensemble.look([field.inputs for field in good])
                _collect(waiting, rows, failed, bar)
                for field, seen in zip(good, maps, strict=True):
                    waiting.append((field, scoring.submit(attempt, _predict, field, seen, rule)))
                rows.write_if_due()
            _collect(waiting, rows, failed, bar)
        except BaseException:
            preparing.shutdown(cancel_futures=True)
            raise
    return _Outcome(failed, made)


def _collect(
    waiting: deque[tuple[PreparedField, Future[str | Failure]]],
    rows: SubmissionRows,
    failed: dict[str, str],
    bar: tqdm,
) -> None:
    while waiting:
        field, future = waiting.popleft()
        prediction = future.result()
        if isinstance(prediction, Failure):
            failed[field.id] = prediction.reason
        else:
            rows.add(field.id, field.size, prediction)
        bar.update()


def _predict(field: PreparedField, maps: FieldMaps, rule: ScoringRule) -> str:
    evidence = FieldEvidence(
        *maps, cells=field.cells, nuclei=field.nuclei, green=field.green, n_cells=field.n_cells
    )
    return scores_to_prediction(score_field(field.id, evidence, rule), field.masks)


def _report(settings: InferSettings, job: _Job, outcome: _Outcome) -> None:
    """Say what was not as expected.

    Raises:
        InputError: not one field could be scored.
    """
    total, failed = len(job.ids), outcome.failed
    if outcome.made and settings.masks is not None:
        log.warning(
            f"infer: {settings.masks} lacks usable label maps of {outcome.made} of {total} fields; "
            "their cells were found now"
        )
    others = [id for id, size in job.actual.items() if job.demanded.get(id, size) != size]
    if others:
        log.warning(
            f"infer: {len(others)} fields differ in size from {job.sample}, whose sizes the masks got: "
            f"{_named(others)}"
        )
    for id, reason in list(failed.items())[:MOST_NAMED]:
        log.warning(f"infer: ID {id} finds nothing: {reason}")
    if failed:
        log.warning(f"infer: {len(failed)} of {total} fields could not be used; their rows find nothing")
    faults = check_submission(settings.out, job.sample) if job.sample is not None else []
    for fault in faults[:MOST_NAMED]:
        log.error(f"infer: Kaggle would reject {settings.out}: {fault}")
    if len(failed) == total:
        raise InputError(
            f"infer: no field of {job.images} could be used; the first: {next(iter(failed.values()))}"
        )


def _named(ids: list[str]) -> str:
    return ", ".join(ids[:MOST_NAMED]) + (", …" if len(ids) > MOST_NAMED else "")
