"""Cloud Controller, API version 3: organisations, spaces, marketplace, service instances and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btp_reconcile.sandbox.cloud_controller import (
    audit_events,
    bindings,
    catalogue,
    instance_parts,
    instances,
    jobs,
    places,
    route_bindings,
)
from btp_reconcile.sandbox.cloud_controller.basics import API, unknown_route
from btp_reconcile.sandbox.cloud_controller.places import create_organization, create_space
from btp_reconcile.sandbox.cloud_controller.seeding import seed, snapshot

if TYPE_CHECKING:
    from btp_reconcile.sandbox.http import Router

__all__ = ["create_organization", "create_space", "routes", "seed", "snapshot"]


def routes(router: Router) -> None:
    """Every route of ``api.cf.<landscape>``."""
    router.host(API, unknown_route)
    for part in (
        places,
        catalogue,
        instances,
        instance_parts,
        bindings,
        route_bindings,
        jobs,
        audit_events,
    ):
        part.routes(router)
    places.lacking(router)
