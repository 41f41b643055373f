"""What Cloud Foundry instances are joined to besides keys: apps, routes and other spaces, all of it seeded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from btp_reconcile.sandbox import Sandbox
from tests.sandbox.landscape import CONFIG, HTTPS, SLOW, Landscape, document

SI, SCB, SRB = "/v3/service_instances", "/v3/service_credential_bindings", "/v3/service_route_bindings"

JOINED: list[dict[str, Any]] = [
    {
        **CONFIG,
        "name": "demo",
        "shared_with": ["other", "sleeping/night"],
        "keys": [{"name": "k"}],
        "app_bindings": [
            {"app": "shop"},
            {"app": "till", "name": "cash", "labels": {"a": "b"}},
            {"app": "owl", "space": "sleeping/night"},
        ],
        "routes": [
            {"host": "front", "created_at": "2025-01-02T00:00:00Z"},
            {"host": "side", "path": "/x", "created_at": "2025-01-01T00:00:00Z", "labels": {"l": "1"}},
        ],
    },
    {
        "space": "apis",
        "type": "user-provided",
        "name": "own",
        "credentials": {"user": "me"},
        "syslog_drain_url": "syslog://drain.example.com",
        "route_service_url": "https://rs.example.com",
        "app_bindings": [{"app": "shop"}],
        "routes": [{"host": "back"}],
    },
]


def bound(landscape: Landscape, query: str = "", who: str | None = None) -> list[str]:
    """The names of bindings, or for those without one the app."""
    answer = landscape.send("GET", f"{SCB}{query}", who=who)
    assert answer.status == 200, answer.body
    apps = {guid: name.removeprefix("app ") for name, guid in landscape.names.items()}
    return [
        row["name"] or apps[row["relationships"]["app"]["data"]["guid"]] for row in answer.data()["resources"]
    ]


def hosts(landscape: Landscape, query: str = "", who: str | None = None) -> list[str]:
    """The hosts of the routes in a list of route bindings."""
    answer = landscape.send("GET", f"{SRB}{query}", who=who)
    assert answer.status == 200, answer.body
    routes = {guid: name.removeprefix("route ") for name, guid in landscape.names.items()}
    return [routes[row["relationships"]["route"]["data"]["guid"]] for row in answer.data()["resources"]]


def filled(landscape: Landscape, query: str) -> str:
    for name, guid in landscape.names.items():
        query = query.replace(f"<{name}>", guid)
    return query


# Routes ------------------------------------------------------------------------------------------------------------


def test_a_route_binding_looks_like_the_documented_one():
    landscape = Landscape(JOINED)
    names = landscape.names
    guid = names["binding of side"]
    base = f"{HTTPS}{SRB}/{guid}"

    shown = landscape.get(f"{SRB}/{guid}")

    assert json.dumps(shown) == json.dumps(
        {
            "guid": guid,
            "created_at": "2025-01-01T00:00:00Z",
            "updated_at": "2025-01-01T00:00:00Z",
            "route_service_url": "https://sandbox-config.cfapps.eu10.hana.ondemand.com",
            "last_operation": {
                "state": "succeeded",
                "description": None,
                "type": "create",
                "updated_at": "2026-01-01T00:00:00Z",
                "created_at": "2026-01-01T00:00:00Z",
            },
            "metadata": {"labels": {"l": "1"}, "annotations": {}},
            "relationships": {
                "service_instance": {"data": {"guid": names["demo"]}},
                "route": {"data": {"guid": names["route side"]}},
            },
            "links": {
                "self": {"href": base},
                "service_instance": {"href": f"{HTTPS}{SI}/{names['demo']}"},
                "route": {"href": f"{HTTPS}/v3/routes/{names['route side']}"},
                "parameters": {"href": f"{base}/parameters"},
            },
        }
    )
    own = landscape.get(f"{SRB}/{names['binding of back']}")
    assert (own["route_service_url"], "parameters" in own["links"]) == ("https://rs.example.com", False)


def test_the_link_of_an_instance_leads_to_its_route_bindings():
    landscape = Landscape(JOINED)
    link = landscape.instance("demo")["links"]["service_route_bindings"]["href"]

    answer = landscape.get(link)

    assert answer["pagination"] == {
        "total_results": 2,
        "total_pages": 1,
        "first": {
            "href": f"{HTTPS}{SRB}?page=1&per_page=50&service_instance_guids={landscape.names['demo']}"
        },
        "last": {"href": f"{HTTPS}{SRB}?page=1&per_page=50&service_instance_guids={landscape.names['demo']}"},
        "next": None,
        "previous": None,
    }
    assert "included" not in answer
    assert landscape.get(SRB, service_instance_guids="x")["resources"] == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["front", "side", "back"]),
        ("?order_by=created_at", ["side", "front", "back"]),
        ("?order_by=-updated_at", ["back", "front", "side"]),
        ("?service_instance_guids=<demo>", ["front", "side"]),
        ("?service_instance_names=own,none", ["back"]),
        ("?route_guids=<route front>,<route back>", ["front", "back"]),
        ("?guids=<binding of side>", ["side"]),
        ("?created_ats[lt]=2025-01-02T00:00:00Z", ["side"]),
        ("?updated_ats=2025-01-02T00:00:00Z", ["front"]),
        ("?label_selector=l=1", ["side"]),
        ("?label_selector=!l&service_instance_names=demo", ["front"]),
        ("?service_instance_names=", []),
        ("?per_page=1&page=2", ["side"]),
    ],
)
def test_a_list_of_route_bindings_gives_what_its_filters_select(query: str, expected: list[str]):
    landscape = Landscape(JOINED)

    assert hosts(landscape, filled(landscape, query)) == expected


def test_route_bindings_bring_routes_and_instances_when_asked_for():
    landscape = Landscape(JOINED)
    names = landscape.names

    included = landscape.get(SRB, include="route,service_instance")["included"]
    single = landscape.get(f"{SRB}/{names['binding of side']}", include="route")["included"]

    assert [row["name"] for row in included["service_instances"]] == ["demo", "own"]
    assert [row["url"] for row in included["routes"]] == [
        "front.cfapps.eu10.hana.ondemand.com",
        "side.cfapps.eu10.hana.ondemand.com/x",
        "back.cfapps.eu10.hana.ondemand.com",
    ]
    assert single == {"routes": [included["routes"][1]]}
    assert single["routes"][0]["relationships"]["space"] == {"data": {"guid": names["apis"]}}


def test_route_bindings_are_seen_from_the_space_that_owns_the_instance():
    landscape = Landscape(JOINED)

    assert hosts(landscape, who="auditor@example.com") == ["front", "side", "back"]
    assert hosts(landscape, who="stranger@example.com") == []
    assert hosts(landscape, who="admin@example.com") == ["front", "side", "back"]


# Apps --------------------------------------------------------------------------------------------------------------


def test_a_binding_of_an_app_looks_like_the_platforms():
    landscape = Landscape(JOINED)
    names = landscape.names
    row = landscape.get(SCB, app_names="till")["resources"][0]
    base = f"{HTTPS}{SCB}/{row['guid']}"

    assert json.dumps(landscape.get(f"{SCB}/{row['guid']}")) == json.dumps(row)
    assert json.dumps(row) == json.dumps(
        {
            "guid": row["guid"],
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            "name": "cash",
            "type": "app",
            "last_operation": {
                "state": "succeeded",
                "description": None,
                "type": "create",
                "updated_at": "2026-01-01T00:00:00Z",
                "created_at": "2026-01-01T00:00:00Z",
            },
            "metadata": {"labels": {"a": "b"}, "annotations": {}},
            "relationships": {
                "service_instance": {"data": {"guid": names["demo"]}},
                "app": {"data": {"guid": names["app till"]}},
            },
            "links": {
                "self": {"href": base},
                "details": {"href": f"{base}/details"},
                "service_instance": {"href": f"{HTTPS}{SI}/{names['demo']}"},
                "parameters": {"href": f"{base}/parameters"},
                "app": {"href": f"{HTTPS}/v3/apps/{names['app till']}"},
            },
        }
    )
    own = landscape.get(SCB, service_instance_names="own")["resources"][0]
    assert (own["name"], "parameters" in own["links"]) == (None, False)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["k", "shop", "cash", "owl", "shop"]),
        ("?type=app", ["shop", "cash", "owl", "shop"]),
        ("?type=key", ["k"]),
        ("?app_names=shop", ["shop", "shop"]),
        ("?app_guids=<app till>,<app owl>", ["cash", "owl"]),
        ("?app_guids=<app till>&type=key", []),
        ("?service_instance_guids=<demo>&type=app&include=app", ["shop", "cash", "owl"]),
        ("?service_instance_guids=<own>", ["shop"]),
        ("?service_plan_names=standard&app_names=shop", ["shop"]),
        ("?names=cash", ["cash"]),
        ("?label_selector=a", ["cash"]),
    ],
)
def test_a_list_of_bindings_tells_apps_from_keys(query: str, expected: list[str]):
    landscape = Landscape(JOINED)

    assert sorted(bound(landscape, filled(landscape, query))) == sorted(expected)


def test_the_apps_of_bindings_come_along_when_asked_for():
    landscape = Landscape(JOINED)
    names = landscape.names

    included = landscape.get(SCB, include="app", service_instance_guids=names["demo"])["included"]

    apps = {row["name"]: row for row in included["apps"]}
    assert set(apps) == {"shop", "till", "owl"}
    assert apps["shop"] == {
        "guid": names["app shop"],
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "name": "shop",
        "state": "STARTED",
        "lifecycle": {"type": "buildpack", "data": {"buildpacks": [], "stack": "cflinuxfs4"}},
        "relationships": {"space": {"data": {"guid": names["apis"]}}},
        "metadata": {"labels": {}, "annotations": {}},
        "links": {
            "self": {"href": f"{HTTPS}/v3/apps/{names['app shop']}"},
            "space": {"href": f"{HTTPS}/v3/spaces/{names['apis']}"},
        },
    }


def test_bindings_of_apps_have_credentials_that_die_with_them():
    landscape = Landscape(JOINED)
    cash = landscape.get(SCB, names="cash")["resources"][0]["guid"]
    own = landscape.get(SCB, service_instance_names="own")["resources"][0]["guid"]

    assert set(landscape.get(f"{SCB}/{cash}/details")["credentials"]) == {"url", "username", "password"}
    assert landscape.get(f"{SCB}/{cash}/parameters") == {}
    assert landscape.get(f"{SCB}/{own}/details") == {
        "credentials": {"user": "me"},
        "syslog_drain_url": "syslog://drain.example.com",
    }

    unbound = landscape.send("DELETE", f"{SCB}/{cash}")
    assert landscape.get(landscape.job(unbound))["operation"] == "service_bindings.delete"
    assert landscape.outcome(unbound) == ("COMPLETE", [])
    assert landscape.send("DELETE", f"{SCB}/{own}").status == 204
    assert set(bound(landscape, "?type=app")) == {"shop", "owl"}


def test_labels_of_an_apps_binding_change_like_those_of_a_key():
    landscape = Landscape(JOINED)
    cash = landscape.get(SCB, names="cash")["resources"][0]["guid"]

    changed = landscape.send("PATCH", f"{SCB}/{cash}", {"metadata": {"labels": {"a": None, "c": "d"}}})

    assert (changed.status, changed.data()["metadata"]["labels"]) == (200, {"c": "d"})


def test_a_key_may_have_the_name_of_an_apps_binding():
    landscape = Landscape(JOINED, settings={"cloud_foundry": {"space_quota": {"keys": 2}}})

    landscape.create_key("demo", "cash")

    assert sorted(bound(landscape, "?names=cash")) == ["cash", "cash"]


# Shares ------------------------------------------------------------------------------------------------------------


def test_a_seeded_share_is_seen_from_the_other_spaces():
    landscape = Landscape(JOINED)
    names = landscape.names
    target = f"{SI}/{names['demo']}/relationships/shared_spaces"

    shared = landscape.get(target, **{"fields[space]": "name,guid"})

    assert shared == {
        "data": [{"guid": names["other"]}, {"guid": names["night"]}],
        "links": {"self": {"href": HTTPS + target}},
        "included": {
            "spaces": [{"guid": names["other"], "name": "other"}, {"guid": names["night"], "name": "night"}]
        },
    }
    for space in ("other", "night"):
        seen = landscape.get(SI, space_guids=names[space])["resources"]
        assert [row["name"] for row in seen] == ["demo"]
        assert seen[0]["relationships"]["space"] == {"data": {"guid": names["apis"]}}
    by_organization = landscape.get(SI, organization_guids=names["sleeping"])["resources"]
    assert [row["guid"] for row in by_organization] == [names["demo"]]
    summary = landscape.get(f"{target}/usage_summary")
    assert summary["usage_summary"] == [
        {"space": {"guid": names["other"]}, "bound_app_count": 0},
        {"space": {"guid": names["night"]}, "bound_app_count": 1},
    ]


def test_who_sees_only_the_other_space_sees_the_instance_its_apps_and_no_keys():
    landscape, who = Landscape(JOINED), "owl@example.com"
    person = {"password": "secret", "roles": {"sleeping/night": ["space_auditor"]}}
    landscape.sandbox.seed({"users": {who: person}})

    seen = landscape.send("GET", f"{SI}?fields[space]=guid,name", who=who).data()

    assert [row["name"] for row in seen["resources"]] == ["demo"]
    assert seen["included"]["spaces"] == [{"guid": landscape.names["apis"]}]
    assert bound(landscape, who=who) == ["owl"]
    assert hosts(landscape, who=who) == []
    answer = landscape.send("GET", f"{SI}/{landscape.names['demo']}/parameters", who=who)
    assert answer.status == 404


def test_unsharing_takes_the_apps_of_that_space_off():
    landscape = Landscape(JOINED)
    target = f"{SI}/{landscape.names['demo']}/relationships/shared_spaces/{landscape.names['night']}"

    assert landscape.send("DELETE", target).status == 204
    assert "owl" not in bound(landscape)
    assert len(bound(landscape)) == 4


def test_a_broker_that_keeps_an_app_stops_unsharing():
    order = {"verb": "unbind", "status": 500, "description": "no"}
    landscape = Landscape(JOINED, settings={"broker_failures": [order]})
    target = f"{SI}/{landscape.names['demo']}/relationships/shared_spaces/{landscape.names['night']}"

    answer = landscape.send("DELETE", target)

    assert (answer.status, answer.data()["errors"][0]["code"]) == (502, 390001)
    assert answer.data()["errors"][0]["detail"] == (
        "Unshare of service instance failed: Service broker failed to delete service binding for instance demo: "
        "Service broker error: no"
    )
    assert landscape.send("DELETE", target).status == 204


# Deleting the instance ---------------------------------------------------------------------------------------------


def test_deleting_an_instance_takes_routes_apps_keys_and_shares_along():
    landscape = Landscape(JOINED)

    deleted = landscape.send("DELETE", f"{SI}/{landscape.names['demo']}")
    assert landscape.outcome(deleted) == ("COMPLETE", [])

    assert (hosts(landscape), bound(landscape)) == (["back"], ["shop"])
    with landscape.sandbox.hold() as world:
        assert world.table("broker.bindings") == {}
    assert landscape.send("DELETE", f"{SI}/{landscape.names['own']}").status == 204
    assert (hosts(landscape), bound(landscape)) == ([], [])


def test_routes_are_the_first_to_go_and_stop_the_deletion_when_they_cannot():
    order = {"verb": "unbind", "status": 500, "description": "no"}
    landscape = Landscape(JOINED[:1], settings={"broker_failures": [order]})

    state, errors = landscape.outcome(landscape.send("DELETE", f"{SI}/{landscape.names['demo']}"))

    assert state == "FAILED"
    assert errors[0]["detail"] == (
        "delete could not be completed: Service broker failed to delete service binding for instance demo: "
        "Service broker error: no"
    )
    assert (hosts(landscape), len(bound(landscape))) == (["front", "side"], 4)
    route = landscape.get(f"{SRB}/{landscape.names['binding of front']}")
    assert (route["last_operation"]["type"], route["last_operation"]["state"]) == ("delete", "failed")


def test_what_takes_its_time_to_unbind_makes_the_deletion_fail_until_it_is_gone():
    slow = {**SLOW, "name": "slow", "app_bindings": [{"app": "shop"}], "routes": [{"host": "front"}]}
    landscape = Landscape([slow])
    target = f"{SI}/{landscape.names['slow']}"

    state, errors = landscape.outcome(landscape.send("DELETE", target))
    assert (state, errors[0]["detail"]) == (
        "FAILED",
        "delete could not be completed: An operation for a service binding of service instance slow is in progress.",
    )
    with landscape.sandbox.hold() as world:
        running = {world.table("cf.jobs")[guid]["operation"] for guid in world.table("cf.pending")}
    assert running == {"service_route_bindings.delete", "service_bindings.delete"}
    while hosts(landscape) or bound(landscape):
        pass

    assert landscape.outcome(landscape.send("DELETE", target)) == ("COMPLETE", [])


# Seeds -------------------------------------------------------------------------------------------------------------


def test_seeding_does_not_use_up_what_a_test_has_ordered_to_fail():
    orders = [{"verb": verb, "status": 500, "description": "no"} for verb in ("provision", "bind")]
    landscape = Landscape(JOINED, settings={"broker_failures": orders})

    made = landscape.send("POST", SI, landscape.instance_body("new"))
    key = landscape.send("POST", SCB, landscape.key_body("demo", "new"))

    assert [landscape.outcome(answer)[0] for answer in (made, key)] == ["FAILED", "FAILED"]


def test_a_description_names_everything_joined_and_seeding_again_changes_nothing():
    landscape = Landscape(JOINED)
    before = landscape.sandbox.snapshot()
    apis = before["cloud_foundry"]["eu10"]["acme"]["apis"]

    landscape.sandbox.seed(document(JOINED))

    assert landscape.sandbox.snapshot() == before
    assert list(apis["demo"]["app_bindings"]) == ["shop", "till", "owl"]
    assert apis["demo"]["routes"] == {"front": "create succeeded", "side/x": "create succeeded"}
    assert apis["demo"]["shared"] == ["night", "other"]
    assert list(apis["own"]["app_bindings"]) == ["shop"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"shared_with": ["nowhere"]}, "no space 'nowhere'"),
        ({"shared_with": ["apis"]}, "cannot be shared"),
        ({"app_bindings": [{"app": "a", "space": "other"}]}, "not shared with the space of the app"),
        ({"routes": [{"host": "front"}]}, "bound to another instance"),
        ({"type": "user-provided", "keys": [{"name": "k"}]}, "has no keys"),
        ({"type": "user-provided", "shared_with": ["other"]}, "cannot be shared"),
    ],
)
def test_a_seed_that_the_platform_could_not_have_is_an_error(more: dict[str, Any], message: str):
    first = {**CONFIG, "name": "first", "routes": [{"host": "front"}]}

    with pytest.raises(ValueError, match=message):
        Sandbox().seed(document([first, {**CONFIG, "name": "demo", **more}]))
