"""Destinations: what is written and kept, what is seen and left behind, and how they live with their keys."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import given as drawn, strategies as st

from btp_reconcile import pipeline
from btp_reconcile.cli.world import read_outside
from btp_reconcile.core import digest, record, report
from btp_reconcile.core.errors import HostRefused, PlatformError, SpecError
from btp_reconcile.core.model import (
    Action,
    Address,
    Adoption,
    Fact,
    Mark,
    Problem,
    Resource,
    Secret,
    Status,
    Verb,
)
from btp_reconcile.edges import hosts
from btp_reconcile.edges.access import Platform
from btp_reconcile.edges.client import Client
from btp_reconcile.edges.clock import MovingClock
from btp_reconcile.kinds import destination
from btp_reconcile.kinds.destination import Destinations, Entry, Holds
from btp_reconcile.sandbox import InProcessAdapter, Sandbox
from tests.build import OWNER, SPEC, fact, planned, resource
from tests.kinds.scripted import GUID, NOW, OTHER, PROD, TEST, ScriptedDoor, seen, task, wanted
from tests.worlds import Bench

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from btp_reconcile.core.model import Change, Plan

PATH = "/destination-configuration/v1/subaccountDestinations"
KEY = Address("key", ("prod", "apim", "transport"))
DRIVER = Destinations()


def orders(name: str = "orders", **changes: Any) -> Resource:
    """A destination with a literal, something of a key, and a value from outside."""
    properties = changes.pop(
        "properties",
        {
            "Type": "HTTP",
            "URL": "${key:prod/apim/transport#url}/orders",
            "clientSecret": "${key:prod/apim/transport#client_secret}",
            "Password": Secret("env:PASSWORD", "hunter2"),
        },
    )
    spec = {
        "runtime": "",
        "properties": properties,
        "keys": (KEY,),
        "secret": ("clientSecret", "Password"),
        "recipe": None,
    }
    mark = changes.pop("mark", Mark("acme", "base", name))
    return Resource(Address("destination", ("prod", name)), spec, mark, name=name, requires=(KEY,), **changes)


FILLED: dict[str, str | Secret] = {
    "Type": "HTTP",
    "URL": "https://api.example/orders",
    "clientSecret": Secret("key", "issued-secret"),
    "Password": Secret("env:PASSWORD", "hunter2"),
}


def handed(
    resource: Resource, filled: Mapping[str, str | Secret], guid: str = "k-1", generation: int = 1
) -> dict[str, Any]:
    """What the engine hands over: the spec, its properties filled, and the keys they were taken from."""
    mark = Mark("acme", "base", "transport", generation)
    return {**resource.spec, "properties": filled, "facts": {KEY: seen("key", guid, "transport", mark=mark)}}


def made(resource: Resource | None = None, filled: Mapping[str, str | Secret] = FILLED) -> dict[str, str]:
    """The destination as a creation leaves it on the platform."""
    resource = resource or orders()
    door = ScriptedDoor("destination")
    DRIVER.create(door, [task(Verb.CREATE, resource, spec=handed(resource, filled))])
    ((_, _, _, body),) = door.writes
    plain: dict[str, str] = digest.plain(body)
    return plain


def observed(*bodies: Any, resources: tuple[Resource, ...] = (), place: Any = PROD) -> list[Fact]:
    door = ScriptedDoor("destination", {PATH: [list(bodies)]})
    return list(DRIVER.observe(door, [place], wanted(*resources), ()))


# --- what is written ------------------------------------------------------------------------------------


def test_the_creating_request_carries_mark_key_and_record() -> None:
    body = made()

    assert {name: text for name, text in body.items() if name != "btp-reconcile.record"} == {
        "Name": "orders",
        "Type": "HTTP",
        "URL": "https://api.example/orders",
        "clientSecret": "issued-secret",
        "Password": "hunter2",
        "btp-reconcile.owner": "acme",
        "btp-reconcile.spec": "base",
        "btp-reconcile.name": "orders",
        "btp-reconcile.key": "key:prod/apim/transport#1 k-1",
    }
    assert destination.recorded(body) == {
        "Type": Entry(digest.salted("k-1", b"HTTP")[:8]),
        "URL": Entry(
            digest.salted("k-1", b"https://api.example/orders")[:8],
            digest.salted("template", b"${key:prod/apim/transport#url}/orders")[:4],
        ),
        "clientSecret": Entry(
            digest.salted("k-1", b"issued-secret")[:8],
            digest.salted("template", b"${key:prod/apim/transport#client_secret}")[:4],
            secret=True,
        ),
        "Password": Entry(secret=True),
    }


def test_what_was_created_is_known_without_another_look() -> None:
    resource = orders()
    door = ScriptedDoor("destination")
    one = task(Verb.CREATE, resource, spec=handed(resource, FILLED, generation=3), generation=3)

    found = DRIVER.create(door, [one])

    assert found[one.step.id].mark == replace(resource.mark, generation=3)
    assert door.reads == []
    assert [(method, path) for method, path, _, _ in door.writes] == [("POST", PATH)]


def test_a_change_keeps_what_others_wrote_and_takes_away_what_was_ours() -> None:
    resource = orders(
        properties={"Type": "HTTP", "URL": "${key:prod/apim/transport#url}/orders", "Description": "ours"},
        ignore=("Description", "left.alone"),
    )
    there = {**made(), "others": "theirs", "left.alone": "as it is", "Description": "by hand", "number": 5}
    door = ScriptedDoor("destination", {f"{PATH}/orders": [(there, '"e1"')]})
    filled = {"Type": "HTTP", "URL": "https://api.example/v2", "Description": "ours"}
    found = observed(there, resources=(resource,))[0]

    DRIVER.update(door, [task(Verb.UPDATE, resource, found=found, spec=handed(resource, filled, "k-2", 2))])

    ((method, path, query, body),) = door.writes
    assert (method, path, query) == ("PUT", PATH, {"If-Match": '"e1"'})
    assert {name: text for name, text in digest.plain(body).items() if "record" not in name} == {
        "Name": "orders",
        "Type": "HTTP",
        "URL": "https://api.example/v2",
        "Description": "by hand",
        "others": "theirs",
        "left.alone": "as it is",
        "number": 5,
        "btp-reconcile.owner": "acme",
        "btp-reconcile.spec": "base",
        "btp-reconcile.name": "orders",
        "btp-reconcile.key": "key:prod/apim/transport#2 k-2",
    }
    assert isinstance(body["others"], Secret), (
        "what others wrote may be secret, and no answer may bring it back"
    )


def test_an_adoption_keeps_every_property_that_the_spec_does_not_name() -> None:
    resource = orders(adopt=None)
    there = {
        "Name": "orders",
        "Type": "LDAP",
        "old": "kept",
        "btp-reconcile.record": "v1.00000000;old=12345678",
    }
    door = ScriptedDoor("destination", {f"{PATH}/orders": [there]})
    found = observed(there, resources=(resource,))[0]

    DRIVER.update(door, [task(Verb.UPDATE, resource, found=found, spec=handed(resource, FILLED))])

    ((_, _, query, body),) = door.writes
    assert query == {}, "without an ETag there is nothing to match"
    assert (digest.plain(body)["old"], body["Type"]) == ("kept", "HTTP")


@pytest.mark.parametrize(
    "change",
    [
        {"btp-reconcile.owner": "others"},
        {"btp-reconcile.name": "another"},
        {"btp-reconcile.record": ""},
    ],
)
def test_what_has_become_anothers_meanwhile_is_neither_changed_nor_deleted(change: dict[str, str]) -> None:
    resource = orders()
    found = observed(made(), resources=(resource,))[0]
    now = {**made(), **change}
    door = ScriptedDoor("destination", {f"{PATH}/orders": [now, now]})

    with pytest.raises(PlatformError, match="has become another's since it was looked at; run again"):
        DRIVER.update(door, [task(Verb.UPDATE, resource, found=found, spec=handed(resource, FILLED))])
    with pytest.raises(PlatformError, match="has become another's since it was looked at; run again"):
        DRIVER.delete(door, [task(Verb.DELETE, resource, found=found)])

    assert door.writes == []


def test_ours_is_deleted_by_its_name() -> None:
    found = observed(made(), resources=(orders(),))[0]
    door = ScriptedDoor("destination", {f"{PATH}/orders": [made()]})

    DRIVER.delete(door, [task(Verb.DELETE, address=Address("destination", ("prod", "orders")), found=found)])

    assert [(method, path) for method, path, _, _ in door.writes] == [("DELETE", f"{PATH}/orders")]


def test_a_look_finds_all_with_one_request() -> None:
    first, second = orders(), orders("missing")
    door = ScriptedDoor("destination", {PATH: [[made()]]})
    tasks = [task(Verb.CREATE, first), task(Verb.CREATE, second)]

    found = DRIVER.look(door, tasks)

    assert [one and one.mark for one in found.values()] == [first.mark, None]
    assert len(door.reads) == 1


# --- the record -----------------------------------------------------------------------------------------

ENTRIES = st.dictionaries(
    st.text(min_size=1, max_size=40),
    st.builds(
        Entry,
        st.sampled_from(["", "0123abcd", "ffffffff"]),
        st.sampled_from(["", "12ab"]),
        st.booleans(),
    ),
    max_size=40,
)


@drawn(ENTRIES)
def test_a_record_is_read_as_it_was_written_whatever_its_length(entries: dict[str, Entry]) -> None:
    texts = destination.written("orders", entries)

    assert destination.recorded(texts) == entries
    assert all(len(text) <= destination.LIMIT or text.count(";") == 1 for text in texts.values())
    assert next(iter(texts.values())).startswith(destination.head("orders"))


@pytest.mark.parametrize("text", ["", "v1", "v1.12345678;", "v1;URL", "v1;URL=xyz", ";;=;", "v9;a=b"])
def test_a_record_that_cannot_be_read_records_nothing(text: str) -> None:
    assert destination.recorded({"btp-reconcile.record": text}) == {}


def test_the_keys_it_holds_are_read_as_they_were_written() -> None:
    held = (Holds(KEY, 12, "k-1"), Holds(Address("key", ("test", "afc", "x")), 1, "k-2"))

    assert destination.holdings(", ".join(map(str, held))) == held
    assert destination.holdings("key:prod/apim/transport#0 k, nonsense, ") == ()


# --- what is seen ---------------------------------------------------------------------------------------


def test_no_secret_is_in_a_fact() -> None:
    there = {**made(), "clientSecret": "changed-secret", "token": "others-token"}
    stranger = {"Name": "stranger", "Type": "HTTP", "URL": "https://user:pass@x", "Password": "strange"}

    found = observed(there, stranger, resources=(orders(), orders("gone")))

    shown = repr([vars(one) for one in found])
    assert not any(one in shown for one in ("hunter2", "-secret", "others-token", "strange'", "user:pass"))
    assert found[1] == Fact("destination", "stranger", "stranger", "prod")


def test_a_property_that_was_secret_when_it_was_written_stays_hidden_when_it_is_wanted_no_more() -> None:
    mixed = orders(
        properties={"Type": "HTTP", "URL": "https://x/?k=${key:prod/apim/transport#client_secret}"}
    )
    mixed = replace(mixed, spec={**mixed.spec, "secret": ("URL",)})
    there = made(mixed, {"Type": "HTTP", "URL": Secret("key", "https://x/?k=issued-secret")})

    (found,) = observed(there, resources=(orders(properties={"Type": "HTTP"}),))

    assert "issued-secret" not in repr(vars(found))
    assert found.attributes["written"] == ("Type", "URL")


def test_every_change_by_hand_is_named() -> None:
    there = {**made(), "URL": "https://elsewhere", "clientSecret": "another", "Password": "another"}
    del there["Type"]

    (found,) = observed(there, resources=(orders(),))

    assert found.attributes["changed"] == ("Type", "URL", "clientSecret")
    assert found.attributes["differs"] == ("Password",)
    assert found.attributes["properties"] == {"URL": "https://elsewhere"}
    assert found.attributes["keys"] == (Holds(KEY, 1, "k-1"),)


def test_a_copy_made_in_the_cockpit_is_nobodys() -> None:
    found = observed({**made(), "Name": "copy"}, made(), resources=(orders(),))

    assert [one.mark for one in found] == [None, orders().mark]


def test_a_key_of_another_subaccount_is_found_out_before_anything_is_read() -> None:
    door = ScriptedDoor("destination", {PATH: [[]]}, tenant=OTHER)

    with pytest.raises(
        PlatformError,
        match=f"the key given for subaccount prod .{GUID}. opens subaccount {OTHER}; put one of prod into access.destination",
    ):
        DRIVER.observe(door, [PROD], wanted(), ())

    assert door.reads == []
    assert DRIVER.observe(door, [TEST], wanted(), ()) == []


@pytest.mark.parametrize("answer", [{}, None, [5], [{"Type": "HTTP"}], [{"Name": 5}]])
def test_an_answer_that_is_no_list_of_destinations_is_not_taken_for_an_empty_one(answer: Any) -> None:
    door = ScriptedDoor("destination", {PATH: [answer]})

    with pytest.raises(PlatformError, match="cannot be understood"):
        DRIVER.observe(door, [PROD], wanted(), ())


# --- what is decided ------------------------------------------------------------------------------------

OURS = Mark(OWNER, SPEC, "orders")
APIM = resource("instance:prod/apim")
TRANSPORT = resource("key:prod/apim/transport")
NOTED = {
    record.receipt_name(Address("destination", ("prod", "orders"))): record.receipt_text(
        record.Receipt("destination:prod/orders", "2026-01-01T00:00:00Z")
    )
}


def a_key(name: str = "transport", guid: str = "k-1", **changes: Any) -> Fact:
    return fact("key", name, id=guid, **{"record": NOTED, **changes})


def decided(*facts: Fact, wants: Resource | None = None, **options: Any) -> Plan:
    """The plan for the destination with its key and instance, the latter in sync."""
    things = (APIM, TRANSPORT, wants or orders(mark=OURS))
    return planned(things, (fact("instance", "apim"), *facts), **options)


def its(plan: Plan) -> Change | None:
    """What happens to the destination."""
    return next((one for one in plan.changes if one.address.kind == "destination"), None)


def said(plan: Plan) -> tuple[Action, str, tuple[str, ...]]:
    change = its(plan)
    assert change is not None
    return change.action, change.reason, tuple(one.path for one in change.fields if one.changes)


def live(wants: Resource | None = None, **changes: str) -> Fact:
    """The destination as it was applied with key k-1, and what was changed in it since."""
    wants = wants or orders(mark=OURS)
    (found,) = observed({**made(wants), **changes}, resources=(wants,))
    return found


def test_in_sync_with_the_newest_key_and_noted_on_it() -> None:
    assert said(decided(a_key(), live())) == (Action.KEEP, "in sync", ())


def test_a_key_that_does_not_note_it_yet_is_given_again_so_that_the_old_one_can_go() -> None:
    plan = decided(a_key(record={}), live())

    assert said(plan) == (
        Action.UPDATE,
        "that it has key:prod/apim/transport is not noted there yet",
        ("receipt",),
    )


def test_a_key_that_is_only_watched_takes_no_notes() -> None:
    watched = replace(TRANSPORT, observe_only=True)
    plan = planned(
        (APIM, watched, orders(mark=OURS)), (fact("instance", "apim"), a_key(ours=False, record={}), live())
    )

    assert said(plan) == (Action.KEEP, "in sync", ())


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ((a_key(), a_key("transport-2", "k-2", ours="transport")), "not the newest"),
        ((a_key("transport-2", "k-2", ours="transport"),), "gone"),
    ],
)
def test_an_old_key_in_it_is_told(keys: tuple[Fact, ...], reason: str) -> None:
    newest = replace(keys[-1], mark=Mark(OWNER, SPEC, "transport", 2))
    plan = decided(*keys[:-1], newest, live())

    assert said(plan) == (
        Action.UPDATE,
        f"it holds generation 1 of key:prod/apim/transport, which is {reason}",
        ("key",),
    )
    change = its(plan)
    assert change is not None
    assert (change.generation, change.fields[0].before, change.fields[0].after) == (
        2,
        "generation 1",
        "generation 2",
    )


def test_nothing_is_sent_while_its_key_is_in_conflict() -> None:
    stranger = a_key(ours=False)
    changed = its(decided(stranger, live(URL="https://by-hand")))
    same = its(decided(stranger, live()))
    taken = its(
        decided(
            stranger,
            *observed({"Name": "orders"}, resources=(orders(mark=OURS),)),
            wants=orders(mark=OURS, adopt=Adoption()),
        )
    )

    note = ("nothing is sent: key:prod/apim/transport is in conflict",)
    assert [one and (one.action, one.reason, one.notes) for one in (changed, same, taken)] == [
        (Action.KEEP, "left as it is", note),
        (Action.KEEP, "in sync", ()),
        (Action.KEEP, "left as it is", note),
    ]


@pytest.mark.parametrize("service", ["cloud_foundry", "destination"])
def test_what_cannot_be_seen_is_neither_changed_nor_pruned(service: str) -> None:
    problem = Problem("platform/unseen", "it did not answer")
    things = (APIM, TRANSPORT, orders(mark=OURS))
    plan = planned(things, (live(),), unseen={("prod", service): problem}, prune=True)

    assert its(plan) is None
    assert plan.unmanaged == ()


def test_a_value_from_outside_mixed_with_one_from_a_key_cannot_be_seen() -> None:
    text = Secret("env:TENANT", "${key:prod/apim/transport#url}?t=hunter2")
    mixed = orders(mark=OURS, properties={"Type": "HTTP", "URL": text})
    filled: dict[str, str | Secret] = {
        "Type": "HTTP",
        "URL": Secret("env:TENANT", "https://x?t=hunter2"),
    }
    (before,) = observed(made(mixed, filled), resources=(mixed,))
    (by_hand,) = observed({**made(orders(mark=OURS)), "URL": "https://x"}, resources=(mixed,))

    kept, changed = decided(a_key(), before, wants=mixed), decided(a_key(), by_hand, wants=mixed)

    assert said(kept) == (Action.KEEP, "in sync as far as can be seen", ())
    assert "hunter2" not in repr(kept)
    assert said(changed)[2] == ("Password", "clientSecret")
    assert "hunter2" not in repr(before)


def test_what_is_not_there_is_absent_already() -> None:
    assert its(decided(a_key(), wants=orders(mark=OURS, absent=True))) is None
    assert its(decided(a_key(), wants=orders(mark=OURS, absent=True, observe_only=True))) is None


def test_a_stranger_goes_when_the_spec_says_so_twice() -> None:
    absent = orders(mark=OURS, absent=True, adopt=Adoption())
    plan = decided(a_key(), *observed({"Name": "orders"}, resources=(absent,)), wants=absent)

    assert said(plan) == (Action.DELETE, "ensure: absent", ())


# --- how they live --------------------------------------------------------------------------------------

BASE = """\
version: 1
owner: acme
name: base
defaults: {runtime: cloudfoundry}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: acme-prod, space: apis}
    instances:
      apim:
        api: api-management
        parameters: {role: APIPortal.Administrator}
        keys: {transport: {}}
    destinations:
      APIManagement: {recipe: api-management-transport, key: apim/transport}
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def session(sandbox: Sandbox) -> tuple[requests.Session, str]:
    """A person signed in at the Destination service of the only subaccount."""
    (key,) = sandbox.access()["destination"].values()
    return signed_in(sandbox, key), key["uri"] + PATH


