"""Every shape of a key becomes one form, and one form becomes every shape that consumers want."""

from __future__ import annotations

from typing import Any

import pytest

from btp_reconcile.core import catalogue
from btp_reconcile.core.catalogue import KeyShape
from btp_reconcile.core.credentials import About, Credentials, ShapeError, field, read, shaped
from btp_reconcile.core.digest import hidden, plain
from btp_reconcile.core.model import Secret
from btp_reconcile.edges import load

SHIPPED = catalogue.build(load.catalogue())
AFC = SHIPPED.by_name["afc"].key_shape
PORTAL = SHIPPED.by_name["api-management"].key_shape

AFC_KEY: dict[str, Any] = {
    "endpoints": {
        "scim2": "https://afc.example.invalid/scim/base",
        "task-center": "https://afc.example.invalid/api/task-provider/v2",
    },
    "uaa": {
        "url": "https://closing.authentication.example.invalid",
        "clientid": "sb-1!b3|afc-api!b4",
        "clientsecret": "hunter-2",
    },
}
PORTAL_KEY: dict[str, Any] = {
    "url": "https://acme.example.invalid",
    "tokenUrl": "https://acme.authentication.example.invalid/oauth/token",
    "clientId": "sb-apiaccess1!b10|api-portal-xsuaa!b20",
    "clientSecret": "hunter-2",
}
X509_KEY: dict[str, Any] = {
    "url": "https://acme.example.invalid",
    "tokenUrl": "https://acme.authentication.example.invalid/oauth/token",
    "certurl": "https://acme.authentication.cert.example.invalid",
    "clientId": "sb-apiaccess1!b10|api-portal-xsuaa!b20",
    "certificate": "-----BEGIN CERTIFICATE-----\\nleaf\\n-----END CERTIFICATE-----\\n",
    "privateKey": "-----BEGIN PRIVATE KEY-----\\nkey\\n-----END PRIVATE KEY-----",
}
ABOUT = About("afc-api-service", "standard", "afc-api", "guid-1", "task-center", "guid-2")


def of(raw: Any, shape: KeyShape | None) -> Credentials:
    """As a driver hands it over: every text a secret."""
    return read(hidden(raw, "key"), shape)


def told(found: Credentials) -> dict[str, Any]:
    """Everything but `raw`, its secrets revealed."""
    names = ("client_secret", "certificate", "private_key")
    return {
        "urls": dict(found.urls),
        "token_url": found.token_url,
        "client_id": found.client_id,
        **{name: plain(getattr(found, name)) for name in names},
        "cert_token_url": found.cert_token_url,
        "type": found.type,
    }


def without(raw: Any, path: str) -> Any:
    head, _, rest = path.partition(".")
    if rest:
        return {**raw, head: without(raw[head], rest)}
    return {key: value for key, value in raw.items() if key != head}


# --- reading --------------------------------------------------------------------------------------------


def test_a_key_of_advanced_financial_closing() -> None:
    assert told(of(AFC_KEY, AFC)) == {
        "urls": {
            "scim2": "https://afc.example.invalid/scim/base",
            "task-center": "https://afc.example.invalid/api/task-provider/v2",
        },
        "token_url": "https://closing.authentication.example.invalid/oauth/token",
        "client_id": "sb-1!b3|afc-api!b4",
        "client_secret": "hunter-2",
        "certificate": None,
        "private_key": None,
        "cert_token_url": "",
        "type": "secret",
    }


def test_a_key_of_api_management_with_a_certificate_has_real_newlines() -> None:
    assert told(of(X509_KEY, PORTAL)) == {
        "urls": {"api": "https://acme.example.invalid"},
        "token_url": "https://acme.authentication.example.invalid/oauth/token",
        "client_id": "sb-apiaccess1!b10|api-portal-xsuaa!b20",
        "client_secret": None,
        "certificate": "-----BEGIN CERTIFICATE-----\nleaf\n-----END CERTIFICATE-----\n",
        "private_key": "-----BEGIN PRIVATE KEY-----\nkey\n-----END PRIVATE KEY-----\n",
        "cert_token_url": "https://acme.authentication.cert.example.invalid/oauth/token",
        "type": "x509",
    }


