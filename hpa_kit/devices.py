"""Which device to run on, or which devices; whether its memory ran out; how many processors there are."""

import os
from contextlib import suppress

from hpa_kit.errors import InputError

_MEMORY_SIGNS = ("DefaultCPUAllocator", "can't allocate memory", "CUDA error: out of memory")


def pick_device(name: str) -> str:
    """``auto`` -> cuda where it works, else cpu; any other name is tried and refused where it does not work.

    A card that torch no longer supports is still reported as available, so a tiny operation is run on it.

    Raises:
        InputError: a device was named that torch cannot use here.
    """
    import torch

    wanted = "cuda" if name == "auto" and torch.cuda.is_available() else "cpu" if name == "auto" else name
    try:
        device = torch.device(wanted)
        (torch.ones(8, device=device) + 1).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if name == "auto":
            return "cpu"
        raise InputError(
            f"device: {name!r} cannot be used here ({reason}); use auto, cpu, cuda or cuda:0"
        ) from None
    return str(device)


def pick_devices(names: str) -> list[str]:
    """Devices that share work: ``auto`` -> every GPU that works, else the cpu; else what the names say.

    Args:
        names: as for :func:`pick_device`, several with commas between them: ``cuda:0,cuda:1``. One that is
            named twice does two shares.

    Raises:
        InputError: a device was named that torch cannot use here, or none was named.
    """
    import torch

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise InputError(f"device: {names!r} names no device; use auto, cpu, cuda or cuda:0,cuda:1")
    if wanted != ["auto"]:
        return [pick_device(name) for name in wanted]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    working = []
    for index in range(count):
        with suppress(InputError):
            working.append(pick_device(f"cuda:{index}"))
    return working or ["cpu"]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: a GPU's has an error of its own, the CPU's allocator only a text."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(sign in str(error) for sign in _MEMORY_SIGNS)


def cpus() -> int:
    """Processors that this process may use; fewer than the machine has in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
