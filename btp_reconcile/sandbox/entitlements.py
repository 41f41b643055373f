"""The Entitlements Service.

Swagger of the Entitlements Service in SAP/crossplane-provider-btp, corrected by the recordings of
SAP/terraform-provider-btp (resource_subaccount_entitlement.*, datasource_regions) and by what its resources rely on.

Settings: ``entitlement_failures`` (list of {service?, plan?, subaccount?, times, message}: the assignment ends in
PROCESSING_FAILED), ``elastic_amount`` ("refuse" | "accept" | "hang": what a number for a plan without quota does),
``entitlement_answer`` ("string" | "empty" | "object": body of the 202).
The delay of an assignment is ``delays.entitlement``, that of the marketplaces ``delays.visibility``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import accounts, assignments, brokers, faults, provisioning
from .broker_catalogue import AUTO_ASSIGNED, MORE_ENTITLEMENTS, NUMERIC
from .cis_common import (
    ENTITLEMENTS,
    Json,
    body_of,
    flag,
    invalid,
    job,
    job_answer,
    millis,
    new_job,
    not_allowed,
    refusal,
    route,
)
from .http import Request, Response, Router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .world import World

CENTRAL = "cis-central"
UNLIMITED = 2000000000
ICON = "PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4="


def routes(router: Router) -> None:
    """The routes of this service, and those of the provisioning service."""
    base = "/entitlements/v1"
    table: tuple[tuple[str, str, Callable[..., Response]], ...] = (
        ("GET", f"{base}/assignments", _assignments),
        ("GET", f"{base}/globalAccountAssignments", _global_assignments),
        ("PUT", f"{base}/subaccountServicePlans", _assign),
        ("PUT", f"{base}/directories/{{guid}}/assignments", _assign_directory),
        ("PATCH", f"{base}/directories/{{guid}}/assignments", _distribute),
        ("GET", f"{base}/globalAccountAllowedDataCenters", _data_centers),
        ("GET", "/jobs-management/v1/jobs/{number}/status", _job),
    )
    for method, path, handler in table:
        router.add(ENTITLEMENTS, method, path, handler)
    provisioning.routes(router)


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def _tidy(number: float) -> float | int:
    """Assigned amounts are integers as long as they can be."""
    return int(number) if float(number).is_integer() else number


def _display(world: World, service: str, fallback: str) -> tuple[str, str, str]:
    item = brokers.offering(world, service)
    if item is None:
        return fallback or service, fallback or service, "FOUNDATION_CROSS_SERVICES"
    return item.display_name or service, item.description, item.business_category


def _service(world: World, plan: Json, *, entitled: bool) -> Json:
    title, text, group = _display(world, plan["service"], plan.get("display_name") or "")
    shown: Json = {
        "name": plan["service"],
        "displayName": title,
        "businessCategory": {"id": group, "displayName": group.replace("_", " ").title()},
        "ownerType": "VENDOR",
        "iconBase64": ICON,
        "applicationCoordinates": {},
    }
    if entitled:
        shown |= {"description": text, "termsOfUseUrl": "N/A", "serviceTermsOfUseStatus": None}
    return {**shown, "servicePlans": []}


def _entitled_plan(world: World, plan: Json, holder: str | None, users: Mapping[str, int]) -> Json:
    """A plan of the contract, as the global account (or the directory ``holder``) has it."""
    numeric = plan["category"] in NUMERIC
    amount = float(plan["amount"])
    if holder is not None:
        amount = float(assignments.of(world, holder)[_key(plan)]["amount"] or 0)
    left: float | None = assignments.remaining(world, plan, holder) if numeric else amount
    if plan["unlimited"]:
        amount, left = UNLIMITED, None
    return {
        "name": plan["plan"],
        "displayName": plan["plan"],
        "description": f"{plan['service']} {plan['plan']}",
        "uniqueIdentifier": plan["unique_id"],
        "provisioningMethod": "NONE_REQUIRED" if "APPLICATION" in plan["category"] else "SERVICE_BROKER",
        "category": plan["category"],
        "amount": amount,
        "remainingAmount": left,
        "unlimited": plan["unlimited"],
        "providedBy": "VENDOR",
        "beta": False,
        "availableForInternal": False,
        "internalQuotaLimit": None,
        "autoAssign": plan["auto"],
        "autoDistributeAmount": None,
        "maxAllowedSubaccountQuota": plan.get("maximum"),
        "numberOfAssignedEntities": users.get(_key(plan), 0),
        "resources": None,
        "dataCenters": [{"name": f"cf-{name}", "region": name} for name in _regions(world)],
        "sourceEntitlements": [
            {
                "entitlementName": f"{plan['service']}-{plan['plan']}-SYSTEM",
                "productDisplayName": plan["service"],
                "licensedQuantity": amount,
                "amount": amount,
                "productId": None,
                "restricted": False,
                "allowedSubaccounts": None,
                "autoAssign": plan["auto"],
                "commercialModel": {
                    "name": "Subscription",
                    "displayName": "Subscription",
                    "consumptionBased": False,
                    "description": "",
                },
            }
        ],
        "dependsOn": [],
        "additionalPlanFeatures": [],
        "deprecationMessage": None,
        "endDate": None,
    }


def _regions(world: World) -> list[str]:
    names = {str(world.settings["region"])}
    names.update(row["region"] for row in world.table("subaccounts").values())
    return sorted(names)


def _key(plan: Json) -> str:
    return assignments.plan_key(plan["service"], plan["plan"], plan["unique_id"])


def _assignment(world: World, row: Json, plan: Json) -> Json:
    parent = assignments.parent_of(world, row)
    account = accounts.global_account(world)["id"]
    numeric = plan["category"] in NUMERIC
    if parent is None:
        total = float(plan["amount"])
    else:
        total = float((assignments.of(world, parent).get(_key(plan)) or {}).get("amount") or 0)
    left: float | None = assignments.remaining(world, plan, parent) if numeric else total
    if plan["unlimited"]:
        total, left = UNLIMITED, None
    amount = row["amount"]
    wanted = row["requested"]
    return {
        "entityId": row["entity_id"],
        "entityType": row["entity_type"],
        "amount": None if amount is None else _tidy(amount),
        "requestedAmount": None if wanted is None else _tidy(wanted),
        "unlimitedAmountAssigned": False,
        "entityState": row["state"],
        "stateMessage": row["message"],
        "autoAssign": bool(row.get("auto_assign", False)),
        "autoAssigned": row["auto_assigned"],
        "autoDistributeAmount": row.get("auto_distribute"),
        "createdDate": millis(row["created"]),
        "modifiedDate": millis(row["modified"]),
        "resources": [],
        "parentId": parent or account,
        "parentType": "DIRECTORY" if parent else "GLOBAL_ACCOUNT",
        "parentAmount": total,
        "parentRemainingAmount": left,
        "billingObject": None,
        "availableBillingObjects": [],
        "parentAssignedBillingObject": None,
    }


def _assigned_plan(plan: Json) -> Json:
    return {
        "name": plan["plan"],
        "displayName": plan["plan"],
        "uniqueIdentifier": plan["unique_id"],
        "category": plan["category"],
        "beta": False,
        "maxAllowedSubaccountQuota": plan.get("maximum"),
        "unlimited": plan["unlimited"],
        "assignmentInfo": [],
        "assignedResources": None,
    }


@route(CENTRAL, "global-account.entitlement.read", "directory.entitlement.read", central=True)
def _assignments(world: World, request: Request, claims: Json, **_: str) -> Response:
    """GET /entitlements/v1/assignments: what is entitled, and what of it is assigned to whom."""
    del claims
    return _answer(world, request, request.one("directoryGUID"))


@route(CENTRAL, "global-account.entitlement.read", central=True)
def _global_assignments(world: World, request: Request, claims: Json, **_: str) -> Response:
    del claims
    return _answer(world, request, None)


def _answer(world: World, request: Request, directory: str | None) -> Response:
    subaccount = request.one("subaccountGUID")
    service, name = request.one("serviceName"), request.one("planName")
    if (service is None) != (name is None):
        raise invalid(world, request, "serviceName and planName are used together")
    if directory is not None:
        if "ENTITLEMENTS" not in accounts.find_directory(world, request, directory)["features"]:
            raise not_allowed(world, request, f"Directory {directory} does not manage entitlements.")
        assignments.settle(world, directory)
    if subaccount is not None:
        accounts.find(world, request, subaccount)
        if directory is not None and assignments.managed_parent(world, subaccount) != directory:
            raise not_allowed(world, request, f"Subaccount {subaccount} is not under directory {directory}.")
        entities = [subaccount]
    else:
        entities = list(world.table("entitlements.assignments"))
    for entity in entities:
        assignments.settle(world, entity)
    automatic = flag(request, "includeAutoManagedPlans")

    def wanted(entry: Json) -> bool:
        if service is not None and (entry["service"], entry["plan"]) != (service, name):
            return False
        return automatic or not (entry.get("auto") or entry.get("auto_assigned"))

    answer: Json = {"entitledServices": _entitled(world, directory, wanted)}
    if not flag(request, "entitledServicesOnly"):
        only = request.one("assignedServiceName")
        rows = [
            row
            for entity in entities
            for row in assignments.of(world, entity).values()
            if wanted(row)
            and (only is None or row["service"] == only)
            and assignments.parent_of(world, row) == directory
        ]
        answer["assignedServices"] = _assigned(world, rows)
    answer["fetchErrorFromExternalProviderRegistry"] = None
    return Response.json(answer)


def _entitled(world: World, directory: str | None, wanted: Callable[[Json], bool]) -> list[Json]:
    users: dict[str, int] = {}
    for row in assignments.each(world):
        key = _key(row)
        users[key] = users.get(key, 0) + 1
    services: dict[str, Json] = {}
    held = None if directory is None else assignments.of(world, directory)
    for plan in assignments.contract(world).values():
        if not wanted(plan) or (held is not None and not (held.get(_key(plan)) or {}).get("amount")):
            continue
        if plan["service"] not in services:
            services[plan["service"]] = _service(world, plan, entitled=True)
        services[plan["service"]]["servicePlans"].append(_entitled_plan(world, plan, directory, users))
    return list(services.values())


def _assigned(world: World, rows: Iterable[Json]) -> list[Json]:
    services: dict[str, Json] = {}
    plans: dict[str, Json] = {}
    for row in rows:
        key = _key(row)
        plan = assignments.contract(world).get(key)
        if plan is None:
            continue
        if row["service"] not in services:
            services[row["service"]] = _service(world, plan, entitled=False)
        if key not in plans:
            plans[key] = _assigned_plan(plan)
            services[row["service"]]["servicePlans"].append(plans[key])
        plans[key]["assignmentInfo"].append(_assignment(world, row, plan))
    return list(services.values())


# ----------------------------------------------------------------------------------------------------------------------
# Assigning


def _chosen(world: World, request: Request, service: str, name: str, unique: Any) -> Json:
    """The plan of the contract that a change means: 30015 when there is none, 30001 when there are several."""
    found = assignments.contract_plans(world, service, name)
    if unique is not None:
        found = [plan for plan in found if plan["unique_id"] == unique]
    if not found:
        account = accounts.global_account(world)["id"]
        raise refusal(
            world,
            request,
            409,
            30015,
            f"Global account {account} is not entitled to plan '{name}' of service '{service}'.",
        )
    if len(found) > 1:
        raise refusal(
            world,
            request,
            400,
            30001,
            f"Several plans '{name}' of service '{service}' exist: give the unique identifier of one.",
        )
    return found[0]


def _numeric(plan: Json) -> bool:
    return plan["category"] in NUMERIC and not plan["unlimited"]


def _wanted(world: World, request: Request, plan: Json, info: Json) -> tuple[float, bool]:
    """The amount that an assignment asks for, and whether it will hang; 12003 for the wrong one of the two fields."""
    amount, enable = info.get("amount"), info.get("enable")
    if amount is not None and (isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0):
        raise invalid(world, request, "amount must be a number that is not negative")
    if enable is not None and not isinstance(enable, bool):
        raise invalid(world, request, "enable must be a boolean")
    name = f"plan '{plan['plan']}' of service '{plan['service']}'"
    if _numeric(plan):
        if amount is None or enable is not None:
            raise not_allowed(world, request, f"Set 'amount' instead of 'enable' for {name}.")
        return float(amount), False
    if amount is not None and enable is None:
        mode = world.settings.get("elastic_amount", "refuse")
        if mode == "refuse":
            raise not_allowed(world, request, f"Set 'enable' instead of 'amount' for {name}.")
        return (1.0 if amount else 0.0), mode == "hang"
    if amount is not None or enable is None:
        raise not_allowed(world, request, f"Set 'enable' instead of 'amount' for {name}.")
    return (1.0 if enable else 0.0), False


def _check_quota(
    world: World, request: Request, plan: Json, guid: str, wanted: float, planned: dict[str, float]
) -> None:
    """30009/409: more than is left, than one subaccount may have, or than one subaccount of the account."""
    parent = assignments.managed_parent(world, guid)
    row = assignments.of(world, guid).get(_key(plan))
    before = assignments.held(row) if row else 0.0
    text = None
    if parent is not None and not (assignments.of(world, parent).get(_key(plan)) or {}).get("amount"):
        text = f"Directory {parent} holds no quota of plan '{plan['plan']}'."
    elif plan["category"] == "ELASTIC_LIMITED":
        others = [
            other
            for other in assignments.each(world)
            if _key(other) == _key(plan) and other["entity_id"] != guid and assignments.held(other)
        ]
        if others:
            text = f"Plan '{plan['plan']}' can be assigned to one subaccount only."
    elif _numeric(plan):
        maximum = plan.get("maximum")
        book = f"{parent}/{_key(plan)}"
        more = wanted - before
        if maximum is not None and wanted > maximum:
            text = (
                f"Requested quota for plan '{plan['plan']}' exceeds the maximum of a subaccount, {maximum}."
            )
        elif more > assignments.remaining(world, plan, parent) - planned.get(book, 0.0):
            text = f"Requested quota for plan '{plan['plan']}' is larger than what is left."
        planned[book] = planned.get(book, 0.0) + more
    if text is not None:
        raise refusal(world, request, 409, 30009, text)


def _ordered_failure(world: World, plan: Json, guid: str) -> str | None:
    for order in world.settings.get("entitlement_failures") or ():
        times = order.get("times", 1)
        fits = (
            order.get("service", plan["service"]) == plan["service"]
            and order.get("plan", plan["plan"]) == plan["plan"]
            and order.get("subaccount", guid) == guid
            and (times is None or times > 0)
        )
        if fits:
            if times is not None:
                order["times"] = times - 1
            return str(order.get("message", "The assignment of the service plan failed."))
    return None


def _items(world: World, request: Request) -> list[tuple[Json, list[Json]]]:
    """The plans of the body with their assignments, or 11000."""
    listed = body_of(world, request).get("subaccountServicePlans")
    if not isinstance(listed, list) or not listed:
        raise invalid(world, request, "subaccountServicePlans is required and not empty")
    problems = []
    found: list[tuple[Json, list[Json]]] = []
    for item in listed:
        if not isinstance(item, dict):
            problems.append("subaccountServicePlans holds objects")
            continue
        problems += [
            f"{name} is required"
            for name in ("serviceName", "servicePlanName")
            if not isinstance(item.get(name), str) or not item[name]
        ]
        infos = item.get("assignmentInfo")
        if not isinstance(infos, list) or not infos:
            problems.append("assignmentInfo is required and not empty")
            continue
        if not all(isinstance(info, dict) and isinstance(info.get("subaccountGUID"), str) for info in infos):
            problems.append("subaccountGUID is required")
            continue
        found.append((item, infos))
    if problems:
        raise invalid(world, request, *problems)
    return found


@route(CENTRAL, "global-account.entitlement.subaccount.update", central=True)
def _assign(world: World, request: Request, claims: Json, **_: str) -> Response:
    """PUT /entitlements/v1/subaccountServicePlans: sets absolute amounts, or refuses the whole of it."""
    del claims
    changes: list[tuple[Json, str, float, bool]] = []
    planned: dict[str, float] = {}
    items = _items(world, request)
    subaccounts = list(dict.fromkeys(info["subaccountGUID"] for _, infos in items for info in infos))
    for guid in subaccounts:
        row = accounts.find(world, request, guid)
        assignments.settle(world, guid)
        busy = any(entry["state"] in assignments.BUSY for entry in assignments.of(world, guid).values())
        if busy or row["state"] != "OK":
            raise refusal(
                world,
                request,
                400,
                30004,
                f"Subaccount {guid} is locked by another running change. Try again later.",
            )
    for item, infos in items:
        unique = item.get("servicePlanUniqueIdentifier")
        plan = _chosen(world, request, item["serviceName"], item["servicePlanName"], unique)
        for info in infos:
            guid = info["subaccountGUID"]
            wanted, hangs = _wanted(world, request, plan, info)
            held = assignments.of(world, guid).get(_key(plan))
            if not wanted and held is not None and held["auto_assigned"]:
                raise not_allowed(
                    world, request, f"Plan '{plan['plan']}' is assigned automatically and cannot be removed."
                )
            if wanted:
                _check_quota(world, request, plan, guid, wanted, planned)
            changes.append((plan, guid, wanted, hangs))
    touched = []
    for plan, guid, wanted, hangs in changes:
        held = assignments.of(world, guid).get(_key(plan))
        if held is None and not wanted:
            continue  # there is nothing to take away
        if held is not None and held["auto_assigned"]:
            continue  # it is there and stays
        made = assignments.start(world, guid, "SUBACCOUNT", plan, wanted, _ordered_failure(world, plan, guid))
        if hangs or faults.stuck(world, "assign", (), plan["service"], plan["plan"]):
            made["ticket"] = world.never()
        touched.append([guid, _key(plan), wanted])
    location = new_job(world, "entitlements", {"rows": touched})
    style = world.settings.get("entitlement_answer", "string")
    if style == "empty":
        return Response.empty(202, (location,))
    number = location[1].split("/")[-2]
    return Response.json({"jobId": number} if style == "object" else number, 202, (location,))


@route(CENTRAL, "job.read", central=True)
def _job(world: World, request: Request, claims: Json, number: str = "", **_: str) -> Response:
    """Progress of a change; a look at the job is a look at what it does."""
    del claims
    entry = job(world, request, "entitlements", number)
    for guid in dict.fromkeys(guid for guid, _, _ in entry["rows"]):
        assignments.settle(world, guid)
    states = []
    for guid, key, wanted in entry["rows"]:
        row = assignments.of(world, guid).get(key)
        states.append(row["state"] if row is not None else "OK" if not wanted else "PROCESSING_FAILED")
    if any(state in assignments.BUSY for state in states):
        return job_answer("IN_PROGRESS")
    return job_answer("FAILED" if "PROCESSING_FAILED" in states else "COMPLETED")


def _managed(world: World, request: Request, guid: str) -> None:
    if "ENTITLEMENTS" not in accounts.find_directory(world, request, guid)["features"]:
        raise not_allowed(world, request, f"Directory {guid} does not manage entitlements.")


def _listed(world: World, request: Request, name: str) -> list[Json]:
    listed = body_of(world, request).get(name)
    good = isinstance(listed, list) and all(
        isinstance(item, dict) and isinstance(item.get("service"), str) and isinstance(item.get("plan"), str)
        for item in listed
    )
    if not good or not isinstance(listed, list):
        raise invalid(world, request, f"{name} lists objects with service and plan")
    return listed


@route(CENTRAL, "directory.entitlement.update", central=True)
def _assign_directory(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    """PUT …/directories/{guid}/assignments: done when it answers."""
    del claims
    _managed(world, request, guid)
    changes = []
    for item in _listed(world, request, "entitlements"):
        plan = _chosen(world, request, item["service"], item["plan"], item.get("planUniqueIdentifier"))
        wanted, _hangs = _wanted(world, request, plan, item)
        row = assignments.of(world, guid).get(_key(plan))
        more = wanted - (assignments.held(row) if row else 0.0)
        if _numeric(plan) and more > assignments.remaining(world, plan):
            raise refusal(
                world,
                request,
                409,
                30009,
                f"Requested quota for plan '{plan['plan']}' is larger than what is left.",
            )
        if _numeric(plan) and row is not None:
            given = (row["amount"] or 0) - assignments.remaining(world, plan, guid)
            if wanted < given:
                raise refusal(
                    world,
                    request,
                    409,
                    30009,
                    f"Subaccounts of the directory hold {given} of '{plan['plan']}'.",
                )
        changes.append((plan, wanted, item))
    for plan, wanted, item in changes:
        if not wanted:
            assignments.of(world, guid).pop(_key(plan), None)
            continue
        row = assignments.assign_now(world, guid, "DIRECTORY", plan, wanted)
        _mark(world, guid, row, plan, item)
    return Response.json("Entitlements of the directory updated.")


@route(CENTRAL, "directory.entitlement.update", central=True)
def _distribute(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    """PATCH …/directories/{guid}/assignments: only how the directory hands its plans on."""
    del claims
    _managed(world, request, guid)
    for item in _listed(world, request, "entitlementUpdates"):
        plan = _chosen(world, request, item["service"], item["plan"], item.get("planUniqueIdentifier"))
        row = assignments.of(world, guid).get(_key(plan))
        if row is None:
            raise not_allowed(world, request, f"Plan '{plan['plan']}' is not assigned to the directory.")
        _mark(world, guid, row, plan, item)
    return Response.json("Entitlements of the directory updated.")


def _mark(world: World, guid: str, row: Json, plan: Json, item: Json) -> None:
    row["auto_assign"] = bool(item.get("autoAssign", row.get("auto_assign", False)))
    row["auto_distribute"] = item.get("autoDistributeAmount", row.get("auto_distribute"))
    if not item.get("distribute"):
        return
    share = float(row["auto_distribute"] or 1) if _numeric(plan) else 1.0
    for subaccount in world.table("subaccounts"):
        if assignments.managed_parent(world, subaccount) == guid:
            assignments.start(world, subaccount, "SUBACCOUNT", plan, share)


# ----------------------------------------------------------------------------------------------------------------------
# Regions

_DATA_CENTERS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("eu10", "Europe (Frankfurt) - AWS", "AWS", ("eu10-002", "eu10-003", "eu10-004", "eu10-005")),
    ("eu11", "Europe (Frankfurt) EU Access - AWS", "AWS", ()),
    ("eu20", "Europe (Netherlands) - Azure", "AZURE", ("eu20-001", "eu20-002")),
    ("eu30", "Europe (Frankfurt) - GCP", "GCP", ()),
    ("us10", "US East (VA) - AWS", "AWS", ("us10-001", "us10-002")),
    ("us20", "US West (WA) - Azure", "AZURE", ()),
    ("ap10", "Australia (Sydney) - AWS", "AWS", ()),
    ("ap21", "Singapore - Azure", "AZURE", ()),
    ("jp10", "Japan (Tokyo) - AWS", "AWS", ()),
    ("br10", "Brazil (São Paulo) - AWS", "AWS", ()),
)


@route(CENTRAL, "global-account.region.read", central=True)
def _data_centers(world: World, request: Request, claims: Json, **_: str) -> Response:
    """GET /entitlements/v1/globalAccountAllowedDataCenters: extension landscapes only when asked for."""
    del claims, world
    region = request.one("region")
    satellites = flag(request, "includeSatelliteDataCenters")
    found = []
    for name, title, provider, more in _DATA_CENTERS:
        if region is not None and region != name:
            continue
        for landscape in (name, *(more if satellites else ())):
            domain = f"{landscape}.hana.ondemand.com"
            found.append(
                {
                    "name": f"cf-{landscape}",
                    "displayName": title if landscape == name else f"{title} ({landscape})",
                    "region": name,
                    "environment": "cloudfoundry",
                    "iaasProvider": provider,
                    "supportsTrial": name in {"us10", "ap21"},
                    "isMainDataCenter": landscape == name,
                    "domain": domain,
                    "provisioningServiceUrl": request.url(
                        f"provisioning-service.cfapps.{name}.hana.ondemand.com", ""
                    ),
                    "saasRegistryServiceUrl": request.url(
                        f"saas-manager.cfapps.{name}.hana.ondemand.com", ""
                    ),
                    "geoAccess": "STANDARD" if name != "eu11" else "BACKWARD_COMPLIANT_EU_ACCESS",
                    "restricted": False,
                }
            )
    return Response.json({"datacenters": found})


# ----------------------------------------------------------------------------------------------------------------------
# Seed and snapshot


def add_to_contract(world: World, service: str, plan: str, spec: Mapping[str, Any] | None = None) -> Json:
    """Puts a plan into the global account's contract, or changes the one that is there."""
    given = dict(spec or {})
    known = next((item for item in MORE_ENTITLEMENTS if (item.service, item.plan) == (service, plan)), None)
    override = (world.settings.get("categories") or {}).get(f"{service}/{plan}")
    category = given.get("category") or override
    if category is None:
        category = known.category if known else brokers.category(world, service, plan)
    unique = str(given.get("unique_id") or (known.unique_id if known else "") or f"{service}-{plan}")
    automatic = [list(pair) for pair in world.settings.get("auto_assigned", AUTO_ASSIGNED)]
    usual = known.amount if known else 10.0 if category in NUMERIC else 1.0
    row: Json = {
        "service": service,
        "plan": plan,
        "unique_id": unique,
        "category": category,
        "amount": float(given.get("amount", usual)),
        "unlimited": bool(given.get("unlimited", known.unlimited if known else False)),
        "maximum": given.get("maximum", known.maximum_per_subaccount if known else None),
        "display_name": known.display_name if known else "",
        "auto": bool(given.get("auto", [service, plan] in automatic)),
    }
    assignments.contract(world)[_key(row)] = row
    return row


