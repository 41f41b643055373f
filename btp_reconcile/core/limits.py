"""Limits that the platform publishes, in one table: known before the first request, not learned from the first 429.

Service Manager: SAP help, "Rate Limiting" (SAP Service Manager); three levels count at the same time. Authorization and Trust
Management: SAP help, "Rate Limiting" of that service. The Cloud Management services (entitlements, accounts) have limits
whose numbers are not published; their 429 names the rule in words, and `learned` reads it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Limit:
    """So many requests in so many seconds, for one user at one host."""

    service: str
    count: int
    seconds: float
    methods: tuple[str, ...] = ()
    """Empty: every method counts."""
    path: str = ""
    """What the path begins with. Empty: every path counts."""
    exact: bool = False
    """The path is meant as it stands, without what may follow it."""
    noun: str = "requests"

    def covers(self, service: str, method: str, path: str) -> bool:
        """Does this request count?"""
        if service != self.service or (self.methods and method not in self.methods):
            return False
        return path == self.path if self.exact else path.startswith(self.path)

    def seconds_for(self, requests: int) -> float:
        """How long so many requests take at least, when nothing else counts: full bursts, then waiting."""
        return max(0, math.ceil(requests / self.count) - 1) * self.seconds


def _levels(*numbers: tuple[int, float], **said: object) -> Iterable[Limit]:
    for count, seconds in numbers:
        yield Limit("service_manager", count, seconds, **said)  # type: ignore[arg-type] # the fields of a Limit


_INSTANCES, _BINDINGS = "/v1/service_instances", "/v1/service_bindings"
_DESTINATIONS = "/destination-configuration/v1/subaccountDestinations"

LIMITS: tuple[Limit, ...] = (
    Limit("service_manager", 50, 60, ("POST",), _INSTANCES, exact=True, noun="instance creations"),
    *_levels((600, 60), (6_000, 3600), methods=("PATCH",), path=f"{_INSTANCES}/", noun="instance updates"),
    *_levels((600, 60), (6_000, 3600), methods=("DELETE",), path=f"{_INSTANCES}/", noun="instance deletions"),
    *_levels((600, 60), (6_000, 3600), path=_BINDINGS, noun="requests for bindings"),
    *_levels((100, 60), (1_000, 3600), path="/v1/service_offerings", noun="requests for offerings"),
    *_levels((100, 60), (1_000, 3600), path="/v1/service_plans", noun="requests for plans"),
    *_levels((1_000, 60), (10_000, 3600), noun="requests"),
    Limit("sign_in", 60, 1, ("POST",), noun="sign-ins"),
)

_RULE = re.compile(r"([0-9]{1,6}) requests? (?:in|per) ([0-9]{1,5}) seconds?", re.IGNORECASE)


def covering(service: str, method: str, path: str, more: Iterable[Limit] = ()) -> tuple[Limit, ...]:
    """Every limit that a request counts towards."""
    return tuple(one for one in (*LIMITS, *more) if one.covers(service, method, path))


def learned(service: str, method: str, path: str, text: str) -> Limit | None:
    """The rule that a 429 of a Cloud Management service names in its details (code 11007)."""
    match = _RULE.search(text)
    if match is None or int(match[1]) < 1 or int(match[2]) < 1:
        return None
    return Limit(service, int(match[1]), float(match[2]), (method,), path, exact=True)


@dataclass(frozen=True)
class Forecast:
    """What applying will cost: requests by service, the least time in seconds, and which limit sets it."""

    requests: Mapping[str, int]
    seconds: float = 0.0
    because: str = ""


@dataclass(frozen=True)
class Cost:
    """A number of like requests."""

    service: str
    method: str
    path: str
    times: int = 1


WRITES: Mapping[tuple[str, str, str], tuple[Cost, ...]] = {
    ("entitlement", "", "create"): (Cost("entitlements", "PUT", "/entitlements/v1/subaccountServicePlans"),),
    ("instance", "cloudfoundry", "create"): (Cost("cloud_foundry", "POST", "/v3/service_instances"),),
    ("instance", "cloudfoundry", "update"): (Cost("cloud_foundry", "PATCH", "/v3/service_instances/", 2),),
    ("instance", "cloudfoundry", "delete"): (
        Cost("cloud_foundry", "GET", "/v3/service_credential_bindings", 3),
        Cost("cloud_foundry", "DELETE", "/v3/service_instances/"),
    ),
    ("key", "cloudfoundry", "create"): (Cost("cloud_foundry", "POST", "/v3/service_credential_bindings"),),
    ("key", "cloudfoundry", "update"): (Cost("cloud_foundry", "PATCH", "/v3/service_credential_bindings/"),),
    ("key", "cloudfoundry", "delete"): (Cost("cloud_foundry", "DELETE", "/v3/service_credential_bindings/"),),
    ("instance", "other", "create"): (Cost("service_manager", "POST", _INSTANCES),),
    ("instance", "other", "update"): (Cost("service_manager", "PATCH", f"{_INSTANCES}/"),),
    ("instance", "other", "delete"): (
        Cost("service_manager", "GET", _BINDINGS),
        Cost("service_manager", "DELETE", f"{_INSTANCES}/"),
    ),
    ("key", "other", "create"): (Cost("service_manager", "POST", _BINDINGS),),
    ("key", "other", "update"): (Cost("service_manager", "PATCH", f"{_BINDINGS}/"),),
    ("destination", "", "create"): (Cost("destination", "POST", _DESTINATIONS),),
    ("destination", "", "update"): (
        Cost("destination", "GET", f"{_DESTINATIONS}/"),
        Cost("destination", "PUT", _DESTINATIONS),
    ),
    ("destination", "", "delete"): (
        Cost("destination", "GET", f"{_DESTINATIONS}/"),
        Cost("destination", "DELETE", f"{_DESTINATIONS}/"),
    ),
    ("key", "other", "delete"): (Cost("service_manager", "DELETE", f"{_BINDINGS}/"),),
}
"""(kind, runtime, verb) → what one step sends, the checks right before a delete included. Looks come on top."""


def forecast(costs: Iterable[tuple[str, Cost]]) -> Forecast:
    """The sum of (user, cost), and the limit that lets it take longest. A user is who shares a limit."""
    requests: dict[str, int] = {}
    counted: dict[tuple[str, Limit], int] = {}
    for user, cost in costs:
        requests[cost.service] = requests.get(cost.service, 0) + cost.times
        for limit in covering(cost.service, cost.method, cost.path):
            counted[user, limit] = counted.get((user, limit), 0) + cost.times
    slowest = max(counted, key=lambda one: one[1].seconds_for(counted[one]), default=None)
    if slowest is None or slowest[1].seconds_for(counted[slowest]) == 0:
        return Forecast(requests)
    limit, times = slowest[1], counted[slowest]
    window = {60: "a minute", 3600: "an hour"}.get(int(limit.seconds), f"in {limit.seconds:g} seconds")
    return Forecast(requests, limit.seconds_for(times), f"{times:,} {limit.noun} at {limit.count:,} {window}")
