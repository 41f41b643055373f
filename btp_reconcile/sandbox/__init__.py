"""SAP BTP in small: a sandbox as strict as the platform, behind two doors.

``Sandbox.handle(request)`` is all of it. ``InProcessAdapter`` leads ``requests`` there without a socket; ``serve`` opens
a port on this machine for people, the ``cf`` CLI and other clients.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btp_reconcile.sandbox import faults as faults_module
from btp_reconcile.sandbox.faults import Faults, Lost
from btp_reconcile.sandbox.http import REQUEST_LINE_LIMIT, Refusal, Request, Response, Router, https
from btp_reconcile.sandbox.world import File, Memory, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import ModuleType

    from btp_reconcile.sandbox.doors import InProcessAdapter, Served, serve

__all__ = [
    "InProcessAdapter",
    "Lost",
    "Refusal",
    "Request",
    "Response",
    "Router",
    "Sandbox",
    "Served",
    "World",
    "serve",
]

# Each may have routes(router), seed(world, document), access(world, url) and snapshot(world), called in this order, and
# party(request): who shares a limit of requests at the same time.
SERVICES = (
    "tokens",
    "accounts",
    "entitlements",
    "cloud_controller",
    "service_manager",
    "destinations",
    "afc_api",
    "api_management_api",
)


def __getattr__(name: str) -> Any:
    if name in {"InProcessAdapter", "Served", "serve"}:
        return getattr(import_module("btp_reconcile.sandbox.doors"), name)
    raise AttributeError(name)


def _services() -> list[ModuleType]:
    return [import_module(f"{__name__}.{name}") for name in SERVICES]


@dataclass(frozen=True)
class Answer:
    """What became of a request: an answer, after some time, or a broken connection."""

    response: Response | None
    delay: float = 0.0
    lost: Lost | None = None
    cut: bool = False  # the connection breaks where the body ends, before its announced length


class Sandbox:
    """One emulated global account with everything in it."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        seed: int = 0,
        time: str = "looks",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        fresh = World.new(seed=seed, time=time, settings=settings)
        self._store: Memory | File = Memory(fresh) if path is None else File(Path(path), fresh)
        self._services = _services()
        self._router = Router()
        self._count_lock = threading.Lock()
        self._under_way: dict[str, int] = {}  # by party; the one thing about a world that no file keeps
        self.count = 0
        self.requests: list[tuple[str, str, str, tuple[tuple[str, str], ...]]] = []
        self.on_request: Callable[[int, Request], None] | None = None
        self.faults = Faults(self.hold)
        for service in self._services:
            if hasattr(service, "routes"):
                service.routes(self._router)
        from btp_reconcile.sandbox import tokens

        with self.hold() as world:
            tokens.prepare(world)

    def hold(self) -> AbstractContextManager[World]:
        """The world for the length of a ``with``; nobody else changes it meanwhile."""
        return self._store.hold()

    def knows(self, host: str) -> bool:
        """Whether a virtual host exists."""
        return self._router.knows(host)

    @property
    def region(self) -> str:
        """The central region, which is also the landscape at the root of the socket."""
        with self.hold() as world:
            return str(world.settings["region"])

    @contextlib.contextmanager
    def under_way(self, request: Request) -> Iterator[Request]:
        """A request from its arrival until its answer is out; it knows how many of its party are on their way then."""
        party = next(
            filter(None, (one.party(request) for one in self._services if hasattr(one, "party"))), None
        )
        if party is None:
            yield request
            return
        with self._count_lock:
            number = self._under_way[party] = self._under_way.get(party, 0) + 1
        try:
            yield replace(request, at_once=number)
        finally:
            with self._count_lock:
                self._under_way[party] -= 1
                if not self._under_way[party]:
                    del self._under_way[party]

    def answer(self, request: Request) -> Answer:
        """What becomes of one request, faults included."""
        with self._count_lock:
            self.count += 1
            count = self.count
            self.requests.append((request.method, request.host, request.path, request.query))
        if self.on_request is not None:
            self.on_request(count, request)
        with self.hold() as world:
            if world.mode == "looks":
                world.advance(1)
            verdict = faults_module.judge(world, request)
            if verdict.refuse:
                return Answer(None, verdict.delay, Lost(done=False))
            response = self._answered(world, request, verdict)
            if world.mode == "looks":
                world.advance(verdict.delay)
        if request.method == "HEAD":
            response = Response(response.status, response.headers)
        lost = verdict.lose or (verdict.cut and not response.body)
        return Answer(response, verdict.delay, Lost(done=True) if lost else None, cut=verdict.cut)

    def handle(self, request: Request) -> Response:
        """The answer to one request; raises ``Lost`` when a fault breaks the connection."""
        with self.under_way(request) as counted:
            answer = self.answer(counted)
        if answer.lost is not None:
            raise answer.lost
        if answer.response is None or answer.cut:
            raise Lost(done=answer.cut)
        return answer.response

    def wsgi(self, base: str) -> Callable[..., list[bytes]]:
        """A WSGI application for another server; ``base`` is the address at which that server is reached."""
        from btp_reconcile.sandbox.doors import wsgi_application

        return wsgi_application(self, base)

    def _answered(self, world: World, request: Request, verdict: faults_module.Verdict) -> Response:
        """The work and its answer, or what faults make of them."""
        response = verdict.response
        if response is None or verdict.after:
            world.bent = verdict.bent
            done = self._work(world, request)
            response = response or done
        return verdict.spoilt(world, response)

    def _work(self, world: World, request: Request) -> Response:
        if len(f"{request.method} {request.raw_target} HTTP/1.1") > REQUEST_LINE_LIMIT:
            page = "<html>\r\n<head><title>414 Request-URI Too Large</title></head>\r\n</html>\r\n"
            return Response.text(page, 414, "text/html")
        try:
            return self._router.answer(world, request)
        except Refusal as refusal:
            return refusal.response

    def seed(self, document: Mapping[str, Any]) -> None:
        """Makes what a document describes exist, as if it had been made through the APIs; may be called again."""
        with self.hold() as world:
            full = _complete(world, document)
            for service in self._services:
                if hasattr(service, "seed"):
                    service.seed(world, full)

    def access(self, url: Callable[[str, str], str] = https) -> dict[str, Any]:
        """Credentials for everything, with addresses as the door makes them."""
        return self._gathered("access", url)

    def snapshot(self) -> dict[str, Any]:
        """What exists, by names, without ids and secrets: for comparing worlds."""
        return self._gathered("snapshot")

    def _gathered(self, what: str, *arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with self.hold() as world:
            for service in self._services:
                if hasattr(service, what):
                    for key, value in getattr(service, what)(world, *arguments).items():
                        if isinstance(value, dict) and isinstance(found.get(key), dict):
                            found[key].update(value)
                        else:
                            found[key] = value
        return found


def _complete(world: World, document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with id, region and subdomain of every subaccount, the same ones each time a name comes up."""
    known = world.table("sandbox.subaccounts")
    full = {**document, "subaccounts": {}}
    for name, wanted in (document.get("subaccounts") or {}).items():
        entry = dict(wanted or {})
        row = known.get(name)
        if row is None:
            guid = entry.get("id") or world.new_id()
            slug = "".join(sign if sign.isalnum() else "-" for sign in name.lower()).strip("-")
            row = known[name] = {
                "id": guid,
                "region": entry.get("region") or world.settings["region"],
                "subdomain": entry.get("subdomain") or f"{slug}-{guid[:8]}",
            }
        full["subaccounts"][name] = {**entry, **row}
    return full
