"""Mutual TLS: what a host that demands a client certificate makes of the one that it is shown.

SAP-docs/btp-cloud-platform "Enable mTLS Authentication to SAP Authorization and Trust Management Service": the zone's
certificate host demands a certificate, which counts until its ``notAfter``; nobody keeps revocation lists, so a deleted
key's certificate still gets through TLS and is then an unknown client. A certificate that its owner made ("Parameters
for Self-Managed X.509 Certificates") is trusted because a key names it, any other because the sandbox's authority
signed it.

What no TLS library can know here, the sandbox's own clock, is judged by ``objection`` as well; both doors ask it. Its
answer is the name of a TLS alert (RFC 8446, section 6): a refusal of TLS, not of the service behind it. The adapter
raises it as ``requests.exceptions.SSLError``; the socket sends it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from btp_reconcile.sandbox import broker_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography import x509

    from btp_reconcile.sandbox.world import World

ALERTS = {"bad certificate": 42, "certificate expired": 45, "unknown ca": 48, "certificate required": 116}
"""The alerts that a host with mutual TLS ends a handshake with, and their numbers."""

EARLY = 60.0  # seconds that a client's clock may be ahead


def demanded(host: str) -> bool:
    """Whether a virtual host demands a certificate: the certificate host of a zone does."""
    return ".authentication.cert." in host


def objection(world: World, certificate: bytes | None, *, required: bool) -> str | None:
    """The alert that ends the handshake; None when it goes on. ``certificate`` is the client's own one as DER."""
    from cryptography import x509

    if certificate is None:
        return "certificate required" if required else None
    try:
        shown = x509.load_der_x509_certificate(certificate)
    except ValueError:
        return "bad certificate"
    if not _trusted(world, shown):
        return "unknown ca"
    if world.now() >= shown.not_valid_after_utc.timestamp():
        return "certificate expired"
    if shown.not_valid_before_utc.timestamp() > world.now() + EARLY:
        return "bad certificate"
    return None


def trusted(world: World) -> Iterator[str]:
    """The certificates (PEM) under which a client's certificate may stand, or which it may be."""
    from cryptography.hazmat.primitives.serialization import Encoding

    _, authority = broker_credentials.authority(world)
    for one in (authority, *self_managed(world)):
        yield one.public_bytes(Encoding.PEM).decode()


def self_managed(world: World) -> Iterator[x509.Certificate]:
    """The certificates that owners of keys have made themselves."""
    from cryptography import x509

    for row in world.rows("clients").values():
        if row.get("self_managed"):
            with contextlib.suppress(
                ValueError
            ):  # what was no certificate when the key was made proves nothing
                yield x509.load_pem_x509_certificates(row["certificate"].encode())[0]


def _trusted(world: World, shown: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    _, authority = broker_credentials.authority(world)
    try:
        shown.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        pass
    else:
        return True
    return any(shown == known for known in self_managed(world))
