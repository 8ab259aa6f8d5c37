"""``hpa-kit pseudo-labels``: what an ensemble says of the cells of training fields, to learn from."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells import FieldCells, write_label_maps
from hpa_kit.classes import multi_hot, parse_label
from hpa_kit.config import EnsembleSettings, MemberSettings, PseudoLabelSettings
from hpa_kit.config.scoring import CalibrateStep, NegativeCheckStep
from hpa_kit.data import LabelledFields, labelled_fields
from hpa_kit.data.cell_scores import MASKS, cell_rows
from hpa_kit.flow import share
from hpa_kit.inference.budget import Budget, Now
from hpa_kit.inference.ensemble import FieldMaps
from hpa_kit.inference.journal import Journal
from hpa_kit.inference.pipeline import evidence, fill
from hpa_kit.inference.prepare import PreparedField, Size
from hpa_kit.inference.rows import GrowingTable
from hpa_kit.inference.work import Filling, Outcome
from hpa_kit.pseudo_labels.folder import DoneField, PseudoLabelFolder
from hpa_kit.pseudo_labels.said import WHAT, Seconds, report, together
from hpa_kit.resume import depends_on
from hpa_kit.scoring.functions import ScoringRule
from hpa_kit.timing import Forecast
from hpa_kit.training.learnt_fields import out_of_fold_members

log = logging.getLogger(__name__)


class Lookers(NamedTuple):
    """Who looks at some fields: places of members, and whether none of them has learnt from these fields."""

    members: tuple[int, ...]
    unseen: bool


class _Group(NamedTuple):
    """Fields that the same members look at and whose images lie in the same folder, under a name."""

    name: str
    lookers: Lookers
    images: Path
    ids: list[str]


def make_pseudo_labels(settings: PseudoLabelSettings, now: Now = monotonic) -> Path:
    """Score the cells of labelled fields by an ensemble, for stage 2 to learn from.

    The known image label takes the image score's place. ``hard`` labels are confidences of the form label x
    maximum of the map in the cell x share, then the Negative check, as the competition's 15th place made
    them; ``soft`` ones are probabilities, sigmoid of the mean logit in the cell, calibrated where the
    ensemble's YAML has a step ``calibrate``, of the classes that the image has. Of an ensemble's YAML
    members, map size, masks and segmenter count besides, not its rule.

    Each field is looked at by the members that have not learnt from it, as the folds in their run folders
    say; fields that every member has learnt from by all members.

    Shards are contiguous shares of the sorted IDs: several processes, each with its own shard, write to one
    folder, and the one that ends last puts the table together. Killed at any moment, the same call goes on.

    Args:
        settings: see :class:`~hpa_kit.config.PseudoLabelSettings`.
        now: the clock, in seconds from any zero on.

    Returns:
        The folder: ``cell_scores.csv`` (ID, cell, a column per class; fields by rising ID), ``fields.csv``
        (every field that is done, with its number of cells and of members that looked), ``settings.yaml``,
        and ``masks/`` with the label maps that ``settings.masks`` lacked.

    Raises:
        InputError: data, members or settings cannot be used, the folder holds a run of other settings, or
            not one field could be used.
    """
    fields = labelled_fields(settings)
    chosen = _as_lookers(settings.of_ensemble())
    labels = dict(zip(fields.table["ID"], fields.table["Label"], strict=True))
    folder = PseudoLabelFolder(settings.out, settings.shard, settings.shards, labels)
    folder.open(settings, chosen.masks, depends_on([member.model_dump() for member in chosen.members]))
    if folder.is_whole():
        log.info(f"{WHAT}: {settings.out} holds all {len(labels)} fields already")
        return settings.out
    ids = share(sorted(labels), settings.shard, settings.shards)
    begun, seconds = now(), Seconds(Forecast(WHAT, len(ids), settings.batch, now))
    outcomes, done = [], []
    for group in _groups(ids, fields, chosen, settings.out_of_fold):
        run = _GroupRun(settings, chosen, group, folder, labels, seconds)
        outcome, results = run.fill(now)
        outcomes.append(outcome)
        done += results
    outcome = together(outcomes)
    report(settings, ids, outcome, seconds, now() - begun)
    folder.write_part(done)
    folder.merge()
    return settings.out


def _as_lookers(ensemble: EnsembleSettings) -> EnsembleSettings:
    """An ensemble without its own rule, of the members that give maps; what they give beside counts not."""
    members = tuple(
        member.model_copy(update={"mode": "both"}) for member in ensemble.members if member.gives_maps
    )
    return ensemble.model_copy(update={"members": members})


def _groups(
    ids: list[str], fields: LabelledFields, chosen: EnsembleSettings, out_of_fold: bool
) -> list[_Group]:
    lookers = _lookers(ids, [member.checkpoint for member in chosen.members], out_of_fold)
    groups: dict[tuple[Lookers, Path], list[str]] = {}
    for id in ids:
        groups.setdefault((lookers[id], fields.folders[id]), []).append(id)
    places = {images: place for place, images in enumerate(sorted(set(fields.folders.values())))}
    return [
        _Group(_name(of, places[images]), of, images, of_group) for (of, images), of_group in groups.items()
    ]


def _lookers(ids: list[str], checkpoints: list[Path], out_of_fold: bool) -> dict[str, Lookers]:
    """The members that predict each field: those that have not learnt from it, all where each has."""
    everybody = Lookers(tuple(range(len(checkpoints))), unseen=False)
    if not out_of_fold:
        return dict.fromkeys(ids, everybody)
    fresh = out_of_fold_members(ids, checkpoints, WHAT)
    chosen = {id: Lookers(places, unseen=True) if places else everybody for id, places in fresh.items()}
    seen = sum(not lookers.unseen for lookers in chosen.values())
    log.info(
        f"{WHAT}: {len(ids) - seen} of {len(ids)} fields by members that have not learnt from them"
        + (f", {seen} that every member has learnt from by all" if seen else "")
    )
    return chosen


def _name(lookers: Lookers, place: int) -> str:
    """The same in every start of a run, whatever is left to do."""
    members = "-".join(map(str, lookers.members))
    return f"members-{members}-{'unseen' if lookers.unseen else 'seen'}-folder-{place}"


@dataclass(frozen=True)
class _GroupRun:
    """The work on one group of fields."""

    settings: PseudoLabelSettings
    ensemble: EnsembleSettings
    group: _Group
    folder: PseudoLabelFolder
    labels: dict[str, str]
    seconds: Seconds

    def fill(self, now: Now) -> tuple[Outcome, list[DoneField]]:
        """Score the fields, going on where an earlier call was stopped."""
        ids, lookers = self.group.ids, self.group.lookers
        members = tuple(self.ensemble.members[place] for place in lookers.members)
        with self.folder.journal(self.group.name) as journal:
            table = _Results(self.folder.root, ids, journal, self.labels)
            filling = Filling(
                what=WHAT,
                settings=self.settings,
                ensemble=self._rule(members),
                ids=ids,
                images=self.group.images,
                sizes={},
                details=self._keep_found,
                finish=partial(_lines, self.labels, self.settings.labels == "soft"),
                budget=Budget(now=now),
                still_there=partial(self._still_there, journal),
                measured=self.seconds.add,
                forecast=self.seconds.forecast,
            )
            outcome = fill(filling, table)
            found = [id for id in ids if id in journal and "failed" not in journal.facts(id)]
            results = [
                DoneField(id, self.labels[id], len(members), lookers.unseen, journal.read(id).decode())
                for id in found
            ]
        return outcome, results

    def _rule(self, members: tuple[MemberSettings, ...]) -> EnsembleSettings:
        update: dict[str, Any]
        if self.settings.labels == "soft":
            steps = [step for step in self.ensemble.steps if isinstance(step, CalibrateStep)]
            update = {"rule": "cell_logit", "steps": tuple(steps)}
        else:
            check = (NegativeCheckStep(),) if self.settings.negative_check else ()
            update = {"rule": "cam_share", "form": "max_share", "steps": check}
        return self.ensemble.model_copy(update={"members": members} | update)

    def _keep_found(self, id: str, found: FieldCells) -> None:
        """Write label maps that had to be found, so that the cells' numbers keep their meaning."""
        if found.made:
            write_label_maps(self.folder.root / MASKS / f"{id}.npz", found.maps)

    def _still_there(self, journal: Journal, id: str) -> bool:
        facts = journal.facts(id)
        kept = not facts.get("made") or (self.folder.root / MASKS / f"{id}.npz").is_file()
        return kept and ("failed" in facts or facts.get("label") == self.labels[id])


class _Results(GrowingTable):
    """Results of fields, in their journal only, with the label that they were made from."""

    def __init__(self, root: Path, ids: list[str], journal: Journal, labels: Mapping[str, str]) -> None:
        super().__init__(root / "unwritten", ids, journal)
        self._labels = labels

    def add(self, id: str, size: Size, result: str, **facts: object) -> None:
        """Keep a field's lines."""
        self.journal.add(id, result.encode("utf-8"), label=self._labels[id], **facts)

    def _write(self) -> None:
        """Nothing: the table is put together when all shards are done."""


def _lines(
    labels: Mapping[str, str], soft: bool, prepared: PreparedField[None], maps: FieldMaps, rule: ScoringRule
) -> str:
    """One field's lines of the table."""
    label = multi_hot([parse_label(labels[prepared.id])])[0]
    seen = evidence(prepared, maps)
    rows: NDArray[np.float64] = rule(seen) * label if soft else rule(replace(seen, image_scores=label))
    return cell_rows(prepared.id, np.clip(rows, 0, 1))
