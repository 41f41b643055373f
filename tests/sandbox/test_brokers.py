"""The brokers, called directly."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from cryptography import x509

from btp_reconcile.sandbox import Request, World, brokers, tokens

CONTEXT = {"subaccount_id": "s1", "subdomain": "acme", "region": "eu20", "platform": "sapcp"}


@pytest.fixture
def world() -> World:
    made = World.new()
    tokens.prepare(made)
    return made


def provision(
    world: World, service: str, plan: str, instance_id: str = "i1", **parameters: Any
) -> brokers.Outcome:
    context = {**CONTEXT, "instance_name": "named"}
    return brokers.provision(
        world, instance_id=instance_id, offering=service, plan=plan, parameters=parameters, context=context
    )


def bind(world: World, binding_id: str = "b1", instance_id: str = "i1", **parameters: Any) -> brokers.Outcome:
    return brokers.bind(world, instance_id=instance_id, binding_id=binding_id, parameters=parameters)


def test_catalogue_is_the_same_in_every_world() -> None:
    names = {item.name for item in brokers.OFFERINGS}
    assert {"afc-api-service", "apimanagement-apiportal", "cis", "service-manager", "xsuaa"} <= names
    assert len({item.id for item in brokers.OFFERINGS}) == len(names)
    plans = [plan.id for item in brokers.OFFERINGS for plan in item.plans]
    assert len(set(plans)) == len(plans)


def test_offerings_can_be_changed_hidden_and_added() -> None:
    world = World.new(
        settings={
            "offerings": {
                "afc-api-service": {
                    "instances_retrievable": True,
                    "plans": {"standard": {"bindable": False}},
                },
                "transport": {"hidden": True},
                "own": {"plans": {"p": {"free": False}}},
            }
        }
    )
    found = {item.name: item for item in brokers.offerings(world)}
    assert found["afc-api-service"].instances_retrievable
    assert not found["afc-api-service"].plans[0].bindable
    assert "transport" not in found
    assert not found["own"].plans[0].free


def test_afc_key_has_lower_case_uaa_fields_and_two_endpoints(world: World) -> None:
    assert provision(world, "afc-api-service", "standard").status == 201
    key = bind(world).body["credentials"]
    assert key["endpoints"]["scim2"].startswith("https://afc-production-afc-api.cfapps.eu20.")
    assert key["endpoints"]["task-center"].endswith("/api/task-provider/v2")
    assert key["uaa"]["url"] == "https://acme.authentication.eu20.hana.ondemand.com"
    assert key["uaa"]["clientid"].startswith("sb-")
    assert "|afc-api" in key["uaa"]["clientid"]


def test_api_management_key_is_flat_and_its_token_address_complete(world: World) -> None:
    provision(world, "apimanagement-apiportal", "apiportal-apiaccess")
    key = bind(world).body["credentials"]
    assert set(key) == {"url", "tokenUrl", "clientId", "clientSecret"}
    assert key["tokenUrl"].endswith("/oauth/token")


def test_api_management_certificate_key(world: World) -> None:
    provision(world, "apimanagement-apiportal", "apiportal-apiaccess")
    options = {"credential-type": "x509", "x509": {"validity": 3, "validity-type": "DAYS"}}
    key = bind(world, xsuaa=options).body["credentials"]
    assert set(key) == {"url", "tokenUrl", "certurl", "clientId", "certificate", "privateKey"}
    chain = x509.load_pem_x509_certificates(key["certificate"].encode())
    assert len(chain) == 2
    chain[0].verify_directly_issued_by(chain[1])
    assert chain[0].not_valid_after_utc - chain[0].not_valid_before_utc == dt.timedelta(days=3)
    assert world.table("clients")[key["clientId"]]["secret"] is None


@pytest.mark.parametrize(("mode", "days"), [("cap", 30), ("accept", 65), ("refuse", None)])
def test_what_becomes_of_a_long_validity(mode: str, days: int | None) -> None:
    world = World.new(settings={"apim_x509": mode})
    provision(world, "apimanagement-apiportal", "apiportal-apiaccess")
    made = bind(world, xsuaa={"credential-type": "x509", "x509": {"validity": 65}})
    if days is None:
        assert made.status == 400
        return
    chain = x509.load_pem_x509_certificates(made.body["credentials"]["certificate"].encode())
    assert (chain[0].not_valid_after_utc - chain[0].not_valid_before_utc).days == days


def test_developer_key_carries_the_developer(world: World) -> None:
    role = "AuthGroup.API.ApplicationDeveloper"
    provision(world, "apimanagement-devportal", "devportal-apiaccess", role=role, developerId="P1")
    assert bind(world).body["credentials"]["developerId"] == "P1"


def test_on_premise_key_points_at_the_token_host(world: World) -> None:
    provision(world, "apimanagement-apiportal", "on-premise-connectivity")
    key = bind(world).body["credentials"]
    assert key["url"] == "https://acme.authentication.eu20.hana.ondemand.com"
    assert key["orgId"] == "s1"
    assert key["clientId"].startswith("sb-opproxy-xsuaa-clone")


@pytest.mark.parametrize(
    ("plan", "grant"), [("central", "user_token"), ("local-viewer", "client_credentials")]
)
def test_cloud_management_grant_follows_the_instance(world: World, plan: str, grant: str) -> None:
    provision(world, "cis", plan)
    key = bind(world).body["credentials"]
    assert key["grant_type"] == grant
    assert key["endpoints"]["accounts_service_url"].startswith("https://accounts-service.cfapps.eu10.")
    assert key["endpoints"]["provisioning_service_url"].startswith(
        "https://provisioning-service.cfapps.eu20."
    )
    scopes = world.table("clients")[key["uaa"]["clientid"]]["scopes"]
    if plan.endswith("viewer"):
        assert all(scope.endswith(".read") for scope in scopes)


@pytest.mark.parametrize("allowed", [False, True])
def test_cloud_management_certificates_are_off_unless_allowed(allowed: bool) -> None:
    world = World.new(settings={"cis_x509": allowed})
    tokens.prepare(world)
    provision(world, "cis", "local")
    options: dict[str, Any] = {"credential-type": "x509"}
    made = bind(world, **options)
    assert made.status == (201 if allowed else 400)
    assert ("certificate" in made.body.get("credentials", {}).get("uaa", {})) is allowed


def test_service_manager_certificate_key_has_no_url(world: World) -> None:
    provision(world, "service-manager", "subaccount-admin")
    options: dict[str, Any] = {"credential-type": "x509", "x509": {"validity": 7}}
    key = bind(world, **options).body["credentials"]
    assert set(key) == {"clientid", "certificate", "key", "certurl", "sm_url", "xsappname"}


def test_xsuaa_allows_certificates_only_when_the_instance_says_so(world: World) -> None:
    assert provision(world, "xsuaa", "application").status == 202
    assert bind(world, **dict[str, Any]({"credential-type": "x509"})).status == 400
    types = {"credential-types": ["x509", "binding-secret"]}
    provision(world, "xsuaa", "application", "i2", **{"oauth2-configuration": types})
    assert "certificate" in bind(world, "b2", "i2").body["credentials"]


def test_self_managed_certificate_comes_without_a_key(world: World) -> None:
    provision(world, "service-manager", "subaccount-admin")
    pem = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"
    options: dict[str, Any] = {"credential-type": "x509", "x509": {"certificate": pem}}
    key = bind(world, **options).body["credentials"]
    assert key["certificate"] == pem
    assert "key" not in key


def test_each_key_has_its_own_client_and_unbinding_kills_it(world: World) -> None:
    provision(world, "afc-api-service", "standard")
    first = bind(world, "b1").body["credentials"]["uaa"]
    second = bind(world, "b2").body["credentials"]["uaa"]
    assert first["clientsecret"] != second["clientsecret"]
    assert brokers.unbind(world, instance_id="i1", binding_id="b1").status == 200
    assert first["clientid"] not in world.table("clients")
    assert second["clientid"] in world.table("clients")
    assert brokers.unbind(world, instance_id="i1", binding_id="b1").status == 410
    assert brokers.deprovision(world, instance_id="i1").status == 200
    assert second["clientid"] not in world.table("clients")
    assert brokers.deprovision(world, instance_id="i1").status == 410


def test_secrets_have_the_signs_that_break_clients(world: World) -> None:
    provision(world, "afc-api-service", "standard")
    secrets = [bind(world, f"b{n}").body["credentials"]["uaa"]["clientsecret"] for n in range(24)]
    assert len(set(secrets)) == 24
    for sign in "=$+|!":
        assert any(sign in secret for secret in secrets)


def test_the_same_seed_gives_the_same_secrets() -> None:
    found = []
    for _ in range(2):
        world = World.new(seed=7)
        provision(world, "afc-api-service", "standard")
        found.append(bind(world).body)
    assert found[0] == found[1]


def test_orders_to_fail_are_used_up_in_turn() -> None:
    world = World.new(
        settings={
            "broker_failures": [
                {"offering": "apimanagement-apiportal", "verb": "provision", "times": 2, "status": 500},
                {"verb": "provision", "name": "named", "times": 1, "status": "async", "description": "late"},
            ]
        }
    )
    names = ("apimanagement-apiportal", "apiportal-apiaccess")
    for _ in range(2):
        refused = provision(world, *names)
        assert refused.status == 500
        assert refused.body["description"] == "Could not find credentials service."
    late = provision(world, *names)
    assert (late.status, late.failure) == (202, "late")
    assert late.ticket is not None
    assert "i1" not in world.table("broker.instances")
    assert provision(world, *names).status == 201


def test_an_order_without_end_goes_on() -> None:
    world = World.new(settings={"broker_failures": [{"verb": "bind", "times": None, "status": 422}]})
    provision(world, "sandbox-config", "standard")
    assert [bind(world).status for _ in range(3)] == [422, 422, 422]
    assert not world.table("clients")


def test_slow_service_answers_with_tickets(world: World) -> None:
    made = provision(world, "sandbox-slow", "standard", a=1)
    assert made.status == 202
    assert made.ticket is not None
    bound = bind(world)
    assert (bound.status, "credentials" in bound.body) == (202, False)
    assert "password" in brokers.fetch_binding(world, "b1").body["credentials"]


def test_readable_parameters(world: World) -> None:
    provision(world, "sandbox-config", "standard", a=1)
    assert brokers.fetch_instance(world, "i1").body["parameters"] == {"a": 1}
    changed = brokers.update(
        world, instance_id="i1", offering="sandbox-config", plan="large", parameters={"b": 2}, context=CONTEXT
    )
    assert changed.status == 200
    assert brokers.fetch_instance(world, "i1").body == {"parameters": {"b": 2}, "plan": "large"}
    provision(world, "afc-api-service", "standard", "i2")
    assert brokers.fetch_instance(world, "i2").status == 400
    assert brokers.fetch_instance(world, "nothing").status == 404


def test_unknown_parameters_are_ignored_and_the_role_stays(world: World) -> None:
    names: dict[str, Any] = {
        "offering": "apimanagement-apiportal",
        "plan": "apiportal-apiaccess",
        "instance_id": "i1",
    }
    assert provision(world, "apimanagement-apiportal", "apiportal-apiaccess", colour="red").status == 201
    assert world.table("broker.instances")["i1"]["parameters"] == {"role": "APIPortal.Administrator"}
    assert brokers.update(world, parameters={}, **names).status == 200
    assert brokers.update(world, parameters={"role": "APIPortal.Guest"}, **names).status == 400


def test_localise_rewrites_addresses_and_nothing_else(world: World) -> None:
    provision(world, "afc-api-service", "standard")
    key = bind(world).body["credentials"]
    request = Request.of("GET", "x", "/", url=lambda host, path: f"http://127.0.0.1:80/{host}{path}")
    found = brokers.localise(key, request)
    assert found["uaa"]["url"] == "http://127.0.0.1:80/acme.authentication.eu20.hana.ondemand.com"
    assert found["endpoints"]["scim2"].startswith("http://127.0.0.1:80/afc-production-afc-api.")
    assert found["uaa"]["uaadomain"] == key["uaa"]["uaadomain"]
    assert key["uaa"]["url"].startswith("https://")
    json.dumps(world.state)


@pytest.mark.parametrize(
    ("service", "plan"), [(item.name, plan.name) for item in brokers.OFFERINGS for plan in item.plans]
)
def test_every_plan_gives_a_key(world: World, service: str, plan: str) -> None:
    assert provision(world, service, plan).status in {201, 202}
    assert bind(world).status in {201, 202}
    key = world.table("broker.bindings")["b1"]
    if not service.startswith("sandbox-"):
        assert world.table("clients")[key["client"]]["secret"] in json.dumps(key["credentials"])
        assert world.table("clients")[key["client"]]["zone"] == "acme"
    assert brokers.unbind(world, instance_id="i1", binding_id="b1").status in {200, 202}
    assert set(world.table("clients")) == {"cf"}


@pytest.mark.parametrize(
    ("service", "fields"),
    [
        ("destination", {"uri", "clientid", "clientsecret", "url"}),
        ("content-agent", {"uaa", "url"}),
        ("transport", {"uaa", "uri"}),
        ("one-inbox-service", {"uaa", "url"}),
        ("xsuaa", {"clientid", "xsappname", "verificationkey", "tenantmode"}),
    ],
)
def test_shapes_of_the_other_keys(world: World, service: str, fields: set[str]) -> None:
    item = brokers.offering(world, service)
    assert item is not None
    provision(world, service, item.plans[0].name)
    assert fields <= set(bind(world).body["credentials"])


def test_what_is_not_there_is_told(world: World) -> None:
    assert bind(world).status == 404
    nothing: dict[str, Any] = {"offering": "sandbox-config", "plan": "standard", "parameters": {}}
    assert brokers.update(world, instance_id="i1", **nothing).status == 404
    assert brokers.fetch_binding(world, "b1").status == 404
    with pytest.raises(LookupError):
        provision(world, "nothing", "standard")


def test_a_plan_changes_only_where_the_offering_allows_it(world: World) -> None:
    provision(world, "service-manager", "container")
    refused = brokers.update(
        world, instance_id="i1", offering="service-manager", plan="subaccount-audit", parameters=None
    )
    assert (refused.status, refused.body["error"]) == (422, "PlanChangeNotSupported")


def test_limits_of_bindings_and_instances() -> None:
    world = World.new(settings={"binding_limit": 2, "xsuaa_limit": 1})
    provision(world, "sandbox-config", "standard")
    assert [bind(world, f"b{n}").status for n in range(3)] == [201, 201, 400]
    assert [provision(world, "xsuaa", "application", f"x{n}").status for n in range(2)] == [202, 400]


@pytest.mark.parametrize("verb", ["unbind", "deprovision"])
@pytest.mark.parametrize("status", [500, "async"])
def test_a_failed_removal_leaves_everything(verb: str, status: Any) -> None:
    world = World.new(settings={"broker_failures": [{"verb": verb, "status": status}]})
    provision(world, "afc-api-service", "standard")
    bind(world)

    def remove() -> brokers.Outcome:
        if verb == "unbind":
            return brokers.unbind(world, instance_id="i1", binding_id="b1")
        return brokers.deprovision(world, instance_id="i1")

    first = remove()
    assert first.status == (202 if status == "async" else 500)
    assert (first.failure is not None) == (status == "async")
    assert "b1" in world.table("broker.bindings")
    assert remove().status == 200
