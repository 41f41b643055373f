"""What a client certificate says: whose it is, when it ends, and whether a private key belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from btp_reconcile.core.errors import Blame, NotAsKnown

if TYPE_CHECKING:
    from cryptography import x509

    from btp_reconcile.core.model import Secret

CERTIFICATE = "certificate"
"""Under this name a certificate is blamed, as services are under theirs."""


@dataclass(frozen=True)
class Certificate:
    """The first certificate of a chain, which is its holder's own. Nothing in it is secret."""

    subject: str
    """RFC 4514: `CN=sb-x,OU=b,O=SAP`."""
    not_before: float
    """Epoch seconds."""
    not_after: float


def read(chain: Secret) -> Certificate:
    """What a PEM chain's first certificate says. Raises NotAsKnown, which quotes nothing of it."""
    found = _first(chain)
    return Certificate(
        found.subject.rfc4514_string(),
        found.not_valid_before_utc.timestamp(),
        found.not_valid_after_utc.timestamp(),
    )


def not_after(chain: Secret) -> float:
    """When it ends, in epoch seconds. Raises NotAsKnown when it cannot be read."""
    return read(chain).not_after


def belong_together(chain: Secret, key: Secret) -> bool:
    """Is this the private key of the chain's first certificate? Raises NotAsKnown when one cannot be read."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    public = _first(chain).public_key()
    try:
        own = load_pem_private_key(key.reveal().encode(), password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        failure = _unreadable("the private key")
    else:
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return own.public_bytes(*form) == public.public_bytes(*form)
    raise failure


def _first(chain: Secret) -> x509.Certificate:
    from cryptography import x509

    # What the library says about broken PEM may quote it, so its words end here.
    try:
        found = x509.load_pem_x509_certificates(chain.reveal().encode())[0]
        found.public_key()
    except Exception:  # noqa: BLE001 - the library raises types of its own for odd keys and versions
        failure = _unreadable("the certificate")
    else:
        return found
    raise failure


def _unreadable(what: str) -> NotAsKnown:
    return NotAsKnown(Blame(CERTIFICATE, message=f"{what} is not readable PEM"))
