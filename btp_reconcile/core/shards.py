"""Shards: a landscape cut into parts that are planned and applied apart, and what only all parts together can say.

A subaccount belongs to one shard, by its id alone: no spec that comes or goes moves another subaccount. Every shard reads
all specs. What its own things need of other subaccounts (the key that a destination takes from) is looked at and
left alone; whose things take from its keys is known, so that no key is retired before they have a new one.

Two questions need the whole: is a large share given up at once, and is there quota enough? A shard writes its figures
down, and `merge` decides.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import quota, recipes
from btp_reconcile.core.model import Address, Problem, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btp_reconcile.core.model import Wanted
    from btp_reconcile.core.validate import Spec

SHARE = 0.30
"""More than this share of what we manage deleted or replaced at once is an objection."""
FROM = 10
"""…from this many managed things on, so that small landscapes are not bothered."""
MANY = "many-deletions"
"""The name by which that objection is answered: `--allow many-deletions`."""
MOST = 10_000
"""More shards than that are a slip of the finger."""


@dataclass(frozen=True, order=True)
class Shard:
    """One of so many parts; counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str, index: str | None = None) -> Shard:
        """`3/16`, or `auto/16`: then `index` counts from 0. Raises ValueError, in words."""
        match = re.fullmatch(r"(auto|[0-9]{1,6})/([0-9]{1,6})", text)
        if match is None:
            raise ValueError(f"{text!r} is no shard: write 3/16, or auto/16 in an Indexed Job")
        of = int(match[2])
        if match[1] != "auto":
            number = int(match[1])
        elif index is None or not re.fullmatch(r"[0-9]{1,6}", index):
            said = "is not set" if index is None else f"is {index!r}"
            raise ValueError(f"{text}: JOB_COMPLETION_INDEX {said}; an Indexed Job sets it, counted from 0")
        else:
            number = int(index) + 1
        if not 1 <= of <= MOST or not 1 <= number <= of:
            raise ValueError(f"{number}/{of} is no shard: of {of} there are 1/{of} to {of}/{of}")
        return cls(number, of)

    def holds(self, guid: str) -> bool:
        """Is the subaccount of this id in it?"""
        return int(hashlib.sha256(guid.lower().encode()).hexdigest()[:16], 16) % self.of == self.number - 1


@dataclass(frozen=True)
class Part:
    """Which part of the specs somebody works on."""

    shard: Shard
    specs: str
    """Digest of all specs, by which parts of different ones are told apart."""
    theirs: frozenset[str]
    """Subaccounts that other shards work on."""


@dataclass(frozen=True)
class Partial:
    """A shard's figures for what only the whole can decide."""

    part: Part
    managed: int
    """Instances and keys that we manage."""
    given_up: int
    """How many of them would be deleted or replaced."""
    quota: tuple[quota.Ask, ...]


# --- which part of the specs ----------------------------------------------------------------------------


