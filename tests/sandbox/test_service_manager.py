"""Service Manager."""

from __future__ import annotations

import email.utils
import json
import time
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests

from btp_reconcile.sandbox import Request, Sandbox, serve
from btp_reconcile.sandbox.sm_query import QueryError, holds, parse
from tests.sandbox.btp_client import MANAGER, WORLD, Btp

INSTANCES = "/v1/service_instances"
BINDINGS = "/v1/service_bindings"
CONFIG = {"service_offering_name": "sandbox-config", "service_plan_name": "standard"}
SLOW = {"service_offering_name": "sandbox-slow", "service_plan_name": "standard"}


@pytest.fixture
def btp() -> Btp:
    return Btp()


# Catalogue


def test_offerings_and_plans_have_the_live_fields(btp: Btp) -> None:
    query = quote("catalog_name eq 'apimanagement-apiportal' and data_center eq ''")
    offering = btp.manager("GET", f"/v1/service_offerings?fieldQuery={query}").data()["items"][0]
    assert "labels" not in offering
    assert "data_center" not in offering
    assert offering["name"] == offering["catalog_name"] == "apimanagement-apiportal"
    assert btp.manager("GET", f"/v1/service_offerings/{offering['id']}").data() == offering
    plan_id = btp.plan_id("apimanagement-apiportal", "apiportal-apiaccess")
    plan = btp.manager("GET", f"/v1/service_plans/{plan_id}").data()
    assert plan["labels"] == {"commercial_name": ["apiportal-apiaccess"]}
    assert plan["service_offering_id"] == offering["id"]
    assert plan["id"] != plan["catalog_id"]


def test_only_entitled_plans_are_listed(btp: Btp) -> None:
    names = {row["name"] for row in btp.manager("GET", "/v1/service_offerings").data()["items"]}
    assert "sandbox-config" in names
    assert "transport" not in names


def test_environments(btp: Btp) -> None:
    for name in ("btp", "kubernetes", "cloudfoundry", ""):
        assert btp.manager("GET", f"/v1/service_plans?environment={name}").status == 200
    assert btp.manager("GET", "/v1/service_plans?environment=moon").status == 400


# Lists


def test_pages_follow_each_other(btp: Btp) -> None:
    for number in range(7):
        btp.instance(f"i{number}")
    names: list[str] = []
    target = f"{INSTANCES}?max_items=4"
    pages = 0
    token: str | None = ""
    while token is not None:
        answer = btp.manager("GET", target + (f"&token={quote(token)}" if token else ""))
        data = answer.data()
        assert data["num_items"] == 9
        names += [row["name"] for row in data["items"]]
        assert ("token" in data) == (answer.header("Link") is not None)
        token = data.get("token")
        pages += 1
    assert (pages, names[2:]) == (3, [f"i{number}" for number in range(7)])


def test_a_full_last_page_has_no_token(btp: Btp) -> None:
    assert "token" not in btp.manager("GET", f"{INSTANCES}?max_items=2").data()


def test_deletions_between_pages_lose_nothing(btp: Btp) -> None:
    ids = [btp.instance(f"i{number}") for number in range(5)]
    first = btp.manager("GET", f"{INSTANCES}?max_items=4").data()
    assert btp.manager("DELETE", f"{INSTANCES}/{ids[0]}?async=false").status == 200
    second = btp.manager("GET", f"{INSTANCES}?max_items=4&token={first['token']}").data()
    assert [row["name"] for row in second["items"]] == ["i2", "i3", "i4"]


def test_page_size_and_its_cap() -> None:
    btp = Btp(settings={"sm_page_size": 2, "sm_page_cap": 3})
    for number in range(4):
        btp.instance(f"i{number}")
    assert len(btp.manager("GET", INSTANCES).data()["items"]) == 2
    assert len(btp.manager("GET", f"{INSTANCES}?max_items=200").data()["items"]) == 3
    assert btp.manager("GET", f"{INSTANCES}?max_items=0").data() == {"num_items": 6}


