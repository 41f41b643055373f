"""The way to a consumer that is reached by HTTP: one request, one answer, and what a fault means.

Nothing is repeated, no redirect is followed, nothing is kept between requests but connections. Certificates are always
checked. Who repeats, and when, is the engine's business: an error says whether it makes sense, and how long to wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import certifi
import urllib3
from urllib3 import exceptions as faults

from btp_reconcile import __version__
from btp_reconcile.core.errors import Blame, LostResponse, PlatformError, SignInRefused, Unreachable
from btp_reconcile.core.said import asked_wait, http_date, line, scrubbed
from btp_reconcile.sinks._proxy import proxy_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from btp_reconcile.core.sink import Around

CONNECT = 10.0
"""Seconds to wait for a connection."""
LARGEST_ANSWER = 8 * 1024 * 1024
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may do better later."""


@dataclass(frozen=True)
class Answer:
    """One answer as it came. `headers` finds a name in any spelling."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def good(self) -> bool:
        """Did it do what was asked?"""
        return 200 <= self.status < 300

    @property
    def json(self) -> Mapping[str, Any]:
        """The JSON object of the body; an empty one when there is none."""
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(self.body)
            if isinstance(found, dict):
                return found
        return {}


@dataclass(frozen=True)
class Trust:
    """How a consumer is reached, where it is not as usual."""

    context: ssl.SSLContext | None = None
    """Certificates to trust and to show."""
    server_name: str = ""
    """The name its certificate bears, if it is not the host's."""
    proxy: str = ""


class Line:
    """Requests to one base address. Any number of threads."""

    def __init__(self, service: str, base: str, around: Around, trust: Trust | None = None) -> None:
        self.service = service
        self.base = base.rstrip("/")
        self._around = around
        self._trust = trust or Trust()
        self._lock = threading.Lock()
        self._pool: urllib3.PoolManager | None = None

    def _pooled(self) -> urllib3.PoolManager:
        """The connections. Made when the first is needed: until then nothing is read of certificates."""
        with self._lock:
            if self._pool is None:
                self._pool = self._connected()
            return self._pool

    def _connected(self) -> urllib3.PoolManager:
        environment, trust = self._around.environment, self._trust
        context = trust.context
        if context is None and self.base.startswith("https:"):
            context = trusted(environment)
        more: dict[str, Any] = {"ssl_context": context, "maxsize": 8, "retries": False}
        if trust.server_name:
            more |= {"server_hostname": trust.server_name, "assert_hostname": trust.server_name}
        proxy = trust.proxy or proxy_for(self.base, environment)
        if not proxy:
            return urllib3.PoolManager(**more)
        more |= {"proxy_headers": _proxy_headers(proxy), "proxy_ssl_context": trusted(environment)}
        return urllib3.ProxyManager(proxy, **more)

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        repeatable: bool = True,
    ) -> Answer:
        """The answer, whatever it says. `repeatable`: doing it twice is as good as once.

        Raises HostRefused before anything is sent, Unreachable, LostResponse, or PlatformError.
        """
        self._around.check(self.base)
        url = self.base + path
        try:
            response = self._pooled().request(
                method,
                url,
                body=body,
                headers={"User-Agent": f"btp-reconcile/{__version__}", **headers},
                timeout=urllib3.Timeout(
                    connect=min(CONNECT, self._around.timeout), read=self._around.timeout
                ),
                redirect=False,
                retries=False,
                preload_content=False,
            )
            try:
                content = response.read(LARGEST_ANSWER + 1)
            finally:
                response.release_conn()
        except (faults.HTTPError, OSError, ValueError) as error:
            raise self._fault(method, path, error, repeatable=repeatable) from None
        if len(content) > LARGEST_ANSWER:
            response.close()
            words = f"an answer of more than {LARGEST_ANSWER // 1024**2} MB"
            raise PlatformError(self.blame(method, path, words))
        return Answer(response.status, response.headers, content)

    def blame(self, method: str, path: str, message: str, **more: Any) -> Blame:
        """What is to be said of a request that has no answer, or none that could be read."""
        return Blame(self.service, method, (self.base + path).partition("?")[0], message=message, **more)

    def refusal(
        self,
        answer: Answer,
        method: str,
        path: str,
        message: str,
        *,
        code: str = "",
        secrets: Iterable[str] = (),
        repeatable: bool | None = None,
        wait: float | None = None,
    ) -> PlatformError:
        """The error for an answer that is not a good one. `message` may quote the answer: what was sent is taken out."""
        if 300 <= answer.status < 400:
            host = urlsplit(answer.headers.get("Location", "")).hostname or "nowhere"
            message = f"a redirect to {host}, which is not followed: credentials go only where they were meant to go"
        words = line(scrubbed(message, tuple(secrets)), 1000)
        if wait is None:
            date = http_date(answer.headers.get("Date", ""))
            wait = asked_wait(answer.headers, answer.status, self._around.now() if date is None else date)
        found = self.blame(
            method,
            path,
            words,
            status=answer.status,
            code=line(scrubbed(code, tuple(secrets)), 100),
            repeatable=answer.status in PASSING if repeatable is None else repeatable,
            wait=wait,
        )
        return SignInRefused(found) if answer.status == 401 else PlatformError(found)

    def until(self, moment: float, headers: Mapping[str, str]) -> float:
        """Seconds until a moment, by the clock of whoever answered."""
        date = http_date(headers.get("Date", ""))
        return max(0.0, moment - (self._around.now() if date is None else date))

    def close(self) -> None:
        """Let go of every connection."""
        if self._pool is not None:
            self._pool.clear()

    def _fault(self, method: str, path: str, error: Exception, *, repeatable: bool) -> PlatformError:
        sent, passing, words = _diagnosis(error, self._around.timeout)
        found = self.blame(method, path, f"{self.base}: {words}", repeatable=passing)
        if not sent:
            return Unreachable(found)
        if method == "GET":
            return PlatformError(found)
        return LostResponse(self.blame(method, path, found.message, repeatable=passing and repeatable))


