"""Entitlements: exact requests, exact facts, and what a category means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.model import Verb
from btp_reconcile.kinds.entitlement import Entitlements
from tests.kinds.scripted import (
    GUID,
    OTHER,
    PROD,
    TEST,
    Fact,
    Operation,
    Phase,
    ScriptedDoor,
    entitlement,
    task,
    wanted,
)

DRIVER = Entitlements()
PATH, PUT = "/entitlements/v1/assignments", "/entitlements/v1/subaccountServicePlans"
AUTO = {"includeAutoManagedPlans": "true"}
GA, DIRECTORY = "03aa", "d1"
CREATED, MODIFIED = 1768900000000, 1768900004000
AFC = ("afc-api-service", "standard")


def subaccount(guid: str = GUID, **changes: Any) -> dict[str, Any]:
    data = {
        "guid": guid,
        "displayName": "acme-prod",
        "globalAccountGUID": GA,
        "parentGUID": GA,
        "parentType": "ROOT",
        "region": "eu10",
        "state": "OK",
        "stateMessage": "Subaccount created.",
        "createdDate": CREATED,
        "contractStatus": "ACTIVE",
    }
    return {**data, **changes}


def inside(guid: str = GUID, parent: str = DIRECTORY, *features: str, **changes: Any) -> dict[str, Any]:
    return subaccount(guid, parentGUID=parent, parentType="PROJECT", parentFeatures=list(features), **changes)


def plan(pair: tuple[str, str] = AFC, *, unique: str = "u1", **changes: Any) -> dict[str, Any]:
    data = {
        "name": pair[1],
        "uniqueIdentifier": unique,
        "category": "ELASTIC_SERVICE",
        "amount": 1.0,
        "remainingAmount": 1.0,
        "unlimited": False,
        "maxAllowedSubaccountQuota": None,
        "resources": None,
    }
    return {"service": pair[0], **data, **changes}


def assigned(
    pair: tuple[str, str] = AFC, guid: str = GUID, *, unique: str = "u1", **changes: Any
) -> dict[str, Any]:
    info = {
        "entityId": guid,
        "entityType": "SUBACCOUNT",
        "amount": 1,
        "requestedAmount": None,
        "unlimitedAmountAssigned": False,
        "entityState": "OK",
        "stateMessage": "Succeeded.",
        "autoAssigned": False,
        "createdDate": CREATED,
        "modifiedDate": MODIFIED,
        "parentRemainingAmount": 1.0,
    }
    whole = plan(pair, unique=unique, category=changes.pop("category", "ELASTIC_SERVICE"))
    return {**whole, "assignmentInfo": [{**info, **changes}]}


def answer(entitled: tuple[Any, ...] = (), given: tuple[Any, ...] = ()) -> dict[str, Any]:
    def services(plans: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [
            {"name": one["service"], "servicePlans": [one], "applicationCoordinates": {}} for one in plans
        ]

    return {"entitledServices": services(entitled), "assignedServices": services(given)}


def door(*answers: Any, accounts: tuple[Any, ...] = (subaccount(),), tree: Any = None) -> ScriptedDoor:
    it = ScriptedDoor("entitlements", {PATH: answers})
    it.siblings["accounts"] = ScriptedDoor(
        "accounts",
        {
            "/accounts/v1/subaccounts": [{"value": list(accounts)}],
            "/accounts/v1/globalAccount": [tree] if tree else [],
        },
    )
    return it


def fact(**changes: Any) -> Fact:
    attributes = {
        "service": AFC[0],
        "plan": AFC[1],
        "unique_id": "u1",
        "category": "ELASTIC_SERVICE",
        "numeric": False,
        "unlimited": False,
        "amount": 1,
        "assigned": True,
        "auto_assigned": False,
        "remaining": None,
        "pool": GA,
        "directory": None,
        "max_per_subaccount": None,
        "entitled": True,
    }
    known = {name: changes.pop(name) for name in list(changes) if name in attributes}
    base = Fact(
        "entitlement",
        f"{GUID}/{AFC[0]}/{AFC[1]}/u1",
        "/".join(AFC),
        "prod",
        Phase.READY,
        {**attributes, **known},
        operation=Operation("update", "succeeded", "2026-01-20T09:06:44.000Z", "Succeeded."),
        created_at="2026-01-20T09:06:40.000Z",
    )
    return replace(base, **changes)


def free(**changes: Any) -> Fact:
    return fact(**{"amount": None, "assigned": False, "operation": None, "created_at": "", **changes})


def observed(it: ScriptedDoor, *resources: Any, places: Any = (PROD,)) -> list[Fact]:
    found = DRIVER.observe(it, places, wanted(*(resources or (entitlement(*AFC),))), ())
    return [one for one in found if one.kind == "entitlement"]


class TestObserving:
    def test_one_subaccount_costs_two_requests(self):
        it = door(answer((plan(), plan(("x", "y"))), (assigned(), assigned(("x", "y")))))

        found = observed(it)

        assert it.siblings["accounts"].reads == [("/accounts/v1/subaccounts", {})]
        assert it.reads == [(PATH, {"subaccountGUID": GUID, **AUTO})]
        assert [fact()] == found

    def test_several_subaccounts_cost_two_requests_too(self):
        it = door(answer((plan(),), (assigned(guid=OTHER),)), accounts=(subaccount(), subaccount(OTHER)))

        found = observed(it, entitlement(*AFC), entitlement(*AFC, place="test"), places=(PROD, TEST))

        assert it.reads == [(PATH, AUTO)]
        assert [free(), fact(id=f"{OTHER}/{AFC[0]}/{AFC[1]}/u1", subaccount="test")] == found

    def test_a_directory_that_manages_entitlements_costs_one_more(self):
        accounts = (subaccount(), inside(OTHER, DIRECTORY, "DEFAULT", "ENTITLEMENTS"))
        it = door(
            answer((plan(),)),
            answer((plan(category="PLATFORM", remainingAmount=2.5),)),
            accounts=accounts,
        )

        found = observed(it, entitlement(*AFC), entitlement(*AFC, place="test"), places=(PROD, TEST))

        assert it.reads == [
            (PATH, {"subaccountGUID": GUID, **AUTO}),
            (PATH, {"subaccountGUID": OTHER, "directoryGUID": DIRECTORY, **AUTO}),
        ]
        assert [
            (one.attributes["pool"], one.attributes["directory"], one.attributes["remaining"])
            for one in found
        ] == [(GA, None, None), (DIRECTORY, DIRECTORY, 2.5)]

    def test_nested_directories_cost_the_tree_once(self):
        tree = {
            "guid": GA,
            "children": [
                {
                    "guid": "top",
                    "directoryFeatures": ["DEFAULT", "ENTITLEMENTS"],
                    "children": [{"guid": "low", "directoryFeatures": ["DEFAULT"]}],
                },
                {"guid": "plain", "directoryFeatures": "DEFAULT", "children": None},
            ],
        }
        accounts = (inside(GUID, "low", "DEFAULT"), inside(OTHER, "plain", "DEFAULT"))
        it = door(answer((plan(),)), answer((plan(),)), accounts=accounts, tree=tree)

        found = observed(it, entitlement(*AFC), entitlement(*AFC, place="test"), places=(PROD, TEST))

        assert it.siblings["accounts"].reads == [
            ("/accounts/v1/subaccounts", {}),
            ("/accounts/v1/globalAccount", {"expand": "true"}),
        ]
        assert [one.attributes["pool"] for one in found] == ["top", GA]

    def test_the_subaccount_itself_is_told(self):
        it = door(answer(), accounts=(inside(GUID.upper(), DIRECTORY, "ENTITLEMENTS"), subaccount("unasked")))

        found = list(DRIVER.observe(it, (PROD,), wanted(entitlement(*AFC)), ()))

        attributes = {"region": "eu10", "state": "OK", "contract_status": "ACTIVE", "directory": DIRECTORY}
        expected = Fact(
            "subaccount",
            GUID.upper(),
            "acme-prod",
            "prod",
            attributes=attributes,
            created_at="2026-01-20T09:06:40.000Z",
        )
        assert [expected] == found

    def test_nothing_wanted_asks_for_no_assignments(self):
        it = door()

        assert len(DRIVER.observe(it, (PROD,), wanted(), ())) == 1
        assert it.reads == []

    def test_a_subaccount_that_is_not_there_has_no_facts(self):
        assert DRIVER.observe(door(accounts=()), (PROD,), wanted(entitlement(*AFC)), ()) == []

    @pytest.mark.parametrize(
        ("category", "numeric"),
        [
            ("ELASTIC_SERVICE", False),
            ("ELASTIC_LIMITED", False),
            ("APPLICATION", False),
            ("SERVICE", True),
            ("QUOTA_BASED_APPLICATION", True),
            ("PLATFORM", True),
            ("ENVIRONMENT", True),
        ],
    )
    def test_the_category_says_whether_it_is_counted(self, category, numeric):
        [found] = observed(door(answer((plan(category=category, remainingAmount=3.0),))))

        assert (numeric, 3 if numeric else None) == (
            found.attributes["numeric"],
            found.attributes["remaining"],
        )

    def test_what_is_unlimited_is_switched_on(self):
        entitled = plan(category="SERVICE", unlimited=True, amount=2000000000, remainingAmount=None)
        [found] = observed(door(answer((entitled,), (assigned(category="SERVICE"),))))

        expected = fact(category="SERVICE", unlimited=True)
        assert expected == found

    def test_an_unknown_category_is_not_guessed(self):
        with pytest.raises(PlatformError, match="category 'NEW'"):
            observed(door(answer((plan(category="NEW"),))))

    def test_same_names_are_told_apart_by_their_unique_ids(self):
        it = door(
            answer((plan(), plan(unique="u2", maxAllowedSubaccountQuota=5.0)), (assigned(unique="u2"),))
        )

        found = observed(it)

        assert [
            (one.attributes["unique_id"], one.attributes["assigned"], one.attributes["max_per_subaccount"])
            for one in found
        ] == [("u1", False, None), ("u2", True, 5)]

    def test_assigned_but_no_longer_entitled_is_told(self):
        [found] = observed(door(answer((), (assigned(autoAssigned=True),))))

        assert fact(entitled=False, auto_assigned=True) == found

    def test_an_unlimited_share_is_assigned(self):
        [found] = observed(door(answer((plan(),), (assigned(amount=None, unlimitedAmountAssigned=True),))))

        assert found.attributes["assigned"]

    def test_what_is_left_of_a_directory_s_share_is_told_by_the_assignment(self):
        info = assigned(category="SERVICE", parentRemainingAmount=7.0)
        [found] = observed(door(answer((), (info,))))

        assert found.attributes["remaining"] == 7

    def test_others_assignments_do_not_count(self):
        others = (assigned(guid=OTHER), assigned(entityType="DIRECTORY"))

        assert [free()] == observed(door(answer((plan(),), others)))

    @pytest.mark.parametrize("nothing", [None, {}, answer()])
    def test_neither_entitled_nor_assigned_is_no_fact(self, nothing):
        assert observed(door(nothing)) == []

    @pytest.mark.parametrize(
        ("state", "amount", "phase", "is_assigned", "detail"),
        [
            ("STARTED", None, Phase.PENDING, False, "words"),
            ("PROCESSING", 2.0, Phase.PENDING, True, "words"),
            ("PROCESSING_FAILED", None, Phase.BROKEN, False, "words"),
            ("PROCESSING_FAILED", 0, Phase.BROKEN, False, "words"),
            ("PROCESSING_FAILED", 2, Phase.BROKEN, True, "words"),
            ("OK", 2, Phase.READY, True, ""),
            ("OK", 0, Phase.READY, False, ""),
            ("OK", None, Phase.READY, True, ""),
        ],
    )
    def test_the_state_makes_the_phase(self, state, amount, phase, is_assigned, detail):
        info = assigned(entityState=state, amount=amount, stateMessage=" words\n", category="SERVICE")
        [found] = observed(door(answer((plan(category="SERVICE"),), (info,))))

        known = 2 if is_assigned and amount else None
        assert (phase, is_assigned, detail, known) == (
            found.phase,
            found.attributes["assigned"],
            found.detail,
            found.attributes["amount"],
        )

    @pytest.mark.parametrize(
        "odd",
        [
            [1],
            "x",
            {"entitledServices": {}},
            answer((), (assigned(entityState="NEW"),)),
            answer((), (assigned(amount="x"),)),
        ],
    )
    def test_an_answer_that_makes_no_sense_is_told_so(self, odd):
        with pytest.raises(PlatformError, match="cannot be understood"):
            observed(door(odd))


class TestWriting:
    def test_one_put_per_subaccount(self):
        it = door()
        tasks = [
            task(Verb.CREATE, entitlement(*AFC), found=free(), spec={"enable": True}),
            task(
                Verb.CREATE,
                entitlement("APPLICATION_RUNTIME", "MEMORY"),
                found=free(service="APPLICATION_RUNTIME", plan="MEMORY", unique_id="u2", numeric=True),
                spec={"amount": 4},
            ),
            task(
                Verb.CREATE, entitlement(*AFC, place="test"), place=TEST, found=free(), spec={"enable": True}
            ),
        ]

        DRIVER.create(it, tasks)

        def sent(pair: tuple[str, str], unique: str, **info: Any) -> dict[str, Any]:
            return {
                "serviceName": pair[0],
                "servicePlanName": pair[1],
                "servicePlanUniqueIdentifier": unique,
                "assignmentInfo": [info],
            }

        first = [
            sent(AFC, "u1", subaccountGUID=GUID, enable=True),
            sent(("APPLICATION_RUNTIME", "MEMORY"), "u2", subaccountGUID=GUID, amount=4),
        ]
        second = [sent(AFC, "u1", subaccountGUID=OTHER, enable=True)]
        assert [
            ("PUT", PUT, {}, {"subaccountServicePlans": first}),
            ("PUT", PUT, {}, {"subaccountServicePlans": second}),
        ] == it.writes

    @pytest.mark.parametrize(
        ("numeric", "spec", "sent"),
        [
            (False, {"enable": False}, {"enable": False}),
            (True, {"amount": 3}, {"amount": 3}),
            (False, {"amount": True}, {"enable": True}),
            (True, {"amount": True}, {"amount": 1}),
        ],
    )
    def test_an_amount_or_a_switch_never_both(self, numeric, spec, sent):
        it = door()

        DRIVER.update(it, [task(Verb.UPDATE, entitlement(*AFC), found=fact(numeric=numeric), spec=spec)])

        [(*_, body)] = it.writes
        assert [{"subaccountGUID": GUID, **sent}] == body["subaccountServicePlans"][0]["assignmentInfo"]

    @pytest.mark.parametrize(("numeric", "sent"), [(False, {"enable": False}), (True, {"amount": 0})])
    def test_a_removal_goes_by_category(self, numeric, sent):
        it = door()

        DRIVER.delete(it, [task(Verb.DELETE, entitlement(*AFC), found=fact(numeric=numeric))])

        [(*_, body)] = it.writes
        assert [{"subaccountGUID": GUID, **sent}] == body["subaccountServicePlans"][0]["assignmentInfo"]


class TestLooking:
    def look(self, verb: Verb, found: Fact, *answers: Any, **known: Any) -> tuple[ScriptedDoor, Fact | None]:
        it = door(*answers)
        one = task(verb, entitlement(*AFC), found=found, **known)
        return it, DRIVER.look(it, [one])[one.step.id]

    def test_one_plan_is_asked_for_alone(self):
        it, seen = self.look(
            Verb.CREATE,
            free(directory=DIRECTORY, pool=DIRECTORY),
            answer((plan(),), (assigned(),)),
            spec={"enable": True},
        )

        query = {
            "subaccountGUID": GUID,
            "directoryGUID": DIRECTORY,
            "serviceName": AFC[0],
            "planName": AFC[1],
            **AUTO,
        }
        assert [(PATH, query)] == it.reads
        assert fact(directory=DIRECTORY, pool=DIRECTORY) == seen

    def test_several_are_asked_for_together_per_subaccount(self):
        it = door(answer((plan(), plan(("x", "y"), unique="u9")), (assigned(),)), answer())
        tasks = [
            task(Verb.CREATE, entitlement(*AFC), found=free(), spec={"enable": True}),
            task(
                Verb.CREATE,
                entitlement("x", "y"),
                found=free(service="x", plan="y", unique_id="u9"),
                spec={"enable": True},
            ),
            task(Verb.DELETE, entitlement(*AFC, place="test"), place=TEST, found=fact()),
        ]

        found = DRIVER.look(it, tasks)

        assert [
            {"subaccountGUID": GUID, **AUTO},
            {"subaccountGUID": OTHER, "serviceName": AFC[0], "planName": AFC[1], **AUTO},
        ] == [query for _, query in it.reads]
        assert [seen and seen.phase for seen in (found[one.step.id] for one in tasks)] == [
            Phase.READY,
            Phase.PENDING,
            None,
        ]

    @pytest.mark.parametrize(
        ("state", "amount", "phase"),
        [
            ("STARTED", 1, Phase.PENDING),
            ("PROCESSING", 1, Phase.PENDING),
            ("OK", 1, Phase.PENDING),
            ("OK", 4, Phase.READY),
            ("PROCESSING_FAILED", 1, Phase.BROKEN),
        ],
    )
    def test_an_amount_is_waited_for(self, state, amount, phase):
        said = answer(
            (plan(category="PLATFORM"),), (assigned(entityState=state, amount=amount, category="PLATFORM"),)
        )
        _, seen = self.look(Verb.UPDATE, fact(numeric=True), said, spec={"amount": 4})

        assert seen is not None
        assert phase == seen.phase

    def test_a_failure_of_before_is_no_failure_of_now(self):
        said = answer((plan(),), (assigned(entityState="PROCESSING_FAILED", amount=None),))
        before = observed(door(said))[0]

        _, seen = self.look(Verb.CREATE, before, said, spec={"enable": True})

        assert seen is not None
        assert (seen.phase, seen.detail) == (Phase.PENDING, "")

    @pytest.mark.parametrize(
        ("rows", "phase"),
        [
            ((), None),
            ((assigned(entityState="STARTED"),), Phase.PENDING),
            ((assigned(),), Phase.PENDING),
            ((assigned(entityState="PROCESSING_FAILED", stateMessage="in use"),), Phase.BROKEN),
        ],
    )
    def test_a_removal_is_done_when_the_assignment_is_gone(self, rows, phase):
        _, seen = self.look(Verb.DELETE, fact(), answer((plan(),), rows))

        assert phase == (seen and seen.phase)

    def test_waiting_only_tells_the_state(self):
        _, seen = self.look(Verb.AWAIT, fact(), answer((plan(),), ()))

        assert free() == seen

    def test_what_is_not_entitled_is_not_there(self):
        _, seen = self.look(Verb.CREATE, free(), answer(), spec={"enable": True})

        assert seen is None

    def test_it_blocks_nothing_and_needs_no_record(self):
        it = door()
        one = task(Verb.CREATE, entitlement(*AFC), found=free())

        DRIVER.seal(it, one, fact())

        assert DRIVER.blockers(it, one) == ()
        assert DRIVER.prepare(it, [one]) == {one.step.id: free()}
        assert (it.reads, it.writes) == ([], [])

    def test_without_a_fact_the_spec_names_the_plan(self):
        it = door()

        DRIVER.create(it, [task(Verb.CREATE, entitlement(*AFC, unique_id="u7"), spec={"enable": True})])

        [(*_, body)] = it.writes
        assert body["subaccountServicePlans"][0]["servicePlanUniqueIdentifier"] == "u7"
