"""The Entitlements Service and the subaccount's own view."""

from __future__ import annotations

import json

import pytest

from tests.sandbox.btp_client import ENTITLEMENTS, Btp

APIM = ("apimanagement-apiportal", "apiportal-apiaccess")
NEW = ("transport", "standard")


@pytest.fixture
def btp() -> Btp:
    return Btp()


def test_assignment_goes_through_its_states(btp: Btp) -> None:
    put = btp.assign(*NEW, enable=True)
    assert put.status == 202
    seen = []
    for _ in range(4):
        row = btp.state(*NEW)
        assert row is not None
        seen.append((row["entityState"], row["amount"], row["requestedAmount"]))
    assert seen == [("STARTED", None, 1), ("PROCESSING", None, 1), ("OK", 1, None), ("OK", 1, None)]
    job = btp.central("GET", put.header("Location") or "", host=ENTITLEMENTS)
    assert job.data()["status"] == "COMPLETED"
    assert btp.central("GET", put.header("Location") or "").status == 404  # another service's jobs


def test_looks_at_the_job_are_looks_too(btp: Btp) -> None:
    location = btp.assign(*NEW, enable=True).header("Location") or ""
    states = [btp.central("GET", location, host=ENTITLEMENTS).data()["status"] for _ in range(4)]
    assert (states[0], states[-1]) == ("IN_PROGRESS", "COMPLETED")


def test_without_delay_it_is_ok_at_once() -> None:
    btp = Btp(settings={"delays": {"entitlement": 0, "visibility": 0}})
    btp.assign(*NEW, enable=True)
    row = btp.state(*NEW)
    assert row is not None
    assert row["entityState"] == "OK"


def test_subaccount_is_locked_while_a_change_runs(btp: Btp) -> None:
    btp.assign(*NEW, enable=True)
    locked = btp.assign("transport", "export", enable=True)
    assert (locked.status, locked.data()["error"]["code"]) == (400, 30004)
    assert btp.assign("transport", "export", "other", enable=True).status == 202
    btp.settled(*NEW)
    assert btp.assign("transport", "export", enable=True).status == 202


def test_retrying_a_locked_change_gets_there(btp: Btp) -> None:
    btp.assign(*NEW, enable=True)
    statuses = [btp.assign("transport", "export", enable=True).status for _ in range(5)]
    assert 202 in statuses


def test_repeating_is_accepted(btp: Btp) -> None:
    assert btp.assign(*APIM, enable=True).status == 202
    row = btp.settled(*APIM)
    assert row is not None
    assert (row["entityState"], row["amount"]) == ("OK", 1)


def test_removal_takes_the_row_away(btp: Btp) -> None:
    assert btp.assign(*APIM, enable=False).status == 202
    assert btp.settled(*APIM) is None
    assert btp.assign(*APIM, enable=False).status == 202  # nothing there, nothing wrong
    assert btp.assign("APPLICATION_RUNTIME", "MEMORY", amount=0).status == 202
    assert btp.settled("APPLICATION_RUNTIME", "MEMORY") is None


def test_removal_with_instances_fails_without_an_http_error(btp: Btp) -> None:
    assert btp.assign("afc-api-service", "standard", enable=False).status == 202
    row = btp.settled("afc-api-service", "standard")
    assert row is not None
    assert (row["entityState"], row["amount"]) == ("PROCESSING_FAILED", 1)
    assert "1 service instance" in row["stateMessage"]
    assert btp.manager("GET", "/v1/service_instances?max_items=0").data()["num_items"] == 2


def test_ordered_failure_reserves_nothing() -> None:
    btp = Btp(settings={"entitlement_failures": [{"plan": "standard", "message": "no capacity"}]})
    location = btp.assign(*NEW, enable=True).header("Location") or ""
    row = btp.settled(*NEW)
    assert row is not None
    assert (row["entityState"], row["stateMessage"], row["amount"]) == (
        "PROCESSING_FAILED",
        "no capacity",
        None,
    )
    assert btp.central("GET", location, host=ENTITLEMENTS).data()["status"] == "FAILED"
    btp.assign(*NEW, enable=True)
    row = btp.settled(*NEW)
    assert row is not None
    assert row["entityState"] == "OK"


def test_numbers_count_down(btp: Btp) -> None:
    def left() -> tuple[float, float]:
        found = btp.assignments("?serviceName=APPLICATION_RUNTIME&planName=MEMORY")["entitledServices"]
        plan = found[0]["servicePlans"][0]
        return plan["amount"], plan["remainingAmount"]

    assert left() == (100.0, 96.0)
    btp.assign("APPLICATION_RUNTIME", "MEMORY", amount=90)
    assert left() == (100.0, 10.0)
    over = btp.assign("APPLICATION_RUNTIME", "MEMORY", "other", amount=11)
    assert (over.status, over.data()["error"]["code"]) == (409, 30009)
    assert btp.assign("APPLICATION_RUNTIME", "MEMORY", "other", amount=10).status == 202