def signed_in(sandbox: Sandbox, key: Mapping[str, str]) -> requests.Session:
    """A session with a token of that key."""
    one = requests.Session()
    one.mount("https://", InProcessAdapter(sandbox))
    form = {
        "grant_type": "client_credentials",
        "client_id": key["clientid"],
        "client_secret": key["clientsecret"],
    }
    token = one.post(f"{key['url']}/oauth/token", data=form).json()["access_token"]
    one.headers["Authorization"] = f"Bearer {token}"
    return one


def there(sandbox: Sandbox, name: str = "APIManagement") -> dict[str, str]:
    one, url = session(sandbox)
    found: dict[str, str] = one.get(f"{url}/{name}").json()
    return found


def acted(bench: Bench, path: str) -> list[tuple[Action, str]]:
    return [(one.action, str(one.address)) for one in bench.plan(path).plan.changes if one.acts]


@pytest.mark.parametrize("number", range(len(destination.EXAMPLES)))
def test_after_each_example_there_is_nothing_left_to_do(bench: Bench, number: int) -> None:
    for text in destination.EXAMPLES[: number + 1]:
        path = bench.write(text)
        bench.apply(path)

    assert acted(bench, path) == []


def test_a_rotation_gives_the_new_key_to_the_destination_before_the_old_one_goes(bench: Bench) -> None:
    path = bench.write(BASE)
    bench.apply(path)
    before = there(bench.sandbox)

    bench.apply(path, reapply=frozenset({KEY}))

    after = there(bench.sandbox)
    assert before["btp-reconcile.key"].partition(" ")[0] == "key:prod/apim/transport#1"
    assert after["btp-reconcile.key"].partition(" ")[0] == "key:prod/apim/transport#2"
    assert before["clientSecret"] != after["clientSecret"]
    assert acted(bench, path) == []


