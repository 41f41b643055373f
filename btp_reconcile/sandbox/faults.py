"""Faults on demand: rules that say which request goes wrong, and how.

A rule is JSON: ``{"match": {...}, "at": n | "every": n, "times": n, "do": what, ...}``. ``match`` compares ``method`` and
``host`` exactly and searches ``path`` and ``body`` as regular expressions; what is left out fits everything. ``at`` is
the n-th fitting request counted from when the rule was added, ``every`` each n-th, and neither means each one.
``times`` ends a rule after so many faults.

``do`` is one of

- ``refuse``: the connection breaks before anything is done.
- ``lose``: the work is done and the answer is lost.
- ``status``: an answer with ``status``, ``body`` (text or JSON) and ``headers`` instead of the work.
- ``html``: the page of a gateway (``status``, default 502) instead of the work.
- ``slow``: the answer takes ``seconds``.
- ``expire-tokens``: every token issued so far is dead from this request on.
- one of ``READY``: the platform's own answers under load or in trouble.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox.http import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from btp_reconcile.sandbox.world import World

GATEWAY_PAGE = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    "</body>\r\n</html>\r\n"
)


def _cf(status: int, code: int, title: str, detail: str) -> dict[str, Any]:
    return {"status": status, "body": {"errors": [{"detail": detail, "title": title, "code": code}]}}


# CCNG middleware/base_rate_limiter.rb: JSON by content, text/plain by label; the other families answer in their own ways.
READY: dict[str, dict[str, Any]] = {
    "cf-429": {
        **_cf(429, 10013, "CF-RateLimitExceeded", "Rate Limit Exceeded"),
        "headers": {
            "Content-Type": "text/plain; charset=utf-8",
            "Retry-After": "7",
            "X-RateLimit-Limit": "20000",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": "{in:7}",
        },
    },
    "cf-broker-429": {
        **_cf(
            429,
            10016,
            "CF-ServiceBrokerRateLimitExceeded",
            "Service broker concurrent request limit exceeded",
        ),
        "headers": {"Content-Type": "text/plain; charset=utf-8", "Retry-After": "30"},
    },
    "cf-401": _cf(401, 1000, "CF-InvalidAuthToken", "Invalid Auth Token"),
    "cf-500": {
        "status": 500,
        "body": {
            "errors": [{"title": "UnknownError", "detail": "An unknown error occurred.", "code": 10001}]
        },
    },
    "cf-503": _cf(503, 20004, "CF-UaaUnavailable", "The UAA service is currently unavailable"),
    "uaa-429": {
        "status": 429,
        "headers": {"Retry-After": "5"},
        "body": {"error": "too_many_requests", "error_description": "Too many requests."},
    },
    "sm-429": {
        "status": 429,
        "headers": {"Retry-After": "{date:30}"},
        "body": {
            "description": "The allowed request limit of 600 requests has been reached please try again later"
        },
    },
    "sm-429-operator": {
        "status": 429,
        "headers": {"Retry-After": "{go:30}"},
        "body": {
            "description": "The allowed request limit of 600 requests has been reached please try again later"
        },
    },
    "cis-429": {
        "status": 429,
        "headers": {"X-Ratelimit-Reset": "{ms:10}"},
        "body": {
            "error": {
                "code": 11006,
                "message": "Request rate limit exceeded",
                "correlationID": "00000000-0000-4000-8000-000000000429",
                "details": [{"code": 11007, "message": "5 requests in 3 seconds"}],
            }
        },
    },
    "502": {"status": 502, "headers": {"Content-Type": "text/html"}, "body": GATEWAY_PAGE},
    "503": {
        "status": 503,
        "headers": {"Content-Type": "text/plain; charset=utf-8"},
        "body": "503 Service Unavailable",
    },
}

DEEDS = {"refuse", "lose", "status", "html", "slow", "expire-tokens", *READY}


class Lost(Exception):
    """The connection broke. ``done`` says whether the work had been done before."""

    def __init__(self, *, done: bool) -> None:
        super().__init__(
            "the answer was lost after the work was done" if done else "the connection was refused"
        )
        self.done = done


@dataclass
class Verdict:
    """What the rules say about one request."""

    refuse: bool = False
    lose: bool = False
    response: Response | None = None
    delay: float = 0.0
    expire: bool = False


def checked(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A rule that can be kept; raises ``ValueError`` for one that says nothing."""
    row = json.loads(json.dumps(dict(rule)))
    unknown = set(row) - {"match", "at", "every", "times", "do", "status", "body", "headers", "seconds"}
    if unknown:
        raise ValueError(f"a fault has no {', '.join(sorted(unknown))}")
    if row.get("do") not in DEEDS:
        raise ValueError(f"a fault does one of {', '.join(sorted(DEEDS))}, not {row.get('do')!r}")
    stray = set(row.get("match", {})) - {"method", "host", "path", "body"}
    if stray:
        raise ValueError(f"a fault cannot match {', '.join(sorted(stray))}")
    return {**row, "seen": 0, "struck": 0}


