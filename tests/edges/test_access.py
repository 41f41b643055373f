"""Which door for which subaccount, and the whole way through it on a sandbox in this process."""

import json
import threading
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest

from btp_reconcile.core.errors import (
    HostRefused,
    LostResponse,
    PlatformError,
    SignInRefused,
    SpecError,
    Unreachable,
)
from btp_reconcile.core.model import CloudFoundry, Problem, Secret, Subaccount
from btp_reconcile.edges.access import Platform
from btp_reconcile.edges.client import Client
from btp_reconcile.edges.clock import MovingClock
from btp_reconcile.edges.door import ServiceDoor
from btp_reconcile.sandbox import Sandbox
from btp_reconcile.sandbox.doors import InProcessAdapter, serve
from tests.edges.test_client_tokens import jwt
from tests.edges.wire import API, SM, UAA, Rig, Said

PROD = Subaccount("prod", "id-prod", "eu10", CloudFoundry(API, "finance", "apis"))
TEST = Subaccount("test", "id-test", "eu10", CloudFoundry(API, "finance-test", "apis"))
BARE = Subaccount("bare", "id-bare", "eu10")

CENTRAL_KEY: dict[str, Any] = {
    "endpoints": {
        "entitlements_service_url": "https://entitlements-service.cfapps.eu10.hana.ondemand.com",
        "accounts_service_url": "https://accounts-service.cfapps.eu10.hana.ondemand.com/",
    },
    "grant_type": "client_credentials",
    "uaa": {"clientid": "sb-c!b1|x", "clientsecret": "s3cret+=$|", "url": "https://acme.authentication.eu10.hana.ondemand.com"},
}  # fmt: skip
SM_KEY: dict[str, Any] = {"clientid": "sb-sm", "clientsecret": "s3cret", "sm_url": SM, "url": "https://acme.authentication.eu10.hana.ondemand.com"}  # fmt: skip
PEM = {"certificate": "-----BEGIN CERTIFICATE-----\\nabc\\n-----END CERTIFICATE-----\\n", "key": "-----BEGIN PRIVATE KEY-----\\nxyz\\n-----END PRIVATE KEY-----\\n"}  # fmt: skip
X509_KEY: dict[str, Any] = {"clientid": "sb-sm", "sm_url": SM, "certurl": "https://acme.authentication.cert.eu10.hana.ondemand.com", **PEM}  # fmt: skip
PASSWORD: dict[str, Any] = {
    "username": "dev@example.com",
    "password": Secret("CF_PASSWORD", "pa+ss"),
    "origin": "my-idp",
}


def answers(sent) -> Said:
    """A platform that knows everybody."""
    if sent.path.endswith("/oauth/token"):
        return Said(200, {"access_token": "token", "expires_in": 1199})
    return Said(
        200, {"links": {"uaa": {"href": UAA}, "login": {"href": "https://login.cf.eu10.hana.ondemand.com"}}}
    )


def platform(access=None, environment=None, home=None, script=answers) -> tuple[Platform, Rig]:
    rig = Rig(script)
    return Platform(rig.client, access or {}, environment or {}, home), rig


def problem(access, service="entitlements", place=PROD, **more) -> Problem:
    one, rig = platform(access, **more)
    with pytest.raises(SpecError) as caught:
        one.service(service, place)
    assert rig.sent == []
    (found,) = caught.value.problems
    for secret in ("s3cret", "pa+ss"):
        assert secret not in repr(found)
    assert caught.value.__context__ is None
    return found


# --- which door -----------------------------------------------------------------------------------------


