"""Specs of any size, and worlds that are in sync with them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from btp_reconcile.cli.world import world_of
from btp_reconcile.core import fingerprint, marks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from btp_reconcile.core.model import Resource, Wanted

OWNER = "benchmark"
ROLES = ("APIPortal.Administrator", "APIPortal.Guest")
REGION = "eu10"


@dataclass(frozen=True)
class Size:
    """So many subaccounts, each of one template with so many instances, keys in each, and services they are of."""

    subaccounts: int
    instances: int
    keys: int
    services: int
    other: int = 0
    """How many of the subaccounts are in the runtime `other`, the rest are on Cloud Foundry."""

    @property
    def resources(self) -> dict[str, int]:
        """How many there are in all."""
        instances = self.subaccounts * self.instances
        return {
            "subaccounts": self.subaccounts,
            "instances": instances,
            "keys": instances * self.keys,
            "entitlements": self.subaccounts * self.services,
        }


def offerings(size: Size) -> dict[str, Any]:
    """The services that are not in any catalogue, as the sandbox is told of them."""
    plan = {"plans": {"standard": {}}, "plan_updateable": True}
    return {f"service-{number:02}": plan for number in range(1, size.services)}


def spec(size: Size, api: str) -> str:
    """One spec: two templates, one for each runtime, and the subaccounts that use them."""
    return "\n".join(_lines(size, api)) + "\n"


def _lines(size: Size, api: str) -> Iterator[str]:
    yield from ("version: 1", f"owner: {OWNER}", "name: landscape", "access:")
    yield '  central: {service_key: "${env:BTP_CIS_CENTRAL_KEY}"}'
    yield '  cloud_foundry: {username: "${env:CF_USER}", password: "${env:CF_PASSWORD}"}'
    yield "templates:"
    for runtime in ("cloudfoundry", "other") if size.other else ("cloudfoundry",):
        yield from (f"  {runtime}:", "    instances:")
        yield from _template(size, runtime)
    yield "subaccounts:"
    for number in range(size.subaccounts):
        other = number >= size.subaccounts - size.other
        yield f"  sub-{number:03}:"
        yield f"    id: {uuid.uuid5(uuid.NAMESPACE_DNS, f'sub-{number}')}"
        yield f"    region: {REGION}"
        yield f"    use: [{'other' if other else 'cloudfoundry'}]"
        if other:
            yield f'    access: {{service_manager: {{service_key: "${{env:BTP_SM_{number}}}"}}}}'
        else:
            yield f"    cloud_foundry: {{api: {api}, org: org-{number:03}, space: apis}}"


def _template(size: Size, runtime: str) -> Iterator[str]:
    for number in range(size.instances):
        service = number % size.services
        yield f"      instance-{number:04}:"
        yield f"        runtime: {runtime}"
        if service == 0:
            yield "        api: api-management"
            yield f"        parameters: {{role: {ROLES[number // size.services % 2]}}}"
        else:
            yield from (f"        service: service-{service:02}", "        plan: standard")
            yield f"        parameters: {{size: {number}, region: {REGION}, features: [one, two]}}"
        yield "        keys:"
        for key in range(size.keys):
            said = " {}" if service == 0 else f"\n            parameters: {{purpose: consumer-{key}}}"
            yield f"          key-{key}:{said}"


def world(wanted: Wanted, *, in_sync: bool) -> dict[str, Any]:
    """What the sandbox is given: the subaccounts, entitled; and if asked all that is wanted in them, marked as ours."""
    document = world_of(wanted)
    for one in wanted.of("entitlement"):
        subaccount, service, plan = one.address.path
        entitled = document["subaccounts"][subaccount].setdefault("entitlements", {})
        entitled.setdefault(service, {})[plan] = True
    if not in_sync:
        return document
    made: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in wanted.of("instance"):
        made[one.address.path] = {
            **_thing(one),
            **{name: one.spec[name] for name in ("service", "plan", "runtime")},
            **({"space": one.spec["space"]} if one.spec["space"] else {}),
            "keys": [],
        }
    for one in wanted.of("key"):
        made[one.address.path[:2]]["keys"].append(_thing(one))
    for (subaccount, _), instance in made.items():
        document["subaccounts"][subaccount].setdefault("instances", []).append(instance)
    return document


def _thing(resource: Resource) -> dict[str, Any]:
    """As apply leaves it behind."""
    foundry = resource.spec["runtime"] == "cloudfoundry"
    parameters: Mapping[str, Any] = resource.spec.get("parameters") or {}
    record = fingerprint.write(parameters, None)
    prefix = marks.CLOUD_FOUNDRY if foundry else marks.SERVICE_MANAGER
    labels = marks.labels(prefix, resource.mark, 1)
    beside = {"annotations": {marks.ANNOTATION: record}} if foundry else {}
    if not foundry:
        labels[marks.PARAMETERS] = record
    return {"name": resource.name, "parameters": dict(parameters), "labels": labels, **beside}
