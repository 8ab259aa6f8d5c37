"""Where the weights of a member come from, and under which licence: its card, which goes where it goes."""

import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from hpa_kit.config import Settings, TrainSettings, make_settings, to_yaml
from hpa_kit.files import atomic_text
from hpa_kit.resume import WEIGHT_ENDINGS
from hpa_kit.training.checkpoint import BEST, checkpoint_file, read_checkpoint, settings_of

log = logging.getLogger(__name__)

CARD = "card.yaml"  # beside a member's checkpoint, which holds it too
NOT_STATED = "not stated"  # by whoever has converted weights
UNKNOWN = "unknown"
_ZENODO = f"{NOT_STATED} here, but by Zenodo record 4665863"
# Licences that let everybody pass weights on, and what such a name may go on with that takes it back.
_FREE = re.compile(r"(apache|mit\b|bsd|cc0|cc-by|cc by|isc\b|unlicense|public domain|openrail)")
_BOUND = re.compile(r"\bn[cd]\b|non-?\s?commercial|no-?\s?derivat|research|dinov3|unknown|not stated")


class Source(Settings):
    """A file that something was made from, by its name and sha256."""

    file: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Name a file that is there."""
        return cls(file=path.name, sha256=sha256(path))


class Card(Settings):
    """What is known of weights that this kit has not trained.

    Attributes:
        network: what they are of.
        licence: of the weights, as the user states it, or :data:`NOT_STATED`.
        sources: the files that they were read from.
        seen: the table of the fields that they have learnt from; None counts every field.
        seen_fields: how many there are in it.
        version: of the kit that has read them.
    """

    network: str
    licence: str
    sources: tuple[Source, ...]
    seen: Source | None
    seen_fields: int | None
    version: str

    def lines(self) -> tuple[str, ...]:
        """What they were made from and what they have learnt from, for a card that people read."""
        made = [f"from `{one.file}`, sha256 `{one.sha256}`" for one in self.sources]
        if self.seen is None:
            return (*made, "learnt from fields that are not known: every field counts as seen")
        return (*made, f"learnt from the {self.seen_fields} fields of `{self.seen.file}`")


def card_of(path: Path) -> Card | None:
    """The card in a member's checkpoint; None for one that this kit has trained.

    Raises:
        InputError: the checkpoint or its card cannot be read.
    """
    file = checkpoint_file(path)
    found: Any = read_checkpoint(file, only=("card",)).state.get("card")
    return None if found is None else make_settings(Card, found, source=f"card: {file}")


class Origin(Settings):
    """Weights that are in a member and that this kit has not trained: what they are, and their licence.

    Attributes:
        weights: what they are, for people.
        licence: as their source states it, or why none is known.
    """

    weights: str
    licence: str

    @property
    def may_be_passed_on(self) -> bool:
        """Whether the licence is one that lets everybody pass the weights on, for any use."""
        return _FREE.match(self.licence.lower()) is not None and not _BOUND.search(self.licence.lower())


def origins_of(path: Path) -> list[Origin]:
    """The weights that a member has from elsewhere: converted, or what its run and earlier ones began with.

    Args:
        path: run folder, or checkpoint.

    Raises:
        InputError: the checkpoint or its card cannot be read.
    """
    found: dict[str, Origin] = {}
    chain: list[Path] = []
    start: Path | None = path
    while start is not None and start.resolve() not in chain:
        chain.append(start.resolve())
        if chain[1:] and not start.exists():  # it had the same backbone, as a rule
            log.warning(
                f"{path} started with {start}, which is not there: where its weights come from is not known"
            )
            name, licence = _timms(settings_of(checkpoint_file(path)).backbone)
            origin = Origin(weights=f"{name} of timm, perhaps, by way of {start.name}", licence=licence)
            if name is not None and not origin.may_be_passed_on:
                found.setdefault(origin.weights, origin)
            break
        for origin in _own_origins(start):
            found.setdefault(origin.weights, origin)
        settings = settings_of(checkpoint_file(start))
        before = settings.warm_start or settings.encoder
        start = None if before is None else Path(before)
    return list(found.values())


def _own_origins(path: Path) -> Iterator[Origin]:
    """What one run had from elsewhere, or the run before it was packed."""
    file = checkpoint_file(path)
    state, settings = read_checkpoint(file, only=("origins",)).state, settings_of(file)
    if "origins" in state:
        yield from (make_settings(Origin, one, source=f"card: {file}") for one in state["origins"])
    elif (card := card_of(path)) is not None:
        yield Origin(weights=card.network, licence=card.licence)
    elif settings.network == "cells" and _is_folder(settings.pretrained):
        folder = Path(str(settings.pretrained))
        if (folder / BEST).is_file():
            yield from origins_of(folder)
        else:
            yield Origin(weights=f"the published cell networks in {folder.name}", licence=_ZENODO)
    elif settings.pretrained is not None:
        yield _pretrained(settings, settings.pretrained)


def _is_folder(pretrained: Path | str | None) -> bool:
    """Whether pretrained weights were a folder of networks, which may be gone."""
    return isinstance(pretrained, Path) and pretrained.suffix not in WEIGHT_ENDINGS


def _pretrained(settings: TrainSettings, pretrained: Path | str) -> Origin:
    """The weights that a run began with: another member's, or timm's by the backbone and the file's name."""
    path = Path(pretrained)
    if path.is_dir() and (path / BEST).is_file() and (card := card_of(path)) is not None:
        return Origin(weights=card.network, licence=card.licence)
    name, licence = _timms(settings.backbone, path.stem)
    if str(pretrained) == "download":
        return Origin(weights=f"{name} of timm", licence=licence)
    if name is None:
        return Origin(weights=f"{path.name}, for {settings.backbone}", licence=UNKNOWN)
    known = name.partition(".")[2] in path.stem
    return Origin(weights=f"{path.name}, {'' if known else 'taken for '}{name} of timm", licence=licence)


def _timms(backbone: str, file: str = "") -> tuple[str | None, str]:
    """Name and licence of timm's weights of a network: those that a file's name tells, else its first ones.

    Files are called by the whole name, or have its tag in theirs: ``resnet50_a1_in1k-14fe96d1``.
    """
    from timm.models import get_pretrained_cfg, list_pretrained

    base, _, tag = backbone.partition(".")
    named = [one for one in list_pretrained(f"{base}.*") if one.partition(".")[2] in file]
    name = (
        backbone if tag else max(named, key=len, default=base)
    )  # the longest, as some tags go on from others
    config = get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        return None, UNKNOWN
    name = ".".join(filter(None, (base, config.tag)))
    return name, config.license or UNKNOWN


def write_card(card: Card, folder: Path) -> None:
    """Write a card as a file to be read by people."""
    atomic_text(folder / CARD, to_yaml(card))


def sha256(path: Path) -> str:
    """The sha256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
