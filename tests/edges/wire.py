"""A wire with nobody at the other end but a script: what is sent is kept, what comes back was written by the test."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from btp_reconcile.edges.client import Client
from btp_reconcile.edges.clock import MovingClock
from btp_reconcile.edges.door import ServiceDoor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

API = "https://api.cf.eu10.hana.ondemand.com"
UAA = "https://uaa.cf.eu10.hana.ondemand.com"
SM = "https://service-manager.cfapps.eu10.hana.ondemand.com"


@dataclass(frozen=True)
class Said:
    """One answer. A body that is no text is JSON."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sent:
    """One request as it left."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: str
    certificate: tuple[str, ...]
    timeout: Any
    verify: Any
    proxies: Any

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.url).query))

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body, keep_blank_values=True))


class Wire(BaseAdapter):
    """Plays a script in order, or asks a function for each answer."""

    def __init__(self, script: Sequence[Said | Exception] | Callable[[Sent], Said | Exception]) -> None:
        super().__init__()
        self._answer = script if callable(script) else None
        self._left = [] if callable(script) else list(script)
        self.sent: list[Sent] = []

    def send(
        self, request, stream=False, timeout=None, verify=True, cert=None, proxies=None
    ) -> requests.Response:
        files = () if cert is None else tuple(Path(name).read_text(encoding="utf-8") for name in cert)
        body = request.body or b""
        sent = Sent(
            str(request.method),
            str(request.url),
            request.headers,
            body if isinstance(body, str) else body.decode(),
            files,
            timeout,
            verify,
            proxies,
        )
        self.sent.append(sent)
        answer = self._answer(sent) if self._answer else self._left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return response(answer)

    def close(self) -> None:
        pass


def response(said: Said) -> requests.Response:
    """What `requests` would make of an answer."""
    found = requests.Response()
    found.status_code = said.status
    headers = dict(said.headers)
    body = said.body
    if body is None:
        body = b""
    elif not isinstance(body, (str, bytes)):
        body = json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
    found.headers = CaseInsensitiveDict(headers)
    found.raw = io.BytesIO(body.encode() if isinstance(body, str) else body)
    return found


class Tokens:
    """A bearer that gives out the named tokens, the next one whenever one was dropped."""

    def __init__(self, *texts: str) -> None:
        self._texts = list(texts)
        self.dropped: list[str] = []

    def get(self) -> str:
        return self._texts[0]

    def drop(self, token: str) -> None:
        self.dropped.append(token)
        if len(self._texts) > 1:
            self._texts.remove(token)


class Rig:
    """A client on a scripted wire, its clock and its events."""

    def __init__(self, *script: Any, **options: Any) -> None:
        one = script[0] if script else None
        self.wire = Wire(one if callable(one) else script)
        self.clock = MovingClock()
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.tokens = Tokens("token-1", "token-2")
        self.client = Client(
            adapter=self.wire,
            clock=self.clock,
            events=lambda name, fields: self.events.append((name, fields)),
            **options,
        )

    @property
    def sent(self) -> list[Sent]:
        return self.wire.sent

    def door(self, service: str = "cloud_foundry", endpoint: str = API, user: str = "dev") -> ServiceDoor:
        return ServiceDoor(service, f"{endpoint} as {user}", endpoint, user, self.tokens, self.client)
