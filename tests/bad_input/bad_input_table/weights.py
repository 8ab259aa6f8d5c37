"""Members and checkpoints that cannot be used."""

import json
import os
import pickle
import struct

from bad_input_table.case import INFER, TRAIN, Case
from bad_input_table.world import World

GROUP = "Members and checkpoints"
DAMAGED = "checkpoint: …best.safetensors is damaged or no safetensors file: …"


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


RUN = {"data": "data", "out": "run", "backbone": "test_resnet", "stride": 16, "size": 32}


def _best_as_last(world: World) -> None:
    """A checkpoint of the best weights where one to go on from belongs, of the same settings."""
    from hpa_kit.config import TrainSettings
    from hpa_kit.training.checkpoint import LAST, write_checkpoint

    settings = TrainSettings(
        data=world["data"], out=world["out"], backbone="test_resnet", size=32, stride=8, epochs=1, batch=3,
        folds=2, workers=0, device="cpu",
    )  # fmt: skip
    write_checkpoint(world["out"] / LAST, settings, {"model": {}, "epoch": 1, "metrics": {}})


def _half_and(name: str):
    """A damaged member, and something of an earlier command that it is not to touch."""

    def make(world: World) -> None:
        world.checkpoint(b"half")
        (world.root / name).write_bytes(b"of another run")

    return make


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
    Case(GROUP, "a damaged member, where a submission of before is kept", _half_and("out"), INFER, DAMAGED),
    Case(
        GROUP,
        "a damaged member, where results of a run before are kept",
        _half_and(".out.partial"),
        INFER,
        DAMAGED,
    ),
    Case(
        GROUP,
        "a checkpoint whose metrics are a list",
        _of_settings(RUN, {"model": {}, "metrics": [1]}),
        INFER,
        DAMAGED + "its metrics are no names and values",
    ),
    Case(
        GROUP,
        "a checkpoint to go on from that has no history",
        _best_as_last,
        TRAIN,
        "checkpoint: …last.safetensors lacks step_number, best, history, fields, which going on needs; "
        "delete it to start anew",
    ),
    Case(
        GROUP,
        "a checkpoint whose tensors are not in the file",
        _of_settings(RUN, {"model": {"x": {"<tensor>": "nowhere"}}}),
        INFER,
        DAMAGED,
    ),
    Case(
        GROUP,
        "a network without class maps",
        _of_settings({**RUN, "network": "arcface"}),
        INFER,
        "checkpoint: …best.safetensors is a network arcface…; expected cam or unet or crops",
    ),
)
