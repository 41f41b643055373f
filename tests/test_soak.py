"""Long runs, behind `make soak`: every fault at every request, and a real kill at every request.

What is sampled in `test_interrupted.py` is complete here, for the specs that are published and for all stories.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.test_interrupted import (
    FAULTS,
    PROD,
    STORIES,
    Stage,
    Story,
    befallen,
    kill_and_finish,
    staged,
    undisturbed,
)
from tests.worlds import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.soak

SPECS = {
    **STORIES,
    "prod": Story(PROD),
    "landscape": Story((ROOT / "specs" / "landscape.yaml").read_text(encoding="utf-8")),
}
PARTS = 4
"""Each spec is done in so many parts, so that all cores have something to do."""


@cache
def told(name: str) -> Stage:
    return staged(f"soak-{name}", SPECS[name])


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("attempts", [1, 6])
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("name", SPECS)
def test_whatever_befalls_a_request_the_next_clean_run_makes_the_same_world(
    name: str, kind: str, attempts: int, part: int
) -> None:
    """`attempts` 1: nothing is repeated, so that the fault goes all the way up."""
    there = told(name)
    for number in range(1 + part, len(there.asked) + 1, PARTS):
        befallen(there, kind, number, attempts=attempts)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("moment", ["before", "after", "while it is written"])
@pytest.mark.parametrize("name", ["prod", "landscape"])
def test_a_process_killed_at_any_request_is_finished_by_the_same_command(
    tmp_path: Path, name: str, moment: str, part: int
) -> None:
    for number in range(1 + part, undisturbed(name)[2] + 1, PARTS):
        where = tmp_path / str(number)
        where.mkdir()
        kill_and_finish(where, number, moment, name)
