"""Runs a command line in this process, and tells which promise it broke.

What is promised, whatever stands in specs, plan files, the environment and the answers of the platform: an end with a
code of the table and in words; no hang; no credential for a host that is none of the platform's; no secret in what is said.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import marshal
import os
import re
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import requests
from requests.adapters import BaseAdapter

from btp_reconcile import cli
from btp_reconcile.cli import world
from btp_reconcile.core import report
from btp_reconcile.edges import client, load
from btp_reconcile.edges.client import Client
from btp_reconcile.edges.clock import MovingClock
from btp_reconcile.sandbox import InProcessAdapter, Sandbox
from btp_reconcile.sandbox.http import Response

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from btp_reconcile.core.merge import Document

CODES = frozenset(
    {
        *(report.DONE, report.FAILED, report.CHANGES, report.SPEC),
        *(report.REFUSED, report.PENDING, report.PERSON, report.USAGE),
    }
)
MOST_REQUESTS = 3000
"""No command of these takes 150."""
MOST_WAITING = 14 * 86400.0
"""Seconds that a command may wait, on a clock that moves by itself, over all threads."""
MOST_SECONDS = 60.0
"""Real ones, for one command."""

PLANTED = {
    "PLANTED": "planted-in-a-variable-$+=|&-7c1f",
    "planted.txt": "planted-in-a-file-$+=|&-91ab",
    "outside": "planted-outside-the-folder-0d3e",
}
SECRET_FIELD = re.compile(
    r"client_?secret|password|_token$|^(private_?)?key$|passcode|assertion|^credentials$", re.IGNORECASE
)
FORM_SECRETS = {"client_secret", "password", "assertion", "refresh_token"}


class Hangs(BaseException):
    """It would go on for ever."""


class Clock(MovingClock):
    """A clock that moves by itself, and not for ever."""

    def __init__(self, now: float, broken: list[str]) -> None:
        super().__init__(now)
        self._waited = 0.0
        self._broken = broken

    def sleep(self, seconds: float) -> None:
        if not seconds < MOST_WAITING:
            self._broken.append(f"waits {seconds} s at once")
            raise Hangs
        self._waited += max(0.0, seconds)
        if self._waited > MOST_WAITING:
            self._broken.append(f"waited for {self._waited:.0f} s")
            raise Hangs
        super().sleep(seconds)

    def stop(self) -> None:
        """As a clock on the wall has it."""


Answered = Callable[[requests.PreparedRequest, Response], Response | Exception]


@dataclass
class Wire(BaseAdapter):
    """The way to a sandbox. Looks at every request as it leaves, and may change every answer."""

    sandbox: Sandbox
    changed: Answered | None = None
    secrets: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._inner = InProcessAdapter(self.sandbox)
        self.lock = threading.Lock()
        self.secrets |= set(secrets_in(self.sandbox.access()))

    def send(self, request: requests.PreparedRequest, *given: Any, **more: Any) -> requests.Response:
        with self.lock:
            self.count += 1
            if self.count > MOST_REQUESTS:
                self.broken.append(f"more than {MOST_REQUESTS} requests, last {request.method} {request.url}")
                raise Hangs
            self._look(request)
        answer = self._inner.send(request, *given, **more)
        body = answer.content
        with self.lock:
            self.secrets |= set(secrets_in(_json(body)))
            plain = Response(answer.status_code, _without_length(answer), body)
            said: Response | Exception = plain if self.changed is None else self.changed(request, plain)
        if isinstance(said, Exception):
            raise said
        return self._inner._dressed(request, said)

    def close(self) -> None:
        """Nothing is held."""

    def _look(self, request: requests.PreparedRequest) -> None:
        parts = urlsplit(str(request.url))
        body = request.body or b""
        text = body if isinstance(body, str) else body.decode("utf-8", "replace")
        form = (
            dict(parse_qsl(text))
            if request.headers.get("Content-Type", "").startswith("application/x-www")
            else {}
        )
        known = (
            parts.scheme == "https"
            and parts.netloc == parts.hostname
            and self.sandbox.knows(parts.hostname or "")
        )
        carries = (
            "Authorization" in request.headers
            or bool(FORM_SECRETS & set(form))
            or any(one in f"{request.url}\n{unquote_plus(str(request.url))}\n{text}" for one in self.secrets)
        )
        if carries and not known:
            self.broken.append(f"a credential for {request.method} {request.url}")
        if any(one in unquote_plus(str(request.url)) for one in self.secrets):
            self.broken.append(f"a secret in the address {request.url}")


def _without_length(answer: requests.Response) -> tuple[tuple[str, str], ...]:
    """Its headers, but for those that a changed body would make wrong."""
    return tuple((name, text) for name, text in answer.headers.items() if name.lower() != "content-length")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """The texts in fields that hold secrets."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from secrets_in(below, str(key))
    elif isinstance(value, list):
        for below in value:
            yield from secrets_in(below, name)
    elif isinstance(value, str) and len(value) >= 12 and SECRET_FIELD.search(name):
        yield value


