"""The Destination Service: each answer and refusal of section 8 of the API reference this project keeps."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12

from btp_reconcile.sandbox import Lost, Request, Response, Sandbox, serve
from tests.sandbox.btp_client import WORLD, Btp
from tests.sandbox.landscape import Landscape

if TYPE_CHECKING:
    from pathlib import Path

HOST = "destination-configuration.cfapps.eu10.hana.ondemand.com"
V1 = "/destination-configuration/v1"
LIST = f"{V1}/subaccountDestinations"
OWN = f"{V1}/instanceDestinations"
FIND = f"{V1}/destinations"
GONE = {"ErrorMessage": "Configuration with the specified name was not found"}
PLAIN = {"Name": "plain", "Type": "HTTP", "URL": "https://x.example", "Authentication": "NoAuthentication"}
OTHER = {**PLAIN, "Name": "other"}
BASIC = {
    **PLAIN,
    "Name": "basic",
    "ProxyType": "Internet",
    "Authentication": "BasicAuthentication",
    "User": "me",
    "Password": "p:w",
}


def oauth(**more: str) -> dict[str, str]:
    """A destination as section 8.3 shows one; its client does not exist."""
    return {
        "Name": "acme-orders",
        "Type": "HTTP",
        "URL": "https://api.acme.example/orders",
        "ProxyType": "Internet",
        "Authentication": "OAuth2ClientCredentials",
        "clientId": "sb-orders!t4711",
        "clientSecret": "secret$=",
        "tokenServiceURLType": "Dedicated",
        "tokenServiceURL": "https://prod-x1.authentication.eu10.hana.ondemand.com/oauth/token",
        **more,
    }


@dataclass
class Desk(Btp):
    """Somebody who holds the destination key of each subaccount."""

    document: dict[str, Any] = field(default_factory=lambda: WORLD)

    def ask(self, method: str, target: str, body: Any = None, *, who: str = "prod", **more: Any) -> Response:
        key = self.access["destination"][self.ids[who]]
        more.setdefault("token", self.token(key))
        return self.send(method, more.pop("host", HOST), target, body, **more)

    def get(self, target: str, **more: Any) -> Any:
        answer = self.ask("GET", target, **more)
        assert answer.status == 200, answer.body
        return answer.data()

    def made(self, *destinations: dict[str, str], where: str = LIST) -> None:
        for one in destinations:
            answer = self.ask("POST", where, one)
            assert (answer.status, answer.body) == (201, b"")

    def find(self, name: str, query: str = "", **headers: str) -> dict[str, Any]:
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        return dict(self.get(f"{FIND}/{name}{query}", headers=sent))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def names(listed: list[dict[str, str]]) -> set[str]:
    return {one["Name"] for one in listed}


def filtered(where: str, condition: str) -> str:
    return f"{where}?$filter={quote(condition)}"


# 8.1 Key and token -------------------------------------------------------------------------------------------------


def test_8_1_the_key_of_a_subaccount_is_flat_and_names_the_service(desk: Desk) -> None:
    key = desk.access["destination"][desk.prod]
    fields = {"clientid", "clientsecret", "uri", "url", "uaadomain", "identityzone", "xsappname", "tenantid"}
    assert fields <= set(key)
    assert {name: key[name] for name in ("uri", "url", "uaadomain", "identityzone", "tenantid")} == {
        "uri": f"https://{HOST}",
        "url": "https://prod-x1.authentication.eu10.hana.ondemand.com",
        "uaadomain": "authentication.eu10.hana.ondemand.com",
        "identityzone": "prod-x1",
        "tenantid": desk.prod,
    }
    assert set(desk.access["destination"]) == set(desk.access["service_manager"])
    assert desk.sandbox.access() == desk.sandbox.access()


def test_8_1_the_service_has_to_be_entitled_like_any_elastic_one(desk: Desk) -> None:
    wanted = {"name": "d", "service_offering_name": "destination", "service_plan_name": "lite"}
    assert desk.manager("POST", "/v1/service_instances?async=false", wanted).status == 400
    desk.assign("destination", "lite", enable=True)
    desk.settled("destination", "lite")
    listed = desk.assignments(f"?subaccountGUID={desk.prod}&serviceName=destination&planName=lite")
    assert listed["assignedServices"][0]["servicePlans"][0]["category"] == "ELASTIC_SERVICE"
    statuses = [desk.manager("POST", "/v1/service_instances?async=false", wanted).status for _ in range(4)]
    assert 201 in statuses


def entitled() -> dict[str, Any]:
    prod = WORLD["subaccounts"]["prod"]
    entitlements = {**prod["entitlements"], "destination": {"lite": True}}
    return {"subaccounts": {"prod": {**prod, "entitlements": entitlements}}}


def test_8_1_a_key_of_service_manager_reads_and_dies_with_its_binding() -> None:
    desk = Desk(document=entitled())
    bound = desk.binding("k", desk.instance("d", "destination", "lite"))
    key = bound["credentials"]
    assert desk.get(LIST, token=desk.token(key)) == []
    assert desk.manager("DELETE", f"/v1/service_bindings/{bound['id']}?async=false").status == 200
    answer = desk.post_token(key["clientid"], key["clientsecret"], key["url"])
    assert (answer.status, answer.data()["error"]) == (401, "invalid_client")


def test_8_1_a_key_of_cloud_foundry_reads() -> None:
    key = {"runtime": "cloudfoundry", "space": "apis", "service": "destination", "plan": "lite"}
    document = entitled()
    document["subaccounts"]["prod"]["instances"] = [{**key, "name": "d", "keys": [{"name": "k"}]}]
    desk = Desk(document=document)
    with desk.sandbox.hold() as world:
        (row,) = world.table("cf.service_credential_bindings").values()
    assert desk.get(LIST, token=desk.token(row["credentials"])) == []


X509 = {"credential-type": "x509", "x509": {"validity": 7, "validity-type": "DAYS", "key-length": 2048}}


def with_certificate(desk: Desk) -> dict[str, Any]:
    return dict(desk.binding("x", desk.instance("d", "destination", "lite"), parameters=X509)["credentials"])


def test_8_1_a_key_with_a_certificate_opens_the_service() -> None:
    desk = Desk(document=entitled())
    key = with_certificate(desk)
    assert {"certificate", "key", "certurl", "clientid", "uri"} <= set(key)
    assert "clientsecret" not in key
    form = {"grant_type": "client_credentials", "client_id": key["clientid"]}
    answer = desk.sandbox.handle(
        Request.of(
            "POST",
            key["certurl"].removeprefix("https://"),
            "/oauth/token",
            body=urlencode(form).encode(),
            client_certificate=key["certificate"].encode(),
        )
    )
    assert desk.get(LIST, token=answer.data()["access_token"]) == []


def test_8_1_the_credential_type_stands_at_the_top_of_the_parameters() -> None:
    desk = Desk(document=entitled())
    made = desk.binding("x", desk.instance("d", "destination", "lite"), parameters={"xsuaa": X509})
    assert made["credentials"]["credential-type"] == "binding-secret"


def test_8_1_each_subaccount_sees_its_own(desk: Desk) -> None:
    desk.made(PLAIN)
    assert desk.get(LIST) == [PLAIN]
    assert desk.get(LIST, who="managed") == []


def test_8_1_instance_destinations_belong_to_the_instance_of_the_key(desk: Desk) -> None:
    desk.made(PLAIN, where=OWN)
    stranger = desk.token(desk.key("destination", "lite"))
    assert desk.get(OWN) == [PLAIN]
    assert desk.get(OWN, token=stranger) == []
    desk.made(OTHER)
    assert desk.get(LIST, token=stranger) == [OTHER]


def test_8_1_a_token_of_an_instance_that_is_gone_finds_no_instance_destinations() -> None:
    desk = Desk(document=entitled())
    instance = desk.instance("d", "destination", "lite")
    bound = desk.binding("k", instance)
    token = desk.token(bound["credentials"])
    desk.made(PLAIN)
    assert desk.ask("POST", OWN, PLAIN, token=token).status == 201
    assert desk.sandbox.snapshot()["instance_destinations"] == {"prod": {"d": {"plain": PLAIN}}}
    assert desk.manager("DELETE", f"/v1/service_bindings/{bound['id']}?async=false").status == 200
    assert desk.manager("DELETE", f"/v1/service_instances/{instance}?async=false").status == 200
    assert desk.ask("GET", OWN, token=token).status == 404
    assert desk.get(LIST, token=token) == [PLAIN]
    assert desk.sandbox.snapshot()["instance_destinations"] == {}


@pytest.mark.parametrize("target", [LIST, f"{LIST}/plain", FIND + "/plain", OWN])
def test_8_2_without_a_token_that_counts_it_is_401(desk: Desk, target: str) -> None:
    foreign = Landscape().token("dev@example.com")
    for token in (None, "x", foreign):
        answer = desk.ask("GET", target, token=token)
        assert (answer.status, answer.body) == (401, b"")


def test_8_2_a_token_of_another_region_is_401(desk: Desk) -> None:
    host = HOST.replace("eu10", "eu20")
    assert desk.ask("GET", LIST, host=host).status == 401
    assert desk.ask("GET", LIST, host=host, who="other").status == 200


def test_8_2_an_expired_token_is_401(desk: Desk) -> None:
    assert desk.ask("GET", LIST).status == 200
    with desk.sandbox.hold() as world:
        world.advance(13 * 3600)
    assert desk.ask("GET", LIST).status == 401


@pytest.mark.parametrize(
    ("settings", "status", "body"),
    [
        ({}, 403, b""),
        ({"destination_gateway_errors": "text"}, 403, b"Forbidden"),
        (
            {"destination_gateway_errors": "html", "destination_foreign_token": 401},
            401,
            b"<html><head><title>401 Unauthorized</title></head><body>Unauthorized</body></html>",
        ),
    ],
)
def test_8_2_a_token_of_another_service_is_refused(
    settings: dict[str, Any], status: int, body: bytes
) -> None:
    desk = Desk(settings=settings)
    for token in (
        desk.token(desk.access["service_manager"][desk.prod]),
        desk.token(desk.key("cis", "local", grantType="clientCredentials")),
        desk.token(desk.key("xsuaa", "application")),
    ):
        answer = desk.ask("GET", LIST, token=token)
        assert (answer.status, answer.body) == (status, body)


def test_8_1_a_destination_key_opens_nothing_else(desk: Desk) -> None:
    token = desk.token(desk.access["destination"][desk.prod])
    assert desk.manager("GET", "/v1/service_instances", token=token).status == 403
    assert desk.central("GET", "/accounts/v1/subaccounts", token=token).status == 403


# 8.2 Lists ---------------------------------------------------------------------------------------------------------


def test_8_2_a_list_is_a_bare_array_with_all_of_it(desk: Desk) -> None:
    assert desk.get(LIST) == []
    many = [{**PLAIN, "Name": f"d{number}"} for number in range(25)]
    desk.made(*many)
    listed = desk.get(LIST)
    assert sorted(listed, key=json.dumps) == sorted(many, key=json.dumps)
    assert listed != many
    assert listed != many[::-1]


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("Name in ('plain','basic')", {"plain", "basic"}),
        ("Name in ('plain', 'nothing')", {"plain"}),
        ("Name in ('our-team%27s-app')", {"our-team's-app"}),
        ("startswith(Name, 'our-team''s')", {"our-team's-app"}),
        ("endswith(Name, 'n')", {"plain"}),
        ("modifiedwithin('1440', 'minutes')", {"plain", "basic", "our-team's-app"}),
        ("Label['stage'] HAS ('a', 'b')", {"plain"}),
        ("Label['stage'] HAS ('a', 'c')", set()),
    ],
)
def test_8_2_a_filter_takes_names_ends_times_and_labels(desk: Desk, condition: str, found: set[str]) -> None:
    desk.made(PLAIN, BASIC, {**PLAIN, "Name": "our-team's-app"})
    labels = [{"key": "stage", "values": ["a", "b"]}]
    assert desk.ask("PUT", f"{LIST}/plain/labels", labels).status == 204
    assert names(desk.get(filtered(LIST, condition))) == found


def test_8_2_modified_within_looks_back_from_now(desk: Desk) -> None:
    desk.made(PLAIN)
    with desk.sandbox.hold() as world:
        world.advance(3600)
    desk.made(OTHER)
    assert desk.get(filtered(LIST, "modifiedwithin('30', 'minutes')")) == [OTHER]


def test_8_2_select_gives_names_only(desk: Desk) -> None:
    desk.made(PLAIN, BASIC)
    assert sorted(desk.get(f"{LIST}?$select=Name"), key=str) == [{"Name": "basic"}, {"Name": "plain"}]


def test_8_2_pages_start_at_one_and_say_what_follows(desk: Desk) -> None:
    desk.made(*({**PLAIN, "Name": f"d{number}"} for number in range(25)))
    seen: set[str] = set()
    links = []
    for page in (1, 2, 3):
        answer = desk.ask("GET", f"{LIST}?$page={page}&$pageCount=true&$entityCount=true")
        assert (answer.header("Page-Count"), answer.header("Entity-Count")) == ("3", "25")
        links.append(answer.header("Link"))
        seen |= names(answer.data())
    assert len(seen) == 25
    one, two, three = (f"</subaccountDestinations?$page={page}&$pageSize=10>" for page in (1, 2, 3))
    assert links == [
        f"{two}; rel='next'",
        f"{one}; rel='previous', {three}; rel='next'",
        f"{two}; rel='previous'",
    ]
    whole = desk.ask("GET", f"{LIST}?$page=1&$pageSize=1000")
    assert (len(whole.data()), whole.header("Link"), whole.header("Page-Count")) == (25, None, None)
    assert desk.get(f"{LIST}?$page=9") == []


def test_8_2_metadata_come_only_when_asked_for(desk: Desk) -> None:
    desk.made(PLAIN)
    etag = (desk.ask("GET", f"{LIST}/plain").header("ETag") or "").strip('"')
    (one,) = desk.get(f"{LIST}?$includeMetadata=modification_time;etag")
    metadata = one.pop("$metadata")
    assert one == PLAIN
    assert metadata.keys() == {"modification_time", "etag"}
    assert metadata["etag"] == etag
    assert re.fullmatch(r"1767\d{9}", metadata["modification_time"])
    (more,) = desk.get(f"{LIST}?$includeMetadata=labels;shared_with_subscriber&$filter=Name+in+('plain')")
    assert more["$metadata"] == {"labels": [], "shared_with_subscriber": False}


@pytest.mark.parametrize(
    "query",
    [
        "$filter=Name+in+('a')&$select=Name",
        "$filter=Name+in+('a')&$page=1",
        "$select=Name&$page=1",
        "$includeMetadata=etag&$select=Name",
        "$includeMetadata=etag&$page=1",
        "$includeMetadata=age",
        "$includeMetadata=",
        "$select=Type",
        "$page=0",
        "$page=one",
        "$page=1&$pageSize=0",
        "$page=1&$pageSize=1001",
        "$page=1&$pageCount=yes",
        "$pageSize=10",
        "$entityCount=true",
        "$filter=Type+eq+'HTTP'",
        "$filter=Name+in+()",
        "$filter=modifiedwithin('0',+'minutes')",
        "$filter=modifiedwithin('1441',+'minutes')",
        "$filter=modifiedwithin('1',+'hours')",
        "$filter=",
    ],
)
def test_8_2_a_list_that_is_asked_for_wrongly_is_400(desk: Desk, query: str) -> None:
    answer = desk.ask("GET", f"{LIST}?{query}")
    assert answer.status == 400
    assert answer.data().keys() == {"ErrorMessage"}


def test_8_2_a_uri_has_at_most_4000_characters() -> None:
    for settings, status in (({}, 414), ({"destination_uri_too_long": 400}, 400)):
        desk = Desk(settings=settings)
        start = f"{LIST}?$filter=Name+in+('"
        room = 4000 - len(f"https://{HOST}{start}')")
        assert desk.ask("GET", f"{start}{'a' * room}')").status == 200
        assert desk.ask("GET", f"{start}{'a' * (room + 1)}')").status == status


# 8.2 One thing -----------------------------------------------------------------------------------------------------


def test_8_2_one_destination_comes_with_its_secrets_and_an_etag(desk: Desk) -> None:
    wanted = oauth(**{"HTML5.DynamicDestination": "true", "Ünknown": "kept ☃", "empty": ""})
    desk.made(wanted)
    answer = desk.ask("GET", f"{LIST}/acme-orders")
    assert (answer.status, answer.data()) == (200, wanted)
    assert re.fullmatch(r'"[0-9a-f]{64}"', answer.header("ETag") or "")


def test_8_2_an_etag_may_come_without_quotes() -> None:
    desk = Desk(settings={"destination_etags": "bare"})
    desk.made(PLAIN)
    etag = desk.ask("GET", f"{LIST}/plain").header("ETag") or ""
    assert re.fullmatch(r"[0-9a-f]{64}", etag)
    assert desk.ask("PUT", LIST, PLAIN, headers={"If-Match": etag}).status == 200


def test_8_2_an_unknown_name_is_404(desk: Desk) -> None:
    for target in (f"{LIST}/nothing", f"{OWN}/nothing", f"{FIND}/nothing", f"{LIST}/nothing/labels"):
        answer = desk.ask("GET", target)
        assert (answer.status, answer.data()) == (404, GONE)


def test_8_2_names_tell_upper_from_lower_case(desk: Desk) -> None:
    desk.made(PLAIN, {**PLAIN, "Name": "Plain"})
    assert names(desk.get(LIST)) == {"plain", "Plain"}


def test_8_2_etags_save_a_read_and_guard_one(desk: Desk) -> None:
    desk.made(PLAIN)
    etag = desk.ask("GET", f"{LIST}/plain").header("ETag") or ""
    for target in (f"{LIST}/plain", f"{FIND}/plain"):
        known = desk.ask("GET", target, headers={"If-None-Match": f'"other", {etag}'})
        assert (known.status, known.body, known.header("ETag")) == (304, b"", etag)
        assert desk.ask("GET", target, headers={"If-None-Match": '"other"'}).status == 200
        assert desk.ask("GET", target, headers={"If-Match": etag.strip('"')}).status == 200
        assert desk.ask("GET", target, headers={"If-Match": "*"}).status == 200
        changed = desk.ask("GET", target, headers={"If-Match": '"other"'})
        assert (changed.status, changed.header("ETag")) == (412, etag)


def test_8_2_an_etag_is_another_one_after_each_write(desk: Desk) -> None:
    seen = []
    for _ in range(2):
        desk.made(PLAIN)
        seen.append(desk.ask("GET", f"{LIST}/plain").header("ETag"))
        desk.ask("PUT", LIST, PLAIN)
        seen.append(desk.ask("GET", f"{LIST}/plain").header("ETag"))
        desk.ask("DELETE", f"{LIST}/plain")
    assert len(set(seen)) == 4


# 8.2 Creating ------------------------------------------------------------------------------------------------------


def test_8_2_a_name_is_taken_once_per_level(desk: Desk) -> None:
    desk.made(PLAIN)
    answer = desk.ask("POST", LIST, {**PLAIN, "URL": "https://y.example"})
    assert (answer.status, answer.data()) == (409, {"ErrorMessage": "Duplicate key"})
    assert desk.get(LIST) == [PLAIN]
    desk.made(PLAIN, where=OWN)


def test_8_2_an_array_is_made_one_by_one(desk: Desk) -> None:
    made = desk.ask("POST", LIST, [PLAIN, BASIC])
    assert made.status == 201
    etags = {name: desk.ask("GET", f"{LIST}/{name}").header("ETag") for name in ("plain", "basic")}
    assert made.data() == [
        {"name": name, "status": 201, "etag": (etags[name] or "").strip('"')} for name in ("plain", "basic")
    ]
    mixed = desk.ask("POST", LIST, [OTHER, PLAIN, {"Name": "typeless"}, OTHER])
    assert mixed.status == 207
    shown = [{key: value for key, value in one.items() if key != "etag"} for one in mixed.data()]
    assert shown == [
        {"name": "other", "status": 201},
        {"name": "plain", "status": 409, "cause": "Duplicate key"},
        {"name": "typeless", "status": 400, "cause": "Property 'Type' is missing"},
        {"name": "other", "status": 409, "cause": "Duplicate key"},
    ]
    assert names(desk.get(LIST)) == {"plain", "basic", "other"}


def test_8_2_creating_tells_metadata_when_asked(desk: Desk) -> None:
    answer = desk.ask("POST", f"{LIST}?$includeMetadata=etag", PLAIN)
    etag = (desk.ask("GET", f"{LIST}/plain").header("ETag") or "").strip('"')
    assert (answer.status, answer.data()) == (201, {"$metadata": {"etag": etag}})
    again = desk.ask("POST", f"{LIST}?$includeMetadata=etag", PLAIN)
    assert (again.status, again.data()["$metadata"]) == (409, {"etag": etag})
    (one,) = desk.ask("POST", f"{LIST}?$includeMetadata=etag", [OTHER]).data()
    assert one["$metadata"] == {"etag": one["etag"]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The request body is not valid JSON"),
        (b"{", "The request body is not valid JSON"),
        (b"[" * 100000, "The request body is not valid JSON"),
        (b"7", "The request body must be a JSON object or an array of JSON objects"),
        ([], "The request body must be a JSON object or an array of JSON objects"),
        ([PLAIN, "x"], "The request body must be a JSON object or an array of JSON objects"),
        ({"Type": "HTTP"}, "Property 'Name' is missing or empty"),
        ([PLAIN, {"Type": "HTTP"}], "Property 'Name' is missing or empty"),
        ({"name": "a", "Type": "HTTP"}, "Property 'Name' is missing or empty"),
        ({**PLAIN, "Name": " "}, "Property 'Name' is missing or empty"),
        ({**PLAIN, "Name": 7}, "Property 'Name' is missing or empty"),
        (b'{"Name": "\\ud800", "Type": "HTTP"}', "Property 'Name' is missing or empty"),
        ({**PLAIN, "Name": "a/b"}, "The value of property 'Name' is not a valid name"),
        ({"Name": "a"}, "Property 'Type' is missing"),
        ({**PLAIN, "Type": "http"}, "The value of property 'Type' must be one of HTTP, LDAP, MAIL, RFC, TCP"),
        (
            {**PLAIN, "ProxyType": "internet"},
            "The value of property 'ProxyType' must be one of Internet, OnPremise, PrivateLink",
        ),
        (
            {**PLAIN, "tokenServiceURLType": "Own"},
            "The value of property 'tokenServiceURLType' must be one of Common, Dedicated",
        ),
        ({**PLAIN, "sap-client": 100}, "The value of property 'sap-client' must be a string"),
        ({**PLAIN, "trusted": True}, "The value of property 'trusted' must be a string"),
        ({**PLAIN, "nothing": None}, "The value of property 'nothing' must be a string"),
        ({**PLAIN, "more": {"a": "b"}}, "The value of property 'more' must be a string"),
        (b'{"Name": "a", "Type": "HTTP", "x": "\\udc00"}', "The value of property 'x' must be a string"),
        (b'{"Name": "a", "Type": "HTTP", "\\udc00": "x"}', "The value of property '?' must be a string"),
        ({**PLAIN, "$metadata": {"shared_with_subscriber": True}}, "Property '$metadata' is not valid"),
        ({"Name": "a", "Type": "HTTP"}, "Property 'URL' is required"),
        ({**PLAIN, "Authentication": "BasicAuthentication"}, "Property 'User' is required"),
        (
            {**PLAIN, "Authentication": "BasicAuthentication", "User": "u"},
            "Property 'Password' is required",
        ),
        (
            {**PLAIN, "Authentication": "ClientCertificateAuthentication"},
            "Property 'KeyStoreLocation' is required",
        ),
        ({**PLAIN, "Authentication": "OAuth2ClientCredentials"}, "Property 'clientId' is required"),
        (
            {**PLAIN, "Authentication": "OAuth2ClientCredentials", "clientId": "c"},
            "Property 'tokenServiceURL' is required",
        ),
        (
            {**PLAIN, "Authentication": "OAuth2ClientCredentials", "clientId": "c", "tokenServiceURL": "u"},
            "Property 'clientSecret' is required",
        ),
    ],
    ids=str,
)
def test_8_3_what_is_no_destination_is_400(desk: Desk, body: Any, text: str) -> None:
    answer = desk.ask("POST", LIST, body)
    assert (answer.status, answer.data()) == (400, {"ErrorMessage": text})
    assert desk.get(LIST) == []


@pytest.mark.parametrize("kind", ["HTTP", "RFC", "LDAP", "MAIL", "TCP"])
def test_8_3_every_type_is_taken(desk: Desk, kind: str) -> None:
    desk.made({**PLAIN, "Type": kind})


def test_8_3_only_http_has_an_address_that_is_known_to_be_needed(desk: Desk) -> None:
    desk.made({"Name": "erp", "Type": "RFC", "jco.client.ashost": "h"})


def test_8_3_a_keystore_stands_in_for_a_secret(desk: Desk) -> None:
    wanted = oauth(**{"tokenService.KeyStoreLocation": "x.pem"})
    del wanted["clientSecret"]
    desk.made(wanted, oauth(Name="empty", clientSecret=""))


def test_8_3_what_is_not_known_to_be_needed_can_be_left_out_by_a_setting() -> None:
    desk = Desk(settings={"destination_required": "accept", "destination_names": "[a-z]+"})
    desk.made({"Name": "a", "Type": "HTTP", "Authentication": "BasicAuthentication"})
    assert desk.ask("POST", LIST, {"Name": "a-b", "Type": "HTTP"}).status == 400


def test_8_2_an_instance_destination_may_be_shared_with_subscribers(desk: Desk) -> None:
    shared = {**PLAIN, "$metadata": {"shared_with_subscriber": True}}
    assert desk.ask("POST", OWN, shared).status == 201
    assert desk.get(f"{OWN}/plain") == PLAIN
    (one,) = desk.get(f"{OWN}?$includeMetadata=shared_with_subscriber")
    assert one["$metadata"] == {"shared_with_subscriber": True}
    for wrong in ({}, {"shared_with_subscriber": "yes"}, {"shared_with_subscriber": True, "etag": "x"}, 7):
        assert desk.ask("PUT", OWN, {**PLAIN, "$metadata": wrong}).status == 400


# 8.2 Replacing -----------------------------------------------------------------------------------------------------


def test_8_2_a_replacement_is_whole(desk: Desk) -> None:
    desk.made(oauth())
    bare = {**PLAIN, "Name": "acme-orders"}
    answer = desk.ask("PUT", LIST, bare)
    assert (answer.status, answer.data()) == (200, {"Count": 1})
    assert desk.get(f"{LIST}/acme-orders") == bare


def test_8_2_only_what_is_there_can_be_replaced(desk: Desk) -> None:
    answer = desk.ask("PUT", LIST, PLAIN)
    assert (answer.status, answer.data()) == (404, GONE)
    assert desk.ask("PUT", f"{LIST}/plain", PLAIN).status == 404
    assert desk.get(LIST) == []


def test_8_2_a_replacement_is_checked_like_a_creation(desk: Desk) -> None:
    desk.made(PLAIN)
    for wrong in ({**PLAIN, "Type": "X"}, {**PLAIN, "port": 1}, {"Name": "plain"}, b""):
        assert desk.ask("PUT", LIST, wrong).status == 400
    assert desk.get(LIST) == [PLAIN]


def test_8_2_of_two_that_replace_the_same_version_one_loses(desk: Desk) -> None:
    desk.made(PLAIN)
    etag = desk.ask("GET", f"{LIST}/plain").header("ETag") or ""
    first = {**PLAIN, "URL": "https://one.example"}
    assert desk.ask("PUT", LIST, first, headers={"If-Match": etag}).status == 200
    late = desk.ask("PUT", LIST, {**PLAIN, "URL": "https://two.example"}, headers={"If-Match": etag})
    assert (late.status, late.data()) == (412, {"ErrorMessage": "Precondition Failed"})
    assert late.header("ETag") == desk.ask("GET", f"{LIST}/plain").header("ETag") != etag
    assert desk.get(LIST) == [first]
    assert desk.ask("PUT", LIST, OTHER, headers={"If-Match": etag}).status == 404


def test_8_2_an_array_is_replaced_one_by_one(desk: Desk) -> None:
    desk.made(PLAIN, BASIC)
    changed = [{**PLAIN, "URL": "https://y.example"}, {**BASIC, "User": "you"}]
    answer = desk.ask("PUT", LIST, changed)
    assert answer.status == 200
    assert [(one["name"], one["status"], len(one["etag"])) for one in answer.data()] == [
        ("plain", 200, 64),
        ("basic", 200, 64),
    ]
    mixed = desk.ask("PUT", LIST, [PLAIN, OTHER, {**BASIC, "Type": "X"}])
    assert mixed.status == 207
    assert [(one["name"], one["status"], one.get("cause", "")[:13]) for one in mixed.data()] == [
        ("plain", 200, ""),
        ("other", 404, "Configuration"),
        ("basic", 400, "The value of "),
    ]
    assert sorted(desk.get(LIST), key=str) == sorted([PLAIN, changed[1]], key=str)
    assert desk.ask("PUT", LIST, [PLAIN], headers={"If-Match": "*"}).status == 400


def test_8_2_a_change_in_part_keeps_the_rest(desk: Desk) -> None:
    desk.made(BASIC)
    answer = desk.ask("PATCH", LIST, {"Name": "basic", "User": "you", "ProxyType": None, "Description": "d"})
    assert (answer.status, answer.body) == (204, b"")
    wanted = {**BASIC, "User": "you", "Description": "d"}
    del wanted["ProxyType"]
    assert desk.get(LIST) == [wanted]
    assert desk.ask("PATCH", LIST, OTHER).status == 404
    for wrong in ({"Name": "basic", "Type": None}, {"Name": "basic", "x": 1}, {"User": "x"}, [BASIC]):
        assert desk.ask("PATCH", LIST, wrong).status == 400
    assert desk.get(LIST) == [wanted]


# 8.2 Deleting ------------------------------------------------------------------------------------------------------


def test_8_2_one_is_deleted_by_its_name(desk: Desk) -> None:
    desk.made(PLAIN, OTHER)
    answer = desk.ask("DELETE", f"{LIST}/plain")
    assert (answer.status, answer.data()) == (200, {"Count": 1})
    assert desk.get(LIST) == [OTHER]
    again = desk.ask("DELETE", f"{LIST}/plain")
    assert (again.status, again.data()) == (404, GONE)


def test_8_2_deleting_what_is_absent_may_count_nothing() -> None:
    desk = Desk(settings={"destination_delete_absent": "count"})
    answer = desk.ask("DELETE", f"{LIST}/plain")
    assert (answer.status, answer.data()) == (200, {"Count": 0})


def test_8_2_several_are_deleted_by_an_in_list(desk: Desk) -> None:
    desk.made(PLAIN, BASIC, OTHER)
    answer = desk.ask("DELETE", filtered(LIST, "Name in ('plain','basic','nothing','plain')"))
    assert (answer.status, answer.data()) == (
        200,
        {
            "Count": 2,
            "Summary": [
                {"name": "plain", "status": "DELETED"},
                {"name": "basic", "status": "DELETED"},
                {"name": "nothing", "status": "NOT_FOUND", "reason": "Could not find configuration"},
            ],
        },
    )
    assert desk.get(LIST) == [OTHER]
    for query in ("", "?$filter=startswith(Name,+'o')", "?$filter=Name"):
        assert desk.ask("DELETE", f"{LIST}{query}").status == 400
    assert desk.get(LIST) == [OTHER]


def test_8_2_what_another_destination_uses_stays(desk: Desk) -> None:
    user = oauth(**{"clientAssertion.destinationName": "plain"})
    desk.made(PLAIN, user)
    text = "Cannot perform operation on the destination 'plain' because it is used as an assertion provider "
    answer = desk.ask("DELETE", f"{LIST}/plain")
    assert (answer.status, answer.data()) == (
        400,
        {"ErrorMessage": f"{text}for destination 'acme-orders'"},
    )
    several = desk.ask("DELETE", filtered(LIST, "Name in ('plain','x')"))
    assert several.status == 400
    assert several.data() == {"ErrorMessage": 'Unable to remove Configurations "[plain]".'}
    assert names(desk.get(LIST)) == {"plain", "acme-orders"}
    both = desk.ask("DELETE", filtered(LIST, "Name in ('plain','acme-orders')"))
    assert both.data()["Count"] == 2


# 8.2 Labels, certificates, fragments -------------------------------------------------------------------------------


def test_8_2_labels_are_replaced_added_and_taken_away(desk: Desk) -> None:
    desk.made(PLAIN)
    target = f"{LIST}/plain/labels"
    etag = desk.ask("GET", f"{LIST}/plain").header("ETag")
    assert desk.get(target) == []
    for method, body, left in (
        ("PUT", [{"key": "a", "values": ["1", "2"]}], [{"key": "a", "values": ["1", "2"]}]),
        (
            "PATCH",
            {
                "action": "ADD",
                "labels": [{"key": "a", "values": ["2", "3"]}, {"key": "b", "values": ["4"]}],
            },
            [{"key": "a", "values": ["1", "2", "3"]}, {"key": "b", "values": ["4"]}],
        ),
        (
            "PATCH",
            {"action": "DELETE", "labels": [{"key": "b", "values": ["4"]}, {"key": "a", "values": ["1"]}]},
            [{"key": "a", "values": ["2", "3"]}],
        ),
        (
            "PATCH",
            {"action": "REMOVE", "labels": [{"key": "a", "values": ["2"]}]},
            [{"key": "a", "values": ["3"]}],
        ),
    ):
        answer = desk.ask(method, target, body)
        assert (answer.status, answer.body) == (204, b"")
        assert desk.get(target) == left
    assert desk.ask("PUT", LIST, PLAIN).status == 200
    assert desk.get(target) == [{"key": "a", "values": ["3"]}]
    assert desk.ask("GET", f"{LIST}/plain").header("ETag") != etag
    assert desk.find("plain", "?$includeMetadata=labels")["destinationConfiguration"]["$metadata"] == {
        "labels": [{"key": "a", "values": ["3"]}]
    }
    desk.ask("DELETE", f"{LIST}/plain")
    desk.made(PLAIN)
    assert desk.get(target) == []


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("PUT", b""),
        ("PUT", {"key": "a", "values": []}),
        ("PUT", ["a"]),
        ("PUT", [{"key": "a"}]),
        ("PUT", [{"key": "", "values": []}]),
        ("PUT", [{"key": "a", "values": "b"}]),
        ("PUT", [{"key": "a", "values": [1]}]),
        ("PUT", [{"key": "a", "values": []}, {"key": "a", "values": []}]),
        ("PATCH", []),
        ("PATCH", {"op": "ADD", "labels": []}),
        ("PATCH", {"action": "SET", "labels": []}),
        ("PATCH", {"action": "ADD"}),
    ],
    ids=str,
)
def test_8_2_labels_that_are_none_are_400(desk: Desk, method: str, body: Any) -> None:
    desk.made(PLAIN)
    assert desk.ask(method, f"{LIST}/plain/labels", body).status == 400
    assert desk.ask(method, f"{LIST}/nothing/labels", []).status == 404


CONTENT = base64.b64encode(b"anything").decode()
CERTIFICATE = {"Name": "x.p12", "Content": CONTENT, "Type": "CERTIFICATE"}
FRAGMENT = {"FragmentName": "f", "URL": "https://fragment.example", "sap-client": "100"}


@pytest.mark.parametrize(
    ("kind", "field", "thing"),
    [("Certificates", "Name", CERTIFICATE), ("DestinationFragments", "FragmentName", FRAGMENT)],
)
@pytest.mark.parametrize("level", ["subaccount", "instance"])
def test_8_2_certificates_and_fragments_behave_alike(
    desk: Desk, level: str, kind: str, field: str, thing: dict[str, str]
) -> None:
    where, name = f"{V1}/{level}{kind}", thing[field]
    desk.made(thing, where=where)
    assert desk.ask("POST", where, thing).status == 409
    assert desk.get(where) == [thing]
    assert desk.get(f"{where}?$select=Name") == [{field: name}]
    assert desk.get(filtered(where, f"Name in ('{name}')")) == [thing]
    answer = desk.ask("GET", f"{where}/{name}")
    assert answer.data() == thing
    etag = answer.header("ETag") or ""
    assert desk.ask("GET", f"{where}/{name}", headers={"If-None-Match": etag}).status == 304
    changed = {**thing, "Description": "d"}
    assert desk.ask("PUT", where, changed, headers={"If-Match": "x"}).status == 412
    assert desk.ask("PUT", where, changed, headers={"If-Match": etag}).data() == {"Count": 1}
    assert desk.ask("PUT", f"{where}/{name}/labels", [{"key": "a", "values": ["b"]}]).status == 204
    assert desk.get(where) == [changed]
    assert desk.ask("DELETE", f"{where}/{name}").data() == {"Count": 1}
    assert desk.ask("GET", f"{where}/{name}").status == 404


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("Certificates", {"Name": "a"}, 400),
        ("Certificates", {"Name": "a", "Content": "!!"}, 400),
        ("Certificates", {"Name": "a", "Content": ""}, 400),
        ("Certificates", {"Name": "a", "Content": 7}, 400),
        ("Certificates", {"Content": CONTENT}, 400),
        ("Certificates", {"Name": "a.pem", "Attributes": {"CN": "a"}}, 501),
        ("DestinationFragments", {"URL": "x"}, 400),
        ("DestinationFragments", {**FRAGMENT, "Name": "x"}, 400),
        ("DestinationFragments", {**FRAGMENT, "Type": "HTTP"}, 400),
        ("DestinationFragments", {**FRAGMENT, "port": 1}, 400),
    ],
    ids=str,
)
def test_8_2_what_is_no_certificate_and_no_fragment_is_refused(
    desk: Desk, kind: str, body: dict[str, Any], status: int
) -> None:
    assert desk.ask("POST", f"{V1}/subaccount{kind}", body).status == status
    assert desk.get(f"{V1}/subaccount{kind}") == []


# 8.4 Find ----------------------------------------------------------------------------------------------------------


def test_8_4_the_instance_is_searched_before_the_subaccount(desk: Desk) -> None:
    desk.made(PLAIN, OTHER)
    mine = {**PLAIN, "URL": "https://mine.example"}
    desk.made(mine, where=OWN)
    instance = desk.access["destination"][desk.prod]["instanceid"]
    assert desk.find("plain") == {
        "owner": {"SubaccountId": desk.prod, "InstanceId": instance},
        "destinationConfiguration": mine,
        "certificates": [],
    }
    assert desk.find("other") == {
        "owner": {"SubaccountId": desk.prod, "InstanceId": None},
        "destinationConfiguration": OTHER,
        "certificates": [],
    }


def working(desk: Desk, **more: str) -> dict[str, str]:
    """A destination with a client of the sandbox that works."""
    key = desk.key("afc-api-service", "standard")["uaa"]
    return oauth(clientId=key["clientid"], clientSecret=key["clientsecret"], **more)


@pytest.mark.parametrize("where", ["", "true"])
def test_8_4_a_token_is_really_fetched(desk: Desk, where: str) -> None:
    desk.made(working(desk, **({"tokenService.addClientCredentialsInBody": where} if where else {})))
    (found,) = desk.find("acme-orders")["authTokens"]
    assert (found["type"], found["expires_in"]) == ("Bearer", "43199")
    assert found["http_header"] == {"key": "Authorization", "value": f"Bearer {found['value']}"}
    claims = json.loads(base64.urlsafe_b64decode(found["value"].split(".")[1] + "=="))
    assert claims["client_id"] == desk.get(f"{LIST}/acme-orders")["clientId"]
    assert found["scope"].split() == claims["scope"]


def test_8_3_a_scope_and_more_headers_and_queries_go_to_the_token_service(desk: Desk) -> None:
    whole = working(desk, Name="whole")
    desk.made(whole)
    scopes = desk.find("whole")["authTokens"][0]["scope"].split()
    desk.made(
        {**whole, "Name": "narrow", "scope": scopes[0]},
        {**whole, "Name": "wrong", "scope": "what.ever"},
        {**whole, "Name": "query", "tokenServiceURL.queries.grant_type": "password"},
        {**whole, "Name": "header", "tokenServiceURL.headers.Authorization": "Basic eDp5"},
    )
    assert desk.find("narrow")["authTokens"][0]["scope"] == scopes[0]
    assert "what.ever" in desk.find("wrong")["authTokens"][0]["error"]
    assert "value" in desk.find("query")["authTokens"][0]
    assert desk.find("header")["authTokens"][0]["error"] == "Bad credentials"


def test_8_3_credentials_go_into_a_header_when_they_shall(desk: Desk) -> None:
    made = working(desk, **{"tokenService.addClientCredentialsInBody": "false"})
    with desk.sandbox.hold() as world:
        world.table("clients")[made["clientId"]]["secret"] = "plain="
    desk.made({**made, "clientSecret": "plain="})
    assert desk.find("acme-orders")["authTokens"][0]["type"] == "Bearer"


def test_8_3_a_user_of_the_token_service_has_its_own_password(desk: Desk) -> None:
    made = working(desk)
    with desk.sandbox.hold() as world:
        world.table("clients")[made["clientId"]]["secret"] = "plain="
    desk.made(
        {**made, "clientSecret": "", "tokenServiceUser": made["clientId"], "tokenServicePassword": "plain="}
    )
    assert desk.find("acme-orders")["authTokens"][0]["type"] == "Bearer"


ZONE = "https://prod-x1.authentication.eu10.hana.ondemand.com"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"clientSecret": "wrong"}, "Bad credentials"),
        ({"clientSecret": ""}, "Bad credentials"),
        ({"clientId": "nobody"}, "Bad credentials"),
        (
            {"tokenServiceURL": f"{ZONE}/oauth/token/oauth/token"},
            "The token service answered with status 404",
        ),
        ({"tokenServiceURL": ZONE}, "The token service answered with status 404"),
        ({"tokenServiceURL": f"{ZONE}/Users"}, "The token service answered with status 501"),
        (
            {"tokenServiceURL": "https://nowhere.example/oauth/token"},
            "The host of the token service URL 'https://nowhere.example/oauth/token' cannot be resolved",
        ),
        (
            {"tokenServiceURL": "https://[/oauth/token"},
            "The host of the token service URL 'https://[/oauth/token' cannot be resolved",
        ),
        ({"tokenServiceURL": ZONE.replace("prod-x1", "managed-x1") + "/oauth/token"}, "Bad credentials"),
    ],
)
def test_8_4_a_token_that_cannot_be_had_is_an_error_at_200(
    desk: Desk, change: dict[str, str], text: str
) -> None:
    made = {**working(desk), **change}
    desk.made(made)
    found = desk.find("acme-orders")
    assert found["destinationConfiguration"] == made
    assert found["authTokens"] == [{"type": "", "value": "", "error": text, "expires_in": "0"}]


def test_8_4_a_destination_with_a_deleted_key_is_broken_in_silence() -> None:
    desk = Desk(document=WORLD)
    bound = desk.named("service_bindings", "k1")
    key = bound["credentials"]["uaa"]
    desk.made(oauth(clientId=key["clientid"], clientSecret=key["clientsecret"]))
    assert desk.find("acme-orders")["authTokens"][0]["type"] == "Bearer"
    desk.manager("DELETE", f"/v1/service_bindings/{bound['id']}?async=false")
    assert desk.find("acme-orders")["authTokens"][0]["error"] == "Bad credentials"


def test_8_4_token_and_credentials_can_be_skipped(desk: Desk) -> None:
    made = working(desk)
    desk.made(made)
    assert "authTokens" not in desk.find("acme-orders", "?$skipTokenRetrieval=true")
    found = desk.find("acme-orders", "?$skipCredentials=true")
    assert found["authTokens"][0]["type"] == "Bearer"
    del made["clientSecret"]
    assert found["destinationConfiguration"] == made
    assert desk.ask("GET", f"{FIND}/acme-orders?$skipCredentials=maybe").status == 400


def test_8_4_basic_authentication_is_a_token_too(desk: Desk) -> None:
    desk.made(BASIC)
    value = base64.b64encode(b"me:p:w").decode()
    header = {"key": "Authorization", "value": f"Basic {value}"}
    assert desk.find("basic")["authTokens"] == [{"type": "Basic", "value": value, "http_header": header}]


@pytest.mark.parametrize("url", ["https://{tenant}.authentication.eu10.hana.ondemand.com/oauth/token",
                                 "https://authentication.eu10.hana.ondemand.com/oauth/token"])  # fmt: skip
def test_8_4_a_common_token_url_needs_the_tenant(desk: Desk, url: str) -> None:
    desk.made(working(desk, tokenServiceURLType="Common", tokenServiceURL=url))
    assert desk.find("acme-orders", X_tenant="prod-x1")["authTokens"][0]["type"] == "Bearer"
    assert "X-tenant is required" in desk.find("acme-orders")["authTokens"][0]["error"]
    assert desk.find("acme-orders", X_tenant="managed-x1")["authTokens"][0]["error"] == "Bad credentials"


def test_8_4_a_dedicated_token_url_takes_no_tenant(desk: Desk) -> None:
    desk.made(working(desk))
    error = desk.find("acme-orders", X_tenant="prod-x1")["authTokens"][0]["error"]
    assert error == "The header X-tenant is not allowed for tokenServiceURLType Dedicated"


def test_8_4_a_tenant_error_may_fail_the_request() -> None:
    desk = Desk(settings={"destination_tenant_error": "refuse"})
    desk.made(working(desk))
    answer = desk.ask("GET", f"{FIND}/acme-orders", headers={"X-tenant": "prod-x1"})
    assert answer.status == 400


def test_8_4_fragments_are_laid_over_in_order(desk: Desk) -> None:
    fragments = f"{V1}/subaccountDestinationFragments"
    desk.made(PLAIN)
    desk.made(FRAGMENT, {"FragmentName": "g", "sap-client": "200"}, where=fragments)
    found = desk.find("plain", X_fragment_name="f, g")["destinationConfiguration"]
    assert found == {
        **PLAIN,
        "URL": "https://fragment.example",
        "sap-client": "200",
        "FragmentName": "f,g",
    }
    for headers, status in (
        ({"X-fragment-name": "h"}, 404),
        ({"X-fragment-name": "h", "X-fragment-optional": "true"}, 200),
        ({"X-fragment-name": "f,h", "X-fragment-optional": "true"}, 404),
    ):
        assert desk.ask("GET", f"{FIND}/plain", headers=headers).status == status
    assert desk.find("plain")["destinationConfiguration"] == PLAIN


def keystores(key: dict[str, str]) -> dict[str, str]:
    """The certificate of a key as PEM, and as PKCS #12 with the password "pw"; one more holds the key alone."""
    pem = (key["certificate"] + key["key"]).encode()
    private: Any = load_pem_private_key(key["key"].encode(), None)
    first = x509.load_pem_x509_certificates(key["certificate"].encode())[0]
    bag = pkcs12.serialize_key_and_certificates(b"x", private, first, None, BestAvailableEncryption(b"pw"))
    alone = pkcs12.serialize_key_and_certificates(b"x", private, None, None, BestAvailableEncryption(b"pw"))
    stores = {"x.pem": pem, "x.p12": bag, "alone.p12": alone}
    return {name: base64.b64encode(content).decode() for name, content in stores.items()}


