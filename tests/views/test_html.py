"""A plan as a page: whole, self-contained, and text wherever others chose the words."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from btp_reconcile.core.report import printable
from btp_reconcile.views import html
from tests.views.plans import HOSTILE, change, every_action, hostile, large, plan

VOID = {"meta", "input", "br"}
ATTRIBUTES = {
    *(
        "action",
        "aria-hidden",
        "aria-label",
        "aria-labelledby",
        "autocomplete",
        "charset",
        "checked",
        "class",
        "content",
    ),
    *(
        "d",
        "for",
        "data-action",
        "data-do",
        "data-health",
        "data-kind",
        "data-subaccount",
        "data-sync",
        "height",
        "hidden",
        "href",
    ),
    *(
        "http-equiv",
        "id",
        "lang",
        "name",
        "open",
        "placeholder",
        "role",
        "rx",
        "scope",
        "tabindex",
        "type",
        "value",
    ),
    *("viewbox", "width", "x", "y"),
}


class Page(HTMLParser):
    """A page, read: whether it is well formed, its elements, attributes, ids, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.open: list[str] = []
        self.text: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(str(value))
            if name == "href":
                self.links.add(str(value))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = "script" if "script" in self.open else "style" if "style" in self.open else "body"
        self.text[inside] = self.text.get(inside, "") + data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("kind", ["plan", "drift"])
def test_whatever_others_named_is_text(text: str, kind: str) -> None:
    shown = html.page(hostile(text) | {"kind": kind})
    page = Page(shown)

    assert page.open == []
    assert page.attributes <= ATTRIBUTES
    assert (page.tags.count("script"), page.tags.count("style")) == (1, 1)
    assert not {"img", "iframe", "link", "object", "base", "embed"} & set(page.tags)
    assert {one[0] for one in page.links} == {"#"}
    assert "".join(printable(text).split()) in "".join(page.text["body"].split())
    assert [char for char in shown if not char.isprintable() and char != "\n"] == []


@pytest.mark.parametrize(
    "data", [every_action(), every_action(kind="drift"), large(300), plan()], ids=lambda _: "plan"
)
def test_every_link_leads_somewhere_and_every_id_is_one(data: dict[str, Any]) -> None:
    page = Page(html.page(data))

    assert len(set(page.ids)) == len(page.ids)
    assert {one[1:] for one in page.links} <= set(page.ids)


def test_the_policy_lets_nothing_in_and_names_the_script_and_style_that_are_there() -> None:
    shown = html.page(every_action())
    page = Page(shown)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', shown)

    def digest(text: str) -> str:
        return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    assert policy == (
        f"default-src 'none'; style-src '{digest(page.text['style'])}'; script-src '{digest(page.text['script'])}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(
        r"url\(|@import|fetch\(|XMLHttpRequest|import\(|https?:", page.text["style"] + page.text["script"]
    )


def test_everything_of_a_change_is_there() -> None:
    said = Page(html.page(every_action())).text["body"]

    for one in (
        "Plan: finance-platform/prod",
        "Applying takes about 4 minutes: 200 creates at 50 a minute.",
        "Nothing is applied: one thing stands against it, see below.",
        "an instance named 'afc' is there, and nobody's",
        "differs: parameters.role; that cannot be changed in place",
        "APIPortal.Administrator",
        "assumed, makes it anew",
        "unknown, no key",
        "apim-2",
        "specs/prod.yaml:31:7",
        "somebody must subscribe Advanced Financial Closing first",
        "key gone of instance apim in prod, made by spec prod as gone",
        "it needs instance:test/x",
        "nobody gave access to the Service Manager of prod",
        "the region is not known",
    ):
        assert one in said


def test_a_long_value_is_shown_whole() -> None:
    value = "x" * 5_000
    fields = [{"path": "p", "before": None, "after": value, "seen": "observed", "changes": True}]

    assert value in html.page(plan(change("instance:prod/apim", fields=fields)))


def test_the_plan_of_five_thousand_changes_is_below_ten_megabytes() -> None:
    shown = html.page(large(5_000))

    assert len(shown.encode()) < 10_000_000
    assert shown.count('<li class="') == 5_000


def test_an_empty_plan_is_a_page_too() -> None:
    page = Page(html.page(plan()))

    assert "There is nothing here." in page.text["body"]
    assert "form" not in page.tags
