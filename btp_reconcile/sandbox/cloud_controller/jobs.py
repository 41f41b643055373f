"""Jobs: what Cloud Controller does after it has said 202.

A job waits until a worker takes it (delay ``cf.job``), calls the broker, and polls while the broker is busy. In looks
mode it moves on when somebody looks at the job, or at the thing it works on; in seconds mode with the clock.
Sources: cloudfoundry/cloud_controller_ng app/jobs/v3/, lib/services/service_brokers/v2/client.rb and
response_parser.rb, app/presenters/v3/job_presenter.rb.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox import brokers, faults
from btp_reconcile.sandbox.cloud_controller import audit_events
from btp_reconcile.sandbox.cloud_controller.basics import (
    INSTANCES,
    JOBS,
    KEYS,
    ORGANIZATIONS,
    ROUTE_BINDINGS,
    SPACES,
    Call,
    Row,
    endpoint,
    not_found,
    rails_json,
)
from btp_reconcile.sandbox.world import World, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from btp_reconcile.sandbox.brokers import Outcome
    from btp_reconcile.sandbox.http import Response, Router

PENDING = "cf.pending"
LINKS = {
    "service_instance.create": ("service_instances", INSTANCES, "service_instances"),
    "service_instance.update": ("service_instances", INSTANCES, "service_instances"),
    "service_instance.delete": ("service_instance", INSTANCES, "service_instances"),
    "service_keys.create": ("service_credential_binding", KEYS, "service_credential_bindings"),
    "service_keys.delete": ("service_credential_binding", KEYS, "service_credential_bindings"),
    "service_bindings.delete": ("service_credential_binding", KEYS, "service_credential_bindings"),
    "service_route_bindings.delete": ("service_route_binding", ROUTE_BINDINGS, "service_route_bindings"),
}
VERBS = {
    "service_instance.create": "provision",
    "service_instance.update": "update",
    "service_instance.delete": "deprovision",
    "service_keys.create": "bind",
    "service_keys.delete": "unbind",
    "service_bindings.delete": "unbind",
    "service_route_bindings.delete": "unbind",
}
SPECIAL = {
    "AsyncRequired": "This service plan requires client support for asynchronous service operations.",
    "ConcurrencyError": (
        "The service broker could not perform this operation in parallel with other running operations"
    ),
    "MaintenanceInfoConflict": (
        "maintenance_info.version requested is invalid. Please ensure the catalog is up to date and you are "
        "providing a version supported by this service plan."
    ),
}


def start(
    world: World,
    operation: str,
    row: Row,
    payload: dict[str, Any] | None = None,
    *,
    by: Sequence[str] | None,
    asked: Mapping[str, Any] | None = None,
) -> Row:
    """Queues a job for an instance or a key. `by` and `asked`: whose request it was, and what stood in it."""
    guid = world.new_id()
    job: Row = {
        "guid": guid,
        "created_at": world.stamp(),
        "updated_at": world.stamp(),
        "operation": operation,
        "state": "PROCESSING",
        "errors": [],
        "warnings": [],
        "resource": row["guid"],
        "landscape": row["landscape"],
        "ticket": world.ticket("cf.job"),
        "failure": None,
        "payload": payload or {},
        "by": list(by) if by is not None else None,
        "asked": audit_events.censored(asked or {}),
    }
    world.table(JOBS)[guid] = job
    world.table(PENDING)[guid] = row["guid"]
    return job


def _note(world: World, job: Row, row: Row, *, begun: bool = False) -> None:
    """The audit event of a job that has begun at the broker, or has ended well."""
    by = job.get("by")
    verb = job["operation"].rpartition(".")[2]
    if by is not None:
        what = f"start_{verb}" if begun else verb
        audit_events.record(world, what, row, (by[0], by[1]), job.get("asked"))


def last_operation(world: World, kind: str, state: str, description: str | None = "") -> Row:
    """A row that replaces the one before, so both of its times are now."""
    now = world.stamp()
    return {"type": kind, "state": state, "description": description, "updated_at": now, "created_at": now}


def state_of(row: Row) -> tuple[str | None, str | None]:
    """Type and state of the last operation of an instance or key."""
    last = row["last_operation"] or {}
    return last.get("type"), last.get("state")


def shown_operation(row: Row) -> Row:
    """The last operation of a binding, members in their own order (app/presenters/mixins/last_operation_helper.rb)."""
    order = ("state", "description", "type", "updated_at", "created_at")
    return {name: row["last_operation"][name] for name in order}


def deletion(row: Row) -> str:
    """The operation that deletes a key, the binding of an app, or that of a route."""
    if "route" in row:
        return "service_route_bindings.delete"
    return "service_bindings.delete" if "app" in row else "service_keys.delete"


def _bound(world: World, instance: str) -> list[Row]:
    """What is bound to an instance, in the order in which its deletion takes it along."""
    rows = [row for row in world.table(KEYS).values() if row["instance"] == instance]
    return [
        *(row for row in world.table(ROUTE_BINDINGS).values() if row["instance"] == instance),
        *(row for row in rows if "app" in row),
        *(row for row in rows if "app" not in row),
    ]


def settle(world: World) -> None:
    """Lets the clock move jobs on; in looks mode nothing happens."""
    if world.mode == "seconds":
        for guid in list(world.table(PENDING)):
            advance(world, world.table(JOBS)[guid])


def look_at(world: World, resources: Iterable[str]) -> None:
    """Somebody saw these instances or keys: one look for each job that works on one of them."""
    pending = world.table(PENDING)
    if pending:
        seen = set(resources)
        for guid, resource in list(pending.items()):
            if resource in seen:
                advance(world, world.table(JOBS)[guid])


def look_at_one(world: World, resource: str) -> None:
    """Somebody saw this instance or key."""
    look_at(world, (resource,))


def advance(world: World, job: Row) -> None:
    """One look at a job: it starts, or polls, when its time has come."""
    if job["guid"] not in world.table(PENDING) or not world.look(job["ticket"]):
        return
    if job["state"] == "PROCESSING":
        job["updated_at"] = world.stamp()
        if _stuck(world, job):
            return
        _RUN[job["operation"]](world, job)
        # The first run polls at once.
        if job["state"] == "POLLING" and "unbinding" not in job and world.look(job["ticket"]):
            _finish(world, job)
    else:
        job["updated_at"] = world.stamp()
        _finish(world, job)


def _stuck(world: World, job: Row) -> bool:
    """Whether a fault lets the job hang for ever: before it began, or once it says that something is in progress."""
    thing = world.table(LINKS[job["operation"]][1]).get(job["resource"])
    instance = (
        thing if thing is None or "instance" not in thing else world.table(INSTANCES)[thing["instance"]]
    )
    if thing is None or instance is None or "offering" not in instance:
        return False
    names = (thing.get("name"), instance["name"])
    verb = VERBS[job["operation"]]
    found = faults.stuck(world, verb, names, instance["offering"], instance["plan"])
    if found is None:
        return False
    phase, job["ticket"] = found
    if phase != "initial":
        kind = job["operation"].rpartition(".")[2]
        thing["last_operation"] = last_operation(world, kind, phase, "" if thing is instance else None)
        job["state"] = "POLLING"
    return True


def _finish(world: World, job: Row) -> None:
    if job.get("unbinding"):
        _delete_instance(world, job)
        return
    if job["resource"] not in world.table(LINKS[job["operation"]][1]):
        gone = (10010, "ResourceNotFound", "The resource of this operation is gone")
        _end(world, job, *(() if job["operation"].endswith(".delete") else (gone,)))
        return
    _DONE[job["operation"]](world, job)


def _end(world: World, job: Row, *errors: tuple[int, str, str]) -> None:
    job["state"] = "FAILED" if errors else "COMPLETE"
    job["errors"] = [
        {"detail": detail, "title": f"CF-{title}", "code": code} for code, title, detail in errors
    ]
    job["updated_at"] = world.stamp()
    world.table(PENDING).pop(job["guid"], None)


def _fail(world: World, job: Row, verb: str, text: str) -> None:
    _end(world, job, (10009, "UnableToPerform", f"{verb} could not be completed: {text}"))


def _poll(job: Row, outcome: Outcome) -> None:
    job["state"] = "POLLING"
    job["ticket"] = outcome.ticket
    job["failure"] = outcome.failure


def broker_text(outcome: Outcome) -> str:
    """What Cloud Controller makes of a broker's refusal."""
    status, body = outcome.status, outcome.body
    description = body.get("description")
    if status == 401:
        return (
            "Authentication with the service broker failed. "
            "Double-check that the username and password are correct."
        )
    if status == 408:
        return "The request to the service broker timed out"
    if status == 422 and body.get("error") in SPECIAL:
        return SPECIAL[body["error"]]
    if description:
        return f"Service broker error: {description}"
    if status == 409:
        return "Resource conflict"
    phrase = HTTPStatus(status).phrase
    said = "returned an invalid response" if status >= 500 else "rejected the request"
    return f"The service broker {said}. Status Code: {status} {phrase}, Body: {json.dumps(body)}"


