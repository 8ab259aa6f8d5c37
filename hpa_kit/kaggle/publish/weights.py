"""Weights as Kaggle datasets with model cards: members with their ensemble; networks that find cells."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from hpa_kit import __version__
from hpa_kit.config import (
    EnsembleSettings,
    MemberSettings,
    TrainSettings,
    make_settings,
    read_ensemble,
    write_ensemble,
    write_yaml,
)
from hpa_kit.errors import InputError
from hpa_kit.kaggle.mounts import ENSEMBLE
from hpa_kit.kaggle.publish.cell_weights import (
    CELLS_SLUG,
    is_published,
    write_published,
    write_trained,
)
from hpa_kit.kaggle.publish.dataset import (
    CARD,
    MEMBERS_SLUG,
    METADATA,
    Dataset,
    dataset_metadata,
    notes,
    write_dataset,
)
from hpa_kit.training.cards import NOT_STATED, UNKNOWN, Origin, card_of, origins_of, sha256
from hpa_kit.training.checkpoint import finds_cells

log = logging.getLogger(__name__)

HPA = "Human Protein Atlas (images and labels CC BY-SA 3.0 in older releases, CC BY 4.0 in newer ones)"


class Kind(NamedTuple):
    """Slug, title and licence of a dataset, where none other is asked for."""

    slug: str
    title: str
    licence: str


# Data of the atlas's older releases are CC BY-SA; 4.0 is the version that newer ones, CC BY 4.0, go with too.
MEMBERS = Kind(MEMBERS_SLUG, "hpa-kit members for HPA cells", "CC-BY-SA-4.0")
CELLS = Kind(CELLS_SLUG, "HPA cell networks as safetensors", MEMBERS.licence)


class MemberCard(NamedTuple):
    """What the card says of one member."""

    file: str
    sha256: str
    size: int  # bytes
    network: str
    settings: str
    part: str
    epoch: int | None
    metrics: tuple[tuple[str, float], ...]
    origins: tuple[str, ...] = ()  # weights of others in it, with their licences
    made_from: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, member: MemberSettings, settings: TrainSettings, info: Mapping[str, Any]) -> Self:
        """Make the card's line for a checkpoint, of its settings and of what its run measured."""
        network = f"{settings.network} {settings.backbone}"
        if settings.subcell is not None:
            side, outside = settings.crops.side, settings.crops.neighbours
            trained = f"as published; crops of {side} pixels of 0.08 µm, neighbours {outside}"
            return cls(
                path.name,
                sha256(path),
                path.stat().st_size,
                settings.backbone,
                trained,
                _part(member),
                None,
                (),
            )
        trained = f"{settings.size} px, fold {settings.fold} of {settings.folds}, seed {settings.seed}"
        if settings.network == "cam":
            trained = f"stride {settings.stride}, {trained}"
        elif settings.network == "crops":
            trained = f"stride {settings.stride}, crops of {settings.crops.side} px of {trained}"
        if settings.pretrained:
            trained += f", started from {Path(str(settings.pretrained)).name}"
        metrics = tuple((name, float(value)) for name, value in (info.get("metrics") or {}).items())
        return cls(
            path.name,
            sha256(path),
            path.stat().st_size,
            network,
            trained,
            _part(member),
            info.get("epoch"),
            metrics,
        )


def _part(member: MemberSettings) -> str:
    """A member's part in its ensemble."""
    return f"{member.mode}, weight {member.weight:g}, views {member.views}"


