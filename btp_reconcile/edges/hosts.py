"""Which addresses credentials may be sent to.

An address is read by one strict expression instead of a forgiving parser: what two parsers might read differently
(userinfo, backslashes, fragments, letters of other scripts, numbers as hosts) is refused before it is compared.

SAP's shared application domains (`cfapps`) are open to every customer: anybody can publish an application there under a
free name. So a host of SAP's is not allowed because of its domain alone, but because it stands where only SAP
can put one: `api`, `uaa` and `login` of a Cloud Foundry landscape, the token endpoints of XSUAA, and the services this
program calls by their own names.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from btp_reconcile.core.errors import Blame, HostRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

_ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[::1\]|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>(?:[/?][!-~]*)?)",
    re.IGNORECASE | re.ASCII,
)
_SAP_DOMAIN = r"\.(?:hana\.ondemand\.com|platform\.sapcloud\.cn)"
_OF_SAP = re.compile(
    r"(?:"
    r"(?:api|uaa|login)\.cf\.[a-z0-9-]+" + _SAP_DOMAIN + r"|"
    r"[a-z0-9-]+\.authentication(?:\.cert)?\.[a-z0-9-]+" + _SAP_DOMAIN + r"|"
    r"(?:accounts-service|entitlements-service|service-manager|destination-configuration)\.cfapps\.[a-z]+[0-9]*"
    + _SAP_DOMAIN
    + r"|"
    r"(?:[a-z0-9-]+\.)+cloud\.sap"
    r")",
    re.ASCII,
)
_SAP = re.compile(r"(?:[a-z0-9-]+\.)+(?:hana\.ondemand\.com|cloud\.sap|platform\.sapcloud\.cn)", re.ASCII)
"""Any host within SAP's domains, customers' applications included."""
_DEFAULT_PORT = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Place:
    """Where an address leads. Equal places are one origin."""

    scheme: str
    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Does it never leave this machine?"""
        if self.host in {"localhost", "[::1]"}:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def place(url: str) -> Place:
    """Where an address leads. Raises ValueError, which says what is odd about it."""
    match = _ADDRESS.fullmatch(url)
    if match is None:
        raise ValueError("it is not of the form https://host/path")
    if "\\" in match["rest"] or "#" in match["rest"]:
        raise ValueError("it holds a backslash or a fragment")
    scheme, host = match["scheme"].lower(), match["host"].lower()
    if ".." in host:
        raise ValueError("its host has an empty part")
    return Place(scheme, host, int(match["port"] or _DEFAULT_PORT[scheme]))


def _allows(entry: str, where: Place) -> bool:
    name, colon, port = entry.strip().lower().rpartition(":")
    if not colon or not port.isdecimal():
        name, port = entry.strip().lower(), "443"
    if where.port != int(port):
        return False
    return where.host.endswith(name[1:]) if name.startswith("*.") and len(name) > 2 else where.host == name


def objection(url: str, allowed: Sequence[str]) -> str:
    """Why credentials may not go there. Empty: they may.

    `allowed` holds hosts that were allowed outside the spec: `host`, `*.suffix`, each with `:port` if it is not 443.
    """
    return _objection(url, allowed, _OF_SAP)


def _objection(url: str, allowed: Sequence[str], trusted: re.Pattern[str]) -> str:
    try:
        where = place(url)
    except ValueError as error:
        return str(error)
    if where.loopback:
        return ""
    if where.scheme != "https":
        return "it is not https"
    if any(_allows(entry, where) for entry in allowed):
        return ""
    if trusted.fullmatch(where.host) is None:
        return "it is not one of SAP's; if you trust it, allow it with --allow-host or RECONCILE_HOSTS"
    return "" if where.port == 443 else "its port is not 443"


def shown(url: str) -> str:
    """An address as a message may show it: no user, no password, no query, nothing unprintable."""
    scheme, slashes, rest = url.partition("://")
    plain = re.split(r"[?#]", rest if slashes else scheme, maxsplit=1)[0].rpartition("@")[2]
    text = re.sub(r"[^!-~]", "?", f"{scheme}://{plain}" if slashes else plain)
    return text if len(text) <= 200 else text[:199] + "…"


def _named(url: str) -> str:
    """Where an address would lead, and no more of it: a variable may hold a token in the place of an address."""
    scheme, slashes, rest = shown(url).partition("://")
    host = rest.replace("\\", "/").partition("/")[0]
    return f"{scheme}://{host}" if slashes else "what is given as its address"


def check(service: str, url: str, allowed: Sequence[str], method: str = "") -> None:
    """Raises HostRefused unless credentials may be sent to this address."""
    _refuse(service, url, objection(url, allowed), method)


def check_issued(service: str, url: str, allowed: Sequence[str], method: str = "") -> None:
    """Raises HostRefused unless a token may be sent to the address that the very key names it was got with.

    The broker that issued the secret issued this address, too, and whoever controls the broker has the secret anyway. So
    any host within SAP's domains will do: APIs are published under the same shared domains as customers' applications.
    """
    _refuse(service, url, _objection(url, allowed, _SAP), method)


def _refuse(service: str, url: str, why: str, method: str) -> None:
    if why:
        where = _named(url)
        raise HostRefused(
            Blame(service, method, where, code="host", message=f"no credential is sent to {where}: {why}")
        )
