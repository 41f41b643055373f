"""The same on a real wire: what `requests` really raises when a connection breaks, and what an answer really weighs."""

import contextlib
import gzip
import socket
import threading
from typing import Any

import pytest

from btp_reconcile.core.errors import LostResponse, PlatformError, Unreachable
from btp_reconcile.edges.client import Client
from btp_reconcile.edges.clock import MovingClock
from btp_reconcile.edges.door import ServiceDoor
from tests.edges.wire import Tokens

GOOD = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{"ok":"y"}'


class Server:
    """Reads a request on each connection, then sends the next bytes and hangs up."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.seen: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self.answers:
            with contextlib.suppress(OSError):
                connection, _ = self._socket.accept()
                with connection:
                    self.seen.append(connection.recv(65536))
                    answer = self.answers.pop(0)
                    if answer == b"WAIT":
                        threading.Event().wait(1.0)
                    else:
                        connection.sendall(answer)
        self._socket.close()

    def close(self) -> None:
        self.answers.clear()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self._thread.join(5)
        self._socket.close()


@pytest.fixture
def wired():
    made: list[Any] = []

    def make(*answers: bytes, read: float = 5.0):
        server = Server(*answers)
        client = Client(clock=MovingClock(), events=lambda *_: None, timeout=(5.0, read))
        made.extend([client, server])
        url = f"http://127.0.0.1:{server.port}"
        return ServiceDoor("cloud_foundry", url, url, "dev", Tokens("t"), client), server

    yield make
    for one in made:
        one.close()


def test_an_answer_arrives(wired):
    door, server = wired(GOOD)

    assert door.get("/v3/x") == {"ok": "y"}
    assert b"GET /v3/x HTTP/1.1" in server.seen[0]
    assert b"Authorization: Bearer t" in server.seen[0]


def test_a_packed_answer_is_unpacked(wired):
    body = gzip.compress(b'{"ok":"y"}')
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    door, _ = wired(head.encode() + body)

    assert door.get("/v3/x") == {"ok": "y"}


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\nConnection: close\r\n\r\nxyz",
    ],
)
def test_a_broken_answer_is_asked_for_again_unless_it_was_a_creation(wired, broken):
    door, server = wired(broken, GOOD, broken)

    assert door.get("/v3/x") == {"ok": "y"}
    with pytest.raises(LostResponse):
        door.send("POST", "/v3/x", {})
    assert len(server.seen) == 3


def test_no_answer_in_time(wired):
    door, _ = wired(b"WAIT", read=0.05)

    with pytest.raises(LostResponse, match=r"no answer within 0\.05 s"):
        door.send("POST", "/v3/x", {})


def test_nobody_listens(wired):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    door, _ = wired()
    closed = ServiceDoor("cloud_foundry", "x", f"http://127.0.0.1:{port}", "dev", Tokens("t"), door.client)

    with pytest.raises(Unreachable, match="no connection"):
        closed.send("POST", "/v3/x", {})
    assert door.client.requests_made == 6


def test_plain_text_on_a_port_for_tls(wired):
    door, server = wired(*[b"HTTP/1.0 400 Bad Request\r\n\r\n"] * 6)
    secure = ServiceDoor(
        "cloud_foundry", "x", f"https://127.0.0.1:{server.port}", "dev", Tokens("t"), door.client
    )

    with pytest.raises(PlatformError):
        secure.get("/v3/x")
