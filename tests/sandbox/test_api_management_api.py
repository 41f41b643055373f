"""What a key of API Management opens, by the role of its instance, and what it does not.

Sections are those of the reference page on AFC and API Management ("AFC 2.4") and of that on the platform ("BTP 6.8").
"""

from __future__ import annotations

import base64
import itertools
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus
from xml.etree import ElementTree as ET

import pytest

from btp_reconcile.sandbox import Response, Sandbox
from tests.sandbox.api_keys import (
    AFC,
    EVERY_PLAN,
    HUB,
    ON_PREMISE,
    PORTAL,
    TRIAL,
    WORLD,
    ask_token,
    basic,
    client_of,
    get,
    issue,
    made,
    send,
    token,
)
from tests.sandbox.btp_client import Btp

if TYPE_CHECKING:
    from pathlib import Path

MANAGEMENT = "/apiportal/api/1.0/Management.svc"
PROXIES = f"{MANAGEMENT}/APIProxies?$top=1&$format=json"
PRODUCTS = f"{MANAGEMENT}/APIProducts?$top=1"
METADATA = f"{MANAGEMENT}/$metadata"
VIRTUAL_HOSTS = f"{MANAGEMENT}/VirtualHosts"
HEALTH = "/api/1.0/Health"
TRANSPORT = "/api/1.0/transportmodule/Transport"
APPLICATIONS = "/odata/1.0/data.svc/APIMgmt.Applications?$top=1"
REGISTRATIONS = "/api/1.0/registrations?type=registered"

ADMINISTRATOR, GUEST = "APIPortal.Administrator", "APIPortal.Guest"
CATALOGUE, SELF_SERVICE = "APIPortal.Service.CatalogIntegration", "APIManagement.SelfService.Administrator"
API_ADMIN, DEVELOPER = "AuthGroup.API.Admin", "AuthGroup.API.ApplicationDeveloper"
CONTENT, REVIEWER = "AuthGroup.Content.Admin", "AuthGroup.External.Reviewer"

PORTAL_OPENS = {
    PROXIES: {ADMINISTRATOR, GUEST},
    PRODUCTS: {ADMINISTRATOR, GUEST},
    METADATA: {ADMINISTRATOR, GUEST},
    VIRTUAL_HOSTS: {SELF_SERVICE},
    HEALTH: {SELF_SERVICE},
    TRANSPORT: {ADMINISTRATOR},
}
HUB_OPENS = {APPLICATIONS: {API_ADMIN, DEVELOPER}, REGISTRATIONS: {API_ADMIN}, HEALTH: {API_ADMIN}}
WRONG_CLIENT = {"error": "invalid_client", "error_description": "Bad credentials"}


@pytest.fixture
def sandbox() -> Sandbox:
    return made()


def payload(text: str) -> dict[str, Any]:
    body = text.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def html(answer: Response) -> bool:
    return (answer.header("Content-Type") or "").startswith("text/html") and b"<!doctype html>" in answer.body


# Tokens (AFC 2.4 to 2.6, 3.1) ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", EVERY_PLAN, ids="/".join)
def test_every_key_gets_a_token_of_its_zone_for_twelve_hours(sandbox: Sandbox, plan: tuple[str, str]):
    key = issue(sandbox, plan)
    answer = ask_token(sandbox, key).data()
    said = payload(answer["access_token"])
    with sandbox.hold() as world:
        account = next(row["id"] for row in world.rows("subaccounts").values() if row["name"] == "prod")

    assert (answer["token_type"], answer["expires_in"]) == ("bearer", 43199)
    assert said["exp"] - said["iat"] == 43200
    assert said["client_id"] == said["cid"] == client_of(key)[0]
    assert said["zid"] == account
    assert client_of(key)[0] in said["aud"]
    assert answer["scope"].split() == said["scope"]
    assert said["scope"]


@pytest.mark.parametrize(
    ("plan", "role"),
    [
        *((PORTAL, role) for role in (ADMINISTRATOR, GUEST, CATALOGUE, SELF_SERVICE)),
        *((HUB, role) for role in (API_ADMIN, CONTENT, REVIEWER, DEVELOPER)),
    ],
)
def test_the_scope_of_a_token_is_that_of_the_role_and_of_no_other(
    sandbox: Sandbox, plan: tuple[str, str], role: str
):
    key = issue(sandbox, plan, role=role)

    family = client_of(key)[0].rpartition("|")[2]
    assert payload(token(sandbox, key))["scope"] == [f"{family}.{role}"]


