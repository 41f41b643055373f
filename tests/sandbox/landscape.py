"""A small landscape for the tests of the sandbox's Cloud Foundry: people, spaces, and a client without manners."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from btp_reconcile.sandbox import Request, Response, Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

API = "api.cf.eu10.hana.ondemand.com"
UAA = "uaa.cf.eu10.hana.ondemand.com"
LOGIN = "login.cf.eu10.hana.ondemand.com"
HTTPS = f"https://{API}"

CONFIG = {"space": "apis", "service": "sandbox-config", "plan": "standard"}
SLOW = {"space": "apis", "service": "sandbox-slow", "plan": "standard"}

PEOPLE: dict[str, dict[str, Any]] = {
    "dev@example.com": {
        "password": "secret",
        "roles": {
            "acme/apis": ["space_developer"],
            "acme/other": ["space_auditor"],
            "sleeping/night": ["space_developer"],
        },
    },
    "auditor@example.com": {"password": "secret", "roles": {"acme/apis": ["space_auditor"]}},
    "manager@example.com": {"password": "secret", "roles": {"acme/apis": ["space_manager"]}},
    "stranger@example.com": {"password": "secret", "roles": {}},
    "admin@example.com": {"password": "secret", "kind": "admin"},
    "weak@example.com": {"password": "secret", "scopes": ["openid"], "roles": {"*": ["space_developer"]}},
}


def document(instances: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Two subaccounts: acme with three spaces, and sleeping, which is suspended and alone has destination/lite."""
    return {
        "users": PEOPLE,
        "subaccounts": {
            "main": {
                "region": "eu10",
                "subdomain": "main-x1",
                "entitlements": {
                    "sandbox-config": {"standard": True, "large": 5},
                    "sandbox-slow": {"standard": True},
                    "xsuaa": {"application": True},
                },
                "cloud_foundry": {"org": "acme", "spaces": ["apis", "other", "vault"]},
                "instances": instances or [],
            },
            "second": {
                "region": "eu10",
                "subdomain": "second-x1",
                "entitlements": {"sandbox-config": {"standard": True}, "destination": {"lite": True}},
                "cloud_foundry": {"org": "sleeping", "spaces": ["night"], "suspended": True},
            },
        },
    }


class Landscape:
    """The landscape eu10 of one sandbox, as a client sees it that writes its requests by hand."""

    def __init__(
        self,
        instances: list[dict[str, Any]] | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        who: str = "dev@example.com",
    ) -> None:
        self.sandbox = Sandbox(settings=settings)
        self.sandbox.seed(document(instances))
        self.who = who
        self._tokens: dict[str, str] = {}
        with self.sandbox.hold() as world:
            self.names = {
                **{row["name"]: row["guid"] for row in world.table("cf.organizations").values()},
                **{row["name"]: row["guid"] for row in world.table("cf.spaces").values()},
                **{row["name"]: row["guid"] for row in world.table("cf.service_instances").values()},
                **{
                    row["name"] or "unnamed": row["guid"]
                    for row in world.table("cf.service_credential_bindings").values()
                },
                **{f"app {row['name']}": row["guid"] for row in world.table("cf.apps").values()},
                **{f"route {row['host']}": row["guid"] for row in world.table("cf.routes").values()},
                **{
                    f"binding of {world.table('cf.routes')[row['route']]['host']}": row["guid"]
                    for row in world.table("cf.service_route_bindings").values()
                },
            }

    def token(self, who: str) -> str:
        if who not in self._tokens:
            answer = grant(self.sandbox, {"grant_type": "password", "username": who, "password": "secret"})
            self._tokens[who] = answer.data()["access_token"]
        return self._tokens[who]

    def send(self, method: str, target: str, body: Any = None, *, who: str | None = None) -> Response:
        who = self.who if who is None else who
        headers = {"Authorization": f"bearer {self.token(who)}"} if who else {}
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        target = urlsplit(target)._replace(scheme="", netloc="").geturl()
        return self.sandbox.handle(Request.of(method, API, target, headers=headers, body=data))

    def get(self, target: str, **query: str) -> Any:
        answer = self.send("GET", target + (f"?{urlencode(query)}" if query else ""))
        assert answer.status == 200, answer.body
        return answer.data()

    def plan(self, service: str, plan: str = "standard") -> str:
        found = self.get("/v3/service_plans", service_offering_names=service, names=plan)
        guid: str = found["resources"][0]["guid"]
        return guid

    def instance_body(self, name: str, service: str = "sandbox-config", **more: Any) -> dict[str, Any]:
        return {
            "type": "managed",
            "name": name,
            "relationships": {
                "space": {"data": {"guid": self.names["apis"]}},
                "service_plan": {"data": {"guid": self.plan(service)}},
            },
            **more,
        }

    def key_body(self, instance: str, name: str, **more: Any) -> dict[str, Any]:
        return {
            "type": "key",
            "name": name,
            "relationships": {"service_instance": {"data": {"guid": self.names[instance]}}},
            **more,
        }

    def job(self, answer: Response) -> str:
        """Where the job of a 202 is."""
        assert (answer.status, answer.body) == (202, b"")
        location = answer.header("Location")
        assert location is not None
        assert location.startswith(f"{HTTPS}/v3/jobs/")
        return location

    def states(self, answer: Response) -> list[str]:
        """The states of a job, look by look, until it ends."""
        location = self.job(answer)
        seen: list[str] = []
        while not seen or seen[-1] in {"PROCESSING", "POLLING"}:
            assert len(seen) < 20
            seen.append(self.get(location)["state"])
        return seen

    def outcome(self, answer: Response) -> tuple[str, list[dict[str, Any]]]:
        """The end of a job: its state and errors."""
        location = self.job(answer)
        self.states(answer)
        job = self.get(location)
        return job["state"], job["errors"]

    def instance(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.get("/v3/service_instances", names=name)["resources"]
        assert len(found) == 1
        return found[0]

    def create(self, name: str, service: str = "sandbox-config", **more: Any) -> str:
        """Makes an instance and waits for it."""
        answer = self.send("POST", "/v3/service_instances", self.instance_body(name, service, **more))
        assert self.outcome(answer) == ("COMPLETE", [])
        guid: str = self.instance(name)["guid"]
        self.names[name] = guid
        return guid

    def create_key(self, instance: str, name: str, **more: Any) -> str:
        """Makes a key and waits for it."""
        body = self.key_body(instance, name, **more)
        assert self.outcome(self.send("POST", "/v3/service_credential_bindings", body)) == ("COMPLETE", [])
        found = self.get(
            "/v3/service_credential_bindings", names=name, service_instance_guids=self.names[instance]
        )
        guid: str = found["resources"][0]["guid"]
        return guid


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def grant(
    sandbox: Sandbox,
    form: Mapping[str, str],
    *,
    host: str = UAA,
    client: tuple[str, str] | None = ("cf", ""),
    query: str = "",
    headers: Mapping[str, str] | None = None,
    certificate: bytes | None = None,
) -> Response:
    """One request for a token."""
    sent = dict(headers or {})
    if client is not None:
        sent["Authorization"] = basic(*client)
    return sandbox.handle(
        Request.of(
            "POST",
            host,
            f"/oauth/token{query}",
            headers=sent,
            body=urlencode(form).encode(),
            client_certificate=certificate,
        )
    )
