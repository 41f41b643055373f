"""Writes down every connection, every question about a name, and every program that a Python process starts.

Python imports this by itself when its folder is on PYTHONPATH. The report goes to the file that `AUDITED` names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.guard import sitecustomize as guard

_EVENTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
}


def _note(text: str) -> None:
    handle = os.open(os.environ["AUDITED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{text}\n".encode())
    os.close(handle)


def _hear(event: str, given: tuple[Any, ...]) -> None:
    place = _EVENTS.get(event)
    if place is not None:
        _note(f"{event} {given[place]!r}")


def _stays(address: Any) -> bool:
    fine = _allowed(address)
    if not fine:
        _note(f"refused {address!r}")
    return fine


if "AUDITED" in os.environ:
    sys.addaudithook(_hear)
    _allowed, guard.stays = guard.stays, _stays
guard.guard()
