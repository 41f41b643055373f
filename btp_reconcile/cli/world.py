"""Which world a command works in: the real one, or the embedded sandbox."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import re
import signal
from collections import Counter
from dataclasses import dataclass, field, replace
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from btp_reconcile.cli import talk
from btp_reconcile.core import report
from btp_reconcile.core.errors import Blame, PlatformError, UsageError
from btp_reconcile.core.resolve import api_of_landscape
from btp_reconcile.core.sink import Around
from btp_reconcile.edges import files, load
from btp_reconcile.edges.clock import MovingClock, WallClock
from btp_reconcile.edges.consumers import Consumers, Rehearsed
from btp_reconcile.pipeline import World
from btp_reconcile.sinks import SINKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from btp_reconcile.cli.talk import Events
    from btp_reconcile.core.model import Subaccount, Wanted
    from btp_reconcile.edges.access import Platform
    from btp_reconcile.edges.client import Client
    from btp_reconcile.edges.tokens import People
    from btp_reconcile.sandbox import Sandbox

STATE = "RECONCILE_SANDBOX"
"""The environment variable that says where the sandbox keeps its world."""

PATIENCE = 4.0
"""Seconds that a run which was asked to stop may take for answers that are on their way."""

_LANDSCAPE = re.compile(r"https://api\.cf\.([a-z0-9-]+)\.(?:hana\.ondemand\.com|platform\.sapcloud\.cn)")


def state_file(given: str | None) -> Path:
    """Where the sandbox keeps its world: --state, $RECONCILE_SANDBOX, or the user's state folder."""
    if given or os.environ.get(STATE):
        return Path(given or os.environ[STATE])
    folder = os.environ.get("XDG_STATE_HOME")
    home = _home()
    if not folder and home is None:
        raise UsageError(f"there is no home folder to keep the sandbox in: say --state FILE or set {STATE}")
    return Path(folder or f"{home}/.local/state") / "btp-reconcile" / "sandbox.json"


def _home() -> Path | None:
    """The user's folder. In a container there may be none."""
    try:
        return Path.home()
    except RuntimeError:
        return None


@dataclass
class Setting:
    """What the options say about the world."""

    sandbox: bool
    state: str | None
    allow_host: tuple[str, ...]
    parallel: int
    allow_commands: bool = False
    sandbox_deliver: tuple[str, ...] = ()
    lasting: Lasting | None = None
    """Of a service: what its worlds have in common."""

    @contextlib.contextmanager
    def world(self, events: Events) -> Iterator[World]:
        """The world, for as long as a command needs it."""
        if self.state and not self.sandbox:
            raise UsageError("--state is where --sandbox keeps its world: add --sandbox, or leave it out")
        names = [sink.name for sink in SINKS]
        for name in self.sandbox_deliver:
            if not self.sandbox:
                raise UsageError("--sandbox-deliver belongs to a rehearsal: add --sandbox, or leave it out")
            if name not in names:
                said = talk.nearest(name, names)
                raise UsageError(f"--sandbox-deliver: there is no sink {name}{said}")
        if self.sandbox:
            with self._rehearsal(events) as world:
                yield world
        else:
            with self._real(events) as world:
                yield world

    @contextlib.contextmanager
    def _real(self, events: Events) -> Iterator[World]:
        from btp_reconcile.edges.access import Platform
        from btp_reconcile.edges.client import Client  # what asks nobody does not need it, and starts sooner

        clock = WallClock()
        hosts = (*self.allow_host, *os.environ.get("RECONCILE_HOSTS", "").replace(",", " ").split())
        home = Path(os.environ["CF_HOME"]) if os.environ.get("CF_HOME") else _home()
        with (
            Client(clock=clock, events=events, allow_hosts=hosts, parallel=self.parallel) as client,
            self._stopping(clock) as stopping,
            contextlib.ExitStack() as closing,
        ):
            closing.callback(self._count, client)

            def platform(wanted: Wanted) -> Platform:
                consumers = Consumers(SINKS, wanted.access, self._around(client, os.environ))
                closing.callback(consumers.close)
                return Platform(client, wanted.access, os.environ, home, consumers, self._people())

            yield World(
                os.environ,
                read_outside,
                platform,
                clock,
                events,
                parallel=self.parallel,
                stopped=lambda: stopping.asked,
            )

    @contextlib.contextmanager
    def _rehearsal(self, events: Events) -> Iterator[World]:
        sandbox = open_sandbox(self.state)
        from btp_reconcile.edges.access import Platform
        from btp_reconcile.edges.client import Client
        from btp_reconcile.sandbox import InProcessAdapter

        with sandbox.hold() as inside:
            # A world that was served lives in real seconds, and time spent waiting for it is real.
            clock = WallClock() if inside.mode == "seconds" else MovingClock(inside.now())
        adapter = InProcessAdapter(sandbox)
        beside = state_file(self.state)
        scratch = Path(f"{beside}.files")
        really = frozenset(self.sandbox_deliver)
        with (
            Client(
                clock=clock,
                events=events,
                adapter=adapter,
                parallel=self.parallel,
                compare_clocks=False,  # a rehearsed world counts its own time
            ) as client,
            self._stopping(clock) as stopping,
            contextlib.ExitStack() as closing,
        ):
            closing.callback(self._count, client)

            def platform(wanted: Wanted) -> Platform:
                environment = {name: text for name, text in os.environ.items() if really}
                around = self._around(client, environment)
                real = Consumers(SINKS, wanted.access, around)
                files = Consumers(SINKS, {}, replace(around, folder=lambda path: _inside(scratch, path)))
                where = Path(f"{beside}.delivered")
                consumers = Rehearsed(SINKS, where, really, real, files)
                closing.callback(consumers.close)
                return Platform(client, rehearse(sandbox, wanted), {}, None, consumers, self._people())

            yield World(
                os.environ,
                read_outside,
                platform,
                clock,
                events,
                rehearsal=True,
                really=really,
                parallel=self.parallel,
                stopped=lambda: stopping.asked,
                served=within_sandbox,
            )

    def _stopping(self, clock: WallClock | MovingClock) -> contextlib.AbstractContextManager[Stopping]:
        if self.lasting is None:
            return Stopping(clock)
        self.lasting.stopping.clock = clock
        return contextlib.nullcontext(self.lasting.stopping)

    def _people(self) -> People | None:
        return None if self.lasting is None else self.lasting.people

    def _count(self, client: Client) -> None:
        """Take note of what was asked, for who counts over many worlds."""
        if self.lasting is not None:
            for (service, _), number in client.counts.items():
                self.lasting.requests[service] += number

    def _around(self, client: Client, environment: Mapping[str, str]) -> Around:
        """What sinks may use of the world."""
        return Around(
            environment,
            check=lambda url: client.check("sink", url),
            folder=lambda path: str(Path(path).expanduser().absolute()),
            read=lambda path: files.whole(path, load.MAX_BYTES),
            commands=self.allow_commands,
            now=WallClock().now,  # consumers live in real time, also while the platform is rehearsed
        )


