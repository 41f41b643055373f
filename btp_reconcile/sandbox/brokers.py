"""What the service brokers of the sandbox do, as plain calls in the terms of the Open Service Broker API.

Cloud Controller and Service Manager both talk to these brokers; all that a broker knows is in the tables
``broker.instances`` and ``broker.bindings``. Every binding gets a client of its own in the table ``clients``, and the
client dies with it, so a deleted key gets no token.

Settings read here (all optional): ``offerings`` (overrides by offering name), ``categories``, ``broker_failures``,
``x509_maximum_days`` (30), ``apim_x509`` ("cap" | "refuse" | "accept": what the API Management broker makes of a longer
validity), ``apim_role_update`` ("refuse" | "accept"), ``binding_limit`` (1000), ``xsuaa_limit`` (2500),
``cis_x509`` (false: no public source says that Cloud Management keys may be certificates).

Seeds say ``orders=False``: what a test has ordered to fail is meant for its requests.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from . import broker_credentials as credentials_of, faults
from .assignments import entitled, visible
from .broker_catalogue import DEVELOPER_ROLES, OFFERINGS, PORTAL_ROLES, Offering, Plan, stable_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .http import Request
    from .world import Ticket, World

__all__ = [
    "OFFERINGS",
    "Offering",
    "Outcome",
    "Plan",
    "Refused",
    "bind",
    "category",
    "deprovision",
    "entitled",
    "fetch_binding",
    "fetch_instance",
    "issue",
    "localise",
    "localise_with",
    "next_number",
    "offering",
    "offerings",
    "plan_updateable",
    "provision",
    "revoke",
    "unbind",
    "update",
    "visible",
]

Json = dict[str, Any]

SCIM_PATH = "/scim/v2"
TASK_PATH = "/api/task-provider/v2"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A broker's answer: ``failure`` is how a 202 ends badly once its ticket is done."""

    status: int
    body: Json = dataclasses.field(default_factory=dict)
    ticket: Ticket | None = None
    failure: str | None = None


class _RefusalError(Exception):
    def __init__(self, status: int, description: str, code: str | None = None) -> None:
        super().__init__(description)
        body: Json = {"description": description}
        if code is not None:
            body["error"] = code
        self.outcome = Outcome(status, body)


# ----------------------------------------------------------------------------------------------------------------------
# The catalogue


def offerings(world: World) -> tuple[Offering, ...]:
    """The catalogue with the changes that ``settings["offerings"]`` asks for; unknown names are added."""
    changes = world.settings.get("offerings") or {}
    if not changes:
        return OFFERINGS
    known = {item.name for item in OFFERINGS}
    changed = [_changed(item, changes[item.name]) if item.name in changes else item for item in OFFERINGS]
    for name, change in changes.items():
        if name not in known:
            changed.append(_changed(Offering(name, stable_id("offering", name), name, ()), change))
    hidden = {name for name, change in changes.items() if change.get("hidden")}
    return tuple(item for item in changed if item.name not in hidden)


def _changed(item: Offering, change: Mapping[str, Any]) -> Offering:
    plans = {plan.name: plan for plan in item.plans}
    for name, more in (change.get("plans") or {}).items():
        if more is None:
            plans.pop(name, None)
            continue
        plan = plans.get(name) or Plan(name, stable_id("plan", item.name, name))
        plans[name] = dataclasses.replace(plan, **_fields(Plan, more))
    fields = _fields(Offering, {key: value for key, value in change.items() if key != "plans"})
    return dataclasses.replace(item, plans=tuple(plans.values()), **fields)


def _fields(kind: type[Offering | Plan], values: Mapping[str, Any]) -> Json:
    names = {field.name for field in dataclasses.fields(kind)}
    return {
        key: tuple(value) if key in {"tags", "platforms"} else value
        for key, value in values.items()
        if key in names
    }


def offering(world: World, name: str) -> Offering | None:
    return next((item for item in offerings(world) if item.name == name), None)


