"""What accounts, entitlements and provisioning have in common: error bodies, scopes, jobs, dates.

SAP-docs/btp-cloud-platform "Error Response Format"; swagger files of the services in SAP/crossplane-provider-btp.

Settings: ``cis_errors`` ("wrapped" | "unwrapped"), ``cis_gateway_errors`` ("empty" | "html": body of 401 and 403),
``cis_limits`` (null, or {"requests": n, "seconds": s} per endpoint and caller; 429 with code 11006).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol

from .http import Refusal, Request, Response, no_such_route

if TYPE_CHECKING:
    from collections.abc import Callable

    from .world import World

Json = dict[str, Any]

ACCOUNTS = "accounts-service.cfapps.{region}.hana.ondemand.com"
ENTITLEMENTS = "entitlements-service.cfapps.{region}.hana.ondemand.com"
PROVISIONING = "provisioning-service.cfapps.{region}.hana.ondemand.com"


class CisHandler(Protocol):
    """A route of a CIS service: it also gets the claims of the caller's token."""

    def __call__(self, world: World, request: Request, claims: Json, **caught: str) -> Response: ...


def refusal(
    world: World, request: Request, status: int, code: int, message: str, *details: tuple[int, str]
) -> Refusal:
    """The error of a CIS service; the wrapped form is what real answers have, the bare one is the published schema."""
    correlation = request.headers.get("X-CorrelationID") or world.new_id()
    error: Json = {
        "code": code,
        "message": message,
        "target": request.path,
        "correlationID": correlation,
    }
    if details:
        error["details"] = [{"code": number, "message": text} for number, text in details]
    if world.settings.get("cis_errors", "wrapped") == "unwrapped":
        body: Json = {**error, "description": message}
    else:
        body = {"error": error}
    return Refusal(Response.json(body, status, (("X-CorrelationID", correlation),)))


def invalid(world: World, request: Request, *problems: str) -> Refusal:
    """11000/400: the payload failed its validation."""
    return refusal(
        world, request, 400, 11000, "Payload validation failed.", *((11001, problem) for problem in problems)
    )


def not_allowed(world: World, request: Request, message: str) -> Refusal:
    """12003/400: the operation is not allowed for this input."""
    return refusal(world, request, 400, 12003, message)


def gateway(world: World, status: int) -> Refusal:
    """401 and 403 come from the gateway in front of the service: with an empty or an HTML body."""
    headers: tuple[tuple[str, str], ...] = ()
    if status == 401:
        headers = (("WWW-Authenticate", 'Bearer realm="cis", error="invalid_token"'),)
    if world.settings.get("cis_gateway_errors", "empty") == "html":
        word = {401: "Unauthorized", 403: "Forbidden"}[status]
        return Refusal(
            Response.text(
                f"<html><head><title>{status} {word}</title></head><body>{word}</body></html>",
                status,
                "text/html",
                headers,
            )
        )
    return Refusal(Response.empty(status, headers))


def has_scope(claims: Json, family: str, *names: str) -> bool:
    """Whether the token has one of the scopes, issued by a client of the family (``cis-central``, …)."""
    scopes = claims.get("scope")
    if isinstance(scopes, str):
        scopes = scopes.split()
    for scope in scopes or ():
        for name in names:
            prefix = scope.removesuffix(f".{name}")
            if prefix != scope and prefix.rpartition("|")[2].startswith(f"{family}!"):
                return True
    return False


def route(
    family: str, *scopes: str, central: bool = False
) -> Callable[[CisHandler], Callable[..., Response]]:
    """Wraps a handler: region of the host, token, any one of the scopes (none: any valid token), rate limit."""

    def wrap(handler: CisHandler) -> Callable[..., Response]:
        @functools.wraps(handler)
        def answer(world: World, request: Request, **caught: str) -> Response:
            if central and request.place.get("region") != world.settings["region"]:
                return no_such_route(world, request)
            claims = claims_of(world, request)
            if scopes and not has_scope(claims, family, *scopes):
                raise gateway(world, 403)
            limit(world, request, claims)
            return handler(world, request, claims, **caught)

        return answer

    return wrap


def claims_of(world: World, request: Request) -> Json:
    from . import tokens

    try:
        return dict(tokens.claims(world, request))
    except tokens.Invalid as problem:
        raise gateway(world, 401) from problem


def subaccount_of(claims: Json) -> str:
    """The subaccount that a token of a local key speaks for."""
    attributes = claims.get("ext_attr") or {}
    return str(attributes.get("subaccountid") or claims.get("zid") or "")


def actor(claims: Json) -> str:
    return str(claims.get("user_name") or claims.get("client_id") or claims.get("cid") or "unknown")


def limit(world: World, request: Request, claims: Json) -> None:
    limits = world.settings.get("cis_limits")
    if not limits:
        return
    now = world.now()
    book = world.table("cis.limits")
    key = f"{request.method} {request.host}{request.path} {actor(claims)}"
    recent = [when for when in book.get(key, []) if when > now - limits["seconds"]]
    if len(recent) >= limits["requests"]:
        refused = refusal(
            world,
            request,
            429,
            11006,
            "Request rate limit exceeded.",
            (11007, f"The limit is {limits['requests']} requests in {limits['seconds']} seconds."),
        ).response
        reset = int((recent[0] + limits["seconds"]) * 1000)
        raise Refusal(Response(429, (*refused.headers, ("X-Ratelimit-Reset", str(reset))), refused.body))
    book[key] = [*recent, now]


def body_of(world: World, request: Request) -> Json:
    try:
        data = request.json()
    except ValueError as problem:
        raise invalid(world, request, "The request body is no JSON.") from problem
    if not isinstance(data, dict):
        raise invalid(world, request, "The request body is no JSON object.")
    return data


def flag(request: Request, name: str) -> bool:
    return (request.one(name) or "").lower() == "true"


def millis(seconds: float) -> int:
    return int(seconds * 1000)


# ----------------------------------------------------------------------------------------------------------------------
# Jobs


def new_job(world: World, service: str, row: Json) -> tuple[str, str]:
    """Notes a job and gives the ``Location`` header that leads to it, relative to the service's own address."""
    table = world.table("cis.jobs")
    number = str(53873672 + len(table))
    table[number] = {"service": service, **row}
    return "Location", f"/jobs-management/v1/jobs/{number}/status"


def job_answer(status: str) -> Response:
    text = {"IN_PROGRESS": "Job is running", "COMPLETED": "Job completed", "FAILED": "Job failed"}[status]
    return Response.json(
        {
            "status": status,
            "description": text,
            "jobParams": {},
            "customParams": {},
            "statusDetails": {},
        }
    )


def job(world: World, request: Request, service: str, number: str) -> Json:
    """The row of a job of this service; a job of another service is not found here."""
    row = world.table("cis.jobs").get(number)
    if row is None or row["service"] != service:
        raise refusal(world, request, 404, 80001, f"Job {number} not found.")
    return dict(row)
