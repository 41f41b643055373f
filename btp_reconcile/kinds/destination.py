"""A BTP destination of a subaccount, its properties taken from keys: `destination:prod/APIManagement`.

A destination has no labels that can be relied on, so what we know it by are additional properties of it, which consumers
pass over: `btp-reconcile.owner`, `.spec`, `.name` (the mark), `.key` (which generation of which key it holds) and
`.record` (short digests of what was written). They go out with the creating request. The service sends every
property unasked, secrets too (SAP help, Destination Service REST API): the parser compares them and leaves them behind.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from btp_reconcile.core import digest, marks, recipes, record
from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.kind import Kind
from btp_reconcile.core.life import is_ours, whose
from btp_reconcile.core.model import (
    Action,
    Address,
    Change,
    Fact,
    FieldChange,
    Mark,
    Problem,
    Secret,
    Seen,
    key_of,
)
from btp_reconcile.core.wire import Item, given

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from btp_reconcile.core.kind import Door, Task
    from btp_reconcile.core.model import Data, Resource, StepId, Subaccount, Wanted
    from btp_reconcile.core.view import View

SCHEMA: Data = {
    "type": "object",
    "description": "A destination of this subaccount: built by a recipe from a key, or by its properties.",
    "additionalProperties": False,
    "properties": {
        "name": {
            "$ref": "#/$defs/destination_name",
            "description": "The name on the platform, if it differs from the key of this map.",
        },
        "recipe": {
            "$ref": "#/$defs/recipe",
            "description": "What it is built for; `reconcile catalogue` shows what each recipe builds.",
        },
        "key": {
            "$ref": "#/$defs/key_path",
            "description": "The key it is built from: `instance/key`, or `subaccount/instance/key`.",
        },
        "properties": {
            "$ref": "#/$defs/destination_properties",
            "description": "Its properties, all of them texts; they stand over the recipe's, and null takes one of those "
            "away. ${key:instance/key#url} takes from a key, ${env:NAME} from outside.",
        },
        "ensure": {
            "type": "string",
            "enum": ["present", "absent"],
            "description": "absent: delete it, if it is ours.",
        },
        "adopt": {"$ref": "#/$defs/adopt"},
        "manage": {
            "type": "string",
            "enum": ["full", "observe"],
            "description": "observe: report drift, never write.",
        },
        "protect": {"type": "boolean", "description": "true: it is not deleted."},
        "ignore": {
            "$ref": "#/$defs/ignore",
            "description": "Names of properties that are left to others, in plan and apply alike.",
        },
        "owner_was": {
            "$ref": "#/$defs/name",
            "description": "The owner whose mark it carries now; it is marked as ours.",
        },
    },
}

_HEAD = """\
version: 1
owner: finance-platform
name: destination-example
defaults: {runtime: cloudfoundry}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
    instances:
      apim:
        api: api-management
        parameters: {role: APIPortal.Administrator}
        keys:
          transport: {}
    destinations:
"""

EXAMPLES = (
    _HEAD
    + """\
      APIManagement: {recipe: api-management-transport, key: apim/transport}
""",
    _HEAD
    + """\
      APIManagement:
        recipe: api-management-transport
        key: apim/transport
        properties: {Description: content transport of finance}
""",
    _HEAD
    + """\
      APIManagement:
        recipe: api-management-transport
        key: apim/transport
        properties: {Description: content transport of finance}
      orders:
        properties:
          Type: HTTP
          URL: "${key:apim/transport#url}/orders"
          ProxyType: Internet
          Authentication: OAuth2ClientCredentials
          clientId: "${key:apim/transport#client_id}"
          clientSecret: "${key:apim/transport#client_secret}"
          tokenServiceURLType: Dedicated
          tokenServiceURL: "${key:apim/transport#token_url}"
""",
)

SERVICE = "destination"
HIDDEN = "(another value)"
"""In place of a value that must not be seen."""


# --- what we write beside the properties ----------------------------------------------------------------

LIMIT = 255
"""Characters of one record; what does not fit is continued in `.record.2` and so on."""
_OWNER, _SPEC, _NAME = (recipes.OURS + part for part in ("owner", "spec", "name"))
_KEY, _RECORD = recipes.OURS + "key", recipes.OURS + "record"
_HELD = re.compile(r"(key:\S+)#([1-9][0-9]{0,5}) (\S+)")


@dataclass(frozen=True)
class Holds:
    """Which generation of which key a destination was filled from. `id` is the key's guid."""

    key: Address
    generation: int
    id: str

    def __str__(self) -> str:
        return f"{self.key}#{self.generation} {self.id}"


