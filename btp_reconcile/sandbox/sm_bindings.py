"""Service bindings of Service Manager.

Peripli/service-manager api/service_binding_controller.go, storage/interceptors/smaap_service_binding_interceptor.go and
unique_binding_names_interceptor.go; SAP/sap-btp-service-operator client/sm (rename of bindings).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import brokers, faults, sm_instances
from .http import Request, Response
from .sm_common import (
    BINDINGS,
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
    from collections.abc import Callable, Mapping

    from .world import World

READ = "subaccount.service_binding.read"
MANAGE = "subaccount.service_binding.manage"
VERBS = {"create": "bind", "delete": "unbind"}


def table(world: World) -> dict[str, Any]:
    return world.table("sm.bindings")


def read(world: World) -> Mapping[str, Json]:
    """The table for somebody who only reads it, or changes it in a request that is no GET."""
    return world.rows("sm.bindings")


def complete(world: World, row: Json, operation: Json, failure: Json | None) -> None:
    if operation["type"] == "delete":
        if failure is None:
            _remove(world, row)
        return
    if failure is None:
        row["ready"] = True
    row["updated_at"] = moment(world, row["id"])


def _remove(world: World, row: Json) -> None:
    del table(world)[row["id"]]
    if world.settings.get("sm_deleted_operations", "succeeded") == "gone":
        world.table("sm.operations").pop(row["operation"], None)


def show(world: World, request: Request, row: Json, *, operation: bool = False) -> Json:
    shown: Json = {"id": row["id"], "ready": row["ready"]}
    last = world.rows("sm.operations").get(row.get("operation", "")) if operation else None
    if last is not None:
        shown["last_operation"] = show_operation(last)
    instance = sm_instances.read(world).get(row["service_instance_id"]) or {}
    subaccount = world.rows("subaccounts")[row["subaccount_id"]]
    shown |= {
        "name": row["name"],
        "service_instance_id": row["service_instance_id"],
        "context": {
            **sm_instances.context_of(world, subaccount, instance.get("name", "")),
            "service_instance_id": row["service_instance_id"],
        },
    }
    bound = world.rows("broker.bindings").get(row["id"])
    if bound is not None and row["ready"]:
        shown["credentials"] = brokers.localise(bound["credentials"], request)
    return shown | {
        "subaccount_id": row["subaccount_id"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "created_by": row["created_by"],
        "labels": sm_instances.labels_of(row),
    }


FIELDS: Mapping[str, Callable[[Json], Any]] = {
    "id": lambda row: row["id"],
    "name": lambda row: row["name"],
    "ready": lambda row: row["ready"],
    "service_instance_id": lambda row: row["service_instance_id"],
    "created_at": lambda row: row["created_at"],
    "updated_at": lambda row: row["updated_at"],
    "syslog_drain_url": lambda row: row.get("syslog_drain_url", ""),
    "route_service_url": lambda row: row.get("route_service_url", ""),
    "subaccount_id": lambda row: row["subaccount_id"],
}


def find(world: World, caller: Caller, guid: str, *, looks: bool = True) -> Json:
    """A visible binding; reading it is a look at what is under way on it."""
    row = read(world).get(guid)
    if row is not None and caller.sees(row):
        operation = running(world, row)
        if operation is not None and looks:
            sm_instances.look(world, operation)
        row = read(world).get(guid)
        if row is not None:
            return row
    raise not_found(BINDINGS)


@route(READ, "bindings")
def listing(world: World, request: Request, caller: Caller, **_: str) -> Response:
    sm_instances.advance(world, caller.subaccount_id)
    rows = [row for row in read(world).values() if caller.sees(row)]
    attach = request.one("attach_last_operations") == "true"
    return page(
        world,
        request,
        rows,
        FIELDS,
        sm_instances.labels_of,
        lambda row: show(world, request, row, operation=attach),
    )


@route(READ, "bindings")
def single(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    return Response.json(show(world, request, find(world, caller, guid), operation=True))


@route(READ, "bindings")
def operation(
    world: World, request: Request, caller: Caller, guid: str = "", number: str = "", **_: str
) -> Response:
    return sm_instances.read_operation(world, request, caller, BINDINGS, guid, number)


@route(READ, "bindings")
def parameters(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    """GET …/parameters: only where the offering lets bindings be read."""
    del request
    row = find(world, caller, guid)
    instance = sm_instances.read(world)[row["service_instance_id"]]
    item = brokers.offering(world, instance["offering"])
    if item is None or not item.bindings_retrievable:
        raise bad("this operation is not supported.")
    outcome = brokers.fetch_binding(world, guid)
    if outcome.status != 200:
        raise broker_refusal("fetching the binding", outcome.status, outcome.body)
    return Response.json(outcome.body.get("parameters") or {})


def _checked_name(world: World, instance_id: str, name: Any, own: str = "") -> str:
    if not isinstance(name, str) or not name:
        raise bad("missing service binding name")
    for row in table(world).values():
        if row["name"] == name and row["service_instance_id"] == instance_id and row["id"] != own:
            raise refusal(
                409, "Conflict", f"binding with same name exists for instance with id {instance_id}"
            )
    return name


@route(MANAGE, "bindings")
def create(world: World, request: Request, caller: Caller, **_: str) -> Response:
    """POST /v1/service_bindings: the instance must be there, ready, and bindable."""
    body = body_of(request)
    if "id" in body:
        raise bad("Invalid request body - providing specific resource id is forbidden")
    instance_id = body.get("service_instance_id")
    if not isinstance(instance_id, str) or not instance_id:
        raise bad("missing service instance id")
    instance = sm_instances.table(world).get(instance_id)
    if instance is None or not caller.sees(instance):
        raise refusal(404, "NotFound", "service instance not found or not accessible")
    under_way = running(world, instance)
    ready = instance["ready"]
    if under_way is not None:
        sm_instances.look(world, under_way)  # being refused counts as a look, so that trying again helps
    if under_way is not None and under_way["type"] == "delete":
        raise refusal(422, "OperationInProgress", f"deletion of instance {instance_id} is still in progress")
    if not ready:
        raise refusal(
            422, "OperationInProgress", f"creation of instance {instance_id} is still in progress or failed"
        )
    labels = checked_labels(body.get("labels"))
    given = parameters_of(body)
    name = _checked_name(world, instance_id, body.get("name"))
    item = brokers.offering(world, instance["offering"])
    plan = item.plan(instance["plan"]) if item is not None else None
    if item is None or plan is None or not (plan.bindable and item.bindable):
        error = broker_error(
            "bind request", 400, {"description": "plan not bindable", "error": "PlanNotBindable"}
        )
        return Response.json(error, 400)
    row = new_row(world, instance, name, labels, caller.name)
    row["container"] = caller.container
    outcome = brokers.bind(
        world,
        instance_id=instance_id,
        binding_id=row["id"],
        parameters=given,
        context={"binding_name": name},
    )
    wish = is_async(request)
    doing = f"bind request for binding {name}"
    if outcome.status >= 400 and not wish:
        raise broker_refusal(doing, outcome.status, outcome.body)
    table(world)[row["id"]] = row
    return _run(world, request, row, "create", outcome, wish, doing)


def new_row(world: World, instance: Json, name: str, labels: Json, by: str) -> Json:
    guid = world.new_id()
    now = moment(world, guid)
    return {
        "id": guid,
        "seq": brokers.next_number(world),
        "subaccount_id": instance["subaccount_id"],
        "service_instance_id": instance["id"],
        "name": name,
        "labels": labels,
        "ready": False,
        "created_by": by,
        "created_at": now,
        "updated_at": now,
    }


def _run(
    world: World,
    request: Request,
    row: Json,
    verb: str,
    outcome: brokers.Outcome,
    wish: bool | None,
    doing: str,
) -> Response:
    failure = None
    if outcome.status >= 400:
        failure = broker_error(doing, outcome.status, outcome.body)
    elif outcome.failure is not None:
        failure = broker_error(doing, outcome.status, {"description": outcome.failure})
    ticket = outcome.ticket
    if wish is True and ticket is None:
        ticket = world.ticket("sm.operation")
    instance = sm_instances.read(world)[row["service_instance_id"]]
    names = (row["name"], instance["name"])
    ever = faults.stuck(world, VERBS[verb], names, instance["offering"], instance["plan"])
    if ever is not None:
        ticket, failure = ever[1], None
    if wish is False and not wait(world, ticket):
        start(world, BINDINGS, row, verb, ticket, failure=failure)
        raise gateway_timeout()
    if wish is False or ticket is None:
        entry = start(world, BINDINGS, row, verb, None, failure=failure)
        complete(world, row, entry, failure)
        if failure is not None:
            return Response.json(failure, 502)
        if verb == "delete":
            return Response.json({})
        return Response.json(show(world, request, row, operation=True), 201)
    return accepted(BINDINGS, row, start(world, BINDINGS, row, verb, ticket, failure=failure))


@route(MANAGE, "bindings")
def change(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    """PATCH /v1/service_bindings/{id}: name and labels, at once."""
    row = find(world, caller, guid, looks=False)
    body = body_of(request)
    if is_async(request) is True:
        raise refusal(400, "InvalidRequest", "requested asynchronous operation is not supported")
    foreign = sorted(set(body) - {"name", "labels"})
    if foreign:
        raise refusal(400, "InvalidRequest", f"the properties {', '.join(foreign)} cannot be changed")
    if running(world, row) is not None:
        raise refusal(
            422, "ConcurrentOperationInProgress", "Another concurrent operation in progress for this resource"
        )
    labels = changed_labels(row["labels"], body["labels"]) if "labels" in body else row["labels"]
    if "name" in body:
        row["name"] = _checked_name(world, row["service_instance_id"], body["name"], guid)
    row["labels"] = labels
    row["updated_at"] = moment(world, row["id"])
    start(world, BINDINGS, row, "update", None)
    return Response.json(show(world, request, row, operation=True))


@route(MANAGE, "bindings")
def delete(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    """DELETE /v1/service_bindings/{id}: its credentials are dead when the broker has answered."""
    row = find(world, caller, guid, looks=False)
    under_way = running(world, row)
    if under_way is not None and under_way["type"] == "delete":
        sm_instances.look(world, under_way)
        raise refusal(
            422, "ConcurrentOperationInProgress", "Deletion is currently in progress for this resource"
        )
    doing = f"unbind request for binding {row['name']}"
    outcome = brokers.unbind(world, instance_id=row["service_instance_id"], binding_id=guid)
    wish = is_async(request)
    if outcome.status == 410:
        outcome = brokers.Outcome(200)
    if under_way is not None:
        finish(world, under_way, {"error": "BadRequest", "description": "superseded by a deletion"})
    return _run(world, request, row, "delete", outcome, wish, doing)
