"""What the Destination Service takes for a destination, a certificate or a fragment, and how it says no.

SAP/cloud-sdk-python destination/spec, the swagger of the Destination Service in SAP/crossplane-provider-btp
(internal/openapi_clients/btp-destination-service-api-go), SAP-docs/btp-connectivity on OAuth client credentials and basic
authentication, and the recorded 404 of SAP/terraform-provider-btp (datasource_subaccount_destination_not_found).

Not everything is published. These settings decide:

- ``destination_errors`` ("json" | "text" | "string"): the body of an error; all three shapes are documented;
- ``destination_gateway_errors`` ("empty" | "html" | "text"): the body of 401 and 403;
- ``destination_foreign_token`` (403 | 401): the answer to a valid token of another service;
- ``destination_names`` (a regular expression for whole names): no rule is published, and the published examples have an
  apostrophe; as it is, only what cannot stand in a path is refused;
- ``destination_required`` ("refuse" | "accept"): whether a destination is refused that lacks what its authentication needs;
- ``destination_delete_absent`` ("not-found" | "count"): 404, or ``{"Count":0}`` at 200; clients must accept both;
- ``destination_uri_too_long`` (414 | 400): the answer to a URI of more than 4000 characters;
- ``destination_etags`` ("quoted" | "bare"): how the header ``ETag`` is written.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

from .http import Refusal, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .world import World

Json = dict[str, Any]

NOT_FOUND = "Configuration with the specified name was not found"
DUPLICATE = "Duplicate key"
TYPES = frozenset({"HTTP", "RFC", "LDAP", "MAIL", "TCP"})
PROXIES = frozenset({"Internet", "OnPremise", "PrivateLink"})
TOKEN_URL_TYPES = frozenset({"Dedicated", "Common"})
METADATA = "$metadata"
SHARED = "shared_with_subscriber"

# What each authentication cannot do without: any one of the properties of each row.
_NEEDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "BasicAuthentication": (("User",), ("Password",)),
    "OAuth2ClientCredentials": (
        ("clientId",),
        ("tokenServiceURL",),
        ("clientSecret", "tokenService.KeyStoreLocation", "clientAssertion.destinationName"),
    ),
    "ClientCertificateAuthentication": (("KeyStoreLocation",),),
}
_SECRET = re.compile(r"secret|password|passphrase|api-?key|private-?key|\.authorization$", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether the value of a property of this name is to be kept from view."""
    return _SECRET.search(name) is not None


# ----------------------------------------------------------------------------------------------------------------------
# Saying no


def refusal(
    world: World,
    status: int,
    message: str,
    headers: tuple[tuple[str, str], ...] = (),
    more: Mapping[str, Any] | None = None,
) -> Refusal:
    """An error of the service, in the shape that the settings ask for; only JSON has room for ``more``."""
    shape = world.settings.get("destination_errors", "json")
    if shape == "text":
        return Refusal(Response.text(message, status, headers=headers))
    if shape == "string":
        return Refusal(Response.json(message, status, headers))
    return Refusal(Response.json({"ErrorMessage": message, **(more or {})}, status, headers))


def bad(world: World, message: str) -> Refusal:
    return refusal(world, 400, message)


def not_found(world: World) -> Refusal:
    return refusal(world, 404, NOT_FOUND)


def gateway(world: World, status: int) -> Refusal:
    """401 and 403: an empty body, an HTML page, or one word."""
    word = {401: "Unauthorized", 403: "Forbidden"}[status]
    shape = world.settings.get("destination_gateway_errors", "empty")
    if shape == "html":
        page = f"<html><head><title>{status} {word}</title></head><body>{word}</body></html>"
        return Refusal(Response.text(page, status, "text/html"))
    if shape == "text":
        return Refusal(Response.text(word, status))
    return Refusal(Response.empty(status))


def not_emulated(request: Request, what: str) -> Refusal:
    """Something that the platform can do here and the sandbox cannot: 501 with its name."""
    return Refusal(
        Response.json(
            {
                "error": {
                    "code": "NotEmulated",
                    "message": f"The sandbox does not emulate {what} on {request.host}.",
                    "route": f"{request.method} {request.path}",
                    "host": request.host,
                }
            },
            501,
        )
    )


# ----------------------------------------------------------------------------------------------------------------------
# What is taken


def body_of(world: World, request: Request) -> Any:
    """The JSON of a body, which must be an object or a list of objects."""
    try:
        data = request.json()
    except (ValueError, RecursionError) as problem:
        raise bad(world, "The request body is not valid JSON") from problem
    if not isinstance(data, dict) and not (
        isinstance(data, list) and data and all(isinstance(item, dict) for item in data)
    ):
        raise bad(world, "The request body must be a JSON object or an array of JSON objects")
    return data


