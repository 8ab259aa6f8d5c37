"""``hpa-kit tune``: weights, rule and steps of an ensemble, chosen on fields its members have not seen."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.classes import multi_hot, parse_label
from hpa_kit.config import EnsembleSettings, TuneSettings, write_ensemble
from hpa_kit.config.scoring import name_of
from hpa_kit.data import DataFolder, read_labels
from hpa_kit.errors import InputError
from hpa_kit.files import regular_path
from hpa_kit.scoring.functions import BUILT_IN
from hpa_kit.training.checkpoint import checkpoint_file, settings_of
from hpa_kit.training.learnt_fields import out_of_fold_members
from hpa_kit.tuning.choices import Crossfit, choose, crossfit
from hpa_kit.tuning.evidence import gather
from hpa_kit.tuning.pool import LINEAR, pooled
from hpa_kit.tuning.truth import TrueCells

log = logging.getLogger(__name__)

MIN_FIELDS = 4  # with fewer nothing can be chosen on some and judged on others


class Tuning(NamedTuple):
    """What came of it.

    Attributes:
        by: what the mAP is of: ``cells`` or ``image labels``.
        fields: how many were chosen on.
        crossfit: what choosing gains on fields that were not chosen on.
        ensemble: what was written: the choice on all fields, or the start where choosing does not help.
    """

    by: str
    fields: int
    crossfit: Crossfit
    ensemble: EnsembleSettings

    def __str__(self) -> str:
        found = self.crossfit
        steps = ", ".join(map(name_of, self.ensemble.steps)) or "no steps"
        lines = [
            f"tuned by the mAP of {self.by} on {self.fields} fields: {found.default:.4f} before, "
            f"{found.gain:+.4f} (standard error {found.error:.4f}) on fields not chosen on",
            f"rule {self.ensemble.rule}, {steps}",
        ]
        if not found.helps:
            lines.append("choosing gains no more than chance would: the ensemble stays as it was")
        return "\n".join(lines)


def tune(settings: TuneSettings) -> Tuning:
    """Choose an ensemble's weights, rule and steps and write its YAML.

    Judged by the mAP of cells where a truth is given; else by the mAP of image labels, an image scoring in
    each class what its strongest cell does. Each field is predicted by members that have not learnt from it,
    as the folds in their run folders say; what they say is kept in ``settings.cache`` and used again.

    So that the choice cannot fool itself it is made again on all parts of the fields but one, for each part,
    and judged on that one; all this for several divisions, as few fields say little. Where the mean gain is
    not above its standard error nothing is changed.

    Args:
        settings: see :class:`~hpa_kit.config.TuneSettings`. Members given without a YAML start with equal
            weights.

    Raises:
        InputError: data, members, truth or settings cannot be used, or too few fields are unseen by members.
    """
    start = settings.of_ensemble()
    if start.rule not in BUILT_IN:
        raise InputError(
            f"tune: rule {start.rule!r} is none of the kit's, which alone can be tried; start from a YAML "
            "with rule best, and give infer yours with --rule"
        )
    with regular_path(settings.out) as out:
        cache = settings.cache or out.with_name(f"{out.stem}_evidence")
        tuning = _tuned(settings, start, cache)
        write_ensemble(tuning.ensemble, settings.out)
    log.info(str(tuning))
    return tuning


def _tuned(settings: TuneSettings, start: EnsembleSettings, cache: Path) -> Tuning:
    """The choice, made on what members say of the fields, which is kept in a folder."""
    folder = DataFolder(settings.data, settings)
    labels = _labels(folder, settings.split)
    truth = None if settings.truth is None else TrueCells(settings.truth)
    if truth is None and not labels:
        raise InputError(
            f"tune: {folder.root} has no labels of split {settings.split}; give --truth, or --split train"
        )
    ids = [id for id in folder.fields(settings.split).ids if id in (labels if truth is None else truth)]
    if not ids:
        table = settings.truth or folder.labels()
        raise InputError(f"tune: {table} has none of the fields of {folder.images(settings.split)}")
    members_of = _out_of_fold(ids, start, settings.split)
    if start.rule not in LINEAR:
        drawing = _drawing(start)
        members_of = {id: places for id, places in members_of.items() if drawing.intersection(places)}
    evidence = gather(settings, start, folder.images(settings.split), cache, members_of, truth)
    _refuse_too_few(len(evidence), len(members_of), len(ids))
    known = np.stack([labels.get(id, np.zeros(19, bool)) for id in evidence])
    pool = pooled(evidence, known, by_cell=truth is not None)
    found = crossfit(pool, start, settings.parts, settings.seed, settings.repeats)
    everything = np.ones(len(evidence), bool)
    chosen = _whole(choose(pool, everything, start)) if found.helps else start
    empty = sum(not len(one.areas) for one in evidence.values())
    if empty:
        log.warning(f"tune: {empty} of {len(evidence)} fields have no cell")
    return Tuning("image labels" if truth is None else "cells", len(evidence), found, chosen)


def _drawing(ensemble: EnsembleSettings) -> set[int]:
    """Places of the members that give class maps, as the ensemble's rule wants.

    Raises:
        InputError: there is none.
    """
    runs = [settings_of(checkpoint_file(member.checkpoint)) for member in ensemble.members]
    found = {
        place
        for place, (member, run) in enumerate(zip(ensemble.members, runs, strict=True))
        if member.gives_maps and not run.looks_at_cells
    }
    if not found:
        raise InputError(
            f"tune: rule {ensemble.rule} looks at class maps, which networks of crops do not give; start "
            "from one of logits, such as best"
        )
    return found


def _refuse_too_few(usable: int, unseen: int, fields: int) -> None:
    """Raise where too little is left to choose on."""
    if unseen < MIN_FIELDS:
        raise InputError(
            f"tune: {unseen} of {fields} fields can be looked at by members that have not learnt from them; "
            f"expected {MIN_FIELDS} or more: members need the folds.csv of their run beside them"
        )
    if usable < MIN_FIELDS:
        raise InputError(
            f"tune: {usable} of {unseen} fields could be used; expected {MIN_FIELDS} or more: what is "
            "wrong with the others is said above"
        )


def _labels(folder: DataFolder, split: str) -> dict[str, NDArray[np.bool_]]:
    """Image labels by ID; none of a split that has no table of them."""
    if split != "train" or not (folder.root / "train.csv").is_file():
        return {}
    path = folder.labels()
    table = read_labels(path)
    hot = multi_hot(
        parse_label(label, f"labels: {path}, ID {id}")
        for id, label in zip(table["ID"], table["Label"], strict=True)
    )
    return dict(zip(table["ID"], hot > 0, strict=True))


def _out_of_fold(ids: list[str], ensemble: EnsembleSettings, split: str) -> dict[str, tuple[int, ...]]:
    """Fields that members giving scores and members giving maps have not learnt from, and those members."""
    members = ensemble.members
    if split == "test":
        return dict.fromkeys(ids, tuple(range(len(members))))
    fresh = out_of_fold_members(ids, [member.checkpoint for member in members], "tune")
    return {
        id: places
        for id, places in fresh.items()
        if any(members[place].gives_scores for place in places)
        and any(members[place].gives_maps for place in places)
    }


def _whole(settings: EnsembleSettings) -> EnsembleSettings:
    """Without the members that choosing gave no weight."""
    members = tuple(member for member in settings.members if member.weight > 0)
    return settings.model_copy(update={"members": members})
