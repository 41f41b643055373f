"""Service Manager keys made with a central key: section 3.3 of the API reference this project keeps."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from btp_reconcile.sandbox import Request, Response
from tests.sandbox.btp_client import MANAGER, Btp

NOBODY = "00000000-0000-4000-8000-000000000000"
SUBACCOUNTS = "/accounts/v1/subaccounts"
CERTIFICATE = {
    "credential-type": "x509",
    "x509": {"validity": 7, "validity-type": "DAYS", "key-length": 2048},
}


@pytest.fixture
def btp() -> Btp:
    return Btp()


def one(guid: str) -> str:
    return f"{SUBACCOUNTS}/{guid}/serviceManagementBinding"


def several(guid: str, name: str = "") -> str:
    path = f"/accounts/v2/subaccounts/{guid}/serviceManagerBindings"
    return f"{path}/{name}" if name else path


def works(btp: Btp, key: dict[str, Any]) -> None:
    """The key may read and make instances of its subaccount, as one of the plan subaccount-admin may."""
    token = btp.post_token(key["clientid"], key["clientsecret"], key["url"]).data()["access_token"]
    assert key["sm_url"] == f"https://{MANAGER}"
    body = {"name": "made", "service_offering_name": "sandbox-config", "service_plan_name": "standard"}
    made = btp.manager("POST", "/v1/service_instances?async=false", body, token=token)
    assert made.status == 201
    listed = btp.manager("GET", "/v1/service_instances", token=token).data()["items"]
    assert "made" in {item["name"] for item in listed}
    gone = btp.manager("DELETE", f"/v1/service_instances/{made.data()['id']}?async=false", token=token)
    assert gone.status == 200


def is_dead(btp: Btp, key: dict[str, Any]) -> bool:
    answer = btp.post_token(key["clientid"], key["clientsecret"], key["url"])
    return (answer.status, answer.data()["error"]) == (401, "invalid_client")


def test_3_3_the_binding_without_a_name_is_made_read_and_deleted(btp: Btp) -> None:
    made = btp.central("POST", one(btp.prod))
    assert made.status == 201
    assert made.data().keys() == {"clientid", "clientsecret", "sm_url", "url", "xsappname"}
    works(btp, made.data())
    again = btp.central("POST", one(btp.prod))
    assert (again.status, "error" in again.data()) == (409, True)
    assert btp.central("GET", one(btp.prod)).data() == made.data()
    assert btp.central("DELETE", one(btp.prod)).status == 200
    assert is_dead(btp, made.data())
    assert btp.central("GET", one(btp.prod)).status == 404
    assert btp.central("DELETE", one(btp.prod)).status == 404
    fresh = btp.central("POST", one(btp.prod))
    assert fresh.status == 201
    assert fresh.data()["clientid"] != made.data()["clientid"]


def test_3_3_named_bindings_stand_side_by_side_and_change_without_a_gap(btp: Btp) -> None:
    first = btp.central("POST", several(btp.prod), {"name": "b1"})
    second = btp.central("POST", several(btp.prod), {"name": "b2"})
    assert (first.status, second.status) == (201, 201)
    fields = {"name", "clientid", "clientsecret", "sm_url", "url", "xsappname", "creationDate"}
    assert first.data().keys() == fields
    assert isinstance(first.data()["creationDate"], int)
    works(btp, first.data())
    works(btp, second.data())
    assert btp.central("DELETE", several(btp.prod, "b1")).status == 200
    assert is_dead(btp, first.data())
    works(btp, second.data())
    assert btp.central("GET", several(btp.prod)).data() == {"items": [second.data()]}
    assert btp.central("GET", several(btp.prod, "b2")).data() == second.data()


def test_3_3_a_name_is_taken_once_per_subaccount(btp: Btp) -> None:
    assert btp.central("POST", several(btp.prod), {"name": "b1"}).status == 201
    assert btp.central("POST", several(btp.prod), {"name": "b1"}).status == 409
    assert btp.central("POST", several(btp.ids["managed"]), {"name": "b1"}).status == 201
    assert btp.central("POST", one(btp.prod)).status == 201


def test_3_3_a_binding_with_a_certificate_spells_its_address_its_own_way(btp: Btp) -> None:
    made = btp.central("POST", several(btp.prod), {"name": "x", "parameters": CERTIFICATE})
    assert made.status == 201
    key = made.data()
    assert key.keys() == {
        *("name", "clientid", "certificate", "key", "certUrl", "sm_url", "url", "xsappname", "creationDate")
    }
    assert key["url"] == "https://prod-x1.authentication.eu10.hana.ondemand.com"

    def token(certificate: str | None) -> Response:
        form = {"grant_type": "client_credentials", "client_id": key["clientid"]}
        return btp.sandbox.handle(
            Request.of(
                "POST",
                key["certUrl"].removeprefix("https://"),
                "/oauth/token",
                body=urlencode(form).encode(),
                client_certificate=certificate.encode() if certificate else None,
            )
        )

    shown = token(key["certificate"])
    assert btp.manager("GET", "/v1/service_instances", token=shown.data()["access_token"]).status == 200
    assert token(None).status == 401
    assert btp.central("DELETE", several(btp.prod, "x")).status == 200
    assert token(key["certificate"]).status == 401


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize("plan", ["central-viewer", "local"])
def test_3_3_it_takes_the_scope_to_update_subaccounts(btp: Btp, method: str, plan: str) -> None:
    assert btp.central("POST", one(btp.prod)).status == 201
    assert btp.central("POST", several(btp.prod), {"name": "b1"}).status == 201
    token = btp.token(btp.key("cis", plan, grantType="clientCredentials"))
    named = several(btp.prod) if method == "POST" else several(btp.prod, "b1")
    for target in (one(btp.prod), named, several(btp.prod)):
        if (target, method) == (several(btp.prod), "DELETE"):
            continue
        assert btp.central(method, target, {"name": "b2"}, token=token).status == 403
        assert btp.central(method, target, {"name": "b2"}, token=None).status == 401
    assert btp.sandbox.snapshot()["service_manager_bindings"] == {"prod": ["", "b1"]}


@pytest.mark.parametrize(
    "body",
    [{}, {"name": ""}, {"name": 7}, {"name": "b", "parameters": []}, b"", []],
    ids=str,
)
def test_3_3_a_named_binding_needs_a_name(btp: Btp, body: Any) -> None:
    answer = btp.central("POST", several(btp.prod), body)
    assert (answer.status, answer.data()["error"]["code"]) == (400, 11000)


@pytest.mark.parametrize(
    "parameters",
    [
        {"credential-type": "instance-secret"},
        {"credential-type": "password"},
        {**CERTIFICATE, "x509": {"validity": 31}},
        {**CERTIFICATE, "x509": {"validity": 7, "validity-type": "MONTHS"}},
        {**CERTIFICATE, "x509": {"key-length": 1024}},
    ],
    ids=str,
)
def test_3_3_parameters_that_no_key_can_have_are_refused(btp: Btp, parameters: dict[str, Any]) -> None:
    answer = btp.central("POST", several(btp.prod), {"name": "b", "parameters": parameters})
    assert (answer.status, answer.data()["error"]["code"]) == (400, 11000)
    assert btp.central("GET", several(btp.prod)).data() == {"items": []}


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_3_3_an_unknown_subaccount_is_20004(btp: Btp, method: str) -> None:
    for target in (one(NOBODY), several(NOBODY) if method != "DELETE" else several(NOBODY, "b")):
        answer = btp.central(method, target, {"name": "b"})
        assert (answer.status, answer.data()["error"]["code"]) == (404, 20004)


def test_3_3_an_unknown_name_is_404(btp: Btp) -> None:
    assert btp.central("GET", several(btp.prod, "b")).status == 404
    assert btp.central("DELETE", several(btp.prod, "b")).status == 404


def test_3_3_a_subaccount_that_is_still_being_made_has_no_binding(btp: Btp) -> None:
    body = {"displayName": "new", "region": "eu10", "subdomain": "new-x1"}
    guid = btp.central("POST", SUBACCOUNTS, body).data()["guid"]
    assert btp.central("POST", one(guid)).status == 409
    for _ in range(4):
        btp.central("GET", f"{SUBACCOUNTS}/{guid}")
    assert btp.central("POST", one(guid)).status == 201


def test_3_3_bindings_go_with_their_subaccount(btp: Btp) -> None:
    guid = btp.ids["managed"]
    key = btp.central("POST", several(guid), {"name": "b1"}).data()
    assert btp.sandbox.snapshot()["service_manager_bindings"] == {"managed": ["b1"]}
    assert btp.central("DELETE", f"{SUBACCOUNTS}/{guid}").status == 200
    assert btp.central("POST", several(guid), {"name": "b2"}).status == 409
    for _ in range(4):
        btp.central("GET", f"{SUBACCOUNTS}/{guid}")
    assert is_dead(btp, key)
    assert btp.sandbox.snapshot()["service_manager_bindings"] == {}