def test_last_operations_are_attached_on_demand(btp: Btp) -> None:
    assert "last_operation" not in btp.manager("GET", INSTANCES).data()["items"][0]
    rows = btp.manager("GET", f"{INSTANCES}?attach_last_operations=true").data()["items"]
    assert [row["last_operation"]["state"] for row in rows] == ["succeeded", "failed"]
    one = btp.manager("GET", f"{INSTANCES}/{rows[0]['id']}").data()
    assert one["last_operation"]["type"] == "create"
    assert one["last_operation"]["deletion_scheduled"] == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name eq 'afc'", ["afc"]),
        ("name ne 'afc'", ["broken"]),
        ("name in ('afc', 'x')", ["afc"]),
        ("name in ('afc','broken')", ["afc", "broken"]),
        ("name in ()", []),
        ("name notin ('afc')", ["broken"]),
        ("name contains 'rok'", ["broken"]),
        ("ready eq true", ["afc"]),
        ("ready eq 'false'", ["broken"]),
        ("ready eq true and name eq 'broken'", []),
        ("created_at gt 2025-01-01T00:00:00Z and created_at lt 2027-01-01T00:00:00.5Z", ["afc", "broken"]),
        ("created_at le 2025-01-01T00:00:00Z", []),
        ("dashboard_url en 'x'", []),
        ("name eq 'O''Brien'", []),
    ],
)
def test_field_queries(btp: Btp, query: str, names: list[str]) -> None:
    answer = btp.manager("GET", f"{INSTANCES}?fieldQuery={quote(query)}")
    assert [row["name"] for row in answer.data()["items"]] == names


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("owner eq 'x'", ["afc"]),
        ("owner eq 'x' and stage eq 'test'", ["afc"]),
        ("owner ne 'x'", []),
        ("stage in ('test', 'prod')", ["afc"]),
        ("stage contains 'es'", ["afc"]),
        ("nothing eq 'x'", []),
    ],
)
def test_label_queries(btp: Btp, query: str, names: list[str]) -> None:
    answer = btp.manager("GET", f"{INSTANCES}?labelQuery={quote(query)}")
    assert [row["name"] for row in answer.data()["items"]] == names
    nobody = quote("name eq 'zz'")
    both = btp.manager("GET", f"{INSTANCES}?labelQuery={quote(query)}&fieldQuery={nobody}")
    assert both.data()["items"] == []


def test_query_values() -> None:
    (found,) = parse("name eq 'it''s'", labels=False)
    assert found.values == ("it's",)
    (nil,) = parse("name en 'x'", labels=False)
    assert holds(nil, None)
    (more,) = parse("amount ge 2.5", labels=False)
    assert [holds(more, value) for value in (2, 2.5, "3", "x", None)] == [False, True, True, False, False]
    with pytest.raises(QueryError):
        parse("name eq 'x' and", labels=False)


# Instances


def test_synchronous_broker_answers_201(btp: Btp) -> None:
    made = btp.manager("POST", INSTANCES, {"name": "a", **CONFIG, "labels": {"k": ["v", "v"]}})
    assert made.status == 201
    data = made.data()
    assert (data["ready"], data["usable"], data["protected"]) == (True, True, None)
    assert data["labels"] == {"subaccount_id": [btp.prod], "k": ["v"]}
    assert data["context"]["region"] == "cf-eu10"
    assert data["context"]["instance_name"] == "a"
    assert data["platform_id"] == "service-manager"
    assert data["last_operation"]["resource_type"] == INSTANCES
    assert "parameters" not in data
    assert btp.manager("GET", f"{INSTANCES}/{data['id']}").data() == data


def test_asynchronous_broker_answers_202(btp: Btp) -> None:
    answer = btp.manager("POST", INSTANCES, {"name": "a", **SLOW})
    assert (answer.status, answer.data()) == (202, {})
    location = answer.header("Location") or ""
    guid = location.split("/")[3]
    row = btp.manager("GET", f"{INSTANCES}/{guid}").data()
    assert (row["ready"], row["usable"]) == (False, False)
    assert (row["last_operation"]["state"], row["last_operation"]["reschedule"]) == ("in progress", True)
    assert btp.follow(answer)["state"] == "succeeded"
    row = btp.manager("GET", f"{INSTANCES}/{guid}").data()
    assert (row["ready"], row["usable"], row["last_operation"]["reschedule"]) == (True, True, False)


def test_async_true_is_always_202(btp: Btp) -> None:
    for wish in ("true", "yes", "1"):
        answer = btp.manager("POST", f"{INSTANCES}?async={wish}", {"name": f"a{wish}", **CONFIG})
        assert btp.follow(answer)["type"] == "create"
    assert btp.manager("POST", f"{INSTANCES}?async=", {"name": "b", **CONFIG}).status == 201


def test_async_false_waits(btp: Btp) -> None:
    assert btp.manager("POST", f"{INSTANCES}?async=false", {"name": "a", **SLOW}).status == 201


