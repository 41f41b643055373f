"""Texts that take from keys, how they are filled, and the recipes that the catalogue ships."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from btp_reconcile import pipeline
from btp_reconcile.core import catalogue, credentials, digest, recipes, resolve, validate
from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.model import Address, Secret
from btp_reconcile.edges import load
from btp_reconcile.kinds import KINDS

SHIPPED = pipeline.shipped_catalogue()
KEY = Address("key", ("prod", "apim", "transport"))
PORTAL = {
    "url": "https://acme-apiportal.cfapps.eu10.hana.ondemand.com",
    "tokenUrl": "https://acme.authentication.eu10.hana.ondemand.com/oauth/token",
    "clientId": "sb-apiaccess!b1",
    "clientSecret": "portal-secret",
}
CLOSING = {
    "endpoints": {
        "scim2": "https://afc.cfapps.eu10.hana.ondemand.com/scim",
        "task-center": "https://afc.cfapps.eu10.hana.ondemand.com/api/task-provider/v2",
    },
    "uaa": {
        "url": "https://closing.authentication.eu10.hana.ondemand.com",
        "clientid": "sb-afc!b2",
        "clientsecret": "closing-secret",
    },
}
NESTED = {
    "uri": "https://transport-service.cfapps.eu10.hana.ondemand.com",
    "url": "https://content-agent-assembly.cfapps.eu10.hana.ondemand.com",
    "uaa": {
        "url": "https://acme.authentication.eu10.hana.ondemand.com",
        "clientid": "sb-nested!b3",
        "clientsecret": "nested-secret",
    },
}


def opened(
    raw: dict[str, Any], service: str, plan: str = "standard"
) -> dict[Address, credentials.Credentials]:
    """A key of that service, read."""
    return {KEY: credentials.read(digest.hidden(raw, "key"), SHIPPED.shape_of(service, plan))}


def built(recipe: str, raw: dict[str, Any], service: str, plan: str = "standard") -> dict[str, str]:
    """What a recipe builds from a key, with its secrets in clear."""
    known = SHIPPED.recipe(recipe)
    assert known is not None
    texts = {
        name: recipes.absolute(text, "prod", "apim/transport") for name, text in known.properties.items()
    }
    plain: dict[str, str] = digest.plain(recipes.filled(texts, opened(raw, service, plan)))
    return plain


# --- the texts ------------------------------------------------------------------------------------------


def test_references_are_read_with_their_ends_cut_off() -> None:
    text = "${key:apim/transport#url}/a ${key#url.task-center%/task-provider/v2} ${env:X} $${key#no}"

    assert recipes.taken(text) == (
        recipes.Reference("apim/transport", "url"),
        recipes.Reference("", "url.task-center", "/task-provider/v2"),
    )
    assert recipes.without(text) == "/a  ${env:X} $${key#no}"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("apim/transport", ("test", "apim", "transport")),
        ("prod/apim/transport", ("prod", "apim", "transport")),
        ("transport", None),
        ("a/b/c/d", None),
        ("a//b", None),
        ("A/b", None),
        ("", None),
    ],
)
def test_a_key_is_named_by_two_or_three_parts(written: str, address: tuple[str, ...] | None) -> None:
    assert recipes.address(written, "test") == (Address("key", address) if address else None)


def test_the_full_form_names_the_subaccount_and_stays_as_it_is() -> None:
    full = "${key:prod/apim/transport#url%/x} $${key#url}"

    assert recipes.absolute("${key#url%/x} $${key#url}", "prod", "apim/transport") == full
    assert recipes.absolute(full, "other") == full


@pytest.mark.parametrize(
    ("name", "text", "secret"),
    [
        ("URL", "${key:a/b/c#url}/x", False),
        ("URL", "${key:a/b/c#url.scim2}", False),
        ("clientId", "${key:a/b/c#client_id}", False),
        ("x", "${key:a/b/c#client_secret}", True),
        ("x", "${key:a/b/c#private_key}", True),
        ("x", "${key:a/b/c#uaa.xsappname}", True),
        ("x", Secret("env:X", "y"), True),
        ("tokenServicePassword", "literal", True),
        ("URL.headers.apikey", "literal", True),
        ("Description", "literal", False),
    ],
)
def test_what_counts_as_a_secret(name: str, text: str | Secret, secret: bool) -> None:
    assert recipes.secret_in(name, text) is secret


def test_the_keys_that_properties_take_from_are_named_once() -> None:
    found = recipes.keys_of(
        {
            "a": "${key:p/i/one#url}${key:p/i/two#url}",
            "b": Secret("env:X", "${key:p/i/one#url}"),
            "c": "nothing $${key:p/i/no#url}",
        }
    )

    assert [str(one) for one in found] == ["key:p/i/one", "key:p/i/two"]


@given(st.text())
def test_a_value_from_outside_is_never_taken_for_a_reference(text: str) -> None:
    escaped = recipes.escaped(text)

    assert recipes.taken(escaped) == ()
    assert recipes.filled({"x": escaped}, {}) == {"x": text}


# --- filling in -----------------------------------------------------------------------------------------


def test_a_text_that_takes_in_a_secret_becomes_one() -> None:
    found = recipes.filled(
        {
            "URL": "${key:prod/apim/transport#url}/orders",
            "clientSecret": "${key:prod/apim/transport#client_secret}",
            "own": "${key:prod/apim/transport#clientId}",
            "literal": "a $${b}",
        },
        opened(PORTAL, "apimanagement-apiportal", "apiportal-apiaccess"),
    )

    assert found["URL"] == "https://acme-apiportal.cfapps.eu10.hana.ondemand.com/orders"
    assert found["literal"] == "a ${b}"
    assert str(found["clientSecret"]) == "<secret key:prod/apim/transport#client_secret>"
    assert digest.plain(found["clientSecret"]) == "portal-secret"
    assert digest.plain(found["own"]) == "sb-apiaccess!b1"
    assert isinstance(found["own"], Secret)


def test_a_value_from_outside_stays_a_secret_and_may_stand_beside_a_key() -> None:
    text = Secret("env:TENANT", "${key:prod/apim/transport#url}?tenant=a$${b}")

    found = recipes.filled({"x": text}, opened(PORTAL, "apimanagement-apiportal", "apiportal-apiaccess"))

    assert str(found["x"]) == "<secret env:TENANT>"
    assert digest.plain(found["x"]) == "https://acme-apiportal.cfapps.eu10.hana.ondemand.com?tenant=a${b}"


def test_a_field_that_the_key_lacks_is_told_without_a_value() -> None:
    with pytest.raises(PlatformError) as caught:
        recipes.filled(
            {"x": "${key:prod/apim/transport#url.scim2}"},
            opened(PORTAL, "apimanagement-apiportal", "apiportal-apiaccess"),
        )

    assert caught.value.blame.message == (
        "key:prod/apim/transport has no url.scim2, which the destination takes from it"
    )


# --- what is shipped ------------------------------------------------------------------------------------


def test_the_recipes_are_a_closed_list() -> None:
    assert [(one.name, one.destination) for one in SHIPPED.recipes] == [
        ("api-management-transport", "APIManagement"),
        ("content-agent", "ContentAssemblyService"),
        ("task-center", ""),
        ("transport-management", "TransportManagementService"),
    ]


@pytest.mark.parametrize("recipe", SHIPPED.recipes, ids=lambda one: one.name)
def test_every_recipe_spells_properties_as_consumers_read_them(recipe: catalogue.Recipe) -> None:
    assert set(recipe.properties) - set(recipes.KNOWN) == set()
    assert {*recipe.own, *recipe.elsewhere.own} - set(recipes.KNOWN) == set()
    assert all(one.key == "" for text in recipe.properties.values() for one in recipes.taken(text))


def test_content_transport_of_api_management() -> None:
    found = built("api-management-transport", PORTAL, "apimanagement-apiportal", "apiportal-apiaccess")

    assert found == {
        "Type": "HTTP",
        "Description": "content transport",
        "URL": "https://acme-apiportal.cfapps.eu10.hana.ondemand.com/api/1.0/transportmodule/Transport",
        "ProxyType": "Internet",
        "Authentication": "OAuth2ClientCredentials",
        "clientId": "sb-apiaccess!b1",
        "clientSecret": "portal-secret",
        "tokenServiceURLType": "Dedicated",
        "tokenServiceURL": "https://acme.authentication.eu10.hana.ondemand.com/oauth/token",
    }


def test_task_center() -> None:
    found = built("task-center", CLOSING, "afc-api-service")

    assert found == {
        "Type": "HTTP",
        "URL": "https://afc.cfapps.eu10.hana.ondemand.com/api",
        "ProxyType": "Internet",
        "Authentication": "OAuth2SAMLBearerAssertion",
        "audience": "https://closing.authentication.eu10.hana.ondemand.com",
        "authnContextClassRef": "urn:oasis:names:tc:SAML:2.0:ac:classes:PreviousSession",
        "clientKey": "sb-afc!b2",
        "tokenServiceURLType": "Dedicated",
        "tokenServiceURL": "https://closing.authentication.eu10.hana.ondemand.com/oauth/token",
        "tokenServiceUser": "sb-afc!b2",
        "tokenServicePassword": "closing-secret",
        "nameIdFormat": "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified",
        "userIdSource": "user_uuid",
        "tc.enabled": "true",
        "tc.provider_type": "AFC",
    }


@pytest.mark.parametrize(
    ("recipe", "service", "url"),
    [("content-agent", "content-agent", NESTED["url"]), ("transport-management", "transport", NESTED["uri"])],
)
def test_the_chain_of_content_transport(recipe: str, service: str, url: str) -> None:
    assert built(recipe, NESTED, service) == {
        "Type": "HTTP",
        "URL": url,
        "ProxyType": "Internet",
        "Authentication": "OAuth2ClientCredentials",
        "clientId": "sb-nested!b3",
        "clientSecret": "nested-secret",
        "tokenServiceURLType": "Dedicated",
        "tokenServiceURL": "https://acme.authentication.eu10.hana.ondemand.com/oauth/token",
    }


# --- from a spec ----------------------------------------------------------------------------------------

SPEC = """\
version: 1
owner: team
name: prod
defaults: {runtime: other}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    instances:
      apim: {api: api-management, keys: {transport: {}}}
    destinations:
      APIManagement:
        recipe: api-management-transport
        key: apim/transport
        properties:
          Description: null
          URL.headers.apikey: "${env:API_KEY}"
          extra: "$${not taken}"
"""


def test_own_properties_stand_over_the_recipes_and_null_takes_away(tmp_path: Any) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC, encoding="utf-8")
    checked = validate.check(load.documents([tmp_path / "spec.yaml"]), KINDS, SHIPPED)
    outside = resolve.Outside({"API_KEY": "open ${key:prod/apim/transport#client_secret}"}, lambda *_: "")

    (found,) = resolve.resources(checked.specs, SHIPPED, outside).of("destination")

    assert found.requires == found.spec["keys"] == (KEY,)
    assert found.spec["secret"] == ("clientSecret", "URL.headers.apikey")
    assert "Description" not in found.spec["properties"]
    assert found.spec["properties"]["URL"] == (
        "${key:prod/apim/transport#url}/api/1.0/transportmodule/Transport"
    )
    filled = digest.plain(
        recipes.filled(
            found.spec["properties"], opened(PORTAL, "apimanagement-apiportal", "apiportal-apiaccess")
        )
    )
    assert filled["URL.headers.apikey"] == "open ${key:prod/apim/transport#client_secret}"
    assert filled["extra"] == "${not taken}"
