"""Fields in, predictions out: reading, cells, members and scoring at the same time.

    for prediction in predict_fields("infer", batches, images, settings, ensemble):
        ...  # scores, strings, files: meanwhile the members are at the next batch

Each device works with threads of its own: one pulls fields through reading, finding cells and making ready,
each with further threads; one has the members predict batches. Whoever asks for predictions scores them, in
its own thread. Devices take their batches from one list, so that a faster one does more.
"""

import logging
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpa_kit.cells import FieldCells, LabelMaps, load_or_segment, segmenter
from hpa_kit.cells.segmenters import Segmenter, mask_folder, segmenter_for
from hpa_kit.config import EnsembleSettings, StreamSettings
from hpa_kit.data import Images, lab_pixel, lab_scale, read_field
from hpa_kit.devices import pick_devices
from hpa_kit.flow import Background, Failure, attempt, run_ahead
from hpa_kit.inference.deadline import BatchSeconds, Budget, Deadline
from hpa_kit.inference.ensemble import Ensemble, Fallback, FieldMaps, QualityLevel, channels_needed
from hpa_kit.inference.prediction import Prediction, PreparedField, prepare
from hpa_kit.progress import Bar, progress_bar
from hpa_kit.scoring import ScoringFunction
from hpa_kit.scoring.functions import BUILT_IN
from hpa_kit.timing import Forecast, Stopwatch, duration

if TYPE_CHECKING:
    from hpa_kit.cells import MaskFolder

log = logging.getLogger(__name__)

SEGMENTER_BATCH = 4  # fields at full size; more gain nothing and hold much memory
# Batches in a row of which nothing could be used, though they could be read: then the device is broken.
MAX_BROKEN = 3
POLL_SECONDS = 0.5


class Device(NamedTuple):
    """What works on one device, and the folder of label maps that all share."""

    name: str
    ensemble: Ensemble
    segmenter: Segmenter | None
    masks: "MaskFolder | None"


def predict_fields(
    what: str,
    batches: Sequence[Sequence[str]],
    images: Images,
    settings: StreamSettings,
    ensemble: EnsembleSettings,
    *,
    details: Callable[[str, FieldCells], Any] = lambda id, found: None,
    scoring: ScoringFunction | None = None,
    members_of: Mapping[str, Collection[int]] | None = None,
    find_cells: bool = True,
    embeddings: bool = False,
    budget: Budget | None = None,
    give_up: Sequence[Fallback] = (),
    forecast: Forecast | None = None,
    done: int = 0,
    said: set[str] | None = None,
    devices: Sequence[Device] | None = None,
) -> Generator[Prediction, None, None]:
    """Predict fields: read them, find their cells, have the members say what they show.

    A field that cannot be used gives a prediction that says why, and costs no other. A device that fails on
    several batches in a row is left alone. Memory does not grow with the number of fields. No more is under
    way of a device than the batch that its members are at and the one whose predictions are given out: a
    caller that keeps each result at once loses no more to a kill.

    Where ``budget`` is too short the ensemble does less, in the order of ``give_up``; in the end the last
    fields are left out.

    Args:
        what: the command, for log and progress.
        batches: IDs of the fields, those that the members predict together.
        images: folder of their images.
        settings: devices, threads, precision.
        ensemble: members, label maps, segmenter.
        details: ID and field with label maps -> what the caller needs of the full size; in threads.
        scoring: whose maps are wanted, the others coming without pixels; None wants all.
        members_of: {ID: places of the members that are asked, each for itself}; None asks all together.
        find_cells: otherwise fields come without cells.
        embeddings: whether those of cells are wanted, which networks of crops give.
        budget: the time to end by.
        give_up: what the ensemble may do less of, in order, where time is short.
        forecast: of more fields than these, where these are a part of a run.
        done: fields that were done before, for the progress.
        said: what is not said again of members and segmenter, where these are a part of a run; gets what is.
        devices: what :func:`load_devices` gave for several calls, which show no progress of their own.

    Returns:
        a generator, to be closed where it is left early. Members are loaded before this returns.

    Raises:
        InputError: members, segmenter or label maps cannot be used.
    """
    if not batches:
        return _nothing()
    budget = Budget() if budget is None else budget
    alone = devices is None
    devices = devices or load_devices(settings, ensemble, scoring, find_cells, embeddings, said)
    first, total = devices[0].ensemble, sum(map(len, batches))
    levels = first.levels(give_up)
    costs = [first.cost(level) for level in levels]
    limit = f"; {duration(budget.seconds)} allowed" if budget.seconds < float("inf") else ""
    stream = _Stream(
        what=what, devices=devices, images=images, ensemble=ensemble,
        workers=_workers_each(settings, devices), details=details, members_of=members_of, levels=levels,
        deadline=Deadline(budget, total, costs, len(devices), [level.scoring_cost for level in levels]),
        forecast=forecast or Forecast(what, total, settings.batch * len(devices), budget.now, note=limit),
        batches=iter(batches),
    )  # fmt: skip
    return stream.predictions(progress_bar(what, done + total, initial=done, quiet=not alone))