def test_a_key_without_a_role_has_what_every_client_has(sandbox: Sandbox):
    assert payload(token(sandbox, issue(sandbox, ON_PREMISE)))["scope"] == ["uaa.resource"]


def secrets_with(sign: str, without: str = " ") -> tuple[Sandbox, dict[str, Any]]:
    """A key whose secret has one sign and not another; every few keys are so."""
    sandbox = made()
    keys = (issue(sandbox, PORTAL) for _ in range(50))
    return sandbox, next(
        key for key in keys if sign in client_of(key)[1] and without not in client_of(key)[1]
    )


@pytest.mark.parametrize("sign", ["+", "=", "$", "|"])
def test_a_secret_with_signs_survives_a_form_that_was_encoded(sign: str):
    sandbox, key = secrets_with(sign)

    assert ask_token(sandbox, key).status == 200


@pytest.mark.parametrize("sign", ["=", "$", "|"])
def test_a_secret_with_signs_survives_a_basic_header(sign: str):
    sandbox, key = secrets_with(sign, without="+")

    assert ask_token(sandbox, key, headers=basic(*client_of(key))).status == 200


def test_btp_1_3_a_plus_sign_is_lost_in_a_form_or_header_as_it_is_and_kept_when_both_are_encoded():
    sandbox, key = secrets_with("+")
    name, secret = client_of(key)
    bare = f"grant_type=client_credentials&client_id={quote_plus(name)}&client_secret={secret}"
    encoded = {**basic(quote_plus(name), quote_plus(secret)), "X-CF-ENCODED-CREDENTIALS": "true"}

    answers = [
        ask_token(sandbox, key, body=bare.encode()),
        ask_token(sandbox, key, headers=basic(name, secret)),
        ask_token(sandbox, key, headers=basic(quote_plus(name), quote_plus(secret))),
        ask_token(sandbox, key, headers=encoded),
    ]

    assert [answer.status for answer in answers] == [401, 401, 401, 200]
    assert all(answer.data() == WRONG_CLIENT for answer in answers[:3])


def test_a_key_is_a_client_of_its_own_zone_only(sandbox: Sandbox):
    key = issue(sandbox, PORTAL)
    elsewhere = {**key, "tokenUrl": "https://other-x1.authentication.eu10.hana.ondemand.com/oauth/token"}

    assert ask_token(sandbox, elsewhere).data() == WRONG_CLIENT


@pytest.mark.parametrize(
    "url",
    [
        "https://prod-x1.authentication.eu10.hana.ondemand.com/oauth/token/oauth/token",
        "https://nobody.authentication.eu10.hana.ondemand.com/oauth/token",
        "https://prod-x1.authentication.eu10.hana.ondemand.com/",
    ],
    ids=["doubled path", "unknown zone", "no path"],
)
def test_afc_3_1_a_wrong_token_address_is_a_404_page(sandbox: Sandbox, url: str):
    answer = ask_token(sandbox, {**issue(sandbox, PORTAL), "tokenUrl": url})

    assert (answer.status, html(answer)) == (404, True)


def test_a_changed_role_is_in_new_tokens_and_not_in_old_ones():
    btp = Btp(settings={"apim_role_update": "accept"})
    instance = btp.instance("apim", *PORTAL, parameters={"role": GUEST})
    key = btp.binding("k", instance)["credentials"]
    before = token(btp.sandbox, key)
    changed = btp.manager(
        "PATCH", f"/v1/service_instances/{instance}?async=false", {"parameters": {"role": ADMINISTRATOR}}
    )
    after = token(btp.sandbox, key)

    assert changed.status == 200
    assert [payload(one)["scope"][0].partition(".")[2] for one in (before, after)] == [GUEST, ADMINISTRATOR]
    assert get(btp.sandbox, key["url"] + TRANSPORT, before).status == 403
    assert get(btp.sandbox, key["url"] + TRANSPORT, after).status == 200


# A deleted key (BTP 6.8) -----------------------------------------------------------------------------------------------