def test_a_central_key_opens_two_services_with_one_sign_in():
    one, rig = platform({"prod": {"central": {"service_key": Secret("K", json.dumps(CENTRAL_KEY))}}})
    one.service("entitlements", PROD).get("/entitlements/v1/assignments")
    one.service("accounts", PROD).get("/accounts/v1/subaccounts")

    assert [sent.url for sent in rig.sent] == [
        "https://acme.authentication.eu10.hana.ondemand.com/oauth/token",
        "https://entitlements-service.cfapps.eu10.hana.ondemand.com/entitlements/v1/assignments",
        "https://accounts-service.cfapps.eu10.hana.ondemand.com/accounts/v1/subaccounts",
    ]
    assert rig.sent[0].form == {
        "grant_type": "client_credentials",
        "client_id": "sb-c!b1|x",
        "client_secret": "s3cret+=$|",
    }


@pytest.mark.parametrize(
    "key",
    [
        CENTRAL_KEY,
        {"credentials": CENTRAL_KEY},
        json.dumps({"credentials": CENTRAL_KEY}),
        {**CENTRAL_KEY, "uaa": {**CENTRAL_KEY["uaa"], "url": "https://acme.authentication.eu10.hana.ondemand.com/oauth/token"}},
        {**CENTRAL_KEY, "uaa": {**CENTRAL_KEY["uaa"], "clientsecret": Secret("s", "s3cret+=$|")}},
    ],
)  # fmt: skip
def test_a_service_key_in_any_wrapping(key):
    one, rig = platform({"prod": {"central": {"service_key": key}}})
    one.service("accounts", PROD).get("/x")

    assert rig.sent[0].path == "/oauth/token"
    assert rig.sent[0].form["client_secret"] == "s3cret+=$|"


def test_a_key_for_users_takes_one():
    key = {**CENTRAL_KEY, "grant_type": "user_token"}
    one, rig = platform({"prod": {"central": {"service_key": key, "username": "dev", "password": "pa+ss"}}})
    door = one.service("accounts", PROD)
    door.get("/x")

    assert rig.sent[0].form == {
        "grant_type": "password",
        "username": "dev",
        "password": "pa+ss",
        "client_id": "sb-c!b1|x",
        "client_secret": "s3cret+=$|",
    }
    assert door.scope == "https://accounts-service.cfapps.eu10.hana.ondemand.com as dev with sb-c!b1|x"


def test_a_key_for_users_needs_one():
    found = problem({"prod": {"central": {"service_key": {**CENTRAL_KEY, "grant_type": "user_token"}}}})

    assert found.code == "access/key"
    assert "username and password" in found.hint


@pytest.mark.parametrize("key", [X509_KEY, {**X509_KEY, "certurl": None, "certUrl": X509_KEY["certurl"]}])
def test_a_certificate_is_shown_at_its_own_host(key):
    one, rig = platform({"prod": {"service_manager": {"service_key": key}}})
    one.service("service_manager", PROD).get("/v1/x")
    sent = rig.sent[0]

    assert sent.url == "https://acme.authentication.cert.eu10.hana.ondemand.com/oauth/token"
    assert sent.form == {"grant_type": "client_credentials", "client_id": "sb-sm"}
    assert sent.certificate == (
        "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----\nxyz\n-----END PRIVATE KEY-----\n",
    )
    assert rig.sent[1].certificate == ()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("s3cret {", "is no JSON object"),
        ("[" * 100_000, "is no JSON object"),
        ('["s3cret"]', "is no JSON object"),
        ({"endpoints": {}, "uaa": {}}, "has no endpoints.entitlements_service_url"),
        ({"endpoints": 5}, "has no endpoints.entitlements_service_url"),
        ({"endpoints": CENTRAL_KEY["endpoints"]}, "has no uaa"),
        ({**CENTRAL_KEY, "uaa": {"clientid": "c"}}, "lacks one of clientid, clientsecret and url"),
        ({**CENTRAL_KEY, "uaa": {"clientid": "c", "url": "u", **PEM}}, "lacks one of"),
        ({**CENTRAL_KEY, "uaa": {"clientid": "c", "certurl": "u", **PEM, "key": "s3cret"}}, "lacks one of"),
    ],
)
def test_a_key_of_another_shape_is_the_specs_problem(key, words):
    found = problem({"prod": {"central": {"service_key": key}}})

    assert found.code == "access/key"
    assert found.message.startswith("access.central of subaccount prod ")
    assert words in found.message
    assert found.hint


