"""Time as the run sees it: a real clock that can be stopped, and one for rehearsals that moves by itself."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Interrupted(Exception):
    """The run was asked to stop while it waited. What had been started stays started."""


class Clock(Protocol):
    """Where waiting happens, and nowhere else."""

    def now(self) -> float:
        """Epoch seconds."""

    def sleep(self, seconds: float) -> None:
        """Let so much time pass. Raises `Interrupted` when the run is asked to stop."""


class WallClock:
    """Real time. `stop()` wakes everybody who sleeps."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        if self._stopped.wait(max(0.0, seconds)):
            raise Interrupted("the run was asked to stop")

    def stop(self) -> None:
        """Ask the run to stop. May be called from a signal handler."""
        self._stopped.set()


class MovingClock:
    """Time that moves only because somebody waits: nothing takes long, and everything is repeatable."""

    def __init__(self, start: float = 1_767_225_600.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self.slept: list[float] = []
        """Every wait, in order."""

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self._now += max(0.0, seconds)
