"""What is made of the predictions of fields: here, or by the workers of a cluster, to the same results."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpa_kit.cells import FieldCells
from hpa_kit.cells.own_segmenters import OwnSegmenter, own_segmenters, take_segmenters
from hpa_kit.config import EnsembleSettings, StreamSettings
from hpa_kit.data import Images
from hpa_kit.devices import pick_device
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure
from hpa_kit.inference.deadline import Budget
from hpa_kit.inference.prediction import Made, Prediction
from hpa_kit.inference.stream import MAX_BROKEN, load_devices, predict_fields
from hpa_kit.scoring import ScoringFunction
from hpa_kit.timing import Forecast

if TYPE_CHECKING:
    from hpa_kit.cluster.batches import Workers
    from hpa_kit.cluster.worker import Item, Work


@dataclass(frozen=True)
class FieldJob:
    """Fields that an ensemble predicts, and what is made of each.

    Attributes:
        what: the command.
        images, settings, ensemble, scoring, embeddings: as of :func:`~hpa_kit.inference.predict_fields`.
        details: ID and field with label maps -> what is needed of the full size.
        made: a prediction, and what is known of its field beside it -> what is kept of it.
        outputs: folders that files are written to beside.
        segmenters: of the user's own, for workers, which have not added them.
    """

    what: str
    images: Images
    settings: StreamSettings
    ensemble: EnsembleSettings
    scoring: ScoringFunction
    details: Callable[[str, FieldCells], Any]
    made: Callable[[Prediction, Any], Made]
    embeddings: bool = False
    outputs: tuple[Path, ...] = ()
    segmenters: Mapping[str, OwnSegmenter] | None = None

    @property
    def paths(self) -> list[Path]:
        """What each worker of a cluster has to see."""
        named = (Path(str(self.images)), self.ensemble.masks, self.ensemble.weights, *self.outputs)
        return [path for path in named if path is not None] + [
            one.checkpoint for one in self.ensemble.members
        ]

    def load(self, threads: int) -> "Work":
        """Load members and segmenter in a worker of a cluster, for all batches to come."""
        take_segmenters(self.segmenters or {})
        # Of several GPUs that it sees a worker takes one: others are other workers'.
        device = pick_device("auto") if self.settings.device == "auto" else self.settings.device
        workers = min(self.settings.workers, threads)
        settings = self.settings.model_copy(update={"device": device, "workers": workers})
        devices = load_devices(settings, self.ensemble, self.scoring, embeddings=self.embeddings)

        def work(items: "Sequence[Item]") -> Generator[tuple[str, Made], None, None]:
            more = dict(items)
            predictions = predict_fields(
                self.what, [list(more)], self.images, settings, self.ensemble,
                details=self.details, scoring=self.scoring, embeddings=self.embeddings, devices=devices,
            )  # fmt: skip
            with closing(_made_of(predictions, self, more)) as fields:
                yield from ((made.id, made) for made in fields)
            # A broken worker would fail fast, and take all batches from those that work.
            if (broken := max(one.ensemble.broken for one in devices)) >= MAX_BROKEN:
                raise InputError(
                    f"{devices[0].name} failed on {broken} batches in a row; have this worker end, and give "
                    "the same command"
                )

        return work


def made_fields(
    job: FieldJob,
    batches: Sequence[Sequence[str]],
    workers: "Workers | None",
    *,
    more: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    forecast: Forecast | None = None,
    done: int = 0,
    said: set[str] | None = None,
) -> Generator[Made, None, None]:
    """Give what is made of fields, as it comes.

    Args:
        job: who predicts them, and what is made of them.
        batches: IDs, those that members predict together: the same here and on a cluster.
        workers: of a cluster; None does the work here.
        more: {ID: what the job is told of a field}.
        done: fields that were done before, for the progress.
        budget, forecast, said: as of :func:`~hpa_kit.inference.predict_fields`; they count here only.

    Returns:
        a generator, to be closed. Before this returns members are loaded here, or a worker has done a batch.

    Raises:
        InputError: members, segmenter or label maps cannot be used; or the cluster is gone.
    """
    more = more or {}
    if workers is not None:
        return _begun(_by_workers(job, batches, workers, more, done))
    predictions = predict_fields(
        job.what, batches, job.images, job.settings, job.ensemble,
        details=job.details, scoring=job.scoring, embeddings=job.embeddings,
        budget=budget, forecast=forecast, done=done, said=said,
    )  # fmt: skip
    return _made_of(predictions, job, more)


def _made_of(
    predictions: Generator[Prediction, None, None], job: FieldJob, more: Mapping[str, Any]
) -> Generator[Made, None, None]:
    with closing(predictions):
        for prediction in predictions:
            yield job.made(prediction, more.get(prediction.id))


def _by_workers(
    job: FieldJob,
    batches: Sequence[Sequence[str]],
    workers: "Workers",
    more: Mapping[str, Any],
    done: int,
) -> Generator[Made, None, None]:
    from hpa_kit.cluster import Item, done_by_workers

    job = replace(job, segmenters=own_segmenters(job.ensemble.segmenter))
    items = [[Item(id, more.get(id)) for id in batch] for batch in batches]
    with closing(done_by_workers(job.what, workers, job, items, done)) as results:
        for id, made in results:
            yield Made(id, made, {}) if isinstance(made, Failure) else made


def _begun(items: Generator[Made, None, None]) -> Generator[Made, None, None]:
    """Give the same items; the first has been waited for, so that what is no job at all fails at once."""
    first = list(islice(items, 1))

    def both() -> Generator[Made, None, None]:
        with closing(items):
            yield from chain(first, items)

    return both()
