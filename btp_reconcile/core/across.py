"""What no single spec can see: the same thing declared twice, names that collide, wishes that contradict."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from btp_reconcile.core.merge import WRONG
from btp_reconcile.core.model import Address, Source
from btp_reconcile.core.resolve import api_of_landscape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from btp_reconcile.core.destinations import Destination, Opened
    from btp_reconcile.core.merge import Node
    from btp_reconcile.core.shape import Found

_GENERATION = re.compile(r"(.+)-([2-9]|[1-9][0-9]+)$")


@dataclass(frozen=True)
class Entitlement:
    """An explicit one. `amount` is true or a number."""

    address: Address
    node: Node
    amount: Any
    absent: bool


@dataclass(frozen=True)
class Named:
    """Something declared that has a name on the platform. `name` is that, the physical one."""

    address: Address
    node: Node
    name: str

    @property
    def named_at(self) -> Node:
        """Where its name is written."""
        return self.node.get("name") or self.node


N = TypeVar("N", bound=Named)


@dataclass(frozen=True)
class Instance(Named):
    """`scope`: subaccount, runtime, space; empty where not known. `offering`: service and plan, likewise."""

    scope: tuple[str, str, str]
    offering: tuple[str, str]
    absent: bool


@dataclass(frozen=True)
class Key(Named):
    """A key, and the instance it stands in."""

    instance: Address


@dataclass(frozen=True)
class Declared:
    """What one spec declares."""

    file: str
    owner: str = ""
    name: str = ""
    subaccounts: list[tuple[str, Node]] = field(default_factory=list)
    entitlements: list[Entitlement] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    destinations: list[Destination] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)


def check(specs: Sequence[Declared], found: Found) -> None:
    """Say all that is wrong with these specs together."""
    _spec_names(specs, found)
    _subaccounts(specs, found)
    instances = [one for spec in specs for one in spec.instances]
    keys = [one for spec in specs for one in spec.keys]
    once(instances, found)
    _names_taken(instances, found)
    _key_names(keys, {one.address for one in instances}, found)
    for spec in specs:
        _renamed(spec, found)
    _entitlements([one for spec in specs for one in spec.entitlements], instances, found)


def _spec_names(specs: Sequence[Declared], found: Found) -> None:
    known: dict[tuple[str, str], Declared] = {}
    for spec in specs:
        first = known.setdefault((spec.owner, spec.name), spec)
        if first is not spec and spec.owner and spec.name:
            found.say(
                "spec/same-name",
                f"two specs have the owner '{spec.owner}' and the name '{spec.name}'",
                Source(spec.file),
                "give one of them another `name`: the two are stamped on all a spec makes, to know it again",
                also=(Source(first.file),),
            )


def _subaccounts(specs: Sequence[Declared], found: Found) -> None:
    """One name, one id; and all specs agree on what a subaccount is."""
    by_name: dict[str, Node] = {}
    by_id: dict[str, tuple[str, Node]] = {}
    for name, node in (pair for spec in specs for pair in spec.subaccounts):
        first = by_name.setdefault(name, node)
        if first is not node:
            for path in (("id",), ("region",), ("cloud_foundry", "org")):
                _agree(name, path, first, node, found)
            _same_endpoint(name, first, node, found)
        guid = node.get("id")
        if guid and isinstance(guid.value, str):
            other, place = by_id.setdefault(guid.value.lower(), (name, guid))
            if other != name:
                found.say(
                    "spec/subaccount-twice",
                    f"subaccounts {other} and {name} have the same id",
                    guid,
                    "one subaccount has one name: use the same in all specs",
                    also=(place.place,),
                )


def _agree(name: str, path: tuple[str, ...], first: Node, second: Node, found: Found) -> None:
    one, other = first.get(*path), second.get(*path)
    if not one or not other or WRONG in (one.value, other.value):
        return
    if str(one.value).lower() != str(other.value).lower():
        found.say(
            "spec/subaccount-disagrees",
            f"subaccount {name} has another '{path[-1]}' elsewhere",
            other,
            "make the two equal, or give one of the subaccounts another name",
            also=(one.place,),
        )


def _same_endpoint(name: str, first: Node, second: Node, found: Found) -> None:
    """Where a spec says nothing, it means the main landscape of the region: that must be what the other one says."""
    if not first.get("cloud_foundry") or not second.get("cloud_foundry"):
        return
    one, other = _endpoint(first), _endpoint(second)
    if one is None or other is None or one[0].lower() == other[0].lower():
        return
    if one[1] is first.get("region") and other[1] is second.get("region"):
        return  # then the regions differ, which has been said
    found.say(
        "spec/subaccount-disagrees",
        f"subaccount {name} has another Cloud Foundry elsewhere: {one[0]} there, {other[0]} here",
        other[1],
        "say the same `landscape` or `api` in all specs, or give one of the subaccounts another name",
        also=(one[1].place,),
    )


def _endpoint(node: Node) -> tuple[str, Node] | None:
    """The Cloud Foundry API that a subaccount means, and where that is said; None if it cannot be known yet."""
    for path in (("cloud_foundry", "api"), ("cloud_foundry", "landscape"), ("region",)):
        said = node.get(*path)
        if said:
            if not isinstance(said.value, str) or "${" in said.value:
                return None
            return (said.value.rstrip("/") if path[-1] == "api" else api_of_landscape(said.value)), said
    return None


def once(things: Iterable[N], found: Found) -> list[N]:
    """These, each address once; what is declared again is said."""
    known: dict[Address, N] = {}
    for one in things:
        first = known.setdefault(one.address, one)
        if first is not one:
            found.say(
                "spec/declared-twice",
                f"{one.address} is declared in two specs",
                one.node,
                "declare each thing in one spec only",
                one.address,
                (first.node.place,),
            )
    return list(known.values())


def name_taken(first: Named, one: Named, found: Found, where: str = "") -> None:
    """Two things would have one name on the platform."""
    found.say(
        "spec/name-taken",
        f"{first.address} and {one.address} have the same name '{one.name}'{where}",
        one.named_at,
        "give one of them another `name`",
        one.address,
        (first.node.place,),
    )


def _names_taken(instances: Sequence[Instance], found: Found) -> None:
    """Within a space, or a subaccount's Service Manager, a name is there once."""
    scopes: dict[tuple[str, str, str], dict[str, Instance]] = {}
    for one in instances:
        if not one.scope[1] or (one.scope[1] == "cloudfoundry" and not one.scope[2]):
            continue
        names = scopes.setdefault(one.scope, {})
        first = names.setdefault(one.name, one)
        if first.address != one.address:
            where = f"space {one.scope[2]}" if one.scope[2] else "the Service Manager"
            name_taken(first, one, found, f" in {where}")
    for names in scopes.values():
        nodes = {known: other.node for known, other in names.items()}
        for name, one in names.items():
            _generation(name, one, nodes, found)


