"""When the clock of this machine is wrong: ages of keys and times of grace are counted by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btp_reconcile.core.model import Action, Problem
from btp_reconcile.core.times import about

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from btp_reconcile.core.model import Change

AGREES = 600.0
"""Seconds that clocks may differ; the shortest `rotate_after` is six times that."""
CLOCK = "wrong-clock"
"""How a difference is answered with `--allow`."""
_BY_AGE = frozenset({Action.ROTATE, Action.RETIRE})


def said(off: float) -> str:
    """What is wrong with our clock, in words; nothing when it agrees. `off`: seconds that it is ahead."""
    if abs(off) <= AGREES:
        return ""
    return f"the clock of this machine is {about(round(abs(off) / 60) * 60)} {'ahead of' if off > 0 else 'behind'} the platform's"


def trusted(off: float, changes: Iterable[Change], allow: Iterable[str]) -> Iterator[Problem]:
    """A key is made anew or retired by its age, so not by a clock that nobody else has."""
    wrong, by_age = said(off), [str(one.address) for one in changes if one.action in _BY_AGE]
    if not wrong or not by_age or CLOCK in allow:
        return
    more = f" and {len(by_age) - 1} more" if len(by_age) > 1 else ""
    yield Problem(
        "safety/wrong-clock",
        f"{wrong}, and by it {by_age[0]}{more} would be made anew or retired",
        hint=f"set the clock right; if it is the platform's that is wrong, answer with --allow {CLOCK}",
    )
