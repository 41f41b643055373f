"""Keeping to known limits, so that no 429 is needed to learn them. One budget for all threads of a host and user."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from btp_reconcile.core import limits

if TYPE_CHECKING:
    from btp_reconcile.core.limits import Limit


MARGIN = 1.0
"""Seconds by which a window is taken to be longer: the platform counts a request when it arrives, not when it is sent."""


class Pace:
    """When the next request of a kind may be sent. Counts what was sent in each limit's sliding window."""

    def __init__(self) -> None:
        self._sent: dict[Limit, deque[float]] = {}
        self._learned: list[Limit] = []
        self._lock = threading.Lock()

    def take(self, service: str, method: str, path: str, now: float) -> float:
        """0: it may be sent now, and is counted. Otherwise the seconds until it may; nothing is counted."""
        with self._lock:
            rules = limits.covering(service, method, path, self._learned)
            wait = max((self._wait(rule, now) for rule in rules), default=0.0)
            if wait <= 0:
                for rule in rules:
                    self._sent[rule].append(now)
            return max(wait, 0.0)

    def learn(self, limit: Limit, now: float) -> None:
        """A rule that the platform has just named: its window is full now."""
        with self._lock:
            if limit not in self._learned:
                self._learned.append(limit)
            self._sent[limit] = deque([now] * limit.count)

    def _wait(self, rule: Limit, now: float) -> float:
        sent = self._sent.setdefault(rule, deque())
        window = rule.seconds + MARGIN
        while sent and sent[0] <= now - window:
            sent.popleft()
        return sent[len(sent) - rule.count] + window - now if len(sent) >= rule.count else 0.0
