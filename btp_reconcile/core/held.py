"""What would be lost with an instance: said in words, whose it is, and the command that releases it.

Asked right before an instance is deleted, because both platforms take along what stands in one, or refuse without a list.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from urllib.parse import quote

from btp_reconcile.core import marks
from btp_reconcile.core.wire import Item, cf_list, rows, sm_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btp_reconcile.core.kind import Door, Query
    from btp_reconcile.core.model import Fact, Mark

CF, SM = "cloud_foundry", "service_manager"
_CF_KEYS, _ROUTES = "/v3/service_credential_bindings", "/v3/service_route_bindings"
_ALL: Query = (("per_page", "5000"),)


def in_cloud_foundry(door: Door, instance: Fact) -> Iterator[str]:
    """Keys, bindings of apps and of routes, and spaces that it is shared with."""
    mine: Query = (("service_instance_guids", cf_list([instance.id])),)
    for page in door.pages(_CF_KEYS, (*mine, ("include", "app"), *_ALL)):
        apps = _included(page, "apps")
        for one in rows(page, CF, "resources", "binding"):
            yield _key(one, instance) if one.text("type") != "app" else _app(one, apps, instance)
    for page in door.pages(_ROUTES, (*mine, ("include", "route"), *_ALL)):
        routes = _included(page, "routes")
        for one in rows(page, CF, "resources", "route binding"):
            yield _route(one, routes, instance)
    yield from _shares(door, instance)


def in_service_manager(door: Door, instance: Fact) -> Iterator[str]:
    """Its bindings."""
    query: Query = (("fieldQuery", sm_in("service_instance_id", [instance.id])),)
    for page in door.pages("/v1/service_bindings", query):
        for one in rows(page, SM, "items", "service binding"):
            mark = marks.read(marks.SERVICE_MANAGER, marks.single(marks.sm_labels(one)))
            name = one.text("name")
            command = _command("smctl", "unbind", instance.name, name) if name else ""
            yield _words(f"binding {name or one.need('id')}", mark, command)


def _words(what: str, mark: Mark | None, command: str) -> str:
    whose = f" of owner {mark.owner!r}, spec {mark.spec!r}" if mark else ""
    return f"{what}{whose}" + (f" ({command})" if command else "")


def _command(*words: str) -> str:
    """As it can be pasted into a shell."""
    return shlex.join(words)


def _by_request(path: str) -> str:
    """For what the `cf` CLI has no name for."""
    return _command("cf", "curl", "-X", "DELETE", path)


def _included(page: object, name: str) -> dict[str, Item]:
    return {one.need("guid"): one for one in Item(page, CF, "a list").items("included", name)}


def _key(one: Item, instance: Fact) -> str:
    mark = marks.read(marks.CLOUD_FOUNDRY, marks.cf_texts(one, "metadata", "labels"))
    name = one.text("name")
    command = _command("cf", "delete-service-key", instance.name, name) if name else ""
    return _words(f"key {name or one.need('guid')}", mark, command)


def _app(one: Item, apps: dict[str, Item], instance: Fact) -> str:
    guid = one.text("relationships", "app", "data", "guid")
    name = apps[guid].text("name") if guid in apps else ""
    if name:
        return _words(
            f"app binding of app {name}", None, _command("cf", "unbind-service", name, instance.name)
        )
    path = f"{_CF_KEYS}/{quote(one.need('guid'), safe='')}"
    return _words(f"app binding of app {guid or '?'}", None, _by_request(path))


def _route(one: Item, routes: dict[str, Item], instance: Fact) -> str:
    guid = one.text("relationships", "route", "data", "guid")
    host, path, url = (routes[guid].text(name) if guid in routes else "" for name in ("host", "path", "url"))
    domain = url.removesuffix(path).removeprefix(f"{host}." if host else "")
    if not domain:
        there = f"{_ROUTES}/{quote(one.need('guid'), safe='')}"
        return _words(f"route binding of route {guid or '?'}", None, _by_request(there))
    more = (*(("--hostname", host) if host else ()), *(("--path", path) if path else ()))
    command = _command("cf", "unbind-route-service", domain, instance.name, *more)
    return _words(f"route binding of route {url}", None, command)


def _shares(door: Door, instance: Fact) -> Iterator[str]:
    path = f"/v3/service_instances/{quote(instance.id, safe='')}/relationships/shared_spaces"
    query: Query = (
        ("fields[space]", "guid,name,relationships.organization"),
        ("fields[space.organization]", "guid,name"),
    )
    answer = door.get(path, query)
    spaces, orgs = _included(answer, "spaces"), _included(answer, "organizations")
    for one in Item(answer, CF, "a list of shared spaces").items("data"):
        guid = one.need("guid")
        space = spaces.get(guid) or Item({}, CF, "a space")
        name, org_id = space.text("name"), space.text("relationships", "organization", "data", "guid")
        org = orgs[org_id].text("name") if org_id in orgs else ""
        named = ("cf", "unshare-service", instance.name, "-s", name, *(("-o", org) if org else ()))
        command = _command(*named) if name else _by_request(f"{path}/{quote(guid, safe='')}")
        yield _words(f"shared with space {name or guid}", None, command)
