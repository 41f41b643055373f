"""The UAA of Cloud Foundry and the XSUAA zones: who gets which token, and whose token counts.

Answers, texts and claims follow cloudfoundry/uaa (TokenEndpoint, UaaTokenServices, PasswordGrantAuthenticationManager,
LoginInfoEndpoint) and recorded answers of an SAP landscape (cloudfoundry/terraform-provider-cloudfoundry,
fixtures/provider.*.yaml); XSUAA zones follow SAP-docs/btp-cloud-platform on token retrieval, mutual TLS and secrets with
special signs.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import jwt

from btp_reconcile.sandbox.http import Refusal, Request, Response, Router

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from btp_reconcile.sandbox.world import World

UAA = "uaa.cf.{landscape}.hana.ondemand.com"
LOGIN = "login.cf.{landscape}.hana.ondemand.com"
ZONE = "{subdomain}.authentication.{region}.hana.ondemand.com"
CERTIFICATE_ZONE = "{subdomain}.authentication.cert.{region}.hana.ondemand.com"

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEFAULT_USER = "developer@example.com"
DEFAULT_ORIGIN = "sap.ids"
USER_SCOPES = ["openid", "uaa.user", "cloud_controller.read", "password.write", "cloud_controller.write"]
SCOPES_OF_KIND = {
    "admin": [*USER_SCOPES, "cloud_controller.admin"],
    "admin_read_only": [*USER_SCOPES, "cloud_controller.admin_read_only"],
    "global_auditor": [*USER_SCOPES, "cloud_controller.global_auditor"],
}
LOCKED = "Your account has been locked because of too many failed attempts to login."
WRONG_ORIGIN = "The origin provided in the login_hint does not match an active Identity Provider, that supports password grant."


class Invalid(Exception):
    """No token, or one that does not count; ``missing`` tells which."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


# ----------------------------------------------------------------------------------------------------------------------
# Keys


