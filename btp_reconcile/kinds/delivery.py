"""A key's credentials at their consumer: `delivery:prod/apim/transport/main`.

What was delivered, and what the consumer held afterwards, stands in a receipt on the key. Planning compares the receipt
with a look at the consumer, which reads no secret back where that is not needed. Of a consumer that cannot be looked at
the receipt alone tells whether it was given anything.
"""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from btp_reconcile.core import digest, fingerprint, record
from btp_reconcile.core.kind import Kind
from btp_reconcile.core.life import generation_of
from btp_reconcile.core.model import Action, Change, Fact, FieldChange, Phase, Problem, Seen
from btp_reconcile.core.sink import CHANGED, NEVER, Held
from btp_reconcile.core.times import words
from btp_reconcile.core.wire import given
from btp_reconcile.sinks import SINKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from btp_reconcile.core.kind import Door, Driver, Task
    from btp_reconcile.core.model import Data, Resource, StepId, Subaccount, Wanted
    from btp_reconcile.core.sink import Consumer, ConsumerDoor, Sink
    from btp_reconcile.core.view import View

SHAPES = ("native", "uaa", "piper", "binding")
OWN_WORDS = ("shape", "adopt")
"""The words of a delivery beside its sink's."""

SCHEMA: Data = {
    "type": "object",
    "description": "Where the key's credentials go: one sink, and in which shape.",
    "additionalProperties": False,
    "properties": {
        **{sink.name: {**sink.schema, "title": sink.name, "description": sink.title} for sink in SINKS},
        "shape": {
            "type": "string",
            "enum": list(SHAPES),
            "description": "native: as the service gives it; uaa: nested, in small letters; piper: one object `oauth`; "
            "binding: as libraries read a service binding. Default: native.",
        },
        "adopt": {
            "type": "boolean",
            "description": "true: what is there already, and is not ours, is overwritten.",
        },
    },
}

EXAMPLES: tuple[str, ...] = ()


def place(resource: Resource) -> str:
    """Sink and place in words: `vault secret/apim/pipeline`."""
    return f"{resource.spec['runtime']} {resource.spec['place']}"


# --- comparing ------------------------------------------------------------------------------------------


def compare(resource: Resource, view: View) -> Change | None:
    """What must happen to one delivery; its key has been decided on already."""
    key = resource.requires[0]
    decided = view.changes.get(key)
    if key in view.disputed or decided is None or decided.wanted is None or decided.wanted.absent:
        return None
    if view.unseen(resource.address.subaccount, str(resource.address)) or decided.action is Action.DELETE:
        return None
    held = _there(resource, view)
    if decided.action is Action.KEEP and decided.found is None:
        return Change(resource.address, Action.KEEP, "its key is not there", wanted=resource, found=held)
    if resource.observe_only or decided.wanted.observe_only:
        given = record.receipt_of(decided.found, resource.address) is not None
        notes = () if given else (f"nothing is delivered to {place(resource)}",)
        said = "its key is only observed"
        return Change(resource.address, Action.KEEP, said, wanted=resource, found=held, notes=notes)
    never = held is not None and held.foreign in NEVER
    if held is not None and held.foreign and (never or not resource.spec["adopt"]):
        view.disputed.add(resource.address)
        view.object(
            "conflict/exists",
            f"{place(resource)} exists already, and {held.foreign}",
            resource,
            "take it away, or deliver to another place"
            if never
            else "adopt: true overwrites it; or deliver to another place",
        )
        return None
    fresh = decided.action in {Action.CREATE, Action.ROTATE}
    newest = None if fresh else decided.found
    receipt = record.receipt_of(newest, resource.address)
    if receipt is None:
        before = receipt_before(resource, view)
        if held is not None and _is_lost(resource, held, view):
            return _lost(resource, held, decided.generation, before, fresh=fresh)
        change = _given_anew(resource, held, decided.generation, before)
        if newest is not None and record.former_receipts(newest, resource.formerly):
            return replace(
                change, reason="its key is called something else now: it is given it under that name"
            )
        return change
    return _checked(resource, held, receipt, decided, view)


