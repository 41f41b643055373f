"""What is delivered in tests of sinks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.digest import hidden
from btp_reconcile.core.errors import Blame, HostRefused
from btp_reconcile.core.sink import Around, Identity, Parcel
from btp_reconcile.edges import files

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "5a7d1f0e-6c1b-4a51-9d67-0a4c4f1f2f10"
OURS = Identity("finance-platform", "prod", "delivery:prod/apim/transport/main", KEY, 1)
NEXT = replace(OURS, key="77aa1f0e-6c1b-4a51-9d67-0a4c4f1f2f11", generation=2)
SECRET = "b8Q$xZ|+/=-a-secret-that-is-long"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB0000000000000000000000\n-----END CERTIFICATE-----\n"
NATIVE = {
    "url": "https://finance.prod.apimanagement.eu10.hana.ondemand.com",
    "tokenUrl": "https://finance.authentication.eu10.hana.ondemand.com/oauth/token",
    "clientId": "sb-apim!b1|api-portal!b2",
    "clientSecret": SECRET,
}
X509 = {
    "url": NATIVE["url"],
    "tokenUrl": NATIVE["tokenUrl"],
    "clientId": NATIVE["clientId"],
    "certificate": PEM,
    "key": PEM.replace("CERTIFICATE", "RSA PRIVATE KEY"),
    "certUrl": "https://finance.authentication.cert.eu10.hana.ondemand.com",
}
NESTED = {
    "uaa": {"clientid": "sb-afc", "clientsecret": SECRET, "url": "https://finance.authentication.eu10"},
    "endpoints": {"scim2": "https://finance.afc.eu10/scim2"},
}
NOW = 1_795_343_400.0
"""2026-11-22T10:30:00Z"""


def parcel(content: Mapping[str, Any] = NATIVE, identity: Identity = OURS) -> Parcel:
    """Credentials as the platform gave them: every text is a secret."""
    return Parcel(hidden(dict(content), "key"), identity)


def around(environment: Mapping[str, str] | None = None, **more: Any) -> Around:
    """A world in which credentials may go to this machine alone."""
    return Around(
        **{
            "environment": environment or {},
            "check": local,
            "folder": str,
            "read": files.whole,
            "timeout": 5.0,
            "now": lambda: NOW,
            **more,
        }
    )


def local(url: str) -> None:
    """Raises HostRefused for what is not this machine."""
    if not url.startswith(("http://127.0.0.1:", "https://127.0.0.1:")):
        raise HostRefused(Blame("sink", url=url, code="host", message=f"no credential is sent to {url}"))
