"""The page of a plan, as people use it: filtered, unfolded, by keyboard, without script, small and dark and on paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from btp_reconcile.core.report import printable
from btp_reconcile.views import graph, html
from tests.views.plans import HOSTILE, checked, every_action, hostile, large, plan

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.browser.conftest import Opened

pytestmark = pytest.mark.browser

DARK, LIGHT = "rgb(13, 17, 23)", "rgb(255, 255, 255)"


def shown(page: Page) -> list[str]:
    """The addresses of the changes that can be seen."""
    found: list[str] = page.eval_on_selector_all(
        ".changes > li",
        "all => all.filter(one => one.checkVisibility()).map(one => one.querySelector('.address').textContent)",
    )
    return found


# --- filters --------------------------------------------------------------------------------------------


def test_what_is_in_sync_is_filtered_away_at_first_and_shown_when_asked_for(opened: Opened) -> None:
    page = opened(html.page(every_action()))

    assert page.text_content("output") == "10 of 11 shown"
    page.get_by_label("unchanged (1)").check()
    assert page.text_content("output") == "11 of 11 shown"


def test_text_filters_by_address_reason_and_field(opened: Opened) -> None:
    page = opened(html.page(every_action()))
    found = {}
    for said, count in (
        ("task-center", 1),
        ("CANNOT be changed", 1),
        ("new.example", 1),
        ("prod apim transport", 4),
        ("nowhere", 0),
    ):
        page.get_by_label("Text").fill(said)
        expect(page.locator("output")).to_have_text(f"{count} of 11 shown")
        found[said] = shown(page)

    assert found == {
        "task-center": ["key:test/afc/task-center"],
        "CANNOT be changed": ["instance:prod/apim"],
        "new.example": ["destination:test/APIManagement"],
        "prod apim transport": [
            "key:prod/apim/transport",
            "delivery:prod/apim/transport/store",
            "destination:prod/APIManagement",
            "destination:test/APIManagement",
        ],
        "nowhere": [],
    }
    assert page.text_content("output") == "0 of 11 shown"
    assert not page.is_visible("section.subaccount")


@pytest.mark.parametrize(
    ("label", "value", "expected"),
    [
        ("Subaccount", "test", 4),
        ("Kind", "key", 4),
        ("State", "drifted", 2),
        ("Health", "blocked", 1),
    ],
)
def test_each_choice_filters_and_show_all_takes_it_back(
    opened: Opened, label: str, value: str, expected: int
) -> None:
    page = opened(html.page(every_action()))
    page.get_by_label(label, exact=True).select_option(value)

    assert len(shown(page)) == expected
    page.get_by_role("button", name="Show all").click()
    assert len(shown(page)) == 11


def test_actions_filter_together_with_the_rest(opened: Opened) -> None:
    page = opened(html.page(every_action()))
    for one in page.get_by_role("checkbox").all():
        one.uncheck()
    page.get_by_label("delete (1)").check()
    page.get_by_label("update (2)").check()

    assert shown(page) == [
        "key:prod/apim/old",
        "delivery:prod/apim/transport/store",
        "destination:test/APIManagement",
    ]
    page.get_by_label("Subaccount", exact=True).select_option("test")
    assert shown(page) == ["destination:test/APIManagement"]


def test_all_can_be_opened_and_closed_at_once(opened: Opened) -> None:
    page = opened(html.page(every_action()))
    button = page.get_by_role("button", name="Open or close all")
    counts = []
    for _ in range(2):
        button.click()
        counts.append(page.locator(".changes details[open]").count())

    assert counts == [10, 0]


# --- links ----------------------------------------------------------------------------------------------


def test_a_box_of_the_graph_leads_to_its_change_and_shows_it_again(opened: Opened) -> None:
    page = opened(html.page(every_action()))
    page.get_by_label("Text").fill("task-center")
    expect(page.locator("output")).to_have_text("1 of 11 shown")
    page.get_by_label("Text").fill("transport")
    expect(page.locator("output")).to_have_text("4 of 11 shown")
    page.get_by_role(
        "link", name="in sync entitlement:prod/apimanagement-apiportal/apiportal-apiaccess"
    ).click()
    expect(page.locator("#c1")).to_be_visible()
    expect(page.locator("#c1").locator("xpath=../summary")).to_be_focused()

    assert page.locator("#c1").is_visible()
    assert len(shown(page)) == 11


def test_a_link_from_elsewhere_opens_the_change_it_names(opened: Opened) -> None:
    page = opened(html.page(every_action()), "#c3")

    assert page.locator("#c3").is_visible()
    assert "parameters.role" in page.inner_text("#c3")


# --- without script, by keyboard, on paper --------------------------------------------------------------


def test_without_script_everything_can_be_read(opened: Opened) -> None:
    page = opened(html.page(every_action()), java_script_enabled=False)

    assert page.locator(".changes > li").count() == 11
    assert not page.locator("form.filters").is_visible()
    assert not page.locator("#c3").is_visible()
    page.locator(".changes summary", has_text="instance:prod/apim").first.click()
    assert page.locator("#c3").is_visible()


def test_all_of_it_can_be_reached_by_keyboard(opened: Opened) -> None:
    page = opened(html.page(every_action()))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the changes"
    page.keyboard.press("Enter")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.name || document.activeElement.tagName.toLowerCase()")
        )
    page.locator(".changes summary", has_text="key:prod/apim/old").focus()
    page.keyboard.press("Enter")

    assert {"text", "subaccount", "kind", "sync", "health", "action", "button", "summary", "a"} <= set(
        reached
    )
    assert page.locator("#c5").is_visible()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_on_paper_everything_is_open_and_filters_are_gone(opened: Opened) -> None:
    page = opened(html.page(every_action()))
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")

    assert page.locator(".changes details[open]").count() == 11
    assert not page.locator("form.filters").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == LIGHT
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".changes details[open]").count() == 0


# --- looks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("made", ["every action", "hostile", "empty", "drift"])
def test_it_fits_its_window_and_axe_finds_nothing(opened: Opened, made: str, width: int, scheme: Any) -> None:
    """axe-core: contrast, names of controls, landmarks, headings, what can be focused."""
    from axe_playwright_python.sync_playwright import Axe

    data = {
        "every action": every_action(),
        "hostile": hostile(HOSTILE[0] * 20),
        "empty": plan(),
        "drift": checked(),
    }[made]
    page = opened(html.page(data), viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true })")
    found = Axe().run(page).response["violations"]

    assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        DARK if scheme == "dark" else LIGHT
    )


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_nothing_that_others_named_runs_or_loads(opened: Opened, text: str) -> None:
    page = opened(html.page(hostile(text)))
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true })")
    page.get_by_label("Subaccount", exact=True).select_option(index=2)

    assert page.evaluate("document.scripts.length") == 1
    assert printable(text).split()[0] in page.inner_text("main")


def test_a_script_that_got_in_would_not_run(browser: Browser, tmp_path: Path) -> None:
    """The policy itself: what is not ours is refused, and the browser says so."""
    file = tmp_path / "planted.html"
    planted = "<main><script>document.title = 'ran'</script>"
    file.write_text(html.page(every_action()).replace("<main>", planted), encoding="utf-8")
    with browser.new_context() as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(file.as_uri())

        assert page.title() == "Plan: finance-platform/prod"
        assert ["violates the following Content Security Policy" in one for one in said] == [True]


# --- size -----------------------------------------------------------------------------------------------


def test_five_thousand_changes_open_within_two_seconds_and_are_filtered_within_one(
    browser: Browser, tmp_path: Path
) -> None:
    """Seconds of the page's own thread, by the browser's account: not what looks at it, nor what else runs here."""
    file = tmp_path / "page.html"
    file.write_text(html.page(large(5_000)), encoding="utf-8")
    with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
        page = context.new_page()
        account = context.new_cdp_session(page)
        account.send("Performance.enable", {"timeDomain": "threadTicks"})

        def spent() -> float:
            page.evaluate(
                "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
            )
            counted = {one["name"]: one["value"] for one in account.send("Performance.getMetrics")["metrics"]}
            return float(counted["TaskDuration"] - counted["DevToolsCommandDuration"])

        page.goto(file.as_uri())
        expect(page.locator("output")).to_have_text("4000 of 5000 shown")
        opening = spent()
        page.get_by_label("Text").fill("sub-7 service-3 pipeline")
        expect(page.locator("output")).to_have_text("2 of 5000 shown")
        filtering = spent() - opening

        assert shown(page) == ["key:sub-7/service-3/pipeline", "delivery:sub-7/service-3/pipeline/vault"]
        assert (0 < opening < 2, 0 < filtering < 1) == (True, True), (opening, filtering)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_picture_that_stands_alone_is_drawn_in_the_readers_theme(opened: Opened, scheme: Any) -> None:
    page = opened(
        f"<!doctype html><title>x</title>{graph.svg(graph.of_plan(every_action()))}", color_scheme=scheme
    )
    ink = page.eval_on_selector(".graph .title", "one => getComputedStyle(one).fill")

    assert ink == ("rgb(31, 35, 40)" if scheme == "light" else "rgb(230, 237, 243)")
