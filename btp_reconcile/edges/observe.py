"""Asks the drivers what is there → facts. One pass per endpoint, all its subaccounts together; reads only."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

from btp_reconcile.core import marks, recipes
from btp_reconcile.core.errors import PlatformError, SpecError
from btp_reconcile.core.kind import Driver
from btp_reconcile.core.model import Address, Fact, Facts, Phase, Problem, Subaccount, Wanted
from btp_reconcile.core.resolve import SERVICE_OF_RUNTIME, VARIABLES
from btp_reconcile.edges.clock import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from btp_reconcile.core.catalogue import Catalogue
    from btp_reconcile.core.kind import Door, KeyDriver, Kind
    from btp_reconcile.core.model import Resource
    from btp_reconcile.edges.keyring import Prover

T = TypeVar("T")

SPOKEN = {
    "entitlements": "the Entitlements API",
    "cloud_foundry": "Cloud Foundry",
    "service_manager": "Service Manager",
    "destination": "the Destination service",
    "accounts": "the Accounts service",
}


class AccessDriver(Driver, Protocol):
    """What the driver of our own bindings can do besides."""

    def opened(
        self, door: Door, place: Subaccount, resource: Resource
    ) -> tuple[Fact, Mapping[str, Any]] | None:
        """The binding and what it opens; None: it is not there."""


class Platform(Protocol):
    """Which door opens which service of which subaccount."""

    def door(self, service: str, subaccount: Subaccount) -> Door:
        """A door, signed in at its first request. Equal endpoints and users give the same door."""

    def has(self, service: str, subaccount: Subaccount) -> bool:
        """Are there credentials at all? Asks nobody."""

    def unassigned(self, service: str, subaccount: Subaccount) -> bool:
        """Is all there is a key of the environment, which opens one subaccount and does not say which?"""

    def entrust(self, service: str, subaccount: Subaccount, key: Mapping[str, Any]) -> None:
        """A service key that was read from the platform, and opens that service from now on."""

    def prover(self, catalogue: Catalogue) -> Prover:
        """Who tries out keys in this run."""

    def clock_off(self) -> float:
        """Seconds that our clock is ahead of the platform's, by the answers so far."""


@dataclass(frozen=True)
class _Round:
    """One endpoint and everything that is asked there."""

    service: str
    door: Door
    places: tuple[Subaccount, ...]
    about: Resource | None = None
    """A delivery: each is looked at by itself, so that one that cannot be seen hides no other."""
    perhaps: bool = False
    """Something may stand here, though no spec says so: if nobody answers, that hides nothing else."""

    @property
    def key(self) -> str:
        """What is noted as unseen if this fails."""
        return str(self.about.address) if self.about is not None else self.service


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
    seen: list[Fact] = []

    def ask(rounds: Sequence[_Round]) -> None:
        if not rounds:
            return
        with Threads(min(parallel, len(rounds))) as pool:
            jobs = [pool.submit(_ask, one, wanted, kinds) for one in rounds]
            while wait(jobs, timeout=1.0).not_done:
                if stopped():
                    raise Interrupted("stopped while the platform was looked at; nothing was changed")
        for one, job in zip(rounds, jobs, strict=True):
            found, problem = job.result()
            seen.extend(found)
            if problem is not None:
                unseen.update({(place.name, one.key): problem for place in one.places})

    seen.extend(_bootstrapped(wanted, kinds, platform, unseen))
    ask(list(_rounds(wanted, platform, unseen)))
    ask(list(_rounds_elsewhere(wanted, platform, seen, unseen)))
    if _opened(wanted):
        ask(list(_rounds_by_key(wanted, kinds, platform, seen, unseen)))
    return Facts(tuple(seen), unseen, clock_off=platform.clock_off())


def needed(wanted: Wanted) -> dict[str, list[tuple[Subaccount, bool]]]:
    """Service → subaccounts to ask about, and whether the spec cannot do without."""
    must: dict[tuple[str, str], bool] = {}
    for resource in wanted.resources:
        name = resource.address.subaccount
        if resource.address.kind in {"delivery", "access"}:
            continue
        if resource.address.kind == "destination":
            if name not in wanted.theirs:  # those of other shards are known, and not looked at
                must["destination", name] = True
        elif resource.address.kind == "entitlement":
            must.setdefault(("entitlements", name), False)
        else:
            must[SERVICE_OF_RUNTIME[resource.spec["runtime"]], name] = True
    for name, services in wanted.access.items():
        for service in ("cloud_foundry", "service_manager", "destination"):
            said = services.get(service)
            if isinstance(said, Mapping) and said.get("ensure") == "absent":
                continue
            if service in services and (service != "cloud_foundry" or wanted.subaccounts[name].cloud_foundry):
                must.setdefault((service, name), False)
    found: dict[str, list[tuple[Subaccount, bool]]] = defaultdict(list)
    for (service, name), mandatory in must.items():
        found[service].append((wanted.subaccounts[name], mandatory))
    return found


