"""Platforms, gateways and consumers that repeat what they were sent, in every way that something is repeated."""

from __future__ import annotations

import base64
import html
import json
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from btp_reconcile.sandbox.http import Response
from tests.sinks.servers.web import Asked, Says

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests import PreparedRequest

STATUSES = (400, 401, 403, 404, 409, 412, 415, 422, 429, 500, 502, 503)
PARTS = ("token", "read", "details", "write", "all")


def part(method: str, path: str) -> str:
    """What a request is about."""
    if path.endswith("/oauth/token"):
        return "token"
    if method != "GET":
        return "write"
    return "details" if "/details" in path or "/service_bindings/" in path else "read"


def repeated(rng: random.Random, text: str) -> str:
    """A text in another dress."""
    start = rng.randrange(max(1, len(text) - 400))
    raw = text.encode("utf-8", "replace")
    ways: tuple[Callable[[], str], ...] = (
        lambda: text[:1500],
        lambda: text[start : start + 300],
        lambda: json.dumps(text[start : start + 700]),
        lambda: json.dumps(text[start : start + 700], ensure_ascii=False),
        lambda: quote(text[start : start + 400], safe=""),
        lambda: quote(text[start : start + 400]).lower(),
        lambda: html.escape(text[start : start + 700]),
        lambda: base64.b64encode(raw[start : start + 600]).decode(),
        lambda: base64.urlsafe_b64encode(raw[start : start + 600]).decode(),
        raw[start : start + 500].hex,
        lambda: raw[start : start + 500].hex().upper(),
        lambda: repr(text[start : start + 700]),
        lambda: "".join(text[start : start + 700].split()),
        lambda: json.dumps(json.dumps(text[start : start + 500])),
    )
    return rng.choice(ways)()


def sent(headers: Mapping[str, str], body: str | bytes | None) -> str:
    """What was sent, as the other side reads it."""
    raw = body.encode() if isinstance(body, str) else body or b""
    if "urlencoded" in headers.get("Content-Type", ""):
        raw = unquote_to_bytes(raw.replace(b"+", b" "))
    head = "; ".join(
        f"{name}: {text}" for name, text in headers.items() if name not in {"Accept", "User-Agent"}
    )
    return f"{head} {raw.decode('utf-8', 'replace')}"


BODIES: tuple[Callable[[str], Any], ...] = (
    lambda said: {"errors": [{"title": "CF-Invalid", "code": 10008, "detail": said}]},
    lambda said: {"errors": [{"title": said, "code": 10008}]},
    lambda said: {"error": {"code": 11006, "message": said, "details": [{"message": said[::-1][::-1]}]}},
    lambda said: {"error": "BadRequest", "description": said},
    lambda said: {"error": said, "error_description": "no"},
    lambda said: {"description": "no", "broker_error": {"StatusCode": 422, "Description": said}},
    lambda said: {"ErrorMessage": said},
    lambda said: {"message": said, "correlationID": said},
    lambda said: {"errors": [said]},
    lambda said: {"what": said},
)
"""The families of error bodies, Vault's among them, and none of them."""


def answer(rng: random.Random, text: str) -> Response:
    """A bad answer that repeats a text somewhere."""
    said = repeated(rng, text)
    status = rng.choice(STATUSES)
    one_line = quote(said, safe="!-~ ")[:900]
    how = rng.randrange(10)
    if how == 0:
        page = f"<html><body><h1>Bad Gateway</h1><pre>{said}</pre></body></html>"
        return Response.text(page, rng.choice([status, 200, 404, 502]), "text/html")
    if how == 1:
        place = f"https://login.example/{one_line}?next={one_line}#{one_line}"
        return Response(rng.choice([301, 302, 307]), (("Location", place),), b"")
    if how == 2:
        return Response(rng.choice([status, 200]), (("Content-Type", f"text/{one_line}"),), said.encode())
    if how == 3:
        headers = (("X-CorrelationID", one_line), ("X-Vcap-Request-Id", one_line), ("Retry-After", "1"))
        return Response.json({"error": {"code": "1", "message": "no"}}, status, headers)
    return Response.json(rng.choice(BODIES)(said), status)


def echoing(seed: str, which: str, share: float) -> Callable[[PreparedRequest, Response], Response]:
    """What spoils this share of the answers to such requests."""
    rng = random.Random(seed)

    def changed(request: PreparedRequest, good: Response) -> Response:
        path = str(request.path_url).partition("?")[0]
        if which not in {"all", part(str(request.method), path)} or rng.random() > share:
            return good
        return answer(rng, sent(request.headers, request.body))

    return changed


def consumer(seed: str, share: float, usual: Callable[[Asked], Says]) -> Callable[[Asked], Says]:
    """A consumer that does its work, or repeats what it was sent."""
    rng = random.Random(seed)

    def answered(asked: Asked) -> Says:
        if rng.random() > share:
            return usual(asked)
        bad = answer(rng, sent(asked.headers, asked.body))
        headers = {name: text for name, text in bad.headers if name != "Content-Length"}
        return Says(bad.status, bad.body, headers)

    return answered
