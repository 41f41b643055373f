"""What is live in a subaccount and not described yet → a spec that adopts it. No secret is in it, by construction: of
parameters only what looks like none is written, and credentials are never read.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import marks
from btp_reconcile.core.model import Phase
from btp_reconcile.core.schema import NAME, PHYSICAL
from btp_reconcile.core.suspicion import by_name, by_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.model import Fact, Problem, Resource, Subaccount, Wanted
    from btp_reconcile.core.validate import Spec

DOORS = ("central", "service_manager", "cloud_foundry")
_GENERATION = re.compile(r"(.+)-([2-9]|[1-9][0-9]+)$")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_MISSING = object()


@dataclass(frozen=True)
class Live:
    """What was seen of one subaccount."""

    facts: tuple[Fact, ...]
    parameters: Mapping[str, Mapping[str, Any]]
    """Instance's id → its parameters, where the platform gives them."""
    unseen: tuple[Problem, ...] = ()


@dataclass
class _Written:
    """What is to be written, and what is left out and why."""

    entitlements: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    instances: dict[str, list[str]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def specs_of(specs: Sequence[Spec], name: str) -> tuple[Spec, ...]:
    """The specs that speak of a subaccount."""
    return tuple(one for one in specs if name in (one.data.get("subaccounts") or {}))


def text(place: Subaccount, live: Live, specs: Sequence[Spec], wanted: Wanted, catalogue: Catalogue) -> str:
    """The spec, in YAML. `specs`: all that are loaded; at least one speaks of the subaccount."""
    written = _Written()
    owner = specs_of(specs, place.name)[0].owner
    here = _Here(place, live, owner, wanted, catalogue, written)
    here.entitlements()
    here.instances()
    return "\n".join([*_head(place, live, specs, written), *_left_out(written), ""])


# --- what is there --------------------------------------------------------------------------------------


@dataclass
class _Here:
    """One subaccount."""

    place: Subaccount
    live: Live
    owner: str
    wanted: Wanted
    catalogue: Catalogue
    written: _Written

    def __post_init__(self) -> None:
        self.resources = [one for one in self.wanted.resources if one.address.subaccount == self.place.name]
        self.facts = sorted(self.live.facts, key=lambda one: (one.kind, one.runtime, one.name, one.id))

    def of(self, kind: str) -> list[Fact]:
        return [one for one in self.facts if one.kind == kind]

    def leave(self, what: str, why: str) -> None:
        self.written.left.append(f"{what}: {why}")

    # --- entitlements

    def entitlements(self) -> None:
        said = {one.address.path[1:] for one in self.resources if _explicit(one)}
        comes_along = {
            one.address.path[1:] for one in self.resources if one.address.kind == "entitlement"
        } - said
        pairs: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        for fact in self.of("entitlement"):
            if fact.attributes.get("assigned") or not fact.attributes.get("known", True):
                pairs[str(fact.attributes["service"]), str(fact.attributes["plan"])].append(fact)
        for pair, facts in sorted(pairs.items()):
            if pair in said:
                continue
            name, attributes = "/".join(pair), facts[0].attributes
            if len(facts) > 1:
                self.leave(
                    f"entitlement {name}", "several plans have this name; write each with its unique_id"
                )
            elif not attributes.get("known", True):
                category = attributes.get("category")
                self.leave(
                    f"entitlement {name}", f"of category {category!r}, for which no way to assign is known"
                )
            elif attributes["auto_assigned"]:
                self.leave(f"entitlement {name}", "the platform assigned it by itself")
            elif facts[0].phase is not Phase.READY:
                self.leave(f"entitlement {name}", facts[0].detail or "its assignment is being changed")
            elif not all(map(_expressible, pair)):
                self.leave(f"entitlement {name}", "its name cannot stand in a spec")
            else:
                counted = attributes["numeric"] and attributes["amount"]
                amount = attributes["amount"] if counted else True
                if (
                    pair not in comes_along or amount > 1
                ):  # an instance of these specs asks for 1, or that it is there
                    self.written.entitlements[pair[0]][pair[1]] = amount

    def _assigned(self, service: str, plan: str) -> bool:
        """Would an instance of it find its entitlement as it wants it, or is nothing known of entitlements?"""
        facts = self.of("entitlement")
        here = [
            one for one in facts if (one.attributes["service"], one.attributes["plan"]) == (service, plan)
        ]
        seen = bool(facts) or any(one.kind == "subaccount" for one in self.facts)
        ready = [one for one in here if one.attributes.get("assigned") and one.phase is Phase.READY]
        return not seen or (len(ready) == 1 and ready[0].attributes.get("known", True))

    # --- instances

    def instances(self) -> None:
        declared = {one.address.path[1] for one in self.resources if one.address.kind == "instance"}
        scopes = self._names_there()
        keys: dict[str, list[Fact]] = defaultdict(list)
        for key in self.of("key"):
            keys[key.parent or ""].append(key)
        for fact in self.of("instance"):
            what = f"instance {_line(fact.name)}"
            resource = next((one for one in self.resources if _described(fact, one)), None)
            if resource is not None:
                self._keys_elsewhere(keys[fact.id], resource)
            elif why := self._why_not(fact):
                self.leave(what, why)
            elif not fact.attributes.get("service"):
                self.leave(what, "of a plan that is not visible here, so it cannot be named")
            elif not _expressible(str(fact.attributes["service"])) or not _expressible(
                str(fact.attributes["plan"])
            ):
                self.leave(what, "the name of its service or plan cannot stand in a spec")
            else:
                name, lines = _called(fact, {*declared, *self.written.instances}, scopes[_scope(fact)])
                self.written.instances[name] = [*self._instance(fact), *lines, *self._keys(keys[fact.id])]

    def _names_there(self) -> dict[tuple[str, str | None], set[str]]:
        found: dict[tuple[str, str | None], set[str]] = defaultdict(set)
        for fact in self.of("instance"):
            found[_scope(fact)].add(fact.name)
        return found

    def _why_not(self, fact: Fact) -> str:
        """Why something cannot be adopted; empty: it can."""
        if fact.foreign:
            return _line(fact.foreign)
        if fact.mark is not None:
            forgotten = (fact.mark.owner, fact.mark.spec) in self.wanted.owners
            if not forgotten or fact.mark.owner != self.owner:
                return f"it belongs to owner {fact.mark.owner}, spec {fact.mark.spec}"
        if fact.phase is not Phase.READY:
            return _line(fact.detail) or "it is not at rest"
        return ""

    def _instance(self, fact: Fact) -> Iterator[str]:
        said = fact.attributes
        service, plan = str(said["service"]), str(said["plan"])
        yield f"service: {_scalar(service)}"
        yield f"plan: {_scalar(plan)}"
        yield f"runtime: {fact.runtime}"
        home = self.place.cloud_foundry.space if self.place.cloud_foundry else None
        if said.get("space") and said["space"] != home:
            yield f"space: {_scalar(str(said['space']))}"
        if said.get("tags"):
            yield f"tags: {_flow(list(said['tags']))}"
        if not self._assigned(service, plan):
            yield "entitlement: external  # it is not assigned to this subaccount"
        yield from self._parameters(fact, service, plan)

    def _parameters(self, fact: Fact, service: str, plan: str) -> Iterator[str]:
        given = self.live.parameters.get(fact.id)
        if given is None:
            yield "# parameters: the platform does not give them back"
            return
        api = self.catalogue.offered(service, plan)
        known = api.parameters.get("properties") if api and api.parameters else None
        kept = {key: value for key, value in given.items() if known is None or key in known}
        shown, held = _harmless(kept)
        if shown and shown is not _MISSING:
            yield f"parameters: {_flow(shown)}"
        hidden = sorted({*held, *(key for key in given if key not in kept)})
        if hidden:
            yield f"# left out of parameters, because it may be secret or cannot be said: {_line(', '.join(hidden))}"

    # --- keys

    def _keys(self, facts: Sequence[Fact]) -> Iterator[str]:
        names = {one.name for one in facts}
        taken: set[str] = set()
        lines = []
        for fact in facts:
            why = self._why_not(fact)
            if why:
                lines.append(f"  # left out: {_line(fact.name)}: {_line(why)}")
                continue
            name, said = _called(fact, taken, names)
            taken.add(name)
            lines.append(f"  {_scalar(name)}: {{{', '.join(said)}}}")
        if taken:
            yield "keys:"
        yield from lines if taken else (one.strip() for one in lines)

    def _keys_elsewhere(self, facts: Sequence[Fact], instance: Resource) -> None:
        """Keys of an instance that another spec describes can only be described there."""
        known = [one for one in self.resources if one.parent == instance.address]
        for fact in facts:
            if not any(_described_key(fact, one) for one in known) and not self._why_not(fact):
                name, said = _called(fact, {one.address.path[2] for one in known}, set())
                self.leave(
                    f"key {_line(fact.name)} of {instance.address}",
                    f"write it where that instance is described, under keys: {_scalar(name)}: {{{', '.join(said)}}}",
                )


def _explicit(resource: Resource) -> bool:
    return resource.address.kind == "entitlement" and not resource.spec["implied"]


def _described(fact: Fact, resource: Resource) -> bool:
    """Does a spec speak of this instance already, by its mark, by its id, or by its name?"""
    if resource.address.kind != "instance":
        return False
    if marks.stands_for(fact, resource):
        return True
    want, said = resource.spec, fact.attributes
    here = fact.runtime == want["runtime"] and (said.get("space") or None) == (want["space"] or None)
    return (here or bool(resource.adopt and resource.adopt.id)) and marks.called(fact, resource)


def _described_key(fact: Fact, resource: Resource) -> bool:
    if resource.address.kind != "key":
        return False
    return marks.stands_for(fact, resource) or marks.called(fact, resource)


def _scope(fact: Fact) -> tuple[str, str | None]:
    """Where a name is there once."""
    return fact.runtime, fact.parent


# --- names ----------------------------------------------------------------------------------------------


def _called(fact: Fact, taken: Iterable[str], beside: set[str]) -> tuple[str, list[str]]:
    """The key of a map for a thing, and what says which one is meant."""
    name = _fitting(fact.name)
    looks, there = _GENERATION.match(fact.name), _GENERATION.match(name)
    generation = looks is not None and looks[1] in beside
    if there is not None and (generation or not _expressible(fact.name)):
        name = f"{there[1]}.{there[2]}"  # what is adopted by another name is called so itself, later
    name = _free(name, set(taken))
    if not _expressible(fact.name):
        return name, [f"adopt: {{id: {_scalar(fact.id)}}}"]
    if generation:
        return name, [f"adopt: {{name: {_scalar(fact.name)}}}"]
    said = [f"name: {_scalar(fact.name)}"] if name != fact.name else []
    return name, [*said, "adopt: true"]


def _fitting(name: str) -> str:
    found = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-")[:55].rstrip("._-")
    return found if re.fullmatch(NAME, found) else "x"


def _free(name: str, taken: set[str]) -> str:
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}.{number}"
    return found