def test_async_false_can_outlast_the_gateway() -> None:
    btp = Btp(settings={"delays": {"provision": 40}})
    answer = btp.manager("POST", f"{INSTANCES}?async=false", {"name": "a", **SLOW})
    assert answer.status == 504
    guid = btp.named("service_instances", "a")["id"]
    states = {btp.manager("GET", f"{INSTANCES}/{guid}").data()["ready"] for _ in range(42)}
    assert states == {False, True}  # it went on by itself


def test_failed_synchronous_create_leaves_nothing(btp: Btp) -> None:
    body = {
        "name": "a",
        "service_offering_name": "apimanagement-apiportal",
        "service_plan_name": "apiportal-apiaccess",
        "parameters": {"role": "APIportal.Administrator"},
    }
    answer = btp.manager("POST", INSTANCES, body)
    assert answer.status == 502
    error = answer.data()
    assert error["error"] == "BrokerError"
    assert error["broker_error"]["StatusCode"] == 400
    assert "invalid role creation" in error["broker_error"]["Description"]
    query = quote("name eq 'a'")
    assert btp.manager("GET", f"{INSTANCES}?fieldQuery={query}").data()["items"] == []
    good = {**body, "parameters": {"role": "APIPortal.Guest"}}
    assert btp.manager("POST", INSTANCES, good).status == 201


@pytest.mark.parametrize("status", [422, "async"])
def test_failed_asynchronous_create_stays(status: Any) -> None:
    btp = Btp(settings={"broker_failures": [{"verb": "provision", "status": status, "description": "no"}]})
    operation = btp.follow(btp.manager("POST", f"{INSTANCES}?async=true", {"name": "a", **SLOW}))
    assert operation["state"] == "failed"
    assert operation["errors"]["error"] == "BrokerError"
    row = btp.named("service_instances", "a")
    assert (row["ready"], row["usable"]) == (False, False)
    again = btp.manager("POST", INSTANCES, {"name": "a", **SLOW})
    assert (again.status, again.data()["error"]) == (409, "Conflict")
    assert btp.manager("DELETE", f"{INSTANCES}/{row['id']}").status == 200
    assert btp.manager("POST", INSTANCES, {"name": "a", **SLOW}).status == 202


def test_update_of_everything(btp: Btp) -> None:
    guid = btp.instance("a", parameters={"x": 1}, labels={"k": ["1"]})
    large = btp.plan_id("sandbox-config", "large")
    changes = [{"op": "add", "key": "new", "values": ["v"]}, {"op": "remove", "key": "k"}]
    body = {"name": "b", "service_plan_id": large, "parameters": {"y": 2}, "labels": changes}
    answer = btp.manager("PATCH", f"{INSTANCES}/{guid}", body)
    assert answer.status == 200
    data = answer.data()
    assert (data["name"], data["service_plan_id"]) == ("b", large)
    assert data["labels"] == {"subaccount_id": [btp.prod], "new": ["v"]}
    assert data["last_operation"]["type"] == "update"
    assert btp.manager("GET", f"{INSTANCES}/{guid}/parameters").data() == {"y": 2}


def test_asynchronous_update_shows_nothing_until_it_is_done(btp: Btp) -> None:
    guid = btp.instance("a", "sandbox-slow", parameters={"x": 1})
    answer = btp.manager("PATCH", f"{INSTANCES}/{guid}", {"name": "b", "parameters": {"x": 2}})
    assert answer.status == 202
    row = btp.manager("GET", f"{INSTANCES}/{guid}").data()
    assert (row["name"], row["ready"], row["usable"]) == ("a", True, True)
    assert btp.manager("PATCH", f"{INSTANCES}/{guid}", {"name": "c"}).status == 422
    assert btp.follow(answer)["state"] == "succeeded"
    assert btp.manager("GET", f"{INSTANCES}/{guid}").data()["name"] == "b"


def test_failed_update_changes_nothing() -> None:
    btp = Btp(settings={"broker_failures": [{"verb": "update", "status": "async", "times": 1}]})
    guid = btp.instance("a", parameters={"x": 1})
    answer = btp.manager("PATCH", f"{INSTANCES}/{guid}", {"name": "b", "parameters": {"x": 2}})
    assert btp.follow(answer)["state"] == "failed"
    row = btp.manager("GET", f"{INSTANCES}/{guid}").data()
    assert (row["name"], row["ready"]) == ("a", True)
    assert btp.manager("GET", f"{INSTANCES}/{guid}/parameters").data() == {"x": 1}


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ([{"op": "add_values", "key": "k", "values": ["b"]}], {"k": ["a", "b"]}),
        ([{"op": "remove_values", "key": "k", "values": ["a"]}], {}),
        ([{"op": "add", "key": "k", "values": ["a"]}], {"k": ["a"]}),
        ([{"op": "remove", "key": "none"}], {"k": ["a"]}),
        ([{"op": "remove", "key": "k"}, {"op": "add", "key": "k", "values": ["z"]}], {"k": ["z"]}),
    ],
)
def test_label_changes(btp: Btp, changes: list[Any], labels: dict[str, list[str]]) -> None:
    guid = btp.instance("a", labels={"k": ["a"]})
    answer = btp.manager("PATCH", f"{INSTANCES}/{guid}", {"labels": changes})
    assert answer.data()["labels"] == {"subaccount_id": [btp.prod], **labels}