def category(world: World, service: str, plan: str) -> str:
    """The entitlement category of a broker's plan (setting ``categories``: {"service/plan": category})."""
    override = (world.settings.get("categories") or {}).get(f"{service}/{plan}")
    if override is not None:
        return str(override)
    item = offering(world, service)
    return item.category(plan) if item is not None else "ELASTIC_SERVICE"


def plan_updateable(item: Offering, plan: Plan) -> bool:
    return item.plan_updateable if plan.plan_updateable is None else plan.plan_updateable


def next_number(world: World) -> int:
    """A number in the order in which things are made, for lists that are paged by it."""
    counter = world.table("broker.counter")
    counter["n"] = counter.get("n", 0) + 1
    return int(counter["n"])


# ----------------------------------------------------------------------------------------------------------------------
# The broker's verbs


def provision(
    world: World,
    *,
    instance_id: str,
    offering: str | Offering,
    plan: str | Plan,
    parameters: Mapping[str, Any] | None,
    context: Mapping[str, Any],
    orders: bool = True,
) -> Outcome:
    """PUT /v2/service_instances/{id}: 201, 202 with a ticket, or the broker's refusal."""
    item, chosen = _resolve(world, offering, plan)
    given = dict(parameters or {})
    where = _context(world, context)
    try:
        name = where.get("instance_name")
        late = _injected(world, "provision", item.name, chosen.name, name) if orders else None
        given = _checked_parameters(world, item.name, chosen.name, given, where)
    except _RefusalError as refusal:
        return refusal.outcome
    if late is not None:
        return Outcome(202, {}, world.ticket("provision"), late)
    world.table("broker.instances")[instance_id] = {
        "id": instance_id,
        "offering": item.name,
        "plan": chosen.name,
        "parameters": given,
        "context": where,
        "bindings": {},
        "created": world.now(),
        "seq": next_number(world),
    }
    if item.asynchronous:
        return Outcome(202, {"operation": f"provision-{instance_id[:8]}"}, world.ticket("provision"))
    return Outcome(201)


def update(
    world: World,
    *,
    instance_id: str,
    offering: str | Offering,
    plan: str | Plan,
    parameters: Mapping[str, Any] | None,
    previous_plan: str | Plan | None = None,
    context: Mapping[str, Any] | None = None,
) -> Outcome:
    """PATCH /v2/service_instances/{id}: 200, 202 with a ticket, or the broker's refusal."""
    item, chosen = _resolve(world, offering, plan)
    row = world.table("broker.instances").get(instance_id)
    if row is None:
        return Outcome(404, {"description": f"Service instance {instance_id} does not exist."})
    del previous_plan  # the broker knows better than its caller what the instance is
    try:
        name = (context or row["context"]).get("instance_name")
        late = _injected(world, "update", item.name, chosen.name, name)
        if chosen.name != row["plan"] and not plan_updateable(item, chosen):
            raise _RefusalError(422, "The plan of this service cannot be changed.", "PlanChangeNotSupported")
        given = None if parameters is None else _changed_parameters(world, row, dict(parameters))
    except _RefusalError as refusal:
        return refusal.outcome
    if late is not None:
        return Outcome(202, {}, world.ticket("update"), late)
    row["plan"] = chosen.name
    if given is not None:
        row["parameters"] = given
        if item.name.startswith("apimanagement-"):
            _follow_role(world, row)
    if context is not None and item.allow_context_updates:
        row["context"] = _context(world, context)
    if item.asynchronous:
        return Outcome(202, {"operation": f"update-{instance_id[:8]}"}, world.ticket("update"))
    return Outcome(200)


def deprovision(world: World, *, instance_id: str) -> Outcome:
    """DELETE /v2/service_instances/{id}: 200, 202 with a ticket, 410 when there is nothing."""
    row = world.table("broker.instances").get(instance_id)
    if row is None:
        return Outcome(410)
    try:
        late = _injected(
            world, "deprovision", row["offering"], row["plan"], row["context"].get("instance_name")
        )
    except _RefusalError as refusal:
        return refusal.outcome
    if late is not None:
        return Outcome(202, {}, world.ticket("deprovision"), late)
    for binding_id in list(row["bindings"]):
        _forget(world, row, binding_id)
    del world.table("broker.instances")[instance_id]
    item = offering(world, row["offering"])
    if item is not None and item.asynchronous:
        return Outcome(202, {"operation": f"deprovision-{instance_id[:8]}"}, world.ticket("deprovision"))
    return Outcome(200)


