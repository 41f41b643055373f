"""The listener: it answers who asks, and nobody who asks slowly, oddly or in numbers keeps others from being answered."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from btp_reconcile.edges import listener as listening
from btp_reconcile.edges.listener import Listener, Page, place

if TYPE_CHECKING:
    from collections.abc import Iterator


def answer(path: str) -> Page:
    if path == "/broken":
        raise ValueError("a word that is nobody's business")
    if path == "/large":
        return Page(200, "x" * 2_000_000)
    return Page(200, f"you asked for {path}\n") if path.startswith("/metrics") else Page(404, "no\n")


@contextmanager
def served() -> Iterator[int]:
    with Listener("127.0.0.1", 0, answer) as listener:
        yield int(listener.address.rpartition(":")[2])


def asked(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path)
        got = connection.getresponse()
        return got.status, got.read().decode()
    finally:
        connection.close()


def sent(port: int, data: bytes) -> bytes:
    """What comes back for these very bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(data)
        found = b""
        while chunk := line.recv(65536):
            found += chunk
        return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_path_is_answered_without_its_query() -> None:
    with served() as port:
        assert asked(port, "/metrics?x=1") == (200, "you asked for /metrics\n")


@pytest.mark.parametrize("method", ["POST", "HEAD", "DELETE"])
def test_get_is_all_there_is(method: str) -> None:
    with served() as port:
        assert asked(port, "/metrics", method)[0] == 405


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000, 431),
        (b"GET /nothing HTTP/1.0\r\n\r\n", 404),
        (b"GET /metrics HTTP/1.1\n\n", 200),
    ],
)
def test_odd_requests_get_a_status(data: bytes, status: int) -> None:
    with served() as port:
        assert sent(port, data).startswith(b"HTTP/1.1 %d " % status)


def test_a_defect_is_answered_without_its_words() -> None:
    with served() as port:
        assert asked(port, "/broken") == (500, "this is a defect of reconcile: ValueError\n")
        assert asked(port)[0] == 200


def test_a_large_answer_comes_whole() -> None:
    with served() as port:
        assert asked(port, "/large") == (200, "x" * 2_000_000)


def test_sixty_clients_at_once_are_answered_and_leave_nothing_behind() -> None:
    before = (threading.active_count(), descriptors())
    with served() as port:
        threads = threading.active_count()
        with ThreadPoolExecutor(60) as pool:
            found = list(pool.map(lambda n: asked(port, f"/metrics/{n}"), range(600)))

        assert found == [(200, f"you asked for /metrics/{n}\n") for n in range(600)]
        assert threads == before[0] + 1
    assert (threading.active_count(), descriptors()) == before


def test_clients_that_say_nothing_keep_nobody_out() -> None:
    with served() as port, ExitStack() as lines:
        for _ in range(3 * listening.MOST):
            line = lines.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            line.sendall(b"GET /metr")
        assert asked(port) == (200, "you asked for /metrics\n")


def test_who_takes_too_long_to_ask_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time counts from the connection: a byte now and then does not prolong it."""
    monkeypatch.setattr(listening, "TO_ASK", 0.2)
    with served() as port, socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        began = time.monotonic()
        cut = dribbled(line)

    assert cut
    assert time.monotonic() - began < 10


def dribbled(line: socket.socket) -> bool:
    """Send a byte now and then, until the other side has enough."""
    line.settimeout(0.05)
    for _ in range(400):
        try:
            line.sendall(b"G")
            if line.recv(1) == b"":
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


def test_leaving_cuts_off_who_is_still_connected() -> None:
    before = (threading.active_count(), descriptors())
    with ExitStack() as lines:
        with served() as port:
            line = lines.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            line.sendall(b"GET /metr")
            assert asked(port)[0] == 200
        assert threading.active_count() == before[0]
    assert descriptors() == before[1]


def test_an_address_that_is_taken_is_refused_at_once() -> None:
    with served() as port, pytest.raises(OSError, match="Address already in use"):
        Listener("127.0.0.1", port, answer).open()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        (":9464", ("127.0.0.1", 9464)),
        ("9464", ("127.0.0.1", 9464)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_addresses_are_read(text: str, found: tuple[str, int]) -> None:
    assert place(text) == found


@pytest.mark.parametrize("text", ["", "x", "127.0.0.1:", "127.0.0.1:70000", "example.com:80", ":-1", ":٣"])
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        place(text)


def test_json_is_json() -> None:
    page = Page(200, json.dumps({"a": 1}), "application/json")
    with Listener("127.0.0.1", 0, lambda _: page) as listener:
        got = sent(int(listener.address.rpartition(":")[2]), b"GET / HTTP/1.1\r\n\r\n")

    assert b"Content-Type: application/json\r\n" in got
    assert got.endswith(b'\r\n\r\n{"a": 1}')
