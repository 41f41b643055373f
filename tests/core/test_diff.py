"""What the cases under `tests/cases/plans` do not reach: edges of the common life of instances and keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from btp_reconcile import pipeline
from btp_reconcile.core import diff, fingerprint
from btp_reconcile.core.model import (
    Action,
    Address,
    Adoption,
    Fact,
    Facts,
    Mark,
    Operation,
    Phase,
    Problem,
    Secret,
    Seen,
)
from btp_reconcile.core.view import Policy
from btp_reconcile.kinds import KINDS
from tests import build
from tests.build import fact, planned, resource

INSTANCE = resource("instance:prod/apim")


def said(resources: list[Any], facts: list[Fact], **options: Any) -> list[tuple[str, str, int]]:
    changes = planned(resources, facts, **options).changes
    return [(str(one.address), str(one.action), one.generation) for one in changes]


def codes(resources: list[Any], facts: list[Fact], **options: Any) -> list[str]:
    return [one.code for one in planned(resources, facts, **options).objections]


def generation(name: str, number: int, **fields: Any) -> Fact:
    one = fact("instance", name, ours="apim", **fields)
    return replace(one, mark=Mark(build.OWNER, build.SPEC, "apim", number))


# --- generations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], 2),
        ([("apim-2", None)], 3),
        ([("apim-7", None)], 8),
        ([("apim-07", None)], 8),
        ([("apim-x", None), ("apim2", None), ("my-apim-9", None)], 2),
        ([("renamed", 4)], 5),
    ],
)
def test_the_next_generation_is_the_highest_number_seen_plus_one(
    there: list[tuple[str, int | None]], expected: int
) -> None:
    others = [
        generation(name, number) if number else fact("instance", name, ours=False) for name, number in there
    ]
    newest = max([1, *(number or 1 for _, number in there)])
    facts = [fact("instance", "apim"), *others]
    wanted = resource("instance:prod/apim", parameters={"size": 1}, replace_on=("parameters.size",))

    assert newest < expected
    assert said([wanted], facts) == [("instance:prod/apim", "replace", expected)]


def test_the_newest_generation_is_the_one_that_counts_whatever_its_age() -> None:
    facts = [generation("apim-3", 3, created_at="2020-01-01T00:00:00Z"), generation("apim", 1)]

    (change,) = planned([INSTANCE], facts).changes

    assert change.found == facts[0]


def test_a_platform_that_does_not_say_when_it_was_made_never_lets_the_old_one_go() -> None:
    facts = [generation("apim", 1), generation("apim-2", 2, created_at="")]

    assert said([INSTANCE], facts, allow=frozenset({"instance:prod/apim"})) == [
        ("instance:prod/apim", "keep", 2)
    ]


def test_an_old_generation_of_a_key_in_an_old_instance_is_known_as_its_own() -> None:
    facts = [
        generation("apim", 1),
        generation("apim-2", 2, created_at="2026-01-01T00:00:00Z"),
        fact("key", "k", parent="id-apim"),
        replace(
            fact("key", "k-2", ours="k", parent="id-apim-2", created_at="2025-12-30T00:00:00Z"),
            mark=Mark(build.OWNER, build.SPEC, "k", 2),
        ),
    ]

    made = planned([INSTANCE, resource("key:prod/apim/k")], facts)

    assert [(str(one.action), [old.name for old in one.retired]) for one in made.changes] == [
        ("keep", []),
        ("keep", []),
    ]
    assert made.unmanaged == ()


# --- what is not ours -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stranger",
    [
        fact("instance", "apim", ours=False),
        fact("instance", "apim", ours=False, mark=Mark("others", "prod", "apim")),
        fact("instance", "apim", ours=False, mark=Mark(build.OWNER, "another", "apim")),
        fact("instance", "apim", ours=False, foreign="it belongs to another tool"),
    ],
    ids=["nobody's", "another owner's", "another spec's", "another tool's"],
)
@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("prune", [False, True])
def test_what_does_not_carry_this_mark_is_never_written(stranger: Fact, absent: bool, prune: bool) -> None:
    made = planned([replace(INSTANCE, absent=absent)], [stranger], prune=prune)

    assert made.steps == ()
    assert made.unmanaged == ()
    assert len(made.objections) == 1


@pytest.mark.parametrize(
    "stranger",
    [
        fact("instance", "apim", ours=False, mark=Mark("others", "prod", "apim")),
        fact("instance", "apim", ours=False, foreign="it belongs to another tool"),
    ],
    ids=["another owner's", "another tool's"],
)
@pytest.mark.parametrize("adopt", [Adoption(), Adoption(name="apim"), Adoption(id="id-apim")])
def test_what_belongs_to_another_cannot_be_adopted(stranger: Fact, adopt: Adoption) -> None:
    made = planned([replace(INSTANCE, adopt=adopt)], [stranger])

    assert (made.steps, [one.code for one in made.objections]) == ((), ["conflict/foreign"])


def test_the_same_name_in_another_space_is_no_conflict() -> None:
    elsewhere = fact("instance", "apim", ours=False, parent="space-2", attributes={"space": "other"})

    assert said([INSTANCE], [elsewhere]) == [("instance:prod/apim", "create", 1)]


def test_two_specs_may_give_one_logical_name_in_two_subaccounts() -> None:
    there = replace(fact("instance", "apim"), subaccount="test")

    assert said([INSTANCE], [there]) == [("instance:prod/apim", "create", 1)]


def test_a_mark_of_a_spec_that_is_not_loaded_is_not_pruned() -> None:
    stray = fact("instance", "stray", ours=False, mark=Mark(build.OWNER, "not-loaded", "stray"))

    assert planned([INSTANCE], [fact("instance", "apim"), stray], prune=True).steps == ()


# --- broken and pending ---------------------------------------------------------------------------------

FAILED = Operation("create", "failed", "2026-01-01T00:00:00Z", "no")


def test_a_protected_creation_that_failed_is_made_elsewhere_without_asking() -> None:
    broken = fact(
        "instance",
        "apim",
        phase=Phase.BROKEN,
        operation=FAILED,
        parent="space-2",
        attributes={"space": "other"},
    )

    made = planned([replace(INSTANCE, protect=True)], [broken])

    assert made.objections == ()
    assert [(str(one.id), one.name, list(one.requires)) for one in made.steps] == [
        ("create instance:prod/apim#2", "apim", []),
        ("delete instance:prod/apim#1", "apim", ["create instance:prod/apim#2"]),
    ]


def test_a_final_failure_with_a_value_from_outside_waits_for_a_person_too() -> None:
    parameters = {"role": Secret("env:ROLE", "APIPortal.Guest")}
    api = {"service": "apimanagement-apiportal", "plan": "apiportal-apiaccess"}
    broken = fact(
        "instance",
        "apim",
        phase=Phase.BROKEN,
        operation=FAILED,
        detail="invalid role creation",
        fingerprint=fingerprint.write(parameters),
        attributes=api,
    )
    made = planned([resource("instance:prod/apim", parameters=parameters, **api)], [broken])

    assert made.steps == ()
    assert "does not take this role" in made.changes[0].gate


@pytest.mark.parametrize("kind", ["create", "update"])
def test_what_is_to_go_but_is_busy_otherwise_is_deleted_when_its_turn_comes(kind: str) -> None:
    busy = fact("instance", "apim", phase=Phase.PENDING, operation=Operation(kind, "in progress"))

    assert said([replace(INSTANCE, absent=True)], [busy]) == [("instance:prod/apim", "delete", 1)]


def test_nothing_is_planned_in_an_instance_that_vanishes() -> None:
    going = fact("instance", "apim", phase=Phase.PENDING, operation=Operation("delete", "in progress"))

    assert said([INSTANCE, resource("key:prod/apim/k")], [going, fact("key", "k")]) == [
        ("instance:prod/apim", "await", 1),
        ("key:prod/apim/k", "keep", 1),
    ]


# --- fields ---------------------------------------------------------------------------------------------


def test_the_order_of_tags_says_nothing() -> None:
    one = resource("instance:prod/apim", tags=("a", "b"))

    assert said([one], [fact("instance", "apim", attributes={"tags": ("b", "a")})]) == [
        ("instance:prod/apim", "keep", 1)
    ]


def test_an_unknown_field_is_no_change_but_is_said() -> None:
    one = resource("instance:prod/apim", parameters={"size": 1})

    (change,) = planned([one], [fact("instance", "apim", fingerprint="")]).changes

    assert (change.action, change.reason) == (Action.KEEP, "in sync as far as can be seen")
    assert [(field.path, field.seen, field.changes) for field in change.fields] == [
        ("parameters", Seen.UNKNOWN, False)
    ]


@pytest.mark.parametrize("ignored", ["parameters", "parameters.size"])
def test_an_ignored_field_is_left_to_others(ignored: str) -> None:
    one = resource("instance:prod/apim", parameters={"size": 1}, ignore=(ignored,))

    assert said([one], [fact("instance", "apim")]) == [("instance:prod/apim", "keep", 1)]


def test_an_update_sends_whole_parameters_and_nothing_that_is_equal() -> None:
    one = resource("instance:prod/apim", parameters={"size": 1, "colour": "red"}, tags=("a",))
    live = fact("instance", "apim", attributes={"tags": ("a",)})

    (change,) = planned([one], [live]).changes

    assert change.send == {"parameters": {"size": 1, "colour": "red"}}


def test_what_is_left_to_others_is_not_sent_along() -> None:
    wanted = {"size": 2, "colour": "red", "deep": {"theirs": 1, "ours": 2}}
    one = resource(
        "instance:prod/apim", parameters=wanted, ignore=("parameters.colour", "parameters.deep.theirs")
    )
    live = fact("instance", "apim", fingerprint=fingerprint.write({**wanted, "size": 1}))

    (change,) = planned([one], [live]).changes

    assert change.send == {"parameters": {"size": 2, "deep": {"ours": 2}}}


def test_a_renamed_generation_gets_a_name_that_is_free() -> None:
    facts = [generation("apim", 1), generation("other", 2)]

    (change,) = planned([INSTANCE], facts).changes

    assert change.send == {"name": "apim-2"}


# --- what cannot be seen, and what is claimed twice -----------------------------------------------------

SILENT = Problem("platform/unseen", "it does not answer")
ELSEWHERE = resource("instance:prod/apim", runtime="other", space=None)


@pytest.mark.parametrize("absent", [False, True])
def test_what_cannot_be_compared_now_is_not_forgotten(absent: bool) -> None:
    wanted = [replace(ELSEWHERE, absent=absent), resource("key:prod/apim/k", runtime="other", absent=absent)]
    there = [fact("instance", "apim"), fact("key", "k")]

    made = planned(wanted, there, unseen={("prod", "service_manager"): SILENT}, prune=True)

    assert (made.changes, made.unmanaged) == ((), ())


def test_keys_in_an_instance_that_is_in_conflict_are_not_forgotten() -> None:
    there = [fact("instance", "apim", ours=False), fact("key", "k")]

    made = planned(
        [INSTANCE, resource("key:prod/apim/k")],
        there,
        prune=True,
        targets=(Address("key", ("prod", "apim", "k")),),
    )

    assert (made.changes, made.unmanaged) == ((), ())


def test_nothing_is_made_while_it_may_be_in_the_runtime_that_does_not_answer() -> None:
    offered = replace(build.OFFERED, runtime="other")
    silent = {("prod", "cloud_foundry"): SILENT}

    assert said([ELSEWHERE, resource("key:prod/apim/k", runtime="other")], [offered], unseen=silent) == []


def test_an_entitlement_is_not_taken_away_while_a_runtime_does_not_answer() -> None:
    attributes = {
        "unique_id": "u",
        "assigned": True,
        "auto_assigned": False,
        "numeric": False,
        "entitled": True,
        "max_per_subaccount": None,
    }
    one = replace(resource("entitlement:prod/sandbox-config/standard"), absent=True)
    there = fact("entitlement", "sandbox-config/standard", ours=False, attributes=attributes)

    facts = [Fact("subaccount", build.PLACE.id, "prod", "prod", attributes={"region": "eu10"}), there]

    assert said([one], facts) == [(str(one.address), "delete", 1)]
    assert said([one], facts, unseen={("prod", "service_manager"): SILENT}) == []


def test_absent_and_adopted_by_id_means_that_id_and_no_namesake() -> None:
    one = replace(INSTANCE, absent=True, adopt=Adoption(id="id-meant"))
    there = [fact("instance", "apim", ours=False), fact("instance", "x", ours=False, id="id-meant")]

    (change,) = planned([one], there).changes

    assert [gone.id for gone in change.retired] == ["id-meant"]


def test_absent_and_adopted_does_not_remove_something_of_another_plan() -> None:
    one = replace(INSTANCE, absent=True, adopt=Adoption())
    there = [fact("instance", "apim", ours=False, attributes={"service": "hana-cloud", "plan": "hana"})]

    assert (said([one], there), codes([one], there)) == ([], ["conflict/adopt-differs"])


@pytest.mark.parametrize("there", [[], [fact("instance", "apim")], [fact("instance", "apim", ours=False)]])
def test_what_is_only_observed_is_not_removed(there: list[Fact]) -> None:
    made = planned([replace(INSTANCE, absent=True, observe_only=True)], there)

    assert made.steps == ()
    assert [(one.action, one.drifted) for one in made.changes] == [(Action.KEEP, True) for _ in there]


@pytest.mark.parametrize("absent", [False, True])
def test_one_thing_cannot_be_two(absent: bool) -> None:
    one = replace(INSTANCE, absent=absent, adopt=Adoption(name="y"))

    assert codes([one, resource("instance:prod/y")], [fact("instance", "y")]) == ["conflict/claimed-twice"]


def test_two_subaccounts_in_one_org_are_a_mistake() -> None:
    same = replace(build.SPACE, subaccount="other")
    places = {"prod": build.PLACE, "other": replace(build.PLACE, name="other", id="another")}
    wanted = replace(build.wanted(INSTANCE), subaccounts=places)
    catalogue = pipeline.shipped_catalogue()

    found = diff.compare(
        wanted, Facts((build.SPACE, same, build.OFFERED)), KINDS, catalogue, Policy(build.NOW)
    )

    assert [one.code for one in found.objections] == ["subaccount/same-org"]


def test_an_old_instance_stays_while_the_newest_of_a_key_is_on_its_way_in_it() -> None:
    new = generation("apim-2", 2, created_at="2025-12-02T00:00:00Z")
    busy = fact("key", "k", phase=Phase.PENDING, operation=Operation("create", "in progress"))
    wanted = [replace(INSTANCE, keep_old_for=0), resource("key:prod/apim/k")]

    made = planned(wanted, [generation("apim", 1), new, busy], allow=frozenset({"instance:prod/apim"}))

    assert [(str(one.action), one.retired) for one in made.changes] == [("keep", ()), ("await", ())]
    assert [str(step.verb) for step in made.steps] == ["await"]


# --- places, plans, addresses ---------------------------------------------------------------------------


def test_a_plan_of_two_brokers_is_no_plan() -> None:
    second = replace(build.OFFERED, id="plan-2")

    assert codes([INSTANCE], [second]) == ["plan/ambiguous"]


def test_a_withdrawn_plan_waits_for_a_person() -> None:
    gone = replace(build.OFFERED, name="old", attributes={**build.OFFERED.attributes, "available": False})

    (change,) = planned([resource("instance:prod/apim", plan="old")], [gone]).changes

    assert (change.action, change.gate) == (
        Action.AWAIT,
        "plan sandbox-config/old has been withdrawn: no new instance can be made of it",
    )


def test_an_address_that_nothing_has_stands_against_the_plan_with_the_nearest_that_there_is() -> None:
    made = planned([INSTANCE], targets=(Address("instance", ("prod", "apmi")),))

    assert [(one.code, one.hint) for one in made.objections] == [
        ("plan/unknown-address", "did you mean instance:prod/apim?")
    ]


def test_a_target_leaves_out_what_stands_against_other_things() -> None:
    other = replace(resource("instance:prod/other"), absent=True, protect=True)
    facts = [fact("instance", "other")]

    assert codes([INSTANCE, other], facts) == ["safety/protected"]
    assert codes([INSTANCE, other], facts, targets=(INSTANCE.address,)) == []
