"""The APIs behind a key of SAP Advanced Financial Closing: SCIM, and the task provider of SAP Task Center.

SCIM is RFC 7644 (3.4.2 lists and filters, 3.12 errors, 4 ServiceProviderConfig) with 10,000 requests per hour and 3 at
the same time for a tenant (SAP Community, "SCIM API of Advanced Financial Closing", 19 January 2023) and the filters eq,
sw and co; names and ids are case-sensitive. The task provider has the paths of the v2 interface. All accounts of a region
share the host; the token says whose users are meant.

Settings, where the platform's behaviour is nowhere published: ``afc_limits`` ({"requests": 10000, "seconds": 3600,
"at_once": 3} for each tenant, or null), ``afc_task_center`` (200: the status that the task provider gives a token
without a user), ``afc_service_provider_config`` (true: whether SCIM serves it), ``afc_page_size`` (100).

A subaccount of a seed may say ``afc: {"users": [...], "groups": [...]}``: names, or objects with ``userName`` and
``active``, ``displayName`` and ``members`` (user names). Without it there are three users and two groups.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any, Protocol

from . import bearers
from .brokers import SCIM_PATH, TASK_PATH
from .http import Refusal, Request, Response, Router, not_emulated
from .world import shaped_from, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .world import World

Json = dict[str, Any]

NAME = "afc-production-afc-api"
HOST = NAME + ".cfapps.{region}.hana.ondemand.com"
FAMILY = "afc-api"
SCHEMA = "urn:ietf:params:scim:schemas:core:2.0"
MESSAGE = "urn:ietf:params:scim:api:messages:2.0"
SCIM_JSON = "application/scim+json"
LIMITS = {"requests": 10000, "seconds": 3600, "at_once": 3}
PLENTY = 100

USERS = ("closing.manager@example.com", "Accountant@example.com", "auditor@example.com")
GROUPS: tuple[Json, ...] = (
    {"displayName": "Closing Managers", "members": [USERS[0]]},
    {"displayName": "Accountants", "members": [USERS[0], USERS[1]]},
)


class AfcHandler(Protocol):
    """A route of AFC: it also gets the tenant."""

    def __call__(self, world: World, request: Request, tenant: str, **caught: str) -> Response: ...


# ----------------------------------------------------------------------------------------------------------------------
# Who may, and how often


def party(request: Request) -> str | None:
    """Whose requests count together for the limit of those at the same time: the tenant's, as its token claims it."""
    if not request.host.startswith(f"{NAME}.") or not request.path.startswith(SCIM_PATH):
        return None
    payload = request.headers.get("Authorization", "").partition(".")[2].partition(".")[0]
    try:
        said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError):
        return None
    return f"{request.host} {said.get('zid')}" if isinstance(said, dict) else None


def _scim_error(status: int, detail: str, kind: str = "") -> Refusal:
    body = {"schemas": [f"{MESSAGE}:Error"], "status": str(status), "detail": detail}
    more = {"scimType": kind} if kind else {}
    headers = ((*bearers.CHALLENGE,),) if status == 401 else ()
    return Refusal(Response.json({**body, **more}, status, (("Content-Type", SCIM_JSON), *headers)))


def _task_error(status: int, detail: str) -> Refusal:
    headers = ((*bearers.CHALLENGE,),) if status == 401 else ()
    return Refusal(Response.json({"error": {"code": str(status), "message": detail}}, status, headers))


def _tenant(world: World, request: Request, scope: str, error: Callable[[int, str], Refusal]) -> str:
    try:
        found = bearers.claims(world, request, request.place["region"])
    except bearers.Denied as denied:
        raise error(denied.status, str(denied)) from denied
    if not bearers.has(found, FAMILY, scope):
        raise error(403, f"The token lacks the scope {scope}")
    return str(found["zid"])


