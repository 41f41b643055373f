"""A service key's credentials in one form, whatever shape its broker gives them.

The fields of an Advanced Financial Closing key are those of SAP help, "How to Set Up the SAP Task Center Integration";
those of API Management are in "Accessing API Management APIs Programmatically", those of a bare XSUAA key in the pages
on the Authorization and Trust Management service. Brokers add fields as they like: what is not needed is carried along in
`raw`, and is nobody's business here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field as declared
from typing import Any

from btp_reconcile.core.catalogue import KeyShape
from btp_reconcile.core.model import Secret

TOKEN_PATH = "/oauth/token"
SHAPES = ("native", "uaa", "piper", "binding")
"""native: as the broker gave it. uaa: nested and lower case, as SAP Cloud Transport Management and Content Agent write
theirs. piper: the object that the steps of project Piper read. binding: flat, as the service binding specification for
Kubernetes has it."""
_URL = re.compile(r"https?://[!-~]+", re.IGNORECASE | re.ASCII)
_CLIENT = re.compile(r"[ -~]+", re.ASCII)


class ShapeError(Exception):
    """A key lacks something, or holds something that cannot be used. `missing` holds dotted paths and no values."""

    def __init__(self, missing: tuple[str, ...]) -> None:
        self.missing = missing
        super().__init__(f"missing or not usable: {', '.join(missing)}")


@dataclass(frozen=True)
class Credentials:
    """What a key opens, and with what. URLs and client ids are no secrets; everything else is one."""

    urls: Mapping[str, str]
    """name → base URL, under the names of `KeyShape.urls`."""
    token_url: str
    """Complete: ends in /oauth/token, once."""
    client_id: str
    client_secret: Secret | None = None
    certificate: Secret | None = None
    """PEM chain with real newlines."""
    private_key: Secret | None = None
    cert_token_url: str = ""
    """Complete token URL at the host for certificates; empty without a certificate."""
    raw: Mapping[str, Any] = declared(default_factory=dict, repr=False)
    """As it came; every text is a `Secret`."""

    @property
    def type(self) -> str:
        """How it signs in: `x509` or `secret`."""
        return "secret" if self.certificate is None else "x509"


@dataclass(frozen=True)
class About:
    """What a key belongs to, for consumers that want to know."""

    service: str = ""
    plan: str = ""
    instance: str = ""
    """The instance's name on the platform."""
    instance_id: str = ""
    key: str = ""
    """The key's name on the platform."""
    key_id: str = ""
    tags: tuple[str, ...] = ()


# --- reading --------------------------------------------------------------------------------------------


def read(raw: Mapping[str, Any], shape: KeyShape | None) -> Credentials:
    """A key's JSON in the one form. `shape` None, or without a client id: guessed by its form.

    Raises ShapeError with every path that is missing or not usable.
    """
    if set(raw) == {"credentials"} and isinstance(raw["credentials"], Mapping):
        raw = raw["credentials"]  # as `cf service-key` 8 wraps it
    if shape is None or not shape.client_id:
        shape = guessed(raw)
    if shape is None:
        raise ShapeError(("uaa.clientid", "clientid", "clientId"))
    return _Reading(raw, shape).read()


