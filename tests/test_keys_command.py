"""`reconcile keys`, `rotate` and `apply --verify` as people start them, and what a rehearsal delivers."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import Ended, terminal

if TYPE_CHECKING:
    from tests.commands import Desk

DAY = 86400.0
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
GUID = "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10"
TRANSPORT, SIGNED = "key:prod/apim/transport", "key:prod/apim/signed"
LOCAL, VAULT = "delivery:prod/apim/transport/local", "delivery:prod/apim/transport/pipeline"
KEYS = """\
          transport:
            rotate_after: 20d
            keep_old_for: 5d
            deliver:
              local: {file: {path: apim.json}}
              pipeline: {vault: {path: secret/apim}}
          signed: {credential: {type: x509, validity: 14d}}
"""


def spec(keys: str = KEYS, more: str = "") -> str:
    return f"""\
version: 1
owner: team
name: prod
defaults: {{runtime: cloudfoundry}}
subaccounts:
  prod:
    id: {GUID}
    region: eu10
    cloud_foundry: {{org: finance-prod, space: apis}}
    instances:
      apim:
        api: api-management
        parameters: {{role: APIPortal.Administrator}}
{more}        keys:
{keys}"""


@pytest.fixture
def given(desk: Desk) -> Desk:
    """A desk at which the two keys were made and delivered."""
    desk.write("specs/prod.yaml", spec())
    ended = desk.run("apply", "--sandbox", "--yes")
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "Apply: 7 steps done.")
    return desk


def pass_days(desk: Desk, number: float) -> None:
    with desk.sandbox().hold() as world:
        world.advance(number * DAY)


def rows(desk: Desk, *more: str) -> list[dict[str, Any]]:
    ended = desk.run("keys", "--sandbox", "--format", "json", *more)
    assert (ended.code, ended.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(ended.out)["keys"]
    return found


def steps(ended: Ended) -> list[str]:
    """Steps of `--format json`, in the order in which they were planned."""
    outcomes = [one for report in json.loads(ended.out)["reports"] for one in report["outcomes"]]
    return [f"{one['verb']} {one['address']}#{one['generation']}" for one in outcomes]


def actions(ended: Ended) -> dict[str, str]:
    """What acts in a plan of `--format json`."""
    said = json.loads(ended.out)
    changes = said.get("plan", said)["changes"]
    return {one["address"]: one["action"] for one in changes if one["action"] != "keep"}


def spans(text: str) -> str:
    """Times are the sandbox's, which a test does not choose to the second."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "TIME", text)
    return re.sub(r"\b\d+ (day|hour|minute|second)s?\b", "SPAN", text)


# --- keys -----------------------------------------------------------------------------------------------


def test_keys_are_listed_with_all_that_is_known_of_them(given: Desk) -> None:
    ended = given.run("keys", "--sandbox")

    assert (ended.code, ended.err) == (0, "")
    assert (
        spans(ended.out)
        == f"""\
{TRANSPORT}
  transport  generation 1, current, secret, SPAN old, Cloud Foundry
      rotation is due in SPAN (TIME)
      {LOCAL}: file apim.json, TIME
      {VAULT}: vault secret/apim, TIME
      verified TIME: ok

{SIGNED}
  signed  generation 1, current, x509, SPAN old, Cloud Foundry
      certificate ends in SPAN (TIME)

2 keys.
"""
    )


def test_both_generations_are_listed_while_the_old_one_is_kept(given: Desk) -> None:
    assert given.run("rotate", TRANSPORT, "--sandbox", "--yes").code == 0

    ended = given.run("keys", "--sandbox", "--target", TRANSPORT)

    assert (
        spans(ended.out)
        == f"""\
{TRANSPORT}
  transport  generation 1, superseded, secret, SPAN old, Cloud Foundry
      kept until TIME
      {LOCAL}: file apim.json, TIME
      {VAULT}: vault secret/apim, TIME
      verified TIME: ok
  transport-2  generation 2, current, secret, SPAN old, Cloud Foundry
      rotation is due in SPAN (TIME)
      {LOCAL}: file apim.json, TIME
      {VAULT}: vault secret/apim, TIME
      verified TIME: ok

1 key.
"""
    )


