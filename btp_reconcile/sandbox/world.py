"""Everything that exists: tables, ids, the clock, things that take time, and the file that keeps them."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import functools
import hashlib
import json
import marshal
import os
import threading
import time as clock
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

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
    """The state and the laws of nature. ``state`` is plain JSON and holds everything.

    Its tables are asked for by name, with ``table``, or ``rows`` by somebody who only reads: what is changed behind the
    back of these two is not kept in a file.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.touched: set[str] = set()  # the tables that were asked for, and so may have changed
        self.bent: Mapping[str, int] = {}  # what faults do to the lists of the request at hand

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
        self.touched.add(name)
        found: dict[str, Any] = self.state["tables"].setdefault(name, {})
        return found

    def rows(self, name: str) -> Mapping[str, Any]:
        """The rows of a table for somebody who leaves them as they are: a change of theirs would not be kept."""
        found: Mapping[str, Any] = self.state["tables"].get(name, {})
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

    def never(self) -> Ticket:
        """Something that is never done."""
        lacks: Ticket = {"needs": None, "seen": 0} if self.mode == "looks" else {"ready": None}
        return {"what": "never", **lacks}

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


@functools.lru_cache(maxsize=4096)
def shaped_from(*parts: str) -> str:
    """A UUID that the same texts give each time."""
    return shaped(hashlib.sha256("/".join(parts).encode()).digest())


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


HEAD = 4096  # one page, so that writing it is one step
MOVING = ("elapsed", "counter", "faults")
MOVING_TABLES = ("cf.rate",)
TABLES = b'\n,"tables":{\n'
BETWEEN = b"\n,"
END = b"\n}}\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _fingerprint(table: Any) -> bytes | None:
    """Bytes that are equal only for equal tables, faster than JSON; None when there are none."""
    try:
        return marshal.dumps(table)
    except ValueError:
        return None


