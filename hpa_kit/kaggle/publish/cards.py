"""Model cards: what is in a dataset of weights, how good it is, under which licence, how it is used."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from hpa_kit import __version__
from hpa_kit.config import EnsembleSettings, MemberSettings, TrainSettings

HPA = "Human Protein Atlas (images and labels CC BY-SA 3.0 in older releases, CC BY 4.0 in newer ones)"


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

    @classmethod
    def of(cls, path: Path, member: MemberSettings, settings: TrainSettings, info: Mapping[str, Any]) -> Self:
        """The card's line for a checkpoint, of its settings and of what its run measured."""
        network = f"{settings.network} {settings.backbone}"
        trained = f"{settings.size} px, fold {settings.fold} of {settings.folds}, seed {settings.seed}"
        if settings.network == "cam":
            trained = f"stride {settings.stride}, {trained}"
        if settings.pretrained:
            trained += f", started from {Path(str(settings.pretrained)).name}"
        part = f"{member.mode}, weight {member.weight:g}, views {member.views}"
        metrics = tuple((name, float(value)) for name, value in (info.get("metrics") or {}).items())
        return cls(
            path.name, _sha256(path), path.stat().st_size, network, trained, part, info.get("epoch"), metrics
        )


class CellNetwork(NamedTuple):
    """What the card says of one published network."""

    network: str
    source: str
    source_sha256: str
    file: str
    sha256: str

    @classmethod
    def of(cls, network: str, source: Path, path: Path) -> Self:
        """The card's line for a converted file."""
        return cls(network, source.name, _sha256(source), path.name, _sha256(path))


def members_card(members: Sequence[MemberCard], ensemble: EnsembleSettings, licence: str) -> str:
    """The model card of an ensemble's members, as Markdown."""
    lines = ["# Members for HPA single-cell classification", ""]
    lines += [f"Written by hpa-kit {__version__}. Licence of these weights: {licence}.", ""]
    for card in members:
        lines += [f"## {card.file}", ""]
        lines += [f"* {card.network}; {card.settings}", f"* in the ensemble: {card.part}"]
        lines += [
            f"* epoch {card.epoch}, on the fold kept for validation:" if card.metrics else "* no scores kept"
        ]
        lines += [f"  * {name} {value:.4g}" for name, value in card.metrics if name != "epoch"]
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
        "that training started from have licences of their own.",
    ]
    return "\n".join(lines) + "\n"


def cells_card(networks: Sequence[CellNetwork], licence: str) -> str:
    """The model card of the published cell networks, as Markdown."""
    lines = ["# Cell networks of HPA-Cell-Segmentation, as safetensors", ""]
    lines += [
        f"Converted by hpa-kit {__version__} without running anything of the published pickles. The networks "
        "are those of HPA-Cell-Segmentation (code Apache-2.0), Zenodo record 4665863; the licence is the one "
        f"that this record states (on Kaggle: {licence}).",
        "",
    ]
    for one in networks:
        lines += [
            f"* `{one.file}`: {one.network}, from `{one.source}`",
            f"  * sha256 `{one.sha256}`",
            f"  * sha256 of what it was made from `{one.source_sha256}`",
        ]
    lines += [
        "",
        "Attach the dataset to the inference notebook, which finds it, or give it as `--weights FOLDER`.",
    ]
    return "\n".join(lines) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
