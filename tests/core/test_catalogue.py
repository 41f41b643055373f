"""What the shipped catalogue says, and what a user's own file may say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from btp_reconcile.core import catalogue
from btp_reconcile.core.errors import SpecError
from btp_reconcile.core.merge import Document
from btp_reconcile.edges import load

if TYPE_CHECKING:
    from btp_reconcile.core.catalogue import Catalogue

SHIPPED = catalogue.build(load.catalogue())
PORTAL = ("apimanagement-apiportal", "apiportal-apiaccess")
HUB = ("apimanagement-devportal", "devportal-apiaccess")


def own(**data: Any) -> Catalogue:
    whole = {"api": "own", "title": "Own", "service": "s", "plan": "p", **data}
    return catalogue.build([*load.catalogue(), Document("_own.yaml", whole, {})])


def test_the_names_are_a_closed_list() -> None:
    assert [(api.api, api.service, api.plan) for api in SHIPPED.apis] == [
        ("afc", "afc-api-service", "standard"),
        ("api-management", *PORTAL),
        ("api-management-devportal", *HUB),
        ("api-management-devportal-trial", "apimanagement-devportal-trial", "devportal-apiaccess"),
        ("api-management-on-premise", "apimanagement-apiportal", "on-premise-connectivity"),
        ("api-management-route-service", "apimanagement-apiportal", "apim-as-route-service"),
        ("api-management-trial", "apimanagement-apiportal-trial", "apiportal-apiaccess"),
    ]


def test_only_what_cannot_be_had_again_is_protected() -> None:
    assert [api.api for api in SHIPPED.apis if api.protect] == ["afc"]


def test_no_live_category_is_guessed() -> None:
    assert {api.live_category for api in SHIPPED.apis} == {""}


@pytest.mark.parametrize("api", SHIPPED.apis, ids=lambda api: api.api)
def test_every_description_of_parameters_is_a_schema(api: catalogue.Api) -> None:
    Draft202012Validator.check_schema(api.parameters)
    Draft202012Validator.check_schema(api.key_parameters)


@pytest.mark.parametrize("api", SHIPPED.apis, ids=lambda api: api.api)
def test_every_role_has_a_description_and_at_most_one_proof(api: catalogue.Api) -> None:
    role = api.parameters.get("properties", {}).get("role", {})
    roles = role.get("enum", [])
    proven = [one for request in api.verify for one in request.roles]

    assert len(role.get("enumDescriptions", [])) == len(roles)
    assert sorted(proven) == sorted(roles)


@pytest.mark.parametrize("api", SHIPPED.apis, ids=lambda api: api.api)
def test_what_is_often_misspelt_is_led_to_what_exists(api: catalogue.Api) -> None:
    fields = api.parameters.get("properties", {})
    right = {*fields, *fields.get("role", {}).get("enum", [])}

    assert set(api.spelling.values()) <= right
    assert not set(api.spelling) & right


def test_keys_of_the_two_services_are_shaped_differently() -> None:
    afc, portal = SHIPPED.by_name["afc"].key_shape, SHIPPED.by_name["api-management"].key_shape

    assert (afc.client_id, afc.token_url, afc.append_token_path) == ("uaa.clientid", "uaa.url", True)
    assert (portal.client_id, portal.token_url, portal.append_token_path) == ("clientId", "tokenUrl", False)
    assert afc.urls == {"scim2": "endpoints.scim2", "task-center": "endpoints.task-center"}


@pytest.mark.parametrize(
    ("plan", "text", "final", "gate"),
    [
        (PORTAL, "Service broker error: Could not find credentials service.", False, False),
        (PORTAL, "An error occurred during the clone creation due to INVALID role\n creation", True, False),
        (HUB, "The developerId X1 is unknown", True, False),
        (PORTAL, "APIMGT100: Activation of API Management capability has failed", False, True),
    ],
)
def test_known_errors_say_whether_to_go_on(plan: tuple[str, str], text: str, final: bool, gate: bool) -> None:
    known = SHIPPED.known_error(*plan, text)

    assert known
    assert (known.final, known.gate) == (final, gate)
    assert known.meaning
    assert known.hint


def test_an_unknown_text_or_service_means_nothing() -> None:
    assert SHIPPED.known_error(*PORTAL, "teapot") is None
    assert SHIPPED.known_error("xsuaa", "application", "Could not find credentials service.") is None


def test_an_api_is_found_by_name_and_by_plan() -> None:
    assert SHIPPED.named("afc") is SHIPPED.offered("afc-api-service", "standard")
    assert SHIPPED.named("nope") is None
    assert SHIPPED.offered("afc-api-service", "nope") is None


def test_another_api_is_another_file() -> None:
    found = own(errors=[{"match": "busy", "meaning": "Busy."}], replace_on=["size"]).named("own")

    assert found
    assert (found.errors[0].meaning, found.replace_on, found.protect) == ("Busy.", ("size",), False)


def test_a_file_of_the_same_name_replaces_the_shipped_one() -> None:
    found = own(api="afc", protect=False).named("afc")

    assert found
    assert found.service == "s"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"plan": None}, "catalogue/missing"),
        ({"api": 5}, "spec/quote-it"),
        ({"regions": ["Frankfurt"]}, "spec/region"),
        ({"parameters": []}, "spec/type"),
        ({"verify": [{"path": 1}]}, "spec/quote-it"),
        ({"verify": [5]}, "spec/type"),
        ({"errors": [{}]}, "catalogue/missing"),
        ({"errors": None, "wrong": 1}, "spec/unknown-field"),
        ({"key_shape": {"urls": {"a": "b"}}, "verify": [{"url": "c"}]}, "catalogue/unknown-url"),
    ],
)
def test_mistakes_in_an_own_file_are_problems(data: dict[str, Any], code: str) -> None:
    with pytest.raises(SpecError) as caught:
        own(**data)

    assert code in {problem.code for problem in caught.value.problems}
