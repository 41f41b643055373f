"""Worlds that begin with something in them, and a plain description of what a world has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox import brokers
from btp_reconcile.sandbox.cloud_controller import bindings, catalogue, instances, jobs, places
from btp_reconcile.sandbox.cloud_controller.basics import INSTANCES, KEYS, ORGANIZATIONS, SPACES, Row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btp_reconcile.sandbox.world import World

CREATED = {"type": "create", "state": "succeeded"}


def seed(world: World, document: Mapping[str, Any]) -> None:
    """Organisations, spaces, instances and keys of every subaccount that has a Cloud Foundry part."""
    for name, entry in (document.get("subaccounts") or {}).items():
        wanted = entry.get("cloud_foundry")
        if wanted:
            _seed_organization(world, name, entry, wanted)
        for instance in entry.get("instances") or ():
            if instance.get("runtime", "cloudfoundry") == "cloudfoundry":
                _seed_instance(world, entry, instance)


def _seed_organization(world: World, name: str, entry: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    landscape = wanted.get("landscape") or entry["region"]
    row = _organization(world, entry["id"])
    if row is None:
        row = places.create_organization(
            world,
            landscape=landscape,
            name=wanted.get("org") or name,
            subaccount=entry["id"],
            region=entry["region"],
            subdomain=entry["subdomain"],
            guid=wanted.get("id"),
        )
    row["suspended"] = bool(wanted.get("suspended", row["suspended"]))
    known = {space["name"] for space in world.table(SPACES).values() if space["organization"] == row["guid"]}
    for space in wanted.get("spaces") or ():
        if space not in known:
            places.create_space(world, row, space)


def _organization(world: World, subaccount: str) -> Row | None:
    for row in world.table(ORGANIZATIONS).values():
        if row["subaccount"] == subaccount:
            found: Row = row
            return found
    return None


def _space(world: World, subaccount: str, name: str) -> Row:
    organization = _organization(world, subaccount)
    for row in world.table(SPACES).values():
        if organization and row["organization"] == organization["guid"] and row["name"] == name:
            found: Row = row
            return found
    raise ValueError(f"the seed has no space {name!r} for its instance")


def _last(world: World, wanted: Mapping[str, Any] | None, description: str | None) -> Row:
    given = {**CREATED, **(wanted or {})}
    last = jobs.last_operation(world, given["type"], given["state"], given.get("description", description))
    for moment in ("created_at", "updated_at"):
        if moment in given:
            last[moment] = given[moment]
    return last


def _dated(row: Row, wanted: Mapping[str, Any]) -> None:
    row["created_at"] = wanted.get("created_at", row["created_at"])
    row["updated_at"] = wanted.get("updated_at", row["created_at"])
    row["labels"] = dict(wanted.get("labels") or {})
    row["annotations"] = dict(wanted.get("annotations") or {})


def _seed_instance(world: World, entry: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    space = _space(world, entry["id"], wanted["space"])
    guid = wanted.get("id")
    if wanted.get("type") == "user-provided":
        row = instances.new_row(world, space, wanted["name"], None, guid)
        for key in ("credentials", "syslog_drain_url", "route_service_url"):
            row[key] = wanted.get(key)
        row["last_operation"] = _last(world, wanted.get("last_operation"), "Operation succeeded")
    else:
        listed = catalogue.find(world, space["landscape"], wanted["service"], wanted["plan"])
        if listed is None:
            raise ValueError(f"no broker offers {wanted['service']}/{wanted['plan']} to Cloud Foundry")
        row = instances.new_row(world, space, wanted["name"], listed, guid)
        row["last_operation"] = _last(world, wanted.get("last_operation"), "")
    _dated(row, wanted)
    row["tags"] = list(wanted.get("tags") or [])
    world.table(INSTANCES)[row["guid"]] = row
    if row["type"] == "managed" and jobs.state_of(row) != ("create", "failed"):
        outcome = brokers.provision(
            world,
            instance_id=row["guid"],
            offering=row["offering"],
            plan=row["plan"],
            parameters=wanted.get("parameters"),
            context=jobs.context(world, row),
        )
        _must(outcome, wanted["name"])
    for key in wanted.get("keys") or ():
        _seed_key(world, row, key)


def _must(outcome: brokers.Outcome, name: str) -> None:
    if outcome.status >= 400 or outcome.failure is not None:
        raise ValueError(f"the broker refuses to seed {name!r}: {outcome.failure or outcome.body}")


def _seed_key(world: World, instance: Row, wanted: Mapping[str, Any]) -> None:
    key = bindings.new_row(world, instance, wanted["name"], wanted.get("id"))
    key["last_operation"] = _last(world, wanted.get("last_operation"), None)
    _dated(key, wanted)
    world.table(KEYS)[key["guid"]] = key
    if jobs.state_of(key) == ("create", "failed"):
        return
    outcome = brokers.bind(
        world,
        instance_id=instance["guid"],
        binding_id=key["guid"],
        parameters=wanted.get("parameters"),
        context={**jobs.context(world, instance), "binding_name": key["name"]},
    )
    _must(outcome, wanted["name"])
    if outcome.status == 202:
        outcome = brokers.fetch_binding(world, key["guid"])
    key["credentials"] = outcome.body.get("credentials") or {}


# ----------------------------------------------------------------------------------------------------------------------
# Describing


def snapshot(world: World) -> dict[str, Any]:
    """What Cloud Foundry has: landscape, organisation, space, instance and key by their names."""
    found: dict[str, Any] = {}
    spaces = {}
    organizations = world.table(ORGANIZATIONS)
    for row in organizations.values():
        found.setdefault(row["landscape"], {})[row["name"]] = {}
    for space in world.table(SPACES).values():
        organization = organizations[space["organization"]]
        spaces[space["guid"]] = found[space["landscape"]][organization["name"]].setdefault(space["name"], {})
    described = {}
    for row in world.table(INSTANCES).values():
        described[row["guid"]] = spaces[row["space"]][row["name"]] = _described_instance(world, row)
    for key in world.table(KEYS).values():
        described[key["instance"]]["keys"][key["name"]] = _described_key(world, key)
    return {"cloud_foundry": found}


def _described_instance(world: World, row: Row) -> dict[str, Any]:
    about: dict[str, Any] = {"type": row["type"], "last_operation": " ".join(map(str, jobs.state_of(row)))}
    if row["type"] == "managed":
        about |= {"service": row["offering"], "plan": row["plan"]}
        about["parameters"] = world.table("broker.instances").get(row["guid"], {}).get("parameters", {})
    about |= {"tags": row["tags"], "labels": row["labels"], "annotations": row["annotations"], "keys": {}}
    if row["shared"]:
        about["shared"] = sorted(world.table(SPACES)[guid]["name"] for guid in row["shared"])
    return about


def _described_key(world: World, key: Row) -> dict[str, Any]:
    return {
        "last_operation": " ".join(map(str, jobs.state_of(key))),
        "labels": key["labels"],
        "annotations": key["annotations"],
        "parameters": world.table("broker.bindings").get(key["guid"], {}).get("parameters", {}),
    }
