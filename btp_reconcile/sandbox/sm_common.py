"""What all routes of Service Manager share: errors, scopes, limits, pages, labels and operations.

Peripli/service-manager pkg/util/errors.go, api/base_controller.go, pkg/types/operation.go, pkg/query/update.go;
SAP-docs/btp-service-manager "Rate Limiting".

Settings: ``sm_page_size`` (50), ``sm_page_cap`` (200), ``sm_limits`` (false | true | {"create": [[50, 60]], …}),
``sm_retry_after`` ("http-date" | "go" | "seconds" | "none"), ``sm_sync_looks`` (30: how long ``async=false`` waits before
the gateway gives up), ``sm_token_issuer`` (subdomain for ``GET /v1/info``), ``sm_lists_cloud_foundry`` (true),
``sm_instance_with_bindings`` (400 | 409), ``sm_deleted_operations`` ("succeeded" | "gone").
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
import json
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

from . import sm_query
from .http import Refusal, Request, Response
from .sm_query import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .world import World

Json = dict[str, Any]
HOST = "service-manager.cfapps.{region}.hana.ondemand.com"
INSTANCES = "/v1/service_instances"
BINDINGS = "/v1/service_bindings"
PLATFORM = "service-manager"
ZERO = "0001-01-01T00:00:00Z"
PROTECTED = "subaccount_id"


def refusal(status: int, error: str, description: str, **more: Any) -> Refusal:
    """An error in Service Manager's own shape."""
    return Refusal(Response.json({"error": error, "description": description, **more}, status))


def bad(description: str) -> Refusal:
    return refusal(400, "BadRequest", description)


def not_found(kind: str) -> Refusal:
    return refusal(404, "NotFound", f"could not find such {kind}")


def broker_refusal(doing: str, status: int, body: Json) -> Refusal:
    """502 whatever the broker said; its own status stands inside, with capital letters."""
    return Refusal(Response.json(broker_error(doing, status, body), 502))


def broker_error(doing: str, status: int, body: Json) -> Json:
    text = body.get("description")
    message = body.get("error")
    return {
        "error": "BrokerError",
        "description": (
            f"Failed {doing}: Status: {status}; ErrorMessage: {message or '<nil>'}; "
            f"Description: {text or '<nil>'}; ResponseError: <nil>"
        ),
        "broker_error": {
            "StatusCode": status,
            "ErrorMessage": message,
            "Description": text,
            "ResponseError": None,
        },
    }


# ----------------------------------------------------------------------------------------------------------------------
# Callers


class Caller:
    """Who calls: the subaccount of the token, and what its plan lets it see."""

    def __init__(self, claims: Json, subaccount: Json, container: str | None) -> None:
        self.name = str(claims.get("user_name") or claims.get("client_id") or claims.get("cid") or "")
        self.subaccount = subaccount
        self.container = container

    @property
    def subaccount_id(self) -> str:
        return str(self.subaccount["id"])

    def sees(self, row: Json) -> bool:
        if row["subaccount_id"] != self.subaccount["id"]:
            return False
        return self.container is None or row.get("container") == self.container


class SmHandler(Protocol):
    """A route of Service Manager."""

    def __call__(self, world: World, request: Request, caller: Caller, **caught: str) -> Response: ...


CHANGING = (
    "sm.instances",
    "sm.bindings",
    "sm.operations",
)  # what requests other than GET may change anywhere


def route(scope: str, limit: str | None = None) -> Callable[[SmHandler], Callable[..., Response]]:
    """Wraps a handler: token, scope, rate limits."""

    def wrap(handler: SmHandler) -> Callable[..., Response]:
        @functools.wraps(handler)
        def answer(world: World, request: Request, **caught: str) -> Response:
            caller = _caller(world, request, scope)
            _count(world, caller, limit)
            if request.method not in {"GET", "HEAD"}:
                for name in CHANGING:
                    world.table(name)
            return handler(world, request, caller, **caught)

        return answer

    return wrap


