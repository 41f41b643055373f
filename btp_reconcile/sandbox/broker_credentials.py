"""The credentials that the brokers hand out: secrets, certificates, and the shape each service gives them.

Shapes: API Management as in SAP-docs/btp-integration-suite "Accessing API Management APIs Programmatically", AFC as in
SAP-docs/s4hana-cloud-advanced-financial-closing, Cloud Management as in SAP-samples/cloud-btp-cli-api-codejam exercise
06, Service Manager as in SAP-docs/btp-service-manager "Create a SAP Service Manager Instance and Binding".
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography import x509 as x509_types
    from cryptography.hazmat.primitives.asymmetric import ec

    from .world import World

Json = dict[str, Any]

CENTRAL_SCOPES = (
    "global-account.read",
    "global-account.update",
    "global-account.subaccount.read",
    "global-account.subaccount.create",
    "global-account.subaccount.update",
    "global-account.subaccount.delete",
    "global-account.account-directory.read",
    "global-account.account-directory.create",
    "global-account.account-directory.update",
    "global-account.account-directory.delete",
    "global-account.entitlement.read",
    "global-account.entitlement.subaccount.update",
    "global-account.region.read",
    "directory.entitlement.read",
    "directory.entitlement.update",
    "catalog.product.update",
    "catalog.product.delete",
    "job.read",
    "cis-central.event.read",
    "account-automation-request.read",
)
LOCAL_SCOPES = (
    "subaccount.entitlement.read",
    "subaccount.environment.read",
    "subaccount.environment.create",
    "subaccount.environment.delete",
    "subaccount.application.subscription.read",
    "subaccount.application.subscription.update",
    "job.read",
    "cis-local.event.read",
)
_SM_THINGS = ("broker", "platform", "service_instance", "service_binding")
SM_READ = (
    *(f"subaccount.{thing}.read" for thing in _SM_THINGS),
    "service_plan.read",
    "service_offering.read",
)
SM_ADMIN = (*SM_READ, *(f"subaccount.{thing}.manage" for thing in _SM_THINGS))

# What a key of AFC may do, and one of API Management by the role of its instance. The exact names are nowhere published;
# a scope is called like the role that grants it. A plan without roles has what every client of XSUAA has.
AFC_SCOPES = ("AFC_API_Access", "scim.read", "scim.write", "task-center")
ROLE_SCOPES = {
    "APIPortal.Administrator": ("APIPortal.Administrator",),
    "APIPortal.Guest": ("APIPortal.Guest",),
    "APIPortal.Service.CatalogIntegration": ("APIPortal.Service.CatalogIntegration",),
    "APIManagement.SelfService.Administrator": ("APIManagement.SelfService.Administrator",),
    "AuthGroup.API.Admin": ("AuthGroup.API.Admin",),
    "AuthGroup.Content.Admin": ("AuthGroup.Content.Admin",),
    "AuthGroup.External.Reviewer": ("AuthGroup.External.Reviewer",),
    "AuthGroup.API.ApplicationDeveloper": ("AuthGroup.API.ApplicationDeveloper",),
}
EVERY_CLIENT = ("uaa.resource",)


def _only_reading(scopes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(scope for scope in scopes if scope.endswith(".read"))


CIS_SCOPES = {
    "central": CENTRAL_SCOPES,
    "central-viewer": _only_reading(CENTRAL_SCOPES),
    "local": LOCAL_SCOPES,
    "local-viewer": _only_reading(LOCAL_SCOPES),
}
SM_SCOPES = {
    "subaccount-admin": SM_ADMIN,
    "subaccount-audit": SM_READ,
    "container": tuple(scope for scope in SM_ADMIN if "service_" in scope),
}


def secret(world: World) -> str:
    """A secret of the platform's look; every third kind has a sign that careless clients get wrong."""
    unique = world.new_id()
    digest = hashlib.sha256(unique.encode()).digest()
    text = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return (
        f"{unique}${text}=",
        f"{text[:9]}+{text[9:20]}/{text[20:]}=",
        f"{text[:12]}|{text[12:30]}!{text[30:]}$==",
    )[digest[0] % 3]


def number(text: str) -> int:
    """A small stable number out of an id, for the ``!b4711`` of client ids."""
    return 1000 + int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) % 90000


# ----------------------------------------------------------------------------------------------------------------------
# Certificates


