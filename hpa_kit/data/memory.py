"""How much memory this process may still use."""

import os
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Bytes free for use: what the machine has, or what the container's limit leaves, whichever is less.

    Processes that torchrun started on one machine share it in equal parts.
    """
    limits = [_machine_bytes()]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        left = _read_number(_GROUP / limit), _read_number(_GROUP / used)
        if left[0] is not None and left[1] is not None:
            limits.append(left[0] - left[1])
    return max(0, min(limits)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _machine_bytes() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    # Elsewhere only the total is known; half of it is a fair guess.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