def test_8_3_a_certificate_is_shown_to_the_token_service() -> None:
    desk = Desk(document=entitled())
    key = with_certificate(desk)
    stores = [
        {"Name": name, "Content": content, "Type": "CERTIFICATE"} for name, content in keystores(key).items()
    ]
    desk.made(*stores, where=f"{V1}/subaccountCertificates")
    base = oauth(clientId=key["clientid"], tokenServiceURL=f"{key['certurl']}/oauth/token")
    del base["clientSecret"]
    store, password = "tokenService.KeyStoreLocation", "tokenService.KeyStorePassword"
    desk.made(
        {**base, "Name": "pem", store: "x.pem"},
        {**base, "Name": "p12", store: "x.p12", password: "pw"},
        {**base, "Name": "locked", store: "x.p12", password: "no"},
        {**base, "Name": "lost", store: "y.pem"},
        {**base, "Name": "alone", store: "alone.p12", password: "pw"},
        {**base, "Name": "empty", store: "x.pem", "clientSecret": ""},
    )
    assert desk.find("pem")["authTokens"][0]["type"] == "Bearer"
    assert desk.find("p12")["authTokens"][0]["type"] == "Bearer"
    errors = {
        name: desk.find(name)["authTokens"][0]["error"] for name in ("locked", "lost", "alone", "empty")
    }
    assert errors == {
        "locked": "The keystore 'x.p12' cannot be opened",
        "lost": "The keystore 'y.pem' was not found",
        "alone": "The keystore 'alone.p12' holds no certificate",
        "empty": "Bad credentials",
    }
    assert desk.find("pem")["certificates"] == []
    assert desk.find("pem", "?$skipTokenRetrieval=true")["certificates"] == [stores[0]]


