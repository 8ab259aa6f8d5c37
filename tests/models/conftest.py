"""One thread, which is quickest for tiny networks, and no network."""

import socket
import sys
from pathlib import Path

import pytest

# Lets tests import what stands beside them.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def quick(one_thread):
    """Every test of this room."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever opens a connection fails: nothing is downloaded unless that is asked for."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
