"""Service credential bindings: the sandbox makes those of type ``key``; those of apps come with its seed.

Sources: cloudfoundry/cloud_controller_ng app/controllers/v3/service_credential_bindings_controller.rb, app/actions/
service_credential_binding_key_create.rb, app/presenters/v3/service_credential_binding_presenter.rb; recorded answers of
an SAP landscape (cloudfoundry/terraform-provider-cloudfoundry,
fixtures/resource_service_credential_binding_managed_service_key.yaml).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox import brokers
from btp_reconcile.sandbox.cloud_controller import (
    apps,
    audit_events,
    bodies,
    catalogue,
    instances,
    jobs,
    lists,
    metadata,
    quotas,
)
from btp_reconcile.sandbox.cloud_controller.basics import (
    APPS,
    INSTANCES,
    KEYS,
    Call,
    Row,
    endpoint,
    error,
    not_found,
    rails_json,
    unprocessable,
)
from btp_reconcile.sandbox.http import Response, relocated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btp_reconcile.sandbox.http import Router
    from btp_reconcile.sandbox.world import World

FILTERS = (
    "names",
    "service_instance_guids",
    "service_instance_names",
    "service_plan_names",
    "service_plan_guids",
    "service_offering_names",
    "service_offering_guids",
    "app_guids",
    "app_names",
    "include",
    "type",
)
INCLUDES = ("app", "service_instance")
FIELDS = ("type", "name", "relationships", "parameters", "metadata")


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def home(call: Call, key: Row) -> str:
    """The space from which a binding is seen: the app's, or for a key the one that owns the instance."""
    row = call.rows(APPS)[key["app"]] if "app" in key else call.rows(INSTANCES)[key["instance"]]
    return str(row["space"])


def get(call: Call, guid: str) -> Row:
    """One readable binding; 404 otherwise."""
    key: Row | None = call.rows(KEYS).get(guid)
    if key is not None and key["landscape"] == call.landscape and home(call, key) in call.spaces:
        return key
    raise not_found("Service credential binding")


def show(call: Call, key: Row) -> dict[str, Any]:
    """One binding, members in the order of a real answer."""
    api, guid, instance = call.api, key["guid"], key["instance"]
    base = f"{api}/v3/service_credential_bindings/{guid}"
    relationships = {"service_instance": {"data": {"guid": instance}}}
    links = {
        "self": {"href": base},
        "details": {"href": f"{base}/details"},
        "service_instance": {"href": f"{api}/v3/service_instances/{instance}"},
    }
    if call.rows(INSTANCES)[instance]["type"] == "managed":
        links["parameters"] = {"href": f"{base}/parameters"}
    if "app" in key:
        relationships["app"] = {"data": {"guid": key["app"]}}
        links["app"] = {"href": f"{api}/v3/apps/{key['app']}"}
    return {
        "guid": guid,
        "created_at": key["created_at"],
        "updated_at": key["updated_at"],
        "name": key["name"],
        "type": "app" if "app" in key else "key",
        "last_operation": jobs.shown_operation(key),
        "metadata": metadata.shown(key),
        "relationships": relationships,
        "links": links,
    }


def _list(call: Call) -> Response:
    query = lists.read(call, FILTERS, includes=INCLUDES, choices={"type": ("app", "key")})
    every = call.rows(INSTANCES)
    spaces, filters = call.spaces, query.filters
    wanted = {
        guid: row
        for guid, row in every.items()
        if row["landscape"] == call.landscape and _instance_fits(call, query, row)
    }
    homes = {guid for guid, row in wanted.items() if row["space"] in spaces}
    of_app = _of_app(call, query)
    rows = [
        key
        for key in call.rows(KEYS).values()
        if (key["instance"] in wanted and key["app"] in of_app if "app" in key else key["instance"] in homes)
    ]
    if filters.get("type") == ["app"] or "app_guids" in filters or "app_names" in filters:
        rows = [key for key in rows if "app" in key]
    elif filters.get("type") == ["key"]:
        rows = [key for key in rows if "app" not in key]
    if "names" in filters:
        names = set(filters["names"])
        rows = [key for key in rows if key["name"] in names]
    rows = lists.arranged(query, [key for key in rows if query.selects(key)], "+created_at")
    page = lists.cut(query, rows)
    answer = lists.page(query, len(rows), [show(call, key) for key in page], _included(call, query, page))
    jobs.look_at(call.world, [key["guid"] for key in page])
    return answer


