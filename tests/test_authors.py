"""Who changed what differs: told by `reconcile drift`, from the audit events of Cloud Foundry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile.sandbox import Request
from tests.sandbox.landscape import grant
from tests.test_schemas import check

if TYPE_CHECKING:
    from tests.commands import Desk

API = "api.cf.eu10.hana.ondemand.com"
APIM = "instance:prod/apim"
ANNA = "anna@example.com"


def anna(desk: Desk, method: str, path: str, body: Any) -> None:
    """Anna, who develops everywhere, changes something by hand."""
    sandbox = desk.sandbox()
    people = {ANNA: {"password": "secret", "roles": {"*": ["space_developer"]}}}
    sandbox.seed({"users": people, "subaccounts": {}})
    signed_in = grant(sandbox, {"grant_type": "password", "username": ANNA, "password": "secret"})
    headers = {"Authorization": f"bearer {signed_in.data()['access_token']}"}
    answer = sandbox.handle(Request.of(method, API, path, headers=headers, body=json.dumps(body).encode()))
    assert answer.status == 200, answer.body


def guid(desk: Desk, table: str, name: str) -> str:
    with desk.sandbox().hold() as world:
        (found,) = [row["guid"] for row in world.rows(table).values() if row["name"] == name]
    return str(found)


def by_hand(desk: Desk) -> None:
    """Tags of an instance, and the mark of a key taken away."""
    apim = guid(desk, "cf.service_instances", "apim")
    anna(desk, "PATCH", f"/v3/service_instances/{apim}", {"tags": ["by-hand"]})


def shown(desk: Desk, code: int = 2) -> dict[str, dict[str, Any]]:
    ended = desk.run("drift", "--sandbox", "--format", "json")
    assert ended.code == code, ended.err
    return {one["address"]: one for one in check("plan", json.loads(ended.out))["changes"]}


def asked(desk: Desk) -> int:
    with desk.sandbox().hold() as world:
        return int(sum(row["count"] for row in world.rows("cf.rate").values()))


def test_what_was_changed_by_hand_says_by_whom_and_when(in_sync: Desk) -> None:
    by_hand(in_sync)
    change = shown(in_sync)[APIM]
    text = in_sync.run("drift", "--sandbox").out

    assert change["drifted"]
    assert {**change["changed_by"], "at": ""} == {
        "actor": ANNA,
        "type": "audit.service_instance.update",
        "at": "",
    }
    assert change["changed_by"]["at"].endswith("Z")
    assert f"note: last changed by {ANNA} on " in text


@pytest.mark.parametrize("format_", ["markdown", "html", "junit"])
def test_formats_for_people_say_it(in_sync: Desk, format_: str) -> None:
    by_hand(in_sync)
    ended = in_sync.run("drift", "--sandbox", "--format", format_)

    assert ended.code == 2
    assert "last changed by" in ended.out


def test_nobody_is_asked_while_nothing_differs_and_once_when_something_does(in_sync: Desk) -> None:
    fresh = {one for one in shown(in_sync, 0).values() if "changed_by" in one}
    in_sync.run("sandbox", "faults", "add", "status", "--path", "^/v3/audit_events", "--times", "100")
    before = rule(in_sync)
    shown(in_sync, 0)
    quiet = rule(in_sync)
    by_hand(in_sync)
    in_sync.run("sandbox", "faults", "clear")
    in_sync.run("sandbox", "faults", "add", "status", "--path", "^/v3/audit_events", "--status", "403")
    shown(in_sync)

    assert fresh == set()
    assert (before, quiet, rule(in_sync)) == (0, 0, 1)


def rule(desk: Desk) -> int:
    """How often the one fault was met."""
    (found,) = json.loads(desk.run("sandbox", "faults", "list", "--format", "json").out)
    return int(found["struck"])


@pytest.mark.parametrize("status", ["403", "404"])
def test_what_the_platform_does_not_show_is_said_to_be_unknown(in_sync: Desk, status: str) -> None:
    by_hand(in_sync)
    in_sync.run("sandbox", "faults", "add", "status", "--path", "^/v3/audit_events", "--status", status)
    change = shown(in_sync)[APIM]

    assert set(change["changed_by"]) == {"unknown"}
    assert change["changed_by"]["unknown"].startswith("its events could not be read: cloud_foundry: ")
    assert f"[{status}" in change["changed_by"]["unknown"]
    assert any(one.startswith("who changed it is not known: ") for one in change["notes"])


def test_a_thing_without_an_event_is_said_to_be_unknown(in_sync: Desk) -> None:
    with in_sync.sandbox().hold() as world:
        for row in world.table("cf.service_instances").values():
            row["tags"] = ["by-hand"]
        world.table("cf.audit_events").clear()
    change = shown(in_sync)[APIM]

    assert change["changed_by"] == {"unknown": "Cloud Foundry shows no event of it"}


def test_an_answer_that_makes_no_sense_does_not_end_the_check(in_sync: Desk) -> None:
    by_hand(in_sync)
    in_sync.run(
        "sandbox",
        "faults",
        "add",
        "status",
        "--path",
        "^/v3/audit_events",
        "--status",
        "200",
        "--answer",
        "[1]",
    )
    change = shown(in_sync)[APIM]

    assert "cannot be understood" in change["changed_by"]["unknown"]


def test_the_service_manager_has_no_such_events(desk: Desk) -> None:
    desk.write("specs/prod.yaml", OTHER)
    assert desk.run("apply", "--sandbox", "--yes").code == 0
    desk.write(
        "specs/prod.yaml", OTHER.replace("APIPortal.Administrator", "APIManagement.SelfService.Administrator")
    )
    drifted = {address: one for address, one in shown(desk).items() if one["drifted"]}

    assert {address: one.get("changed_by") for address, one in drifted.items()} == {
        "instance:prod/one": {"unknown": "the Service Manager keeps no such events"},
    }


OTHER = """version: 1
owner: finance
access:
  central: {service_key: "${env:BTP_CIS_CENTRAL_KEY}"}
  service_manager: {service_key: "${env:BTP_SERVICE_MANAGER_KEY}"}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    instances:
      one:
        api: api-management
        runtime: other
        parameters: {role: APIPortal.Administrator}
"""
