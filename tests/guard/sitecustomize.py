"""Keeps a process on this machine. Python imports this by itself when its folder is on PYTHONPATH."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any


class LeavesThisMachine(AssertionError):
    """A test tried to reach another machine."""


def stays(address: Any) -> bool:
    """Is this a socket of this machine? A name other than localhost would already have to be asked for."""
    if not isinstance(address, tuple):
        return True  # a unix socket
    host = os.fsdecode(address[0]) if isinstance(address[0], bytes) else str(address[0])
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def _guarded(real: Any) -> Any:
    def connect(self: socket.socket, address: Any) -> Any:
        if not stays(address):
            raise LeavesThisMachine(f"a test must not connect to {address!r}")
        return real(self, address)

    return connect


def _guarded_name(real: Any) -> Any:
    def getaddrinfo(host: Any, *rest: Any, **more: Any) -> Any:
        if host is not None and not stays((host, 0)):
            raise LeavesThisMachine(f"a test must not ask for the name {host!r}")
        return real(host, *rest, **more)

    return getaddrinfo


def guard() -> None:
    """Close every way out that Python code has: connections, and questions about names. Doing it twice is once."""
    if socket.socket.connect.__name__ != "connect" or "_guarded" not in socket.socket.connect.__qualname__:
        for name in ("connect", "connect_ex"):
            setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        socket.getaddrinfo = _guarded_name(socket.getaddrinfo)


if __name__ == "sitecustomize":
    guard()