class File:
    """Keeps a world in one file that several processes may use.

    The file is one JSON object in lines. The first line has a fixed length and holds what moves with every request: the
    clock, the counters, and the ``version`` of all the rest. When only that has changed, the line is written over in
    place, in one step. Anything else makes a new file, with another version, that takes the old one's place by one
    rename; each table is one line of it, and only lines that differ are read or written anew. A caller holds a lock on
    a file beside it, and a killed one leaves the state as it was before or after a request, never between.
    """

    def __init__(self, path: Path, fresh: World) -> None:
        self._path = path
        self._new_path = path.with_name(path.name + ".new")
        self._lock_path = path.with_name(path.name + ".lock")
        self._lock = threading.RLock()
        self._depth = 0
        self._world = fresh
        self._mark: tuple[str, int, int] | None = None  # version, inode and size of the file that is known
        self._head = b""
        self._members = b""
        self._lines: dict[str, bytes] = {}
        self._fingerprints: dict[str, bytes | None] = {}
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
                self._load()
                self._depth = 1
                try:
                    yield self._world
                finally:
                    self._depth = 0
                    self._keep()
            finally:
                os.close(handle)

    # Reading ---------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        self._world.touched.clear()
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._mark = None  # all of it is to be written
            self._world.touched.update(self._world.state["tables"])
            return
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if found.st_mode & 0o077:
                os.fchmod(handle, 0o600)
            head = file.read(HEAD)
            moving = _moving(head)
            mark = None if moving is None else (str(moving["version"]), found.st_ino, found.st_size)
            if mark is None or moving is None:
                self._read_foreign(head + file.read())
                return
            if mark != self._mark:
                self._mark = None  # until all of it has been read
                self._read(file.read())
                self._mark = mark
            elif head == self._head:
                return
        self._move(moving)
        self._head = head

    def _move(self, moving: dict[str, Any]) -> None:
        state = self._world.state
        state.update({name: moving[name] for name in MOVING if name in moving})
        state["tables"].update(moving.get("moving", {}))

    def _read(self, body: bytes) -> None:
        """Everything behind the first line; of the tables, those whose lines are not the ones known already."""
        state = self._world.state
        members, _, rest = body.partition(TABLES)
        lines, tables = {}, {}
        for line in filter(None, rest.removesuffix(END).split(BETWEEN)):
            start = line.index(b'":')
            name = line[1:start].decode()
            lines[name] = line
            if line == self._lines.get(name):
                tables[name] = state["tables"][name]
            else:
                tables[name] = json.loads(line[start + 2 :])
                self._fingerprints[name] = _fingerprint(tables[name])
        self._world.state = _filled({**json.loads(b"{" + members[1:] + b"}"), "tables": tables})
        self._members, self._lines = members, lines

    def _read_foreign(self, data: bytes) -> None:
        """A state that somebody else has laid out; it is written anew in any case."""
        state = json.loads(data)
        state.pop("version", None)
        moving = state.pop("moving", {})
        state.setdefault("tables", {}).update(moving)
        self._world.state = _filled(state)
        self._world.touched.update(state["tables"])
        self._mark = None
        self._lines.clear()

    # Writing ---------------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        try:
            self._save()
        except BaseException:
            self._mark = None  # what the file says counts, and all of it is read again
            self._lines.clear()
            raise

    def _save(self) -> None:
        world = self._world
        tables = world.state["tables"]
        moving: dict[str, Any] = {name: world.state[name] for name in MOVING}
        moving["moving"] = {name: tables[name] for name in MOVING_TABLES if tables.get(name)}
        if len(_json(moving)) > HEAD - 64:
            moving = {name: world.state[name] for name in ("elapsed", "counter")}
        apart = moving.get("moving", {})
        members = b"," + _json(
            {name: value for name, value in world.state.items() if name != "tables" and name not in moving}
        ).removeprefix(b"{").removesuffix(b"}")
        changed = self._mark is None or members != self._members
        for name in world.touched | (tables.keys() ^ self._lines.keys()):
            changed |= self._renewed(name, None if name in apart else tables.get(name))
        self._members = members
        version = os.urandom(8).hex() if changed or self._mark is None else self._mark[0]
        head = _head({"version": version, **moving})
        if changed:
            self._replace(version, head)
        elif head != self._head:
            self._patch(head)
        self._head = head

    def _renewed(self, name: str, table: Any) -> bool:
        """Brings the line of one table up to date and says whether it had to be changed."""
        if not table:  # reading makes empty ones
            self._fingerprints.pop(name, None)
            return self._lines.pop(name, None) is not None
        fingerprint = _fingerprint(table)
        if name in self._lines and fingerprint is not None and fingerprint == self._fingerprints.get(name):
            return False
        self._fingerprints[name] = fingerprint
        line = _json({name: table})[1:-1]
        if line == self._lines.get(name):
            return False
        self._lines[name] = line
        return True

    def _replace(self, version: str, head: bytes) -> None:
        self._mark = None
        self._new_path.unlink(missing_ok=True)  # of somebody who was killed
        handle = os.open(self._new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(head + self._members + TABLES)
                for number, line in enumerate(self._lines.values()):
                    file.write(BETWEEN if number else b"")
                    file.write(line)
                file.write(END)
                file.flush()
                found = os.fstat(handle)
            self._new_path.replace(self._path)
        except BaseException:
            self._new_path.unlink(missing_ok=True)
            raise
        self._mark = (version, found.st_ino, found.st_size)

    def _patch(self, head: bytes) -> None:
        mark, self._mark = self._mark, None
        handle = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.pwrite(handle, head, 0) != HEAD:
                raise OSError(f"the state in {self._path} was not written")
        finally:
            os.close(handle)
        self._mark = mark


def _filled(state: dict[str, Any]) -> dict[str, Any]:
    """A state that was read, with the defaults of settings that it does not know yet."""
    return {"faults": {}, **state, "settings": merged(DEFAULTS, state["settings"])}


def _head(moving: dict[str, Any]) -> bytes:
    """The first line: what moves, filled up with blanks."""
    return _json(moving)[:-1].ljust(HEAD - 1) + b"\n"


def _moving(head: bytes) -> dict[str, Any] | None:
    """What the first line says; None when it is no such line."""
    if len(head) != HEAD or not head.startswith(b'{"version":"') or not head.endswith(b"\n"):
        return None
    try:
        found: dict[str, Any] = json.loads(head.rstrip() + b"}")
    except ValueError:
        return None
    return found
