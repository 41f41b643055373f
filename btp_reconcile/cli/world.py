"""Which world a command works in: the real one, or the embedded sandbox."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btp_reconcile.core.errors import UsageError
from btp_reconcile.core.resolve import api_of_landscape
from btp_reconcile.edges import load
from btp_reconcile.edges.access import Platform
from btp_reconcile.edges.client import Client
from btp_reconcile.edges.clock import MovingClock, WallClock
from btp_reconcile.pipeline import World

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from btp_reconcile.cli.talk import Events
    from btp_reconcile.core.model import Subaccount, Wanted
    from btp_reconcile.sandbox import Sandbox

STATE = "RECONCILE_SANDBOX"
"""The environment variable that says where the sandbox keeps its world."""

_LANDSCAPE = re.compile(r"https://api\.cf\.([a-z0-9-]+)\.(?:hana\.ondemand\.com|platform\.sapcloud\.cn)")


def state_file(given: str | None) -> Path:
    """Where the sandbox keeps its world: --state, $RECONCILE_SANDBOX, or the user's state folder."""
    if given or os.environ.get(STATE):
        return Path(given or os.environ[STATE])
    folder = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(folder) / "btp-reconcile" / "sandbox.json"


@dataclass
class Setting:
    """What the options say about the world."""

    sandbox: bool
    state: str | None
    allow_host: tuple[str, ...]
    parallel: int

    @contextmanager
    def world(self, events: Events) -> Iterator[World]:
        """The world, for as long as a command needs it."""
        if self.sandbox:
            with self._rehearsal(events) as world:
                yield world
        else:
            with self._real(events) as world:
                yield world

    @contextmanager
    def _real(self, events: Events) -> Iterator[World]:
        clock = WallClock()
        stopping = _Stopping(clock)
        hosts = (*self.allow_host, *os.environ.get("RECONCILE_HOSTS", "").replace(",", " ").split())
        home = Path(os.environ["CF_HOME"]) if os.environ.get("CF_HOME") else Path.home()
        with (
            Client(clock=clock, events=events, allow_hosts=hosts, parallel=self.parallel) as client,
            stopping,
        ):
            yield World(
                os.environ,
                read_outside,
                lambda wanted: Platform(client, wanted.access, os.environ, home),
                clock,
                events,
                parallel=self.parallel,
                stopped=lambda: stopping.asked,
            )

    @contextmanager
    def _rehearsal(self, events: Events) -> Iterator[World]:
        sandbox = open_sandbox(self.state)
        from btp_reconcile.sandbox import InProcessAdapter

        with sandbox.hold() as inside:
            clock = MovingClock(inside.now())
        stopping = _Stopping(None)
        adapter = InProcessAdapter(sandbox)
        with Client(clock=clock, events=events, adapter=adapter, parallel=self.parallel) as client, stopping:

            def platform(wanted: Wanted) -> Platform:
                return Platform(client, rehearse(sandbox, wanted), {}, None)

            yield World(
                os.environ,
                read_outside,
                platform,
                clock,
                events,
                rehearsal=True,
                parallel=self.parallel,
                stopped=lambda: stopping.asked,
                served=within_sandbox,
            )


def read_outside(path: str, spec_file: str) -> str:
    """What `${file:path}` stands for: below the spec's folder, unless RECONCILE_FILES=anywhere was said."""
    return load.outside(path, spec_file, anywhere=os.environ.get("RECONCILE_FILES") == "anywhere")


def open_sandbox(given: str | None, seed: int = 0, time: str = "looks") -> Sandbox:
    """The sandbox in its file. Raises UsageError when that cannot be."""
    from btp_reconcile.sandbox import Sandbox

    path = state_file(given)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Sandbox(path, seed=seed, time=time)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no sandbox's world"
        raise UsageError(f"the sandbox cannot use {path}: {why}; name another file with --state") from None


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
    sandbox.seed(world_of(wanted))
    keys = sandbox.access()
    access: dict[str, dict[str, Any]] = {}
    for name, one in within_sandbox(wanted).subaccounts.items():
        mine: dict[str, Any] = {"central": {"service_key": json.dumps(keys["central"])}}
        manager = keys["service_manager"].get(one.id)
        if manager is not None:
            mine["service_manager"] = {"service_key": json.dumps(manager)}
        if one.cloud_foundry is not None:
            match = _LANDSCAPE.fullmatch(one.cloud_foundry.api)
            foundry = keys["cloud_foundry"][match.group(1) if match else one.region]
            mine["cloud_foundry"] = {"username": foundry["username"], "password": foundry["password"]}
        access[name] = mine
    return access


class _Stopping:
    """Ctrl-C and SIGTERM ask the run to stop; what had been started stays started. A second one ends it at once."""

    def __init__(self, clock: WallClock | None) -> None:
        self.asked = False
        self._clock = clock
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        import threading

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._stop)

    def __exit__(self, *reason: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:  # noqa: ARG002 - the shape signal handlers have
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._clock is not None:
            self._clock.stop()
