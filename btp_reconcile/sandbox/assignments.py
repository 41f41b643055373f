"""The quota book of the sandbox: what the contract holds, what is assigned to whom, and when a plan shows up.

Kept apart from the HTTP side (``entitlements.py``), because Cloud Controller and Service Manager ask the same
questions through :mod:`.brokers`. An assignment goes ``STARTED`` → ``PROCESSING`` → ``OK`` or ``PROCESSING_FAILED``
(swagger of the Entitlements Service, ``entityState``); only then do the marketplaces learn of it, each in its own time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .world import World

BUSY = frozenset({"STARTED", "PROCESSING"})
WHERE = ("cf", "sm")
Row = dict[str, Any]


def plan_key(service: str, plan: str, unique_id: str) -> str:
    return f"{service}/{plan}/{unique_id}"


def contract(world: World) -> dict[str, Row]:
    """Every plan of the global account: key → row."""
    return world.table("entitlements.plans")


def of(world: World, entity_id: str) -> dict[str, Row]:
    """The assignments of one subaccount or directory: key → row."""
    rows: dict[str, Row] = world.table("entitlements.assignments").setdefault(entity_id, {})
    return rows


def each(world: World) -> Iterator[Row]:
    for rows in world.table("entitlements.assignments").values():
        yield from rows.values()


def contract_plans(world: World, service: str, plan: str) -> list[Row]:
    return [row for row in contract(world).values() if row["service"] == service and row["plan"] == plan]


def live_instances(world: World, subaccount_id: str, service: str, plan: str) -> int:
    return sum(
        1
        for row in world.rows("broker.instances").values()
        if row["offering"] == service
        and row["plan"] == plan
        and row["context"].get("subaccount_id") == subaccount_id
        and not row.get("hidden")
    )


def settle(world: World, entity_id: str, *, look: bool = True) -> None:
    """Moves what is under way for this entity one look on, and finishes what has had its time."""
    rows = of(world, entity_id)
    for key in [key for key, row in rows.items() if row["state"] in BUSY]:
        row = rows[key]
        done = world.look(row["ticket"]) if look else world.done(row["ticket"])
        if not done:
            row["state"] = "PROCESSING" if row.get("seen") else "STARTED"
            row["seen"] = row.get("seen", False) or look
            continue
        if row["state"] == "STARTED" and row.get("seen") and (row["ticket"].get("needs") or 0) > 1:
            row["state"] = "PROCESSING"  # no state is skipped before somebody could see it
            continue
        _finish(world, rows, key)


def _finish(world: World, rows: dict[str, Row], key: str) -> None:
    row = rows[key]
    wanted = row.pop("wanted")
    row.pop("ticket")
    row.pop("seen", None)
    failure = row.pop("failure", None)
    removing = not wanted
    if removing and failure is None and row["entity_type"] == "SUBACCOUNT":
        used = live_instances(world, row["entity_id"], row["service"], row["plan"])
        if used:
            failure = (
                f"Cannot remove the assignment of plan '{row['plan']}' of service '{row['service']}': "
                f"{used} service instance(s) still use it."
            )
    row["modified"] = world.now()
    if failure is not None:
        row.update(state="PROCESSING_FAILED", message=failure, requested=wanted)
        return
    if removing:
        del rows[key]
        return
    fresh = not row["amount"]
    row.update(
        state="OK",
        amount=wanted,
        requested=None,
        message="Succeeded to update assignment of service plan.",
    )
    if fresh:
        row["visible"] = {where: world.ticket("visibility") for where in WHERE}


def start(
    world: World, entity_id: str, entity_type: str, plan: Row, wanted: float, failure: str | None = None
) -> Row:
    """Begins to set an assignment to the absolute amount ``wanted`` (0 takes it away)."""
    rows = of(world, entity_id)
    key = plan_key(plan["service"], plan["plan"], plan["unique_id"])
    now = world.now()
    row = rows.get(key)
    if row is None:
        row = {
            "entity_id": entity_id,
            "entity_type": entity_type,
            "service": plan["service"],
            "plan": plan["plan"],
            "unique_id": plan["unique_id"],
            "amount": None,
            "auto_assigned": False,
            "created": now,
            "visible": {},
        }
        rows[key] = row
    row.update(
        state="STARTED",
        message="Processing the assignment of the service plan.",
        requested=wanted,
        wanted=wanted,
        modified=now,
        ticket=world.ticket("entitlement"),
    )
    if failure is not None:
        row["failure"] = failure
    return row


def assign_now(
    world: World, entity_id: str, entity_type: str, plan: Row, amount: float, *, auto: bool = False
) -> Row:
    """Puts an assignment in place at once and visible everywhere: for seeds."""
    rows = of(world, entity_id)
    key = plan_key(plan["service"], plan["plan"], plan["unique_id"])
    now = world.now()
    row = rows.get(key)
    if row is None:
        row = {"created": now, "auto_assigned": auto}
        rows[key] = row
    row.pop("ticket", None)
    row.pop("wanted", None)
    row.update(
        entity_id=entity_id,
        entity_type=entity_type,
        service=plan["service"],
        plan=plan["plan"],
        unique_id=plan["unique_id"],
        amount=amount,
        requested=None,
        state="OK",
        message="Succeeded to update assignment of service plan.",
        modified=now,
        visible={},
    )
    return row


def _rows(world: World, subaccount_id: str, service: str, plan: str) -> list[Row]:
    prefix = f"{service}/{plan}/"
    rows = world.table("entitlements.assignments").get(subaccount_id, {})
    return [row for key, row in rows.items() if key.startswith(prefix)]


def entitled(world: World, subaccount_id: str, service: str, plan: str) -> bool:
    """Whether the subaccount holds the plan now, whatever the last change of it came to."""
    return any(row["amount"] for row in _rows(world, subaccount_id, service, plan))


def visible(
    world: World, subaccount_id: str, service: str, plan: str, where: str, *, look: bool = True
) -> bool:
    """Whether the marketplace ``where`` already lists the plan; asking counts as a look unless told otherwise."""
    rows = _rows(world, subaccount_id, service, plan)
    if look and any(row["state"] in BUSY for row in rows):
        settle(world, subaccount_id)
        rows = _rows(world, subaccount_id, service, plan)
    shown = False
    for row in rows:
        if not row["amount"]:
            continue
        ticket = row["visible"].get(where)
        if ticket is None:
            shown = True
        elif world.look(ticket) if look else world.done(ticket):
            row["visible"].pop(where)
            shown = True
    return shown


def remaining(world: World, plan: Row, parent_id: str | None = None) -> float:
    """What is left to hand out of a numeric plan, in the global account or in a directory."""
    if parent_id is None:
        total = plan["amount"]
    else:
        row = of(world, parent_id).get(plan_key(plan["service"], plan["plan"], plan["unique_id"]))
        total = (row or {}).get("amount") or 0
    used = sum(
        held(row)
        for row in each(world)
        if row["service"] == plan["service"]
        and row["plan"] == plan["plan"]
        and row["unique_id"] == plan["unique_id"]
        and parent_of(world, row) == parent_id
    )
    return float(total) - used


def held(row: Row) -> float:
    """What an assignment takes from its parent: the larger of what it has and what it asked for."""
    wanted = row.get("wanted")
    return float(max(row["amount"] or 0, wanted or 0))


def parent_of(world: World, row: Row) -> str | None:
    """The directory whose quota an assignment draws on, or None for the global account."""
    if row["entity_type"] == "DIRECTORY":
        return None
    return managed_parent(world, row["entity_id"])


def managed_parent(world: World, subaccount_id: str) -> str | None:
    """The closest directory above the subaccount that manages entitlements, or None."""
    subaccount = world.table("subaccounts").get(subaccount_id)
    directories = world.table("directories")
    above = subaccount["parent"] if subaccount else None
    while above in directories:
        row = directories[above]
        if "ENTITLEMENTS" in row["features"]:
            return str(above)
        above = row["parent"]
    return None