def _of_app(call: Call, query: lists.Query) -> set[str]:
    """The apps whose bindings a list may show."""
    if query.filters.get("type") == ["key"]:
        return set()
    return {
        guid
        for guid, app in call.rows(APPS).items()
        if app["space"] in call.spaces
        and query.wants("app_guids", guid)
        and query.wants("app_names", app["name"])
    }


def _instance_fits(call: Call, query: lists.Query, row: Row) -> bool:
    if not (
        query.wants("service_instance_guids", row["guid"])
        and query.wants("service_instance_names", row["name"])
        and query.wants("service_plan_guids", row["plan_guid"])
        and query.wants("service_plan_names", row["plan"])
        and query.wants("service_offering_names", row["offering"])
    ):
        return False
    if "service_offering_guids" not in query.filters:
        return True
    listed = catalogue.plans(call.world, call.landscape).get(row["plan_guid"])
    return listed is not None and query.wants("service_offering_guids", listed.offering_guid)


def _included(call: Call, query: lists.Query, page: list[Row]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if "app" in query.include:
        every = call.rows(APPS)
        guids = dict.fromkeys(key["app"] for key in page if "app" in key)
        result["apps"] = [apps.show_app(call, every[guid]) for guid in guids]
    if "service_instance" in query.include:
        every = call.rows(INSTANCES)
        guids = dict.fromkeys(key["instance"] for key in page)
        listed = catalogue.plans(call.world, call.landscape)
        result["service_instances"] = [instances.show(call, every[guid], listed) for guid in guids]
    return result


def _one(call: Call, guid: str) -> Response:
    query = lists.read(call, ("include",), single=True, includes=INCLUDES)
    key = get(call, guid)
    shown = show(call, key)
    if query.include:
        shown["included"] = _included(call, query, [key])
    answer = rails_json(shown)
    jobs.look_at_one(call.world, guid)
    return answer


def _must_be_made(call: Call, key: Row) -> None:
    """404 with the reason unless the key was made and nobody has tried to delete it."""
    kind, state = jobs.state_of(key)
    if (kind, state) == ("create", "succeeded"):
        return
    jobs.look_at_one(call.world, key["guid"])
    what = "Creation" if kind == "create" else "Deletion"
    how = "failed" if state == "failed" else "in progress"
    thing = "service binding" if "app" in key else "service key"
    raise error(404, 10010, "ResourceNotFound", f"{what} of {thing} {how}")


def _details(call: Call, guid: str) -> Response:
    key = get(call, guid)
    if not call.reads_secrets(home(call, key)):
        raise not_found("Service credential binding")
    _must_be_made(call, key)
    audit_events.record(call.world, "show", key, call.actor)
    details = {"credentials": relocated(key["credentials"], call.request.url)}
    drain = call.rows(INSTANCES)[key["instance"]]["syslog_drain_url"]
    if "app" in key and drain:
        details["syslog_drain_url"] = drain
    return rails_json(details)


def _parameters(call: Call, guid: str) -> Response:
    key = get(call, guid)
    _must_be_made(call, key)
    instance = call.rows(INSTANCES)[key["instance"]]
    offering = brokers.offering(call.world, instance["offering"])
    if offering is None or not offering.bindings_retrievable:
        raise error(
            400,
            90007,
            "ServiceFetchBindingParametersNotSupported",
            "This service does not support fetching service binding parameters.",
        )
    outcome = brokers.fetch_binding(call.world, guid)
    if outcome.status != 200:
        raise error(502, 10001, "ServiceBrokerBadResponse", jobs.broker_text(outcome))
    return rails_json(outcome.body.get("parameters") or {})


# ----------------------------------------------------------------------------------------------------------------------
# Creating


def _create(call: Call) -> Response:
    body = call.body()
    _check_body(body)
    guid = bodies.related(body, "service_instance") or ""
    instance = instances.readable(call).get(guid)
    if instance is None:
        raise unprocessable(f"The service instance could not be found: '{guid}'")
    call.must_develop(instance["space"])
    if body["type"] == "app":
        text = "The sandbox does not emulate POST /v3/service_credential_bindings with type 'app'."
        raise error(501, 10001, "NotEmulated", text)
    if instance["type"] != "managed":
        raise unprocessable(
            "Service credential bindings of type 'key' are not supported for user-provided service instances."
        )
    listed = catalogue.plans(call.world, call.landscape).get(instance["plan_guid"])
    if listed is None or not listed.bindable:
        raise unprocessable("Service plan does not allow bindings.")
    kind, state = jobs.state_of(instance)
    if (kind, state) == ("create", "failed"):
        raise unprocessable("Service instance not found")
    if state in instances.BUSY:
        raise unprocessable("There is an operation in progress for the service instance")
    quotas.check_key(call, instance["space"])
    name = body["name"]
    _free_name(call, guid, name)
    key = new_row(call.world, instance, name)
    key.update(metadata.merge(call, key, body))
    call.world.table(KEYS)[key["guid"]] = key
    payload = {"parameters": body.get("parameters")}
    job = jobs.start(call.world, "service_keys.create", key, payload, by=call.actor, asked=body)
    return call.accepted(job)


def _check_body(body: Mapping[str, Any]) -> None:
    problems = []
    stray = [field for field in body if field not in FIELDS]
    if stray:
        problems.append(f"Unknown field(s): {', '.join(repr(field) for field in stray)}")
    if body.get("type") not in {"app", "key"}:
        problems.append("Type must be 'app' or 'key'")
    if body.get("type") == "key":
        problems += bodies.name_problems(body)
        problems += bodies.relationship_problems(body, "service_instance")
    elif not isinstance(body.get("relationships"), dict):
        problems.append("Relationships 'relationships' is not an object")
    problems += bodies.parameter_problems(body)
    problems += metadata.problems(dict(body))
    if problems:
        raise unprocessable(*problems)


def new_row(world: World, instance: Row, name: str | None, guid: str | None = None) -> Row:
    """The row of a new key; its creation has only just been asked for. With an ``app`` it is that app's binding."""
    return {
        "guid": guid or world.new_id(),
        "created_at": world.stamp(),
        "updated_at": world.stamp(),
        "name": name,
        "instance": instance["guid"],
        "landscape": instance["landscape"],
        "credentials": None,
        "labels": {},
        "annotations": {},
        "last_operation": jobs.last_operation(world, "create", "initial", None),
    }


def _free_name(call: Call, instance: str, name: str) -> None:
    """422 when the instance has such a key; one whose creation failed gives its name up."""
    rows = call.world.table(KEYS)
    taken = next(
        (
            key
            for key in rows.values()
            if key["instance"] == instance and key["name"] == name and "app" not in key
        ),
        None,
    )
    if taken is None:
        return
    kind, state = jobs.state_of(taken)
    if (kind, state) == ("create", "failed"):
        brokers.unbind(call.world, instance_id=instance, binding_id=taken["guid"])
        del rows[taken["guid"]]
        return
    start = "The binding name is invalid. Key binding names must be unique. The service instance already has a key"
    if kind == "delete":
        raise unprocessable(
            f"{start} binding with the name '{name}' that is getting deleted or its deletion failed."
        )
    raise unprocessable(f"{start} binding with name '{name}'.")


# ----------------------------------------------------------------------------------------------------------------------
# Changing and deleting


def _update(call: Call, guid: str) -> Response:
    key = get(call, guid)
    body = call.body()
    call.must_develop(home(call, key))
    stray = [field for field in body if field != "metadata"]
    problems = [f"Unknown field(s): {', '.join(repr(field) for field in stray)}"] if stray else []
    problems += metadata.problems(body)
    if problems:
        raise unprocessable(*problems)
    if jobs.state_of(key) == ("delete", "in progress"):
        raise unprocessable("The service binding is being deleted")
    key.update(metadata.merge(call, key, body))
    audit_events.record(call.world, "update", key, call.actor, body)
    return rails_json(show(call, key))


def _delete(call: Call, guid: str) -> Response:
    key = get(call, guid)
    instance = call.rows(INSTANCES)[key["instance"]]
    call.must_develop(home(call, key))
    if jobs.state_of(key) in {("create", "initial"), ("delete", "in progress")}:
        raise unprocessable("There is an operation in progress for the service binding.")
    if jobs.state_of(instance)[1] in instances.BUSY:
        raise unprocessable("There is an operation in progress for the service instance.")
    if instance["type"] != "managed":
        audit_events.record(call.world, "delete", key, call.actor)
        del call.world.table(KEYS)[guid]
        return Response.empty(204)
    return call.accepted(jobs.start(call.world, jobs.deletion(key), key, by=call.actor))


def routes(router: Router) -> None:
    """Service credential bindings."""
    one = "/v3/service_credential_bindings/{guid}"
    endpoint(router, "GET", "/v3/service_credential_bindings", _list)
    endpoint(router, "POST", "/v3/service_credential_bindings", _create)
    endpoint(router, "GET", one, _one)
    endpoint(router, "PATCH", one, _update)
    endpoint(router, "DELETE", one, _delete)
    endpoint(router, "GET", f"{one}/details", _details)
    endpoint(router, "GET", f"{one}/parameters", _parameters)
