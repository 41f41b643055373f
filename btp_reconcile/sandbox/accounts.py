"""The Accounts Service: global account, directories, subaccounts, and Service Manager bindings made with a central key.

Swagger of the Accounts Service in SAP/crossplane-provider-btp (internal/openapi_clients/btp-accounts-service-api-go)
and the recordings of SAP/terraform-provider-btp. This module also owns the tables ``global_account``, ``directories``,
``subaccounts`` and ``accounts.sm_bindings``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from . import assignments, broker_credentials, brokers
from .broker_catalogue import AUTO_ASSIGNED
from .cis_common import (
    ACCOUNTS,
    Json,
    actor,
    body_of,
    claims_of,
    flag,
    gateway,
    has_scope,
    invalid,
    job,
    job_answer,
    limit,
    millis,
    new_job,
    not_allowed,
    refusal,
    route,
)
from .http import Refusal, Request, Response, Router, https

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .world import World

FAMILY = "cis-central"
_READ = "global-account.subaccount.read"
_FEATURES = ("DEFAULT", "ENTITLEMENTS", "AUTHORIZATIONS")
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_REGION = re.compile(r"[a-z]{2}\d{2}")
_BUSY = frozenset({"STARTED", "CREATING", "UPDATING", "DELETING"})


def routes(router: Router) -> None:
    """Every route of the service that the sandbox answers, and those it only names (501)."""
    one = "/accounts/v1/subaccounts/{guid}"
    table: tuple[tuple[str, str, Callable[..., Response]], ...] = (
        ("GET", "/accounts/v1/subaccounts", _list),
        ("POST", "/accounts/v1/subaccounts", _create),
        ("GET", one, _single),
        ("PATCH", one, _change),
        ("DELETE", one, _delete),
        ("GET", f"{one}/labels", _labels),
        ("PUT", f"{one}/labels", _set_labels),
        ("DELETE", f"{one}/labels", _set_labels),
        ("POST", f"{one}/serviceManagementBinding", _make_binding),
        ("GET", f"{one}/serviceManagementBinding", _get_binding),
        ("DELETE", f"{one}/serviceManagementBinding", _drop_binding),
        ("POST", "/accounts/v2/subaccounts/{guid}/serviceManagerBindings", _make_named),
        ("GET", "/accounts/v2/subaccounts/{guid}/serviceManagerBindings", _list_named),
        ("GET", "/accounts/v2/subaccounts/{guid}/serviceManagerBindings/{name}", _get_named),
        ("DELETE", "/accounts/v2/subaccounts/{guid}/serviceManagerBindings/{name}", _drop_named),
        ("GET", "/accounts/v1/directories/{guid}", _directory),
        ("GET", "/accounts/v1/globalAccount", _global_account),
        ("GET", "/jobs-management/v1/jobs/{number}/status", _job),
    )
    for method, path, handler in table:
        router.add(ACCOUNTS, method, path, handler)
    for method, path in (
        ("POST", "/accounts/v1/directories"),
        ("PATCH", "/accounts/v1/directories/{guid}"),
        ("DELETE", "/accounts/v1/directories/{guid}"),
        ("PATCH", "/accounts/v1/directories/{guid}/changeDirectoryFeatures"),
        ("*", "/accounts/v1/directories/{guid}/labels"),
        ("*", "/accounts/v1/directories/{guid}/settings"),
        ("POST", "/accounts/v1/subaccounts/move"),
        ("POST", f"{one}/move"),
        ("*", f"{one}/settings"),
        ("PATCH", "/accounts/v1/globalAccount"),
    ):
        router.lacks(ACCOUNTS, method, path)


# ----------------------------------------------------------------------------------------------------------------------
# Rows


def global_account(world: World) -> Json:
    """The one global account; made when it is first asked for."""
    table = world.table("global_account")
    if not table:
        guid = world.new_id()
        table[guid] = {
            "id": guid,
            "name": "Sandbox",
            "subdomain": f"sandbox-{guid[:8]}",
            "created": world.now(),
        }
    return next(iter(table.values()))


def find(world: World, request: Request, guid: str) -> Json:
    """The subaccount's row, or 20004/404."""
    row: Json | None = world.table("subaccounts").get(guid)
    if row is None:
        raise refusal(world, request, 404, 20004, f"Subaccount {guid} not found")
    return row


