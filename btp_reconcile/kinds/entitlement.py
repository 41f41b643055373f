"""A plan assigned to a subaccount: `entitlement:prod/afc-api-service/standard`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import quota
from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.kind import Kind
from btp_reconcile.core.model import (
    Action,
    Change,
    Fact,
    FieldChange,
    Operation,
    Phase,
    Problem,
    Verb,
    key_of,
)
from btp_reconcile.core.wire import Item, given, line, moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from btp_reconcile.core.kind import Door, Query, Task
    from btp_reconcile.core.model import Data, Resource, StepId, Subaccount, Wanted
    from btp_reconcile.core.view import View

SCHEMA: Data = {
    "description": "true (switched on), a number (exactly that amount), or a map.",
    "anyOf": [
        {"const": True, "description": "Switch the plan on."},
        {"type": "integer", "minimum": 1, "description": "Assign exactly this amount."},
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "amount": {
                    "description": "true, or exactly this amount.",
                    "anyOf": [{"const": True}, {"type": "integer", "minimum": 1}],
                },
                "unique_id": {
                    "$ref": "#/$defs/text",
                    "description": "The plan's unique identifier. Needed only when the platform knows "
                    "several plans of this service and name.",
                },
                "ensure": {
                    "type": "string",
                    "enum": ["present", "absent"],
                    "description": "absent: take the plan away from the subaccount.",
                },
            },
        },
    ],
}

_HEAD = """\
version: 1
owner: finance-platform
name: entitlement-example
subaccounts:
  prod:
    id: 5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10
    region: eu10
    entitlements:
"""

EXAMPLES = (
    _HEAD
    + """\
      afc-api-service:
        standard: true
""",
    _HEAD
    + """\
      afc-api-service:
        standard: true
      APPLICATION_RUNTIME:
        MEMORY: 2
""",
    _HEAD
    + """\
      afc-api-service:
        standard: true
      APPLICATION_RUNTIME:
        MEMORY: {amount: 4}