def holdings(text: str) -> tuple[Holds, ...]:
    """`.key`, read. What cannot be read is nothing."""
    found = []
    for part in text.split(", "):
        if one := _HELD.fullmatch(part):
            with suppress(ValueError):  # somebody wrote into it what is no address
                found.append(Holds(Address.parse(one[1]), int(one[2]), one[3]))
    return tuple(found)


@dataclass(frozen=True)
class Entry:
    """What the record says of one property. Empty `value`: a value that people chose, which leaves no digest."""

    value: str = ""
    template: str = ""
    """Digest of the spec's own text, for what is taken from a key."""
    secret: bool = False

    def __str__(self) -> str:
        return (
            (self.value or "-")
            + ("*" if self.secret else "")
            + (f".{self.template}" if self.template else "")
        )


_ENTRY = re.compile(r"([0-9a-f]{8}|-)(\*?)(?:\.([0-9a-f]{4}))?")


def head(name: str) -> str:
    """How a record begins: a copy of a destination under another name carries our mark, and is none of ours."""
    return "v1." + digest.salted("name", name.encode())[:8]


def written(name: str, entries: Mapping[str, Entry]) -> dict[str, str]:
    """The record of these properties, in as many properties as it takes."""
    lines = [head(name)]
    for one, entry in sorted(entries.items()):
        text = f";{quote(one, safe='')}={entry}"
        if len(lines[-1]) + len(text) > LIMIT:
            lines.append("v1")
        lines[-1] += text
    return {_RECORD + (f".{number}" if number > 1 else ""): line for number, line in enumerate(lines, 1)}


def recorded(texts: Mapping[str, str]) -> dict[str, Entry]:
    """What the record says. Never fails: what cannot be read is not recorded."""
    found = {}
    for name, text in texts.items():
        if name == _RECORD or name.startswith(_RECORD + "."):
            for item in text.split(";")[1:]:
                one, _, said = item.partition("=")
                if match := _ENTRY.fullmatch(said):
                    value = "" if match[1] == "-" else match[1]
                    found[unquote(one)] = Entry(value, match[3] or "", bool(match[2]))
    return found


def _salted(salt: str, text: str) -> str:
    return digest.salted(salt, text.encode())[:8]


def template(text: str | Secret) -> str:
    """Digest of what the spec says, for a text that takes from a key; empty where nothing can be said."""
    if isinstance(text, Secret) or not recipes.taken(text):
        return ""
    return digest.salted("template", text.encode())[:4]


# --- comparing ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Newest:
    """The generation of a key that a destination must hold."""

    address: Address
    generation: int
    fact: Fact | None
    """None: it is made in this plan."""
    noted: bool = True
    """May we write notes on it?"""
    formerly: tuple[Address, ...] = ()
    """What the key was called before."""


@dataclass(frozen=True)
class _Keys:
    newest: tuple[_Newest, ...] = ()
    lacks: str = ""
    """Why nothing can be sent now, in words."""
    unknown: bool = False
    """Nothing can be said at all: it could not be looked at."""

    @property
    def generation(self) -> int:
        return self.newest[0].generation if self.newest else 1


def compare(resource: Resource, view: View) -> Change | None:
    """What must happen to one destination; its keys have been decided on already."""
    where = resource.address.subaccount
    if view.unseen(where, SERVICE) is not None:
        return None
    mine = _marked(resource, view)
    view.claimed.update(key_of(one) for one in mine)
    if resource.absent:
        return _absent(resource, view, mine)
    found = next((one for one in mine if one.name == resource.name), None)
    stranger = None if found else view.named.get(("destination", where, "", None, resource.name))
    keys = _keys(resource, view)
    if keys.unknown:
        return None
    if resource.observe_only:
        return _observed(resource, found or stranger, keys, view)
    if stranger is not None:
        change = _stranger(resource, stranger, keys, view)
    elif found is not None:
        change = _ours(resource, found, keys, view)
    else:
        change = _missing(resource, keys)
    earlier = tuple(one for one in mine if one is not found)
    return _with_earlier(change, earlier, view) if change is not None and earlier else change


