"""The original package as a segmenter, with a package of the same call shape in its place."""

import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn

from hpa_kit.cells import original
from hpa_kit.cells.original import OriginalSegmenter
from hpa_kit.errors import InputError

# As the original does, these modules use what numpy 2, scikit-image 0.19 and OpenCV took away or never had.
SEGMENTATOR = """
import cv2
import numpy as np
import torch
from skimage import transform


class CellSegmentator:
    def __init__(self, nuclei_model, cell_model, scale_factor=0.25, device="cuda", padding=False,
                 multi_channel_model=True):
        assert not isinstance(nuclei_model, str), "would unpickle or download"
        assert padding and multi_channel_model
        self.nuclei_model, self.cell_model = nuclei_model.to(device), cell_model.to(device)
        self.scale_factor = scale_factor

    def _predict(self, model, image):
        rows, cols = image.shape[:2]
        image = transform.rescale(image, self.scale_factor, multichannel=True)
        with torch.no_grad():
            maps = model(torch.tensor(image.transpose(2, 0, 1)[None]).float())[0].numpy()
        maps = (maps.transpose(1, 2, 0) * 255).astype(np.uint8)
        return cv2.resize(maps, (rows, cols), interpolation=cv2.INTER_AREA)

    def pred_nuclei(self, images):
        return [self._predict(self.nuclei_model, np.dstack([image] * 3)) for image in images]

    def pred_cells(self, images, precombined=False):
        return [self._predict(self.cell_model, np.dstack(planes)) for planes in zip(*images)]
"""
UTILS = """
import numpy as np
import scipy.ndimage as ndi
from skimage.morphology import remove_small_holes, remove_small_objects


def label_cell(nuclei_pred, cell_pred):
    cells = (cell_pred[..., 2] / 255.0 > 0.5).astype(np.bool)
    cells = remove_small_objects(remove_small_holes(cells, 100), 150)
    cells = ndi.label(cells)[0].astype(np.uint8)
    nuclei = (nuclei_pred[..., 2] / 255.0 > 0.5).astype(np.bool)
    return nuclei * cells, cells
"""


class Bright(nn.Module):
    """Foreground where a channel is bright."""

    def __init__(self, channel):
        super().__init__()
        self.channel = channel

    def forward(self, x):
        bright = x[:, self.channel]
        return torch.stack([0 * bright, 0 * bright, bright], 1)


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "hpacellseg").mkdir()
    for name, text in {"__init__": "", "cellsegmentator": SEGMENTATOR, "utils": UTILS}.items():
        (tmp_path / "hpacellseg" / f"{name}.py").write_text(text)
        full = f"hpacellseg.{name}".removesuffix(".__init__")
        monkeypatch.setitem(sys.modules, full, None)  # put back after the test, whatever was imported
        del sys.modules[full]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(original, "find_weights", lambda folder: {"nuclei": 2, "cells": 0})
    monkeypatch.setattr(original, "load_published_network", Bright)
    import hpacellseg.cellsegmentator
    import hpacellseg.utils

    return hpacellseg


def names_of(package):
    modules = {"cellsegmentator": ("transform", "cv2"), "utils": ("np", "remove_small_objects")}
    found = {(m, name): getattr(getattr(package, m), name) for m, names in modules.items() for name in names}
    return found | {"holes": package.utils.remove_small_holes}


def drawn(shape, *boxes):
    """A field with a square cell at each place, its nucleus in the middle."""
    field = np.zeros((4, *shape), np.uint8)
    for top, left in boxes:
        field[[0, 3], top : top + 40, left : left + 40] = 250
        field[2, top + 12 : top + 28, left + 12 : left + 28] = 250
    return field


@pytest.mark.parametrize("shape", [(96, 96), (96, 200), (200, 96)])
def test_todays_libraries_serve_the_package_on_fields_of_any_shape(package, shape):
    nuclei, cells = OriginalSegmenter("weights")(drawn(shape, (8, 8), (shape[0] - 44, shape[1] - 44)))
    assert nuclei.shape == cells.shape == shape
    assert nuclei.dtype == cells.dtype == np.int32
    assert cells.max() == nuclei.max() == 2
    assert cells[28, 28] == nuclei[28, 28] == 1
    assert cells[shape[0] - 24, shape[1] - 24] == nuclei[shape[0] - 24, shape[1] - 24] == 2


def test_small_flecks_and_holes_go_by_the_originals_limits(package):
    field = drawn((96, 96), (8, 8))
    field[0, 24:32, 24:32] = 0  # 64 pixels: below the limit of 100
    field[0, 80:92, 80:92] = 250  # 144 pixels: below the limit of 150
    cells = OriginalSegmenter("weights")(field)[1]
    assert cells.max() == 1
    assert cells[28, 28] == 1
    assert cells[86, 86] == 0


def test_nothing_of_the_stand_ins_is_left_after_a_call_even_one_that_fails(package, monkeypatch):
    before = names_of(package)
    found = OriginalSegmenter("weights")
    assert names_of(package) == before
    found(drawn((96, 96), (8, 8)))
    assert names_of(package) == before
    monkeypatch.setattr(found._segmentator, "pred_cells", lambda images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found(drawn((96, 96), (8, 8)))
    assert names_of(package) == before
    assert not hasattr(np, "bool") or np.bool is np.bool_


def test_calls_from_several_threads_put_everything_back(package):
    before, found = names_of(package), OriginalSegmenter("weights")
    counts = []
    work = lambda: counts.extend(cells.max() for _, cells in found.stream([drawn((64, 64), (8, 8))] * 3))  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 9
    assert names_of(package) == before


def test_several_fields_give_a_list_and_no_field_but_four_channels_is_taken(package):
    found = OriginalSegmenter("weights")
    pairs = found([drawn((64, 80), (8, 8)), drawn((80, 64))])
    assert [cells.shape for _, cells in pairs] == [(64, 80), (80, 64)]
    with pytest.raises(InputError, match=r"\(3, 64, 64\)"):
        found(np.zeros((3, 64, 64), np.uint8))


def test_without_the_package_the_error_names_the_segmenter_that_needs_none(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "hpacellseg", None)
    with pytest.raises(InputError, match="hpacellseg cannot be imported.*published") as error:
        OriginalSegmenter(tmp_path)
    assert "./build_dataset.sh --hpacellseg PATH" in str(error.value)
