"""Changes → plan: steps for the engine, what each requires, and what stands against it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import clocks, limits, quota, rotation, shards, states
from btp_reconcile.core.model import (
    Action,
    Address,
    Change,
    Fact,
    Plan,
    Problem,
    Resource,
    Secret,
    Step,
    StepId,
    Subaccount,
    Verb,
    key_of,
)
from btp_reconcile.core.shards import Partial
from btp_reconcile.core.view import CONSUMERS

if TYPE_CHECKING:
    from btp_reconcile.core.diff import Differences
    from btp_reconcile.core.view import Policy, View


def arrange(differences: Differences, policy: Policy) -> Plan:
    """The plan: every change with its steps, in an order in which nothing comes before what it needs."""
    view = differences.view
    every = tuple(_kept_for_waiting(tuple(_gated(differences.changes, view)), view))
    theirs = view.wanted.theirs
    changes = tuple(one for one in every if one.address.subaccount not in theirs)
    steps = tuple(_in_order(_steps(every, view)))
    partial = _partial(changes, view)
    objections = [
        *differences.objections,
        *(_too_many(changes, view) if partial is None else ()),
        *clocks.trusted(view.facts.clock_off, changes, policy.allow),
    ]
    promised = digest(changes, steps, objections, view.wanted.subaccounts)
    if partial is not None and policy.alone:
        objections.extend(shards.alone(partial, policy.allow))
    return Plan(
        changes,
        steps,
        tuple(objections),
        differences.unmanaged,
        promised,
        unseen=tuple(dict.fromkeys((*view.facts.unseen.values(), *view.later))),
        forecast=limits.forecast(_costs(steps, every)),
        partial=partial,
        beside=tuple(one for one in every if one.address.subaccount in theirs),
        states=states.read(
            changes,
            zip(differences.leftover, differences.unmanaged, strict=True),
            [*objections, *view.later],
            view,
        ),
        unseen_at=view.facts.unseen,
    )


def _costs(steps: Sequence[Step], changes: Sequence[Change]) -> Iterable[tuple[str, limits.Cost]]:
    """What every step sends. Entitlements of one subaccount go in one request; in runtime `other` each subaccount
    has a user of its own.
    """
    wanted = {change.address: change.wanted for change in changes}
    entitled: set[str] = set()
    for step in steps:
        if step.address.kind == "entitlement":
            if step.verb is not Verb.AWAIT and step.address.subaccount not in entitled:
                entitled.add(step.address.subaccount)
                yield "", limits.WRITES["entitlement", "", "create"][0]
            continue
        resource = wanted.get(step.address)
        runtime = step.found.runtime if step.found else str(resource.spec["runtime"]) if resource else ""
        user = step.address.subaccount if runtime == "other" else ""
        for cost in limits.WRITES.get((step.address.kind, runtime, step.verb), ()):
            yield user, cost


def _gated(changes: Sequence[Change], view: View) -> Iterable[Change]:
    """What stands on something that waits for a person waits too, and says for what it waits in the end."""
    roots: dict[Address, Address] = {}
    for change in changes:
        held = change
        resource = view.resources.get(change.address)
        needs = resource.requires if resource and not _visible(resource, view) else ()
        blockers = [roots[one] for one in needs if one in roots]
        makes = change.action in {Action.CREATE, Action.REPLACE, Action.ROTATE} or "plan" in change.send
        makes = makes or (change.address.kind in CONSUMERS and change.action in {Action.UPDATE, Action.ADOPT})
        if blockers and makes and not change.gate:
            why = f"it needs {blockers[0]}, which waits"
            held = replace(change, action=Action.AWAIT, gate=why, retired=(), dated=(), proven=False)
        if held.gate:
            roots[held.address] = blockers[0] if blockers else held.address
        yield held


def _kept_for_waiting(changes: Sequence[Change], view: View) -> Iterable[Change]:
    """No old key goes while a consumer of it waits: that one still uses it."""
    waiting = {
        key
        for change in changes
        if change.gate and change.wanted is not None and change.address.kind in CONSUMERS
        for key in change.wanted.requires
    }
    for change in changes:
        if change.address not in waiting or change.address.kind != "key" or change.action is Action.DELETE:
            yield change
            continue
        gone = tuple(one for one in change.retired if not rotation.in_use(change, one, view))
        idle = change.action is Action.RETIRE and not gone
        yield replace(
            change,
            action=Action.KEEP if idle else change.action,
            reason="in sync" if idle else change.reason,
            retired=gone,
            dated=(),
        )


def _visible(resource: Resource, view: View) -> bool:
    """Is the plan of an instance in the marketplace? Then it does not matter who may entitle it."""
    said = resource.spec
    return resource.address.kind == "instance" and bool(
        view.plans(resource.address.subaccount, said["runtime"], said["service"], said["plan"])
    )


# --- steps ----------------------------------------------------------------------------------------------


def _steps(changes: Sequence[Change], view: View) -> tuple[Step, ...]:
    acting = [change for change in changes if change.acts]
    made = {change.address: step for change in acting if (step := _making(change, view))}
    proofs = {change.address: _proving(change, made) for change in changes if change.proven}
    served = _served(acting, made)
    removed = [step for change in acting for step in _removing(change)]
    steps = [
        replace(step, requires=_needs(step, change, made, proofs))
        for change in acting
        if (step := made.get(change.address))
    ]
    steps.extend(proofs.values())
    steps.extend(step for change in acting for step in _dating(change, made, proofs, served))
    steps.extend(_ordered_removals(removed, made, proofs, served, view.resources))
    return tuple(_releases_first(steps, acting))


def _served(changes: Sequence[Change], made: Mapping[Address, Step]) -> Mapping[Address, list[StepId]]:
    """Key → the steps by which its consumers are given the newest generation."""
    found: dict[Address, list[StepId]] = defaultdict(list)
    for change in changes:
        step = made.get(change.address)
        if change.address.kind in CONSUMERS and step is not None and change.wanted is not None:
            for key in change.wanted.requires:
                found[key].append(step.id)
    return found


def _proving(change: Change, made: Mapping[Address, Step]) -> Step:
    """A key is tried out before anybody is given it."""
    step = made.get(change.address)
    found = change.found if step is None or step.verb is not Verb.CREATE else None
    return Step(
        _id(Verb.VERIFY, change.address, change.generation),
        Verb.VERIFY,
        change.address,
        change.generation,
        (step.id,) if step else (),
        found,
        step.name if step else change.found.name if change.found else "",
    )


def _dating(
    change: Change,
    made: Mapping[Address, Step],
    proofs: Mapping[Address, Step],
    served: Mapping[Address, list[StepId]],
) -> Iterable[Step]:
    """The day on which an old key goes is noted when every consumer was given the new one."""
    before = [one[change.address].id for one in (made, proofs) if change.address in one]
    for fact in change.dated:
        generation = fact.mark.generation if fact.mark else 1
        needs = (*before, *served.get(change.address, ()))
        step_id = StepId(f"{_id(Verb.DATE, change.address, generation)}@{fact.id}")
        yield Step(step_id, Verb.DATE, change.address, generation, needs, fact, fact.name)


def _making(change: Change, view: View) -> Step | None:
    """The step that builds, changes or waits; None for a change that only removes."""
    verbs = {
        Action.CREATE: Verb.CREATE,
        Action.REPLACE: Verb.CREATE,
        Action.ROTATE: Verb.CREATE,
        Action.UPDATE: Verb.UPDATE,
        Action.ADOPT: Verb.UPDATE,
        Action.AWAIT: Verb.AWAIT,
    }
    verb = verbs.get(change.action)
    if verb is None:
        return None
    fresh = change.action in {Action.REPLACE, Action.ROTATE}
    name = change.found.name if change.found and not fresh else _name(change, view)
    return Step(
        _id(verb, change.address, change.generation),
        verb,
        change.address,
        change.generation,
        found=None if fresh else change.found,
        name=name,
    )


def _name(change: Change, view: View) -> str:
    """The physical name of a new generation: in another runtime or space the first name, if it is free."""
    wanted = change.wanted
    if wanted is None:
        return ""
    runtime = wanted.spec.get("runtime", "")
    if change.action is Action.REPLACE and change.found:
        space = view.space(change.address.subaccount, wanted.spec.get("space"))
        there = space.id if space and runtime == "cloudfoundry" else None
        elsewhere = change.found.runtime != runtime or change.found.parent != there
        taken = ("instance", change.address.subaccount, runtime, there, wanted.name) in view.named
        if elsewhere and not taken:
            return wanted.name
    return wanted.physical(change.generation)


def _removing(change: Change) -> Iterable[Step]:
    for fact in change.retired:
        generation = fact.mark.generation if fact.mark else 1
        suffix = "" if len({one.id for one in change.retired}) == 1 else f"@{fact.id}"
        step_id = StepId(_id(Verb.DELETE, change.address, generation) + suffix)
        yield Step(step_id, Verb.DELETE, change.address, generation, found=fact, name=fact.name)


def _needs(
    step: Step, change: Change, made: Mapping[Address, Step], proofs: Mapping[Address, Step]
) -> tuple[StepId, ...]:
    resource: Resource | None = change.wanted
    if resource is None or step.verb is Verb.AWAIT:
        return ()
    needed = resource.requires if change.address.kind in CONSUMERS else ()
    return (
        *(made[one].id for one in resource.requires if one in made),
        *(proofs[one].id for one in needed if one in proofs),
    )


def _ordered_removals(
    removed: Sequence[Step],
    made: Mapping[Address, Step],
    proofs: Mapping[Address, Step],
    served: Mapping[Address, list[StepId]],
    resources: Mapping[Address, Resource],
) -> Iterable[Step]:
    """Old after new, keys before their instance, instances before the entitlement they need."""
    keys_in: dict[str, list[StepId]] = defaultdict(list)
    instances_of: dict[tuple[str, str, str], list[StepId]] = defaultdict(list)
    rebuilt: dict[Address, list[StepId]] = defaultdict(list)
    for address, step in made.items():
        if address.kind == "key":
            rebuilt[Address("instance", address.path[:2])].append(step.id)
    unfilled: dict[Address, list[StepId]] = defaultdict(list)
    """Key → removals of what is filled from it: a destination goes before its key."""
    for step in removed:
        resource = resources.get(step.address) if step.address.kind in CONSUMERS else None
        for key in resource.requires if resource is not None else ():
            unfilled[key].append(step.id)
    awaited = [step for step in made.values() if step.verb is Verb.AWAIT]  # perhaps on its way out already
    for step in (*removed, *awaited):
        if step.found and step.address.kind == "key" and step.found.parent:
            keys_in[step.found.parent].append(step.id)
        if step.found and step.address.kind == "instance":
            said = step.found.attributes
            where = (step.address.subaccount, str(said.get("service")), str(said.get("plan")))
            instances_of[where].append(step.id)
    for step in removed:
        needs: list[StepId] = []
        if step.address in made:
            needs.append(made[step.address].id)
        if step.address in proofs:
            needs.append(proofs[step.address].id)
        needs.extend(served.get(step.address, ()))
        needs.extend(unfilled.get(step.address, ()))
        if step.found and step.address.kind == "instance":
            needs.extend(keys_in.get(step.found.id, ()))
            needs.extend(
                rebuilt.get(step.address, ())
            )  # it goes only after the keys of the new one are there
        if step.address.kind == "entitlement":
            subaccount, service, plan = step.address.path
            needs.extend(instances_of.get((subaccount, service, plan), ()))
        yield replace(step, requires=tuple(dict.fromkeys(needs)))


def _releases_first(steps: Sequence[Step], changes: Sequence[Change]) -> Iterable[Step]:
    """Quota is given back before it is given out again, plan by plan."""
    lowering: dict[tuple[str, ...], list[StepId]] = defaultdict(list)
    raising: set[StepId] = set()
    direction = {change.address: _direction(change) for change in changes}
    for step in steps:
        if step.address.kind != "entitlement" or step.verb is Verb.AWAIT:
            continue
        if direction.get(step.address, 0) < 0:
            lowering[step.address.path[1:]].append(step.id)
        else:
            raising.add(step.id)
    for step in steps:
        extra = lowering.get(step.address.path[1:], ()) if step.id in raising else ()
        yield replace(step, requires=tuple(dict.fromkeys((*step.requires, *extra)))) if extra else step


def _direction(change: Change) -> int:
    if change.action is Action.DELETE:
        return -1
    before = change.found.attributes.get("amount") if change.found else None
    after = change.send.get("amount")
    if isinstance(before, (int, float)) and isinstance(after, (int, float)) and after < before:
        return -1
    return 1


def _in_order(steps: Sequence[Step]) -> Iterable[Step]:
    """The same steps, each after what it needs."""
    by_id = {step.id: step for step in steps}
    given: set[StepId] = set()

    def give(step: Step) -> Iterable[Step]:
        if step.id in given:
            return
        given.add(step.id)
        for one in step.requires:
            yield from give(by_id[one])
        yield step

    for step in steps:
        yield from give(step)


def _id(verb: Verb, address: Address, generation: int) -> StepId:
    return StepId(f"{verb} {address}#{generation}")


# --- safety ---------------------------------------------------------------------------------------------


def _too_many(changes: Sequence[Change], view: View) -> Iterable[Problem]:
    """A large share of what we manage must not go by accident."""
    return shards.too_many(*_shares(changes, view), view.policy.allow)


def _partial(changes: Sequence[Change], view: View) -> Partial | None:
    """What a shard knows of what only the whole can decide."""
    if view.wanted.part is None:
        return None
    return Partial(view.wanted.part, *_shares(changes, view), tuple(quota.asks(changes)))


def _shares(changes: Sequence[Change], view: View) -> tuple[int, int]:
    """How many instances and keys we manage, and how many of them would be deleted or replaced."""
    managed = {
        key_of(fact)
        for fact in view.facts.all
        if fact.kind in {"instance", "key"}
        and fact.subaccount not in view.wanted.theirs
        and (key_of(fact) in view.claimed or _marked(fact, view))
    }
    gone = {
        key_of(fact)
        for change in changes
        if change.acts and change.address.kind in {"instance", "key"}
        for fact in _given_up(change)
    }
    return len(managed), len(gone)


def _marked(fact: Fact, view: View) -> bool:
    return fact.mark is not None and (fact.mark.owner, fact.mark.spec) in view.wanted.owners


def _given_up(change: Change) -> Iterable[Fact]:
    if change.action is Action.DELETE:
        return change.retired
    if change.action is Action.REPLACE and change.found:
        return (change.found,)
    return ()


# --- the promise ----------------------------------------------------------------------------------------


def digest(
    changes: Sequence[Change],
    steps: Sequence[Step],
    objections: Sequence[Problem],
    places: Mapping[str, Subaccount],
) -> str:
    """What a saved plan promises: where, what was compared, and what was decided; never wording or times."""
    body = [
        [
            str(change.address),
            change.action,
            change.generation,
            bool(change.gate),
            [[one.path, one.before, one.after, one.seen, one.changes] for one in change.fields],
            [change.found.id, change.found.phase] if change.found else None,
            [fact.id for fact in change.retired],
            [fact.id for fact in change.dated],
            change.send,
            [change.wanted.mark.owner, change.wanted.mark.spec] if change.wanted else None,
            # What is not shown as a field: how it is delivered, and how long what is superseded is kept.
            change.wanted.spec.get("config") if change.wanted else None,
            change.wanted.keep_old_for if change.wanted and change.dated else None,
        ]
        for change in changes
    ]
    work = [[step.id, step.name, step.requires] for step in steps]
    said = [[problem.code, str(problem.address)] for problem in objections]
    where = [
        [name, places[name].id, places[name].region, _foundry(places[name])]
        for name in sorted({change.address.subaccount for change in changes})
    ]
    text = json.dumps([body, work, said, where], sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _foundry(place: Subaccount) -> list[str] | None:
    return [place.cloud_foundry.api, place.cloud_foundry.org] if place.cloud_foundry else None


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return repr(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value)