def test_8_4_the_certificate_of_a_destination_comes_along(desk: Desk) -> None:
    desk.made(CERTIFICATE, where=f"{V1}/subaccountCertificates")
    mutual = {
        **PLAIN,
        "Authentication": "ClientCertificateAuthentication",
        "KeyStoreLocation": "x.p12",
        "KeyStorePassword": "pw",
    }
    desk.made(mutual)
    desk.made({**mutual, "Name": "own"}, where=OWN)
    for name in ("plain", "own"):
        found = desk.find(name)
        assert (found["certificates"], "authTokens" in found) == ([CERTIFICATE], False)


def test_8_3_an_authentication_that_the_sandbox_cannot_do_says_so(desk: Desk) -> None:
    desk.made({**PLAIN, "Authentication": "OAuth2SAMLBearerAssertion"})
    answer = desk.ask("GET", f"{FIND}/plain")
    assert (answer.status, answer.data()["error"]["code"]) == (501, "NotEmulated")
    assert "OAuth2SAMLBearerAssertion" in answer.data()["error"]["message"]
    assert desk.ask("GET", f"{FIND}/plain?$skipTokenRetrieval=true").status == 200


# 8.4 Errors, 11 faults, other routes -------------------------------------------------------------------------------


def test_8_4_an_error_may_be_plain_text_or_a_json_string() -> None:
    text = GONE["ErrorMessage"]
    for shape, body in (("text", text.encode()), ("string", json.dumps(text).encode())):
        desk = Desk(settings={"destination_errors": shape})
        answer = desk.ask("GET", f"{LIST}/nothing")
        assert (answer.status, answer.body) == (404, body)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"{V1}/subaccountCertificates/x.p12/publicKeys"),
        ("GET", f"{V1}/saml2Metadata"),
        ("POST", f"{V1}/saml2Metadata/certificate"),
        ("GET", "/destination-configuration/v2/destinations/plain@subaccount"),
        ("DELETE", "/destination-configuration/maintenance/v1/caches/ias"),
    ],
)
def test_8_2_a_route_that_is_left_out_says_so(desk: Desk, method: str, target: str) -> None:
    answer = desk.ask(method, target)
    assert (answer.status, answer.data()["error"]["route"]) == (501, f"{method} {target}")