def _key_names(keys: Sequence[Key], instances: set[Address], found: Found) -> None:
    scopes: dict[Address, dict[str, Key]] = {}
    for one in keys:
        names = scopes.setdefault(one.instance, {})
        first = names.setdefault(one.name, one)
        if first.address != one.address:
            name_taken(first, one, found)
    for address, names in scopes.items():
        if address in instances and len(names) > 1:
            nodes = {known: other.node for known, other in names.items()}
            for name, one in names.items():
                _generation(name, one, nodes, found)


def _renamed(spec: Declared, found: Found) -> None:
    """A name that something had before is nobody's now: it cannot stand beside, and two cannot have had it."""
    things: list[Instance | Key] = [*spec.instances, *spec.keys]
    declared = {one.address: one for one in things}
    heirs: dict[Address, Instance | Key] = {}
    for one in things:
        node = one.node.get("renamed_from")
        if node is None or not isinstance(node.value, str):
            continue
        before = Address(one.address.kind, (*one.address.path[:-1], node.value))
        heir, beside = heirs.setdefault(before, one), declared.get(before)
        if before == one.address:
            found.say(
                "spec/renamed-from",
                f"{one.address} is called that already",
                node,
                "take `renamed_from` away, or name what it was called before",
                one.address,
            )
        elif beside is not None:
            found.say(
                "spec/renamed-from",
                f"{one.address} was {before} before, and that is declared, too",
                node,
                f"take `renamed_from` away if both are wanted; else take {node.value} away",
                one.address,
                (beside.node.place,),
            )
        elif heir is not one:
            found.say(
                "spec/renamed-from",
                f"{heir.address} and {one.address} were both {before} before",
                node,
                "say `renamed_from` at one of them",
                one.address,
                (heir.node.place,),
            )


def _generation(name: str, one: Instance | Key, names: dict[str, Node], found: Found) -> None:
    """`apim-2` beside `apim` is how the second generation of `apim` will be called."""
    looks = _GENERATION.match(name)
    if looks and looks[1] in names:
        found.say(
            "spec/looks-like-generation",
            f"the name '{name}' looks like generation {looks[2]} of '{looks[1]}'",
            one.named_at,
            f"replacements of '{looks[1]}' are named like that: give this one another `name`, e.g. {looks[1]}-b",
            one.address,
            (names[looks[1]].place,),
        )


def _entitlements(entitlements: Sequence[Entitlement], instances: Sequence[Instance], found: Found) -> None:
    known: dict[Address, Entitlement] = {}
    for one in entitlements:
        first = known.setdefault(one.address, one)
        if first is one:
            continue
        same = (first.amount, first.absent) == (one.amount, one.absent)
        said = "is declared in two specs" if same else "is wanted in two ways"
        found.say(
            "spec/declared-twice" if same else "spec/amounts-disagree",
            f"{one.address} {said}",
            one.node,
            "declare each entitlement in one spec only",
            one.address,
            (first.node.place,),
        )
    for instance in instances:
        address = Address("entitlement", (instance.address.subaccount, *instance.offering))
        wish = known.get(address) if all(instance.offering) else None
        if wish and wish.absent and not instance.absent:
            found.say(
                "spec/entitlement-needed",
                f"{address} is to be absent, and {instance.address} needs it",
                wish.node,
                "take one of the two away, or write `ensure: absent` at the instance first",
                address,
                (instance.node.place,),
            )
