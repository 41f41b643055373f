"""Ids, time, things that take a while, faults, and the file that keeps it all."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile.sandbox import Lost, Request, Response, Router, Sandbox, World
from btp_reconcile.sandbox.http import relocated
from btp_reconcile.sandbox.world import DEFAULTS
from tests.sandbox.landscape import API, CONFIG, LOGIN, SLOW, document, grant

if TYPE_CHECKING:
    from pathlib import Path

ROOT = Request.of("GET", API, "/")
ME = {"grant_type": "password", "username": "dev@example.com", "password": "secret"}


def test_the_same_seed_gives_the_same_ids():
    first, second, other = World.new(seed=1), World.new(seed=1), World.new(seed=2)
    ids = [first.new_id() for _ in range(100)]

    assert ids == [second.new_id() for _ in range(100)]
    assert other.new_id() not in ids
    assert len(set(ids)) == 100
    assert {(made[14], made[19] in "89ab", len(made)) for made in ids} == {("4", True, 36)}


def test_virtual_time_starts_with_2026_and_moves_with_requests():
    sandbox = Sandbox()
    with sandbox.hold() as world:
        assert world.stamp() == "2026-01-01T00:00:00Z"

        sandbox.handle(ROOT)
        sandbox.handle(ROOT)
        assert world.stamp() == "2026-01-01T00:00:02Z"

        world.advance(3600)
        assert world.stamp() == "2026-01-01T01:00:02Z"


def test_a_ticket_is_done_after_so_many_looks():
    world = World.new(settings={"delays": {"default": 3, "slow": None, "instant": 0}})
    ticket, never = world.ticket("anything"), world.ticket("slow")

    assert [world.look(ticket) for _ in range(4)] == [False, False, True, True]
    assert world.done(ticket)
    assert not any(world.look(never) for _ in range(100))
    assert world.done(world.ticket("instant"))
    assert json.loads(json.dumps(ticket)) == ticket


def test_a_ticket_in_seconds_waits_for_the_clock():
    world = World.new(time="seconds", settings={"delays": {"default": 100, "slow": None}})
    ticket, never = world.ticket("anything"), world.ticket("slow")

    assert [world.look(ticket) for _ in range(5)] == [False] * 5
    world.advance(101)
    assert (world.look(ticket), world.look(never)) == (True, False)


def test_settings_are_laid_over_the_defaults():
    world = World.new(settings={"tokens": {"xsuaa": 60}})

    assert world.settings["tokens"] == {**DEFAULTS["tokens"], "xsuaa": 60}
    assert world.settings["region"] == "eu10"


# Files -------------------------------------------------------------------------------------------------------------


def test_a_world_in_a_file_is_the_same_for_everybody_who_opens_it(tmp_path: Path):
    path = tmp_path / "deep" / "world.json"
    first = Sandbox(path, settings={"tokens": {"lock_after": 9}})
    first.seed(document())
    second = Sandbox(path)

    token = grant(first, ME).data()["access_token"]
    answer = second.handle(
        Request.of("GET", API, "/v3/organizations", headers={"Authorization": f"bearer {token}"})
    )

    assert [row["name"] for row in answer.data()["resources"]] == ["acme", "sleeping"]
    assert second.snapshot() == first.snapshot()
    assert second.access() == first.access()
    with second.hold() as world:
        assert world.settings["tokens"]["lock_after"] == 9


def test_the_file_is_for_its_owner_only_and_nothing_is_left_beside_it(tmp_path: Path):
    sandbox = Sandbox(tmp_path / "world.json")
    sandbox.seed(document())

    assert sorted(path.name for path in tmp_path.iterdir()) == ["world.json", "world.json.lock"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_nothing_is_written_when_nothing_changes(tmp_path: Path):
    path = tmp_path / "world.json"
    sandbox = Sandbox(path, time="seconds")
    sandbox.handle(ROOT)
    before = path.stat()

    for _ in range(3):
        sandbox.handle(ROOT)
        sandbox.snapshot()

    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_only_the_first_line_is_written_when_only_the_clock_moves(tmp_path: Path):
    path = tmp_path / "world.json"
    sandbox, other = Sandbox(path), Sandbox(path)
    sandbox.seed(document())
    before, text = path.stat(), path.read_text(encoding="utf-8")

    for _ in range(3):
        sandbox.handle(ROOT)
    other.handle(ROOT)

    lines, now = text.splitlines(), path.read_text(encoding="utf-8").splitlines()
    assert path.stat().st_ino == before.st_ino
    assert (now[1:], len(now[0])) == (lines[1:], 4095)
    assert json.loads("\n".join(now))["elapsed"] == 4
    with sandbox.hold() as world:
        assert world.state["elapsed"] == 4


def test_a_change_is_a_new_file_in_which_only_its_own_line_differs(tmp_path: Path):
    path = tmp_path / "world.json"
    sandbox = Sandbox(path, time="seconds")
    sandbox.seed(document([{**CONFIG, "name": "one"}]))
    lines = path.read_text(encoding="utf-8").splitlines()

    with sandbox.hold() as world:
        next(iter(world.table("cf.service_instances").values()))["tags"].append("x")
        world.table("nothing")

    now = path.read_text(encoding="utf-8").splitlines()
    different = [new for old, new in zip(lines[1:], now[1:], strict=True) if old != new]
    assert [line[: line.index(":")] for line in different] == [',"cf.service_instances"']
    assert lines[0] != now[0]


def test_a_table_that_comes_or_goes_as_a_whole_is_kept_so(tmp_path: Path):
    path = tmp_path / "world.json"
    sandbox = Sandbox(path)
    sandbox.seed(document([{**CONFIG, "name": "one"}]))

    with sandbox.hold() as world:
        world.state["tables"]["marks"] = {"x": 1}
        del world.state["tables"]["cf.service_instances"]

    with Sandbox(path).hold() as world:
        assert (world.rows("marks"), world.rows("cf.service_instances")) == ({"x": 1}, {})


def test_a_file_is_read_however_it_is_laid_out(tmp_path: Path):
    path = tmp_path / "world.json"
    first = Sandbox(path)
    first.seed(document([{**CONFIG, "name": "one"}]))
    first.handle(ROOT)
    state = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(state, indent=2), encoding="utf-8")
    path.chmod(0o644)

    second = Sandbox(path)

    assert second.snapshot() == first.snapshot()
    assert second.access() == first.access()
    with second.hold() as world:
        assert world.state["elapsed"] == 1
    assert path.read_text(encoding="utf-8").startswith('{"version":')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_taken_away_is_written_again(tmp_path: Path):
    path = tmp_path / "world.json"
    sandbox = Sandbox(path, time="seconds")
    sandbox.seed(document([{**CONFIG, "name": "one"}]))
    path.unlink()

    described = sandbox.snapshot()

    assert Sandbox(path).snapshot() == described


def test_a_state_that_cannot_be_written_is_undone(tmp_path: Path):
    path = tmp_path / "world.json"
    sandbox = Sandbox(path)
    sandbox.seed(document())
    before = sandbox.snapshot()

    def spoil() -> None:
        with sandbox.hold() as world:
            world.table("cf.spaces").clear()
            world.table("users").clear()
            world.table("cf.jobs")["x"] = {1, 2}

    with pytest.raises(TypeError):
        spoil()

    assert sandbox.snapshot() == before
    assert grant(sandbox, ME).status == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["world.json", "world.json.lock"]


def test_more_than_a_line_of_faults_still_counts(tmp_path: Path):
    path = tmp_path / "world.json"
    sandbox = Sandbox(path)
    for number in range(40):
        sandbox.faults.add({"do": "slow", "seconds": 0, "match": {"path": f"{number}" * 60 + "|^/$"}})

    sandbox.handle(ROOT)
    other = Sandbox(path)
    other.handle(ROOT)

    assert {rule["seen"] for rule in sandbox.faults.rules()} == {2}
    sandbox.faults.clear()
    sandbox.handle(ROOT)
    assert other.faults.rules() == []
    with other.hold() as world:
        assert world.state["elapsed"] == 3


def test_every_answer_leaves_in_the_file_what_is_in_memory(tmp_path: Path):
    path = tmp_path / "world.json"
    sandbox = Sandbox(path, settings={"cloud_foundry": {"feature_flags": {"service_instance_sharing": True}}})
    sandbox.seed(document([{**CONFIG, "name": "one", "keys": [{"name": "k"}]}, {**SLOW, "name": "slow"}]))
    token = grant(sandbox, ME).data()["access_token"]
    with sandbox.hold() as world:
        space = next(guid for guid, row in world.table("cf.spaces").items() if row["name"] == "apis")
        night = next(guid for guid, row in world.table("cf.spaces").items() if row["name"] == "night")
        guids = {row["name"]: guid for guid, row in world.table("cf.service_instances").items()}
        plan = next(iter(world.table("cf.service_instances").values()))["plan_guid"]
    si, scb = "/v3/service_instances", "/v3/service_credential_bindings"
    relationships = {"space": {"data": {"guid": space}}, "service_plan": {"data": {"guid": plan}}}
    instance = {"type": "managed", "name": "two", "relationships": relationships}
    of_one = {"service_instance": {"data": {"guid": guids["one"]}}}
    steps: list[tuple[str, str, Any]] = [
        ("POST", si, instance),
        ("GET", si, None),
        ("GET", si, None),
        ("POST", scb, {"type": "key", "name": "n", "relationships": of_one}),
        ("GET", scb, None),
        ("GET", scb, None),
        ("PATCH", f"{si}/{guids['one']}", {"metadata": {"labels": {"a": "b"}}}),
        ("PATCH", f"{si}/{guids['slow']}", {"parameters": {"a": 1}}),
        ("POST", f"{si}/{guids['one']}/relationships/shared_spaces", {"data": [{"guid": night}]}),
        ("GET", f"{si}/{guids['slow']}", None),
        ("DELETE", f"{si}/{guids['one']}", None),
        ("GET", si, None),
        ("GET", si, None),
        ("DELETE", f"{si}/{guids['slow']}", None),
        ("GET", "/v3/service_plans", None),
    ]

    for method, target, body in steps:
        data = b"" if body is None else json.dumps(body).encode()
        answer = sandbox.handle(
            Request.of(method, API, target, headers={"Authorization": f"bearer {token}"}, body=data)
        )
        assert answer.status < 300, answer.body
        assert in_file(path) == in_memory(sandbox)


def test_every_answer_of_service_manager_leaves_in_the_file_what_is_in_memory(tmp_path: Path):
    path = tmp_path / "world.json"
    sandbox = Sandbox(path, settings={"sm_limits": True})
    slow = {"runtime": "other", "service": "sandbox-slow", "plan": "standard"}
    under_way = {"type": "create", "state": "in progress"}
    instances = [
        {**slow, "name": "ready", "keys": [{"name": "k", "last_operation": under_way}]},
        {**slow, "name": "made", "last_operation": under_way},
    ]
    sandbox.seed({"subaccounts": {"prod": {"region": "eu10", "instances": instances}}})
    key = next(iter(sandbox.access()["service_manager"].values()))
    zone, host = key["url"].removeprefix("https://"), key["sm_url"].removeprefix("https://")
    form = {
        "grant_type": "client_credentials",
        "client_id": key["clientid"],
        "client_secret": key["clientsecret"],
    }
    token = grant(sandbox, form, host=zone, client=None).data()
    with sandbox.hold() as world:
        ids = {row["name"]: guid for guid, row in world.table("sm.instances").items()}
    bindings, of_ready = "/v1/service_bindings", f"/v1/service_instances/{ids['ready']}"
    steps: list[tuple[str, str, Any]] = [
        *[("GET", f"/v1/service_instances/{ids['made']}", None)] * 3,
        *[("GET", bindings, None)] * 3,
        ("POST", bindings, {"name": "n", "service_instance_id": ids["ready"]}),
        *[("GET", f"{bindings}?attach_last_operations=true", None)] * 3,
        ("PATCH", of_ready, {"parameters": {"a": 1}}),
        *[("GET", of_ready, None)] * 3,
        ("DELETE", f"/v1/service_instances/{ids['made']}", None),
        *[("GET", "/v1/service_instances", None)] * 3,
    ]

    for method, target, body in steps:
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token['access_token']}", "Content-Type": "application/json"}
        answer = sandbox.handle(Request.of(method, host, target, headers=headers, body=data))
        assert answer.status < 300, answer.body
        assert in_file(path) == in_memory(sandbox)


def in_file(path: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kept["tables"].update(kept.pop("moving", {}))
    del kept["version"]
    return kept


def in_memory(sandbox: Sandbox) -> dict[str, Any]:
    with sandbox.hold() as world:
        state: dict[str, Any] = json.loads(json.dumps(world.state))
    state["tables"] = {name: table for name, table in state["tables"].items() if table}
    return state


WORKER = """
import sys
from pathlib import Path
from btp_reconcile.sandbox import Request, Sandbox

