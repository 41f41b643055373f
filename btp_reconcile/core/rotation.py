"""When a key is made anew because of its age, and when the old one may go. Arithmetic only: time is an input.

A key that nobody is given by us is kept for `keep_old_for` after its successor was made. A key with consumers (deliveries,
destinations) has an order of its own: create, verify, give to every consumer, note on the old one when it goes, wait,
delete. What was reached stands as notes on the keys themselves (`core/record.py`), so any run can go on from there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from btp_reconcile.core import record
from btp_reconcile.core.fingerprint import epoch
from btp_reconcile.core.model import Action, Address, Change, Phase
from btp_reconcile.core.times import about, day, span, words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from btp_reconcile.core.model import Fact, Resource
    from btp_reconcile.core.view import View

JITTER = 0.1
"""So much of `rotate_after` a key may be made anew earlier, by its address: keys made together are not renewed together."""
MARGIN = 86400
"""Seconds before the last moment at which a certificate must be renewed so that its successor can take over."""
SOON = 7 * 86400
"""Seconds before its end in which a certificate is spoken of."""


@dataclass(frozen=True)
class Due:
    """A rotation that is due. `urgent`: a certificate ends, so neither cap nor jitter hold it back."""

    at: float
    reason: str
    urgent: bool = False


def due(resource: Resource, newest: Fact, view: View) -> Due | None:
    """Must a key be made anew because of its age, or because its instance was changed after it?"""
    if resource.rotate_after is None and not resource.spec.get("reissue_stale"):
        return None
    now, made, ends = view.policy.now, epoch(newest.created_at), record.not_after(newest)
    if resource.rotate_after is not None and ends is not None:
        last = ends - resource.keep_old_for - MARGIN
        if made is not None:  # a certificate that is shorter than that would be renewed in every run
            last = max(last, made + (ends - made) / 2)
        if now >= last:
            ended = "ended" if now >= ends else "ends"
            return Due(last, f"its certificate {ended} on {day(ends)}", urgent=True)
    if resource.rotate_after is not None and made is not None:
        at = made + resource.rotate_after - jitter(resource)
        if now >= at:
            early = ""
            if now < made + resource.rotate_after:  # else it reads as if nothing were due
                early = f", this key {about(jitter(resource))} earlier"
            return Due(
                at, f"it is {about(now - made)} old (rotate_after: {span(resource.rotate_after)}{early})"
            )
    since = stale_since(resource, newest, view)
    if since is not None and resource.spec.get("reissue_stale"):
        return Due(since, f"it is older than its instance's last change ({day(since)})")
    return None


def jitter(resource: Resource) -> float:
    """Seconds by which this key is renewed earlier than the latest day; always the same for one address."""
    share = int(hashlib.sha256(str(resource.address).encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return JITTER * share * (resource.rotate_after or 0)


def stale_since(resource: Resource, newest: Fact, view: View) -> float | None:
    """When its instance was changed after the key was made, in epoch seconds; None: it was not."""
    instance = view.by_id.get(("instance", resource.address.subaccount, newest.parent or ""))
    changed = epoch(record.changed_at(instance)) if instance is not None else None
    made = epoch(newest.created_at)
    return changed if changed is not None and made is not None and changed > made else None


def awaiting(key: Address, newest: Fact | None, view: View) -> list[Resource]:
    """Consumers that have no receipt on this generation."""
    return [one for one in view.consumers.get(key, ()) if record.receipt_of(newest, one.address) is None]


def unfinished(resource: Resource, generations: Sequence[Fact], view: View) -> bool:
    """Is the newest generation not yet with every consumer, while an older one still serves? Then it comes first.

    Unless its own certificate is about to end: it would be no use to who gets it.
    """
    if len(generations) < 2 or not awaiting(resource.address, generations[-1], view):
        return False
    ends, made = record.not_after(generations[-1]), epoch(generations[-1].created_at)
    if ends is None or made is None:
        return True
    return view.policy.now < max(ends - MARGIN, made + (ends - made) / 2)


def refused(newest: Fact) -> bool:
    """Was it tried, and is no use to anybody? Then a new one can be asked for, though nobody got this one."""
    proof = record.proof_of(newest)
    return proof is not None and proof.no_use


def capped(view: View) -> None:
    """At most so many rotations because of age in one run, the most overdue first; the others wait for the next."""
    allowed = view.policy.at_most
    ranked = sorted((found.at, address) for address, found in view.aged.items() if not found.urgent)
    for _, address in ranked[allowed:]:
        change = view.changes[address]
        note = f"due for rotation; left to a later run (at most {allowed} in one, see --at-most)"
        newest = change.found
        # Who is given keys by us is looked at later; the old ones of all others go on their day.
        over = () if change.wanted is None or view.consumers.get(address) else outlived(change.wanted, view)
        view.changes[address] = replace(
            change,
            action=Action.RETIRE if over else Action.KEEP,
            reason=f"superseded by {newest.name}" if over and newest else "in sync",
            fields=(),
            generation=newest.mark.generation if newest and newest.mark else 1,
            retired=over,
            notes=(note,),
            proven=change.wanted is not None and tried_first(change.wanted, over, view),
        )


def lives(changes: Sequence[Change], view: View) -> tuple[Change, ...]:
    """For `reconcile rotate`: keys that are made anew or retired, or whose new generation is still on its way to a
    consumer; with these consumers. If keys were named, these alone. Instances are left as they are.
    """
    by_address = {change.address: change for change in changes}
    named = view.policy.reapply
    keys = {
        one.address
        for one in changes
        if one.address.kind == "key" and one.wanted is not None and _lives(one, view)
    }
    for address in sorted(one for one in named & set(view.resources) if not _others(one, view)):
        told = {address, *view.resources[address].requires} & view.disputed or view.silent(address.subaccount)
        if not told and (address not in keys or not _stands(by_address[address], by_address, view)):
            why, hint = _why_not(address, by_address, view)
            said = f"{address} cannot be made anew: {why}"
            view.object("plan/nothing-to-rotate", said, view.resources[address], hint)
    put_off = {} if named else {one.address: one for one in changes if _put_off(one, by_address, view)}
    keys = {one for one in keys if _stands(by_address[one], by_address, view)}
    kept = keys | {one.address for key in keys for one in view.consumers.get(key, ())}
    homes = {parent for key in keys if (parent := view.resources[key].parent) is not None}
    return tuple(
        replace(one, action=Action.KEEP, fields=(), retired=(), send={}, notes=())
        if one.address in homes
        else replace(
            one, action=Action.KEEP, fields=(), retired=(), dated=(), notes=(_PUT_OFF,), proven=False
        )
        if one.address in put_off
        else one
        for one in changes
        if one.address in kept or one.address in homes or one.address in put_off
    )


def _why_not(address: Address, changes: Mapping[Address, Change], view: View) -> tuple[str, str]:
    """Why a key cannot be made anew by itself, and what helps."""
    resource, change = view.resources[address], changes.get(address)
    if resource.absent:
        return "the spec says ensure: absent", "`reconcile apply` deletes it"
    if resource.observe_only:
        return "the spec says manage: observe", "take that away if the key is to be made by reconcile"
    if change is None or change.found is None or change.action is Action.CREATE:
        return "it is not there yet", "`reconcile apply` makes it"
    return "its instance is about to be made anew or to go", "`reconcile apply` does both"


_PUT_OFF = "due for rotation, but its instance is about to be made anew: `reconcile apply` makes both"


def _put_off(change: Change, changes: Mapping[Address, Change], view: View) -> bool:
    """Is it due, and cannot be made anew before its instance is?"""
    if change.address.kind != "key" or change.wanted is None or change.found is None:
        return False
    return not _stands(change, changes, view) and due(change.wanted, change.found, view) is not None


def _lives(change: Change, view: View) -> bool:
    if view.policy.reapply:
        return change.address in view.policy.reapply
    return change.address in view.aged or change.action is Action.RETIRE or _begun(change, view)


def _begun(change: Change, view: View) -> bool:
    """Is there more than one generation, and the newest at rest, on its way or to be made again after it failed?"""
    on_its_way = {Action.KEEP, Action.UPDATE, Action.AWAIT, Action.CREATE}
    return change.action in on_its_way and len(view.generations.get(change.address, ())) > 1


def _stands(key: Change, changes: Mapping[Address, Change], view: View) -> bool:
    """Are the key and its instance there, stay, and may be changed?"""
    parent = key.wanted.parent if key.wanted is not None else None
    instance = changes.get(parent) if parent is not None else None
    moving = {Action.CREATE, Action.REPLACE, Action.DELETE}
    return (
        key.found is not None
        and key.action is not Action.DELETE
        and (key.action is not Action.CREATE or _begun(key, view))
        and (not view.resources[key.address].observe_only or view.resources[key.address].beside)
        and instance is not None
        and instance.found is not None
        and instance.action not in moving
    )


# --- what becomes of the old one ------------------------------------------------------------------------


def successors(generations: Sequence[Fact]) -> dict[str, Fact | None]:
    """Id of each old generation → the next one that can be used; None: it may be the last one that works."""
    found: dict[str, Fact | None] = {}
    after: Fact | None = None
    for number, fact in enumerate(reversed(generations)):
        if number:
            found[fact.id] = after
        if fact.phase is Phase.READY and not refused(fact):
            after = fact
    return found


def days(generations: Sequence[Fact], keep: float, now: float) -> dict[str, float | None]:
    """Of what nobody is given by us: id of each old generation → when it goes, `keep` after its successor was made.
    None: it has no successor.
    """
    found: dict[str, float | None] = {}
    for one, after in successors(generations).items():
        made = epoch(after.created_at) if after is not None else None
        unknown = now + 1  # where nobody says when it was made, it is as if that were only now
        found[one] = None if after is None else (unknown if made is None else made) + keep
    return found


def outlived(resource: Resource, view: View) -> tuple[Fact, ...]:
    """The old generations, of a key that nobody is given by us, whose day has come."""
    generations = view.generations.get(resource.address, ())
    on = days(generations, resource.keep_old_for, view.policy.now)
    return tuple(one for one in generations[:-1] if (at := on[one.id]) is not None and at <= view.policy.now)


def tried_first(resource: Resource, over: Sequence[Fact], view: View) -> bool:
    """Is the newest tried before these go? If it comes after one of them, and was not seen to work yet."""
    if not over or not resource.spec.get("verify", True):
        return False
    generations = view.generations[resource.address]
    newest, after = generations[-1], successors(generations)
    proof = record.proof_of(newest)
    return (proof is None or not proof.works) and any(after[one.id] == newest for one in over)


class Stage(Enum):
    """How far the newest generation of a key has come on its way to the consumers."""

    NO_USE = auto()
    """It was tried, and is no use to anybody: the old ones stay."""
    ON_ITS_WAY = auto()
    """A consumer lacks it: the old ones stay."""
    ARRIVES = auto()
    """Whoever lacked it is given it by this plan: then the time of grace begins."""
    ARRIVED = auto()
    """Everybody has it: the time of grace runs, or is over."""


@dataclass(frozen=True)
class Grace:
    """What becomes of the old generations of a key with consumers, decided after these were compared."""

    stage: Stage
    old: tuple[Fact, ...]
    waits: tuple[Address, ...] = ()
    """Consumers without a receipt on the newest."""
    over: tuple[Fact, ...] = ()
    """Their day has come."""
    begins: tuple[Fact, ...] = ()
    """They have no day yet that counts."""
    until: float | None = None
    """The last day that is noted and still to come."""


def goes_on(old: Fact, key: Address, newest: Fact | None, view: View) -> float | None:
    """The day on which an old key with consumers goes; None: it has none yet. The newest has none itself."""
    resource = view.resources.get(key)
    if newest is None or resource is None or old.id == newest.id:
        return None
    consumers = [one.address for one in view.consumers.get(key, ())]
    return day_of(old, newest, consumers, resource.keep_old_for, view.policy.now)


def day_of(old: Fact, newest: Fact, consumers: Collection[Address], keep: float, now: float) -> float | None:
    """The day noted on an old key; None: none is noted, or it was noted before every consumer had the newest.

    Such a day was meant for another successor, which is gone, or somebody else wrote it. It comes earlier if less time
    is asked for by now: `keep` after the last consumer had the newest. It never comes later.
    """
    at = record.retire_after(old)
    if at is None:
        return None
    given = [record.receipt_of(newest, one) for one in consumers]
    times = [epoch(newest.created_at), *(epoch(one.at) for one in given if one is not None)]
    since = [one for one in times if one is not None and one <= now]
    if since and at < max(since):
        return None
    if not consumers or None in given or len(since) < len(times):  # nobody knows since when all have it
        return at
    return min(at, max(since) + keep)


def no_use(names: str, are: str, newest: Fact) -> str:
    """Why old keys stay though their time is over."""
    proof = record.proof_of(newest)
    said = f" ({proof.verdict})" if proof is not None else ""
    return f"{names} {are} kept: {newest.name} was no use when it was last tried{said}; `apply --verify` tries it again"


def settled(view: View) -> None:
    """After all consumers were compared: who is proven before, and who is given a day after they were served."""
    for key, consumers in view.consumers.items():
        change = view.changes.get(key)
        wanted = change.wanted if change is not None else None
        if change is None or wanted is None or change.gate:
            continue
        served = {
            one.address
            for one in consumers
            if (found := view.changes.get(one.address)) is not None and _fills(found)
        }
        if served and wanted.spec.get("verify", True) and _unproven(change):
            change = replace(change, proven=True)
        # Its own shard knows all of its consumers. What is only watched is given no day, and does not go.
        if not _others(key, view) and not view.resources[key].observe_only:
            if change.action is Action.ROTATE:
                all_served = served.issuperset(one.address for one in consumers)
                change = _rotated(change, wanted, all_served, view)
            elif change.found is not None and (decided := _grace(change, wanted, change.found, served, view)):
                change = _graced(change, wanted, change.found, decided)
        view.changes[key] = change


def _fills(consumer: Change) -> bool:
    """Is it given the newest key by this change? Not where only what it was called before is deleted."""
    return consumer.acts and consumer.action in {Action.CREATE, Action.UPDATE, Action.ADOPT}


def _others(address: Address, view: View) -> bool:
    return address.subaccount in view.wanted.theirs


def _unproven(change: Change) -> bool:
    made = change.action in {Action.CREATE, Action.ROTATE}
    proof = record.proof_of(change.found)
    return made or proof is None or not proof.works


def _rotated(change: Change, wanted: Resource, all_served: bool, view: View) -> Change:
    """What becomes of the generations that one is made beside now; all those that are usable were in use until now."""
    if not all_served:
        # Who cannot be served now still uses the old one, however short it was to be kept.
        return replace(change, retired=tuple(one for one in change.retired if one.phase is not Phase.READY))
    old = [one for one in view.generations.get(change.address, ()) if one.phase is Phase.READY]
    days = {one.id: goes_on(one, change.address, change.found, view) for one in old}
    gone = {one.id for one in change.retired}
    over = (one for one in old if (at := days[one.id]) is not None and at <= view.policy.now)
    return replace(
        change,
        retired=(*change.retired, *(one for one in over if one.id not in gone)),
        dated=tuple(one for one in old if days[one.id] is None) if wanted.keep_old_for else (),
    )


def _grace(
    change: Change, wanted: Resource, newest: Fact, served: Collection[Address], view: View
) -> Grace | None:
    """For a key whose newest generation stays; None: nothing is decided in this run."""
    old = tuple(one for one in view.generations.get(change.address, ()) if one.id != newest.id)
    if not old or change.action not in {Action.KEEP, Action.UPDATE}:
        return None
    now = view.policy.now
    days = {one.id: goes_on(one, change.address, newest, view) for one in old}
    waits = tuple(one.address for one in awaiting(change.address, newest, view))
    if waits and all(one in served for one in waits):
        # A day that has passed was for those who had it before: who gets it now needs the old one for a while, too.
        begins = tuple(
            one for one in old if one.phase is Phase.READY and ((at := days[one.id]) is None or at <= now)
        )
        if begins:
            return Grace(Stage.ARRIVES, old, waits, begins=begins)
    if _is_changed(change, wanted, newest):
        return None
    if refused(newest):
        return Grace(Stage.NO_USE, old)
    if waits:
        return Grace(Stage.ON_ITS_WAY, old, waits)
    return Grace(
        Stage.ARRIVED,
        old,
        over=tuple(one for one in old if (at := days[one.id]) is not None and at <= now),
        begins=tuple(one for one in old if days[one.id] is None),
        until=max((at for at in days.values() if at is not None and at > now), default=None),
    )


def _is_changed(change: Change, wanted: Resource, newest: Fact) -> bool:
    """Does this plan change more of the key than our notes beside it? Then its old ones are left to the next run."""
    if change.action is Action.KEEP:
        return False
    return bool(change.send) or newest.mark is None or newest.mark.name != wanted.mark.name


def _graced(change: Change, wanted: Resource, newest: Fact, found: Grace) -> Change:
    """The change with what was decided, and that in words."""
    at_once = wanted.keep_old_for == 0
    change = replace(
        change,
        retired=(*change.retired, *(found.begins if at_once else ()), *found.over),
        dated=() if at_once else found.begins,
        notes=(*change.notes, *_told(found, newest, wanted)),
    )
    if change.action is not Action.KEEP or not (change.retired or change.dated):
        return change
    if found.stage is Stage.ARRIVES:
        reason = f"superseded once {', '.join(sorted(map(str, found.waits)))} is served"
    elif change.retired:
        reason = f"superseded by {newest.name}"
    else:
        reason = f"every consumer has {newest.name}"
    return replace(change, action=Action.RETIRE, reason=reason)


def _told(found: Grace, newest: Fact, wanted: Resource) -> Iterable[str]:
    """What is said of those that do not go now."""
    names, are = _named(found.old)
    if found.stage is Stage.NO_USE:
        yield no_use(names, are, newest)
    elif found.stage is Stage.ON_ITS_WAY:
        yield f"{names} {are} kept until {newest.name} is with {', '.join(map(str, found.waits))}"
    elif found.until is not None:
        yield f"{names} {are} superseded and kept until {day(found.until)}"
    if found.begins and wanted.keep_old_for:
        names, are = _named(found.begins)
        yield f"{names} {are} kept for {span(wanted.keep_old_for)} more, then deleted"


def _named(old: Sequence[Fact]) -> tuple[str, str]:
    return ", ".join(sorted(one.name for one in old)), "are" if len(old) > 1 else "is"


def in_use(change: Change, fact: Fact, view: View) -> bool:
    """May a consumer still hold it? Not after it was given its day."""
    return fact.phase is Phase.READY and goes_on(fact, change.address, change.found, view) is None


def still_used(change: Change, fact: Fact, view: View) -> str:
    """Why an old key must not go yet, in words; empty: nobody uses it any more."""
    if holders := _holders(fact, view):
        return _held(fact, holders, "kept")
    if change.found is not None and fact.id != change.found.id and refused(change.found):
        return no_use(fact.name, "is", change.found)
    if not view.consumers.get(change.address) or change.found is None:
        return ""
    if change.action is Action.ROTATE:
        gone = any(one.id == fact.id for one in change.retired)
        return "" if gone or fact.phase is not Phase.READY else f"{fact.name} is superseded only in this run"
    if fact.id == change.found.id:
        return ""
    if waits := awaiting(change.address, change.found, view):
        return f"{fact.name} is still used by {', '.join(str(one.address) for one in waits)}"
    at = goes_on(fact, change.address, change.found, view)
    if at is None:
        at_once = change.wanted is not None and change.wanted.keep_old_for == 0
        return "" if at_once else f"{fact.name} was superseded only now"
    return f"{fact.name} is kept until {day(at)}" if at > view.policy.now else ""


def _holders(fact: Fact, view: View) -> list[Fact]:
    """The destinations that hold a key, and are given no other in this plan."""
    holders = view.holders.get(fact.id, ())
    if not holders:
        return []
    tended = {
        (one.subaccount, one.id)
        for change in view.changes.values()
        if change.address.kind == "destination" and change.acts
        for one in (*((change.found,) if change.found and _fills(change) else ()), *change.retired)
    }
    return [one for one in holders if (one.subaccount, one.id) not in tended]


def _held(fact: Fact, holders: Sequence[Fact], fate: str) -> str:
    names = " and ".join(sorted(f"{one.name} of {one.subaccount}" for one in holders))
    several = len(holders) > 1
    return f"{fact.name} is {fate}: destination{'s' if several else ''} {names} still hold{'' if several else 's'} it"


def spared(view: View) -> None:
    """No superseded key goes while a destination holds it that no spec has filled anew: watched, or named by none."""
    for address, change in tuple(view.changes.items()):
        if address.kind != "key" or not change.retired:
            continue
        held = [(one, holders) for one in change.retired if (holders := _holders(one, view))]
        if not held:
            continue
        if change.action is Action.DELETE:
            lost = (_held(*one, "deleted") for one in held)
            view.changes[address] = replace(change, notes=(*change.notes, *lost))
            continue
        kept = {one.id for one, _ in held}
        retired = tuple(one for one in change.retired if one.id not in kept)
        idle = change.action is Action.RETIRE and not retired and not change.dated
        view.changes[address] = replace(
            change,
            action=Action.KEEP if idle else change.action,
            reason="in sync" if idle else change.reason,
            retired=retired,
            notes=(*change.notes, *(_held(*one, "kept") for one in held)),
            proven=change.proven and not idle,
        )


# --- what is worth telling ------------------------------------------------------------------------------


def remarks(resource: Resource, newest: Fact, view: View) -> Iterable[str]:
    """What a person should know of a key that is left as it is."""
    if newest.record:
        yield from _of_its_certificate(resource, newest, view)
    since = stale_since(resource, newest, view)
    if since is not None:
        yield (
            f"it is older than its instance's last change ({day(since)}); its rights may be those of before; "
            "reissue_stale: true would make a new one"
        )


def _of_its_certificate(resource: Resource, newest: Fact, view: View) -> Iterable[str]:
    now, made, ends = view.policy.now, epoch(newest.created_at), record.not_after(newest)
    if newest.record.get(record.NOT_AFTER) == record.NO_CERTIFICATE:
        yield f"the spec says x509, and it has no certificate; `reconcile rotate {resource.address}` makes a new key"
    if ends is not None and now >= ends:
        yield f"its certificate ended on {day(ends)}; `reconcile rotate {resource.address}` makes a new key"
    elif ends is not None and ends - now < SOON and resource.rotate_after is None:
        yield f"its certificate ends on {day(ends)}; rotate_after would renew it in time"
    if ends is not None and made is not None and resource.rotate_after is not None:
        life = ends - made
        if resource.rotate_after + resource.keep_old_for >= life:
            yield (
                f"its certificate lives for {about(life)}, which is not longer than rotate_after and "
                "keep_old_for together"
            )


def left_behind(view: View) -> None:
    """Receipts of consumers that no spec names any more: what they were given is not taken away."""
    for address, change in tuple(view.changes.items()):
        if address.kind != "key" or change.found is None or not (change.found.record or change.retired):
            continue
        named = {
            record.receipt_name(called)
            for one in view.all_consumers.get(address, ())
            for called in (one.address, *one.formerly)
        }
        lost = [one for name, one in record.receipts(change.found).items() if name not in named]
        notes = tuple(
            f"left behind: {one.of} ({one.place or 'place not noted'}) has had this key since {words(one.at)}, and "
            + ("keeps it" if change.action is Action.DELETE else "no spec names it any more")
            for one in sorted(lost, key=lambda one: one.of)
        )
        notes += tuple(_losing(change, named))
        if notes:
            view.changes[address] = replace(change, notes=(*change.notes, *notes))


def _losing(change: Change, named: Collection[str]) -> Iterable[str]:
    """Who had an old key that goes now, and was never given the newest, because no spec names it any more."""
    newest = record.receipts(change.found) if change.found is not None else {}
    for fact in change.retired:
        for name, one in sorted(record.receipts(fact).items()):
            if (
                name not in named
                and name not in newest
                and change.found is not None
                and fact.id != change.found.id
            ):
                place = one.place or "place not noted"
                yield (
                    f"left behind: {one.of} ({place}) has had {fact.name} since {words(one.at)}, and that is deleted now"
                )