def test_keys_as_json_say_the_same_and_have_a_format(given: Desk) -> None:
    ended = given.run("keys", "--sandbox", "--format", "json")
    data = json.loads(ended.out)
    transport, signed = data["keys"]

    assert (data["format"], data["version"]) == ("btp-reconcile/keys", 1)
    assert {name: type(value) for name, value in transport.items()} == {
        "address": str,
        "name": str,
        "generation": int,
        "runtime": str,
        "state": str,
        "type": str,
        "created_at": str,
        "delivered": list,
        "age_seconds": int,
        "rotation_due": str,
        "verified": dict,
    }
    assert [(one["to"], one["place"]) for one in transport["delivered"]] == [
        (LOCAL, "file apim.json"),
        (VAULT, "vault secret/apim"),
    ]
    assert (signed["type"], signed["delivered"], "rotation_due" in signed) == ("x509", [], False)
    assert 13 * DAY < signed["ends_in_seconds"] <= 14 * DAY


def test_keys_before_and_after_they_are_there(desk: Desk) -> None:
    desk.write("specs/prod.yaml", spec("          one: {}\n          gone: {ensure: absent}\n"))

    assert desk.run("keys", "--sandbox") == Ended(
        0, "key:prod/apim/one\n  missing\n\nkey:prod/apim/gone\n  absent\n\n2 keys.\n", ""
    )


def test_keys_without_any_key(desk: Desk) -> None:
    desk.write("specs/prod.yaml", spec("").replace("        keys:\n", ""))

    assert desk.run("keys", "--sandbox") == Ended(0, "0 keys.\n", "")


def test_keys_of_the_other_runtime_name_the_service_manager(desk: Desk) -> None:
    desk.write("specs/prod.yaml", spec("          one: {}\n").replace("cloudfoundry", "other"))
    assert desk.run("apply", "--sandbox", "--yes").code == 0

    assert [(one["runtime"], one["state"]) for one in rows(desk)] == [("other", "current")]
    assert ", Service Manager\n" in desk.run("keys", "--sandbox").out


def test_keys_ends_with_1_when_the_platform_cannot_be_asked(given: Desk) -> None:
    given.sandbox().faults.add({"match": {"path": "^/v3/service_credential_bindings"}, "do": "cf-500"})

    ended = given.run("keys", "--sandbox")

    assert ended.code == 1
    assert "Cloud Foundry could not be asked about prod" in ended.err
    assert "Traceback" not in ended.err


def test_a_misspelt_target_is_told(given: Desk) -> None:
    assert given.run("keys", "--sandbox", "--target", "key:prod/apim/tansport") == Ended(
        64,
        "",
        "Error: --target: there is no key:prod/apim/tansport; did you mean 'key:prod/apim/transport'?\n",
    )


def test_keys_fit_on_a_narrow_terminal_in_colour_and_are_plain_in_a_pipe(given: Desk) -> None:
    pass_days(given, 9)
    with terminal(given.folder, "keys", "--sandbox", columns=60) as narrow:
        assert narrow.end() == 0
    piped = given.process("keys", "--sandbox")
    lines = COLOUR.sub("", narrow.shown).replace("\r", "").splitlines()

    assert max(map(len, lines)) <= 60
    assert "\x1b[33m" in narrow.shown  # the certificate ends in less than a week
    assert "".join("".join(lines).split()) == "".join(piped.out.split())
    assert (piped.code, "\x1b" in piped.out, piped.err) == (0, False, "")


