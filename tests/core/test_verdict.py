"""Which keys are tried, how verdicts are told, and what they end with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile.core.model import Address, Fact, Facts, Mark, Phase, Problem, Secret
from btp_reconcile.core.verdict import (
    Candidate,
    Verdict,
    Waits,
    Word,
    candidates,
    rights,
    scopes_digest,
    verdicts_exit,
    verdicts_json,
    verdicts_text,
)
from tests.build import OFFERED, OWNER, SPACE, SPEC, fact, planned, resource, wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btp_reconcile.core.model import Resource

APIM = resource("instance:prod/apim", parameters={"role": "APIPortal.Guest"})
KEY = resource("key:prod/apim/transport")
INSTANCE = fact("instance", "apim")
ADDRESS = KEY.address


def chosen(resources: Sequence[Resource], seen: Sequence[Fact], *targets: str) -> tuple[Candidate, ...]:
    return candidates(
        planned(resources, seen),
        wanted(*resources),
        Facts((SPACE, OFFERED, *seen)),
        [Address.parse(one) for one in targets],
    )


def candidate(**fields: Any) -> Candidate:
    known: dict[str, Any] = {
        "address": ADDRESS,
        "generation": 1,
        "service": "sandbox-config",
        "plan": "standard",
        "role": "APIPortal.Guest",
    }
    return Candidate(**{**known, **fields})


# --- which keys -----------------------------------------------------------------------------------------


def test_the_key_that_is_there_is_tried_in_its_instances_role() -> None:
    key = fact("key", "transport")

    assert chosen([APIM, KEY], [INSTANCE, key]) == (candidate(found=key),)


def test_the_newest_usable_generation_is_tried() -> None:
    old, new = fact("key", "transport"), fact("key", "transport-2", ours=2)
    new = replace(new, mark=Mark(OWNER, SPEC, "transport", 2))

    assert [one.found for one in chosen([APIM, KEY], [INSTANCE, new, old])] == [new]
    made = replace(new, phase=Phase.PENDING)
    assert [one.found for one in chosen([APIM, KEY], [INSTANCE, made, old])] == [old]


def test_a_key_of_the_same_name_in_another_instance_is_another_key() -> None:
    other = fact("key", "transport", parent="id-other", id="elsewhere")

    assert [one.found for one in chosen([APIM, KEY], [INSTANCE, other])] == [None]


def test_what_was_noted_when_it_was_proven_is_compared() -> None:
    key = fact("key", "transport", record={"verified": "v1;at=2026-01-01T00:00:00Z;verdict=ok;scopes=abc"})

    assert [one.recorded for one in chosen([APIM, KEY], [INSTANCE, key])] == ["abc"]


@pytest.mark.parametrize(
    ("parameters", "role"),
    [({}, None), ({"role": Secret("env:ROLE", "APIPortal.Guest")}, "APIPortal.Guest"), ({"role": 5}, None)],
)
def test_the_role_is_that_of_the_spec(parameters: Any, role: str | None) -> None:
    apim = resource("instance:prod/apim", parameters=parameters)

    assert [one.role for one in chosen([apim, KEY], [INSTANCE, fact("key", "transport")])] == [role]


def test_a_key_that_is_to_be_absent_is_not_tried() -> None:
    absent = resource("key:prod/apim/transport", absent=True)

    assert chosen([APIM, absent], [INSTANCE, fact("key", "transport")]) == ()


@pytest.mark.parametrize(
    ("targets", "tried"),
    [
        ((), ["transport", "other"]),
        (("key:prod/apim/other",), ["other"]),
        (("instance:prod/apim",), ["transport", "other"]),
        (("subaccount:prod",), ["transport", "other"]),
        (("delivery:prod/apim/other/main",), ["other"]),
        (("instance:prod/else",), []),
    ],
)
def test_targets_choose(targets: tuple[str, ...], tried: list[str]) -> None:
    other = resource("key:prod/apim/other")
    found = chosen([APIM, KEY, other], [INSTANCE], *targets)

    assert [one.address.path[-1] for one in found] == tried


# --- why not --------------------------------------------------------------------------------------------


def reasons(resources: Sequence[Resource], seen: Sequence[Fact]) -> list[tuple[Waits, str]]:
    return [(one.waits, one.detail) for one in chosen(resources, seen)]


def test_a_key_that_nobody_has_made_yet_is_waited_for() -> None:
    said = "not there yet: `reconcile plan` says what makes it"

    assert reasons([APIM, KEY], []) == [(Waits.PENDING, said)]
    assert reasons([APIM, KEY], [INSTANCE]) == [(Waits.PENDING, said)]


def test_a_key_that_is_being_made_is_waited_for() -> None:
    key = fact("key", "transport", phase=Phase.PENDING)

    assert reasons([APIM, KEY], [INSTANCE, key]) == [
        (Waits.PENDING, "not there yet: transport is being created")
    ]


def test_a_key_that_something_else_has_the_name_of_is_a_conflict() -> None:
    waits, detail = reasons([APIM, KEY], [INSTANCE, fact("key", "transport", ours=False)])[0]

    assert waits is Waits.CONFLICT
    assert "exists already" in detail


def test_a_key_in_an_instance_in_conflict_is_in_conflict() -> None:
    assert reasons([APIM, KEY], [fact("instance", "apim", ours=False)])[0][0] is Waits.CONFLICT


def test_a_conflict_elsewhere_is_not_this_keys() -> None:
    other = resource("key:prod/apim/other")
    found = reasons([APIM, KEY, other], [INSTANCE, fact("key", "other", ours=False)])

    assert [waits for waits, _ in found] == [Waits.PENDING, Waits.CONFLICT]


def test_a_key_that_waits_for_a_person_says_for_what() -> None:
    plan = planned([APIM, KEY], [INSTANCE])
    gated = tuple(replace(one, gate="Activate it.") for one in plan.changes)
    found = candidates(replace(plan, changes=gated), wanted(APIM, KEY), Facts())

    assert [(one.waits, one.detail) for one in found] == [(Waits.GATE, "Activate it.")]


def test_a_key_that_could_not_be_looked_at_says_so() -> None:
    problem = Problem("platform/unseen", "Cloud Foundry could not be asked about prod: 503")
    unseen = {("prod", "cloud_foundry"): problem}
    plan = planned([APIM, KEY], [], unseen=unseen)
    found = candidates(plan, wanted(APIM, KEY), Facts((), unseen))

    assert [(one.waits, one.detail) for one in found] == [(Waits.UNSEEN, problem.message)]


def test_what_is_not_tried_is_skipped_and_not_said_to_work() -> None:
    found = candidate(waits=Waits.PENDING, detail="not there yet").untried()

    assert found == Verdict(ADDRESS, 1, Word.SKIPPED, detail="not there yet", waits=Waits.PENDING)
    assert not found.works


# --- scopes ---------------------------------------------------------------------------------------------

ONE = ["x1!b1|api-portal-xsuaa!b2.APIPortal.Administrator", "uaa.resource"]
SAME = ["uaa.resource", "api-portal-xsuaa!b99.APIPortal.Administrator", "uaa.resource"]


def test_equal_roles_have_equal_digests_in_any_instance_and_landscape() -> None:
    assert scopes_digest(ONE) == scopes_digest(SAME) == "3db266f573c1d8ad"
    assert rights(ONE) == rights(SAME) == ("APIPortal.Administrator", "uaa.resource")


@pytest.mark.parametrize(
    "other",
    [
        ["uaa.resource"],
        [*SAME, "api-portal-xsuaa!b2.More"],
        ["uaa.resource", "api-portal-xsuaa!b2.APIPortal.Guest"],
        ["uaa.resource", "other-xsuaa!b2.APIPortal.Administrator"],
    ],
)
def test_other_rights_have_another_digest(other: list[str]) -> None:
    assert scopes_digest(other) != scopes_digest(ONE)


def test_no_scopes_make_no_statement() -> None:
    assert (scopes_digest([]), rights([])) == ("", ())


# --- how they are told ----------------------------------------------------------------------------------

GOOD = Verdict(
    ADDRESS,
    1,
    Word.OK,
    type="secret",
    client_id="sb-1",
    token_seconds=43199,
    status=200,
    seconds=0.25,
    requests=2,
    scopes="3db266f573c1d8ad",
    rights=("Read",),
)


def test_json_has_an_object_per_key_and_leaves_out_what_is_not_known() -> None:
    bad = Verdict(ADDRESS, 2, Word.SHAPE_ERROR, detail="the key has another form", hint="look")

    assert verdicts_json([GOOD, bad]) == {
        "format": "btp-reconcile/verify",
        "version": 1,
        "summary": {
            "ok": 1,
            "expires-soon": 0,
            "skipped": 0,
            "forbidden": 0,
            "shape-error": 1,
            "token-refused": 0,
            "unreachable": 0,
        },
        "keys": [
            {
                "address": "key:prod/apim/transport",
                "generation": 1,
                "verdict": "ok",
                "requests": 2,
                "seconds": 0.25,
                "type": "secret",
                "client_id": "sb-1",
                "token_seconds": 43199,
                "status": 200,
                "scopes": "3db266f573c1d8ad",
                "rights": ["Read"],
            },
            {
                "address": "key:prod/apim/transport",
                "generation": 2,
                "verdict": "shape-error",
                "requests": 0,
                "seconds": 0.0,
                "detail": "the key has another form",
                "hint": "look",
            },
        ],
    }


def told(*verdicts: Verdict) -> list[tuple[str, str]]:
    return list(verdicts_text(verdicts_json(verdicts)))


def test_each_verdict_has_a_line_and_below_it_what_to_do() -> None:
    soon = replace(GOOD, verdict=Word.EXPIRES_SOON, type="x509", detail="its certificate ends", hint="rotate")
    forbidden = replace(
        GOOD, verdict=Word.FORBIDDEN, generation=2, status=403, detail="may not", hint="look\x1b[1m"
    )
    token_only = replace(GOOD, detail="a token alone", token_seconds=0, status=0)
    changed = replace(GOOD, scope_changed=True)
    untried = Verdict(ADDRESS, 1, Word.SKIPPED, detail="not there yet", waits=Waits.PENDING)

    by = "by secret, token for 12 hours, 200 in 0.2 s"

    assert told(GOOD, soon, forbidden, token_only, changed, untried) == [
        ("green", f"  ok            key:prod/apim/transport: {by}"),
        (
            "yellow",
            f"  expires-soon  key:prod/apim/transport: its certificate ends; {by.replace('secret', 'certificate')}",
        ),
        ("dim", "      rotate"),
        ("yellow", "  forbidden     key:prod/apim/transport (generation 2): may not; client sb-1"),
        ("dim", "      look�[1m"),
        ("green", "  ok            key:prod/apim/transport: a token alone; by secret"),
        (
            "green",
            f"  ok            key:prod/apim/transport: its rights are others than when it was last proven; {by}",
        ),
        ("", "  skipped       key:prod/apim/transport: not there yet"),
        ("", "Verify: 3 ok, 1 expires-soon, 1 skipped, 1 forbidden."),
    ]


def test_the_count_alone_when_there_is_nothing_to_try() -> None:
    assert told() == [("bold", "Verify: no key is wanted.")]


# --- what they end with ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 0),
        (["ok", "skipped", "expires-soon"], 0),
        (["ok", "unreachable"], 1),
        (["token-refused", "forbidden"], 1),
        (["shape-error"], 1),
        (["forbidden", "ok"], 6),
        (["forbidden", Waits.PENDING], 6),
        (["unreachable", Waits.PENDING], 1),
        ([Waits.PENDING, "ok"], 5),
        ([Waits.GATE, Waits.PENDING], 6),
        ([Waits.UNSEEN, Waits.GATE], 1),
        ([Waits.CONFLICT, "unreachable"], 4),
    ],
)
def test_the_worst_decides(words: Sequence[str | Waits], code: int) -> None:
    verdicts = [
        Verdict(ADDRESS, 1, Word.SKIPPED, waits=one)
        if isinstance(one, Waits)
        else Verdict(ADDRESS, 1, Word(one))
        for one in words
    ]

    assert verdicts_exit(verdicts) == code
