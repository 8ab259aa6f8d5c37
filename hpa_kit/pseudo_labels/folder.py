"""The folder of a run of pseudo labels while it grows: shards side by side, put together at the end."""

import csv
import io
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from hpa_kit.config import (
    EnsembleSettings,
    PseudoLabelSettings,
    make_settings,
    read_ensemble,
    read_yaml,
    write_ensemble,
    write_yaml,
)
from hpa_kit.config.ensemble import LabelledEnsembleSettings
from hpa_kit.data.cell_scores import FIELDS, LABEL_ROUND, MASKS, SCORES, SCORES_HEADER, SETTINGS
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, atomic_text, make_folder, remove_stale
from hpa_kit.flow import share
from hpa_kit.inference.results import Journal
from hpa_kit.locks import locked
from hpa_kit.resume import differences, refuse_other_settings
from hpa_kit.tables import read_table

log = logging.getLogger(__name__)

PARTS, MEMBERS, MADE_FROM = "parts", "members.txt", "made_from.txt"
PREDICTED_BY = "predicted_by.yaml"  # what of an ensemble's YAML counted
COLUMNS = ("ID", "Label", "cells", "members", "unseen")

# Settings that may change between two starts, and between shards: where things lie, what computes, and what
# is refused.
_FREE = frozenset(
    {"data", "out", "external_images", "batch", "workers", "device", "cluster", "shard", "shards", "seen",
     "pack"}
)  # fmt: skip
# Files that may lie elsewhere another time, but must have the same name.
_MOVABLE = frozenset({"members", "ensemble", "masks", "weights", "external"})
# Where these come from a YAML or from beside it, what they are together is compared.
_OF_ENSEMBLE = frozenset({"views", "map_size", "segmenter", "weights"})


class DoneField(NamedTuple):
    """What came of a field.

    Attributes:
        id, label: of the field.
        members: how many predicted it.
        unseen: whether none of them has learnt from it.
        lines: its cells' lines of the table.
    """

    id: str
    label: str
    members: int
    unseen: bool
    lines: str


