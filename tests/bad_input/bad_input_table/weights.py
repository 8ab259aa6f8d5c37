"""Checkpoints, pretrained weights and published networks that cannot be used."""

import json
import os
import pickle
import struct
import zipfile

from bad_input_table.case import INFER, TRAIN, Case
from bad_input_table.world import World

GROUP = "Weights and checkpoints"
DAMAGED = "checkpoint: …best.safetensors is damaged or no safetensors file: …"
MORE = (
    "pretrained: …file cannot be read as named tensors: it asks to build more than tensors, "
    "which may run code; give a state dict or safetensors"
)
CONVERT = "weights convert {file} {out}.safetensors"
PRETRAINED = TRAIN + " --pretrained {file}"


class Runs:
    """Unpickled by pickle itself, this makes a file named ``ran``."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of that header, which may lie about its own length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _checkpoint(content: bytes):
    return lambda world: world.checkpoint(content)


def _cut(world: World) -> None:
    path = world.checkpoint()
    os.truncate(path, path.stat().st_size // 2)


def _of_settings(settings: object, state: object = None):
    """A checkpoint of the kit's form whose metadata say something else."""
    metadata = {
        "hpa_kit": "hpa_kit checkpoint 1",
        "version": "0",
        "settings": settings if isinstance(settings, str) else json.dumps(settings),
        "state": state if isinstance(state, str) else json.dumps(state or {"model": {}}),
    }
    return _checkpoint(safetensors({"__metadata__": metadata}))


def _torch_zip(head: bytes, members: dict[str, bytes], compress: int = zipfile.ZIP_STORED):
    def make(world: World) -> None:
        with zipfile.ZipFile(world["file"], "w", compress) as archive:
            archive.writestr("archive/data.pkl", head)
            for name, content in members.items():
                archive.writestr(name, content)

    return make


def _of_other_network(world: World) -> None:
    import torch

    torch.save({"conv1.weight": torch.zeros(3, 3)}, world["file"])


def _whole_module(world: World) -> None:
    import torch

    torch.save(torch.nn.Linear(2, 2), world["file"])