def _caller(world: World, request: Request, scope: str) -> Caller:
    from . import tokens

    try:
        claims = dict(tokens.claims(world, request))
    except tokens.Invalid as problem:
        raise refusal(401, "Unauthorized", "unauthorized request") from problem
    attributes = claims.get("ext_attr") or {}
    guid = attributes.get("subaccountid") or claims.get("zid")
    subaccount = world.rows("subaccounts").get(str(guid))
    if subaccount is None or subaccount["region"] != request.place.get("region"):
        raise refusal(401, "Unauthorized", "unauthorized request")
    if not _has_scope(claims, scope):
        raise refusal(403, "Forbidden", f"The token lacks the scope {scope}")
    client = world.rows("clients").get(str(claims.get("client_id") or claims.get("cid")), {})
    container = attributes.get("serviceinstanceid") if client.get("plan") == "container" else None
    return Caller(claims, subaccount, container)


def _has_scope(claims: Json, name: str) -> bool:
    scopes = claims.get("scope") or ()
    for scope in scopes.split() if isinstance(scopes, str) else scopes:
        prefix = scope.removesuffix(f".{name}")
        if prefix != scope and prefix.rpartition("|")[2].startswith("service-manager!"):
            return True
    return False


_LIMITS: dict[str, list[list[int]]] = {
    "all": [[10000, 3600], [1000, 60]],
    "bindings": [[6000, 3600], [600, 60]],
    "offerings": [[1000, 3600], [100, 60]],
    "plans": [[1000, 3600], [100, 60]],
    "create": [[50, 60]],
    "update": [[6000, 3600], [600, 60]],
    "delete": [[6000, 3600], [600, 60]],
}


def _count(world: World, caller: Caller, limit: str | None) -> None:
    wanted = world.settings.get("sm_limits")
    if not wanted:
        return
    limits = {**_LIMITS, **(wanted if isinstance(wanted, dict) else {})}
    now = world.now()
    book = world.table("sm.limits")
    for name in ("all", limit):
        if name is None:
            continue
        key = f"{caller.name} {name}"
        horizon = max(window for _, window in limits[name])
        moments = [moment for moment in book.get(key, []) if moment > now - horizon]
        for most, window in limits[name]:
            recent = [moment for moment in moments if moment > now - window]
            if len(recent) >= most:
                raise _too_many(world, most, recent[0] + window)
        book[key] = [*moments, now]


def _too_many(world: World, most: int, until: float) -> Refusal:
    style = world.settings.get("sm_retry_after", "http-date")
    moment = dt.datetime.fromtimestamp(int(until) + 1, dt.UTC)
    headers: tuple[tuple[str, str], ...] = ()
    if style == "http-date":
        headers = (("Retry-After", format_datetime(moment, usegmt=True)),)
    elif style == "go":
        headers = (("Retry-After", moment.strftime("%Y-%m-%d %H:%M:%S +0000 UTC")),)
    elif style == "seconds":
        headers = (("Retry-After", str(max(1, int(until - world.now()) + 1))),)
    text = f"The allowed request limit of {most} requests has been reached."
    return Refusal(Response.json({"description": text}, 429, headers))


# ----------------------------------------------------------------------------------------------------------------------
# Bodies, times, labels