def _count(world: World, request: Request, tenant: str) -> None:
    """The limits of SCIM: requests at the same time as this one came, and requests in this hour."""
    limits = world.settings.get("afc_limits", LIMITS)
    if not limits:
        return
    if request.at_once > limits["at_once"]:
        raise _scim_error(429, f"Not more than {limits['at_once']} requests at the same time")
    hour = world.table("afc.rate").setdefault(tenant, {"since": world.now(), "requests": 0})
    if world.now() >= hour["since"] + limits["seconds"]:
        hour.update(since=world.now(), requests=0)
    if hour["requests"] >= limits["requests"]:
        raise _scim_error(429, f"Not more than {limits['requests']} requests in {limits['seconds']} seconds")
    hour["requests"] += 1


def _scim(scope: str) -> Callable[[AfcHandler], Callable[..., Response]]:
    """Wraps a route of SCIM: token, scope, limits."""

    def wrap(handler: AfcHandler) -> Callable[..., Response]:
        def answer(world: World, request: Request, **caught: str) -> Response:
            tenant = _tenant(world, request, scope, _scim_error)
            _count(world, request, tenant)
            return handler(world, request, tenant, **caught)

        return answer

    return wrap


# ----------------------------------------------------------------------------------------------------------------------
# Users and groups


def _of_tenant(world: World, tenant: str) -> Json:
    """What a tenant was seeded with, or what every tenant has."""
    found = world.rows("afc.tenants").get(tenant, {})
    return {"users": [{"userName": name} for name in USERS], "groups": list(GROUPS), **found}


def _users(world: World, tenant: str, url: Callable[[str], str]) -> list[Json]:
    made = world.rows("subaccounts")[tenant]["created"]
    return [
        {
            "schemas": [f"{SCHEMA}:User"],
            "id": _id(tenant, "user", row["userName"]),
            "userName": row["userName"],
            "name": {"familyName": row["userName"].partition("@")[0]},
            "displayName": row["userName"].partition("@")[0],
            "active": row.get("active", True),
            "emails": [{"value": row["userName"], "primary": True}],
            "meta": _meta("User", made, url(f"/Users/{_id(tenant, 'user', row['userName'])}")),
        }
        for row in _of_tenant(world, tenant)["users"]
    ]


def _groups(world: World, tenant: str, url: Callable[[str], str]) -> list[Json]:
    made = world.rows("subaccounts")[tenant]["created"]
    return [
        {
            "schemas": [f"{SCHEMA}:Group"],
            "id": _id(tenant, "group", row["displayName"]),
            "displayName": row["displayName"],
            "members": [
                {
                    "value": _id(tenant, "user", name),
                    "display": name.partition("@")[0],
                    "$ref": url(f"/Users/{_id(tenant, 'user', name)}"),
                    "type": "User",
                }
                for name in row.get("members", ())
            ],
            "meta": _meta("Group", made, url(f"/Groups/{_id(tenant, 'group', row['displayName'])}")),
        }
        for row in _of_tenant(world, tenant)["groups"]
    ]


def _id(tenant: str, kind: str, name: str) -> str:
    return shaped_from("afc", tenant, kind, name)


def _meta(kind: str, made: float, location: str) -> Json:
    return {"resourceType": kind, "created": stamp(made), "lastModified": stamp(made), "location": location}


_KINDS: Mapping[str, tuple[Callable[..., list[Json]], tuple[str, ...]]] = {
    "Users": (_users, ("id", "userName", "displayName", "active", "emails.value", "name.familyName")),
    "Groups": (_groups, ("id", "displayName", "members.value")),
}
_CRITERION = re.compile(r'\s*([A-Za-z][\w.]*)\s+(\w+)\s+("(?:[^"\\]|\\.)*"|true|false)\s*')
_AND = re.compile(r"and\s+", re.IGNORECASE)


def _criteria(text: str, known: tuple[str, ...]) -> list[tuple[str, str, Any]]:
    """The criteria of a filter, all of which must hold (RFC 7644, 3.4.2.2; here eq, sw, co and "and")."""
    found = []
    by_name = {name.lower(): name for name in known}
    position = 0
    while True:
        match = _CRITERION.match(text, position)
        if match is None:
            raise _scim_error(400, f"The filter is not understood: {text}", "invalidFilter")
        name, operator = by_name.get(match[1].lower()), match[2].lower()
        if name is None or operator not in {"eq", "sw", "co"}:
            raise _scim_error(400, f"The filter cannot have {match[1]} {match[2]}", "invalidFilter")
        try:
            value = json.loads(match[3])
        except ValueError as error:
            raise _scim_error(400, f"The filter is not understood: {text}", "invalidFilter") from error
        if operator != "eq" and not isinstance(value, str):
            raise _scim_error(400, f"The filter cannot compare {match[3]} by {match[2]}", "invalidFilter")
        found.append((name, operator, value))
        position = match.end()
        if position == len(text):
            return found
        both = _AND.match(text, position)
        if both is None:
            raise _scim_error(400, f"The filter is not understood: {text}", "invalidFilter")
        position = both.end()


