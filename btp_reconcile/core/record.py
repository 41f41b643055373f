"""Our own notes beside a key, which make a rotation possible without a state file.

Each note is a name and one line of at most 255 characters, the length of a Service Manager label value. On Cloud
Foundry a note is an annotation `btp-reconcile-<name>`, in Service Manager a label `btp-reconcile/<name>`.

    not-after      2026-12-21T10:00:00Z                   when the certificate of an x509 key ends
    verified       v1;at=<time>;verdict=ok;scopes=<digest>
    to-<10 hex>    v1;at=<time>;of=<address>;config=…;version=…;digest=…;place=…     one receipt per consumer
    retire-after   2026-12-21T10:00:00Z                   on a superseded key: from then on it may be deleted

And one beside an instance, because a new name is an operation on it like any other, and no reason for new keys:

    only-named     v1;at=<time>;before=<time>             our operation that changed name, labels or tags alone, and
                                                          when more was changed last before it
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from btp_reconcile.core.fingerprint import NEAR, epoch
from btp_reconcile.core.times import date

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from btp_reconcile.core.model import Address, Fact

LIMIT = 255
NOT_AFTER = "not-after"
NO_CERTIFICATE = "none"
"""In its place for a key that was to have a certificate and has none."""
VERIFIED = "verified"
RETIRE_AFTER = "retire-after"
RECEIPT = "to-"
ONLY_NAMED = "only-named"
_SAFE = ":/ @+,=!$&'()*~"
_LONGEST_ADDRESS = 90
_LONGEST_VERSION = 64


@dataclass(frozen=True)
class Receipt:
    """That a consumer was given a key."""

    of: str
    """The delivery's or destination's address, as a text; cut short when it is very long."""
    at: str
    """RFC 3339, UTC."""
    config: str = ""
    """Short digest of what the spec said about it."""
    version: str = ""
    digest: str = ""
    """What the consumer held afterwards: see `core.sink.Held`."""
    place: str = ""
    """Where that is, in words."""


WORKS = frozenset({"ok", "expires-soon", "skipped"})
"""Verdicts (`core.verdict.Word`) after which a consumer may be given a key."""
NO_USE = frozenset({"token-refused", "shape-error", "forbidden"})
"""Verdicts that speak against the key itself; `unreachable` says nothing about it."""


@dataclass(frozen=True)
class Proof:
    """That a key was tried out."""

    at: str
    verdict: str
    scopes: str = ""
    """Digest of the scopes of its token."""

    @property
    def works(self) -> bool:
        return self.verdict in WORKS

    @property
    def no_use(self) -> bool:
        return self.verdict in NO_USE


def moment(seconds: float) -> str:
    """Epoch seconds as notes write them."""
    found = date(seconds)
    return f"{found.year:04}{found:-%m-%dT%H:%M:%SZ}"


def receipt_name(address: Address) -> str:
    """The name of a consumer's receipt."""
    return RECEIPT + hashlib.sha256(str(address).encode()).hexdigest()[:10]


def receipt_text(receipt: Receipt) -> str:
    """One line; the place is cut short when it does not fit."""
    address = receipt.of if len(receipt.of) <= _LONGEST_ADDRESS else receipt.of[: _LONGEST_ADDRESS - 1] + "…"
    fields = {
        "at": receipt.at,
        "of": address,
        "config": receipt.config,
        "version": receipt.version if len(quote(receipt.version, safe=_SAFE)) <= _LONGEST_VERSION else "",
        "digest": receipt.digest,
    }
    text = _line(fields)
    place = quote(receipt.place, safe=_SAFE)
    room = LIMIT - len(text) - len(";place=")
    if len(place) > room:
        place = ""
        for sign in receipt.place:
            if len(place) + len(quote(sign, safe=_SAFE)) > room - 9:  # room for a quoted ellipsis
                break
            place += quote(sign, safe=_SAFE)
        place += quote("…")
    return f"{text};place={place}" if receipt.place and room > len(quote("…")) else text


def proof_text(proof: Proof) -> str:
    return _line({"at": proof.at, "verdict": proof.verdict, "scopes": proof.scopes})


def receipts(fact: Fact) -> dict[str, Receipt]:
    """The receipts on a key, by their names. What cannot be read is none."""
    found = {}
    for name, text in fact.record.items():
        fields = _fields(text) if name.startswith(RECEIPT) else {}
        if epoch(fields.get("at", "")) is not None and fields.get("of"):
            found[name] = Receipt(
                fields["of"],
                fields["at"],
                *(fields.get(one, "") for one in ("config", "version", "digest", "place")),
            )
    return found


def receipt_of(fact: Fact | None, address: Address) -> Receipt | None:
    """The receipt of one consumer on a key."""
    return receipts(fact).get(receipt_name(address)) if fact is not None else None


def former_receipts(fact: Fact, formerly: Sequence[Address]) -> list[str]:
    """The names of receipts on a key that a consumer was given under addresses it does not have any more."""
    return [name for name in map(receipt_name, formerly) if name in fact.record]


def proof_of(fact: Fact | None) -> Proof | None:
    """When a key was last tried out, and how that ended."""
    fields = _fields(fact.record.get(VERIFIED, "")) if fact is not None else {}
    if epoch(fields.get("at", "")) is None or not fields.get("verdict"):
        return None
    return Proof(fields["at"], fields["verdict"], fields.get("scopes", ""))


def not_after(fact: Fact | None) -> float | None:
    """When its certificate ends, in epoch seconds; None: it has none, or that is not noted."""
    return epoch(fact.record.get(NOT_AFTER, "")) if fact is not None else None


def ends_noted(fact: Fact) -> bool:
    """Is it noted when its certificate ends, in a way that can be read?"""
    return fact.record.get(NOT_AFTER) == NO_CERTIFICATE or not_after(fact) is not None


def retire_after(fact: Fact) -> float | None:
    """From when on it may be deleted, in epoch seconds; None while a consumer may still use it."""
    return epoch(fact.record.get(RETIRE_AFTER, ""))


def named_text(at: str, before: Fact) -> str:
    """That an operation changes no more of an instance than what it is called. `before`: as it was until then."""
    return _line({"at": at, "before": changed_at(before)})


def changed_at(instance: Fact) -> str:
    """When more was changed of an instance than what it is called, as far as its last operation says; empty: never.

    Cloud Foundry's operation is known exactly when the note is written. Service Manager's begins with the request that
    carries the note, so one made about then is believed to be ours.
    """
    operation = instance.operation
    if operation is None or (operation.type, operation.state) != ("update", "succeeded"):
        return ""
    fields = _fields(instance.record.get(ONLY_NAMED, ""))
    at, noted = epoch(operation.at), epoch(fields.get("at", ""))
    if at is None or noted is None:
        return operation.at
    near = NEAR if instance.runtime == "other" else (0.0, 0.0)
    return fields.get("before", "") if near[0] <= at - noted <= near[1] else operation.at


def _line(fields: Mapping[str, str]) -> str:
    return "v1" + "".join(f";{name}={quote(value, safe=_SAFE)}" for name, value in fields.items() if value)


def _fields(text: str) -> dict[str, str]:
    head, *items = text.split(";")
    if head != "v1":
        return {}
    return {name: unquote(value) for name, _, value in (item.partition("=") for item in items)}
