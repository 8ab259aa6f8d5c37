"""SubCell's published weights -> a member of the kit: read without running anything of them, written once."""

import logging
import re
from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path

from torch import Tensor, cat, isfinite

from hpa_kit import __version__
from hpa_kit.cells.weights import read_weights
from hpa_kit.config import TrainSettings, make_settings, write_yaml
from hpa_kit.config.kinds import FIELD_SIDE, SUBCELL, SUBCELL_VARIANTS
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, make_folder
from hpa_kit.models.subcell import PUBLISHED_DEPTH, SUBCELL_CLASSES, SubCell
from hpa_kit.tables import read_table
from hpa_kit.training.cards import NOT_STATED, Card, Source, write_card
from hpa_kit.training.checkpoint import BEST, SETTINGS, checkpoint_file, settings_of, write_checkpoint
from hpa_kit.training.run_folder import FOLDS

log = logging.getLogger(__name__)

Shapes = dict[str, tuple[int, ...]]

DEFAULT_CROP = 640  # pixels of 0.08 µm; the authors advise that much or more
MAX_CROP = 1024
_CLASS_TOKEN, _POSITIONS = "encoder.embeddings.cls_token", "encoder.embeddings.position_embeddings"
_PATCHES = "encoder.embeddings.patch_embeddings.projection"
_LAYER = "encoder.encoder.layer."
_ORDER = "expected an encoder first, then its classifiers, then the folder"
# What the layers of a published encoder are called, and by timm.
_IN_BLOCK = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_ATTENTION = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
_POOL = {"attention_v": "value", "attention_u": "gate", "attention": "weight"}
# Places of a classifier's linear layers in the files, whose dropout stands between them, or without it.
_PLACES = ((0, 3, 6), (0, 2, 4))


def convert_subcell(
    encoder: Path,
    classifiers: Sequence[Path],
    folder: Path,
    *,
    channels: str | None = None,
    licence: str | None = None,
    seen: Path | None = None,
    crop: int = DEFAULT_CROP,
    neighbours: str = "zeroed",
) -> Path:
    """Write SubCell's published weights as a member, with a card; nothing of the files is run.

    Args:
        encoder: ``.pth`` of the encoder with its pooling.
        classifiers: ``.pth`` of one classifier or more, whose probabilities are averaged.
        folder: to write.
        channels: the variant; by default the one of so many channels. Of three there are two: which one it
            is is taken from the names of the encoder's file and folders, and of ``folder``; else it is the
            first, which is said.
        licence: of the weights, as the user states it.
        seen: CSV whose column ID names the fields that the weights have learnt from; by default all have.
        crop: side of the crops that the member looks at, in pixels of 0.08 µm.
        neighbours: ``zeroed`` blackens what is outside the cell, ``kept`` leaves it.

    Returns:
        the folder; :func:`~hpa_kit.models.load_subcell` reads it, and so does whatever takes members.

    Raises:
        InputError: a file is missing, damaged, asks to run code or holds other weights, the variant is
            another, or the folder holds something else.
    """
    weights = encoder_weights(encoder)
    variant = _variant(weights["encoder.patch_embed.proj.weight"].shape[1], channels, encoder, folder)
    n_features = len(weights["encoder.norm.bias"]) * len(weights["pool.weight.bias"])
    for number, path in enumerate(classifiers):
        weights |= classifier_weights(path, f"classifiers.{number}.", n_features)
    settings = make_settings(
        TrainSettings,
        {
            "data": encoder.absolute().parent, "out": folder, "masks": "label_maps", "network": "crops",
            "backbone": f"{SUBCELL}{variant}", "in_channels": 4 if "y" in variant else 3,
            "size": FIELD_SIDE, "crop_size": crop, "mask_channel": False, "neighbours": neighbours,
            "normalisation": "fixed",
        },
        source="weights",
    )  # fmt: skip
    ids = None if seen is None else sorted(set(read_table(seen, ("ID",))["ID"]))
    _refuse_other(folder, settings)
    card = Card(
        network=f"SubCell {variant}, {len(classifiers)} classifier{'s' * (len(classifiers) > 1)}",
        licence=licence or NOT_STATED,
        sources=tuple(Source.of(path) for path in (encoder, *classifiers)),
        seen=None if seen is None else Source.of(seen),
        seen_fields=None if ids is None else len(ids),
        version=__version__,
    )
    make_folder(folder)
    if ids is None:
        (folder / FOLDS).unlink(missing_ok=True)
        log.warning("weights: no --seen: the member counts as having learnt from every field")
    else:  # as runs keep them: what is in no fold that is kept for validation was learnt from
        with atomic_path(folder / FOLDS) as path:
            path.write_text("".join(["ID,fold\n", *(f"{id},-1\n" for id in ids)]), encoding="utf-8")
    write_yaml(settings, folder / SETTINGS)
    write_card(card, folder)
    network = SubCell.like(variant, weights)
    network.load_state_dict(weights)  # which refuses what does not fit
    state = {
        "model": network.state_dict(),
        "card": card.model_dump(mode="json"),
    }
    write_checkpoint(folder / BEST, settings, state)
    return folder