def find_directory(world: World, request: Request, guid: str) -> Json:
    """The directory's row, or 20002/404."""
    row: Json | None = world.table("directories").get(guid)
    if row is None:
        raise refusal(world, request, 404, 20002, f"Could not find {guid}")
    return row


def new_subaccount(world: World, guid: str, name: str, region: str, subdomain: str, parent: str) -> Json:
    """A finished subaccount with what SAP assigns to each."""
    now = world.now()
    row: Json = {
        "id": guid,
        "name": name,
        "region": region,
        "subdomain": subdomain,
        "parent": parent,
        "description": "",
        "beta": False,
        "production": "NOT_USED_FOR_PRODUCTION",
        "labels": {},
        "state": "OK",
        "message": "Subaccount created.",
        "contract": "ACTIVE",
        "created": now,
        "created_by": "sandbox@example.com",
        "modified": now,
        "modified_by": "sandbox@example.com",
    }
    world.table("subaccounts")[guid] = row
    return row


def assign_automatically(world: World, guid: str) -> None:
    for service, plan in world.settings.get("auto_assigned", AUTO_ASSIGNED):
        for entry in assignments.contract_plans(world, service, plan)[:1]:
            assignments.assign_now(world, guid, "SUBACCOUNT", entry, 1, auto=True)


def context_of(world: World, row: Json) -> Json:
    """What brokers are told about the subaccount."""
    del world
    return {
        "subaccount_id": row["id"],
        "subdomain": row["subdomain"],
        "region": row["region"],
        "platform": "sapcp",
    }


def _settle(world: World, row: Json) -> Json | None:
    """One look at a subaccount that is being made or removed; None when it is gone."""
    if row["state"] not in _BUSY or "ticket" not in row:
        return row
    if not world.look(row["ticket"]):
        if row["state"] == "STARTED":
            row["state"] = "CREATING"
        return row
    del row["ticket"]
    if row["state"] == "DELETING":
        _erase(world, row["id"])
        return None
    if row["state"] in {"STARTED", "CREATING"}:
        assign_automatically(world, row["id"])
        row["message"] = "Subaccount created."
    row.update(state="OK", modified=world.now())
    return row


def _erase(world: World, guid: str) -> None:
    for name in ("sm.bindings", "sm.instances"):
        table = world.table(name)
        for key in [key for key, row in table.items() if row["subaccount_id"] == guid]:
            del table[key]
    for key, row in list(world.table("broker.instances").items()):
        if row["context"].get("subaccount_id") == guid:
            brokers.revoke(world, key)
    for name in ("destinations", "destinations.certificates", "destinations.fragments"):
        world.table(name).pop(f"subaccount/{guid}", None)
    world.table("destinations.access").pop(guid, None)
    world.table("accounts.sm_bindings").pop(guid, None)
    world.table("entitlements.assignments").pop(guid, None)
    del world.table("subaccounts")[guid]


def _parent_type(world: World, parent: str) -> str:
    directory = world.table("directories").get(parent)
    return "ROOT" if directory is None else _directory_type(directory)


def _directory_type(row: Json) -> str:
    if "AUTHORIZATIONS" in row["features"]:
        return "PROJECT"
    return "GROUP" if "ENTITLEMENTS" in row["features"] else "FOLDER"


