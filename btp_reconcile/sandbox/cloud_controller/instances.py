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
from btp_reconcile.sandbox.cloud_controller import catalogue, jobs, lists, metadata, places, quotas
from btp_reconcile.sandbox.cloud_controller.basics import (
    INSTANCES,
    KEYS,
    ORGANIZATIONS,
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
        for guid, row in call.world.table(INSTANCES).items()
        if row["landscape"] == call.landscape
        and (row["space"] in spaces or any(space in spaces for space in row["shared"]))
    }


def get(call: Call, guid: str) -> Row:
    """One readable instance; 404 otherwise."""
    row: Row | None = call.world.table(INSTANCES).get(guid)
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
    result = _spaces_included(call, query, [row["space"] for row in rows])
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


def _spaces_included(call: Call, query: lists.Query, guids: Iterable[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    spaces = [call.world.table(SPACES)[guid] for guid in dict.fromkeys(guids)]
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
        table = call.world.table(ORGANIZATIONS)
        result["organizations"] = [
            _picked(query.fields["space.organization"], {"name": table[guid]["name"], "guid": guid})
            for guid in organizations
        ]
    return result


def _list(call: Call) -> Response:
    query = lists.read(call, FILTERS, fields=LIST_FIELDS, choices={"type": TYPES})
    spaces = call.world.table(SPACES)
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
# Checking bodies


def _unknown_fields(body: Mapping[str, Any], allowed: Iterable[str]) -> list[str]:
    stray = [key for key in body if key not in set(allowed)]
    return [f"Unknown field(s): {', '.join(repr(key) for key in stray)}"] if stray else []


def relationship_problems(body: Mapping[str, Any], *names: str) -> list[str]:
    """What is wrong with the relationships of a create body; each name is required."""
    given = body.get("relationships")
    if not isinstance(given, dict):
        return ["Relationships 'relationships' is not an object"]
    if not given:
        return ["Relationships 'relationships' must include one or more valid relationships"]
    found = [f"Relationships {text}" for text in _unknown_fields(given, names)]
    for name in names:
        label = name.capitalize().replace("_", " ")
        if name not in given or given[name] is None:
            found.append(f"Relationships {label} can't be blank")
        elif related(body, name) is None:
            found.append(
                f"Relationships {label} must be structured like this: "
                f'"{name}: {{"data": {{"guid": "valid-guid"}}}}"'
            )
    return found


def related(body: Mapping[str, Any], name: str) -> str | None:
    """The guid of a relationship, when it is one."""
    try:
        guid = body["relationships"][name]["data"]["guid"]
    except (KeyError, TypeError):
        return None
    return guid if isinstance(guid, str) else None


def name_problems(body: Mapping[str, Any]) -> list[str]:
    """What is wrong with the name of a create body."""
    name = body.get("name")
    if isinstance(name, str):
        return [] if name.strip() else ["Name can't be blank"]
    return ["Name must be a string", "Name can't be blank"] if name is None else ["Name must be a string"]


def parameter_problems(body: Mapping[str, Any]) -> list[str]:
    """``parameters`` is an object or null."""
    if body.get("parameters") is None or isinstance(body["parameters"], dict):
        return []
    return ["Parameters must be an object"]


def _tag_problems(body: Mapping[str, Any]) -> list[str]:
    tags = body.get("tags")
    if tags is None:
        return []
    if not isinstance(tags, list):
        return ["Tags must be an array"]
    return [] if all(isinstance(tag, str) for tag in tags) else ["Tags must be a list of strings"]


def _user_provided_problems(body: Mapping[str, Any]) -> list[str]:
    found = []
    if body.get("credentials") is not None and not isinstance(body["credentials"], dict):
        found.append("Credentials must be an object")
    for key, label in (("syslog_drain_url", "Syslog drain url"), ("route_service_url", "Route service url")):
        value = body.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            found.append(f"{label} must be a string")
        elif key == "route_service_url" and not value.startswith("https://"):
            found.append(f"{label} must be https")
    return found


def _refuse(problems: list[str]) -> None:
    if problems:
        raise unprocessable(*problems)


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
            *_unknown_fields(body, (*common, *own)),
            *name_problems(body),
            *_tag_problems(body),
            *relationship_problems(body, *names),
            *(parameter_problems(body) if managed else _user_provided_problems(body)),
        ]
    else:
        problems = ["Type must be one of 'managed', 'user-provided'", *name_problems(body)]
        if not isinstance(body.get("relationships"), dict):
            problems.insert(0, "Relationships 'relationships' is not an object")
    _refuse(problems + metadata.problems(body))
    space_guid = related(body, "space") or ""
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
    row = new_row(call.world, call.world.table(SPACES)[space_guid], name, listed)
    row["tags"] = list(body.get("tags") or [])
    row.update(metadata.merge(call, row, body))
    call.world.table(INSTANCES)[row["guid"]] = row
    if listed is None:
        for key in ("credentials", "syslog_drain_url", "route_service_url"):
            row[key] = body.get(key)
        row["last_operation"] = jobs.last_operation(call.world, "create", "succeeded", "Operation succeeded")
        return rails_json(show(call, row), 201)
    row["last_operation"] = jobs.last_operation(call.world, "create", "initial")
    payload = {"parameters": body.get("parameters")}
    return call.accepted(jobs.start(call.world, "service_instance.create", row, payload))


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
    listed = catalogue.must_see(call, related(body, "service_plan") or "")
    space = call.world.table(SPACES)[space_guid]
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
    for row in call.world.table(INSTANCES).values():
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
    keys = call.world.table(KEYS)
    for guid in [guid for guid, key in keys.items() if key["instance"] == row["guid"]]:
        del keys[guid]
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
        *_unknown_fields(
            body, ("name", "tags", "parameters", "relationships", "maintenance_info", "metadata")
        ),
        *(name_problems(body) if "name" in body else []),
        *_tag_problems(body),
        *parameter_problems(body),
        *_update_relationship_problems(body),
        *_maintenance_problems(body),
        *metadata.problems(body),
    ]
    _refuse(problems)
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
        return rails_json(show(call, row))
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
        row.update(changes)
        row["updated_at"] = call.world.stamp()
        row["last_operation"] = jobs.last_operation(call.world, "update", "succeeded")
        return rails_json(show(call, row))
    row["last_operation"] = jobs.last_operation(call.world, "update", "in progress")
    payload = {"parameters": body.get("parameters"), "changes": changes}
    return call.accepted(jobs.start(call.world, "service_instance.update", row, payload))


