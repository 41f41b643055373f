"""What the BTP services refuse: one row per sentence of their published behaviour.

``where`` names the section of the API reference this project keeps, ``says`` the rule in a few words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from btp_reconcile.sandbox import Response
from tests.sandbox.btp_client import ACCOUNTS, ENTITLEMENTS, MANAGER, PROVISIONING, Btp

ASSIGN = "/entitlements/v1/subaccountServicePlans"
ASSIGNMENTS = "/entitlements/v1/assignments"
SUBACCOUNTS = "/accounts/v1/subaccounts"
INSTANCES = "/v1/service_instances"
BINDINGS = "/v1/service_bindings"
CONFIG = {"service_offering_name": "sandbox-config", "service_plan_name": "standard"}
SLOW = {"service_offering_name": "sandbox-slow", "service_plan_name": "standard"}
PORTAL = {"service_offering_name": "apimanagement-apiportal", "service_plan_name": "apiportal-apiaccess"}
DEVELOPER = {"service_offering_name": "apimanagement-devportal", "service_plan_name": "devportal-apiaccess"}
NOBODY = "00000000-0000-4000-8000-000000000000"
Send = Callable[[Btp], Response]


@dataclass(frozen=True)
class Case:
    where: str
    says: str
    send: Send
    status: int
    code: int | str | None = None
    text: str = ""


def central(method: str, target: str, body: Any = None, **more: Any) -> Send:
    return lambda btp: btp.central(method, _filled(btp, target), _filled(btp, body), **more)


def manager(method: str, target: str, body: Any = None, **more: Any) -> Send:
    return lambda btp: btp.manager(method, _filled(btp, target), _filled(btp, body), **more)


def _filled(btp: Btp, value: Any) -> Any:
    """Names in angle brackets become ids."""
    if isinstance(value, str):
        for name, guid in btp.ids.items():
            value = value.replace(f"<{name}>", guid)
        for name, guid in btp.directories.items():
            value = value.replace(f"<{name}>", guid)
        for name in ("afc", "broken"):
            if f"<{name}>" in value:
                value = value.replace(f"<{name}>", btp.named("service_instances", name)["id"])
        if "<k1>" in value:
            value = value.replace("<k1>", btp.named("service_bindings", "k1")["id"])
        return value.replace("<account>", btp.account)
    if isinstance(value, dict):
        return {key: _filled(btp, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(btp, item) for item in value]
    return value


def assign(service: str, plan: str, subaccount: str = "prod", **value: Any) -> Send:
    return lambda btp: btp.assign(service, plan, subaccount, **value)


def items(*given: Any) -> dict[str, Any]:
    return {"subaccountServicePlans": list(given)}


def with_key(service: str, plan: str, host: str, method: str, target: str, **parameters: Any) -> Send:
    def send(btp: Btp) -> Response:
        token = btp.token(btp.key(service, plan, **parameters))
        return btp.send(method, host, _filled(btp, target), token=token)

    return send


def expired(btp: Btp) -> Response:
    token = btp.token(btp.access["central"])
    with btp.sandbox.hold() as world:
        world.advance(43201)
    return btp.central("GET", SUBACCOUNTS, token=token)


def expired_manager(btp: Btp) -> Response:
    token = btp.token(btp.access["service_manager"][btp.prod])
    with btp.sandbox.hold() as world:
        world.advance(43201)
    return btp.manager("GET", INSTANCES, token=token)


def wrong_secret(btp: Btp) -> Response:
    uaa = btp.access["central"]["uaa"]
    return btp.post_token(uaa["clientid"], "wrong", uaa["url"])


def wrong_grant(btp: Btp) -> Response:
    uaa = btp.access["central"]["uaa"]
    return btp.post_token(uaa["clientid"], uaa["clientsecret"], uaa["url"], grant_type="magic")


def foreign_zone(btp: Btp) -> Response:
    key = btp.access["service_manager"][btp.prod]
    return btp.post_token(key["clientid"], key["clientsecret"], key["url"].replace("prod-x1", "managed-x1"))


def locked(btp: Btp) -> Response:
    btp.assign("transport", "standard", enable=True)
    return btp.assign("transport", "export", enable=True)


def bind_while_creating(btp: Btp) -> Response:
    location = btp.manager("POST", INSTANCES, {"name": "a", **SLOW}).header("Location") or ""
    return btp.manager("POST", BINDINGS, {"name": "k", "service_instance_id": location.split("/")[3]})


def change_while_creating(btp: Btp) -> Response:
    location = btp.manager("POST", INSTANCES, {"name": "a", **SLOW}).header("Location") or ""
    return btp.manager("PATCH", f"{INSTANCES}/{location.split('/')[3]}", {"name": "b"})


def bind_while_deleting(btp: Btp) -> Response:
    guid = btp.instance("a", "sandbox-slow")
    btp.manager("DELETE", f"{INSTANCES}/{guid}")
    return btp.manager("POST", BINDINGS, {"name": "k", "service_instance_id": guid})


def delete_twice(btp: Btp) -> Response:
    guid = btp.instance("a", "sandbox-slow")
    btp.manager("DELETE", f"{INSTANCES}/{guid}")
    return btp.manager("DELETE", f"{INSTANCES}/{guid}")


def broker_down(btp: Btp) -> Response:
    order = {"verb": "provision", "status": 500, "description": "Could not find credentials service."}
    with btp.sandbox.hold() as world:
        world.settings["broker_failures"] = [order]
    return btp.manager("POST", INSTANCES, {"name": "a", **PORTAL})


def not_bindable(btp: Btp) -> Response:
    with btp.sandbox.hold() as world:
        world.settings["offerings"] = {"sandbox-config": {"plans": {"standard": {"bindable": False}}}}
    return btp.manager("POST", BINDINGS, {"name": "k", "service_instance_id": btp.instance("a")})


def new_subaccount_is_locked(btp: Btp) -> Response:
    made = btp.central("POST", SUBACCOUNTS, {"displayName": "n", "region": "eu10", "subdomain": "n-x1"})
    return btp.assign("transport", "standard", made.data()["guid"], enable=True)


def binding_of(parameters: dict[str, Any], **plan: Any) -> Send:
    def send(btp: Btp) -> Response:
        made = btp.manager("POST", f"{INSTANCES}?async=false", {"name": "x", **plan})
        assert made.status == 201, made.body
        body = {"name": "k", "service_instance_id": made.data()["id"], "parameters": parameters}
        return btp.manager("POST", BINDINGS, body)

    return send


def x509(**options: Any) -> dict[str, Any]:
    return {"xsuaa": {"credential-type": "x509", "x509": options}}


def fields(query: str, kind: str = INSTANCES) -> Send:
    return manager("GET", f"{kind}?fieldQuery={quote(query)}")


def labels(query: str) -> Send:
    return manager("GET", f"{INSTANCES}?labelQuery={quote(query)}")


def changes(*given: dict[str, Any]) -> Send:
    return manager("PATCH", f"{INSTANCES}/<afc>", {"labels": list(given)})


def named(**more: Any) -> dict[str, Any]:
    return {"name": "new", **CONFIG, **more}


SERVICE = {"serviceName": "transport", "servicePlanName": "standard"}
ONE = [{"subaccountGUID": "<prod>", "enable": True}]
DIRECTORY = "/entitlements/v1/directories"

CASES: tuple[Case, ...] = (
    # tokens
    Case("1.3", "a wrong secret is 401", wrong_secret, 401, None, "Bad credentials"),
    Case("1.3", "an unknown grant is 400", wrong_grant, 400, None, "unsupported_grant_type"),
    Case("7.1", "a client belongs to its own zone", foreign_zone, 401),
    Case("0.3", "no token is 401 with an empty body", central("GET", SUBACCOUNTS, token=None), 401),
    Case("0.3", "a token of nobody is 401", central("GET", SUBACCOUNTS, token="a.b.c"), 401),
    Case("11.1", "an expired token is 401", expired, 401),
    Case("6.9", "an expired token is 401 in JSON", expired_manager, 401, "Unauthorized"),
    Case("6.9", "no token is 401 in JSON", manager("GET", INSTANCES, token=None), 401, "Unauthorized"),
    # scopes
    Case(
        "1.2",
        "a local key lists no subaccounts",
        with_key("cis", "local", ACCOUNTS, "GET", SUBACCOUNTS, grantType="clientCredentials"),
        403,
    ),
    Case(
        "1.2",
        "a local key reads no entitlements",
        with_key("cis", "local", ENTITLEMENTS, "GET", ASSIGNMENTS, grantType="clientCredentials"),
        403,
    ),
    Case(
        "1.1",
        "a central key reads no environments",
        with_key(
            "cis",
            "central",
            PROVISIONING,
            "GET",
            "/provisioning/v1/environments",
            grantType="clientCredentials",
        ),
        403,
    ),
    Case(
        "1.1", "a viewer assigns nothing", with_key("cis", "central-viewer", ENTITLEMENTS, "PUT", ASSIGN), 403
    ),
    Case(
        "1.1",
        "a viewer deletes nothing",
        with_key("cis", "central-viewer", ACCOUNTS, "DELETE", f"{SUBACCOUNTS}/<prod>"),
        403,
    ),
    Case(
        "3.3",
        "a viewer makes no Service Manager keys",
        with_key("cis", "central-viewer", ACCOUNTS, "POST", f"{SUBACCOUNTS}/<prod>/serviceManagementBinding"),
        403,
    ),
    Case(
        "6.1",
        "an auditor creates nothing",
        with_key("service-manager", "subaccount-audit", MANAGER, "POST", INSTANCES),
        403,
        "Forbidden",
    ),
    Case(
        "6.1",
        "a cis key opens no Service Manager",
        with_key("cis", "local", MANAGER, "GET", INSTANCES, grantType="clientCredentials"),
        403,
        "Forbidden",
    ),
    Case(
        "6.1",
        "a Service Manager key opens no accounts",
        with_key("service-manager", "subaccount-admin", ACCOUNTS, "GET", SUBACCOUNTS),
        403,
    ),
    Case(
        "9",
        "Service Manager of another region does not know the subaccount",
        manager("GET", INSTANCES, host="service-manager.cfapps.us10.hana.ondemand.com"),
        401,
        "Unauthorized",
    ),
    Case(
        "0.2",
        "accounts live in the central region only",
        central("GET", SUBACCOUNTS, host="accounts-service.cfapps.us10.hana.ondemand.com"),
        404,
    ),
    Case("0.3", "an unknown path is the router's 404", central("GET", "/accounts/v1/nothing"), 404),
    # entitlements
    Case("11.4", "serviceName needs planName", central("GET", f"{ASSIGNMENTS}?serviceName=cis"), 400, 11000),
    Case("11.4", "planName needs serviceName", central("GET", f"{ASSIGNMENTS}?planName=local"), 400, 11000),
    Case(
        "0.3", "an unknown subaccount", central("GET", f"{ASSIGNMENTS}?subaccountGUID={NOBODY}"), 404, 20004
    ),
    Case("0.3", "an unknown directory", central("GET", f"{ASSIGNMENTS}?directoryGUID={NOBODY}"), 404, 20002),
    Case(
        "2.4",
        "a directory without the feature",
        central("GET", f"{ASSIGNMENTS}?directoryGUID=<plain>"),
        400,
        12003,
    ),
    Case(
        "0.3",
        "a subaccount that is not under the directory",
        central("GET", f"{ASSIGNMENTS}?directoryGUID=<finance>&subaccountGUID=<prod>"),
        400,
        12003,
    ),
    Case("2.2", "a plan that is not in the contract", assign("foo", "premium", enable=True), 409, 30015),
    Case("2.2", "a plan name that is not in the contract", assign("cis", "premium", enable=True), 409, 30015),
    Case(
        "2.3",
        "a number for an elastic plan",
        assign("transport", "standard", amount=1),
        400,
        12003,
        "'enable'",
    ),
    Case("2.3", "a number for an application", assign("afc-production", "standard", amount=1), 400, 12003),
    Case(
        "2.3",
        "a switch for a numeric service",
        assign("sandbox-config", "large", enable=True),
        400,
        12003,
        "'amount'",
    ),
    Case("2.3", "a switch for memory", assign("APPLICATION_RUNTIME", "MEMORY", enable=True), 400, 12003),
    Case("2.3", "a switch for an environment", assign("kymaruntime", "aws", enable=True), 400, 12003),
    Case(
        "2.3",
        "a switch for a counted application",
        assign("integrationsuite", "free", enable=True),
        400,
        12003,
    ),
    Case("2.2", "neither amount nor enable", assign("transport", "standard"), 400, 12003),
    Case(
        "2.2", "both amount and enable", assign("sandbox-config", "large", amount=1, enable=True), 400, 12003
    ),
    Case("2.2", "a negative amount", assign("sandbox-config", "large", amount=-1), 400, 11000),
    Case("2.2", "an amount that is no number", assign("sandbox-config", "large", amount="1"), 400, 11000),
    Case("0.3", "more than there is", assign("APPLICATION_RUNTIME", "MEMORY", amount=101), 409, 30009),
    Case(
        "2.3", "more than one subaccount may have", assign("integrationsuite", "free", amount=2), 409, 30009
    ),
    Case("2.2", "an unknown subaccount", assign("transport", "standard", NOBODY, enable=True), 404, 20004),
    Case("2.1", "an automatic plan stays", assign("xsuaa", "application", enable=False), 400, 12003),
    Case("0.3", "a running change locks the subaccount", locked, 400, 30004, "locked"),
    Case("0.3", "a half-made subaccount is locked", new_subaccount_is_locked, 400, 30004),
    Case("2.2", "an empty list", central("PUT", ASSIGN, items()), 400, 11000),
    Case("2.2", "no JSON", central("PUT", ASSIGN, b"{"), 400, 11000),
    Case("2.2", "no assignmentInfo", central("PUT", ASSIGN, items(SERVICE)), 400, 11000),
    Case(
        "2.2",
        "no subaccountGUID",
        central("PUT", ASSIGN, items({**SERVICE, "assignmentInfo": [{"enable": True}]})),
        400,
        11000,
    ),
    Case(
        "2.2",
        "no servicePlanName",
        central("PUT", ASSIGN, items({"serviceName": "transport", "assignmentInfo": ONE})),
        400,
        11000,
    ),
    Case(
        "2.4",
        "only directories that manage entitlements",
        central("PUT", f"{DIRECTORY}/<plain>/assignments", {"entitlements": []}),
        400,
        12003,
    ),
    Case(
        "2.4",
        "distribution of what is not assigned",
        central(
            "PATCH",
            f"{DIRECTORY}/<finance>/assignments",
            {"entitlementUpdates": [{"service": "transport", "plan": "standard"}]},
        ),
        400,
        12003,
    ),
    Case(
        "2.2",
        "the directory holds nothing",
        assign("transport", "standard", "managed", enable=True),
        409,
        30009,
    ),
    # accounts
    Case("3.1", "an unknown subaccount", central("GET", f"{SUBACCOUNTS}/{NOBODY}"), 404, 20004, "not found"),
    Case(
        "3.2",
        "an unknown directory",
        central("GET", f"/accounts/v1/directories/{NOBODY}"),
        404,
        20002,
        "Could not find",
    ),
    Case(
        "3.1",
        "a selector of blanks",
        central("GET", f"{SUBACCOUNTS}?labelSelector={quote('a b')}"),
        400,
        12003,
    ),
    Case(
        "3.1",
        "a selector joined by OR",
        central("GET", f"{SUBACCOUNTS}?labelSelector={quote('a=1 OR b=2')}"),
        400,
        12003,
    ),
    Case(
        "3.1",
        "a selector with a key twice",
        central("GET", f"{SUBACCOUNTS}?labelSelector={quote('a=1 AND a=2')}"),
        400,
        12003,
    ),
    Case(
        "3.1",
        "a name with a slash",
        central("POST", SUBACCOUNTS, {"displayName": "a/b", "region": "eu10", "subdomain": "ab"}),
        400,
        11000,
    ),
    Case(
        "3.1",
        "a subdomain that ends in a hyphen",
        central("POST", SUBACCOUNTS, {"displayName": "a", "region": "eu10", "subdomain": "ab-"}),
        400,
        11000,
    ),
    Case(
        "3.1", "no region", central("POST", SUBACCOUNTS, {"displayName": "a", "subdomain": "ab"}), 400, 11000
    ),
    Case(
        "3.1",
        "a subdomain in use in the region",
        central("POST", SUBACCOUNTS, {"displayName": "a", "region": "eu10", "subdomain": "prod-x1"}),
        409,
    ),
    Case("3.1", "a change without displayName", central("PATCH", f"{SUBACCOUNTS}/<prod>", {}), 400, 11000),
    Case(
        "3.1",
        "a label value of 64 characters",
        central("PUT", f"{SUBACCOUNTS}/<prod>/labels", {"labels": {"k": ["x" * 64]}}),
        400,
        11000,
    ),
    Case(
        "3.1",
        "eleven label keys",
        central("PUT", f"{SUBACCOUNTS}/<prod>/labels", {"labels": {f"k{n}": ["x"] for n in range(11)}}),
        400,
        11000,
    ),
    Case("3.1", "a subaccount that is not empty", central("DELETE", f"{SUBACCOUNTS}/<prod>"), 400, 12003),
    Case("3.3", "no binding yet", central("GET", f"{SUBACCOUNTS}/<prod>/serviceManagementBinding"), 404),
    Case(
        "3.3",
        "a named binding needs a name",
        central("POST", "/accounts/v2/subaccounts/<prod>/serviceManagerBindings", {}),
        400,
        11000,
    ),
    Case("0.4", "an unknown job", central("GET", "/jobs-management/v1/jobs/1/status"), 404),
    Case(
        "4.1",
        "an unknown environment",
        lambda btp: btp.local("GET", f"/provisioning/v1/environments/{NOBODY}"),
        404,
        41000,
        "Environment instance not found",
    ),
    # Service Manager: queries and pages
    Case("6.3", "a negative page size", manager("GET", f"{INSTANCES}?max_items=-1"), 400, "InvalidMaxItems"),
    Case("6.3", "a page size in words", manager("GET", f"{INSTANCES}?max_items=ten"), 400, "InvalidMaxItems"),
    Case(
        "6.3", "a token that is no base64", manager("GET", f"{INSTANCES}?token=%C3%A4"), 400, "TokenInvalid"
    ),
    Case("6.3", "a token that is no number", manager("GET", f"{INSTANCES}?token=YWJj"), 400, "TokenInvalid"),
    Case("6.3", "an empty query", fields(""), 400, "BadRequest"),
    Case(
        "6.3",
        "an unknown field",
        fields("colour eq 'red'"),
        400,
        "BadRequest",
        "unsupported field query key: colour",
    ),
    Case("6.3", "an unknown operator", fields("name like 'a'"), 400, "BadRequest"),
    Case("6.3", "an equals sign", fields("name = 'a'"), 400, "BadRequest"),
    Case("6.3", "two blanks", fields("name  eq 'a'"), 400, "BadRequest"),
    Case("6.3", "a string without quotes", fields("name eq a"), 400, "BadRequest"),
    Case("6.3", "no or", fields("name eq 'a' or name eq 'b'"), 400, "BadRequest"),
    Case("6.3", "no parentheses", fields("(name eq 'a')"), 400, "BadRequest"),
    Case(
        "6.3", "an ordered operator with a text", fields("name gt 'a'"), 400, "BadRequest", "numeric operator"
    ),
    Case("6.3", "a label key with a dot", labels("a.b eq 'c'"), 400, "BadRequest"),
    Case(
        "6.3",
        "the same label key twice",
        labels("a eq 'b' and a eq 'c'"),
        400,
        "BadRequest",
        "duplicate label query key",
    ),
    Case("6.3", "no ordered operator on labels", labels("a gt 5"), 400, "BadRequest"),
    Case("6.3", "no en on labels", labels("a en 'b'"), 400, "BadRequest", "nullable"),
    Case("6.3", "plans have no context", fields("context eq 'a'", "/v1/service_plans"), 400, "BadRequest"),
    # Service Manager: instances
    Case(
        "6.2",
        "JSON only",
        manager("POST", INSTANCES, named(), headers={"Content-Type": "text/plain"}),
        415,
        "UnsupportedMediaType",
    ),
    Case("6.2", "broken JSON", manager("POST", INSTANCES, b"{"), 400, "BadRequest"),
    Case(
        "6.7",
        "plan by id and by name",
        manager("POST", INSTANCES, named(service_plan_id="x")),
        400,
        "BadRequest",
        "Constraint violated",
    ),
    Case(
        "6.7",
        "no plan at all",
        manager("POST", INSTANCES, {"name": "a"}),
        400,
        "BadRequest",
        "Constraint violated",
    ),
    Case(
        "6.7",
        "an offering without a plan",
        manager("POST", INSTANCES, {"name": "a", "service_offering_name": "cis"}),
        400,
        "BadRequest",
    ),
    Case(
        "6.7",
        "an unknown plan name",
        manager("POST", INSTANCES, {"name": "a", "service_offering_name": "cis", "service_plan_name": "x"}),
        400,
        "BadRequest",
    ),
    Case(
        "6.7",
        "an unknown plan id",
        manager("POST", INSTANCES, {"name": "a", "service_plan_id": NOBODY}),
        404,
        "NotFound",
        "could not find such service plan",
    ),
    Case(
        "6.7",
        "a plan that is not entitled",
        manager(
            "POST",
            INSTANCES,
            {"name": "a", "service_offering_name": "transport", "service_plan_name": "export"},
        ),
        400,
        "BadRequest",
    ),
    Case(
        "6.7",
        "a name in use",
        manager("POST", INSTANCES, named(name="afc")),
        409,
        "Conflict",
        "instance with same name exists",
    ),
    Case(
        "6.6", "the name of a failed one", manager("POST", INSTANCES, named(name="broken")), 409, "Conflict"
    ),
    Case(
        "6.7",
        "an id of one's own",
        manager("POST", INSTANCES, named(id="x")),
        400,
        "BadRequest",
        "specific resource id",
    ),
    Case("6.7", "shared at creation", manager("POST", INSTANCES, named(shared=True)), 400, "BadRequest"),
    Case(
        "6.7",
        "parameters that are a text",
        manager("POST", INSTANCES, named(parameters="x")),
        400,
        "BadRequest",
    ),
    Case(
        "6.4",
        "the tenant's label",
        manager("POST", INSTANCES, named(labels={"subaccount_id": ["x"]})),
        400,
        "BadRequest",
        "not allowed",
    ),
    Case("6.4", "labels are lists", manager("POST", INSTANCES, named(labels={"a": "b"})), 400, "BadRequest"),
    Case(
        "6.4",
        "a label value of 256 characters",
        manager("POST", INSTANCES, named(labels={"a": ["b" * 256]})),
        400,
        "BadRequest",
    ),
    Case(
        "6.4",
        "a label value with a line feed",
        manager("POST", INSTANCES, named(labels={"a": ["b\nc"]})),
        400,
        "BadRequest",
    ),
    Case(
        "6.4",
        "a label key with a blank",
        manager("POST", INSTANCES, named(labels={"a b": ["c"]})),
        400,
        "BadRequest",
    ),
    Case(
        "6.4",
        "the tenant's label in a change",
        changes({"op": "add", "key": "subaccount_id", "values": ["x"]}),
        400,
        "BadRequest",
        "Modifying is not allowed for label",
    ),
    Case(
        "6.7",
        "an unknown label operation",
        changes({"op": "set", "key": "a", "values": ["x"]}),
        400,
        "BadRequest",
    ),
    Case(
        "6.7", "add without values", changes({"op": "add", "key": "a"}), 400, "BadRequest", "requires values"
    ),
    Case(
        "6.7",
        "label changes are a list",
        manager("PATCH", f"{INSTANCES}/<afc>", {"labels": {"a": ["b"]}}),
        400,
        "BadRequest",
    ),
    Case("6.7", "an id in a change", manager("PATCH", f"{INSTANCES}/<afc>", {"id": "x"}), 400, "BadRequest"),
    Case(
        "6.7",
        "a rename to a name in use",
        manager("PATCH", f"{INSTANCES}/<afc>", {"name": "broken"}),
        409,
        "Conflict",
    ),
    Case(
        "6.7",
        "sharing with another change",
        manager("PATCH", f"{INSTANCES}/<afc>", {"shared": True, "name": "x"}),
        400,
        "BadRequest",
    ),
    Case(
        "6.7",
        "asynchronous sharing",
        manager("PATCH", f"{INSTANCES}/<afc>?async=true", {"shared": True}),
        400,
        "BadRequest",
    ),
    Case(
        "6.7",
        "a plan that cannot be shared",
        manager("PATCH", f"{INSTANCES}/<afc>", {"shared": True}),
        400,
        "BadRequest",
        "does not support instance sharing",
    ),
    Case("6.7", "a change during a creation", change_while_creating, 422, "ConcurrentOperationInProgress"),
    Case("6.7", "two deletions", delete_twice, 422, "ConcurrentOperationInProgress"),
    Case(
        "6.7",
        "an instance with bindings",
        manager("DELETE", f"{INSTANCES}/<afc>"),
        400,
        "BadRequest",
        "could not delete instance due to 1 existing bindings",
    ),
    Case("6.7", "no cascade", manager("DELETE", f"{INSTANCES}/<afc>?cascade=true"), 400, "BadRequest"),
    Case(
        "6.7",
        "an unknown instance",
        manager("DELETE", f"{INSTANCES}/{NOBODY}"),
        404,
        "NotFound",
        "could not find such /v1/service_instances",
    ),
    Case(
        "6.2", "no deletion of all at once", manager("DELETE", f"{INSTANCES}?async=true"), 400, "BadRequest"
    ),
    Case(
        "6.2",
        "parameters of a write-only service",
        manager("GET", f"{INSTANCES}/<afc>/parameters"),
        400,
        "BadRequest",
        "this operation is not supported.",
    ),
    Case(
        "6.2",
        "an operation of another instance",
        manager("GET", f"{INSTANCES}/<afc>/operations/{NOBODY}"),
        404,
        "NotFound",
    ),
    Case("6.2", "no operations collection", manager("GET", "/v1/operations"), 404),
    # Service Manager: bindings
    Case(
        "6.7",
        "an instance nobody sees",
        manager("POST", BINDINGS, {"name": "k", "service_instance_id": NOBODY}),
        404,
        "NotFound",
    ),
    Case("6.7", "no instance", manager("POST", BINDINGS, {"name": "k"}), 400, "BadRequest"),
    Case(
        "6.7",
        "a failed instance",
        manager("POST", BINDINGS, {"name": "k", "service_instance_id": "<broken>"}),
        422,
        "OperationInProgress",
        "still in progress or failed",
    ),
    Case("6.7", "an instance in the making", bind_while_creating, 422, "OperationInProgress"),
    Case("6.7", "an instance on its way out", bind_while_deleting, 422, "OperationInProgress"),
    Case(
        "6.7",
        "a binding name in use",
        manager("POST", BINDINGS, {"name": "k1", "service_instance_id": "<afc>"}),
        409,
        "Conflict",
        "binding with same name exists for instance with id",
    ),
    Case("6.7", "a plan that is not bindable", not_bindable, 400, "BrokerError"),
    Case(
        "6.7",
        "a binding's parameters stay",
        manager("PATCH", f"{BINDINGS}/<k1>", {"parameters": {}}),
        400,
        "InvalidRequest",
    ),
    Case(
        "6.7",
        "a binding changes at once",
        manager("PATCH", f"{BINDINGS}/<k1>?async=true", {"name": "x"}),
        400,
        "InvalidRequest",
    ),
    Case(
        "6.7",
        "an unknown binding",
        manager("DELETE", f"{BINDINGS}/{NOBODY}"),
        404,
        "NotFound",
        "could not find such /v1/service_bindings",
    ),
    Case(
        "6.2",
        "parameters of a write-only binding",
        manager("GET", f"{BINDINGS}/<k1>/parameters"),
        400,
        "BadRequest",
    ),
    # brokers behind Service Manager
    Case(
        "6.7",
        "a broker in trouble is 502",
        broker_down,
        502,
        "BrokerError",
        "Could not find credentials service.",
    ),
    Case(
        "AFC 2.8",
        "a role misspelt as in the docs",
        manager(
            "POST", INSTANCES, {"name": "a", **PORTAL, "parameters": {"role": "APIportal.Administrator"}}
        ),
        502,
        "BrokerError",
        "invalid role creation",
    ),
    Case(
        "AFC 2.4",
        "one role per instance",
        manager("POST", INSTANCES, {"name": "a", **PORTAL, "parameters": {"role": ["APIPortal.Guest"]}}),
        502,
        "BrokerError",
    ),
    Case(
        "AFC 2.4",
        "the role collection is no role",
        manager(
            "POST",
            INSTANCES,
            {"name": "a", **PORTAL, "parameters": {"role": "APIManagement.Selfservice.Administrator"}},
        ),
        502,
        "BrokerError",
    ),
    Case(
        "AFC 2.5",
        "a role of the other offering",
        manager("POST", INSTANCES, {"name": "a", **DEVELOPER, "parameters": {"role": "APIPortal.Guest"}}),
        502,
        "BrokerError",
    ),
    Case(
        "AFC 2.5",
        "a developer without an id",
        manager(
            "POST",
            INSTANCES,
            {"name": "a", **DEVELOPER, "parameters": {"role": "AuthGroup.API.ApplicationDeveloper"}},
        ),
        502,
        "BrokerError",
        "developerId",
    ),
    Case(
        "AFC 2.6",
        "no instance secrets any more",
        binding_of({"xsuaa": {"credential-type": "instance-secret"}}, **PORTAL),
        502,
        "BrokerError",
        "instance-secret",
    ),
    Case(
        "7.2",
        "an unknown credential type",
        binding_of({"xsuaa": {"credential-type": "magic"}}, **PORTAL),
        502,
        "BrokerError",
    ),
    Case(
        "7.2",
        "a key length of 1024",
        binding_of(x509(**{"key-length": 1024}), **PORTAL),
        502,
        "BrokerError",
        "key-length",
    ),
    Case(
        "7.2",
        "a validity in months",
        binding_of(x509(**{"validity-type": "MONTHS"}), **PORTAL),
        502,
        "BrokerError",
        "DAYS",
    ),
    Case("7.2", "no validity at all", binding_of(x509(validity=0), **PORTAL), 502, "BrokerError"),
    Case(
        "1.1",
        "an unknown grant of cis",
        manager(
            "POST",
            INSTANCES,
            {
                "name": "a",
                "service_offering_name": "cis",
                "service_plan_name": "local",
                "parameters": {"grantType": "magic"},
            },
        ),
        502,
        "BrokerError",
    ),
    Case(
        "1.1",
        "a directory without authorizations",
        manager(
            "POST",
            INSTANCES,
            {
                "name": "a",
                "service_offering_name": "cis",
                "service_plan_name": "central",
                "parameters": {"directoryId": "<plain>"},
            },
        ),
        502,
        "BrokerError",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.where}: {case.says}")
def test_refusal(case: Case) -> None:
    answer = case.send(Btp())
    assert answer.status == case.status, answer.body
    if isinstance(case.code, int):
        assert answer.data()["error"]["code"] == case.code
        assert answer.data()["error"]["correlationID"] == answer.header("X-CorrelationID")
    elif case.code is not None:
        assert answer.data()["error"] == case.code
        assert answer.data()["description"]
    assert case.text in answer.body.decode()


def test_the_table_is_long_enough_and_has_no_twins() -> None:
    assert len(CASES) >= 50
    assert len({(case.where, case.says, id(case.send)) for case in CASES}) == len(CASES)