""",
)


# --- comparing ------------------------------------------------------------------------------------------


def compare(resource: Resource, view: View) -> Change | None:
    """What must happen to one entitlement. The live category decides between switching on and an amount."""
    subaccount = resource.address.subaccount
    unseen = view.unseen(subaccount, "entitlements")
    if unseen is not None:
        if resource.spec["implied"] or unseen.code != "access/none":
            return None
        return _waits(
            resource,
            "there are no credentials here to change entitlements: give access.central, or have it done by hand",
        )
    if subaccount in view.lost:
        return None
    facts = _of_plan(resource, view)
    if len(facts) > 1:
        view.disputed.add(resource.address)
        known = ", ".join(sorted(str(one.attributes["unique_id"]) for one in facts))
        view.object(
            "entitlement/ambiguous",
            f"{resource.address.path[1]}/{resource.address.path[2]} stands for several plans: {known}",
            resource,
            "name one of them as unique_id under entitlements",
        )
        return None
    if not facts:
        return None if resource.absent else _waits(resource, _not_entitled(resource))
    fact = facts[0]
    if fact.phase is Phase.PENDING:
        return Change(
            resource.address, Action.AWAIT, "its assignment is being changed", wanted=resource, found=fact
        )
    return _absent(resource, fact, view) if resource.absent else _present(resource, fact)


def _of_plan(resource: Resource, view: View) -> list[Fact]:
    _, service, plan = resource.address.path
    found = view.named_all("entitlement", resource.address.subaccount, f"{service}/{plan}")
    unique = resource.spec["unique_id"]
    if unique is not None:
        return [one for one in found if one.attributes["unique_id"] == unique]
    assigned = [one for one in found if one.attributes["assigned"]]
    return assigned if len(assigned) == 1 else found


def _waits(resource: Resource, why: str) -> Change:
    reason = "is to be taken away" if resource.absent else "not assigned yet"
    if resource.spec["amount"] is not True and not resource.absent:
        reason = f"is to be {resource.spec['amount']}"
    return Change(resource.address, Action.AWAIT, reason, wanted=resource, gate=why)


def _not_entitled(resource: Resource) -> str:
    _, service, plan = resource.address.path
    return (
        f"{service}/{plan} is not among what can be assigned here: have it added to the contract (or to the "
        "directory's share), or activate the capability that brings it (API Management: in Integration Suite, "
        "Manage APIs)"
    )


def _present(resource: Resource, fact: Fact) -> Change:
    said, amount = fact.attributes, resource.spec["amount"]
    send = _send(fact, amount)
    failed = fact.phase is Phase.BROKEN and fact.detail
    notes = (f"its last change failed: {fact.detail}",) if failed else ()
    if not said["numeric"] and amount is not True:
        why = "is without limit here" if said["unlimited"] else "is switched on or off, not counted"
        notes = (*notes, f"it {why} ({said['category']}); the amount {amount} has no meaning for it")
    if said["numeric"] and amount is True and not said["assigned"]:
        notes = (*notes, "it is counted, so 1 is assigned")
    if not said["assigned"]:
        wanted = send.get("amount", True)
        fields = (FieldChange("amount" if "amount" in send else "enabled", None, wanted),)
        reason = "not assigned yet" + ("; an instance here needs it" if resource.spec["implied"] else "")
        if fact.phase is Phase.BROKEN:
            reason = "its assignment failed and is tried again"
        return Change(resource.address, Action.CREATE, reason, fields, resource, fact, notes=notes, send=send)
    exact = said["numeric"] and amount is not True
    if exact and said["amount"] != amount:
        fields = (FieldChange("amount", said["amount"], amount),)
        return Change(
            resource.address,
            Action.UPDATE,
            "the amount differs",
            fields,
            resource,
            fact,
            notes=notes,
            send=send,
        )
    return Change(resource.address, Action.KEEP, "in sync", wanted=resource, found=fact, notes=notes)


def _send(fact: Fact, amount: object) -> dict[str, object]:
    """An implied or switched-on plan that is counted gets 1; it is never lowered, and never set to 0."""
    if not fact.attributes["numeric"]:
        return {"enable": True}
    return {"amount": 1 if amount is True else amount}


def _absent(resource: Resource, fact: Fact, view: View) -> Change | None:
    # While a runtime does not answer, nobody knows whether something still needs the plan.
    if not fact.attributes["assigned"] or view.silent(resource.address.subaccount):
        return None
    if fact.attributes["auto_assigned"]:
        view.object(
            "entitlement/auto-assigned",
            f"{fact.name} was assigned by the platform itself and cannot be taken away",
            resource,
            "take ensure: absent out of the spec",
        )
    send = {"amount": 0} if fact.attributes["numeric"] else {"enable": False}
    fields = (FieldChange("enabled", True, False),)
    if fact.attributes["numeric"]:
        fields = (FieldChange("amount", fact.attributes["amount"], None),)
    return Change(
        resource.address, Action.DELETE, "ensure: absent", fields, resource, fact, retired=(fact,), send=send
    )


def check(changes: Sequence[Change], view: View) -> Iterator[Problem]:
    """What is still needed is not taken away; and quota, summed over all specs before the first write."""
    gone = {key_of(fact) for change in view.changes.values() for fact in change.retired}
    gone |= {key_of(one.found) for one in view.changes.values() if one.found and _is_going(one)}
    left: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for one in view.facts.of("instance"):
        if key_of(one) not in gone:
            said = one.attributes
            left[one.subaccount, str(said.get("service")), str(said.get("plan"))].append(one.name)
    for change in changes:
        if change.action is Action.DELETE and change.wanted is not None:
            yield from _in_use(change, change.wanted, left)
    if view.wanted.part is None:  # else it is decided for all parts together
        yield from quota.short(quota.asks(changes))
    yield from _above_limit(changes)


def _is_going(change: Change) -> bool:
    """Is its deletion under way already?"""
    operation = change.found.operation if change.found else None
    return change.action is Action.AWAIT and operation is not None and operation.type == "delete"


def _in_use(
    change: Change, resource: Resource, left: Mapping[tuple[str, str, str], Sequence[str]]
) -> Iterator[Problem]:
    subaccount, service, plan = resource.address.path
    if names := sorted(left.get((subaccount, service, plan), ())):
        yield Problem(
            "entitlement/in-use",
            f"{service}/{plan} would be taken away, but there are instances of it: {', '.join(names)}",
            resource.source,
            change.address,
            "delete these instances first (ensure: absent)",
        )


def _above_limit(changes: Sequence[Change]) -> Iterator[Problem]:
    for change in changes:
        limit = change.found.attributes.get("max_per_subaccount") if change.found else None
        amount = change.send.get("amount")
        if change.acts and isinstance(limit, int) and isinstance(amount, int) and amount > limit:
            yield Problem(
                "entitlement/limit",
                f"{change.address} asks for {amount}; one subaccount can have {limit} at most",
                change.wanted.source if change.wanted else None,
                change.address,
                f"write {limit} or less",
            )


# --- the Entitlements API -------------------------------------------------------------------------------

SERVICE = "entitlements"
_ASSIGNMENTS = "/entitlements/v1/assignments"
_AUTOMATIC: Query = (("includeAutoManagedPlans", "true"),)
_COUNTED = {
    "SERVICE": True,
    "QUOTA_BASED_APPLICATION": True,
    "PLATFORM": True,
    "ENVIRONMENT": True,
    "ELASTIC_SERVICE": False,
    "ELASTIC_LIMITED": False,
    "APPLICATION": False,
}
"""Category → is it assigned by amount? (Else it is switched on and off.) The wrong one is refused, or worse, hangs."""
_STATES = {
    "STARTED": ("in progress", Phase.PENDING),
    "PROCESSING": ("in progress", Phase.PENDING),
    "PROCESSING_FAILED": ("failed", Phase.BROKEN),
    "OK": ("succeeded", Phase.READY),
}


@dataclass(frozen=True)
class _Home:
    """One subaccount, and where its quota comes from."""

    place: Subaccount
    global_account: str
    directory: str | None
    """The directory that manages entitlements for it; None: the global account does."""

    @property
    def pool(self) -> str:
        return self.directory or self.global_account


@dataclass(frozen=True)
class _View:
    """One answer of the assignments list."""

    entitled: Mapping[tuple[str, str], Sequence[Item]]
    """(service, plan) → plans."""
    assigned: Mapping[tuple[str, str, str], Sequence[tuple[Item, Item]]]
    """(service, plan, subaccount's id) → plans, each with what is assigned of it there."""


class Entitlements:
    """Plans assigned to subaccounts. One PUT for all of a subaccount: parallel ones lock each other out."""

    service = SERVICE
    batch = True
    replaces_failed = True

    def observe(
        self,
        door: Door,
        places: Sequence[Subaccount],
        wanted: Wanted,
        seen: Sequence[Fact],  # noqa: ARG002 - nothing before it matters to it
    ) -> Sequence[Fact]:
        subaccounts, homes = _homes(door.sibling("accounts"), places)
        asked: dict[str, list[Resource]] = defaultdict(list)
        for resource in wanted.of("entitlement"):
            asked[resource.address.subaccount].append(resource)
        found = list(subaccounts)
        for directory, here in _by_view(home for home in homes if asked[home.place.name]).items():
            alone = here[0].place.id if len(here) == 1 else None
            view = _view(door, alone, directory)
            for home in here:
                for pair in dict.fromkeys(_pair(one) for one in asked[home.place.name]):
                    found.extend(_facts(view, home, pair))
        return found

    def everything(
        self,
        door: Door,
        place: Subaccount,
        seen: Sequence[Fact],  # noqa: ARG002 - nothing before it matters to it
    ) -> Sequence[Fact]:
        """The subaccount, and every plan that is assigned to it."""
        subaccounts, homes = _homes(door.sibling("accounts"), [place])
        found = list(subaccounts)
        for home in homes:
            view = _view(door, place.id, home.directory)
            pairs = [one[:2] for one in view.assigned if one[2] == place.id.lower()]
            for pair in dict.fromkeys(pairs):
                category = _category_of(view, pair)
                if category in _COUNTED:
                    found.extend(_facts(view, home, pair))
                else:
                    said = {"service": pair[0], "plan": pair[1], "category": category, "known": False}
                    found.append(
                        Fact("entitlement", "/".join(pair), "/".join(pair), place.name, attributes=said)
                    )
        return found

    def create(self, door: Door, tasks: Sequence[Task]) -> None:
        self._put(door, [(task, _amount(task)) for task in tasks])

    def update(self, door: Door, tasks: Sequence[Task]) -> None:
        self._put(door, [(task, _amount(task)) for task in tasks])

    def delete(self, door: Door, tasks: Sequence[Task]) -> None:
        self._put(door, [(task, _nothing(task)) for task in tasks])

    def _put(self, door: Door, wanted: Sequence[tuple[Task, dict[str, Any]]]) -> None:
        together: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for task, amount in wanted:
            service, plan = _task_pair(task)
            one: dict[str, Any] = {"serviceName": service, "servicePlanName": plan}
            if unique := _unique(task):
                one["servicePlanUniqueIdentifier"] = unique
            one["assignmentInfo"] = [{"subaccountGUID": task.subaccount.id, **amount}]
            together[task.subaccount.id].append(one)
        for plans in together.values():
            door.send("PUT", "/entitlements/v1/subaccountServicePlans", {"subaccountServicePlans": plans})

    def look(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact | None]:
        found: dict[StepId, Fact | None] = {}
        together: dict[_Home, list[Task]] = defaultdict(list)
        for task in tasks:
            together[_home(task)].append(task)
        for home, some in together.items():
            pairs = {_task_pair(task) for task in some}
            view = _view(door, home.place.id, home.directory, pairs.pop() if len(pairs) == 1 else None)
            for task in some:
                facts = _facts(view, home, _task_pair(task))
                found[task.step.id] = _seen(facts, task)
        return found

    def blockers(self, door: Door, task: Task) -> Sequence[str]:  # noqa: ARG002 - the planner knows its instances
        return ()

    def prepare(self, door: Door, tasks: Sequence[Task]) -> Mapping[StepId, Fact]:  # noqa: ARG002 - no request
        """It needs nothing but to be entitled, which was seen."""
        return {task.step.id: task.found for task in tasks if task.found is not None}

    def seal(self, door: Door, task: Task, fact: Fact) -> None:
        """Nothing to do: an entitlement has no record."""


def _homes(accounts: Door, places: Sequence[Subaccount]) -> tuple[list[Fact], list[_Home]]:
    """The subaccounts as the platform knows them. One request; a second if directories are nested."""
    listed = Item(accounts.get("/accounts/v1/subaccounts"), "accounts", "the list of subaccounts")
    known = {one.need("guid").lower(): one for one in listed.items("value")}
    mine = [(place, known[place.id.lower()]) for place in places if place.id.lower() in known]
    tree: dict[str, str] | None = None
    facts, homes = [], []
    for place, item in mine:
        directory: str | None = None
        if "ENTITLEMENTS" in item.texts("parentFeatures"):
            directory = item.need("parentGUID")
        elif item.text("parentType") not in {"", "ROOT", "GLOBAL_ACCOUNT"}:
            tree = _managed(accounts) if tree is None else tree
            directory = tree.get(item.text("parentGUID")) or None
        homes.append(_Home(place, item.text("globalAccountGUID"), directory))
        facts.append(
            Fact(
                "subaccount",
                item.need("guid"),
                item.text("displayName"),
                place.name,
                attributes={
                    "region": item.text("region"),
                    "state": item.text("state"),
                    "contract_status": item.text("contractStatus"),
                    "directory": directory,
                },
                created_at=moment(item.any("createdDate")),
                detail=line(item.text("stateMessage")) if item.text("state") not in {"", "OK"} else "",
            )
        )
    return facts, homes


def _managed(accounts: Door) -> dict[str, str]:
    """Directory → the directory, itself or above it, that manages entitlements; empty where there is none."""
    root = Item(
        accounts.get("/accounts/v1/globalAccount", (("expand", "true"),)), "accounts", "the global account"
    )
    found: dict[str, str] = {}
    todo = [(one, "") for one in root.items("children")]
    while todo:
        item, above = todo.pop()
        guid = item.need("guid")
        features = item.any("directoryFeatures")
        manages = "ENTITLEMENTS" in features if isinstance(features, (list, str)) else False
        found[guid] = above or (guid if manages else "")
        todo.extend((one, found[guid]) for one in item.items("children"))
    return found


def _by_view(homes: Iterable[_Home]) -> dict[str | None, list[_Home]]:
    found: dict[str | None, list[_Home]] = defaultdict(list)
    for home in homes:
        found[home.directory].append(home)
    return found


def _view(
    door: Door, subaccount: str | None, directory: str | None, pair: tuple[str, str] | None = None
) -> _View:
    """One look at the list: for all, or for one subaccount, or for one plan of it (which is far shorter)."""
    query: list[tuple[str, str]] = []
    if subaccount is not None:
        query.append(("subaccountGUID", subaccount))
    if directory is not None:
        query.append(("directoryGUID", directory))
    if pair is not None:
        query.extend((("serviceName", pair[0]), ("planName", pair[1])))
    # With nothing to say it answers 204: no body.
    answer = Item(door.get(_ASSIGNMENTS, (*query, *_AUTOMATIC)) or {}, SERVICE, "the list of assignments")
    return _View(_plans(answer, "entitledServices"), _assigned(answer))


def _plans(answer: Item, name: str) -> dict[tuple[str, str], list[Item]]:
    found: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for service in answer.items(name):
        for plan in service.items("servicePlans"):
            found[service.text("name"), plan.text("name")].append(plan)
    return found


def _assigned(answer: Item) -> dict[tuple[str, str, str], list[tuple[Item, Item]]]:
    found: dict[tuple[str, str, str], list[tuple[Item, Item]]] = defaultdict(list)
    for pair, plans in _plans(answer, "assignedServices").items():
        for plan in plans:
            for info in plan.items("assignmentInfo"):
                if info.text("entityType") in {"", "SUBACCOUNT"}:
                    found[(*pair, info.text("entityId").lower())].append((plan, info))
    return found


def _facts(view: _View, home: _Home, pair: tuple[str, str]) -> list[Fact]:
    """One fact per plan of that name: entitled, assigned here, or both."""
    entitled = {plan.text("uniqueIdentifier"): plan for plan in view.entitled.get(pair, ())}
    assigned: dict[str, tuple[Item | None, Item | None]] = {
        plan.text("uniqueIdentifier"): (plan, info)
        for plan, info in view.assigned.get((*pair, home.place.id.lower()), ())
    }
    return [
        _fact(home, pair, unique, entitled.get(unique), *assigned.get(unique, (None, None)))
        for unique in dict.fromkeys((*entitled, *assigned))
    ]


def _category_of(view: _View, pair: tuple[str, str]) -> str:
    plans = [*view.entitled.get(pair, ())]
    plans.extend(plan for key, some in view.assigned.items() if key[:2] == pair for plan, _ in some)
    return next((one.text("category") for one in plans if one.text("category")), "")


def _fact(
    home: _Home,
    pair: tuple[str, str],
    unique: str,
    entitled: Item | None,
    plan: Item | None,
    info: Item | None,
) -> Fact:
    operation = _operation(info) if info else None
    return Fact(
        "entitlement",
        "/".join((home.place.id, *pair, unique)),
        "/".join(pair),
        home.place.name,
        _phase(info),
        {
            "service": pair[0],
            "plan": pair[1],
            "unique_id": unique,
            "pool": home.pool,
            "directory": home.directory,
            "entitled": entitled is not None,
            **_held("/".join(pair), entitled, plan, info),
        },
        operation=operation,
        created_at=moment(info.any("createdDate")) if info else "",
        detail=operation.text if operation and operation.state != "succeeded" else "",
    )


def _held(name: str, entitled: Item | None, plan: Item | None, info: Item | None) -> dict[str, Any]:
    """How much there is of a plan, and how much of it is assigned."""
    said = [one for one in (entitled, plan) if one is not None]
    category = next((one.text("category") for one in said if one.text("category")), "")
    if category not in _COUNTED:
        message = f"plan {name} is of category {category!r}, for which no way to assign it is known"
        raise PlatformError(Blame(SERVICE, message=message))
    unlimited = entitled is not None and entitled.flag("unlimited") is True
    numeric = _COUNTED[category] and not unlimited
    amount = _whole(info.number("amount")) if info else None
    assigned = info is not None and _is_assigned(info, amount)
    limits = (one.number("maxAllowedSubaccountQuota") for one in said)
    return {
        "category": category,
        "numeric": numeric,
        "unlimited": unlimited,
        "amount": amount if assigned else None,
        "assigned": assigned,
        "auto_assigned": info is not None and info.flag("autoAssigned") is True,
        "remaining": _remaining(entitled, info) if numeric else None,
        "max_per_subaccount": next((_whole(one) for one in limits if one is not None), None),
    }


def _operation(info: Item) -> Operation:
    state = info.text("entityState")
    if state not in _STATES:
        raise info.unclear("is in no state that is known")
    at = moment(info.any("modifiedDate"))
    return Operation("update", _STATES[state][0], at, line(info.text("stateMessage")))


def _phase(info: Item | None) -> Phase:
    return _STATES[info.text("entityState")][1] if info else Phase.READY


def _is_assigned(info: Item, amount: int | None) -> bool:
    """Is anything reserved? After a failure with no amount nothing is; with one the old assignment stands."""
    if info.flag("unlimitedAmountAssigned"):
        return True
    if amount is None:
        return _phase(info) is Phase.READY
    return amount != 0


def _remaining(entitled: Item | None, info: Item | None) -> int | float | None:
    left = entitled.number("remainingAmount") if entitled else None
    return info.number("parentRemainingAmount") if left is None and info else left


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _pair(resource: Resource) -> tuple[str, str]:
    return (resource.spec["service"], resource.spec["plan"])


def _task_pair(task: Task) -> tuple[str, str]:
    said = task.found.attributes if task.found else given(task.wanted, SERVICE, "what is wanted").spec
    return (said["service"], said["plan"])


def _unique(task: Task) -> str:
    if task.found is not None:
        return str(task.found.attributes.get("unique_id") or "")
    return str(task.wanted.spec.get("unique_id") or "") if task.wanted else ""


def _home(task: Task) -> _Home:
    said: Data = task.found.attributes if task.found else {}
    directory = said.get("directory")
    return _Home(task.subaccount, str(said.get("pool", "")), str(directory) if directory else None)


def _amount(task: Task) -> dict[str, Any]:
    """What to send: an amount or a switch, never both."""
    if "enable" in task.spec:
        return {"enable": bool(task.spec["enable"])}
    amount = task.spec.get("amount")
    if amount is not True:
        return {"amount": given(amount, SERVICE, f"the amount of {task.step.address}")}
    counted = task.found is not None and task.found.attributes.get("numeric")
    return {"amount": 1} if counted else {"enable": True}


def _nothing(task: Task) -> dict[str, Any]:
    found = given(task.found, SERVICE, f"the category of {task.step.address}")
    return {"amount": 0} if found.attributes.get("numeric") else {"enable": False}


def _seen(facts: Sequence[Fact], task: Task) -> Fact | None:
    """How far a task is. The list shows the state of before until the platform has begun."""
    unique = _unique(task)
    fact = next((one for one in facts if one.attributes["unique_id"] == unique or not unique), None)
    if fact is None or task.step.verb is Verb.AWAIT:
        return fact
    if fact.phase is Phase.BROKEN:
        before = task.found.operation if task.found else None
        old = before is not None and fact.operation is not None and before == fact.operation
        return replace(fact, phase=Phase.PENDING, detail="") if old else fact
    target = _nothing(task) if task.step.verb is Verb.DELETE else _amount(task)
    off = target in ({"enable": False}, {"amount": 0})
    said = fact.attributes
    done = (
        not said["assigned"]
        if off
        else said["assigned"] and target.get("amount", said["amount"]) == said["amount"]
    )
    if fact.phase is Phase.READY and done:
        return None if task.step.verb is Verb.DELETE else fact
    return replace(fact, phase=Phase.PENDING)


KIND = Kind(
    name="entitlement",
    title="a service plan assigned to a subaccount",
    schema=SCHEMA,
    drivers={"": Entitlements()},
    examples=EXAMPLES,
    compare=compare,
    check=check,
)
