"""Telling a webhook of a new state, against a local server that takes only what the published shapes allow."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from btp_reconcile.views import notice
from tests.test_schemas import check as valid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Desk

SECRET = "T0000-B0000-XxSecretPathXx"
SPEC = "specs/prod.yaml"
FOREIGN = "it is not one of SAP's; if you trust it, allow it with --allow-host or RECONCILE_HOSTS"
CALM: dict[str, Any] = {
    "result": "in-sync",
    "at": "2026-01-01T00:00:00Z",
    "unseen": [],
    "drifted": [],
    "objections": [],
    "expiring": [],
    "spec_errors": 0,
}


class Hook:
    """A webhook. `answers`: the status of each request in turn, then 200."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.got: list[Any] = []
        self.answers: list[int] = []

    def events(self) -> list[str]:
        return [one["event"] for one in self.got]


@contextmanager
def hooked() -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            right = self.path == f"/{SECRET}" and self.headers["Content-Type"] == "application/json"
            status = hook.answers.pop(0) if hook.answers else 200 if right else 400
            if status == 200:
                hook.got.append(json.loads(body))
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    hook = Hook(f"http://127.0.0.1:{server.server_port}/{SECRET}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tags(desk: Desk, *names: str) -> None:
    with desk.sandbox().hold() as world:
        (row,) = [one for one in world.table("cf.service_instances").values() if one["name"] == "apim"]
        row["tags"] = list(names)


def drift(desk: Desk, hook: Hook, *options: str) -> int:
    ended = desk.run("drift", "--sandbox", "--notify", hook.url, *options)
    assert SECRET not in ended.out + ended.err
    return ended.code


def test_each_new_state_is_told_once(in_sync: Desk) -> None:
    state = ("--notify-state", "told.json")
    with hooked() as hook:
        codes = [drift(in_sync, hook, *state)]
        tags(in_sync, "by-hand")
        codes += [drift(in_sync, hook, *state), drift(in_sync, hook, *state)]
        in_sync.run("sandbox", "faults", "add", "refuse", "--path", "^/v3/service_instances")
        codes += [drift(in_sync, hook, *state), drift(in_sync, hook, *state)]
        in_sync.run("sandbox", "faults", "clear")
        tags(in_sync)
        codes += [drift(in_sync, hook, *state), drift(in_sync, hook, *state)]

    assert codes == [0, 2, 2, 1, 1, 0, 0]
    assert hook.events() == ["drift", "unseen", "in-sync"]
    assert "instance:prod/apim: drifted" in hook.got[0]["text"]
    assert (in_sync.folder / "told.json").stat().st_mode & 0o777 == 0o600
    assert valid("check", hook.got[0]["check"])["result"] == "drift"


def test_without_a_state_each_drift_is_told_and_nothing_else(in_sync: Desk) -> None:
    with hooked() as hook:
        drift(in_sync, hook)
        tags(in_sync, "by-hand")
        drift(in_sync, hook)
        drift(in_sync, hook)

    assert hook.events() == ["drift", "drift"]


def test_the_address_may_stand_in_the_environment(in_sync: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tags(in_sync, "by-hand")
    with hooked() as hook:
        monkeypatch.setenv("RECONCILE_WEBHOOK", hook.url)
        ended = in_sync.run("drift", "--sandbox", "--notify-format", "json")

    assert (ended.code, hook.events()) == (2, ["drift"])


def test_a_hook_that_fails_for_a_moment_is_asked_again(in_sync: Desk) -> None:
    tags(in_sync, "by-hand")
    with hooked() as hook:
        hook.answers = [503]
        code = drift(in_sync, hook)

    assert (code, hook.events()) == (2, ["drift"])


def test_what_could_not_be_told_changes_nothing_and_is_told_with_the_next_check(in_sync: Desk) -> None:
    tags(in_sync, "by-hand")
    state = ("--notify-state", "told.json")
    with hooked() as hook:
        hook.answers = [404]
        failed = in_sync.run("drift", "--sandbox", "--notify", hook.url, *state, "--log-format", "json")
        again = drift(in_sync, hook, *state)

    said = json.loads(failed.err.splitlines()[-1])
    assert (failed.code, again, hook.events()) == (2, 2, ["drift"])
    assert (said["event"], said["why"]) == ("not notified", "status 404")
    assert SECRET not in failed.err


def test_nobody_at_the_address_is_said_without_it(in_sync: Desk) -> None:
    tags(in_sync, "by-hand")
    with hooked() as hook:
        gone = hook.url
    ended = in_sync.run("drift", "--sandbox", "--notify", gone, "--log-format", "json")
    events = [json.loads(one) for one in ended.err.splitlines()]

    assert ended.code == 2
    assert [one["event"] for one in events] == ["retry", "retry", "not notified"]
    assert events[-1]["why"] == "no answer"
    assert SECRET not in ended.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--notify", f"https://hooks.slack.com/{SECRET}"),
            f"--notify: no credential is sent to https://hooks.slack.com: {FOREIGN}",
        ),
        (
            ("--notify", f"https://api.cf.eu10.hana.ondemand.com/{SECRET}"),
            "--notify: a rehearsal tells nobody outside of this machine; take 127.0.0.1",
        ),
        (
            ("--notify", SECRET),
            "--notify: no credential is sent to what is given as its address: it is not of the form https://host/path",
        ),
        (
            ("--notify-state", "x.json"),
            "--notify-state needs somebody to be told: add --notify URL or set RECONCILE_WEBHOOK",
        ),
        (
            ("--notify", "http://127.0.0.1:1/x", "--notify-state", "no/x.json"),
            "--notify-state: there is no folder no; make it first",
        ),
        (
            ("--notify", "http://127.0.0.1:1/x", "--notify-state", SPEC),
            f"--notify-state: {SPEC} holds something else; name another file",
        ),
    ],
)
def test_wrong_usage_is_said_before_anything_is_asked(
    desk: Desk, options: tuple[str, ...], said: str
) -> None:
    ended = desk.run("drift", "--sandbox", *options)

    assert (ended.code, ended.err) == (64, f"Error: {said}\n")
    assert not desk.state.exists()


