"""What somebody is told when a drift check ends in another state than the one before, in the shapes that chats take.

Sources: Slack, "Block Kit" reference (header: 150 characters, section: 3,000, escapes of &, < and >); Microsoft Teams,
"Create incoming webhooks with Workflows" and the Adaptive Card schema 1.4 (a message of at most 28 KB).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile.core.report import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FORMAT = "btp-reconcile/notice"
VERSION = 1
MOST = 20
"""Things that are named in a chat; the others are counted."""
LONGEST = 200
"""Characters of a line there."""
HEADLINES = {
    "unseen": "reconcile: not everything could be seen",
    "drift": "reconcile: the platform differs from the specs",
    "drift-changed": "reconcile: the platform differs from the specs in another way",
    "in-sync": "reconcile: as the specs say again",
    "expiring": "reconcile: keys end soon",
}
"""Event → what it is called. In a state that is several things the first counts."""
State = dict[str, Any]


def state(check: Mapping[str, Any]) -> State:
    """What of a check makes two of them differ: no times, no words."""
    return {
        "blind": check["result"] in {"failed", "spec", "usage"},
        "unseen": sorted(f"{one['subaccount']}/{one['service']}" for one in check["unseen"]),
        "drifted": sorted(
            [f"{one['address']} {one['sync']}" for one in check["drifted"]]
            + [f"{one['code']} {one.get('address', '')}" for one in check["objections"]]
        ),
        "expiring": sorted(one["address"] for one in check["expiring"]),
    }


def event(before: State | None, after: State) -> str:
    """What is new. Empty: nothing is, or nothing that anybody must be told. None: nothing is known of before."""
    was = before or {"blind": False, "unseen": [], "drifted": [], "expiring": []}
    hidden = after["blind"] or after["unseen"]
    if hidden and (after["blind"], after["unseen"]) != (was["blind"], was["unseen"]):
        return "unseen"
    if after["drifted"] != was["drifted"] and after["drifted"]:
        return "drift-changed" if was["drifted"] else "drift"
    if not hidden and not after["drifted"] and (was["blind"] or was["unseen"] or was["drifted"]):
        return "in-sync"
    return "expiring" if set(after["expiring"]) - set(was["expiring"]) else ""


def lines(check: Mapping[str, Any]) -> list[str]:
    """The check for people, one thing a line."""
    found = list(_lines(check))
    shown = [line if len(line) <= LONGEST else line[: LONGEST - 1] + "…" for line in found[:MOST]]
    return [*shown, f"and {len(found) - MOST} more"] if len(found) > MOST else shown


def _lines(check: Mapping[str, Any]) -> Iterator[str]:
    if check["spec_errors"]:
        yield f"the specs have {check['spec_errors']} problem(s)"
    elif check["result"] == "failed" and not check["unseen"]:
        yield "the check could not be made"
    for one in check["unseen"]:
        yield printable(f"not seen: {one['service']} of {one['subaccount']}")
    for one in check["objections"]:
        yield printable(f"{one.get('address', 'the specs')}: {one['code']}")
    for one in check["drifted"]:
        by = one.get("changed_by", {})
        who = f", last changed by {by['actor']} on {by['at']}" if "actor" in by else ""
        yield printable(f"{one['address']}: {one['sync']}{who}")
    for one in check["expiring"]:
        yield printable(f"{one['address']}: its certificate ends on {one['not_after']}")


def plain(what: str, check: Mapping[str, Any]) -> dict[str, Any]:
    """For programs."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "event": what,
        "text": "\n".join([HEADLINES[what], *lines(check)]),
        "check": dict(check),
    }


def slack(what: str, check: Mapping[str, Any]) -> dict[str, Any]:
    """An incoming webhook of Slack's. `text` is what a notification on a telephone shows."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": HEADLINES[what], "emoji": False}}
    ]
    body = ""
    for one in lines(check):
        line = f"• {_escaped(one)}\n"
        if len(body) + len(line) > 3000:
            blocks.append(_section(body))
            body = ""
        body += line
    if body:
        blocks.append(_section(body))
    blocks.append(
        {"type": "context", "elements": [{"type": "mrkdwn", "text": f"{check['at']}, {check['result']}"}]}
    )
    return {"text": HEADLINES[what], "blocks": blocks}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text.rstrip("\n")}}


def _escaped(text: str) -> str:
    """Slack's control characters; and no word of a platform becomes a mention or a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def teams(what: str, check: Mapping[str, Any]) -> dict[str, Any]:
    """A message of Teams' with an adaptive card. Nothing of a platform is read as Markdown: each line is plain."""
    shown = [
        {"type": "TextBlock", "text": HEADLINES[what], "weight": "Bolder", "size": "Medium", "wrap": True},
        *({"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": line}]} for line in lines(check)),
        {
            "type": "TextBlock",
            "text": f"{check['at']}, {check['result']}",
            "isSubtle": True,
            "wrap": True,
        },
    ]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": shown,
    }
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return {"type": "message", "attachments": [attachment]}


SHAPES: Mapping[str, Callable[[str, Mapping[str, Any]], dict[str, Any]]] = {
    "json": plain,
    "slack": slack,
    "teams": teams,
}
"""Name of a format → how it is put together."""
