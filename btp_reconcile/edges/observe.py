"""Asks the drivers what is there → facts. One pass per endpoint, all its subaccounts together; reads only."""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from btp_reconcile.core.errors import PlatformError, SpecError
from btp_reconcile.core.model import Fact, Facts, Problem, Subaccount, Wanted
from btp_reconcile.core.resolve import SERVICE_OF_RUNTIME, VARIABLES
from btp_reconcile.edges.clock import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from btp_reconcile.core.kind import Door, Kind

T = TypeVar("T")

SPOKEN = {
    "entitlements": "the Entitlements API",
    "cloud_foundry": "Cloud Foundry",
    "service_manager": "Service Manager",
}


class Platform(Protocol):
    """Which door opens which service of which subaccount."""

    def door(self, service: str, subaccount: Subaccount) -> Door:
        """A door, signed in at its first request. Equal endpoints and users give the same door."""

    def has(self, service: str, subaccount: Subaccount) -> bool:
        """Are there credentials at all? Asks nobody."""


@dataclass(frozen=True)
class _Round:
    """One endpoint and everything that is asked there."""

    service: str
    door: Door
    places: tuple[Subaccount, ...]


def facts(
    wanted: Wanted,
    kinds: Sequence[Kind],
    platform: Platform,
    parallel: int = 8,
    stopped: Callable[[], bool] = lambda: False,
) -> Facts:
    """What the platform says about everything wanted, and what could not be seen.

    Raises SpecError when credentials are missing that the spec cannot do without, and Interrupted when asked to stop.
    """
    unseen: dict[tuple[str, str], Problem] = {}
    rounds = list(_rounds(wanted, platform, unseen))
    seen: list[Fact] = []
    with Threads(min(parallel, len(rounds))) as pool:
        jobs = [pool.submit(_ask, one, wanted, kinds) for one in rounds]
        while wait(jobs, timeout=1.0).not_done:
            if stopped():
                raise Interrupted("stopped while the platform was looked at; nothing was changed")
    for one, job in zip(rounds, jobs, strict=True):
        found, problem = job.result()
        seen.extend(found)
        if problem is not None:
            unseen.update({(place.name, one.service): problem for place in one.places})
    return Facts(tuple(seen), unseen)


def needed(wanted: Wanted) -> dict[str, list[tuple[Subaccount, bool]]]:
    """Service → subaccounts to ask about, and whether the spec cannot do without."""
    must: dict[tuple[str, str], bool] = {}
    for resource in wanted.resources:
        name = resource.address.subaccount
        if resource.address.kind == "entitlement":
            must.setdefault(("entitlements", name), False)
        else:
            must[SERVICE_OF_RUNTIME[resource.spec["runtime"]], name] = True
    for name, services in wanted.access.items():
        for service in ("cloud_foundry", "service_manager"):
            if service in services and (service != "cloud_foundry" or wanted.subaccounts[name].cloud_foundry):
                must.setdefault((service, name), False)
    found: dict[str, list[tuple[Subaccount, bool]]] = defaultdict(list)
    for (service, name), mandatory in must.items():
        found[service].append((wanted.subaccounts[name], mandatory))
    return found


def _rounds(wanted: Wanted, platform: Platform, unseen: dict[tuple[str, str], Problem]) -> Iterator[_Round]:
    missing: list[Problem] = []
    doors: dict[tuple[str, str], tuple[Door, list[Subaccount]]] = {}
    for service, places in needed(wanted).items():
        for place, mandatory in places:
            if platform.has(service, place):
                door = platform.door(service, place)
                doors.setdefault((service, door.scope), (door, []))[1].append(place)
                continue
            problem = _no_access(service, place)
            unseen[place.name, service] = problem
            if mandatory:
                missing.append(problem)
    if missing:
        raise SpecError(missing)
    for (service, _), (door, subaccounts) in doors.items():
        yield _Round(service, door, tuple(subaccounts))


def _no_access(service: str, place: Subaccount) -> Problem:
    section = "central" if service == "entitlements" else service
    variables = " or ".join(VARIABLES[section])
    return Problem(
        "access/none",
        f"no credentials for {SPOKEN[service]} of subaccount {place.name}",
        place.source,
        hint=f"say access.{section} in the spec or set {variables}; or rehearse without any: add --sandbox",
    )


def _ask(one: _Round, wanted: Wanted, kinds: Iterable[Kind]) -> tuple[list[Fact], Problem | None]:
    """Every driver of one endpoint, in the order of the kinds: keys are asked for when instances are known."""
    seen: list[Fact] = []
    try:
        for kind in kinds:
            for driver in kind.drivers.values():
                if driver.service == one.service:
                    seen.extend(driver.observe(one.door, one.places, wanted, seen))
    except PlatformError as error:
        names = ", ".join(place.name for place in one.places)
        return [], Problem(
            "platform/unseen",
            f"{SPOKEN[one.service]} could not be asked about {names}: {error}",
            hint="nothing was planned there; other subaccounts are not affected",
        )
    return seen, None


class Threads:
    """Threads that do what they are handed, in order. They end with the program, whatever they wait for.

    (An executor of the standard library is waited for at the end: one request that hangs would keep the program.)
    """

    def __init__(self, number: int) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = (
            SimpleQueue()
        )
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(number)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        """What has not begun does not begin any more."""
        with suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job[0].cancel()
        for _ in self._threads:
            self._jobs.put(None)

    def submit(self, work: Callable[..., T], *given: Any) -> Future[T]:
        """Have it done when a thread is free."""
        future: Future[T] = Future()
        self._jobs.put((future, work, given))
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work, given = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work(*given))
            except BaseException as error:  # noqa: BLE001 - handed on to whoever asks for the result
                future.set_exception(error)
