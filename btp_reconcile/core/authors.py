"""Who changed what differs, as far as the platform says: of drifted instances and keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from btp_reconcile.core import times

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from btp_reconcile.core.kind import Door
    from btp_reconcile.core.model import Address, Change

KEPT = 31 * 86400
"""Seconds for which Cloud Controller keeps its audit events, unless it is told otherwise. Older ones are not asked for."""
KINDS = frozenset({"instance", "key"})
NO_EVENT = "Cloud Foundry shows no event of it"
NO_EVENTS = "the Service Manager keeps no such events"


@dataclass(frozen=True)
class Author:
    """The last change of one thing."""

    actor: str
    type: str
    """The platform's word for what was done, like `audit.service_instance.update`."""
    at: str
    """RFC 3339, UTC."""


class Events(Protocol):
    """A driver whose service remembers who did what."""

    def authors(self, door: Door, ids: Sequence[str], since: float) -> Mapping[str, Author]:
        """The last change of each of these, by id, as far as it is known. One request for each 200 or fewer."""


def sought(changes: Iterable[Change]) -> tuple[Change, ...]:
    """What differs, is there, and is of a kind that is changed by hand."""
    return tuple(
        one
        for one in changes
        if one.drifted and one.found is not None and one.found.id and one.address.kind in KINDS
    )


def told(drift: Mapping[str, Any], found: Mapping[Address, Author | str]) -> dict[str, Any]:
    """The JSON of a drift check in which each of these changes says who made it. A text: why that is not known."""
    by_address = {str(address): one for address, one in found.items()}
    changes = []
    for change in drift["changes"]:
        author = by_address.get(change["address"])
        if author is None:
            changes.append(change)
            continue
        if isinstance(author, Author):
            said: dict[str, str] = {"actor": author.actor, "type": author.type, "at": author.at}
            note = f"last changed by {author.actor} on {times.words(author.at)} ({author.type})"
        else:
            said = {"unknown": author}
            note = f"who changed it is not known: {author}"
        notes = [*change.get("notes", ()), note]
        changes.append({**change, "notes": notes, "changed_by": said})
    return {**drift, "changes": changes}
