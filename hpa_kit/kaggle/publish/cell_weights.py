"""Networks that find cells as a dataset: the published ones, or a run's own, with their card."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from hpa_kit import __version__
from hpa_kit.errors import InputError
from hpa_kit.kaggle.publish.dataset import CARD
from hpa_kit.training.cards import Origin, sha256
from hpa_kit.training.checkpoint import checkpoint_file, read_checkpoint, settings_of

CELLS_SLUG = "hpa-kit-cells"
_USE = "Attach the dataset to the inference notebook, which finds it, or give it as `--weights FOLDER`."


class CellNetwork(NamedTuple):
    """What the card says of one published network."""

    network: str
    source: str
    source_sha256: str
    file: str
    sha256: str

    @classmethod
    def of(cls, network: str, source: Path, path: Path) -> Self:
        """Make the card's line for a converted file."""
        return cls(network, source.name, sha256(source), path.name, sha256(path))


def is_published(path: Path) -> bool:
    """Whether a folder holds the published cell networks, by their files' names.

    Raises:
        InputError: it holds those of a run, which may have the same names.
    """
    from hpa_kit.cells.networks import trained_here
    from hpa_kit.cells.weights import PUBLISHED_NAMES

    names = {name for names in PUBLISHED_NAMES.values() for name in names}
    files = [file for file in path.iterdir() if file.stem in names] if path.is_dir() else []
    if any(map(trained_here, files)):
        raise InputError(f"weights: {path} holds a run's networks, packed before; give the run")
    return bool(files)


def write_published(folder: Path, out: Path, licence: str) -> tuple[list[str], str]:
    """Write both published networks as safetensors under their published names.

    Returns:
        the files' names, and the card.

    Raises:
        InputError: one is missing or cannot be used.
    """
    from hpa_kit.cells.weights import PUBLISHED_NAMES, convert_weights, find_weights

    networks = []
    for network, source in find_weights(folder).items():
        file = f"{PUBLISHED_NAMES[network][0]}.safetensors"
        if (out / file).resolve() != source.resolve():
            convert_weights(source, out / file)
        networks.append(CellNetwork.of(network, source, out / file))
    return [CARD, *sorted(one.file for one in networks)], _cells_card(networks, licence)


def write_trained(run: Path, out: Path, licence: str, origins: Sequence[Origin]) -> tuple[list[str], str]:
    """Write both networks of a run as files that ``--weights`` takes, without what only training needs.

    Returns:
        the files' names, and the card.

    Raises:
        InputError: the checkpoint is missing or damaged.
    """
    from hpa_kit.cells.networks import load_networks, write_networks

    file = checkpoint_file(run)
    settings, state = settings_of(file), read_checkpoint(file, only=("metrics",)).state
    paths = write_networks(load_networks(file), settings.backbone, out)
    lines = ["# Networks that find nuclei and cells", ""]
    lines += [f"Written by hpa-kit {__version__}. Licence of these weights: {licence}.", ""]
    lines += [
        f"* U-Nets on {settings.backbone}, for fields of 2048 px at {settings.size} px, trained from label "
        f"maps; fold {settings.fold} of {settings.folds}, seed {settings.seed}",
        *(
            f"* {name} {value:.4g}"
            for name, value in (state.get("metrics") or {}).items()
            if name.startswith(("val", "cells"))
        ),
        *(f"* weights of others in it: {one.weights}, licence: {one.licence}" for one in origins),
        *(f"* `{path.name}`, sha256 `{sha256(path)}`" for path in paths),
    ]
    return [CARD, *sorted(path.name for path in paths)], "\n".join([*lines, "", _USE]) + "\n"


def _cells_card(networks: Sequence[CellNetwork], licence: str) -> str:
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
        _USE,
    ]
    return "\n".join(lines) + "\n"
