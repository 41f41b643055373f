"""Keys in both runtimes: exact requests, exact facts, and no credentials."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.model import Address, Adoption, Verb
from btp_reconcile.kinds.key import CloudFoundryKeys, ServiceManagerKeys
from tests.kinds.scripted import (
    GUID,
    MARK,
    NOW,
    OFFERING,
    PLAN,
    PROD,
    TEST,
    Fact,
    Mark,
    Operation,
    Phase,
    ScriptedDoor,
    instance,
    key,
    seen,
    task,
    wanted,
)

CF, SM = CloudFoundryKeys(), ServiceManagerKeys()
CF_PATH, SM_PATH = "/v3/service_credential_bindings", "/v1/service_bindings"
KEYS = {"type": "key", "per_page": "5000"}
LAST = {"attach_last_operations": "true"}
CF_LABELS = {
    f"btp.reconcile/{part}": value
    for part, value in zip(("owner", "spec", "name", "generation"), ("acme", "base", "k", "1"), strict=True)
}
SM_LABELS = {label.replace(".", "-"): [value] for label, value in CF_LABELS.items()}
KIN = {"service": OFFERING, "plan": PLAN}
K_MARK = Mark("acme", "base", "k")


def cf_row(guid: str = "k1", name: str = "k", parent: str = "i1", **changes: Any) -> dict[str, Any]:
    data = {
        "guid": guid,
        "created_at": "2025-09-01T09:43:00Z",
        "name": name,
        "type": "key",
        "last_operation": {"state": "succeeded", "description": None, "type": "create", "updated_at": "T"},
        "metadata": {"labels": CF_LABELS, "annotations": {"btp-reconcile-parameters": "v1;all=00"}},
        "relationships": {"service_instance": {"data": {"guid": parent}}},
    }
    return {**data, **changes}


def cf_page(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"pagination": {"next": None}, "resources": list(resources)}


def cf_key(**changes: Any) -> Fact:
    fact = Fact(
        "key",
        "k1",
        "k",
        "prod",
        Phase.READY,
        KIN,
        "i1",
        K_MARK,
        "",
        "v1;all=00",
        Operation("create", "succeeded", "T", ""),
        "2025-09-01T09:43:00Z",
        "cloudfoundry",
    )
    return replace(fact, **changes)


def sm_row(guid: str = "k1", name: str = "k", parent: str = "i1", **changes: Any) -> dict[str, Any]:
    data = {
        "id": guid,
        "ready": True,
        "last_operation": {"type": "create", "state": "succeeded", "created_at": "T", "updated_at": "T9"},
        "name": name,
        "service_instance_id": parent,
        "credentials": {"clientSecret": "s3cret"},
        "parameters": {"x": "s3cret"},
        "subaccount_id": GUID,
        "created_at": "2026-07-20T10:09:03.366647Z",
        "labels": {"subaccount_id": [GUID], **SM_LABELS},
    }
    return {**data, **changes}


def sm_page(*items: dict[str, Any]) -> dict[str, Any]:
    return {"num_items": len(items), "items": list(items)}


def sm_instance(guid: str = "i1", **changes: Any) -> Fact:
    changes.setdefault("mark", MARK)
    return seen(guid=guid, runtime="other", **changes)


class TestCloudFoundry:
    def door(self, *answers: Any) -> ScriptedDoor:
        return ScriptedDoor("cloud_foundry", {CF_PATH: answers})

    def test_one_request_tells_all_keys_of_what_was_seen(self):
        it = self.door(cf_page(cf_row(), cf_row("k2", "x", "i2"), cf_row("k3", "y", "elsewhere")))
        facts = [
            seen(mark=MARK),
            seen(guid="i2", subaccount="test"),
            seen(guid="i3", attributes={"service": "old'ish", "plan": "p"}, mark=Mark("acme", "gone", "x")),
            seen(guid="i4", attributes={"service": "foreign", "plan": "p"}),
            seen(guid="i5", runtime="other", attributes={"service": "sm-only", "plan": "p"}, mark=MARK),
        ]

        found = list(CF.observe(it, (PROD, TEST), wanted(instance(), key()), facts))

        assert [(CF_PATH, {"service_offering_names": f"{OFFERING},old'ish", **KEYS})] == it.reads
        assert [cf_key(), cf_key(id="k2", name="x", parent="i2", subaccount="test")] == found

    def test_without_such_instances_nothing_is_asked(self):
        it = self.door()
        facts = [seen(attributes={"service": "foreign", "plan": "p"}), seen("space")]

        assert list(CF.observe(it, (PROD,), wanted(instance(), key()), facts)) == []

    @pytest.mark.parametrize(
        ("kind", "state", "phase"),
        [
            ("create", "failed", Phase.BROKEN),
            ("delete", "failed", Phase.BROKEN),
            ("create", "initial", Phase.PENDING),
            ("delete", "in progress", Phase.PENDING),
        ],
    )
    def test_the_last_operation_makes_the_phase(self, kind, state, phase):
        last = {"type": kind, "state": state, "description": "words", "updated_at": "T"}
        it = self.door(cf_page(cf_row(last_operation=last)))

        [fact] = CF.observe(it, (PROD,), wanted(instance(), key()), [seen()])

        assert (phase, "words") == (fact.phase, fact.detail)

    def test_a_creation_is_one_request(self):
        it = self.door()
        spec = {**key().spec, "parameters": {"x": 1}}

        CF.create(
            it, [task(Verb.CREATE, key(), generation=2, parent=seen(), spec=spec, fingerprint="v1;all=1")]
        )
        CF.create(it, [task(Verb.CREATE, key(), parent=seen())])

        related = {"service_instance": {"data": {"guid": "i1"}}}
        body = {
            "type": "key",
            "name": "k-2",
            "relationships": related,
            "parameters": {"x": 1},
            "metadata": {
                "labels": {**CF_LABELS, "btp.reconcile/generation": "2"},
                "annotations": {"btp-reconcile-parameters": "v1;all=1"},
            },
        }
        plain = {"type": "key", "name": "k", "relationships": related, "metadata": {"labels": CF_LABELS}}
        assert [("POST", CF_PATH, {}, body), ("POST", CF_PATH, {}, plain)] == it.writes

    def test_an_update_is_metadata_only(self):
        it = self.door()
        one = task(
            Verb.UPDATE,
            key(),
            found=cf_key(),
            spec={"parameters": {"x": 1}, "name": "n"},
            fingerprint="v1;all=1",
        )

        CF.update(it, [one])
        CF.seal(it, one, cf_key())

        metadata = {"labels": CF_LABELS, "annotations": {"btp-reconcile-parameters": "v1;all=1"}}
        assert [("PATCH", f"{CF_PATH}/k1", {}, {"metadata": metadata})] == it.writes

    def test_a_deletion_needs_only_the_id(self):
        it = self.door()

        CF.delete(it, [task(Verb.DELETE, key(), found=cf_key())])

        assert [("DELETE", f"{CF_PATH}/k1", {}, None)] == it.writes

    def test_looks_in_batches(self):
        it = self.door(cf_page(cf_row()), cf_page(cf_row("k8", "new", "i2"), cf_row("k9", "new", "i1")))
        tasks = [
            task(Verb.AWAIT, key(), found=cf_key()),
            task(Verb.DELETE, key("gone"), found=cf_key(id="k2")),
            task(Verb.CREATE, key("new"), parent=seen()),
            task(Verb.CREATE, key("newer"), parent=seen(guid="i2")),
        ]

        found = CF.look(it, tasks)

        assert it.reads == [
            (CF_PATH, {"guids": "k1,k2", **KEYS}),
            (CF_PATH, {"names": "new,newer", "service_instance_guids": "i1,i2", **KEYS}),
        ]
        facts = [found[one.step.id] for one in tasks]
        assert [fact and fact.id for fact in facts] == ["k1", None, "k9", None]
        assert facts[0] == cf_key()

    def test_a_leftover_is_not_what_was_created(self):
        it = self.door(cf_page(cf_row()))
        one = task(Verb.CREATE, key(), parent=seen(), found=cf_key())

        assert CF.look(it, [one]) == {one.step.id: None}

    def test_a_deletion_that_failed_leaves_a_broken_key(self):
        last = {"type": "delete", "state": "failed", "description": "words", "updated_at": "T2"}
        it = self.door(cf_page(cf_row(last_operation=last)))
        one = task(Verb.DELETE, key(), found=cf_key())

        fact = CF.look(it, [one])[one.step.id]

        assert fact is not None
        assert (fact.phase, fact.detail) == (Phase.BROKEN, "words")

    def test_nothing_stands_in_a_key_and_it_needs_only_its_instance(self):
        one = task(Verb.CREATE, key(), parent=seen())

        assert CF.blockers(self.door(), one) == ()
        assert CF.prepare(self.door(), [one]) == {one.step.id: seen()}

    def test_an_answer_that_makes_no_sense_is_told_so(self):
        it = self.door(cf_page(cf_row(relationships=None)))

        with pytest.raises(PlatformError, match="cannot be understood"):
            CF.observe(it, (PROD,), wanted(instance(), key()), [seen()])


class TestServiceManager:
    def door(self, *answers: Any) -> ScriptedDoor:
        return ScriptedDoor("service_manager", {SM_PATH: answers})

    def resources(self, *keys: Any, **changes: Any) -> Any:
        return wanted(instance(runtime="other", **changes), *keys)

    def other(self, name: str = "k", **changes: Any) -> Any:
        return key(name, runtime="other", **changes)

    BY_OWNER = (SM_PATH, {"labelQuery": "btp-reconcile/owner in ('acme')", **LAST})

    def test_one_request_tells_all_and_drops_credentials(self):
        it = self.door(sm_page(sm_row(), sm_row("k2", "x", "elsewhere")))

        found = list(SM.observe(it, (PROD,), self.resources(self.other()), [sm_instance()]))

        expected = Fact(
            "key",
            "k1",
            "k",
            "prod",
            Phase.READY,
            {**KIN, "labels": {label: tuple(values) for label, values in SM_LABELS.items()}},
            "i1",
            K_MARK,
            "",
            "",
            Operation("create", "succeeded", "T", ""),
            "2026-07-20T10:09:03.366647Z",
            "other",
        )
        assert it.reads == [self.BY_OWNER]
        assert [expected] == found
        assert "s3cret" not in repr(found)

    def test_without_instances_nothing_is_asked(self):
        assert list(SM.observe(self.door(), (PROD,), self.resources(self.other()), [seen()])) == []

    def test_what_is_missing_is_looked_up_by_instance_and_name(self):
        it = self.door(sm_page(), sm_page(sm_row(labels={}), sm_row("k5", "other", labels={})))
        keys = (self.other(), self.other("b", adopt=Adoption(name="it's")))

        found = SM.observe(it, (PROD,), self.resources(*keys), [sm_instance()])

        query = "service_instance_id in ('i1') and name in ('k', 'it''s')"
        assert [self.BY_OWNER, (SM_PATH, {"fieldQuery": query, **LAST})] == it.reads
        assert [one.id for one in found] == ["k1", "k5"]

    def test_an_adoption_by_id_asks_by_id(self):
        it = self.door(sm_page(), sm_page(sm_row("k7", labels={})))

        found = SM.observe(it, (PROD,), self.resources(self.other(adopt=Adoption(id="k7"))), [sm_instance()])

        assert it.reads[1] == (SM_PATH, {"fieldQuery": "id in ('k7')", **LAST})
        assert [one.id for one in found] == ["k7"]

    def test_a_key_in_an_older_generation_of_its_instance_is_enough(self):
        it = self.door(sm_page(sm_row()))

        SM.observe(
            it,
            (PROD,),
            self.resources(self.other()),
            [sm_instance(), sm_instance("i2", mark=Mark("acme", "base", "apim", 2))],
        )

        assert it.reads == [self.BY_OWNER]

    def test_keys_of_an_instance_to_adopt_are_looked_up(self):
        it = self.door(sm_page(), sm_page())
        free = sm_instance(mark=None, name="theirs")

        SM.observe(it, (PROD,), self.resources(self.other(), adopt=Adoption(name="theirs")), [free])

        assert it.reads[1][1]["fieldQuery"] == "service_instance_id in ('i1') and name in ('k')"

    def test_a_deletion_that_failed_leaves_a_usable_key(self):
        last = {"type": "delete", "state": "failed", "description": "words", "created_at": "T2"}
        it = self.door(sm_page(sm_row(last_operation=last)))
        one = task(Verb.DELETE, self.other(), found=cf_key(runtime="other"))

        fact = SM.look(it, [one])[one.step.id]

        assert fact is not None
        assert (fact.phase, fact.detail) == (Phase.READY, "words")

    def test_a_creation_is_one_request(self):
        it = self.door()
        spec = {**self.other().spec, "parameters": {"x": 1}}
        tasks = [
            task(Verb.CREATE, self.other(), parent=sm_instance(), spec=spec, fingerprint="v1;all=1"),
            task(Verb.CREATE, self.other(), parent=sm_instance()),
        ]

        SM.create(it, tasks)

        plain = {"name": "k", "service_instance_id": "i1", "labels": SM_LABELS}
        labels = {**SM_LABELS, "btp-reconcile/parameters": ["v1;all=1"]}
        assert [
            ("POST", SM_PATH, {"async": "true"}, {**plain, "parameters": {"x": 1}, "labels": labels}),
            ("POST", SM_PATH, {"async": "true"}, plain),
        ] == it.writes

    def test_an_update_is_of_labels_and_at_once(self):
        it = self.door()

        SM.update(
            it,
            [
                task(
                    Verb.UPDATE,
                    self.other(),
                    found=seen("key", "k1", runtime="other"),
                    fingerprint="v1;all=1",
                )
            ],
        )

        values = {**SM_LABELS, "btp-reconcile/parameters": [f"v1;all=1;near={NOW:.3f}"]}
        labels = [{"op": "add", "key": label, "values": value} for label, value in values.items()]
        assert [("PATCH", f"{SM_PATH}/k1", {}, {"labels": labels})] == it.writes

    def test_a_deletion_is_asynchronous(self):
        it = self.door()

        SM.delete(it, [task(Verb.DELETE, self.other(), found=seen("key", "k1"))])

        assert [("DELETE", f"{SM_PATH}/k1", {"async": "true"}, None)] == it.writes

    def test_looks_in_batches_and_drops_credentials(self):
        it = self.door(sm_page(sm_row()), sm_page(sm_row("k8", "new", "i2"), sm_row("k9", "new")))
        tasks = [
            task(Verb.AWAIT, self.other(), found=seen("key", "k1")),
            task(Verb.CREATE, self.other("new"), parent=sm_instance()),
            task(Verb.CREATE, self.other("old"), parent=sm_instance()),
        ]

        found = SM.look(it, tasks)

        assert it.reads == [
            (SM_PATH, {"fieldQuery": "id in ('k1')", **LAST}),
            (SM_PATH, {"fieldQuery": "service_instance_id in ('i1') and name in ('new', 'old')", **LAST}),
        ]
        assert [fact and fact.id for fact in (found[one.step.id] for one in tasks)] == ["k1", "k9", None]
        assert "s3cret" not in repr(found)

    def test_a_leftover_is_not_what_was_created(self):
        it = self.door(sm_page(sm_row()))
        one = task(Verb.CREATE, self.other(), parent=sm_instance(), found=seen("key", "k1"))

        assert SM.look(it, [one]) == {one.step.id: None}

    def test_keys_of_an_instance_to_adopt_by_id_are_looked_up(self):
        it = self.door(sm_page(), sm_page())
        free = sm_instance(mark=None, name="theirs")

        SM.observe(it, (PROD,), self.resources(self.other(), adopt=Adoption(id="i1")), [free])

        assert it.reads[1][1]["fieldQuery"] == "service_instance_id in ('i1') and name in ('k')"

    def test_keys_of_the_other_runtime_are_not_its_business(self):
        it = self.door(sm_page())

        SM.observe(it, (PROD,), self.resources(key()), [sm_instance()])

        assert len(it.reads) == 1

    def test_nothing_stands_in_a_key_and_it_needs_only_its_instance(self):
        it = self.door()
        one = task(Verb.CREATE, self.other(), parent=sm_instance(), fingerprint="v1;all=1")

        SM.seal(it, one, sm_instance())

        assert SM.blockers(it, one) == ()
        assert SM.prepare(it, [one]) == {one.step.id: sm_instance()}
        assert (it.reads, it.writes) == ([], [])

    def test_an_answer_that_makes_no_sense_shows_no_credentials(self):
        it = self.door(sm_page({**sm_row(), "name": {"clientSecret": "s3cret"}}))

        with pytest.raises(PlatformError) as caught:
            SM.observe(it, (PROD,), self.resources(self.other()), [sm_instance()])

        assert "cannot be understood" in str(caught.value)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "answer", [{}, {"credentials": {}}, {"credentials": None}, {"credentials": "s3cret"}, None]
)
@pytest.mark.parametrize(
    ("driver", "path", "why"),
    [
        (CF, f"{CF_PATH}/k1/details", "cloud_foundry: {}its broker gave none when it was made{}"),
        (
            SM,
            f"{SM_PATH}/k1",
            "service_manager: {}its broker gave none, or access.service_manager is not a key of plan subaccount-admin{}",
        ),
    ],
)
def test_a_key_without_credentials_is_named_and_what_to_do_said(driver, path, why, answer):
    with pytest.raises(PlatformError) as caught:
        driver.credentials(ScriptedDoor(driver.service, {path: [answer]}), cf_key())

    assert str(caught.value) == why.format(
        "key 'k' of subaccount prod came without credentials: ",
        "; if the cockpit shows none either, delete it and apply again",
    )


def test_a_key_s_address_names_its_instance():
    assert key().parent == Address("instance", ("prod", "apim"))