def bind(
    world: World,
    *,
    instance_id: str,
    binding_id: str,
    parameters: Mapping[str, Any] | None,
    context: Mapping[str, Any] | None = None,
    orders: bool = True,
) -> Outcome:
    """PUT …/service_bindings/{id}: 201 with credentials, or 202; then :func:`fetch_binding` has the credentials."""
    row = world.table("broker.instances").get(instance_id)
    if row is None:
        return Outcome(404, {"description": f"Service instance {instance_id} does not exist."})
    item = offering(world, row["offering"])
    chosen = item.plan(row["plan"]) if item is not None else None
    given = dict(parameters or {})
    try:
        instance = row["context"].get("instance_name")
        name = (context or {}).get("binding_name") or instance
        late = _injected(world, "bind", row["offering"], row["plan"], name, instance) if orders else None
        if chosen is not None and not chosen.bindable:
            raise _RefusalError(400, "The plan is not bindable.", "PlanNotBindable")
        limit = int(world.settings.get("binding_limit", 1000))
        if len(row["bindings"]) >= limit:
            raise _RefusalError(400, f"The limit of {limit} bindings of a service instance is reached.")
        made = _credentials(world, row, binding_id, given)
    except _RefusalError as refusal:
        return refusal.outcome
    if late is not None:
        world.table("clients").pop(made[1], None)
        return Outcome(202, {}, world.ticket("bind"), late)
    world.table("broker.bindings")[binding_id] = {
        "id": binding_id,
        "instance_id": instance_id,
        "parameters": given,
        "credentials": made[0],
        "client": made[1],
    }
    row["bindings"][binding_id] = True
    if item is not None and item.asynchronous_bindings:
        return Outcome(202, {"operation": f"bind-{binding_id[:8]}"}, world.ticket("bind"))
    return Outcome(201, {"credentials": made[0]})


def unbind(world: World, *, instance_id: str, binding_id: str) -> Outcome:
    """DELETE …/service_bindings/{id}: the client goes at once, and its secret with it."""
    bound = world.table("broker.bindings").get(binding_id)
    row = world.table("broker.instances").get(instance_id)
    if bound is None or row is None or bound["instance_id"] != instance_id:
        return Outcome(410)
    try:
        late = _injected(world, "unbind", row["offering"], row["plan"], row["context"].get("instance_name"))
    except _RefusalError as refusal:
        return refusal.outcome
    if late is not None:
        return Outcome(202, {}, world.ticket("unbind"), late)
    _forget(world, row, binding_id)
    item = offering(world, row["offering"])
    slow = faults.async_unbind(world, (row["context"].get("instance_name"),), row["offering"], row["plan"])
    if slow or (item is not None and item.asynchronous_bindings):
        return Outcome(202, {"operation": f"unbind-{binding_id[:8]}"}, world.ticket("unbind"))
    return Outcome(200)


def fetch_instance(world: World, instance_id: str) -> Outcome:
    """GET /v2/service_instances/{id}: 200 with ``parameters`` when the offering lets instances be read."""
    row = world.table("broker.instances").get(instance_id)
    if row is None:
        return Outcome(404, {"description": f"Service instance {instance_id} does not exist."})
    item = offering(world, row["offering"])
    if item is None or not item.instances_retrievable:
        return Outcome(400, {"description": "This operation is not supported."})
    return Outcome(200, {"parameters": row["parameters"], "plan": row["plan"]})


