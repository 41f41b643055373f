"""A service instance, on Cloud Foundry or in the Service Manager: `instance:prod/apim`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from btp_reconcile.core import fingerprint, held, marks, record
from btp_reconcile.core.authors import Author
from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.kind import Kind
from btp_reconcile.core.life import Life, Place, live, parameter_fields, wished
from btp_reconcile.core.model import Action, Change, Fact, FieldChange, Phase, Verb
from btp_reconcile.core.resolve import SERVICE_OF_RUNTIME
from btp_reconcile.core.wire import Item, batches, cf_list, cf_term, given, line, moment, rows, sm_in, sm_term

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from btp_reconcile.core.kind import Door, Query, Task
    from btp_reconcile.core.model import Data, Mark, Resource, StepId, Subaccount, Wanted
    from btp_reconcile.core.view import View

SCHEMA: Data = {
    "type": "object",
    "description": "A service instance. Give `api`, or `service` and `plan`.",
    "additionalProperties": False,
    "properties": {
        "api": {
            "$ref": "#/$defs/api",
            "description": "A name of the catalogue; it stands for a service, its plan and what is known of them.",
        },
        "service": {"$ref": "#/$defs/text", "description": "Technical name of the service offering."},
        "plan": {"$ref": "#/$defs/text", "description": "Name of the service plan."},
        "runtime": {
            "type": "string",
            "enum": ["cloudfoundry", "other"],
            "description": "cloudfoundry: in a space; other: in the Service Manager. Never guessed.",
        },
        "name": {
            "$ref": "#/$defs/physical",
            "description": "The name on the platform, if it differs from the key of this map.",
        },
        "space": {
            "$ref": "#/$defs/referable",
            "description": "Cloud Foundry space, if it is not the subaccount's `cloud_foundry.space`.",
        },
        "parameters": {
            "$ref": "#/$defs/parameters",
            "description": "Handed to the broker when the instance is created or updated.",
        },
        "tags": {
            "type": "array",
            "items": {"$ref": "#/$defs/text"},
            "uniqueItems": True,
            "description": "Tags of the instance (Cloud Foundry only).",
        },
        "entitlement": {
            "type": "string",
            "enum": ["managed", "external"],
            "description": "managed: the plan is entitled along with the instance. external: others see to that.",
        },
        "protect": {
            "type": "boolean",
            "description": "true: never deleted or replaced. Default true for what cannot be had again.",
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
        "ignore": {"$ref": "#/$defs/ignore"},
        "keep_old_for": {
            "$ref": "#/$defs/duration",
            "description": "How long a superseded generation is kept. Default 7d.",
        },
        "owner_was": {
            "$ref": "#/$defs/name",
            "description": "The owner whose mark it carries now; it is marked as ours.",
        },
        "renamed_from": {
            "$ref": "#/$defs/name",
            "description": "The key of this map that it had before. It gets the new name, and is not made anew.",
        },
        "keys": {
            "type": "object",
            "description": "Its service keys (in runtime other: bindings), by name.",
            "propertyNames": {"$ref": "#/$defs/name"},
            "additionalProperties": {"$ref": "#/$defs/key"},
        },
    },
}

_HEAD = """\
version: 1
owner: finance-platform
name: instance-example
defaults: {runtime: cloudfoundry}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: finance-prod, space: apis}
    instances:
"""

EXAMPLES = (
    _HEAD
    + """\
      apim:
        api: api-management
        parameters: {role: APIPortal.Guest}
""",
    _HEAD
    + """\
      apim:
        api: api-management
        parameters: {role: APIPortal.Guest}
        tags: [apis]
""",
    _HEAD
    + """\
      apim:
        api: api-management
        parameters: {role: APIPortal.Administrator}
        tags: [apis]