def _fill_contract(world: World, wanted: Mapping[str, Any] | None) -> None:
    if wanted is not None:
        for service, plans in wanted.items():
            for plan, spec in (plans or {}).items():
                for one in spec if isinstance(spec, list) else [spec]:
                    add_to_contract(world, service, plan, one if isinstance(one, dict) else None)
    elif not assignments.contract(world):
        for item in brokers.offerings(world):
            for offered in item.plans:
                add_to_contract(world, item.name, offered.name)
        for more in MORE_ENTITLEMENTS:
            add_to_contract(world, more.service, more.plan)
    for service, plan in world.settings.get("auto_assigned", AUTO_ASSIGNED):
        if not assignments.contract_plans(world, service, plan):
            add_to_contract(world, service, plan)


def ensure(world: World, subaccount_id: str, service: str, plan: str, amount: float = 1) -> None:
    """Entitles a subaccount at once, for seeds: the plan joins the contract when it has to."""
    found = assignments.contract_plans(world, service, plan)
    entry = found[0] if found else add_to_contract(world, service, plan)
    row = assignments.of(world, subaccount_id).get(_key(entry))
    if row is not None and (row["auto_assigned"] or row["amount"] == amount):
        return
    assignments.assign_now(world, subaccount_id, "SUBACCOUNT", entry, amount)