def _marked(resource: Resource, view: View) -> list[Fact]:
    """All that carry its mark, whatever they are called: one that was renamed in the spec is still ours."""
    mark, where = resource.mark, (resource.address.kind, resource.address.subaccount)
    owners = dict.fromkeys((mark.owner, resource.owner_was or mark.owner))
    found = [fact for owner in owners for fact in view.marked.get((*where, owner, mark.name), ())]
    return sorted((one for one in found if one.mark and one.mark.spec == mark.spec), key=lambda one: one.name)


def _keys(resource: Resource, view: View) -> _Keys:
    newest = []
    for address in resource.spec["keys"]:
        decided = view.changes.get(address)
        if address.subaccount in view.wanted.theirs and (decided is None or decided.found is None):
            _later(resource, address, view)
            return _Keys(unknown=True)
        if decided is None:
            told = {problem.address for problem in view.objections} & {address, _parent(address)}
            return _Keys(lacks=f"{address} is in conflict") if told else _Keys(unknown=True)
        if decided.action is Action.DELETE:
            return _Keys(lacks=f"{address} is to be deleted")
        fresh = decided.action in {Action.CREATE, Action.ROTATE, Action.REPLACE}
        if not fresh and (decided.found is None or (decided.gate and decided.action is Action.AWAIT)):
            return _Keys(lacks=f"{address} waits for a person" if decided.gate else f"{address} is not there")
        key = decided.wanted
        watched = key is not None and key.watched
        fact = None if fresh else decided.found
        formerly = decided.wanted.formerly if decided.wanted is not None else ()
        newest.append(_Newest(address, decided.generation, fact, not watched, formerly))
    return _Keys(tuple(newest))


def _later(resource: Resource, key: Address, view: View) -> None:
    """It takes from a key that another shard is to make."""
    view.later.append(
        Problem(
            "shard/later",
            f"{resource.address} takes from {key}, which another shard works on and which is not there yet",
            resource.source,
            resource.address,
            "run this shard again when that one has been applied",
        )
    )


def _parent(key: Address) -> Address:
    return Address("instance", key.path[:2])


def _absent(resource: Resource, view: View, mine: Sequence[Fact]) -> Change | None:
    """Only ours is deleted; under whatever name it stands."""
    stranger = view.named.get(("destination", resource.address.subaccount, "", None, resource.name))
    if stranger is not None and stranger not in mine:
        view.claimed.add(key_of(stranger))
    if resource.observe_only:
        there = mine[-1] if mine else stranger
        if there is None:
            return None
        exists = FieldChange("exists", before=True, after=False)
        reason = "is there; observed only"
        return Change(resource.address, Action.KEEP, reason, (exists,), resource, there)
    if not mine and stranger is not None:
        if resource.adopt is None or (stranger.mark and not is_ours(stranger, resource)):
            view.disputed.add(resource.address)
            view.object(
                "conflict/not-ours-to-delete",
                f"destination {stranger.name!r} is to be absent, but {whose(stranger)}",
                resource,
                "take it out of the spec; its owner must delete it"
                if stranger.mark
                else "take it out of the spec, or say adopt: true beside ensure: absent if it may go",
            )
            return None
        mine = (stranger,)
    if not mine:
        return None
    if resource.protect:
        view.object(
            "safety/protected",
            f"{resource.address} is protected and would be deleted",
            resource,
            "say protect: false in the spec if it may really go",
        )
    return Change(
        resource.address, Action.DELETE, "ensure: absent", (), resource, mine[-1], retired=tuple(mine)
    )


def _missing(resource: Resource, keys: _Keys) -> Change:
    fields = _wishes(resource)
    if keys.lacks:
        return Change(
            resource.address,
            Action.AWAIT,
            "not there yet",
            fields,
            resource,
            gate=f"{keys.lacks}, and this is built from it",
        )
    return Change(
        resource.address, Action.CREATE, "not there yet", fields, resource, generation=keys.generation
    )


def _wishes(resource: Resource) -> tuple[FieldChange, ...]:
    return tuple(FieldChange(name, None, _shown(text)) for name, text in resource.spec["properties"].items())


def _shown(text: str | Secret) -> Any:
    """What the spec says, as a plan may show it: references stay references."""
    return text if isinstance(text, Secret) or recipes.taken(text) else recipes.literal(text)


