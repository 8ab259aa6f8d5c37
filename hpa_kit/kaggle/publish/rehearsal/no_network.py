"""No network for a Python process, where a network namespace is not to be had: connections to others fail."""

import socket
from typing import Any

MESSAGE = "the network is off, as on Kaggle"


def block() -> None:
    """Let sockets reach this machine only; names of others are not found."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded(self: socket.socket, address: Any) -> None:
        _refuse_others(self.family, address)
        connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:
        _refuse_others(self.family, address)
        return connect_ex(self, address)

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if host is not None and not _is_here(host):
            raise socket.gaierror(socket.EAI_AGAIN, MESSAGE)
        return look_up(host, *arguments, **options)

    send_to, by_name = socket.socket.sendto, socket.gethostbyname

    def guarded_send(self: socket.socket, data: Any, *flags_and_address: Any) -> int:
        _refuse_others(self.family, flags_and_address[-1])
        return send_to(self, data, *flags_and_address)

    def guarded_name(host: str) -> str:
        if not _is_here(host):
            raise socket.gaierror(socket.EAI_AGAIN, MESSAGE)
        return by_name(host)

    on_sockets = {"connect": guarded, "connect_ex": guarded_ex, "sendto": guarded_send}
    for name, function in on_sockets.items():
        setattr(socket.socket, name, function)
    for name, function in {"getaddrinfo": guarded_look_up, "gethostbyname": guarded_name}.items():
        setattr(socket, name, function)


def _refuse_others(family: int, address: Any) -> None:
    if family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
        raise OSError(101, MESSAGE)


def _is_here(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host)
    return name in ("localhost", "::1", "0.0.0.0", "") or name.startswith("127.")
