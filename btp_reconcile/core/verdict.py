"""What trying a key showed: the verdict as a value, which keys are tried, and how verdicts are told."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import marks, report
from btp_reconcile.core.model import Action, Address, Fact, Phase, Secret
from btp_reconcile.core.record import WORKS, proof_of
from btp_reconcile.core.resolve import SERVICE_OF_RUNTIME
from btp_reconcile.core.times import about

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from btp_reconcile.core.model import Change, Facts, Plan, Resource, Wanted
    from btp_reconcile.core.report import Line

FORMAT = "btp-reconcile/verify"
VERSION = 1


class Word(StrEnum):
    """The closed list of verdicts."""

    OK = "ok"
    EXPIRES_SOON = "expires-soon"
    """It works, and its certificate ends within days."""
    SKIPPED = "skipped"
    """Nothing that would be harmless is known to be asked, or there is no key to try yet."""
    FORBIDDEN = "forbidden"
    """It signs in, and may not do what it is for: another role, or a capability that is not active."""
    SHAPE_ERROR = "shape-error"
    """The key lacks a field, or holds one that cannot be used."""
    TOKEN_REFUSED = "token-refused"
    """Its credentials, or the token they gave, are not accepted."""
    UNREACHABLE = "unreachable"
    """Nobody answered, or somebody else did."""


class Waits(StrEnum):
    """Why a key could not be tried at all. Empty: it could."""

    NOTHING = ""
    PENDING = "pending"
    """It is not there yet; a later run will find it."""
    GATE = "gate"
    """A person must act first."""
    CONFLICT = "conflict"
    """Something else has its name, or its place is not the one that was meant."""
    UNSEEN = "unseen"
    """The platform could not be asked about it."""


@dataclass(frozen=True)
class Verdict:
    """How trying one generation of one key ended. Holds no secret, and no word of the answer's data."""

    address: Address
    generation: int
    verdict: Word
    type: str = ""
    """How it signs in: `secret`, `x509`, or empty when that is not known."""
    client_id: str = ""
    token_seconds: int = 0
    """How long its tokens live."""
    status: int = 0
    """HTTP status of the last answer; 0: there was none."""
    seconds: float = 0.0
    """How long the last answer took."""
    requests: int = 0
    """Requests sent with this key, the one for a token and repeats included."""
    not_after: str = ""
    """RFC 3339, UTC: when its certificate ends."""
    scopes: str = ""
    """Digest of the rights that its token names; see `scopes_digest`. Empty: it names none."""
    rights: tuple[str, ...] = ()
    """These rights, by the last part of their names."""
    scope_changed: bool = False
    """Are they others than those that were recorded? The only sign of a changed role that no API returns."""
    detail: str = ""
    hint: str = ""
    waits: Waits = Waits.NOTHING

    @property
    def works(self) -> bool:
        """May a consumer be given this key, as far as can be told?"""
        tried = self.waits is Waits.NOTHING
        return tried and self.verdict in WORKS


# --- scopes ---------------------------------------------------------------------------------------------

_SCOPE = re.compile(r"(?:[^|]*\|)?(?P<application>[^|!]+)!\w+\.(?P<right>.+)", re.ASCII)
"""XSUAA: `<clone>!b10|<application>!b20.<right>`. The clone belongs to one instance, the numbers to one landscape."""


def _parts(scope: str) -> tuple[str, str]:
    match = _SCOPE.fullmatch(scope)
    return (match["application"], match["right"]) if match else ("", scope)


def scopes_digest(scopes: Iterable[str]) -> str:
    """16 hexadecimal digits that stand for the rights in a token; empty for no scopes at all.

    What belongs to one instance or landscape is left out, so equal roles have equal digests wherever they are: a new
    generation of a key, or of its whole instance, can be compared with the one before.
    """
    found = sorted({".".join(part for part in _parts(one) if part) for one in scopes})
    return hashlib.sha256(" ".join(found).encode()).hexdigest()[:16] if found else ""


