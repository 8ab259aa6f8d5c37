"""Where the weights of a member come from, and under which licence: its card, which goes where it goes."""

import hashlib
from pathlib import Path
from typing import Any, Self

from hpa_kit.config import Settings, make_settings, to_yaml
from hpa_kit.files import atomic_text
from hpa_kit.training.checkpoint import checkpoint_file, read_checkpoint

CARD = "card.yaml"  # beside a member's checkpoint, which holds it too
NOT_STATED = "not stated"  # by whoever has converted weights


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


def card_of(path: Path) -> Card | None:
    """The card in a member's checkpoint; None for one that this kit has trained.

    Raises:
        InputError: the checkpoint or its card cannot be read.
    """
    file = checkpoint_file(path)
    found: Any = read_checkpoint(file, only=("card",)).state.get("card")
    return None if found is None else make_settings(Card, found, source=f"card: {file}")


def write_card(card: Card, folder: Path) -> None:
    """Write a card as a file to be read by people."""
    atomic_text(folder / CARD, to_yaml(card))


def sha256(path: Path) -> str:
    """The sha256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