def test_deletion_under_way(btp: Btp) -> None:
    guid = btp.instance("a", "sandbox-slow")
    answer = btp.manager("DELETE", f"{INSTANCES}/{guid}")
    assert answer.status == 202
    assert btp.manager("DELETE", f"{INSTANCES}/{guid}").data()["error"] == "ConcurrentOperationInProgress"
    bound = btp.manager("POST", BINDINGS, {"name": "k", "service_instance_id": guid})
    assert bound.status in {404, 422}
    assert btp.follow(answer)["state"] == "succeeded"
    gone = btp.manager("GET", f"{INSTANCES}/{guid}")
    assert (gone.status, gone.data()["description"]) == (404, "could not find such /v1/service_instances")
    assert btp.manager("GET", answer.header("Location") or "").data()["state"] == "succeeded"


@pytest.mark.parametrize("verb", ["update", "deprovision"])
def test_failed_synchronous_change_is_remembered(verb: str) -> None:
    btp = Btp(settings={"broker_failures": [{"verb": verb, "status": 503, "description": "later"}]})
    guid = btp.instance("a")
    method, body = ("PATCH", {"parameters": {"x": 1}}) if verb == "update" else ("DELETE", None)
    refused = btp.manager(method, f"{INSTANCES}/{guid}", body)
    assert (refused.status, refused.data()["broker_error"]["StatusCode"]) == (502, 503)
    row = btp.manager("GET", f"{INSTANCES}/{guid}").data()
    assert (row["ready"], row["last_operation"]["state"]) == (True, "failed")
    assert row["last_operation"]["errors"]["error"] == "BrokerError"
    assert btp.manager(method, f"{INSTANCES}/{guid}", body).status == 200


def test_operations_can_go_with_their_instance() -> None:
    btp = Btp(settings={"sm_deleted_operations": "gone"})
    guid = btp.instance("a")
    answer = btp.manager("DELETE", f"{INSTANCES}/{guid}?async=true")
    statuses = [btp.manager("GET", answer.header("Location") or "").status for _ in range(3)]
    assert statuses[-1] == 404


def test_deletion_may_overtake_a_creation(btp: Btp) -> None:
    answer = btp.manager("POST", INSTANCES, {"name": "a", **SLOW})
    guid = (answer.header("Location") or "").split("/")[3]
    assert btp.follow(btp.manager("DELETE", f"{INSTANCES}/{guid}"))["state"] == "succeeded"
    assert btp.manager("GET", f"{INSTANCES}/{guid}").status == 404
    assert btp.manager("GET", answer.header("Location") or "").data()["state"] == "failed"


@pytest.mark.parametrize("status", [400, 409])
def test_instance_with_bindings_stays(status: int) -> None:
    btp = Btp(settings={"sm_instance_with_bindings": status})
    guid = btp.named("service_instances", "afc")["id"]
    answer = btp.manager("DELETE", f"{INSTANCES}/{guid}")
    assert answer.status == status
    assert "1 existing bindings" in answer.data()["description"]


def test_parameters_only_where_readable(btp: Btp) -> None:
    guid = btp.instance("a", parameters={"x": {"y": [1]}})
    assert btp.manager("GET", f"{INSTANCES}/{guid}/parameters").data() == {"x": {"y": [1]}}
    bound = btp.binding("k", guid, parameters={"z": 1})
    assert btp.manager("GET", f"{BINDINGS}/{bound['id']}/parameters").data() == {"z": 1}
    afc = btp.named("service_instances", "afc")["id"]
    refused = btp.manager("GET", f"{INSTANCES}/{afc}/parameters")
    assert refused.data() == {"error": "BadRequest", "description": "this operation is not supported."}


