"""Class maps x label maps -> a table, field by field: the submission, or any other with :func:`fill`."""

import logging
import threading
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from time import monotonic
from typing import TypeVar

from tqdm import tqdm

from hpa_kit.cells import FieldCells, label_map_ids, resized, segmenter
from hpa_kit.config import InferSettings
from hpa_kit.data import DataFolder
from hpa_kit.devices import pick_devices
from hpa_kit.files import make_folder_of
from hpa_kit.flow import Failure
from hpa_kit.inference.batching import Batches, batches_to_do
from hpa_kit.inference.budget import Budget, Now, Pace
from hpa_kit.inference.ensemble import Effort, Ensemble, FieldMaps, Saving, channels_needed
from hpa_kit.inference.journal import Journal
from hpa_kit.inference.lanes import Lane, Shared, run_lanes
from hpa_kit.inference.prepare import PreparedField, Preparer
from hpa_kit.inference.rows import GrowingTable, SubmissionRows
from hpa_kit.inference.work import (
    Filling,
    Outcome,
    outcome_of,
    refuse_if_all_failed,
    report_fields,
    report_submission,
    submission_work,
)
from hpa_kit.resume import depends_on, field_stamps
from hpa_kit.scoring.functions import (
    FieldEvidence,
    ScoringRule,
    code_of,
    rule_of,
    score_field,
    scores_to_prediction,
)
from hpa_kit.submission import encode_label_map
from hpa_kit.timing import Forecast, duration

log = logging.getLogger(__name__)

D = TypeVar("D")

SEGMENTER_BATCH = 4  # fields at full size; more gain nothing and hold much memory


def infer(settings: InferSettings, now: Now = monotonic) -> Path:
    """Score every cell of every field and write the submission.

    A valid CSV stands before the first field is read, each row finding nothing until its field is done, and
    is replaced from time to time. A field that cannot be read or scored keeps that row, is counted and said.
    Fields are read, and cells found, by threads while the members look at earlier ones; of a field only its
    maps' scale is kept, so memory does not grow with the number of fields. Several devices share the fields.

    All is done within ``settings.budget``, counted from this call on and with ``settings.spent`` gone before:
    where what was measured says that there is no time for everything, the ensemble does less, in the order of
    ``settings.give_up``; where even the least takes too long, the last fields find nothing.

    Killed at any moment, the same call goes on and ends with the same CSV: results are kept in a hidden file
    beside it until all are there. A second call that writes the same CSV meanwhile is refused.

    Beside the CSV, ``NAME_seconds.yaml`` says what a field took by part, all starts of the run together.

    Args:
        settings: see :class:`~hpa_kit.config.InferSettings`.
        now: the clock, in seconds from any zero on.

    Returns:
        Path of the CSV. Its rows are the sample's, in its order, where the split has one, else the fields
        found.

    Raises:
        InputError: data, members or settings cannot be used, or not one field could be scored; the CSV with
            rows that find nothing is there nevertheless.
    """
    budget = Budget(settings.budget * 3600, settings.spent * 3600, now)
    chosen = settings.of_ensemble()
    work = submission_work(DataFolder(settings.data), settings.split)

    def masks(id: str, found: FieldCells) -> dict[int, str]:
        cells = found.maps.cells
        return encode_label_map(resized(cells, work.demanded.get(id, cells.shape)))

    filling = Filling(
        "infer", settings, chosen, work.ids, work.images, work.demanded, masks, _predict, budget
    )
    make_folder_of(settings.out)
    with SubmissionRows(settings.out, work.ids, work.sizes, Journal(journal_of(settings.out))) as rows:
        if not settings.out.exists():
            rows.write()
        outcome = fill(filling, rows, settings.give_up)
        report_fields("infer", chosen.masks, work.ids, outcome, "finds nothing")
        report_submission(settings.out, work, outcome)
        refuse_if_all_failed("infer", work.images, work.ids, outcome)
    return settings.out


def _predict(field: PreparedField[dict[int, str]], maps: FieldMaps, rule: ScoringRule) -> str:
    return scores_to_prediction(score_field(field.id, evidence(field, maps), rule), field.details)


def evidence(field: PreparedField[D], maps: FieldMaps) -> FieldEvidence:
    """What a rule may look at."""
    return FieldEvidence(
        *maps,
        cells=field.cells,
        nuclei=field.nuclei,
        green=field.green,
        n_cells=field.n_cells,
        places=field.places,
    )


def journal_of(out: Path) -> Path:
    """Where results are kept until the CSV is whole: hidden, beside it."""
    return out.with_name(f".{out.name}.partial")