class _Reading:
    """One key being read; notes what is missing."""

    def __init__(self, raw: Mapping[str, Any], shape: KeyShape) -> None:
        self._raw = raw
        self._shape = shape
        self._missing: list[str] = []

    def read(self) -> Credentials:
        shape = self._shape
        urls = {name: self._url(path) for name, path in shape.urls.items()}
        token_url = with_token_path(self._url(shape.token_url))
        client_id = self._text(shape.client_id)
        if client_id and not _CLIENT.fullmatch(client_id):
            self._missing.append(shape.client_id)
        secret = _filled(self._at(shape.client_secret))
        chain, key = _filled(self._at(shape.certificate)), _filled(self._at(shape.private_key))
        if chain is not None and key is not None:
            chain, key = _mended(chain), _mended(key)
            host = self._url(shape.cert_token_url)
            made = Credentials(urls, token_url, client_id, None, chain, key, with_token_path(host), self._raw)
        elif secret is not None:
            made = Credentials(urls, token_url, client_id, secret, raw=self._raw)
        else:
            half = shape.private_key if chain is not None else shape.certificate
            lacks = half if chain is not None or key is not None else shape.client_secret
            self._missing.append(lacks or shape.certificate)
            made = Credentials(urls, token_url, client_id, raw=self._raw)
        if self._missing:
            raise ShapeError(tuple(dict.fromkeys(self._missing)))
        return made

    def _at(self, path: str) -> Any:
        return at(self._raw, path) if path else None

    def _text(self, path: str) -> str:
        found = _filled(self._at(path))
        if found is None:
            self._missing.append(path or "a field that the catalogue's key_shape does not name")
        return "" if found is None else found.reveal().strip()

    def _url(self, path: str) -> str:
        """A base URL without its last slash."""
        text = self._text(path).rstrip("/")
        if text and not _URL.fullmatch(text):
            self._missing.append(path)
        return text


def at(raw: Any, path: str) -> Any:
    """What stands at a dotted path; None: nothing."""
    for part in path.split("."):
        if not isinstance(raw, Mapping) or part not in raw:
            return None
        raw = raw[part]
    return raw


def _filled(value: Any) -> Secret | None:
    """A text that is more than blanks, as a secret."""
    found = Secret("credential", value) if isinstance(value, str) else value
    return found if isinstance(found, Secret) and found.reveal().strip() else None


def _mended(pem: Secret) -> Secret:
    """PEM with real newlines, whatever carried it escaped them."""
    text = pem.reveal().replace("\\r", "").replace("\\n", "\n").replace("\r", "").strip()
    return Secret(pem.name, text + "\n")


def with_token_path(url: str) -> str:
    """A token host, or a token endpoint, as an endpoint: it ends in /oauth/token, once."""
    if not url:
        return ""
    base = re.split(r"[?#]", url, maxsplit=1)[0].rstrip("/")
    while base.endswith(TOKEN_PATH):
        base = base.removesuffix(TOKEN_PATH).rstrip("/")
    return base + TOKEN_PATH


def guessed(raw: Mapping[str, Any]) -> KeyShape | None:
    """The shape of a key of a service that nothing is known of, by the three forms that there are; None: another."""
    if isinstance(raw.get("uaa"), Mapping) and "clientid" in raw["uaa"]:
        return _lower_case("uaa.", _urls(raw, ("url", "uri", "apiurl", "service_url")), token_url="uaa.url")
    if "clientid" in raw:
        token_url = next((name for name in ("tokenurl", "token_url") if name in raw), "url")
        names = ("uri", "sm_url", *(("url",) if token_url != "url" else ()))
        return _lower_case("", _urls(raw, names), token_url=token_url)
    if "clientId" in raw:
        key = "privateKey" if "privateKey" in raw else "key"
        host = "certurl" if "certurl" in raw else "certUrl"
        token_url = "tokenUrl" if "tokenUrl" in raw else "url"
        urls = _urls(raw, ("url", "uri")) if token_url == "tokenUrl" else {}
        return KeyShape(urls, token_url, True, "clientId", "clientSecret", "certificate", key, host)
    return None


def _lower_case(prefix: str, urls: Mapping[str, str], *, token_url: str) -> KeyShape:
    """The fields of XSUAA, wherever they stand."""
    names = ("clientid", "clientsecret", "certificate", "key", "certurl")
    return KeyShape(urls, token_url, True, *(prefix + name for name in names))