def test_keys_write_nothing_and_read_no_credentials(given: Desk) -> None:
    before = given.sandbox().snapshot()

    assert given.run("keys", "--sandbox").code == 0
    assert given.sandbox().snapshot() == before


# --- rotate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "say either --due, or the address of a key such as key:prod/apim/transport"),
        (f"--due {TRANSPORT}", "say either --due, or the address of a key such as key:prod/apim/transport"),
        ("instance:prod/apim", "instance:prod/apim is no key: an address of a key looks like "),
        (
            "delivery:prod/apim/transport/local",
            "delivery:prod/apim/transport/local is no key: an address of a key looks like ",
        ),
        (
            "key:prod/apim/tansport",
            "rotate: there is no key:prod/apim/tansport; did you mean 'key:prod/apim/transport'?",
        ),
        ("key:prod//x", "rotate: "),
        ("--due --at-most -1", "-1 is not in the range"),
        ("--due --timeout 5", "--timeout: '5' is no duration"),
    ],
)
def test_wrong_usage_of_rotate_ends_with_64_and_nothing_is_done(given: Desk, line: str, said: str) -> None:
    before = given.sandbox().snapshot()

    ended = given.run("rotate", *line.split(), "--sandbox", "--yes")

    assert (ended.code, ended.out) == (64, "")
    assert said in ended.err
    assert given.sandbox().snapshot() == before


def test_rotate_asks_or_wants_to_be_told(given: Desk) -> None:
    assert given.run("rotate", TRANSPORT, "--sandbox") == Ended(
        64, "", "Error: nobody can be asked here: say --yes, give a plan file, or set CI=true\n"
    )
    with terminal(given.folder, "rotate", TRANSPORT, "--sandbox") as asked:
        asked.until("Apply this?")
        asked.type("n\n")
        assert asked.end() == 5
    assert "nothing was done" in asked.shown
    assert [one["name"] for one in rows(given)] == ["transport", "signed"]


def test_a_named_key_is_made_anew_and_the_others_are_left(given: Desk) -> None:
    ended = given.run("rotate", TRANSPORT, "--sandbox", "--yes")

    assert ended.code == 0
    assert (
        ended.out
        == f"""\
Subaccount prod  eu10  {GUID}

  ⟳ {TRANSPORT} (generation 2)
      asked for by name
      named: transport-2
      note: the old one (transport) is kept until every consumer has the new one, and 5 days more
  ~ {LOCAL} (generation 2)
      generation 2 is not there yet
      generation: 1 → 2
  ~ {VAULT} (generation 2)
      generation 2 is not there yet
      generation: 1 → 2

Plan: 0 to add, 2 to change, 0 to destroy, 1 to rotate.
Apply: 5 steps done.
"""
    )
    assert [one["name"] for one in rows(given)] == ["transport", "transport-2", "signed"]
    assert given.run("plan", "--sandbox", "--detailed-exitcode").code == 0


def test_rotate_fits_on_a_narrow_terminal(given: Desk) -> None:
    with terminal(given.folder, "rotate", TRANSPORT, "--sandbox", columns=60) as asked:
        asked.until("Apply this?")
        asked.type("y\n")
        assert asked.end() == 0
    # The progress line is drawn over itself.
    lines = COLOUR.sub("", asked.shown).partition("Apply this?")[0].replace("\r", "").splitlines()

    assert max(map(len, lines)) <= 60
    assert [one["name"] for one in rows(given)] == ["transport", "transport-2", "signed"]


def test_rotate_as_json_has_the_plan_and_every_step(given: Desk) -> None:
    ended = given.run("rotate", TRANSPORT, "--sandbox", "--yes", "--format", "json")

    assert ended.code == 0
    assert actions(ended) == {TRANSPORT: "rotate", LOCAL: "update", VAULT: "update"}
    assert set(steps(ended)) == {
        f"create {TRANSPORT}#2",
        f"verify {TRANSPORT}#2",
        f"update {LOCAL}#2",
        f"update {VAULT}#2",
        f"date {TRANSPORT}#1",
    }