def show(world: World, row: Json, *, single: bool = False) -> Json:
    """A subaccount as the service writes it; the managed parent is told in single reads only."""
    account = global_account(world)["id"]
    made = row["state"] not in {"STARTED", "CREATING"}
    shown: Json = {
        "guid": row["id"],
        "technicalName": row["id"] if made else "N/A",
        "displayName": row["name"],
        "globalAccountGUID": account,
        "parentGUID": row["parent"],
        "parentType": _parent_type(world, row["parent"]),
        "region": row["region"],
        "subdomain": row["subdomain"],
        "betaEnabled": row["beta"],
        "usedForProduction": row["production"],
        "description": row["description"],
        "state": row["state"],
        "stateMessage": row["message"],
        "createdDate": millis(row["created"]),
        "createdBy": row["created_by"],
        "modifiedDate": millis(row["modified"]),
        "lastModifiedBy": row["modified_by"],
        "contractStatus": row["contract"],
    }
    directory = world.table("directories").get(row["parent"])
    if directory is not None:
        shown["parentFeatures"] = list(directory["features"])
    if single:
        shown["closestEntitlementManagedParentGUID"] = assignments.managed_parent(world, row["id"]) or account
    if row["labels"]:
        shown["labels"] = row["labels"]
        shown["customProperties"] = [
            {"accountGUID": row["id"], "key": key, "value": (values or [""])[0]}
            for key, values in row["labels"].items()
        ]
    for key in ("forceDeleteRequestTime", "forceDeleteTargetTime"):
        if key in row:
            shown[key] = row[key]
    return shown


# ----------------------------------------------------------------------------------------------------------------------
# Subaccounts


def _reader(world: World, request: Request) -> Json:
    """The claims of a caller who may read; ``derivedAuthorizations=any`` is content with any valid token."""
    if request.place.get("region") != world.settings["region"]:
        raise Refusal(Response.text("404 Not Found: Requested route does not exist.\n", 404))
    claims = claims_of(world, request)
    if request.one("derivedAuthorizations") != "any" and not has_scope(claims, FAMILY, _READ):
        raise gateway(world, 403)
    limit(world, request, claims)
    return claims


def _list(world: World, request: Request) -> Response:
    """GET /accounts/v1/subaccounts: all of them, there are no pages."""
    _reader(world, request)
    rows = [row for row in list(world.table("subaccounts").values()) if _settle(world, row) is not None]
    directory = request.one("directoryGUID")
    if directory is not None:
        find_directory(world, request, directory)
        rows = [row for row in rows if row["parent"] == directory]
    selector = request.one("labelSelector")
    if selector is not None:
        wanted = _selector(world, request, selector)
        rows = [row for row in rows if all(test(row["labels"]) for test in wanted)]
    return Response.json({"value": [show(world, row) for row in rows]})


def _selector(world: World, request: Request, text: str) -> list[Callable[[Mapping[str, list[str]]], bool]]:
    tests: list[Callable[[Mapping[str, list[str]]], bool]] = []
    seen = set()
    for part in text.split(" AND "):
        match = re.fullmatch(r"([^\s=!]+)(!?=)([^\s=!]*)", part)
        if match is None or match[1] in seen:
            raise not_allowed(world, request, f"The label selector '{text}' is invalid.")
        key, sign, value = match.groups()
        seen.add(key)

        def test(
            labels: Mapping[str, list[str]], key: str = key, sign: str = sign, value: str = value
        ) -> bool:
            return (value in (labels.get(key) or [])) == (sign == "=")

        tests.append(test)
    return tests


def _single(world: World, request: Request, guid: str) -> Response:
    _reader(world, request)
    row = _settle(world, find(world, request, guid))
    if row is None:
        raise refusal(world, request, 404, 20004, f"Subaccount {guid} not found")
    return Response.json(show(world, row, single=True))


def _checked_labels(world: World, request: Request, labels: Any) -> dict[str, list[str]]:
    """At most 10 keys with 10 values of 63 characters."""
    good = isinstance(labels, dict) and len(labels) <= 10
    if good:
        for key, values in labels.items():
            good = (
                good
                and 0 < len(key) <= 63
                and isinstance(values, list)
                and len(values) <= 10
                and all(isinstance(value, str) and len(value) <= 63 for value in values)
            )
    if not good:
        raise invalid(world, request, "labels: at most 10 keys with 10 values of 63 characters")
    return {str(key): list(values) for key, values in labels.items()}


