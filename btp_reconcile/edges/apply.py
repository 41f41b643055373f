"""Runs a plan's steps: starts them, looks until each is at rest, blocks what stood on a failure.

Only here is waited. A driver starts work and says nothing about its end; what is seen afterwards is all that is
believed. So a lost answer, a killed run and two runs at once all come down to the same thing: look, then go on.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Any

from btp_reconcile.core import fingerprint
from btp_reconcile.core.errors import LostResponse, PlatformError
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
    Secret,
    Seen,
    Status,
    Step,
    StepId,
    Verb,
    Wanted,
)
from btp_reconcile.edges.clock import Clock, Interrupted

if TYPE_CHECKING:
    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.kind import Door, Driver, Kind
    from btp_reconcile.edges.observe import Platform

FIRST_LOOK, LAST_LOOK, GROWTH = 2.0, 15.0, 1.5
"""Seconds between looks: 2, growing to 15."""
TOGETHER = 0.5
"""Looks that are due within so many seconds are made in one request."""
MOST_THREADS = 32
RESTARTS = 3
"""How often a creation whose answer was lost, and that is not there, is tried again."""
WAITS_ITS_TURN = frozenset(
    {
        "CF-AsyncServiceInstanceOperationInProgress",
        "CF-AsyncServiceBindingOperationInProgress",
        "ConcurrentOperationInProgress",
        "OperationInProgress",
        "30004",
    }
)
"""Codes that mean: something else is being done to it just now. (CF 60016 and 90008, Service Manager, CIS.)"""

Events = Callable[[str, Mapping[str, Any]], None]


class Where(StrEnum):
    """Where a step stands."""

    WAITING = "waiting"
    PREPARING = "preparing"
    CLEARING = "clearing"
    STARTING = "starting"
    LOOKING = "looking"
    OVER = "over"


@dataclass
class _Work:
    """One step on its way. The only thing in this program with a life, and only inside one run."""

    step: Step
    change: Change
    driver: Driver
    door: Door
    where: Where = Where.WAITING
    task: Task | None = None
    missing: set[StepId] = field(default_factory=set)
    busy: bool = False
    counted: bool = False
    next_at: float = 0.0
    interval: float = FIRST_LOOK
    begun: float = 0.0
    attempts: int = 0
    lost: bool = False
    refused: PlatformError | None = None
    rebuilt: bool = False
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Limits:
    """`deadline` in seconds for the whole run; `parallel` 1 means strictly one request after the other."""

    deadline: float = 1800.0
    parallel: int = 8


@dataclass
class Run:
    """Everything one run needs. Use `run()`."""

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
    works: dict[StepId, _Work] = field(default_factory=dict)
    dependents: dict[StepId, list[StepId]] = field(default_factory=lambda: defaultdict(list))
    made: dict[Address, Fact] = field(default_factory=dict)
    """The newest generation of each instance, as far as it is known."""
    plans: dict[tuple[str, str, str, str], Fact] = field(default_factory=dict)
    spaces: dict[tuple[str, str], Fact] = field(default_factory=dict)
    instances: dict[str, Fact] = field(default_factory=dict)
    jobs: dict[Future[None], list[_Work]] = field(default_factory=dict)
    due: list[tuple[float, int, _Work]] = field(default_factory=list)
    queue: deque[_Work] = field(default_factory=deque)
    order: Iterator[int] = field(default_factory=count)
    open: int = 0
    room: int = 1

    def run(self) -> Report:
        """Walk the steps to their ends, or to the deadline."""
        self._set_up()
        until = self.clock.now() + self.limits.deadline
        scopes = len({work.door.scope for work in self.works.values()})
        threads = min(MOST_THREADS, self.limits.parallel * max(scopes, 1))
        self.room = 1 if self.limits.parallel == 1 else 2 * threads
        self.open = len(self.works)
        with _executor(threads if self.limits.parallel > 1 else 1) as pool:
            for work in [one for one in self.works.values() if not one.missing]:
                self._begin(work)
                self._settle([work])
            while self.open and not self.stopped() and self.clock.now() < until:
                self._submit(pool)
                if not self._pause(until):
                    break
            self._drain()
        return self._report()

    # --- before

    def _set_up(self) -> None:
        changes = {change.address: change for change in self.plan.changes}
        kinds = {kind.name: kind for kind in self.kinds}
        for step in self.plan.steps:
            change = changes[step.address]
            driver = kinds[step.address.kind].drivers[self._runtime(step, change)]
            subaccount = self.wanted.subaccounts[step.address.subaccount]
            door = self.platform.door(driver.service, subaccount)
            self.works[step.id] = _Work(step, change, driver, door, missing=set(step.requires))
            for one in step.requires:
                self.dependents[one].append(step.id)
        for fact in self.facts.all:
            if fact.kind == "plan":
                service = str(fact.attributes.get("service"))
                self.plans.setdefault((fact.subaccount, fact.runtime, service, fact.name), fact)
            elif fact.kind == "space":
                self.spaces[fact.subaccount, fact.name] = fact
            elif fact.kind == "instance":
                self.instances[fact.id] = fact
        for change in self.plan.changes:
            if change.address.kind == "instance" and change.found is not None:
                self.made.setdefault(change.address, change.found)

    @staticmethod
    def _runtime(step: Step, change: Change) -> str:
        if step.found is not None:
            return step.found.runtime
        return str(change.wanted.spec.get("runtime", "")) if change.wanted else ""

    # --- the loop: all of it on one thread

    def _settle(self, works: Iterable[_Work]) -> None:
        """Take note of where these stand: what they free, what they block, when they are due."""
        todo = list(works)
        while todo:
            work = todo.pop()
            work.busy = False
            if work.where is not Where.OVER:
                heapq.heappush(self.due, (work.next_at, next(self.order), work))
                continue
            if work.counted:
                continue
            work.counted = True
            self.open -= 1
            for one in self.dependents[work.step.id]:
                waiting = self.works[one]
                waiting.missing.discard(work.step.id)
                if waiting.where is not Where.WAITING:
                    continue
                if work.outcome is not None and work.outcome.status is not Status.DONE:
                    self._block(waiting, work.outcome)
                    todo.append(waiting)
                elif not waiting.missing:
                    self._begin(waiting)
                    todo.append(waiting)

    def _block(self, work: _Work, before: Outcome) -> None:
        """A failure blocks only what stands on it, and says so."""
        status = Status.PENDING if before.status is Status.PENDING else Status.BLOCKED
        self._end(
            work,
            status,
            f"needs {before.step.address}",
            by=before.by or before.step.address,
            gate=before.gate,
        )

    def _submit(self, pool: Executor) -> None:
        """Hand out what is due: looks first, because they free others; then as many writes as fit."""
        now = self.clock.now()
        looks: list[_Work] = []
        while self.due and self.due[0][0] <= now + (TOGETHER if looks else 0.0):
            work = heapq.heappop(self.due)[2]
            if work.busy or work.where is Where.OVER:
                continue
            work.busy = True
            if work.where is Where.STARTING:
                self.queue.append(work)
            else:
                looks.append(work)
        for job, works in self._look_jobs(looks):
            self.jobs[pool.submit(job, works)] = works
        while self.queue and len(self.jobs) < self.room:
            works = self._start_together()
            self.jobs[pool.submit(self._start, works)] = works

    def _start_together(self) -> list[_Work]:
        """The next write; with all others of its subaccount where the service takes them in one request."""
        first = self.queue.popleft()
        if not first.driver.batch:
            return [first]
        key = (first.driver, first.door.scope, first.step.address.subaccount, first.step.verb)
        same = [
            work
            for work in self.queue
            if (work.driver, work.door.scope, work.step.address.subaccount, work.step.verb) == key
        ]
        self.queue = deque(work for work in self.queue if work not in same)
        return [first, *same]

    def _pause(self, until: float) -> bool:
        """Wait for an answer or for the next look. False when asked to stop."""
        now = self.clock.now()
        soon = self.due[0][0] - now if self.due else until - now
        if self.jobs:
            done, _ = wait(self.jobs, timeout=max(0.0, min(soon, 1.0)), return_when=FIRST_COMPLETED)
            for job in done:
                job.result()
                self._settle(self.jobs.pop(job))
            return True
        try:
            self.clock.sleep(max(0.0, min(soon, until - now)))
        except Interrupted:
            return False
        return True

    def _drain(self) -> None:
        """What is already sent is waited for: that takes one answer, not one operation."""
        for job in list(self.jobs):
            if job.cancel():
                self.jobs.pop(job)
        wait(self.jobs)
        for job in self.jobs:
            job.result()

    def _begin(self, work: _Work) -> None:
        work.begun = work.next_at = self.clock.now()
        work.task = self._task(work)
        self.events("step", self._said(work, "started"))
        if work.step.verb is Verb.AWAIT:
            work.where = Where.LOOKING
        elif work.step.verb is Verb.CREATE and self._needs_plan(work):
            work.where = Where.PREPARING
        else:
            work.where = self._first(work)

    @staticmethod
    def _first(work: _Work) -> Where:
        leftover = work.step.verb is Verb.CREATE and work.task is not None and work.task.found is not None
        return Where.CLEARING if leftover and not work.driver.replaces_failed else Where.STARTING

    @staticmethod
    def _needs_plan(work: _Work) -> bool:
        return work.step.address.kind == "instance" and work.task is not None and work.task.plan is None

    # --- tasks

    def _task(self, work: _Work) -> Task:
        change, step = work.change, work.step
        resource = change.wanted
        spec: Mapping[str, Any] = change.send
        if step.verb is Verb.CREATE and resource is not None and not spec:
            spec = resource.spec
        return Task(
            step,
            resource,
            self.wanted.subaccounts[step.address.subaccount],
            step.found,
            self._parent(step, change),
            self._plan(change, step),
            spec,
            self._fingerprint(change, step),
        )

    def _parent(self, step: Step, change: Change) -> Fact | None:
        if step.address.kind == "instance" and change.wanted is not None:
            return self.spaces.get((step.address.subaccount, str(change.wanted.spec.get("space"))))
        if step.address.kind != "key":
            return None
        if step.found is not None and step.verb is not Verb.CREATE:
            return self.instances.get(step.found.parent or "")
        return self.made.get(Address("instance", step.address.path[:2]))

    def _plan(self, change: Change, step: Step) -> Fact | None:
        if step.address.kind != "instance" or change.wanted is None:
            return None
        spec = change.wanted.spec
        known = self.plans.get((step.address.subaccount, spec["runtime"], spec["service"], spec["plan"]))
        if known is not None:
            return known
        found = change.found
        same = (
            found is not None
            and found.runtime == spec["runtime"]
            and (found.attributes.get("service"), found.attributes.get("plan"))
            == (spec["service"], spec["plan"])
        )
        if found is None or not same or not found.attributes.get("plan_id"):
            return None
        return Fact(
            "plan",
            str(found.attributes["plan_id"]),
            spec["plan"],
            found.subaccount,
            attributes={"service": spec["service"]},
            runtime=found.runtime,
        )

    def _fingerprint(self, change: Change, step: Step) -> str:
        """The record to write beside the thing: of what is sent, or what is there if that can be believed."""
        if change.wanted is None or not change.wanted.name:
            return ""
        key = self.wanted.access.get(step.address.subaccount, {}).get("fingerprint_key")
        if step.verb is Verb.CREATE or "parameters" in change.send:
            parameters = change.wanted.spec.get("parameters", {})
            return fingerprint.write(parameters, key if isinstance(key, Secret) else None)
        if step.found is not None:
            believed = fingerprint.trust(step.found.fingerprint, step.found.operation).seen is Seen.ASSUMED
            return fingerprint.bare(step.found.fingerprint) if believed else ""
        return ""

    # --- jobs: each runs on a thread of the pool and touches only its own works

    def _look_jobs(self, due: Sequence[_Work]) -> Iterable[tuple[Callable[[list[_Work]], None], list[_Work]]]:
        """One question for all that is asked of one endpoint."""
        together: dict[tuple[Where, Driver, str], list[_Work]] = defaultdict(list)
        for work in due:
            together[work.where, work.driver, work.door.scope].append(work)
        jobs = {Where.PREPARING: self._prepare, Where.CLEARING: self._clear, Where.LOOKING: self._look}
        for (where, _, _), works in together.items():
            yield jobs[where], works

    def _start(self, works: list[_Work]) -> None:
        """Send the write. One refused batch is sent again item by item."""
        try:
            self._send(works)
        except Interrupted:
            for work in works:
                self._end(work, Status.PENDING, "stopped before it was sent")
        except PlatformError as error:
            if len(works) > 1:
                for work in works:
                    self._start([work])
                return
            self._started_badly(works[0], error)
        else:
            for work in works:
                work.attempts += 1
                self._look_soon(work)

    def _send(self, works: list[_Work]) -> None:
        first = works[0]
        tasks = [work.task for work in works if work.task is not None]
        if first.step.verb is Verb.CREATE:
            first.driver.create(first.door, tasks)
        elif first.step.verb is Verb.UPDATE:
            first.driver.update(first.door, tasks)
        else:
            if self._blocked_delete(first, tasks[0]):
                return
            first.driver.delete(first.door, tasks)

    def _blocked_delete(self, work: _Work, task: Task) -> bool:
        """The platform takes along what stands in an instance. What is not ours refuses the delete."""
        blockers = work.driver.blockers(work.door, task)
        if not blockers:
            return False
        self._end(
            work,
            Status.FAILED,
            f"not deleted, because this would be lost with it: {', '.join(blockers)}",
            hint="release these first, or take the instance out of ensure: absent",
            refused=True,
        )
        return True

    def _started_badly(self, work: _Work, error: PlatformError) -> None:
        work.attempts += 1
        blame = error.blame
        if blame.code in WAITS_ITS_TURN:
            work.next_at = self.clock.now() + work.interval
            work.interval = min(work.interval * GROWTH, LAST_LOOK)
            self.events("step", self._said(work, "waits its turn"))
        elif isinstance(error, LostResponse):
            work.lost = True
            self._look_soon(work)
        elif work.step.verb is Verb.DELETE and blame.status in {404, 410}:
            self._end(work, Status.DONE)
        elif work.step.verb is Verb.CREATE and blame.status in {400, 409, 422} and work.refused is None:
            work.refused = error  # perhaps it is there already: a look decides, not the text
            self._look_soon(work)
        else:
            self._fail(work, str(error), blame.message)

    def _look_soon(self, work: _Work) -> None:
        if work.where is Where.OVER:
            return
        work.where = Where.LOOKING
        work.interval = FIRST_LOOK
        soon = work.refused is not None or work.lost
        work.next_at = self.clock.now() + (0.0 if soon else FIRST_LOOK)

    def _prepare(self, works: list[_Work]) -> None:
        """Wait until the plan is visible, all of one endpoint with one question."""
        tasks = [work.task for work in works if work.task is not None]
        try:
            found = works[0].driver.prepare(works[0].door, tasks)
        except (PlatformError, Interrupted) as error:
            for work in works:
                self._again_or_fail(work, error)
            return
        for work in works:
            fact = found.get(work.step.id)
            if fact is None or work.task is None:
                self._later(work)
                continue
            work.task = replace(work.task, plan=fact)
            work.where, work.next_at, work.interval = self._first(work), self.clock.now(), FIRST_LOOK

    def _clear(self, works: list[_Work]) -> None:
        """Where a failed leftover blocks the name, it is deleted first; then the creation starts."""
        for work in works:
            try:
                self._clear_one(work)
            except (PlatformError, Interrupted) as error:
                self._again_or_fail(work, error)

    def _clear_one(self, work: _Work) -> None:
        task = work.task
        if task is None or task.found is None:
            work.where = Where.STARTING
            return
        gone = replace(task, step=replace(task.step, verb=Verb.DELETE))
        if not work.rebuilt:
            try:
                work.driver.delete(work.door, [gone])
            except PlatformError as error:
                if error.blame.status not in {404, 410}:
                    raise
            work.rebuilt = True
        fact = work.driver.look(work.door, [gone]).get(task.step.id)
        if fact is None:
            work.task = replace(task, found=None)
            work.where, work.next_at = Where.STARTING, self.clock.now()
        elif fact.phase is Phase.PENDING:
            self._later(work)
        else:
            self._fail(work, f"the failed leftover could not be deleted: {fact.detail}", fact.detail)

    def _look(self, works: list[_Work]) -> None:
        """How do these stand now? One question for all that are pending at one endpoint."""
        tasks = [work.task for work in works if work.task is not None]
        try:
            found = works[0].driver.look(works[0].door, tasks)
        except (PlatformError, Interrupted) as error:
            for work in works:
                self._again_or_fail(work, error)
            return
        for work in works:
            try:
                self._judge(work, found.get(work.step.id))
            except (PlatformError, Interrupted) as error:
                self._again_or_fail(work, error)

    def _again_or_fail(self, work: _Work, error: Exception) -> None:
        """A look that fails says nothing about the thing: it is pending as long as there is time."""
        if isinstance(error, PlatformError) and error.blame.status in {401, 403, 404}:
            self._fail(work, str(error), error.blame.message)
        elif isinstance(error, PlatformError):
            self.events("look failed", {"address": str(work.step.address), "error": str(error)})
            self._later(work)
        else:
            self._end(work, Status.PENDING, "stopped while it was looked at")

    def _later(self, work: _Work) -> None:
        work.next_at = self.clock.now() + work.interval
        work.interval = min(work.interval * GROWTH, LAST_LOOK)

    # --- what a look means

    def _judge(self, work: _Work, fact: Fact | None) -> None:
        if fact is None:
            self._judge_absent(work)
        elif fact.phase is Phase.PENDING:
            work.refused = None if self._is_ours(work, fact) else work.refused
            if work.refused is not None:
                self._fail_refused(work, fact)
            else:
                self._later(work)
        elif work.step.verb is Verb.DELETE:
            self._fail(work, fact.detail or "it is still there", fact.detail)
        elif work.step.verb is Verb.CREATE:
            self._judge_created(work, fact)
        elif work.step.verb is Verb.UPDATE:
            self._judge_updated(work, fact)
        elif fact.phase is Phase.BROKEN:
            self._fail(work, fact.detail or "its operation failed", fact.detail)
        else:
            self._finish(work, fact)

    def _judge_absent(self, work: _Work) -> None:
        deleting = work.step.found is not None and work.step.found.operation is not None
        if work.step.verb is Verb.DELETE or (work.step.verb is Verb.AWAIT and deleting):
            self._end(work, Status.DONE)
        elif work.step.verb is not Verb.CREATE:
            self._fail(work, "it is gone", "")
        elif work.refused is not None:
            self._fail(work, str(work.refused), work.refused.blame.message)
        elif work.attempts >= RESTARTS:
            self._fail(work, f"it was created {work.attempts} times and is not there", "")
        else:
            work.lost = False
            work.where, work.next_at = Where.STARTING, self.clock.now()

    def _judge_created(self, work: _Work, fact: Fact) -> None:
        if not self._is_ours(work, fact):
            self._fail_refused(work, fact)
            return
        if fact.phase is Phase.READY:
            self._finish(work, fact)
            return
        known = self._known(work, fact.detail)
        if work.rebuilt or (known is not None and (known.final or known.gate)):
            self._fail(work, fact.detail or "the creation failed", fact.detail)
            return
        self.events("step", {**self._said(work, "is made again"), "error": fact.detail})
        work.task = replace(work.task, found=fact) if work.task else None
        work.where = Where.STARTING if work.driver.replaces_failed else Where.CLEARING
        work.rebuilt = work.driver.replaces_failed
        work.next_at = self.clock.now() + FIRST_LOOK
        work.refused, work.lost = None, False

    def _judge_updated(self, work: _Work, fact: Fact) -> None:
        operation = fact.operation
        if operation is not None and operation.type == "update" and operation.state == "failed":
            before = work.step.found.operation if work.step.found else None
            if before != operation:
                self._fail(work, fact.detail or "the update failed", fact.detail)
                return
        if fact.phase is Phase.BROKEN:
            self._fail(work, fact.detail or "the update failed", fact.detail)
            return
        if work.task is not None and work.change.send:
            work.driver.seal(work.door, work.task, fact)
        self._finish(work, fact)

    def _is_ours(self, work: _Work, fact: Fact) -> bool:
        """Is what was found by name what we (or another run of the same spec) asked for?"""
        if (
            work.step.verb is not Verb.CREATE
            or work.step.address.kind == "entitlement"
            or not work.change.wanted
        ):
            return True
        mark = work.change.wanted.mark
        return fact.mark == replace(mark, generation=work.step.generation)

    def _fail_refused(self, work: _Work, fact: Fact) -> None:
        said = f"{fact.kind} {fact.name!r} exists by now and does not carry our mark"
        self._fail(work, f"{work.refused}; {said}" if work.refused else said, "")

    def _known(self, work: _Work, text: str) -> Any:
        if work.change.wanted is None or not text:
            return None
        spec = work.change.wanted.spec
        return self.catalogue.known_error(spec["service"], spec["plan"], text)

    # --- ends

    def _finish(self, work: _Work, fact: Fact) -> None:
        if work.step.address.kind == "instance":
            self.made[work.step.address] = fact
        self._end(work, Status.DONE)

    def _fail(self, work: _Work, error: str, text: str) -> None:
        known = self._known(work, text)
        hint = f"{known.meaning}; {known.hint}" if known else ""
        self._end(work, Status.FAILED, error, hint=hint, gate=bool(known and known.gate))

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
    ) -> None:
        spent = self.clock.now() - work.begun if work.begun else 0.0
        work.outcome = Outcome(
            work.step, status, error, hint, by, max(work.attempts, 1), spent, gate=gate, refused=refused
        )
        work.where = Where.OVER
        self.events("step", self._said(work, status))

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
        for work in self.works.values():
            if work.outcome is None:
                started = work.where in {Where.LOOKING, Where.CLEARING}
                said = "accepted, not finished yet" if started else "not started yet"
                if work.where is Where.PREPARING:
                    said = "its plan is not visible in the marketplace yet"
                self._end(work, Status.PENDING, said)
        return Report(tuple(work.outcome for work in self.works.values() if work.outcome is not None))


class _Inline(Executor):
    """Does everything at once, in the order it was asked for: with it a run is repeatable to the request."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - handed on by the future, as every executor does
            future.set_exception(error)
        return future


def _executor(parallel: int) -> Executor:
    return ThreadPoolExecutor(max_workers=parallel) if parallel > 1 else _Inline()