def fetch_binding(world: World, binding_id: str) -> Outcome:
    """GET …/service_bindings/{id}: 200 with ``credentials`` and ``parameters`` when bindings may be read."""
    bound = world.table("broker.bindings").get(binding_id)
    row = world.table("broker.instances").get(bound["instance_id"]) if bound else None
    if bound is None or row is None:
        return Outcome(404, {"description": f"Service binding {binding_id} does not exist."})
    item = offering(world, row["offering"])
    if item is None or not item.bindings_retrievable:
        return Outcome(400, {"description": "This operation is not supported."})
    return Outcome(200, {"credentials": bound["credentials"], "parameters": bound["parameters"]})


def _resolve(world: World, item: str | Offering, plan: str | Plan) -> tuple[Offering, Plan]:
    found = offering(world, item) if isinstance(item, str) else item
    chosen = found.plan(plan) if found is not None and isinstance(plan, str) else plan
    if found is None or not isinstance(chosen, Plan):
        raise LookupError(f"the brokers of the sandbox do not offer {item}/{plan}")
    return found, chosen


def _context(world: World, context: Mapping[str, Any]) -> Json:
    """The context with what the credentials need, even when a caller left it out."""
    where = dict(context)
    subaccount = world.table("subaccounts").get(str(where.get("subaccount_id")), {})
    where.setdefault("subaccount_id", "")
    where["region"] = where.get("region") or subaccount.get("region") or "eu10"
    where["subdomain"] = where.get("subdomain") or subaccount.get("subdomain") or "unknown"
    return where


def _forget(world: World, row: Json, binding_id: str) -> None:
    bound = world.table("broker.bindings").pop(binding_id, None)
    row["bindings"].pop(binding_id, None)
    if bound is not None and bound["client"]:
        world.table("clients").pop(bound["client"], None)


# ----------------------------------------------------------------------------------------------------------------------
# Failures that a test orders


def _injected(
    world: World, verb: str, service: str, plan: str, name: Any, instance: Any = None
) -> str | None:
    """Uses up the first order that fits: raises it, or returns the text with which a 202 will end."""
    rule = faults.broker_failure(world, verb, (name, instance), service, plan)
    if rule is not None:
        return _refused(rule)
    orders = world.settings.get("broker_failures") or []
    for order in orders:
        times = order.get("times", 1)
        fits = (
            order.get("verb", verb) == verb
            and order.get("offering", service) == service
            and order.get("plan", plan) == plan
            and order.get("name", name) == name
            and (times is None or times > 0)
        )
        if not fits:
            continue
        if times is not None:
            order["times"] = times - 1
        return _refused(order)
    return None


def _refused(order: Mapping[str, Any]) -> str:
    """Raises what was ordered, unless it is to come late: then its text is returned."""
    text = str(order.get("description", "Could not find credentials service."))
    status = order.get("status", 500)
    if status == "async":
        return text
    raise _RefusalError(int(status), text, order.get("code"))


# ----------------------------------------------------------------------------------------------------------------------
# Parameters of instances


def _checked_parameters(world: World, service: str, plan: str, given: Json, context: Json) -> Json:
    base = service.removesuffix("-trial")
    if base == "apimanagement-apiportal" and plan == "apiportal-apiaccess":
        return _role(given, PORTAL_ROLES)
    if base == "apimanagement-devportal":
        kept = _role(given, DEVELOPER_ROLES)
        if kept["role"] == "AuthGroup.API.ApplicationDeveloper":
            developer = given.get("developerId")
            if not isinstance(developer, str) or not developer.strip():
                raise _RefusalError(400, "The developerId is missing or invalid for this role.")
            kept["developerId"] = developer
        return kept
    if service == "cis":
        return _cis_parameters(world, plan, given)
    if service == "xsuaa":
        limit = int(world.settings.get("xsuaa_limit", 2500))
        if _count(world, "xsuaa", context["subaccount_id"]) >= limit:
            raise _RefusalError(
                400, f"The limit of {limit} instances of the service in a subaccount is reached."
            )
        _xsuaa_types(given)
    return given


