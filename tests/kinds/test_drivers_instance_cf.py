"""Instances on Cloud Foundry: exact requests, exact facts."""

from __future__ import annotations

from typing import Any

import pytest

from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.model import Adoption, CloudFoundry, Secret, Subaccount, Verb
from btp_reconcile.kinds.instance import CloudFoundryInstances
from tests.kinds.scripted import (
    CF_PLAN,
    MARK,
    OFFERING,
    PLAN,
    PROD,
    SPACE,
    TEST,
    Fact,
    Mark,
    Operation,
    Phase,
    ScriptedDoor,
    instance,
    seen,
    task,
    wanted,
)

DRIVER = CloudFoundryInstances()
FIELDS = {
    "fields[service_plan]": "guid,name,relationships.service_offering",
    "fields[service_plan.service_offering]": "guid,name",
    "fields[space]": "guid,name,relationships.organization",
    "per_page": "5000",
}
PLAN_FIELDS = {
    "include": "service_offering",
    "fields[service_offering.service_broker]": "guid,name",
    "per_page": "5000",
}
LABELS = {
    "btp.reconcile/owner": "acme",
    "btp.reconcile/spec": "base",
    "btp.reconcile/name": "apim",
    "btp.reconcile/generation": "1",
}
DONE = {"type": "create", "state": "succeeded", "description": "", "updated_at": "2026-07-10T06:49:34Z"}


def related(name: str, guid: str) -> dict[str, Any]:
    return {name: {"data": {"guid": guid}}}


def space(guid: str, name: str, org: str) -> dict[str, Any]:
    return {"guid": guid, "name": name, "relationships": related("organization", org), "suspended": False}


def page(*resources: dict[str, Any], **included: Any) -> dict[str, Any]:
    return {"pagination": {"next": None}, "resources": list(resources), "included": included}


def row(guid: str = "i1", name: str = "apim", space_id: str = "s1", **changes: Any) -> dict[str, Any]:
    data = {
        "guid": guid,
        "created_at": "2026-07-10T06:49:28Z",
        "name": name,
        "tags": [],
        "last_operation": DONE,
        "type": "managed",
        "relationships": {**related("space", space_id), **related("service_plan", "p1")},
        "metadata": {"labels": {}, "annotations": {}},
    }
    return {**data, **changes}


def rows_page(*resources: dict[str, Any]) -> dict[str, Any]:
    plans = [
        {"guid": "p1", "name": PLAN, "relationships": related("service_offering", "f1")},
        {"guid": "p2", "name": "old", "relationships": related("service_offering", "f1")},
    ]
    spaces = [
        {"guid": guid, "name": name, "relationships": related("organization", org)}
        for guid, name, org in (("s1", "apis", "o1"), ("s2", "apis", "o2"), ("s9", "apis", "o9"))
    ]
    return page(
        *resources, service_plans=plans, service_offerings=[{"guid": "f1", "name": OFFERING}], spaces=spaces
    )


def plan_page(*plans: dict[str, Any]) -> dict[str, Any]:
    offering = {
        "guid": "f1",
        "name": OFFERING,
        "relationships": related("service_broker", "b1"),
        "broker_catalog": {"features": {"plan_updateable": True, "bindable": True}},
    }
    return page(*plans, service_offerings=[offering], service_brokers=[{"guid": "b1", "name": "sm"}])


def plan(guid: str = "p1", name: str = PLAN, **changes: Any) -> dict[str, Any]:
    data = {
        "guid": guid,
        "name": name,
        "available": True,
        "broker_catalog": {"features": {"plan_updateable": False, "bindable": True}},
        "relationships": related("service_offering", "f1"),
    }
    return {**data, **changes}


def plan_fact(guid: str = "p1", name: str = PLAN, place: str = "prod", **changes: Any) -> Fact:
    attributes = {
        "service": OFFERING,
        "broker": "sm",
        "available": True,
        "updateable": False,
        "bindable": True,
    }
    return Fact("plan", guid, name, place, attributes={**attributes, **changes}, runtime="cloudfoundry")


def door(*instances: dict[str, Any], plans: list[Any] | None = None) -> ScriptedDoor:
    orgs = [
        {"guid": "o1", "name": "acme-prod"},
        {"guid": "o2", "name": "acme-test"},
        {"guid": "o9", "name": "x"},
    ]
    found = [space("s1", "apis", "o1"), space("s2", "apis", "o2"), space("s9", "apis", "o9")]
    return ScriptedDoor(
        "cloud_foundry",
        {
            "/v3/spaces": [page(*found, organizations=orgs)],
            "/v3/service_instances": [rows_page(*instances)],
            "/v3/service_plans": plans or [],
        },
    )


