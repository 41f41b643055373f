"""A service key (Cloud Foundry) or binding (Service Manager): `key:prod/apim/transport`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from btp_reconcile.core import digest, fingerprint, marks, record
from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.kind import Kind
from btp_reconcile.core.life import Life, Place, generations_of, live, newest_in, parameter_fields, wished
from btp_reconcile.core.model import Action, Change, Fact, FieldChange, Phase, Seen, Verb
from btp_reconcile.core.wire import Item, batches, cf_list, cf_term, given, moment, rows, sm_in, sm_term

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from btp_reconcile.core.kind import Door, Query, Task
    from btp_reconcile.core.model import Data, Mark, Resource, StepId, Subaccount, Wanted
    from btp_reconcile.core.view import View

SCHEMA: Data = {
    "type": "object",
    "description": "A service key; `{}` is enough.",
    "additionalProperties": False,
    "properties": {
        "name": {
            "$ref": "#/$defs/physical",
            "description": "The name on the platform, if it differs from the key of this map.",
        },
        "parameters": {
            "$ref": "#/$defs/parameters",
            "description": "Handed to the broker when the key is created.",
        },
        "ensure": {
            "type": "string",
            "enum": ["present", "absent"],
            "description": "absent: delete it, if it is ours. Default: as its instance.",
        },
        "adopt": {"$ref": "#/$defs/adopt"},
        "manage": {
            "type": "string",
            "enum": ["full", "observe"],
            "description": "observe: report drift, never write. Default: as its instance.",
        },
        "ignore": {"$ref": "#/$defs/ignore"},
        "keep_old_for": {
            "$ref": "#/$defs/duration",
            "description": "How long a superseded generation is kept. Default: as its instance.",
        },
        "owner_was": {
            "$ref": "#/$defs/name",
            "description": "The owner whose mark it carries now; it is marked as ours.",
        },
        "renamed_from": {
            "$ref": "#/$defs/name",
            "description": "The key of this map that it had before. It gets the new name, and is not made anew.",
        },
        "credential": {
            "title": "credential",
            "type": "object",
            "additionalProperties": False,
            "description": "How its holder signs in: a secret of the key's own, or a client certificate.",
            "properties": {
                "type": {"type": "string", "enum": ["secret", "x509"]},
                "validity": {
                    "$ref": "#/$defs/duration",
                    "description": "x509: how long the certificate lives, in whole days (30d).",
                },
                "key_length": {"type": "integer", "enum": [2048, 4096, 8192]},
            },
        },
        "rotate_after": {
            "$ref": "#/$defs/duration",
            "description": "Make a new key when the newest is so old; the old one is kept for keep_old_for after every "
            "consumer has the new one.",
        },
        "reissue_stale": {
            "type": "boolean",
            "description": "true: also make a new key when its instance was changed after it was made.",
        },
        "verify": {
            "type": "boolean",
            "description": "false: do not try a new key before it is delivered, e.g. where its API cannot be reached.",
        },
        "deliver": {
            "type": "object",
            "description": "Where its credentials go, by names of your choice.",
            "propertyNames": {"$ref": "#/$defs/name"},
            "additionalProperties": {"$ref": "#/$defs/delivery"},
        },
    },
}

_HEAD = """\
version: 1
owner: finance-platform
name: key-example
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
"""

EXAMPLES = (
    _HEAD
    + """\
          transport: {}
""",
    _HEAD
    + """\
          transport: {}
          pipeline: {}
""",
    _HEAD
    + """\
          transport: {}
          pipeline:
            parameters: {xsuaa: {credential-type: x509, x509: {key-length: 2048, validity: 30, validity-type: DAYS}}}