def _expressible(name: str) -> bool:
    """Can this text stand in a spec as a name?"""
    fits = re.fullmatch(PHYSICAL, name) is not None and len(name) <= 255
    return fits and name.isprintable() and name == name.strip()


# --- parameters -----------------------------------------------------------------------------------------


def _harmless(value: Any, path: str = "") -> tuple[Any, list[str]]:
    """The same without what may be a secret or cannot stand in a spec; and the paths of that."""
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        held: list[str] = []
        for key, below in value.items():
            where = f"{path}.{key}" if path else str(key)
            shown, more = (_MISSING, [where]) if by_name(str(key)) or "${" in key else _harmless(below, where)
            held.extend(more)
            if shown is not _MISSING:
                kept[str(key)] = shown
        return (kept if kept or not value else _MISSING), held
    if isinstance(value, list):
        items = [_harmless(below, path) for below in value]
        if any(shown is _MISSING or more for shown, more in items):
            return _MISSING, [path]
        return [shown for shown, _ in items], []
    wrong = value is None or (isinstance(value, float) and not math.isfinite(value))
    if wrong or (isinstance(value, str) and (not value or by_text(value))):
        return _MISSING, [path]
    return value, []


# --- YAML -----------------------------------------------------------------------------------------------


def _scalar(value: Any, *, literal: bool = True) -> str:
    """One value in YAML. `literal`: `${` in it means itself, and no reference."""
    if not isinstance(value, str):
        return json.dumps(value)
    said = value.replace("${", "$${") if literal else value
    if _PLAIN.fullmatch(said) and said.lower() not in _WORDS:
        return said
    quoted = json.dumps(said, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in quoted)


