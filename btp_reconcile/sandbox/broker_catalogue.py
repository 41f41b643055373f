"""What the brokers of the sandbox offer: offerings, plans, flags and the category of each entitlement.

Names, plans and categories follow SAP-samples/btp-service-metadata v1/developer and the recordings of
SAP/terraform-provider-btp; a category that no public source shows is the likeliest one and can be changed with the
setting ``categories``.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES = uuid.UUID("6d1c7a52-6f0b-5f4e-9a54-2b8a1f7c9e30")


def stable_id(*parts: str) -> str:
    """An id that depends on nothing but the names, so that every sandbox has the same catalogue."""
    return str(uuid.uuid5(_NAMES, "/".join(parts)))


@dataclass(frozen=True)
class Plan:
    """One plan of an offering, as a broker's catalogue has it (Open Service Broker API, catalog)."""

    name: str
    id: str
    free: bool = True
    description: str = ""
    bindable: bool = True
    plan_updateable: bool | None = None
    schemas: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    maintenance_info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Offering:
    """One offering of a broker together with the entitlement category of each of its plans."""

    name: str
    id: str
    description: str
    plans: tuple[Plan, ...]
    bindable: bool = True
    plan_updateable: bool = False
    instances_retrievable: bool = False
    bindings_retrievable: bool = False
    allow_context_updates: bool = False
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    platforms: tuple[str, ...] = ("cloudfoundry", "sapcp")
    categories: Mapping[str, str] = field(default_factory=dict)
    kind: str = "service"
    asynchronous: bool = False  # instances: 202 and a ticket
    asynchronous_bindings: bool = False
    display_name: str = ""
    business_category: str = "FOUNDATION_CROSS_SERVICES"

    def plan(self, name: str) -> Plan | None:
        return next((plan for plan in self.plans if plan.name == name), None)

    def category(self, plan_name: str) -> str:
        return self.categories.get(plan_name, "ELASTIC_SERVICE")


def _role_schema(roles: tuple[str, ...], default: str, **more: Any) -> dict[str, Any]:
    properties = {"role": {"type": "string", "enum": list(roles), "default": default}, **more}
    parameters = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return {"service_instance": {"create": {"parameters": parameters}}}


PORTAL_ROLES = (
    "APIPortal.Administrator",
    "APIPortal.Guest",
    "APIPortal.Service.CatalogIntegration",
    "APIManagement.SelfService.Administrator",
)
DEVELOPER_ROLES = (
    "AuthGroup.API.Admin",
    "AuthGroup.Content.Admin",
    "AuthGroup.External.Reviewer",
    "AuthGroup.API.ApplicationDeveloper",
)


def _plan(offering: str, name: str, description: str = "", **more: Any) -> Plan:
    return Plan(name=name, id=stable_id("plan", offering, name), description=description, **more)


def _offering(name: str, description: str, *plans: Plan, **more: Any) -> Offering:
    display = more.pop("display_name", description)
    return Offering(
        name=name,
        id=stable_id("offering", name),
        description=description,
        plans=plans,
        display_name=display,
        metadata={"displayName": display, **more.pop("metadata", {})},
        **more,
    )


def _api_management(suffix: str) -> tuple[Offering, Offering]:
    portal, developer = f"apimanagement-apiportal{suffix}", f"apimanagement-devportal{suffix}"
    return (
        _offering(
            portal,
            "Access to the APIs of the API portal.",
            _plan(
                portal,
                "apiportal-apiaccess",
                "API access to the API portal.",
                schemas=_role_schema(PORTAL_ROLES, PORTAL_ROLES[0]),
            ),
            _plan(portal, "on-premise-connectivity", "Principal propagation to systems on premise."),
            _plan(portal, "apim-as-route-service", "API Management as route service of applications."),
            display_name="API Management, API portal",
            business_category="INTEGRATION",
        ),
        _offering(
            developer,
            "Access to the APIs of the developer portal.",
            _plan(
                developer,
                "devportal-apiaccess",
                "API access to the developer portal.",
                schemas=_role_schema(DEVELOPER_ROLES, DEVELOPER_ROLES[0], developerId={"type": "string"}),
            ),
            display_name="API Management, developer portal",
            business_category="INTEGRATION",
        ),
    )


