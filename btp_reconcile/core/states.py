"""What state each thing is in: is it as the spec says, and can it be used? A reading of the plan, nothing decides by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from btp_reconcile.core import record
from btp_reconcile.core.fingerprint import epoch
from btp_reconcile.core.model import Action, Address, Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from btp_reconcile.core.model import Change, Fact, Problem, Resource
    from btp_reconcile.core.view import View

SOON = 7 * 86400
"""Seconds before its end in which a certificate counts as expiring. For a key that is renewed in time by itself it is at
most the last third of its life: before that nobody has to care.
"""


class Sync(StrEnum):
    """Is it as the spec says?"""

    IN_SYNC = "in-sync"
    DRIFTED = "drifted"
    """It is there, and differs; or it is there, and should not be."""
    MISSING = "missing"
    """It should be there, and is not; what is half-made is not there yet."""
    UNMANAGED = "unmanaged"
    """It carries the mark of a loaded spec, and that spec does not name it any more."""
    CONFLICTING = "conflicting"
    """Something else has its name or its place, or two addresses stand for it."""
    UNKNOWN = "unknown"
    """It could not be looked at, or the platform is just changing it."""


class Health(StrEnum):
    """Can it be used?"""

    READY = "ready"
    PENDING = "pending"
    """Not yet: the platform is at work, or the next apply makes it."""
    FAILED = "failed"
    """Its last operation failed and left it unusable, or its certificate has ended."""
    BLOCKED = "blocked"
    """A person must act first, or something that stands in its way must go."""
    EXPIRING = "expiring"
    """It works, and its certificate ends soon; see `SOON`."""


@dataclass(frozen=True)
class State:
    """Both at once."""

    sync: Sync
    health: Health


@dataclass(frozen=True)
class Unplanned:
    """A wanted thing without a change: what stands in the way of saying more."""

    resource: Resource
    state: State
    reason: str


@dataclass(frozen=True)
class States:
    """The states of everything that a plan speaks of."""

    changes: Mapping[Address, State] = field(default_factory=dict)
    unplanned: tuple[Unplanned, ...] = ()
    unmanaged: tuple[tuple[Address, State], ...] = ()
    """In the order of `Plan.unmanaged`, with the address that each would have."""


def read(
    changes: Sequence[Change],
    unmanaged: Iterable[tuple[Address, Fact]],
    objections: Iterable[Problem],
    view: View,
) -> States:
    """The states at the moment that the policy names."""
    stands: dict[Address, Problem] = {}
    for one in objections:
        if one.address is not None and not one.code.startswith("safety/"):
            stands.setdefault(one.address, one)
    found = {one.address: _state(one, stands.get(one.address), view.policy.now) for one in changes}
    return States(
        found,
        tuple(_unplanned(found, stands, view)),
        tuple((address, State(Sync.UNMANAGED, _at_rest(fact.phase))) for address, fact in unmanaged),
    )


def _state(change: Change, stands: Problem | None, now: float) -> State:
    health = _health(change, now)
    if stands is not None and health is not Health.FAILED:
        health = Health.BLOCKED
    if stands is not None and stands.code.startswith("conflict/"):
        return State(Sync.CONFLICTING, health)
    return State(_sync(change), health)


def _sync(change: Change) -> Sync:
    if change.action is Action.CREATE:
        return Sync.MISSING
    if change.action is Action.AWAIT:
        return _sync_of_awaited(change)
    if change.action is Action.DELETE and change.wanted is None:
        return Sync.UNMANAGED
    if change.action is Action.KEEP and change.found is None:
        if any(one.path == "exists" and one.after for one in change.fields):
            return Sync.MISSING
        if not change.fields:
            return Sync.UNKNOWN
    return Sync.DRIFTED if change.drifted else Sync.IN_SYNC


def _sync_of_awaited(change: Change) -> Sync:
    """What is waited for: by what is known of it now, which is little while the platform is at work."""
    found, wanted = change.found, change.wanted
    if found is None or found.phase is Phase.BROKEN:
        return Sync.MISSING
    if found.phase is Phase.READY:
        return Sync.DRIFTED if change.drifted else Sync.IN_SYNC
    doing = found.operation.type if found.operation else ""
    if doing == "delete":
        return Sync.DRIFTED if wanted is not None and wanted.absent else Sync.MISSING
    return Sync.MISSING if doing == "create" else Sync.UNKNOWN


def _health(change: Change, now: float) -> Health:
    found = change.found
    if found is not None and found.phase is Phase.BROKEN:
        return Health.FAILED
    ends = record.not_after(found)
    if ends is not None and ends <= now:
        return Health.FAILED
    if change.gate:
        return Health.BLOCKED
    if change.action is Action.CREATE:
        return Health.PENDING
    if found is None:
        # Nobody makes what is only watched; what was delivered where nobody can look has its record to go by.
        delivered = change.fields and not any(one.changes for one in change.fields)
        return Health.READY if delivered else Health.BLOCKED
    if found.phase is Phase.PENDING:
        return Health.PENDING
    return Health.EXPIRING if ends is not None and ends - now < _soon(change, found, ends) else Health.READY


def _soon(change: Change, found: Fact, ends: float) -> float:
    made = epoch(found.created_at)
    renewed = change.wanted is not None and change.wanted.rotate_after is not None
    return min(SOON, (ends - made) / 3) if renewed and made is not None else SOON


def _at_rest(phase: Phase) -> Health:
    return {Phase.READY: Health.READY, Phase.PENDING: Health.PENDING, Phase.BROKEN: Health.FAILED}[phase]


def _unplanned(
    found: Mapping[Address, State], stands: Mapping[Address, Problem], view: View
) -> Iterable[Unplanned]:
    """Wanted things of which no change could be worked out, in dependency order."""
    if view.policy.only_due:
        return
    reasons: dict[Address, str] = {}
    targets = view.policy.targets
    for address, resource in view.resources.items():
        if address in view.changes or address in found or address.subaccount in view.wanted.theirs:
            continue
        own = stands.get(address)
        if own is None and (resource.absent or _told_by_its_instance(resource, view)):
            continue
        needed = next((one for one in resource.requires if one in reasons), None)
        if own is not None:
            reasons[address] = own.message
        elif needed is not None:
            reasons[address] = f"it needs {needed}, of which nothing can be said"
        else:
            reasons[address] = _unseen(address.subaccount, view)
        if targets and not any(address.within(one) for one in targets):
            continue
        conflict = own is not None and own.code.startswith("conflict/")
        sync = Sync.CONFLICTING if conflict else Sync.UNKNOWN
        yield Unplanned(resource, State(sync, Health.BLOCKED), reasons[address])


def _told_by_its_instance(resource: Resource, view: View) -> bool:
    """Without the right to look at entitlements, the instance that needs one says whether it can be made."""
    unseen = view.unseen(resource.address.subaccount, "entitlements")
    closed = unseen is not None and unseen.code == "access/none"
    return resource.address.kind == "entitlement" and bool(resource.spec.get("implied")) and closed


def _unseen(subaccount: str, view: View) -> str:
    """What of its subaccount could not be looked at."""
    said = dict.fromkeys(
        problem.message for (name, _), problem in view.facts.unseen.items() if name == subaccount
    )
    return "; ".join(said) or "its subaccount is not where the spec looks for it"
