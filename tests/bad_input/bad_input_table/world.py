"""A small whole competition with everything that commands take, for a case to damage."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

CHANNELS = ("red", "green", "blue", "yellow")
SIDE = 48
TRAIN = ("f0", "f1", "f2", "f3")
TEST = ("t0", "t1")


@dataclass(frozen=True)
class World:
    """Paths below one folder; all but ``out``, ``file`` and ``yaml`` are there."""

    root: Path

    @property
    def paths(self) -> dict[str, Path]:
        """What stands for each name in a command."""
        names = {
            "data": "data", "train": "data/train", "test": "data/test", "labels": "data/train.csv",
            "sample": "data/sample_submission.csv", "truth": "data/truth.csv", "masks": "masks",
            "member": "member", "submission": "submission.csv", "features": "features.npz",
            "ensemble": "ensemble.yaml", "yaml": "settings.yaml", "out": "out", "file": "file",
            "folder": "folder",
        }  # fmt: skip
        return {name: self.root / place for name, place in names.items()}

    def __getitem__(self, name: str) -> Path:
        return self.paths[name]

    def image(self, id: str = "f0", channel: str = "green", ending: str = ".png") -> Path:
        """A channel's file of a training or test field."""
        return self["train" if id in TRAIN else "test"] / f"{id}_{channel}{ending}"

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text in a file."""
        text = self[name].read_text()
        assert old in text
        self[name].write_text(text.replace(old, new, 1))

    def write(self, name: str, content: bytes | str) -> None:
        """Put other content into a file."""
        self[name].write_bytes(content.encode() if isinstance(content, str) else content)

    def copy(self, root: Path) -> "World":
        """All of it in another folder; only the member, whose file is large, stays a link to the first."""
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns("member"))
        (root / "member").mkdir()
        (root / "member" / "best.safetensors").symlink_to(self["member"] / "best.safetensors")
        return World(root)

    def checkpoint(self, content: bytes | None = None) -> Path:
        """The member's file, its own and no link, with its content or another."""
        path = self["member"] / "best.safetensors"
        content = path.read_bytes() if content is None else content
        path.unlink()
        path.write_bytes(content)
        return path


def make_world(root: Path) -> World:
    """Write a whole world."""
    world = World(root)
    rng = np.random.default_rng(0)
    for split, ids in (("train", TRAIN), ("test", TEST)):
        world[split].mkdir(parents=True)
        for id in ids:
            for channel in CHANNELS:
                plane = rng.integers(0, 255, (SIDE, SIDE), dtype=np.uint8)
                cv2.imwrite(str(world[split] / f"{id}_{channel}.png"), plane)
    world["labels"].write_text("ID,Label\nf0,0\nf1,7|16\nf2,0\nf3,16\n")
    _write_masks(world)
    _write_tables(world)
    _write_member(world)
    world["ensemble"].write_text("members:\n  - checkpoint: member\n")
    np.savez(
        world["features"],
        ids=np.array(TRAIN),
        features=rng.random((len(TRAIN), 3), np.float32),
        source=np.array("a network"),
    )
    return world


def cells() -> np.ndarray:
    """Four cells of one field."""
    y, x = np.mgrid[:SIDE, :SIDE]
    inside = (y % 24 > 2) & (x % 24 > 2)
    return np.where(inside, y // 24 * 2 + x // 24 + 1, 0).astype(np.int32)


def _write_masks(world: World) -> None:
    from hpa_kit.cells import LabelMaps, write_label_maps

    found = cells()
    for id in (*TRAIN, *TEST):
        write_label_maps(world["masks"] / f"{id}.npz", LabelMaps(found, found))


def _write_tables(world: World) -> None:
    from hpa_kit.submission import encode_label_map, write_submission

    masks = encode_label_map(cells())
    write_submission(world["sample"], [(id, SIDE, SIDE, "") for id in TEST])
    write_submission(world["truth"], [(id, SIDE, SIDE, f"0 {masks[1]}") for id in TEST])
    rows = [(id, SIDE, SIDE, f"0 0.5 {masks[1]} 7 0.25 {masks[2]}") for id in TEST]
    write_submission(world["submission"], rows)


def _write_member(world: World) -> None:
    import torch

    from hpa_kit.config import TrainSettings
    from hpa_kit.training.checkpoint import BEST, write_checkpoint
    from hpa_kit.training.member import build_network

    torch.manual_seed(0)
    settings = TrainSettings(data="data", out="run", backbone="test_resnet", stride=16, size=32)
    state = {"model": build_network(settings).state_dict(), "epoch": 1}
    write_checkpoint(world["member"] / BEST, settings, state)
