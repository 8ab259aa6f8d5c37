"""What this machine has for the work: devices and whether their memory ran out, processors, free memory."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hpa_kit.errors import InputError

MEMORY_SHARES = "HPA_KIT_MEMORY_SHARES"  # the variable that tells how many jobs share the machine
_MEMORY_SIGNS = ("DefaultCPUAllocator", "can't allocate memory", "CUDA error: out of memory")
_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


class _Files(NamedTuple):
    """Where a version of Linux's control groups says what a group may use, uses, and what for."""

    folder: str
    limit: str
    used: str
    cache: tuple[str, ...]  # lines of memory.stat


_VERSIONS = (
    _Files("", "memory.max", "memory.current", ("inactive_file", "active_file")),
    _Files(
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
)


def pick_device(name: str) -> str:
    """Choose a device: ``auto`` is cuda where it works, else cpu; any other has to work, or is refused.

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
    """Choose devices that share work: ``auto`` is every GPU that works, else the cpu.

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
    """Count the processors that this process may use; fewer than the machine has in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_bytes() -> int:
    """Count the bytes free for use: the machine's, or those that the container's limit leaves if fewer.

    What the system keeps of files that were read or written counts as free, as it gives that up for whoever
    asks; so the kernel has it for the machine (``MemAvailable``), and here it is so for a container too.

    Processes that train together on one machine share it in equal parts. The first reads its fields before
    the others, so these share what it has left. So do jobs that run side by side, by :data:`MEMORY_SHARES`.
    """
    left = (_left(folder, files) for files in _VERSIONS for folder in _own_groups(files))
    limits = [_machine_bytes(), *(one for one in left if one is not None)]
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    first = int(os.environ.get("LOCAL_RANK") or 0) == 0
    jobs = int(os.environ.get(MEMORY_SHARES) or 1)
    return max(0, min(limits)) // max(1, processes if first else processes - 1) // max(1, jobs)


def _machine_bytes() -> int:
    meminfo = _PROC / "meminfo"
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    # Elsewhere only the total is known; half of it is a fair guess.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _own_groups(files: _Files) -> Iterator[Path]:
    """The folders of the control groups that this process is in, from the inmost to that of all.

    In a container the inmost is, as a rule, that of all; the path that the kernel tells may not be there.
    """
    root = _GROUPS / files.folder
    for line in _lines(_PROC / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if files.folder in controllers.split(",") and ".." not in path:
            own = root / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder != root and root in folder.parents)
    yield root


def _left(group: Path, files: _Files) -> int | None:
    """Bytes that a control group leaves; None where it has no limit."""
    limit, used = _number(group / files.limit), _number(group / files.used)
    if limit is None or used is None:
        return None
    stat = (line.split() for line in _lines(group / "memory.stat"))
    cache = sum(int(words[1]) for words in stat if words and words[0] in files.cache)
    return limit - used + min(used, cache)


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    """The lines of a file of the kernel's; none where there is no such file here."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
