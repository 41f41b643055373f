"""Requests: one way out, one retry policy, one limiter, one mapping of faults.

Everything that leaves this program for a platform leaves through `Client.exchange`. Underneath it sends through an
adapter of `requests` and not through a session: a session would keep cookies, follow redirects and put what stands in a
`.netrc` in place of our tokens.
"""

from __future__ import annotations

import contextlib
import errno
import os
import ssl
import tempfile
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from secrets import SystemRandom
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode, urlsplit

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from tenacity import RetryCallState, Retrying, retry_if_exception
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError

from btp_reconcile import __version__
from btp_reconcile.core import limits
from btp_reconcile.core.errors import Blame, LostResponse, PlatformError, TooSoon, Unreachable
from btp_reconcile.core.said import http_date, scrubbed
from btp_reconcile.edges import hosts
from btp_reconcile.edges.answers import NotJson, Reply, blame, parsed, understood
from btp_reconcile.edges.calls import Call
from btp_reconcile.edges.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from btp_reconcile.edges.calls import Form
    from btp_reconcile.edges.clock import Clock

PATIENCE = 300.0
"""Seconds that one request may wait in all, between its attempts. Who is told to wait longer is told so, and ends."""
SHORT = 3.0
"""Seconds that a creation waits for a known limit by itself; a longer wait is for the engine to fill."""
LARGEST_ANSWER = 256 * 1024 * 1024
SIGN_IN = "sign_in"
"""The name under which token requests are counted and blamed."""
SIGN_IN_ATTEMPTS = 3


