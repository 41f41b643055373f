"""A short record of the parameters last applied, kept on the platform beside the thing itself.

Brokers seldom return parameters, so drift in them can only be seen by what we wrote down. The record is one
line of at most 255 characters (the length of a Service Manager label value):

    v1;all=<16 hex>;role=<8 hex>;at=<time>

`all` is a digest of all parameters (after it `by=` names the key that secrets were hashed with, if there are any), then
one short digest per top-level parameter while there is room, then one of three notes on when it was written:

- nothing: written in the creating request; it holds while the last operation is that creation;
- `at=`: the exact time of our last operation (Cloud Foundry, written after the update ended: "sealed");
- `since=`: an update was started and nobody sealed it: it was cut short, and is sent again;
- `near=`: epoch seconds of our last update (Service Manager, whose operations carry the time of the request).

Secrets enter only by HMAC with a key of the user's; without the key they are left out and shown as unknown. So are
those that were written down with another key than today's, or before there was one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from btp_reconcile.core.model import FieldChange, Secret, Seen

if TYPE_CHECKING:
    from btp_reconcile.core.model import Data, Operation

LIMIT = 255
NO_KEY = "a value from outside; access.fingerprint_key would make its change visible"
OTHER_KEY = "a value from outside, written down with another access.fingerprint_key or without one"
NEAR = (-30.0, 120.0)
"""Seconds around `near=` in which an operation is believed to be ours (clocks and answers differ a little)."""


@dataclass(frozen=True)
class Record:
    """A fingerprint, read. `whole` is empty when the text is none of ours."""

    whole: str = ""
    parts: Mapping[str, str] | None = None
    """top-level parameter → digest; None when there was no room for them."""
    at: str = ""
    since: str = ""
    near: float | None = None
    by: str = ""
    """Which key the secrets were hashed with; empty when there was none, or no secret."""


def write(parameters: Data, key: Secret | None = None) -> str:
    """The record of these parameters, without a note on the time."""
    head = f"v1;all={_digest(parameters, key)[:16]}"
    if holds_secret(parameters) and key is not None:
        head += f";by={_name(key)}"
    parts = "".join(
        f";{quote(name, safe='')}={_digest(value, key)[:8]}" for name, value in sorted(parameters.items())
    )
    room = LIMIT - len(head) - len(";since=2026-01-01T00:00:00.123456Z")
    return head + (";-" if len(parts) > room else parts)


@lru_cache(maxsize=1_000)
def read(text: str) -> Record:
    """Never fails: a text that is none of ours is a record of nothing."""
    if not text.startswith("v1;all="):
        return Record()
    notes: dict[str, str] = {}
    parts: dict[str, str] | None = {}
    whole = ""
    for index, item in enumerate(text.split(";")[1:]):
        name, _, value = item.partition("=")
        if index == 0:
            whole = value
        elif item == "-":
            parts = None
        elif name in {"at", "since", "near", "by"} and len(value) != 8:
            notes[name] = value
        elif parts is not None:
            parts[unquote(name)] = value
    near_ = _number(notes.get("near"))
    return Record(whole, parts, notes.get("at", ""), notes.get("since", ""), near_, notes.get("by", ""))


def bare(text: str) -> str:
    """The record without its note on the time."""
    kept = [
        item
        for item in text.split(";")
        if not (item.startswith(("at=", "since=", "near=")) and len(item.partition("=")[2]) != 8)
    ]
    return ";".join(kept)


def sealed(text: str, at: str) -> str:
    return f"{bare(text)};at={at}"


def unsealed(text: str, since: str) -> str:
    return f"{bare(text)};since={since or 'ever'}"


def near(text: str, epoch: float) -> str:
    return f"{bare(text)};near={epoch:.3f}"


@dataclass(frozen=True)
class Trust:
    """How far a record can be believed: `seen`, why not, and whether an update of ours was cut short."""

    seen: Seen
    why: str = ""
    cut_short: bool = False


def trust(text: str, operation: Operation | None) -> Trust:
    """Does the record still describe what the platform has?"""
    record = read(text)
    if not record.whole:
        return Trust(Seen.UNKNOWN, "no record of the parameters last applied")
    if operation is None or operation.type == "create":
        return Trust(Seen.ASSUMED)
    if operation.type == "delete":
        return Trust(Seen.UNKNOWN, "a deletion was tried since")
    if operation.state == "failed":
        return Trust(Seen.ASSUMED, cut_short=record.near is not None)
    if record.since:
        return Trust(Seen.ASSUMED, cut_short=True)
    if record.at and record.at == operation.at:
        return Trust(Seen.ASSUMED)
    if record.near is not None and _within(record.near, operation.at):
        return Trust(Seen.ASSUMED)
    return Trust(Seen.UNKNOWN, "changed by others since")


def compare(
    text: str, parameters: Data, key: Secret | None, known: Mapping[str, Sequence[str]]
) -> tuple[FieldChange, ...]:
    """What differs between the record and the parameters wanted, one entry per top-level parameter that does.

    `known` gives the values a parameter can have; with them the value before can be named, not only its change.
    """
    record = read(text)
    if record.parts is None:
        if record.whole == _digest(parameters, key)[:16]:
            return ()
        if _hashed_otherwise(record, record.whole, parameters, key):
            return (_unknown("parameters", parameters, OTHER_KEY),)
        return (FieldChange("parameters", "(as last applied)", parameters, Seen.ASSUMED),)
    fields = []
    for name in sorted({*record.parts, *parameters}):
        path = f"parameters.{name}"
        before, value = record.parts.get(name), parameters.get(name)
        if name in parameters and before == _digest(value, key)[:8]:
            if key is None and holds_secret(value):
                fields.append(_unknown(path, value, NO_KEY))
            continue
        if name in parameters and before and _hashed_otherwise(record, before, value, key):
            fields.append(_unknown(path, value, OTHER_KEY))
            continue
        fields.append(FieldChange(path, _before(before, known.get(name, ()), key), value, Seen.ASSUMED))
    return tuple(fields)


def _unknown(path: str, value: Any, note: str) -> FieldChange:
    return FieldChange(path, None, value, Seen.UNKNOWN, changes=False, note=note)


def _hashed_otherwise(record: Record, before: str, value: Any, key: Secret | None) -> bool:
    """Was this written down with another key, or without one? Then a different digest shows no change."""
    if not holds_secret(value) or record.by == (_name(key) if key else ""):
        return False
    return bool(record.by) or before == _digest(value, None)[: len(before)]


def _name(key: Secret) -> str:
    """Six digits that tell one key from another."""
    return hmac.new(key.reveal().encode(), b"btp-reconcile", hashlib.sha256).hexdigest()[:6]


def holds_secret(value: Any) -> bool:
    """Is there a value from outside anywhere in it?"""
    if isinstance(value, Secret):
        return True
    if isinstance(value, Mapping):
        return any(holds_secret(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(holds_secret(item) for item in value)


def _before(digest: str | None, known: Sequence[str], key: Secret | None) -> Any:
    if digest is None:
        return None
    for value in known:
        if _digest(value, key)[:8] == digest:
            return value
    return "(another value)"


def _digest(value: Any, key: Secret | None) -> str:
    def plain(item: object) -> object:
        if not isinstance(item, Secret):
            raise TypeError(f"{type(item).__name__} is no JSON value")
        if key is None:
            return {"$left out": item.name}
        return {"$hmac": hmac.new(key.reveal().encode(), item.reveal().encode(), hashlib.sha256).hexdigest()}

    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _within(near_: float, at: str) -> bool:
    moment = epoch(at)
    return moment is not None and NEAR[0] <= moment - near_ <= NEAR[1]


def epoch(text: str) -> float | None:
    """RFC 3339 with any number of fraction digits → epoch seconds; None when it is no time."""
    if not text:
        return None
    head, dot, tail = text.strip().replace("z", "Z").partition(".")
    digits = ""
    while tail[:1].isdecimal():
        digits, tail = digits + tail[0], tail[1:]
    try:
        moment = datetime.fromisoformat(head + (tail if dot else ""))
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return moment.timestamp() + (float("0." + digits) if digits else 0.0)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