@functools.cache
def _fresh_key() -> str:
    """One RSA key for all worlds that this process makes: making one is slow."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@functools.lru_cache(maxsize=8)
def _key(pem: str) -> RSAPrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = serialization.load_pem_private_key(pem.encode(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("the signing key is no RSA key")
    return key


@functools.lru_cache(maxsize=8)
def _public(pem: str) -> tuple[str, str]:
    """The public half: as PEM, and its modulus for a key set."""
    from cryptography.hazmat.primitives import serialization

    public = _key(pem).public_key()
    text = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
    modulus = public.public_numbers().n.to_bytes(256, "big")
    return text, base64.urlsafe_b64encode(modulus).rstrip(b"=").decode()


def prepare(world: World) -> None:
    """Gives a new world its signing key and its one default user."""
    world.state.setdefault("signing_key", _fresh_key())
    if not world.table("users"):
        _put_user(world, DEFAULT_USER, {"roles": {"*": ["space_developer"]}})
    clients = world.table("clients")
    if "cf" not in clients:
        clients["cf"] = {
            "secret": "",
            "scopes": USER_SCOPES,
            "zone": "uaa",
            "region": None,
            "grant_types": ["password", "refresh_token", JWT_BEARER],
        }


def _put_user(world: World, name: str, wanted: Mapping[str, Any]) -> None:
    origin = wanted.get("origin", DEFAULT_ORIGIN)
    users = world.table("users")
    row = users.setdefault(
        f"{origin}/{name}",
        {"id": world.new_id(), "name": name, "origin": origin, "roles": {}, "failures": []},
    )
    row["password"] = wanted.get("password", row.get("password")) or world.new_secret(20)
    row["roles"] = {**row["roles"], **wanted.get("roles", {})}
    for field in ("kind", "passcode", "scopes"):
        if field in wanted:
            row[field] = wanted[field]


def seed(world: World, document: Mapping[str, Any]) -> None:
    """``users`` and ``cloud_foundry_clients`` (technical clients of the UAA with ``secret`` and ``roles``)."""
    prepare(world)
    for name, wanted in (document.get("users") or {}).items():
        _put_user(world, name, wanted or {})
    for client_id, wanted in (document.get("cloud_foundry_clients") or {}).items():
        world.table("clients")[client_id] = {
            "secret": wanted.get("secret") or world.new_secret(20),
            "scopes": wanted.get("scopes", ["cloud_controller.read", "cloud_controller.write"]),
            "zone": "uaa",
            "region": None,
            "grant_types": ["client_credentials"],
            "roles": wanted.get("roles", {}),
        }


# ----------------------------------------------------------------------------------------------------------------------
# Zones


@dataclass(frozen=True)
class Zone:
    """One tenant of a UAA as a request finds it."""

    name: str  # "uaa", or the subdomain of a subaccount
    region: str | None
    key_id: str
    issuer: str
    base: str
    lifetime: int
    mutual_tls: bool = False

    @property
    def is_cloud_foundry(self) -> bool:
        """Whether this is the UAA of a Cloud Foundry landscape."""
        return self.name == "uaa"


def _zone(world: World, request: Request) -> Zone:
    place, settings = request.place, world.settings["tokens"]
    if "landscape" in place:
        host = f"uaa.cf.{place['landscape']}.hana.ondemand.com"
        return Zone(
            name="uaa",
            region=None,
            key_id=f"key-{place['landscape']}",
            issuer=request.url(host, "/oauth/token"),
            base=request.url(host, ""),
            lifetime=settings["cloud_foundry"],
        )
    if not _has_zone(world, place["subdomain"]):
        raise Refusal(_page(404, "Not Found", "There is no identity zone for this subdomain."))
    host = f"{place['subdomain']}.authentication.{place['region']}.hana.ondemand.com"
    return Zone(
        name=place["subdomain"],
        region=place["region"],
        key_id="default-jwt-key-1",
        issuer=request.url(host, "/oauth/token"),
        base=request.url(host, ""),
        lifetime=settings["xsuaa"],
        mutual_tls=".authentication.cert." in request.host,
    )


def _has_zone(world: World, subdomain: str) -> bool:
    """Every account has a zone, and so has whoever has clients."""
    accounts = ("sandbox.subaccounts", "subaccounts", "global_account")
    return any(
        row.get("subdomain") == subdomain for name in accounts for row in world.rows(name).values()
    ) or any(row["zone"] == subdomain for row in world.rows("clients").values())


def _zone_id(world: World, zone: Zone) -> str:
    if zone.is_cloud_foundry:
        return "uaa"
    for row in world.table("sandbox.subaccounts").values():
        if row["subdomain"] == zone.name:
            return str(row["id"])
    return zone.name


# ----------------------------------------------------------------------------------------------------------------------
# Checking


def claims(world: World, request: Request) -> dict[str, Any]:
    """What the bearer token of a request says; raises ``Invalid`` when it does not count here and now."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Invalid("no bearer token", missing=True)
    match = re.match(r"(?:api|uaa|login)\.cf\.([^.]+)\.", request.host)
    return read(world, token.strip(), f"key-{match[1]}" if match else "default-jwt-key-1")


def read(world: World, token: str, key_id: str) -> dict[str, Any]:
    """The claims of a token that one kind of zone signed; raises ``Invalid``."""
    pem = world.state["signing_key"]
    try:
        if jwt.get_unverified_header(token).get("kid") != key_id:
            raise Invalid("signed by somebody else")
        found: dict[str, Any] = jwt.decode(
            token,
            _key(pem).public_key(),
            algorithms=["RS256"],
            options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False},
        )
    except jwt.InvalidTokenError as error:
        raise Invalid(str(error)) from error
    if found["exp"] <= world.now():
        raise Invalid("the token has expired")
    if found["iat"] <= world.state["keys"].get("dead_until", 0):
        raise Invalid("the token was made to expire")
    if found["jti"] in world.table("revoked"):
        raise Invalid("the token was revoked")
    return found


def expire_all(world: World) -> None:
    """Every access token issued so far is dead."""
    world.state["keys"]["dead_until"] = int(world.now())


def lock(world: World, name: str | None, seconds: float) -> None:
    """As if a user, or everybody, had just failed to sign in too often, until so many seconds from now."""
    settings = world.settings["tokens"]
    until = world.now() + seconds - settings["lock_seconds"]
    for row in world.table("users").values():
        if name in {None, row["name"]}:
            row["failures"] = [until] * settings["lock_after"]


# ----------------------------------------------------------------------------------------------------------------------
# Issuing


def _refuse(status: int, error: str, description: str, headers: tuple[tuple[str, str], ...] = ()) -> Refusal:
    return Refusal(
        Response.json(
            {"error": error, "error_description": description},
            status,
            (("Cache-Control", "no-store"), ("Pragma", "no-cache"), *headers),
        )
    )


