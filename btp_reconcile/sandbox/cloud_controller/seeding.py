"""Worlds that begin with something in them, and a plain description of what a world has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox import brokers
from btp_reconcile.sandbox.cloud_controller import (
    apps,
    bindings,
    catalogue,
    instances,
    jobs,
    places,
    route_bindings,
)
from btp_reconcile.sandbox.cloud_controller.basics import (
    APPS,
    INSTANCES,
    KEYS,
    ORGANIZATIONS,
    ROUTE_BINDINGS,
    ROUTES,
    SPACES,
    Row,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btp_reconcile.sandbox.world import World

CREATED = {"type": "create", "state": "succeeded"}


class _Known:
    """What is there already, by name."""

    def __init__(self, world: World) -> None:
        self.instances: dict[tuple[str, str], Row] = {
            (row["space"], row["name"]): row for row in world.table(INSTANCES).values()
        }
        self.keys: set[tuple[str, str]] = {
            (row["instance"], row["name"]) for row in world.table(KEYS).values() if "app" not in row
        }


def seed(world: World, document: Mapping[str, Any]) -> None:
    """Organisations, spaces, instances and all that is bound to them, of every subaccount with a Cloud Foundry part.

    An instance may have ``keys``, ``shared_with`` (spaces, as "space" or "organisation/space"), ``app_bindings``
    ({app, space, name}; ``space`` is one the instance is shared with, else its own) and ``routes`` ({host, path,
    route_service_url}). What is there by name stays as it is, and only what it lacks is added.
    """
    known = _Known(world)
    seeded: list[tuple[Row, Mapping[str, Any]]] = []
    for name, entry in (document.get("subaccounts") or {}).items():
        wanted = entry.get("cloud_foundry")
        if wanted:
            _seed_organization(world, name, entry, wanted)
        seeded += [
            (_seed_instance(world, known, entry, instance), instance)
            for instance in entry.get("instances") or ()
            if instance.get("runtime", "cloudfoundry") == "cloudfoundry"
        ]
    for row, instance in seeded:
        _join(world, row, instance)


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


def _seed_instance(world: World, known: _Known, entry: Mapping[str, Any], wanted: Mapping[str, Any]) -> Row:
    """The instance of that name in its space, made when there is none, with the keys that it lacks."""
    space = _space(world, entry["id"], wanted["space"])
    row = known.instances.get((space["guid"], wanted["name"]))
    if row is None:
        row = known.instances[space["guid"], wanted["name"]] = _new_instance(world, space, wanted)
    for key in wanted.get("keys") or ():
        if (row["guid"], key["name"]) not in known.keys:
            known.keys.add((row["guid"], key["name"]))
            _seed_key(world, row, key)
    return row


def _new_instance(world: World, space: Row, wanted: Mapping[str, Any]) -> Row:
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
            orders=False,
        )
        _must(outcome, wanted["name"])
    return row


def _must(outcome: brokers.Outcome, name: str) -> None:
    if outcome.status >= 400 or outcome.failure is not None:
        raise ValueError(f"the broker refuses to seed {name!r}: {outcome.failure or outcome.body}")


def _seed_key(world: World, instance: Row, wanted: Mapping[str, Any]) -> None:
    if instance["type"] != "managed":
        raise ValueError(f"the user-provided instance {instance['name']!r} has no keys")
    key = bindings.new_row(world, instance, wanted["name"], wanted.get("id"))
    _seed_binding(world, instance, key, wanted, wanted["name"])


def _seed_binding(
    world: World, instance: Row, key: Row, wanted: Mapping[str, Any], name: str, **context: Any
) -> None:
    key["last_operation"] = _last(world, wanted.get("last_operation"), None)
    _dated(key, wanted)
    world.table(KEYS)[key["guid"]] = key
    if jobs.state_of(key) == ("create", "failed"):
        return
    if instance["type"] != "managed":
        key["credentials"] = dict(instance["credentials"] or {})
        return
    outcome = _bind(world, instance, key, wanted, name, **context)
    key["credentials"] = outcome.body.get("credentials") or {}


def _bind(
    world: World, instance: Row, bound: Row, wanted: Mapping[str, Any], name: str, **context: Any
) -> brokers.Outcome:
    outcome = brokers.bind(
        world,
        instance_id=instance["guid"],
        binding_id=bound["guid"],
        parameters=wanted.get("parameters"),
        context={**jobs.context(world, instance), "binding_name": name, **context},
        orders=False,
    )
    _must(outcome, name)
    return brokers.fetch_binding(world, bound["guid"]) if outcome.status == 202 else outcome


# ----------------------------------------------------------------------------------------------------------------------
# What joins an instance to other things, which the whole document may have made


def _join(world: World, instance: Row, wanted: Mapping[str, Any]) -> None:
    for name in wanted.get("shared_with") or ():
        _seed_share(world, instance, name)
    for app in wanted.get("app_bindings") or ():
        _seed_app_binding(world, instance, app)
    for route in wanted.get("routes") or ():
        _seed_route_binding(world, instance, route)


def _named_space(world: World, instance: Row, name: str | None) -> Row:
    """A space of the instance's landscape by "space", in its own organisation, or "organisation/space"."""
    spaces, organizations = world.table(SPACES), world.table(ORGANIZATIONS)
    own: Row = spaces[instance["space"]]
    if name is None:
        return own
    organization, _, short = name.rpartition("/")
    organization = organization or organizations[own["organization"]]["name"]
    for row in spaces.values():
        where = organizations[row["organization"]]["name"]
        if (row["landscape"], where, row["name"]) == (own["landscape"], organization, short):
            found: Row = row
            return found
    raise ValueError(f"the seed has no space {name!r} in the landscape of {instance['name']!r}")