def _changed_parameters(world: World, row: Json, given: Json) -> Json:
    base = row["offering"].removesuffix("-trial")
    if base.startswith("apimanagement-"):
        role = given.get("role")
        changes_role = role is not None and role != row["parameters"].get("role")
        if changes_role and world.settings.get("apim_role_update", "refuse") == "refuse":
            raise _RefusalError(400, "The role of an instance cannot be changed.")
        if changes_role:
            return _checked_parameters(world, row["offering"], row["plan"], given, row["context"])
        return dict(row["parameters"])
    if not given:
        return dict(row["parameters"])
    return _checked_parameters(world, row["offering"], row["plan"], given, row["context"])


def _role(given: Json, roles: tuple[str, ...]) -> Json:
    role = given.get("role", roles[0])
    if not isinstance(role, str) or role not in roles:
        raise _RefusalError(400, "An error occurred during the clone creation due to invalid role creation")
    return {"role": role}


def _cis_parameters(world: World, plan: str, given: Json) -> Json:
    viewer = plan.endswith("-viewer")
    grant = given.get("grantType", "clientCredentials" if viewer else "password")
    if grant not in {"clientCredentials", "password"} or (viewer and grant == "password"):
        raise _RefusalError(400, f"The grant type '{grant}' is not supported by plan '{plan}'.")
    directory = given.get("directoryId")
    if directory is not None:
        row = world.table("directories").get(str(directory))
        if plan != "central" or row is None or "AUTHORIZATIONS" not in row["features"]:
            raise _RefusalError(400, f"The directory '{directory}' cannot be used by plan '{plan}'.")
    return {**given, "grantType": grant}


def _xsuaa_types(parameters: Json) -> list[str]:
    configuration = parameters.get("oauth2-configuration")
    listed = (
        configuration.get("credential-types", ["binding-secret"])
        if isinstance(configuration, dict)
        else ["binding-secret"]
    )
    known = {"binding-secret", "x509", "instance-secret"}
    if not isinstance(listed, list) or not listed or not set(map(str, listed)) <= known:
        raise _RefusalError(400, "The credential-types of the oauth2-configuration are invalid.")
    return [str(item) for item in listed]


def _count(world: World, service: str, subaccount_id: str) -> int:
    return sum(
        1
        for row in world.table("broker.instances").values()
        if row["offering"] == service and row["context"]["subaccount_id"] == subaccount_id
    )


# ----------------------------------------------------------------------------------------------------------------------
# Credentials


@dataclasses.dataclass(frozen=True)
class _Proof:
    """What a client shows to get a token: a secret, or a certificate with its key."""

    kind: str
    secret: str | None = None
    certificate: str | None = None
    key: str | None = None

    def fields(
        self, certificate: str = "certificate", key: str = "key", secret: str = "clientsecret"
    ) -> Json:
        if self.secret is not None:
            return {secret: self.secret}
        return {certificate: self.certificate, **({key: self.key} if self.key is not None else {})}


def _credentials(world: World, row: Json, binding_id: str, given: Json) -> tuple[Json, str]:
    """The credentials of a new binding and the id of its client ("" when it has none)."""
    service = row["offering"].removesuffix("-trial")
    context: Json = row["context"]
    plan: str = row["plan"]
    if service in {"apimanagement-apiportal", "apimanagement-devportal"}:
        return _api_management(world, row, binding_id, given)
    if service.startswith("sandbox-") or row["offering"] not in _MASTERS:
        digest = credentials_of.secret(world)
        return {
            "url": credentials_of.service_url(row["offering"], context["region"]),
            "username": f"user-{binding_id[:8]}",
            "password": digest,
        }, ""
    default = _xsuaa_types(row["parameters"])[0] if service == "xsuaa" else "binding-secret"
    proof = _proof(world, given, binding_id, default=default)
    if service == "xsuaa" and proof.kind not in _xsuaa_types(row["parameters"]):
        raise _RefusalError(400, f"The credential-type '{proof.kind}' is not allowed by the instance.")
    if service == "cis" and proof.kind == "x509" and not world.settings.get("cis_x509", False):
        raise _RefusalError(400, "The credential-type 'x509' is not supported by this service.")
    master = _MASTERS[row["offering"]].format(plan=plan)
    app, client_id = _client_names(row, binding_id, master)
    scopes: tuple[str, ...] = ()
    grants = ["client_credentials"]
    if service == "cis":
        scopes = credentials_of.CIS_SCOPES[plan]
        if row["parameters"].get("grantType") == "password":
            grants = ["password", "refresh_token"]
    elif service == "service-manager":
        scopes = credentials_of.SM_SCOPES[plan]
    elif service == "xsuaa":
        scopes = credentials_of.EVERY_CLIENT
        grants = ["authorization_code", "client_credentials", "password", "refresh_token"]
    elif service == "afc-api-service":
        scopes = credentials_of.AFC_SCOPES
    else:
        scopes = ("api",)
    prefixed = [scope if scope.startswith("uaa.") else f"{app}.{scope}" for scope in scopes]
    _register(world, row, client_id, proof, prefixed, grants)
    block = credentials_of.uaa(world, context, client_id, app, master, proof.fields(), proof.kind, row["id"])
    return _shape(world, service, plan, context, block, proof, grants), client_id