# ----------------------------------------------------------------------------------------------------------------------
# Instances


def context(world: World, row: Row) -> dict[str, Any]:
    """What the platform tells a broker about where an instance lives."""
    space = world.table(SPACES)[row["space"]]
    organization = world.table(ORGANIZATIONS)[space["organization"]]
    return {
        "subaccount_id": organization["subaccount"],
        "subdomain": organization["subdomain"],
        "region": organization["region"],
        "platform": "cloudfoundry",
        "instance_name": row["name"],
        "space_guid": space["guid"],
        "space_name": space["name"],
        "organization_guid": organization["guid"],
        "organization_name": organization["name"],
        "instance_annotations": {key: text for key, text in row["annotations"].items() if "/" in key},
    }


def _create_instance(world: World, job: Row) -> None:
    row = world.table(INSTANCES).get(job["resource"])
    if row is None:
        _end(world, job, (10010, "ResourceNotFound", "The service instance could not be found"))
        return
    outcome = brokers.provision(
        world,
        instance_id=row["guid"],
        offering=row["offering"],
        plan=row["plan"],
        parameters=job["payload"]["parameters"],
        context=context(world, row),
    )
    if outcome.status in {200, 201}:
        row["dashboard_url"] = outcome.body.get("dashboard_url")
        _created_instance(world, job)
    elif outcome.status == 202:
        row["dashboard_url"] = outcome.body.get("dashboard_url")
        row["last_operation"] = last_operation(world, "create", "in progress")
        _note(world, job, row, begun=True)
        _poll(job, outcome)
    else:
        text = broker_text(outcome)
        if outcome.status >= 500 or outcome.status == 408:
            brokers.deprovision(world, instance_id=row["guid"])  # orphan mitigation
        row["last_operation"] = last_operation(world, "create", "failed", text)
        _fail(world, job, "provision", text)


