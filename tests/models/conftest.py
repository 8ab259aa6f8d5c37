"""One thread, which is quickest for tiny networks, and no network."""

import socket

import pytest


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
