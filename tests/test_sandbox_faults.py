"""`reconcile sandbox faults`: what goes wrong on demand, also in a sandbox that is being served."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import requests

from btp_reconcile.sandbox import Sandbox, serve
from btp_reconcile.sandbox.fault_catalogue import CATALOGUE, OPTIONS, WHICH
from tests.test_cli import OPTIONS as HELPED

if TYPE_CHECKING:
    from tests.commands import Desk

BROKER = ["--name", "apim", "--verb", "provision", "--times", "2", "--description", "no credentials"]
OWN = ["--status", "418", "--header", "A: b: c", "--header", "X:", "--answer", '{"a": 1}', "--after"]
WHERE = [
    "--method",
    "PATCH",
    "--host",
    "*",
    "--path",
    "^/v3",
    "--body",
    "x",
    "--name",
    "a",
    "--offering",
    "b",
]
ORDERS: list[tuple[list[str], dict[str, Any]]] = [
    (
        ["cf-429", "--method", "PATCH", "--every", "7"],
        {"do": "cf-429", "match": {"method": "PATCH"}, "every": 7},
    ),
    (["lose", "--at", "12"], {"do": "lose", "match": {}, "at": 12}),
    (
        ["broker-failure", *BROKER],
        {
            "do": "broker-failure",
            "match": {"name": "apim", "verb": "provision"},
            "times": 2,
            "description": "no credentials",
        },
    ),
    (["broker-failure", "--status", "async"], {"do": "broker-failure", "match": {}, "status": "async"}),
    (
        ["broker-failure", "--status", "422", "--code", "X", "--plan", "large"],
        {"do": "broker-failure", "match": {"plan": "large"}, "status": 422, "code": "X"},
    ),
    (["stuck", "--name", "apim"], {"do": "stuck", "match": {"name": "apim"}}),
    (["stuck", "--phase", "initial"], {"do": "stuck", "match": {}, "phase": "initial"}),
    (["out-of-order"], {"do": "out-of-order", "match": {}}),
    (["out-of-order", "--seed", "0"], {"do": "out-of-order", "match": {}, "seed": 0}),
    (["clock-skew", "--seconds", "-60"], {"do": "clock-skew", "match": {}, "seconds": -60}),
    (["small-pages", "--size", "1"], {"do": "small-pages", "match": {}, "size": 1}),
    (
        ["mutated", "--how", "drop", "--member", "guid"],
        {"do": "mutated", "match": {}, "how": "drop", "member": "guid"},
    ),
    (
        ["cis-429", "--requests", "9", "--window", "8", "--seconds", "1"],
        {"do": "cis-429", "match": {}, "requests": 9, "window": 8, "seconds": 1},
    ),
    (["lock-account", "--user", "a@b.c"], {"do": "lock-account", "match": {}, "user": "a@b.c"}),
    (["redirect", "--to", "https://a.test"], {"do": "redirect", "match": {}, "to": "https://a.test"}),
    (["content-type", "--type", "a/b"], {"do": "content-type", "match": {}, "type": "a/b"}),
    (
        ["status", *OWN],
        {
            "do": "status",
            "match": {},
            "status": 418,
            "headers": {"A": "b: c", "X": ""},
            "body": {"a": 1},
            "after": True,
        },
    ),
    (["status", "--answer", "a text"], {"do": "status", "match": {}, "body": "a text"}),
    (
        ["refuse", *WHERE],
        {
            "do": "refuse",
            "match": {
                "method": "PATCH",
                "host": "*",
                "path": "^/v3",
                "body": "x",
                "name": "a",
                "offering": "b",
            },
        },
    ),
]


def rules(desk: Desk) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(desk.run("sandbox", "faults", "list", "--format", "json").out)
    return found


@pytest.mark.parametrize(
    ("line", "rule"), ORDERS, ids=lambda one: " ".join(one) if isinstance(one, list) else ""
)
def test_a_line_makes_a_rule(desk: Desk, line: list[str], rule: dict[str, Any]) -> None:
    ended = desk.run("sandbox", "faults", "add", *line)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"  1  {line[0]}: ")
    assert rules(desk) == [{"id": 1, **rule, "seen": 0, "struck": 0}]


def test_every_option_of_a_rule_has_one_of_the_command() -> None:
    given = {name.removeprefix("--") for name in HELPED["sandbox faults add"]}
    options = {{"body": "answer", "headers": "header"}.get(name, name) for name in OPTIONS}

    assert given == {
        *options,
        *(one for names in WHICH.values() for one in names),
        "at",
        "every",
        "times",
        "state",
    }


def test_the_help_lists_every_fault(desk: Desk) -> None:
    shown = desk.run("sandbox", "faults", "add", "--help").out.partition("Faults (")[2]

    assert re.findall(r"^  ([\w-]+)  ", shown, re.MULTILINE) == list(CATALOGUE)


def test_they_are_listed_and_cleared(desk: Desk) -> None:
    assert desk.run("sandbox", "faults", "list").out == "nothing goes wrong\n"
    assert desk.run("sandbox", "faults", "clear").out == "nothing goes wrong\n"
    assert not desk.state.exists()
    for line, _ in ORDERS[:4]:
        desk.run("sandbox", "faults", "add", *line)

    text = 'description "no credentials"'
    listed = desk.run("sandbox", "faults", "list")
    one = desk.run("sandbox", "faults", "clear", "broker-failure", "2")
    left = desk.run("sandbox", "faults", "list")
    rest = desk.run("sandbox", "faults", "clear")

    assert listed.out.splitlines() == [
        "  1  cf-429: method PATCH, every 7, seen 0, struck 0",
        "  2  lose: at number 12, seen 0, struck 0",
        f"  3  broker-failure: name apim, verb provision, 2 times at most, {text}, seen 0, struck 0",
        '  4  broker-failure: status "async", seen 0, struck 0',
    ]
    assert (one.out, rest.out) == ("3 cleared\n", "1 cleared\n")
    assert left.out == "  1  cf-429: method PATCH, every 7, seen 0, struck 0\n"
    assert rules(desk) == []


WRONG = [
    ("add cf-492", "a fault named 'cf-492' is not known; did you mean cf-429?"),
    ("add lose --evry 2", "No such option"),
    ("add lose --seconds 2", "a fault lose has no seconds; it has at, every, times"),
    ("add stuck --path /v3", "a fault stuck cannot match path; it can match name, offering, plan, verb"),
    ("add stuck --verb creat", "a fault's verb is not creat; there are provision, update"),
    ("add lose --at 0", "a fault's at is a whole number from 1, not 0"),
    ("add lose --at x", "'x' is not a valid integer"),
    ("add lose --path (", "a fault's path is a regular expression, and '(' is none"),
    ("add status --header x", "--header takes 'NAME: VALUE', not 'x'"),
    ("add status --status many", "a fault's status is a number from 200 to 599, not 'many'"),
    ("add", "Missing argument 'FAULT'"),
    ("clear lose", "there is no fault lose"),
    ("clear 3", "there is no fault 3"),
]


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[line for line, _ in WRONG])
@pytest.mark.parametrize("world", [True, False])
def test_what_is_wrong_is_said_in_words(desk: Desk, line: str, words: str, *, world: bool) -> None:
    if world:
        desk.sandbox()
    ended = desk.run("sandbox", "faults", *line.split())

    assert (ended.code, ended.out) == (64, "")
    assert words in re.sub(r"\s+", " ", ended.err)
    assert desk.state.exists() == world


def test_a_file_that_is_no_world_stays(desk: Desk) -> None:
    desk.write("notes.json", "{}")
    for line in ("list", "add lose", "clear"):
        ended = desk.run("sandbox", "faults", *line.split(), "--state", "notes.json")
        assert (ended.code, "holds something else" in ended.err) == (64, True)
    assert (desk.folder / "notes.json").read_text() == "{}"


def test_a_served_sandbox_sees_them_at_the_next_request(desk: Desk) -> None:
    with serve(Sandbox(desk.state, time="seconds"), threads=2) as served, requests.Session() as session:
        session.trust_env = False

        def status() -> int:
            return session.get(f"{served.url}/v3/spaces", timeout=5).status_code

        before = status()
        desk.run("sandbox", "faults", "add", "cf-10015", "--times", "1")
        during, after = status(), status()
        desk.run("sandbox", "faults", "add", "cf-500")
        again = status()
        desk.run("sandbox", "faults", "clear")

        assert (before, during, after, again, status()) == (401, 503, 401, 500, 401)
    with Sandbox(desk.state).hold() as world:
        assert world.mode == "seconds"


def test_a_rehearsal_meets_them(desk: Desk) -> None:
    desk.run("sandbox", "faults", "add", "cf-429", "--method", "GET", "--every", "3", "--seconds", "1")

    ended = desk.run("apply", "specs/prod.yaml", "--sandbox", "--yes")

    assert ended.code == 0
    assert [rule["struck"] > 0 for rule in rules(desk)] == [True]
    assert desk.run("plan", "specs/prod.yaml", "--sandbox", "--detailed-exitcode").code == 0
