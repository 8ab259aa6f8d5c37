"""What networks take, measured on made-up fields: their pixels do not matter to it."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hpa_kit.budget.page import Measured
from hpa_kit.budget.processors import CROP_SIDE, Part
from hpa_kit.cells import DPNUnet
from hpa_kit.classes import N_CLASSES
from hpa_kit.config import BudgetSettings, FeaturesSettings, TrainSettings, make_settings
from hpa_kit.data import CHANNELS
from hpa_kit.devices import is_out_of_memory
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble
from hpa_kit.training import BEST, Trainer
from hpa_kit.training.checkpoint import write_checkpoint
from hpa_kit.training.data import Batch, Loader, TrainingData
from hpa_kit.training.features import pooled_features, views_of
from hpa_kit.training.member import load_member

log = logging.getLogger(__name__)

WARM, STEPS = 3, 10  # steps that wait for kernels to be chosen, and that count; on a processor 1 each
PREDICTED = 8  # fields of a step of inference
PUBLISHED_SIDE, PUBLISHED_BATCH = 576, 4  # of a field of 2048² in the published networks, padded
NETWORKS = {"cam": "cam", "unet": "unet", "crop net": "crops"}


def measure_networks(settings: BudgetSettings, device: str, scratch: Path) -> Iterator[Part]:
    """Measure a step of training of each kind of network, and what a trained one takes for a field.

    Weights are random. Learning is measured without reading: whether the loader keeps up, the page tells.

    Args:
        settings: of the command.
        device: where.
        scratch: folder for the member that predicts.

    Raises:
        InputError: the backbone is unknown, cannot look at such fields, or has no room for two on the device.
    """
    for name, network in NETWORKS.items():
        yield name, Measured(_learning(settings, network, device, scratch))
    member = _write_member(settings, scratch / "member")
    ensemble = Ensemble([member], "flips", batch=PREDICTED, device=device, class_maps=False)
    shape = (len(CHANNELS), settings.size, settings.size)
    inputs = [ensemble.inputs(_pixels(shape).numpy()) for _ in range(PREDICTED)]
    yield "predict", Measured(_seconds(lambda: ensemble.predict(inputs), device) / PREDICTED)
    yield "features", _features(settings, member, device)
    yield "published", Measured(_published(device))


def gpu_name(device: str) -> str:
    """Name a GPU as its maker does."""
    return str(torch.cuda.get_device_name(device)).replace("|", " ")


def _learning(settings: BudgetSettings, network: str, device: str, scratch: Path) -> float:
    """Seconds of training for one field or crop; where memory runs out with half as many at once."""
    batch = settings.batch
    while True:
        try:
            return _step_seconds(settings, network, batch, device, scratch) / batch
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if batch < 4:
            raise InputError(
                f"budget: {device} has too little memory to train {settings.backbone} ({network}) at {batch} "
                "a step; take a smaller size or backbone"
            )
        # Outside of the handler: what failed is free only once its traceback is.
        torch.cuda.empty_cache()
        batch //= 2
        log.info(f"budget: {network} with {batch} a step, as memory ran out with more")


def _step_seconds(settings: BudgetSettings, network: str, size: int, device: str, scratch: Path) -> float:
    needed: dict[str, object] = {}
    if network == "unet":
        needed = {"pseudo_labels": scratch / "none"}
    elif network == "crops":
        needed = {"masks": scratch / "none", "crop_size": CROP_SIDE}
    train = _train_settings(settings, scratch / network, network=network, device=device, batch=size, **needed)
    trainer = Trainer(train)
    batch = _made_up_batch(network, size, settings.size).to(trainer.device)
    if trainer.device.type == "cuda":
        batch = batch._replace(fields=batch.fields.contiguous(memory_format=torch.channels_last))
    trainer.build(TrainingData(_Same(), _Same(), pd.DataFrame({"ID": [], "Label": []})))
    trainer.state.model.train()
    return _seconds(lambda: trainer.step(batch), device)


class _Same(Loader):
    """Stands for as many batches as are measured."""

    def __init__(self) -> None:
        pass

    def __len__(self) -> int:
        return WARM + STEPS


def _train_settings(settings: BudgetSettings, out: Path, **more: object) -> TrainSettings:
    common = {name: getattr(settings, name) for name in ("data", "backbone", "stride", "size")}
    return make_settings(TrainSettings, {**common, "out": out, **more})


def _made_up_batch(network: str, batch: int, size: int) -> Batch:
    side = CROP_SIDE if network == "crops" else size
    fields, numbers = _pixels((batch, len(CHANNELS), side, side)), torch.arange(batch)
    if network == "unet":
        return Batch(fields, _pixels((batch, N_CLASSES + 1, side, side)), numbers)
    targets = (torch.rand(batch, N_CLASSES) < 0.1).float()
    if network == "cam":
        return Batch(fields, targets, numbers)
    statistics = torch.tensor([[60.0], [40.0]]).expand(batch, 2, len(CHANNELS)).contiguous()
    return Batch(fields, targets, numbers, _pixels((batch, side, side)) // 128, statistics)


def _pixels(shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def _write_member(settings: BudgetSettings, out: Path) -> Path:
    """A run folder with random weights."""
    train = _train_settings(settings, out)
    model = Trainer(train).build_model(train)
    write_checkpoint(out / BEST, train, {"model": model.state_dict(), "epoch": 1})
    return out


def _features(settings: BudgetSettings, member: Path, device: str) -> Measured:
    """Seconds and bytes of a field's features."""
    values = {"data": settings.data, "member": member, "out": member / "features.npz"}
    asked = make_settings(FeaturesSettings, values)
    loaded = load_member(member, device, networks=("cam",))
    views = views_of(asked, loaded)
    shapes = [(PREDICTED, len(CHANNELS), side, side) for side in views.sides]
    inputs = [_pixels(shape).to(device) for shape in shapes]
    made: list[Tensor] = []

    def make() -> None:
        with torch.autocast(inputs[0].device.type, dtype=torch.float16, enabled=inputs[0].is_cuda):
            made[:] = [pooled_features(loaded.model, inputs, views.flips)]

    seconds = _seconds(make, device)
    return Measured(seconds / PREDICTED, float(made[0][0].float().numel() * 4))


def _published(device: str) -> float:
    """Seconds of the two published networks for a field of 2048²."""
    network = DPNUnet().eval().to(device).to(memory_format=torch.channels_last)
    batch = 1 if device == "cpu" else PUBLISHED_BATCH
    fields = torch.rand((batch, 3, PUBLISHED_SIDE, PUBLISHED_SIDE), device=device)

    def predict() -> None:
        with torch.inference_mode(), torch.autocast(fields.device.type, enabled=fields.is_cuda):
            network(fields.contiguous(memory_format=torch.channels_last))

    return 2 * _seconds(predict, device) / batch


def _seconds(step: Callable[[], object], device: str) -> float:
    """Seconds of a step, once kernels are chosen: all that was asked of a GPU is waited for."""
    cuda = device != "cpu"
    warm, steps = (WARM, STEPS) if cuda else (1, 1)
    for _ in range(warm):
        step()
    if cuda:
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    if cuda:
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begun) / steps