def test_one_request_cannot_take_the_same_rest_twice(btp: Btp) -> None:
    infos = [{"subaccountGUID": btp.ids[name], "amount": 60} for name in ("prod", "other")]
    item = {"serviceName": "APPLICATION_RUNTIME", "servicePlanName": "MEMORY", "assignmentInfo": infos}
    answer = btp.central("PUT", "/entitlements/v1/subaccountServicePlans", {"subaccountServicePlans": [item]})
    assert answer.status == 409
    assert btp.state("APPLICATION_RUNTIME", "MEMORY", "other") is None


def test_elastic_plans_do_not_count(btp: Btp) -> None:
    found = btp.assignments(f"?serviceName={APIM[0]}&planName={APIM[1]}")
    plan = found["entitledServices"][0]["servicePlans"][0]
    assert (plan["category"], plan["amount"], plan["remainingAmount"]) == ("ELASTIC_SERVICE", 1.0, 1.0)
    assert plan["resources"] is None
    info = found["assignedServices"][0]["servicePlans"][0]["assignmentInfo"][0]
    assert (info["requestedAmount"], info["resources"], info["parentType"]) == (None, [], "GLOBAL_ACCOUNT")
    assert isinstance(info["amount"], int)


def test_unlimited_and_duplicate_plans() -> None:
    document = {
        "global_account": {
            "entitlements": {
                "s": {
                    "p": [{"unique_id": "s-p", "category": "SERVICE", "amount": 5}, {"unique_id": "4711"}],
                    "u": {"unlimited": True, "category": "SERVICE"},
                }
            }
        },
        "subaccounts": {"prod": {"region": "eu10"}},
    }
    btp = Btp(document=document)
    plans = btp.assignments("?serviceName=s&planName=p")["entitledServices"][0]["servicePlans"]
    assert [plan["uniqueIdentifier"] for plan in plans] == ["s-p", "4711"]
    ambiguous = btp.assign("s", "p", enable=True)
    assert (ambiguous.status, ambiguous.data()["error"]["code"]) == (400, 30001)
    assert btp.assign("s", "p", unique="4711", enable=True).status == 202
    btp.settled("s", "p")
    plan = btp.assignments("?serviceName=s&planName=u")["entitledServices"][0]["servicePlans"][0]
    assert (plan["amount"], plan["remainingAmount"], plan["unlimited"]) == (2000000000, None, True)
    assert btp.assign("s", "u", enable=True).status == 202


@pytest.mark.parametrize(("mode", "status"), [("refuse", 400), ("accept", 202), ("hang", 202)])
def test_a_number_for_an_elastic_plan(mode: str, status: int) -> None:
    btp = Btp(settings={"elastic_amount": mode})
    assert btp.assign(*NEW, amount=1).status == status
    states = [row["entityState"] for row in [btp.state(*NEW) for _ in range(8)] if row]
    assert states[-1:] == {"refuse": [], "accept": ["OK"], "hang": ["PROCESSING"]}[mode]


def test_only_one_subaccount_may_have_a_limited_plan() -> None:
    btp = Btp(settings={"categories": {"transport/standard": "ELASTIC_LIMITED"}})
    assert btp.assign(*NEW, enable=True).status == 202
    second = btp.assign(*NEW, subaccount="other", enable=True)
    assert (second.status, second.data()["error"]["code"]) == (409, 30009)


def test_automatic_plans_are_listed_on_demand_and_stay(btp: Btp) -> None:
    query = f"?subaccountGUID={btp.prod}&serviceName=service-manager&planName=container"
    assert btp.assignments(query)["assignedServices"] == []
    found = btp.assignments(query + "&includeAutoManagedPlans=true")["assignedServices"]
    assert found[0]["servicePlans"][0]["assignmentInfo"][0]["autoAssigned"] is True
    assert btp.assign("service-manager", "container", enable=True).status == 202
    refused = btp.assign("service-manager", "container", enable=False)
    assert refused.data()["error"]["code"] == 12003


def test_filters(btp: Btp) -> None:
    only = btp.assignments(f"?subaccountGUID={btp.prod}&assignedServiceName=cis")
    assert [row["name"] for row in only["assignedServices"]] == ["cis"]
    assert len(only["entitledServices"]) > 5
    assert "assignedServices" not in btp.assignments("?entitledServicesOnly=true")
    whole = btp.central("GET", "/entitlements/v1/globalAccountAssignments").data()
    ids = {
        info["entityId"]
        for row in whole["assignedServices"]
        for plan in row["servicePlans"]
        for info in plan["assignmentInfo"]
    }
    assert ids == {btp.prod}