def _holds(row: Json, criterion: tuple[str, str, Any]) -> bool:
    name, operator, wanted = criterion
    return any(
        value == wanted
        if operator == "eq"
        else isinstance(value, str) and (value.startswith(wanted) if operator == "sw" else wanted in value)
        for value in _values(row, name)
    )


def _values(row: Json, name: str) -> list[Any]:
    first, _, below = name.partition(".")
    value = row.get(first)
    if not below:
        return [value]
    return [
        one.get(below) for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)
    ]


def _shown(row: Json, request: Request) -> Json:
    """The attributes that were asked for, or all but those that were not wanted (RFC 7644, 3.9)."""
    wanted, unwanted = (
        {name.strip().partition(".")[0].lower() for name in (request.one(which) or "").split(",") if name}
        for which in ("attributes", "excludedAttributes")
    )
    always = {"schemas", "id"}
    return {
        name: value
        for name, value in row.items()
        if name in always or ((not wanted or name.lower() in wanted) and name.lower() not in unwanted)
    }


def _base(request: Request) -> Callable[[str], str]:
    return lambda path: request.url(request.host, SCIM_PATH + path)


@_scim("scim.read")
def _list(world: World, request: Request, tenant: str, kind: str = "", **_: str) -> Response:
    if kind not in _KINDS:
        return _absent(request)
    make, known = _KINDS[kind]
    try:
        start, count = bearers.whole(request, "startIndex"), bearers.whole(request, "count")
    except ValueError as error:
        raise _scim_error(400, str(error), "invalidValue") from error
    rows = make(world, tenant, _base(request))
    text = request.one("filter")
    if text is not None:
        criteria = _criteria(text, known)
        rows = [row for row in rows if all(_holds(row, one) for one in criteria)]
    most = int(world.settings.get("afc_page_size", PLENTY))
    first = max(1, 1 if start is None else start)
    page = rows[first - 1 :][: most if count is None else max(0, min(count, most))]
    return _json(
        {
            "schemas": [f"{MESSAGE}:ListResponse"],
            "totalResults": len(rows),
            "startIndex": first,
            "itemsPerPage": len(page),
            "Resources": [_shown(row, request) for row in page],
        }
    )


@_scim("scim.read")
def _one(world: World, request: Request, tenant: str, kind: str = "", guid: str = "", **_: str) -> Response:
    if kind not in _KINDS:
        return _absent(request)
    for row in _KINDS[kind][0](world, tenant, _base(request)):
        if row["id"] == guid:
            return _json(_shown(row, request))
    raise _scim_error(404, f"Resource {guid} not found")


@_scim("scim.read")
def _config(world: World, request: Request, tenant: str, **_: str) -> Response:
    del tenant
    if not world.settings.get("afc_service_provider_config", True):
        return _absent(request)
    most = int(world.settings.get("afc_page_size", PLENTY))
    lacks = {"supported": False}
    return _json(
        {
            "schemas": [f"{SCHEMA}:ServiceProviderConfig"],
            "patch": {"supported": True},
            "bulk": {**lacks, "maxOperations": 0, "maxPayloadSize": 0},
            "filter": {"supported": True, "maxResults": most},
            "changePassword": lacks,
            "sort": lacks,
            "etag": lacks,
            "authenticationSchemes": [
                {"type": "oauthbearertoken", "name": "OAuth Bearer Token", "description": "OAuth 2.0"}
            ],
            "meta": {
                "resourceType": "ServiceProviderConfig",
                "location": _base(request)("/ServiceProviderConfig"),
            },
        }
    )