def _urls(raw: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """The API's addresses in a key of unknown shape: one by name, or the texts in `endpoints`."""
    for name in names:
        if _filled(raw.get(name)) is not None:
            return {"api": name}
    endpoints = raw.get("endpoints")
    if not isinstance(endpoints, Mapping):
        return {}
    return {
        name: f"endpoints.{name}"
        for name, value in endpoints.items()
        if "." not in name and (text := _filled(value)) is not None and _URL.fullmatch(text.reveal())
    }


# --- asking for one field -------------------------------------------------------------------------------

_SECRETS = ("client_secret", "certificate", "private_key")
_PLAIN = ("token_url", "client_id", "cert_token_url")


def field(credentials: Credentials, name: str) -> str | Secret:
    """One field by its internal name, or by its dotted path in the key. Raises KeyError when it is not there.

    `url` is the API's address where there is one, else `url.<name>` is.
    """
    found: Any = None
    if name == "url":
        found = main_url(credentials)
    elif name.startswith("url."):
        found = credentials.urls.get(name.removeprefix("url."))
    elif name in {*_SECRETS, *_PLAIN}:
        found = getattr(credentials, name)
    if not found:
        found = at(credentials.raw, name)
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        found = str(found)
    if isinstance(found, (str, Secret)) and found:
        return found
    raise KeyError(name)


def main_url(credentials: Credentials) -> str:
    """The API's address; empty when there are several and none of them is the main one."""
    urls = credentials.urls
    return urls.get("api", next(iter(urls.values())) if len(urls) == 1 else "")


# --- shapes for consumers -------------------------------------------------------------------------------


def shaped(credentials: Credentials, shape: str, about: About) -> dict[str, Any]:
    """The credentials as a consumer wants them. Raises ShapeError when they lack what this shape cannot be without."""
    if shape == "native":
        return dict(credentials.raw)
    if shape == "uaa":
        return _as_uaa(credentials)
    if shape == "piper":
        return _as_piper(credentials)
    if shape == "binding":
        return _as_binding(credentials, about)
    raise ValueError(f"{shape!r} is no shape; one of {', '.join(SHAPES)} is")


def _client(credentials: Credentials) -> dict[str, Any]:
    """The client in the words of XSUAA."""
    found: dict[str, Any] = {"clientid": credentials.client_id}
    if credentials.client_secret is not None:
        return found | {"clientsecret": credentials.client_secret}
    return found | {
        "certificate": credentials.certificate,
        "key": credentials.private_key,
        "certurl": credentials.cert_token_url.removesuffix(TOKEN_PATH),
        "credential-type": "x509",
    }


def _as_uaa(credentials: Credentials) -> dict[str, Any]:
    """Nested under `uaa`, with the token host. Consumers read the API's address as `url` or as `uri`, so it is both."""
    uaa = {"url": credentials.token_url.removesuffix(TOKEN_PATH), **_client(credentials)}
    url = main_url(credentials)
    if url:
        return {"uaa": uaa, "url": url, "uri": url}
    return {"uaa": uaa, **({"endpoints": dict(credentials.urls)} if credentials.urls else {})}


def _as_piper(credentials: Credentials) -> dict[str, Any]:
    """SAP/jenkins-library, pkg/cpi: one object `oauth`; its token URL is complete, and it knows no certificates."""
    url = main_url(credentials)
    lacks = [
        *(() if url else ("url",)),
        *(() if credentials.client_secret is not None else ("client_secret",)),
    ]
    if lacks:
        raise ShapeError(tuple(lacks))
    return {
        "oauth": {
            "url": url,
            "tokenurl": credentials.token_url,
            "clientid": credentials.client_id,
            "clientsecret": credentials.client_secret,
        }
    }


def _as_binding(credentials: Credentials, about: About) -> dict[str, Any]:
    """What the SAP BTP service operator writes: the key's own fields side by side, and beside them what it belongs to."""
    described = {
        "type": about.service,
        "label": about.service,
        "plan": about.plan,
        "instance_name": about.instance,
        "instance_guid": about.instance_id,
        "tags": list(about.tags),
    }
    return {**credentials.raw, **{name: value for name, value in described.items() if value}}