def _bad_client() -> Refusal:
    challenge = 'Basic realm="UAA/client", error="unauthorized", error_description="Bad credentials"'
    return _refuse(401, "invalid_client", "Bad credentials", (("WWW-Authenticate", challenge),))


def _basic(request: Request) -> tuple[str, str] | None:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise _bad_client() from error
    if request.headers.get("X-CF-ENCODED-CREDENTIALS", "").lower() == "true":
        return unquote_plus(name), unquote_plus(secret)
    # Without that header a plus sign does not survive (SAP-docs, 401 when a secret has special signs).
    return name, secret.replace("+", " ")


def _fingerprint(certificate: bytes) -> tuple[bytes, float, float]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    if certificate.lstrip().startswith(b"-----BEGIN"):
        found = x509.load_pem_x509_certificates(certificate)[0]
    else:
        found = x509.load_der_x509_certificate(certificate)
    return (
        found.fingerprint(hashes.SHA256()),
        found.not_valid_before_utc.timestamp(),
        found.not_valid_after_utc.timestamp(),
    )


def _shows_certificate(world: World, row: Mapping[str, Any], certificate: bytes | None) -> bool:
    kept = row.get("certificate")
    if not kept or certificate is None:
        return False
    try:
        shown, start, end = _fingerprint(certificate)
        expected, _, _ = _fingerprint(kept.encode() if isinstance(kept, str) else kept)
    except ValueError:
        return False
    return shown == expected and start <= world.now() + 60 and world.now() < end


def _assertion(world: World, text: str) -> dict[str, Any] | None:
    """The claims of somebody else's token: one that is signed here, or with the secret in the settings."""
    pem, secret = world.state["signing_key"], world.settings["tokens"].get("assertion_secret")
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False}
    ways: list[tuple[Any, str]] = [(_key(pem).public_key(), "RS256")]
    if secret:
        ways.append((secret, "HS256"))
    for key, algorithm in ways:
        try:
            found: dict[str, Any] = jwt.decode(text, key, algorithms=[algorithm], options=options)
        except jwt.InvalidTokenError:
            continue
        return found if found.get("exp", 0) > world.now() else None
    return None


def _client(
    world: World, request: Request, form: Mapping[str, str], zone: Zone
) -> tuple[str, dict[str, Any]]:
    """The client of a token request, proven by a secret, an assertion or a certificate."""
    basic = _basic(request)
    name, secret = basic or (form.get("client_id"), form.get("client_secret", ""))
    if name is None and "client_assertion" in form:
        name = (_assertion(world, form["client_assertion"]) or {}).get("sub")
    if name is None:
        raise _refuse(401, "unauthorized", "An Authentication object was not found in the SecurityContext")
    row = world.table("clients").get(name)
    if row is None or row["zone"] != zone.name or (row.get("region") or zone.region) != zone.region:
        raise _bad_client()
    if zone.mutual_tls:
        proven = _shows_certificate(world, row, request.client_certificate)
    elif "client_assertion" in form and basic is None:
        asserted = _assertion(world, form["client_assertion"])
        proven = (
            form.get("client_assertion_type") == ASSERTION_TYPE
            and asserted is not None
            and asserted.get("sub") == name
        )
    else:
        proven = row.get("secret") is not None and row["secret"] == secret
    if not proven:
        raise _bad_client()
    return name, row


def _origin(world: World, request: Request) -> str | None:
    hint = request.one("login_hint")
    if hint is None:
        return None
    try:
        origin = json.loads(hint)["origin"]
    except (ValueError, KeyError, TypeError):
        origin = None
    known = {DEFAULT_ORIGIN, "uaa", *(row["origin"] for row in world.table("users").values())}
    if origin not in known:
        raise _refuse(401, "unauthorized", WRONG_ORIGIN)
    return str(origin)