def test_when_nothing_is_due_that_is_all_that_is_said(given: Desk) -> None:
    assert given.run("rotate", "--due", "--sandbox", "--yes").out == "Nothing is due: 2 keys.\n"
    assert given.run("rotate", "--due", "--sandbox", "--yes").code == 0
    said = json.loads(given.run("rotate", "--due", "--sandbox", "--yes", "--format", "json").out)
    assert (said["plan"]["changes"], said["reports"]) == ([], [])


def test_what_rotate_leaves_to_apply_is_said_and_changes_no_exit_code(given: Desk) -> None:
    """A key that somebody deleted, and a delivery that is gone."""
    with given.sandbox().hold() as world:
        table = world.table("cf.service_credential_bindings")
        table.pop(next(guid for guid, row in table.items() if row["name"] == "signed"))
    one = given.run("rotate", "--due", "--sandbox", "--yes")
    inside = given.folder / "world.json.files" / str(given.folder)[1:] / "specs"
    (inside / "apim.json").unlink()
    two = given.run("rotate", "--due", "--sandbox", "--yes")
    asked = given.run("rotate", "--due", "--sandbox", "--yes", "--format", "json")

    assert (one.code, one.out.splitlines()) == (
        0,
        [
            "Nothing is due: 2 keys.",
            f"1 key is missing or not at a consumer ({SIGNED}): `reconcile apply` mends it",
        ],
    )
    said = f"2 keys are missing or not at a consumer ({TRANSPORT}, {SIGNED}): `reconcile apply` mends them"
    assert (two.code, two.out.splitlines()[1:]) == (0, [said])
    (warning,) = json.loads(asked.out)["plan"]["warnings"]
    assert (asked.code, warning) == (0, {"code": "plan/left-to-apply", "message": said})
    assert given.run("apply", "--sandbox", "--yes").code == 0
    assert given.run("rotate", "--due", "--sandbox", "--yes").out == "Nothing is due: 2 keys.\n"


def test_what_is_left_to_apply_is_said_beside_what_is_due_too(given: Desk) -> None:
    more = "          new: {}\n"
    given.write("specs/prod.yaml", spec(KEYS + more))
    pass_days(given, 20)

    ended = given.run("rotate", "--due", "--sandbox", "--yes")

    assert ended.code == 0
    assert "1 to rotate" in ended.out
    assert "1 key is missing or not at a consumer (key:prod/apim/new)" in ended.out


def test_who_names_a_key_is_told_of_that_one_only(given: Desk) -> None:
    given.write("specs/prod.yaml", spec(KEYS + "          new: {}\n"))

    assert "missing" not in given.run("rotate", TRANSPORT, "--sandbox", "--yes").out


def test_rotate_due_does_what_is_due_and_nothing_else(given: Desk) -> None:
    """An instance that differs, a delivery of another key that is gone, a key that is new: all are left alone."""
    more = "          other: {deliver: {main: {file: {path: other.json}}}}\n"
    given.write("specs/prod.yaml", spec(KEYS + more))
    assert given.run("apply", "--sandbox", "--yes").code == 0
    pass_days(given, 20)
    inside = given.folder / "world.json.files" / str(given.folder)[1:] / "specs"
    (inside / "other.json").unlink()
    given.write("specs/prod.yaml", spec(KEYS + more + "          new: {}\n", "        tags: [x]\n"))

    planned = given.run("plan", "--sandbox", "--format", "json")
    ended = given.run("rotate", "--due", "--sandbox", "--yes", "--format", "json")
    left = given.run("plan", "--sandbox", "--format", "json")

    rotation = {TRANSPORT: "rotate", LOCAL: "update", VAULT: "update"}
    rest = {
        "instance:prod/apim": "update",
        "key:prod/apim/new": "create",
        "delivery:prod/apim/other/main": "create",
    }
    assert actions(planned) == {**rotation, **rest}
    assert (ended.code, actions(ended)) == (0, rotation)
    assert actions(left) == rest