class _Patience:
    """What is left of the time that one call may wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.left = PATIENCE

    def spend(self, seconds: float) -> None:
        """Wait."""
        self.left -= seconds
        self._clock.sleep(seconds)


class Client:
    """The way out. One per run; any number of threads."""

    def __init__(
        self,
        *,
        clock: Clock,
        events: Callable[[str, Mapping[str, Any]], None],
        allow_hosts: Sequence[str] = (),
        adapter: BaseAdapter | None = None,
        parallel: int = 8,
        timeout: tuple[float, float] = (10.0, 60.0),
        verify: bool | str = True,
        attempts: int = 6,
        compare_clocks: bool = True,
    ) -> None:
        self.clock = clock
        self.events = events
        self.attempts = attempts
        self.allow_hosts = tuple(allow_hosts)
        self.requests_made = 0
        self.counts: Counter[tuple[str, str]] = Counter()
        """Requests sent, by service and method, repeated ones included."""
        self._compare_clocks = compare_clocks
        self._adapter = adapter or HTTPAdapter(pool_connections=32, pool_maxsize=parallel)
        self._inside = adapter is not None
        self._parallel = parallel
        self._timeout = timeout
        self._verify = verify
        self._lock = threading.Lock()
        self._gates: dict[tuple[str, str], _Gate] = {}
        self._dates: dict[str, float] = {}
        self._ahead: dict[str, float] = {}
        """Host → seconds that our clock was ahead of it at its last answer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every connection."""
        self._adapter.close()

    def check(self, service: str, url: str, method: str = "") -> None:
        """Raises HostRefused unless credentials may go to this address."""
        hosts.check(service, url, self.allow_hosts, method)

    def now(self, url: str) -> float:
        """The clock of the host of this address, as its last answer gave it; ours if it never did."""
        return self._dates.get(_host(url), self.clock.now())

    def clock_off(self) -> float:
        """Seconds that our clock is ahead of the host that agrees with it best; 0 while no answer gave a time."""
        return min(self._ahead.values(), key=abs, default=0.0)

    def exchange(self, call: Call) -> Reply:
        """The good answer to a call, after as many attempts as the policy allows. Raises PlatformError and its kin."""
        if call.issued:
            hosts.check_issued(call.service, call.url, self.allow_hosts, call.method)
        else:
            self.check(call.service, call.url, call.method)
        return _Tries(self, call).run()

    def post_form(self, form: Form) -> Any:
        """The JSON that a token endpoint answers. Nothing of the form is found in an error."""
        call = self.call_of(form)
        return self.json_of(call, self.exchange(call))

    @staticmethod
    def call_of(form: Form) -> Call:
        """A token request as a call."""
        return Call(
            SIGN_IN,
            "POST",
            form.url + ("?" + urlencode(form.query) if form.query else ""),
            user=form.user,
            headers={**form.headers, "Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form.fields).encode(),
            safe=True,
            secrets=form.secrets,
            certificate=form.certificate,
        )

    def read(self, service: str, url: str) -> Any:
        """The JSON at an address that needs no sign-in."""
        call = Call(service, "GET", url)
        return self.json_of(call, self.exchange(call))

    def json_of(self, call: Call, reply: Reply) -> Any:
        """The object or array of a good answer. Raises PlatformError when it holds none."""
        try:
            data = parsed(reply)
            if isinstance(data, (dict, list)):
                return data
            what = reply.described
        except NotJson as error:
            what = str(error)
        found = self._blame(call, reply)
        raise PlatformError(
            replace(
                found,
                code="",
                message=scrubbed(f"{what} came where JSON is due", reply.secrets),
                repeatable=False,
            )
        )

    # --- one request -------------------------------------------------------------------------------------

    def send(self, call: Call, token: str | None, patience: _Patience) -> Reply:
        """Send once, when the limits of this host and user allow it. Raises only when there is no answer, or
        TooSoon when a known limit is used up and whoever asks had better do something else meanwhile.
        """
        gate = self._gate(call)
        self._keep_pace(call, gate.pace)
        with gate.entered(self.clock, patience):
            with self._lock:
                self.requests_made += 1
                self.counts[call.service, call.method] += 1
            outcome = self._transmit(call, token)
        if isinstance(outcome, PlatformError):
            raise outcome
        date = http_date(outcome.headers.get("Date", ""))
        if date is not None:
            self._dates[_host(call.url)] = date
            if self._compare_clocks:
                self._ahead[_host(call.url)] = self.clock.now() - date
        if outcome.status == 429:
            found = self._blame(call, outcome)
            gate.hold(found, self.clock.now())
            rule = limits.learned(call.service, call.method, _path(call.url), found.message)
            if rule is not None:
                gate.pace.learn(rule, self.clock.now())
        return outcome

    def _keep_pace(self, call: Call, pace: Pace) -> None:
        """Wait for a known limit. A creation that would wait long is given back: others can be done meanwhile."""
        while wait := pace.take(call.service, call.method, _path(call.url), self.clock.now()):
            words = f"a known limit is used up; again in {wait:.0f} s"
            if call.method == "POST" and not call.safe and wait > SHORT:
                raise TooSoon(replace(_blank(call, words), wait=wait))
            if wait > SHORT:
                self.events("wait", {"service": call.service, "method": call.method, "wait": round(wait, 1)})
            self.clock.sleep(wait)

    def refusal(self, call: Call, reply: Reply) -> PlatformError:
        """The error for an answer that is not a good one."""
        found = self._blame(call, reply)
        # A gateway that lost its service in mid-flight cannot know whether a creation happened, and neither can we.
        vague = call.method == "POST" and not call.safe and reply.status in {502, 504}
        return LostResponse(found) if vague and not understood(reply) else PlatformError(found)

    def hold(self, call: Call, found: Blame, wait: float) -> None:
        """Nobody of this host and user sends anything for so many seconds."""
        self._gate(call).hold(replace(found, wait=wait), self.clock.now())

    def _blame(self, call: Call, reply: Reply) -> Blame:
        date = http_date(reply.headers.get("Date", ""))
        now = self.clock.now() if date is None else date
        where = {"service": call.service, "method": call.method, "url": call.url}
        return blame(reply, **where, now=now, safe=call.safe, secrets=reply.secrets)

    def _gate(self, call: Call) -> _Gate:
        with self._lock:
            return self._gates.setdefault((_host(call.url), call.user), _Gate(self._parallel))

    def _transmit(self, call: Call, token: str | None) -> Reply | PlatformError:
        prepared = _prepared(call, token)
        if prepared is None:
            return PlatformError(_blank(call, "the request could not be put together: check its credentials"))
        try:
            with _lent(call.certificate) as files, self._door(call) as adapter:
                response = adapter.send(
                    prepared,
                    stream=True,
                    timeout=self._timeout,
                    verify=self._authorities(),
                    cert=files,
                    proxies=self._proxies(call.url),
                )
                with contextlib.closing(response):
                    body = _body(response)
        except (requests.RequestException, HTTPError, OSError) as error:
            return self._fault(call, error)
        if body is None:
            limit = f"an answer of more than {LARGEST_ANSWER // 1024**2} MB"
            found = replace(_blank(call, limit), status=response.status_code)
            return LostResponse(found) if call.method == "POST" and not call.safe else PlatformError(found)
        confided = call.secrets if token is None else (*call.secrets, token)
        return Reply(response.status_code, response.headers, body, secrets=confided)

    @contextlib.contextmanager
    def _door(self, call: Call) -> Iterator[BaseAdapter]:
        if self._inside or call.certificate is None:
            yield self._adapter
            return
        # A connection that showed a client certificate is not kept for anybody else.
        with contextlib.closing(HTTPAdapter()) as adapter:
            yield adapter

    def _authorities(self) -> bool | str:
        if self._verify is True:
            return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        return self._verify

    def _proxies(self, url: str) -> dict[str, str]:
        if self._inside or hosts.place(url).loopback:
            return {}
        return dict(requests.utils.get_environ_proxies(url))

    def _fault(self, call: Call, error: Exception) -> PlatformError:
        """What a broken connection means: it did not happen, it may have happened, or it does not matter."""
        sent, again, words = _diagnosis(error, self._timeout)
        code = "tls" if any(map(_of_tls, _inner(error))) else ""
        found = replace(_blank(call, f"{hosts.shown(call.url)}: {words}"), code=code, repeatable=again)
        if not sent:
            return Unreachable(found)
        if call.method == "GET" or call.safe:
            return PlatformError(found)
        return LostResponse(replace(found, repeatable=call.method != "POST"))


def _path(url: str) -> str:
    """The path as the service itself knows it, wherever its endpoint is."""
    path = urlsplit(url).path
    return path[max(path.find("/v1/"), 0) :]


def _host(url: str) -> str:
    return urlsplit(url).netloc.lower()


def _blank(call: Call, message: str) -> Blame:
    return Blame(call.service, call.method, hosts.shown(call.url), message=message)


def _prepared(call: Call, token: str | None) -> requests.PreparedRequest | None:
    headers = {
        "User-Agent": f"btp-reconcile/{__version__}",
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
        **call.headers,
    }
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    # What requests says about a bad header quotes it, so its words end here.
    with contextlib.suppress(requests.RequestException, ValueError):
        return requests.Request(call.method, call.url, headers=headers, data=call.body).prepare()
    return None


def _body(response: requests.Response) -> bytes | None:
    """All of the body; None when it is larger than anything a service has to say."""
    chunks, size = [], 0
    for chunk in response.iter_content(64 * 1024):
        size += len(chunk)
        if size > LARGEST_ANSWER:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


@contextlib.contextmanager
def _lent(certificate: tuple[str, str] | None) -> Iterator[tuple[str, str] | None]:
    """A certificate and its key as files, which is all that TLS here can read; gone when the request is over."""
    if certificate is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="reconcile-") as folder:
        names = []
        for name, text in zip(("certificate.pem", "key.pem"), certificate, strict=True):
            path = str(Path(folder, name))
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            names.append(path)
        yield (names[0], names[1])


# --- faults of connections ------------------------------------------------------------------------------


def _inner(error: BaseException, depth: int = 6) -> Iterator[BaseException]:
    """An error and all that it was made of: the libraries wrap each other's."""
    yield error
    parts = [*error.args, getattr(error, "reason", None), error.__cause__, error.__context__]
    for part in parts if depth else ():
        if isinstance(part, BaseException):
            yield from _inner(part, depth - 1)


