"""Requests, answers and the table that leads from one to the other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from btp_reconcile.sandbox.world import World

REQUEST_LINE_LIMIT = 8192
_ADDRESS = re.compile(r"https://([a-z0-9.-]+\.ondemand\.com)((?:[/?].*)?)")


class Headers(Mapping[str, str]):
    """Header fields, found by any spelling of their names."""

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        self._fields = {name.lower(): (name, value) for name, value in (fields or {}).items()}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._fields.values())

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


def https(host: str, path: str) -> str:
    """The address of a path as the platform itself publishes it."""
    return f"https://{host}{path}"


@dataclass(frozen=True)
class Request:
    """One request, addressed to a virtual host of the platform."""

    method: str
    host: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    raw_target: str = ""
    headers: Mapping[str, str] = field(default_factory=Headers)
    body: bytes = b""
    url: Callable[[str, str], str] = https
    client_certificate: bytes | None = None
    place: Mapping[str, str] = field(default_factory=dict)  # what the router read from the host's name
    at_once: int = 1  # how many requests of the same party are on their way, this one included

    @staticmethod
    def of(
        method: str,
        host: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        url: Callable[[str, str], str] = https,
        client_certificate: bytes | None = None,
    ) -> Request:
        """A request from what stands on the wire: ``target`` is the path and query as sent."""
        path, _, query = target.partition("#")[0].partition("?")
        return Request(
            method=method.upper(),
            host=host.lower(),
            path=unquote(path) or "/",
            query=tuple(parse_qsl(query, keep_blank_values=True)),
            raw_target=target,
            headers=headers if isinstance(headers, Headers) else Headers(headers),
            body=body,
            url=url,
            client_certificate=client_certificate,
        )

    def json(self) -> Any:
        """The body as JSON; raises ``ValueError`` when it is none."""
        return json.loads(self.body)

    def form(self) -> dict[str, str]:
        """The fields of a form body, each decoded once."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def one(self, name: str) -> str | None:
        """The last value of a query parameter."""
        found = [value for key, value in self.query if key == name]
        return found[-1] if found else None

    def all(self, name: str) -> list[str]:
        """Every value of a query parameter, in order."""
        return [value for key, value in self.query if key == name]


@dataclass(frozen=True)
class Response:
    """One answer; ``headers`` keeps repeated fields."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @staticmethod
    def json(data: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
        """JSON without blanks, as the platform's services send it."""
        body = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
        if not any(name.lower() == "content-type" for name, _ in headers):
            headers = (("Content-Type", "application/json"), *headers)
        return Response(status, headers, body)

    @staticmethod
    def empty(status: int, headers: tuple[tuple[str, str], ...] = ()) -> Response:
        """An answer without a body."""
        return Response(status, headers)

    @staticmethod
    def text(
        text: str,
        status: int = 200,
        content_type: str = "text/plain; charset=utf-8",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Response:
        """Plain text, or HTML by another content type."""
        return Response(status, (("Content-Type", content_type), *headers), text.encode())

    def header(self, name: str) -> str | None:
        """The first value of a header field."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def data(self) -> Any:
        """The body read as JSON."""
        return json.loads(self.body)


class Refusal(Exception):
    """A service says no; what it says is the answer to the client."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.status} {response.body.decode(errors='replace')}")
        self.response = response


class Handler(Protocol):
    """What answers a route: the world, the request and what the path's pattern caught."""

    def __call__(self, world: World, request: Request, **caught: str) -> Response: ...


def _compile(pattern: str, *, separator: str) -> re.Pattern[str]:
    parts = []
    for literal, name, rest in re.findall(r"([^{]+)|\{(\w+)(:path)?\}", pattern):
        if literal:
            parts.append(re.escape(literal))
        else:
            parts.append(f"(?P<{name}>.+)" if rest else f"(?P<{name}>[^{separator}]+)")
    return re.compile("".join(parts))


@dataclass
class _Site:
    pattern: re.Pattern[str]
    unknown: Callable[[World, Request], Response]
    fixed: dict[tuple[str, str], Callable[..., Response]] = field(default_factory=dict)
    routes: list[tuple[str, re.Pattern[str], Callable[..., Response]]] = field(default_factory=list)


def no_such_route(world: World, request: Request) -> Response:
    """What the platform's gateway says where nothing listens."""
    del world
    return Response.text(f"404 Not Found: no route for {request.path}\n", 404)


def not_emulated(world: World, request: Request, **caught: str) -> Response:
    """501: the platform has this route, the sandbox has not."""
    del world, caught
    route = f"{request.method} {request.path}"
    return Response.json(
        {
            "error": {
                "code": "NotEmulated",
                "message": f"The sandbox does not emulate {route} on {request.host}.",
                "route": route,
                "host": request.host,
            }
        },
        501,
    )


def relocated(value: Any, url: Callable[[str, str], str]) -> Any:
    """A tree of JSON in which every address of the platform is written as this client must call it."""
    if isinstance(value, str):
        match = _ADDRESS.fullmatch(value)
        return url(match[1], match[2]) if match else value
    if isinstance(value, Mapping):
        return {key: relocated(below, url) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [relocated(below, url) for below in value]
    return value


class Router:
    """Leads a request to its handler by virtual host, method and path.

    ``{name}`` in a host pattern catches one label, in a path one segment, and ``{name:path}`` catches the rest.
    What a host pattern caught is found in ``request.place``; what a path caught is handed over by name.
    """

    def __init__(self) -> None:
        self._sites: dict[str, _Site] = {}

    def host(self, pattern: str, unknown: Callable[[World, Request], Response] = no_such_route) -> None:
        """Makes a virtual host known and says what answers where it has no route."""
        site = self._sites.get(pattern)
        if site is None:
            self._sites[pattern] = _Site(_compile(pattern, separator="."), unknown)
        else:
            site.unknown = unknown

    def add(self, host: str, method: str, path: str, handler: Callable[..., Response]) -> None:
        """One route. ``method`` may be ``*``."""
        if host not in self._sites:
            self.host(host)
        site = self._sites[host]
        if "{" in path or method == "*":
            site.routes.append((method, _compile(path, separator="/"), handler))
        else:
            site.fixed[method, path] = handler

    def lacks(self, host: str, method: str, path: str) -> None:
        """A route that the platform has and the sandbox has not: 501 with its name."""
        self.add(host, method, path, not_emulated)

    def knows(self, host: str) -> bool:
        """Whether a virtual host exists at all."""
        return self._site(host) is not None

    def _site(self, host: str) -> tuple[_Site, dict[str, str]] | None:
        site = self._sites.get(host)
        if site is not None:
            return site, {}
        for site in self._sites.values():
            match = site.pattern.fullmatch(host)
            if match:
                return site, match.groupdict()
        return None

    def answer(self, world: World, request: Request) -> Response:
        """The answer of the route that fits, or of the host when none does."""
        found = self._site(request.host)
        if found is None:
            return no_such_route(world, request)
        site, place = found
        request = replace(request, place=place)
        handler = site.fixed.get((request.method, request.path))
        if handler is not None:
            return handler(world, request)
        for method, pattern, handler in site.routes:
            if method in {request.method, "*"}:
                match = pattern.fullmatch(request.path)
                if match:
                    return handler(world, request, **match.groupdict())
        return site.unknown(world, request)