def _user_by_password(world: World, request: Request, form: Mapping[str, str]) -> dict[str, Any]:
    users = world.table("users")
    if "passcode" in form:
        for row in users.values():
            if row.get("passcode") and row["passcode"] == form["passcode"]:
                del row["passcode"]  # it works once
                return dict(row)
        raise _refuse(401, "unauthorized", "Invalid passcode")
    origin = _origin(world, request) or DEFAULT_ORIGIN
    row = users.get(f"{origin}/{form.get('username', '')}")
    if row is None:
        raise _refuse(401, "unauthorized", "Bad credentials")
    settings, now = world.settings["tokens"], world.now()
    row["failures"] = [moment for moment in row["failures"] if moment > now - settings["lock_seconds"]]
    if len(row["failures"]) >= settings["lock_after"]:
        raise _refuse(401, "unauthorized", LOCKED)
    if form.get("password") != row["password"]:
        row["failures"].append(now)
        raise _refuse(401, "unauthorized", "Bad credentials")
    row["failures"] = []
    return dict(row)


def _user_by_assertion(world: World, request: Request, form: Mapping[str, str]) -> dict[str, Any]:
    origin = _origin(world, request)
    found = _assertion(world, form.get("assertion", ""))
    if found is None:
        raise _refuse(
            401, "unauthorized", "The assertion is not a valid token of a trusted identity provider"
        )
    name = found.get("user_name") or found.get("email") or found.get("sub")
    row = world.table("users").get(f"{origin or found.get('origin', DEFAULT_ORIGIN)}/{name}")
    if row is None:
        raise _refuse(401, "unauthorized", "Bad credentials")
    return dict(row)


def _user_by_refresh(world: World, form: Mapping[str, str], client_id: str, zone: Zone) -> dict[str, Any]:
    token = form.get("refresh_token", "")
    kept = world.table("refresh_tokens").get(token)
    if kept is None or kept["zone"] != zone.name:
        raise _refuse(401, "invalid_token", "The token expired, was revoked, or the token ID is incorrect.")
    if kept["client"] != client_id:
        raise _refuse(400, "invalid_grant", f"Wrong client for this refresh token: {token}")
    if kept["expires"] <= world.now():
        raise _refuse(401, "invalid_token", "Invalid refresh token (expired)")
    return dict(world.table("users")[kept["user"]])


def _granted(form: Mapping[str, str], offered: list[str]) -> list[str]:
    wanted = form.get("scope", "").split()
    if not wanted:
        return offered
    kept = [scope for scope in offered if scope in wanted]
    if not kept:
        raise _refuse(
            400,
            "invalid_scope",
            f"[{', '.join(wanted)}] is invalid. This user is not allowed any of the requested scopes",
        )
    return kept


def _token(world: World, request: Request) -> Response:
    """``POST /oauth/token``."""
    zone = _zone(world, request)
    form = {**dict(request.query), **request.form()}
    grant = form.get("grant_type")
    client_id, client = _client(world, request, form, zone)
    if not grant:
        raise _refuse(400, "invalid_request", "Missing grant type")
    if grant not in {"password", "client_credentials", "refresh_token", JWT_BEARER}:
        raise _refuse(400, "unsupported_grant_type", f"Unsupported grant type: {grant}")
    if grant not in client["grant_types"] and not (
        grant == "refresh_token" and "password" in client["grant_types"]
    ):
        raise _refuse(401, "unauthorized_client", f"Unauthorized grant type: {grant}")
    user: dict[str, Any] | None = None
    refresh: str | None = None
    if grant == "password":
        user = _user_by_password(world, request, form)
    elif grant == JWT_BEARER:
        user = _user_by_assertion(world, request, form)
    elif grant == "refresh_token":
        user = _user_by_refresh(world, form, client_id, zone)
        refresh = form["refresh_token"]
    scopes = list(client["scopes"])
    if user is not None and zone.is_cloud_foundry:
        scopes = list(user.get("scopes") or SCOPES_OF_KIND.get(user.get("kind", ""), USER_SCOPES))
    scopes = _granted(form, scopes)
    if user is not None and refresh is None:
        refresh = _keep_refresh(world, user, client_id, zone)
    return _issue(world, zone, client_id, client, user, scopes, grant, refresh)


def _keep_refresh(world: World, user: Mapping[str, Any], client_id: str, zone: Zone) -> str:
    token = world.new_secret(32) + "-r"
    world.table("refresh_tokens")[token] = {
        "user": f"{user['origin']}/{user['name']}",
        "client": client_id,
        "zone": zone.name,
        "expires": world.now() + world.settings["tokens"]["refresh"],
    }
    return token