@dataclass(frozen=True)
class Ran:
    """How a command ended, what it said where, and which promises it broke."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    broken: tuple[str, ...]

    def __str__(self) -> str:
        shown = " ".join(self.arguments)[:600]
        said = "\n  ".join(self.broken)
        return f"reconcile {shown!r} ended with {self.code}:\n  {said}\n--- stderr\n{self.err[-3000:]}"


@contextlib.contextmanager
def _alarm(broken: list[str]) -> Iterator[None]:
    """Ends what takes too long in real time."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        broken.append(f"took more than {MOST_SECONDS:g} s:\n" + "".join(traceback.format_stack(frame)[-6:]))
        raise Hangs

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _inside(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """In this folder, with nothing but this environment."""
    around = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    home = {"HOME": str(folder), "COLUMNS": "100", "RECONCILE_DEBUG": "1"}
    with contextlib.chdir(folder), patch.dict(os.environ, {**around, **home, **environment}, clear=True):
        yield


_read = load.catalogue


@functools.cache
def _shipped() -> tuple[Document, ...]:
    return _read()


def _catalogue(extra: Sequence[Any] = ()) -> tuple[Document, ...]:
    """The catalogue, of which what is shipped is read once in a process and not in every case."""
    return _read(extra) if extra else _shipped()


def run(
    arguments: Sequence[str],
    *,
    folder: Path,
    sandbox: Sandbox | None = None,
    environment: Mapping[str, str] | None = None,
    changed: Answered | None = None,
) -> Ran:
    """Run a command line against a sandbox, as if it were the platform, or with --sandbox."""
    platform = sandbox or Sandbox()
    wire = Wire(
        platform, changed, set(PLANTED.values()) | set((environment or {}).values()) & set(PLANTED.values())
    )
    with platform.hold() as inside:
        clock = type(
            "Clock", (Clock,), {"__init__": lambda self: Clock.__init__(self, inside.now(), wire.broken)}
        )
    out, err = _stream(), _stream()
    code = -1
    with (
        _inside(folder, environment or {}),
        patch.object(world, "WallClock", clock),
        patch.object(world, "MovingClock", lambda _: clock()),
        patch.object(client, "Client", lambda **given: Client(**{**given, "adapter": wire})),
        patch.object(load, "catalogue", _catalogue),
        patch.object(world, "open_sandbox", lambda *_, **__: platform),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _alarm(wire.broken),
    ):
        try:
            code = cli.run(arguments)
        except Hangs:
            wire.broken.append("had to be stopped")
        except BaseException as error:  # noqa: BLE001 - this is what is looked for
            wire.broken.append("".join(traceback.format_exception(error)))
        _end_threads()
    said = _written(out), _written(err)
    return Ran(tuple(arguments), code, *said, tuple(_broken(code, *said, wire, arguments)))


def _end_threads() -> None:
    """What a crash leaves under way ends with its process. Here the next run would meet it, in another folder."""
    for thread in threading.enumerate():
        if "(_work)" in thread.name:  # `edges.observe.Threads`
            thread.join(20)


def _stream() -> io.TextIOWrapper:
    """A stream as a process has it: with bytes below, and another sign for what cannot be written."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="replace", newline="", write_through=True)


def _written(stream: io.TextIOWrapper) -> str:
    below = stream.buffer
    assert isinstance(below, io.BytesIO)
    return below.getvalue().decode()


def _broken(code: int, out: str, err: str, wire: Wire, arguments: Sequence[str]) -> Iterator[str]:
    yield from wire.broken
    if code not in CODES:
        yield f"the exit code {code} is not in the table"
    if "this is a defect" in err or "Traceback" in out + err:
        yield "it ended as a defect"
    if code not in {report.DONE, report.CHANGES} and not (out + err).strip():
        yield "it says nothing about why it ended"
    for secret in wire.secrets:
        if any(form in text for form in (secret, json.dumps(secret)[1:-1]) for text in (out, err)):
            yield f"it shows the secret {secret[:60]!r}"
    data = "--format" in arguments and arguments[arguments.index("--format") + 1] == "json"
    if any(sign in text for sign in "\x1b\x00\x07\u202e" for text in (err, "" if data else out)):
        yield "it shows a control character"
    if data and out and "--help" not in arguments:
        try:
            json.loads(out)
        except ValueError as error:
            yield f"its JSON is none: {error}"


# --- worlds ---------------------------------------------------------------------------------------------


@functools.cache
def _known(make: Callable[[], Sandbox]) -> bytes:
    with make().hold() as inside:
        return marshal.dumps(inside.state)


def copied(make: Callable[[], Sandbox]) -> Sandbox:
    """The world that somebody makes, made once in a process, in a sandbox of its own."""
    state = marshal.loads(_known(make))
    sandbox = Sandbox()
    with sandbox.hold() as inside:
        inside.state.clear()
        inside.state.update(state)
    return sandbox
