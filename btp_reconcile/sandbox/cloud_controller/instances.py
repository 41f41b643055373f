"""Service instances: reading them, and the order in which Cloud Controller checks a change.

Sources: cloudfoundry/cloud_controller_ng app/controllers/v3/service_instances_controller.rb, app/messages/
service_instance_*_message.rb, app/actions/v3/service_instance_*.rb, app/presenters/v3/service_instance_presenter.rb;
recorded answers of an SAP landscape (cloudfoundry/terraform-provider-cloudfoundry,
fixtures/resource_service_instance_managed.yaml, datasource_service_instances.yaml).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox import brokers
from btp_reconcile.sandbox.cloud_controller import (
    audit_events,
    bodies,
    catalogue,
    jobs,
    lists,
    metadata,
    places,
    quotas,
)
from btp_reconcile.sandbox.cloud_controller.basics import (
    APPS,
    INSTANCES,
    KEYS,
    ORGANIZATIONS,
    ROUTE_BINDINGS,
    SPACES,
    Call,
    Row,
    endpoint,
    error,
    not_authorized,
    not_found,
    operation_in_progress,
    rails_json,
    unknown_error,
    unprocessable,
)
from btp_reconcile.sandbox.http import Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from btp_reconcile.sandbox.http import Router
    from btp_reconcile.sandbox.world import World

FILTERS = (
    "type",
    "fields",
    "names",
    "space_guids",
    "organization_guids",
    "service_plan_guids",
    "service_plan_names",
)
OFFERING = "service_plan.service_offering"
BROKER = "service_plan.service_offering.service_broker"
LIST_FIELDS = {
    "space": ("guid", "name", "relationships.organization"),
    "space.organization": ("name", "guid"),
    "service_plan": ("guid", "name", "relationships.service_offering"),
    OFFERING: ("name", "guid", "description", "documentation_url", "tags", "relationships.service_broker"),
    BROKER: ("name", "guid"),
}
SINGLE_FIELDS = {
    "space": ("name", "guid"),
    "space.organization": ("name", "guid"),
    "service_plan": ("name", "guid"),
    OFFERING: ("name", "guid", "description", "tags", "documentation_url"),
    BROKER: ("name", "guid"),
}
SHARED_FIELDS = {
    "space": ("guid", "name", "relationships.organization"),
    "space.organization": ("name", "guid"),
}
TYPES = ("managed", "user-provided")
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
BUSY = ("initial", "in progress")


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def readable(call: Call) -> dict[str, Row]:
    """The instances in spaces that the caller reads, or shared into them."""
    spaces = call.spaces
    return {
        guid: row
        for guid, row in call.rows(INSTANCES).items()
        if row["landscape"] == call.landscape
        and (row["space"] in spaces or any(space in spaces for space in row["shared"]))
    }


def get(call: Call, guid: str) -> Row:
    """One readable instance; 404 otherwise."""
    row: Row | None = call.rows(INSTANCES).get(guid)
    if row is not None and row["landscape"] == call.landscape:
        spaces = call.spaces
        if row["space"] in spaces or any(space in spaces for space in row["shared"]):
            return row
    raise not_found("Service instance")


def show(call: Call, row: Row, listed: Mapping[str, catalogue.ListedPlan] | None = None) -> dict[str, Any]:
    """One instance, members in the order of a real answer."""
    api, guid = call.api, row["guid"]
    base = f"{api}/v3/service_instances/{guid}"
    last = row["last_operation"] or {}
    shown: dict[str, Any] = {
        "guid": guid,
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "name": row["name"],
        "tags": row["tags"],
        "last_operation": last,
        "type": row["type"],
    }
    relationships = {"space": {"data": {"guid": row["space"]}}}
    links = {
        "self": {"href": base},
        "space": {"href": f"{api}/v3/spaces/{row['space']}"},
        "service_credential_bindings": {
            "href": f"{api}/v3/service_credential_bindings?service_instance_guids={guid}"
        },
        "service_route_bindings": {"href": f"{api}/v3/service_route_bindings?service_instance_guids={guid}"},
    }
    if row["type"] == "managed":
        plan = (listed if listed is not None else catalogue.plans(call.world, call.landscape)).get(
            row["plan_guid"]
        )
        offered = dict(plan.plan.maintenance_info) if plan else {}
        shown["maintenance_info"] = row["maintenance_info"]
        shown["upgrade_available"] = row["maintenance_info"].get("version") != offered.get("version")
        shown["dashboard_url"] = row["dashboard_url"]
        relationships["service_plan"] = {"data": {"guid": row["plan_guid"]}}
        links["service_plan"] = {"href": f"{api}/v3/service_plans/{row['plan_guid']}"}
        links["parameters"] = {"href": f"{base}/parameters"}
        links["shared_spaces"] = {"href": f"{base}/relationships/shared_spaces"}
    else:
        shown["syslog_drain_url"] = row["syslog_drain_url"]
        shown["route_service_url"] = row["route_service_url"]
        links["credentials"] = {"href": f"{base}/credentials"}
    shown["relationships"] = relationships
    shown["metadata"] = metadata.shown(row)
    shown["links"] = links
    return shown


def included(call: Call, query: lists.Query, rows: Iterable[Row]) -> dict[str, Any]:
    """What ``fields[...]`` asked for besides the instances, each with only the keys asked for."""
    if not query.fields:
        return {}
    rows = list(rows)
    every = catalogue.plans(call.world, call.landscape)
    plans = [every[guid] for guid in dict.fromkeys(row["plan_guid"] for row in rows) if guid in every]
    result = spaces_included(call, query, [row["space"] for row in rows])
    if "service_plan" in query.fields:
        result["service_plans"] = [
            _picked(
                query.fields["service_plan"],
                {"guid": plan.guid, "name": plan.plan.name},
                service_offering=plan.offering_guid,
            )
            for plan in plans
        ]
    if OFFERING in query.fields:
        offerings = {plan.offering_guid: plan.offering for plan in plans}
        result["service_offerings"] = [
            _picked(
                query.fields[OFFERING],
                {
                    "name": offering.name,
                    "guid": guid,
                    "description": offering.description,
                    "documentation_url": offering.metadata.get("documentationUrl") or "",
                    "tags": list(offering.tags),
                },
                service_broker=catalogue.broker_guid(call),
            )
            for guid, offering in offerings.items()
        ]
    if BROKER in query.fields:
        result["service_brokers"] = [catalogue.show_broker(call, query.fields[BROKER])] if plans else []
    return result


def _picked(keys: Iterable[str], whole: Mapping[str, Any], **relationships: str) -> dict[str, Any]:
    keys = set(keys)
    picked = {key: value for key, value in whole.items() if key in keys}
    for name, guid in relationships.items():
        if f"relationships.{name}" in keys:
            picked["relationships"] = {name: {"data": {"guid": guid}}}
    return picked


def spaces_included(call: Call, query: lists.Query, guids: Iterable[str]) -> dict[str, Any]:
    """Spaces and their organisations, as far as ``fields[...]`` asked for them."""
    result: dict[str, Any] = {}
    spaces = [call.rows(SPACES)[guid] for guid in dict.fromkeys(guids)]
    if "space" in query.fields:
        result["spaces"] = [
            _picked(
                query.fields["space"],
                {"guid": space["guid"]} | ({"name": space["name"]} if space["guid"] in call.spaces else {}),
                organization=space["organization"],
            )
            for space in spaces
        ]
    if "space.organization" in query.fields:
        organizations = dict.fromkeys(space["organization"] for space in spaces)
        table = call.rows(ORGANIZATIONS)
        result["organizations"] = [
            _picked(query.fields["space.organization"], {"name": table[guid]["name"], "guid": guid})
            for guid in organizations
        ]
    return result


def _list(call: Call) -> Response:
    query = lists.read(call, FILTERS, fields=LIST_FIELDS, choices={"type": TYPES})
    spaces = call.rows(SPACES)
    filters = query.filters
    rows = list(readable(call).values())
    if "space_guids" in filters:
        wanted = set(filters["space_guids"])
        rows = [row for row in rows if row["space"] in wanted or not wanted.isdisjoint(row["shared"])]
    if "organization_guids" in filters:
        wanted = set(filters["organization_guids"])
        rows = [
            row
            for row in rows
            if any(spaces[guid]["organization"] in wanted for guid in (row["space"], *row["shared"]))
        ]
    for name, column in (
        ("names", "name"),
        ("type", "type"),
        ("service_plan_guids", "plan_guid"),
        ("service_plan_names", "plan"),
    ):
        if name in filters:
            values = set(filters[name])
            rows = [row for row in rows if row[column] in values]
    rows = lists.arranged(query, [row for row in rows if query.selects(row)])
    page = lists.cut(query, rows)
    listed = catalogue.plans(call.world, call.landscape)
    answer = lists.page(
        query, len(rows), [show(call, row, listed) for row in page], included(call, query, page)
    )
    jobs.look_at(call.world, [row["guid"] for row in page])
    return answer


def _one(call: Call, guid: str) -> Response:
    query = lists.read(call, ("fields",), single=True, fields=SINGLE_FIELDS)
    row = get(call, guid)
    shown = show(call, row)
    more = included(call, query, [row])
    if more:
        shown["included"] = more
    answer = rails_json(shown)
    jobs.look_at_one(call.world, guid)
    return answer


# ----------------------------------------------------------------------------------------------------------------------
# Creating


def _create(call: Call) -> Response:
    body = call.body()
    if not places.flag(call, "service_instance_creation") and not call.caller.admin:
        raise error(403, 330002, "FeatureDisabled", "Feature Disabled: service_instance_creation")
    kind = body.get("type")
    managed = kind == "managed"
    common = ("type", "name", "relationships", "tags", "metadata")
    if kind in TYPES:
        names = ("space", "service_plan") if managed else ("space",)
        own = ("parameters",) if managed else ("credentials", "syslog_drain_url", "route_service_url")
        problems = [
            *bodies.unknown_fields(body, (*common, *own)),
            *bodies.name_problems(body),
            *bodies.tag_problems(body),
            *bodies.relationship_problems(body, *names),
            *(bodies.parameter_problems(body) if managed else bodies.user_provided_problems(body)),
        ]
    else:
        problems = ["Type must be one of 'managed', 'user-provided'", *bodies.name_problems(body)]
        if not isinstance(body.get("relationships"), dict):
            problems.insert(0, "Relationships 'relationships' is not an object")
    bodies.refuse(problems + metadata.problems(body))
    space_guid = bodies.related(body, "space") or ""
    if space_guid not in call.spaces:
        raise unprocessable("Invalid space. Ensure that the space exists and you have access to it.")
    call.must_develop(space_guid)
    listed = _plan_for_new(call, body, space_guid) if managed else None
    name = str(body["name"]).strip()
    if len(name) > 255:
        raise unprocessable("name max_length")
    if sum(len(tag) for tag in body.get("tags") or []) > 2048:
        raise unprocessable("tags too_long")
    if listed is not None:
        quotas.check_instance(call, space_guid, listed)
    _free_name(call, space_guid, name, stop=".")
    row = new_row(call.world, call.rows(SPACES)[space_guid], name, listed)
    row["tags"] = list(body.get("tags") or [])
    row.update(metadata.merge(call, row, body))
    call.world.table(INSTANCES)[row["guid"]] = row
    if listed is None:
        for key in ("credentials", "syslog_drain_url", "route_service_url"):
            row[key] = body.get(key)
        row["last_operation"] = jobs.last_operation(call.world, "create", "succeeded", "Operation succeeded")
        audit_events.record(call.world, "create", row, call.actor, body)
        return rails_json(show(call, row), 201)
    row["last_operation"] = jobs.last_operation(call.world, "create", "initial")
    payload = {"parameters": body.get("parameters")}
    job = jobs.start(call.world, "service_instance.create", row, payload, by=call.actor, asked=body)
    return call.accepted(job)


def new_row(
    world: World, space: Row, name: str, listed: catalogue.ListedPlan | None, guid: str | None = None
) -> Row:
    """The row of a new instance; without a plan it is a user-provided one."""
    return {
        "guid": guid or world.new_id(),
        "created_at": world.stamp(),
        "updated_at": world.stamp(),
        "name": name,
        "type": "managed" if listed else "user-provided",
        "tags": [],
        "landscape": space["landscape"],
        "space": space["guid"],
        "shared": [],
        "offering": listed.offering.name if listed else None,
        "plan": listed.plan.name if listed else None,
        "plan_guid": listed.guid if listed else None,
        "maintenance_info": dict(listed.plan.maintenance_info) if listed else {},
        "dashboard_url": None,
        "credentials": None,
        "syslog_drain_url": None,
        "route_service_url": None,
        "labels": {},
        "annotations": {},
        "last_operation": None,
    }


def _plan_for_new(call: Call, body: Mapping[str, Any], space_guid: str) -> catalogue.ListedPlan:
    listed = catalogue.must_see(call, bodies.related(body, "service_plan") or "")
    space = call.rows(SPACES)[space_guid]
    which = f"'{listed.plan.name}' with guid '{listed.guid}'"
    if not listed.available:
        raise unprocessable(
            f"Invalid service plan. The service plan {which} has been removed from the service broker's catalog. "
            "It is not possible to create new service instances using this plan."
        )
    if not catalogue.enabled(call, listed, call.organization_of(space)):
        raise unprocessable(
            "Invalid service plan. This could be due to a space-scoped broker which is offering the service plan "
            f"{which} in another space or that the plan is not enabled in this organization. Ensure that the "
            f"service plan is visible in your current space '{space['name']}' with guid '{space_guid}'."
        )
    if call.settings["brokers_busy"]:
        raise unprocessable(
            "The service instance cannot be created because there is an operation in progress for the service broker."
        )
    return listed


def _named(call: Call, space_guid: str, name: str) -> Row | None:
    for row in call.rows(INSTANCES).values():
        if row["name"] == name and (row["space"] == space_guid or space_guid in row["shared"]):
            found: Row = row
            return found
    return None


def _free_name(call: Call, space_guid: str, name: str, *, stop: str = "", but: str | None = None) -> None:
    """422 when the name is taken; a creation that failed gives its name up (on create only)."""
    taken = _named(call, space_guid, name)
    if taken is None or taken["guid"] == but:
        return
    if but is None and jobs.state_of(taken) == ("create", "failed"):
        brokers.deprovision(call.world, instance_id=taken["guid"])
        _forget(call, taken)
        return
    raise unprocessable(f"The service instance name is taken: {name}{stop}")


def _forget(call: Call, row: Row) -> None:
    for table in (ROUTE_BINDINGS, KEYS):
        rows = call.world.table(table)
        for guid in [guid for guid, bound in rows.items() if bound["instance"] == row["guid"]]:
            del rows[guid]
    del call.world.table(INSTANCES)[row["guid"]]


# ----------------------------------------------------------------------------------------------------------------------
# Updating


def _update(call: Call, guid: str) -> Response:
    row = get(call, guid)
    body = call.body()
    call.must_develop(row["space"])
    if row["type"] != "managed":
        return _update_user_provided(call, row, body)
    problems = [
        *bodies.unknown_fields(
            body, ("name", "tags", "parameters", "relationships", "maintenance_info", "metadata")
        ),
        *(bodies.name_problems(body) if "name" in body else []),
        *bodies.tag_problems(body),
        *bodies.parameter_problems(body),
        *_update_relationship_problems(body),
        *_maintenance_problems(body),
        *metadata.problems(body),
    ]
    bodies.refuse(problems)
    kind, state = jobs.state_of(row)
    only_metadata = set(body) <= {"metadata"}
    if (kind, state) == ("create", "failed"):
        text = f"The service instance could not be found: {row['name']}"
        raise error(404, 60004, "ServiceInstanceNotFound", text)
    if state in BUSY and not (only_metadata and kind != "delete"):
        raise operation_in_progress(row["name"])
    changes: dict[str, Any] = metadata.merge(call, row, body)
    if only_metadata:
        row.update(changes)
        audit_events.record(call.world, "update", row, call.actor, body)
        return rails_json(show(call, row))
    _no_app_is_being_bound(call, row)
    current = catalogue.plans(call.world, call.landscape).get(row["plan_guid"])
    if "name" in body:
        changes["name"] = _new_name(call, row, body)
    if "tags" in body:
        changes["tags"] = list(body["tags"] or [])
        if sum(len(tag) for tag in changes["tags"]) > 2048:
            raise unknown_error()
    wanted = _new_plan(call, row, body, current)
    if wanted is not None and wanted.guid != row["plan_guid"]:
        changes |= {
            "plan": wanted.plan.name,
            "plan_guid": wanted.guid,
            "maintenance_info": dict(wanted.plan.maintenance_info),
        }
    version = (body.get("maintenance_info") or {}).get("version")
    if version is not None:
        changes |= _new_version(row, version, current, other_plan="plan" in changes)
    if current is not None and not current.available:
        _inaccessible(body, changes)
    slow = (
        "parameters" in body
        or "plan" in changes
        or changes.get("maintenance_info", row["maintenance_info"]) != row["maintenance_info"]
        or ("name" in body and current is not None and current.offering.allow_context_updates)
    )
    if not slow:
        audit_events.record(call.world, "update", row, call.actor, body)  # by the name from before
        row.update(changes)
        row["updated_at"] = call.world.stamp()
        row["last_operation"] = jobs.last_operation(call.world, "update", "succeeded")
        return rails_json(show(call, row))
    row["last_operation"] = jobs.last_operation(call.world, "update", "in progress")
    payload = {"parameters": body.get("parameters"), "changes": changes}
    job = jobs.start(call.world, "service_instance.update", row, payload, by=call.actor, asked=body)
    return call.accepted(job)


def _no_app_is_being_bound(call: Call, row: Row) -> None:
    """409 90008 while an app is being bound to the instance, or unbound from it."""
    for bound in call.rows(KEYS).values():
        if bound["instance"] == row["guid"] and "app" in bound and jobs.state_of(bound)[1] in BUSY:
            app = call.rows(APPS)[bound["app"]]["name"]
            raise error(
                409,
                90008,
                "AsyncServiceBindingOperationInProgress",
                f"An operation for the service binding between app {app} and service instance {row['name']} "
                "is in progress.",
            )


def _update_relationship_problems(body: Mapping[str, Any]) -> list[str]:
    if "relationships" not in body:
        return []
    return bodies.relationship_problems(body, "service_plan")


def _maintenance_problems(body: Mapping[str, Any]) -> list[str]:
    if "maintenance_info" not in body:
        return []
    given = body["maintenance_info"]
    if not isinstance(given, dict):
        return ["Maintenance info must be an object"]
    if bodies.unknown_fields(given, ("version",)):
        return [f"Maintenance info {text}" for text in bodies.unknown_fields(given, ("version",))]
    if "version" in given and not SEMVER.fullmatch(str(given["version"])):
        return ["maintenance_info.version should be a semantic version."]
    return []


def _new_name(call: Call, row: Row, body: Mapping[str, Any]) -> str:
    name = str(body["name"]).strip()
    if len(name) > 255:
        raise unknown_error()
    if name != row["name"]:
        if row["shared"]:
            raise unprocessable("Service instances that have been shared cannot be renamed")
        _free_name(call, row["space"], name, but=row["guid"])
    return name


def _new_plan(
    call: Call, row: Row, body: Mapping[str, Any], current: catalogue.ListedPlan | None
) -> catalogue.ListedPlan | None:
    guid = bodies.related(body, "service_plan")
    if guid is None:
        return None
    wanted = catalogue.must_see(call, guid)
    if wanted.guid != row["plan_guid"] and not wanted.available:
        raise unprocessable(
            "Invalid service plan. Ensure that the service plan exists, is available, and you have access to it."
        )
    if current is not None and wanted.offering_guid != current.offering_guid:
        raise error(400, 1002, "InvalidRelation", "service plan relates to a different service offering")
    if current is None or not current.updateable:
        raise unprocessable("The service does not support changing plans.")
    keys = any(key["instance"] == row["guid"] for key in call.rows(KEYS).values())
    if keys and not wanted.bindable:
        raise unprocessable(
            "The service plan is invalid: cannot switch to non-bindable plan when service bindings exist"
        )
    if wanted.guid != row["plan_guid"]:
        quotas.check_paid(call, wanted)
    return wanted


def _new_version(
    row: Row, version: str, current: catalogue.ListedPlan | None, *, other_plan: bool
) -> dict[str, Any]:
    offered = current.plan.maintenance_info if current else {}
    if other_plan:
        raise unprocessable("maintenance_info should not be changed when switching to different plan.")
    if not offered:
        raise unprocessable(
            "The service broker does not support upgrades for service instances created from this plan."
        )
    if version not in {offered.get("version"), row["maintenance_info"].get("version")}:
        raise unprocessable(jobs.SPECIAL["MaintenanceInfoConflict"])
    if version == row["maintenance_info"].get("version"):
        return {}
    return {"maintenance_info": dict(offered)}


def _inaccessible(body: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    for what in ("parameters", "name", "maintenance_info"):
        if what in body and "plan" not in changes:
            raise unprocessable(
                f"Cannot update {what} of a service instance that belongs to inaccessible plan"
            )


def _update_user_provided(call: Call, row: Row, body: dict[str, Any]) -> Response:
    allowed = ("name", "tags", "credentials", "syslog_drain_url", "route_service_url", "metadata")
    bodies.refuse(
        [
            *bodies.unknown_fields(body, allowed),
            *(bodies.name_problems(body) if "name" in body else []),
            *bodies.tag_problems(body),
            *bodies.user_provided_problems(body),
            *metadata.problems(body),
        ]
    )
    changes: dict[str, Any] = metadata.merge(call, row, body)
    if "name" in body:
        changes["name"] = _new_name(call, row, body)
    for key in ("credentials", "syslog_drain_url", "route_service_url"):
        if key in body:
            changes[key] = body[key]
    if "tags" in body:
        changes["tags"] = list(body["tags"] or [])
    row.update(changes)
    if set(body) - {"metadata"}:
        row["updated_at"] = call.world.stamp()
        row["last_operation"] = jobs.last_operation(call.world, "update", "succeeded", "Operation succeeded")
    audit_events.record(call.world, "update", row, call.actor, body)
    return rails_json(show(call, row))


# ----------------------------------------------------------------------------------------------------------------------
# Deleting


def _delete(call: Call, guid: str) -> Response:
    row = get(call, guid)
    query = lists.read(call, ("purge",), single=True, choices={"purge": ("true", "false")})
    call.must_develop(row["space"])
    if query.sent.get("purge") == "true":
        if row["type"] == "managed" and not call.caller.admin:
            raise not_authorized()
        audit_events.record(call.world, "purge", row, call.actor)
        _forget(call, row)
        return Response.empty(204)
    if row["type"] != "managed":
        audit_events.record(call.world, "delete", row, call.actor)
        _forget(call, row)
        return Response.empty(204)
    if jobs.state_of(row) in {("create", "initial"), ("update", "in progress"), ("delete", "in progress")}:
        raise unprocessable("There is an operation in progress for the service instance.")
    return call.accepted(jobs.start(call.world, "service_instance.delete", row, by=call.actor))


def routes(router: Router) -> None:
    """Service instances."""
    one = "/v3/service_instances/{guid}"
    endpoint(router, "GET", "/v3/service_instances", _list)
    endpoint(router, "POST", "/v3/service_instances", _create)
    endpoint(router, "GET", one, _one)
    endpoint(router, "PATCH", one, _update)
    endpoint(router, "DELETE", one, _delete)
