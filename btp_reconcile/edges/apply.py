"""Runs a plan's steps: starts them, looks until each is at rest, blocks what stood on a failure.

Only here is waited. A driver starts work and says nothing about its end; what is seen afterwards is all that is
believed. So a lost answer, a killed run and two runs at once all come down to the same thing: look, then go on.

One thread decides. It hands requests to a pool, and each of these touches only the steps it was given.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.errors import (
    HostRefused,
    LostResponse,
    NotAsKnown,
    PlatformError,
    SignInRefused,
    TooSoon,
)
from btp_reconcile.core.kind import Task
from btp_reconcile.core.model import (
    Address,
    Change,
    Fact,
    Facts,
    Outcome,
    Phase,
    Plan,
    Report,
    Status,
    Step,
    StepId,
    Verb,
    Wanted,
)
from btp_reconcile.core.verdict import Word
from btp_reconcile.edges.clock import Clock, Interrupted
from btp_reconcile.edges.handover import Handover
from btp_reconcile.edges.known import Known
from btp_reconcile.edges.observe import Threads

if TYPE_CHECKING:
    from btp_reconcile.core.catalogue import Catalogue, KnownError
    from btp_reconcile.core.kind import Door, Driver, Kind
    from btp_reconcile.edges.observe import Platform

FIRST_LOOK, LAST_LOOK, GROWTH = 2.0, 15.0, 1.5
"""Seconds between looks: 2, growing to 15."""
MOST_THREADS = 32
RESTARTS = 3
"""How often a write whose answer was lost, and that was not done, is sent in all."""
GRACE = 3.0
"""Seconds that requests on their way are given when the run ends early."""
GONE = frozenset({404, 410})
FOR_GOOD = (SignInRefused, HostRefused, NotAsKnown)
"""After these a second look says the same."""
OVERTAKEN = 412
"""Somebody changed it between our look and our write: it is looked at and written anew."""
WAITS_ITS_TURN = frozenset(
    {
        "CF-AsyncServiceInstanceOperationInProgress",
        "CF-AsyncServiceBindingOperationInProgress",
        "ConcurrentOperationInProgress",
        "OperationInProgress",
        "ConcurrentResourceUpdate",
        "30004",
    }
)
"""Codes that mean: something else is being done to it just now. (CF 60016 and 90008, Service Manager, CIS.)

