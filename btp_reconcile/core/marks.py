"""What we write beside the things we make, and what the platform says about their operations. Values only.

Cloud Foundry wants a dot in the prefix of a label, Service Manager's query language knows none; apart from that
the marks are the same. The fingerprint is an annotation on Cloud Foundry (without prefix: a prefixed one would be
handed to the broker) and a label in Service Manager.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.model import Mark, Operation, Phase, Verb
from btp_reconcile.core.wire import given, line

if TYPE_CHECKING:
    from btp_reconcile.core.kind import Task
    from btp_reconcile.core.model import Fact, Resource, Subaccount, Wanted
    from btp_reconcile.core.wire import Item

CLOUD_FOUNDRY = "btp.reconcile/"
SERVICE_MANAGER = "btp-reconcile/"
ANNOTATION = "btp-reconcile-parameters"
NOTE = "btp-reconcile-"
"""Before the name of a note beside a key, on Cloud Foundry. `core/record.py` says which notes there are."""
OWNER = SERVICE_MANAGER + "owner"
PARAMETERS = SERVICE_MANAGER + "parameters"
PLAN = SERVICE_MANAGER + "plan"
PENDING = frozenset({"initial", "in progress", "pending"})
SETTLED = frozenset({"succeeded", "failed"})


# --- labels ---------------------------------------------------------------------------------------------


def labels(prefix: str, mark: Mark, generation: int) -> dict[str, str]:
    """The mark of one generation, as labels."""
    return {
        prefix + "owner": mark.owner,
        prefix + "spec": mark.spec,
        prefix + "name": mark.name,
        prefix + "generation": str(generation),
    }


def read(prefix: str, found: Mapping[str, str]) -> Mark | None:
    """The mark that labels hold. None when a part is missing or the generation is no number: then it is not ours."""
    owner, spec, name, generation = (
        found.get(prefix + part, "") for part in ("owner", "spec", "name", "generation")
    )
    if not (owner and spec and name and re.fullmatch(r"[1-9][0-9]{0,5}", generation)):
        return None
    return Mark(owner, spec, name, int(generation))


_NO_NOTES = frozenset({"owner", "spec", "name", "generation", "parameters", "plan"})


def notes(prefix: str, found: Mapping[str, str]) -> dict[str, str]:
    """Our notes beside a key, without the prefix that the platform keeps them under."""
    return {
        key.removeprefix(prefix): text
        for key, text in found.items()
        if key.startswith(prefix) and key.removeprefix(prefix) not in _NO_NOTES
    }


def sm_notes(found: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The same of Service Manager's labels. Two runs at once leave two values; every note begins with a time, or is
    one, so the greatest is the latest.
    """
    return notes(SERVICE_MANAGER, {key: max(values) for key, values in found.items() if values})


def cf_texts(item: Item, *path: str) -> dict[str, str]:
    """Labels or annotations of Cloud Foundry; what is no text is left out."""
    return {key: value for key, value in item.mapping(*path).items() if isinstance(value, str)}


def sm_labels(item: Item) -> dict[str, tuple[str, ...]]:
    """Labels of Service Manager, each with all its values; what has another shape is left out."""
    return {
        key: tuple(str(value) for value in values)
        for key, values in item.mapping("labels").items()
        if isinstance(values, list)
    }


