"""Telling somebody that the state has changed: one webhook, which is a secret."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from btp_reconcile.cli import talk, written
from btp_reconcile.core.errors import HostRefused, PlatformError, UsageError
from btp_reconcile.core.model import Secret
from btp_reconcile.edges import files, hosts
from btp_reconcile.edges.calls import Call
from btp_reconcile.edges.client import Client
from btp_reconcile.views import notice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from btp_reconcile.cli.talk import Events
    from btp_reconcile.edges.clock import Clock

VARIABLE = "RECONCILE_WEBHOOK"
"""The environment variable that holds the address, where no list of processes shows it."""
FORMAT = "btp-reconcile/notified"
SERVICE = "notify"


def address(given: str | None, shape: str | None, state: str | None) -> Secret | None:
    """Where to tell: --notify, or the variable. Raises UsageError for options that need one."""
    url = given or os.environ.get(VARIABLE, "")
    if url:
        return Secret(f"env:{VARIABLE}" if not given else "--notify", url)
    for option, said in (("--notify-format", shape), ("--notify-state", state)):
        if said is not None:
            raise UsageError(f"{option} needs somebody to be told: add --notify URL or set {VARIABLE}")
    return None


class Notifier:
    """Tells of each new state once. What could not be told is told with the next check, if it is still so."""

    def __init__(
        self,
        url: Secret,
        shape: str,
        *,
        clock: Clock,
        events: Events,
        allow_hosts: Sequence[str] = (),
        rehearsal: bool = False,
        state: str | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """How often somebody was told, and how often that failed: `sent`, `failed`."""
        self._url = url
        self._shape = notice.SHAPES[shape]
        self._events = events
        self._file = Path(state) if state is not None else None
        allowed = (*allow_hosts, *os.environ.get("RECONCILE_HOSTS", "").replace(",", " ").split())
        self._client = Client(
            clock=clock,
            events=self._quietly,
            allow_hosts=() if rehearsal else allowed,
            timeout=(5.0, 10.0),
        )
        try:
            self._client.check(SERVICE, url.reveal())
            loopback = hosts.place(url.reveal()).loopback
        except HostRefused as error:
            raise UsageError(f"--notify: {error.blame.message}") from None
        if rehearsal and not loopback:
            raise UsageError("--notify: a rehearsal tells nobody outside of this machine; take 127.0.0.1")
        self._before = _read(self._file) if self._file is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._client.close()

    def tell(self, check: Mapping[str, Any]) -> None:
        """Tell of it, if it is news. Never raises for what went wrong there: it is logged and counted."""
        after = notice.state(check)
        what = notice.event(self._before, after)
        if what and not self._sent(self._shape(what, check)):
            return
        if what or after != self._before:
            self._before = after
            self._keep()

    def _sent(self, body: Mapping[str, Any]) -> bool:
        call = Call(
            SERVICE,
            "POST",
            self._url.reveal(),
            headers={"Content-Type": "application/json", "Accept": "*/*"},
            body=json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"),
            safe=True,
            secrets=(self._url.reveal(),),
        )
        try:
            self._client.exchange(call)
        except PlatformError as error:
            # Its words may hold the address, and the address is a secret.
            why = f"status {error.blame.status}" if error.blame.status else "no answer"
            self.counts["failed"] += 1
            self._events("not notified", {"why": why, "attempts": error.blame.attempts})
            return False
        self.counts["sent"] += 1
        return True

    def _quietly(self, event: str, fields: Mapping[str, Any]) -> None:
        """What the client tells of its attempts, without the path: that is the secret part of the address."""
        self._events(event, {key: value for key, value in fields.items() if key != "path"})

    def _keep(self) -> None:
        if self._file is None:
            return
        text = json.dumps({"format": FORMAT, "version": notice.VERSION, "state": self._before}, indent=2)
        try:
            written.write(self._file, text + "\n")
        except OSError as error:
            talk.say(f"{self._file}: what was told could not be noted: {error.strerror}")


def _read(file: Path) -> notice.State | None:
    """The state that was told last; None: nobody was told yet. Raises UsageError for another kind of file."""
    try:
        data = json.loads(files.whole(file))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"--notify-state: {file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        data = None
    state = data.get("state") if isinstance(data, dict) and data.get("format") == FORMAT else None
    lists = ("unseen", "drifted", "expiring")
    if (
        not isinstance(state, dict)
        or not isinstance(state.get("blind"), bool)
        or not all(
            isinstance(state.get(name), list) and all(isinstance(one, str) for one in state[name])
            for name in lists
        )
    ):
        raise UsageError(f"--notify-state: {file} holds something else; name another file")
    return {"blind": state["blind"], **{name: state[name] for name in lists}}