""",
)


# --- comparing ------------------------------------------------------------------------------------------


def compare(resource: Resource, view: View) -> Change | None:
    """What must happen to one wanted key; its instance has been decided on already."""
    parent = resource.requires[0]
    if parent in view.disputed:
        return None
    decided = view.changes.get(parent)
    if decided is None:
        return None
    place = _place(resource, decided, view)
    if decided.action is Action.KEEP and decided.found is None:
        return None
    if decided.gate and decided.found is None and resource.absent:
        return None
    if _vanishing(decided) and not resource.absent:
        return Change(
            resource.address,
            Action.KEEP,
            "its instance is being deleted",
            wanted=resource,
            notes=("planned again as soon as that is done",),
        )
    view.generations[resource.address] = tuple(generations_of(resource, view, place))
    return _ending(live(resource, view, LIFE, place), resource)


def _ending(change: Change | None, resource: Resource) -> Change | None:
    """When a certificate ends is noted once, beside the key; a run that was cut off may have left that out."""
    left = change is not None and change.action in {Action.KEEP, Action.RETIRE}
    if change is None or not left or change.found is None or resource.observe_only:
        return change
    certified = resource.spec.get("credential_type") == "x509" and change.found.phase is Phase.READY
    if not certified or record.ends_noted(change.found):
        return change
    note = "the end of its certificate is not noted yet"
    told = FieldChange("not_after", None, "(read from its certificate)", Seen.ASSUMED, note=note)
    return replace(change, action=Action.UPDATE, reason=note, fields=(*change.fields, told))


def _vanishing(instance: Change) -> bool:
    operation = instance.found.operation if instance.found else None
    return instance.action is Action.AWAIT and operation is not None and operation.type == "delete"


def _place(resource: Resource, decided: Change, view: View) -> Place:
    """The instance that the newest key must stand in, and all generations that may hold older ones."""
    instance = decided.wanted
    fresh = decided.action in {Action.REPLACE, Action.CREATE}
    found = decided.found
    parents = [found.id] if found else []
    if instance is not None:
        mark = instance.mark
        parents.extend(
            fact.id
            for owner in (mark.owner, instance.owner_was)
            if owner
            for name in marks.known_as(instance)
            for fact in view.marked.get(("instance", resource.address.subaccount, owner, name), ())
            if fact.mark and fact.mark.spec == mark.spec and fact.id not in parents
        )
    target = None if fresh or found is None else found.id
    newest = newest_in(resource, view, tuple(parents))
    moved = newest is not None and newest.parent != target
    return Place(resource.spec["runtime"], target, tuple(parents), moved=moved, known=target is not None)


def _fields(resource: Resource, fact: Fact, view: View) -> tuple[FieldChange, ...]:
    """Keys are immutable: parameters that differ mean a new generation. Service Manager can rename a binding."""
    return (
        *_name(resource, fact, view),
        *(
            replace(one, forces_replace=True) if one.changes else one
            for one in parameter_fields(resource, fact, view, immutable=True)
        ),
    )


def _name(resource: Resource, fact: Fact, view: View) -> Iterable[FieldChange]:
    """`PATCH /v1/service_bindings/{id}` takes a name (Service Manager API v1); Cloud Foundry's takes metadata only."""
    if fact.runtime != "other" or fact.mark is None or resource.adopt:
        return
    wanted = resource.physical(fact.mark.generation)
    taken = (fact.kind, fact.subaccount, fact.runtime, fact.parent, wanted) in view.named
    if fact.name not in {resource.name, wanted} and not taken:
        yield FieldChange("name", fact.name, wanted)


LIFE = Life(
    "key",
    _fields,
    wished,
    immutable="a key cannot be changed",
    anew=Action.ROTATE,
    retire_by_itself=True,
)


# --- both runtimes --------------------------------------------------------------------------------------


def _instance(task: Task, service: str) -> Fact:
    return given(task.parent, service, f"the instance of {task.step.address}")


def _placed(seen: Sequence[Fact], runtime: str, places: Sequence[Subaccount]) -> list[Fact]:
    names = {place.name for place in places}
    return [
        one for one in seen if (one.kind, one.runtime) == ("instance", runtime) and one.subaccount in names
    ]