@pytest.mark.parametrize(("service", "section"), [("entitlements", "central"), ("accounts", "central"), ("service_manager", "service_manager"), ("cloud_foundry", "cloud_foundry")])  # fmt: skip
def test_nothing_to_sign_in_with(service, section):
    one, _ = platform()

    assert not one.has(service, PROD)
    found = problem({}, service)
    assert (found.code, found.message) == ("access/none", f"access.{section} of subaccount prod is missing")


def test_a_section_that_is_no_mapping():
    assert "is no mapping" in problem({"prod": {"central": "s3cret"}}).message


def test_an_unknown_service_is_a_mistake_of_ours():
    one, _ = platform()

    with pytest.raises(ValueError, match="no service 'billing'"):
        one.service("billing", PROD)


def test_keys_may_come_from_the_environment():
    environment = {
        "BTP_CIS_CENTRAL_KEY": json.dumps(CENTRAL_KEY),
        "BTP_SERVICE_MANAGER_KEY": json.dumps(SM_KEY),
    }
    one, _ = platform({}, environment)

    for service in ("entitlements", "accounts", "service_manager"):
        assert one.has(service, PROD)
        assert one.service(service, PROD).service == service
    assert not one.has("cloud_foundry", PROD)


def test_the_spec_is_nearer_than_the_environment():
    one, rig = platform(
        {"prod": {"service_manager": {"service_key": SM_KEY}}}, {"BTP_SERVICE_MANAGER_KEY": "{"}
    )
    one.service("service_manager", PROD).get("/v1/x")

    assert rig.sent[0].form["client_id"] == "sb-sm"


def test_a_service_manager_key_opens_one_subaccount_only():
    """The key does not say whose it is; used twice, one subaccount's things would be made in another."""
    one, _ = platform({}, {"BTP_SERVICE_MANAGER_KEY": json.dumps(SM_KEY)})
    one.service("service_manager", PROD)
    one.service("service_manager", PROD)

    with pytest.raises(SpecError) as caught:
        one.service("service_manager", TEST)
    assert caught.value.problems[0].code == "access/shared-key"


def test_equal_endpoint_and_user_are_one_door():
    one, _ = platform(
        {"prod": {"cloud_foundry": PASSWORD}, "test": {"cloud_foundry": {**PASSWORD, "api": API + "/"}}}
    )

    assert one.service("cloud_foundry", PROD) is one.door("cloud_foundry", TEST)
    assert one.service("cloud_foundry", PROD).scope == f"{API} as dev@example.com (my-idp)"


@pytest.mark.parametrize("other", [{**PASSWORD, "username": "other"}, {**PASSWORD, "origin": ""}, {**PASSWORD, "api": "https://api.cf.eu20.hana.ondemand.com"}])  # fmt: skip
def test_another_user_or_endpoint_is_another_door(other):
    one, _ = platform({"prod": {"cloud_foundry": PASSWORD}, "test": {"cloud_foundry": other}})

    assert one.service("cloud_foundry", PROD) is not one.door("cloud_foundry", TEST)


# --- Cloud Foundry --------------------------------------------------------------------------------------


def test_cloud_foundry_says_itself_where_its_users_sign_in():
    one, rig = platform({"prod": {"cloud_foundry": PASSWORD}})
    door = one.service("cloud_foundry", PROD)
    door.get("/v3/x")
    door.get("/v3/x")

    assert [(sent.method, sent.url.partition("?")[0]) for sent in rig.sent] == [
        ("GET", API + "/"),
        ("POST", UAA + "/oauth/token"),
        ("GET", API + "/v3/x"),
        ("GET", API + "/v3/x"),
    ]
    assert "Authorization" not in rig.sent[0].headers
    assert rig.sent[1].query == {"login_hint": '{"origin":"my-idp"}'}