def rights(scopes: Iterable[str]) -> tuple[str, ...]:
    """The rights in a token as people know them, sorted."""
    return tuple(sorted({_parts(one)[1] for one in scopes}))


# --- which keys are tried -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A wanted key, and the generation of it that is to be tried; None: there is none to try."""

    address: Address
    generation: int
    service: str
    plan: str
    role: str | None = None
    found: Fact | None = None
    recorded: str = ""
    """The digest of the scopes that it had when it was last proven."""
    waits: Waits = Waits.NOTHING
    detail: str = ""

    def untried(self) -> Verdict:
        """The verdict on a key that cannot be tried."""
        return Verdict(self.address, self.generation, Word.SKIPPED, detail=self.detail, waits=self.waits)


def candidates(
    plan: Plan, wanted: Wanted, facts: Facts, targets: Sequence[Address] = ()
) -> tuple[Candidate, ...]:
    """Every wanted key among the targets, with its newest generation that can be used now."""
    changes = {change.address: change for change in plan.changes}
    resources = {one.address: one for one in wanted.resources}
    return tuple(
        _candidate(key, resources, changes, plan, facts)
        for key in wanted.of("key")
        if not key.absent and key.address.subaccount not in wanted.theirs and _meant(key.address, targets)
    )


def _meant(address: Address, targets: Sequence[Address]) -> bool:
    return not targets or any(address.within(one) or one.within(address) for one in targets)


def _candidate(
    key: Resource,
    resources: Mapping[Address, Resource],
    changes: Mapping[Address, Change],
    plan: Plan,
    facts: Facts,
) -> Candidate:
    instance = resources.get(key.parent) if key.parent else None
    change = changes.get(key.address)
    around = changes.get(instance.address) if instance else None
    found = _usable(key, change, instance, around, facts)
    newest = found.mark.generation if found and found.mark else 1
    made = Candidate(
        key.address,
        newest,
        key.spec["service"],
        key.spec["plan"],
        role_of(instance),
        found,
        proof.scopes if (proof := proof_of(found)) else "",
    )
    if found is not None:
        return made
    generation = change.generation if change else 1
    waits, detail = _why_not(key, change, around, plan, facts)
    return Candidate(key.address, generation, made.service, made.plan, made.role, waits=waits, detail=detail)


def role_of(instance: Resource | None) -> str | None:
    """The role that keys of an instance have; None: the spec says none, and the service gives its own."""
    role = instance.spec["parameters"].get("role") if instance else None
    if isinstance(role, Secret):
        return role.reveal()
    return role if isinstance(role, str) else None


def _usable(
    key: Resource, change: Change | None, instance: Resource | None, around: Change | None, facts: Facts
) -> Fact | None:
    parents = {one.id for one in facts.of("instance") if instance and marks.stands_for(one, instance)}
    if around is not None and around.found is not None:
        parents.add(around.found.id)
    ours = [one for one in facts.of("key") if one.parent in parents and marks.stands_for(one, key)]
    pool = [*ours, *((change.found,) if change is not None and change.found is not None else ())]
    ready = [one for one in pool if one.phase is Phase.READY]
    return max(ready, key=lambda one: one.mark.generation if one.mark else 0, default=None)


def _why_not(
    key: Resource, change: Change | None, around: Change | None, plan: Plan, facts: Facts
) -> tuple[Waits, str]:
    """Why there is nothing to try, in the order of the exit codes."""
    about_it = {key.address, key.parent}
    for one in plan.objections:
        if one.code.startswith("conflict/") and one.address in about_it:
            return Waits.CONFLICT, one.message
    unseen = facts.unseen.get((key.address.subaccount, SERVICE_OF_RUNTIME[key.spec["runtime"]]))
    if unseen is not None:
        return Waits.UNSEEN, unseen.message
    for one_change in (change, around):
        if one_change is not None and one_change.gate:
            return Waits.GATE, one_change.gate
    if change is not None and change.action is Action.AWAIT:
        return Waits.PENDING, f"not there yet: {change.reason}"
    return Waits.PENDING, "not there yet: `reconcile plan` says what makes it"