def _observed(resource: Resource, found: Fact | None, keys: _Keys, view: View) -> Change:
    if found is None:
        missing = FieldChange("exists", before=False, after=True)
        return Change(resource.address, Action.KEEP, "is missing; observed only", (missing,), resource)
    view.claimed.add(key_of(found))
    fields = tuple(_differences(resource, found, keys, view))
    reason = "differs; observed only" if any(one.changes for one in fields) else "observed only"
    return Change(resource.address, Action.KEEP, reason, fields, resource, found)


def _stranger(resource: Resource, found: Fact, keys: _Keys, view: View) -> Change | None:
    """One of its name is there and does not carry its mark."""
    ours = found.mark is None or is_ours(found, resource)
    if not ours:
        view.disputed.add(resource.address)
        owner = found.mark.owner if found.mark else ""
        view.object(
            "conflict/foreign",
            f"destination {found.name!r} exists, but {whose(found)}",
            resource,
            f"if this spec takes it over from that owner, say owner_was: {owner}; otherwise give yours another name, "
            "or take it out of the other's hands first; manage: observe only watches it",
        )
        return None
    view.claimed.add(key_of(found))
    if resource.adopt is None:
        view.disputed.add(resource.address)
        view.object(
            "conflict/exists",
            f"destination {found.name!r} exists already, and {whose(found)}",
            resource,
            "three answers: adopt: true takes it over; manage: observe only watches it; name: OTHER-NAME makes another "
            "one beside it",
        )
        return None
    if keys.lacks:
        return _stays(resource, found, keys)
    what = f"spec {found.mark.spec!r} made" if found.mark else "carries no mark"
    fields = tuple(_differences(resource, found, keys, view))
    return Change(
        resource.address,
        Action.ADOPT,
        f"takes over destination {found.name}, which {what}",
        fields,
        resource,
        found,
        keys.generation,
        send={"properties": resource.spec["properties"]},
    )


def _stays(resource: Resource, found: Fact, keys: _Keys) -> Change:
    note = f"nothing is sent: {keys.lacks}"
    return Change(
        resource.address, Action.KEEP, "left as it is", (), resource, found, _generation(found), notes=(note,)
    )


def _ours(resource: Resource, found: Fact, keys: _Keys, view: View) -> Change:
    fields = tuple(_differences(resource, found, keys, view))
    changed = tuple(one for one in fields if one.changes)
    moved = found.mark is not None and found.mark.owner != resource.mark.owner
    again = resource.address in view.policy.reapply
    if not changed and not moved and not again:
        unknown = any(one.seen is Seen.UNKNOWN for one in fields)
        reason = "in sync as far as can be seen" if unknown else "in sync"
        return Change(resource.address, Action.KEEP, reason, fields, resource, found, _generation(found))
    if keys.lacks:
        return _stays(resource, found, keys)
    reason = "; ".join(dict.fromkeys(one.note for one in changed if one.note))
    plain = [one.path for one in changed if not one.note]
    said = [reason] if reason else []
    if plain:
        said.append(f"differs: {', '.join(plain)}")
    if again and not said:
        said.append("asked for by --reapply")
    if moved:
        said.insert(0, f"re-marked from owner {found.mark.owner if found.mark else ''}")
    return Change(
        resource.address,
        Action.ADOPT if moved else Action.UPDATE,
        "; ".join(said),
        fields,
        resource,
        found,
        keys.generation,
        send={"properties": resource.spec["properties"]},
    )


def _generation(found: Fact) -> int:
    return found.mark.generation if found.mark else 1


def _with_earlier(change: Change, earlier: tuple[Fact, ...], view: View) -> Change:
    """What it was called before stays until it is allowed to go: consumers may still look for that name."""
    names = ", ".join(one.name for one in earlier)
    if str(change.address) in view.policy.allow and change.action is not Action.AWAIT:
        action = Action.RETIRE if change.action is Action.KEEP else change.action
        reason = (
            f"superseded by {change.wanted.name if change.wanted else ''}"
            if action is Action.RETIRE
            else change.reason
        )
        return replace(change, action=action, reason=reason, retired=earlier)
    note = f"it was called {names} before; that one stays, --allow {change.address} deletes it"
    return replace(change, notes=(*change.notes, note))


# --- what differs ---------------------------------------------------------------------------------------


