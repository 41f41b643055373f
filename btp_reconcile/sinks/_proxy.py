"""Which proxy leads to an address, by the variables that everybody knows. Never one for this machine itself."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


def proxy_for(url: str, environment: Mapping[str, str]) -> str:
    """The proxy that the environment names for this address; empty: none, and always so on this machine."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if loopback(host):
        return ""
    without = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if any(_excepts(entry, host) for entry in without.lower().replace(" ", "").split(",")):
        return ""
    names = (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    return next((found for name in names if (found := environment.get(name, ""))), "")


def _excepts(entry: str, host: str) -> bool:
    """Does an entry of `no_proxy` mean this host: *, a name or what ends in it, an address, or a range of them?"""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    name = entry.partition(":")[0].lstrip("*").lstrip(".")
    return entry == "*" or (bool(name) and (host == name or host.endswith(f".{name}")))


def loopback(host: str) -> bool:
    """Does this host never leave this machine?"""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