def _rounds(wanted: Wanted, platform: Platform, unseen: dict[tuple[str, str], Problem]) -> Iterator[_Round]:
    missing: list[Problem] = []
    doors: dict[tuple[str, str], tuple[Door, list[Subaccount]]] = {}
    later = _opened(wanted)
    for service, places in needed(wanted).items():
        for place, mandatory in places:
            if service == "destination" and place.name in later:
                continue
            if platform.has(service, place):
                door = platform.door(service, place)
                doors.setdefault((service, door.scope), (door, []))[1].append(place)
                continue
            if (place.name, service) in unseen:  # it is opened by a binding that is not there yet
                continue
            problem = _no_access(service, place)
            unseen[place.name, service] = problem
            if mandatory:
                missing.append(problem)
    if missing:
        raise SpecError(missing)
    for (service, _), (door, subaccounts) in doors.items():
        yield _Round(service, door, tuple(subaccounts))
    for delivery in wanted.of("delivery"):
        place = wanted.subaccounts[delivery.address.subaccount]
        service = f"sink/{delivery.spec['runtime']}"
        yield _Round(service, platform.door(service, place), (place,), delivery)


def entrusted(wanted: Wanted, kinds: Sequence[Kind], platform: Platform) -> Iterator[Fact]:
    """Bindings of our own that open a service; whoever looks there has them read first."""
    return _bootstrapped(wanted, kinds, platform, {})


def _bootstrapped(
    wanted: Wanted,
    kinds: Sequence[Kind],
    platform: Platform,
    unseen: dict[tuple[str, str], Problem],
) -> Iterator[Fact]:
    """Bindings of our own, one GET each, before everything else: they open doors."""
    drivers = next((kind.drivers for kind in kinds if kind.name == "access"), {})
    for resource in wanted.of("access"):
        driver = cast("AccessDriver", drivers[""])
        place = wanted.subaccounts[resource.address.subaccount]
        service = resource.address.path[1]
        if not platform.has(driver.service, place):
            raise SpecError([_no_access("entitlements", place)])
        try:
            found = driver.opened(platform.door(driver.service, place), place, resource)
        except PlatformError as error:
            for closed in (driver.service, service):
                unseen[place.name, closed] = Problem(
                    "platform/unseen",
                    f"{SPOKEN[driver.service]} could not be asked about {place.name}: {error}",
                    hint="nothing was planned there; other subaccounts are not affected",
                )
            continue
        if found is not None:
            yield found[0]
            if not resource.absent:
                platform.entrust(service, place, found[1])
        elif not resource.absent:
            unseen[place.name, service] = Problem(
                "access/later",
                f"{SPOKEN[service]} of subaccount {place.name} is opened by the access binding {resource.name}, "
                "which is not there yet",
                place.source,
                hint="what stands there is planned as soon as that binding is there",
            )


# --- where something may stand though no spec says so ---------------------------------------------------


def _rounds_elsewhere(
    wanted: Wanted, platform: Platform, seen: Sequence[Fact], unseen: dict[tuple[str, str], Problem]
) -> Iterator[_Round]:
    """The other runtime of subaccounts in which something is not where the spec says: perhaps it moves from there.

    With credentials that the spec does not name (environment, session, rehearsal); so what they do not open is said,
    and stands in nobody's way.
    """
    asked = {(place.name, service) for service, places in needed(wanted).items() for place, _ in places}
    doors: dict[tuple[str, str], tuple[Door, list[Subaccount]]] = {}
    for name in dict.fromkeys(_incomplete(wanted, seen, unseen)):
        place = wanted.subaccounts[name]
        for service in SERVICE_OF_RUNTIME.values():
            said = (name, service) in asked or service in wanted.access.get(name, ())
            if said or not platform.has(service, place) or not _can_be(service, place, wanted, platform):
                continue
            foundry = place.cloud_foundry
            if service == "cloud_foundry" and not (foundry is not None and foundry.space):
                why = "its cloud_foundry names no space, by which its organization is found"
                unseen[name, service] = _not_there_either(service, name, why)
                continue
            try:
                door = platform.door(service, place)
            except SpecError as error:
                unseen[name, service] = _not_there_either(service, name, error.problems[0].message)
                continue
            doors.setdefault((service, door.scope), (door, []))[1].append(place)
    for (service, _), (door, places) in doors.items():
        yield _Round(service, door, tuple(places), perhaps=True)


def _incomplete(
    wanted: Wanted, seen: Sequence[Fact], unseen: Mapping[tuple[str, str], Problem]
) -> Iterator[str]:
    """Subaccounts of instances of which nothing, or not every generation, is in the runtime that the spec says."""
    marked: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in seen:
        if fact.kind == "instance" and fact.mark is not None:
            marked[fact.subaccount, fact.mark.name].append(fact)
    for one in wanted.of("instance"):
        name = one.address.subaccount
        watched = one.observe_only and not one.beside
        if watched or (name, SERVICE_OF_RUNTIME[one.spec["runtime"]]) in unseen:
            continue
        numbers = {
            fact.mark.generation
            for called in marks.known_as(one)
            for fact in marked.get((name, called), ())
            if fact.mark is not None and marks.stands_for(fact, one)
        }
        if numbers != set(range(1, max(numbers, default=1) + 1)):
            yield name


