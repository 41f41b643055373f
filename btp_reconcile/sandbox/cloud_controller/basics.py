"""What every answer of Cloud Controller shares: the caller and its roles, the error envelope, the headers.

Sources: cloudfoundry/cloud_controller_ng app/controllers/v3/application_controller.rb, lib/cloud_controller/permissions.rb,
app/presenters/error_presenter.rb, middleware/rate_limiter.rb, errors/v2.yml; headers as SAP landscapes send them
(cloudfoundry/terraform-provider-cloudfoundry, fixtures/resource_service_instance_managed.yaml).
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox import tokens
from btp_reconcile.sandbox.http import Refusal, Request, Response, Router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from btp_reconcile.sandbox.world import World

API = "api.cf.{landscape}.hana.ondemand.com"

ORGANIZATIONS = "cf.organizations"
SPACES = "cf.spaces"
INSTANCES = "cf.service_instances"
KEYS = "cf.service_credential_bindings"  # bindings of apps too: these have an "app"
ROUTE_BINDINGS = "cf.service_route_bindings"
APPS = "cf.apps"
ROUTES = "cf.routes"
JOBS = "cf.jobs"

SPACE_ROLES = frozenset({"space_developer", "space_manager", "space_auditor", "space_supporter"})
ORGANIZATION_ROLES = frozenset(
    {
        "organization_manager",
        "organization_auditor",
        "organization_user",
        "organization_billing_manager",
    }
)

Row = dict[str, Any]


# ----------------------------------------------------------------------------------------------------------------------
# Errors


def error(status: int, code: int, title: str, detail: str) -> Refusal:
    """One item in Cloud Controller's envelope; ``title`` without its ``CF-``."""
    body = {"errors": [{"detail": detail, "title": f"CF-{title}", "code": code}]}
    return Refusal(rails_json(body, status))


def unprocessable(*details: str) -> Refusal:
    """422 10008, the workhorse of v3; several texts make one item."""
    return error(422, 10008, "UnprocessableEntity", ", ".join(details))


def bad_query(*details: str) -> Refusal:
    """400 10005."""
    return error(400, 10005, "BadQueryParameter", f"The query parameter is invalid: {', '.join(details)}")


def not_found(kind: str) -> Refusal:
    """404 10010; ``kind`` as in "Service instance"."""
    return error(404, 10010, "ResourceNotFound", f"{kind} not found")


def not_authorized() -> Refusal:
    """403 10003: readable, but not writable."""
    return error(403, 10003, "NotAuthorized", "You are not authorized to perform the requested action")


def operation_in_progress(name: str) -> Refusal:
    """409 60016."""
    return error(
        409,
        60016,
        "AsyncServiceInstanceOperationInProgress",
        f"An operation for service instance {name} is in progress.",
    )


def unknown_error() -> Refusal:
    """500: what Cloud Controller makes of anything it did not expect."""
    body = {"errors": [{"title": "UnknownError", "detail": "An unknown error occurred.", "code": 10001}]}
    return Refusal(rails_json(body, 500))


