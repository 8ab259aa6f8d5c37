"""Lets tests of this room import what stands beside them; the Kaggle client, where it is installed."""

import sys
from pathlib import Path

import pytest

from hpa_kit.kaggle.publish.client import find_client

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def client_python() -> Path:
    """The Python that has the official client."""
    python = find_client(Path(__file__).resolve().parents[3])
    if python is None:
        pytest.skip("the Kaggle client is not installed; `make client` does")
    return python