@pytest.mark.parametrize("ends", ["", "/", "/oauth/token", "/oauth/token/", "/oauth/token/oauth/token", "/oauth/token?grant_type=x"])  # fmt: skip
def test_a_token_url_ends_in_its_path_exactly_once(ends: str) -> None:
    host = "https://closing.authentication.example.invalid"
    afc = {**AFC_KEY, "uaa": {**AFC_KEY["uaa"], "url": host + ends}}
    portal = {**PORTAL_KEY, "tokenUrl": host + ends}

    assert of(afc, AFC).token_url == f"{host}/oauth/token"
    assert of(portal, PORTAL).token_url == f"{host}/oauth/token"


def test_more_fields_than_are_known_change_nothing() -> None:
    more = {**PORTAL_KEY, "developerId": "P1", "verificationkey": "x", "sizes": [1, {"a": None}], "on": True}

    assert told(of(more, PORTAL)) == told(of(PORTAL_KEY, PORTAL))


def test_the_object_that_cf_wraps_a_key_in_is_taken_off() -> None:
    found = of({"credentials": PORTAL_KEY}, PORTAL)

    assert told(found) == told(of(PORTAL_KEY, PORTAL))
    assert plain(found.raw) == PORTAL_KEY


@pytest.mark.parametrize("path", ["endpoints.scim2", "endpoints.task-center", "uaa.url", "uaa.clientid", "uaa.clientsecret"])  # fmt: skip
@pytest.mark.parametrize("how", ["left out", "", "  ", None, 5, {"a": "b"}])
def test_what_is_missing_is_named_by_its_path(path: str, how: Any) -> None:
    raw = without(AFC_KEY, path)
    if how != "left out":
        head, _, rest = path.partition(".")
        raw[head][rest] = how

    with pytest.raises(ShapeError) as caught:
        of(raw, AFC)

    assert caught.value.missing == (path,)