def fill(filling: Filling[D], table: GrowingTable, give_up: Sequence[Saving] = ()) -> Outcome:
    """Fill a table from its fields, going on where an earlier call was stopped; the table is written.

    What stood in the table's place before stays until there is something to begin with.

    Args:
        filling: what to do.
        table: where results go; its journal is removed when no field is left to do.
        give_up: what the ensemble may do less of, in order, where time is short.
    """
    stamps = field_stamps(
        filling.ids, filling.images, [(filling.ensemble.masks, label_map_ids)], filling.sizes
    )
    ensemble = filling.ensemble.model_dump(exclude={"masks"})
    code = code_of(filling.ensemble.rule)
    table.journal.resume(depends_on(filling.what, filling.settings.amp, ensemble, code), stamps)
    resumed = [id for id in filling.ids if id in table.journal]
    for id in resumed:
        if not filling.still_there(id):
            table.journal.forget(id)
    if resumed:
        log.info(f"{filling.what}: {len(resumed)} of {len(filling.ids)} fields were done before; going on")
    todo = list(batches_to_do(filling.ids, filling.settings.batch, table.journal))
    if filling.forecast is not None:
        filling.forecast.fewer(len(filling.ids) - sum(map(len, todo)))
    if todo:
        _run(filling, table, give_up, todo, stamps)
    else:
        table.write()
    outcome = outcome_of(filling.ids, table.journal)
    if not outcome.late:
        table.journal.finish()
    return outcome


def _run(
    filling: Filling[D],
    table: GrowingTable,
    give_up: Sequence[Saving],
    todo: list[list[str]],
    stamps: dict[str, str],
) -> None:
    """Do batches on all devices."""
    settings, budget, rule = filling.settings, filling.budget, rule_of(filling.ensemble)
    devices = pick_devices(settings.device)
    ensembles = [_load(filling, rule, device) for device in devices]
    efforts = ensembles[0].efforts(give_up)
    total = sum(map(len, todo))
    costs = [ensembles[0].cost(effort) for effort in efforts]
    pace = Pace(budget, total, costs, len(devices), [effort.scoring_cost for effort in efforts])
    limit = f"; {duration(budget.seconds)} allowed" if budget.seconds < float("inf") else ""
    warmup = settings.batch * len(devices)
    forecast = filling.forecast or Forecast(filling.what, total, warmup, budget.now, note=limit)
    said = [efforts[0]]

    def receive(
        id: str, field: PreparedField[D] | None, result: str | Failure, seconds: Mapping[str, float]
    ) -> None:
        bar.update()
        if field is None or isinstance(result, Failure):
            reason = result.reason if isinstance(result, Failure) else "no result"
            table.journal.add(id, b"", stamp=stamps[id], failed=reason)
            return
        size = filling.sizes.get(id, field.size)
        facts = {"stamp": stamps[id], "made": field.made, "actual": field.size, "seconds": dict(seconds)}
        table.add(id, size, result, **facts)

    def after(fields: int, parts: dict[str, float]) -> None:
        forecast.add(fields, parts)
        filling.measured(fields, parts)
        if efforts[pace.effort] != said[-1]:
            said.append(efforts[pace.effort])
            log.warning(_effort_line(filling.what, said[-1], pace))

    def meanwhile() -> None:
        table.write_if_due()
        budget.reserve = 2 * table.seconds

    workers = max(1, ceil(settings.workers / len(devices)))
    shared = Shared(
        images=filling.images,
        masks=filling.ensemble.masks,
        needed=channels_needed(filling.ensemble.members),
        workers=workers,
        finish=lambda field, maps: filling.finish(field, maps, rule),
        receive=receive,
        pace=pace,
        efforts=efforts,
        after=after,
    )
    queue, receiving, stop = Batches(todo), threading.Lock(), threading.Event()
    lanes = []
    for device, ensemble in zip(devices, ensembles, strict=True):
        batch = min(SEGMENTER_BATCH, settings.batch)
        finder = segmenter(filling.ensemble.segmenter, filling.ensemble.weights, device, batch, workers)
        prepare = Preparer(ensemble.inputs, filling.ensemble.map_size, filling.details)
        lanes.append(Lane(device, ensemble, finder, prepare, shared, queue, receiving, stop))
    # Not before: a table of another run stays where these members, or this segmenter, cannot be loaded.
    table.write()
    bar = tqdm(total=len(filling.ids), initial=len(filling.ids) - total, unit="field", desc=filling.what)
    try:
        with bar:
            run_lanes(lanes, stop, meanwhile)
    finally:
        table.write()


def _load(filling: Filling[D], rule: ScoringRule, device: str) -> Ensemble:
    return Ensemble(
        filling.ensemble.members,
        map_size=filling.ensemble.map_size,
        batch=filling.settings.batch,
        device=device,
        amp=filling.settings.amp,
        class_maps=rule.class_maps,
        logit_maps=rule.logit_maps,
    )


def _effort_line(what: str, effort: Effort, pace: Pace) -> str:
    views = ("all views", "no scaled views", "no views")[effort.views]
    return (
        f"{what}: {pace.left} fields and {duration(max(0.0, pace.budget.left()))} left, now with {views}, "
        f"{effort.members} members, maps of {effort.map_size} px"
    )
