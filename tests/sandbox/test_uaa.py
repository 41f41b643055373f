"""Who gets which token, and when a token stops to count."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any
from urllib.parse import quote

import jwt
import pytest

from btp_reconcile.sandbox import Request, Response, Sandbox
from tests.sandbox.landscape import API, CONFIG, LOGIN, PEOPLE, UAA, basic, document, grant

ME = {"grant_type": "password", "username": "dev@example.com", "password": "secret"}
ZONE = "main-x1.authentication.eu10.hana.ondemand.com"
CERTIFICATE_ZONE = "main-x1.authentication.cert.eu10.hana.ondemand.com"
SCOPES = "openid uaa.user cloud_controller.read password.write cloud_controller.write"
TRUSTED = "a secret that the identity provider shares"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
WRONG_CLIENT = {"error": "invalid_client", "error_description": "Bad credentials"}
WRONG_USER = {"error": "unauthorized", "error_description": "Bad credentials"}


@pytest.fixture
def sandbox() -> Sandbox:
    made = Sandbox(settings={"tokens": {"assertion_secret": TRUSTED}})
    made.seed(document())
    made.seed(
        {
            "users": {
                "robot": {"password": "secret", "origin": "acme-platform", "roles": {}},
                "dev@example.com": {**PEOPLE["dev@example.com"], "passcode": "once"},
            },
            "cloud_foundry_clients": {
                "pipeline": {"secret": "pipe+line", "roles": {"*": ["space_developer"]}}
            },
        }
    )
    return made


def claims(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def get(sandbox: Sandbox, host: str, path: str, token: str | None = None, method: str = "GET") -> Response:
    headers = {"Accept": "application/json"} | ({"Authorization": f"bearer {token}"} if token else {})
    return sandbox.handle(Request.of(method, host, path, headers=headers))


def organizations(sandbox: Sandbox, token: str | None) -> tuple[int, Any]:
    answer = get(sandbox, API, "/v3/organizations", token)
    if answer.status == 200:
        return 200, [row["name"] for row in answer.data()["resources"]]
    return answer.status, answer.data()["errors"][0]["code"]


def register(sandbox: Sandbox, name: str, **more: Any) -> None:
    with sandbox.hold() as world:
        world.table("clients")[name] = {
            "secret": "s=ecret",
            "scopes": ["service.read", "uaa.resource"],
            "zone": "main-x1",
            "region": "eu10",
            "grant_types": ["client_credentials"],
            **more,
        }


@pytest.mark.parametrize("path", ["/login", "/info"])
def test_the_login_page_asks_for_exactly_three_things(sandbox: Sandbox, path: str):
    answer = get(sandbox, LOGIN, path)

    assert answer.status == 200
    assert answer.data()["prompts"] == {
        "username": ["text", "Email"],
        "password": ["password", "Password"],
        "passcode": [
            "password",
            "Temporary Authentication Code ( Get one at https://login.cf.eu10.hana.ondemand.com/passcode )",
        ],
    }
    assert answer.data()["links"]["uaa"] == f"https://{UAA}"


@pytest.mark.parametrize("host", [UAA, LOGIN])
def test_a_password_buys_a_token_at_both_hosts(sandbox: Sandbox, host: str):
    answer = grant(sandbox, ME, host=host)
    body = answer.data()

    assert answer.status == 200
    assert list(body) == [
        "access_token",
        "token_type",
        "id_token",
        "refresh_token",
        "expires_in",
        "scope",
        "jti",
    ]
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("bearer", 1199, SCOPES)
    assert body["refresh_token"].endswith("-r")
    assert answer.header("Cache-Control") == "no-store"
    assert [value.split("=")[0] for name, value in answer.headers if name == "Set-Cookie"] == [
        "JSESSIONID",
        "__VCAP_ID__",
    ]


def test_a_token_says_who_it_is_for(sandbox: Sandbox):
    found = claims(grant(sandbox, ME).data()["access_token"])
    for name in ("jti", "sub", "user_id"):
        assert found.pop(name)

    assert found == {
        "scope": SCOPES.split(),
        "client_id": "cf",
        "cid": "cf",
        "azp": "cf",
        "grant_type": "password",
        "origin": "sap.ids",
        "user_name": "dev@example.com",
        "email": "dev@example.com",
        "auth_time": 1767225601,
        "iat": 1767225601,
        "exp": 1767226801,
        "iss": f"https://{UAA}/oauth/token",
        "zid": "uaa",
        "aud": ["cf", "cloud_controller", "password", "uaa"],
    }


def test_a_token_is_signed_with_the_published_key(sandbox: Sandbox):
    token = grant(sandbox, ME).data()["access_token"]
    keys = jwt.PyJWKSet.from_dict(get(sandbox, UAA, "/token_keys").data())
    header = jwt.get_unverified_header(token)

    checked = jwt.decode(
        token,
        keys[header["kid"]].key,
        algorithms=["RS256"],
        audience="cloud_controller",
        options={"verify_exp": False, "verify_iat": False},
    )

    assert (header["alg"], checked["user_name"]) == ("RS256", "dev@example.com")
    assert get(sandbox, UAA, "/token_key").data() == get(sandbox, UAA, "/token_keys").data()["keys"][0]


@pytest.mark.parametrize(
    ("form", "query"),
    [
        ({**ME, "password": "wrong"}, ""),
        ({**ME, "username": "nobody@example.com"}, ""),
        (ME, "?login_hint=" + quote('{"origin":"acme-platform"}')),
    ],
    ids=["wrong password", "unknown user", "right user of another origin"],
)
def test_bad_credentials_are_401_and_unauthorized(sandbox: Sandbox, form: dict[str, str], query: str):
    answer = grant(sandbox, form, query=query)

    assert (answer.status, answer.data()) == (401, WRONG_USER)


def test_the_origin_comes_from_the_login_hint(sandbox: Sandbox):
    robot = {**ME, "username": "robot"}
    hint = "?login_hint=" + quote('{"origin":"acme-platform"}')

    assert grant(sandbox, robot).status == 401
    assert claims(grant(sandbox, robot, query=hint).data()["access_token"])["origin"] == "acme-platform"


def test_an_unknown_origin_is_refused(sandbox: Sandbox):
    answer = grant(sandbox, ME, query="?login_hint=" + quote('{"origin":"elsewhere"}'))

    assert (answer.status, answer.data()) == (
        401,
        {
            "error": "unauthorized",
            "error_description": "The origin provided in the login_hint does not match an active Identity Provider, "
            "that supports password grant.",
        },
    )


def test_five_wrong_passwords_lock_the_account_for_a_while(sandbox: Sandbox):
    for _ in range(5):
        assert grant(sandbox, {**ME, "password": "wrong"}).data() == WRONG_USER

    locked = grant(sandbox, ME)
    with sandbox.hold() as world:
        world.advance(300)

    assert (locked.status, locked.data()) == (
        401,
        {
            "error": "unauthorized",
            "error_description": "Your account has been locked because of too many failed attempts to login.",
        },
    )
    assert grant(sandbox, ME).status == 200


def test_a_passcode_works_once(sandbox: Sandbox):
    form = {"grant_type": "password", "passcode": "once"}

    first, second = grant(sandbox, form), grant(sandbox, form)

    assert claims(first.data()["access_token"])["user_name"] == "dev@example.com"
    assert (second.status, second.data()) == (
        401,
        {"error": "unauthorized", "error_description": "Invalid passcode"},
    )


@pytest.mark.parametrize("way", ["basic", "body", "encoded"])
def test_a_technical_client_gets_a_token_without_a_refresh_token(sandbox: Sandbox, way: str):
    form = {"grant_type": "client_credentials"}
    if way == "body":
        answer = grant(sandbox, {**form, "client_id": "pipeline", "client_secret": "pipe+line"}, client=None)
    elif way == "encoded":
        answer = grant(
            sandbox,
            form,
            client=("pipeline", quote("pipe+line")),
            headers={"X-CF-ENCODED-CREDENTIALS": "true"},
        )
    else:
        # A plus sign does not survive plain basic authentication.
        answer = grant(sandbox, form, client=("pipeline", "pipe+line"))
        assert (answer.status, answer.data()) == (401, WRONG_CLIENT)
        return

    assert list(answer.data()) == ["access_token", "token_type", "expires_in", "scope", "jti"]
    assert organizations(sandbox, answer.data()["access_token"]) == (200, ["acme", "sleeping"])


def test_a_wrong_client_secret_is_401_with_a_challenge(sandbox: Sandbox):
    answer = grant(sandbox, ME, client=("cf", "wrong"))

    assert (answer.status, answer.data()) == (401, WRONG_CLIENT)
    assert answer.header("WWW-Authenticate") == (
        'Basic realm="UAA/client", error="unauthorized", error_description="Bad credentials"'
    )


def assertion(**body: Any) -> str:
    return jwt.encode({"exp": 1767230000, **body}, TRUSTED, algorithm="HS256")


def test_a_client_may_prove_itself_by_an_assertion(sandbox: Sandbox):
    form = {
        "grant_type": "client_credentials",
        "client_id": "pipeline",
        "client_assertion": assertion(sub="pipeline"),
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }

    assert grant(sandbox, form, client=None).status == 200
    assert grant(sandbox, {**form, "client_assertion": assertion(sub="other")}, client=None).status == 401


@pytest.mark.parametrize("in_body", [False, True])
def test_a_user_may_come_with_an_assertion(sandbox: Sandbox, in_body: bool):
    form = {"grant_type": JWT_BEARER, "assertion": assertion(user_name="robot")}
    hint = "?login_hint=" + quote('{"origin":"acme-platform"}')

    answer = (
        grant(sandbox, {**form, "client_id": "cf"}, client=None, query=hint)
        if in_body
        else grant(sandbox, form, query=hint)
    )

    assert answer.status == 200
    assert claims(answer.data()["access_token"])["user_name"] == "robot"
    assert answer.data()["refresh_token"].endswith("-r")


def test_an_expired_assertion_is_refused(sandbox: Sandbox):
    form = {"grant_type": JWT_BEARER, "assertion": assertion(user_name="dev@example.com", exp=1767225600)}

    answer = grant(sandbox, form)

    assert (answer.status, answer.data()["error"]) == (401, "unauthorized")


def test_a_refresh_token_is_good_until_it_expires_and_stays_the_same(sandbox: Sandbox):
    first = grant(sandbox, ME).data()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}

    second = grant(sandbox, form)
    with sandbox.hold() as world:
        world.advance(world.settings["tokens"]["refresh"])
    third = grant(sandbox, form)

    assert second.status == 200
    assert second.data()["refresh_token"] == first["refresh_token"]
    assert second.data()["access_token"] != first["access_token"]
    assert (third.status, third.data()["error"]) == (401, "invalid_token")


def test_a_refresh_token_belongs_to_one_client(sandbox: Sandbox):
    register(sandbox, "other", zone="uaa", region=None, grant_types=["refresh_token"])
    token = grant(sandbox, ME).data()["refresh_token"]

    answer = grant(
        sandbox, {"grant_type": "refresh_token", "refresh_token": token}, client=("other", "s=ecret")
    )

    assert (answer.status, answer.data()) == (
        400,
        {"error": "invalid_grant", "error_description": f"Wrong client for this refresh token: {token}"},
    )


@pytest.mark.parametrize(
    ("form", "status", "error", "description"),
    [
        ({}, 400, "invalid_request", "Missing grant type"),
        ({"grant_type": "magic"}, 400, "unsupported_grant_type", "Unsupported grant type: magic"),
        (
            {"grant_type": "client_credentials"},
            401,
            "unauthorized_client",
            "Unauthorized grant type: client_credentials",
        ),
    ],
)
def test_other_grants_are_refused(
    sandbox: Sandbox, form: dict[str, str], status: int, error: str, description: str
):
    answer = grant(sandbox, form)

    assert (answer.status, answer.data()) == (status, {"error": error, "error_description": description})


def test_a_token_dies_after_twenty_minutes(sandbox: Sandbox):
    token = grant(sandbox, ME).data()["access_token"]
    assert organizations(sandbox, token) == (200, ["acme", "sleeping"])

    with sandbox.hold() as world:
        world.advance(1200)

    assert organizations(sandbox, token) == (401, 1000)


def test_a_fault_makes_every_token_expire_but_not_the_next_one(sandbox: Sandbox):
    token = grant(sandbox, ME).data()["access_token"]
    sandbox.faults.add({"do": "expire-tokens", "at": 1, "match": {"path": "^/v3/"}})

    assert organizations(sandbox, token) == (401, 1000)
    assert organizations(sandbox, grant(sandbox, ME).data()["access_token"]) == (200, ["acme", "sleeping"])


def test_tokens_that_somebody_else_made_do_not_count(sandbox: Sandbox):
    token = grant(sandbox, ME).data()["access_token"]
    other_landscape = grant(sandbox, ME, host=UAA.replace("eu10", "us10")).data()["access_token"]
    register(sandbox, "sb-x!b1")
    zone = grant(sandbox, {"grant_type": "client_credentials"}, host=ZONE, client=("sb-x!b1", "s=ecret"))
    head, body, _ = token.split(".")

    refused = [other_landscape, zone.data()["access_token"], f"{head}.{body}.AAAA", "nonsense"]

    assert [organizations(sandbox, made) for made in refused] == [(401, 1000)] * 4
    assert organizations(sandbox, None) == (401, 10002)


def test_a_revoked_token_is_dead(sandbox: Sandbox):
    answer = grant(sandbox, ME).data()

    revoked = get(sandbox, LOGIN, f"/oauth/token/revoke/{answer['jti']}", answer["access_token"], "DELETE")

    assert revoked.status == 200
    assert organizations(sandbox, answer["access_token"]) == (401, 1000)


def test_userinfo_and_check_token_say_what_the_token_says(sandbox: Sandbox):
    register(sandbox, "checker", zone="uaa", region=None)
    token = grant(sandbox, ME).data()["access_token"]

    info = get(sandbox, UAA, "/userinfo", token)
    checked = sandbox.handle(
        Request.of(
            "POST",
            UAA,
            "/check_token",
            headers={"Authorization": basic("checker", "s=ecret")},
            body=f"token={token}".encode(),
        )
    )

    assert info.data()["user_name"] == "dev@example.com"
    assert checked.data() == claims(token)


# XSUAA zones -------------------------------------------------------------------------------------------------------


def test_a_zone_gives_its_clients_tokens_for_twelve_hours(sandbox: Sandbox):
    register(sandbox, "sb-x!b1", extra_claims={"ext_attr": {"serviceinstanceid": "i-1"}})

    answer = grant(sandbox, {"grant_type": "client_credentials"}, host=ZONE, client=("sb-x!b1", "s=ecret"))
    found = claims(answer.data()["access_token"])

    assert (answer.status, answer.data()["expires_in"]) == (200, 43199)
    assert found["ext_attr"] == {"enhancer": "XSUAA", "zdn": "main-x1", "serviceinstanceid": "i-1"}
    with sandbox.hold() as world:
        assert found["zid"] == world.table("sandbox.subaccounts")["main"]["id"]
    assert found["exp"] - found["iat"] == 43200


@pytest.mark.parametrize(
    "host", ["second-x1.authentication.eu10.hana.ondemand.com", ZONE.replace("eu10", "us10"), UAA]
)
def test_a_client_belongs_to_one_zone(sandbox: Sandbox, host: str):
    register(sandbox, "sb-x!b1")

    answer = grant(sandbox, {"grant_type": "client_credentials"}, host=host, client=("sb-x!b1", "s=ecret"))

    assert (answer.status, answer.data()) == (401, WRONG_CLIENT)


def test_a_zone_gives_users_tokens_through_a_client_that_may(sandbox: Sandbox):
    register(sandbox, "sb-user!b1", grant_types=["password"])

    answer = grant(sandbox, ME, host=ZONE, client=("sb-user!b1", "s=ecret"))

    assert claims(answer.data()["access_token"])["user_name"] == "dev@example.com"
    assert answer.data()["scope"] == "service.read uaa.resource"


def test_scopes_can_be_narrowed_but_not_widened(sandbox: Sandbox):
    register(sandbox, "sb-x!b1")
    form = {"grant_type": "client_credentials"}

    narrow = grant(sandbox, {**form, "scope": "service.read"}, host=ZONE, client=("sb-x!b1", "s=ecret"))
    wide = grant(sandbox, {**form, "scope": "service.write"}, host=ZONE, client=("sb-x!b1", "s=ecret"))

    assert narrow.data()["scope"] == "service.read"
    assert (wide.status, wide.data()["error"]) == (400, "invalid_scope")


def test_a_certificate_opens_the_certificate_host_only_while_it_is_valid(sandbox: Sandbox):
    mine, other = certificate(), certificate()
    register(sandbox, "sb-x!b1", secret=None, certificate=mine.decode())
    form = {"grant_type": "client_credentials", "client_id": "sb-x!b1"}

    def status(certificate: bytes | None, host: str = CERTIFICATE_ZONE) -> int:
        return grant(sandbox, form, host=host, client=None, certificate=certificate).status

    assert [status(mine), status(other), status(None), status(mine, ZONE)] == [200, 401, 401, 401]

    with sandbox.hold() as world:
        world.advance(8 * 86400)
    assert status(mine) == 401


def test_discovery_names_the_certificate_host(sandbox: Sandbox):
    found = get(sandbox, ZONE, "/.well-known/openid-configuration").data()

    assert found["token_endpoint"] == f"https://{ZONE}/oauth/token"
    assert found["mtls_endpoint_aliases"] == {"token_endpoint": f"https://{CERTIFICATE_ZONE}/oauth/token"}


def test_a_key_opens_its_zone_until_it_is_deleted(sandbox: Sandbox):
    sandbox.seed(
        {
            "subaccounts": {
                "main": {
                    "entitlements": {"xsuaa": {"application": True}},
                    "instances": [
                        {
                            **CONFIG,
                            "service": "xsuaa",
                            "plan": "application",
                            "name": "auth",
                            "keys": [{"name": "k"}],
                        }
                    ],
                }
            }
        }
    )
    with sandbox.hold() as world:
        guid, key = next(iter(world.table("cf.service_credential_bindings").items()))
    credentials = key["credentials"]
    form = {
        "grant_type": "client_credentials",
        "client_id": credentials["clientid"],
        "client_secret": credentials["clientsecret"],
    }
    host = credentials["url"].removeprefix("https://")
    assert grant(sandbox, form, host=host, client=None).status == 200

    token = grant(sandbox, ME).data()["access_token"]
    target = f"/v3/service_credential_bindings/{guid}"
    gone = get(sandbox, API, target, token, "DELETE")
    job = (gone.header("Location") or "").removeprefix(f"https://{API}")
    while get(sandbox, API, job, token).data()["state"] != "COMPLETE":
        pass

    assert grant(sandbox, form, host=host, client=None).data() == WRONG_CLIENT


def certificate() -> bytes:
    """A certificate for one week of the virtual year 2026."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=7))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)
