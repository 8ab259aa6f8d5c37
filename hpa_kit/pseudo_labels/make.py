"""``hpa-kit pseudo-labels``: what an ensemble says of the cells of training fields, to learn from."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells import FieldCells, MaskFolder, Packer, label_map_ids, write_label_maps
from hpa_kit.cells.packing import refuse_to_pack, remove_packed
from hpa_kit.cells.segmenters import code_of_segmenter
from hpa_kit.classes import NEGATIVE, multi_hot, parse_label
from hpa_kit.cluster import connected, with_whole_paths
from hpa_kit.config import EnsembleSettings, PseudoLabelSettings
from hpa_kit.config.scoring import CalibrateStep, NegativeCheckStep
from hpa_kit.data import Images, LabelledFields, labelled_fields
from hpa_kit.data.cell_scores import MASKS, cell_rows
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure, share
from hpa_kit.inference.deadline import Budget, Now
from hpa_kit.inference.made_fields import FieldJob, made_fields
from hpa_kit.inference.prediction import Made, Prediction
from hpa_kit.inference.results import Journal, Outcome, Results
from hpa_kit.pseudo_labels.folder import DoneField, PseudoLabelFolder
from hpa_kit.resume import depends_on, stamps_of_folders
from hpa_kit.scoring import ScoringFunction, scoring_of
from hpa_kit.timing import Forecast, duration
from hpa_kit.training.checkpoint import checkpoint_file, settings_of
from hpa_kit.training.learnt_fields import out_of_fold_members

log = logging.getLogger(__name__)

WHAT = "pseudo-labels"


class Members(NamedTuple):
    """Who predicts some fields: places of members, and whether none of them has learnt from these fields."""

    places: tuple[int, ...]
    unseen: bool


class _Form(NamedTuple):
    """What is made of the scores of a field's cells.

    Attributes:
        soft: whether labels are probabilities.
        floor: what those are never below in a class that the image has.
        negative: whether Negative is what the image's other classes leave: members did not learn it.
    """

    soft: bool
    floor: float
    negative: bool


class _Group(NamedTuple):
    """Fields that the same members predict and whose images lie in the same folder, under a name."""

    name: str
    members: Members
    images: Images
    ids: list[str]


def make_pseudo_labels(settings: PseudoLabelSettings, now: Now = monotonic) -> Path:
    """Score the cells of labelled fields by an ensemble, to learn from.

    The known image label takes the image score's place. ``hard`` labels are confidences of the form label x
    maximum of the map in the cell x share, then the Negative check, as the competition's 15th place made
    them; ``soft`` ones are probabilities, sigmoid of the mean logit in the cell, calibrated where the
    ensemble's YAML has a step ``calibrate``, of the classes that the image has, and never below ``floor`` in
    these. Negative, where members did not learn it, is what the image's other classes leave. Of an
    ensemble's YAML members, map size, masks and segmenter count besides, not its rule.

    Each field is predicted by the members that have not learnt from it, as the folds in their run folders
    say. Fields that every member has learnt from are refused where labels are soft, as their probabilities
    repeat what was learnt; hard ones, or with ``seen`` take, are predicted by all members. What the labels
    that a member learnt from had told others of a field is not counted: see
    :func:`~hpa_kit.training.learnt_fields.learnt_from`.

    Shards are contiguous shares of the sorted IDs: several processes, each with its own shard, write to one
    folder, and the one that ends last puts the table together. Killed at any moment, the same call goes on.

    Args:
        settings: see :class:`~hpa_kit.config.PseudoLabelSettings`.
        now: the clock, in seconds from any zero on.

    Returns:
        The folder: ``cell_scores.csv`` (ID, cell, a column per class; fields by rising ID), ``fields.csv``
        (every field that is done, with its number of cells and of members that predicted it),
        ``settings.yaml``, ``label_round.txt`` with the round of the runs that will learn from it, and
        ``masks/`` with the label maps that ``settings.masks`` lacked, with ``settings.pack`` in archives,
        see :func:`~hpa_kit.cells.pack_label_maps`.

    Raises:
        InputError: data, members or settings cannot be used, every member has learnt from some fields of soft
            labels, the folder holds a run of other settings, or not one field could be used.
    """
    if settings.cluster is not None:
        settings = with_whole_paths(settings)
    fields = labelled_fields(settings)
    chosen = _what_counts(settings, settings.of_ensemble())
    labels = dict(zip(fields.table["ID"], fields.table["Label"], strict=True))
    checkpoints = [member.checkpoint for member in chosen.members]
    runs = [settings_of(checkpoint) for checkpoint in checkpoints]
    label_round = 1 + max(run.label_round or 0 for run in runs)
    members = _members_of(sorted(labels), checkpoints, settings)
    made_from = _made_from(settings, chosen, fields, members)
    folder = PseudoLabelFolder(settings.out, settings.shard, settings.shards, labels, made_from)
    learnt = depends_on([member.model_dump() for member in chosen.members])
    folder.open(settings, chosen, learnt, label_round)
    if folder.is_whole():
        log.info(f"{WHAT}: {settings.out} holds all {len(labels)} fields already")
        return settings.out
    if folder.is_outdated():
        log.warning(
            f"{WHAT}: {settings.out} was made from other images, label maps or folds than there are now; "
            "it is made again"
        )
    ids = share(sorted(labels), settings.shard, settings.shards)
    begun, forecast = now(), Forecast(WHAT, len(ids), settings.batch, now)
    outcome, done, taken = Outcome([], {}, [], 0, {}, 0), list[DoneField](), list[dict[str, float]]()
    said: set[str] = set()
    own, packer = MaskFolder(folder.root / MASKS), Packer(folder.root / MASKS, settings.pack)
    refuse_to_pack(WHAT, {id.rpartition("/")[0] for id in ids} - {""}, settings.pack)
    packer.begin()
    with connected(settings.cluster, WHAT, settings.device) as workers:
        for group in _groups(ids, fields, members):
            asked = tuple(chosen.members[place] for place in group.members.places)
            ensemble = chosen.model_copy(update={"members": asked})
            scoring = scoring_of(ensemble)
            negative = any(
                runs[place].pools_cells or runs[place].looks_at_cells for place in group.members.places
            )
            form = _Form(settings.labels == "soft", settings.floor, negative)
            job = FieldJob(
                WHAT, group.images, settings, ensemble, scoring,
                details=partial(_keep_found, own.folder, ensemble.masks),
                made=partial(_made, scoring, form, now), outputs=(own.folder,),
            )  # fmt: skip
            with folder.journal(group.name) as journal:
                results = Results(WHAT, group.ids, group.images, journal, settings, ensemble)
                results.forget(id for id in results.done if not _counts(journal.facts(id), labels[id], own))
                batches, done_before = results.still_to_do(settings.batch), len(results.done)
                known = {id: labels[id] for batch in batches for id in batch}
                made = made_fields(
                    job, batches, workers, more=known, budget=Budget(now=now), forecast=forecast,
                    done=done_before, said=said,
                )  # fmt: skip
                with closing(made):
                    for field in made:
                        results.add(field)
                        packer.add()
                        if not isinstance(field.result, Failure):
                            taken.append(dict(field.facts["seconds"]))
                outcome += results.outcome()
                remove_packed(own.folder, _of_masks(results.done, journal, own.folder, chosen.masks))
                done += [
                    DoneField(id, labels[id], len(asked), group.members.unseen, journal.read(id).decode())
                    for id in results.done
                    if "failed" not in journal.facts(id)
                ]
    packer.end()
    _report(settings, outcome, taken, now() - begun)
    folder.write_part(done)
    folder.merge()
    return settings.out


def _what_counts(settings: PseudoLabelSettings, ensemble: EnsembleSettings) -> EnsembleSettings:
    """The members that tell of cells, whatever they give beside, with the scoring of these labels.

    Raises:
        InputError: hard labels are made of class maps, and no member gives any.
    """
    telling = [member for member in ensemble.members if member.gives_maps]
    asked = telling
    if settings.labels == "hard":
        runs = [settings_of(checkpoint_file(member.checkpoint)) for member in telling]
        asked = [member for member, run in zip(telling, runs, strict=True) if not run.looks_at_cells]
    if not asked:
        raise InputError(
            f"{WHAT}: labels hard are made of class maps, which networks of crops do not give; take labels "
            "soft, or a member with maps beside"
        )
    if len(asked) < len(telling):
        log.warning(
            f"{WHAT}: labels hard are made of class maps: {len(telling) - len(asked)} networks of crops, "
            "which give none, are not asked"
        )
    members = tuple(member.model_copy(update={"mode": "both"}) for member in asked)
    return ensemble.model_copy(update={"members": members, **_scored_by(settings, ensemble)})


def _scored_by(settings: PseudoLabelSettings, ensemble: EnsembleSettings) -> dict[str, Any]:
    """The scoring function and post-processing of these labels, in the place of the ensemble's own."""
    if settings.labels == "soft":
        steps = [step for step in ensemble.steps if isinstance(step, CalibrateStep)]
        return {"rule": "cell_logit", "steps": tuple(steps)}
    check = (NegativeCheckStep(),) if settings.negative_check else ()
    return {"rule": "cam_share", "form": "max_share", "steps": check}


