"""The evidence of many fields together: cell scores by any settings, and their mAP, in a moment."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpa_kit.classes import N_CLASSES
from hpa_kit.config import EnsembleSettings
from hpa_kit.scoring.functions import scoring_of
from hpa_kit.scoring.mean_logit import logit, sigmoid
from hpa_kit.scoring.post_processing import CellContext, apply_steps
from hpa_kit.submission.metric import average_precision
from hpa_kit.tuning.evidence import MAP_RULES, Evidence

LINEAR = ("best", "mean_logit", "mean_logit_negative", "cell_logit", "copied")

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Evidence of F fields, N cells and M members; see :class:`~hpa_kit.tuning.evidence.Evidence`.

    Attributes:
        bounds: int64 (F + 1,), cells ``bounds[f]`` to ``bounds[f + 1]`` are those of field f.
        image_scores: (M, F, 19); logits: (M, N, 19); rows: (rules, N, 19).
        areas, cut: (N,); hits: (N, 19); truth: (F, 19).
        labels: bool (F, 19), image labels; without a truth the mAP is theirs.
        by_cell: whether the mAP is that of cells.
    """

    bounds: NDArray[np.int64]
    image_scores: NDArray[np.float32]
    logits: NDArray[np.float32]
    rows: NDArray[np.float32]
    areas: NDArray[np.float64]
    cut: NDArray[np.bool_]
    hits: NDArray[np.bool_]
    truth: NDArray[np.int64]
    labels: NDArray[np.bool_]
    by_cell: bool

    @property
    def fields(self) -> NDArray[np.int64]:
        """The field of every cell (N,)."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))

    def image_scores_of(self, settings: EnsembleSettings) -> Rows:
        """Image scores by weight (F, 19)."""
        weights = [member.weight * member.gives_scores for member in settings.members]
        return _weighted(self.image_scores, weights)

    def logits_of(self, settings: EnsembleSettings) -> Rows:
        """Mean logits of cells by weight (N, 19), NaN for a number that has no pixel."""
        return _weighted(self.logits, [member.weight * member.gives_maps for member in settings.members])

    def scores_of(self, settings: EnsembleSettings) -> Rows:
        """Cell scores (N, 19) by rule and steps; for rules that are not linear, the weights play no part."""
        images = self.image_scores_of(settings)
        rows = self._rule_rows(settings, images)
        steps = scoring_of(settings).steps
        if not steps:
            return rows
        adjusted = np.zeros_like(rows)
        for field, (start, stop) in enumerate(zip(self.bounds[:-1], self.bounds[1:], strict=True)):
            context = CellContext(images[field], self.areas[start:stop], self.cut[start:stop])
            adjusted[start:stop] = apply_steps(rows[start:stop], context, steps)
        return adjusted

    def _rule_rows(self, settings: EnsembleSettings, images: Rows) -> Rows:
        if settings.rule not in LINEAR:
            name: str = settings.rule
            if name == "cam_share":
                name = f"{name} {settings.form}"
            return self.rows[list(MAP_RULES).index(name)].astype(np.float64)
        of_image = images[self.fields]
        if settings.rule == "copied":
            return of_image
        logits = self.logits_of(settings)
        shown = ~np.isnan(logits)
        cell = np.where(shown, sigmoid(np.where(shown, logits, 0)), 0)
        return cell if settings.rule == "cell_logit" else cell * of_image

    def mean_ap(self, scores: Rows, chosen: NDArray[np.bool_]) -> float | None:
        """The mAP of the chosen fields, bool (F,): of cells, or of the cells' maximum for image labels.

        None where no class has anything to find.
        """
        if self.by_cell:
            some = chosen[self.fields]
            scores, right, total = scores[some], self.hits[some], self.truth[chosen].sum(axis=0)
        else:
            right = self.labels[chosen]
            scores, total = self._maxima(scores)[chosen], right.sum(axis=0)
        known = []
        for index in np.flatnonzero(total):
            # A submission leaves out what is scored nothing; an image has every label, however low.
            found = scores[:, index] > (0 if self.by_cell else -1)
            known.append(average_precision(scores[found, index], right[found, index], int(total[index])))
        return float(np.mean(known)) if known else None

    def _maxima(self, scores: Rows) -> Rows:
        most = np.zeros((len(self.bounds) - 1, N_CLASSES))
        np.maximum.at(most, self.fields, scores)
        return most

    def examples(
        self, settings: EnsembleSettings, chosen: NDArray[np.bool_]
    ) -> tuple[Rows, Rows, NDArray[np.bool_]]:
        """Logits of cells and of their images, and what is right, of the chosen fields, for a calibration.

        Without a truth the strongest cell of each field stands for it in every class, right by its label.
        """
        logits, images = self.logits_of(settings), logit(self.image_scores_of(settings))
        shown = ~np.isnan(logits[:, 0])
        if self.by_cell:
            some = shown & chosen[self.fields]
            return logits[some], images[self.fields[some]], self.hits[some]
        most = np.full((len(self.bounds) - 1, N_CLASSES), -np.inf)
        np.maximum.at(most, self.fields[shown], logits[shown])
        some = chosen & np.isfinite(most).all(axis=1)
        return most[some], images[some], self.labels[some]


def pooled(evidence: Mapping[str, Evidence], labels: NDArray[np.bool_], *, by_cell: bool) -> Pool:
    """Fields together, in order.

    Args:
        evidence: by ID.
        labels: bool (F, 19), image labels in the same order.
        by_cell: whether there is a truth of cells.
    """
    parts = list(evidence.values())
    bounds = np.cumsum([0, *(len(part.areas) for part in parts)])
    return Pool(
        bounds=bounds,
        image_scores=np.stack([part.image_scores for part in parts], axis=1),
        logits=np.concatenate([part.logits for part in parts], axis=1),
        rows=np.concatenate([part.rows for part in parts], axis=1),
        areas=np.concatenate([part.areas for part in parts]),
        cut=np.concatenate([part.cut for part in parts]),
        hits=np.concatenate([part.hits for part in parts]),
        truth=np.stack([part.truth for part in parts]),
        labels=labels,
        by_cell=by_cell,
    )


def _weighted(values: NDArray[np.float32], weights: list[float]) -> Rows:
    """Weighted mean over members (M, n, 19) -> (n, 19), of those that say something; NaN where none does."""
    says = ~np.isnan(values)
    total = np.zeros(values.shape[1:])
    weight = np.zeros(values.shape[1:])
    for value, said, share in zip(values, says, weights, strict=True):
        total += np.where(said, value, 0) * share
        weight += said * share
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan)