def _update_relationship_problems(body: Mapping[str, Any]) -> list[str]:
    if "relationships" not in body:
        return []
    return relationship_problems(body, "service_plan")


def _maintenance_problems(body: Mapping[str, Any]) -> list[str]:
    if "maintenance_info" not in body:
        return []
    given = body["maintenance_info"]
    if not isinstance(given, dict):
        return ["Maintenance info must be an object"]
    if _unknown_fields(given, ("version",)):
        return [f"Maintenance info {text}" for text in _unknown_fields(given, ("version",))]
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
    guid = related(body, "service_plan")
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
    keys = any(key["instance"] == row["guid"] for key in call.world.table(KEYS).values())
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
    _refuse(
        [
            *_unknown_fields(body, allowed),
            *(name_problems(body) if "name" in body else []),
            *_tag_problems(body),
            *_user_provided_problems(body),
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
        _forget(call, row)
        return Response.empty(204)
    if row["type"] != "managed":
        _forget(call, row)
        return Response.empty(204)
    if jobs.state_of(row) in {("create", "initial"), ("update", "in progress"), ("delete", "in progress")}:
        raise unprocessable("There is an operation in progress for the service instance.")
    return call.accepted(jobs.start(call.world, "service_instance.delete", row))


# ----------------------------------------------------------------------------------------------------------------------
# Below an instance


def _parameters(call: Call, guid: str) -> Response:
    row = get(call, guid)
    if row["space"] not in call.spaces:
        raise not_found("Service instance")
    kind, state = jobs.state_of(row)
    if (kind, state) == ("create", "failed"):
        raise not_found("Service instance")
    if state in BUSY:
        raise operation_in_progress(row["name"])
    offering = brokers.offering(call.world, row["offering"]) if row["type"] == "managed" else None
    if offering is None or not offering.instances_retrievable:
        raise error(
            400,
            120004,
            "ServiceFetchInstanceParametersNotSupported",
            "This service does not support fetching service instance parameters.",
        )
    outcome = brokers.fetch_instance(call.world, guid)
    if outcome.status != 200:
        raise error(502, 10001, "ServiceBrokerBadResponse", jobs.broker_text(outcome))
    return rails_json(outcome.body.get("parameters") or {})


def _credentials(call: Call, guid: str) -> Response:
    row = get(call, guid)
    if row["type"] == "managed":
        raise not_found("Service instance")
    if not call.reads_secrets(row["space"]):
        raise not_authorized()
    return rails_json(row["credentials"] or {})


def _permissions(call: Call, guid: str) -> Response:
    row = get(call, guid)
    return rails_json({"manage": call.develops(row["space"]), "read": True})


def _shared_spaces(call: Call, guid: str) -> Response:
    row = get(call, guid)
    query = lists.read(call, ("fields",), single=True, fields=SHARED_FIELDS)
    return rails_json(_show_shared(call, row, query))


def _show_shared(call: Call, row: Row, query: lists.Query | None = None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "data": [{"guid": space} for space in row["shared"]],
        "links": {
            "self": {"href": f"{call.api}/v3/service_instances/{row['guid']}/relationships/shared_spaces"}
        },
    }
    if query is not None and query.fields:
        shown["included"] = _spaces_included(call, query, row["shared"])
    return shown


def _share(call: Call, guid: str) -> Response:
    row = get(call, guid)
    call.must_develop(row["space"])
    if not places.flag(call, "service_instance_sharing") and not call.caller.admin:
        raise error(403, 330002, "FeatureDisabled", "Feature Disabled: service_instance_sharing")
    body = call.body()
    data = body.get("data")
    if not isinstance(data, list) or not all(
        isinstance(item, dict) and isinstance(item.get("guid"), str) for item in data
    ):
        raise unprocessable("Data must be an array")
    missing = [item["guid"] for item in data if item["guid"] not in call.spaces]
    refused = f"Unable to share service instance {row['name']} with spaces "
    if missing:
        names = ", ".join(f"'{space}'" for space in missing)
        raise unprocessable(f"{refused}[{names}]. Ensure the spaces exist and that you have access to them.")
    unwritable = [item["guid"] for item in data if not call.develops(item["guid"])]
    if unwritable:
        names = ", ".join(f"'{space}'" for space in unwritable)
        raise unprocessable(
            f"{refused}[{names}]. Write permission is required in order to share a service instance with a space."
        )
    if any(item["guid"] == row["space"] for item in data):
        raise unprocessable(
            f"Unable to share service instance '{row['name']}' with space '{row['space']}'. "
            "Service instances cannot be shared into the space where they were created."
        )
    row["shared"] += [item["guid"] for item in data if item["guid"] not in row["shared"]]
    return rails_json(_show_shared(call, row))


def _unshare(call: Call, guid: str, space: str) -> Response:
    row = get(call, guid)
    call.must_develop(row["space"])
    if space not in row["shared"]:
        raise unprocessable(
            f"Unable to unshare service instance from space {space}. "
            "Ensure the space exists and the service instance has been shared to this space."
        )
    row["shared"].remove(space)
    return Response.empty(204)


def _usage(call: Call, guid: str) -> Response:
    row = get(call, guid)
    base = f"{call.api}/v3/service_instances/{guid}"
    shared = f"{base}/relationships/shared_spaces"
    return rails_json(
        {
            "usage_summary": [{"space": {"guid": space}, "bound_app_count": 0} for space in row["shared"]],
            "links": {
                "self": {"href": f"{shared}/usage_summary"},
                "shared_spaces": {"href": shared},
                "service_instance": {"href": base},
            },
        }
    )


def routes(router: Router) -> None:
    """Service instances and what hangs below them."""
    one = "/v3/service_instances/{guid}"
    shared = f"{one}/relationships/shared_spaces"
    endpoint(router, "GET", "/v3/service_instances", _list)
    endpoint(router, "POST", "/v3/service_instances", _create)
    endpoint(router, "GET", one, _one)
    endpoint(router, "PATCH", one, _update)
    endpoint(router, "DELETE", one, _delete)
    endpoint(router, "GET", f"{one}/parameters", _parameters)
    endpoint(router, "GET", f"{one}/credentials", _credentials)
    endpoint(router, "GET", f"{one}/permissions", _permissions)
    endpoint(router, "GET", shared, _shared_spaces)
    endpoint(router, "POST", shared, _share)
    endpoint(router, "DELETE", f"{shared}/{{space}}", _unshare)
    endpoint(router, "GET", f"{shared}/usage_summary", _usage)