def body_of(request: Request) -> Json:
    """The JSON object of a request; 415 when the content type says otherwise, 400 when it is none."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise refusal(415, "UnsupportedMediaType", "unsupported media type provided")
    try:
        data = request.json()
    except ValueError as problem:
        raise bad("Failed to decode request body") from problem
    if not isinstance(data, dict):
        raise bad("Failed to decode request body")
    return data


def is_async(request: Request) -> bool | None:
    """None when the caller leaves it to the broker."""
    value = request.one("async")
    if value is None or value == "":
        return None
    return value != "false"


def moment(world: World, salt: str) -> str:
    """Now, with a fraction of five to nine digits as Go writes it."""
    digits = int(hashlib.sha256(f"{salt}{world.now()}".encode()).hexdigest()[:8], 16)
    fraction = f"{digits % 1000000:06d}".rstrip("0").ljust(5, "1")
    return world.stamp().replace("Z", f".{fraction}Z")


def checked_labels(labels: Any) -> dict[str, list[str]]:
    """The labels of a new resource."""
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise bad("Failed to decode request body")
    if PROTECTED in labels:
        raise bad(f"Set/Add values for label {PROTECTED} is not allowed")
    for key, values in labels.items():
        _check_label(key, values)
    return {key: list(dict.fromkeys(values)) for key, values in labels.items() if values}


def _check_label(key: Any, values: Any) -> None:
    if not isinstance(key, str) or not key or any(sign.isspace() for sign in key):
        raise bad(f'label key "{key}" cannot contain whitespaces and special symbols')
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise bad("Failed to decode request body")
    for value in values:
        if "\n" in value:
            raise bad(f'label with key "{key}" has value "{value}" contaning forbidden new line character')
        if len(value) > 255:
            raise bad(f'label with key "{key}" has a value longer than 255 characters')


def changed_labels(labels: Mapping[str, list[str]], changes: Any) -> dict[str, list[str]]:
    """The labels after a list of changes; what is already so is no error."""
    if not isinstance(changes, list):
        raise bad("Failed to decode request body")
    result = {key: list(values) for key, values in labels.items()}
    for change in changes:
        if not isinstance(change, dict) or not isinstance(change.get("key"), str):
            raise bad("Failed to decode request body")
        operation, key, values = change.get("op"), change["key"], change.get("values") or []
        if key == PROTECTED:
            raise bad(f"Modifying is not allowed for label {PROTECTED}")
        if operation not in {"add", "add_values", "remove", "remove_values"}:
            raise bad(f"unsupported label operation: {operation}")
        if operation != "remove" and not values:
            raise bad(f"operation {operation} requires values to be provided")
        _check_label(key, values)
        if operation in {"add", "add_values"}:
            result[key] = list(dict.fromkeys([*result.get(key, []), *values]))
        elif operation == "remove":
            result.pop(key, None)
        else:
            result[key] = [value for value in result.get(key, []) if value not in values]
        if not result.get(key):
            result.pop(key, None)
    return result


# ----------------------------------------------------------------------------------------------------------------------
# Lists


def page(
    world: World,
    request: Request,
    rows: Iterable[Json],
    fields: Mapping[str, Callable[[Json], Any]],
    labels: Callable[[Json], Mapping[str, list[str]]],
    show: Callable[[Json], Json],
) -> Response:
    """One page of what both queries select; ``num_items`` counts all of it."""
    try:
        found = sm_query.select(rows, fields, request.one("fieldQuery"), request.one("labelQuery"), labels)
    except QueryError as problem:
        raise bad(str(problem)) from problem
    limit = _limit(world, request.one("max_items"))
    if limit == 0:
        return Response.json({"num_items": len(found)})
    after = _after(request.one("token"))
    rest = [row for row in found if row["seq"] > after] if after else found
    shown = rest[:limit]
    answer: Json = {}
    headers: tuple[tuple[str, str], ...] = ()
    if len(rest) > limit:
        token = base64.b64encode(str(shown[-1]["seq"]).encode()).decode()
        answer["token"] = token
        query = urlencode(
            [*((key, value) for key, value in request.query if key != "token"), ("token", token)]
        )
        headers = (("Link", f'<{request.url(request.host, request.path)}?{query}>; rel="next"'),)
    answer["num_items"] = len(found)
    answer["items"] = [show(row) for row in shown]
    return Response.json(answer, 200, headers)


def _limit(world: World, text: str | None) -> int:
    most = world.bent.get("page_size", int(world.settings.get("sm_page_cap", 200)))
    if text is None or text == "":
        return min(int(world.settings.get("sm_page_size", 50)), most)
    if not text.isascii() or not text.isdigit():
        raise refusal(400, "InvalidMaxItems", f"max_items should be integer and not negative, but was {text}")
    return min(int(text), most)


def _after(token: str | None) -> int:
    if not token:
        return 0
    try:
        number = int(base64.b64decode(token, validate=True).decode())
    except ValueError as problem:
        raise refusal(400, "TokenInvalid", "Invalid token provided.") from problem
    if number < 0:
        raise refusal(400, "TokenInvalid", "Invalid token provided.")
    return number


# ----------------------------------------------------------------------------------------------------------------------
# Operations


def start(
    world: World, kind: str, row: Json, verb: str, ticket: Json | None, *, failure: Json | None = None
) -> Json:
    """Notes an operation on a resource: finished at once without a ticket, else running."""
    operation: Json = {
        "id": world.new_id(),
        "type": verb,
        "state": "in progress",
        "resource_id": row["id"],
        "resource_type": kind,
        "subaccount_id": row["subaccount_id"],
        "correlation_id": world.new_id(),
    }
    operation["created_at"] = operation["updated_at"] = moment(world, operation["id"])
    world.table("sm.operations")[operation["id"]] = operation
    row["operation"] = operation["id"]
    if ticket is None:
        finish(world, operation, failure)
    else:
        operation["ticket"] = ticket
        if failure is not None:
            operation["failure"] = failure
        world.table("sm.running")[operation["id"]] = row["subaccount_id"]
    return operation


def finish(world: World, operation: Json, failure: Json | None) -> None:
    operation.pop("ticket", None)
    operation.pop("failure", None)
    world.table("sm.running").pop(operation["id"], None)
    operation["state"] = "succeeded" if failure is None else "failed"
    operation["updated_at"] = moment(world, operation["id"] + "end")
    if failure is not None:
        operation["errors"] = failure
        operation["description"] = failure.get("description", "")


def running(world: World, row: Json) -> Json | None:
    """The operation that is under way on a resource."""
    operation = world.rows("sm.operations").get(row.get("operation", ""))
    return operation if operation is not None and operation["state"] == "in progress" else None


def wait(world: World, ticket: Json | None) -> bool:
    """What ``async=false`` does: waits, unless it would take longer than the gateway's patience."""
    if ticket is None:
        return True
    patience = float(world.settings.get("sm_sync_looks", 30))
    if "seen" in ticket:
        return ticket["needs"] is not None and ticket["needs"] <= patience
    return ticket["ready"] is not None and ticket["ready"] - world.now() <= patience