@pytest.mark.parametrize("target", ["/", f"{V1}/destinations", f"{LIST}/a/b/c", "/destination-configuration"])
def test_8_2_a_route_that_the_platform_lacks_is_404(desk: Desk, target: str) -> None:
    assert desk.ask("GET", target).status == 404


def test_11_faults_befall_the_service_by_its_host(desk: Desk) -> None:
    desk.ask("GET", LIST)
    desk.sandbox.faults.add({"do": "503", "match": {"host": "destination-configuration.*"}, "times": 1})
    desk.sandbox.faults.add(
        {"do": "lose", "match": {"host": HOST, "method": "POST", "name": "plain"}, "times": 1}
    )
    assert desk.ask("GET", LIST).status == 503
    with pytest.raises(Lost):
        desk.ask("POST", LIST, PLAIN)
    assert desk.get(LIST) == [PLAIN]
    assert desk.ask("POST", LIST, PLAIN).status == 409


def test_11_faults_bend_lists(desk: Desk) -> None:
    desk.made(*({**PLAIN, "Name": f"d{number}"} for number in range(5)))
    before = desk.get(LIST)
    desk.sandbox.faults.add({"do": "small-pages", "size": 2, "match": {"host": HOST}})
    answer = desk.ask("GET", f"{LIST}?$page=1&$pageSize=100&$pageCount=true")
    assert (len(answer.data()), answer.header("Page-Count")) == (2, "3")
    desk.sandbox.faults.clear()
    desk.sandbox.faults.add({"do": "out-of-order", "seed": 3, "match": {"host": HOST}})
    after = desk.get(LIST)
    assert after != before
    assert names(after) == names(before)


