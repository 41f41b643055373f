"""Tests that need a program which no Python package brings: left out without it, and said so, unless required.

Such a test carries the marker of its program. `RECONCILE_REQUIRE=browser,promtool` (CI sets it) makes a missing program a
failure; otherwise the run ends with a line for each program, saying how many tests were left out and what to install.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

PROGRAMS = {
    "browser": ("chromium", "Debian's package chromium"),
    "promtool": ("promtool", "Debian's package prometheus"),
    "actionlint": ("actionlint", "go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"),
}
"""Marker → the program, and what brings it."""

_LEFT_OUT = "left out: needs "


def missing(marker: str) -> bool:
    """Is the program of this marker not here?"""
    return shutil.which(PROGRAMS[marker][0]) is None


def required(environment: str | None = None) -> frozenset[str]:
    """The markers whose tests must run."""
    said = os.environ.get("RECONCILE_REQUIRE", "") if environment is None else environment
    return frozenset(said.replace(",", " ").split())


def leave_out(items: Iterable[pytest.Item], must: frozenset[str]) -> None:
    """Skip what cannot run here. What must run is left alone, and fails."""
    for marker in PROGRAMS:
        if missing(marker) and marker not in must:
            skipping = pytest.mark.skip(reason=_LEFT_OUT + marker)
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(skipping)


def told(reasons: Iterable[str]) -> list[str]:
    """What the end of a run says of the tests that were left out."""
    counts = dict.fromkeys(PROGRAMS, 0)
    for reason in reasons:
        marker = reason.partition(_LEFT_OUT)[2]
        if marker in counts:
            counts[marker] += 1
    return [
        f"{count} {'test' if count == 1 else 'tests'} left out, marker {marker}: "
        f"{PROGRAMS[marker][0]} is not installed ({PROGRAMS[marker][1]})"
        for marker, count in counts.items()
        if count
    ]
