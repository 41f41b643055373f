"""What is asked of the client: one request, one token request, and who asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Bearer(Protocol):
    """Who asks, as tokens."""

    def get(self) -> str:
        """A token that is good now. Raises PlatformError and its kin."""

    def drop(self, token: str) -> None:
        """A service did not accept this token: it is not given out again."""


@dataclass(frozen=True)
class Call:
    """One request, before it is known how often it must be sent."""

    service: str
    method: str
    url: str
    user: str = ""
    """With the host: who shares a rate limit."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    bearer: Bearer | None = None
    safe: bool = False
    """A POST that changes nothing and may be sent again like a GET."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What was put into it in confidence and must not come back in a message."""
    certificate: tuple[str, str] | None = field(default=None, repr=False)
    """PEM texts of a client certificate and its key."""
    attempts: int = 0
    """Sent so often at most; 0: as often as the policy allows."""
    issued: bool = False
    """The address came with the very credentials that are sent to it: see `hosts.check_issued`."""


@dataclass(frozen=True)
class Form:
    """One token request."""

    url: str
    user: str
    fields: tuple[tuple[str, str], ...] = field(repr=False)
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    certificate: tuple[str, str] | None = field(default=None, repr=False)
