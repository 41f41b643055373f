"""The marketplace of a landscape: offerings, plans and who may see them.

Sources: cloudfoundry/cloud_controller_ng app/presenters/v3/service_offering_presenter.rb, service_plan_presenter.rb,
app/fetchers/service_plan_list_fetcher.rb; recorded answers of an SAP landscape
(cloudfoundry/terraform-provider-cloudfoundry, fixtures/datasource_service_plans.yaml).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox import brokers
from btp_reconcile.sandbox.cloud_controller import lists, metadata, places
from btp_reconcile.sandbox.cloud_controller.basics import (
    Call,
    Row,
    endpoint,
    error,
    not_found,
    rails_json,
    unprocessable,
)
from btp_reconcile.sandbox.world import VIRTUAL_START, World, shaped_from, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btp_reconcile.sandbox.http import Response, Router

CREATED = stamp(VIRTUAL_START - 300 * 86400)
BROKER_FIELDS = {"service_broker": ("guid", "name")}
PLAN_BROKER_FIELDS = {"service_offering.service_broker": ("guid", "name")}

OFFERING_FILTERS = (
    "available",
    "fields",
    "broker_catalog_ids",
    "service_broker_guids",
    "service_broker_names",
    "names",
    "space_guids",
    "organization_guids",
)
PLAN_FILTERS = (
    "available",
    "fields",
    "broker_catalog_ids",
    "names",
    "organization_guids",
    "service_broker_guids",
    "service_broker_names",
    "service_instance_guids",
    "service_offering_guids",
    "service_offering_names",
    "space_guids",
    "include",
)
BROKER_FILTERS = ("names", "space_guids")


def foundation_id(landscape: str, *parts: str) -> str:
    """An id that a foundation made for something of a broker: stable, and another one in each landscape."""
    return shaped_from(landscape, *parts)


@dataclass(frozen=True)
class ListedPlan:
    """One plan as a landscape lists it."""

    guid: str
    offering_guid: str
    offering: brokers.Offering
    plan: brokers.Plan
    available: bool

    @property
    def row(self) -> Row:
        """What lists sort and filter by."""
        return {
            "guid": self.guid,
            "name": self.plan.name,
            "created_at": CREATED,
            "updated_at": CREATED,
            "labels": {},
        }

    @property
    def updateable(self) -> bool:
        """Whether instances of this plan may change to another."""
        return brokers.plan_updateable(self.offering, self.plan)

    @property
    def bindable(self) -> bool:
        """Whether instances of this plan take keys."""
        return self.offering.bindable and self.plan.bindable


def plans(world: World, landscape: str) -> dict[str, ListedPlan]:
    """Every plan that the brokers offer to Cloud Foundry, by the landscape's guid."""
    inactive = world.settings["cloud_foundry"].get("inactive_plans", ())
    found = {}
    for offering in brokers.offerings(world):
        if offering.kind != "service" or "cloudfoundry" not in offering.platforms:
            continue
        offering_guid = foundation_id(landscape, "offering", offering.id)
        for plan in offering.plans:
            guid = foundation_id(landscape, "plan", plan.id)
            available = f"{offering.name}/{plan.name}" not in inactive
            found[guid] = ListedPlan(guid, offering_guid, offering, plan, available)
    return found


def find(world: World, landscape: str, offering: str, plan: str) -> ListedPlan | None:
    """A plan by its names."""
    for listed in plans(world, landscape).values():
        if listed.offering.name == offering and listed.plan.name == plan:
            return listed
    return None


def broker_guid(call: Call) -> str:
    """The guid of the one broker behind all offerings."""
    return foundation_id(call.landscape, "broker", call.settings["broker"])


def enabled(call: Call, listed: ListedPlan, organization: Row, *, look: bool = False) -> bool:
    """Whether a plan is visible in an organisation."""
    return brokers.visible(
        call.world,
        organization["subaccount"],
        listed.offering.name,
        listed.plan.name,
        "cf",
        look=look,
    )