def _differences(resource: Resource, found: Fact, keys: _Keys, view: View) -> Iterable[FieldChange]:
    """Everything observed that differs: the keys it holds, what is too much, and what is not as the spec says."""
    yield from _held(resource, found, keys, view)
    want = resource.spec["properties"]
    for name in found.attributes["written"]:
        if name not in want and name not in resource.ignore and name in found.attributes["names"]:
            yield FieldChange(name, _before(found, name), None)
    for name, text in want.items():
        if name not in resource.ignore:
            yield from _difference(found, name, text)


def _held(resource: Resource, found: Fact, keys: _Keys, view: View) -> Iterable[FieldChange]:
    holds = {one.key: one for one in found.attributes["keys"]}
    for newest in keys.newest:
        here = holds.get(newest.address) or next(
            (holds[one] for one in newest.formerly if one in holds), None
        )
        if here is not None and newest.fact is not None and here.id == newest.fact.id:
            if newest.noted and found.mark and record.receipt_of(newest.fact, resource.address) is None:
                note = f"that it has {newest.address} is not noted there yet"
                yield FieldChange("receipt", None, "noted on the key", note=note)
            elif here.key != newest.address and found.mark:
                note = f"its key is called {newest.address} now"
                yield FieldChange("key", str(here.key), str(newest.address), note=note)
            continue
        before = f"generation {here.generation}" if here else None
        after = f"generation {newest.generation}"
        after += ", made anew" if here and here.generation == newest.generation else ""
        yield FieldChange("key", before, after, note=_why_another(newest, here, found, view))


def _why_another(newest: _Newest, here: Holds | None, found: Fact, view: View) -> str:
    """Why it does not hold the newest generation of its key."""
    if here is None:
        return f"it is not known to hold {newest.address}" if found.mark else ""
    gone = ("key", here.key.subaccount, here.id) not in view.by_id
    if newest.fact is None and not gone:
        return f"{newest.address} is made anew"
    return f"it holds generation {here.generation} of {here.key}, which is {'gone' if gone else 'not the newest'}"


def _difference(found: Fact, name: str, text: str | Secret) -> Iterable[FieldChange]:
    said = found.attributes
    if name not in said["names"]:
        yield FieldChange(name, None, _shown(text))
    elif isinstance(text, Secret) and recipes.taken(text.reveal()):
        if name not in said["written"]:
            yield FieldChange(name, HIDDEN, text)
        else:
            note = "it mixes a value from outside with one from a key"
            yield FieldChange(name, None, text, Seen.UNKNOWN, changes=False, note=note)
    elif isinstance(text, Secret):
        if name in said["differs"]:
            yield FieldChange(name, HIDDEN, text)
    elif recipes.taken(text):
        if name in said["changed"]:
            yield FieldChange(name, _before(found, name), text, note=f"{name} was changed by others")
        elif said["templates"].get(name) != template(text):
            yield FieldChange(name, _before(found, name), text)
    elif said["properties"].get(name, recipes.literal(text)) != recipes.literal(text):
        yield FieldChange(name, _before(found, name), recipes.literal(text))


def _before(found: Fact, name: str) -> str:
    return str(found.attributes["properties"].get(name, HIDDEN))


# --- the Destination service ----------------------------------------------------------------------------

_PATH = "/destination-configuration/v1/subaccountDestinations"


