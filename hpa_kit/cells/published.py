"""The published networks as a segmenter: field -> network maps -> label maps."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpa_kit.cells.dpn_unet import STRIDE
from hpa_kit.cells.label_step import SMALLEST_FULL_SIDE, label_cells
from hpa_kit.cells.weights import find_weights, load_published_network

Field = NDArray[np.uint8]
LabelMap = NDArray[np.int32]
Maps = tuple[NDArray[np.uint8], NDArray[np.uint8]]

SCALE = 0.25
# Side of a 2048 px field at the network's scale; fields below full size are enlarged or reduced to it.
NETWORK_SIDE = 512
PADDING = 32
MEAN = (124 / 255, 117 / 255, 104 / 255)
STD = 1 / (0.0167 * 255)


class PublishedSegmenter:
    """HPA-Cell-Segmentation's two networks and its label step.

    Args:
        weights: folder with both weights files, see :func:`~hpa_kit.cells.weights.find_weights`.
        device: ``cuda``, ``cpu`` or a torch device.
        batch: fields of one size that go through the networks together; halved when memory runs out.
        workers: threads of the label step, which runs while the next fields are in the networks.
        amp: half precision on a GPU.

    Raises:
        InputError: a weights file is missing or cannot be used.
    """

    name = "published"

    def __init__(
        self,
        weights: str | Path,
        device: str | torch.device = "cpu",
        batch: int = 4,
        workers: int = 2,
        amp: bool = True,
    ) -> None:
        self.device = torch.device(device)
        self.batch = batch
        self.workers = workers
        self.amp = amp and self.device.type == "cuda"
        found = find_weights(weights)
        self.nuclei_network = self._placed(load_published_network(found["nuclei"]))
        self.cell_network = self._placed(load_published_network(found["cells"]))

    def _placed(self, network: nn.Module) -> nn.Module:
        return network.to(self.device, memory_format=torch.channels_last)

    def __call__(
        self, fields: Field | Sequence[Field]
    ) -> tuple[LabelMap, LabelMap] | list[tuple[LabelMap, LabelMap]]:
        """One field uint8 (4, H, W) -> nuclei and cells, int32 (H, W); several -> a list of pairs."""
        if isinstance(fields, np.ndarray) and fields.ndim == 3:
            return next(self.stream([fields]))
        return list(self.stream(fields))

    def stream(self, fields: Iterable[Field]) -> Iterator[tuple[LabelMap, LabelMap]]:
        """Pairs of label maps for any number of fields of any sizes, in their order, a few in memory at a time."""
        remaining = iter(fields)
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: list[Future[tuple[LabelMap, LabelMap]]] = []
            # The label step of one window runs while the networks work on the next.
            while window := list(islice(remaining, 2 * self.batch)):
                following = self._submit(window, pool)
                yield from (future.result() for future in waiting)
                waiting = following
            yield from (future.result() for future in waiting)

    def _submit(
        self, window: list[Field], pool: ThreadPoolExecutor
    ) -> list[Future[tuple[LabelMap, LabelMap]]]:
        """Put a window's fields through the networks, those of one size together, and queue their label steps."""
        jobs: dict[int, Future[tuple[LabelMap, LabelMap]]] = {}
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, field in enumerate(window):
            by_size.setdefault(field.shape[1:], []).append(index)
        for size, indices in by_size.items():
            for start in range(0, len(indices), self.batch):
                group = indices[start : start + self.batch]
                for index, maps in zip(group, self.maps([window[index] for index in group]), strict=True):
                    jobs[index] = pool.submit(label_cells, *maps, size=size)
        return [jobs[index] for index in range(len(window))]

    def maps(self, fields: Sequence[Field]) -> list[Maps]:
        """The networks' maps of fields of one size.

        Returns:
            per field nuclei and cell map, uint8 (h, w, 3) at the network's scale: unused, border, foreground.
        """
        inputs = np.stack([network_input(field) for field in fields])
        try:
            nuclei = self._run(self.nuclei_network, inputs[:, [2, 2, 2]])
            cells = self._run(self.cell_network, inputs)
        except torch.OutOfMemoryError:
            if len(fields) == 1:
                raise
            torch.cuda.empty_cache()
            self.batch = len(fields) // 2
            return [*self.maps(fields[: self.batch]), *self.maps(fields[self.batch :])]
        return list(zip(nuclei, cells, strict=True))

    def _run(self, network: nn.Module, images: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Images float32 (B, 3, h, w) in [0, 1] -> uint8 (B, h, w, 3)."""
        height, width = images.shape[2:]
        x = _to_device(np.stack([_padded(image) for image in images]), self.device)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=self.amp):
            x = (x - x.new_tensor(MEAN)[:, None, None]) / STD
            logits = network(x.contiguous(memory_format=torch.channels_last))
        maps = (logits.float().softmax(1) * 255).round().to(torch.uint8)
        maps = maps[:, :, PADDING : PADDING + height, PADDING : PADDING + width].permute(0, 2, 3, 1)
        maps[..., 0] = 0
        return maps.contiguous().cpu().numpy()


def network_input(field: Field) -> NDArray[np.float32]:
    """Microtubules, ER and nuclei of a field at the networks' scale.

    Fields from side 1728 on are reduced by 4, as published; smaller ones are taken as reduced copies of a
    2048 px field and brought to 512 px, so that their cells have the size the networks know.

    Returns:
        float32 (3, h, w) in [0, 1].
    """
    height, width = field.shape[1:]
    side = float(np.sqrt(height * width))
    scale = SCALE if side >= SMALLEST_FULL_SIDE else NETWORK_SIDE / side
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([_rescaled(field[channel], size, scale) for channel in (0, 3, 2)])


def _rescaled(channel: NDArray[np.uint8], size: tuple[int, int], scale: float) -> NDArray[np.float32]:
    """Blur against aliasing, then bilinear: what scikit-image's ``rescale`` does by default."""
    image = channel.astype(np.float32) * np.float32(1 / 255)
    if scale < 1:
        sigma = (1 / scale - 1) / 2
        radius = int(4 * sigma + 0.5)
        image = cv2.GaussianBlur(image, (2 * radius + 1,) * 2, sigma, borderType=cv2.BORDER_REFLECT_101)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def _padded(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reflect 32 pixels before and at least 1 after on each axis, to multiples of 32."""
    after = [STRIDE - side % STRIDE for side in image.shape[1:]]
    return np.stack(
        [
            cv2.copyMakeBorder(plane, PADDING, after[0], PADDING, after[1], cv2.BORDER_REFLECT)
            for plane in image
        ]
    )


def _to_device(array: NDArray[np.float32], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
