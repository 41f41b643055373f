"""`reconcile verify` as people start it, against the embedded sandbox."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import terminal
from tests.worlds import ROOT

if TYPE_CHECKING:
    from tests.commands import Desk, Ended

VERIFY = ("verify", "--sandbox")
DAY = 86400
KEYS = (
    "key:prod/afc-api/task-center",
    "key:prod/afc-api/identity-provisioning",
    "key:prod/apim/transport",
    "key:prod/apim/pipeline",
)
TOKENS = r"/oauth/token"
PROXIES = "Management.svc/APIProxies"


def verdicts(ended: Ended) -> dict[str, str]:
    return {one["address"]: one["verdict"] for one in json.loads(ended.out)["keys"]}


def all_are(verdict: str) -> dict[str, str]:
    return dict.fromkeys(KEYS, verdict)


def breaks(desk: Desk, fault: str, *options: str) -> None:
    assert desk.run("sandbox", "faults", "add", fault, *options).code == 0


def test_every_key_of_the_example_works(in_sync: Desk) -> None:
    ended = in_sync.run(*VERIFY)

    assert (ended.code, ended.out) == (
        0,
        """\
  ok            key:prod/afc-api/task-center: by secret, token for 12 hours, 200 in 0.0 s
  ok            key:prod/afc-api/identity-provisioning: by secret, token for 12 hours, 200 in 0.0 s
  ok            key:prod/apim/transport: by secret, token for 12 hours, 200 in 0.0 s
  ok            key:prod/apim/pipeline: by certificate, token for 12 hours, 200 in 0.0 s