def _issue(
    world: World,
    zone: Zone,
    client_id: str,
    client: Mapping[str, Any],
    user: Mapping[str, Any] | None,
    scopes: list[str],
    grant: str,
    refresh: str | None,
) -> Response:
    issued = max(int(world.now()), world.state["keys"].get("dead_until", -1) + 1)
    jti = world.new_secret(32)
    body: dict[str, Any] = {
        "jti": jti,
        "sub": user["id"] if user else client_id,
        "scope": scopes,
        "client_id": client_id,
        "cid": client_id,
        "azp": client_id,
        "grant_type": grant,
    }
    if user:
        body |= {
            "user_id": user["id"],
            "origin": user["origin"],
            "user_name": user["name"],
            "email": user["name"],
            "auth_time": issued,
        }
    else:
        body["authorities"] = client.get("authorities") or scopes
    if world.settings["tokens"].get("revocable"):
        body["revocable"] = True
    body |= {
        "iat": issued,
        "exp": issued + zone.lifetime + 1,
        "iss": zone.issuer,
        "zid": _zone_id(world, zone),
        "aud": sorted({scope.rpartition(".")[0] for scope in scopes if "." in scope} | {client_id}),
        **client.get("extra_claims", {}),
    }
    if not zone.is_cloud_foundry:
        body["ext_attr"] = {"enhancer": "XSUAA", "zdn": zone.name, **body.get("ext_attr", {})}
    answer: dict[str, Any] = {"access_token": _signed(world, zone, body), "token_type": "bearer"}
    if user and "openid" in scopes:
        identity = {key: value for key, value in body.items() if key not in {"scope", "jti", "revocable"}}
        answer["id_token"] = _signed(world, zone, {**identity, "aud": [client_id], "scope": ["openid"]})
    if refresh is not None:
        answer["refresh_token"] = refresh
    answer |= {"expires_in": zone.lifetime, "scope": " ".join(scopes), "jti": jti}
    headers: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))
    if grant == "password":
        session = world.new_secret(32)
        headers += (
            ("Set-Cookie", f"JSESSIONID={session}; Path=/; Secure; HttpOnly"),
            ("Set-Cookie", f"__VCAP_ID__={session[:28]}; Path=/; HttpOnly; Secure"),
        )
    return Response.json(answer, 200, headers)


def _signed(world: World, zone: Zone, body: Mapping[str, Any]) -> str:
    headers = {"kid": zone.key_id, "jku": f"{zone.base}/token_keys"}
    return jwt.encode(dict(body), _key(world.state["signing_key"]), algorithm="RS256", headers=headers)


# ----------------------------------------------------------------------------------------------------------------------
# The other endpoints


def _login_info(world: World, request: Request) -> Response:
    """The three prompts, and no fourth: the CLI would ask for it."""
    if "json" not in request.headers.get("Accept", ""):
        return Response.text("<!DOCTYPE html>\n<title>Log in</title>\n", 200, "text/html;charset=UTF-8")
    domain = f"cf.{request.place['landscape']}.hana.ondemand.com"
    login, uaa = request.url(f"login.{domain}", ""), request.url(f"uaa.{domain}", "")
    code = f"Temporary Authentication Code ( Get one at {login}/passcode )"
    return Response.json(
        {
            "app": {"version": "77.20.0"},
            "links": {
                "uaa": uaa,
                "passwd": f"{login}/forgot_password",
                "login": login,
                "register": f"{login}/create_account",
            },
            "zone_name": "uaa",
            "entityID": f"login.{domain}",
            "commit_id": "0000000",
            "timestamp": world.stamp(),
            "idpDefinitions": {},
            "prompts": {
                "username": ["text", "Email"],
                "password": ["password", "Password"],
                "passcode": ["password", code],
            },
        }
    )


def _public_key(world: World, zone: Zone) -> dict[str, str]:
    pem, modulus = _public(world.state["signing_key"])
    return {
        "kty": "RSA",
        "e": "AQAB",
        "use": "sig",
        "kid": zone.key_id,
        "alg": "RS256",
        "value": pem,
        "n": modulus,
    }


def _token_keys(world: World, request: Request) -> Response:
    return Response.json({"keys": [_public_key(world, _zone(world, request))]})


def _token_key(world: World, request: Request) -> Response:
    return Response.json(_public_key(world, _zone(world, request)))