@route(FAMILY, "global-account.subaccount.create", central=True)
def _create(world: World, request: Request, claims: Json, **_: str) -> Response:
    """POST /accounts/v1/subaccounts: 201 with a subaccount that still has to become one."""
    body = body_of(world, request)
    problems = [
        f"{name} is required" for name in ("displayName", "region") if not isinstance(body.get(name), str)
    ]
    name, region = str(body.get("displayName", "")), str(body.get("region", ""))
    if "/" in name:
        problems.append("displayName must not contain '/'")
    if region and not _REGION.fullmatch(region):
        problems.append(f"region '{region}' is unknown")
    guid = world.new_id()
    subdomain = body.get("subdomain", f"{region}-{guid[:8]}")
    if not isinstance(subdomain, str) or not _SUBDOMAIN.fullmatch(subdomain):
        problems.append("subdomain must be 1 to 63 of a-z, 0-9 and '-', which is not at either end")
    if problems:
        raise invalid(world, request, *problems)
    account = global_account(world)["id"]
    parent = str(body.get("parentGUID") or account)
    if parent != account:
        find_directory(world, request, parent)
    for row in world.table("subaccounts").values():
        if row["region"] == region and row["subdomain"] == subdomain:
            raise refusal(world, request, 409, 20010, f"Subdomain {subdomain} is already in use in {region}.")
    row = new_subaccount(world, guid, name, region, str(subdomain), parent)
    row.update(
        state="STARTED",
        message="Subaccount creation started.",
        description=str(body.get("description", "")),
        beta=bool(body.get("betaEnabled", False)),
        production=str(body.get("usedForProduction", "UNSET")),
        labels=_checked_labels(world, request, body.get("labels") or {}),
        created_by=actor(claims),
        modified_by=actor(claims),
        ticket=world.ticket("subaccount"),
    )
    location = new_job(world, "accounts", {"guid": guid, "kind": "create"})
    return Response.json(show(world, row), 201, (location,))


