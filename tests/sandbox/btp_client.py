"""A small client of the sandbox's BTP services, for tests: one token per key, JSON in and out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from btp_reconcile.sandbox import Request, Response, Sandbox

ACCOUNTS = "accounts-service.cfapps.eu10.hana.ondemand.com"
ENTITLEMENTS = "entitlements-service.cfapps.eu10.hana.ondemand.com"
PROVISIONING = "provisioning-service.cfapps.eu10.hana.ondemand.com"
MANAGER = "service-manager.cfapps.eu10.hana.ondemand.com"

WORLD: dict[str, Any] = {
    "directories": {
        "finance": {"features": ["DEFAULT", "ENTITLEMENTS", "AUTHORIZATIONS"]},
        "plain": {"parent": None},
    },
    "subaccounts": {
        "prod": {
            "region": "eu10",
            "subdomain": "prod-x1",
            "labels": {"stage": ["prod"], "owner": ["a", "b"]},
            "cloud_foundry": {"landscape": "eu10-004", "org": "acme-prod", "spaces": ["apis"]},
            "entitlements": {
                "apimanagement-apiportal": {"apiportal-apiaccess": True},
                "apimanagement-devportal": {"devportal-apiaccess": True},
                "sandbox-config": {"standard": True, "large": 2},
                "sandbox-slow": {"standard": True},
                "cis": {"local": True, "central": True},
                "APPLICATION_RUNTIME": {"MEMORY": 4},
            },
            "instances": [
                {
                    "runtime": "other",
                    "name": "afc",
                    "service": "afc-api-service",
                    "plan": "standard",
                    "labels": {"owner": ["x"], "stage": ["dev", "test"]},
                    "keys": [{"name": "k1", "labels": {"made-by": ["seed"]}}],
                },
                {
                    "runtime": "other",
                    "name": "broken",
                    "service": "sandbox-config",
                    "plan": "standard",
                    "last_operation": {"type": "create", "state": "failed", "description": "no luck"},
                },
            ],
        },
        "managed": {"region": "eu10", "subdomain": "managed-x1", "directory": "finance"},
        "other": {"region": "eu20", "subdomain": "other-x1"},
    },
}


@dataclass
class Btp:
    """A sandbox with a world in it, and callers who hold its keys."""

    settings: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=lambda: WORLD)
    time: str = "looks"

    def __post_init__(self) -> None:
        self.sandbox = Sandbox(settings=self.settings, time=self.time)
        self.sandbox.seed(self.document)
        self.access = self.sandbox.access()
        self._tokens: dict[str, str] = {}
        with self.sandbox.hold() as world:
            self.ids = {row["name"]: row["id"] for row in world.table("subaccounts").values()}
            self.directories = {row["name"]: row["id"] for row in world.table("directories").values()}
            self.account = next(iter(world.table("global_account")))

    @property
    def prod(self) -> str:
        return str(self.ids["prod"])

    def post_token(self, client_id: str, secret: str, url: str, **form: str) -> Response:
        body = urlencode(
            {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret, **form}
        )
        return self.sandbox.handle(
            Request.of(
                "POST",
                urlsplit(url).netloc,
                "/oauth/token",
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=body.encode(),
            )
        )

    def token(self, key: dict[str, Any]) -> str:
        uaa = key.get("uaa", key)
        known = self._tokens.get(uaa["clientid"])
        if known is None:
            answer = self.post_token(uaa["clientid"], uaa["clientsecret"], uaa["url"])
            assert answer.status == 200, answer.body
            known = self._tokens[uaa["clientid"]] = str(answer.data()["access_token"])
        return known

    def send(
        self,
        method: str,
        host: str,
        target: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        fields = {"Content-Type": "application/json", **(headers or {})}
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.sandbox.handle(Request.of(method, host, target, headers=fields, body=data))

    def central(self, method: str, target: str, body: Any = None, **more: Any) -> Response:
        host = ENTITLEMENTS if target.startswith("/entitlements") else ACCOUNTS
        more.setdefault("token", self.token(self.access["central"]))
        return self.send(method, more.pop("host", host), target, body, **more)

    def manager(self, method: str, target: str, body: Any = None, **more: Any) -> Response:
        more.setdefault("token", self.token(self.access["service_manager"][self.prod]))
        return self.send(method, more.pop("host", MANAGER), target, body, **more)

    def local(self, method: str, target: str, body: Any = None, **more: Any) -> Response:
        more.setdefault("token", self.token(self.key("cis", "local", grantType="clientCredentials")))
        return self.send(method, PROVISIONING, target, body, **more)

    def key(self, service: str, plan: str, subaccount: str = "prod", **parameters: Any) -> dict[str, Any]:
        """A key of a service that nobody sees."""
        from btp_reconcile.sandbox import accounts, brokers

        with self.sandbox.hold() as world:
            row = world.table("subaccounts")[self.ids[subaccount]]
            made = brokers.issue(world, service, plan, accounts.context_of(world, row), parameters=parameters)
        return dict(made["credentials"])

    def plan_id(self, service: str, plan: str) -> str:
        query = f"catalog_name eq '{service}'"
        offering = self.manager("GET", "/v1/service_offerings?fieldQuery=" + quote(query)).data()["items"][0]
        query = f"catalog_name eq '{plan}' and service_offering_id eq '{offering['id']}'"
        return str(
            self.manager("GET", "/v1/service_plans?fieldQuery=" + quote(query)).data()["items"][0]["id"]
        )

    def instance(
        self, name: str, service: str = "sandbox-config", plan: str = "standard", **more: Any
    ) -> str:
        """A finished instance and its id."""
        body = {"name": name, "service_offering_name": service, "service_plan_name": plan, **more}
        answer = self.manager("POST", "/v1/service_instances?async=false", body)
        assert answer.status == 201, answer.body
        return str(answer.data()["id"])

    def binding(self, name: str, instance: str, **more: Any) -> dict[str, Any]:
        body = {"name": name, "service_instance_id": instance, **more}
        answer = self.manager("POST", "/v1/service_bindings?async=false", body)
        assert answer.status == 201, answer.body
        return dict(answer.data())

    def named(self, kind: str, name: str) -> dict[str, Any]:
        found = self.manager("GET", f"/v1/{kind}?fieldQuery=" + quote(f"name eq '{name}'")).data()["items"]
        assert len(found) == 1
        return dict(found[0])

    def follow(self, answer: Response) -> dict[str, Any]:
        """Polls the operation of a 202 until it is over."""
        assert answer.status == 202, answer.body
        location = answer.header("Location")
        assert location is not None
        for _ in range(20):
            found = self.manager("GET", location)
            if found.status == 404:
                return {"state": "succeeded"}
            if found.data()["state"] != "in progress":
                return dict(found.data())
        raise AssertionError("the operation never ends")

    def assign(
        self, service: str, plan: str, subaccount: str = "prod", unique: str | None = None, **value: Any
    ) -> Response:
        item: dict[str, Any] = {
            "serviceName": service,
            "servicePlanName": plan,
            "assignmentInfo": [{"subaccountGUID": self.ids.get(subaccount, subaccount), **value}],
        }
        if unique is not None:
            item["servicePlanUniqueIdentifier"] = unique
        return self.central(
            "PUT", "/entitlements/v1/subaccountServicePlans", {"subaccountServicePlans": [item]}
        )

    def assignments(self, query: str = "") -> dict[str, Any]:
        answer = self.central("GET", f"/entitlements/v1/assignments{query}")
        assert answer.status == 200, answer.body
        return dict(answer.data())

    def state(self, service: str, plan: str, subaccount: str = "prod") -> dict[str, Any] | None:
        """The one assignment of a plan, or None."""
        found = self.assignments(
            f"?subaccountGUID={self.ids[subaccount]}&serviceName={service}&planName={plan}"
        )["assignedServices"]
        return dict(found[0]["servicePlans"][0]["assignmentInfo"][0]) if found else None

    def settled(self, service: str, plan: str, subaccount: str = "prod") -> dict[str, Any] | None:
        for _ in range(20):
            row = self.state(service, plan, subaccount)
            if row is None or row["entityState"] in {"OK", "PROCESSING_FAILED"}:
                return row
        raise AssertionError("the assignment never ends")