def _diagnosis(error: Exception, timeout: float) -> tuple[bool, bool, str]:
    """(may it have been sent, may another attempt help, in words). When in doubt it was sent."""
    if isinstance(error, faults.ProxyError):
        return False, True, "no connection through the proxy"
    cause = error.__cause__ or error.__context__
    for one in (error, cause, *error.args):
        if isinstance(one, ssl.SSLCertVerificationError):
            return False, False, f"its certificate is not trusted ({one.verify_message})"
    if isinstance(error, faults.NameResolutionError):
        return False, True, "the name of the host is not known"
    if isinstance(error, faults.NewConnectionError):
        return False, True, "no connection"
    if isinstance(error, faults.ConnectTimeoutError):
        return False, True, f"no connection within {min(CONNECT, timeout):g} s"
    if isinstance(error, (faults.LocationValueError, ValueError)) and not isinstance(
        error, faults.ProtocolError
    ):
        return False, False, "the request could not be put together: check the address and the credentials"
    if isinstance(error, faults.ReadTimeoutError):
        return True, True, f"no answer within {timeout:g} s"
    return True, True, "the connection broke before the answer was complete"


def trusted(environment: Mapping[str, str]) -> ssl.SSLContext:
    """The certificates that `requests` trusts too: those of `certifi`, or those that the environment names."""
    named = environment.get("REQUESTS_CA_BUNDLE") or environment.get("CURL_CA_BUNDLE") or certifi.where()
    folder = os.path.isdir(named)  # noqa: PTH112 - a question about a text, not a path to be kept
    try:
        return (
            ssl.create_default_context(capath=named) if folder else ssl.create_default_context(cafile=named)
        )
    except OSError as error:
        why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        words = f"the file of trusted certificates {named} cannot be read: {why}"
        raise PlatformError(Blame("certificates", message=words)) from None


def _proxy_headers(proxy: str) -> dict[str, str]:
    """The sign-in at a proxy, if its address holds one."""
    user = urlsplit(proxy).netloc.rpartition("@")[0]
    return dict(urllib3.make_headers(proxy_basic_auth=user)) if user else {}