class Destinations:
    """Destinations of a subaccount, by the Destination service's API v1."""

    service = SERVICE
    batch = False
    replaces_failed = True

    def observe(
        self,
        door: Door,
        places: Sequence[Subaccount],
        wanted: Wanted,
        seen: Sequence[Fact],  # noqa: ARG002 - nothing before it matters to it
    ) -> Sequence[Fact]:
        """One request for each subaccount: without paging the whole list comes."""
        found: list[Fact] = []
        for place in places:
            tenant = door.tenant()
            if tenant and tenant.lower() != place.id.lower():
                said = (
                    f"the key given for subaccount {place.name} ({place.id}) opens subaccount {tenant}; "
                    f"put one of {place.name} into access.destination"
                )
                raise PlatformError(Blame(SERVICE, message=said))
            known = {
                one.name: one for one in wanted.of("destination") if one.address.subaccount == place.name
            }
            ours = set(marks.owners(wanted))
            found.extend(_fact(item, place.name, known.get(_named(item)), ours) for item in _listed(door))
        return found

    def create(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:
        found = {}
        for task in tasks:
            resource = _wanted(task)
            body = {"Name": resource.name, **_texts(task, resource), **_ours_of(task, resource)}
            door.send("POST", _PATH, body)
            found[task.step.id] = _sent(body, task, resource)
        return found

    def update(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:
        """Overwrites the whole, so what is there and not ours to change is read just before, and sent along."""
        found = {}
        for task in tasks:
            resource = _wanted(task)
            there, tag = _there(door, marks.target(task, SERVICE).name)
            _still(there, resource, task)
            body = {
                **_kept(there, resource),
                **_texts(task, resource, there),
                **_ours_of(task, resource, there),
            }
            door.send("PUT", _PATH, {"Name": there.need("Name"), **body}, match=tag)
            found[task.step.id] = _sent({"Name": there.need("Name"), **body}, task, resource)
        return found

    def delete(self, door: Door, tasks: Sequence[Task]) -> None:
        """Only what still is what was seen: somebody may have made another one of that name meanwhile."""
        for task in tasks:
            target = marks.target(task, SERVICE)
            there, _ = _there(door, target.name)
            if _mark(_texts_of(there), target.name) != target.mark:
                raise _changed(target.name)
            door.send("DELETE", f"{_PATH}/{quote(target.name, safe='')}")

    def look(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact | None]:
        """One list for all of them: names in a filter would have to be quoted in a way that is not documented."""
        items = {_named(item): item for item in _listed(door)}
        found: dict[StepId, Fact | None] = {}
        for task in tasks:
            name = task.step.found.name if task.step.found else _wanted(task).name
            item = items.get(name)
            owners = {task.wanted.mark.owner, task.wanted.owner_was or ""} if task.wanted else set()
            found[task.step.id] = _fact(item, task.subaccount.name, task.wanted, owners) if item else None
        return found

    def blockers(self, door: Door, task: Task) -> Sequence[str]:  # noqa: ARG002 - nothing stands in a destination
        return ()

    def prepare(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:  # noqa: ARG002 - no request
        return {task.step.id: task.parent for task in tasks if task.parent is not None}

    def seal(self, door: Door, task: Task, fact: Fact) -> None:
        """Nothing to do: the record went out with the write itself."""


def _listed(door: Door) -> list[Item]:
    found = door.get(_PATH)
    if not isinstance(found, list):
        raise Item({}, SERVICE, "a list of destinations").unclear("is no list")
    return [Item(one, SERVICE, "a destination") for one in found]


def _named(item: Item) -> str:
    return item.need("Name")


def _there(door: Door, name: str) -> tuple[Item, str]:
    """What is there now, and its ETag; an empty one if there is none."""
    answer = door.read(f"{_PATH}/{quote(name, safe='')}")
    return Item(answer.body, SERVICE, "a destination"), str(answer.headers.get("ETag") or "")


def _wanted(task: Task) -> Resource:
    return given(task.wanted, SERVICE, f"what is wanted of {task.step.address}")


def _still(there: Item, resource: Resource, task: Task) -> None:
    """It must carry the mark that planning saw, or none if it is to be adopted."""
    before = task.found.mark if task.found else None
    now = _mark(_texts_of(there), there.need("Name"))
    same = (now is None) == (before is None)
    if now is not None and before is not None:
        mine = {(one, resource.mark.spec, resource.mark.name) for one in (resource.mark.owner, before.owner)}
        same = (now.owner, now.spec, now.name) in {(before.owner, before.spec, before.name), *mine}
        if same and now.generation not in {before.generation, task.step.generation}:
            said = f"destination {there.need('Name')!r} was filled from generation {now.generation} since it was looked at"
            raise PlatformError(Blame(SERVICE, message=f"{said}; run again: it is planned anew"))
    if not same:
        raise _changed(there.need("Name"))


def _changed(name: str) -> PlatformError:
    said = f"destination {name!r} has become another's since it was looked at; run again: it is planned anew"
    return PlatformError(Blame(SERVICE, message=said))


# --- writing


def _texts(task: Task, resource: Resource, there: Item | None = None) -> dict[str, str | Secret]:
    """The properties that the spec wants, filled; what is ignored is as it is, wherever it is there already."""
    filled = task.spec["properties"]
    return {name: text for name, text in filled.items() if there is None or name not in resource.ignore}


def _kept(there: Item, resource: Resource) -> dict[str, Any]:
    """What is there and stays: others' properties and ignored ones, not what was ours and is wanted no more."""
    texts = _texts_of(there)
    known = recorded(texts) if _mark(texts, there.need("Name")) else {}
    want = resource.spec["properties"]
    return {
        name: digest.hidden(value, name)
        for name, value in there.mapping().items()
        if name != "Name"
        and not name.startswith(recipes.OURS)
        and (name in resource.ignore or (name not in want and name not in known))
    }


def _ours_of(task: Task, resource: Resource, there: Item | None = None) -> dict[str, str]:
    """Mark, keys and record, as they go out with the properties."""
    held = tuple(
        Holds(key, fact.mark.generation if fact.mark else 1, fact.id)
        for key, fact in task.spec["facts"].items()
    )
    name = there.need("Name") if there is not None else resource.name
    salt = held[0].id if held else name
    entries = {one: _entry(one, text, resource, salt) for one, text in _texts(task, resource, there).items()}
    return {
        _OWNER: resource.mark.owner,
        _SPEC: resource.mark.spec,
        _NAME: resource.mark.name,
        **({_KEY: ", ".join(str(one) for one in held)} if held else {}),
        **written(name, entries),
    }


def _entry(name: str, text: str | Secret, resource: Resource, salt: str) -> Entry:
    said = resource.spec["properties"][name]
    secret = name in resource.spec["secret"]
    if isinstance(said, Secret):
        return Entry(secret=True)
    plain = text.reveal() if isinstance(text, Secret) else text
    return Entry(_salted(salt, plain), template(said), secret)


def _sent(body: Data, task: Task, resource: Resource) -> Fact:
    """What is there now: the answer itself is empty."""
    item = Item(digest.plain(body), SERVICE, "a destination")
    return _fact(item, task.subaccount.name, resource, {resource.mark.owner})


# --- reading


def _texts_of(item: Item) -> dict[str, str]:
    return {str(name): value for name, value in item.mapping().items() if isinstance(value, str)}


def _mark(texts: Mapping[str, str], name: str) -> Mark | None:
    """The mark, if it is this very destination's and not one that a copy took along."""
    owner, spec, logical = (texts.get(one, "") for one in (_OWNER, _SPEC, _NAME))
    if not (owner and spec and logical) or texts.get(_RECORD, "").partition(";")[0] != head(name):
        return None
    holds = holdings(texts.get(_KEY, ""))
    return Mark(owner, spec, logical, holds[0].generation if holds else 1)


def _fact(item: Item, subaccount: str, resource: Resource | None, owners: set[str]) -> Fact:
    """What may be known of it. Values that may be secret are compared here and left behind."""
    name, texts = _named(item), _texts_of(item)
    mark = _mark(texts, name)
    concerns = resource is not None or (mark is not None and mark.owner in owners)
    attributes = _seen(item, texts, resource, mark) if concerns else {}
    return Fact("destination", name, name, subaccount, attributes=attributes, mark=mark)


def _seen(
    item: Item, texts: Mapping[str, str], resource: Resource | None, mark: Mark | None
) -> dict[str, Any]:
    entries = recorded(texts) if mark is not None else {}
    holds = holdings(texts.get(_KEY, "")) if mark is not None else ()
    salt = holds[0].id if holds else item.need("Name")
    want = resource.spec["properties"] if resource else {}
    secret = {one for one, entry in entries.items() if entry.secret} | set(
        resource.spec["secret"] if resource else ()
    )
    shown = (set(want) | recipes.SHOWN) - secret
    names = [str(one) for one in item.mapping() if one != "Name" and not str(one).startswith(recipes.OURS)]
    return {
        "names": tuple(sorted(names)),
        "properties": {
            one: texts[one] for one in names if one in shown and one in texts and not recipes.secret_name(one)
        },
        "written": tuple(sorted(entries)),
        "templates": {one: entry.template for one, entry in entries.items()},
        "changed": tuple(
            sorted(
                one
                for one, entry in entries.items()
                if entry.value and (one not in texts or _salted(salt, texts[one]) != entry.value)
            )
        ),
        "differs": tuple(
            sorted(
                one
                for one, text in want.items()
                if isinstance(text, Secret)
                and not recipes.taken(text.reveal())
                and texts.get(one) != recipes.literal(text.reveal())
            )
        ),
        "keys": holds,
    }


KIND = Kind(
    name="destination",
    title="a BTP destination, its properties taken from keys",
    schema=SCHEMA,
    drivers={"": Destinations()},
    examples=EXAMPLES,
    compare=compare,
)
