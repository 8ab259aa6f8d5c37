"""The published networks as a segmenter: field -> network maps -> label maps."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpa_kit.cells.dpn_unet import STRIDE
from hpa_kit.cells.label_step import FULL_SIDE, SMALLEST_FULL_SIDE, label_cells
from hpa_kit.cells.networks import INPUTS, NETWORK_SIDE, load_networks, normalised
from hpa_kit.cells.segmenters import Field, OneOrMany, Pair, check_field
from hpa_kit.devices import is_out_of_memory
from hpa_kit.errors import InputError

Maps = tuple[NDArray[np.uint8], NDArray[np.uint8]]

log = logging.getLogger(__name__)

PADDING = 32


class PublishedSegmenter(OneOrMany):
    """HPA-Cell-Segmentation's two networks, or others of their form, and its label step.

    Args:
        weights: folder with both weights files, or a run that has trained such networks, see
            :func:`~hpa_kit.cells.networks.load_networks`.
        device: ``cuda``, ``cpu`` or a torch device.
        batch: fields of one size that go through the networks together; halved when memory runs out.
        workers: threads that reduce fields for the networks, and label what comes out of them while the next
            fields are in.
        amp: half precision on a GPU.

    Raises:
        InputError: a weights file is missing or cannot be used.
    """

    name = "published"
    algorithm = 1  # raised when the same networks would give other label maps

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
        networks = load_networks(weights)
        self.side, self.own = networks.side, networks.own
        # Own ones have learnt from windows without a frame of mirror images, which would mislead some.
        self.padding = 0 if self.own else PADDING
        self._fingerprint = fingerprint(networks.nuclei, networks.cells)
        self.nuclei_network, self.cell_network = (
            network.to(self.device).to(memory_format=torch.channels_last)
            for network in (networks.nuclei, networks.cells)
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its label maps, to be kept with them."""
        own = {} if self.side == NETWORK_SIDE else {"side": self.side}
        return {"segmenter": self.name, "algorithm": self.algorithm, "weights": self._fingerprint, **own}

    def stream(self, fields: Iterable[Field]) -> Iterator[Pair]:
        """Label any number of fields of any sizes, in order, a few in memory at a time.

        Raises:
            InputError: a field is not uint8 (4, H, W).
        """
        remaining = iter(fields)
        with ThreadPoolExecutor(self.workers, "label") as pool:
            waiting: list[Future[Pair]] = []
            # The label step of one window runs while the networks work on the next.
            while window := list(islice(remaining, 2 * self.batch)):
                following = self._submit(window, pool)
                yield from (future.result() for future in waiting)
                waiting = following
            yield from (future.result() for future in waiting)

    def _submit(self, window: list[Field], pool: ThreadPoolExecutor) -> list[Future[Pair]]:
        """Put a window's fields through the networks, by size, and queue their label steps."""
        jobs: dict[int, Future[Pair]] = {}
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, field in enumerate(window):
            check_field(field)
            by_size.setdefault((field.shape[1], field.shape[2]), []).append(index)
        inputs = [pool.submit(network_input, field, self.side) for field in window]
        for size, indices in by_size.items():
            for start in range(0, len(indices), self.batch):
                group = indices[start : start + self.batch]
                maps = self.maps(np.stack([inputs[index].result() for index in group]))
                for index, pair in zip(group, maps, strict=True):
                    jobs[index] = pool.submit(_label, *pair, size, self._apart(size))
        return [jobs[index] for index in range(len(window))]

    def _apart(self, size: tuple[int, int]) -> bool:
        """Whether a pixel is taken off outlines: of own networks only where it is about one of 2048."""
        return not self.own or (size[0] * size[1]) ** 0.5 >= FULL_SIDE / 2

    def maps(self, inputs: NDArray[np.float32]) -> list[Maps]:
        """Run both networks on fields of one size.

        Args:
            inputs: float32 (B, 3, h, w), see :func:`network_input`.

        Returns:
            per field nuclei and cell map, uint8 (h, w, 3) at the network's scale: unused, border, foreground.
        """
        if 0 in inputs.shape:
            return [(np.zeros((*inputs.shape[2:], 3), np.uint8),) * 2 for _ in inputs]
        try:
            nuclei = self._run(self.nuclei_network, inputs[:, [2, 2, 2]])
            cells = self._run(self.cell_network, inputs)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(inputs) == 1:
                raise InputError(
                    f"segmenter: {self.device} has too little memory for one field of {inputs.shape[3]} x "
                    f"{inputs.shape[2]} pixels at the networks' scale; use another device, or the segmenter "
                    "classical"
                ) from None
            self.batch = len(inputs) // 2
        else:
            return list(zip(nuclei, cells, strict=True))
        # Outside of the handler: what failed is free only once its traceback is.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return [*self.maps(inputs[: self.batch]), *self.maps(inputs[self.batch :])]

    def _run(self, network: nn.Module, images: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Images float32 (B, 3, h, w) in [0, 1] -> uint8 (B, h, w, 3)."""
        height, width = images.shape[2:]
        x = _to_device(np.stack([_padded(image, self.padding) for image in images]), self.device)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=self.amp):
            logits = network(normalised(x).contiguous(memory_format=torch.channels_last))
        start = self.padding
        return network_maps(logits[:, :, start : start + height, start : start + width])


def network_maps(logits: Tensor) -> NDArray[np.uint8]:
    """What a network says (B, 3, h, w) as the label step reads it: uint8 (B, h, w, 3), the unused one 0."""
    maps = (logits.float().softmax(1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    maps[..., 0] = 0
    return maps.contiguous().cpu().numpy()


def fingerprint(*networks: nn.Module) -> str:
    """Make hexadecimal digits that tell networks' weights apart, whatever file they came from.

    The first numbers of every tensor tell as much as all of them, in a thousandth of the time.
    """
    digest = hashlib.sha256()
    for network in networks:
        for name, tensor in network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.flatten()[:64].cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _label(
    nuclei_map: NDArray[np.uint8], cell_map: NDArray[np.uint8], size: tuple[int, int], apart: bool
) -> Pair:
    nuclei, cells = label_cells(nuclei_map, cell_map, size=size, apart=apart)
    if not cells.any():
        log.warning("segmenter published: no cell in a field of %d x %d pixels", *size)
    return nuclei, cells


def network_input(field: Field, side: int = NETWORK_SIDE) -> NDArray[np.float32]:
    """Bring microtubules, ER and nuclei of a field to the networks' scale.

    Fields from side 1728 on are reduced by 4, as published; smaller ones are taken as reduced copies of a
    2048 px field and brought to 512 px, so that their cells have the size the networks know.

    Args:
        field: uint8 (4, H, W).
        side: of a 2048 px field at the networks' scale, where that is another than the published one.

    Returns:
        float32 (3, h, w) in [0, 1].
    """
    if 0 in field.shape:
        return np.zeros((3, *field.shape[1:]), np.float32)
    return at_network_scale(field[list(INPUTS)], side)


def at_network_scale(planes: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Bring any channels of a field (C, H, W) to the networks' scale, float32 (C, h, w) in [0, 1]."""
    height, width = planes.shape[1:]
    own = float(np.sqrt(height * width))
    scale = side / (FULL_SIDE if own >= SMALLEST_FULL_SIDE else own)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([_rescaled(plane, size, scale) for plane in planes])


def _rescaled(channel: NDArray[np.uint8], size: tuple[int, int], scale: float) -> NDArray[np.float32]:
    """Blur against aliasing, then bilinear: what scikit-image's ``rescale`` does by default."""
    image = channel.astype(np.float32) * np.float32(1 / 255)
    if scale < 1:
        sigma = (1 / scale - 1) / 2
        radius = int(4 * sigma + 0.5)
        image = cv2.GaussianBlur(image, (2 * radius + 1,) * 2, sigma, borderType=cv2.BORDER_REFLECT_101)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def _padded(image: NDArray[np.float32], before: int) -> NDArray[np.float32]:
    """Mirror so many pixels before, and after to multiples of 32; at least 1 where there are any before."""
    after = [-(side + bool(before)) % STRIDE + bool(before) for side in image.shape[1:]]
    return np.stack(
        [cv2.copyMakeBorder(plane, before, after[0], before, after[1], cv2.BORDER_REFLECT) for plane in image]
    )


def _to_device(array: NDArray[np.float32], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
