"""The nouns. All are frozen values; what they mean is said beside each field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NewType
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from btp_reconcile.core.limits import Forecast
    from btp_reconcile.core.shards import Part, Partial
    from btp_reconcile.core.states import States

Json = Any
"""A JSON value. It may hold a `Secret` where a value came from outside the spec."""

Data = Mapping[str, Any]

_PLAIN = "._-~!$&'()*+,;=@ "


@lru_cache(maxsize=10_000)
def _quoted(part: str) -> str:
    return quote(part, safe=_PLAIN)


@dataclass(frozen=True, order=True, slots=True)
class Address:
    """The natural name of a thing: `instance:prod/apim`. Never a guid. Text and value are inverse."""

    kind: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return self.kind + ":" + "/".join(map(_quoted, self.path))

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read the text form. Raises ValueError when it has none of the shape `kind:a/b`."""
        kind, colon, rest = text.partition(":")
        if not colon or not kind or not rest:
            raise ValueError(f"{text!r} is no address; one looks like instance:prod/apim, or subaccount:prod")
        path = tuple(unquote(part) for part in rest.split("/"))
        if not all(path):
            raise ValueError(f"{text!r} is no address: a part of its path is empty")
        return cls(kind, path)

    @property
    def subaccount(self) -> str:
        """The spec's name of the subaccount it lives in."""
        return self.path[0]

    def within(self, other: Address) -> bool:
        """Is this the other, or does it stand inside it: a key in its instance, anything in its subaccount?"""
        if other.kind == "subaccount":
            return self.path[:1] == other.path
        inside = len(self.path) > len(other.path) and self.path[: len(other.path)] == other.path
        return self == other or (inside and self.kind in _INSIDE.get(other.kind, ()))


_FILLED = ("delivery", "destination")
_INSIDE = {"instance": ("key", "delivery"), "key": ("delivery",)}
"""What may stand in what, by their addresses."""


@dataclass(frozen=True, order=True, slots=True)
class Source:
    """Where something was written. Lines and columns count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """The one shape of anything we tell a user is wrong."""

    code: str
    """To search for, like `spec/unknown-field`. Every code is listed in `core/codes.py`."""
    message: str
    """What is wrong and what was found, in the reader's words."""
    source: Source | None = None
    address: Address | None = None
    hint: str = ""
    """What to write or do instead."""
    also: tuple[Source, ...] = ()
    """Other places that take part, e.g. the template a value came from."""


class Secret:
    """A value that must not be seen. Prints as its name; cannot be pickled, compared or put into JSON."""

    __slots__ = ("__value", "name")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.__value = value

    def reveal(self) -> str:
        """The value. For the door, at the moment of sending; for nothing else."""
        return self.__value

    def __repr__(self) -> str:
        return f"<secret {self.name}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self) -> str:
        raise TypeError(f"{self!r} cannot be pickled")

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


# --- what the spec wants --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """What we stamp on everything we create, in the creating request, to know it again."""

    owner: str
    spec: str
    name: str
    generation: int = 1


@dataclass(frozen=True)
class CloudFoundry:
    """Where a subaccount's Cloud Foundry is. `api` is a URL without a trailing slash."""

    api: str
    org: str
    space: str | None = None


@dataclass(frozen=True)
class Subaccount:
    """One subaccount as the specs name it. `id` is its guid, `region` like `eu10`."""

    name: str
    id: str
    region: str
    cloud_foundry: CloudFoundry | None = None
    source: Source | None = None


@dataclass(frozen=True)
class Adoption:
    """How an existing thing is recognised as ours to be: by its declared name, another name, or its id."""

    name: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Resource:
    """What the spec wants of one address."""

    address: Address
    spec: Data
    """Normalised per kind, see the kind's file. May hold `Secret`s."""
    mark: Mark
    name: str = ""
    """The physical name of generation 1 (generation n: `name-n`)."""
    requires: tuple[Address, ...] = ()
    source: Source | None = None
    absent: bool = False
    protect: bool = False
    observe_only: bool = False
    beside: bool = False
    """Another shard works on it: it is looked at here, because something needs it, and left alone."""
    adopt: Adoption | None = None
    owner_was: str | None = None
    renamed_from: str | None = None
    """The logical name that its mark carried before."""
    formerly: tuple[Address, ...] = ()
    """Addresses it had before something it stands in, or it itself, was renamed."""
    ignore: tuple[str, ...] = ()
    """Dotted paths of fields that are left to others."""
    replace_on: tuple[str, ...] = ()
    """Dotted paths of fields that cannot be changed in place, from the kind and the catalogue."""
    keep_old_for: int = 7 * 86400
    """Seconds a superseded generation is kept."""
    rotate_after: int | None = None
    """A key: seconds after which it is made anew; None: never because of its age."""
    api: str | None = None
    """The catalogue's name, if the spec used one."""

    @property
    def watched(self) -> bool:
        """Is it only looked at? Then nothing is written, not even a note beside it."""
        return self.observe_only and not self.beside

    @property
    def parent(self) -> Address | None:
        """A key stands in its instance, a delivery at its key; nothing else has a parent."""
        if self.address.kind == "key":
            return Address("instance", self.address.path[:2])
        return Address("key", self.address.path[:3]) if self.address.kind == "delivery" else None

    @property
    def sought(self) -> str:
        """The physical name that something without our mark must have to be meant."""
        return (self.adopt.name if self.adopt else None) or self.name

    def physical(self, generation: int) -> str:
        """The name that a generation has on the platform. What is filled from a key keeps its own."""
        return self.name if generation == 1 or self.address.kind in _FILLED else f"{self.name}-{generation}"


