"""``GET /destinations/{name}``: a destination with its fragments, certificates and a fresh token.

SAP/cloud-sdk-python destination/spec and the swagger in SAP/crossplane-provider-btp (DestinationLookUpResult);
SAP-docs/btp-connectivity on OAuth client credentials. A token that cannot be had does not fail the request: the answer is
200, and ``authTokens`` holds the token service's text.

Setting: ``destination_tenant_error`` ("token" | "refuse"): whether a missing ``X-tenant`` for a token URL of type Common, or
a forbidden one for type Dedicated, is an error of the token at 200 or 400 for the request; only that it is an error is
published.
"""

from __future__ import annotations

import base64
import functools
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from . import tokens
from .destination_query import flag
from .destination_rules import bad, is_secret, not_emulated, not_found
from .http import Headers, Refusal, Request, Response, Router

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .world import World

Json = dict[str, Any]

_KEYSTORE, _KEYSTORE_PASSWORD = "tokenService.KeyStoreLocation", "tokenService.KeyStorePassword"
_WITHOUT_TOKEN = frozenset(
    {"", "NoAuthentication", "ClientCertificateAuthentication", "PrincipalPropagation"}
)


class _TokenError(Exception):
    """No token could be had; the text is what ``authTokens`` says."""


@functools.cache
def _token_services() -> Router:
    """Every token service there is: the service calls them as any client does."""
    router = Router()
    tokens.routes(router)
    return router


def fragment_names(request: Request) -> tuple[list[str], bool]:
    """The fragments to apply, in order, and whether a single one may be missing."""
    names = [name.strip() for name in request.headers.get("X-fragment-name", "").split(",") if name.strip()]
    optional = request.headers.get("X-fragment-optional", "").lower() == "true"
    return names, optional and len(names) == 1


def with_fragments(
    world: World, request: Request, properties: Mapping[str, str], fragments: Mapping[str, Json]
) -> dict[str, str]:
    """The properties of a destination after its fragments, which stand at the same level and win over them."""
    found = dict(properties)
    applied = []
    names, optional = fragment_names(request)
    for name in names:
        if name not in fragments:
            if optional:
                continue
            raise not_found(world)
        found.update(
            {key: value for key, value in fragments[name]["properties"].items() if key != "FragmentName"}
        )
        applied.append(name)
    if applied:
        found["FragmentName"] = ",".join(applied)
    return found


def result(
    world: World,
    request: Request,
    owner: Mapping[str, str | None],
    properties: Mapping[str, str],
    certificates: Mapping[str, Json],
) -> Json:
    """What the search found: owner, destination, certificates, and tokens where the authentication has any."""
    shown = dict(properties)
    if flag(world, request, "$skipCredentials"):
        shown = {name: value for name, value in shown.items() if not is_secret(name)}
    skip_token = flag(world, request, "$skipTokenRetrieval")
    wanted = [properties.get("KeyStoreLocation")]
    if skip_token:
        wanted.append(properties.get(_KEYSTORE))
    found: Json = {
        "owner": dict(owner),
        "destinationConfiguration": shown,
        "certificates": [
            certificates[name]["properties"] for name in wanted if name is not None and name in certificates
        ],
    }
    if not skip_token:
        auth = _tokens(world, request, properties, certificates)
        if auth is not None:
            found["authTokens"] = [auth]
    return found


def _tokens(
    world: World, request: Request, properties: Mapping[str, str], certificates: Mapping[str, Json]
) -> Json | None:
    kind = properties.get("Authentication", "")
    if kind in _WITHOUT_TOKEN:
        return None
    if kind == "BasicAuthentication":
        pair = f"{properties.get('User', '')}:{properties.get('Password', '')}"
        return _entry("Basic", base64.b64encode(pair.encode()).decode())
    if kind != "OAuth2ClientCredentials":
        raise not_emulated(request, f"tokens for the authentication {kind}")
    try:
        answer = _by_client_credentials(world, request, properties, certificates)
    except _TokenError as problem:
        return {"type": "", "value": "", "error": str(problem), "expires_in": "0"}
    more = {"scope": answer["scope"]} if answer.get("scope") else {}
    return {
        **_entry("Bearer", str(answer["access_token"])),
        "expires_in": str(answer["expires_in"]),
        **more,
    }


def _entry(kind: str, value: str) -> Json:
    return {"type": kind, "value": value, "http_header": {"key": "Authorization", "value": f"{kind} {value}"}}


