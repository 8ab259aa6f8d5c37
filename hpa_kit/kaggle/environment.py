"""One look at the machine a notebook runs on: versions, and whether its GPU really works."""

import importlib.metadata
import os
import platform
from typing import NamedTuple

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "albumentations",
    "numba",
    "numpy",
    "pandas",
    "scikit-learn",
    "iterative-stratification",
    "segmentation-models-pytorch",
)


# Hours of a session, less what saving its output may take.
SESSION = 11.5


class Environment(NamedTuple):
    """What :func:`environment_report` found; its text is the report."""

    python: str
    versions: dict[str, str]  # package -> version, "missing" where there is none
    gpus: tuple[str, ...]
    gpu_fault: str | None  # why the GPUs that are there cannot be used

    def device(self, wanted: str = "auto") -> str:
        """The device to use: ``wanted``, but the CPU for ``auto`` where the GPUs do not work."""
        return "cpu" if wanted == "auto" and self.gpu_fault else wanted

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        gpus = " + ".join(self.gpus) or "none, this will be slow"
        works = "" if not self.gpus else " (works)"
        if self.gpu_fault:
            works = f" DOES NOT WORK: {self.gpu_fault}; the CPU is used. Choose another accelerator"
        return f"Python {self.python}, {versions}\nGPU: {gpus}{works}"


def environment_report() -> Environment:
    """Versions of what matters, and each GPU tried with a tiny operation.

    ``torch.cuda.is_available()`` alone is not enough: it says True for a card whose code today's torch no
    longer contains (P100), and the first kernel fails.
    """
    gpus, fault = _try_gpus()
    return Environment(platform.python_version(), {name: _version(name) for name in PACKAGES}, gpus, fault)


def run_kind() -> str:
    """Which run of a notebook this is, in words: the one that is scored, a saved or interactive one, or none.

    ``KAGGLE_IS_COMPETITION_RERUN`` is set in a scoring run only, ``KAGGLE_KERNEL_RUN_TYPE`` in all of
    Kaggle's: ``Interactive`` in the editor, ``Batch`` where a version is saved and run.
    """
    if os.environ.get("KAGGLE_IS_COMPETITION_RERUN"):
        return "scoring run, hidden test set"
    kind = os.environ.get("KAGGLE_KERNEL_RUN_TYPE")
    if kind and kind.lower() == "interactive":
        return "interactive session, public rows only"
    return "saved run, public rows only" if kind else "not on Kaggle"


def session_hours(gone: float) -> float | None:
    """Hours that are left of a Kaggle session; None elsewhere.

    Args:
        gone: seconds since it began.
    """
    if not os.environ.get("KAGGLE_KERNEL_RUN_TYPE"):
        return None
    return max(0.1, SESSION - gone / 3600)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _try_gpus() -> tuple[tuple[str, ...], str | None]:
    """Names of the GPUs, and what went wrong when one was asked to add 1 and 1."""
    import torch

    if not torch.cuda.is_available():
        return (), None
    count = torch.cuda.device_count()
    names = tuple(torch.cuda.get_device_name(index) for index in range(count))
    for index in range(count):
        try:
            one = torch.ones(8, device=f"cuda:{index}")
            total = float((one + one).sum())
        except RuntimeError as error:
            return names, str(error).splitlines()[0]
        if total != 16:
            return names, f"cuda:{index} computes 1 + 1 wrong"
    return names, None