@dataclass(frozen=True)
class Wanted:
    """Everything the loaded specs want, in dependency order."""

    resources: tuple[Resource, ...]
    subaccounts: Mapping[str, Subaccount]
    owners: frozenset[tuple[str, str]]
    """(owner, spec name) of every loaded spec: what `--prune` may touch."""
    access: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """subaccount name → service → credentials as the spec and the environment give them."""

    part: Part | None = None
    """Which part of the specs this is; None: all of them."""

    @property
    def theirs(self) -> frozenset[str]:
        """Subaccounts that other shards work on."""
        return self.part.theirs if self.part is not None else frozenset()

    @property
    def places(self) -> Mapping[str, Subaccount]:
        """Subaccounts that are worked on."""
        return {name: one for name, one in self.subaccounts.items() if name not in self.theirs}

    def of(self, kind: str) -> tuple[Resource, ...]:
        return tuple(resource for resource in self.resources if resource.address.kind == kind)


# --- what the platform says -----------------------------------------------------------------------------


class Phase(StrEnum):
    """`ready`: at rest and usable. `pending`: something runs. `broken`: at rest and not usable."""

    READY = "ready"
    PENDING = "pending"
    BROKEN = "broken"


@dataclass(frozen=True)
class Operation:
    """The platform's last operation on a thing. `at` is its time as the platform writes it."""

    type: str
    state: str
    at: str = ""
    text: str = ""


@dataclass(frozen=True)
class Fact:
    """What the platform says about one thing, at the time of looking. Holds no secret, ever."""

    kind: str
    """A kind's name, or `space`, `plan`, `subaccount` for what kinds stand on."""
    id: str
    name: str
    subaccount: str
    """The spec's name of the subaccount."""
    phase: Phase = Phase.READY
    attributes: Data = field(default_factory=dict)
    """Observed fields, in the words of the spec."""
    parent: str | None = None
    """The id of the thing it stands in (key: its instance; instance on Cloud Foundry: its space)."""
    mark: Mark | None = None
    foreign: str = ""
    """Why it can be nobody's to adopt: another tool's mark in words. Empty: nobody's or ours."""
    fingerprint: str = ""
    operation: Operation | None = None
    created_at: str = ""
    """RFC 3339, UTC; empty when the platform does not say."""
    runtime: str = ""
    detail: str = ""
    """One line for people: the platform's own words on a failure or a wait."""
    record: Mapping[str, str] = field(default_factory=dict)
    """Our own notes beside a key: when it was verified, where it was delivered to. See `core/record.py`."""


FactKey = tuple[str, str, str]
"""(kind, runtime, id): what makes a fact the same fact when looked at again."""


def key_of(fact: Fact) -> FactKey:
    return (fact.kind, fact.runtime, fact.id)


@dataclass(frozen=True)
class Facts:
    """All that was seen, and what could not be."""

    all: tuple[Fact, ...] = ()
    unseen: Mapping[tuple[str, str], Problem] = field(default_factory=dict)
    """(subaccount, service) that could not be looked at, and why. Planning says so; it guesses nothing."""
    requests: int = 0
    clock_off: float = field(default=0.0, compare=False)
    """Seconds that our clock is ahead of the platform's. Says nothing about what was seen."""

    def of(self, kind: str) -> tuple[Fact, ...]:
        return tuple(fact for fact in self.all if fact.kind == kind)


# --- what is to be done ---------------------------------------------------------------------------------