def load_devices(
    settings: StreamSettings,
    ensemble: EnsembleSettings,
    scoring: ScoringFunction | None = None,
    find_cells: bool = True,
    embeddings: bool = False,
    said: set[str] | None = None,
) -> list[Device]:
    """Load members and segmenter for each device that settings name; arguments as of :func:`predict_fields`.

    Raises:
        InputError: members or segmenter cannot be used.
    """
    names = pick_devices(settings.device)
    said = set() if said is None else said
    masks = None if ensemble.masks is None or not find_cells else mask_folder(ensemble.masks)
    devices = []
    for name in names:
        members = Ensemble(
            ensemble.members, map_size=ensemble.map_size, batch=settings.batch, device=name,
            amp=settings.amp, embeddings=embeddings,
            class_maps=scoring is None or scoring.class_maps,
            logit_maps=scoring is None or scoring.logit_maps,
            merged=scoring is None or scoring.merged,
        )  # fmt: skip
        at_once = min(SEGMENTER_BATCH, settings.batch)
        finds = None
        if find_cells:
            # By its own name it does not say again which was chosen.
            finder = segmenter_for(ensemble.segmenter, ensemble.weights)
            finder = finder if finder in said else ensemble.segmenter
            finds = segmenter(finder, ensemble.weights, name, at_once, _workers_each(settings, names))
            said.add(segmenter_for(finder, ensemble.weights))
        devices.append(Device(name, members, finds, masks))
    first = devices[0].ensemble
    for line in filter(None, (member.other_sides() for member in first.members)):
        if line not in said:
            log.info(line)
            said.add(line)
    if scoring is not None and scoring.class_maps:
        first.refuse_map_rule(ensemble.rule)
    elif scoring and scoring.logit_maps and ensemble.rule not in BUILT_IN and not first.all_have_maps:
        log.warning(
            f"members: rule {ensemble.rule} looks at logit maps; what networks of crops say of cells is in "
            "cell_logits, and counts only where the rule looks there too"
        )
    return devices


def _workers_each(settings: StreamSettings, devices: Sequence[object]) -> int:
    """Threads that read, and find cells, for each device."""
    return max(1, ceil(settings.workers / len(devices)))


def _nothing() -> Generator[Prediction, None, None]:
    yield from ()


class _Ready(NamedTuple):
    """A batch that the members can predict, and the seconds that it took by part."""

    fields: list[tuple[str, PreparedField | Failure]]
    seconds: dict[str, float]


@dataclass
class _Predicted:
    """A batch that the members have predicted.

    Attributes:
        predictions: of its fields.
        good: how many did not fail.
        level: number of the level that was made.
        parts: seconds of a field by part.
        scoring: seconds that its predictions kept the caller busy, once it has come for more.
    """

    predictions: list[Prediction]
    good: int
    level: int
    parts: dict[str, float]
    scoring: float = 0.0