@pytest.mark.parametrize("links", [{"uaa": None, "login": {"href": "https://login.cf.eu10.hana.ondemand.com/"}}, {"login": {"href": "https://login.cf.eu10.hana.ondemand.com"}}])  # fmt: skip
def test_login_is_asked_where_there_is_no_uaa(links):
    def script(sent):
        return Said(200, {"links": links}) if sent.path == "/" else answers(sent)

    one, rig = platform({"prod": {"cloud_foundry": PASSWORD}}, script=script)
    one.service("cloud_foundry", PROD).get("/v3/x")

    assert rig.sent[1].url.startswith("https://login.cf.eu10.hana.ondemand.com/oauth/token?")


@pytest.mark.parametrize("root", [[], {}, {"links": None}, {"links": {"uaa": {"href": 5}}}, {"links": {"uaa": {}, "login": None}}])  # fmt: skip
def test_an_endpoint_that_is_no_cloud_foundry(root):
    one, rig = platform({"prod": {"cloud_foundry": PASSWORD}}, script=lambda _: Said(200, root))

    with pytest.raises(PlatformError, match="is this the API endpoint of a Cloud Foundry"):
        one.service("cloud_foundry", PROD).get("/v3/x")
    assert len(rig.sent) == 1


@pytest.mark.parametrize("href", ["https://evil.com", "http://uaa.cf.eu10.hana.ondemand.com", "https://evil.com#.hana.ondemand.com", "https://evil.cfapps.eu10.hana.ondemand.com"])  # fmt: skip
def test_a_password_does_not_follow_a_link_to_elsewhere(href):
    one, rig = platform(
        {"prod": {"cloud_foundry": PASSWORD}}, script=lambda _: Said(200, {"links": {"uaa": {"href": href}}})
    )

    with pytest.raises(HostRefused):
        one.service("cloud_foundry", PROD).get("/v3/x")
    assert [sent.url for sent in rig.sent] == [API + "/"]


@pytest.mark.parametrize("api", ["https://evil.cfapps.eu10.hana.ondemand.com", "https://evil.com", "api.cf.eu10.hana.ondemand.com"])  # fmt: skip
def test_an_endpoint_in_the_spec_cannot_send_a_password_elsewhere(api):
    one, rig = platform({"prod": {"cloud_foundry": {**PASSWORD, "api": api}}})

    with pytest.raises(HostRefused):
        one.service("cloud_foundry", PROD).get("/v3/x")
    assert rig.sent == []


@pytest.mark.parametrize("url", ["https://[bad", "https://evil.com", "", "x"])
def test_an_odd_endpoint_in_a_key_is_refused(url):
    """Whatever stands there: it is the user's text, so it is no mistake of ours."""
    endpoints = {"accounts_service_url": url or " "}
    one, rig = platform({"prod": {"central": {"service_key": {**CENTRAL_KEY, "endpoints": endpoints}}}})

    with pytest.raises(HostRefused):
        one.service("accounts", PROD).get("/x")
    assert rig.sent == []


@pytest.mark.parametrize("place", ["endpoints", "uaa"])
def test_nor_can_a_service_key(place):
    evil = {
        "uaa": {**CENTRAL_KEY["uaa"], "url": "https://evil.com"},
        "endpoints": {"accounts_service_url": "https://evil.com"},
    }
    one, rig = platform({"prod": {"central": {"service_key": {**CENTRAL_KEY, place: evil[place]}}}})

    with pytest.raises(HostRefused):
        one.service("accounts", PROD).get("/x")
    assert rig.sent == []


