"""A small HTTP listener for who watches this program: GET only, one thread, and a limit to everything.

One event loop serves all connections, so a client costs no thread. Each has a few seconds to ask and to take its answer,
however slowly it sends; when there are too many, the one that has waited longest without asking makes room. (The
server of the standard library starts a thread for each client, and its time-out begins anew with every byte.)
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 128
"""Connections at once."""
LONGEST = 8192
"""Bytes of a request's head."""
TO_ASK = 5.0
"""Seconds from the connection to the end of the question."""
TO_TAKE = 30.0
"""Seconds for taking the answer. That of a large landscape is some megabytes."""
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_LINE = re.compile(rb"([A-Z]{1,20}) (/[!-~]*) HTTP/1\.[01]\r?\n")


@dataclass(frozen=True)
class Page:
    """What is answered."""

    status: int
    text: str
    type: str = "text/plain; charset=utf-8"


def place(text: str) -> tuple[str, int]:
    """`127.0.0.1:9464`, `:9464`, `9464`, `[::1]:9464` → address and port. Raises ValueError, with words."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else ""
    host = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{host} is no IP address") from None
    if re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) is None or int(port) > 65535:
        raise ValueError(f"{port or 'nothing'} is no port")
    return host, int(port)


class Listener:
    """Has its address from `open` on, which raises OSError when it cannot be had; answers from entering to leaving."""

    def __init__(self, host: str, port: int, answer: Callable[[str], Page]) -> None:
        self.answer = answer
        self.loop: asyncio.AbstractEventLoop
        self.connections: dict[_Connection, None] = {}
        """In the order in which they came."""
        self._where = (host, port)
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()
        self._empty = asyncio.Event()

    def open(self) -> None:
        """Take the address."""
        family = socket.AF_INET6 if ":" in self._where[0] else socket.AF_INET
        self._socket = socket.create_server(self._where, family=family, backlog=MOST)

    def __enter__(self) -> Self:
        if self._socket is None:
            self.open()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(self._socket,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()

    @property
    def address(self) -> str:
        """Where it listens, with the port that it was given."""
        host = f"[{self._where[0]}]" if ":" in self._where[0] else self._where[0]
        port = self._where[1] if self._socket is None else self._socket.getsockname()[1]
        return f"{host}:{port}"

    def _serve(self, listening: socket.socket) -> None:
        # What asyncio has to say about clients that go away helps nobody.
        self.loop.set_exception_handler(lambda *_: None)
        with contextlib.closing(listening), contextlib.closing(self.loop):
            self.loop.run_until_complete(self._until_ended(listening))

    async def _until_ended(self, listening: socket.socket) -> None:
        server = await self.loop.create_server(lambda: _Connection(self), sock=listening)
        await self._ended.wait()
        server.close()
        for one in list(self.connections):
            one.drop()
        if self.connections:
            await self._empty.wait()

    def admit(self, connection: _Connection) -> None:
        """Take note of one more; when there are too many, one makes room."""
        if len(self.connections) >= MOST:
            idle = next((one for one in self.connections if not one.answered), None)
            (idle or connection).drop()
        self.connections[connection] = None

    def forget(self, connection: _Connection) -> None:
        """One is gone."""
        self.connections.pop(connection, None)
        if self._ended.is_set() and not self.connections:
            self._empty.set()


class _Connection(asyncio.Protocol):
    """One question, one answer."""

    def __init__(self, listener: Listener) -> None:
        self.answered = False
        self._listener = listener
        self._got = bytearray()
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._deadline = self._listener.loop.call_later(TO_ASK, self.drop)
        self._listener.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._deadline is not None:
            self._deadline.cancel()
        self._listener.forget(self)

    def data_received(self, data: bytes) -> None:
        if self.answered:
            return
        self._got += data
        if b"\r\n\r\n" in self._got or b"\n\n" in self._got:
            self._say(self._page(bytes(self._got)))
        elif len(self._got) > LONGEST:
            self._say(Page(431, "the head of the request is too long\n"))

    def eof_received(self) -> bool:
        return self.answered  # who has asked may still take the answer

    def drop(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _page(self, head: bytes) -> Page:
        match = _LINE.match(head)
        if match is None or len(head) > LONGEST:
            return Page(400, "this is no request of HTTP/1.1\n")
        if match[1] != b"GET":
            return Page(405, "GET is all there is\n")
        try:
            return self._listener.answer(match[2].decode("ascii").partition("?")[0])
        except Exception as error:  # noqa: BLE001 - who asks gets an answer; what went wrong is a defect, and said as one
            return Page(500, f"this is a defect of reconcile: {type(error).__name__}\n")

    def _say(self, page: Page) -> None:
        if self._transport is None or self._deadline is None:
            return
        self.answered = True
        self._got.clear()
        body = page.text.encode("utf-8", "replace")
        fields: dict[str, Any] = {
            "Content-Type": page.type,
            "Content-Length": len(body),
            "Cache-Control": "no-store",
            "Connection": "close",
            "X-Content-Type-Options": "nosniff",
            **({"Allow": "GET"} if page.status == 405 else {}),
        }
        lines = [f"HTTP/1.1 {page.status} {REASONS[page.status]}", *(f"{k}: {v}" for k, v in fields.items())]
        self._transport.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
        self._deadline.cancel()
        self._deadline = self._listener.loop.call_later(TO_TAKE, self.drop)
        self._transport.close()
