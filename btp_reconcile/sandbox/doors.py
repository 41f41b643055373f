"""The two doors of a sandbox: a transport adapter for ``requests``, and a port on this machine.

At a host that demands a client certificate both end the handshake of a client whose certificate is foreign or has
expired by the sandbox's clock: an ``SSLError`` for a client of ``requests``. The adapter does so too when there is none.
The socket knows the host that early only from SNI; a client that names the host in the path and shows no certificate
gets as far as the service, which answers 401.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.message
import io
import ipaddress
import json
import os
import socket as socket_module
import ssl
import tempfile
import threading
import time
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import HTTPHeaderDict, HTTPResponse

from btp_reconcile.sandbox import certificates
from btp_reconcile.sandbox.faults import Lost, checked
from btp_reconcile.sandbox.http import Headers, Request, Response, https

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from btp_reconcile.sandbox import Sandbox
    from btp_reconcile.sandbox.world import World

PATIENCE = 300.0  # an answer slower than this counts as lost when the client named no time limit


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class InProcessAdapter(BaseAdapter):
    """Leads a ``requests.Session`` to a sandbox of this process; mount it for ``https://`` and ``http://``.

    ``cert`` is read as ``requests`` reads it; a key that is not the certificate's, and a handshake that the host ends, are
    an ``SSLError``, and no request. Nothing sleeps: an answer that a fault makes slower than the read time limit is a ``ReadTimeout`` at once, after
    the work was done, and any other comes immediately.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__()
        self._sandbox = sandbox
        self._builder = HTTPAdapter()

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """One request, answered or broken off as the sandbox says."""
        del stream, verify, proxies
        parts = urlsplit(str(request.url))
        host = parts.hostname or ""
        if not self._sandbox.knows(host):
            raise requests.ConnectionError(f"Failed to resolve '{host}'", request=request)
        body: Any = request.body or b""
        if not isinstance(body, (str, bytes)):
            body = body.read() if hasattr(body, "read") else b"".join(body)
        asked = Request.of(
            request.method or "GET",
            host,
            request.path_url,
            headers={
                name: value if isinstance(value, str) else value.decode("latin-1")
                for name, value in request.headers.items()
            },
            body=body.encode() if isinstance(body, str) else body,
            client_certificate=self._handshake(request, host.lower(), cert),
        )
        with self._sandbox.under_way(asked) as counted:
            answer = self._sandbox.answer(counted)
        limit = timeout[1] if isinstance(timeout, tuple) else timeout
        if answer.delay > (PATIENCE if limit is None else limit):
            raise requests.ReadTimeout(f"Read timed out. (read timeout={limit})", request=request)
        if answer.lost is not None or answer.response is None:
            raise requests.ConnectionError(str(answer.lost), request=request) from answer.lost
        return self._dressed(request, answer.response)

    def _handshake(
        self,
        request: requests.PreparedRequest,
        host: str,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None,
    ) -> bytes | None:
        """The client's certificate as the host gets to see it; ``SSLError`` when TLS goes no further."""
        try:
            shown = _certificate(cert)
        except ssl.SSLError as error:
            raise requests.exceptions.SSLError(error, request=request) from error
        if not certificates.demanded(host):
            return None
        with self._sandbox.hold() as world:
            alert = certificates.objection(world, shown, required=True)
        if alert is not None:
            broken = ssl.SSLError(1, f"[SSL: {alert.upper().replace(' ', '_')}] the host ends with: {alert}")
            raise requests.exceptions.SSLError(broken, request=request)
        return shown

    def _dressed(self, request: requests.PreparedRequest, response: Response) -> requests.Response:
        raw = HTTPResponse(
            body=io.BytesIO(response.body),
            headers=HTTPHeaderDict(_with_length(response)),
            status=response.status,
            reason=_phrase(response.status),
            preload_content=False,
            request_method=request.method,
        )
        message = email.message.Message()
        for name, value in response.headers:
            message[name] = value
        raw._original_response = SimpleNamespace(msg=message)  # type: ignore[assignment]  # noqa: SLF001 - cookies are read there
        built: requests.Response = self._builder.build_response(request, raw)
        raw._original_response = None  # noqa: SLF001 - the rest wants a real one
        return built

    def close(self) -> None:
        """Nothing is held."""


