"""Certificates and keys for tests, made when they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Paper:
    """A certificate and its private key, as PEM."""

    certificate: str
    key: str


@cache
def paper(name: str, begins: datetime, ends: datetime) -> Paper:
    """A certificate that vouches for itself, for this machine too."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
        ]
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Paper(made.public_bytes(Encoding.PEM).decode(), key.private_bytes(*form).decode())


def around(epoch: float, name: str = "client", days: float = 30.0) -> Paper:
    """One that began a day before and ends so many days after that time."""
    now = datetime.fromtimestamp(epoch, UTC)
    return paper(name, now - timedelta(days=1), now + timedelta(days=days))
