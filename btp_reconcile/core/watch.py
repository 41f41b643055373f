"""A drift check that is made again and again: what is known of it, when the next is due, and whether all is well."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import report

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "btp-reconcile/check"
"""What a line of JSON for one check is."""
VERSION = 1
RESULTS: Mapping[int, str] = {
    report.DONE: "in-sync",
    report.FAILED: "failed",
    report.CHANGES: "drift",
    report.SPEC: "spec",
    report.REFUSED: "refused",
    report.PENDING: "pending",
    report.PERSON: "waits",
    report.USAGE: "usage",
}
"""Exit code → a word for it."""
SHORTEST = 60.0
"""Seconds between two checks, at least: what the platforms limit, they limit by the minute and by the hour."""
JITTER = 10
"""Percent by which an interval varies, if nothing else is said."""
LATE = 3
"""So many intervals without an end of a check, and the service does not do what it is there for."""
REST = 10
"""After a check that took too long, the next one begins after this part of the interval."""


@dataclass(frozen=True)
class Checked:
    """How one check ended."""

    code: int
    """The exit code that `reconcile drift` would have ended with."""
    data: Mapping[str, Any] | None = None
    """Its JSON. None: it could not compare anything."""
    problems: tuple[str, ...] = ()
    """What is wrong with the specs: codes and places, without a word of what is written there."""

    @property
    def failed(self) -> bool:
        """Could it not see everything?"""
        if self.data is None or self.code == report.FAILED:
            return True
        return any(one["code"] == "platform/unseen" for one in self.data["unseen"])


@dataclass(frozen=True)
class Status:
    """What a service knows of its checks. A value: whoever reads it sees one moment."""

    started: float
    every: float
    checks: int = 0
    failures: int = 0
    ended: float | None = None
    """When the last check ended, well or not."""
    seconds: float = 0.0
    """How long the last check took."""
    succeeded: float | None = None
    """When the last check ended that saw everything."""
    code: int | None = None
    data: Mapping[str, Any] | None = None
    """What the last check found. While the specs are broken: what the last one found that could read them."""
    problems: tuple[str, ...] = ()
    requests: Mapping[str, int] = field(default_factory=dict)
    """Requests sent by all checks, by service."""
    stopping: bool = False

    def after(self, checked: Checked, began: float, ended: float, requests: Mapping[str, int]) -> Status:
        """One check later."""
        return replace(
            self,
            checks=self.checks + 1,
            failures=self.failures + checked.failed,
            ended=ended,
            seconds=max(0.0, ended - began),
            succeeded=self.succeeded if checked.failed else ended,
            code=checked.code,
            data=self.data if checked.code == report.SPEC else checked.data,
            problems=checked.problems,
            requests=dict(requests),
        )

    def ill(self, now: float) -> str:
        """Why the service does not do what it is there for. Empty: it does."""
        last = self.started if self.ended is None else self.ended
        if now - last <= LATE * self.every:
            return ""
        which = "no check has ended" if self.ended is None else "the last check ended long ago"
        return f"{which}: {now - last:.0f} s, at an interval of {self.every:.0f} s"

    def unready(self) -> str:
        """Why its figures say nothing yet, or nothing more. Empty: they do."""
        if self.stopping:
            return "it was asked to stop"
        return "" if self.data is not None else "no check could compare anything yet"


def pause(every: float, jitter: float, dice: float) -> float:
    """Seconds from one beginning to the next: the interval, moved by up to `jitter` percent; `dice` is from 0 to 1."""
    return every * (1.0 + jitter / 100.0 * (2.0 * dice - 1.0))


def dice_of(host: str) -> float:
    """From 0 to 1, the same for the same host: services that start together do not go on together."""
    return int.from_bytes(hashlib.sha256(host.encode("utf-8", "replace")).digest()[:6], "big") / 2.0**48


def wait(began: float, ended: float, every: float, paused: float) -> float:
    """Seconds from the end of a check to the next beginning. One that took too long delays the next."""
    return max(began + paused - ended, every / REST)
