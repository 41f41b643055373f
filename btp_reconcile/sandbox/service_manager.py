"""SAP Service Manager, version 1: its routes, its catalogue, and seeds for runtime "other".

Swagger of the Service Manager API in SAP/crossplane-provider-btp; behaviour of the open source it grew from,
Peripli/service-manager, where the swagger is silent. ``smctl`` needs ``/v1/info`` and ``/v1/service_brokers/{id}`` too.
Instances are in ``sm_instances.py``, bindings in ``sm_bindings.py``, the query language in ``sm_query.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import brokers, sm_bindings, sm_instances
from .broker_catalogue import stable_id
from .http import Request, Response, Router
from .sm_common import (
    BINDINGS,
    HOST,
    INSTANCES,
    Caller,
    Json,
    bad,
    body_of,
    broker_error,
    checked_labels,
    moment,
    not_found,
    page,
    refusal,
    route,
    start,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .broker_catalogue import Offering, Plan
    from .world import World

_SINCE = "2026-01-02T03:04:05.678901Z"


def routes(router: Router) -> None:
    """The routes of the public API, and those that only ``smctl`` calls."""
    router.host(HOST, _unknown)
    table: tuple[tuple[str, str, Callable[..., Response]], ...] = (
        ("GET", "/v1/info", _info),
        ("GET", "/v1/monitor/health", _health),
        ("GET", "/v1/service_offerings", _offerings),
        ("GET", "/v1/service_offerings/{guid}", _offering),
        ("GET", "/v1/service_plans", _plans),
        ("GET", "/v1/service_plans/{guid}", _plan),
        ("GET", INSTANCES, sm_instances.listing),
        ("POST", INSTANCES, sm_instances.create),
        ("DELETE", INSTANCES, sm_instances.no_bulk),
        ("GET", f"{INSTANCES}/{{guid}}", sm_instances.single),
        ("PATCH", f"{INSTANCES}/{{guid}}", sm_instances.change),
        ("DELETE", f"{INSTANCES}/{{guid}}", sm_instances.delete),
        ("GET", f"{INSTANCES}/{{guid}}/parameters", sm_instances.parameters),
        ("GET", f"{INSTANCES}/{{guid}}/operations/{{number}}", sm_instances.operation),
        ("GET", BINDINGS, sm_bindings.listing),
        ("POST", BINDINGS, sm_bindings.create),
        ("GET", f"{BINDINGS}/{{guid}}", sm_bindings.single),
        ("PATCH", f"{BINDINGS}/{{guid}}", sm_bindings.change),
        ("DELETE", f"{BINDINGS}/{{guid}}", sm_bindings.delete),
        ("GET", f"{BINDINGS}/{{guid}}/parameters", sm_bindings.parameters),
        ("GET", f"{BINDINGS}/{{guid}}/operations/{{number}}", sm_bindings.operation),
        ("GET", "/v1/service_brokers", _brokers),
        ("GET", "/v1/service_brokers/{guid}", _broker),
        ("GET", "/v1/platforms", _platforms),
        ("POST", "/v1/platforms", _register_platform),
        ("GET", "/v1/platforms/{guid}", _platform),
        ("DELETE", "/v1/platforms/{guid}", _delete_platform),
        ("GET", "/v1/visibilities", _visibilities),
        ("GET", "/v1/agents/versions", _agents),
    )
    for method, path, handler in table:
        router.add(HOST, method, path, handler)
    for method, path in (
        ("PATCH", "/v1/platforms/{guid}"),
        ("POST", "/v1/service_brokers"),
        ("PATCH", "/v1/service_brokers/{guid}"),
        ("DELETE", "/v1/service_brokers/{guid}"),
    ):
        router.lacks(HOST, method, path)


def _unknown(world: World, request: Request) -> Response:
    del world
    return refusal(404, "NotFound", f"could not find {request.path}").response


# ----------------------------------------------------------------------------------------------------------------------
# For clients that log in themselves


def _info(world: World, request: Request) -> Response:
    """GET /v1/info, without a token: where tokens come from."""
    region = request.place["region"]
    found = [row["subdomain"] for row in world.table("subaccounts").values() if row["region"] == region]
    zone = world.settings.get("sm_token_issuer") or (found[0] if found else "unknown")
    return Response.json(
        {
            "token_issuer_url": request.url(f"{zone}.authentication.{region}.hana.ondemand.com", ""),
            "token_basic_auth": True,
        }
    )


def _health(world: World, request: Request) -> Response:
    del world, request
    return Response.json({"status": "UP"})


# ----------------------------------------------------------------------------------------------------------------------
# Catalogue

_ENVIRONMENTS = {"": "sapcp", "btp": "sapcp", "kubernetes": "sapcp", "cloudfoundry": "cloudfoundry"}


def _platform_name(request: Request) -> str:
    wanted = request.one("environment") or ""
    if wanted not in _ENVIRONMENTS:
        raise bad(f"unsupported environment: {wanted}")
    return _ENVIRONMENTS[wanted]


def _broker_id(item: Offering) -> str:
    return stable_id("sm-broker", item.name)


def _show_offering(item: Offering) -> Json:
    shown: Json = {
        "id": sm_instances.offering_id(item),
        "ready": True,
        "name": item.name,
        "description": item.description,
        "bindable": item.bindable,
        "instances_retrievable": item.instances_retrievable,
        "bindings_retrievable": item.bindings_retrievable,
        "plan_updateable": item.plan_updateable,
        "allow_context_updates": item.allow_context_updates,
    }
    if item.tags:
        shown["tags"] = list(item.tags)
    return shown | {
        "metadata": dict(item.metadata),
        "broker_id": _broker_id(item),
        "catalog_id": item.id,
        "catalog_name": item.name,
        "created_at": _SINCE,
        "updated_at": _SINCE,
    }


def _show_plan(item: Offering, plan: Plan) -> Json:
    shown: Json = {
        "id": sm_instances.plan_id(item, plan),
        "ready": True,
        "name": plan.name,
        "description": plan.description,
        "catalog_id": plan.id,
        "catalog_name": plan.name,
        "free": plan.free,
        "metadata": {
            "supportedPlatforms": [],
            "supportsInstanceSharing": bool(plan.metadata.get("supportsInstanceSharing", False)),
        },
        "schemas": dict(plan.schemas),
        "service_offering_id": sm_instances.offering_id(item),
        "created_at": _SINCE,
        "updated_at": _SINCE,
        "labels": {"commercial_name": [plan.name]},
    }
    if not plan.bindable:
        shown["bindable"] = False
    if plan.plan_updateable is not None:
        shown["plan_updateable"] = plan.plan_updateable
    return shown


def _field(name: str, default: Any = None) -> Callable[[Json], Any]:
    return lambda row: row["shown"].get(name, default)


_OFFERING_FIELDS: Mapping[str, Callable[[Json], Any]] = {
    "data_center": _field("data_center", ""),
    **{
        name: _field(name)
        for name in (
            "id",
            "name",
            "ready",
            "description",
            "bindable",
            "instances_retrievable",
            "bindings_retrievable",
            "plan_updateable",
            "allow_context_updates",
            "broker_id",
            "catalog_id",
            "catalog_name",
            "created_at",
            "updated_at",
        )
    },
}
_PLAN_FIELDS: Mapping[str, Callable[[Json], Any]] = {
    "data_center": _field("data_center", ""),
    **{
        name: _field(name)
        for name in (
            "id",
            "name",
            "ready",
            "description",
            "free",
            "bindable",
            "plan_updateable",
            "catalog_id",
            "catalog_name",
            "service_offering_id",
            "created_at",
            "updated_at",
        )
    },
}


def _labels(row: Json) -> dict[str, list[str]]:
    return dict(row["shown"].get("labels") or {})


def _shown(row: Json) -> Json:
    return dict(row["shown"])


def _seen(world: World, caller: Caller, platform: str) -> list[tuple[Offering, list[Plan]]]:
    """What the caller's subaccount is entitled to and the catalogue already knows of."""
    found = []
    for item in brokers.offerings(world):
        plans = [plan for plan in item.plans if sm_instances.is_visible(world, caller, item, plan)]
        if plans and platform in item.platforms:
            found.append((item, plans))
    return found


