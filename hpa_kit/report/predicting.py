"""What members say of the fields of a report: class maps for a submission, cells and scores too for a run."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpa_kit.config import EnsembleSettings, LookSettings, PredictSettings, ReportSettings, make_settings
from hpa_kit.devices import pick_devices
from hpa_kit.flow import Failure, batches
from hpa_kit.inference import Prediction, predict_fields
from hpa_kit.scoring import ScoringFunction, score_field, scores_to_prediction, scoring_of
from hpa_kit.submission import encode_label_map
from hpa_kit.training.checkpoint import checkpoint_file, settings_of

MAX_CROPS = 48  # shown of all fields together

KeepMaps = Callable[[str, NDArray[np.float32]], None]
Row = tuple[str, int, int, str]


@dataclass
class Predicted:
    """What came of a report's fields.

    Attributes:
        rows: of a submission, where cells were asked for, in the order of the fields.
        failed: {ID: why it could not be used}.
        seconds: per field by part.
        crops: uint8 (s, s, 3), as the first network of crops saw them, some of each field.
    """

    rows: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    crops: list[NDArray[np.uint8]] = field(default_factory=list)


def predict_for_report(
    settings: LookSettings, images: Path, ids: Sequence[str], keep: KeepMaps, *, cells: bool
) -> Predicted:
    """Have members predict fields for a report.

    Args:
        settings: who predicts; of several devices the first one works.
        images: folder of the fields.
        ids: the fields.
        keep: is given the ID and the class maps, float32 (19, m, m), of each field that has any.
        cells: whether cells are found and scored too.

    Raises:
        InputError: members cannot be loaded.
    """
    ensemble, found = settings.of_ensemble(), Predicted()
    scoring, seen = scoring_of(ensemble), _crops_seen(ensemble, -(-MAX_CROPS // max(1, len(ids))))
    rows: dict[str, Row] = {}
    predictions = predict_fields(
        "report",
        list(batches(ids, settings.batch)),
        images,
        settings.model_copy(update={"device": pick_devices(settings.device)[0]}),
        ensemble,
        details=lambda id, one: encode_label_map(one.maps.cells) if cells else None,
        find_cells=cells,
    )
    with closing(predictions):
        for prediction in predictions:
            row = prediction.result(_row, scoring if cells else None)
            if isinstance(row, Failure):
                found.failed[prediction.id] = row.reason
                continue
            rows[prediction.id] = row
            if prediction.evidence.class_maps.size:
                keep(prediction.id, prediction.evidence.class_maps)
            found.crops += seen(prediction)[: MAX_CROPS - len(found.crops)]
            for part, seconds in prediction.seconds.items():
                found.seconds[part] += seconds
    found.rows = [rows[id] for id in ids if id in rows]
    found.seconds = {part: seconds / len(rows) for part, seconds in found.seconds.items()}
    return found


def _crops_seen(ensemble: EnsembleSettings, most: int) -> Callable[[Prediction], Sequence[NDArray[np.uint8]]]:
    """What gives of a prediction the crops as the first network of crops saw them, so many of a field."""
    for member in ensemble.members:
        trained = settings_of(checkpoint_file(member.checkpoint))
        if trained.network == "crops":
            break
    else:
        return lambda prediction: ()
    import torch

    from hpa_kit.models import Normaliser
    from hpa_kit.models.crop_net import FADED

    normalise = Normaliser(trained.in_channels, trained.normalisation)
    key = member.size or trained.size, trained.crops.side or 0
    outside = FADED[trained.crops.neighbours]

    def seen(prediction: Prediction) -> Sequence[NDArray[np.uint8]]:
        crops = prediction.prepared.inputs.crops[key]
        pixels, masks = (torch.from_numpy(values[:most]) for values in (crops.pixels, crops.masks))
        statistics = torch.from_numpy(crops.statistics).expand(len(pixels), -1, -1)
        inside = masks[:, None].float()
        found = normalise(pixels, statistics)[:, :3] * (outside + (1 - outside) * inside)
        # From two spreads below the field's mean to four above.
        shown = ((found + 2) / 6).clamp(0, 1).mul(255).to(torch.uint8).permute(0, 2, 3, 1)
        return list(shown.numpy())

    return seen


def _row(prediction: Prediction, scoring: ScoringFunction | None) -> Row:
    field = prediction.prepared
    height, width = field.size
    if scoring is None:
        return prediction.id, width, height, ""
    scores = score_field(prediction.id, prediction.evidence, scoring)
    return prediction.id, width, height, scores_to_prediction(scores, field.details)


def look_settings(settings: ReportSettings, members: Sequence[Path]) -> PredictSettings:
    """Who looks at a report's fields; what its settings do not say is the ensemble's to say.

    Args:
        settings: of the report; ``data`` is given.
        members: runs, or none where the settings name an ensemble.
    """
    said = ("masks", "segmenter", "weights", "rule", "views", "map_size")
    names = ("data", *said, "batch", "workers", "device")
    given = {name: getattr(settings, name) for name in names}
    source = {"members": tuple(members)} if members else {"ensemble": settings.ensemble}
    return make_settings(PredictSettings, given, source, {"out": settings.out}, source="report")
