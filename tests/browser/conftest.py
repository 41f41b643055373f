"""Debian's chromium, driven by Playwright. The browser ends with each file, so that no event loop outlives it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

PATIENCE = 10_000
"""Milliseconds after which something that is waited for does not come."""
Opened = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        # A container has no user namespaces for chromium's own sandbox; the pages are ours and load nothing.
        running = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Open a page's text from a file, offline. Ends with a failure if it asked for anything or said anything."""
    contexts, asked, said = [], [], []

    def opens(text: str, fragment: str = "", **options: Any) -> Page:
        file = tmp_path / "page.html"
        file.write_text(text, encoding="utf-8")
        context = browser.new_context(offline=True, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(file.as_uri() + fragment)
        return page

    yield opens
    for context in contexts:
        context.close()

    assert {url.partition("#")[0] for url in asked} <= {(tmp_path / "page.html").as_uri()}
    assert said == []