@route(FAMILY, "global-account.subaccount.update", central=True)
def _change(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    row = find(world, request, guid)
    body = body_of(world, request)
    if not isinstance(body.get("displayName"), str) or "/" in body["displayName"]:
        raise invalid(world, request, "displayName is required and must not contain '/'")
    if _settle(world, row) is None or row["state"] in _BUSY:
        raise refusal(world, request, 409, 20011, f"Subaccount {guid} is being modified.")
    if row["beta"] and body.get("betaEnabled") is False:
        raise not_allowed(world, request, "betaEnabled cannot be taken back.")
    row["name"] = body["displayName"]
    row["description"] = str(body.get("description", row["description"]))
    row["beta"] = bool(body.get("betaEnabled", row["beta"]))
    row["production"] = str(body.get("usedForProduction", row["production"]))
    if "labels" in body:
        row["labels"] = _checked_labels(world, request, body["labels"])
    row.update(message="Subaccount updated.", modified=world.now(), modified_by=actor(claims))
    return Response.json(show(world, row))


@route(FAMILY, "global-account.subaccount.delete", central=True)
def _delete(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    """DELETE: 200 with state DELETING and a job; without ``forceDelete`` only an empty subaccount goes."""
    row = find(world, request, guid)
    if _settle(world, row) is None or row["state"] in _BUSY:
        raise refusal(world, request, 409, 20011, f"Subaccount {guid} is being modified.")
    holds = any(
        broker["context"].get("subaccount_id") == guid and not broker.get("hidden")
        for broker in world.table("broker.instances").values()
    )
    if (holds or guid in world.table("environments")) and not flag(request, "forceDelete"):
        raise not_allowed(world, request, f"Subaccount {guid} is not empty.")
    if guid in world.table("environments"):
        return Response.json(
            {"error": {"message": "The sandbox does not remove subaccounts with an environment."}}, 501
        )
    row.update(
        state="DELETING",
        message="Subaccount deletion started.",
        modified_by=actor(claims),
        ticket=world.ticket("subaccount"),
    )
    location = new_job(world, "accounts", {"guid": guid, "kind": "delete"})
    return Response.json(show(world, row), 200, (location,))


@route(FAMILY, _READ, central=True)
def _labels(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    del claims
    return Response.json({"labels": find(world, request, guid)["labels"]})


@route(FAMILY, "global-account.subaccount.update", central=True)
def _set_labels(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    row = find(world, request, guid)
    given = body_of(world, request).get("labels") if request.method == "PUT" else {}
    row["labels"] = _checked_labels(world, request, given)
    row.update(modified=world.now(), modified_by=actor(claims))
    return Response.json({"labels": row["labels"]})


@route(FAMILY, "job.read", central=True)
def _job(world: World, request: Request, claims: Json, number: str = "", **_: str) -> Response:
    del claims
    entry = job(world, request, "accounts", number)
    row = world.table("subaccounts").get(entry["guid"])
    left = _settle(world, row) if row is not None else None
    if left is None:
        return job_answer("COMPLETED" if entry["kind"] == "delete" else "FAILED")
    return job_answer("IN_PROGRESS" if left["state"] in _BUSY else "COMPLETED")


# ----------------------------------------------------------------------------------------------------------------------
# Directories and the global account


def _show_directory(world: World, row: Json, *, expand: bool) -> Json:
    account = global_account(world)["id"]
    shown: Json = {
        "guid": row["id"],
        "parentGuid": row["parent"],
        "parentGUID": row["parent"],
        "parentType": _parent_type(world, row["parent"]),
        "globalAccountGUID": account,
        "displayName": row["name"],
        "description": row.get("description", ""),
        "createdDate": millis(row["created"]),
        "createdBy": "sandbox@example.com",
        "modifiedDate": millis(row["created"]),
        "directoryType": _directory_type(row),
        "directoryFeatures": list(row["features"]),
        "entityState": "OK",
        "stateMessage": "Directory created.",
        "contractStatus": "ACTIVE",
    }
    if "AUTHORIZATIONS" in row["features"]:
        shown["subdomain"] = row["id"]
    if row.get("labels"):
        shown["labels"] = row["labels"]
    if expand:
        shown.update(_below(world, row["id"]))
    return shown


def _below(world: World, guid: str) -> Json:
    return {
        "children": [
            _show_directory(world, row, expand=True)
            for row in world.table("directories").values()
            if row["parent"] == guid
        ],
        "subaccounts": [
            show(world, row) for row in world.table("subaccounts").values() if row["parent"] == guid
        ],
    }


@route(FAMILY, "global-account.account-directory.read", central=True)
def _directory(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    del claims
    row = find_directory(world, request, guid)
    return Response.json(_show_directory(world, row, expand=flag(request, "expand")))


@route(FAMILY, "global-account.read", central=True)
def _global_account(world: World, request: Request, claims: Json, **_: str) -> Response:
    del claims
    row = global_account(world)
    shown: Json = {
        "guid": row["id"],
        "displayName": row["name"],
        "subdomain": row["subdomain"],
        "commercialModel": "Subscription",
        "consumptionBased": False,
        "licenseType": "CUSTOMER",
        "geoAccess": "STANDARD",
        "contractStatus": "ACTIVE",
        "entityState": "OK",
        "stateMessage": "",
        "createdDate": millis(row["created"]),
        "modifiedDate": millis(row["created"]),
    }
    if flag(request, "expand"):
        shown.update(_below(world, row["id"]))
    return Response.json(shown)


# ----------------------------------------------------------------------------------------------------------------------
# Service Manager without an instance

_UPDATE = "global-account.subaccount.update"


def service_manager_key(world: World, row: Json, name: str, parameters: Json | None = None) -> Json:
    """Makes a named Service Manager binding of a subaccount; what it returns stays in the state.

    Unlike an ordinary key, one with a certificate has the ``url`` of the token service too.
    """
    where = context_of(world, row)
    made = brokers.issue(world, "service-manager", "subaccount-admin", where, binding=parameters or {})
    entry = {**made, "name": name, "created": world.now()}
    entry["credentials"] = {"url": broker_credentials.zone_url(where), **entry["credentials"]}
    world.table("accounts.sm_bindings").setdefault(row["id"], {})[name] = entry
    return entry


def _bindings(world: World, guid: str) -> Json:
    return dict(world.table("accounts.sm_bindings").get(guid, {}))


def _finished(world: World, request: Request, guid: str) -> Json:
    """The subaccount's row when it has a tenant; one that is being made or removed is refused."""
    row = find(world, request, guid)
    if _settle(world, row) is None or row["state"] in _BUSY:
        raise refusal(world, request, 409, 20011, f"Subaccount {guid} is being modified.")
    return row


def _shown_key(entry: Json, request: Request) -> Json:
    shown = brokers.localise(entry["credentials"], request)
    if "certurl" in shown:
        shown["certUrl"] = shown.pop("certurl")
    return dict(shown)


_V1 = ""  # the name of the one unnamed binding; no named one can have it


@route(FAMILY, _UPDATE, central=True)
def _make_binding(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    """POST …/serviceManagementBinding: the one key without a name; 409 when there is one, which can be read."""
    del claims
    row = _finished(world, request, guid)
    if _V1 in _bindings(world, guid):
        raise refusal(world, request, 409, 50001, f"A binding of subaccount {guid} already exists.")
    return Response.json(_shown_key(service_manager_key(world, row, _V1), request), 201)


def _entry(world: World, request: Request, guid: str, name: str) -> Json:
    find(world, request, guid)
    entry = _bindings(world, guid).get(name)
    if entry is None:
        raise refusal(world, request, 404, 50002, f"No such binding of subaccount {guid}.")
    return dict(entry)


def _drop(world: World, request: Request, guid: str, name: str) -> Response:
    entry = _entry(world, request, guid, name)
    brokers.revoke(world, entry["instance_id"])
    del world.table("accounts.sm_bindings")[guid][name]
    return Response.empty(200)


@route(FAMILY, _UPDATE, central=True)
def _get_binding(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    del claims
    return Response.json(_shown_key(_entry(world, request, guid, _V1), request))


@route(FAMILY, _UPDATE, central=True)
def _drop_binding(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    del claims
    return _drop(world, request, guid, _V1)


def _named(entry: Json, request: Request) -> Json:
    return {
        "name": entry["name"],
        **_shown_key(entry, request),
        "creationDate": millis(entry["created"]),
    }


@route(FAMILY, _UPDATE, central=True)
def _make_named(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    """POST …/serviceManagerBindings: several named keys, of a secret or of a certificate."""
    del claims
    row = _finished(world, request, guid)
    body = body_of(world, request)
    name = body.get("name")
    parameters = {} if body.get("parameters") is None else body["parameters"]
    if not isinstance(name, str) or not name or not isinstance(parameters, dict):
        raise invalid(world, request, "name is required, parameters is an object")
    if name in _bindings(world, guid):
        raise refusal(world, request, 409, 50001, f"A binding with the name {name} already exists.")
    try:
        entry = service_manager_key(world, row, name, parameters)
    except brokers.Refused as problem:
        raise invalid(world, request, str(problem)) from problem
    return Response.json(_named(entry, request), 201)


@route(FAMILY, _UPDATE, central=True)
def _list_named(world: World, request: Request, claims: Json, guid: str = "", **_: str) -> Response:
    del claims
    find(world, request, guid)
    found = [_named(entry, request) for name, entry in _bindings(world, guid).items() if name != _V1]
    return Response.json({"items": found})


@route(FAMILY, _UPDATE, central=True)
def _get_named(
    world: World, request: Request, claims: Json, guid: str = "", name: str = "", **_: str
) -> Response:
    del claims
    return Response.json(_named(_entry(world, request, guid, name), request))


@route(FAMILY, _UPDATE, central=True)
def _drop_named(
    world: World, request: Request, claims: Json, guid: str = "", name: str = "", **_: str
) -> Response:
    del claims
    return _drop(world, request, guid, name)


# ----------------------------------------------------------------------------------------------------------------------
# Seed, access, snapshot


def seed(world: World, document: Mapping[str, Any]) -> None:
    """Global account, directories and subaccounts of a document."""
    account = global_account(world)
    wanted = document.get("global_account") or {}
    account["name"] = wanted.get("name", account["name"])
    if "id" in wanted:
        table = world.table("global_account")
        table.clear()
        account["id"] = wanted["id"]
        table[account["id"]] = account
    by_name = {row["name"]: row for row in world.table("directories").values()}
    pending = dict(document.get("directories") or {})
    for name, spec in pending.items():
        row = by_name.get(name)
        if row is None:
            guid = (spec or {}).get("id") or world.new_id()
            row = {"id": guid, "name": name, "created": world.now(), "features": ["DEFAULT"], "labels": {}}
            row["parent"] = account["id"]
            world.table("directories")[guid] = by_name[name] = row
    for name, spec in pending.items():
        row = by_name[name]
        given = (spec or {}).get("features") or row["features"]
        row["features"] = [item for item in _FEATURES if item in given or item == "DEFAULT"]
        row["labels"] = dict((spec or {}).get("labels") or row["labels"])
        above = (spec or {}).get("parent")
        if above:
            row["parent"] = by_name[above]["id"]
    for name, spec in (document.get("subaccounts") or {}).items():
        row = world.table("subaccounts").get(spec["id"])
        above = spec.get("directory")
        parent = by_name[above]["id"] if above else None
        if row is None:
            row = new_subaccount(
                world, spec["id"], name, spec["region"], spec["subdomain"], parent or account["id"]
            )
        elif parent:
            row["parent"] = parent
        row["labels"] = dict(spec.get("labels") or row["labels"])
        for key in ("description", "beta", "production", "state", "contract"):
            if key in spec:
                row[key] = spec[key]
        if row["contract"] == "PENDING_FORCED_DELETION" and "forceDeleteTargetTime" not in row:
            row["forceDeleteRequestTime"] = millis(world.now())
            row["forceDeleteTargetTime"] = millis(world.now() + 7 * 86400)


def access(world: World, url: Callable[[str, str], str] = https) -> Json:
    """A central key of the global account and a Service Manager key of every subaccount."""
    account = global_account(world)
    kept = world.table("sandbox.access")
    if "central" not in kept:
        region = str(world.settings["region"])
        where = {
            "subaccount_id": account["id"],
            "subdomain": account["subdomain"],
            "region": region,
            "platform": "sapcp",
        }
        kept["central"] = brokers.issue(
            world, "cis", "central", where, parameters={"grantType": "clientCredentials"}
        )
    managers = {}
    for row in world.table("subaccounts").values():
        entry = kept.get(row["id"])
        if entry is None:
            entry = kept[row["id"]] = brokers.issue(
                world, "service-manager", "subaccount-admin", context_of(world, row)
            )
        managers[row["id"]] = brokers.localise_with(entry["credentials"], url)
    return {
        "central": brokers.localise_with(kept["central"]["credentials"], url),
        "service_manager": managers,
    }


def snapshot(world: World) -> Json:
    """Subaccounts by name, with their place in the tree and their labels, and the names of their own bindings.

    The binding of a subaccount that has no name is shown by an empty one.
    """
    names = {row["id"]: row["name"] for row in world.table("directories").values()}
    subaccounts = world.table("subaccounts")
    return {
        "service_manager_bindings": {
            subaccounts[guid]["name"]: sorted(bindings)
            for guid, bindings in world.table("accounts.sm_bindings").items()
            if bindings
        },
        "subaccounts": {
            row["name"]: {
                "region": row["region"],
                "directory": names.get(row["parent"]),
                "labels": {key: list(values) for key, values in sorted(row["labels"].items())},
            }
            for row in world.table("subaccounts").values()
        },
    }
