"""Wanted + facts → changes: one per address, each with its reason. No clock, no network: time is in the policy."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from btp_reconcile.core import marks, rotation
from btp_reconcile.core.life import generation_of, is_ours, whose
from btp_reconcile.core.model import (
    Action,
    Address,
    Change,
    Fact,
    Facts,
    Problem,
    Resource,
    Wanted,
    key_of,
)
from btp_reconcile.core.view import Policy, View

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.kind import Kind
    from btp_reconcile.core.model import FactKey


@dataclass(frozen=True)
class Differences:
    """What comparing found, before it is put in order."""

    changes: tuple[Change, ...]
    objections: tuple[Problem, ...]
    unmanaged: tuple[Fact, ...]
    leftover: tuple[Address, ...]
    """The addresses that what is unmanaged would have, in its order."""
    view: View


def compare(
    wanted: Wanted, facts: Facts, kinds: Sequence[Kind], catalogue: Catalogue, policy: Policy
) -> Differences:
    """Everything that differs, in dependency order."""
    view = View(wanted, facts, catalogue, policy)
    _check_places(view)
    _check_orgs(view)
    compares = {kind.name: kind.compare for kind in kinds}
    before = ""
    for resource in wanted.resources:
        if before == "key" != resource.address.kind:
            rotation.capped(view)  # before their consumers are looked at
        before = resource.address.kind
        if resource.address.subaccount in wanted.theirs and not _looked_at(resource):
            continue
        change = compares[before](resource, view)
        if change is not None:
            view.changes[resource.address] = change
    if before == "key":
        rotation.capped(view)
    rotation.settled(view)
    _wait_for_keys(view)
    _check_claims(view)
    leftover = _unmanaged(view)
    for change in _prune(leftover, view):
        view.changes.setdefault(change.address, change)
    rotation.spared(view)
    rotation.left_behind(view)
    _with_their_instances(view)
    _check_addresses(view)
    changes = _targeted(tuple(view.changes.values()), view)
    view.changes = {change.address: change for change in changes}
    _check_lost(view)
    for kind in kinds:
        view.objections.extend(kind.check([one for one in changes if one.address.kind == kind.name], view))
    kept = {change.address for change in changes}
    objections = tuple(
        one for one in view.objections if _concerns(one, kept, view) and not _of_others(one, wanted)
    )
    pruned = {fact.id for change in changes for fact in change.retired}
    unmanaged = tuple(one for one in leftover if one.id not in pruned and one.subaccount not in wanted.theirs)
    return Differences(changes, objections, unmanaged, tuple(_address(one, view) for one in unmanaged), view)


def _looked_at(resource: Resource) -> bool:
    """Is it one that another shard works on, and that is needed here? Who only takes from our keys is just known."""
    return resource.address.kind in {"instance", "key"}


def _of_others(problem: Problem, wanted: Wanted) -> bool:
    """Does it stand against what another shard does? That one says so."""
    return problem.address is not None and problem.address.subaccount in wanted.theirs


def _concerns(problem: Problem, kept: set[Address], view: View) -> bool:
    if view.policy.only_due and problem.address is not None:
        consumers = {one.address for key in kept for one in view.all_consumers.get(key, ())}
        named = any(one.within(problem.address) for one in view.policy.reapply)
        return problem.address in kept | consumers or named
    if not view.policy.targets or problem.address is None or problem.address in kept:
        return True
    if problem.code == "conflict/claimed-twice" and view.concern.get(problem.address) in kept:
        return True
    return any(problem.address.within(target) for target in view.policy.targets)


def _targeted(changes: tuple[Change, ...], view: View) -> tuple[Change, ...]:
    """With `--target`: what was named, what stands in it, and what these need."""
    if view.policy.only_due:
        return rotation.lives(changes, view)
    if not view.policy.targets:
        return changes
    wanted = {
        change.address for change in changes if any(change.address.within(t) for t in view.policy.targets)
    }
    while True:
        more = {
            needed
            for address in wanted
            if (resource := view.resources.get(address))
            for needed in resource.requires
        } - wanted
        # Who is filled from a key that is worked on is given the new one in the same run.
        more |= {one.address for key in wanted for one in view.consumers.get(key, ())} - wanted
        if not more:
            return tuple(change for change in changes if change.address in wanted)
        wanted |= more


def left_to_apply(everything: View, worked_on: Collection[Address]) -> tuple[Address, ...]:
    """Keys that are missing, or not at a consumer, and that a plan which works on these alone leaves as they are."""
    return tuple(
        address
        for address, change in everything.changes.items()
        if address.kind == "key"
        and address not in worked_on
        and address.subaccount not in everything.wanted.theirs
        and not change.gate
        and (
            change.action is Action.CREATE
            or any(
                _lacks_its_key(one, change)
                for consumer in everything.consumers.get(address, ())
                if consumer.address not in worked_on
                and (one := everything.changes.get(consumer.address)) is not None
            )
        )
    )


def _lacks_its_key(consumer: Change, key: Change) -> bool:
    """Would this consumer be given what it has lost? A destination that differs in something else is not counted."""
    if not consumer.acts or consumer.action not in {Action.CREATE, Action.UPDATE, Action.ADOPT}:
        return False
    if consumer.address.kind == "delivery" or consumer.found is None:
        return True
    newest = key.found.id if key.found is not None else ""
    return newest not in {held.id for held in consumer.found.attributes.get("keys", ())}


# --- is it the right place ------------------------------------------------------------------------------


def _check_places(view: View) -> None:
    """A subaccount must be there, and where the spec says: a copied id is how things get into the wrong one."""
    asked = {one.address.subaccount for one in view.wanted.of("entitlement")}
    known = {one.subaccount: one for one in view.facts.of("subaccount")}
    for name in sorted(asked):
        place = view.wanted.subaccounts[name]
        if view.unseen(name, "entitlements"):
            continue
        fact = known.get(name)
        if fact is None:
            view.lost.add(name)
            view.objections.append(
                Problem(
                    "subaccount/unknown",
                    f"the global account that access.central opens has no subaccount {name} with id {place.id}",
                    place.source,
                    hint="correct the id (the cockpit shows it as the subaccount's ID), or use the key of its "
                    "global account",
                )
            )
        elif fact.attributes.get("region") not in {place.region, None, ""}:
            view.objections.append(
                Problem(
                    "subaccount/region",
                    f"subaccount {name} ({place.id}) is in region {fact.attributes['region']} and is called "
                    f"{fact.name!r} there; the spec says {place.region}",
                    place.source,
                    hint="correct the region, or the id if another subaccount was meant",
                )
            )


def _check_orgs(view: View) -> None:
    """An org belongs to one subaccount: if two lead to the same one, a thing of one would be taken for the other's."""
    seen: dict[str, Fact] = {}
    _check_orgs_of_others(view)
    for space in view.facts.of("space"):
        first = seen.setdefault(str(space.attributes.get("org_id") or space.id), space)
        if first.subaccount != space.subaccount:
            view.objections.append(
                Problem(
                    "subaccount/same-org",
                    f"subaccounts {first.subaccount} and {space.subaccount} lead to the same Cloud Foundry org "
                    f"{space.attributes.get('org')!r}",
                    view.wanted.subaccounts[space.subaccount].source,
                    hint="an org belongs to one subaccount: correct cloud_foundry.org of one of them",
                )
            )
            return


