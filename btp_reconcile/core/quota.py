"""Quota: what all changes of one pool ask for together, against what is left of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from btp_reconcile.core.model import Action, Address, Change, Problem, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True)
class Ask:
    """What one entitlement changes in its pool: so much more of a plan, less than 0 if it gives some back."""

    pool: str
    """The global account or the directory that the quota comes from."""
    plan: str
    """Service, plan and the plan's unique identifier, in one text."""
    address: Address
    more: int
    remaining: float | None
    """What is left in the pool; None: that is not said."""
    source: Source | None = None


def asks(changes: Iterable[Change]) -> Iterator[Ask]:
    """What these changes of entitlements ask for, as far as they are counted."""
    for change in changes:
        found = change.found
        if change.address.kind != "entitlement" or not change.acts or change.action is Action.AWAIT:
            continue
        if found is not None and found.attributes["numeric"]:
            yield Ask(
                found.attributes["pool"],
                found.id.partition("/")[2],
                change.address,
                _more(change),
                found.attributes["remaining"],
                change.wanted.source if change.wanted else None,
            )


def _more(change: Change) -> int:
    before = change.found.attributes["amount"] if change.found and change.found.attributes["assigned"] else 0
    after = change.send.get("amount", 0)
    return int(after if isinstance(after, int) else 0) - int(before or 0)


def short(asked: Iterable[Ask]) -> Iterator[Problem]:
    """Where more is asked for than is left. Looks at different moments may differ: the least that was seen counts."""
    groups: dict[tuple[str, str], list[Ask]] = defaultdict(list)
    for ask in asked:
        groups[ask.pool, ask.plan].append(ask)
    for (_, plan), group in sorted(groups.items(), key=lambda one: one[0]):
        remaining = _least(group)
        more = sum(one.more for one in group)
        if remaining is None or more <= remaining:
            continue
        ordered = sorted(group, key=lambda one: one.address)
        who = ", ".join(f"{one.address.subaccount} {one.more:+d}" for one in ordered)
        yield Problem(
            "entitlement/quota",
            f"{plan.rpartition('/')[0]} needs {more} more; there are {remaining:g} left ({who})",
            group[0].source,
            group[0].address,
            "lower an amount, take one back elsewhere, or have the contract extended",
        )


def _least(group: Sequence[Ask]) -> float | None:
    known = [one.remaining for one in group if one.remaining is not None]
    return min(known) if known else None