def visible_plans(call: Call, *, look: bool = False) -> dict[str, set[str]]:
    """The plans that the caller sees at all, with the organisations in which each may be used."""
    result: dict[str, set[str]] = {}
    for guid, listed in plans(call.world, call.landscape).items():
        where = {
            organization["guid"]
            for organization in call.organizations.values()
            if enabled(call, listed, organization, look=look)
        }
        if where or call.caller.reads_everything:
            result[guid] = where
    return result


def must_see(call: Call, guid: str) -> ListedPlan:
    """A plan named in a request body; 422 when it is unknown or invisible to the caller."""
    listed = plans(call.world, call.landscape).get(guid)
    if listed is not None and (
        call.caller.reads_everything
        or any(enabled(call, listed, organization) for organization in call.organizations.values())
    ):
        return listed
    raise unprocessable(
        "Invalid service plan. Ensure that the service plan exists, is available, and you have access to it."
    )


def _refreshed(call: Call) -> str:
    """When the catalogue was read last: offerings and plans get a new ``updated_at`` each time."""
    step = call.settings["catalogue_refresh"]
    return stamp(call.world.now() // step * step)


def show_offering(
    call: Call, offering: brokers.Offering, guid: str, *, available: bool = True
) -> dict[str, Any]:
    """One offering, members in the order of a real answer."""
    broker = broker_guid(call)
    about = dict(offering.metadata)
    return {
        "guid": guid,
        "created_at": CREATED,
        "updated_at": _refreshed(call),
        "name": offering.name,
        "description": offering.description,
        "available": available,
        "tags": list(offering.tags),
        "requires": [],
        "shareable": about.get("shareable") is True,
        "documentation_url": about.get("documentationUrl") or "",
        "broker_catalog": {
            "id": offering.id,
            "metadata": about,
            "features": {
                "plan_updateable": offering.plan_updateable,
                "bindable": offering.bindable,
                "instances_retrievable": offering.instances_retrievable,
                "bindings_retrievable": offering.bindings_retrievable,
                "allow_context_updates": offering.allow_context_updates,
            },
        },
        "relationships": {"service_broker": {"data": {"guid": broker}}},
        "metadata": {"labels": {}, "annotations": {}},
        "links": {
            "self": {"href": f"{call.api}/v3/service_offerings/{guid}"},
            "service_plans": {"href": f"{call.api}/v3/service_plans?service_offering_guids={guid}"},
            "service_broker": {"href": f"{call.api}/v3/service_brokers/{broker}"},
        },
    }


def show_plan(call: Call, listed: ListedPlan) -> dict[str, Any]:
    """One plan, members in the order of a real answer."""
    plan, guid = listed.plan, listed.guid
    instance = plan.schemas.get("service_instance") or {}
    binding = plan.schemas.get("service_binding") or {}
    return {
        "guid": guid,
        "created_at": CREATED,
        "updated_at": _refreshed(call),
        "name": plan.name,
        "visibility_type": "organization",
        "available": listed.available,
        "free": plan.free,
        "costs": [],
        "description": plan.description,
        "maintenance_info": dict(plan.maintenance_info),
        "broker_catalog": {
            "id": plan.id,
            "metadata": dict(plan.metadata),
            "maximum_polling_duration": None,
            "features": {"bindable": listed.bindable, "plan_updateable": listed.updateable},
        },
        "schemas": {
            "service_instance": {
                "create": {"parameters": (instance.get("create") or {}).get("parameters", {})},
                "update": {"parameters": (instance.get("update") or {}).get("parameters", {})},
            },
            "service_binding": {
                "create": {"parameters": (binding.get("create") or {}).get("parameters", {})},
            },
        },
        "relationships": {"service_offering": {"data": {"guid": listed.offering_guid}}},
        "metadata": {"labels": {}, "annotations": {}},
        "links": {
            "self": {"href": f"{call.api}/v3/service_plans/{guid}"},
            "service_offering": {"href": f"{call.api}/v3/service_offerings/{listed.offering_guid}"},
            "visibility": {"href": f"{call.api}/v3/service_plans/{guid}/visibility"},
        },
    }


def show_broker(call: Call, keys: Iterable[str]) -> dict[str, str]:
    """The broker, reduced to the keys asked for."""
    whole = {"guid": broker_guid(call), "name": call.settings["broker"]}
    return {key: whole[key] for key in ("name", "guid") if key in keys}


def _usable(call: Call, query: lists.Query, where: set[str]) -> bool:
    """The filters ``space_guids`` and ``organization_guids``: usable there."""
    wanted: set[str] = set()
    if "organization_guids" in query.filters:
        wanted |= set(query.filters["organization_guids"])
    if "space_guids" in query.filters:
        spaces = call.spaces
        wanted |= {spaces[guid]["organization"] for guid in query.filters["space_guids"] if guid in spaces}
    elif "organization_guids" not in query.filters:
        return True
    return bool(wanted & where)


def _may_browse(call: Call) -> None:
    flag = places.flag(call, "hide_marketplace_from_unauthenticated_users")
    if not call.caller.known and flag:
        raise error(401, 10002, "NotAuthenticated", "Authentication error")


def _available(query: lists.Query, available: bool) -> bool:
    return query.wants("available", "true" if available else "false")


def _list_offerings(call: Call) -> Response:
    _may_browse(call)
    query = lists.read(call, OFFERING_FILTERS, fields=BROKER_FIELDS, choices={"available": ("true", "false")})
    seen = visible_plans(call, look=True)
    listed: dict[str, ListedPlan] = {}
    active: set[str] = set()
    for guid, where in seen.items():
        item = plans(call.world, call.landscape)[guid] if guid not in listed else listed[guid]
        if item.available:
            active.add(item.offering_guid)
        if _usable(call, query, where):
            listed.setdefault(item.offering_guid, item)
    rows = [
        {**item.row, "guid": guid, "name": item.offering.name}
        for guid, item in listed.items()
        if query.wants("names", item.offering.name)
        and query.wants("broker_catalog_ids", item.offering.id)
        and query.wants("service_broker_guids", broker_guid(call))
        and query.wants("service_broker_names", call.settings["broker"])
        and _available(query, guid in active)
    ]
    rows = lists.arranged(query, [row for row in rows if query.selects(row)])
    shown = [
        show_offering(call, listed[row["guid"]].offering, row["guid"], available=row["guid"] in active)
        for row in lists.cut(query, rows)
    ]
    included = _included_broker(call, query, "service_broker", some=bool(shown))
    return lists.page(query, len(rows), shown, included)


def _included_broker(call: Call, query: lists.Query, resource: str, *, some: bool) -> dict[str, Any]:
    if resource not in query.fields:
        return {}
    return {"service_brokers": [show_broker(call, query.fields[resource])] if some else []}


def _one_offering(call: Call, guid: str) -> Response:
    _may_browse(call)
    query = lists.read(call, ("fields",), single=True, fields=BROKER_FIELDS)
    seen = visible_plans(call)
    found = [
        listed
        for listed in plans(call.world, call.landscape).values()
        if listed.offering_guid == guid and listed.guid in seen
    ]
    if not found:
        raise not_found("Service offering")
    shown = show_offering(call, found[0].offering, guid, available=any(item.available for item in found))
    included = _included_broker(call, query, "service_broker", some=True)
    return rails_json({**shown, "included": included} if included else shown)


def _list_plans(call: Call) -> Response:
    _may_browse(call)
    query = lists.read(
        call,
        PLAN_FILTERS,
        includes=("space.organization", "service_offering"),
        fields=PLAN_BROKER_FIELDS,
        choices={"available": ("true", "false")},
    )
    every = plans(call.world, call.landscape)
    of_instances: set[str] | None = None
    if "service_instance_guids" in query.filters:
        from btp_reconcile.sandbox.cloud_controller import instances

        wanted = query.filters["service_instance_guids"]
        of_instances = {
            str(row["plan_guid"]) for row in instances.readable(call).values() if row["guid"] in wanted
        }
    chosen = [
        every[guid]
        for guid, where in visible_plans(call, look=True).items()
        if _usable(call, query, where)
        and query.wants("names", every[guid].plan.name)
        and query.wants("broker_catalog_ids", every[guid].plan.id)
        and query.wants("service_offering_guids", every[guid].offering_guid)
        and query.wants("service_offering_names", every[guid].offering.name)
        and query.wants("service_broker_guids", broker_guid(call))
        and query.wants("service_broker_names", call.settings["broker"])
        and _available(query, every[guid].available)
        and (of_instances is None or guid in of_instances)
    ]
    rows = lists.arranged(query, [item.row for item in chosen if query.selects(item.row)])
    shown = [every[row["guid"]] for row in lists.cut(query, rows)]
    return lists.page(
        query, len(rows), [show_plan(call, item) for item in shown], _with_plans(call, query, shown)
    )


def _with_plans(call: Call, query: lists.Query, shown: list[ListedPlan]) -> dict[str, Any]:
    included: dict[str, Any] = {}
    if "service_offering" in query.include:
        offerings = {item.offering_guid: item.offering for item in shown}
        included["service_offerings"] = [
            show_offering(call, offerings[guid], guid) for guid in sorted(offerings)
        ]
    if "space.organization" in query.include:
        included |= {"spaces": [], "organizations": []}
    return included | _included_broker(call, query, "service_offering.service_broker", some=bool(shown))


def _one_plan(call: Call, guid: str) -> Response:
    _may_browse(call)
    query = lists.read(
        call,
        ("fields", "include"),
        single=True,
        includes=("space.organization", "service_offering"),
        fields=PLAN_BROKER_FIELDS,
    )
    listed = _visible(call, guid)
    shown = show_plan(call, listed)
    included = _with_plans(call, query, [listed])
    return rails_json({**shown, "included": included} if included else shown)


def _visible(call: Call, guid: str) -> ListedPlan:
    if guid not in visible_plans(call, look=True):
        raise not_found("Service plan")
    return plans(call.world, call.landscape)[guid]


def _visibility(call: Call, guid: str) -> Response:
    _visible(call, guid)
    where = visible_plans(call)[guid]
    return rails_json(
        {
            "type": "organization",
            "organizations": [
                {"guid": row["guid"], "name": row["name"]}
                for row in call.organizations.values()
                if row["guid"] in where
            ],
        }
    )


def _list_brokers(call: Call) -> Response:
    """Callers without administration see only brokers of their spaces, and there are none."""
    query = lists.read(call, BROKER_FILTERS)
    row: Row = {
        "guid": broker_guid(call),
        "name": call.settings["broker"],
        "created_at": CREATED,
        "updated_at": _refreshed(call),
        "labels": {},
        "annotations": {},
    }
    seen = call.caller.reads_everything and query.selects(row) and query.wants("names", row["name"])
    if not seen or "space_guids" in query.filters:
        return lists.page(query, 0, [])
    shown = {
        "guid": row["guid"],
        "name": row["name"],
        "url": f"https://{row['name']}.cfapps.{call.landscape}.hana.ondemand.com",
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "relationships": {},
        "metadata": metadata.shown(row),
        "links": {
            "self": {"href": f"{call.api}/v3/service_brokers/{row['guid']}"},
            "service_offerings": {
                "href": f"{call.api}/v3/service_offerings?service_broker_guids={row['guid']}"
            },
        },
    }
    return lists.page(query, 1, lists.cut(query, [shown]))


def routes(router: Router) -> None:
    """Offerings, plans and brokers."""
    endpoint(router, "GET", "/v3/service_offerings", _list_offerings, anonymous=True)
    endpoint(router, "GET", "/v3/service_offerings/{guid}", _one_offering, anonymous=True)
    endpoint(router, "GET", "/v3/service_plans", _list_plans, anonymous=True)
    endpoint(router, "GET", "/v3/service_plans/{guid}", _one_plan, anonymous=True)
    endpoint(router, "GET", "/v3/service_plans/{guid}/visibility", _visibility)
    endpoint(router, "GET", "/v3/service_brokers", _list_brokers)
