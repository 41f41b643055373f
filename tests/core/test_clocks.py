"""Whose clock ages are counted by."""

import pytest

from btp_reconcile.core import clocks
from btp_reconcile.core.model import Action, Address, Change

KEY, OTHER = Address.parse("key:prod/apim/transport"), Address.parse("key:prod/apim/pipeline")
DAY = 86400.0


def changes(*actions: Action) -> list[Change]:
    return [Change(one, action, "") for one, action in zip((KEY, OTHER), actions, strict=False)]


@pytest.mark.parametrize(
    ("off", "words"),
    [
        (0.0, ""),
        (600.0, ""),
        (-600.0, ""),
        (601.0, "the clock of this machine is 10 minutes ahead of the platform's"),
        (-7200.4, "the clock of this machine is 2 hours behind the platform's"),
        (3 * DAY - 0.7, "the clock of this machine is 3 days ahead of the platform's"),
    ],
)
def test_what_is_said_of_a_clock(off: float, words: str) -> None:
    assert clocks.said(off) == words


@pytest.mark.parametrize("action", [*Action])
def test_only_what_goes_by_age_is_refused(action: Action) -> None:
    by_age = action in {Action.ROTATE, Action.RETIRE}

    assert [one.code for one in clocks.trusted(DAY, changes(action), ())] == ["safety/wrong-clock"] * by_age
    assert list(clocks.trusted(1.0, changes(action), ())) == []
    assert list(clocks.trusted(DAY, changes(action), {"wrong-clock"})) == []


def test_it_names_one_and_counts_the_others() -> None:
    (one,) = clocks.trusted(-DAY, changes(Action.ROTATE, Action.RETIRE), ())

    assert one.message == (
        "the clock of this machine is 1 day behind the platform's, "
        "and by it key:prod/apim/transport and 1 more would be made anew or retired"
    )
