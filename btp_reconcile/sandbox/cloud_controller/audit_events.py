"""Audit events of instances and their bindings: who did what, and when.

Sources: cloudfoundry/cloud_controller_ng docs/v3/source/includes/resources/audit_events/, app/messages/
events_list_message.rb, app/controllers/v3/events_controller.rb, app/presenters/v3/event_presenter.rb, app/models/runtime/
event.rb (who sees which), app/repositories/service_event_repository.rb and service_generic_binding_event_repository.rb
(what is recorded), and the actions in app/actions/v3/ that call these: an event is recorded when work has ended, another
one when a broker takes its time; what fails is not recorded. Parameters and credentials never stand in an event.

Events are kept for 31 days, as Cloud Controller does unless it is told otherwise (app_events cutoff_age_in_days). The
sandbox keeps the newest 5,000 of them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox.cloud_controller import lists
from btp_reconcile.sandbox.cloud_controller.basics import (
    INSTANCES,
    SPACES,
    Call,
    Row,
    endpoint,
    not_found,
    rails_json,
)
from btp_reconcile.sandbox.world import shaped, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btp_reconcile.sandbox.http import Response, Router
    from btp_reconcile.sandbox.world import World

EVENTS = "cf.audit_events"
KEPT = 31 * 86400
MOST = 5_000
FILTERS = ("types", "target_guids", "space_guids", "organization_guids")
HIDDEN = "[PRIVATE DATA HIDDEN]"
Actor = tuple[str, str]
"""Guid and name of a user, as the token says them."""


def record(
    world: World, what: str, row: Row, actor: Actor | None, request: Mapping[str, Any] | None = None
) -> None:
    """Note that something was done to an instance or a binding. Without an actor it was nobody's request."""
    if actor is None:
        return
    instance = world.rows(INSTANCES).get(row["instance"]) if "instance" in row else row
    space = world.rows(SPACES)[instance["space"]] if instance is not None else None
    table = world.table(EVENTS)
    number = int(next(reversed(table.values()))["number"]) + 1 if table else 1
    digest = hashlib.sha256(f"{world.state['seed']}/audit/{number}".encode()).digest()
    guid = shaped(digest)  # of its own: what is recorded changes no id of anything else
    table[guid] = {
        "guid": guid,
        "number": number,
        "created_at": world.stamp(),
        "updated_at": world.stamp(),
        "landscape": row["landscape"],
        "type": f"audit.{_target(row)}.{what}",
        "actor": list(actor),
        "target": [row["guid"], _target(row), row.get("name") or ""],
        "request": censored(request or {}),
        "space": space["guid"] if space is not None else "",
        "organization": space["organization"] if space is not None else "",
    }
    oldest = stamp(world.now() - KEPT)
    for name in [
        one["guid"]
        for place, one in enumerate(table.values())
        if one["created_at"] < oldest or place < len(table) - MOST
    ]:
        del table[name]


def _target(row: Row) -> str:
    if "route" in row:
        return "service_route_binding"
    if "instance" in row:
        return "service_binding" if "app" in row else "service_key"
    return "service_instance" if row["type"] == "managed" else "user_provided_service_instance"


def censored(request: Mapping[str, Any]) -> dict[str, Any]:
    private = {"parameters", "credentials", "data"}
    return {key: HIDDEN if key in private else value for key, value in request.items()}


def _readable(call: Call) -> list[Row]:
    """Developers and auditors of its space see an event, auditors of its organisation, and global readers."""
    rows = [row for row in call.rows(EVENTS).values() if row["landscape"] == call.landscape]
    if call.caller.reads_everything:
        return rows
    seen: dict[tuple[str, str], bool] = {}
    for row in rows:
        place = (row["organization"], row["space"])
        if place not in seen:
            seen[place] = call.audits(*place)
    return [row for row in rows if seen[row["organization"], row["space"]]]


def _show(call: Call, row: Row) -> dict[str, Any]:
    named = ("guid", "type", "name")
    guid, name = row["actor"]
    return {
        "guid": row["guid"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "type": row["type"],
        "actor": {"guid": guid, "type": "user", "name": name},
        "target": dict(zip(named, row["target"], strict=True)),
        "data": {"request": row["request"]},
        "space": {"guid": row["space"]} if row["space"] else None,
        "organization": {"guid": row["organization"]} if row["organization"] else None,
        "links": {"self": {"href": f"{call.api}/v3/audit_events/{row['guid']}"}},
    }


def _list(call: Call) -> Response:
    query = lists.read(
        call, FILTERS, orders=("created_at", "updated_at"), labelled=False, excluding=("target_guids",)
    )
    excluded = query.filters.get("target_guids[not]", ())
    rows = [
        row
        for row in _readable(call)
        if query.selects(row)
        and query.wants("types", row["type"])
        and query.wants("target_guids", row["target"][0])
        and row["target"][0] not in excluded
        and query.wants("space_guids", row["space"])
        and query.wants("organization_guids", row["organization"])
    ]
    rows = lists.arranged(query, rows)
    return lists.page(query, len(rows), [_show(call, row) for row in lists.cut(query, rows)])


def _one(call: Call, guid: str) -> Response:
    lists.read(call, (), single=True)
    row = next((row for row in _readable(call) if row["guid"] == guid), None)
    if row is None:
        raise not_found("Event")
    return rails_json(_show(call, row))


def routes(router: Router) -> None:
    """Audit events."""
    endpoint(router, "GET", "/v3/audit_events", _list)
    endpoint(router, "GET", "/v3/audit_events/{guid}", _one)