def weights_dataset(
    sources: Sequence[str | Path],
    out: str | Path,
    owner: str,
    licence: str | None = None,
    *,
    private: bool = False,
    weights_licence: str | None = None,
) -> Dataset:
    """Write trained members, or networks that find cells, as a dataset, and print what to do with it.

    All files lie in one folder, since sub-folders come out of an upload in several ways. A member is one
    checkpoint without optimiser state, averaged weights where the run had them, and its settings beside it.

    Args:
        sources: run folders and checkpoints; or one ensemble YAML; or one folder of both published cell
            networks, or one run that has trained such.
        out: folder to write.
        owner: Kaggle user.
        licence: by Kaggle's name for it; None is CC-BY-SA-4.0 for members, ``other`` for published networks
            and for members with weights of other licences.
        private: the dataset stays its owner's alone, so that what may not be passed on may be in it.
        weights_licence: of weights in members that this kit has not trained, where none is known.

    Raises:
        InputError: a source cannot be read or does not go with the rest, Kaggle would refuse a name, or a
            member has weights that may not be passed on.
    """
    out, paths = Path(out), [Path(source) for source in sources]
    published = [path for path in paths if is_published(path)]
    cells = published or [path for path in paths if finds_cells(path)]
    if cells and len(paths) > 1:
        what = "published cell networks" if published else "networks that find cells"
        raise InputError(f"weights: {cells[0]} holds {what}; give it alone")
    kind = CELLS if cells else MEMBERS
    ensemble = None if cells else _ensemble(paths)
    members = () if ensemble is None else ensemble.members
    checkpoints = [] if published else cells or [member.checkpoint for member in members]
    origins = _origins(checkpoints, weights_licence)
    _refuse_bound(origins, private, licence)
    if licence is None:
        # Kaggle has no name for the licence of every Zenodo record, so the card says it.
        licence = "other" if private or published or _only_others(ensemble) else kind.licence
    dataset_metadata(owner, kind.slug, kind.title, licence)  # refused before long work
    if published:
        own, card = write_published(published[0], out, licence)
    elif ensemble is None:
        own, card = write_trained(cells[0], out, licence, origins[cells[0]])
    else:
        own, card = _write_members(ensemble, origins, out, licence, private)
    dataset = write_dataset(out, owner, kind.slug, kind.title, licence, card)
    size = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    lines = [
        f"{out}: {', '.join(own)} and {METADATA}, {size / 1e6:.1f} MB",
        *notes(dataset, own),
        *(["keep it private: weights in it may not be passed on"] if private else []),
        f"first upload:  {dataset.create()}",
        f"later uploads: {dataset.update(f'hpa-kit {__version__}')}",
        f"attach it:     hpa-kit kaggle metadata --add {dataset.id}",
    ]
    print("\n".join(lines))
    return dataset


def _ensemble(paths: Sequence[Path]) -> EnsembleSettings:
    yamls = [path for path in paths if path.suffix in (".yaml", ".yml")]
    if not yamls:
        return make_settings(EnsembleSettings, {"members": paths}, source="weights")
    if len(paths) > 1:
        raise InputError(f"weights: {yamls[0]} names all its members; give it alone")
    return read_ensemble(yamls[0])


def _origins(checkpoints: Sequence[Path], licence: str | None) -> dict[Path, list[Origin]]:
    """The weights in them that this kit has not trained, by checkpoint; a licence is for those without."""
    found = {checkpoint: origins_of(checkpoint) for checkpoint in checkpoints}
    if licence is None:
        return found
    return {
        path: [
            one.model_copy(update={"licence": licence})
            if one.licence.startswith((UNKNOWN, NOT_STATED))
            else one
            for one in origins
        ]
        for path, origins in found.items()
    }


def _refuse_bound(origins: Mapping[Path, Sequence[Origin]], private: bool, licence: str | None) -> None:
    """Refuse to pack weights that may not be passed on, unless the dataset is to stay private.

    Raises:
        InputError: a member has such weights.
    """
    if private:
        return
    for path, some in origins.items():
        for one in some:
            if not one.may_be_passed_on:
                known = not one.licence.startswith((UNKNOWN, NOT_STATED))
                state = "" if known else ", state their licence with --weights-licence TEXT"
                raise InputError(
                    f"weights: {path} holds {one.weights}, licence {one.licence}: as far as is known they "
                    f"may not be passed on; keep the dataset private and say so with --private{state}, or "
                    "leave the member out and attach what their owners offer"
                )


def _only_others(ensemble: EnsembleSettings | None) -> bool:
    """Whether this kit has trained no member of an ensemble."""
    return ensemble is not None and all(card_of(one.checkpoint) is not None for one in ensemble.members)


