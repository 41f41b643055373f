"""A web server on this machine, for one test: what it is asked is kept, and it can be told to fail."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """As it came, still quoted."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Says:
    """One answer. A body that is no bytes is JSON."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Cut(Exception):
    """Close the connection without an answer."""


Fault = Callable[[Asked], Says | None]


class Web:
    """Serves `answer` on 127.0.0.1 while it is entered."""

    def __init__(self, answer: Callable[[Asked], Says], tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.seen: list[Asked] = []
        self.faults: list[Fault] = []
        """Asked first, each; the first that answers, answers. One that raises `Cut` closes the connection."""
        self.lost: set[str] = set()
        """Methods whose next request is done, and not answered."""
        self._lock = threading.Lock()
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                asked = Asked(
                    self.command, self.path, cast("Mapping[str, str]", self.headers), self.rfile.read(length)
                )
                try:
                    says = web.handle(asked)
                except Cut:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                body = b"" if says.body is None else says.body
                kind = "text/html"
                if not isinstance(body, bytes):
                    body, kind = json.dumps(body).encode(), "application/json; charset=utf-8"
                self.send_response_only(says.status)  # no date: the test says what the time is
                for name, value in {"Content-Type": kind, **says.headers}.items():
                    self.send_header(name, value)
                if says.status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(b"" if says.status == 204 else body)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - names of http.server

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[Any, Any]:
                connection, address = super().get_request()
                return (tls.wrap_socket(connection, server_side=True) if tls else connection), address

            def handle_error(self, *_: Any) -> None:
                """A client that hangs up is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def handle(self, asked: Asked) -> Says:
        with self._lock:
            self.seen.append(asked)
            for fault in list(self.faults):
                if (says := fault(asked)) is not None:
                    self.faults.remove(fault)
                    return says
            says = self.answer(asked)
            if asked.method in self.lost:
                self.lost.discard(asked.method)
                raise Cut
            return says

    def once(self, method: str, says: Says) -> None:
        """The next request of this method is answered so."""
        self.faults.append(lambda asked: says if asked.method == method else None)

    @property
    def asked(self) -> list[str]:
        """Methods and paths so far."""
        return [str(one) for one in self.seen]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