_MASTERS: dict[str, str] = {
    "afc-api-service": "afc-api!b44",
    "cis": "cis-{plan}!b14",
    "service-manager": "service-manager!b1476",
    "xsuaa": "",
    "destination": "destination-xsappname!b62",
    "content-agent": "content-agent!b121",
    "transport": "alm-ts-backend!b1603",
    "one-inbox-service": "oneinbox!b1882",
}


def _client_names(row: Json, binding_id: str, master: str) -> tuple[str, str]:
    count = credentials_of.number(row["id"])
    if not master:
        name = str(row["parameters"].get("xsappname") or f"app-{row['id'][:8]}")
        app = f"{name}!{'b' if row['plan'] == 'broker' else 't'}{count}"
        return app, f"sb-{app.replace('!', f'-{binding_id[:8]}!')}"
    master = master.replace("-viewer", "")
    if master.startswith("afc-"):
        app = f"{binding_id}!b{count}|{master}"
    else:
        app = f"ut-{binding_id}-clone!b{count}|{master}"
    return app, f"sb-{app}"


def _shape(
    world: World, service: str, plan: str, context: Json, block: Json, proof: _Proof, grants: list[str]
) -> Json:
    region = context["region"]
    if service == "cis":
        central = str(world.settings["region"])
        grant = "user_token" if "password" in grants else "client_credentials"
        return credentials_of.cis(context, central, block, plan, grant)
    if service == "service-manager":
        return service_manager_credentials(context, block, proof.kind)
    if service == "afc-api-service":
        host = credentials_of.service_url("afc-production-afc-api", region)
        return {"endpoints": {"scim2": host + SCIM_PATH, "task-center": host + TASK_PATH}, "uaa": block}
    if service == "xsuaa":
        return block
    if service == "destination":
        uri = credentials_of.service_url("destination-configuration", region)
        return {**block, "instanceid": block["serviceInstanceId"], "uri": uri}
    if service == "content-agent":
        return {"uaa": block, "url": credentials_of.service_url("content-agent-assembly", region)}
    if service == "transport":
        return {"uaa": block, "uri": credentials_of.service_url("transport-service-app-backend.ts", region)}
    return {"uaa": block, "url": credentials_of.service_url("one-inbox-service", region)}


def service_manager_credentials(context: Json, block: Json, kind: str) -> Json:
    """The flat key of Service Manager: the x509 kind has neither ``url`` nor ``clientsecret``."""
    sm_url = credentials_of.service_url("service-manager", context["region"])
    names = (
        ("clientid", "certificate", "key", "certurl")
        if kind == "x509"
        else ("clientid", "clientsecret", "url")
    )
    return {
        **{name: block[name] for name in names if name in block},
        "sm_url": sm_url,
        "xsappname": block["xsappname"],
    }