def check_that_it_dies(sandbox: Sandbox, key: dict[str, Any], url: str, delete: Any) -> None:
    kept = token(sandbox, key)
    delete()
    answer = ask_token(sandbox, key)

    assert (answer.status, answer.data()) == (401, WRONG_CLIENT)
    assert get(sandbox, url, kept).status == 200  # until it expires
    with sandbox.hold() as world:
        world.advance(43201)
    assert get(sandbox, url, kept).status == 401


@pytest.mark.parametrize(
    ("plan", "path"), [(PORTAL, PROXIES), (AFC, "/Users?count=1")], ids=["api management", "afc"]
)
def test_btp_6_8_deleting_a_binding_ends_its_secret_and_not_its_tokens(plan: tuple[str, str], path: str):
    btp = Btp()
    btp.assign(*plan, enable=True)
    btp.settled(*plan)
    for _ in range(3):
        btp.manager("GET", "/v1/service_plans")
    bound = btp.binding("k", btp.instance("one", *plan))
    key = bound["credentials"]

    def delete() -> None:
        answer = btp.manager("DELETE", f"/v1/service_bindings/{bound['id']}?async=false")
        assert answer.status == 200

    base = key["url"] if plan == PORTAL else key["endpoints"]["scim2"]
    check_that_it_dies(btp.sandbox, key, base + path, delete)


@pytest.mark.parametrize(
    ("plan", "path"), [(PORTAL, PROXIES), (AFC, "/Users?count=1")], ids=["api management", "afc"]
)
def test_btp_6_8_deleting_a_service_key_ends_its_secret_and_not_its_tokens(plan: tuple[str, str], path: str):
    sandbox = made()
    instance = {"name": "one", "space": "apis", "service": plan[0], "plan": plan[1], "keys": [{"name": "k"}]}
    sandbox.seed({"subaccounts": {"prod": {**WORLD["subaccounts"]["prod"], "instances": [instance]}}})
    with sandbox.hold() as world:
        guid, row = next(iter(world.rows("cf.service_credential_bindings").items()))
    key = row["credentials"]
    login = sandbox.access()["cloud_foundry"]["eu10-004"]
    form = f"grant_type=password&username={login['username']}&password={login['password']}".encode()
    user = send(
        sandbox,
        "POST",
        "https://uaa.cf.eu10-004.hana.ondemand.com/oauth/token",
        headers=basic("cf", ""),
        body=form,
    ).data()["access_token"]

    def delete() -> None:
        gone = send(sandbox, "DELETE", f"{login['api']}/v3/service_credential_bindings/{guid}", token=user)
        job = gone.header("Location") or ""
        states = (get(sandbox, job, user).data()["state"] for _ in range(20))
        assert "COMPLETE" in states

    base = key["url"] if plan == PORTAL else key["endpoints"]["scim2"]
    check_that_it_dies(sandbox, key, base + path, delete)


# Roles and paths (AFC 3.2) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "path"),
    list(itertools.product((ADMINISTRATOR, GUEST, CATALOGUE, SELF_SERVICE), PORTAL_OPENS)),
)
def test_afc_3_2_the_role_decides_what_opens_at_the_api_portal(sandbox: Sandbox, role: str, path: str):
    key = issue(sandbox, PORTAL, role=role)

    wanted = 200 if role in PORTAL_OPENS[path] else 403
    assert get(sandbox, key["url"] + path, token(sandbox, key)).status == wanted


@pytest.mark.parametrize(
    ("role", "path"), list(itertools.product((API_ADMIN, DEVELOPER, CONTENT, REVIEWER), HUB_OPENS))
)
def test_afc_3_2_the_role_decides_what_opens_at_the_developer_hub(sandbox: Sandbox, role: str, path: str):
    key = issue(sandbox, HUB, role=role)

    wanted = 200 if role in HUB_OPENS[path] else 403
    assert get(sandbox, key["url"] + path, token(sandbox, key)).status == wanted


def test_a_key_of_a_trial_plan_opens_the_same(sandbox: Sandbox):
    key = issue(sandbox, TRIAL)

    assert get(sandbox, key["url"] + PROXIES, token(sandbox, key)).status == 200


@pytest.mark.parametrize("path", [PROXIES, TRANSPORT])
def test_afc_3_2_no_other_client_of_the_zone_opens_the_api_portal(sandbox: Sandbox, path: str):
    url = issue(sandbox, PORTAL)["url"] + path

    for plan in (AFC, ON_PREMISE, HUB):
        assert get(sandbox, url, token(sandbox, issue(sandbox, plan))).status == 403