def _there(resource: Resource, view: View) -> Fact | None:
    """What the consumer holds: as it was seen, or, where nobody can look, by the newest receipt on the key alone."""
    if _sink(resource).can_look:
        return view.by_id.get(("delivery", resource.address.subaccount, str(resource.address)))
    for fact in reversed(view.generations.get(resource.requires[0], ())):
        for address in (resource.address, *resource.formerly):
            receipt = record.receipt_of(fact, address)
            if receipt is not None and receipt.place.startswith(f"{resource.spec['runtime']} "):
                return _fact(resource, Held(), generation_of(fact))
    return None


def _sink(resource: Resource) -> Sink:
    return next(one for one in SINKS if one.name == resource.spec["runtime"])


def receipt_before(resource: Resource, view: View) -> record.Receipt | None:
    """The receipt on the newest generation that has one."""
    for fact in reversed(view.generations.get(resource.requires[0], ())):
        if (found := record.receipt_of(fact, resource.address)) is not None:
            return found
    return None


def _is_lost(resource: Resource, held: Fact, view: View) -> bool:
    """Does the consumer say that it holds a key of ours which is not there any more?"""
    identity = held.attributes.get("identity")
    known = {one.id for one in view.generations.get(resource.requires[0], ())}
    return identity is not None and not held.foreign and identity.key not in known


def _lost(
    resource: Resource, held: Fact, generation: int, before: record.Receipt | None, *, fresh: bool
) -> Change:
    """It holds a key that is gone, and the receipt for it with that."""
    had = held.attributes["generation"]
    given = "the one that is made now" if fresh else f"generation {generation}"
    told = f"generation {generation}{', made now' if fresh else ''}"
    return Change(
        resource.address,
        Action.UPDATE,
        f"the key it holds (generation {had}) is gone; it is given {given}",
        (FieldChange("key", f"generation {had}, gone", told),),
        resource,
        held,
        generation,
        notes=_moved(resource, before),
    )


def _given_anew(
    resource: Resource, held: Fact | None, generation: int, before: record.Receipt | None
) -> Change:
    fields: tuple[FieldChange, ...] = (FieldChange("to", before.place if before else None, place(resource)),)
    notes = _moved(resource, before)
    if held is None:
        fields = (FieldChange("to", None, place(resource)),)
        reason = "not delivered yet" if before is None else f"generation {generation} is not there yet"
        return Change(
            resource.address, Action.CREATE, reason, fields, resource, None, generation, notes=notes
        )
    had = held.attributes.get("generation")
    if before is None and had is None:
        reason = (
            f"something is there already, and {held.foreign or 'nothing says whose it is'}; it is overwritten"
        )
    elif had == generation or before is None:
        reason = "there is no receipt for it on the key"
    else:
        reason = f"generation {generation} is not there yet"
    seen = Seen.OBSERVED if _sink(resource).can_look else Seen.ASSUMED
    shown = FieldChange("generation", had, generation, seen)
    fields = (shown,) if before is not None and before.place == place(resource) else (*fields, shown)
    return Change(resource.address, Action.UPDATE, reason, fields, resource, held, generation, notes=notes)


def _moved(resource: Resource, before: record.Receipt | None) -> tuple[str, ...]:
    if before is None or not before.place or before.place == place(resource) or before.place.endswith("…"):
        return ()
    return (f"left behind: what was delivered to {before.place} stays there",)


def _checked(
    resource: Resource, held: Fact | None, receipt: record.Receipt, decided: Change, view: View
) -> Change:
    """There is a receipt: does the consumer still hold what it says?"""
    generation = decided.generation
    if receipt.config != resource.spec["config"]:
        fields = [FieldChange("to", receipt.place, place(resource))]
        if receipt.place == place(resource):
            fields = [FieldChange("settings", "(as delivered)", "(as the spec says)", Seen.ASSUMED)]
        action = Action.UPDATE if held is not None else Action.CREATE
        reason = "the spec says otherwise now"
        notes = _moved(resource, receipt)
        return Change(
            resource.address, action, reason, tuple(fields), resource, held, generation, notes=notes
        )
    if not _sink(resource).can_look:
        told = FieldChange("to", place(resource), place(resource), Seen.ASSUMED, changes=False)
        reason = f"delivered {words(receipt.at)}; it cannot be looked at again"
        return Change(resource.address, Action.KEEP, reason, (told,), resource, None, generation)
    if held is None:
        missing = FieldChange("exists", before=False, after=True)
        reason = f"it was delivered {words(receipt.at)} and is gone"
        return Change(resource.address, Action.CREATE, reason, (missing,), resource, None, generation)
    gone = _of_a_lost_key(resource, held, receipt, decided.found, view)
    differs = (*_owned(resource, held), *(gone or _differences(held, receipt, generation)))
    if differs:
        reason = "; ".join(one.note for one in differs if one.note)
        return Change(resource.address, Action.UPDATE, reason, differs, resource, held, generation)
    return Change(resource.address, Action.KEEP, "in sync", (), resource, held, generation)