def _of_tls(error: BaseException) -> bool:
    """Did TLS itself fail, for another reason than the other side's certificate?"""
    return isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLCertVerificationError)


_OF_THIS_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})
"""Faults that have nothing to do with a connection, such as a full disk under the sandbox's world."""


def _diagnosis(error: Exception, timeout: tuple[float, float]) -> tuple[bool, bool, str]:
    """(may it have been sent, may another attempt help, in words). When in doubt it was sent."""
    if not isinstance(error, (requests.RequestException, HTTPError)):
        if isinstance(error, OSError) and error.errno in _OF_THIS_MACHINE:
            return False, False, f"this machine cannot go on: {error.strerror}"
        return (
            False,
            False,
            "the file of trusted certificates, or another file that TLS needs, cannot be read",
        )
    inner = list(_inner(error))
    certificate = next((one for one in inner if isinstance(one, ssl.SSLCertVerificationError)), None)
    if certificate is not None:
        return False, False, f"its certificate is not trusted ({certificate.verify_message})"
    if isinstance(error, requests.exceptions.ProxyError):
        return False, True, "no connection through the proxy"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return False, True, f"no connection within {timeout[0]:g} s"
    if any(isinstance(one, NameResolutionError) for one in inner):
        return False, True, "the name of the host is not known"
    if any(isinstance(one, NewConnectionError) for one in inner):
        return False, True, "no connection"
    if isinstance(error, requests.exceptions.Timeout):
        return True, True, f"no answer within {timeout[1]:g} s"
    return True, True, "the connection broke before the answer was complete"


# --- limits ---------------------------------------------------------------------------------------------


