"""Who calls the APIs that keys are for: a token of a zone, the account it speaks for, and the scopes in it.

401 is a token that does not count, 403 one that counts and lacks the scope, 404 a path that nobody serves
(SAP-docs/btp-integration-suite "Accessing API Management APIs Programmatically"). A token keeps the scopes of the
moment it was issued, and counts until it expires, even when its key is gone (SAP-docs/btp-cloud-platform "Service
Instance Secrets").
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from . import tokens
from .http import Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .world import World

CHALLENGE = ("WWW-Authenticate", 'Bearer error="invalid_token"')


class Denied(Exception):
    """The token does not count here (401), or lacks the scope (403)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def claims(world: World, request: Request, region: str, subdomain: str | None = None) -> dict[str, Any]:
    """The claims of a token of any account of a region, or of the one account; raises ``Denied`` with 401."""
    try:
        found = tokens.claims(world, request)
    except tokens.Invalid as problem:
        raise Denied(401, "Full authentication is required to access this resource") from problem
    account = world.rows("subaccounts").get(str(found.get("zid")))
    if account is None or account["region"] != region or subdomain not in {None, account["subdomain"]}:
        raise Denied(401, "The token is one of another zone")
    return found


def has(found: Mapping[str, Any], family: str, *scopes: str) -> bool:
    """Whether a token has one of the scopes, each from a client of the family, such as ``api-portal-xsuaa``."""
    for scope in found.get("scope") or ():
        for name in scopes:
            prefix = scope.removesuffix(f".{name}")
            if prefix != scope and prefix.rpartition("|")[2].startswith(f"{family}!"):
                return True
    return False


def account_of(world: World, region: str, subdomain: str) -> Mapping[str, Any] | None:
    """The account of a subdomain; None where there is none."""
    rows = world.rows("subaccounts").values()
    return next((row for row in rows if (row["region"], row["subdomain"]) == (region, subdomain)), None)


def not_found(request: Request) -> Response:
    """404 as HTML: nobody serves this path."""
    text = f"Cannot {escape(request.method)} {escape(request.path)}"
    page = (
        f"<!doctype html><html><head><title>404 Not Found</title></head><body><p>{text}</p></body></html>\n"
    )
    return Response.text(page, 404, "text/html;charset=utf-8")


def no_application(request: Request) -> Response:
    """The router's 404 for a host without an application (cloudfoundry/gorouter)."""
    text = f"404 Not Found: Requested route ('{request.host}') does not exist.\n"
    return Response.text(text, 404, headers=(("X-Cf-RouterError", "unknown_route"),))


def whole(request: Request, name: str) -> int | None:
    """A query parameter that is a whole number; raises ``ValueError`` when it is something else."""
    text = request.one(name)
    if text is None:
        return None
    if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdecimal():
        raise ValueError(f"{name} is a whole number, not {text!r}")
    return int(text)