def _check_orgs_of_others(view: View) -> None:
    """The same, where another shard's subaccount is not looked at: by what the specs say of it."""
    homes = {
        (one.cloud_foundry.api, one.cloud_foundry.org): one
        for name, one in view.wanted.subaccounts.items()
        if name in view.wanted.theirs and one.cloud_foundry is not None
    }
    for place in view.wanted.places.values() if homes else ():
        foundry = place.cloud_foundry
        other = homes.get((foundry.api, foundry.org)) if foundry is not None else None
        if foundry is not None and other is not None:
            view.objections.append(
                Problem(
                    "subaccount/same-org",
                    f"subaccounts {other.name} and {place.name} lead to the same Cloud Foundry org {foundry.org!r}",
                    place.source,
                    hint="an org belongs to one subaccount: correct cloud_foundry.org of one of them",
                )
            )


def _check_claims(view: View) -> None:
    """One thing cannot be two: a spec that adopts what another address stands for would take it away from that."""
    holders: dict[FactKey, Change] = {}
    for change in view.changes.values():
        facts = (*((change.found,) if change.found else ()), *change.retired)
        for key in dict.fromkeys(key_of(one) for one in facts if one.kind in {"instance", "key"}):
            first = holders.setdefault(key, change)
            if first is not change and (first.acts or change.acts):
                named = next(one.name for one in facts if key_of(one) == key)
                view.concern[change.wanted.address if change.wanted else change.address] = first.address
                view.object(
                    "conflict/claimed-twice",
                    f"{first.address} and {change.address} both stand for {key[0]} {named!r}",
                    change.wanted,
                    "take one of the two out of the spec, or correct its name or what it adopts",
                    change.address,
                )