def test_sharing() -> None:
    metadata = {"plans": {"standard": {"metadata": {"supportsInstanceSharing": True}}}}
    btp = Btp(settings={"offerings": {"sandbox-config": metadata}})
    guid = btp.instance("a")
    assert btp.manager("PATCH", f"{INSTANCES}/{guid}", {"shared": True}).data()["shared"] is True
    afc = btp.named("service_instances", "afc")["id"]
    refused = btp.manager("PATCH", f"{INSTANCES}/{afc}", {"shared": True})
    assert "does not support instance sharing" in refused.data()["description"]


def test_instances_of_cloud_foundry_are_listed_under_another_platform(btp: Btp) -> None:
    twin = {"name": "afc", "service": "afc-api-service", "plan": "standard", "space": "apis"}
    spec = {**btp.document["subaccounts"]["prod"], "instances": [{"runtime": "cloudfoundry", **twin}]}
    btp.sandbox.seed({"subaccounts": {"prod": spec}})
    query = quote("name eq 'afc'")
    rows = btp.manager("GET", f"{INSTANCES}?fieldQuery={query}").data()["items"]
    assert sorted(row["platform_id"] == "service-manager" for row in rows) == [False, True]
    foreign = next(row for row in rows if row["platform_id"] != "service-manager")
    assert btp.manager("GET", f"{INSTANCES}/{foreign['id']}").status == 200
    assert btp.manager("DELETE", f"{INSTANCES}/{foreign['id']}").status == 400
    mine = quote("name eq 'afc' and platform_id eq 'service-manager'")
    assert btp.manager("GET", f"{INSTANCES}?fieldQuery={mine}").data()["num_items"] == 1


# Bindings


def test_binding_brings_credentials_everywhere(btp: Btp) -> None:
    guid = btp.named("service_instances", "afc")["id"]
    made = btp.manager("POST", BINDINGS, {"name": "k2", "service_instance_id": guid, "labels": {"a": ["b"]}})
    assert made.status == 201
    key = made.data()["credentials"]["uaa"]
    assert btp.manager("GET", f"{BINDINGS}/{made.data()['id']}").data()["credentials"]["uaa"] == key
    assert btp.named("service_bindings", "k2")["credentials"]["uaa"] == key
    query = quote(f"service_instance_id eq '{guid}'")
    names = [row["name"] for row in btp.manager("GET", f"{BINDINGS}?fieldQuery={query}").data()["items"]]
    assert names == ["k1", "k2"]
    assert made.data()["context"]["service_instance_id"] == guid


def test_binding_of_a_slow_service(btp: Btp) -> None:
    guid = btp.instance("a", "sandbox-slow")
    answer = btp.manager("POST", BINDINGS, {"name": "k", "service_instance_id": guid})
    row = btp.manager("GET", (answer.header("Location") or "").split("/operations/")[0]).data()
    assert (row["ready"], "credentials" in row) == (False, False)
    assert btp.follow(answer)["state"] == "succeeded"
    assert "password" in btp.named("service_bindings", "k")["credentials"]


def test_rename_and_rotate(btp: Btp) -> None:
    guid = btp.named("service_instances", "afc")["id"]
    old = btp.named("service_bindings", "k1")
    assert btp.manager("PATCH", f"{BINDINGS}/{old['id']}", {"name": "k1-old"}).status == 200
    new = btp.binding("k1", guid)
    secrets = [row["credentials"]["uaa"] for row in (old, new)]
    for key in secrets:
        assert btp.post_token(key["clientid"], key["clientsecret"], key["url"]).status == 200
    assert btp.manager("DELETE", f"{BINDINGS}/{old['id']}?async=false").data() == {}
    statuses = [btp.post_token(key["clientid"], key["clientsecret"], key["url"]).status for key in secrets]
    assert statuses == [401, 200]


def test_labels_of_a_binding(btp: Btp) -> None:
    bound = btp.named("service_bindings", "k1")
    changes = [{"op": "add", "key": "state", "values": ["stale"]}]
    answer = btp.manager("PATCH", f"{BINDINGS}/{bound['id']}", {"labels": changes})
    assert answer.data()["labels"] == {
        "subaccount_id": [btp.prod],
        "made-by": ["seed"],
        "state": ["stale"],
    }
    query = quote("made-by eq 'seed' and state eq 'stale'")
    assert btp.manager("GET", f"{BINDINGS}?labelQuery={query}").data()["num_items"] == 1


