"""What Cloud Controller does with organisations, spaces, the marketplace, instances and keys."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from btp_reconcile.sandbox import Request
from tests.sandbox.landscape import API, CONFIG, HTTPS, SLOW, Landscape

SI, SCB = "/v3/service_instances", "/v3/service_credential_bindings"
UNABLE = "CF-UnableToPerform"


def failures(*orders: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"broker_failures": list(orders), **more}


def links(landscape: Landscape, target: str) -> dict[str, Any]:
    """The page links of a list without their address."""
    block = landscape.get(target)["pagination"]
    return {
        name: value["href"].removeprefix(HTTPS) if isinstance(value, dict) else value
        for name, value in block.items()
    }


def names(landscape: Landscape, target: str, who: str | None = None) -> list[str]:
    answer = landscape.send("GET", target, who=who)
    assert answer.status == 200, answer.body
    return [row["name"] for row in answer.data()["resources"]]


def last(landscape: Landscape, name: str) -> tuple[str, str, str]:
    operation = landscape.instance(name)["last_operation"]
    return operation["type"], operation["state"], operation["description"]


def failed(detail: str, code: int = 10009, title: str = UNABLE) -> tuple[str, list[dict[str, Any]]]:
    return "FAILED", [{"detail": detail, "title": title, "code": code}]


# Discovery and headers ---------------------------------------------------------------------------------------------


def test_the_root_names_every_neighbour():
    answer = Landscape().send("GET", "/", who="")

    domain = "cf.eu10.hana.ondemand.com"
    assert answer.header("Content-Type") == "application/json;charset=utf-8"
    assert answer.data() == {
        "links": {
            "self": {"href": HTTPS},
            "cloud_controller_v3": {"href": f"{HTTPS}/v3", "meta": {"version": "3.194.0"}},
            "network_policy_v0": {"href": f"{HTTPS}/networking/v0/external"},
            "network_policy_v1": {"href": f"{HTTPS}/networking/v1/external"},
            "login": {"href": f"https://login.{domain}"},
            "uaa": {"href": f"https://uaa.{domain}"},
            "credhub": None,
            "routing": None,
            "logging": {"href": f"wss://doppler.{domain}:443"},
            "log_cache": {"href": f"https://log-cache.{domain}"},
            "log_stream": {"href": f"https://log-stream.{domain}"},
            "app_ssh": {
                "href": f"ssh.{domain}:2222",
                "meta": {
                    "host_key_fingerprint": "Rw80L5fhKSfKZSwKl7dhPQvd0AQ45Z1zAzWSPp3RQlE",
                    "oauth_client": "ssh-proxy",
                },
            },
            "cloud_controller_v2": {"href": f"{HTTPS}/v2", "meta": {"version": "2.259.0"}},
        }
    }


def test_v3_and_info_answer_anybody():
    landscape = Landscape()

    index = landscape.send("GET", "/v3", who="").data()["links"]
    info = landscape.send("GET", "/v3/info", who="").data()

    assert len(index) == 33
    assert index["service_plans"] == {"href": f"{HTTPS}/v3/service_plans"}
    assert info["rate_limits"] == {
        "enabled": True,
        "general_limit": 20000,
        "reset_interval_in_minutes": 60,
    }


def test_every_answer_below_v3_has_the_headers_of_the_landscape():
    landscape = Landscape()
    answer = landscape.send("GET", "/v3/organizations")
    trace = answer.header("X-B3-Traceid") or ""
    request_id = answer.header("X-Vcap-Request-Id") or ""

    assert {name for name, _ in answer.headers} == {
        "Content-Type",
        "Content-Length",
        "Date",
        "Referrer-Policy",
        "Strict-Transport-Security",
        "X-B3-Spanid",
        "X-B3-Traceid",
        "X-Content-Type-Options",
        "X-Download-Options",
        "X-Frame-Options",
        "X-Permitted-Cross-Domain-Policies",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
        "X-Runtime",
        "X-Vcap-Request-Id",
        "X-Xss-Protection",
    }
    assert answer.header("Content-Type") == "application/json; charset=utf-8"
    assert trace[16:] == answer.header("X-B3-Spanid")
    assert request_id.partition("::")[0].replace("-", "") == trace
    root = {name for name, _ in landscape.send("GET", "/").headers}
    assert not root & {"Referrer-Policy", "X-Runtime", "X-Frame-Options", "X-RateLimit-Limit"}


def test_a_request_id_of_the_client_is_kept_in_front():
    headers = {"X-Vcap-Request-Id": "mine <1>"}
    answer = Landscape().sandbox.handle(Request.of("GET", API, "/v3/info", headers=headers))

    assert re.fullmatch(r"mine1::[0-9a-f-]{36}", answer.header("X-Vcap-Request-Id") or "")


def test_remaining_calls_fall_by_tenths_and_end_in_429():
    landscape = Landscape(settings={"cloud_foundry": {"rate_limit": 20}})
    landscape.token("dev@example.com")

    answers = [landscape.send("GET", "/v3/organizations") for _ in range(21)]

    assert [answer.header("X-RateLimit-Remaining") for answer in answers[:5]] == [
        "18",
        "18",
        "16",
        "16",
        "14",
    ]
    limited = answers[-1]
    reset, now = int(limited.header("X-RateLimit-Reset") or 0), 1767225600 + landscape.sandbox.count
    assert limited.status == 429
    assert limited.header("Content-Type") == "text/plain; charset=utf-8"
    assert limited.header("Retry-After") == str(reset - now)
    assert limited.data()["errors"] == [
        {"detail": "Rate Limit Exceeded", "title": "CF-RateLimitExceeded", "code": 10013}
    ]
    assert (
        landscape.send("GET", "/v3/organizations", who="admin@example.com").header("X-RateLimit-Limit")
        is None
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v3/apps"),
        ("GET", "/v3/app_usage_events"),
        ("GET", "/v2/info"),
        ("POST", "/v3/spaces"),
        ("POST", "/v3/service_route_bindings"),
        ("PATCH", "/v3/service_route_bindings/x"),
        ("DELETE", "/v3/service_route_bindings/x"),
        ("GET", "/v3/service_route_bindings/x/parameters"),
    ],
)
def test_what_the_sandbox_lacks_is_named(method: str, path: str):
    answer = Landscape().send(method, path)

    assert (answer.status, answer.data()["error"]["route"]) == (501, f"{method} {path}")


# Organisations and spaces ------------------------------------------------------------------------------------------


def test_an_organisation_and_its_spaces_look_like_the_platforms():
    landscape = Landscape()
    organization = landscape.get("/v3/organizations", names="acme")["resources"]
    space = landscape.get("/v3/spaces", names="apis", include="organization")

    org, guid = landscape.names["acme"], landscape.names["apis"]
    quota = organization[0]["relationships"]["quota"]["data"]["guid"]
    assert organization == [
        {
            "guid": org,
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            "name": "acme",
            "suspended": False,
            "relationships": {"quota": {"data": {"guid": quota}}},
            "metadata": {"labels": {}, "annotations": {}},
            "links": {
                "self": {"href": f"{HTTPS}/v3/organizations/{org}"},
                "domains": {"href": f"{HTTPS}/v3/organizations/{org}/domains"},
                "default_domain": {"href": f"{HTTPS}/v3/organizations/{org}/domains/default"},
                "quota": {"href": f"{HTTPS}/v3/organization_quotas/{quota}"},
            },
        }
    ]
    assert space["resources"] == [
        {
            "guid": guid,
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            "name": "apis",
            "relationships": {"organization": {"data": {"guid": org}}, "quota": {"data": None}},
            "metadata": {"labels": {}, "annotations": {}},
            "links": {
                "self": {"href": f"{HTTPS}/v3/spaces/{guid}"},
                "organization": {"href": f"{HTTPS}/v3/organizations/{org}"},
                "features": {"href": f"{HTTPS}/v3/spaces/{guid}/features"},
                "apply_manifest": {
                    "href": f"{HTTPS}/v3/spaces/{guid}/actions/apply_manifest",
                    "method": "POST",
                },
            },
        }
    ]
    assert space["included"] == {"organizations": organization}
    assert landscape.get(f"/v3/spaces/{guid}") == space["resources"][0]
    assert landscape.get(f"/v3/organizations/{org}") == organization[0]


def test_the_small_questions_about_a_space_are_answered():
    landscape = Landscape()
    base = f"/v3/spaces/{landscape.names['apis']}"

    assert landscape.get(f"{base}/features/ssh") == {
        "name": "ssh",
        "description": "Enable SSHing into apps in the space.",
        "enabled": True,
    }
    assert landscape.get(f"{base}/relationships/isolation_segment") == {
        "data": None,
        "links": {"self": {"href": f"{HTTPS}{base}/relationships/isolation_segment"}},
    }
    assert landscape.get("/v3/feature_flags/service_instance_sharing") == {
        "name": "service_instance_sharing",
        "enabled": False,
        "updated_at": None,
        "custom_error_message": None,
        "links": {"self": {"href": f"{HTTPS}/v3/feature_flags/service_instance_sharing"}},
    }


@pytest.mark.parametrize(
    ("who", "organizations", "spaces", "instances"),
    [
        ("dev@example.com", ["acme", "sleeping"], ["apis", "other", "night"], ["one"]),
        ("auditor@example.com", ["acme"], ["apis"], ["one"]),
        ("manager@example.com", ["acme"], ["apis"], ["one"]),
        ("stranger@example.com", [], [], []),
        ("admin@example.com", ["acme", "sleeping"], ["apis", "other", "vault", "night"], ["one", "two"]),
    ],
)
def test_everybody_sees_what_a_role_lets_them_see(
    who: str, organizations: list[str], spaces: list[str], instances: list[str]
):
    landscape = Landscape([{**CONFIG, "name": "one"}, {**CONFIG, "space": "vault", "name": "two"}], who=who)

    assert names(landscape, "/v3/organizations") == organizations
    assert names(landscape, "/v3/spaces") == spaces
    assert names(landscape, SI) == instances


# The marketplace ---------------------------------------------------------------------------------------------------


def test_a_plan_and_its_offering_look_like_the_platforms():
    landscape = Landscape()
    listed = landscape.get(
        "/v3/service_plans",
        **{
            "names": "standard",
            "service_offering_names": "sandbox-config",
            "include": "service_offering",
            "fields[service_offering.service_broker]": "name,guid",
        },
    )
    plan, offering, broker = (
        listed["resources"][0],
        listed["included"]["service_offerings"][0],
        listed["included"]["service_brokers"][0],
    )

    assert list(plan) == [
        "guid",
        "created_at",
        "updated_at",
        "name",
        "visibility_type",
        "available",
        "free",
        "costs",
        "description",
        "maintenance_info",
        "broker_catalog",
        "schemas",
        "relationships",
        "metadata",
        "links",
    ]
    assert list(offering) == [
        "guid",
        "created_at",
        "updated_at",
        "name",
        "description",
        "available",
        "tags",
        "requires",
        "shareable",
        "documentation_url",
        "broker_catalog",
        "relationships",
        "metadata",
        "links",
    ]
    assert plan["broker_catalog"]["features"] == {"bindable": True, "plan_updateable": True}
    assert offering["broker_catalog"]["features"] == {
        "plan_updateable": True,
        "bindable": True,
        "instances_retrievable": True,
        "bindings_retrievable": True,
        "allow_context_updates": True,
    }
    assert plan["relationships"]["service_offering"]["data"]["guid"] == offering["guid"]
    assert list(broker) == ["name", "guid"]
    assert offering["relationships"]["service_broker"]["data"]["guid"] == broker["guid"]
    assert landscape.get(f"/v3/service_offerings/{offering['guid']}") == offering
    assert landscape.get(f"/v3/service_plans/{plan['guid']}") == plan
    assert landscape.get(f"/v3/service_plans/{plan['guid']}/visibility") == {
        "type": "organization",
        "organizations": [
            {"guid": landscape.names["acme"], "name": "acme"},
            {"guid": landscape.names["sleeping"], "name": "sleeping"},
        ],
    }


def plans_in(landscape: Landscape, who: str | None = None, **query: str) -> set[str]:
    target = "/v3/service_plans?per_page=5000&include=service_offering&" + "&".join(
        f"{key}={value}" for key, value in query.items()
    )
    answer = landscape.send("GET", target, who=who).data()
    offerings = {row["guid"]: row["name"] for row in answer["included"]["service_offerings"]}
    return {
        f"{offerings[row['relationships']['service_offering']['data']['guid']]}/{row['name']}"
        for row in answer["resources"]
    }


def test_only_what_a_subaccount_is_entitled_to_is_in_its_marketplace():
    landscape = Landscape()
    acme = plans_in(landscape, space_guids=landscape.names["apis"])
    sleeping = plans_in(landscape, organization_guids=landscape.names["sleeping"])

    assert acme - sleeping == {"sandbox-config/large", "sandbox-slow/standard"}
    assert sleeping - acme == {"destination/lite"}
    assert plans_in(landscape, space_guids="nowhere") == set()
    assert plans_in(landscape, who="stranger@example.com") == set()
    assert plans_in(landscape, who="") == set()
    assert plans_in(landscape, who="admin@example.com") > acme | sleeping
    assert names(landscape, "/v3/service_offerings?names=destination,cis") == ["destination"]


def test_ids_of_plans_differ_between_landscapes_and_stay_the_same_in_one():
    from btp_reconcile.sandbox import World
    from btp_reconcile.sandbox.cloud_controller import catalogue

    world = World.new()
    one = {plan.guid for plan in catalogue.plans(world, "eu10").values()}
    again = {plan.guid for plan in catalogue.plans(World.new(seed=9), "eu10").values()}
    other = {plan.guid for plan in catalogue.plans(world, "eu10-004").values()}

    assert one == again
    assert one.isdisjoint(other)
    assert all(guid[14] == "4" for guid in one)


def test_an_inactive_plan_is_listed_as_unavailable():
    landscape = Landscape(settings={"cloud_foundry": {"inactive_plans": ["sandbox-slow/standard"]}})

    assert plans_in(landscape, available="false") == {"sandbox-slow/standard"}
    assert "sandbox-slow/standard" not in plans_in(landscape, available="true")
    assert names(landscape, "/v3/service_offerings?available=false") == ["sandbox-slow"]


def test_brokers_are_for_administrators():
    landscape = Landscape()

    assert names(landscape, "/v3/service_brokers") == []
    assert names(landscape, "/v3/service_brokers", "admin@example.com") == ["sap-service-manager"]


# Instances: creating -----------------------------------------------------------------------------------------------


def test_a_new_instance_is_there_at_once_and_works_after_its_job():
    landscape = Landscape()
    more: dict[str, Any] = {
        "tags": ["a"],
        "parameters": {"size": 1},
        "metadata": {"labels": {"team": "x"}, "annotations": {"a/b".replace("a", "a.b"): "& <note>"}},
    }
    answer = landscape.send("POST", SI, landscape.instance_body("demo", **more))
    job = landscape.job(answer)
    assert answer.header("Content-Type") == "text/html"
    assert answer.header("Content-Length") == "0"

    assert last(landscape, "demo") == ("create", "initial", "")
    made = landscape.instance("demo")

    guid, base = made["guid"], f"{HTTPS}{SI}/{made['guid']}"
    plan = made["relationships"]["service_plan"]["data"]["guid"]
    space = landscape.names["apis"]
    assert list(made) == [
        "guid",
        "created_at",
        "updated_at",
        "name",
        "tags",
        "last_operation",
        "type",
        "maintenance_info",
        "upgrade_available",
        "dashboard_url",
        "relationships",
        "metadata",
        "links",
    ]
    assert made == {
        "guid": guid,
        "created_at": "2026-01-01T00:00:03Z",
        "updated_at": "2026-01-01T00:00:04Z",
        "name": "demo",
        "tags": ["a"],
        "last_operation": {
            "type": "create",
            "state": "succeeded",
            "description": "",
            "updated_at": "2026-01-01T00:00:04Z",
            "created_at": "2026-01-01T00:00:04Z",
        },
        "type": "managed",
        "maintenance_info": {},
        "upgrade_available": False,
        "dashboard_url": None,
        "relationships": {"space": {"data": {"guid": space}}, "service_plan": {"data": {"guid": plan}}},
        "metadata": {"labels": {"team": "x"}, "annotations": {"a.b/b": "& <note>"}},
        "links": {
            "self": {"href": base},
            "space": {"href": f"{HTTPS}/v3/spaces/{space}"},
            "service_credential_bindings": {"href": f"{HTTPS}{SCB}?service_instance_guids={guid}"},
            "service_route_bindings": {
                "href": f"{HTTPS}/v3/service_route_bindings?service_instance_guids={guid}"
            },
            "service_plan": {"href": f"{HTTPS}/v3/service_plans/{plan}"},
            "parameters": {"href": f"{base}/parameters"},
            "shared_spaces": {"href": f"{base}/relationships/shared_spaces"},
        },
    }
    assert landscape.get(f"{SI}/{guid}/parameters") == {"size": 1}
    assert landscape.get(job) == {
        "guid": job.rpartition("/")[2],
        "created_at": "2026-01-01T00:00:03Z",
        "updated_at": "2026-01-01T00:00:04Z",
        "operation": "service_instance.create",
        "state": "COMPLETE",
        "errors": [],
        "warnings": [],
        "links": {"self": {"href": job}, "service_instances": {"href": base}},
    }
    assert b"\\u0026 \\u003cnote\\u003e" in landscape.send("GET", f"{SI}/{guid}").body


def test_a_slow_broker_is_polled():
    landscape = Landscape()
    answer = landscape.send("POST", SI, landscape.instance_body("demo", "sandbox-slow"))

    assert landscape.states(answer) == ["POLLING", "COMPLETE"]
    assert last(landscape, "demo") == ("create", "succeeded", "")


def test_looking_at_the_instance_moves_it_on_too():
    landscape = Landscape()
    landscape.send("POST", SI, landscape.instance_body("demo", "sandbox-slow"))

    assert [last(landscape, "demo")[1] for _ in range(4)] == [
        "initial",
        "in progress",
        "succeeded",
        "succeeded",
    ]


def test_something_stuck_stays_stuck():
    landscape = Landscape(settings={"delays": {"provision": None}})
    job = landscape.job(landscape.send("POST", SI, landscape.instance_body("demo", "sandbox-slow")))

    assert {landscape.get(job)["state"] for _ in range(50)} == {"POLLING"}
    assert last(landscape, "demo")[1] == "in progress"


def test_in_seconds_the_clock_moves_things_on_and_looking_does_not():
    from btp_reconcile.sandbox import Sandbox
    from tests.sandbox.landscape import document

    landscape = Landscape()
    landscape.sandbox = Sandbox(time="seconds", settings={"delays": {"default": 100, "cf.job": 50}})
    landscape.sandbox.seed(document())
    with landscape.sandbox.hold() as world:
        spaces = world.table("cf.spaces")
        landscape.names |= {row["name"]: guid for guid, row in spaces.items()}
    landscape._tokens = {}
    landscape.send("POST", SI, landscape.instance_body("demo", "sandbox-slow"))

    def state_after(seconds: int) -> str:
        with landscape.sandbox.hold() as world:
            world.advance(seconds)
        return last(landscape, "demo")[1]

    assert [state_after(seconds) for seconds in (0, 0, 51, 0, 101, 0)] == [
        "initial",
        "initial",
        "in progress",
        "in progress",
        "succeeded",
        "succeeded",
    ]


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ({"status": 400, "description": "bad role"}, "Service broker error: bad role"),
        ({"status": 409, "description": "there already"}, "Service broker error: there already"),
        ({"status": 500, "description": "boom"}, "Service broker error: boom"),
        (
            {"status": 401, "description": "x"},
            (
                "Authentication with the service broker failed. "
                "Double-check that the username and password are correct."
            ),
        ),
        ({"status": 408, "description": "x"}, "The request to the service broker timed out"),
        (
            {"status": 422, "description": "x", "code": "ConcurrencyError"},
            "The service broker could not perform this operation in parallel with other running operations",
        ),
    ],
    ids=lambda value: str(value.get("status")) if isinstance(value, dict) else "",
)
def test_a_refusal_of_the_broker_is_in_the_job_and_in_the_last_operation(order: dict[str, Any], text: str):
    landscape = Landscape(settings=failures({"verb": "provision", **order}))
    answer = landscape.send("POST", SI, landscape.instance_body("demo"))

    assert landscape.outcome(answer) == failed(f"provision could not be completed: {text}")
    assert last(landscape, "demo") == ("create", "failed", text)


def test_a_failure_while_polling_reads_differently():
    order = {"verb": "provision", "status": "async", "description": "no more room"}
    landscape = Landscape(settings=failures(order))
    answer = landscape.send("POST", SI, landscape.instance_body("demo"))

    assert landscape.outcome(answer) == failed("create managed could not be completed: no more room")
    assert last(landscape, "demo") == ("create", "failed", "no more room")


def test_a_failed_creation_gives_its_name_up():
    landscape = Landscape(settings=failures({"verb": "provision", "status": 400, "description": "no"}))
    landscape.outcome(landscape.send("POST", SI, landscape.instance_body("demo")))
    before = landscape.instance("demo")["guid"]

    after = landscape.create("demo")

    assert after != before
    assert landscape.send("GET", f"{SI}/{before}").status == 404
    assert last(landscape, "demo") == ("create", "succeeded", "")


def test_names_differ_by_case_and_lose_blanks_at_the_ends():
    landscape = Landscape([{**CONFIG, "name": "demo"}])

    assert landscape.outcome(landscape.send("POST", SI, landscape.instance_body("  Demo "))) == (
        "COMPLETE",
        [],
    )
    assert names(landscape, f"{SI}?names=Demo,demo") == ["demo", "Demo"]


# Instances: changing -----------------------------------------------------------------------------------------------


def test_nothing_of_an_update_shows_before_the_broker_is_done():
    landscape = Landscape([{**SLOW, "name": "demo", "parameters": {"a": 1}, "tags": ["old"]}])
    guid = landscape.names["demo"]
    change = {
        "parameters": {"a": 2},
        "tags": ["new"],
        "metadata": {"labels": {"team": "x"}},
    }
    answer = landscape.send("PATCH", f"{SI}/{guid}", change)
    job = landscape.job(answer)

    meanwhile = landscape.get(f"{SI}/{guid}")
    assert landscape.send("GET", f"{SI}/{guid}/parameters").status == 409
    landscape.get(job)
    landscape.get(job)
    after = landscape.get(f"{SI}/{guid}")

    assert (meanwhile["tags"], meanwhile["metadata"]["labels"]) == (["old"], {})
    assert (meanwhile["last_operation"]["type"], meanwhile["last_operation"]["state"]) == (
        "update",
        "in progress",
    )
    assert (after["tags"], after["metadata"]["labels"]) == (["new"], {"team": "x"})
    assert last(landscape, "demo") == ("update", "succeeded", "")
    assert landscape.get(f"{SI}/{guid}/parameters") == {"a": 2}


@pytest.mark.parametrize("status", [400, "async"])
def test_a_failed_update_changes_nothing_and_the_instance_still_works(status: Any):
    order = {"verb": "update", "status": status, "description": "no"}
    landscape = Landscape([{**CONFIG, "name": "demo", "tags": ["old"]}], settings=failures(order))
    guid = landscape.names["demo"]
    text = "no" if status == "async" else "Service broker error: no"

    answer = landscape.send("PATCH", f"{SI}/{guid}", {"parameters": {"a": 2}, "tags": ["new"]})

    assert landscape.outcome(answer) == failed(f"update could not be completed: {text}")
    assert last(landscape, "demo") == ("update", "failed", text)
    assert landscape.instance("demo")["tags"] == ["old"]
    assert landscape.get(f"{SI}/{guid}/parameters") == {}
    assert landscape.send("PATCH", f"{SI}/{guid}", {"tags": None}).data()["tags"] == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"parameters": {}}, 202),
        ({"parameters": None}, 202),
        ({"tags": ["x"]}, 200),
        ({"metadata": {"labels": {"a": "x"}}}, 200),
        ({"name": "other"}, 202),
        ({"relationships": {"service_plan": {"data": {"guid": "<standard>"}}}}, 200),
        ({"relationships": {"service_plan": {"data": {"guid": "<large>"}}}}, 202),
        ({}, 200),
    ],
    ids=str,
)
def test_an_update_is_slow_exactly_when_the_broker_must_hear_of_it(body: dict[str, Any], status: int):
    landscape = Landscape([{**CONFIG, "name": "demo"}])
    text = json.dumps(body)
    for plan in ("standard", "large"):
        text = text.replace(f"<{plan}>", landscape.plan("sandbox-config", plan))

    answer = landscape.send("PATCH", f"{SI}/{landscape.names['demo']}", json.loads(text))

    assert answer.status == status


def test_a_name_changes_at_once_when_the_offering_does_not_care():
    landscape = Landscape([{**SLOW, "name": "demo"}])

    answer = landscape.send("PATCH", f"{SI}/{landscape.names['demo']}", {"name": "other"})

    assert (answer.status, answer.data()["name"]) == (200, "other")
    assert last(landscape, "other") == ("update", "succeeded", "")


def test_labels_change_at_once_and_leave_times_and_operation_alone():
    landscape = Landscape(
        [
            {
                **CONFIG,
                "name": "demo",
                "labels": {"a": "1", "b": "2"},
                "last_operation": {"type": "update", "state": "in progress"},
            }
        ]
    )
    guid = landscape.names["demo"]
    before = landscape.get(f"{SI}/{guid}")
    change = {"metadata": {"labels": {"a": None, "c": "", "x.y/z": "3"}, "annotations": None}}

    after = landscape.send("PATCH", f"{SI}/{guid}", change).data()

    expected = {"labels": {"b": "2", "c": "", "x.y/z": "3"}, "annotations": {}}
    assert after == {**before, "metadata": expected}
    null = landscape.send("PATCH", f"{SI}/{guid}", {"metadata": {"labels": None}})
    assert (null.status, null.data()["metadata"]) == (200, expected)


def test_an_upgrade_is_offered_and_done():
    change = {"plans": {"standard": {"maintenance_info": {"version": "1.0.0"}}}}
    landscape = Landscape([{**CONFIG, "name": "demo"}], settings={"offerings": {"sandbox-config": change}})
    guid = landscape.names["demo"]
    with landscape.sandbox.hold() as world:
        offerings = world.settings["offerings"]
        offerings["sandbox-config"]["plans"]["standard"]["maintenance_info"]["version"] = "2.0.0"
    before = landscape.get(f"{SI}/{guid}")

    answer = landscape.send("PATCH", f"{SI}/{guid}", {"maintenance_info": {"version": "2.0.0"}})
    old = {"maintenance_info": {"version": "3.0.0"}}

    assert (before["maintenance_info"], before["upgrade_available"]) == ({"version": "1.0.0"}, True)
    assert landscape.outcome(answer) == ("COMPLETE", [])
    after = landscape.get(f"{SI}/{guid}")
    assert (after["maintenance_info"], after["upgrade_available"]) == ({"version": "2.0.0"}, False)
    assert landscape.send("PATCH", f"{SI}/{guid}", old).status == 422


# Instances: deleting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "states"), [(CONFIG, ["COMPLETE"]), (SLOW, ["POLLING", "COMPLETE"])])
def test_a_deleted_instance_is_there_until_its_job_is_done(kind: dict[str, str], states: list[str]):
    landscape = Landscape([{**kind, "name": "demo"}])
    guid = landscape.names["demo"]
    answer = landscape.send("DELETE", f"{SI}/{guid}")
    with landscape.sandbox.hold() as world:
        assert world.table("cf.service_instances")[guid]["last_operation"]["type"] == "create"

    job = landscape.job(answer)
    assert landscape.states(answer) == states
    assert landscape.send("GET", f"{SI}/{guid}").status == 404
    assert list(landscape.get(job)["links"]) == ["self"]


def test_deleting_an_instance_takes_its_keys_along():
    landscape = Landscape([{**CONFIG, "name": "demo", "keys": [{"name": "a"}, {"name": "b"}]}])
    answer = landscape.send("DELETE", f"{SI}/{landscape.names['demo']}")

    assert landscape.outcome(answer) == ("COMPLETE", [])
    assert names(landscape, SCB) == []
    with landscape.sandbox.hold() as world:
        assert (world.table("broker.instances"), world.table("broker.bindings")) == ({}, {})


def test_keys_that_take_their_time_make_the_deletion_fail_until_they_are_gone():
    landscape = Landscape([{**SLOW, "name": "demo", "keys": [{"name": "a"}]}])
    target = f"{SI}/{landscape.names['demo']}"
    text = "An operation for a service binding of service instance demo is in progress."

    first = landscape.outcome(landscape.send("DELETE", target))
    assert first == failed(f"delete could not be completed: {text}")
    assert last(landscape, "demo") == ("delete", "failed", text)
    while names(landscape, SCB):
        pass

    assert landscape.outcome(landscape.send("DELETE", target)) == ("COMPLETE", [])


def test_a_patient_server_waits_for_the_keys():
    landscape = Landscape(
        [{**SLOW, "name": "demo", "keys": [{"name": "a"}]}],
        settings={"cloud_foundry": {"recursive_unbind": True}},
    )
    answer = landscape.send("DELETE", f"{SI}/{landscape.names['demo']}")
    job = landscape.job(answer)

    assert landscape.get(job)["state"] == "POLLING"
    assert landscape.get(job)["warnings"] == [
        {"detail": "Deletion of the service instance is still in progress..."}
    ]
    assert landscape.states(answer)[-1] == "COMPLETE"
    assert names(landscape, SI) == []


def test_a_broker_that_will_not_let_a_key_go_stops_the_deletion():
    order = {"verb": "unbind", "status": 500, "description": "stuck"}
    landscape = Landscape([{**CONFIG, "name": "demo", "keys": [{"name": "a"}]}], settings=failures(order))
    target = f"{SI}/{landscape.names['demo']}"
    text = "Service broker failed to delete service binding for instance demo: Service broker error: stuck"

    assert landscape.outcome(landscape.send("DELETE", target)) == failed(
        f"delete could not be completed: {text}"
    )
    assert last(landscape, "demo") == ("delete", "failed", text)
    assert landscape.outcome(landscape.send("DELETE", target)) == ("COMPLETE", [])


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (500, "Service instance demo: Service broker error: stuck"),
        (409, "Service broker error: stuck"),
        ("async", "stuck"),
    ],
)
def test_a_failed_deletion_leaves_an_instance_that_can_be_deleted_again(status: Any, text: str):
    order = {"verb": "deprovision", "status": status, "description": "stuck"}
    landscape = Landscape([{**CONFIG, "name": "demo"}], settings=failures(order))
    target = f"{SI}/{landscape.names['demo']}"

    assert landscape.outcome(landscape.send("DELETE", target)) == failed(
        f"delete could not be completed: {text}"
    )
    assert last(landscape, "demo") == ("delete", "failed", text)
    assert landscape.outcome(landscape.send("DELETE", target)) == ("COMPLETE", [])


def test_deleting_cancels_a_creation_in_progress():
    landscape = Landscape(settings={"delays": {"provision": None}})
    created = landscape.job(landscape.send("POST", SI, landscape.instance_body("demo", "sandbox-slow")))
    landscape.get(created)
    guid = landscape.instance("demo")["guid"]

    deleted = landscape.send("DELETE", f"{SI}/{guid}")

    assert landscape.outcome(deleted) == ("COMPLETE", [])
    job = landscape.get(created)
    assert (job["state"], job["errors"]) == failed("create could not be completed: delete in progress")
    assert names(landscape, SI) == []


def test_a_second_deletion_of_the_same_instance_is_done_as_well():
    landscape = Landscape([{**CONFIG, "name": "demo"}])
    jobs = [landscape.send("DELETE", f"{SI}/{landscape.names['demo']}") for _ in range(2)]

    assert [landscape.outcome(job) for job in jobs] == [("COMPLETE", [])] * 2


def test_purging_forgets_without_asking_the_broker():
    landscape = Landscape([{**CONFIG, "name": "demo", "keys": [{"name": "a"}]}])
    answer = landscape.send("DELETE", f"{SI}/{landscape.names['demo']}?purge=true", who="admin@example.com")

    assert (answer.status, answer.header("Content-Type"), answer.header("Content-Length")) == (
        204,
        None,
        None,
    )
    assert (names(landscape, SI), names(landscape, SCB)) == ([], [])
    with landscape.sandbox.hold() as world:
        assert len(world.table("broker.instances")) == 1


# User-provided and shared instances --------------------------------------------------------------------------------


def test_a_user_provided_instance_needs_no_job():
    landscape = Landscape()
    body = {
        "type": "user-provided",
        "name": "own",
        "relationships": {"space": {"data": {"guid": landscape.names["apis"]}}},
        "credentials": {"user": "me"},
        "route_service_url": "https://example.com",
    }
    made = landscape.send("POST", SI, body)
    shown = made.data()
    target = f"{SI}/{shown['guid']}"

    assert made.status == 201
    assert (shown["type"], shown["syslog_drain_url"], shown["route_service_url"]) == (
        "user-provided",
        None,
        "https://example.com",
    )
    assert shown["last_operation"]["description"] == "Operation succeeded"
    assert list(shown["links"])[-1] == "credentials"
    assert landscape.get(f"{target}/credentials") == {"user": "me"}
    assert landscape.send("PATCH", target, {"credentials": {"user": "you"}}).status == 200
    assert landscape.get(f"{target}/credentials") == {"user": "you"}
    assert names(landscape, f"{SI}?type=managed") == []
    assert landscape.send("DELETE", target).status == 204
    assert names(landscape, SI) == []


def test_a_shared_instance_is_seen_from_the_other_space():
    settings = {"cloud_foundry": {"feature_flags": {"service_instance_sharing": True}}}
    landscape = Landscape([{**CONFIG, "name": "demo"}], settings=settings)
    target = f"{SI}/{landscape.names['demo']}/relationships/shared_spaces"
    night = landscape.names["night"]

    shared = landscape.send("POST", target, {"data": [{"guid": night}]})
    shown = landscape.get(
        target,
        **{
            "fields[space]": "guid,name,relationships.organization",
            "fields[space.organization]": "name,guid",
        },
    )

    assert (shared.status, shared.data()) == (
        200,
        {"data": [{"guid": night}], "links": {"self": {"href": HTTPS + target}}},
    )
    sleeping = landscape.names["sleeping"]
    assert shown["included"] == {
        "spaces": [
            {
                "guid": night,
                "name": "night",
                "relationships": {"organization": {"data": {"guid": sleeping}}},
            }
        ],
        "organizations": [{"name": "sleeping", "guid": sleeping}],
    }
    assert names(landscape, f"{SI}?space_guids={night}") == ["demo"]
    assert landscape.get(f"{target}/usage_summary")["usage_summary"] == [
        {"space": {"guid": night}, "bound_app_count": 0}
    ]
    renamed = landscape.send("PATCH", f"{SI}/{landscape.names['demo']}", {"name": "x"})
    assert (
        renamed.data()["errors"][0]["detail"] == "Service instances that have been shared cannot be renamed"
    )
    assert landscape.send("DELETE", f"{target}/{night}").status == 204
    assert names(landscape, f"{SI}?space_guids={night}") == []


def test_permissions_tell_what_one_may_do():
    landscape = Landscape([{**CONFIG, "name": "demo"}])
    target = f"{SI}/{landscape.names['demo']}/permissions"

    assert landscape.get(target) == {"manage": True, "read": True}
    assert landscape.send("GET", target, who="auditor@example.com").data() == {"manage": False, "read": True}


# Keys --------------------------------------------------------------------------------------------------------------


def test_a_new_key_is_there_at_once_and_opens_after_its_job():
    landscape = Landscape([{**CONFIG, "name": "demo"}])
    instance = landscape.names["demo"]
    body = landscape.key_body("demo", "k", parameters={"a": 1}, metadata={"labels": {"team": "x"}})
    answer = landscape.send("POST", SCB, body)
    landscape.job(answer)

    made = landscape.get(SCB)["resources"][0]
    base = f"{HTTPS}{SCB}/{made['guid']}"
    assert made == {
        "guid": made["guid"],
        "created_at": "2026-01-01T00:00:02Z",
        "updated_at": "2026-01-01T00:00:02Z",
        "name": "k",
        "type": "key",
        "last_operation": {
            "state": "initial",
            "description": None,
            "type": "create",
            "updated_at": "2026-01-01T00:00:02Z",
            "created_at": "2026-01-01T00:00:02Z",
        },
        "metadata": {"labels": {"team": "x"}, "annotations": {}},
        "relationships": {"service_instance": {"data": {"guid": instance}}},
        "links": {
            "self": {"href": base},
            "details": {"href": f"{base}/details"},
            "service_instance": {"href": f"{HTTPS}{SI}/{instance}"},
            "parameters": {"href": f"{base}/parameters"},
        },
    }
    after = landscape.get(base)
    assert (after["last_operation"]["state"], after["last_operation"]["description"]) == ("succeeded", None)
    details = landscape.get(f"{base}/details")
    assert sorted(details["credentials"]) == ["password", "url", "username"]
    assert landscape.get(f"{base}/details") == details
    assert landscape.get(f"{base}/parameters") == {"a": 1}


def test_a_slow_key_gets_its_credentials_in_the_end():
    landscape = Landscape([{**SLOW, "name": "demo"}])
    answer = landscape.send("POST", SCB, landscape.key_body("demo", "k"))

    assert landscape.states(answer) == ["POLLING", "COMPLETE"]
    key = landscape.get(SCB)["resources"][0]
    assert landscape.get(key["links"]["details"]["href"])["credentials"]
    deleted = landscape.send("DELETE", f"{SCB}/{key['guid']}")
    assert landscape.states(deleted) == ["POLLING", "COMPLETE"]
    assert names(landscape, SCB) == []


def test_a_slow_key_that_cannot_be_fetched_is_an_error():
    landscape = Landscape(
        [{**SLOW, "name": "demo"}], settings={"offerings": {"sandbox-slow": {"bindings_retrievable": False}}}
    )
    answer = landscape.send("POST", SCB, landscape.key_body("demo", "k"))

    assert landscape.outcome(answer) == failed(
        "The service binding is invalid: "
        "The broker responded asynchronously but does not support fetching binding data",
        90001,
        "CF-ServiceBindingInvalid",
    )


@pytest.mark.parametrize(
    ("status", "detail", "description"),
    [
        (400, "bind could not be completed: Service broker error: no", "Service broker error: no"),
        (
            "async",
            "create could not be completed: VCAP::CloudController::V3::LastOperationFailedState",
            "no",
        ),
    ],
)
def test_a_failed_key_stays_in_the_list_until_it_is_made_again(status: Any, detail: str, description: str):
    order = {"verb": "bind", "status": status, "description": "no"}
    landscape = Landscape([{**CONFIG, "name": "demo"}], settings=failures(order))
    answer = landscape.send("POST", SCB, landscape.key_body("demo", "k"))

    assert landscape.outcome(answer) == failed(detail)
    before = landscape.get(SCB)["resources"]
    assert [row["last_operation"]["state"] for row in before] == ["failed"]
    assert before[0]["last_operation"]["description"] == description

    after = landscape.create_key("demo", "k")
    assert after != before[0]["guid"]
    assert names(landscape, SCB) == ["k"]


def test_a_key_that_the_broker_keeps_can_be_deleted_again():
    order = {"verb": "unbind", "status": 500, "description": "stuck"}
    landscape = Landscape([{**CONFIG, "name": "demo", "keys": [{"name": "k"}]}], settings=failures(order))
    target = f"{SCB}/{landscape.names['k']}"
    text = "Service broker failed to delete service binding for instance demo: Service broker error: stuck"

    assert landscape.outcome(landscape.send("DELETE", target)) == failed(
        f"unbind could not be completed: {text}"
    )
    assert landscape.get(target)["last_operation"]["description"] == text
    assert landscape.send("GET", f"{target}/details").status == 404
    assert landscape.outcome(landscape.send("DELETE", target)) == ("COMPLETE", [])


def test_labels_of_a_key_merge_and_leave_its_times_alone():
    landscape = Landscape([{**CONFIG, "name": "demo", "keys": [{"name": "k", "labels": {"a": "1"}}]}])
    target = f"{SCB}/{landscape.names['k']}"
    before = landscape.get(target)

    after = landscape.send("PATCH", target, {"metadata": {"labels": {"b": "2"}, "annotations": {"n": "x y"}}})

    assert after.data() == {
        **before,
        "metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"n": "x y"}},
    }


# Lists -------------------------------------------------------------------------------------------------------------

MANY: list[dict[str, Any]] = [
    {**CONFIG, "name": "c", "labels": {"env": "prod", "team": "x"}, "created_at": "2025-01-03T00:00:00Z"},
    {**CONFIG, "name": "a", "labels": {"env": "dev"}, "created_at": "2025-01-01T00:00:00Z"},
    {**SLOW, "name": "b", "labels": {"x.y/env": "prod"}, "created_at": "2025-01-02T00:00:00Z"},
    {**SLOW, "space": "other", "name": "d,e", "created_at": "2025-01-04T00:00:00Z"},
]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["c", "a", "b", "d,e"]),
        ("order_by=name", ["a", "b", "c", "d,e"]),
        ("order_by=-name", ["d,e", "c", "b", "a"]),
        ("order_by=created_at", ["a", "b", "c", "d,e"]),
        ("order_by=%2Bcreated_at&per_page=2&page=2", ["c", "d,e"]),
        ("names=a,b", ["a", "b"]),
        ("names=a,%20b", ["a", "b"]),
        ("names=d%252Ce", ["d,e"]),
        ("names=d%2Ce", []),
        ("names=A", []),
        ("names=", []),
        ("type=managed", ["c", "a", "b", "d,e"]),
        ("service_plan_names=standard", ["c", "a", "b", "d,e"]),
        ("service_plan_guids=<slow>", ["b", "d,e"]),
        ("space_guids=<other>", ["d,e"]),
        ("organization_guids=<sleeping>", []),
        ("guids=<a>,<b>&names=b,c", ["b"]),
        ("created_ats=2025-01-01T00:00:00Z,2025-01-02T00:00:00Z", ["a", "b"]),
        ("created_ats[gt]=2025-01-02T00:00:00Z", ["c", "d,e"]),
        ("created_ats[lte]=2025-01-02T00:00:00Z", ["a", "b"]),
        ("label_selector=env", ["c", "a"]),
        ("label_selector=!env", ["b", "d,e"]),
        ("label_selector=env=prod", ["c"]),
        ("label_selector=env==prod", ["c"]),
        ("label_selector=env!=prod", ["a", "b", "d,e"]),
        ("label_selector=env%20in%20(prod,dev)", ["c", "a"]),
        ("label_selector=env%20notin%20(prod,%20dev)", ["b", "d,e"]),
        ("label_selector=env,team%20in%20(x)", ["c"]),
        ("label_selector=x.y/env%20in%20(prod)", ["b"]),
    ],
)
def test_a_list_gives_what_its_filters_select(query: str, expected: list[str]):
    landscape = Landscape(MANY)
    landscape.names["slow"] = landscape.plan("sandbox-slow")
    target = re.sub(r"<(\w+)>", lambda match: landscape.names[match[1]], f"{SI}?{query}")

    assert names(landscape, target) == expected


def test_page_links_keep_what_was_sent_sorted_and_signed():
    landscape = Landscape(MANY)

    assert links(landscape, f"{SI}?per_page=1&page=2&order_by=name&names=a,b,c&fields[space]=name") == {
        "total_results": 3,
        "total_pages": 3,
        **{
            name: f"{SI}?fields%5Bspace%5D=name&names=a%2Cb%2Cc&order_by=%2Bname&page={page}&per_page=1"
            for name, page in (("first", 1), ("last", 3), ("next", 3), ("previous", 1))
        },
    }


def test_a_page_beyond_the_last_knows_of_no_results():
    landscape = Landscape(MANY)

    assert links(landscape, f"{SI}?page=9") == {
        "total_results": 0,
        "total_pages": 1,
        "first": f"{SI}?page=1&per_page=50",
        "last": f"{SI}?page=1&per_page=50",
        "next": None,
        "previous": f"{SI}?page=8&per_page=50",
    }


def test_following_the_links_visits_everything_once():
    landscape = Landscape(
        [{**CONFIG, "name": "demo", "keys": [{"name": f"key {number}"} for number in range(7)]}]
    )
    seen: list[str] = []
    target: str | None = f"{SCB}?per_page=3"
    while target:
        page = landscape.get(target)
        seen += [row["name"] for row in page["resources"]]
        target = (page["pagination"]["next"] or {}).get("href")

    # All were made in the same second, so the order is that of their ids.
    assert sorted(seen) == [f"key {number}" for number in range(7)]
    assert seen != sorted(seen)


KEYS: list[dict[str, Any]] = [
    {**CONFIG, "name": "one", "keys": [{"name": "k", "created_at": "2025-01-02T00:00:00Z"}]},
    {
        **SLOW,
        "name": "two",
        "keys": [
            {"name": "k", "created_at": "2025-01-01T00:00:00Z"},
            {"name": "l", "created_at": "2025-01-03T00:00:00Z", "labels": {"a": "x"}},
        ],
    },
    {**CONFIG, "space": "vault", "name": "hidden", "keys": [{"name": "h"}]},
]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["two/k", "one/k", "two/l"]),
        ("order_by=-created_at", ["two/l", "one/k", "two/k"]),
        ("type=key&names=k", ["two/k", "one/k"]),
        ("type=app", []),
        ("app_names=x", []),
        ("service_instance_names=two", ["two/k", "two/l"]),
        ("service_instance_guids=<one>", ["one/k"]),
        ("service_instance_guids=<hidden>", []),
        ("service_offering_names=sandbox-slow", ["two/k", "two/l"]),
        ("service_offering_guids=<offering>", ["two/k", "two/l"]),
        ("service_plan_guids=<plan>&names=l", ["two/l"]),
        ("service_plan_names=large", []),
        ("label_selector=a", ["two/l"]),
    ],
)
def test_a_list_of_keys_gives_what_its_filters_select(query: str, expected: list[str]):
    landscape = Landscape(KEYS)
    plan = landscape.get("/v3/service_plans", service_offering_names="sandbox-slow")["resources"][0]
    landscape.names["plan"] = plan["guid"]
    landscape.names["offering"] = plan["relationships"]["service_offering"]["data"]["guid"]
    owners = {landscape.names[name]: name for name in ("one", "two", "hidden")}
    target = re.sub(r"<(\w+)>", lambda match: landscape.names[match[1]], f"{SCB}?{query}")

    found = [
        f"{owners[row['relationships']['service_instance']['data']['guid']]}/{row['name']}"
        for row in landscape.get(target)["resources"]
    ]

    assert found == expected


def test_the_instances_of_keys_come_along_when_asked_for():
    landscape = Landscape(KEYS)
    listed = landscape.get(SCB, include="app,service_instance", names="l")
    single = landscape.get(f"{SCB}/{listed['resources'][0]['guid']}", include="service_instance")

    assert listed["included"] == {"apps": [], "service_instances": [landscape.instance("two")]}
    assert single["included"] == {"service_instances": [landscape.instance("two")]}


def test_the_list_of_cf_services_brings_everything_that_it_joins():
    landscape = Landscape([{**CONFIG, "name": "demo"}])
    answer = landscape.get(
        SI,
        **{
            "fields[service_plan]": "guid,name,relationships.service_offering",
            "fields[service_plan.service_offering]": "guid,name,relationships.service_broker",
            "fields[service_plan.service_offering.service_broker]": "guid,name",
            "order_by": "name",
            "per_page": "5000",
            "space_guids": landscape.names["apis"],
        },
    )
    plan = answer["resources"][0]["relationships"]["service_plan"]["data"]["guid"]
    offering = answer["included"]["service_offerings"][0]["guid"]
    broker = answer["included"]["service_brokers"][0]["guid"]

    assert answer["included"] == {
        "service_plans": [
            {
                "guid": plan,
                "name": "standard",
                "relationships": {"service_offering": {"data": {"guid": offering}}},
            }
        ],
        "service_offerings": [
            {
                "name": "sandbox-config",
                "guid": offering,
                "relationships": {"service_broker": {"data": {"guid": broker}}},
            }
        ],
        "service_brokers": [{"name": "sap-service-manager", "guid": broker}],
    }


def test_one_instance_brings_its_space_and_organisation_when_asked_for():
    landscape = Landscape([{**CONFIG, "name": "demo"}])
    answer = landscape.get(
        f"{SI}/{landscape.names['demo']}",
        **{"fields[space]": "name", "fields[space.organization]": "name,guid"},
    )

    assert answer["included"] == {
        "spaces": [{"name": "apis"}],
        "organizations": [{"name": "acme", "guid": landscape.names["acme"]}],
    }


def test_a_list_without_managed_instances_includes_no_plans():
    landscape = Landscape([{"space": "apis", "type": "user-provided", "name": "own"}])

    assert landscape.get(SI, **{"fields[service_plan]": "name"})["included"] == {"service_plans": []}


# Jobs and worlds ---------------------------------------------------------------------------------------------------


def test_jobs_are_forgotten_after_a_week():
    landscape = Landscape([{**CONFIG, "name": "demo"}])
    job = landscape.job(landscape.send("DELETE", f"{SI}/{landscape.names['demo']}"))
    landscape.get(job)
    with landscape.sandbox.hold() as world:
        world.advance(604801)
    landscape._tokens = {}

    assert landscape.send("GET", job).status == 404


def test_a_seeded_world_is_like_one_made_through_the_api():
    seeded = Landscape(
        [
            {
                **CONFIG,
                "name": "demo",
                "parameters": {"a": 1},
                "tags": ["t"],
                "labels": {"l": "1"},
                "keys": [{"name": "k", "annotations": {"n": "x"}}],
            }
        ]
    )
    made = Landscape()
    made.create("demo", parameters={"a": 1}, tags=["t"], metadata={"labels": {"l": "1"}})
    made.create_key("demo", "k", metadata={"annotations": {"n": "x"}})

    assert seeded.sandbox.snapshot()["cloud_foundry"] == made.sandbox.snapshot()["cloud_foundry"]
    assert made.sandbox.snapshot()["cloud_foundry"] == {
        "eu10": {
            "acme": {
                "apis": {
                    "demo": {
                        "type": "managed",
                        "last_operation": "create succeeded",
                        "service": "sandbox-config",
                        "plan": "standard",
                        "parameters": {"a": 1},
                        "tags": ["t"],
                        "labels": {"l": "1"},
                        "annotations": {},
                        "keys": {
                            "k": {
                                "last_operation": "create succeeded",
                                "labels": {},
                                "annotations": {"n": "x"},
                                "parameters": {},
                            }
                        },
                    }
                },
                "other": {},
                "vault": {},
            },
            "sleeping": {"night": {}},
        }
    }


def test_seeding_again_adds_to_what_is_there():
    landscape = Landscape([{**CONFIG, "name": "one"}])
    landscape.sandbox.seed(
        {
            "subaccounts": {
                "main": {
                    "cloud_foundry": {"spaces": ["apis", "fresh"]},
                    "instances": [{**CONFIG, "name": "two"}],
                }
            }
        }
    )

    acme = landscape.sandbox.snapshot()["cloud_foundry"]["eu10"]["acme"]
    assert {space: sorted(instances) for space, instances in acme.items()} == {
        "apis": ["one", "two"],
        "other": [],
        "vault": [],
        "fresh": [],
    }


def test_a_thousand_instances_come_in_one_page():
    landscape = Landscape([{**CONFIG, "name": f"i{number}"} for number in range(1000)])

    page = landscape.get(SI, per_page="5000")

    assert (len(page["resources"]), page["pagination"]["total_pages"]) == (1000, 1)