def _check_addresses(view: View) -> None:
    """An address on the command line that means nothing would be obeyed by doing nothing."""
    known = [*view.resources, *view.changes]
    for option, addresses in (("--target", view.policy.targets), ("--reapply", sorted(view.policy.reapply))):
        for address in addresses:
            if any(one.within(address) for one in known) or address.subaccount in view.wanted.theirs:
                continue
            near = get_close_matches(str(address), map(str, known), 1)
            view.objections.append(
                Problem(
                    "plan/unknown-address",
                    f"{option} {address} is nothing that these specs or this plan name",
                    hint=f"did you mean {near[0]}?" if near else "a plan without it shows every address",
                )
            )


# --- what nobody wants any more -------------------------------------------------------------------------


def _unmanaged(view: View) -> list[Fact]:
    """Carries the mark of a loaded spec, and nothing in that spec stands for it."""
    undecided: dict[tuple[str, str, str], list[Resource]] = defaultdict(list)
    for resource in _undecided(view):
        for name in marks.known_as(resource):
            undecided[resource.address.kind, resource.address.subaccount, name].append(resource)
    return [
        fact
        for fact in view.facts.all
        if fact.mark
        and (fact.mark.owner, fact.mark.spec) in view.wanted.owners
        and (fact.kind, fact.runtime, fact.id) not in view.claimed
        and not any(
            marks.stands_for(fact, resource)
            for resource in undecided.get((fact.kind, fact.subaccount, fact.mark.name), ())
        )
    ]


def _undecided(view: View) -> list[Resource]:
    """What nothing can be said of now, in conflict or not to be seen: its things are not forgotten ones."""
    return [
        resource
        for address, resource in view.resources.items()
        if address.kind in {"instance", "key", "destination"}
        and address not in view.changes
        and (not resource.absent or not view.disputed.isdisjoint((address, *resource.requires)))
    ]


def _prune(leftover: Sequence[Fact], view: View) -> Iterable[Change]:
    """Deletes of what is unmanaged: with `--prune`, or because its instance is deleted."""
    doomed = {
        fact.id
        for change in view.changes.values()
        if change.address.kind == "instance"
        for fact in change.retired
    }
    pruned: dict[Address, list[Fact]] = defaultdict(list)
    for fact in leftover:
        if view.policy.prune or fact.parent in doomed:
            pruned[_address(fact, view)].append(fact)
    for address, facts in pruned.items():
        for fact in facts:
            _check_pruned(fact, address, view)
        reason = (
            "its instance is deleted" if facts[-1].parent in doomed else "no spec names it any more (--prune)"
        )
        yield Change(
            address,
            Action.DELETE,
            reason,
            found=facts[-1],
            generation=generation_of(facts[-1]),
            retired=tuple(facts),
        )