def test_failed_binding_stays_when_it_was_asynchronous() -> None:
    btp = Btp(settings={"broker_failures": [{"verb": "bind", "status": "async", "description": "no"}]})
    guid = btp.instance("a", "sandbox-slow")
    answer = btp.manager("POST", BINDINGS, {"name": "k", "service_instance_id": guid})
    assert btp.follow(answer)["state"] == "failed"
    row = btp.named("service_bindings", "k")
    assert (row["ready"], "credentials" in row) == (False, False)
    assert btp.manager("DELETE", f"{BINDINGS}/{row['id']}").status == 200


# Callers


def test_another_subaccount_sees_nothing(btp: Btp) -> None:
    key = btp.access["service_manager"][btp.ids["managed"]]
    token = btp.token(key)
    assert btp.manager("GET", INSTANCES, token=token).data()["num_items"] == 0
    guid = btp.named("service_instances", "afc")["id"]
    assert btp.manager("GET", f"{INSTANCES}/{guid}", token=token).status == 404
    assert btp.manager("DELETE", f"{INSTANCES}/{guid}", token=token).status == 404


def test_a_container_sees_only_its_own(btp: Btp) -> None:
    token = btp.token(btp.key("service-manager", "container"))
    assert btp.manager("GET", INSTANCES, token=token).data()["num_items"] == 0
    assert btp.manager("POST", INSTANCES, {"name": "mine", **CONFIG}, token=token).status == 201
    assert btp.manager("GET", INSTANCES, token=token).data()["num_items"] == 1
    assert btp.manager("GET", INSTANCES).data()["num_items"] == 3


def test_auditor_reads_only(btp: Btp) -> None:
    token = btp.token(btp.key("service-manager", "subaccount-audit"))
    assert btp.manager("GET", BINDINGS, token=token).status == 200
    assert btp.manager("POST", INSTANCES, {"name": "a", **CONFIG}, token=token).status == 403


def test_addresses_in_credentials_are_those_of_the_door(btp: Btp) -> None:
    token = btp.token(btp.access["service_manager"][btp.prod])
    request = Request.of(
        "GET",
        MANAGER,
        BINDINGS,
        headers={"Authorization": f"Bearer {token}"},
        url=lambda host, path: f"http://127.0.0.1:1/{host}{path}",
    )
    key = btp.sandbox.handle(request).data()["items"][0]["credentials"]
    assert key["uaa"]["url"] == "http://127.0.0.1:1/prod-x1.authentication.eu10.hana.ondemand.com"


def test_what_smctl_asks_for(btp: Btp) -> None:
    info = btp.send("GET", MANAGER, "/v1/info").data()
    assert info == {
        "token_issuer_url": "https://prod-x1.authentication.eu10.hana.ondemand.com",
        "token_basic_auth": True,
    }
    host = info["token_issuer_url"].removeprefix("https://")
    found = btp.send("GET", host, "/.well-known/openid-configuration").data()
    assert found["token_endpoint"] == info["token_issuer_url"] + "/oauth/token"
    offering = btp.manager("GET", "/v1/service_offerings").data()["items"][0]
    broker = btp.manager("GET", f"/v1/service_brokers/{offering['broker_id']}").data()
    assert broker["name"].endswith("-broker")
    assert btp.manager("GET", "/v1/visibilities").data() == {"num_items": 0, "items": []}
    assert btp.manager("GET", "/v1/agents/versions").status == 200
    assert btp.send("GET", MANAGER, "/v1/monitor/health").data() == {"status": "UP"}


