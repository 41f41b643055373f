"""Limits are known in advance: the plan says what applying takes, and applying keeps to them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile import pipeline
from btp_reconcile.core import limits, report
from btp_reconcile.core.limits import Cost, Limit
from btp_reconcile.core.model import Status
from btp_reconcile.edges.clock import Clock
from btp_reconcile.edges.pace import MARGIN, Pace
from btp_reconcile.sandbox import Sandbox
from tests.worlds import Bench

if TYPE_CHECKING:
    from pathlib import Path

SUBACCOUNT = {"id": "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10", "region": "eu10"}


@dataclass
class Shared(Clock):
    """The sandbox's own clock: it moves when somebody waits, and by what requests really take."""

    sandbox: Sandbox
    slept: float = 0.0

    def now(self) -> float:
        with self.sandbox.hold() as world:
            return world.now()

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        with self.sandbox.hold() as world:
            world.advance(seconds)


class Timed(Bench):
    """A bench in which the client and the platform have one clock."""

    def world(self) -> pipeline.World:
        made = super().world()
        clock = Shared(self.sandbox)
        self.clients[-1].clock = clock
        return replace(made, clock=clock)


def storm(folder: Path, count: int) -> tuple[Timed, str]:
    settings = {"sm_limits": True, "delays": {"default": 1}}
    bench = Timed(folder, sandbox=Sandbox(time="seconds", settings=settings))
    instances = {
        f"n{number}": {
            "service": "sandbox-config",
            "plan": "standard",
            "runtime": "other",
            "entitlement": "external",
        }
        for number in range(count)
    }
    spec = {
        "version": 1,
        "owner": "storm",
        "name": "storm",
        "subaccounts": {"prod": {**SUBACCOUNT, "instances": instances}},
    }
    bench.sandbox.seed(
        {"subaccounts": {"prod": {**SUBACCOUNT, "entitlements": {"sandbox-config": {"standard": True}}}}}
    )
    return bench, bench.write(json.dumps(spec))


def test_a_storm_of_creations_keeps_to_the_limit_and_to_its_forecast(tmp_path: Path) -> None:
    bench, spec = storm(tmp_path, 200)
    world = bench.world()
    policy = bench.policy()
    planned = pipeline.make_plan(pipeline.prepare([spec], world), world, policy)
    forecast = planned.plan.forecast
    begun = world.clock.now()

    _, reports = pipeline.settle(planned, world, policy)
    took = world.clock.now() - begun

    assert {one.status for one in reports[-1].outcomes} == {Status.DONE}
    assert forecast is not None
    assert forecast.because == "200 instance creations at 50 a minute"
    allowed = Limit("", 50, 60).seconds_for(200)
    assert took <= allowed * 1.05 + 2
    assert abs(forecast.seconds - took) <= 0.2 * took
    assert not [name for name, _ in bench.events if name == "retry"], "no 429 was needed to learn it"
    assert [name for name, _ in bench.events if name == "wait"], "and waiting was said"


def test_a_plan_says_how_long_it_takes_and_why(tmp_path: Path) -> None:
    bench, spec = storm(tmp_path, 101)
    planned = bench.plan(spec)
    shown = report.plan_json(planned.plan, planned.prepared.wanted.subaccounts)

    assert shown["forecast"] == {
        "writes": {"service_manager": 101},
        "seconds": 120,
        "because": "101 instance creations at 50 a minute",
    }
    assert [text for _, text in report.plan_text(shown)][-1] == (
        "Applying takes about 2 minutes: 101 instance creations at 50 a minute."
    )


def test_a_small_plan_says_nothing_of_limits(tmp_path: Path) -> None:
    bench, spec = storm(tmp_path, 50)
    planned = bench.plan(spec)
    shown = report.plan_json(planned.plan, planned.prepared.wanted.subaccounts)

    assert shown["forecast"] == {"writes": {"service_manager": 50}, "seconds": 0.0, "because": ""}
    assert "Applying takes" not in "\n".join(text for _, text in report.plan_text(shown))


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/service_instances", {(50, 60), (1_000, 60), (10_000, 3600)}),
        ("PATCH", "/v1/service_instances/x", {(600, 60), (6_000, 3600), (1_000, 60), (10_000, 3600)}),
        ("DELETE", "/v1/service_instances/x", {(600, 60), (6_000, 3600), (1_000, 60), (10_000, 3600)}),
        ("GET", "/v1/service_instances", {(1_000, 60), (10_000, 3600)}),
        ("POST", "/v1/service_bindings", {(600, 60), (6_000, 3600), (1_000, 60), (10_000, 3600)}),
        ("GET", "/v1/service_plans", {(100, 60), (1_000, 3600), (1_000, 60), (10_000, 3600)}),
        ("GET", "/v1/service_offerings", {(100, 60), (1_000, 3600), (1_000, 60), (10_000, 3600)}),
    ],
)
def test_the_limits_of_service_manager_are_those_it_publishes(
    method: str, path: str, expected: set[tuple[int, float]]
) -> None:
    found = {(one.count, one.seconds) for one in limits.covering("service_manager", method, path)}

    assert found == expected


def test_users_do_not_share_a_limit() -> None:
    costs = [
        (user, Cost("service_manager", "POST", "/v1/service_instances")) for user in "ab" for _ in range(50)
    ]

    assert limits.forecast(costs).seconds == 0
    assert limits.forecast([("a", cost) for _, cost in costs]).seconds == 60


def test_a_window_frees_one_place_after_the_other() -> None:
    pace = Pace()
    taken: list[Any] = [
        pace.take("service_manager", "POST", "/v1/service_instances", float(now)) for now in range(51)
    ]

    assert taken[:50] == [0.0] * 50
    assert taken[50] == 10.0 + MARGIN, "the first of them leaves the window 60 seconds after it was sent"
    assert pace.take("service_manager", "POST", "/v1/service_instances", 60.0 + MARGIN) == 0.0


def test_a_rule_that_a_429_names_is_kept_from_then_on() -> None:
    rule = limits.learned(
        "accounts", "GET", "/accounts/v1/subaccounts", "limit exceeded; 5 requests in 3 seconds"
    )
    assert rule == Limit("accounts", 5, 3.0, ("GET",), "/accounts/v1/subaccounts", exact=True)

    pace = Pace()
    pace.learn(rule, 100.0)

    assert pace.take("accounts", "GET", "/accounts/v1/subaccounts", 101.0) == 2.0 + MARGIN
    assert pace.take("accounts", "GET", "/accounts/v1/subaccounts/x", 101.0) == 0.0, (
        "it was said of that path only"
    )
    assert pace.take("accounts", "GET", "/accounts/v1/subaccounts", 103.0 + MARGIN) == 0.0


@pytest.mark.parametrize(
    "text", ["", "too many requests", "0 requests in 3 seconds", "5 requests in 0 seconds"]
)
def test_what_names_no_rule_teaches_none(text: str) -> None:
    assert limits.learned("accounts", "GET", "/x", text) is None