class Action(StrEnum):
    """The closed list. One per change, for people and for counting."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    ADOPT = "adopt"
    ROTATE = "rotate"
    RETIRE = "retire"
    AWAIT = "await"
    KEEP = "keep"


class Seen(StrEnum):
    """How far a field can be believed. `unknown` is never a change."""

    OBSERVED = "observed"
    ASSUMED = "assumed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class FieldChange:
    """One field of one thing. When `before == after` it is a statement, not a change."""

    path: str
    before: Json
    after: Json
    seen: Seen = Seen.OBSERVED
    changes: bool = True
    forces_replace: bool = False
    note: str = ""


class Verb(StrEnum):
    """What the engine can do. A replace is one change and several steps."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    AWAIT = "await"
    VERIFY = "verify"
    """Prove that a key works, and note it."""
    DATE = "date"
    """Note on a superseded key the day on which it goes."""


StepId = NewType("StepId", str)


@dataclass(frozen=True)
class Change:
    """What happens to one address, for people. Nothing decides by `reason`."""

    address: Address
    action: Action
    reason: str = ""
    fields: tuple[FieldChange, ...] = ()
    wanted: Resource | None = None
    found: Fact | None = None
    """The live generation that this change starts from."""
    generation: int = 1
    """The generation that is there after the change."""
    retired: tuple[Fact, ...] = ()
    """Superseded generations that go with this change."""
    gate: str = ""
    """What a person must do first. Not empty: nothing is attempted, and the run ends with 6."""
    notes: tuple[str, ...] = ()

    send: Data = field(default_factory=dict)
    """What an update sends: only the fields that change, under the spec's names."""
    dated: tuple[Fact, ...] = ()
    """Superseded generations that are given the day on which they go, once every consumer has the new one."""
    proven: bool = False
    """Is the newest generation verified before anybody is given it?"""

    @property
    def acts(self) -> bool:
        """Does it make the engine do something?"""
        return self.action is not Action.KEEP and not self.gate

    @property
    def drifted(self) -> bool:
        """Does the platform differ from the spec here? Waiting and retiring are no drift."""
        waiting = self.action in {Action.KEEP, Action.AWAIT, Action.RETIRE}
        return not waiting or any(one.changes for one in self.fields)


@dataclass(frozen=True)
class Step:
    """One piece of work for the engine. `requires` names steps that must be done first."""

    id: StepId
    verb: Verb
    address: Address
    generation: int
    requires: tuple[StepId, ...] = ()
    found: Fact | None = None
    """The live thing to update, delete or wait for; for a create, a failed leftover of the same name."""
    name: str = ""
    """The physical name of what is created."""


@dataclass(frozen=True)
class Plan:
    """A value: what is to be done, why, and what stands against it."""

    changes: tuple[Change, ...]
    steps: tuple[Step, ...]
    objections: tuple[Problem, ...] = ()
    """Safety problems. Apply refuses while there is one."""
    unmanaged: tuple[Fact, ...] = ()
    """Carries our mark and no spec names it any more; only `--prune` deletes it."""
    digest: str = ""
    notes: tuple[str, ...] = ()
    unseen: tuple[Problem, ...] = ()
    """What could not be looked at, and therefore was not planned."""
    forecast: Forecast | None = None
    """What applying will cost, by the limits that are known."""
    partial: Partial | None = None
    """A shard's figures for what only the whole can decide."""
    beside: tuple[Change, ...] = ()
    """What other shards work on and something here needs. Nothing of it is changed."""
    states: States | None = None
    """Whether each thing is as the spec says, and can be used."""
    unseen_at: Mapping[tuple[str, str], Problem] = field(default_factory=dict)
    """(subaccount, service) of each `unseen`."""

    def count(self, *actions: Action) -> int:
        return sum(change.action in actions and not change.gate for change in self.changes)

    @property
    def empty(self) -> bool:
        return not any(change.action is not Action.KEEP for change in self.changes)

    @property
    def quiet(self) -> bool:
        """Is there nothing to do, and nothing to say about it?"""
        return self.empty and not (self.objections or self.unseen)


class Status(StrEnum):
    """How a step ended. `pending`: accepted, not finished in time; run again to go on."""

    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"
    PENDING = "pending"


@dataclass(frozen=True)
class Outcome:
    """How one step ended. `seconds` is wall-clock."""

    step: Step
    status: Status
    error: str = ""
    hint: str = ""
    by: Address | None = None
    """What it was blocked by."""
    attempts: int = 1
    seconds: float = 0.0
    gate: bool = False
    """A person must act first (capability not active, missing right)."""
    refused: bool = False
    """We would not do it, because something that is not ours would be lost."""
    notes: tuple[str, ...] = ()
    """What else a person should know about it."""


@dataclass(frozen=True)
class Report:
    """How a plan went."""

    outcomes: tuple[Outcome, ...] = ()

    def count(self, status: Status) -> int:
        return sum(outcome.status is status for outcome in self.outcomes)
