"""All kinds of cases by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz import answers, plans, specs, surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.fuzz.running import Ran

KINDS: Mapping[str, Callable[[int, Path], Iterator[Ran]]] = {
    "specs": specs.case,
    "answers": answers.case,
    "plans": plans.case,
    "surroundings": surroundings.case,
}