def test_a_token_narrowed_to_nothing_useful_is_refused_when_it_is_asked_for(sandbox: Sandbox):
    answer = ask_token(sandbox, issue(sandbox, PORTAL), scope="openid")

    assert (answer.status, answer.data()["error"]) == (400, "invalid_scope")


def expired(sandbox: Sandbox) -> str:
    found = token(sandbox, issue(sandbox, PORTAL))
    with sandbox.hold() as world:
        world.advance(43200)
    return found


def revoked(sandbox: Sandbox) -> str:
    found = token(sandbox, issue(sandbox, PORTAL))
    with sandbox.hold() as world:
        world.table("revoked")[payload(found)["jti"]] = world.now()
    return found


def of_cloud_foundry(sandbox: Sandbox) -> str:
    login = sandbox.access()["cloud_foundry"]["eu10-004"]
    form = f"grant_type=password&username={login['username']}&password={login['password']}".encode()
    url = "https://uaa.cf.eu10-004.hana.ondemand.com/oauth/token"
    return str(send(sandbox, "POST", url, headers=basic("cf", ""), body=form).data()["access_token"])


def changed(sandbox: Sandbox) -> str:
    head, body, signature = token(sandbox, issue(sandbox, PORTAL, role=GUEST)).split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    said["scope"] = [one.replace(GUEST, ADMINISTRATOR) for one in said["scope"]]
    return ".".join(
        (head, base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode(), signature)
    )


@pytest.mark.parametrize(
    "bearer",
    [
        lambda sandbox: None,
        lambda sandbox: "nonsense",
        expired,
        revoked,
        of_cloud_foundry,
        changed,
        lambda sandbox: token(sandbox, issue(sandbox, PORTAL, "other")),
        lambda sandbox: token(sandbox, issue(sandbox, PORTAL, "far")),
    ],
    ids=[
        *("missing", "no token", "expired", "revoked", "of Cloud Foundry", "changed"),
        *("of another zone", "of another region"),
    ],
)
@pytest.mark.parametrize("path", [PROXIES, TRANSPORT])
def test_afc_3_2_a_token_that_does_not_count_is_401(sandbox: Sandbox, bearer: Any, path: str):
    url = issue(sandbox, PORTAL)["url"] + path
    answer = get(sandbox, url, bearer(sandbox))

    assert (answer.status, answer.header("WWW-Authenticate")) == (401, 'Bearer error="invalid_token"')


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/apiportal/apiportal/api/1.0/Management.svc/APIProxies",
        f"{MANAGEMENT}/Nothing",
        "/api/1.0/health",
    ],
)
def test_afc_3_2_a_path_that_nobody_serves_is_a_404_page(sandbox: Sandbox, path: str):
    key = issue(sandbox, PORTAL)
    answer = get(sandbox, key["url"] + path, token(sandbox, key))

    assert (answer.status, html(answer)) == (404, True)


def test_what_a_client_asks_for_is_no_markup_on_the_page(sandbox: Sandbox):
    answer = get(sandbox, issue(sandbox, PORTAL)["url"] + "/%3Cscript%3E")

    assert b"&lt;script&gt;" in answer.body


@pytest.mark.parametrize(
    ("capability", "plan", "path"),
    [("api_management", PORTAL, PROXIES), ("developer_hub", HUB, APPLICATIONS)],
)
def test_afc_3_2_a_capability_that_is_not_active_is_404_until_it_is(
    sandbox: Sandbox, capability: str, plan: tuple[str, str], path: str
):
    key = issue(sandbox, plan)
    bearer = token(sandbox, key)

    def status(active: bool | None = None) -> tuple[int, bool]:
        if active is not None:
            sandbox.seed({"subaccounts": {"prod": {"capabilities": {capability: active}}}})
        answer = get(sandbox, key["url"] + path, bearer)
        return answer.status, html(answer)

    assert [status(), status(False), status(True)] == [(200, False), (404, True), (200, False)]


def test_a_host_of_no_account_is_the_router_s_404(sandbox: Sandbox):
    host = "nobody-apiportal.cfapps.eu10.hana.ondemand.com"
    answers = [get(sandbox, f"https://{host}{path}") for path in (PROXIES, "/")]

    assert [(one.status, one.header("X-Cf-RouterError")) for one in answers] == [(404, "unknown_route")] * 2