sandbox = Sandbox(Path(sys.argv[1]))
root = Request.of("GET", "api.cf.eu10.hana.ondemand.com", "/")
number = 0
while True:
    number += 1
    if number % 3:
        sandbox.handle(root)
    else:
        with sandbox.hold() as world:
            world.table("marks")[world.new_id()] = "x" * 1000
            world.table("count")["marks"] = world.table("count").get("marks", 0) + 1
    print(number, flush=True)
"""


def test_whoever_is_killed_leaves_a_state_between_two_requests(tmp_path: Path):
    path = tmp_path / "world.json"
    sandbox = Sandbox(path)
    sandbox.seed(document([{**CONFIG, "name": f"i{number}"} for number in range(200)]))
    described = sandbox.snapshot()
    requests = marks = 0

    for delay in (0.0, 0.017, 0.05):
        workers = [
            subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        time.sleep(delay)
        for worker in workers:
            worker.kill()
        for worker in workers:
            numbers = worker.communicate()[0].split()
            done = int(numbers[-1]) if numbers else 1
            requests += done - done // 3
            marks += done // 3

        kept = json.loads(path.read_text(encoding="utf-8"))
        with sandbox.hold() as world:
            assert len(world.table("marks")) == world.table("count").get("marks", 0)
            # what was done just before the end may not have been told any more
            assert 0 <= world.state["elapsed"] - requests <= 2
            assert 0 <= len(world.table("marks")) - marks <= 2
            requests, marks = world.state["elapsed"], len(world.table("marks"))
            assert (kept["elapsed"], kept["counter"]) == (world.state["elapsed"], world.state["counter"])

    assert sandbox.snapshot() == described
    assert requests > 5


def test_a_large_world_is_made_and_kept_quickly(tmp_path: Path):
    """A thousand instances with two keys each; the limits are several times what it takes."""
    path = tmp_path / "world.json"
    seeded = document(
        [{**CONFIG, "name": f"i{n}", "keys": [{"name": "a"}, {"name": "b"}]} for n in range(1000)]
    )
    sandbox = Sandbox(path)
    start = time.thread_time()
    sandbox.seed(seeded)
    assert time.thread_time() - start < 2

    token = grant(sandbox, ME).data()["access_token"]
    with sandbox.hold() as world:
        guid, key = next(iter(world.table("cf.service_credential_bindings").items()))
    for target in (
        f"/v3/service_instances/{key['instance']}",
        "/v3/service_instances?names=i77",
        f"/v3/service_credential_bindings?service_instance_guids={key['instance']}",
        f"/v3/service_credential_bindings/{guid}/details",
    ):
        request = Request.of("GET", API, target, headers={"Authorization": f"bearer {token}"})
        times = []
        for _ in range(9):
            start = time.thread_time()
            assert sandbox.handle(request).status == 200
            times.append(time.thread_time() - start)
        assert min(times) < 0.03, target


def test_many_threads_and_two_owners_lose_nothing(tmp_path: Path):
    path = tmp_path / "world.json"
    owners = [Sandbox(path), Sandbox(path)]

    def work(owner: Sandbox) -> None:
        for _ in range(10):
            with owner.hold() as world:
                world.table("marks")[world.new_id()] = True

    threads = [threading.Thread(target=work, args=(owners[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with Sandbox(path).hold() as world:
        assert len(world.table("marks")) == 80


# Routes ------------------------------------------------------------------------------------------------------------


def test_a_router_finds_its_way_by_host_method_and_path():
    router = Router()
    seen: list[tuple[dict[str, str], dict[str, str]]] = []

    def handler(world: World, request: Request, **caught: str) -> Response:
        seen.append((dict(request.place), caught))
        return Response.empty(204)

    router.add("{name}.example.com", "GET", "/things/{guid}", handler)
    router.add("{name}.example.com", "*", "/rest/{rest:path}", handler)
    router.lacks("{name}.example.com", "POST", "/later")
    world = World.new()

    def status(method: str, host: str, target: str) -> int:
        return router.answer(world, Request.of(method, host, target)).status

    assert status("GET", "a.example.com", "/things/a%20b?x=1") == 204
    assert status("PUT", "a.example.com", "/rest/of/it") == 204
    assert status("GET", "a.b.example.com", "/things/1") == 404
    assert status("PUT", "a.example.com", "/things/1") == 404
    assert status("POST", "a.example.com", "/later") == 501
    assert seen == [({"name": "a"}, {"guid": "a b"}), ({"name": "a"}, {"rest": "of/it"})]


def test_a_query_is_decoded_once_and_keeps_blanks():
    request = Request.of("get", "A.example.com", "/v3/x?names=a%252Cb&names=&fields%5Bspace%5D=name")

    assert request.query == (("names", "a%2Cb"), ("names", ""), ("fields[space]", "name"))
    assert (request.method, request.host, request.path) == ("GET", "a.example.com", "/v3/x")
    assert (request.one("names"), request.all("names"), request.one("x")) == ("", ["a%2Cb", ""], None)


def test_addresses_in_a_tree_are_moved_to_where_the_client_finds_them():
    tree = {
        "url": "https://x.authentication.eu10.hana.ondemand.com",
        "more": ["https://sm.cfapps.eu10.hana.ondemand.com/v1?a=b", "https://example.com/", 1, None],
    }

    assert relocated(tree, lambda host, path: f"http://here/{host}{path}") == {
        "url": "http://here/x.authentication.eu10.hana.ondemand.com",
        "more": ["http://here/sm.cfapps.eu10.hana.ondemand.com/v1?a=b", "https://example.com/", 1, None],
    }


def test_a_request_line_over_eight_thousand_bytes_is_refused():
    sandbox = Sandbox()

    def status(length: int) -> int:
        target = "/v3/organizations?names="
        return sandbox.handle(Request.of("GET", API, target + "n" * (length - len(target)))).status

    overhead = len("GET  HTTP/1.1")
    assert (status(8192 - overhead), status(8193 - overhead)) == (401, 414)


# Faults ------------------------------------------------------------------------------------------------------------


def outcomes(sandbox: Sandbox, requests: int) -> list[int | str]:
    found: list[int | str] = []
    for _ in range(requests):
        try:
            found.append(sandbox.handle(ROOT).status)
        except Lost as lost:
            found.append("lost after" if lost.done else "refused before")
    return found


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"do": "refuse", "at": 2}, [200, "refused before", 200, 200]),
        ({"do": "lose", "at": 1}, ["lost after", 200, 200, 200]),
        ({"do": "refuse", "every": 2}, [200, "refused before", 200, "refused before"]),
        ({"do": "refuse", "times": 3}, ["refused before"] * 3 + [200]),
        ({"do": "html"}, [502, 502, 502, 502]),
        ({"do": "status", "status": 418, "at": 4}, [200, 200, 200, 418]),
        ({"do": "refuse", "match": {"method": "POST"}}, [200] * 4),
        ({"do": "refuse", "match": {"host": "elsewhere"}}, [200] * 4),
        ({"do": "refuse", "match": {"path": "^/v3"}}, [200] * 4),
        ({"do": "refuse", "match": {"body": "secret"}}, [200] * 4),
    ],
    ids=str,
)
def test_a_rule_strikes_when_it_says(rule: dict[str, Any], expected: list[int | str]):
    sandbox = Sandbox()
    sandbox.faults.add(rule)

    assert outcomes(sandbox, 4) == expected

    sandbox.faults.clear()
    assert outcomes(sandbox, 1) == [200]


@pytest.mark.parametrize(
    "rule", [{"do": "explode"}, {}, {"do": "refuse", "when": 1}, {"do": "refuse", "match": {"port": 1}}]
)
def test_a_rule_that_says_nothing_is_an_error(rule: dict[str, Any]):
    with pytest.raises(ValueError, match="a fault"):
        Sandbox().faults.add(rule)


@pytest.mark.parametrize(("when", "failures"), [("before", 0), ("after", 1)])
def test_a_cut_before_does_nothing_and_a_cut_after_has_done_the_work(when: str, failures: int):
    sandbox = Sandbox()
    sandbox.seed(document())
    sandbox.faults.cut(1, when)

    with pytest.raises(Lost):
        grant(sandbox, {**ME, "password": "wrong"})

    with sandbox.hold() as world:
        assert len(world.table("users")["sap.ids/dev@example.com"]["failures"]) == failures


def test_ready_made_faults_look_like_the_platforms_own():
    sandbox = Sandbox()
    answers = {}
    for deed in ("cf-429", "sm-429", "cis-429", "503"):
        sandbox.faults.clear()
        sandbox.faults.add({"do": deed, "match": {"host": "*"}})
        answers[deed] = sandbox.handle(ROOT)

    assert {deed: answer.status for deed, answer in answers.items()} == {
        "cf-429": 429,
        "sm-429": 429,
        "cis-429": 429,
        "503": 503,
    }
    limited = answers["cf-429"]
    assert limited.header("Content-Type") == "text/plain; charset=utf-8"
    assert limited.header("Retry-After") == "7"
    assert limited.header("X-RateLimit-Reset") == "1767225608"
    assert limited.data() == {
        "errors": [{"detail": "Rate Limit Exceeded", "title": "CF-RateLimitExceeded", "code": 10013}]
    }
    assert answers["sm-429"].header("Retry-After") == "Thu, 01 Jan 2026 00:00:32 GMT"
    assert answers["cis-429"].header("X-Ratelimit-Reset") == "1767225613000"
    assert answers["cis-429"].data()["error"]["details"] == [
        {"code": 11007, "message": "5 requests in 3 seconds"}
    ]


def test_every_request_is_counted_and_remembered():
    sandbox = Sandbox()
    seen: list[tuple[int, str]] = []
    sandbox.on_request = lambda number, request: seen.append((number, request.path))

    sandbox.handle(ROOT)
    sandbox.handle(Request.of("GET", LOGIN, "/login?a=b"))

    assert seen == [(1, "/"), (2, "/login")]
    assert sandbox.requests == [("GET", API, "/", ()), ("GET", LOGIN, "/login", (("a", "b"),))]
    sandbox.requests.clear()
    assert (sandbox.requests, sandbox.count) == ([], 2)