def _written(value: Any) -> bool:
    """Whether a value is a text that can be written as UTF-8; half of a surrogate pair cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_problem(world: World, field: str, value: Any) -> str | None:
    if not _written(value) or not value.strip():
        return f"Property '{field}' is missing or empty"
    pattern = str(world.settings.get("destination_names", r"[^/]+"))
    if re.fullmatch(pattern, value, re.DOTALL) is None:
        return f"The value of property '{field}' is not a valid name"
    return None


def text_problem(body: Mapping[str, Any]) -> str | None:
    """All properties of all kinds are strings."""
    for key, value in body.items():
        if not _written(key) or not _written(value):
            return f"The value of property '{key.encode(errors='replace').decode()}' must be a string"
    return None


def destination_problem(world: World, body: Mapping[str, Any]) -> str | None:
    """Why something is no destination; unknown properties are free, and kept as they are."""
    problem = name_problem(world, "Name", body.get("Name")) or text_problem(body)
    if problem is not None:
        return problem
    if "Type" not in body:
        return "Property 'Type' is missing"
    for key, known in (("Type", TYPES), ("ProxyType", PROXIES), ("tokenServiceURLType", TOKEN_URL_TYPES)):
        if key in body and body[key] not in known:
            return f"The value of property '{key}' must be one of {', '.join(sorted(known))}"
    if world.settings.get("destination_required", "refuse") == "refuse":
        return _lacks(body)
    return None


def _lacks(body: Mapping[str, Any]) -> str | None:
    if body["Type"] != "HTTP":
        return None
    for names in (("URL",), *_NEEDS.get(body.get("Authentication", ""), ())):
        if not any(name in body for name in names):
            return f"Property '{names[0]}' is required"
    return None


def certificate_problem(world: World, body: Mapping[str, Any]) -> str | None:
    """Why something is no certificate: ``Content`` is Base64."""
    problem = name_problem(world, "Name", body.get("Name")) or text_problem(body)
    if problem is not None:
        return problem
    try:
        content = base64.b64decode(body.get("Content", ""), validate=True)
    except (binascii.Error, ValueError):
        content = b""
    return None if content else "Property 'Content' is missing or not Base64"


def fragment_problem(world: World, body: Mapping[str, Any]) -> str | None:
    """Why something is no fragment: it has ``FragmentName``, and neither ``Name`` nor ``Type``."""
    problem = name_problem(world, "FragmentName", body.get("FragmentName")) or text_problem(body)
    if problem is not None:
        return problem
    for name in ("Name", "name", "Type"):
        if name in body:
            return f"Property '{name}' is not allowed in a destination fragment"
    return None


def sharing_of(world: World, body: Json, level: str) -> bool | None:
    """Takes ``$metadata`` out of a body: at the level of an instance it may say who shares the thing."""
    if METADATA not in body:
        return None
    given = body.pop(METADATA)
    shared = given.get(SHARED) if isinstance(given, dict) else None
    if level != "instance" or not isinstance(shared, bool) or set(given) != {SHARED}:
        raise bad(world, f"Property '{METADATA}' is not valid")
    return shared


# ----------------------------------------------------------------------------------------------------------------------
# Labels


def labels_of(world: World, given: Any) -> dict[str, list[str]]:
    """The labels of a body: ``[{"key", "values"}]``."""
    found: dict[str, list[str]] = {}
    items: list[Any] = given if isinstance(given, list) else [None]
    for item in items:
        if not _is_label(item) or item["key"] in found:
            raise bad(world, "Each label must contain a 'key' property and a 'values' property")
        found[item["key"]] = list(dict.fromkeys(item["values"]))
    return found


def _is_label(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and item.keys() == {"key", "values"}
        and bool(item["key"])
        and _written(item["key"])
        and isinstance(item["values"], list)
        and all(map(_written, item["values"]))
    )


def changed_labels(world: World, old: Mapping[str, list[str]], body: Any) -> dict[str, list[str]]:
    """Labels after ``{"action", "labels"}``.

    The published schema calls the action that takes away ``REMOVE``, its text calls it ``DELETE``: both are taken.
    """
    action = body.get("action") if isinstance(body, dict) else None
    if action not in {"ADD", "DELETE", "REMOVE"}:
        raise bad(world, "The value of property 'action' must be either ADD or DELETE")
    change: Callable[[list[str], list[str]], list[str]] = _plus if action == "ADD" else _minus
    found = {key: list(values) for key, values in old.items()}
    for key, values in labels_of(world, body.get("labels")).items():
        found[key] = change(found.get(key, []), values)
    return {key: values for key, values in found.items() if values}


def _plus(old: list[str], values: list[str]) -> list[str]:
    return list(dict.fromkeys([*old, *values]))


def _minus(old: list[str], values: list[str]) -> list[str]:
    return [value for value in old if value not in values]


def shown_labels(labels: Mapping[str, list[str]]) -> list[Json]:
    return [{"key": key, "values": list(values)} for key, values in labels.items()]