def show_operation(operation: Json) -> Json:
    shown = {
        "id": operation["id"],
        "ready": True,
        "type": operation["type"],
        "state": operation["state"],
        "resource_id": operation["resource_id"],
        "resource_type": operation["resource_type"],
        "platform_id": PLATFORM,
        "correlation_id": operation["correlation_id"],
        "reschedule": operation["state"] == "in progress" and operation["type"] == "create",
        "reschedule_timestamp": ZERO,
        "deletion_scheduled": ZERO,
        "created_at": operation["created_at"],
        "updated_at": operation["updated_at"],
    }
    for key in ("description", "errors"):
        if operation.get(key):
            shown[key] = operation[key]
    return shown


def accepted(kind: str, row: Json, operation: Json) -> Response:
    """202: the body says nothing, the way to the operation is in ``Location``."""
    where = f"{kind}/{row['id']}/operations/{operation['id']}"
    return Response.json({}, 202, (("Location", where),))


def gateway_timeout() -> Refusal:
    page_text = "<html><body><h1>504 Gateway Time-out</h1>The server didn't respond in time.</body></html>"
    return Refusal(Response.text(page_text, 504, "text/html"))


def parameters_of(body: Json) -> Json | None:
    """The parameters of a body: an object, or nothing."""
    given = body.get("parameters")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise bad("Failed to decode request body")
    copied: Json = json.loads(json.dumps(given))
    return copied