def test_a_destination_by_a_recipe_gets_its_consumers_a_token(bench: Bench) -> None:
    path = bench.write(BASE)
    bench.apply(path)
    one, url = session(bench.sandbox)

    found = one.get(url.replace("subaccountDestinations", "destinations/APIManagement")).json()

    (token,) = found["authTokens"]
    assert token["type"].lower() == "bearer"
    assert token["value"]
    assert "error" not in token


ELSEWHERE = """\
version: 1
owner: acme
name: base
defaults: {runtime: other}
subaccounts:
  closing:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    instances:
      afc-api:
        api: afc
        keys: {task-center: {}}
  tasks:
    id: 77777777-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    destinations:
      Task-Center:
        recipe: task-center
        key: closing/afc-api/task-center
        properties: {audience: closing-entity, tokenServiceURL: "https://closing.example/oauth/token/alias/x"}
"""


def test_a_key_of_another_subaccount_is_followed_through_its_rotation(bench: Bench) -> None:
    path = bench.write(ELSEWHERE)
    bench.apply(path)
    assert acted(bench, path) == []

    bench.apply(path, reapply=frozenset({Address("key", ("closing", "afc-api", "task-center"))}))

    assert acted(bench, path) == []
    held = bench.sandbox.access()["destination"][OTHER]
    one = signed_in(bench.sandbox, held)
    found = one.get(f"{held['uri']}{PATH}/Task-Center").json()
    assert found["btp-reconcile.key"].startswith("key:closing/afc-api/task-center#2 ")
    assert (found["URL"][-4:], found["audience"]) == ("/api", "closing-entity")
    assert found["clientKey"] == found["tokenServiceUser"]