def test_many_threads_ask_the_root_and_sign_in_once():
    one, rig = platform({"prod": {"cloud_foundry": PASSWORD}})
    threads = [
        threading.Thread(target=lambda: one.service("cloud_foundry", PROD).get("/v3/x")) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert rig.client.counts == {("cloud_foundry", "GET"): 9, ("sign_in", "POST"): 1}


GRANTS = {
    "password": ({"CF_USER": "dev", "CF_PASSWORD": "p", "CF_ORIGIN": "o"}, "password"),
    "client": ({"CF_CLIENT_ID": "c", "CF_CLIENT_SECRET": "s"}, "client_credentials"),
    "assertion": ({"CF_ASSERTION_TOKEN": jwt(sub="x"), "CF_ORIGIN": "o"}, "urn:ietf:params:oauth:grant-type:jwt-bearer"),
    "assertion with client": ({"CF_ASSERTION_TOKEN": jwt(sub="x"), "CF_CLIENT_ID": "c", "CF_CLIENT_SECRET": "s"}, "urn:ietf:params:oauth:grant-type:jwt-bearer"),
    "refresh": ({"CF_REFRESH_TOKEN": "r"}, "refresh_token"),
    "ended token": ({"CF_ACCESS_TOKEN": jwt(exp=5), "CF_REFRESH_TOKEN": "r"}, "refresh_token"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRANTS)
def test_the_environment_opens_cloud_foundry(name):
    environment, grant = GRANTS[name]
    one, rig = platform({}, environment)

    assert one.has("cloud_foundry", PROD)
    assert not one.has("cloud_foundry", BARE)
    one.service("cloud_foundry", PROD).get("/v3/x")
    assert rig.sent[1].form["grant_type"] == grant


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"username": "dev"}, "holds only username"),
        ({"password": "pa+ss", "client_id": "c"}, "holds only client_id and password"),
        ({"client_secret": "s3cret"}, "holds only client_secret"),
    ],
)
def test_half_a_credential_is_named(given, words):
    one, _ = platform({"prod": {"cloud_foundry": given}})
    assert one.has("cloud_foundry", PROD)

    found = problem({"prod": {"cloud_foundry": given}}, "cloud_foundry")
    assert found.code == "access/key"
    assert words in found.message


def test_half_a_credential_in_the_environment_is_named_too():
    assert (
        "holds only username"
        in problem({}, "cloud_foundry", environment={"CF_USER": "dev", "CF_PASSWORD": ""}).message
    )


def test_an_origin_in_the_spec_goes_with_a_user_of_the_environment():
    one, _ = platform(
        {"prod": {"cloud_foundry": {"origin": "near"}}},
        {"CF_USER": "dev", "CF_PASSWORD": "p", "CF_ORIGIN": "far"},
    )

    assert one.service("cloud_foundry", PROD).scope.endswith("as dev (near)")


def test_a_subaccount_without_cloud_foundry_needs_an_endpoint():
    assert problem({"bare": {"cloud_foundry": PASSWORD}}, "cloud_foundry", BARE).code == "access/none"
    one, _ = platform({"bare": {"cloud_foundry": {**PASSWORD, "api": API}}})
    assert one.service("cloud_foundry", BARE).endpoint == API


def test_tokens_without_a_name_are_told_apart():
    one, _ = platform(
        {
            "prod": {"cloud_foundry": {"refresh_token": "r-1"}},
            "test": {"cloud_foundry": {"refresh_token": "r-2"}},
        }
    )

    assert one.service("cloud_foundry", PROD).user == "the holder of token 1"
    assert one.service("cloud_foundry", TEST).user == "the holder of token 2"
    assert one.service("cloud_foundry", PROD) is one.door("cloud_foundry", PROD)


# --- a session of the cf client -------------------------------------------------------------------------


def session(folder: Path, **fields) -> Path:
    (folder / ".cf").mkdir(exist_ok=True)
    config = folder / ".cf" / "config.json"
    data = {
        "Target": API,
        "AccessToken": "bearer " + jwt(exp=4_000_000_000, user_name="me", origin="my-idp"),
        "RefreshToken": "r-1",
        "UAAOAuthClient": "cf",
        "UAAOAuthClientSecret": "",
        **fields,
    }
    config.write_text(json.dumps(data))
    return config