def _seed_share(world: World, instance: Row, name: str) -> None:
    space = _named_space(world, instance, name)
    if instance["type"] != "managed" or space["guid"] == instance["space"]:
        raise ValueError(f"{instance['name']!r} cannot be shared with the space {name!r}")
    if space["guid"] not in instance["shared"]:
        instance["shared"].append(space["guid"])


def _seed_app_binding(world: World, instance: Row, wanted: Mapping[str, Any]) -> None:
    space = _named_space(world, instance, wanted.get("space"))
    if space["guid"] not in {instance["space"], *instance["shared"]}:
        raise ValueError(f"{instance['name']!r} is not shared with the space of the app {wanted['app']!r}")
    app = apps.app(world, space, wanted["app"])
    for bound in world.table(KEYS).values():
        if bound["instance"] == instance["guid"] and bound.get("app") == app["guid"]:
            return
    bound = {**bindings.new_row(world, instance, wanted.get("name"), wanted.get("id")), "app": app["guid"]}
    name = wanted.get("name") or wanted["app"]
    _seed_binding(world, instance, bound, wanted, name, app_guid=app["guid"])


def _seed_route_binding(world: World, instance: Row, wanted: Mapping[str, Any]) -> None:
    space = world.table(SPACES)[instance["space"]]
    route = apps.route(world, space, wanted["host"], wanted.get("path") or "")
    for bound in world.table(ROUTE_BINDINGS).values():
        if bound["route"] == route["guid"]:
            if bound["instance"] == instance["guid"]:
                return
            raise ValueError(f"the route {wanted['host']!r} is bound to another instance already")
    url = wanted.get("route_service_url") or instance["route_service_url"]
    if url is None and instance["type"] == "managed":
        url = f"https://{instance['offering']}.cfapps.{instance['landscape']}.hana.ondemand.com"
    bound = route_bindings.new_row(world, instance, route, url, wanted.get("id"))
    bound["last_operation"] = _last(world, wanted.get("last_operation"), None)
    _dated(bound, wanted)
    world.table(ROUTE_BINDINGS)[bound["guid"]] = bound
    if instance["type"] == "managed" and jobs.state_of(bound) != ("create", "failed"):
        _bind(world, instance, bound, wanted, wanted["host"])


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
        about = described[key["instance"]]
        if "app" in key:
            name = world.table(APPS)[key["app"]]["name"]
            about.setdefault("app_bindings", {})[name] = _described_key(world, key)
        else:
            about["keys"][key["name"]] = _described_key(world, key)
    for bound in world.table(ROUTE_BINDINGS).values():
        route = world.table(ROUTES)[bound["route"]]
        about = described[bound["instance"]].setdefault("routes", {})
        about[route["host"] + route["path"]] = " ".join(map(str, jobs.state_of(bound)))
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