def test_no_secret_is_in_a_plan_or_an_event(bench: Bench) -> None:
    path = bench.write(BASE)
    bench.apply(path)
    one, url = session(bench.sandbox)
    secret = there(bench.sandbox)["clientSecret"]
    one.put(url, json={**there(bench.sandbox), "clientSecret": "by-hand-secret", "URL": "https://elsewhere"})

    planned = bench.plan(path)
    shown = json.dumps(report.plan_json(planned.plan, planned.prepared.wanted.subaccounts))
    reports = bench.apply(path)

    said = shown + repr(planned) + repr(reports) + repr(bench.events)
    assert secret not in said
    assert "by-hand-secret" not in said
    assert there(bench.sandbox)["clientSecret"] == secret


@pytest.mark.parametrize("deed", ["refuse", "lose", "reset", "502"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_lost_answer_leads_to_the_same_world(bench: Bench, deed: str, method: str) -> None:
    path = bench.write(BASE)
    if method != "POST":
        bench.apply(path)
    if method == "PUT":
        path = bench.write(BASE.replace("key: apim/transport", "key: apim/transport, properties: {a: b}"))
    if method == "DELETE":
        path = bench.write(BASE.replace("key: apim/transport", "key: apim/transport, ensure: absent"))
    match = {"method": method, "host": "destination-configuration.cfapps.eu10.hana.ondemand.com"}
    bench.sandbox.faults.add({"match": match, "do": deed, "at": 1})

    (done,) = bench.apply(path)

    assert {one.status for one in done.outcomes} == {Status.DONE}
    assert acted(bench, path) == []


def test_what_was_changed_between_look_and_write_is_looked_at_and_written_anew(bench: Bench) -> None:
    path = bench.write(BASE)
    bench.apply(path)
    path = bench.write(BASE.replace("key: apim/transport", "key: apim/transport, properties: {a: b}"))
    match = {"method": "PUT", "host": "destination-configuration.cfapps.eu10.hana.ondemand.com"}
    bench.sandbox.faults.add({"match": match, "do": "status", "status": 412, "at": 1})

    (done,) = bench.apply(path)

    assert [(one.status, one.attempts) for one in done.outcomes] == [(Status.DONE, 2)]
    assert there(bench.sandbox)["a"] == "b"


# --- access ---------------------------------------------------------------------------------------------

BY_KEY = """\
version: 1
owner: acme
name: base
access:
  central: {service_key: "${env:BTP_CIS_CENTRAL_KEY}"}
  cloud_foundry: {username: "${env:CF_USER}", password: "${env:CF_PASSWORD}"}
  destination: {key: access/lite}
defaults: {runtime: cloudfoundry}
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    cloud_foundry: {org: acme-prod, space: apis}
    instances:
      access:
        service: destination
        plan: lite
        keys: {lite: {}}
    destinations:
      orders: {properties: {Type: HTTP, URL: "https://orders.example"}}
"""


def real(sandbox: Sandbox, tmp_path: Path, text: str) -> tuple[pipeline.Prepared, pipeline.World]:
    """The line as it runs without --sandbox, its requests led into one."""
    (tmp_path / "spec.yaml").write_text(text, encoding="utf-8")
    keys = sandbox.access()
    (user,) = keys["cloud_foundry"].values()
    environment = {
        "BTP_CIS_CENTRAL_KEY": json.dumps(keys["central"]),
        "CF_USER": user["username"],
        "CF_PASSWORD": user["password"],
    }
    with sandbox.hold() as inside:
        clock = MovingClock(inside.now())
    client = Client(clock=clock, events=lambda *_: None, adapter=InProcessAdapter(sandbox), parallel=1)
    world = pipeline.World(
        environment,
        read_outside,
        lambda wanted: Platform(client, wanted.access, environment, None),
        clock,
        lambda *_: None,
        parallel=1,
    )
    return pipeline.prepare([str(tmp_path / "spec.yaml")], world), world


@pytest.fixture
def seeded() -> Sandbox:
    sandbox = Sandbox()
    foundry = {"landscape": "eu10", "org": "acme-prod", "spaces": ["apis"]}
    sandbox.seed({"subaccounts": {"prod": {"id": GUID, "region": "eu10", "cloud_foundry": foundry}}})
    return sandbox


def test_a_key_of_these_specs_opens_the_service_as_soon_as_it_is_there(
    seeded: Sandbox, tmp_path: Path
) -> None:
    prepared, world = real(seeded, tmp_path, BY_KEY)
    bench = Bench(tmp_path, seeded)
    planned = pipeline.make_plan(prepared, world, bench.policy())

    assert [(one.code, one.message) for one in planned.plan.unseen] == [
        (
            "access/later",
            "the Destination service of subaccount prod is opened by key:prod/access/lite, which is not there yet",
        )
    ]
    assert {one.address.kind for one in planned.plan.changes} == {"entitlement", "instance", "key"}

    last, reports = pipeline.settle(planned, world, bench.policy())

    assert [len(one.outcomes) for one in reports] == [3, 1]
    assert report.apply_exit(last.plan, reports) == report.DONE
    assert there(seeded, "orders")["URL"] == "https://orders.example"
    again = pipeline.make_plan(prepared, world, bench.policy())
    assert (again.plan.empty, again.plan.unseen) == (True, ())


def test_a_key_that_cannot_be_read_leaves_its_subaccounts_destinations_unseen(
    seeded: Sandbox, tmp_path: Path
) -> None:
    prepared, world = real(seeded, tmp_path, BY_KEY)
    bench = Bench(tmp_path, seeded)
    pipeline.settle(pipeline.make_plan(prepared, world, bench.policy()), world, bench.policy())
    body = {"errors": [{"code": 10003, "title": "CF-NotAuthorized", "detail": "Not today."}]}
    seeded.faults.add(
        {
            "match": {"path": "/v3/service_credential_bindings/.*/details"},
            "do": "status",
            "status": 403,
            "body": body,
        }
    )

    (problem,) = pipeline.make_plan(prepared, world, bench.policy()).plan.unseen

    assert problem.code == "platform/unseen"
    assert problem.message.startswith(
        "key:prod/access/lite, which opens the Destination service of subaccount prod, could not be read: "
    )


def test_without_any_access_nothing_is_planned(seeded: Sandbox, tmp_path: Path) -> None:
    prepared, world = real(seeded, tmp_path, BY_KEY.replace("  destination: {key: access/lite}\n", ""))

    with pytest.raises(SpecError) as caught:
        pipeline.make_plan(prepared, world, Bench(tmp_path, seeded).policy())

    (problem,) = caught.value.problems
    assert (problem.code, problem.message) == (
        "access/none",
        "no credentials for the Destination service of subaccount prod",
    )
    assert "access.destination in the spec or set BTP_DESTINATION_KEY" in problem.hint


def test_one_key_is_not_taken_for_two_subaccounts() -> None:
    key = {
        "clientid": "sb-lite",
        "clientsecret": "s3cret",
        "uri": "https://destination-configuration.cfapps.eu10.hana.ondemand.com",
        "url": "https://acme.authentication.eu10.hana.ondemand.com",
    }
    client = Client(clock=MovingClock(NOW), events=lambda *_: None)
    platform = Platform(client, {}, {"BTP_DESTINATION_KEY": json.dumps(key)}, None)
    door = platform.service("destination", PROD)

    with pytest.raises(SpecError) as caught:
        platform.service("destination", TEST)

    assert door.endpoint == key["uri"]
    assert [(one.code, one.hint) for one in caught.value.problems] == [
        ("access/shared-key", "give each subaccount its own access.destination")
    ]


def test_credentials_go_to_the_destination_services_own_host_only() -> None:
    hosts.check("destination", "https://destination-configuration.cfapps.us10.hana.ondemand.com/x", ())

    for host in ("destination-configuration-x.cfapps.us10", "my-destination-configuration.cfapps.us10"):
        with pytest.raises(HostRefused):
            hosts.check("destination", f"https://{host}.hana.ondemand.com/x", ())