def _owned(resource: Resource, held: Fact) -> Sequence[FieldChange]:
    """Does the consumer say that it is the former owner's?"""
    before = held.attributes["identity"].owner if held.attributes["identity"] else resource.mark.owner
    if before == resource.mark.owner or held.foreign:
        return ()
    return (FieldChange("owner", before, resource.mark.owner, note=f"re-marked from owner {before}"),)


def _of_a_lost_key(
    resource: Resource, held: Fact, receipt: record.Receipt, newest: Fact | None, view: View
) -> Sequence[FieldChange]:
    """Was it given a later key, which is gone, and its receipt with it? Then nobody changed what it holds."""
    generation = newest.mark.generation if newest is not None and newest.mark else 1
    if held.attributes.get("identity") is not None:
        if not _is_lost(resource, held, view):
            return ()
        had = held.attributes["generation"]
        note = f"the key it holds (generation {had}) is gone, and the receipt for it with that"
        return (FieldChange("key", f"generation {had}, gone", f"generation {generation}", note=note),)
    # It cannot say which key it holds. A day was noted on this one: then everybody was given a later one, after that.
    at, given = record.retire_after(newest) if newest is not None else None, fingerprint.epoch(receipt.at)
    kept = view.resources[resource.requires[0]].keep_old_for
    if at is None or given is None or given >= at - kept or not _differences(held, receipt, generation):
        return ()
    note = "the key it was given last is gone, and the receipt for it with that"
    return (FieldChange("key", "(gone)", f"generation {generation}", note=note),)


def _differences(held: Fact, receipt: record.Receipt, generation: int) -> Sequence[FieldChange]:
    found: list[FieldChange] = []
    said = held.attributes
    if said.get("generation") not in (None, generation):
        note = f"it holds generation {said['generation']}"
        found.append(FieldChange("generation", said["generation"], generation, note=note))
    if said["version"] and receipt.version and said["version"] != receipt.version:
        note = f"changed by others since {words(receipt.at)}"
        found.append(FieldChange("version", said["version"], receipt.version, note=note))
    elif said["digest"] and receipt.digest and said["digest"] != receipt.digest:
        note = f"its content was changed by others since {words(receipt.at)}"
        found.append(FieldChange("content", "(another)", "(as delivered)", note=note))
    told = {CHANGED} if found else set()
    wrong = "; ".join(one for one in str(said["wrong"]).split("; ") if one and one not in told)
    if wrong:
        found.append(FieldChange("state", wrong, "as it should be", note=wrong))
    return found


# --- the drivers: one for each sink ---------------------------------------------------------------------


