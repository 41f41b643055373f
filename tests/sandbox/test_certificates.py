"""Mutual TLS at the certificate host of a zone, through both doors.

Sections are those of the reference page on AFC and API Management ("AFC 3.1") and of that on the platform ("BTP 6.8").
"""

from __future__ import annotations

import contextlib
import datetime as dt
import socket as socket_module
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from btp_reconcile.sandbox import InProcessAdapter, Sandbox, Served, serve
from tests.sandbox.api_keys import (
    AFC,
    EVERY_PLAN,
    PORTAL,
    certificate_url,
    certified,
    client_of,
    issue,
    made,
    pair_of,
    token_url,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sandbox.api_keys import Key

WRONG_CLIENT = {"error": "invalid_client", "error_description": "Bad credentials"}
PROXIES = "/apiportal/api/1.0/Management.svc/APIProxies?$top=1&$format=json"
HOST = "prod-x1.authentication.cert.eu10.hana.ondemand.com"
Files = tuple[str, str]


@pytest.fixture
def sandbox() -> Sandbox:
    return made()


@dataclass
class Door:
    """A client of one door, which it knows by the addresses of the platform."""

    sandbox: Sandbox
    session: requests.Session
    served: Served | None = None

    def url(self, address: str) -> str:
        return address if self.served is None else f"{self.served.url}/{address.removeprefix('https://')}"

    def ask(self, key: Key, cert: Files | str | None, url: str | None = None) -> requests.Response:
        form = {"grant_type": "client_credentials", "client_id": client_of(key)[0]}
        return self.session.post(self.url(url or certificate_url(key)), data=form, cert=cert)


@contextlib.contextmanager
def in_process(sandbox: Sandbox, folder: Path) -> Iterator[Door]:
    del folder
    with requests.Session() as session:
        session.mount("https://", InProcessAdapter(sandbox))
        yield Door(sandbox, session)


@contextlib.contextmanager
def over_tls(sandbox: Sandbox, folder: Path) -> Iterator[Door]:
    with serve(sandbox, tls=True, threads=4) as served, requests.Session() as session:
        trust = folder / "trust.pem"
        trust.write_text(served.certificate or "", encoding="utf-8")
        session.trust_env = False
        session.verify = str(trust)
        session.headers["Connection"] = "close"  # each request shows its own certificate
        yield Door(sandbox, session, served)


DOORS = {"in the process": in_process, "over TLS": over_tls}


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, sandbox: Sandbox, tmp_path: Path) -> Iterator[Door]:
    with DOORS[request.param](sandbox, tmp_path) as opened:
        yield opened


def files(folder: Path, pair: tuple[str, str]) -> Files:
    """Certificate and key as files of their own."""
    number = len(list(folder.iterdir()))
    paths = folder / f"{number}.pem", folder / f"{number}.key"
    for path, text in zip(paths, pair, strict=True):
        path.write_text(text, encoding="utf-8")
    return str(paths[0]), str(paths[1])


def certificate_key(sandbox: Sandbox, plan: tuple[str, str] = PORTAL, **options: Any) -> Key:
    return issue(sandbox, plan, binding=certified(plan[0], **options))


