"""Keys of AFC and API Management for tests, and a client that uses them."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlencode, urlsplit

from btp_reconcile.sandbox import Request, Response, Sandbox, brokers

WORLD: dict[str, Any] = {
    "subaccounts": {
        "prod": {
            "region": "eu10",
            "subdomain": "prod-x1",
            "cloud_foundry": {"landscape": "eu10-004", "org": "acme", "spaces": ["apis"]},
            "entitlements": {
                "afc-api-service": {"standard": True},
                "apimanagement-apiportal": {"apiportal-apiaccess": True},
            },
        },
        "other": {"region": "eu10", "subdomain": "other-x1"},
        "far": {"region": "eu20", "subdomain": "far-x1"},
    }
}

AFC = ("afc-api-service", "standard")
PORTAL = ("apimanagement-apiportal", "apiportal-apiaccess")
HUB = ("apimanagement-devportal", "devportal-apiaccess")
ON_PREMISE = ("apimanagement-apiportal", "on-premise-connectivity")
TRIAL = ("apimanagement-apiportal-trial", "apiportal-apiaccess")
TRIAL_HUB = ("apimanagement-devportal-trial", "devportal-apiaccess")
EVERY_PLAN = (AFC, PORTAL, HUB, ON_PREMISE, TRIAL, TRIAL_HUB)

Key = dict[str, Any]


def made(**settings: Any) -> Sandbox:
    sandbox = Sandbox(settings=settings)
    sandbox.seed(WORLD)
    return sandbox


def certified(service: str, **options: Any) -> dict[str, Any]:
    """The parameters of a key with a certificate: nested for API Management, bare for all others."""
    wanted = {"credential-type": "x509", "x509": options}
    return {"xsuaa": wanted} if service.startswith("apimanagement-") else wanted


def issue(
    sandbox: Sandbox,
    plan: tuple[str, str],
    subaccount: str = "prod",
    binding: dict[str, Any] | None = None,
    **parameters: Any,
) -> Key:
    """The credentials of a new key of a new instance."""
    if parameters.get("role") == "AuthGroup.API.ApplicationDeveloper":
        parameters.setdefault("developerId", "P1")
    with sandbox.hold() as world:
        rows = world.rows("subaccounts").values()
        row = next(row for row in rows if row["name"] == subaccount)
        context = {
            "subaccount_id": row["id"],
            "subdomain": row["subdomain"],
            "region": row["region"],
            "platform": "sapcp",
        }
        found = brokers.issue(world, *plan, context, parameters=parameters, binding=binding)
    return dict(found["credentials"])


def client_of(key: Key) -> tuple[str, str]:
    """Client id and secret ("" with a certificate)."""
    uaa = key.get("uaa", key)
    return uaa.get("clientId") or uaa["clientid"], uaa.get("clientSecret") or uaa.get("clientsecret", "")


def token_url(key: Key) -> str:
    return str(key.get("tokenUrl") or key["uaa"]["url"] + "/oauth/token")


def certificate_url(key: Key) -> str:
    return str(key.get("uaa", key)["certurl"]) + "/oauth/token"


def pair_of(key: Key) -> tuple[str, str]:
    """Certificate chain and private key."""
    uaa = key.get("uaa", key)
    return uaa["certificate"], uaa.get("privateKey") or uaa["key"]


def basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


def send(
    sandbox: Sandbox,
    method: str,
    url: str,
    *,
    token: str | None = None,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> Response:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    fields = dict(headers or {})
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    return sandbox.handle(Request.of(method, parts.netloc, target, headers=fields, body=body))


def ask_token(
    sandbox: Sandbox,
    key: Key,
    *,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    scope: str | None = None,
) -> Response:
    """A token request with id and secret in the form, or with a header or body of one's own."""
    if body is None:
        name, secret = client_of(key)
        form = {"grant_type": "client_credentials"}
        if headers is None:
            form |= {"client_id": name, "client_secret": secret}
        if scope is not None:
            form["scope"] = scope
        body = urlencode(form).encode()
    return send(sandbox, "POST", token_url(key), headers=headers, body=body)


def token(sandbox: Sandbox, key: Key, scope: str | None = None) -> str:
    answer = ask_token(sandbox, key, scope=scope)
    assert answer.status == 200, answer.body
    return str(answer.data()["access_token"])


def get(sandbox: Sandbox, url: str, token: str | None = None, **headers: str) -> Response:
    fields = {
        "Accept": "application/json",
        **{name.replace("_", "-"): text for name, text in headers.items()},
    }
    return send(sandbox, "GET", url, token=token, headers=fields)