@_scim("scim.write")
def _write(world: World, request: Request, tenant: str, **caught: str) -> Response:
    del tenant
    return not_emulated(world, request, **caught)


def _absent(request: Request) -> Response:
    return _scim_error(404, f"Endpoint {request.path} not found").response


def _json(body: Json) -> Response:
    return Response.json(body, 200, (("Content-Type", SCIM_JSON),))


# ----------------------------------------------------------------------------------------------------------------------
# The task provider


def _task(handler: AfcHandler) -> Callable[..., Response]:
    """Wraps a route of the task provider: token, scope, and what it thinks of a token without a user."""

    def answer(world: World, request: Request, **caught: str) -> Response:
        tenant = _tenant(world, request, "task-center", _task_error)
        status = int(world.settings.get("afc_task_center", 200))
        if status != 200:
            raise _task_error(status, "The token is not that of a user")
        return handler(world, request, tenant, **caught)

    return answer


@_task
def _capabilities(world: World, request: Request, tenant: str, **_: str) -> Response:
    del world, request, tenant
    return Response.json({"version": "2", "capabilities": ["tasks", "taskDefinitions"]})


@_task
def _definitions(world: World, request: Request, tenant: str, **_: str) -> Response:
    del world, tenant
    try:
        pages = [bearers.whole(request, name) for name in ("$top", "$skip")]
    except ValueError as error:
        raise _task_error(400, str(error)) from error
    if any(number is not None and number < 0 for number in pages):
        raise _task_error(400, "$top and $skip are numbers from 0")
    languages = [tag for tag in (request.one("languages") or "en-US").split(",") if tag]
    rows = [
        {"id": name, "names": [{"language": tag, "text": text} for tag in languages]}
        for name, text in (("closing-task", "Closing Task"), ("approval", "Approval of a Closing Task"))
    ]
    top, skip = pages
    return Response.json({"value": rows[skip or 0 :][: len(rows) if top is None else top]})


# ----------------------------------------------------------------------------------------------------------------------


def _unknown(world: World, request: Request) -> Response:
    del world
    return bearers.not_found(request)


def routes(router: Router) -> None:
    """SCIM for reading, and the task provider's two descriptions of itself."""
    router.host(HOST, _unknown)
    router.add(HOST, "GET", f"{SCIM_PATH}/ServiceProviderConfig", _config)
    for path in ("/ResourceTypes", "/Schemas", "/Roles"):
        router.lacks(HOST, "GET", SCIM_PATH + path)
    router.add(HOST, "GET", f"{SCIM_PATH}/{{kind}}", _list)
    router.add(HOST, "GET", f"{SCIM_PATH}/{{kind}}/{{guid}}", _one)
    for kind in _KINDS:
        router.add(HOST, "POST", f"{SCIM_PATH}/{kind}", _write)
        for method in ("PUT", "PATCH", "DELETE"):
            router.add(HOST, method, f"{SCIM_PATH}/{kind}/{{guid}}", _write)
    router.add(HOST, "GET", f"{TASK_PATH}/capabilities", _capabilities)
    router.add(HOST, "GET", f"{TASK_PATH}/taskDefinitions", _definitions)
    router.lacks(HOST, "GET", f"{TASK_PATH}/tasks")


def seed(world: World, document: Mapping[str, Any]) -> None:
    """The users and groups of tenants."""
    for spec in (document.get("subaccounts") or {}).values():
        wanted = spec.get("afc")
        if wanted is None:
            continue
        row = world.table("afc.tenants").setdefault(spec["id"], {})
        for kind, name in (("users", "userName"), ("groups", "displayName")):
            if kind in wanted:
                row[kind] = [{name: one} if isinstance(one, str) else dict(one) for one in wanted[kind]]


def snapshot(world: World) -> Json:
    """The users and groups that tenants were seeded with, by the name of the subaccount."""
    names = {guid: row["name"] for guid, row in world.rows("subaccounts").items()}
    seeded = {names.get(guid, guid): row for guid, row in world.rows("afc.tenants").items()}
    return {"afc": json.loads(json.dumps(seeded))} if seeded else {}