def authority(world: World) -> tuple[ec.EllipticCurvePrivateKey, x509_types.Certificate]:
    """Who signs the certificates of keys: its key and its own certificate, made once and kept with the world."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec as curves
    from cryptography.x509.oid import NameOID

    table = world.table("broker.authority")
    row = table.get("ca")
    if row is None:
        key = curves.generate_private_key(curves.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, "Sandbox Client CA"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sandbox"),
            ]
        )
        begin = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(begin)
            .not_valid_after(begin + dt.timedelta(days=36500))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        row = {
            "key": key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode(),
            "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
        }
        table["ca"] = row
    loaded = serialization.load_pem_private_key(row["key"].encode(), password=None)
    if not isinstance(loaded, curves.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is no elliptic curve key")
    return loaded, x509.load_pem_x509_certificate(row["certificate"].encode())


def _usage(*, signs: bool) -> x509_types.KeyUsage:
    """What a key is for: an authority's signs certificates, a client's signs handshakes."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def certificate(world: World, common_name: str, *, days: int, length: int) -> tuple[str, str]:
    """A client certificate chain and its key (PEM), signed by the sandbox's own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    ca_key, ca = authority(world)
    key = rsa.generate_private_key(public_exponent=65537, key_size=length)
    begin = dt.datetime.fromtimestamp(world.now(), tz=dt.UTC).replace(microsecond=0)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SAP SE"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "SAP Cloud Platform Clients"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(int(world.new_id().replace("-", ""), 16) >> 1)
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    chain = signed.public_bytes(pem).decode() + ca.public_bytes(pem).decode()
    private = key.private_bytes(
        pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()
    return chain, private


# ----------------------------------------------------------------------------------------------------------------------
# Addresses


def zone_url(context: Json) -> str:
    return f"https://{context['subdomain']}.authentication.{context['region']}.hana.ondemand.com"


def certificate_url(context: Json) -> str:
    return f"https://{context['subdomain']}.authentication.cert.{context['region']}.hana.ondemand.com"


def service_url(name: str, region: str) -> str:
    return f"https://{name}.cfapps.{region}.hana.ondemand.com"


def verification_key(world: World) -> str:
    """The public half of the key that signs tokens."""
    pem = world.state.get("signing_key")
    return _public_half(pem) if isinstance(pem, str) else ""


@functools.lru_cache(maxsize=8)
def _public_half(pem: str) -> str:
    from cryptography.hazmat.primitives import serialization

    private = serialization.load_pem_private_key(pem.encode(), password=None)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public.decode()


def uaa(
    world: World,
    context: Json,
    client_id: str,
    app: str,
    master: str,
    proof: Json,
    kind: str,
    instance_id: str,
) -> Json:
    """The ``uaa`` block that services built on XSUAA put into their keys; ``proof`` is the secret or certificate."""
    tenant = context["subaccount_id"]
    region = context["region"]
    block: Json = {
        "apiurl": f"https://api.authentication.{region}.hana.ondemand.com",
        "clientid": client_id,
        **proof,
        "credential-type": kind,
        "identityzone": context["subdomain"],
        "identityzoneid": tenant,
        "sburl": f"https://internal-xsuaa.authentication.{region}.hana.ondemand.com",
        "serviceInstanceId": instance_id,
        "subaccountid": tenant,
        "tenantid": tenant,
        "tenantmode": "dedicated",
        "uaadomain": f"authentication.{region}.hana.ondemand.com",
        "url": zone_url(context),
        "verificationkey": verification_key(world),
        "xsappname": app,
        "xsmasterappname": master,
        "zoneid": tenant,
    }
    if kind == "x509":
        block["certurl"] = certificate_url(context)
    return block


def cis(context: Json, central: str, uaa_block: Json, plan: str, grant: str) -> Json:
    region = context["region"]
    central_plan = plan.startswith("central")
    return {
        "endpoints": {
            "accounts_service_url": service_url("accounts-service", central),
            "cloud_automation_url": service_url("cp-formations", central),
            "entitlements_service_url": service_url("entitlements-service", central),
            "events_service_url": service_url("events-service", region),
            "external_provider_registry_url": service_url("external-provider-registry", central),
            "metadata_service_url": service_url("metadata-service", central),
            "order_processing_url": service_url("order-processing", central),
            "provisioning_service_url": service_url("provisioning-service", region),
            "saas_registry_service_url": service_url("saas-manager", region),
        },
        "grant_type": grant,
        "sap.cloud.service": f"com.sap.core.commercial.service.{'central' if central_plan else 'local'}",
        "uaa": uaa_block,
    }
