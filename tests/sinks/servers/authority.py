"""A certificate authority for one test: certificates of a server and of clients."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Makes certificates that only who trusts `certificate` trusts."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _called("a cluster's authority")
        made = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.certificate = made.public_bytes(serialization.Encoding.PEM).decode()

    def client(self, name: str) -> tuple[str, str]:
        """(certificate, key) of a user, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._signed(_called(name), key, x509.BasicConstraints(ca=False, path_length=None))
        return made.public_bytes(serialization.Encoding.PEM).decode(), _pem(key)

    def server(self, host: str, *, clients: bool = True) -> ssl.SSLContext:
        """TLS of a server of this name or address. `clients`: a certificate of ours must be shown."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        made = self._signed(_called("server"), key, x509.SubjectAlternativeName([name]))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            pem = Path(folder, "server.pem")
            pem.write_text(made.public_bytes(serialization.Encoding.PEM).decode() + _pem(key))
            context.load_cert_chain(pem)
        if clients:
            context.load_verify_locations(cadata=self.certificate)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(self._key, hashes.SHA256())
        )


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