def _made_from(
    settings: PseudoLabelSettings,
    chosen: EnsembleSettings,
    fields: LabelledFields,
    members: Mapping[str, Members],
) -> str:
    """A fingerprint of all that pseudo labels depend on beside the settings and the labels."""
    ensemble = chosen.model_dump(exclude={"masks", "rule", "form"})
    stamps = stamps_of_folders(fields.folders, [(chosen.masks, label_map_ids)])
    own = code_of_segmenter(chosen.segmenter)
    return depends_on(WHAT, settings.amp, ensemble, members, stamps, *own)


def _groups(ids: list[str], fields: LabelledFields, members: Mapping[str, Members]) -> list[_Group]:
    """The fields in groups; names are the same in every start of a run, whatever is left to do."""
    groups: dict[tuple[Members, Images], list[str]] = {}
    for id in ids:
        groups.setdefault((members[id], fields.folders[id]), []).append(id)
    number = {images: place for place, images in enumerate(sorted(set(fields.folders.values())))}
    found = []
    for (of, images), of_group in groups.items():
        places = "-".join(map(str, of.places))
        name = f"members-{places}-{'unseen' if of.unseen else 'seen'}-folder-{number[images]}"
        found.append(_Group(name, of, images, of_group))
    return found


def _members_of(ids: list[str], checkpoints: list[Path], settings: PseudoLabelSettings) -> dict[str, Members]:
    """The members that predict each field: those that have not learnt from it, all where each has.

    Raises:
        InputError: each has learnt from some fields, and the settings refuse these.
    """
    everybody = tuple(range(len(checkpoints)))
    fresh = out_of_fold_members(ids, checkpoints, WHAT)
    if not settings.out_of_fold:
        seen = [id for id in ids if fresh[id] != everybody]
        log.info(f"{WHAT}: all {len(ids)} fields by all members, of which some have learnt from {len(seen)}")
        return {id: Members(everybody, unseen=fresh[id] == everybody) for id in ids}
    seen = [id for id in ids if not fresh[id]]
    if seen and settings.refuses_seen:
        raise InputError(
            f"{WHAT}: every member ({', '.join(map(str, checkpoints))}) has learnt from {len(seen)} of "
            f"{len(ids)} fields, such as ID {seen[0]}, so that {settings.labels} labels of them would repeat "
            "what was learnt; give members of other folds too (train --fold), or take them all the same "
            "with --seen take"
        )
    log.info(
        f"{WHAT}: {len(ids) - len(seen)} of {len(ids)} fields by members that have not learnt from them"
        + (f", {len(seen)} that every member has learnt from by all" if seen else "")
    )
    return {id: Members(fresh[id] or everybody, unseen=bool(fresh[id])) for id in ids}


