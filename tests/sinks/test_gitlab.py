"""GitLab cannot run here. These tests speak to a server that was written from its API pages and models, and is strict about them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from btp_reconcile.core.digest import salted
from btp_reconcile.core.errors import (
    Blame,
    HostRefused,
    LostResponse,
    PlatformError,
    SignInRefused,
    SpecError,
    Unreachable,
)
from btp_reconcile.core.model import Problem, Secret
from btp_reconcile.core.sink import Held
from btp_reconcile.sinks.gitlab import GitLab
from tests.sinks.parcels import KEY, NATIVE, NESTED, NEXT, OURS, SECRET, X509, around, parcel
from tests.sinks.servers.gitlab import TOKEN, GitLabServer
from tests.sinks.servers.web import Says

BLOCK = {"project": "finance/closing", "variable": "APIM"}
GROUP = {"group": "finance", "variable": "APIM"}
PROJECT = "/api/v4/projects/finance%2Fclosing"
COMPACT = json.dumps(NATIVE, separators=(",", ":"))
FIRST = Held(digest=salted(KEY, COMPACT.encode()), identity=OURS)
DESCRIPTION = f"btp-reconcile: delivery:prod/apim/transport/main, generation 1 of key {KEY}, owner finance-platform, spec prod"


@pytest.fixture
def server():
    with GitLabServer() as running:
        yield running


@pytest.fixture
def consumer(server):
    opened = GitLab().open({"token": Secret("token", TOKEN), "url": server.url}, around())
    yield opened
    opened.close()


def blame(consumer, block=BLOCK, given=None) -> Blame:
    with pytest.raises(PlatformError) as caught:
        consumer.put(block, given or parcel(), None)
    return caught.value.blame


def test_a_variable_that_is_not_there_is_told_from_a_project_that_is_not_there(server, consumer) -> None:
    assert consumer.look(BLOCK) is None
    assert server.asked == [f"GET {PROJECT}/variables/APIM", f"GET {PROJECT}"]

    with pytest.raises(PlatformError) as caught:
        consumer.look({**BLOCK, "project": "finance/elsewhere"})

    assert caught.value.blame == Blame(
        "gitlab",
        "GET",
        f"{server.url}/api/v4/projects/finance%2Felsewhere",
        404,
        message="the project 'finance/elsewhere' is not there for this token: check the name, and that the token may see it",
    )


@pytest.mark.parametrize("block", [BLOCK, GROUP])
def test_the_credentials_arrive_as_json_and_a_look_sees_the_same(server, consumer, block) -> None:
    held = consumer.put(block, parcel(), None)

    assert held == FIRST
    assert consumer.look(block) == held
    assert server.only() == {
        "key": "APIM",
        "value": COMPACT,
        "description": DESCRIPTION,
        "variable_type": "env_var",
        "environment_scope": "*",
        "masked": True,
        "protected": True,
        "raw": True,
    }


def test_delivering_again_changes_nothing_and_the_next_generation_all(server, consumer) -> None:
    first = consumer.put(BLOCK, parcel(), None)

    assert consumer.put(BLOCK, parcel(), first) == first
    following = consumer.put(BLOCK, parcel({**NATIVE, "clientSecret": "the-next-secret"}, NEXT), first)

    value = server.only()["value"]
    assert json.loads(value)["clientSecret"] == "the-next-secret"
    assert following == Held(digest=salted(NEXT.key, value.encode()), identity=NEXT)
    assert consumer.look(BLOCK) == following


def test_a_change_by_others_shows_in_the_digest_and_not_as_text(server, consumer) -> None:
    consumer.put(BLOCK, parcel(), None)
    server.only()["value"] = "somebody-elses"

    held = consumer.look(BLOCK)

    assert held == Held(digest=salted(KEY, b"somebody-elses"), identity=OURS)
    assert "somebody" not in repr(held)


def test_one_variable_has_a_value_for_each_scope(server, consumer) -> None:
    scoped = {**BLOCK, "environment_scope": "review/*"}
    consumer.put(BLOCK, parcel(), None)
    assert consumer.look(scoped) is None
    consumer.put(scoped, parcel(NESTED), None)
    consumer.put(scoped, parcel(NESTED), consumer.look(scoped))

    values = {where[3]: json.loads(one["value"]) for where, one in server.variables.items()}
    assert values == {"*": NATIVE, "review/*": NESTED}
    assert GitLab().place(scoped) == "finance/closing APIM (review/*)"
    assert GitLab().place(GROUP) == "finance APIM"


def test_switches_that_are_not_as_the_spec_says_are_wrong_and_mended(server, consumer) -> None:
    consumer.put({**BLOCK, "file": True}, parcel(), None)
    server.only().update(masked=False, protected=False, raw=False)

    held = consumer.look(BLOCK)
    assert held == replace(FIRST, wrong="it is not masked; it is not protected; it is not raw; it is a file")
    assert consumer.put(BLOCK, parcel(), held) == FIRST

    assert consumer.look({**BLOCK, "masked": False, "file": True}) == replace(
        FIRST, wrong="it is masked; it is no file"
    )


def test_a_variable_of_somebody_elses_is_foreign_until_it_is_overwritten(server, consumer) -> None:
    made = {
        "value": "something",
        "description": None,
        "variable_type": "env_var",
        "masked": True,
        "protected": True,
    }
    server.variables["projects", "finance/closing", "APIM", "*"] = {**made, "raw": True}

    held = consumer.look(BLOCK)
    assert held == Held(foreign="its description does not say that reconcile made it")
    assert consumer.put(BLOCK, parcel(), held) == FIRST


def test_a_hidden_value_is_not_taken_for_a_changed_one(server, consumer) -> None:
    consumer.put(BLOCK, parcel(), None)
    server.only()["hidden"] = True

    assert consumer.look(BLOCK) == Held(identity=OURS)


def test_what_came_or_changed_since_the_look_is_not_overwritten(server, consumer) -> None:
    other = replace(OURS, owner="another")
    first = consumer.put(BLOCK, parcel(identity=other), None)
    with pytest.raises(PlatformError) as caught:
        consumer.put(BLOCK, parcel(), None)
    assert caught.value.blame == Blame(
        "gitlab",
        message="finance/closing APIM came into being since it was looked at; it is not overwritten: plan again",
    )
    server.only()["value"] = "changed-meanwhile"
    with pytest.raises(PlatformError, match="was changed by others since it was looked at"):
        consumer.put(BLOCK, parcel(), first)

    assert server.only()["value"] == "changed-meanwhile"


# --- values that GitLab does not take -------------------------------------------------------------------


def test_certificates_cannot_be_masked_as_they_are_and_can_in_base64(server, consumer) -> None:
    assert blame(consumer, given=parcel(X509)) == Blame(
        "gitlab",
        message="finance/closing APIM: GitLab cannot mask the value: it is too short, or holds blanks, line breaks. "
        "Write encode: base64, or masked: false",
    )
    assert server.seen == []

    consumer.put({**BLOCK, "encode": "base64"}, parcel(X509), None)

    assert json.loads(base64.b64decode(server.only()["value"])) == X509
    assert server.only()["masked"] is True


def test_certificates_go_unmasked_when_the_spec_says_so(server, consumer) -> None:
    consumer.put({**BLOCK, "masked": False, "file": True}, parcel(X509), None)

    assert json.loads(server.only()["value"]) == X509
    assert server.only()["variable_type"] == "file"


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (
            {"field": "client_secret", "raw": False},
            "the value holds a $, which GitLab would expand: leave raw as it is, true",
        ),
        ({"field": "clientId", "raw": False}, "or special characters"),
        ({"field": "short"}, "GitLab cannot mask the value: it is too short"),
        ({"field": "long"}, "the value has 10,001 characters, and GitLab takes 10,000: deliver one field"),
        ({"field": "nothing"}, "the credentials hold no field 'nothing'"),
    ],
)
def test_a_value_that_gitlab_would_refuse_or_spoil_is_not_sent(server, consumer, block, words) -> None:
    given = parcel({**NATIVE, "short": "seven77", "long": "x" * 10_001})

    assert words in blame(consumer, {**BLOCK, **block}, given).message
    assert server.seen == []


def test_one_field_may_be_all_there_is(server, consumer) -> None:
    consumer.put({**BLOCK, "field": "client_secret"}, parcel(), None)

    assert server.only()["value"] == SECRET


def test_an_older_server_that_cannot_mask_json_is_answered_with_what_to_write(server, consumer) -> None:
    server.masks_raw = False

    assert blame(consumer) == Blame(
        "gitlab",
        "POST",
        f"{server.url}{PROJECT}/variables",
        400,
        message="GitLab does not take the variable: value is invalid; older versions mask the Base64 alphabet alone: "
        "write encode: base64, or masked: false",
    )


def test_a_server_that_keeps_no_description_is_not_taken_for_one_that_does(server, consumer) -> None:
    server.describes = False

    assert blame(consumer).message == (
        "GitLab did not keep the description that says whose the variable is; it does so since 16.2"
    )


def test_names_that_are_too_long_for_a_description_are_said(server, consumer) -> None:
    long = replace(OURS, delivery="delivery:" + "/".join(["x" * 63] * 4))

    assert blame(consumer, given=parcel(identity=long)).message == (
        "the names are too long to be written beside the variable: GitLab takes 255 characters"
    )
    assert server.seen == []


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"variable": "APIM"}, "either project or group is needed, and not both"),
        ({**BLOCK, "group": "finance"}, "either project or group is needed, and not both"),
        ({**BLOCK, "variable": "API-M"}, "variable is not a name that GitLab takes"),
        ({**BLOCK, "variable": "../../x"}, "variable is not a name that GitLab takes"),
        ({**BLOCK, "environment_scope": ""}, "environment_scope is empty"),
    ],
)
def test_a_block_that_cannot_be_is_said_before_anything_is_sent(server, consumer, block, words) -> None:
    with pytest.raises(PlatformError, match=words):
        consumer.look(block)
    assert words in blame(consumer, block).message
    assert server.seen == []


# --- access and faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "/", "/api/v4"])
def test_the_address_may_be_the_servers_or_the_apis(server, ending) -> None:
    consumer = GitLab().open({"url": server.url + ending}, around({"GITLAB_TOKEN": TOKEN}))

    assert consumer.look(BLOCK) is None
    consumer.close()


def test_in_a_pipeline_the_address_is_known(server) -> None:
    world = around({"GITLAB_TOKEN": TOKEN, "CI_API_V4_URL": f"{server.url}/api/v4"})
    consumer = GitLab().open({}, world)

    assert consumer.look(GROUP) is None
    consumer.close()


def test_without_a_token_it_says_what_to_set() -> None:
    with pytest.raises(SpecError) as caught:
        GitLab().open({}, around({"CI_JOB_TOKEN": "of no use here"}))

    assert caught.value.problems == (
        Problem(
            "access/none",
            "nothing to sign in at GitLab with",
            hint="write access.gitlab.token, or set GITLAB_TOKEN",
        ),
    )


def test_the_token_goes_to_no_host_that_is_not_allowed() -> None:
    consumer = GitLab().open({"token": TOKEN}, around())
    with pytest.raises(HostRefused, match=r"no credential is sent to https://gitlab\.com/api/v4"):
        consumer.look(BLOCK)
    consumer.close()


def test_a_token_that_is_not_accepted_is_final(server) -> None:
    consumer = GitLab().open({"token": "wrong", "url": server.url}, around())
    with pytest.raises(SignInRefused, match=r"GitLab does not accept the token: 401 Unauthorized \[401\]"):
        consumer.look(BLOCK)
    consumer.close()


def test_a_missing_role_is_named(server, consumer) -> None:
    server.maintainer = False

    assert blame(consumer).message == (
        "the token lacks a right: it needs the scope api and the role maintainer of the project 'finance/closing'; "
        "GitLab says 403 Forbidden"
    )
    assert "owner of the group 'finance'" in blame(consumer, GROUP).message


def test_a_limit_says_how_long_to_wait(server, consumer) -> None:
    server.once("GET", Says(429, b"Retry later\n", {"Retry-After": "42"}))

    assert blame(consumer) == Blame(
        "gitlab",
        "GET",
        f"{server.url}{PROJECT}/variables/APIM",
        429,
        message="no reason given",
        repeatable=True,
        wait=42.0,
    )


def test_what_gitlab_quotes_of_us_is_taken_out(server, consumer) -> None:
    server.once("POST", Says(400, {"message": {"value": [f"{COMPACT} is odd"], "token": TOKEN}}))

    assert blame(consumer).message == (
        "GitLab does not take the variable: value *** is odd; token ***; older versions mask the Base64 alphabet "
        "alone: write encode: base64, or masked: false"
    )


def test_a_lost_creation_is_not_repeated_blindly_and_the_next_run_finds_it_ours(server, consumer) -> None:
    server.lost.add("POST")
    with pytest.raises(LostResponse) as caught:
        consumer.put(BLOCK, parcel(), None)

    assert not caught.value.blame.repeatable
    assert consumer.put(BLOCK, parcel(), None) == FIRST
    assert consumer.look(BLOCK) == FIRST


def test_a_lost_change_may_be_repeated(server, consumer) -> None:
    first = consumer.put(BLOCK, parcel(), None)
    server.lost.add("PUT")
    with pytest.raises(LostResponse) as caught:
        consumer.put(BLOCK, parcel(), first)

    assert caught.value.blame.repeatable
    assert consumer.look(BLOCK) == FIRST


def test_whoever_is_faster_between_look_and_creation_makes_it_worth_another_try(server, consumer) -> None:
    server.once("POST", Says(400, {"message": {"key": ["(APIM) has already been taken"]}}))

    found = blame(consumer)
    assert (found.repeatable, found.message) == (
        True,
        "GitLab does not take the variable: key (APIM) has already been taken",
    )


def test_nobody_at_the_other_end_means_that_nothing_happened() -> None:
    with GitLabServer() as gone:
        url = gone.url
    consumer = GitLab().open({"token": TOKEN, "url": url}, around())
    with pytest.raises(Unreachable):
        consumer.put(BLOCK, parcel(), None)
    consumer.close()