def _flow(value: Any, *, literal: bool = True) -> str:
    if isinstance(value, dict):
        items = (
            f"{_scalar(str(key), literal=literal)}: {_flow(item, literal=literal)}"
            for key, item in value.items()
        )
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list):
        return f"[{', '.join(_flow(item, literal=literal) for item in value)}]"
    return _scalar(value, literal=literal)


def _line(said: str) -> str:
    """A text for a comment: one line, and nothing that moves a cursor."""
    return "".join(one if one.isprintable() else "�" for one in said)


def _head(place: Subaccount, live: Live, specs: Sequence[Spec], written: _Written) -> Iterator[str]:
    spec = specs_of(specs, place.name)[0]
    said = spec.data["subaccounts"][place.name]
    yield "# yaml-language-server: $schema=../schemas/spec.schema.json"
    yield f"# What is live in subaccount {place.name} ({place.id}) and was in no spec: adopted as it is."
    yield "# Give it the names that you want, look through its parameters, plan it, and apply it."
    yield "# Keys have parameters that the platform does not give back; they stay as they are."
    for problem in live.unseen:
        yield f"# Not looked at: {_line(problem.message)}"
    yield "version: 1"
    yield f"owner: {_scalar(spec.owner)}"
    yield f"name: {_free(f'{place.name[:50]}-export', {one.name for one in specs})}"
    if access := _access(specs_of(specs, place.name), place.name):
        yield "access:"
        for service, given in access.items():
            yield f"  {service}: {_flow(given, literal=False)}"
    yield "subaccounts:"
    yield f"  {_scalar(place.name)}:"
    yield f"    id: {_scalar(said['id'], literal=False)}"
    yield f"    region: {_scalar(said['region'])}"
    if said.get("cloud_foundry"):
        yield f"    cloud_foundry: {_flow(dict(said['cloud_foundry']), literal=False)}"
    if written.entitlements:
        yield "    entitlements:"
    for service, plans in written.entitlements.items():
        yield f"      {_scalar(service)}: {_flow(plans)}"
    if written.instances:
        yield "    instances:"
    for name, lines in written.instances.items():
        yield f"      {_scalar(name)}:"
        yield from (f"        {line}" for line in lines)


def _access(specs: Sequence[Spec], name: str) -> dict[str, Any]:
    """As the specs say it: references, and no credentials."""
    found: dict[str, Any] = {}
    for spec in specs:
        near = spec.data["subaccounts"][name].get("access") or {}
        for service in DOORS:
            given = near.get(service) or (spec.data.get("access") or {}).get(service)
            if given:
                found.setdefault(service, dict(given))
    return found


def _left_out(written: _Written) -> Iterator[str]:
    if written.left:
        yield "# Left out:"
        yield from (f"#   {_line(one)}" for one in written.left)