# --- when ---------------------------------------------------------------------------------------------------


def of(**parts: Any) -> notice.State:
    return notice.state({**CALM, **parts})


def things(*names: str) -> list[dict[str, str]]:
    return [{"address": f"instance:a/{name}", "sync": "drifted"} for name in names]


EXPIRING = [{"address": "key:a/b/c", "not_after": "2026-01-02T00:00:00Z"}]
BLIND = [{"subaccount": "a", "service": "cloud_foundry"}]


@pytest.mark.parametrize(
    ("before", "after", "event"),
    [
        (None, of(), ""),
        (of(), of(), ""),
        (None, of(drifted=things("x")), "drift"),
        (of(), of(drifted=things("x")), "drift"),
        (of(drifted=things("x")), of(drifted=things("x")), ""),
        (of(drifted=things("x")), of(drifted=things("x", "y")), "drift-changed"),
        (of(drifted=things("x")), of(), "in-sync"),
        (of(), of(objections=[{"code": "conflict/exists"}]), "drift"),
        (of(), of(result="failed", unseen=BLIND), "unseen"),
        (of(result="failed", unseen=BLIND), of(result="failed", unseen=BLIND), ""),
        (of(result="failed", unseen=BLIND), of(), "in-sync"),
        (of(result="failed", unseen=BLIND), of(drifted=things("x")), "drift"),
        (of(), of(result="spec", spec_errors=1), "unseen"),
        (of(), of(expiring=EXPIRING), "expiring"),
        (of(expiring=EXPIRING), of(expiring=EXPIRING), ""),
        (of(expiring=EXPIRING), of(), ""),
    ],
)
def test_what_is_news(before: notice.State | None, after: notice.State, event: str) -> None:
    assert notice.event(before, after) == event


# --- how ----------------------------------------------------------------------------------------------------

MANY = {
    **CALM,
    "result": "drift",
    "drifted": [
        {
            "address": f"instance:a/{number:03}-<!channel>&" + "x" * 300,
            "sync": "drifted",
            "changed_by": {"actor": "anna@example.com", "at": "now", "type": "t"},
        }
        for number in range(500)
    ],
}


def strict_slack(data: dict[str, Any]) -> None:
    """Slack's Block Kit reference."""
    assert set(data) == {"text", "blocks"}
    assert 1 <= len(data["blocks"]) <= 50
    for one in data["blocks"]:
        if one["type"] == "context":
            assert 1 <= len(one["elements"]) <= 10
            continue
        kind = {"header": "plain_text", "section": "mrkdwn"}[one["type"]]
        most = {"header": 150, "section": 3000}[one["type"]]
        assert one["text"]["type"] == kind
        assert 1 <= len(one["text"]["text"]) <= most
        assert "<" not in one["text"]["text"]


def strict_teams(data: dict[str, Any]) -> None:
    """The message that a workflow of Teams' takes, with an Adaptive Card 1.4."""
    (attachment,) = data["attachments"]
    card = attachment["content"]
    assert (data["type"], set(data)) == ("message", {"type", "attachments"})
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert {one["type"] for one in card["body"]} <= {"TextBlock", "RichTextBlock"}
    assert len(json.dumps(data).encode()) <= 28 * 1024


@pytest.mark.parametrize("event", list(notice.HEADLINES))
@pytest.mark.parametrize("check", [CALM, MANY], ids=["few", "many"])
def test_chats_are_sent_what_they_take(event: str, check: dict[str, Any]) -> None:
    strict_slack(notice.slack(event, check))
    strict_teams(notice.teams(event, check))


def test_what_is_too_much_for_a_chat_is_counted() -> None:
    shown = notice.lines(MANY)

    assert (len(shown), shown[-1]) == (notice.MOST + 1, "and 480 more")
    assert max(map(len, shown)) == notice.LONGEST


def test_a_chat_is_told_who_did_it() -> None:
    check = {**MANY, "drifted": [{**MANY["drifted"][0], "address": "instance:a/b"}]}

    assert notice.lines(check) == ["instance:a/b: drifted, last changed by anna@example.com on now"]


@pytest.mark.parametrize(("shape", "strict"), [("slack", strict_slack), ("teams", strict_teams)])
def test_the_command_sends_the_shape_that_was_asked_for(in_sync: Desk, shape: str, strict: Any) -> None:
    tags(in_sync, "by-hand")
    with hooked() as hook:
        code = drift(in_sync, hook, "--notify-format", shape)

    assert code == 2
    (sent,) = hook.got
    strict(sent)
    assert "instance:prod/apim" in json.dumps(sent)
