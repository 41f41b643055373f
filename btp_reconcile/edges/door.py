"""One service in one scope, signed in: what drivers are handed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from btp_reconcile.core.errors import Blame, LostResponse, PlatformError
from btp_reconcile.core.kind import Answer, Query
from btp_reconcile.core.model import Json, Secret
from btp_reconcile.edges import hosts
from btp_reconcile.edges.answers import NotJson, Reply, parsed
from btp_reconcile.edges.calls import Call
from btp_reconcile.edges.tokens import claims

if TYPE_CHECKING:
    from btp_reconcile.edges.calls import Bearer
    from btp_reconcile.edges.client import Client

LONGEST_LINE = 8000
"""Bytes of a request line. Services refuse longer ones somewhere above 8,192, each in its own way."""
_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
MOST_PAGES = 5_000
"""Pages of one list. A list of 100,000 has 500 at the smallest size that is asked for."""
IDLE_PAGES = 3
"""So many pages in a row with nothing new in them are no list any more. One may be, when something was added meanwhile."""
WRITES = ("POST", "PUT", "PATCH", "DELETE")


def _alone(service: str) -> ServiceDoor:
    raise ValueError(f"these credentials open no {service}")


@dataclass(frozen=True, eq=False)
class ServiceDoor:
    """A `core.kind.Door`. The same object serves every thread."""

    service: str
    scope: str
    endpoint: str
    user: str
    bearer: Bearer
    client: Client
    others: Callable[[str], ServiceDoor] = _alone
    """Another service → the door that the same credentials open."""

    def get(self, path: str, query: Query = ()) -> Any:
        return self._read(self._url("GET", path, query))

    def read(self, path: str, query: Query = ()) -> Answer:
        call = self._call("GET", self._url("GET", path, query))
        reply = self.client.exchange(call)
        return Answer(reply.status, reply.headers, self.client.json_of(call, reply))

    def pages(self, path: str, query: Query = ()) -> Iterator[Any]:
        paging = _PAGING.get(self.service)
        if paging is None:
            yield self.get(path, query)
        else:
            yield from paging(self, path, query)

    def send(self, method: str, path: str, body: Json = None, query: Query = (), match: str = "") -> Answer:
        if method not in WRITES:
            raise ValueError(f"{method} is no write; one of {', '.join(WRITES)} is")
        secrets: list[str] = []
        data = None
        if body is not None:
            plain = _revealed(body, secrets)
            data = json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        headers |= {"If-Match": match} if match else {}
        call = self._call(method, self._url(method, path, query), headers, data, tuple(secrets))
        reply = self.client.exchange(call)
        return Answer(reply.status, reply.headers, self._written(call, reply))

    def sibling(self, service: str) -> ServiceDoor:
        return self.others(service)

    def tenant(self) -> str:
        said = claims(self.bearer.get()).get("zid")
        return said if isinstance(said, str) and _GUID.fullmatch(said) else ""

    def now(self) -> float:
        return self.client.now(self.endpoint)

    def _read(self, url: str) -> Any:
        call = self._call("GET", url)
        return self.client.json_of(call, self.client.exchange(call))

    def _call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        secrets: tuple[str, ...] = (),
    ) -> Call:
        return Call(
            self.service,
            method,
            url,
            user=self.user,
            headers=headers or {},
            body=body,
            bearer=self.bearer,
            secrets=secrets,
        )

    def _written(self, call: Call, reply: Reply) -> Json:
        """The body of a good answer to a write. A 202 or 204 needs none, and some services answer it with a bare text."""
        if not reply.body:
            return None
        try:
            data = parsed(reply)
        except NotJson:
            if reply.status in {202, 204} and "html" not in reply.headers.get("Content-Type", "").lower():
                return None
        else:
            if isinstance(data, (dict, list)) or data is None or reply.status in {202, 204}:
                return data
        try:
            return self.client.json_of(call, reply)
        except PlatformError as error:
            found = error.blame
        # It was sent and something answered that nobody understands: a creation may have happened.
        raise LostResponse(found) if call.method == "POST" else PlatformError(found)

    def _url(self, method: str, path: str, query: Query) -> str:
        if not path.startswith("/"):
            url = self._same(path)
        elif (
            any(sign in path for sign in "\\#") or not path.isascii() or not path.isprintable() or " " in path
        ):
            raise ValueError(f"{path!r} is no path: its parts must be percent-encoded")
        else:
            url = self.endpoint + path
            self.client.check(self.service, url, method)
        if query:
            url += ("&" if "?" in url else "?") + urlencode(list(query), quote_via=quote, safe="")
        parts = urlsplit(url)
        target = parts.path + ("?" + parts.query if parts.query else "")
        size = len(f"{method} {target} HTTP/1.1")
        if size > LONGEST_LINE:
            raise ValueError(
                f"a request line of {size:,} bytes for {hosts.shown(url)}: ask in smaller batches, {LONGEST_LINE:,} is the limit"
            )
        return url

    def _same(self, url: str) -> str:
        """An address that the service named itself; it must lead to where the service is."""
        self.client.check(self.service, url, "GET")
        if hosts.place(url) != hosts.place(self.endpoint):
            raise self._unclear(url, f"the service at {self.endpoint} names a link to another host")
        return url

    def _unclear(self, url: str, message: str) -> PlatformError:
        return PlatformError(Blame(self.service, "GET", hosts.shown(url), message=message))

    # --- paging ------------------------------------------------------------------------------------------

    def _linked(self, path: str, query: Query) -> Iterator[Any]:
        """Cloud Controller: each page links to the next one."""
        url: str | None = self._url("GET", path, _with(query, "per_page", "5000"))
        seen = _Seen()
        while url is not None:
            page = self._read(url)
            self._must_list(url, page, "resources")
            here, url = url, self._next(url, page.get("pagination"))
            yield page
            if url is not None and not seen.goes_on(here, page["resources"], url):
                raise self._unclear(url, "its pages lead in a circle")

    def _next(self, url: str, pagination: Any) -> str | None:
        if isinstance(pagination, dict):
            link = pagination.get("next")
            if link is None:
                return None
            if isinstance(link, dict) and isinstance(link.get("href"), str):
                return self._same(link["href"])
        raise self._unclear(url, "a list came without usable pagination")

    def _by_token(self, path: str, query: Query) -> Iterator[Any]:
        """Service Manager: each page names a token for the next one."""
        first = _with(query, "max_items", "200")
        url = self._url("GET", path, first)
        seen = _Seen()
        token: Any = ""
        while True:
            page = self._read(url)
            if isinstance(page, dict) and page.get("items") is None and "num_items" in page:
                page["items"] = []  # an empty list of Go's may be written as null
            self._must_list(url, page, "items")
            yield page
            here, token = token, page.get("token")
            if token is None or token == "":
                return
            if not isinstance(token, str) or not seen.goes_on(here, page["items"], token):
                raise self._unclear(url, "its pages lead in a circle")
            try:
                url = self._url("GET", path, [*first, ("token", token)])
            except ValueError:
                raise self._unclear(url, "it names a next page that cannot be asked for") from None

    def _must_list(self, url: str, page: Any, name: str) -> None:
        rows = page.get(name) if isinstance(page, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._unclear(url, f"a list came without usable {name!r}")


class _Seen:
    """What the pages of one list held, so that a list without an end is noticed, whatever its links say."""

    def __init__(self) -> None:
        self._places: set[str] = set()
        self._rows: set[str] = set()
        self._idle = 0

    def goes_on(self, here: str, rows: Sequence[Mapping[str, Any]], after: str) -> bool:
        """May the page after this one be asked for?"""
        before = len(self._rows)
        self._rows.update(str(row.get("guid") or row.get("id") or row) for row in rows)
        self._idle = 0 if len(self._rows) > before else self._idle + 1
        self._places.add(here)
        return after not in self._places and self._idle < IDLE_PAGES and len(self._places) < MOST_PAGES


_PAGING: Mapping[str, Callable[[ServiceDoor, str, Query], Iterator[Any]]] = {
    "cloud_foundry": ServiceDoor._linked,  # noqa: SLF001 - the table of this class's own ways
    "service_manager": ServiceDoor._by_token,  # noqa: SLF001 - the same
}


def _with(query: Query, name: str, value: str) -> Sequence[tuple[str, str]]:
    return list(query) if any(key == name for key, _ in query) else [*query, (name, value)]


def _revealed(value: Json, secrets: list[str]) -> Any:
    """The body as it is sent. The secrets in it are noted, so that no answer can bring them back."""
    if isinstance(value, Secret):
        secrets.append(value.reveal())
        return value.reveal()
    if isinstance(value, Mapping):
        return {str(key): _revealed(item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_revealed(item, secrets) for item in value]
    return value