def _created_instance(world: World, job: Row) -> None:
    row = world.table(INSTANCES)[job["resource"]]
    if job["failure"] is not None:
        row["last_operation"] = last_operation(world, "create", "failed", job["failure"])
        _fail(world, job, "create managed", job["failure"])
        return
    row["last_operation"] = last_operation(world, "create", "succeeded")
    row["updated_at"] = world.stamp()
    _note(world, job, row)
    _end(world, job)


def _update_instance(world: World, job: Row) -> None:
    row, payload = world.table(INSTANCES).get(job["resource"]), job["payload"]
    if row is None:
        _end(world, job, (10010, "ResourceNotFound", "The service instance could not be found"))
        return
    changed = {**row, **payload["changes"]}
    outcome = brokers.update(
        world,
        instance_id=row["guid"],
        offering=row["offering"],
        plan=changed["plan"],
        parameters=payload["parameters"],
        previous_plan=row["plan"],
        context=context(world, changed),
    )
    if outcome.status in {200, 201}:
        if "dashboard_url" in outcome.body:
            payload["changes"]["dashboard_url"] = outcome.body["dashboard_url"]
        _updated_instance(world, job)
    elif outcome.status == 202:
        _note(world, job, row, begun=True)
        _poll(job, outcome)
    else:
        text = broker_text(outcome)
        row["last_operation"] = last_operation(world, "update", "failed", text)
        _fail(world, job, "update", text)


