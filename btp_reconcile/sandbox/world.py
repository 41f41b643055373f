"""Everything that exists: tables, ids, the clock, things that take time, and the file that keeps them."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import json
import os
import tempfile
import threading
import time as clock
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

Ticket: TypeAlias = dict[str, Any]

VIRTUAL_START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()

DEFAULTS: dict[str, Any] = {
    "region": "eu10",  # central region, and the landscape served at the root of the socket
    # Looks (or seconds) until something is done; null is never.
    "delays": {"default": 2, "cf.job": 1},
    "tokens": {
        "cloud_foundry": 1199,
        "xsuaa": 43199,
        "refresh": 2592000,
        "lock_after": 5,
        "lock_seconds": 300,
        "revocable": False,
        "assertion_secret": None,
    },
    "cloud_foundry": {
        "version": "3.194.0",
        "version_2": "2.259.0",
        "v2_link": True,
        "broker": "sap-service-manager",
        "rate_limit": 20000,
        "rate_window": 3600,
        "rate_enforced": False,
        "max_total_results": None,
        "job_retention": 604800,
        "catalogue_refresh": 900,
        "retry_after": 5,
        "space_suspended_field": False,
        "labels_max": 50,
        "annotations_max": 200,
        "feature_flags": {},
        "organization_quota": {"services": None, "keys": None, "paid": True},
        "space_quota": {"services": None, "keys": None, "paid": True},
        "brokers_busy": False,
        "recursive_unbind": False,
    },
    "offerings": {},
    "broker_failures": [],
}


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both trees as one; where both have a leaf, ``over`` wins."""
    tree = copy.deepcopy(dict(under))
    for key, value in over.items():
        below = tree.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping):
            tree[key] = merged(below, value)
        else:
            tree[key] = copy.deepcopy(dict(value) if isinstance(value, Mapping) else value)
    return tree


def stamp(seconds: float) -> str:
    """Epoch seconds as ``YYYY-MM-DDThh:mm:ssZ``."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """The epoch seconds of a stamp."""
    return datetime.fromisoformat(text).timestamp()


class World:
    """The state and the laws of nature. ``state`` is plain JSON and holds everything."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    @staticmethod
    def new(*, seed: int = 0, time: str = "looks", settings: Mapping[str, Any] | None = None) -> World:
        """An empty world."""
        if time not in {"looks", "seconds"}:
            raise ValueError(f"time is counted in 'looks' or in 'seconds', not in {time!r}")
        return World(
            {
                "format": 1,
                "seed": seed,
                "time": time,
                "elapsed": 0,
                "counter": 0,
                "settings": merged(DEFAULTS, settings or {}),
                "keys": {},
                "faults": {},
                "tables": {},
            }
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The knobs, with their defaults filled in."""
        found: dict[str, Any] = self.state["settings"]
        return found

    @property
    def mode(self) -> str:
        """How time is counted: ``looks`` or ``seconds``."""
        return str(self.state["time"])

    def table(self, name: str) -> dict[str, Any]:
        """Rows by id, in the order in which they were made."""
        found: dict[str, Any] = self.state["tables"].setdefault(name, {})
        return found

    def _digest(self, purpose: str) -> bytes:
        self.state["counter"] += 1
        return hashlib.sha256(f"{self.state['seed']}/{purpose}/{self.state['counter']}".encode()).digest()

    def new_id(self) -> str:
        """The next UUID, shaped like version 4; the same seed gives the same ids."""
        return shaped(self._digest("id"))

    def new_secret(self, length: int = 32) -> str:
        """The next hexadecimal text that nobody guesses from an id."""
        return (self._digest("secret").hex() * (length // 64 + 1))[:length]

    def now(self) -> float:
        """Epoch seconds, virtual in looks mode."""
        elapsed = float(self.state["elapsed"])
        return VIRTUAL_START + elapsed if self.mode == "looks" else clock.time() + elapsed

    def stamp(self) -> str:
        """Now, as the platform writes it."""
        return stamp(self.now())

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self.state["elapsed"] += seconds

    def delay(self, what: str) -> float | None:
        """How long something takes by the settings; ``None`` is for ever."""
        delays: dict[str, float | None] = self.settings["delays"]
        return delays[what] if what in delays else delays["default"]

    def ticket(self, what: str) -> Ticket:
        """Something that takes time, as a row that can be kept in a table."""
        needs = self.delay(what)
        if self.mode == "looks":
            return {"what": what, "needs": needs, "seen": 0}
        return {"what": what, "ready": None if needs is None else self.now() + needs}

    def look(self, ticket: Ticket) -> bool:
        """Counts one look and says whether the thing is done."""
        if "seen" in ticket:
            ticket["seen"] += 1
        return self.done(ticket)

    def done(self, ticket: Ticket) -> bool:
        """Whether the thing is done, without counting."""
        if "seen" in ticket:
            return ticket["needs"] is not None and ticket["seen"] >= ticket["needs"]
        return ticket["ready"] is not None and self.now() >= ticket["ready"]


def shaped(digest: bytes) -> str:
    """Sixteen bytes of a digest in the shape of a UUID of version 4."""
    text = bytearray(digest[:16])
    text[6] = (text[6] & 0x0F) | 0x40
    text[8] = (text[8] & 0x3F) | 0x80
    raw = text.hex()
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


class Memory:
    """Keeps a world in this process."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def hold(self) -> Iterator[World]:
        """The world, for one caller at a time."""
        with self._lock:
            yield self._world


class File:
    """Keeps a world in one file that several processes may use.

    The file is read only when somebody else has replaced it and written only when something changed. A caller holds
    a lock on a file beside it, so that the replacement of the state itself is one rename.
    """

    def __init__(self, path: Path, fresh: World) -> None:
        self._path = path
        self._lock_path = path.with_name(path.name + ".lock")
        self._lock = threading.RLock()
        self._depth = 0
        self._world = fresh
        self._seen: tuple[int, int, int] | None = None
        self._text = ""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.hold():
            pass

    @contextlib.contextmanager
    def hold(self) -> Iterator[World]:
        """The world, for one caller of one process at a time; kept when the caller is done, even by an exception."""
        with self._lock:
            if self._depth:
                yield self._world
                return
            handle = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                self._depth = 1
                self._load()
                try:
                    yield self._world
                finally:
                    self._depth = 0
                    self._save()
            finally:
                os.close(handle)

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _load(self) -> None:
        mark = self._mark()
        if mark is not None and mark != self._seen:
            self._text = self._path.read_text(encoding="utf-8")
            self._world.state = json.loads(self._text)
            self._world.state["settings"] = merged(DEFAULTS, self._world.state["settings"])
            self._seen = mark

    def _save(self) -> None:
        state = self._world.state
        filled = {name: table for name, table in state["tables"].items() if table}  # reading makes empty ones
        text = json.dumps({**state, "tables": filled}, separators=(",", ":"))
        if text == self._text and self._seen is not None:
            return
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name + ".")  # made 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._text = text
        self._seen = self._mark()