def test_the_directory_trap(btp: Btp) -> None:
    directory = btp.directories["finance"]
    path = f"/entitlements/v1/directories/{directory}/assignments"
    entry = {"service": NEW[0], "plan": NEW[1], "enable": True}
    refused = btp.assign(*NEW, subaccount="managed", enable=True)
    assert (refused.status, refused.data()["error"]["code"]) == (409, 30009)
    assert btp.central("PUT", path, {"entitlements": [entry]}).status == 200
    assert btp.assign(*NEW, subaccount="managed", enable=True).status == 202
    alone = f"?subaccountGUID={btp.ids['managed']}"
    for _ in range(4):
        assert btp.assignments(alone)["assignedServices"] == []
    both = btp.assignments(f"{alone}&directoryGUID={directory}")
    info = both["assignedServices"][0]["servicePlans"][0]["assignmentInfo"][0]
    assert (info["entityState"], info["parentId"], info["parentType"]) == ("OK", directory, "DIRECTORY")
    assert [row["name"] for row in both["entitledServices"]] == ["transport"]
    update = {"service": NEW[0], "plan": NEW[1], "autoAssign": True, "distribute": True}
    assert btp.central("PATCH", path, {"entitlementUpdates": [update]}).status == 200


def test_numeric_quota_of_a_directory(btp: Btp) -> None:
    directory = btp.directories["finance"]
    path = f"/entitlements/v1/directories/{directory}/assignments"
    memory = {"service": "APPLICATION_RUNTIME", "plan": "MEMORY"}
    assert btp.central("PUT", path, {"entitlements": [{**memory, "amount": 97}]}).status == 409
    assert btp.central("PUT", path, {"entitlements": [{**memory, "amount": 10}]}).status == 200
    assert btp.assign("APPLICATION_RUNTIME", "MEMORY", "managed", amount=11).status == 409
    assert btp.assign("APPLICATION_RUNTIME", "MEMORY", "managed", amount=8).status == 202
    assert btp.central("PUT", path, {"entitlements": [{**memory, "amount": 7}]}).status == 409


def test_regions(btp: Btp) -> None:
    path = "/entitlements/v1/globalAccountAllowedDataCenters"
    names = [row["name"] for row in btp.central("GET", path).data()["datacenters"]]
    assert "cf-eu10" in names
    assert "cf-eu10-004" not in names
    found = btp.central("GET", f"{path}?region=eu10&includeSatelliteDataCenters=true").data()["datacenters"]
    assert {row["region"] for row in found} == {"eu10"}
    assert "cf-eu10-004" in [row["name"] for row in found]
    assert found[0]["provisioningServiceUrl"] == "https://provisioning-service.cfapps.eu10.hana.ondemand.com"


def test_marketplace_follows_after_a_while(btp: Btp) -> None:
    def listed() -> bool:
        items = btp.manager("GET", "/v1/service_plans?max_items=200").data()["items"]
        return any(item["description"] == "Export only." for item in items)

    btp.assign("transport", "export", enable=True)
    btp.settled("transport", "export")
    assert not listed()
    assert listed()
    btp.assign("transport", "export", enable=False)
    btp.settled("transport", "export")
    assert not listed()


def test_looks_at_the_marketplace_bring_the_assignment_on(btp: Btp) -> None:
    btp.assign("transport", "export", enable=True)
    counts = [btp.manager("GET", "/v1/service_plans?max_items=0").data()["num_items"] for _ in range(8)]
    assert counts[-1] == counts[0] + 1


def test_own_quota_with_a_local_key(btp: Btp) -> None:
    rows = btp.local("GET", "/provisioning/v1/servicePlanAssignments").data()["quotas"]
    found = {(row["service"], row["plan"]): row for row in rows}
    assert found["afc-api-service", "standard"]["consumedQuota"] == 1
    assert found["APPLICATION_RUNTIME", "MEMORY"]["quota"] == 4
    assert found["APPLICATION_RUNTIME", "MEMORY"]["serviceCategory"] == "PLATFORM"


@pytest.mark.parametrize("style", ["plain", "colon"])
def test_environment_is_json_in_json(style: str) -> None:
    btp = Btp(settings={"environment_labels": style})
    found = btp.local("GET", "/provisioning/v1/environments").data()["environmentInstances"]
    assert len(found) == 1
    labels = json.loads(found[0]["labels"])
    colon = ":" if style == "colon" else ""
    assert labels["Org Name"] == "acme-prod"
    assert labels[f"API Endpoint{colon}"] == "https://api.cf.eu10-004.hana.ondemand.com"
    assert labels[f"Org ID{colon}"] == found[0]["platformId"]
    assert json.loads(found[0]["parameters"])["instance_name"] == "acme-prod"
    assert found[0]["id"] == found[0]["id"].upper()
    assert found[0]["landscapeLabel"] == "cf-eu10-004"
    one = btp.local("GET", f"/provisioning/v1/environments/{found[0]['id'].lower()}")
    assert one.data() == found[0]
    with btp.sandbox.hold() as world:
        assert found[0]["platformId"] in world.table("cf.organizations")


@pytest.mark.parametrize(("style", "body"), [("string", b'"'), ("empty", b""), ("object", b'{"jobId"')])
def test_body_of_the_202_is_not_to_be_relied_on(style: str, body: bytes) -> None:
    btp = Btp(settings={"entitlement_answer": style})
    answer = btp.assign(*NEW, enable=True)
    assert answer.body.startswith(body)
    assert (answer.header("Location") or "").startswith("/jobs-management/v1/jobs/")