RUN = {"data": "data", "out": "run", "backbone": "resnet10t", "stride": 16, "size": 32}
PICKLE = pickle.dumps(Runs())
CASES = (
    Case(
        GROUP,
        "a member that is missing",
        lambda w: (w["member"] / "best.safetensors").unlink(),
        INFER,
        "checkpoint: …member holds no best.safetensors; expected a run of hpa-kit train with an epoch "
        "or more",
    ),
    Case(GROUP, "a checkpoint of 0 bytes", _checkpoint(b""), INFER, DAMAGED),
    Case(GROUP, "a truncated checkpoint", _cut, INFER, DAMAGED),
    Case(GROUP, "a pickle named safetensors", _checkpoint(PICKLE), INFER, DAMAGED),
    Case(
        GROUP,
        "safetensors whose header claims 2^63 bytes",
        _checkpoint(safetensors({}, length=2**63)),
        INFER,
        DAMAGED,
    ),
    Case(
        GROUP,
        "safetensors whose tensor lies outside the file",
        _checkpoint(safetensors({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})),
        INFER,
        DAMAGED,
    ),
    Case(
        GROUP,
        "safetensors whose tensors overlap",
        _checkpoint(
            safetensors({n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}, bytes(4))
        ),
        INFER,
        DAMAGED,
    ),
    Case(
        GROUP,
        "safetensors of another program",
        _checkpoint(safetensors({"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, bytes(4))),
        INFER,
        "checkpoint: …best.safetensors was not written by hpa-kit train; expected 'hpa_kit checkpoint 1'",
    ),
    Case(GROUP, "a checkpoint whose settings are a list", _of_settings([1, 2]), INFER, DAMAGED),
    Case(
        GROUP,
        "a checkpoint of settings that this version does not know",
        _of_settings({**RUN, "colour": 1}),
        INFER,
        "checkpoint: …best.safetensors: unknown setting 'colour'…",
    ),
    Case(
        GROUP,
        "a checkpoint whose state is nested 100,000 deep",
        _of_settings(RUN, "[" * 100_000 + "]" * 100_000),
        INFER,
        DAMAGED,
    ),
    Case(
        GROUP,
        "a checkpoint whose weights are no tensors",
        _of_settings(RUN, {"model": [1, 2]}),
        INFER,
        "checkpoint: …best.safetensors is damaged or no safetensors file: its model holds no named tensors",
    ),
    Case(
        GROUP,
        "a checkpoint without weights",
        _of_settings(RUN),
        INFER,
        "checkpoint: …best.safetensors does not fit the network of its settings: …",
    ),
    Case(
        GROUP,
        "a checkpoint of a backbone that is none",
        _of_settings({**RUN, "backbone": "resnet11x"}),
        INFER,
        "checkpoint: …best.safetensors: backbone: timm … has no model 'resnet11x'…",
    ),
    Case(
        GROUP,
        "a checkpoint that claims a network of a million million weights",
        _of_settings({**RUN, "network": "arcface", "arcface_centres": 10**9}),
        "features {data} --member {member} --out {out} --device cpu",
        "checkpoint: …best.safetensors: arcface_centres: …",
    ),
    Case(
        GROUP,
        "a damaged checkpoint to go on from",
        lambda w: (w["out"].mkdir(), (w["out"] / "last.safetensors").write_bytes(b"half")),
        TRAIN,
        "checkpoint: …last.safetensors is damaged or no safetensors file: …",
    ),
    Case(
        GROUP,
        "a run to go on from that is missing",
        lambda w: w["folder"].mkdir(),
        TRAIN + " --resume-from {folder}",
        "resume_from: …folder holds no last.safetensors; expected the run folder of an earlier hpa-kit train",
    ),
    Case(
        GROUP,
        "pretrained weights that are missing",
        lambda w: None,
        PRETRAINED,
        "pretrained: …file is missing; give a local weights file or the word download",
    ),
    Case(
        GROUP,
        "pretrained weights that would run code",
        lambda w: w.write("file", PICKLE),
        PRETRAINED,
        MORE,
    ),
    Case(
        GROUP,
        "pretrained weights of another network",
        _of_other_network,
        PRETRAINED,
        "pretrained: …file does not fit the backbone; missing: …",
    ),
    Case(
        GROUP,
        "pretrained weights that are a whole module",
        _whole_module,
        PRETRAINED,
        MORE,
    ),
    Case(
        GROUP,
        "pretrained weights that are packed to a thousandth",
        _torch_zip(b"", {"archive/data/0": bytes(10_000_000)}, zipfile.ZIP_DEFLATED),
        PRETRAINED,
        "pretrained: …file cannot be read as named tensors: it unpacks to 10000000 bytes; torch's files "
        "are not packed",
    ),
    Case(
        GROUP,
        "pretrained weights of 0 bytes",
        lambda w: w.write("file", b""),
        PRETRAINED,
        "pretrained: …file cannot be read as named tensors: …",
    ),
    Case(
        GROUP,
        "a folder in the place of pretrained weights",
        lambda w: w["file"].mkdir(),
        PRETRAINED,
        "pretrained: …file is missing; give a local weights file or the word download",
    ),
    Case(
        GROUP,
        "published weights that are missing",
        lambda w: None,
        CONVERT,
        "weights: …file is missing; to be had from Zenodo record 4665863 …; nothing is downloaded",
    ),
    Case(
        GROUP,
        "published weights that would run code",
        _torch_zip(PICKLE, {}),
        CONVERT,
        "weights: …file asks to run posix.system; weights need no code: nothing of the file was run",
    ),
    Case(
        GROUP,
        "published weights that would run code, in the older form",
        lambda w: w.write("file", PICKLE),
        CONVERT,
        "weights: …file asks to run posix.system; weights need no code: nothing of the file was run",
    ),
    Case(
        GROUP,
        "published weights of another network",
        _of_other_network,
        CONVERT,
        "weights: …file: not the weights of HPA-Cell-Segmentation's network: … is missing; …",
    ),
    Case(
        GROUP,
        "published weights in a zip that unpacks to more",
        _torch_zip(b"", {"archive/data/0": bytes(10_000_000)}, zipfile.ZIP_DEFLATED),
        CONVERT,
        "weights: …file holds compressed members, which torch does not write",
    ),
    Case(
        GROUP,
        "text named pth",
        lambda w: w.write("file", "weights"),
        CONVERT,
        "weights: …file is damaged or no file of torch's (…)",
    ),
    Case(
        GROUP,
        "a folder in the place of published weights",
        lambda w: w["file"].mkdir(),
        CONVERT,
        "weights: …file is missing; …",
    ),
    Case(
        GROUP,
        "a folder without published networks",
        lambda w: w["folder"].mkdir(),
        "segment {data} --out {out} --segmenter published --weights {folder}",
        "weights: no nuclei network in …folder; expected …",
    ),
    Case(
        GROUP,
        "converted weights of another name",
        _of_other_network,
        "weights convert {file} {out}.pth",
        "weights: …out.pth should be named .safetensors",
    ),
)