def _check_pruned(fact: Fact, address: Address, view: View) -> None:
    """What the catalogue calls irreplaceable is protected, also when its entry in the spec has been lost."""
    said = fact.attributes
    api = view.catalogue.offered(str(said.get("service")), str(said.get("plan")))
    if fact.kind == "instance" and api is not None and api.protect:
        view.object(
            "safety/protected",
            f"{address} ({fact.name}) is of {api.service}/{api.plan}, which is protected, and would be pruned",
            None,
            "declare it again with ensure: absent and protect: false if it may really go",
            address,
        )


# --- what stands in an instance that goes ---------------------------------------------------------------


def _with_their_instances(view: View) -> None:
    """Our keys go before the instance they stand in, however long they were to be kept."""
    for fact in _lost(view):
        address = _address(fact, view)
        change = view.changes.get(address)
        wanted = change.wanted if change else None
        if change is None or wanted is None or change.gate or wanted.observe_only:
            continue
        if fact.mark and (fact.mark.spec, is_ours(fact, wanted)) == (wanted.mark.spec, True):
            kept = change.action is Action.KEEP
            view.changes[address] = replace(
                change,
                action=Action.RETIRE if kept else change.action,
                reason="the superseded instance it stands in is deleted" if kept else change.reason,
                retired=(*change.retired, fact),
                notes=tuple(note for note in change.notes if fact.name not in note),
            )


def _wait_for_keys(view: View) -> None:
    """A superseded instance stays while the newest of a key's generations is still on its way in it."""
    for change in tuple(view.changes.values()):
        found = change.found
        instance = view.changes.get(change.wanted.parent) if change.wanted and change.wanted.parent else None
        if found is None or instance is None or instance.action is not Action.RETIRE:
            continue
        gone = {one.id for one in instance.retired}
        notes = [
            why
            for one in view.generations.get(change.address, ())
            if one.parent in gone and (why := rotation.still_used(change, one, view))
        ]
        if change.action is Action.AWAIT and found.parent in gone:
            notes.append(f"{found.name} in it is not at rest; after that it can go")
        if notes:
            kept = replace(instance, action=Action.KEEP, retired=(), notes=(*instance.notes, *notes))
            view.changes[instance.address] = kept


def _check_lost(view: View) -> None:
    """The platform takes along what stands in an instance. What is not ours to delete refuses that."""
    inside: dict[str, list[Fact]] = defaultdict(list)
    for fact in _lost(view):
        inside[fact.parent or ""].append(fact)
    for change in view.changes.values():
        for gone in change.retired if change.address.kind == "instance" else ():
            if lost := inside.get(gone.id):
                said = ", ".join(sorted(f"{one.name} ({whose(one)})" for one in lost))
                view.object(
                    "safety/would-be-lost",
                    f"instance {gone.name!r} would be deleted, and these keys with it, which are not ours to delete: "
                    f"{said}",
                    change.wanted,
                    "have their owners delete them first, or keep the instance",
                    change.address,
                )


def _lost(view: View) -> list[Fact]:
    """Keys that nobody deletes, in instances that are deleted."""
    gone = {key_of(fact) for change in view.changes.values() for fact in change.retired}
    return [
        fact
        for change in tuple(view.changes.values())
        if change.address.kind == "instance" and not change.gate
        for instance in change.retired
        for fact in view.inside.get(("key", instance.subaccount, instance.id), ())
        if key_of(fact) not in gone
    ]


def _address(fact: Fact, view: View) -> Address:
    name = fact.mark.name if fact.mark else fact.name
    if fact.kind != "key":
        return Address(fact.kind, (fact.subaccount, name))
    parent = view.by_id.get(("instance", fact.subaccount, fact.parent or ""))
    instance = (parent.mark.name if parent.mark else parent.name) if parent else "unknown"
    return Address("key", (fact.subaccount, instance, name))