def rails_json(data: Any, status: int = 200) -> Response:
    """JSON as Rails writes it, with the signs escaped that HTML would trip over."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    for sign in "&<>":
        if sign in text:
            text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Response(status, (("Content-Type", "application/json; charset=utf-8"),), text.encode())


# ----------------------------------------------------------------------------------------------------------------------
# The caller


@dataclass(frozen=True)
class Caller:
    """Who asks, and what the token and the roles allow."""

    id: str = ""
    scopes: frozenset[str] = frozenset()
    roles: Mapping[str, Iterable[str]] = field(default_factory=dict)
    known: bool = False
    name: str = ""
    """A user's email, or a client's id: what audit events name (lib/cloud_controller/user_audit_info.rb)."""

    @property
    def admin(self) -> bool:
        """May do everything."""
        return "cloud_controller.admin" in self.scopes

    @property
    def reads_everything(self) -> bool:
        """Sees every organisation and space without a role."""
        return bool(
            self.scopes
            & {
                "cloud_controller.admin",
                "cloud_controller.admin_read_only",
                "cloud_controller.global_auditor",
            }
        )

    @property
    def reads_secrets_everywhere(self) -> bool:
        """Sees credentials without a role."""
        return bool(self.scopes & {"cloud_controller.admin", "cloud_controller.admin_read_only"})

    @property
    def may_read(self) -> bool:
        """Whether the token reads at all."""
        return self.reads_everything or "cloud_controller.read" in self.scopes

    @property
    def may_write(self) -> bool:
        """Whether the token writes at all."""
        return self.admin or "cloud_controller.write" in self.scopes


def _caller(world: World, request: Request) -> Caller:
    try:
        found = tokens.claims(world, request)
    except tokens.Invalid as invalid:
        if invalid.missing:
            return Caller()
        raise error(401, 1000, "InvalidAuthToken", "Invalid Auth Token") from invalid
    if "user_id" in found:
        row = world.rows("users").get(f"{found['origin']}/{found['user_name']}", {})
        roles, name = row.get("roles", {}), found.get("email", found["user_name"])
        return Caller(found["user_id"], frozenset(found["scope"]), roles, known=True, name=name)
    row = world.rows("clients").get(found["cid"], {})
    roles = row.get("roles", {})
    return Caller(found["cid"], frozenset(found["scope"]), roles, known=True, name=found["cid"])


@dataclass
class Call:
    """One request at one landscape's Cloud Controller."""

    world: World
    request: Request
    caller: Caller

    @functools.cached_property
    def landscape(self) -> str:
        """Whose Cloud Controller this is."""
        return self.request.place["landscape"]

    @functools.cached_property
    def api(self) -> str:
        """The address of this Cloud Controller as the client calls it."""
        return self.request.url(self.request.host, "")

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """The knobs of Cloud Foundry."""
        found: dict[str, Any] = self.world.settings["cloud_foundry"]
        return found

    def rows(self, name: str) -> Mapping[str, Any]:
        """The rows of a table; a reading request leaves them as they are, apart from what jobs do to them."""
        reading = self.request.method in {"GET", "HEAD"}
        return self.world.rows(name) if reading else self.world.table(name)

    # Places --------------------------------------------------------------------------------------------------

    @functools.cached_property
    def organizations(self) -> dict[str, Row]:
        """The organisations that the caller may read."""
        rows = self._here(ORGANIZATIONS)
        if self.caller.reads_everything:
            return rows
        by_space = {space["organization"] for space in self.spaces.values()}
        return {
            guid: row
            for guid, row in rows.items()
            if guid in by_space or self._roles_in(row["name"]) & ORGANIZATION_ROLES
        }

    @functools.cached_property
    def spaces(self) -> dict[str, Row]:
        """The spaces that the caller may read."""
        rows = self._here(SPACES)
        if self.caller.reads_everything:
            return rows
        return {guid: row for guid, row in rows.items() if self._reads_space(row)}

    def organization_of(self, space: Mapping[str, Any]) -> Row:
        """The organisation of a space."""
        row: Row = self.rows(ORGANIZATIONS)[space["organization"]]
        return row

    def _here(self, table: str) -> dict[str, Row]:
        rows = self.rows(table)
        return {guid: row for guid, row in rows.items() if row["landscape"] == self.landscape}

    def _roles_in(self, organization: str, space: str | None = None) -> set[str]:
        place = organization if space is None else f"{organization}/{space}"
        roles = self.caller.roles
        return {*roles.get(place, ()), *roles.get("*", ())}

    def _reads_space(self, row: Mapping[str, Any]) -> bool:
        organization = self.organization_of(row)["name"]
        return bool(
            self._roles_in(organization, row["name"]) & SPACE_ROLES
            or "organization_manager" in self._roles_in(organization)
        )

    @property
    def actor(self) -> tuple[str, str]:
        """Who asks, as audit events name them."""
        return (self.caller.id, self.caller.name)

    def audits(self, organization_guid: str, space_guid: str) -> bool:
        """Whether the caller sees the audit events of a space (app/models/runtime/event.rb, user_visibility_filter)."""
        organization = self.rows(ORGANIZATIONS).get(organization_guid)
        space = self.rows(SPACES).get(space_guid)
        if organization is None:
            return False
        if "organization_auditor" in self._roles_in(organization["name"]):
            return True
        inside = self._roles_in(organization["name"], space["name"]) if space is not None else set()
        return bool(inside & {"space_developer", "space_auditor"})

    def develops(self, space_guid: str) -> bool:
        """Whether the caller may create and change services in a space."""
        if self.caller.admin:
            return True
        space = self.rows(SPACES)[space_guid]
        return "space_developer" in self._roles_in(self.organization_of(space)["name"], space["name"])

    def reads_secrets(self, space_guid: str) -> bool:
        """Whether the caller may see credentials of a space."""
        return self.caller.reads_secrets_everywhere or self.develops(space_guid)

    def must_develop(self, space_guid: str) -> None:
        """403 unless the caller develops in the space and neither it nor its organisation is suspended."""
        if not self.develops(space_guid):
            raise not_authorized()
        if self.caller.admin:
            return
        space = self.rows(SPACES)[space_guid]
        if self.organization_of(space)["suspended"]:
            raise error(403, 10017, "OrgSuspended", "The organization is suspended")
        if space["suspended"]:
            raise error(403, 10019, "SpaceSuspended", "The space is suspended")

    # Bodies --------------------------------------------------------------------------------------------------

    def body(self) -> dict[str, Any]:
        """The body as an object; 400 1001 when it is none."""
        if not self.request.body:
            return {}
        try:
            data = self.request.json()
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise error(
                400, 1001, "MessageParseError", "Request invalid due to parse error: invalid request body"
            )
        return data

    def accepted(self, job: Mapping[str, Any]) -> Response:
        """202 without a body; the job is in ``Location``."""
        location = f"{self.api}/v3/jobs/{job['guid']}"
        return Response(202, (("Content-Type", "text/html"), ("Location", location)))


