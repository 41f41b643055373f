"""The provisioning service and what a local key sees of its subaccount; the rest of it answers 501.

Swagger of the Provisioning Service in SAP/crossplane-provider-btp; recordings datasource_subaccount_environment_instances
of SAP/terraform-provider-btp. Setting: ``environment_labels`` ("plain" | "colon": keys of older instances).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from . import accounts, assignments
from .cis_common import PROVISIONING, Json, job, job_answer, millis, refusal, route, subaccount_of
from .http import Request, Response, Router

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .world import World

LOCAL = "cis-local"


def routes(router: Router) -> None:
    """The routes that answer, and those that are only named."""
    environment = "/provisioning/v1/environments"
    router.add(PROVISIONING, "GET", environment, _environments)
    router.add(PROVISIONING, "GET", f"{environment}/{{guid}}", _environment)
    router.add(PROVISIONING, "GET", "/provisioning/v1/servicePlanAssignments", _quotas)
    router.add(PROVISIONING, "GET", "/jobs-management/v1/jobs/{number}/status", _no_job)
    for method, path in (
        ("POST", environment),
        ("DELETE", environment),
        ("PATCH", f"{environment}/{{guid}}"),
        ("DELETE", f"{environment}/{{guid}}"),
        ("GET", "/provisioning/v1/availableEnvironments"),
        ("*", f"{environment}/{{guid}}/bindings"),
        ("*", f"{environment}/{{guid}}/bindings/{{binding}}"),
        ("*", f"{environment}/{{guid}}/labels"),
    ):
        router.lacks(PROVISIONING, method, path)
    for host in (
        "saas-manager.cfapps.{region}.hana.ondemand.com",
        "events-service.cfapps.{region}.hana.ondemand.com",
    ):
        router.lacks(host, "*", "/{rest:path}")


def _mine(world: World, request: Request, claims: Json) -> Json:
    """The subaccount of a local key: the host must be the one of its region."""
    row = accounts.find(world, request, subaccount_of(claims))
    if row["region"] != request.place.get("region"):
        raise refusal(world, request, 404, 20004, f"Subaccount {row['id']} not found")
    return row


@route(LOCAL, "subaccount.entitlement.read")
def _quotas(world: World, request: Request, claims: Json, **_: str) -> Response:
    """GET /provisioning/v1/servicePlanAssignments."""
    row = _mine(world, request, claims)
    assignments.settle(world, row["id"])
    quotas = []
    for entry in assignments.of(world, row["id"]).values():
        plan = assignments.contract(world).get(
            assignments.plan_key(entry["service"], entry["plan"], entry["unique_id"])
        )
        if plan is None or not entry["amount"]:
            continue
        quotas.append(
            {
                "service": entry["service"],
                "plan": entry["plan"],
                "uniqueIdentifier": entry["unique_id"],
                "quota": int(entry["amount"]),
                "consumedQuota": assignments.live_instances(
                    world, row["id"], entry["service"], entry["plan"]
                ),
                "unlimited": plan["unlimited"],
                "serviceCategory": plan["category"],
                "provisioningMethod": "SERVICE_BROKER",
                "subaccountGUID": row["id"],
                "globalAccountGUID": accounts.global_account(world)["id"],
                "tenantId": row["id"],
                "resources": [],
            }
        )
    return Response.json({"quotas": quotas})


def _environment_rows(world: World, guid: str) -> list[Json]:
    """What environments the subaccount has, with the organisation as Cloud Controller knows it."""
    kept = world.table("environments").get(guid)
    if kept is None:
        return []
    for key, row in world.table("cf.organizations").items():
        if row.get("name") == kept["org"] and row.get("landscape") == kept["landscape"]:
            kept["org_id"] = key
    return [kept]


def _show_environment(world: World, request: Request, subaccount: Json, row: Json) -> Json:
    colon = ":" if row.get("style", world.settings.get("environment_labels", "plain")) == "colon" else ""
    api = request.url(f"api.cf.{row['landscape']}.hana.ondemand.com", "")
    labels = {
        f"API Endpoint{colon}": api,
        "Org Name": row["org"],
        f"Org ID{colon}": row["org_id"],
        f"Org Memory Limit{colon}": "4,096MB",
    }
    return {
        "id": row["id"],
        "name": f"{subaccount['subdomain']}_{row['org']}",
        "brokerId": row["broker_id"],
        "globalAccountGUID": accounts.global_account(world)["id"],
        "subaccountGUID": subaccount["id"],
        "tenantId": subaccount["id"],
        "serviceId": row["service_id"],
        "serviceName": "cloudfoundry",
        "planId": row["plan_id"],
        "planName": "standard",
        "operation": "provision",
        "parameters": json.dumps({"instance_name": row["org"], "status": "ACTIVE"}, separators=(",", ":")),
        "labels": json.dumps(labels, separators=(",", ":")),
        "customLabels": {},
        "type": "Provision",
        "status": "Processed",
        "environmentType": "cloudfoundry",
        "landscapeLabel": f"cf-{row['landscape']}",
        "platformId": row["org_id"],
        "createdDate": millis(row["created"]),
        "modifiedDate": millis(row["created"]),
        "state": "OK",
        "stateMessage": "Environment instance created.",
    }


@route(LOCAL, "subaccount.environment.read")
def _environments(world: World, request: Request, claims: Json, **_: str) -> Response:
    """GET /provisioning/v1/environments: labels and parameters are JSON inside of JSON."""
    mine = _mine(world, request, claims)
    rows = _environment_rows(world, mine["id"])
    return Response.json(
        {"environmentInstances": [_show_environment(world, request, mine, row) for row in rows]}
    )


@route(LOCAL, "subaccount.environment.read")
def _environment(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    mine = _mine(world, request, claims)
    for row in _environment_rows(world, mine["id"]):
        if row["id"].lower() == guid.lower():
            return Response.json(_show_environment(world, request, mine, row))
    raise refusal(world, request, 404, 41000, "Environment instance not found")


@route(LOCAL, "job.read")
def _no_job(world: World, request: Request, claims: Json, number: str = "", **_: str) -> Response:
    del claims
    job(world, request, "provisioning", number)
    return job_answer("COMPLETED")


def seed_environment(world: World, spec: Mapping[str, Any]) -> None:
    """The Cloud Foundry environment of a seeded subaccount; its organisation is Cloud Controller's business."""
    wanted = spec["cloud_foundry"]
    row = world.table("environments").get(spec["id"])
    if row is None:
        row = {
            "id": world.new_id().upper(),
            "broker_id": world.new_id().upper(),
            "service_id": world.new_id(),
            "plan_id": world.new_id(),
            "org_id": world.new_id(),
            "created": world.now(),
        }
        world.table("environments")[spec["id"]] = row
    row["landscape"] = wanted.get("landscape") or row.get("landscape") or spec["region"]
    row["org"] = wanted.get("org") or row.get("org") or spec["subdomain"]
    if "labels" in wanted:
        row["style"] = wanted["labels"]
