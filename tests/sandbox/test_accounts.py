"""The Accounts Service."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from btp_reconcile.sandbox import Request, Sandbox
from tests.sandbox.btp_client import WORLD, Btp

LIST = "/accounts/v1/subaccounts"


@pytest.fixture
def btp() -> Btp:
    return Btp()


def test_managed_parent_is_told_in_single_reads_only(btp: Btp) -> None:
    listed = btp.central("GET", LIST).data()["value"]
    assert len(listed) == 3
    assert not any("closestEntitlementManagedParentGUID" in row for row in listed)
    found = btp.central("GET", f"{LIST}/{btp.prod}").data()
    assert found["closestEntitlementManagedParentGUID"] == btp.account
    assert (found["parentType"], "parentFeatures" in found) == ("ROOT", False)
    below = btp.central("GET", f"{LIST}/{btp.ids['managed']}").data()
    assert below["closestEntitlementManagedParentGUID"] == btp.directories["finance"]
    assert (below["parentType"], below["parentFeatures"]) == (
        "PROJECT",
        ["DEFAULT", "ENTITLEMENTS", "AUTHORIZATIONS"],
    )


def test_dates_are_milliseconds_and_missing_labels_are_missing(btp: Btp) -> None:
    rows = {row["displayName"]: row for row in btp.central("GET", LIST).data()["value"]}
    assert isinstance(rows["prod"]["createdDate"], int)
    assert rows["prod"]["createdDate"] > 10**12
    assert "labels" not in rows["other"]
    assert rows["prod"]["customProperties"][0] == {"accountGUID": btp.prod, "key": "stage", "value": "prod"}


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("stage=prod", ["prod"]),
        ("owner=b AND stage=prod", ["prod"]),
        ("owner=c", []),
        ("stage!=prod", ["managed", "other"]),
    ],
)
def test_label_selector(btp: Btp, selector: str, names: list[str]) -> None:
    found = btp.central("GET", f"{LIST}?labelSelector={quote(selector)}").data()["value"]
    assert [row["displayName"] for row in found] == names


def test_directory_filter(btp: Btp) -> None:
    found = btp.central("GET", f"{LIST}?directoryGUID={btp.directories['finance']}").data()["value"]
    assert [row["displayName"] for row in found] == ["managed"]


def test_creation_takes_its_time(btp: Btp) -> None:
    made = btp.central("POST", LIST, {"displayName": "new", "region": "eu10", "subdomain": "new-x1"})
    assert made.status == 201
    assert (made.data()["state"], made.data()["technicalName"]) == ("STARTED", "N/A")
    guid = made.data()["guid"]
    assert btp.central("GET", f"{LIST}/{guid}").data()["state"] == "CREATING"
    job = made.header("Location")
    assert job is not None
    for _ in range(5):
        status = btp.central("GET", job).data()["status"]
    assert status == "COMPLETED"
    found = btp.central("GET", f"{LIST}/{guid}").data()
    assert (found["state"], found["technicalName"]) == ("OK", guid)
    assert found["createdBy"].startswith("sb-")
    taken = btp.central("POST", LIST, {"displayName": "twin", "region": "eu10", "subdomain": "new-x1"})
    assert taken.status == 409


def test_labels_replace_the_whole_set(btp: Btp) -> None:
    changed = btp.central("PATCH", f"{LIST}/{btp.prod}", {"displayName": "prod", "labels": {"x": ["1"]}})
    assert changed.data()["labels"] == {"x": ["1"]}
    assert btp.central("PUT", f"{LIST}/{btp.prod}/labels", {"labels": {"y": ["2"]}}).status == 200
    assert btp.central("GET", f"{LIST}/{btp.prod}/labels").data() == {"labels": {"y": ["2"]}}
    assert btp.central("DELETE", f"{LIST}/{btp.prod}/labels").data() == {"labels": {}}


def test_deletion_ends_in_404(btp: Btp) -> None:
    gone = btp.central("DELETE", f"{LIST}/{btp.ids['other']}")
    assert (gone.status, gone.data()["state"]) == (200, "DELETING")
    assert btp.central("DELETE", f"{LIST}/{btp.ids['other']}").status == 409
    statuses = [btp.central("GET", f"{LIST}/{btp.ids['other']}").status for _ in range(4)]
    assert statuses[-1] == 404
    assert btp.central("GET", gone.header("Location") or "").data()["status"] == "COMPLETED"


def test_global_account_as_a_tree(btp: Btp) -> None:
    tree = btp.central("GET", "/accounts/v1/globalAccount?expand=true").data()
    assert {row["displayName"] for row in tree["subaccounts"]} == {"prod", "other"}
    finance = next(row for row in tree["children"] if row["displayName"] == "finance")
    assert finance["directoryType"] == "PROJECT"
    assert finance["parentGuid"] == finance["parentGUID"] == btp.account
    assert [row["displayName"] for row in finance["subaccounts"]] == ["managed"]
    assert "children" not in btp.central("GET", "/accounts/v1/globalAccount").data()
    one = btp.central("GET", f"/accounts/v1/directories/{btp.directories['plain']}").data()
    assert (one["directoryType"], one["directoryFeatures"]) == ("FOLDER", ["DEFAULT"])


def test_service_manager_binding_without_an_instance(btp: Btp) -> None:
    path = f"{LIST}/{btp.prod}/serviceManagementBinding"
    assert btp.central("GET", path).status == 404
    key = btp.central("POST", path)
    assert key.status == 201
    assert set(key.data()) == {"clientid", "clientsecret", "sm_url", "url", "xsappname"}
    assert btp.central("POST", path).status == 409
    assert btp.central("GET", path).data() == key.data()
    made = key.data()
    assert btp.post_token(made["clientid"], made["clientsecret"], made["url"]).status == 200
    assert btp.central("DELETE", path).status == 200
    assert btp.post_token(made["clientid"], made["clientsecret"], made["url"]).status == 401


def test_named_service_manager_bindings(btp: Btp) -> None:
    path = f"/accounts/v2/subaccounts/{btp.prod}/serviceManagerBindings"
    options = {
        "credential-type": "x509",
        "x509": {"validity": 7, "validity-type": "DAYS", "key-length": 2048},
    }
    first = btp.central("POST", path, {"name": "b1"})
    second = btp.central("POST", path, {"name": "b2", "parameters": options})
    assert (first.status, second.status) == (201, 201)
    assert {"clientsecret", "creationDate", "name"} <= set(first.data())
    assert {"certificate", "key", "certUrl"} <= set(second.data())
    assert "certurl" not in second.data()
    shown = second.data()
    form = f"grant_type=client_credentials&client_id={quote(shown['clientid'])}"
    for certificate, status in ((shown["certificate"].encode(), 200), (None, 401)):
        request = Request.of(
            "POST",
            shown["certUrl"].removeprefix("https://"),
            "/oauth/token",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=form.encode(),
            client_certificate=certificate,
        )
        assert btp.sandbox.handle(request).status == status
    assert btp.central("POST", path, {"name": "b1"}).status == 409
    assert [row["name"] for row in btp.central("GET", path).data()["items"]] == ["b1", "b2"]
    assert btp.central("GET", f"{path}/b1").data() == first.data()
    assert btp.central("DELETE", f"{path}/b1").status == 200
    assert btp.central("GET", f"{path}/b1").status == 404


def test_errors_can_be_unwrapped() -> None:
    btp = Btp(settings={"cis_errors": "unwrapped", "cis_gateway_errors": "html"})
    found = btp.central("GET", f"{LIST}/nothing")
    assert found.data()["code"] == 20004
    refused = btp.central("GET", LIST, token="x")
    assert refused.status == 401
    assert refused.body.startswith(b"<html>")


def test_derived_authorizations_are_content_with_any_token(btp: Btp) -> None:
    token = btp.token(btp.key("cis", "local", grantType="clientCredentials"))
    path = f"{LIST}/{btp.prod}"
    assert btp.central("GET", path, token=token).status == 403
    assert btp.central("GET", f"{path}?derivedAuthorizations=any", token=token).status == 200


def test_a_subaccount_may_be_about_to_go_though_its_state_is_ok() -> None:
    btp = Btp(document={"subaccounts": {"prod": {"contract": "PENDING_FORCED_DELETION"}}})
    found = btp.central("GET", f"{LIST}/{btp.prod}").data()
    assert (found["state"], found["contractStatus"]) == ("OK", "PENDING_FORCED_DELETION")
    assert found["forceDeleteTargetTime"] - found["forceDeleteRequestTime"] == 7 * 86400 * 1000


def test_password_key_needs_a_user() -> None:
    document = {**WORLD, "users": {"jane@acme.example": {"password": "p$w=1"}}}
    btp = Btp(document=document)
    uaa = btp.key("cis", "central")["uaa"]
    ask = (uaa["clientid"], uaa["clientsecret"], uaa["url"])
    assert btp.post_token(*ask).status == 401
    form = {"grant_type": "password", "username": "jane@acme.example"}
    assert btp.post_token(*ask, **form, password="wrong").status == 401
    answer = btp.post_token(*ask, **form, password="p$w=1")
    made = btp.central(
        "POST",
        LIST,
        {"displayName": "n", "region": "eu10", "subdomain": "n-x1"},
        token=answer.data()["access_token"],
    )
    assert made.data()["createdBy"] == "jane@acme.example"


def test_what_is_left_out_says_so(btp: Btp) -> None:
    answer = btp.central("POST", f"{LIST}/{btp.prod}/move", {})
    assert answer.status == 501
    assert b"/move" in answer.body


def test_rate_limit_of_an_endpoint() -> None:
    btp = Btp(settings={"cis_limits": {"requests": 2, "seconds": 60}})
    statuses = [btp.central("GET", LIST).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = btp.central("GET", LIST)
    assert refused.data()["error"]["code"] == 11006
    assert refused.data()["error"]["details"][0]["code"] == 11007
    assert int(refused.header("X-Ratelimit-Reset") or 0) > 10**12


def test_access_needs_no_seed_and_repeats_itself() -> None:
    sandbox = Sandbox()
    assert sandbox.access()["central"] == sandbox.access()["central"]
    assert sandbox.snapshot()["subaccounts"] == {}


def test_seeding_twice_changes_nothing(btp: Btp) -> None:
    before = btp.sandbox.snapshot()
    btp.sandbox.seed(btp.document)
    assert btp.sandbox.snapshot() == before