@pytest.mark.parametrize("status", [404, 405])
def test_what_the_transport_path_says_to_a_get_is_a_setting(status: int):
    sandbox = made(apim_transport=status)
    key = issue(sandbox, PORTAL)

    assert get(sandbox, key["url"] + TRANSPORT, token(sandbox, key)).status == status


# What is answered ------------------------------------------------------------------------------------------------------


def test_lists_are_empty_at_first(sandbox: Sandbox):
    key = issue(sandbox, PORTAL)
    answer = get(sandbox, key["url"] + PROXIES, token(sandbox, key))

    assert answer.data() == {"d": {"results": []}}
    assert answer.header("DataServiceVersion") == "2.0"


@pytest.fixture
def filled(sandbox: Sandbox) -> Sandbox:
    contents = {
        "proxies": ["orders", {"name": "invoices", "title": "Invoices"}],
        "applications": ["a1"],
        "developers": ["P1", {"userId": "P2", "type": "pending"}],
    }
    sandbox.seed({"subaccounts": {"prod": {"api_management": contents}}})
    return sandbox


def proxies(sandbox: Sandbox, query: str, **headers: str) -> Response:
    key = issue(sandbox, PORTAL)
    return get(sandbox, f"{key['url']}{MANAGEMENT}/APIProxies{query}", token(sandbox, key), **headers)


def test_lists_can_be_cut_and_counted(filled: Sandbox):
    url = f"https://prod-x1-apiportal.cfapps.eu10.hana.ondemand.com{MANAGEMENT}/APIProxies('invoices')"

    assert proxies(filled, "?$top=1&$skip=1&$inlinecount=allpages").data() == {
        "d": {
            "__count": "2",
            "results": [
                {
                    "__metadata": {"id": url, "uri": url, "type": "apiportal.APIProxy"},
                    "name": "invoices",
                    "title": "Invoices",
                }
            ],
        }
    }
    assert proxies(filled, "?$top=0").data() == {"d": {"results": []}}


def test_json_is_for_those_who_ask_for_it(filled: Sandbox):
    by_header = proxies(filled, "")
    by_query = proxies(filled, "?$format=json", Accept="*/*")
    neither = proxies(filled, "", Accept="*/*")

    assert by_header.data() == by_query.data()
    assert neither.header("Content-Type") == "application/atom+xml;type=feed;charset=utf-8"
    assert len(ET.fromstring(neither.body).findall("{http://www.w3.org/2005/Atom}entry")) == 2


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?$top=x", 400),
        ("?$top=-1", 400),
        ("?$skip=1.5", 400),
        ("?$count=true", 400),
        ("?$inlinecount=some", 400),
        ("?$format=yaml", 415),
        ("?$filter=name eq 'orders'", 501),
        ("?colour=red", 200),
    ],
)
def test_query_options_are_those_of_odata_2(filled: Sandbox, query: str, status: int):
    assert proxies(filled, query).status == status


def test_the_description_of_the_service_is_xml(sandbox: Sandbox):
    key = issue(sandbox, PORTAL, role=GUEST)
    answer = get(sandbox, key["url"] + METADATA, token(sandbox, key))
    names = {one.get("Name") for one in ET.fromstring(answer.body).iter() if one.tag.endswith("}EntitySet")}

    assert answer.header("Content-Type") == "application/xml;charset=utf-8"
    assert names == {"APIProxies", "APIProducts", "VirtualHosts"}


def test_the_developer_hub_lists_applications_and_developers(filled: Sandbox):
    key = issue(filled, HUB)
    bearer = token(filled, key)
    applications = get(filled, key["url"] + APPLICATIONS, bearer).data()["d"]["results"]

    assert [row["id"] for row in applications] == ["a1"]
    assert get(filled, key["url"] + REGISTRATIONS, bearer).data() == [{"userId": "P1"}]
    assert get(filled, f"{key['url']}/api/1.0/registrations?type=pending", bearer).data() == [
        {"userId": "P2", "type": "pending"}
    ]
    assert get(filled, f"{key['url']}/api/1.0/registrations", bearer).status == 400


