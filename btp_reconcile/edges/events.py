"""Asks the platform who changed what differs. What it does not say is no reason to fail: a drift check goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from btp_reconcile.core import authors as knowing
from btp_reconcile.core.errors import PlatformError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from btp_reconcile.core.authors import Author, Events
    from btp_reconcile.core.kind import Door, Driver
    from btp_reconcile.core.model import Address, Change, Wanted
    from btp_reconcile.edges.observe import Platform


def authors(
    changes: Iterable[Change],
    wanted: Wanted,
    platform: Platform,
    drivers: Mapping[str, Driver],
    now: float,
) -> dict[Address, Author | str]:
    """Address → who changed it last, or why that is not known. One request per endpoint for each 200 things or fewer."""
    found: dict[Address, Author | str] = {}
    doors: dict[str, tuple[Door, Events, list[tuple[Address, str]]]] = {}
    for change in knowing.sought(changes):
        fact = change.found
        driver = drivers.get(fact.runtime) if fact is not None else None
        if fact is None or driver is None or not hasattr(driver, "authors"):
            found[change.address] = knowing.NO_EVENTS
            continue
        place = wanted.subaccounts[change.address.subaccount]
        door = platform.door(driver.service, place)
        doors.setdefault(door.scope, (door, cast("Events", driver), []))[2].append((change.address, fact.id))
    for door, events, things in doors.values():
        found.update(_asked(door, events, things, now))
    return found


def _asked(
    door: Door, events: Events, things: list[tuple[Address, str]], now: float
) -> dict[Address, Author | str]:
    try:
        known = events.authors(door, [guid for _, guid in things], now - knowing.KEPT)
    except PlatformError as error:
        why = f"its events could not be read: {error}"
        return {address: why for address, _ in things}
    return {address: known.get(guid, knowing.NO_EVENT) for address, guid in things}
