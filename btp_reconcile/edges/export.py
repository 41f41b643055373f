"""Looks at everything in one subaccount, described or not. Reads only, and never credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.export import Live
from btp_reconcile.core.kind import Lister, Parametric
from btp_reconcile.core.model import Phase, Problem
from btp_reconcile.edges.observe import SPOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from btp_reconcile.core.kind import Door, Kind
    from btp_reconcile.core.model import Fact, Subaccount
    from btp_reconcile.edges.observe import Platform

SERVICES = ("entitlements", "cloud_foundry", "service_manager")


def live(place: Subaccount, kinds: Sequence[Kind], platform: Platform) -> Live:
    """All that is there, and what could not be looked at."""
    seen: list[Fact] = []
    parameters: dict[str, Mapping[str, Any]] = {}
    unseen: list[Problem] = []
    for service in SERVICES:
        if service == "cloud_foundry" and place.cloud_foundry is None:
            said = f"{SPOKEN[service]}: no organization is named for {place.name}; say cloud_foundry.org in a spec"
            unseen.append(Problem("access/none", said))
            continue
        if not platform.has(service, place):
            section = "central" if service == "entitlements" else service
            said = f"{SPOKEN[service]}: there are no credentials for it; say access.{section} in a spec"
            unseen.append(Problem("access/none", said))
            continue
        door = platform.door(service, place)
        drivers = [one for kind in kinds for one in kind.drivers.values() if one.service == service]
        try:
            for driver in drivers:
                found = list(driver.everything(door, place, seen)) if isinstance(driver, Lister) else []
                seen.extend(found)
                if isinstance(driver, Parametric):
                    parameters.update(_parameters(driver, door, found))
        except PlatformError as error:
            unseen.append(Problem("platform/unseen", f"{SPOKEN[service]} could not be asked: {error}"))
    return Live(tuple(seen), parameters, tuple(unseen))


def _parameters(driver: Parametric, door: Door, facts: Sequence[Fact]) -> Mapping[str, Mapping[str, Any]]:
    """Of what is at rest, as far as its broker gives them back: most do not."""
    found: dict[str, Mapping[str, Any]] = {}
    for fact in facts:
        if fact.kind == "instance" and fact.phase is Phase.READY and not fact.foreign:
            try:
                given = driver.parameters(door, fact)
            except PlatformError as error:
                if error.blame.status not in {400, 404, 409, 422, 429, 502}:
                    raise
                continue
            if isinstance(given, dict):
                found[fact.id] = given
    return found