def _keep_found(own: Path, masks: Path | None, id: str, found: FieldCells) -> None:
    """Write label maps that had to be found, so that the cells' numbers keep their meaning."""
    if found.made:
        write_label_maps(own / f"{id}.npz", found.maps)
    elif masks is not None and masks.resolve() != own.resolve():
        (own / f"{id}.npz").unlink(missing_ok=True)  # of an earlier start, which had to find them


def _of_masks(ids: Iterable[str], journal: Journal, own: Path, masks: Path | None) -> list[str]:
    """The fields whose label maps are those of ``masks``, so that none may be kept beside the labels."""
    if masks is None or masks.resolve() == own.resolve():
        return []
    facts = {id: journal.facts(id) for id in ids}
    return [id for id, known in facts.items() if "failed" not in known and not known.get("made")]


def _counts(facts: dict[str, Any], label: str, own: MaskFolder) -> bool:
    """Whether a result still counts: label maps that were found are there, and the label is the same."""
    kept = not facts.get("made") or own.named(f"{facts['id']}.npz") is not None
    return kept and ("failed" in facts or facts.get("label") == label)


def _made(scoring: ScoringFunction, form: _Form, now: Now, prediction: Prediction, label: str) -> Made:
    """What is kept of a field of this label."""
    since = now()
    lines = prediction.result(_lines, label, scoring, form)
    return prediction.made(lines, now() - since, label=label)