def test_11_both_doors_give_the_same(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "world.json")
    sandbox.seed({"subaccounts": {"prod": {"subdomain": "prod-x1"}}})
    with serve(sandbox) as served:
        (key,) = served.access()["destination"].values()
        client = {"client_id": key["clientid"], "client_secret": key["clientsecret"]}
        token = requests.post(
            f"{key['url']}/oauth/token", data={"grant_type": "client_credentials", **client}, timeout=10
        ).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        base = f"{key['uri']}{V1}"
        made = oauth(
            clientId=key["clientid"],
            clientSecret=key["clientsecret"],
            tokenServiceURL=f"{key['url']}/oauth/token",
        )
        posted = requests.post(f"{base}/subaccountDestinations", json=made, headers=headers, timeout=10)
        assert (posted.status_code, posted.content) == (201, b"")
        found = requests.get(f"{base}/destinations/acme-orders", headers=headers, timeout=10).json()
        assert found["authTokens"][0]["type"] == "Bearer"
    assert Sandbox(tmp_path / "world.json").snapshot() == sandbox.snapshot()


# Seed and snapshot -------------------------------------------------------------------------------------------------


def test_a_seed_plants_destinations_and_leaves_what_is_there() -> None:
    document = {"subaccounts": {"prod": {"subdomain": "prod-x1", "destinations": [PLAIN, BASIC]}}}
    desk = Desk(document=document)
    assert sorted(desk.get(LIST), key=str) == sorted([PLAIN, BASIC], key=str)
    changed = {**PLAIN, "URL": "https://y.example"}
    desk.ask("PUT", LIST, changed)
    desk.sandbox.seed({"subaccounts": {"prod": {"destinations": [PLAIN, OTHER]}}})
    assert sorted(desk.get(LIST), key=str) == sorted([changed, BASIC, OTHER], key=str)
    with pytest.raises(ValueError, match="subaccount 'prod': The value of property 'port' must be a string"):
        desk.sandbox.seed({"subaccounts": {"prod": {"destinations": [{**PLAIN, "port": 1}]}}})