def _kinship(task: Task) -> dict[str, Any]:
    """Service and plan of a key are those of its instance."""
    for fact in (task.parent, task.found):
        if fact is not None and "service" in fact.attributes:
            return {"service": fact.attributes["service"], "plan": fact.attributes.get("plan", "")}
    spec = task.wanted.spec if task.wanted else {}
    return {"service": spec.get("service", ""), "plan": spec.get("plan", "")}


def _credentials(found: Any, service: str, fact: Fact, why: str) -> Any:
    """The credentials in an answer, wrapped at once, so that nothing further on can show them.

    `why` says when there may be none.
    """
    said = found.get("credentials") if isinstance(found, dict) else None
    if not isinstance(said, dict) or not said:
        words = (
            f"key {fact.name!r} of subaccount {fact.subaccount} came without credentials: {why}; "
            "if the cockpit shows none either, delete it and apply again"
        )
        raise PlatformError(Blame(service, "GET", message=words))
    return digest.hidden(said, "key")


# --- Cloud Foundry --------------------------------------------------------------------------------------

CF = "cloud_foundry"
_CF_KEYS = "/v3/service_credential_bindings"
_KEYS_ONLY: Query = (("type", "key"), ("per_page", "5000"))


class CloudFoundryKeys:
    """Service keys by the Cloud Controller's API v3. Their credentials are never asked for."""

    service = CF
    batch = False
    replaces_failed = True

    def observe(
        self, door: Door, places: Sequence[Subaccount], wanted: Wanted, seen: Sequence[Fact]
    ) -> Sequence[Fact]:
        """The keys of the services that matter here, of all orgs together: the list cannot be asked by org."""
        instances = _placed(seen, "cloudfoundry", places)
        offerings = _offerings(instances, wanted)
        inside: dict[str, list[Fact]] = defaultdict(list)
        for instance in instances:
            inside[instance.id].append(instance)
        found: list[Fact] = []
        for some in batches(offerings, lambda name: (cf_term(name),), _KEYS_ONLY):
            for item in _cf_listed(door, ("service_offering_names", cf_list(some))):
                for instance in inside.get(_cf_instance(item), ()):
                    kinship = {key: instance.attributes.get(key, "") for key in ("service", "plan")}
                    found.append(_cf_fact(item, instance.subaccount, kinship))
        return found

    def everything(self, door: Door, place: Subaccount, seen: Sequence[Fact]) -> Sequence[Fact]:
        """All keys of instances that were seen before."""
        inside = {one.id: one for one in _placed(seen, "cloudfoundry", [place])}
        found: list[Fact] = []
        for some in batches(inside, lambda guid: (cf_term(guid),), _KEYS_ONLY):
            for item in _cf_listed(door, ("service_instance_guids", cf_list(some))):
                instance = inside.get(_cf_instance(item))
                if instance is not None:
                    kinship = {key: instance.attributes.get(key, "") for key in ("service", "plan")}
                    found.append(_cf_fact(item, place.name, kinship))
        return found

    def create(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            instance = _instance(task, CF)
            body: dict[str, Any] = {
                "type": "key",
                "name": task.step.name,
                "relationships": {"service_instance": {"data": {"guid": instance.id}}},
            }
            if task.spec.get("parameters"):
                body["parameters"] = task.spec["parameters"]
            body["metadata"] = marks.cf_metadata(task, task.fingerprint)
            door.send("POST", _CF_KEYS, body)

    def update(self, door: Door, tasks: Sequence[Task]) -> None:
        """Only what is written beside a key can change; the key itself cannot."""
        for task in tasks:
            body = {"metadata": marks.cf_metadata(task, task.fingerprint)}
            door.send("PATCH", f"{_CF_KEYS}/{quote(marks.target(task, CF).id, safe='')}", body)

    def delete(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            door.send("DELETE", f"{_CF_KEYS}/{quote(marks.target(task, CF).id, safe='')}")

    def look(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact | None]:
        found: dict[StepId, Fact | None] = {}
        by_id, by_name = marks.by_id_or_name(tasks)
        for some in batches(by_id, lambda task: (cf_term(marks.target(task, CF).id),), _KEYS_ONLY):
            guids = cf_list(marks.target(task, CF).id for task in some)
            items = {item.need("guid"): item for item in _cf_listed(door, ("guids", guids))}
            for task in some:
                found[task.step.id] = _cf_seen(items.get(marks.target(task, CF).id), task)
        for some in batches(by_name, _cf_name_and_instance, _KEYS_ONLY):
            names = cf_list(task.step.name for task in some)
            instances = cf_list(_instance(task, CF).id for task in some)
            named: dict[tuple[str, str], list[Item]] = defaultdict(list)
            for item in _cf_listed(door, ("names", names), ("service_instance_guids", instances)):
                named[_cf_instance(item), item.text("name")].append(item)
            for task in some:
                before = task.found
                here = named.get((_instance(task, CF).id, task.step.name), [])
                new = [item for item in here if before is None or item.need("guid") != before.id]
                found[task.step.id] = _cf_seen(new[0] if new else None, task)
        return found

    def blockers(self, door: Door, task: Task) -> Sequence[str]:  # noqa: ARG002 - nothing stands in a key
        return ()

    def prepare(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:  # noqa: ARG002 - no request
        """A key needs nothing but its instance."""
        return {task.step.id: task.parent for task in tasks if task.parent is not None}

    def seal(self, door: Door, task: Task, fact: Fact) -> None:
        """Nothing to do: the last operation on a key is its creation, which the record belongs to."""

    def credentials(self, door: Door, fact: Fact) -> Any:
        """What the key opens, every text of it a `Secret`. Never called while planning.

        `GET /v3/service_credential_bindings/:guid/details` (Cloud Foundry API v3).
        """
        found = door.get(f"{_CF_KEYS}/{quote(fact.id, safe='')}/details")
        # Who may not read them is told that there is no such key (404), never this.
        return _credentials(found, CF, fact, "its broker gave none when it was made")

    def note(self, door: Door, fact: Fact, notes: Mapping[str, str | None]) -> Mapping[str, str]:
        """Write our own notes beside the key, None takes one away; gives all that are there then.

        A PATCH of metadata merges, and leaves the last operation alone (Cloud Foundry API v3, "Metadata").
        """
        annotations = {marks.NOTE + name: text for name, text in notes.items()}
        body = {"metadata": {"annotations": annotations}}
        answer = door.send("PATCH", f"{_CF_KEYS}/{quote(fact.id, safe='')}", body)
        found = Item(answer.body or {}, CF, "a service key")
        return marks.notes(marks.NOTE, marks.cf_texts(found, "metadata", "annotations"))


def _offerings(instances: Sequence[Fact], wanted: Wanted) -> list[str]:
    """Services of instances seen, as far as they are wanted here or an instance of them is ours."""
    asked = {(one.address.subaccount, one.spec["service"]) for one in wanted.of("instance")}
    ours = set(marks.owners(wanted))
    return sorted(
        {
            str(one.attributes["service"])
            for one in instances
            if one.attributes.get("service")
            and (
                (one.subaccount, one.attributes["service"]) in asked
                or (one.mark is not None and one.mark.owner in ours)
            )
        }
    )


def _cf_listed(door: Door, *filters: tuple[str, str]) -> Iterator[Item]:
    for page in door.pages(_CF_KEYS, (*filters, *_KEYS_ONLY)):
        yield from rows(page, CF, "resources", "service key")


def _cf_instance(item: Item) -> str:
    return item.need("relationships", "service_instance", "data", "guid")


def _cf_name_and_instance(task: Task) -> tuple[str, str]:
    return cf_term(task.step.name), cf_term(_instance(task, CF).id)


def _cf_fact(item: Item, subaccount: str, kinship: Data) -> Fact:
    operation = marks.cf_operation(item)
    return Fact(
        "key",
        item.need("guid"),
        item.text("name"),
        subaccount,
        # After a deletion that failed its credentials cannot be read any more: nobody can use it.
        marks.cf_phase(operation, frozenset({"create", "delete"})),
        dict(kinship),
        _cf_instance(item),
        marks.read(marks.CLOUD_FOUNDRY, marks.cf_texts(item, "metadata", "labels")),
        "",
        marks.cf_texts(item, "metadata", "annotations").get(marks.ANNOTATION, ""),
        operation,
        item.text("created_at"),
        "cloudfoundry",
        marks.detail(operation),
        marks.notes(marks.NOTE, marks.cf_texts(item, "metadata", "annotations")),
    )


def _cf_seen(item: Item | None, task: Task) -> Fact | None:
    if item is None:
        return None
    fact = _cf_fact(item, task.subaccount.name, _kinship(task))
    return marks.after_delete(fact, task.found) if task.step.verb is Verb.DELETE else fact


# --- Service Manager ------------------------------------------------------------------------------------

SM = "service_manager"
_SM_KEYS = "/v1/service_bindings"
_OPERATIONS: Query = (("attach_last_operations", "true"),)
_TAKEN = (
    "id",
    "name",
    "ready",
    "service_instance_id",
    "subaccount_id",
    "created_at",
    "last_operation",
    "labels",
)
"""All that is taken of a binding. Lists bring the credentials unasked; they are left behind in the parser."""


class ServiceManagerKeys:
    """Service bindings of the runtime `other`, by the Service Manager's API v1."""

    service = SM
    batch = False
    replaces_failed = False

    def observe(
        self, door: Door, places: Sequence[Subaccount], wanted: Wanted, seen: Sequence[Fact]
    ) -> Sequence[Fact]:
        found: list[Fact] = []
        for place in places:
            instances = _placed(seen, "other", [place])
            if instances:
                found.extend(_observed_at(door, place, wanted, instances))
        return found

    def everything(self, door: Door, place: Subaccount, seen: Sequence[Fact]) -> Sequence[Fact]:
        """All bindings of instances that were seen before. Their credentials, which come unasked, are left behind."""
        inside = {one.id: one for one in _placed(seen, "other", [place])}
        found: list[Fact] = []
        for page in door.pages(_SM_KEYS, _OPERATIONS) if inside else ():
            for item in (one.only(_TAKEN) for one in rows(page, SM, "items", "service binding")):
                instance = inside.get(item.need("service_instance_id"))
                if instance is not None:
                    kinship = {key: instance.attributes.get(key, "") for key in ("service", "plan")}
                    found.append(_sm_fact(item, place, kinship))
        return found

    def create(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            labels = marks.sm_wanted(task)
            if task.fingerprint:
                labels[marks.PARAMETERS] = task.fingerprint
            body: dict[str, Any] = {
                "name": task.step.name,
                "service_instance_id": _instance(task, SM).id,
            }
            if task.spec.get("parameters"):
                body["parameters"] = task.spec["parameters"]
            body["labels"] = {key: [value] for key, value in labels.items()}
            door.send("POST", _SM_KEYS, body, (("async", "true"),))

    def update(self, door: Door, tasks: Sequence[Task]) -> None:
        """Name and labels are all that can change. That is done at once: `async` would be refused."""
        for task in tasks:
            found = marks.target(task, SM)
            labels = marks.sm_wanted(task)
            if task.fingerprint:
                labels[marks.PARAMETERS] = fingerprint.near(task.fingerprint, door.now())
            body: dict[str, Any] = {"name": task.spec["name"]} if "name" in task.spec else {}
            if changes := marks.label_changes(found.attributes.get("labels", {}), labels):
                body["labels"] = changes
            if body:
                door.send("PATCH", f"{_SM_KEYS}/{quote(found.id, safe='')}", body)

    def delete(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            path = f"{_SM_KEYS}/{quote(marks.target(task, SM).id, safe='')}"
            door.send("DELETE", path, query=(("async", "true"),))

    def look(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact | None]:
        found: dict[StepId, Fact | None] = {}
        by_id, by_name = marks.by_id_or_name(tasks)
        for some in batches(by_id, lambda task: (sm_term(marks.target(task, SM).id),), _OPERATIONS):
            criteria = sm_in("id", (marks.target(task, SM).id for task in some))
            items = {item.need("id"): item for item in _sm_listed(door, criteria)}
            for task in some:
                found[task.step.id] = _sm_seen(items.get(marks.target(task, SM).id), task)
        for some in batches(by_name, lambda task: _sm_terms(task.step.name, _instance(task, SM).id)):
            wanted = [(_instance(task, SM).id, task.step.name) for task in some]
            named = {
                (item.text("service_instance_id"), item.text("name")): item
                for item in _sm_listed(door, _sm_named(wanted))
            }
            for task, name in zip(some, wanted, strict=True):
                item, before = named.get(name), task.found
                old = item is not None and before is not None and item.need("id") == before.id
                found[task.step.id] = None if old else _sm_seen(item, task)
        return found

    def blockers(self, door: Door, task: Task) -> Sequence[str]:  # noqa: ARG002 - nothing stands in a key
        return ()

    def prepare(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:  # noqa: ARG002 - no request
        """A key needs nothing but its instance."""
        return {task.step.id: task.parent for task in tasks if task.parent is not None}

    def seal(self, door: Door, task: Task, fact: Fact) -> None:
        """Nothing to do: the last operation on a key is its creation, which the record belongs to."""

    def credentials(self, door: Door, fact: Fact) -> Any:
        """What the key opens, every text of it a `Secret`. Never called while planning."""
        found = door.get(f"{_SM_KEYS}/{quote(fact.id, safe='')}")
        why = "its broker gave none, or access.service_manager is not a key of plan subaccount-admin"
        return _credentials(found, SM, fact, why)

    def note(self, door: Door, fact: Fact, notes: Mapping[str, str | None]) -> Mapping[str, str]:
        """Write our own notes beside the key, None takes one away; gives all that are there then.

        Labels are changed one by one, so they are looked at first: what is there decides how it is changed.
        """
        path = f"{_SM_KEYS}/{quote(fact.id, safe='')}"
        there = marks.sm_labels(Item(door.get(path), SM, "a service binding"))
        wanted = {marks.SERVICE_MANAGER + name: text for name, text in notes.items() if text}
        gone = [marks.SERVICE_MANAGER + name for name, text in notes.items() if text is None]
        changes = marks.label_changes(there, wanted)
        changes.extend({"op": "remove", "key": key} for key in gone if key in there)
        if changes:
            door.send("PATCH", path, {"labels": changes})
        after = {**there, **{key: (text,) for key, text in wanted.items()}}
        return marks.sm_notes({key: values for key, values in after.items() if key not in gone})


def _observed_at(door: Door, place: Subaccount, wanted: Wanted, instances: Sequence[Fact]) -> list[Fact]:
    """What carries the mark of an owner of these specs; and by name only what is wanted and not among it."""
    items: dict[str, Item] = {}
    for some in batches(marks.owners(wanted), lambda owner: (sm_term(owner),), _OPERATIONS):
        items.update(_by_id(_sm_listed(door, sm_in(marks.OWNER, some), "labelQuery")))
    ids, names = _unmarked(place, wanted, instances, items)
    for some in batches(ids, lambda value: (sm_term(value),), _OPERATIONS):
        items.update(_by_id(_sm_listed(door, sm_in("id", some))))
    for pairs in batches(names, lambda pair: _sm_terms(pair[1], pair[0]), _OPERATIONS):
        items.update(_by_id(_sm_listed(door, _sm_named(pairs))))
    inside = {one.id: one for one in instances}
    found = []
    for item in items.values():
        instance = inside.get(item.need("service_instance_id"))
        if instance is not None:
            kinship = {key: instance.attributes.get(key, "") for key in ("service", "plan")}
            found.append(_sm_fact(item, place, kinship))
    return found


def _unmarked(
    place: Subaccount, wanted: Wanted, instances: Sequence[Fact], items: Mapping[str, Item]
) -> tuple[list[str], list[tuple[str, str]]]:
    """What is wanted here and carries no mark of ours: ids to adopt, and names in their instances."""
    carried: dict[str, list[Mark | None]] = defaultdict(list)
    for item in items.values():
        carried[item.need("service_instance_id")].append(_sm_mark(item))
    resources = {one.address: one for one in wanted.of("instance")}
    ids: dict[str, None] = {}
    names: dict[tuple[str, str], None] = {}
    for key in wanted.of("key"):
        if key.address.subaccount != place.name or key.spec["runtime"] != "other":
            continue
        parent = resources.get(key.parent) if key.parent else None
        possible = [one.id for one in instances if parent is not None and _may_be(one, parent)]
        if any(marks.names(mark, key) for one in possible for mark in carried.get(one, ())):
            continue
        if key.adopt and key.adopt.id:
            ids.update({key.adopt.id: None} if possible else {})
        else:
            names.update({(one, key.sought): None for one in possible})
    return list(ids), list(names)


def _may_be(instance: Fact, resource: Resource) -> bool:
    """Is it, or may it be adopted as, the instance that a spec names?"""
    if marks.stands_for(instance, resource):
        return True
    # What another spec of the same owner made carries a mark, and can be adopted nevertheless.
    return (resource.adopt is not None or instance.mark is None) and marks.called(instance, resource)


def _by_id(items: Iterable[Item]) -> dict[str, Item]:
    return {item.need("id"): item for item in items}


def _sm_listed(door: Door, criteria: str, query: str = "fieldQuery") -> Iterator[Item]:
    for page in door.pages(_SM_KEYS, ((query, criteria), *_OPERATIONS)):
        for item in rows(page, SM, "items", "service binding"):
            yield item.only(_TAKEN)


def _sm_terms(name: str, instance: str) -> tuple[str, str]:
    return sm_term(name), sm_term(instance)


def _sm_named(pairs: Iterable[tuple[str, str]]) -> str:
    """Criteria for (instance id, name) pairs. They find more than these; names are compared again."""
    wanted = list(pairs)
    inside = sm_in("service_instance_id", (instance for instance, _ in wanted))
    return f"{inside} and {sm_in('name', (name for _, name in wanted))}"


def _sm_mark(item: Item) -> Mark | None:
    return marks.read(marks.SERVICE_MANAGER, marks.single(marks.sm_labels(item)))


def _sm_fact(item: Item, place: Subaccount, kinship: Data) -> Fact:
    marks.sm_belongs(item.text("subaccount_id"), place)
    labels = marks.sm_labels(item)
    operation = marks.sm_operation(item)
    return Fact(
        "key",
        item.need("id"),
        item.need("name"),
        place.name,
        marks.sm_phase(operation, item.flag("ready")),
        {**kinship, "labels": marks.our_labels(labels)},
        item.need("service_instance_id"),
        _sm_mark(item),
        marks.foreign(labels),
        marks.single(labels).get(marks.PARAMETERS, ""),
        operation,
        moment(item.text("created_at")),
        "other",
        marks.detail(operation),
        marks.sm_notes(labels),
    )


def _sm_seen(item: Item | None, task: Task) -> Fact | None:
    if item is None:
        return None
    fact = _sm_fact(item, task.subaccount, _kinship(task))
    return marks.after_delete(fact, task.found) if task.step.verb is Verb.DELETE else fact


KIND = Kind(
    name="key",
    title="a service key, or binding, of an instance",
    schema=SCHEMA,
    drivers={"cloudfoundry": CloudFoundryKeys(), "other": ServiceManagerKeys()},
    examples=EXAMPLES,
    immutable=("parameters",),
    compare=compare,
)