OFFERINGS: tuple[Offering, ...] = (
    _offering(
        "afc-api-service",
        "Public APIs of SAP Advanced Financial Closing.",
        _plan("afc-api-service", "standard", "APIs of SAP Advanced Financial Closing.", free=False),
        display_name="SAP Advanced Financial Closing",
        business_category="FINANCE",
    ),
    *_api_management(""),
    *_api_management("-trial"),
    _offering(
        "xsuaa",
        "Manage application authorizations and trust to identity providers.",
        _plan("xsuaa", "application", "Application plan to be used for business applications."),
        _plan("xsuaa", "broker", "Broker plan to be used by business reuse services."),
        _plan("xsuaa", "apiaccess", "API access plan for administration."),
        display_name="Authorization and Trust Management Service",
        tags=("xsuaa",),
        asynchronous=True,
        business_category="SECURITY",
    ),
    _offering(
        "destination",
        "Connection details of remote systems.",
        _plan("destination", "lite", "Reads and edits destinations of the subaccount."),
        display_name="Destination Service",
        tags=("destination", "conn", "connsvc"),
        plan_updateable=True,
        instances_retrievable=True,
    ),
    _offering(
        "service-manager",
        "Creates and manages service instances and bindings of a subaccount.",
        _plan("service-manager", "subaccount-admin", "Management access to the subaccount."),
        _plan("service-manager", "subaccount-audit", "Read access to the subaccount."),
        _plan("service-manager", "container", "Management access to its own instances."),
        display_name="Service Manager",
    ),
    _offering(
        "cis",
        "Cloud management of global account, directories and subaccounts.",
        _plan("cis", "central", "Resources of the global account."),
        _plan("cis", "local", "Resources of this subaccount."),
        _plan("cis", "central-viewer", "Reading resources of the global account."),
        _plan("cis", "local-viewer", "Reading resources of this subaccount."),
        display_name="Cloud Management Service",
    ),
    _offering(
        "content-agent",
        "Assembles and exports content.",
        _plan("content-agent", "standard", "Content assembly."),
        _plan("content-agent", "application", "Programmatic access to content agent."),
        display_name="Content Agent Service",
        business_category="DEVOPS",
    ),
    _offering(
        "transport",
        "Transports between nodes of SAP Cloud Transport Management.",
        _plan("transport", "standard", "API access."),
        _plan("transport", "export", "Export only."),
        _plan("transport", "transport_operator", "Operation of transports."),
        display_name="Cloud Transport Management",
        business_category="DEVOPS",
    ),
    _offering(
        "one-inbox-service",
        "Tasks of connected providers in SAP Task Center.",
        _plan("one-inbox-service", "standard", "Task Center."),
        _plan("one-inbox-service", "all-tasks", "Task Center with tasks of all providers."),
        display_name="SAP Task Center",
    ),
    _offering(
        "sandbox-config",
        "A service of no catalogue: synchronous, changeable, readable.",
        _plan("sandbox-config", "standard", "Takes any parameters."),
        _plan("sandbox-config", "large", "Takes any parameters and counts against a quota.", free=False),
        display_name="Sandbox configuration",
        plan_updateable=True,
        instances_retrievable=True,
        bindings_retrievable=True,
        allow_context_updates=True,
        tags=("sandbox",),
        categories={"standard": "ELASTIC_SERVICE", "large": "SERVICE"},
    ),
    _offering(
        "sandbox-slow",
        "A service of no catalogue: instances and bindings take their time.",
        _plan("sandbox-slow", "standard", "Takes any parameters, slowly."),
        display_name="Sandbox, slow",
        plan_updateable=True,
        instances_retrievable=True,
        bindings_retrievable=True,
        asynchronous=True,
        asynchronous_bindings=True,
    ),
)

BY_NAME: Mapping[str, Offering] = MappingProxyType({offering.name: offering for offering in OFFERINGS})


@dataclass(frozen=True)
class Entitlement:
    """A plan of the contract that no broker of the sandbox offers, or one with more to say about its quota."""

    service: str
    plan: str
    category: str
    amount: float = 1.0
    unlimited: bool = False
    unique_id: str = ""
    display_name: str = ""
    maximum_per_subaccount: int | None = None


# Plans of the contract besides those of the brokers; categories as recorded where they were
# (SAP/terraform-provider-btp fixtures; integrationsuite and afc-production: likeliest).
MORE_ENTITLEMENTS: tuple[Entitlement, ...] = (
    Entitlement("APPLICATION_RUNTIME", "MEMORY", "PLATFORM", amount=100.0),
    Entitlement("afc-production", "standard", "APPLICATION", display_name="SAP Advanced Financial Closing"),
    Entitlement("afc-production", "tandd", "APPLICATION", display_name="SAP Advanced Financial Closing"),
    Entitlement("integrationsuite", "enterprise_agreement", "APPLICATION", display_name="Integration Suite"),
    Entitlement("integrationsuite", "free", "QUOTA_BASED_APPLICATION", amount=1.0, maximum_per_subaccount=1),
    Entitlement("custom-domain-manager", "standard", "SERVICE", amount=10.0),
    Entitlement("kymaruntime", "aws", "ENVIRONMENT", amount=1.0),
    Entitlement("one-inbox-application", "standard", "APPLICATION"),
)

# Assigned to every subaccount by SAP, never removable (setting "auto_assigned").
AUTO_ASSIGNED: tuple[tuple[str, str], ...] = (
    ("service-manager", "subaccount-admin"),
    ("service-manager", "subaccount-audit"),
    ("service-manager", "container"),
    ("xsuaa", "application"),
    ("xsuaa", "broker"),
    ("xsuaa", "apiaccess"),
)

NUMERIC = frozenset({"SERVICE", "QUOTA_BASED_APPLICATION", "PLATFORM", "ENVIRONMENT"})
