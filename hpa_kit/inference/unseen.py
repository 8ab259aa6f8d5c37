"""Which fields members have learnt from, so that others can be looked at by members that have not."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hpa_kit.tables import read_table
from hpa_kit.training.checkpoint import checkpoint_file, read_checkpoint
from hpa_kit.training.run_folder import FOLDS

log = logging.getLogger(__name__)


class Lookers(NamedTuple):
    """Who looks at some fields: places of members, and whether none of them has learnt from these fields."""

    members: tuple[int, ...]
    unseen: bool


def learnt_from(checkpoint: Path) -> frozenset[str] | None:
    """The fields that a member has learnt from, by the folds in its run folder; None where there are none.

    A run that started with another's weights has learnt from that one's fields too. Where the other is not
    there any more this is said, and its fields are not counted.

    Args:
        checkpoint: run folder, or a checkpoint in it.

    Raises:
        InputError: a checkpoint or folds cannot be read.
    """
    learnt: frozenset[str] = frozenset()
    chain: list[Path] = []
    start: Path | None = checkpoint
    while start is not None and start.resolve() not in chain:
        if chain and not start.exists():
            log.warning(f"{checkpoint} started with {start}, which is not there: its fields are not known")
            break
        chain.append(start.resolve())
        file = checkpoint_file(start)
        folds = file.parent / FOLDS
        if not folds.is_file():
            if len(chain) > 1:
                log.warning(f"{checkpoint} started with {start}, which has no {FOLDS} beside it")
            return None
        settings = read_checkpoint(file, only=()).settings
        table = read_table(folds, ("ID", "fold"))
        learnt |= frozenset(table["ID"][table["fold"].str.strip() != str(settings.get("fold"))])
        before = settings.get("warm_start")
        start = None if before is None else Path(str(before))
    return learnt


def choose_lookers(
    ids: Sequence[str], checkpoints: Sequence[Path], out_of_fold: bool = True
) -> dict[str, Lookers]:
    """Who looks at each field: the members that have not learnt from it, all of them where each has.

    A member without folds is taken to have learnt from everything. What was chosen is said, in counts.

    Args:
        ids: the fields.
        checkpoints: of the members: run folders or files.
        out_of_fold: otherwise all members look at all fields.

    Raises:
        InputError: as :func:`learnt_from`.
    """
    everybody = Lookers(tuple(range(len(checkpoints))), unseen=False)
    if not out_of_fold:
        return dict.fromkeys(ids, everybody)
    learnt = [learnt_from(checkpoint) for checkpoint in checkpoints]
    unknown = [str(path) for path, fields in zip(checkpoints, learnt, strict=True) if fields is None]
    if unknown:
        log.warning(
            f"pseudo-labels: no {FOLDS} beside {', '.join(unknown)}: taken to have learnt from every field"
        )
    chosen = {}
    for id in ids:
        fresh = tuple(place for place, fields in enumerate(learnt) if fields is not None and id not in fields)
        chosen[id] = Lookers(fresh, unseen=True) if fresh else everybody
    seen = sum(not lookers.unseen for lookers in chosen.values())
    log.info(
        f"pseudo-labels: {len(ids) - seen} of {len(ids)} fields by members that have not learnt from them"
        + (f", {seen} that every member has learnt from by all" if seen else "")
    )
    return chosen
