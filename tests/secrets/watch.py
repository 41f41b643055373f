"""What this process does to files and sockets, seen where nothing can be hidden: in the interpreter's audit events."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.guard import sitecustomize as guard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.secrets.planted import Ledger

_watching: list[Watch] = []
_inside = threading.local()


@dataclass
class Watch:
    """What was seen while it was entered."""

    ledger: Ledger | None = None
    asked: list[tuple[str, Any]] = field(default_factory=list)
    """(what kind of event, the address or the name) of every connection and every question about a name."""
    kept: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Files with secrets at the moment they were renamed or removed: path → mode, name of a secret."""

    def hosts(self) -> set[str]:
        """Hosts that were connected to or asked for."""
        return {str(where[0] if isinstance(where, tuple) else where) for _, where in self.asked}

    def ports(self) -> set[int]:
        """Ports that were connected to."""
        return {where[1] for _, where in self.asked if isinstance(where, tuple) and len(where) > 1}

    def note(self, event: str, where: Any) -> None:
        if isinstance(where, tuple) or event != "socket.connect":
            self.asked.append((event, where))

    def leaving(self, path: str) -> None:
        """A file is about to get another name, or to go: this is what was written, and how it could be read."""
        file = Path(path)
        if self.ledger is None or not file.is_file() or path.startswith("/proc/"):
            return
        found = self.ledger.found(file.read_bytes())
        if found:
            self.kept[path] = (f"{file.stat().st_mode & 0o777:04o}", next(iter(found)))


def _path(name: Any, folder: Any) -> str:
    text = os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else ""
    if isinstance(folder, int) and folder >= 0 and not text.startswith("/"):
        return f"{os.readlink(f'/proc/self/fd/{folder}')}/{text}"  # noqa: PTH115 - a text stays a text
    return os.path.abspath(text)  # noqa: PTH100 - the same


def _hear(event: str, given: tuple[Any, ...]) -> None:
    if not _watching or getattr(_inside, "busy", False):
        return
    _inside.busy = True
    try:
        for watch in _watching:
            if event in {"socket.connect", "socket.sendto"}:
                watch.note(event, given[1])
            elif event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}:
                watch.note(event, given[0])
            elif event == "os.rename":
                watch.leaving(_path(given[0], given[2]))
            elif event == "os.remove":
                watch.leaving(_path(given[0], given[1]))
    finally:
        _inside.busy = False


sys.addaudithook(_hear)  # it cannot be taken away again, and does nothing while nobody watches


@contextlib.contextmanager
def watched(ledger: Ledger | None = None) -> Iterator[Watch]:
    """Look on. What the guard of the tests turns away is noted, too: it never becomes an event."""
    watch, allowed = Watch(ledger), guard.stays

    def stays(address: Any) -> bool:
        fine = allowed(address)
        if not fine:
            watch.note("refused", address)
        return fine

    _watching.append(watch)
    guard.stays = stays
    try:
        yield watch
    finally:
        guard.stays = allowed
        _watching.remove(watch)
