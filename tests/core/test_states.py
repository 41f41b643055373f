"""What state a thing is in, by what is wanted and what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile.core import record, report
from btp_reconcile.core.model import Address, Adoption, Operation, Phase, Problem
from btp_reconcile.core.states import Health, Sync
from tests import build
from tests.build import NOW, fact, planned, resource

if TYPE_CHECKING:
    from btp_reconcile.core.model import Fact, Plan

DAY = 86400
APIM = "instance:prod/apim"
KEY = "key:prod/apim/k"


def state(plan: Plan, address: str = APIM) -> tuple[str, str]:
    assert plan.states is not None
    found = plan.states.changes[Address.parse(address)]
    return str(found.sync), str(found.health)


def unplanned(plan: Plan) -> dict[str, tuple[str, str, str]]:
    assert plan.states is not None
    return {
        str(one.resource.address): (str(one.state.sync), str(one.state.health), one.reason)
        for one in plan.states.unplanned
    }


def ending(days: float, made: str = "2025-12-01T00:00:00Z") -> Fact:
    """A key whose certificate ends in so many days."""
    noted = {record.NOT_AFTER: record.moment(NOW + days * DAY)}
    return fact("key", "k", record=noted, created_at=made, fingerprint="v1;all=44136fa355b3678a")


@pytest.mark.parametrize(
    ("options", "live", "expected"),
    [
        ({}, {}, ("in-sync", "ready")),
        ({"parameters": {"a": 1}}, {}, ("drifted", "ready")),
        ({}, None, ("missing", "pending")),
        ({"absent": True}, {}, ("drifted", "ready")),
        ({"observe_only": True}, None, ("missing", "blocked")),
        ({"observe_only": True, "parameters": {"a": 1}}, {}, ("drifted", "ready")),
        ({"observe_only": True, "absent": True}, {}, ("drifted", "ready")),
        ({"adopt": Adoption()}, {"ours": False}, ("drifted", "ready")),
        ({}, {"phase": Phase.BROKEN, "detail": "no"}, ("missing", "failed")),
        (
            {},
            {"phase": Phase.PENDING, "operation": Operation("create", "in progress")},
            ("missing", "pending"),
        ),
        (
            {},
            {"phase": Phase.PENDING, "operation": Operation("update", "in progress")},
            ("unknown", "pending"),
        ),
        (
            {},
            {"phase": Phase.PENDING, "operation": Operation("delete", "in progress")},
            ("missing", "pending"),
        ),
        (
            {"absent": True},
            {"phase": Phase.PENDING, "operation": Operation("delete", "in progress")},
            ("drifted", "pending"),
        ),
    ],
    ids=str,
)
def test_an_instance_is_in_the_state_that_wish_and_fact_make(
    options: dict[str, Any], live: dict[str, Any] | None, expected: tuple[str, str]
) -> None:
    facts = [] if live is None else [fact("instance", "apim", **live)]

    assert state(planned([resource(APIM, **options)], facts)) == expected


@pytest.mark.parametrize(
    ("days", "made", "rotate_after", "expected"),
    [
        (20, "2025-12-01T00:00:00Z", None, "ready"),
        (6, "2025-12-01T00:00:00Z", None, "expiring"),
        (-1, "2025-12-01T00:00:00Z", None, "failed"),
        (6, "2025-12-29T00:00:00Z", None, "expiring"),
        (6, "2025-12-29T00:00:00Z", 86400 * 8, "ready"),
        (1, "2025-12-29T00:00:00Z", 86400 * 8, "expiring"),
    ],
)
def test_a_certificate_expires_in_its_last_week_or_last_third_if_it_is_renewed_by_itself(
    days: float, made: str, rotate_after: int | None, expected: str
) -> None:
    wanted = [resource(APIM), resource(KEY, rotate_after=rotate_after, keep_old_for=0)]
    plan = planned(wanted, [fact("instance", "apim"), ending(days, made)])

    assert state(plan, KEY)[1] == expected


def test_what_has_the_name_of_something_foreign_conflicts_and_what_stands_in_it_is_unknown() -> None:
    plan = planned([resource(APIM), resource(KEY)], [fact("instance", "apim", ours=False)])

    message = "instance 'apim' (Cloud Foundry) exists already, and it does not carry our mark"
    assert unplanned(plan) == {
        APIM: ("conflicting", "blocked", message),
        KEY: ("unknown", "blocked", f"it needs {APIM}, of which nothing can be said"),
    }


def test_two_addresses_for_one_thing_conflict() -> None:
    live = fact("instance", "apim", ours=False, id="one")
    other = "instance:prod/other"
    wanted = [resource(APIM, adopt=Adoption()), resource(other, adopt=Adoption(id="one"))]
    plan = planned(wanted, [live])

    assert state(plan, other) == ("conflicting", "blocked")


def test_what_could_not_be_looked_at_is_unknown() -> None:
    blind = Problem("platform/unseen", "Cloud Foundry is away")
    plan = planned([resource(APIM), resource(KEY)], unseen={("prod", "cloud_foundry"): blind})

    assert unplanned(plan) == {
        APIM: ("unknown", "blocked", "Cloud Foundry is away"),
        KEY: ("unknown", "blocked", f"it needs {APIM}, of which nothing can be said"),
    }
    shown = report.plan_json(plan, {"prod": build.PLACE})
    assert shown["unseen"] == [
        {
            "code": "platform/unseen",
            "message": "Cloud Foundry is away",
            "where": [{"subaccount": "prod", "service": "cloud_foundry"}],
        }
    ]


def test_what_carries_our_mark_and_is_named_no_more_is_unmanaged_under_the_address_it_would_have() -> None:
    gone = fact("key", "gone", id="id-gone")
    sick = fact("instance", "sick", phase=Phase.BROKEN)
    plan = planned([resource(APIM)], [fact("instance", "apim"), gone, sick])
    shown = report.plan_json(plan, {"prod": build.PLACE})

    assert [(one["address"], one["sync"], one["health"]) for one in shown["unmanaged"]] == [
        ("key:prod/apim/gone", "unmanaged", "ready"),
        ("instance:prod/sick", "unmanaged", "failed"),
    ]


def test_with_prune_it_is_unmanaged_still_until_it_is_gone() -> None:
    plan = planned([resource(APIM)], [fact("instance", "apim"), fact("instance", "gone")], prune=True)

    assert state(plan, "instance:prod/gone") == ("unmanaged", "ready")


def test_what_waits_for_a_person_is_blocked() -> None:
    closed = Problem("access/none", "no credentials for the Entitlements API of subaccount prod")
    entitlement = resource("entitlement:prod/sandbox-config/large")
    plan = planned(
        [entitlement, resource(APIM, requires=(entitlement.address,), plan="large")],
        unseen={("prod", "entitlements"): closed},
    )

    assert state(plan, str(entitlement.address)) == ("missing", "blocked")
    assert state(plan) == ("missing", "blocked")


def test_only_targets_are_spoken_of() -> None:
    blind = Problem("platform/unseen", "away")
    plan = planned(
        [resource(APIM), resource("instance:prod/other")],
        unseen={("prod", "cloud_foundry"): blind},
        targets=(Address.parse(APIM),),
    )

    assert list(unplanned(plan)) == [APIM]


def test_a_safety_objection_says_nothing_of_health() -> None:
    wanted = resource(APIM, absent=True, protect=True)
    plan = planned([wanted], [fact("instance", "apim")])

    assert [one.code for one in plan.objections] == ["safety/protected"]
    assert state(plan) == ("drifted", "ready")


def test_the_words_are_a_closed_list() -> None:
    assert [str(one) for one in Sync] == [
        "in-sync",
        "drifted",
        "missing",
        "unmanaged",
        "conflicting",
        "unknown",
    ]
    assert [str(one) for one in Health] == ["ready", "pending", "failed", "blocked", "expiring"]
