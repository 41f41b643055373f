"""Short builders of nouns, for tests that say only what matters to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btp_reconcile import pipeline
from btp_reconcile.core import diff, plan
from btp_reconcile.core.model import (
    Address,
    CloudFoundry,
    Fact,
    Facts,
    Mark,
    Operation,
    Phase,
    Resource,
    Source,
    Subaccount,
    Wanted,
)
from btp_reconcile.core.view import Policy
from btp_reconcile.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from btp_reconcile.core.model import Plan

OWNER, SPEC = "team", "prod"
NOW = 1_767_225_600.0
"""2026-01-01T00:00:00Z"""
PLACE = Subaccount(
    "prod",
    "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10",
    "eu10",
    CloudFoundry("https://api.cf.eu10.hana.ondemand.com", "acme", "apis"),
    Source("spec.yaml", 3, 3),
)
SPACE = Fact("space", "space-1", "apis", "prod", runtime="cloudfoundry", attributes={"org": "acme"})
SERVICE: dict[str, Any] = {"service": "sandbox-config", "plan": "standard"}
OFFERED = Fact(
    "plan",
    "plan-1",
    "standard",
    "prod",
    runtime="cloudfoundry",
    attributes={"service": "sandbox-config", "available": True, "updateable": True},
)
CREATED = Operation("create", "succeeded", "2026-01-01T00:00:00Z")


def resource(address: str, /, **fields: Any) -> Resource:
    """A wanted thing. Words of `spec` (parameters, tags, runtime, …) may stand beside those of `Resource`."""
    where = Address.parse(address)
    spec: dict[str, Any] = {
        "instance": {**SERVICE, "runtime": "cloudfoundry", "space": "apis", "tags": (), "parameters": {}},
        "key": {**SERVICE, "runtime": "cloudfoundry", "parameters": {}},
        "entitlement": {"unique_id": None, "amount": True, "implied": False},
    }[where.kind]
    if where.kind == "entitlement":
        spec |= {"service": where.path[1], "plan": where.path[2]}
    spec |= {key: fields.pop(key) for key in tuple(fields) if key in spec}
    name = "" if where.kind == "entitlement" else where.path[-1]
    requires = (Address("instance", where.path[:2]),) if where.kind == "key" else ()
    fields.setdefault("requires", requires)
    fields.setdefault("mark", Mark(OWNER, SPEC, where.path[-1]))
    return Resource(where, spec, name=fields.pop("name", name), **fields)


def fact(kind: str, name: str, /, *, ours: bool | int | str = True, **fields: Any) -> Fact:
    """A live thing. `ours`: False, or True, or a generation, or the logical name if it differs."""
    generation = ours if isinstance(ours, int) and not isinstance(ours, bool) else 1
    logical = ours if isinstance(ours, str) else name
    mark = Mark(OWNER, SPEC, logical, generation) if ours else None
    parent = "space-1" if kind == "instance" else "id-apim"
    attributes = dict(SERVICE) | ({"space": "apis", "tags": ()} if kind == "instance" else {})
    fields["attributes"] = attributes | fields.get("attributes", {})
    known: dict[str, Any] = {
        "mark": mark,
        "parent": parent,
        "runtime": "cloudfoundry",
        "operation": CREATED,
        "phase": Phase.READY,
        "fingerprint": "v1;all=44136fa355b3678a",
        "created_at": "2025-12-01T00:00:00Z",
    }
    return Fact(kind, fields.pop("id", f"id-{name}"), name, "prod", **{**known, **fields})


def wanted(*resources: Resource, access: Mapping[str, Any] | None = None) -> Wanted:
    """What one spec wants, in its subaccount `prod`."""
    return Wanted(resources, {"prod": PLACE}, frozenset({(OWNER, SPEC)}), {"prod": access or {}})


def planned(resources: Sequence[Resource], facts: Sequence[Fact] = (), **options: Any) -> Plan:
    """The plan for these, in a space that is there and a marketplace that has the plan."""
    seen = Facts((SPACE, OFFERED, *facts), options.pop("unseen", {}))
    policy = Policy(options.pop("now", NOW), **options)
    found = diff.compare(wanted(*resources), seen, KINDS, pipeline.shipped_catalogue(), policy)
    return plan.arrange(found, policy)