def test_everything_that_is_missing_is_named_at_once_and_no_value_with_it() -> None:
    raw = {
        "url": "nowhere hunter-2",
        "tokenUrl": "ftp://hunter-2",
        "clientId": "hunter\n2",
        "certificate": "hunter-2",
    }

    with pytest.raises(ShapeError) as caught:
        of(raw, PORTAL)

    assert caught.value.missing == ("url", "tokenUrl", "clientId", "privateKey")
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("gone", "missing"),
    [("privateKey", ("privateKey",)), ("certificate", ("certificate",)), ("certurl", ("certurl",))],
)
def test_half_a_certificate_is_none(gone: str, missing: tuple[str, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        of(without(X509_KEY, gone), PORTAL)

    assert caught.value.missing == missing


def test_a_secret_beside_half_a_certificate_is_used() -> None:
    assert of({**PORTAL_KEY, "certificate": "x"}, PORTAL).type == "secret"


def test_an_empty_secret_beside_a_certificate_is_no_secret() -> None:
    assert of({**X509_KEY, "clientSecret": ""}, PORTAL).client_secret is None


@pytest.mark.parametrize(
    ("raw", "urls"),
    [
        ({"uaa": AFC_KEY["uaa"], "uri": "https://ctms.example.invalid/"}, {"api": "https://ctms.example.invalid"}),
        (AFC_KEY, AFC_KEY["endpoints"]),
        ({"uaa": AFC_KEY["uaa"], "endpoints": {"a": {"url": "x"}, "b.c": "https://x", "d": "no"}}, {}),
        ({"uaa": AFC_KEY["uaa"]}, {}),
        (AFC_KEY["uaa"], {}),
        ({**AFC_KEY["uaa"], "sm_url": "https://sm.example.invalid"}, {"api": "https://sm.example.invalid"}),
        (
            {
                "tokenurl": AFC_KEY["uaa"]["url"],
                "url": "https://cpi.example.invalid",
                "clientid": "sb-1!b3|afc-api!b4",
                "clientsecret": "hunter-2",
            },
            {"api": "https://cpi.example.invalid"},
        ),
        (
            {
                "tokenUrl": AFC_KEY["uaa"]["url"],
                "url": "https://x.example.invalid",
                "clientId": "sb-1!b3|afc-api!b4",
                "clientSecret": "hunter-2",
            },
            {"api": "https://x.example.invalid"},
        ),
        (
            {"url": AFC_KEY["uaa"]["url"], "clientId": "sb-1!b3|afc-api!b4", "clientSecret": "hunter-2"},
            {},
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [None, KeyShape()])
def test_a_key_of_an_unknown_service_is_read_by_its_form(
    raw: Any, urls: dict[str, str], shape: KeyShape | None
) -> None:
    found = of(raw, shape)

    assert found.urls == urls
    assert found.token_url == "https://closing.authentication.example.invalid/oauth/token"
    assert (found.client_id, plain(found.client_secret)) == ("sb-1!b3|afc-api!b4", "hunter-2")


def test_a_certificate_in_the_words_of_xsuaa_is_found() -> None:
    raw = {
        "url": "https://acme.authentication.example.invalid",
        "certurl": "https://acme.authentication.cert.example.invalid",
        "clientid": "sb-1",
        "certificate": "c",
        "key": "k",
    }

    assert of(raw, None).cert_token_url == "https://acme.authentication.cert.example.invalid/oauth/token"
    assert of({"uaa": raw}, None).type == "x509"


@pytest.mark.parametrize("raw", [{}, {"username": "x", "password": "y"}, {"uaa": "text"}, {"uaa": {}}])
def test_a_form_that_nobody_knows_is_an_error(raw: Any) -> None:
    with pytest.raises(ShapeError) as caught:
        of(raw, None)

    assert caught.value.missing == ("uaa.clientid", "clientid", "clientId")


def test_a_catalogue_that_does_not_say_where_the_token_is_had_is_told_so() -> None:
    with pytest.raises(ShapeError, match="a field that the catalogue's key_shape does not name"):
        of(PORTAL_KEY, KeyShape(client_id="clientId", client_secret="clientSecret"))


def test_nothing_secret_is_shown() -> None:
    assert "hunter" not in repr(of(AFC_KEY, AFC))
    assert "leaf" not in repr(of(X509_KEY, PORTAL))


# --- one field ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("url", "https://acme.example.invalid"),
        ("url.api", "https://acme.example.invalid"),
        ("token_url", "https://acme.authentication.example.invalid/oauth/token"),
        ("client_id", "sb-apiaccess1!b10|api-portal-xsuaa!b20"),
        ("client_secret", "hunter-2"),
        ("clientSecret", "hunter-2"),
        ("more.deep", "down"),
        ("more.number", "5"),
    ],
)
def test_a_field_is_found_by_our_name_or_by_its_path(name: str, value: str) -> None:
    found = of({**PORTAL_KEY, "more": {"deep": "down", "number": 5}}, PORTAL)

    assert plain(field(found, name)) == value


def test_what_is_secret_stays_a_secret() -> None:
    kinds = {
        name: isinstance(field(of({**PORTAL_KEY, "orgId": "o"}, PORTAL), name), Secret)
        for name in ("url", "token_url", "client_id", "client_secret", "orgId")
    }

    assert kinds == {
        "url": False,
        "token_url": False,
        "client_id": False,
        "client_secret": True,
        "orgId": True,
    }


def test_among_several_addresses_none_is_the_main_one() -> None:
    found = of(AFC_KEY, AFC)

    assert field(found, "url.task-center") == "https://afc.example.invalid/api/task-provider/v2"
    with pytest.raises(KeyError, match="url"):
        field(found, "url")


@pytest.mark.parametrize("name", ["certificate", "private_key", "cert_token_url", "url.other", "nope", "clientId.deeper", "on"])  # fmt: skip
def test_a_field_that_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(KeyError):
        field(of({**PORTAL_KEY, "on": True}, PORTAL), name)


# --- shapes ---------------------------------------------------------------------------------------------


def test_native_is_what_the_broker_gave() -> None:
    raw = {**AFC_KEY, "more": [1, "two", None]}

    assert plain(shaped(of(raw, AFC), "native", ABOUT)) == raw


def test_uaa_is_nested_and_lower_case() -> None:
    assert plain(shaped(of(PORTAL_KEY, PORTAL), "uaa", ABOUT)) == {
        "uaa": {
            "url": "https://acme.authentication.example.invalid",
            "clientid": "sb-apiaccess1!b10|api-portal-xsuaa!b20",
            "clientsecret": "hunter-2",
        },
        "url": "https://acme.example.invalid",
        "uri": "https://acme.example.invalid",
    }
    assert plain(shaped(of(X509_KEY, PORTAL), "uaa", ABOUT))["uaa"] == {
        "url": "https://acme.authentication.example.invalid",
        "clientid": "sb-apiaccess1!b10|api-portal-xsuaa!b20",
        "certificate": "-----BEGIN CERTIFICATE-----\nleaf\n-----END CERTIFICATE-----\n",
        "key": "-----BEGIN PRIVATE KEY-----\nkey\n-----END PRIVATE KEY-----\n",
        "certurl": "https://acme.authentication.cert.example.invalid",
        "credential-type": "x509",
    }


def test_uaa_with_several_addresses_names_them() -> None:
    assert plain(shaped(of(AFC_KEY, AFC), "uaa", ABOUT)) == AFC_KEY


def test_uaa_read_again_is_the_same_key() -> None:
    for raw in (PORTAL_KEY, X509_KEY):
        found = of(raw, PORTAL)

        assert told(read(shaped(found, "uaa", ABOUT), None)) == told(found)


def test_piper_wants_one_object_with_a_complete_token_url() -> None:
    assert plain(shaped(of(PORTAL_KEY, PORTAL), "piper", ABOUT)) == {
        "oauth": {
            "url": "https://acme.example.invalid",
            "tokenurl": "https://acme.authentication.example.invalid/oauth/token",
            "clientid": "sb-apiaccess1!b10|api-portal-xsuaa!b20",
            "clientsecret": "hunter-2",
        }
    }


@pytest.mark.parametrize(
    ("raw", "shape", "missing"), [(X509_KEY, PORTAL, ("client_secret",)), (AFC_KEY, AFC, ("url",))]
)
def test_what_piper_cannot_use_is_refused(raw: Any, shape: KeyShape, missing: tuple[str, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        shaped(of(raw, shape), "piper", ABOUT)

    assert caught.value.missing == missing


def test_a_binding_says_what_it_belongs_to() -> None:
    assert plain(shaped(of(AFC_KEY, AFC), "binding", ABOUT)) == {
        **AFC_KEY,
        "type": "afc-api-service",
        "label": "afc-api-service",
        "plan": "standard",
        "instance_name": "afc-api",
        "instance_guid": "guid-1",
    }


def test_another_shape_is_none() -> None:
    with pytest.raises(ValueError, match="'xml' is no shape; one of native, uaa, piper, binding is"):
        shaped(of(AFC_KEY, AFC), "xml", ABOUT)


@pytest.mark.parametrize("shape", ["native", "uaa", "piper", "binding"])
def test_whatever_the_shape_secrets_are_secrets(shape: str) -> None:
    assert "hunter" not in repr(shaped(of(PORTAL_KEY, PORTAL), shape, ABOUT))