def _discovery(world: World, request: Request) -> Response:
    zone = _zone(world, request)
    found: dict[str, Any] = {
        "issuer": zone.issuer,
        "authorization_endpoint": f"{zone.base}/oauth/authorize",
        "token_endpoint": f"{zone.base}/oauth/token",
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "jwks_uri": f"{zone.base}/token_keys",
        "userinfo_endpoint": f"{zone.base}/userinfo",
        "scopes_supported": ["openid", "profile", "email"],
        "response_types_supported": ["code", "code id_token", "id_token", "token id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "HS256"],
    }
    if not zone.is_cloud_foundry:
        host = f"{zone.name}.authentication.cert.{zone.region}.hana.ondemand.com"
        found["mtls_endpoint_aliases"] = {"token_endpoint": request.url(host, "/oauth/token")}
    return Response.json(found)


def _bearer(world: World, request: Request) -> dict[str, Any]:
    try:
        return claims(world, request)
    except Invalid as error:
        if error.missing:
            raise _refuse(
                401, "unauthorized", "Full authentication is required to access this resource"
            ) from error
        raise _refuse(
            401, "invalid_token", "The token expired, was revoked, or the token ID is incorrect."
        ) from error


def _revoke(world: World, request: Request, jti: str) -> Response:
    _bearer(world, request)
    world.table("revoked")[jti] = world.now()
    world.table("refresh_tokens").pop(jti, None)
    return Response.empty(200)


def _check(world: World, request: Request) -> Response:
    zone = _zone(world, request)
    form = request.form()
    _client(world, request, {}, zone)
    try:
        return Response.json(read(world, form.get("token", ""), zone.key_id))
    except Invalid as error:
        raise _refuse(400, "invalid_token", "The token is not valid") from error


def _user_info(world: World, request: Request) -> Response:
    found = _bearer(world, request)
    if "user_id" not in found:
        raise _refuse(403, "insufficient_scope", "Insufficient scope for this resource")
    return Response.json(
        {
            "user_id": found["user_id"],
            "sub": found["user_id"],
            "user_name": found["user_name"],
            "email": found["email"],
            "email_verified": True,
            "origin": found["origin"],
        }
    )


def _page(status: int, title: str, text: str) -> Response:
    """What the server in front of the endpoints says by itself."""
    page = f"<!doctype html><html><head><title>{status} {title}</title></head><body><p>{text}</p></body></html>\n"
    return Response.text(page, status, "text/html;charset=utf-8")


def _unknown(world: World, request: Request) -> Response:
    """A doubled ``/oauth/token/oauth/token`` gets the server's page, in a zone as in the UAA."""
    if "landscape" not in request.place or request.path.startswith("/oauth/"):
        if "subdomain" in request.place:
            _zone(world, request)
        return _page(404, "Not Found", "The requested resource is not available.")
    return Response.json({"error": "not_found", "error_description": f"No endpoint {request.path}"}, 404)


def routes(router: Router) -> None:
    """Everything of ``uaa``, ``login`` and the zones."""
    for host in (UAA, LOGIN, ZONE, CERTIFICATE_ZONE):
        router.host(host, _unknown)
        router.add(host, "POST", "/oauth/token", _token)
        router.add(host, "GET", "/token_keys", _token_keys)
        router.add(host, "GET", "/token_key", _token_key)
        router.add(host, "GET", "/.well-known/openid-configuration", _discovery)
        router.add(host, "POST", "/check_token", _check)
        router.add(host, "GET", "/userinfo", _user_info)
        router.add(host, "DELETE", "/oauth/token/revoke/{jti}", _revoke)
        for path in ("/oauth/authorize", "/passcode", "/Users", "/Clients", "/oauth/clients"):
            router.lacks(host, "*", path)
    for host in (UAA, LOGIN):
        router.add(host, "GET", "/login", _login_info)
        router.add(host, "GET", "/info", _login_info)


def access(world: World, url: Callable[[str, str], str]) -> dict[str, Any]:
    """How the default user logs in at every landscape that has an organisation."""
    user = next(iter(world.table("users").values()))
    landscapes = {row["landscape"] for row in world.table("cf.organizations").values()}
    return {
        "cloud_foundry": {
            landscape: {
                "api": url(f"api.cf.{landscape}.hana.ondemand.com", ""),
                "username": user["name"],
                "password": user["password"],
                "origin": user["origin"],
            }
            for landscape in sorted(landscapes)
        }
    }
