"""Discovery, organisations, spaces and feature flags.

Sources: cloudfoundry/cloud_controller_ng app/controllers/runtime/root_controller.rb, app/presenters/v3/
organization_presenter.rb, space_presenter.rb, feature_flag_presenter.rb, info_presenter.rb; recorded answers of an SAP
landscape (cloudfoundry/terraform-provider-cloudfoundry, fixtures/datasource_org.yaml, datasource_space.yaml).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox.cloud_controller import lists, metadata
from btp_reconcile.sandbox.cloud_controller.basics import (
    API,
    ORGANIZATIONS,
    SPACES,
    Call,
    Row,
    endpoint,
    not_found,
    rails_json,
)
from btp_reconcile.sandbox.http import Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btp_reconcile.sandbox.http import Router
    from btp_reconcile.sandbox.world import World

FLAGS = {
    "service_instance_creation": True,
    "service_instance_sharing": False,
    "hide_marketplace_from_unauthenticated_users": False,
}
RESOURCES = (
    "app_usage_events",
    "apps",
    "audit_events",
    "buildpacks",
    "builds",
    "deployments",
    "domains",
    "droplets",
    "environment_variable_groups",
    "feature_flags",
    "info",
    "isolation_segments",
    "organizations",
    "organization_quotas",
    "packages",
    "processes",
    "resource_matches",
    "roles",
    "routes",
    "security_groups",
    "service_brokers",
    "service_instances",
    "service_credential_bindings",
    "service_offerings",
    "service_plans",
    "service_route_bindings",
    "service_usage_events",
    "spaces",
    "space_quotas",
    "stacks",
    "tasks",
    "users",
)
# What Cloud Controller has and the sandbox has not, as far as it is no part of a list above.
MISSING = tuple(
    name
    for name in RESOURCES
    if name
    not in {
        "audit_events",
        "info",
        "feature_flags",
        "organizations",
        "service_brokers",
        "service_instances",
        "service_credential_bindings",
        "service_offerings",
        "service_plans",
        "service_route_bindings",
        "spaces",
    }
)


# ----------------------------------------------------------------------------------------------------------------------
# Discovery


def _root(call: Call) -> Response:
    domain = f"cf.{call.landscape}.hana.ondemand.com"
    settings, api = call.settings, call.api
    links: dict[str, Any] = {
        "self": {"href": api},
        "cloud_controller_v3": {"href": f"{api}/v3", "meta": {"version": settings["version"]}},
        "network_policy_v0": {"href": f"{api}/networking/v0/external"},
        "network_policy_v1": {"href": f"{api}/networking/v1/external"},
        "login": {"href": call.request.url(f"login.{domain}", "")},
        "uaa": {"href": call.request.url(f"uaa.{domain}", "")},
        "credhub": None,
        "routing": None,
        "logging": {"href": f"wss://doppler.{domain}:443"},
        "log_cache": {"href": f"https://log-cache.{domain}"},
        "log_stream": {"href": f"https://log-stream.{domain}"},
        "app_ssh": {
            "href": f"ssh.{domain}:2222",
            "meta": {
                "host_key_fingerprint": "Rw80L5fhKSfKZSwKl7dhPQvd0AQ45Z1zAzWSPp3RQlE",
                "oauth_client": "ssh-proxy",
            },
        },
    }
    if settings["v2_link"]:
        links["cloud_controller_v2"] = {"href": f"{api}/v2", "meta": {"version": settings["version_2"]}}
    answer = rails_json({"links": links})
    return Response(200, (("Content-Type", "application/json;charset=utf-8"),), answer.body)


def _v3(call: Call) -> Response:
    links = {"self": {"href": f"{call.api}/v3"}}
    links |= {name: {"href": f"{call.api}/v3/{name}"} for name in RESOURCES}
    return rails_json({"links": links})


def _info(call: Call) -> Response:
    limit = call.settings["rate_limit"]
    return rails_json(
        {
            "build": "",
            "cli_version": {"minimum": "", "recommended": ""},
            "custom": {},
            "description": "Cloud Foundry of the sandbox",
            "name": "cf-sandbox",
            "version": 0,
            "osbapi_version": "2.15",
            "rate_limits": {
                "enabled": limit is not None,
                "general_limit": limit or 0,
                "reset_interval_in_minutes": call.settings["rate_window"] // 60,
            },
            "links": {"self": {"href": f"{call.api}/v3/info"}, "support": {"href": ""}},
        }
    )


# ----------------------------------------------------------------------------------------------------------------------
# Organisations and spaces


def create_organization(
    world: World,
    *,
    landscape: str,
    name: str,
    subaccount: str,
    region: str,
    subdomain: str,
    guid: str | None = None,
) -> Row:
    """An organisation, as the Cloud Foundry environment of a subaccount makes one."""
    guid = guid or world.new_id()
    row: Row = {
        "guid": guid,
        "created_at": world.stamp(),
        "updated_at": world.stamp(),
        "name": name,
        "suspended": False,
        "quota": world.new_id(),
        "landscape": landscape,
        "subaccount": subaccount,
        "region": region,
        "subdomain": subdomain,
        "labels": {},
        "annotations": {},
    }
    world.table(ORGANIZATIONS)[guid] = row
    return row


def create_space(world: World, organization: Row, name: str) -> Row:
    """A space in an organisation."""
    guid = world.new_id()
    row: Row = {
        "guid": guid,
        "created_at": world.stamp(),
        "updated_at": world.stamp(),
        "name": name,
        "suspended": False,
        "organization": organization["guid"],
        "landscape": organization["landscape"],
        "labels": {},
        "annotations": {},
    }
    world.table(SPACES)[guid] = row
    return row


def show_organization(call: Call, row: Row) -> dict[str, Any]:
    """One organisation, members in the order of a real answer."""
    base = f"{call.api}/v3/organizations/{row['guid']}"
    return {
        "guid": row["guid"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "name": row["name"],
        "suspended": row["suspended"],
        "relationships": {"quota": {"data": {"guid": row["quota"]}}},
        "metadata": metadata.shown(row),
        "links": {
            "self": {"href": base},
            "domains": {"href": f"{base}/domains"},
            "default_domain": {"href": f"{base}/domains/default"},
            "quota": {"href": f"{call.api}/v3/organization_quotas/{row['quota']}"},
        },
    }


def show_space(call: Call, row: Row) -> dict[str, Any]:
    """One space, members in the order of a real answer."""
    base = f"{call.api}/v3/spaces/{row['guid']}"
    shown: dict[str, Any] = {
        "guid": row["guid"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "name": row["name"],
        "relationships": {
            "organization": {"data": {"guid": row["organization"]}},
            "quota": {"data": None},
        },
        "metadata": metadata.shown(row),
        "links": {
            "self": {"href": base},
            "organization": {"href": f"{call.api}/v3/organizations/{row['organization']}"},
            "features": {"href": f"{base}/features"},
            "apply_manifest": {"href": f"{base}/actions/apply_manifest", "method": "POST"},
        },
    }
    if call.settings["space_suspended_field"]:
        items = list(shown.items())
        items.insert(4, ("suspended", row["suspended"]))
        shown = dict(items)
    return shown


def _list_organizations(call: Call) -> Response:
    query = lists.read(call, ("names",))
    rows = [
        row for row in call.organizations.values() if query.wants("names", row["name"]) and query.selects(row)
    ]
    rows = lists.arranged(query, rows)
    shown = [show_organization(call, row) for row in lists.cut(query, rows)]
    return lists.page(query, len(rows), shown)


def _one_organization(call: Call, guid: str) -> Response:
    lists.read(call, single=True)
    if guid not in call.organizations:
        raise not_found("Organization")
    return rails_json(show_organization(call, call.organizations[guid]))


def _included_organizations(call: Call, rows: Iterable[Row]) -> dict[str, Any]:
    guids = dict.fromkeys(row["organization"] for row in rows)
    every = call.rows(ORGANIZATIONS)
    return {"organizations": [show_organization(call, every[guid]) for guid in guids]}


def _list_spaces(call: Call) -> Response:
    query = lists.read(call, ("names", "organization_guids", "include"), includes=("org", "organization"))
    rows = [
        row
        for row in call.spaces.values()
        if query.wants("names", row["name"])
        and query.wants("organization_guids", row["organization"])
        and query.selects(row)
    ]
    rows = lists.arranged(query, rows)
    shown = lists.cut(query, rows)
    included = _included_organizations(call, shown) if query.include else None
    return lists.page(query, len(rows), [show_space(call, row) for row in shown], included)


def _space(call: Call, guid: str) -> Row:
    if guid not in call.spaces:
        raise not_found("Space")
    return call.spaces[guid]


def _one_space(call: Call, guid: str) -> Response:
    query = lists.read(call, ("include",), single=True, includes=("org", "organization"))
    row = _space(call, guid)
    shown = show_space(call, row)
    if query.include:
        shown["included"] = _included_organizations(call, [row])
    return rails_json(shown)


def _ssh(call: Call, guid: str) -> Response:
    _space(call, guid)
    return rails_json(
        {
            "name": "ssh",
            "description": "Enable SSHing into apps in the space.",
            "enabled": True,
        }
    )


def _isolation_segment(call: Call, guid: str) -> Response:
    _space(call, guid)
    href = f"{call.api}/v3/spaces/{guid}/relationships/isolation_segment"
    return rails_json({"data": None, "links": {"self": {"href": href}}})


# ----------------------------------------------------------------------------------------------------------------------
# Feature flags


def flag(call: Call, name: str) -> bool:
    """Whether a feature is on."""
    return bool(call.settings["feature_flags"].get(name, FLAGS[name]))


def _flag(call: Call, name: str) -> Response:
    if name not in FLAGS:
        raise not_found("Feature flag")
    changed = name in call.settings["feature_flags"]
    return rails_json(
        {
            "name": name,
            "enabled": flag(call, name),
            "updated_at": "2026-01-01T00:00:00Z" if changed else None,
            "custom_error_message": None,
            "links": {"self": {"href": f"{call.api}/v3/feature_flags/{name}"}},
        }
    )


def routes(router: Router) -> None:
    """Discovery, organisations, spaces, flags, and what the sandbox lacks."""
    endpoint(router, "GET", "/", _root, anonymous=True, root=True)
    endpoint(router, "GET", "/v3", _v3, anonymous=True, root=True)
    endpoint(router, "GET", "/v3/info", _info, anonymous=True)
    endpoint(router, "GET", "/v3/organizations", _list_organizations)
    endpoint(router, "GET", "/v3/organizations/{guid}", _one_organization)
    endpoint(router, "GET", "/v3/spaces", _list_spaces)
    endpoint(router, "GET", "/v3/spaces/{guid}", _one_space)
    endpoint(router, "GET", "/v3/spaces/{guid}/features/ssh", _ssh)
    endpoint(router, "GET", "/v3/spaces/{guid}/relationships/isolation_segment", _isolation_segment)
    endpoint(router, "GET", "/v3/feature_flags/{name}", _flag)


def lacking(router: Router) -> None:
    """What Cloud Controller has and the sandbox has not; to be called after every other route is known."""
    for name in MISSING:
        router.lacks(API, "*", f"/v3/{name}")
        router.lacks(API, "*", f"/v3/{name}/{{rest:path}}")
    for method, path in (
        ("POST", "/v3/organizations"),
        ("PATCH", "/v3/organizations/{guid}"),
        ("DELETE", "/v3/organizations/{guid}"),
        ("*", "/v3/organizations/{guid}/{rest:path}"),
        ("POST", "/v3/spaces"),
        ("PATCH", "/v3/spaces/{guid}"),
        ("DELETE", "/v3/spaces/{guid}"),
        ("*", "/v3/spaces/{guid}/{rest:path}"),
        ("GET", "/v3/feature_flags"),
        ("PATCH", "/v3/feature_flags/{name}"),
        ("PATCH", "/v3/service_offerings/{guid}"),
        ("DELETE", "/v3/service_offerings/{guid}"),
        ("PATCH", "/v3/service_plans/{guid}"),
        ("DELETE", "/v3/service_plans/{guid}"),
        ("*", "/v3/service_plans/{guid}/{rest:path}"),
        ("POST", "/v3/service_brokers"),
        ("*", "/v3/service_brokers/{guid}"),
        ("GET", "/v3/info/usage_summary"),
        ("*", "/v2/{rest:path}"),
    ):
        router.lacks(API, method, path)