def homemade(*, days: int = 365, name: str = "client") -> tuple[str, str]:
    """A certificate that its owner has signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def advance(sandbox: Sandbox, days: float) -> None:
    with sandbox.hold() as world:
        world.advance(days * 86400)


# What opens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", EVERY_PLAN, ids="/".join)
def test_afc_3_1_a_certificate_key_of_every_plan_opens_the_certificate_host(
    door: Door, tmp_path: Path, plan: tuple[str, str]
):
    key = certificate_key(door.sandbox, plan)
    answer = door.ask(key, files(tmp_path, pair_of(key)))

    assert (answer.status_code, answer.json()["expires_in"]) == (200, 43199)
    assert "clientSecret" not in key
    assert "clientsecret" not in key.get("uaa", {})


def test_the_token_of_a_certificate_opens_what_that_of_a_secret_opens(door: Door, tmp_path: Path):
    key = certificate_key(door.sandbox)
    token = door.ask(key, files(tmp_path, pair_of(key))).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}

    assert door.session.get(door.url(key["url"] + PROXIES), headers=headers).json() == {"d": {"results": []}}


def test_certificate_and_key_may_stand_in_one_file(door: Door, tmp_path: Path):
    key = certificate_key(door.sandbox)
    file = tmp_path / "both.pem"
    chain, private = pair_of(key)
    file.write_text(f"Bag Attributes\n{private}{chain}", encoding="utf-8")

    assert door.ask(key, str(file)).status_code == 200


def test_a_certificate_of_one_s_own_is_trusted_because_a_key_names_it(door: Door, tmp_path: Path):
    pair = homemade()
    key = certificate_key(door.sandbox, AFC, certificate=pair[0])

    assert "key" not in key["uaa"]
    assert door.ask(key, files(tmp_path, pair)).status_code == 200


def test_the_clock_that_counts_is_the_sandbox_s(door: Door, tmp_path: Path):
    key = certificate_key(door.sandbox, validity=2)
    shown = files(tmp_path, pair_of(key))
    advance(door.sandbox, 1.99)
    last = door.ask(key, shown)
    advance(door.sandbox, 0.01)

    assert last.status_code == 200
    with pytest.raises(requests.exceptions.SSLError):
        door.ask(key, shown)


# What TLS refuses (AFC 3.1: "TLS failure on certurl") ------------------------------------------------------------------


def expired(sandbox: Sandbox, folder: Path) -> tuple[Key, Files]:
    key = certificate_key(sandbox, validity=1)
    advance(sandbox, 1)
    return key, files(folder, pair_of(key))


def early(sandbox: Sandbox, folder: Path) -> tuple[Key, Files]:
    advance(sandbox, 2)
    key = certificate_key(sandbox)
    advance(sandbox, -1)
    return key, files(folder, pair_of(key))


def foreign(sandbox: Sandbox, folder: Path) -> tuple[Key, Files]:
    return certificate_key(sandbox), files(folder, homemade())


def foreign_authority(sandbox: Sandbox, folder: Path) -> tuple[Key, Files]:
    """The same names, as another sandbox signs them."""
    return certificate_key(sandbox), files(folder, pair_of(certificate_key(made())))


def wrong_pair(sandbox: Sandbox, folder: Path) -> tuple[Key, Files]:
    key, other = certificate_key(sandbox), certificate_key(sandbox)
    return key, files(folder, (pair_of(key)[0], pair_of(other)[1]))


def locked(sandbox: Sandbox, folder: Path) -> tuple[Key, Files]:
    key = certificate_key(sandbox)
    chain, private = pair_of(key)
    sealed = serialization.load_pem_private_key(private.encode(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    return key, files(folder, (chain, sealed.decode()))


def missing(sandbox: Sandbox, folder: Path) -> tuple[Key, None]:
    del folder
    return certificate_key(sandbox), None


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (expired, "certificate expired"),
        (early, "bad certificate"),
        (foreign, "unknown ca"),
        (foreign_authority, "unknown ca"),
        (missing, "certificate required"),
        (wrong_pair, "KEY_VALUES_MISMATCH"),
        (locked, "PEM"),
    ],
)
def test_afc_3_1_in_the_process_a_handshake_that_fails_is_an_ssl_error_and_no_request(
    sandbox: Sandbox, tmp_path: Path, shown: Any, says: str
):
    key, pair = shown(sandbox, tmp_path)
    with in_process(sandbox, tmp_path) as door, pytest.raises(requests.exceptions.SSLError) as caught:
        door.ask(key, pair)

    assert says in str(caught.value)
    assert pair_of(key)[1][100:200] not in str(caught.value)
    assert sandbox.count == 0


@pytest.mark.parametrize("shown", [expired, early])
def test_afc_3_1_over_tls_a_certificate_out_of_its_time_is_an_ssl_error_and_no_request(
    sandbox: Sandbox, tmp_path: Path, shown: Any
):
    key, pair = shown(sandbox, tmp_path)
    with over_tls(sandbox, tmp_path) as door, pytest.raises(requests.exceptions.SSLError):
        door.ask(key, pair)

    assert sandbox.count == 0


def handshake(door: Door, pair: Files | None, name: str | None) -> str:
    """The alert that a client of TLS 1.2 gets, which is told before it may speak; "" for none."""
    assert door.served is not None
    context = ssl.create_default_context(cadata=door.served.certificate)
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    if pair is not None:
        context.load_cert_chain(*pair)
    try:
        with (
            socket_module.create_connection(("127.0.0.1", door.served.port)) as raw,
            context.wrap_socket(raw, server_hostname=name) as wrapped,
        ):
            wrapped.sendall(f"GET /token_keys HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            answer = wrapped.recv(12)
    except ssl.SSLError as error:
        return str(error.reason)
    return "" if answer == b"HTTP/1.1 200" else repr(answer)


@pytest.mark.parametrize("shown", [foreign, foreign_authority])
def test_afc_3_1_over_tls_a_foreign_certificate_ends_the_handshake(
    sandbox: Sandbox, tmp_path: Path, shown: Any
):
    key, pair = shown(sandbox, tmp_path)
    with over_tls(sandbox, tmp_path) as door:
        assert handshake(door, pair, HOST) == "TLSV1_ALERT_UNKNOWN_CA"
        assert handshake(door, files(tmp_path, pair_of(key)), HOST) == ""

    assert sandbox.count == 1


def test_over_tls_a_host_that_is_named_in_the_handshake_demands_a_certificate(
    sandbox: Sandbox, tmp_path: Path
):
    with over_tls(sandbox, tmp_path) as door:
        assert handshake(door, None, HOST) != ""
        assert handshake(door, None, HOST.replace(".cert.", ".")) == ""

    assert sandbox.count == 1


def test_over_tls_a_host_that_is_named_in_the_path_answers_401_without_a_certificate(
    sandbox: Sandbox, tmp_path: Path
):
    with over_tls(sandbox, tmp_path) as door:
        answer = door.ask(certificate_key(sandbox), None)

    assert (answer.status_code, answer.json()) == (401, WRONG_CLIENT)


def test_a_client_that_was_refused_leaves_the_port_open_to_others(sandbox: Sandbox, tmp_path: Path):
    key, pair = expired(sandbox, tmp_path)
    good = certificate_key(sandbox)
    with over_tls(sandbox, tmp_path) as door:
        for _ in range(3):
            with pytest.raises(requests.exceptions.SSLError):
                door.ask(key, pair)
        answer = door.ask(good, files(tmp_path, pair_of(good)))

    assert answer.status_code == 200


@pytest.mark.parametrize("part", [0, 1])
def test_a_file_that_is_missing_is_named(sandbox: Sandbox, tmp_path: Path, part: int):
    key = certificate_key(sandbox)
    pair = files(tmp_path, pair_of(key))
    Path(pair[part]).unlink()
    with (
        in_process(sandbox, tmp_path) as door,
        pytest.raises(OSError, match=r"Could not find the TLS .* file, invalid path") as caught,
    ):
        door.ask(key, pair)

    assert pair[part] in str(caught.value)


# What the zone refuses -------------------------------------------------------------------------------------------------


def test_afc_3_1_another_key_s_certificate_is_a_wrong_client(door: Door, tmp_path: Path):
    key, other = certificate_key(door.sandbox), certificate_key(door.sandbox)
    answer = door.ask(key, files(tmp_path, pair_of(other)))

    assert (answer.status_code, answer.json()) == (401, WRONG_CLIENT)


def test_a_certificate_is_no_proof_at_the_ordinary_host(door: Door, tmp_path: Path):
    key = certificate_key(door.sandbox)
    answer = door.ask(key, files(tmp_path, pair_of(key)), token_url(key))

    assert (answer.status_code, answer.json()) == (401, WRONG_CLIENT)


def test_a_secret_is_no_proof_at_the_certificate_host(door: Door, tmp_path: Path):
    secret, other = issue(door.sandbox, PORTAL), certificate_key(door.sandbox)
    name, text = client_of(secret)
    answer = door.session.post(
        door.url(certificate_url(other)),
        data={"grant_type": "client_credentials", "client_id": name, "client_secret": text},
        cert=files(tmp_path, pair_of(other)),
    )

    assert (answer.status_code, answer.json()) == (401, WRONG_CLIENT)


def test_btp_6_8_the_certificate_of_a_deleted_key_passes_tls_and_is_a_wrong_client(
    door: Door, tmp_path: Path
):
    from btp_reconcile.sandbox import brokers

    key = certificate_key(door.sandbox)
    shown = files(tmp_path, pair_of(key))
    assert door.ask(key, shown).status_code == 200
    with door.sandbox.hold() as world:
        brokers.revoke(world, list(world.rows("broker.instances"))[-1])
    answer = door.ask(key, shown)

    assert (answer.status_code, answer.json()) == (401, WRONG_CLIENT)


def test_a_key_that_names_nonsense_as_its_certificate_opens_nothing(sandbox: Sandbox, tmp_path: Path):
    nonsense = "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n"
    key = certificate_key(sandbox, AFC, certificate=nonsense)
    good = certificate_key(sandbox)
    with over_tls(sandbox, tmp_path) as door:
        answer = door.ask(key, files(tmp_path, pair_of(good)))

    assert answer.status_code == 401


def test_other_hosts_never_see_the_certificate(sandbox: Sandbox, tmp_path: Path):
    key = certificate_key(sandbox)
    seen: list[bytes | None] = []
    sandbox.on_request = lambda _, request: seen.append(request.client_certificate)
    with in_process(sandbox, tmp_path) as door:
        pair = files(tmp_path, pair_of(key))
        door.session.get(key["url"] + PROXIES, cert=pair)
        door.ask(key, pair)

    assert [one is None for one in seen] == [True, False]