# --- JSON and text --------------------------------------------------------------------------------------


def verdicts_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """One object per key, as plain data."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "summary": {str(word): sum(one.verdict is word for one in verdicts) for word in Word},
        "keys": [_json(one) for one in verdicts],
    }


def _json(one: Verdict) -> dict[str, Any]:
    data: dict[str, Any] = {
        "address": str(one.address),
        "generation": one.generation,
        "verdict": str(one.verdict),
        "requests": one.requests,
        "seconds": round(one.seconds, 3),
    }
    said = {
        "type": one.type,
        "client_id": one.client_id,
        "token_seconds": one.token_seconds,
        "status": one.status,
        "not_after": one.not_after,
        "scopes": one.scopes,
        "rights": list(one.rights),
        "scope_changed": one.scope_changed,
        "waits": str(one.waits),
        "detail": one.detail,
        "hint": one.hint,
    }
    return data | {name: value for name, value in said.items() if value}


_COLOURS = {
    "ok": "green",
    "expires-soon": "yellow",
    "skipped": "",
    "forbidden": "yellow",
    "shape-error": "red",
    "token-refused": "red",
    "unreachable": "red",
}


def verdicts_text(data: Mapping[str, Any]) -> Iterable[Line]:
    """A line per key, what to do below it, and the count."""
    return ((style, report.printable(text)) for style, text in _lines(data))


def _lines(data: Mapping[str, Any]) -> Iterable[Line]:
    for one in data["keys"]:
        generation = one["generation"]
        suffix = f" (generation {generation})" if generation > 1 else ""
        yield (
            _COLOURS[one["verdict"]],
            f"  {one['verdict']:<13} {one['address']}{suffix}: {'; '.join(_said(one))}",
        )
        if one.get("hint"):
            yield "dim", f"      {one['hint']}"
    count = data["summary"]
    parts = [f"{number} {word}" for word, number in count.items() if number]
    good = count["ok"] == len(data["keys"])
    yield "bold" if good or not data["keys"] else "", f"Verify: {', '.join(parts) or 'no key is wanted'}."


def _said(one: Mapping[str, Any]) -> Iterable[str]:
    """What a line says after the address."""
    if one.get("detail"):
        yield one["detail"]
    good = one["verdict"] in {"ok", "expires-soon"}
    if one.get("scope_changed"):
        yield "its rights are others than when it was last proven"
    if good or not one.get("detail"):
        how = {"x509": "by certificate", "secret": "by secret"}.get(one.get("type", ""), "")
        minutes = round(one.get("token_seconds", 0) / 60)  # a token of 12 hours is a second old when it comes
        lives = f"token for {about(minutes * 60)}" if minutes else ""
        status = f"{one['status']} in {one['seconds']:.1f} s" if one.get("status") else ""
        yield ", ".join(part for part in (how, lives, status) if part)
    elif one.get("client_id") and one["client_id"] not in one["detail"]:
        yield f"client {one['client_id']}"


# --- exit code ------------------------------------------------------------------------------------------


def verdicts_exit(verdicts: Sequence[Verdict]) -> int:
    """What `reconcile verify` ends with. A certificate that expires soon is said, and is no failure."""
    words, waits = {one.verdict for one in verdicts}, {one.waits for one in verdicts}
    if Waits.CONFLICT in waits:
        return report.REFUSED
    if words & {Word.UNREACHABLE, Word.TOKEN_REFUSED, Word.SHAPE_ERROR} or Waits.UNSEEN in waits:
        return report.FAILED
    if Word.FORBIDDEN in words or Waits.GATE in waits:
        return report.PERSON
    return report.PENDING if Waits.PENDING in waits else report.DONE