def _updated_instance(world: World, job: Row) -> None:
    row = world.table(INSTANCES)[job["resource"]]
    if job["failure"] is not None:
        row["last_operation"] = last_operation(world, "update", "failed", job["failure"])
        _fail(world, job, "update", job["failure"])
        return
    row.update(job["payload"]["changes"])
    row["last_operation"] = last_operation(world, "update", "succeeded")
    row["updated_at"] = world.stamp()
    _note(world, job, row)
    _end(world, job)


def _delete_instance(world: World, job: Row) -> None:
    row = world.table(INSTANCES).get(job["resource"])
    if row is None:
        _end(world, job)
        return
    if not _unbound(world, job, row):
        return
    outcome = brokers.deprovision(world, instance_id=row["guid"])
    if outcome.status in {200, 410}:
        _deleted_instance(world, job)
        return
    if outcome.status == 202:
        _abort_creation(world, row["guid"])
        row["last_operation"] = last_operation(world, "delete", "in progress")
        _note(world, job, row, begun=True)
        job.pop("unbinding", None)
        _poll(job, outcome)
        return
    text = broker_text(outcome)
    concurrent = outcome.status == 422 and outcome.body.get("error") == "ConcurrencyError"
    if concurrent and state_of(row) == ("create", "in progress"):
        detail = f"An operation for service instance {row['name']} is in progress."
        _end(world, job, (60016, "AsyncServiceInstanceOperationInProgress", detail))
        return
    if outcome.status != 409 and not concurrent:
        text = f"Service instance {row['name']}: {text}"
    _abort_creation(world, row["guid"])
    row["last_operation"] = last_operation(world, "delete", "failed", text)
    _fail(world, job, "delete", text)


def _unbound(world: World, job: Row, row: Row) -> bool:
    """Removes all bindings of an instance; false when that failed or takes time, which the job then says."""
    patient = world.settings["cloud_foundry"]["recursive_unbind"]
    busy = f"An operation for a service binding of service instance {row['name']} is in progress."
    waiting = False
    for key in _bound(world, row["guid"]):
        running = [guid for guid, resource in world.table(PENDING).items() if resource == key["guid"]]
        if running:
            waiting = True
            if patient:
                for guid in running:
                    advance(world, world.table(JOBS)[guid])
            continue
        outcome = _unbind(world, key)
        if outcome.status in {200, 410}:
            if job.get("by") is not None:
                audit_events.record(world, "delete", key, (job["by"][0], job["by"][1]))
            del world.table(LINKS[deletion(key)][1])[key["guid"]]
        elif outcome.status == 202:
            key["last_operation"] = last_operation(world, "delete", "in progress", None)
            along = start(world, deletion(key), key, by=job.get("by"))
            _note(world, along, key, begun=True)
            _poll(along, outcome)
            waiting = True
        else:
            text = (
                f"Service broker failed to delete service binding for instance {row['name']}: "
                f"{broker_text(outcome)}"
            )
            key["last_operation"] = last_operation(world, "delete", "failed", text)
            row["last_operation"] = last_operation(world, "delete", "failed", text)
            _fail(world, job, "delete", text)
            return False
    if waiting and patient:
        job["state"] = "POLLING"
        job["unbinding"] = True
        job["ticket"] = world.ticket("cf.job")
        job["warnings"] = [{"detail": "Deletion of the service instance is still in progress..."}]
        row["last_operation"] = last_operation(world, "delete", "in progress")
        return False
    if waiting:
        row["last_operation"] = last_operation(world, "delete", "failed", busy)
        _fail(world, job, "delete", busy)
        return False
    return True