@pytest.mark.parametrize("target", [API, API + "/", API.upper().replace("HTTPS", "https")])
def test_a_session_at_that_endpoint_is_used_and_not_touched(target, tmp_path):
    config = session(tmp_path, Target=target)
    before = (config.read_bytes(), config.stat().st_mtime_ns)
    one, rig = platform(home=tmp_path)

    assert one.has("cloud_foundry", PROD)
    door = one.service("cloud_foundry", PROD)
    door.get("/v3/x")
    assert door.scope == f"{API} as me (my-idp)"
    assert [sent.path for sent in rig.sent] == ["/", "/v3/x"]
    assert (config.read_bytes(), config.stat().st_mtime_ns) == before


def test_a_session_is_refreshed(tmp_path):
    session(tmp_path, AccessToken="bearer " + jwt(exp=5))
    one, rig = platform(home=tmp_path)
    one.service("cloud_foundry", PROD).get("/v3/x")

    assert rig.sent[1].form == {"grant_type": "refresh_token", "refresh_token": "r-1"}


def test_the_session_is_where_the_environment_says(tmp_path):
    session(tmp_path)
    one, _ = platform(environment={"CF_HOME": str(tmp_path)}, home=tmp_path / "elsewhere")

    assert one.has("cloud_foundry", PROD)


