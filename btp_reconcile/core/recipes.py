"""What destinations take from keys: `${key:…}` in the texts of their properties, and how it is filled in.

    ${key:apim/transport#url}            the key of an instance of the same subaccount
    ${key:prod/apim/transport#url}       of any subaccount
    ${key#url}                           the key that stands beside, under `key`; recipes write it like that
    ${key#url.task-center%/suffix}       without that end, if it ends so (as shells cut it)

A field is an internal name (`url`, `url.NAME`, `token_url`, `client_id`, `client_secret`, `certificate`,
`private_key`, `cert_token_url`), the same for every service, or a dotted path in the key's own JSON.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from btp_reconcile.core import references
from btp_reconcile.core.errors import Blame, PlatformError
from btp_reconcile.core.model import Address, Secret
from btp_reconcile.core.suspicion import by_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btp_reconcile.core.credentials import Credentials

OURS = "btp-reconcile."
"""What our own properties in a destination begin with."""
PUBLIC = frozenset({"url", "token_url", "client_id", "cert_token_url"})
"""Fields of a key that are no secret, and `url.NAME`. Whatever comes from its own JSON counts as one."""
KEY_PATH = r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*){1,2}$"
"""A key as a spec names it: `instance/key`, or `subaccount/instance/key`."""
TOKEN_PATH = "/oauth/token"

_TOKEN = re.compile(
    r"\$\$\{|\$\{key(?::(?P<key>[^#{}\s]+))?#(?P<field>[^%{}\s]+)(?:%(?P<cut>[^{}\s]+))?\}", re.ASCII
)
_SECRET = re.compile(r"secret|password|passwd|private_?key|api_?key|authorization", re.IGNORECASE)

KNOWN = (
    "Type",
    "URL",
    "ProxyType",
    "Authentication",
    "Description",
    "User",
    "Password",
    "CloudConnectorLocationId",
    "TrustAll",
    "TrustStoreLocation",
    "TrustStorePassword",
    "KeyStoreLocation",
    "KeyStorePassword",
    "clientId",
    "clientSecret",
    "clientKey",
    "tokenServiceURL",
    "tokenServiceURLType",
    "tokenServiceUser",
    "tokenServicePassword",
    "tokenService.KeyStoreLocation",
    "tokenService.KeyStorePassword",
    "tokenService.addClientCredentialsInBody",
    "audience",
    "authnContextClassRef",
    "nameIdFormat",
    "nameQualifier",
    "userIdSource",
    "companyId",
    "assertionIssuer",
    "SystemUser",
    "scope",
    "sourceSystemId",
    "HTML5.DynamicDestination",
    "HTML5.ForwardAuthToken",
    "HTML5.Timeout",
    "WebIDEEnabled",
    "WebIDEUsage",
    "tc.enabled",
    "tc.provider_type",
    "tc.notifications.enabled",
    "tc.ui.group",
    "tc.ui.label",
    "tc.inbox.pull.days",
)
"""Names of properties that consumers read; case counts (SAP help, Connectivity: HTTP Destinations)."""
SHOWN = frozenset(KNOWN) - {"User", "SystemUser"}
"""Properties whose values may be seen, unless they are secret by their names."""


# --- the texts ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """One `${key…}`. `key` is as written, and empty in the short form; `cut` is an end to be taken off."""

    key: str
    field: str
    cut: str = ""

    @property
    def secret(self) -> bool:
        """Is what it brings a secret?"""
        return self.field not in PUBLIC and not self.field.startswith("url.")


def taken(text: str) -> tuple[Reference, ...]:
    """Every reference to a key in a text."""
    return tuple(_read(match) for match in _TOKEN.finditer(text) if match[0] != "$${") if "${" in text else ()


def without(text: str) -> str:
    """The text without its references to keys, so that others can be looked for in it."""
    return _TOKEN.sub(lambda match: match[0] if match[0] == "$${" else "", text)


def fixed(text: str) -> bool:
    """Does nothing in it come from a key or from outside the spec?"""
    return not taken(text) and not references.found(without(text))


def address(written: str, subaccount: str) -> Address | None:
    """The key that `instance/key` or `subaccount/instance/key` means; None when it is neither."""
    if not re.fullmatch(KEY_PATH, written):
        return None
    path = tuple(written.split("/"))
    return Address("key", path if len(path) == 3 else (subaccount, *path))


def absolute(text: str, subaccount: str, beside: str = "") -> str:
    """The text with every reference to a key in its full form; `beside` is the key for the short one."""

    def full(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return match[0]
        one = _read(match)
        key = address(one.key or beside, subaccount)
        path = "/".join(key.path) if key else one.key or beside
        return f"${{key:{path}#{one.field}" + (f"%{one.cut}" if one.cut else "") + "}"

    return _TOKEN.sub(full, text)


def escaped(text: str) -> str:
    """A text from outside, so that nothing in it is taken for a reference."""
    return text.replace("${", "$${")


def literal(text: str) -> str:
    """What a text that takes nothing from a key stands for."""
    return references.unescaped(text)


def _read(match: re.Match[str]) -> Reference:
    return Reference(match["key"] or "", match["field"], match["cut"] or "")


def secret_name(name: str) -> bool:
    """Does a property of this name hold a secret?"""
    return by_name(name) or bool(_SECRET.search(name))


def secret_in(name: str, text: str | Secret) -> bool:
    """Is this property a secret, by its name or by what it takes in?"""
    return isinstance(text, Secret) or secret_name(name) or any(one.secret for one in taken(text))


def keys_of(properties: Mapping[str, str | Secret]) -> tuple[Address, ...]:
    """The keys that properties (in their full form) take something from, each once, in order."""
    found = [
        Address("key", tuple(one.key.split("/")))
        for text in properties.values()
        for one in taken(_plain(text))
    ]
    return tuple(dict.fromkeys(found))


def _plain(text: str | Secret) -> str:
    return text.reveal() if isinstance(text, Secret) else text


# --- filling in -----------------------------------------------------------------------------------------


def filled(
    properties: Mapping[str, str | Secret], credentials: Mapping[Address, Credentials]
) -> dict[str, str | Secret]:
    """The properties as they are sent. A text that takes in a secret becomes one.

    Raises PlatformError when a key lacks a field: that shows only when it is read.
    """
    return {name: _filled(text, credentials) for name, text in properties.items()}


def _filled(text: str | Secret, credentials: Mapping[Address, Credentials]) -> str | Secret:
    names = [text.name] if isinstance(text, Secret) else []

    def one(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        reference = _read(match)
        value = _value(reference, credentials)
        if isinstance(value, Secret):
            names.append(f"key:{reference.key}#{reference.field}")
            value = value.reveal()
        return value.removesuffix(reference.cut)

    whole = _TOKEN.sub(one, _plain(text))
    return Secret(", ".join(dict.fromkeys(names)), whole) if names else whole


def _value(reference: Reference, credentials: Mapping[Address, Credentials]) -> str | Secret:
    from btp_reconcile.core.credentials import field as field_of

    key = Address("key", tuple(reference.key.split("/")))
    try:
        return field_of(credentials[key], reference.field)
    except KeyError:
        message = f"{key} has no {reference.field}, which the destination takes from it"
        raise PlatformError(Blame("destination", message=message)) from None
