"""Pretrained weights and published networks that cannot be used."""

import zipfile

from bad_input_table.case import TRAIN, Case, nothing
from bad_input_table.weights import PICKLE
from bad_input_table.world import World

GROUP = "Weights of others"
CONVERT = "weights convert {file} {out}.safetensors"
PRETRAINED = TRAIN + " --pretrained {file}"
MORE = (
    "pretrained: …file cannot be read as named tensors: it asks to build more than tensors, "
    "which may run code; give a state dict or safetensors"
)


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


CASES = (
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
        "pretrained: …file is a folder without best.safetensors; give a local weights file, a folder of "
        "SubCell, or the word download",
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
        "a classifier in the place of networks that find cells",
        nothing,
        "segment {data} --out {out} --segmenter published --weights {member}",
        "weights: …is a network cam, which finds no cells; expected a run of --network cells",
    ),
    Case(
        GROUP,
        "networks that find cells, to be learnt from no label maps",
        nothing,
        "train {data} --network cells --out {out}",
        "train: network cells needs masks, a folder of label maps, which it learns",
    ),
    Case(
        GROUP,
        "networks that find cells, to be learnt from label maps of other fields",
        lambda w: w["folder"].mkdir(),
        "train {data} --network cells --masks {folder} --out {out}",
        "masks: …folder has no label map of any of the … fields of …; hpa-kit segment makes them, of "
        "training fields with --split train",
    ),
    Case(
        GROUP,
        "converted weights of another name",
        _of_other_network,
        "weights convert {file} {out}.pth",
        "weights: …out.pth should be named .safetensors",
    ),
)