def _fits(match: Mapping[str, str], request: Request) -> bool:
    return (
        match.get("method", request.method).upper() == request.method
        and match.get("host", request.host) == request.host
        and ("path" not in match or re.search(match["path"], request.path) is not None)
        and (
            "body" not in match
            or re.search(match["body"], request.body.decode("utf-8", "replace")) is not None
        )
    )


def _when(world: World, value: str) -> str:
    """``{in:7}`` and its sisters in a header's value: a moment so many seconds ahead, in one of four writings."""
    match = re.fullmatch(r"\{(in|ms|date|go):(\d+)\}", value)
    if match is None:
        return value
    moment = int(world.now()) + int(match[2])
    if match[1] == "date":
        return formatdate(moment, usegmt=True)
    if match[1] == "go":
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
    return str(moment * 1000) if match[1] == "ms" else str(moment)


def _answer(world: World, rule: Mapping[str, Any]) -> Response:
    body = rule.get("body", "")
    headers = dict(rule.get("headers", {}))
    if not isinstance(body, str):
        body = json.dumps(body, separators=(",", ":"))
        headers.setdefault("Content-Type", "application/json")
    headers = {name: _when(world, str(value)) for name, value in headers.items()}
    return Response(int(rule.get("status", 500)), tuple(headers.items()), body.encode())


def judge(world: World, request: Request) -> Verdict:
    """Counts one request against every rule and says what befalls it."""
    verdict = Verdict()
    for rule in world.state["faults"].get("rules", ()):
        if not _fits(rule.get("match", {}), request):
            continue
        rule["seen"] += 1
        if "times" in rule and rule["struck"] >= rule["times"]:
            continue
        if ("at" in rule and rule["seen"] != rule["at"]) or (
            "every" in rule and rule["seen"] % rule["every"]
        ):
            continue
        rule["struck"] += 1
        deed = rule["do"]
        if deed == "refuse":
            verdict.refuse = True
        elif deed == "lose":
            verdict.lose = True
        elif deed == "slow":
            verdict.delay += float(rule.get("seconds", 60))
        elif deed == "expire-tokens":
            verdict.expire = True
        elif deed == "html":
            page = {"status": 502, "headers": {"Content-Type": "text/html"}, "body": GATEWAY_PAGE}
            verdict.response = _answer(world, {**page, **rule})
        else:
            verdict.response = _answer(world, {**READY.get(deed, {}), **rule})
    return verdict


class Faults:
    """The rules of one sandbox."""

    def __init__(self, hold: Callable[[], AbstractContextManager[World]]) -> None:
        self._hold = hold

    def add(self, rule: Mapping[str, Any]) -> None:
        """One more rule; it counts requests from now on."""
        row = checked(rule)
        with self._hold() as world:
            world.state["faults"].setdefault("rules", []).append(row)

    def cut(self, n: int, when: str) -> None:
        """Cuts the n-th request from now: ``before`` or ``after`` the work is done."""
        self.add({"at": n, "do": {"before": "refuse", "after": "lose"}[when]})

    def clear(self) -> None:
        """No rules any more."""
        with self._hold() as world:
            world.state["faults"].pop("rules", None)

    def rules(self) -> list[dict[str, Any]]:
        """The rules, with what they have seen and struck."""
        with self._hold() as world:
            rows: list[dict[str, Any]] = json.loads(json.dumps(world.state["faults"].get("rules", [])))
            return rows