def test_rotate_due_deletes_the_old_key_when_its_time_is_over(given: Desk) -> None:
    pass_days(given, 20)
    assert given.run("rotate", "--due", "--sandbox", "--yes").code == 0
    pass_days(given, 4.9)
    assert given.run("rotate", "--due", "--sandbox", "--yes").code == 0
    assert [one["name"] for one in rows(given, "--target", TRANSPORT)] == ["transport", "transport-2"]

    pass_days(given, 0.2)
    ended = given.run("rotate", "--due", "--sandbox", "--yes")

    assert (ended.code, ended.out.splitlines()[2:5]) == (
        0,
        [f"  ↓ {TRANSPORT}", "      superseded by transport-2", "      deletes transport"],
    )
    assert [one["name"] for one in rows(given, "--target", TRANSPORT)] == ["transport-2"]


def test_what_the_cap_leaves_to_a_later_run_is_said_and_not_called_nothing(given: Desk) -> None:
    pass_days(given, 20)

    ended = given.run("rotate", "--due", "--at-most", "0", "--sandbox", "--yes")

    assert ended.code == 0
    assert "note: due for rotation; left to a later run (at most 0 in one, see --at-most)" in ended.out
    assert "Nothing is due" not in ended.out


def test_a_key_that_is_not_there_cannot_be_made_anew(desk: Desk) -> None:
    desk.write("specs/prod.yaml", spec())

    ended = desk.run("rotate", TRANSPORT, "--sandbox", "--yes")

    assert ended.code == 4
    assert f"{TRANSPORT} cannot be made anew: it is not there yet" in ended.out
    assert "`reconcile apply` makes it  [plan/nothing-to-rotate]" in ended.out
    assert ended.err == "refused: nothing was done\n"


def test_a_key_that_cannot_be_seen_is_not_said_to_be_missing(given: Desk) -> None:
    given.sandbox().faults.add({"match": {"path": "^/v3/service_credential_bindings"}, "do": "cf-500"})

    ended = given.run("rotate", TRANSPORT, "--sandbox", "--yes")

    assert ended.code == 1
    assert "Cloud Foundry could not be asked about prod" in ended.out
    assert "nothing-to-rotate" not in ended.out


# --- saved plans ----------------------------------------------------------------------------------------


def test_a_saved_plan_with_a_rotation_does_it_later_as_it_was_shown(given: Desk) -> None:
    pass_days(given, 20)
    assert given.run("plan", "--sandbox", "--at-most", "1", "--out", "plan.json").code == 0
    promise = json.loads(Path("plan.json").read_text(encoding="utf-8"))["promise"]
    pass_days(given, 3)

    ended = given.run("apply", "plan.json", "--sandbox")

    assert promise["at_most"] == 1
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "Apply: 5 steps done.")
    assert "it is 20 days old" in ended.out  # the time is the plan's
    assert [one["name"] for one in rows(given, "--target", TRANSPORT)] == ["transport", "transport-2"]


def test_a_saved_plan_keeps_its_cap(given: Desk) -> None:
    pass_days(given, 20)
    assert given.run("plan", "--sandbox", "--at-most", "0", "--out", "plan.json").code == 0

    ended = given.run("apply", "plan.json", "--sandbox")
    other = given.run("apply", "plan.json", "--sandbox", "--at-most", "5")

    assert (ended.code, [one["name"] for one in rows(given, "--target", TRANSPORT)]) == (0, ["transport"])
    assert (other.code, "--at-most" in other.err) == (64, True)


