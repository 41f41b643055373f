"""Drift that is known does not count; anything else does."""

from __future__ import annotations

from typing import Any

import pytest

from btp_reconcile.core import baseline, report
from btp_reconcile.core.model import Address, Problem
from tests import build
from tests.build import fact, planned, resource

APIM, OTHER = "instance:prod/apim", "instance:prod/other"
LIVE = (fact("instance", "apim"), fact("instance", "other"))


def drift(role: Any = "x", *, other: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """The JSON of a drift check in which the parameters of an instance differ."""
    wanted = [resource(APIM, parameters={"role": role}), resource(OTHER, parameters=other or {})]
    facts = options.pop("facts", LIVE)
    return report.plan_json(planned(wanted, facts, **options), {"prod": build.PLACE}, drift=True)


def accepted(now: dict[str, Any], then: dict[str, Any]) -> list[str]:
    return sorted(baseline.accepted(baseline.applied(now, baseline.baseline_json(then))))


def gone(now: dict[str, Any], then: dict[str, Any], *targets: str) -> list[str]:
    shown = baseline.applied(now, baseline.baseline_json(then), tuple(map(Address.parse, targets)))
    return [one["address"] for one in shown["baseline"]["gone"]]


def test_a_baseline_names_what_differs_and_nothing_else() -> None:
    made = baseline.baseline_json(drift())

    assert [(one["address"], one["sync"], one["about"]) for one in made["accepted"]] == [
        (APIM, "drifted", "differs: parameters.role")
    ]
    assert baseline.problem(made) == ""


def test_the_same_drift_is_accepted_whenever_it_is_seen() -> None:
    assert accepted(drift(now=build.NOW + 86400), drift()) == [APIM]


def test_another_value_at_the_same_address_is_new_drift() -> None:
    assert accepted(drift("y"), drift()) == []


def test_another_address_is_new_drift() -> None:
    assert accepted(drift(other={"a": 1}), drift()) == [APIM]


def test_what_is_there_again_as_the_spec_says_is_gone_from_the_baseline() -> None:
    now = report.plan_json(
        planned([resource(APIM), resource(OTHER)], LIVE), {"prod": build.PLACE}, drift=True
    )

    assert gone(now, drift()) == [APIM]


def test_what_no_spec_names_any_more_is_gone_from_the_baseline() -> None:
    now = report.plan_json(planned([resource(OTHER)], LIVE[1:]), {"prod": build.PLACE}, drift=True)

    assert gone(now, drift()) == [APIM]


def test_what_could_not_be_looked_at_is_not_said_to_be_gone() -> None:
    blind = Problem("platform/unseen", "away")

    assert gone(drift(unseen={("prod", "cloud_foundry"): blind}, facts=()), drift()) == []


def test_what_was_not_asked_about_is_not_said_to_be_gone() -> None:
    now = drift(targets=(Address.parse(OTHER),))

    assert gone(now, drift(), OTHER) == []
    assert gone(now, drift()) == [APIM]


def test_a_conflict_is_never_accepted() -> None:
    foreign = (fact("instance", "apim", ours=False), LIVE[1])

    assert baseline.baseline_json(drift(facts=foreign))["accepted"] == []


def test_accepted_drift_ends_with_0_and_new_drift_with_2() -> None:
    plan = planned([resource(APIM, parameters={"a": 1}), resource(OTHER, parameters={"a": 1})], LIVE)

    def ends(*known: str) -> int:
        return report.plan_exit(plan, detailed=True, drift=True, accepted=frozenset(known))

    assert (ends(), ends(APIM), ends(APIM, OTHER)) == (2, 2, 0)


def test_accepted_drift_is_told_apart_in_the_text() -> None:
    shown = baseline.applied(drift(), baseline.baseline_json(drift()))

    assert [line for _, line in report.plan_text(shown)] == [
        "Known and accepted, by the baseline",
        "    instance:prod/apim: differs: parameters.role",
        "",
        "No new drift: 2 checked, 1 known and accepted.",
    ]


def test_what_is_gone_is_told_in_the_text() -> None:
    shown = baseline.applied(drift("y"), baseline.baseline_json(drift()))

    assert "    instance:prod/apim: differs: parameters.role" in [line for _, line in report.plan_text(shown)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "is no baseline"),
        ({"format": "btp-reconcile/plan"}, "is no baseline"),
        ({"format": baseline.FORMAT, "version": 2}, "another version"),
        ({"format": baseline.FORMAT, "version": 1}, "was changed"),
        ({"format": baseline.FORMAT, "version": 1, "accepted": [{"address": 1}]}, "was changed"),
        (
            {
                "format": baseline.FORMAT,
                "version": 1,
                "accepted": [{"address": "x", "digest": "", "about": ""}],
            },
            "no address",
        ),
    ],
)
def test_what_is_no_baseline_is_answered_in_words(data: Any, words: str) -> None:
    assert words in baseline.problem(data)
