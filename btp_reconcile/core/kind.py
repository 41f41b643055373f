"""What a kind must say, and what a driver may ask of the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from btp_reconcile.core.model import (
        Change,
        Data,
        Fact,
        Json,
        Problem,
        Resource,
        Step,
        StepId,
        Subaccount,
        Wanted,
    )
    from btp_reconcile.core.sink import Parcel
    from btp_reconcile.core.view import View

Query = Sequence[tuple[str, str]]
"""Query parameters, not yet encoded, in order."""


@dataclass(frozen=True)
class Answer:
    """One good answer of a service. `body` is the parsed JSON, None when there was none."""

    status: int
    headers: Mapping[str, str]
    body: Json = None


class Door(Protocol):
    """One service in one scope, already signed in. Raises `errors.PlatformError` and its kin, nothing else."""

    @property
    def service(self) -> str:
        """`cloud_foundry`, `service_manager`, `entitlements`, `accounts` or `destination`."""

    @property
    def scope(self) -> str:
        """Endpoint and user in one text; equal for subaccounts that can be asked together. Not secret."""

    def get(self, path: str, query: Query = ()) -> Any:
        """The JSON at a path. Repeated as the one retry policy says."""

    def read(self, path: str, query: Query = ()) -> Answer:
        """The JSON at a path, with the headers it came with."""

    def pages(self, path: str, query: Query = ()) -> Iterator[Any]:
        """Every page of a list, in the service's own way of paging."""

    def send(self, method: str, path: str, body: Json = None, query: Query = (), match: str = "") -> Answer:
        """A write. `Secret`s inside `body` are revealed here and nowhere else.

        `match`: an ETag; what has another one by now is not written (412).

        Raises `LostResponse` when it cannot be known whether a POST happened.
        """

    def sibling(self, service: str) -> Door:
        """Another service that the same credentials open (one key opens entitlements and accounts)."""

    def tenant(self) -> str:
        """The subaccount that the credentials belong to, as their token says; empty when it does not."""

    def now(self) -> float:
        """The platform's clock, in epoch seconds, as its last answer gave it."""


@dataclass(frozen=True)
class Task:
    """A step with all that is known about it at the moment it is started."""

    step: Step
    wanted: Resource | None
    subaccount: Subaccount
    found: Fact | None = None
    parent: Fact | None = None
    """What it stands in: a key's instance, an instance's space."""
    plan: Fact | None = None
    """The service plan, as the marketplace shows it (create and plan change)."""
    spec: Data = field(default_factory=dict)
    """What to send: the resource's spec; for an update, only what must change, under the same names."""
    fingerprint: str = ""
    parcel: Parcel | None = None
    """A delivery: what is handed over."""


class Driver(Protocol):
    """How one kind lives in one runtime. It starts work and looks; it never sleeps, retries, logs or catches."""

    service: str
    """Which door it needs."""
    batch: bool
    """True: all ready steps of one door and subaccount are handed over at once. False: one by one, in parallel."""
    replaces_failed: bool
    """True: creating under the name of a failed leftover replaces it (Cloud Foundry). False: delete it first."""

    def observe(
        self, door: Door, places: Sequence[Subaccount], wanted: Wanted, seen: Sequence[Fact]
    ) -> Iterable[Fact]:
        """What is there, for all these subaccounts of one endpoint together. Reads only."""

    def create(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact] | None:
        """Start to make them. What the answer itself shows to be there need not be looked at: it is given back."""

    def update(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact] | None:
        """Start to change them; gives as `create` does."""

    def delete(self, door: Door, tasks: Sequence[Task]) -> None:
        """Start to remove them."""

    def look(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact | None]:
        """See how these stand now: found by id if known, else by name. None: it is not there."""

    def blockers(self, door: Door, task: Task) -> Sequence[str]:
        """What else would be lost if this were deleted now, in words. Asked immediately before a delete."""

    def prepare(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:
        """What must be visible before they can be made (the service plan). Missing: not visible yet."""

    def seal(self, door: Door, task: Task, fact: Fact) -> None:
        """Write down that the last operation was ours, where the platform needs a request for that."""


@runtime_checkable
class KeyDriver(Driver, Protocol):
    """What a driver of keys can do besides: while applying and verifying, never while planning."""

    def credentials(self, door: Door, fact: Fact) -> Any:
        """What a key opens, as the platform gives it; every text of it is a `Secret`."""

    def note(self, door: Door, fact: Fact, notes: Mapping[str, str | None]) -> Mapping[str, str]:
        """Write notes beside a key (`core/record.py`), None takes one away; gives all that are there then."""


@runtime_checkable
class Lister(Protocol):
    """What a driver can do besides, for `reconcile export`: see what no spec names."""

    def everything(self, door: Door, place: Subaccount, seen: Sequence[Fact]) -> Sequence[Fact]:
        """All of its kind in one subaccount. Reads only."""


@runtime_checkable
class Parametric(Protocol):
    """What a driver of instances can do besides, for `reconcile export`."""

    def parameters(self, door: Door, fact: Fact) -> Any:
        """The parameters of one instance. Raises PlatformError where its broker does not give them."""


def _nothing(resource: Resource, view: View) -> Change | None:  # noqa: ARG001 - a default of the right shape
    return None


def _no_objection(changes: Sequence[Change], view: View) -> Iterable[Problem]:  # noqa: ARG001 - the same
    return ()


def _nothing_wrong(part: str, block: Data) -> Iterable[str]:  # noqa: ARG001 - the same
    return ()


@dataclass(frozen=True)
class Kind:
    """One kind of resource, as data."""

    name: str
    title: str
    schema: Data
    """JSON Schema of its block in a spec; empty for what is never written by itself."""
    drivers: Mapping[str, Driver]
    """runtime → driver; kinds that live in no runtime use the key ``."""
    examples: tuple[str, ...] = ()
    """A little story: specs, each an edit of the one before."""
    immutable: tuple[str, ...] = ()
    """Fields that force a new generation when they change."""
    compare: Callable[[Resource, View], Change | None] = _nothing
    """What must happen to one wanted thing. Pure. None: nothing can be said (its parent is in conflict)."""
    objections: Callable[[str, Data], Iterable[str]] = _nothing_wrong
    """What is wrong with one part of its block (a delivery: sink, and what it is told), in words."""
    access: Mapping[str, Data] = field(default_factory=dict)
    """Sections of `access` that its drivers need besides the platform's, with their JSON Schemas."""
    check: Callable[[Sequence[Change], View], Iterable[Problem]] = _no_objection
    """What stands against all changes of this kind together, such as a quota."""
