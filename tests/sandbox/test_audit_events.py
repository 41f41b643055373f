"""Audit events of the sandbox's Cloud Foundry, against its documentation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.landscape import CONFIG, HTTPS, SLOW, Landscape

HERE = {"name": "here", **CONFIG}
KEY = "service_key"


def listed(land: Landscape, who: str | None = None, **query: str) -> list[dict[str, Any]]:
    parameters = "&".join(f"{name}={value}" for name, value in query.items())
    answer = land.send("GET", f"/v3/audit_events?{parameters}", who=who)
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.data()["resources"]
    return found


def types(events: list[dict[str, Any]]) -> list[str]:
    return [one["type"].removeprefix("audit.") for one in events]


def change(land: Landscape, method: str, path: str, body: Any = None, who: str | None = None) -> None:
    answer = land.send(method, path, body, who=who)
    assert answer.status in {200, 201, 202, 204}, answer.body


def test_an_event_says_who_did_what_to_what_and_where() -> None:
    land = Landscape([HERE])
    guid = land.names["here"]
    change(land, "PATCH", f"/v3/service_instances/{guid}", {"tags": ["a"]})
    (event,) = listed(land)
    one = land.get(f"/v3/audit_events/{event['guid']}")

    assert event == one
    assert event["actor"]["guid"]
    assert event == {
        "guid": event["guid"],
        "created_at": event["created_at"],
        "updated_at": event["created_at"],
        "type": "audit.service_instance.update",
        "actor": {"guid": event["actor"]["guid"], "type": "user", "name": "dev@example.com"},
        "target": {"guid": guid, "type": "service_instance", "name": "here"},
        "data": {"request": {"tags": ["a"]}},
        "space": {"guid": land.names["apis"]},
        "organization": {"guid": land.names["acme"]},
        "links": {"self": {"href": f"{HTTPS}/v3/audit_events/{event['guid']}"}},
    }


def test_what_a_broker_does_at_once_is_one_event_and_what_takes_time_is_two() -> None:
    land = Landscape([HERE])
    for name, service in (("quick", "sandbox-config"), ("slow", "sandbox-slow")):
        change(land, "POST", "/v3/service_instances", land.instance_body(name, service))
    for _ in range(20):
        land.get("/v3/service_instances")
    found = listed(land, order_by="created_at")

    assert sorted((one["type"].removeprefix("audit."), one["target"]["name"]) for one in found) == [
        ("service_instance.create", "quick"),
        ("service_instance.create", "slow"),
        ("service_instance.start_create", "slow"),
    ]


def test_a_change_of_metadata_alone_is_an_update() -> None:
    land = Landscape([HERE])
    change(
        land,
        "PATCH",
        f"/v3/service_instances/{land.names['here']}",
        {"metadata": {"labels": {"a.b/c": "d"}}},
    )

    assert types(listed(land)) == ["service_instance.update"]


def test_parameters_stand_in_no_event() -> None:
    land = Landscape([HERE])
    body = {"parameters": {"password": "hunter2"}}
    change(land, "PATCH", f"/v3/service_instances/{land.names['here']}", body)
    for _ in range(5):
        land.get(f"/v3/service_instances/{land.names['here']}")
    (event,) = listed(land)

    assert event["data"] == {"request": {"parameters": "[PRIVATE DATA HIDDEN]"}}


def test_a_key_is_told_when_it_is_made_read_and_deleted() -> None:
    land = Landscape([HERE])
    relationships = {"service_instance": {"data": {"guid": land.names["here"]}}}
    body = {"type": "key", "name": "mine", "relationships": relationships}
    change(land, "POST", "/v3/service_credential_bindings", body)
    for _ in range(5):
        (key,) = land.get("/v3/service_credential_bindings")["resources"]
    path = f"/v3/service_credential_bindings/{key['guid']}"
    land.get(f"{path}/details")
    change(land, "PATCH", path, {"metadata": {"labels": {"a.b/c": "d"}}})
    change(land, "DELETE", path)
    while land.get("/v3/service_credential_bindings")["resources"]:
        pass

    assert types(listed(land)) == [f"{KEY}.create", f"{KEY}.show", f"{KEY}.update", f"{KEY}.delete"]
    assert {one["target"]["name"] for one in listed(land)} == {"mine"}


def test_what_goes_with_an_instance_is_told_too() -> None:
    land = Landscape([{**HERE, "keys": [{"name": "mine"}]}])
    change(land, "DELETE", f"/v3/service_instances/{land.names['here']}")
    while land.get("/v3/service_instances")["resources"]:
        pass

    assert types(listed(land)) == [f"{KEY}.delete", "service_instance.delete"]


def test_what_fails_is_not_told() -> None:
    land = Landscape([HERE])
    assert land.send("PATCH", f"/v3/service_instances/{land.names['here']}", {"tags": 1}).status == 422
    auditor = "auditor@example.com"
    assert (
        land.send("PATCH", f"/v3/service_instances/{land.names['here']}", {"tags": []}, who=auditor).status
        == 403
    )

    assert listed(land) == []


@pytest.mark.parametrize(
    ("who", "seen"),
    [
        ("dev@example.com", 1),
        ("auditor@example.com", 1),
        ("admin@example.com", 1),
        ("manager@example.com", 0),
        ("stranger@example.com", 0),
    ],
)
def test_developers_and_auditors_see_an_event_and_managers_do_not(who: str, seen: int) -> None:
    land = Landscape([HERE])
    change(land, "PATCH", f"/v3/service_instances/{land.names['here']}", {"tags": ["a"]})
    (event,) = listed(land)
    alone = land.send("GET", f"/v3/audit_events/{event['guid']}", who=who)

    assert len(listed(land, who)) == seen
    assert alone.status == (200 if seen else 404)
    if not seen:
        assert alone.data()["errors"][0]["detail"] == "Event not found"


def test_filters_select_and_pages_are_cut() -> None:
    land = Landscape([HERE, {"name": "there", **SLOW}])
    for number in range(3):
        for name in ("here", "there"):
            change(land, "PATCH", f"/v3/service_instances/{land.names[name]}", {"tags": [str(number)]})
            with land.sandbox.hold() as world:
                world.advance(10)
    here, space = land.names["here"], land.names["apis"]
    everything = listed(land)
    moment = everything[2]["created_at"]
    newest = listed(land, order_by="-created_at", per_page="2")

    assert len(everything) == 6
    assert len(listed(land, target_guids=here)) == 3
    assert {one["target"]["name"] for one in listed(land, **{"target_guids[not]": here})} == {"there"}
    assert len(listed(land, space_guids=f"{space},x", types="audit.service_instance.update")) == 6
    assert listed(land, types="audit.service_key.create") == []
    assert listed(land, organization_guids=land.names["sleeping"]) == []
    assert listed(land, **{"created_ats[gt]": moment}) == everything[3:]
    assert newest == everything[:-3:-1]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("names=x", "Unknown query parameter(s): 'names'"),
        ("label_selector=a", "Unknown query parameter(s): 'label_selector'"),
        ("types[not]=a", "Unknown query parameter(s): 'types'"),
        ("order_by=name", "Order by can only be: 'created_at', 'updated_at'"),
        ("created_ats[gt]=yesterday", "invalid timestamp format"),
        ("per_page=5001", "Per page must be between 1 and 5000"),
    ],
)
def test_what_the_platform_refuses_is_refused(query: str, said: str) -> None:
    answer = Landscape().send("GET", f"/v3/audit_events?{query}")

    assert answer.status == 400
    assert said in answer.data()["errors"][0]["detail"]


def test_events_are_forgotten_after_a_month() -> None:
    land = Landscape([HERE])
    path = f"/v3/service_instances/{land.names['here']}"
    change(land, "PATCH", path, {"tags": ["a"]})
    with land.sandbox.hold() as world:
        world.advance(32 * 86400)
    land._tokens.clear()
    change(land, "PATCH", path, {"tags": ["b"]})

    assert [one["data"]["request"] for one in listed(land)] == [{"tags": ["b"]}]
