"""A binding by which this program itself opens a service: `access:prod/service_manager`.

The Accounts service gives whoever holds a `central` key a binding to the Service Manager of any subaccount (Accounts Service
API, `/accounts/v2/subaccounts/{guid}/serviceManagerBindings`). Its name is all that marks it as ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from btp_reconcile.core import digest
from btp_reconcile.core.errors import PlatformError
from btp_reconcile.core.kind import Kind
from btp_reconcile.core.model import Action, Change, Fact
from btp_reconcile.core.wire import given

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from btp_reconcile.core.kind import Door, Task
    from btp_reconcile.core.model import Data, Resource, StepId, Subaccount, Wanted
    from btp_reconcile.core.view import View

ACCOUNTS = "accounts"
_GONE = 404

SCHEMA: Data = {}
"""It is not written by itself: `access: {service_manager: {bootstrap: true}}` asks for it."""


def compare(resource: Resource, view: View) -> Change | None:
    """Is the named binding there? It holds nothing that could differ."""
    if view.unseen(resource.address.subaccount, ACCOUNTS):
        return None
    found = view.by_id.get(("access", resource.address.subaccount, str(resource.address)))
    if resource.absent:
        if found is None:
            return None
        return Change(
            resource.address, Action.DELETE, "ensure: absent", (), resource, found, retired=(found,)
        )
    if found is None:
        return Change(resource.address, Action.CREATE, f"create access binding {resource.name}", (), resource)
    return Change(resource.address, Action.KEEP, "in sync", (), resource, found)


class AccountBindings:
    """Named Service Manager bindings, by the Accounts service."""

    service = ACCOUNTS
    batch = False
    replaces_failed = False

    def observe(
        self, door: Door, places: Sequence[Subaccount], wanted: Wanted, seen: Sequence[Fact]
    ) -> Sequence[Fact]:
        """Nothing: a binding is looked at together with its credentials, see `opened`."""
        del door, places, wanted, seen
        return ()

    def opened(
        self, door: Door, place: Subaccount, resource: Resource
    ) -> tuple[Fact, Mapping[str, Any]] | None:
        """The binding and what it opens, every text of that a `Secret`; None: it is not there. One GET."""
        try:
            found = door.get(_path(place, resource.name))
        except PlatformError as error:
            if error.blame.status == _GONE:
                return None
            raise
        hidden: Mapping[str, Any] = digest.hidden(found if isinstance(found, dict) else {}, "access")
        return _fact(resource, place), hidden

    def create(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            wanted = given(task.wanted, ACCOUNTS, f"what is said about {task.step.address}")
            door.send("POST", _path(task.subaccount), {"name": wanted.name})

    def update(self, door: Door, tasks: Sequence[Task]) -> None:
        """Never: nothing in it can differ. Nothing plans such a step."""
        raise NotImplementedError

    def delete(self, door: Door, tasks: Sequence[Task]) -> None:
        for task in tasks:
            wanted = given(task.wanted, ACCOUNTS, f"what is said about {task.step.address}")
            door.send("DELETE", _path(task.subaccount, wanted.name))

    def look(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact | None]:
        found: dict[StepId, Fact | None] = {}
        for task in tasks:
            wanted = given(task.wanted, ACCOUNTS, f"what is said about {task.step.address}")
            there = self.opened(door, task.subaccount, wanted)
            found[task.step.id] = there[0] if there is not None else None
        return found

    def blockers(self, door: Door, task: Task) -> Sequence[str]:  # noqa: ARG002 - nothing stands in a binding
        return ()

    def prepare(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:  # noqa: ARG002 - no request
        return {task.step.id: task.found for task in tasks if task.found is not None}

    def seal(self, door: Door, task: Task, fact: Fact) -> None:
        """Nothing to do: there are no parameters."""


def _path(place: Subaccount, name: str = "") -> str:
    path = f"/accounts/v2/subaccounts/{quote(place.id, safe='')}/serviceManagerBindings"
    return f"{path}/{quote(name, safe='')}" if name else path


def _fact(resource: Resource, place: Subaccount) -> Fact:
    return Fact("access", str(resource.address), resource.name, place.name)


KIND = Kind(
    name="access",
    title="a binding by which this program opens a service",
    schema=SCHEMA,
    drivers={"": AccountBindings()},
    compare=compare,
)