def _abort_creation(world: World, guid: str) -> None:
    """A deletion has overtaken the creation."""
    for name, resource in list(world.table(PENDING).items()):
        job = world.table(JOBS)[name]
        if resource == guid and job["operation"].endswith(".create"):
            _fail(world, job, "create", "delete in progress")


def _deleted_instance(world: World, job: Row) -> None:
    row = world.table(INSTANCES)[job["resource"]]
    if job["failure"] is not None:
        row["last_operation"] = last_operation(world, "delete", "failed", job["failure"])
        _fail(world, job, "delete", job["failure"])
        return
    _abort_creation(world, row["guid"])
    _note(world, job, row)
    del world.table(INSTANCES)[row["guid"]]
    _end(world, job)


# ----------------------------------------------------------------------------------------------------------------------
# Keys and other bindings


def _create_key(world: World, job: Row) -> None:
    key = world.table(KEYS).get(job["resource"])
    instance = world.table(INSTANCES).get(key["instance"]) if key else None
    if key is None or instance is None:
        _end(world, job, (10010, "ResourceNotFound", "The binding could not be found"))
        return
    outcome = brokers.bind(
        world,
        instance_id=instance["guid"],
        binding_id=key["guid"],
        parameters=job["payload"]["parameters"],
        context={**context(world, instance), "binding_name": key["name"]},
    )
    if outcome.status in {200, 201}:
        key["credentials"] = outcome.body.get("credentials") or {}
        _created_key(world, job)
        return
    offering = brokers.offering(world, instance["offering"])
    if outcome.status == 202 and offering is not None and not offering.bindings_retrievable:
        text = (
            "The service binding is invalid: "
            "The broker responded asynchronously but does not support fetching binding data"
        )
        brokers.unbind(world, instance_id=instance["guid"], binding_id=key["guid"])
        key["last_operation"] = last_operation(world, "create", "failed", text)
        _end(world, job, (90001, "ServiceBindingInvalid", text))
    elif outcome.status == 202:
        key["last_operation"] = last_operation(world, "create", "in progress", None)
        _note(world, job, key, begun=True)
        _poll(job, outcome)
    else:
        text = broker_text(outcome)
        if outcome.status >= 500 or outcome.status == 408:
            brokers.unbind(world, instance_id=instance["guid"], binding_id=key["guid"])
        key["last_operation"] = last_operation(world, "create", "failed", text)
        _fail(world, job, "bind", text)


def _created_key(world: World, job: Row) -> None:
    key = world.table(KEYS)[job["resource"]]
    if job["failure"] is not None:
        key["last_operation"] = last_operation(world, "create", "failed", job["failure"])
        _fail(world, job, "create", "VCAP::CloudController::V3::LastOperationFailedState")
        return
    if key["credentials"] is None:
        key["credentials"] = brokers.fetch_binding(world, key["guid"]).body.get("credentials") or {}
    key["last_operation"] = last_operation(world, "create", "succeeded", None)
    key["updated_at"] = world.stamp()
    _note(world, job, key)
    _end(world, job)


def _unbind(world: World, key: Row) -> Outcome:
    """The broker's answer; it never heard of bindings to a user-provided instance."""
    return brokers.unbind(world, instance_id=key["instance"], binding_id=key["guid"])


