"""The life that instances and keys have in common.

They carry our mark, they come in generations, they can be adopted, they can be half-made. What is particular to a kind
(its fields) is asked of the kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from btp_reconcile.core import fingerprint, marks, rotation, times
from btp_reconcile.core.model import (
    Action,
    Change,
    Fact,
    FieldChange,
    Json,
    Phase,
    Resource,
    Seen,
)
from btp_reconcile.core.view import View

MOST_NAMES = 8
"""How many names a hint lists."""
Fields = Callable[[Resource, Fact, View], tuple[FieldChange, ...]]


@dataclass(frozen=True)
class Life:
    """What a kind adds to the common life."""

    noun: str
    fields: Fields
    wishes: Callable[[Resource], tuple[FieldChange, ...]]
    """What a new one will be, for who approves it."""
    immutable: str
    """Why a new one is needed if certain fields differ."""
    anew: Action
    """What a forced new generation is called: replace (instance) or rotate (key)."""
    retire_by_itself: bool
    """May a superseded generation of ours go without being allowed by name?"""


def live(resource: Resource, view: View, life: Life, place: Place) -> Change | None:
    """The change of one marked thing, from what is there."""
    generations = generations_of(resource, view, place)
    for fact in generations:
        view.claimed.add((fact.kind, fact.runtime, fact.id))
    if two := _renamed_and_made(resource, generations):
        view.disputed.add(resource.address)
        view.object(
            "conflict/renamed-twice",
            f"{_what(two[0])} carries the name {resource.renamed_from!r}, and {_what(two[1])} {resource.mark.name!r} "
            "already: one of them cannot be the other",
            resource,
            f"take renamed_from away, and declare {resource.renamed_from} beside it if both are wanted",
        )
        return None
    if resource.absent and resource.observe_only:
        return _observed_absent(resource, generations[-1] if generations else None, view, place)
    if resource.absent:
        return _absent(resource, view, generations, place)
    if not generations:
        return _without_mark(resource, view, life, place)
    newest = generations[-1]
    if resource.observe_only:
        return _observed(resource, newest, life, view)
    if newest.phase is Phase.PENDING:
        return _awaited(resource, newest)
    if newest.phase is Phase.BROKEN:
        return _broken(resource, newest, generations, view, life, place)
    return _ready(resource, newest, generations, view, life, place)


@dataclass(frozen=True)
class Place:
    """Where the next generation goes, and where earlier ones may stand."""

    runtime: str
    parent: str | None
    parents: tuple[str | None, ...] | None = None
    """Ids of things in which generations count (a key: its instance's generations). None: anywhere."""
    moved: bool = False
    """The newest parent is not the one the newest generation stands in (a key whose instance is replaced)."""
    known: bool = True
    """False while the parent does not exist yet."""


def generations_of(resource: Resource, view: View, place: Place) -> list[Fact]:
    """All that carry its mark, oldest first; those of the former owner too, also when the newest is re-marked."""
    asked = (resource.address, place.parents)
    known = view.known_generations.get(asked)
    if known is None:  # a key is asked about several times, and the answer stays the same while comparing
        known = view.known_generations[asked] = tuple(_found_generations(resource, view, place))
    return list(known)


def _found_generations(resource: Resource, view: View, place: Place) -> list[Fact]:
    mark, where = resource.mark, (resource.address.kind, resource.address.subaccount)
    owners = dict.fromkeys((mark.owner, resource.owner_was or mark.owner))
    called = [(owner, name) for owner in owners for name in marks.known_as(resource)]
    if place.parents is None:
        carry = [view.marked.get((*where, *one), ()) for one in called]
    else:  # keys of one name stand in many instances: only its own are looked into
        parents = dict.fromkeys(place.parents)
        carry = [view.marked_in.get((*where, *one, parent), ()) for one in called for parent in parents]
    found = [fact for some in carry for fact in some if fact.mark and fact.mark.spec == mark.spec]
    if len(found) < 2:
        return found
    return sorted(
        found, key=lambda fact: (fact.mark.generation if fact.mark else 0, fact.created_at, fact.id)
    )


def _renamed_and_made(resource: Resource, generations: Sequence[Fact]) -> tuple[Fact, Fact] | None:
    """Two that are no generations of one thing: a name was moved to what had been made beside it."""
    new = [one for one in generations if one.mark and one.mark.name == resource.mark.name]
    old = [one for one in generations if one.mark and one.mark.name != resource.mark.name]
    if old and new and generation_of(old[-1]) >= generation_of(new[0]):
        return old[-1], new[0]
    return None


def next_generation(resource: Resource, view: View, generations: Sequence[Fact], place: Place) -> int:
    """The highest number seen, failed and foreign ones included, plus 1."""
    highest = max((fact.mark.generation for fact in generations if fact.mark), default=0)
    pattern = re.compile(re.escape(resource.name) + r"-([0-9]{1,6})")
    for parent in place.parents or (place.parent,):
        for fact in view.inside.get((resource.address.kind, resource.address.subaccount, parent), ()):
            if fact.runtime == place.runtime and (match := pattern.fullmatch(fact.name)):
                highest = max(highest, int(match.group(1)))
    return highest + 1


def _absent(resource: Resource, view: View, generations: list[Fact], place: Place) -> Change | None:
    if not generations:
        stranger = _candidate(resource, view, place)
        if stranger is None:
            return None
        if resource.adopt is None or stranger.foreign or (stranger.mark and not is_ours(stranger, resource)):
            view.object(
                "conflict/not-ours-to-delete",
                f"{_what(stranger)} is to be absent, but {whose(stranger)}",
                resource,
                "take it out of the spec, or say adopt: true beside ensure: absent if it may go"
                if _free(stranger)
                else "take it out of the spec; its owner must delete it",
            )
            return None
        if said := _of_another_plan(stranger, resource):
            view.disputed.add(resource.address)
            view.object(
                "conflict/adopt-differs",
                f"{_what(stranger)} is not what {resource.address} is to remove: {said}",
                resource,
                "correct the spec, or name the right one under adopt",
            )
            return None
        view.claimed.add((stranger.kind, stranger.runtime, stranger.id))
        generations = [stranger]
    if all(_going(one) for one in generations):
        return _awaited(resource, generations[-1])
    if resource.protect:
        view.object(
            "safety/protected",
            f"{resource.address} is protected and would be deleted",
            resource,
            "say protect: false in the spec if it may really go",
        )
    return Change(
        resource.address,
        Action.DELETE,
        "ensure: absent",
        wanted=resource,
        found=generations[-1],
        generation=generation_of(generations[-1]),
        retired=tuple(generations),
    )


def _of_another_plan(fact: Fact, resource: Resource) -> str:
    """Why something that carries no mark cannot be what a spec means by its name."""
    said, want = fact.attributes, resource.spec
    return ", ".join(
        f"{key} is {said[key]}, the spec says {want[key]}"
        for key in ("service", "plan")
        if key in said and said[key] != want[key]
    )


def _observed_absent(resource: Resource, newest: Fact | None, view: View, place: Place) -> Change | None:
    """What is only observed is not removed either; that it is there is drift."""
    found = newest or _candidate(resource, view, place)
    if found is None:
        return None
    view.claimed.add((found.kind, found.runtime, found.id))
    there = FieldChange("exists", before=True, after=False)
    reason = "is there; observed only"
    return Change(resource.address, Action.KEEP, reason, (there,), resource, found, generation_of(found))


def _going(fact: Fact) -> bool:
    """Is it being deleted already?"""
    return fact.phase is Phase.PENDING and fact.operation is not None and fact.operation.type == "delete"


def _free(fact: Fact) -> bool:
    return not fact.mark and not fact.foreign


def _without_mark(resource: Resource, view: View, life: Life, place: Place) -> Change | None:
    found = _candidate(resource, view, place)
    if found is None:
        return _missing(resource, view, life, place)
    if found.foreign or (found.mark and not is_ours(found, resource)):
        if resource.observe_only:
            return _observed(resource, found, life, view)
        view.disputed.add(resource.address)
        view.object(
            "conflict/foreign",
            f"{_what(found)} exists, but {whose(found)}",
            resource,
            _ways_out(found),
        )
        return None
    view.claimed.add((found.kind, found.runtime, found.id))
    if resource.observe_only:
        return _observed(resource, found, life, view)
    if resource.adopt is None:
        _dispute(resource, view, found, life, place)
        return None
    return _adopted(resource, found, view, life)


def _ways_out(found: Fact) -> str:
    """What can be done about something that carries another's mark."""
    ways = (
        "give yours another name, or take it out of the other's hands first; manage: observe only watches it"
    )
    if found.mark is None or found.foreign:
        return ways
    return f"if this spec takes it over from that owner, say owner_was: {found.mark.owner}; otherwise {ways}"


def _candidate(resource: Resource, view: View, place: Place) -> Fact | None:
    if resource.adopt and resource.adopt.id:
        found = view.by_id.get((resource.address.kind, resource.address.subaccount, resource.adopt.id))
        elsewhere = found is not None and found.kind == "key" and found.parent != place.parent
        return None if elsewhere else found
    return _by_name(resource, view, place)


def _by_name(resource: Resource, view: View, place: Place) -> Fact | None:
    return view.named.get(
        (resource.address.kind, resource.address.subaccount, place.runtime, place.parent, resource.sought)
    )


def _missing(resource: Resource, view: View, life: Life, place: Place) -> Change | None:
    if resource.adopt and (resource.adopt.id or resource.adopt.name):
        view.disputed.add(resource.address)
        wanted = resource.adopt.id or resource.adopt.name
        view.object(
            "conflict/nothing-to-adopt",
            f"{resource.address} is to adopt {wanted!r}, but there is no such {life.noun}"
            + (" in its instance" if life.noun == "key" else ""),
            resource,
            f"{_candidates(resource, view, place)}take adopt out of the spec to have it created",
        )
        return None
    if resource.observe_only:
        missing = FieldChange("exists", before=False, after=True)
        return Change(resource.address, Action.KEEP, "is missing; observed only", (missing,), resource)
    return Change(
        resource.address,
        Action.CREATE,
        "not there yet",
        life.wishes(resource),
        resource,
        notes=_look_alikes(resource, view, place) if life.noun == "instance" else (),
    )


def _look_alikes(resource: Resource, view: View, place: Place) -> tuple[str, ...]:
    """Perhaps what is wanted is there under another name, made by hand or by a booster."""
    if free := _free_names(resource, view, place):
        return (f"of this plan there is already: {free}; adopt: {{name: …}} would take one over",)
    return ()


def _dispute(resource: Resource, view: View, found: Fact, life: Life, place: Place) -> None:
    view.disputed.add(resource.address)
    free = _candidates(resource, view, place)
    view.object(
        "conflict/exists",
        f"{_what(found)} exists already, and {whose(found)}",
        resource,
        f"three answers: adopt: true takes it over; manage: observe only watches it; name: OTHER-NAME makes "
        f"another {life.noun} beside it"
        + (f". {free}adopt: {{name: …}} or adopt: {{id: …}} takes one of these" if free else ""),
    )


def _candidates(resource: Resource, view: View, place: Place) -> str:
    free = _free_names(resource, view, place)
    what = "in this instance" if resource.address.kind == "key" else "of this plan"
    return f"{what[0].upper()}{what[1:]} there is: {free}. " if free else ""


def _free_names(resource: Resource, view: View, place: Place) -> str:
    """What of that plan is there and nobody's."""
    inside = view.inside.get((resource.address.kind, resource.address.subaccount, place.parent), ())
    free = sorted(
        fact.name
        for fact in inside
        if fact.runtime == place.runtime
        and not fact.mark
        and not fact.foreign
        and fact.attributes.get("service", "") == resource.spec.get("service", "")
        and fact.attributes.get("plan", resource.spec["plan"]) == resource.spec["plan"]
    )
    return ", ".join(free[:MOST_NAMES]) + (f" and {len(free) - MOST_NAMES} more" if free[MOST_NAMES:] else "")


def _adopted(resource: Resource, found: Fact, view: View, life: Life) -> Change | None:
    fields = _without_ignored(life.fields(resource, found, view), resource)
    wrong = [one for one in fields if one.changes and one.forces_replace and one.seen is Seen.OBSERVED]
    if wrong:
        view.disputed.add(resource.address)
        said = ", ".join(f"{one.path} is {one.before}, the spec says {one.after}" for one in wrong)
        view.object(
            "conflict/adopt-differs",
            f"{_what(found)} cannot be adopted as {resource.address}: {said}",
            resource,
            "correct the spec, or adopt another one",
        )
        return None
    if found.phase is not Phase.READY:
        if found.phase is Phase.PENDING:
            return _awaited(resource, found)
        _unfit(resource, found, view)
        return None
    return Change(
        resource.address,
        Action.ADOPT,
        f"takes over {life.noun} {found.name}, which "
        + (f"spec {found.mark.spec!r} made" if found.mark else "carries no mark"),
        fields,
        resource,
        found,
        send=_sent(fields, resource),
    )


def _unfit(resource: Resource, found: Fact, view: View) -> None:
    view.disputed.add(resource.address)
    view.object(
        "conflict/adopt-broken",
        f"{_what(found)} cannot be adopted: {found.detail or 'its last operation failed'}",
        resource,
        "delete it, and take adopt out of the spec to have it created",
    )


def _observed(resource: Resource, found: Fact, life: Life, view: View) -> Change:
    view.claimed.add((found.kind, found.runtime, found.id))
    fields = _without_ignored(life.fields(resource, found, view), resource)
    differs = any(one.changes for one in fields)
    reason = "differs; observed only" if differs else "observed only"
    return Change(resource.address, Action.KEEP, reason, fields, resource, found, generation_of(found))


def _awaited(resource: Resource, found: Fact) -> Change:
    doing = {"create": "being created", "update": "being changed", "delete": "being deleted"}
    what = doing.get(found.operation.type if found.operation else "", "busy")
    reason = f"{found.name} is {what}" + (f": {found.detail}" if found.detail else "")
    return Change(
        resource.address, Action.AWAIT, reason, wanted=resource, found=found, generation=generation_of(found)
    )


def _broken(
    resource: Resource, newest: Fact, generations: list[Fact], view: View, life: Life, place: Place
) -> Change | None:
    fields = _without_ignored(life.fields(resource, newest, view), resource)
    if place.moved:
        return _anew(resource, newest, generations, view, life, place, "its instance is made anew", fields)
    if newest.operation and newest.operation.type == "delete":
        why = "its deletion failed half-way, so it cannot be used any more"
        return _anew(resource, newest, generations, view, life, place, why, fields, (newest,))
    if (newest.runtime, newest.parent) != (place.runtime, place.parent):
        why = "its creation failed elsewhere; it is made where the spec says now"
        return _anew(resource, newest, generations, view, life, place, why, fields, (newest,))
    detail = newest.detail or "no reason given"
    known = view.catalogue.known_error(resource.spec["service"], resource.spec["plan"], detail)
    differs = fingerprint.compare(
        newest.fingerprint,
        resource.spec["parameters"],
        view.fingerprint_key(resource.address.subaccount),
        {},
    )
    same = newest.fingerprint and not any(one.changes for one in differs)
    if known and known.final and same:
        return Change(
            resource.address,
            Action.AWAIT,
            f"its creation failed for good: {detail}",
            wanted=resource,
            found=newest,
            generation=generation_of(newest),
            gate=f"{known.meaning} {known.hint} It is tried again when its parameters have changed.",
        )
    return Change(
        resource.address,
        Action.CREATE,
        f"its creation failed and is tried again: {detail}",
        life.wishes(resource),
        resource,
        newest,
        generation_of(newest),
    )


def _ready(
    resource: Resource, newest: Fact, generations: list[Fact], view: View, life: Life, place: Place
) -> Change | None:
    fields = _without_ignored(life.fields(resource, newest, view), resource)
    if place.moved:
        return _anew(resource, newest, generations, view, life, place, "its instance is made anew", fields)
    changed = tuple(one for one in fields if one.changes)
    forced = [one for one in changed if one.forces_replace]
    if forced:
        why = f"{_differ(forced)}; {life.immutable}"
        return _anew(resource, newest, generations, view, life, place, why, fields)
    again = resource.address in view.policy.reapply
    held = rotation.unfinished(resource, generations, view) and not rotation.refused(newest)
    if again and life.anew is Action.ROTATE and not held:
        asked = "asked for by name" if view.policy.only_due else "asked for by --reapply"
        return _anew(resource, newest, generations, view, life, place, asked, fields)
    if newest.mark and newest.mark.owner != resource.mark.owner:
        return Change(
            resource.address,
            Action.ADOPT,
            f"re-marked from owner {newest.mark.owner}",
            fields,
            resource,
            newest,
            generation_of(newest),
            send=_sent(fields, resource),
        )
    if newest.mark and newest.mark.name != resource.mark.name:
        return _renamed(resource, newest, newest.mark.name, fields)
    found = rotation.due(resource, newest, view) if life.anew is Action.ROTATE else None
    if found is not None and not rotation.unfinished(resource, generations, view):
        view.aged[resource.address] = found
        return _anew(resource, newest, generations, view, life, place, found.reason, fields)
    if changed or (again and life.anew is not Action.ROTATE):
        return Change(
            resource.address,
            Action.UPDATE,
            "; ".join(dict.fromkeys(one.note for one in changed if one.note))
            or ("asked for by --reapply" if again and not changed else _differ(changed)),
            fields,
            resource,
            newest,
            generation_of(newest),
            notes=_failed(newest),
            send=_sent(fields, resource, again=again),
        )
    return _retired(resource, newest, generations, view, life, fields)


def _renamed(resource: Resource, newest: Fact, before: str, fields: tuple[FieldChange, ...]) -> Change:
    """Its mark gets the new name, and it itself where the platform can rename it; nothing is made anew."""
    told = FieldChange("mark.name", before, resource.mark.name)
    generation = generation_of(newest)
    named = {
        resource.name,
        resource.physical(generation),
        *(one.after for one in fields if one.path == "name"),
    }
    stays = resource.address.kind == "key" and resource.spec["runtime"] == "cloudfoundry"
    notes: tuple[str, ...] = ()
    if stays and newest.name not in named:
        said = f"on the platform it stays {newest.name}, because Cloud Foundry cannot rename a key"
        notes = (f"{said}; the next generation is called {resource.physical(generation + 1)}",)
    return Change(
        resource.address,
        Action.UPDATE,
        f"renamed from {before}",
        (told, *fields),
        resource,
        newest,
        generation,
        notes=(*_failed(newest), *notes),
        send=_sent(fields, resource),
    )


def _still_called(old: Sequence[Fact], resource: Resource) -> tuple[str, ...]:
    """Superseded generations keep the name they were made under: by it they are known until they go."""
    found = [one.name for one in old if one.mark and one.mark.name != resource.mark.name]
    if not found:
        return ()
    said = f"{', '.join(found)} {'carry' if len(found) > 1 else 'carries'} the name {resource.renamed_from} still"
    return (f"{said}; leave renamed_from in the spec until {'they are' if len(found) > 1 else 'it is'} gone",)


def _differ(changed: Sequence[FieldChange]) -> str:
    names = [one.path for one in changed]
    return f"differs: {', '.join(names)}"


def _sent(fields: Iterable[FieldChange], resource: Resource, *, again: bool = False) -> dict[str, object]:
    """What an update sends: whole top-level fields; parameters always complete, as brokers want them."""
    send: dict[str, object] = {}
    for one in fields:
        if one.changes:
            top = one.path.partition(".")[0]
            send[top] = one.after if top == "name" else resource.spec[top]
    if again:
        send["parameters"] = resource.spec.get("parameters", {})
    if "parameters" in send and "parameters" not in resource.ignore:
        send["parameters"] = _not_ignored(send["parameters"], "parameters", resource.ignore)
    return send


def _not_ignored(value: Json, path: str, ignore: Sequence[str]) -> Json:
    """What is left to others is not sent along with what is ours."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: _not_ignored(item, f"{path}.{key}", ignore)
        for key, item in value.items()
        if f"{path}.{key}" not in ignore
    }


def _anew(
    resource: Resource,
    newest: Fact,
    generations: list[Fact],
    view: View,
    life: Life,
    place: Place,
    reason: str,
    fields: tuple[FieldChange, ...] = (),
    gone: tuple[Fact, ...] = (),
) -> Change:
    """A new generation beside the old one; the old one goes when its time has come.

    `gone` never came to be usable, or is so no more: it goes as soon as the new one is there.
    """
    if resource.protect and not gone:
        view.object(
            "safety/protected",
            f"{resource.address} is protected and would be replaced: {reason}",
            resource,
            "say protect: false in the spec if a new one may be made and the old one given up",
        )
    now = life.retire_by_itself and resource.keep_old_for == 0
    retired = tuple(generations) if now else gone
    served = bool(view.consumers.get(resource.address))
    alone = life.anew is Action.ROTATE and not served
    if alone and not now:  # what has consumers is decided on once these were compared: see `rotation.settled`
        retired += tuple(one for one in rotation.outlived(resource, view) if one not in retired)
    kept = "" if newest in retired else _kept(newest, resource, life, served=served)
    return Change(
        resource.address,
        life.anew,
        reason,
        fields,
        resource,
        newest,
        next_generation(resource, view, generations, place),
        retired=retired,
        notes=(kept,) if kept else (),
        proven=alone and bool(resource.spec.get("verify", True)),
    )


def _kept(old: Fact, resource: Resource, life: Life, *, served: bool) -> str:
    """What becomes of a generation that is superseded by this change."""
    kept = times.span(resource.keep_old_for)
    want = resource.spec
    where = ""
    if old.runtime != want["runtime"]:
        where = f" in runtime {old.runtime}"
    elif old.attributes.get("space") != want.get("space"):
        where = f" in space {old.attributes.get('space')}"
    if served:
        return (
            f"the old one ({old.name}{where}) is kept until every consumer has the new one, and {kept} more"
        )
    if life.retire_by_itself:
        return (
            f"the old one ({old.name}{where}) is kept for {kept} after that; the next apply then deletes it"
        )
    later = f", {kept} after that at the earliest" if resource.keep_old_for else ""
    return f"the old one ({old.name}{where}) stays; only --allow {resource.address} deletes it{later}"


def _retired(
    resource: Resource,
    newest: Fact,
    generations: list[Fact],
    view: View,
    life: Life,
    fields: tuple[FieldChange, ...],
) -> Change:
    old = generations[:-1]
    unknown = any(one.seen is Seen.UNKNOWN for one in fields)
    keep = Change(
        resource.address,
        Action.KEEP,
        "in sync as far as can be seen" if unknown else "in sync",
        fields,
        resource,
        newest,
        generation_of(newest),
        notes=_failed(newest),
    )
    if life.anew is Action.ROTATE:
        if told := tuple(rotation.remarks(resource, newest, view)):
            keep = replace(keep, notes=(*keep.notes, *told))
        if old and resource.address in view.policy.reapply:  # asked for, and the last one is not through
            keep = replace(keep, notes=(*keep.notes, f"not made anew: {newest.name} is still on its way"))
    if not old:
        return keep
    keep = replace(keep, notes=(*keep.notes, *_still_called(old, resource)))
    if view.consumers.get(resource.address):
        return keep  # what becomes of the old ones is known once they were compared: see `rotation.settled`
    return _superseded(keep, resource, newest, generations, view, life)


def _superseded(
    keep: Change, resource: Resource, newest: Fact, generations: list[Fact], view: View, life: Life
) -> Change:
    """Each old generation goes so long after its successor was made."""
    now, allow = view.policy.now, "" if life.retire_by_itself else f"--allow {resource.address}"
    days = rotation.days(generations, resource.keep_old_for, now)
    later: dict[float | None, list[Fact]] = {}
    over: list[Fact] = []
    for one in generations[:-1]:
        at = days[one.id]
        if at is None or at > now:
            later.setdefault(at, []).append(one)
        else:
            over.append(one)
    notes = list(keep.notes)
    for at, some in later.items():
        names, are = _named(some)
        if at is None:
            notes.append(rotation.no_use(names, are, newest))
        else:
            note = f"{names} {are} superseded and kept until {times.day(at)}"
            notes.append(f"{note}; after that {allow} deletes" if allow else note)
    names, are = _named(over)
    if not over:
        return replace(keep, notes=tuple(notes))
    if allow and str(resource.address) not in view.policy.allow:
        return replace(keep, notes=(*notes, f"{names} {are} superseded; {allow} deletes"))
    if resource.protect:
        view.object(
            "safety/protected",
            f"{resource.address} is protected and an old generation ({names}) would be deleted",
            resource,
            "say protect: false in the spec if the old one may really go",
        )
    return replace(
        keep,
        action=Action.RETIRE,
        reason=f"superseded by {newest.name}",
        retired=tuple(over),
        notes=tuple(notes),
        proven=not allow and rotation.tried_first(resource, over, view),
    )


def _named(old: Sequence[Fact]) -> tuple[str, str]:
    return ", ".join(sorted(one.name for one in old)), "are" if len(old) > 1 else "is"


def _failed(fact: Fact) -> tuple[str, ...]:
    """What the platform says of a last operation that failed and left the thing in use."""
    doing = fact.operation.type if fact.operation else "operation"
    return (f"its last {doing} failed: {fact.detail}",) if fact.detail else ()


def generation_of(fact: Fact) -> int:
    return fact.mark.generation if fact.mark else 1


def is_ours(fact: Fact, resource: Resource) -> bool:
    """Same owner (or the one this spec takes over from); an adoption may then change the spec's name."""
    return fact.mark is not None and fact.mark.owner in {resource.mark.owner, resource.owner_was}


def _what(fact: Fact) -> str:
    where = "" if not fact.runtime else f" ({'Cloud Foundry' if fact.runtime == 'cloudfoundry' else 'Other'})"
    return f"{fact.kind} {fact.name!r}{where}"


def whose(fact: Fact) -> str:
    if fact.foreign:
        return fact.foreign
    if fact.mark:
        return f"it belongs to owner {fact.mark.owner!r}, spec {fact.mark.spec!r}"
    return "it does not carry our mark"


def _without_ignored(fields: Iterable[FieldChange], resource: Resource) -> tuple[FieldChange, ...]:
    def ignored(path: str) -> bool:
        return any(path == one or path.startswith(one + ".") for one in resource.ignore)

    return tuple(one for one in fields if not ignored(one.path))


# --- fields that instances and keys have in common ------------------------------------------------------


def parameter_fields(
    resource: Resource, fact: Fact, view: View, *, immutable: bool = False
) -> tuple[FieldChange, ...]:
    """What can be said of the parameters: by the record of what was applied last, or not at all.

    `immutable`: the platform cannot change them (a key), so the record always holds.
    """
    want = resource.spec["parameters"]
    trust = fingerprint.trust(fact.fingerprint, None if immutable else fact.operation)
    if trust.seen is Seen.UNKNOWN:
        if not want and not fact.fingerprint:
            return ()
        said = immutable or resource.address in view.policy.reapply
        why = trust.why if said else f"{trust.why}; --reapply {resource.address} would send the spec's"
        return (FieldChange("parameters", None, want, Seen.UNKNOWN, changes=False, note=why),)
    api = view.catalogue.offered(resource.spec["service"], resource.spec["plan"])
    key = view.fingerprint_key(resource.address.subaccount)
    fields = tuple(
        replace(one, forces_replace=_forced(one.path, resource)) if one.changes else one
        for one in fingerprint.compare(fact.fingerprint, want, key, api.known_values if api else {})
    )
    if trust.cut_short and not any(one.changes for one in fields):
        note = "an earlier update was cut short; its parameters are sent again"
        return (*fields, FieldChange("parameters", "(cut short)", want, Seen.ASSUMED, note=note))
    if fields or not want:
        return fields
    return (FieldChange("parameters", want, want, Seen.ASSUMED, changes=False),)


def _forced(path: str, resource: Resource) -> bool:
    return path in resource.replace_on


def newest_in(resource: Resource, view: View, parents: tuple[str | None, ...]) -> Fact | None:
    """The newest generation that stands in one of these."""
    found = generations_of(resource, view, Place("", None, parents))
    return found[-1] if found else None


def wished(resource: Resource) -> tuple[FieldChange, ...]:
    """The parameters a new one is made with, one entry each."""
    return tuple(
        FieldChange(f"parameters.{name}", None, value) for name, value in resource.spec["parameters"].items()
    )