class Deliveries:
    """A sink as a driver."""

    batch = False
    replaces_failed = True

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.service = f"sink/{sink.name}"

    def observe(
        self, door: Door, places: Sequence[Subaccount], wanted: Wanted, seen: Sequence[Fact]
    ) -> Sequence[Fact]:
        del seen
        if not self.sink.can_look:
            return ()
        names = {one.name for one in places}
        found = []
        for resource in wanted.of("delivery"):
            if resource.address.subaccount in names and resource.spec["runtime"] == self.sink.name:
                held = _consumer(door).look(resource.spec["block"])
                if held is not None:
                    found.append(_fact(resource, held))
        return found

    def create(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:
        found: dict[StepId, Fact] = {}
        for task in tasks:
            resource = given(task.wanted, self.service, f"what is said about {task.step.address}")
            parcel = given(task.parcel, self.service, f"the credentials for {task.step.address}")
            before = _held(task.found)
            found[task.step.id] = _fact(resource, _consumer(door).put(resource.spec["block"], parcel, before))
        return found

    def update(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:
        return self.create(door, tasks)

    def delete(self, door: Door, tasks: Sequence[Task]) -> None:
        """Never: what a consumer was given is its own. Nothing plans such a step."""
        raise NotImplementedError

    def look(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact | None]:
        found: dict[StepId, Fact | None] = {}
        for task in tasks:
            resource = given(task.wanted, self.service, f"what is said about {task.step.address}")
            # What cannot be looked at is not known to be there: giving it once more is harmless.
            held = _consumer(door).look(resource.spec["block"]) if self.sink.can_look else None
            found[task.step.id] = _fact(resource, held) if held is not None else None
        return found

    def blockers(self, door: Door, task: Task) -> Sequence[str]:  # noqa: ARG002 - nothing stands in a delivery
        return ()

    def prepare(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:  # noqa: ARG002 - no request
        return {task.step.id: task.parent for task in tasks if task.parent is not None}

    def seal(self, door: Door, task: Task, fact: Fact) -> None:
        """Nothing to do: the receipt is written on the key."""


def _consumer(door: Door) -> Consumer:
    return cast("ConsumerDoor", door).consumer


def _fact(resource: Resource, held: Held, generation: int | None = None) -> Fact:
    """`generation`: which one it was given, where the consumer itself does not say."""
    identity = held.identity
    foreign = held.foreign
    if identity is not None and not foreign:
        mark = resource.mark
        called = {str(one) for one in (resource.address, *resource.formerly)}
        if identity.owner not in {mark.owner, resource.owner_was} or identity.delivery not in called:
            foreign = f"it belongs to {identity.delivery} of spec {identity.spec!r}, owner {identity.owner!r}"
    return Fact(
        "delivery",
        str(resource.address),
        str(resource.spec["place"]),
        resource.address.subaccount,
        Phase.READY,
        {
            "version": held.version,
            "digest": held.digest,
            "wrong": held.wrong,
            "generation": identity.generation if identity else generation,
            "identity": identity,
        },
        foreign=foreign,
        runtime=str(resource.spec["runtime"]),
    )


def _held(fact: Fact | None) -> Held | None:
    if fact is None:
        return None
    said: Mapping[str, Any] = fact.attributes
    return Held(str(said["version"]), str(said["digest"]), said["identity"], fact.foreign, str(said["wrong"]))


def drivers() -> Mapping[str, Driver]:
    """Sink → its driver."""
    return {sink.name: Deliveries(sink) for sink in SINKS}


def check(changes: Sequence[Change], view: View) -> Iterable[Problem]:
    """Two deliveries to one place would overwrite each other in every run."""
    first: dict[tuple[str, ...], Change] = {}
    for change in changes:
        if change.wanted is None or not _sink(change.wanted).can_look:
            continue  # one program may serve many keys: it is told which one it is given
        before = first.setdefault(_where(change.wanted, view), change)
        if before is not change:
            yield Problem(
                "conflict/claimed-twice",
                f"{before.address} and {change.address} both go to {place(change.wanted)}",
                change.wanted.source,
                change.address,
                "give one of them another place",
            )


def _where(resource: Resource, view: View) -> tuple[str, ...]:
    """Two that are equal are one place: the same words mean another place where another access opens the sink.

    Access that is declared and empty was not read (a rehearsal): each subaccount's may be another.
    """
    sink, where = str(resource.spec["runtime"]), str(resource.spec["place"])
    if sink == "file":  # a path begins at its spec's folder
        where = posixpath.normpath(posixpath.join(str(resource.spec["block"].get("base") or ""), where))
    given = view.wanted.access.get(resource.address.subaccount, {}).get(sink)
    if given is None:
        return sink, where
    return sink, where, digest.of_json("access", given) if given else resource.address.subaccount


def objections(sink: str, block: Data) -> Iterable[str]:
    """What is wrong with what a sink is told, and what it lacks."""
    known = {one.name: one for one in SINKS}
    if sink not in known:
        return
    missing = [name for name in known[sink].schema.get("required", ()) if not block.get(name)]
    yield from (f"{sink} needs {name!r}" for name in missing)
    if not missing and "${" not in repr(block):
        yield from known[sink].objections(block)


KIND = Kind(
    name="delivery",
    title="a key's credentials at their consumer",
    schema=SCHEMA,
    drivers=drivers(),
    examples=EXAMPLES,
    access={sink.name: sink.access for sink in SINKS if sink.access is not None},
    compare=compare,
    check=check,
    objections=objections,
)
