"""Service route bindings: the sandbox shows those of its seed and makes none.

Sources: cloudfoundry/cloud_controller_ng app/controllers/v3/service_route_bindings_controller.rb, app/messages/
service_route_bindings_list_message.rb and service_route_binding_show_message.rb, app/fetchers/
route_binding_list_fetcher.rb, app/presenters/v3/service_route_binding_presenter.rb; CF API v3 "Service Route Binding".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox.cloud_controller import apps, catalogue, instances, jobs, lists, metadata
from btp_reconcile.sandbox.cloud_controller.basics import (
    API,
    INSTANCES,
    ROUTE_BINDINGS,
    ROUTES,
    Call,
    Row,
    endpoint,
    not_found,
    rails_json,
)

if TYPE_CHECKING:
    from btp_reconcile.sandbox.http import Response, Router
    from btp_reconcile.sandbox.world import World

LIST = "/v3/service_route_bindings"
FILTERS = ("service_instance_guids", "service_instance_names", "route_guids", "include")
INCLUDES = ("route", "service_instance")
ORDERS = ("created_at", "updated_at")


def new_row(world: World, instance: Row, route: Row, url: str | None, guid: str | None = None) -> Row:
    """The row of a route binding."""
    return {
        "guid": guid or world.new_id(),
        "created_at": world.stamp(),
        "updated_at": world.stamp(),
        "instance": instance["guid"],
        "route": route["guid"],
        "route_service_url": url,
        "landscape": instance["landscape"],
        "labels": {},
        "annotations": {},
        "last_operation": jobs.last_operation(world, "create", "succeeded", None),
    }


def show(call: Call, row: Row) -> dict[str, Any]:
    """One route binding, members in the order of the documentation."""
    base = f"{call.api}{LIST}/{row['guid']}"
    instance = call.rows(INSTANCES)[row["instance"]]
    links = {
        "self": {"href": base},
        "service_instance": {"href": f"{call.api}/v3/service_instances/{instance['guid']}"},
        "route": {"href": f"{call.api}/v3/routes/{row['route']}"},
    }
    if instance["type"] == "managed":
        links["parameters"] = {"href": f"{base}/parameters"}
    return {
        "guid": row["guid"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "route_service_url": row["route_service_url"],
        "last_operation": jobs.shown_operation(row),
        "metadata": metadata.shown(row),
        "relationships": {
            "service_instance": {"data": {"guid": instance["guid"]}},
            "route": {"data": {"guid": row["route"]}},
        },
        "links": links,
    }


def _readable(call: Call, row: Row) -> bool:
    return (
        row["landscape"] == call.landscape and call.rows(INSTANCES)[row["instance"]]["space"] in call.spaces
    )


def _included(call: Call, query: lists.Query, page: list[Row]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if "route" in query.include:
        routes = call.rows(ROUTES)
        guids = dict.fromkeys(row["route"] for row in page)
        result["routes"] = [apps.show_route(call, routes[guid]) for guid in guids]
    if "service_instance" in query.include:
        every = call.rows(INSTANCES)
        guids = dict.fromkeys(row["instance"] for row in page)
        listed = catalogue.plans(call.world, call.landscape)
        result["service_instances"] = [instances.show(call, every[guid], listed) for guid in guids]
    return result


def _list(call: Call) -> Response:
    query = lists.read(call, FILTERS, includes=INCLUDES, orders=ORDERS)
    every = call.rows(INSTANCES)
    rows = [
        row
        for row in call.rows(ROUTE_BINDINGS).values()
        if _readable(call, row)
        and query.wants("service_instance_guids", row["instance"])
        and query.wants("service_instance_names", every[row["instance"]]["name"])
        and query.wants("route_guids", row["route"])
        and query.selects(row)
    ]
    rows = lists.arranged(query, rows)
    page = lists.cut(query, rows)
    answer = lists.page(query, len(rows), [show(call, row) for row in page], _included(call, query, page))
    jobs.look_at(call.world, [row["guid"] for row in page])
    return answer


def _one(call: Call, guid: str) -> Response:
    query = lists.read(call, ("include",), single=True, includes=INCLUDES)
    row = call.rows(ROUTE_BINDINGS).get(guid)
    if row is None or not _readable(call, row):
        raise not_found("Service route binding")
    shown = show(call, row)
    if query.include:
        shown["included"] = _included(call, query, [row])
    answer = rails_json(shown)
    jobs.look_at_one(call.world, guid)
    return answer


def routes(router: Router) -> None:
    """Reading route bindings, and what the sandbox lacks of them."""
    one = f"{LIST}/{{guid}}"
    endpoint(router, "GET", LIST, _list)
    endpoint(router, "GET", one, _one)
    for method, path in (
        ("POST", LIST),
        ("PATCH", one),
        ("DELETE", one),
        ("GET", f"{one}/parameters"),
    ):
        router.lacks(API, method, path)
