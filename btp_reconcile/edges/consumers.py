"""Sinks, opened: which access opens which, once per run; and the rehearsal, which records what it would deliver."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import digest
from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.sink import Held, Identity
from btp_reconcile.edges import files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from btp_reconcile.core.model import Data, Subaccount
    from btp_reconcile.core.sink import Around, Consumer, Parcel, Sink

SINK = "sink/"


@dataclass(frozen=True, eq=False)
class SinkDoor:
    """An opened sink in the place of a service's door."""

    service: str
    scope: str
    consumer: Consumer


class Consumers:
    """All sinks of one run."""

    def __init__(
        self, sinks: Sequence[Sink], access: Mapping[str, Mapping[str, Any]], around: Around
    ) -> None:
        self._sinks = {sink.name: sink for sink in sinks}
        self._access = access
        self._around = around
        self._lock = threading.Lock()
        self._doors: dict[tuple[str, str], SinkDoor] = {}

    def door(self, service: str, subaccount: Subaccount) -> SinkDoor:
        """The sink of that name, opened with the access of this subaccount. Equal access: the same door.

        Raises SpecError when the access lacks something.
        """
        name = service.removeprefix(SINK)
        given = self._access.get(subaccount.name, {}).get(name) or {}
        key = (name, digest.of_json("access", given))
        with self._lock:
            if key not in self._doors:
                consumer = self._sinks[name].open(given, self._around)
                number = sum(one == name for one, _ in self._doors) + 1
                self._doors[key] = SinkDoor(service, f"{name} {number}", consumer)
            return self._doors[key]

    def close(self) -> None:
        """Let go of every connection."""
        for door in self._doors.values():
            door.consumer.close()


class Rehearsed:
    """Sinks of a rehearsal: what would be delivered is written down without any secret, and goes nowhere."""

    def __init__(
        self, sinks: Sequence[Sink], file: Path, really: frozenset[str], real: Consumers, files: Consumers
    ) -> None:
        self._sinks = {sink.name: sink for sink in sinks}
        self._file = file
        self._really = really
        self._real = real
        self._files = files
        self._lock = threading.Lock()

    def door(self, service: str, subaccount: Subaccount) -> SinkDoor:
        """A recorder; files, in a folder of the sandbox's; or the real sink if the command line names it."""
        name = service.removeprefix(SINK)
        if name in self._really:
            return self._real.door(service, subaccount)
        if name == "file":
            return self._files.door(service, subaccount)
        recorder = _Recorder(self._sinks[name], subaccount.id, self._file, self._lock)
        return SinkDoor(service, f"rehearsed {name} {subaccount.name}", recorder)

    def close(self) -> None:
        """Let go of the sinks that are real."""
        self._real.close()
        self._files.close()


@dataclass(frozen=True, eq=False)
class _Recorder:
    """One sink of a rehearsal. Its file holds identities and digests only."""

    sink: Sink
    subaccount: str
    """Its id: each subaccount may have a Vault of its own, where the same path is another place."""
    file: Path
    lock: threading.Lock

    def look(self, block: Data) -> Held | None:
        with self.lock:
            return self._known(_recorded(self.file), block)

    def put(self, block: Data, parcel: Parcel, found: Held | None) -> Held:
        del found
        with self.lock:
            known = _recorded(self.file)
            before = self._known(known, block)
            version = 1 + int(before.version if before is not None else 0)
            held = Held(str(version), digest.of_json(parcel.identity.key, parcel.content), parcel.identity)
            known[self._name(block)] = {
                "version": held.version,
                "digest": held.digest,
                "identity": asdict(parcel.identity),
            }
            _write(self.file, known)
        # What cannot be looked at is not seen in a rehearsal either.
        return held if self.sink.can_look else replace(held, version="", digest="")

    def _known(self, recorded: Mapping[str, Any], block: Data) -> Held | None:
        said = recorded.get(self._name(block))
        if said is None:
            return None
        try:
            return Held(str(int(said["version"])), str(said["digest"]), Identity(**said["identity"]))
        except (LookupError, TypeError, ValueError):
            raise _unreadable(self.file, "something else was written into it") from None

    def close(self) -> None:
        """Nothing is open."""

    def _name(self, block: Data) -> str:
        return f"{self.subaccount} {self.sink.name} {self.sink.place(block)}"


def _recorded(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(files.whole(file))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unreadable(file, getattr(error, "strerror", None) or "it is no JSON") from None
    if not isinstance(found, dict):
        raise _unreadable(file, "something else was written into it")
    return found


def _unreadable(file: Path, why: str) -> PlatformError:
    said = f"{file} cannot be read: {why}; `reconcile sandbox reset` starts anew"
    return PlatformError(Blame("sandbox", message=said))


def _write(file: Path, what: Mapping[str, Any]) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(what, out)
        Path(name).replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        said = f"{file} cannot be written: {error.strerror}; name another place with --state FILE"
        raise PlatformError(Blame("sandbox", message=said)) from None
