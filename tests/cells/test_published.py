import numpy as np
import pytest
import torch
from skimage.transform import rescale
from torch import nn

from hpa_kit.cells import published
from hpa_kit.cells.networks import MEAN, STD, CellNetworks
from hpa_kit.cells.published import PublishedSegmenter, network_input
from hpa_kit.errors import InputError


class StandIn(nn.Module):
    """Foreground where the image is bright, as a network that has learnt it would say."""

    def __init__(self, channel):
        super().__init__()
        self.channel = channel
        self.sizes = []

    def forward(self, x):
        assert x.shape[2] % 32 == x.shape[3] % 32 == 0
        self.sizes.append(tuple(x.shape))
        bright = x[:, self.channel] * STD + MEAN[self.channel]
        return torch.stack([0 * bright, 0 * bright - 9, 40 * (bright - 0.5)], 1)


@pytest.fixture
def segmenter(monkeypatch):
    monkeypatch.setattr(published, "load_networks", lambda folder: CellNetworks(StandIn(2), StandIn(0)))
    return PublishedSegmenter("weights", batch=2)


def field(shape, centres, nucleus=60, cell=150):
    """A field with round cells; sizes in pixels of a 2048 px field."""
    unit = (shape[0] * shape[1]) ** 0.5 / 2048
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = np.min([np.hypot(y - cy * shape[0], x - cx * shape[1]) for cy, cx in centres], axis=0)
    image = np.zeros((4, *shape), np.uint8)
    image[2] = 250 * (distance < nucleus * unit)
    image[0] = image[3] = 250 * (distance < cell * unit)
    return image


CENTRES = [(0.2, 0.2), (0.2, 0.7), (0.75, 0.3), (0.7, 0.9)]


@pytest.mark.parametrize(
    "shape", [(2048, 2048), (512, 512), (300, 500), (1000, 1001), (1728, 1730), (128, 128)]
)
def test_a_field_of_any_size_shows_the_same_cells(segmenter, shape):
    nuclei, cells = segmenter(field(shape, CENTRES))
    assert nuclei.shape == cells.shape == shape
    assert cells.max() == nuclei.max() == 4
    assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()
    y, x = np.nonzero(cells == cells[int(0.7 * shape[0]), int(0.9 * shape[1])])
    assert abs(y.mean() / shape[0] - 0.7) < 0.03
    assert abs(x.mean() / shape[1] - 0.89) < 0.03


def test_the_smallest_fields_come_back_in_their_size(segmenter):
    for shape in ((33, 47), (1, 1), (64, 3)):
        nuclei, cells = segmenter(np.zeros((4, *shape), np.uint8))
        assert nuclei.shape == cells.shape == shape
        assert cells.max() == 0


def test_fields_of_one_size_share_a_batch_and_keep_their_order(segmenter):
    shapes = [(256, 256), (200, 300), (256, 256), (256, 256), (200, 300)]
    fields = [field(shape, CENTRES[: k % 3 + 1]) for k, shape in enumerate(shapes)]
    pairs = segmenter(fields)
    assert [cells.shape for _, cells in pairs] == shapes
    assert [cells.max() for _, cells in pairs] == [1, 2, 3, 1, 2]
    batches = [size[0] for size in segmenter.nuclei_network.sizes]
    assert sorted(batches) == [1, 1, 1, 2]


def test_an_empty_field_beside_a_normal_one_is_empty(segmenter):
    empty, normal = segmenter([np.zeros((4, 256, 256), np.uint8), field((256, 256), CENTRES)])
    assert empty[1].max() == empty[0].max() == 0
    assert normal[1].max() == 4


def test_many_fields_stream_without_piling_up(segmenter):
    drawn = 0

    def fields():
        nonlocal drawn
        for _ in range(40):
            drawn += 1
            yield np.zeros((4, 64, 64), np.uint8)

    stream = segmenter.stream(fields())
    next(stream)
    assert drawn <= 12
    assert len(list(stream)) == 39


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["GPU", "CPU", "numpy"])
def test_out_of_memory_halves_the_batch(segmenter, error):
    whole = segmenter.nuclei_network.forward

    def forward(x):
        if len(x) > 1:
            raise error
        return whole(x)

    segmenter.nuclei_network.forward = forward
    pairs = segmenter([field((256, 256), CENTRES)] * 3)
    assert [cells.max() for _, cells in pairs] == [4, 4, 4]
    assert segmenter.batch == 1


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["GPU", "CPU", "numpy"])
def test_memory_too_small_for_one_field_is_said_in_one_line(segmenter, error):
    def forward(x):
        raise error

    segmenter.nuclei_network.forward = forward
    with pytest.raises(InputError, match="cpu has too little memory for one field of 512 x 512 pixels"):
        segmenter(field((256, 256), CENTRES))


def test_other_faults_of_a_network_are_not_taken_for_memory(segmenter):
    def forward(x):
        raise RuntimeError("shapes do not match")

    segmenter.nuclei_network.forward = forward
    with pytest.raises(RuntimeError, match="shapes do not match"):
        segmenter(field((256, 256), CENTRES))


def test_fields_are_reduced_as_the_original_package_reduces_them():
    image = np.random.default_rng(0).integers(0, 256, (4, 2048, 1800), dtype=np.uint8)
    reduced = network_input(image)
    assert reduced.dtype == np.float32
    assert np.abs(reduced[1] - rescale(image[3], 0.25)).max() < 1e-5


def test_a_field_without_pixels_and_one_of_another_kind(segmenter):
    nuclei, cells = segmenter(np.zeros((4, 0, 9), np.uint8))
    assert nuclei.shape == cells.shape == (0, 9)
    with pytest.raises(InputError, match="uint8"):
        segmenter([np.zeros((4, 64, 64), np.uint16)])


def test_settings_tell_weights_apart_and_not_files():
    one, same, other = (nn.Conv2d(3, 3, 1) for _ in range(3))
    same.load_state_dict(one.state_dict())
    assert published.fingerprint(one, other) == published.fingerprint(same, other)
    assert published.fingerprint(one, one) != published.fingerprint(one, other)


def test_a_field_without_cells_is_said(segmenter, caplog):
    segmenter(np.zeros((4, 64, 64), np.uint8))
    assert "no cell in a field of 64 x 64 pixels" in caplog.text
