"""GitHub cannot run here. These tests speak to a server that was written from GitHub's API description, and is strict about it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

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
from btp_reconcile.sinks.github import GitHub
from tests.sinks.parcels import NATIVE, NEXT, NOW, SECRET, X509, around, parcel
from tests.sinks.servers.github import TOKEN, GitHubServer
from tests.sinks.servers.web import Cut, Says

BLOCK = {"repository": "finance/closing", "secret": "APIM"}
STAGE = {**BLOCK, "environment": "acceptance/eu"}
REPOSITORY = "/repos/finance/closing/actions/secrets"
FIRST = Held(version="2026-11-22T10:01:00Z")


@pytest.fixture
def server():
    with GitHubServer() as running:
        yield running


@pytest.fixture
def consumer(server):
    opened = GitHub().open({"token": Secret("token", TOKEN), "url": server.url}, around())
    yield opened
    opened.close()


def blame(consumer, block=BLOCK) -> Blame:
    with pytest.raises(PlatformError) as caught:
        consumer.put(block, parcel(), None)
    return caught.value.blame


def test_a_secret_that_is_not_there_is_told_from_a_repository_that_is_not_there(server, consumer) -> None:
    assert consumer.look(BLOCK) is None
    assert server.asked == [f"GET {REPOSITORY}/APIM", f"GET {REPOSITORY}/public-key"]

    with pytest.raises(PlatformError) as caught:
        consumer.look({**BLOCK, "repository": "finance/elsewhere"})

    assert caught.value.blame == Blame(
        "github",
        "GET",
        f"{server.url}/repos/finance/elsewhere/actions/secrets/public-key",
        404,
        message="finance/elsewhere or its Actions secrets is not there for this token: check the names, and that the "
        "token may write secrets there",
    )


def test_the_credentials_arrive_sealed_as_json_and_a_look_sees_the_same(server, consumer) -> None:
    held = consumer.put(BLOCK, parcel(), None)

    assert held == FIRST
    assert consumer.look(BLOCK) == held
    assert json.loads(server.secrets["finance/closing", "", "APIM"]) == NATIVE
    assert server.asked[:3] == [
        f"GET {REPOSITORY}/public-key",
        f"PUT {REPOSITORY}/APIM",
        f"GET {REPOSITORY}/APIM",
    ]
    assert all(SECRET.encode() not in one.body for one in server.seen)


def test_a_change_by_others_shows_in_the_version(server, consumer) -> None:
    consumer.put(BLOCK, parcel(), None)
    server.change("finance/closing", "APIM", "something else")

    assert consumer.look(BLOCK) == Held(version="2026-11-22T10:02:00Z")


def test_delivering_again_and_the_next_generation_overwrite(server, consumer) -> None:
    first = consumer.put(BLOCK, parcel(), None)
    consumer.put(BLOCK, parcel(), first)
    consumer.put(BLOCK, parcel({**NATIVE, "clientSecret": "the next secret"}, NEXT), first)

    assert json.loads(server.secrets["finance/closing", "", "APIM"])["clientSecret"] == "the next secret"
    assert len(server.secrets) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client_secret", SECRET),
        ("clientId", NATIVE["clientId"]),
        ("url", NATIVE["url"]),
        ("token_url", NATIVE["tokenUrl"]),
    ],
)
def test_one_field_is_delivered_by_its_common_name_or_by_its_own(server, consumer, field, value) -> None:
    consumer.put({**BLOCK, "field": field}, parcel(), None)

    assert server.secrets["finance/closing", "", "APIM"] == value


def test_a_field_that_is_not_there_is_said_with_those_that_are(server, consumer) -> None:
    found = blame(consumer, {**BLOCK, "field": "certificate"})

    assert found == Blame(
        "github",
        message="the credentials hold no field 'certificate'; at their top they have clientId, clientSecret, tokenUrl, url",
    )
    assert server.seen == []


def test_an_environment_has_secrets_of_its_own(server, consumer) -> None:
    consumer.put(STAGE, parcel(X509), None)

    assert consumer.look(BLOCK) is None
    assert consumer.look(STAGE) == FIRST
    assert json.loads(server.secrets["finance/closing", "acceptance/eu", "APIM"]) == X509
    assert "PUT /repos/finance/closing/environments/acceptance%2Feu/secrets/APIM" in server.asked


def test_an_environment_that_is_not_there_is_not_taken_for_an_empty_one(consumer) -> None:
    with pytest.raises(
        PlatformError, match="finance/closing or its environment 'test' is not there for this token"
    ):
        consumer.look({**BLOCK, "environment": "test"})


def test_a_name_in_small_letters_is_the_same_secret(server, consumer) -> None:
    consumer.put({**BLOCK, "secret": "apim"}, parcel(), None)

    assert consumer.look(BLOCK) == FIRST
    assert GitHub().place({**BLOCK, "secret": "apim"}) == "finance/closing APIM"
    assert GitHub().place(STAGE) == "finance/closing APIM (acceptance/eu)"


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({**BLOCK, "secret": "GITHUB_APIM"}, "secret is not a name that GitHub takes"),
        ({**BLOCK, "secret": "github_apim"}, "secret is not a name that GitHub takes"),
        ({**BLOCK, "secret": "2APIM"}, "secret is not a name that GitHub takes"),
        ({**BLOCK, "secret": "API-M"}, "secret is not a name that GitHub takes"),
        ({**BLOCK, "secret": "../../orgs"}, "secret is not a name that GitHub takes"),
        ({**BLOCK, "repository": "closing"}, "repository is not of the form owner/name"),
        ({**BLOCK, "repository": "finance/.."}, "repository is not of the form owner/name"),
        ({**BLOCK, "repository": "a/b/c"}, "repository is not of the form owner/name"),
        ({**BLOCK, "environment": " "}, "environment is empty"),
    ],
)
def test_names_that_github_does_not_take_never_reach_it(server, consumer, block, words) -> None:
    with pytest.raises(PlatformError, match=words):
        consumer.look(block)
    assert words in blame(consumer, block).message
    assert server.seen == []


def test_a_value_that_is_too_large_is_not_sent(server, consumer) -> None:
    consumer.put({**BLOCK, "field": "big"}, parcel({"big": "x" * 49_152}), None)
    with pytest.raises(PlatformError) as caught:
        consumer.put({**BLOCK, "field": "big"}, parcel({"big": "x" * 49_153}), None)

    assert caught.value.blame.message == (
        "the value has 49,153 bytes, and GitHub takes 49,152: deliver one field of it"
    )
    assert server.asked.count(f"PUT {REPOSITORY}/APIM") == 1


# --- access ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("access", "environment"),
    [
        ({"token": Secret("token", TOKEN)}, {"GITHUB_TOKEN": "another"}),
        ({}, {"GITHUB_TOKEN": TOKEN, "GH_TOKEN": "another"}),
        ({}, {"GH_TOKEN": f"{TOKEN}\n", "GITHUB_TOKEN": ""}),
    ],
)
def test_the_token_comes_from_the_spec_or_else_from_the_environment(server, access, environment) -> None:
    world = around({**environment, "GITHUB_API_URL": server.url})
    consumer = GitHub().open(access, world)

    assert consumer.look(BLOCK) is None
    consumer.close()


def test_without_a_token_it_says_what_to_set() -> None:
    with pytest.raises(SpecError) as caught:
        GitHub().open({}, around())

    assert caught.value.problems == (
        Problem(
            "access/none",
            "nothing to sign in at GitHub with",
            hint="write access.github.token, or set GITHUB_TOKEN or GH_TOKEN",
        ),
    )


def test_the_token_goes_to_no_host_that_is_not_allowed() -> None:
    consumer = GitHub().open({"token": TOKEN}, around())
    with pytest.raises(HostRefused, match=r"no credential is sent to https://api\.github\.com"):
        consumer.look(BLOCK)
    consumer.close()


def test_a_token_that_is_not_accepted_is_final(server) -> None:
    consumer = GitHub().open({"token": "wrong", "url": server.url}, around())
    with pytest.raises(SignInRefused) as caught:
        consumer.look(BLOCK)

    assert caught.value.blame == Blame(
        "github",
        "GET",
        f"{server.url}{REPOSITORY}/APIM",
        401,
        message="GitHub does not accept the token: Bad credentials",
    )
    consumer.close()


def test_a_missing_right_is_named_as_github_names_it(server, consumer) -> None:
    server.may_write = False

    assert blame(consumer) == Blame(
        "github",
        "GET",
        f"{server.url}{REPOSITORY}/public-key",
        403,
        message="the token lacks a right (secrets=write): Resource not accessible by personal access token",
    )


# --- limits and faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {"Retry-After": "30"}, 30.0),
        (403, {"Retry-After": "7"}, 7.0),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW + 90:.0f}"}, 90.0),
        (429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW - 90:.0f}"}, 0.0),
        (429, {"X-RateLimit-Remaining": "12"}, 60.0),
    ],
)
def test_each_way_to_say_that_a_limit_is_used_up_is_understood(
    server, consumer, status, headers, wait
) -> None:
    said = {"message": "You have exceeded a secondary rate limit."}
    date = {"Date": "Sun, 22 Nov 2026 10:30:00 GMT"}
    server.once("GET", Says(status, said, {**headers, **date}))

    found = blame(consumer)

    assert found == replace(
        Blame("github", "GET", f"{server.url}{REPOSITORY}/public-key", status),
        message="a limit of GitHub's is used up: You have exceeded a secondary rate limit.",
        repeatable=True,
        wait=wait,
    )


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_gateway_page_is_described_and_may_be_tried_again(server, consumer, status) -> None:
    server.once("PUT", Says(status, b"<html>" + SECRET.encode()))

    found = blame(consumer)

    assert found == Blame(
        "github", "PUT", f"{server.url}{REPOSITORY}/APIM", status, message="no reason given", repeatable=True
    )


def test_what_github_quotes_of_us_is_taken_out(server, consumer) -> None:
    server.once("PUT", Says(422, {"message": f"{SECRET} and {TOKEN} are odd"}))

    assert blame(consumer).message == "*** and *** are odd"


def test_a_redirect_is_not_followed(server, consumer) -> None:
    server.once("GET", Says(301, None, {"Location": "https://evil.example/repositories/1?x=1"}))
    found = blame(consumer)

    assert found.message == (
        "a redirect to evil.example, which is not followed: credentials go only where they were meant to go"
    )
    assert len(server.seen) == 1


def test_a_lost_answer_is_told_and_a_look_finds_what_was_written(server, consumer) -> None:
    server.lost.add("PUT")
    with pytest.raises(LostResponse) as caught:
        consumer.put(BLOCK, parcel(), None)

    assert caught.value.blame.repeatable
    assert consumer.look(BLOCK) == FIRST


def test_a_broken_connection_while_looking_is_repeatable(server, consumer) -> None:
    def cut(_):
        raise Cut

    server.faults.append(cut)
    with pytest.raises(PlatformError) as caught:
        consumer.look(BLOCK)

    assert not isinstance(caught.value, LostResponse)
    assert caught.value.blame == Blame(
        "github",
        "GET",
        f"{server.url}{REPOSITORY}/APIM",
        message=f"{server.url}: the connection broke before the answer was complete",
        repeatable=True,
    )


def test_nobody_at_the_other_end_means_that_nothing_happened() -> None:
    with GitHubServer() as gone:
        url = gone.url
    consumer = GitHub().open({"token": TOKEN, "url": url}, around())
    with pytest.raises(Unreachable) as caught:
        consumer.look(BLOCK)

    assert caught.value.blame == Blame(
        "github", "GET", f"{url}{REPOSITORY}/APIM", message=f"{url}: no connection", repeatable=True
    )
    consumer.close()


@pytest.mark.parametrize(
    "answer", [{}, {"key_id": "1", "key": "AAAA"}, {"key_id": "1", "key": 5}, {"key": "AAAA"}]
)
def test_a_public_key_that_is_none_seals_nothing(server, consumer, answer) -> None:
    server.once("GET", Says(200, answer))

    assert blame(consumer).message == "the answer is no public key"
    assert server.asked == [f"GET {REPOSITORY}/public-key"]


def test_an_answer_without_a_time_is_not_taken_for_a_version(server, consumer) -> None:
    server.once("GET", Says(200, {"name": "APIM"}))
    with pytest.raises(PlatformError, match="says nothing of the time of the last change"):
        consumer.look(BLOCK)