def single(found: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The labels that have exactly one value. Ours do."""
    return {key: values[0] for key, values in found.items() if len(values) == 1}


def our_labels(found: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """What must be known of the labels to change ours."""
    return {key: values for key, values in found.items() if key.startswith(SERVICE_MANAGER)}


def label_changes(found: Mapping[str, Sequence[str]], wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """Service Manager's list of label changes that leads from one to the other: one value each."""
    changes: list[dict[str, Any]] = []
    for key, value in wanted.items():
        before = tuple(found.get(key, ()))
        if value not in before:
            # A key is never removed and added again in one list: the order in which that is done is not promised.
            changes.append({"op": "add_values" if before else "add", "key": key, "values": [value]})
        if others := [one for one in before if one != value]:
            changes.append({"op": "remove_values", "key": key, "values": others})
    return changes


def foreign(found: Mapping[str, Sequence[str]]) -> str:
    """Whose labels these are if they are the Kubernetes operator's, in words."""
    if not any(key in found for key in ("_clusterid", "_namespace", "_k8sname")):
        return ""
    cluster, namespace = (", ".join(found.get(key, ())) or "?" for key in ("_clusterid", "_namespace"))
    return f"it belongs to the Kubernetes service operator (cluster {cluster}, namespace {namespace})"


def cf_metadata(task: Task, record: str) -> dict[str, Any]:
    """What a write carries on Cloud Foundry: always the mark, and the record of the parameters if there is one."""
    metadata: dict[str, Any] = {"labels": _of_task(CLOUD_FOUNDRY, task, "cloud_foundry")}
    if record:
        metadata["annotations"] = {ANNOTATION: record}
    return metadata


def sm_wanted(task: Task) -> dict[str, str]:
    """The mark that a thing of the Service Manager must carry."""
    return _of_task(SERVICE_MANAGER, task, "service_manager")


def _of_task(prefix: str, task: Task, service: str) -> dict[str, str]:
    wanted = given(task.wanted, service, f"the owner of {task.step.address}")
    return labels(prefix, wanted.mark, task.step.generation)


# --- whose it is ----------------------------------------------------------------------------------------


def names(mark: Mark | None, resource: Resource) -> bool:
    """Is this the mark of that resource, of any generation?"""
    return (
        mark is not None
        and mark.owner in {resource.mark.owner, resource.owner_was}
        and mark.spec == resource.mark.spec
        and mark.name in known_as(resource)
    )


def known_as(resource: Resource) -> tuple[str, ...]:
    """The logical names under which its things are found: its own, and the one it had before."""
    return tuple(dict.fromkeys((resource.mark.name, resource.renamed_from or resource.mark.name)))


def stands_for(fact: Fact, resource: Resource) -> bool:
    """Does this carry the mark of that resource, of any generation?"""
    same = (fact.kind, fact.subaccount) == (resource.address.kind, resource.address.subaccount)
    return same and names(fact.mark, resource)


def called(fact: Fact, resource: Resource) -> bool:
    """Is this what a spec means by its id or, if it gives none, by its name?"""
    if resource.adopt and resource.adopt.id:
        return fact.id == resource.adopt.id
    return fact.name == resource.sought


def newest(facts: Sequence[Fact], resource: Resource) -> Fact | None:
    """The newest generation that carries its mark."""
    found = [fact for fact in facts if stands_for(fact, resource)]
    return max(found, key=lambda one: one.mark.generation if one.mark else 0, default=None)


def owners(wanted: Wanted) -> list[str]:
    """Every owner whose things are looked for: of the loaded specs, and those that are taken over from."""
    before = {resource.owner_was for resource in wanted.resources if resource.owner_was}
    return sorted(before | {owner for owner, _ in wanted.owners})


def sm_belongs(said: str, place: Subaccount) -> None:
    """Raises when a key opens the Service Manager of another subaccount than the spec says.

    A token's zone (`zid`) is the subaccount's guid, which is also its tenant id (Accounts Service API, `technicalName`).
    """
    if said and said.lower() != place.id.lower():
        raise PlatformError(
            Blame(
                "service_manager",
                message=f"the key given for subaccount {place.name} ({place.id}) opens subaccount {said}; "
                f"put one of {place.name} into access.service_manager",
            )
        )


# --- operations -----------------------------------------------------------------------------------------


def cf_operation(item: Item) -> Operation | None:
    """Cloud Foundry's last operation. Its row is replaced at each step, so its time is that of the last step."""
    last = item.item("last_operation")
    kind, state = last.text("type").lower(), last.text("state").lower()
    if not kind and not state:
        return None
    at = last.text("updated_at") or last.text("created_at")
    return Operation(kind, state, at, line(last.text("description")))


def sm_operation(item: Item) -> Operation | None:
    """Service Manager's last operation. Its time is that of the request which started it."""
    last = item.item("last_operation")
    kind, state = last.text("type").lower(), last.text("state").lower()
    if not kind and not state:
        return None
    said = last.text("description") or _said(last.any("errors"))
    return Operation(kind, state, last.text("created_at") or last.text("updated_at"), line(said))


def _said(errors: Any) -> str:
    """The first words in Service Manager's `errors`, which is an object, a list of them, or a text."""
    if isinstance(errors, str):
        return errors
    if isinstance(errors, list):
        return next((said for said in map(_said, errors) if said), "")
    if not isinstance(errors, Mapping):
        return ""
    inner = errors.get("broker_error")
    broker = inner.get("Description") if isinstance(inner, Mapping) else None
    return next((one for one in (errors.get("description"), broker) if isinstance(one, str) and one), "")


def target(task: Task, service: str) -> Fact:
    """The thing that a task changes, removes or waits for."""
    return given(task.found, service, f"the id of {task.step.address}")


def by_id_or_name(tasks: Sequence[Task]) -> tuple[list[Task], list[Task]]:
    """Tasks whose thing is known by its id, and those that make one: of that the name is known, and the place."""
    by_id: list[Task] = []
    by_name: list[Task] = []
    for task in tasks:
        (by_name if task.step.verb is Verb.CREATE or task.found is None else by_id).append(task)
    return by_id, by_name


def cf_phase(operation: Operation | None, lost: frozenset[str]) -> Phase:
    """`lost` names the operations whose failure leaves nothing that can be used."""
    if operation is None:
        return Phase.READY
    if operation.state not in SETTLED:
        return Phase.PENDING
    return Phase.BROKEN if operation.state == "failed" and operation.type in lost else Phase.READY


def sm_phase(operation: Operation | None, ready: bool | None) -> Phase:
    """`ready` stays false for what was never made; a failed update or deletion leaves a thing in use."""
    if operation is not None and operation.state not in SETTLED:
        return Phase.PENDING
    failed = operation is not None and operation.state == "failed"
    if ready is False:
        return Phase.BROKEN if failed else Phase.PENDING
    never = failed and ready is None and operation is not None and operation.type == "create"
    return Phase.BROKEN if never else Phase.READY


def detail(operation: Operation | None) -> str:
    """What is worth telling a person about it: why it failed, or what it waits for."""
    if operation is None or operation.state == "succeeded":
        return ""
    if operation.text or operation.state in PENDING:
        return operation.text
    return line(f"{operation.type} {operation.state}, no reason given")


def after_delete(fact: Fact, found: Fact | None) -> Fact:
    """What is still there after a deletion was asked for: on its way, until a new deletion is seen to have failed."""
    now, before = fact.operation, found.operation if found else None
    failed = now is not None and (now.type, now.state) == ("delete", "failed")
    if failed and now is not None:
        same = before is not None and (before.type, before.state, before.at) == (now.type, now.state, now.at)
        if not same:
            return fact
    return replace(fact, phase=Phase.PENDING, detail=fact.detail if fact.phase is Phase.PENDING else "")