def _api_management(world: World, row: Json, binding_id: str, given: Json) -> tuple[Json, str]:
    nested = given.get("xsuaa")
    if nested is not None and not isinstance(nested, dict):
        raise _RefusalError(400, "The binding parameters are invalid: xsuaa is no object.")
    mode = str(world.settings.get("apim_x509", "cap"))
    proof = _shared(world, row, _proof(world, nested or {}, binding_id, longer=mode))
    context: Json = row["context"]
    count = credentials_of.number(row["id"])
    route = row["plan"] == "on-premise-connectivity"
    master = "opproxy-xsuaa!b9082" if route else "api-portal-xsuaa!b7752"
    stem = "opproxy-xsuaa-clone" if route else "apiaccess"
    app = f"{stem}{binding_id.replace('-', '')[:16]}!b{count}|{master}"
    client_id = f"sb-{app}"
    developer = row["offering"].startswith("apimanagement-devportal")
    host = "devportal" if developer else "apiportal"
    _register(world, row, client_id, proof, _role_scopes(row, master), ["client_credentials"])
    zone = credentials_of.zone_url(context)
    base = credentials_of.service_url(f"{context['subdomain']}-{host}", context["region"])
    made: Json = {"url": zone if route else base, "tokenUrl": f"{zone}/oauth/token"}
    if proof.kind == "x509":
        made["certurl"] = credentials_of.certificate_url(context)
    made["clientId"] = client_id
    made.update(proof.fields(key="privateKey", secret="clientSecret"))
    if route:
        made["orgId"] = context["subaccount_id"]
    if "developerId" in row["parameters"]:
        made["developerId"] = row["parameters"]["developerId"]
    return made, client_id


def _role_scopes(row: Json, master: str) -> list[str]:
    """What the role of an instance of API Management lets its clients do."""
    role = row["parameters"].get("role")
    if role is None:
        return list(credentials_of.EVERY_CLIENT)
    return [f"{master}.{scope}" for scope in credentials_of.ROLE_SCOPES[role]]


def _follow_role(world: World, row: Json) -> None:
    """After an update: the clients of an instance have the scopes of its role, and their next tokens with them."""
    clients = world.table("clients")
    for binding_id in row["bindings"]:
        name = world.table("broker.bindings")[binding_id]["client"]
        scopes = _role_scopes(row, name.rpartition("|")[2])
        clients[name].update(scopes=scopes, authorities=scopes)


def _register(
    world: World, row: Json, client_id: str, proof: _Proof, scopes: list[str], grants: list[str]
) -> None:
    context = row["context"]
    account = next(iter(world.table("global_account")), "")
    world.table("clients")[client_id] = {
        "secret": proof.secret,
        "scopes": scopes,
        "zone": context["subdomain"],
        "region": context["region"],
        "grant_types": grants,
        "authorities": scopes,
        "certificate": proof.certificate,
        "extra_claims": {
            "zid": context["subaccount_id"],
            "ext_attr": {
                "enhancer": "XSUAA",
                "subaccountid": context["subaccount_id"],
                "zdn": context["subdomain"],
                "serviceinstanceid": row["id"],
                "globalaccountid": account,
            },
        },
        "instance_id": row["id"],
        "offering": row["offering"],
        "plan": row["plan"],
        **({"self_managed": True} if proof.certificate is not None and proof.key is None else {}),
    }


def _shared(world: World, row: Json, proof: _Proof) -> _Proof:
    """One secret for all keys of an instance, where ``settings["instance_secrets"]`` names the offering: instances from
    before January 2026 may be of that kind (SAP-docs/btp-cloud-platform "Service Instance Secrets").
    """
    if proof.secret is None or row["offering"] not in world.settings.get("instance_secrets", ()):
        return proof
    kept: str = row.setdefault("instance_secret", proof.secret)
    return _Proof(proof.kind, secret=kept)