def test_the_way_of_smctl_through_the_socket() -> None:
    """Log in, provision, bind, list, get, unbind, deprovision, with the requests that ``smctl`` sends."""
    sandbox = Sandbox()
    sandbox.seed(WORLD)
    with serve(sandbox) as served, requests.Session() as http:
        http.trust_env = False
        key = next(iter(served.access()["service_manager"].values()))
        base = key["sm_url"]
        info = http.get(f"{base}/v1/info").json()
        found = http.get(f"{info['token_issuer_url']}/.well-known/openid-configuration").json()
        name, secret = (quote(key[field], safe="") for field in ("clientid", "clientsecret"))
        form = {"grant_type": "client_credentials"}
        # the OAuth library of Go tries the header first, with both halves encoded, and then the body
        assert http.post(found["token_endpoint"], data=form, auth=(name, secret)).status_code == 401
        form |= {"client_id": key["clientid"], "client_secret": key["clientsecret"]}
        token = http.post(found["token_endpoint"], data=form).json()["access_token"]
        http.headers.update({"Authorization": f"Bearer {token}", "Content-Type": "application/json"})

        def one(kind: str, query: str) -> dict[str, Any]:
            (row,) = http.get(f"{base}/v1/{kind}?{urlencode({'fieldQuery': query})}").json()["items"]
            return dict(row)

        def done(answer: requests.Response) -> None:
            assert answer.status_code == 202
            where = base + answer.headers["Location"]
            assert [http.get(where).json()["state"] for _ in range(2)][-1] == "succeeded"

        offering = one("service_offerings", "name eq 'sandbox-slow'")
        plan = one("service_plans", f"name eq 'standard' and service_offering_id eq '{offering['id']}'")
        body: dict[str, Any] = {"name": "s1", "service_plan_id": plan["id"], "parameters": {"a": 1}}
        done(http.post(f"{base}{INSTANCES}?async=true", json=body))
        instance = one("service_instances", "name eq 's1'")
        body = {"name": "b1", "service_instance_id": instance["id"]}
        done(http.post(f"{base}{BINDINGS}?async=true", json=body))
        bound = one("service_bindings", f"name eq 'b1' and service_instance_id eq '{instance['id']}'")
        assert bound["credentials"]["url"].startswith("http://127.0.0.1:")
        assert http.get(f"{base}{INSTANCES}/{instance['id']}/parameters").json() == {"a": 1}
        first = http.get(f"{base}{BINDINGS}?max_items=1")
        second = http.get(first.links["next"]["url"]).json()
        assert [row["name"] for row in second["items"]] == ["b1"]
        done(http.delete(f"{base}{BINDINGS}/{bound['id']}?async=true"))
        done(http.delete(f"{base}{INSTANCES}/{instance['id']}?async=true"))
        assert http.get(f"{base}{INSTANCES}/{instance['id']}").status_code == 404


def test_time_can_be_counted_in_seconds() -> None:
    btp = Btp(time="seconds", settings={"delays": {"provision": 50, "entitlement": 50, "visibility": 50}})
    answer = btp.manager("POST", INSTANCES, {"name": "a", **SLOW})
    location = answer.header("Location") or ""
    btp.assign("transport", "standard", enable=True)
    for _ in range(5):
        assert btp.manager("GET", location).data()["state"] == "in progress"
        row = btp.state("transport", "standard")
        assert row is not None
        assert row["entityState"] in {"STARTED", "PROCESSING"}
    with btp.sandbox.hold() as world:
        world.advance(51)
    assert btp.manager("GET", location).data()["state"] == "succeeded"
    row = btp.settled("transport", "standard")
    assert row is not None
    assert row["entityState"] == "OK"
    names = {item["name"] for item in btp.manager("GET", "/v1/service_offerings").data()["items"]}
    assert "transport" not in names
    with btp.sandbox.hold() as world:
        world.advance(51)
    assert btp.plan_id("transport", "standard")


def test_platforms(btp: Btp) -> None:
    made = btp.manager("POST", "/v1/platforms", {"name": "k8s", "type": "kubernetes"})
    assert made.status == 201
    assert set(made.data()["credentials"]["basic"]) == {"username", "password"}
    assert btp.manager("POST", "/v1/platforms", {"name": "k8s", "type": "kubernetes"}).status == 409
    listed = btp.manager("GET", "/v1/platforms").data()["items"]
    assert [("credentials" in row, row["name"]) for row in listed] == [(False, "k8s")]
    assert btp.manager("DELETE", f"/v1/platforms/{made.data()['id']}").data() == {}
    assert btp.manager("GET", f"/v1/platforms/{made.data()['id']}").status == 404


@pytest.mark.parametrize("style", ["http-date", "go", "seconds", "none"])
def test_rate_limit_of_creations(style: str) -> None:
    btp = Btp(settings={"sm_limits": {"create": [[3, 60]]}, "sm_retry_after": style})
    statuses = [btp.manager("POST", INSTANCES, {"name": f"i{n}", **CONFIG}).status for n in range(4)]
    assert statuses == [201, 201, 201, 429]
    refused = btp.manager("POST", INSTANCES, {"name": "x", **CONFIG})
    assert "error" not in refused.data()
    text = refused.header("Retry-After")
    if style == "http-date":
        assert email.utils.parsedate_to_datetime(text or "").year == 2026
    elif style == "go":
        assert (text or "").endswith(" +0000 UTC")
    elif style == "seconds":
        assert 0 < int(text or "0") <= 61
    else:
        assert text is None
    assert btp.manager("GET", INSTANCES).status == 200
    with btp.sandbox.hold() as world:
        world.advance(61)
    assert btp.manager("POST", INSTANCES, {"name": "x", **CONFIG}).status == 201


