"""What all tests share: where reference data lies, and how a test that needs it skips."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Lets tests, and those of the rooms, import what stands beside this file.
sys.path.insert(0, str(Path(__file__).parent))
pytest_plugins = ("members", "warm_python")

# Before torch is imported, as the command line does it: threads sleep while they wait for each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The same examples every time; the first one may compile, and a busy machine may take long to draw them.
hypothesis.settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("same")

# The one place that says where the reference data is: its folder has `reference/` and `real/`.
REFERENCE_SETTING = "HPA_KIT_REFERENCE"
REFERENCE_DEFAULT = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_finish() -> None:
    """What is imported by now stays, so no collection of garbage looks through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data; tests that ask for it skip where there is none."""
    folder = Path(os.environ.get(REFERENCE_SETTING) or REFERENCE_DEFAULT)
    if folder.name == "reference":
        folder = folder.parent
    if not (folder / "reference").is_dir():
        pytest.skip(f"no reference data at {folder}; set {REFERENCE_SETTING} to its folder")
    return folder


@pytest.fixture(scope="session")
def reference(shared: Path) -> Path:
    """Answers of implementations that this project did not write."""
    return shared / "reference"


@pytest.fixture(scope="session")
def real(shared: Path) -> Path:
    """Real HPA images, masks and tables."""
    return shared / "real"


@pytest.fixture(autouse=True)
def messages_as_before() -> Iterator[None]:
    """What a test has shown of the kit's messages, no later one shows."""
    yield
    from hpa_kit.progress import hide_messages

    hide_messages()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes with one thread, which is quickest for tiny networks."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def patience() -> float:
    """Seconds to wait for what has to come, on however busy a machine: only a failure takes so long."""
    return 120.0


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still by itself."""
    return Clock()
