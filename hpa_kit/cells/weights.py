"""Weights of the published cell networks: read safely, converted once."""

from pathlib import Path

import safetensors
from safetensors.torch import load_file
from torch import Tensor

from hpa_kit.cells.dpn_unet import DPNUnet
from hpa_kit.cells.pickles import read_pickled_tensors
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_tensors
from hpa_kit.resume import BEST

HAD_FROM = "Zenodo record 4665863 (dpn_unet_nuclei_v1.pth and dpn_unet_cell_3ch_v1.pth)"
# The same files go by the first names on Zenodo and by the second on Kaggle; the last are of networks of the
# same form that this kit has trained on other encoders.
PUBLISHED_NAMES = {
    "nuclei": ("dpn_unet_nuclei_v1", "nuclei-model", "nuclei-network"),
    "cells": ("dpn_unet_cell_3ch_v1", "cell-model", "cell-network"),
}
SUFFIXES = (".safetensors", ".pth", ".pt")


def load_published_network(path: str | Path) -> DPNUnet:
    """Read a network of HPA-Cell-Segmentation from its weights file, running nothing of the file.

    Args:
        path: the published ``.pth`` (a pickled module, in DataParallel or not, zip or legacy format), a plain
            state dict, or what :func:`convert_weights` wrote. Nothing is ever downloaded.

    Returns:
        The network in evaluation mode, float32, on the CPU.

    Raises:
        InputError: the file is missing, damaged, asks to run code, or holds other weights.
    """
    return DPNUnet.from_published_state(read_weights(Path(path), HAD_FROM), source=f"weights: {path}")


def convert_weights(path: str | Path, out: str | Path) -> Path:
    """Write a network's weights as safetensors, a format that cannot hold code.

    Args:
        path: any file that :func:`load_published_network` reads.
        out: the ``.safetensors`` file to write.

    Raises:
        InputError: ``path`` cannot be used, or ``out`` is not named ``.safetensors``.
    """
    out = Path(out)
    if out.suffix != ".safetensors":
        raise InputError(f"weights: {out} should be named .safetensors")
    state = load_published_network(path).state_dict()
    atomic_tensors(out, state, {"network": "HPA-Cell-Segmentation DPNUnet", "source": Path(path).name})
    return out


def find_weights(folder: str | Path) -> dict[str, Path]:
    """Find the two networks' files in a folder, by their published names.

    Returns:
        ``{"nuclei": path, "cells": path}``; safetensors before pickles.

    Raises:
        InputError: one is missing; the message says what was looked for and where the files are to be had.
    """
    folder = Path(folder)
    found = {}
    for network, names in PUBLISHED_NAMES.items():
        candidates = [folder / f"{name}{suffix}" for suffix in SUFFIXES for name in names]
        present = [path for path in candidates if path.is_file()]
        if not present and (folder / BEST).is_file():
            raise InputError(
                f"weights: {folder} is a run of hpa-kit train; expected the published networks, as from "
                f"{HAD_FROM}; the segmenter published takes runs of --network cells too"
            )
        if not present:
            raise InputError(
                f"weights: no {network} network in {folder}; expected {names[0]}.pth, {names[1]}.pth or the "
                f"same as .safetensors, to be had from {HAD_FROM}; nothing is downloaded; a run of hpa-kit "
                "train --network cells is taken too"
            )
        found[network] = present[0]
    return found


def read_weights(path: Path, had_from: str | None = None) -> dict[str, Tensor]:
    """Read the named tensors of a published file, running nothing of it.

    Args:
        path: safetensors, a pickled module or a state dict.
        had_from: where such a file is to be had, for the error.

    Raises:
        InputError: the file is missing, damaged, or asks to run code.
    """
    if not path.is_file():
        known = "" if had_from is None else f" to be had from {had_from};"
        raise InputError(f"weights: {path} is missing;{known} nothing is downloaded")
    with path.open("rb") as file:
        head = file.read(9)
    # safetensors opens with the length of its header and then the header, which is JSON.
    if path.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{"):
        try:
            return load_file(path)
        except safetensors.SafetensorError as error:
            raise InputError(f"weights: {path} is no whole safetensors file ({error})") from None
    return read_pickled_tensors(path)
