"""What hangs below a service instance: parameters, credentials, permissions, and the spaces it is shared with.

Source: cloudfoundry/cloud_controller_ng app/controllers/v3/service_instances_controller.rb and
docs/v3/source/includes/resources/service_instances/.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox import brokers
from btp_reconcile.sandbox.cloud_controller import instances, jobs, lists, places
from btp_reconcile.sandbox.cloud_controller.basics import (
    APPS,
    KEYS,
    Call,
    Row,
    endpoint,
    error,
    not_authorized,
    not_found,
    operation_in_progress,
    rails_json,
    unprocessable,
)
from btp_reconcile.sandbox.http import Response

if TYPE_CHECKING:
    from btp_reconcile.sandbox.http import Router


def _parameters(call: Call, guid: str) -> Response:
    row = instances.get(call, guid)
    if row["space"] not in call.spaces:
        raise not_found("Service instance")
    kind, state = jobs.state_of(row)
    if (kind, state) == ("create", "failed"):
        raise not_found("Service instance")
    if state in instances.BUSY:
        raise operation_in_progress(row["name"])
    offering = brokers.offering(call.world, row["offering"]) if row["type"] == "managed" else None
    if offering is None or not offering.instances_retrievable:
        raise error(
            400,
            120004,
            "ServiceFetchInstanceParametersNotSupported",
            "This service does not support fetching service instance parameters.",
        )
    outcome = brokers.fetch_instance(call.world, guid)
    if outcome.status != 200:
        raise error(502, 10001, "ServiceBrokerBadResponse", jobs.broker_text(outcome))
    return rails_json(outcome.body.get("parameters") or {})


def _credentials(call: Call, guid: str) -> Response:
    row = instances.get(call, guid)
    if row["type"] == "managed":
        raise not_found("Service instance")
    if not call.reads_secrets(row["space"]):
        raise not_authorized()
    return rails_json(row["credentials"] or {})


def _permissions(call: Call, guid: str) -> Response:
    row = instances.get(call, guid)
    return rails_json({"manage": call.develops(row["space"]), "read": True})


def _shared_spaces(call: Call, guid: str) -> Response:
    row = instances.get(call, guid)
    query = lists.read(call, ("fields",), single=True, fields=instances.SHARED_FIELDS)
    return rails_json(_show_shared(call, row, query))


def _show_shared(call: Call, row: Row, query: lists.Query | None = None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "data": [{"guid": space} for space in row["shared"]],
        "links": {
            "self": {"href": f"{call.api}/v3/service_instances/{row['guid']}/relationships/shared_spaces"}
        },
    }
    if query is not None and query.fields:
        shown["included"] = instances.spaces_included(call, query, row["shared"])
    return shown


def _share(call: Call, guid: str) -> Response:
    row = instances.get(call, guid)
    call.must_develop(row["space"])
    if not places.flag(call, "service_instance_sharing") and not call.caller.admin:
        raise error(403, 330002, "FeatureDisabled", "Feature Disabled: service_instance_sharing")
    body = call.body()
    data = body.get("data")
    if not isinstance(data, list) or not all(
        isinstance(item, dict) and isinstance(item.get("guid"), str) for item in data
    ):
        raise unprocessable("Data must be an array")
    missing = [item["guid"] for item in data if item["guid"] not in call.spaces]
    refused = f"Unable to share service instance {row['name']} with spaces "
    if missing:
        names = ", ".join(f"'{space}'" for space in missing)
        raise unprocessable(f"{refused}[{names}]. Ensure the spaces exist and that you have access to them.")
    unwritable = [item["guid"] for item in data if not call.develops(item["guid"])]
    if unwritable:
        names = ", ".join(f"'{space}'" for space in unwritable)
        raise unprocessable(
            f"{refused}[{names}]. Write permission is required in order to share a service instance with a space."
        )
    if any(item["guid"] == row["space"] for item in data):
        raise unprocessable(
            f"Unable to share service instance '{row['name']}' with space '{row['space']}'. "
            "Service instances cannot be shared into the space where they were created."
        )
    row["shared"] += [item["guid"] for item in data if item["guid"] not in row["shared"]]
    return rails_json(_show_shared(call, row))


def _unshare(call: Call, guid: str, space: str) -> Response:
    row = instances.get(call, guid)
    call.must_develop(row["space"])
    if space not in row["shared"]:
        raise unprocessable(
            f"Unable to unshare service instance from space {space}. "
            "Ensure the space exists and the service instance has been shared to this space."
        )
    _unbind_apps(call, row, space)
    row["shared"].remove(space)
    return Response.empty(204)


def _unbind_apps(call: Call, row: Row, space: str) -> None:
    """Takes the apps of a space off an instance; 502 390001 when the broker does not let go of one at once."""
    rows, apps = call.rows(KEYS), call.rows(APPS)
    for bound in [bound for bound in rows.values() if bound["instance"] == row["guid"] and "app" in bound]:
        app = apps[bound["app"]]
        if app["space"] != space:
            continue
        reason = jobs.unbind_now(call.world, bound, call.actor)
        if reason is not None:
            text = f"Unshare of service instance failed: {reason}"
            raise error(502, 390001, "ServiceInstanceUnshareFailed", text)


def _usage(call: Call, guid: str) -> Response:
    row = instances.get(call, guid)
    apps = call.rows(APPS)
    counts = Counter(
        apps[bound["app"]]["space"]
        for bound in call.rows(KEYS).values()
        if bound["instance"] == guid and "app" in bound
    )
    base = f"{call.api}/v3/service_instances/{guid}"
    shared = f"{base}/relationships/shared_spaces"
    return rails_json(
        {
            "usage_summary": [
                {"space": {"guid": space}, "bound_app_count": counts[space]} for space in row["shared"]
            ],
            "links": {
                "self": {"href": f"{shared}/usage_summary"},
                "shared_spaces": {"href": shared},
                "service_instance": {"href": base},
            },
        }
    )


def routes(router: Router) -> None:
    """What hangs below an instance."""
    one = "/v3/service_instances/{guid}"
    shared = f"{one}/relationships/shared_spaces"
    endpoint(router, "GET", f"{one}/parameters", _parameters)
    endpoint(router, "GET", f"{one}/credentials", _credentials)
    endpoint(router, "GET", f"{one}/permissions", _permissions)
    endpoint(router, "GET", shared, _shared_spaces)
    endpoint(router, "POST", shared, _share)
    endpoint(router, "DELETE", f"{shared}/{{space}}", _unshare)
    endpoint(router, "GET", f"{shared}/usage_summary", _usage)