def _can_be(service: str, place: Subaccount, wanted: Wanted, platform: Platform) -> bool:
    """Can things of this very subaccount stand there, and do these credentials lead to no other one?"""
    others = [one for one in wanted.subaccounts.values() if one.name != place.name]
    if service == "cloud_foundry":
        foundry = place.cloud_foundry
        homes = {(one.cloud_foundry.api, one.cloud_foundry.org) for one in others if one.cloud_foundry}
        return foundry is not None and bool(foundry.org) and (foundry.api, foundry.org) not in homes
    return not platform.unassigned(service, place) or not any(
        platform.unassigned(service, one) for one in others
    )


def _not_there_either(service: str, names: str, why: str) -> Problem:
    """Of the code of missing credentials: it is the same to a plan, which did without them."""
    return Problem(
        "access/none",
        f"whether something of these specs stands in {SPOKEN[service]} of {names} is not known: {why}",
        hint="the plan goes on without it: what moves from there is made anew and left there; see to these credentials "
        "before you move anything",
    )


# --- a service that is opened by a key of these very specs ----------------------------------------------


def _opened(wanted: Wanted) -> dict[str, Address]:
    """Subaccount → the declared key that opens its Destination service."""
    found = {}
    for name, services in wanted.access.items():
        given = services.get("destination")
        written = given.get("key") if isinstance(given, Mapping) else None
        key = recipes.address(written, name) if isinstance(written, str) else None
        if key is not None:
            found[name] = key
    return found


def _rounds_by_key(
    wanted: Wanted,
    kinds: Sequence[Kind],
    platform: Platform,
    seen: Sequence[Fact],
    unseen: dict[tuple[str, str], Problem],
) -> Iterator[_Round]:
    """Read the keys, which is known only now to be there, and open the doors."""
    resources = {one.address: one for one in wanted.resources}
    drivers = next((kind.drivers for kind in kinds if kind.name == "key"), {})
    for name, address in _opened(wanted).items():
        place, key = wanted.subaccounts[name], resources.get(address)
        fact = _usable(key, resources, seen) if key is not None else None
        if fact is None:
            unseen[name, "destination"] = Problem(
                "access/later",
                f"the Destination service of subaccount {name} is opened by {address}, which is not there yet",
                place.source,
                hint="its destinations are planned as soon as that key is there",
            )
            continue
        driver = cast("KeyDriver", drivers[fact.runtime])
        try:
            platform.entrust(
                "destination", place, driver.credentials(platform.door(driver.service, place), fact)
            )
        except PlatformError as error:
            unseen[name, "destination"] = Problem(
                "platform/unseen",
                f"{address}, which opens the Destination service of subaccount {name}, could not be read: {error}",
                hint="nothing was planned there; other subaccounts are not affected",
            )
            continue
        yield _Round("destination", platform.door("destination", place), (place,))


def _usable(key: Resource, resources: Mapping[Address, Resource], seen: Sequence[Fact]) -> Fact | None:
    """The newest generation of a key that is ready; one that is to be adopted, or only watched, is known by its name."""
    instance = resources.get(Address("instance", key.address.path[:2]))
    parents = {one.id for one in seen if instance is not None and _stands_for(one, instance)}
    found = [
        one
        for one in seen
        if one.kind == "key"
        and one.phase is Phase.READY
        and one.subaccount == key.address.subaccount
        and one.parent in parents
        and _stands_for(one, key)
    ]
    return max(found, key=lambda one: one.mark.generation if one.mark else 0, default=None)


def _stands_for(fact: Fact, resource: Resource) -> bool:
    if marks.stands_for(fact, resource):
        return True
    here = (fact.kind, fact.subaccount) == (resource.address.kind, resource.address.subaccount)
    if not here or fact.mark is not None or not (resource.adopt or resource.observe_only):
        return False
    return marks.called(fact, resource)


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
    if one.about is not None:
        wanted = replace(wanted, resources=(one.about,))
    try:
        for kind in kinds:
            for driver in kind.drivers.values():
                if driver.service == one.service:
                    seen.extend(driver.observe(one.door, one.places, wanted, seen))
    except PlatformError as error:
        return [], _blind(one, error)
    return seen, None


def _blind(one: _Round, error: PlatformError) -> Problem:
    names = ", ".join(place.name for place in one.places)
    if one.perhaps:
        return _not_there_either(one.service, names, str(error))
    if one.about is None:
        said = f"{SPOKEN[one.service]} could not be asked about {names}: {error}"
        hint = "nothing was planned there; other subaccounts are not affected"
    else:
        where = f"{one.about.spec['runtime']} {one.about.spec['place']}"
        said = f"{where} could not be asked about {one.about.address}: {error}"
        hint = "nothing was planned for this delivery; its key and other deliveries are not affected"
    return Problem("platform/unseen", said, hint=hint)


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