@route("service_offering.read", "offerings")
def _offerings(world: World, request: Request, caller: Caller, **_: str) -> Response:
    seen = _seen(world, caller, _platform_name(request))
    rows = [{"seq": number + 1, "shown": _show_offering(item)} for number, (item, _) in enumerate(seen)]
    return page(world, request, rows, _OFFERING_FIELDS, _labels, _shown)


@route("service_plan.read", "plans")
def _plans(world: World, request: Request, caller: Caller, **_: str) -> Response:
    seen = _seen(world, caller, _platform_name(request))
    shown = [_show_plan(item, plan) for item, plans in seen for plan in plans]
    rows = [{"seq": number + 1, "shown": plan} for number, plan in enumerate(shown)]
    return page(world, request, rows, _PLAN_FIELDS, _labels, _shown)


@route("service_offering.read", "offerings")
def _offering(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    del request
    for item, _plans_seen in _seen(world, caller, "sapcp"):
        if sm_instances.offering_id(item) == guid:
            return Response.json(_show_offering(item))
    raise not_found("/v1/service_offerings")


@route("service_plan.read", "plans")
def _plan(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    del request
    for item, plans in _seen(world, caller, "sapcp"):
        for plan in plans:
            if sm_instances.plan_id(item, plan) == guid:
                return Response.json(_show_plan(item, plan))
    raise not_found("/v1/service_plans")


# ----------------------------------------------------------------------------------------------------------------------
# Brokers, platforms, visibilities

_NAMED: Mapping[str, Callable[[Json], Any]] = {
    name: _field(name) for name in ("id", "name", "type", "description", "ready", "created_at", "updated_at")
}


def _show_broker(item: Offering, request: Request) -> Json:
    return {
        "id": _broker_id(item),
        "ready": True,
        "name": f"{item.name}-broker",
        "description": f"Broker of {item.name}",
        "broker_url": request.url(
            f"{item.name}-broker.cfapps.{request.place['region']}.hana.ondemand.com", ""
        ),
        "created_at": _SINCE,
        "updated_at": _SINCE,
    }


@route("subaccount.broker.read")
def _brokers(world: World, request: Request, caller: Caller, **_: str) -> Response:
    seen = _seen(world, caller, "sapcp")
    rows = [
        {"seq": number + 1, "shown": _show_broker(item, request)} for number, (item, _) in enumerate(seen)
    ]
    return page(world, request, rows, _NAMED, _labels, _shown)


@route("subaccount.broker.read")
def _broker(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    for item, _plans_seen in _seen(world, caller, "sapcp"):
        if _broker_id(item) == guid:
            return Response.json(_show_broker(item, request))
    raise not_found("/v1/service_brokers")


def _mine(world: World, caller: Caller) -> list[Json]:
    return [row for row in world.table("sm.platforms").values() if caller.sees(row)]


@route("subaccount.platform.read")
def _platforms(world: World, request: Request, caller: Caller, **_: str) -> Response:
    return page(world, request, _mine(world, caller), _NAMED, _labels, _shown)


@route("subaccount.platform.manage")
def _register_platform(world: World, request: Request, caller: Caller, **_: str) -> Response:
    """POST /v1/platforms: the credentials are told once."""
    body = body_of(request)
    name, kind = body.get("name"), body.get("type")
    if not isinstance(name, str) or not name or not isinstance(kind, str) or not kind:
        raise bad("missing platform name or type")
    if any(row["shown"]["name"] == name for row in _mine(world, caller)):
        raise refusal(409, "Conflict", "found conflicting platform")
    guid = str(body.get("id") or world.new_id())
    now = moment(world, guid)
    shown = {
        "id": guid,
        "ready": True,
        "name": name,
        "type": kind,
        "description": str(body.get("description", "")),
        "created_at": now,
        "updated_at": now,
        "labels": {"subaccount_id": [caller.subaccount_id], **checked_labels(body.get("labels"))},
    }
    world.table("sm.platforms")[guid] = {
        "seq": brokers.next_number(world),
        "subaccount_id": caller.subaccount_id,
        "container": caller.container,
        "shown": shown,
    }
    credentials = {"basic": {"username": f"p-{guid[:8]}", "password": world.new_id()}}
    return Response.json({**shown, "credentials": credentials}, 201)


@route("subaccount.platform.read")
def _platform(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    del request
    row = world.table("sm.platforms").get(guid)
    if row is None or not caller.sees(row):
        raise not_found("/v1/platforms")
    return Response.json(row["shown"])


@route("subaccount.platform.manage")
def _delete_platform(world: World, request: Request, caller: Caller, guid: str = "", **_: str) -> Response:
    del request
    row = world.table("sm.platforms").get(guid)
    if row is None or not caller.sees(row):
        raise not_found("/v1/platforms")
    del world.table("sm.platforms")[guid]
    return Response.json({})


@route("service_plan.read")
def _visibilities(world: World, request: Request, caller: Caller, **_: str) -> Response:
    del caller
    return page(world, request, [], _NAMED, _labels, _shown)


@route("service_plan.read")
def _agents(world: World, request: Request, caller: Caller, **_: str) -> Response:
    del world, request, caller
    return Response.json({"cf": [], "k8s": ["0.3.0"]})


# ----------------------------------------------------------------------------------------------------------------------
# Seed and snapshot


def seed(world: World, document: Mapping[str, Any]) -> None:
    """Instances of runtime "other" with their keys; what is there by name stays, missing keys are added."""
    for spec in (document.get("subaccounts") or {}).values():
        for instance in spec.get("instances") or ():
            if instance.get("runtime") == "other":
                _seed_instance(world, spec["id"], instance)


def _listed(labels: Mapping[str, Any] | None) -> dict[str, list[str]]:
    return {
        key: [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
        for key, value in (labels or {}).items()
    }


def _seed_instance(world: World, guid: str, spec: Mapping[str, Any]) -> None:
    subaccount = world.table("subaccounts")[guid]
    item = brokers.offering(world, spec["service"])
    plan = item.plan(spec["plan"]) if item is not None else None
    if item is None or plan is None:
        raise LookupError(f"the brokers of the sandbox do not offer {spec['service']}/{spec['plan']}")
    row = next(
        (
            old
            for old in sm_instances.table(world).values()
            if old["name"] == spec["name"] and old["subaccount_id"] == guid
        ),
        None,
    )
    if row is None:
        row = sm_instances.new_row(
            world, subaccount, item, plan, spec["name"], _listed(spec.get("labels")), "sandbox@example.com"
        )
        sm_instances.table(world)[row["id"]] = row
        _seed_times(row, spec)
        last = spec.get("last_operation") or {}
        if (last.get("type", "create"), last.get("state", "succeeded")) != ("create", "failed"):
            outcome = brokers.provision(
                world,
                instance_id=row["id"],
                offering=item,
                plan=plan,
                parameters=spec.get("parameters"),
                context={
                    "subaccount_id": guid,
                    "subdomain": subaccount["subdomain"],
                    "region": subaccount["region"],
                    "platform": "sapcp",
                    "instance_name": spec["name"],
                },
                orders=False,
            )
            _must(outcome, spec["name"])
        _seed_operation(world, INSTANCES, row, last)
    names = {
        bound["name"]
        for bound in sm_bindings.table(world).values()
        if bound["service_instance_id"] == row["id"]
    }
    for key in spec.get("keys") or ():
        if key["name"] not in names:
            _seed_binding(world, row, key)


def _seed_binding(world: World, instance: Json, spec: Mapping[str, Any]) -> None:
    row = sm_bindings.new_row(
        world, instance, spec["name"], _listed(spec.get("labels")), "sandbox@example.com"
    )
    sm_bindings.table(world)[row["id"]] = row
    _seed_times(row, spec)
    last = spec.get("last_operation") or {}
    if (last.get("type", "create"), last.get("state", "succeeded")) != ("create", "failed"):
        outcome = brokers.bind(
            world,
            instance_id=instance["id"],
            binding_id=row["id"],
            parameters=spec.get("parameters"),
            orders=False,
        )
        _must(outcome, spec["name"])
    _seed_operation(world, BINDINGS, row, last)


def _must(outcome: brokers.Outcome, name: str) -> None:
    if outcome.status >= 400:
        raise ValueError(f"the broker refuses the seeded {name}: {outcome.body.get('description')}")


def _seed_times(row: Json, spec: Mapping[str, Any]) -> None:
    if spec.get("created_at"):
        row["created_at"] = row["updated_at"] = str(spec["created_at"])


def _seed_operation(world: World, kind: str, row: Json, last: Mapping[str, Any]) -> None:
    verb, state = last.get("type", "create"), last.get("state", "succeeded")
    text = str(last.get("description", ""))
    ready = verb != "create" or state == "succeeded"
    row["ready"] = ready
    if kind == INSTANCES:
        row["usable"] = ready
    failure = None
    if state == "failed":
        failure = broker_error(f"{verb} request", 500, {"description": text})
        failure["description"] = text or failure["description"]
    ticket = world.ticket("sm.operation") if state == "in progress" else None
    start(world, kind, row, verb, ticket, failure=failure)


def snapshot(world: World) -> Json:
    """Instances of Service Manager by subaccount and name, with their keys."""
    shown: dict[str, Json] = {}
    operations = world.table("sm.operations")
    for row in sm_instances.table(world).values():
        subaccount = world.table("subaccounts")[row["subaccount_id"]]["name"]
        known = world.table("broker.instances").get(row["id"]) or {}
        shown.setdefault(subaccount, {})[row["name"]] = {
            "service": row["offering"],
            "plan": row["plan"],
            "parameters": known.get("parameters"),
            "labels": {key: sorted(values) for key, values in sorted(row["labels"].items())},
            "ready": row["ready"],
            "last_operation": _brief(operations.get(row.get("operation", ""))),
            "keys": {},
        }
    for bound in sm_bindings.table(world).values():
        instance = sm_instances.table(world).get(bound["service_instance_id"])
        if instance is None:
            continue
        subaccount = world.table("subaccounts")[bound["subaccount_id"]]["name"]
        known = world.table("broker.bindings").get(bound["id"]) or {}
        shown[subaccount][instance["name"]]["keys"][bound["name"]] = {
            "parameters": known.get("parameters"),
            "labels": {key: sorted(values) for key, values in sorted(bound["labels"].items())},
            "ready": bound["ready"],
            "last_operation": _brief(operations.get(bound.get("operation", ""))),
        }
    return {"service_manager": shown}


def _brief(operation: Json | None) -> str:
    return f"{operation['type']} {operation['state']}" if operation else ""
