"""Which fields members have learnt from, so that each can be predicted by members that have not."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpa_kit.tables import read_table
from hpa_kit.training.checkpoint import checkpoint_file, read_checkpoint
from hpa_kit.training.run_folder import FOLDS

log = logging.getLogger(__name__)


def learnt_from(checkpoint: Path) -> frozenset[str] | None:
    """The fields that a member has learnt from, by the folds in its run folder; None where there are none.

    A run that started with another's weights has learnt from that one's fields too, and so has a head from
    those of its encoder. Where the other is not
    there any more this is said, and its fields are not counted.

    A run that learnt soft labels knows, through these, of the fields that the members behind them had learnt
    from, its own validation fold among them as a rule. These are not counted: with two folds and from the
    second round on no field would be left. What reached it of such a field is how others' cells look to a
    network that had learnt from it, not the field's own label.

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
        unseen = None if settings.get("all_fields") else str(settings.get("fold"))
        learnt |= frozenset(table["ID"][table["fold"].str.strip() != unseen])
        before = settings.get("warm_start") or settings.get("encoder")
        start = None if before is None else Path(str(before))
    return learnt


def out_of_fold_members(
    ids: Iterable[str], checkpoints: Sequence[Path], what: str
) -> dict[str, tuple[int, ...]]:
    """For each field, the places of the members that have not learnt from it.

    A member without folds is taken to have learnt from everything, which is said; so are members that learnt
    labels of cells, as :func:`learnt_from` does not count what those were made from.

    Args:
        ids: the fields.
        checkpoints: of the members: run folders or files.
        what: the command, for the log.

    Raises:
        InputError: as :func:`learnt_from`.
    """
    learnt = [learnt_from(checkpoint) for checkpoint in checkpoints]
    unknown = [str(path) for path, fields in zip(checkpoints, learnt, strict=True) if fields is None]
    if unknown:
        log.warning(f"{what}: no {FOLDS} beside {', '.join(unknown)}: taken to have learnt from every field")
    rounds = [
        read_checkpoint(checkpoint_file(path), only=()).settings.get("label_round") for path in checkpoints
    ]
    if any(rounds):
        log.info(
            f"{what}: {sum(map(bool, rounds))} of {len(rounds)} members learnt labels that earlier members "
            "gave; what those had learnt from is not counted"
        )
    return {
        id: tuple(place for place, fields in enumerate(learnt) if fields is not None and id not in fields)
        for id in ids
    }