def test_a_saved_plan_is_refused_when_the_receipts_have_changed_since(given: Desk) -> None:
    pass_days(given, 20)
    assert given.run("plan", "--sandbox", "--out", "plan.json").code == 0
    assert given.run("rotate", "--due", "--sandbox", "--yes").code == 0

    ended = given.run("apply", "plan.json", "--sandbox")

    assert (ended.code, ended.out) == (4, "")
    assert f"plan.json is not what would be done now; different: {TRANSPORT} (rotate, now " in ended.err
    assert "[plan/stale]" in ended.err


def test_a_saved_delivery_is_refused_when_the_consumer_has_changed_since(given: Desk) -> None:
    delivered = given.folder / "world.json.files" / str(given.folder)[1:] / "specs/apim.json"
    delivered.write_text("{}", encoding="utf-8")
    assert given.run("plan", "--sandbox", "--out", "plan.json").code == 0
    delivered.unlink()

    ended = given.run("apply", "plan.json", "--sandbox")

    assert (ended.code, ended.out) == (4, "")
    assert f"different: {LOCAL} (update, now create)" in ended.err


# --- apply --verify -------------------------------------------------------------------------------------


def test_apply_with_verify_tries_every_key_afterwards_and_notes_it(desk: Desk) -> None:
    desk.write("specs/prod.yaml", spec())

    ended = desk.run("apply", "--sandbox", "--yes", "--verify")

    assert ended.code == 0
    assert ended.out.splitlines()[-4:] == [
        "Apply: 7 steps done.",
        f"  ok            {TRANSPORT}: by secret, token for 12 hours, 200 in 0.0 s",
        f"  ok            {SIGNED}: by certificate, token for 12 hours, 200 in 0.0 s",
        "Verify: 2 ok.",
    ]
    assert [one["verified"]["verdict"] for one in rows(desk)] == ["ok", "ok"]


def test_apply_with_verify_as_json_adds_the_verdicts(given: Desk) -> None:
    ended = given.run("apply", "--sandbox", "--yes", "--verify", "--format", "json")
    said = json.loads(ended.out)

    assert (ended.code, sorted(said)) == (0, ["plan", "reports", "verify"])
    assert {one["address"]: one["verdict"] for one in said["verify"]["keys"]} == {
        TRANSPORT: "ok",
        SIGNED: "ok",
    }
    assert "verify" not in json.loads(given.run("apply", "--sandbox", "--yes", "--format", "json").out)


def test_apply_with_verify_ends_as_the_worse_of_the_two(given: Desk) -> None:
    breaks = ("sandbox", "faults", "add", "status", "--host", "*")
    given.run(*breaks, "--status", "403", "--path", "Management.svc/APIProxies")
    forbidden = given.run("apply", "--sandbox", "--yes", "--verify")
    given.run(*breaks, "--status", "401", "--path", "/oauth/token$", "--body", "sb-apiaccess")
    refused = given.run("apply", "--sandbox", "--yes", "--verify")

    assert (forbidden.code, f"  forbidden     {TRANSPORT}" in forbidden.out) == (6, True)
    assert (refused.code, f"  token-refused {TRANSPORT}" in refused.out) == (1, True)
    assert [one["verified"]["verdict"] for one in rows(given)] == ["token-refused", "token-refused"]


def test_with_verify_only_what_was_targeted_is_tried(given: Desk) -> None:
    ended = given.run("apply", "--sandbox", "--yes", "--verify", "--target", SIGNED, "--format", "json")

    assert [one["address"] for one in json.loads(ended.out)["verify"]["keys"]] == [SIGNED]


def test_a_plan_that_is_refused_tries_nothing(given: Desk) -> None:
    given.write(
        "specs/prod.yaml",
        spec(
            KEYS.replace("secret/apim}", "secret/moved}")
            + "          x: {deliver: {main: {vault: {path: secret/apim}}}}\n"
        ),
    )

    ended = given.run("apply", "--sandbox", "--yes", "--verify")

    assert (ended.code, ended.err) == (4, "refused: nothing was done\n")
    assert "conflict/exists" in ended.out
    assert "Verify" not in ended.out