""",
)


# --- comparing ------------------------------------------------------------------------------------------


def compare(resource: Resource, view: View) -> Change | None:
    """What must happen to one wanted instance."""
    service = SERVICE_OF_RUNTIME[resource.spec["runtime"]]
    if view.unseen(resource.address.subaccount, service):
        view.disputed.add(resource.address)
        return None
    place = _place(resource, view)
    change = live(resource, view, LIFE, place)
    if change is not None and _may_be_elsewhere(change, view):
        view.disputed.add(resource.address)
        return None
    makes = change is not None and (change.action in {Action.CREATE, Action.REPLACE} or "plan" in change.send)
    if change is None or not makes or change.gate:
        return change
    return _if_possible(change, resource, view, place)


def _may_be_elsewhere(change: Change, view: View) -> bool:
    """A new one, while the other runtime does not answer: perhaps it is there, and would be made twice."""
    fresh = change.action is Action.REPLACE or (change.action is Action.CREATE and change.found is None)
    return fresh and view.silent(change.address.subaccount)


def _place(resource: Resource, view: View) -> Place:
    if resource.spec["runtime"] == "other":
        return Place("other", None)
    space = view.space(resource.address.subaccount, resource.spec["space"])
    return Place("cloudfoundry", space.id if space else "", known=space is not None)


def _if_possible(change: Change, resource: Resource, view: View, place: Place) -> Change:
    """A creation waits for a person if its space or its plan cannot be had."""
    subaccount, service, plan = resource.address.subaccount, resource.spec["service"], resource.spec["plan"]
    if not place.known:
        foundry = view.wanted.subaccounts[subaccount].cloud_foundry
        org = foundry.org if foundry else "?"
        return _gate(
            change,
            f"there is no space {resource.spec['space']!r} in org {org!r}, or this user has no role in it: "
            "create the space, or make the user a space developer",
        )
    plans = view.plans(subaccount, place.runtime, service, plan)
    if len(plans) > 1:
        brokers = ", ".join(sorted(str(one.attributes.get("broker") or one.id) for one in plans))
        view.object(
            "plan/ambiguous",
            f"{service}/{plan} is offered more than once in {subaccount}: {brokers}",
            resource,
            "have all but one of them made invisible for this subaccount",
        )
    if plans and not any(one.attributes.get("available", True) for one in plans):
        return _gate(change, f"plan {service}/{plan} has been withdrawn: no new instance can be made of it")
    found = change.found
    seen = found is not None and found.runtime == place.runtime and _pair(found) == (service, plan)
    if plans or seen:
        return change
    return _without_plan(change, resource, view)


def _without_plan(change: Change, resource: Resource, view: View) -> Change:
    subaccount, service, plan = resource.address.subaccount, resource.spec["service"], resource.spec["plan"]
    entitled = view.changes.get(resource.requires[0]) if resource.requires else None
    if entitled is not None and not entitled.gate:
        return replace(change, notes=(*change.notes, f"waits until {service}/{plan} is in the marketplace"))
    if entitled is not None:
        return change
    unseen = view.unseen(subaccount, "entitlements")
    if not resource.requires:
        why = "entitlement: external leaves it to others to entitle the subaccount"
    elif unseen is None or unseen.code == "access/none":
        why = "there are no credentials here to entitle the subaccount (access.central): have somebody entitle it"
    else:
        why = "whether the subaccount can be entitled could not be seen"
    return _gate(change, f"plan {service}/{plan} is not in the marketplace of {subaccount}; {why}")


def _gate(change: Change, why: str) -> Change:
    return replace(change, action=Action.AWAIT, gate=why, retired=())


def _fields(resource: Resource, fact: Fact, view: View) -> tuple[FieldChange, ...]:
    """What differs, and what of the rest can be believed."""
    said, want = fact.attributes, resource.spec
    fields = []
    if fact.runtime != want["runtime"]:
        fields.append(FieldChange("runtime", fact.runtime, want["runtime"], forces_replace=True))
    elif want["runtime"] == "cloudfoundry" and said.get("space") != want["space"]:
        fields.append(FieldChange("space", said.get("space"), want["space"], forces_replace=True))
    if said.get("service") != want["service"]:
        fields.append(FieldChange("service", said.get("service"), want["service"], forces_replace=True))
    elif said.get("plan") != want["plan"]:
        fields.append(_plan_change(resource, fact, view))
    names = {resource.name, *({resource.adopt.name} if resource.adopt else ())}
    generation = fact.mark.generation if fact.mark else 1
    if fact.mark and not resource.adopt and fact.name not in {*names, resource.physical(generation)}:
        where = ("instance", fact.subaccount, fact.runtime, fact.parent)
        taken = (*where, resource.name) in view.named
        fields.append(
            FieldChange("name", fact.name, resource.physical(generation) if taken else resource.name)
        )
    if fact.runtime == "cloudfoundry" and sorted(said.get("tags") or ()) != sorted(want["tags"]):
        fields.append(FieldChange("tags", list(said.get("tags") or ()), list(want["tags"])))
    return (*fields, *parameter_fields(resource, fact, view))


def _plan_change(resource: Resource, fact: Fact, view: View) -> FieldChange:
    current = view.plans(
        fact.subaccount, fact.runtime, str(fact.attributes.get("service")), str(fact.attributes.get("plan"))
    )
    updateable = any(one.attributes.get("updateable") for one in current)
    note = "" if updateable else "the platform does not let an instance of this plan change its plan"
    return FieldChange(
        "plan", fact.attributes.get("plan"), resource.spec["plan"], forces_replace=not updateable, note=note
    )


def _wishes(resource: Resource) -> tuple[FieldChange, ...]:
    want = resource.spec
    said = {key: want[key] for key in ("service", "plan", "runtime", "space") if want[key]}
    if want["tags"]:
        said["tags"] = list(want["tags"])
    return (*(FieldChange(key, None, value) for key, value in said.items()), *wished(resource))


LIFE = Life(
    "instance",
    _fields,
    _wishes,
    immutable="that cannot be changed in place",
    anew=Action.REPLACE,
    retire_by_itself=False,
)


# --- both runtimes --------------------------------------------------------------------------------------


def _resources(wanted: Wanted, runtime: str, places: Sequence[Subaccount]) -> list[Resource]:
    names = {place.name for place in places}
    return [
        one
        for one in wanted.of("instance")
        if one.spec["runtime"] == runtime and one.address.subaccount in names
    ]


def _by_mark(facts: Sequence[Fact]) -> Mapping[tuple[str, str], list[Fact]]:
    """What carries a mark, by subaccount and logical name: whose it is must still be looked at."""
    found: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        if fact.mark is not None:
            found[fact.subaccount, fact.mark.name].append(fact)
    return found


def _marked_as(resource: Resource, ours: Mapping[tuple[str, str], list[Fact]]) -> list[Fact]:
    where = resource.address.subaccount
    return [fact for name in marks.known_as(resource) for fact in ours.get((where, name), ())]


def _lacking(resources: Sequence[Resource], facts: Sequence[Fact]) -> list[Resource]:
    """Those that may need a plan: nothing ready of ours is of the plan wanted."""
    found = []
    ours = _by_mark(facts)
    for resource in resources:
        fact = marks.newest(_marked_as(resource, ours), resource)
        settled = fact is not None and fact.phase is Phase.READY and _pair(fact) == _pair_of(resource)
        if not (settled or resource.absent or resource.observe_only):
            found.append(resource)
    return found


def _changing(resources: Sequence[Resource], facts: Sequence[Fact]) -> list[Fact]:
    """Instances whose plan is to change: whether it may is said by the plan they have now."""
    found = []
    ours = _by_mark(facts)
    for resource in resources:
        fact = marks.newest(_marked_as(resource, ours), resource) or _adoptable(resource, facts)
        if fact is not None and fact.phase is Phase.READY and _pair(fact) != _pair_of(resource):
            found.extend([fact] if fact.attributes["service"] == resource.spec["service"] else [])
    return found


def _adoptable(resource: Resource, facts: Sequence[Fact]) -> Fact | None:
    if resource.adopt is None:
        return None
    name = resource.adopt.name or resource.name
    for fact in facts:
        same = fact.id == resource.adopt.id if resource.adopt.id else fact.name == name
        if same and fact.kind == "instance" and fact.subaccount == resource.address.subaccount:
            return fact
    return None


def _pair(fact: Fact) -> tuple[str, str]:
    return (fact.attributes["service"], fact.attributes["plan"])


def _pair_of(resource: Resource) -> tuple[str, str]:
    return (resource.spec["service"], resource.spec["plan"])


def _the_plan(task: Task, offered: Sequence[Fact], service: str) -> Fact | None:
    """The one plan of a task among those offered; None while it is not visible."""
    wanted = given(task.wanted, service, f"what is wanted of {task.step.address}")
    matching = [
        one
        for one in offered
        if (one.attributes["service"], one.name) == _pair_of(wanted) and one.attributes["available"]
    ]
    if len(matching) > 1:
        said = f"{'/'.join(_pair_of(wanted))} is offered {len(matching)} times for {task.step.address}"
        raise PlatformError(Blame(service, message=said))
    return replace(matching[0], subaccount=task.subaccount.name) if matching else None


def _names_only(task: Task) -> bool:
    """Does an update change no more than what the instance is called? What its keys may do stays the same then."""
    return not {"parameters", "plan"} & set(task.spec)


# --- Cloud Foundry --------------------------------------------------------------------------------------

CF = "cloud_foundry"
_ALL: Query = (("per_page", "5000"),)
_EVENTS = (
    "audit.service_instance.create",
    "audit.service_instance.start_create",
    "audit.service_instance.start_update",
    "audit.service_instance.update",
    "audit.service_key.create",
    "audit.service_key.start_create",
    "audit.service_key.update",
)
"""What changes a thing that is there still (Cloud Foundry API v3, "Audit Event Types")."""
_INSTANCE_FIELDS: Query = (
    ("fields[service_plan]", "guid,name,relationships.service_offering"),
    ("fields[service_plan.service_offering]", "guid,name"),
    ("fields[space]", "guid,name,relationships.organization"),
    *_ALL,
)
_PLAN_FIELDS: Query = (
    ("include", "service_offering"),
    ("fields[service_offering.service_broker]", "guid,name"),
    *_ALL,
)


@dataclass(frozen=True)
class _Row:
    """One instance of a list, with the names of what it is made of."""

    item: Item
    id: str
    service: str
    plan: str
    plan_id: str
    space_id: str
    space: str
    org_id: str


class CloudFoundryInstances:
    """Service instances by the Cloud Controller's API v3."""

    service = CF
    batch = False
    replaces_failed = True

    def observe(
        self,
        door: Door,
        places: Sequence[Subaccount],
        wanted: Wanted,
        seen: Sequence[Fact],  # noqa: ARG002 - nothing before it matters to it
    ) -> Sequence[Fact]:
        resources = _resources(wanted, "cloudfoundry", places)
        spaces = _spaces(door, places, resources)
        instances = _instances(door, spaces)
        return (*spaces, *instances, *_wanted_plans(door, spaces, resources, instances))

    def everything(
        self,
        door: Door,
        place: Subaccount,
        seen: Sequence[Fact],  # noqa: ARG002 - nothing before it matters to it
    ) -> Sequence[Fact]:
        """All instances of the subaccount's org, in whatever space, as far as this user sees them."""
        org = place.cloud_foundry.org if place.cloud_foundry else ""
        spaces = [
            Fact(
                "space", "", "", place.name, attributes={"org_id": item.need("guid")}, runtime="cloudfoundry"
            )
            for page in door.pages("/v3/organizations", (("names", cf_list([org])), *_ALL))
            for item in rows(page, CF, "resources", "organization")
            if item.text("name") == org
        ]
        return _instances(door, spaces)

    def parameters(self, door: Door, fact: Fact) -> Any:
        """`GET …/parameters`: 400 where the offering says `instances_retrievable: false` (Cloud Foundry API v3)."""
        return door.get(f"/v3/service_instances/{quote(fact.id, safe='')}/parameters")

    def authors(self, door: Door, ids: Sequence[str], since: float) -> Mapping[str, Author]:
        """`GET /v3/audit_events`, newest first; of keys as well, whose events stand in the same list."""
        beside: Query = (
            ("types", cf_list(_EVENTS)),
            ("created_ats[gt]", record.moment(since)),
            ("order_by", "-created_at"),
            *_ALL,
        )
        found: dict[str, Author] = {}
        for some in batches(ids, lambda guid: (cf_term(guid),), beside):
            page = door.get("/v3/audit_events", (("target_guids", cf_list(some)), *beside))
            for item in rows(page, CF, "resources", "audit event"):
                actor = item.text("actor", "name") or item.text("actor", "guid")
                if actor:
                    author = Author(line(actor), line(item.text("type")), item.text("created_at"))
                    found.setdefault(item.text("target", "guid"), author)
        return found

    def create(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            about = str(task.step.address)
            space = given(task.parent, CF, f"the space of {about}")
            plan = given(task.plan, CF, f"the plan of {about}")
            body: dict[str, Any] = {
                "type": "managed",
                "name": task.step.name,
                "relationships": {
                    "space": {"data": {"guid": space.id}},
                    "service_plan": {"data": {"guid": plan.id}},
                },
            }
            if task.spec.get("tags"):
                body["tags"] = list(task.spec["tags"])
            if task.spec.get("parameters"):
                body["parameters"] = task.spec["parameters"]
            body["metadata"] = marks.cf_metadata(task, task.fingerprint)
            door.send("POST", "/v3/service_instances", body)

    def update(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            found = marks.target(task, CF)
            body: dict[str, Any] = {}
            if "name" in task.spec:
                body["name"] = task.spec["name"]
            if "tags" in task.spec:
                body["tags"] = list(task.spec["tags"])
            if "parameters" in task.spec:
                body["parameters"] = task.spec["parameters"]
            if "plan" in task.spec:
                plan = given(task.plan, CF, f"the new plan of {task.step.address}")
                body["relationships"] = {"service_plan": {"data": {"guid": plan.id}}}
            applied = ""
            if task.fingerprint and body:
                # Until the end of this operation is sealed, nobody may believe the record: the run can be cut short.
                applied = fingerprint.unsealed(
                    task.fingerprint, found.operation.at if found.operation else ""
                )
            # A new mark alone moves no operation: the record that is there stays as it is, and sealed.
            body["metadata"] = marks.cf_metadata(task, applied)
            door.send("PATCH", f"/v3/service_instances/{quote(found.id, safe='')}", body)

    def delete(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            door.send("DELETE", f"/v3/service_instances/{quote(marks.target(task, CF).id, safe='')}")

    def look(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact | None]:
        by_id, by_name = marks.by_id_or_name(tasks)
        result: dict[StepId, Fact | None] = {}
        for some in batches(by_id, lambda task: (cf_term(marks.target(task, CF).id),), _INSTANCE_FIELDS):
            guids = cf_list(marks.target(task, CF).id for task in some)
            rows_ = {row.id: row for row in _listed(door, ("guids", guids))}
            for task in some:
                row = rows_.get(marks.target(task, CF).id)
                result[task.step.id] = _seen(row, task) if row else None
        for some in batches(by_name, _name_and_space, _INSTANCE_FIELDS):
            names = cf_list(task.step.name for task in some)
            spaces = cf_list(_space_id(task) for task in some)
            found = list(_listed(door, ("names", names), ("space_guids", spaces)))
            for task in some:
                row = next((row for row in found if _made_by(row, task)), None)
                result[task.step.id] = _seen(row, task) if row else None
        return result

    def blockers(self, door: Door, task: Task) -> Sequence[str]:
        return tuple(held.in_cloud_foundry(door, marks.target(task, CF)))

    def prepare(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:
        together: dict[tuple[str, str], list[Task]] = defaultdict(list)
        for task in tasks:
            org = str(task.parent.attributes.get("org_id") or "") if task.parent else ""
            space = marks.target(task, CF).parent or "" if not org else ""
            together[("organization_guids", org) if org else ("space_guids", space)].append(task)
        result: dict[StepId, Fact] = {}
        for where, some in together.items():
            pairs = [
                _pair_of(given(task.wanted, CF, f"what is wanted of {task.step.address}")) for task in some
            ]
            offered = list(_offered(door, pairs, where))
            for task in some:
                plan = _the_plan(task, offered, CF)
                if plan is not None:
                    result[task.step.id] = plan
        return result

    def seal(self, door: Door, task: Task, fact: Fact) -> None:
        """The time of the operation that is over now, beside what it applied, or that it was about names alone."""
        annotations: dict[str, str] = {}
        if task.fingerprint and fact.operation:
            annotations[marks.ANNOTATION] = fingerprint.sealed(task.fingerprint, fact.operation.at)
        if fact.operation and task.found is not None and _names_only(task):
            said = record.named_text(fact.operation.at, task.found)
            annotations[marks.NOTE + record.ONLY_NAMED] = said
        if annotations:
            body = {"metadata": {"annotations": annotations}}
            door.send("PATCH", f"/v3/service_instances/{quote(fact.id, safe='')}", body)


def _spaces(door: Door, places: Sequence[Subaccount], resources: Sequence[Resource]) -> list[Fact]:
    """The spaces that anything stands in or may stand in, of all these subaccounts together."""
    homes = {place.cloud_foundry.space for place in places if place.cloud_foundry}
    names = sorted({name for name in (*homes, *(one.spec["space"] for one in resources)) if name})
    beside: Query = (("include", "organization"), *_ALL)
    found: list[Fact] = []
    for some in batches(names, lambda name: (cf_term(name),), beside):
        for page in door.pages("/v3/spaces", (("names", cf_list(some)), *beside)):
            orgs = _included(page, "organizations")
            for item in rows(page, CF, "resources", "space"):
                org_id = item.need("relationships", "organization", "data", "guid")
                org = orgs[org_id].need("name") if org_id in orgs else ""
                attributes = {"org": org, "org_id": org_id}
                found.extend(
                    Fact(
                        "space",
                        item.need("guid"),
                        item.need("name"),
                        place.name,
                        attributes=attributes,
                        created_at=item.text("created_at"),
                        runtime="cloudfoundry",
                    )
                    for place in places
                    if place.cloud_foundry and org and place.cloud_foundry.org == org
                )
    return found


def _instances(door: Door, spaces: Sequence[Fact]) -> list[Fact]:
    """All instances of these orgs. What is shared into them from elsewhere is not theirs."""
    places: dict[str, list[str]] = defaultdict(list)
    for space in spaces:
        if space.subaccount not in places[space.attributes["org_id"]]:
            places[space.attributes["org_id"]].append(space.subaccount)
    found: dict[tuple[str, str], Fact] = {}
    for some in batches(places, lambda guid: (cf_term(guid),), _INSTANCE_FIELDS):
        for row in _listed(door, ("organization_guids", cf_list(some))):
            for name in places.get(row.org_id, ()):
                found[name, row.id] = _cf_fact(row, name)
    return list(found.values())


def _listed(door: Door, *filters: tuple[str, str]) -> Iterator[_Row]:
    for page in door.pages("/v3/service_instances", (*filters, *_INSTANCE_FIELDS)):
        plans, offerings = _included(page, "service_plans"), _included(page, "service_offerings")
        spaces = _included(page, "spaces")
        for item in rows(page, CF, "resources", "service instance"):
            service, plan, plan_id = "", "", ""
            if item.text("type") != "user-provided":
                plan_id = item.need("relationships", "service_plan", "data", "guid")
                if plan_id not in plans:
                    raise item.unclear("is of a plan that is not in the answer")
                plan = plans[plan_id].need("name")
                offering = plans[plan_id].need("relationships", "service_offering", "data", "guid")
                if offering not in offerings:
                    raise item.unclear("is of a service that is not in the answer")
                service = offerings[offering].need("name")
            space_id = item.need("relationships", "space", "data", "guid")
            space = spaces.get(space_id) or Item({}, CF, "a space")
            org = space.text("relationships", "organization", "data", "guid")
            yield _Row(item, item.need("guid"), service, plan, plan_id, space_id, space.text("name"), org)


def _included(page: object, name: str) -> dict[str, Item]:
    return {one.need("guid"): one for one in Item(page, CF, "a list").items("included", name)}


def _cf_fact(row: _Row, subaccount: str) -> Fact:
    item, operation = row.item, marks.cf_operation(row.item)
    provided = not row.plan_id
    return Fact(
        "instance",
        row.id,
        item.need("name"),
        subaccount,
        marks.cf_phase(operation, frozenset({"create"})),
        {
            "service": row.service,
            "plan": row.plan,
            "plan_id": row.plan_id,
            "space": row.space,
            "tags": item.texts("tags"),
        },
        row.space_id,
        None if provided else marks.read(marks.CLOUD_FOUNDRY, marks.cf_texts(item, "metadata", "labels")),
        "it is a user-provided instance" if provided else "",
        marks.cf_texts(item, "metadata", "annotations").get(marks.ANNOTATION, ""),
        operation,
        item.text("created_at"),
        "cloudfoundry",
        marks.detail(operation),
        marks.notes(marks.NOTE, marks.cf_texts(item, "metadata", "annotations")),
    )


def _seen(row: _Row, task: Task) -> Fact:
    fact = _cf_fact(row, task.subaccount.name)
    return marks.after_delete(fact, task.found) if task.step.verb is Verb.DELETE else fact


def _space_id(task: Task) -> str:
    return given(task.parent, CF, f"the space of {task.step.address}").id


def _name_and_space(task: Task) -> tuple[str, str]:
    return cf_term(task.step.name), cf_term(_space_id(task))


def _made_by(row: _Row, task: Task) -> bool:
    """Is it what the task asked for? A failed leftover that was there before is not."""
    before = task.found
    same = row.item.text("name") == task.step.name and row.space_id == _space_id(task)
    return same and (before is None or row.id != before.id)


def _wanted_plans(
    door: Door, spaces: Sequence[Fact], resources: Sequence[Resource], instances: Sequence[Fact]
) -> Iterator[Fact]:
    """Plans of what must be made, one request per org; and the present plans of what is to change its plan."""
    orgs = {space.subaccount: space.attributes["org_id"] for space in spaces}
    lacking = [one for one in _lacking(resources, instances) if one.address.subaccount in orgs]
    for org in dict.fromkeys(orgs[one.address.subaccount] for one in lacking):
        pairs: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for one in lacking:
            if orgs[one.address.subaccount] == org:
                pairs[one.address.subaccount].add(_pair_of(one))
        for plan in _offered(door, sorted(set().union(*pairs.values())), ("organization_guids", org)):
            for name, wanted in pairs.items():
                if (plan.attributes["service"], plan.name) in wanted:
                    yield replace(plan, subaccount=name)
    present: dict[str, set[str]] = defaultdict(set)
    for fact in _changing(lacking, instances):
        present[fact.attributes["plan_id"]].add(fact.subaccount)
    for some in batches(sorted(present), lambda guid: (cf_term(guid),), _PLAN_FIELDS):
        for plan in _plans(door, ("guids", cf_list(some))):
            yield from (replace(plan, subaccount=name) for name in sorted(present[plan.id]))


def _offered(door: Door, pairs: Iterable[tuple[str, str]], where: tuple[str, str]) -> Iterator[Fact]:
    """These plans (service, plan) as far as they can be used there; several of one name if there are."""
    wanted = list(dict.fromkeys(pairs))
    beside = (where, *_PLAN_FIELDS)
    for some in batches(wanted, lambda pair: (cf_term(pair[1]), cf_term(pair[0])), beside):
        names = ("names", cf_list(plan for _, plan in some))
        services = ("service_offering_names", cf_list(service for service, _ in some))
        for plan in _plans(door, names, services, where):
            if (plan.attributes["service"], plan.name) in some:
                yield plan


def _plans(door: Door, *filters: tuple[str, str]) -> Iterator[Fact]:
    for page in door.pages("/v3/service_plans", (*filters, *_PLAN_FIELDS)):
        offerings, brokers = _included(page, "service_offerings"), _included(page, "service_brokers")
        for item in rows(page, CF, "resources", "service plan"):
            offering = offerings.get(item.need("relationships", "service_offering", "data", "guid"))
            if offering is None:
                raise item.unclear("is of a service that is not in the answer")
            attributes: dict[str, Any] = {"service": offering.need("name")}
            broker = brokers.get(offering.text("relationships", "service_broker", "data", "guid"))
            if broker is not None:
                attributes["broker"] = broker.text("name")
            attributes["available"] = item.flag("available") is not False
            for name, feature in (("updateable", "plan_updateable"), ("bindable", "bindable")):
                own = item.flag("broker_catalog", "features", feature)
                said = offering.flag("broker_catalog", "features", feature) if own is None else own
                attributes[name] = feature == "bindable" if said is None else said
            yield Fact(
                "plan",
                item.need("guid"),
                item.need("name"),
                "",
                attributes=attributes,
                runtime="cloudfoundry",
            )


# --- Service Manager ------------------------------------------------------------------------------------

SM = "service_manager"
_SM_INSTANCES = "/v1/service_instances"
_NAMED = marks.SERVICE_MANAGER + record.ONLY_NAMED
_OPERATIONS: Query = (("attach_last_operations", "true"),)


class ServiceManagerInstances:
    """Service instances of the runtime `other`, by the Service Manager's API v1."""

    service = SM
    batch = False
    replaces_failed = False

    def observe(
        self,
        door: Door,
        places: Sequence[Subaccount],
        wanted: Wanted,
        seen: Sequence[Fact],  # noqa: ARG002 - nothing before it matters to it
    ) -> Sequence[Fact]:
        found: list[Fact] = []
        for place in places:
            marks.sm_belongs(door.tenant(), place)
            found.extend(_observed_at(door, place, wanted))
        return found

    def everything(
        self,
        door: Door,
        place: Subaccount,
        seen: Sequence[Fact],  # noqa: ARG002 - nothing before it matters to it
    ) -> Sequence[Fact]:
        """All instances of the subaccount; of a plan that this key does not see, without its names."""
        marks.sm_belongs(door.tenant(), place)
        items = [
            item
            for page in door.pages(_SM_INSTANCES, _OPERATIONS)
            for item in rows(page, SM, "items", "service instance")
            if item.text("platform_id") in {"", "service-manager"}
        ]
        market = _Market(door)
        market.know(items)
        return [_sm_fact(item, market, place, strict=False) for item in items]

    def parameters(self, door: Door, fact: Fact) -> Any:
        """`GET …/parameters`: 400 where the offering says `instances_retrievable: false` (Service Manager API v1)."""
        return door.get(f"{_SM_INSTANCES}/{quote(fact.id, safe='')}/parameters")

    def create(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            plan = given(task.plan, SM, f"the plan of {task.step.address}")
            labels = marks.sm_wanted(task)
            labels[marks.PLAN] = f"{plan.attributes['service']}/{plan.name}/{plan.id}"
            if task.fingerprint:
                labels[marks.PARAMETERS] = task.fingerprint
            body: dict[str, Any] = {"name": task.step.name, "service_plan_id": plan.id}
            if task.spec.get("parameters"):
                body["parameters"] = task.spec["parameters"]
            body["labels"] = {key: [value] for key, value in labels.items()}
            door.send("POST", _SM_INSTANCES, body, (("async", "true"),))

    def update(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            found = marks.target(task, SM)
            labels = marks.sm_wanted(task)
            service, plan_name, plan_id = (
                found.attributes.get(key) for key in ("service", "plan", "plan_id")
            )
            body: dict[str, Any] = {key: task.spec[key] for key in ("name", "parameters") if key in task.spec}
            if "plan" in task.spec:
                plan = given(task.plan, SM, f"the new plan of {task.step.address}")
                body["service_plan_id"] = plan_id = plan.id
                service, plan_name = plan.attributes["service"], plan.name
            labels[marks.PLAN] = f"{service}/{plan_name}/{plan_id}"
            if task.fingerprint:
                labels[marks.PARAMETERS] = fingerprint.near(task.fingerprint, door.now())
            there = found.attributes.get("labels", {})
            changes = marks.label_changes(there, labels)
            if _names_only(task):
                if body or changes:  # every request is an operation here, also one that changes labels alone
                    said = {_NAMED: record.named_text(record.moment(door.now()), found)}
                    changes.extend(marks.label_changes(there, said))
            elif _NAMED in there:
                changes.append({"op": "remove", "key": _NAMED})
            if changes:
                body["labels"] = changes
            if body:
                door.send("PATCH", f"{_SM_INSTANCES}/{quote(found.id, safe='')}", body, (("async", "true"),))

    def delete(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            path = f"{_SM_INSTANCES}/{quote(marks.target(task, SM).id, safe='')}"
            door.send("DELETE", path, query=(("async", "true"),))

    def look(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact | None]:
        by_id, by_name = marks.by_id_or_name(tasks)
        found: dict[str, Item] = {}
        for some in batches(by_id, lambda task: (sm_term(marks.target(task, SM).id),), _OPERATIONS):
            found.update(_sm_listed(door, sm_in("id", (marks.target(task, SM).id for task in some))))
        for some in batches(by_name, lambda task: (sm_term(task.step.name),), _OPERATIONS):
            found.update(_sm_listed(door, sm_in("name", (task.step.name for task in some))))
        market = _Market(door, tasks)
        mine = {task.step.id: _of_task(found, task) for task in tasks}
        market.know(item for item in mine.values() if item is not None)
        return {task.step.id: _sm_seen(mine[task.step.id], market, task) for task in tasks}

    def blockers(self, door: Door, task: Task) -> Sequence[str]:
        return tuple(held.in_service_manager(door, marks.target(task, SM)))

    def prepare(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:
        wanted = [
            _pair_of(given(task.wanted, SM, f"what is wanted of {task.step.address}")) for task in tasks
        ]
        offered = _Market(door).offered(wanted)
        plans = {task.step.id: _the_plan(task, offered, SM) for task in tasks}
        return {step: plan for step, plan in plans.items() if plan is not None}

    def seal(self, door: Door, task: Task, fact: Fact) -> None:
        """Nothing to do: its operations carry the time of the request, which the record names already."""


class _Market:
    """Plans and offerings of one Service Manager. Each is asked for once, and only if its names are not known."""

    def __init__(self, door: Door, tasks: Sequence[Task] = ()) -> None:
        self._door = door
        self._plans: dict[str, Item] = {}
        self._offerings: dict[str, Item] = {}
        self._names: dict[str, tuple[str, str]] = {}
        for task in tasks:
            if task.plan is not None:
                self._names[task.plan.id] = (task.plan.attributes["service"], task.plan.name)
            found = task.found
            if found is not None and found.attributes.get("plan_id"):
                self._names[found.attributes["plan_id"]] = _pair(found)

    def know(self, items: Iterable[Item]) -> None:
        """Learn the names of service and plan of these instances."""
        unknown: dict[str, None] = {}
        for item in items:
            plan_id = item.need("service_plan_id")
            recorded = _recorded(item)
            if recorded is not None:
                self._names.setdefault(plan_id, recorded)
            elif plan_id not in self._names:
                unknown[plan_id] = None
        missing = [plan_id for plan_id in unknown if plan_id not in self._names]
        for some in batches(missing, lambda plan_id: (sm_term(plan_id),)):
            self._fetch_plans(sm_in("id", some))
        self._fetch_offerings("id", self._offerings_of(missing))
        for plan_id in missing:
            if plan_id in self._plans:
                self._names[plan_id] = self._pair(self._plans[plan_id])

    def names(self, item: Item, *, strict: bool = True) -> tuple[str, str]:
        """Service and plan of an instance; not `strict`: two empty texts where they cannot be named."""
        known = self._names.get(item.need("service_plan_id"))
        if known is None and not strict:
            return "", ""
        if known is None:
            raise item.unclear("is of a plan that is not visible to this key, so it cannot be named")
        return known

    def offered(self, pairs: Iterable[tuple[str, str]], present: Iterable[Fact] = ()) -> list[Fact]:
        """These plans (service, plan) as far as they are visible; and those that some instances have now."""
        wanted = set(pairs)
        kept = {one.attributes["plan_id"]: _pair(one) for one in present}
        both = sorted(wanted | set(kept.values()))
        self._fetch_offerings("catalog_name", [service for service, _ in both])
        ids: dict[str, list[str]] = defaultdict(list)
        for one, item in self._offerings.items():
            ids[_catalogue_name(item)].append(one)
        visible = [pair for pair in both if pair[0] in ids]
        for some in batches(visible, lambda pair: (sm_term(pair[1]), *map(sm_term, ids[pair[0]]))):
            of = sm_in("service_offering_id", (one for service, _ in some for one in ids[service]))
            self._fetch_plans(f"{sm_in('catalog_name', (plan for _, plan in some))} and {of}")
        found = []
        for plan_id, item in self._plans.items():
            known = item.need("service_offering_id") in self._offerings
            if known and (plan_id in kept or self._pair(item) in wanted):
                found.append(self._fact(plan_id, item))
        return found

    def _fact(self, plan_id: str, item: Item) -> Fact:
        service, name = self._pair(item)
        offering = self._offerings[item.need("service_offering_id")]
        attributes: dict[str, Any] = {"service": service, "available": True}
        for key, field in (("updateable", "plan_updateable"), ("bindable", "bindable")):
            said = offering.flag(field) if item.flag(field) is None else item.flag(field)
            attributes[key] = field == "bindable" if said is None else said
        return Fact("plan", plan_id, name, "", attributes=attributes, runtime="other")

    def _pair(self, plan: Item) -> tuple[str, str]:
        offering = self._offerings.get(plan.need("service_offering_id"))
        if offering is None:
            raise plan.unclear("is of a service that is not listed")
        return _catalogue_name(offering), _catalogue_name(plan)

    def _offerings_of(self, plan_ids: Iterable[str]) -> list[str]:
        wanted = {self._plans[one].need("service_offering_id") for one in plan_ids if one in self._plans}
        return sorted(wanted - set(self._offerings))

    def _fetch_offerings(self, field: str, values: Iterable[str]) -> None:
        for some in batches(dict.fromkeys(values), lambda value: (sm_term(value),)):
            query = (("fieldQuery", sm_in(field, some)),)
            for page in self._door.pages("/v1/service_offerings", query):
                self._offerings.update(
                    (one.need("id"), one) for one in rows(page, SM, "items", "service offering")
                )

    def _fetch_plans(self, criteria: str) -> None:
        for page in self._door.pages("/v1/service_plans", (("fieldQuery", criteria),)):
            self._plans.update((one.need("id"), one) for one in rows(page, SM, "items", "service plan"))


def _observed_at(door: Door, place: Subaccount, wanted: Wanted) -> list[Fact]:
    """What carries the mark of an owner of these specs; and by name only what is wanted and not among it."""
    resources = _resources(wanted, "other", [place])
    items: dict[str, Item] = {}
    for some in batches(marks.owners(wanted), lambda owner: (sm_term(owner),), _OPERATIONS):
        items.update(_sm_listed(door, sm_in(marks.OWNER, some), "labelQuery"))
    carried = [_sm_mark(item) for item in items.values()]
    missing = [one for one in resources if not any(marks.names(mark, one) for mark in carried)]
    by_id = [one.adopt.id for one in missing if one.adopt and one.adopt.id]
    by_name = [
        (one.adopt.name if one.adopt else None) or one.name
        for one in missing
        if not (one.adopt and one.adopt.id)
    ]
    for field, values in (("name", by_name), ("id", by_id)):
        for some in batches(dict.fromkeys(values), lambda value: (sm_term(value),), _OPERATIONS):
            items.update(_sm_listed(door, sm_in(field, some)))
    market = _Market(door)
    market.know(items.values())
    found = [_sm_fact(item, market, place) for item in items.values()]
    lacking = _lacking(resources, found)
    plans = market.offered(map(_pair_of, lacking), _changing(lacking, found)) if lacking else []
    return [*found, *(replace(plan, subaccount=place.name) for plan in plans)]


def _sm_listed(door: Door, criteria: str, query: str = "fieldQuery") -> dict[str, Item]:
    """Instances of this Service Manager. What another platform made through it has names of its own."""
    return {
        item.need("id"): item
        for page in door.pages(_SM_INSTANCES, ((query, criteria), *_OPERATIONS))
        for item in rows(page, SM, "items", "service instance")
        if item.text("platform_id") in {"", "service-manager"}
    }


def _sm_mark(item: Item) -> Mark | None:
    return marks.read(marks.SERVICE_MANAGER, marks.single(marks.sm_labels(item)))


def _recorded(item: Item) -> tuple[str, str] | None:
    """Service and plan as they were written down, if the instance is still of that plan."""
    for value in marks.sm_labels(item).get(marks.PLAN, ()):
        service, _, rest = value.partition("/")
        plan, _, plan_id = rest.rpartition("/")
        if service and plan and plan_id == item.text("service_plan_id"):
            return service, plan
    return None


def _catalogue_name(item: Item) -> str:
    return item.text("catalog_name") or item.need("name")


def _sm_fact(item: Item, market: _Market, place: Subaccount, *, strict: bool = True) -> Fact:
    marks.sm_belongs(item.text("subaccount_id"), place)
    labels = marks.sm_labels(item)
    operation = marks.sm_operation(item)
    service, plan = market.names(item, strict=strict)
    return Fact(
        "instance",
        item.need("id"),
        item.need("name"),
        place.name,
        marks.sm_phase(operation, item.flag("ready")),
        {
            "service": service,
            "plan": plan,
            "plan_id": item.need("service_plan_id"),
            "labels": marks.our_labels(labels),
        },
        None,
        _sm_mark(item),
        marks.foreign(labels),
        marks.single(labels).get(marks.PARAMETERS, ""),
        operation,
        moment(item.text("created_at")),
        "other",
        marks.detail(operation),
        marks.notes(marks.SERVICE_MANAGER, marks.single(labels)),
    )


def _of_task(found: Mapping[str, Item], task: Task) -> Item | None:
    before = task.found
    if task.step.verb is not Verb.CREATE and before is not None:
        return found.get(before.id)
    for item in found.values():
        if item.text("name") == task.step.name and (before is None or item.text("id") != before.id):
            return item
    return None


def _sm_seen(item: Item | None, market: _Market, task: Task) -> Fact | None:
    if item is None:
        return None
    fact = _sm_fact(item, market, task.subaccount)
    return marks.after_delete(fact, task.found) if task.step.verb is Verb.DELETE else fact


KIND = Kind(
    name="instance",
    title="a service instance on Cloud Foundry or in the Service Manager",
    schema=SCHEMA,
    drivers={"cloudfoundry": CloudFoundryInstances(), "other": ServiceManagerInstances()},
    examples=EXAMPLES,
    immutable=("service", "runtime", "space"),
    compare=compare,
)
