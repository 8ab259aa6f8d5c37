"""Weights as Kaggle datasets: members with their ensemble, and the published cell networks."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hpa_kit import __version__
from hpa_kit.config import (
    EnsembleSettings,
    MemberSettings,
    make_settings,
    read_ensemble,
    write_ensemble,
    write_yaml,
)
from hpa_kit.errors import InputError
from hpa_kit.kaggle.cards import CellNetwork, MemberCard, cells_card, members_card
from hpa_kit.kaggle.dataset import CARD, METADATA, Dataset, dataset_metadata, notes, write_dataset
from hpa_kit.kaggle.mounts import ENSEMBLE
from hpa_kit.kaggle.names import file_fault


class Kind(NamedTuple):
    """Slug, title and licence of a dataset, where none other is asked for."""

    slug: str
    title: str
    licence: str


# Data of the atlas's older releases are CC BY-SA; 4.0 is the version that newer ones, CC BY 4.0, go with too.
MEMBERS = Kind("hpa-kit-members", "hpa-kit members for HPA cells", "CC-BY-SA-4.0")
# Kaggle has no name for the licence of every Zenodo record, so the card says it.
CELLS = Kind("hpa-kit-cells", "HPA cell networks as safetensors", "other")


def weights_dataset(
    sources: Sequence[str | Path],
    out: str | Path,
    owner: str,
    licence: str | None = None,
) -> Dataset:
    """Write trained members, or the published cell networks, as a dataset, and print what to do with it.

    All files lie in one folder, since sub-folders come out of an upload in several ways. A member is one
    checkpoint without optimiser state, averaged weights where the run had them, and its settings beside it.

    Args:
        sources: run folders and checkpoints; or one ensemble YAML; or one folder of both published networks.
        out: folder to write.
        owner: Kaggle user.
        licence: by Kaggle's name for it; None is CC-BY-SA-4.0 for members, ``other`` for published networks.

    Raises:
        InputError: a source cannot be read or does not go with the rest, or Kaggle would refuse a name.
    """
    out, paths = Path(out), [Path(source) for source in sources]
    published = [path for path in paths if _is_published(path)]
    if published and len(paths) > 1:
        raise InputError(f"weights: {published[0]} holds published cell networks; give it alone")
    kind = CELLS if published else MEMBERS
    licence = licence or kind.licence
    dataset_metadata(owner, kind.slug, kind.title, licence)  # refused before long work
    if published:
        own, card = _write_cells(published[0], out, licence)
    else:
        own, card = _write_members(_ensemble(paths), out, licence)
    dataset = write_dataset(out, owner, kind.slug, kind.title, licence, card)
    size = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    lines = [
        f"{out}: {', '.join(own)} and {METADATA}, {size / 1e6:.1f} MB",
        *notes(dataset, own),
        f"first upload:  {dataset.create()}",
        f"later uploads: {dataset.update(f'hpa-kit {__version__}')}",
        f"attach it:     hpa-kit kaggle metadata --add {dataset.id}",
    ]
    print("\n".join(lines))
    return dataset


def _is_published(path: Path) -> bool:
    from hpa_kit.cells.weights import PUBLISHED_NAMES

    stems = {entry.stem for entry in path.iterdir()} if path.is_dir() else set()
    return any(name in stems for names in PUBLISHED_NAMES.values() for name in names)


def _ensemble(paths: Sequence[Path]) -> EnsembleSettings:
    yamls = [path for path in paths if path.suffix in (".yaml", ".yml")]
    if not yamls:
        return make_settings(EnsembleSettings, {"members": paths}, source="weights")
    if len(paths) > 1:
        raise InputError(f"weights: {yamls[0]} names all its members; give it alone")
    return read_ensemble(yamls[0])


def _write_members(ensemble: EnsembleSettings, out: Path, licence: str) -> tuple[list[str], str]:
    """All members and their ensemble; the names of the files, and the card."""
    names = _names([member.checkpoint for member in ensemble.members])
    cards = [_write_member(member, out, name) for member, name in zip(ensemble.members, names, strict=True)]
    # Label maps and cell networks come from what is attached on Kaggle, not from here.
    moved = [
        member.model_copy(update={"checkpoint": out / card.file})
        for member, card in zip(ensemble.members, cards, strict=True)
    ]
    whole = ensemble.model_copy(update={"members": tuple(moved), "masks": None, "weights": None})
    write_ensemble(whole, out / ENSEMBLE)
    files = [name for card in dict.fromkeys(cards) for name in (card.file, Path(card.file).stem + ".yaml")]
    return [ENSEMBLE, CARD, *sorted(set(files))], members_card(cards, whole, licence)


def _write_member(member: MemberSettings, out: Path, name: str) -> MemberCard:
    """A member's network as it would be used, without what only training needs.

    Raises:
        InputError: it cannot look at the fields that it would get.
    """
    from hpa_kit.inference.views import LoadedMember
    from hpa_kit.training.checkpoint import write_checkpoint
    from hpa_kit.training.member import load_member

    model, settings, info = load_member(member.checkpoint)
    LoadedMember(member, model, member.size or settings.size, settings.network == "unet").check_sides()
    path = out / f"{name}.safetensors"
    state: dict[str, Any] = {"model": model.state_dict(), "averaged": info["averaged"]}
    state |= {key: info[key] for key in ("epoch", "metrics") if info.get(key) is not None}
    write_checkpoint(path, settings, state)
    write_yaml(settings, path.with_suffix(".yaml"))
    _check_copy(path, model.state_dict())
    return MemberCard.of(path, member, settings, info)


def _check_copy(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Read a written member back: what goes to Kaggle is seen to work before it goes."""
    from hpa_kit.training.member import load_member

    copy = load_member(path).model.state_dict()
    if copy.keys() != weights.keys() or not all(torch.equal(copy[key], weights[key]) for key in weights):
        raise InputError(
            f"weights: {path} holds other weights than were written; is the disk full or faulty?"
        )


def _names(checkpoints: Sequence[Path]) -> list[str]:
    """A file name per member that is short, its own, and one that Kaggle takes; the same member has one."""
    names: dict[Path, str] = {}
    for path in checkpoints:
        real = path.resolve()
        if real in names:
            continue
        from_run = real.is_dir() or real.stem in ("best", "last")
        stem = (real if real.is_dir() else real.parent).name if from_run else real.stem
        base = re.sub(r"[^A-Za-z0-9_+=-]+", "-", stem).strip("-") or "member"
        if base == Path(ENSEMBLE).stem:
            base = f"{base}-member"
        name, count = base, 2
        while name in names.values():
            name, count = f"{base}-{count}", count + 1
        names[real] = name
    return [names[path.resolve()] for path in checkpoints]


def _write_cells(folder: Path, out: Path, licence: str) -> tuple[list[str], str]:
    """Both published networks as safetensors under their published names; the files' names, and the card."""
    from hpa_kit.cells.weights import PUBLISHED_NAMES, convert_weights, find_weights

    networks = []
    for network, source in find_weights(folder).items():
        file = f"{PUBLISHED_NAMES[network][0]}.safetensors"
        if (out / file).resolve() != source.resolve():
            convert_weights(source, out / file)
        networks.append(CellNetwork.of(network, source, out / file))
    fault = next(filter(None, (file_fault(one.file) for one in networks)), None)
    if fault:
        raise InputError(f"weights: {fault}")
    return [CARD, *sorted(one.file for one in networks)], cells_card(networks, licence)
