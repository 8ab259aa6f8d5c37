"""The command: measure what this machine can, and write the page after each measurement."""

import logging
import platform
import time
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hpa_kit.budget.page import Measured, read_page, tables
from hpa_kit.budget.processors import measure_fields, measure_loader
from hpa_kit.config import BudgetSettings
from hpa_kit.data import DataFolder
from hpa_kit.devices import pick_device
from hpa_kit.files import atomic_text
from hpa_kit.progress import progress_bar

log = logging.getLogger(__name__)

_YARDSTICK = 2**20  # bytes


def budget(settings: BudgetSettings) -> str:
    """Measure hours and bytes of the whole job on a few fields, and write them down.

    What processors do is told in their own time, which other work on the machine changes little, what
    networks do in the time that passes. A page that is there keeps its text, and each row until it is
    measured anew: those of networks stay where there is no GPU. Cut off, it begins anew.

    Args:
        settings: see :class:`~hpa_kit.config.BudgetSettings`.

    Returns:
        The tables of the page, as Markdown.

    Raises:
        InputError: there is no field, one cannot be read, device or backbone cannot be used, or ``out`` is a
            page of something else.
    """
    above, found = read_page(settings.out)
    folder = DataFolder(settings.data)
    ids, images = folder.fields("train").ids, folder.images("train")
    places = np.linspace(0, len(ids) - 1, min(len(ids), settings.fields)).astype(int)
    some = [ids[place] for place in np.unique(places)]
    device = pick_device(settings.device)
    if device == "cpu" and settings.device == "auto":
        log.info("budget: no GPU here; rows of networks stay as they were, or unknown")
    here = f"{processor_name()}; {settings.size}²"
    with TemporaryDirectory(prefix="hpa_kit_") as name, progress_bar("measure", None, "part") as bar:
        scratch = Path(name)
        parts = chain(
            measure_fields(settings, images, some, scratch), measure_loader(settings, images, some, scratch)
        )
        for what, measured in chain(_at(parts, here), _of_networks(settings, device, scratch)):
            found[what] = measured
            atomic_text(settings.out, above + tables(found, settings.cores))
            bar.update()
    return tables(found, settings.cores)


def processor_name() -> str:
    """Name this machine's processor, and how fast it is: milliseconds in which it packs a fixed megabyte."""
    name = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.is_file():
        lines = about.read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    megabyte = np.random.default_rng(0).integers(0, 16, _YARDSTICK, dtype=np.uint8).tobytes()
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        zlib.compress(megabyte, 6)
        seconds.append(time.process_time() - begun)
    return f"{name.replace('|', ' ')}, {1e3 * min(seconds):.0f} ms"


def _of_networks(settings: BudgetSettings, device: str, scratch: Path) -> Iterator[tuple[str, Measured]]:
    """What networks take, on a GPU, or on a processor that was asked for by name."""
    if device == "cpu" and settings.device == "auto":
        return
    from hpa_kit.budget.networks import gpu_name, measure_networks

    machine = processor_name() if device == "cpu" else gpu_name(device)
    where = f"{machine}; {settings.backbone}, stride {settings.stride}, {settings.size}²"
    yield from _at(measure_networks(settings, device, scratch), where)


def _at(parts: Iterator[tuple[str, Measured]], where: str) -> Iterator[tuple[str, Measured]]:
    for what, measured in parts:
        yield what, measured.rounded(where)