def test_verify_false_gives_a_key_away_untried(desk: Desk) -> None:
    desk.write(
        "specs/prod.yaml", spec(KEYS.replace("transport:\n", "transport:\n            verify: false\n"))
    )

    ended = desk.run("apply", "--sandbox", "--yes", "--format", "json")

    assert (ended.code, [one for one in steps(ended) if one.startswith("verify")]) == (0, [])
    assert [one["state"] for one in rows(desk) if "verified" not in one] == ["current", "current"]
    assert len(rows(desk)[0]["delivered"]) == 2


# --- rehearsals -----------------------------------------------------------------------------------------


def test_a_rehearsal_delivers_nothing_outside_the_sandboxs_own_folder(given: Desk) -> None:
    outside = {
        str(one.relative_to(given.folder))
        for one in given.folder.rglob("*")
        if one.is_file() and "world.json.files" not in one.parts
    }
    scratch = given.folder / "world.json.files" / str(given.folder)[1:] / "specs/apim.json"
    recorded = (given.folder / "world.json.delivered").read_text(encoding="utf-8")
    secret = json.loads(scratch.read_text(encoding="utf-8"))["clientSecret"]

    assert outside <= {"specs/prod.yaml", "world.json", "world.json.lock", "world.json.delivered"}
    assert [one.rpartition(" ")[2] for one in json.loads(recorded)] == ["secret/apim"]
    assert secret not in recorded
    for name in ("world.json.delivered", "world.json"):
        assert stat.S_IMODE((given.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((given.folder / "world.json.files").stat().st_mode) == 0o700


def test_the_second_plan_of_a_rehearsal_is_empty(given: Desk) -> None:
    assert given.run("plan", "--sandbox", "--detailed-exitcode") == Ended(0, "No changes: 6 in sync.\n", "")


def test_a_path_that_climbs_stays_below_the_sandboxs_folder(desk: Desk) -> None:
    desk.write(
        "specs/prod.yaml",
        spec("          one: {deliver: {main: {file: {path: ../../../../../../../../climbed/apim.json}}}}\n"),
    )

    assert desk.run("apply", "--sandbox", "--yes").code == 0
    found = list(desk.folder.rglob("apim.json"))
    assert [one.parent.name for one in found] == ["climbed"]
    assert all("world.json.files" in one.parts for one in found)
    assert not Path("/climbed").exists()


def test_a_sink_that_is_named_is_really_delivered_to(desk: Desk) -> None:
    desk.write("specs/prod.yaml", spec())

    ended = desk.run("apply", "--sandbox", "--yes", "--sandbox-deliver", "file")

    assert ended.code == 0
    assert json.loads((desk.folder / "specs/apim.json").read_text(encoding="utf-8"))["clientSecret"]
    assert not (desk.folder / "world.json.files").exists()
    assert desk.run("plan", "--sandbox", "--sandbox-deliver", "file").out == "No changes: 6 in sync.\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "plan --sandbox --sandbox-deliver valut",
            "Error: --sandbox-deliver: there is no sink valut; did you mean 'vault'?\n",
        ),
        (
            "apply --yes --sandbox --sandbox-deliver file --sandbox-deliver mainframe",
            (
                "Error: --sandbox-deliver: there is no sink mainframe; there are command, file, github, gitlab, "
                "kubernetes, vault\n"
            ),
        ),
        (
            "drift --sandbox-deliver file",
            "Error: --sandbox-deliver belongs to a rehearsal: add --sandbox, or leave it out\n",
        ),
    ],
)
def test_a_sink_that_is_none_is_told(desk: Desk, line: str, said: str) -> None:
    assert desk.run(*line.split()) == Ended(64, "", said)