Cloud Foundry has no code for it where keys are made, and where anything is deleted: a 422 there is looked into.
"""
PERHAPS_BUSY = frozenset({409, 422})
"""What is answered where there is no such code; and also for a name that is taken."""

Events = Callable[[str, Mapping[str, Any]], None]


class Where(StrEnum):
    """Where a step stands."""

    WAITING = "waiting"
    PREPARING = "preparing"
    CLEARING = "clearing"
    STARTING = "starting"
    LOOKING = "looking"
    YIELDING = "yielding"
    OVER = "over"


UNFINISHED = {
    Where.WAITING: "not started yet",
    Where.PREPARING: "its plan is not visible in the marketplace yet",
    Where.CLEARING: "what is left of a failed creation is being deleted",
    Where.STARTING: "not started yet",
    Where.LOOKING: "accepted, not finished yet",
    Where.YIELDING: "not started yet, because something else is being done to its instance",
}
"""What is said of a step for which there was no time."""


@dataclass(eq=False)
class _Work:
    """One step on its way. The only thing in this program with a life, and only inside one run."""

    step: Step
    change: Change
    driver: Driver
    door: Door
    task: Task
    missing: set[StepId]
    """Steps that must be done first."""
    where: Where = Where.WAITING
    busy: bool = False
    """A request about it is on its way."""
    next_at: float = 0.0
    interval: float = FIRST_LOOK
    begun: float = 0.0
    attempts: int = 0
    refused: PlatformError | None = None
    """The write was refused: perhaps it is there already, perhaps something else is being done to it just now."""
    held: bool = False
    """It must come to rest before the write is sent (again)."""
    cleared: bool = False
    """The deletion of a failed leftover was sent."""
    rebuilt: bool = False
    """It took the place of a failed one in this run: that is done once."""
    said: str = ""
    """What the platform said about the wait."""
    outcome: Outcome | None = None

    @property
    def together(self) -> tuple[Where, Driver, str]:
        """What can be asked about in one request."""
        return (self.where, self.driver, self.door.scope)


@dataclass(frozen=True)
class Limits:
    """`deadline` in seconds for the whole run; `parallel` 1 means strictly one request after the other."""

    deadline: float = 1800.0
    parallel: int = 8


@dataclass
class Run:
    """Everything one run needs. Use `run()`, once."""

    plan: Plan
    wanted: Wanted
    facts: Facts
    platform: Platform
    kinds: Sequence[Kind]
    catalogue: Catalogue
    clock: Clock
    events: Events
    limits: Limits = field(default_factory=Limits)
    stopped: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self._known = Known(self.plan, self.wanted, self.facts)
        drivers = {kind.name: kind.drivers for kind in self.kinds}
        self._instances = drivers.get("instance", {})
        self._handover = Handover(
            self._known, self.platform, drivers.get("key", {}), self.catalogue, self.clock
        )
        self._works: dict[StepId, _Work] = {}
        self._dependents: dict[StepId, list[_Work]] = defaultdict(list)
        self._due: list[tuple[float, int, _Work]] = []
        """(when, in which order, what). What has been done earlier than that is left in here and passed over."""
        self._order: Iterator[int] = count()
        self._queue: deque[_Work] = deque()
        self._jobs: dict[Future[None], list[_Work]] = {}
        self._open = 0

    def run(self) -> Report:
        """Walk the steps to their ends, or to the deadline."""
        self._set_up()
        until = self.clock.now() + self.limits.deadline
        scopes = {work.door.scope for work in self._works.values()}
        threads = min(MOST_THREADS, self.limits.parallel * max(1, len(scopes)))
        one_by_one = self.limits.parallel == 1
        with Threads(1 if one_by_one else threads) as pool:
            with suppress(Interrupted):
                while self._open and not self.stopped() and self.clock.now() < until:
                    self._submit(pool, 1 if one_by_one else 2 * threads)
                    self._pause(until, ALL_COMPLETED if one_by_one else FIRST_COMPLETED)
            self._drain()
        return self._report()

    # --- before

    def _set_up(self) -> None:
        changes = {change.address: change for change in (*self.plan.beside, *self.plan.changes)}
        kinds = {kind.name: kind for kind in self.kinds}
        for step in self.plan.steps:
            change = changes[step.address]
            driver = kinds[step.address.kind].drivers[_runtime(step, change)]
            door = self.platform.door(driver.service, self.wanted.subaccounts[step.address.subaccount])
            task = self._known.task(step, change)
            work = _Work(step, change, driver, door, task, missing=set(step.requires))
            self._works[step.id] = work
            for one in step.requires:
                self._dependents[one].append(work)
        self._open = len(self._works)
        for work in [one for one in self._works.values() if not one.missing]:
            self._begin(work)
            self._settle([work])

    # --- the loop: all of it on one thread

    def _settle(self, works: Iterable[_Work]) -> None:
        """Take note of where these stand: what they free, what they block, when they are due."""
        todo = list(works)
        while todo:
            work = todo.pop()
            work.busy = False
            if work.outcome is None:
                heapq.heappush(self._due, (work.next_at, next(self._order), work))
                continue
            self._open -= 1
            for waiting in self._dependents[work.step.id]:
                waiting.missing.discard(work.step.id)
                if waiting.where is not Where.WAITING:
                    continue
                if work.outcome.status is not Status.DONE:
                    self._block(waiting, work.outcome)
                    todo.append(waiting)
                elif not waiting.missing:
                    self._begin(waiting)
                    todo.append(waiting)

    def _begin(self, work: _Work) -> None:
        work.begun = work.next_at = self.clock.now()
        work.task = self._known.task(work.step, work.change)
        self._tell(work, "started")
        if work.step.verb is Verb.AWAIT:
            work.where = Where.LOOKING
        elif _needs_plan(work):
            work.where = Where.PREPARING
        else:
            self._ready(work)

    def _ready(self, work: _Work) -> None:
        """Everything it needs is there. A failed leftover of its name is taken over, or deleted first."""
        leftover = work.step.verb is Verb.CREATE and _is_marked(work) and work.task.found is not None
        work.rebuilt = work.rebuilt or leftover
        work.where = Where.CLEARING if leftover and not work.driver.replaces_failed else Where.STARTING
        work.next_at, work.interval = self.clock.now(), FIRST_LOOK

    def _block(self, work: _Work, before: Outcome) -> None:
        """A failure blocks only what stands on it, and says so."""
        status = Status.PENDING if before.status is Status.PENDING else Status.BLOCKED
        dated = f"{work.step.name} gets no day yet: " if work.step.verb is Verb.DATE else ""
        self._end(
            work,
            status,
            f"{dated}needs {before.step.address}",
            by=before.by or before.step.address,
            gate=before.gate,
        )

    def _submit(self, pool: Threads, room: int) -> None:
        """Hand out what is due: looks first, because they free others; then as many writes as fit."""
        now = self.clock.now()
        due: list[_Work] = []
        while self._due and self._due[0][0] <= now:
            at, _, work = heapq.heappop(self._due)
            if work.busy or work.where is Where.OVER or work.next_at != at:
                continue
            if work.where is Where.STARTING:
                work.busy = True
                self._queue.append(work)
            else:
                due.append(work)
        jobs = {
            Where.PREPARING: self._prepare,
            Where.CLEARING: self._clear,
            Where.LOOKING: self._look,
            Where.YIELDING: self._yield,
        }
        for works in self._asked_together(due):
            self._jobs[pool.submit(jobs[works[0].where], works)] = works
        while self._queue and len(self._jobs) < room:
            works = self._started_together()
            self._jobs[pool.submit(self._start, works)] = works

    def _asked_together(self, due: Sequence[_Work]) -> Iterable[list[_Work]]:
        """One question for all that is pending at one endpoint, whether it is due already or a little later."""
        groups: dict[tuple[Where, Driver, str], list[_Work]] = {work.together: [] for work in due}
        later = [work for at, _, work in self._due if at == work.next_at] if due else []
        for work in (*due, *later):
            if not work.busy and work.together in groups:
                work.busy = True
                groups[work.together].append(work)
        return groups.values()

    def _started_together(self) -> list[_Work]:
        """The next write; with all others of its subaccount where the service takes them in one request."""
        first = self._queue.popleft()
        if not first.driver.batch:
            return [first]

        def kin(work: _Work) -> bool:
            return (work.together, work.step.address.subaccount, work.step.verb) == (
                first.together,
                first.step.address.subaccount,
                first.step.verb,
            )

        same = [work for work in self._queue if kin(work)]
        self._queue = deque(work for work in self._queue if not kin(work))
        return [first, *same]

    def _pause(self, until: float, enough: str) -> None:
        """Wait for an answer, or for the next look. Raises `Interrupted` when asked to stop meanwhile."""
        now = self.clock.now()
        soon = max(0.0, min(self._due[0][0] if self._due else until, until) - now)
        if not self._jobs:
            self.clock.sleep(soon)
            return
        # Not longer than a second at a time: somebody may ask to stop.
        done, _ = wait(
            self._jobs, timeout=1.0 if enough == ALL_COMPLETED else min(soon, 1.0), return_when=enough
        )
        for job in done:
            job.result()
            self._settle(self._jobs.pop(job))

    def _drain(self) -> None:
        """What is already sent is waited for, a moment: that takes one answer, not one operation."""
        running = [job for job in self._jobs if not job.cancel()]
        for job in wait(running, timeout=GRACE).done:
            self._jobs.pop(job)
            job.result()

    # --- jobs: each runs on a thread of the pool and touches only its own works

    def _start(self, works: list[_Work]) -> None:
        """Send the write. One refused batch is sent again item by item."""
        try:
            answered = self._send(works)
        except Interrupted:
            for work in works:
                self._end(work, Status.PENDING, "stopped before it was accepted")
        except PlatformError as error:
            refused = 400 <= error.blame.status < 500 and error.blame.code not in WAITS_ITS_TURN
            if refused and len(works) > 1:
                for work in works:
                    self._start([work])
                return
            for work in works:
                self._started_badly(work, error)
        else:
            for work in works:
                work.attempts += 1
                if work.step.id in answered:
                    self._judge_at_once(work, answered[work.step.id])
                else:
                    self._look_from(work, self.clock.now() + FIRST_LOOK)

    def _send(self, works: list[_Work]) -> Mapping[StepId, Fact]:
        """Send; gives what is known to be there then without another look."""
        first = works[0]
        if first.step.verb is Verb.VERIFY:
            self._prove(first)
            return {}
        if first.step.verb is Verb.DATE:
            self._date(first)
            return {}
        for work in works:
            work.task = self._handover.filled(work.task)
        tasks = [work.task for work in works]
        if first.step.verb is Verb.CREATE:
            return first.driver.create(first.door, tasks) or {}
        if first.step.verb is Verb.UPDATE:
            return first.driver.update(first.door, tasks) or {}
        if free := [work.task for work in works if not self._holds_others(work)]:
            first.driver.delete(first.door, free)
        return {}

    def _judge_at_once(self, work: _Work, fact: Fact) -> None:
        """What the answer showed is as good as a look."""
        self._look_from(work, self.clock.now())
        try:
            self._judge(work, fact)
        except (PlatformError, Interrupted) as error:
            self._not_seen([work], error)

    def _prove(self, work: _Work) -> None:
        """Try out the newest generation before anybody is given it."""
        wanted, fact = work.change.wanted, self._known.key(work.step.address)
        if wanted is None:
            return
        work.attempts += 1
        verdict = self._handover.prove(wanted, fact)
        if verdict.works:
            self._end(work, Status.DONE, notes=self._handover.same_secret(work.change, fact))
            return
        if passed := self._handover.unheard(work.change, fact, verdict):
            self._end(work, Status.DONE, notes=passed)
            return
        self._end(
            work,
            Status.FAILED,
            f"{verdict.verdict}: {verdict.detail}",
            hint=verdict.hint,
            gate=verdict.verdict is Word.FORBIDDEN,
        )

    def _date(self, work: _Work) -> None:
        """Note the day from which an old key may be deleted; one that is gone needs none."""
        wanted, fact = work.change.wanted, work.step.found
        if wanted is None or fact is None:
            return
        work.attempts += 1
        try:
            self._handover.date(wanted, fact)
        except PlatformError as error:
            if error.blame.status not in GONE:
                raise
        self._end(work, Status.DONE)

    def _holds_others(self, work: _Work) -> bool:
        """The platform takes along what stands in an instance. What is not ours refuses the delete."""
        blockers = work.driver.blockers(work.door, work.task)
        if blockers:
            self._end(
                work,
                Status.FAILED,
                f"not deleted, because this would be lost with it: {', '.join(blockers)}",
                hint="release each with the command beside it and apply again, or let the instance be",
                refused=True,
            )
        return bool(blockers)

    def _started_badly(self, work: _Work, error: PlatformError) -> None:
        blame, verb = error.blame, work.step.verb
        if isinstance(error, TooSoon):
            # Nothing was sent. Looks, and writes that another limit holds for, go on meanwhile.
            self.events("wait", {"service": blame.service, "method": blame.method, "wait": blame.wait or 0.0})
            work.said, work.next_at = blame.message, self.clock.now() + (blame.wait or FIRST_LOOK)
            return
        if blame.code in WAITS_ITS_TURN:
            self._tell(work, "waits its turn")
            self._hold(work, str(error))
            return
        work.attempts += 1
        lost = isinstance(error, LostResponse)
        made = lost or blame.status in {400, 409, 422} or blame.status >= 500
        if verb is Verb.DELETE and blame.status in GONE:
            self._end(work, Status.DONE)
        elif verb is Verb.CREATE and blame.method == "POST" and made and work.refused is None:
            # Perhaps it is there: our request arrived, or another run made it. A look decides, not the text.
            work.refused = None if lost else error
            self._look_from(work, self.clock.now())
        elif (lost or blame.status == OVERTAKEN) and work.attempts < RESTARTS:
            self._hold(work, str(error))  # anything but a creation can be sent again
        elif blame.status in PERHAPS_BUSY and _is_marked(work) and work.task.found is not None:
            work.refused, work.held = error, True
            self._look_from(work, self.clock.now())
        else:
            self._fail(work, str(error), blame.message)

    def _hold(self, work: _Work, why: str) -> None:
        """Send it later: when what is done to it, or to its instance, just now is over, if that can be looked at."""
        if work.task.found is not None:
            work.where, work.held = Where.LOOKING, True
        elif _stands_in(work) is not None:
            work.where = Where.YIELDING
        self._later(work, why)

    def _prepare(self, works: list[_Work]) -> None:
        """Wait until the plan is visible, all of one endpoint with one question."""
        try:
            found = works[0].driver.prepare(works[0].door, [work.task for work in works])
        except (PlatformError, Interrupted) as error:
            self._not_seen(works, error)
            return
        for work in works:
            fact = found.get(work.step.id)
            if fact is None:
                self._later(work)
            else:
                work.task = replace(work.task, plan=fact)
                self._ready(work)

    def _clear(self, works: list[_Work]) -> None:
        """Where a failed leftover blocks the name, it is deleted first; then the creation starts."""
        for work in works:
            if not work.cleared:
                self._delete_leftover(work)
        asked = [work for work in works if work.cleared and work.outcome is None]
        if not asked:
            return
        try:
            found = asked[0].driver.look(asked[0].door, [_leftover(work) for work in asked])
        except (PlatformError, Interrupted) as error:
            self._not_seen(asked, error)
            return
        for work in asked:
            fact = found.get(work.step.id)
            if fact is None:
                work.task = replace(work.task, found=None)
                work.where, work.next_at, work.interval = Where.STARTING, self.clock.now(), FIRST_LOOK
            elif fact.phase is Phase.PENDING:
                self._later(work, fact.detail)
            else:
                said = f"what is left of a failed creation could not be deleted: {fact.detail}"
                self._fail(work, said, fact.detail)

    def _delete_leftover(self, work: _Work) -> None:
        try:
            work.driver.delete(work.door, [_leftover(work)])
        except Interrupted as error:
            self._not_seen([work], error)
            return
        except PlatformError as error:
            if error.blame.status not in GONE:
                self._not_seen([work], error)
                return
        work.cleared = True

    def _look(self, works: list[_Work]) -> None:
        """How do these stand now? One question for all that are pending at one endpoint."""
        try:
            found = works[0].driver.look(works[0].door, [_looked_at(work) for work in works])
        except (PlatformError, Interrupted) as error:
            self._not_seen(works, error)
            return
        for work in works:
            try:
                self._judge(work, found.get(work.step.id))
            except (PlatformError, Interrupted) as error:
                self._not_seen([work], error)

    def _yield(self, works: list[_Work]) -> None:
        """How do their instances stand? While something is done to one, nothing is sent to what stands in it."""
        about = {work.step.id: _its_instance(work) for work in works}
        once = {task.step.found.id: task for task in about.values() if task.step.found is not None}
        driver = self._instances[works[0].task.parent.runtime if works[0].task.parent else ""]
        try:
            found = driver.look(works[0].door, list(once.values()))
        except (PlatformError, Interrupted) as error:
            self._not_seen(works, error)
            return
        for work in works:
            before = about[work.step.id].step.found
            fact = found.get(once[before.id].step.id) if before is not None else None
            self._judge_instance(work, before, fact)

    def _not_seen(self, works: Iterable[_Work], error: PlatformError | Interrupted) -> None:
        """A look that fails says nothing about the thing: it is pending as long as there is time."""
        for work in works:
            if isinstance(error, Interrupted):
                self._end(work, Status.PENDING, "stopped while it was looked at")
            elif isinstance(error, FOR_GOOD) or error.blame.status in {401, 403, 404}:
                self._fail(work, str(error), error.blame.message)
            else:
                self.events("look failed", {"address": str(work.step.address), "error": str(error)})
                self._later(work, f"the last look failed: {error}")

    def _look_from(self, work: _Work, at: float) -> None:
        if work.where is not Where.OVER:
            work.where, work.next_at, work.interval = Where.LOOKING, at, FIRST_LOOK

    def _later(self, work: _Work, said: str = "") -> None:
        """The same again, after an interval that grows."""
        work.said = said
        work.next_at = self.clock.now() + work.interval
        work.interval = min(work.interval * GROWTH, LAST_LOOK)

    # --- what a look means

    def _judge(self, work: _Work, fact: Fact | None) -> None:
        verb = work.step.verb
        if fact is None:
            self._judge_absent(work)
        elif work.held and fact.phase is not Phase.PENDING:
            self._judge_held(work, fact)
        elif verb is Verb.CREATE and not _is_ours(work, fact):
            if work.step.address.kind == "delivery" and work.attempts < RESTARTS:
                work.refused, work.where, work.next_at = None, Where.STARTING, self.clock.now()
            else:
                self._fail(work, _taken(work, fact), "")
        elif fact.phase is Phase.PENDING:
            work.refused = None
            self._later(work, fact.detail)
        elif verb is Verb.DELETE:
            self._fail(work, fact.detail or "it is still there", fact.detail)
        elif verb is Verb.CREATE and fact.phase is Phase.BROKEN:
            self._judge_failed_creation(work, fact)
        elif fact.phase is Phase.BROKEN:
            self._fail(work, fact.detail or "its operation failed", fact.detail)
        elif verb is Verb.UPDATE and _failed_update(work, fact):
            self._fail(work, fact.detail or "the update failed", fact.detail)
        else:
            if verb is Verb.UPDATE and work.change.send:
                work.driver.seal(work.door, work.task, fact)
            if verb in {Verb.CREATE, Verb.UPDATE} and work.change.wanted is not None:
                self._handover.note(work.change.wanted, fact)
            self._done(work, fact)

    def _judge_held(self, work: _Work, fact: Fact) -> None:
        """It is at rest: the write is sent, unless it was refused and nothing has changed since."""
        before = work.task.found
        same = before is not None and before.operation == fact.operation
        # What is sent depends on how it is now: labels that are there already, the last operation.
        work.task, work.held = replace(work.task, found=fact), False
        if work.refused is not None and same and _stands_in(work) is not None:
            work.where, work.next_at = Where.YIELDING, self.clock.now()
        else:
            self._send_again(work, same=same)

    def _judge_instance(self, work: _Work, before: Fact | None, fact: Fact | None) -> None:
        """What stands in an instance waits while something is being done to that."""
        if fact is None:
            self._fail(work, f"{_said_of(work.refused)}its instance is gone", "")
        elif fact.phase is Phase.PENDING:
            work.refused = None
            self._later(work, fact.detail)
        elif fact.phase is Phase.BROKEN and work.step.verb is Verb.CREATE:
            self._fail(work, f"{_said_of(work.refused)}its instance failed: {fact.detail}", fact.detail)
        else:
            same = before is not None and before.operation == fact.operation
            work.task = replace(work.task, parent=fact)
            self._send_again(work, same=same)

    def _send_again(self, work: _Work, *, same: bool) -> None:
        """The write once more; not if it was refused, and what it was refused for cannot have passed."""
        refused = work.refused
        if refused is not None and (same or work.attempts >= RESTARTS):
            self._fail(work, str(refused), refused.blame.message)
            return
        work.refused, work.where, work.next_at = None, Where.STARTING, self.clock.now()

    def _judge_absent(self, work: _Work) -> None:
        verb, found = work.step.verb, work.step.found
        going = found is not None and found.operation is not None and found.operation.type == "delete"
        if verb is Verb.DELETE or (verb is Verb.AWAIT and going):
            self._handover.forget(work.change)
            self._end(work, Status.DONE)
        elif verb is not Verb.CREATE:
            self._fail(work, "it is gone", "", hint="run again: it is planned anew")
        elif work.refused is not None and work.refused.blame.status in PERHAPS_BUSY and _stands_in(work):
            work.where, work.next_at = Where.YIELDING, self.clock.now()
        elif work.refused is not None:
            self._fail(work, str(work.refused), work.refused.blame.message)
        elif work.attempts >= RESTARTS:
            self._fail(work, f"it was created {work.attempts} times and is not there", "")
        else:
            work.where, work.next_at = Where.STARTING, self.clock.now()

    def _judge_failed_creation(self, work: _Work, fact: Fact) -> None:
        """Once, the failed one is replaced; never if the catalogue knows that it would be in vain."""
        known = self._known_error(work, fact.detail)
        if work.rebuilt or (known is not None and (known.final or known.gate)):
            self._fail(work, fact.detail or "the creation failed", fact.detail)
            return
        self.events("step", {**self._said(work, "is made again"), "error": fact.detail})
        work.task = replace(work.task, found=fact)
        work.refused, work.rebuilt = None, True
        self._ready(work)
        work.next_at = self.clock.now() + FIRST_LOOK

    def _known_error(self, work: _Work, text: str) -> KnownError | None:
        if work.change.wanted is None or not text:
            return None
        spec = work.change.wanted.spec
        if "service" not in spec:
            return None
        return self.catalogue.known_error(spec["service"], spec["plan"], text)

    # --- ends

    def _done(self, work: _Work, fact: Fact) -> None:
        if work.step.address.kind in {"instance", "key"}:
            self._known.newest[work.step.address] = fact
        self._end(work, Status.DONE)

    def _fail(self, work: _Work, error: str, text: str, hint: str = "") -> None:
        if work.step.verb is Verb.DATE:  # a key may have several old ones
            error = f"{work.step.name} got no day: {error}"
        known = self._known_error(work, text)
        if known is not None:
            hint = f"{known.meaning}; {known.hint}"
        self._end(work, Status.FAILED, error, hint=hint, gate=known is not None and known.gate)

    def _end(
        self,
        work: _Work,
        status: Status,
        error: str = "",
        *,
        hint: str = "",
        by: Address | None = None,
        gate: bool = False,
        refused: bool = False,
        notes: tuple[str, ...] = (),
    ) -> None:
        if work.outcome is not None:
            return  # an answer that came after the run was over
        spent = self.clock.now() - work.begun if work.begun else 0.0
        work.outcome = Outcome(
            work.step,
            status,
            error,
            hint,
            by,
            max(work.attempts, 1),
            spent,
            gate=gate,
            refused=refused,
            notes=notes,
        )
        work.where = Where.OVER
        self._tell(work, status)

    def _tell(self, work: _Work, what: str) -> None:
        self.events("step", self._said(work, what))

    def _said(self, work: _Work, what: str) -> dict[str, Any]:
        said: dict[str, Any] = {
            "address": str(work.step.address),
            "verb": str(work.step.verb),
            "generation": work.step.generation,
            "status": what,
        }
        if work.outcome is not None:
            said["seconds"] = round(work.outcome.seconds, 1)
            if work.outcome.error:
                said["error"] = work.outcome.error
        return said

    def _report(self) -> Report:
        unanswered = {id(work) for works in self._jobs.values() for work in works}
        for work in self._works.values():
            sent = work.where is Where.STARTING and id(work) in unanswered
            said = "sent, and not answered yet" if sent else UNFINISHED.get(work.where, "")
            self._end(work, Status.PENDING, f"{said}: {work.said}" if work.said else said)
        return Report(tuple(work.outcome for work in self._works.values() if work.outcome is not None))


def _runtime(step: Step, change: Change) -> str:
    if step.found is not None:
        return step.found.runtime
    return str(change.wanted.spec.get("runtime", "")) if change.wanted else ""


def _needs_plan(work: _Work) -> bool:
    """A creation, or a change of plan, starts when the plan is in the marketplace."""
    sends_plan = work.step.verb is Verb.CREATE or "plan" in work.task.spec
    return (
        work.step.address.kind == "instance"
        and work.step.verb in {Verb.CREATE, Verb.UPDATE}
        and sends_plan
        and work.task.plan is None
    )


def _is_marked(work: _Work) -> bool:
    """Entitlements, deliveries and access bindings carry no mark, and what fails there leaves nothing behind."""
    return work.step.address.kind not in {"entitlement", "delivery", "access"}


def _looked_at(work: _Work) -> Task:
    """What is asked about: how the thing stands after our write, or just when it is at rest."""
    return replace(work.task, step=replace(work.step, verb=Verb.AWAIT)) if work.held else work.task


def _stands_in(work: _Work) -> Fact | None:
    """The instance that a key stands in."""
    return work.task.parent if work.step.address.kind == "key" else None


def _its_instance(work: _Work) -> Task:
    """The question how the instance of a key stands now."""
    address = Address("instance", work.step.address.path[:2])
    parent = _stands_in(work)
    step = replace(work.step, verb=Verb.AWAIT, address=address, found=parent, requires=())
    return Task(step, None, work.task.subaccount, parent)


def _said_of(refused: PlatformError | None) -> str:
    return f"{refused}; " if refused else ""


def _leftover(work: _Work) -> Task:
    """The task to delete what is left of a failed creation."""
    return replace(work.task, step=replace(work.step, verb=Verb.DELETE))


def _is_ours(work: _Work, fact: Fact) -> bool:
    """Is what was found by name what we (or another run of the same spec) asked for?"""
    if work.step.address.kind == "delivery" and work.task.parcel is not None:
        # Where the consumer can say which key it holds, it must be the one that was handed over.
        return not fact.foreign and fact.attributes.get("identity") in (None, work.task.parcel.identity)
    if work.change.wanted is None or not _is_marked(work):
        return True
    return fact.mark == replace(work.change.wanted.mark, generation=work.step.generation)


def _taken(work: _Work, fact: Fact) -> str:
    whose = "carries no mark"
    if fact.mark is not None:
        mark = fact.mark
        whose = (
            f"belongs to owner {mark.owner!r}, spec {mark.spec!r} ({mark.name}, generation {mark.generation})"
        )
    said = f"{fact.kind} {fact.name!r} exists by now, and {fact.foreign or whose}"
    return f"{work.refused}; {said}" if work.refused else said


def _failed_update(work: _Work, fact: Fact) -> bool:
    """Did the last update fail, and was it not seen failed before?"""
    now, before = fact.operation, work.task.found.operation if work.task.found else None
    return now is not None and (now.type, now.state) == ("update", "failed") and now != before
