"""What the machine has for steps, and what a step's command is told of it: devices, processors, time."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from hpa_kit.plan import Step
from hpa_kit.together import imports_from_here
from hpa_kit.training.checkpoint import LAST, read_checkpoint

# Commands that compute on the device, and those that several devices can share; others take processors only.
ON_DEVICE = frozenset({"train", "features", "infer", "predict", "pseudo-labels", "tune", "report"})
ON_SEVERAL = frozenset({"train", "infer", "predict", "pseudo-labels", "tune"})
# Commands with a file per field, packed so that what the next session needs are few.
_PACKED = frozenset({"segment", "pseudo-labels", "predict"})
_LEAST_HOURS = 0.001


def on_device(step: Step) -> bool:
    """Whether a step computes on a device."""
    return step.command[0] in ON_DEVICE or (step.command[0] == "segment" and "--weights" in step.command)


def how(step: Step, lanes: Sequence[str], cores: int, seconds: float) -> Iterator[str]:
    """Make the options that say what computes and how long it may take, not what is computed.

    Args:
        step: to begin.
        lanes: devices that it gets.
        cores: processors that each of its processes gets.
        seconds: that are left; infinite without a limit.
    """
    name = step.command[0]
    if lanes:
        yield from ("--device", "cpu" if lanes[0] == "cpu" else "auto")
    if name == "train":
        # Beside the process itself; where there is one core, it reads the fields too.
        yield from ("--workers", str(max(0, cores - 1)))
        own = (
            step.command[step.command.index("--time-limit") + 1] if "--time-limit" in step.command else "inf"
        )
        hours = min(float(own), max(_LEAST_HOURS, seconds / 3600))
        if hours < math.inf:
            yield from ("--time-limit", f"{hours:.4g}")
    elif name in ON_DEVICE or name in ("segment", "store"):
        yield from ("--workers", str(max(1, cores)))
    if name in _PACKED:
        yield "--pack"


def is_whole(step: Step) -> bool:
    """Tell whether a command that ended well did all: a run may have stopped in time.

    Raises:
        InputError: a run's checkpoint is missing or damaged.
    """
    if step.command[0] != "train":
        return True
    checkpoint = read_checkpoint(step.out / LAST, only=("epoch",))
    return bool(checkpoint.state["epoch"] >= int(checkpoint.settings["epochs"]))


def devices_of(wanted: str) -> list[str]:
    """List the devices to use; which GPUs work another process finds out, as it keeps their memory."""
    if wanted != "auto":
        return [name.strip() for name in wanted.split(",")]
    code = "from hpa_kit.devices import pick_devices; print(*pick_devices('auto'))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=imports_from_here(), stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    return done.stdout.split() or ["cpu"]


def gpu_number(lane: str) -> str:
    """Tell a GPU's number as its driver has it, of those that this process may see."""
    number, seen = int(lane.partition(":")[2] or 0), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = [name for name in seen.split(",") if name]
    return visible[number] if number < len(visible) else str(number)