class _Gate:
    """How one user may knock at one host: so many at once, and nobody while the host wants rest."""

    def __init__(self, parallel: int) -> None:
        self.pace = Pace()
        self._slots = threading.BoundedSemaphore(parallel)
        self._held: tuple[float, Blame] | None = None
        self._lock = threading.Lock()

    def hold(self, found: Blame, now: float) -> None:
        """Close until the time the host gave, if it gave one."""
        if found.wait is None:
            return
        until = now + found.wait
        with self._lock:
            if self._held is None or until > self._held[0]:
                self._held = (until, found)

    @contextlib.contextmanager
    def entered(self, clock: Clock, patience: _Patience) -> Iterator[None]:
        """A slot, once there is one and the gate is open. Raises the 429 again if it will not open in time."""
        while True:
            self._slots.acquire()
            left, found = self._left(clock.now())
            if found is None:
                break
            self._slots.release()
            if left > patience.left:
                raise PlatformError(replace(found, wait=left, repeatable=True))
            patience.spend(left)
        try:
            yield
        finally:
            self._slots.release()

    def _left(self, now: float) -> tuple[float, Blame | None]:
        with self._lock:
            if self._held is None or self._held[0] <= now:
                return 0.0, None
            return self._held[0] - now, self._held[1]


# --- the one retry policy -------------------------------------------------------------------------------


class _Tries:
    """One call, from its first attempt to its last."""

    def __init__(self, client: Client, call: Call) -> None:
        self._client = client
        self._call = call
        self._history: list[Blame] = []
        self._patience = _Patience(client.clock)
        self._signing = False
        self._renewed = False
        self._pauses: dict[int, float] = {}
        allowed = min(client.attempts, SIGN_IN_ATTEMPTS) if call.safe else client.attempts
        self._attempts = min(allowed, call.attempts or allowed)

    def run(self) -> Reply:
        """The good answer, or the last error with the first real one beside it."""
        retrying = Retrying(
            sleep=self._patience.spend,
            retry=retry_if_exception(self._worth),
            wait=self._pause,
            stop=self._over,
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            return replace(retrying(self._once), attempts=len(self._history) + 1)
        except PlatformError as error:
            failure = error
        raise failure if self._signing else self._told(failure)

    def _once(self) -> Reply:
        try:
            return self._attempt()
        except PlatformError as error:
            if not self._signing:
                self._history.append(error.blame)
            raise

    def _attempt(self) -> Reply:
        bearer = self._call.bearer
        token = self._token()
        reply = self._client.send(self._call, token, self._patience)
        if reply.status == 401 and bearer is not None and token is not None and not self._renewed:
            # Tokens die early: the service was restarted, the key was rotated. Once, a new one is worth a try.
            self._renewed = True
            bearer.drop(token)
            reply = self._client.send(self._call, self._token(), self._patience)
        if reply.good:
            return reply
        raise self._client.refusal(self._call, reply)

    def _token(self) -> str | None:
        """The token to send. A sign-in has a policy of its own, so its failure ends this call at once."""
        if self._call.bearer is None:
            return None
        self._signing = True
        token = self._call.bearer.get()
        self._signing = False
        return token

    def _worth(self, error: BaseException) -> bool:
        return isinstance(error, PlatformError) and not self._signing and error.blame.repeatable

    def _pause(self, state: RetryCallState) -> float:
        """As long as the platform asks, else longer each time, and never the same for two runs at once."""
        number = state.attempt_number
        if number not in self._pauses:
            found = self._history[-1]
            growing = min(60.0, 2.0 ** (number - 1)) * SystemRandom().uniform(0.75, 1.25)
            pause = growing if found.wait is None else max(1.0, found.wait)
            if found.status == 429:
                self._client.hold(self._call, found, pause)
            self._pauses[number] = pause
        return self._pauses[number]

    def _over(self, state: RetryCallState) -> bool:
        return state.attempt_number >= self._attempts or self._pause(state) > self._patience.left

    def _tell(self, state: RetryCallState) -> None:
        found = self._history[-1]
        self._client.events(
            "retry",
            {
                "service": found.service,
                "method": found.method,
                "path": urlsplit(found.url).path,
                "status": found.status,
                "wait": round(self._pause(state), 3),
                "attempt": state.attempt_number,
            },
        )

    def _told(self, error: PlatformError) -> PlatformError:
        """The last error, with how often it was tried and the first that was more than "not now"."""
        last = error.blame
        real = next((one for one in self._history if one.status != 429), last)
        same = (real.status, real.code, real.message) == (last.status, last.code, last.message)
        first = "" if same else str(real)
        return type(error)(replace(last, attempts=len(self._history), first=first))