def test_the_first_virtual_host_and_its_certificate_are_there(sandbox: Sandbox):
    key = issue(sandbox, PORTAL, role=SELF_SERVICE)
    bearer = token(sandbox, key)
    hosts = get(sandbox, key["url"] + VIRTUAL_HOSTS, bearer).data()["d"]["results"]

    assert [row["virtual_host"] for row in hosts] == ["prod-x1.prod.apimanagement.eu10.hana.ondemand.com"]
    assert get(sandbox, key["url"] + HEALTH, bearer).data() == {
        "status": "OK",
        "certificates": [{"virtualHost": "default", "status": "OK"}],
    }


# Writes ----------------------------------------------------------------------------------------------------------------


def write(sandbox: Sandbox, key: dict[str, Any], bearer: str, forgery: str | None = None) -> Response:
    headers = {} if forgery is None else {"x-csrf-token": forgery}
    url = f"{key['url']}{MANAGEMENT}/APIProxies"
    return send(sandbox, "POST", url, token=bearer, headers=headers, body=b"{}")


def test_a_write_needs_a_csrf_token_that_was_fetched(sandbox: Sandbox):
    key = issue(sandbox, PORTAL)
    bearer = token(sandbox, key)
    without = write(sandbox, key, bearer)
    fetched = get(sandbox, key["url"] + PROXIES, bearer, x_csrf_token="Fetch").header("x-csrf-token")
    unasked = get(sandbox, key["url"] + PROXIES, bearer).header("x-csrf-token")

    assert (without.status, without.body) == (403, b"CSRF token required")
    assert without.header("x-csrf-token") == "Required"
    assert unasked is None
    assert write(sandbox, key, bearer, "wrong").status == 403
    assert write(sandbox, key, bearer, fetched).status == 501


def test_a_guest_may_not_write_and_a_stranger_not_even_ask(sandbox: Sandbox):
    key = issue(sandbox, PORTAL, role=GUEST)
    bearer = token(sandbox, key)
    fetched = get(sandbox, key["url"] + PROXIES, bearer, x_csrf_token="Fetch").header("x-csrf-token")

    assert b"lacks the scope" in write(sandbox, key, bearer, fetched).body
    assert write(sandbox, key, "nonsense").status == 401


# The world -------------------------------------------------------------------------------------------------------------


def test_another_process_finds_the_same_keys_capabilities_and_contents(tmp_path: Path):
    first = Sandbox(tmp_path / "world.json")
    first.seed(WORLD)
    key = issue(first, PORTAL)
    bearer = token(first, key)
    contents = {"capabilities": {"developer_hub": False}, "api_management": {"proxies": ["orders"]}}
    first.seed({"subaccounts": {"prod": contents}})
    fetched = get(first, key["url"] + PROXIES, bearer, x_csrf_token="Fetch").header("x-csrf-token")
    second = Sandbox(tmp_path / "world.json")

    rows = get(second, key["url"] + PROXIES, bearer).data()["d"]["results"]
    assert [row["name"] for row in rows] == ["orders"]
    assert ask_token(second, key).status == 200
    assert get(second, issue(second, HUB)["url"] + APPLICATIONS, bearer).status == 404
    assert write(second, key, bearer, fetched).status == 501
    assert second.snapshot() == first.snapshot()


def test_a_snapshot_tells_only_of_what_was_seeded(sandbox: Sandbox):
    assert "api_management" not in sandbox.snapshot()
    sandbox.seed({"subaccounts": {"prod": {"capabilities": {"api_management": False}}}})
    assert sandbox.snapshot()["api_management"] == {"prod": {"capabilities": {"api_management": False}}}


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        ({"do": "status", "status": 503, "match": {"host": "*-apiportal.*"}}, 503),
        ({"do": "html", "match": {"host": "prod-x1-apiportal.cfapps.eu10.hana.ondemand.com"}}, 502),
        ({"do": "expire-tokens", "match": {"host": "*-apiportal.*"}}, 401),
        ({"do": "status", "status": 503, "match": {"host": "*-devportal.*"}}, 200),
    ],
)
def test_faults_find_the_host(sandbox: Sandbox, rule: dict[str, Any], status: int):
    key = issue(sandbox, PORTAL)
    bearer = token(sandbox, key)
    sandbox.faults.add(rule)

    assert get(sandbox, key["url"] + PROXIES, bearer).status == status
