"""What a service's answer means: its JSON, or the blame. After this nobody reads message texts.

Five families of error bodies are known: Cloud Controller, the CIS services (wrapped and not), Service Manager, UAA, and the
gateways in front of them, which answer with HTML, with text, or with nothing. A body that is none of these is described
and never quoted, because nobody knows what stands in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NoReturn

from btp_reconcile.core.errors import Blame
from btp_reconcile.core.said import asked_wait, line, scrubbed
from btp_reconcile.edges.hosts import shown


@dataclass(frozen=True)
class Reply:
    """One answer as it came. `headers` finds a name in any spelling."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    attempts: int = 1
    """How often the request was sent before it came."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What was sent in confidence with the request, its token too, and must not come back in a message."""

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def described(self) -> str:
        """What the body is, without a word of it."""
        if not self.body:
            return "an empty answer"
        kind = line(self.headers.get("Content-Type", "").partition(";")[0], 60) or "no content type"
        return f"an answer that is not the JSON expected ({kind}, {len(self.body):,} bytes)"


class NotJson(ValueError):
    """The body is no JSON. Its text describes the body."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""JSON can write one half of a character, which nothing can send, hash or print."""


def whole(data: Any) -> Any:
    """The same data, with a question mark in place of every half of a character."""
    return json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))


def parsed(reply: Reply) -> Any:
    """The JSON of a body, whatever its content type says. Raises NotJson."""
    try:
        text = reply.body.decode(json.detect_encoding(reply.body))
        data = json.loads(text, parse_constant=_refuse_constant)
        return whole(data) if _HALF.search(text) else data
    except (ValueError, RecursionError):
        pass
    kind = line(reply.headers.get("Content-Type", "").partition(";")[0], 60) or "no content type"
    if not reply.body:
        raise NotJson("an empty answer")
    broken = "broken JSON" if reply.body.lstrip()[:1] in {b"{", b"["} else "not JSON"
    raise NotJson(f"an answer that is {broken} ({kind}, {len(reply.body):,} bytes)")


# --- blame ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Said:
    code: str = ""
    message: str = ""
    correlation: str = ""
    broker_status: int | None = None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def _cloud_foundry(items: list[Any]) -> _Said | None:
    rows = [item for item in items if isinstance(item, Mapping)]
    if not rows:
        return None
    code = _text(rows[0].get("title")) or _text(rows[0].get("code"))
    return _Said(code, _joined(_text(row.get("detail")) or _text(row.get("title")) for row in rows))


def _cis(error: Mapping[str, Any]) -> _Said:
    details = error.get("details")
    rows = [row for row in details if isinstance(row, Mapping)] if isinstance(details, list) else []
    message = _text(error.get("message")) or _text(error.get("description"))
    return _Said(
        _text(error.get("code")),
        _joined([message, *(_text(row.get("message")) for row in rows)]),
        _text(error.get("correlationID")),
    )


def _flat(data: Mapping[str, Any]) -> _Said:
    """Service Manager, UAA, and the frameworks below them: a word and a sentence."""
    said = next(
        (text for name in ("description", "error_description", "message") if (text := _text(data.get(name)))),
        "",
    )
    broker = data.get("broker_error")
    fields = {str(key).lower(): value for key, value in broker.items()} if isinstance(broker, Mapping) else {}
    status = fields.get("statuscode")
    cause = _text(fields.get("description"))
    return _Said(
        _text(data.get("error")),
        _joined([said, "" if cause in said else cause]),
        _text(data.get("correlationID")),
        status if isinstance(status, int) and not isinstance(status, bool) else None,
    )


def _said(data: Any) -> _Said | None:
    if not isinstance(data, Mapping):
        return None
    if isinstance(data.get("ErrorMessage"), str):
        return _Said("", data["ErrorMessage"])  # the Destination service
    if isinstance(data.get("errors"), list):
        return _cloud_foundry(data["errors"])
    error = data.get("error")
    if isinstance(error, Mapping):
        return _cis(error)
    if isinstance(error, str):
        return _flat(data)
    if "code" in data or "message" in data:
        return _cis(data)
    return _flat(data) if "description" in data or "broker_error" in data else None


def _repeatable(method: str, reply: Reply, said: _Said, *, safe: bool) -> bool:
    """May the same request simply be sent again?

    A POST that was answered with 500, 502 or 504 may have done its work. With 503 it is sent again only when the service
    itself says when. A broker's own refusal, which Service Manager wraps in a 502, stays what it is.
    """
    status = reply.status
    if status == 429 or (status == 400 and said.code == "30004"):  # 30004: another change holds the lock
        return True
    broker = said.broker_status
    if broker is not None and broker < 500 and broker not in {408, 429}:
        return False
    if status == 408:
        return safe
    if status == 503:
        return safe or method != "POST" or "Retry-After" in reply.headers
    return status in {500, 502, 504} and (safe or method != "POST")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"


def _message(reply: Reply, said: _Said | None) -> str:
    if 300 <= reply.status < 400:
        target = shown(reply.headers.get("Location", "")) or "nowhere"
        return (
            f"a redirect to {target}, which is not followed: credentials go only where they were meant to go"
        )
    if said is not None and (said.message or said.code):
        return said.message or said.code
    try:
        parsed(reply)
        return f"{_phrase(reply.status)}, with {reply.described}"
    except NotJson as error:
        return f"{_phrase(reply.status)}, with {error}"


def understood(reply: Reply) -> bool:
    """Did the service itself answer, and not a gateway in front of it?"""
    try:
        return _said(parsed(reply)) is not None
    except NotJson:
        return False


def blame(
    reply: Reply,
    *,
    service: str,
    method: str,
    url: str,
    now: float,
    safe: bool = False,
    secrets: Iterable[str] = (),
) -> Blame:
    """What a bad answer says. `safe` is for requests that change nothing although they are POSTs."""
    try:
        said = _said(parsed(reply))
    except NotJson:
        said = None
    found = said or _Said()
    status, code, message = reply.status, found.code, _message(reply, said)
    if status == 404 and reply.headers.get("X-Cf-RouterError", "").strip().lower() == "unknown_route":
        # The router, not the service, says so: the service is away, and nothing can be concluded about the thing.
        reply = Reply(503, reply.headers, reply.body)
        status, code = 503, "unknown_route"
        message = "the platform's router knows no route to the service at the moment"
    secrets = tuple(secrets)
    correlation = (
        reply.headers.get("X-CorrelationID")
        or reply.headers.get("X-Correlation-ID")
        or found.correlation
        or reply.headers.get("X-Vcap-Request-Id")
        or ""
    )
    return Blame(
        service=service,
        method=method,
        url=shown(url),
        status=status,
        code=line(scrubbed(code, secrets), 100),
        message=line(scrubbed(message, secrets)),
        correlation=line(scrubbed(correlation, secrets), 255),
        repeatable=_repeatable(method, reply, found, safe=safe),
        wait=asked_wait(reply.headers, status, now),
    )