def test_seeded_and_made_things_look_alike(btp: Btp) -> None:
    other = Btp(document={"subaccounts": {"prod": {**btp.document["subaccounts"]["prod"], "instances": []}}})
    body = {
        "name": "afc",
        "service_offering_name": "afc-api-service",
        "service_plan_name": "standard",
        "labels": {"owner": ["x"], "stage": ["dev", "test"]},
    }
    other.assign("afc-api-service", "standard", enable=True)
    other.settled("afc-api-service", "standard")
    for _ in range(3):
        other.manager("GET", "/v1/service_plans")
    guid = other.manager("POST", INSTANCES, body).data()["id"]
    other.binding("k1", guid, labels={"made-by": ["seed"]})
    made = other.sandbox.snapshot()["service_manager"]["prod"]["afc"]
    assert made == btp.sandbox.snapshot()["service_manager"]["prod"]["afc"]
    json.dumps(made)


def test_large_subaccounts_stay_quick() -> None:
    keys = [{"name": "k1"}, {"name": "k2"}]
    many = [
        {"runtime": "other", "name": f"i{n}", "service": "afc-api-service", "plan": "standard", "keys": keys}
        for n in range(1000)
    ]
    btp = Btp(document={"subaccounts": {"prod": {"region": "eu10", "instances": many}}})
    btp.manager("GET", f"{BINDINGS}?max_items=1")
    query = quote("name eq 'k1' and ready eq true")
    for target in (
        f"{INSTANCES}?max_items=200&attach_last_operations=true",
        f"{BINDINGS}?max_items=200&fieldQuery={query}",
    ):
        times = []
        for _ in range(3):
            start = time.thread_time()
            assert len(btp.manager("GET", target).data()["items"]) == 200
            times.append(time.thread_time() - start)
        assert min(times) < 0.1


@pytest.mark.parametrize("verb", ["create", "update", "delete"])
def test_seeded_operations_in_progress_come_to_an_end(verb: str) -> None:
    last = {"type": verb, "state": "in progress"}
    spec = {"runtime": "other", "name": "a", "service": "sandbox-slow", "plan": "standard"}
    keys = [] if verb == "delete" else [{"name": "k", "last_operation": last}]
    instance = {**spec, "last_operation": last, "keys": keys}
    btp = Btp(document={"subaccounts": {"prod": {"instances": [instance]}}})
    rows = btp.manager("GET", f"{INSTANCES}?attach_last_operations=true").data()["items"]
    assert (rows[0]["last_operation"]["state"], rows[0]["ready"]) == ("in progress", verb != "create")
    for _ in range(3):
        rows = btp.manager("GET", f"{INSTANCES}?attach_last_operations=true").data()["items"]
    if verb == "delete":
        assert rows == []
    else:
        assert (rows[0]["last_operation"]["state"], rows[0]["ready"]) == ("succeeded", True)
        assert "credentials" in btp.named("service_bindings", "k")


def test_seeding_adds_missing_keys_and_refuses_nonsense(btp: Btp) -> None:
    spec = btp.document["subaccounts"]["prod"]
    afc = {**spec["instances"][0], "keys": [{"name": "k1"}, {"name": "k2"}]}
    btp.sandbox.seed({"subaccounts": {"prod": {**spec, "instances": [afc]}}})
    names = [row["name"] for row in btp.manager("GET", BINDINGS).data()["items"]]
    assert names == ["k1", "k2"]
    for change in ({"service": "nothing"}, {"plan": "nothing"}):
        with pytest.raises(LookupError):
            btp.sandbox.seed(
                {"subaccounts": {"prod": {**spec, "instances": [{**afc, **change, "name": "n"}]}}}
            )


@pytest.mark.parametrize("wish", ["", "?async=true", "?async=false"])
def test_a_binding_that_cannot_be_removed_stays(wish: str) -> None:
    btp = Btp(settings={"broker_failures": [{"verb": "unbind", "status": 500, "description": "later"}]})
    guid = btp.named("service_bindings", "k1")["id"]
    answer = btp.manager("DELETE", f"{BINDINGS}/{guid}{wish}")
    if wish == "?async=true":
        assert btp.follow(answer)["state"] == "failed"
    else:
        assert answer.data()["error"] == "BrokerError"
    row = btp.manager("GET", f"{BINDINGS}/{guid}").data()
    assert (row["ready"], row["last_operation"]["state"]) == (True, "failed")
    key = row["credentials"]["uaa"]
    assert btp.post_token(key["clientid"], key["clientsecret"], key["url"]).status == 200