def _lines(prediction: Prediction, label: str, scoring: ScoringFunction, form: _Form) -> str:
    """One field's lines of the table."""
    known, seen = multi_hot([parse_label(label)])[0], prediction.evidence
    if not form.soft:
        rows = scoring(replace(seen, image_scores=known))
        return cell_rows(prediction.id, np.clip(rows, 0, 1))
    return cell_rows(prediction.id, soft_labels(scoring(seen), known, form.floor, form.negative))


def soft_labels(
    scores: NDArray[np.floating], known: NDArray[np.floating], floor: float = 0.0, negative: bool = False
) -> NDArray[np.float64]:
    """Probabilities of cells -> soft labels: of the classes of their image, in these never below a floor.

    Args:
        scores: (n, 19) in [0, 1], but for what rounding does.
        known: (19,), 1 in the image's classes, else 0.
        floor: the competition's 1st place took .25: a cell is likelier to show what its image shows than an
            early network can see.
        negative: make Negative, where the image has it, what its other classes leave of 1.

    Returns:
        float64 (n, 19).
    """
    rows = np.clip(scores, 0, 1) * np.asarray(known, np.float64)
    if negative:
        rows[:, NEGATIVE] = known[NEGATIVE] * (1 - np.delete(rows, NEGATIVE, axis=1).max(axis=1))
    return np.maximum(rows, floor * known)


def _report(
    settings: PseudoLabelSettings, outcome: Outcome, taken: list[dict[str, float]], seconds: float
) -> None:
    """Say what could not be used, how fast it went and where the time went.

    Raises:
        InputError: not one field could be used, or some were not reached.
    """
    outcome.report(WHAT, settings.masks, "has no pseudo labels; the same command tries it again")
    outcome.refuse_if_nothing_done(WHAT, settings.data)
    if taken:
        parts: dict[str, float] = defaultdict(float)
        for one in taken:
            for part, took in one.items():
                parts[part] += took / len(taken)
        listed = ", ".join(f"{part} {took:.2g}" for part, took in parts.items())
        log.info(
            f"{WHAT}: {len(taken)} fields in {duration(seconds)}, "
            f"{len(taken) / max(seconds, 1e-9):.2g} per second; seconds of a field by part, which overlap: "
            f"{listed}"
        )
    if outcome.late:
        raise InputError(f"{WHAT}: {len(outcome.late)} fields were not reached; the same command goes on")