def observed(
    it: ScriptedDoor, *resources: Any, places: tuple[Subaccount, ...] = (PROD, TEST)
) -> dict[str, Any]:
    found = list(DRIVER.observe(it, places, wanted(*resources), ()))
    return {kind: [one for one in found if one.kind == kind] for kind in ("space", "instance", "plan")}


def ours(**changes: Any) -> dict[str, Any]:
    metadata = {"labels": LABELS, "annotations": {"btp-reconcile-parameters": "v1;all=00"}}
    return row(metadata=metadata, **changes)


class TestObserving:
    def test_asks_for_all_subaccounts_together_and_for_no_plan_when_all_is_there(self):
        it = door(ours())

        observed(it, instance())

        expected = [
            ("/v3/spaces", {"names": "apis", "include": "organization", "per_page": "5000"}),
            ("/v3/service_instances", {"organization_guids": "o1,o2", **FIELDS}),
        ]
        assert expected == it.reads

    def test_tells_spaces_by_org_and_name(self):
        expected = [
            Fact(
                "space",
                guid,
                "apis",
                place,
                attributes={"org": f"acme-{place}", "org_id": org},
                runtime="cloudfoundry",
            )
            for guid, place, org in (("s1", "prod", "o1"), ("s2", "test", "o2"))
        ]

        assert expected == observed(door(ours()), instance())["space"]

    def test_tells_an_instance_with_its_mark(self):
        expected = Fact(
            "instance",
            "i1",
            "apim",
            "prod",
            Phase.READY,
            {"service": OFFERING, "plan": PLAN, "plan_id": "p1", "space": "apis", "tags": ("a",)},
            "s1",
            MARK,
            "",
            "v1;all=00",
            Operation("create", "succeeded", "2026-07-10T06:49:34Z", ""),
            "2026-07-10T06:49:28Z",
            "cloudfoundry",
        )

        assert [expected] == observed(door(ours(tags=["a"])), instance())["instance"]

    @pytest.mark.parametrize(
        "labels",
        [
            {**LABELS, "btp.reconcile/generation": "x"},
            {**LABELS, "btp.reconcile/generation": "0"},
            {key: value for key, value in LABELS.items() if not key.endswith("spec")},
        ],
    )
    def test_a_malformed_mark_is_none(self, labels):
        found = observed(door(row(metadata={"labels": labels})), instance(observe_only=True))["instance"]

        assert [one.mark for one in found] == [None]

    @pytest.mark.parametrize(
        ("kind", "state", "phase", "detail"),
        [
            ("create", "initial", Phase.PENDING, "words"),
            ("create", "in progress", Phase.PENDING, "words"),
            ("create", "failed", Phase.BROKEN, "words"),
            ("update", "failed", Phase.READY, "words"),
            ("delete", "failed", Phase.READY, "words"),
            ("delete", "in progress", Phase.PENDING, "words"),
            ("update", "succeeded", Phase.READY, ""),
        ],
    )
    def test_the_last_operation_makes_the_phase(self, kind, state, phase, detail):
        last = {"type": kind, "state": state, "description": "words\n", "updated_at": "T"}
        [found] = observed(door(row(last_operation=last)), instance(observe_only=True))["instance"]

        assert (phase, detail, Operation(kind, state, "T", "words")) == (
            found.phase,
            found.detail,
            found.operation,
        )

    def test_no_operation_and_no_description_are_fine(self):
        it = door(row(last_operation={}), row("i2", "b", last_operation={**DONE, "description": None}))
        found = observed(it, instance(observe_only=True))["instance"]

        assert [(one.phase, one.operation and one.operation.text) for one in found] == [
            (Phase.READY, None),
            (Phase.READY, ""),
        ]

    def test_what_is_shared_in_from_elsewhere_is_not_seen(self):
        nowhere = row("i3", "c", "s7")
        found = observed(door(row(), row("i2", "b", "s9"), nowhere), instance(observe_only=True))["instance"]

        assert [one.id for one in found] == ["i1"]

    def test_a_user_provided_instance_only_blocks_its_name(self):
        provided = row(
            type="user-provided", relationships=related("space", "s1"), metadata={"labels": LABELS}
        )
        [found] = observed(door(provided), instance(observe_only=True))["instance"]

        assert (
            found.attributes["service"],
            found.attributes["plan"],
            found.mark,
            found.foreign,
        ) == ("", "", None, "it is a user-provided instance")

    def test_plans_are_looked_up_once_per_org_for_what_is_missing(self):
        it = door(plans=[plan_page(plan(), plan("p9", "unasked")), plan_page(plan())])
        resources = (instance(), instance("b"), instance("c", "test"), instance("d", absent=True, plan="z"))

        found = observed(it, *resources)["plan"]

        asked = [
            (
                "/v3/service_plans",
                {"names": PLAN, "service_offering_names": OFFERING, "organization_guids": org, **PLAN_FIELDS},
            )
            for org in ("o1", "o2")
        ]
        assert asked == it.reads[2:]
        assert [plan_fact(), plan_fact(place="test")] == found

    def test_a_plan_of_several_brokers_is_told_several_times(self):
        it = door(plans=[plan_page(plan(), plan("p7", available=False))])

        assert [plan_fact(), plan_fact("p7", available=False)] == observed(it, instance())["plan"]

    def test_a_broken_newest_generation_needs_its_plan(self):
        broken = ours(last_operation={**DONE, "state": "failed"})
        it = door(broken, plans=[plan_page(plan())])

        assert [plan_fact()] == observed(it, instance())["plan"]

    def test_a_plan_change_asks_for_the_present_plan_too(self):
        older = ours(relationships={**related("space", "s1"), **related("service_plan", "p2")})
        it = door(older, plans=[plan_page(plan()), plan_page(plan("p2", "old", broker_catalog={}))])

        found = observed(it, instance())["plan"]

        assert it.reads[3] == ("/v3/service_plans", {"guids": "p2", **PLAN_FIELDS})
        assert [plan_fact(), plan_fact("p2", "old", updateable=True)] == found

    def test_an_adoption_with_another_plan_asks_for_the_present_plan(self):
        older = row("i5", "old", relationships={**related("space", "s1"), **related("service_plan", "p2")})
        it = door(older, plans=[plan_page(plan()), plan_page(plan("p2", "old"))])

        found = observed(it, instance(adopt=Adoption(name="old")))["plan"]

        assert [one.id for one in found] == ["p1", "p2"]

    def test_many_orgs_fit_into_request_lines(self):
        names = [f"org-{number}" for number in range(450)]
        guids = [f"{number:08d}-6c1b-4a51-9d67-0a4c4f1f2f10" for number in range(450)]
        places = tuple(
            Subaccount(name, guid, "eu10", CloudFoundry("https://api", name, "apis"))
            for name, guid in zip(names, guids, strict=True)
        )
        it = door()
        it.answers["/v3/spaces"] = [
            page(
                *(space(f"s-{guid}", "apis", guid) for guid in guids),
                organizations=[{"guid": guid, "name": name} for guid, name in zip(guids, names, strict=True)],
            )
        ]
        it.answers["/v3/service_instances"] = [rows_page()] * 3

        observed(it, places=places)

        asked = [query["organization_guids"].split(",") for _, query in it.reads[1:]]
        assert [guid for batch in asked for guid in batch] == guids
        assert max(len(batch) for batch in asked) <= 200

    def test_no_space_found_costs_no_more_requests(self):
        it = ScriptedDoor("cloud_foundry", {"/v3/spaces": [page()]})

        assert observed(it, instance()) == {"space": [], "instance": [], "plan": []}

    def test_names_with_commas_are_encoded_once_more(self):
        place = Subaccount("prod", "g", "eu10", CloudFoundry("https://api", "acme-prod", "a,b 100%"))
        it = door()

        observed(it, places=(place,))

        assert it.reads[0][1]["names"] == "a%2Cb 100%25"

    @pytest.mark.parametrize(
        "odd",
        [
            {"resources": [7]},
            {"resources": None},
            {},
            [],
            rows_page(row(relationships={})),
            rows_page(row(relationships=None)),
            rows_page({**row(), "name": None}),
            rows_page(row(tags="a")),
            rows_page(row(metadata=[])),
            rows_page(row(last_operation="x")),
            page(row()),
        ],
    )
    def test_an_answer_that_makes_no_sense_is_told_so(self, odd):
        it = door()
        it.answers["/v3/service_instances"] = [[odd]]

        with pytest.raises(PlatformError, match="cannot be understood"):
            observed(it, instance(observe_only=True))