def _certificate(cert: bytes | str | tuple[bytes | str, bytes | str] | None) -> bytes | None:
    """The first certificate of the file as DER; ``ssl.SSLError`` when the key is another one's or cannot be read."""
    if not cert:
        return None
    files = [os.fsdecode(file) for file in (cert if isinstance(cert, tuple) else (cert,))]
    for file, what in zip(files, ("certificate", "key"), strict=False):
        if not Path(file).exists():
            raise OSError(f"Could not find the TLS {what} file, invalid path: {file}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(files[0], files[-1], password="")  # never asks at the terminal
    text = Path(files[0]).read_text(encoding="utf-8")
    start = text.index(ssl.PEM_HEADER)
    end = text.index(ssl.PEM_FOOTER, start) + len(ssl.PEM_FOOTER)
    return ssl.PEM_cert_to_DER_cert(text[start:end])


def _with_length(response: Response) -> list[tuple[str, str]]:
    headers = list(response.headers)
    if response.status != 204 and response.header("Content-Length") is None:
        headers.append(("Content-Length", str(len(response.body))))
    return headers


# ----------------------------------------------------------------------------------------------------------------------
# The socket


class Site:
    """Where the virtual hosts are found on a socket, and which one a request means."""

    def __init__(self, sandbox: Sandbox, scheme: str, port: int) -> None:
        self._sandbox = sandbox
        self.base = f"{scheme}://127.0.0.1:{port}"
        domain = f"cf.{sandbox.region}.hana.ondemand.com"
        self._api, self._uaa, self._login = (f"{name}.{domain}" for name in ("api", "uaa", "login"))

    def url(self, host: str, path: str) -> str:
        """An address as a client of the socket calls it."""
        if host in {self._api, self._uaa, self._login}:
            return self.base + path
        return f"{self.base}/{host}{path}"

    def resolve(self, host_header: str, target: str) -> tuple[str, str, Callable[[str, str], str]]:
        """Virtual host, path with query, and how this client is told addresses."""
        host, _, port = host_header.partition(":")
        if self._sandbox.knows(host.lower()):
            scheme = self.base.partition(":")[0]
            end = f":{port}" if port else ""
            return host.lower(), target, lambda name, path: f"{scheme}://{name}{end}{path}"
        first = target.partition("?")[0].removeprefix("/").partition("/")[0]
        if self._sandbox.knows(first.lower()):
            rest = target.removeprefix("/")[len(first) :]
            return first.lower(), rest if rest.startswith("/") else "/" + rest, self.url
        return (self._login if _is_login(target) else self._api), target, self.url


_LOGIN = ("/oauth", "/login", "/info", "/token_key", "/.well-known", "/passcode", "/check_token", "/userinfo")


def _is_login(target: str) -> bool:
    path = target.partition("?")[0]
    return path.startswith(_LOGIN)


class Served:
    """A sandbox on a port of this machine; a context manager, or ``forever()`` for people."""

    def __init__(self, sandbox: Sandbox, *, port: int = 0, tls: bool = False, threads: int = 50) -> None:
        from cheroot import wsgi

        self._sandbox = sandbox
        self._thread: threading.Thread | None = None
        self._server = wsgi.Server(("127.0.0.1", port), self._application, numthreads=threads, max=-1)
        self._server.gateway = _gateway()
        self._server.request_queue_size = 128
        self._server.shutdown_timeout = 1
        self._server.expiration_interval = 0.05  # how soon the server notices that it shall stop
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.certificate: str | None = None  # the PEM that a client may trust
        if tls:
            self._server.ssl_adapter = self._tls()
        self._server.prepare()
        self.port = int(self._server.bind_addr[1])
        self.site = Site(sandbox, "https" if tls else "http", self.port)

    @property
    def url(self) -> str:
        """Where the default landscape's Cloud Controller answers."""
        return self.site.base

    def access(self) -> dict[str, Any]:
        """The credentials of the sandbox with addresses of this socket."""
        return self._sandbox.access(self.site.url)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve, name="sandbox", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server and frees the port."""
        self._server.stop()
        if self._thread is not None:
            self._thread.join(5)
            self._thread = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def forever(self) -> None:
        """Serves until it is interrupted."""
        try:
            self._server.serve()
        except KeyboardInterrupt:
            pass
        finally:
            self.close()

    def _tls(self) -> Any:
        with self._sandbox.hold() as world:
            certificate, key = server_certificate(world)
        self.certificate = certificate
        self._folder = tempfile.TemporaryDirectory(prefix="sandbox-tls-")
        chain = Path(self._folder.name, "server.pem")
        secret = Path(self._folder.name, "server.key")
        chain.write_text(certificate, encoding="utf-8")
        secret.touch(mode=0o600)
        secret.write_text(key, encoding="utf-8")
        return _tls_adapter()(self._sandbox, str(chain), str(secret))

    def _application(
        self, environ: dict[str, Any], start: Callable[[str, list[tuple[str, str]]], Any]
    ) -> list[bytes]:
        target = str(environ.get("REQUEST_URI") or environ["PATH_INFO"])
        if "://" in target.partition("?")[0]:
            parts = urlsplit(target)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        body = _body(environ)
        if target.partition("?")[0].startswith("/__sandbox__/"):
            response = self._control(environ, target, body)
        else:
            host, target, url = self.site.resolve(environ.get("HTTP_HOST", ""), target)
            asked = Request.of(
                environ["REQUEST_METHOD"],
                host,
                target,
                headers=_headers(environ),
                body=body,
                url=url,
                client_certificate=environ.get("sandbox.client_certificate"),
            )
            with self._sandbox.under_way(asked) as counted:
                answer = self._sandbox.answer(counted)
                if answer.lost is not None or answer.response is None:
                    raise answer.lost or Lost(done=False)
                response = answer.response
                environ["sandbox.cut"] = answer.cut
                if answer.delay:
                    time.sleep(answer.delay)
        start(f"{response.status} {_phrase(response.status)}", _with_length(response))
        return [response.body]

    def _control(self, environ: Mapping[str, Any], target: str, body: bytes) -> Response:
        method, path = environ["REQUEST_METHOD"], target.partition("?")[0]
        if not ipaddress.ip_address(environ["REMOTE_ADDR"]).is_loopback:
            return Response.json({"error": "only from this machine"}, 403)
        if path != "/__sandbox__/faults":
            return Response.json({"error": f"no control {path}"}, 404)
        if method == "POST":
            try:
                rules = json.loads(body)
                wanted = [checked(rule) for rule in (rules if isinstance(rules, list) else [rules])]
                for rule in wanted:
                    self._sandbox.faults.add(rule)
            except (ValueError, TypeError) as error:
                return Response.json({"error": str(error)}, 400)
        elif method == "DELETE":
            self._sandbox.faults.clear()
        elif method != "GET":
            return Response.json({"error": f"no control {method} {path}"}, 405)
        return Response.json({"rules": self._sandbox.faults.rules()})


def serve(sandbox: Sandbox, *, port: int = 0, tls: bool = False, threads: int = 50) -> Served:
    """Opens the sandbox on 127.0.0.1; port 0 takes a free one. Use it in a ``with``, or call ``forever()``."""
    return Served(sandbox, port=port, tls=tls, threads=threads)


def wsgi_application(sandbox: Sandbox, base: str) -> Callable[..., list[bytes]]:
    """The sandbox as a WSGI application for another server, which is reached under ``base``."""
    parts = urlsplit(base)
    served = object.__new__(Served)
    served._sandbox = sandbox
    served.site = Site(sandbox, parts.scheme, parts.port or (443 if parts.scheme == "https" else 80))
    return served._application


def _headers(environ: Mapping[str, Any]) -> Headers:
    found = {
        key[5:].replace("_", "-").title(): str(value)
        for key, value in environ.items()
        if key.startswith("HTTP_")
    }
    for key, name in (("CONTENT_TYPE", "Content-Type"), ("CONTENT_LENGTH", "Content-Length")):
        if environ.get(key):
            found[name] = str(environ[key])
    return Headers(found)


def _body(environ: Mapping[str, Any]) -> bytes:
    if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
        return bytes(environ["wsgi.input"].read())
    length = int(environ.get("CONTENT_LENGTH") or 0)
    return bytes(environ["wsgi.input"].read(length)) if length else b""


def _gateway() -> type:
    """The gateway of cheroot, which can also hang up: that is how a lost answer looks from outside."""
    from cheroot import wsgi

    class Gateway(wsgi.Gateway_10):
        def get_environ(self) -> Any:
            environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call] # untyped in cheroot
            socket = self.req.conn.socket
            if isinstance(socket, ssl.SSLSocket):
                environ["sandbox.client_certificate"] = socket.getpeercert(binary_form=True)
            return environ

        def respond(self) -> None:
            try:
                super().respond()
            except Lost:
                self.req.sent_headers = True
                self._hang_up()
            else:
                if self.env.get("sandbox.cut"):
                    self._hang_up()

        def _hang_up(self) -> None:
            self.req.close_connection = True
            self.req.chunked_write = False
            with contextlib.suppress(OSError):
                self.req.conn.wfile.flush()
                self.req.conn.socket.shutdown(socket_module.SHUT_RDWR)

    return Gateway


NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, whose clock is not the sandbox's


def _tls_adapter() -> type:
    """The TLS of cheroot, with the sandbox's authority, its clock, and hosts that demand a certificate by SNI."""
    from cheroot import errors
    from cheroot.ssl.builtin import BuiltinSSLAdapter

    class Adapter(BuiltinSSLAdapter):
        def __init__(self, sandbox: Sandbox, certificate: str, key: str) -> None:
            super().__init__(certificate, key)
            self._sandbox = sandbox
            self._known: set[str] = set()
            self.context.verify_mode = ssl.CERT_OPTIONAL
            flags = self.context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
            self.context.verify_flags = ssl.VerifyFlags(flags)
            self._learn()

        def _learn(self) -> None:
            """Trusts the authority, and what owners of keys have made since."""
            with self._sandbox.hold() as world:
                wanted = set(certificates.trusted(world))
            if wanted - self._known:
                self.context.load_verify_locations(cadata="\n".join(wanted - self._known))
                self._known |= wanted

        def wrap(self, sock: Any) -> tuple[Any, dict[str, Any]]:
            self._learn()
            wrapped, environ = super().wrap(sock)  # type: ignore[no-untyped-call] # the same
            shown = wrapped.getpeercert(binary_form=True)
            required = certificates.demanded(getattr(wrapped, "sni", None) or "")
            with self._sandbox.hold() as world:
                alert = certificates.objection(world, shown, required=required)
            if alert is not None:
                _end(wrapped, certificates.ALERTS[alert])
                raise errors.FatalSSLAlert(alert)
            return wrapped, environ

    return Adapter


def _end(wrapped: ssl.SSLSocket, number: int) -> None:
    """Ends a handshake that the TLS library was content with: a fatal alert, then what the client still sends."""
    with socket_module.socket(fileno=os.dup(wrapped.fileno())) as raw, contextlib.suppress(OSError):
        raw.settimeout(1)
        raw.sendall(bytes((21, 3, 3, 0, 2, 2, number)))  # RFC 8446, sections 5.1 and 6
        raw.shutdown(socket_module.SHUT_WR)
        while raw.recv(65536):
            pass
    wrapped.close()


def server_certificate(world: World) -> tuple[str, str]:
    """The self-signed certificate of the socket and its key, made once and kept with the world."""
    kept = world.state["keys"].get("server")
    if kept is not None:
        return kept["certificate"], kept["key"]
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.DNSName("*.hana.ondemand.com"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    world.state["keys"]["server"] = {
        "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "key": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    }
    return server_certificate(world)


__all__ = ["InProcessAdapter", "Served", "Site", "https", "serve", "server_certificate", "wsgi_application"]
