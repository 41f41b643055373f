"""Service instances of Service Manager.

Peripli/service-manager api/service_instance_controller.go, api/filters, storage/interceptors/smaap_service_instance_interceptor.go
and operations/scheduler.go; recorded answers in SAP/terraform-provider-btp (resource_subaccount_service_instance.*).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import accounts, brokers, faults
from .broker_catalogue import stable_id
from .http import Request, Response
from .sm_common import (
    INSTANCES,
    PLATFORM,
    PROTECTED,
    Caller,
    Json,
    accepted,
    bad,
    body_of,
    broker_error,
    broker_refusal,
    changed_labels,
    checked_labels,
    finish,
    gateway_timeout,
    is_async,
    moment,
    not_found,
    page,
    parameters_of,
    refusal,
    route,
    running,
    show_operation,
    start,
    wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .broker_catalogue import Offering, Plan
    from .world import World

READ = "subaccount.service_instance.read"
MANAGE = "subaccount.service_instance.manage"
VERBS = {"create": "provision", "update": "update", "delete": "deprovision"}


# ----------------------------------------------------------------------------------------------------------------------
# The catalogue by Service Manager's ids


def offering_id(item: Offering) -> str:
    return stable_id("sm-offering", item.name)


def plan_id(item: Offering, plan: Plan) -> str:
    return stable_id("sm-plan", item.name, plan.name)


def every_plan(world: World) -> Iterator[tuple[Offering, Plan]]:
    for item in brokers.offerings(world):
        for plan in item.plans:
            yield item, plan


def is_visible(world: World, caller: Caller, item: Offering, plan: Plan) -> bool:
    return brokers.visible(world, caller.subaccount_id, item.name, plan.name, "sm")


def _plan_by_id(world: World, caller: Caller, wanted: Any) -> tuple[Offering, Plan]:
    for item, plan in every_plan(world):
        if (
            plan_id(item, plan) == wanted
            and "sapcp" in item.platforms
            and is_visible(world, caller, item, plan)
        ):
            return item, plan
    raise not_found("service plan")


def _plan_of_body(world: World, caller: Caller, body: Json) -> tuple[Offering, Plan]:
    names = (body.get("service_offering_name"), body.get("service_plan_name"))
    wanted = body.get("service_plan_id")
    if bool(wanted) == any(names) or (any(names) and not all(names)):
        raise bad(
            "Constraint violated: you have to provide parameters as following: service offering name and service "
            "plan name or service plan id."
        )
    if wanted:
        return _plan_by_id(world, caller, wanted)
    found = [
        (item, plan)
        for item, plan in every_plan(world)
        if (item.name, plan.name) == names
        and "sapcp" in item.platforms
        and is_visible(world, caller, item, plan)
    ]
    if len(found) != 1:
        raise bad(f"service plan {names[1]} of service offering {names[0]} not found or ambiguous")
    return found[0]


# ----------------------------------------------------------------------------------------------------------------------
# Rows


def table(world: World) -> dict[str, Any]:
    return world.table("sm.instances")


def read(world: World) -> Mapping[str, Json]:
    """The table for somebody who only reads it, or changes it in a request that is no GET."""
    return world.rows("sm.instances")


def advance(world: World, subaccount_id: str) -> None:
    """A list is a look at everything of the subaccount that is under way."""
    for operation_id, owner in list(world.table("sm.running").items()):
        if owner == subaccount_id:
            look(world, world.table("sm.operations")[operation_id])


def look(world: World, operation: Json) -> None:
    """One look at an operation; when its time has come, what it was to do is done."""
    world.table("sm.operations")  # where looking changes it
    if operation["state"] != "in progress" or not world.look(operation["ticket"]):
        return
    complete(world, operation)


def complete(world: World, operation: Json) -> None:
    from . import sm_bindings

    failure = operation.get("failure")
    finish(world, operation, failure)
    if operation["resource_type"] == INSTANCES:
        row = table(world).get(operation["resource_id"])
        if row is not None:
            _complete(world, row, operation, failure)
        return
    bound = sm_bindings.table(world).get(operation["resource_id"])
    if bound is not None:
        sm_bindings.complete(world, bound, operation, failure)


def _complete(world: World, row: Json, operation: Json, failure: Json | None) -> None:
    if operation["type"] == "delete":
        if failure is None:
            _remove(world, row)
        return
    if operation["type"] == "create":
        if failure is None:
            row["ready"] = row["usable"] = True
    elif failure is None:
        _apply(row, operation.pop("change", {}))
    row["updated_at"] = moment(world, row["id"])


def _apply(row: Json, change: Json) -> None:
    row.update(change)


def _remove(world: World, row: Json) -> None:
    del table(world)[row["id"]]
    if world.settings.get("sm_deleted_operations", "succeeded") == "gone":
        world.table("sm.operations").pop(row["operation"], None)


def context_of(world: World, subaccount: Json, name: str) -> Json:
    """What brokers and clients are told about where an instance lives."""
    return {
        "origin": "sapcp",
        "platform": "sapcp",
        "env_type": "sapcp",
        "region": f"cf-{subaccount['region']}",
        "zone_id": subaccount["id"],
        "subdomain": subaccount["subdomain"],
        "subaccount_id": subaccount["id"],
        "global_account_id": accounts.global_account(world)["id"],
        "crm_customer_id": "",
        "license_type": "CUSTOMER",
        "instance_name": name,
    }


def _broker_context(subaccount: Json, name: str) -> Json:
    return {
        "subaccount_id": subaccount["id"],
        "subdomain": subaccount["subdomain"],
        "region": subaccount["region"],
        "platform": "sapcp",
        "instance_name": name,
    }


def labels_of(row: Json) -> dict[str, list[str]]:
    return {PROTECTED: [row["subaccount_id"]], **row["labels"]}


def show(world: World, row: Json, *, operation: bool = False) -> Json:
    subaccount = world.rows("subaccounts")[row["subaccount_id"]]
    shown: Json = {"id": row["id"], "ready": row["ready"]}
    last = world.rows("sm.operations").get(row.get("operation", "")) if operation else None
    if last is not None:
        shown["last_operation"] = show_operation(last)
    shown |= {
        "name": row["name"],
        "service_plan_id": row["plan_id"],
        "platform_id": row["platform_id"],
        "context": row.get("context") or context_of(world, subaccount, row["name"]),
        "usable": row["usable"],
        "subaccount_id": row["subaccount_id"],
        "protected": None,
        "created_by": row["created_by"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "labels": labels_of(row),
    }
    for key in ("shared", "updated_by"):
        if row.get(key) is not None:
            shown[key] = row[key]
    return shown


def _foreign(world: World, caller: Caller) -> list[Json]:
    """Instances that Cloud Foundry made in the subaccount: listed here too, under another platform."""
    if not world.settings.get("sm_lists_cloud_foundry", True) or caller.container is not None:
        return []
    found = []
    for row in world.rows("broker.instances").values():
        context = row["context"]
        if context.get("platform") != "cloudfoundry" or context["subaccount_id"] != caller.subaccount_id:
            continue
        created = moment_of(row)
        found.append(
            {
                "id": row["id"],
                "seq": row["seq"],
                "ready": True,
                "usable": True,
                "name": context.get("instance_name", ""),
                "plan_id": stable_id("sm-plan", row["offering"], row["plan"]),
                "platform_id": stable_id("sm-platform", "cloudfoundry", context["region"]),
                "subaccount_id": caller.subaccount_id,
                "created_by": "cloudfoundry",
                "created_at": created,
                "updated_at": created,
                "labels": {},
                "context": {
                    **context_of(world, caller.subaccount, context.get("instance_name", "")),
                    "platform": "cloudfoundry",
                    "space_guid": context.get("space_guid", ""),
                    "organization_guid": context.get("organization_guid", ""),
                },
            }
        )
    return found


def moment_of(row: Json) -> str:
    from .world import stamp

    return stamp(row.get("created", 0)).replace("Z", ".12345Z")


FIELDS: Mapping[str, Callable[[Json], Any]] = {
    "id": lambda row: row["id"],
    "name": lambda row: row["name"],
    "ready": lambda row: row["ready"],
    "usable": lambda row: row["usable"],
    "service_plan_id": lambda row: row["plan_id"],
    "platform_id": lambda row: row["platform_id"],
    "created_at": lambda row: row["created_at"],
    "updated_at": lambda row: row["updated_at"],
    "shared": lambda row: bool(row.get("shared")),
    "dashboard_url": lambda row: row.get("dashboard_url", ""),
    "referenced_instance_id": lambda row: row.get("referenced_instance_id", ""),
    "subaccount_id": lambda row: row["subaccount_id"],
}


def find(world: World, caller: Caller, guid: str, *, looks: bool = True) -> Json:
    """A visible instance; reading it is a look at what is under way on it."""
    row = read(world).get(guid)
    if row is not None and caller.sees(row):
        operation = running(world, row)
        if operation is not None and looks:
            look(world, operation)
        row = read(world).get(guid)
        if row is not None:
            return row
    raise not_found(INSTANCES)


# ----------------------------------------------------------------------------------------------------------------------
# Routes


@route(READ)
def listing(world: World, request: Request, caller: Caller, **_: str) -> Response:
    advance(world, caller.subaccount_id)
    rows = [row for row in read(world).values() if caller.sees(row)]
    foreign = _foreign(world, caller)
    if foreign:
        rows = sorted([*rows, *foreign], key=lambda row: int(row["seq"]))
    attach = request.one("attach_last_operations") == "true"
    return page(world, request, rows, FIELDS, labels_of, lambda row: show(world, row, operation=attach))


@route(READ)
def single(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    del request
    if guid not in read(world):
        for row in _foreign(world, caller):
            if row["id"] == guid:
                return Response.json(show(world, row))
    return Response.json(show(world, find(world, caller, guid), operation=True))


@route(READ)
def operation(
    world: World, request: Request, caller: Caller, guid: str = "", number: str = "", **_: str
) -> Response:
    """GET …/operations/{id}: stays readable after its instance is gone."""
    return read_operation(world, request, caller, INSTANCES, guid, number)


def read_operation(
    world: World, request: Request, caller: Caller, kind: str, guid: str, number: str
) -> Response:
    del request
    found = world.rows("sm.operations").get(number)
    if (
        found is None
        or found["resource_id"] != guid
        or found["resource_type"] != kind
        or found["subaccount_id"] != caller.subaccount_id
    ):
        raise not_found("operation")
    if found["state"] == "in progress":
        look(world, found)
        if number not in world.rows("sm.operations"):
            raise not_found("operation")
    return Response.json(show_operation(found))


@route(READ)
def parameters(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    """GET …/parameters: only where the offering lets instances be read."""
    del request
    row = find(world, caller, guid)
    item = brokers.offering(world, row["offering"])
    if item is None or not item.instances_retrievable:
        raise bad("this operation is not supported.")
    outcome = brokers.fetch_instance(world, guid)
    if outcome.status != 200:
        raise broker_refusal("fetching the instance", outcome.status, outcome.body)
    return Response.json(outcome.body.get("parameters") or {})


def _checked_name(world: World, caller: Caller, name: Any, own: str = "") -> str:
    if not isinstance(name, str) or not name:
        raise bad("missing service instance name")
    for row in table(world).values():
        if row["name"] == name and row["subaccount_id"] == caller.subaccount_id and row["id"] != own:
            raise refusal(409, "Conflict", "instance with same name exists for the current tenant")
    return name


def _no_id(body: Json) -> None:
    if "id" in body:
        raise bad("Invalid request body - providing specific resource id is forbidden")


@route(MANAGE, "create")
def create(world: World, request: Request, caller: Caller, **_: str) -> Response:
    """POST /v1/service_instances: 201 of a synchronous broker, 202 of the other kind or on demand."""
    body = body_of(request)
    _no_id(body)
    if "shared" in body:
        raise bad("The property shared is not supported when creating an instance")
    item, plan = _plan_of_body(world, caller, body)
    labels = checked_labels(body.get("labels"))
    given = parameters_of(body)
    name = _checked_name(world, caller, body.get("name"))
    row = new_row(world, caller.subaccount, item, plan, name, labels, caller.name)
    row["container"] = caller.container
    outcome = brokers.provision(
        world,
        instance_id=row["id"],
        offering=item,
        plan=plan,
        parameters=given,
        context=_broker_context(caller.subaccount, name),
    )
    wish = is_async(request)
    doing = f"provisioning request for instance {name}"
    if outcome.status >= 400 and not wish:
        raise broker_refusal(doing, outcome.status, outcome.body)  # nothing of it remains
    table(world)[row["id"]] = row
    return _run(world, row, "create", outcome, wish, doing)


def _run(
    world: World,
    row: Json,
    verb: str,
    outcome: brokers.Outcome,
    wish: bool | None,
    doing: str,
    change: Json | None = None,
) -> Response:
    """Answers a change of an instance by what the broker said and what the caller wished."""
    failure = None
    if outcome.status >= 400:
        failure = broker_error(doing, outcome.status, outcome.body)
    elif outcome.failure is not None:
        failure = broker_error(doing, outcome.status, {"description": outcome.failure})
    ticket = outcome.ticket
    if wish is True and ticket is None:
        ticket = world.ticket("sm.operation")
    ever = faults.stuck(world, VERBS[verb], (row["name"],), row["offering"], row["plan"])
    if ever is not None:
        ticket, failure = ever[1], None
    if wish is False and not wait(world, ticket):
        entry = start(world, INSTANCES, row, verb, ticket, failure=failure)
        entry["change"] = change or {}
        raise gateway_timeout()
    if wish is False or ticket is None:  # a failure stays readable as the last operation
        entry = start(world, INSTANCES, row, verb, None, failure=failure)
        entry["change"] = change or {}
        _complete(world, row, entry, failure)
        entry.pop("change", None)
        if failure is not None:
            return Response.json(failure, 502)
        if verb == "delete":
            return Response.json({})
        return Response.json(show(world, row, operation=True), 201 if verb == "create" else 200)
    entry = start(world, INSTANCES, row, verb, ticket, failure=failure)
    entry["change"] = change or {}
    return accepted(INSTANCES, row, entry)


def new_row(
    world: World, subaccount: Json, item: Offering, plan: Plan, name: str, labels: Json, by: str
) -> Json:
    guid = world.new_id()
    now = moment(world, guid)
    return {
        "id": guid,
        "seq": brokers.next_number(world),
        "subaccount_id": subaccount["id"],
        "name": name,
        "offering": item.name,
        "plan": plan.name,
        "plan_id": plan_id(item, plan),
        "platform_id": PLATFORM,
        "labels": labels,
        "ready": False,
        "usable": False,
        "created_by": by,
        "created_at": now,
        "updated_at": now,
    }


def _idle(world: World, row: Json) -> None:
    """422 while an operation runs on the instance; being refused counts as a look, so that trying again helps."""
    operation = running(world, row)
    if operation is None:
        return
    look(world, operation)
    text = (
        "Deletion is currently in progress for this resource"
        if operation["type"] == "delete"
        else "Another concurrent operation in progress for this resource"
    )
    raise refusal(422, "ConcurrentOperationInProgress", text)


def _own(world: World, caller: Caller, guid: str) -> Json:
    if guid not in table(world) and any(row["id"] == guid for row in _foreign(world, caller)):
        raise bad(f"service instance {guid} does not belong to platform {PLATFORM}")
    return find(world, caller, guid, looks=False)


@route(MANAGE, "update")
def change(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    """PATCH /v1/service_instances/{id}: name, plan, parameters, labels; or ``shared`` all alone."""
    row = _own(world, caller, guid)
    body = body_of(request)
    _no_id(body)
    wish = is_async(request)
    if "shared" in body:
        return _share(world, row, body, wish)
    _idle(world, row)
    item = brokers.offering(world, row["offering"])
    if item is None:
        raise not_found("service plan")
    new: Json = {"updated_by": caller.name}
    if "labels" in body:
        new["labels"] = changed_labels(row["labels"], body["labels"])
    if body.get("name") not in {None, row["name"]}:
        new["name"] = _checked_name(world, caller, body["name"], guid)
    plan = item.plan(row["plan"])
    if body.get("service_plan_id") not in {None, row["plan_id"]}:
        other, plan = _plan_by_id(world, caller, body["service_plan_id"])
        if other.name != item.name:
            raise bad("the service plan belongs to another service offering")
        new |= {"plan": plan.name, "plan_id": plan_id(item, plan)}
    given = parameters_of(body)
    if plan is None:
        raise not_found("service plan")
    outcome = brokers.Outcome(200)
    doing = f"update request for instance {row['name']}"
    if "plan" in new or given is not None or ("name" in new and item.allow_context_updates):
        if not row["ready"]:
            raise refusal(
                422, "OperationInProgress", f"creation of instance {guid} is still in progress or failed"
            )
        outcome = brokers.update(
            world,
            instance_id=guid,
            offering=item,
            plan=plan,
            parameters=given,
            previous_plan=row["plan"],
            context=_broker_context(caller.subaccount, str(new.get("name", row["name"]))),
        )
    return _run(world, row, "update", outcome, wish, doing, new)


def _share(world: World, row: Json, body: Json, wish: bool | None) -> Response:
    if set(body) != {"shared"} or not isinstance(body["shared"], bool):
        raise bad("Could not modify the 'shared' property with other changes at the same time")
    if wish is True:
        raise bad("requested asynchronous operation is not supported when sharing an instance")
    _idle(world, row)
    item = brokers.offering(world, row["offering"])
    plan = item.plan(row["plan"]) if item is not None else None
    if plan is None or not plan.metadata.get("supportsInstanceSharing"):
        raise bad(f"Failed to share the instance. The plan {row['plan']} does not support instance sharing.")
    row["shared"] = body["shared"]
    row["updated_at"] = moment(world, row["id"])
    start(world, INSTANCES, row, "update", None)
    return Response.json(show(world, row, operation=True))


@route(MANAGE, "delete")
def delete(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    """DELETE /v1/service_instances/{id}: allowed during a create or an update, not before its bindings are gone."""
    from . import sm_bindings

    row = _own(world, caller, guid)
    if request.one("cascade") == "true" or request.one("force") == "true":
        raise bad("Cascade delete is not supported for this API")
    under_way = running(world, row)
    if under_way is not None and under_way["type"] == "delete":
        _idle(world, row)
    count = sum(1 for bound in sm_bindings.table(world).values() if bound["service_instance_id"] == guid)
    if count:
        text = f"could not delete instance due to {count} existing bindings"
        if world.settings.get("sm_instance_with_bindings", 400) == 409:
            raise refusal(409, "ExistingReferenceEntity", text)
        raise bad(text)
    doing = f"deprovisioning request for instance {row['name']}"
    outcome = brokers.deprovision(world, instance_id=guid)
    wish = is_async(request)
    if outcome.status == 410:
        outcome = brokers.Outcome(200)  # what is not there need not be removed
    if under_way is not None:
        finish(world, under_way, {"error": "BadRequest", "description": "superseded by a deletion"})
    return _run(world, row, "delete", outcome, wish, doing)


def no_bulk(world: World, request: Request) -> Response:
    """DELETE of the whole collection exists in the open source only, and not for ``async=true``."""
    del world
    if request.one("async") == "true":
        raise bad("Only one resource can be deleted asynchronously at a time")
    raise refusal(405, "MethodNotAllowed", "method not allowed")