def _by_client_credentials(
    world: World, request: Request, properties: Mapping[str, str], certificates: Mapping[str, Json]
) -> Json:
    """A token by client credentials: a secret wins over a certificate, even an empty one."""
    url = _token_url(world, request, properties)
    headers = _more(properties, "tokenServiceURL.headers.")
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    form = {"grant_type": "client_credentials"}
    if properties.get("scope"):
        form["scope"] = properties["scope"]
    client = properties.get("clientId", "")
    certificate = None
    if "tokenServiceUser" in properties:
        user, password = properties["tokenServiceUser"], properties.get("tokenServicePassword", "")
        headers["Authorization"] = _basic(user, password)
        form["client_id"] = client
    elif "clientSecret" not in properties and properties.get(_KEYSTORE):
        certificate = _certificate(properties, certificates)
        form["client_id"] = client
    elif properties.get("tokenService.addClientCredentialsInBody", "true") == "false":
        headers["Authorization"] = _basic(client, properties.get("clientSecret", ""))
    else:
        form |= {"client_id": client, "client_secret": properties.get("clientSecret", "")}
    query = _more(properties, "tokenServiceURL.queries.")
    answer = _ask(world, request, url, query, headers, form, certificate)
    try:
        data: Json = answer.data()
    except ValueError:  # a page in the place of an answer
        data = {}
    if answer.status != 200:
        text = data.get("error_description") or f"The token service answered with status {answer.status}"
        raise _TokenError(str(text))
    return data


def _token_url(world: World, request: Request, properties: Mapping[str, str]) -> str:
    """Dedicated: the URL as it is. Common: with the tenant in place of ``{tenant}``, or in front of the host."""
    url = properties.get("tokenServiceURL", "")
    tenant = request.headers.get("X-tenant")
    if properties.get("tokenServiceURLType", "Dedicated") == "Common":
        if not tenant:
            raise _tenant_error(world, "The header X-tenant is required for tokenServiceURLType Common")
        if "{tenant}" in url:
            return url.replace("{tenant}", tenant)
        scheme, mark, rest = url.partition("://")
        return f"{scheme}{mark}{tenant}.{rest}"
    if tenant:
        raise _tenant_error(world, "The header X-tenant is not allowed for tokenServiceURLType Dedicated")
    return url


def _tenant_error(world: World, text: str) -> Exception:
    if world.settings.get("destination_tenant_error", "token") == "refuse":
        return bad(world, text)
    return _TokenError(text)


def _more(properties: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in properties.items() if name.startswith(prefix)}


def _basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def _certificate(properties: Mapping[str, str], certificates: Mapping[str, Json]) -> bytes:
    """The certificate that a keystore shows: PEM, or PKCS #12 with its password."""
    row = certificates.get(properties[_KEYSTORE])
    if row is None:
        raise _TokenError(f"The keystore '{properties[_KEYSTORE]}' was not found")
    content = base64.b64decode(row["properties"]["Content"])
    if b"-----BEGIN CERTIFICATE" in content:
        return content[content.index(b"-----BEGIN CERTIFICATE") :]
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

    password = properties.get(_KEYSTORE_PASSWORD)
    try:
        _, found, _ = pkcs12.load_key_and_certificates(content, password.encode() if password else None)
    except ValueError as problem:
        raise _TokenError(f"The keystore '{properties[_KEYSTORE]}' cannot be opened") from problem
    if found is None:
        raise _TokenError(f"The keystore '{properties[_KEYSTORE]}' holds no certificate")
    return found.public_bytes(Encoding.PEM)


def _ask(
    world: World,
    request: Request,
    url: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    form: Mapping[str, str],
    certificate: bytes | None,
) -> Response:
    """The token service's answer; an address may also be one under which a client of a socket knows it."""
    services = _token_services()
    try:
        parts = urlsplit(url)
        host, path = (parts.hostname or ""), parts.path or "/"
    except ValueError:
        host, path = "", "/"
    if not services.knows(host):
        first, _, rest = path.removeprefix("/").partition("/")
        host, path = first.lower(), f"/{rest}"
    if not services.knows(host):
        raise _TokenError(f"The host of the token service URL '{url}' cannot be resolved")
    both = "&".join(filter(None, (parts.query, urlencode(query))))
    asked = Request.of(
        "POST",
        host,
        f"{path}?{both}" if both else path,
        headers=Headers(headers),
        body=urlencode(form).encode(),
        url=request.url,
        client_certificate=certificate,
    )
    try:
        return services.answer(world, asked)
    except Refusal as refusal:
        return refusal.response
