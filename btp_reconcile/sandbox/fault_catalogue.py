"""Every fault by name: what it does, what it can be told, and, where it is an answer, the answer itself.

Bodies and headers are those of cloudfoundry/cloud_controller_ng (errors/v2.yml, middleware/base_rate_limiter.rb,
middleware/service_broker_rate_limiter.rb, app/presenters/v3_error_hasher.rb), of the Service Manager
(Peripli/service-manager pkg/util/errors.go; SAP-docs/btp-service-manager "Rate Limiting"; its Go date in
SAP/sap-btp-service-operator), and of the CIS services (SAP-docs/btp-cloud-platform "Error Response Format" and
"Rate Limiting"). What the platform's gateway and its token endpoints write into a body is nowhere published; what
stands here is only in their manner.

A text in braces is filled in when the fault strikes: ``{in}``, ``{ms}``, ``{date}`` and ``{go}`` are the moment
``seconds`` from now as epoch seconds, epoch milliseconds, HTTP date and Go's format; ``{seconds}``, ``{requests}``,
``{window}``, ``{description}``, ``{path}`` and ``{host}`` are what they say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

CF = ("api.cf.*",)
UAA = ("uaa.cf.*", "login.cf.*", "*.authentication.*")
MANAGER = ("service-manager.*",)
CIS = tuple(f"{name}.*" for name in ("accounts-service", "entitlements-service", "provisioning-service"))

VERBS = ("provision", "update", "deprovision", "bind", "unbind", "assign")

ANSWER = ("status", "headers", "body", "after")
WAIT = (*ANSWER, "seconds")


@dataclass(frozen=True)
class Fault:
    """One fault. ``hosts`` and ``match`` hold where a rule says nothing; ``of`` is what it befalls."""

    about: str
    options: tuple[str, ...] = ()
    of: str = "request"  # or "operation": something that takes time, or a broker's doing
    hosts: tuple[str, ...] = ()
    match: Mapping[str, str] = field(default_factory=dict)
    answer: Mapping[str, Any] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


def _cf(
    about: str,
    status: int,
    code: int,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    match: Mapping[str, str] | None = None,
    seconds: int | None = None,
) -> Fault:
    body = {"errors": [{"detail": detail, "title": title, "code": code}]}
    fields = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return Fault(
        f"Cloud Foundry: {about}",
        ANSWER if seconds is None else WAIT,
        hosts=CF,
        match=match or {},
        answer={"status": status, "headers": fields, "body": body},
        defaults={} if seconds is None else {"seconds": seconds},
    )


LIMITED = {  # JSON by content, text/plain by label
    "Content-Type": "text/plain; charset=utf-8",
    "Retry-After": "{seconds}",
    "X-RateLimit-Limit": "20000",
    "X-RateLimit-Remaining": "0",
    "X-RateLimit-Reset": "{in}",
}


def _manager_429(style: str, retry_after: str | None) -> Fault:
    text = "The allowed request limit of {requests} requests has been reached please try again later"
    return Fault(
        f"Service Manager: 429 {style}",
        (*WAIT, "requests"),
        hosts=MANAGER,
        answer={
            "status": 429,
            "headers": {"Content-Type": "application/json"}
            | ({} if retry_after is None else {"Retry-After": retry_after}),
            "body": {"description": text},
        },
        defaults={"seconds": 30, "requests": 600},
    )


def _manager_502(status: int, description: str) -> Fault:
    text = "Failed provisioning request: Status: {n}; ErrorMessage: <nil>; Description: {description}; ResponseError: <nil>"
    return Fault(
        f"Service Manager: 502, because its broker said {status}",
        (*ANSWER, "description"),
        hosts=MANAGER,
        answer={
            "status": 502,
            "headers": {"Content-Type": "application/json"},
            "body": {
                "error": "BrokerError",
                "description": text.replace("{n}", str(status)),
                "broker_error": {
                    "StatusCode": status,
                    "ErrorMessage": None,
                    "Description": "{description}",
                    "ResponseError": None,
                },
            },
        },
        defaults={"description": description},
    )


def _manager(about: str, status: int, error: str, description: str, **more: Any) -> Fault:
    return Fault(
        f"Service Manager: {about}",
        ANSWER,
        hosts=MANAGER,
        answer={
            "status": status,
            "headers": {"Content-Type": "application/json"},
            "body": {"error": error, "description": description},
        },
        **more,
    )


CORRELATION = "00000000-0000-4000-8000-000000000429"


def _cis(
    about: str,
    status: int,
    code: int,
    message: str,
    *,
    detail: tuple[int, str] | None = None,
    headers: Mapping[str, str] | None = None,
    options: tuple[str, ...] = ANSWER,
    **more: Any,
) -> Fault:
    error: dict[str, Any] = {
        "code": code,
        "message": message,
        "target": "{path}",
        "correlationID": CORRELATION,
    }
    if detail is not None:
        error["details"] = [{"code": detail[0], "message": detail[1]}]
    fields = {"Content-Type": "application/json", "X-CorrelationID": CORRELATION, **(headers or {})}
    return Fault(
        f"accounts, entitlements, provisioning: {about}",
        options,
        hosts=CIS,
        answer={"status": status, "headers": fields, "body": {"error": error}},
        **more,
    )


def _cis_429(about: str, headers: Mapping[str, str]) -> Fault:
    return _cis(
        f"429 with the codes 11006 and 11007, {about}",
        429,
        11006,
        "Request rate limit exceeded",
        detail=(11007, "{requests} requests in {window} seconds"),
        headers=headers,
        options=(*WAIT, "requests", "window"),
        defaults={"seconds": 10, "requests": 5, "window": 3},
    )


PAGE = (
    "<html>\r\n<head><title>{status} {phrase}</title></head>\r\n<body>\r\n<center><h1>{status} {phrase}</h1></center>\r\n"
    "</body>\r\n</html>\r\n"
)


def _page(about: str) -> Fault:
    answer = {"status": 502, "headers": {"Content-Type": "text/html"}, "body": PAGE}
    return Fault(about, ANSWER, answer=answer)


CATALOGUE: dict[str, Fault] = {
    # The connection
    "refuse": Fault("the connection breaks before anything is done"),
    "lose": Fault("the work is done and the answer is lost"),
    "reset": Fault("the work is done and the connection breaks in the middle of the answer"),
    "slow": Fault("the answer takes SECONDS (60)", ("seconds",), defaults={"seconds": 60}),
    # Any answer, and those of the gateway
    "status": Fault("an answer of your own: STATUS (500), what is in it by ANSWER, a HEADER or more", ANSWER, answer={"status": 500}),
    "html": _page("the page of a gateway: STATUS 404, 429, 502 (which it is), 503 or 504"),
    "502": _page("the same as html"),
    "503": Fault(
        "the gateway's 503 in plain text",
        ANSWER,
        answer={
            "status": 503,
            "headers": {"Content-Type": "text/plain; charset=utf-8"},
            "body": "503 Service Unavailable",
        },
    ),
    "unknown-route": Fault(
        "the router's 404 for a host without an application: X-Cf-RouterError: unknown_route",
        ANSWER,
        answer={
            "status": 404,
            "headers": {
                "Content-Type": "text/plain; charset=utf-8",
                "X-Cf-RouterError": "unknown_route",
            },
            "body": "404 Not Found: Requested route ('{host}') does not exist.\n",
        },
    ),
    "redirect": Fault(
        "a redirect (STATUS 302) to a foreign host: TO (https://evil.example), then the path that was asked for",
        ("to", "status", "after"),
        answer={"status": 302, "headers": {"Location": "{to}{target}"}},
        defaults={"to": "https://evil.example"},
    ),
    # Cloud Foundry
    "cf-401": _cf("401, the token is not valid", 401, 1000, "CF-InvalidAuthToken", "Invalid Auth Token"),
    "cf-409": _cf(
        "409, another operation is under way",
        409,
        60016,
        "CF-AsyncServiceInstanceOperationInProgress",
        "An operation for service instance {name} is in progress.",
    ),
    "cf-429": _cf(
        "429, the user's limit is reached, for SECONDS (7)",
        429,
        10013,
        "CF-RateLimitExceeded",
        "Rate Limit Exceeded",
        headers=LIMITED,
        seconds=7,
    ),
    "cf-ip-429": _cf(
        "429 for requests without a token",
        429,
        10014,
        "CF-IPBasedRateLimitExceeded",
        "Rate Limit Exceeded: Unauthenticated requests from this IP address have exceeded the limit. Please log in.",
        headers=LIMITED,
        seconds=7,
    ),
    "cf-broker-429": _cf(
        "429, too many requests to brokers at once, for SECONDS (30)",
        429,
        10016,
        "CF-ServiceBrokerRateLimitExceeded",
        "Service broker concurrent request limit exceeded",
        headers={"Content-Type": "text/plain; charset=utf-8", "Retry-After": "{seconds}"},
        seconds=30,
    ),
    "cf-uaa-429": _cf(
        "429, it reached the limit of its UAA",
        429,
        20008,
        "CF-UaaRateLimited",
        "The UAA is currently rate limited. Please try again later",
    ),
    "cf-500": Fault(
        "Cloud Foundry: 500, whatever it did not expect",
        ANSWER,
        hosts=CF,
        answer={
            "status": 500,
            "headers": {"Content-Type": "application/json; charset=utf-8"},
            "body": {
                "errors": [
                    {"title": "UnknownError", "detail": "An unknown error occurred.", "code": 10001}
                ]
            },
        },
    ),
    "cf-10015": _cf(
        "503, its database cannot be reached",
        503,
        10015,
        "CF-ServiceUnavailable",
        "Database connection failure",
    ),
    "cf-20004": _cf(
        "503, its UAA cannot be reached",
        503,
        20004,
        "CF-UaaUnavailable",
        "The UAA service is currently unavailable",
    ),
    "cf-503": _cf(
        "the same as cf-20004",
        503,
        20004,
        "CF-UaaUnavailable",
        "The UAA service is currently unavailable",
    ),
    "cf-job-gone": _cf(
        "404 for every job",
        404,
        10010,
        "CF-ResourceNotFound",
        "Job not found",
        match={"method": "GET", "path": "^/v3/jobs/"},
    ),
    # Service Manager
    "sm-429": _manager_429("with Retry-After as an HTTP date, SECONDS (30) from now", "{date}"),
    "sm-429-go": _manager_429("with Retry-After as Go writes a date", "{go}"),
    "sm-429-operator": _manager_429("the same as sm-429-go", "{go}"),
    "sm-429-none": _manager_429("without Retry-After", None),
    "sm-broker-422": _manager_502(422, "invalid parameter (role)"),
    "sm-broker-500": _manager_502(500, "Could not find credentials service."),
    "sm-busy": _manager(
        "422, another operation is under way",
        422,
        "ConcurrentOperationInProgress",
        "Another concurrent operation in progress for this resource",
    ),
    "sm-operation-gone": _manager(
        "404 for every operation",
        404,
        "NotFound",
        "could not find such operation",
        match={"method": "GET", "path": "/operations/"},
    ),
    # The CIS services
    "cis-429": _cis_429("with X-Ratelimit-Reset in milliseconds, SECONDS (10) from now", {"X-Ratelimit-Reset": "{ms}"}),
    "cis-429-bare": _cis_429("without any header", {}),
    "cis-locked": _cis(
        "400 with the code 30004, locked by another change",
        400,
        30004,
        "The entity is locked by another running change. Try again later.",
    ),
    "cis-job-gone": _cis(
        "404 for every job",
        404,
        80001,
        "Job not found.",
        match={"method": "GET", "path": "^/jobs-management/"},
    ),
    # Tokens and accounts
    "uaa-429": Fault(
        "429 where tokens are issued, by XSUAA and by Cloud Foundry's UAA",
        WAIT,
        hosts=UAA,
        match={"path": "^/oauth/token"},
        answer={
            "status": 429,
            "headers": {"Content-Type": "application/json", "Retry-After": "{seconds}"},
            "body": {"error": "too_many_requests", "error_description": "Too many requests."},
        },
        defaults={"seconds": 5},
    ),
    "expire-tokens": Fault("every token issued so far is dead from this request on"),
    "lock-account": Fault(
        "USER (everybody) gets no token by password for SECONDS (300) from this request on",
        ("user", "seconds"),
        defaults={"seconds": 300},
    ),
    # An answer that is spoilt on its way
    "empty": Fault(
        "the work is done, and the answer is 200 without a body (or another STATUS)",
        ("status",),
        defaults={"status": 200},
    ),
    "truncated": Fault("the work is done, and half of the answer's body is missing"),
    "content-type": Fault(
        "the work is done, and the answer says that it is TYPE (text/html)",
        ("type",),
        defaults={"type": "text/html"},
    ),
    "huge": Fault(
        "the work is done, and the answer's body has SIZE bytes (20000000) and more",
        ("size",),
        defaults={"size": 20_000_000},
    ),
    "mutated": Fault(
        "the work is done, and one member of the answer is missing or of another type: HOW (any, drop, retype), "
        "MEMBER (a regular expression), SEED (0)",
        ("how", "member", "seed"),
        defaults={"how": "any", "member": "", "seed": 0},
    ),
    "out-of-order": Fault("lists come shuffled, by SEED (0)", ("seed",), defaults={"seed": 0}),
    "small-pages": Fault(
        "a page holds SIZE things (2) at most, whatever was asked for", ("size",), defaults={"size": 2}
    ),
    "clock-skew": Fault(
        "the header Date is SECONDS (3600) ahead; a negative number is behind",
        ("seconds",),
        defaults={"seconds": 3600},
    ),
    # What brokers and workers do
    "broker-failure": Fault(
        "the broker refuses: STATUS (500, or async: 202 and failed in the end), DESCRIPTION, CODE",
        ("status", "description", "code"),
        of="operation",
        defaults={"status": 500, "description": "Could not find credentials service.", "times": 1},
    ),
    "stuck": Fault(
        "an operation never ends, even if this is cleared: PHASE 'in progress', or 'initial' if Cloud Foundry's "
        "worker died before it began",
        ("phase",),
        of="operation",
        defaults={"phase": "in progress"},
    ),
    "async-unbind": Fault(
        "the broker takes time to unbind, so that Cloud Foundry's job to delete an instance with keys fails once",
        of="operation",
        match={"verb": "unbind"},
    ),
}  # fmt: skip

OPTIONS: dict[str, str] = {
    "status": "HTTP status",
    "headers": "header fields; null or an empty text takes one away",
    "body": "text or JSON",
    "after": "the work is done before the answer is given",
    "seconds": "how long, or how far ahead",
    "requests": "the limit that the answer names",
    "window": "the seconds that the answer names",
    "description": "what a broker says",
    "code": "a broker's error code, such as ConcurrencyError",
    "to": "where a redirect leads",
    "user": "whose account",
    "type": "a content type",
    "size": "bytes of a body, or things on a page",
    "how": "drop, retype or any",
    "member": "a regular expression that the member's path fits, such as resources.guid",
    "seed": "another number, other dice",
    "phase": "'in progress' or 'initial'",
}

WHICH: dict[str, tuple[str, ...]] = {
    "request": ("method", "host", "path", "body", "name", "offering"),
    "operation": ("name", "offering", "plan", "verb"),
}
"""What a rule can match, by what the fault befalls."""
