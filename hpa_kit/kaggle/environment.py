"""The session that a notebook runs in: the machine, which of Kaggle's runs it is, its time, its parameters.

Standard library only at import: the first cell comes here before torch and pydantic are known to be there.
"""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from hpa_kit.config import Settings

S = TypeVar("S", bound="Settings")

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
    gpus: tuple[str, ...]  # their names
    faults: dict[int, str]  # GPU -> why it cannot be used

    def device(self, wanted: str = "auto", *, several: bool = True) -> str:
        """Choose the device: ``wanted``, but for ``auto`` where GPUs do not work those that do, else the CPU.

        Args:
            wanted: as the user has it.
            several: some of all GPUs can share the work; otherwise only all can, and the first is taken.
        """
        if wanted != "auto" or not self.faults:
            return wanted
        working = [f"cuda:{index}" for index in range(len(self.gpus)) if index not in self.faults]
        return ",".join(working if several else working[:1]) or "cpu"

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        gpus = [
            f"{name} ({f'DOES NOT WORK: {self.faults[index]}' if index in self.faults else 'works'})"
            for index, name in enumerate(self.gpus)
        ]
        what = " + ".join(gpus) or "none, this will be slow"
        if self.faults:
            used = "the others are" if len(self.faults) < len(gpus) else "the CPU is"
            what += f"; {used} used. Choose another accelerator"
        return f"Python {self.python}, {versions}\nGPU: {what}"


def environment_report() -> Environment:
    """Describe the machine: versions of what matters, and each GPU tried with a tiny operation.

    ``torch.cuda.is_available()`` alone is not enough: it says True for a card whose code today's torch no
    longer contains (P100), and the first kernel fails.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    faults = {}
    for index in range(count):
        try:
            one = torch.ones(8, device=f"cuda:{index}")
            if float((one + one).sum()) != 16:
                faults[index] = f"cuda:{index} computes 1 + 1 wrong"
        except RuntimeError as error:
            faults[index] = str(error).splitlines()[0]
    return Environment(
        platform.python_version(),
        {name: _version(name) for name in PACKAGES},
        tuple(torch.cuda.get_device_name(index) for index in range(count)),
        faults,
    )


def run_kind() -> str:
    """Say which run of a notebook this is: the one that is scored, a saved or interactive one, or none.

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
    """Count the hours that are left of a Kaggle session; None elsewhere.

    Args:
        gone: seconds since it began.
    """
    if not os.environ.get("KAGGLE_KERNEL_RUN_TYPE"):
        return None
    return max(0.1, SESSION - gone / 3600)


def notebook_settings(kind: type[S], variables: Mapping[str, Any], **found: Any) -> S:
    """Make settings from the variables of a notebook that bear their names.

    A variable ``epochs`` fills the setting ``epochs``; the dict ``settings`` fills any other, and wins, with
    unknown names refused. So papermill can set each of them. None says nothing where it is the setting's
    default; any other value counts as given, also where it is the default.

    Args:
        kind: the settings class of the command.
        variables: the notebook's ``globals()``.
        found: values to use whatever the variables say, such as the folder that was found for ``data``; None
            where nothing was found.

    Raises:
        InputError: a name in ``settings`` is unknown, or a value is bad.
    """
    from hpa_kit.config import make_settings

    named = {
        name: variables[name]
        for name, field in kind.options().items()
        if name in variables and name not in found and not (variables[name] is None and field.default is None)
    }
    known = {name: value for name, value in found.items() if value is not None}
    return make_settings(kind, named, known, variables.get("settings", {}), source="parameters cell")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