class TestWriting:
    def test_a_creation_carries_mark_and_record(self):
        it = ScriptedDoor("cloud_foundry")
        secret = Secret("env:X", "s3cret")
        spec = {**instance().spec, "tags": ("a",), "parameters": {"role": "r", "x": secret}}

        DRIVER.create(
            it,
            [
                task(
                    Verb.CREATE,
                    instance(),
                    generation=2,
                    parent=SPACE,
                    plan=CF_PLAN,
                    spec=spec,
                    fingerprint="v1;all=1",
                )
            ],
        )

        body = {
            "type": "managed",
            "name": "apim-2",
            "relationships": {**related("space", "s1"), **related("service_plan", "p1")},
            "tags": ["a"],
            "parameters": {"role": "r", "x": secret},
            "metadata": {
                "labels": {**LABELS, "btp.reconcile/generation": "2"},
                "annotations": {"btp-reconcile-parameters": "v1;all=1"},
            },
        }
        assert [("POST", "/v3/service_instances", {}, body)] == it.writes

    def test_what_is_empty_is_left_out(self):
        it = ScriptedDoor("cloud_foundry")

        DRIVER.create(it, [task(Verb.CREATE, instance(), parent=SPACE, plan=CF_PLAN)] * 2)

        assert [{"type", "name", "relationships", "metadata"}] * 2 == [set(body) for *_, body in it.writes]
        assert it.writes[0][3]["metadata"] == {"labels": LABELS}

    @pytest.mark.parametrize("missing", ["parent", "plan"])
    def test_nothing_is_guessed(self, missing):
        known: dict[str, Any] = {"parent": SPACE, "plan": CF_PLAN, missing: None}

        with pytest.raises(PlatformError, match="is not known"):
            DRIVER.create(ScriptedDoor("cloud_foundry"), [task(Verb.CREATE, instance(), **known)])

    def test_an_update_sends_what_changes_and_notes_that_it_has_begun(self):
        it = ScriptedDoor("cloud_foundry")
        found = seen(operation=Operation("create", "succeeded", "T1"))
        spec = {"parameters": {}, "tags": (), "plan": PLAN, "name": "new"}

        DRIVER.update(
            it,
            [
                task(
                    Verb.UPDATE,
                    instance(),
                    found=found,
                    plan=CF_PLAN,
                    spec=spec,
                    fingerprint="v1;all=1;at=T0",
                )
            ],
        )

        body = {
            "name": "new",
            "tags": [],
            "parameters": {},
            "relationships": related("service_plan", "p1"),
            "metadata": {"labels": LABELS, "annotations": {"btp-reconcile-parameters": "v1;all=1;since=T1"}},
        }
        assert [("PATCH", "/v3/service_instances/i1", {}, body)] == it.writes

    def test_marking_alone_leaves_the_record_as_it_is(self):
        it = ScriptedDoor("cloud_foundry")

        DRIVER.update(it, [task(Verb.UPDATE, instance(), found=seen(), fingerprint="v1;all=1")])
        DRIVER.update(it, [task(Verb.UPDATE, instance(), found=seen())])

        metadata = [body["metadata"] for *_, body in it.writes]
        assert metadata == [{"labels": LABELS}, {"labels": LABELS}]

    def test_sealing_names_the_operation(self):
        it = ScriptedDoor("cloud_foundry")
        fact = seen(operation=Operation("update", "succeeded", "T2"))

        more: dict[str, Any] = {"found": fact, "spec": {"parameters": {}}}
        DRIVER.seal(it, task(Verb.UPDATE, instance(), fingerprint="v1;all=1;since=T1", **more), fact)
        DRIVER.seal(it, task(Verb.UPDATE, instance(), **more), fact)

        body = {"metadata": {"annotations": {"btp-reconcile-parameters": "v1;all=1;at=T2"}}}
        assert [("PATCH", "/v3/service_instances/i1", {}, body)] == it.writes

    @pytest.mark.parametrize(
        ("before", "said"),
        [
            (Operation("create", "succeeded", "2026-01-01T00:00:00Z"), ""),
            (Operation("update", "succeeded", "2026-01-01T00:00:00Z"), ";before=2026-01-01T00:00:00Z"),
        ],
    )
    def test_sealing_says_that_an_operation_was_about_names_alone(self, before: Operation, said: str):
        it = ScriptedDoor("cloud_foundry")
        after = seen(operation=Operation("update", "succeeded", "2026-01-03T00:00:00Z"))

        named = task(Verb.UPDATE, instance(), found=seen(operation=before), spec={"name": "x", "tags": []})
        DRIVER.seal(it, named, after)

        note = {"btp-reconcile-only-named": f"v1;at=2026-01-03T00:00:00Z{said}"}
        assert [("PATCH", "/v3/service_instances/i1", {}, {"metadata": {"annotations": note}})] == it.writes

    def test_a_deletion_needs_only_the_id(self):
        it = ScriptedDoor("cloud_foundry")

        DRIVER.delete(it, [task(Verb.DELETE, found=seen())])

        assert it.writes == [("DELETE", "/v3/service_instances/i1", {}, None)]


