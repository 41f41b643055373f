"""What the tests of `file`, `vault` and `command` deliver, and a world for them to be opened in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.digest import hidden
from btp_reconcile.core.errors import Blame, HostRefused
from btp_reconcile.core.sink import Around, Identity, Parcel
from btp_reconcile.edges import files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

KEY = "0b1f7d8e-5f3a-4c8a-9f0e-1d2c3b4a5968"
SECRET = "Sw0rd+f1sh=$x|y!"
PEM = "-----BEGIN CERTIFICATE-----\nMIIBfz==\n-----END CERTIFICATE-----\n"
NATIVE: dict[str, Any] = {
    "url": "https://apim.test.invalid",
    "clientId": "sb-apim!b1|api-portal!b7",
    "clientSecret": SECRET,
    "certificate": PEM,
    "uaa": {"url": "https://uaa.test.invalid", "verificationkey": "öffentlich"},
}


def identity(generation: int = 1, *, owner: str = "team", key: str = KEY) -> Identity:
    return Identity(owner, "prod", "delivery:prod/apim/transport/main", key, generation)


def parcel(generation: int = 1, *, owner: str = "team", **content: Any) -> Parcel:
    """A parcel as the engine makes it: every text that may be secret is hidden."""
    return Parcel(hidden(content or NATIVE, "key"), identity(generation, owner=owner))


def anywhere(_url: str) -> None:
    """Every address may have credentials."""


def nowhere(url: str) -> None:
    """No address may."""
    raise HostRefused(Blame("vault", url=url, code="host", message=f"no credential is sent to {url}"))


def around(
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    check: Callable[[str], None] = anywhere,
    commands: bool = False,
    timeout: float = 30.0,
) -> Around:
    """The world, with paths that start at a folder."""
    return Around(
        environment=environment or {},
        check=check,
        folder=lambda path: str(folder / path),
        read=files.whole,
        commands=commands,
        timeout=timeout,
        now=time.time,
    )