def digest(specs: Sequence[Spec]) -> str:
    """What the specs say, without where they lie. References stay references, so no value from outside is in it."""
    said = [[one.owner, one.owner_was, one.name, one.data] for one in specs]
    text = json.dumps(sorted(said, key=lambda one: [str(one[0]), str(one[2])]), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def near(specs: Sequence[Spec], mine: Iterable[str]) -> frozenset[str]:
    """Subaccounts that a part cannot do without: its own, and those that take a key from each other with them."""
    own = frozenset(mine)
    found = set(own)
    for spec in specs:
        for name, said in (spec.data.get("subaccounts") or {}).items():
            for other in _taken(name, said, spec.data.get("access") or {}):
                if name in own or other in own:
                    found |= {name, other}
    return frozenset(found)


def _taken(name: str, said: Mapping[str, Any], everywhere: Mapping[str, Any]) -> Iterator[str]:
    """Subaccounts from whose keys something of this one is filled, or opened."""
    for want in (said.get("destinations") or {}).values():
        for key in recipes.keys_of(want.get("properties") or {}):
            yield key.subaccount
    opened = (said.get("access") or {}).get("destination") or everywhere.get("destination") or {}
    if isinstance(opened, Mapping) and isinstance(opened.get("key"), str):
        key_ = recipes.address(opened["key"], name)
        if key_ is not None:
            yield key_.subaccount


def narrowed(wanted: Wanted, part: Part) -> Wanted:
    """What one part is about: its own things, the keys of others that these need, and who takes from its own."""
    theirs = part.theirs
    own = [one for one in wanted.resources if one.address.subaccount not in theirs]
    needed = {one for resource in own for one in resource.requires if one.subaccount in theirs}
    needed |= {
        key
        for name, services in wanted.access.items()
        if name not in theirs and (key := _opener(services.get("destination"), name)) is not None
    }
    needed |= {Address("instance", one.path[:2]) for one in needed if one.kind == "key"}
    doors = {(one.subaccount, one.kind) for one in needed}
    resources = []
    for one in wanted.resources:
        if one.address.subaccount not in theirs:
            resources.append(one)
        elif one.address in needed and one.address.kind in {"instance", "key"}:
            resources.append(replace(one, observe_only=True, beside=not one.observe_only))
        elif (
            one.address.kind == "destination" and any(key.subaccount not in theirs for key in one.requires)
        ) or (one.address.kind == "access" and (one.address.subaccount, "key") in doors):
            resources.append(one)
    access = {
        name: services if name not in theirs else _runtimes_of(services)
        for name, services in wanted.access.items()
        if name not in theirs or any(subaccount == name for subaccount, _ in doors)
    }
    return replace(wanted, resources=tuple(resources), access=access, part=part)


def _opener(said: Any, name: str) -> Address | None:
    written = said.get("key") if isinstance(said, Mapping) else None
    return recipes.address(written, name) if isinstance(written, str) else None


def _runtimes_of(services: Mapping[str, Any]) -> Mapping[str, Any]:
    """Only what opens the runtimes; both, because the newest key of an instance that moves is in the one it comes from."""
    return {
        service: value
        for service, value in services.items()
        if service in {"cloud_foundry", "service_manager"}
    }


# --- what only the whole can decide ---------------------------------------------------------------------


def too_many(managed: int, given_up: int, allow: Iterable[str], least: int = FROM) -> Iterator[Problem]:
    """A large share of what we manage must not go by accident."""
    if managed < least or given_up <= SHARE * managed or MANY in allow:
        return
    start = f" from {least} things on" if least else " in a shard of its own"
    yield Problem(
        "safety/many-deletions",
        f"{given_up} of {managed} managed instances and keys would be deleted or replaced at once "
        f"({given_up * 100 // managed} %; the limit is {round(SHARE * 100)} %{start})",
        hint=f"look again; if it is meant, answer with --allow {MANY}"
        if least
        else f"have the whole decided (`reconcile report merge`, then --approved), or answer with --allow {MANY}",
    )


def alone(partial: Partial, allow: Iterable[str]) -> tuple[Problem, ...]:
    """What a shard decides that nobody approved as part of the whole: never laxer on deletions than the whole would be.

    If no shard gives up more than the share, neither do all together; so the exception for small landscapes does not
    hold here. Quota is compared with what this shard asks for; what all ask for together, the platform refuses.
    """
    return (*too_many(partial.managed, partial.given_up, allow, 0), *quota.short(partial.quota))


# --- figures as plain data ------------------------------------------------------------------------------


def partial_json(partial: Partial, program: str) -> dict[str, Any]:
    """A shard's figures, as a plan's JSON form holds them."""
    return {
        "shard": str(partial.part.shard),
        "program": program,
        "specs": partial.part.specs,
        "managed": partial.managed,
        "given_up": partial.given_up,
        "quota": [_ask_json(one) for one in partial.quota],
    }


def _ask_json(ask: quota.Ask) -> dict[str, Any]:
    data: dict[str, Any] = {
        "pool": ask.pool,
        "plan": ask.plan,
        "address": str(ask.address),
        "more": ask.more,
        "remaining": ask.remaining,
    }
    if ask.source is not None:
        data["source"] = str(ask.source)
    return data


def ask_of(data: Mapping[str, Any]) -> quota.Ask:
    """The reverse. Raises KeyError, TypeError or ValueError for what was changed by hand."""
    source = None
    if "source" in data:
        file, line, column = str(data["source"]).rsplit(":", 2)
        source = Source(file, int(line), int(column))
    remaining = data["remaining"]
    return quota.Ask(
        str(data["pool"]),
        str(data["plan"]),
        Address.parse(str(data["address"])),
        int(data["more"]),
        None if remaining is None else float(remaining),
        source,
    )