def test_a_command_that_is_really_delivered_to_must_be_allowed(desk: Desk) -> None:
    keys = "          one: {deliver: {main: {command: {run: [/bin/sh, -c, cat > got.json]}}}}\n"
    desk.write("specs/prod.yaml", spec(keys))

    rehearsed = desk.run("apply", "--sandbox", "--yes")
    assert (rehearsed.code, Path("got.json").exists()) == (0, False)
    desk.run("sandbox", "reset")
    refused = desk.run("apply", "--sandbox", "--yes", "--sandbox-deliver", "command")
    assert (refused.code, Path("got.json").exists()) == (1, False)
    assert "is not run: allow it with --allow-commands" in refused.out
    done = desk.run("apply", "--sandbox", "--yes", "--sandbox-deliver", "command", "--allow-commands")
    assert done.code == 0
    assert json.loads(Path("got.json").read_text(encoding="utf-8"))["credentials"]["clientSecret"]


def test_reset_forgets_what_was_delivered_too(given: Desk) -> None:
    Path("world.json.files.mine").write_text("mine", encoding="utf-8")

    ended = given.run("sandbox", "reset")

    assert ended == Ended(0, f"{given.state}: forgotten\n", "")
    assert sorted(one.name for one in given.folder.iterdir() if one.suffix != ".lock") == [
        "specs",
        "world.json.files.mine",
    ]
    assert given.run("apply", "--sandbox", "--yes").code == 0


def test_reset_follows_no_link_out_of_the_sandbox(given: Desk) -> None:
    kept = given.folder / "kept"
    (given.folder / "world.json.files").rename(kept)
    (given.folder / "world.json.files").symlink_to(kept)

    assert given.run("sandbox", "reset").code == 0
    assert any(kept.rglob("apim.json"))


def test_a_damaged_record_of_deliveries_is_told_in_words(given: Desk) -> None:
    (given.folder / "world.json.delivered").write_text("{", encoding="utf-8")

    ended = given.run("plan", "--sandbox")

    assert ended.code == 1
    assert "world.json.delivered cannot be read: it is no JSON; `reconcile sandbox reset` starts anew" in (
        ended.out + ended.err
    )
    assert "Traceback" not in ended.err


def test_two_subaccounts_may_have_the_same_path_in_a_vault_of_each(desk: Desk) -> None:
    keys = "          one: {deliver: {main: {vault: {path: secret/apim}}}}\n"
    access = '    access: {vault: {address: "https://vault.example.com", token: "${env:TOKEN}"}}\n'
    first = spec(keys).replace("    instances:\n", f"{access}    instances:\n")
    second = first.replace("name: prod\n", "name: test\n").replace("  prod:\n", "  test:\n")
    desk.write("specs/prod.yaml", first)
    desk.write(
        "specs/test.yaml",
        second.replace(GUID, f"6{GUID[1:]}")
        .replace("finance-prod", "finance-test")
        .replace("vault.ex", "other.ex"),
    )

    assert desk.run("apply", "--sandbox", "--yes").code == 0
    assert desk.run("plan", "--sandbox", "--detailed-exitcode").code == 0


def test_no_secret_is_shown_anywhere(given: Desk) -> None:
    scratch = given.folder / "world.json.files" / str(given.folder)[1:] / "specs/apim.json"
    secret = json.loads(scratch.read_text(encoding="utf-8"))["clientSecret"]
    pass_days(given, 20)

    said = [
        given.run("plan", "--sandbox", "--out", "plan.json"),
        given.run("keys", "--sandbox", "--format", "json"),
        given.run("rotate", "--due", "--sandbox", "--yes", "--log-format", "json"),
        given.run("apply", "--sandbox", "--yes", "--verify", "--format", "json"),
    ]
    new = json.loads(scratch.read_text(encoding="utf-8"))["clientSecret"]
    shown = "".join(one.out + one.err for one in said) + Path("plan.json").read_text(encoding="utf-8")

    assert secret != new
    assert [one for one in (secret, new) if one in shown] == []