def _inside(scratch: Path, path: str) -> str:
    """A path of a rehearsal: the same below a folder of the sandbox's, which is made."""
    parts = [part for part in Path(path).absolute().parts[1:] if part not in {"..", "."}]
    folder = scratch
    for part in (
        "",
        *parts[:-1],
    ):  # one by one: `parents` makes folders that others may write, if the umask lets it
        folder /= part
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            why = error.strerror or "it cannot be made"
            raise PlatformError(Blame("file", url=str(folder), message=f"{folder}: {why}")) from None
    return str(scratch.joinpath(*parts))


def read_outside(path: str, spec_file: str) -> str:
    """What `${file:path}` stands for: below the spec's folder, unless RECONCILE_FILES=anywhere was said."""
    return load.outside(path, spec_file, anywhere=os.environ.get("RECONCILE_FILES") == "anywhere")


def open_sandbox(given: str | None, seed: int = 0, time: str = "looks") -> Sandbox:
    """The sandbox in its file. Raises UsageError when that cannot be."""
    for module, extra in talk.EXTRAS.items():
        if extra == "sandbox" and util.find_spec(module) is None:  # found out before there is half a world
            raise ModuleNotFoundError(name=module)
    from btp_reconcile.sandbox import Sandbox

    path = state_file(given)
    try:
        if path.exists() and not holds_a_world(path):
            raise UsageError(f"{path} holds something else than a sandbox's world; name another --state FILE")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Sandbox(path, seed=seed, time=time)
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"the sandbox cannot use {path}: {why}; name another --state FILE") from None


def holds_a_world(path: Path) -> bool:
    """Is this file a sandbox's? Nothing else is ever overwritten or deleted. Raises OSError if it cannot be read."""
    try:
        found = json.loads(files.whole(path))
    except (ValueError, RecursionError):
        return False
    parts = ("settings", "keys", "faults", "tables")
    return (
        isinstance(found, dict)
        and found.get("format") == 1
        and found.get("time") in {"looks", "seconds"}
        and all(isinstance(found.get(part), dict) for part in parts)
    )


def within_sandbox(wanted: Wanted) -> Wanted:
    """In a rehearsal a Cloud Foundry API at an address of its own is played by that of the region."""
    subaccounts = {name: _landscaped(one) for name, one in wanted.subaccounts.items()}
    return replace(wanted, subaccounts=subaccounts)


def _landscaped(subaccount: Subaccount) -> Subaccount:
    foundry = subaccount.cloud_foundry
    if foundry is None or _LANDSCAPE.fullmatch(foundry.api):
        return subaccount
    return replace(subaccount, cloud_foundry=replace(foundry, api=api_of_landscape(subaccount.region)))