def _write_members(
    ensemble: EnsembleSettings,
    origins: Mapping[Path, Sequence[Origin]],
    out: Path,
    licence: str,
    private: bool,
) -> tuple[list[str], str]:
    """All members and their ensemble; the names of the files, and the card."""
    names = _names([member.checkpoint for member in ensemble.members])
    cards = [
        _write_member(member, origins[member.checkpoint], out, name)
        for member, name in zip(ensemble.members, names, strict=True)
    ]
    # Label maps and cell networks come from what is attached on Kaggle, not from here.
    moved = [
        member.model_copy(update={"checkpoint": out / card.file})
        for member, card in zip(ensemble.members, cards, strict=True)
    ]
    whole = ensemble.model_copy(update={"members": tuple(moved), "masks": None, "weights": None})
    write_ensemble(whole, out / ENSEMBLE)
    files = [name for card in dict.fromkeys(cards) for name in (card.file, Path(card.file).stem + ".yaml")]
    return [ENSEMBLE, CARD, *sorted(set(files))], _members_card(cards, whole, licence, private)


def _write_member(member: MemberSettings, origins: Sequence[Origin], out: Path, name: str) -> MemberCard:
    """A member's network as it would be used, without what only training needs.

    Raises:
        InputError: it cannot take the fields that it would get.
    """
    from hpa_kit.inference.views import member_of
    from hpa_kit.training.checkpoint import write_checkpoint
    from hpa_kit.training.member import load_member

    model, settings, info = load_member(member.checkpoint)
    loaded = member_of(member, model, settings)
    loaded.check_sides()
    if (line := loaded.other_sides()) is not None:
        log.info(line)
    path = out / f"{name}.safetensors"
    state: dict[str, Any] = {"model": model.state_dict(), "averaged": info["averaged"]}
    state |= {key: info[key] for key in ("epoch", "metrics") if info.get(key) is not None}
    card = card_of(member.checkpoint)
    if card is not None:
        state["card"] = card.model_dump(mode="json")
    if origins:
        state["origins"] = [one.model_dump(mode="json") for one in origins]
    write_checkpoint(path, settings, state)
    write_yaml(settings, path.with_suffix(".yaml"))
    _check_copy(path, model.state_dict())
    return MemberCard.of(path, member, settings, info)._replace(
        origins=tuple(f"{one.weights}, licence: {one.licence}" for one in origins),
        made_from=() if card is None else card.lines(),
    )


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


def _members_card(
    members: Sequence[MemberCard], ensemble: EnsembleSettings, licence: str, private: bool
) -> str:
    """The model card of an ensemble's members, as Markdown."""
    lines = ["# Members for HPA single-cell classification", ""]
    lines += [f"Written by hpa-kit {__version__}. Licence of these weights: {licence}.", ""]
    if private:
        lines += ["Weights in it may not be passed on: this dataset stays private.", ""]
    for card in members:
        lines += [f"## {card.file}", ""]
        lines += [f"* {card.network}; {card.settings}", f"* in the ensemble: {card.part}"]
        lines += [
            f"* epoch {card.epoch}, on the fold kept for validation:" if card.metrics else "* no scores kept"
        ]
        lines += [f"  * {name} {value:.4g}" for name, value in card.metrics if name != "epoch"]
        lines += [f"* weights of others in it: {one}" for one in card.origins]
        lines += [f"  * {one}" for one in card.made_from]
        lines += [f"* {card.size / 1e6:.1f} MB, sha256 `{card.sha256}`", ""]
    lines += [
        "## Use",
        "",
        f"`ensemble.yaml` names the members beside it; rule {ensemble.rule}, maps of {ensemble.map_size} px. "
        "Attach the dataset to the inference notebook, which finds it, or run "
        "`hpa-kit infer DATA --ensemble ensemble.yaml --out submission.csv`. The checkpoints are "
        "safetensors: reading them runs no code.",
        "",
        "## Data",
        "",
        f"Trained on data of the {HPA}; the rules of the competition that they came from apply too. Weights "
        "that training started from, and those of others, have the licences that stand beside them.",
    ]
    return "\n".join(lines) + "\n"