class TestLooking:
    def test_asks_by_ids_together_and_by_names_together(self):
        it = door()
        it.answers["/v3/service_instances"] = [rows_page(row()), rows_page(row("i8", "new"))]
        tasks = [
            task(Verb.UPDATE, instance(), found=seen()),
            task(Verb.AWAIT, instance("b"), found=seen(guid="i2")),
            task(Verb.CREATE, instance("new"), parent=SPACE),
        ]

        found = DRIVER.look(it, tasks)

        expected = [
            ("/v3/service_instances", {"guids": "i1,i2", **FIELDS}),
            ("/v3/service_instances", {"names": "new", "space_guids": "s1", **FIELDS}),
        ]
        assert expected == it.reads
        assert [fact and fact.id for fact in (found[one.step.id] for one in tasks)] == ["i1", None, "i8"]

    @pytest.mark.parametrize(
        ("guid", "space_id", "leftover", "there"),
        [
            ("i1", "s1", None, True),
            ("i1", "s1", "i1", False),
            ("i2", "s1", "i1", True),
            ("i1", "s2", None, False),
        ],
    )
    def test_a_creation_is_not_mistaken_for_a_leftover_or_a_namesake(self, guid, space_id, leftover, there):
        it = door()
        it.answers["/v3/service_instances"] = [rows_page(row(guid, "apim", space_id))]
        one = task(Verb.CREATE, instance(), parent=SPACE, found=seen(guid=leftover) if leftover else None)

        assert there == (DRIVER.look(it, [one])[one.step.id] is not None)

    @pytest.mark.parametrize(
        ("before", "now", "phase", "detail"),
        [
            (Operation("create", "succeeded", "T1"), DONE, Phase.PENDING, ""),
            (Operation("delete", "failed", "T1"), ("delete", "failed", "T1"), Phase.PENDING, ""),
            (Operation("delete", "failed", "T1"), ("delete", "failed", "T2"), Phase.READY, "words"),
            (Operation("create", "succeeded", "T1"), ("delete", "failed", "T1"), Phase.READY, "words"),
            (None, ("delete", "in progress", "T2"), Phase.PENDING, "words"),
        ],
    )
    def test_a_deletion_is_pending_until_it_is_gone_or_failed_anew(self, before, now, phase, detail):
        if isinstance(now, tuple):
            now = {"type": now[0], "state": now[1], "updated_at": now[2], "description": "words"}
        it = door()
        it.answers["/v3/service_instances"] = [rows_page(row(last_operation=now)), rows_page()]
        one = task(Verb.DELETE, found=seen(operation=before))

        fact = DRIVER.look(it, [one])[one.step.id]

        assert fact is not None
        assert (phase, detail) == (fact.phase, fact.detail)
        assert DRIVER.look(it, [one])[one.step.id] is None

    def test_blockers_are_told_in_words_each_with_the_command_that_releases_it(self):
        theirs = {"owner": "them", "spec": "base", "name": "k", "generation": "1"}
        labels = {f"btp.reconcile/{key}": value for key, value in theirs.items()}
        bindings: list[dict[str, Any]] = [
            {"guid": "k1", "type": "key", "name": "demo"},
            {"guid": "k4", "type": "key", "name": "it's mine", "metadata": {"labels": labels}},
            {"guid": "k2", "type": "app", "name": None, "relationships": related("app", "a1")},
            {"guid": "k3", "type": "app", "name": None, "relationships": related("app", "a2")},
        ]
        routes: list[dict[str, Any]] = [
            {"guid": "r1", "host": "www", "path": "/shop", "url": "www.example.com/shop"},
            {"guid": "r2", "host": "", "path": "", "url": "example.com"},
        ]
        bound = [{"guid": f"b{one}", "relationships": related("route", f"r{one}")} for one in (1, 2, 3)]
        orgs = [{"guid": "o1", "name": "other org"}]
        spaces = [{"guid": "s5", "name": "dev", "relationships": related("organization", "o1")}]
        shared = {
            "data": [{"guid": "s5"}, {"guid": "s6"}],
            "included": {"spaces": spaces, "organizations": orgs},
        }
        path = "/v3/service_instances/i1/relationships/shared_spaces"
        it = ScriptedDoor(
            "cloud_foundry",
            {
                "/v3/service_credential_bindings": [page(*bindings, apps=[{"guid": "a1", "name": "web"}])],
                "/v3/service_route_bindings": [page(*bound, routes=routes)],
                path: [shared],
            },
        )
        name = seen().name
        unbind = f"cf unbind-route-service example.com {name}"

        assert DRIVER.blockers(it, task(Verb.DELETE, found=seen())) == (
            f"key demo (cf delete-service-key {name} demo)",
            f"""key it's mine of owner 'them', spec 'base' (cf delete-service-key {name} 'it'"'"'s mine')""",
            f"app binding of app web (cf unbind-service web {name})",
            "app binding of app a2 (cf curl -X DELETE /v3/service_credential_bindings/k3)",
            f"route binding of route www.example.com/shop ({unbind} --hostname www --path /shop)",
            f"route binding of route example.com ({unbind})",
            "route binding of route r3 (cf curl -X DELETE /v3/service_route_bindings/b3)",
            f"shared with space dev (cf unshare-service {name} -s dev -o 'other org')",
            f"shared with space s6 (cf curl -X DELETE {path}/s6)",
        )
        assert [query for _, query in it.reads] == [
            {"service_instance_guids": "i1", "include": "app", "per_page": "5000"},
            {"service_instance_guids": "i1", "include": "route", "per_page": "5000"},
            {
                "fields[space]": "guid,name,relationships.organization",
                "fields[space.organization]": "guid,name",
            },
        ]

    def test_preparing_asks_once_per_org_and_leaves_out_what_is_not_visible(self):
        it = ScriptedDoor("cloud_foundry", {"/v3/service_plans": [plan_page(plan())]})
        other = instance("b", plan="late", mark=Mark("acme", "base", "b"))
        tasks = [task(Verb.CREATE, one, parent=SPACE) for one in (instance(), other)]

        found = DRIVER.prepare(it, tasks)

        query = {
            "names": f"{PLAN},late",
            "service_offering_names": OFFERING,
            "organization_guids": "o1",
            **PLAN_FIELDS,
        }
        assert [("/v3/service_plans", query)] == it.reads
        assert {tasks[0].step.id: plan_fact()} == found

    def test_preparing_refuses_to_choose(self):
        it = ScriptedDoor("cloud_foundry", {"/v3/service_plans": [plan_page(plan(), plan("p7"))]})

        with pytest.raises(PlatformError, match="offered 2 times"):
            DRIVER.prepare(it, [task(Verb.CREATE, instance(), parent=SPACE)])

    def test_a_withdrawn_plan_is_not_visible(self):
        it = ScriptedDoor("cloud_foundry", {"/v3/service_plans": [plan_page(plan(available=False))]})

        assert DRIVER.prepare(it, [task(Verb.CREATE, instance(), parent=SPACE)]) == {}

    def test_a_plan_change_is_prepared_by_the_space_of_the_instance(self):
        it = ScriptedDoor("cloud_foundry", {"/v3/service_plans": [plan_page(plan())]})
        one = task(Verb.UPDATE, instance(), found=seen(parent="s1"), spec={"plan": PLAN})

        assert DRIVER.prepare(it, [one]) == {one.step.id: plan_fact()}
        assert it.reads[0][1]["space_guids"] == "s1"

    def test_a_plan_without_its_service_is_told_so(self):
        it = ScriptedDoor("cloud_foundry", {"/v3/service_plans": [page(plan())]})

        with pytest.raises(PlatformError, match="cannot be understood"):
            DRIVER.prepare(it, [task(Verb.CREATE, instance(), parent=SPACE)])
