"""What is known of every key: generations, age, end, where it was delivered, how it was last proven. For `reconcile keys`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import marks, record, report
from btp_reconcile.core.fingerprint import epoch
from btp_reconcile.core.model import Phase
from btp_reconcile.core.rotation import day_of, days, jitter
from btp_reconcile.core.times import about, day, words as _day
from btp_reconcile.core.verdict import Word
from btp_reconcile.core.view import CONSUMERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from btp_reconcile.core.model import Address, Fact, Facts, Resource, Wanted
    from btp_reconcile.core.report import Line

FORMAT = "btp-reconcile/keys"
VERSION = 1


def keys_json(wanted: Wanted, facts: Facts, now: float, targets: Sequence[Address] = ()) -> dict[str, Any]:
    """One object per generation that is there, oldest first, and one per wanted key that is not there."""
    generations = _generations(wanted, facts)
    rows: list[dict[str, Any]] = []
    for key in wanted.of("key"):
        if targets and not any(key.address.within(one) or one.within(key.address) for one in targets):
            continue
        found = generations.get(key.address, [])
        if not found:
            rows.append({"address": str(key.address), "state": "absent" if key.absent else "missing"})
        rows.extend(_row(key, fact, found, wanted, now) for fact in found)
    return {"format": FORMAT, "version": VERSION, "now": record.moment(now), "keys": rows}


def _generations(wanted: Wanted, facts: Facts) -> dict[Address, list[Fact]]:
    """Every wanted key with what carries its mark, in the instances that carry its instance's mark.

    What is only watched may carry no mark; then its name says which it is.
    """
    resources = {one.address: one for one in wanted.resources}
    marked: dict[tuple[str, str, str], list[Fact]] = {}
    named: dict[tuple[str, str, str], list[Fact]] = {}
    for fact in facts.all:
        if fact.kind in {"key", "instance"}:
            named.setdefault((fact.kind, fact.subaccount, fact.name), []).append(fact)
            if fact.mark is not None:
                marked.setdefault((fact.kind, fact.subaccount, fact.mark.name), []).append(fact)

    def all_of(one: Resource) -> list[Fact]:
        where = (one.address.kind, one.address.subaccount)
        called = [fact for name in marks.known_as(one) for fact in marked.get((*where, name), ())]
        found = [fact for fact in called if marks.stands_for(fact, one)]
        return found or (named.get((*where, one.name), []) if one.observe_only else [])

    found: dict[Address, list[Fact]] = {}
    for key in wanted.of("key"):
        if key.address.subaccount in wanted.theirs:
            continue
        parent = resources.get(key.parent) if key.parent else None
        inside = {one.id for one in all_of(parent)} if parent is not None else set()
        ours = [one for one in all_of(key) if one.parent in inside]
        if ours:
            found[key.address] = sorted(ours, key=lambda one: one.mark.generation if one.mark else 0)
    return found


def _kept_until(
    key: Resource, fact: Fact, generations: Sequence[Fact], wanted: Wanted, now: float
) -> float | None:
    """The day from which an old one may be deleted, as a plan reckons it."""
    newest = generations[-1]
    if fact.id == newest.id:
        return None
    consumers = [
        one.address
        for one in wanted.resources
        if one.address.kind in CONSUMERS
        and key.address in one.requires
        and not (one.absent or one.observe_only)
    ]
    if consumers:
        counts = day_of(fact, newest, consumers, key.keep_old_for, now)
        return record.retire_after(fact) if counts is None else counts
    if key.absent or key.observe_only:
        return None
    return days(generations, key.keep_old_for, now)[fact.id]


def _row(
    key: Resource, fact: Fact, generations: Sequence[Fact], wanted: Wanted, now: float
) -> dict[str, Any]:
    newest = generations[-1]
    made, ends = epoch(fact.created_at), record.not_after(fact)
    proof = record.proof_of(fact)
    state = {Phase.PENDING: "pending", Phase.BROKEN: "broken"}.get(fact.phase)
    row: dict[str, Any] = {
        "address": str(key.address),
        "name": fact.name,
        "generation": fact.mark.generation if fact.mark else 1,
        "runtime": fact.runtime,
        "state": state or ("current" if fact.id == newest.id else "superseded"),
        "type": _type(key, fact),
        "created_at": fact.created_at,
        "delivered": [
            {"to": one.of, "place": one.place, "at": record.moment(epoch(one.at) or now)}
            for one in sorted(record.receipts(fact).values(), key=lambda one: one.of)
        ],
    }
    if made is not None:
        row["age_seconds"] = int(now - made)
    if ends is not None:
        row |= {"not_after": record.moment(ends), "ends_in_seconds": int(ends - now)}
    if fact.id == newest.id and key.rotate_after is not None and made is not None:
        row["rotation_due"] = record.moment(made + key.rotate_after - jitter(key))
    if (retire := _kept_until(key, fact, generations, wanted, now)) is not None:
        row["retire_after"] = record.moment(retire)
    if proof is not None and proof.verdict in set(Word):  # anybody may write beside a key
        row["verified"] = {"at": record.moment(epoch(proof.at) or now), "verdict": proof.verdict}
    return row


def _type(key: Resource, fact: Fact) -> str:
    said = str(key.spec.get("credential_type") or "")
    if record.NOT_AFTER in fact.record:
        return "x509"
    parameters = key.spec.get("parameters") or {}
    nested = parameters.get("xsuaa", parameters)
    written = nested.get("credential-type") if isinstance(nested, Mapping) else None
    return said or ("x509" if written == "x509" else "secret")


def keys_text(data: Mapping[str, Any], now: float) -> Iterable[Line]:
    """Keys as blocks that also fit on a narrow terminal."""
    return ((style, report.printable(text)) for style, text in _lines(data, now))


def _lines(data: Mapping[str, Any], now: float) -> Iterator[Line]:
    before = ""
    for row in data["keys"]:
        if row["address"] != before:
            if before:
                yield "", ""
            yield "bold", row["address"]
            before = row["address"]
        if "name" not in row:
            yield "yellow" if row["state"] == "missing" else "dim", f"  {row['state']}"
            continue
        style = {"current": "", "superseded": "dim"}.get(row["state"], "yellow")
        yield style, f"  {row['name']}  generation {row['generation']}, {', '.join(_said(row))}"
        if row.get("ends_in_seconds") is not None:
            left = row["ends_in_seconds"]
            colour = "red" if left <= 0 else "yellow" if left < 7 * 86400 else style
            words = f"ends in {about(left)}" if left > 0 else "has ended"
            yield colour, f"      certificate {words} ({_day(row['not_after'])})"
        if "rotation_due" in row:
            at = epoch(row["rotation_due"]) or now
            words = "is due" if at <= now else f"is due in {about(at - now)}"
            yield style, f"      rotation {words} ({day(at)})"
        if "retire_after" in row:
            yield style, f"      kept until {_day(row['retire_after'])}"
        for one in row["delivered"]:
            yield style, f"      {one['to']}: {one['place']}, {_day(one['at'])}"
        if "verified" in row:
            good = row["verified"]["verdict"] in record.WORKS
            yield (
                style if good else "red",
                f"      verified {_day(row['verified']['at'])}: {row['verified']['verdict']}",
            )
    number = len({row["address"] for row in data["keys"]})
    if before:
        yield "", ""
    yield "", f"{number} key{'' if number == 1 else 's'}."


def _said(row: Mapping[str, Any]) -> Iterator[str]:
    yield row["state"]
    yield row["type"]
    if "age_seconds" in row:
        yield f"{about(row['age_seconds'])} old"
    yield "Cloud Foundry" if row["runtime"] == "cloudfoundry" else "Service Manager"
