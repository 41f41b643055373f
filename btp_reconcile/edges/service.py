"""A drift check as a service: the loop, and nothing of what is checked."""

from __future__ import annotations

import gc
from dataclasses import replace
from secrets import SystemRandom
from typing import TYPE_CHECKING

from btp_reconcile.core.watch import Status, dice_of, pause, wait
from btp_reconcile.edges.clock import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from btp_reconcile.core.watch import Checked
    from btp_reconcile.edges.clock import Clock


class Service:
    """Checks at once, and then every so often, never two at a time. `status` may be read by any thread."""

    def __init__(
        self,
        check: Callable[[], Checked],
        *,
        clock: Clock,
        every: float,
        jitter: float,
        host: str,
        requests: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._check = check
        self._clock = clock
        self._every = every
        self._jitter = jitter
        self._host = host
        self._requests = requests
        self.status = Status(clock.now(), every)

    def run(self, told: Callable[[Checked, Status], None]) -> None:
        """Until the clock, or a check, raises `Interrupted`. `told` is called after each check."""
        dice = dice_of(self._host)
        try:
            while True:
                began = self._clock.now()
                checked = self._check()
                ended = self._clock.now()
                self.status = self.status.after(checked, began, ended, self._requests())
                told(checked, self.status)
                del checked
                gc.collect()  # what a check leaves behind in circles is not kept until there is much of it
                self._clock.sleep(wait(began, ended, self._every, pause(self._every, self._jitter, dice)))
                dice = SystemRandom().random()
        except Interrupted:
            self.status = replace(self.status, stopping=True)