def seed(world: World, document: Mapping[str, Any]) -> None:
    """The contract, what directories and subaccounts hold of it, and environments."""
    account = document.get("global_account") or {}
    _fill_contract(world, account.get("entitlements"))
    directories = {row["name"]: row["id"] for row in world.table("directories").values()}
    for name, spec in (document.get("directories") or {}).items():
        for service, plans in ((spec or {}).get("entitlements") or {}).items():
            for plan, value in plans.items():
                found = assignments.contract_plans(world, service, plan)
                entry = found[0] if found else add_to_contract(world, service, plan)
                amount = 1 if value is True else float(value)
                assignments.assign_now(world, directories[name], "DIRECTORY", entry, amount)
    for spec in (document.get("subaccounts") or {}).values():
        guid = spec["id"]
        if not assignments.of(world, guid):
            accounts.assign_automatically(world, guid)
        for service, plans in (spec.get("entitlements") or {}).items():
            for plan, value in plans.items():
                if value:
                    ensure(world, guid, service, plan, 1 if value is True else value)
        for instance in spec.get("instances") or ():
            if instance.get("type", "managed") != "user-provided":
                service, plan = instance["service"], instance["plan"]
                if not assignments.entitled(world, guid, service, plan):
                    ensure(world, guid, service, plan)
        if spec.get("cloud_foundry"):
            provisioning.seed_environment(world, spec)


def snapshot(world: World) -> Json:
    """What is assigned, by names: subaccount → service → plan → amount."""
    shown: dict[str, dict[str, dict[str, Any]]] = {}
    for guid, subaccount in world.table("subaccounts").items():
        services: dict[str, dict[str, Any]] = {}
        for row in assignments.of(world, guid).values():
            if row["auto_assigned"]:
                continue
            state = row["state"]
            amount = _tidy(row["amount"]) if row["amount"] is not None else None
            services.setdefault(row["service"], {})[row["plan"]] = (
                amount if state == "OK" else {"amount": amount, "state": state}
            )
        shown[subaccount["name"]] = {name: services[name] for name in sorted(services)}
    return {"entitlements": shown}