@dataclass
class _Stream:
    """The state that the threads of a stream share."""

    what: str
    devices: Sequence[Device]
    images: Images
    ensemble: EnsembleSettings
    workers: int
    details: Callable[[str, FieldCells], Any]
    members_of: Mapping[str, Collection[int]] | None
    levels: list[QualityLevel]
    deadline: Deadline
    forecast: Forecast
    batches: Iterator[Sequence[str]]
    taking: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def predictions(self, bar: Bar) -> Generator[Prediction, None, None]:
        """Predictions of all devices as they come, in the caller's thread."""
        now, said = self.deadline.budget.now, self.deadline.level
        with bar:
            predicted = Background(*(self._predicted(device) for device in self.devices))
            try:
                for batch in predicted:
                    for prediction in batch.predictions:
                        begun = now()
                        yield prediction
                        batch.scoring += now() - begun if prediction.failure is None else 0.0
                        bar.update()
                    parts = batch.parts | self.deadline.parts()
                    self.forecast.add(len(batch.predictions), parts)
                    if self.deadline.level != said:
                        said = self.deadline.level
                        log.warning(self._level_line(self.levels[said]))
            finally:
                self.stop.set()
                predicted.close(None)

    def _predicted(self, device: Device) -> Iterator[_Predicted]:
        """Batches that a device's members have predicted, until there are no more or time is up."""
        deadline, now = self.deadline, self.deadline.budget.now
        ended = threading.Event()
        ready = Background(self._ready(device, ended), ahead=2)
        before: tuple[_Predicted, int] | None = (
            None  # the batch that is scored meanwhile, and what counts of it
        )
        ensemble, asked = device.ensemble, now()
        try:
            while ensemble.broken < MAX_BROKEN and (batch := self._next(ready)) is not None:
                good = [one for _, one in batch.fields if not isinstance(one, Failure)]
                level = deadline.choose(len(good))
                if level is None:
                    return
                ensemble.level = self.levels[level]
                begun = now()
                said = self._ask(ensemble, good)
                members = now() - begun
                parts = {part: seconds / len(batch.fields) for part, seconds in batch.seconds.items()}
                each = parts | {"members": members / max(1, len(good))}
                found = [Prediction(id, failure=one) for id, one in batch.fields if isinstance(one, Failure)]
                found += [Prediction.of(one, says, each) for one, says in zip(good, said, strict=True)]
                n_said = sum(prediction.failure is None for prediction in found)
                yield (predicted := _Predicted(found, n_said, level, parts))
                whole, asked = now() - asked, now()
                scored = (level, 0) if before is None else (before[0].level, before[1])
                scoring = 0.0 if before is None else before[0].scoring
                spent = BatchSeconds(sum(batch.seconds.values()), members, scoring, whole, scored)
                deadline.add(level, len(batch.fields), len(good), spent)
                if not ensemble.all_have_maps:  # by now it is known better how many cells fields have
                    deadline.reprice([ensemble.cost(one) for one in self.levels])
                # The first batch to be scored waits for compilers, and tells nothing of the others.
                before = (predicted, 0 if before is None else n_said)
                ensemble.broken = ensemble.broken + 1 if good and not n_said else 0
            if ensemble.broken == MAX_BROKEN:
                log.error(f"{device.name} failed on {MAX_BROKEN} batches in a row and is left alone")
        finally:
            ended.set()
            ready.close()

    def _next(self, ready: Background[_Ready]) -> _Ready | None:
        """The next batch; a disk that hangs is waited for as long as there is time."""
        while not self.stop.is_set() and (left := self.deadline.budget.left()) > 0:
            try:
                return ready.get(min(POLL_SECONDS, left))
            except TimeoutError:
                continue
        return None

    def _ask(
        self, ensemble: Ensemble, fields: Sequence[PreparedField]
    ) -> list[FieldMaps | dict[int, FieldMaps] | Failure]:
        """What the members say; where they fail on a batch, each of its fields has another chance alone."""
        if not fields:
            return []
        inputs = [one.inputs for one in fields]
        said: Any
        if self.members_of is None:
            said = attempt(ensemble.predict, inputs)
        else:
            said = attempt(ensemble.predict_apart, inputs, [self.members_of[one.id] for one in fields])
        if not isinstance(said, Failure):
            return list(said)
        return [said] if len(fields) == 1 else [self._ask(ensemble, [one])[0] for one in fields]

    def _ready(self, device: Device, ended: threading.Event) -> Iterator[_Ready]:
        """Batches as they get ready, until there are no more or nobody takes them."""
        watch = Stopwatch(self.deadline.budget.now)
        sizes: list[int] = []

        def ids() -> Iterator[str]:
            while not self.stop.is_set() and (batch := self._take()) is not None:
                sizes.append(len(batch))
                yield from batch

        def found() -> Iterator[tuple[str, FieldCells | Failure]]:
            needed = channels_needed(self.ensemble.members)
            if device.segmenter is None:
                items = _without_cells(ids(), self.images, self.workers, needed)
            else:
                items = load_or_segment(
                    ids(), self.images, device.segmenter, device.masks, self.workers, needed, watch
                )
            with closing(items):
                for item in items:
                    if ended.is_set():
                        return
                    yield item

        def prepared(item: tuple[str, FieldCells | Failure]) -> tuple[str, PreparedField | Failure]:
            id, one = item
            if isinstance(one, Failure):
                return id, one
            return id, attempt(self._prepare, id, one, device.ensemble)

        with (
            ThreadPoolExecutor(self.workers, "prepare") as pool,
            closing(watch.watch("reading", found())) as read,
            closing(watch.watch("preparing", run_ahead(pool, prepared, read, self.workers))) as fields,
        ):
            while not ended.is_set():
                before = dict(watch.seconds)
                # The first of a batch tells how large it is: its IDs have been taken by then.
                some = list(islice(fields, 1))
                if not some:
                    return
                some += islice(fields, sizes.pop(0) - 1)
                took = {part: seconds - before.get(part, 0.0) for part, seconds in watch.seconds.items()}
                yield _Ready(some, took)

    def _prepare(self, id: str, found: FieldCells, ensemble: Ensemble) -> PreparedField:
        # A field whose cells nobody looked for is not one without cells.
        cells = None if self.devices[0].segmenter is None else found.maps.cells
        zoom, pixel = lab_scale(self.images, id)[1], lab_pixel(self.images, id)
        inputs = ensemble.inputs(found.field, cells, zoom, pixel)
        return prepare(id, found, ensemble.map_size, inputs, self.details(id, found))

    def _take(self) -> Sequence[str] | None:
        """The next batch to be done, by any device."""
        with self.taking:
            return next(self.batches, None)

    def _level_line(self, level: QualityLevel) -> str:
        views = ("all views", "no scaled views", "no views")[level.views]
        left = duration(max(0.0, self.deadline.budget.left()))
        return (
            f"{self.what}: {self.deadline.left} fields and {left} left, now with {views}, "
            f"{level.members} members, maps of {level.map_size} px"
        )


def _without_cells(
    ids: Iterator[str], images: Images, workers: int, needed: int | Collection[str]
) -> Generator[tuple[str, FieldCells | Failure], None, None]:
    """Fields as they are read, their label maps empty."""

    def read(id: str) -> tuple[str, FieldCells | Failure]:
        whole = attempt(partial(read_field, images, id, needed=needed))
        if isinstance(whole, Failure):
            return id, whole
        nothing = np.zeros(whole.shape[1:], np.int32)
        return id, FieldCells(whole, LabelMaps(nothing, nothing), made=False)

    with ThreadPoolExecutor(workers, "read") as pool:
        yield from run_ahead(pool, read, ids, workers)
