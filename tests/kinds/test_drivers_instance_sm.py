"""Instances in the Service Manager: exact requests, exact facts."""

from __future__ import annotations

from typing import Any

import pytest

from btp_reconcile.core import record
from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.model import Adoption, Verb
from btp_reconcile.kinds.instance import ServiceManagerInstances
from tests.kinds.scripted import (
    GUID,
    MARK,
    NOW,
    OFFERING,
    PLAN,
    PROD,
    SM_PLAN,
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

DRIVER = ServiceManagerInstances()
PATH = "/v1/service_instances"
LAST = {"attach_last_operations": "true"}
LABELS = {
    "btp-reconcile/owner": ["acme"],
    "btp-reconcile/spec": ["base"],
    "btp-reconcile/name": ["apim"],
    "btp-reconcile/generation": ["1"],
}
RECORDED = {"btp-reconcile/plan": [f"{OFFERING}/{PLAN}/p1"], "btp-reconcile/parameters": ["v1;all=00"]}
STARTED, ENDED = "2026-07-20T10:09:03.366672Z", "2026-07-20T10:09:03.81374Z"


def last(kind: str = "create", state: str = "succeeded", **changes: Any) -> dict[str, Any]:
    return {"type": kind, "state": state, "created_at": STARTED, "updated_at": ENDED, **changes}


def row(guid: str = "i1", name: str = "apim", **changes: Any) -> dict[str, Any]:
    data = {
        "id": guid,
        "ready": True,
        "last_operation": last(),
        "name": name,
        "service_plan_id": "p1",
        "platform_id": "service-manager",
        "usable": True,
        "subaccount_id": GUID,
        "protected": None,
        "created_at": "2026-07-20T10:09:03.366647Z",
        "labels": {"subaccount_id": [GUID]},
    }
    return {**data, **changes}


def ours(guid: str = "i1", name: str = "apim", **changes: Any) -> dict[str, Any]:
    return row(guid, name, labels={"subaccount_id": [GUID], **LABELS, **RECORDED}, **changes)


def page(*items: dict[str, Any]) -> dict[str, Any]:
    return {"num_items": len(items), "items": list(items)}


def offering(guid: str = "f1", name: str = OFFERING, **changes: Any) -> dict[str, Any]:
    return {
        "id": guid,
        "name": "x",
        "catalog_name": name,
        "bindable": True,
        "plan_updateable": False,
        **changes,
    }


def plan(guid: str = "p1", name: str = PLAN, **changes: Any) -> dict[str, Any]:
    return {"id": guid, "name": "x", "catalog_name": name, "service_offering_id": "f1", **changes}


def door(
    *pages: dict[str, Any], offerings: list[Any] | None = None, plans: list[Any] | None = None
) -> ScriptedDoor:
    return ScriptedDoor(
        "service_manager",
        {PATH: pages, "/v1/service_offerings": offerings or [], "/v1/service_plans": plans or []},
    )


def observed(it: ScriptedDoor, *resources: Any, **known: Any) -> list[Fact]:
    return list(DRIVER.observe(it, (PROD,), wanted(*resources, **known), ()))


def other(name: str = "apim", **changes: Any) -> Any:
    return instance(name, runtime="other", **changes)


BY_OWNER = (PATH, {"labelQuery": "btp-reconcile/owner in ('acme')", **LAST})


class TestObserving:
    def test_costs_one_request_when_all_is_there(self):
        it = door(page(ours()))

        [fact] = observed(it, other())

        expected = Fact(
            "instance",
            "i1",
            "apim",
            "prod",
            Phase.READY,
            {
                "service": OFFERING,
                "plan": PLAN,
                "plan_id": "p1",
                "labels": {key: tuple(values) for key, values in {**LABELS, **RECORDED}.items()},
            },
            None,
            MARK,
            "",
            "v1;all=00",
            Operation("create", "succeeded", STARTED, ""),
            "2026-07-20T10:09:03.366647Z",
            "other",
        )
        assert it.reads == [BY_OWNER]
        assert expected == fact

    def test_owners_are_quoted_and_those_of_before_are_asked_too(self):
        it = door(page(), page(), offerings=[page()])

        observed(it, other(owner_was="o'brien"), owners=frozenset({("b", "x"), ("acme", "base")}))

        assert it.reads[0][1]["labelQuery"] == "btp-reconcile/owner in ('acme', 'b', 'o''brien')"

    def test_what_is_missing_is_looked_up_by_name_and_its_plan_by_names(self):
        it = door(page(), page(), offerings=[page(offering())], plans=[page(plan(), plan("p3", "unasked"))])

        found = observed(it, other(), other("b"), other("c", adopt=Adoption(name="it's")))

        assert [
            BY_OWNER,
            (PATH, {"fieldQuery": "name in ('apim', 'b', 'it''s')", **LAST}),
            ("/v1/service_offerings", {"fieldQuery": f"catalog_name in ('{OFFERING}')"}),
            (
                "/v1/service_plans",
                {"fieldQuery": f"catalog_name in ('{PLAN}') and service_offering_id in ('f1')"},
            ),
        ] == it.reads
        attributes = {"service": OFFERING, "available": True, "updateable": False, "bindable": True}
        assert [Fact("plan", "p1", PLAN, "prod", attributes=attributes, runtime="other")] == found

    def test_an_adoption_by_id_asks_by_id(self):
        it = door(page(), page(row("i7", "x")), offerings=[page(offering())] * 2, plans=[page(plan())] * 2)

        found = observed(it, other(adopt=Adoption(id="i7")))

        assert it.reads[1] == (PATH, {"fieldQuery": "id in ('i7')", **LAST})
        assert [one.id for one in found] == ["i7", "p1"]

    def test_names_that_are_not_recorded_are_looked_up_by_ids_together(self):
        stale = {**LABELS, "btp-reconcile/plan": [f"{OFFERING}/{PLAN}/p1"]}
        rows = [row("i1", service_plan_id="p2", labels=stale), row("i2", "b", service_plan_id="p2")]
        plans = [page(plan("p2", "old")), page(plan(), plan("p2", "old", plan_updateable=True))]
        it = door(page(*rows), offerings=[page(offering()), page(offering())], plans=plans)

        found = observed(it, other())

        assert it.reads[1] == ("/v1/service_plans", {"fieldQuery": "id in ('p2')"})
        assert it.reads[2] == ("/v1/service_offerings", {"fieldQuery": "id in ('f1')"})
        assert [(one.attributes["service"], one.attributes["plan"]) for one in found[:2]] == [
            (OFFERING, "old")
        ] * 2
        assert [(one.id, one.attributes["updateable"]) for one in found[2:]] == [("p2", True), ("p1", False)]
        query = f"catalog_name in ('{PLAN}', 'old') and service_offering_id in ('f1')"
        assert ("/v1/service_plans", {"fieldQuery": query}) == it.reads[4]

    def test_a_plan_that_is_not_visible_is_no_plan(self):
        it = door(page(), page(), offerings=[page()])

        assert observed(it, other()) == []

    def test_a_plan_whose_name_cannot_be_known_is_told_so(self):
        it = door(page(row(labels=LABELS)), plans=[page()])

        with pytest.raises(PlatformError, match="cannot be named"):
            observed(it, other())

    @pytest.mark.parametrize(
        ("kind", "state", "ready", "phase"),
        [
            ("create", "in progress", False, Phase.PENDING),
            ("create", "pending", False, Phase.PENDING),
            ("create", "failed", False, Phase.BROKEN),
            ("create", "failed", None, Phase.BROKEN),
            ("delete", "failed", False, Phase.BROKEN),
            ("UPDATE", "failed", True, Phase.READY),
            ("delete", "failed", True, Phase.READY),
            ("update", "in progress", True, Phase.PENDING),
            ("create", "succeeded", False, Phase.PENDING),
        ],
    )
    def test_operation_and_readiness_make_the_phase(self, kind, state, ready, phase):
        operation = last(kind, state, errors={"error": "BrokerError", "description": "no\n such role"})
        [fact] = observed(door(page(ours(ready=ready, last_operation=operation))), other(observe_only=True))

        assert (phase, Operation(kind.lower(), state, STARTED, "no such role")) == (
            fact.phase,
            fact.operation,
        )

    @pytest.mark.parametrize(
        "errors",
        [
            {"description": "words"},
            [{"description": "words"}],
            "words",
            {"broker_error": {"StatusCode": 422, "Description": "words"}},
        ],
    )
    def test_errors_come_in_several_shapes(self, errors):
        it = door(page(ours(ready=False, last_operation=last("create", "failed", errors=errors))))
        [fact] = observed(it, other(observe_only=True))

        assert fact.detail == "words"

    def test_the_kubernetes_operator_s_things_are_foreign(self):
        labels = {"_clusterid": ["c1"], "_namespace": ["apis"], "_k8sname": ["apim"]}
        it = door(
            page(), page(row(labels=labels)), offerings=[page(offering())] * 2, plans=[page(plan())] * 2
        )

        fact = observed(it, other())[0]

        expected = "it belongs to the Kubernetes service operator (cluster c1, namespace apis)"
        assert expected == fact.foreign

    def test_what_another_platform_made_is_not_seen(self):
        it = door(page(ours(platform_id="cf-eu10")), page(), offerings=[page()])

        assert observed(it, other()) == []

    @pytest.mark.parametrize(
        "labels",
        [
            {**LABELS, "btp-reconcile/owner": ["acme", "b"]},
            {**LABELS, "btp-reconcile/generation": ["1.0"]},
            {**LABELS, "btp-reconcile/spec": []},
        ],
    )
    def test_a_malformed_mark_is_none(self, labels):
        it = door(page(row(labels={**labels, **RECORDED})))

        assert [one.mark for one in observed(it)] == [None]

    def test_the_key_of_another_subaccount_is_refused(self):
        with pytest.raises(
            PlatformError, match=r"opens subaccount x; put one of .* into access\.service_manager"
        ):
            observed(door(page(ours(subaccount_id="x"))), other())

    @pytest.mark.parametrize(
        "odd",
        [{}, {"items": {}}, {"items": ["x"]}, page(row(labels="x")), page(ours(service_plan_id=None)), None],
    )
    def test_an_answer_that_makes_no_sense_is_told_so(self, odd):
        it = door()
        it.answers[PATH] = [[odd]]

        with pytest.raises(PlatformError, match="cannot be understood"):
            observed(it, other())


class TestWriting:
    def test_a_creation_carries_mark_plan_and_record(self):
        it = door()
        spec = {**other().spec, "parameters": {"role": "r"}}
        one = task(Verb.CREATE, other(), plan=SM_PLAN, spec=spec, fingerprint="v1;all=1")

        DRIVER.create(it, [one, task(Verb.CREATE, other(), plan=SM_PLAN)])

        plain = {**LABELS, "btp-reconcile/plan": [f"{OFFERING}/{PLAN}/p1"]}
        body = {
            "name": "apim",
            "service_plan_id": "p1",
            "parameters": {"role": "r"},
            "labels": {**plain, "btp-reconcile/parameters": ["v1;all=1"]},
        }
        assert [
            ("POST", PATH, {"async": "true"}, body),
            ("POST", PATH, {"async": "true"}, {"name": "apim", "service_plan_id": "p1", "labels": plain}),
        ] == it.writes

    def test_an_update_sends_what_changes_and_the_labels_that_differ(self):
        it = door()
        [found] = observed(door(page(ours())), other())
        new = Fact("plan", "p2", "large", "prod", attributes={"service": OFFERING}, runtime="other")
        spec = {"name": "n", "parameters": {}, "plan": "large"}

        one = task(
            Verb.UPDATE,
            other(),
            generation=2,
            found=found,
            plan=new,
            spec=spec,
            fingerprint="v1;all=1;near=1.000",
        )
        DRIVER.update(it, [one])

        def changed(key: str, before: str, after: str) -> list[dict[str, Any]]:
            name = f"btp-reconcile/{key}"
            return [
                {"op": "add_values", "key": name, "values": [after]},
                {"op": "remove_values", "key": name, "values": [before]},
            ]

        body = {
            "name": "n",
            "parameters": {},
            "service_plan_id": "p2",
            "labels": [
                *changed("generation", "1", "2"),
                *changed("plan", f"{OFFERING}/{PLAN}/p1", f"{OFFERING}/large/p2"),
                *changed("parameters", "v1;all=00", f"v1;all=1;near={NOW:.3f}"),
            ],
        }
        assert [("PATCH", f"{PATH}/i1", {"async": "true"}, body)] == it.writes

    def test_an_adoption_adds_labels(self):
        it = door()

        DRIVER.update(it, [task(Verb.UPDATE, other(), found=seen(runtime="other"))])

        added = {
            **LABELS,
            "btp-reconcile/plan": [f"{OFFERING}/{PLAN}/p1"],
            "btp-reconcile/only-named": [f"v1;at={record.moment(NOW)}"],
        }
        labels = [{"op": "add", "key": key, "values": values} for key, values in added.items()]
        assert [("PATCH", f"{PATH}/i1", {"async": "true"}, {"labels": labels})] == it.writes

    def test_what_was_noted_of_a_name_goes_when_more_is_changed(self):
        it = door()
        there = {"labels": {"btp-reconcile/only-named": ("v1;at=2026-01-01T00:00:00Z",)}}

        found = seen(runtime="other", attributes=there)
        DRIVER.update(it, [task(Verb.UPDATE, other(), found=found, spec={"parameters": {}})])

        [(*_, body)] = it.writes
        assert {"op": "remove", "key": "btp-reconcile/only-named"} in body["labels"]

    def test_nothing_to_say_is_not_said(self):
        it = door()
        [found] = observed(door(page(ours())), other())

        DRIVER.update(it, [task(Verb.UPDATE, other(), found=found)])
        DRIVER.seal(it, task(Verb.UPDATE, other(), found=found, fingerprint="v1"), found)

        assert it.writes == []

    def test_a_deletion_is_asynchronous(self):
        it = door()

        DRIVER.delete(it, [task(Verb.DELETE, found=seen(runtime="other"))])

        assert [("DELETE", f"{PATH}/i1", {"async": "true"}, None)] == it.writes


class TestLooking:
    def test_asks_by_ids_together_and_by_names_together(self):
        it = door(page(ours()), page(row("i8", "new")))
        tasks = [
            task(Verb.UPDATE, other(), found=seen(runtime="other")),
            task(Verb.DELETE, other("b"), found=seen(guid="i2", runtime="other")),
            task(Verb.CREATE, other("new"), plan=SM_PLAN),
        ]

        found = DRIVER.look(it, tasks)

        assert it.reads == [
            (PATH, {"fieldQuery": "id in ('i1', 'i2')", **LAST}),
            (PATH, {"fieldQuery": "name in ('new')", **LAST}),
        ]
        assert [fact and fact.id for fact in (found[one.step.id] for one in tasks)] == ["i1", None, "i8"]

    def test_a_leftover_is_not_what_was_created(self):
        it = door(page(row("i1")))
        one = task(Verb.CREATE, other(), plan=SM_PLAN, found=seen(runtime="other"))

        assert DRIVER.look(it, [one]) == {one.step.id: None}

    def test_a_deletion_that_failed_anew_is_told(self):
        it = door(page(ours(last_operation=last("delete", "failed", description="words"))))
        one = task(Verb.DELETE, other(), found=seen(runtime="other"))

        fact = DRIVER.look(it, [one])[one.step.id]

        assert fact is not None
        assert (fact.phase, fact.detail) == (Phase.READY, "words")

    def test_bindings_block_a_deletion_and_are_named_with_whose_they_are(self):
        theirs = {"owner": "them", "spec": "base", "name": "k", "generation": "1"}
        labels = {f"btp-reconcile/{key}": [value] for key, value in theirs.items()}
        it = ScriptedDoor(
            "service_manager",
            {"/v1/service_bindings": [page({"id": "b", "name": "k", "labels": labels}, {"id": "c"})]},
        )

        assert DRIVER.blockers(it, task(Verb.DELETE, found=seen(runtime="other"))) == (
            f"binding k of owner 'them', spec 'base' (smctl unbind {seen().name} k)",
            "binding c",
        )
        assert it.reads == [("/v1/service_bindings", {"fieldQuery": "service_instance_id in ('i1')"})]

    def test_preparing_asks_twice_for_all(self):
        it = door(offerings=[page(offering())], plans=[page(plan())])
        late = other("b", plan="late", mark=Mark("acme", "base", "b"))
        tasks = [task(Verb.CREATE, other()), task(Verb.CREATE, late)]

        found = DRIVER.prepare(it, tasks)

        assert len(it.reads) == 2
        assert [fact.id for fact in found.values()] == ["p1"]
        assert [tasks[0].step.id] == list(found)