# ----------------------------------------------------------------------------------------------------------------------
# Routes


def endpoint(
    router: Router,
    method: str,
    path: str,
    function: Callable[..., Response],
    *,
    anonymous: bool = False,
    root: bool = False,
) -> None:
    """One route: who asks is settled before the function is called, and the headers come after it."""

    def handler(world: World, request: Request, **caught: str) -> Response:
        limits: tuple[tuple[str, str], ...] = ()
        try:
            caller = Caller() if root else _caller(world, request)
            call = Call(world, request, caller)
            if not root:
                limits = _count(call)
            if not anonymous and not caller.known:
                raise error(401, 10002, "NotAuthenticated", "Authentication error")
            if caller.known and not (caller.may_read if method in {"GET", "HEAD"} else caller.may_write):
                permissions = "cloud_controller_service_permissions.read" in caller.scopes
                if not (permissions and path.endswith("/permissions")):
                    raise not_authorized()
            from btp_reconcile.sandbox.cloud_controller import jobs

            jobs.settle(world)
            response = function(call, **caught)
        except Refusal as refusal:
            response = refusal.response
        return dressed(world, request, response, limits, root=root)

    router.add(API, method, path, handler)
    if method == "GET":
        router.add(API, "HEAD", path, handler)


def unknown_route(world: World, request: Request) -> Response:
    """404 10000."""
    return dressed(world, request, error(404, 10000, "NotFound", "Unknown request").response, ())


def dressed(
    world: World,
    request: Request,
    response: Response,
    limits: tuple[tuple[str, str], ...],
    *,
    root: bool = False,
) -> Response:
    """The answer with the headers of an SAP landscape."""
    trace = hashlib.md5(
        f"{world.state['seed']}/{world.now()}/{request.raw_target}".encode(), usedforsecurity=False
    ).hexdigest()
    asked = request.headers.get("X-Vcap-Request-Id") or request.headers.get("X-Request-Id")
    kept = "".join(sign for sign in asked or "" if sign.isalnum() or sign in "-_.:")[:255]
    router_id = kept or _uuid(trace)
    headers = [
        *response.headers,
        ("Date", formatdate(world.now(), usegmt=True)),
        ("Strict-Transport-Security", "max-age=31536000; includeSubDomains; preload;"),
        ("X-B3-Spanid", trace[16:]),
        ("X-B3-Traceid", trace),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Vcap-Request-Id", f"{router_id}::{_uuid(trace[::-1])}"),
    ]
    if not root:
        headers += [
            ("Referrer-Policy", "strict-origin-when-cross-origin"),
            ("X-Download-Options", "noopen"),
            ("X-Frame-Options", "SAMEORIGIN"),
            ("X-Permitted-Cross-Domain-Policies", "none"),
            ("X-Runtime", "0.010000"),
            ("X-Xss-Protection", "1; mode=block"),
            *limits,
        ]
    if response.status != 204 and response.header("Content-Length") is None:
        headers.append(("Content-Length", str(len(response.body))))
    return Response(response.status, tuple(headers), response.body)


def _uuid(trace: str) -> str:
    return f"{trace[:8]}-{trace[8:12]}-{trace[12:16]}-{trace[16:20]}-{trace[20:]}"


def _count(call: Call) -> tuple[tuple[str, str], ...]:
    """Counts a call against its user's limit; the headers fall in steps of a tenth, the first call already."""
    limit = call.settings["rate_limit"]
    if limit is None or call.caller.admin or not call.caller.known:
        return ()
    now, window = call.world.now(), call.settings["rate_window"]
    offset = int(hashlib.sha256(call.caller.id.encode()).hexdigest()[:8], 16) % window
    end = (math.floor((now - offset) / window) + 1) * window + offset
    row = call.world.table("cf.rate").setdefault(call.caller.id, {"end": end, "count": 0})
    if row["end"] != end:
        row.update(end=end, count=0)
    row["count"] += 1
    left = max(0, math.floor((limit - row["count"]) * 10 / limit)) * limit // 10
    headers = (
        ("X-RateLimit-Limit", str(limit)),
        ("X-RateLimit-Remaining", str(left)),
        ("X-RateLimit-Reset", str(int(end))),
    )
    if row["count"] > limit:
        refusal = error(429, 10013, "RateLimitExceeded", "Rate Limit Exceeded").response
        wait = ("Retry-After", str(max(1, int(end - now))))
        raise Refusal(
            Response(429, (("Content-Type", "text/plain; charset=utf-8"), wait, *headers), refusal.body)
        )
    return headers