def encoder_weights(path: Path) -> dict[str, Tensor]:
    """Read an encoder with its pooling: the weights of a :class:`SubCell` without classifiers, by its names.

    Raises:
        InputError: as :func:`convert_subcell`; keys and shapes that are not as published are listed.
    """
    found = _floats(path)
    known = {name: value for name, value in found.items() if name.startswith(("encoder.", "pool_model."))}
    if not known:
        what = "a classifier" if _places(found) else "no weights of SubCell"
        raise InputError(f"weights: {path} is {what}; {_ORDER}")
    # In training a dropout stood before the pooling's layers, so that in some files these come second.
    known = {re.sub(r"(attention_[uv])\.1\.", r"\1.0.", name): value for name, value in known.items()}
    _refuse(path, known, _encoder_shapes(path, known))
    depth = _depth(known)
    if known[_CLASS_TOKEN].shape[-1] == 768 and depth != PUBLISHED_DEPTH:
        log.warning(f"weights: {path} has {depth} layers; the published encoders have {PUBLISHED_DEPTH}")
    weights = {"encoder.cls_token": known[_CLASS_TOKEN], "encoder.pos_embed": known[_POSITIONS]}
    for end in ("weight", "bias"):
        weights[f"encoder.patch_embed.proj.{end}"] = known[f"{_PATCHES}.{end}"]
        weights[f"encoder.norm.{end}"] = known[f"encoder.layernorm.{end}"]
        for layer in range(depth):
            before, after = f"{_LAYER}{layer}.", f"encoder.blocks.{layer}."
            weights[f"{after}attn.qkv.{end}"] = cat([known[f"{before}{part}.{end}"] for part in _ATTENTION])
            for theirs, ours in _IN_BLOCK.items():
                weights[f"{after}{ours}.{end}"] = known[f"{before}{theirs}.{end}"]
        for theirs, ours in _POOL.items():
            place = "" if ours == "weight" else ".0"
            weights[f"pool.{ours}.{end}"] = known[f"pool_model.{theirs}{place}.{end}"]
    return weights


def classifier_weights(path: Path, prefix: str, n_features: int) -> dict[str, Tensor]:
    """Read a classifier: three linear layers, from features to SubCell's 31 classes.

    Args:
        path: the file.
        prefix: what its names get.
        n_features: that the encoder's pooling gives.

    Raises:
        InputError: as :func:`convert_subcell`.
    """
    found = _floats(path)
    places = _places(found)
    if places is None:
        what = (
            "an encoder" if any(name.startswith("encoder.") for name in found) else "no classifier of SubCell"
        )
        raise InputError(f"weights: {path} is {what}; {_ORDER}")
    inner = [len(found[f"{place}.bias"]) if f"{place}.bias" in found else 0 for place in places[:2]]
    widths = [n_features, *inner, len(SUBCELL_CLASSES)]
    expected: Shapes = {}
    for place, before, after in zip(places, widths, widths[1:], strict=False):
        expected |= {f"{place}.weight": (after, before), f"{place}.bias": (after,)}
    _refuse(path, found, expected)
    return {
        f"{prefix}{ours}.{end}": found[f"{theirs}.{end}"]
        for theirs, ours in zip(places, _PLACES[1], strict=True)
        for end in ("weight", "bias")
    }


def _floats(path: Path) -> dict[str, Tensor]:
    """The weights of a file as float32.

    Raises:
        InputError: it cannot be read, or holds something that is no number.
    """
    found = {name: value.float() for name, value in read_weights(path).items() if value.is_floating_point()}
    broken = [name for name, value in found.items() if not isfinite(value).all()]
    if broken:
        raise InputError(f"weights: {path} is damaged: {broken[0]} holds what is no number")
    return found


