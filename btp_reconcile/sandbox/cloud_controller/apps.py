"""Apps and routes: nothing that runs, only what service instances are bound to, as bindings and lists show it.

Sources: cloudfoundry/cloud_controller_ng app/presenters/v3/app_presenter.rb, route_presenter.rb and docs/v3/source/
includes/api_resources/_apps.erb, _routes.erb; of an app's links only those to itself and to its space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox.cloud_controller import metadata
from btp_reconcile.sandbox.cloud_controller.basics import APPS, ROUTES, Call, Row
from btp_reconcile.sandbox.world import shaped_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btp_reconcile.sandbox.world import World


def _row(world: World, space: Row) -> Row:
    return {
        "guid": world.new_id(),
        "created_at": world.stamp(),
        "updated_at": world.stamp(),
        "space": space["guid"],
        "landscape": space["landscape"],
        "labels": {},
        "annotations": {},
    }


def app(world: World, space: Row, name: str) -> Row:
    """The app of that name in a space; made when there is none."""
    for row in world.table(APPS).values():
        if row["space"] == space["guid"] and row["name"] == name:
            found: Row = row
            return found
    made = {**_row(world, space), "name": name, "state": "STARTED"}
    world.table(APPS)[made["guid"]] = made
    return made


def route(world: World, space: Row, host: str, path: str = "") -> Row:
    """The route of that host and path on a landscape's domain; made when there is none."""
    for row in world.table(ROUTES).values():
        if (row["landscape"], row["host"], row["path"]) == (space["landscape"], host, path):
            found: Row = row
            return found
    made = {**_row(world, space), "host": host, "path": path}
    world.table(ROUTES)[made["guid"]] = made
    return made


def _common(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("guid", "created_at", "updated_at")}


def show_app(call: Call, row: Row) -> dict[str, Any]:
    """One app."""
    return {
        **_common(row),
        "name": row["name"],
        "state": row["state"],
        "lifecycle": {"type": "buildpack", "data": {"buildpacks": [], "stack": "cflinuxfs4"}},
        "relationships": {"space": {"data": {"guid": row["space"]}}},
        "metadata": metadata.shown(row),
        "links": {
            "self": {"href": f"{call.api}/v3/apps/{row['guid']}"},
            "space": {"href": f"{call.api}/v3/spaces/{row['space']}"},
        },
    }


def show_route(call: Call, row: Row) -> dict[str, Any]:
    """One route."""
    domain = f"cfapps.{row['landscape']}.hana.ondemand.com"
    domain_guid = shaped_from(row["landscape"], "domain", domain)
    base = f"{call.api}/v3/routes/{row['guid']}"
    return {
        **_common(row),
        "protocol": "http",
        "host": row["host"],
        "path": row["path"],
        "port": None,
        "url": f"{row['host']}.{domain}{row['path']}",
        "destinations": [],
        "metadata": metadata.shown(row),
        "relationships": {
            "space": {"data": {"guid": row["space"]}},
            "domain": {"data": {"guid": domain_guid}},
        },
        "links": {
            "self": {"href": base},
            "space": {"href": f"{call.api}/v3/spaces/{row['space']}"},
            "destinations": {"href": f"{base}/destinations"},
            "domain": {"href": f"{call.api}/v3/domains/{domain_guid}"},
        },
    }
