"""A plan as a comment: found again, what is lost on top, nothing in it alive, never too long."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options

from btp_reconcile.core.report import printable
from btp_reconcile.views import markdown
from tests.views.plans import HOSTILE, change, checked, every_action, hostile, large, plan

HERE = Path(__file__).parent
OURS = {
    "h3",
    "h4",
    "p",
    "pre",
    "code",
    "details",
    "summary",
    "b",
    "strong",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
REFERENCE = re.compile(r"@\w|[#!$&~%]\w|GH-\d|https?:|www\.|\w@\w")


class Rendered(HTMLParser):
    """What GitHub's own parser makes of it: elements, attributes, and text inside and outside of code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.code: list[str] = []
        self.prose: list[str] = []
        self.feed(cmarkgfm.github_flavored_markdown_to_html(text, Options.CMARK_OPT_UNSAFE))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {f"{name}={value}" for name, value in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.code if {"code", "pre"} & set(self.open) else self.prose).append(data)


def squeezed(text: str) -> str:
    return "".join(text.split())


def agrees(name: str, actual: str) -> None:
    """The text is what the file says; or the file is rewritten, when that was asked for."""
    file = HERE / name
    if os.environ.get("RECONCILE_ACCEPT") == "1":
        file.write_text(actual, encoding="utf-8")

    assert actual == file.read_text(encoding="utf-8")


REPORT = {
    "summary": {"done": 1, "failed": 1, "blocked": 1, "pending": 0},
    "outcomes": [
        {
            "address": "instance:prod/apim",
            "verb": "create",
            "status": "failed",
            "error": "no quota",
            "hint": "ask for it",
        },
        {
            "address": "key:prod/apim/x",
            "verb": "create",
            "status": "blocked",
            "error": "needs instance:prod/apim",
        },
        {
            "address": "key:prod/afc/y",
            "verb": "create",
            "status": "done",
            "notes": ["its certificate ends soon"],
        },
    ],
}
VERDICTS = {
    "summary": {"ok": 1},
    "keys": [{"address": "key:prod/afc/y", "generation": 1, "verdict": "ok"}],
}


def test_a_plan_reads_as_it_always_did() -> None:
    agrees("every-action.md", markdown.plan(every_action()))


def test_a_drift_check_reads_as_it_always_did() -> None:
    agrees("drift.md", markdown.plan(every_action(kind="drift")))


def test_how_applying_went_reads_as_it_always_did() -> None:
    agrees("applied.md", markdown.applied(every_action() | {"objections": []}, [REPORT], VERDICTS))


def test_what_was_refused_says_so_first() -> None:
    lines = markdown.applied(every_action(), []).splitlines()

    assert lines[:3] == [
        "<!-- btp-reconcile:apply finance-platform/prod -->",
        "",
        "### Apply: refused, nothing was done",
    ]
    assert "#### Stands against applying (1)" in lines


def test_what_a_baseline_knows_is_folded() -> None:
    text = markdown.plan(checked())

    assert "<details><summary>By the baseline</summary>" in text
    assert "instance:prod/key:prod/apim/pipeline: key:prod/apim/pipeline\n" in text


def test_an_empty_plan_is_one_line_below_its_marker() -> None:
    quiet = plan(change("instance:prod/apim", "keep", reason=""))

    assert markdown.plan(quiet) == (
        "<!-- btp-reconcile:plan finance-platform/prod -->\n\n### No changes: 1 in sync.\n"
    )


def test_the_marker_is_the_same_whatever_the_plan_says() -> None:
    plans = [every_action(), plan(), large(100)]

    assert {markdown.plan(one).splitlines()[0] for one in plans} == {
        "<!-- btp-reconcile:plan finance-platform/prod -->"
    }


