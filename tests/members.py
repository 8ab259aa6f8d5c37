"""Members and competitions small enough for a test."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from written_fields import write_field

from hpa_kit.cells import LabelMaps, write_label_maps
from hpa_kit.config import TrainSettings
from hpa_kit.submission import write_submission

MakeMember = Callable[..., Path]


@pytest.fixture(scope="session")
def make_member(tmp_path_factory: pytest.TempPathFactory) -> MakeMember:
    """Writes the run folder of an untrained member whose scores are spread around a half."""

    import torch

    from hpa_kit.training.checkpoint import BEST, write_checkpoint
    from hpa_kit.training.member import build_network

    def make(
        size: int = 64, seed: int = 0, in_channels: int = 4, spread: float = 0.3, **options: object
    ) -> Path:
        torch.manual_seed(seed)
        run = tmp_path_factory.mktemp("run")
        settings = TrainSettings(
            data="data",
            out=run,
            backbone="test_resnet",
            stride=16,
            size=size,
            in_channels=in_channels,
            **options,
        )
        model = build_network(settings)
        torch.nn.init.normal_(model.head.weight, std=spread)
        write_checkpoint(run / BEST, settings, {"model": model.state_dict(), "epoch": 1})
        return run

    return make


@pytest.fixture(scope="session")
def make_segmenter(tmp_path_factory: pytest.TempPathFactory) -> MakeMember:
    """Writes the run folder of an untrained segmentation network."""
    pytest.importorskip("segmentation_models_pytorch")

    import torch

    from hpa_kit.training.checkpoint import BEST, write_checkpoint
    from hpa_kit.training.member import build_network

    def make(size: int = 64, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        run = tmp_path_factory.mktemp("run")
        settings = TrainSettings(
            data="data", out=run, network="unet", pseudo_labels="labels", backbone="test_resnet", size=size
        )
        model = build_network(settings)
        for name, weight in model.named_parameters():
            if "segmentation_head" in name:
                torch.nn.init.normal_(weight, std=1.5)
        write_checkpoint(run / BEST, settings, {"model": model.state_dict(), "epoch": 1})
        return run

    return make


@pytest.fixture(scope="session")
def make_crop_member(tmp_path_factory: pytest.TempPathFactory) -> MakeMember:
    """Writes the run folder of an untrained network of crops whose logits are spread around 0."""
    import torch

    from hpa_kit.training.checkpoint import BEST, write_checkpoint
    from hpa_kit.training.member import build_network

    def make(size: int = 64, seed: int = 0, side: int = 32, **changes: object) -> Path:
        torch.manual_seed(seed)
        run = tmp_path_factory.mktemp("run")
        settings = TrainSettings(
            data="data", out=run, network="crops", masks="masks", backbone="test_resnet", stride=8,
            size=size, crop_size=side, **changes,
        )  # fmt: skip
        model = build_network(settings)
        torch.nn.init.normal_(model.head[-1].weight, std=0.5)
        write_checkpoint(run / BEST, settings, {"model": model.state_dict(), "epoch": 1})
        return run

    return make


@pytest.fixture(scope="session")
def make_subcell(tmp_path_factory: pytest.TempPathFactory) -> MakeMember:
    """Converts the files of a small SubCell of random weights."""
    from subcell import write_files

    from hpa_kit.training.subcell_weights import convert_subcell

    def make(channels: str = "rybg", out: Path | None = None, **options: object) -> Path:
        folder = tmp_path_factory.mktemp("subcell")
        encoder, *classifiers = write_files(folder / channels, channels)
        return convert_subcell(encoder, classifiers, out or folder / "member", **options)

    return make


@pytest.fixture(scope="session")
def subcell(make_subcell: MakeMember) -> Path:
    """The folder of one SubCell, of all four channels."""
    return make_subcell(licence="MIT")


@pytest.fixture(scope="session")
def crop_member(make_crop_member: MakeMember) -> Path:
    """The run folder of one network of crops."""
    return make_crop_member()


@pytest.fixture(scope="session")
def member(make_member: MakeMember) -> Path:
    """The run folder of one member."""
    return make_member()


class Competition:
    """A data folder that a test fills field by field, with label maps beside it."""

    def __init__(self, root: Path) -> None:
        self.root, self.masks = root, root / "label_maps"
        self.test = root / "test"
        self.test.mkdir(parents=True)
        self.masks.mkdir()
        self.sizes: dict[str, tuple[int, int]] = {}

    def add(self, id: str, cells: NDArray[np.int32], seed: int = 0) -> None:
        """Write a field whose channels are bright in its cells, and its label maps."""
        write_field(self.test, id, cells, seed)
        nuclei = cv2.erode((cells > 0).astype(np.uint8), np.ones((9, 9))) * cells
        write_label_maps(self.masks / f"{id}.npz", LabelMaps(nuclei.astype(np.int32), cells))
        self.sizes[id] = cells.shape

    def write_sample(self, ids: Sequence[str] | None = None) -> None:
        """Write the sample submission, of all fields or of ``ids``; sizes unknown are 80 x 80."""
        names = list(self.sizes) if ids is None else ids
        rows = [(id, *self.sizes.get(id, (80, 80))[::-1], "") for id in names]
        write_submission(self.root / "sample_submission.csv", rows)


@pytest.fixture
def competition(tmp_path: Path) -> Competition:
    """A data folder without fields."""
    return Competition(tmp_path / "data")


def grid(height: int, width: int, step: int) -> NDArray[np.int32]:
    """Cells in a grid, one every ``step`` pixels, with two pixels between them."""
    y, x = np.mgrid[:height, :width]
    number = y // step * -(-width // step) + x // step + 1
    return np.where((y % step >= 2) & (x % step >= 2), number, 0).astype(np.int32)


@pytest.fixture
def cells() -> Callable[[int, int, int], NDArray[np.int32]]:
    """Label maps of cells in a grid: height, width, step."""
    return grid
