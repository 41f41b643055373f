"""What others say, made fit to be shown: texts without secrets, and the seconds they ask us to wait."""

from __future__ import annotations

import base64
import html
import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LONGEST_MESSAGE = 2000

# --- texts ----------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"\beyJ[\w-]{4,}\.[\w-]+\.[\w-]*"  # a JWT
    r"|\b[0-9a-f]{32}-r\b"  # an opaque refresh token of a UAA
    r"|-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|$)",
    re.DOTALL,
)
_PERCENT = re.compile("%..")
_URL_SAFE = str.maketrans("+/", "-_")


def line(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """A text as one printable line of bounded length: no control characters, no half characters."""
    clean = text.encode("utf-8", "replace").decode("utf-8", "replace")
    clean = " ".join("".join(sign if sign.isprintable() else " " for sign in clean).split())
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


RUN = 12
"""So many characters of a secret in a row give it away, whatever stands around them."""
LONGEST_SCRUBBED = 5 * LONGEST_MESSAGE
"""What a text has beyond this is shown nowhere."""


class Confidential:
    """Texts that must not be shown, and what is shown in their place."""

    def __init__(self, shown: Mapping[str, str] | None = None, shortest: int = 4) -> None:
        self._shown = {text: name for text, name in (shown or {}).items() if len(text) >= shortest}
        self._short: tuple[tuple[str, str], ...] | None = None
        self._runs: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._shown)

    def __repr__(self) -> str:
        return f"<{len(self._shown)} texts that must not be shown>"

    def without(self, text: str) -> str:
        """The text without them: plain, escaped, encoded, or any run of them."""
        if not self._shown:
            return text
        if self._short is None:
            self._prepare()
        text = self._without_runs(text)
        for form, name in self._short or ():
            text = text.replace(form, name)
        return text

    def _prepare(self) -> None:
        forms = {form: name for text, name in self._shown.items() for form in _forms(text)}
        for form, name in forms.items():
            for start in range(len(form) - RUN + 1):
                self._runs.setdefault(form[start : start + RUN], name)
        short = [(form, name) for form, name in forms.items() if 4 <= len(form) < RUN]
        self._short = tuple(sorted(short, key=lambda item: -len(item[0])))

    def _without_runs(self, text: str) -> str:
        """A part of a secret is as good as the whole: answers are cut, and cut others' texts."""
        parts: list[str] = []
        kept = start = 0
        while start <= len(text) - RUN:
            name = self._runs.get(text[start : start + RUN])
            if name is None:
                start += 1
                continue
            end = start + RUN
            while end < len(text) and text[end - RUN + 1 : end + 1] in self._runs:
                end += 1
            found = text[start:end]
            left, right = len(found) - len(found.lstrip()), len(found) - len(found.rstrip())
            parts += [text[kept : start + left], name]
            kept, start = end - right, end
        return "".join([*parts, text[kept:]])


def _forms(secret: str) -> Iterator[str]:
    """A secret as a service may repeat it."""
    inner = {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        " ".join(secret.split()),
        "".join(secret.split()),
    }
    for text in inner - {""}:
        raw = text.encode("utf-8", "replace")
        yield text
        yield json.dumps(text)[1:-1]
        yield json.dumps(json.dumps(text)[1:-1])[1:-1]
        yield repr(text)[1:-1]
        yield html.escape(text)
        for percent in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
            yield percent
            yield _PERCENT.sub(lambda found: found[0].lower(), percent)
        yield raw.hex()
        yield raw.hex().upper()
        yield base64.b64encode(raw).decode()
        for offset in range(3):
            # In the middle of something else: the signs at its ends belong to the neighbours, too.
            coded = base64.b64encode(bytes(offset) + raw).decode().rstrip("=")
            coded = coded[(offset * 4 + 2) // 3 : len(coded) - int((offset + len(raw)) % 3 > 0)]
            if len(coded) >= 8:
                yield coded
                yield coded.translate(_URL_SAFE)


def scrubbed(text: str, secrets: Iterable[str] = ()) -> str:
    """A text of the platform's without what we sent it in confidence, and without anything that looks like a token."""
    return _TOKEN.sub("***", Confidential(dict.fromkeys(secrets, "***")).without(text[:LONGEST_SCRUBBED]))


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