@pytest.mark.parametrize("names", [["a--b/c"], ["x-->y"], ["<b>"], [], ["owner/name"] * 30], ids=str)
def test_a_marker_of_odd_or_many_names_is_still_one_comment(names: list[str]) -> None:
    line = markdown.plan(plan(specs=names)).splitlines()[0]

    assert re.fullmatch(r"<!-- btp-reconcile:plan [0-9a-f]{16} -->", line)
    assert line == markdown.plan(plan(specs=names, digest="other")).splitlines()[0]


def test_what_is_lost_stands_on_top_and_unfolded() -> None:
    text = markdown.plan(every_action())
    top = text.partition("<details>")[0]

    for one in ("instance:prod/apim", "key:prod/apim/old", "key:prod/apim/pipeline", "conflict/exists"):
        assert one in top
    assert "key:prod/apim/transport (generation 2)" not in top


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_nothing_that_others_named_is_alive(text: str) -> None:
    data = hostile(text)
    rendered = [
        Rendered(markdown.plan(data)),
        Rendered(markdown.plan({**data, **checked(text)})),
        Rendered(markdown.applied(data | {"objections": []}, [_failing(text)])),
    ]

    for one in rendered:
        assert one.tags <= OURS
        assert one.attributes <= {"lang=diff", "class=language-diff", "align=right"}
        assert [said for said in one.prose if REFERENCE.search(said)] == []
        assert squeezed(printable(text.strip())[:60]) in squeezed("".join(one.code))


def _failing(text: str) -> dict[str, Any]:
    outcome = {
        "address": text,
        "verb": text,
        "status": "failed",
        "error": text,
        "hint": text,
        "notes": [text],
    }
    return {"summary": {"done": 0, "failed": 1, "blocked": 0, "pending": 0}, "outcomes": [outcome]}


@pytest.mark.parametrize("most", [2_000, 2_500, 4_000, 10_000, 65_000, 1_000_000])
@pytest.mark.parametrize("made", ["many", "every action", "hostile"])
def test_it_is_never_over_its_size_and_never_cut_in_the_middle(made: str, most: int) -> None:
    data = {
        "many": large(3_000),
        "every action": every_action(),
        "hostile": hostile("`" * 400 + "<b>" * 300),
    }[made]
    text = markdown.plan(data, most)

    assert len(text.encode()) <= most
    assert text.count("<details>") == text.count("</details>")
    assert Rendered(text).tags <= OURS
    assert Rendered(text).open == []


def test_what_is_left_out_is_counted() -> None:
    data = large(3_000)
    shown = [one for one in data["changes"] if one["action"] != "keep"]
    text = markdown.plan(data, 20_000)
    told = len(re.findall(r"^[+~⟳-] \w+:", text, re.MULTILINE))
    (left,) = re.findall(
        r"^\*\*Left out, because a comment holds no more: ([\d,]+) changes\.\*\*", text, re.MULTILINE
    )

    assert told > 50
    assert told + int(left.replace(",", "")) == len(shown)


def test_nothing_is_said_to_be_left_out_when_nothing_is() -> None:
    assert "Left out" not in markdown.plan(every_action())


def test_of_a_change_that_alone_is_too_long_the_name_is_kept() -> None:
    fields = [
        {"path": f"f{number}", "before": None, "after": "x" * 190, "seen": "observed", "changes": True}
        for number in range(400)
    ]
    text = markdown.plan(plan(change("instance:prod/wide", fields=fields), change("instance:prod/next")))

    assert "+ instance:prod/wide\n      (more than a comment holds)\n+ instance:prod/next\n" in text


def test_long_lines_are_broken_and_what_follows_begins_with_no_sign() -> None:
    reason = " ".join(f"- word {number}" for number in range(60))
    text = markdown.plan(plan(change("instance:prod/apim", reason=reason)))
    inside = text.partition("```diff\n")[2].partition("\n```")[0].splitlines()

    assert max(map(len, inside)) <= 100
    assert [line for line in inside if not line.startswith("  ")] == ["+ instance:prod/apim"]