class PseudoLabelFolder:
    """One shard's view of the folder.

    Args:
        root: the folder.
        shard, shards: which share of the sorted IDs is this process's.
        labels: image label of every field by ID, of all shards.
        made_from: a fingerprint of what else the table depends on: images, label maps, segmenter, and who
            predicts which field; None asks for none.
    """

    def __init__(
        self, root: Path, shard: int, shards: int, labels: dict[str, str], made_from: str | None = None
    ) -> None:
        self.root, self.shard, self.shards, self.labels = root, shard, shards, labels
        self.made_from = made_from

    def open(
        self, settings: PseudoLabelSettings, ensemble: EnsembleSettings, members: str, label_round: int = 1
    ) -> None:
        """Make the folder ready.

        Args:
            settings: of this run, to be written down.
            ensemble: what of members and YAML counts, to be written down where there is a YAML; its folder of
                kept label maps, if any, is where the table refers to.
            members: a fingerprint of what they have learnt.
            label_round: of the runs that will learn from this folder.

        Raises:
            InputError: it holds a run of other settings or members, or label maps of none, or is a file.
        """
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"out: {self.root} is a file; expected a folder for pseudo labels")
        place = None if ensemble.masks is None else ensemble.masks.resolve()
        kept = settings.model_copy(update={"masks": place, "shard": 0})
        path, predicted_by = self.root / SETTINGS, self.root / PREDICTED_BY
        if path.is_file():
            before = make_settings(PseudoLabelSettings, read_yaml(path), source=str(path))
            before, now, free, others = before.with_defaults(), kept.with_defaults(), _FREE, list[str]()
            if predicted_by.is_file() and None not in (before.ensemble, now.ensemble):
                free |= _OF_ENSEMBLE
                others += _differing(read_ensemble(predicted_by, LabelledEnsembleSettings), ensemble)
            refuse_other_settings("pseudo-labels", self.root, before, now, free, _MOVABLE, others=others)
            _refuse_other_members(self.root / MEMBERS, members)
        elif any((self.root / MASKS).glob("[!.]*")):
            raise InputError(
                f"out: {self.root / MASKS} holds files that no run of pseudo-labels wrote; give another --out"
            )
        atomic_text(self.root / MEMBERS, members + "\n")
        if settings.ensemble is not None:
            write_ensemble(ensemble.model_copy(update={"masks": place}), predicted_by)
        atomic_text(self.root / LABEL_ROUND, f"{label_round}\n")
        write_yaml(kept, path)
        for folder in (self.root, make_folder(self.root / MASKS)):
            remove_stale(folder)
        with self._alone():  # killed after its table was whole, a run leaves its parts
            self._forget_parts()

    def is_whole(self) -> bool:
        """Whether the table holds every field, with the label that it has now, from what there is now."""
        return self._holds_all() and self._is_up_to_date(self.root)

    def _holds_all(self) -> bool:
        return (self.root / SCORES).is_file() and _listed(self.root / FIELDS) == self.labels

    def is_outdated(self) -> bool:
        """Whether the table holds every field, but was made from something else."""
        return self._holds_all() and not self._is_up_to_date(self.root)

    def _is_up_to_date(self, place: Path) -> bool:
        """Whether what lies there says nothing else than what there is now; older versions say nothing."""
        path = place / MADE_FROM
        if self.made_from is None or not path.is_file():
            return True
        return path.read_text(encoding="utf-8").strip() == self.made_from

    def _say_made_from(self, place: Path) -> None:
        if self.made_from is not None:
            atomic_text(place / MADE_FROM, self.made_from + "\n")

    def journal(self, name: str) -> Journal:
        """Where results of this shard are kept until the table is whole; one process at a time opens it."""
        return _KeptJournal(self._part(self.shard) / f"{name}.journal")

    def write_part(self, done: Iterable[DoneField]) -> None:
        """Write this shard's share of the table."""
        with self._alone():
            self._write_part(sorted(done))

    def _write_part(self, ordered: list[DoneField]) -> None:
        part = self._part(self.shard)
        (part / FIELDS).unlink(missing_ok=True)  # of a share before
        with (
            atomic_path(part / SCORES) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            file.writelines(one.lines for one in ordered)
        rows = [(one.id, one.label, one.lines.count("\n"), one.members, int(one.unseen)) for one in ordered]
        self._say_made_from(part)
        # Written last: it says that the share is done.
        atomic_text(part / FIELDS, _csv_text([COLUMNS, *rows]))

    def merge(self) -> None:
        """Put the table together where all shards are done; nothing is lost where they are not."""
        with self._alone():
            self._merge()
            self._forget_parts()

    def _merge(self) -> None:
        missing = [shard for shard in range(self.shards) if not self._is_done(shard)]
        if missing:
            if not self.is_whole():  # else another process has just put it together
                log.info(f"pseudo-labels: {len(missing)} of {self.shards} shards are still to do: {missing}")
                done = [shard for shard in missing if (self._part(shard) / FIELDS).is_file()]
                if done:
                    log.warning(
                        f"pseudo-labels: of these {done} were done, but of other images, label maps or folds "
                        "than there are now; the same command does them again"
                    )
            return
        parts = [self._part(shard) for shard in range(self.shards)]
        fields = [line for part in parts for line in _rows(part / FIELDS)]
        (self.root / FIELDS).unlink(missing_ok=True)  # of a table before, which is whole no longer
        with atomic_path(self.root / SCORES) as temporary, temporary.open("wb") as file:
            file.write(SCORES_HEADER.encode("utf-8"))
            for part in parts:
                with (part / SCORES).open("rb") as source:
                    shutil.copyfileobj(source, file)
        self._say_made_from(self.root)
        # Written last: it says that the table is whole.
        atomic_text(self.root / FIELDS, _csv_text([COLUMNS, *fields]))

    def _forget_parts(self) -> None:
        if self.is_whole():
            shutil.rmtree(self.root / PARTS, ignore_errors=True)

    def _alone(self) -> AbstractContextManager[None]:
        """One process at a time works on the parts: another might remove what this one reads."""
        return locked(self.root / ".parts.lock", wait=True)

    def _part(self, shard: int) -> Path:
        return self.root / PARTS / f"{shard}-of-{self.shards}"

    def _is_done(self, shard: int) -> bool:
        """Whether a shard has written its share of these fields; some of them may have failed."""
        part = self._part(shard)
        if not self._is_up_to_date(part):
            return False
        listed = _listed(part / FIELDS)
        ids = share(sorted(self.labels), shard, self.shards)
        expected = {id: self.labels[id] for id in ids}
        return listed is not None and (part / SCORES).is_file() and listed.items() <= expected.items()


class _KeptJournal(Journal):
    """A journal that stays when the fields are done: its shard's share is not the whole table."""

    def finish(self) -> None:
        """Nothing."""


def _differing(before: EnsembleSettings, now: EnsembleSettings) -> Iterator[str]:
    """What of an ensemble differs, in words; its label maps are told of elsewhere."""
    yield differences(before, now, {"members", "masks", "steps"}, {"weights"})
    if before.steps != now.steps:
        yield "another step calibrate"
    if len(before.members) != len(now.members):
        yield f"{len(before.members)} members that give maps (now {len(now.members)})"
        return
    for number, (old, new) in enumerate(zip(before.members, now.members, strict=True), start=1):
        if listed := differences(old, new, (), ("checkpoint",)):
            yield f"{listed} of member {number}"


def _refuse_other_members(path: Path, members: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8").strip() != members:
        raise InputError(
            f"pseudo-labels: the run in {path.parent} was started with other members of these names: they "
            "have learnt something else since, or the kit is of another version; give another --out"
        )


def _rows(path: Path) -> list[tuple[str, ...]]:
    table = read_table(path, COLUMNS)
    return list(table[list(COLUMNS)].itertuples(index=False, name=None))


def _listed(path: Path) -> dict[str, str] | None:
    """The label of each field in a table of fields, or None where there is none."""
    if not path.is_file():
        return None
    return {row[0]: row[1] for row in _rows(path)}


def _csv_text(rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
