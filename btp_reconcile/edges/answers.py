"""What a service's answer means: its JSON, or the blame. After this nobody reads message texts.

Five families of error bodies are known: Cloud Controller, the CIS services (wrapped and not), Service Manager, UAA, and the
gateways in front of them, which answer with HTML, with text, or with nothing. A body that is none of these is described
and never quoted, because nobody knows what stands in it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NoReturn
from urllib.parse import quote, quote_plus

from btp_reconcile.core.errors import Blame
from btp_reconcile.edges.hosts import shown

LONGEST_MESSAGE = 2000


@dataclass(frozen=True)
class Reply:
    """One answer as it came. `headers` finds a name in any spelling."""

    status: int
    headers: Mapping[str, str]
    body: bytes

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


# --- texts ----------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"\beyJ[\w-]{4,}\.[\w-]+\.[\w-]*"  # a JWT
    r"|\b[0-9a-f]{32}-r\b"  # an opaque refresh token of a UAA
    r"|-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|$)",
    re.DOTALL,
)


def line(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """A text as one printable line of bounded length: no control characters, no half characters."""
    clean = text.encode("utf-8", "replace").decode("utf-8", "replace")
    clean = " ".join("".join(sign if sign.isprintable() else " " for sign in clean).split())
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def scrubbed(text: str, secrets: Iterable[str] = ()) -> str:
    """A text of the platform's without what we sent it in confidence, and without anything that looks like a token."""
    for secret in sorted({one for one in secrets if len(one) >= 4}, key=len, reverse=True):
        raw = secret.encode("utf-8", "replace")
        for form in (
            secret,
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
            quote(raw, safe=""),
            quote_plus(raw),
            base64.b64encode(raw).decode(),
        ):
            text = text.replace(form, "***")
    return _TOKEN.sub("***", text)


# --- how long to wait -----------------------------------------------------------------------------------

_GO_TIME = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.\d+)? ([+-]\d{4}) \w+(?: m=\S+)?")


def http_date(text: str) -> float | None:
    """Epoch seconds of an HTTP-date; None when it is none."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _moment(text: str) -> float | None:
    go = _GO_TIME.fullmatch(text)
    if go is None:
        return http_date(text)
    try:
        return datetime.strptime(" ".join(go.groups()), "%Y-%m-%d %H:%M:%S %z").timestamp()
    except (ValueError, OverflowError):
        return None


def asked_wait(headers: Mapping[str, str], status: int, now: float) -> float | None:
    """The seconds that the platform asks us to wait, by any of its ways to say so. `now` is the platform's clock.

    `Retry-After` is seconds, an HTTP-date, or a time as Go prints it (Service Manager). `X-RateLimit-Reset` is an
    epoch in seconds (Cloud Controller) or milliseconds (CIS); it stands on good answers too, so it counts only on 429.
    """
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII):
        return float(text)
    moment = _moment(text) if text else None
    if moment is None and status == 429:
        reset = headers.get("X-RateLimit-Reset", "").strip()
        if re.fullmatch(r"\d{10,14}(\.\d{1,6})?", reset, re.ASCII):
            moment = float(reset)
            moment = moment / 1000 if moment > 1e11 else moment
    return None if moment is None else max(0.0, moment - now)


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