def _encoder_shapes(path: Path, found: Mapping[str, Tensor]) -> Shapes:
    """Names and shapes of an encoder of the width, depth and channels of this one.

    Raises:
        InputError: what tells of these is missing or cannot be.
    """
    needed = (
        _CLASS_TOKEN,
        _POSITIONS,
        f"{_PATCHES}.weight",
        "pool_model.attention.weight",
        f"{_LAYER}0.intermediate.dense.bias",
    )
    missing = [name for name in needed if name not in found]
    if missing:
        raise InputError(f"weights: {path} is no whole encoder of SubCell; missing: {', '.join(missing)}")
    width, n_tokens = (
        found[_CLASS_TOKEN].shape[-1],
        found[_POSITIONS].shape[1] if found[_POSITIONS].ndim == 3 else 0,
    )
    patches, pooling = found[f"{_PATCHES}.weight"].shape, found["pool_model.attention.weight"].shape
    side = isqrt(max(n_tokens - 1, 0))
    if len(patches) != 4 or len(pooling) != 2 or width % 64 or side**2 != n_tokens - 1:
        raise InputError(
            f"weights: {path} is no encoder of SubCell: width {width}, {n_tokens} positions, filters "
            f"{tuple(patches)}, pooling {tuple(pooling)}; expected a multiple of 64 and a square of tokens "
            "beside the class token"
        )
    hidden, (heads, inner) = len(found[f"{_LAYER}0.intermediate.dense.bias"]), pooling
    linear = {
        "encoder.layernorm": (width,), "pool_model.attention_v.0": (inner, width),
        "pool_model.attention_u.0": (inner, width), "pool_model.attention": (heads, inner),
        _PATCHES: (width, patches[1], patches[3], patches[3]),
    }  # fmt: skip
    for layer in range(_depth(found)):
        linear |= {
            f"{_LAYER}{layer}.{part}": (width, width) for part in (*_ATTENTION, "attention.output.dense")
        }
        linear |= {f"{_LAYER}{layer}.layernorm_{place}": (width,) for place in ("before", "after")}
        linear |= {
            f"{_LAYER}{layer}.intermediate.dense": (hidden, width),
            f"{_LAYER}{layer}.output.dense": (width, hidden),
        }
    shapes: Shapes = {_CLASS_TOKEN: (1, 1, width), _POSITIONS: (1, n_tokens, width)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def _depth(found: Mapping[str, Tensor]) -> int:
    """How many layers an encoder has."""
    numbers = (name.removeprefix(_LAYER).split(".")[0] for name in found if name.startswith(_LAYER))
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)


def _places(found: Mapping[str, Tensor]) -> tuple[int, ...] | None:
    """Where a classifier's linear layers stand; None where the weights are of no classifier."""
    stems = {name.partition(".")[0] for name in found}
    return next((places for places in _PLACES if stems and stems <= {str(place) for place in places}), None)


def _refuse(path: Path, found: Mapping[str, Tensor], expected: Shapes) -> None:
    """Refuse weights whose names or shapes are not those expected.

    Raises:
        InputError: they are not; what differs is listed.
    """
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    parts = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
        "of another shape": shapes,
    }
    listed = [
        f"{what}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for what, names in parts.items()
        if names
    ]
    if listed:
        raise InputError(f"weights: {path} does not hold what SubCell's files hold; {'; '.join(listed)}")


def _variant(n_channels: int, given: str | None, encoder: Path, folder: Path) -> str:
    """Which variant weights of so many channels are.

    Raises:
        InputError: there is none, or another one is given.
    """
    fitting = [variant for variant in SUBCELL_VARIANTS if len(variant) == n_channels]
    if not fitting:
        raise InputError(
            f"weights: {encoder} reads {n_channels} channels; variants are {', '.join(SUBCELL_VARIANTS)}"
        )
    if given is not None:
        if given not in fitting:
            raise InputError(
                f"weights: channels {given}, but {encoder} reads {n_channels}: {' or '.join(fitting)}"
            )
        return given
    if len(fitting) == 1:
        return fitting[0]
    # From the file's name outwards, as the authors lay models out: models/rbg/NAME/encoder.pth.
    for path in (encoder.absolute(), folder.absolute()):
        for part in (path.stem, *reversed(path.parts[:-1])):
            named = [variant for variant in fitting if variant in re.split(r"[^a-z]+", part.lower())]
            if len(named) == 1:
                log.info(f"weights: variant {named[0]}, as {path} says; --channels says otherwise")
                return named[0]
    log.warning(
        f"weights: {encoder} reads 3 channels, and nothing tells which; taken for {fitting[0]} "
        f"(microtubules, nucleus, protein): give --channels {fitting[1]} if the first is ER"
    )
    return fitting[0]


def _refuse_other(folder: Path, settings: TrainSettings) -> None:
    """Refuse a folder that holds another member than earlier weights of the same variant.

    Raises:
        InputError: it does, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"weights: {folder} is a file; expected a folder to write")
    if (folder / BEST).is_file():
        before = settings_of(checkpoint_file(folder)).backbone
        if before != settings.backbone:
            raise InputError(
                f"weights: {folder} holds {before}; give {settings.backbone} a folder of its own"
            )
