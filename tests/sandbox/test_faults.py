"""Every fault and exactly the answer it gives: one row each, with the section of the API reference it is from.

CF is the reference of Cloud Foundry, BTP that of the platform's own services; a dash is what no platform should do.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import requests

from btp_reconcile.sandbox import InProcessAdapter, Lost, Request, Response, Sandbox, faults, serve
from btp_reconcile.sandbox.fault_catalogue import CATALOGUE, OPTIONS
from tests.sandbox.btp_client import ACCOUNTS, ENTITLEMENTS, MANAGER, WORLD, Btp
from tests.sandbox.landscape import API, UAA, Landscape, grant

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ZONE = "prod-x1.authentication.eu10.hana.ondemand.com"
FOUNDRY = {
    *("Date", "Strict-Transport-Security", "X-B3-Spanid", "X-B3-Traceid", "X-Content-Type-Options"),
    *("X-Vcap-Request-Id", "Referrer-Policy", "X-Download-Options", "X-Frame-Options", "X-Runtime"),
    *("X-Permitted-Cross-Domain-Policies", "X-Xss-Protection", "Content-Length"),
}
"""What every answer of Cloud Controller has."""
JSON = {"Content-Type": "application/json"}
RAILS = {"Content-Type": "application/json; charset=utf-8"}
PLAIN = {"Content-Type": "text/plain; charset=utf-8"}
HTML = {"Content-Type": "text/html"}


def cf(code: int, title: str, detail: str) -> dict[str, Any]:
    return {"errors": [{"detail": detail, "title": title, "code": code}]}


def cis(code: int, message: str, path: str, **details: Any) -> dict[str, Any]:
    number = "00000000-0000-4000-8000-000000000429"
    return {"error": {"code": code, "message": message, "target": path, "correlationID": number, **details}}


def gateway(status: str) -> str:
    return (
        f"<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n"
        "</body>\r\n</html>\r\n"
    )


def limited(requests_: int = 600) -> dict[str, Any]:
    text = f"The allowed request limit of {requests_} requests has been reached please try again later"
    return {"description": text}


def broker(status: int, text: str) -> dict[str, Any]:
    said = f"Status: {status}; ErrorMessage: <nil>; Description: {text}; ResponseError: <nil>"
    inside = {"StatusCode": status, "ErrorMessage": None, "Description": text, "ResponseError": None}
    return {
        "error": "BrokerError",
        "description": f"Failed provisioning request: {said}",
        "broker_error": inside,
    }


@dataclass
class Row:
    """A rule, the request it befalls, and the answer. The clock shows 2026-01-01T00:00:01Z."""

    section: str
    rule: dict[str, Any]
    status: int
    headers: dict[str, str]
    body: Any = ""
    host: str = API
    method: str = "GET"
    target: str = "/v3/spaces?names=a"
    common: set[str] = field(default_factory=lambda: FOUNDRY)

    def __str__(self) -> str:
        told = {key: value for key, value in self.rule.items() if key != "do"}
        return f"{self.rule['do']} {told or ''} [{self.section}]"


def manager(section: str, deed: str, status: int, headers: dict[str, str], body: Any, **more: Any) -> Row:
    target = more.pop("target", "/v1/service_plans")
    return Row(
        section, {"do": deed, **more}, status, headers, body, host=MANAGER, target=target, common=set()
    )


def central(section: str, deed: str, status: int, headers: dict[str, str], body: Any, **more: Any) -> Row:
    target = more.pop("target", "/accounts/v1/subaccounts")
    host = more.pop("host", ACCOUNTS)
    headers = {**JSON, "X-CorrelationID": "00000000-0000-4000-8000-000000000429", **headers}
    return Row(section, {"do": deed, **more}, status, headers, body, host=host, target=target, common=set())


def bare(section: str, status: int, headers: dict[str, str], body: Any = "", /, **rule: Any) -> Row:
    return Row(section, rule, status, headers, body, common=set())


LIMIT = {
    **PLAIN,
    "Retry-After": "7",
    "X-RateLimit-Limit": "20000",
    "X-RateLimit-Remaining": "0",
    "X-RateLimit-Reset": "1767225608",
}
RATE = cf(10013, "CF-RateLimitExceeded", "Rate Limit Exceeded")
UNAUTHENTICATED = "Rate Limit Exceeded: Unauthenticated requests from this IP address have exceeded the limit. Please log in."
UAA_DOWN = cf(20004, "CF-UaaUnavailable", "The UAA service is currently unavailable")
ENTITLE = "/entitlements/v1/subaccountServicePlans"
NAMES = "Could not find credentials service."
TOKENS = {"error": "too_many_requests", "error_description": "Too many requests."}
PLANS = "/accounts/v1/subaccounts"

ANSWERS = [
    Row("CF 10", {"do": "cf-429"}, 429, LIMIT, RATE),
    Row(
        "CF 10",
        {"do": "cf-429", "seconds": 60},
        429,
        {**LIMIT, "Retry-After": "60", "X-RateLimit-Reset": "1767225661"},
        RATE,
    ),
    Row(
        "CF 10",
        {"do": "cf-429", "headers": {"Retry-After": None, "X-RateLimit-Reset": "{in:2}"}},
        429,
        {**{name: LIMIT[name] for name in LIMIT if name != "Retry-After"}, "X-RateLimit-Reset": "1767225603"},
        RATE,
    ),
    Row("CF 10", {"do": "cf-ip-429"}, 429, LIMIT, cf(10014, "CF-IPBasedRateLimitExceeded", UNAUTHENTICATED)),
    Row(
        "CF 10",
        {"do": "cf-broker-429"},
        429,
        {**PLAIN, "Retry-After": "30"},
        cf(
            10016,
            "CF-ServiceBrokerRateLimitExceeded",
            "Service broker concurrent request limit exceeded",
        ),
    ),
    Row(
        "CF 4",
        {"do": "cf-uaa-429"},
        429,
        RAILS,
        cf(20008, "CF-UaaRateLimited", "The UAA is currently rate limited. Please try again later"),
    ),
    Row("CF 4", {"do": "cf-401"}, 401, RAILS, cf(1000, "CF-InvalidAuthToken", "Invalid Auth Token")),
    Row(
        "CF 4",
        {"do": "cf-409"},
        409,
        RAILS,
        cf(
            60016,
            "CF-AsyncServiceInstanceOperationInProgress",
            "An operation for service instance busy is in progress.",
        ),
    ),
    Row(
        "CF 1.2",
        {"do": "cf-500"},
        500,
        RAILS,
        {"errors": [{"title": "UnknownError", "detail": "An unknown error occurred.", "code": 10001}]},
    ),
    Row(
        "CF 4",
        {"do": "cf-10015"},
        503,
        RAILS,
        cf(10015, "CF-ServiceUnavailable", "Database connection failure"),
    ),
    Row("CF 4", {"do": "cf-20004"}, 503, RAILS, UAA_DOWN),
    Row("CF 4", {"do": "cf-503"}, 503, RAILS, UAA_DOWN),
    Row(
        "CF 9",
        {"do": "cf-job-gone"},
        404,
        RAILS,
        cf(10010, "CF-ResourceNotFound", "Job not found"),
        target="/v3/jobs/4711",
    ),
    manager(
        "BTP 10", "sm-429", 429, {**JSON, "Retry-After": "Thu, 01 Jan 2026 00:00:31 GMT"}, limited()
    ),
    manager(
        "BTP 10",
        "sm-429",
        429,
        {**JSON, "Retry-After": "Thu, 01 Jan 2026 00:01:01 GMT"},
        limited(50),
        seconds=60,
        requests=50,
    ),
    manager("BTP 10", "sm-429-go", 429, {**JSON, "Retry-After": "2026-01-01 00:00:31 +0000 UTC"}, limited()),
    manager(
        "BTP 10", "sm-429-operator", 429, {**JSON, "Retry-After": "2026-01-01 00:00:31 +0000 UTC"}, limited()
    ),
    manager("BTP 10", "sm-429-none", 429, JSON, limited()),
    manager("BTP 6.9", "sm-broker-422", 502, JSON, broker(422, "invalid parameter (role)")),
    manager("BTP 6.9", "sm-broker-500", 502, JSON, broker(500, NAMES)),
    manager("BTP 6.9", "sm-broker-500", 502, JSON, broker(500, "no luck"), description="no luck"),
    manager(
        "BTP 6.9",
        "sm-busy",
        422,
        JSON,
        {
            "error": "ConcurrentOperationInProgress",
            "description": "Another concurrent operation in progress for this resource",
        },
    ),
    manager(
        "BTP 6.9",
        "sm-operation-gone",
        404,
        JSON,
        {"error": "NotFound", "description": "could not find such operation"},
        target="/v1/service_instances/1/operations/2",
    ),
    central(
        "BTP 0.3",
        "cis-429",
        429,
        {"X-Ratelimit-Reset": "1767225611000"},
        cis(
            11006,
            "Request rate limit exceeded",
            PLANS,
            details=[{"code": 11007, "message": "5 requests in 3 seconds"}],
        ),
    ),
    central(
        "BTP 10",
        "cis-429-bare",
        429,
        {},
        cis(
            11006,
            "Request rate limit exceeded",
            PLANS,
            details=[{"code": 11007, "message": "20 requests in 60 seconds"}],
        ),
        requests=20,
        window=60,
    ),
    central(
        "BTP 0.3",
        "cis-locked",
        400,
        {},
        cis(30004, "The entity is locked by another running change. Try again later.", ENTITLE),
        host=ENTITLEMENTS,
        target=ENTITLE,
    ),
    central(
        "BTP 0.4",
        "cis-job-gone",
        404,
        {},
        cis(80001, "Job not found.", "/jobs-management/v1/jobs/1/status"),
        target="/jobs-management/v1/jobs/1/status",
    ),
    Row(
        "BTP 10",
        {"do": "uaa-429"},
        429,
        {**JSON, "Retry-After": "5"},
        TOKENS,
        host=ZONE,
        method="POST",
        target="/oauth/token",
        common=set(),
    ),
    Row(
        "BTP 0.7",
        {"do": "uaa-429", "seconds": 1},
        429,
        {**JSON, "Retry-After": "1"},
        TOKENS,
        host=UAA,
        method="POST",
        target="/oauth/token",
        common=set(),
    ),
    bare("BTP 0.3", 502, HTML, gateway("502 Bad Gateway"), do="html"),
    bare("BTP 0.3", 404, HTML, gateway("404 Not Found"), do="html", status=404),
    bare("BTP 0.3", 503, HTML, gateway("503 Service Unavailable"), do="html", status=503),
    bare("BTP 6.6", 504, HTML, gateway("504 Gateway Timeout"), do="html", status=504),
    bare("BTP 10", 429, HTML, gateway("429 Too Many Requests"), do="html", status=429),
    bare("BTP 0.3", 502, HTML, gateway("502 Bad Gateway"), do="502"),
    bare("BTP 0.3", 503, PLAIN, "503 Service Unavailable", do="503"),
    bare(
        "CF 4",
        404,
        {**PLAIN, "X-Cf-RouterError": "unknown_route"},
        f"404 Not Found: Requested route ('{API}') does not exist.\n",
        do="unknown-route",
    ),
    bare("-", 302, {"Location": "https://evil.example/v3/spaces?names=a"}, do="redirect"),
    bare("-", 307, {"Location": "http://x.test/v3/spaces?names=a"}, do="redirect", to="http://x.test", status=307),
    bare("-", 418, JSON, {"a": 1}, do="status", status=418, body={"a": 1}),
    bare("-", 500, {}, do="status"),
    bare("-", 200, {"A": "b"}, "text", do="status", status=200, body="text", headers={"A": "b"}),
]  # fmt: skip


def said(response: Response) -> Any:
    try:
        return response.data()
    except ValueError:
        return response.body.decode()


@pytest.mark.parametrize("row", ANSWERS, ids=str)
def test_an_answer_instead_of_the_work(row: Row):
    sandbox = Sandbox()
    sandbox.faults.add(row.rule)

    response = sandbox.handle(Request.of(row.method, row.host, row.target))

    own = {name: value for name, value in response.headers if name not in row.common}
    assert (response.status, own, said(response)) == (row.status, row.headers, row.body)
    assert row.common <= {name for name, _ in response.headers}
    assert [rule["struck"] for rule in sandbox.faults.rules()] == [1]


SPOILT_OR_OTHER = {
    *("refuse", "lose", "reset", "slow", "expire-tokens", "lock-account", "empty", "truncated", "huge"),
    *("content-type", "mutated", "out-of-order", "small-pages", "clock-skew"),
    *("broker-failure", "stuck", "async-unbind"),
}
"""What has tests of its own below."""


def test_no_fault_is_without_a_row():
    assert {row.rule["do"] for row in ANSWERS} == set(CATALOGUE) - SPOILT_OR_OTHER


def test_the_docstring_lists_every_fault_once():
    text = faults.__doc__ or ""
    assert re.findall(r"^``([\w-]+)`` ", text, re.MULTILINE) == list(CATALOGUE)


def test_every_option_is_one_of_the_table():
    assert {name for fault in CATALOGUE.values() for name in fault.options} == set(OPTIONS)
    assert all(set(fault.defaults) <= {*fault.options, "times"} for fault in CATALOGUE.values())


# Which request -----------------------------------------------------------------------------------------------------


def test_the_nth_and_every_nth_of_what_fits():
    sandbox = Sandbox()
    sandbox.faults.add({"do": "cf-429", "match": {"method": "patch"}, "every": 3})
    sandbox.faults.add({"do": "cf-500", "match": {"method": "PATCH"}, "at": 4})

    def send(method: str, host: str = API) -> int:
        return sandbox.handle(Request.of(method, host, "/v3/service_instances/x")).status

    assert [send(one) for one in ("PATCH", "GET", "PATCH", "PATCH", "PATCH", "PATCH")] == [
        *(401, 401, 401, 429, 500, 401),
    ]
    assert send("PATCH", MANAGER) != 429  # not a request of Cloud Foundry, so it is not counted either
    assert send("PATCH") == 429


@pytest.mark.parametrize(
    ("host", "befallen"), [(None, [API]), ("*", [API, MANAGER]), ("service-manager.*", [MANAGER])]
)
def test_an_answer_comes_from_the_hosts_that_give_it_unless_told_otherwise(
    host: str | None, befallen: list[str]
):
    sandbox = Sandbox()
    sandbox.faults.add({"do": "cf-10015", "match": {"host": host} if host else {}})

    found = [one for one in (API, MANAGER) if sandbox.handle(Request.of("GET", one, "/v3/x")).status == 503]
    assert found == befallen


CONFIG: dict[str, Any] = {
    "runtime": "cloudfoundry",
    "space": "apis",
    "service": "sandbox-config",
    "plan": "standard",
}
TWO: list[dict[str, Any]] = [{**CONFIG, "name": "apim", "keys": [{"name": "k"}]}, {**CONFIG, "name": "other"}]


def test_requests_about_one_instance():
    small = Landscape(TWO)
    small.sandbox.faults.add({"do": "cf-409", "match": {"name": "apim"}})
    apim, other = small.names["apim"], small.names["other"]
    asked = [
        ("GET", f"/v3/service_instances/{apim}", None),
        ("GET", f"/v3/service_instances/{other}", None),
        ("GET", f"/v3/service_credential_bindings?service_instance_guids={other},{apim}", None),
        ("GET", f"/v3/service_credential_bindings/{small.names['k']}/details", None),
        ("GET", "/v3/service_instances?names=x%2Capim", None),
        ("POST", "/v3/service_credential_bindings", small.key_body("apim", "new")),
        ("POST", "/v3/service_instances", {"name": "apim"}),
        ("GET", "/v3/service_instances", None),
    ]

    found = [small.send(*one).status for one in asked]

    assert [status == 409 for status in found] == [True, False, True, True, True, True, True, False]


def test_requests_about_one_offering():
    small = Landscape(TWO)
    slow = small.instance_body("new", "sandbox-slow")
    config = small.instance_body("new2")
    small.sandbox.faults.add({"do": "cf-500", "match": {"offering": "sandbox-slow"}})

    assert small.send("POST", "/v3/service_instances", slow).status == 500
    assert small.send("POST", "/v3/service_instances", config).status == 202
    assert small.send("GET", f"/v3/service_instances/{small.names['apim']}").status == 200


def test_an_answer_after_the_work():
    small = Landscape(TWO)
    body = small.instance_body("new")
    small.sandbox.faults.add({"do": "html", "status": 504, "after": True, "match": {"method": "POST"}})

    assert small.send("POST", "/v3/service_instances", body).status == 504
    assert small.instance("new")["name"] == "new"


def test_rules_are_kept_with_the_world_and_seen_by_whoever_runs_on_it(tmp_path: Path):
    running, other = Sandbox(tmp_path / "world.json"), Sandbox(tmp_path / "world.json")

    number = other.faults.add({"do": "cf-500"})
    assert running.handle(Request.of("GET", API, "/v3/spaces")).status == 500
    assert [(rule["id"], rule["struck"]) for rule in other.faults.rules()] == [(number, 1)]
    other.faults.remove([number])
    assert running.handle(Request.of("GET", API, "/v3/spaces")).status == 401


def test_faults_are_taken_away_by_number_or_by_name():
    sandbox = Sandbox()
    for deed in ("502", "cf-500", "cf-500", "lose"):
        sandbox.faults.add({"do": deed})

    assert sandbox.faults.remove(["cf-500", 4]) == 3
    assert [rule["do"] for rule in sandbox.faults.rules()] == ["502"]
    with pytest.raises(LookupError, match="there is no fault 7"):
        sandbox.faults.remove([7])
    assert sandbox.faults.add({"do": "lose"}) == 2


WRONG: list[tuple[Any, str]] = [
    ({"do": "cf-492"}, "a fault named 'cf-492' is not known; did you mean cf-429?"),
    ({"do": "truncate"}, "a fault named 'truncate' is not known; did you mean truncated?"),
    ({"do": "zzz"}, "a fault named 'zzz' is not known; there are refuse, lose, "),
    ({}, "a fault named None is not known"),
    ([], r"a fault is an object, not \[\]"),
    ({"do": "lose", "evry": 1}, "a fault lose has no evry; did you mean every?"),
    ({"do": "lose", "seconds": 1}, "a fault lose has no seconds; it has at, every, times$"),
    ({"do": "huge", "seconds": 1}, "a fault huge has no seconds; it has at, every, times, size$"),
    ({"do": "lose", "match": {"methd": "GET"}}, "a fault lose cannot match methd; did you mean method?"),
    ({"do": "lose", "match": {"verb": "bind"}}, "a fault lose cannot match verb; it can match method, host"),
    ({"do": "stuck", "match": {"path": "x"}}, "a fault stuck cannot match path; it can match name, offering"),
    ({"do": "stuck", "match": {"verb": "unbnd"}}, "a fault's verb is not unbnd; did you mean unbind?"),
    ({"do": "lose", "match": []}, r"a fault's match is an object, not \[\]"),
    ({"do": "lose", "match": {"path": 1}}, "a fault's path is a text, not 1"),
    ({"do": "lose", "match": {"path": "("}}, "a fault's path is a regular expression, and '\\(' is none"),
    ({"do": "mutated", "member": "["}, "a fault's member is a regular expression"),
    ({"do": "lose", "at": 0}, "a fault's at is a whole number from 1, not 0"),
    ({"do": "lose", "times": True}, "a fault's times is a whole number from 1, not True"),
    ({"do": "lose", "at": 1, "every": 2}, "a fault strikes at one request or at every so many, not both"),
    ({"do": "status", "status": 999}, "a fault's status is a number from 200 to 599, not 999"),
    ({"do": "status", "headers": []}, r"a fault's headers is an object of texts, not \[\]"),
    ({"do": "status", "after": 1}, "a fault's after is true or false, not 1"),
    ({"do": "broker-failure", "status": 200}, "a fault's status is a number from 400 to 599, or async"),
    ({"do": "slow", "seconds": -1}, "a fault's seconds is a number from 0, not -1"),
    ({"do": "huge", "size": 0}, "a fault's size is a whole number from 1, not 0"),
    ({"do": "mutated", "how": "x"}, "a fault's how is any or drop or retype, not 'x'"),
    ({"do": "stuck", "phase": "x"}, "a fault's phase is in progress or initial, not 'x'"),
    ({"do": "redirect", "to": 7}, "a fault's to is a text, not 7"),
]


@pytest.mark.parametrize(("rule", "words"), WRONG, ids=json.dumps)
def test_a_rule_that_says_nothing_is_refused_in_words(rule: Any, words: str):
    with pytest.raises((ValueError, TypeError), match=words.replace("?", r"\?")):
        Sandbox().faults.add(rule)


def test_of_several_rules_sent_at_once_all_are_taken_or_none():
    sandbox = Sandbox()
    with serve(sandbox, threads=2) as served:
        answer = requests.post(
            f"{served.url}/__sandbox__/faults", json=[{"do": "lose"}, {"do": "loose"}], timeout=5
        )
        wrong = requests.post(f"{served.url}/__sandbox__/faults", json=7, timeout=5)

    assert (answer.status_code, wrong.status_code) == (400, 400)
    assert answer.json() == {"error": "a fault named 'loose' is not known; did you mean lose?"}
    assert sandbox.faults.rules() == []


# The connection, and answers that are spoilt on their way -------------------------------------------------------------


def test_a_connection_that_breaks_before_the_work_or_after_it():
    """Sections CF 14 (12) and 15."""
    for deed, done in (("refuse", False), ("lose", True), ("reset", True)):
        small = Landscape(TWO)
        body = small.instance_body("new")
        small.sandbox.faults.add({"do": deed, "match": {"method": "POST"}})

        with pytest.raises(Lost) as caught:
            small.send("POST", "/v3/service_instances", body)
        assert caught.value.done is done
        small.sandbox.faults.clear()
        found = small.get("/v3/service_instances", names="new")["resources"]
        assert len(found) == int(done)


def test_a_connection_that_breaks_in_the_middle_of_an_answer():
    sandbox = Sandbox()
    sandbox.faults.add({"do": "reset"})
    with requests.Session() as session:
        session.mount("https://", InProcessAdapter(sandbox))
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            session.get(f"https://{API}/", timeout=5)
    with serve(sandbox, threads=2) as served, requests.Session() as session:
        session.trust_env = False
        for _ in range(2):
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                session.get(f"{served.url}/", timeout=5)
        sandbox.faults.clear()
        assert session.get(f"{served.url}/", timeout=5).status_code == 200


def spoilt(rule: dict[str, Any], target: str = "/v3/service_instances") -> tuple[Response, Response]:
    """An answer as it should be, and as it is."""
    small = Landscape(TWO)
    good = small.send("GET", target)
    small.sandbox.faults.add(rule)
    return good, small.send("GET", target)


def test_an_answer_that_takes_its_time():
    small = Landscape(TWO)
    small.sandbox.faults.add({"do": "slow", "seconds": 90})
    assert small.sandbox.answer(Request.of("GET", API, "/")).delay == 90


def test_an_empty_answer():
    good, bad = spoilt({"do": "empty"})
    assert (bad.status, bad.body, bad.header("Content-Length")) == (200, b"", None)
    assert bad.header("Content-Type") == good.header("Content-Type")


def test_half_an_answer():
    good, bad = spoilt({"do": "truncated"})
    assert (bad.status, bad.header("Content-Length")) == (200, None)
    assert bad.body == good.body[: len(good.body) // 2]


@pytest.mark.parametrize(("told", "found"), [({}, "text/html"), ({"type": "text/x"}, "text/x")])
def test_a_wrong_content_type(told: dict[str, Any], found: str):
    good, bad = spoilt({"do": "content-type", **told})
    assert [value for name, value in bad.headers if name.lower() == "content-type"] == [found]
    assert bad.body == good.body


@pytest.mark.parametrize("size", [1000, 20_000_000])
def test_a_huge_answer(size: int):
    good, bad = spoilt({"do": "huge"} if size > 1000 else {"do": "huge", "size": size})
    assert len(bad.body) > size
    assert bad.data() == {**good.data(), "padding": "x" * size}


def test_a_huge_answer_that_is_no_json():
    sandbox = Sandbox()
    sandbox.faults.add({"do": "503"})
    sandbox.faults.add({"do": "huge", "size": 5})
    answer = sandbox.handle(Request.of("GET", API, "/"))
    assert answer.body == b"503 Service Unavailable     "


def members(value: Any, path: str = "") -> set[tuple[str, str]]:
    """Every member with its type, lists by position."""
    if isinstance(value, dict):
        inside = [(f"{path}.{key}", below) for key, below in value.items()]
    elif isinstance(value, list):
        inside = [(f"{path}.{number}", below) for number, below in enumerate(value)]
    else:
        return set()
    found = {(where, type(below).__name__) for where, below in inside}
    return found.union(*(members(below, where) for where, below in inside))


@pytest.mark.parametrize("seed", range(12))
def test_one_member_is_missing_or_of_another_type(seed: int):
    good, bad = spoilt({"do": "mutated", "seed": seed})
    again = spoilt({"do": "mutated", "seed": seed})[1]

    lost = members(good.data()) - members(bad.data())
    top = {path for path, _ in lost if not any(path.startswith(f"{other}.") for other, _ in lost)}
    assert len(top) == 1
    assert bad.body == again.body


def test_a_member_can_be_named_and_dropped_or_retyped():
    small = Landscape(TWO)
    small.token(small.who)
    small.sandbox.faults.add({"do": "mutated", "how": "drop", "member": r"^resources\.guid$", "times": 1})
    small.sandbox.faults.add({"do": "mutated", "how": "retype", "member": "^pagination$", "at": 2})
    small.sandbox.faults.add({"do": "mutated", "member": "^nothing$", "at": 3})

    dropped, retyped, same = (small.get("/v3/service_instances") for _ in range(3))

    assert sorted("guid" in row for row in dropped["resources"]) == [False, True]
    assert not isinstance(retyped["pagination"], dict)
    assert len(same["resources"]) == 2
    first, second, third = (rule["last"] for rule in small.sandbox.faults.rules())
    assert (first, third) == ("dropped resources.guid", "nothing to change")
    assert second.startswith("pagination became ")


MANY: list[dict[str, Any]] = [{**CONFIG, "name": f"i{number:02}"} for number in range(12)]


def listed(small: Landscape, **query: str) -> list[str]:
    names: list[str] = []
    sent = "&".join(f"{name}={value}" for name, value in query.items())
    target: str | None = f"/v3/service_instances?{sent}"
    while target:
        page = small.get(target)
        names += [row["name"] for row in page["resources"]]
        target = (page["pagination"]["next"] or {}).get("href")
    return names


def test_lists_come_in_any_order_but_whole():
    small = Landscape(MANY)
    before = listed(small)
    small.sandbox.faults.add({"do": "out-of-order"})
    small.sandbox.faults.add({"do": "small-pages", "size": 5})

    mixed = listed(small)

    assert mixed != before
    assert sorted(mixed) == before
    assert set(mixed[:5]) != set(before[:5])
    assert small.get("/v3/service_instances", per_page="50")["pagination"]["total_pages"] == 3


def test_pages_are_small_whatever_was_asked_for():
    small = Landscape(MANY)
    small.sandbox.faults.add({"do": "small-pages"})
    page = small.get("/v3/service_instances", per_page="5000")

    assert len(page["resources"]) == 2
    assert page["pagination"]["total_pages"] == 6
    assert "per_page=2" in page["pagination"]["next"]["href"]
    assert listed(small) == [f"i{number:02}" for number in range(12)]


def test_lists_of_service_manager_too():
    btp = Btp()
    before = btp.manager("GET", "/v1/service_plans?max_items=200").data()["items"]
    btp.sandbox.faults.add({"do": "out-of-order"})
    btp.sandbox.faults.add({"do": "small-pages", "size": 3})

    found: list[Any] = []
    token = ""
    while True:
        page = btp.manager("GET", f"/v1/service_plans?max_items=200{token}").data()
        assert len(page["items"]) <= 3
        assert page["num_items"] == len(before)
        found += page["items"]
        if "token" not in page:
            break
        token = f"&token={page['token']}"
    assert found != before
    assert sorted(one["id"] for one in found) == sorted(one["id"] for one in before)


def test_lists_of_the_cis_services_too():
    btp = Btp(document={"subaccounts": {name: {} for name in "abcdefgh"}})
    before = [one["displayName"] for one in btp.central("GET", "/accounts/v1/subaccounts").data()["value"]]
    btp.sandbox.faults.add({"do": "out-of-order"})
    after = [one["displayName"] for one in btp.central("GET", "/accounts/v1/subaccounts").data()["value"]]

    assert (before != after, sorted(after)) == (True, sorted(before))


@pytest.mark.parametrize(
    ("told", "date"),
    [({}, "Thu, 01 Jan 2026 01:00:01 GMT"), ({"seconds": -3601}, "Wed, 31 Dec 2025 23:00:00 GMT")],
)
@pytest.mark.parametrize("host", [API, MANAGER])
def test_a_clock_that_goes_wrong(told: dict[str, Any], date: str, host: str):
    sandbox = Sandbox()
    sandbox.faults.add({"do": "clock-skew", **told})
    answer = sandbox.handle(Request.of("GET", host, "/"))
    assert [value for name, value in answer.headers if name == "Date"] == [date]


# Tokens and accounts ---------------------------------------------------------------------------------------------------


def test_tokens_die_in_mid_flight():
    """Sections CF 14 (14) and 15."""
    small = Landscape(TWO)
    small.sandbox.faults.add({"do": "expire-tokens", "at": 2, "match": {"path": "^/v3/"}})

    statuses = [small.send("GET", "/v3/spaces").status for _ in range(3)]

    assert statuses == [200, 401, 401]
    small._tokens.clear()
    assert small.send("GET", "/v3/spaces").status == 200


def test_an_account_is_locked_for_a_while():
    """Section CF 3.6."""
    small = Landscape(TWO)
    me = {"grant_type": "password", "username": "dev@example.com", "password": "secret"}
    small.sandbox.faults.add({"do": "lock-account", "user": "dev@example.com", "seconds": 100, "times": 1})

    locked = grant(small.sandbox, me)
    other = grant(small.sandbox, {**me, "username": "auditor@example.com"})
    with small.sandbox.hold() as world:
        world.advance(90)
    still = grant(small.sandbox, me)
    with small.sandbox.hold() as world:
        world.advance(10)

    assert (locked.status, still.status, other.status) == (401, 401, 200)
    assert locked.data() == {
        "error": "unauthorized",
        "error_description": "Your account has been locked because of too many failed attempts to login.",
    }
    assert grant(small.sandbox, me).status == 200


# Brokers and workers -----------------------------------------------------------------------------------------------------


def test_a_broker_refuses_one_instance_twice():
    """Sections CF 7.5 and 4; the name of the fault is the name of the instance."""
    small = Landscape(TWO)
    small.sandbox.faults.add(
        {
            "do": "broker-failure",
            "match": {"name": "new", "verb": "provision"},
            "times": 2,
            "description": NAMES,
        }
    )
    text = f"Service broker error: {NAMES}"
    failed = [
        {"detail": f"provision could not be completed: {text}", "title": "CF-UnableToPerform", "code": 10009}
    ]

    assert small.create("free")
    for _ in range(2):
        assert small.outcome(small.send("POST", "/v3/service_instances", small.instance_body("new"))) == (
            "FAILED",
            failed,
        )
        assert small.instance("new")["last_operation"]["description"] == text
    assert small.create("new")


def test_a_broker_refuses_later_and_once_if_nothing_is_said():
    small = Landscape(TWO)
    small.sandbox.faults.add(
        {"do": "broker-failure", "match": {"offering": "sandbox-config"}, "status": "async"}
    )
    state, errors = small.outcome(small.send("POST", "/v3/service_instances", small.instance_body("new")))

    assert (state, errors[0]["detail"]) == ("FAILED", f"create managed could not be completed: {NAMES}")
    assert small.create("other-one")


def test_a_broker_refuses_keys_of_one_instance():
    small = Landscape(TWO)
    small.sandbox.faults.add(
        {
            "do": "broker-failure",
            "match": {"name": "apim", "verb": "bind"},
            "status": 422,
            "code": "ConcurrencyError",
        }
    )
    state, errors = small.outcome(
        small.send("POST", "/v3/service_credential_bindings", small.key_body("apim", "new"))
    )

    busy = "The service broker could not perform this operation in parallel with other running operations"
    assert (state, errors[0]["detail"]) == ("FAILED", f"bind could not be completed: {busy}")


@pytest.mark.parametrize("status", [422, 500])
def test_a_broker_refuses_service_manager(status: int):
    """Section BTP 6.9."""
    btp = Btp()
    btp.sandbox.faults.add(
        {"do": "broker-failure", "match": {"name": "new"}, "status": status, "description": "no"}
    )
    body = {"name": "new", "service_offering_name": "sandbox-config", "service_plan_name": "standard"}
    answer = btp.manager("POST", "/v1/service_instances?async=false", body)

    assert answer.status == 502
    assert answer.data()["broker_error"] == {
        "StatusCode": status,
        "ErrorMessage": None,
        "Description": "no",
        "ResponseError": None,
    }
    assert btp.instance("new")


def looks(small: Landscape, answer: Response, times: int = 8) -> set[str]:
    location = small.job(answer)
    return {small.get(location)["state"] for _ in range(times)}


@pytest.mark.parametrize(
    ("told", "last", "job"),
    [({}, "in progress", {"PROCESSING", "POLLING"}), ({"phase": "initial"}, "initial", {"PROCESSING"})],
)
def test_an_instance_of_cloud_foundry_hangs(told: dict[str, Any], last: str, job: set[str]):
    """Section CF 14 (8)."""
    small = Landscape(TWO)
    small.sandbox.faults.add({"do": "stuck", "match": {"name": "new", "verb": "provision"}, **told})
    answer = small.send("POST", "/v3/service_instances", small.instance_body("new"))

    assert looks(small, answer) <= job
    shown = small.instance("new")
    assert (shown["last_operation"]["type"], shown["last_operation"]["state"]) == ("create", last)
    assert small.create("free")
    deleted = small.send("DELETE", f"/v3/service_instances/{shown['guid']}")
    if last == "initial":
        assert deleted.status == 422
    else:  # deleting what is in progress is how it is given up
        assert small.outcome(deleted) == ("COMPLETE", [])


@pytest.mark.parametrize("verb", ["update", "deprovision", "bind", "unbind"])
def test_other_operations_of_cloud_foundry_hang(verb: str):
    small = Landscape(TWO)
    small.sandbox.faults.add({"do": "stuck", "match": {"name": "apim", "verb": verb}})
    apim, key = small.names["apim"], small.names["k"]
    send: dict[str, Callable[[], Response]] = {
        "update": lambda: small.send("PATCH", f"/v3/service_instances/{apim}", {"parameters": {"a": 1}}),
        "deprovision": lambda: small.send("DELETE", f"/v3/service_instances/{apim}"),
        "bind": lambda: small.send("POST", "/v3/service_credential_bindings", small.key_body("apim", "new")),
        "unbind": lambda: small.send("DELETE", f"/v3/service_credential_bindings/{key}"),
    }

    assert looks(small, send[verb]()) == {"POLLING"}
    kind = {"update": "update", "deprovision": "delete", "bind": "create", "unbind": "delete"}[verb]
    if verb in {"update", "deprovision"}:
        shown = small.instance("apim")
    else:
        name = "new" if verb == "bind" else "k"
        shown = small.get("/v3/service_credential_bindings", names=name)["resources"][0]
    assert (shown["last_operation"]["type"], shown["last_operation"]["state"]) == (kind, "in progress")


@pytest.mark.parametrize("wish", ["", "?async=true"])
def test_an_instance_of_service_manager_hangs(wish: str):
    btp = Btp()
    btp.sandbox.faults.add({"do": "stuck", "match": {"offering": "sandbox-config", "verb": "provision"}})
    body = {"name": "new", "service_offering_name": "sandbox-config", "service_plan_name": "standard"}
    answer = btp.manager("POST", f"/v1/service_instances{wish}", body)

    assert answer.status == 202
    location = str(answer.header("Location"))
    assert {btp.manager("GET", location).data()["state"] for _ in range(8)} == {"in progress"}
    shown = btp.named("service_instances", "new")
    assert (shown["ready"], shown["usable"]) == (False, False)


def test_the_gateway_does_not_wait_for_what_hangs():
    """Section BTP 6.6."""
    btp = Btp()
    btp.sandbox.faults.add({"do": "stuck"})
    body = {"name": "new", "service_offering_name": "sandbox-config", "service_plan_name": "standard"}
    assert btp.manager("POST", "/v1/service_instances?async=false", body).status == 504


@pytest.mark.parametrize("verb", ["bind", "unbind"])
def test_a_binding_of_service_manager_hangs(verb: str):
    btp = Btp()
    instance = btp.instance("one")
    old = btp.binding("old", instance)["id"]
    btp.sandbox.faults.add({"do": "stuck", "match": {"name": "one", "verb": verb}})
    if verb == "bind":
        answer = btp.manager("POST", "/v1/service_bindings", {"name": "k", "service_instance_id": instance})
    else:
        answer = btp.manager("DELETE", f"/v1/service_bindings/{old}")

    assert answer.status == 202
    location = str(answer.header("Location"))
    assert {btp.manager("GET", location).data()["state"] for _ in range(8)} == {"in progress"}


def test_an_entitlement_hangs():
    """Section BTP 11 (3)."""
    btp = Btp()
    btp.sandbox.faults.add({"do": "stuck", "match": {"offering": "destination", "verb": "assign"}})

    assert btp.assign("destination", "lite", enable=True).status == 202
    states = {(btp.state("destination", "lite") or {})["entityState"] for _ in range(8)}
    assert states == {"STARTED", "PROCESSING"}
    again = btp.assign("sandbox-config", "large", amount=3)
    assert (again.status, again.data()["error"]["code"]) == (400, 30004)


def test_a_job_that_deletes_an_instance_with_keys_fails_once():
    """Section CF 7.8."""
    small = Landscape(TWO)
    small.sandbox.faults.add({"do": "async-unbind", "match": {"name": "apim"}})
    target = f"/v3/service_instances/{small.names['apim']}"
    busy = "An operation for a service binding of service instance apim is in progress."
    failed = [
        {"detail": f"delete could not be completed: {busy}", "title": "CF-UnableToPerform", "code": 10009}
    ]

    assert small.outcome(small.send("DELETE", target)) == ("FAILED", failed)
    shown = small.instance("apim")["last_operation"]
    assert (shown["type"], shown["state"], shown["description"]) == ("delete", "failed", busy)
    for _ in range(4):
        small.get("/v3/service_credential_bindings")
    assert small.outcome(small.send("DELETE", target)) == ("COMPLETE", [])


def test_what_is_gone_are_jobs_and_operations_only():
    small = Landscape(TWO)
    answer = small.send("POST", "/v3/service_instances", small.instance_body("new"))
    small.sandbox.faults.add({"do": "cf-job-gone"})

    assert small.send("GET", small.job(answer)).status == 404
    for _ in range(3):
        small.instance("new")
    assert small.instance("new")["last_operation"]["state"] == "succeeded"


def test_nothing_is_befallen_without_rules():
    btp = Btp(document=WORLD)
    assert btp.sandbox.faults.rules() == []
    assert btp.instance("new")