def world_of(wanted: Wanted) -> dict[str, Any]:
    """The subaccounts that specs name, as a world the sandbox can be given."""
    spaces: dict[str, set[str]] = {name: set() for name in wanted.subaccounts}
    for resource in wanted.of("instance"):
        if resource.spec.get("space"):
            spaces[resource.address.subaccount].add(resource.spec["space"])
    world: dict[str, Any] = {}
    for name, one in within_sandbox(wanted).subaccounts.items():
        world[name] = {"id": one.id, "region": one.region}
        if one.cloud_foundry is not None:
            if one.cloud_foundry.space:
                spaces[name].add(one.cloud_foundry.space)
            match = _LANDSCAPE.fullmatch(one.cloud_foundry.api)
            world[name]["cloud_foundry"] = {
                "landscape": match.group(1) if match else one.region,
                "org": one.cloud_foundry.org,
                "spaces": sorted(spaces[name]),
            }
    return {"subaccounts": world}


def rehearse(sandbox: Sandbox, wanted: Wanted) -> Mapping[str, Mapping[str, Any]]:
    """Make the subaccounts there, and give the credentials that open them."""
    sandbox.seed(_named_apart(sandbox, world_of(wanted)))
    keys = sandbox.access()
    access: dict[str, dict[str, Any]] = {}
    for name, one in within_sandbox(wanted).subaccounts.items():
        mine: dict[str, Any] = {"central": {"service_key": json.dumps(keys["central"])}}
        manager = keys["service_manager"].get(one.id)
        if manager is not None and not _bootstraps(wanted, name, "service_manager"):
            mine["service_manager"] = {"service_key": json.dumps(manager)}
        opened = keys.get("destination", {}).get(one.id)
        if opened is not None and not _bootstraps(wanted, name, "destination"):
            mine["destination"] = {"service_key": json.dumps(opened)}
        if one.cloud_foundry is not None:
            # Everywhere the same user; also where the subaccount has no organization, so that this is what is said.
            user = next(iter(keys["cloud_foundry"].values()), None)
            if user is not None:
                mine["cloud_foundry"] = {"username": user["username"], "password": user["password"]}
        access[name] = mine
    return access


def _bootstraps(wanted: Wanted, subaccount: str, service: str) -> bool:
    """Is this service opened by what the run itself makes? Then that is rehearsed, too."""
    said = wanted.access.get(subaccount, {}).get(service)
    return isinstance(said, dict) and bool(said.get("bootstrap"))


def _named_apart(sandbox: Sandbox, document: dict[str, Any]) -> dict[str, Any]:
    """Two specs may mean two subaccounts by one name: the sandbox tells them apart by name, a spec by id."""
    with sandbox.hold() as world:
        known = {name: row["id"] for name, row in world.table("sandbox.subaccounts").items()}
    names = {guid: name for name, guid in known.items()}
    subaccounts = {}
    for name, one in document["subaccounts"].items():
        free = name if known.get(name, one["id"]) == one["id"] else f"{name} {one['id'][:8]}"
        subaccounts[names.get(one["id"], free)] = one
    return {**document, "subaccounts": subaccounts}


class Stopping:
    """Ctrl-C and SIGTERM ask the run to stop; what had been started stays started.

    A second one ends it at once, and so does time: an answer that does not come is not waited for. `code` and `words` are
    how it ends then. `pausing` is a clock that somebody may wait by beside `clock`.
    """

    def __init__(
        self,
        clock: WallClock | MovingClock,
        code: int = report.PENDING,
        words: str = talk.STOPPED,
        pausing: WallClock | None = None,
    ) -> None:
        self.asked = False
        self.clock = clock
        self._pausing = pausing
        self._end = functools.partial(_end_at_once, code, words)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        import threading

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *reason: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        if self.asked:
            self._end(number, frame)
        self.asked = True
        for clock in (self.clock, self._pausing):
            if isinstance(clock, WallClock):
                clock.stop()
        # Stays set to the very end: a thread that waits for an answer would hold up the interpreter, too.
        signal.signal(signal.SIGALRM, self._end)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)


@dataclass
class Lasting:
    """What outlives one look at the world, in a service that looks again and again."""

    stopping: Stopping
    people: People
    """A password that was refused is not tried again by the next check: repeats lock accounts."""
    requests: Counter[str] = field(default_factory=Counter)
    """Requests sent, by service."""


def _end_at_once(code: int, words: str, number: int, frame: object) -> None:  # noqa: ARG001 - signal handlers
    """The process is gone in a moment, with the code it was given; temporary files go first."""
    cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress line hides it
    with contextlib.suppress(OSError):
        os.write(2, f"{cursor}{words}\n".encode())
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to end while threads wait, and leave no file
    os._exit(code)


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """While a person is asked nothing is under way: Ctrl-C and SIGTERM end it there."""
    before = {one: signal.signal(one, signal.default_int_handler) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
