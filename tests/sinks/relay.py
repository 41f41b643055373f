"""Something between the sink and the server that can lose answers and give others in their place."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.sinks.bao import Bao


@dataclass
class Relay:
    """Forwards every request; a rule may say otherwise."""

    bao: Bao
    address: str = ""
    rule: Callable[[str, str], tuple[int, Mapping[str, str], bytes] | str] = lambda _method, _path: ""
    """What happens to a request: an answer, `lose` (it is done, and nobody hears of it), or empty: forward."""
    seen: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.seen.append(f"{handler.command} {handler.path}")
        self.headers.append(dict(handler.headers))
        decided = self.rule(handler.command, handler.path)
        if isinstance(decided, tuple):
            status, headers, content = decided
        else:
            sent = {name: text for name, text in handler.headers.items() if name.startswith("X-Vault-")}
            real = requests.request(
                handler.command,
                self.bao.address + handler.path,
                data=body,
                headers=sent,
                verify=self.bao.ca_file,
                timeout=30,
            )
            if decided == "lose":
                handler.close_connection = True
                return
            status, headers, content = real.status_code, {"Content-Type": "application/json"}, real.content
        handler.send_response(status)
        for name, text in {"Set-Cookie": "tracked=1", **headers, "Content-Length": str(len(content))}.items():
            handler.send_header(name, text)
        handler.end_headers()
        handler.wfile.write(content)


@contextlib.contextmanager
def relayed(bao: Bao) -> Iterator[Relay]:
    """A relay to a server while the block runs."""
    relay = Relay(bao)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            relay.answer(self)

        def do_POST(self) -> None:
            relay.answer(self)

        def do_PUT(self) -> None:
            relay.answer(self)

        def log_message(self, *_parts: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        relay.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield relay
        finally:
            server.shutdown()
            thread.join()