@pytest.mark.parametrize(
    "fields",
    [
        {"Target": "https://api.cf.eu20.hana.ondemand.com"},
        {"Target": API + ".evil.com"},
        {"Target": ""},
        {"Target": None},
        {"AccessToken": "", "RefreshToken": ""},
        {"AccessToken": 5, "RefreshToken": None},
    ],
)
def test_another_session_is_not_used(fields, tmp_path):
    session(tmp_path, **fields)
    one, _ = platform(home=tmp_path)

    assert not one.has("cloud_foundry", PROD)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xff", b"[" * 100_000])
def test_a_session_that_cannot_be_read_is_none(content, tmp_path):
    session(tmp_path).write_bytes(content)
    one, _ = platform(home=tmp_path)

    assert not one.has("cloud_foundry", PROD)


def test_the_environment_is_nearer_than_a_session(tmp_path):
    session(tmp_path)
    one, _ = platform(environment={"CF_USER": "dev", "CF_PASSWORD": "p"}, home=tmp_path)

    assert one.service("cloud_foundry", PROD).user == "dev"


def test_half_an_environment_leaves_the_session(tmp_path):
    session(tmp_path)
    one, _ = platform(environment={"CF_USER": "dev"}, home=tmp_path)

    assert one.service("cloud_foundry", PROD).user == "me (my-idp)"


# --- on a sandbox ---------------------------------------------------------------------------------------

SEED = {
    "subaccounts": {
        "prod": {
            "region": "eu10",
            "cloud_foundry": {"org": "finance", "spaces": [f"space-{number:02}" for number in range(25)]},
            "entitlements": {"cis": {"central": True}},
            "instances": [
                {"runtime": "other", "name": "cis", "service": "cis", "plan": "central", "keys": [{"name": "key"}]},
                *({"runtime": "other", "name": f"i{number:02}", "service": "sandbox-config", "plan": "standard"} for number in range(7)),
            ],
        }
    },
    "cloud_foundry_clients": {"technical": {"secret": "a+b=$|!", "roles": {"*": ["space_developer"]}}},
}  # fmt: skip


class Small:
    """A sandbox with one subaccount and a client beside it."""

    def __init__(self, time: str = "looks") -> None:
        self.sandbox = Sandbox(time=time, settings={"tokens": {"assertion_secret": "x" * 32}})
        self.sandbox.seed(SEED)
        self.access = self.sandbox.access()
        ((self.id, self.manager),) = self.access["service_manager"].items()
        self.cloud_foundry = self.access["cloud_foundry"]["eu10"]
        self.place = Subaccount("prod", self.id, "eu10", CloudFoundry(self.cloud_foundry["api"], "finance"))
        self.client = Client(
            adapter=InProcessAdapter(self.sandbox), clock=MovingClock(), events=lambda *_: None
        )

    def door(self, service, access) -> ServiceDoor:
        return Platform(self.client, {"prod": access}, {}, None).service(service, self.place)

    def cf(self, **access) -> ServiceDoor:
        return self.door("cloud_foundry", {"cloud_foundry": access or self.cloud_foundry})

    def sm(self) -> ServiceDoor:
        return self.door("service_manager", {"service_manager": {"service_key": self.manager}})

    @property
    def sign_ins(self) -> int:
        return self.client.counts["sign_in", "POST"]


@pytest.fixture
def small():
    return Small()


def spaces(door, *query) -> list[str]:
    return [row["name"] for page in door.pages("/v3/spaces", query) for row in page["resources"]]


def test_sandbox_password(small):
    assert len(spaces(small.cf())) == 25


def test_sandbox_client_with_signs_in_its_secret(small):
    assert len(spaces(small.cf(client_id="technical", client_secret=Secret("s", "a+b=$|!")))) == 25


def test_sandbox_assertion(small):
    now = small.client.clock.now()
    told = {"email": small.cloud_foundry["username"], "exp": now + 10_000}
    assertion = pyjwt.encode(told, "x" * 32, algorithm="HS256")

    assert len(spaces(small.cf(assertion=assertion, origin="sap.ids"))) == 25


def test_sandbox_tokens_handed_over(small):
    door = small.cf()
    spaces(door)
    bearer = door.bearer

    assert len(spaces(small.cf(access_token=bearer.get()))) == 25
    assert len(spaces(small.cf(refresh_token=bearer._refresh))) == 25


def test_sandbox_central_and_service_manager_keys(small):
    central = {"central": {"service_key": json.dumps(small.access["central"])}}

    (page,) = small.door("accounts", central).pages("/accounts/v1/subaccounts")
    assert [row["displayName"] for row in page["value"]] == ["prod"]
    (page,) = small.door("entitlements", central).pages("/entitlements/v1/assignments")
    assert page["assignedServices"]
    assert sum(len(page["items"]) for page in small.sm().pages("/v1/service_instances")) == 8


def test_sandbox_user_token_key(small):
    (page,) = small.sm().pages("/v1/service_bindings")
    key = page["items"][0]["credentials"]
    user = {name: small.cloud_foundry[name] for name in ("username", "password")}
    door = small.door("accounts", {"central": {"service_key": {"credentials": key}, **user}})

    assert key["grant_type"] == "user_token"
    assert door.get("/accounts/v1/subaccounts")["value"]


def test_sandbox_certificate(small):
    central = small.door("accounts", {"central": {"service_key": small.access["central"]}})
    wanted = {
        "name": "x",
        "parameters": {"credential-type": "x509", "x509": {"validity": 7, "validity-type": "DAYS"}},
    }
    made = central.send("POST", f"/accounts/v2/subaccounts/{small.id}/serviceManagerBindings", wanted).body
    key = json.dumps({**made, "key": made["key"].replace("\n", "\\n")})
    door = small.door("service_manager", {"service_manager": {"service_key": key}})

    assert "clientsecret" not in made
    assert next(door.pages("/v1/service_instances"))["num_items"] == 8


def test_sandbox_many_pages(small):
    assert spaces(small.cf(), ("per_page", "4")) == spaces(small.cf())
    names = [
        row["name"]
        for page in small.sm().pages("/v1/service_instances", [("max_items", "3")])
        for row in page["items"]
    ]
    assert sorted(names) == ["cis", *(f"i{number:02}" for number in range(7))]


@pytest.mark.parametrize("times", [1, 3])
def test_sandbox_tokens_die_in_mid_flight(small, times):
    door = small.cf()
    small.sandbox.faults.add(
        {"match": {"path": "/v3/spaces"}, "every": 2, "times": times, "do": "expire-tokens"}
    )

    assert len(spaces(door, ("per_page", "4"))) == 25
    assert small.sign_ins == 1 + times


def test_sandbox_a_wrong_password_is_sent_once(small):
    door = small.cf(**{**small.cloud_foundry, "password": "wrong"})

    for _ in range(3):
        with pytest.raises(SignInRefused, match="could not sign in"):
            door.get("/v3/spaces")
    assert small.sign_ins == 1


def test_sandbox_a_lost_creation(small):
    door = small.cf()
    space = door.get("/v3/spaces", [("per_page", "1")])["resources"][0]["guid"]
    body = {"type": "user-provided", "name": "ups", "relationships": {"space": {"data": {"guid": space}}}}
    small.sandbox.faults.add(
        {"match": {"method": "POST", "path": "/v3/service_instances"}, "at": 1, "do": "lose"}
    )

    with pytest.raises(LostResponse):
        door.send("POST", "/v3/service_instances", body)
    assert door.get("/v3/service_instances", [("names", "ups")])["pagination"]["total_results"] == 1


@pytest.mark.parametrize("deed", ["refuse", "lose", "cf-429", "cf-500", "cf-503", "502", "503", "html"])
def test_sandbox_in_trouble(small, deed):
    small.sandbox.faults.add({"match": {"path": "/v3/spaces"}, "at": 1, "do": deed})

    assert len(spaces(small.cf())) == 25


@pytest.mark.parametrize("deed", ["refuse", "lose", "uaa-429", "502", "503"])
def test_sandbox_in_trouble_at_sign_in(small, deed):
    small.sandbox.faults.add({"match": {"path": "/oauth/token"}, "at": 1, "do": deed})

    assert len(spaces(small.cf())) == 25
    assert small.sign_ins == 2


def test_sandbox_on_a_socket():
    """The same doors over real HTTP on this machine, where hosts are paths."""
    small = Small()
    with serve(small.sandbox) as served:
        access = served.access()
        client = Client(clock=MovingClock(), events=lambda *_: None)
        where = Subaccount("prod", small.id, "eu10", CloudFoundry(served.url, "finance"))
        one = Platform(
            client,
            {"prod": {
                "cloud_foundry": access["cloud_foundry"]["eu10"],
                "service_manager": {"service_key": access["service_manager"][small.id]},
                "central": {"service_key": access["central"]},
            }},
            {},
            None,
        )  # fmt: skip
        assert len(spaces(one.service("cloud_foundry", where), ("per_page", "4"))) == 25
        assert next(one.service("service_manager", where).pages("/v1/service_instances"))["num_items"] == 8
        assert one.service("accounts", where).get("/accounts/v1/subaccounts")["value"]
        client.close()


def test_sandbox_certificate_on_a_socket(tmp_path):
    """A real handshake with the key's certificate, trusted by a file of authorities."""
    small = Small(time="seconds")  # the handshake looks at this machine's clock
    central = small.door("accounts", {"central": {"service_key": small.access["central"]}})
    wanted = {
        "name": "x",
        "parameters": {"credential-type": "x509", "x509": {"validity": 7, "validity-type": "DAYS"}},
    }
    key = central.send("POST", f"/accounts/v2/subaccounts/{small.id}/serviceManagerBindings", wanted).body
    with serve(small.sandbox, tls=True) as served:
        (tmp_path / "ca.pem").write_text(str(served.certificate))
        here = {name: key[name].replace("https://", served.url + "/") for name in ("sm_url", "certUrl")}
        client = Client(clock=MovingClock(), events=lambda *_: None, verify=str(tmp_path / "ca.pem"))
        access = {"prod": {"service_manager": {"service_key": {**key, **here}}}}
        door = Platform(client, access, {}, None).service("service_manager", small.place)

        assert next(door.pages("/v1/service_instances"))["num_items"] == 8
        client.close()


def test_sandbox_on_a_socket_with_a_certificate_that_is_not_trusted(small, monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with serve(small.sandbox, tls=True) as served:
        client = Client(clock=MovingClock(), events=lambda *_: None)

        with pytest.raises(Unreachable, match="its certificate is not trusted"):
            client.read("cloud_foundry", served.url + "/")
        assert client.requests_made == 1
        client.close()