def unbind_now(world: World, key: Row, by: tuple[str, str]) -> str | None:
    """Deletes a binding within the request; the reason when the broker does not do that, or not at once."""
    outcome = _unbind(world, key)
    if outcome.status in {200, 410}:
        audit_events.record(world, "delete", key, by)
        del world.table(LINKS[deletion(key)][1])[key["guid"]]
        return None
    name = world.table(INSTANCES)[key["instance"]]["name"]
    if outcome.status == 202:
        key["last_operation"] = last_operation(world, "delete", "in progress", None)
        along = start(world, deletion(key), key, by=by)
        _note(world, along, key, begun=True)
        _poll(along, outcome)
        return f"An operation for a service binding of service instance {name} is in progress."
    text = f"Service broker failed to delete service binding for instance {name}: {broker_text(outcome)}"
    key["last_operation"] = last_operation(world, "delete", "failed", text)
    return text


def _delete_key(world: World, job: Row) -> None:
    key = world.table(LINKS[job["operation"]][1]).get(job["resource"])
    if key is None:
        _end(world, job)
        return
    outcome = _unbind(world, key)
    if outcome.status in {200, 410}:
        _deleted_key(world, job)
    elif outcome.status == 202:
        _abort_creation(world, key["guid"])
        key["last_operation"] = last_operation(world, "delete", "in progress", None)
        _note(world, job, key, begun=True)
        _poll(job, outcome)
    else:
        _abort_creation(world, key["guid"])
        _undeleted_key(world, job, key, broker_text(outcome))


def _undeleted_key(world: World, job: Row, key: Row, reason: str) -> None:
    name = world.table(INSTANCES)[key["instance"]]["name"]
    text = f"Service broker failed to delete service binding for instance {name}: {reason}"
    key["last_operation"] = last_operation(world, "delete", "failed", text)
    _fail(world, job, "unbind", text)


def _deleted_key(world: World, job: Row) -> None:
    rows = world.table(LINKS[job["operation"]][1])
    key = rows[job["resource"]]
    if job["failure"] is not None:
        _undeleted_key(world, job, key, job["failure"])
        return
    _abort_creation(world, key["guid"])
    _note(world, job, key)
    del rows[key["guid"]]
    _end(world, job)


_RUN = {
    "service_instance.create": _create_instance,
    "service_instance.update": _update_instance,
    "service_instance.delete": _delete_instance,
    "service_keys.create": _create_key,
    "service_keys.delete": _delete_key,
    "service_bindings.delete": _delete_key,
    "service_route_bindings.delete": _delete_key,
}
_DONE = {
    "service_instance.create": _created_instance,
    "service_instance.update": _updated_instance,
    "service_instance.delete": _deleted_instance,
    "service_keys.create": _created_key,
    "service_keys.delete": _deleted_key,
    "service_bindings.delete": _deleted_key,
    "service_route_bindings.delete": _deleted_key,
}


# ----------------------------------------------------------------------------------------------------------------------
# GET /v3/jobs/:guid


def _show(call: Call, guid: str) -> Response:
    job = call.world.table(JOBS).get(guid)
    if job is None or job["landscape"] != call.landscape:
        raise not_found("Job")
    if call.world.now() - seconds(job["created_at"]) > call.settings["job_retention"]:
        del call.world.table(JOBS)[guid]
        raise not_found("Job")
    advance(call.world, job)
    link, table, path = LINKS[job["operation"]]
    links = {"self": {"href": f"{call.api}/v3/jobs/{guid}"}}
    if job["resource"] in call.world.table(table):
        links[link] = {"href": f"{call.api}/v3/{path}/{job['resource']}"}
    return rails_json(
        {
            "guid": guid,
            "created_at": job["created_at"],
            "updated_at": job["updated_at"],
            "operation": job["operation"],
            "state": job["state"],
            "errors": job["errors"],
            "warnings": job["warnings"],
            "links": links,
        }
    )


def routes(router: Router) -> None:
    """Jobs."""
    endpoint(router, "GET", "/v3/jobs/{guid}", _show)