Verify: 4 ok.
""",
    )


def test_json_has_an_object_per_key(in_sync: Desk) -> None:
    ended = in_sync.run(*VERIFY, "--format", "json")
    pipeline = json.loads(ended.out)["keys"][3]

    assert ended.code == 0
    assert verdicts(ended) == all_are("ok")
    assert {name: type(value) for name, value in pipeline.items()} == {
        "address": str,
        "generation": int,
        "verdict": str,
        "requests": int,
        "seconds": float,
        "type": str,
        "client_id": str,
        "token_seconds": int,
        "status": int,
        "not_after": str,
        "scopes": str,
        "rights": list,
    }
    assert (pipeline["type"], pipeline["requests"], pipeline["rights"]) == (
        "x509",
        2,
        ["APIPortal.Administrator"],
    )


def test_progress_goes_to_stderr_one_event_per_key(in_sync: Desk) -> None:
    ended = in_sync.run(*VERIFY, "--log-format", "json")
    events = [json.loads(line) for line in ended.err.splitlines()]

    assert sorted(one["address"] for one in events if one["status"] == "done") == sorted(KEYS)
    assert {(one["verb"], one.get("verdict")) for one in events if one["status"] == "done"} == {
        ("verify", "ok")
    }


def test_lines_are_broken_between_words_on_a_narrow_terminal(in_sync: Desk) -> None:
    breaks(in_sync, "status", "--status", "404", "--host", "*", "--path", PROXIES)
    with terminal(
        in_sync.folder, *VERIFY, columns=60, stderr=subprocess.PIPE, env={"NO_COLOR": "1"}
    ) as shell:
        code = shell.end()
    shown = shell.shown.replace("\r", "").splitlines()

    assert code == 6
    assert shown[:2] == [
        "  ok            key:prod/afc-api/task-center: by secret,",
        "    token for 12 hours, 200 in 0.0 s",
    ]
    assert shown[4:6] == [
        "  forbidden     key:prod/apim/transport: the API is not",
        "    there (Not Found, with an empty answer): capability not",
    ]
    assert [one for one in shown if len(one) > 60 and " " in one.strip()] == []


def test_nothing_is_written(in_sync: Desk) -> None:
    in_sync.run(*VERIFY)
    sandbox = in_sync.sandbox()

    assert in_sync.run("plan", "--sandbox", "--detailed-exitcode").code == 0
    assert not [one for one in sandbox.requests if one[0] in {"PUT", "PATCH", "DELETE"}]


# --- which keys -----------------------------------------------------------------------------------------


def test_keys_that_are_not_there_yet_are_waited_for(desk: Desk) -> None:
    ended = desk.run(*VERIFY)

    assert ended.code == 5
    assert "  skipped       key:prod/apim/transport: not there yet" in ended.out
    assert ended.out.endswith("Verify: 4 skipped.\n")


@pytest.mark.parametrize(
    ("target", "tried"),
    [
        ("key:prod/apim/transport", KEYS[2:3]),
        ("instance:prod/afc-api", KEYS[:2]),
        ("subaccount:prod", KEYS),
    ],
)
def test_a_target_chooses(in_sync: Desk, target: str, tried: tuple[str, ...]) -> None:
    assert list(verdicts(in_sync.run(*VERIFY, "--format", "json", "--target", target))) == list(tried)


def test_a_target_that_is_misspelt_is_told_so(in_sync: Desk) -> None:
    ended = in_sync.run(*VERIFY, "--target", "key:prod/apim/tranport")

    assert ended.code == 64
    assert "did you mean 'key:prod/apim/transport'?" in ended.err


def test_keys_of_both_runtimes_are_read(desk: Desk) -> None:
    spec = (ROOT / "specs/prod.yaml").read_text(encoding="utf-8")
    spec = spec.replace("runtime: cloudfoundry", "runtime: other", 1)
    spec = spec.replace(
        "  cloud_foundry: {username",
        "  service_manager: {service_key: '${env:SM}'}\n  cloud_foundry: {username",
    )
    desk.write("specs/prod.yaml", spec)

    assert desk.run("apply", "--sandbox", "--yes").code == 0
    assert verdicts(desk.run(*VERIFY, "--format", "json")) == all_are("ok")


# --- what goes wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "options", "verdict", "code"),
    [
        ("status", ("--status", "403", "--host", "*", "--path", PROXIES), "forbidden", 6),
        ("status", ("--status", "404", "--host", "*", "--path", PROXIES), "forbidden", 6),
        ("status", ("--status", "401", "--host", "*", "--path", PROXIES), "token-refused", 1),
        ("status", ("--status", "500", "--host", "*", "--path", PROXIES), "unreachable", 1),
        ("refuse", ("--host", "*", "--path", PROXIES), "unreachable", 1),
        ("redirect", ("--host", "*", "--path", PROXIES), "unreachable", 1),
    ],
)
def test_an_api_that_does_not_answer_as_it_should(
    in_sync: Desk, fault: str, options: tuple[str, ...], verdict: str, code: int
) -> None:
    breaks(in_sync, fault, *options)
    ended = in_sync.run(*VERIFY, "--format", "json")

    assert ended.code == code
    assert verdicts(ended) == {**all_are("ok"), KEYS[2]: verdict, KEYS[3]: verdict}


def test_trouble_that_passes_is_repeated_once(in_sync: Desk) -> None:
    breaks(in_sync, "503", "--host", "*", "--path", PROXIES, "--times", "1")
    ended = in_sync.run(*VERIFY, "--format", "json")
    found = json.loads(ended.out)["keys"]

    assert verdicts(ended) == all_are("ok")
    assert sorted(one["requests"] for one in found) == [2, 2, 2, 3]


@pytest.mark.parametrize(
    ("status", "verdict", "code"),
    [("403", "forbidden", 6), ("404", "unreachable", 1), ("500", "unreachable", 1)],
)
def test_credentials_that_cannot_be_read(in_sync: Desk, status: str, verdict: str, code: int) -> None:
    breaks(in_sync, "status", "--status", status, "--host", "*", "--path", "/details")
    ended = in_sync.run(*VERIFY, "--format", "json")

    assert ended.code == code
    assert verdicts(ended) == all_are(verdict)
    assert all("could not be read" in one["detail"] for one in json.loads(ended.out)["keys"])


def test_what_cannot_be_looked_at_is_a_failure(in_sync: Desk) -> None:
    breaks(in_sync, "status", "--status", "500", "--host", "*", "--path", "/v3/service_instances")
    ended = in_sync.run(*VERIFY)

    assert ended.code == 1
    assert "could not be asked" in ended.out


@pytest.mark.parametrize(
    ("days", "verdict", "code"), [(22, "ok", 0), (24, "expires-soon", 0), (31, "token-refused", 1)]
)
def test_a_certificate_is_watched(in_sync: Desk, days: int, verdict: str, code: int) -> None:
    with in_sync.sandbox().hold() as world:
        world.advance(days * DAY)
    ended = in_sync.run(*VERIFY, "--format", "json")

    assert ended.code == code
    assert verdicts(ended) == {**all_are("ok"), KEYS[3]: verdict}


def test_an_invalid_spec_is_told_as_everywhere(desk: Desk) -> None:
    desk.write("specs/prod.yaml", "version: 1\n")

    assert desk.run(*VERIFY).code == 3


def test_the_help_says_how_it_ends(desk: Desk) -> None:
    said = desk.run("verify", "--help").out

    assert "6  forbidden: it signs in, and may not do what its role is for" in said
    assert "--target ADDRESS" in said


def test_what_the_platform_repeats_is_not_shown(in_sync: Desk) -> None:
    """The credentials themselves are nowhere in the output, whatever the verdict."""
    options: tuple[Any, ...] = ("--status", "403", "--host", "*", "--path", PROXIES)
    breaks(
        in_sync,
        "status",
        *options,
        "--answer",
        '{"error":"x","error_description":"Bearer eyJhbGciOi.abc.def"}',
    )
    for form in ("text", "json"):
        ended = in_sync.run(*VERIFY, "--format", form)

        assert ended.code == 6
        assert "eyJ" not in ended.out + ended.err
        assert "PRIVATE" not in ended.out + ended.err