def test_a_snapshot_holds_no_secret_and_tells_whose_key_it_is(desk: Desk) -> None:
    key = desk.named("service_bindings", "k1")["credentials"]["uaa"]
    desk.made(oauth(clientId=key["clientid"], clientSecret=key["clientsecret"]), BASIC)
    desk.ask("PUT", f"{LIST}/basic/labels", [{"key": "a", "values": ["2", "1"]}])
    desk.made(CERTIFICATE, where=f"{V1}/subaccountCertificates")
    desk.made(FRAGMENT, where=f"{V1}/instanceDestinationFragments")
    shown = desk.sandbox.snapshot()
    assert shown["destinations"]["prod"]["acme-orders"] == oauth(
        clientId="client of prod/afc/k1", clientSecret="secret of prod/afc/k1"
    )
    password = shown["destinations"]["prod"]["basic"].pop("Password")
    assert re.fullmatch(r"sha256:[0-9a-f]{12}", password)
    assert shown["destinations"]["prod"]["basic"] == {
        **{name: value for name, value in BASIC.items() if name != "Password"},
        "$labels": {"a": ["1", "2"]},
    }
    (content,) = (
        one.pop("Content") for one in shown["destination_certificates"]["subaccount"]["prod"].values()
    )
    assert re.fullmatch(r"sha256:[0-9a-f]{12}", content)
    assert shown["destination_certificates"] == {
        "subaccount": {"prod": {"x.p12": {"Name": "x.p12", "Type": "CERTIFICATE"}}}
    }
    assert shown["destination_fragments"] == {"instance": {"prod": {"destination/lite": {"f": FRAGMENT}}}}
    text = json.dumps(desk.sandbox.snapshot())
    assert key["clientsecret"] not in text
    assert "p:w" not in text


def test_worlds_that_differ_in_a_secret_differ_in_the_snapshot(desk: Desk) -> None:
    desk.made(BASIC)
    before = desk.sandbox.snapshot()
    desk.ask("PUT", LIST, {**BASIC, "Password": "other"})
    assert desk.sandbox.snapshot() != before
    desk.ask("PUT", LIST, BASIC)
    assert desk.sandbox.snapshot() == before


def test_destinations_go_with_their_subaccount(desk: Desk) -> None:
    desk.made(PLAIN)
    desk.ask("POST", LIST, PLAIN, who="managed")
    token = desk.token(desk.access["destination"][desk.ids["managed"]])
    desk.central("DELETE", f"/accounts/v1/subaccounts/{desk.ids['managed']}")
    for _ in range(4):
        desk.central("GET", f"/accounts/v1/subaccounts/{desk.ids['managed']}")
    assert desk.ask("GET", LIST, token=token).status == 401
    assert desk.sandbox.snapshot()["destinations"] == {"prod": {"plain": PLAIN}}
    assert set(desk.sandbox.access()["destination"]) == {desk.prod, desk.ids["other"]}