def _proof(
    world: World, given: Json, binding_id: str, *, default: str = "binding-secret", longer: str = "refuse"
) -> _Proof:
    """Makes what ``credential-type`` asks for, by the rules of the XSUAA broker.

    SAP-docs/btp-cloud-platform "Parameters for X.509 Certificates Managed by SAP Authorization and Trust Management
    Service", "Parameters for Self-Managed X.509 Certificates", "Service Instance Secrets".
    """
    kind = given.get("credential-type", default)
    if kind == "instance-secret":
        raise _RefusalError(400, "The credential-type 'instance-secret' is not available for new bindings.")
    if kind == "binding-secret":
        return _Proof("binding-secret", secret=credentials_of.secret(world))
    if kind != "x509":
        raise _RefusalError(400, f"The credential-type '{kind}' is not supported.")
    options = given.get("x509") or {}
    if not isinstance(options, dict):
        raise _RefusalError(400, "The x509 parameters are invalid.")
    own = options.get("certificate")
    if own is not None:
        if not isinstance(own, str) or "BEGIN CERTIFICATE" not in own:
            raise _RefusalError(400, "The x509 certificate is no PEM certificate.")
        return _Proof("x509", certificate=own)
    length = options.get("key-length", 2048)
    if length not in {2048, 4096, 8192}:
        raise _RefusalError(400, "The x509 key-length must be 2048, 4096 or 8192.")
    if options.get("validity-type", "DAYS") != "DAYS":
        raise _RefusalError(400, "The x509 validity-type must be DAYS.")
    days = options.get("validity", 7)
    most = int(world.settings.get("x509_maximum_days", 30))
    if not isinstance(days, int) or isinstance(days, bool) or days < 1:
        raise _RefusalError(400, f"The x509 validity must be a number from 1 to {most}.")
    if days > most and longer == "refuse":
        raise _RefusalError(400, f"The x509 validity must be a number from 1 to {most}.")
    if longer != "accept":
        days = min(days, most)
    chain, key = credentials_of.certificate(world, binding_id, days=days, length=length)
    return _Proof("x509", certificate=chain, key=key)


# ----------------------------------------------------------------------------------------------------------------------
# Keys without an instance that anybody could see


class Refused(Exception):
    """The broker does not make such a key."""


def issue(
    world: World,
    service: str,
    plan: str,
    context: Mapping[str, Any],
    *,
    parameters: Mapping[str, Any] | None = None,
    binding: Mapping[str, Any] | None = None,
) -> Json:
    """A working key whose instance no marketplace lists: {"instance_id", "binding_id", "credentials"}."""
    instance_id, binding_id = world.new_id(), world.new_id()
    where = _context(world, context)
    try:
        row = {
            "id": instance_id,
            "offering": service,
            "plan": plan,
            "parameters": _checked_parameters(world, service, plan, dict(parameters or {}), where),
            "context": where,
            "bindings": {binding_id: True},
            "hidden": True,
        }
        made, client = _credentials(world, row, binding_id, dict(binding or {}))
    except _RefusalError as problem:
        raise Refused(str(problem)) from problem
    world.table("broker.instances")[instance_id] = row
    world.table("broker.bindings")[binding_id] = {
        "id": binding_id,
        "instance_id": instance_id,
        "parameters": dict(binding or {}),
        "credentials": made,
        "client": client,
    }
    return {"instance_id": instance_id, "binding_id": binding_id, "credentials": made}


def revoke(world: World, instance_id: str) -> None:
    """Takes an instance and all its keys away, whatever a test has ordered to fail."""
    row = world.table("broker.instances").pop(instance_id, None)
    for binding_id in list(row["bindings"]) if row else ():
        _forget(world, row, binding_id)


# ----------------------------------------------------------------------------------------------------------------------
# Addresses for the client at hand

_ADDRESS = re.compile(r"https://([A-Za-z0-9.-]+\.hana\.ondemand\.com)(/[^\s]*)?")


def localise(credentials: Any, request: Request) -> Any:
    """A copy of credentials whose addresses are those under which this client reaches the sandbox."""
    return localise_with(credentials, request.url)


def localise_with(credentials: Any, url: Callable[[str, str], str]) -> Any:
    """As :func:`localise`, for a door's own ``url`` function."""
    if isinstance(credentials, dict):
        return {key: localise_with(value, url) for key, value in credentials.items()}
    if isinstance(credentials, list):
        return [localise_with(value, url) for value in credentials]
    if isinstance(credentials, str):
        match = _ADDRESS.fullmatch(credentials)
        if match is not None:
            return url(match[1], match[2] or "")
    return credentials
