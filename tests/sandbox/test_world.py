"""Ids, time, things that take a while, faults, and the file that keeps it all."""

from __future__ import annotations

import json
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.sandbox.landscape import API, LOGIN, document, grant

from btp_reconcile.sandbox import Lost, Request, Response, Router, Sandbox, World
from btp_reconcile.sandbox.http import relocated
from btp_reconcile.sandbox.world import DEFAULTS

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
        sandbox.faults.add({"do": deed})
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
