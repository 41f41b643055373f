"""Changes in order: nothing before what it needs, old after new, and a promise that says what was decided."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st

from btp_reconcile.core import diff, plan
from btp_reconcile.core.model import Address, Adoption, CloudFoundry, Facts, Operation, Phase, Subaccount
from btp_reconcile.core.plan import digest
from btp_reconcile.core.view import Policy
from btp_reconcile.kinds import KINDS
from btp_reconcile.pipeline import shipped_catalogue
from tests import build
from tests.build import fact, planned, resource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btp_reconcile.core.model import Fact, Plan, Resource

SMALL = "v1;all=6a55b58f0e9f2f83"


def needs(made: Plan) -> dict[str, set[str]]:
    return {str(step.id): {str(one) for one in step.requires} for step in made.steps}


# --- order ----------------------------------------------------------------------------------------------


def test_a_key_needs_its_instance_and_an_instance_its_entitlement() -> None:
    entitlement = resource("entitlement:prod/sandbox-config/standard")
    instance = resource("instance:prod/apim", requires=(entitlement.address,))
    there = fact("entitlement", "sandbox-config/standard", ours=False, runtime="", parent=None, **ASSIGNABLE)
    seen = fact("subaccount", "prod", ours=False, runtime="", parent=None, attributes={"region": "eu10"})

    made = planned([entitlement, instance, resource("key:prod/apim/k")], [there, seen])

    assert needs(made) == {
        "create entitlement:prod/sandbox-config/standard#1": set(),
        "create instance:prod/apim#1": {"create entitlement:prod/sandbox-config/standard#1"},
        "create key:prod/apim/k#1": {"create instance:prod/apim#1"},
    }


ASSIGNABLE: dict[str, Any] = {
    "attributes": {
        "numeric": False,
        "assigned": False,
        "auto_assigned": False,
        "category": "ELASTIC_SERVICE",
        "unlimited": False,
        "amount": None,
        "remaining": None,
        "pool": "g",
        "unique_id": "u",
        "max_per_subaccount": None,
    }
}


def test_keys_go_before_their_instance() -> None:
    made = planned(
        [resource("instance:prod/apim", absent=True), resource("key:prod/apim/k", absent=True)],
        [fact("instance", "apim"), fact("key", "k")],
    )

    assert needs(made) == {
        "delete key:prod/apim/k#1": set(),
        "delete instance:prod/apim#1": {"delete key:prod/apim/k#1"},
    }


def test_an_old_key_goes_after_the_new_one_is_there() -> None:
    made = planned(
        [resource("instance:prod/apim"), resource("key:prod/apim/k", parameters={"a": 1}, keep_old_for=0)],
        [fact("instance", "apim"), fact("key", "k")],
    )

    assert needs(made) == {
        "create key:prod/apim/k#2": set(),
        "verify key:prod/apim/k#2": {"create key:prod/apim/k#2"},
        "delete key:prod/apim/k#1": {"create key:prod/apim/k#2", "verify key:prod/apim/k#2"},
    }


def test_what_is_waited_for_is_waited_for_before_what_stands_on_it() -> None:
    running = fact("instance", "apim", phase=Phase.PENDING, operation=Operation("create", "in progress"))
    made = planned([resource("instance:prod/apim"), resource("key:prod/apim/k")], [running])

    assert needs(made) == {
        "await instance:prod/apim#1": set(),
        "create key:prod/apim/k#1": {"await instance:prod/apim#1"},
    }


def test_two_old_generations_are_two_steps() -> None:
    old = [fact("key", "k"), fact("key", "k-2", ours="k", id="second"), fact("key", "k-3", ours=False)]
    old[1] = replace(
        old[1], mark=replace(old[0].mark or build.resource("key:prod/apim/k").mark, generation=2)
    )
    made = planned(
        [resource("instance:prod/apim"), resource("key:prod/apim/k", absent=True)],
        [fact("instance", "apim"), *old],
    )

    assert [(str(step.id), step.name) for step in made.steps] == [
        ("delete key:prod/apim/k#1@id-k", "k"),
        ("delete key:prod/apim/k#2@second", "k-2"),
    ]


NAMES = ["apim", "config", "other"]


@st.composite
def landscapes(draw: st.DrawFn) -> tuple[list[Resource], list[Fact]]:
    """Instances and keys in every state that planning tells apart."""
    resources: list[Resource] = []
    facts: list[Fact] = []
    phases = st.sampled_from(list(Phase))
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        absent = draw(st.booleans())
        tags = tuple(draw(st.sampled_from([(), ("a",)])))
        resources.append(
            resource(f"instance:prod/{name}", absent=absent, tags=tags, parameters=draw(PARAMETERS))
        )
        key = resource(
            f"key:prod/{name}/k",
            absent=absent,
            keep_old_for=draw(st.sampled_from([0, 86400])),
            parameters=draw(PARAMETERS),
        )
        resources.append(key)
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        for generation in range(1, draw(st.integers(1, 3))):
            physical = name if generation == 1 else f"{name}-{generation}"
            one = fact("instance", physical, ours=name, phase=draw(phases), operation=draw(OPERATIONS))
            assert one.mark is not None
            facts.append(replace(one, mark=replace(one.mark, generation=generation)))
            if draw(st.booleans()):
                facts.append(
                    fact(
                        "key",
                        "k",
                        id=f"key-{one.id}",
                        parent=one.id,
                        phase=draw(phases),
                        operation=draw(OPERATIONS),
                    )
                )
    instances = [one for one in resources if one.address.kind == "instance"]
    return [*instances, *(one for one in resources if one.address.kind == "key")], facts


PARAMETERS = st.sampled_from([{}, {"size": 1}])
OPERATIONS = st.sampled_from(
    [
        Operation(kind, state, "2026-01-01T00:00:00Z")
        for kind in ("create", "update", "delete")
        for state in ("succeeded", "failed", "in progress")
    ]
)


@settings(deadline=None)
@given(landscapes(), st.booleans(), st.sets(st.sampled_from(NAMES)))
def test_no_step_stands_before_what_it_needs(
    world: tuple[list[Resource], list[Fact]], prune: bool, allowed: set[str]
) -> None:
    resources, facts = world
    made = planned(
        resources,
        facts,
        prune=prune,
        allow=frozenset(f"instance:prod/{one}" for one in allowed),
        now=build.NOW + 30 * 86400,
    )

    given_ids: set[str] = set()
    for step in made.steps:
        assert set(step.requires) <= given_ids
        assert step.id not in given_ids
        given_ids.add(step.id)


@settings(deadline=None)
@given(landscapes(), st.booleans(), st.sets(st.sampled_from(NAMES)))
def test_nothing_that_is_kept_is_lost_with_an_instance_unless_something_stands_against_it(
    world: tuple[list[Resource], list[Fact]], prune: bool, allowed: set[str]
) -> None:
    resources, facts = world
    made = planned(
        resources,
        facts,
        prune=prune,
        allow=frozenset(f"instance:prod/{one}" for one in allowed),
        now=build.NOW + 30 * 86400,
    )

    gone = {step.found.id for step in made.steps if step.verb == "delete" and step.found}
    lost = {one.id for one in facts if one.kind == "key" and one.parent in gone and one.id not in gone}
    said = {one.code for one in made.objections}
    assert not lost or "safety/would-be-lost" in said


# --- the promise ----------------------------------------------------------------------------------------

BASE: dict[str, Any] = {"parameters": {"size": 1}, "tags": ("a",)}


def promise(resources: Sequence[Resource], facts: Sequence[Fact] = (), **options: Any) -> str:
    return planned(resources, facts, **options).digest


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": {"size": 2}},
        {"tags": ("b",)},
        {"name": "another"},
        {"plan": "large"},
        {"adopt": Adoption("apim")},
        {"mark": build.resource("instance:prod/else").mark.__class__("others", "prod", "apim")},
    ],
    ids=lambda one: next(iter(one)),
)
def test_the_promise_of_a_creation_holds_what_is_created(other: dict[str, Any]) -> None:
    assert promise([resource("instance:prod/apim", **BASE)]) != promise(
        [resource("instance:prod/apim", **{**BASE, **other})]
    )


def test_the_promise_holds_where_it_is_done() -> None:
    def at(place: Subaccount) -> str:
        policy = Policy(build.NOW)
        wanted = replace(build.wanted(resource("instance:prod/apim")), subaccounts={"prod": place})
        seen = Facts((build.SPACE, build.OFFERED))
        return plan.arrange(diff.compare(wanted, seen, KINDS, shipped_catalogue(), policy), policy).digest

    here = build.PLACE
    other_org = CloudFoundry("https://api.cf.eu10.hana.ondemand.com", "another", "apis")
    there = [replace(here, id="0b1f6f4e-2d3c-4c59-8a57-1f0d3c2b4a02"), replace(here, cloud_foundry=other_org)]

    assert len({at(one) for one in (here, *there)}) == 3
    assert at(replace(here, source=None)) == at(here)


def test_the_promise_holds_what_is_there() -> None:
    one = resource("instance:prod/apim", tags=("a",))
    live = fact("instance", "apim")
    digests = {
        promise([one], [live]),
        promise([one], [replace(live, id="another")]),
        promise([one], [replace(live, attributes={**live.attributes, "tags": ("b",)})]),
        promise([one], [replace(live, fingerprint="")]),
        promise([one], [replace(live, phase=Phase.PENDING)]),
    }

    assert len(digests) == 4, "no record and a record of nothing are the same: nothing is to be sent"


def test_the_promise_is_not_about_words_and_moments() -> None:
    one = resource("instance:prod/apim", tags=("a",))
    live = fact("instance", "apim")

    assert promise([one], [live]) == promise([one], [replace(live, detail="said otherwise")])
    assert promise([one], [live]) == promise([one], [live], now=build.NOW + 60)
    assert promise([one], [live]) == promise([one], [live, fact("instance", "strange", ours=False)])


def test_the_promise_holds_what_stands_against_it() -> None:
    made = planned([resource("instance:prod/apim")])
    objected = planned([resource("instance:prod/apim")], targets=(Address("instance", ("prod", "nothing")),))

    assert [one.code for one in objected.objections] == ["plan/unknown-address"]
    assert digest((), (), objected.objections, {}) != digest((), (), made.objections, {})


# --- many deletions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "gone", "objection"),
    [(10, 3, False), (10, 4, True), (9, 9, False), (20, 6, False), (20, 7, True)],
)
def test_a_third_of_many_is_too_many_at_once(total: int, gone: int, objection: bool) -> None:
    resources = [resource(f"instance:prod/c{number}", absent=number < gone) for number in range(total)]
    facts = [fact("instance", f"c{number}") for number in range(total)]

    codes = [one.code for one in planned(resources, facts).objections]

    assert codes == (["safety/many-deletions"] if objection else [])
    assert planned(resources, facts, allow=frozenset({"many-deletions"})).objections == ()


def test_things_of_others_do_not_count_among_ours() -> None:
    resources = [resource(f"instance:prod/c{number}", absent=number < 4) for number in range(10)]
    ours = [fact("instance", f"c{number}") for number in range(10)]
    mark = resource("instance:prod/x").mark
    theirs = [
        fact("instance", f"t{number}", ours=False, mark=replace(mark, owner="others", name=f"t{number}"))
        for number in range(50)
    ]

    codes = [one.code for one in planned(resources, [*ours, *theirs]).objections]

    assert codes == ["safety/many-deletions"]
