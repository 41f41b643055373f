"""What comparing looks at: what is wanted, what was seen, and what the command line adds, indexed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from btp_reconcile.core.model import (
    Address,
    Change,
    Fact,
    Facts,
    Problem,
    Resource,
    Secret,
    Wanted,
)
from btp_reconcile.core.resolve import SERVICE_OF_RUNTIME

if TYPE_CHECKING:
    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.rotation import Due


CONSUMERS = frozenset({"delivery", "destination"})
"""Kinds that are filled from a key."""


AT_MOST = 10
"""Keys that one run makes anew because of their age, unless it is told another number."""


@dataclass(frozen=True)
class Policy:
    """What the command line adds to spec and facts. `now` is epoch seconds."""

    now: float
    prune: bool = False
    targets: tuple[Address, ...] = ()
    allow: frozenset[str] = frozenset()
    """Addresses and objections that were answered by name."""
    reapply: frozenset[Address] = frozenset()
    at_most: int = AT_MOST
    """Rotations because of age in one run."""
    only_due: bool = False
    """Only what rotations and retirements need (`rotate --due`)."""
    alone: bool = False
    """A shard that is applied without the whole having been approved: it decides on its own figures."""


@dataclass
class View:
    """All that is known while comparing, indexed. Grows only in `changes` and `objections`, in order."""

    wanted: Wanted
    facts: Facts
    catalogue: Catalogue
    policy: Policy
    changes: dict[Address, Change] = field(default_factory=dict)
    objections: list[Problem] = field(default_factory=list)
    later: list[Problem] = field(default_factory=list)
    """What cannot be planned yet, because another shard makes what it needs."""
    disputed: set[Address] = field(default_factory=set)
    """Addresses with a conflict: nothing can be said about what stands in them."""
    concern: dict[Address, Address] = field(default_factory=dict)
    """Address of a conflict → the other one that it is about."""
    lost: set[str] = field(default_factory=set)
    """Subaccounts that are not where the spec looks for them."""
    claimed: set[tuple[str, str, str]] = field(default_factory=set)
    """(kind, runtime, id) of every fact that a wanted thing stands for."""
    generations: dict[Address, tuple[Fact, ...]] = field(default_factory=dict)
    """All generations of each key, oldest first."""
    known_generations: dict[tuple[Address, tuple[str | None, ...] | None], tuple[Fact, ...]] = field(
        default_factory=dict
    )
    """Which generations stand in which parents, as far as that was asked."""
    aged: dict[Address, Due] = field(default_factory=dict)
    """Keys that are made anew because of their age."""

    @cached_property
    def all_consumers(self) -> dict[Address, list[Resource]]:
        """Key → deliveries and destinations that are filled from it."""
        found: dict[Address, list[Resource]] = defaultdict(list)
        for resource in self.wanted.resources:
            if resource.address.kind in CONSUMERS:
                for needed in resource.requires:
                    found[needed].append(resource)
        return found

    @cached_property
    def consumers(self) -> dict[Address, list[Resource]]:
        """The same, without those that are only watched or taken away."""
        return {
            key: kept
            for key, some in self.all_consumers.items()
            if (kept := [one for one in some if not one.absent and not one.observe_only])
        }

    @cached_property
    def marked(self) -> dict[tuple[str, str, str, str], list[Fact]]:
        """(kind, subaccount, owner, logical name) → facts."""
        found: dict[tuple[str, str, str, str], list[Fact]] = defaultdict(list)
        for fact in self.facts.all:
            if fact.mark:
                found[fact.kind, fact.subaccount, fact.mark.owner, fact.mark.name].append(fact)
        return found

    @cached_property
    def marked_in(self) -> dict[tuple[str, str, str, str, str | None], list[Fact]]:
        """(kind, subaccount, owner, logical name, parent id) → facts."""
        found: dict[tuple[str, str, str, str, str | None], list[Fact]] = defaultdict(list)
        for key, facts in self.marked.items():
            for fact in facts:
                found[(*key, fact.parent)].append(fact)
        return found

    @cached_property
    def named(self) -> dict[tuple[str, str, str, str | None, str], Fact]:
        """(kind, subaccount, runtime, parent id, physical name) → fact."""
        return {(one.kind, one.subaccount, one.runtime, one.parent, one.name): one for one in self.facts.all}

    @cached_property
    def _all_named(self) -> dict[tuple[str, str, str], list[Fact]]:
        found: dict[tuple[str, str, str], list[Fact]] = defaultdict(list)
        for fact in self.facts.all:
            found[fact.kind, fact.subaccount, fact.name].append(fact)
        return found

    def named_all(self, kind: str, subaccount: str, name: str) -> list[Fact]:
        """Everything of that kind and name, wherever in the subaccount it stands."""
        return self._all_named.get((kind, subaccount, name), [])

    @cached_property
    def by_id(self) -> dict[tuple[str, str, str], Fact]:
        return {(one.kind, one.subaccount, one.id): one for one in self.facts.all}

    @cached_property
    def holders(self) -> dict[str, list[Fact]]:
        """Id of a key → destinations that are noted to hold it."""
        found: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.facts.of("destination"):
            for held in fact.attributes.get("keys", ()):
                found[held.id].append(fact)
        return found

    @cached_property
    def inside(self) -> dict[tuple[str, str, str | None], list[Fact]]:
        """(kind, subaccount, parent id) → facts that stand in it."""
        found: dict[tuple[str, str, str | None], list[Fact]] = defaultdict(list)
        for fact in self.facts.all:
            found[fact.kind, fact.subaccount, fact.parent].append(fact)
        return found

    @cached_property
    def resources(self) -> dict[Address, Resource]:
        return {one.address: one for one in self.wanted.resources}

    @cached_property
    def _plans(self) -> dict[tuple[str, str, str, str, str], list[Fact]]:
        found: dict[tuple[str, str, str, str, str], list[Fact]] = defaultdict(list)
        for fact in self.facts.of("plan"):
            found[
                fact.subaccount, fact.runtime, fact.parent or "", fact.attributes["service"], fact.name
            ].append(fact)
        return found

    def space(self, subaccount: str, name: str | None) -> Fact | None:
        return self.named.get(("space", subaccount, "cloudfoundry", None, name or ""))

    def plans(self, subaccount: str, runtime: str, service: str, plan: str) -> list[Fact]:
        """The plan as the marketplace shows it: none while it is not visible, several when ambiguous."""
        return self._plans.get((subaccount, runtime, "", service, plan), [])

    def fingerprint_key(self, subaccount: str) -> Secret | None:
        key = self.wanted.access.get(subaccount, {}).get("fingerprint_key")
        return key if isinstance(key, Secret) else None

    def unseen(self, subaccount: str, service: str) -> Problem | None:
        return self.facts.unseen.get((subaccount, service))

    def silent(self, subaccount: str) -> bool:
        """Did a runtime that was asked about a subaccount not answer? Then what stands there is not known."""
        unseen = [self.unseen(subaccount, service) for service in SERVICE_OF_RUNTIME.values()]
        return any(one is not None and one.code == "platform/unseen" for one in unseen)

    def object(
        self, code: str, message: str, resource: Resource | None, hint: str, address: Address | None = None
    ) -> None:
        """Something stands against applying."""
        self.objections.append(
            Problem(
                code,
                message,
                resource.source if resource else None,
                resource.address if resource else address,
                hint,
            )
        )
